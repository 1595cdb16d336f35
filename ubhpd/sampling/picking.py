"""Which heads to take of a joint cell, once it is known how many: evenly over datasets, people and time.

Within a cell the datasets take turns; within a dataset its people; within a person the recordings; within a
recording the frames come in an order that leaves neighbours to the last. Each turn is a rank: the frames of a
recording are numbered, then all of a person's frames by (number in the recording, recording), and so on upward.
The heads with the lowest ranks in the cell are taken, which is the most even share that the counts allow.

Time: frames come by their index with its 32 bits reversed (van der Corput), so first the multiples of a high
power of two, then those of half of it, and so on. Any k frames of a visit of m frames so are about m / k or
more than m / 2k apart, and because the index counts from the start of the recording, frames taken in
neighbouring cells keep the same grid and do not fall side by side.

Ties are broken by keys of the names and the seed, never by position. A head's rank can only grow when heads
are added, so heads not taken of a part are not taken of the whole: pick(a + b) = pick(pick(a) + b). That is
what lets a pool beyond memory go by in batches.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ubhpd.core.typing import BoolArray, IntArray, UInt64Array
from ubhpd.sampling.heads import NO_FRAME, UNKNOWN, Heads, mixed

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
