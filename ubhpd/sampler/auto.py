"""What "auto" means: the widest sigma, or the largest size, at which the pool can still meet the target.

The floor falls and then rises along the sigmas: a narrow Gaussian wants more frontal heads than there are, a
wide one more profiles. This is no theorem, but held on every pool tried, so that a look at every fourth degree,
from the widest down, and then a closer one find it: 10 to 30 linear programmes in place of 169.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ubhpd.sampler import allocation, targets
from ubhpd.sampler.allocation import Array, Whole

TOLERANCE = 0.01  # mean total variation distance to the target
SIGMAS_DEG: Array = np.arange(6.0, 90.5, 0.5)

_COARSE_STEP = 8  # of SIGMAS_DEG


def widest_sigma(counts: Whole, size: int, tolerance: float = TOLERANCE) -> float:
    """Return the widest sigma of SIGMAS_DEG whose floor is within the tolerance, else that with the lowest floor.

    Args:
        counts: heads per joint cell (15, 15, 15).
        size: heads to take.
        tolerance: of the mean total variation distance.
    """
    floors: dict[int, float] = {}

    def floor_at(index: int) -> float:
        if index not in floors:
            floors[index] = allocation.floor(counts, targets.gaussian(SIGMAS_DEG[index]), size)
        return floors[index]

    last, step = len(SIGMAS_DEG) - 1, _COARSE_STEP
    tried: Iterable[int] = range(last, -1, -step)
    # Nearer and nearer to the lowest floor, until one is good enough or the grid is exhausted.
    while not any(floor_at(i) <= tolerance for i in tried) and step > 1:
        lowest = min(floors, key=lambda i: (floors[i], -i))
        tried = range(min(lowest + step, last), max(lowest - step, 0) - 1, -step // 2)
        step //= 2
    good = [i for i, f in floors.items() if f <= tolerance]
    if not good:
        return float(SIGMAS_DEG[min(floors, key=lambda i: (floors[i], -i))])
    low = max(good)
    high = min((i for i in floors if i > low), default=last + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if floor_at(middle) <= tolerance else (low, middle)
    return float(SIGMAS_DEG[low])


def largest_size(counts: Whole, target: Array, limit: int, tolerance: float = TOLERANCE) -> int:
    """Return the largest size up to `limit` whose floor is within the tolerance.

    Where the pool lacks heads in some bins of the target, no size is: then the tolerance counts from the lowest
    floor there is. The floor cannot fall as the size grows: of a larger set the same shares of a smaller one can
    be taken, so the lowest is that of a single head (in shares; heads are not divided here).
    """
    lowest = allocation.floor(counts, target, 1)
    allowed = tolerance if lowest <= tolerance else lowest + tolerance
    low, high = 1, min(limit, int(counts.sum())) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if allocation.floor(counts, target, middle) <= allowed else (low, middle)
    return low
