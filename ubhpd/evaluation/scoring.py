"""All metrics in one pass: per-sample errors, their sums and quantiles, and from these every score of every metric.

No metric and no column is named here. Each module of `ubhpd.metrics` states what it reads, which per-sample columns it
computes, and which of them it needs summed per bin, summed per ring, or as quantiles; `ubhpd.metrics` explains the
contract. Sums are taken over all samples or per group (subjects, blocks of a resample), with the group as a leading
axis.

The rotations of many heads are computed in closed form for the canonical Euler order, with the nine matrix entries in
separate arrays, so that a million predictions take half a second. `ubhpd.core.rotation` defines the convention and
handles every order; a test checks that both agree.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.core.bins import LIMIT_DEG, N_BINS, bin_index
from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import AnyArray, FloatArray, Int8Array, IntArray
from ubhpd.evaluation.metric_cards import (
    INPUTS,
    columns_needed,
    metric_options,
    metrics,
    quantile_name,
    quantiles_needed,
)


def canonical_matrices(ypr_deg: FloatArray) -> FloatArray:
    """Return R = Rx(-pitch) Ry(-yaw) Rz(-roll) (3, 3, n), entries first, of angles (n, 3) in degrees."""
    (cy, sy), (cp, sp), (cr, sr) = (_cos_sin(ypr_deg[:, j]) for j in range(3))
    r = np.empty((3, 3, len(ypr_deg)))
    sp_sy, cp_sy = sp * sy, cp * sy
    r[0, 0] = cy * cr
    r[0, 1] = cy * sr
    r[0, 2] = -sy
    r[1, 0] = sp_sy * cr - cp * sr
    r[1, 1] = cp * cr + sp_sy * sr
    r[1, 2] = sp * cy
    r[2, 0] = sp * sr + cp_sy * cr
    r[2, 1] = cp_sy * sr - sp * cr
    r[2, 2] = cp * cy
    return r


def entries_first(rotation: FloatArray) -> FloatArray:
    """Return rotations (n, 3, 3) as (3, 3, n), each entry in one piece of memory."""
    return np.ascontiguousarray(np.moveaxis(rotation, 0, -1))


def relative(predicted: FloatArray, true: FloatArray, out: FloatArray) -> None:
    """Write R_predicted^T R_true into `out`; all (3, 3, n), entries first."""
    part = np.empty(predicted.shape[-1])
    for i in range(3):
        for j in range(3):
            np.multiply(predicted[0, i], true[0, j], out=out[i, j])
            for k in (1, 2):
                np.multiply(predicted[k, i], true[k, j], out=part)
                out[i, j] += part


def _cos_sin(angle_deg: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return cosine and sine by the tangent of half the angle: one call instead of two, within 3e-16 of theirs."""
    half = np.tan(angle_deg * (np.pi / 360.0))
    square = half * half
    scale = 1.0 / (1.0 + square)
    return (1.0 - square) * scale, 2.0 * half * scale


CHUNK = 16_384  # samples; their arrays stay in the processor's cache
N_RINGS = 15
RING_DEG = 5.0
CONTEXT = ("source_counts", "printed_k")  # statistics that describe the training set, not the samples


class Pairs(NamedTuple):
    """Predicted and true heads: angles (n, 3) in degrees, canonical; rotations (n, 3, 3) or None for the angles'."""

    predicted_deg: FloatArray
    true_deg: FloatArray
    predicted_rotation: FloatArray | None = None
    true_rotation: FloatArray | None = None

    def take(self, rows: AnyArray) -> Pairs:
        """Return these rows, by number or by a mask."""
        predicted, true = self.predicted_rotation, self.true_rotation
        return Pairs(
            self.predicted_deg[rows],
            self.true_deg[rows],
            None if predicted is None else predicted[rows],
            None if true is None else true[rows],
        )


@dataclass(frozen=True)
class ScoreOptions:
    """How to score; kept whole in the result. `metrics` holds the options of each metric by its name."""

    exclude_outside: bool = False
    metrics: Mapping[str, Any] = field(default_factory=metric_options)

    def as_dict(self) -> dict[str, Any]:
        """Return the options as plain values, metrics without options left out."""
        own = {name: asdict(o) for name, o in self.metrics.items()}
        return {"exclude_outside": self.exclude_outside, "metrics": {k: v for k, v in own.items() if v}}


@dataclass(frozen=True)
class SampleErrors:
    """What each sample contributes: columns (n,) or (n, 3), its bins (n, 3) and its ring (n,), -1 for none."""

    columns: dict[str, FloatArray]
    bins: Int8Array
    rings: Int8Array
    alignment: dict[str, FloatArray]

    def __len__(self) -> int:
        return len(self.rings)

    def rows(self, start: int, stop: int) -> SampleErrors:
        """Return the samples from start to stop."""
        part = slice(start, stop)
        columns = {k: v[part] for k, v in self.columns.items()}
        return SampleErrors(columns, self.bins[part], self.rings[part], self.alignment)


class Scored(NamedTuple):
    """Scores by name, the statistics behind them, per-sample errors, and what was left out."""

    scores: dict[str, float]
    statistics: dict[str, AnyArray]
    errors: SampleErrors
    kept: IntArray
    outside: IntArray
    excluded: int


def score(
    pairs: Pairs,
    options: ScoreOptions | None = None,
    source_counts: npt.ArrayLike | None = None,
    printed_k: npt.ArrayLike | None = None,
) -> Scored:
    """Return every score of the pairs; those that need a training set are absent without `source_counts` (3, 15).

    Raises:
        UbhpdError: shapes that do not fit, values that are not finite, or as a metric's own rules say.
    """
    o = options or ScoreOptions()
    pairs = checked(pairs)
    with np.errstate(invalid="ignore"):
        beyond = np.abs(pairs.true_deg) > LIMIT_DEG
    outside = beyond.sum(axis=0)
    kept = np.arange(len(pairs.true_deg))
    if o.exclude_outside and beyond.any():
        kept = np.flatnonzero(~beyond.any(axis=1))
        pairs = pairs.take(kept)
    errors = sample_errors(pairs)
    statistics = with_context(statistics_of(errors), source_counts, printed_k)
    values = {name: float(v) for name, v in scores(statistics, o).items()}
    return Scored(values, statistics, errors, kept, outside, len(beyond) - len(kept))


def score_arrays(
    predicted_deg: npt.ArrayLike, true_deg: npt.ArrayLike, source_counts: npt.ArrayLike | None = None
) -> dict[str, float]:
    """Return every score of canonical angles (n, 3) in degrees: the shortest way for a training loop or a notebook."""
    pairs = Pairs(np.asarray(predicted_deg, np.float64), np.asarray(true_deg, np.float64))
    return score(pairs, source_counts=source_counts).scores


def sample_errors(pairs: Pairs) -> SampleErrors:
    """Return what each sample contributes, computed in chunks on as many threads as help."""
    n = len(pairs.true_deg)
    by_input: dict[str, list[Any]] = {
        k: [m for m in metrics().values() if getattr(m, "INPUT", None) == k] for k in INPUTS
    }
    turns = np.empty((3, 3, n)) if by_input["aligned"] else None
    bins, rings = np.empty((3, n), np.int8).T, np.empty(n, np.int8)
    columns = _empty_columns(by_input, n)

    def first(part: slice) -> FloatArray:
        true_deg = pairs.true_deg[part]
        true = _matrices(pairs.true_rotation, true_deg, part)
        predicted = _matrices(pairs.predicted_rotation, pairs.predicted_deg[part], part)
        turn = np.empty_like(true) if turns is None else turns[:, :, part]
        relative(predicted, true, turn)
        bins[part], rings[part] = bin_index(true_deg), _rings(true)
        for module in by_input["angles"]:
            _store(columns, module.per_sample(pairs.predicted_deg[part], true_deg), part)
        for module in by_input["relative"]:
            _store(columns, module.per_sample(np.moveaxis(turn, -1, 0)), part)
        for module in by_input["columns"]:
            _store(columns, module.per_sample({name: column[part] for name, column in columns.items()}), part)
        total: FloatArray = turn.sum(axis=-1)
        return total

    totals = _over_chunks(first, n)
    total = np.sum(totals, axis=0) if totals else np.zeros((3, 3))
    alignment = {m.NAME: m.fit(total) for m in by_input["aligned"]}

    def second(part: slice) -> None:
        assert turns is not None
        for module in by_input["aligned"]:
            values = module.per_sample(np.moveaxis(turns[:, :, part], -1, 0), alignment[module.NAME])
            _store(columns, values, part)

    if alignment:
        _over_chunks(second, n)
    return SampleErrors(columns, bins, rings, alignment)


def _empty_columns(by_input: Mapping[str, list[Any]], n: int) -> dict[str, AnyArray]:
    """Return uninitialised columns of n samples with the types and shapes that `per_sample` returns for no sample."""
    triplets, rotations = np.empty((0, 3)), np.empty((0, 3, 3))
    none: dict[str, AnyArray] = {}
    for kind in INPUTS:
        for module in by_input[kind]:
            arguments = {"angles": (triplets, triplets), "relative": (rotations,), "columns": (none,)}
            none |= module.per_sample(*arguments.get(kind, (rotations, np.eye(3))))
    return {name: np.empty((*v.shape[:0:-1], n), v.dtype).T for name, v in none.items()}


def statistics_of(errors: SampleErrors) -> dict[str, AnyArray]:
    """Return the statistics of `ubhpd.metrics` over all samples: their sums and the quantiles that metrics declare."""
    result = sums(errors)
    for column, levels in quantiles_needed().items():
        values = errors.columns[column]
        found = (
            np.quantile(values, levels, axis=0) if len(values) else np.full((len(levels), *values.shape[1:]), np.nan)
        )
        result |= {quantile_name(column, q): found[k] for k, q in enumerate(levels)}
    return result


def sums(errors: SampleErrors, groups: IntArray | None = None, n_groups: int | None = None) -> dict[str, AnyArray]:
    """Return the sums among the statistics of `ubhpd.metrics`, over all samples, or per group with a leading axis.

    Args:
        errors: per-sample errors.
        groups: group (n,) of each sample, 0 to n_groups - 1; none for one group without a leading axis.
        n_groups: number of groups.
    """
    n, many = len(errors), groups is not None
    g = groups if groups is not None else np.zeros(0, np.int64)
    size = int(n_groups or 0) if many else 1

    def total(values: FloatArray) -> AnyArray:
        return np.bincount(g, weights=values, minlength=size) if many else values.sum(keepdims=True)

    def table(index: Int8Array, values: FloatArray | None, width: int) -> AnyArray:
        place = index + np.int8(1) if not many else g * (width + 1) + index + 1
        totals = np.bincount(place, weights=values, minlength=size * (width + 1))
        return totals.reshape(size, width + 1)[:, 1:]

    result: dict[str, AnyArray] = {
        "n": np.bincount(g, minlength=size) if many else np.array([n]),
        "bin_n": np.stack([table(errors.bins[:, j], None, N_BINS) for j in range(3)], axis=1),
        "ring_n": table(errors.rings, None, N_RINGS),
    }
    for name, column in errors.columns.items():
        if column.ndim == 2:
            result[name] = np.stack([total(column[:, j]) for j in range(3)], axis=1)
        else:
            result[name] = total(column)
    for name in columns_needed("PER_BIN"):
        tables = [table(errors.bins[:, j], errors.columns[name][:, j], N_BINS) for j in range(3)]
        result[f"bin_{name}"] = np.stack(tables, axis=1)
    for name in columns_needed("PER_RING"):
        result[f"ring_{name}"] = table(errors.rings, errors.columns[name], N_RINGS)
    return result if many else {k: v[0] for k, v in result.items()}


def with_context(
    statistics: dict[str, AnyArray],
    source_counts: npt.ArrayLike | None = None,
    printed_k: npt.ArrayLike | None = None,
) -> dict[str, AnyArray]:
    """Return the statistics with what is known of the training set added."""
    known = {"source_counts": source_counts, "printed_k": printed_k}
    return statistics | {k: np.asarray(v, np.float64) for k, v in known.items() if v is not None}


def scores(statistics: Mapping[str, AnyArray], options: ScoreOptions) -> dict[str, FloatArray]:
    """Return every score that the statistics allow, with their leading axes, in the order of the cards."""
    result: dict[str, FloatArray] = {}
    for name, metric in metrics().items():
        values = metric.score(statistics, options.metrics.get(name) or metric.Options())
        result |= {k: np.asarray(values[k], np.float64) for k in metric.SCORES if k in values}
    return result


def checked(pairs: Pairs) -> Pairs:
    """Return the pairs as float arrays; UbhpdError unless the shapes fit and every value is finite."""
    predicted, true = (np.asarray(a, np.float64) for a in pairs[:2])
    rotations = [None if a is None else np.asarray(a, np.float64) for a in pairs[2:]]
    n = len(true) if true.ndim else 0
    arrays: list[tuple[str, FloatArray, tuple[int, ...]]] = [
        ("predicted angles", predicted, (n, 3)),
        ("true angles", true, (n, 3)),
    ]
    arrays += [
        (f"{word} rotations", a, (n, 3, 3))
        for word, a in zip(("predicted", "true"), rotations, strict=True)
        if a is not None
    ]
    for name, a, shape in arrays:
        if a.shape != shape:
            raise UbhpdError(f"Expected {name} of shape {shape}, found shape {a.shape}.")
        if n and not np.isfinite(a.sum()):
            bad = np.flatnonzero(~np.isfinite(a.reshape(n, -1)).all(axis=1))
            if len(bad):
                raise UbhpdError(f"The {name} of head {bad[0]} (the first is 0) are not finite numbers.")
    return Pairs(predicted, true, *rotations)


def _matrices(rotation: FloatArray | None, ypr_deg: FloatArray, part: slice) -> FloatArray:
    return canonical_matrices(ypr_deg) if rotation is None else entries_first(rotation[part])


def _rings(true: FloatArray) -> IntArray:
    """Return the ring of the angle from frontal of rotations (3, 3, n): 5 degrees each, -1 from 75 on."""
    sine = np.sqrt((true[2, 1] - true[1, 2]) ** 2 + (true[0, 2] - true[2, 0]) ** 2 + (true[1, 0] - true[0, 1]) ** 2)
    angle = np.degrees(np.arctan2(sine, true[0, 0] + true[1, 1] + true[2, 2] - 1.0))
    ring: IntArray = (angle / RING_DEG).astype(np.int64)
    ring[ring >= N_RINGS] = -1
    return ring


def _store(columns: dict[str, FloatArray], values: dict[str, FloatArray], part: slice) -> None:
    for name, value in values.items():
        columns[name][part] = value


def _over_chunks(work: Any, n: int) -> list[Any]:
    parts = [slice(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]
    threads = min(len(parts) // 4, os.cpu_count() or 1, 8)
    if threads < 2:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, parts))


def bin_table(scored: Scored, options: ScoreOptions | None = None) -> dict[str, AnyArray]:
    """Return every per-bin table of the metrics: n, error, target (3, 15); with a training set source, weight, too.

    With a training set `dropped` (3,) is the share of test heads in bins without a training head.
    """
    o = options or ScoreOptions()
    tables: dict[str, AnyArray] = {}
    for name, metric in metrics().items():
        if (own := getattr(metric, "tables", None)) is not None:
            tables |= own(scored.statistics, o.metrics.get(name) or metric.Options())
    return tables
