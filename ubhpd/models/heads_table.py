"""The rows of a manifest as the heads that a geometric method or a landmark network sees."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd.errors import UbhpdError
from ubhpd.records import OF_SOURCE_PHOTO
from ubhpd.schema import matrix
from ubhpd.solving import Array, Heads

COLUMNS = (
    "sample_id", "yaw_deg", "pitch_deg", "roll_deg", "rotation", "landmarks68", "landmarks_kind", "image_width",
    "image_height",
)  # fmt: skip
_ANGLES = COLUMNS[1:4]


def heads_of(table: pa.Table) -> Heads:
    """Return the rows of a manifest's table as heads; a column that is not there counts as not known.

    Raises:
        UbhpdError: the table has no column sample_id.
    """
    there = set(table.column_names)
    if "sample_id" not in there:
        raise UbhpdError("The table has no column sample_id, so it is no manifest: read one by ubhpd.manifest.read.")
    return Heads(
        table.column("sample_id").to_pylist(),
        np.stack([_numbers(table, n) for n in _ANGLES], axis=1) if there.issuperset(_ANGLES) else None,
        _matrix(table, "rotation", 9).reshape(-1, 3, 3) if "rotation" in there else None,
        own_landmarks(table),
        np.stack([_numbers(table, n) for n in ("image_width", "image_height")], axis=1),
    )


def own_landmarks(table: pa.Table) -> Array:
    """Return the 68 points (n, 68, 2) of the rows in pixels, NaN where there are none.

    Points of the photograph behind a warped picture, which is what 300W-LP publishes, lie beside its face: they
    count as none.
    """
    points = _matrix(table, "landmarks68", 136).reshape(-1, 68, 2)
    if "landmarks_kind" in table.column_names:
        kinds = table.column("landmarks_kind").fill_null("")
        points[np.asarray(pc.ends_with(kinds, OF_SOURCE_PHOTO))] = np.nan
    return points


def _numbers(table: pa.Table, name: str) -> Array:
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    return np.asarray(table.column(name).cast(pa.float64()).to_numpy(), dtype=np.float64)


def _matrix(table: pa.Table, name: str, length: int) -> Array:
    if name not in table.column_names:
        return np.full((table.num_rows, length), np.nan)
    return matrix(table.column(name), length)
