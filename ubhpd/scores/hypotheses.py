"""What may be wrong with a set of predicted angles: each hypothesis is tried, measured and, if it explains, named.

The measure is the mean error of yaw, pitch and roll on the circle, in degrees. A hypothesis is believed if undoing
it lowers that error by a share of its own and by far more than chance (5 standard errors), and the simplest of
those that explain about equally well is taken. Rows are pairs, so nothing here needs ids.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.bins import ANGLES
from ubhpd.metrics.aligned import nearest_rotation
from ubhpd.rotation import Convention, euler_from_matrix, geodesic_deg, matrix_from_angles, matrix_from_euler, wrap_deg

Array = npt.NDArray[np.float64]
SCREENED = 2_000  # heads on which every candidate is tried; the best is measured on all
STANDARD_ERRORS = 5.0
HALF_BIN_DEG = 1.5  # half of Hopenet's 3-degree bins
_PER_CHANGE = 0.03  # a further change must explain at least this share more
_SHARE = {"axes": 0.15, "transposed": 0.15, "euler_order": 0.15, "offset": 0.10, "bin_edge": 0.01, "folded": 0.01}


class Explanation(NamedTuple):
    """One believed hypothesis: its kind, what it says, how to undo it, the error before and after, the angles after."""

    kind: str
    text: str
    fix: str
    before: float
    after: float
    corrected: Array


class _Candidate(NamedTuple):
    kind: str
    text: str
    fix: str
    changes: int
    undo: Callable[[Array], Array]


def mean_error(predicted: Array, true: Array) -> float:
    """Return the mean error on the circle over all angles, degrees."""
    return float(_errors(predicted, true).mean())


def explain(predicted: Array, true: Array) -> list[Explanation]:
    """Return what explains the errors of angles (n, 3) in degrees, each step on top of the one before."""
    found: list[Explanation] = []
    for step in (radians, wrapped, axes_or_order, folded, half_bin, offset):
        explanation = step(predicted, true)
        if explanation is not None:
            found.append(explanation)
            predicted = explanation.corrected
    return found


def radians(predicted: Array, true: Array) -> Explanation | None:
    """Predictions in radians: by their spread alone, so that a wrong order or sign does not hide it."""
    spread, wanted = _spread(predicted), _spread(true)
    if np.abs(predicted).max() > 2 * np.pi + 0.1 or wanted < 3.0 or not 0.3 < np.degrees(spread) / wanted < 3.0:
        return None
    corrected = np.degrees(predicted)
    text = f"predictions are in radians (the largest is {np.abs(predicted).max():.2f})"
    fix = "multiply the predicted angles by 180/pi"
    return Explanation("radians", text, fix, mean_error(predicted, true), mean_error(corrected, true), corrected)


def wrapped(predicted: Array, true: Array) -> Explanation | None:
    """Angles a full turn off, as 350 for -10: free on the circle, dear in the plain MAE."""
    turn = np.abs(predicted - true) - _errors(predicted, true) > 1.0
    if not turn.any():
        return None
    corrected = np.where(turn, true + wrap_deg(predicted - true), predicted)
    before, after = float(np.abs(predicted - true).mean()), float(np.abs(corrected - true).mean())
    text = f"{int(turn.any(axis=1).sum()):,} heads have an angle a full turn off, which the plain MAE counts in full"
    return Explanation("full_turn", text, "bring the angles into -180 to 180 degrees", before, after, corrected)


def axes_or_order(predicted: Array, true: Array) -> Explanation | None:
    """Columns exchanged, signs flipped, a transposed rotation, or another order of the three rotations."""
    some = _some(len(true))
    p, t = predicted[some], true[some]
    best: _Candidate | None = None
    least = mean_error(p, t)
    for candidate in _candidates():
        value = mean_error(candidate.undo(p), t) * (1.0 + _PER_CHANGE * candidate.changes)
        if value < least:
            best, least = candidate, value
    if best is None:
        return None
    return _believed(best.kind, best.text, best.fix, predicted, best.undo(predicted), true)


def folded(predicted: Array, true: Array) -> Explanation | None:
    """Angles 180 degrees off, and otherwise as good as the others: folded by somebody's evaluation code."""
    errors = _errors(predicted, true)
    turned = np.abs(180.0 - errors)
    near, far = errors[errors < 90.0], turned[errors >= 90.0]
    if len(far) < 3 or len(far) < 0.002 * errors.size or np.median(far) > 2.0 * np.median(near) + 1.0:
        return None
    corrected = np.where(errors >= 90.0, true + wrap_deg(predicted + 180.0 - true), predicted)
    text = f"{len(far):,} angles are 180 degrees off (median {np.median(far):.1f} degrees from the opposite)"
    fix = "do not fold angles by 180 degrees; predict the full circle, or leave those heads out by name"
    return _believed("folded", text, fix, predicted, corrected, true)


def half_bin(predicted: Array, true: Array) -> Explanation | None:
    """Every angle 1.5 degrees too low: bins of 3 degrees decoded at their left edge instead of their centre."""
    bias = np.median(wrap_deg(predicted - true), axis=0)
    sign = -1.0 if bias.mean() < 0 else 1.0
    away = np.abs(bias - sign * HALF_BIN_DEG)
    if abs(bias.mean() - sign * HALF_BIN_DEG) > 0.35 or away.max() > 0.9:  # a model has a bias of its own, too
        return None
    where = "left edge" if sign < 0 else "right edge"
    text = f"all three angles are off by {sign * HALF_BIN_DEG:+.1f} degrees: 3-degree bins decoded at their {where}"
    fix = f"add {-sign * HALF_BIN_DEG:+.1f} degrees to every angle, or decode bins at their centres (3 i - 97.5)"
    return _believed("bin_edge", text, fix, predicted, predicted - sign * HALF_BIN_DEG, true)


def offset(predicted: Array, true: Array) -> Explanation | None:
    """A constant rotation between the two frames: of the head (which head is frontal), or of the camera."""
    p, t = matrix_from_euler(predicted), matrix_from_euler(true)
    p_inverse = np.swapaxes(p, 1, 2)
    head = nearest_rotation((p_inverse @ t).sum(axis=0))
    camera = nearest_rotation((t @ p_inverse).sum(axis=0))
    moved = {"head": p @ head, "camera": camera @ p}
    errors = {name: geodesic_deg(m, t) for name, m in moved.items()}
    frame = min(errors, key=lambda name: float(errors[name].mean()))
    before = geodesic_deg(p, t)
    rotation = {"head": head, "camera": camera}[frame]
    if not _certain(before, errors[frame], _SHARE["offset"]):
        return None
    angles = ", ".join(f"{a} {v:+.1f}" for a, v in zip(ANGLES, euler_from_matrix(rotation), strict=True))
    side = "R O" if frame == "head" else "O R"
    text = f"a constant rotation of {float(geodesic_deg(rotation, np.eye(3))):.1f} degrees in the {frame}'s frame"
    fix = f"replace every rotation R by {side}, O being {angles}; or report geodesic_aligned"
    corrected = true + wrap_deg(euler_from_matrix(moved[frame]) - true)
    return Explanation("offset", text, fix, float(before.mean()), float(errors[frame].mean()), corrected)


def _candidates() -> Iterator[_Candidate]:
    """Yield every change of columns, signs, order and side of the rotation, simple ones first."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            if order == (0, 1, 2) and signs == (1.0, 1.0, 1.0):
                continue
            yield _axes(order, signs)
    yield _Candidate("transposed", "rotations are transposed (camera to head instead of head to camera)",
                     "transpose the predicted rotation matrix", 1, _transpose)  # fmt: skip
    for axes in ("XZY", "YXZ", "YZX", "ZXY", "ZYX"):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            yield _order(axes, signs)


def _axes(order: tuple[int, ...], signs: tuple[float, ...]) -> _Candidate:
    moved = order != (0, 1, 2)
    flipped = [ANGLES[j] for j in range(3) if signs[j] < 0]
    said, fixes = [], []
    if moved:
        said.append("the columns yaw,pitch,roll hold " + ",".join(ANGLES[order.index(k)] for k in range(3)))
        fixes.append("rename the columns to " + ",".join(ANGLES[order.index(k)] for k in range(3)))
    if flipped:
        note = " (AFLW counts roll the other way)" if flipped == ["roll"] else ""
        said.append(f"the sign of {' and '.join(flipped)} is flipped{note}")
        fixes.append(f"negate {' and '.join(flipped)}")
    factors = np.array(signs)

    def undo(angles: Array) -> Array:
        moved: Array = angles[:, order] * factors
        return moved

    kind = "column_order" if moved else "sign"
    return _Candidate(kind, ", and ".join(said), ", then ".join(fixes), 2 * moved + len(flipped), undo)


def _order(axes: str, signs: tuple[float, ...]) -> _Candidate:
    """Angles of R = product of the rotations about `axes`, each canonical sign times that of yaw, pitch, roll."""
    yaw, pitch, roll = (-int(s) for s in signs)
    convention = Convention("tried", ANGLES, "deg", axes, pitch, yaw, roll)  # type: ignore[arg-type]
    flipped = [a for a, s in zip(ANGLES, signs, strict=True) if s < 0]
    name = f"Euler order {axes} instead of XYZ" + (f", {' and '.join(flipped)} negated" if flipped else "")
    if axes == "YXZ" and flipped == ["roll"]:
        name = "angles are in AFLW's convention (order YXZ, roll the other way)"

    def undo(angles: Array) -> Array:
        return euler_from_matrix(matrix_from_angles(angles, convention))

    fix = f"rebuild the rotation in the order {axes} and read the angles off it in the order XYZ"
    return _Candidate("euler_order", name, fix, 1 + len(flipped), undo)


def _transpose(angles: Array) -> Array:
    transposed: Array = np.swapaxes(matrix_from_euler(angles), -1, -2)
    return euler_from_matrix(transposed)


def _believed(kind: str, text: str, fix: str, predicted: Array, corrected: Array, true: Array) -> Explanation | None:
    before, after = _errors(predicted, true).mean(axis=1), _errors(corrected, true).mean(axis=1)
    if not _certain(before, after, _SHARE.get(kind, _SHARE["axes"])):
        return None
    return Explanation(kind, text, fix, float(before.mean()), float(after.mean()), corrected)


def _certain(before: Array, after: Array, share: float) -> bool:
    """True if the mean falls by `share` of itself and by 5 standard errors of the paired difference."""
    gain = before - after
    mean = float(gain.mean())
    spread = float(gain.std()) / np.sqrt(len(gain))
    return mean > share * float(before.mean()) and mean > STANDARD_ERRORS * spread


def _errors(predicted: Array, true: Array) -> Array:
    errors: Array = np.abs(wrap_deg(predicted - true))
    return errors


def _spread(angles: Array) -> float:
    return float(np.sqrt(np.mean((angles - np.median(angles, axis=0)) ** 2)))


def _some(n: int) -> npt.NDArray[np.int64]:
    return np.unique(np.linspace(0, n - 1, min(n, SCREENED)).astype(np.int64))
