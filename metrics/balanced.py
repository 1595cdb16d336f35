"""Errors in which rare poses count as much as common ones: balanced MAE, BMAE, many / median / few shots, worst bin.

Most heads of a test set are nearly frontal, and a plain mean is mostly about them.

    balanced_mae = 1/3 * sum_j  1/|{i: n_ij > 0}| * sum_{i: n_ij > 0} E_ij
    bmae         = 1/|{k: n_k > 0}| * sum_{k: n_k > 0} mean geodesic error in ring k

* `balanced_mae`: mean of the per-bin MAE over the non-empty bins of 12 degrees, first per angle, then over the angles
  (bMAE of Ren et al., Balanced MSE for Imbalanced Visual Regression, CVPR 2022). With d = s and no empty bin it equals
  [UBMAE](ubmae.md).
* `bmae`: the Balanced Mean Angular Error of DriveAHead (Schwarz et al., CVPRW 2017; DD-Pose, IV 2019): geodesic error
  in 15 rings of 5 degrees of the true head's angle from frontal, 0 to 75, mean of the means over the non-empty rings.
  Heads turned further than 75 degrees are in no ring.
* `mae_many`, `mae_median`, `mae_few`: MAE over the angles in bins that the training set fills with more than 100, with
  20 to 100, and with fewer than 20 heads (Yang et al., Delving into Deep Imbalanced Regression, ICML 2021), yaw, pitch
  and roll pooled. A bin without a training head is few-shot. They need `--source`.
* `worst_bin`: the largest per-bin MAE among bins of at least `min_count` samples. It has no interval: the largest of
  many noisy values is above that of the population, and resamples do not show by how much.

Units: degrees. Bins are those of `ubhpd.core.bins`; empty ones are left out of every mean; a truth outside [-90, 90]
is in no bin. An angle without any head inside the bins: no balanced MAE (NaN). Read the scores with the counts per
bin (`--bins`).

```python
from ubhpd.metrics.balanced import balanced_mae, bmae, shots, worst_bin
```
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import geodesic_deg
from ubhpd.core.typing import FloatArray, IntArray
from ubhpd.metrics import mae
from ubhpd.metrics._arrays import Statistics, bin_tables, binned, divide, mean_where, rotation_pair

NAME = "balanced"
TITLE = "Balanced errors"
UNIT = "degrees"
PAPER = "Ren et al., CVPR 2022; Schwarz et al. (DriveAHead), CVPRW 2017; Roth and Gavrila (DD-Pose), IV 2019; " \
    "Yang et al., ICML 2021"  # fmt: skip
BETTER = "lower"
PER_BIN = ("abs_error",)
PER_RING = ("geodesic",)
NO_INTERVAL = ("worst_bin",)
SCORES = {
    "balanced_mae": "mean of the per-bin MAE over non-empty bins",
    "bmae": "mean geodesic error over rings of 5 degrees from frontal, up to 75",
    "mae_many": "MAE in bins with more than 100 training heads",
    "mae_median": "MAE in bins with 20 to 100 training heads",
    "mae_few": "MAE in bins with fewer than 20 training heads",
    "worst_bin": "largest per-bin MAE",
}
N_RINGS = 15
RING_DEG = 5.0
MANY, FEW = 100, 20


@dataclass(frozen=True)
class Options:
    """Samples a bin needs to be called the worst."""

    min_count: int = 1


def balanced_mae(predicted_deg: npt.ArrayLike, true_deg: npt.ArrayLike) -> float:
    """Return the balanced MAE of angles (n, 3) in degrees; see `mae.per_bin` for the table behind it."""
    table = mae.per_bin(predicted_deg, true_deg)
    return float(balanced_mae_of_bins(table.error, table.n))


def balanced_mae_of_bins(error: npt.ArrayLike, counts: npt.ArrayLike) -> FloatArray:
    """Return the balanced MAE (...) of mean errors and counts per bin (..., 3, 15); NaN if an angle has no sample."""
    e, n = bin_tables(error, counts)
    mean: FloatArray = mean_where(e, n > 0).mean(axis=-1)
    return mean


def bmae(predicted: npt.ArrayLike, true: npt.ArrayLike) -> float:
    """Return DriveAHead's BMAE of rotations (n, 3, 3) in frame C, where I is frontal."""
    p, t = rotation_pair(predicted, true)
    counts, sums = binned(geodesic_deg(p, t), ring_index(geodesic_deg(t, np.eye(3))), N_RINGS)
    return float(bmae_of_rings(divide(sums, counts), counts))


def bmae_of_rings(error: npt.ArrayLike, counts: npt.ArrayLike) -> FloatArray:
    """Return BMAE (...) of mean errors and counts per ring (..., 15)."""
    e, n = np.asarray(error, dtype=np.float64), np.asarray(counts)
    if e.shape[-1:] != (N_RINGS,) or n.shape[-1:] != (N_RINGS,):
        raise UbhpdError(f"Expected 15 rings, found shapes {e.shape} and {n.shape}.")
    return mean_where(e, n > 0)


def ring_index(frontal_deg: npt.ArrayLike) -> IntArray:
    """Return the ring, 0 to 14, of angles from frontal in degrees; -1 from 75 on. Rings are half-open."""
    ring = np.floor(np.asarray(frontal_deg, dtype=np.float64) / RING_DEG).astype(np.int64)
    return np.where((ring >= 0) & (ring < N_RINGS), ring, -1)


def shots(error: npt.ArrayLike, counts: npt.ArrayLike, source_counts: npt.ArrayLike) -> dict[str, FloatArray]:
    """Return many, median and few-shot MAE (...) of mean errors and counts (..., 3, 15), training counts (3, 15)."""
    e, n = bin_tables(error, counts)
    source, _ = bin_tables(source_counts, source_counts)
    groups = {"many": source > MANY, "median": (source >= FEW) & (source <= MANY), "few": source < FEW}
    total = np.where(n > 0, n * np.where(n > 0, e, 0.0), 0.0)
    return {
        name: divide(np.where(g, total, 0.0).sum(axis=(-2, -1)), np.where(g, n, 0.0).sum(axis=(-2, -1)))
        for name, g in groups.items()
    }


def worst_bin(error: npt.ArrayLike, counts: npt.ArrayLike, min_count: int = 1) -> FloatArray:
    """Return the largest mean error (...) among bins (..., 3, 15) of at least min_count samples."""
    e, n = bin_tables(error, counts)
    if min_count < 1:
        raise UbhpdError(f"min_count is {min_count}: a worst bin needs at least 1 sample.")
    worst = np.where(n >= min_count, np.where(n > 0, e, 0.0), -np.inf).max(axis=(-2, -1))
    return np.where(np.isfinite(worst), worst, np.nan)


def score(statistics: Statistics, options: Options | None = None) -> dict[str, FloatArray]:
    """Return `SCORES` from bin_n, bin_abs_error, ring_n, ring_geodesic; the shots need source_counts too."""
    o = options or Options()
    n = statistics["bin_n"]
    error = divide(statistics["bin_abs_error"], n)
    scores = {
        "balanced_mae": balanced_mae_of_bins(error, n),
        "bmae": bmae_of_rings(divide(statistics["ring_geodesic"], statistics["ring_n"]), statistics["ring_n"]),
    }
    if "source_counts" in statistics:
        scores |= {f"mae_{k}": v for k, v in shots(error, n, statistics["source_counts"]).items()}
    return scores | {"worst_bin": worst_bin(error, n, o.min_count)}
