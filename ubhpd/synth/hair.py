"""Hair and beards: shells that lie over the skin where there is hair and dip below it where there is none."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.synth.grids import BEARD_ROWS, HAIR_ROWS, Part, ball, grid_normals, rows_uv
from ubhpd.synth.persons import Looks, Shape
from ubhpd.synth.skin import TOP_MM, half_widths

Array = npt.NDArray[np.float64]

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


def hairline(turn: Array, style: Style) -> Array:
    """Return the height (mm) above which there is hair, at turns in radians."""
    line = np.interp(np.degrees(np.abs(turn)), _TURNS_DEG, style.line_mm)
    wisps = 1.6 * np.sin(17.0 * turn + 1.0) + 1.1 * np.sin(41.0 * turn)
    lean: Array = line + wisps + 9.0 * style.part * np.sin(2.0 * turn) * (np.abs(turn) < 1.2)
    return lean


def scalp_line(turn: Array, style: Style) -> Array:
    """Return the height (mm) above which hair grows out of the skin, however far it hangs."""
    return np.maximum(hairline(turn, style), np.interp(np.degrees(np.abs(turn)), _TURNS_DEG, _CUT) - 12.0)


def hair_parts(looks: Looks, shape: Shape, lumps: Array) -> list[Part]:
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

    base: Array  # (..., 3) points of the mean head's skin
    normals: Array  # (..., 3)
    above: Array  # mm above the hairline
    full: Array  # mm of thickness
    thin: Array  # share of it that is there
    shade: Array
    kept: npt.NDArray[np.bool_]
    uv: Array


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
    return _Shell(base, normals, above, full, np.sqrt(there), shade, kept, rows_uv(_ROWS, _COLUMNS, HAIR_ROWS))


def beard_cover(x: Array, y: Array, beard: str) -> Array:
    """Return how much beard (0 to 1) grows at x and y (mm) of the mean head's front."""
    across = np.abs(x)
    lip = np.exp(-(((y + 24.5) / 5.0) ** 4) - (across / 27.0) ** 6)
    chin = np.exp(-((across / 25.0) ** 6)) / (1.0 + np.exp((y + 57.0) / 1.5))
    edge = np.interp(across, [0.0, 16.0, 26.0, 34.0, 50.0, 62.0, 70.0], [-54.0, -52.0, -30.0, -26.0, -14.0, 6.0, 24.0])
    cheek = 1.0 / (1.0 + np.exp((y - edge) / 2.0))
    around = np.exp(-(((across - 28.0) / 6.0) ** 2) - ((y + 38.0) / 16.0) ** 4)
    none = np.zeros_like(across)
    covers = {"none": none, "moustache": lip, "goatee": np.maximum(chin, np.maximum(lip, around))}
    cover: Array = covers.get(beard, np.maximum(np.maximum(cheek, lip), chin))
    return cover


def beard_part(points: Array, xy_mm: tuple[Array, Array], looks: Looks, lumps: Array) -> Part | None:
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
