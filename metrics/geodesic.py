"""Geodesic error: the angle of the rotation between prediction and truth.

    e = angle(R_predicted^T R_true),  0 to 180 degrees

(Huynh, Metrics for 3D Rotations, JMIV 2009, Phi_6; used for head pose by 6DRepNet, ICIP 2022, and by Cobo et al.,
Pattern Recognition 2024). It covers the whole rotation, needs no Euler order, has no gimbal lock, and does not change
when prediction and truth are both turned by the same rotation.

It is measured on the rotation matrix of the manifest where there is one, otherwise on the matrix of the triplet,
R = Rx(-pitch) Ry(-yaw) Rz(-roll). It is computed by atan2 of sine and cosine, so it is exact near 0 and near 180.

Units: rotation matrices in, degrees out. Bins play no part. No sample: NaN and n = 0.

```python
from ubhpd.metrics.geodesic import geodesic
geodesic(predicted, true)           # rotations (n, 3, 3); Geodesic(mean, errors, n)
```
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.core.rotation import geodesic_deg
from ubhpd.core.typing import FloatArray
from ubhpd.metrics._arrays import Statistics, divide, rotation_pair

NAME = "geodesic"
TITLE = "Geodesic error"
UNIT = "degrees"
PAPER = "Huynh, JMIV 2009, Phi_6; 6DRepNet, ICIP 2022"
BETTER = "lower"
INPUT = "relative"
COLUMNS = ("geodesic",)
SCORES = {"geodesic": "mean angle of the rotation between prediction and truth"}


@dataclass(frozen=True)
class Options:
    """No options."""


class Geodesic(NamedTuple):
    """Mean error in degrees, the errors (n,), and the number of samples."""

    mean: float
    errors: FloatArray
    n: int


def geodesic(predicted: npt.ArrayLike, true: npt.ArrayLike) -> Geodesic:
    """Return the geodesic error of rotations (n, 3, 3).

    Raises:
        UbhpdError: another shape, different lengths, or a value that is not finite.
    """
    errors = geodesic_deg(*rotation_pair(predicted, true))
    return Geodesic(float(divide(errors.sum(), len(errors))), errors, len(errors))


def angle_deg(relative: FloatArray) -> FloatArray:
    """Return the angle (n,) in degrees, 0 to 180, of rotations (n, 3, 3).

    atan2 of sine (from the antisymmetric part) and cosine (from the trace): exact near 0 and near 180.
    """
    x = relative[:, 2, 1] - relative[:, 1, 2]
    y = relative[:, 0, 2] - relative[:, 2, 0]
    z = relative[:, 1, 0] - relative[:, 0, 1]
    sine = np.sqrt(x * x + y * y + z * z)
    cosine = relative[:, 0, 0] + relative[:, 1, 1] + relative[:, 2, 2] - 1.0
    angle: FloatArray = np.degrees(np.arctan2(sine, cosine))
    return angle


def per_sample(relative: FloatArray) -> dict[str, FloatArray]:
    """Return `COLUMNS` of relative rotations R_predicted^T R_true (n, 3, 3), each (n,)."""
    return {"geodesic": angle_deg(relative)}


def score(statistics: Statistics, options: Options | None = None) -> dict[str, FloatArray]:
    """Return `SCORES` from n (...) and geodesic (...)."""
    return {"geodesic": divide(statistics["geodesic"], statistics["n"])}
