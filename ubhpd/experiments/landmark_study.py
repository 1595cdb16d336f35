"""What makes pose from landmarks wrong: their number, noise on them, another face than the mean one, and a detector.

Figures 3 to 6 of Hopenet (Ruiz et al., CVPRW 2018, section 4.2), on any heads with 68 landmarks. The face that the
landmarks are compared with is fitted to these very heads, as the paper begins with the ground truth of both.

    figure 3   the number of landmarks, without any change
    figure 4   uniform noise of up to so many pixels on x and y of each landmark
    figure 5   the face stretched in width, or in height, by so many percent
    figure 6   the landmarks of another file, as of a detector, in place of the true ones

The paper does not list which landmarks make its numbers of points; here they are those of `landmarks_pnp`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ubhpd import manifest
from ubhpd.core.bins import ANGLES
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import write_json
from ubhpd.core.progress import Progress
from ubhpd.core.rotation import euler_from_matrix
from ubhpd.core.typing import FloatArray
from ubhpd.manifest import POOL, BuildFolder
from ubhpd.models.geometric_model import COLUMNS, GeometricMethod, heads_of
from ubhpd.nn.inputs import Heads

MODEL = "landmarks_pnp"
POINTS = ("12", "49", "68")
NOISE_PX = (0, 2, 4, 6, 8, 10)
STRETCH_PERCENT = (-40, -30, -20, -10, 0, 10, 20, 30, 40)
_AXES = {"width": 0, "height": 1}


@dataclass(frozen=True)
class StudyRequest:
    """What to study.

    data: a manifest or a build's folder, whose pool counts. dataset: of the heads. heads: how many, at equal distances;
    0 for all. seed: of the noise. estimated: a manifest with other landmarks of the same heads, for figure 6.
    """

    data: Path
    dataset: str = "aflw2000"
    heads: int = 500
    seed: int = 0
    estimated: Path | None = None


class Point(NamedTuple):
    """One point of a figure: mean absolute errors in degrees of the heads that have a pose, and how many these are.

    figure: "number", "noise", "width", "height" or "estimated". points: landmarks that are used. amount: pixels or
    percent.
    """

    figure: str
    points: int
    amount: float
    yaw: float
    pitch: float
    roll: float
    mae: float
    heads: int


@dataclass(frozen=True)
class Study:
    """All points, and what they are of."""

    dataset: str
    heads: int
    seed: int
    points: tuple[Point, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**asdict(self), "points": [p._asdict() for p in self.points]}


def landmark_study(request: StudyRequest, progress: Progress, out: Path | None = None) -> Study:
    """Return the errors of pose from landmarks under all changes.

    Args:
        request: of which heads.
        progress: shows how far it is.
        out: a JSON file to write, if any.

    Raises:
        UbhpdError: no manifest, fewer than two heads with 68 landmarks of their own, or no such file of landmarks.
    """
    table = manifest.usable(BuildFolder.at(request.data).manifest(POOL), [*COLUMNS, "dataset"])
    table = table.filter([d == request.dataset for d in table.column("dataset").to_pylist()])
    known = np.isfinite(heads_of(table).landmarks68).any(axis=(1, 2)) if table.num_rows else np.zeros(0, dtype=bool)
    table = table.filter(known.tolist())
    if table.num_rows < 2:
        raise UbhpdError(
            f"{request.data} has {table.num_rows} heads of {request.dataset} with 68 landmarks of their own: name "
            "another --dataset, or fill them by ubhpd landmarks."
        )
    if 0 < request.heads < table.num_rows:
        table = table.take(np.unique(np.linspace(0, table.num_rows - 1, request.heads).astype(int)))
    heads = heads_of(table)
    other = None if request.estimated is None else heads_of(manifest.with_landmarks(table, request.estimated))
    total = len(POINTS) * (1 + len(NOISE_PX) + len(_AXES) * len(STRETCH_PERCENT) + (other is not None))
    found = []
    with progress.bar("Solving", total) as advance:
        for count in POINTS:
            method = GeometricMethod.fitted(MODEL, {"points": count}, heads, {})
            for point in _points(method, int(count), heads, other, request.seed):
                found.append(point)
                advance(1)
    study = Study(request.dataset, len(heads.sample_id), request.seed, tuple(found))
    if out is not None:
        write_json(study.as_dict(), out)
    return study


def _points(method: GeometricMethod, count: int, heads: Heads, other: Heads | None, seed: int) -> Iterator[Point]:
    yield _solved("number", method, count, 0, heads, heads)
    for amount in NOISE_PX:
        draw = np.random.default_rng((seed, amount))  # the same for every number of landmarks
        noise = draw.uniform(-amount, amount, heads.landmarks68.shape)
        yield _solved("noise", method, count, amount, heads._replace(landmarks68=heads.landmarks68 + noise), heads)
    for axis, place in _AXES.items():
        for percent in STRETCH_PERCENT:
            face = method.parameters["face"].copy()
            face[:, place] *= 1 + percent / 100
            changed = GeometricMethod(
                method.name, method.module, method.config, {**method.parameters, "face": face}, method.about
            )
            yield _solved(axis, changed, count, percent, heads, heads)
    if other is not None:
        yield _solved("estimated", method, count, 0, other, heads)


def _solved(figure: str, method: GeometricMethod, count: int, amount: float, seen: Heads, true: Heads) -> Point:
    rotations = method.solve(seen)
    solved = np.isfinite(rotations).all(axis=(1, 2))
    if not solved.any() or true.angles_deg is None:
        nothing = float("nan")
        return Point(figure, count, amount, nothing, nothing, nothing, nothing, 0)
    angles: FloatArray = euler_from_matrix(rotations[solved])
    error = np.abs((angles - true.angles_deg[solved] + 180) % 360 - 180).mean(axis=0)
    yaw, pitch, roll = error.tolist()
    return Point(figure, count, amount, yaw, pitch, roll, float(error.mean()), int(solved.sum()))


def study_text(study: Study) -> str:
    """Return the study as text for a terminal: a line per point."""
    lines = [f"{study.heads:,} heads of {study.dataset}, mean absolute errors in degrees"]
    for p in study.points:
        unit = {"noise": " px", "width": " %", "height": " %"}.get(p.figure, "")
        amount = f" {p.amount:+g}{unit}" if unit else ""
        own = "  ".join(f"{a} {getattr(p, a):.2f}" for a in ANGLES)
        lines.append(f"{p.figure}{amount}, {p.points} points: {p.mae:.2f} ({own}), {p.heads:,} heads")
    return "\n".join(lines)
