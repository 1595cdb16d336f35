"""Known mistakes in published evaluation code, rebuilt so that one can see how a number arises. Not metrics.

Each function is named after the code it imitates and returns what that code would print, in degrees, for angles
yaw, pitch, roll (n, 3). None of them is offered by `ubhpd score`; compare with `ubhpd.metrics.mae`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import FloatArray
from ubhpd.metrics.mae import absolute_errors, mae


class Emulated(NamedTuple):
    """What the imitated code prints: errors of yaw, pitch, roll and their mean, degrees; NaN for no sample."""

    yaw: float
    pitch: float
    roll: float
    mean: float
    n: int


def sixdrepnet_folded_mae(predicted_deg: npt.ArrayLike, true_deg: npt.ArrayLike) -> Emulated:
    """Return the MAE as 6DRepNet's test.py counts it: the least of |e|, |e +- 360| and also |e +- 180|.

    The 180 makes a head turned right round free of charge: no error above 90 degrees can arise from one in -180 to
    180 (thohemp/6DRepNet, test.py; also in 6DRepNet360 and DirectMHP).
    """
    predicted, true = _checked(predicted_deg, true_deg)
    shifts = np.array([0.0, 360.0, -360.0, 180.0, -180.0])
    errors = np.abs((predicted - true)[..., None] + shifts).min(axis=-1)
    return _mean(errors)


def osggnet_short_batch_mae(predicted_deg: npt.ArrayLike, true_deg: npt.ArrayLike, batch_size: int = 64) -> Emulated:
    """Return the MAE as OsGG-Net's evaluation averages it, for samples in this order.

    Each batch's sum of errors is divided by the full batch size, also that of the last, shorter batch, and the
    batches are averaged: the result is too small by n / (batch_size * number of batches), and depends on the batch
    size (stoneMo/OsGG-Net, train_test.py, evaluate).

    Raises:
        UbhpdError: bad arrays, or a batch size below 1.
    """
    predicted, true = _checked(predicted_deg, true_deg)
    if batch_size < 1:
        raise UbhpdError(f"A batch of {batch_size} samples is none: give 1 or more.")
    errors = absolute_errors(predicted, true)
    batches = [errors[i : i + batch_size].sum(axis=0) / batch_size for i in range(0, len(errors), batch_size)]
    means = np.mean(batches, axis=0) if batches else np.full(3, np.nan)
    yaw, pitch, roll = means.tolist()
    return Emulated(yaw, pitch, roll, float(means.mean()), len(errors))


def opal_wrapped_mae(predicted_deg: npt.ArrayLike, true_deg: npt.ArrayLike) -> Emulated:
    """Return the MAE as OPAL's evaluator counts it: per head, the better of two ways to write the prediction.

    A rotation has two Euler triplets: (yaw, pitch, roll) and (180 - yaw, pitch +- 180, roll +- 180). The evaluator
    takes for each head the one with the smaller mean error, chosen with the truth in hand, and then min(e, 360 - e)
    (pcr-upm/opal23_headpose, test/evaluator.py, compute_mae). Same rotation, so no cheat by itself; but a number
    below the plain MAE of the literature, and not comparable with it.
    """
    predicted, true = _checked(predicted_deg, true_deg)
    sign = np.sign(predicted)
    twin = predicted - 180.0 * sign
    twin[:, 0] = 180.0 - predicted[:, 0]
    twin = np.where(twin > 180.0, twin - 360.0, np.where(twin < -180.0, twin + 360.0, twin))
    plain, other = absolute_errors(predicted, true), absolute_errors(twin, true)
    errors = np.where((other.mean(axis=1) < plain.mean(axis=1))[:, None], other, plain)
    return _mean(np.minimum(errors, np.abs(360.0 - errors)))


def _checked(predicted_deg: npt.ArrayLike, true_deg: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    mae(predicted_deg, true_deg)  # shapes and values
    return np.asarray(predicted_deg, dtype=np.float64), np.asarray(true_deg, dtype=np.float64)


def _mean(errors: FloatArray) -> Emulated:
    means = errors.mean(axis=0) if len(errors) else np.full(3, np.nan)
    yaw, pitch, roll = means.tolist()
    return Emulated(yaw, pitch, roll, float(means.mean()), len(errors))
