"""Confidence intervals by bootstrap, and the paired test of two prediction files.

Every score is a function of sums over samples, so a resample is a weighted sum of the groups' sums: the groups are
summed once, and all resamples are one matrix product (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 13: percentile intervals). Groups are samples, subjects or sequences: frames of one recording are nearly
copies of each other, so intervals over samples are too narrow wherever groups are known.

Up to 5,000 groups the weights are multinomial counts, which is resampling with replacement; beyond, independent
Poisson(1) counts (Hanley and MacGibbon, 2006), which are the same in the limit and need no table of all groups.
The alignment of the aligned error is that of the whole set. Same input and seed: same intervals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import AnyArray, Float32Array, FloatArray, IntArray
from ubhpd.evaluation.scoring import SampleErrors, ScoreOptions, scores, sums, with_context

MULTINOMIAL_UP_TO = 5_000  # groups
BLOCK = 8_192  # groups in one matrix product
_KEPT = ("source_counts", "printed_k")


@dataclass(frozen=True)
class BootstrapOptions:
    """How to resample; kept in the result. `over` is "samples", "subjects" or "sequences"."""

    rounds: int = 1000
    level: float = 0.95
    over: str = "samples"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rounds < 2 or not 0.0 < self.level < 1.0:
            raise UbhpdError(
                f"Cannot resample {self.rounds} times for a level of {self.level}: 2 and 0 to 1 are needed."
            )


class Interval(NamedTuple):
    """Lower and upper end of a score's confidence interval."""

    low: float
    high: float


class Difference(NamedTuple):
    """First minus second of one score: the difference, its interval, and how often resamples change its sign."""

    difference: float
    low: float
    high: float
    p_value: float


def intervals(
    errors: SampleErrors,
    statistics: dict[str, AnyArray],
    score_options: ScoreOptions,
    options: BootstrapOptions,
    groups: IntArray | None = None,
) -> dict[str, Interval]:
    """Return the percentile interval of every score.

    Args:
        errors: per-sample errors of `ubhpd.evaluation.scoring.score`.
        statistics: its statistics, for what is known of the training set.
        score_options: as for the score itself.
        options: rounds, level, seed.
        groups: codes (n,) of subjects or sequences, 0 upwards; none to resample single samples.
    """
    drawn = resamples([errors], options, groups)[0]
    values = scores(drawn | {k: statistics[k] for k in _KEPT if k in statistics}, score_options)
    return {name: Interval(*_ends(v, options.level)) for name, v in values.items()}


def paired(
    first: SampleErrors,
    second: SampleErrors,
    statistics: dict[str, AnyArray],
    score_options: ScoreOptions,
    options: BootstrapOptions,
    groups: IntArray | None = None,
) -> dict[str, Difference]:
    """Return first minus second of every score, both measured on the same heads in the same order.

    Each resample draws the same groups for both. The p-value is two-sided: twice the smaller share of resamples on
    one side of 0, never below 1 / (rounds + 1), and 1 where the two do not differ at all.
    """
    if len(first) != len(second):
        raise UbhpdError(f"Cannot pair {len(first)} heads with {len(second)}: compare the same heads in one order.")
    context = {k: statistics[k] for k in _KEPT if k in statistics}
    drawn = [scores(d | context, score_options) for d in resamples([first, second], options, groups)]
    whole = [scores(with_context(sums(e)) | context, score_options) for e in (first, second)]
    found = {}
    for name in whole[0]:
        delta = drawn[0][name] - drawn[1][name]
        found[name] = Difference(float(whole[0][name] - whole[1][name]), *_ends(delta, options.level), _p(delta))
    return found


def sign_test(delta: FloatArray, options: BootstrapOptions, groups: IntArray | None = None) -> float:
    """Return the two-sided p-value of a mean difference (n,) by flipping the sign of whole groups at random.

    Under the null hypothesis the two methods are exchangeable within a group (Fisher's randomisation test).
    """
    totals = delta if groups is None else np.bincount(groups, weights=delta)
    observed = abs(float(totals.sum()))
    if not np.any(totals):
        return 1.0
    rng = np.random.default_rng(options.seed)
    flipped = np.zeros(options.rounds)
    for start in range(0, len(totals), BLOCK):
        part = totals[start : start + BLOCK]
        signs = rng.integers(0, 2, size=(options.rounds, len(part)), dtype=np.int8)
        flipped += 2.0 * (signs.astype(np.float32) @ part.astype(np.float32)) - part.sum()
    return float((1 + (np.abs(flipped) >= observed * (1 - 1e-6)).sum()) / (options.rounds + 1))


def resamples(
    methods: list[SampleErrors], options: BootstrapOptions, groups: IntArray | None = None
) -> list[dict[str, AnyArray]]:
    """Return the statistics of every resample, with a leading axis of rounds, for each method on the same draws."""
    n = len(methods[0])
    if n == 0:
        raise UbhpdError("No sample to resample.")
    n_groups = n if groups is None else int(groups.max()) + 1
    rng = np.random.default_rng(options.seed)
    exact = _multinomial(rng, options.rounds, n_groups) if n_groups <= MULTINOMIAL_UP_TO else None
    grouped = [sums(e, groups, n_groups) for e in methods] if groups is not None else None
    drawn: list[FloatArray | None] = [None for _ in methods]
    shapes: dict[str, tuple[int, ...]] = {}
    for start in range(0, n_groups, BLOCK):
        stop = min(start + BLOCK, n_groups)
        weights: AnyArray = _poisson(rng, options.rounds, stop - start) if exact is None else exact[:, start:stop]
        for k, errors in enumerate(methods):
            if grouped is None:
                part = sums(errors.rows(start, stop), np.arange(stop - start), stop - start)
            else:
                part = {name: v[start:stop] for name, v in grouped[k].items()}
            shapes = {name: v.shape[1:] for name, v in part.items()}
            flat: AnyArray = np.concatenate([v.reshape(len(v), -1) for v in part.values()], axis=1, dtype=weights.dtype)
            product = (weights @ flat).astype(np.float64)
            before = drawn[k]
            drawn[k] = product if before is None else before + product
    return [_unpacked(d, shapes) for d in drawn if d is not None]


def _unpacked(flat: FloatArray, shapes: dict[str, tuple[int, ...]]) -> dict[str, AnyArray]:
    found, at = {}, 0
    for name, shape in shapes.items():
        width = int(np.prod(shape))
        found[name] = flat[:, at : at + width].reshape(len(flat), *shape)
        at += width
    return found


def _multinomial(rng: np.random.Generator, rounds: int, n_groups: int) -> FloatArray:
    """Return how often each group is drawn (rounds, n_groups) when n_groups are drawn with replacement."""
    drawn = rng.integers(0, n_groups, size=(rounds, n_groups))
    place = drawn + n_groups * np.arange(rounds)[:, None]
    return np.bincount(place.ravel(), minlength=rounds * n_groups).reshape(rounds, n_groups).astype(np.float64)


def _poisson(rng: np.random.Generator, rounds: int, n_groups: int) -> Float32Array:
    """Return counts (rounds, n_groups) drawn as Poisson(1) to within a byte; see _POISSON."""
    drawn = np.frombuffer(rng.bytes(rounds * n_groups), dtype=np.uint8)
    return _POISSON[drawn].reshape(rounds, n_groups)


# The count for each value of a random byte: Poisson(1) to 0.005, with mean and variance exactly 1.
_POISSON: Float32Array = np.repeat(np.arange(6, dtype=np.float32), [94, 95, 46, 16, 4, 1])


def _ends(values: FloatArray, level: float) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _p(delta: FloatArray) -> float:
    known = delta[np.isfinite(delta)]
    if not len(known):
        return float("nan")
    smaller = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2.0 * (smaller + 0.5) / (len(known) + 1)) if smaller < len(known) else 1.0
