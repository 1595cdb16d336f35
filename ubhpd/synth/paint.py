"""How each subject of the synthetic pictures looks: colours, and polygons for eyes, brows, mouth and ears."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.synth.shape import Array, head_mesh, landmarks68


class Paint(NamedTuple):
    """What is drawn of one subject: quads of the mesh, then polygons for eyes, brows, mouth and ears."""

    points_mm: Array  # mesh points, then those of the polygons
    quads: npt.NDArray[np.int64]
    quad_normals: Array
    quad_colours: Array  # BGR
    polygons: tuple[npt.NDArray[np.int64], ...]
    polygon_colours: tuple[tuple[float, float, float], ...]
    polygon_two_sided: tuple[bool, ...]
    skin: Array
    cloth: Array


@lru_cache(maxsize=256)
def paint_of(subject: int) -> Paint:
    """Return the looks of a subject."""
    rng = np.random.default_rng([103, subject])
    skin = np.array([(140, 175, 225), (110, 150, 205), (75, 110, 165), (50, 75, 115)][rng.integers(4)], float)
    hair = np.array(
        [(25, 30, 40), (35, 60, 95), (70, 130, 175), (110, 115, 120), (30, 45, 130)][rng.integers(5)], float
    )
    iris = [(140, 90, 40), (30, 60, 95), (70, 110, 80)][rng.integers(3)]
    cloth = rng.uniform(40, 190) + rng.normal(0, 30, 3)
    mesh = head_mesh(subject)
    middle = mesh.points_mm[mesh.quads].mean(axis=1)
    normals = mesh.normals[mesh.quads].mean(axis=1)
    hairline = rng.uniform(72, 88) - 0.004 * middle[:, 0] ** 2
    is_hair = (middle[:, 1] > hairline) | ((middle[:, 2] < -50) & (middle[:, 1] > rng.uniform(-60, 30)))
    grain = rng.normal(1.0, np.where(is_hair, 0.14, 0.02))[:, None]
    outlines = _feature_outlines(subject, skin, hair, iris)
    first = np.cumsum([len(mesh.points_mm)] + [len(o[0]) for o in outlines])
    return Paint(
        points_mm=np.concatenate([mesh.points_mm] + [o[0] for o in outlines]),
        quads=mesh.quads,
        quad_normals=normals,
        quad_colours=np.where(is_hair[:, None], hair, skin) * grain,
        polygons=tuple(np.arange(a, b) for a, b in pairwise(first)),
        polygon_colours=tuple(o[1] for o in outlines),
        polygon_two_sided=tuple(o[2] for o in outlines),
        skin=skin,
        cloth=cloth,
    )


_Outline = tuple[Array, tuple[float, float, float], bool]  # points, BGR, seen from both sides


def _feature_outlines(subject: int, skin: Array, hair: Array, iris: tuple[float, ...]) -> list[_Outline]:
    """Return the polygons of a face, counter-clockwise seen from in front, those on top last."""
    p = landmarks68(subject)
    lip = skin * (0.68, 0.62, 0.86)
    ahead = np.array([0.0, 0.0, 1.0])
    found: list[tuple[Array, Sequence[float] | Array, bool]] = []
    for side in (-1, 1):
        turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
        ear_x = side * (abs(p[0, 0]) + 3.0 + 5.0 * (1 - np.cos(turn)))
        ear = np.column_stack([ear_x, p[27, 1] - 8 + 26 * np.sin(turn), -52 + 13 * np.cos(turn)])
        found.append((ear, skin * 0.8, True))
    for brow in (p[17:22], p[22:27]):
        up = np.array([0.0, 3.2, 0.0])
        found.append((np.concatenate([brow - up, (brow + up)[::-1]]), hair * 0.6, False))
    for eye in (p[36:42], p[42:48]):
        centre = eye.mean(axis=0)
        found.append((eye[::-1], (225.0, 228.0, 232.0), False))
        found.append((_disc(centre + ahead, 5.6), iris, False))
        found.append((_disc(centre + 2 * ahead, 2.6), (15.0, 15.0, 15.0), False))
    for x in (-8.0, 8.0):
        found.append((_disc(p[33] + (x, 1.0, 0.0), 3.2), skin * 0.4, False))
    found.append((p[48:60][::-1], lip, False))
    found.append((p[60:68][::-1] + ahead, lip * 0.45, False))
    return [(points, (float(c[0]), float(c[1]), float(c[2])), both) for points, c, both in found]


def _disc(centre: Array, radius_mm: float) -> Array:
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    return centre + radius_mm * np.column_stack([np.cos(turn), np.sin(turn), np.zeros(12)])
