"""The leaderboard as one page that needs no other file, loads nothing, and can be read without scripts.

Style and script stand in the page and are let through by their hashes alone; the template escapes whatever comes out
of a result. The figures are SVG whose colours come from the style sheet, so that they follow light and dark; nothing
in them needs a style attribute, which the page's content security policy would not let through.

`publish` is `ubhpd leaderboard` as a function: result files in, the tables and the page out.
"""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from statistics import mean
from types import MappingProxyType
from typing import Any, NamedTuple

from markupsafe import Markup

from ubhpd import __version__
from ubhpd.core.bins import ANGLES, CENTRES_DEG, EDGES_DEG, N_BINS
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing
from ubhpd.core.registry import chosen
from ubhpd.core.text import content_hash, rendered, template_part
from ubhpd.evaluation.pairing import known as counted_sets
from ubhpd.leaderboards.reported import COUNTERPARTS, Known
from ubhpd.leaderboards.result import read_all
from ubhpd.leaderboards.standings import (
    EVIDENCE,
    EVIDENCE_MEANING,
    METRICS,
    RANK_BY,
    Method,
    Place,
    Standing,
    Value,
    standings,
    verify,
)
from ubhpd.leaderboards.tables import (
    COLUMNS,
    FORMATS,
    Cell,
    Column,
    Footnotes,
    as_json,
    baseline_rows,
    facts,
    filled,
    head_line,
    how_ranked,
    links,
    method_cells,
    rank_cell,
    reported_cells,
    subtitle,
    value_cell,
    warnings,
    wide,
)

WIDTH, HEIGHT = 340, 200
LEFT, RIGHT, TOP, BOTTOM = 40, WIDTH - 8, 12, HEIGHT - 38
LINES = 8  # methods drawn; more lines could not be distinguished

Point = tuple[float, float]


class Mark(NamedTuple):
    """A line of the grid, or a tick: its place on the axis, and the number beside it."""

    at: str
    text: str


class Bar(NamedTuple):
    """A rectangle; numbers are in the units of the view box."""

    css: str
    x: str
    y: str
    width: str
    height: str


class Line(NamedTuple):
    """A line through points, with a dot on each of them or without."""

    css: str
    points: tuple[tuple[str, str], ...]
    has_dots: bool


class Panel:
    """Axes of one angle: true angle in degrees to the right, values from 0 to `top` upwards.

    `description` says in words what the panel shows.
    """

    width, height, left, right, bottom = WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM

    def __init__(self, label: str, description: str, top: float) -> None:
        self.label, self.description, self._top = label, description, top or 1.0
        step = _nice_step(self._top)
        values = [step * i for i in range(int(self._top / step + 1e-9) + 1)]
        self.grid = [Mark(f"{self._y(v):.1f}", f"{v:g}") for v in values]
        self.ticks = [Mark(f"{self._x(d):.1f}", f"{d}") for d in range(-90, 91, 30)]
        self.bars: list[Bar] = []
        self.lines: list[Line] = []

    def add_bars(self, values: Sequence[float], css: str) -> None:
        """Add a bar per bin."""
        for (low, high), value in zip(pairwise(EDGES_DEG), values, strict=True):
            x, y = self._x(float(low)), self._y(value)
            width, height = self._x(float(high)) - x - 1.0, self._y(0.0) - y
            self.bars.append(Bar(css, f"{x:.1f}", f"{y:.1f}", f"{width:.1f}", f"{height:.1f}"))

    def add_stairs(self, values: Sequence[float], css: str) -> None:
        """Add the outline of a histogram."""
        bins = zip(pairwise(EDGES_DEG), values, strict=True)
        self._add_line([(self._x(float(e)), self._y(v)) for edges, v in bins for e in edges], css, has_dots=False)

    def add_line(self, values: Sequence[float | None], css: str) -> None:
        """Add a line over the bins, with a gap where there is no value, and a dot for each value."""
        points = [
            None if v is None else (self._x(float(c)), self._y(min(v, self._top)))
            for c, v in zip(CENTRES_DEG, values, strict=True)
        ]
        for stretch in _stretches(points):
            self._add_line(stretch, css, has_dots=True)

    def _add_line(self, points: Iterable[Point], css: str, has_dots: bool) -> None:
        self.lines.append(Line(css, tuple((f"{x:.1f}", f"{y:.1f}") for x, y in points), has_dots))

    def _x(self, degrees: float) -> float:
        return LEFT + (degrees + 90.0) / 180.0 * (RIGHT - LEFT)

    def _y(self, value: float) -> float:
        return BOTTOM - value / self._top * (BOTTOM - TOP)


class Figure(NamedTuple):
    """A panel per angle, and (class, name) of what is drawn in them."""

    title: str
    panels: list[Panel]
    legend: list[tuple[str, str]]


def density_figure(standing: Standing) -> Figure:
    """Return the share of the heads per bin, training heads filled, test heads outlined."""
    train, whose = _training_bins(standing)
    test = standing.result.test
    panels = []
    for angle in ANGLES:
        shares = [_shares(train[angle]), _shares(test.bins[angle])]
        description = (
            f"Share of training and of test heads per bin of {angle}; {test.outside.get(angle, 0):,} test heads"
        )
        panel = Panel(f"true {angle}, degrees", f"{description} outside -90 to 90", 1.06 * max(map(max, shares)))
        panel.add_bars(shares[0], "train")
        panel.add_stairs(shares[1], "test")
        panels.append(panel)
    return Figure("Share of heads per bin of 12 degrees", panels, [("train", whose), ("test", "test heads")])


def _training_bins(standing: Standing) -> tuple[Mapping[str, Sequence[float]], str]:
    """Return the training heads per angle and bin, those of the package if no result has any, and whose they are."""
    own = standing.result
    if own.train.heads:
        return own.train.bins, "training heads"
    counterpart = COUNTERPARTS.get(own.protocol.id)
    shipped = counted_sets().get(counterpart.train) if counterpart is not None else None
    if shipped is None:
        return dict.fromkeys(ANGLES, (0.0,) * N_BINS), "training heads (not known)"
    return dict(zip(ANGLES, shipped.counts.tolist(), strict=True)), f"training heads, {shipped.name}"


def error_figure(standing: Standing) -> Figure:
    """Return the mean absolute error per bin of the first methods and of the mean-pose baseline."""
    first = standing.methods[:LINES]
    looks = [(f"s{i}", e.name) for i, e in enumerate(first)]
    panels = []
    for angle in ANGLES:
        lines = [_over_seeds(e, angle) for e in first]
        baseline = standing.baseline.error[angle]
        known = [v for line in (*lines, baseline) for v in line if v is not None]
        description = f"Mean absolute error of {angle}, in degrees, against the true angle"
        panel = Panel(f"true {angle}, degrees", description, 1.08 * max(known, default=1.0))
        panel.add_line(baseline, "baseline")
        for (css, _), line in reversed(list(zip(looks, lines, strict=True))):
            panel.add_line(line, css)
        panels.append(panel)
    more = f"; the first {LINES} of {len(standing.methods)} methods" if len(standing.methods) > LINES else ""
    title = f"Mean absolute error in degrees per bin of the true angle{more}"
    return Figure(title, panels, [*looks, ("baseline", "mean pose")])


def _over_seeds(method: Method, angle: str) -> list[float | None]:
    lines = [f.result.bins[angle].error for f in method.runs]
    return [None if None in own else mean(v for v in own if v is not None) for own in zip(*lines, strict=True)]


def _shares(heads: Sequence[float]) -> list[float]:
    total = sum(heads)
    return [n / total if total else 0.0 for n in heads]


def _stretches(places: Sequence[Point | None]) -> list[list[Point]]:
    stretches: list[list[Point]] = [[]]
    for place in places:
        if place is not None:
            stretches[-1].append(place)
        elif stretches[-1]:
            stretches.append([])
    return [s for s in stretches if s]


def _nice_step(top: float) -> float:
    """Return 1, 2 or 5 times a power of ten, of which 3 to 6 fit below the top."""
    power = 10.0 ** math.floor(math.log10(top / 3))
    return next(power * m for m in (1, 2, 5, 10) if top / (power * m) < 6)


_LONG = ("training", "selection")  # columns whose text is broken into lines
_BESIDE: Mapping[str, str] = {"balanced_mae": "mae", "mae": "balanced_mae", "ubmae": "mae"}  # in small print
_DOWNLOADS: Mapping[str, str] = {"csv": "text/csv", "json": "application/json"}


class Badge(NamedTuple):
    """A mark of a row: its class in the style sheet, its word, and what it means."""

    css: str
    text: str
    meaning: str


class Row(NamedTuple):
    """A row of a table.

    cells: by column. links: (word, address). badges: marks beside the evidence. places: by metric. orders: by metric,
    the row's position. search: what a search looks in.
    """

    cells: Mapping[str, Cell]
    links: Sequence[tuple[str, str]] = ()
    badges: Sequence[Badge] = ()
    places: Mapping[str, Place] = MappingProxyType({})
    orders: Mapping[str, int] = MappingProxyType({})
    evidence: str = ""
    search: str = ""


class Group(NamedTuple):
    """Rows of one kind, which are sorted among themselves."""

    title: str
    rows: list[Row]


class Section(NamedTuple):
    """What the page shows of one table."""

    anchor: str
    protocol: str
    sentence: str
    heads: int
    methods: int
    facts: list[tuple[str, str]]
    warnings: list[str]
    columns: list[Column]
    groups: list[Group]
    notes: list[str]
    figures: list[Figure]


class Shown(NamedTuple):
    """A cell of the overview by one metric: rank, value, and another value in small print."""

    rank: str
    value: str
    small: str
    sort: float | None
    css: str


class OverviewRow(NamedTuple):
    """A method over all protocols. cells: per protocol, by metric; None where it was not tested."""

    name: str
    why: str
    links: list[tuple[str, str]]
    year: str
    badges: list[Badge]
    evidence: str
    owners: str
    orders: Mapping[str, int]
    search: str
    cells: list[Mapping[str, Shown] | None]


class Overview(NamedTuple):
    """The first table: methods down, protocols across."""

    headings: list[tuple[str, str, int]]
    rows: list[OverviewRow]
    baseline: list[Mapping[str, Shown] | None]
    has_owners: bool


class Download(NamedTuple):
    """A file that lies in the page: its name, and its content as a data address."""

    name: str
    address: Markup
    kilobytes: int


def page(standings: Sequence[Standing], docs: str | None = None) -> str:
    """Return the page; `docs` is the address that the pages of docs/ are linked below, without it they are named."""
    style, script = (template_part(f"leaderboard.{kind}") for kind in ("css", "js"))
    policy = (
        f"default-src 'none'; style-src '{content_hash(style)}'; script-src '{content_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    present = {m.evidence for s in standings for m in s.methods}
    return rendered(
        "leaderboard.html",
        policy=Markup(policy),
        style=Markup(style),
        script=Markup(script),
        how_ranked=how_ranked(standings[0].rank_by),
        rank_by=standings[0].rank_by,
        metrics=METRICS,
        overview=overview(standings),
        sections=[_section(s) for s in standings],
        protocols=list(dict.fromkeys(s.result.protocol.id for s in standings)),
        evidence=[(key, title, EVIDENCE_MEANING[key]) for key, title in EVIDENCE.items() if key in present],
        downloads=[_download("csv", wide(standings)), _download("json", as_json(standings, None))],
        columns=COLUMNS,
        long_columns=_LONG,
        nothing=Cell(""),
        docs=None if docs is None else docs.rstrip("/"),
        version=__version__,
    )


def overview(standings: Sequence[Standing]) -> Overview:
    """Return the table of methods and protocols. Methods of one name, person and evidence share a row."""
    across = sorted(standings, key=lambda s: -len(s.methods))
    found: dict[tuple[object, ...], list[Method | None]] = {}
    for column, standing in enumerate(across):
        times: Counter[tuple[object, ...]] = Counter()
        for method in standing.methods:
            own = (method.name, method.owners, method.evidence)
            key = (*own, times[own])  # the same method with two trainings has two rows
            times[own] += 1
            found.setdefault(key, [None] * len(across))[column] = method
    orders = {metric: _overview_order(found, metric) for metric in METRICS}
    keys = sorted(found, key=lambda k: orders[across[0].rank_by][k])
    return Overview(
        [(s.result.protocol.id, s.anchor, s.result.test.heads) for s in across],
        [_overview_row(found[key], {m: orders[m][key] for m in METRICS}) for key in keys],
        [{m: _baseline_shown(s, m) for m in METRICS} for s in across],
        any(m.owners for s in standings for m in s.methods),
    )


def _overview_order(found: Mapping[tuple[object, ...], list[Method | None]], metric: str) -> dict[Any, int]:
    """Return the position of each row: by the first protocol, ranked methods first, then by the next protocol."""

    def position(key: tuple[object, ...]) -> list[tuple[int, float]]:
        values = []
        for method in found[key]:
            place = Place() if method is None else method.places[metric]
            value = None if method is None else method.values.get(metric, Value(None)).mean
            known = math.inf if value is None else value
            values.append((0 if place.rank is not None else 1 if method is not None else 2, known))
        return values

    return {key: number for number, key in enumerate(sorted(found, key=position))}


def _overview_row(cells: list[Method | None], orders: Mapping[str, int]) -> OverviewRow:
    own = [m for m in cells if m is not None]
    first = own[0]
    return OverviewRow(
        name=first.name,
        why="; ".join(dict.fromkeys(f"not ranked: {m.why_unranked}" for m in own if m.why_unranked))
        or (subtitle(first) if first.train_mark else ""),
        links=links(first.info),
        year="" if first.info.year is None else str(first.info.year),
        badges=_badges(first),
        evidence=first.evidence,
        owners=", ".join(first.owners),
        orders=orders,
        search=_search(first),
        cells=[None if m is None else {metric: _shown(m, metric) for metric in METRICS} for m in cells],
    )


def _shown(method: Method, metric: str) -> Shown:
    place, value = method.places[metric], value_cell(method.values.get(metric))
    beside = value_cell(method.values.get(_BESIDE[metric]))
    small = f"{METRICS[_BESIDE[metric]]} {beside.text}"
    if metric == "ubmae" and method.ubmae_source is not None:
        small = f"{method.ubmae_source}; {small}"
    sort = value.value if isinstance(value.value, float) else None
    return Shown(rank_cell(place).text, value.text, small, sort, place.standing)


def _baseline_shown(standing: Standing, metric: str) -> Shown:
    value, beside = (value_cell(standing.baseline_values.get(m)) for m in (metric, _BESIDE[metric]))
    return Shown("", value.text, f"{METRICS[_BESIDE[metric]]} {beside.text}", None, "")


def _badges(method: Method) -> list[Badge]:
    found = [Badge(method.evidence, EVIDENCE[method.evidence], EVIDENCE_MEANING[method.evidence])]
    if method.oracle:
        found.append(Badge("oracle", "oracle", f"sees ground truth at test time: {method.oracle}"))
    return found


def _search(method: Method) -> str:
    own = method.result
    info = (method.info.paper, method.info.code, method.info.license, method.info.input)
    known = [method.name, own.title, EVIDENCE[method.evidence], method.trained_on, *method.owners, *info]
    return " ".join(filter(None, known)).lower()


def _section(standing: Standing) -> Section:
    notes = Footnotes(standing)
    orders = {m: _orders(standing, m) for m in METRICS}
    own = [
        Row(
            method_cells(method), links(method.info), _badges(method), method.places,
            {m: orders[m][number] for m in METRICS}, method.evidence, _search(method),
        )
        for number, method in enumerate(standing.methods)
    ]  # fmt: skip
    baselines = [Row(cells, search=cells["model"].text.lower()) for cells in baseline_rows(standing)]
    printed = [reported_cells(r, notes.marks(r)) for r in standing.reported]
    reported = [Row(cells, search=f"{cells['model'].text} {cells['model'].small}".lower()) for cells in printed]
    groups = [Group("Methods", own), Group("The same pose for every head, not ranked", baselines)]
    if reported:
        groups.append(Group("Reported in papers, not ranked", reported))
    return Section(
        anchor=standing.anchor,
        protocol=standing.result.protocol.id,
        sentence=head_line(standing),
        heads=standing.result.test.heads,
        methods=len(standing.methods),
        facts=facts(standing),
        warnings=warnings(standing),
        columns=[c for c in filled([row.cells for row in (*own, *baselines)]) if c.key != "evidence"],
        groups=[g for g in groups if g.rows],
        notes=[*(t for t in (notes.caveat, standing.why_no_reported) if t), *(" ".join(n) for n in notes.texts)],
        figures=[density_figure(standing), error_figure(standing)],
    )


def _orders(standing: Standing, metric: str) -> list[int]:
    """Return the position of each method by a metric: ranked ones by value, then the others."""

    def position(method: Method) -> tuple[bool, float]:
        value = method.values.get(metric, Value(None)).mean
        return method.places[metric].rank is None, math.inf if value is None else value

    own = standing.methods
    by_value = sorted(range(len(own)), key=lambda i: position(own[i]))
    return [by_value.index(i) for i in range(len(own))]


def _download(kind: str, text: str) -> Download:
    content = base64.b64encode(text.encode("utf-8")).decode("ascii")
    return Download(
        f"leaderboard.{kind}",
        Markup(f"data:{_DOWNLOADS[kind]};charset=utf-8;base64,{content}"),
        -(-len(text.encode("utf-8")) // 1024),
    )


HTML = "html"


def publish(
    places: Sequence[Path | tuple[str, Path]],
    out: Path,
    formats: Sequence[str],
    known: Known,
    docs: str | None = None,
    rank_by: str = RANK_BY,
    is_verified: bool = False,
) -> tuple[list[Standing], list[Path]]:
    """Write leaderboard.md, .csv, .json, .tex and .html as asked for, and return the tables and the paths.

    Args:
        places: result files, or folders that hold them; or (whose they are, path).
        out: folder to write to.
        formats: of "md", "csv", "json", "tex", "html".
        known: protocols and models, see `ubhpd.experiments.plan.known`.
        docs: address that the page links the pages of docs/ below; see `page`.
        rank_by: the metric that decides the order: see `standings`.
        is_verified: score every result's predictions again first, see `verify`.

    Raises:
        UbhpdError: an unknown format, no result, one that was changed or is not whole, one whose predictions have other
            scores, or a folder that cannot be written. Nothing was written then.
    """
    formats = [chosen((*FORMATS, HTML), form, "format of a leaderboard") for form in formats]
    files = read_all(places)
    if is_verified:
        verify(files)
    tables = standings(files, known, rank_by)
    texts = {f: page(tables, docs) if f == HTML else FORMATS[f](tables) for f in dict.fromkeys(formats)}
    paths = {f: out / f"leaderboard.{f}" for f in texts}
    try:
        with ExitStack() as together:  # all of them or none
            for form, path in paths.items():
                together.enter_context(replacing(path)).write_text(texts[form], encoding="utf-8", newline="")
    except OSError as error:
        raise UbhpdError(f"Cannot write to {out} ({error.strerror}): name another folder with --out.") from None
    return tables, list(paths.values())
