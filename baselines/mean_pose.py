"""Mean pose: the same prediction for every head, the mean pose of the training set; the baseline of every comparison.

Chance level has to be on the table: in AFLW2000, most of whose heads look forward, this prediction has a mean absolute
error that some reported methods do not reach. Of all constant predictions the mean has the least squared, the median
the least absolute error; the mean here is taken angle by angle ("mean"), as the mean of rotations, which is the
rotation that is nearest to the average of the matrices ("rotation"; Moakher, SIAM J. Matrix Anal. 2002), or as the
median of each angle ("median").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import euler_from_matrix
from ubhpd.core.typing import FloatArray
from ubhpd.nn.inputs import Heads, Parameters

TITLE = "Mean pose"
PAPER = "none: the constant prediction"
CODE = ""
LICENSE = "MIT"
KIND = "geometric"
SEES = "nothing"
MODELS = {"mean_pose": {}, "median_pose": {"of": "median"}}
PARAMETERS: dict[str, int] = {}
REPORTED: dict[str, str] = {}

Mean = Literal["mean", "median", "rotation"]


@dataclass(frozen=True)
class Config:
    """Options.

    of: "mean" or "median" of each angle, or "rotation", the mean of the rotations.
    """

    of: Mean = "mean"

    def __post_init__(self) -> None:
        if self.of not in get_args(Mean):
            raise UbhpdError(f"A mean pose cannot be of {self.of!r}: choose from {', '.join(get_args(Mean))}.")


def fit(config: Config, heads: Heads) -> Parameters:
    """Return the prediction: `angles_deg` (3,), canonical yaw, pitch, roll, of heads whose truth is known."""
    if heads.angles_deg is None or heads.rotation is None:
        raise UbhpdError("A mean pose is that of heads whose pose is known: give a manifest with poses.")
    if config.of == "rotation":
        u, _, vt = np.linalg.svd(heads.rotation.mean(axis=0))
        nearest = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
        return {"angles_deg": euler_from_matrix(nearest)}
    pick = np.mean if config.of == "mean" else np.median
    return {"angles_deg": np.asarray(pick(heads.angles_deg, axis=0), dtype=np.float64)}


def solve(config: Config, parameters: Parameters, heads: Heads) -> FloatArray:
    """Return the fitted pose for each head (n, 3)."""
    return np.tile(parameters["angles_deg"], (len(heads.sample_id), 1))
