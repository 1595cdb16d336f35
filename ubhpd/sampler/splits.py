"""Divides heads into train and test, 70/30 unless told otherwise, so that both sides have the same densities.

Three forms, by what must not be on both sides:
* random: nothing but the head itself (the paper's reading). Heads of every joint cell are divided in the share
  wanted, the remainders so that the three histograms come out right, evenly over the datasets.
* sequence: no recording. A folder that was published as a whole, such as those of 300W-LP, is no recording;
  its heads are divided singly.
* subject: no person, recording, photograph or flip pair. A head without any of these is divided singly.
The fewer and larger the groups, the less alike the two sides can be; the result says how alike they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ubhpd import bins
from ubhpd.errors import UbhpdError
from ubhpd.sampler import groups
from ubhpd.sampler.allocation import rounded
from ubhpd.sampler.heads import Heads, mixed

Array = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

FORMS = ("random", "sequence", "subject")
TRAIN, TEST = "train", "test"
SHARE = 0.7

_SIDE_BINS = bins.N_BINS + 1  # of an angle: what is outside the bins has one of its own


@dataclass(frozen=True)
class Split:
    """A division of n heads.

    side: "train" or "test" (n,). share: of train, reached. distance: total variation distance (3,) between the
    densities of the two sides, yaw, pitch, roll; NaN where a side has no head inside the bins. groups: how many
    could not be divided.
    """

    side: npt.NDArray[np.str_]
    form: str
    seed: int
    share_wanted: float
    share: float
    distance: Array
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
        group = (groups.by_recording if form == "sequence" else groups.by_person)(heads) if len(heads) else None
        n_groups = 0 if group is None else int(group.max()) + 1
    if n_groups < 2:
        found = f"{len(heads)} heads in {n_groups} group" + ("" if n_groups == 1 else "s")
        raise UbhpdError(f"There are {found} to split by {form}: two at least are needed, so try another form.")
    index = bins.bin_index(heads.ypr_deg)
    rows = np.where(index < 0, bins.N_BINS, index) + _SIDE_BINS * np.arange(len(bins.ANGLES))
    if group is None:
        train = _by_cell(heads, rows, share, seed)
    else:
        train = groups.halved(group, rows, heads.sample, share, seed)
    return Split(
        side=np.where(train, TRAIN, TEST),
        form=form,
        seed=seed,
        share_wanted=share,
        share=float(train.mean()),
        distance=_distance(index, train),
        groups=n_groups,
    )


def _by_cell(heads: Heads, rows: Whole, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return True (n,) for train: of each joint cell the share wanted, spread over its datasets."""
    n = len(rows)
    cells = (rows % _SIDE_BINS) @ np.array([_SIDE_BINS**2, _SIDE_BINS, 1])
    occupied, cell, held = np.unique(cells, return_inverse=True, return_counts=True)
    slabs = np.stack(np.unravel_index(occupied, (_SIDE_BINS,) * 3)) + _SIDE_BINS * np.arange(3)[:, None]
    total = min(max(round(share * n), 1), n - 1)
    in_row = np.bincount(rows.ravel(), minlength=groups.N_ROWS)
    reached = np.float64(total / n)
    part = rounded(held * reached, held, slabs, in_row * reached, total)
    order = np.lexsort((mixed(heads.sample, seed), mixed(heads.dataset, cell, seed), cell))
    place = np.arange(n) - np.repeat(np.cumsum(held) - held, held)
    of_cell, of_part = np.repeat(held, held), np.repeat(part, held)
    # Of every cell's heads, in order, each of the part-th share goes to train: evenly over what lies side by side.
    train = np.empty(n, dtype=bool)
    train[order] = (place + 1) * of_part // of_cell > place * of_part // of_cell
    return train


def _distance(index: Whole, train: npt.NDArray[np.bool_]) -> Array:
    one, other = (bins.densities(bins.counts_of_indices(index[side]).inside) for side in (train, ~train))
    result: Array = 0.5 * np.abs(one - other).sum(axis=1)
    return result
