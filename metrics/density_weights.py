"""Density weights: how much more often the test set shows a bin than the training set did.

    w_ij = d_ij / s_ij

d is the density of the target (test) set and s that of the source (training) set over the 15 bins i of angle j
(OsGG-Net, ACM MM 2021, eq. 14). Densities are shares of the heads inside the bins: an angle outside [-90, 90] is
in no bin and in no density.

Rules. d_ij = 0 gives w_ij = 0, also where s_ij = 0. s_ij = 0 with d_ij > 0 is a bin the source never saw; `unseen`
says what then: "drop" (default) gives weight 0, and the share of target mass dropped is returned; "smooth" adds
`alpha` to every count of both sets and renormalises; "raise" is an error that names the bin. Weights have no unit.
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
SCORES = {"dropped_mass": "share of the test heads in bins that the training set never saw, mean of the three angles"}
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
            densities instead of counts, or "raise" and a bin that the source never saw.
    """
    target, _ = bin_tables(target_counts, target_counts)
    source, _ = bin_tables(source_counts, source_counts)
    if unseen not in RULES:
        raise UbhpdError(f"Unknown rule {unseen!r} for bins the source never saw: choose from {', '.join(RULES)}.")
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
        raise UbhpdError(f"The source never saw {where}, the target did: use the rule drop or smooth.")
    weight = np.divide(d, s, out=np.zeros(np.broadcast_shapes(d.shape, s.shape)), where=(s > 0) & (d > 0))
    return Weights(d, s, weight, np.where(unseen_mass, d, 0.0).sum(axis=-1))


def sample_weights(true_deg: npt.ArrayLike, weight: npt.ArrayLike) -> FloatArray:
    """Return the weight (n, 3) of each sample's bins, true angles (n, 3) in degrees; 0 outside the bins."""
    table, _ = bin_tables(weight, np.zeros((3, 15)))
    index = bin_index(true_deg)
    found: FloatArray = np.where(index >= 0, table[np.arange(len(ANGLES)), np.maximum(index, 0)], 0.0)
    return found


def score(statistics: Statistics, options: Options | None = None) -> dict[str, FloatArray]:
    """Return `SCORES` from bin_n (..., 3, 15) and source_counts (3, 15); none without source_counts."""
    if "source_counts" not in statistics:
        return {}
    w = weights(statistics["bin_n"], statistics["source_counts"], "drop")
    empty = statistics["bin_n"].sum(axis=(-2, -1)) == 0
    return {"dropped_mass": np.where(empty, np.nan, w.dropped.mean(axis=-1))}
