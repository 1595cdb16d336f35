"""The 15 bins of UBHPD: which bin an angle falls in, counts and densities. The only histogram code.

Edges are -90, -78, ..., 90 degrees; a bin is half-open, [low, high), and the last one closed at +90
(OsGG-Net, ACM MM 2021, section 4). An angle outside, or NaN, is in no bin: it is counted apart and never
moved into an edge bin.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import FloatArray, IntArray

N_BINS = 15
WIDTH_DEG = 12.0
LIMIT_DEG = 90.0
ANGLES = ("yaw", "pitch", "roll")
EDGES_DEG: FloatArray = np.linspace(-LIMIT_DEG, LIMIT_DEG, N_BINS + 1)
CENTRES_DEG: FloatArray = (EDGES_DEG[:-1] + EDGES_DEG[1:]) / 2
OUTSIDE = -1


class Counts(NamedTuple):
    """Heads per angle and bin (3, 15), in the order yaw, pitch, roll, and heads outside the bins (3,)."""

    inside: IntArray
    outside: IntArray


def bin_index(angles_deg: npt.ArrayLike) -> IntArray:
    """Return the bin, 0 to 14, of each angle in degrees, any shape; OUTSIDE (-1) beyond [-90, 90] and for NaN."""
    angles = np.asarray(angles_deg, dtype=np.float64)
    within = (angles >= -LIMIT_DEG) & (angles <= LIMIT_DEG)
    known = np.where(within, angles, 0.0)
    index = np.minimum((known + LIMIT_DEG) // WIDTH_DEG, N_BINS - 1).astype(np.int64)
    index -= known < EDGES_DEG[index]  # an angle next to an edge may round across it
    return np.where(within, index, OUTSIDE)


def counts(ypr_deg: npt.ArrayLike) -> Counts:
    """Return how many of the heads, yaw pitch roll (n, 3) in degrees, lie in each bin of each angle."""
    angles = np.asarray(ypr_deg, dtype=np.float64)
    if angles.ndim != 2 or angles.shape[1] != len(ANGLES):
        raise UbhpdError(f"Expected angles of shape (n, 3), found shape {angles.shape}.")
    return counts_of_indices(bin_index(angles))


def counts_of_indices(indices: IntArray) -> Counts:
    """Return the counts of heads whose bins (n, 3) are known already."""
    histograms = np.stack([np.bincount(indices[:, j] + 1, minlength=N_BINS + 1) for j in range(len(ANGLES))])
    return Counts(histograms[:, 1:], histograms[:, 0])


def densities(inside: npt.ArrayLike) -> FloatArray:
    """Return the share of each bin (..., 15) among the heads inside: counts divided by their sum; 0/0 is NaN."""
    c = np.asarray(inside, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares: FloatArray = c / c.sum(axis=-1, keepdims=True)
    return shares
