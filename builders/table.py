"""Table: heads of your own, listed in a CSV, Parquet or COCO JSON file. No reader has to be written.

Layout: one row per head, with the path of its image relative to the folder of the table, and its pose; optionally a
face box, person, recording, frame, split and 68 landmarks. docs/own-data.md lists the names of the columns. A COCO file
has the box in `bbox` and the pose beside it or in `attributes`.

Options: file is the table, below the root (by itself heads.csv, heads.parquet or heads.json); name is the dataset's
name in the manifest, which --sources table:NAME sets; images is a folder before all image paths; split keeps the rows
of one split only. pose says which columns hold the pose where there are several (auto: angles before a matrix before a
quaternion). convention and unit say how angles are meant; frame and rotates how matrices and quaternions are;
quaternion is the order of a list of four; box the form of a list `bbox`; synthetic is yes for rendered heads.

Handled: CSV with comma, semicolon or tab, with a byte order mark, in any column order and case. A row without an image,
a pose that is no number or no rotation, a box that is turned inside out or outside its image, and a second row with the
same id cost one head each. Several rows may show one image. Image paths must not lead out of the folder.
"""

from __future__ import annotations

import csv
import json
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ubhpd.core.errors import UbhpdError, shortened
from ubhpd.core.records import Drop, Note, Record, Unit
from ubhpd.core.rotation import (
    CONVENTIONS,
    camera_to_canonical,
    canonical_from_angles,
    euler_from_matrix,
    matrix_from_quaternion,
    orthonormality_error,
)
from ubhpd.core.typing import FloatArray
from ubhpd.raw.source import Refused, Source

NAME = "table"
TITLE = "Table of heads"
POSE = "yours"
HOMEPAGE = "https://github.com/ubhpd/ubhpd/blob/main/docs/own-data.md"
LICENSE = "yours"
CITATION = "none: your own data"
ACCESS = "Write a table of your heads and name it by --root table=FILE.csv, FILE.parquet or FILE.json."
LAYOUT = """\
any folder/
  heads.csv  (or .parquet, or .json in the form of COCO: image, yaw, pitch, roll, x1, y1, x2, y2, ...)
  the images that it names
"""
PUBLISHED: dict[str, int] = {}
OUT_OF_RANGE: frozenset[str] = frozenset()

FILES = ("heads.csv", "heads.parquet", "heads.json")
_SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".json")
_UNIT_SIZE = 2000
_MAX_TABLE_BYTES = 4 << 30
_MAX_JSON_BYTES = 1 << 30
_LARGEST_ANGLE_DEG = 3600.0  # a number beyond is damage
_ROUNDING = 0.02  # of a matrix that was written with few digits; it is replaced by the nearest rotation
_YPR = ("yaw", "pitch", "roll")

# What a column may be called; spaces and case do not count, and _deg, _rad may follow the name of an angle.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "image": ("image", "image_path", "file_name", "filename", "path", "file"),
    "id": ("sample_id", "id", "name"),
    "person": ("subject_id", "person", "subject", "identity"),
    "recording": ("sequence_id", "recording", "sequence", "video"),
    "frame": ("frame_index", "frame"),
    "split": ("split",),
    "rotation": ("rotation", "matrix", "rotation_matrix"),
    "quaternion": ("quaternion", "quat"),
    "bbox": ("bbox", "box"),
    "xyxy": ("bbox_xyxy", "box_xyxy"),
    "xywh": ("bbox_xywh", "box_xywh"),
    "landmarks": ("landmarks68", "landmarks"),
}
_MATRICES = tuple(
    tuple(f"{letter}{row}{column}" for row in rows for column in rows)
    for letter in ("r", "m")
    for rows in ("012", "123")
)
_QUATERNION = ("qx", "qy", "qz", "qw")
_CORNERS = (("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom"), ("xmin", "ymin", "xmax", "ymax"))
_SIZES = (("x", "y", "w", "h"), ("bbox_x", "bbox_y", "bbox_w", "bbox_h"), ("x", "y", "width", "height"))


@dataclass(frozen=True)
class Options:
    """See the docstring of the module."""

    file: str = ""
    name: str = NAME
    images: str = ""
    split: str = ""
    pose: str = field(default="auto", metadata={"choices": ("auto", "angles", "matrix", "quaternion")})
    convention: str = field(default="canonical", metadata={"choices": tuple(CONVENTIONS)})
    unit: str = field(default="auto", metadata={"choices": ("auto", "deg", "rad")})
    frame: str = field(default="C", metadata={"choices": ("C", "camera")})
    rotates: str = field(default="head_to_frame", metadata={"choices": ("head_to_frame", "frame_to_head")})
    quaternion: str = field(default="wxyz", metadata={"choices": ("wxyz", "xyzw")})
    box: str = field(default="auto", metadata={"choices": ("auto", "xyxy", "xywh", "none")})
    synthetic: str = field(default="no", metadata={"choices": ("no", "yes")})


class Heads(NamedTuple):
    """The rows of a table. Arrays have a row per head; NaN is a missing number, None a missing text.

    angles: canonical yaw, pitch, roll. faults: what is wrong with a row, "" if nothing is. rows: as counted in the
    file. is_again: whether an earlier row has the same id.
    """

    where: str
    rows: list[int]
    ids: list[str]
    images: list[str | None]
    angles: FloatArray
    rotations: FloatArray
    raw: FloatArray | None
    convention: str | None
    boxes: FloatArray | None
    landmarks: FloatArray | None
    persons: list[str | None]
    recordings: list[str | None]
    frames: FloatArray | None
    faults: list[str]
    is_again: list[bool]
    notes: tuple[Note, ...]


def locate(place: str) -> tuple[str, dict[str, str]]:
    """Return the folder of a table that --root names as a file, and the options that this sets."""
    path = Path(place)
    if path.is_file() and path.suffix.lower() in _SUFFIXES:
        return str(path.parent), {"file": path.name}
    return place, {}


def recognise(source: Source, path: str) -> bool:
    """Return True if the folder holds heads.csv, heads.parquet or heads.json; --root names any other table."""
    return any(entry.name.lower() in FILES and not entry.is_dir for entry in source.listdir(path))


def units(source: Source, options: Options) -> list[Unit]:
    """Return units of 2,000 rows."""
    file = _file(source, options)
    heads = _heads(source, options)
    starts = range(0, max(len(heads.ids), 1), _UNIT_SIZE)
    chunks = [(start, min(start + _UNIT_SIZE, len(heads.ids))) for start in starts]
    return [
        Unit(f"rows_{start:09d}", (start, stop), stop - start,
             (file, *dict.fromkeys(source.actual(i) for i in heads.images[start:stop] if i is not None)))
        for start, stop in chunks
    ]  # fmt: skip


def read(source: Source, unit: Unit, options: Options) -> Iterator[Record | Drop | Note]:
    """Yield the heads of a unit."""
    heads = _heads(source, options)
    start, stop = unit.items
    if start == 0:
        yield from heads.notes
    sizes: dict[str, Any] = {}
    for i in range(start, stop):
        sample_id, image = f"{options.name}/{heads.ids[i]}", heads.images[i]
        frame = None if heads.frames is None or np.isnan(heads.frames[i]) else int(heads.frames[i])
        recording = heads.recordings[i] and f"{options.name}/{heads.recordings[i]}"
        try:
            if heads.is_again[i]:
                sample_id = f"{sample_id}#row{heads.rows[i]}"
                raise Refused("duplicate_label", f"{heads.where}, row {heads.rows[i]}: a second row of this id")
            if heads.faults[i]:
                raise Refused("bad_label", f"{heads.where}, row {heads.rows[i]}: {heads.faults[i]}")
            if image is None:
                raise Refused("missing_image", f"{heads.where}, row {heads.rows[i]}: it names no image")
            image, (width, height) = sizes.get(image) or sizes.setdefault(image, source.find_image(image))
            box = _box(heads, i, width, height)
        except Refused as refused:
            yield Drop(sample_id, refused.reason, refused.detail, image, recording, frame)
            continue
        points = None if heads.landmarks is None or np.isnan(heads.landmarks[i]).all() else heads.landmarks[i]
        yaw, pitch, roll = heads.angles[i].tolist()
        yield Record(
            sample_id, image, width, height, yaw, pitch, roll, heads.rotations[i].ravel(),
            raw_angles=None if heads.raw is None else heads.raw[i], raw_convention=heads.convention,
            subject_id=heads.persons[i] and f"{options.name}/{heads.persons[i]}", sequence_id=recording,
            frame_index=frame, bbox_xyxy=box, bbox_kind=None if box is None else NAME,
            landmarks68=points, landmarks_kind=None if points is None else NAME,
            synthetic=options.synthetic == "yes",
        )  # fmt: skip


def _box(heads: Heads, i: int, width: int, height: int) -> FloatArray | None:
    if heads.boxes is None or np.isnan(heads.boxes[i]).all():
        return None
    left, top, right, bottom = heads.boxes[i]
    where = f"{heads.where}, row {heads.rows[i]}: the box {left:g}, {top:g}, {right:g}, {bottom:g}"
    if not np.isfinite(heads.boxes[i]).all() or not (left < right and top < bottom):
        raise Refused("bad_label", f"{where} is no box from left top to right bottom")
    if left >= width or top >= height or right <= 0 or bottom <= 0:
        raise Refused("bad_label", f"{where} lies outside the image of {width} x {height} pixels")
    box: FloatArray = heads.boxes[i]
    return box


# The table


def _file(source: Source, options: Options) -> str:
    if options.file:
        return options.file
    present = [entry.name for entry in source.listdir("") if entry.name.lower() in FILES and not entry.is_dir]
    if len(present) != 1:
        what = f"has {' and '.join(present)}" if present else f"has none of {', '.join(FILES)}"
        raise UbhpdError(f"The folder of {options.name} {what}: name the table by --root {options.name}=FILE.")
    return present[0]


@lru_cache(maxsize=4)
def _heads(source: Source, options: Options) -> Heads:
    """Return all rows of the table; parsed once for all units.

    Raises:
        UbhpdError: the table cannot be read, or lacks a column.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}", options.name):
        raise UbhpdError(
            f"{shortened(options.name)} is no name for a dataset: use up to 40 letters, digits, _ . and -."
        )
    file = _file(source, options)
    where = f"the table {file}"
    try:
        with source.local_path(file, missing="missing_label") as path:
            columns = _columns(Path(path), file)
    except Refused as refused:
        raise UbhpdError(f"Cannot read {where} ({refused.detail}): check --root and -O {NAME}.file.") from None
    total = len(next(iter(columns.values()), ()))
    rows = list(range(2, total + 2)) if file.lower().endswith((".csv", ".tsv", ".txt")) else list(range(1, total + 1))
    notes: list[Note] = []
    if options.split:
        columns, rows = _of_split(columns, rows, options.split, where, notes)
    return _interpreted(_Columns(columns, where), rows, options, notes)


def _of_split(
    columns: dict[str, list[Any]], rows: list[int], split: str, where: str, notes: list[Note]
) -> tuple[dict[str, list[Any]], list[int]]:
    texts = _Columns(columns, where).texts("split")
    if texts is None:
        raise UbhpdError(f"{where} has no column split: leave -O {NAME}.split out.")
    keep = [i for i, text in enumerate(texts) if text == split]
    if not keep:
        known = ", ".join(sorted({t for t in texts if t})[:5])
        raise UbhpdError(f"{where} has no row of the split {shortened(split)}: its splits are {known or 'empty'}.")
    notes.append(Note(f"{where}: {len(rows) - len(keep):,} rows of other splits than {split} are left out"))
    return {name: [values[i] for i in keep] for name, values in columns.items()}, [rows[i] for i in keep]


def _interpreted(columns: _Columns, rows: list[int], options: Options, notes: list[Note]) -> Heads:
    count = len(rows)
    faults = [""] * count
    images = columns.texts("image")
    if images is None:
        raise UbhpdError(
            f"{columns.where} has no column of image paths: call one of them {', '.join(_NAMES['image'])}."
        )
    places = [_image_path(image, options.images, i, faults) for i, image in enumerate(images)]
    angles, rotations, raw, convention, kind = _poses(columns, options, faults, count)
    landmarks = columns.lists("landmarks", 136, faults)
    if kind == "angles" and count >= 20 and raw is not None and _looks_like_radians(raw, options):
        notes.append(Note(f"{columns.where}: all angles lie within 3.15, which looks like radians: set -O "
                          f"{options.name}.unit=rad if they are", is_warning=True))  # fmt: skip
    notes.append(Note(f"{columns.where}: the pose is read from {kind}"))
    frames = columns.numbers(columns.find("frame"), faults) if columns.find("frame") else None
    ids = _ids(columns.texts("id"), places, rows)
    first: dict[str, int] = {}
    is_again = [first.setdefault(own, i) != i for i, own in enumerate(ids)]
    boxes = _boxes(columns, options, faults)
    return Heads(
        columns.where, rows, ids, places, angles, rotations, raw, convention, boxes, landmarks,
        columns.texts("person") or [None] * count, columns.texts("recording") or [None] * count, frames, faults,
        is_again, tuple(notes),
    )  # fmt: skip


def _image_path(text: str | None, folder: str, i: int, faults: list[str]) -> str | None:
    """Return the path below the root, with slashes; one that leads outside is a fault of the row."""
    if text is None:
        return None
    path = text.replace("\\", "/")
    joined = posixpath.normpath(posixpath.join(folder.replace("\\", "/"), path))
    if joined.startswith(("/", "../")) or joined in ("..", ".") or re.match(r"[A-Za-z]:/", path):
        faults[i] = (
            faults[i] or f"the image {shortened(text)} lies outside the folder: give paths relative to the folder"
        )
        return None
    return joined


def _ids(given: list[str | None] | None, places: list[str | None], rows: list[int]) -> list[str]:
    """Return the ids of the table; without any, the image's path without its suffix, numbered within an image."""
    if given is not None:
        return [text or f"row_{row:07d}" for text, row in zip(given, rows, strict=True)]
    ids: list[str] = []
    counts: dict[str, int] = {}
    for place, row in zip(places, rows, strict=True):
        stem = posixpath.splitext(place)[0] if place else f"row_{row:07d}"
        counts[stem] = counts.get(stem, 0) + 1
        ids.append(stem if counts[stem] == 1 else f"{stem}#{counts[stem]}")
    return ids


def _looks_like_radians(raw: FloatArray, options: Options) -> bool:
    unit = CONVENTIONS[options.convention].unit if options.unit == "auto" else options.unit
    with np.errstate(invalid="ignore"):
        largest = np.nanmax(np.abs(raw)) if np.isfinite(raw).any() else 0.0
    return unit == "deg" and 0 < largest <= 3.15


def _poses(
    columns: _Columns, options: Options, faults: list[str], count: int
) -> tuple[FloatArray, FloatArray, FloatArray | None, str | None, str]:
    """Return canonical angles, rotations, the angles as they stand, their convention, and what they were read from."""
    names = columns.angle_names()
    has = {
        "angles": names is not None,
        "matrix": columns.find("rotation") is not None or any(columns.all(own) for own in _MATRICES),
        "quaternion": columns.find("quaternion") is not None or columns.all(_QUATERNION) is not None,
    }
    kind = next((k for k, there in has.items() if there), "") if options.pose == "auto" else options.pose
    if not has.get(kind, False):
        wanted = "yaw, pitch, roll, a matrix (rotation, or r00 to r22) or a quaternion (qw, qx, qy, qz)"
        raise UbhpdError(f"{columns.where} has no pose{f' as {kind}' if kind else ''}: it needs {wanted}.")
    if kind == "angles":
        assert names is not None
        by_name = dict(zip(_YPR, (columns.numbers(name, faults) for name in names), strict=True))
        convention = CONVENTIONS[options.convention]
        unit = _unit(names, options, columns.where) or convention.unit
        own = np.stack([by_name[name] for name in convention.columns], axis=1)
        to_own = np.radians if convention.unit == "rad" else np.degrees
        raw = own if unit == convention.unit else to_own(own)
        limit = np.radians(_LARGEST_ANGLE_DEG) if convention.unit == "rad" else _LARGEST_ANGLE_DEG
        _fault(faults, ~np.isfinite(raw).all(axis=1), "its pose is incomplete")
        with np.errstate(invalid="ignore"):
            _fault(faults, (np.abs(raw) > limit).any(axis=1), f"an angle is beyond {_LARGEST_ANGLE_DEG:g} degrees")
        sound = np.where(np.isfinite(raw) & (np.abs(raw) <= limit), raw, 0.0)
        angles, rotations = canonical_from_angles(sound, convention)
        if convention.name == "canonical":
            angles = sound  # to the last bit
        return angles, rotations, raw, convention.name, "angles"
    matrices = _matrices(columns, kind, options, faults, count)
    return euler_from_matrix(matrices), matrices, None, None, kind


def _unit(names: Sequence[str], options: Options, where: str) -> str | None:
    """Return the unit that the option or the names of the columns say; None if neither does."""
    if options.unit != "auto":
        return options.unit
    endings = {name.rpartition("_")[2] for name in names} & {"deg", "rad"}
    if len(endings) > 1:
        raise UbhpdError(f"{where} has angles in degrees and in radians: set -O {NAME}.unit.")
    return endings.pop() if endings else None


def _matrices(columns: _Columns, kind: str, options: Options, faults: list[str], count: int) -> FloatArray:
    """Return rotations (count, 3, 3) from head to frame C; the identity where a row is at fault."""
    if kind == "matrix":
        own = next((found for names in _MATRICES if (found := columns.all(names))), None)
        flat = columns.lists("rotation", 9, faults) if own is None else columns.stacked(own, faults)
        assert flat is not None
        matrices = flat.reshape(-1, 3, 3)
    else:
        own = columns.all(_QUATERNION)
        four = columns.lists("quaternion", 4, faults) if own is None else columns.stacked(own, faults)
        assert four is not None
        if own is None and options.quaternion == "wxyz":
            four = np.roll(four, -1, axis=1)
        with np.errstate(invalid="ignore"):
            length = np.linalg.norm(four, axis=1, keepdims=True)
            is_sound = np.isfinite(length) & (length >= 1e-6)
        _fault(faults, ~is_sound[:, 0], "its quaternion is incomplete or zero")
        matrices = matrix_from_quaternion(np.where(is_sound, four, (0.0, 0.0, 0.0, 1.0)))
    with np.errstate(invalid="ignore"):
        error = np.where(np.isfinite(matrices).all(axis=(1, 2)), orthonormality_error(np.nan_to_num(matrices)), np.nan)
    _fault(faults, np.isnan(error), "its pose is incomplete")
    _fault(faults, error > _ROUNDING, "its matrix is no rotation")
    is_sound = error <= _ROUNDING
    matrices = np.where(is_sound[:, None, None], matrices, np.eye(3))
    u, _, v = np.linalg.svd(matrices)
    rotations: FloatArray = u @ v
    if options.rotates == "frame_to_head":
        rotations = np.swapaxes(rotations, 1, 2)
    return camera_to_canonical(rotations) if options.frame == "camera" else rotations


def _boxes(columns: _Columns, options: Options, faults: list[str]) -> FloatArray | None:
    """Return boxes as left, top, right, bottom (n, 4), NaN where a row has none; None if the table has none."""
    if options.box == "none":
        return None
    for key, is_size in (("xyxy", False), ("xywh", True)):
        if columns.find(key) is not None:
            return _corners(columns.lists(key, 4, faults), is_size)
    if columns.find("bbox") is not None:
        if options.box == "auto" and not columns.where.lower().endswith(".json"):
            raise UbhpdError(
                f"{columns.where} does not say how its column bbox is meant: set -O {NAME}.box=xyxy or xywh."
            )
        return _corners(columns.lists("bbox", 4, faults), options.box in ("auto", "xywh"))
    for names, is_size in (*((n, False) for n in _CORNERS), *((n, True) for n in _SIZES)):
        if found := columns.all(names):
            return _corners(columns.stacked(found, faults), is_size)
    return None


def _corners(values: FloatArray | None, is_size: bool) -> FloatArray | None:
    if values is None or not is_size:
        return values
    return np.concatenate([values[:, :2], values[:, :2] + values[:, 2:]], axis=1)


def _fault(faults: list[str], where: Any, text: str) -> None:
    for i in np.flatnonzero(where):
        faults[i] = faults[i] or text


class _Columns:
    """The columns of a table by their plain names: lower case, without spaces."""

    def __init__(self, columns: Mapping[str, list[Any]], where: str) -> None:
        self.where = where
        self._columns = columns

    def find(self, key: str) -> str | None:
        """Return the name of the column that holds a thing of `_NAMES`; None if there is none."""
        return next((name for name in _NAMES[key] if name in self._columns), None)

    def all(self, names: Sequence[str]) -> tuple[str, ...] | None:
        """Return the names if the table has all of these columns."""
        return tuple(names) if all(name in self._columns for name in names) else None

    def angle_names(self) -> tuple[str, ...] | None:
        """Return the names of the columns of yaw, pitch and roll."""
        for ending in ("", "_deg", "_rad"):
            if found := self.all([f"{angle}{ending}" for angle in _YPR]):
                return found
        return None

    def texts(self, key: str) -> list[str | None] | None:
        """Return a column as texts, None for an empty cell; None if there is no such column."""
        name = self.find(key)
        if name is None:
            return None
        return [None if _is_missing(v) or not str(v).strip() else str(v).strip() for v in self._columns[name]]

    def numbers(self, name: str | None, faults: list[str]) -> FloatArray:
        """Return a column as numbers, NaN for an empty cell; a text that is none is a fault of its row."""
        values = self._columns[str(name)]
        try:
            return np.array([np.nan if _is_missing(v) or v == "" else v for v in values], dtype=np.float64)
        except (TypeError, ValueError):
            numbers = np.full(len(values), np.nan)
        for i, value in enumerate(values):
            try:
                numbers[i] = np.nan if _is_missing(value) or value == "" else float(value)
            except (TypeError, ValueError):
                faults[i] = faults[i] or f"{name} is {shortened(str(value))} and no number"
        return numbers

    def stacked(self, names: Sequence[str], faults: list[str]) -> FloatArray:
        """Return several columns of numbers (n, len(names))."""
        return np.stack([self.numbers(name, faults) for name in names], axis=1)

    def lists(self, key: str, length: int, faults: list[str]) -> FloatArray | None:
        """Return a column of lists, or of texts such as "1 2 3 4", as (n, length); None if there is no such column."""
        name = self.find(key)
        if name is None:
            return None
        found = np.full((len(self._columns[name]), length), np.nan)
        for i, value in enumerate(self._columns[name]):
            if _is_missing(value) or value == "":
                continue
            try:
                flat = np.asarray(_listed(value), dtype=np.float64).ravel()
            except (TypeError, ValueError):
                flat = np.empty(0)
            if flat.size == length:
                found[i] = flat
            else:
                faults[i] = faults[i] or f"{name} does not hold {length} numbers"
        return found


def _listed(value: Any) -> Any:
    return re.split(r"[,;\s]+", value.strip(" \t[]()")) if isinstance(value, str) else value


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


# Files


def _columns(path: Path, name: str) -> dict[str, list[Any]]:
    """Return the columns of a file by plain name.

    Raises:
        UbhpdError: it is no such file, damaged, too large, or has a column twice.
    """
    import pyarrow as pa  # slow to import, and the list of sources needs no table
    import pyarrow.parquet as pq

    kind = Path(name).suffix.lower()
    limit = _MAX_JSON_BYTES if kind == ".json" else _MAX_TABLE_BYTES
    if path.stat().st_size > limit:
        raise UbhpdError(f"The table {name} is larger than {limit >> 20:,} MB: divide it.")
    try:
        if kind == ".parquet":
            table = pq.read_table(path)
            return _plain([(n, table.column(i).to_pylist()) for i, n in enumerate(table.column_names)], name)
        if kind == ".json":
            return _plain(list(_coco(json.loads(path.read_text("utf-8-sig")), name).items()), name)
        if kind in (".csv", ".tsv", ".txt"):
            return _csv(path, name)
    except (pa.ArrowException, OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UbhpdError(f"The table {name} cannot be read ({reason}): write it again.") from None
    raise UbhpdError(f"The table {name} is none of .csv, .tsv, .parquet and .json: give one of these.")


def _csv(path: Path, name: str) -> dict[str, list[Any]]:
    import pyarrow as pa
    import pyarrow.csv as pacsv

    with path.open("rb") as file:
        first = file.readline(1 << 20).decode("utf-8-sig", "replace")
    delimiter = max(",;\t", key=first.count)
    if not first.count(delimiter):
        raise UbhpdError(f"The table {name} has one column only: separate columns by comma, semicolon or tab.")
    header = [_plain_name(text) for text in next(csv.reader([first.rstrip("\r\n")], delimiter=delimiter))]
    table = pacsv.read_csv(
        path,
        read_options=pacsv.ReadOptions(column_names=[str(i) for i in range(len(header))], skip_rows=1),
        parse_options=pacsv.ParseOptions(delimiter=delimiter),
        convert_options=pacsv.ConvertOptions(
            column_types={str(i): pa.string() for i in range(len(header))}, strings_can_be_null=True, null_values=[""]
        ),
    )
    return _plain([(n, table.column(i).to_pylist()) for i, n in enumerate(header)], name)


def _coco(content: Any, name: str) -> dict[str, list[Any]]:
    """Return the columns of a COCO file: an annotation per row, with its image's file_name and its attributes."""
    try:
        files = {image["id"]: image["file_name"] for image in content["images"]}
        rows = [
            {**a, **(a.get("attributes") or {}), "file_name": files.get(a["image_id"])} for a in content["annotations"]
        ]
    except (KeyError, TypeError, AttributeError):
        raise UbhpdError(
            f"The table {name} is no COCO file: it needs images (id, file_name) and annotations (image_id, bbox, pose)."
        ) from None
    if not any("sample_id" in row for row in rows):  # the id of an annotation says nothing
        for row in rows:
            row.pop("id", None)
    names = list(dict.fromkeys(key for row in rows for key in row if key not in ("attributes", "area", "segmentation")))
    return {key: [row.get(key) for row in rows] for key in (names or ["file_name"])}


def _plain(columns: Sequence[tuple[str, list[Any]]], name: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for own, values in columns:
        if (key := _plain_name(own)) in found:
            raise UbhpdError(f"The table {name} has two columns {shortened(own)}: rename one.")
        found[key] = values
    return found


def _plain_name(text: str) -> str:
    return re.sub(r"\s+", "_", text.strip().lower())
