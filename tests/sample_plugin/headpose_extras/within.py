"""Heads within 20 degrees: the percentage of heads whose largest error of yaw, pitch and roll is below 20 degrees.

Units: percent. Bins play no part. No sample: NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

NAME = "within"
TITLE = "Heads within 20 degrees"
UNIT = "percent"
PAPER = "none: a sample"
BETTER = "higher"
INPUT = "angles"
COLUMNS = ("is_within_20",)
SCORES = {"within_20": "percentage of heads whose angles are all less than 20 degrees off"}


@dataclass(frozen=True)
class Options:
    """No options."""


def per_sample(predicted_deg: Any, true_deg: Any) -> dict[str, Any]:
    """Return 1 for each head (n,) within 20 degrees, else 0."""
    return {"is_within_20": (np.abs(predicted_deg - true_deg).max(axis=1) < 20.0).astype(float)}


def score(statistics: Any, options: Options | None = None) -> dict[str, Any]:
    """Return the percentage from n (...) and is_within_20 (...)."""
    if "is_within_20" not in statistics:
        return {}
    count = np.asarray(statistics["n"], dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {"within_20": 100.0 * np.asarray(statistics["is_within_20"]) / count}
