"""The manifest as HDF5: the same columns and values as the Parquet file, for tools that read HDF5.

A dataset per column, in the column's order, and its mask under /valid if it has empty slots. Strings have
a fixed length (the longest of the column), lists are rows of a matrix. Empty slots hold "", NaN, 0 or False.
Attributes of the file and of each dataset hold the schema's metadata as texts, for people and other tools. They are of
variable length, and HDF5 can read such texts without end where the file is damaged: `read_schema` therefore takes the
metadata from one attribute of fixed length, `schema`, in JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd.core.typing import AnyArray, BoolArray
from ubhpd.manifest.schema import list_length, lists, matrix

Batches = Callable[[list[str]], Iterator[pa.RecordBatch]]

_CHUNK_BYTES = 256 << 10
_MAX_ROW_BYTES = 1 << 16  # of one column: a text, or 136 numbers
_MASKS, _SCHEMA = "valid", "schema"
_MAX_SCHEMA_BYTES = 1 << 20


def write(schema: pa.Schema, rows: int, batches: Batches, path: Path) -> None:
    """Write a manifest as HDF5, batch by batch.

    Args:
        schema: of the manifest, with its metadata.
        rows: number of heads.
        batches: gives the named columns in batches; called twice.
        path: the file to write.
    """
    widths, with_nulls = _widths_and_nulls(schema, batches)
    with h5py.File(path, "w", libver="latest", track_order=True) as file:
        of_file, of_columns = _texts(schema.metadata), {field.name: _texts(field.metadata) for field in schema}
        file.attrs[_SCHEMA] = np.void(json.dumps({"file": of_file, "columns": of_columns}).encode())
        file.attrs.update(of_file)
        for field in schema:
            dtype, shape = _layout(field, widths.get(field.name, 1))
            dataset = _create(file, field.name, (rows, *shape), dtype)
            dataset.attrs.update(of_columns[field.name])
        for name in with_nulls:
            _create(file, f"{_MASKS}/{name}", (rows,), np.dtype(bool))
        start = 0
        for batch in batches(schema.names):
            span = slice(start, start := start + batch.num_rows)
            for field in schema:
                values, valid = _numpy(batch.column(field.name), field)
                file[field.name][span] = values.astype(file[field.name].dtype)
                if field.name in with_nulls:
                    file[f"{_MASKS}/{field.name}"][span] = valid


def iterate(
    path: str | os.PathLike[str], whole: pa.Schema, count: int, names: Sequence[str], rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield the columns `names` in batches of `rows` heads; `whole` and `count` are what `read_schema` returned."""
    schema = pa.schema([whole.field(n) for n in names])
    with h5py.File(path, "r") as file:
        for start in range(0, count, rows):
            span = slice(start, min(start + rows, count))
            yield pa.record_batch([_arrow(file, f, span) for f in schema], schema=schema)


def read_schema(path: str | os.PathLike[str]) -> tuple[pa.Schema, int]:
    """Return the Arrow schema that the datasets and their attributes describe, and the number of heads."""
    with h5py.File(path, "r") as file:
        described = _described(file)
        datasets = _own_datasets(file)
        fields = [pa.field(n, _arrow_type(d), metadata=described.columns.get(n) or None) for n, d in datasets.items()]
        rows = {len(d) for d in datasets.values()}
        if _MASKS in file:
            for name, mask in _own_datasets(file[_MASKS]).items():
                if name not in datasets or mask.ndim != 1 or mask.dtype != np.dtype(bool):
                    raise OSError(f"its mask of {name!r} is not a column of true and false")
                rows.add(len(mask))
        if len(rows) != 1:
            raise OSError("its columns differ in length")
        return pa.schema(fields, described.file), rows.pop()


class _Described(msgspec.Struct):
    """The metadata of the file, and of its columns by name."""

    file: dict[str, str]
    columns: dict[str, dict[str, str]]


def _described(file: h5py.File) -> _Described:
    if not h5py.h5a.exists(file.id, _SCHEMA.encode()):
        raise OSError("it has no attribute 'schema', which every manifest has")
    attribute = h5py.h5a.open(file.id, _SCHEMA.encode())
    if attribute.get_type().get_class() != h5py.h5t.OPAQUE or attribute.get_storage_size() > _MAX_SCHEMA_BYTES:
        raise OSError("its attribute 'schema' is not that of a manifest")
    try:
        return msgspec.json.decode(file.attrs[_SCHEMA].tobytes(), type=_Described)
    except (msgspec.MsgspecError, AttributeError, UnicodeDecodeError):
        raise OSError("its attribute 'schema' cannot be read") from None


def _own_datasets(group: h5py.Group) -> dict[str, h5py.Dataset]:
    """Return the datasets of a group.

    Raises:
        OSError: one could show other files or other parts of this one (an external or soft link, external storage, a
            virtual dataset), or states more than the file holds.
    """
    datasets = {}
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise OSError(f"{name!r} in it is a link")
        dataset = group[name]
        if not isinstance(dataset, h5py.Dataset):
            continue
        if dataset.external or dataset.is_virtual:
            raise OSError(f"{name!r} in it is stored in another file")
        row_bytes = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:]))
        text = h5py.check_string_dtype(dataset.dtype)
        if text is not None and text.length is None:
            raise OSError(f"{name!r} in it has texts of variable length, which no manifest has")
        if dataset.ndim not in (1, 2) or dataset.chunks is None or not 0 < row_bytes <= _MAX_ROW_BYTES:
            raise OSError(f"{name!r} in it is no column of a manifest")
        if dataset.id.get_num_chunks() != -(-len(dataset) // dataset.chunks[0]):
            raise OSError(f"{name!r} in it states more rows than it holds")
        datasets[name] = dataset
    return datasets


def _widths_and_nulls(schema: pa.Schema, batches: Batches) -> tuple[dict[str, int], list[str]]:
    widths: dict[str, int] = {}
    with_nulls = []
    for field in schema:
        has_null = False
        for batch in batches([field.name]):
            values = batch.column(0)
            has_null |= values.null_count > 0
            if pa.types.is_string(field.type):
                longest = pc.max(pc.binary_length(values)).as_py() or 1
                widths[field.name] = max(widths.get(field.name, 1), longest)
        if has_null:
            with_nulls.append(field.name)
    return widths, with_nulls


def _layout(field: pa.Field, width: int) -> tuple[Any, tuple[int, ...]]:
    if pa.types.is_string(field.type):
        return h5py.string_dtype("utf-8", width), ()
    if (length := list_length(field)) is not None:
        return np.dtype("<f8"), (length,)
    return np.dtype(field.type.to_pandas_dtype()), ()


def _arrow_type(dataset: h5py.Dataset) -> pa.DataType:
    if h5py.check_string_dtype(dataset.dtype):
        return pa.string()
    if dataset.ndim == 2:
        return pa.list_(pa.float64())
    return pa.from_numpy_dtype(dataset.dtype)


def _texts(metadata: Mapping[bytes, bytes] | None) -> dict[str, str]:
    return {k.decode(): v.decode() for k, v in (metadata or {}).items()}


def _create(file: h5py.File, name: str, shape: tuple[int, ...], dtype: Any) -> h5py.Dataset:
    # Explicit chunks: the automatic ones make random reads hundreds of times slower.
    row_bytes = dtype.itemsize * int(np.prod(shape[1:]))
    chunk = (max(1, min(shape[0], _CHUNK_BYTES // row_bytes)), *shape[1:])
    limits = (None, *shape[1:])
    return file.create_dataset(name, shape, dtype, maxshape=limits, chunks=chunk, compression="gzip",
                               compression_opts=1, shuffle=True, track_times=False)  # fmt: skip


def _numpy(values: pa.Array, field: pa.Field) -> tuple[AnyArray, BoolArray]:
    """Return the values with empty slots filled, one row each, and the mask of the filled slots."""
    valid = values.is_valid().to_numpy(zero_copy_only=False)
    if (length := list_length(field)) is not None:
        return matrix(values, length), valid
    if pa.types.is_string(field.type):
        return np.array([v.encode() for v in values.fill_null("").to_pylist()], dtype=bytes), valid
    empty = False if pa.types.is_boolean(field.type) else float("nan") if pa.types.is_floating(field.type) else 0
    return values.fill_null(empty).to_numpy(zero_copy_only=False), valid


def _arrow(file: h5py.File, field: pa.Field, span: slice) -> pa.Array:
    values = file[field.name][span]
    valid = np.ones(len(values), dtype=bool)
    if f"{_MASKS}/{field.name}" in file:
        valid = file[f"{_MASKS}/{field.name}"][span]
    if pa.types.is_list(field.type):
        return lists(values, valid)
    if pa.types.is_string(field.type):
        return pa.array([v.decode() if ok else None for v, ok in zip(values, valid, strict=True)], field.type)
    return pa.array(values, type=field.type, mask=~valid)
