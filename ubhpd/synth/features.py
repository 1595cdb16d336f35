"""Eyes, brows, nostrils and mouth, painted on a person's texture where the landmarks of an expression are."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from ubhpd.synth.face import texture_of_front
from ubhpd.synth.paint import Texture, bare_texture, blend, rounded, stroke
from ubhpd.synth.persons import Expression, Looks, looks_of, shape_of
from ubhpd.synth.shape import front_xy

Array = npt.NDArray[np.float64]

_WHITE = np.array((214.0, 219.0, 226.0))
_BLACK = np.array((18.0, 16.0, 16.0))


@lru_cache(maxsize=16)
def texture(subject: int, expression: Expression) -> Texture:
    """Return the texture of a subject with an expression."""
    looks = looks_of(subject)
    points = front_xy(shape_of(subject), expression)
    painted: Texture = bare_texture(subject).copy()
    for brow in (points[17:22], points[22:27][::-1]):
        _brow(painted, brow, looks)
    for eye, side in ((points[36:42], -1), (points[[45, 44, 43, 42, 47, 46]], 1)):
        _eye(painted, eye, side, looks, expression)
    for x in (-7.2, 7.2):
        turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
        hole = np.column_stack([x * shape_of(subject).nose_width + 2.9 * np.cos(turn), -12.4 + 1.2 * np.sin(turn)])
        blend(painted, texture_of_front(hole), np.array(looks.skin) * 0.22, 0.8, 0.9)
    _mouth(painted, points[48:68], looks, expression)
    return painted


def _brow(painted: Texture, brow: Array, looks: Looks) -> None:
    path = rounded(brow, closed=False)
    share = np.linspace(0, 1, len(path))
    width = looks.brow_mm * 2.0 * np.interp(share, [0, 0.35, 0.8, 1], [0.3, 0.85, 1.1, 0.75])
    colour = np.array(looks.hair) * 0.55 + np.array(looks.skin) * 0.08
    stroke(painted, path, width, colour, 0.72, 1.2)
    stroke(painted, path + np.array((0.0, -0.4)), width * 0.6, colour * 0.8, 0.5, 0.8)


def _eye(painted: Texture, eye: Array, side: int, looks: Looks, expression: Expression) -> None:
    """Paint an eye from outer corner, upper lid, inner corner and lower lid (6, 2) in millimetres."""
    outline = rounded(eye, 6)
    upper, lower = rounded(eye[:4], 6, closed=False), rounded(eye[[0, 5, 4, 3]], 6, closed=False)
    skin = np.array(looks.skin)
    dark = skin * (0.42, 0.40, 0.48)
    shadow = np.array(looks.cloth) * looks.make_up * 0.35 + skin * (0.55, 0.52, 0.62) * (1 - 0.3 * looks.make_up)
    stroke(painted, upper + np.array((0.0, 2.6)), 4.0, shadow, 0.22 + 0.35 * looks.make_up, 2.2)
    stroke(painted, lower - (0.0, 1.6), 2.6, dark, 0.16, 1.8)
    px = texture_of_front(outline)
    low, high = np.floor(px.min(axis=0)).astype(int) - 3, np.ceil(px.max(axis=0)).astype(int) + 4
    place = painted[low[1] : high[1], low[0] : high[0]]
    ball = np.empty_like(place)
    ball[:] = np.clip(_WHITE * (0.82 + 0.18 * skin / 200.0), 0, 255)
    middle = (eye[0] + eye[3]) / 2 + (1.2 * -side + 4.2 * expression.gaze_x, 0.9 + 2.2 * expression.gaze_y)
    for radius, colour in ((5.9, np.array(looks.iris) * 0.45), (5.2, np.array(looks.iris)), (2.5, _BLACK)):
        disc = _disc(middle, radius) - low
        blend(ball, disc, colour, 1.0, 0.5)
    blend(ball, _disc(middle + np.array((1.6, 1.9)), 1.0) - low, _WHITE * 1.15, 0.9, 0.3)
    lid_shade = np.concatenate([texture_of_front(upper), texture_of_front(upper[::-1] - (0.0, 2.4))]) - low
    blend(ball, lid_shade, _BLACK, 0.35, 1.0)
    mask = np.zeros(place.shape[:2], dtype=np.uint8)
    cv2.fillPoly(mask, [np.round((px - low) * 16).astype(np.int32)], (255,), cv2.LINE_AA, 4)
    share = mask[..., None] * np.float32(1 / 255)
    place[:] = place + share * (ball.astype(np.float32) - place)
    lash = np.array(looks.hair) * 0.25 * (1 - 0.6 * looks.make_up)
    stroke(painted, upper + np.array((0.0, 0.3)), 1.1 + 1.0 * looks.make_up, lash, 0.85, 0.5)
    stroke(painted, lower, 0.6 + 0.4 * looks.make_up, dark * 0.8, 0.5, 0.6)
    crease = upper[2:-2] + np.array((0.0, 3.0 + 1.5 * expression.eyes_closed))
    stroke(painted, crease, 1.0, dark, 0.5, 0.8)
    corner = eye[3] + np.array((0.6 * side, 0.0))
    blend(painted, _disc(corner, 1.4), skin * (0.75, 0.68, 0.95), 0.6, 0.6)


def _mouth(painted: Texture, lips: Array, looks: Looks, expression: Expression) -> None:
    """Paint a mouth from the outer (12, 2) and inner (8, 2) outline of its lips in millimetres."""
    outer, inner = lips[:12], lips[12:]
    skin = np.array(looks.skin)
    natural = skin * (0.74, 0.68, 0.90)
    colour = natural + looks.make_up * 0.7 * (np.array((70.0, 50.0, 185.0)) - natural)
    blend(painted, texture_of_front(rounded(outer, 4)), colour, 0.88, 0.9)
    middle = np.concatenate([outer[:1], inner[1:4], outer[6:7]])
    stroke(painted, outer[7:12][::-1] + np.array((0.0, 2.6)), 2.0, np.minimum(colour * 1.18, 255.0), 0.35, 1.6)
    if expression.mouth_open > 0.1 or expression.smile > 0.45:
        gap = rounded(inner, 4)
        blend(painted, texture_of_front(gap), (38.0, 26.0, 62.0), 1.0, 0.5)
        bottom = inner[1:4] - (0.0, 0.35 + 0.8 * min(expression.mouth_open + 0.5 * expression.smile, 1.0))
        teeth = np.concatenate([inner[1:4] - (0.0, 0.15), bottom[::-1]])
        blend(painted, texture_of_front(teeth), (188.0, 205.0, 214.0), 0.9, 0.6)
    else:
        stroke(painted, rounded(middle, closed=False) - (0.0, 0.6), 0.9, natural * (0.35, 0.32, 0.45), 0.85, 0.6)
    for tip, side in ((outer[0], -1.0), (outer[6], 1.0)):
        blend(painted, _disc(tip + np.array((0.5 * side, 0.0)), 1.5), natural * 0.5, 0.5, 0.9)


def _disc(centre: Array, radius_mm: float) -> Array:
    """Return the outline (16, 2) in the texture of a circle on the mean head's front."""
    turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    return texture_of_front(centre + radius_mm * np.column_stack([np.cos(turn), np.sin(turn)]))
