"""The parts of an export: its options and report, the interface of a format, the heads with their labels, and units.

The heads are read from a manifest in batches, and their labels are the same in every format that has a table. A unit is
some hundred heads, decoded, cropped and written by one process. A finished unit leaves a marker file; an interrupted
export resumes with the units that have none.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing, write_json
from ubhpd.core.text import csv_lines
from ubhpd.core.typing import FloatArray, Image, IntArray
from ubhpd.images import crops
from ubhpd.images.crops import FIELDS, crop
from ubhpd.images.reading import Images
from ubhpd.images.recipes import Recipe
from ubhpd.manifest.schema import matrix
from ubhpd.raw.image_files import VIDEO_SUFFIXES, HeaderTooShort, ImageError, size_from_header

ANGLES = ("yaw_deg", "pitch_deg", "roll_deg")

_TEXTS = ("sample_id", "dataset", "subject_id", "sequence_id", "image_path")
_LENGTHS = {"bbox_xyxy": 4, "landmarks21": 42, "landmarks68": 136}
_ARRAYS = ("frame", "size", "angles", "rotation", "box", "source", "face")
_SPLIT = re.compile(r"[A-Za-z0-9_-]+")
_FACES = ("bbox", "pt2d")  # what a face is where no crop is wanted


@dataclass
class Heads:
    """n heads in the manifest's order.

    texts: sample_id, dataset, subject_id, sequence_id, image_path and split ("" for null), n strings each.
    frame: number in the recording (n,), 0 for null. size: of the image (n, 2). angles: canonical yaw, pitch,
    roll in degrees (n, 3). rotation: (n, 3, 3). box: the crops (n, 4). source: which of the recipe's sources gave
    them (n,). face: face boxes before they grow (n, 4). points: n arrays (m, 2) of visible landmarks, empty without
    any; None if not requested. without_box: sample ids of usable heads left out.
    """

    texts: dict[str, list[str]]
    frame: IntArray
    size: IntArray
    angles: FloatArray
    rotation: FloatArray
    box: FloatArray
    source: IntArray
    face: FloatArray
    points: list[FloatArray] | None = None
    without_box: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.frame)

    def splits(self) -> dict[str, IntArray]:
        """Return the rows of each split by its name, "all" where there is none."""
        names = np.array([s or "all" for s in self.texts["split"]])
        return {str(s): np.flatnonzero(names == s) for s in sorted(set(names.tolist()), key=_split_order)}

    def only(self, rows: list[int]) -> Heads:
        """Return the heads of `rows`."""
        texts = {n: [v[i] for i in rows] for n, v in self.texts.items()}
        points = None if self.points is None else [self.points[i] for i in rows]
        arrays = {n: getattr(self, n)[rows] for n in _ARRAYS}
        return Heads(texts, **arrays, points=points, without_box=self.without_box)

    def sources(self, recipe: Recipe) -> dict[str, int]:
        """Return how many boxes came from which of the recipe's sources."""
        counts = np.bincount(self.source, minlength=len(recipe.sources))
        return {s: int(n) for s, n in zip(recipe.sources, counts, strict=True) if n}


def read_heads(path: Path, recipe: Recipe, split: str | None, seed: int, face: bool, points: bool) -> Heads:
    """Return the usable heads of a manifest that have a box.

    Args:
        path: a manifest, with or without the column `split`.
        recipe: what a box is.
        split: keep those of this split only.
        seed: of crops drawn at random.
        face: a head must have a face box, not only a crop.
        points: read the landmarks.

    Raises:
        UbhpdError: no manifest, no column `split` to choose from, or no such split.
    """
    known = manifest.header(path).schema.names
    if split is not None and "split" not in known:
        raise UbhpdError(f"{path} has no column 'split', so that --split {split} selects nothing: leave it out.")
    names = dict.fromkeys([*_TEXTS, *FIELDS, "frame_index", "drop_reason", *ANGLES, "rotation"])
    if not (points or face or any(s.startswith("pt2d") for s in recipe.sources)):
        names = {n: None for n in names if not n.startswith("landmarks")}
    wanted = [*names, "split"] if "split" in known else list(names)
    parts: list[Heads] = []
    found: set[str] = set()
    for batch in manifest.iterate(path, wanted):
        part, splits = _part(pa.Table.from_batches([batch]), recipe, split, seed, face, points)
        parts.append(part)
        found |= splits
    if odd := sorted(s for s in found if not _SPLIT.fullmatch(s)):
        raise UbhpdError(f"{path} has a split {odd[0]!r}, which cannot name a file: use letters, digits, - and _.")
    if split is not None and split not in found:
        raise UbhpdError(f"{path} has no split {split!r}: it has {', '.join(sorted(found)) or 'none'}.")
    if not parts:
        raise UbhpdError(f"{path} has no heads: nothing to export.")
    return _joined(parts)


def floats(table: pa.Table, name: str, length: int) -> FloatArray:
    """Return a column of lists as (n, length), NaN for null or a column that is not there."""
    if name in table.column_names:
        return matrix(table.column(name), length)
    return np.full((table.num_rows, length), np.nan)


def _part(
    table: pa.Table, recipe: Recipe, split: str | None, seed: int, face: bool, points: bool
) -> tuple[Heads, set[str]]:
    found = {s for s in _strings(table, "split") if s}
    table = table.filter(table.column("drop_reason").is_null())
    if split is not None:
        table = table.filter(pa.array([s == split for s in _strings(table, "split")], pa.bool_()))
    columns: dict[str, Any] = {"sample_id": _strings(table, "sample_id")}
    for name in ("image_width", "image_height"):
        columns[name] = table.column(name).fill_null(0).to_numpy().astype(np.float64)
    columns |= {n: floats(table, n, length) for n, length in _LENGTHS.items()}
    boxes = crops.crop_boxes(columns, recipe, seed)
    faces = crops.face_boxes(columns, _FACES[0])
    other = crops.face_boxes(columns, _FACES[1])
    faces = np.where(np.isnan(faces).any(axis=1, keepdims=True), other, faces)
    good = boxes.source >= 0
    if face:
        good &= ~np.isnan(faces).any(axis=1)
    rows = np.flatnonzero(good)
    texts = {n: [v[i] for i in rows] for n in (*_TEXTS, "split") for v in [_strings(table, n)]}
    return Heads(
        texts,
        frame=table.column("frame_index").fill_null(0).to_numpy()[rows],
        size=np.stack([columns["image_width"], columns["image_height"]], axis=1)[rows].astype(np.int64),
        angles=np.stack([table.column(n).to_numpy() for n in ANGLES], axis=1).astype(np.float64)[rows],
        rotation=floats(table, "rotation", 9).reshape(-1, 3, 3)[rows],
        box=boxes.xyxy[rows],
        source=boxes.source[rows],
        face=faces[rows],
        points=[_visible(columns, i) for i in rows.tolist()] if points else None,
        without_box=[i for i, g in zip(columns["sample_id"], good, strict=True) if not g],
    ), found


def _joined(parts: list[Heads]) -> Heads:
    first = parts[0]
    return Heads(
        {n: [v for p in parts for v in p.texts[n]] for n in first.texts},
        **{n: np.concatenate([getattr(p, n) for p in parts]) for n in _ARRAYS},
        points=None if first.points is None else [q for p in parts for q in p.points or ()],
        without_box=[i for p in parts for i in p.without_box],
    )


def _strings(table: pa.Table, name: str) -> list[str]:
    if name not in table.column_names:
        return [""] * table.num_rows
    values: list[str] = table.column(name).fill_null("").to_pylist()
    return values


def _visible(columns: dict[str, Any], row: int) -> FloatArray:
    """Return the visible points of pt2d (m, 2)."""
    for name in ("landmarks21", "landmarks68"):
        points: FloatArray = columns[name][row].reshape(-1, 2)
        points = points[~np.isnan(points).any(axis=1)]
        if len(points):
            return points
    return np.zeros((0, 2))


def _split_order(name: str) -> tuple[int, str]:
    return (("train", "test", "all").index(name) if name in ("train", "test", "all") else 3, name)


TEXTS = ("sample_id", "dataset", "subject_id", "sequence_id", "split")
ROTATION = tuple(f"r{i}{j}" for i in range(3) for j in range(3))


def label_names() -> list[str]:
    """Return the names of the label columns: texts, canonical angles in degrees, the rotation row by row."""
    return [*TEXTS, *ANGLES, *ROTATION]


def labels_of(heads: Heads, row: int) -> list[str]:
    """Return the labels of a head as text; numbers come back from it unchanged."""
    numbers = [*heads.angles[row].tolist(), *heads.rotation[row].ravel().tolist()]
    return [*(heads.texts[n][row] for n in TEXTS), *map(repr, numbers)]


def write_table(names: Sequence[str], rows: Iterable[Sequence[str]], path: Path) -> None:
    """Write a table as CSV, whole or not at all."""
    with replacing(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        file.write(csv_lines([names]))
        file.writelines(csv_lines([row]) for row in rows)


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
