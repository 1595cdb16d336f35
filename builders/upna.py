"""UPNA Head Pose Database: 10 people, videos of 300 frames, pose from a magnetic sensor.

Layout: User_NN/user_NN_video_VV.mp4 beside _groundtruth2D.txt (landmarks), _groundtruth3D.txt and
_groundtruth3D_zeroed.txt (Tx Ty Tz Roll Yaw Pitch, mm and degrees). Frames stay in their video: image_path is
the video, frame_index the frame, counted from 0. Never seek in the mp4 while training: unpack once, in order.

Handled: leading spaces, trailing tabs, CRLF; numbers of rows, frames and landmark columns are counted, not
assumed; a user's own name for a video does not disturb. Option labels=raw gives the sensor's angles, which
carry a constant offset of the headband; labels=zeroed those relative to the first frame.

Assumed, from a single source: R = Rx(pitch) Ry(-yaw) Rz(-roll) in frame C. For every video that moves enough
the builder checks it: a rigid set of points is fitted to the 2-D landmarks under each of the 48 orders and
signs of the three angles, and a remark says whether the assumption explains them as well as the best.
A picture tells depth only up to reversal, so the fit keeps the shapes whose middle lies nearer to the camera.
The box is that of the 2-D landmarks (bbox_kind landmarks54).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import permutations, product

import numpy as np
import numpy.typing as npt

from ubhpd.records import Drop, Note, Record, Unit
from ubhpd.rotation import CONVENTIONS, Convention, canonical_from_angles, matrix_from_angles
from ubhpd.source import Refused, Source
from ubhpd.trees import Tree

NAME = "upna"
TITLE = "UPNA Head Pose Database"
HOMEPAGE = "http://www.unavarra.es/gi4e/databases/hpdb"
LICENSE = "CC BY-NC-SA, as one user of it states: check the terms at the homepage"
CITATION = (
    "M. Ariz, J. J. Bengoechea, A. Villanueva, R. Cabeza: A novel 2D/3D database with automatic face annotation "
    "for head tracking and pose estimation. CVIU 2016."
)
ACCESS = "Request the Head Pose Database at the homepage."
LAYOUT = """\
Head_Pose_Database_UPNA/
  User_01/
    user_01_video_01.mp4
    user_01_video_01_groundtruth2D.txt
    user_01_video_01_groundtruth3D.txt  user_01_video_01_groundtruth3D_zeroed.txt
"""
PUBLISHED: dict[str, int] = {f"upna/user_{u:02d}/": 3600 for u in range(1, 11)}
OUT_OF_RANGE: frozenset[str] = frozenset()

_USER = re.compile(r"User_(\d{2})")
_FILE = re.compile(
    r"user_(\d{2})_video_(\d{2})(\.mp4|_groundtruth2D\.txt|_groundtruth3D\.txt|_groundtruth3D_zeroed\.txt)"
)
_CONVENTION = CONVENTIONS["upna"]
_MIN_MOTION_DEG = 4.0  # standard deviation; below it a video cannot tell one order from another
_TIE = 1.05  # residuals this close are equal: the landmarks themselves are not exact

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """labels: `raw` as the sensor gave them, or `zeroed` relative to the first frame."""

    labels: str = field(default="raw", metadata={"choices": ("raw", "zeroed")})


def recognise(tree: Tree, path: str) -> bool:
    """Return True if the folder holds User_NN folders with videos or their labels."""
    for entry in tree.listdir(path):
        if entry.is_dir and _USER.fullmatch(entry.name):
            inside = tree.listdir(f"{path}/{entry.name}" if path else entry.name)
            if any(_FILE.fullmatch(e.name) for e in inside):
                return True
    return False


def units(source: Source, options: Options) -> list[Unit]:
    """Return one unit per video."""
    found = []
    for user in source.listdir(""):
        if not _USER.fullmatch(user.name):
            continue
        matches = map(_FILE.fullmatch, (e.name for e in source.listdir(user.name)))
        for stem in sorted({f"user_{m[1]}_video_{m[2]}" for m in matches if m}):
            path = f"{user.name}/{stem}"
            files = (f"{path}.mp4", f"{path}_groundtruth2D.txt", _label_path(path, options))
            found.append(Unit(path, (path,), 300, files))
    return found


def read(source: Source, unit: Unit, options: Options) -> Iterator[Record | Drop | Note]:
    """Yield the frames of a video."""
    (path,) = unit.items
    user, video = path[-11:-9], path[-2:]
    sequence = f"upna/user_{user}/video_{video}"
    try:
        rows = _rows(source, _label_path(path, options))
    except Refused as refused:
        yield Drop(sequence, refused.reason, refused.detail, f"{path}.mp4", sequence)
        return
    try:
        width, height, frames = _video(source, f"{path}.mp4")
    except Refused as refused:
        for i in range(len(rows)):
            yield Drop(_sample_id(sequence, i), refused.reason, refused.detail, f"{path}.mp4", sequence, i)
        return
    points = None
    try:
        points = _points(source, f"{path}_groundtruth2D.txt", len(rows))
    except Refused as refused:
        yield Note(f"{refused.detail}, so the heads of this video have no box", is_warning=True)
    labels = np.array([row if isinstance(row, list) else [np.nan] * 6 for row in rows]).reshape(-1, 6)
    angles, rotations = canonical_from_angles(labels[:, 3:], _CONVENTION)
    if points is not None:
        yield from _check_convention(labels, points)
    for i, row in enumerate(rows):
        sample_id = _sample_id(sequence, i)
        if isinstance(row, str):
            yield Drop(sample_id, "bad_label", row, f"{path}.mp4", sequence, i)
        elif i >= frames:
            detail = f"{path}.mp4: label row {i + 1}, but the video has {frames} frames"
            yield Drop(sample_id, "frame_count_mismatch", detail, f"{path}.mp4", sequence, i)
        else:
            box = None if points is None else np.concatenate([points[i].min(axis=0), points[i].max(axis=0)])
            yield Record(
                sample_id, f"{path}.mp4", width, height, *angles[i].tolist(), rotations[i].ravel(),
                raw_angles=labels[i, 3:], raw_convention="upna", subject_id=f"upna/user_{user}",
                sequence_id=sequence, frame_index=i,
                bbox_xyxy=box, bbox_kind=None if box is None else "landmarks54",
            )  # fmt: skip
    for i in range(len(rows), frames):
        detail = f"{path}.mp4: the video has {frames} frames, its labels end at {len(rows)}"
        yield Drop(_sample_id(sequence, i), "frame_count_mismatch", detail, f"{path}.mp4", sequence, i)


def _sample_id(sequence: str, frame: int) -> str:
    return f"{sequence}/frame_{frame:05d}"


def _label_path(path: str, options: Options) -> str:
    return f"{path}_groundtruth3D{'_zeroed' if options.labels == 'zeroed' else ''}.txt"


def _rows(source: Source, path: str) -> list[list[float] | str]:
    """Return the six numbers of each row, or the sentence that says what is wrong with it."""
    rows: list[list[float] | str] = []
    for number, line in enumerate(source.read(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values = [float(token) for token in line.split()]
        except ValueError:
            values = []
        if len(values) != 6 or not np.isfinite(values).all():
            rows.append(f"{path}: line {number} does not hold 6 numbers")
        else:
            rows.append(values)
    if not any(isinstance(row, list) for row in rows):
        raise Refused("bad_label", f"{path}: no line with 6 numbers")
    return rows


def _points(source: Source, path: str, expected: int) -> Array:
    """Return the 2-D landmarks (frames, points, 2) in pixels."""
    lines = [line.split() for line in source.read(path).splitlines() if line.strip()]
    try:
        values = np.array(lines, dtype=np.float64)
    except ValueError:
        raise Refused("bad_label", f"{path}: its rows are not numbers of one count") from None
    if len(values) != expected or values.ndim != 2 or values.shape[1] % 2 or not np.isfinite(values).all():
        raise Refused("bad_label", f"{path}: {values.shape} numbers do not fit {expected} frames of x y pairs")
    return values.reshape(expected, -1, 2)


def _video(source: Source, path: str) -> tuple[int, int, int]:
    """Return (width, height, frames) of a video."""
    import cv2

    with source.local_path(path) as local:
        source.head(path, 1)  # says in plain words what OpenCV would hide: no such file, no permission
        cv2.setLogLevel(0)
        video = cv2.VideoCapture(local)
        try:
            width, height, frames = (
                int(video.get(p))
                for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_COUNT)
            )
            opened = video.isOpened()
            if opened and source.thorough:
                frames = 0
                while video.grab():
                    frames += 1
        finally:
            video.release()
    if not opened or min(width, height, frames) <= 0:
        raise Refused("bad_image", f"{path}: not a video that OpenCV can open")
    return width, height, frames


def _check_convention(labels: Array, points: Array) -> Iterator[Note]:
    """Say whether the assumed order and signs of the angles explain the motion of the landmarks."""
    angles = labels[:, 3:]
    good = np.isfinite(labels).all(axis=1) & (labels[:, 2] > 0)
    if good.sum() < 20 or (angles[good].std(axis=0) > _MIN_MOTION_DEG).sum() < 2:
        return
    residuals = {c: _residual(matrix_from_angles(angles[good], c), labels[good, 2], points[good]) for c in _CANDIDATES}
    best = min(residuals, key=lambda c: residuals[c])
    if residuals[_CONVENTION] <= _TIE * residuals[best]:
        yield Note("the 2-D landmarks agree with the assumed order and signs of the angles")
        return
    yield Note(
        f"the 2-D landmarks fit the angles better as axes {best.axes} with signs pitch {best.sign_pitch:+d}, "
        f"yaw {best.sign_yaw:+d}, roll {best.sign_roll:+d} than as assumed "
        f"(residual {residuals[best]:.2f} against {residuals[_CONVENTION]:.2f})",
        is_warning=True,
    )


def _residual(rotations: Array, distance: Array, points: Array) -> float:
    """Return the RMS misfit of the best rigid points (3, k) under scaled orthographic projection, a pure number.

    Frame i shows s_i R_i X about its centre, s_i proportional to 1 / distance; X follows by least squares.
    """
    image = (
        (points - points.mean(axis=1, keepdims=True))
        * np.array([1.0, -1.0])
        * (distance / distance.mean())[:, None, None]
    )
    design = rotations[:, :2].reshape(-1, 3)
    target = np.swapaxes(image, 1, 2).reshape(-1, points.shape[1])
    shape, *_ = np.linalg.lstsq(design, target, rcond=None)
    misfit = float(np.sqrt(np.mean((design @ shape - target) ** 2) / np.mean(target**2)))
    x, y, z = shape - shape.mean(axis=1, keepdims=True)
    bulges = np.dot(z, x**2 + y**2 - np.mean(x**2 + y**2)) < 0  # the rim of a face lies behind its middle
    return misfit if bulges else np.inf


_CANDIDATES: tuple[Convention, ...] = (
    _CONVENTION,
    *(
        c
        for axes, (p, y, r) in product(permutations("XYZ"), product((1, -1), repeat=3))
        if (c := replace(_CONVENTION, axes="".join(axes), sign_pitch=p, sign_yaw=y, sign_roll=r)) != _CONVENTION
    ),
)  # fmt: skip
