"""UBMAE: the unbiased mean absolute error, weighted by density of the test set over density of the training set.

    UBMAE = 1/(3U) * sum_i sum_j (d_ij / s_ij) * E_ij            (OsGG-Net, ACM MM 2021, eq. 14)

U = 15 bins of 12 degrees from -90 to 90, i over bins, j over yaw, pitch, roll. E_ij is the mean of |predicted - true|
of angle j over the heads whose true angle j lies in bin i; the paper prints (y^ - y) without the bars, but an error
metric needs them. d_ij / s_ij are the [density weights](density_weights.md), which also explain bins without a
training head.

* `ubmae` is this equation as written. An empty bin contributes 0 and still counts in 3U. A truth outside [-90, 90] is
  in no bin. With d = s and no empty bin it equals the [balanced MAE](balanced.md).
* `ubmae_normalised` = sum w E / sum w, over the bins with heads. It stays between the smallest and the largest
  per-bin error whatever the densities are, where eq. 14 has no such bound: Hopenet's predictions on AFLW2000 with the
  label densities of 300W-LP give `ubmae` 177.6 and `ubmae_normalised` 38.8.

Read the value with the share of test heads that it leaves out (`dropped_mass`), the tables of E, n and w (`--bins`)
and the interval (`--bootstrap`): a bin of three heads can carry a tenth of the value. The values reported in the paper
are something else: see [what UBMAE is](../what-is-ubmae.md).

Units: degrees. No sample in any bin: NaN.

```python
from ubhpd.metrics.ubmae import ubmae
ubmae(predicted_deg, true_deg, source_counts)           # Ubmae(value, normalised, error, n, weight, ...)
```
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.core.bins import ANGLES, N_BINS
from ubhpd.core.typing import AnyArray, FloatArray
from ubhpd.metrics import density_weights, mae
from ubhpd.metrics._arrays import Statistics, bin_tables, divide

NAME = "ubmae"
TITLE = "Unbiased mean absolute error"
UNIT = "degrees"
PAPER = "OsGG-Net, ACM MM 2021, eq. 14"
BETTER = "lower"
PER_BIN = ("abs_error",)
SCORES = {
    "ubmae": "equation 14 as written, with the error binned",
    "ubmae_normalised": "the same weights, divided by their sum",
}


@dataclass(frozen=True)
class Options:
    """The rule for a bin with test heads and without a training head, and the count added by "smooth"."""

    unseen: str = field(default="drop", metadata={"choices": density_weights.RULES})
    alpha: float = 1.0


class Ubmae(NamedTuple):
    """The value, and all that it is made of.

    `error`, `n`, `weight` are tables (..., 3, 15); `error` is NaN in an empty bin. `smallest_count` is over the
    non-empty bins, `non_empty` their number among 45, `dropped` the target mass (..., 3) that got no weight.
    """

    value: FloatArray
    normalised: FloatArray
    error: FloatArray
    n: FloatArray
    weight: FloatArray
    smallest_count: FloatArray
    non_empty: FloatArray
    dropped: FloatArray


def ubmae(
    predicted_deg: npt.ArrayLike,
    true_deg: npt.ArrayLike,
    source_counts: npt.ArrayLike,
    unseen: str = "drop",
    alpha: float = 1.0,
) -> Ubmae:
    """Return UBMAE of angles (n, 3) in degrees, given the counts (3, 15) of the training set.

    Raises:
        UbhpdError: bad arrays, or as `density_weights.weights`.
    """
    table = mae.per_bin(predicted_deg, true_deg)
    return ubmae_of_bins(table.error, table.n, source_counts, unseen, alpha)


def ubmae_of_bins(
    error: npt.ArrayLike,
    counts: npt.ArrayLike,
    source_counts: npt.ArrayLike,
    unseen: str = "drop",
    alpha: float = 1.0,
) -> Ubmae:
    """Return UBMAE of mean errors and counts per bin (..., 3, 15); an error where the count is 0 is not read."""
    e, n = bin_tables(error, counts)
    w = density_weights.weights(n, source_counts, unseen, alpha)
    filled = n > 0
    weighted = np.where(filled, w.weight * np.where(filled, e, 0.0), 0.0).sum(axis=(-2, -1))
    non_empty = filled.sum(axis=(-2, -1))
    return Ubmae(
        value=np.where(non_empty > 0, weighted / (len(ANGLES) * N_BINS), np.nan),
        normalised=divide(weighted, np.where(filled, w.weight, 0.0).sum(axis=(-2, -1))),
        error=np.where(filled, e, np.nan),
        n=n,
        weight=w.weight,
        smallest_count=np.where(filled, n, np.inf).min(axis=(-2, -1)),
        non_empty=non_empty,
        dropped=w.dropped,
    )


def score(statistics: Statistics, options: Options | None = None) -> dict[str, FloatArray]:
    """Return `SCORES` from bin_n, bin_abs_error (..., 3, 15) and source_counts (3, 15); none without the last."""
    if "source_counts" not in statistics:
        return {}
    o = options or Options()
    n = statistics["bin_n"]
    result = ubmae_of_bins(divide(statistics["bin_abs_error"], n), n, statistics["source_counts"], o.unseen, o.alpha)
    return {"ubmae": result.value, "ubmae_normalised": result.normalised}


def tables(statistics: Statistics, options: Options | None = None) -> dict[str, AnyArray]:
    """Return the target's density (3, 15); with source_counts the source's and the weights, too, and dropped (3,)."""
    n = statistics["bin_n"]
    if "source_counts" not in statistics:
        return {"target": divide(n, n.sum(axis=-1, keepdims=True))}
    o = options or Options()
    w = density_weights.weights(n, statistics["source_counts"], o.unseen, o.alpha)
    return {"target": w.target, "source": w.source, "weight": w.weight, "dropped": w.dropped}
