"""The leaderboard as one page that needs no other file, loads nothing, and can be read without scripts.

Style and script stand in the page and are let through by their hashes alone; the template escapes whatever comes out
of a result. The figures are SVG whose colours come from the style sheet, so that they follow light and dark; nothing
in them needs a style attribute, which the page's content security policy would not let through.

`publish` is `ubhpd leaderboard` as a function: result files in, the tables and the page out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from markupsafe import Markup

from ubhpd import __version__
from ubhpd.core.bins import ANGLES, CENTRES_DEG, EDGES_DEG
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing
from ubhpd.core.text import content_hash, rendered, template_part
from ubhpd.leaderboards.columns import COLUMNS, Cell, Column, baseline_cells, method_cells, reported_cells
from ubhpd.leaderboards.reported import Known
from ubhpd.leaderboards.result import Split, read_all
from ubhpd.leaderboards.standings import TIED, WINNER, Method, Standing, standings
from ubhpd.leaderboards.tables import FORMATS, HOW_RANKED, Footnotes, facts, head_line, warnings

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
    train, test = standing.result.train, standing.result.test
    panels = []
    for angle in ANGLES:
        shares = [_shares(split, angle) for split in (train, test)]
        outside = f"outside -90 to 90: {train.outside.get(angle, 0):,} and {test.outside.get(angle, 0):,}"
        description = f"Share of training and of test heads per bin of {angle}; {outside}"
        panel = Panel(f"true {angle}, degrees", description, 1.06 * max(map(max, shares)))
        panel.add_bars(shares[0], "train")
        panel.add_stairs(shares[1], "test")
        panels.append(panel)
    return Figure("Share of heads per bin of 12 degrees", panels, [("train", "training heads"), ("test", "test heads")])


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


def _shares(split: Split, angle: str) -> list[float]:
    total = sum(split.bins[angle])
    return [n / total if total else 0.0 for n in split.bins[angle]]


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


class Row(NamedTuple):
    """A row of a table: its class in the style sheet, and its cells by column."""

    css: str
    cells: Mapping[str, Cell]


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


def page(standings: Sequence[Standing], docs: str | None = None) -> str:
    """Return the page; `docs` is the address that the pages of docs/ are linked below, without it they are named."""
    style, script = (template_part(f"leaderboard.{kind}") for kind in ("css", "js"))
    policy = (
        f"default-src 'none'; style-src '{content_hash(style)}'; script-src '{content_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return rendered(
        "leaderboard.html",
        policy=Markup(policy),
        style=Markup(style),
        script=Markup(script),
        how_ranked=HOW_RANKED,
        sections=[_section(s) for s in standings],
        protocols=list(dict.fromkeys(s.result.protocol.id for s in standings)),
        columns=COLUMNS,
        long_columns=_LONG,
        nothing=Cell(""),
        docs=None if docs is None else docs.rstrip("/"),
        version=__version__,
    )


def _section(standing: Standing) -> Section:
    notes = Footnotes(standing)
    own = [Row(_css(e), method_cells(e)) for e in standing.methods]
    baseline = [Row("", baseline_cells(standing.baseline))]
    reported = [Row("", reported_cells(r, notes.marks(r))) for r in standing.reported]
    groups = [Group("Reproduced here", own), Group("Mean-pose baseline", baseline)]
    if reported:
        groups.append(Group("Reported in papers, not ranked", reported))
    filled = [row.cells for row in (*own, *baseline)]
    return Section(
        anchor=standing.anchor,
        protocol=standing.result.protocol.id,
        sentence=head_line(standing),
        heads=standing.result.test.heads,
        methods=len(standing.methods),
        facts=facts(standing),
        warnings=warnings(standing),
        columns=[c for c in COLUMNS if any(cells.get(c.key, Cell("")).value is not None for cells in filled)],
        groups=groups,
        notes=[*(t for t in (notes.caveat, standing.why_no_reported) if t), *(" ".join(n) for n in notes.texts)],
        figures=[density_figure(standing), error_figure(standing)],
    )


def _css(method: Method) -> str:
    return method.standing if method.standing in (WINNER, TIED) else ""


HTML = "html"


def publish(
    places: Sequence[Path], out: Path, formats: Sequence[str], known: Known, docs: str | None = None
) -> tuple[list[Standing], list[Path]]:
    """Write leaderboard.md, .csv, .tex and .html as asked for, and return the tables and the paths.

    Args:
        places: result files, or folders that hold them.
        out: folder to write to.
        formats: of "md", "csv", "tex", "html".
        known: protocols and models, see `ubhpd.experiments.plan.known`.
        docs: address that the page links the pages of docs/ below; see `page`.

    Raises:
        UbhpdError: an unknown format, no result, one that was changed or is not whole, or a folder that cannot be
            written. Nothing was written then.
    """
    if unknown := [f for f in formats if f not in (*FORMATS, HTML)]:
        raise UbhpdError(f"There is no format {unknown[0]!r}: choose from {', '.join((*FORMATS, HTML))}.")
    tables = standings(read_all(places), known)
    texts = {f: page(tables, docs) if f == HTML else FORMATS[f](tables) for f in dict.fromkeys(formats)}
    paths = {f: out / f"leaderboard.{f}" for f in texts}
    try:
        with ExitStack() as together:  # all of them or none
            for form, path in paths.items():
                together.enter_context(replacing(path)).write_text(texts[form], encoding="utf-8", newline="")
    except OSError as error:
        raise UbhpdError(f"Cannot write to {out} ({error.strerror}): name another folder with --out.") from None
    return tables, list(paths.values())
