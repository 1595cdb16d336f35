"""Confidence intervals by bootstrap, and the paired test of two prediction files.

Most scores are functions of sums over samples, so a resample is a weighted sum of the groups' sums: the groups are
summed once, and all resamples are one matrix product (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 13: percentile intervals). Groups are samples, subjects or sequences: frames of one recording are nearly
copies of each other, so intervals over samples are too narrow wherever groups are known.

Resampling with replacement leaves out a third of the groups in each resample, which empties rare bins. The mean over
the bins that are left, as in the balanced MAE, then lacks the bins with the largest errors in every resample, and its
interval can lie below the score itself. Here, resamples keep all bins: the mean error of a bin with few groups is
drawn anew with the spread that such a mean has, see `_sums_of_all_bins`. What an interval covers is the score that the
same bins would have with all heads of the population; bins without a test head are no part of it.
`benchmarks/interval_coverage.py` measures how often it does.

A quantile of the errors is not a sum, but the number of samples with an error up to a given level is one. Each resample
counts these at levels around the quantile of the whole set, as far apart as the resamples of a quantile scatter, and
the quantile of the resample is interpolated between the levels.

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
from ubhpd.evaluation.metric_cards import (
    columns_needed,
    quantile_name,
    quantiles_needed,
    scores_without_interval,
)
from ubhpd.evaluation.scoring import CONTEXT, SampleErrors, ScoreOptions, scores, statistics_of, sums

MULTINOMIAL_UP_TO = 5_000  # groups
BLOCK = 8_192  # groups in one matrix product
# Levels around a quantile: up to 4.5 standard deviations of its rank to either side, fewer where groups are many.
LEVELS_SPAN, LEVELS_FEW, LEVELS_MANY = 4.5, 10, 64
FEW_GROUPS = 8  # a bin with at most so many groups borrows the spread of the other bins
PRIOR_DEGREES = 6  # degrees of freedom that a borrowed spread is worth
NEGLIGIBLE = 1e-9  # samples


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
    """Return the percentile interval of every score; NaN ends for scores that have none, such as the worst bin.

    Args:
        errors: per-sample errors of `ubhpd.evaluation.scoring.score`.
        statistics: its statistics, for what is known of the training set.
        score_options: as for the score itself.
        options: rounds, level, seed.
        groups: codes (n,) of subjects or sequences, 0 upwards; none to resample single samples.
    """
    drawn = resamples([errors], options, groups)[0]
    values = scores(drawn | {k: statistics[k] for k in CONTEXT if k in statistics}, score_options)
    none = scores_without_interval()
    return {n: Interval(*((np.nan, np.nan) if n in none else _ends(v, options.level))) for n, v in values.items()}


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
    context = {k: statistics[k] for k in CONTEXT if k in statistics}
    drawn = [scores(d | context, score_options) for d in resamples([first, second], options, groups)]
    whole = [scores(statistics_of(e) | context, score_options) for e in (first, second)]
    differences = {}
    none = scores_without_interval()
    for name in whole[0]:
        delta = np.full(1, np.nan) if name in none else drawn[0][name] - drawn[1][name]
        differences[name] = Difference(float(whole[0][name] - whole[1][name]), *_ends(delta, options.level), _p(delta))
    return differences


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
    levels = [_levels(e, groups, n_groups) for e in methods]
    grouped = None
    if groups is not None:
        grouped = [sums(e, groups, n_groups) | _below(e, own, groups) for e, own in zip(methods, levels, strict=True)]
    drawn: list[FloatArray | None] = [None for _ in methods]
    shapes: list[dict[str, tuple[int, ...]]] = [{} for _ in methods]
    for start in range(0, n_groups, BLOCK):
        stop = min(start + BLOCK, n_groups)
        weights: AnyArray = _poisson(rng, options.rounds, stop - start) if exact is None else exact[:, start:stop]
        for k, errors in enumerate(methods):
            if grouped is None:
                rows = errors.rows(start, stop)
                part = sums(rows, np.arange(stop - start), stop - start) | _below(rows, levels[k])
            else:
                part = {name: v[start:stop] for name, v in grouped[k].items()}
            shapes[k] = {name: v.shape[1:] for name, v in part.items()}
            flat: AnyArray = np.concatenate([v.reshape(len(v), -1) for v in part.values()], axis=1, dtype=weights.dtype)
            product = (weights @ flat).astype(np.float64)
            before = drawn[k]
            drawn[k] = product if before is None else before + product
    result = []
    for k, errors in enumerate(methods):
        totals = drawn[k]
        assert totals is not None
        statistics = _with_quantiles(_unpacked(totals, shapes[k]), levels[k])
        rng = np.random.default_rng([options.seed, 1])  # the same for all methods, so that a paired test pairs
        result.append(_with_all_bins(statistics, errors, None if grouped is None else grouped[k], rng))
    return result


def _with_all_bins(
    statistics: dict[str, AnyArray], errors: SampleErrors, grouped: dict[str, AnyArray] | None, rng: np.random.Generator
) -> dict[str, AnyArray]:
    """Return the statistics of resamples in which every bin and ring of the whole set has a sample and its spread."""
    changed = dict(statistics)
    tables = [(f"bin_{name}", "bin_n", errors.columns[name], errors.bins) for name in columns_needed("PER_BIN")]
    tables += [
        (f"ring_{name}", "ring_n", errors.columns[name][:, None], errors.rings[:, None])
        for name in columns_needed("PER_RING")
    ]
    for name, count, values, places in tables:
        totals, counts = (statistics[n].reshape(len(statistics[n]), values.shape[1], -1) for n in (name, count))
        drawn = []
        for j in range(values.shape[1]):
            if grouped is None:
                inside = np.flatnonzero(places[:, j] >= 0)
                parts = _Parts(values[inside, j], np.ones(len(inside)), places[inside, j].astype(np.int64))
            else:
                own = [grouped[n].reshape(len(grouped[n]), values.shape[1], -1)[:, j] for n in (name, count)]
                groups, bins = np.nonzero(own[1])
                weights = own[1][groups, bins].astype(np.float64)
                parts = _Parts(own[0][groups, bins] / weights, weights, bins.astype(np.int64))
            drawn.append(_sums_of_all_bins(totals[:, j], counts[:, j], parts, rng))
        for n, sums_of_bins in zip((name, count), zip(*drawn, strict=True), strict=True):
            changed[n] = np.stack(sums_of_bins, axis=1).reshape(statistics[n].shape)
    return changed


class _Parts(NamedTuple):
    """What each group has in each of its bins: mean error, number of samples, and the bin; arrays (k,)."""

    mean: FloatArray
    samples: FloatArray
    bin: IntArray


def _sums_of_all_bins(
    totals: FloatArray, counts: FloatArray, parts: _Parts, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return sums of errors and of samples (rounds, bins) of resamples that keep all occupied bins.

    A bin that a resample left without a sample gets a negligible one: it counts as occupied, and for nothing else. Its
    mean error, and that of every bin with up to FEW_GROUPS groups, is drawn anew. With g groups, its deviation from the
    mean of the whole set is the mean of g residuals. These come at random from all bins with more groups, each relative
    to the mean absolute error of its own bin, and are scaled by that of this bin. As with Student's t, the deviation is
    divided by the root of a chi-squared variable over its degrees of freedom.
    """
    n_bins = counts.shape[1]
    groups = np.bincount(parts.bin, minlength=n_bins)
    samples = np.bincount(parts.bin, weights=parts.samples, minlength=n_bins)
    mean, size = (
        np.bincount(parts.bin, weights=parts.samples * v, minlength=n_bins) / np.maximum(samples, 1.0)
        for v in (parts.mean, np.abs(parts.mean))
    )
    kept = np.where((groups > 0) & (counts == 0), NEGLIGIBLE, counts)
    value = np.divide(totals, counts, out=np.tile(mean, (len(totals), 1)), where=counts > 0)
    few = (groups > 0) & (groups <= FEW_GROUPS)
    lenders = ((groups > FEW_GROUPS) if (groups > FEW_GROUPS).any() else (groups > 1)) & (size > 0)
    lent = np.flatnonzero(lenders[parts.bin])
    if few.any() and len(lent):
        bins = parts.bin[lent]
        unbiased = np.sqrt(groups / np.maximum(groups - 1, 1))
        residuals = (parts.mean[lent] - mean[bins]) / size[bins] * unbiased[bins]
        square = float((residuals**2).mean())
        for b in np.flatnonzero(few):
            g, degrees = int(groups[b]), PRIOR_DEGREES + int(groups[b]) - 1
            rows = rng.integers(0, len(residuals), size=(len(totals), g))
            tails = np.sqrt(degrees / rng.chisquare(degrees, size=len(totals)))
            # The bin's own size scatters, too: its square is on average (1 + square / g) times that of the population.
            value[:, b] = mean[b] + size[b] / np.sqrt(1 + square / g) * residuals[rows].mean(axis=1) * tails
    return value * kept, kept


class _Levels(NamedTuple):
    """Ascending errors (k,) around a quantile, at which samples are counted; `dense` if no error lies between them."""

    errors: FloatArray
    dense: bool


# By column, its angle (0 for a column of one value per sample), and the share that the quantile is of.
LevelsByQuantile = dict[tuple[str, int, float], _Levels]


def _levels(errors: SampleErrors, groups: IntArray | None, n_groups: int) -> LevelsByQuantile:
    """Return the errors at which samples are counted, for every quantile that a metric needs."""
    count = LEVELS_MANY if n_groups <= MULTINOMIAL_UP_TO else LEVELS_FEW
    levels: LevelsByQuantile = {}
    for column, shares in quantiles_needed().items():
        for j, values in enumerate(np.atleast_2d(errors.columns[column].T)):
            ordered = np.sort(values)
            n = len(ordered)
            for share in shares:
                excess = (values <= np.quantile(ordered, share)) - share
                per_group = excess if groups is None else np.bincount(groups, weights=excess, minlength=n_groups)
                spread = max(float(np.sqrt((per_group**2).sum())), 1.0) * LEVELS_SPAN
                ranks = np.unique(np.rint(share * (n - 1) + np.linspace(-spread, spread, count)))
                ranks = np.unique(np.clip(ranks, 0, n - 1)).astype(np.int64)
                dense = ranks[-1] - ranks[0] == len(ranks) - 1
                levels[column, j, share] = _Levels(np.unique(ordered[ranks]), bool(dense))
    return levels


def _below(errors: SampleErrors, levels: LevelsByQuantile, groups: IntArray | None = None) -> dict[str, AnyArray]:
    """Return how many samples of each group (of each sample alone without groups) have an error up to each level."""
    below: dict[str, AnyArray] = {}
    for (column, j, share), own in levels.items():
        values = np.atleast_2d(errors.columns[column].T)[j]
        name = f"below {column} {j} {share}"
        if groups is None:
            below[name] = values[:, None] <= own.errors
            continue
        width = len(own.errors) + 1
        cell = np.searchsorted(own.errors, values)  # the first level that the error is up to
        counts = np.bincount(groups * width + cell, minlength=(int(groups.max()) + 1) * width)
        below[name] = counts.reshape(-1, width)[:, :-1].cumsum(axis=1)
    return below


def _with_quantiles(statistics: dict[str, AnyArray], levels: LevelsByQuantile) -> dict[str, AnyArray]:
    """Return the statistics of resamples with the counts up to each level replaced by the quantiles."""
    by_angle: dict[tuple[str, float], list[FloatArray]] = {}
    for (column, j, share), own in levels.items():
        below = statistics.pop(f"below {column} {j} {share}")
        by_angle.setdefault((column, share), []).append(_quantile(below, statistics["n"], own, share))
    for (column, share), columns in by_angle.items():
        name = quantile_name(column, share)
        statistics[name] = columns[0] if len(columns) == 1 else np.stack(columns, axis=1)
    return statistics


def _quantile(below: FloatArray, n: FloatArray, levels: _Levels, share: float) -> FloatArray:
    """Return the quantile of each resample (rounds,) from its counts (rounds, k) up to each level."""
    rank = share * (n - 1)  # as numpy's default: the first sample has rank 0
    if not levels.dense:
        return np.array([np.interp(r, row - 1.0, levels.errors) for r, row in zip(rank, below, strict=True)])
    whole = np.floor(rank)
    last = len(levels.errors) - 1
    ends = [levels.errors[np.minimum((below <= (whole + k)[:, None]).sum(axis=1), last)] for k in (0, 1)]
    value: FloatArray = ends[0] + (rank - whole) * (ends[1] - ends[0])
    return value


def _unpacked(flat: FloatArray, shapes: dict[str, tuple[int, ...]]) -> dict[str, AnyArray]:
    unpacked, at = {}, 0
    for name, shape in shapes.items():
        width = int(np.prod(shape))
        unpacked[name] = flat[:, at : at + width].reshape(len(flat), *shape)
        at += width
    return unpacked


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
