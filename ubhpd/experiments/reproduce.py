"""The tables and figures of the five papers, each by one command: `ubhpd reproduce osgg/table-6`.

`ubhpd.reports.paper_tables` says what they are. `ubhpd bench` does the work: runs that tables share are done once, and
everything resumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ubhpd.core.bins import ANGLES
from ubhpd.core.errors import UbhpdError, shortened
from ubhpd.core.files import replacing, write_json
from ubhpd.core.progress import Progress
from ubhpd.core.registry import nearest, pick
from ubhpd.core.text import rendered, table
from ubhpd.evaluation.printed_results import Printed
from ubhpd.experiments.benchmark import Paths, bench
from ubhpd.experiments.plan import BenchRequest, HowToTrain, runs_of
from ubhpd.leaderboards.result import Result, read
from ubhpd.manifest import BuildFolder
from ubhpd.models.catalogue import card, configured, module_of
from ubhpd.reports.paper_tables import OF_DATA, Row, experiments, needs, rows_of

if TYPE_CHECKING:
    import pandas as pd

SCALES = ("full", "small", "smoke")
_SMALL_STEPS = 2000
_SCORES = (*((a, f"mae_{a}") for a in ANGLES), ("mae", "mae"))  # printed name, score
_SMOKE = HowToTrain(steps=2, batch_size=4, validation=0.0, select="last")


@dataclass
class Outcome:
    """A row after it was run: scores by name, each (value, low, high), the mean over seeds; or why there are none."""

    method: str
    train: str
    test: str
    printed: dict[str, float | None]
    scores: dict[str, tuple[float, float | None, float | None]] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    note: str = ""
    why: str = ""


@dataclass(frozen=True)
class ReproduceRequest:
    """What to reproduce.

    id: paper/experiment. data: a build's folder. out: folder of results, runs and their weights, which experiments
    share. scale: one of SCALES. seeds: a run for each; None for those of the scale. rows: only these methods. device,
    workers: as of bench. backbone: published weights that networks begin with.
    """

    id: str
    data: Path
    out: Path
    scale: str = "full"
    seeds: tuple[int, ...] | None = None
    rows: tuple[str, ...] = ()
    device: str = "auto"
    workers: int = 0
    backbone: Path | None = None


@dataclass
class Reproduction:
    """What came of an experiment: rows, sentences on what the paper concludes, and files written."""

    id: str
    paper: str
    title: str
    conclusion: str
    scale: str
    seeds: tuple[int, ...]
    rows: list[Outcome] = field(default_factory=list)
    verdict: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def table(self) -> pd.DataFrame:
        """Return a line per row and angle, degrees: printed and reproduced MAE, and the ends of the 95 % interval."""
        import pandas as pd

        lines = [
            {
                "method": row.method, "train": row.train, "test": row.test, "angle": name, "printed": row.printed[name],
                **dict(zip(("reproduced", "low", "high"), row.scores.get(score, (None,) * 3), strict=True)),
                "why": row.why,
            }
            for row in self.rows
            for name, score in _SCORES
        ]  # fmt: skip
        columns = ["method", "train", "test", "angle", "printed", "reproduced", "low", "high", "why"]
        frame: pd.DataFrame = pd.DataFrame(lines, columns=columns)
        frame[columns[4:8]] = frame[columns[4:8]].astype(float)
        return frame


def reproduce(request: ReproduceRequest, progress: Progress | None = None) -> Reproduction:
    """Run an experiment, write its table or figure below OUT, and return what came of it.

    Raises:
        UbhpdError: an unknown experiment, scale or row; one that cannot be run; no build, or one without its datasets.
    """
    progress = progress or Progress(show=False)
    name, (paper, experiment) = pick(experiments(), request.id, "table or figure")
    scale = pick({s: s for s in SCALES}, request.scale, "scale")[0]
    request = replace(request, id=name, scale=scale)
    if experiment.why:
        raise UbhpdError(f"{name} cannot be run: {experiment.why}.")
    seeds = request.seeds or ((0, 1, 2) if scale == "full" else (0,))
    made = Reproduction(name, paper.title, experiment.title, experiment.conclusion, scale, seeds)
    build = BuildFolder(request.data)
    build.check()
    rows = _asked_for(rows_of(paper, experiment), request.rows, name)
    folder = request.out / "reproduced" / name.replace("/", "-")
    runs: dict[tuple[str, str, str], Path] = {}
    if experiment.kind not in OF_DATA:
        _check_data(name, rows, build)
        runs = _run(rows, request, seeds, made, progress)
    elif experiment.dataset and experiment.dataset not in build.roots:
        raise UbhpdError(f"{name} needs {experiment.dataset}, which {build.folder} does not hold: build it, too.")
    if experiment.kind in ("table", "bars"):
        made.verdict = _verdict(made.rows)
    if experiment.kind != "table":
        from ubhpd.experiments.paper_figures import draw

        made.files += draw(experiment, made, runs, request.data, folder.with_suffix(".png"), request.device)
    _write(made, folder)
    return made


def _asked_for(rows: list[Row], wanted: Sequence[str], name: str) -> list[Row]:
    known = {row.method for row in rows}
    for method in wanted:
        if method not in known:
            near = nearest(method, known)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(sorted(known))}."
            raise UbhpdError(f"{name} has no row {shortened(method)}: {hint}")
    return [row for row in rows if not wanted or row.method in wanted]


def _check_data(name: str, rows: Sequence[Row], build: BuildFolder) -> None:
    runnable = [row for row in rows if not row.why]
    if not runnable:
        first = f" ({rows[0].method}: {rows[0].why})" if rows else ""
        raise UbhpdError(f"No row of {name} can be run{first}.")
    present = set(build.roots)
    if all(set(needs([row])) - present for row in runnable):
        absent = sorted(set(needs(runnable)) - present)
        raise UbhpdError(f"{name} needs {', '.join(absent)}, which {build.folder} does not hold: build them, too.")


def _run(
    rows: Sequence[Row], request: ReproduceRequest, seeds: tuple[int, ...], made: Reproduction, progress: Progress
) -> dict[tuple[str, str, str], Path]:
    """Run what can be run, fill in the rows, and return the first result file of each row."""
    present = set(BuildFolder(request.data).roots)
    files: dict[tuple[str, str, str], Path] = {}
    with progress.bar(request.id, len(rows)) as advance:
        for row in rows:
            outcome = Outcome(row.method, row.train, row.test, _printed(row.printed), note=row.spec.note, why=row.why)
            made.rows.append(outcome)
            if not row.why and (absent := sorted(set(needs([row])) - present)):
                outcome.why = f"the build does not hold {', '.join(absent)}"
            if not outcome.why:
                _run_row(row, request, seeds, outcome, made, files)
            advance(1)
    return files


def _run_row(
    row: Row, request: ReproduceRequest, seeds: tuple[int, ...], outcome: Outcome, made: Reproduction,
    files: dict[tuple[str, str, str], Path],
) -> None:  # fmt: skip
    own = _bench_request(row, request, seeds)
    report = bench(own, Progress(show=False))
    made.failed += list(report.failed)
    found: list[Result] = []
    for run in runs_of(own):
        path = Paths.of(run, own.out).result
        if path in (*report.written, *report.kept):
            found.append(read(path))
            files.setdefault((row.method, row.train, row.test), path)
            outcome.runs.append(str(path.relative_to(request.out)))
    if not found:
        outcome.why = report.failed[0][1] if report.failed else "no run gave a result"
        return
    for score in (*(f"mae_{a}" for a in ANGLES), "mae", "balanced_mae", "ubmae", "ubmae_printed"):
        values = [own.scores[score] for own in found if score in own.scores and own.scores[score].value is not None]
        if values:
            lows, highs = (
                [v for v in ends if v is not None] for ends in zip(*((s.low, s.high) for s in values), strict=True)
            )
            outcome.scores[score] = (
                float(np.mean([s.value for s in values if s.value is not None])),
                min(lows) if lows else None, max(highs) if highs else None,
            )  # fmt: skip


def _bench_request(row: Row, request: ReproduceRequest, seeds: tuple[int, ...]) -> BenchRequest:
    assert row.protocol is not None
    smoke = request.scale == "smoke"
    chosen = {**row.spec.options, **(row.spec.smoke if smoke else {})}
    how = {"full": HowToTrain(as_paper=True), "small": HowToTrain(as_paper=True, steps=_SMALL_STEPS), "smoke": _SMOKE}
    train = replace(how[request.scale], backbone=None if smoke else request.backbone)
    if smoke and (terms := _landmark_terms(row.model, chosen)):
        train = replace(train, allow_unsupervised=terms)
    options = {row.model: chosen} if chosen else {}
    if smoke and row.spec.teacher_smoke:
        options |= dict.fromkeys(row.spec.teachers, row.spec.teacher_smoke)
    return BenchRequest(
        models=(row.model,), protocols=(row.protocol,), data=request.data, out=request.out / "runs", seeds=seeds,
        options=options, teachers={row.model: row.spec.teachers} if row.spec.teachers else {}, train=train,
        device=request.device, workers=request.workers,
    )  # fmt: skip


def _landmark_terms(model: str, chosen: Mapping[str, str]) -> tuple[str, ...]:
    """Return the terms of a model's loss that need landmarks, which a build for a smoke test may lack."""
    terms_of = getattr(module_of(card(model)), "landmark_terms", None)
    return tuple(terms_of(configured(model, chosen)[1])) if terms_of is not None else ()


def _printed(row: Printed | None) -> dict[str, float | None]:
    names = (*ANGLES, "mae", "ubmae")
    return dict.fromkeys(names) if row is None else {name: getattr(row, name) for name in names}


def _verdict(rows: Sequence[Outcome]) -> list[str]:
    """Return, for each pair of sets, whether the best row and the order are those printed."""
    from scipy.stats import kendalltau

    sentences = []
    for train, test in dict.fromkeys((row.train, row.test) for row in rows):
        own = [r for r in rows if (r.train, r.test) == (train, test) and "mae" in r.scores]
        if len(own) < 2:
            sentences.append(f"{train} to {test}: {len(own)} of the rows ran, so there is no order to compare.")
            continue
        best = min(own, key=lambda r: r.scores["mae"][0])
        printed = [r for r in own if r.printed["mae"] is not None]
        if len(printed) < 2:
            sentences.append(
                f"{train} to {test}: the lowest MAE is that of {best.method}; nothing is printed to compare."
            )
            continue
        first = min(printed, key=lambda r: r.printed["mae"] or 0.0)
        tau = float(kendalltau([r.printed["mae"] for r in printed], [r.scores["mae"][0] for r in printed]).statistic)
        what = "the same row is the best" if best is first else f"{best.method} is the best, printed {first.method}"
        if best is not first and _overlap(best.scores["mae"], first.scores["mae"]):
            what += ", and their intervals overlap"
        order = "" if np.isnan(tau) else f"; Kendall's tau of the order {tau:.2f}"
        sentences.append(f"{train} to {test}: of {len(printed)} rows {what}{order}.")
    return sentences


def _overlap(a: tuple[float, float | None, float | None], b: tuple[float, float | None, float | None]) -> bool:
    if None in a or None in b:
        return False
    return bool(a[1] <= b[2] and b[1] <= a[2])  # type: ignore[operator]


# What is written


def _write(made: Reproduction, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    write_json(asdict(made), place.with_suffix(".json"))
    with replacing(place.with_suffix(".md")) as part:
        part.write_text(rendered("reproduced.md", made=made, lines=_lines(made)), encoding="utf-8")
    made.files += [str(place.with_suffix(suffix)) for suffix in (".md", ".json")]


def _lines(made: Reproduction) -> list[list[str]]:
    """Return the cells of the table of a reproduction, the header first."""
    header = ["method", "train", "test"]
    header += [f"{name} {what}" for name in ("yaw", "pitch", "roll", "MAE") for what in ("printed", "here")]
    lines = [[*header, "95 % interval", "note"]]
    for row in made.rows:
        cells = [row.method, row.train, row.test]
        for name, score in _SCORES:
            cells += [_number(row.printed[name]), _number(row.scores.get(score, (None,))[0])]
        _, low, high = row.scores.get("mae", (None, None, None))
        interval = f"{low:.2f} to {high:.2f}" if low is not None and high is not None else ""
        lines.append([*cells, interval, "; ".join(filter(None, (row.note, row.why)))])
    return lines


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def reproduction_text(made: Reproduction) -> str:
    """Return a reproduction as text for a terminal."""
    lines = [f"{made.id}: {made.title} ({made.paper}), scale {made.scale}"]
    if made.rows:
        lines += ["", table(_lines(made))]
    if made.conclusion:
        lines += ["", f"The paper concludes: {made.conclusion}"]
    lines += made.verdict
    lines += [f"{name} failed: {reason}" for name, reason in made.failed]
    return "\n".join([*lines, "Wrote " + ", ".join(made.files)])
