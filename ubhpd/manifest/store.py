"""The manifest: one row per head, as Parquet or HDF5, with a schema that explains itself and a fingerprint.

Both formats hold the same columns and the same values. Parquet is the working format, written and read in
row groups, so that a million heads never lie in memory at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing
from ubhpd.manifest.schema import (
    COLUMNS,
    FINGERPRINT_KEY,
    SCHEMA_VERSION,
    VERSION_KEY,
    Column,
    Fingerprint,
    regrouped,
    schema,
)

ROW_GROUP = 16_384  # heads; about 25 MB before compression

_REMEDY = "give a manifest that ubhpd build wrote, for example OUT/pool.parquet"


class Header(NamedTuple):
    """What a manifest says of itself."""

    schema: pa.Schema
    rows: int
    fingerprint: str


def write_parquet(tables: Iterable[pa.Table], path: Path, columns: tuple[Column, ...] = COLUMNS) -> str:
    """Write tables as one manifest and return its fingerprint.

    The bytes depend on the rows alone, not on how they are cut into tables. The file appears whole or not at all.
    """
    mark = Fingerprint(columns)
    repeating = [c.name for c in columns if pa.types.is_string(c.type) and not c.mostly_unique]
    with (
        replacing(path) as part,
        pq.ParquetWriter(part, schema(columns), compression="zstd", use_dictionary=repeating) as writer,
    ):
        for group in regrouped(tables, ROW_GROUP):
            mark.update(group)
            writer.write_table(group, row_group_size=ROW_GROUP)
        writer.add_key_value_metadata({FINGERPRINT_KEY: mark.hexdigest().encode()})
    return mark.hexdigest()


def write_hdf5(source: Path, path: Path) -> None:
    """Write the Parquet manifest `source` as HDF5 at `path`, batch by batch."""
    from ubhpd.manifest import hdf5

    with replacing(path) as part:
        hdf5.write(header(source).schema, header(source).rows, lambda names: iterate(source, names), part)


def read(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> pa.Table:
    """Return a manifest, Parquet or HDF5 by its content, as an Arrow table (`.to_pandas()` for a data frame).

    Args:
        path: the file.
        columns: names of the columns wanted; all of them by default.

    Raises:
        UbhpdError: no such file, not a manifest, another schema version, or an unknown column.
    """
    whole = header(path).schema
    names = list(columns) if columns is not None else whole.names
    wanted = pa.schema([whole.field(n) for n in names if n in whole.names], whole.metadata)
    return pa.Table.from_batches(iterate(path, columns), schema=wanted)


def iterate(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield a manifest in batches of at most ROW_GROUP heads; arguments and errors as `read`."""
    known = header(path).schema.names
    names = list(columns) if columns is not None else known
    if unknown := [n for n in names if n not in known]:
        raise UbhpdError(f"{path} has no column {unknown[0]!r}: it has {', '.join(known)}.")
    if _is_hdf5(path):
        from ubhpd.manifest import hdf5

        yield from hdf5.iterate(path, names, ROW_GROUP)
    else:
        yield from pq.ParquetFile(path).iter_batches(ROW_GROUP, columns=names)


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
    found = sorted(set(table.column("split").drop_null().to_pylist()))
    if split not in found:
        raise UbhpdError(f"{path} has no usable head of the split {split!r}: it has {', '.join(found) or 'none'}.")
    return table.filter(pc.equal(table.column("split"), split))


def header(path: str | os.PathLike[str]) -> Header:
    """Return the schema, the number of heads and the fingerprint that a manifest states.

    Raises:
        UbhpdError: no such file, not a manifest, or another schema version.
    """
    try:
        found, rows = _hdf5_header(path) if _is_hdf5(path) else _parquet_header(path)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UbhpdError(f"{path} is not a readable Parquet or HDF5 manifest ({reason}): {_REMEDY}.") from None
    metadata = found.metadata or {}
    if VERSION_KEY not in metadata or FINGERPRINT_KEY not in metadata:
        raise UbhpdError(f"{path} is not a manifest of ubhpd: {_REMEDY}.")
    if (version := metadata[VERSION_KEY].decode()) != str(SCHEMA_VERSION):
        raise UbhpdError(f"{path} has manifest schema {version}, this ubhpd reads {SCHEMA_VERSION}: build it again.")
    return Header(found, rows, metadata[FINGERPRINT_KEY].decode())


def _parquet_header(path: str | os.PathLike[str]) -> tuple[pa.Schema, int]:
    file = pq.ParquetFile(path)
    found = file.schema_arrow
    own = {k: v for k, v in (file.metadata.metadata or {}).items() if k.startswith(b"ubhpd.")}
    return found.with_metadata(own), file.metadata.num_rows


def _hdf5_header(path: str | os.PathLike[str]) -> tuple[pa.Schema, int]:
    from ubhpd.manifest import hdf5

    return hdf5.read_schema(path)


def _is_hdf5(path: str | os.PathLike[str]) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(8) == b"\x89HDF\r\n\x1a\n"
    except OSError as error:
        raise UbhpdError(f"Cannot open {path} ({error.strerror}): check the path.") from None
