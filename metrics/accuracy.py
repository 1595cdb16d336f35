"""Accuracy: the share of heads whose angles are within 5, 10 and 15 degrees of the truth.

    accuracy_t_j = 100/N * |{n: e_nj <= t}|                     j = yaw, pitch, roll
    accuracy_t   = 100/N * |{n: e_nj <= t for all three j}|     t = 5, 10, 15 degrees

A head is correct if its absolute error is lower than or equal to the threshold (Ruiz et al., Fine-Grained Head Pose
Estimation Without Keypoints (Hopenet), CVPRW 2018, section on AFW, where the yaw within 15 degrees is the literature's
metric). The face alignment literature counts the same way: the share of images whose error is at most a threshold is a
point of the cumulative error distribution (see [error_auc](error_auc.md)).

The error e is taken on the circle, as in `mae_wrapped`: 179 and -179 are 2 degrees apart. `accuracy_5`, `accuracy_10`
and `accuracy_15` ask for all three angles of one head at once, so they are at most the smallest of the three
accuracies per angle.

Units: degrees in, percent out; higher is better. Bins play no part. No sample: NaN.

```python
from ubhpd.metrics.accuracy import accuracy
accuracy(predicted_deg, true_deg, threshold_deg=10.0)   # Accuracy(yaw, pitch, roll, all_three, n), percent
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy.typing as npt

from ubhpd.core.bins import ANGLES
from ubhpd.core.typing import AnyArray, BoolArray, FloatArray
from ubhpd.metrics import mae
from ubhpd.metrics._arrays import Statistics, angle_pair, divide

NAME = "accuracy"
TITLE = "Accuracy within 5, 10 and 15 degrees"
UNIT = "%"
PAPER = "Ruiz et al. (Hopenet), CVPRW 2018, accuracy on AFW; cumulative error: Yang et al., arXiv 1511.05049, 2015"
BETTER = "higher"
INPUT = "columns"
THRESHOLDS_DEG = (5, 10, 15)
COLUMNS = tuple(f"{kind}within_{t}" for t in THRESHOLDS_DEG for kind in ("", "all_"))
SCORES = {
    f"accuracy_{t}{suffix}": f"heads with {what} within {t} degrees"
    for t in THRESHOLDS_DEG
    for suffix, what in (*((f"_{a}", a) for a in ANGLES), ("", "all three angles"))
}


@dataclass(frozen=True)
class Options:
    """No options."""


class Accuracy(NamedTuple):
    """Percent of heads within the threshold per angle and in all three, and the number of heads; NaN if none."""

    yaw: float
    pitch: float
    roll: float
    all_three: float
    n: int


def accuracy(predicted_deg: npt.ArrayLike, true_deg: npt.ArrayLike, threshold_deg: float) -> Accuracy:
    """Return the accuracy of angles (n, 3) in degrees at one threshold.

    Raises:
        UbhpdError: another shape, different lengths, or a value that is not finite.
    """
    within = mae.wrapped_errors(*angle_pair(predicted_deg, true_deg)) <= threshold_deg
    shares = 100.0 * divide([*within.sum(axis=0), within.all(axis=1).sum()], len(within))
    yaw, pitch, roll, all_three = shares.tolist()
    return Accuracy(yaw, pitch, roll, all_three, len(within))


def per_sample(columns: Mapping[str, AnyArray]) -> dict[str, BoolArray]:
    """Return `COLUMNS` from wrapped_error (n, 3): within_T (n, 3) of each angle, all_within_T (n,) of all three."""
    errors = columns["wrapped_error"]
    result: dict[str, BoolArray] = {}
    for t in THRESHOLDS_DEG:
        within = errors <= t
        result |= {f"within_{t}": within, f"all_within_{t}": within[:, 0] & within[:, 1] & within[:, 2]}
    return result


def score(statistics: Statistics, options: Options | None = None) -> dict[str, FloatArray]:
    """Return `SCORES` from n (...), within_T (..., 3) and all_within_T (...)."""
    scores: dict[str, FloatArray] = {}
    for t in THRESHOLDS_DEG:
        per_angle = 100.0 * divide(statistics[f"within_{t}"], statistics["n"][..., None])
        scores |= {f"accuracy_{t}_{angle}": per_angle[..., j] for j, angle in enumerate(ANGLES)}
        scores[f"accuracy_{t}"] = 100.0 * divide(statistics[f"all_within_{t}"], statistics["n"])
    return scores
