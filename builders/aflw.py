"""AFLW, Annotated Facial Landmarks in the Wild: 24,384 faces of Flickr images in an SQLite database.

Layout: data/aflw.sqlite and data/flickr/{0,2,3}/imageNNNNN.jpg. One joined query gives a row per pose, and one
query gives the landmarks. An image can show several faces, so a head is identified by its face_id.

Handled: poses marked undefined or impossible by +-2 pi (all angles from 6.2 rad on); the 12 poses without a FaceRect,
which keep their angles and get the reason missing_box; rectangles that extend beyond the image; invisible landmarks,
which have no row and become NaN; a second pose or rectangle of the same face; image paths that lead out of the
dataset's folder. A database that SQLite cannot read, that fails its integrity check, whose tables are views or whose
queries do not end stops the build with an error. Faces without a pose are counted, and so are rows of no face.

Angles are radians in the order roll, pitch, yaw. According to the official source, R = Ry(-yaw) Rx(-pitch) Rz(roll)
in frame C, which is another order than that of 300W-LP. Option angles=exact uses this matrix. Option angles=roll-flip
reads the triplet as most of the literature does: it negates roll and ignores the order. Both agree where pitch or yaw
is 0 and differ by up to tens of degrees elsewhere. raw_convention is aflw or aflw_roll_flip accordingly.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import quote

import numpy as np

from ubhpd.core.errors import UbhpdError
from ubhpd.core.records import Drop, Note, Record, Unit
from ubhpd.core.rotation import canonical_from_angles
from ubhpd.core.text import one_line
from ubhpd.raw.source import Refused, Source

NAME = "aflw"
TITLE = "AFLW: Annotated Facial Landmarks in the Wild"
POSE = "hand-marked landmarks"
HOMEPAGE = "https://www.tugraz.at/institute/icg/research/team-bischof/lrs/downloads/aflw/"
LICENSE = "images belong to their Flickr owners; research only, not commercial, no redistribution"
CITATION = (
    "M. Koestinger, P. Wohlhart, P. M. Roth, H. Bischof: Annotated Facial Landmarks in the Wild: A Large-scale, "
    "Real-world Database for Facial Landmark Localization. ICCV Workshops 2011."
)
ACCESS = "Request a password at the homepage; get aflw-db.tar.gz and aflw-images-0, -2 and -3.tar.gz."
LAYOUT = """\
aflw/
  data/
    aflw.sqlite
    flickr/0/image00002.jpg  flickr/2/...  flickr/3/...
"""
PUBLISHED: dict[str, int] = {"aflw/": 24384}
OUT_OF_RANGE: frozenset[str] = frozenset()  # no list was published: 976 faces lie beyond 90 degrees

_DATABASE = "data/aflw.sqlite"
_IMAGE = re.compile(r"[0-9]+/[^/\\\x00-\x1f]+\.\w+")  # whether it is an image is decided by the content
_MAX_PX = 1e6
_UNDEFINED_RAD = 6.2  # the official code writes -2 pi for undefined and +2 pi for impossible
_POINTS = [
    "LBLC",
    "LBC",
    "LBRC",
    "RBLC",
    "RBC",
    "RBRC",
    "LELC",
    "LEC",
    "LERC",
    "RELC",
    "REC",
    "RERC",
    "LE",
    "LN",
    "NC",
    "RN",
    "RE",
    "MLC",
    "MC",
    "MRC",
    "CC",
]
_UNIT_SIZE = 2000
_TABLES = {"facepose", "faces", "faceimages", "facerect", "featurecoords", "featurecoordtypes"}
_MAX_STEPS = 1_000_000_000  # instructions of SQLite; all queries on the official database need fewer than 50 million
_STEPS_A_CALL = 100_000

_LIST = """
    SELECT p.face_id, i.filepath
    FROM FacePose p JOIN Faces f ON f.face_id = p.face_id
    JOIN FaceImages i ON i.file_id = f.file_id AND i.db_id = f.db_id
    ORDER BY p.face_id"""
_HEADS = """
    SELECT p.face_id, i.filepath, p.roll, p.pitch, p.yaw, r.x, r.y, r.w, r.h
    FROM FacePose p
    LEFT JOIN Faces f ON f.face_id = p.face_id
    LEFT JOIN FaceImages i ON i.file_id = f.file_id AND i.db_id = f.db_id
    LEFT JOIN FaceRect r ON r.face_id = p.face_id
    WHERE p.face_id BETWEEN ? AND ?
    ORDER BY p.face_id, i.filepath, p.roll, p.pitch, p.yaw, r.x, r.y, r.w, r.h"""
_LANDMARKS = "SELECT face_id, feature_id, x, y FROM FeatureCoords WHERE face_id BETWEEN ? AND ?"


@dataclass(frozen=True)
class Options:
    """angles: `exact` by the official rotation matrix, or `roll-flip` as most of the literature."""

    angles: str = field(default="exact", metadata={"choices": ("exact", "roll-flip")})


def recognise(source: Source, path: str) -> bool:
    """Return True if the folder holds data/aflw.sqlite."""
    return any(e.name == "aflw.sqlite" for e in source.listdir(f"{path}/data" if path else "data"))


def recognise_part(source: Source, path: str) -> bool:
    """Return True if the folder holds images of the dataset without its database, as three of the archives do."""
    return any(e.is_dir for e in source.listdir(f"{path}/data/flickr" if path else "data/flickr"))


def units(source: Source, options: Options) -> list[Unit]:
    """Return units of 2,000 faces in the order of face_id."""
    with _database(source) as database:
        _verify(database)
        rows = database.execute("SELECT DISTINCT face_id FROM FacePose ORDER BY face_id").fetchall()
        images = dict(database.execute(_LIST).fetchall())
    faces = []
    for (face_id,) in rows:
        if not isinstance(face_id, int):
            raise UbhpdError(f"{_DATABASE}: face_id {face_id!r} in FacePose is no integer; get the official database.")
        faces.append(face_id)
    units_of_faces = []
    for start in range(0, len(faces), _UNIT_SIZE):
        chunk = faces[start : start + _UNIT_SIZE]
        paths = {source.actual(f"data/flickr/{images[f]}") for f in chunk if _is_image(images.get(f))}
        units_of_faces.append(Unit(str(chunk[0]), (chunk[0], chunk[-1]), len(chunk), (_DATABASE, *sorted(paths))))
    return units_of_faces


def read(source: Source, unit: Unit, options: Options) -> Iterator[Record | Drop | Note]:
    """Yield the faces of a unit."""
    with _database(source) as database:
        rows = database.execute(_HEADS, unit.items).fetchall()
        points = _landmarks(database, unit.items)
        (first,) = database.execute("SELECT MIN(face_id) FROM FacePose").fetchone()
        notes = _account(database) if unit.items[0] == first else []
    yield from notes
    seen: dict[int, int] = {}
    good: list[tuple[Any, ...]] = []
    for face_id, filepath, *angles_and_square in rows:
        nth = seen[face_id] = seen.get(face_id, 0) + 1
        sample_id = f"aflw/{face_id}"
        path = f"data/flickr/{filepath}" if _is_image(filepath) else None
        try:
            if nth > 1:
                sample_id = f"{sample_id}#{nth}"
                raise Refused(
                    "duplicate_label",
                    f"{_DATABASE}: row {nth} of face {face_id} in FacePose, Faces or FaceRect",
                )
            good.append((sample_id, face_id, *_head(source, face_id, filepath, path, angles_and_square)))
        except Refused as refused:
            yield Drop(sample_id, refused.reason, refused.detail, path)
    if not good:
        return
    raw = np.array([row[4] for row in good], dtype=np.float64)
    convention = "aflw" if options.angles == "exact" else "aflw_roll_flip"
    angles, rotations = canonical_from_angles(raw, convention)
    for i, (sample_id, face_id, path, size, _, square) in enumerate(good):
        box = None if square is None else (square[0], square[1], square[0] + square[2], square[1] + square[3])
        (width, height), (yaw, pitch, roll) = size, angles[i].tolist()
        yield Record(
            sample_id=sample_id,
            image_path=path,
            image_width=width,
            image_height=height,
            yaw_deg=yaw,
            pitch_deg=pitch,
            roll_deg=roll,
            rotation=rotations[i].ravel(),
            raw_angles=raw[i],
            raw_convention=convention,
            bbox_xyxy=box,
            bbox_kind=None if box is None else "face_rect",
            landmarks21=points.get(face_id),
            landmarks_kind="manual_21" if face_id in points else None,
            source_photo=f"aflw/{path.rpartition('/')[2].rpartition('.')[0]}",
            drop_reason="missing_box" if box is None else None,
            drop_detail=f"{_DATABASE}: face {face_id} has no row in FaceRect" if box is None else None,
        )


def _head(source: Source, face_id: int, filepath: Any, path: str | None, row: list[Any]) -> tuple[Any, Any, Any, Any]:
    """Return (image path, its size, roll pitch yaw in radians, x y w h of the square or None)."""
    if path is None:
        raise Refused("bad_label", f"{_DATABASE}: face {face_id} has the image path {filepath!r}")
    angles, square = row[:3], row[3:]
    if not all(isinstance(a, (int, float)) and np.isfinite(a) for a in angles):
        raise Refused("bad_label", f"{_DATABASE}: face {face_id} has the pose {angles}")
    if any(abs(a) >= _UNDEFINED_RAD for a in angles):
        raise Refused("undefined_pose", f"{_DATABASE}: face {face_id} is marked as without a pose ({angles})")
    if all(v is None for v in square):
        return *source.find_image(path), angles, None
    if not all(isinstance(v, (int, float)) and abs(v) <= _MAX_PX for v in square) or min(square[2:]) <= 0:
        raise Refused("bad_label", f"{_DATABASE}: face {face_id} has the rectangle {square}")
    return *source.find_image(path), angles, square


def _landmarks(database: sqlite3.Connection, span: tuple[Any, ...]) -> dict[int, Any]:
    """Return the 21 points (42,) of each face that has any; a point without a row is NaN."""
    # The ids are assumed to be 1 to 21; where the database gives a code for an id, the code decides.
    codes = {code: number for number, code in database.execute("SELECT feature_id, code FROM FeatureCoordTypes")}
    place = {codes[code]: 2 * i for i, code in enumerate(_POINTS) if code in codes}
    for i, code in enumerate(_POINTS):
        if code not in codes:
            place.setdefault(i + 1, 2 * i)
    points: dict[int, Any] = {}
    for face_id, feature_id, x, y in database.execute(_LANDMARKS, span):
        if feature_id in place and all(isinstance(v, (int, float)) and abs(v) <= _MAX_PX for v in (x, y)):
            face = points.setdefault(face_id, np.full(42, np.nan))
            face[place[feature_id] : place[feature_id] + 2] = x, y
    return points


def _verify(database: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError if the file is damaged or one of the tables is a view, which may have no end."""
    kinds = database.execute("SELECT name, type, sql FROM sqlite_master WHERE type IN ('table', 'view')")
    for name, kind, sql in kinds.fetchall():
        if str(name).lower() in _TABLES and (kind == "view" or str(sql).lstrip().lower().startswith("create virtual")):
            raise sqlite3.DatabaseError(f"{name} is not a table but a view")
    (verdict,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(f"it is damaged: {str(verdict).splitlines()[-1][:60]}")


def _account(database: sqlite3.Connection) -> list[Note]:
    """Return how many faces have a pose, and which rows of the other tables belong to no face."""
    (total,) = database.execute("SELECT COUNT(*) FROM Faces").fetchone()
    (without,) = database.execute(
        "SELECT COUNT(*) FROM Faces WHERE face_id NOT IN (SELECT face_id FROM FacePose)"
    ).fetchone()
    notes = [
        Note(f"{total:,} faces in the database: {total - without:,} with a pose, {without:,} left out without one")
    ]
    for table in ("FacePose", "FaceRect", "FeatureCoords"):
        query = f"SELECT COUNT(*) FROM {table} WHERE face_id IS NULL OR face_id NOT IN (SELECT face_id FROM Faces)"
        (orphans,) = database.execute(query).fetchone()
        if orphans:
            notes.append(Note(f"{orphans:,} rows of {table} belong to no face in Faces", is_warning=True))
    return notes


def _is_image(filepath: Any) -> bool:
    return isinstance(filepath, str) and _IMAGE.fullmatch(filepath) is not None


@contextmanager
def _database(source: Source) -> Iterator[sqlite3.Connection]:
    """Open the database read-only; every fault is raised as an UbhpdError."""
    remedy = "get aflw-db.tar.gz again"
    try:
        with source.local_path(_DATABASE, missing="missing_label") as path:
            uri = f"file:{quote(os.path.abspath(path))}?mode=ro&immutable=1"
            database = sqlite3.connect(uri, uri=True)
            try:
                database.text_factory = lambda raw: raw.decode("utf-8", "replace")
                calls = count()
                database.set_progress_handler(lambda: next(calls) >= _MAX_STEPS // _STEPS_A_CALL, _STEPS_A_CALL)
                database.execute("PRAGMA trusted_schema = OFF")
                database.execute("PRAGMA cell_size_check = ON")
                (page_size,) = database.execute("PRAGMA page_size").fetchone()
                if os.path.getsize(path) % page_size:  # SQLite would silently fill the last page with zeros
                    raise sqlite3.DatabaseError("it is truncated")
                yield database
            finally:
                database.close()
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the error message of a damaged schema may not be UTF-8
        raise UbhpdError(f"The AFLW database {_DATABASE} cannot be read ({_plain(error)}): {remedy}.") from None
    except Refused as refused:
        raise UbhpdError(f"The AFLW database cannot be read ({refused.detail}): {remedy}.") from None


def _plain(error: Exception) -> str:
    text = one_line(str(error))  # of a damaged schema, SQLite quotes the whole statement
    if text == "interrupted":
        return "its queries do not end"
    return text if len(text) <= 100 else f"{text[:97]}..."
