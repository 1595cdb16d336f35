"""Chooses the heads of UBHPD: from a pool those whose yaw, pitch and roll densities come nearest to a target.

`sample` has the pool in memory, `sample_stream` reads it twice in batches, with the same result. Both go the
same way: count the heads per joint cell, decide how many to take of each (`allocation`), choose which
(`picking`). `mode="independent"` is the plain histogram sampling that the paper's text suggests, for
comparison: each head weighted by the product of its three bins' target / pool density.

What had to be chosen:
* sigma "auto": the widest sigma whose lower bound is within the tolerance, else the sigma with the lowest lower bound.
* A size above the number of heads inside the bins is reduced to that number, and a note says so. That is the
  largest there is, but it takes every head and balances nothing. size "auto" is the largest size up to 25,000 at
  which the target is still met within the tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from ubhpd.core import bins
from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import BoolArray, FloatArray, IntArray
from ubhpd.sampling import allocation, heads, targets
from ubhpd.sampling.heads import Heads
from ubhpd.sampling.picking import pick
from ubhpd.sampling.targets import TOLERANCE, largest_size, widest_sigma

SIZE = 25_000  # of UBHPD in the paper
MODES = ("joint", "independent")

_GATHER = 1 << 17  # heads gathered from a stream before the next choice among them


@dataclass(frozen=True)
class SamplingConfig:
    """What to sample.

    size: heads, or "auto". target: "gaussian", "uniform" or a CSV or JSON file. sigma_deg: of the Gaussian, or
    "auto". seed: which of the equally good heads. mode: "joint" or "independent". tolerance: distance to the
    target that "auto" accepts.
    """

    size: int | Literal["auto"] = SIZE
    target: str = "gaussian"
    sigma_deg: float | Literal["auto"] = "auto"
    seed: int = 0
    mode: str = field(default="joint", metadata={"choices": MODES})
    tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        if self.size != "auto" and (not _is_whole(self.size) or self.size < 1):
            raise UbhpdError(f"The size of the sample is {self.size!r}: give a whole number of at least 1, or auto.")
        if self.sigma_deg != "auto" and not _is_positive(self.sigma_deg):
            raise UbhpdError(f"The sigma of the target is {self.sigma_deg!r} degrees: give a positive number, or auto.")
        if self.size == self.sigma_deg == "auto" and self.target == "gaussian":
            raise UbhpdError(
                "Size and sigma are both auto, which leaves nothing to aim at: give one of them, as --sigma 20."
            )
        if self.mode not in MODES:
            raise UbhpdError(f"There is no sampling mode {self.mode!r}: choose {' or '.join(MODES)}.")
        if not _is_whole(self.seed) or not 0 <= self.seed < 2**63:
            raise UbhpdError(f"The seed is {self.seed!r}: give a whole number from 0 to 2**63 - 1.")
        if not _is_positive(self.tolerance):
            raise UbhpdError(f"The tolerance is {self.tolerance!r}: give a positive number, such as {TOLERANCE}.")


@dataclass(frozen=True)
class SamplingResult:
    """What was chosen and how near it came. Distances are total variation, 0 to 1; arrays are (3,) or (3, 15).

    rows: indices into the pool, ascending. eligible: usable heads with all angles inside the bins. lower_bound: the
    smallest distance that any heads of this number can have; lower_bound_per_angle: the smallest of each angle if the
    others did not matter. counts_before, outside: of the usable heads of the pool. notes: sentences for the user.
    """

    config: SamplingConfig
    rows: IntArray
    size_wanted: int | Literal["auto"]
    size: int
    eligible: int
    sigma_deg: float | None
    target: FloatArray
    lower_bound: float
    lower_bound_per_angle: FloatArray
    reached: float
    reached_per_angle: FloatArray
    counts_before: IntArray
    outside: IntArray
    counts_after: IntArray
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the rows as what JSON can hold."""
        content = {k: v for k, v in vars(self).items() if k not in ("rows", "config")}
        lists = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in content.items()}
        return {"config": asdict(self.config), **lists, "notes": list(self.notes)}


class _Survey(NamedTuple):
    """What a first look at the pool gives."""

    joint: IntArray
    before: IntArray
    outside: IntArray


class _Plan(NamedTuple):
    """The aim, settled from the joint counts."""

    size: int
    sigma_deg: float | None
    target: FloatArray
    notes: tuple[str, ...]


def sample(pool: Heads, config: SamplingConfig) -> SamplingResult:
    """Return the heads chosen from a pool in memory.

    The result does not depend on the order of the heads, but for the row numbers. A million heads take about
    300 MB beside the pool.

    Raises:
        UbhpdError: no head inside the bins, or a bad target file.
    """
    index = pool.index
    cell = heads.cells(index)
    survey = _survey([(index, pool.refused)])
    plan = _plan(survey.joint, config)
    if config.mode == "independent":
        rows = _independent(pool, cell, survey.joint, plan, config.seed)
        chosen = allocation.joint_counts(cell[rows])
        return _result(config, survey, plan, rows, chosen, allocation.lower_bound(survey.joint, plan.target, plan.size))
    taken, lower_bound = allocation.allocate(survey.joint, plan.target, plan.size)
    return _result(config, survey, plan, pick(pool, cell, taken, config.seed), taken, lower_bound)


def sample_stream(batches: Callable[[], Iterable[Heads]], config: SamplingConfig) -> SamplingResult:
    """Return what `sample` would of the batches in one, without ever holding more than a few of them.

    Memory: about 300 bytes for each of size + max(size, 131,072) heads, and one batch, for a pool of any size.

    Args:
        batches: gives the pool from its start whenever called; it is called twice. For a manifest:
            `lambda: map(heads.from_table, manifest.iterate(path, heads.COLUMNS))`.
        config: as for `sample`; mode "joint".

    Raises:
        UbhpdError: as `sample`; mode "independent"; or the two readings differ.
    """
    if config.mode != "joint":
        raise UbhpdError("The independent mode needs the pool in memory: use mode joint for a pool read in batches.")
    survey = _survey((batch.index, batch.refused) for batch in batches())
    plan = _plan(survey.joint, config)
    taken, lower_bound = allocation.allocate(survey.joint, plan.target, plan.size)
    kept: list[Heads] = []
    kept_rows: list[IntArray] = []
    seen = waiting = 0

    def sift() -> None:
        if kept:
            gathered, rows = heads.concatenated(kept), np.concatenate(kept_rows)
            best = pick(gathered, gathered.cell, taken, config.seed)
            kept[:], kept_rows[:] = [gathered.take(best)], [rows[best]]

    for batch in batches():
        kept.append(batch)
        kept_rows.append(np.arange(seen, seen + len(batch)))
        seen, waiting = seen + len(batch), waiting + len(batch)
        if waiting >= max(_GATHER, plan.size):
            sift()
            waiting = 0
    sift()
    rows = np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *kept_rows]))
    if len(rows) != plan.size:
        raise UbhpdError(f"The pool changed while it was read ({len(rows)} of {plan.size} heads found): start again.")
    return _result(config, survey, plan, rows, taken, lower_bound)


def _survey(batches: Iterable[tuple[IntArray, BoolArray]]) -> _Survey:
    """Count heads from their bins (n, 3) and whether they were refused (n,)."""
    joint = np.zeros(allocation.SHAPE, dtype=np.int64)
    before = np.zeros((len(bins.ANGLES), bins.N_BINS), dtype=np.int64)
    outside = np.zeros(len(bins.ANGLES), dtype=np.int64)
    for index, refused in batches:
        joint += allocation.joint_counts(heads.cells(index))
        found = bins.counts_of_indices(index)
        before += found.inside
        outside += found.outside - refused.sum()
    return _Survey(joint, before, outside)


def _plan(counts: IntArray, config: SamplingConfig) -> _Plan:
    """Settle size, sigma and target, with the notes that say what was reduced."""
    eligible = int(counts.sum())
    if not eligible:
        raise UbhpdError("No head of the pool has all three angles within 90 degrees: there is nothing to sample.")
    notes = []
    size = SIZE if config.size == "auto" else min(config.size, eligible)
    sigma = None
    if config.target == "gaussian":
        sigma = widest_sigma(counts, size, config.tolerance) if config.sigma_deg == "auto" else float(config.sigma_deg)
        target = targets.gaussian(sigma)
    else:
        target = targets.uniform() if config.target == "uniform" else targets.from_file(config.target)
    if config.size != "auto" and config.size > eligible:
        width = "" if sigma is None else f" --sigma {sigma:g}"
        notes.append(
            f"{config.size:,} heads were requested, {eligible:,} are inside the bins: all were taken, "
            f"so the densities are the pool's own; --size auto{width} takes as many as the target allows."
        )
    if config.size == "auto":
        size = largest_size(counts, target, SIZE, config.tolerance)
        lowest = allocation.lower_bound(counts, target, 1)
        goal = "the target" if lowest <= config.tolerance else f"the {lowest:.3f} that no size can do better than"
        notes.append(f"{size:,} heads is the largest size up to {SIZE:,} within {config.tolerance:g} of {goal}.")
    return _Plan(size, sigma, target, tuple(notes))


def _independent(pool: Heads, cell: IntArray, counts: IntArray, plan: _Plan, seed: int) -> IntArray:
    """Return rows drawn without replacement, with weights that are the product over the angles of target / density."""
    rows = np.flatnonzero(cell >= 0)
    rows = rows[np.argsort(pool.sample[rows], kind="stable")]
    index = np.stack(np.unravel_index(cell[rows], allocation.SHAPE))
    with np.errstate(divide="ignore"):
        ratio = np.log(plan.target) - np.log(bins.densities(allocation.marginals(counts)))
    log_weight = ratio[np.arange(len(bins.ANGLES))[:, None], index].sum(axis=0)
    # The largest of log weight + Gumbel noise are a draw without replacement (Efraimidis and Spirakis, 2006).
    noisy = log_weight + np.random.default_rng(seed).gumbel(size=len(rows))
    return np.sort(rows[np.argpartition(-noisy, plan.size - 1)[: plan.size]])


def _result(
    config: SamplingConfig, survey: _Survey, plan: _Plan, rows: IntArray, taken: IntArray, lower_bound: float
) -> SamplingResult:
    reached = allocation.distances(taken, plan.target)
    return SamplingResult(
        config=config,
        rows=rows,
        size_wanted=config.size,
        size=plan.size,
        eligible=int(survey.joint.sum()),
        sigma_deg=plan.sigma_deg,
        target=plan.target,
        lower_bound=lower_bound,
        lower_bound_per_angle=allocation.lower_bounds_alone(survey.joint, plan.target, plan.size),
        reached=float(reached.mean()),
        reached_per_angle=reached,
        counts_before=survey.before,
        outside=survey.outside,
        counts_after=allocation.marginals(taken),
        notes=plan.notes,
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_positive(value: Any) -> bool:
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0
