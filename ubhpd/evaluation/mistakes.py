"""Mistakes that predicted head poses may hold, and how to undo each: the steps that hypotheses are made of.

A step maps poses to poses. Some are fixed (a sign, an Euler order), some are fitted to predictions and truth (a
constant rotation, a scale), and some concern rows (another order, a part of the file).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from ubhpd.core.bins import ANGLES
from ubhpd.core.rotation import (
    CONVENTIONS,
    euler_from_matrix,
    geodesic_deg,
    matrix_from_angles,
    matrix_from_euler,
    quaternion_from_matrix,
    wrap_deg,
)
from ubhpd.core.typing import BoolArray, FloatArray, IntArray
from ubhpd.evaluation.scoring import canonical_matrices
from ubhpd.metrics.aligned import nearest_rotation

CAP_DEG = 90.0  # a larger error of a head counts as this in comparisons
LEAST_HEADS = 10
FACTORS = {"radians": 180.0 / np.pi, "90": 90.0, "99": 99.0, "180": 180.0}


class Pose(NamedTuple):
    """Predicted heads: angles (n, 3) in degrees if the file gives angles, else None; rotations (n, 3, 3).

    `row` is the row (n,) of each head in the file, `dataset` the code (n,) of its dataset.
    """

    angles: FloatArray | None
    rotation: FloatArray
    row: IntArray
    dataset: IntArray

    def with_angles(self, angles: FloatArray) -> Pose:
        """Return the same heads with other angles."""
        return self._replace(angles=angles, rotation=np.moveaxis(canonical_matrices(angles), -1, 0))

    def with_rotation(self, rotation: FloatArray) -> Pose:
        """Return the same heads with other rotations; the triplet is then read off the matrix."""
        return self._replace(angles=None, rotation=rotation)

    def triplet(self) -> FloatArray:
        """Return the angles of the file, or those read off the rotations, (n, 3) in degrees."""
        return euler_from_matrix(self.rotation) if self.angles is None else self.angles

    def take(self, rows: IntArray) -> Pose:
        """Return these heads."""
        angles = None if self.angles is None else self.angles[rows]
        return Pose(angles, self.rotation[rows], self.row[rows], self.dataset[rows])


class Truth(NamedTuple):
    """True heads: angles (n, 3) in degrees and rotations (n, 3, 3)."""

    angles: FloatArray
    rotation: FloatArray


class Step(NamedTuple):
    """One mistake and how to undo it: `undo` maps poses to poses, `parameters` counts choices and fitted numbers."""

    kind: str
    text: str
    fix: str
    parameters: int
    undo: Callable[[Pose], Pose]


# A step that is fixed, or one that is fitted to poses and truth; None where it does not apply.
Maker = Callable[[Pose, Truth], Step | None]


def pose_of(angles: FloatArray | None, rotation: FloatArray | None, datasets: IntArray | None = None) -> Pose:
    """Return poses of angles (n, 3) in degrees, or of rotations (n, 3, 3) where the file gives rotations."""
    if rotation is None:
        assert angles is not None
        rotation = matrix_from_euler(angles)
    else:
        angles = None
    n = len(rotation)
    return Pose(angles, rotation, np.arange(n), np.zeros(n, np.int64) if datasets is None else datasets)


def geodesic(pose: Pose, truth: Truth) -> FloatArray:
    """Return the angle (n,) in degrees between prediction and truth, exact to 1e-5 degrees."""
    trace = np.einsum("nij,nij->n", pose.rotation, truth.rotation)
    angle: FloatArray = np.degrees(np.arccos(np.clip((trace - 1.0) / 2.0, -1.0, 1.0)))
    return angle


def mean_error(pose: Pose, true_deg: FloatArray) -> float:
    """Return the mean error of the angles on the circle; of two triplets of a rotation the one nearer to the truth."""
    if pose.angles is not None:
        return float(np.abs(wrap_deg(pose.angles - true_deg)).mean())
    return float(np.abs(wrap_deg(nearer_triplet(pose.triplet(), true_deg) - true_deg)).mean())


def nearer_triplet(angles: FloatArray, true_deg: FloatArray) -> FloatArray:
    """Return for each triplet (n, 3) itself or the other triplet of the same rotation, whichever is nearer to true."""
    other = np.stack([180.0 - angles[:, 0], angles[:, 1] + 180.0, angles[:, 2] + 180.0], axis=1)
    own, turned = (np.abs(wrap_deg(a - true_deg)).sum(axis=1) for a in (angles, other))
    return np.where((turned < own)[:, None], true_deg + wrap_deg(other - true_deg), angles)


# Fixed steps: units, columns, signs, Euler orders, frames, orders of a quaternion.


def _fixed(step: Step) -> Maker:
    def maker(pose: Pose, truth: Truth) -> Step | None:
        return step

    return maker


@lru_cache(maxsize=1)
def units() -> tuple[Maker, ...]:
    """Return the units that angles may have instead of degrees."""
    makers: list[Maker] = [partial(_factor, name=name, factor=factor) for name, factor in FACTORS.items()]
    return (*makers, _free_factor, partial(_classes, bins=66), partial(_classes, bins=120))


def _factor(pose: Pose, truth: Truth, name: str, factor: float) -> Step | None:
    """Angles divided by a constant factor: radians, or normalised to -1 to 1."""
    if pose.angles is None:
        return None if name != "radians" else _radians_before_matrix(pose)
    largest = float(np.abs(pose.angles).max())
    if largest > (2.0 * np.pi + 0.1 if name == "radians" else 2.0):
        return None
    if name == "radians":
        return Step("radians", f"predictions are in radians (the largest is {largest:.2f})",
                    "multiply the predicted angles by 180/pi", 1, partial(_scaled, factor=factor))  # fmt: skip
    text = f"predictions are angles divided by {name} (the largest is {largest:.2f})"
    return Step("scale", text, f"multiply the predicted angles by {name}", 1, partial(_scaled, factor=factor))


def _radians_before_matrix(pose: Pose) -> Step | None:
    """Rotations built from angles in radians that were taken for degrees: all of them next to the identity."""
    if np.abs(pose.triplet()).max() > 2.0 * np.pi + 0.1:
        return None
    text = "the rotations are built from angles in radians as if they were degrees"
    fix = "convert the angles to degrees before building the rotation"
    return Step("radians", text, fix, 1, lambda p: p.with_angles(p.triplet() * FACTORS["radians"]))


def _scaled(pose: Pose, factor: float) -> Pose:
    return pose.with_angles(pose.triplet() * factor)


def _free_factor(pose: Pose, truth: Truth) -> Step | None:
    """A constant factor of its own, for outputs that are too small to be degrees."""
    if pose.angles is None or np.abs(pose.angles).max() > 2.0:
        return None
    bounds = _factors(pose.angles, truth)
    factor = 0.0 if bounds is None else float(np.sqrt(bounds[0] * bounds[1]))
    near = min(abs(np.log(max(factor, 1e-9) / named)) for named in FACTORS.values())
    if not 3.0 < factor < 1000.0 or near < 0.18:  # one of the usual factors, and a model that tends to the mean
        return None
    text = f"predictions are angles divided by about {factor:.3g} (the largest is {np.abs(pose.angles).max():.2f})"
    return Step("scale", text, f"multiply the predicted angles by {factor:.3g}", 2, partial(_scaled, factor=factor))


def _classes(pose: Pose, truth: Truth, bins: int) -> Step | None:
    """Class indices of Hopenet's 66 bins of 3 degrees, or WHENet's 120 bins of yaw, in place of degrees."""
    if pose.angles is None or pose.angles.min() < -1.0 or pose.angles.max() > bins or np.abs(pose.angles).max() < 3.0:
        return None
    shift = np.array([99.0, 99.0, 99.0]) if bins == 66 else np.array([180.0, 99.0, 99.0])
    text = f"predictions are class indices of 3-degree bins (0 to {bins - 1}), not degrees"
    fix = "decode the bins: angle = 3 index - 99" + ("" if bins == 66 else ", and 3 index - 180 for yaw")
    return Step("class_index", text, fix, 1, lambda p: p.with_angles(3.0 * p.triplet() - shift))


@lru_cache(maxsize=1)
def axes() -> tuple[Maker, ...]:
    """Return every exchange of columns and flip of signs."""
    return tuple(
        _fixed(_axes(order, signs))
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1.0, -1.0), repeat=3)
        if (order, signs) != ((0, 1, 2), (1.0, 1.0, 1.0))
    )


@lru_cache(maxsize=1)
def signs() -> frozenset[Maker]:
    """Return the flips of signs among `axes`."""
    return frozenset(axes()[:7])


def _axes(order: tuple[int, ...], signs: tuple[float, ...]) -> Step:
    moved = order != (0, 1, 2)
    flipped = [ANGLES[j] for j in range(3) if signs[j] < 0]
    texts, fixes = [], []
    if moved:
        columns = ",".join(ANGLES[order.index(k)] for k in range(3))
        texts.append(f"the columns yaw,pitch,roll hold {columns}")
        fixes.append(f"rename the columns to {columns}")
    if flipped:
        note = {
            ("roll",): " (AFLW counts roll the other way)",
            ("yaw", "roll"): " (as for mirrored images, or a camera frame with y down and z away)",
        }.get(tuple(flipped), "")
        texts.append(f"the sign of {' and '.join(flipped)} is flipped{note}")
        fixes.append(f"negate {' and '.join(flipped)}")
    factors = np.array(signs)
    kind = "column_order" if moved else "sign"

    def undo(pose: Pose) -> Pose:
        angles = pose.triplet()[:, order] * factors
        return (
            pose.with_angles(angles)
            if pose.angles is not None
            else pose.with_rotation(pose.with_angles(angles).rotation)
        )

    return Step(kind, ", and ".join(texts), ", then ".join(fixes), moved + bool(flipped), undo)


@lru_cache(maxsize=1)
def orders() -> tuple[Maker, ...]:
    """Return every other order of the three rotations."""
    return tuple(_fixed(_order(letters)) for letters in ("XZY", "YXZ", "YZX", "ZXY", "ZYX"))


def _order(letters: str) -> Step:
    """Angles of R = product of the rotations about `letters`, with the canonical signs."""
    convention = replace(CONVENTIONS["canonical"], axes=letters)
    text = f"Euler order {letters} instead of XYZ"
    fix = f"rebuild the rotation in the order {letters} and read the angles off it in the order XYZ"

    def undo(pose: Pose) -> Pose:
        return pose.with_rotation(matrix_from_angles(pose.triplet(), convention))

    return Step("euler_order", text, fix, 1, undo)


def transposed(pose: Pose, truth: Truth) -> Step | None:
    """The inverse rotation: camera to head instead of head to camera."""
    return Step(
        "transposed",
        "rotations are transposed (camera to head instead of head to camera)",
        "transpose the predicted rotation matrix",
        1,
        lambda p: p.with_rotation(np.swapaxes(p.rotation, 1, 2)),
    )


@lru_cache(maxsize=1)
def frames() -> tuple[Maker, ...]:
    """Return the turns of the head's or the camera's frame by multiples of 90 degrees."""
    makers = []
    for axis, degrees in itertools.product("xyz", (180, 90, -90)):
        vector = np.eye(3)["xyz".index(axis)] * np.radians(degrees) / 2.0
        turn = _matrix(np.array([[*np.sin(vector), np.cos(np.radians(degrees) / 2.0)]]))[0]
        for side in ("head", "camera"):
            text = f"the {side}'s frame is turned by {degrees} degrees about its {axis} axis"
            where = "R T" if side == "head" else "T R"
            fix = f"replace every rotation R by {where}, T being the turn by {-degrees} degrees about {axis}"
            makers.append(_fixed(Step("frame", text, fix, 1, partial(_turned, turn=turn.T, side=side))))
    return tuple(makers)


def _turned(pose: Pose, turn: FloatArray, side: str) -> Pose:
    return pose.with_rotation(pose.rotation @ turn if side == "head" else turn @ pose.rotation)


@lru_cache(maxsize=1)
def quaternion_orders() -> tuple[Maker, ...]:
    """Return the other orders of the four numbers of a quaternion, each plain and conjugated."""
    makers = []
    for order in itertools.permutations(range(4)):
        for conjugate in (False, True):
            if order != (0, 1, 2, 3):
                makers.append(_fixed(_quaternion_order(order, conjugate)))
    return tuple(makers)


def _quaternion_order(order: tuple[int, ...], conjugate: bool) -> Step:
    held = ",".join("xyzw"[order.index(k)] for k in range(4))
    first = " (scalar first)" if held == "w,x,y,z" else ""
    text = f"the columns qx,qy,qz,qw hold {held}{first}" + (", and the vector part is negated" if conjugate else "")
    fix = f"write the quaternion as x,y,z,w: the columns hold {held}" + (", and negate x, y, z" if conjugate else "")
    signs = np.array([-1.0, -1.0, -1.0, 1.0]) if conjugate else np.ones(4)

    def undo(pose: Pose) -> Pose:
        quaternion = quaternion_from_matrix(pose.rotation)[:, order] * signs
        return pose.with_rotation(_matrix(quaternion))

    return Step("quaternion_order", text, fix, 1 + conjugate, undo)


def _matrix(q: FloatArray) -> FloatArray:
    """Return rotations (n, 3, 3) of unit quaternions (n, 4), scalar last."""
    x, y, z, w = q.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


# Fitted steps: a constant rotation, one for each dataset, a scale.


def fitted_offset(pose: Pose, truth: Truth, side: str) -> Step | None:
    """A constant rotation of the head's frame (which head is frontal) or of the camera's."""
    turn = _offset(pose.rotation, truth.rotation, side)
    angles = ", ".join(f"{a} {v:+.1f}" for a, v in zip(ANGLES, euler_from_matrix(turn), strict=True))
    where = "R O" if side == "head" else "O R"
    text = f"a constant rotation of {float(geodesic_deg(turn, np.eye(3))):.1f} degrees in the {side}'s frame"
    fix = f"replace every rotation R by {where}, O being {angles}; or report geodesic_aligned"
    return Step("offset", text, fix, 3, partial(_turned, turn=turn, side=side))


def _offset(p: FloatArray, t: FloatArray, side: str) -> FloatArray:
    product = np.einsum("nji,njk->ik", p, t) if side == "head" else np.einsum("nij,nkj->ik", t, p)
    return nearest_rotation(product)


def offset_by_dataset(pose: Pose, truth: Truth) -> Step | None:
    """A constant rotation of the head's frame that differs from dataset to dataset."""
    codes = [int(c) for c in np.unique(pose.dataset) if (pose.dataset == c).sum() >= LEAST_HEADS]
    if len(codes) < 2:
        return None
    turns = {c: _offset(pose.rotation[pose.dataset == c], truth.rotation[pose.dataset == c], "head") for c in codes}
    sizes = ", ".join(f"{float(geodesic_deg(t, np.eye(3))):.1f}" for t in turns.values())

    def undo(p: Pose) -> Pose:
        rotation = p.rotation.copy()
        for code, turn in turns.items():
            rotation[p.dataset == code] = rotation[p.dataset == code] @ turn
        return p.with_rotation(rotation)

    text = f"each of the {len(codes)} datasets has a constant rotation of its own (of {sizes} degrees)"
    fix = "convert the labels of all datasets to one frame, or report geodesic_aligned for each dataset"
    return Step("offset_by_dataset", text, fix, 3 * len(codes), undo)


def fitted_scale(pose: Pose, truth: Truth) -> Step | None:
    """All angles too large or too small by one factor."""
    if pose.angles is None:
        return None
    if (bounds := _factors(pose.angles, truth)) is None:
        return None
    low, high = np.log(bounds)
    shift = low if low > 0.0 else min(high, 0.0)  # what both agree on
    if abs(shift) < 0.04 or abs(shift) > np.log(2.0):
        return None
    factor = float(np.sqrt(bounds[0] * bounds[1]))
    text = f"all angles are {'smaller' if factor > 1 else 'larger'} than they should be: scaled by {1 / factor:.3g}"
    return Step("scale", text, f"multiply the predicted angles by {factor:.3g}", 1, partial(_scaled, factor=factor))


def _factors(angles: FloatArray, truth: Truth) -> tuple[float, float] | None:
    """Return a lower and an upper bound of the factor between predicted and true angles, None if there is none.

    The regression of truth on prediction gives too small a factor where predictions are noisy, and the inverse of
    that of prediction on truth too large a one where a model tends to the mean.
    """
    keep = np.abs(truth.angles).max(axis=1) < 170.0
    first = _slope(angles[keep], truth.angles[keep])
    second = _slope(truth.angles[keep], angles[keep])
    if first is None or second is None:
        return None
    low, high = sorted((first, 1.0 / second))
    return low, high


def _slope(x: FloatArray, y: FloatArray) -> float | None:
    """Return the slope of y on x through zero by least squares, outliers left out once; None unless positive."""
    factor = 0.0
    for _ in range(2):
        square = float((x * x).sum())
        if square == 0.0:
            return None
        factor = float((x * y).sum()) / square
        rest = np.abs(y - factor * x).sum(axis=1)
        near = rest <= 3.0 * np.median(rest)
        x, y = x[near], y[near]
    return factor if factor > 0.0 else None


# Steps that concern rows.


def part(pose: Pose, truth: Truth, maker: Maker, last: bool) -> Step | None:
    """Another step that holds for the first or the last rows only."""
    step = maker(pose, truth)
    if step is None:
        return None
    gain = np.minimum(geodesic(pose, truth), CAP_DEG) - np.minimum(geodesic(step.undo(pose), truth), CAP_DEG)
    total = np.cumsum(gain[::-1])[::-1] if last else np.cumsum(gain)
    cut = int(pose.row[int(np.argmax(total))])
    where = f"from row {cut + 1:,} on" if last else f"up to row {cut + 1:,}"
    return Step("part_of_rows", f"{where}, {step.text}", f"{where}, {step.fix}", 1 + step.parameters,
                partial(_in_part, step=step, cut=cut, last=last))  # fmt: skip


def _in_part(pose: Pose, step: Step, cut: int, last: bool) -> Pose:
    return _where(pose.row >= cut if last else pose.row <= cut, step.undo(pose), pose)


def of_datasets(pose: Pose, truth: Truth, maker: Maker, chosen: tuple[int, ...]) -> Step | None:
    """Another step that holds for the heads of some datasets only."""
    step = maker(pose, truth)
    if step is None:
        return None
    first = int(pose.row[np.isin(pose.dataset, chosen)][0]) + 1
    where = f"for the heads of {len(chosen)} of {len(np.unique(pose.dataset))} datasets (first in row {first:,})"
    return Step("part_of_rows", f"{where}, {step.text}", f"{where}, {step.fix}", len(chosen) + step.parameters,
                lambda p: _where(np.isin(p.dataset, chosen), step.undo(p), p))  # fmt: skip


def _where(mask: BoolArray, first: Pose, second: Pose) -> Pose:
    rotation = np.where(mask[:, None, None], first.rotation, second.rotation)
    if first.angles is None or second.angles is None:
        return second.with_rotation(rotation)
    return second._replace(angles=np.where(mask[:, None], first.angles, second.angles), rotation=rotation)


@lru_cache(maxsize=1)
def lags() -> tuple[Maker, ...]:
    """Return shifts of all predictions by a few rows."""
    return tuple(partial(_lag, lag=lag) for size in (1, 2, 3, 4, 5) for lag in (size, -size))


def _lag(pose: Pose, truth: Truth, lag: int) -> Step | None:
    rows = np.roll(np.arange(len(pose.row)), lag)
    text = f"predictions stand {abs(lag)} row{'s' * (abs(lag) > 1)} too {'early' if lag > 0 else 'late'}"
    return Step("shifted", text, "pair ids and predictions from one loop", 1, partial(_reordered, rows=rows))


def _reordered(pose: Pose, rows: IntArray) -> Pose:
    angles = None if pose.angles is None else pose.angles[rows]
    return pose._replace(angles=angles, rotation=pose.rotation[rows])


def row_orders(ids: Sequence[str]) -> Iterator[Maker]:
    """Yield the assignments of predictions to ids that other orders of the same names give."""
    if not len(ids):
        return
    n = np.arange(len(ids))
    keys: dict[str, Callable[[str], object]] = {
        "sorted as text": lambda s: s,
        "sorted by their numbers": _natural,
        "sorted by file name without folder": lambda s: s.rpartition("/")[2],
        "sorted by the number in the file name without folder": lambda s: _natural(s.rpartition("/")[2]),
        "sorted as text without regard to case": lambda s: s.lower(),
        "sorted folder by folder": lambda s: (s.rpartition("/")[0], _natural(s.rpartition("/")[2])),
        "sorted with files before subfolders": lambda s: (s.count("/"), s),
    }
    found: dict[str, IntArray] = {"as in the file": n, "reversed": n[::-1]}
    for name, key in keys.items():
        order = np.array(sorted(n, key=lambda i, key=key: key(ids[i])), dtype=np.int64)  # type: ignore[misc]
        if not any(np.array_equal(order, other) for other in found.values()):
            found[name] = order
    for (a, first), (b, second) in itertools.permutations(found.items(), 2):
        rows = np.empty(len(n), np.int64)
        rows[first] = second  # the k-th prediction stands at the k-th id of `second` and belongs to that of `first`
        text = f"predictions are those of the ids {a}, written beside the ids {b}"
        if b == "as in the file":
            text = f"rows are in another order: predictions are those of the ids {a}"
        fix = "write id and prediction of a head together, from one loop"
        yield _fixed(Step("row_order", text, fix, 1, partial(_reordered, rows=rows)))


def _natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a key that orders numbers in names by value."""
    return tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.split(r"(\d+)", name) if p)
