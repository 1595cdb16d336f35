"""Checks of the arrays that metrics take, and means that are NaN where there is nothing to average."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ubhpd.core.bins import ANGLES, N_BINS
from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import AnyArray, FloatArray, IntArray

Statistics = Mapping[str, AnyArray]


def angle_pair(predicted: npt.ArrayLike, true: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return both as float arrays (n, 3) of yaw, pitch, roll.

    Raises:
        UbhpdError: another shape, different lengths, or a value that is not finite.
    """
    return _pair(predicted, true, (3,), "angles of shape (n, 3)")


def rotation_pair(predicted: npt.ArrayLike, true: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return both as float arrays (n, 3, 3); errors as `angle_pair`."""
    return _pair(predicted, true, (3, 3), "rotations of shape (n, 3, 3)")


def rotations(relative: npt.ArrayLike) -> FloatArray:
    """Return a float array (n, 3, 3); errors as `angle_pair`."""
    return _pair(relative, relative, (3, 3), "rotations of shape (n, 3, 3)")[0]


def bin_tables(error: npt.ArrayLike, counts: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return per-bin errors and counts as float arrays (..., 3, 15).

    Raises:
        UbhpdError: another shape, or a negative or non-finite count.
    """
    e, n = np.asarray(error, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    for table in (e, n):
        if table.shape[-2:] != (len(ANGLES), N_BINS):
            raise UbhpdError(f"Expected a table of shape (..., 3, 15), found shape {table.shape}.")
    if not np.all(np.isfinite(n)) or np.any(n < 0):
        raise UbhpdError("A count per bin is negative or not finite.")
    return e, n


def binned(
    errors: npt.ArrayLike, index: npt.NDArray[np.integer[Any]], n_bins: int = N_BINS
) -> tuple[IntArray, FloatArray]:
    """Return (counts, sums of errors) per bin (n_bins,) of errors (n,) with bins (n,); a bin below 0 is left out."""
    place = index.astype(np.int64) + 1
    e = np.asarray(errors, dtype=np.float64)
    counts = np.bincount(place, minlength=n_bins + 1)[1:].astype(np.int64)
    return counts, np.bincount(place, weights=e, minlength=n_bins + 1)[1:].astype(np.float64)


def divide(total: npt.ArrayLike, count: npt.ArrayLike) -> FloatArray:
    """Return total / count, NaN where the count is 0."""
    t, n = np.broadcast_arrays(np.asarray(total, dtype=np.float64), np.asarray(count, dtype=np.float64))
    ratio: FloatArray = np.divide(t, n, out=np.full(t.shape, np.nan), where=n > 0)
    return ratio


def mean_where(values: npt.ArrayLike, keep: npt.ArrayLike) -> FloatArray:
    """Return the mean along the last axis over the places kept, NaN where none is."""
    kept = np.asarray(keep, dtype=bool)
    return divide(np.where(kept, values, 0.0).sum(axis=-1), kept.sum(axis=-1))


def _pair(
    predicted: npt.ArrayLike, true: npt.ArrayLike, tail: tuple[int, ...], wanted: str
) -> tuple[FloatArray, FloatArray]:
    try:
        p, t = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    except (TypeError, ValueError):
        raise UbhpdError(f"Expected {wanted}, found something that is no array of numbers.") from None
    for name, a in (("Predicted", p), ("True", t)):
        if a.ndim != 1 + len(tail) or a.shape[1:] != tail:
            raise UbhpdError(f"{name}: expected {wanted}, found shape {a.shape}.")
        finite = np.isfinite(a)
        if not finite.all():
            row = int(np.flatnonzero(~finite.reshape(len(a), -1).all(axis=1))[0])
            raise UbhpdError(f"{name}: a value in row {row} (the first is 0) is not a finite number.")
    if len(p) != len(t):
        raise UbhpdError(f"Predicted has {len(p)} rows and true has {len(t)}: they must be the same heads.")
    return p, t
