"""One run from weights to result: predict the test split of a protocol, score it, and say everything about it.

`ubhpd bench` as a function: every model on every protocol with every seed, one result file each.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ubhpd import __version__
from ubhpd.core.bins import ANGLES
from ubhpd.core.errors import UbhpdError, disk_fault
from ubhpd.core.files import locked, sha256_of
from ubhpd.core.progress import Progress
from ubhpd.evaluation.evaluate import Evaluation, EvaluationOptions, evaluate
from ubhpd.evaluation.intervals import BootstrapOptions
from ubhpd.evaluation.pairing import angles
from ubhpd.evaluation.scoring import Pairs, bin_table, score
from ubhpd.experiments import entries
from ubhpd.experiments.plan import (
    BenchRequest,
    Run,
    Splits,
    protocol_ids,
    resampled,
    runs_of,
    splits_of,
    write_test_manifest,
)
from ubhpd.inference.predicting import Request, predict_request
from ubhpd.leaderboards import result
from ubhpd.leaderboards.reported import printed_pair
from ubhpd.leaderboards.result import (
    FITTED,
    FORMAT,
    Baseline,
    Input,
    PerBin,
    ProtocolUsed,
    Resampling,
    Result,
    Score,
    Speed,
    canonical_hash,
    read,
)
from ubhpd.manifest import BuildFolder
from ubhpd.models.catalogue import card
from ubhpd.protocols.resolve import protocol

_LOG = logging.getLogger(__name__)

INTERVALS = BootstrapOptions()


class Paths(NamedTuple):
    """Where a run leaves what: predictions and result lie side by side."""

    result: Path
    predictions: Path

    @classmethod
    def of(cls, run: Run, out: Path) -> Paths:
        """Return the paths of a run below `out`."""
        folder = out / run.protocol_id
        return cls(folder / f"{run.name}.json", folder / f"{run.name}.predictions.csv")


def inputs_of(run: Run, splits: Splits, request: BenchRequest) -> str:
    """Return the hash of everything a run starts from: the same again means the same result."""
    speed = None if run.how == FITTED else request.speed  # a geometric method has none
    test = [splits.resolution.hash, splits.test.fingerprint, run.protocol_id, splits.resolution.seed]
    made = entries.made_from(run, splits, request)
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
    paths = Paths.of(run, request.out)
    found = entries.weights_of(run, splits, request, progress)
    predicted = predict_request(
        Request(
            found.path, paths.predictions, run.model, test_manifest, device=request.device, threads=request.workers
        ),
        progress,
    )
    if not predicted.heads:
        why = predicted.problems[0][1]
        raise UbhpdError(
            f"{run.model} gave no prediction for any of the {splits.test.heads:,} test heads; the first: {why}"
        )
    pair = printed_pair(run.protocol_id)
    options = EvaluationOptions(
        bootstrap=BootstrapOptions(INTERVALS.rounds, INTERVALS.level, resampled(splits.test_rows), INTERVALS.seed),
        pair=pair,
        protocol=run.protocol_id,
        frames=str(request.frames) if splits.resolution.protocol.needs_frames else None,
        protocol_seed=request.protocol_seed,
    )
    evaluation = evaluate(paths.predictions, request.data, options)
    own = card(run.model)
    network = _of_network(found.path, request) if own.kind != "geometric" else _GEOMETRIC
    resolution = splits.resolution
    return Result(
        model=run.model, title=own.title, options=run.options, chosen=run.chosen,
        protocol=ProtocolUsed(
            resolution.protocol.id, resolution.protocol.version, resolution.protocol.definition_hash,
            resolution.hash, resolution.seed, resolution.warnings,
        ),
        train=splits.train, test=splits.test, seed=run.seed, training=found.training,
        coverage=evaluation.result["coverage"], scores=_scores(evaluation), resampling=_resampling(evaluation),
        bins=_bins(evaluation), floor=_floor(evaluation, splits), printed_pair=pair,
        predictions=paths.predictions.name,
        predictions_sha256=sha256_of(paths.predictions),
        inputs=inputs_of(run, splits, request), **network,
    )  # fmt: skip


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


def _scores(evaluation: Evaluation) -> dict[str, Score]:
    own = evaluation.result["scores"].items()
    return {name: Score(s["value"], s["unit"], s.get("low"), s.get("high")) for name, s in own}


def _resampling(evaluation: Evaluation) -> Resampling:
    o = evaluation.result["options"]["bootstrap"]
    return Resampling(o["over"], evaluation.result["groups"], o["rounds"], o["level"], o["seed"])


def _bins(evaluation: Evaluation) -> dict[str, PerBin]:
    tables = evaluation.result["bins"]
    return {a: PerBin(*(tuple(tables[a][k]) for k in ("n", "error", "weight"))) for a in ANGLES}


def _floor(evaluation: Evaluation, splits: Splits) -> Baseline:
    """Return what the mean pose of the training split scores on the very heads that were scored."""
    true = evaluation.paired.pairs.take(evaluation.kept)
    answer = np.broadcast_to(angles(splits.train_rows).mean(axis=0), true.true_deg.shape)
    known = evaluation.scored.statistics
    constant = score(
        Pairs(answer, true.true_deg, None, true.true_rotation),
        source_counts=known.get("source_counts"),
        printed_k=known.get("printed_k"),
    )
    error = bin_table(constant)["error"]
    return Baseline(
        {k: _finite(v) for k, v in constant.scores.items()},
        {a: tuple(map(_finite, own)) for a, own in zip(ANGLES, error, strict=True)},
    )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


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
    named = (*(path for files in request.weights.values() for path in files), request.train.backbone, request.frames)
    for path in filter(None, named):
        if not path.is_file():
            raise UbhpdError(f"There is no file {path}: check the path.")


def _resolved(request: BenchRequest) -> tuple[dict[str, Splits], list[tuple[str, str]]]:
    """Return both splits of every protocol there are heads for, and the protocols that failed."""
    found: dict[str, Splits] = {}
    failed: list[tuple[str, str]] = []
    passed_over: list[tuple[str, str]] = []
    for protocol_id, is_named in protocol_ids(request.protocols).items():
        frames = request.frames if protocol(protocol_id).needs_frames else None
        try:
            found[protocol_id] = splits_of(protocol_id, request.data, frames, request.protocol_seed)
        except UbhpdError as error:
            (failed if is_named else passed_over).append((protocol_id, str(error)))
            _LOG.warning(f"{protocol_id} {'failed' if is_named else 'is passed over'}: {error}")
    return found, failed if found else failed + passed_over
