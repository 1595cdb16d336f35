"""The pose of a head from its landmarks alone: solvePnP with a rough 3-D face, to be held against the label.

The rough face is that of `ubhpd.synth.shape`. Its axes are not quite those of a dataset's own face model, so the
constant rotation between the two is estimated from the heads themselves and taken out (`without_offset`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.rotation import geodesic_deg
from ubhpd.synth.shape import landmarks21, landmarks68

Array = npt.NDArray[np.float64]

MIN_POINTS = 6
FOCAL = 1.5  # of AFLW's own tool: focal length over the picture's width, the picture's centre on the camera's axis
_FAR = 10.0  # without perspective: focal length over the size of the face, which is on the axis

_MIN_HEADS = 50  # to estimate the offset of a kind
_AGREES_DEG = 40.0  # a label farther off says nothing about it
_ROUNDS = 3

_FLIP = np.array([[1.0], [-1.0], [-1.0]])


class Fit(NamedTuple):
    """Rotations (n, 3, 3) to frame C, NaN where no pose was found; distance (n,) of the points over the face's size."""

    rotation: Array
    residual: Array


def fit(points_px: npt.ArrayLike, size_px: npt.ArrayLike | None = None, min_points: int = MIN_POINTS) -> Fit:
    """Return the poses that explain landmarks best.

    Args:
        points_px: (n, 68, 2) or (n, 21, 2) pixels, NaN for an invisible point.
        size_px: width and height (n, 2) of pictures taken with the camera that AFLW assumes; without it the faces
            are taken to be seen from far away, as 300W-LP and AFLW2000 were fitted.
        min_points: visible points below which no pose is given; 6 at least.
    """
    import cv2

    points = np.asarray(points_px, dtype=np.float64)
    face = landmarks68() if points.shape[1] == 68 else landmarks21()
    visible: npt.NDArray[np.bool_] = np.asarray(np.isfinite(points).all(axis=2))
    rotation = np.full((len(points), 3, 3), np.nan)
    residual = np.full(len(points), np.nan)
    sizes = None if size_px is None else np.asarray(size_px, dtype=np.float64)
    for i, seen in enumerate(visible):
        if seen.sum() < max(min_points, MIN_POINTS):
            continue
        own, model = points[i, seen], face[seen]
        extent = float(np.linalg.norm(own.max(axis=0) - own.min(axis=0)))
        centre = own.mean(axis=0) if sizes is None else sizes[i] / 2
        f = _FAR * extent if sizes is None else FOCAL * sizes[i, 0]
        camera = np.array([[f, 0.0, centre[0]], [0.0, f, centre[1]], [0.0, 0.0, 1.0]])
        try:
            found, turn, shift = cv2.solvePnP(model, own, camera, None, flags=cv2.SOLVEPNP_SQPNP)
        except cv2.error:  # points on one line, or in one place, as those of a tiny face nearly are
            continue
        if not found or not extent > 0 or not np.isfinite(turn).all():
            continue
        r = cv2.Rodrigues(turn)[0]
        seen_at = (model @ r.T + shift.T) @ camera.T
        off = seen_at[:, :2] / seen_at[:, 2:] - own
        # The head's own axes are those of frame C already; only the camera's have to be turned.
        rotation[i] = _FLIP * r
        residual[i] = np.sqrt((off**2).sum(axis=1).mean()) / extent
    return Fit(rotation, residual)


def without_offset(fitted: npt.ArrayLike, labels: npt.ArrayLike) -> Array:
    """Return fitted rotations (n, 3, 3) after the constant rotation of the head that leads to the labels.

    It is the mean over the heads where both agree within 40 degrees, found in three rounds; with fewer than 50
    of them the rotations are returned as they are.
    """
    r, label = np.asarray(fitted, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    turned: Array = r
    for _ in range(_ROUNDS):
        near = geodesic_deg(turned, label) <= _AGREES_DEG
        if near.sum() < _MIN_HEADS:
            return r
        u, _, v = np.linalg.svd((np.swapaxes(r[near], 1, 2) @ label[near]).sum(axis=0))
        turned = r @ (u @ np.diag([1.0, 1.0, np.linalg.det(u @ v)]) @ v)
    return turned
