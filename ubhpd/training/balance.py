"""Weights of heads that make up for an uneven distribution of poses, from the training set's own densities.

Let a set have n heads, and s_j(b) be the share of its heads in bin b of angle j, for the 15 bins of `ubhpd.bins`; a
bin that holds a head is occupied.

    sampling   w_i = 1 / (K s(c_i))                     c_i the joint cell of yaw, pitch and roll, K cells occupied
    loss       w_i = 1/3 sum_j 1 / (K_j s_j(b_ij))      K_j bins occupied of angle j
    lds        w_i = 1/3 sum_j 1 / (Z_j t_j(b_ij))      t_j(b) = sum_k g(k) s_j(b + k), k = -2 ... 2

g(k) is proportional to exp(-k^2 / (2 sigma^2)) with sigma = 2 and sum 1, and s_j is 0 beyond the ends: label
distribution smoothing (LDS; Yang et al., Delving into Deep Imbalanced Regression, ICML 2021, section 3.1; kernel of
5 bins and sigma 2 as there). Z_j makes the mean 1. An angle outside the bins counts as 1. All weights have mean
1: as probabilities, w_i / n, every occupied cell is drawn equally often.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ubhpd import bins

Floats = npt.NDArray[np.float64]

LDS_SIGMA_BINS = 2.0
LDS_REACH_BINS = 2


def sampling_weights(angles_deg: npt.ArrayLike) -> Floats:
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
    found: Floats = weights / weights.mean()
    return found


def loss_weights(angles_deg: npt.ArrayLike, smoothed: bool = False) -> Floats:
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
    found: Floats = weights.mean(axis=1)
    return found


def smoothed_density(density: Floats) -> Floats:
    """Return densities (3, 15) convolved with a Gaussian of 5 bins, sigma 2 bins, nothing beyond the ends."""
    reach = np.arange(-LDS_REACH_BINS, LDS_REACH_BINS + 1)
    kernel = np.exp(-(reach**2) / (2 * LDS_SIGMA_BINS**2))
    kernel /= kernel.sum()
    return np.stack([np.convolve(row, kernel, mode="same") for row in np.nan_to_num(density)])
