"""Pictures of synthetic heads: a shaded head before a cluttered background, with the noise of a sensor.

Simple on purpose: flat-shaded quads drawn far to near. Clutter and noise are set so that the files have the
size of real ones, because the time to decode them depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ParamSpec

import cv2
import numpy as np
import numpy.typing as npt

from ubhpd.errors import UbhpdError
from ubhpd.synth.heads import Head, View, weak_view
from ubhpd.synth.paint import paint_of
from ubhpd.synth.shape import head_mesh

Array = npt.NDArray[np.float64]
Picture = npt.NDArray[Any]  # of uint8

FACE_SIDE_PX = 450  # of the pictures of 300W-LP and AFLW2000
JPEG_QUALITY = 90

_P = ParamSpec("_P")

_SUBPIXEL_BITS = 4
_TILE_MARGIN_PX = 64
_FEATURE_LIFT_MM = 3.0


class PicturePool:
    """Encoded pictures: all drawn, or only the first few and those again and again, as benchmarks want it."""

    def __init__(self, distinct: int | None) -> None:
        if distinct is not None and distinct < 1:
            raise UbhpdError(f"Cannot take pictures from a pool of {distinct}: give 1 or more, or None.")
        self._distinct = distinct
        self._pool: list[tuple[bytes, ...]] = []

    def take(
        self, index: int, draw: Callable[_P, tuple[bytes, ...]], *args: _P.args, **kwargs: _P.kwargs
    ) -> tuple[bytes, ...]:
        """Return the files of picture number `index` (0, 1, 2 ...), drawn now or earlier."""
        if self._distinct is None:
            return draw(*args, **kwargs)
        if index == len(self._pool) and index < self._distinct:
            self._pool.append(draw(*args, **kwargs))
        return self._pool[index % self._distinct]


def picture(
    heads: Sequence[tuple[View, int]],
    size: tuple[int, int],
    rng: np.random.Generator,
    noise: float = 2.2,
    clutter: float = 1.0,
) -> Picture:
    """Return a picture (height, width, 3), uint8 BGR, of heads before a background.

    Args:
        heads: views and subjects, drawn in this order.
        size: width and height in pixels.
        rng: decides background, light and noise.
        noise: standard deviation of the sensor noise in grey levels.
        clutter: amplitude of the background's texture; 0 gives smooth colours.
    """
    canvas = _background(size, rng, clutter)
    light = rng.normal((0.0, 0.45, 1.0), (0.45, 0.2, 0.1))
    for view, subject in heads:
        _draw_body(canvas, view, subject)
        draw_head(canvas, view, subject, light)
    canvas = cv2.GaussianBlur(canvas, (3, 3), 0.9)
    return _add_noise(canvas, "sensor", noise, rng)


def draw_head(canvas: npt.NDArray[Any], view: View, subject: int, light: npt.ArrayLike = (0.2, 0.4, 1.0)) -> None:
    """Draw a head into a picture (height, width, 3 or 4) of 8 bits; a fourth channel becomes opaque."""
    paint = paint_of(subject)
    seen = view.project(paint.points_mm)
    fixed = np.round(seen[:, :2] * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    corners = fixed[paint.quads]
    front = np.flatnonzero(_signed_area(corners) < 0)
    direction = np.asarray(light) / np.linalg.norm(light)
    shade = 0.42 + 0.62 * np.clip(paint.quad_normals[front] @ view.rotation.T @ direction, 0.0, 1.0)
    colours = np.clip(paint.quad_colours[front] * shade[:, None], 0, 255)
    jobs: list[tuple[float, Any, tuple[float, ...], bool]] = [
        (depth, quad, (*colour, 255.0), True)
        for depth, quad, colour in zip(
            seen[paint.quads[front], 2].mean(axis=1).tolist(), corners[front], colours.tolist(), strict=True
        )
    ]
    for index, colour, two_sided in zip(paint.polygons, paint.polygon_colours, paint.polygon_two_sided, strict=True):
        outline = fixed[index]
        if two_sided or _signed_area(outline[None])[0] < 0:
            depth = float(seen[index, 2].mean()) - (0.0 if two_sided else _FEATURE_LIFT_MM)
            jobs.append((depth, outline, (*colour, 255.0), False))
    jobs.sort(key=lambda job: -job[0])
    for _, outline, fill, is_convex in jobs:
        if is_convex:
            cv2.fillConvexPoly(canvas, outline, fill, cv2.LINE_8, _SUBPIXEL_BITS)
        else:
            cv2.fillPoly(canvas, [outline], fill, cv2.LINE_8, _SUBPIXEL_BITS)


def depth_picture(view: View, subject: int, size: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """Return distances in millimetres (height, width) of a head and shoulders; 0 where there is nothing."""
    canvas = np.zeros((size[1], size[0]), dtype=np.uint16)
    mesh = head_mesh(subject)
    seen = view.project(mesh.points_mm)
    fixed = np.round(seen[:, :2] * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    base, scale = _neck(view)
    far = float(view.matrix[2, 3]) + 90.0
    for outline in _body_outlines(base, scale):
        cv2.fillPoly(canvas, [outline], (round(far),), cv2.LINE_8, _SUBPIXEL_BITS)
    corners = fixed[mesh.quads]
    front = np.flatnonzero(_signed_area(corners) < 0)
    depth = seen[mesh.quads[front], 2].mean(axis=1)
    for i in np.argsort(-depth, kind="stable"):
        cv2.fillConvexPoly(canvas, corners[front[i]], (round(depth[i]),), cv2.LINE_8, _SUBPIXEL_BITS)
    return canvas


def face_view(head: Head, side_px: int = FACE_SIDE_PX, rotation: npt.ArrayLike | None = None) -> View:
    """Return the view of a head in a square face picture, as 300W-LP, AFLW2000 and SynHead cut them."""
    scale = 0.0026 * side_px * head.scale
    centre = (side_px * (0.5 + head.centre_mm[0] / 4000.0), side_px * (0.5 + head.centre_mm[1] / 4000.0))
    return weak_view(head.rotation if rotation is None else rotation, scale, centre)


def jpeg_bytes(image: Picture, quality: int = JPEG_QUALITY) -> bytes:
    """Return a picture (height, width, 3) BGR as a JPEG file."""
    return _encoded(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])


def png_bytes(image: Picture) -> bytes:
    """Return a picture (height, width, 3 or 4) BGR or BGRA as a PNG file."""
    return _encoded(".png", image, _PNG)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file; its folder is made if need be."""
    try:
        path.write_bytes(data)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


# The Paeth filter, as nearly every row of a BIWI picture has it: it decides how long decoding takes.
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 2]
if hasattr(cv2, "IMWRITE_PNG_FILTER"):
    _PNG += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_PAETH]


def _encoded(suffix: str, image: Picture, options: list[int]) -> bytes:
    ok, data = cv2.imencode(suffix, image, options)
    if not ok:
        raise UbhpdError(f"OpenCV cannot write {suffix} files: reinstall opencv-python-headless.")
    return bytes(data.tobytes())


def _background(size: tuple[int, int], rng: np.random.Generator, clutter: float) -> Picture:
    width, height = size
    grey = rng.uniform(60, 190, (5, 7, 1)) + rng.normal(0, 14, 3) + rng.normal(0, 6, (5, 7, 3))
    canvas: Picture = cv2.resize(np.clip(grey, 0, 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(round(8 * clutter)):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        dx, dy = int(rng.integers(4, width // 3)), int(rng.integers(4, height // 2))
        colour = tuple(float(c) for c in rng.uniform(20, 235) + rng.normal(0, 25, 3))
        if rng.random() < 0.5:
            cv2.rectangle(canvas, (x, y), (x + dx, y + dy), colour, -1)
        else:
            cv2.line(canvas, (x, y), (x + dx - width // 6, y + dy), colour, int(rng.integers(2, 14)), cv2.LINE_AA)
    return _add_noise(canvas, "texture", 9.0 * clutter, rng)


def _draw_body(canvas: Picture, view: View, subject: int) -> None:
    paint = paint_of(subject)
    base, scale = _neck(view)
    neck, shoulders = _body_outlines(base, scale)
    cv2.fillPoly(canvas, [neck], tuple((paint.skin * 0.66).tolist()), cv2.LINE_8, _SUBPIXEL_BITS)
    cv2.fillPoly(canvas, [shoulders], tuple(paint.cloth.tolist()), cv2.LINE_8, _SUBPIXEL_BITS)


def _neck(view: View) -> tuple[Array, float]:
    """Return where the neck begins in the picture, in pixels, and the pixels of a millimetre."""
    return view.project([(0.0, -45.0, -55.0)])[0, :2], view.scale_px_per_mm


def _body_outlines(base: Array, scale: float) -> list[npt.NDArray[np.int32]]:
    neck = np.array([(-48.0, 0.0), (48.0, 0.0), (58.0, 120.0), (-58.0, 120.0)])
    turn = np.linspace(np.pi, 2 * np.pi, 24)
    shoulders = np.column_stack([215 * np.cos(turn), 260 + 175 * np.sin(turn)])
    shoulders = np.concatenate([shoulders, [(235.0, 900.0), (-235.0, 900.0)]])
    unit = 1 << _SUBPIXEL_BITS
    return [np.round((base + scale * outline) * unit).astype(np.int32) for outline in (neck, shoulders)]


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


def _signed_area(polygons: npt.NDArray[np.int32]) -> Array:
    """Return twice the area (n,) of polygons (n, k, 2); negative if counter-clockwise as displayed."""
    p = polygons.astype(np.float64)
    q = np.roll(p, -1, axis=1)
    area: Array = (p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]).sum(axis=1)
    return area
