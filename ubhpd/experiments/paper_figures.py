"""The figures of the papers, drawn from a build and from the results of runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ubhpd.core import plotting  # noqa: F401, before anything of matplotlib

# isort: split

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ubhpd import manifest
from ubhpd.core.bins import ANGLES
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing, write_json
from ubhpd.core.progress import Progress
from ubhpd.core.rotation import matrix_from_euler
from ubhpd.core.typing import FloatArray, Image
from ubhpd.evaluation import predictions
from ubhpd.experiments.landmark_study import StudyRequest, landmark_study
from ubhpd.experiments.stress import Condition, StressRequest, stress
from ubhpd.images.drawing import draw_axes
from ubhpd.images.faces import Detector, Face
from ubhpd.images.reading import Images
from ubhpd.inference.facial_graph import activation_map, structure_maps
from ubhpd.inference.predicting import Request
from ubhpd.inference.similarity import SimilarityRequest, similarity
from ubhpd.leaderboards.result import read
from ubhpd.manifest import POOL, BuildFolder
from ubhpd.reports import figures
from ubhpd.reports.paper_tables import OF_DATA, Experiment

if TYPE_CHECKING:
    from ubhpd.experiments.reproduce import Reproduction

Runs = Mapping[tuple[str, str, str], Path]
_EXAMPLES, _CROP_PX = 6, 160


def draw(experiment: Experiment, made: Reproduction, runs: Runs, data: Path, out: Path, device: str) -> list[str]:
    """Draw a figure of an experiment's kind and return the files written.

    Raises:
        UbhpdError: no run gave a result, or what the figure needs is not there.
    """
    if experiment.kind == "densities":
        return [str(path) for path in figures.write(BuildFolder(data).folder, folder=out.with_suffix(""))]
    out.parent.mkdir(parents=True, exist_ok=True)
    if experiment.kind in OF_DATA:
        numbers = out.with_name(f"{out.stem}.numbers.json")
        figure = {"similarity": _similarity, "landmarks": _landmarks}[experiment.kind](
            experiment.dataset, data, numbers
        )
        return [str(figures.save(figure, out)), str(numbers)]
    if not runs:
        raise UbhpdError(f"No run of {made.id} gave a result: {_first_reason(made)}.")
    drawn = {"examples": _examples, "scatter": _scatter, "bars": _bars, "resolution": _resolution, "cam": _activations}
    if experiment.kind == "structure":
        return _structures(made, runs, data, out)
    figure = drawn[experiment.kind](made, runs, data, device)
    with replacing(out) as part, part.open("wb") as file:
        figure.savefig(file, format="png", metadata={"Software": None})
    return [str(out)]


def _similarity(dataset: str, data: Path, numbers: Path) -> Figure:
    """Draw how alike heads look as they turn, by their pixels, and write the curves as JSON."""
    found = similarity(SimilarityRequest(data, dataset=dataset), Progress(show=False))
    write_json(found.as_dict(), numbers)
    return figures.draw_similarity(found.curves)


def _landmarks(dataset: str, data: Path, numbers: Path) -> Figure:
    """Draw the error of pose from landmarks by their number, noise and the face, and write the points as JSON."""
    study = landmark_study(StudyRequest(data, dataset), Progress(show=False), numbers)
    return figures.draw_landmark_study(study.points)


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


class _BoxOfManifest:
    """A detector that returns the box of one head."""

    name = "manifest"

    def __init__(self, box: Sequence[float] | None) -> None:
        self.box = box

    def boxes(self, image_bgr: Image) -> list[Face]:
        """Return the head's face; the whole image where the manifest has no box."""
        height, width = image_bgr.shape[:2]
        left, top, right, bottom = self.box or (0.0, 0.0, float(width), float(height))
        return [Face((left, top, right, bottom), 1.0)]


@contextmanager
def _test_images(runs: Runs, pair: tuple[str, str], data: Path, count: int) -> Iterator[list[tuple[Path, Detector]]]:
    """Give image files of test heads, evenly over yaw, and detectors that find their boxes."""
    own = [set(_poses(path)) for (_, *rest), path in runs.items() if tuple(rest) == pair]
    known = _heads(data, sorted(set.intersection(*own)))
    order = sorted(known, key=lambda name: (known[name]["yaw_deg"], name))
    chosen = [order[k] for k in np.linspace(0, len(order) - 1, count + 2).round().astype(int)[1:-1]]
    images = Images.of_build(data)
    with TemporaryDirectory() as folder:
        files: list[tuple[Path, Detector]] = []
        for number, name in enumerate(dict.fromkeys(chosen)):
            head = known[name]
            image = images.image(head["dataset"], head["image_path"], head["frame_index"])
            file = Path(folder) / f"{number}.png"
            file.write_bytes(cv2.imencode(".png", image)[1].tobytes())
            files.append((file, _BoxOfManifest(head["bbox_xyxy"])))
        yield files


def _activations(made: Reproduction, runs: Runs, data: Path, device: str) -> Figure:
    """Draw, for test heads evenly over yaw, which pixels decide the pose of each method, by Grad-CAM."""
    pair = next((train, test) for _, train, test in runs)
    methods = [key for key in runs if key[1:] == pair]
    with _test_images(runs, pair, data, _EXAMPLES) as files:
        rows = []
        for file, box in files:
            found = [activation_map(_weights(runs[key]), file, box) for key in methods]
            rows.append([(found[0].image, None), *((own.image, own.share) for own in found)])
    return figures.draw_activations(rows, [f"image ({pair[1]})", *(method for method, *_ in methods)])


def _structures(made: Reproduction, runs: Runs, data: Path, out: Path) -> list[str]:
    """Draw the fine-grained structures of each method for test heads evenly over yaw, a file for each head."""
    written = []
    for method, train, test in runs:
        with _test_images(runs, (train, test), data, 3) as files:
            for number, (file, box) in enumerate(files, start=1):
                found = structure_maps(_weights(runs[method, train, test]), file, box)
                figure = figures.draw_structures(found.image, found.maps, found.scorings)
                written.append(str(figures.save(figure, out.with_name(f"{out.stem}-{number}.png"))))
    return written


def _weights(path: Path) -> Path:
    """Return the weights of a run, which lie beside its result."""
    weights = sorted(path.parents[1].glob(f"weights/{path.stem}-*/weights.safetensors"))
    if not weights:
        raise UbhpdError(f"The weights of {path} are not beside it any more: run the same command with another --out.")
    return weights[-1]


def _stressed(path: Path, device: str) -> list[Condition]:
    """Return what a run's model does on its test heads at each resolution, the lowest first."""
    own = read(path)
    request = Request(_weights(path), path, own.model, path.parent / "test", device=device)
    report = stress(
        StressRequest(request, path.with_name(f"{path.stem}.resolution.json"), 0, kinds=("resolution",)),
        Progress(show=False),
    )
    return sorted((c for c in report.conditions if c.kind == "resolution"), key=lambda c: c.amount)
