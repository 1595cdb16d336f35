"""The columns of a manifest, from records to Arrow tables, and the fingerprint of their content.

`docs/manifest.md` explains every column; a test keeps it and COLUMNS the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd.core.records import Record
from ubhpd.core.typing import AnyArray, BoolArray, FloatArray

SCHEMA_VERSION = 1
CONVENTION_VERSION = 2  # of the angles; 2: angles of a matrix are the triplet with the smaller |pitch| + |roll|
FINGERPRINT_KEY = b"ubhpd.fingerprint"
VERSION_KEY = b"ubhpd.schema_version"


class Column(NamedTuple):
    """One column: its Arrow type, and in words its unit, its frame and its meaning."""

    name: str
    type: pa.DataType
    unit: str
    frame: str
    meaning: str
    mostly_unique: bool = False  # a string that seldom repeats, so that a dictionary of it would only cost
    length: int | None = None  # of a list


_IMAGE = "image: pixels of the image at image_path, x right, y down"
_C = "C: x image-right, y up, z toward the viewer"
_RAW = "see raw_convention"
_EULER = "R = Rx(-pitch) Ry(-yaw) Rz(-roll) in frame C"


# Not a list of fixed size, although each is one: before release 26 Arrow cannot read those back with nulls.
_FLOATS = pa.list_(pa.float64())


COLUMNS: tuple[Column, ...] = (
    Column("sample_id", pa.string(), "", "", "stable, readable, unique name; starts with the dataset", True),
    Column("dataset", pa.string(), "", "", "the builder that read it"),
    Column("subject_id", pa.string(), "", "", "the person, where the source tells persons apart"),
    Column("sequence_id", pa.string(), "", "", "the recording, or the folder that was published as a whole"),
    Column("frame_index", pa.int64(), "frames", "", "number of the frame in its recording, as the source counts"),
    Column("image_path", pa.string(), "", "", "image or video, relative to the root of the dataset", True),
    Column("image_width", pa.int32(), "px", "", "width stated in the image's header"),
    Column("image_height", pa.int32(), "px", "", "height stated in the image's header"),
    Column("bbox_xyxy", _FLOATS, "px", _IMAGE, "face box: left, top, right, bottom; may leave the image", length=4),
    Column("bbox_kind", pa.string(), "", "", "how the box was made"),
    Column("landmarks68", _FLOATS, "px", _IMAGE, "x0 y0 x1 y1 ... of 68 iBUG points; NaN where invisible", length=136),
    Column("landmarks21", _FLOATS, "px", _IMAGE, "x0 y0 x1 y1 ... of 21 AFLW points; NaN where invisible", length=42),
    Column("landmarks_kind", pa.string(), "", "", "where the landmarks come from"),
    Column("yaw_deg", pa.float64(), "deg", _EULER, "canonical yaw, + toward image-left"),
    Column("pitch_deg", pa.float64(), "deg", _EULER, "canonical pitch, + up"),
    Column("roll_deg", pa.float64(), "deg", _EULER, "canonical roll, + clockwise in the image"),
    Column("rotation", _FLOATS, "", _C, "3x3 matrix, row-major, head coordinates to frame C", length=9),
    Column("raw_angles", _FLOATS, _RAW, _RAW, "the triplet as the source has it", length=3),
    Column(
        "raw_convention",
        pa.string(),
        "",
        "",
        "column order, unit and axes of raw_angles: ubhpd.core.rotation.CONVENTIONS",
    ),
    Column("synthetic", pa.bool_(), "", "", "true for a rendered or warped head"),
    Column("flip_of", pa.string(), "", "", "sample_id of the head that this one mirrors", True),
    Column(
        "source_photo",
        pa.string(),
        "",
        "",
        "the photograph behind it; equal across all its renderings and datasets",
    ),
    Column(
        "drop_reason",
        pa.string(),
        "",
        "",
        "null for a usable head, else a code of ubhpd.core.records.DROP_REASONS",
    ),
    Column("drop_detail", pa.string(), "", "", "the sentence that goes with drop_reason", True),
)
NAMES: tuple[str, ...] = tuple(c.name for c in COLUMNS)


@lru_cache(maxsize=8)
def schema(columns: tuple[Column, ...] = COLUMNS) -> pa.Schema:
    """Return the Arrow schema of a manifest: types, per-column unit, frame, meaning and length, and the version."""
    fields = []
    for c in columns:
        metadata = {"unit": c.unit, "frame": c.frame, "meaning": c.meaning}
        if c.length is not None:
            metadata["length"] = str(c.length)
        fields.append(pa.field(c.name, c.type, metadata=metadata))
    return pa.schema(fields, metadata={VERSION_KEY: str(SCHEMA_VERSION).encode()})


def list_length(field: pa.Field) -> int | None:
    """Return how many numbers each list of a manifest's column has, None if it is no column of lists."""
    return int(field.metadata[b"length"]) if pa.types.is_list(field.type) else None


def row_numbers(rows: AnyArray) -> pa.Int64Array:
    """Return integers (n,) for `take`. `pa.array` would import pandas, which takes longer than many a command."""
    values = np.ascontiguousarray(rows, dtype=np.int64)
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(values)])


def mask_of(flags: BoolArray) -> pa.BooleanArray:
    """Return booleans (n,) for `filter`, as `row_numbers` without pandas."""
    bits = np.packbits(np.asarray(flags, dtype=bool), bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(flags), [None, pa.py_buffer(bits)])


def matrix(values: pa.Array | pa.ChunkedArray, length: int) -> FloatArray:
    """Return a column of lists of `length` numbers as (n, length), NaN where there is none."""
    rows = np.full((len(values), length), np.nan)
    filled = pc.list_flatten(values.drop_null())
    rows[np.asarray(values.is_valid())] = filled.to_numpy(zero_copy_only=False).reshape(-1, length)
    return rows


def lists(rows: FloatArray, valid: BoolArray | None = None) -> pa.Array:
    """Return the rows of a matrix as a column of lists, null where not valid."""
    length = rows.shape[1]
    if valid is None:
        return pa.ListArray.from_arrays(np.arange(len(rows) + 1, dtype=np.int32) * length, rows.ravel())
    offsets = np.concatenate([[0], np.cumsum(valid) * length]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(rows[valid].ravel()), mask=pa.array(~valid))


def table_from_records(dataset: str, records: Sequence[Record]) -> pa.Table:
    """Return a manifest table of one dataset's records, in their order."""
    columns: dict[str, Any] = {n: [] for n in Record._fields}
    if records:
        columns = dict(zip(Record._fields, zip(*records, strict=True), strict=True))
    columns["dataset"] = [dataset] * len(records)
    return pa.table([_array(columns[c.name], c) for c in COLUMNS], schema=schema())


def fingerprint(tables: Iterable[pa.Table | pa.RecordBatch], columns: Sequence[Column] = COLUMNS) -> str:
    """Return the SHA-256 fingerprint of the rows: equal for equal rows, whatever the file format or the cut."""
    result = Fingerprint(columns)
    for table in tables:
        result.update(pa.Table.from_batches([table]) if isinstance(table, pa.RecordBatch) else table)
    return result.hexdigest()


class Fingerprint:
    """Running hashes of every column: which slots are filled, how long the values are, and the values."""

    def __init__(self, columns: Sequence[Column] = COLUMNS) -> None:
        self._columns = columns
        self._hashes = {c.name: [hashlib.sha256() for _ in range(3)] for c in columns}

    def update(self, table: pa.Table) -> None:
        """Add rows."""
        for column in self._columns:
            valid_hash, length_hash, value_hash = self._hashes[column.name]
            for chunk in table.column(column.name).chunks:
                valid_hash.update(_bytes(chunk.is_valid()))
                filled = chunk.drop_null()
                if pa.types.is_string(column.type):
                    length_hash.update(_bytes(pc.binary_length(filled).cast(pa.int32())))
                    value_hash.update("".join(filled.to_pylist()).encode())
                elif column.length is not None:
                    value_hash.update(_bytes(filled.flatten()))
                else:
                    value_hash.update(_bytes(filled))

    def hexdigest(self) -> str:
        """Return the fingerprint so far."""
        whole = hashlib.sha256(f"ubhpd manifest {SCHEMA_VERSION}".encode())
        for name, hashes in self._hashes.items():
            whole.update(name.encode())
            for part in hashes:
                whole.update(part.digest())
        return whole.hexdigest()


def regrouped(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """Yield the rows of `tables` again in tables of `size` rows, the last one shorter."""
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        waiting.append(table)
        count += table.num_rows
        if count >= size:
            joined = pa.concat_tables(waiting)
            whole = count // size * size
            for start in range(0, whole, size):
                yield joined.slice(start, size).combine_chunks()
            waiting, count = [joined.slice(whole)], count - whole
    if count:
        yield pa.concat_tables(waiting).combine_chunks()


def _array(values: Sequence[Any], column: Column) -> pa.Array:
    if column.length is None:
        return pa.array(values, type=column.type)
    if type(None) not in set(map(type, values)):
        return lists(_rows(values, column.length))
    valid = np.fromiter((v is not None for v in values), dtype=bool, count=len(values))
    rows = np.empty((len(values), column.length))
    if valid.any():
        rows[valid] = _rows([v for v in values if v is not None], column.length)
    return lists(rows, valid)


def _bytes(values: pa.Array) -> memoryview:
    """Return the values of an array without nulls as bytes."""
    return np.ascontiguousarray(values.to_numpy(zero_copy_only=False)).data


def _rows(values: Sequence[Any], size: int) -> FloatArray:
    """Return lists or flat arrays of `size` numbers as the rows of a matrix."""
    if values and isinstance(values[0], np.ndarray):
        return np.concatenate(values, dtype=np.float64).reshape(-1, size)
    return np.array(values, dtype=np.float64).reshape(-1, size)
