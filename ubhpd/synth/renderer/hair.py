"""Hair and beards: shells that lie over the skin where there is hair and dip below it where there is none.

What a synthetic person has besides the face: ears, neck, shoulders and glasses.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ubhpd.core.typing import BoolArray, FloatArray
from ubhpd.synth.renderer.persons import Looks, Shape
from ubhpd.synth.renderer.raster import (
    BEARD_ROWS,
    CLOTH_ROWS,
    EAR_UV,
    FRAME_UV,
    HAIR_ROWS,
    Part,
    ball,
    grid_normals,
    rows_uv,
    tube,
)
from ubhpd.synth.renderer.shape import TOP_MM, half_widths, surface, turn_at

_ROWS, _COLUMNS = 46, 73
_BELOW_MM = 4.0  # how deep the shell lies under the skin where there is no hair


class Style(NamedTuple):
    """A way to wear hair: the hairline's height at turns of _TURNS_DEG, thickness, and where it hangs and ends."""

    line_mm: tuple[float, ...]
    top_mm: float
    side_mm: float
    hang_mm: float = -200.0  # below this height hair falls straight
    end_mm: float = -45.0
    lumps_mm: float = 0.0
    part: float = 0.0  # how one-sided it is
    covers_ears: bool = False


_TURNS_DEG = np.array([0.0, 20.0, 38.0, 52.0, 64.0, 72.0, 82.0, 92.0, 106.0, 118.0, 140.0, 180.0])
_CUT = (86.0, 85.0, 80.0, 66.0, 46.0, 20.0, 22.0, 58.0, 50.0, 0.0, -32.0, -38.0)

STYLES: dict[str, Style] = {
    "crop": Style(_CUT, 4.0, 2.5),
    "short": Style(_CUT, 12.0, 5.0),
    "side": Style((80.0, 78.0, 74.0, 62.0, 44.0, 18.0, 22.0, 58.0, 48.0, -4.0, -36.0, -40.0), 18.0, 7.0, part=0.55),
    "receding": Style((100.0, 108.0, 112.0, 96.0, 56.0, 24.0, 24.0, 58.0, 50.0, 0.0, -32.0, -38.0), 5.0, 4.0),
    "fringe": Style((58.0, 57.0, 55.0, 52.0, 34.0, 10.0, 10.0, 20.0, 0.0, -20.0, -45.0, -50.0),
                    12.0, 10.0, 10.0, -58.0, covers_ears=True),
    "bob": Style((88.0, 84.0, 76.0, 56.0, 22.0, -30.0, -62.0, -66.0, -66.0, -66.0, -66.0, -66.0),
                 14.0, 15.0, 22.0, -68.0, part=0.25, covers_ears=True),
    "long": Style((88.0, 84.0, 76.0, 54.0, 16.0, -60.0, -150.0, -158.0, -158.0, -158.0, -158.0, -158.0),
                  12.0, 13.0, 18.0, -160.0, part=0.3, covers_ears=True),
    "curly": Style((80.0, 79.0, 74.0, 60.0, 38.0, 16.0, 14.0, 30.0, 20.0, -10.0, -38.0, -44.0),
                   27.0, 19.0, 0.0, -50.0, 4.5, covers_ears=True),
    "tail": Style(_CUT, 5.0, 4.0),
}  # fmt: skip


def covers_ears(looks: Looks) -> bool:
    """Return whether the hair hides the ears."""
    return looks.hair_style in STYLES and STYLES[looks.hair_style].covers_ears


def hairline(turn: FloatArray, style: Style) -> FloatArray:
    """Return the height (mm) above which there is hair, at turns in radians."""
    line = np.interp(np.degrees(np.abs(turn)), _TURNS_DEG, style.line_mm)
    wisps = 1.6 * np.sin(17.0 * turn + 1.0) + 1.1 * np.sin(41.0 * turn)
    lean: FloatArray = line + wisps + 9.0 * style.part * np.sin(2.0 * turn) * (np.abs(turn) < 1.2)
    return lean


def scalp_line(turn: FloatArray, style: Style) -> FloatArray:
    """Return the height (mm) above which hair grows out of the skin, however far it hangs."""
    return np.maximum(hairline(turn, style), np.interp(np.degrees(np.abs(turn)), _TURNS_DEG, _CUT) - 12.0)


def hair_parts(looks: Looks, shape: Shape, lumps: FloatArray) -> list[Part]:
    """Return the hair of a person: nothing if bald.

    Args:
        looks: the person's.
        shape: the person's; hair follows the head's stretch.
        lumps: (_ROWS, _COLUMNS) or larger, noise about 0 that roughens the surface.
    """
    style = STYLES.get(looks.hair_style)
    if style is None:
        return []
    base, normals, above, full, thin, shade, kept, uv = _shell(looks.hair_style)
    rough = style.lumps_mm * lumps[:_ROWS, :_COLUMNS] + 0.09 * full * lumps[_ROWS : 2 * _ROWS, :_COLUMNS]
    rough[:, -1] = rough[:, 0]
    thick = np.where(above > -3.0, (full + rough) * thin, 0.0) - _BELOW_MM * np.clip(-above / 6.0, 0.0, 1.0)
    points = (base + thick[..., None] * normals) * shape.stretch
    points[..., 1] += shape.forehead * np.clip((base[..., 1] - 60.0) / 60.0, 0.0, 1.0)
    shade = shade * (1.0 + 0.05 * rough / (1.0 + style.lumps_mm))
    parts = [Part(points, uv, shade, is_closed=True, one_sided=style.end_mm > -60.0, shine=0.16, kept=kept)]
    if looks.hair_style == "tail":
        parts.append(ball((0.0, 84.0, -157.0), (31.0, 29.0, 26.0), HAIR_ROWS))
    return parts


class _Shell(NamedTuple):
    """What hair of a style is for all people; each (_ROWS, _COLUMNS) or one less."""

    base: FloatArray  # (..., 3) points of the mean head's skin
    normals: FloatArray  # (..., 3)
    above: FloatArray  # mm above the hairline
    full: FloatArray  # mm of thickness
    thin: FloatArray  # share of it that is there
    shade: FloatArray
    kept: BoolArray
    uv: FloatArray


@lru_cache(maxsize=16)
def _shell(hair_style: str) -> _Shell:
    style = STYLES[hair_style]
    turn = np.linspace(-np.pi, np.pi, _COLUMNS)[None, :]
    turn = turn - 0.25 * np.sin(turn)  # finer in front
    rise = np.linspace(0.0, 1.0, _ROWS)[:, None]
    y = style.end_mm + (TOP_MM - style.end_mm) * np.sin(rise * np.pi / 2) ** 1.15
    y, turn = np.broadcast_arrays(y, turn)
    width, centre, front, back = half_widths(np.maximum(y, style.hang_mm))
    cosine = np.cos(turn)
    base = np.stack([width * np.sin(turn), y, centre + np.where(cosine > 0, front, back) * cosine], axis=-1)
    normals = grid_normals(base, is_closed=True)
    normals[-1] = (0.0, 1.0, 0.0)
    above = y - hairline(turn, style)
    upper = np.clip((y - 40.0) / 70.0, 0.0, 1.0)
    full = style.side_mm + (style.top_mm - style.side_mm) * upper * (1.0 + style.part * np.sin(turn))
    there = np.clip(above / (10.0 + 0.6 * style.top_mm) + 0.25, 0.0, 1.0)
    shade = 0.62 + 0.38 * np.clip(above / 22.0, 0.0, 1.0)
    shade = shade * (0.8 + 0.2 * np.clip((y + 60.0) / 90.0, 0.0, 1.0))
    hidden = above < -7.0
    kept = ~(hidden[:-1, :-1] & hidden[:-1, 1:] & hidden[1:, :-1] & hidden[1:, 1:])
    return _Shell(
        base=base,
        normals=normals,
        above=above,
        full=full,
        thin=np.sqrt(there),
        shade=shade,
        kept=kept,
        uv=rows_uv(_ROWS, _COLUMNS, HAIR_ROWS),
    )


def beard_cover(x: FloatArray, y: FloatArray, beard: str) -> FloatArray:
    """Return how much beard (0 to 1) grows at x and y (mm) of the mean head's front."""
    across = np.abs(x)
    lip = np.exp(-(((y + 24.5) / 5.0) ** 4) - (across / 27.0) ** 6)
    chin = np.exp(-((across / 25.0) ** 6)) / (1.0 + np.exp((y + 57.0) / 1.5))
    edge = np.interp(across, [0.0, 16.0, 26.0, 34.0, 50.0, 62.0, 70.0], [-54.0, -52.0, -30.0, -26.0, -14.0, 6.0, 24.0])
    cheek = 1.0 / (1.0 + np.exp((y - edge) / 2.0))
    around = np.exp(-(((across - 28.0) / 6.0) ** 2) - ((y + 38.0) / 16.0) ** 4)
    none = np.zeros_like(across)
    covers = {"none": none, "moustache": lip, "goatee": np.maximum(chin, np.maximum(lip, around))}
    cover: FloatArray = covers.get(beard, np.maximum(np.maximum(cheek, lip), chin))
    return cover


def beard_part(
    points: FloatArray, xy_mm: tuple[FloatArray, FloatArray], looks: Looks, lumps: FloatArray
) -> Part | None:
    """Return a beard that stands out from the skin, or None; `points` are the head's grid, xy_mm its mean front."""
    if looks.beard not in ("goatee", "full", "moustache"):
        return None
    x, y = xy_mm
    rows = slice(0, int(np.searchsorted(y[:, 0], 34.0)))
    front = np.abs(np.arange(y.shape[1]) - y.shape[1] // 2) < 0.42 * y.shape[1]
    x, y, skin = x[rows][:, front], y[rows][:, front], points[rows][:, front]
    cover = beard_cover(x, y, looks.beard)
    length = {"full": 7.0, "goatee": 5.0, "moustache": 4.0}[looks.beard] * (
        1.0 + 0.5 * np.exp(-(((y + 75) / 18.0) ** 2))
    )
    length = np.where((np.abs(y + 37.0) < 12.0) & (np.abs(x) < 26.0), np.minimum(length, 4.5), length)
    thick = length * cover**1.5 * (1.0 + 0.25 * lumps[: y.shape[0], : y.shape[1]]) - 2.0 * (1.0 - cover)
    hidden = cover < 0.15
    kept = ~(hidden[:-1, :-1] & hidden[:-1, 1:] & hidden[1:, :-1] & hidden[1:, 1:])
    uv = rows_uv(y.shape[0], y.shape[1], BEARD_ROWS)
    shade = 0.72 + 0.2 * cover
    outward = grid_normals(skin, is_closed=False)
    return Part(skin + thick[..., None] * outward, uv, shade, one_sided=True, shine=0.05, kept=kept)


PIVOT_MM = np.array([0.0, -62.0, -68.0])  # about which the head turns on the shoulders

# Height, half width, z of the middle, half depth.
_NECK = np.array(
    [(-150.0, 66.0, -86.0, 60.0), (-128.0, 58.0, -83.0, 56.0), (-100.0, 53.0, -79.0, 52.0), (-70.0, 51.0, -73.0, 49.0),
     (-40.0, 50.0, -66.0, 46.0), (-15.0, 46.0, -56.0, 40.0), (5.0, 38.0, -50.0, 30.0)]
)  # fmt: skip
_TORSO = np.array(
    [(-520.0, 205.0, -90.0, 118.0), (-330.0, 214.0, -90.0, 116.0), (-235.0, 220.0, -90.0, 108.0),
     (-190.0, 212.0, -88.0, 98.0), (-165.0, 188.0, -86.0, 88.0), (-148.0, 146.0, -83.0, 78.0),
     (-136.0, 106.0, -80.0, 71.0), (-126.0, 78.0, -77.0, 66.0), (-117.0, 64.0, -74.0, 63.0),
     (-114.0, 60.0, -74.0, 60.0)]
)  # fmt: skip


def ear_parts(shape: Shape) -> list[Part]:
    """Return the two ears, image-right first."""
    around = np.linspace(0.0, 2 * np.pi, 25)[None, :]  # from the back, over the top, to the front
    ring = np.array([0.02, 0.25, 0.45, 0.58, 0.68, 0.78, 0.88, 0.96, 1.0, 0.96, 0.72])[:, None]
    out = np.array([-5.0, -5.0, -3.5, 0.2, 1.0, -0.6, -0.2, 2.2, 1.2, -1.6, -16.0])[:, None]
    lobe = np.clip(-np.sin(around), 0.0, 1.0)
    height = 31.0 * ring * np.sin(around) * (1.0 + 0.03 * np.cos(around))
    back = 17.0 + ring * np.cos(around) * (17.5 - 7.0 * lobe**2) + 2.5 * np.sin(around) * ring
    relief = out * np.where(ring < 0.9, 1.0 - 0.75 * lobe**2, 1.0) * np.ones_like(around)
    shade = np.interp(ring, [0.0, 0.4, 0.6, 0.78, 0.9, 1.0], [0.5, 0.62, 0.95, 0.72, 0.95, 1.0]) * np.ones_like(around)
    shade[9:] = 0.6
    tilt = 0.34 + shape.ear_out
    x, y, z = surface(1.60, 33.0, shape)
    parts = []
    for side in (1.0, -1.0):
        sideways = np.array([side * np.sin(tilt), 0.0, -np.cos(tilt)])
        outward = np.array([side * np.cos(tilt), 0.0, np.sin(tilt)])
        upward = np.array([0.0, 0.98, -0.2])
        local = back[..., None] * sideways + height[..., None] * upward + relief[..., None] * outward
        points = np.array([side * (x - 1.0), y, z + 2.0]) + 0.9 * shape.ear * local
        order = slice(None) if side < 0 else slice(None, None, -1)  # so that normals point outward on both sides
        uv = np.broadcast_to(np.array(EAR_UV), (*points.shape[:2], 2))
        parts.append(Part(points[:, order], uv, shade[:, order], True, False, 0.08))
    return parts


def neck_part(shape: Shape, uv: tuple[float, float]) -> Part:
    """Return the neck; it takes its colour from one place of the skin's texture."""
    points, y = _stack(_NECK, 10, 33)
    points = points * (shape.stretch[0] * (1.0 + 0.6 * shape.jaw), 1.0, shape.stretch[2])
    body = np.clip((-62.0 - y) / 70.0, 0.0, 1.0)
    under_chin = np.clip((y + 128.0) / 62.0, 0.0, 1.0) * np.clip(points[..., 2] / 60.0 + 1.1, 0.0, 1.0)
    shade = 0.92 - 0.42 * under_chin
    place = np.broadcast_to(np.array(uv), (*y.shape, 2))
    return Part(points, place, shade, is_closed=True, body=body * body * (3.0 - 2.0 * body))


def torso_part() -> Part:
    """Return the shoulders."""
    points, y = _stack(_TORSO, 22, 49)
    uv = rows_uv(y.shape[0], y.shape[1], CLOTH_ROWS)
    shade = 0.78 + 0.22 * np.clip((-112.0 - y) / 30.0, 0.0, 1.0)
    return Part(points, uv, shade, is_closed=True, one_sided=False, body=np.ones(y.shape))


def glasses_parts(looks: Looks, shape: Shape) -> list[Part]:
    """Return the frame of a person's glasses, if any."""
    if looks.glasses == "none":
        return []
    radius = 1.1 if looks.glasses == "thin" else 2.1
    turn = np.linspace(0.0, 2 * np.pi, 33)
    rounded = [np.sign(f) * np.abs(f) ** 0.62 for f in (np.cos(turn), np.sin(turn))]
    x, y = 34.0 + 23.5 * rounded[0], 32.0 + 18.0 * rounded[1]
    bridge = surface(0.0, 34.0, shape)[2] / shape.stretch[2]
    paths = []
    for side in (1.0, -1.0):
        paths.append(np.column_stack([side * x, y, _lens_z(x, bridge)]))
        hinge = np.array([side * 58.0, 41.0, float(_lens_z(np.array(58.0), bridge))])
        ear = surface(side * 1.62, 47.0, shape) / shape.stretch + (side * 4.0, 0.0, 0.0)
        share = np.linspace(0.0, 1.0, 9)[:, None]
        paths.append(hinge + share * (ear - hinge) + side * np.sin(np.pi * share) * (5.0, 0.0, 0.0))
    t = np.linspace(-10.5, 10.5, 9)
    paths.append(np.column_stack([t, 38.0 - 0.02 * t**2, _lens_z(t, bridge) + 1.0]))
    return [tube(path * shape.stretch, radius, FRAME_UV, 0.35) for path in paths]


def _lens_z(x: FloatArray, bridge: float) -> FloatArray:
    z: FloatArray = bridge + 3.5 - 0.0038 * x**2
    return z


def neck_place(shape: Shape) -> tuple[FloatArray, FloatArray]:
    """Return turn and height of the skin that the neck takes its colour from."""
    return turn_at(30.0, -60.0), np.array(-60.0)


def _stack(table: FloatArray, rows: int, columns: int) -> tuple[FloatArray, FloatArray]:
    """Return the points (rows, columns, 3) of stacked ellipses, and their heights (rows, columns)."""
    share = np.linspace(0.0, len(table) - 1.0, rows)
    y, width, centre, depth = (np.interp(share, np.arange(len(table)), column)[:, None] for column in table.T)
    turn = np.linspace(-np.pi, np.pi, columns)[None, :]
    points = np.stack([width * np.sin(turn), y + 0.0 * turn, centre + depth * np.cos(turn)], axis=-1)
    return points, np.broadcast_to(y, points.shape[:2])
