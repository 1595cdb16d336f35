"""UPNA Head Pose Database: 10 people, videos of 300 frames, pose from a magnetic sensor.

Layout: User_NN/user_NN_video_VV.mp4 beside _groundtruth2D.txt (landmarks), _groundtruth3D.txt and
_groundtruth3D_zeroed.txt (Tx Ty Tz Roll Yaw Pitch, mm and degrees). Frames stay in their video: image_path is
the video, and frame_index counts from 0. Do not seek in the mp4 while training: decode it once, in order.

Handled: leading spaces, trailing tabs, CRLF; the numbers of rows, frames and landmark columns are counted, not
assumed; videos under other names are ignored. Option labels=raw gives the angles of the sensor, which contain a
constant offset of the headband; labels=zeroed gives those relative to the first frame.

Assumed from a single source: R = Rx(pitch) Ry(-yaw) Rz(-roll) in frame C. The builder checks this on every video with
enough motion: it fits a rigid set of points to the 2-D landmarks under each of the 48 orders and signs of the three
angles, and a note says whether the assumption explains the landmarks as well as the best alternative does.
An image determines depth only up to its sign, so the fit keeps the shapes whose middle is nearer to the camera.
The box is that of the 2-D landmarks (bbox_kind landmarks54, or their actual number). Where the landmark file is
missing or damaged, the heads of the video have no box, and a note says so. A last line of landmarks without a line
end may be truncated and gives no box.

Refused: a row that is not six possible numbers; all frames of a video whose labels or mp4 cannot be read. Row i
belongs to frame i. Surplus rows or frames are refused, and so is the last row of a file with too few rows if it has
no line end. The number of frames is that in the header of the mp4; only --check-images decodes all frames.
Camera_parameters.mat is not needed and not read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import permutations, product

import numpy as np

from ubhpd.core.records import Drop, Note, Record, Unit
from ubhpd.core.rotation import CONVENTIONS, Convention, canonical_from_angles, matrix_from_angles
from ubhpd.core.typing import FloatArray
from ubhpd.raw.image_files import quiet_opencv
from ubhpd.raw.label_files import number_rows
from ubhpd.raw.source import Refused, Source

NAME = "upna"
TITLE = "UPNA Head Pose Database"
POSE = "magnetic sensor"
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
    r"user_(\d{2})_video_(\d{2})(\.(?i:mp4)|(?:_groundtruth2D|_groundtruth3D|_groundtruth3D_zeroed)\.(?i:txt))"
)
_CONVENTION = CONVENTIONS["upna"]
_MIN_MOTION_DEG = 4.0  # standard deviation; with less motion the orders cannot be distinguished
_MAX_MISFIT = 0.25  # of the best fit; about 0.03 if only the perspective is unexplained
_MAX_ANGLE_DEG = 360.0
_MAX_DISTANCE = 1e5  # mm and px; a number beyond this limit is damage
_LIMITS = (*[_MAX_DISTANCE] * 3, *[_MAX_ANGLE_DEG] * 3)  # absolute limits of the numbers of a row
_MAX_FRAMES = 100_000  # the videos have 300
_TIE = 1.05  # a smaller ratio of residuals counts as equal, because the landmarks are not exact


@dataclass(frozen=True)
class Options:
    """labels: `raw`, as measured by the sensor, or `zeroed`, relative to the first frame."""

    labels: str = field(default="raw", metadata={"choices": ("raw", "zeroed")})


def recognise(source: Source, path: str) -> bool:
    """Return True if the folder holds User_NN folders with videos or their labels."""
    return source.has_folder_with(path, _USER, _FILE)


def units(source: Source, options: Options) -> list[Unit]:
    """Return one unit per video."""
    videos = []
    for user in source.listdir(""):
        if not _USER.fullmatch(user.name):
            continue
        kinds: dict[str, set[str]] = {}
        for match in map(_FILE.fullmatch, (e.name for e in source.listdir(user.name))):
            if match:
                kinds.setdefault(f"user_{match[1]}_video_{match[2]}", set()).add(match[3])
        for stem in sorted(kinds):
            path = f"{user.name}/{stem}"
            video = source.actual(f"{path}.mp4")
            labels = [source.actual(p) for p in (f"{path}_groundtruth2D.txt", _label_path(path, options))]
            has_video = any(kind.lower() == ".mp4" for kind in kinds[stem])
            videos.append(Unit(path, (path, has_video), 300, (video, *labels)))
    return videos


def read(source: Source, unit: Unit, options: Options) -> Iterator[Record | Drop | Note]:
    """Yield the frames of a video."""
    path, has_video = unit.items
    user, video = path[-11:-9], path[-2:]
    video_path = source.actual(f"{path}.mp4")
    sequence, table = f"upna/user_{user}/video_{video}", _label_path(path, options)
    rows: list[list[float] | str] = []
    is_cut, frames, faults = False, 0, []
    try:
        table_rows = number_rows(source.read(table), table, _LIMITS)
        if not any(isinstance(row, list) for row in table_rows.rows):
            raise Refused("bad_label", f"{table}: no line with 6 possible numbers")
        rows, is_cut = table_rows
    except Refused as refused:
        faults.append(refused)
    try:
        if not has_video:
            raise Refused("missing_image", f"{path}.mp4: no such file")
        width, height, frames = _video(source, video_path)
    except Refused as refused:
        faults.append(refused)
    if faults:
        yield from _all_refused(sequence, video_path, max(len(rows), frames), faults[0])
        return
    if is_cut and len(rows) < frames:
        rows[-1] = f"{table}: line {len(rows)}, its last, is cut"
    elif is_cut:
        yield Note(f"{table}: its last line has no line end, so it may be cut", is_warning=True)
    points, boxes = None, np.empty((0, 4))
    try:
        points = _points(source, f"{path}_groundtruth2D.txt", {len(rows), frames})
        boxes = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    except Refused as refused:
        yield Note(f"{refused.detail}, so the heads of this video have no box", is_warning=True)
    labels = np.array([row if isinstance(row, list) else [np.nan] * 6 for row in rows]).reshape(-1, 6)
    angles, rotations = canonical_from_angles(labels[:, 3:], _CONVENTION)
    if points is not None:
        yield from _check_convention(labels[: len(points)], points[: len(labels)])
    for i in range(max(len(rows), frames)):
        sample_id = _sample_id(sequence, i)
        if i >= min(len(rows), frames):
            detail = f"{table}: {len(rows)} rows, but {video_path} has {frames} frames"
            yield Drop(sample_id, "frame_count_mismatch", detail, video_path, sequence, i)
        elif isinstance(row := rows[i], str):
            yield Drop(sample_id, "bad_label", row, video_path, sequence, i)
        else:
            box, (yaw, pitch, roll) = boxes[i] if i < len(boxes) else None, angles[i].tolist()
            yield Record(
                sample_id=sample_id,
                image_path=video_path,
                image_width=width,
                image_height=height,
                yaw_deg=yaw,
                pitch_deg=pitch,
                roll_deg=roll,
                rotation=rotations[i].ravel(),
                raw_angles=labels[i, 3:],
                raw_convention="upna",
                subject_id=f"upna/user_{user}",
                sequence_id=sequence,
                frame_index=i,
                bbox_xyxy=box,
                bbox_kind=None if points is None or box is None else f"landmarks{points.shape[1]}",
            )


def _all_refused(sequence: str, path: str, frames: int, fault: Refused) -> Iterator[Drop]:
    for i in range(frames):
        yield Drop(_sample_id(sequence, i), fault.reason, fault.detail, path, sequence, i)
    if not frames:
        yield Drop(sequence, fault.reason, fault.detail, path, sequence)


def _sample_id(sequence: str, frame: int) -> str:
    return f"{sequence}/frame_{frame:05d}"


def _label_path(path: str, options: Options) -> str:
    return f"{path}_groundtruth3D{'_zeroed' if options.labels == 'zeroed' else ''}.txt"


def _points(source: Source, path: str, expected: set[int]) -> FloatArray:
    """Return the 2-D landmarks (frames, points, 2) in pixels; their frames are one of `expected`."""
    data = source.read(path)
    lines = [line.split() for line in data.splitlines() if line.strip()]
    try:
        values = np.array(lines if b"_" not in data else b"_", dtype=np.float64)
    except ValueError:
        raise Refused("bad_label", f"{path}: its rows are not numbers of one count") from None
    if len(values) not in expected or values.ndim != 2 or values.shape[1] % 2:
        frames = " or ".join(map(str, sorted(expected)))
        raise Refused("bad_label", f"{path}: {values.shape} numbers do not fit {frames} frames of x y pairs")
    points = values.reshape(len(values), -1, 2)
    if not (np.abs(values) <= _MAX_DISTANCE).all() or not (np.ptp(points, axis=1) > 0).all():
        raise Refused("bad_label", f"{path}: holds impossible coordinates")
    return points if data[-1:].isspace() else points[:-1]  # a last line without a line end may be truncated


def _video(source: Source, path: str) -> tuple[int, int, int]:
    """Return (width, height, frames) of a video."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # otherwise FFmpeg writes into the progress bar
    import cv2

    with source.local_path(path) as local:
        source.head(path, 1)  # raises the reasons that OpenCV hides: no such file, no permission
        with quiet_opencv():
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
    if not opened or min(width, height, frames) <= 0 or frames > _MAX_FRAMES:
        raise Refused("bad_image", f"{path}: not a video that OpenCV can open")
    return width, height, frames


def _check_convention(labels: FloatArray, points: FloatArray) -> Iterator[Note]:
    """Yield a note on whether the assumed order and signs of the angles explain the motion of the landmarks."""
    angles = labels[:, 3:]
    good = np.isfinite(labels).all(axis=1) & (labels[:, 2] > 0)
    if good.sum() < 20 or (angles[good].std(axis=0) > _MIN_MOTION_DEG).sum() < 2:
        return
    residuals = {c: _residual(matrix_from_angles(angles[good], c), labels[good, 2], points[good]) for c in _CANDIDATES}
    best = min(residuals, key=lambda c: residuals[c])
    if not residuals[best] <= _MAX_MISFIT:
        yield Note("the 2-D landmarks fit the angles under no order and signs: not checked", is_warning=True)
        return
    if residuals[_CONVENTION] <= _TIE * residuals[best]:
        yield Note("the 2-D landmarks agree with the assumed order and signs of the angles")
        return
    yield Note(
        f"the 2-D landmarks fit the angles better as axes {best.axes} with signs pitch {best.sign_pitch:+d}, "
        f"yaw {best.sign_yaw:+d}, roll {best.sign_roll:+d} than as assumed "
        f"(residual {residuals[best]:.2f} against {residuals[_CONVENTION]:.2f})",
        is_warning=True,
    )


def _residual(rotations: FloatArray, distance: FloatArray, points: FloatArray) -> float:
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
    bulges = np.dot(z, x**2 + y**2 - np.mean(x**2 + y**2)) < 0  # the outline of a face is behind its middle
    return misfit if bulges else np.inf


_CANDIDATES: tuple[Convention, ...] = (
    _CONVENTION,
    *(
        c
        for axes, (p, y, r) in product(permutations("XYZ"), product((1, -1), repeat=3))
        if (c := replace(_CONVENTION, axes="".join(axes), sign_pitch=p, sign_yaw=y, sign_roll=r)) != _CONVENTION
    ),
)
