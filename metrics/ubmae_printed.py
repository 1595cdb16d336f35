"""The UBMAE values as OsGG-Net reports them: three constants per train and test pair times the three MAEs.

    ubmae_printed = (k_yaw * MAE_yaw + k_pitch * MAE_pitch + k_roll * MAE_roll) / 3

69 of the 70 distinct values in Tables 1 to 9 of the paper (ACM MM 2021) follow this rule within 0.0043, the rounding of
the tables, with one set of constants per pair. It is what eq. 14 becomes if the error is not binned; k_j would then be
the mean of d_ij / s_ij over the bins i. See [what UBMAE is and what was reported](../what-is-ubmae.md). The score is
given by `ubhpd score --pair TRAIN:TEST`.

| train | test | k_yaw | k_pitch | k_roll | values |
|---|---|---|---|---|---|
| 300W-LP | AFLW2000 | 1.1518 | 1.0799 | 1.6686 | 12 |
| 300W-LP | BIWI | 1.5699 | 2.1392 | 2.5617 | 11 |
| BIWI-train | BIWI-test | 1.1691 | 1.1535 | 1.3262 | 6 |
| UBHPD | BIWI | 1.1805 | 1.3355 | 1.6564 | 29 |
| UBHPD-train | UBHPD-test | 1.0631 | 1.0158 | 1.0394 | 6 |
| UPNA-train | UPNA-test | 0.4462 | 1.6360 | 1.6869 | 6 |

Any other pair is an error: its constants are not known, and they do not follow from the label distributions. Use this
score to set a new method beside those tables, and [`ubmae`](ubmae.md) for everything else.

Units: degrees. Bins play no part: neither empty bins nor angles outside them matter. No sample: NaN.

```python
from ubhpd.metrics.ubmae_printed import ubmae_printed
from ubhpd.evaluation.printed_results import printed_constants
ubmae_printed(mae_ypr, printed_constants("300W-LP", "AFLW2000"))
```
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import FloatArray
from ubhpd.metrics._arrays import Statistics, divide

NAME = "ubmae_printed"
TITLE = "UBMAE as reported"
UNIT = "degrees"
PAPER = "OsGG-Net, ACM MM 2021, Tables 1 to 9"
BETTER = "lower"
SCORES = {"ubmae_printed": "the rule behind the reported UBMAE values; comparable with those tables only"}


@dataclass(frozen=True)
class Options:
    """No options."""


def ubmae_printed(mae_deg: npt.ArrayLike, constants: npt.ArrayLike) -> FloatArray:
    """Return the value (...) of MAEs of yaw, pitch, roll (..., 3) in degrees and constants (3,).

    Raises:
        UbhpdError: another shape, or a constant that is not a positive number.
    """
    m, k = np.asarray(mae_deg, dtype=np.float64), np.asarray(constants, dtype=np.float64)
    if m.shape[-1:] != (3,) or k.shape != (3,):
        raise UbhpdError(f"Expected MAEs (..., 3) and constants (3,), found shapes {m.shape} and {k.shape}.")
    if not np.all(np.isfinite(k) & (k > 0)):
        raise UbhpdError("A constant of the printed UBMAE is not a positive number.")
    value: FloatArray = (m * k).sum(axis=-1) / 3.0
    return value


def score(statistics: Statistics, options: Options | None = None) -> dict[str, FloatArray]:
    """Return `SCORES` from n (...), abs_error (..., 3) and printed_k (3,); none without the last."""
    if "printed_k" not in statistics:
        return {}
    per_angle = divide(statistics["abs_error"], statistics["n"][..., None])
    return {"ubmae_printed": ubmae_printed(per_angle, statistics["printed_k"])}
