"""How the heads of a source are turned: small mixtures of Gaussians in place of the source's own labels.

Every angle has a mixture of three or, for yaw, four Gaussians (share, mean and deviation in degrees), cut off at 90
degrees: 30 numbers a source. They were fitted by expectation maximisation to the labels of BIWI (15,678 frames) and
AFLW2000-3D (those within 90 degrees) and to 3-degree histograms of 300W-LP; `benchmarks/pose_fits.py` does it again
and says how near they come: the total variation distance to the labels over the 15 bins is at most 0.03, for the yaw
of 300W-LP 0.06. The three angles are drawn independently of each other: how they depend on each other is not
modelled. AFLW, whose first pictures AFLW2000-3D is, is drawn as that.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.bins import EDGES_DEG

Array = npt.NDArray[np.float64]
Mixture = tuple[tuple[float, float, float], ...]  # share, mean and deviation in degrees

# Beyond 90 degrees of yaw the triplet is no longer unique; a label written with six digits needs more room.
LIMIT_DEG = (88.0, 80.0, 80.0)


class Fit(NamedTuple):
    """The mixtures of a source's three angles."""

    yaw: Mixture
    pitch: Mixture
    roll: Mixture


_FITTED: dict[str, Fit] = {
    "biwi": Fit(
        yaw=((0.297, -25.7, 18.9), (0.311, 3.9, 5.7), (0.285, 29.4, 13.3), (0.106, 56.2, 8.2)),
        pitch=((0.225, -26.9, 15.8), (0.656, 14.9, 12.6), (0.119, 46.5, 14.4)),
        roll=((0.032, -34.4, 9.6), (0.376, -0.7, 3.4), (0.592, 2.4, 14.7)),
    ),
    "aflw2000": Fit(
        yaw=((0.099, -64.7, 10.7), (0.671, 1.6, 23.7), (0.13, 0.6, 4.5), (0.1, 65.3, 10.4)),
        pitch=((0.156, -5.4, 33.3), (0.767, -8.1, 9.9), (0.077, 20.4, 8.6)),
        roll=((0.549, -1.7, 13.5), (0.175, -0.8, 2.5), (0.276, 0.7, 31.8)),
    ),
    "300wlp": Fit(
        yaw=((0.12, -77.6, 7.6), (0.38, -39.8, 21.2), (0.38, 39.8, 21.2), (0.12, 77.7, 7.6)),
        pitch=((0.067, -9.3, 26.7), (0.414, -8.5, 7.0), (0.519, -9.0, 12.9)),
        roll=((0.684, 0.0, 11.8), (0.276, -0.2, 4.5), (0.04, 0.9, 31.1)),
    ),
}


def fit_of(source: str) -> Fit:
    """Return the mixtures of a source, or of the one it is drawn like."""
    return _FITTED["aflw2000" if source == "aflw" else source]


def cumulative(mixture: Mixture, angle_deg: npt.ArrayLike) -> Array:
    """Return the share of heads below angles (...) in degrees, of those within 90 degrees."""
    from scipy.special import ndtr

    def below(angle: npt.ArrayLike) -> Array:
        a = np.asarray(angle, dtype=np.float64)
        return sum((share * ndtr((a - mean) / deviation) for share, mean, deviation in mixture), np.zeros_like(a))

    low, high = below(EDGES_DEG[0]), below(EDGES_DEG[-1])
    shares: Array = (below(angle_deg) - low) / (high - low)
    return shares


def bin_shares(mixture: Mixture) -> Array:
    """Return the share of heads in each of the 15 bins (15,) of `ubhpd.bins`."""
    return np.diff(cumulative(mixture, EDGES_DEG))


def quantiles(fit: Fit, shares: npt.ArrayLike) -> Array:
    """Return the yaw, pitch, roll (n, 3) in degrees below which the shares (n, 3) of a source's heads lie."""
    grid = np.linspace(EDGES_DEG[0], EDGES_DEG[-1], 721)
    wanted = np.asarray(shares, dtype=np.float64)
    columns = [np.interp(wanted[:, j], cumulative(mixture, grid), grid) for j, mixture in enumerate(fit)]
    return np.clip(np.stack(columns, axis=1), -np.array(LIMIT_DEG), LIMIT_DEG)


def draw_poses(source: str, count: int, rng: np.random.Generator) -> Array:
    """Return yaw, pitch, roll (count, 3) in degrees, turned as the heads of a source are."""
    return quantiles(fit_of(source), rng.random((count, 3)))


def draw_movement(source: str, frames: int, rng: np.random.Generator, frames_per_turn: float = 90.0) -> Array:
    """Return yaw, pitch, roll (frames, 3) in degrees of a slow movement that in the long run is turned as a source.

    A sum of slow waves of random phase is about normal at any time; its share is looked up in the source's mixtures.
    """
    from scipy.special import ndtr

    waves = 6
    speed = 2 * np.pi / frames_per_turn * rng.uniform(0.25, 1.6, (waves, 3))
    phase = rng.uniform(0.0, 2 * np.pi, (waves, 3))
    angle = np.arange(frames)[:, None, None] * speed + phase
    return quantiles(fit_of(source), ndtr(np.sin(angle).sum(axis=1) * np.sqrt(2.0 / waves)))
