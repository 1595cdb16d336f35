"""Mean absolute error of yaw, pitch and roll, plain and on the circle.

    MAE_j = 1/N * sum_n |predicted_nj - true_nj|        j = yaw, pitch, roll
    MAE   = (MAE_yaw + MAE_pitch + MAE_roll) / 3

* `mae` is the number that the literature reports: the plain difference of the triplets as they are (Ruiz et al.,
  Fine-Grained Head Pose Estimation Without Keypoints, CVPRW 2018; OsGG-Net, ACM MM 2021).
* `mae_wrapped` measures the same difference on the circle, min(|e|, 360 - |e|) with |e| taken modulo 360 (Zhou and
  Gregson, WHENet, BMVC 2020): 179 and -179 are 2 degrees apart. The two are equal as long as no prediction is more
  than 180 degrees off.
* Nothing is folded by 180 degrees: a head turned round costs 180. `ubhpd.evaluation.torchmetric` reproduces, by name,
  published code that folds.

Heads turned beyond 90 degrees of yaw have two triplets for one rotation, so an error of Euler angles says little
about them: use the [geodesic error](geodesic.md) for models of the full range.

Units: degrees in, degrees out. Bins play no part, so a truth beyond [-90, 90] counts like any other unless
`--exclude-outside` or `--max-angle` leaves it out. No sample: NaN (null in JSON).

```python
from ubhpd.metrics.mae import mae, mae_wrapped, per_bin
mae(predicted_deg, true_deg)        # (n, 3) each; Mae(yaw, pitch, roll, mean, n)
per_bin(predicted_deg, true_deg)    # E_ij (3, 15), counts (3, 15), samples outside the bins (3,)
```
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.core.bins import ANGLES, N_BINS, bin_index
from ubhpd.core.rotation import wrap_deg
from ubhpd.core.typing import AnyArray, FloatArray, IntArray
from ubhpd.metrics._arrays import Statistics, angle_pair, binned, divide

NAME = "mae"
TITLE = "Mean absolute error"
UNIT = "degrees"
PAPER = "Ruiz et al., CVPRW 2018; OsGG-Net, ACM MM 2021; wrapped: WHENet, BMVC 2020"
BETTER = "lower"
INPUT = "angles"
COLUMNS = ("abs_error", "wrapped_error")
PER_BIN = ("abs_error",)
SCORES = {
    "mae_yaw": "mean |predicted - true| of yaw",
    "mae_pitch": "mean |predicted - true| of pitch",
    "mae_roll": "mean |predicted - true| of roll",
    "mae": "mean of the three: the number that the literature reports",
    "mae_wrapped_yaw": "mean yaw error on the circle",
    "mae_wrapped_pitch": "mean pitch error on the circle",
    "mae_wrapped_roll": "mean roll error on the circle",
    "mae_wrapped": "mean of the three errors on the circle",
}


@dataclass(frozen=True)
class Options:
    """No options."""


class Mae(NamedTuple):
    """Mean errors in degrees and the number of samples; NaN if there are none."""

    yaw: float
    pitch: float
    roll: float
    mean: float
    n: int


class BinTable(NamedTuple):
    """Mean error (3, 15) in degrees, NaN for an empty bin, samples (3, 15), and samples outside the bins (3,)."""

    error: FloatArray
    n: IntArray
    outside: IntArray


def mae(predicted_deg: npt.ArrayLike, true_deg: npt.ArrayLike) -> Mae:
    """Return the plain mean absolute error of yaw, pitch, roll (n, 3) in degrees.

    Raises:
        UbhpdError: another shape, different lengths, or a value that is not finite.
    """
    return _mean(absolute_errors(*angle_pair(predicted_deg, true_deg)))


def mae_wrapped(predicted_deg: npt.ArrayLike, true_deg: npt.ArrayLike) -> Mae:
    """Return the mean absolute error on the circle; arguments and errors as `mae`."""
    return _mean(wrapped_errors(*angle_pair(predicted_deg, true_deg)))


def per_bin(predicted_deg: npt.ArrayLike, true_deg: npt.ArrayLike) -> BinTable:
    """Return the mean absolute error of each angle over the samples whose true angle lies in each of the 15 bins.

    This is E_ij of OsGG-Net's eq. 14. A truth outside [-90, 90] is in no bin and counted in `outside`.
    """
    predicted, true = angle_pair(predicted_deg, true_deg)
    errors, index = absolute_errors(predicted, true), bin_index(true)
    parts = [binned(errors[:, j], index[:, j], N_BINS) for j in range(len(ANGLES))]
    n = np.stack([p[0] for p in parts])
    return BinTable(divide(np.stack([p[1] for p in parts]), n), n, (index < 0).sum(axis=0))


def absolute_errors(predicted_deg: FloatArray, true_deg: FloatArray) -> FloatArray:
    """Return |predicted - true| (n, 3), degrees."""
    errors: FloatArray = np.abs(predicted_deg - true_deg)
    return errors


def wrapped_errors(predicted_deg: FloatArray, true_deg: FloatArray) -> FloatArray:
    """Return the error on the circle (n, 3), 0 to 180 degrees."""
    errors = np.abs(predicted_deg - true_deg)
    far = errors > 180.0  # rare: the modulo is paid only where it is needed
    if far.any():
        errors[far] = np.abs(wrap_deg(errors[far]))
    return errors


def per_sample(predicted_deg: FloatArray, true_deg: FloatArray) -> dict[str, FloatArray]:
    """Return `COLUMNS` of angles (n, 3) in degrees, each (n, 3)."""
    plain = absolute_errors(predicted_deg, true_deg)
    wrapped = plain if not len(plain) or plain.max() <= 180.0 else wrapped_errors(predicted_deg, true_deg)
    return {"abs_error": plain, "wrapped_error": wrapped}


def score(statistics: Statistics, options: Options | None = None) -> dict[str, FloatArray]:
    """Return `SCORES` from n (...), abs_error (..., 3) and wrapped_error (..., 3)."""
    scores: dict[str, FloatArray] = {}
    for name, column in (("mae", "abs_error"), ("mae_wrapped", "wrapped_error")):
        per_angle = divide(statistics[column], statistics["n"][..., None])
        scores |= {f"{name}_{angle}": per_angle[..., j] for j, angle in enumerate(ANGLES)}
        scores[name] = per_angle.mean(axis=-1)
    return scores


def tables(statistics: Statistics, options: Options | None = None) -> dict[str, AnyArray]:
    """Return samples n and mean absolute error, NaN in an empty bin, of each bin (..., 3, 15)."""
    n = statistics["bin_n"]
    return {"n": n, "error": divide(statistics["bin_abs_error"], n)}


def _mean(errors: FloatArray) -> Mae:
    means = divide(errors.sum(axis=0), len(errors))
    yaw, pitch, roll = means.tolist()
    return Mae(yaw, pitch, roll, float(means.mean()), len(errors))
