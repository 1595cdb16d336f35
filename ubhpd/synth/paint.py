"""The texture of a synthetic person: skin, hair and cloth painted once, and on them the features of an expression."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ubhpd.synth.face import skin_places, texture_of_front
from ubhpd.synth.grids import (
    BEARD_ROWS,
    CLOTH_ROWS,
    EAR_UV,
    FRAME_UV,
    HAIR_ROWS,
    SKIN_ROWS,
    TEXTURE_HEIGHT,
    TEXTURE_WIDTH,
)
from ubhpd.synth.hair import STYLES, beard_cover, scalp_line
from ubhpd.synth.persons import Looks, looks_of
from ubhpd.synth.shape import half_widths

Array = npt.NDArray[np.float64]
Texture = npt.NDArray[np.uint8]
Colour = tuple[float, float, float] | Array

_COARSE = 128  # pixels of a side at which soft masks are computed
_SUBPIXEL_BITS = 4


@lru_cache(maxsize=8)
def bare_texture(subject: int) -> Texture:
    """Return the texture (TEXTURE_HEIGHT, TEXTURE_WIDTH, 3), BGR, of a subject without eyes, brows and mouth."""
    rng = np.random.default_rng([107, subject])
    looks = looks_of(subject)
    texture = np.zeros((TEXTURE_HEIGHT, TEXTURE_WIDTH, 3), dtype=np.uint8)
    _put(texture, SKIN_ROWS, _skin(looks, rng))
    _put(texture, HAIR_ROWS, _hair(looks, rng, HAIR_ROWS[1], looks.hair_style == "curly"))
    _put(texture, BEARD_ROWS, _hair(looks, rng, BEARD_ROWS[1], is_curly=True))
    _put(texture, CLOTH_ROWS, _cloth(looks, rng))
    for uv, colour in ((FRAME_UV, _frame_colour(rng)), (EAR_UV, np.array(looks.skin) * (0.93, 0.93, 1.0))):
        texture[int(uv[1]) - 8 : int(uv[1]) + 8, int(uv[0]) - 32 : int(uv[0]) + 32] = np.clip(colour, 0, 255)
    _lines(texture, looks)
    return texture


def blend(texture: Texture, outline_px: Array, colour: Colour, alpha: float, blur_px: float = 0.0) -> None:
    """Lay a colour over a polygon (n, 2) of the texture, its edge softened."""
    pad = int(3 * blur_px) + 2
    low = np.maximum(np.floor(outline_px.min(axis=0)).astype(int) - pad, 0)
    high = np.minimum(np.ceil(outline_px.max(axis=0)).astype(int) + pad + 1, (texture.shape[1], texture.shape[0]))
    if (high <= low).any():
        return
    mask = np.zeros((high[1] - low[1], high[0] - low[0]), dtype=np.uint8)
    fixed = np.round((outline_px - low) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(mask, [fixed], (255,), cv2.LINE_AA, _SUBPIXEL_BITS)
    if blur_px > 0:
        mask = cv2.GaussianBlur(mask, (0, 0), blur_px)
    place = texture[low[1] : high[1], low[0] : high[0]]
    share = mask[..., None] * np.float32(alpha / 255.0)
    place[:] = place + share * (np.asarray(colour, dtype=np.float32) - place) + np.float32(0.5)


def stroke(
    texture: Texture, path_mm: Array, width_mm: Array | float, colour: Colour, alpha: float, blur_px: float
) -> None:
    """Lay a colour over a line (n, 2) of the mean head's front, of a width that may change along it."""
    half = np.broadcast_to(np.asarray(width_mm, dtype=np.float64) / 2, (len(path_mm),))[:, None]
    ahead = np.gradient(path_mm, axis=0)
    side = np.column_stack([-ahead[:, 1], ahead[:, 0]]) / (np.linalg.norm(ahead, axis=1, keepdims=True) + 1e-9)
    outline = np.concatenate([path_mm + half * side, (path_mm - half * side)[::-1]])
    blend(texture, texture_of_front(outline), colour, alpha, blur_px)


def rounded(points: Array, steps: int = 5, closed: bool = True) -> Array:
    """Return a smooth line (Catmull-Rom) through points (n, 2)."""
    p = points if closed else np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    a, b, c, d = np.roll(p, 1, axis=0), p, np.roll(p, -1, axis=0), np.roll(p, -2, axis=0)
    if not closed:
        a, b, c, d = p[:-3], p[1:-2], p[2:-1], p[3:]
    t = (np.arange(steps) / steps)[None, :, None]
    a, b, c, d = (v[:, None] for v in (a, b, c, d))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    line: Array = curve.reshape(-1, 2)
    return line if closed else np.concatenate([line, points[-1:]])


@lru_cache(maxsize=64)
def noise_tile(rows: int, sigma_x: float, sigma_y: float) -> npt.NDArray[np.float32]:
    """Return noise (rows, TEXTURE_WIDTH) of unit deviation about 0, without a seam from right to left."""
    rng = np.random.default_rng([109, rows, round(10 * sigma_x), round(10 * sigma_y)])
    pad = int(4 * max(sigma_x, sigma_y)) + 1
    noise = np.pad(rng.standard_normal((rows + 2 * pad, TEXTURE_WIDTH), dtype=np.float32), ((0, 0), (pad, pad)), "wrap")
    smooth = cv2.GaussianBlur(noise, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y)[pad:-pad, pad:-pad]
    tile: npt.NDArray[np.float32] = smooth / smooth.std()
    return tile


def _put(texture: Texture, rows: tuple[int, int], colours: npt.NDArray[np.float32]) -> None:
    texture[rows[0] : rows[0] + rows[1]] = np.clip(colours, 0, 255)


def _rolled(tile: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    return np.roll(tile, int(rng.integers(tile.shape[1])), axis=1)


def _skin(looks: Looks, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    rows = SKIN_ROWS[1]
    turn, y = skin_places(_COARSE, _COARSE)
    x = half_widths(y)[0] * np.sin(turn)
    front = np.clip(3 * np.cos(turn), 0, 1)
    red = np.zeros_like(x)
    for bx, by, sx, sy, amount in _REDDER:
        red += amount * np.exp(-(((np.abs(x) - bx) / sx) ** 2) - ((y - by) / sy) ** 2)
    dark = 0.10 * np.exp(-(((np.abs(x) - 30) / 16) ** 2) - ((y - 27) / 6) ** 2) * (0.4 + looks.wrinkles)
    tone = np.array(looks.skin)[None, None] * (1 - front * dark)[..., None]
    tone = tone * (1 + (front * red)[..., None] * (-0.16, -0.14, 0.02))
    grown = 0.62 if looks.beard in ("full", "goatee", "moustache") else 0.36 * (looks.beard == "stubble")
    cover = grown * front * beard_cover(x, y, looks.beard if looks.beard != "stubble" else "full")
    style = STYLES.get(looks.hair_style, STYLES["receding"])
    scalp = 1 / (1 + np.exp((scalp_line(turn, style) - y) / 1.5)) * (0.16 if looks.hair_style == "bald" else 0.9)
    soft = [cv2.resize(a.astype(np.float32), (TEXTURE_WIDTH, rows)) for a in (tone, cover, scalp)]
    grain = 1 + 0.028 * _rolled(noise_tile(rows, 9.0, 9.0), rng) + 0.022 * _rolled(noise_tile(rows, 1.0, 1.0), rng)
    spots = np.clip(_rolled(noise_tile(rows, 1.6, 1.6), rng) - 2.0, 0, 1) * (0.5 * looks.freckles)
    growth = (soft[1] + soft[2]).clip(0, 0.95) * (1 + 0.22 * _rolled(noise_tile(rows, 0.8, 2.0), rng)).clip(0, 1.2)
    growth = growth.clip(0, 1)
    planes = []
    for tone_plane, hair, freckle in zip(cv2.split(soft[0]), looks.hair, (0.5, 0.42, 0.25), strict=True):
        plane = tone_plane * grain * (1 - freckle * spots)
        planes.append(plane + growth * (0.9 * hair - plane))
    return _merged(planes)


def _merged(planes: list[npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
    return np.asarray(cv2.merge([plane.astype(np.float32) for plane in planes]), dtype=np.float32)


def _hair(looks: Looks, rng: np.random.Generator, rows: int, is_curly: bool) -> npt.NDArray[np.float32]:
    if is_curly:
        grain = 1 + 0.22 * _rolled(noise_tile(rows, 2.2, 2.2), rng) + 0.10 * _rolled(noise_tile(rows, 0.8, 0.8), rng)
    else:
        grain = 1 + 0.16 * _rolled(noise_tile(rows, 1.0, 40.0), rng) + 0.13 * _rolled(noise_tile(rows, 3.5, 60.0), rng)
        grain += 0.05 * _rolled(noise_tile(rows, 0.8, 6.0), rng)
    grain = grain.clip(0.35, 1.9)
    return _merged([grain * channel + 4.0 for channel in looks.hair])


def _cloth(looks: Looks, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    rows, columns = np.mgrid[: CLOTH_ROWS[1], :TEXTURE_WIDTH]
    pattern = (0.0 * rows, (rows // 7) % 2, (columns // 9) % 2, ((rows // 8) % 2 + (columns // 12) % 2) / 2)[
        rng.choice(4, p=(0.6, 0.18, 0.1, 0.12))
    ]
    weave = (
        1
        + 0.05 * _rolled(noise_tile(CLOTH_ROWS[1], 0.8, 0.8), rng)
        + 0.08 * _rolled(noise_tile(CLOTH_ROWS[1], 14.0, 10.0), rng)
    )
    second = np.clip(np.array(looks.cloth) + rng.normal(0, 45, 3), 10, 245)
    colours = np.array(looks.cloth) + pattern[..., None] * (second - looks.cloth)
    cloth: npt.NDArray[np.float32] = (colours * weave[..., None]).astype(np.float32)
    return cloth


def _frame_colour(rng: np.random.Generator) -> Array:
    return np.array([(22, 22, 24), (30, 40, 70), (120, 122, 125), (60, 30, 25)][rng.integers(4)], dtype=np.float64)


def _lines(texture: Texture, looks: Looks) -> None:
    """Draw what age leaves: folds beside the nose, lines of the brow, lines at the eyes."""
    dark = np.array(looks.skin) * (0.55, 0.55, 0.66)
    strength = 0.12 + 0.5 * looks.wrinkles
    for side in (-1.0, 1.0):
        fold = np.array([(17.5, -6.0), (22.0, -15.0), (27.0, -24.0), (30.0, -33.0)]) * (side, 1.0)
        stroke(texture, rounded(fold, closed=False), 2.2, dark, strength * 0.55, 1.8)
        below = np.array([(20.0, 26.5), (28.0, 23.0), (38.0, 24.5)]) * (side, 1.0)
        stroke(texture, rounded(below, closed=False), 1.6, dark, strength * 0.35, 1.6)
        for dy in (-3.0, 1.0, 5.0):
            crow = np.array([(50.0, 33.0 + dy), (57.0, 34.0 + 2 * dy)]) * (side, 1.0)
            stroke(texture, crow, 1.0, dark, max(looks.wrinkles - 0.4, 0.0) * 0.6, 1.0)
    for y in (66.0, 74.0, 82.0):
        brow = np.column_stack([np.linspace(-38, 38, 9), y + 2 * np.cos(np.linspace(-3, 3, 9))])
        stroke(texture, brow, 1.4, dark, max(looks.wrinkles - 0.25, 0.0) * 0.5, 1.4)


# Where blood shows: x, y, half widths (mm) and how much.
_REDDER = np.array(
    [
        (40.0, -2.0, 20.0, 17.0, 0.5),
        (0.0, -4.0, 12.0, 10.0, 0.6),
        (0.0, -66.0, 16.0, 10.0, 0.35),
        (30.0, 44.0, 16.0, 5.0, 0.4),
    ]
)
