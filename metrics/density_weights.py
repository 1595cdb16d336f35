"""Density weights: how much more often the test set shows a bin than the training set does.

    w_ij = d_ij / s_ij        i = bin of 12 degrees from -90 to 90, j = yaw, pitch, roll

d is the density of the target (test) set and s that of the source (training) set (OsGG-Net, ACM MM 2021, eq. 14).
Densities are shares of the heads inside the bins: an angle outside [-90, 90] is in no bin and in no density.

A bin without a test head has weight 0. A bin with test heads and without a training head has no defined weight; the
option `ubmae.unseen` chooses a rule:

| rule | what it does |
|---|---|
| `drop` (default) | weight 0; the share of test heads concerned is reported as `dropped_mass` |
| `smooth` | adds `ubmae.alpha` (1) to every count of both sets, then renormalises; needs counts, not densities |
| `raise` | an error that names the bin |

`dropped_mass` is the mean over the three angles; the JSON has it per angle. `--source` names the training set:
300W-LP, AFLW2000 or BIWI (their label counts are part of the package), a manifest, or a CSV table
`low_deg,high_deg,yaw,pitch,roll` of heads per bin, in bins of 12 degrees or finer ones that nest in them. Weights have
no unit.

```python
from ubhpd.metrics.density_weights import sample_weights, weights
weights(target_counts, source_counts, unseen="drop")    # Weights(target, source, weight, dropped)
```
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.core.bins import ANGLES, EDGES_DEG, bin_index, densities
from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import FloatArray
from ubhpd.metrics._arrays import Statistics, bin_tables

NAME = "density_weights"
TITLE = "Density weights"
UNIT = "share"
PAPER = "OsGG-Net, ACM MM 2021, eq. 14"
BETTER = "neither"
SCORES = {"dropped_mass": "share of the test heads in bins without a training head, mean of the three angles"}
RULES = ("drop", "smooth", "raise")


@dataclass(frozen=True)
class Options:
    """No options: the share of unseen mass does not depend on the rule; the rule is an option of ubmae."""


class Weights(NamedTuple):
    """Densities of target (..., 3, 15) and source (3, 15), weights (..., 3, 15), dropped target mass (..., 3)."""

    target: FloatArray
    source: FloatArray
    weight: FloatArray
    dropped: FloatArray


def weights(
    target_counts: npt.ArrayLike, source_counts: npt.ArrayLike, unseen: str = "drop", alpha: float = 1.0
) -> Weights:
    """Return the density weights of counts per bin, target (..., 3, 15) and source (3, 15).

    An angle with no head inside the bins has NaN densities in the target and weight 0 throughout.

    Raises:
        UbhpdError: an unknown rule, a bad table, an angle for which the source has no head, "smooth" with
            densities instead of counts, or "raise" and a bin without a source head.
    """
    target, _ = bin_tables(target_counts, target_counts)
    source, _ = bin_tables(source_counts, source_counts)
    if unseen not in RULES:
        raise UbhpdError(f"Unknown rule {unseen!r} for bins without a source head: choose from {', '.join(RULES)}.")
    if not np.all(source.sum(axis=-1) > 0):
        angle = ANGLES[int(np.argmin(source.sum(axis=-1)))]
        raise UbhpdError(f"The source has no head inside the bins of {angle}: its density is not defined.")
    if unseen == "smooth":
        if not (np.isfinite(alpha) and alpha > 0):
            raise UbhpdError(f"alpha is {alpha}: smoothing needs a number above 0.")
        if np.any(source.sum(axis=-1) <= 1.0 + 1e-9):
            raise UbhpdError("Smoothing adds to counts, and the source is given as densities: give its counts.")
        target, source = target + alpha, source + alpha
    d, s = densities(target), densities(source)
    unseen_mass = (s == 0) & (d > 0)
    if unseen == "raise" and unseen_mass.any():
        j, i = (int(k[0]) for k in np.nonzero(unseen_mass)[-2:])
        where = f"{ANGLES[j]} {EDGES_DEG[i]:.0f} to {EDGES_DEG[i + 1]:.0f} degrees"
        raise UbhpdError(f"The source has no head in {where} and the target has: use the rule drop or smooth.")
    weight = np.divide(d, s, out=np.zeros(np.broadcast_shapes(d.shape, s.shape)), where=(s > 0) & (d > 0))
    return Weights(d, s, weight, np.where(unseen_mass, d, 0.0).sum(axis=-1))


def sample_weights(true_deg: npt.ArrayLike, weight: npt.ArrayLike) -> FloatArray:
    """Return the weight (n, 3) of each sample's bins, true angles (n, 3) in degrees; 0 outside the bins."""
    table, _ = bin_tables(weight, np.zeros((3, 15)))
    index = bin_index(true_deg)
    weight_of_sample: FloatArray = np.where(index >= 0, table[np.arange(len(ANGLES)), np.maximum(index, 0)], 0.0)
    return weight_of_sample


def score(statistics: Statistics, options: Options | None = None) -> dict[str, FloatArray]:
    """Return `SCORES` from bin_n (..., 3, 15) and source_counts (3, 15); none without source_counts."""
    if "source_counts" not in statistics:
        return {}
    w = weights(statistics["bin_n"], statistics["source_counts"], "drop")
    empty = statistics["bin_n"].sum(axis=(-2, -1)) == 0
    return {"dropped_mass": np.where(empty, np.nan, w.dropped.mean(axis=-1))}
