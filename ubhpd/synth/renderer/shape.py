"""The surface of the synthetic head in 3-D.

Head coordinates are millimetres, x image-right when frontal, y up, z toward the viewer. The origin lies
58 mm behind the tip of the nose, as in the templates of BIWI. A point of the surface has two coordinates: its
turn about the vertical axis (0 in front, radians, positive toward image-right) and its height on the mean head.
Every number here is drawn by hand.

The 68, 54 and 21 landmarks of the synthetic head, which lie on its skin (`skin`), and its mesh.

Head coordinates are those of `skin`: millimetres, x image-right when frontal, y up, z toward the viewer. Every number
here is drawn by hand.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.core.rotation import MIRROR_68 as MIRROR_68  # also of this face
from ubhpd.core.typing import BoolArray, FloatArray, IntArray
from ubhpd.synth.renderer.persons import NEUTRAL, Expression, Shape, shape_of
from ubhpd.synth.renderer.raster import grid_normals, grid_triangles

BOTTOM_MM, TOP_MM = -89.0, 135.0

# Height y, half width, z where it is widest, depth in front of that and behind it.
_PROFILE = np.array(
    [
        (-89.0, 1.0, 4.0, 1.0, 1.0),
        (-88.6, 10.0, 4.0, 8.0, 14.0),
        (-87.0, 18.0, 2.0, 15.0, 23.0),
        (-82.0, 28.0, -4.0, 28.0, 32.0),
        (-72.0, 40.0, -12.0, 43.0, 40.0),
        (-58.0, 50.0, -22.0, 56.0, 46.0),
        (-40.0, 58.0, -33.0, 69.0, 56.0),
        (-20.0, 63.5, -42.0, 79.0, 66.0),
        (0.0, 68.0, -48.0, 83.0, 76.0),
        (20.0, 71.5, -52.0, 85.5, 86.0),
        (40.0, 74.0, -54.0, 88.5, 92.0),
        (60.0, 75.5, -55.0, 91.5, 95.0),
        (80.0, 75.0, -55.0, 89.0, 94.0),
        (98.0, 70.5, -54.5, 82.0, 88.0),
        (112.0, 62.5, -54.0, 71.5, 77.0),
        (122.0, 52.5, -53.5, 59.5, 64.0),
        (129.0, 40.5, -53.0, 45.5, 49.0),
        (133.0, 28.0, -52.0, 31.0, 33.0),
        (134.6, 13.0, -52.0, 14.0, 15.0),
        (135.0, 1.0, -52.0, 1.0, 1.0),
    ]
)
# Bumps of the front: x, y, their half widths (mm) and how far they stand out; those beside the middle come twice.
_BUMPS = np.array(
    [
        (28.0, 53.0, 21.0, 7.0, 3.6),  # brow ridge
        (0.0, 51.0, 12.0, 8.0, 1.5),
        (31.0, 37.0, 16.0, 10.0, -8.0),  # eye socket
        (15.0, 36.0, 6.0, 9.0, -4.5),
        (32.0, 34.0, 12.0, 8.0, 6.2),  # eyeball under the lids
        (48.0, 10.0, 14.0, 14.0, 4.0),  # cheekbone
        (44.0, -30.0, 13.0, 16.0, -2.5),
        (21.0, -18.0, 5.0, 9.0, -1.6),  # fold beside the nose
        (0.0, -23.0, 3.6, 6.0, -1.2),  # philtrum
        (0.0, -68.0, 15.0, 9.0, 4.0),  # chin
        (0.0, -53.5, 19.0, 4.5, -3.4),
        (50.0, 72.0, 20.0, 20.0, 1.5),
    ]
)
_RIDGE_Y = np.array([-19.0, -15.0, -11.0, -7.0, -2.0, 3.0, 10.0, 20.0, 30.0, 37.0, 46.0, 60.0])
_RIDGE_Z = np.array([0.0, 2.0, 11.5, 17.5, 20.5, 20.0, 16.5, 11.5, 6.5, 3.5, 1.5, 0.0])


ROWS, COLUMNS = 84, 81  # of the grid of the skin: finer where the features are

_STEPS = np.linspace(-np.pi, np.pi, 721)
_TURNS = _STEPS - 0.62 * np.sin(_STEPS)
_Y = np.linspace(BOTTOM_MM, TOP_MM, 449)
_SPACING_MM = np.interp(_Y, [-70, -56, -20, -15, 2, 8, 50, 70, 100], [3.0, 2.0, 2.0, 1.3, 1.3, 2.0, 2.0, 4.0, 6.0])
_RISE = np.concatenate([[0.0], np.cumsum(1.0 / _SPACING_MM)[:-1]])
_RISE /= _RISE[-1]


class Places(NamedTuple):
    """Points of the mean head's skin, and what of them is the same for all people."""

    x: FloatArray
    y: FloatArray  # of x's shape or less
    z: FloatArray  # without relief
    relief: FloatArray  # share of the relief that shows: none at the back
    bumps: list[tuple[FloatArray, FloatArray]]  # along x and along y, of _BUMPS
    ridge: FloatArray  # of the nose: how far it stands out
    breadth: FloatArray  # of the nose
    cheek: FloatArray  # where a smile lifts it


def turn_share(turn: npt.ArrayLike) -> FloatArray:
    """Return where in the grid, from 0 at its first column to 1 at its last, turns in radians lie."""
    share: FloatArray = (np.interp(np.asarray(turn, dtype=np.float64), _TURNS, _STEPS) + np.pi) / (2 * np.pi)
    return share


def height_share(y: npt.ArrayLike) -> FloatArray:
    """Return where in the grid, from 0 at its lowest row to 1 at its highest, heights in mm lie."""
    return np.asarray(np.interp(np.asarray(y, dtype=np.float64), _Y, _RISE))


def unshared(turn: FloatArray, height: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the turns (radians) and heights (mm) of shares of the grid."""
    return np.interp(turn * 2 * np.pi - np.pi, _STEPS, _TURNS), np.interp(height, _RISE, _Y)


TURN, HEIGHT = unshared(np.linspace(0.0, 1.0, COLUMNS), np.linspace(0.0, 1.0, ROWS))


def half_widths(y: npt.ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return half width, z of the widest place, depth before and behind it (mm) at heights y of the mean head."""
    at = np.asarray(y, dtype=np.float64)
    fine, table = _fine_profile()
    width, centre, front, back = (np.interp(at, fine, column) for column in table.T)
    return width, centre, front, back


def surface(turn: npt.ArrayLike, y: npt.ArrayLike, shape: Shape, expression: Expression = NEUTRAL) -> FloatArray:
    """Return points (..., 3) of a person's skin in millimetres, at turns (radians) and heights (mm)."""
    return _person_at(_places(turn, y), shape, expression)


def grid_surface(shape: Shape, expression: Expression = NEUTRAL) -> FloatArray:
    """Return the points (ROWS, COLUMNS, 3) of the grid of a person's skin in millimetres."""
    return _person_at(_grid_places(), shape, expression)


def turn_at(x: npt.ArrayLike, y: npt.ArrayLike) -> FloatArray:
    """Return the turn (radians) of the front's point at x and y (mm) on the mean head."""
    fine, table = _fine_profile()
    width = np.interp(np.asarray(y, dtype=np.float64), fine, table[:, 0])
    turn: FloatArray = np.arcsin(np.clip(np.asarray(x) / width, -1.0, 1.0))
    return turn


@lru_cache(maxsize=1)
def _fine_profile() -> tuple[FloatArray, FloatArray]:
    """Return the profile at every millimetre, its corners rounded."""
    y = np.arange(BOTTOM_MM, TOP_MM + 0.5, 1.0)
    table = np.stack([np.interp(y, _PROFILE[:, 0], column) for column in _PROFILE[:, 1:].T], axis=1)
    padded = np.pad(table, ((6, 6), (0, 0)), mode="reflect", reflect_type="odd")
    kernel = np.exp(-0.5 * (np.arange(-6, 7) / 2.2) ** 2)
    rounded = np.stack([np.convolve(column, kernel / kernel.sum(), "valid") for column in padded.T], axis=1)
    return y, np.maximum(rounded, np.where(np.arange(4) == 1, -np.inf, 1.0))


def _places(turn: npt.ArrayLike, y: npt.ArrayLike) -> Places:
    t, height = np.asarray(turn, dtype=np.float64), np.asarray(y, dtype=np.float64)
    width, centre, front, back = half_widths(height)
    cosine = np.cos(t)
    x = width * np.sin(t)
    across = np.abs(x)
    return Places(
        x=x,
        y=height,
        z=centre + np.where(cosine > 0, front, back) * cosine,
        relief=np.clip(3.0 * cosine, 0.0, 1.0),
        bumps=[(np.exp(-(((across - b[0]) / b[2]) ** 2)), np.exp(-(((height - b[1]) / b[3]) ** 2))) for b in _BUMPS],
        ridge=np.interp(height, _RIDGE_Y, _RIDGE_Z),
        breadth=np.interp(height, [-16.0, -4.0, 12.0, 38.0], [11.5, 9.5, 7.5, 8.0]),
        cheek=np.exp(-(((across - 34.0) / 12.0) ** 2) - ((height + 12.0) / 14.0) ** 2),
    )


@lru_cache(maxsize=1)
def _grid_places() -> Places:
    return _places(TURN[None, :], HEIGHT[:, None])


def _person_at(places: Places, shape: Shape, expression: Expression) -> FloatArray:
    """Return where (..., 3) a person has places of the mean head."""
    z = places.z + _relief(places, shape, expression) * places.relief
    return _deformed(places.x, np.broadcast_to(places.y, places.x.shape), z, shape, expression)


def _relief(places: Places, shape: Shape, expression: Expression) -> FloatArray:
    """Return how far nose, lips and eye sockets stand out (mm) at points of the front."""
    x, y, across = places.x, places.y, np.abs(places.x)
    breadth = places.breadth * shape.nose_width
    total: FloatArray = places.ridge * shape.nose * np.exp(-((across / breadth) ** 2.4))
    wing = ((across - 12.5 * shape.nose_width) / 5.0) ** 2 + ((y + 8.5) / 5.5) ** 2
    total += 8.5 * shape.nose * np.exp(-wing)
    gains = np.array([shape.ridge, 1, 1, 1, 1, shape.cheek, shape.cheek, 1, 1, shape.chin_relief, 1, 1])
    for (along_x, along_y), height in zip(places.bumps, gains * _BUMPS[:, 4], strict=True):
        total += height * along_x * along_y
    fullness = shape.lips * np.exp(-((x / (19.0 * shape.mouth)) ** 4))
    total += fullness * (4.6 * np.exp(-(((y + 32.8) / 3.6) ** 2)) + 5.4 * np.exp(-(((y + 43.2) / 4.6) ** 2)))
    slit = (2.8 + 5.0 * expression.mouth_open) * np.exp(-((x / (22.0 * shape.mouth)) ** 4))
    total -= slit * np.exp(-(((y + 37.8 + expression.mouth_open) / (1.7 + 1.5 * expression.mouth_open)) ** 2))
    return total + 3.5 * (expression.smile * places.cheek)


def _deformed(x: FloatArray, y: FloatArray, z: FloatArray, shape: Shape, expression: Expression) -> FloatArray:
    """Return points (..., 3) of the mean head moved to where the person has them and the jaw carries them."""
    low = _step((-5.0 - y) / 45.0)
    x = x * (1.0 + shape.jaw * low)
    z = z + shape.jaw_forward * _step((-10.0 - y) / 60.0) * _step((z + 30.0) / 40.0)
    drop = 17.0 * expression.mouth_open * _step((-36.0 - y) / 7.0)
    y = y - shape.chin * _step((-45.0 - y) / 35.0) - drop * (0.35 + 0.65 * _step((z + 50.0) / 70.0))
    z = z - 0.3 * drop
    y = y + shape.forehead * _step((y - 60.0) / 60.0)
    z = z + shape.forehead_slope * _step((y - 55.0) / 60.0) * _step((z + 20.0) / 40.0)
    return np.stack([x, y, z], axis=-1) * shape.stretch


def _step(v: FloatArray) -> FloatArray:
    """Return 0 below 0, 1 above 1 and a smooth way between."""
    t = np.clip(v, 0.0, 1.0)
    smooth: FloatArray = t * t * (3.0 - 2.0 * t)
    return smooth


# The 21 landmark codes of AFLW in its order; "left" is image-left.
CODES_21: tuple[str, ...] = (
    *("LBLC", "LBC", "LBRC", "RBLC", "RBC", "RBRC", "LELC", "LEC", "LERC", "RELC", "REC", "RERC"),
    *("LE", "LN", "NC", "RN", "RE", "MLC", "MC", "MRC", "CC"),
)

EYE_XY = (32.0, 34.0)  # of the middle of the image-right eye


class Mesh(NamedTuple):
    """A closed surface of ROWS x COLUMNS points, row by row from the chin upward."""

    points_mm: FloatArray  # (n, 3)
    normals: FloatArray  # (n, 3)
    triangles: IntArray  # (m, 3) indices, counter-clockwise seen from outside


def head_mesh(subject: int = 0) -> Mesh:
    """Return the surface of a subject's head without hair."""
    points = grid_surface(shape_of(subject))
    normals = grid_normals(points, is_closed=True)
    return Mesh(points.reshape(-1, 3), normals.reshape(-1, 3), grid_triangles(ROWS, COLUMNS))


def front_xy(shape: Shape, expression: Expression = NEUTRAL) -> FloatArray:
    """Return where on the mean head's front the 68 landmarks (68, 2) of a person lie, x and y in millimetres."""
    ridge = np.stack([np.zeros(4), np.linspace(36, -1, 4)], axis=1)
    nostrils = np.stack([np.linspace(-14, 14, 5), [-11, -13.5, -14.5, -13.5, -11]], axis=1)
    brow = _brow(shape, expression)
    eye = _eye(shape, expression)
    other_eye = (eye * (-1, 1))[[3, 2, 1, 0, 5, 4]]
    points = [_jaw(), brow, (brow * (-1, 1))[::-1], ridge, nostrils, eye, other_eye]
    return np.concatenate([*points, _mouth(shape, expression)])


@lru_cache(maxsize=4096)
def landmarks68(subject: int = 0, expression: Expression = NEUTRAL) -> FloatArray:
    """Return the 68 landmarks (68, 3) of a subject in millimetres, iBUG order; subject 0 is the mean person."""
    shape = shape_of(subject)
    x, y = front_xy(shape, expression).T
    return _read_only(surface(turn_at(x, y), y, shape, expression))


@lru_cache(maxsize=4096)
def landmarks21(subject: int = 0, expression: Expression = NEUTRAL) -> FloatArray:
    """Return the 21 landmarks (21, 3) of AFLW in millimetres, order of CODES_21."""
    p = landmarks68(subject, expression)
    nose = p[30] - (0.0, 6.0, 2.0)
    rows = [p[17], p[19], p[21], p[22], p[24], p[26]]
    rows += [p[36], p[36:42].mean(axis=0), p[39], p[42], p[42:48].mean(axis=0), p[45]]
    ears = ear_lobes(subject)
    rows += [ears[0], p[31], nose, p[35], ears[1], p[48], p[[62, 66]].mean(axis=0), p[54], p[8] + (0, 8, 2)]
    return _read_only(np.array(rows))


@lru_cache(maxsize=4096)
def landmarks54(subject: int = 0, expression: Expression = NEUTRAL) -> FloatArray:
    """Return 54 landmarks (54, 3) in millimetres: the 68 without inner lips and six points of the jaw."""
    kept = [i for i in range(60) if i not in (1, 3, 5, 11, 13, 15)]
    return _read_only(landmarks68(subject, expression)[kept])


def ear_lobes(subject: int) -> FloatArray:
    """Return the lower ends (2, 3) of the ears in millimetres, image-left first."""
    lobe = surface(np.array([-1.62, 1.62]), np.array([4.0, 4.0]), shape_of(subject))
    lobe[:, 0] *= 1.06
    return lobe


def visible21(rotation: npt.ArrayLike, subject: int = 0) -> BoolArray:
    """Return which of the 21 landmarks (21,) a viewer in front sees at a rotation (3, 3) in frame C."""
    p = landmarks21(subject)
    _, centre, front, _ = half_widths(p[:, 1])
    outward = np.column_stack([p[:, 0] / 74.0, 0.002 * p[:, 1], (p[:, 2] - centre) / front])
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    visible: BoolArray = (outward @ np.asarray(rotation)[2]) > 0.02
    return visible


@lru_cache(maxsize=1)
def _jaw() -> FloatArray:
    turn = np.linspace(-1.0, 1.0, 17) * np.pi / 2
    y = 30.0 - 111.0 * np.cos(turn) ** 0.8
    x = 0.97 * np.sign(np.sin(turn)) * half_widths(y)[0] * (np.abs(np.sin(turn)) > 1e-9)
    return np.stack([x, y], axis=1)


def _brow(shape: Shape, expression: Expression) -> FloatArray:
    t = np.linspace(0.0, 1.0, 5)
    arch = shape.brow_arch * np.sin(np.pi * (0.15 + 0.75 * t))
    raised = 5.0 * expression.brow_raise * (0.7 + 0.3 * np.sin(np.pi * t))
    return np.stack([(-56 + 43 * t) * shape.eye_gap, 51.0 + shape.brow_height + arch + raised], axis=1)


def _eye(shape: Shape, expression: Expression) -> FloatArray:
    """Return the six points of the image-left eye: outer corner, upper lid, inner corner, lower lid."""
    turn = np.radians([180, 125, 55, 0, -55, -125])
    height = 5.8 * shape.eye_open * np.sin(turn)
    closing = expression.eyes_closed
    height = np.where(height > 0, height * (1 - closing) - 3.2 * closing * (height > 0.1), height)
    tilt = -shape.eye_tilt * np.cos(turn)
    return np.stack([-EYE_XY[0] * shape.eye_gap + 14.5 * np.cos(turn), EYE_XY[1] + height + tilt], axis=1)


def _mouth(shape: Shape, expression: Expression) -> FloatArray:
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


def _read_only(array: FloatArray) -> FloatArray:
    array.setflags(write=False)
    return array
