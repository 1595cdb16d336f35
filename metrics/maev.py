"""MAEV: mean absolute error of vectors, the mean angle between the three axes of the head.

    e = 1/3 * sum_k angle(column k of R_predicted, column k of R_true)

(Cao et al., A Vector-based Representation to Enhance Head Pose Estimation (TriNet), WACV 2021). Like the
[geodesic error](geodesic.md) it needs no Euler order. A turn about one axis moves the other two, so for small turns it
is about two thirds of the geodesic error, and it is never larger.

Units: rotation matrices in, degrees out. Bins play no part. No sample: NaN and n = 0.

```python
from ubhpd.metrics.maev import maev
maev(predicted, true)               # rotations (n, 3, 3); Maev(mean, axes, n)
```
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.core.typing import FloatArray
from ubhpd.metrics._arrays import Statistics, divide, rotation_pair

NAME = "maev"
TITLE = "Mean absolute error of vectors"
UNIT = "degrees"
PAPER = "Cao et al. (TriNet), WACV 2021"
BETTER = "lower"
INPUT = "relative"
COLUMNS = ("axis_error",)
SCORES = {"maev": "mean angle between the left, down and front axes of prediction and truth"}


@dataclass(frozen=True)
class Options:
    """No options."""


class Maev(NamedTuple):
    """Mean over axes and samples, mean of each axis (3,), in degrees, and the number of samples."""

    mean: float
    axes: FloatArray
    n: int


def maev(predicted: npt.ArrayLike, true: npt.ArrayLike) -> Maev:
    """Return the MAEV of rotations (n, 3, 3), whose columns are the head's axes.

    Raises:
        UbhpdError: another shape, different lengths, or a value that is not finite.
    """
    p, t = rotation_pair(predicted, true)
    angles = axis_angles_deg(np.swapaxes(p, 1, 2) @ t)
    axes = divide(angles.sum(axis=0), len(angles))
    return Maev(float(axes.mean()), axes, len(angles))


def axis_angles_deg(relative: FloatArray) -> FloatArray:
    """Return the angle (n, 3) in degrees between each axis of the prediction and of the truth.

    Entry kk of R_predicted^T R_true is the cosine for axis k, and the rest of column k its sine.
    """
    angles = np.empty((3, len(relative)))
    for k in range(3):
        i, j = relative[:, (k + 1) % 3, k], relative[:, (k + 2) % 3, k]
        np.arctan2(np.sqrt(i * i + j * j), relative[:, k, k], out=angles[k])
    degrees: FloatArray = np.degrees(angles, out=angles).T
    return degrees


def per_sample(relative: FloatArray) -> dict[str, FloatArray]:
    """Return `COLUMNS` of relative rotations R_predicted^T R_true (n, 3, 3), each (n,)."""
    a = axis_angles_deg(relative)
    return {"axis_error": (a[:, 0] + a[:, 1] + a[:, 2]) / 3.0}


def score(statistics: Statistics, options: Options | None = None) -> dict[str, FloatArray]:
    """Return `SCORES` from n (...) and axis_error (...)."""
    return {"maev": divide(statistics["axis_error"], statistics["n"])}
