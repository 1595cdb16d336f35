"""The manifest: one row per head, as Parquet or HDF5, with a schema that explains itself and a fingerprint.

Both formats hold the same columns and the same values. Parquet is the working format, written and read in
row groups, so that a million heads are never in memory at once.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ubhpd.core.errors import UbhpdError, shortened
from ubhpd.core.files import file_identity, replacing
from ubhpd.core.records import OF_SOURCE_PHOTO
from ubhpd.manifest.schema import (
    COLUMNS,
    FINGERPRINT_KEY,
    SCHEMA_VERSION,
    VERSION_KEY,
    Column,
    Fingerprint,
    list_length,
    regrouped,
    schema,
)

ROW_GROUP = 16_384  # heads; about 25 MB before compression

VERIFIED_BYTES = 16 << 20  # files up to this size are read through before their first rows are given: 0.1 s
REQUIRED = ("sample_id", "dataset", "drop_reason", *(f"{a}_deg" for a in ("yaw", "pitch", "roll")))
NEVER_NULL = ("sample_id", "dataset")
PLAIN_TYPES = (
    pa.string(), pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(),
)  # fmt: skip

_LONGEST_REASON = 120
_YOUNG_SECONDS = 1.0
_DAMAGED = "build it again, or restore the file"
_REMEDY = "give a manifest that ubhpd build wrote, for example OUT/pool.parquet"


class Header(NamedTuple):
    """What the metadata of a manifest state."""

    schema: pa.Schema
    rows: int
    fingerprint: str


def write_parquet(tables: Iterable[pa.Table], path: Path, columns: tuple[Column, ...] = COLUMNS) -> str:
    """Write tables as one manifest and return its fingerprint.

    The bytes depend on the rows alone, not on how they are cut into tables. The file appears whole or not at all.
    """
    fingerprint = Fingerprint(columns)
    repeating = [c.name for c in columns if pa.types.is_string(c.type) and not c.mostly_unique]
    with (
        replacing(path) as part,
        pq.ParquetWriter(
            part, schema(columns), compression="zstd", use_dictionary=repeating, write_page_checksum=True
        ) as writer,
    ):
        for group in regrouped(tables, ROW_GROUP):
            fingerprint.update(group)
            writer.write_table(group, row_group_size=ROW_GROUP)
        writer.add_key_value_metadata({FINGERPRINT_KEY: fingerprint.hexdigest().encode()})
    return fingerprint.hexdigest()


def write_hdf5(source: Path, path: Path) -> None:
    """Write the Parquet manifest `source` as HDF5 at `path`, batch by batch."""
    from ubhpd.manifest import hdf5

    with replacing(path) as part:
        hdf5.write(header(source).schema, header(source).rows, lambda names: iterate(source, names), part)


def read(path: str | os.PathLike[str], columns: Sequence[str] | None = None, *, verify: bool = True) -> pa.Table:
    """Return a manifest, Parquet or HDF5 by its content, as an Arrow table (`.to_pandas()` for a data frame).

    Args:
        path: the file.
        columns: names of the columns to read; all of them by default.
        verify: compare the rows with the fingerprint, see `iterate`.

    Raises:
        UbhpdError: no such file, not a manifest, a damaged one, another schema version, or an unknown column.
    """
    whole = header(path).schema
    names = list(columns) if columns is not None else whole.names
    chosen = pa.schema([whole.field(n) for n in names if n in whole.names], whole.metadata)
    return pa.Table.from_batches(iterate(path, columns, verify=verify), schema=chosen)


def iterate(
    path: str | os.PathLike[str], columns: Sequence[str] | None = None, *, verify: bool = True
) -> Iterator[pa.RecordBatch]:
    """Yield a manifest in batches of at most ROW_GROUP heads.

    Parquet pages carry checksums, which are always compared. The fingerprint of all rows is compared too where all
    columns are read, and at the first opening of a file of at most VERIFIED_BYTES.

    Args:
        path: the file.
        columns: names of the columns to read; all of them by default.
        verify: compare the fingerprint.

    Raises:
        UbhpdError: as `read`; what is wrong with the last rows shows up after the first ones were given.
    """
    stated = header(path)
    known = stated.schema.names
    names = list(columns) if columns is not None else known
    if unknown := [n for n in names if n not in known]:
        raise UbhpdError(f"{path} has no column {unknown[0]!r}: it has {', '.join(known)}.")
    if verify and os.path.getsize(path) <= VERIFIED_BYTES:
        _verify_once(os.fspath(path), _content(path))
        verify = False
    yield from _batches(path, stated, names, verify and set(names) == set(known))


def is_unchanged(path: str | os.PathLike[str]) -> bool:
    """Return True if the rows of a manifest have the fingerprint that it states; errors as `header`."""
    stated = header(path)
    try:
        for _ in _batches(path, stated, stated.schema.names, verify=True):
            pass
    except UbhpdError:
        return False
    return True


@lru_cache(maxsize=64)
def _verify_once(path: str, identity: str) -> None:
    """Read a manifest through and compare its fingerprint; `identity` tells one content of the file from another."""
    stated = header(path)
    for _ in _batches(path, stated, stated.schema.names, verify=True):
        pass


def _batches(path: str | os.PathLike[str], stated: Header, names: list[str], verify: bool) -> Iterator[pa.RecordBatch]:
    """Yield columns in batches, each batch checked, and at the end their number and, if asked for, the fingerprint."""
    fields = [stated.schema.field(n) for n in names]
    mark = Fingerprint([Column(f.name, f.type, "", "", "", length=list_length(f)) for f in stated.schema])
    rows = 0
    with _readable(path):
        source = _opened_batches(path, stated, names)
    while True:
        with _readable(path):
            batch = next(source, None)
            if batch is None:
                break
            _check_values(batch, fields)
            if verify:
                mark.update(pa.Table.from_batches([batch.select(stated.schema.names)]))
        rows += batch.num_rows
        yield batch
    if rows != stated.rows:
        raise UbhpdError(f"{path} states {stated.rows:,} heads and holds {rows:,}: {_DAMAGED}.")
    if verify and mark.hexdigest() != stated.fingerprint:
        raise UbhpdError(f"{path} was changed or damaged after it was built (its fingerprint differs): {_DAMAGED}.")


def _opened_batches(path: str | os.PathLike[str], stated: Header, names: list[str]) -> Iterator[pa.RecordBatch]:
    if _is_hdf5(path):
        from ubhpd.manifest import hdf5

        return hdf5.iterate(path, stated.schema, stated.rows, names, ROW_GROUP)
    batches: Iterator[pa.RecordBatch] = pq.ParquetFile(path, page_checksum_verification=True).iter_batches(
        ROW_GROUP, columns=names
    )
    return (batch.select(names) for batch in batches)


def _check_values(batch: pa.RecordBatch, fields: list[pa.Field]) -> None:
    """Raise ValueError if a batch does not hold what its schema says."""
    batch.validate(full=True)
    for column, field in zip(batch.columns, fields, strict=True):
        if column.type != field.type:
            raise ValueError(f"the column {field.name} holds {column.type}, not {field.type}")
        if field.name in NEVER_NULL and column.null_count:
            raise ValueError(f"the column {field.name} has {column.null_count:,} rows without a value")
        if (length := list_length(field)) is not None:
            filled = column.drop_null()
            values = filled.flatten()
            if len(values) != length * len(filled) or values.null_count:
                raise ValueError(f"the column {field.name} holds lists of other lengths than {length}")
            if len(filled) and (pc.list_value_length(filled).to_numpy() != length).any():
                raise ValueError(f"the column {field.name} holds lists of other lengths than {length}")


def check_schema(schema: pa.Schema) -> None:
    """Raise ValueError unless the columns of a schema are those of a manifest, in type and length.

    Further columns are allowed if they are texts, numbers, true or false, or lists of floats of a stated length.
    """
    known = {c.name: c for c in COLUMNS}
    if len(set(schema.names)) != len(schema.names):
        raise ValueError("a column is there twice")
    if missing := [n for n in REQUIRED if n not in schema.names]:
        raise ValueError(f"it has no column {missing[0]}")
    for field in schema:
        column = known.get(field.name)
        length = stated_length(field)
        is_plain = length is None and any(field.type.equals(t) for t in PLAIN_TYPES)
        is_lists = length is not None and field.type.equals(pa.list_(pa.float64()))
        if not (is_plain or is_lists):
            raise ValueError(f"its column {shortened(field.name)} is of type {field.type}")
        if column is not None and (not field.type.equals(column.type) or length != column.length):
            raise ValueError(f"its column {field.name} is of type {field.type}, not {column.type}")


def stated_length(field: pa.Field) -> int | None:
    """Return the length that the metadata of a column of lists states, None for another column or a bad length."""
    text = (field.metadata or {}).get(b"length", b"")
    is_length = pa.types.is_list(field.type) and text.isdigit() and 0 < len(text) <= 4 and int(text) > 0
    return int(text) if is_length else None


@contextmanager
def _readable(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever a library says of a damaged file into one sentence."""
    try:
        yield
    except UbhpdError:
        raise
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        reason = "".join(c if c.isprintable() else "?" for c in lines[0])[:_LONGEST_REASON]
        raise UbhpdError(f"{path} is not a readable Parquet or HDF5 manifest ({reason}): {_REMEDY}.") from None


def usable(path: str | os.PathLike[str], columns: Sequence[str], split: str | None = None) -> pa.Table:
    """Return columns of the heads that were not refused, of one split if it is named.

    Raises:
        UbhpdError: as `read`, no column `split` to choose by, or no usable head of that split.
    """
    names = [*columns, "drop_reason"]
    if split is not None:
        if "split" not in header(path).schema.names:
            raise UbhpdError(f"{path} has no column 'split': leave --split out, or give a sampled dataset.")
        names.append("split")
    table = read(path, list(dict.fromkeys(names)))
    table = table.filter(table.column("drop_reason").is_null())
    if split is None:
        return table
    splits = sorted(set(table.column("split").drop_null().to_pylist()))
    if split not in splits:
        raise UbhpdError(f"{path} has no usable head of the split {split!r}: it has {', '.join(splits) or 'none'}.")
    return table.filter(pc.equal(table.column("split"), split))


def with_landmarks(rows: pa.Table, path: str | os.PathLike[str]) -> pa.Table:
    """Return rows of a manifest with the 68 landmarks that another manifest has of the same heads.

    Args:
        rows: with sample_id, landmarks68 and landmarks_kind.
        path: the manifest that `ubhpd landmarks` wrote. Heads for which it has no landmarks of their own image keep
            what they have; heads that are not among the rows do not count.

    Raises:
        UbhpdError: it is no manifest, or has landmarks of not one of the rows.
    """
    names = ["sample_id", "landmarks68", "landmarks_kind"]
    parts = []
    wanted = rows.column("sample_id").combine_chunks()
    for batch in iterate(path, names):
        kinds = pc.fill_null(batch.column("landmarks_kind"), "")
        own = pc.and_(batch.column("landmarks68").is_valid(), pc.invert(pc.ends_with(kinds, OF_SOURCE_PHOTO)))
        parts.append(batch.filter(pc.and_(own, pc.is_in(batch.column("sample_id"), value_set=wanted))))
    found = pa.Table.from_batches(parts)
    if rows.num_rows and not found.num_rows:
        raise UbhpdError(
            f"{path} has landmarks of not one of these {rows.num_rows:,} heads: fill them by ubhpd landmarks."
        )
    at = pc.index_in(wanted, value_set=found.column("sample_id").combine_chunks())
    for name in names[1:]:
        place = rows.schema.get_field_index(name)
        theirs = found.column(name).take(at).cast(rows.schema.field(name).type)
        both = pa.chunked_array([*rows.column(name).chunks, *theirs.chunks], rows.schema.field(name).type)
        order = pc.if_else(
            at.is_valid(), pa.array(range(rows.num_rows, 2 * rows.num_rows)), pa.array(range(rows.num_rows))
        )
        rows = rows.set_column(place, rows.schema.field(place), both.take(order))
    return rows


def header(path: str | os.PathLike[str]) -> Header:
    """Return the schema, the number of heads and the fingerprint that a manifest states.

    Raises:
        UbhpdError: no such file, not a manifest, or another schema version.
    """
    return _header(os.fspath(path), _content(path))


def _content(path: str | os.PathLike[str]) -> str:
    """Return what tells one content of a file from another.

    A file that was written just now is always another one: the clock of a file system can be too coarse to tell two
    writes apart.
    """
    identity = file_identity(path)
    with suppress(OSError, ValueError):
        if time.time() - os.stat(path).st_mtime < _YOUNG_SECONDS:
            return f"{identity} {time.monotonic_ns()}"
    return identity


@lru_cache(maxsize=64)
def _header(path: str, identity: str) -> Header:
    """Return the header of one content of a file, which `identity` tells from another."""
    with _readable(path):
        schema, rows = _hdf5_header(path) if _is_hdf5(path) else _parquet_header(path)
        metadata = schema.metadata or {}
        if VERSION_KEY not in metadata or FINGERPRINT_KEY not in metadata:
            raise UbhpdError(f"{path} is not a manifest of ubhpd: {_REMEDY}.")
        if (version := metadata[VERSION_KEY].decode(errors="replace")) != str(SCHEMA_VERSION):
            raise UbhpdError(
                f"{path} has manifest schema {shortened(version)[1:-1]}, this ubhpd reads {SCHEMA_VERSION}: build it "
                "again."
            )
        check_schema(schema)
        return Header(schema, rows, metadata[FINGERPRINT_KEY].decode())


def _parquet_header(path: str | os.PathLike[str]) -> tuple[pa.Schema, int]:
    with pq.ParquetFile(path) as file:
        own = {k: v for k, v in (file.metadata.metadata or {}).items() if k.startswith(b"ubhpd.")}
        return file.schema_arrow.with_metadata(own), file.metadata.num_rows


def _hdf5_header(path: str | os.PathLike[str]) -> tuple[pa.Schema, int]:
    from ubhpd.manifest import hdf5

    return hdf5.read_schema(path)


def _is_hdf5(path: str | os.PathLike[str]) -> bool:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UbhpdError(f"Cannot open {path} (it is no regular file): {_REMEDY}.")
        with open(path, "rb") as file:
            return file.read(8) == b"\x89HDF\r\n\x1a\n"
    except OSError as error:
        raise UbhpdError(f"Cannot open {path} ({error.strerror}): check the path.") from None
    except ValueError:  # a NUL in it
        raise UbhpdError(f"{shortened(os.fspath(path))} is not a path: check it.") from None
