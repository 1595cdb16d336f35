"""Weights of heads that make up for an uneven distribution of poses, from the training set's own densities.

Let a set have n heads, and s_j(b) be the share of its heads in bin b of angle j, for the 15 bins of `ubhpd.core.bins`;
a bin that holds a head is occupied.

    sampling   w_i = 1 / (K s(c_i))                     c_i the joint cell of yaw, pitch and roll, K cells occupied
    loss       w_i = 1/3 sum_j 1 / (K_j s_j(b_ij))      K_j bins occupied of angle j
    lds        w_i = 1/3 sum_j 1 / (Z_j t_j(b_ij))      t_j(b) = sum_k g(k) s_j(b + k), k = -2 ... 2

g(k) is proportional to exp(-k^2 / (2 sigma^2)) with sigma = 2 and sum 1, and s_j is 0 beyond the ends: label
distribution smoothing (LDS; Yang et al., Delving into Deep Imbalanced Regression, ICML 2021, section 3.1; kernel of
5 bins and sigma 2 as there). Z_j makes the mean 1. An angle outside the bins counts as 1. All weights have mean
1: as probabilities, w_i / n, every occupied cell is drawn equally often.

The heads to train on are those of a protocol's training split or of UBHPD's split train, and no others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd import manifest
from ubhpd.core import bins
from ubhpd.core.bins import ANGLES
from ubhpd.core.errors import UbhpdError, shortened
from ubhpd.core.typing import FloatArray, IntArray
from ubhpd.manifest import UBHPD, BuildFolder, readmitted
from ubhpd.manifest.schema import COLUMNS, NAMES, Fingerprint
from ubhpd.protocols.resolve import ids_hash, resolve, training_protocol
from ubhpd.sampling import heads as sampled
from ubhpd.sampling.splits import split

LDS_SIGMA_BINS = 2.0
LDS_REACH_BINS = 2


def sampling_weights(angles_deg: npt.ArrayLike) -> FloatArray:
    """Return weights (n,) with mean 1, by the inverse density of joint cells, of angles (n, 3) in degrees.

    A head with an angle outside the bins has the weight 1 before all are brought to mean 1.
    """
    index = bins.bin_index(angles_deg)
    inside = (index >= 0).all(axis=1)
    cells = index @ np.array([bins.N_BINS**2, bins.N_BINS, 1])
    weights = np.ones(len(index))
    if inside.any():
        _, cell, held = np.unique(cells[inside], return_inverse=True, return_counts=True)
        weights[inside] = inside.sum() / (len(held) * held[cell])
    found: FloatArray = weights / weights.mean()
    return found


def loss_weights(angles_deg: npt.ArrayLike, smoothed: bool = False) -> FloatArray:
    """Return weights (n,) with mean 1, by the inverse density of each angle, or by the smoothed one (LDS).

    Args:
        angles_deg: canonical yaw, pitch, roll (n, 3).
        smoothed: LDS.
    """
    index = bins.bin_index(angles_deg)
    density = bins.densities(bins.counts_of_indices(index).inside)
    if smoothed:
        density = smoothed_density(density)
    weights = np.ones(index.shape)
    for angle in range(index.shape[1]):
        inside = index[:, angle] >= 0
        if inside.any():
            inverse = 1.0 / density[angle, index[inside, angle]]
            weights[inside, angle] = inverse / inverse.mean()
    found: FloatArray = weights.mean(axis=1)
    return found


def smoothed_density(density: FloatArray) -> FloatArray:
    """Return densities (3, 15) convolved with a Gaussian of 5 bins, sigma 2 bins, nothing beyond the ends."""
    reach = np.arange(-LDS_REACH_BINS, LDS_REACH_BINS + 1)
    kernel = np.exp(-(reach**2) / (2 * LDS_SIGMA_BINS**2))
    kernel /= kernel.sum()
    return np.stack([np.convolve(row, kernel, mode="same") for row in np.nan_to_num(density)])


TRAIN = "train"
_VALIDATION_SEED = 0  # one for all runs, so that what runs with several seeds are chosen by is the same


class TrainingSplit(NamedTuple):
    """Rows of a manifest, every column of `COLUMNS`, and where they are from; warnings are sentences.

    completed: the same rows with the landmarks of another manifest where it has some. Crops are cut by `table`, so that
    they are those of the paper wherever landmarks come from.
    """

    table: pa.Table
    completed: pa.Table
    origin: dict[str, Any]
    warnings: tuple[str, ...] = ()


class Held(NamedTuple):
    """Rows to train on and rows held out, and in words by what the two were kept apart."""

    train: IntArray
    validation: IntArray
    grouped_by: str


def training_split(
    data: Path, protocol: str | None, frame_list: Path | None = None, seed: int = 0, landmarks: Path | None = None
) -> TrainingSplit:
    """Return the heads that train, and nothing of those that test.

    Args:
        data: folder of a build.
        protocol: an id or a short name, as "1"; None for the split train of ubhpd.parquet.
        frame_list: for protocols that need one.
        seed: of a protocol that divides one set of heads.
        landmarks: a manifest with landmarks of these heads, see `BuildFolder.landmarks`.

    Raises:
        UbhpdError: no build, no such protocol or split, no usable head, or no such file of landmarks.
    """
    build = BuildFolder(data)
    build.check()
    filled = build.landmarks(landmarks)
    if protocol is None:
        path = build.require(UBHPD, "Training without --protocol")
        table = _read(path, pc.equal, "split", TRAIN)
        table = table.filter(table.column("drop_reason").is_null())
        origin: dict[str, Any] = {"split": TRAIN}
        warnings: tuple[str, ...] = ()
    else:
        protocol = training_protocol(protocol).id
        found = resolve(protocol, data, frame_list, seed)
        path = build.require(found.protocol.train.table, f"Protocol {protocol}")
        table = _read(path, pc.is_in, "sample_id", pa.array(found.train, pa.string()))
        table = readmitted(table)
        origin = {"protocol": protocol, "list": found.hash, "protocol_seed": found.seed}
        warnings = found.warnings
    if not table.num_rows:
        raise UbhpdError(f"{path} has no usable head to train on.")
    completed = table
    if filled is not None:
        completed = manifest.with_landmarks(table, filled)
        origin["landmarks"] = {"file": filled.name, "fingerprint": manifest.header(filled).fingerprint}
    mark = Fingerprint(COLUMNS)
    mark.update(completed)
    return TrainingSplit(table, completed, {
        "manifest": path.name, "manifest_fingerprint": manifest.header(path).fingerprint, **origin,
        "heads_sha256": ids_hash(table.column("sample_id").to_pylist()), "fingerprint": mark.hexdigest(),
    }, warnings)  # fmt: skip


class Supervision(NamedTuple):
    """How many of the heads that are trained on supervise a term of the loss."""

    term: str
    heads: int
    of: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.heads / self.of if self.of else 0.0

    def __str__(self) -> str:
        return f"{self.term} by {self.heads:,} of {self.of:,} heads ({self.share:.1%})"


LEAST_SHARE = 0.5  # of the heads; a term with fewer is a warning


def supervision(terms: Mapping[str, Sequence[int]], landmarks: FloatArray | None, rows: IntArray) -> list[Supervision]:
    """Return how many heads supervise each term of a loss that needs landmarks.

    Args:
        terms: the landmarks (of 68) that each term compares; a head with one of them supervises it.
        landmarks: of all heads (n, 68, 2), NaN where not known; None if none is.
        rows: which of the heads are trained on.
    """
    found = []
    for term, points in terms.items():
        known = 0
        if landmarks is not None:
            known = int(np.isfinite(landmarks[np.ix_(rows, np.asarray(points))]).any(axis=(1, 2)).sum())
        found.append(Supervision(term, known, len(rows)))
    return found


def check_supervision(shares: Sequence[Supervision], allowed: Collection[str]) -> tuple[list[str], list[str]]:
    """Return what to say, and what to warn of, about the terms of a loss that need landmarks.

    Args:
        shares: of the terms.
        allowed: terms that may be supervised by no head.

    Raises:
        UbhpdError: a term without any head that is not allowed, or an allowed one that there is not.
    """
    if stray := [t for t in allowed if t not in {s.term for s in shares}]:
        known = ", ".join(s.term for s in shares) or "none"
        raise UbhpdError(
            f"{shortened(stray[0])} is allowed to be unsupervised, but no such term of this loss needs landmarks "
            f"({known}): leave --allow-unsupervised {shortened(stray[0])} out."
        )
    for own in shares:
        if not own.heads and own.term not in allowed:
            raise UbhpdError(
                f"None of the {own.of:,} heads to train on has landmarks, so nothing supervises the loss term "
                f"{own.term}: fill them by ubhpd landmarks, give its weight 0, or allow it by --allow-unsupervised "
                f"{own.term}."
            )
    told = ["Supervision of the loss: " + ", ".join(map(str, shares)) + "; its other terms by all."] if shares else []
    few = [
        f"Only {own.share:.1%} of the heads supervise the loss term {own.term}: fill landmarks by ubhpd landmarks to "
        "train as the paper does."
        for own in shares
        if own.share < LEAST_SHARE
    ]
    return told, few


def angles_deg(table: pa.Table) -> FloatArray:
    """Return canonical yaw, pitch, roll (n, 3) of rows."""
    return np.stack([table.column(f"{a}_deg").to_numpy() for a in ANGLES], axis=1).astype(np.float64)


def held_out(table: pa.Table, share: float) -> Held:
    """Return a division of the rows: no person, recording, photograph or flip pair is in both splits.

    Args:
        table: rows with the columns of a manifest.
        share: of the rows to hold out; 0 holds out none.

    Raises:
        UbhpdError: all heads belong together, so that none can be held out.
    """
    rows = np.arange(table.num_rows)
    if share == 0:
        return Held(rows, rows[:0], "nothing")
    try:
        found = split(sampled.from_table(table), "subject", _VALIDATION_SEED, 1 - share)
    except UbhpdError as error:
        raise UbhpdError(
            f"No validation heads can be held out ({str(error).partition(':')[0]}): train with --validation 0, "
            "which keeps the last epoch."
        ) from None
    trains = found.side == TRAIN
    return Held(rows[trains], rows[~trains], "person, recording, photograph and flip pair")


def _read(path: Path, condition: Any, column: str, value: Any) -> pa.Table:
    """Return the rows that meet a condition; the others are let go as they are read."""
    names = list(dict.fromkeys([*NAMES, column]))
    batches = [b.filter(condition(b.column(column), value)) for b in manifest.iterate(path, names)]
    return pa.Table.from_batches(batches).select(NAMES)
