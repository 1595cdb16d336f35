"""Runs of models: training, prediction, experiments over protocols and seeds, and their leaderboard."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ubhpd.api.builds import Build, PathLike, Shown, optional_path, path_of
from ubhpd.core.errors import UbhpdError
from ubhpd.core.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

    from ubhpd.api.scores import PredictionsLike
    from ubhpd.experiments.benchmark import BenchReport
    from ubhpd.experiments.submission import Examined, Submitted
    from ubhpd.leaderboards.result import Result
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
    """Train a model on the heads of a build by its paper's recipe where nothing else is asked for.

    A tenth of the heads is held out to choose the epoch; `as_paper=True` trains on all and keeps the last epoch.

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
            schedule, weight_decay, recipe, as_paper, seed, device, precision, balance, validation, select, workers,
            landmarks and others.

    Raises:
        UbhpdError: wrong input, a folder that holds another run, or a loss that is not finite.
    """
    from ubhpd.training.request import TrainRequest
    from ubhpd.training.run import train as run

    _check_fields(TrainRequest, how, "train")
    how["recipe"] = _texts(how.get("recipe"))
    if how.get("landmarks") is not None:
        how["landmarks"] = Path(how["landmarks"])
    request = TrainRequest(
        model, path_of(data), Path(out), options=_texts(options), backbone=optional_path(backbone),
        teachers=tuple(map(Path, teachers)), cache=optional_path(cache), frame_list=optional_path(frame_list), **how,
    )  # fmt: skip
    return run(request, Progress(progress))


def predict(
    weights: TrainReport | PathLike | None = None,
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
    truth: bool = False,
    grid: int = 0,
    device: str = "auto",
    half: bool = False,
    threads: int = 0,
    onnx: PathLike | Sequence[PathLike] = (),
    io: PathLike | None = None,
    python: str | Callable[..., Any] | None = None,
    crop: str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Run a model on the heads of a build or on the faces in images, and return its predictions.

    Heads without a prediction are not in the table; `table.attrs["problems"]` has (sample_id, reason) of each.

    Args:
        weights: a checkpoint, or what `ubhpd.train` returned; or give `onnx` or `python` instead.
        data: a build (UBHPD if it was sampled, else the pool) or a manifest.
        split: only this split of the manifest; of a build with UBHPD "test" by default.
        images: a folder of images, instead of `data`.
        video: a video, instead of `data`.
        out: keep the prediction file here; an interrupted call then resumes.
        form: columns yaw, pitch, roll in degrees, or r00 to r22.
        detector: finds faces in images and videos: auto, mtcnn, cascade, none (the whole image).
        all_faces: every face of an image, not only the largest.
        draw: folder for the images with axes drawn on every head.
        truth: draw the ground truth of `data` beside each prediction.
        grid: put so many of the drawings into one image, grid.jpg in that folder.
        device: cpu, cuda, cuda:1; auto takes a GPU if there is one.
        half: compute with 16-bit floats.
        threads: for reading images, 0 for one per core.
        onnx: an ONNX file or OpenVINO model (.xml) of others; the poses of several are averaged.
        io: how `onnx` or `python` takes images and gives poses: a file, or a name of `ubhpd onnx list`.
        python: "module:function" or a callable: uint8 crops (n, size, size, 3) in, angles (n, 3) or rotations
            (n, 3, 3) out.
        crop: cut all heads by this recipe instead of the model's own.
        progress: show a bar.

    Raises:
        UbhpdError: no or several models, no or several sources of heads, weights that do not fit, or unreadable files.
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
            None if weights is None else Path(getattr(weights, "weights", weights)),  # type: ignore[arg-type]
            Path(out) if out is not None else Path(folder, "predictions.csv"),
            manifest=manifest, split=split, images=optional_path(images), video=optional_path(video), detector=detector,
            all_faces=all_faces, form=form, draw=optional_path(draw), truth=truth, grid=grid, device=device,
            speed=Speed(half), threads=threads,
            onnx=tuple(map(Path, [onnx] if isinstance(onnx, (str, os.PathLike)) else onnx)),
            io=None if io is None else os.fspath(io), python=python, crop=crop,
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
    grid: Mapping[str, Mapping[str, Sequence[Any]]] | None = None,
    weights: Mapping[str, PathLike | Sequence[PathLike]] | None = None,
    io: PathLike | Mapping[str, PathLike] | None = None,
    trained_on: Mapping[str, str] | None = None,
    teachers: Mapping[str, Sequence[PathLike]] | None = None,
    by: str | None = None,
    frames: PathLike | None = None,
    protocol_seed: int = 0,
    device: str = "auto",
    workers: int = 0,
    speed: int | None = None,
    landmarks: PathLike | None = None,
    crop: str | None = None,
    cache: PathLike | None = None,
    progress: bool = True,
    **how: Any,
) -> BenchReport:
    """Train every model under every protocol with every seed, predict the test set, score it, write one result each.

    A run whose result is there already is kept. A run that fails is in `.failed` of what is returned, and the others
    go on.

    Args:
        models: names of `ubhpd.list_models`, or "onnx:FILE" for an ONNX file or an OpenVINO model of others.
        protocols: ids of `ubhpd.list_protocols`, or 1, 2, 3, cross.
        data: a build.
        out: folder for results, predictions and weights.
        seeds: a run for each.
        options: by model, as {"hopenet": {"alpha": 2}}.
        grid: by model, as {"dadl": {"alpha": [1, 2], "beta": [1, 3]}}: a run for each combination.
        weights: published weights by model, which then is not trained.
        io: IO file of the models "onnx:FILE", or by model, which is the file's name without ending; by default
            FILE.io.toml beside it.
        trained_on: what these weights were trained on, by model, as {"hopenet": "300W-LP"}; see `submit`.
        teachers: what a model learns from, by model: checkpoints, or names of models, which are trained first.
        by: the person or group that runs it.
        frames: list of frames, for a protocol that needs one.
        protocol_seed: for a protocol that divides one dataset.
        device: cpu, cuda, cuda:1 or auto.
        workers: threads that read images.
        speed: measure heads per second at this batch size.
        landmarks: a manifest with landmarks of the heads; by default landmarks.parquet in the build, if it is there.
        crop: recipe that cuts the test heads of every network; by default each one's own.
        cache: folder for crops.
        progress: show a bar.
        how: fields of `ubhpd.experiments.plan.HowToTrain`: epochs, steps, batch_size, lr, precision, balance,
            optimizer, schedule, weight_decay, recipe (by model), as_paper, validation, select, backbone.

    Raises:
        UbhpdError: an unknown model or protocol, no build, or weights that are not there.
    """
    from ubhpd.experiments.benchmark import bench as run
    from ubhpd.experiments.plan import BenchRequest, HowToTrain

    _check_fields(HowToTrain, how, "bench")
    if how.get("recipe") is not None:
        how["recipe"] = {name: _texts(own) for name, own in how["recipe"].items()}
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
        grid={m: {key: tuple(map(_text, own[key])) for key in own} for m, own in (grid or {}).items()},
        weights=files,
        io={}
        if io is None
        else {m: os.fspath(own) for m, own in (io.items() if isinstance(io, Mapping) else [("", io)])},
        trained_on=dict(trained_on or {}),
        teachers={name: tuple(map(os.fspath, own)) for name, own in (teachers or {}).items()},  # type: ignore[arg-type]
        by=by,
        train=HowToTrain(**how),
        frames=optional_path(frames),
        protocol_seed=protocol_seed,
        device=device,
        workers=workers,
        speed=speed,
        landmarks=optional_path(landmarks),
        cache=optional_path(cache),
        crop=crop,
    )
    return run(request, Progress(progress))


class Submission(Shown):
    """Predictions of others that were examined and, unless they were only checked, scored as a row of a leaderboard."""

    def __init__(self, examined: Examined, made: Submitted | None) -> None:
        """Keep what was found, and what was made."""
        self.examined = examined
        self.made = made

    @property
    def is_fit(self) -> bool:
        """Whether no finding stops the submission."""
        return not self.examined.stopping

    @property
    def path(self) -> Path | None:
        """The result file; None where the predictions were only checked."""
        return None if self.made is None else self.made.path

    @property
    def result(self) -> Result | None:
        """The result; None where the predictions were only checked."""
        return None if self.made is None else self.made.result

    def findings(self) -> pd.DataFrame:
        """Return a row per finding: severity, kind, text, fix, mean error before and after."""
        import pandas as pd

        from ubhpd.evaluation.doctor import Finding

        return pd.DataFrame([f._asdict() for f in self.examined.findings], columns=list(Finding._fields))

    def table(self) -> pd.DataFrame:
        """Return a row per score: value, unit and interval. Of predictions that were only checked: the findings."""
        import pandas as pd

        if self.result is None:
            return self.findings()
        rows = {name: vars(own) for name, own in self.result.scores.items()}
        return pd.DataFrame(rows).T.rename_axis("score").astype(dict.fromkeys(("value", "low", "high"), float))

    def _heading(self) -> str:
        own = self.examined
        heads = f"{own.heads:,} of {own.splits.test.heads:,} test heads of {own.submission.protocol}"
        return f"Submission of {own.submission.name or own.submission.predictions}: {heads}"


def stress(
    data: Build | PathLike,
    weights: TrainReport | PathLike | None = None,
    *,
    onnx: PathLike | Sequence[PathLike] = (),
    io: PathLike | None = None,
    python: str | Callable[..., Any] | None = None,
    crop: str | None = None,
    split: str | None = None,
    heads: int = 300,
    kinds: Sequence[str] = (),
    seed: int = 0,
    out: PathLike | None = None,
    device: str = "auto",
    threads: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Return how the error of a model rises when its input gets worse: a row per perturbation and amount.

    Columns: kind, amount, mae, geodesic (degrees), heads. `table.attrs` has rise_deg, the mean rise of the geodesic
    error over the fixed set of perturbations, and mirror_deg, the inconsistency of mirrored images.

    Args:
        data: a build (UBHPD if it was sampled, else the pool) or a manifest.
        weights: a checkpoint, or what `ubhpd.train` returned; or give `onnx` or `python` instead.
        onnx: model files of others, as for `predict`.
        io: their IO file, as for `predict`.
        python: a function on crops, as for `predict`.
        crop: cut all heads by this recipe instead of the model's own.
        split: only this split of the manifest.
        heads: how many heads, at equal distances; 0 for all.
        kinds: only these perturbations.
        seed: of random directions, noise and patches.
        out: keep the JSON file here; an interrupted call then resumes.
        device: cpu, cuda, cuda:1; auto takes a GPU if there is one.
        threads: for reading images, 0 for one per core.
        progress: show a bar.

    Raises:
        UbhpdError: no or several models, one that sees no crops, an unknown kind, or no usable head.
    """
    import tempfile

    import pandas as pd

    from ubhpd.experiments.stress import StressRequest
    from ubhpd.experiments.stress import stress as measured
    from ubhpd.inference.predicting import Request

    with tempfile.TemporaryDirectory() as folder:
        place = Path(out) if out is not None else Path(folder, "stress.json")
        model = Request(
            None if weights is None else Path(getattr(weights, "weights", weights)),  # type: ignore[arg-type]
            place, manifest=path_of(data),
            split=split, device=device, threads=threads, crop=crop, python=python,
            onnx=tuple(map(Path, [onnx] if isinstance(onnx, (str, os.PathLike)) else onnx)),
            io=None if io is None else os.fspath(io),
        )  # fmt: skip
        report = measured(StressRequest(model, place, heads, seed, tuple(kinds)), Progress(progress))
    table = pd.DataFrame(report.conditions)
    table.attrs |= {"rise_deg": report.rise_deg, "mirror_deg": report.mirror_deg}
    return table


def submit(
    predictions: PredictionsLike,
    name: str = "",
    *,
    protocol: str,
    data: Build | PathLike,
    out: PathLike | None = None,
    trained_on: str | None = None,
    accept: Sequence[str] = (),
    check: bool = False,
    replace: bool = False,
    frames: PathLike | None = None,
    protocol_seed: int = 0,
    **said: Any,
) -> Submission:
    """Score predictions of others on the test heads of a protocol, and write the result file of a leaderboard's row.

    Args:
        predictions: a data frame (or a mapping of columns) or a file as for `score`, with the ids of the test heads.
        name: of the method, as the leaderboard shows it.
        protocol: id of `ubhpd.list_protocols`.
        data: a build with the test heads.
        out: folder of results, as of `bench`.
        trained_on: the training set: 300W-LP, AFLW2000 or BIWI, whose counts are part of the package; "protocol" for
            its training split; the id of another protocol; a manifest; a table of counts; or a name in words. Without
            it the row is shown and not ranked.
        accept: kinds of findings of the doctor with which the predictions are submitted all the same.
        check: only examine the predictions; nothing is written.
        replace: replace another result of the same name.
        frames: list of frames, for a protocol that needs one.
        protocol_seed: for a protocol that divides one dataset.
        said: what else is stated about the method: paper, code, year, parameters, license, input, crop, seed, by,
            counts, reported_as, oracle, stress; see `ubhpd.experiments.submission.Submission`.

    Raises:
        UbhpdError: predictions that cannot be scored, ids of another protocol, a finding that is not accepted (not with
            `check`), a wrong statement, or another result of this name. Nothing is written then.
    """
    import tempfile

    from ubhpd.experiments import submission as own

    _check_fields(own.Submission, said, "submit")
    if out is None and not check:
        raise UbhpdError("No folder of results is named: give out, or check=True to examine only.")
    request = own.SubmitRequest(path_of(data), Path(out or "."), optional_path(frames), protocol_seed, replace)
    with tempfile.TemporaryDirectory() as folder:
        given = own.Submission(
            _prediction_file(predictions, Path(folder)), name, protocol, trained_on, accept=tuple(accept), **said
        )
        if check:
            return Submission(own.examine(given, request), None)
        (made,) = own.submit([given], request)
    return Submission(made.examined, made)


def _prediction_file(given: PredictionsLike, folder: Path) -> str:
    """Return the path of predictions; a table in memory is written to the folder first."""
    if isinstance(given, (str, os.PathLike)):
        return os.fspath(given)
    import pandas as pd

    if not isinstance(given, (pd.DataFrame, Mapping)):
        raise UbhpdError("An array of predictions has no ids: give a table with sample_id, or a file.")
    frame = given if isinstance(given, pd.DataFrame) else pd.DataFrame(dict(given))
    if frame.index.name is not None and frame.index.name not in frame:
        frame = frame.reset_index()
    path = folder / "predictions.csv"
    frame.to_csv(path, index=False)
    return str(path)


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
                    "evidence": method.evidence,
                }
                rows.append({**own, **values, "mae_low": mae.low, "mae_high": mae.high})
            rows += _baselines(standing, scores)
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
            for method in (*standing.methods, *standing.constants)
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
            for method in (*standing.methods, *standing.constants):
                if method.name == model and protocol in (None, standing.result.protocol.id):
                    own = method.runs[0]
                    path = own.path.parent / Path(own.result.predictions).name
                    if not path.is_file():
                        raise UbhpdError(f"There is no file {path}: run ubhpd.bench again.")
                    return pd.read_csv(path, dtype={"sample_id": str}, keep_default_na=False)
        names = dict.fromkeys(m.name for own in self.standings for m in (*own.methods, *own.constants))
        raise UbhpdError(f"The leaderboard has no model {model!r} there: choose from {', '.join(names)}.")

    def _heading(self) -> str:
        return f"Leaderboard of {len(self.standings)} protocol{'s' * (len(self.standings) != 1)}"


def _baselines(standing: Standing, scores: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of the mean pose and of other constant predictions."""
    own = [("mean_pose", standing.baseline_values), *((m.name, m.values) for m in standing.other_constants)]
    return [
        {
            "protocol": standing.result.protocol.id, "model": name, "standing": "", "evidence": "baseline",
            **{n: v.mean if (v := values.get(n)) else None for n in scores},
            "mae_low": v.low if (v := values.get("mae")) else None,
            "mae_high": v.high if (v := values.get("mae")) else None,
        }
        for name, values in own
    ]  # fmt: skip


def leaderboard(
    results: PathLike | Sequence[PathLike] | Mapping[str, PathLike],
    *,
    out: PathLike | None = None,
    formats: Sequence[str] = ("md", "csv", "json", "tex", "html"),
    rank_by: str = "balanced_mae",
    verify: bool = False,
) -> Leaderboard:
    """Return the leaderboard of result files, and write it to a folder.

    Args:
        results: files that `ubhpd.bench` and `ubhpd.submit` wrote, or folders of them; or, of several people,
            {"ann": folder, "bob": folder}.
        out: folder for leaderboard.md, .csv, .json, .tex and .html; nothing is written without it.
        formats: which of them.
        rank_by: "balanced_mae", "mae" or "ubmae".
        verify: score all predictions again, and refuse a result with other scores.

    Raises:
        UbhpdError: no result, one that was changed by hand, or a folder that cannot be written.
    """
    from ubhpd.experiments.plan import known
    from ubhpd.leaderboards.page import publish
    from ubhpd.leaderboards.result import read_all
    from ubhpd.leaderboards.standings import standings
    from ubhpd.leaderboards.standings import verify as check

    if isinstance(results, Mapping):
        places = [(name, Path(place)) for name, place in results.items()]
    else:
        several = [results] if isinstance(results, (str, os.PathLike)) else results
        places = [("", Path(place)) for place in several]
    if out is not None:
        return Leaderboard(*publish(places, Path(out), formats, known(), None, rank_by, verify))
    files = read_all(places)
    if verify:
        check(files)
    return Leaderboard(standings(files, known(), rank_by), ())


def _texts(options: Mapping[str, Any] | None) -> dict[str, str]:
    return {key: _text(value) for key, value in (options or {}).items()}


def _text(value: Any) -> str:
    """Return a value as a user types it: several with commas between."""
    return ",".join(map(str, value)) or "none" if isinstance(value, (tuple, list)) else str(value)


def _check_fields(kind: Any, given: Mapping[str, Any], user: str) -> None:
    known = list(kind.__dataclass_fields__)
    if unknown := [name for name in given if name not in known]:
        raise UbhpdError(f"ubhpd.{user} has no argument {unknown[0]!r}: it has {', '.join(known)}.")
