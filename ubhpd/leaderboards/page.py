"""Small images in the page: SVG whose colours come from the page's style sheet, so that they follow light and dark.

Nothing in them needs a style attribute, which the page's content security policy would not let through.

The leaderboard as one page that needs no other file, loads nothing, and can be read without scripts.

Style and script stand in the page and are let through by their hash alone; everything out of a result is escaped.

`ubhpd leaderboard` as a function: result files in, the tables and the page out.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from html import escape
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from statistics import mean

from ubhpd import __version__
from ubhpd.core.bins import ANGLES, CENTRES_DEG, EDGES_DEG
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing
from ubhpd.leaderboards.columns import COLUMNS, Cell, Column, floor_cells, method_cells, reported_cells
from ubhpd.leaderboards.result import Side, read_all
from ubhpd.leaderboards.standings import TIED, WINNER, Method, Standing, standings
from ubhpd.leaderboards.tables import FORMATS, HOW_RANKED, Footnotes, facts, head_line, warnings

WIDTH, HEIGHT = 340, 200
LEFT, RIGHT, TOP, BOTTOM = 40, 8, 12, 38
LINES = 8  # methods drawn; more could not be told apart

Point = tuple[float, float]


class _Panel:
    """Axes of one angle: true angle in degrees to the right, values from 0 to `top` upwards."""

    def __init__(self, label: str, top: float) -> None:
        self._label, self._top, self._parts = label, top or 1.0, list[str]()
        step = _nice_step(self._top)
        for value in (step * i for i in range(int(self._top / step + 1e-9) + 1)):
            y = f"{self.y(value):.1f}"
            self._parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
            self._parts.append(f'<text x="{LEFT - 5}" y="{y}" dy="3.5" text-anchor="end">{value:g}</text>')
        for degrees in range(-90, 91, 30):
            x = f"{self.x(degrees):.1f}"
            self._parts.append(
                f'<line class="tick" x1="{x}" x2="{x}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM + 4}"/>'
            )
            self._parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{degrees}</text>')

    def x(self, degrees: float) -> float:
        """Return the place of an angle."""
        return LEFT + (degrees + 90.0) / 180.0 * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Return the place of a value."""
        return HEIGHT - BOTTOM - value / self._top * (HEIGHT - TOP - BOTTOM)

    def bars(self, values: Sequence[float], css: str) -> None:
        """Draw a bar per bin."""
        for (low, high), value in zip(pairwise(EDGES_DEG), values, strict=True):
            x, y = self.x(float(low)), self.y(value)
            width, height = self.x(float(high)) - x - 1.0, self.y(0.0) - y
            self._parts.append(
                f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
            )

    def stairs(self, values: Sequence[float], css: str) -> None:
        """Draw the outline of a histogram."""
        places = [
            (self.x(float(e)), self.y(v)) for pair, v in zip(pairwise(EDGES_DEG), values, strict=True) for e in pair
        ]
        self._path(places, css)

    def line(self, values: Sequence[float | None], css: str) -> None:
        """Draw a line over the bins, with a gap where there is no value, and a dot for each value."""
        places = [
            None if v is None else (self.x(float(c)), self.y(min(v, self._top)))
            for c, v in zip(CENTRES_DEG, values, strict=True)
        ]
        for stretch in _stretches(places):
            self._path(stretch, css)
            self._parts += [f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>' for x, y in stretch]

    def svg(self, told: str) -> str:
        """Return the image; `told` says in words what it shows."""
        middle = (LEFT + WIDTH - RIGHT) / 2
        label = f'<text class="label" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(self._label)}</text>'
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(told)}">'
            f"{''.join(self._parts)}{label}</svg>"
        )

    def _path(self, places: Iterable[Point], css: str) -> None:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        self._parts.append(f'<polyline class="{css}" points="{points}"/>')


def densities(standing: Standing) -> list[str]:
    """Return an image per angle: share of the heads per bin, training heads filled, test heads outlined."""
    train, test = standing.result.train, standing.result.test
    drawn = []
    for angle in ANGLES:
        shares = [_shares(side, angle) for side in (train, test)]
        panel = _Panel(f"true {angle}, degrees", 1.06 * max(map(max, shares)))
        panel.bars(shares[0], "train")
        panel.stairs(shares[1], "test")
        outside = f"outside -90 to 90: {train.outside.get(angle, 0):,} and {test.outside.get(angle, 0):,}"
        drawn.append(panel.svg(f"Share of training and of test heads per bin of {angle}; {outside}"))
    return drawn


def errors(standing: Standing) -> tuple[list[str], list[tuple[str, str]]]:
    """Return an image per angle, mean absolute error per bin of the first methods, and (class, name) for a legend."""
    first = standing.methods[:LINES]
    looks = [(f"s{i}", e.name) for i, e in enumerate(first)]
    by_angle = {a: [_over_seeds(e, a) for e in first] for a in ANGLES}
    drawn = []
    for angle, lines in by_angle.items():
        floor = standing.floor.error[angle]
        known = [v for line in lines for v in line if v is not None]
        panel = _Panel(f"true {angle}, degrees", 1.08 * max([*known, *_known(floor)], default=1.0))
        panel.line(floor, "floor")
        for (css, _), line in reversed(list(zip(looks, lines, strict=True))):
            panel.line(line, css)
        drawn.append(panel.svg(f"Mean absolute error of {angle}, in degrees, against the true angle"))
    return drawn, [*looks, ("floor", "mean pose")]


def swatch(css: str) -> str:
    """Return a short piece of a line for a legend."""
    return (
        f'<svg class="swatch" viewBox="0 0 30 10" aria-hidden="true"><polyline class="{css}" points="1,5 29,5"/>'
        f'<circle class="{css}" cx="15" cy="5" r="2.2"/></svg>'
    )


def _over_seeds(method: Method, angle: str) -> list[float | None]:
    lines = [f.result.bins[angle].error for f in method.found]
    return [None if None in own else mean(v for v in own if v is not None) for own in zip(*lines, strict=True)]


def _shares(side: Side, angle: str) -> list[float]:
    total = sum(side.bins[angle])
    return [n / total if total else 0.0 for n in side.bins[angle]]


def _known(values: Iterable[float | None]) -> list[float]:
    return [v for v in values if v is not None]


def _stretches(places: Sequence[Point | None]) -> list[list[Point]]:
    found: list[list[Point]] = [[]]
    for place in places:
        if place is not None:
            found[-1].append(place)
        elif found[-1]:
            found.append([])
    return [f for f in found if f]


def _nice_step(top: float) -> float:
    """Return 1, 2 or 5 times a power of ten, of which 3 to 6 fit below the top."""
    power = 10.0 ** math.floor(math.log10(top / 3))
    return next(power * m for m in (1, 2, 5, 10) if top / (power * m) < 6)


_LONG = ("training", "selection")  # columns whose text is broken into lines


def page(standings: Sequence[Standing], docs: str | None = None) -> str:
    """Return the page; `docs` is the address that the pages of docs/ are linked below, without it they are named."""
    style, script = _part("leaderboard.css"), _part("leaderboard.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    body = [
        '<a class="skip" href="#tables">Skip to the tables</a>',
        f"<header><h1>Head pose leaderboard</h1><p>{escape(HOW_RANKED)}</p></header>",
        _contents(standings),
        '<main id="tables">',
        *(_section(s) for s in standings),
        _legend(docs),
        "</main>",
        f'<footer>Made by ubhpd {escape(__version__)} from result files alone.</footer><p id="said" role="status"></p>',
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>Head pose leaderboard</title>\n<style>{style}</style></head>\n<body>\n"
        + "\n".join(body)
        + f"\n<script>{script}</script>\n</body></html>\n"
    )


def _contents(standings: Sequence[Standing]) -> str:
    links = [
        f'<li><a href="#{s.anchor}">{escape(s.result.protocol.id)}</a> '
        f"<span>{s.result.test.heads:,} heads, {len(s.methods)} methods</span></li>"
        for s in standings
    ]
    ids = dict.fromkeys(s.result.protocol.id for s in standings)
    options = "".join(f"<option>{escape(i)}</option>" for i in ids)
    return (
        f'<nav aria-label="Protocols"><ul>{"".join(links)}</ul><label id="filter" hidden>Protocol '
        f'<select><option value="">all</option>{options}</select></label></nav>'
    )


def _section(standing: Standing) -> str:
    protocol_id = escape(standing.result.protocol.id)
    terms = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts(standing))
    alerts = "".join(f'<p class="warning">{escape(w)}</p>' for w in warnings(standing))
    parts = [
        f'<section id="{standing.anchor}" data-protocol="{protocol_id}">',
        f"<h2>{protocol_id}</h2><p>{escape(head_line(standing))}</p><dl>{terms}</dl>{alerts}",
        _table(standing),
        _after_table(standing),
        _figures(standing),
        "</section>",
    ]
    return "\n".join(parts)


def _table(standing: Standing) -> str:
    notes = Footnotes(standing)
    own = [method_cells(e) for e in standing.methods]
    floor = floor_cells(standing.floor)
    printed = [reported_cells(r, notes.marks(r)) for r in standing.reported]
    shown = [c for c in COLUMNS if any(row.get(c.key, Cell("")).value is not None for row in (*own, floor))]
    name = f"Results of {standing.result.protocol.id}"
    heads = "".join(_heading(c) for c in shown)
    groups = [
        _group(
            "Reproduced here", shown, [_row(r, shown, _class(e)) for r, e in zip(own, standing.methods, strict=True)]
        ),
        _group("Floor", shown, [_row(floor, shown)]),
    ]
    if printed:
        groups.append(_group("Reported in papers, not ranked", shown, [_row(r, shown) for r in printed]))
    return (
        f'<div class="wide" role="region" aria-label="{escape(name)}" tabindex="0"><table>'
        f'<caption class="hidden">{escape(name)}</caption><thead><tr>{heads}</tr></thead>'
        f"{''.join(groups)}</table></div>"
    )


def _heading(column: Column) -> str:
    sorted_now = ' aria-sort="ascending"' if column.key == "rank" else ""
    number = ' class="number"' if column.is_number else ""
    told = f' title="{escape(column.meaning)}"'
    return f'<th scope="col" data-key="{column.key}"{number}{sorted_now}{told}>{escape(column.title)}</th>'


def _group(title: str, shown: Sequence[Column], rows: Sequence[str]) -> str:
    head = f'<tr class="group"><th scope="rowgroup" colspan="{len(shown)}"><span>{escape(title)}</span></th></tr>'
    return f"<tbody>{head}{''.join(rows)}</tbody>"


def _row(cells: Mapping[str, Cell], shown: Sequence[Column], css: str = "") -> str:
    filled = "".join(_cell(cells.get(c.key, Cell("")), c) for c in shown)
    return f"<tr{css}>{filled}</tr>"


def _class(method: Method) -> str:
    return f' class="{method.standing}"' if method.standing in (WINNER, TIED) else ""


def _cell(cell: Cell, column: Column) -> str:
    value = "" if cell.value is None else f' data-value="{escape(str(cell.value))}"'
    css = ' class="number"' if column.is_number else ' class="long"' if column.key in _LONG else ""
    small = f"<small>{escape(cell.small)}</small>" if cell.small else ""
    tag, scope = ("th", ' scope="row"') if column.key == "model" else ("td", "")
    return f"<{tag}{scope}{css}{value}>{escape(cell.text)}{small}</{tag}>"


def _after_table(standing: Standing) -> str:
    notes = Footnotes(standing)
    lines = [f"<p>{escape(t)}</p>" for t in (notes.caveat, standing.why_no_reported) if t]
    lines += [f"<p>{escape(mark)} {escape(text)}</p>" for mark, text in notes.texts]
    return f'<div class="notes">{"".join(lines)}</div>'


def _figures(standing: Standing) -> str:
    per_bin, looks = errors(standing)
    shares = [("train", "training heads"), ("test", "test heads")]
    more = len(standing.methods) - LINES
    told = f"; the first {LINES} of {len(standing.methods)} methods" if more > 0 else ""
    return _figure("Share of heads per bin of 12 degrees", densities(standing), shares) + _figure(
        f"Mean absolute error in degrees per bin of the true angle{told}", per_bin, looks
    )


def _figure(title: str, panels: Sequence[str], looks: Sequence[tuple[str, str]]) -> str:
    key = "".join(f"<li>{swatch(css)} {escape(name)}</li>" for css, name in looks)
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><div class="panels">{"".join(panels)}</div>'
        f'<ul class="key">{key}</ul></figure>'
    )


def _legend(docs: str | None) -> str:
    rows = "".join(f"<dt>{escape(c.title)}</dt><dd>{escape(c.meaning)} {_link(c.page, docs)}</dd>" for c in COLUMNS)
    return (
        '<section id="legend"><h2>What the columns mean</h2>'
        "<p>Errors are in degrees. Click a heading to sort by it. Rows of different protocols, heads or labels are "
        f"never in one table. A dash: not known, or not measured.</p><dl>{rows}</dl></section>"
    )


def _link(name: str, docs: str | None) -> str:
    shown = f"docs/{name}"
    if docs is None:
        return f"<code>{escape(shown)}</code>"
    return f'<a href="{escape(docs.rstrip("/"))}/{escape(name)}">{escape(shown)}</a>'


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@lru_cache(maxsize=2)
def _part(name: str) -> str:
    return (files("ubhpd.leaderboards") / "leaderboard_page" / name).read_text(encoding="utf-8")


HTML = "html"


def publish(
    places: Sequence[Path], out: Path, formats: Sequence[str], docs: str | None = None
) -> tuple[list[Standing], list[Path]]:
    """Write leaderboard.md, .csv, .tex and .html as asked for, and return the tables and the paths.

    Args:
        places: result files, or folders that hold them.
        out: folder to write to.
        formats: of "md", "csv", "tex", "html".
        docs: address that the page links the pages of docs/ below; see `page`.

    Raises:
        UbhpdError: an unknown format, no result, one that was changed or is not whole, or a folder that cannot be
            written. Nothing was written then.
    """
    if unknown := [f for f in formats if f not in (*FORMATS, HTML)]:
        raise UbhpdError(f"There is no format {unknown[0]!r}: choose from {', '.join((*FORMATS, HTML))}.")
    tables = standings(read_all(places))
    texts = {f: page(tables, docs) if f == HTML else FORMATS[f](tables) for f in dict.fromkeys(formats)}
    paths = {f: out / f"leaderboard.{f}" for f in texts}
    try:
        with ExitStack() as together:  # all of them or none
            for form, path in paths.items():
                together.enter_context(replacing(path)).write_text(texts[form], encoding="utf-8", newline="")
    except OSError as error:
        raise UbhpdError(f"Cannot write to {out} ({error.strerror}): name another folder with --out.") from None
    return tables, list(paths.values())
