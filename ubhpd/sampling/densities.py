"""Counts heads for the figures of densities: per dataset, in the pool, in UBHPD and in each split.

Only usable heads count (`drop_reason` is null). What lies in which bin is settled in `bins`; a head outside the
bins of an angle is counted apart.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.compute as pc

from ubhpd import manifest
from ubhpd.core import bins
from ubhpd.core.bins import ANGLES, EDGES_DEG, N_BINS
from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import AnyArray, FloatArray, IntArray
from ubhpd.manifest import BuildFolder
from ubhpd.sampling import targets

POOL, UBHPD, TARGET = "pool", "UBHPD", "target"
SIDES = ("train", "test")
PAIRS = ((0, 1), (0, 2), (1, 2))


@dataclass
class Tally:
    """Heads counted: per angle and bin (3, 15), outside the bins (3,), and per pair of PAIRS (3, 15, 15)."""

    name: str
    heads: int = 0
    inside: IntArray = field(default_factory=lambda: np.zeros((len(ANGLES), N_BINS), dtype=np.int64))
    outside: IntArray = field(default_factory=lambda: np.zeros(len(ANGLES), dtype=np.int64))
    joint: IntArray = field(default_factory=lambda: np.zeros((len(PAIRS), N_BINS, N_BINS), dtype=np.int64))
    sides: dict[str, Tally] = field(default_factory=dict)

    def add(self, index: IntArray, side: AnyArray | None = None) -> None:
        """Count heads of the bins `index` (n, 3), and again by what `side` (n,) says: "train" or "test"."""
        found = bins.counts_of_indices(index)
        self.heads += len(index)
        self.inside += found.inside
        self.outside += found.outside
        self.joint += _joint(index)
        for name in SIDES if side is not None else ():
            if np.any(own := side == name):
                self.sides.setdefault(name, Tally(f"{self.name} {name}")).add(index[own])


@dataclass(frozen=True)
class Densities:
    """What the figures show: the datasets, the pool of them all, UBHPD or None, and a target (3, 15) or None.

    The datasets are the pool's; where there is no pool, they are those inside UBHPD.
    """

    datasets: tuple[Tally, ...]
    pool: Tally | None
    ubhpd: Tally | None
    target: FloatArray | None = None


def from_arrays(
    datasets: Mapping[str, npt.ArrayLike],
    ubhpd: npt.ArrayLike | None = None,
    split: Sequence[str] | None = None,
    target: FloatArray | None = None,
) -> Densities:
    """Return the counts of datasets and UBHPD given as yaw, pitch, roll in degrees (n, 3).

    Args:
        datasets: usable heads by name of the dataset; together they are the pool.
        ubhpd: the heads chosen.
        split: "train" or "test" of each head of `ubhpd`.
        target: density (3, 15) that UBHPD aims at.

    Raises:
        UbhpdError: no head at all, or angles of another shape.
    """
    own = [Tally(name) for name in datasets]
    pool, after = Tally(POOL) if own else None, None
    for tally, angles in zip(own, datasets.values(), strict=True):
        index = _indices(angles)
        tally.add(index)
        if pool is not None:
            pool.add(index)
    if ubhpd is not None:
        index, side = _indices(ubhpd), None if split is None else np.asarray(split, dtype=object)
        if side is not None and side.shape != (len(index),):
            raise UbhpdError(f"The split has shape {side.shape}, UBHPD {len(index)} heads: give one split per head.")
        after = Tally(UBHPD)
        after.add(index, side)
    totals = [t for t in (pool, after) if t is not None]
    if not totals or not all(t.heads for t in totals):
        raise UbhpdError("No head was given for the pool, or none for UBHPD: there is nothing to draw.")
    return Densities(tuple(own), pool, after, target)


def read(place: str | os.PathLike[str], target: FloatArray | None = None) -> Densities:
    """Return the counts of a build's folder (pool and, if it is there, UBHPD) or of one manifest, read in batches.

    A manifest named ubhpd, or with a column `split`, is UBHPD; any other is a pool.

    Raises:
        UbhpdError: no manifest there, not a readable one, or without a usable head.
    """
    build = BuildFolder.at(place)
    if build.named is not None:
        files = [build.named]
    else:
        files = [f for kind in (manifest.POOL, manifest.UBHPD) if (f := build.find(kind)) is not None]
        files = files or [build.manifest()]  # which says that there is none
    datasets: dict[str, Tally] = {}
    pool = ubhpd = None
    for file in files:
        has_split = "split" in manifest.header(file).schema.names
        is_ubhpd = has_split or file.stem == "ubhpd"
        total = Tally(UBHPD if is_ubhpd else POOL)
        own: dict[str, Tally] = {}
        for name, index, side in _usable(file, has_split):
            own.setdefault(name, Tally(name)).add(index)
            total.add(index, side)
        if not total.heads:
            raise UbhpdError(f"{file} holds no usable head: there is nothing to draw.")
        pool, ubhpd = (pool, total) if is_ubhpd else (total, ubhpd)
        datasets = datasets or own
    return Densities(tuple(datasets.values()), pool, ubhpd, target)


def target_for(place: str | os.PathLike[str], wanted: str | None = None) -> FloatArray | None:
    """Return the density (3, 15) to aim at: sigma in degrees (or three), "uniform" or a file; else that of build.json.

    Raises:
        UbhpdError: not a target that `targets` knows.
    """
    if wanted is not None and targets.name_of(wanted) == "uniform":
        return targets.uniform()
    if wanted is not None:
        try:
            sigmas = [float(text) for text in wanted.split(",")]
        except ValueError:
            return targets.from_file(wanted)
        return targets.gaussian(sigmas)
    build = BuildFolder.at(place)
    recorded = build.target()
    return None if recorded is None else targets.checked(recorded, f"The sampling in {build.record_path}", True)


def table(content: Densities) -> pd.DataFrame:
    """Return the numbers behind the figures: dataset, angle, low_deg, high_deg, count, density, outside.

    `density` is the share of the heads inside the bins of that angle; `outside` repeats, in every row, how many
    heads of that dataset and angle are in no bin. Rows of the target have no count.
    """
    whole = [*content.datasets, *(t for t in (content.pool, content.ubhpd) if t is not None)]
    tallies = [*whole, *(content.ubhpd.sides.values() if content.ubhpd else ())]
    blocks: list[tuple[Any, ...]] = [
        (t.name, t.inside.ravel(), bins.densities(t.inside), np.repeat(t.outside, N_BINS)) for t in tallies
    ]
    if content.target is not None:
        blocks.append((TARGET, [None] * content.target.size, content.target, [None] * content.target.size))
    frames = [
        pd.DataFrame(
            {
                "dataset": name,
                "angle": np.repeat(ANGLES, N_BINS),
                "low_deg": np.tile(EDGES_DEG[:-1], len(ANGLES)),
                "high_deg": np.tile(EDGES_DEG[1:], len(ANGLES)),
                "count": pd.array(count, dtype="Int64"),
                "density": density.ravel(),
                "outside": pd.array(outside, dtype="Int64"),
            }
        )
        for name, count, density, outside in blocks
    ]
    result: pd.DataFrame = pd.concat(frames, ignore_index=True)
    return result


def _indices(ypr_deg: npt.ArrayLike) -> IntArray:
    angles = np.asarray(ypr_deg, dtype=np.float64)
    bins.counts(angles[:0])  # refuses another shape
    return bins.bin_index(angles)


def _joint(index: IntArray) -> IntArray:
    by_yaw, by_pitch = (
        np.stack([bins.counts_of_indices(index[index[:, j] == b]).inside for b in range(N_BINS)]) for j in (0, 1)
    )
    return np.stack([by_yaw[:, 1], by_yaw[:, 2], by_pitch[:, 2]])


def _usable(file: Path, has_split: bool) -> Iterator[tuple[str, IntArray, AnyArray | None]]:
    """Yield, per batch and dataset, the bins of the usable heads, maybe none, and their split."""
    names = ["dataset", "drop_reason", *(f"{a}_deg" for a in ANGLES), *(["split"] if has_split else [])]
    for batch in manifest.iterate(file, names):
        usable = batch.filter(batch.column("drop_reason").is_null())
        angles = [usable.column(f"{a}_deg").to_numpy(zero_copy_only=False) for a in ANGLES]
        index = bins.bin_index(np.stack(angles, axis=1))
        side = usable.column("split").to_numpy(zero_copy_only=False) if has_split else None
        for name in pc.unique(batch.column("dataset")).to_pylist():
            own = pc.equal(usable.column("dataset"), name).to_numpy(zero_copy_only=False)
            yield name, index[own], None if side is None else side[own]
