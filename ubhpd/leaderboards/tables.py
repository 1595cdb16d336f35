"""What the tables of the leaderboard hold, and the tables as Markdown, LaTeX, CSV and JSON.

The columns with their meanings, the cells of each kind of row, and the sentences around a table: its heads and warnings
about them, how methods are ranked, footnotes of reported rows. The page uses all of these, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import Any, NamedTuple

from ubhpd import __version__
from ubhpd.core.bins import ANGLES
from ubhpd.core.text import csv_lines, rendered
from ubhpd.leaderboards.reported import COUNTERPARTS, Reported
from ubhpd.leaderboards.result import FITTED, SUBMITTED, TRAINED, MethodInfo, Result, Split, Training
from ubhpd.leaderboards.standings import (
    BY_INTERVAL,
    EVIDENCE,
    EVIDENCE_MEANING,
    METRICS,
    PAIRED,
    TIED,
    Method,
    Place,
    Standing,
    Value,
    percent,
)

UNKNOWN = "–"
KIND = "ubhpd-leaderboard"


class Column(NamedTuple):
    """A column: key, heading, whether it holds numbers, what it means, and the page that explains it."""

    key: str
    title: str
    is_number: bool
    meaning: str
    page: str


class Cell(NamedTuple):
    """A cell: its text, a second line in small print, and what to sort by (None comes last)."""

    text: str
    small: str = ""
    value: float | str | None = None


SCORES: tuple[Column, ...] = (
    Column("balanced_mae", "Balanced MAE", True, "mean of the errors of all bins of 12 degrees that hold a head: rare "
           "poses count as much as common ones", "metrics/balanced.md"),
    Column("mae", "MAE", True, "mean of the three mean absolute errors", "metrics/mae.md"),
    Column("mae_yaw", "Yaw", True, "mean absolute error of yaw", "metrics/mae.md"),
    Column("mae_pitch", "Pitch", True, "mean absolute error of pitch", "metrics/mae.md"),
    Column("mae_roll", "Roll", True, "mean absolute error of roll", "metrics/mae.md"),
    Column("ubmae", "UBMAE", True, "equation 14 of OsGG-Net as written, error binned, weighted by the density of test "
           "over training heads; in small print the training set whose heads are counted, and the share of the test "
           "heads that is left out, because their bins hold no training head", "metrics/ubmae.md"),
    Column("ubmae_printed", "UBMAE printed", True, "the rule behind the UBMAE values that OsGG-Net prints; not "
           "equation 14", "metrics/ubmae_printed.md"),
    Column("geodesic", "Geodesic", True, "mean angle of the rotation between prediction and truth",
           "metrics/geodesic.md"),
    Column("maev", "MAEV", True, "mean angle between the axes of prediction and truth", "metrics/maev.md"),
)  # fmt: skip
COLUMNS: tuple[Column, ...] = (
    Column("rank", "#", True, "rank by the metric of the order; = where the difference from the first is not "
           "significant; empty where a method is not ranked", "leaderboard.md"),
    Column("model", "Method", False, "name, as in ubhpd models with the options that were chosen, or as submitted; the "
           "reason where a method is not ranked", "models.md"),
    Column("evidence", "Evidence", False, "; ".join(f"{EVIDENCE[k]}: {t}" for k, t in EVIDENCE_MEANING.items()),
           "leaderboard.md"),
    *SCORES,
    Column("stress", "Stress", True, "mean rise of the error over a fixed, named set of perturbations", "submit.md"),
    Column("printed", "Reported", True, "MAE that a paper reports for this method on these heads", "leaderboard.md"),
    Column("trained_on", "Trained on", False, "training set, of weights and predictions of others as declared",
           "leaderboard.md"),
    Column("year", "Year", True, "year of the paper", "models.md"),
    Column("parameters", "Parameters", True, "trainable parameters, in millions", "models.md"),
    Column("speed", "Heads/s", True, "heads predicted per second, in batches of the size and on the device named",
           "leaderboard.md"),
    Column("crop", "Input", False, "crop recipe, size in pixels, colour order", "models.md"),
    Column("training", "Training", False, "how the weights were made, and what training started from",
           "leaderboard.md"),
    Column("selection", "Selection", False, "which checkpoint of the training was kept",
           "leaderboard.md"),
    Column("runs", "Runs", True, "number of runs that are averaged, with their seeds", "leaderboard.md"),
    Column("coverage", "Coverage", True, "share of the test heads with a prediction", "scoring.md"),
    Column("accepted", "Findings", False, "findings of ubhpd doctor with which the predictions were submitted",
           "submit.md"),
    Column("license", "Licence", False, "of code or weights", "models.md"),
    Column("owner", "By", False, "the person or group that ran or submitted it", "leaderboard.md"),
    Column("weights", "Weights", False, "first digits of the SHA-256 of the weights, per run", "models.md"),
)  # fmt: skip


def method_cells(method: Method) -> dict[str, Cell]:
    """Return the cells of a method by column."""
    own = method.result
    scores = {c.key: value_cell(method.values.get(c.key)) for c in SCORES}
    return {
        "rank": rank_cell(Place(method.rank, method.standing)),
        "model": Cell(method.name, method.why_unranked or subtitle(method), method.name),
        "evidence": Cell(EVIDENCE[method.evidence], "", list(EVIDENCE).index(method.evidence)),
        **scores,
        "ubmae": _with_source(scores["ubmae"], method),
        "stress": _stress(own),
        "printed": _printed(method.reported),
        "trained_on": _text(method.trained_on or ""),
        "year": Cell(UNKNOWN) if method.info.year is None else Cell(str(method.info.year), "", method.info.year),
        "parameters": _number(None if own.parameters is None else own.parameters / 1e6, 2),
        "speed": _speed(own),
        "crop": _input(own, method.info),
        "training": _training(own.training),
        "selection": _text("" if own.training.how == SUBMITTED else own.training.selection),
        "runs": _runs(method),
        "coverage": Cell(f"{percent(method.coverage)} %", "", method.coverage),
        "accepted": _text(", ".join(dict.fromkeys(a.kind for f in method.runs for a in f.result.accepted))),
        "license": _text(method.info.license or ""),
        "owner": _text(", ".join(method.owners)),
        "weights": _text(", ".join(h[:8] for f in method.runs if (h := f.result.training.weights_sha256))),
    }  # fmt: skip


def baseline_cells(standing: Standing) -> dict[str, Cell]:
    """Return the cells of the mean-pose baseline; columns without a value are left out."""
    note = f" ({standing.baseline.note})" if standing.baseline.note else ""
    return {
        "model": Cell("mean pose", f"mean_pose: the mean pose of the training split for every head{note}", "mean pose"),
        **{c.key: value_cell(standing.baseline_values.get(c.key)) for c in SCORES},
    }


def constant_cells(method: Method) -> dict[str, Cell]:
    """Return the cells of another constant prediction."""
    scores = {c.key: value_cell(method.values.get(c.key)) for c in SCORES}
    heads = method.result.training.heads
    fitted = "" if heads is None else f"fitted to {heads:,} heads{method.train_mark}"
    small = "; ".join(filter(None, (method.result.title, fitted, *method.warnings)))
    return {"model": Cell(method.name, small, method.name), **scores}


def baseline_rows(standing: Standing) -> list[dict[str, Cell]]:
    """Return the rows of what predicts the same pose for every head: the mean pose once, then the others."""
    return [baseline_cells(standing), *map(constant_cells, standing.other_constants)]


def reported_cells(row: Reported, marks: str = "") -> dict[str, Cell]:
    """Return the cells of a printed row; `marks` are those of its footnotes."""
    printed = row.printed
    angles = {f"mae_{a}": _as_printed(getattr(printed, a)) for a in ANGLES}
    return {
        "model": Cell(f"{printed.method}{marks}", f"{printed.paper}, table {printed.table}", printed.method),
        "mae": _as_printed(printed.mae),
        **angles,
        "ubmae_printed": _as_printed(printed.ubmae),
    }


def value_cell(value: Value | None) -> Cell:
    """Return a score: the mean, with the standard deviation over seeds, and the interval below."""
    if value is None or value.mean is None:
        return Cell(UNKNOWN)
    spread = "" if value.sd is None else f" ± {value.sd:.2f}"
    interval = "" if value.low is None or value.high is None else f"{value.low:.2f} to {value.high:.2f}"
    return Cell(f"{value.mean:.2f}{spread}", interval, value.mean)


def rank_cell(place: Place) -> Cell:
    """Return the rank, with = where a method is tied with the first."""
    if place.rank is None:
        return Cell("")
    return Cell(f"{place.rank}{' =' if place.standing == TIED else ''}", "", float(place.rank))


def links(info: MethodInfo) -> list[tuple[str, str]]:
    """Return (word, address) of paper and code, where they are addresses."""
    found = (("paper", info.paper), ("code", info.code))
    return [(word, text) for word, text in found if text is not None and re.match(r"https?://[^\s]+$", text)]


def filled(rows: Sequence[Mapping[str, Cell]]) -> list[Column]:
    """Return the columns in which any of the rows has a value."""
    return [c for c in COLUMNS if any(row.get(c.key, Cell("")).value is not None for row in rows)]


def subtitle(method: Method) -> str:
    """Return what stands below the name of a method: its title, what tells it apart from its namesakes, and warnings
    that concern it alone."""
    own = method.result
    parts = [
        own.title if own.title != own.model else "",
        f"reported as {method.info.reported_as}" if method.info.reported_as else "",
        f"trained on {method.trained_on}" if method.train_mark else "",
        *method.warnings,
    ]
    return "; ".join(filter(None, parts))


def _with_source(cell: Cell, method: Method) -> Cell:
    """Return the cell of UBMAE with the training set that is counted and the share that is left out."""
    if cell.value is None:
        return cell
    left_out = "" if method.left_out is None else f"leaves out {100 * method.left_out:.1f} %"
    return cell._replace(small="; ".join(filter(None, (cell.small, method.ubmae_source, left_out))))


def _stress(own: Result) -> Cell:
    if own.stress is None:
        return Cell(UNKNOWN)
    return Cell(f"{own.stress.rise_deg:+.2f}", own.stress.perturbations, own.stress.rise_deg)


def _printed(row: Reported | None) -> Cell:
    if row is None or row.printed.mae is None:
        return Cell(UNKNOWN)
    return _as_printed(row.printed.mae)._replace(small=row.printed.paper)


def _speed(result: Result) -> Cell:
    own = result.speed
    if own is None:
        return Cell(UNKNOWN)
    return Cell(f"{own.images_per_second:,.0f}", f"batch {own.batch_size}, {own.device}", own.images_per_second)


def _input(result: Result, info: MethodInfo) -> Cell:
    own = result.input
    if own is None:
        stated = info.input or result.crop
        if stated is None and result.training.how == SUBMITTED:
            return Cell(UNKNOWN)
        return Cell(stated or "no image", "", stated or "no image")
    others = ", ".join(": ".join(pair) for pair in own.crop_of) if result.crop is None else ""
    frames = f", {own.frames} frames" if own.frames > 1 else ""
    crop = result.crop or own.crop
    return Cell(f"{crop} {own.size} {own.colour}{frames}", others, crop)


def _training(own: Training) -> Cell:
    if own.how == SUBMITTED:
        return Cell(UNKNOWN)
    if own.how == FITTED:
        return Cell(own.how, f"{own.heads:,} heads" if own.heads is not None else "", own.how)
    steps = [
        f"{own.epochs} epochs" if own.epochs is not None else "",
        f"{own.steps:,} steps" if own.steps is not None else "",
        f"batch {own.batch_size}" if own.batch_size is not None else "",
        own.optimizer or "",
        f"lr {own.lr:g}" if own.lr is not None else "",
        f"{own.schedule} schedule" if own.schedule not in (None, "constant") else "",
        f"precision {own.precision}" if own.precision else "",
        f"balanced by {own.balance}" if own.balance not in (None, "none") else "",
        ", ".join(own.augmentations or ()),
    ]
    return Cell(f"{own.how}, {own.start}", ", ".join(filter(None, steps)), own.how)


def _runs(method: Method) -> Cell:
    count = len(method.runs)
    if not method.seeds:
        return Cell(str(count), "seed not stated" if method.result.training.how == SUBMITTED else "no seed", count)
    return Cell(str(count), f"seed{'s' * (count > 1)} {', '.join(map(str, method.seeds))}", count)


def _number(value: float | None, decimals: int) -> Cell:
    return Cell(UNKNOWN) if value is None else Cell(f"{value:.{decimals}f}", "", value)


def _as_printed(value: float | None) -> Cell:
    """Return a number with all its decimals, at least two."""
    return _number(value, 2 if value is None else max(2, len(f"{value:g}".partition(".")[2])))


def _text(text: str) -> Cell:
    return Cell(text or UNKNOWN, "", text or None)


class Footnotes:
    """Numbers the notes on reported rows; equal notes share a number.

    caveat: what holds for all reported rows of the table. texts: (mark, note), in their order.
    """

    def __init__(self, standing: Standing) -> None:
        own = COUNTERPARTS.get(standing.result.protocol.id)
        self.caveat = own.caveat if own is not None and standing.reported else ""
        notes = dict.fromkeys(note for row in standing.reported for note in row.notes)
        self._marks = {note: f"[{number}]" for number, note in enumerate(notes, start=1)}

    @property
    def texts(self) -> list[tuple[str, str]]:
        """Return (mark, note)."""
        return [(mark, note) for note, mark in self._marks.items()]

    def marks(self, row: Reported) -> str:
        """Return the marks of a row, with a space before them; "" for none."""
        return "".join(f" {self._marks[note]}" for note in row.notes)


def how_ranked(rank_by: str) -> str:
    """Return how methods are ranked, for the head of the leaderboard."""
    return (
        f"Methods are ranked by {METRICS[rank_by]}: the mean over seeds with its standard deviation, and the ends of "
        "its confidence interval. An = marks methods that do not differ significantly from the first. Lower is better "
        "in every column of errors. Not ranked, with the reason: methods whose training set is not known, methods that "
        "see ground truth at test time, methods that predicted only a part of the heads, and the mean pose."
    )


def head_line(standing: Standing) -> str:
    """Return what the protocol is."""
    return standing.sentence or "This version of ubhpd does not know this protocol."


def facts(standing: Standing) -> list[tuple[str, str]]:
    """Return the terms that all methods of the table have in common, each with its text."""
    own = standing.result
    p, r = own.protocol, own.resampling
    seed = "" if p.seed is None else f", split with seed {p.seed}"
    return [
        ("Training split", _training_split(standing)),
        ("Test split", _split(own.test)),
        ("Protocol", f"version {p.version}, definition hash {p.definition_hash[:12]}, list hash {p.hash[:12]}{seed}"),
        ("Intervals", f"{100 * r.level:g} %, {r.rounds:,} resamples over {r.over} ({r.groups:,} of them)"),
        ("Ties", how_tied(standing)),
    ]


def _training_split(standing: Standing) -> str:
    """Return the heads that methods of the table were trained on by ubhpd."""
    results = [m.result for m in (*standing.methods, *standing.constants)]
    here = {r.train.fingerprint: r.train for r in results if r.training.how in (TRAINED, FITTED)}
    if not here:
        return "no method was trained here"
    if len(here) > 1:
        return f"{len(here)} different ones, see the column Trained on"
    return _split(next(iter(here.values())))


def warnings(standing: Standing) -> list[str]:
    """Return the warnings that concern every row, and whether results are of several versions."""
    results = [f.result for m in (*standing.methods, *standing.constants) for f in m.runs]
    own = [w for w in results[0].protocol.warnings if all(w in r.protocol.warnings for r in results)]
    versions = sorted({r.ubhpd for r in results})
    mixed = [f"Results of several versions of ubhpd: {', '.join(versions)}."] if len(versions) > 1 else []
    return [*own, *mixed]


def how_tied(standing: Standing) -> str:
    """Return how it was decided which methods are tied with the first."""
    decided = {e.decided_by for e in standing.methods if e.decided_by}
    if not decided:
        ranked = sum(e.rank is not None for e in standing.methods)
        return f"nothing to compare: {'one ranked method' if ranked else 'no ranked method'}"
    tied = sum(e.standing == TIED for e in standing.methods)
    ways = {
        PAIRED: "paired resamples of the predictions",
        BY_INTERVAL: "the interval of the first where predictions are missing",
    }
    return f"{tied} with the first, by {' and '.join(ways[t] for t in sorted(decided))}"


def _split(split: Split) -> str:
    datasets = ", ".join(f"{name} {heads:,}" for name, heads in split.datasets.items())
    return f"{split.heads:,} heads ({datasets}), fingerprint {split.fingerprint[:12]}"


def screen_rows(standing: Standing) -> tuple[list[list[str]], list[str]]:
    """Return the table for a terminal, its first row the header, and a line for each method that is not ranked."""
    shown = [standing.rank_by, *(m for m in ("balanced_mae", "mae") if m != standing.rank_by)]
    has_owners = any(m.owners for m in standing.methods)

    def numbers(values: Mapping[str, Value]) -> list[str]:
        own = [values.get(name, Value(None)) for name in shown]
        low, high = own[0].low, own[0].high
        interval = "-" if low is None or high is None else f"{low:.3f} to {high:.3f}"
        return [*("-" if v.mean is None else f"{v.mean:.3f}" for v in own), interval]

    head = ["#", "method", "evidence", *(METRICS[m] for m in shown), f"interval of {METRICS[shown[0]]}"]
    rows = [head]
    for m in standing.methods:
        rank = rank_cell(Place(m.rank, m.standing)).text or "-"
        rows.append([rank, m.name + m.train_mark, EVIDENCE[m.evidence], *numbers(m.values)])
    others = [(m.name + m.train_mark, m.values) for m in standing.other_constants]
    for name, values in [("mean pose", standing.baseline_values), *others]:
        rows.append(["-", name, "baseline", *numbers(values)])
    if has_owners:
        owners = ["by", *(", ".join(m.owners) for m in standing.methods)]
        rows = [[*row, owner] for row, owner in zip_longest(rows, owners, fillvalue="")]
    return rows, [f"{m.name}: {m.why_unranked}." for m in standing.methods if m.why_unranked]


class Row(NamedTuple):
    """A row: its links (word, address), its cells by column, and whether it is the first of its table."""

    links: list[tuple[str, str]]
    cells: Mapping[str, Cell]
    is_first: bool = False


class Block(NamedTuple):
    """Rows under one title, and the columns in which any of them has a value."""

    title: str
    columns: list[Column]
    rows: list[Row]


def blocks(standing: Standing, notes: Footnotes) -> list[Block]:
    """Return the methods with the baselines, and the reported rows where there are any."""
    methods = [Row(links(m.info), method_cells(m), m.rank == 1) for m in standing.methods]
    own = [*methods, *(Row([], cells) for cells in baseline_rows(standing))]
    found = [Block("Methods, and the mean-pose baseline:", filled([r.cells for r in own]), own)]
    if standing.reported:
        rows = [Row([], reported_cells(r, notes.marks(r))) for r in standing.reported]
        title = f"Reported in papers, not ranked. {notes.caveat}"
        found.append(Block(title, filled([r.cells for r in rows]), rows))
    return found


def markdown(standings: Sequence[Standing]) -> str:
    """Return all tables as Markdown."""
    return rendered("leaderboard.md", **_values(standings), columns=COLUMNS, nothing=Cell(""))


def latex(standings: Sequence[Standing]) -> str:
    r"""Return one table per protocol, no wider than the text; needs \usepackage{booktabs,graphicx}.

    Only the metric of the order has its interval beside it; the CSV holds all intervals.
    """
    keys = ("rank", "model", "evidence", *(s.key for s in SCORES), "parameters", "runs")
    shown = [c for c in COLUMNS if c.key in keys]
    return rendered("leaderboard.tex", **_values(standings), columns=shown, nothing=Cell(""))


def _values(standings: Sequence[Standing]) -> dict[str, Any]:
    """Return what the templates of Markdown and LaTeX have in common."""
    tables = []
    for standing in standings:
        notes = Footnotes(standing)
        tables.append({
            "own": standing.result, "sentence": head_line(standing), "facts": facts(standing),
            "warnings": warnings(standing), "blocks": blocks(standing, notes), "footnotes": notes.texts,
            "why_no_reported": standing.why_no_reported or "",
            "unranked": [f"{m.name} is not ranked: {m.why_unranked}." for m in standing.methods if m.why_unranked],
        })  # fmt: skip
    rank_by = standings[0].rank_by
    return {"tables": tables, "how_ranked": how_ranked(rank_by), "rank_by": rank_by}


TIDY = (
    "protocol", "protocol_hash", "train_fingerprint", "test_fingerprint", "origin", "model", "title", "options_hash",
    "score", "unit", "value", "sd", "low", "high", "seeds", "rank", "standing", "coverage", "evidence", "trained_on",
    "by", "why_unranked",
)  # fmt: skip


def tidy(standings: Sequence[Standing]) -> str:
    """Return a CSV with one line per score.

    origin is "reproduced" (run by ubhpd), "submitted" (predictions of others), "baseline" (mean pose and other constant
    predictions) or "reported".
    """
    rows: list[tuple[object, ...]] = [TIDY]

    def write(*cells: object) -> None:
        rows.append(cells)

    for standing in standings:
        own = standing.result
        table = (own.protocol.id, own.protocol.hash, own.train.fingerprint, own.test.fingerprint)
        unit = {n: s.unit for m in (*standing.methods, *standing.constants) for n, s in m.result.scores.items()}
        for e in (*standing.methods, *standing.other_constants):
            is_constant = e in standing.constants
            seeds = " ".join(map(str, e.seeds))
            last = (
                seeds, e.rank, e.standing, e.coverage, e.evidence, e.trained_on, ", ".join(e.owners), e.why_unranked,
            )  # fmt: skip
            origin = "submitted" if e.result.training.how == SUBMITTED else "reproduced"
            who = ("baseline" if is_constant else origin, e.name, e.result.title, e.result.options_hash)
            for name, v in e.values.items():
                write(*table, *who, name, unit.get(name), v.mean, v.sd, v.low, v.high, *last)
        for name, v in standing.baseline_values.items():
            unit_of = unit.get(name, "degrees")
            write(*table, "baseline", "mean pose", "", "", name, unit_of, v.mean, v.sd, v.low, v.high, *[None] * 8)
        for row in standing.reported:
            paper = f"{row.printed.paper}, table {row.printed.table}"
            for key, cell in reported_cells(row).items():
                if key != "model" and cell.value is not None:
                    who = ("reported", row.printed.method, paper, "")
                    write(*table, *who, key, unit.get(key, "degrees"), cell.value, *[None] * 11)
    return csv_lines(rows)


def wide(standings: Sequence[Standing]) -> str:
    """Return a CSV with one line per method and protocol: the scores of the table, and what is known of the method."""
    scores = [c.key for c in SCORES]
    ends = [f"{name}_{end}" for name in METRICS for end in ("low", "high")]
    about = ("paper", "code", "year", "license")
    stated = ("trained_on", "ubmae_source", "ubmae_leaves_out", "parameters", "stress", "coverage", "runs")
    rows: list[list[object]] = [
        ["protocol", "rank", "name", "evidence", "by", *scores, *ends, *stated, *about, "why_unranked"]
    ]
    for standing in standings:
        for m in standing.methods:
            values = {name: m.values.get(name, Value(None)) for name in (*scores, *METRICS)}
            limits = [getattr(values[name], end) for name in METRICS for end in ("low", "high")]
            stress = None if m.result.stress is None else m.result.stress.rise_deg
            rows.append([
                standing.result.protocol.id, m.rank, m.name, m.evidence, ", ".join(m.owners),
                *(_rounded(values[name].mean) for name in scores), *map(_rounded, limits),
                m.trained_on, m.ubmae_source, _rounded(m.left_out), m.result.parameters, stress, m.coverage,
                len(m.runs), *(getattr(m.info, name) for name in about), m.why_unranked,
            ])  # fmt: skip
    return csv_lines(rows)


def as_json(standings: Sequence[Standing], indent: int | None = 1) -> str:
    """Return all tables as JSON: protocol, methods with all scores and what is known of them, baselines, reported.

    Numbers have six decimals. indent: of the text, None for one line.
    """
    tables = [_table_json(s) for s in standings]
    content = {"kind": KIND, "ubhpd": __version__, "rank_by": standings[0].rank_by, "tables": tables}
    separators = (",", ":") if indent is None else None
    text = json.dumps(_rounded(content), indent=indent, separators=separators, ensure_ascii=False, allow_nan=False)
    return f"{text}\n"


def _rounded(content: Any) -> Any:
    """Return a value of JSON with all its numbers rounded to six decimals."""
    if isinstance(content, float):
        return round(content, 6)
    if isinstance(content, dict):
        return {key: _rounded(value) for key, value in content.items()}
    return [_rounded(value) for value in content] if isinstance(content, (list, tuple)) else content


def _table_json(standing: Standing) -> dict[str, Any]:
    own = standing.result
    return {
        "protocol": asdict(own.protocol) | {"warnings": warnings(standing)},
        "sentence": head_line(standing),
        "test": {"heads": own.test.heads, "names_sha256": own.test.names_sha256, "labels": standing.labels},
        "methods": [_method_json(m) for m in standing.methods],
        "baselines": [
            {"name": "mean pose", "scores": _scores_json(standing.baseline_values), "note": standing.baseline.note},
            *({"name": m.name, "scores": _scores_json(m.values), "note": None} for m in standing.other_constants),
        ],
        "reported": [r.printed._asdict() | {"notes": r.notes} for r in standing.reported],
        "why_no_reported": standing.why_no_reported,
    }


def _method_json(m: Method) -> dict[str, Any]:
    own = m.result
    return {
        "name": m.name, "title": own.title, "evidence": m.evidence, "by": list(m.owners), "rank": m.rank,
        "places": {metric: asdict(place) for metric, place in m.places.items()},
        "why_unranked": m.why_unranked or None, "oracle": m.oracle or None, "scores": _scores_json(m.values),
        "bins": {a: asdict(b) for a, b in own.bins.items()}, "coverage": m.coverage, "seeds": list(m.seeds),
        "runs": len(m.runs), "trained_on": m.trained_on, "ubmae_source": m.ubmae_source, "ubmae_leaves_out": m.left_out,
        "options": own.options, "chosen": own.chosen, "parameters": own.parameters,
        "input": None if own.input is None else asdict(own.input), "crop": own.crop, "training": asdict(own.training),
        "info": asdict(m.info), "stress": None if own.stress is None else asdict(own.stress),
        "speed": None if own.speed is None else asdict(own.speed),
        "accepted": [asdict(a) for f in m.runs for a in f.result.accepted],
        "reported_mae": None if m.reported is None else m.reported.printed.mae,
    }  # fmt: skip


def _scores_json(values: Mapping[str, Value]) -> dict[str, Any]:
    return {name: asdict(v) for name, v in values.items()}


FORMATS: Mapping[str, Callable[[Sequence[Standing]], str]] = {
    "md": markdown,
    "csv": tidy,
    "json": as_json,
    "tex": latex,
}
