"""The grid of the head's skin: where its points lie on the mean head, in 3-D, and in the texture.

The texture of a synthetic person: skin, hair and cloth painted once, and on them the features of an expression.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ubhpd.core.typing import AnyArray, Float32Array, FloatArray, Image, Int32Array
from ubhpd.synth.renderer.hair import STYLES, beard_cover, hairline, scalp_line
from ubhpd.synth.renderer.persons import Expression, Looks, Shape, looks_of
from ubhpd.synth.renderer.raster import (
    BEARD_ROWS,
    CLOTH_ROWS,
    EAR_UV,
    FRAME_UV,
    HAIR_ROWS,
    SKIN_ROWS,
    TEXTURE_HEIGHT,
    TEXTURE_WIDTH,
    Part,
)
from ubhpd.synth.renderer.shape import (
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


def texture_of(turn: npt.ArrayLike, y: npt.ArrayLike) -> FloatArray:
    """Return the places (..., 2) in the texture, pixels x right and y down, of points of the skin."""
    u = 1.0 + turn_share(turn) * (TEXTURE_WIDTH - 3.0)
    v = SKIN_ROWS[0] + 1.0 + (1.0 - height_share(y)) * (SKIN_ROWS[1] - 3.0)
    return np.stack(np.broadcast_arrays(u, v), axis=-1)


def texture_of_front(xy_mm: npt.ArrayLike) -> FloatArray:
    """Return the places (n, 2) in the texture of points (n, 2) of the mean head's front, x and y in millimetres."""
    x, y = np.asarray(xy_mm, dtype=np.float64).T
    return texture_of(turn_at(x, y), y)


def skin_places(rows: int, columns: int) -> tuple[FloatArray, FloatArray]:
    """Return turn and height (rows, columns) of the skin that evenly spaced pixels of its texture show."""
    turn, y = unshared(np.linspace(0.0, 1.0, columns), np.linspace(1.0, 0.0, rows))
    return np.broadcast_to(turn, (rows, columns)), np.broadcast_to(y[:, None], (rows, columns))


@lru_cache(maxsize=1)
def mean_front() -> tuple[FloatArray, FloatArray]:
    """Return x and y (ROWS, COLUMNS) of the grid's points on the mean head."""
    width, *_ = half_widths(HEIGHT)
    return width[:, None] * np.sin(TURN), np.broadcast_to(HEIGHT[:, None], (ROWS, COLUMNS))


def head_part(shape: Shape, looks: Looks, expression: Expression) -> Part:
    """Return the skin of a person's head."""
    points = grid_surface(shape, expression)
    return Part(points, _UV, _shade(looks.hair_style), is_closed=True, shine=0.10)


@lru_cache(maxsize=16)
def _shade(hair_style: str) -> FloatArray:
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


Colour = tuple[float, float, float] | FloatArray

_COARSE = 128  # pixels of a side at which soft masks are computed
_SUBPIXEL_BITS = 4
_ONE = 128  # in 8 bits, of factors up to 2
_GRAIN = 28  # grey levels that stand for a standard deviation in a tile of 8 bits


class Patch(NamedTuple):
    """A colour on polygons of the mean head's front, and what lies on them and nowhere else."""

    outlines_mm: tuple[FloatArray, ...]  # each (n, 2)
    colour: Colour
    alpha: float = 1.0
    blur_px: float = 0.0
    inner: tuple[Patch, ...] = ()


@lru_cache(maxsize=8)
def bare_texture(subject: int) -> Image:
    """Return the texture (TEXTURE_HEIGHT, TEXTURE_WIDTH, 3), BGR, of a subject without eyes, brows and mouth."""
    rng = np.random.default_rng([107, subject])
    looks = looks_of(subject)
    texture = np.zeros((TEXTURE_HEIGHT, TEXTURE_WIDTH, 3), dtype=np.uint8)
    _put_skin(_rows(texture, SKIN_ROWS), looks, rng)
    _put_hair(_rows(texture, HAIR_ROWS), looks, rng, is_curly=looks.hair_style == "curly")
    _put_hair(_rows(texture, BEARD_ROWS), looks, rng, is_curly=True)
    _put_cloth(_rows(texture, CLOTH_ROWS), looks, rng)
    for uv, colour in ((FRAME_UV, _frame_colour(rng)), (EAR_UV, np.array(looks.skin) * (0.93, 0.93, 1.0))):
        texture[int(uv[1]) - 8 : int(uv[1]) + 8, int(uv[0]) - 32 : int(uv[0]) + 32] = np.clip(colour, 0, 255)
    _put_lines(_rows(texture, SKIN_ROWS), looks)
    return texture


def put_patches(texture: Image, patches: Sequence[Patch]) -> None:
    """Lay patches over a texture one after another."""
    every = [q for p in patches for q in (p, *p.inner)]
    outlines = [outline for p in every for outline in p.outlines_mm]
    ends = np.cumsum([len(outline) for outline in outlines])
    px = texture_of_front(np.concatenate(outlines))
    firsts = np.cumsum([0] + [sum(map(len, p.outlines_mm)) for p in every[:-1]])
    pad = np.array([[int(3 * p.blur_px) + 2] for p in every])
    limit = (texture.shape[1], texture.shape[0])
    low = np.clip(np.floor(np.minimum.reduceat(px, firsts)).astype(int) - pad, 0, limit)
    high = np.clip(np.ceil(np.maximum.reduceat(px, firsts)).astype(int) + pad + 1, 0, limit)
    polygons = iter(np.split(np.round(px * (1 << _SUBPIXEL_BITS)).astype(np.int32), ends[:-1]))
    boxes = iter(zip(low.tolist(), high.tolist(), strict=True))
    for patch in patches:
        (x0, y0), (x1, y1) = next(boxes)
        mask = _mask(polygons, (x0, y0, x1, y1), patch)
        place = texture[y0:y1, x0:x1]
        if not patch.inner:
            _lay(place, mask, patch.colour)
            continue
        content = np.empty_like(place)
        content[:] = np.clip(patch.colour, 0, 255)
        for detail in patch.inner:
            next(boxes)
            _lay(content, _mask(polygons, (x0, y0, x1, y1), detail), detail.colour)
        _lay(place, mask, content)


def stroke(path_mm: FloatArray, width_mm: FloatArray | float, colour: Colour, alpha: float, blur_px: float) -> Patch:
    """Return the patch of a line (n, 2) of a width that may change along it."""
    ahead = np.empty_like(path_mm)
    ahead[1:-1] = path_mm[2:] - path_mm[:-2]
    ahead[0], ahead[-1] = path_mm[1] - path_mm[0], path_mm[-1] - path_mm[-2]
    side = ahead[:, ::-1] * (-0.5, 0.5) / (np.hypot(ahead[:, :1], ahead[:, 1:]) + 1e-9)
    side *= width_mm if isinstance(width_mm, float) else width_mm[:, None]
    return Patch((np.concatenate([path_mm + side, (path_mm - side)[::-1]]),), colour, alpha, blur_px)


def twofold(one: Patch, other: Patch) -> Patch:
    """Return two patches apart from each other that differ in nothing but their outlines, as one."""
    inner = tuple(twofold(*pair) for pair in zip(one.inner, other.inner, strict=True))
    return one._replace(outlines_mm=one.outlines_mm + other.outlines_mm, inner=inner)


def _mask(polygons: Iterator[Int32Array], box: tuple[int, int, int, int], patch: Patch) -> Image:
    """Return how much (rows, columns) of 255 of a patch's colour lies on the pixels of a box; take its polygons."""
    x0, y0, x1, y1 = box
    mask = np.zeros((y1 - y0, x1 - x0), dtype=np.uint8)
    corner = np.array((x0 << _SUBPIXEL_BITS, y0 << _SUBPIXEL_BITS), dtype=np.int32)
    outlines = [next(polygons) - corner for _ in patch.outlines_mm]
    cv2.fillPoly(mask, outlines, (255,), cv2.LINE_AA, _SUBPIXEL_BITS)
    found: Any = cv2.GaussianBlur(mask, (0, 0), patch.blur_px) if patch.blur_px > 0 else mask
    share: Image = cv2.convertScaleAbs(found, alpha=patch.alpha) if patch.alpha != 1.0 else found
    return share


def _lay(place: Image, share: AnyArray, colour: Colour | Image) -> None:
    """Lay a colour, or colours (rows, columns, 3), over pixels, as much as share (rows, columns) of 255 says."""
    if isinstance(colour, np.ndarray) and colour.ndim == 3:
        added = cv2.multiply(colour, cv2.cvtColor(share, cv2.COLOR_GRAY2BGR), scale=1 / 255)
    else:
        added = cv2.merge([cv2.convertScaleAbs(share, alpha=float(c) / 255) for c in colour])
    gap = cv2.cvtColor(255 - share, cv2.COLOR_GRAY2BGR)
    place[:] = cv2.add(cv2.multiply(place, gap, scale=1 / 255), added)


def rounded(points: FloatArray, steps: int = 5, closed: bool = True) -> FloatArray:
    """Return a smooth line (Catmull-Rom) through points (n, 2)."""
    if closed:
        p, count = np.concatenate([points[-1:], points, points[:2]]), len(points)
    else:
        p, count = (
            np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]]),
            len(points) - 1,
        )
    curve = sum(w[:, None] * p[None, i : i + count].swapaxes(0, 1) for i, w in enumerate(_spline(steps)))
    line: FloatArray = np.asarray(curve).reshape(-1, 2)
    return line if closed else np.concatenate([line, points[-1:]])


@lru_cache(maxsize=8)
def _spline(steps: int) -> FloatArray:
    """Return the weights (4, steps) of four points one after another between the second and the third."""
    t = np.arange(steps) / steps
    rows = [2 * t**2 - t - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2]
    weights: FloatArray = 0.5 * np.array(rows)
    return weights


@lru_cache(maxsize=64)
def noise_tile(rows: int, sigma_x: float, sigma_y: float) -> Float32Array:
    """Return noise (rows, TEXTURE_WIDTH) of unit deviation about 0, without a seam from right to left."""
    rng = np.random.default_rng([109, rows, round(10 * sigma_x), round(10 * sigma_y)])
    pad = int(4 * max(sigma_x, sigma_y)) + 1
    noise = np.pad(rng.standard_normal((rows + 2 * pad, TEXTURE_WIDTH), dtype=np.float32), ((0, 0), (pad, pad)), "wrap")
    smooth = cv2.GaussianBlur(noise, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y)[pad:-pad, pad:-pad]
    tile: Float32Array = smooth / smooth.std()
    return tile


def _rows(texture: Image, rows: tuple[int, int]) -> Image:
    return texture[rows[0] : rows[0] + rows[1]]


@lru_cache(maxsize=64)
def _grain_tile(rows: int, sigma_x: float, sigma_y: float) -> Image:
    """Return noise (rows, 2 * TEXTURE_WIDTH) about 128 in 8 bits, twice side by side."""
    tile = np.clip(np.round(128 + _GRAIN * noise_tile(rows, sigma_x, sigma_y)), 0, 255).astype(np.uint8)
    return np.tile(tile, (1, 2))


def _rolled(tile: Image, rng: np.random.Generator) -> Image:
    start = int(rng.integers(TEXTURE_WIDTH))
    return tile[:, TEXTURE_WIDTH - start : 2 * TEXTURE_WIDTH - start]


def _grain(rows: int, kinds: Sequence[tuple[float, float, float]], rng: np.random.Generator) -> Image:
    """Return factors (rows, TEXTURE_WIDTH) about _ONE: sums of noises of some deviation, sigma_x and sigma_y."""
    total: Any = np.full((rows, TEXTURE_WIDTH), _ONE, dtype=np.uint8)
    for deviation, sigma_x, sigma_y in kinds:
        gain = deviation * _ONE / _GRAIN
        tile = _rolled(_grain_tile(rows, sigma_x, sigma_y), rng)
        total = cv2.addWeighted(total, 1.0, tile, gain, -128 * gain)
    return np.asarray(total)


def _put_skin(place: Image, looks: Looks, rng: np.random.Generator) -> None:
    rows = SKIN_ROWS[1]
    size = (TEXTURE_WIDTH, rows)
    dark, red = _skin_maps()
    tone = red * np.array(looks.skin, dtype=np.float32) * (1 - np.float32(0.4 + looks.wrinkles) * dark)
    grain = _grain(rows, [(0.028, 9.0, 9.0), (0.022, 1.0, 1.0)], rng)
    spots = _rolled(_spots_tile(rows), rng)
    amounts = [-0.5 * looks.freckles * amount * _ONE / 255 for amount in (0.5, 0.42, 0.25)]
    grains = cv2.merge([cv2.addWeighted(grain, 1.0, spots, amount, 0.0) for amount in amounts])
    place[:] = cv2.multiply(cv2.resize(cv2.convertScaleAbs(tone), size), grains, scale=1 / _ONE)
    growth = cv2.resize(_growth_map(looks.beard, looks.hair_style), size)
    growth = cv2.multiply(growth, np.minimum(_grain(rows, [(0.22, 0.8, 2.0)], rng), 153), scale=1 / _ONE)
    _lay(place, growth, 0.9 * np.array(looks.hair))


@lru_cache(maxsize=1)
def _skin_maps() -> tuple[Float32Array, Float32Array]:
    """Return how dark it is below the eyes (_COARSE, _COARSE, 1), and factors of blue, green and red."""
    turn, y = skin_places(_COARSE, _COARSE)
    x = np.abs(half_widths(y)[0] * np.sin(turn))
    front = np.clip(3 * np.cos(turn), 0, 1)
    red = np.zeros_like(x)
    for bx, by, sx, sy, amount in _REDDER:
        red += amount * np.exp(-(((x - bx) / sx) ** 2) - ((y - by) / sy) ** 2)
    dark = front * 0.10 * np.exp(-(((x - 30) / 16) ** 2) - ((y - 27) / 6) ** 2)
    factors = 1 + (front * red)[..., None] * (-0.16, -0.14, 0.02)
    return dark[..., None].astype(np.float32), factors.astype(np.float32)


@lru_cache(maxsize=64)
def _growth_map(beard: str, hair_style: str) -> Image:
    """Return how much hair (_COARSE, _COARSE) of 255 hides the skin."""
    turn, y = skin_places(_COARSE, _COARSE)
    x = half_widths(y)[0] * np.sin(turn)
    grown = 0.62 if beard in ("full", "goatee", "moustache") else 0.36 * (beard == "stubble")
    cover = grown * np.clip(3 * np.cos(turn), 0, 1) * beard_cover(x, y, beard if beard != "stubble" else "full")
    style = STYLES.get(hair_style, STYLES["receding"])
    scalp = 1 / (1 + np.exp((scalp_line(turn, style) - y) / 1.5)) * (0.16 if hair_style == "bald" else 0.9)
    growth: Image = np.round(255 * np.clip(cover + scalp, 0, 0.95)).astype(np.uint8)
    return growth


@lru_cache(maxsize=1)
def _spots_tile(rows: int) -> Image:
    spots = np.round(255 * np.clip(noise_tile(rows, 1.6, 1.6) - 2.0, 0, 1)).astype(np.uint8)
    return np.tile(spots, (1, 2))


def _put_hair(place: Image, looks: Looks, rng: np.random.Generator, is_curly: bool) -> None:
    grain = _grain(len(place), _CURLS if is_curly else _STRANDS, rng)
    place[:] = cv2.merge([cv2.convertScaleAbs(grain, alpha=channel / _ONE, beta=4.0) for channel in looks.hair])


def _put_cloth(place: Image, looks: Looks, rng: np.random.Generator) -> None:
    pattern = _cloth_pattern(int(rng.choice(4, p=(0.6, 0.18, 0.1, 0.12))))
    weave = _grain(CLOTH_ROWS[1], [(0.05, 0.8, 0.8), (0.08, 14.0, 10.0)], rng)
    second = np.clip(np.array(looks.cloth) + rng.normal(0, 45, 3), 10, 245).tolist()
    planes = [cv2.convertScaleAbs(pattern, alpha=(b - a) / 2, beta=a) for a, b in zip(looks.cloth, second, strict=True)]
    place[:] = cv2.multiply(cv2.merge(planes), cv2.cvtColor(weave, cv2.COLOR_GRAY2BGR), scale=1 / _ONE)


@lru_cache(maxsize=4)
def _cloth_pattern(number: int) -> Image:
    """Return a pattern of 0, 1 and 2: none, two kinds of stripes, squares."""
    rows, columns = np.mgrid[: CLOTH_ROWS[1], :TEXTURE_WIDTH]
    squares = (rows // 8) % 2 + (columns // 12) % 2
    pattern: Image = (0 * rows, 2 * ((rows // 7) % 2), 2 * ((columns // 9) % 2), squares)[number].astype(np.uint8)
    return pattern


def _frame_colour(rng: np.random.Generator) -> FloatArray:
    return np.array([(22, 22, 24), (30, 40, 70), (120, 122, 125), (60, 30, 25)][rng.integers(4)], dtype=np.float64)


def _put_lines(place: Image, looks: Looks) -> None:
    """Draw what age leaves: folds beside the nose, lines of the brow, lines at the eyes."""
    (x0, y0, x1, y1), masks = _line_masks()
    gains = (0.12 + 0.5 * looks.wrinkles, max(looks.wrinkles - 0.4, 0.0), max(looks.wrinkles - 0.25, 0.0))
    share = cv2.addWeighted(masks[0], gains[0], masks[1], gains[1], 0.0)
    share = cv2.addWeighted(share, 1.0, masks[2], gains[2], 0.0)
    _lay(place[y0:y1, x0:x1], share, np.array(looks.skin) * (0.55, 0.55, 0.66))


@lru_cache(maxsize=1)
def _line_masks() -> tuple[tuple[int, int, int, int], list[Image]]:
    """Return a box and, of 255 in it, the lines of nose and lids, of the eyes' corners and of the brow."""
    kinds: list[list[Patch]] = [[], [], []]
    white = (255.0, 255.0, 255.0)
    for side in (-1.0, 1.0):
        fold = np.array([(17.5, -6.0), (22.0, -15.0), (27.0, -24.0), (30.0, -33.0)]) * (side, 1.0)
        below = np.array([(20.0, 26.5), (28.0, 23.0), (38.0, 24.5)]) * (side, 1.0)
        kinds[0].append(stroke(rounded(fold, closed=False), 2.2, white, 0.55, 1.8))
        kinds[0].append(stroke(rounded(below, closed=False), 1.6, white, 0.35, 1.6))
        for dy in (-3.0, 1.0, 5.0):
            crow = np.array([(50.0, 33.0 + dy), (57.0, 34.0 + 2 * dy)]) * (side, 1.0)
            kinds[1].append(stroke(crow, 1.0, white, 0.6, 1.0))
    for y in (66.0, 74.0, 82.0):
        brow = np.column_stack([np.linspace(-38, 38, 9), y + 2 * np.cos(np.linspace(-3, 3, 9))])
        kinds[2].append(stroke(brow, 1.4, white, 0.5, 1.4))
    masks = []
    for patches in kinds:
        canvas = np.zeros((SKIN_ROWS[1], TEXTURE_WIDTH, 3), dtype=np.uint8)
        put_patches(canvas, patches)
        masks.append(canvas[..., 0])
    x0, y0, width, height = cv2.boundingRect(np.maximum.reduce(masks))
    box = (x0, y0, x0 + width, y0 + height)
    return box, [np.ascontiguousarray(m[y0 : y0 + height, x0 : x0 + width]) for m in masks]


# Noises of hair: deviation, sigma_x and sigma_y in pixels.
_CURLS = ((0.22, 2.2, 2.2), (0.10, 0.8, 0.8))
_STRANDS = ((0.16, 1.0, 40.0), (0.13, 3.5, 60.0), (0.05, 0.8, 6.0))

# Where blood shows: x, y, half widths (mm) and how much.
_REDDER = np.array(
    [
        (40.0, -2.0, 20.0, 17.0, 0.5),
        (0.0, -4.0, 12.0, 10.0, 0.6),
        (0.0, -66.0, 16.0, 10.0, 0.35),
        (30.0, 44.0, 16.0, 5.0, 0.4),
    ]
)
