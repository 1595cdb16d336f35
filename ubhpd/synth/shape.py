"""The synthetic head in 3-D: a surface of stacked ellipses, and landmarks that lie on it.

Head coordinates are millimetres, x image-right when frontal, y up, z toward the viewer. The origin lies
58 mm behind the tip of the nose, as in the templates of BIWI. Every number here is drawn by hand.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Columns of the 68 landmarks of the same face in the mirrored picture (iBUG order).
MIRROR_68: tuple[int, ...] = (
    *range(16, -1, -1),
    *range(26, 16, -1),
    *range(27, 31),
    *range(35, 30, -1),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),
    *(64, 63, 62, 61, 60, 67, 66, 65),
)

# The 21 landmark codes of AFLW in its order; "left" is image-left.
CODES_21: tuple[str, ...] = (
    *("LBLC", "LBC", "LBRC", "RBLC", "RBC", "RBRC", "LELC", "LEC", "LERC", "RELC", "REC", "RERC"),
    *("LE", "LN", "NC", "RN", "RE", "MLC", "MC", "MRC", "CC"),
)

RINGS, SEGMENTS = 36, 48  # of the mesh

# Height y, half width, z of the centre and half depth of the ellipses that the head is stacked from.
_PROFILE = np.array(
    [
        (-90.0, 3.0, 4.0, 2.0),
        (-86.0, 21.0, 0.0, 16.0),
        (-78.0, 34.0, -10.0, 27.0),
        (-62.0, 46.0, -16.0, 42.0),
        (-40.0, 58.0, -26.0, 58.0),
        (-10.0, 67.0, -40.0, 74.0),
        (20.0, 72.0, -50.0, 85.0),
        (50.0, 75.0, -54.0, 90.0),
        (80.0, 74.0, -54.0, 88.0),
        (105.0, 65.0, -53.0, 76.0),
        (122.0, 47.0, -52.0, 55.0),
        (131.0, 26.0, -52.0, 31.0),
        (135.0, 3.0, -52.0, 4.0),
    ]
)


class Mesh(NamedTuple):
    """A closed surface of RINGS x SEGMENTS points, ring by ring from the chin upward."""

    points_mm: Array  # (n, 3)
    normals: Array  # (n, 3)
    quads: npt.NDArray[np.int64]  # (m, 4) indices, counter-clockwise seen from outside


@lru_cache(maxsize=512)
def landmarks68(subject: int = 0) -> Array:
    """Return the 68 landmarks (68, 3) of a subject in millimetres, iBUG order."""
    jaw = np.linspace(-1.0, 1.0, 17) * np.pi / 2
    jaw_y = 30.0 - 112.0 * np.cos(jaw) ** 0.8
    jaw_x = 0.97 * np.sign(np.sin(jaw)) * _ring(jaw_y)[0] * (np.abs(np.sin(jaw)) > 1e-9)
    t = np.linspace(0.0, 1.0, 5)
    brow = np.stack([-57 + 43 * t, 52 + 8 * np.sin(np.pi * (0.15 + 0.75 * t))], axis=1)
    ridge = np.stack([np.zeros(4), np.linspace(36, -1, 4)], axis=1)
    nostrils = np.stack([np.linspace(-15, 15, 5), [-10, -13, -14.5, -13, -10]], axis=1)
    turn = np.radians([180, 125, 55, 0, -55, -125])
    eye = np.stack([-32 + 14 * np.cos(turn), 34 + 5.5 * np.sin(turn)], axis=1)
    right_eye = (eye * (-1, 1))[[3, 2, 1, 0, 5, 4]]
    upper = np.stack([np.linspace(-25, 25, 7), [-37, -32, -29.5, -31, -29.5, -32, -37]], axis=1)
    lower = np.stack([np.linspace(17, -17, 5), [-43.5, -46.5, -47.5, -46.5, -43.5]], axis=1)
    inner = [(-20, -37), (-8, -35.8), (0, -36.3), (8, -35.8), (20, -37), (8, -38.6), (0, -39), (-8, -38.6)]
    jaw_line, right_brow = np.stack([jaw_x, jaw_y], axis=1), (brow * (-1, 1))[::-1]
    xy = np.concatenate([jaw_line, brow, right_brow, ridge, nostrils, eye, right_eye, upper, lower, np.array(inner)])
    points = np.column_stack([xy, _front_z(xy[:, 0], xy[:, 1])])
    return _read_only(points * _stretch(subject))


@lru_cache(maxsize=512)
def landmarks21(subject: int = 0) -> Array:
    """Return the 21 landmarks (21, 3) of AFLW in millimetres, order of CODES_21."""
    p = landmarks68(subject)
    ear = np.array([76.0, 24.0, -48.0]) * _stretch(subject)
    nose = p[30] - (0.0, 6.0, 2.0)
    rows = [p[17], p[19], p[21], p[22], p[24], p[26]]
    rows += [p[36], p[36:42].mean(axis=0), p[39], p[42], p[42:48].mean(axis=0), p[45]]
    rows += [ear * (-1, 1, 1), p[31], nose, p[35], ear, p[48], p[[62, 66]].mean(axis=0), p[54], p[8] + (0, 8, 2)]
    return _read_only(np.array(rows))


@lru_cache(maxsize=512)
def landmarks54(subject: int = 0) -> Array:
    """Return 54 landmarks (54, 3) in millimetres: the 68 without inner lips and six points of the jaw."""
    kept = [i for i in range(60) if i not in (1, 3, 5, 11, 13, 15)]
    return _read_only(landmarks68(subject)[kept])


@lru_cache(maxsize=512)
def head_mesh(subject: int = 0) -> Mesh:
    """Return the surface of a subject's head."""
    heights = -90.0 + 225.0 * (1.0 - np.cos(np.linspace(0.0, np.pi, RINGS))) / 2.0
    width, centre, depth = (v[:, None] for v in _ring(heights))
    turn = np.linspace(0.0, 2.0 * np.pi, SEGMENTS, endpoint=False)[None, :]
    turn = turn - 0.55 * np.sin(turn)  # finer in front, where the nose is
    x, y = width * np.sin(turn), np.broadcast_to(heights[:, None], (RINGS, SEGMENTS))
    z = centre + depth * np.cos(turn)
    z = z + np.where(np.cos(turn) > 0, _relief(x, y), 0.0)
    points = np.stack([x, y, z], axis=-1) * _stretch(subject)
    around = np.roll(points, -1, axis=1) - np.roll(points, 1, axis=1)
    normals = np.cross(around, np.gradient(points, axis=0))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True) + 1e-12
    corner = np.arange(RINGS * SEGMENTS).reshape(RINGS, SEGMENTS)
    beside = np.roll(corner, -1, axis=1)
    quads = np.stack([corner[:-1], beside[:-1], beside[1:], corner[1:]], axis=-1).reshape(-1, 4)
    return Mesh(points.reshape(-1, 3), normals.reshape(-1, 3), quads)


def visible21(rotation: npt.ArrayLike, subject: int = 0) -> npt.NDArray[np.bool_]:
    """Return which of the 21 landmarks (21,) a viewer in front sees at a rotation (3, 3) in frame C."""
    p = landmarks21(subject)
    _, centre, depth = _ring(p[:, 1])
    outward = np.column_stack([p[:, 0] / 74.0, 0.002 * p[:, 1], (p[:, 2] - centre) / depth])
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    visible: npt.NDArray[np.bool_] = (outward @ np.asarray(rotation)[2]) > 0.02
    return visible


def _ring(y: Array) -> tuple[Array, Array, Array]:
    """Return half width, z of the centre and half depth of the ellipse at heights y."""
    at = _PROFILE[:, 0]
    return (
        np.interp(y, at, _PROFILE[:, 1]),
        np.interp(y, at, _PROFILE[:, 2]),
        np.interp(y, at, _PROFILE[:, 3]),
    )


def _front_z(x: Array, y: Array) -> Array:
    width, centre, depth = _ring(y)
    return centre + depth * np.sqrt(np.clip(1.0 - (x / width) ** 2, 0.0, 1.0)) + _relief(x, y)


def _relief(x: Array, y: Array) -> Array:
    """Return how far nose, lips and eye sockets stand out (mm) at points of the front."""
    height = np.interp(y, [-22.0, -14.0, -2.0, 14.0, 40.0, 62.0], [0.0, 13.0, 24.0, 15.0, 5.0, 0.0])
    breadth = np.interp(y, [-14.0, 0.0, 40.0], [13.0, 11.0, 7.0])
    nose = height * np.exp(-((x / breadth) ** 2))
    lips = 5.0 * np.exp(-((x / 22.0) ** 2) - ((y + 38.0) / 11.0) ** 2)
    sockets = 7.0 * np.exp(-(((np.abs(x) - 32.0) / 17.0) ** 2) - ((y - 35.0) / 11.0) ** 2)
    result: Array = nose + lips - sockets
    return result


def _stretch(subject: int) -> Array:
    """Return the factors (3,) by which a subject's head differs from the mean one."""
    if subject == 0:
        return np.ones(3)
    return np.random.default_rng([101, subject]).uniform((0.92, 0.93, 0.94), (1.07, 1.07, 1.06))


def _read_only(array: Array) -> Array:
    array.setflags(write=False)
    return array
