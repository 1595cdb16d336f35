"""AFLW as its archives unpack: aflw/data/aflw.sqlite and aflw/data/flickr/{0,2,3}/imageNNNNN.jpg.

Layout: Koestinger et al., ICCVW 2011, and the official tools. Angles are radians in another order than ours,
R = Ry(-yaw) Rx(-pitch) Rz(+roll) in frame C; an invisible landmark has no row; +-2 pi says "no pose".
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.core.files import replacing
from ubhpd.synth.rendered_heads import Head, Truth, View, heads_from, pinhole_view
from ubhpd.synth.renderer.persons import looks_of
from ubhpd.synth.renderer.shape import CODES_21, landmarks21, visible21
from ubhpd.synth.writers.writer_files import Images, Work, disk_full, draw_image, jpeg_bytes, write_bytes

FIRST_FACE_ID = 39341
SENTINEL_RAD = 2 * math.pi

_SIZES_PX = ((500, 375), (375, 500), (640, 480), (500, 333))
_FACES_A_IMAGE = (1, 2, 1, 3)
_FOLDERS = (0, 2, 3)  # there is no folder 1
_CORNER_FACE = 3  # every fifth face, from this one, leaves the image at the top left

_SCHEMA = """
CREATE TABLE Databases (db_id TEXT PRIMARY KEY, path TEXT, description TEXT);
CREATE TABLE AnnotationType (annot_type_id INTEGER PRIMARY KEY, description TEXT, CODE TEXT);
CREATE TABLE Faces (face_id INTEGER PRIMARY KEY AUTOINCREMENT, file_id TEXT NOT NULL, db_id TEXT NOT NULL);
CREATE TABLE FaceImages (image_id INTEGER PRIMARY KEY AUTOINCREMENT, db_id TEXT NOT NULL, file_id TEXT NOT NULL,
    filepath TEXT NOT NULL, bw INTEGER, width INTEGER, height INTEGER);
CREATE TABLE FacePose (face_id INTEGER PRIMARY KEY, roll REAL, pitch REAL, yaw REAL, annot_type_id INTEGER);
CREATE TABLE FaceRect (face_id INTEGER PRIMARY KEY, x INTEGER, y INTEGER, w INTEGER, h INTEGER,
    annot_type_id INTEGER);
CREATE TABLE FaceEllipse (face_id INTEGER PRIMARY KEY, x REAL, y REAL, ra REAL, rb REAL, theta REAL,
    annot_type_id INTEGER, upsidedown INTEGER);
CREATE TABLE FaceMetaData (face_id INTEGER PRIMARY KEY, sex TEXT, occluded INTEGER, glasses INTEGER, bw INTEGER,
    annot_type_id INTEGER);
CREATE TABLE FeatureCoords (face_id INTEGER, feature_id INTEGER, x REAL, y REAL, annot_type_id INTEGER,
    PRIMARY KEY (face_id, feature_id));
CREATE TABLE FeatureCoordTypes (feature_id INTEGER PRIMARY KEY, descr TEXT, code TEXT, x REAL, y REAL, z REAL);
CREATE TABLE CamPose (face_id INTEGER PRIMARY KEY, camRoll REAL, camPitch REAL, camYaw REAL,
    annot_type_id INTEGER);
CREATE TABLE NearDuplicates (face_id INTEGER PRIMARY KEY);
"""


class _Face(NamedTuple):
    face_id: int
    head: Head
    view: View
    has_pose: bool
    has_rect: bool


def write(
    root: Path,
    heads: int | Sequence[Head] = 12,
    *,
    seed: int = 0,
    undefined_poses: int = 2,
    without_rect: int = 1,
    work: Work | None = None,
) -> Truth:
    """Write `aflw/` below root and return the poses written.

    Args:
        root: folder that receives the folder aflw.
        heads: the heads, or how many to draw. Images hold one to three of them.
        seed: decides everything that `heads` leaves open.
        undefined_poses: the last so many faces have the sentinel in FacePose and are not in the truth.
        without_rect: so many faces before those have no row in FaceRect; they are in the truth.
        work: how images are drawn.

    Returns:
        sample_id (`aflw/39341`) -> canonical yaw, pitch, roll in degrees.
    """
    rng = np.random.default_rng([21, seed])
    drawn = heads_from(heads, rng)
    defined = max(len(drawn) - undefined_poses, 0)
    no_rect = range(max(defined - without_rect, 0), defined)
    data = root / "aflw" / "data"
    data.mkdir(parents=True, exist_ok=True)
    images = Images(work=work)
    photos: list[tuple[str, tuple[int, int], list[_Face]]] = []
    number = 2
    for index, (first, group) in enumerate(_groups(drawn)):
        size = _SIZES_PX[index % len(_SIZES_PX)]
        faces = []
        for i, head in enumerate(group, start=first):
            view = _place(head, i - first, len(group), size, i)
            faces.append(_Face(FIRST_FACE_ID + i, head, view, i < defined, i not in no_rect))
        filepath = f"{_FOLDERS[index % len(_FOLDERS)]}/image{number:05d}.jpg"
        scene = np.random.default_rng([21, seed, index])
        path = data / "flickr" / filepath
        images.add((path,), _drawn, [(f.view, f.head) for f in faces], size, scene, subject=group[0].subject)
        photos.append((filepath, size, faces))
        number += int(rng.integers(1, 4))
    try:
        with replacing(data / "aflw.sqlite") as part:
            _write_database(part, photos, len(drawn) > 3, rng)
    except sqlite3.OperationalError as error:
        if "full" not in str(error):
            raise
        raise disk_full(data / "aflw.sqlite") from None
    images.write()
    write_bytes(data / "aflw-changelog.txt", b"Synthetic copy of the layout; no image of AFLW is in it.\n")
    write_bytes(root / "aflw" / "doc" / "README.txt", b"Annotated Facial Landmarks in the Wild: layout only.\n")
    return {f"aflw/{FIRST_FACE_ID + i}": head.pose for i, head in enumerate(drawn[:defined])}


def _drawn(heads: list[tuple[View, Head]], size: tuple[int, int], rng: np.random.Generator) -> tuple[bytes]:
    return (jpeg_bytes(draw_image(heads, size, rng)),)


def _write_database(
    path: Path, photos: list[tuple[str, tuple[int, int], list[_Face]]], near_duplicate: bool, rng: np.random.Generator
) -> None:
    connection = sqlite3.connect(path)
    try:
        connection.executescript(_SCHEMA)
        _insert_constants(connection)
        for image_id, (filepath, size, faces) in enumerate(photos, start=1):
            _insert_image(connection, image_id, filepath, size, faces, rng)
        if near_duplicate:
            connection.execute("INSERT INTO NearDuplicates VALUES (?)", (FIRST_FACE_ID + 1,))
        connection.commit()
        connection.execute("ANALYZE")
        connection.commit()
    finally:
        connection.close()


def aflw_angles(rotation: npt.ArrayLike) -> tuple[float, float, float]:
    """Return roll, pitch, yaw in radians, as FacePose stores them, of a rotation (3, 3) in frame C."""
    r = np.asarray(rotation, dtype=np.float64)
    pitch = np.arctan2(r[1, 2], np.hypot(r[1, 0], r[1, 1]))
    yaw = -np.arctan2(r[0, 2], r[2, 2])
    roll = np.arctan2(r[1, 0], r[1, 1])
    return float(roll), float(pitch), float(yaw)


def _insert_constants(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO Databases VALUES ('flickr', 'flickr', 'images from Flickr')")
    connection.executemany(
        "INSERT INTO AnnotationType VALUES (?, ?, ?)", [(1, "manual", "M"), (2, "derived from landmarks", "D")]
    )
    mean = landmarks21() * (50.0 / 64.0)  # eye distance 50
    rows = [(i + 1, _describe(code), code, *map(float, mean[i])) for i, code in enumerate(CODES_21)]
    connection.executemany("INSERT INTO FeatureCoordTypes VALUES (?, ?, ?, ?, ?, ?)", rows)


def _describe(code: str) -> str:
    """Return the description of a landmark, such as LeftBrowRightCorner for LBRC."""
    parts = {"NC": "NoseCenter", "LN": "NoseLeft", "RN": "NoseRight", "LE": "LeftEar", "RE": "RightEar"}
    parts |= {"MLC": "MouthLeftCorner", "MC": "MouthCenter", "MRC": "MouthRightCorner", "CC": "ChinCenter"}
    if code in parts:
        return parts[code]
    where = {"C": "Center", "LC": "LeftCorner", "RC": "RightCorner"}[code[2:]]
    return {"L": "Left", "R": "Right"}[code[0]] + {"B": "Brow", "E": "Eye"}[code[1]] + where


def _groups(heads: list[Head]) -> Iterator[tuple[int, list[Head]]]:
    """Yield the index of the first head of each image, and its heads."""
    first = 0
    for count in cycle(_FACES_A_IMAGE):
        if first >= len(heads):
            return
        yield first, heads[first : first + count]
        first += count


def _place(head: Head, index: int, count: int, size: tuple[int, int], serial: int) -> View:
    """Return the view of one of `count` heads side by side; of some, in the corner at the top left.

    The camera is the one that AFLW's tools assume: focal length 1.5 times the width, its axis in the middle.
    """
    side = min(size[0] / count, size[1])
    x, y = (index + 0.5) * size[0] / count, 0.45 * size[1]
    if serial % 5 == _CORNER_FACE:
        x, y = 0.16 * side, 0.18 * side
    focal = 1.5 * size[0]
    distance_mm = focal / (0.0024 * side * head.scale)
    away = np.array([(x - size[0] / 2) / focal, (y - size[1] / 2) / focal, 1.0]) * distance_mm
    camera = np.array([[focal, 0.0, size[0] / 2], [0.0, focal, size[1] / 2], [0.0, 0.0, 1.0]])
    return pinhole_view(head.rotation, away, camera)


def _insert_image(
    connection: sqlite3.Connection,
    image_id: int,
    filepath: str,
    size: tuple[int, int],
    faces: list[_Face],
    rng: np.random.Generator,
) -> None:
    file_id = filepath.split("/")[1]
    connection.execute(
        "INSERT INTO FaceImages VALUES (?, 'flickr', ?, ?, 0, ?, ?)", (image_id, file_id, filepath, *size)
    )
    for face in faces:
        connection.execute("INSERT INTO Faces VALUES (?, ?, 'flickr')", (face.face_id, file_id))
        connection.execute("INSERT INTO FacePose VALUES (?, ?, ?, ?, 2)", (face.face_id, *_stored_angles(face)))
        seen = face.view.project(landmarks21(face.head.subject, face.head.expression))
        if face.has_rect:
            connection.execute("INSERT INTO FaceRect VALUES (?, ?, ?, ?, ?, 2)", (face.face_id, *_rect(face)))
        x, y, _ = map(float, face.view.project([(0.0, 20.0, -50.0)])[0])
        radius = 90.0 * face.view.scale_px_per_mm
        ellipse = (face.face_id, x, y, radius, 1.3 * radius, math.radians(face.head.roll_deg))
        connection.execute("INSERT INTO FaceEllipse VALUES (?, ?, ?, ?, ?, ?, 1, 0)", ellipse)
        sex = ("m", "f", "")[int(rng.integers(3))]
        glasses = int(looks_of(face.head.subject).glasses != "none")
        connection.execute("INSERT INTO FaceMetaData VALUES (?, ?, 0, ?, 0, 1)", (face.face_id, sex, glasses))
        visible = visible21(face.head.rotation, face.head.subject)
        connection.executemany(
            "INSERT INTO FeatureCoords VALUES (?, ?, ?, ?, 1)",
            [(face.face_id, int(i) + 1, float(seen[i, 0]), float(seen[i, 1])) for i in np.flatnonzero(visible)],
        )


def _stored_angles(face: _Face) -> tuple[float, float, float]:
    roll, pitch, yaw = aflw_angles(face.head.rotation)
    if face.has_pose:
        return roll, pitch, yaw
    if face.face_id % 2:  # the two marks that the official tools leave
        return -SENTINEL_RAD, -SENTINEL_RAD, -SENTINEL_RAD
    return SENTINEL_RAD, pitch, SENTINEL_RAD


def _rect(face: _Face) -> tuple[int, int, int, int]:
    """Return x, y, w, h: a square of side 128 s, its centre 25 s below the eyes, s the scale of a 50 px face."""
    points = landmarks21(face.head.subject, face.head.expression)
    s = float(np.linalg.norm(points[7] - points[10])) * face.view.scale_px_per_mm / 50.0
    eyes = face.view.project(points[[7, 10]])[:, :2].mean(axis=0)
    side = round(128 * s)
    return round(float(eyes[0]) - 64 * s), round(float(eyes[1]) + (25 - 64) * s), side, side
