"""How alike faces look as they turn: the similarity of each pose with the frontal one, by each angle (DADL, 3.3).

For each angle the heads count whose other two angles are near 0. They are put into bins of the angle, and

    S(b) = F(b) . F(0) / (|F(b)| |F(0)|)

F(b) is the mean feature of the heads of bin b, and F(0) that of the bin about 0. The paper's features are those of a
LeNet whose weights were not published; here they are the mean of the last map of a checkpoint's backbone, or, without a
checkpoint, the grey values of the crop at 32 x 32 pixels. Both are taken about their mean over all heads, without which
all faces are alike. The curve that is fitted is a + (1 - a) exp(-(x - mu)^2 / (2 sigma^2)).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from ubhpd import manifest
from ubhpd.core.bins import ANGLES
from ubhpd.core.errors import UbhpdError
from ubhpd.core.progress import Progress
from ubhpd.core.typing import AnyArray, FloatArray
from ubhpd.inference.manifest_source import PLAN_COLUMNS, ManifestSource, plan_of
from ubhpd.manifest import POOL, BuildFolder
from ubhpd.nn.inputs import InputRecipe

PIXELS = "pixels"
_SIDE_PX = 32
_FEWEST = 3  # bins, for a curve of three numbers


@dataclass(frozen=True)
class SimilarityRequest:
    """Which heads, and by which features.

    data: a manifest or a build's folder, whose pool counts. weights: a checkpoint; None for pixels. dataset: of the
    heads, None for all. bin_deg: width of a bin. near_deg: how far the other two angles may be from 0. heads: at most
    so many of a bin, at equal distances.
    """

    data: Path
    weights: Path | None = None
    dataset: str | None = None
    bin_deg: float = 6.0
    near_deg: float = 15.0
    heads: int = 50


class Curve(NamedTuple):
    """The similarities of an angle: middles of the bins in degrees, their similarity with 0, heads, and the fit.

    offset, mu_deg, sigma_deg: a, mu and sigma; NaN where there are fewer than four bins, or no curve fits.
    """

    angle: str
    centres_deg: tuple[float, ...]
    similarity: tuple[float, ...]
    heads: tuple[int, ...]
    offset: float
    mu_deg: float
    sigma_deg: float


@dataclass(frozen=True)
class Similarity:
    """The curves of yaw, pitch and roll, and the features that they are of."""

    features: str
    curves: tuple[Curve, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**asdict(self), "curves": [c._asdict() for c in self.curves]}


def similarity(request: SimilarityRequest, progress: Progress) -> Similarity:
    """Return how similar heads are to the frontal one, by each angle.

    Raises:
        UbhpdError: wrong input, a model without a last map, or no head near the frontal pose.
    """
    if not (request.bin_deg > 0 and request.near_deg > 0 and request.heads > 0):
        raise UbhpdError("The width of a bin, the reach of the other angles and the number of heads must be above 0.")
    recipe, name, features = _features(request.weights)
    build = BuildFolder.at(request.data)
    path = build.manifest(POOL)
    columns = [*PLAN_COLUMNS, *(f"{a}_deg" for a in ANGLES)]
    table = manifest.usable(path, columns)
    if request.dataset is not None:
        table = table.filter([d == request.dataset for d in table.column("dataset").to_pylist()])
    angles = np.stack([table.column(f"{a}_deg").to_numpy() for a in ANGLES], axis=1).astype(np.float64)
    chosen = [_chosen(angles, place, request) for place in range(len(ANGLES))]
    rows = np.unique(np.concatenate([r for own in chosen for r in own.values()])) if any(chosen) else np.zeros(0, int)
    if not len(rows):
        raise UbhpdError(f"{path} has no usable head whose other angles are within {request.near_deg:g} degrees of 0.")
    plan = plan_of(table.take(rows), recipe, manifest.header(path).fingerprint)
    found: dict[str, FloatArray] = {}
    with progress.bar("Looking", len(rows)) as advance:
        for batch in ManifestSource(plan, build.folder, recipe, "crops").batches(set(), draws=False):
            if batch.sample_id:
                found.update(zip(batch.sample_id, features(np.asarray(batch.inputs)), strict=True))
            advance(len(batch.sample_id) + len(batch.problems))
    if not found:
        raise UbhpdError(f"Not one of {len(rows)} heads of {path} has an image that can be cut: see ubhpd validate.")
    mean = np.mean(list(found.values()), axis=0)
    ids = table.column("sample_id").to_pylist()
    curves = []
    for angle, own in zip(ANGLES, chosen, strict=True):
        bins = {b: [found[ids[r]] - mean for r in rows_.tolist() if ids[r] in found] for b, rows_ in own.items()}
        curves.append(_curve(angle, {b: f for b, f in bins.items() if f}, request.bin_deg))
    return Similarity(name, tuple(curves))


def _chosen(angles: FloatArray, place: int, request: SimilarityRequest) -> dict[int, AnyArray]:
    """Return rows by bin of an angle, bin 0 about 0 degrees."""
    others = np.delete(np.abs(angles), place, axis=1)
    rows = np.flatnonzero((others <= request.near_deg).all(axis=1) & np.isfinite(angles).all(axis=1))
    number = np.round(angles[rows, place] / request.bin_deg).astype(int)
    found = {}
    for b in np.unique(number).tolist():
        own = rows[number == b]
        found[b] = own[np.unique(np.linspace(0, len(own) - 1, min(len(own), request.heads)).round().astype(int))]
    return found


def _curve(angle: str, bins: dict[int, list[FloatArray]], bin_deg: float) -> Curve:
    nothing = (float("nan"),) * 3
    if 0 not in bins:
        return Curve(angle, (), (), (), *nothing)
    means = {b: np.mean(own, axis=0) for b, own in sorted(bins.items())}
    centre = means[0]

    def alike(other: FloatArray) -> float:
        length = float(np.linalg.norm(other) * np.linalg.norm(centre))
        return float(other @ centre) / length if length > 0 else float("nan")

    values = np.array([alike(m) for m in means.values()])
    degrees = np.array(list(means)) * bin_deg
    return Curve(
        angle, tuple(degrees.tolist()), tuple(values.tolist()), tuple(len(bins[b]) for b in means),
        *_fitted(degrees, values),
    )  # fmt: skip


def _fitted(degrees: FloatArray, values: FloatArray) -> tuple[float, float, float]:
    from scipy.optimize import curve_fit

    def bell(x: FloatArray, offset: float, mu: float, sigma: float) -> FloatArray:
        return np.asarray(offset + (1 - offset) * np.exp(-((x - mu) ** 2) / (2 * sigma**2)))

    known = np.isfinite(values)
    if known.sum() <= _FEWEST:
        return (float("nan"),) * 3
    try:
        best, _ = curve_fit(bell, degrees[known], values[known], (min(0.0, float(values[known].min())), 0.0, 30.0),
                            bounds=((-2.0, -90.0, 0.1), (0.999, 90.0, 500.0)))  # fmt: skip
    except RuntimeError:  # no curve fits
        return (float("nan"),) * 3
    offset, mu, sigma = (float(v) for v in best)
    return offset, mu, sigma


def _features(weights: Path | None) -> tuple[InputRecipe, str, Callable[[AnyArray], FloatArray]]:
    """Return how heads are cut, the name of the features, and what gives them (n, f) of crops (n, size, size, 3)."""
    if weights is None:
        return InputRecipe("square", 2 * _SIDE_PX, "BGR"), PIXELS, _grey
    import torch

    from ubhpd.models.model import Model

    model = Model.of_checkpoint(weights)
    network = model.network.eval()
    backbone = getattr(network, "backbone", None)
    if model.kind != "image" or not isinstance(backbone, torch.nn.Module):
        raise UbhpdError(f"{model.name} has no backbone whose features could be compared: give another model.")
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.recipe.mean, model.recipe.std))

    def of_network(crops: AnyArray) -> FloatArray:
        pixels = torch.from_numpy(np.ascontiguousarray(crops)).permute(0, 3, 1, 2).float()
        with torch.inference_mode():
            found = backbone((pixels - mean) / std)
        return np.asarray(found.flatten(2).mean(dim=2).double().numpy())

    return model.recipe, f"{model.name} {model.about.sha256[:12]}", of_network


def _grey(crops: AnyArray) -> FloatArray:
    small = [cv2.resize(cv2.cvtColor(c, cv2.COLOR_BGR2GRAY), (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA)
             for c in crops]  # fmt: skip
    return np.stack(small).reshape(len(crops), -1).astype(np.float64)
