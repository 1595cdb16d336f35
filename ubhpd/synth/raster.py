"""The renderer: triangles to the pixels they cover, by a z-buffer in NumPy, without a display or a graphics card.

Every triangle is cut into rows and every row into pixels by `np.repeat`, so that the work is one pass over the
covered pixels however large the triangles are. The nearest wins: nearness and the triangle's number are packed
into one integer and the largest of each pixel is kept (`np.maximum.at`), exact and the same in any order.
"""

from __future__ import annotations

from functools import lru_cache
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


class _Rows(NamedTuple):
    """Rows of triangles that cover pixels of the picture."""

    owner: Indices  # (r,) the triangle
    row: Indices  # (r,)
    begin: Indices  # (r,) its first pixel
    length: Indices  # (r,) how many pixels, at least one


def rasterise(
    xy_px: Array,
    nearness: Array,
    triangles: Indices,
    one_sided: npt.NDArray[np.bool_],
    values: npt.NDArray[np.floating],
    size: tuple[int, int],
) -> Cover:
    """Return which triangle is nearest in each pixel, and values there.

    Args:
        xy_px: (2, n) vertices in the picture, x right, y down; centres of pixels are whole numbers.
        nearness: (n,) larger is nearer, linear in the picture: 1/z for a pinhole.
        triangles: (3, m) indices of vertices, counter-clockwise as displayed.
        one_sided: (m,) whether the triangle is seen from in front only.
        values: (k, n) to interpolate, linear in the picture.
        size: width and height of the picture in pixels.
    """
    _keep_memory()
    x, y = xy_px[0].take(triangles), xy_px[1].take(triangles)
    area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    kept = np.flatnonzero((area < -_MIN_AREA_PX) | (~one_sided & (area > _MIN_AREA_PX)))
    kept = kept[_within(x.take(kept, axis=1), size[0]) & _within(y.take(kept, axis=1), size[1])]
    corners, area = triangles.take(kept, axis=1), area.take(kept)
    x, y, z = (v.take(corners) for v in (xy_px[0], xy_px[1], nearness))
    low, high = (float(z.min()), float(z.max())) if z.size else (0.0, 1.0)
    scale = _NEARNESS_LEVELS / max(high - low, 1e-12)
    plane = _Planes(x, y, area)
    nearest = _nearest(_rows(x, y, size), plane.of((z - low) * scale), size)
    pixels = np.flatnonzero(nearest >= 0)
    numbers = nearest.take(pixels) & ((1 << _NUMBER_BITS) - 1)
    found = np.empty((len(values), len(pixels)), dtype=np.float32)
    starts = np.arange(size[1] + 1) * size[0]
    held = np.diff(np.searchsorted(pixels, starts))  # pixels of every row
    line = np.repeat(np.arange(size[1], dtype=np.float32), held)
    column = (pixels - np.repeat(starts[:-1], held)).astype(np.float32)
    for value, out in zip(values, found, strict=True):
        across, down, origin = (p.astype(np.float32).take(numbers) for p in plane.of(value.take(corners)))
        np.multiply(across, column, out=out)
        out += np.multiply(down, line, out=down)
        out += origin
    return Cover(pixels, kept.take(numbers), found)


@lru_cache(maxsize=1)
def _keep_memory() -> None:
    """Make the C library of Linux keep what is freed for the next array, which halves the time of a picture.

    It gives free memory back to the system above twice the size of the largest block that was freed so far.
    """
    np.empty(24 << 20, dtype=np.uint8)


def _within(v: Array, limit: int) -> npt.NDArray[np.bool_]:
    """Return which triangles (m,), of whose corners v (3, m) is a coordinate, reach a pixel's centre."""
    first, last = np.minimum(np.minimum(v[0], v[1]), v[2]), np.maximum(np.maximum(v[0], v[1]), v[2])
    found: npt.NDArray[np.bool_] = np.maximum(np.ceil(first), 0.0) <= np.minimum(np.floor(last), limit - 1.0)
    return found


def _rows(x: Array, y: Array, size: tuple[int, int]) -> _Rows:
    """Return the rows of triangles with corners x and y (3, m)."""
    (xa, xb, xc), (ya, yb, yc) = _downward(x, y)
    first = np.maximum(np.ceil(ya), 0.0).astype(np.int64)
    last = np.minimum(np.floor(yc), size[1] - 1.0).astype(np.int64)
    height = np.maximum(last - first + 1, 0)
    owner = np.repeat(np.arange(len(first)), height)
    row = np.repeat(first - (np.cumsum(height) - height), height) + np.arange(len(owner))
    # A row lies between the long side, from the highest corner to the lowest, and one of the two others.
    line = row.astype(np.float64)
    slope, origin = _side(xa, ya, xc, yc)
    one = slope.take(owner) * line + origin.take(owner)
    (upper, upper_origin), (lower, lower_origin) = _side(xa, ya, xb, yb), _side(xb, yb, xc, yc)
    which = owner + len(first) * (line >= yb.take(owner))
    other = np.concatenate([upper, lower]).take(which) * line + np.concatenate([upper_origin, lower_origin]).take(which)
    begin = np.maximum(np.ceil(np.minimum(one, other)), 0.0).astype(np.int64)
    count = np.minimum(np.floor(np.maximum(one, other)), size[0] - 1.0).astype(np.int64) - begin + 1
    filled = np.flatnonzero(count > 0)
    return _Rows(*(v.take(filled) for v in (owner, row, begin, count)))


def _downward(x: Array, y: Array) -> tuple[list[Array], list[Array]]:
    """Return corners x and y (3, m) in the order of y."""
    xs, ys = list(x), list(y)
    for i, j in ((0, 1), (1, 2), (0, 1)):
        swap = ys[i] > ys[j]
        xs[i], xs[j] = np.where(swap, xs[j], xs[i]), np.where(swap, xs[i], xs[j])
        ys[i], ys[j] = np.minimum(ys[i], ys[j]), np.maximum(ys[i], ys[j])
    return xs, ys


def _side(x0: Array, y0: Array, x1: Array, y1: Array) -> tuple[Array, Array]:
    """Return slope and origin of sides as x = slope * y + origin; where a side is level its first corner's x."""
    dy = y1 - y0
    slope = np.divide(x1 - x0, dy, out=np.zeros_like(dy), where=dy > 0)
    return slope, x0 - slope * y0


class _Planes:
    """Values at the corners of triangles as planes: change with x, change with y and value at the origin."""

    def __init__(self, x: Array, y: Array, area: Array) -> None:
        self._x, self._y = x[0], y[0]
        self._weights = (y[2] - y[0]) / area, (y[1] - y[0]) / area, (x[1] - x[0]) / area, (x[2] - x[0]) / area

    def of(self, v: npt.NDArray[np.floating]) -> tuple[Array, Array, Array]:
        """Return the plane, three times (m,), of values (3, m)."""
        y2, y1, x1, x2 = self._weights
        v1, v2 = v[1] - v[0], v[2] - v[0]
        across, down = v1 * y2 - v2 * y1, v2 * x1 - v1 * x2
        return across, down, v[0] - across * self._x - down * self._y


def _nearest(rows: _Rows, plane: tuple[Array, Array, Array], size: tuple[int, int]) -> Indices:
    """Return for every pixel the nearness and the number of its triangle in one integer, -1 where there is none."""
    across, down, origin = (p.take(rows.owner) for p in plane)
    nearest = np.full(size[0] * size[1], -1, dtype=np.int64)
    if not len(rows.owner):
        return nearest
    more = rows.length - 1
    start = across * rows.begin + down * rows.row + origin
    stop = np.clip(start + across * more, 0.0, _NEARNESS_LEVELS)
    start = np.clip(start, 0.0, _NEARNESS_LEVELS)
    step = ((stop - start) / np.maximum(more, 1)).astype(np.int64) << _NUMBER_BITS
    packed = (start.astype(np.int64) << _NUMBER_BITS) | rows.owner
    # Sums that run through all rows: where a row begins, from the last pixel of the row before to its own first.
    heads = np.cumsum(rows.length) - rows.length
    running = np.repeat(step, rows.length)
    running[heads] = packed
    running[heads[1:]] -= packed[:-1] + step[:-1] * more[:-1]
    np.cumsum(running, out=running)
    place = np.ones(len(running), dtype=np.int64)
    first = rows.row * size[0] + rows.begin
    place[heads] = first
    place[heads[1:]] -= first[:-1] + more[:-1]
    np.cumsum(place, out=place)
    np.maximum.at(nearest, place, running)
    return nearest
