"""What a face detector gives, whichever it is, and how boxes that show the same face are thinned out.

Images from outside a manifest: a folder, a video, a camera.

An image that cannot be read is given with its problem in place of its pixels, so that one bad file among thousands
neither stops a run nor vanishes from its result. Images are decoded as `ubhpd.raw.image_files` decodes them,
orientation in EXIF ignored: the boxes, landmarks and poses of every dataset are those of the pixels as they are stored,
and so a network sees the same image whether it comes from a manifest or from here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import FloatArray, Image, IntArray
from ubhpd.raw.image_files import decode, quiet_opencv


class Face(NamedTuple):
    """One face in an image, in pixels, x right and y down.

    bbox_xyxy: left, top, right, bottom; may leave the image. score: higher is surer, the scale is the detector's.
    points5: eyes, nose and corners of the mouth (5, 2), each pair from image-left to image-right in an upright face;
    None where the detector has none.
    """

    bbox_xyxy: tuple[float, float, float, float]
    score: float
    points5: FloatArray | None = None


class Detector(Protocol):
    """Finds faces."""

    name: str

    def boxes(self, image_bgr: Image) -> list[Face]:
        """Return the faces of an image (height, width, 3), BGR, the largest first; of equal size the surest."""


def largest_first(faces: list[Face]) -> list[Face]:
    """Return the faces by the area of their boxes, the largest first; of equal size the surest first."""
    return sorted(faces, key=lambda face: (-_area(face), -face.score, face.bbox_xyxy))


def keep_apart(
    boxes_xyxy: npt.ArrayLike, scores: npt.ArrayLike, limit: float, pixel: float = 0.0, over_smaller: bool = False
) -> IntArray:
    """Return the rows of the boxes that survive greedy non-maximum suppression, the surest first.

    The surest box stays, all that overlap it by more than `limit` go, and so on with what is left; of equally sure
    boxes the first stays.

    Args:
        boxes_xyxy: (n, 4) pixels.
        scores: (n,).
        limit: overlap up to which two boxes count as two faces.
        pixel: added to widths and heights: 1 where right and bottom are the last pixels inside.
        over_smaller: measure the overlap by the smaller box instead of by the union, so that a box inside another
            goes.
    """
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    waiting = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    kept = []
    while len(waiting):
        first, others = waiting[0], waiting[1:]
        kept.append(first)
        waiting = others[~(overlap(boxes[first], boxes[others], pixel, over_smaller) > limit)]
    return np.array(kept, dtype=np.int64)


def overlap(
    box_xyxy: npt.ArrayLike, boxes_xyxy: npt.ArrayLike, pixel: float = 0.0, over_smaller: bool = False
) -> FloatArray:
    """Return what share (n,) of its union with a box each of the boxes (n, 4) has in common with it.

    `pixel` and `over_smaller` are those of `keep_apart`. A share of nothing is 0.
    """
    one, boxes = np.asarray(box_xyxy, dtype=np.float64), np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    area, areas = (one[2:] - one[:2] + pixel).prod(), (boxes[:, 2:] - boxes[:, :2] + pixel).prod(axis=1)
    sides = np.minimum(one[2:], boxes[:, 2:]) - np.maximum(one[:2], boxes[:, :2]) + pixel
    shared: FloatArray = sides.clip(0).prod(axis=1)
    whole = np.minimum(area, areas) if over_smaller else area + areas - shared
    share: FloatArray = np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
    return share


def _area(face: Face) -> float:
    left, top, right, bottom = face.bbox_xyxy
    return (right - left) * (bottom - top)


IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2")


class InputImage(NamedTuple):
    """One image, or what kept it from being read.

    name: path below the folder with forward slashes, the video's file name, or the camera. frame_index: of a video or
    camera, from 0. time_s: of a video, the frame's own time stamp. pixels_bgr: (height, width, 3), None with a
    problem. problem: a sentence.
    """

    name: str
    frame_index: int | None
    time_s: float | None
    pixels_bgr: Image | None
    problem: str | None


class Images(Iterator[InputImage]):
    """Images one by one; total: how many at most, 0 where that is not known."""

    def __init__(self, images: Iterator[InputImage], total: int = 0) -> None:
        self._images, self.total = images, total

    def __next__(self) -> InputImage:
        return next(self._images)


def folder(path: str | os.PathLike[str]) -> Images:
    """Return the images in a folder and all folders in it, sorted by path; or the one image that `path` is.

    Raises:
        UbhpdError: there is nothing at the path, or no image below it.
    """
    place = Path(path)
    if place.is_dir():
        names = sorted(_image_names(place))
        if not names:
            raise UbhpdError(f"{place} holds no image ({', '.join(IMAGE_SUFFIXES)}): name a folder that does.")
        return Images((_decoded(name, place / name) for name in names), len(names))
    if not place.exists():
        raise UbhpdError(f"There is no image or folder {place}: check the path.")
    return Images(iter([_decoded(place.name, place)]), 1)


def video(path: str | os.PathLike[str]) -> Images:
    """Return the frames of a video in their order; it is never sought in.

    A file that breaks off, more than a second before the end that it states, ends with a problem.

    Raises:
        UbhpdError: there is no such file, or it does not open as a video.
    """
    import cv2

    place = Path(path)
    if not place.is_file():
        raise UbhpdError(f"There is no video {place}: check the path.")
    with quiet_opencv():
        capture = cv2.VideoCapture(str(place))
    if not capture.isOpened():
        raise UbhpdError(f"{place} does not open as a video: check that it is whole, or convert it with ffmpeg.")
    stated = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return Images(_frames_of_video(capture, place, stated), max(int(stated), 0))


def camera(index: int) -> Images:
    """Return the frames of a camera until it is unplugged; it is let go when the iterator is thrown away.

    Args:
        index: 0 for the first camera of this machine.

    Raises:
        UbhpdError: there is no such camera, or another program has it.
    """
    import cv2

    with quiet_opencv():
        capture = cv2.VideoCapture(index)
    if not capture.isOpened():
        raise UbhpdError(f"Camera {index} does not open: check that it is connected and no other program uses it.")
    return Images(_frames(capture, f"camera {index}"))


def _image_names(place: Path) -> Iterator[str]:
    for parent, _, files in os.walk(place):
        for file in files:
            if file.lower().endswith(IMAGE_SUFFIXES):
                yield (Path(parent) / file).relative_to(place).as_posix()


def _decoded(name: str, path: Path) -> InputImage:
    try:
        data = path.read_bytes()
    except OSError as error:
        return InputImage(name, None, None, None, f"{name} cannot be read ({error.strerror}).")
    with quiet_opencv():
        pixels = decode(data)
    if pixels is None:
        return InputImage(name, None, None, None, f"{name} does not decode as an image ({len(data)} bytes).")
    return InputImage(name, None, None, pixels, None)


def _frames_of_video(capture: Any, place: Path, stated: float) -> Iterator[InputImage]:
    import cv2

    rate, count = capture.get(cv2.CAP_PROP_FPS), 0
    for frame in _frames(capture, place.name):
        count += 1
        yield frame._replace(time_s=capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0)
    # The stated number is an estimate in some containers: a few frames less are no damage.
    if count == 0 or stated - count > max(rate, 1.0):
        problem = f"{place.name} breaks off after {count} of {stated:.0f} frames."
        yield InputImage(place.name, count, None, None, problem)


def _frames(capture: Any, name: str) -> Iterator[InputImage]:
    index = 0
    try:
        while True:
            is_read, pixels = capture.read()
            if not is_read:
                return
            yield InputImage(name, index, None, np.asarray(pixels, dtype=np.uint8), None)
            index += 1
    finally:
        capture.release()
