"""UPNA Head Pose Database as its archive unpacks: User_NN/user_NN_video_VV.mp4 and three text files each.

Layout: Ariz et al., CVIU 2016, and the readme of the same group's synthetic database. The 3-D file gives the
pose of a sensor on a headband: the head's, times a constant offset. In the zeroed one the first is identity.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np

from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import euler_from_matrix, matrix_from_euler
from ubhpd.core.typing import FloatArray
from ubhpd.synth.rendered_heads import Head, Pose, Truth, draw_track, pinhole_view
from ubhpd.synth.renderer.shape import landmarks54
from ubhpd.synth.writers.writer_files import Images, Work, draw_image, mat_bytes, write_bytes

SIZE_PX = (1280, 720)
FRAMES_PER_SECOND = 30

# Camera_parameters.mat is thought to speak of 1920x1080 pixels, hence the factor for the videos.
_FOCAL_LENGTH = (1401.6, 1402.2)
_PRINCIPAL_POINT = (972.3, 548.1)
_RESCALE = 1.5

_YAW_VIDEO = 5  # of the guided videos, the one that turns left and right


class _Recording(NamedTuple):
    heads: list[Head]
    raw: list[Pose]
    zeroed: list[Pose]


def write(
    root: Path,
    users: Sequence[int] = (1, 2),
    videos: Sequence[int] = (1, 5),
    *,
    seed: int = 0,
    frames: int = 10,
    offset_deg: Pose = (4.0, -6.0, 2.5),
    zero_side: Literal["right", "left"] = "right",
    truth_of: Literal["raw", "zeroed"] = "raw",
    with_video: bool = True,
    first_subject: int = 1,
    work: Work | None = None,
) -> Truth:
    """Write `Head_Pose_Database_UPNA/` below root and return the poses of one of the two 3-D files.

    Args:
        root: folder that receives the folder Head_Pose_Database_UPNA.
        users: numbers from 1.
        videos: numbers from 1, the same for every user. Number 5 turns left and right only.
        seed: decides the movements and the scenes.
        frames: of each video; 300 in the original.
        offset_deg: yaw, pitch, roll of the sensor on the head.
        zero_side: the zeroed file is R(t) R(0)^-1 ("right"), which removes the offset of a head that is
            frontal in the first frame, as these are; or R(0)^-1 R(t) ("left").
        truth_of: which file the returned truth speaks of; `truth` gives the other without writing.
        with_video: write the mp4 files.
        first_subject: number of user 1's face; datasets that share no subject share no face.
        work: how videos are drawn.

    Returns:
        sample_id (`upna/user_01/video_05/frame_00012`, counted from 0) -> canonical yaw, pitch, roll in degrees.
    """
    folder = root / "Head_Pose_Database_UPNA"
    camera = {"focal_length": np.array([_FOCAL_LENGTH]), "principal_point": np.array([_PRINCIPAL_POINT])}
    write_bytes(folder / "Camera_parameters.mat", mat_bytes(camera))
    images = Images(work=work)
    for user in users:
        for video in videos:
            recording = _recording(seed, user, video, frames, offset_deg, zero_side)
            stem = folder / f"User_{user:02d}" / f"user_{user:02d}_video_{video:02d}"
            face = landmarks54(first_subject + user - 1)
            points = [
                pinhole_view(h.rotation, h.centre_mm, camera_matrix()).project(face)[:, :2] for h in recording.heads
            ]
            write_bytes(stem.with_name(f"{stem.name}_groundtruth2D.txt"), _table([p.ravel() for p in points], 4))
            for suffix, poses in (("", recording.raw), ("_zeroed", recording.zeroed)):
                rows = [_row(h, p) for h, p in zip(recording.heads, poses, strict=True)]
                write_bytes(stem.with_name(f"{stem.name}_groundtruth3D{suffix}.txt"), _table(rows, 9))
            if with_video:
                people = [h._replace(subject=first_subject + user - 1) for h in recording.heads]
                images.add((stem.with_suffix(".mp4"),), _video, people, [54, seed, user, video], subject=user)
    images.write()
    return truth(users, videos, seed=seed, frames=frames, offset_deg=offset_deg, zero_side=zero_side, truth_of=truth_of)


def truth(
    users: Sequence[int] = (1, 2),
    videos: Sequence[int] = (1, 5),
    *,
    seed: int = 0,
    frames: int = 10,
    offset_deg: Pose = (4.0, -6.0, 2.5),
    zero_side: Literal["right", "left"] = "right",
    truth_of: Literal["raw", "zeroed"] = "raw",
) -> Truth:
    """Return what `write` returns for the same arguments, without writing."""
    found: Truth = {}
    for user in users:
        for video in videos:
            recording = _recording(seed, user, video, frames, offset_deg, zero_side)
            for index, pose in enumerate(recording.raw if truth_of == "raw" else recording.zeroed):
                found[f"upna/user_{user:02d}/video_{video:02d}/frame_{index:05d}"] = pose
    return found


def camera_matrix() -> FloatArray:
    """Return the intrinsics (3, 3) of the videos."""
    (fx, fy), (cx, cy) = _FOCAL_LENGTH, _PRINCIPAL_POINT
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, _RESCALE]]) / _RESCALE


def _recording(
    seed: int, user: int, video: int, frames: int, offset_deg: Pose, zero_side: Literal["right", "left"]
) -> _Recording:
    rng = np.random.default_rng([54, seed, user, video, 1])
    amplitude = (55.0, 1.5, 1.5) if video == _YAW_VIDEO else (45.0, 30.0, 22.0)
    heads = draw_track(frames, rng, user, amplitude, centre_mm=(0.0, 10.0, 620.0))
    raw = np.array([h.rotation for h in heads]).reshape(-1, 3, 3) @ matrix_from_euler(offset_deg)
    inverse = raw[:1].swapaxes(-1, -2)
    zeroed = raw @ inverse if zero_side == "right" else inverse @ raw
    return _Recording(heads, _poses(raw), _poses(zeroed))


def _poses(rotations: FloatArray) -> list[Pose]:
    return [(float(y), float(p), float(r)) for y, p, r in euler_from_matrix(rotations)]


def _row(head: Head, pose: Pose) -> FloatArray:
    """Return Tx Ty Tz Roll Yaw Pitch in mm and degrees; the pitch of UPNA points the other way."""
    yaw, pitch, roll = pose
    return np.array([*head.centre_mm, roll, yaw, -pitch])


def _table(rows: Sequence[FloatArray], decimals: int) -> bytes:
    return "".join("".join(f"{v + 0.0:.{decimals}f}\t" for v in row) + "\r\n" for row in rows).encode()


def _video(heads: Sequence[Head], scene_seed: list[int]) -> tuple[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "video.mp4")
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), float(FRAMES_PER_SECOND), SIZE_PX)
        if not writer.isOpened():
            raise UbhpdError(f"OpenCV cannot write {path}: install an opencv-python-headless with FFmpeg.")
        for head in heads:
            view = pinhole_view(head.rotation, head.centre_mm, camera_matrix())
            scene = np.random.default_rng(scene_seed)  # one room for the whole video
            writer.write(draw_image([(view, head)], SIZE_PX, scene, noise=1.0, clutter=0.6))
        writer.release()
        return (path.read_bytes(),)
