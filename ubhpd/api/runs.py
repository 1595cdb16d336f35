"""Runs of models: training, prediction, experiments over protocols and seeds, and their leaderboard."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ubhpd.api.builds import Build, PathLike, Shown, optional_path, path_of
from ubhpd.core.errors import UbhpdError
from ubhpd.core.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

    from ubhpd.experiments.benchmark import BenchReport
    from ubhpd.leaderboards.standings import Standing
    from ubhpd.training.request import TrainReport


def train(
    model: str,
    data: Build | PathLike,
    out: PathLike,
    *,
    options: Mapping[str, Any] | None = None,
    backbone: PathLike | None = None,
    teachers: Sequence[PathLike] = (),
    cache: PathLike | None = None,
    frame_list: PathLike | None = None,
    progress: bool = True,
    **how: Any,
) -> TrainReport:
    """Train a model on the heads of a build, as its paper does where nothing else is asked for.

    Args:
        model: a name of `ubhpd.list_models`.
        data: a build.
        out: folder of this run: weights.safetensors, log.csv, train.json. The same call again resumes the run.
        options: of the model, as {"size": 64}.
        backbone: published weights of the backbone to begin with.
        teachers: checkpoints to learn from.
        cache: folder for crops; by default in the build.
        frame_list: for protocols that need one.
        progress: show a bar.
        how: fields of `ubhpd.training.request.TrainRequest`: protocol, epochs, steps, batch_size, lr, optimizer,
            schedule, seed, device, precision, balance, validation, select, workers and others.

    Raises:
        UbhpdError: wrong input, a folder that holds another run, or a loss that is not finite.
    """
    from ubhpd.training.request import TrainRequest
    from ubhpd.training.run import train as run

    _check_fields(TrainRequest, how, "train")
    request = TrainRequest(
        model, path_of(data), Path(out), options=_texts(options), backbone=optional_path(backbone),
        teachers=tuple(map(Path, teachers)), cache=optional_path(cache), frame_list=optional_path(frame_list), **how,
    )  # fmt: skip
    return run(request, Progress(progress))


def predict(
    weights: TrainReport | PathLike,
    data: Build | PathLike | None = None,
    *,
    split: str | None = None,
    images: PathLike | None = None,
    video: PathLike | None = None,
    out: PathLike | None = None,
    form: Literal["angles", "matrix"] = "angles",
    detector: str = "auto",
    all_faces: bool = False,
    draw: PathLike | None = None,
    device: str = "auto",
    half: bool = False,
    threads: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Run a model on the heads of a build or on the faces in images, and return its predictions.

    Heads without a prediction are not in the table; `table.attrs["problems"]` has (sample_id, reason) of each.

    Args:
        weights: a checkpoint, or what `ubhpd.train` returned.
        data: a build (UBHPD if it was sampled, else the pool) or a manifest.
        split: only this split of the manifest; of a build with UBHPD "test" by default.
        images: a folder of images, instead of `data`.
        video: a video, instead of `data`.
        out: keep the prediction file here; an interrupted call then resumes.
        form: columns yaw, pitch, roll in degrees, or r00 to r22.
        detector: finds faces in images and videos: auto, mtcnn, cascade, none (the whole image).
        all_faces: every face of an image, not only the largest.
        draw: folder for the images with axes drawn on every head.
        device: cpu, cuda, cuda:1; auto takes a GPU if there is one.
        half: compute with 16-bit floats.
        threads: for reading images, 0 for one per core.
        progress: show a bar.

    Raises:
        UbhpdError: no or several sources of heads, weights that do not fit, or unreadable files.
    """
    import tempfile

    import pandas as pd

    from ubhpd.inference.predicting import Request, predict_request
    from ubhpd.inference.prediction_file import Speed

    manifest = None
    if isinstance(data, Build):
        manifest = data.manifest
        split = split or ("test" if data.has_ubhpd else None)
    elif data is not None:
        manifest = Path(data)
    with tempfile.TemporaryDirectory() as folder:
        request = Request(
            Path(getattr(weights, "weights", weights)),  # type: ignore[arg-type]
            Path(out) if out is not None else Path(folder, "predictions.csv"),
            manifest=manifest, split=split, images=optional_path(images), video=optional_path(video), detector=detector,
            all_faces=all_faces, form=form, draw=optional_path(draw), device=device, speed=Speed(half), threads=threads,
        )  # fmt: skip
        report = predict_request(request, Progress(progress))
        frame = pd.read_csv(report.out, dtype={"sample_id": str}, keep_default_na=False)
    frame.attrs["problems"] = list(report.problems)
    return frame


def bench(
    models: str | Sequence[str],
    protocols: str | Sequence[str],
    data: Build | PathLike,
    out: PathLike,
    *,
    seeds: Sequence[int] = (0,),
    options: Mapping[str, Mapping[str, Any]] | None = None,
    weights: Mapping[str, PathLike | Sequence[PathLike]] | None = None,
    frames: PathLike | None = None,
    protocol_seed: int = 0,
    device: str = "auto",
    workers: int = 0,
    speed: int | None = None,
    cache: PathLike | None = None,
    progress: bool = True,
    **how: Any,
) -> BenchReport:
    """Train every model under every protocol with every seed, predict the test set, score it, write one result each.

    A run whose result is there already is kept. A run that fails is in `.failed` of what is returned, and the others
    go on.

    Args:
        models: names of `ubhpd.list_models`.
        protocols: ids of `ubhpd.list_protocols`, or 1, 2, 3, cross.
        data: a build.
        out: folder for results, predictions and weights.
        seeds: a run for each.
        options: by model, as {"hopenet": {"alpha": 2}}.
        weights: published weights by model, which then is not trained.
        frames: list of frames, for a protocol that needs one.
        protocol_seed: for a protocol that divides one dataset.
        device: cpu, cuda, cuda:1 or auto.
        workers: threads that read images.
        speed: measure heads per second at this batch size.
        cache: folder for crops.
        progress: show a bar.
        how: fields of `ubhpd.experiments.plan.HowToTrain`: epochs, steps, batch_size, lr, precision, balance,
            optimizer, schedule, validation, select, backbone.

    Raises:
        UbhpdError: an unknown model or protocol, no build, or weights that are not there.
    """
    from ubhpd.experiments.benchmark import bench as run
    from ubhpd.experiments.plan import BenchRequest, HowToTrain

    _check_fields(HowToTrain, how, "bench")
    if how.get("backbone") is not None:
        how["backbone"] = Path(how["backbone"])
    files = {
        name: (Path(own),) if isinstance(own, (str, os.PathLike)) else tuple(map(Path, own))
        for name, own in (weights or {}).items()
    }
    request = BenchRequest(
        models=(models,) if isinstance(models, str) else tuple(models),
        protocols=(protocols,) if isinstance(protocols, str) else tuple(map(str, protocols)),
        data=path_of(data),
        out=Path(out),
        seeds=tuple(seeds),
        options={name: _texts(own) for name, own in (options or {}).items()},
        weights=files,
        train=HowToTrain(**how),
        frames=optional_path(frames),
        protocol_seed=protocol_seed,
        device=device,
        workers=workers,
        speed=speed,
        cache=optional_path(cache),
    )
    return run(request, Progress(progress))


class Leaderboard(Shown):
    """The tables of a leaderboard: one for each protocol on the same heads."""

    def __init__(self, standings: Sequence[Standing], written: Sequence[Path]) -> None:
        """Keep tables, and the files that were written."""
        self.standings = list(standings)
        self.written = list(written)

    def table(self, scores: Sequence[str] = ("mae", "balanced_mae", "ubmae")) -> pd.DataFrame:
        """Return a row per protocol and model: rank, standing, scores, and the interval of the mean absolute error.

        Args:
            scores: names of scores, averaged over the seeds.
        """
        import pandas as pd

        rows = []
        for standing in self.standings:
            for method in standing.methods:
                values = {n: v.mean if (v := method.values.get(n)) else None for n in scores}
                mae = method.values["mae"]
                own: dict[str, Any] = {
                    "protocol": standing.result.protocol.id,
                    "model": method.name,
                    "standing": method.standing,
                }
                rows.append({**own, **values, "mae_low": mae.low, "mae_high": mae.high})
        frame = pd.DataFrame(rows).set_index(["protocol", "model"])
        numbers = [*scores, "mae_low", "mae_high"]
        return frame.astype(dict.fromkeys(numbers, float))

    def bins(self) -> pd.DataFrame:
        """Return the mean absolute error (degrees) per protocol, model, angle and bin, of the first seed."""
        import pandas as pd

        from ubhpd.core.bins import CENTRES_DEG

        frames = [
            pd.DataFrame({
                "protocol": standing.result.protocol.id, "model": method.name, "angle": angle,
                "centre_deg": CENTRES_DEG, "heads": own.heads, "error": own.error,
            })
            for standing in self.standings
            for method in standing.methods
            for angle, own in method.result.bins.items()
        ]  # fmt: skip
        return pd.concat(frames, ignore_index=True).astype({"error": float})

    def predictions(self, model: str, protocol: str | None = None) -> pd.DataFrame:
        """Return the predictions that a model's scores were made from, of the first seed.

        Args:
            model: its name in the table.
            protocol: by default the first that has the model.

        Raises:
            UbhpdError: no such model, or its predictions are gone.
        """
        import pandas as pd

        for standing in self.standings:
            for method in standing.methods:
                if method.name == model and protocol in (None, standing.result.protocol.id):
                    own = method.runs[0]
                    path = own.path.parent / Path(own.result.predictions).name
                    if not path.is_file():
                        raise UbhpdError(f"There is no file {path}: run ubhpd.bench again.")
                    return pd.read_csv(path, dtype={"sample_id": str}, keep_default_na=False)
        names = dict.fromkeys(method.name for standing in self.standings for method in standing.methods)
        raise UbhpdError(f"The leaderboard has no model {model!r} there: choose from {', '.join(names)}.")

    def _heading(self) -> str:
        return f"Leaderboard of {len(self.standings)} protocol{'s' * (len(self.standings) != 1)}"


def leaderboard(
    results: PathLike | Sequence[PathLike],
    *,
    out: PathLike | None = None,
    formats: Sequence[str] = ("md", "csv", "tex", "html"),
) -> Leaderboard:
    """Return the leaderboard of result files, and write it to a folder.

    Args:
        results: files that `ubhpd.bench` wrote, or folders of them.
        out: folder for leaderboard.md, .csv, .tex and .html; nothing is written without it.
        formats: which of them.

    Raises:
        UbhpdError: no result, one that was changed by hand, or a folder that cannot be written.
    """
    from ubhpd.experiments.plan import known
    from ubhpd.leaderboards.page import publish
    from ubhpd.leaderboards.result import read_all
    from ubhpd.leaderboards.standings import standings

    places = [Path(results)] if isinstance(results, (str, os.PathLike)) else list(map(Path, results))
    if out is None:
        return Leaderboard(standings(read_all(places), known()), ())
    return Leaderboard(*publish(places, Path(out), formats, known()))


def _texts(options: Mapping[str, Any] | None) -> dict[str, str]:
    return {key: str(value) for key, value in (options or {}).items()}


def _check_fields(kind: Any, given: Mapping[str, Any], user: str) -> None:
    known = list(kind.__dataclass_fields__)
    if unknown := [name for name in given if name not in known]:
        raise UbhpdError(f"ubhpd.{user} has no argument {unknown[0]!r}: it has {', '.join(known)}.")
