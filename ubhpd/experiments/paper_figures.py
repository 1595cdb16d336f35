"""The figures of the papers, drawn from a build and from the results of runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ubhpd.core import plotting  # noqa: F401, before anything of matplotlib

# isort: split

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ubhpd import manifest
from ubhpd.core.bins import ANGLES
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing
from ubhpd.core.progress import Progress
from ubhpd.core.rotation import matrix_from_euler
from ubhpd.core.typing import FloatArray, Image
from ubhpd.evaluation import predictions
from ubhpd.experiments.stress import Condition, StressRequest, stress
from ubhpd.images.drawing import draw_axes
from ubhpd.images.reading import Images
from ubhpd.inference.predicting import Request
from ubhpd.leaderboards.result import read
from ubhpd.manifest import POOL, BuildFolder

if TYPE_CHECKING:
    from ubhpd.experiments.reproduce import Reproduction

Runs = Mapping[tuple[str, str, str], Path]
_EXAMPLES, _CROP_PX = 6, 160


def draw(kind: str, made: Reproduction, runs: Runs, data: Path, out: Path, device: str) -> list[str]:
    """Draw a figure of the named kind and return the files written.

    Raises:
        UbhpdError: no run gave a result, or what the figure needs is not there.
    """
    if kind == "densities":
        from ubhpd.reports.figures import write

        build = BuildFolder(data)
        return [str(path) for path in write(build.folder, folder=out.with_suffix(""))]
    if not runs:
        raise UbhpdError(f"No run of {made.id} gave a result: {_first_reason(made)}.")
    figure = {"examples": _examples, "scatter": _scatter, "bars": _bars, "resolution": _resolution}[kind](
        made, runs, data, device
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as part, part.open("wb") as file:
        figure.savefig(file, format="png", metadata={"Software": None})
    return [str(out)]


def _first_reason(made: Reproduction) -> str:
    reasons = [reason for _, reason in made.failed] + [row.why for row in made.rows if row.why]
    return reasons[0].rstrip(".") if reasons else "there are no rows"


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _heads(data: Path, ids: list[str]) -> dict[str, dict[str, Any]]:
    names = ["sample_id", "dataset", "image_path", "frame_index", "bbox_xyxy", "yaw_deg", "pitch_deg", "roll_deg",
             "rotation"]  # fmt: skip
    wanted = set(ids)
    table = manifest.read(BuildFolder(data).manifest(POOL), names)
    return {row["sample_id"]: row for row in table.to_pylist() if row["sample_id"] in wanted}


def _examples(made: Reproduction, runs: Runs, data: Path, device: str) -> Figure:
    """Draw test heads, evenly over yaw: ground truth above, a row for each method below."""
    predicted = {key: _poses(path) for key, path in runs.items()}
    pairs = list(dict.fromkeys((train, test) for _, train, test in runs))
    rows = [(pair, method) for pair in pairs for method in (None, *(m for m, *rest in runs if tuple(rest) == pair))]
    figure = _figure(1.5 * _EXAMPLES, 1.75 * len(rows))
    grid = figure.subplots(len(rows), _EXAMPLES, squeeze=False)
    images = Images.of_build(data)
    for (pair, method), line in zip(rows, grid, strict=True):
        common = set.intersection(*(set(own) for (_, *rest), own in predicted.items() if tuple(rest) == pair))
        known = _heads(data, sorted(common))
        order = sorted(known, key=lambda name: (known[name]["yaw_deg"], name))
        chosen = [order[k] for k in np.linspace(0, len(order) - 1, min(_EXAMPLES, len(order))).round().astype(int)]
        for axes in line:
            axes.axis("off")
        for axes, name in zip(line, chosen, strict=False):
            head = known[name]
            own = None if method is None else predicted[method, pair[0], pair[1]][name]
            rotation = np.reshape(head["rotation"], (3, 3)) if own is None else own[1]
            axes.imshow(_crop(images, head, rotation)[..., ::-1])
        line[0].set_title(f"{method or 'ground truth'} ({pair[1]})", fontsize=8, loc="left")
    return figure


def _poses(path: Path) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Return angles (3,) and rotation (3, 3) of every head of a run, by id."""
    found = predictions.read(path.parent / read(path).predictions)
    rotations = found.predicted_rotation
    rotations = matrix_from_euler(found.predicted_deg) if rotations is None else rotations
    return {name: (found.predicted_deg[i], rotations[i]) for i, name in enumerate(found.sample_id.to_pylist())}


def _crop(images: Images, head: dict[str, Any], rotation: FloatArray) -> Image:
    """Return the square about a head's box, with the axes of a pose."""
    import cv2

    image = images.image(head["dataset"], head["image_path"], head["frame_index"])
    height, width = image.shape[:2]
    left, top, right, bottom = head["bbox_xyxy"] or (0.0, 0.0, float(width), float(height))
    half = 0.75 * max(right - left, bottom - top)
    scale = _CROP_PX / (2 * half)
    matrix = np.array([[scale, 0.0, -scale * ((left + right) / 2 - half)],
                       [0.0, scale, -scale * ((top + bottom) / 2 - half)]])  # fmt: skip
    crop: Image = np.asarray(cv2.warpAffine(image, matrix, (_CROP_PX, _CROP_PX), flags=cv2.INTER_AREA), np.uint8)
    draw_axes(crop, rotation, (_CROP_PX / 2, _CROP_PX / 2), 0.4 * _CROP_PX)
    return crop


def _scatter(made: Reproduction, runs: Runs, data: Path, device: str) -> Figure:
    """Draw the absolute error of each angle against the true angle, a row for each run."""
    figure = _figure(9, 2.6 * len(runs))
    grid = figure.subplots(len(runs), 3, squeeze=False)
    for ((method, _, test), path), line in zip(runs.items(), grid, strict=True):
        poses = _poses(path)
        heads = _heads(data, sorted(poses))
        true = np.array([[heads[n][f"{a}_deg"] for a in ANGLES] for n in heads])
        own = np.array([poses[n][0] for n in heads])
        for k, (axes, angle) in enumerate(zip(line, ANGLES, strict=True)):
            axes.plot(true[:, k], np.abs(own[:, k] - true[:, k]), ".", markersize=2)
            axes.set_xlabel(f"true {angle}, degrees")
            axes.set_ylabel("|error|, degrees")
            axes.set_title(f"{method}, {test}", fontsize=8)
    return figure


def _bars(made: Reproduction, runs: Runs, data: Path, device: str) -> Figure:
    """Draw the mean absolute error per angle of each method, a panel for each pair of sets."""
    pairs = list(dict.fromkeys((row.train, row.test) for row in made.rows if row.scores))
    figure = _figure(4 + 1.2 * max(1, len(made.rows) / max(1, len(pairs))), 2.8 * len(pairs))
    for (train, test), axes in zip(pairs, np.ravel(figure.subplots(len(pairs), 1, squeeze=False)), strict=True):
        rows = [row for row in made.rows if (row.train, row.test) == (train, test) and row.scores]
        for k, angle in enumerate(ANGLES):
            values = [row.scores[f"mae_{angle}"][0] for row in rows]
            axes.bar(np.arange(len(rows)) + 0.27 * (k - 1), values, 0.25, label=angle)
        axes.set_xticks(range(len(rows)), [row.method for row in rows], rotation=20, ha="right", fontsize=7)
        axes.set_ylabel("MAE, degrees")
        axes.set_title(f"{train} to {test}", fontsize=9)
        axes.legend(fontsize=7)
    return figure


def _resolution(made: Reproduction, runs: Runs, data: Path, device: str) -> Figure:
    """Draw the mean rotation error against the side of the crop that the network's input was enlarged from."""
    figure = _figure(6, 4)
    axes = figure.subplots()
    for (method, _, test), path in runs.items():
        conditions = _stressed(path, device)
        sides = [c.amount for c in conditions]
        axes.plot(sides, [c.geodesic for c in conditions], "o-", label=f"{method}, {test}")
        axes.set_xscale("log", base=2)
        axes.set_xticks(sides, [f"{side:g}" for side in sides])
    axes.set_xlabel("side of the crop before it is enlarged, pixels")
    axes.set_ylabel("geodesic error, degrees")
    axes.legend(fontsize=8)
    return figure


def _stressed(path: Path, device: str) -> list[Condition]:
    """Return what a run's model does on its test heads at each resolution, the lowest first."""
    own = read(path)
    weights = sorted(path.parents[1].glob(f"weights/{path.stem}-*/weights.safetensors"))
    if not weights:
        raise UbhpdError(f"The weights of {path} are not beside it any more: run the same command with another --out.")
    request = Request(weights[-1], path, own.model, path.parent / "test", device=device)
    report = stress(
        StressRequest(request, path.with_name(f"{path.stem}.resolution.json"), 0, kinds=("resolution",)),
        Progress(show=False),
    )
    return sorted((c for c in report.conditions if c.kind == "resolution"), key=lambda c: c.amount)
