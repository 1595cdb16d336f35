"""`ubhpd bench` as a function: every model on every protocol with every seed, one result file each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ubhpd.errors import UbhpdError, disk_fault
from ubhpd.leaderboard import result, runs
from ubhpd.leaderboard.plan import BenchRequest, Run, protocol_ids, runs_of
from ubhpd.leaderboard.sides import Sides, sides_of, write_test_manifest
from ubhpd.progress import Progress
from ubhpd.protocol.protocols import protocol
from ubhpd.training.heads import check_build

Say = Callable[[str], None]


@dataclass(frozen=True)
class BenchReport:
    """Result files written now, those kept from before, and (what, why) of every run or protocol that failed."""

    written: tuple[Path, ...]
    kept: tuple[Path, ...]
    failed: tuple[tuple[str, str], ...]


def bench(request: BenchRequest, progress: Progress, say: Say) -> BenchReport:
    """Do all runs of a request that are not done, write a result for each, and return what came of it.

    A run that fails is told and does not keep the others from running. A protocol that the data has no heads for
    fails if it was asked for by its id; out of a short name it is told and passed over, unless no other is left.

    Raises:
        UbhpdError: the request itself is wrong: see `runs_of`; no build, or no weights, where they should be.
    """
    waiting = runs_of(request)
    _check_files(request)
    sides, failed = _resolved(request, say)
    written: list[Path] = []
    kept: list[Path] = []
    with progress.bar("Runs", len(waiting)) as advance:
        for run in waiting:
            if run.protocol_id in sides:
                _one(run, sides[run.protocol_id], request, say, written, kept, failed)
            advance(1)
    return BenchReport(tuple(written), tuple(kept), tuple(failed))


def _one(
    run: Run, sides: Sides, request: BenchRequest, say: Say, written: list[Path], kept: list[Path],
    failed: list[tuple[str, str]],
) -> None:  # fmt: skip
    """Do one run, and note what came of it."""
    path = runs.Paths.of(run, request.out).result
    name = f"{run.protocol_id}/{run.name}"
    try:
        if runs.finished(run, runs.inputs_of(run, sides, request), request.out):
            kept.append(path)
            return
        say(f"{name} ...")
        test = write_test_manifest(sides, request.data, request.out / run.protocol_id / "test")
        # Bars inside bars are not to be read: what a run is doing is told line by line.
        found = runs.result_of(run, sides, test, request, Progress(show=False), say)
        result.write(found, path)
    except Exception as error:  # a night's other runs are worth more than one traceback
        sentence = str(error) if isinstance(error, UbhpdError) else disk_fault(error)
        reason = sentence or f"{type(error).__name__}: {error}"
        failed.append((name, reason))
        say(f"{name} failed: {reason}")
        return
    written.append(path)
    mae = found.scores["mae"].value
    wanted, judged = found.test.heads, round(found.coverage * found.test.heads)
    of = "" if judged == wanted else f"{judged:,} of "
    say(f"{name}: MAE {mae:.3f} degrees on {of}{wanted:,} heads" if mae is not None else f"{name}: no score")


def _check_files(request: BenchRequest) -> None:
    """Raise UbhpdError if there is no build, or a file of weights is not there: no run could do anything then."""
    check_build(request.data)
    named = (*(path for files in request.weights.values() for path in files), request.train.backbone, request.frames)
    for path in filter(None, named):
        if not path.is_file():
            raise UbhpdError(f"There is no file {path}: check the path.")


def _resolved(request: BenchRequest, say: Say) -> tuple[dict[str, Sides], list[tuple[str, str]]]:
    """Return both sides of every protocol there are heads for, and the protocols that failed."""
    found: dict[str, Sides] = {}
    failed: list[tuple[str, str]] = []
    passed_over: list[tuple[str, str]] = []
    for protocol_id, is_named in protocol_ids(request.protocols).items():
        frames = request.frames if protocol(protocol_id).needs_frames else None
        try:
            found[protocol_id] = sides_of(protocol_id, request.data, frames, request.protocol_seed)
        except UbhpdError as error:
            (failed if is_named else passed_over).append((protocol_id, str(error)))
            say(f"{protocol_id} {'failed' if is_named else 'is passed over'}: {error}")
    return found, failed if found else failed + passed_over
