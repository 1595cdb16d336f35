"""Poses in both of their forms."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ubhpd import rotation

Floats = npt.NDArray[np.float64]


def angles_and_rotations(pose: Floats) -> tuple[Floats, Floats]:
    """Return canonical angles (n, 3) in degrees and rotations (n, 3, 3) of either of them."""
    if pose.ndim == 3:
        return rotation.euler_from_matrix(pose), pose
    return pose, rotation.matrix_from_euler(pose)
