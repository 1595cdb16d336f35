"""Surfaces as grids of points: what every part of a synthetic person is made of."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# Where the parts find their colours in the texture (pixels): first row and number of rows.
TEXTURE_WIDTH, TEXTURE_HEIGHT = 512, 976
SKIN_ROWS, HAIR_ROWS, CLOTH_ROWS, BEARD_ROWS = (0, 512), (512, 256), (768, 128), (896, 64)
FRAME_UV = (64.0, 968.0)  # colour of glasses
EAR_UV = (320.0, 968.0)


class Part(NamedTuple):
    """A grid of points; rows go upward and columns to the right as seen from outside, so that normals point out."""

    points_mm: Array  # (rows, columns, 3)
    uv_px: Array  # (rows, columns, 2) place in the texture, x right, y down
    shade: Array  # (rows, columns) share of the light that reaches the point
    is_closed: bool = False  # the last column is the first again
    one_sided: bool = True  # never seen from inside
    shine: float = 0.0
    body: Array | None = (
        None  # (rows, columns) 1 where the point stays with the shoulders, 0 where it turns with the head
    )
    kept: npt.NDArray[np.bool_] | None = None  # (rows - 1, columns - 1) meshes of the grid that are there


def grid_normals(points: Array, is_closed: bool) -> Array:
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


def _cross(a: Array, b: Array) -> Array:
    """Return the cross product (..., 3) of vectors (..., 3)."""
    ax, ay, az, bx, by, bz = (v[..., i] for v in (a, b) for i in range(3))
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


def grid_triangles(rows: int, columns: int, kept: npt.NDArray[np.bool_] | None = None) -> Indices:
    """Return the triangles (m, 3) of a grid, counter-clockwise seen from outside."""
    lower = _meshes(rows, columns) if kept is None else _meshes(rows, columns)[kept.reshape(-1)]
    upper = lower + columns
    one, other = (lower, lower + 1, upper + 1), (lower, upper + 1, upper)
    return np.stack([np.concatenate(pair) for pair in zip(one, other, strict=True)], axis=1)


@lru_cache(maxsize=32)
def _meshes(rows: int, columns: int) -> Indices:
    """Return the first corner ((rows - 1) * (columns - 1),) of every mesh."""
    return np.arange(rows * columns).reshape(rows, columns)[:-1, :-1].reshape(-1)


def tube(path_mm: Array, radius_mm: float, uv: tuple[float, float], shine: float) -> Part:
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


def flat_part(points: Array, uv: tuple[float, float], *, is_closed: bool = False, shine: float = 0.0) -> Part:
    """Return a grid, seen from both sides, all of one colour of the texture."""
    shape = points.shape[:2]
    return Part(points, np.broadcast_to(np.array(uv), (*shape, 2)), np.ones(shape), is_closed, False, shine)


def rows_uv(rows: int, columns: int, place: tuple[int, int]) -> Array:
    """Return texture coordinates (rows, columns, 2) that spread a grid over some rows of the texture, upright."""
    u = np.linspace(1.0, TEXTURE_WIDTH - 2.0, columns)
    v = place[0] + np.linspace(place[1] - 2.0, 1.0, rows)
    return np.stack(np.meshgrid(u, v), axis=-1)
