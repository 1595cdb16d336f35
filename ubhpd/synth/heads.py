"""Heads of known pose, and how a camera sees them.

Poses are canonical (`ubhpd.rotation`): degrees, frame C with x right, y up, z toward the viewer. Positions are
millimetres in a camera frame with x right, y down, z away from the camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.errors import UbhpdError
from ubhpd.rotation import camera_to_canonical, matrix_from_euler
from ubhpd.synth.persons import NEUTRAL, Expression, expression_of
from ubhpd.synth.poses import LIMIT_DEG

Array = npt.NDArray[np.float64]
Pose = tuple[float, float, float]  # canonical yaw, pitch, roll in degrees
Truth = dict[str, Pose]  # sample_id -> pose

SIGMA_DEG: Pose = (32.0, 14.0, 11.0)
EXPRESSIONS = 5  # how many different ones a person has in a dataset

_FLIP = np.array([1.0, -1.0, -1.0])


class Head(NamedTuple):
    """One head: its canonical pose, who it is, where it is in a camera frame and how large in a face picture."""

    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    subject: int = 0
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 900.0)
    scale: float = 1.0  # 1 is a face that fills a face picture as in 300W-LP
    expression: Expression = NEUTRAL

    @property
    def pose(self) -> Pose:
        """Return canonical yaw, pitch, roll in degrees."""
        return self.yaw_deg, self.pitch_deg, self.roll_deg

    @property
    def rotation(self) -> Array:
        """Return the rotation (3, 3) from head coordinates to frame C."""
        return matrix_from_euler(self.pose)


class View(NamedTuple):
    """A 3x4 projection from head coordinates (mm) to pixels, x right, y down."""

    matrix: Array  # (3, 4); the last row gives the depth, larger is farther
    is_perspective: bool

    def project(self, points_mm: npt.ArrayLike) -> Array:
        """Return (n, 3) for points (n, 3): x and y in pixels, depth in millimetres, larger is farther."""
        p: Array = np.asarray(points_mm, dtype=np.float64) @ self.matrix[:, :3].T + self.matrix[:, 3]
        if self.is_perspective:
            p[:, :2] /= p[:, 2:]
        return p

    @property
    def scale_px_per_mm(self) -> float:
        """Return how many pixels one millimetre takes at the origin of the head."""
        scale = float(np.linalg.norm(np.cross(self.matrix[0, :3], self.matrix[2, :3])))
        return scale / float(self.matrix[2, 3]) if self.is_perspective else scale

    @property
    def rotation(self) -> Array:
        """Return the rotation (3, 3) of the head in frame C of the camera that looks."""
        back = self.matrix[2, :3]
        right = self.matrix[0, :3] - back * (self.matrix[0, :3] @ back)
        right = right / np.linalg.norm(right)
        return np.stack([right, np.cross(-back, right), -back])


def draw_heads(
    count: int,
    rng: np.random.Generator,
    subjects: int = 20,
    limit_deg: Pose = LIMIT_DEG,
    *,
    first_subject: int = 1,
    poses: Array | None = None,
) -> list[Head]:
    """Return heads of different people that mostly look ahead: normal angles, clipped at the limits.

    Args:
        count: how many.
        rng: decides who they are, where and, without `poses`, how they are turned.
        subjects: number of different people, the first of them `first_subject`.
        limit_deg: yaw, pitch and roll that no head goes beyond.
        first_subject: datasets that share no subject share no face.
        poses: yaw, pitch, roll (count, 3) in degrees, in place of normal ones.
    """
    drawn = rng.normal(0.0, SIGMA_DEG, (count, 3)) if poses is None else poses
    turned = np.clip(drawn, -np.array(limit_deg), limit_deg)
    who = first_subject + rng.integers(0, subjects, count)
    where = rng.normal((0.0, 0.0, 900.0), (60.0, 40.0, 60.0), (count, 3))
    scale = rng.uniform(0.85, 1.15, count)
    mood = rng.integers(0, EXPRESSIONS, count)
    columns = (turned.tolist(), who.tolist(), where.tolist(), scale.tolist(), mood.tolist())
    return [
        Head(yaw, pitch, roll, subject, (x, y, z), size, expression_of(subject, number))
        for (yaw, pitch, roll), subject, (x, y, z), size, number in zip(*columns, strict=True)
    ]


def draw_track(
    frames: int,
    rng: np.random.Generator,
    subject: int = 0,
    amplitude_deg: Pose = (50.0, 28.0, 20.0),
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 900.0),
) -> list[Head]:
    """Return the heads of a recording: a slow movement within the amplitudes, frontal in the first frame."""
    t = np.arange(frames) * min(0.25, 6.0 / max(frames, 1) + 0.02)
    speed, second = rng.uniform(0.6, 1.4, 3), rng.uniform(1.7, 2.6, 3)
    sign = rng.choice([-1.0, 1.0], 3)
    wave = 0.8 * np.sin(t[:, None] * speed) + 0.2 * np.sin(t[:, None] * second)
    poses = wave * sign * amplitude_deg
    drift = np.array(centre_mm) + np.sin(t[:, None] * rng.uniform(0.3, 0.9, 3)) * (25.0, 12.0, 30.0)
    return [
        Head(yaw, pitch, roll, subject, (x, y, z))
        for (yaw, pitch, roll), (x, y, z) in zip(poses.tolist(), drift.tolist(), strict=True)
    ]


def heads_from(heads: int | Sequence[Head], rng: np.random.Generator) -> list[Head]:
    """Return the given heads, or as many drawn ones as the number says."""
    if not isinstance(heads, int):
        return list(heads)
    if heads < 1:
        raise UbhpdError(f"Cannot write a dataset of {heads} heads: give 1 or more.")
    return draw_heads(heads, rng)


def weak_view(rotation: npt.ArrayLike, scale_px_per_mm: float, centre_px: tuple[float, float]) -> View:
    """Return a weak perspective view of a head with a rotation (3, 3) in frame C, its origin at centre_px."""
    r = np.asarray(rotation, dtype=np.float64)
    matrix = np.zeros((3, 4))
    matrix[0] = *(scale_px_per_mm * r[0]), centre_px[0]
    matrix[1] = *(-scale_px_per_mm * r[1]), centre_px[1]
    matrix[2, :3] = -r[2]
    return View(matrix, is_perspective=False)


def pinhole_view(
    rotation: npt.ArrayLike,
    centre_mm: npt.ArrayLike,
    camera_matrix: npt.ArrayLike,
    extrinsic_rotation: npt.ArrayLike | None = None,
    extrinsic_translation_mm: npt.ArrayLike | None = None,
) -> View:
    """Return a pinhole view of a head with a rotation (3, 3) in frame C and its origin at centre_mm (3,).

    The extrinsics lead from the frame of centre_mm to that of the camera that looks, X' = R X + T.
    """
    pose = np.column_stack([camera_to_canonical(rotation) * _FLIP, centre_mm])
    if extrinsic_rotation is not None:
        pose = np.asarray(extrinsic_rotation) @ pose
    if extrinsic_translation_mm is not None:
        pose[:, 3] += extrinsic_translation_mm
    return View(np.asarray(camera_matrix, dtype=np.float64) @ pose, is_perspective=True)
