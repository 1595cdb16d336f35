"""`ubhpd predict` as a function: weights and a source of heads in, a prediction file out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ubhpd.core.errors import UbhpdError
from ubhpd.core.progress import Progress
from ubhpd.inference.manifest_source import ManifestSource, Sees, read_plan
from ubhpd.inference.prediction_file import (
    HeadSource,
    PredictionReport,
    Predictor,
    Speed,
    angles_and_rotations,
    predict,
)
from ubhpd.manifest import BuildFolder
from ubhpd.models import checkpoint
from ubhpd.models.catalogue import card

if TYPE_CHECKING:
    from ubhpd.nn.contract import InputRecipe

_SEES: dict[str, Sees] = {"image": "crops", "sequence": "crops", "landmarks": "landmarks", "geometric": "table"}


@dataclass(frozen=True)
class Request:
    """What to predict; each field is the option of `ubhpd predict` of that name."""

    weights: Path
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
    about = checkpoint.load(request.weights, request.model).about
    sees = _SEES[card(about.model).kind]
    recipe, predictor = _geometric(request) if sees == "table" else _network(request)
    source = _heads(request, request.manifest, recipe, sees) if request.manifest else _faces(request, recipe, sees)
    draw = None
    if request.draw is not None:
        if sees != "crops" and request.manifest is not None:
            raise UbhpdError(
                f"{about.model} opens no image of a manifest, so there is none to draw on: leave --draw out."
            )
        from ubhpd.inference.image_source import drawer

        draw = drawer(request.draw) if request.video is None else None
    made_by = {"model": about.model, "weights": about.sha256, "config": dict(about.config), "input": about.input,
               "speed": asdict(request.speed)}  # fmt: skip
    report = predict(source, predictor, request.out, made_by, progress, form=request.form, draw=draw)
    if request.draw is None or request.video is None or not report.heads:
        return report
    from ubhpd.inference.image_source import draw_video

    return replace(report, drawn=str(draw_video(request.video, request.out, request.draw)))


def _geometric(request: Request) -> tuple[None, Predictor]:
    from ubhpd.models.geometric_model import GeometricMethod

    method = GeometricMethod.of_checkpoint(request.weights)
    return None, lambda heads: angles_and_rotations(method.solve(heads))


def _network(request: Request) -> tuple[InputRecipe, Predictor]:
    from ubhpd.inference.network_predictor import NetworkPredictor
    from ubhpd.models.model import Model, device_named

    model = Model.of_checkpoint(request.weights)
    return model.recipe, NetworkPredictor(model, str(device_named(request.device)), request.speed).poses


def _heads(request: Request, place: Path, recipe: InputRecipe | None, sees: Sees) -> HeadSource:
    build = BuildFolder.at(place)
    path = build.manifest()
    source = ManifestSource(read_plan(path, recipe, request.split), build.folder, recipe, sees, request.threads)
    source.manifest_path = str(path.resolve())
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
