"""Fits the table of `ubhpd.synth.rendered_heads` to label files and says how near it comes.

    python benchmarks/pose_fits.py LABELS

LABELS is a folder with biwi_labels.csv and aflw2000_labels.csv (a row a head, columns yaw, pitch, roll in degrees) and
300wlp_histogram_3deg.csv (columns low_deg, high_deg, yaw, pitch, roll: heads a bin). Every angle of a source is fitted
by itself with expectation maximisation, started from quantiles, on angles within 90 degrees; each histogram's heads
stand in the middle of their bin. Printed is the table to paste, and for every angle the total variation distance
between the fit and the labels over the 15 bins of 12 degrees.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from ubhpd.core.bins import ANGLES, EDGES_DEG
from ubhpd.synth.rendered_heads import Mixture, bin_shares

_COMPONENTS = {"yaw": 4, "pitch": 3, "roll": 3}
_ROUNDS = 2000
_MIN_DEVIATION_DEG = 1.5


def labels(folder: Path) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Return source -> angle -> values in degrees within the bins and how many heads have each."""
    found: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for source, name in (("biwi", "biwi_labels.csv"), ("aflw2000", "aflw2000_labels.csv")):
        table = pd.read_csv(folder / name)
        kept = table[(table[list(ANGLES)].abs() <= 90).all(axis=1)]
        found[source] = {a: (kept[a].to_numpy(), np.ones(len(kept))) for a in ANGLES}
    table = pd.read_csv(folder / "300wlp_histogram_3deg.csv")
    table = table[(table.low_deg >= -90) & (table.high_deg <= 90)]
    middle = ((table.low_deg + table.high_deg) / 2).to_numpy()
    found["300wlp"] = {a: (middle, table[a].to_numpy(float)) for a in ANGLES}
    return found


def shares(values: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """Return the share of heads in each of the 15 bins."""
    counts, _ = np.histogram(values, EDGES_DEG, weights=heads)
    return counts / counts.sum()


def fit(values: np.ndarray, heads: np.ndarray, components: int) -> Mixture:
    """Return the mixture that expectation maximisation finds."""
    order = np.argsort(values)
    rank = np.cumsum(heads[order]) / heads.sum()
    mean = np.interp((np.arange(components) + 0.5) / components, rank, values[order])
    deviation = np.full(components, values.std() / components + 3.0)
    weight = np.full(components, 1.0 / components)
    for _ in range(_ROUNDS):
        density = weight / deviation * np.exp(-0.5 * ((values[:, None] - mean) / deviation) ** 2)
        part = heads[:, None] * density / np.maximum(density.sum(axis=1, keepdims=True), 1e-300)
        total = part.sum(axis=0)
        weight, mean = total / total.sum(), (part * values[:, None]).sum(axis=0) / total
        deviation = np.sqrt((part * (values[:, None] - mean) ** 2).sum(axis=0) / total).clip(_MIN_DEVIATION_DEG)
    rows = np.column_stack([weight.round(3), mean.round(1), deviation.round(1)])
    return tuple((share, middle, width) for share, middle, width in rows.tolist())


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("labels", type=Path)
    chosen = arguments.parse_args()
    for source, angles in labels(chosen.labels).items():
        fits = {angle: fit(*known, _COMPONENTS[angle]) for angle, known in angles.items()}
        print(f'    "{source}": Fit(')
        for angle in ANGLES:
            print(f"        {angle}={fits[angle]},")
        distances = [0.5 * np.abs(bin_shares(fits[a]) - shares(*angles[a])).sum() for a in ANGLES]
        print("    ),  # total variation", " ".join(f"{a} {d:.3f}" for a, d in zip(ANGLES, distances, strict=True)))


if __name__ == "__main__":
    main()
