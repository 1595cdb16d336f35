"""What sources of heads give to a model: batches in order, and the heads that could not be read, each with why.

The prediction file grows batch by batch; an interrupted run resumes after the last finished batch.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TextIO, TypeVar

import numpy as np

from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import locked, write_json
from ubhpd.core.progress import Progress
from ubhpd.core.rotation import euler_from_matrix, matrix_from_euler
from ubhpd.core.text import csv_lines, csv_text
from ubhpd.core.typing import AnyArray, FloatArray, Image
from ubhpd.nn.inputs import Heads

BATCH_HEADS = 64

Item = TypeVar("Item")
Result = TypeVar("Result")


def angles_and_rotations(pose: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return canonical angles (n, 3) in degrees and rotations (n, 3, 3) of either of them."""
    if pose.ndim == 3:
        return euler_from_matrix(pose), pose
    return pose, matrix_from_euler(pose)


@dataclass(frozen=True)
class Speed:
    """What makes a network faster; the angles stay the same but for rounding.

    half: 16-bit floats, bfloat16 on a CPU. channels_last: memory order of the images. compiled: torch.compile.
    """

    half: bool = False
    channels_last: bool = False
    compiled: bool = False


class Drawable(NamedTuple):
    """Where a head is in its image, for drawing: the image (height, width, 3) BGR, and its box in pixels."""

    image: Image
    box_xyxy: tuple[float, float, float, float]


class Batch(NamedTuple):
    """Some heads, in order.

    sample_id: of those that can be predicted. inputs: uint8 crops (n, size, size, 3) or sequences of them (n, frames,
    size, size, 3), landmarks (n, 68, 2) from -0.5 to 0.5 in the crop, or `Heads` for a geometric method. extra: values
    of the source's `extra_columns`, one tuple per head. problems: (sample_id, reason) of heads that cannot. drawables:
    the images, if requested.
    """

    sample_id: list[str]
    inputs: AnyArray | Heads
    extra: list[tuple[Any, ...]]
    problems: list[tuple[str, str]]
    drawables: list[Drawable]


class HeadSource(Protocol):
    """Where heads come from: a manifest, a folder, a video, a camera.

    extra_columns: written to the prediction file beside the pose. identity: what a file begun must have been made
    from for resuming it. passed_over: files that are no images, by reason.
    """

    extra_columns: tuple[str, ...]
    identity: dict[str, Any]
    passed_over: Mapping[str, int]

    def total(self) -> int:
        """Return the number of heads or images to come, 0 if that is not known."""

    def batches(self, done: Collection[str], draws: bool) -> Iterator[Batch]:
        """Yield all heads but those done; `draws`: with their images."""


def in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield work(item) in the order of the items, computed by `threads` threads that run a little ahead."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def stacked(crops: list[Image], shape: tuple[int, ...]) -> Image:
    """Return crops of `shape` as one array (n, *shape), also of none at all."""
    return np.stack(crops) if crops else np.empty((0, *shape), dtype=np.uint8)


Predictor = Callable[[Any], tuple[FloatArray, FloatArray]]
Draw = Callable[[str, Drawable, FloatArray], None]

ANGLES = ("yaw", "pitch", "roll")
MATRIX = tuple(f"r{i}{j}" for i in range(3) for j in range(3))


@dataclass(frozen=True)
class PredictionReport:
    """What a prediction file holds: heads predicted, of which `kept` by an earlier run, and those that were not.

    problems: (sample_id, reason), also written to `problems_file`. images: how many images the source had, 0 where that
    is not known. passed_over: files beside them that are no images, by reason. drawn: the video with the poses.
    """

    out: str
    heads: int
    kept: int
    problems: tuple[tuple[str, str], ...]
    problems_file: str | None
    images: int = 0
    passed_over: Mapping[str, int] = field(default_factory=dict)
    drawn: str | None = None


@dataclass(frozen=True)
class _Files:
    """The file, and what stands beside it while it grows."""

    out: Path

    @property
    def part(self) -> Path:
        return self.out.with_name(f".{self.out.name}.part")

    @property
    def identity(self) -> Path:
        return self.out.with_name(f".{self.out.name}.part.json")

    @property
    def failed(self) -> Path:
        return self.out.with_name(f".{self.out.name}.problems.part")

    @property
    def problems(self) -> Path:
        return self.out.with_name(f"{self.out.stem}.problems.csv")

    @property
    def about(self) -> Path:
        return self.out.with_name(f"{self.out.stem}.json")


def predict(source: HeadSource, predictor: Predictor, out: Path, about: dict[str, Any], progress: Progress, *,
            form: str = "angles", draw: Draw | None = None) -> PredictionReport:  # fmt: skip
    """Write the prediction file of all heads of a source: sample_id, the pose, and the source's own columns.

    Args:
        source: where heads come from.
        predictor: gives angles (n, 3) in degrees and rotations (n, 3, 3) of a batch's inputs, NaN where it cannot.
        out: the file, CSV. Beside it come OUT.json, `about` and counts, and OUT.problems.csv with heads left out.
        about: the model and its weights; a file begun with others is begun anew.
        progress: shows how far it is.
        form: "angles" writes yaw, pitch, roll; "matrix" r00 to r22.
        draw: called with sample_id, image and rotation of each predicted head.

    Raises:
        UbhpdError: the file cannot be written.
    """
    files = _Files(out)
    columns = ("sample_id", *(ANGLES if form == "angles" else MATRIX), *source.extra_columns)
    identity = json.loads(json.dumps({**about, **source.identity, "columns": columns}))
    try:
        with locked(out, is_file=True):
            out.parent.mkdir(parents=True, exist_ok=True)
            done = _begin(files, identity, columns)
            with ExitStack() as stack:
                rows = stack.enter_context(files.part.open("a", encoding="utf-8", newline=""))
                failed = stack.enter_context(files.failed.open("a", encoding="utf-8", newline=""))
                advance = stack.enter_context(progress.bar("Predicting", source.total()))
                advance(len(done))
                for batch in source.batches(done, draw is not None):
                    _write(batch, predictor, form, draw, rows, failed)
                    advance(len(batch.sample_id) + len(batch.problems))
            place = getattr(source, "manifest_path", None)  # where `ubhpd score` finds the truth
            known: dict[str, Any] = {"manifest_path": place} if place else {}
            if source.passed_over:
                known["passed_over"] = dict(source.passed_over)
            report = _finish(files, {**identity, **known}, len(done))
            return replace(report, images=source.total(), passed_over=dict(source.passed_over))
    except OSError as error:
        raise UbhpdError(
            f"Cannot write {error.filename or out} ({error.strerror}): make room or name another --out; "
            "predictions already made are kept, and the same command resumes from them."
        ) from None


def _begin(files: _Files, identity: dict[str, Any], columns: tuple[str, ...]) -> set[str]:
    """Make the growing files, or take up those of an earlier run of the same; return the heads that are done."""
    try:
        is_same = json.loads(files.identity.read_text(encoding="utf-8")) == identity
    except (OSError, ValueError):
        is_same = False
    if is_same and files.part.exists() and files.failed.exists():
        return _whole_lines(files.part, len(columns)) | _whole_lines(files.failed, 2)
    files.identity.unlink(missing_ok=True)
    files.part.write_text(_line(columns), encoding="utf-8", newline="")
    files.failed.write_text(_line(("sample_id", "reason")), encoding="utf-8", newline="")
    write_json(identity, files.identity)
    return set()


def _whole_lines(path: Path, width: int) -> set[str]:
    """Return the ids in a file, cut back to its last whole line, for a kill may have come in the middle of one."""
    data = path.read_bytes()
    data = data[: data.rfind(b"\n") + 1]
    os.truncate(path, len(data))
    rows = list(csv.reader(io.StringIO(data.decode("utf-8"), newline="")))[1:]
    return {_of_cell(row[0]) for row in rows if len(row) == width}


def _write(batch: Batch, predictor: Predictor, form: str, draw: Draw | None, rows: TextIO, failed: TextIO) -> None:
    angles, rotations = predictor(batch.inputs)
    values = angles if form == "angles" else rotations.reshape(-1, 9)
    finite = np.asarray(np.isfinite(values).all(axis=1))
    problems = list(batch.problems)
    for at, sample_id in enumerate(batch.sample_id):
        if not finite[at]:
            problems.append((sample_id, "the model gives no finite pose for it"))
            continue
        rows.write(_line((_cell(sample_id), *(f"{v:.6f}" for v in values[at]), *batch.extra[at])))
        if draw is not None:
            draw(sample_id, batch.drawables[at], rotations[at])
    failed.writelines(_line((_cell(sample_id), reason)) for sample_id, reason in problems)
    rows.flush()
    failed.flush()


def _finish(files: _Files, identity: dict[str, Any], kept: int) -> PredictionReport:
    with files.failed.open(encoding="utf-8", newline="") as failed:
        problems = tuple((_of_cell(row[0]), row[1]) for row in list(csv.reader(failed))[1:])
    with files.part.open(encoding="utf-8", newline="") as rows:
        heads = sum(1 for _ in csv.reader(rows)) - 1
    write_json({**identity, "judged": heads, "left_out": len(problems)}, files.about)
    if problems:
        files.failed.replace(files.problems)
    else:
        files.failed.unlink()
        files.problems.unlink(missing_ok=True)
    files.part.replace(files.out)
    files.identity.unlink(missing_ok=True)
    return PredictionReport(str(files.out), heads, kept, problems, str(files.problems) if problems else None)


def _cell(sample_id: str) -> str:
    """Return an id that no spreadsheet takes for a formula: `./` before a file name that begins like one."""
    return sample_id if csv_text(sample_id) == sample_id else f"./{sample_id}"


def _of_cell(cell: str) -> str:
    return cell[2:] if cell.startswith("./") and _cell(cell[2:]) == cell else cell


def _line(values: tuple[Any, ...]) -> str:
    return csv_lines([values])
