"""How many heads to take of each joint cell, so that the three histograms come as near to a target as can be.

A joint cell is one of 15 x 15 x 15 combinations of a yaw, a pitch and a roll bin. Cell c holds n_c heads, of
which x_c are taken, 0 <= x_c <= n_c, N in all. The distance to the target t is the total variation distance
of each angle's density, 0.5 sum_i |p_ij - t_ij|, averaged over the three angles. Three steps:

1. The lower bound. The smallest distance there is, over real x_c, is a linear programme. Nothing can go below it.
2. The most even of the optima. The lower bound is reached by many x, and a simplex solver returns a corner, with most
   cells empty. Wanted is the x of maximum entropy. Its dual has one multiplier per bin,
   x_c = min(n_c, exp(nu + a_yaw + b_pitch + c_roll)), which is iterative proportional fitting with caps; the
   L1 distance becomes a box on the multipliers (here +-12: exact in the limit). The marginals need not be fixed
   beforehand, so a target that cannot be met is missed evenly too. L-BFGS-B solves it in 10 to 100 ms. Should
   it end above the lower bound by more than SLACK, it is mixed with the corner, which by convexity brings it there.
3. Whole numbers. Each x_c is rounded up or down by a second linear programme that keeps the three histograms
   and otherwise rounds up the largest fractions; its corner leaves at most 46 cells undecided, which are
   settled greedily. This costs a few heads per histogram, so a few / N in distance.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import linprog, minimize

from ubhpd.core.bins import ANGLES, N_BINS
from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import AnyArray, FloatArray, IntArray

SHAPE = (N_BINS,) * len(ANGLES)
SLACK = 0.0005  # distance above the lower bound that evenness may cost

_BOX = 12.0
_EVENNESS_WEIGHT = 0.01  # of a fraction rounded up against one head in a histogram


class Allocation(NamedTuple):
    """Heads to take of each cell (15, 15, 15), and the lower bound of the distance."""

    taken: IntArray
    lower_bound: float


def joint_counts(cell: IntArray) -> IntArray:
    """Return the heads per joint cell (15, 15, 15) from their cell indices (n,); negative ones do not count."""
    inside = cell[cell >= 0]
    return np.bincount(inside, minlength=N_BINS ** len(ANGLES)).reshape(SHAPE)


def marginals(counts: AnyArray) -> AnyArray:
    """Return the three histograms (3, 15) of joint counts (15, 15, 15)."""
    return np.stack([counts.sum(axis=tuple(k for k in range(3) if k != j)) for j in range(3)])


def distances(counts: AnyArray, target: FloatArray) -> FloatArray:
    """Return the total variation distance (3,) of each angle's density to the target (3, 15); NaN without heads."""
    with np.errstate(invalid="ignore"):
        density = marginals(counts) / counts.sum()
    result: FloatArray = 0.5 * np.abs(density - target).sum(axis=1)
    return result


def lower_bound(counts: IntArray, target: FloatArray, size: int) -> float:
    """Return the smallest mean distance to the target (3, 15) of any `size` heads of the cells (15, 15, 15).

    Raises:
        UbhpdError: size is below 1 or above the number of heads.
    """
    _check(counts, size)
    occupied = np.flatnonzero(counts)
    x = _nearest(_slabs(occupied), counts.ravel()[occupied], size * target.ravel(), size)
    return _distance(x, _slabs(occupied), size * target.ravel(), size)


def lower_bounds_alone(counts: IntArray, target: FloatArray, size: int) -> FloatArray:
    """Return the smallest distance (3,) that each angle could have if the others did not matter."""
    met = np.minimum(marginals(counts) / size, target).sum(axis=1)
    result: FloatArray = np.maximum(1 - met, 0.0)
    return result


def allocate(counts: IntArray, target: FloatArray, size: int) -> Allocation:
    """Return the most even whole allocation that reaches the lower bound of the distance, up to SLACK and rounding.

    Args:
        counts: heads per joint cell (15, 15, 15).
        target: density (3, 15).
        size: heads to take, N.

    Raises:
        UbhpdError: size is below 1 or above the number of heads.
    """
    _check(counts, size)
    occupied = np.flatnonzero(counts)
    caps, slabs, wanted = counts.ravel()[occupied], _slabs(occupied), size * target.ravel()
    corner = _nearest(slabs, caps, wanted, size)
    lowest = _distance(corner, slabs, wanted, size)
    even = _most_even(slabs, caps, wanted, size)
    excess = _distance(even, slabs, wanted, size) - lowest
    if excess > SLACK:
        even += (corner - even) * (1 - SLACK / excess)
    taken = np.zeros(counts.size, dtype=np.int64)
    taken[occupied] = rounded(even, caps, slabs, wanted, size)
    return Allocation(taken.reshape(counts.shape), lowest)


def allocate_evenly(counts: IntArray, size: int) -> Allocation:
    """Return the allocation that is as even over the occupied joint cells as their heads allow.

    A cell gives min(n_c, m) heads, with m such that the total is `size`: all heads of the rare cells, and equally many
    of the others. Its entropy over the cells is the largest that `size` heads can have. The lower bound of an
    allocation that is its own target is 0.

    Args:
        counts: heads per joint cell (15, 15, 15).
        size: heads to take.

    Raises:
        UbhpdError: size is below 1 or above the number of heads.
    """
    _check(counts, size)
    caps = counts.ravel()
    low, high = 0, int(caps.max())  # the largest m whose total is at most `size`
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if int(np.minimum(caps, middle).sum()) <= size else (low, middle - 1)
    taken = np.minimum(caps, low)
    rest = size - int(taken.sum())
    # One more head of some of the cells that have more; spread over the angles, not all from one end.
    open_cells = np.flatnonzero(caps > low)
    taken[open_cells[np.argsort(open_cells * 0.6180339887498949 % 1, kind="stable")[:rest]]] += 1
    return Allocation(taken.reshape(counts.shape), 0.0)


def effective_cells(counts: AnyArray) -> float:
    """Return the effective number of joint cells: exp of the entropy of the shares of the cells; 0 without heads."""
    total = counts.sum()
    if not total:
        return 0.0
    share = counts[counts > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))


def rounded(x: FloatArray, caps: IntArray, slabs: IntArray, wanted: FloatArray, total: int) -> IntArray:
    """Return whole numbers next to x (m,), at most caps, with this total and sums per bin near `wanted`.

    Args:
        x: real numbers of 0 to caps, whose sum is about `total`.
        caps: whole numbers (m,) that the result does not exceed.
        slabs: for each of m cells the bins it lies in, (3, m), numbered through all angles.
        wanted: sum wanted in each of these bins.
        total: sum of the result.
    """
    base = np.minimum(np.floor(x + 1e-9).astype(np.int64), caps)
    while base.sum() > total:  # x is a hair above a whole number in a cell that should stay below
        base[np.argmax(np.where(base > 0, base - x, -np.inf))] -= 1
    bonus = np.clip(x - base, 0, 1)
    # Fractions are spread over the cells in their order where they tie.
    bonus += 1e-6 * (np.arange(len(x)) * 0.6180339887498949 % 1)
    missing = wanted - _sums(base, slabs, len(wanted))
    room = np.minimum(caps - base, 1)
    rest = total - int(base.sum())
    if rest > room.sum():
        room = caps - base
    y = _nearest(slabs, room, missing, rest, bonus)
    up = np.floor(y + 1e-6).astype(np.int64)
    undecided = np.flatnonzero((y - up > 1e-6) & (up < room))
    short = rest - int(up.sum())
    up[undecided[np.argsort(up[undecided] - y[undecided], kind="stable")[:short]]] += 1
    if (short := rest - int(up.sum())) > 0:
        open_cells = np.flatnonzero(up < room)
        up[open_cells[np.argsort(-bonus[open_cells], kind="stable")[:short]]] += 1
    return base + _exchanged(up, room, slabs, missing)


def _check(counts: IntArray, size: int) -> None:
    if not 1 <= size <= counts.sum():
        raise UbhpdError(f"{size} heads are wanted of {counts.sum()} inside the bins: give a size of 1 to that number.")


def _slabs(occupied: IntArray) -> IntArray:
    """Return the three bins of each cell (3, m), numbered 0 to 44."""
    return np.stack(np.unravel_index(occupied, SHAPE)) + N_BINS * np.arange(3)[:, None]


def _sums(x: AnyArray, slabs: IntArray, n_rows: int) -> FloatArray:
    """Return the sum of x in each bin."""
    return np.bincount(slabs.ravel(), np.tile(x, len(slabs)), n_rows).astype(np.float64)


def _distance(x: FloatArray, slabs: IntArray, wanted: FloatArray, size: int) -> float:
    return float(np.abs(_sums(x, slabs, len(wanted)) - wanted).sum() / (2 * len(slabs) * size))


def _nearest(
    slabs: IntArray, caps: IntArray, wanted: FloatArray, total: int, bonus: FloatArray | None = None
) -> FloatArray:
    """Return x (m,), 0 <= x <= caps, of this total, whose sums per bin have the least L1 distance to `wanted`.

    With a bonus, a corner that also collects as much of bonus * x as the distance allows.
    """
    m, k = len(caps), len(wanted)
    cells = np.tile(np.arange(m), len(slabs))
    incidence = sparse.csr_array((np.ones(slabs.size), (slabs.ravel(), cells)), shape=(k, m))
    one = sparse.eye_array(k)
    balance = sparse.hstack([incidence, one, -one])
    whole = sparse.csr_array(np.concatenate([np.ones(m), np.zeros(2 * k)])[None])
    cost = np.concatenate([np.zeros(m) if bonus is None else -_EVENNESS_WEIGHT * bonus, np.ones(2 * k)])
    upper = np.concatenate([caps, np.full(2 * k, np.inf)])
    found: Any = linprog(
        cost,
        A_eq=sparse.vstack([balance, whole], format="csr"),
        b_eq=np.append(wanted, total),
        bounds=np.stack([np.zeros(m + 2 * k), upper], axis=1),
        method="highs-ds",
    )  # type: ignore[call-overload]  # the stubs know no sparse matrix
    if found.x is None:
        raise UbhpdError(f"The linear programme of the sampler ended without a result ({found.message}): report this.")
    return _with_total(np.clip(found.x[:m], 0, caps), caps, total)


def _most_even(slabs: IntArray, caps: IntArray, wanted: FloatArray, size: int) -> FloatArray:
    """Return the x (m,) of maximum entropy among those nearest to `wanted`, by its dual."""
    k, log_caps = len(wanted), np.log(caps)

    def primal(z: FloatArray) -> tuple[FloatArray, FloatArray]:
        theta = z[slabs].sum(axis=0) + z[k]
        return theta, np.exp(np.minimum(theta, log_caps))

    def dual(z: FloatArray) -> tuple[float, FloatArray]:
        theta, x = primal(z)
        value = x.sum() + (caps * np.maximum(theta - log_caps, 0)).sum() - z[:k] @ wanted - z[k] * size
        return value / size, np.append(_sums(x, slabs, k) - wanted, x.sum() - size) / size

    start = np.zeros(k + 1)
    start[k] = np.log(size / len(caps))
    found = minimize(
        dual,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(-_BOX, _BOX)] * k + [(None, None)],
        options={"maxiter": 1000, "maxfun": 1500, "maxcor": 30, "ftol": 1e-13, "gtol": 1e-7},
    )
    return _with_total(primal(found.x)[1], caps, size)


def _with_total(x: FloatArray, caps: IntArray, total: int) -> FloatArray:
    """Return x with the rounding error of its sum corrected, within 0 and caps."""
    excess = x.sum() - total
    room = caps - x
    if excess > 0:
        x = x * (total / x.sum())
    elif excess < 0:
        x = x - room * (excess / room.sum())
    return x


def _exchanged(up: IntArray, room: IntArray, slabs: IntArray, missing: FloatArray) -> IntArray:
    """Return `up` after moving single heads between cells for as long as that brings the sums nearer."""
    off = _sums(up, slabs, len(missing)) - missing
    for _ in range(len(missing) * 4):
        fewer = np.abs(off - 1) - np.abs(off)
        cost = np.where(up > 0, fewer[slabs].sum(axis=0), np.inf)
        giver = int(np.argmin(cost))
        if not np.isfinite(cost[giver]):
            break
        without = off.copy()
        without[slabs[:, giver]] -= 1
        more = np.abs(without + 1) - np.abs(without)
        gain = np.where(up < room, more[slabs].sum(axis=0), np.inf)
        taker = int(np.argmin(gain))
        if cost[giver] + gain[taker] >= -1e-9:
            break
        up[giver] -= 1
        up[taker] += 1
        off = without
        off[slabs[:, taker]] += 1
    return up
