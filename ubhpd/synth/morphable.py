"""What AFLW2000-3D and 300W-LP share: MATLAB v5 files with the parameters of a fitted 3-D morphable model."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import scipy.io

from ubhpd.synth.heads import Array, Pose, View

Variables = Mapping[str, npt.NDArray[np.generic]]

_HEADER_TEXT = b"MATLAB 5.0 MAT-file, Platform: PCWIN64, Created on: Tue Mar 29 22:50:26 2016"
_MICROMETRES_PER_MM = 1000.0  # the unit of the model, hence scales near 0.001


def mat_bytes(variables: Variables) -> bytes:
    """Return a MATLAB v5 file with every variable compressed by itself, in the order given."""
    file = io.BytesIO()
    scipy.io.savemat(file, dict(variables), do_compression=True)  # type: ignore[arg-type]
    return _HEADER_TEXT.ljust(116) + file.getvalue()[116:]  # scipy writes the time of day there


def model_mat_bytes(rng: np.random.Generator) -> bytes:
    """Return a file as in the folder Code: a mean shape and its triangles, and no label."""
    return mat_bytes(
        {
            "mu_shape": rng.normal(0.0, 4e4, (300, 1)),
            "w": rng.normal(0.0, 1e-2, (300, 10)).astype(np.float32),
            "sigma": np.sort(rng.uniform(1e4, 1e6, (10, 1)))[::-1],
            "tri": rng.integers(1, 101, (3, 150)).astype(np.int32),
        }
    )


def appearance_variables(rng: np.random.Generator) -> dict[str, npt.NDArray[np.generic]]:
    """Return Illum_Para, Color_Para, Tex_Para, Shape_Para and Exp_Para, in that order."""
    tex = np.zeros((199, 1), dtype=np.float32)
    tex[:30] = rng.normal(0.0, 3000.0, (30, 1))
    shape = rng.normal(0.0, 2e5, (199, 1)) * np.exp(-np.arange(199) / 30.0)[:, None]
    illum = np.concatenate([rng.uniform(0.2, 1.1, 6), rng.uniform(-1.0, 1.0, 2), [0.0], [20.0]])
    color = np.concatenate([rng.uniform(0.5, 1.2, 3), rng.uniform(-0.5, 0.3, 3), [1.0]])
    return {
        "Illum_Para": illum[None, :],
        "Color_Para": color[None, :].astype(np.float32),
        "Tex_Para": tex.astype(np.float64),
        "Shape_Para": shape.astype(np.float32).astype(np.float64),
        "Exp_Para": rng.normal(0.0, 0.5, (29, 1)),
    }


def pose_para(pose: Pose, view: View, height_px: int) -> Array:
    """Return Pose_Para (1, 7): pitch, yaw, roll in radians, t3d in pixels with y upward, and the scale."""
    yaw, pitch, roll = np.radians(pose)
    x, y, _ = view.project(np.zeros((1, 3)))[0]
    scale = view.scale_px_per_mm / _MICROMETRES_PER_MM
    return np.array([[pitch, yaw, roll, x, height_px + 1 - y, -60.0, scale]])


def crop_box(points_px: Array, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """Return roi (1, 4): where the picture was cut from a larger photo, which it may leave."""
    side = int(rng.integers(300, 900))
    x, y = (points_px[:2].mean(axis=1) * rng.uniform(-0.8, 1.5, 2)).astype(int)
    return np.array([[x, y, x + side, y + side]], dtype=np.int16)
