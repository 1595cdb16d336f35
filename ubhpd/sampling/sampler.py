"""Chooses the heads of UBHPD: from a pool those whose yaw, pitch and roll densities come nearest to a target.

`sample` has the pool in memory, `sample_stream` reads it twice in batches, with the same result. Both go the
same way: count the heads per joint cell, decide how many to take of each (`allocation`), choose which
(`pick`). `mode="independent"` is the plain histogram sampling that the paper's text suggests, for
comparison: each head weighted by the product of its three bins' target / pool density.

What had to be chosen:
* sigma "auto": the widest sigma whose lower bound is within the tolerance, else the sigma with the lowest lower bound.
* target "widest": a sigma per angle, each as wide as the lower bound allows (`targets.widest_sigmas`).
* target "joint": as even over the occupied joint cells as can be (`allocation.allocate_evenly`). The densities of the
  angles then follow from the pool.
* A size above the number of heads inside the bins is reduced to that number, and a note says so. That is the
  largest there is, but it takes every head and balances nothing. size "auto" is the largest size up to 25,000 at
  which the target is still met within the tolerance.

The choice within a joint cell is even over datasets, people and time. Within a cell the datasets take turns; within a
dataset its people; within a person the recordings; within a recording the frames come in an order that leaves
neighbours to the last. Each turn is a rank: the frames of a recording are numbered, then all of a person's frames by
(number in the recording, recording), and so on upward. The heads with the lowest ranks in the cell are taken, which is
the most even share that the counts allow.

Time: frames come by their index with its 32 bits reversed (van der Corput), so first the multiples of a high
power of two, then those of half of it, and so on. Any k frames of a visit of m frames so are about m / k or
more than m / 2k apart, and because the index counts from the start of the recording, frames taken in
neighbouring cells keep the same grid and do not fall side by side.

Ties are broken by keys of the names and the seed, never by position. A head's rank can only grow when heads
are added, so heads not taken of a part are not taken of the whole: pick(a + b) = pick(pick(a) + b). This
property allows to read a pool in batches that does not fit into memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from ubhpd.core import bins
from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import BoolArray, FloatArray, IntArray, UInt64Array
from ubhpd.sampling import allocation, heads, targets
from ubhpd.sampling.heads import NO_FRAME, UNKNOWN, Heads, mixed
from ubhpd.sampling.targets import TOLERANCE, largest_size, widest_sigma, widest_sigmas

_RANK_BITS = np.uint64(40)  # of an order key the upper 24 bits hold a rank, the lower 40 a tie-break
_SPARE, _MORE = 4, 64  # heads per cell to choose from at first: so many times those wanted, and so many more
_MANY_DATASETS = 64


def pick(heads: Heads, cell: IntArray, taken: IntArray, seed: int) -> IntArray:
    """Return the rows (k,), ascending, of the heads to take.

    Args:
        heads: n heads with unique sample names.
        cell: joint cell (n,) of each, -1 for a head that cannot be taken.
        taken: how many to take of each cell, any shape whose flat order is that of the cells.
        seed: another seed gives other heads of the same cells.

    Returns:
        rows; of a cell with fewer heads than are to be taken, all of them.
    """
    quota, salt = taken.ravel(), np.uint64(seed)
    wanted = quota[cell] * (cell >= 0)
    held = np.bincount(cell[cell >= 0], minlength=len(quota))
    contested = (wanted > 0) & (wanted < held[cell])
    rows = np.flatnonzero(contested)
    if len(rows):
        rows = rows[_in_the_running(heads.dataset[rows], heads.person[rows], cell[rows], quota, held, salt)]
    # In the order of their keys, ties below are broken in the same way for every order of the input.
    rows = rows[np.argsort(heads.sample[rows], kind="stable")]
    chosen = _fair_share(heads.take(rows), cell[rows], wanted[rows], salt)
    return np.sort(np.concatenate([np.flatnonzero((wanted > 0) & ~contested), rows[chosen]]))


def _in_the_running(
    dataset: UInt64Array, person: UInt64Array, cell: IntArray, quota: IntArray, held: IntArray, salt: np.uint64
) -> BoolArray:
    """Return False (n,) for heads that cannot be taken, found without sorting them all.

    A person's turn comes after that of all people of the same dataset with a lower tie-break, and with each of
    its turns a dataset lets every other have one. So where the people below some limit, with those of the other
    datasets, fill the quota, nobody above it is needed. The limit lets through about _SPARE times the quota.
    """
    tie = mixed(mixed(cell, salt), person)
    part = np.minimum((_SPARE * quota + _MORE) / np.maximum(held, 1), 1.0)
    # The limit ends in ones, so that what is above it stays above when `_order` cuts the tie-break short.
    limit = (part * float(2**64 - 2**12)).astype(np.uint64) | (~UNKNOWN >> _RANK_BITS)
    below = tie <= limit[cell]
    names = np.unique(dataset[below])
    if not 0 < len(names) <= _MANY_DATASETS:
        return np.ones(len(cell), dtype=bool)
    number = np.minimum(np.searchsorted(names, dataset), len(names) - 1)
    group = cell * len(names) + number
    of_people = group[below][np.unique(mixed(group[below], tie[below]), return_index=True)[1]]
    people = np.bincount(of_people, minlength=len(quota) * len(names)).reshape(len(quota), len(names))
    turns = np.minimum(people[:, :, None], people[:, None, :]).sum(axis=1)
    full = (turns >= quota[:, None]).ravel()
    running: BoolArray = below | (names[number] != dataset) | ~full[group]
    return running


def _fair_share(heads: Heads, cell: IntArray, wanted: IntArray, salt: np.uint64) -> IntArray:
    """Return the rows to take, of heads in the order of their keys and all in cells with more than wanted."""
    rows = np.arange(len(cell))
    rank = np.zeros(len(cell), dtype=np.int64)
    of_cell = mixed(cell, salt)
    of_dataset = mixed(of_cell, heads.dataset)
    recording, person = heads.recording, heads.person
    of_person = mixed(of_dataset, person)

    def turn(among: UInt64Array, order: UInt64Array, which: BoolArray) -> None:
        """Rank the rows marked by `which` within each group of `among`, then drop those that come too late."""
        nonlocal rows
        here = rows[which[rows]]
        rank[here] = _ranks(among[here], order[here])
        rows = rows[rank[rows] < wanted[rows]]

    filmed = (heads.frame_index != NO_FRAME) & (heads.sequence != UNKNOWN)
    turn(mixed(of_person, recording), _time_order(heads.frame_index, recording, salt), filmed)
    turn(of_person, _order(rank, mixed(of_cell, recording)), person != heads.sample)
    turn(of_dataset, _order(rank, mixed(of_cell, person)), np.ones(len(cell), dtype=bool))
    turn(of_cell, _order(rank, of_dataset), np.ones(len(cell), dtype=bool))
    return rows


def _ranks(among: UInt64Array, order: UInt64Array) -> IntArray:
    """Return each row's place, from 0, in its group by `order`; equal orders by position."""
    by_group = np.lexsort((order, among))
    sorted_groups = among[by_group]
    place = np.arange(len(among))
    starts = np.concatenate([[True], sorted_groups[1:] != sorted_groups[:-1]])[: len(among)]
    place -= np.maximum.accumulate(np.where(starts, place, 0))
    ranks = np.empty(len(among), dtype=np.int64)
    ranks[by_group] = place
    return ranks


def _order(rank: IntArray, tie: UInt64Array) -> UInt64Array:
    """Return a key that sorts by rank, then by tie."""
    key: UInt64Array = (rank.astype(np.uint64) << _RANK_BITS) | (tie >> (np.uint64(64) - _RANK_BITS))
    return key


def _time_order(frame_index: IntArray, recording: UInt64Array, salt: np.uint64) -> UInt64Array:
    """Return a key that sorts frames so that any first few of a recording lie far apart in time."""
    bits: Any = (frame_index.astype(np.uint64) + mixed(recording, salt)).astype(np.uint32)
    for shift, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF)):
        low, step = np.uint32(mask), np.uint32(shift)
        bits = ((bits >> step) & low) | ((bits & low) << step)
    reversed_bits: UInt64Array = ((bits >> np.uint32(16)) | (bits << np.uint32(16))).astype(np.uint64)
    return reversed_bits


SIZE = 25_000  # of UBHPD in the paper
MODES = ("joint", "independent")
WIDEST, JOINT = "widest", "joint"  # targets
LIMITS_DEG = (30, 54, 66)  # edges of bins, beyond which the heads are counted
RARE_YAW_DEG, LARGE_ROLL_DEG = 54, 30
UNNATURAL = 0.1  # more of the share of large rolls among rare yaws than in the pool
ROUNDING = 0.001  # distance that whole heads cost at most

_GATHER = 1 << 17  # heads gathered from a stream before the next choice among them


Sigma = float | Literal["auto"]


@dataclass(frozen=True)
class SamplingConfig:
    """What to sample.

    size: heads, or "auto". target: "gaussian", "widest", "uniform", "joint" or a CSV or JSON file. sigma_deg: of the
    Gaussian, or "auto"; three of these for yaw, pitch and roll. seed: which of the equally good heads. mode: "joint" or
    "independent". tolerance: distance to the target that "auto" accepts.
    """

    size: int | Literal["auto"] = SIZE
    target: str = "gaussian"
    sigma_deg: Sigma | tuple[Sigma, ...] = "auto"
    seed: int = 0
    mode: str = field(default="joint", metadata={"choices": MODES})
    tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        if self.size != "auto" and (not _is_whole(self.size) or self.size < 1):
            raise UbhpdError(f"The size of the sample is {self.size!r}: give a whole number of at least 1, or auto.")
        given: Any = self.sigma_deg
        several = isinstance(given, (tuple, list))
        sigmas = tuple(given) if several else (given,)
        if len(sigmas) not in (1, 3) or not all(s == "auto" or _is_positive(s) for s in sigmas):
            raise UbhpdError(
                f"The sigma of the target is {self.sigma_deg!r} degrees: give a positive number or auto, or three of "
                "them for yaw, pitch and roll."
            )
        object.__setattr__(self, "target", targets.name_of(self.target))
        if several:
            object.__setattr__(self, "sigma_deg", sigmas)  # read from JSON, it is a list
        if self.size == "auto" and self.target == "widest":
            raise UbhpdError(
                "The target widest depends on the size, so the size cannot be auto: give --size, or the target "
                "gaussian with a sigma."
            )
        if self.size == "auto" and self.target == "gaussian" and "auto" in sigmas:
            raise UbhpdError(
                "Size and sigma are both auto, which leaves nothing to aim at: give one of them, as --sigma 20."
            )
        if self.target == "widest" and self.sigma_deg != "auto":
            raise UbhpdError("The target widest finds its own sigmas: leave the sigma out, or use the target gaussian.")
        if self.target == "joint" and (self.size == "auto" or self.mode == "independent"):
            raise UbhpdError("The target joint needs a size, and mode joint: give --size, and leave the mode out.")
        if self.mode not in MODES:
            raise UbhpdError(f"There is no sampling mode {self.mode!r}: choose {' or '.join(MODES)}.")
        if not _is_whole(self.seed) or not 0 <= self.seed < 2**63:
            raise UbhpdError(f"The seed is {self.seed!r}: give a whole number from 0 to 2**63 - 1.")
        if not _is_positive(self.tolerance):
            raise UbhpdError(f"The tolerance is {self.tolerance!r}: give a positive number, such as {TOLERANCE}.")


@dataclass(frozen=True)
class SamplingResult:
    """What was chosen and how near it came. Distances are total variation, 0 to 1; arrays are (3,) or (3, 15).

    rows: indices into the pool, ascending. eligible: usable heads with all angles inside the bins. sigma_deg: of the
    Gaussian, three where the angles differ, None for other targets. lower_bound: the smallest distance that any heads
    of this number can have; lower_bound_per_angle: the smallest of each angle if the others did not matter.
    counts_before, outside: of the usable heads of the pool. cells: effective number of joint cells
    (`allocation.effective_cells`) of pool and UBHPD, and the number of occupied ones of both. beyond: share of the
    heads inside the bins whose angle is beyond 30, 54 and 66 degrees, of pool, target and UBHPD. rolled: of the heads
    of pool and UBHPD with a yaw beyond 54 degrees, the share with a roll beyond 30. notes, warnings: sentences for the
    user.
    """

    config: SamplingConfig
    rows: IntArray
    size_wanted: int | Literal["auto"]
    size: int
    eligible: int
    sigma_deg: float | tuple[float, ...] | None
    target: FloatArray
    lower_bound: float
    lower_bound_per_angle: FloatArray
    reached: float
    reached_per_angle: FloatArray
    counts_before: IntArray
    outside: IntArray
    counts_after: IntArray
    cells: dict[str, dict[str, float]]
    beyond: dict[str, dict[str, list[float]]]
    rolled: dict[str, float | None]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the rows as what JSON can hold."""
        content = {k: v for k, v in vars(self).items() if k not in ("rows", "config")}
        lists = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in content.items()}
        return {"config": asdict(self.config), **lists, "notes": list(self.notes), "warnings": list(self.warnings)}


class _Survey(NamedTuple):
    """What a first look at the pool gives."""

    joint: IntArray
    before: IntArray
    outside: IntArray


class _Plan(NamedTuple):
    """The aim, settled from the joint counts."""

    size: int
    sigma_deg: float | tuple[float, ...] | None
    target: FloatArray
    notes: tuple[str, ...]

    def allocate(self, counts: IntArray, config: SamplingConfig) -> allocation.Allocation:
        if config.target == JOINT:
            return allocation.allocate_evenly(counts, self.size)
        return allocation.allocate(counts, self.target, self.size)


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
    taken, lower_bound = plan.allocate(survey.joint, config)
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
    taken, lower_bound = plan.allocate(survey.joint, config)
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


def _sigma(counts: IntArray, size: int, config: SamplingConfig) -> float | tuple[float, ...]:
    """Return the sigma of the Gaussian, or three where they differ."""
    if config.target != WIDEST and not isinstance(config.sigma_deg, tuple):
        if config.sigma_deg == "auto":
            return widest_sigma(counts, size, config.tolerance)
        return float(config.sigma_deg)
    wanted = config.sigma_deg if isinstance(config.sigma_deg, tuple) else (config.sigma_deg,) * 3
    return widest_sigmas(counts, size, wanted, config.tolerance)


def _plan(counts: IntArray, config: SamplingConfig) -> _Plan:
    """Settle size, sigma and target, with the notes that say what was reduced."""
    eligible = int(counts.sum())
    if not eligible:
        raise UbhpdError("No head of the pool has all three angles within 90 degrees: there is nothing to sample.")
    notes = []
    size = SIZE if config.size == "auto" else min(config.size, eligible)
    sigma: float | tuple[float, ...] | None = None
    if config.target in ("gaussian", WIDEST):
        sigma = _sigma(counts, size, config)
        target = targets.gaussian(sigma)
    elif config.target == JOINT:
        target = bins.densities(allocation.marginals(allocation.allocate_evenly(counts, size).taken))
    else:
        target = targets.uniform() if config.target == "uniform" else targets.from_file(config.target)
    if config.size == "auto":
        size = largest_size(counts, target, SIZE, config.tolerance)
        lowest = allocation.lower_bound(counts, target, 1)
        goal = "the target" if lowest <= config.tolerance else f"the {lowest:.3f} that no size can do better than"
        notes.append(
            f"{size:,} heads is the largest size up to {SIZE:,} whose lower bound is within {config.tolerance:g} of "
            f"{goal}."
        )
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
    rolled = {name: rolled_share(counts.sum(axis=1)) for name, counts in (("pool", survey.joint), ("ubhpd", taken))}
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
        cells={
            name: {"effective": round(allocation.effective_cells(counts), 3), "occupied": int((counts > 0).sum())}
            for name, counts in (("pool", survey.joint), ("ubhpd", taken))
        },
        beyond={
            name: _beyond(density)
            for name, density in (
                ("pool", bins.densities(survey.before)),
                ("target", plan.target),
                ("ubhpd", bins.densities(allocation.marginals(taken))),
            )
        },
        rolled=rolled,
        notes=plan.notes,
        warnings=tuple(_warnings(config, plan, int(survey.joint.sum()), float(reached.mean()), rolled)),
    )


def rolled_share(yaw_roll: IntArray) -> float | None:
    """Return the share of the heads with a yaw beyond 54 degrees whose roll is beyond 30; None without such heads.

    Args:
        yaw_roll: heads per bin of yaw and of roll (15, 15).
    """
    turned = yaw_roll[np.abs(bins.CENTRES_DEG) > RARE_YAW_DEG].sum(axis=0)
    return float(turned[np.abs(bins.CENTRES_DEG) > LARGE_ROLL_DEG].sum() / turned.sum()) if turned.any() else None


def _warnings(
    config: SamplingConfig, plan: _Plan, eligible: int, reached: float, rolled: dict[str, float | None]
) -> Iterator[str]:
    """Yield what a user should know before training on the result."""
    sigma = "" if plan.sigma_deg is None else f" --target gaussian --sigma {sigma_text(plan.sigma_deg)}"
    if plan.size == eligible and config.size != "auto":
        requested = f"{config.size:,} heads were requested and " if config.size > eligible else ""
        yield (
            f"{requested}all {eligible:,} heads inside the bins were taken, so nothing is balanced and the densities "
            f"are the pool's own: --size auto{sigma} takes as many as the target allows."
        )
    elif config.target != JOINT and reached > config.tolerance + ROUNDING:
        yield (
            f"UBHPD misses its target: it is {reached:.4f} away from it and the tolerance is {config.tolerance:g}: "
            f"--size auto{sigma} takes as many heads as the target allows."
        )
    pool, own = rolled["pool"], rolled["ubhpd"]
    if pool is not None and own is not None and own > pool + UNNATURAL:
        yield (
            f"Rare yaws do not come with their natural roll: of the heads with a yaw beyond {RARE_YAW_DEG} degrees, "
            f"{own:.0%} have a roll beyond {LARGE_ROLL_DEG} degrees, of the pool's {pool:.0%}; --target joint or "
            "widest keeps more of the others (figures/joint.png)."
        )


def sigma_text(sigma_deg: float | tuple[float, ...]) -> str:
    """Return a sigma as the option takes it: one number, or three with commas."""
    return ",".join(f"{s:g}" for s in np.atleast_1d(sigma_deg))


def _beyond(density: FloatArray) -> dict[str, list[float]]:
    """Return by limit the share (3,) of a density (3, 15) in the bins beyond the limit to either side."""
    return {f"{limit}": density[:, np.abs(bins.CENTRES_DEG) > limit].sum(axis=1).tolist() for limit in LIMITS_DEG}


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_positive(value: Any) -> bool:
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0
