"""The UBMAE values as OsGG-Net prints them: three constants per train and test pair times the three MAEs.

    ubmae_printed = (k_yaw MAE_yaw + k_pitch MAE_pitch + k_roll MAE_roll) / 3

69 of the 70 distinct values in Tables 1 to 9 of the paper (ACM MM 2021) follow this rule within 0.0043, the
rounding of the tables, with one set of constants per pair. It is what eq. 14 becomes if the error is not binned;
k_j would then be the mean of d_ij / s_ij over the bins i. The constants do not follow from the real label
distributions, so they hold for the printed pairs alone: `ubhpd.evaluation.printed_results.printed_constants` gives
them, and refuses any other pair. See docs/what-is-ubmae.md, and ubmae for eq. 14 itself.

Units: degrees. Bins play no part: neither empty bins nor angles outside them are seen. No sample: NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import FloatArray
from ubhpd.metrics._arrays import Statistics, divide

NAME = "ubmae_printed"
TITLE = "UBMAE as printed"
UNIT = "degrees"
PAPER = "OsGG-Net, ACM MM 2021, Tables 1 to 9"
SCORES = {"ubmae_printed": "the rule behind the printed UBMAE values; comparable with those tables only"}


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
