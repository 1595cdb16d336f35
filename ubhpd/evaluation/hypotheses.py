"""What may be wrong with predicted head poses: every hypothesis is tried, and the best one is chosen by a criterion.

Predictions are compared with the truth as rotations: e is the geodesic error in degrees. A hypothesis undoes one or
several mistakes (a unit, a sign, another Euler order, a constant rotation, ...), and

    J = ln(mean of min(e, 90 degrees)) + k * max(0.03, ln(n) / (6 n))

is computed for every single hypothesis and every sensible pair; the smallest J wins, and a further step is added as
long as it lowers J. k counts the parameters: one for each discrete choice and one for each fitted number. The second
term is that of the Bayesian information criterion (Schwarz, The Annals of Statistics 1978) for n errors with three
degrees of freedom each, but never less than 3 % of the error per parameter, because every sound model has small biases
that n alone would call significant. Errors above 90 degrees count as 90, so that a few failures do not decide.

The winner is believed only if each of its steps, left out alone, raises the mean geodesic error by a share of its own
(SHARES) and by more than five standard errors of the paired difference, and the mean error of the angles, too.
Everything else stays unexplained.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from ubhpd.core.rotation import geodesic_deg
from ubhpd.core.typing import FloatArray, IntArray
from ubhpd.evaluation.mistakes import (
    CAP_DEG,
    LEAST_HEADS,
    Maker,
    Pose,
    Step,
    Truth,
    axes,
    fitted_offset,
    fitted_scale,
    frames,
    geodesic,
    lags,
    mean_error,
    of_datasets,
    offset_by_dataset,
    orders,
    part,
    quaternion_orders,
    row_orders,
    signs,
    transposed,
    units,
)
from ubhpd.metrics.aligned import nearest_rotation

SCREENED = 400  # heads on which every hypothesis is tried; the best ones are measured on all
LEAST_PENALTY = 0.03  # of ln(error) per parameter
STANDARD_ERRORS = 5.0
SHARE = 0.05  # of the geodesic error that a step must explain
SHARES = {"offset": 0.10, "scale": 0.08, "offset_by_dataset": 0.10, "part_of_rows": 0.10}
SHARE_OF_ANGLES = 0.08  # of the mean error of the three angles: models are trained and reported on these


_OFFSETS: tuple[Maker, ...] = (partial(fitted_offset, side="head"), partial(fitted_offset, side="camera"))


class Explained(NamedTuple):
    """The chosen steps, the pose after each of them, and hypotheses that explain the errors equally well."""

    steps: tuple[Step, ...]
    poses: tuple[Pose, ...]
    alternatives: tuple[str, ...]


def criterion(errors: FloatArray, parameters: int) -> float:
    """Return J of geodesic errors (n,) in degrees; see the module's docstring."""
    n = len(errors)
    return float(np.log(np.minimum(errors, CAP_DEG).mean() + 0.01)) + parameters * penalty(n)


def penalty(n: int) -> float:
    """Return what one parameter costs in J for n heads."""
    return max(LEAST_PENALTY, float(np.log(n)) / (6.0 * n))


def certain(before: FloatArray, after: FloatArray, share: float) -> bool:
    """True if the mean error falls by `share` of itself and by 5 standard errors of the paired difference."""
    gain = before - after
    mean, n = float(gain.mean()), len(gain)
    error = float(gain.std()) / np.sqrt(n) * (1.0 + 10.0 / n)  # few heads: the standard error itself is uncertain
    return mean > share * float(before.mean()) and mean > STANDARD_ERRORS * error


def explain(pose: Pose, truth: Truth, ids: Sequence[str] | None = None) -> Explained:
    """Return what explains the errors best, nothing if no hypothesis explains enough of them.

    Args:
        pose: predictions in the order of the file.
        truth: of the same heads.
        ids: of the same heads, to try other orders of the rows.
    """
    n = len(truth.angles)
    if n < LEAST_HEADS:
        return Explained((), (), ())
    some = np.unique(np.linspace(0, n - 1, min(n, SCREENED)).astype(np.int64))
    small, small_truth = pose.take(some), Truth(truth.angles[some], truth.rotation[some])
    tried = _screen(small, small_truth)
    best = tried[0]
    if np.exp(best[0]) > 0.4 * spread(small_truth):  # nothing explains it so far: do rows belong to other heads?
        tried = sorted([*tried, *_other_rows(pose, truth, some, ids)], key=lambda t: t[0])
    best = _extended(tried[0], small, small_truth, pose, truth, some)
    chosen = _verified(best[1], pose, truth)
    poses = _applied(chosen, pose)
    return Explained(tuple(chosen), poses, _alternatives(chosen, poses, tried, pose, truth))


def spread(truth: Truth) -> float:
    """Return the mean geodesic error of the mean-pose baseline: the mean rotation of the truth for every head."""
    mean = nearest_rotation(truth.rotation.sum(axis=0))
    return float(geodesic_deg(truth.rotation, mean).mean())


Tried = tuple[float, tuple[Maker, ...]]  # J, and the hypothesis


def _screen(pose: Pose, truth: Truth) -> list[Tried]:
    """Return every single hypothesis and every sensible pair with its J, best first."""
    tried: list[Tried] = []
    errors: dict[tuple[Maker, ...], FloatArray] = {(): geodesic(pose, truth)}
    tried.append((criterion(errors[()], 0), ()))

    def attempt(makers: tuple[Maker, ...], start: Pose, parameters: int) -> tuple[Pose, int] | None:
        """Try the last maker on top of the pose after the others."""
        step = makers[-1](start, truth)
        if step is None:
            return None
        after = step.undo(start)
        e = geodesic(after, truth)
        tried.append((criterion(e, parameters + step.parameters), makers))
        if len(makers) == 1:
            errors[makers] = e
        return after, parameters + step.parameters

    readings = (*axes(), *orders(), transposed, *frames(), *((*quaternion_orders(),) if pose.angles is None else ()))
    every_axis = frozenset(axes())
    fits = _OFFSETS
    for unit in (None, *units()):
        base: tuple[Maker, ...] = () if unit is None else (unit,)
        after: tuple[Pose, int] | None = (pose, 0) if unit is None else attempt(base, pose, 0)
        if after is None:
            continue
        for fit in (*fits, *((fitted_scale,) if unit is None else ())):
            attempt((*base, fit), *after)
        for reading in readings:
            read = attempt((*base, reading), *after)
            if read is None:
                continue
            for fit in () if reading in frames() else fits:
                attempt((*base, reading, fit), *read)
            if reading in every_axis:
                for order in orders() if reading in signs() else ():
                    attempt((*base, reading, order), *read)
                if unit is None:
                    attempt((reading, fitted_scale), *read)
                    attempt((reading, transposed), *read)
    attempt((offset_by_dataset,), pose, 0)
    tried += _parts(errors, pose)
    return sorted(tried, key=lambda t: t[0])


def _parts(errors: dict[tuple[Maker, ...], FloatArray], pose: Pose) -> list[Tried]:
    """Return hypotheses that hold for the first or last rows only, or for some datasets only."""
    plain = errors[()]
    tried: list[Tried] = []
    for makers, own in errors.items():
        if not makers:
            continue
        gain = np.minimum(plain, CAP_DEG) - np.minimum(own, CAP_DEG)
        for last in (True, False):
            total = np.cumsum(gain[::-1])[::-1] if last else np.cumsum(gain)
            cut = int(np.argmax(total))
            inside = np.arange(len(gain)) >= cut if last else np.arange(len(gain)) <= cut
            if 0.05 < inside.mean() < 0.95:
                e = np.where(inside, own, plain)
                tried.append((criterion(e, 2 + _parameters(makers)), (partial(part, maker=makers[0], last=last),)))
    names = np.unique(pose.dataset)
    if len(names) > 1:
        for makers, own in errors.items():
            better = [d for d in names if own[pose.dataset == d].mean() < 0.8 * plain[pose.dataset == d].mean()]
            if makers and 0 < len(better) < len(names):
                e = np.where(np.isin(pose.dataset, better), own, plain)
                maker = partial(of_datasets, maker=makers[0], chosen=tuple(int(d) for d in better))
                tried.append((criterion(e, 1 + len(better)), (maker,)))
    return tried


def _parameters(makers: tuple[Maker, ...]) -> int:
    return 1 if makers[0] in (*axes(), *orders(), transposed) else 2


def _other_rows(pose: Pose, truth: Truth, some: IntArray, ids: Sequence[str] | None) -> list[Tried]:
    """Return hypotheses that the predictions belong to other rows, alone and with a change of signs or columns."""
    few = some[:: max(1, len(some) // 150)]
    few_truth = Truth(truth.angles[few], truth.rotation[few])
    tried: list[Tried] = []
    for maker in (*lags(), *row_orders(ids or ())):
        step = maker(pose, truth)
        if step is None:
            continue
        moved = step.undo(pose)
        tried.append((criterion(geodesic(moved.take(few), few_truth), 1), (maker,)))
        for reading in (*axes(), *units()):
            own = reading(moved.take(few), few_truth)
            if own is not None:
                e = geodesic(own.undo(moved.take(few)), few_truth)
                tried.append((criterion(e, 1 + own.parameters), (maker, reading)))
    return tried


def _extended(best: Tried, small: Pose, small_truth: Truth, pose: Pose, truth: Truth, some: IntArray) -> Tried:
    """Return the hypothesis with further steps for as long as one lowers J."""
    value, makers = best
    steps = _fitted(makers, pose, truth)
    if steps is None or not makers:
        return best
    for _ in range(2):
        after = (_applied(steps, pose) or (pose,))[-1].take(some)
        parameters = sum(s.parameters for s in steps)
        further: list[tuple[float, Maker]] = []
        more: tuple[Maker, ...] = (*axes(), transposed, *_OFFSETS, fitted_scale)
        for maker in more:
            step = maker(after, small_truth)
            if step is not None and step.kind not in {s.kind for s in steps}:
                further.append(
                    (criterion(geodesic(step.undo(after), small_truth), parameters + step.parameters), maker)
                )
        least = min(further, key=lambda f: f[0], default=(np.inf, transposed))
        if least[0] >= criterion(geodesic(after, small_truth), parameters):
            break
        longer = _fitted((*makers, least[1]), pose, truth)
        if longer is None:
            break
        value, makers, steps = least[0], (*makers, least[1]), longer
    return value, makers


def _fitted(makers: tuple[Maker, ...], pose: Pose, truth: Truth) -> list[Step] | None:
    """Return the steps of a hypothesis fitted to all heads, None if one does not apply."""
    steps: list[Step] = []
    for maker in makers:
        step = maker(pose, truth)
        if step is None:
            return None
        steps.append(step)
        pose = step.undo(pose)
    return steps


def _applied(steps: Sequence[Step], pose: Pose) -> tuple[Pose, ...]:
    poses = []
    for step in steps:
        pose = step.undo(pose)
        poses.append(pose)
    return tuple(poses)


def _verified(makers: tuple[Maker, ...], pose: Pose, truth: Truth) -> list[Step]:
    """Return the steps of a hypothesis on all heads without those that explain too little when left out alone."""
    while makers:
        steps = _fitted(makers, pose, truth)
        if steps is None:
            return []
        after = _applied(steps, pose)[-1]
        whole, angles = geodesic(after, truth), mean_error(after, truth.angles)
        gains: list[float] = []
        believed: list[bool] = []
        for k, step in enumerate(steps):
            rest = _fitted(makers[:k] + makers[k + 1 :], pose, truth)
            left = (_applied(rest or [], pose) or (pose,))[-1]
            without = geodesic(left, truth)
            gains.append(float(without.mean() - whole.mean()))
            nearer = angles < (1.0 - SHARE_OF_ANGLES) * mean_error(left, truth.angles)
            believed.append(nearer and certain(without, whole, SHARES.get(step.kind, SHARE)))
        if all(believed):
            return _aflw(steps)
        weakest = min((k for k, b in enumerate(believed) if not b), key=lambda k: gains[k])
        makers = makers[:weakest] + makers[weakest + 1 :]
    return []


def _alternatives(
    chosen: Sequence[Step], poses: Sequence[Pose], tried: Sequence[Tried], pose: Pose, truth: Truth
) -> tuple[str, ...]:
    """Return the texts of other hypotheses that leave no certainly larger error, and are not the same rotations."""
    if not chosen:
        return ()
    own = geodesic(poses[-1], truth)
    parameters = sum(s.parameters for s in chosen)
    texts: list[str] = []
    for _, makers in tried[:8]:
        steps = _fitted(makers, pose, truth)
        if not steps or sum(s.parameters for s in steps) > parameters:
            continue
        after = _applied(steps, pose)[-1]
        if geodesic(after, Truth(truth.angles, poses[-1].rotation)).mean() < 0.2:
            continue
        excess = geodesic(after, truth) - own
        text = ", and ".join(s.text for s in steps)
        if excess.mean() < 3.0 * excess.std() / np.sqrt(len(excess)) and text not in texts:
            texts.append(text)
    return tuple(texts[:2])


def _aflw(steps: Sequence[Step]) -> list[Step]:
    """Return the steps with a flipped roll and the order YXZ after it as one: the convention of AFLW."""
    merged: list[Step] = []
    for step in steps:
        before = merged[-1] if merged else None
        if before is not None and before.text.startswith("the sign of roll is") and "order YXZ" in step.text:
            text = "angles are in AFLW's convention (Euler order YXZ instead of XYZ, roll the other way)"
            fix = f"negate roll, then {step.fix}"
            merged[-1] = Step("euler_order", text, fix, 2, partial(_both, first=before, second=step))
        else:
            merged.append(step)
    return merged


def _both(pose: Pose, first: Step, second: Step) -> Pose:
    return second.undo(first.undo(pose))
