"""The files of a synthetic dataset: each there whole or not at all, images drawn by as many processes as wanted.

Images of synthetic heads: people in some light before a background out of focus, with the noise of a sensor.

Texture and noise are set so that the files have about the size of real ones, because the time to decode them
depends on it.

What AFLW2000-3D and 300W-LP share: MATLAB v5 files with the parameters of a fitted 3-D morphable model.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import scipy.io

from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing
from ubhpd.core.typing import AnyArray, FloatArray, Image
from ubhpd.synth.rendered_heads import Head, Pose, View, weak_view
from ubhpd.synth.renderer.render import draw_light, paint_head

JPEG_QUALITY = 90

_BATCH = 8  # images a process draws before it reports


class _Drawing(NamedTuple):
    paths: tuple[Path, ...]
    draw: Callable[..., tuple[bytes, ...]]
    arguments: tuple[Any, ...]
    subject: int
    copies: list[tuple[Path, ...]]  # where the same images stand once more


@dataclass(frozen=True)
class Work:
    """How images are drawn.

    jobs: processes, -1 for all cores. keep: leave images that are there already. report: called with how many images
    (or videos) are finished, and of how many.
    """

    jobs: int = 1
    keep: bool = False
    report: Callable[[int, int], None] = lambda done, total: None


class Images:
    """Images to be drawn: all of them, or only the first few and those again and again, as benchmarks want it."""

    def __init__(self, distinct: int | None = None, work: Work | None = None) -> None:
        if distinct is not None and distinct < 1:
            raise UbhpdError(f"Cannot take images from a pool of {distinct}: give 1 or more, or None.")
        self._distinct = distinct
        self._work = work or Work()
        self._drawings: list[_Drawing] = []
        self._count = 0

    def add(
        self, paths: tuple[Path, ...], draw: Callable[..., tuple[bytes, ...]], *arguments: Any, subject: int
    ) -> None:
        """Note that `draw`, a function of a module, gives the bytes of the files `paths` for its arguments.

        Images of one subject are drawn one after another, so that the person is made only once.
        """
        if self._distinct is None or self._count < self._distinct:
            self._drawings.append(_Drawing(paths, draw, arguments, subject, []))
        else:
            self._drawings[self._count % self._distinct].copies.append(paths)
        self._count += 1

    def write(self) -> None:
        """Draw and write them all; the same bytes for any number of processes."""
        work, total = self._work, len(self._drawings)
        waiting = [d for d in self._drawings if not (work.keep and all(p.is_file() for p in d.paths) and not d.copies)]
        waiting.sort(key=lambda d: d.subject)
        done = total - len(waiting)
        work.report(done, total)
        for batch in self._finished(waiting):
            done += batch
            work.report(done, total)

    def _finished(self, waiting: list[_Drawing]) -> Iterator[int]:
        if self._work.jobs == 1 or len(waiting) < 2:
            for drawing in waiting:
                yield _write_all([drawing])
            return
        from ubhpd.core.parallel import Engine

        size = max(1, min(_BATCH, len(waiting) // 8))
        yield from Engine(self._work.jobs).map(
            _write_all, [waiting[i : i + size] for i in range(0, len(waiting), size)]
        )


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all; its folder is made if need be.

    Raises:
        UbhpdError: the disk is full.
    """
    try:
        with replacing(path) as part:
            part.write_bytes(data)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise disk_full(path) from None


def disk_full(path: Path) -> UbhpdError:
    """Return the error that says so."""
    return UbhpdError(f"There is no room left to write {path}: free some, and the same command resumes from there.")


def jpeg_bytes(image: Any, quality: int = JPEG_QUALITY) -> bytes:
    """Return an image (height, width, 3) BGR, uint8, as a JPEG file."""
    return _encoded(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])


def png_bytes(image: Any) -> bytes:
    """Return an image (height, width, 3 or 4) BGR or BGRA, uint8, as a PNG file."""
    return _encoded(".png", image, _PNG)


# The Paeth filter, as nearly every row of a BIWI image has it: it decides how long decoding takes. Noise has no
# repetitions worth a search, so only runs of one byte are looked for: faster, and smaller files.
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 2, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
if hasattr(cv2, "IMWRITE_PNG_FILTER"):
    _PNG += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_PAETH]


def _encoded(suffix: str, image: Any, options: list[int]) -> bytes:
    ok, data = cv2.imencode(suffix, image, options)
    if not ok:
        raise UbhpdError(f"OpenCV cannot write {suffix} files: reinstall opencv-python-headless.")
    return bytes(data.tobytes())


def _write_all(drawings: list[_Drawing]) -> int:
    cv2.setNumThreads(1)
    for drawing in drawings:
        contents = drawing.draw(*drawing.arguments)
        for paths in (drawing.paths, *drawing.copies):
            for path, content in zip(paths, contents, strict=True):
                write_bytes(path, content)
    return len(drawings)


FACE_SIDE_PX = 450  # of the images of 300W-LP and AFLW2000

_TILE_MARGIN_PX = 64


def draw_image(
    heads: Sequence[tuple[View, Head]],
    size: tuple[int, int],
    rng: np.random.Generator,
    noise: float = 2.2,
    clutter: float = 1.0,
) -> Image:
    """Return an image (height, width, 3), uint8 BGR, of heads before a background.

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
    """Return the view of a head in a square face image, as 300W-LP, AFLW2000 and SynHead cut them."""
    scale = 0.0026 * side_px * head.scale
    centre = (side_px * (0.5 + head.centre_mm[0] / 4000.0), side_px * (0.5 + head.centre_mm[1] / 4000.0))
    return weak_view(head.rotation if rotation is None else rotation, scale, centre)


def _background(size: tuple[int, int], rng: np.random.Generator, clutter: float) -> Image:
    """Return a wall of soft colours with shapes out of focus before it and a fine texture."""
    width, height = size
    small = (max(width // 4, 8), max(height // 4, 8))
    grey = rng.uniform(50, 200) + rng.normal(0, 34, (4, 5, 1)) + rng.normal(0, 9, 3) + rng.normal(0, 5, (4, 5, 3))
    canvas: AnyArray = cv2.resize(np.clip(grey, 0, 255).astype(np.uint8), small, interpolation=cv2.INTER_CUBIC)
    for _ in range(round(9 * clutter)):
        x, y = int(rng.integers(small[0])), int(rng.integers(small[1]))
        dx, dy = int(rng.integers(2, 2 + small[0] // 3)), int(rng.integers(2, 2 + small[1] // 2))
        colour = tuple(float(c) for c in rng.uniform(20, 235) + rng.normal(0, 18, 3))
        kind = rng.random()
        if kind < 0.45:
            cv2.rectangle(canvas, (x, y), (x + dx, y + dy), colour, -1)
        elif kind < 0.75:
            angle = float(rng.uniform(0, 180))
            cv2.ellipse(canvas, (x, y), (dx, dy), angle, startAngle=0, endAngle=360, color=colour, thickness=cv2.FILLED)
        else:
            cv2.line(canvas, (x, y), (x + dx - small[0] // 6, y + dy), colour, int(rng.integers(1, 5)), cv2.LINE_AA)
    canvas = cv2.GaussianBlur(canvas, (0, 0), float(rng.uniform(0.6, 3.0)))
    canvas = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_LINEAR)
    return _add_noise(np.asarray(canvas, np.uint8), "texture", 4.0 * clutter, rng)


def _add_noise(canvas: Image, kind: str, amplitude: float, rng: np.random.Generator) -> Image:
    height, width = canvas.shape[:2]
    tile = _noise_tile(kind, width, height, round(10 * amplitude))
    x, y = rng.integers(0, _TILE_MARGIN_PX, 2)
    return np.asarray(cv2.add(canvas, tile[y : y + height, x : x + width], dtype=cv2.CV_8U), np.uint8)


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


Variables = Mapping[str, npt.NDArray[np.generic]]

_HEADER_TEXT = b"MATLAB 5.0 MAT-file, Platform: PCWIN64, Created on: Tue Mar 29 22:50:26 2016"
_MICROMETRES_PER_MM = 1000.0  # the unit of the model, hence scales near 0.001


def mat_bytes(variables: Variables) -> bytes:
    """Return a MATLAB v5 file with every variable compressed by itself, in the order given."""
    file = io.BytesIO()
    scipy.io.savemat(file, dict(variables), do_compression=True)  # type: ignore[arg-type]
    return _HEADER_TEXT.ljust(116) + file.getvalue()[116:]  # scipy writes the time of day there


def model_mat_bytes(rng: np.random.Generator) -> bytes:
    """Return a file as in the folder Code: a mean shape and its triangles, and no label."""
    return mat_bytes(
        {
            "mu_shape": rng.normal(0.0, 4e4, (300, 1)),
            "w": rng.normal(0.0, 1e-2, (300, 10)).astype(np.float32),
            "sigma": np.sort(rng.uniform(1e4, 1e6, (10, 1)))[::-1],
            "tri": rng.integers(1, 101, (3, 150)).astype(np.int32),
        }
    )


def appearance_variables(rng: np.random.Generator) -> dict[str, npt.NDArray[np.generic]]:
    """Return Illum_Para, Color_Para, Tex_Para, Shape_Para and Exp_Para, in that order."""
    tex = np.zeros((199, 1), dtype=np.float32)
    tex[:30] = rng.normal(0.0, 3000.0, (30, 1))
    shape = rng.normal(0.0, 2e5, (199, 1)) * np.exp(-np.arange(199) / 30.0)[:, None]
    illum = np.concatenate([rng.uniform(0.2, 1.1, 6), rng.uniform(-1.0, 1.0, 2), [0.0], [20.0]])
    color = np.concatenate([rng.uniform(0.5, 1.2, 3), rng.uniform(-0.5, 0.3, 3), [1.0]])
    return {
        "Illum_Para": illum[None, :],
        "Color_Para": color[None, :].astype(np.float32),
        "Tex_Para": tex.astype(np.float64),
        "Shape_Para": shape.astype(np.float32).astype(np.float64),
        "Exp_Para": rng.normal(0.0, 0.5, (29, 1)),
    }


def pose_para(pose: Pose, view: View, height_px: int) -> FloatArray:
    """Return Pose_Para (1, 7): pitch, yaw, roll in radians, t3d in pixels with y upward, and the scale."""
    yaw, pitch, roll = np.radians(pose)
    x, y, _ = view.project(np.zeros((1, 3)))[0]
    scale = view.scale_px_per_mm / _MICROMETRES_PER_MM
    return np.array([[pitch, yaw, roll, x, height_px + 1 - y, -60.0, scale]])


def crop_box(points_px: FloatArray, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """Return roi (1, 4): where the image was cut from a larger photo, which it may leave."""
    side = int(rng.integers(300, 900))
    x, y = (points_px[:2].mean(axis=1) * rng.uniform(-0.8, 1.5, 2)).astype(int)
    return np.array([[x, y, x + side, y + side]], dtype=np.int16)
