"""The leaderboard as one page that needs no other file, loads nothing, and can be read without scripts.

Style and script stand in the page and are let through by their hash alone; everything out of a result is escaped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape
from importlib.resources import files

from ubhpd import __version__
from ubhpd.leaderboard import drawings
from ubhpd.leaderboard.columns import COLUMNS, Cell, Column, entrant_cells, floor_cells, reported_cells
from ubhpd.leaderboard.notes import HOW_RANKED, Footnotes, facts, head_line, warnings
from ubhpd.leaderboard.standings import TIED, WINNER, Entrant, Standing

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
        f"<span>{s.result.test.heads:,} heads, {len(s.entrants)} entrants</span></li>"
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
    own = [entrant_cells(e) for e in standing.entrants]
    floor = floor_cells(standing.floor)
    printed = [reported_cells(r, notes.marks(r)) for r in standing.reported]
    shown = [c for c in COLUMNS if any(row.get(c.key, Cell("")).value is not None for row in (*own, floor))]
    name = f"Results of {standing.result.protocol.id}"
    heads = "".join(_heading(c) for c in shown)
    groups = [
        _group(
            "Reproduced here", shown, [_row(r, shown, _class(e)) for r, e in zip(own, standing.entrants, strict=True)]
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


def _class(entrant: Entrant) -> str:
    return f' class="{entrant.standing}"' if entrant.standing in (WINNER, TIED) else ""


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
    per_bin, looks = drawings.errors(standing)
    shares = [("train", "training heads"), ("test", "test heads")]
    more = len(standing.entrants) - drawings.LINES
    told = f"; the first {drawings.LINES} of {len(standing.entrants)} entrants" if more > 0 else ""
    return _figure("Share of heads per bin of 12 degrees", drawings.densities(standing), shares) + _figure(
        f"Mean absolute error in degrees per bin of the true angle{told}", per_bin, looks
    )


def _figure(title: str, panels: Sequence[str], looks: Sequence[tuple[str, str]]) -> str:
    key = "".join(f"<li>{drawings.swatch(css)} {escape(name)}</li>" for css, name in looks)
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
    return (files("ubhpd.leaderboard") / "leaderboard_page" / name).read_text(encoding="utf-8")
