"""The options and the report of an export, the interface of a format, and one unit of work.

A unit is some hundred heads, decoded, cropped and written by one process.

A finished unit leaves a marker file; an interrupted export resumes with the units that have none.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing, write_json
from ubhpd.core.typing import Image
from ubhpd.exports._columns import Heads
from ubhpd.images.crops import crop
from ubhpd.images.reading import Images
from ubhpd.images.recipes import Recipe
from ubhpd.raw.image_files import VIDEO_SUFFIXES, HeaderTooShort, ImageError, size_from_header

UNIT_HEADS = 500


@dataclass(frozen=True)
class ExportConfig:
    """What to export and how.

    place: folder of a build, or a manifest with build.json beside it. form: name of a format. recipe: of the crop, the
    format's own by default. size: side of the crops in pixels, the recipe's by default. split: only this one. out: the
    folder to write, by default in `exports` beside the manifest. image: "png" or "jpg", for crops as files.
    seed: of a recipe that draws. skip_unreadable: leave out heads whose image cannot be read instead of stopping.
    unit_heads: heads per piece of work.
    """

    place: Path
    form: str
    recipe: str | None = None
    size: int | None = None
    split: str | None = None
    out: Path | None = None
    image: str = "png"
    seed: int = 0
    skip_unreadable: bool = False
    unit_heads: int = UNIT_HEADS


@dataclass
class ExportReport:
    """What an export holds: the content of export.json, but for `out` and `units_kept`.

    heads: how many by split, "all" without splits. box_sources: how many boxes came from which key of FACE_SOURCES.
    without_box, unreadable: sample ids of usable heads that are not in it. files: beside the images, below out.
    """

    ubhpd: str
    format: str
    recipe: dict[str, Any]
    size: int | None
    split: str | None
    image: str
    seed: int
    fingerprint: str
    heads: dict[str, int] = field(default_factory=dict)
    box_sources: dict[str, int] = field(default_factory=dict)
    without_box: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    out: str = ""
    units_kept: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values, the same wherever and however it was made."""
        return {k: v for k, v in asdict(self).items() if k not in ("out", "units_kept")}


class Canvas(NamedTuple):
    """A file with room for the pixels of all heads, row after row from `offset` on."""

    path: str
    offset: int


@dataclass(frozen=True)
class Job:
    """What a format gets.

    size: side of the crops in pixels, None for images as they are. colour: order of the channels of the pixels.
    out: folder of the export; work: the one in it that goes when all is done. names: of each head's image file below
    `out`. pixels: for `write` of an array format, gives the crop (size, size, 3) of a head. is_whole: False if heads
    have been left out since `begin`. advance: called with the number of heads written.
    """

    recipe: Recipe
    size: int | None
    colour: str
    heads: Heads
    out: Path
    work: Path
    names: list[str]
    fingerprint: str
    pixels: Callable[[int], Image] | None = None
    is_whole: bool = True
    advance: Callable[[int], None] = lambda done: None


class Card(NamedTuple):
    """What a format is.

    images: "array" for pixels in one file, "files" for image files, "none". crops: False if it holds whole
    images only. colour: "RGB" or "BGR" if its arrays must have that order, "" for the recipe's. folder: where its
    image files go, "{split}" filled in. jpeg: they must be .jpg. faces: every head needs a face box. points: it wants
    the landmarks. in_place: the workers' file becomes the export, so that nothing is there twice.
    """

    name: str
    title: str
    recipe: str
    images: str
    crops: bool = True
    colour: str = ""
    folder: str = "images"
    jpeg: bool = False
    faces: bool = False
    points: bool = False
    in_place: bool = False


class Format(Protocol):
    """A module in exports/."""

    CARD: Card

    def begin(self, job: Job) -> Canvas:
        """Make the file for the pixels, unless an interrupted export has left it; array formats only."""

    def write(self, job: Job) -> list[str]:
        """Write what belongs beside the images, and return the names of the files written."""


JPEG_QUALITY = 95

_open = threading.local()  # a video has a place where it is read: no two threads may share it
_JPEG_START = b"\xff\xd8\xff"


class Row(NamedTuple):
    """One head to cut out: its row in the export, its image, its crop and the file to write."""

    row: int
    dataset: str
    image_path: str
    frame: int
    size: tuple[int, int]
    box: tuple[float, float, float, float]
    name: str  # file below the export's folder, "" for an array


class Unit(NamedTuple):
    """Rows that lie in whole images and whole videos, and what to do with them."""

    build: str
    out: str
    mark: str  # file that says the unit is done
    canvas: Canvas | None  # where the pixels of "array" go
    rows: tuple[Row, ...]
    recipe: Recipe
    size: int | None
    colour: str | None
    kind: str  # "array": pixels into the canvas; "crops", "copies": files below out


class Done(NamedTuple):
    """What came of a unit: how many heads it has, and the rows whose image cannot be read, each with why."""

    heads: int
    failed: list[tuple[int, str]]


def run(unit: Unit, session: str) -> Done:
    """Write a unit, and mark it as done unless an image could not be read: the next run shall try that again."""
    failed: list[tuple[int, str]] = []
    try:
        with _one_thread(), _canvas(unit.canvas) as canvas:
            for _, same in groupby(unit.rows, key=lambda r: (r.dataset, r.image_path, r.frame)):
                rows = list(same)
                try:
                    for row, face in _faces(unit, rows, _images(unit.build, session)):
                        if unit.canvas is not None:
                            os.pwrite(canvas, face.data, unit.canvas.offset + row.row * face.nbytes)
                except UbhpdError as error:
                    failed += [(r.row, str(error)) for r in rows]
        if not failed:
            write_json({"heads": len(unit.rows)}, Path(unit.mark))
    except OSError as error:
        raise UbhpdError(
            f"Cannot write to {unit.out} ({error.strerror}): make room or name another --out; what is done is kept."
        ) from None
    return Done(len(unit.rows), failed)


def encoded(image: Image, suffix: str) -> bytes:
    """Return a BGR image as PNG, or as JPEG at quality 95 with all its colours."""
    import cv2

    jpeg = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _full_colour()]
    _, data = cv2.imencode(suffix, image, jpeg if suffix == ".jpg" else [])
    return bytes(data)


def _faces(unit: Unit, rows: list[Row], images: Images) -> Iterator[tuple[Row, Image]]:
    """Write the files of the rows of one image, and yield the crops that were made."""
    first = rows[0]
    names = dict.fromkeys(r.name for r in rows if r.name)
    if unit.kind == "copies" and not first.image_path.lower().endswith(VIDEO_SUFFIXES):
        data = images.data(first.dataset, first.image_path)
        _check_size(first, _stated_size(first, data))
        for name in names:
            is_other = name.endswith(".jpg") and data[:3] != _JPEG_START
            _write(unit, name, encoded(images.image(first.dataset, first.image_path), ".jpg") if is_other else data)
        return
    image = images.image(first.dataset, first.image_path, first.frame)
    _check_size(first, (image.shape[1], image.shape[0]))
    if unit.kind == "copies":
        for name in names:
            _write(unit, name, encoded(image, Path(name).suffix))
        return
    for row in rows:
        face = crop(image, row.box, unit.recipe, unit.size, unit.colour)
        if row.name:
            _write(unit, row.name, encoded(face, Path(row.name).suffix))
        yield row, face


def _check_size(row: Row, found: tuple[int, int]) -> None:
    if found != row.size:
        wanted = "x".join(map(str, row.size))
        raise UbhpdError(f"{row.image_path} has {found[0]}x{found[1]} pixels, the manifest says {wanted}: build again.")


def _stated_size(row: Row, data: bytes) -> tuple[int, int]:
    try:
        return tuple(size_from_header(data))  # type: ignore[return-value]
    except (ImageError, HeaderTooShort) as error:
        raise UbhpdError(f"{row.image_path} is no image ({error}): see ubhpd validate.") from None


def _write(unit: Unit, name: str, data: bytes) -> None:
    with replacing(Path(unit.out, name)) as part:
        part.write_bytes(data)


def _full_colour() -> int:
    import cv2

    return int(cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)


def forget() -> None:
    """Close the images this thread has open."""
    vars(_open).clear()


@contextmanager
def _canvas(canvas: Canvas | None) -> Iterator[int]:
    """Give a file descriptor to write pixels with, -1 without a canvas."""
    if canvas is None:
        yield -1
        return
    descriptor = os.open(canvas.path, os.O_WRONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The workers are the parallelism: threads of OpenCV beside them only get in each other's way."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _images(build: str, session: str) -> Images:
    """Return the images of the build, open in this thread as long as the export (`session`) runs."""
    if getattr(_open, "key", None) != (build, session):
        _open.images, _open.key = Images.of_build(Path(build)), (build, session)
    images: Images = _open.images
    return images
