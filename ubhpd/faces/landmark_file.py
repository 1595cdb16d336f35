"""A file with the 68 landmarks of heads: CSV or Parquet, sample_id and x0, y0 to x67, y67 in pixels of the picture."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from ubhpd.errors import UbhpdError
from ubhpd.faces.face import Array

POINT_COLUMNS = tuple(f"{axis}{point}" for point in range(68) for axis in "xy")


class LandmarkFile(NamedTuple):
    """The landmarks of a file: rows (n, 136) as the manifest has them, NaN for invisible, and the row of each head."""

    rows: Array
    row_of: dict[str, int]


def read(path: Path) -> LandmarkFile:
    """Return the landmarks of a file; other columns are ignored.

    Raises:
        UbhpdError: no such file, no table, a column that is missing or holds no numbers, a missing id, or one twice.
    """
    table = _table(path)
    if missing := [name for name in ("sample_id", *POINT_COLUMNS) if name not in table.column_names]:
        raise UbhpdError(f"{path} has no column {missing[0]}: it must have sample_id, x0, y0 to x67, y67, in pixels.")
    ids = table.column("sample_id").cast(pa.string()).to_pylist()
    row_of: dict[str, int] = {}
    for row, sample_id in enumerate(ids):
        if not sample_id:
            raise UbhpdError(f"{path}, row {row + 1}: the sample_id is missing.")
        if sample_id in row_of:
            raise UbhpdError(f"{path}, row {row + 1}: {sample_id!r} stands in row {row_of[sample_id] + 1} already.")
        row_of[sample_id] = row
    rows = np.empty((len(ids), len(POINT_COLUMNS)))
    for place, name in enumerate(POINT_COLUMNS):
        column = table.column(name)
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_null(column.type)):
            raise UbhpdError(f"{path}: the column {name} holds {column.type}, not numbers: write pixels with points.")
        rows[:, place] = column.cast(pa.float64()).fill_null(np.nan).to_numpy()
    rows[np.isinf(rows)] = np.nan
    return LandmarkFile(rows, row_of)


def _table(path: Path) -> pa.Table:
    try:
        with open(path, "rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        if is_parquet:
            return pq.read_table(path)
        return pacsv.read_csv(path, convert_options=pacsv.ConvertOptions(column_types={"sample_id": pa.string()}))
    except OSError as error:
        raise UbhpdError(f"Cannot open {path} ({error.strerror or error}): check the path.") from None
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise UbhpdError(f"{path} is neither CSV nor Parquet ({reason}): write it again.") from None
