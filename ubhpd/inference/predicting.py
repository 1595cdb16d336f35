"""`ubhpd predict` as a function: weights and a source of heads in, a prediction file out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ubhpd.core.errors import UbhpdError
from ubhpd.core.progress import Progress
from ubhpd.core.typing import FloatArray
from ubhpd.images.crops import recipe_named
from ubhpd.inference import io_file
from ubhpd.inference.manifest_source import ManifestSource, Sees, read_plan
from ubhpd.inference.prediction_file import (
    HeadSource,
    PredictionReport,
    Predictor,
    Speed,
    angles_and_rotations,
    predict,
)
from ubhpd.manifest import BuildFolder, header, usable
from ubhpd.manifest.schema import matrix
from ubhpd.models import checkpoint
from ubhpd.models.catalogue import card
from ubhpd.nn.inputs import InputRecipe

_SEES: dict[str, Sees] = {"image": "crops", "sequence": "crops", "landmarks": "landmarks", "geometric": "table"}


@dataclass(frozen=True)
class Request:
    """What to predict; each field is the option of `ubhpd predict` of that name.

    `python` may also be a callable: uint8 crops (n, size, size, 3) in, angles (n, 3) or rotations (n, 3, 3) out.
    truth: beside each drawing one of the ground truth, for a manifest. grid: how many drawings come together in one
    image. engine: of `engines.ENGINES`, runs a checkpoint's network. completed_by: a manifest whose landmarks complete
    those of `manifest`; crops are cut by the latter.
    """

    weights: Path | None
    out: Path
    model: str | None = None
    manifest: Path | None = None
    split: str | None = None
    images: Path | None = None
    video: Path | None = None
    camera: int | None = None
    detector: str = "auto"
    all_faces: bool = False
    landmarks: str | None = None
    form: str = "angles"
    draw: Path | None = None
    device: str = "auto"
    speed: Speed = field(default_factory=Speed)
    threads: int = 0
    onnx: tuple[Path, ...] = ()
    io: str | Path | None = None
    crop: str | None = None
    python: str | Callable[..., Any] | None = None
    completed_by: Path | None = None
    engine: str = "auto"
    truth: bool = False
    grid: int = 0


def predict_request(request: Request, progress: Progress) -> PredictionReport:
    """Predict the heads of a request and write the prediction file.

    Raises:
        UbhpdError: no source or several, weights that do not fit, or as `prediction_file.predict`.
    """
    given = [n for n in ("manifest", "images", "video", "camera") if getattr(request, n) is not None]
    if len(given) != 1:
        found = " and ".join(f"--{n}" for n in given) or "none"
        raise UbhpdError(
            f"One source of heads is needed, found {found}: give --manifest, --images, --video or --camera."
        )
    if request.split is not None and request.manifest is None:
        raise UbhpdError("--split selects heads of a manifest: give --manifest, or leave it out.")
    if request.draw is None and (request.truth or request.grid):
        raise UbhpdError(f"--{'truth' if request.truth else 'grid'} is about drawings: give --draw DIR, too.")
    if request.truth and request.manifest is None:
        raise UbhpdError("--truth draws the pose that a manifest states: give --manifest, or leave it out.")
    if request.grid and (request.video is not None or request.camera is not None):
        raise UbhpdError("--grid is of single images: leave it out with --video and --camera.")
    opened = cut_by(open_model(request), request.crop)
    sees, recipe = opened.sees, opened.recipe
    source = _heads(request, request.manifest, recipe, sees) if request.manifest else _faces(request, recipe, sees)
    draw = None
    if request.draw is not None:
        if sees != "crops" and request.manifest is not None:
            raise UbhpdError(
                f"{opened.about['model']} opens no image of a manifest, so there is none to draw on: leave --draw out."
            )
        from ubhpd.inference.image_source import drawer

        truth = _truth(request.manifest) if request.manifest is not None and request.truth else None
        draw = drawer(request.draw, truth) if request.video is None else None
    report = predict(source, opened.predictor, request.out, opened.about, progress, form=request.form, draw=draw)
    if request.draw is not None and request.grid and report.heads:
        from ubhpd.inference.image_source import draw_grid

        return replace(report, drawn=str(draw_grid(request.draw, request.out, request.grid)))
    if request.draw is None or request.video is None or not report.heads:
        return report
    from ubhpd.inference.image_source import draw_video

    return replace(report, drawn=str(draw_video(request.video, request.out, request.draw)))


def _truth(place: Path) -> dict[str, FloatArray]:
    """Return the rotation (3, 3) of each usable head of a manifest."""
    table = usable(BuildFolder.at(place).manifest(), ["sample_id", "rotation"])
    rotations = matrix(table.column("rotation"), 9).reshape(-1, 3, 3)
    return dict(zip(table.column("sample_id").to_pylist(), rotations, strict=True))


class OpenedModel(NamedTuple):
    """A model that can be run.

    recipe: how its input is cut, None for a geometric method. predictor: gives the poses of a batch's inputs. sees:
    what it takes of a manifest. about: what a prediction file records of it, as JSON can hold it.
    """

    recipe: InputRecipe | None
    predictor: Predictor
    sees: Sees
    about: dict[str, Any]


def open_model(request: Request) -> OpenedModel:
    """Open the model of a request: a checkpoint, ONNX files, or a Python function.

    Raises:
        UbhpdError: none of them or several, or one that cannot be opened.
    """
    given = {"weights": request.weights, "onnx": request.onnx or None, "python": request.python}
    named = [f"--{name}" for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise UbhpdError(
            f"One model is needed, found {' and '.join(named) or 'none'}: give --weights, --onnx or --python."
        )
    if request.weights is None:
        return _foreign(request)
    if request.io is not None:
        raise UbhpdError("--io describes a model of --onnx or --python, a checkpoint describes itself: leave it out.")
    about = checkpoint.load(request.weights, request.model).about
    sees = _SEES[card(about.model).kind]
    made_by = {"model": about.model, "weights": about.sha256, "config": dict(about.config), "input": about.input,
               "speed": asdict(request.speed)}  # fmt: skip
    if sees == "table":
        return OpenedModel(*_geometric(request.weights), sees, made_by)
    recipe, predictor, engine = _network(request, request.weights)
    if engine is not None:
        made_by["engine"] = engine
    return OpenedModel(recipe, predictor, sees, made_by)


def cut_by(opened: OpenedModel, crop: str | None) -> OpenedModel:
    """Return a model whose input is cut by another crop recipe, which is recorded; None leaves it as it is.

    Raises:
        UbhpdError: an unknown recipe, or a model that sees no crops.
    """
    if crop is None:
        return opened
    if opened.recipe is None or opened.sees != "crops":
        raise UbhpdError(f"{opened.about['model']} sees no crops, so --crop does not apply: leave it out.")
    name = recipe_named(crop).name
    recipe = replace(opened.recipe, crop=name, crop_of=())
    return opened._replace(recipe=recipe, about={**opened.about, "crop": name})


def _foreign(request: Request) -> OpenedModel:
    from ubhpd.inference.foreign import ForeignModel

    if request.model is not None:
        raise UbhpdError("--model names a model of the catalogue, for --weights: leave it out.")
    if request.onnx:
        io = io_of(request.onnx[0], request.io)
    else:
        io = io_file.IoFile() if request.io is None else io_file.read(request.io)
    model = ForeignModel(io, request.onnx, request.python, request.device, request.threads)
    colour: Literal["RGB", "BGR"] = "BGR" if io.input.colour == "BGR" else "RGB"
    return OpenedModel(InputRecipe(io.input.crop, io.input.size, colour), model.poses, "crops", model.about())


def io_of(file: Path, io: str | Path | None) -> io_file.IoFile:
    """Return how a model file takes images and gives poses.

    Args:
        file: ONNX file or OpenVINO model.
        io: path of an IO file, or the name of one that the package brings; None for FILE.io.toml beside the model.

    Raises:
        UbhpdError: there is none, or it is not as it has to be.
    """
    beside = file.with_suffix(".io.toml")
    if io is None and not beside.is_file():
        raise UbhpdError(
            f"How {file} takes images is not known: give --io FILE, or write {beside.name} beside it, which "
            "ubhpd onnx inspect proposes."
        )
    return io_file.read(beside if io is None else io)


def _geometric(weights: Path) -> tuple[None, Predictor]:
    from ubhpd.models.geometric_model import GeometricMethod

    method = GeometricMethod.of_checkpoint(weights)
    return None, lambda heads: angles_and_rotations(method.solve(heads))


def _network(request: Request, weights: Path) -> tuple[InputRecipe, Predictor, str | None]:
    """Return the recipe and predictor of a checkpoint's network, and the engine where it is not torch."""
    from ubhpd.inference.engines import EnginePredictor, chosen_engine
    from ubhpd.inference.network_predictor import NetworkPredictor
    from ubhpd.models.model import Model, device_named

    model = Model.of_checkpoint(weights)
    device = str(device_named(request.device))
    engine = chosen_engine(request.engine, device, request.speed, _expected_heads(request))
    if engine == "torch":
        return model.recipe, NetworkPredictor(model, device, request.speed).poses, None
    predictor = EnginePredictor(model, engine)
    return model.recipe, predictor.poses, predictor.name


def _expected_heads(request: Request) -> int | None:
    """Return about how many heads a request predicts: rows of a manifest; None where that is not known."""
    if request.manifest is not None:
        return header(BuildFolder.at(request.manifest).manifest()).rows
    return 0 if request.images is not None else None


def _heads(request: Request, place: Path, recipe: InputRecipe | None, sees: Sees) -> HeadSource:
    build = BuildFolder.at(place)
    path = build.manifest()
    plan = read_plan(path, recipe, request.split, completed_by=request.completed_by)
    source = ManifestSource(plan, build.folder, recipe, sees, request.threads)
    source.manifest_path = str(path.resolve())
    if request.completed_by is not None:
        source.identity["landmarks"] = header(request.completed_by).fingerprint
    return source


def _faces(request: Request, recipe: InputRecipe | None, sees: Sees) -> HeadSource:
    from ubhpd.images import faces
    from ubhpd.images.detectors import detector
    from ubhpd.inference.image_source import ImageSource

    if request.images is not None:
        images = faces.folder(request.images)
    elif request.video is not None:
        images = faces.video(request.video)
    else:
        images = faces.camera(request.camera or 0)
    landmarks = None
    if request.landmarks == "dlib":
        from ubhpd.images.landmarks import landmarks68

        landmarks = landmarks68
    where = faces.text_name(str(request.images or request.video or f"camera {request.camera}"))
    return ImageSource(
        images, where, detector(request.detector), recipe, sees,
        all_faces=request.all_faces, live=request.camera is not None, landmarks=landmarks,
    )  # fmt: skip
