"""The grid of the head's skin: where its points lie on the mean head, in 3-D, and in the texture."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ubhpd.synth.grids import SKIN_ROWS, TEXTURE_WIDTH, Part
from ubhpd.synth.hair import STYLES, hairline
from ubhpd.synth.persons import Expression, Looks, Shape
from ubhpd.synth.skin import (
    COLUMNS,
    HEIGHT,
    ROWS,
    TURN,
    grid_surface,
    half_widths,
    height_share,
    turn_at,
    turn_share,
    unshared,
)

Array = npt.NDArray[np.float64]


def texture_of(turn: npt.ArrayLike, y: npt.ArrayLike) -> Array:
    """Return the places (..., 2) in the texture, pixels x right and y down, of points of the skin."""
    u = 1.0 + turn_share(turn) * (TEXTURE_WIDTH - 3.0)
    v = SKIN_ROWS[0] + 1.0 + (1.0 - height_share(y)) * (SKIN_ROWS[1] - 3.0)
    return np.stack(np.broadcast_arrays(u, v), axis=-1)


def texture_of_front(xy_mm: npt.ArrayLike) -> Array:
    """Return the places (n, 2) in the texture of points (n, 2) of the mean head's front, x and y in millimetres."""
    x, y = np.asarray(xy_mm, dtype=np.float64).T
    return texture_of(turn_at(x, y), y)


def skin_places(rows: int, columns: int) -> tuple[Array, Array]:
    """Return turn and height (rows, columns) of the skin that evenly spaced pixels of its texture show."""
    turn, y = unshared(np.linspace(0.0, 1.0, columns), np.linspace(1.0, 0.0, rows))
    return np.broadcast_to(turn, (rows, columns)), np.broadcast_to(y[:, None], (rows, columns))


@lru_cache(maxsize=1)
def mean_front() -> tuple[Array, Array]:
    """Return x and y (ROWS, COLUMNS) of the grid's points on the mean head."""
    width, *_ = half_widths(HEIGHT)
    return width[:, None] * np.sin(TURN), np.broadcast_to(HEIGHT[:, None], (ROWS, COLUMNS))


def head_part(shape: Shape, looks: Looks, expression: Expression) -> Part:
    """Return the skin of a person's head."""
    points = grid_surface(shape, expression)
    return Part(points, _UV, _shade(looks.hair_style), is_closed=True, shine=0.10)


@lru_cache(maxsize=16)
def _shade(hair_style: str) -> Array:
    """Return how much light reaches the skin: less in sockets, beside the nose, under chin and hair."""
    x, y = mean_front()
    across = np.abs(x)
    shade = np.ones((ROWS, COLUMNS))
    for bx, by, sx, sy, amount in _HOLLOWS:
        shade -= amount * np.exp(-(((across - bx) / sx) ** 2) - ((y - by) / sy) ** 2) * (np.cos(TURN) > 0)
    shade -= 0.28 * np.clip((-76.0 - y) / 10.0, 0.0, 1.0)
    style = STYLES.get(hair_style)
    if style is not None:
        below = hairline(TURN, style)[None, :] - HEIGHT[:, None]
        shade -= 0.22 * np.exp(-np.clip(below, 0.0, None) / 7.0)
    return shade


_HOLLOWS = np.array(
    [
        (16.0, 37.0, 7.0, 8.0, 0.26),
        (31.0, 44.0, 14.0, 4.0, 0.14),
        (32.0, 26.5, 13.0, 3.5, 0.08),
        (7.0, -13.0, 6.0, 2.6, 0.40),
        (0.0, -14.5, 12.0, 4.0, 0.22),
        (18.5, -9.0, 3.0, 8.0, 0.16),
        (0.0, -53.0, 18.0, 4.0, 0.14),
        (0.0, -37.6, 24.0, 1.6, 0.18),
    ]
)
_UV = texture_of(TURN[None, :], HEIGHT[:, None])
