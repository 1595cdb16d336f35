"""The 68, 54 and 21 landmarks of the synthetic head, which lie on its skin (`skin`), and its mesh.

Head coordinates are those of `skin`: millimetres, x image-right when frontal, y up, z toward the viewer. Every number
here is drawn by hand.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.synth.grids import grid_normals, grid_triangles
from ubhpd.synth.persons import NEUTRAL, Expression, Shape, shape_of
from ubhpd.synth.skin import COLUMNS, ROWS, grid_surface, half_widths, surface, turn_at

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

EYE_XY = (32.0, 34.0)  # of the middle of the image-right eye


class Mesh(NamedTuple):
    """A closed surface of ROWS x COLUMNS points, row by row from the chin upward."""

    points_mm: Array  # (n, 3)
    normals: Array  # (n, 3)
    triangles: npt.NDArray[np.int64]  # (m, 3) indices, counter-clockwise seen from outside


def head_mesh(subject: int = 0) -> Mesh:
    """Return the surface of a subject's head without hair."""
    points = grid_surface(shape_of(subject))
    normals = grid_normals(points, is_closed=True)
    return Mesh(points.reshape(-1, 3), normals.reshape(-1, 3), grid_triangles(ROWS, COLUMNS))


def front_xy(shape: Shape, expression: Expression = NEUTRAL) -> Array:
    """Return where on the mean head's front the 68 landmarks (68, 2) of a person lie, x and y in millimetres."""
    ridge = np.stack([np.zeros(4), np.linspace(36, -1, 4)], axis=1)
    nostrils = np.stack([np.linspace(-14, 14, 5), [-11, -13.5, -14.5, -13.5, -11]], axis=1)
    brow = _brow(shape, expression)
    eye = _eye(shape, expression)
    other_eye = (eye * (-1, 1))[[3, 2, 1, 0, 5, 4]]
    points = [_jaw(), brow, (brow * (-1, 1))[::-1], ridge, nostrils, eye, other_eye]
    return np.concatenate([*points, _mouth(shape, expression)])


@lru_cache(maxsize=4096)
def landmarks68(subject: int = 0, expression: Expression = NEUTRAL) -> Array:
    """Return the 68 landmarks (68, 3) of a subject in millimetres, iBUG order; subject 0 is the mean person."""
    shape = shape_of(subject)
    x, y = front_xy(shape, expression).T
    return _read_only(surface(turn_at(x, y), y, shape, expression))


@lru_cache(maxsize=4096)
def landmarks21(subject: int = 0, expression: Expression = NEUTRAL) -> Array:
    """Return the 21 landmarks (21, 3) of AFLW in millimetres, order of CODES_21."""
    p = landmarks68(subject, expression)
    nose = p[30] - (0.0, 6.0, 2.0)
    rows = [p[17], p[19], p[21], p[22], p[24], p[26]]
    rows += [p[36], p[36:42].mean(axis=0), p[39], p[42], p[42:48].mean(axis=0), p[45]]
    ears = ear_lobes(subject)
    rows += [ears[0], p[31], nose, p[35], ears[1], p[48], p[[62, 66]].mean(axis=0), p[54], p[8] + (0, 8, 2)]
    return _read_only(np.array(rows))


@lru_cache(maxsize=4096)
def landmarks54(subject: int = 0, expression: Expression = NEUTRAL) -> Array:
    """Return 54 landmarks (54, 3) in millimetres: the 68 without inner lips and six points of the jaw."""
    kept = [i for i in range(60) if i not in (1, 3, 5, 11, 13, 15)]
    return _read_only(landmarks68(subject, expression)[kept])


def ear_lobes(subject: int) -> Array:
    """Return the lower ends (2, 3) of the ears in millimetres, image-left first."""
    lobe = surface(np.array([-1.62, 1.62]), np.array([4.0, 4.0]), shape_of(subject))
    lobe[:, 0] *= 1.06
    return lobe


def visible21(rotation: npt.ArrayLike, subject: int = 0) -> npt.NDArray[np.bool_]:
    """Return which of the 21 landmarks (21,) a viewer in front sees at a rotation (3, 3) in frame C."""
    p = landmarks21(subject)
    _, centre, front, _ = half_widths(p[:, 1])
    outward = np.column_stack([p[:, 0] / 74.0, 0.002 * p[:, 1], (p[:, 2] - centre) / front])
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    visible: npt.NDArray[np.bool_] = (outward @ np.asarray(rotation)[2]) > 0.02
    return visible


@lru_cache(maxsize=1)
def _jaw() -> Array:
    turn = np.linspace(-1.0, 1.0, 17) * np.pi / 2
    y = 30.0 - 111.0 * np.cos(turn) ** 0.8
    x = 0.97 * np.sign(np.sin(turn)) * half_widths(y)[0] * (np.abs(np.sin(turn)) > 1e-9)
    return np.stack([x, y], axis=1)


def _brow(shape: Shape, expression: Expression) -> Array:
    t = np.linspace(0.0, 1.0, 5)
    arch = shape.brow_arch * np.sin(np.pi * (0.15 + 0.75 * t))
    raised = 5.0 * expression.brow_raise * (0.7 + 0.3 * np.sin(np.pi * t))
    return np.stack([(-56 + 43 * t) * shape.eye_gap, 51.0 + shape.brow_height + arch + raised], axis=1)


def _eye(shape: Shape, expression: Expression) -> Array:
    """Return the six points of the image-left eye: outer corner, upper lid, inner corner, lower lid."""
    turn = np.radians([180, 125, 55, 0, -55, -125])
    height = 5.8 * shape.eye_open * np.sin(turn)
    closing = expression.eyes_closed
    height = np.where(height > 0, height * (1 - closing) - 3.2 * closing * (height > 0.1), height)
    tilt = -shape.eye_tilt * np.cos(turn)
    return np.stack([-EYE_XY[0] * shape.eye_gap + 14.5 * np.cos(turn), EYE_XY[1] + height + tilt], axis=1)


def _mouth(shape: Shape, expression: Expression) -> Array:
    opened, smile = expression.mouth_open, expression.smile
    broad = shape.mouth * (1.0 + 0.17 * smile - 0.10 * opened)
    upper_y = np.array([-37.0, -32.6, -29.6, -31.0, -29.6, -32.6, -37.0])
    upper_y = -37.0 + (upper_y + 37.0) * (0.75 + 0.25 * shape.lips)
    lower_y = -37.5 - np.array([6.2, 9.2, 10.2, 9.2, 6.2]) * (0.7 + 0.3 * shape.lips) - 2.0 * opened
    upper = np.stack([np.linspace(-25, 25, 7), upper_y], axis=1)
    lower = np.stack([np.linspace(17, -17, 5), lower_y], axis=1)
    gap = 0.5 + 2.6 * opened
    inner_x = [-20, -8, 0, 8, 20, 8, 0, -8]
    inner_y = np.array([-37.1, -36.0, -36.5, -36.0, -37.1, -37.5 - gap, -37.9 - gap, -37.5 - gap])
    points = np.concatenate([upper, lower, np.stack([inner_x, inner_y], axis=1)])
    points[:, 1] += 4.0 * smile * (np.abs(points[:, 0]) / 25.0) ** 2
    return points * (broad, 1.0)


def _read_only(array: Array) -> Array:
    array.setflags(write=False)
    return array
