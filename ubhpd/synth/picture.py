"""Pictures of synthetic heads: people in some light before a background out of focus, with the noise of a sensor.

Texture and noise are set so that the files have about the size of real ones, because the time to decode them
depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ubhpd.synth.heads import Head, View, weak_view
from ubhpd.synth.render import draw_light, paint_head

Array = npt.NDArray[np.float64]
Picture = npt.NDArray[Any]  # of uint8

FACE_SIDE_PX = 450  # of the pictures of 300W-LP and AFLW2000

_TILE_MARGIN_PX = 64


def picture(
    heads: Sequence[tuple[View, Head]],
    size: tuple[int, int],
    rng: np.random.Generator,
    noise: float = 2.2,
    clutter: float = 1.0,
) -> Picture:
    """Return a picture (height, width, 3), uint8 BGR, of heads before a background.

    Args:
        heads: views and heads, drawn in this order.
        size: width and height in pixels.
        rng: decides background, light and noise.
        noise: standard deviation of the sensor noise in grey levels.
        clutter: amplitude of the background's texture; 0 gives smooth colours.
    """
    canvas = _background(size, rng, clutter)
    light = draw_light(rng)
    for view, head in heads:
        paint_head(canvas, view, head, light)
    return _add_noise(canvas, "sensor", noise, rng)


def face_view(head: Head, side_px: int = FACE_SIDE_PX, rotation: npt.ArrayLike | None = None) -> View:
    """Return the view of a head in a square face picture, as 300W-LP, AFLW2000 and SynHead cut them."""
    scale = 0.0026 * side_px * head.scale
    centre = (side_px * (0.5 + head.centre_mm[0] / 4000.0), side_px * (0.5 + head.centre_mm[1] / 4000.0))
    return weak_view(head.rotation if rotation is None else rotation, scale, centre)


def _background(size: tuple[int, int], rng: np.random.Generator, clutter: float) -> Picture:
    """Return a wall of soft colours with shapes out of focus before it and a fine texture."""
    width, height = size
    small = (max(width // 4, 8), max(height // 4, 8))
    grey = rng.uniform(50, 200) + rng.normal(0, 34, (4, 5, 1)) + rng.normal(0, 9, 3) + rng.normal(0, 5, (4, 5, 3))
    canvas: Picture = cv2.resize(np.clip(grey, 0, 255).astype(np.uint8), small, interpolation=cv2.INTER_CUBIC)
    for _ in range(round(9 * clutter)):
        x, y = int(rng.integers(small[0])), int(rng.integers(small[1]))
        dx, dy = int(rng.integers(2, 2 + small[0] // 3)), int(rng.integers(2, 2 + small[1] // 2))
        colour = tuple(float(c) for c in rng.uniform(20, 235) + rng.normal(0, 18, 3))
        kind = rng.random()
        if kind < 0.45:
            cv2.rectangle(canvas, (x, y), (x + dx, y + dy), colour, -1)
        elif kind < 0.75:
            cv2.ellipse(canvas, (x, y), (dx, dy), float(rng.uniform(0, 180)), 0, 360, colour, -1)
        else:
            cv2.line(canvas, (x, y), (x + dx - small[0] // 6, y + dy), colour, int(rng.integers(1, 5)), cv2.LINE_AA)
    canvas = cv2.GaussianBlur(canvas, (0, 0), float(rng.uniform(0.6, 3.0)))
    canvas = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_LINEAR)
    return _add_noise(canvas, "texture", 4.0 * clutter, rng)


def _add_noise(canvas: Picture, kind: str, amplitude: float, rng: np.random.Generator) -> Picture:
    height, width = canvas.shape[:2]
    tile = _noise_tile(kind, width, height, round(10 * amplitude))
    x, y = rng.integers(0, _TILE_MARGIN_PX, 2)
    noisy: Picture = cv2.add(canvas, tile[y : y + height, x : x + width], dtype=cv2.CV_8U)
    return noisy


@lru_cache(maxsize=16)
def _noise_tile(kind: str, width: int, height: int, tenths: int) -> npt.NDArray[np.int16]:
    shape = (height + _TILE_MARGIN_PX, width + _TILE_MARGIN_PX, 3)
    rng = np.random.default_rng([7, width, height, kind == "sensor"])
    noise = rng.standard_normal(shape, dtype=np.float32)
    if kind == "texture":  # two grains, nearly without colour
        fine, coarse = cv2.GaussianBlur(noise, (0, 0), 1.6), cv2.GaussianBlur(noise, (0, 0), 7.0)
        noise = fine / fine.std() * 0.5 + coarse / coarse.std()
        noise = 0.9 * noise[..., :1] + 0.1 * noise
    return np.round(noise * (tenths / 10)).astype(np.int16)
