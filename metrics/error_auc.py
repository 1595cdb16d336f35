"""Area under the cumulative error distribution, up to 30 degrees.

    F(x)   = 1/N * |{n: e_n <= x}|
    AUC_a  = 100/a * integral of F(x) from 0 to a  =  100/N * sum_n max(0, 1 - e_n / a)        a = 30 degrees

The face alignment literature compares methods by the cumulative error distribution F (CED) and the area under it up to
a threshold a, divided by the threshold (Yang et al., An Empirical Study of Recent Face Alignment Methods, arXiv
1511.05049, 2015). A perfect model has 100 %, one whose errors are all beyond the threshold 0. A gross failure
costs a head no more than its share, so the value is not dominated by failures as a mean is. The integral is exact: each
head contributes the part of the interval in which F already counts it.

`auc_yaw`, `auc_pitch` and `auc_roll` are of the error on the circle, as in `mae_wrapped`; `auc_geodesic` is of the
[geodesic error](geodesic.md). The JSON of a score has F itself at every degree up to 30 (`error_cdf`), and
`--figures` draws it.

Units: degrees in, percent out; higher is better. Bins play no part. No sample: NaN.

```python
from ubhpd.metrics.error_auc import cdf, error_auc
error_auc(errors_deg)               # errors (n,) or (n, 3); percent, () or (3,)
cdf(errors_deg, at_deg)             # share of samples with an error up to each level
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ubhpd.core.bins import ANGLES
from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import AnyArray, FloatArray
from ubhpd.metrics._arrays import Statistics, divide

NAME = "error_auc"
TITLE = "Cumulative error distribution and its area"
UNIT = "%"
PAPER = "Yang et al., An Empirical Study of Recent Face Alignment Methods, arXiv 1511.05049, 2015"
BETTER = "higher"
INPUT = "columns"
COLUMNS = ("angles_below_limit", "geodesic_below_limit")
LIMIT_DEG = 30.0
SCORES = {
    f"auc_{part}": f"area under the cumulative distribution of the {what} up to 30 degrees"
    for part, what in (*((a, f"{a} error") for a in ANGLES), ("geodesic", "geodesic error"))
}


@dataclass(frozen=True)
class Options:
    """No options."""


def error_auc(errors_deg: npt.ArrayLike) -> FloatArray:
    """Return the area under the cumulative distribution of errors (n,) or (n, 3), () or (3,), percent.

    Raises:
        UbhpdError: an error is negative or not finite.
    """
    part = _part(_errors(errors_deg))
    return 100.0 * divide(part.sum(axis=0), len(part))


def cdf(errors_deg: npt.ArrayLike, at_deg: npt.ArrayLike) -> FloatArray:
    """Return the share of errors (n,) up to each level (k,), 0 to 1; NaN if there are no errors.

    Raises:
        UbhpdError: an error is negative or not finite.
    """
    ordered = np.sort(_errors(errors_deg))
    return divide(np.searchsorted(ordered, np.asarray(at_deg, dtype=np.float64), side="right"), len(ordered))


def per_sample(columns: Mapping[str, AnyArray]) -> dict[str, FloatArray]:
    """Return `COLUMNS` from wrapped_error (n, 3) and geodesic (n,): max(0, 1 - e / limit) of each."""
    return {"angles_below_limit": _part(columns["wrapped_error"]), "geodesic_below_limit": _part(columns["geodesic"])}


def score(statistics: Statistics, options: Options | None = None) -> dict[str, FloatArray]:
    """Return `SCORES` from n (...), angles_below_limit (..., 3) and geodesic_below_limit (...)."""
    per_angle = 100.0 * divide(statistics["angles_below_limit"], statistics["n"][..., None])
    scores = {f"auc_{angle}": per_angle[..., j] for j, angle in enumerate(ANGLES)}
    return scores | {"auc_geodesic": 100.0 * divide(statistics["geodesic_below_limit"], statistics["n"])}


def _part(errors: FloatArray) -> FloatArray:
    part: FloatArray = np.maximum(0.0, 1.0 - errors / LIMIT_DEG)
    return part


def _errors(errors_deg: npt.ArrayLike) -> FloatArray:
    e = np.asarray(errors_deg, dtype=np.float64)
    if not np.isfinite(e).all() or (e < 0.0).any():
        raise UbhpdError("An error is negative or not a finite number: give absolute errors in degrees.")
    return e
