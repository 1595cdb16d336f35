"""The density that the sampler aims at: one number per bin and angle, (3, 15), each row summing to 1.

The paper balances "in Gaussian manner" (OsGG-Net, ACM MM 2021, section 4). It is read here as one Gaussian of
mean 0, the same for yaw, pitch and roll; the uniform density is its limit for a wide sigma. Each angle can also have a
sigma of its own, and any other target can be given as a file. The target "joint" is of another kind: it aims at the
cells of the joint histogram (`allocation.allocate_evenly`).

What "auto" means: the widest sigma, or the largest size, at which the pool can still meet the target.

The lower bound falls and then rises along the sigmas: a narrow Gaussian wants more frontal heads than there are, a
wide one more profiles. This is no theorem, but held on every pool tried, so that a look at every fourth degree,
from the widest down, and then a closer one find it: 10 to 30 linear programmes in place of 169.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from ubhpd.core.bins import ANGLES, EDGES_DEG, N_BINS
from ubhpd.core.errors import UbhpdError
from ubhpd.core.registry import nearest
from ubhpd.core.typing import FloatArray, IntArray
from ubhpd.sampling import allocation

NAMES = ("gaussian", "widest", "uniform", "joint")  # every other target is a file

_WANTED = f"give {N_BINS} positive numbers, one column for all angles or three columns {', '.join(ANGLES)}"


def gaussian(sigma_deg: float | Sequence[float]) -> FloatArray:
    """Return the density (3, 15) of Gaussians of mean 0 and `sigma_deg` degrees: one for all angles, or one for each.

    A bin holds the difference of the normal distribution function at its edges; the 15 are renormalised to 1.

    Raises:
        UbhpdError: a sigma is not a positive finite number, or there are neither one nor three.
    """
    sigmas = np.atleast_1d(np.asarray(sigma_deg, dtype=np.float64))
    if sigmas.shape not in ((1,), (len(ANGLES),)) or not (np.isfinite(sigmas) & (sigmas > 0)).all():
        raise UbhpdError(
            f"The sigma of the target is {sigma_deg!r} degrees: give a positive number, three for yaw, pitch and roll, "
            "or auto."
        )
    return np.stack([_gaussian(float(s)) for s in np.broadcast_to(sigmas, len(ANGLES))])


def _gaussian(sigma_deg: float) -> FloatArray:
    # The left half by the left tail and its mirror image: exact symmetry, and no 1 - 1 far from the middle.
    left = np.diff(ndtr(EDGES_DEG[: N_BINS // 2 + 1] / sigma_deg))
    middle = 1 - 2 * ndtr(EDGES_DEG[N_BINS // 2] / sigma_deg)
    mass = np.concatenate([left, [middle], left[::-1]])
    density: FloatArray = mass / mass.sum()
    return density


def name_of(text: str) -> str:
    """Return the name of a target whatever its case, and any other text, the path of a file, as it is."""
    return text.lower() if text.lower() in NAMES else text


def uniform() -> FloatArray:
    """Return the density (3, 15) that is 1/15 in every bin."""
    return _for_all_angles(np.full(N_BINS, 1 / N_BINS))


def from_file(path: str | os.PathLike[str]) -> FloatArray:
    """Return the density (3, 15) that a CSV or JSON file holds, renormalised to 1 per angle.

    CSV: 15 rows from the bin at -90 degrees up, one column shared by the three angles, or three columns; a
    header is optional, and with `yaw,pitch,roll` in it the columns go by name. JSON: a list of 15 numbers, or
    an object with a list of 15 for each of yaw, pitch, roll.

    Raises:
        UbhpdError: not readable, not 15 numbers per column, or one of them zero, negative or not finite.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        near = nearest(os.fspath(path), NAMES) if isinstance(error, FileNotFoundError) else []
        if near:
            raise UbhpdError(f"{path} is neither a target nor a file: did you mean {' or '.join(near)}?") from None
        raise UbhpdError(f"The target file {path} cannot be read ({error}): {_WANTED}.") from None
    numbers = _from_json(text, path) if Path(path).suffix.lower() == ".json" else _from_csv(text, path)
    return checked(numbers, f"The target file {path}")


def checked(numbers: npt.ArrayLike, source: str = "The target", may_be_zero: bool = False) -> FloatArray:
    """Return numbers (15,) or (3, 15) as a density (3, 15), renormalised to 1 per angle.

    Args:
        numbers: shares or counts per bin.
        source: what the numbers are, for the error.
        may_be_zero: accept bins of 0, as the target "joint" has them where the pool has no head; not all of an angle.

    Raises:
        UbhpdError: another shape, or a number that is zero, negative or not finite.
    """
    try:
        array = np.asarray(numbers, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        raise UbhpdError(f"{source} is no table of numbers: {_WANTED}.") from None
    if array.shape == (N_BINS,):
        array = _for_all_angles(array)
    if array.shape != (len(ANGLES), N_BINS):
        raise UbhpdError(f"{source} has numbers of shape {array.shape}: {_WANTED}.")
    bad = ~(np.isfinite(array) & ((array > 0) | (may_be_zero & (array == 0) & array.any(axis=1, keepdims=True))))
    if bad.any():
        angle, index = np.argwhere(bad)[0]
        found = f"{array[angle, index]} in bin {index + 1} of {ANGLES[angle]}"
        raise UbhpdError(f"{source} has {found}: every bin needs a positive finite number.")
    array = array / array.max(axis=1, keepdims=True)
    density: FloatArray = array / array.sum(axis=1, keepdims=True)
    return density


def _from_json(text: str, path: str | os.PathLike[str]) -> Any:
    try:
        content = json.loads(text)
        if isinstance(content, dict):
            if sorted(content) != sorted(ANGLES):
                raise UbhpdError(f"The target file {path} has the keys {', '.join(map(str, content))}: {_WANTED}.")
            content = [content[a] for a in ANGLES]
        return np.array(content, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise UbhpdError(f"The target file {path} is no list of numbers ({error}): {_WANTED}.") from None


def _from_csv(text: str, path: str | os.PathLike[str]) -> Any:
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if any(c.strip() for c in row)]
    except csv.Error as error:  # an endless field; with Python 3.10, a NUL character
        raise UbhpdError(f"The target file {path} is not CSV ({error}): {_WANTED}.") from None
    header = rows.pop(0) if rows and not any(_is_number(c) for c in rows[0]) else []
    width = len(rows[0]) if rows else 0
    if width not in (1, len(ANGLES)) or any(len(row) != width for row in rows) or len(rows) != N_BINS:
        raise UbhpdError(f"The target file {path} has {len(rows)} rows of numbers, the first of {width}: {_WANTED}.")
    if not all(_is_number(c) for row in rows for c in row):
        cell = next(c for row in rows for c in row if not _is_number(c))
        raise UbhpdError(f"The target file {path} holds {cell!r}, which is no number: {_WANTED}.")
    array = np.array([[float(c) for c in row] for row in rows]).T
    names = [c.lower().removesuffix("_deg") for c in header]
    if width == 1:
        return array[0]
    if names and sorted(names) != sorted(ANGLES):
        raise UbhpdError(f"The target file {path} has the columns {', '.join(header)}: {_WANTED}.")
    return array[[names.index(a) for a in ANGLES]] if names else array


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _for_all_angles(row: FloatArray) -> FloatArray:
    return np.tile(row, (len(ANGLES), 1))


TOLERANCE = 0.01  # mean total variation distance to the target
SIGMAS_DEG: FloatArray = np.arange(6.0, 90.5, 0.5)

_COARSE_STEP = 8  # of SIGMAS_DEG


def widest_sigma(counts: IntArray, size: int, tolerance: float = TOLERANCE) -> float:
    """Return the widest sigma of SIGMAS_DEG whose lower bound is within the tolerance, else that of the lowest one.

    Args:
        counts: heads per joint cell (15, 15, 15).
        size: heads to take.
        tolerance: of the mean total variation distance.
    """
    lower_bounds: dict[int, float] = {}

    def lower_bound_at(index: int) -> float:
        if index not in lower_bounds:
            lower_bounds[index] = allocation.lower_bound(counts, gaussian(SIGMAS_DEG[index]), size)
        return lower_bounds[index]

    last, step = len(SIGMAS_DEG) - 1, _COARSE_STEP
    tried: Iterable[int] = range(last, -1, -step)
    # Nearer and nearer to the lowest lower bound, until one is good enough or the grid is exhausted.
    while not any(lower_bound_at(i) <= tolerance for i in tried) and step > 1:
        lowest = min(lower_bounds, key=lambda i: (lower_bounds[i], -i))
        tried = range(min(lowest + step, last), max(lowest - step, 0) - 1, -step // 2)
        step //= 2
    good = [i for i, f in lower_bounds.items() if f <= tolerance]
    if not good:
        return float(SIGMAS_DEG[min(lower_bounds, key=lambda i: (lower_bounds[i], -i))])
    low = max(good)
    high = min((i for i in lower_bounds if i > low), default=last + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if lower_bound_at(middle) <= tolerance else (low, middle)
    return float(SIGMAS_DEG[low])


def widest_sigmas(
    counts: IntArray, size: int, wanted: Sequence[float | Literal["auto"]], tolerance: float = TOLERANCE
) -> tuple[float, ...]:
    """Return a sigma for each angle: the given ones, and for "auto" the widest that meet the target together.

    The sigmas sought are raised together for as long as the lower bound stays within the tolerance, or within the
    smallest lower bound of a common sigma if that is larger. An angle that cannot be raised any further stays, and
    the others go on, until no angle can be raised.

    Args:
        counts: heads per joint cell (15, 15, 15).
        size: heads to take.
        wanted: sigma of yaw, pitch and roll in degrees, or "auto".
        tolerance: of the mean total variation distance.
    """
    free = [j for j, sigma in enumerate(wanted) if sigma == "auto"]
    last = len(SIGMAS_DEG) - 1

    def sigmas(places: Mapping[int, int]) -> tuple[float, ...]:
        return tuple(float(SIGMAS_DEG[places[j]]) if j in places else float(s) for j, s in enumerate(wanted))

    def lower_bound_at(places: Mapping[int, int]) -> float:
        return allocation.lower_bound(counts, gaussian(sigmas(places)), size)

    if not free:
        return sigmas({})
    tried = {k: lower_bound_at(dict.fromkeys(free, k)) for k in range(0, last + 1, _COARSE_STEP)}
    if min(tried.values()) > tolerance:
        best = min(tried, key=lambda k: (tried[k], -k))
        near = range(max(best - _COARSE_STEP + 1, 0), min(best + _COARSE_STEP, last + 1))
        tried |= {k: lower_bound_at(dict.fromkeys(free, k)) for k in near if k not in tried}
    allowed = max(tolerance, min(tried.values()))
    place = dict.fromkeys(free, max(k for k, bound in tried.items() if bound <= allowed))

    def raised(angles: Sequence[int], steps: int) -> dict[int, int]:
        return place | {j: place[j] + steps for j in angles}

    growing = list(free)
    while growing:
        low, high = 0, last - max(place[j] for j in growing) + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if lower_bound_at(raised(growing, middle)) <= allowed else (low, middle)
        place = raised(growing, low)
        # An angle that could not be raised before may be able to now: a wide yaw leaves room for a wide pitch.
        able = [j for j in free if place[j] < last and lower_bound_at(raised([j], 1)) <= allowed]
        if low == 0 and set(able) >= set(growing):  # each can be raised, but not all of them together
            able = [min(able, key=lambda j: (place[j], j))]
        growing = able
    return sigmas(place)


def largest_size(counts: IntArray, target: FloatArray, limit: int, tolerance: float = TOLERANCE) -> int:
    """Return the largest size up to `limit` whose lower bound is within the tolerance.

    Where the pool lacks heads in some bins of the target, no size is: then the tolerance counts from the lowest
    lower bound there is. The lower bound cannot fall as the size grows: any shares of a larger set can also be taken
    of a smaller one, so the lowest is that of a single head (in shares; heads are not divided here).
    """
    lowest = allocation.lower_bound(counts, target, 1)
    allowed = tolerance if lowest <= tolerance else lowest + tolerance
    low, high = 1, min(limit, int(counts.sum())) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if allocation.lower_bound(counts, target, middle) <= allowed else (low, middle)
    return low
