"""What a face detector gives, whichever it is, and how boxes that show the same face are thinned out.

Images from outside a manifest: a folder, a video, a camera.

An image that cannot be read is given with its problem in place of its pixels, so that one bad file among thousands
neither stops a run nor vanishes from its result. Every file in a folder is an image or is counted with a reason. The
EXIF orientation of an image is undone here, as every viewer and OpenCV's video reader do; images of a manifest keep
their pixels as they are stored, because the labels of the datasets belong to those.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import FloatArray, Image, IntArray
from ubhpd.raw.image_files import decode_undamaged, quiet_opencv

MTCNN_INSTALL = "pip install --no-deps facenet-pytorch==2.6.0"  # brings the weights


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


IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jpg_large", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2",
)  # fmt: skip
# Images that are not read: not every OpenCV decodes them.
_OTHER_IMAGES = (".gif", ".avif", ".heic", ".heif", ".jxl", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw")
_STREAM = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a path has one slash where the address had two
_KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}

_REASONS_SHOWN = 8
_HIGHEST_RATE = 240.0  # frames a second; WebM and screen recorders state 1000, their unit of time
_USUAL_RATE = 25.0


class InputImage(NamedTuple):
    """One image, or what kept it from being read.

    name: path below the folder with forward slashes, the video's file name, or the camera; bytes of it that are not
    UTF-8 stand as \\xNN. frame_index: of a video or camera, from 0. time_s: of a video, the frame's own time stamp.
    pixels_bgr: (height, width, 3), None with a problem. problem: a sentence.
    """

    name: str
    frame_index: int | None
    time_s: float | None
    pixels_bgr: Image | None
    problem: str | None


class Images(Iterator[InputImage]):
    """Images one by one.

    total: how many at most, 0 where that is not known. passed_over: how many files beside them are no images, by
    reason; a reason that concerns a folder counts as one.
    """

    def __init__(
        self, images: Iterator[InputImage], total: int = 0, passed_over: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        self._images, self.total, self.passed_over = images, total, passed_over

    def __next__(self) -> InputImage:
        return next(self._images)


def folder(path: str | os.PathLike[str]) -> Images:
    """Return the images in a folder and all folders in it, sorted by path; or the one image that `path` is.

    Links to folders are followed, each folder is read once. What cannot be read (a folder without permission, a pipe,
    an image of a kind that is not read) is given as an image with a problem; all other files are in `passed_over`.

    Raises:
        UbhpdError: there is nothing at the path, or no image below it.
    """
    place = Path(path)
    if place.is_dir():
        listing = _Listing(place)
        if not (listing.images or listing.problems):
            others = f"; it has {listed_counts(listing.passed_over)}" if listing.passed_over else ""
            raise UbhpdError(f"{place} holds no image ({', '.join(IMAGE_SUFFIXES)}){others}: name a folder that does.")
        named = _text_names(listing.images | dict.fromkeys(listing.problems))
        found = sorted((text, raw) for raw, text in named.items())
        images = (
            InputImage(text, None, None, None, f"{text} {listing.problems[raw]}.")
            if raw in listing.problems
            else _decoded(text, listing.images[raw])
            for text, raw in found
        )
        return Images(images, len(found), listing.passed_over)
    if not place.exists():
        raise UbhpdError(f"There is no image or folder {place}: check the path.")
    return Images(iter([_decoded(text_name(place.name), place)]), 1)


def video(path: str | os.PathLike[str]) -> Images:
    """Return the frames of a video in their order; it is never sought in.

    A file that breaks off, more than a second before the end that it states, ends with a problem.

    Raises:
        UbhpdError: there is no such file, or it does not open as a video.
    """
    import cv2

    place = Path(path)
    if _STREAM.match(str(path)) and not place.exists():
        raise UbhpdError(
            f"--video reads a file, and {path} is the address of a stream: record it first, as by ffmpeg -i, "
            "or name a camera of this machine by --camera."
        )
    if not place.is_file():
        raise UbhpdError(f"There is no video {place}: check the path.")
    with quiet_opencv(), _plain_path(place) as plain:
        capture = cv2.VideoCapture(plain)
    if not capture.isOpened():
        raise UbhpdError(f"{place} does not open as a video: check that it is whole, or convert it with ffmpeg.")
    stated = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return Images(_frames_of_video(capture, place, stated), max(int(stated), 0))


def frame_rate(path: str | os.PathLike[str]) -> float:
    """Return the mean number of frames a second of a video, from its time stamps where the file's own rate is none."""
    import cv2

    place = Path(path)
    with quiet_opencv(), _plain_path(place) as plain:
        capture = cv2.VideoCapture(plain)
    try:
        stated = float(capture.get(cv2.CAP_PROP_FPS))
        if 1.0 <= stated <= _HIGHEST_RATE:
            return stated
        count, time_s = 0, 0.0
        while capture.grab():
            count, time_s = count + 1, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0
        measured = (count - 1) / time_s if count > 1 and time_s > 0 else 0.0
        return measured if 1.0 <= measured <= _HIGHEST_RATE else _USUAL_RATE
    finally:
        capture.release()


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


def text_name(name: str) -> str:
    """Return a file name as text that can be written: bytes that are not UTF-8 as \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def listed_counts(counts: Mapping[str, int]) -> str:
    """Return counts by reason as text, the largest first: "3 with the suffix .txt; 1 of macOS (folder __MACOSX)"."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count:,} {reason}" for reason, count in ordered[:_REASONS_SHOWN]]
    if rest := ordered[_REASONS_SHOWN:]:
        shown.append(f"{sum(count for _, count in rest):,} for {len(rest):,} other reasons")
    return "; ".join(shown)


class _Listing:
    """The files below a folder, each in one of three places.

    images: path below the folder -> path. problems: path below the folder -> what is wrong with it. passed_over: reason
    -> number of files.
    """

    def __init__(self, root: Path) -> None:
        self.images: dict[str, Path] = {}
        self.problems: dict[str, str] = {}
        self.passed_over: Counter[str] = Counter()
        self._root, self._read, self._links = root, set[tuple[int, int]](), [root]
        # Links come last, so that a folder that is also linked to is read under its own name.
        while self._links:
            self._links.sort(key=lambda p: p.as_posix(), reverse=True)
            self._folder(self._links.pop())

    def _folder(self, top: Path) -> None:
        waiting = [top]
        while waiting:
            place = waiting.pop()
            try:
                status = place.stat()
                if (status.st_dev, status.st_ino) in self._read:
                    self.passed_over[f"folder linked to twice ({text_name(self._name(place))})"] += 1
                    continue
                self._read.add((status.st_dev, status.st_ino))
                with os.scandir(place) as entries:
                    for entry in entries:
                        waiting += self._entry(entry)
            except OSError as error:
                self.problems[f"{self._name(place)}/"] = f"cannot be opened ({error.strerror})"

    def _entry(self, entry: os.DirEntry[str]) -> list[Path]:
        """Put a file in its place; return a folder to read next."""
        path, name = Path(entry.path), self._name(Path(entry.path))
        try:
            if entry.is_dir():
                if entry.name == "__MACOSX":
                    inside = sum(len(files) for _, _, files in os.walk(path))
                    self.passed_over["of macOS (folder __MACOSX)"] += inside
                elif entry.is_symlink():
                    self._links.append(path)
                else:
                    return [path]
                return []
        except OSError as error:
            self.problems[name] = f"cannot be opened ({error.strerror})"
            return []
        suffix = os.path.splitext(entry.name)[1].lower()
        if entry.name.startswith("._"):
            self.passed_over["of macOS (._ and its name)"] += 1
        elif suffix in IMAGE_SUFFIXES:
            self.images[name] = path
        elif suffix in _OTHER_IMAGES:
            self.problems[name] = "is an image of a kind that is not read: convert it to JPEG or PNG"
        else:
            shown = text_name(suffix) or "none"
            self.passed_over[f"with the suffix {shown}"] += 1
        return []

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def _text_names(names: Mapping[str, object]) -> dict[str, str]:
    """Return the text of each name, no two alike."""
    texts: dict[str, str] = {}
    taken = {name for name in names if text_name(name) == name}
    for name in names:
        text = text_name(name)
        while text != name and text in taken:
            text += "_"
        taken.add(text)
        texts[name] = text
    return texts


def _decoded(name: str, path: Path) -> InputImage:
    try:
        # A pipe would wait for its writer; without O_NONBLOCK even its opening would.
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
            kind = _KINDS.get(stat.S_IFMT(os.fstat(file.fileno()).st_mode))
            data = b"" if kind else file.read()
    except OSError as error:
        return InputImage(name, None, None, None, f"{name} cannot be read ({error.strerror}).")
    if kind:
        return InputImage(name, None, None, None, f"{name} is {kind}, not a file.")
    with quiet_opencv():
        pixels = decode_undamaged(data, upright=True)
    if isinstance(pixels, str):
        return InputImage(name, None, None, None, f"{name} is a damaged JPEG ({pixels}).")
    if pixels is None:
        return InputImage(name, None, None, None, f"{name} does not decode as an image ({len(data)} bytes).")
    return InputImage(name, None, None, pixels, None)


@contextmanager
def _plain_path(place: Path) -> Iterator[str]:
    """Give a path that FFmpeg takes for a file: absolute, for "a:b.mp4" would be an address, and in UTF-8."""
    full = os.path.abspath(place)
    if text_name(full) == full:
        yield full
        return
    with tempfile.TemporaryDirectory() as own:
        link = os.path.join(own, f"video{text_name(place.suffix)}")
        os.symlink(full, link)
        yield link


def _frames_of_video(capture: Any, place: Path, stated: float) -> Iterator[InputImage]:
    import cv2

    rate, count, name = capture.get(cv2.CAP_PROP_FPS), 0, text_name(place.name)
    time_s = 0.0
    for frame in _frames(capture, name):
        count += 1
        time_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0
        yield frame._replace(time_s=time_s)
    if count == 0 or _breaks_off(place, count, time_s, stated, rate):
        problem = f"{name} breaks off after {count} of {stated:.0f} frames."
        if _matroska_end(place) is not None:  # its number of frames is an estimate
            problem = f"{name} breaks off after {count} frames."
        yield InputImage(name, count, None, None, problem)


def _breaks_off(place: Path, count: int, time_s: float, stated: float, rate: float) -> bool:
    """Return True if a video ends before the end that it states.

    Matroska states the bytes of its content. Elsewhere both the frames and the time of the last one have to be short
    by more than a second: with a varying frame rate, the stated number is the duration times some rate.
    """
    end = _matroska_end(place)
    if end:
        return place.stat().st_size < end
    return stated - count > max(rate, 1.0) and stated / max(rate, 1e-9) - time_s > 1.0


def _matroska_end(place: Path) -> int | None:
    """Return at which byte a Matroska or WebM file ends by its header, 0 if it does not say; None for other files."""
    with place.open("rb") as file:
        head = file.read(4096)
    if head[:4] != b"\x1a\x45\xdf\xa3":
        return None
    position = 4
    for is_segment in (False, True):
        if is_segment:
            if head[position : position + 4] != b"\x18\x53\x80\x67":
                return 0
            position += 4
        if position >= len(head) or not head[position]:
            return 0
        length = 9 - head[position].bit_length()
        size = int.from_bytes(head[position : position + length], "big") & ((1 << 7 * length) - 1)
        is_unknown = size == (1 << 7 * length) - 1
        position += length
        if is_unknown:
            return 0
        position += size
    return position


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
