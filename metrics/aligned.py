"""Aligned geodesic error: the geodesic error after the mean rotation between prediction and truth is removed.

    O = the rotation nearest to  sum_n R_predicted^T R_true
    e = angle((R_predicted O)^T R_true)

Two datasets seldom agree on which head is frontal, so a model trained on one is off by a constant rotation on the
other. This error is what remains when that rotation is removed (Cobo et al., On the representation and methodology for
wide and short range head pose estimation, Pattern Recognition 2024). The rotation O is in the JSON under `alignment`.

* O is the chordal mean over all heads, by singular value decomposition. The authors' code iterates to the intrinsic
  mean over heads with an error below 90 degrees; for errors of some degrees the two agree.
* `aligned(..., frame="camera")` puts the constant on the other side, O R_predicted. The default, "head", is that of
  the authors' code.
* In confidence intervals the alignment of the whole set is kept.
* It uses the truth to correct the prediction: report it beside the plain error, not instead of it.

Units: rotation matrices in, degrees out. Bins play no part. No sample: NaN and n = 0, alignment I.

```python
from ubhpd.metrics.aligned import aligned
aligned(predicted, true)            # rotations (n, 3, 3); Aligned(mean, alignment, alignment_deg, n)
```
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import geodesic_deg
from ubhpd.core.typing import FloatArray
from ubhpd.metrics._arrays import Statistics, divide, rotation_pair
from ubhpd.metrics.geodesic import angle_deg

NAME = "aligned"
TITLE = "Aligned geodesic error"
UNIT = "degrees"
PAPER = "Cobo et al., Pattern Recognition 2024"
BETTER = "lower"
INPUT = "aligned"
COLUMNS = ("aligned",)
SCORES = {"geodesic_aligned": "geodesic error after the mean rotation between prediction and truth is removed"}


@dataclass(frozen=True)
class Options:
    """No options in one pass over all metrics; `aligned` itself takes `frame`."""


class Aligned(NamedTuple):
    """Mean error in degrees, the alignment O (3, 3), its angle in degrees, and the number of samples."""

    mean: float
    alignment: FloatArray
    alignment_deg: float
    n: int


def aligned(predicted: npt.ArrayLike, true: npt.ArrayLike, frame: Literal["head", "camera"] = "head") -> Aligned:
    """Return the aligned geodesic error of rotations (n, 3, 3).

    Raises:
        UbhpdError: another shape, different lengths, a value that is not finite, or an unknown frame.
    """
    p, t = rotation_pair(predicted, true)
    if frame == "head":
        alignment = nearest_rotation((np.swapaxes(p, 1, 2) @ t).sum(axis=0))
        moved = p @ alignment
    elif frame == "camera":
        alignment = nearest_rotation((t @ np.swapaxes(p, 1, 2)).sum(axis=0))
        moved = alignment @ p
    else:
        raise UbhpdError(f"Unknown frame {frame!r} of an alignment: choose from head, camera.")
    errors = geodesic_deg(moved, t)
    angle = float(geodesic_deg(alignment, np.eye(3)))
    return Aligned(float(divide(errors.sum(), len(errors))), alignment, angle, len(errors))


def nearest_rotation(matrix: npt.ArrayLike) -> FloatArray:
    """Return the rotation (3, 3) nearest to a sum of rotations (3, 3), by SVD; I for a sum of none."""
    m = np.asarray(matrix, dtype=np.float64)
    if not m.any():
        return np.eye(3)
    u, _, vt = np.linalg.svd(m)
    rotation: FloatArray = (u * np.array([1.0, 1.0, np.linalg.det(u @ vt)])) @ vt
    return rotation


def fit(relative_sum: FloatArray) -> FloatArray:
    """Return the alignment O (3, 3) from the sum (3, 3) of R_predicted^T R_true over all samples."""
    return nearest_rotation(relative_sum)


def per_sample(relative: FloatArray, alignment: FloatArray) -> dict[str, FloatArray]:
    """Return `COLUMNS` of relative rotations (n, 3, 3) and the alignment, each (n,)."""
    rest = np.empty((3, 3, len(relative)))
    for i in range(3):
        for j in range(3):
            # (O^T relative)[i, j], a column at a time so that memory is read in order
            rest[i, j] = alignment[0, i] * relative[:, 0, j]
            rest[i, j] += alignment[1, i] * relative[:, 1, j]
            rest[i, j] += alignment[2, i] * relative[:, 2, j]
    return {"aligned": angle_deg(np.moveaxis(rest, -1, 0))}


def score(statistics: Statistics, options: Options | None = None) -> dict[str, FloatArray]:
    """Return `SCORES` from n (...) and aligned (...); none without the latter."""
    if "aligned" not in statistics:
        return {}
    return {"geodesic_aligned": divide(statistics["aligned"], statistics["n"])}
