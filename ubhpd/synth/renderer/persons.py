"""Who the synthetic heads are: the shape of a subject's head, its looks, and expressions; all from its number."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Expression(NamedTuple):
    """What a face does: each from 0, not at all, to 1."""

    mouth_open: float = 0.0
    smile: float = 0.0
    brow_raise: float = 0.0
    eyes_closed: float = 0.0
    gaze_x: float = 0.0  # -1 to 1: where the eyes look, toward image-right
    gaze_y: float = 0.0


NEUTRAL = Expression()


class Shape(NamedTuple):
    """How a head differs from the mean one: factors about 1, and millimetres about 0."""

    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)
    jaw: float = 0.0  # share by which the lower face is broader
    jaw_forward: float = 0.0
    chin: float = 0.0  # mm by which it is longer
    chin_relief: float = 1.0
    nose: float = 1.0
    nose_width: float = 1.0
    lips: float = 1.0
    mouth: float = 1.0
    cheek: float = 1.0
    ridge: float = 1.0  # above the eyes
    forehead: float = 0.0
    forehead_slope: float = 0.0
    eye_gap: float = 1.0
    eye_open: float = 1.0
    eye_tilt: float = 0.0
    brow_arch: float = 7.0
    brow_height: float = 1.0
    ear: float = 1.0
    ear_out: float = 0.0  # radians


class Looks(NamedTuple):
    """Colours (BGR, 0 to 255) and what a person has on the head."""

    skin: tuple[float, float, float]
    hair: tuple[float, float, float]
    iris: tuple[float, float, float]
    cloth: tuple[float, float, float]
    hair_style: str
    beard: str
    glasses: str
    brow_mm: float  # thickness
    wrinkles: float
    freckles: float
    make_up: float


HAIR_STYLES = ("bald", "crop", "short", "side", "fringe", "bob", "long", "curly", "tail", "receding")
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
GLASSES = ("none", "thin", "thick")

_SKINS = (
    (172, 200, 240),
    (150, 182, 228),
    (128, 165, 218),
    (105, 145, 200),
    (80, 117, 172),
    (60, 90, 140),
    (46, 68, 108),
)
_HAIRS = (
    (22, 24, 28),
    (28, 38, 52),
    (38, 60, 88),
    (60, 98, 140),
    (100, 160, 200),
    (34, 62, 130),
    (120, 124, 128),
    (205, 208, 210),
)
_HAIR_SHARE = (0.24, 0.22, 0.2, 0.1, 0.09, 0.04, 0.07, 0.04)
_IRISES = ((40, 62, 95), (28, 42, 68), (145, 105, 60), (90, 120, 85), (120, 120, 105))


@lru_cache(maxsize=4096)
def shape_of(subject: int) -> Shape:
    """Return the shape of a subject's head; subject 0 is the mean person."""
    if subject == 0:
        return Shape()
    rng = np.random.default_rng([101, subject])
    n = np.clip(rng.standard_normal(len(Shape._fields)), -2.0, 2.0).tolist()
    broad, tall, deep = rng.uniform((0.93, 0.93, 0.94), (1.07, 1.07, 1.06)).tolist()
    return Shape(
        stretch=(broad, tall, deep),
        jaw=0.05 * n[1],
        jaw_forward=1.6 * n[2],
        chin=2.5 * n[3],
        chin_relief=1.0 + 0.35 * n[4],
        nose=1.0 + 0.10 * n[5],
        nose_width=1.0 + 0.11 * n[6],
        lips=1.0 + 0.28 * n[7],
        mouth=1.0 + 0.06 * n[8],
        cheek=1.0 + 0.45 * n[9],
        ridge=1.0 + 0.45 * n[10],
        forehead=2.5 * n[11],
        forehead_slope=2.5 * n[12],
        eye_gap=1.0 + 0.025 * n[13],
        eye_open=1.0 + 0.10 * n[14],
        eye_tilt=0.9 * n[15],
        brow_arch=6.5 + 2.0 * n[16],
        brow_height=1.0 + 1.2 * n[17],
        ear=1.0 + 0.08 * n[18],
        ear_out=0.10 * n[19],
    )


@lru_cache(maxsize=4096)
def looks_of(subject: int) -> Looks:
    """Return the looks of a subject."""
    rng = np.random.default_rng([103, subject])
    tone = np.array(_SKINS[rng.integers(len(_SKINS))]) * rng.uniform(0.94, 1.05) + rng.normal(0, 3, 3)
    hair = np.array(_HAIRS[rng.choice(len(_HAIRS), p=_HAIR_SHARE)]) * rng.uniform(0.85, 1.2)
    if tone[2] < 150:  # dark skin: dark hair or grey
        hair = np.array(_HAIRS[(0, 0, 1, 6)[rng.integers(4)]]) * rng.uniform(0.8, 1.1)
    beard = BEARDS[rng.choice(len(BEARDS), p=(0.62, 0.14, 0.06, 0.07, 0.11))]
    styles = HAIR_STYLES if beard == "none" else tuple(s for s in HAIR_STYLES if s not in ("fringe", "bob", "tail"))
    iris = _IRISES[rng.integers(2) if tone[2] < 190 else rng.integers(len(_IRISES))]
    cloth = np.clip(rng.uniform(25, 215) + rng.normal(0, 32, 3), 8, 245)
    return Looks(
        skin=_bgr(tone),
        hair=_bgr(hair),
        iris=_bgr(np.array(iris) * rng.uniform(0.8, 1.2)),
        cloth=_bgr(cloth),
        hair_style=styles[rng.integers(len(styles))],
        beard=beard,
        glasses=GLASSES[rng.choice(3, p=(0.76, 0.12, 0.12))],
        brow_mm=float(rng.uniform(2.0, 3.8)),
        wrinkles=float(rng.beta(1.5, 3.0)),
        freckles=float(rng.beta(1.0, 6.0)),
        make_up=float(rng.beta(1.0, 3.0)) if beard == "none" else 0.0,
    )


@lru_cache(maxsize=4096)
def expression_of(subject: int, number: int) -> Expression:
    """Return one of a subject's expressions: mostly mild, sometimes an open mouth, raised brows or closed eyes."""
    rng = np.random.default_rng([113, subject, number])
    opened = rng.uniform(0.15, 1.0) if rng.random() < 0.22 else rng.uniform(0.0, 0.08)
    closed = rng.uniform(0.5, 1.0) if rng.random() < 0.08 else rng.uniform(0.0, 0.2)
    gaze_x, gaze_y = np.clip(rng.normal(0.0, 0.3, 2), -1.0, 1.0).tolist()
    return Expression(opened, float(rng.beta(1.0, 1.6)), float(rng.beta(1.0, 3.0)), closed, gaze_x, gaze_y)


def _bgr(colour: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[float, float, float]:
    blue, green, red = np.clip(colour, 4, 250).tolist()
    return blue, green, red
