"""Eyes, brows, nostrils and mouth, painted on a person's texture where the landmarks of an expression are."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ubhpd.synth.paint import Patch, Texture, bare_texture, put_patches, rounded, stroke, twofold
from ubhpd.synth.persons import Expression, Looks, looks_of, shape_of
from ubhpd.synth.shape import front_xy

Array = npt.NDArray[np.float64]

_WHITE = np.array((214.0, 219.0, 226.0))
_BLACK = np.array((18.0, 16.0, 16.0))
_TURNS = np.linspace(0, 2 * np.pi, 20, endpoint=False)
_CIRCLE = np.column_stack([np.cos(_TURNS), np.sin(_TURNS)])
_NOSTRIL = np.array((2.9, 1.2)) * _CIRCLE


@lru_cache(maxsize=16)
def texture(subject: int, expression: Expression) -> Texture:
    """Return the texture of a subject with an expression."""
    looks, shape = looks_of(subject), shape_of(subject)
    points = front_xy(shape, expression)
    brows = _brow(points[17:22], looks), _brow(points[22:27][::-1], looks)
    other_eye = points[[45, 44, 43, 42, 47, 46]]
    eyes = _eye(points[36:42], -1, looks, expression), _eye(other_eye, 1, looks, expression)
    patches = [twofold(*pair) for sides in (brows, eyes) for pair in zip(*sides, strict=True)]
    holes = tuple(_NOSTRIL + np.array((x * shape.nose_width, -12.4)) for x in (-7.2, 7.2))
    patches.append(Patch(holes, np.array(looks.skin) * 0.22, 0.8, 0.9))
    patches += _mouth(points[48:68], looks, expression)
    painted: Texture = bare_texture(subject).copy()
    put_patches(painted, patches)
    return painted


def _brow(brow: Array, looks: Looks) -> list[Patch]:
    path = rounded(brow, closed=False)
    share = np.linspace(0, 1, len(path))
    width = looks.brow_mm * 2.0 * np.interp(share, [0, 0.35, 0.8, 1], [0.3, 0.85, 1.1, 0.75])
    colour = np.array(looks.hair) * 0.55 + np.array(looks.skin) * 0.08
    low = path + np.array((0.0, -0.4))
    return [stroke(path, width, colour, 0.72, 1.2), stroke(low, width * 0.6, colour * 0.8, 0.5, 0.8)]


def _eye(eye: Array, side: int, looks: Looks, expression: Expression) -> list[Patch]:
    """Return the patches of an eye from outer corner, upper lid, inner corner and lower lid (6, 2) in millimetres."""
    upper, lower = rounded(eye[:4], 6, closed=False), rounded(eye[[0, 5, 4, 3]], 6, closed=False)
    skin = np.array(looks.skin)
    dark = skin * (0.42, 0.40, 0.48)
    shadow = np.array(looks.cloth) * looks.make_up * 0.35 + skin * (0.55, 0.52, 0.62) * (1 - 0.3 * looks.make_up)
    middle = (eye[0] + eye[3]) / 2 + (1.2 * -side + 4.2 * expression.gaze_x, 0.9 + 2.2 * expression.gaze_y)
    discs = ((5.9, np.array(looks.iris) * 0.45), (5.2, np.array(looks.iris)), (2.5, _BLACK))
    lid_shade = np.concatenate([upper, upper[::-1] - (0.0, 2.4)])
    inner = (
        *(Patch((_disc(middle, (0.0, 0.0), radius),), colour, 1.0, 0.5) for radius, colour in discs),
        Patch((_disc(middle, (1.6, 1.9), 1.0),), _WHITE * 1.15, 0.9, 0.3),
        Patch((lid_shade,), _BLACK, 0.35, 1.0),
    )
    lash = np.array(looks.hair) * 0.25 * (1 - 0.6 * looks.make_up)
    crease = upper[2:-2] + np.array((0.0, 3.0 + 1.5 * expression.eyes_closed))
    return [
        stroke(upper + np.array((0.0, 2.6)), 4.0, shadow, 0.22 + 0.35 * looks.make_up, 2.2),
        stroke(lower - (0.0, 1.6), 2.6, dark, 0.16, 1.8),
        Patch((rounded(eye, 6),), _WHITE * (0.82 + 0.18 * skin / 200.0), inner=inner),
        stroke(upper + np.array((0.0, 0.3)), 1.1 + 1.0 * looks.make_up, lash, 0.85, 0.5),
        stroke(lower, 0.6 + 0.4 * looks.make_up, dark * 0.8, 0.5, 0.6),
        stroke(crease, 1.0, dark, 0.5, 0.8),
        Patch((_disc(eye[3], (0.6 * side, 0.0), 1.4),), skin * (0.75, 0.68, 0.95), 0.6, 0.6),
    ]


def _mouth(lips: Array, looks: Looks, expression: Expression) -> list[Patch]:
    """Return the patches of a mouth from the outer (12, 2) and inner (8, 2) outline of its lips in millimetres."""
    outer, inner = lips[:12], lips[12:]
    skin = np.array(looks.skin)
    natural = skin * (0.74, 0.68, 0.90)
    colour = natural + looks.make_up * 0.7 * (np.array((70.0, 50.0, 185.0)) - natural)
    shine = outer[7:12][::-1] + np.array((0.0, 2.6))
    patches = [
        Patch((rounded(outer, 4),), colour, 0.88, 0.9),
        stroke(shine, 2.0, np.minimum(colour * 1.18, 255.0), 0.35, 1.6),
    ]
    if expression.mouth_open > 0.1 or expression.smile > 0.45:
        bottom = inner[1:4] - (0.0, 0.35 + 0.8 * min(expression.mouth_open + 0.5 * expression.smile, 1.0))
        teeth = np.concatenate([inner[1:4] - (0.0, 0.15), bottom[::-1]])
        patches.append(Patch((rounded(inner, 4),), (38.0, 26.0, 62.0), 1.0, 0.5))
        patches.append(Patch((teeth,), (188.0, 205.0, 214.0), 0.9, 0.6))
    else:
        middle = rounded(np.concatenate([outer[:1], inner[1:4], outer[6:7]]), closed=False)
        patches.append(stroke(middle - (0.0, 0.6), 0.9, natural * (0.35, 0.32, 0.45), 0.85, 0.6))
    tips = _disc(outer[0], (-0.5, 0.0), 1.5), _disc(outer[6], (0.5, 0.0), 1.5)
    return [*patches, Patch(tips, natural * 0.5, 0.5, 0.9)]


def _disc(centre: Array, away: tuple[float, float], radius_mm: float) -> Array:
    """Return the outline (20, 2) of a circle that lies a little away from a point."""
    outline: Array = centre + np.asarray(away) + radius_mm * _CIRCLE
    return outline
