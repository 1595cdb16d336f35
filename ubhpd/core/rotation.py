"""Head rotations: the one convention of this project, and the conversion from each dataset's convention.

Frame C: x image-right, y up, z toward the viewer. A rotation R maps head coordinates to C, so a head
that looks straight into the camera has R = I. The canonical Euler triplet is that of 300W-LP,

    R = Rx(-pitch) Ry(-yaw) Rz(-roll),

with ordinary right-handed Rx, Ry, Rz: +yaw turns the face toward image-left, +pitch looks up,
+roll tilts the head clockwise in the image. Angles are degrees, in the order yaw, pitch, roll.

Every rotation has two triplets. Where angles are computed from a matrix, the one with the smaller |pitch| + |roll| is
taken; a source that publishes triplets in this order keeps its own. The manifest stores the matrix and the source's
triplet: Euler errors are measured on the triplet, geodesic errors on the matrix.

Sources: Zhu et al., CVPR 2016 (300W-LP, AFLW2000-3D); Fanelli et al., IJCV 2013 (BIWI);
Koestinger et al., ICCVW 2011 (AFLW) and its official tools; Ruiz et al., CVPRW 2018 (the BIWI formula).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import FloatArray

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

Angle = Literal["yaw", "pitch", "roll"]

# Conjugation between frame C and a camera frame with x right, y down, z away from the camera.
_CAMERA_FLIP = np.array([1.0, -1.0, -1.0])


@dataclass(frozen=True)
class Convention:
    """How a source writes a head rotation as three angles.

    R is the product of the three elementary rotations named in `axes`, left to right, each with the angle
    of that axis (X pitch, Y yaw, Z roll) times its sign. `columns` is the order in which the source stores
    them. `frame` is "C", or "camera" for x right, y down, z away from the camera.
    """

    name: str
    columns: tuple[Angle, Angle, Angle]
    unit: Literal["deg", "rad"]
    axes: str
    sign_pitch: int
    sign_yaw: int
    sign_roll: int
    frame: Literal["C", "camera"] = "C"

    @property
    def shares_canonical_order(self) -> bool:
        """True if the canonical triplet is this one with signs and units changed, exact for every angle."""
        return self.axes == "XYZ" and self.frame == "C"


_YPR: tuple[Angle, Angle, Angle] = ("yaw", "pitch", "roll")

CONVENTIONS: dict[str, Convention] = {
    c.name: c
    for c in (
        Convention(name="canonical", columns=_YPR, unit="deg", axes="XYZ", sign_pitch=-1, sign_yaw=-1, sign_roll=-1),
        # 300W-LP and AFLW2000-3D Pose_Para (official RotationMatrix.m).
        Convention(
            name="300wlp",
            columns=("pitch", "yaw", "roll"),
            unit="rad",
            axes="XYZ",
            sign_pitch=-1,
            sign_yaw=-1,
            sign_roll=-1,
        ),
        # BIWI pose.bin: fits the matrix that the labels give to 7e-6 degrees on ten real frames.
        Convention(
            name="biwi_bin",
            columns=("pitch", "yaw", "roll"),
            unit="deg",
            axes="ZYX",
            sign_pitch=1,
            sign_yaw=1,
            sign_roll=1,
            frame="camera",
        ),
        # AFLW FacePose (official CamPoseCalculator.cpp): another order, and roll counter-clockwise.
        Convention(
            name="aflw",
            columns=("roll", "pitch", "yaw"),
            unit="rad",
            axes="YXZ",
            sign_pitch=-1,
            sign_yaw=-1,
            sign_roll=1,
        ),
        # AFLW as most of the literature reads it: the order ignored, the roll negated.
        Convention(
            name="aflw_roll_flip",
            columns=("roll", "pitch", "yaw"),
            unit="rad",
            axes="XYZ",
            sign_pitch=-1,
            sign_yaw=-1,
            sign_roll=1,
        ),
        # UPNA ground truth text; order and signs from a single source, so the builder checks them.
        Convention(
            name="upna",
            columns=("roll", "yaw", "pitch"),
            unit="deg",
            axes="XYZ",
            sign_pitch=1,
            sign_yaw=-1,
            sign_roll=-1,
        ),
        # SynHead csv; yaw opposite to 300W-LP, from a single source, so the builder checks it.
        Convention(
            name="synhead",
            columns=("pitch", "yaw", "roll"),
            unit="deg",
            axes="XYZ",
            sign_pitch=-1,
            sign_yaw=1,
            sign_roll=-1,
        ),
    )
}


def matrix_from_euler(ypr_deg: npt.ArrayLike) -> FloatArray:
    """Return rotation matrices (..., 3, 3) of canonical yaw, pitch, roll (..., 3) in degrees."""
    return matrix_from_angles(ypr_deg, CONVENTIONS["canonical"])


def euler_from_matrix(rotation: npt.ArrayLike) -> FloatArray:
    """Return canonical yaw, pitch, roll (..., 3) in degrees of rotation matrices (..., 3, 3).

    Two triplets describe one rotation: (yaw, pitch, roll) and (180 - yaw, pitch + 180, roll + 180). This returns the
    one with the smaller |pitch| + |roll|, so that yaw lies in [-180, 180] and a head that turns beyond profile keeps
    its pitch and roll. Of two equal sums it returns the triplet with |yaw| <= 90. At |yaw| = 90 only pitch and roll
    together are determined. Applied to F R F of a BIWI matrix it is the formula of Hopenet's BIWI loader.
    """
    r = _as_rotations(rotation)
    pitch = np.degrees(np.arctan2(r[..., 1, 2], r[..., 2, 2]))
    yaw = np.degrees(np.arctan2(-r[..., 0, 2], np.hypot(r[..., 0, 0], r[..., 0, 1])))
    roll = np.degrees(np.arctan2(r[..., 0, 1], r[..., 0, 0]))
    # The other triplet has |pitch| and |roll| of 180 degrees minus these, so the sum decides.
    is_beyond_profile = np.abs(pitch) + np.abs(roll) > 180.0
    half_turn = np.where(is_beyond_profile, 180.0, 0.0)
    yaw = np.where(is_beyond_profile, np.copysign(180.0, yaw) - yaw, yaw)
    ypr: FloatArray = np.stack(
        [yaw, pitch - np.copysign(half_turn, pitch), roll - np.copysign(half_turn, roll)], axis=-1
    )
    return ypr


def matrix_from_angles(angles: npt.ArrayLike, convention: Convention | str) -> FloatArray:
    """Return rotations in frame C (..., 3, 3) of angles (..., 3) in the columns and unit of `convention`."""
    c = _convention(convention)
    pitch, yaw, roll = _split(angles, c)
    elementary = {
        "X": _elementary(c.sign_pitch * pitch, 0),
        "Y": _elementary(c.sign_yaw * yaw, 1),
        "Z": _elementary(c.sign_roll * roll, 2),
    }
    r = elementary[c.axes[0]] @ elementary[c.axes[1]] @ elementary[c.axes[2]]
    return camera_to_canonical(r) if c.frame == "camera" else r


def canonical_from_angles(angles: npt.ArrayLike, convention: Convention | str) -> tuple[FloatArray, FloatArray]:
    """Return (canonical yaw pitch roll in degrees (..., 3), rotation (..., 3, 3)) of a source's angles.

    Where the source shares the canonical order the triplet is the source's own, signs and unit changed and
    nothing else, so that a label of 893 degrees stays 893. Elsewhere it is read off the matrix.
    """
    c = _convention(convention)
    rotation = matrix_from_angles(angles, c)
    if not c.shares_canonical_order:
        return euler_from_matrix(rotation), rotation
    pitch, yaw, roll = (np.degrees(a) for a in _split(angles, c))
    ypr = np.stack([-c.sign_yaw * yaw, -c.sign_pitch * pitch, -c.sign_roll * roll], axis=-1)
    return ypr, rotation


def camera_to_canonical(rotation: npt.ArrayLike) -> FloatArray:
    """Return F R F, F = diag(1, -1, -1): (..., 3, 3) from a camera frame (y down, z away) to frame C, or back."""
    r = _as_rotations(rotation)
    flipped: FloatArray = r * _CAMERA_FLIP[:, None] * _CAMERA_FLIP
    return flipped


def mirror_euler(ypr_deg: npt.ArrayLike) -> FloatArray:
    """Return the canonical triplet (..., 3) of the same head in the horizontally mirrored image."""
    mirrored: FloatArray = _as_angles(ypr_deg) * np.array([-1.0, 1.0, -1.0])
    return mirrored


# Where each of the 68 iBUG landmarks lies in the mirror image of a face.
MIRROR_68: tuple[int, ...] = (
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31,
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
)  # fmt: skip


def mirrored_points68(points: FloatArray, width: float) -> FloatArray:
    """Return the 68 landmarks (..., 68, 2) in the mirror image: x becomes width - x, and partners change places."""
    found: FloatArray = points[..., MIRROR_68, :] * (-1.0, 1.0) + (width, 0.0)
    return found


def geodesic_deg(first: npt.ArrayLike, second: npt.ArrayLike) -> FloatArray:
    """Return the rotation angle (...) in degrees, 0 to 180, between rotations (..., 3, 3).

    Uses the chord |A - B| = sqrt(8) sin(angle / 2), which is exact near 0 where acos of the trace is not,
    and the trace near 180 where the chord is not.
    """
    a, b = _as_rotations(first), _as_rotations(second)
    sine = np.sqrt(np.sum((a - b) ** 2, axis=(-2, -1)) / 8.0)
    cosine_squared = (np.sum(a * b, axis=(-2, -1)) + 1.0) / 4.0
    angle: FloatArray = np.degrees(2.0 * np.arctan2(sine, np.sqrt(np.maximum(cosine_squared, 0.0))))
    return angle


def wrap_deg(angle_deg: npt.ArrayLike) -> FloatArray:
    """Return angles moved by multiples of 360 degrees into [-180, 180)."""
    wrapped = (np.asarray(angle_deg, dtype=np.float64) + 180.0) % 360.0 - 180.0
    return wrapped - 360.0 * (wrapped >= 180.0)  # a hair below -180 rounds up to 180


def quaternion_from_matrix(rotation: npt.ArrayLike) -> FloatArray:
    """Return unit quaternions (..., 4), scalar last (x, y, z, w), w >= 0, of rotations (..., 3, 3).

    Raises:
        UbhpdError: if a matrix is not finite or its determinant is not positive.
    """
    r = _as_rotations(rotation)
    with np.errstate(invalid="ignore"):
        if not np.all(np.isfinite(r)) or not np.all(np.linalg.det(r) > 0.0):
            raise UbhpdError("A matrix is not a rotation (zero, mirrored or not finite): check the r00 to r22 columns.")
    if not r.size:  # SciPy takes no empty arrays before 1.15
        return np.empty((*r.shape[:-2], 4))
    quaternion: FloatArray = _scipy_rotation().from_matrix(r.reshape(-1, 3, 3)).as_quat(canonical=True)
    return quaternion.reshape(*r.shape[:-2], 4)


def matrix_from_quaternion(quaternion_xyzw: npt.ArrayLike) -> FloatArray:
    """Return rotations (..., 3, 3) of quaternions (..., 4), scalar last; they need not be normalised.

    Raises:
        UbhpdError: if a quaternion is zero or not finite, or the shape is another.
    """
    q = np.asarray(quaternion_xyzw, dtype=np.float64)
    if q.shape[-1:] != (4,):
        raise UbhpdError(f"Expected quaternions of shape (..., 4), found shape {q.shape}.")
    norm = np.linalg.norm(q, axis=-1)
    if not np.all(np.isfinite(norm)) or np.any(norm == 0.0):
        raise UbhpdError("A quaternion is zero or not finite, so it is no rotation: check the qx, qy, qz, qw columns.")
    if not q.size:
        return np.empty((*q.shape[:-1], 3, 3))
    matrix: FloatArray = _scipy_rotation().from_quat(q.reshape(-1, 4)).as_matrix()
    return matrix.reshape(*q.shape[:-1], 3, 3)


def orthonormality_error(rotation: npt.ArrayLike) -> FloatArray:
    """Return (...) how far matrices (..., 3, 3) are from a rotation: max |R R^T - I|, or inf if det < 0."""
    r = _as_rotations(rotation)
    error = np.abs(r @ np.swapaxes(r, -1, -2) - np.eye(3)).max(axis=(-2, -1))
    with np.errstate(invalid="ignore"):
        return np.where(np.linalg.det(r) > 0.0, error, np.inf)


def _convention(convention: Convention | str) -> Convention:
    if isinstance(convention, Convention):
        return convention
    try:
        return CONVENTIONS[convention]
    except KeyError:
        known = ", ".join(CONVENTIONS)
        raise UbhpdError(f"Unknown angle convention {convention!r}: use one of {known}.") from None


def _split(angles: npt.ArrayLike, c: Convention) -> tuple[FloatArray, FloatArray, FloatArray]:
    a = _as_angles(angles)
    radians = a if c.unit == "rad" else np.radians(a)
    by_name = {name: radians[..., i] for i, name in enumerate(c.columns)}
    return by_name["pitch"], by_name["yaw"], by_name["roll"]


def _elementary(angle_rad: FloatArray, axis: int) -> FloatArray:
    """Return right-handed rotations (..., 3, 3) about coordinate axis 0, 1 or 2."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    r = np.zeros((*np.shape(angle_rad), 3, 3))
    r[..., axis, axis] = 1.0
    r[..., i, i] = cos
    r[..., j, j] = cos
    r[..., i, j] = -sin
    r[..., j, i] = sin
    return r


def _as_angles(angles: npt.ArrayLike) -> FloatArray:
    a = np.asarray(angles, dtype=np.float64)
    if a.shape[-1:] != (3,):
        raise UbhpdError(f"Expected angles of shape (..., 3), found shape {a.shape}.")
    return a


def _as_rotations(rotation: npt.ArrayLike) -> FloatArray:
    r = np.asarray(rotation, dtype=np.float64)
    if r.shape[-2:] != (3, 3):
        raise UbhpdError(f"Expected rotation matrices of shape (..., 3, 3), found shape {r.shape}.")
    return r


def _scipy_rotation() -> type[Rotation]:
    from scipy.spatial.transform import Rotation  # slow to import, and most commands never need it

    return Rotation
