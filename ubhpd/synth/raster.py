"""The renderer: triangles to the pixels they cover, by a z-buffer in NumPy, without a display or a graphics card.

Every triangle is cut into rows and every row into pixels by `np.repeat`, so that the work is one pass over the
covered pixels however large the triangles are. The nearest wins: nearness and the triangle's number are packed
into one integer and the largest of each pixel is kept (`np.maximum.at`), exact and the same in any order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_NUMBER_BITS = 20  # for the number of the triangle
_NEARNESS_LEVELS = float(1 << 42)
_MIN_AREA_PX = 1e-4


class Cover(NamedTuple):
    """The pixels of a picture that show something, and what."""

    pixels: Indices  # (n,) row * width + column, ascending
    triangles: Indices  # (n,) indices into the triangles given
    values: npt.NDArray[np.float32]  # (k, n) the vertices' values, interpolated


def rasterise(
    xy_px: Array,
    nearness: Array,
    triangles: Indices,
    one_sided: npt.NDArray[np.bool_],
    values: Array,
    size: tuple[int, int],
) -> Cover:
    """Return which triangle is nearest in each pixel, and values there.

    Args:
        xy_px: (n, 2) vertices in pixels, x right, y down; the centre of the first pixel is (0, 0).
        nearness: (n,) larger is nearer, linear in the picture: minus the depth, or its inverse for a pinhole.
        triangles: (m, 3) indices of vertices, counter-clockwise as displayed.
        one_sided: (m,) whether the triangle is seen from in front only.
        values: (n, k) to interpolate, linear in the picture.
        size: width and height of the picture in pixels.
    """
    corners = np.ascontiguousarray(triangles.T)
    x, y = xy_px[:, 0][corners], xy_px[:, 1][corners]
    area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    kept = np.flatnonzero(np.where(one_sided, area < -_MIN_AREA_PX, np.abs(area) > _MIN_AREA_PX))
    x, y, area, corners = x[:, kept], y[:, kept], area[kept], corners[:, kept]
    z = nearness[corners]
    owner, row, left, count = _rows(x, y, area, size)
    low, high = (float(z.min()), float(z.max())) if z.size else (0.0, 1.0)
    scale = _NEARNESS_LEVELS / max(high - low, 1e-12)
    across, down, origin = _planes(x, y, area, [(z - low) * scale]).T
    start = across[owner] * left + down[owner] * row + origin[owner]
    steps = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    key = np.repeat(start, count) + steps * np.repeat(across[owner], count)
    packed = (np.clip(key, 0.0, _NEARNESS_LEVELS).astype(np.int64) << _NUMBER_BITS) | np.repeat(owner, count)
    nearest = np.full(size[0] * size[1], -1, dtype=np.int64)
    np.maximum.at(nearest, np.repeat(row * size[0] + left, count) + steps, packed)
    pixels = np.flatnonzero(nearest >= 0)
    numbers = nearest[pixels] & ((1 << _NUMBER_BITS) - 1)
    return Cover(pixels, kept[numbers], _interpolated(x, y, area, values[corners], pixels, numbers, size[0]))


def _rows(x: Array, y: Array, area: Array, size: tuple[int, int]) -> tuple[Indices, Indices, Indices, Indices]:
    """Return for every row of every triangle: the triangle, the row, its first pixel and how many there are."""
    first = np.maximum(np.ceil(y.min(axis=0)), 0).astype(np.int64)
    last = np.minimum(np.floor(y.max(axis=0)), size[1] - 1).astype(np.int64)
    height = np.maximum(last - first + 1, 0)
    owner = np.repeat(np.arange(len(area)), height)
    row = np.repeat(first - (np.cumsum(height) - height), height) + np.arange(int(height.sum()))
    left, right = np.full(len(owner), -0.499), np.full(len(owner), size[0] - 0.501)
    sign = np.sign(area)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        # Inside is where sign * ((xj - xi)(py - yi) - (yj - yi)(px - xi)) >= 0: a bound of px in every row.
        dy = (y[j] - y[i]) * sign
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = (x[j] - x[i]) * sign / dy
            bound = (x[i] - slope * y[i])[owner] + slope[owner] * row
        rises = dy[owner]
        np.minimum(right, bound, out=right, where=rises > 0)
        np.maximum(left, bound, out=left, where=rises < 0)
    begin = np.ceil(left).astype(np.int64)
    count = np.maximum(np.floor(right).astype(np.int64) - begin + 1, 0)
    filled = np.flatnonzero(count)
    return owner[filled], row[filled], begin[filled], count[filled]


def _planes(x: Array, y: Array, area: Array, corners: list[Array]) -> Array:
    """Return (m, 3 k): the changes of k values with x, those with y, and the values at the picture's origin."""
    x1, x2, y1, y2 = x[1] - x[0], x[2] - x[0], y[1] - y[0], y[2] - y[0]
    k = len(corners)
    found = np.empty((len(area), 3 * k))
    for i, v in enumerate(corners):
        v1, v2 = v[1] - v[0], v[2] - v[0]
        along_x, along_y = (v1 * y2 - v2 * y1) / area, (v2 * x1 - v1 * x2) / area
        found[:, i], found[:, k + i] = along_x, along_y
        found[:, 2 * k + i] = v[0] - along_x * x[0] - along_y * y[0]
    return found


def _interpolated(
    x: Array, y: Array, area: Array, values: Array, pixels: Indices, numbers: Indices, width: int
) -> npt.NDArray[np.float32]:
    planes = _planes(x, y, area, list(np.moveaxis(values, -1, 0))).astype(np.float32).T.copy()
    k = values.shape[-1]
    row = pixels // width
    column, line = (pixels - row * width).astype(np.float32), row.astype(np.float32)
    found = np.empty((k, len(pixels)), dtype=np.float32)
    for i in range(k):
        np.multiply(planes[i].take(numbers), column, out=found[i])
        found[i] += planes[k + i].take(numbers) * line
        found[i] += planes[2 * k + i].take(numbers)
    return found
