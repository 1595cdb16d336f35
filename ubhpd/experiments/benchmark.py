"""One run from weights to result: predict the test split of a protocol, score it, and say everything about it.

The weights of a run are trained, fitted or brought in, and kept under the hash of what they were made from. `bench` is
`ubhpd bench` as a function: every model on every protocol with every seed, one result file each.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from ubhpd import __version__
from ubhpd.core.errors import UbhpdError, disk_fault
from ubhpd.core.files import locked, read_json, sha256_of, write_json
from ubhpd.core.options import from_json
from ubhpd.core.progress import Progress
from ubhpd.evaluation.evaluate import evaluate, known_training_set
from ubhpd.experiments.plan import (
    BenchRequest,
    Declared,
    Run,
    Splits,
    declared_training,
    evaluated,
    io_named,
    landmark_kinds,
    onnx_files,
    oracle_of,
    protocol_ids,
    runs_of,
    scoring_options,
    split_of,
    splits_of,
    teachers_of,
    write_test_manifest,
)
from ubhpd.inference.predicting import Request, io_of, predict_request
from ubhpd.inference.prediction_file import PredictionReport
from ubhpd.leaderboards import result
from ubhpd.leaderboards.result import (
    FITTED,
    FORMAT,
    IMPORTED,
    TRAINED,
    Input,
    MethodInfo,
    Result,
    Speed,
    Training,
    canonical_hash,
    read,
)
from ubhpd.manifest import NO_LANDMARKS, BuildFolder, header
from ubhpd.models import checkpoint
from ubhpd.models.catalogue import card, configured, module_of
from ubhpd.models.downloads import is_imagenet
from ubhpd.protocols.definitions import TRAIN
from ubhpd.protocols.resolve import protocol
from ubhpd.training.request import WEIGHTS

_LOG = logging.getLogger(__name__)


class Paths(NamedTuple):
    """Where a run leaves what: predictions and result lie side by side."""

    result: Path
    predictions: Path

    @classmethod
    def of(cls, run: Run, out: Path) -> Paths:
        """Return the paths of a run below `out`."""
        folder = out / run.protocol_id
        return cls(folder / f"{run.name}.json", folder / f"{run.name}.predictions.csv")


_RECORD = "training.json"


class Weights(NamedTuple):
    """A checkpoint, and how it came about."""

    path: Path
    training: Training


def made_from(run: Run, splits: Splits, request: BenchRequest) -> dict[str, Any]:
    """Return everything that decides which weights a run has, as JSON can hold it.

    Protocols with the same training split have the same weights, whatever they test on.
    """
    own: dict[str, Any] = {"model": run.model, "options": run.options, "how": run.how, "seed": run.seed}
    if run.onnx is not None:
        return {**own, "files": [_file(run.onnx)], "trained_on": request.trained_on.get(run.model)}
    if run.how == IMPORTED:
        declared = request.trained_on.get(run.model)
        return {**own, "files": [_file(f) for f in request.weights[run.model]], "trained_on": declared}
    backbone = request.train.backbone
    how = asdict(request.train) | {
        "backbone": backbone and ("imagenet" if is_imagenet(backbone) else _file(backbone)),
        "recipe": request.train.recipe_of(run.model),
    }
    recipe = (
        {}
        if run.how == FITTED
        else {"how_to_train": {k: v for k, v in how.items() if k in _FIRST or v not in (None, (), {})}}
    )
    if splits.landmarks is not None and _uses_landmarks(run):
        own["landmarks"] = header(splits.landmarks).fingerprint
    if run.how == TRAINED and (teachers := teachers_of(run, request)):
        own["teachers"] = [made_from(t, splits, request) if isinstance(t, Run) else _file(t) for t in teachers]
    return {**own, **recipe, "train": [splits.train.names_sha256, splits.train.fingerprint]}


# What `HowToTrain` had first: these names are in the hash of every run, later ones where they are given, so that runs
# of earlier versions are found again.
_FIRST = (
    "epochs", "steps", "batch_size", "lr", "precision", "balance", "optimizer", "schedule", "validation", "select",
    "backbone",
)  # fmt: skip


def _uses_landmarks(run: Run) -> bool:
    """Whether a model sees the landmarks of a head or learns from them."""
    own = card(run.model)
    if own.sees == "landmarks":
        return True
    terms_of = getattr(module_of(own), "landmark_terms", None) if run.how == TRAINED else None
    return terms_of is not None and bool(terms_of(configured(run.model, run.chosen)[1]))


def weights_of(run: Run, splits: Splits, request: BenchRequest, progress: Progress) -> Weights:
    """Return the weights of a run: those of an earlier run if they were made from the same, else made now.

    Raises:
        UbhpdError: as training, fitting or importing does.
    """
    folder = request.out / "weights" / f"{run.weights_name}-{canonical_hash(made_from(run, splits, request))[:12]}"
    path, record = folder / WEIGHTS, folder / _RECORD
    kept = _kept(path, record)
    if kept is not None:
        return Weights(path, kept)
    if run.how == IMPORTED:
        training = _imported(run, splits, request, path)
    elif not splits.train_rows.num_rows:
        raise UbhpdError(
            f"{run.model} needs the training split of {run.protocol_id}, which is not in {request.data}: build its "
            f"datasets, too, or bring weights in with --weights {run.model}=FILE."
        )
    elif run.how == FITTED:
        training = _fitted(run, splits, path)
    else:
        training = _trained(run, splits, request, path, progress)
    write_json(asdict(training), record)
    return Weights(path, training)


def _kept(path: Path, record: Path) -> Training | None:
    """Return how weights came about that are there already, None unless they are there whole."""
    try:
        found = from_json(read_json(record, "run ubhpd bench again"), Training, str(record))
        is_same = checkpoint.read_about(path).sha256 == found.weights_sha256
    except (OSError, ValueError, UbhpdError):
        return None
    return found if is_same else None


def _fitted(run: Run, splits: Splits, path: Path) -> Training:
    from ubhpd.models.geometric_model import GeometricMethod, heads_of

    origin = {"protocol": run.protocol_id, "list": splits.resolution.hashes["train"]}
    about = GeometricMethod.fitted(run.model, run.chosen, heads_of(splits.completed(splits.train_rows)), origin).save(
        path
    )
    return Training(FITTED, about.sha256, "nothing", "none: a fit has one solution", splits.train.heads)


def _imported(run: Run, splits: Splits, request: BenchRequest, path: Path) -> Training:
    from ubhpd.models.importing import imported
    from ubhpd.models.model import Model

    files = request.weights[run.model]
    own = _own(files)
    is_whole = len(own) == 1 and own[0].model == run.model
    model = Model.of_checkpoint(files[0], run.model) if is_whole else imported(files, run.model, run.chosen)
    if canonical_hash(asdict(model.config)) != canonical_hash(run.options):
        raise UbhpdError(f"{files[0]} has other options than this run: give those of ubhpd weights show with -O.")
    about = model.save(path)
    origin = ", ".join(f"{o['name']} {o['sha256'][:16]}" for o in map(checkpoint.file_origin, files))
    declared = request.trained_on.get(run.model)
    if own and declared is None:
        here = _trained_here(own, splits, about.sha256, origin)
        if here is not None:
            return here
    name = declared_training(declared, protocol(run.protocol_id)).name
    if name is None and own:
        name = _trained_by_checkpoint(own)
    return Training(IMPORTED, about.sha256, origin, "that of its authors", declared=name)


def _own(files: Sequence[Path]) -> list[checkpoint.About]:
    """Return what files say of themselves if all are checkpoints of ubhpd; else nothing."""
    try:
        return [checkpoint.read_about(f) for f in files]
    except UbhpdError:
        return []


def _trained_here(own: Sequence[checkpoint.About], splits: Splits, sha256: str, origin: str) -> Training | None:
    """Return how checkpoints were trained that ubhpd itself trained on the heads of this training split.

    None unless all of them were: on other heads they are imported, with the training set that they name.
    """
    origins = [about.origin for about in own]
    for o in origins:
        data = o.get("data")
        if o.get("how") != "trained" or not isinstance(data, dict):
            return None
        if data.get("heads_sha256") != splits.train.names_sha256:
            return None
    first = origins[0]
    recipe: Mapping[str, Any] = first["recipe"] if isinstance(first.get("recipe"), dict) else {}
    return Training(
        how=TRAINED, weights_sha256=sha256, start=f"trained before by ubhpd, seed {first.get('seed')}: {origin}",
        selection=str(first.get("selection", "not stated")), heads=_whole(first.get("heads")),
        epochs=_whole(first.get("epochs")), steps=_whole(first.get("steps")),
        batch_size=_whole(recipe.get("batch_size")), optimizer=_text(recipe.get("optimizer")),
        lr=_number(recipe.get("lr")), schedule=_text(recipe.get("schedule")),
        augmentations=tuple(map(str, recipe.get("augmentations") or ())), balance=_text(recipe.get("balance")),
        precision=_text(recipe.get("precision")),
    )  # fmt: skip


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _trained_by_checkpoint(own: Sequence[checkpoint.About]) -> str | None:
    """Return the training set that checkpoints of ubhpd name; None if they name several or were not trained by it."""
    names = {_named_set(about.origin) for about in own}
    return names.pop() if len(names) == 1 else None


def _named_set(origin: Mapping[str, Any]) -> str | None:
    data, heads = origin.get("data"), origin.get("heads")
    if origin.get("how") != "trained" or not isinstance(data, dict) or not isinstance(heads, int):
        return None
    return f"{split_of(str(data.get('protocol') or 'ubhpd'))} ({heads:,} heads), as its checkpoint says"


def _trained(run: Run, splits: Splits, request: BenchRequest, path: Path, progress: Progress) -> Training:
    from ubhpd.training import run as training

    teachers = tuple(
        weights_of(t, splits, request, progress).path if isinstance(t, Run) else t for t in teachers_of(run, request)
    )
    frames = request.frames if splits.resolution.protocol.needs_frames else None
    wanted = request.train.request(
        run.model, request.data, path.parent, protocol=run.protocol_id, options=run.chosen, seed=run.seed,
        device=request.device, workers=request.workers, frame_list=frames, protocol_seed=request.protocol_seed,
        cache=request.cache, landmarks=request.landmarks, teachers=teachers,
    )  # fmt: skip
    report = training.train(wanted, progress)
    recipe, backbone = report.recipe, report.origin.get("backbone")
    return Training(
        how=TRAINED,
        weights_sha256=report.weights_sha256,
        start=f"{backbone['name']} {backbone['sha256'][:16]}" if backbone else "from scratch",
        selection=report.selection_rule,
        heads=report.heads,
        epochs=report.epochs,
        steps=report.steps,
        batch_size=recipe["batch_size"],
        optimizer=recipe["optimizer"],
        lr=recipe["lr"],
        schedule=recipe["schedule"],
        augmentations=tuple(recipe["augmentations"]),
        balance=wanted.balance,
        precision=wanted.precision,
    )


def _file(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise UbhpdError(f"Cannot read {path} ({error.strerror}): check the path.") from None


def inputs_of(run: Run, splits: Splits, request: BenchRequest) -> str:
    """Return the hash of everything a run starts from: the same again means the same result."""
    speed = None if run.how == FITTED else request.speed  # a geometric method has none
    test = [splits.resolution.hash, splits.test.fingerprint, run.protocol_id, splits.resolution.seed]
    made = made_from(run, splits, request) | ({} if run.crop is None else {"crop": run.crop})
    return canonical_hash({"ubhpd": __version__, "format": FORMAT, "test": test, "speed": speed, **made})


def finished(run: Run, inputs: str, out: Path) -> bool:
    """Whether an earlier run left a whole result made from the same inputs, and its predictions."""
    paths = Paths.of(run, out)
    try:
        found = read(paths.result)
        return found.inputs == inputs and sha256_of(paths.predictions) == found.predictions_sha256
    except (UbhpdError, OSError):
        return False


def result_of(run: Run, splits: Splits, test_manifest: Path, request: BenchRequest, progress: Progress) -> Result:
    """Make the weights of a run, predict and score, and return its result.

    Args:
        run: which.
        splits: of its protocol.
        test_manifest: the test split, see `write_test_manifest`.
        request: of the whole bench.
        progress: shows how far training and prediction are.

    Raises:
        UbhpdError: the training, prediction or scoring failed.
    """
    if run.onnx is not None:
        return _result_of_onnx(run, splits, test_manifest, request, progress)
    paths = Paths.of(run, request.out)
    found = weights_of(run, splits, request, progress)
    own = card(run.model)
    reads_landmarks = own.sees == "landmarks"
    predicted = predict_request(
        Request(
            found.path, paths.predictions, run.model, test_manifest, device=request.device, threads=request.workers,
            completed_by=splits.landmarks if reads_landmarks else None, crop=run.crop,
            engine=request.engine,
        ),
        progress,
    )  # fmt: skip
    _check_any(run, splits, predicted)
    declared = _training_set_of(run, splits, request, found.training)
    evaluation = evaluate(
        paths.predictions, request.data,
        scoring_options(splits, request.frames, request.protocol_seed, declared.source),
    )  # fmt: skip
    network = _of_network(found.path, request) if own.kind != "geometric" else _GEOMETRIC
    read_landmarks = landmark_kinds(splits.completed(splits.test_rows)) if reads_landmarks else None
    return Result(
        model=run.model, title=own.title, options=run.options, chosen=run.chosen, seed=_seed_of(run, found, request),
        training=found.training, predictions=paths.predictions.name,
        predictions_sha256=sha256_of(paths.predictions), inputs=inputs_of(run, splits, request),
        by=request.by, crop=run.crop, landmarks=read_landmarks,
        oracle=oracle_of(read_landmarks), **evaluated(evaluation, splits, found.training.how, declared), **network,
    )  # fmt: skip


def _check_any(run: Run, splits: Splits, predicted: PredictionReport) -> None:
    if not predicted.heads:
        why = predicted.problems[0][1]
        raise UbhpdError(
            f"{run.model} gave no prediction for any of the {splits.test.heads:,} test heads; the first: {why}"
        )


def _result_of_onnx(run: Run, splits: Splits, test_manifest: Path, request: BenchRequest, progress: Progress) -> Result:
    """Predict and score with the ONNX file of a run, as `result_of` does."""
    from ubhpd.inference.foreign import ForeignModel
    from ubhpd.inference.foreign import heads_per_second as foreign_heads_per_second
    from ubhpd.inference.network_predictor import device_title

    assert run.onnx is not None
    io = io_named(run.model, request)
    paths = Paths.of(run, request.out)
    predicted = predict_request(
        Request(None, paths.predictions, manifest=test_manifest, device=request.device, threads=request.workers,
                onnx=(run.onnx,), io=io, crop=run.crop),
        progress,
    )  # fmt: skip
    _check_any(run, splits, predicted)
    declared = declared_training(request.trained_on.get(run.model), splits.resolution.protocol)
    evaluation = evaluate(
        paths.predictions, request.data,
        scoring_options(splits, request.frames, request.protocol_seed, declared.source),
    )  # fmt: skip
    speed = None
    if request.speed is not None:
        model = ForeignModel(io_of(run.onnx, io), (run.onnx,), device=request.device, threads=request.workers)
        speed = Speed(foreign_heads_per_second(model, request.speed), request.speed, device_title(request.device))
    sha256, own = _file(run.onnx), io_of(run.onnx, io).input
    return Result(
        model=run.model, title=run.model, options=run.options, chosen={}, seed=None, parameters=None,
        training=Training(IMPORTED, sha256, f"{run.onnx.name} {sha256[:16]}", "not known", declared=declared.name),
        predictions=paths.predictions.name, predictions_sha256=sha256_of(paths.predictions),
        inputs=inputs_of(run, splits, request), by=request.by, crop=run.crop, speed=speed, device="", torch=None,
        input=Input(own.crop, own.size, own.colour, own.mean, own.std, (), 1), info=MethodInfo(),
        **evaluated(evaluation, splits, IMPORTED, declared),
    )  # fmt: skip


def _seed_of(run: Run, found: Weights, request: BenchRequest) -> int | None:
    """Return the seed of a run; of weights that ubhpd trained before the one of their training."""
    if run.how != IMPORTED or found.training.how != TRAINED:
        return run.seed
    seeds = {_whole(about.origin.get("seed")) for about in _own(request.weights[run.model])}
    return seeds.pop() if len(seeds) == 1 else None


def _training_set_of(run: Run, splits: Splits, request: BenchRequest, training: Training) -> Declared:
    """Return the training set of a run, whose counts weigh UBMAE."""
    own = splits.resolution.protocol
    if training.how == IMPORTED:
        return declared_training(request.trained_on.get(run.model), own)
    published, shipped = own.published.get(TRAIN), known_training_set(own)
    is_published = published is not None and shipped is not None and splits.train.heads == published.heads
    return Declared(shipped.name if shipped is not None and is_published else split_of(own.id), None)


_GEOMETRIC: dict[str, Any] = {"parameters": None, "input": None, "speed": None, "device": "cpu", "torch": None}


def _of_network(path: Path, request: BenchRequest) -> dict[str, Any]:
    """Return what only a network has: parameters, input recipe, speed, device, version of torch."""
    from ubhpd.inference.network_predictor import device_title, heads_per_second
    from ubhpd.models.model import Model

    model = Model.of_checkpoint(path)
    device = device_title(request.device)
    speed = None
    if request.speed is not None:
        speed = Speed(heads_per_second(model, request.device, request.speed), request.speed, device)
    return {
        "parameters": sum(p.numel() for p in model.network.parameters() if p.requires_grad),
        "input": Input(**asdict(model.recipe)),
        "speed": speed,
        "device": device,
        "torch": metadata.version("torch"),
    }


@dataclass(frozen=True)
class BenchReport:
    """Result files written now, those kept from before, and (what, why) of every run or protocol that failed."""

    written: tuple[Path, ...]
    kept: tuple[Path, ...]
    failed: tuple[tuple[str, str], ...]


def bench(request: BenchRequest, progress: Progress) -> BenchReport:
    """Do all runs of a request that are not done, write a result for each, and return what came of it.

    A run that fails is logged and does not keep the others from running. A protocol that the data has no heads for
    fails if the user named its id; a protocol that a short name stands for is logged and skipped, unless no other is
    left.

    Raises:
        UbhpdError: the request itself is wrong: see `runs_of`; no build, or no weights, where they should be.
    """
    with locked(request.out, is_file=True):
        return _bench(request, progress)


def _bench(request: BenchRequest, progress: Progress) -> BenchReport:
    waiting = runs_of(request)
    _check_files(request)
    splits, failed = _resolved(request)
    written: list[Path] = []
    kept: list[Path] = []
    with progress.bar("Runs", len(waiting)) as advance:
        for run in waiting:
            if run.protocol_id in splits:
                _one(run, splits[run.protocol_id], request, written, kept, failed)
            advance(1)
    return BenchReport(tuple(written), tuple(kept), tuple(failed))


def _one(
    run: Run, splits: Splits, request: BenchRequest, written: list[Path], kept: list[Path],
    failed: list[tuple[str, str]],
) -> None:  # fmt: skip
    """Do one run, and note what came of it."""
    path = Paths.of(run, request.out).result
    name = f"{run.protocol_id}/{run.name}"
    try:
        if finished(run, inputs_of(run, splits, request), request.out):
            kept.append(path)
            return
        _LOG.info(f"{name} ...")
        test = write_test_manifest(splits, request.data, request.out / run.protocol_id / "test")
        # Nested progress bars are not readable: each run logs lines instead.
        found = result_of(run, splits, test, request, Progress(show=False))
        result.write(found, path)
    except Exception as error:  # a night's other runs are worth more than one traceback
        sentence = str(error) if isinstance(error, UbhpdError) else disk_fault(error)
        reason = sentence or f"{type(error).__name__}: {error}"
        failed.append((name, reason))
        _LOG.error(f"{name} failed: {reason}")
        return
    written.append(path)
    mae = found.scores["mae"].value
    wanted, judged = found.test.heads, round(found.coverage * found.test.heads)
    of = "" if judged == wanted else f"{judged:,} of "
    _LOG.info(f"{name}: MAE {mae:.3f} degrees on {of}{wanted:,} heads" if mae is not None else f"{name}: no score")


def _check_files(request: BenchRequest) -> None:
    """Raise UbhpdError if there is no build, or a file of weights is not there: no run could do anything then."""
    BuildFolder(request.data).check()
    named = (*(path for files in request.weights.values() for path in files), request.train.backbone, request.frames,
             request.landmarks)  # fmt: skip
    for path in filter(None, named):
        is_word = (path == request.train.backbone and is_imagenet(path)) or path == request.landmarks == NO_LANDMARKS
        if not path.is_file() and not is_word:
            raise UbhpdError(f"There is no file {path}: check the path.")


def _resolved(request: BenchRequest) -> tuple[dict[str, Splits], list[tuple[str, str]]]:
    """Return both splits of every protocol there are heads for, and the protocols that failed."""
    found: dict[str, Splits] = {}
    failed: list[tuple[str, str]] = []
    passed_over: list[tuple[str, str]] = []
    for protocol_id, is_named in protocol_ids(request.protocols).items():
        frames = request.frames if protocol(protocol_id).needs_frames else None
        try:
            found[protocol_id] = splits_of(
                protocol_id,
                request.data,
                frames,
                request.protocol_seed,
                bool(request.weights) or bool(onnx_files(request.models)),
                request.landmarks,
            )
        except UbhpdError as error:
            (failed if is_named else passed_over).append((protocol_id, str(error)))
            _LOG.warning(f"{protocol_id} {'failed' if is_named else 'is passed over'}: {error}")
    return found, failed if found else failed + passed_over
