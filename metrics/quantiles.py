"""Median and 95th percentile of the errors per angle and of the whole rotation.

A mean of errors depends on a few gross failures; the median does not, and the 95th percentile shows them. The median
angle between prediction and truth is the MedErr of viewpoint estimation (Tulsiani and Malik, Viewpoints and Keypoints,
CVPR 2015).

* `median_yaw`, `median_pitch`, `median_roll`, `p95_yaw`, `p95_pitch`, `p95_roll`: of the error of that angle on the
  circle, as in `mae_wrapped`.
* `median_geodesic`, `p95_geodesic`: of the [geodesic error](geodesic.md).

A quantile between two heads is interpolated linearly (definition 7 of Hyndman and Fan, Sample Quantiles in Statistical
Packages, 1996, the default of numpy and R). They are no sums over batches, so a training loop that keeps no heads has
none.

Units: degrees. Bins play no part. No sample: NaN.

```python
from ubhpd.metrics.quantiles import quantiles
quantiles(errors_deg)               # errors (n,) or (n, 3); Quantiles(median, p95), degrees
```
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.core.bins import ANGLES
from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import FloatArray
from ubhpd.metrics._arrays import Statistics

NAME = "quantiles"
TITLE = "Median and 95th percentile"
UNIT = "degrees"
PAPER = "median: Tulsiani and Malik, CVPR 2015; definition: Hyndman and Fan, The American Statistician 1996, no. 7"
BETTER = "lower"
LEVELS = (0.5, 0.95)
QUANTILES = {"wrapped_error": LEVELS, "geodesic": LEVELS}
_NAMES = {"median": ("q50", "median"), "p95": ("q95", "95th percentile")}
SCORES = {
    f"{name}_{part}": f"{word} of the {what}"
    for name, (_, word) in _NAMES.items()
    for part, what in (*((a, f"{a} error on the circle") for a in ANGLES), ("geodesic", "geodesic error"))
}


@dataclass(frozen=True)
class Options:
    """No options."""


class Quantiles(NamedTuple):
    """Median and 95th percentile over the samples, () or (3,), degrees; NaN if there are none."""

    median: FloatArray
    p95: FloatArray


def quantiles(errors_deg: npt.ArrayLike) -> Quantiles:
    """Return median and 95th percentile of errors (n,) or (n, 3) in degrees.

    Raises:
        UbhpdError: another shape, or a value that is not finite.
    """
    e = np.asarray(errors_deg, dtype=np.float64)
    if e.ndim not in (1, 2) or e.shape[1:] not in ((), (3,)) or not np.isfinite(e).all():
        raise UbhpdError(f"Expected finite errors of shape (n,) or (n, 3), found shape {e.shape}.")
    if not len(e):
        return Quantiles(*np.full((2, *e.shape[1:]), np.nan))
    return Quantiles(*np.quantile(e, LEVELS, axis=0))


def score(statistics: Statistics, options: Options | None = None) -> dict[str, FloatArray]:
    """Return `SCORES` from wrapped_error_q50, _q95 (..., 3) and geodesic_q50, _q95 (...); none without them."""
    scores: dict[str, FloatArray] = {}
    if "geodesic_q50" not in statistics:
        return scores
    for name, (suffix, _) in _NAMES.items():
        per_angle = np.asarray(statistics[f"wrapped_error_{suffix}"])
        scores |= {f"{name}_{angle}": per_angle[..., j] for j, angle in enumerate(ANGLES)}
        scores[f"{name}_geodesic"] = np.asarray(statistics[f"geodesic_{suffix}"])
    return scores
