"""Which heads must stay in one split, and how to halve groups so that both splits look alike.

Heads are linked where they share a person, a recording, a photograph or where one mirrors the other; a group is
a connected component of these links. A head without any name to link it is a group of its own.

Divides heads into train and test, 70/30 by default, so that both splits have the same densities.

Three forms, by what must not be in both splits:
* random: nothing but the head itself (the paper's reading). Heads of every joint cell are divided in the share
  wanted, the remainders so that the three histograms come out right, evenly over the datasets.
* sequence: no recording. A folder that was published as a whole, such as those of 300W-LP, is no recording;
  its heads are divided singly.
* subject: no person, recording, photograph or flip pair. A head without any of these is divided singly.
The fewer and larger the groups, the less alike the two splits can be; the result says how alike they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from ubhpd.core import bins
from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import BoolArray, FloatArray, IntArray, UInt64Array
from ubhpd.sampling.allocation import rounded
from ubhpd.sampling.heads import UNKNOWN, Heads, mixed

N_ROWS = len(bins.ANGLES) * (bins.N_BINS + 1)  # a row for each bin of each angle, and one for what is in none

_ONE_BY_ONE = 2048  # groups, the largest first, that are placed one after the other
_SMALL_ONES = 2048  # of the others, how many may change splits to correct the remaining difference
_PAIRS = 64  # groups per split among which exchanges are tried
_MAX_MOVES = 500
_FEW = 256  # groups, up to which the search is begun anew from other divisions
_STARTS = 64


def by_recording(heads: Heads) -> IntArray:
    """Return a group number (n,) per head: the recording, where frames are counted, else the head itself."""
    return _joined(len(heads), [heads.recording])


def by_person(heads: Heads) -> IntArray:
    """Return a group number (n,) per head such that no person, recording, photograph or flip pair is in two."""
    # A head and its mirror image name the same sample, whether or not the original is among the heads.
    return _joined(len(heads), [heads.sample, heads.flip_of], [heads.subject], [heads.photo], [heads.recording])


def halved(group: IntArray, rows: IntArray, sample: UInt64Array, share: float, seed: int) -> BoolArray:
    """Return True (n,) for the heads of the groups that make up `share` of all, chosen so that the rest is alike.

    The large groups are placed one by one, each on the side where the histograms stay nearer to the share;
    the many small ones by turns along the cells; then single groups change splits, and pairs are exchanged, for
    as long as that helps. What is minimised is sum |train - share * all| over the bins of the three angles,
    which holds the distance between the densities and the error of the share. It is a heuristic: the best
    division is a hard problem (number partitioning).

    Args:
        group: number of the group (n,), from 0 without gaps.
        rows: bin rows (n, 3) of each head, 0 to N_ROWS - 1.
        sample: key (n,) of each head; ties are broken by these, so the order of heads does not matter.
        share: part of the heads, 0 to 1.
        seed: another seed gives another division, unless the groups are so few that one is found to be the best.
    """
    n_groups = int(group.max()) + 1
    sizes = np.bincount(group)
    marks = np.full(n_groups, ~UNKNOWN)
    np.minimum.at(marks, group, mixed(sample, seed))
    first_cell = np.full(n_groups, np.iinfo(np.int64).max)
    np.minimum.at(first_cell, group, rows @ np.array([N_ROWS**2, N_ROWS, 1]))
    order = np.lexsort((marks, first_cell, -sizes))
    place = np.empty(n_groups, dtype=np.int64)
    place[order] = np.arange(n_groups)
    entries = (np.ones(rows.size), (np.repeat(place[group], rows.shape[1]), rows.ravel()))
    profile = sparse.coo_array(entries, shape=(n_groups, N_ROWS)).tocsr()
    large = min(n_groups, _ONE_BY_ONE)
    placed = np.empty(n_groups, dtype=bool)
    placed[:large], off = _one_by_one(profile[:large].toarray(), share, marks[order[:large]])
    turn = np.arange(n_groups - large + 1) * share + (seed % 1009) / 1009
    placed[large:] = np.diff(np.floor(turn)) > 0
    off = off + (placed[large:] - share) @ profile[large:]
    small = large + np.argsort(marks[order[large:]], kind="stable")[:_SMALL_ONES]
    movable = np.concatenate([np.arange(large), small])
    dense = profile[movable].toarray()
    best, cost = _improved(dense, placed[movable], off)
    if n_groups <= _FEW:
        for start in np.random.default_rng(seed).random((_STARTS - 1, n_groups)) < share:
            other, other_cost = _improved(dense, start, (start - share) @ dense)
            if other_cost < cost - 1e-9:
                best, cost = other, other_cost
    placed[movable] = best
    return placed[place[group]]


def _one_by_one(profile: FloatArray, share: float, marks: UInt64Array) -> tuple[BoolArray, FloatArray]:
    """Return the side of each group (g,), and how far train is off its share in each row."""
    off = np.zeros(profile.shape[1])
    train = np.zeros(len(profile), dtype=bool)
    for i, (heads, mark) in enumerate(zip(profile, marks, strict=True)):
        with_it, without = off + (1 - share) * heads, off - share * heads
        cost, other = np.abs(with_it).sum(), np.abs(without).sum()
        # Equal costs, as for the first group, are settled by lot.
        train[i] = cost < other if abs(cost - other) > 1e-9 else float(mark) / 2.0**64 < share
        off = with_it if train[i] else without
    return train, off


def _improved(profile: FloatArray, train: BoolArray, off: FloatArray) -> tuple[BoolArray, float]:
    """Return the sides after moves and exchanges, each of which lessens the sum of |off|, and that sum."""
    train = train.copy()
    if train.all() or not train.any():
        train[0] = not train[0]
        off = off + np.where(train[0], 1.0, -1.0) * profile[0]
    for _ in range(_MAX_MOVES):
        step = np.where(train, -1.0, 1.0)[:, None] * profile
        cost = np.abs(off + step).sum(axis=1)
        cost[_last_of_a_side(train)] = np.inf
        best = int(np.argmin(cost))
        now = np.abs(off).sum()
        if cost[best] < now - 1e-9:
            moved = [best]
        else:
            moved = _best_exchange(step, train, cost, off, now - 1e-9)
            if not moved:
                break
        off = off + step[moved].sum(axis=0)
        train[moved] = ~train[moved]
    return train, float(np.abs(off).sum())


def _best_exchange(step: FloatArray, train: BoolArray, cost: FloatArray, off: FloatArray, limit: float) -> list[int]:
    """Return the pair of groups, one of each split, whose exchange is best and better than limit; else none."""
    by_cost = np.argsort(cost, kind="stable")
    leave, enter = by_cost[train[by_cost]][:_PAIRS], by_cost[~train[by_cost]][:_PAIRS]
    if not (len(leave) and len(enter)):
        return []
    pairs = np.abs(off + step[leave][:, None] + step[enter][None]).sum(axis=2)
    i, k = np.unravel_index(int(np.argmin(pairs)), pairs.shape)
    return [int(leave[i]), int(enter[k])] if pairs[i, k] < limit else []


def _last_of_a_side(train: BoolArray) -> IntArray:
    """Return the group that is alone in its split, which must not leave it, if there is one."""
    alone = [np.flatnonzero(side) for side in (train, ~train) if side.sum() == 1]
    return np.concatenate([*alone, np.zeros(0, dtype=np.int64)]).astype(np.int64)


def _joined(n: int, *names: list[UInt64Array]) -> IntArray:
    """Return the component (n,) of each head, linked where two heads share a key within one of the lists."""
    heads, nodes, size = [], [], n
    for keys in names:
        joined = np.concatenate(keys)
        words, number = np.unique(joined, return_inverse=True)
        known = np.flatnonzero(joined != UNKNOWN)
        heads.append(known % n)
        nodes.append(size + number[known])
        size += len(words)
    rows, columns = np.concatenate(heads), np.concatenate(nodes)
    graph = sparse.coo_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(size, size))
    label = connected_components(graph, directed=False)[1][:n]
    return np.unique(label, return_inverse=True)[1].astype(np.int64)


FORMS = ("random", "sequence", "subject")
TRAIN, TEST = "train", "test"
SHARE = 0.7

_SIDE_BINS = bins.N_BINS + 1  # of an angle: what is outside the bins has one of its own


@dataclass(frozen=True)
class Split:
    """A division of n heads.

    side: "train" or "test" (n,). share: of train, reached. distance: total variation distance (3,) between the
    densities of the two splits, yaw, pitch, roll; NaN where a split has no head inside the bins. groups: how many
    could not be divided.
    """

    side: npt.NDArray[np.str_]
    form: str
    seed: int
    share_wanted: float
    share: float
    distance: FloatArray
    groups: int

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the sides as what JSON can hold."""
        content = {k: v for k, v in vars(self).items() if k not in ("side", "distance")}
        return {**content, "distance": [None if np.isnan(d) else float(d) for d in self.distance]}


def split(heads: Heads, form: str = "random", seed: int = 0, share: float = SHARE) -> Split:
    """Return the division of the heads.

    It does not depend on the order of the heads, nor, in the forms sequence and subject, on anything but names,
    bins and the seed.

    Args:
        heads: with unique sample names.
        form: a name of FORMS.
        seed: another seed gives another division of the same kind.
        share: of the heads for train, between 0 and 1.

    Raises:
        UbhpdError: no such form, a share that is not between 0 and 1, a bad seed, or fewer than two groups.
    """
    if form not in FORMS:
        raise UbhpdError(f"There is no split {form!r}: choose {', '.join(FORMS)}.")
    if not 0 < share < 1:
        raise UbhpdError(f"The share of train is {share!r}: give a number between 0 and 1, such as {SHARE}.")
    if seed < 0:
        raise UbhpdError(f"The seed is {seed!r}: give a whole number of at least 0.")
    if form == "random":
        n_groups, group = len(heads), None
    else:
        group = (by_recording if form == "sequence" else by_person)(heads) if len(heads) else None
        n_groups = 0 if group is None else int(group.max()) + 1
    if n_groups < 2:
        found = f"{len(heads)} heads in {n_groups} group" + ("" if n_groups == 1 else "s")
        raise UbhpdError(f"There are {found} to split by {form}: two at least are needed, so try another form.")
    index = bins.bin_index(heads.ypr_deg)
    rows = np.where(index < 0, bins.N_BINS, index) + _SIDE_BINS * np.arange(len(bins.ANGLES))
    train = _by_cell(heads, rows, share, seed) if group is None else halved(group, rows, heads.sample, share, seed)
    return Split(
        side=np.where(train, TRAIN, TEST),
        form=form,
        seed=seed,
        share_wanted=share,
        share=float(train.mean()),
        distance=_distance(index, train),
        groups=n_groups,
    )


def _by_cell(heads: Heads, rows: IntArray, share: float, seed: int) -> BoolArray:
    """Return True (n,) for train: of each joint cell the share wanted, spread over its datasets."""
    n = len(rows)
    cells = (rows % _SIDE_BINS) @ np.array([_SIDE_BINS**2, _SIDE_BINS, 1])
    occupied, cell, held = np.unique(cells, return_inverse=True, return_counts=True)
    slabs = np.stack(np.unravel_index(occupied, (_SIDE_BINS,) * 3)) + _SIDE_BINS * np.arange(3)[:, None]
    total = min(max(round(share * n), 1), n - 1)
    in_row = np.bincount(rows.ravel(), minlength=N_ROWS)
    reached = np.float64(total / n)
    part = rounded(held * reached, held, slabs, in_row * reached, total)
    order = np.lexsort((mixed(heads.sample, seed), mixed(heads.dataset, cell, seed), cell))
    place = np.arange(n) - np.repeat(np.cumsum(held) - held, held)
    of_cell, of_part = np.repeat(held, held), np.repeat(part, held)
    # Of every cell's heads, in order, each of the part-th share goes to train: evenly over what lies side by side.
    train = np.empty(n, dtype=bool)
    train[order] = (place + 1) * of_part // of_cell > place * of_part // of_cell
    return train


def _distance(index: IntArray, train: BoolArray) -> FloatArray:
    one, other = (bins.densities(bins.counts_of_indices(index[side]).inside) for side in (train, ~train))
    result: FloatArray = 0.5 * np.abs(one - other).sum(axis=1)
    return result
