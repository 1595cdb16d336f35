"""Landmarks + solvePnP: the pose in which a mean face, seen by an assumed camera, is where the landmarks are.

The camera has its axis through the middle of the image, no distortion, and a focal length of W + H, as the
landmark rows of Ruiz et al. (Hopenet), which the later papers copy; their code is not released. The focal length is
not known for photographs of the web, and the choice alone moves the pitch of a face by degrees: `focal`, `focal_unit`.

The papers' mean face is not released either. Here it is fitted to heads of known pose (`ubhpd weights fit`): the points
X_j, symmetrical, and for each head a scale s and a shift t that make sum |p_j - (s R[:2] X_j + t)|^2 least, p the
landmarks over their spread, R the true rotation. Its axes are thus those of the labels, and no constant rotation
remains between geometric method and labels. Scaled orthography, since 300W-LP and AFLW2000 were labelled with it. The
parameters are `face` (points, 3), in frame C, centred, its root mean square radius 1, and `residual` (1,): the root
mean square of what is left, in shares of a head's spread: 0.065 for AFLW2000, where persons and expressions differ.
Beyond 0.2 landmarks and poses do not belong together, and the fit is refused.

So errors are smaller than the printed ones, 5.92, 11.86 and 8.27 in AFLW2000: of 387 heads of it, by a face fitted to
the other half, 0.95, 3.42 and 1.16; with a third of the perspective (focal=3) 0.78, 1.68, 0.87; by the face of
`networks.landmark_sets`, fitted to nothing, 1.47, 8.79, 1.85. That is no triumph: labels and landmarks of AFLW2000 are
two sides of one fitted 3-D face.

What differs from the papers: the start. ITERATIVE makes one of its own by a linear solution, which may put the head
behind the camera, turned by 180 degrees, and stays there: with OpenCV 4.14 a third of 194 heads of AFLW2000 by 68
points, half of them by twelve. Here SQPNP (Terzakis and Lourakis, ECCV 2020), which looks for the best of all poses,
gives the start and ITERATIVE refines it. Where its own start is in front of the camera, both end in the same pose.

The manifest decides which landmarks `landmarks_pnp` uses: a dataset's own are the row "Landmarks" ("Ground truth
landmarks" in the Hopenet paper); `ubhpd landmarks --from dlib --all` makes those of the row "Dlib (68 points)", and
`--from FILE` any other's.

FAN (Bulat and Tzimiropoulos, ICCV 2017). `fan` and `fan_68` are the same method on FAN's landmarks, which
`ubhpd landmarks --from fan --all` finds (pip install 'ubhpd[fan]'), or on those of a file. A head with other landmarks
gets no pose, and where all heads have others it is an error, so that no other result gets this name. The face may be
fitted to any landmarks. FAN's weights come from a download of its author; they were not at hand, so no result of these
two was measured here.
`landmarks_pnp_12` and `fan` use twelve points: brow ends, eye corners, nose wings, mouth corners. The papers do not say
which twelve are those of their row "FAN (12 points)", so this is a choice of ours.

Two traps of the data. pt2d of 300W-LP is that of the photograph before it was warped: fit with the points of
`ubhpd landmarks --from projected`, or with other heads. And landmarks that follow the visible outline of a
turned face (iBUG's, dlib's) are not the points of the head that a fitted 3-D face has there (AFLW2000's).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

import numpy as np

from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import camera_to_canonical
from ubhpd.core.typing import BoolArray, FloatArray
from ubhpd.nn.inputs import Heads, Parameters
from ubhpd.nn.landmark_sets import mirror_of

TITLE = "Landmarks + solvePnP"
PAPER = (
    "Ruiz, Chong and Rehg, Fine-Grained Head Pose Estimation Without Keypoints, CVPR Workshops 2018 (a baseline there)"
)
CODE = ""
LICENSE = "MIT; a fitted face is under the terms of the heads it was fitted to"
KIND = "geometric"
MODELS = {
    "landmarks_pnp": {},
    "landmarks_pnp_12": {"points": "12"},
    "fan": {"points": "12", "landmarks": "fan"},
    "fan_68": {"landmarks": "fan"},
}
PARAMETERS: dict[str, int] = {}
REPORTED = {"landmarks_pnp": "Landmarks", "fan": "FAN (12 points)"}

Points = Literal["68", "49", "12"]
FocalUnit = Literal["sum", "width", "pixel"]
Landmarks = Literal["any", "fan"]

# Of the 68 of iBUG. 49: without the outline of the jaw and the inner corners of the mouth.
_POINTS: dict[str, tuple[int, ...]] = {
    "68": tuple(range(68)),
    "49": (*range(17, 60), 61, 62, 63, 65, 66, 67),
    "12": (17, 21, 22, 26, 31, 35, 36, 39, 42, 45, 48, 54),
}
MIN_POINTS = 6
_FLIP = np.array([1.0, -1.0, -1.0])  # frame C to the camera's: x right, y down, z away
_MIRROR = np.array([-1.0, 1.0, 1.0])
_ROUNDS = 1000
_SETTLED = 1e-10  # of the radius of the face
_MAX_RESIDUAL = 0.2
_MIN_DEPTH = 1e-3  # least over greatest eigenvalue of what heads say of a point: turns of about 2 degrees


@dataclass(frozen=True)
class Config:
    """Options.

    points: which of the landmarks are used: all "68", the "49" inner ones, or "12" corners. focal: focal length in
    `focal_unit`: "sum", width and height of the image together; its "width"; or "pixel", for a known camera. landmarks:
    "any", or "fan" for those of FAN or of a file alone.
    """

    points: Points = "68"
    focal: float = 1.0
    focal_unit: FocalUnit = "sum"
    landmarks: Landmarks = "any"

    def __post_init__(self) -> None:
        allowed = {"points": Points, "focal_unit": FocalUnit, "landmarks": Landmarks}
        for name, choices in ((n, get_args(kind)) for n, kind in allowed.items()):
            if (found := getattr(self, name)) not in choices:
                raise UbhpdError(f"The {name} of landmarks_pnp cannot be {found!r}: choose from {', '.join(choices)}.")
        if not (isfinite(self.focal) and self.focal > 0):
            raise UbhpdError(f"The focal length of landmarks_pnp cannot be {self.focal}: give a number above 0.")


def fit(config: Config, heads: Heads) -> Parameters:
    """Return `face` (points, 3) and `residual` (1,), see above, of heads with a known pose and six known landmarks.

    Raises:
        UbhpdError: poses are not known, a landmark is not seen in poses that differ, or landmarks and poses do not
            belong together.
    """
    if heads.rotation is None:
        raise UbhpdError("A mean face is fitted to heads whose pose is known: give a manifest with poses.")
    indices = _POINTS[config.points]
    points, known, rows = _spread_out(heads.landmarks68[:, indices] * (1, -1), heads.rotation)
    face = np.zeros((len(indices), 3))
    scale, shift = np.ones(len(points)), np.zeros((len(points), 2))
    for _ in range(_ROUNDS):
        before = face
        face = _mean_face(points, known, rows, scale, shift, indices)
        scale, shift = _placed(face, points, known, rows)
        if np.abs(face - before).max() < _SETTLED:
            break
    left = np.where(known[..., None], points - scale[:, None, None] * _seen(face, rows) - shift[:, None], 0.0)
    residual = np.sqrt((left**2).sum() / known.sum())
    if not residual <= _MAX_RESIDUAL:
        raise UbhpdError(
            f"These landmarks do not lie as the poses say (residual {residual:.2f}, {_MAX_RESIDUAL} at most): give "
            "heads with landmarks of their own image, 300W-LP as built with -O 300wlp.landmarks=projected."
        )
    return {"face": face, "residual": np.array([residual])}


def solve(config: Config, parameters: Parameters, heads: Heads) -> FloatArray:
    """Return rotations in frame C (n, 3, 3), by the landmarks that are known.

    NaN where they are fewer than six or do not determine a pose, or where the size of the image is not known.

    Raises:
        UbhpdError: landmarks have to be FAN's, and those of no head are.
    """
    face = parameters["face"] * _FLIP
    landmarks = heads.landmarks68[:, _POINTS[config.points]]
    if config.landmarks == "fan":
        landmarks = np.where(_are_of_fan(heads)[:, None, None], landmarks, np.nan)
    rotation = np.full((len(landmarks), 3, 3), np.nan)
    for i, (points, (width, height)) in enumerate(zip(landmarks, heads.image_size.tolist(), strict=True)):
        known = np.isfinite(points).all(axis=1)
        if known.sum() < MIN_POINTS or not (isfinite(width) and isfinite(height)):
            continue
        focal = config.focal * {"sum": width + height, "width": width, "pixel": 1.0}[config.focal_unit]
        camera = np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
        rotation[i] = _pose(face[known], points[known], camera)
    return camera_to_canonical(rotation)


def _are_of_fan(heads: Heads) -> BoolArray:
    """Return which heads (n,) have landmarks of FAN, or of a file."""
    kinds = heads.landmarks_kind or [None] * len(heads.sample_id)
    of_fan: BoolArray = np.array([(kind or "").startswith(("fan", "file:")) for kind in kinds], dtype=bool)
    others = np.flatnonzero(np.isfinite(heads.landmarks68).any(axis=(1, 2)) & ~of_fan)
    if len(others) and not of_fan.any():
        first = int(others[0])
        raise UbhpdError(
            f"The landmarks of {heads.sample_id[first]} are not FAN's but {kinds[first] or 'of unknown kind'}: fill "
            "them by ubhpd landmarks --from fan --all, or take landmarks_pnp."
        )
    return of_fan


def _pose(face: FloatArray, points: FloatArray, camera: FloatArray) -> FloatArray:
    """Return R (3, 3) of x = K (R X + t), its t in front of the camera; NaN if there is none."""
    import cv2

    none = np.full((3, 3), np.nan)
    try:
        found, turn, shift = cv2.solvePnP(face, points, camera, None, flags=cv2.SOLVEPNP_SQPNP)
        if not found or not np.isfinite(turn).all():
            return none
        found, turn, shift = cv2.solvePnP(
            face, points, camera, None, turn, shift, useExtrinsicGuess=True, flags=cv2.SOLVEPNP_ITERATIVE
        )
    except cv2.error:  # points on one line or in one place
        return none
    if not found or not np.isfinite(turn).all() or not shift[2, 0] > 0:
        return none
    return np.asarray(cv2.Rodrigues(turn)[0], dtype=np.float64)


def _spread_out(points: FloatArray, rotation: FloatArray) -> tuple[FloatArray, BoolArray, FloatArray]:
    """Return points (n, K, 2) about their mean in shares of their spread, which are known, and upper rows of rotations.

    Of heads with a pose and six known points that are not all in one place.
    """
    known: BoolArray = np.asarray(np.isfinite(points).all(axis=2))
    centred = _centred(points, known)
    spread = np.sqrt((centred**2).sum(axis=(1, 2)) / np.maximum(known.sum(axis=1), 1))
    usable = (known.sum(axis=1) >= MIN_POINTS) & (spread > 0) & np.isfinite(rotation).all(axis=(1, 2))
    return centred[usable] / spread[usable, None, None], known[usable], rotation[usable, :2]


def _mean_face(
    points: FloatArray,
    known: BoolArray,
    rows: FloatArray,
    scale: FloatArray,
    shift: FloatArray,
    indices: tuple[int, ...],
) -> FloatArray:
    """Return the symmetrical points X (K, 3) with the least squares for given scales (n,) and shifts (n, 2).

    Symmetrical, since of each head its mirror image counts too.
    """
    weighted = scale[:, None, None] * rows
    normal = np.einsum("nj,nab->jab", known, np.swapaxes(weighted, 1, 2) @ weighted, optimize=True)
    offset = np.where(known[..., None], points - shift[:, None], 0.0)
    right = (offset @ weighted).sum(axis=0)
    mirrored = list(mirror_of(indices))
    normal = normal + normal[mirrored] * _MIRROR[:, None] * _MIRROR
    right = right + right[mirrored] * _MIRROR
    value = np.linalg.eigvalsh(normal)
    flat = ~(value[:, 0] > _MIN_DEPTH * value[:, 2])
    if flat.any():
        raise UbhpdError(
            f"Landmark {indices[int(flat.argmax())]} is not seen in poses that differ, so its place in the face cannot "
            "be told: give more heads with 68 landmarks."
        )
    face = np.linalg.solve(normal, right[..., None])[..., 0]
    face = face - face.mean(axis=0)
    centred: FloatArray = face / np.sqrt((face**2).sum(axis=1).mean())
    return centred


def _placed(face: FloatArray, points: FloatArray, known: BoolArray, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the scales (n,), none below 0, and shifts (n, 2) with the least squares for a given face."""
    seen = _seen(face, rows)
    own, model = _centred(points, known), _centred(seen, known)
    scale = np.maximum((own * model).sum(axis=(1, 2)) / (model**2).sum(axis=(1, 2)), 0.0)
    off = np.where(known[..., None], points - scale[:, None, None] * seen, 0.0)
    return scale, off.sum(axis=1) / known.sum(axis=1, keepdims=True)


def _seen(face: FloatArray, rows: FloatArray) -> FloatArray:
    """Return R[:2] X (n, K, 2) of a face (K, 3) and the upper rows of rotations (n, 2, 3)."""
    return face @ np.swapaxes(rows, 1, 2)


def _centred(points: FloatArray, known: BoolArray) -> FloatArray:
    """Return points (n, K, 2) about the mean of the known ones, 0 where not known."""
    there = np.where(known[..., None], points, 0.0)
    middle = there.sum(axis=1) / np.maximum(known.sum(axis=1, keepdims=True), 1)
    return np.where(known[..., None], there - middle[:, None], 0.0)
