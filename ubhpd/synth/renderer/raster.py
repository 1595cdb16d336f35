"""The rasteriser: grids of points become triangles, and triangles the pixels they cover.

It is a z-buffer in NumPy and needs neither a display nor a graphics card.

Every triangle is cut into rows and every row into pixels by `np.repeat`, so that the work is one pass over the
covered pixels however large the triangles are. The nearest wins: nearness and the triangle's number are packed
into one integer and the largest of each pixel is kept (`np.maximum.at`), exact and the same in any order.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.core.typing import BoolArray, Float32Array, FloatArray, IntArray

# Where the parts find their colours in the texture (pixels): first row and number of rows.
TEXTURE_WIDTH, TEXTURE_HEIGHT = 512, 976
SKIN_ROWS, HAIR_ROWS, CLOTH_ROWS, BEARD_ROWS = (0, 512), (512, 256), (768, 128), (896, 64)
FRAME_UV = (64.0, 968.0)  # colour of glasses
EAR_UV = (320.0, 968.0)


class Part(NamedTuple):
    """A grid of points; rows go upward and columns to the right as seen from outside, so that normals point out."""

    points_mm: FloatArray  # (rows, columns, 3)
    uv_px: FloatArray  # (rows, columns, 2) place in the texture, x right, y down
    shade: FloatArray  # (rows, columns) share of the light that reaches the point
    is_closed: bool = False  # the last column is the first again
    one_sided: bool = True  # never seen from inside
    shine: float = 0.0
    body: FloatArray | None = (
        None  # (rows, columns) 1 where the point stays with the shoulders, 0 where it turns with the head
    )
    kept: BoolArray | None = None  # (rows - 1, columns - 1) meshes of the grid that are there


def grid_normals(points: FloatArray, is_closed: bool) -> FloatArray:
    """Return the unit normals (rows, columns, 3) of a grid, outward by the order of rows and columns."""
    across = np.empty_like(points)
    across[:, 1:-1] = points[:, 2:] - points[:, :-2]
    if is_closed:
        across[:, 0] = across[:, -1] = points[:, 1] - points[:, -2]
    else:
        across[:, 0], across[:, -1] = points[:, 1] - points[:, 0], points[:, -1] - points[:, -2]
    along = np.empty_like(points)
    along[1:-1] = points[2:] - points[:-2]
    along[0], along[-1] = points[1] - points[0], points[-1] - points[-2]
    normal = _cross(across, along)
    x, y, z = normal[..., 0], normal[..., 1], normal[..., 2]
    normal /= np.maximum(np.sqrt(x * x + y * y + z * z), 1e-9)[..., None]
    return normal


def _cross(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the cross product (..., 3) of vectors (..., 3)."""
    ax, ay, az, bx, by, bz = (v[..., i] for v in (a, b) for i in range(3))
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


def grid_triangles(rows: int, columns: int, kept: BoolArray | None = None) -> IntArray:
    """Return the triangles (m, 3) of a grid, counter-clockwise seen from outside."""
    lower = _meshes(rows, columns) if kept is None else _meshes(rows, columns)[kept.reshape(-1)]
    upper = lower + columns
    one, other = (lower, lower + 1, upper + 1), (lower, upper + 1, upper)
    return np.stack([np.concatenate(pair) for pair in zip(one, other, strict=True)], axis=1)


@lru_cache(maxsize=32)
def _meshes(rows: int, columns: int) -> IntArray:
    """Return the first corner ((rows - 1) * (columns - 1),) of every mesh."""
    return np.arange(rows * columns).reshape(rows, columns)[:-1, :-1].reshape(-1)


def tube(path_mm: FloatArray, radius_mm: float, uv: tuple[float, float], shine: float) -> Part:
    """Return a tube along points (n, 3), of one colour of the texture."""
    sides = 6
    ahead = np.gradient(path_mm, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    side = _cross(ahead, np.where(np.abs(ahead[:, 1:2]) > 0.9, (0.0, 0.0, 1.0), (0.0, 1.0, 0.0)))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = _cross(ahead, side)
    turn = np.linspace(0.0, 2 * np.pi, sides + 1)[None, :, None]
    points = path_mm[:, None] + radius_mm * (np.cos(turn) * side[:, None] + np.sin(turn) * other[:, None])
    return flat_part(points, uv, is_closed=True, shine=shine)


def ball(centre_mm: tuple[float, float, float], radii_mm: tuple[float, float, float], v_rows: tuple[int, int]) -> Part:
    """Return an ellipsoid that takes its colours from some rows of the texture."""
    rise = np.linspace(-np.pi / 2, np.pi / 2, 12)[:, None]
    turn = np.linspace(-np.pi, np.pi, 21)[None, :]
    unit = np.stack(
        [np.cos(rise) * np.sin(turn), np.sin(rise) * np.ones_like(turn), np.cos(rise) * np.cos(turn)], axis=-1
    )
    uv = rows_uv(12, 21, v_rows)
    return Part(np.array(centre_mm) + unit * radii_mm, uv, 0.75 + 0.25 * np.broadcast_to(np.sin(rise), (12, 21)), True)


def flat_part(points: FloatArray, uv: tuple[float, float], *, is_closed: bool = False, shine: float = 0.0) -> Part:
    """Return a grid, seen from both sides, all of one colour of the texture."""
    shape = points.shape[:2]
    return Part(points, np.broadcast_to(np.array(uv), (*shape, 2)), np.ones(shape), is_closed, False, shine)


def rows_uv(rows: int, columns: int, place: tuple[int, int]) -> FloatArray:
    """Return texture coordinates (rows, columns, 2) that spread a grid over some rows of the texture, upright."""
    u = np.linspace(1.0, TEXTURE_WIDTH - 2.0, columns)
    v = place[0] + np.linspace(place[1] - 2.0, 1.0, rows)
    return np.stack(np.meshgrid(u, v), axis=-1)


_NUMBER_BITS = 20  # for the number of the triangle
_NEARNESS_LEVELS = float(1 << 42)
_MIN_AREA_PX = 1e-4


class Cover(NamedTuple):
    """The pixels of an image that show something, and what."""

    pixels: IntArray  # (n,) row * width + column, ascending
    triangles: IntArray  # (n,) indices into the triangles given
    values: Float32Array  # (k, n) the vertices' values, interpolated


class _Rows(NamedTuple):
    """Rows of triangles that cover pixels of the image."""

    owner: IntArray  # (r,) the triangle
    row: IntArray  # (r,)
    begin: IntArray  # (r,) its first pixel
    length: IntArray  # (r,) how many pixels, at least one


def rasterise(
    xy_px: FloatArray,
    nearness: FloatArray,
    triangles: IntArray,
    one_sided: BoolArray,
    values: npt.NDArray[np.floating],
    size: tuple[int, int],
) -> Cover:
    """Return which triangle is nearest in each pixel, and values there.

    Args:
        xy_px: (2, n) vertices in the image, x right, y down; centres of pixels are whole numbers.
        nearness: (n,) larger is nearer, linear in the image: 1/z for a pinhole.
        triangles: (3, m) indices of vertices, counter-clockwise as displayed.
        one_sided: (m,) whether the triangle is seen from in front only.
        values: (k, n) to interpolate, linear in the image.
        size: width and height of the image in pixels.
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
    """Tell the malloc of glibc not to return freed memory for the next array, which halves the time of an image.

    It gives free memory back to the system above twice the size of the largest block that was freed so far.
    """
    np.empty(24 << 20, dtype=np.uint8)


def _within(v: FloatArray, limit: int) -> BoolArray:
    """Return which triangles (m,), of whose corners v (3, m) is a coordinate, reach a pixel's centre."""
    first, last = np.minimum(np.minimum(v[0], v[1]), v[2]), np.maximum(np.maximum(v[0], v[1]), v[2])
    found: BoolArray = np.maximum(np.ceil(first), 0.0) <= np.minimum(np.floor(last), limit - 1.0)
    return found


def _rows(x: FloatArray, y: FloatArray, size: tuple[int, int]) -> _Rows:
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


def _downward(x: FloatArray, y: FloatArray) -> tuple[list[FloatArray], list[FloatArray]]:
    """Return corners x and y (3, m) in the order of y."""
    xs, ys = list(x), list(y)
    for i, j in ((0, 1), (1, 2), (0, 1)):
        swap = ys[i] > ys[j]
        xs[i], xs[j] = np.where(swap, xs[j], xs[i]), np.where(swap, xs[i], xs[j])
        ys[i], ys[j] = np.minimum(ys[i], ys[j]), np.maximum(ys[i], ys[j])
    return xs, ys


def _side(x0: FloatArray, y0: FloatArray, x1: FloatArray, y1: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return slope and origin of sides as x = slope * y + origin; where a side is level its first corner's x."""
    dy = y1 - y0
    slope = np.divide(x1 - x0, dy, out=np.zeros_like(dy), where=dy > 0)
    return slope, x0 - slope * y0


class _Planes:
    """Values at the corners of triangles as planes: change with x, change with y and value at the origin."""

    def __init__(self, x: FloatArray, y: FloatArray, area: FloatArray) -> None:
        self._x, self._y = x[0], y[0]
        self._weights = (y[2] - y[0]) / area, (y[1] - y[0]) / area, (x[1] - x[0]) / area, (x[2] - x[0]) / area

    def of(self, v: npt.NDArray[np.floating]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the plane, three times (m,), of values (3, m)."""
        y2, y1, x1, x2 = self._weights
        v1, v2 = v[1] - v[0], v[2] - v[0]
        across, down = v1 * y2 - v2 * y1, v2 * x1 - v1 * x2
        return across, down, v[0] - across * self._x - down * self._y


def _nearest(rows: _Rows, plane: tuple[FloatArray, FloatArray, FloatArray], size: tuple[int, int]) -> IntArray:
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
