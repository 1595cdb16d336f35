"""How the heads of a source are turned: small mixtures of Gaussians in place of the source's own labels.

Every angle has a mixture of three or, for yaw, four Gaussians (share, mean and deviation in degrees), cut off at 90
degrees: 30 numbers a source. They were fitted by expectation maximisation to the labels of BIWI (15,678 frames) and
AFLW2000-3D (those within 90 degrees) and to 3-degree histograms of 300W-LP; `benchmarks/pose_fits.py` does it again
and says how near they come: the total variation distance to the labels over the 15 bins is at most 0.03, for the yaw
of 300W-LP 0.06. The three angles are drawn independently of each other: how they depend on each other is not
modelled. AFLW, whose first images AFLW2000-3D is, is drawn as that.

Heads of known pose, and how a camera sees them.

Poses are canonical (`ubhpd.core.rotation`): degrees, frame C with x right, y up, z toward the viewer. Positions are
millimetres in a camera frame with x right, y down, z away from the camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.core.bins import EDGES_DEG
from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import camera_to_canonical, matrix_from_euler
from ubhpd.core.typing import FloatArray
from ubhpd.synth.renderer.persons import NEUTRAL, Expression, expression_of

Mixture = tuple[tuple[float, float, float], ...]  # share, mean and deviation in degrees

# Beyond 90 degrees of yaw the triplet is no longer unique; a label written with six digits needs more room.
LIMIT_DEG = (88.0, 80.0, 80.0)


class Fit(NamedTuple):
    """The mixtures of a source's three angles."""

    yaw: Mixture
    pitch: Mixture
    roll: Mixture


_FITTED: dict[str, Fit] = {
    "biwi": Fit(
        yaw=((0.297, -25.7, 18.9), (0.311, 3.9, 5.7), (0.285, 29.4, 13.3), (0.106, 56.2, 8.2)),
        pitch=((0.225, -26.9, 15.8), (0.656, 14.9, 12.6), (0.119, 46.5, 14.4)),
        roll=((0.032, -34.4, 9.6), (0.376, -0.7, 3.4), (0.592, 2.4, 14.7)),
    ),
    "aflw2000": Fit(
        yaw=((0.099, -64.7, 10.7), (0.671, 1.6, 23.7), (0.13, 0.6, 4.5), (0.1, 65.3, 10.4)),
        pitch=((0.156, -5.4, 33.3), (0.767, -8.1, 9.9), (0.077, 20.4, 8.6)),
        roll=((0.549, -1.7, 13.5), (0.175, -0.8, 2.5), (0.276, 0.7, 31.8)),
    ),
    "300wlp": Fit(
        yaw=((0.12, -77.6, 7.6), (0.38, -39.8, 21.2), (0.38, 39.8, 21.2), (0.12, 77.7, 7.6)),
        pitch=((0.067, -9.3, 26.7), (0.414, -8.5, 7.0), (0.519, -9.0, 12.9)),
        roll=((0.684, 0.0, 11.8), (0.276, -0.2, 4.5), (0.04, 0.9, 31.1)),
    ),
}


def fit_of(source: str) -> Fit:
    """Return the mixtures of a source, or of the one it is drawn like."""
    return _FITTED["aflw2000" if source == "aflw" else source]


def cumulative(mixture: Mixture, angle_deg: npt.ArrayLike) -> FloatArray:
    """Return the share of heads below angles (...) in degrees, of those within 90 degrees."""
    from scipy.special import ndtr

    def below(angle: npt.ArrayLike) -> FloatArray:
        a = np.asarray(angle, dtype=np.float64)
        return sum((share * ndtr((a - mean) / deviation) for share, mean, deviation in mixture), np.zeros_like(a))

    low, high = below(EDGES_DEG[0]), below(EDGES_DEG[-1])
    shares: FloatArray = (below(angle_deg) - low) / (high - low)
    return shares


def bin_shares(mixture: Mixture) -> FloatArray:
    """Return the share of heads in each of the 15 bins (15,) of `ubhpd.core.bins`."""
    return np.diff(cumulative(mixture, EDGES_DEG))


def quantiles(fit: Fit, shares: npt.ArrayLike) -> FloatArray:
    """Return the yaw, pitch, roll (n, 3) in degrees below which the shares (n, 3) of a source's heads lie."""
    grid = np.linspace(EDGES_DEG[0], EDGES_DEG[-1], 721)
    wanted = np.asarray(shares, dtype=np.float64)
    columns = [np.interp(wanted[:, j], cumulative(mixture, grid), grid) for j, mixture in enumerate(fit)]
    return np.clip(np.stack(columns, axis=1), -np.array(LIMIT_DEG), LIMIT_DEG)


def draw_poses(source: str, count: int, rng: np.random.Generator) -> FloatArray:
    """Return yaw, pitch, roll (count, 3) in degrees, turned as the heads of a source are."""
    return quantiles(fit_of(source), rng.random((count, 3)))


def draw_movement(source: str, frames: int, rng: np.random.Generator, frames_per_turn: float = 90.0) -> FloatArray:
    """Return yaw, pitch, roll (frames, 3) in degrees of a slow movement that in the long run is turned as a source.

    A sum of slow waves of random phase is about normal at any time; its share is looked up in the source's mixtures.
    """
    from scipy.special import ndtr

    waves = 6
    speed = 2 * np.pi / frames_per_turn * rng.uniform(0.25, 1.6, (waves, 3))
    phase = rng.uniform(0.0, 2 * np.pi, (waves, 3))
    angle = np.arange(frames)[:, None, None] * speed + phase
    return quantiles(fit_of(source), ndtr(np.sin(angle).sum(axis=1) * np.sqrt(2.0 / waves)))


Pose = tuple[float, float, float]  # canonical yaw, pitch, roll in degrees
Truth = dict[str, Pose]  # sample_id -> pose

SIGMA_DEG: Pose = (32.0, 14.0, 11.0)
EXPRESSIONS = 5  # how many different ones a person has in a dataset

_FLIP = np.array([1.0, -1.0, -1.0])


class Head(NamedTuple):
    """One head: its canonical pose, who it is, where it is in a camera frame and how large in a face image."""

    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    subject: int = 0
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 900.0)
    scale: float = 1.0  # 1 is a face that fills a face image as in 300W-LP
    expression: Expression = NEUTRAL

    @property
    def pose(self) -> Pose:
        """Return canonical yaw, pitch, roll in degrees."""
        return self.yaw_deg, self.pitch_deg, self.roll_deg

    @property
    def rotation(self) -> FloatArray:
        """Return the rotation (3, 3) from head coordinates to frame C."""
        return matrix_from_euler(self.pose)


class View(NamedTuple):
    """A 3x4 projection from head coordinates (mm) to pixels, x right, y down."""

    matrix: FloatArray  # (3, 4); the last row gives the depth, larger is farther
    is_perspective: bool

    def project(self, points_mm: npt.ArrayLike) -> FloatArray:
        """Return (n, 3) for points (n, 3): x and y in pixels, depth in millimetres, larger is farther."""
        p: FloatArray = np.asarray(points_mm, dtype=np.float64) @ self.matrix[:, :3].T + self.matrix[:, 3]
        if self.is_perspective:
            p[:, :2] /= p[:, 2:]
        return p

    @property
    def scale_px_per_mm(self) -> float:
        """Return how many pixels one millimetre takes at the origin of the head."""
        scale = float(np.linalg.norm(np.cross(self.matrix[0, :3], self.matrix[2, :3])))
        return scale / float(self.matrix[2, 3]) if self.is_perspective else scale

    @property
    def rotation(self) -> FloatArray:
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
    poses: FloatArray | None = None,
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
        Head(
            yaw_deg=yaw,
            pitch_deg=pitch,
            roll_deg=roll,
            subject=subject,
            centre_mm=(x, y, z),
            scale=size,
            expression=expression_of(subject, number),
        )
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
