"""Sentences around a table: its heads and what is wrong with them, how it is ranked, footnotes of printed rows.

The leaderboard as Markdown, as LaTeX with booktabs, and as a tidy CSV: one score of one method per line.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence

from ubhpd.leaderboards.columns import (
    COLUMNS,
    SCORES,
    Cell,
    Column,
    floor_cells,
    is_winner,
    method_cells,
    reported_cells,
)
from ubhpd.leaderboards.reported import COUNTERPARTS, Reported
from ubhpd.leaderboards.result import Side
from ubhpd.leaderboards.standings import BY_INTERVAL, PAIRED, TIED, Standing, one_line
from ubhpd.protocols.resolve import PROTOCOLS


class Footnotes:
    """Numbers the notes on printed rows, equal ones once.

    caveat: what holds for all printed rows of the table. texts: (mark, note), in their order.
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


HOW_RANKED = (
    "Methods are ranked by MAE, the mean over seeds with its standard deviation; the ends of the interval stand with "
    "it. An = marks those that the data cannot tell from the first. Lower is better throughout."
)


def head_line(standing: Standing) -> str:
    """Return what the protocol is."""
    own = PROTOCOLS.get(standing.result.protocol.id)
    return own.sentence if own is not None else "A protocol that this version of ubhpd does not know."


def facts(standing: Standing) -> list[tuple[str, str]]:
    """Return names and texts of what all methods of the table have in common."""
    own = standing.result
    p, r = own.protocol, own.resampling
    seed = "" if p.seed is None else f", divided with seed {p.seed}"
    return [
        ("Train", _side(own.train)),
        ("Test", _side(own.test)),
        ("Protocol", f"version {p.version}, definition {p.definition_hash[:12]}, heads {p.hash[:12]}{seed}"),
        ("Intervals", f"{100 * r.level:g} %, {r.rounds:,} resamples over {r.over} ({r.groups:,} of them)"),
        ("Ties", how_tied(standing)),
    ]


def warnings(standing: Standing) -> list[str]:
    """Return what is wrong with the heads, and versions that differ."""
    versions = sorted({e.result.ubhpd for e in standing.methods})
    mixed = [f"Results of several versions of ubhpd: {', '.join(versions)}."] if len(versions) > 1 else []
    return [*standing.result.protocol.warnings, *mixed]


def how_tied(standing: Standing) -> str:
    """Return how it was found which methods are tied with the first."""
    told = {e.told_by for e in standing.methods if e.told_by}
    if not told:
        return "nothing to compare: one ranked method"
    tied = sum(e.standing == TIED for e in standing.methods)
    ways = {
        PAIRED: "paired resamples of the predictions",
        BY_INTERVAL: "the interval of the first, predictions missing",
    }
    return f"{tied} with the first, by {' and '.join(ways[t] for t in sorted(told))}"


def _side(side: Side) -> str:
    datasets = ", ".join(f"{name} {heads:,}" for name, heads in side.datasets.items())
    return f"{side.heads:,} heads ({datasets}), fingerprint {side.fingerprint[:12]}"


TIDY = (
    "protocol", "protocol_hash", "train_fingerprint", "test_fingerprint", "origin", "model", "title", "options_hash",
    "score", "unit", "value", "sd", "low", "high", "seeds", "rank", "standing", "coverage",
)  # fmt: skip
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "{''}", "±": r"$\pm$", "–": "--", "°": r"\textdegree{}",
}  # fmt: skip
_MARKDOWN = re.compile(r"([\\`*_\[\]|#~!])")


def markdown(standings: Sequence[Standing]) -> str:
    """Return all tables as Markdown."""
    lines = ["# Leaderboard", "", HOW_RANKED, ""]
    for standing in standings:
        lines += [f"## {_md(standing.result.protocol.id)}", "", _md(head_line(standing)), ""]
        lines += [f"* {_md(name)}: {_md(text)}" for name, text in facts(standing)]
        lines += [f"* **Warning:** {_md(w)}" for w in warnings(standing)]
        notes = Footnotes(standing)
        shown = _filled([method_cells(e) for e in standing.methods])
        lines += ["", "Reproduced here, and the floor:", "", *_md_table(shown, _own_rows(standing))]
        if standing.reported:
            rows = [reported_cells(r, notes.marks(r)) for r in standing.reported]
            lines += ["", f"Reported in papers, not ranked. {_md(notes.caveat)}", "", *_md_table(_filled(rows), rows)]
            lines += ["", *(f"{mark} {_md(text)}  " for mark, text in notes.texts)]
        else:
            lines += ["", _md(standing.why_no_reported or "")]
        lines.append("")
    lines += ["## Columns", "", *(f"* {_md(c.title)}: {_md(c.meaning)} (docs/{c.page})" for c in COLUMNS)]
    return "\n".join(lines) + "\n"


def latex(standings: Sequence[Standing]) -> str:
    r"""Return one table per protocol, no wider than the text; needs \usepackage{booktabs,graphicx}.

    Intervals stand with the MAE alone, where they decide; all of them are in the CSV.
    """
    shown = [c for c in COLUMNS if c.key in ("rank", "model", *(s.key for s in SCORES), "parameters", "seeds")]
    lines = [r"% \usepackage{booktabs,graphicx}; in a paper of two columns write table* for table."]
    for standing in standings:
        notes = Footnotes(standing)
        own = standing.result
        counts = f"{own.train.heads:,} heads train, {own.test.heads:,} test."
        caption = f"{own.protocol.id}: {head_line(standing)} {counts} {HOW_RANKED}"
        lines += [r"\begin{table}", r"\centering", rf"\caption{{{_tex(caption)}}}"]
        lines += [r"\setlength{\tabcolsep}{4pt}", r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"]
        lines += [rf"\begin{{tabular}}{{{''.join('r' if c.is_number else 'l' for c in shown)}}}", r"\toprule"]
        lines += [_tex_row([_tex_title(c) for c in shown]), r"\midrule"]
        lines += _tex_rows([method_cells(e) for e in standing.methods], shown, [is_winner(e) for e in standing.methods])
        lines += [r"\midrule", *_tex_rows([floor_cells(standing.floor)], shown)]
        if standing.reported:
            told = rf"\multicolumn{{{len(shown)}}}{{l}}{{\emph{{Reported in papers, not ranked}}}} \\"
            rows = [reported_cells(r, notes.marks(r)) for r in standing.reported]
            lines += [r"\midrule", told, *_tex_rows(rows, shown)]
        lines += [r"\bottomrule", r"\end{tabular}}"]
        lines += [rf"\par\footnotesize {_tex(warning)}" for warning in warnings(standing)]
        lines += [rf"\par\footnotesize {mark} {_tex(text)}" for mark, text in notes.texts]
        lines += [r"\end{table}", ""]
    return "\n".join(lines)


def tidy(standings: Sequence[Standing]) -> str:
    """Return a CSV with one line per score: of methods ("reproduced"), of the floor, and of printed rows."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(TIDY)
    for standing in standings:
        own = standing.result
        table = (own.protocol.id, own.protocol.hash, own.train.fingerprint, own.test.fingerprint)
        unit = {name: s.unit for name, s in own.scores.items()}
        for e in standing.methods:
            last = (" ".join(map(str, e.seeds)), e.rank, e.standing, min(f.result.coverage for f in e.found))
            who = ("reproduced", e.name, e.result.title, e.result.options_hash)
            for name, v in e.values.items():
                writer.writerow((*table, *who, name, unit.get(name), v.mean, v.sd, v.low, v.high, *last))
        for name, value in standing.floor.scores.items():
            writer.writerow((*table, "floor", "mean pose", "", "", name, unit.get(name), value, *[None] * 7))
        for row in standing.reported:
            paper = f"{row.printed.paper}, table {row.printed.table}"
            for key, cell in reported_cells(row).items():
                if key != "model" and cell.value is not None:
                    who = ("reported", row.printed.method, paper, "")
                    writer.writerow((*table, *who, key, unit.get(key, "degrees"), cell.value, *[None] * 7))
    return text.getvalue()


FORMATS: Mapping[str, Callable[[Sequence[Standing]], str]] = {"md": markdown, "csv": tidy, "tex": latex}


def _own_rows(standing: Standing) -> list[dict[str, Cell]]:
    return [*(method_cells(e) for e in standing.methods), floor_cells(standing.floor)]


def _filled(rows: Sequence[Mapping[str, Cell]]) -> list[Column]:
    """Return the columns in which any of the rows has something."""
    return [c for c in COLUMNS if any(row.get(c.key, Cell("")).value is not None for row in rows)]


def _md_table(shown: Sequence[Column], rows: Sequence[Mapping[str, Cell]]) -> list[str]:
    head = ["| " + " | ".join(_md(c.title) for c in shown) + " |"]
    head.append("|" + "|".join("---:" if c.is_number else "---" for c in shown) + "|")
    return head + ["| " + " | ".join(_md_cell(row.get(c.key)) for c in shown) + " |" for row in rows]


def _md_cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return _md(cell.text) + (f" ({_md(cell.small)})" if cell.small else "")


def _md(text: str) -> str:
    """Return text so that Markdown shows it as it is, in one line."""
    plain = _MARKDOWN.sub(r"\\\1", one_line(text).replace("&", "&amp;"))
    return plain.replace("<", "&lt;").replace(">", "&gt;")


def _tex_rows(rows: Sequence[Mapping[str, Cell]], shown: Sequence[Column], bold: Sequence[bool] = ()) -> list[str]:
    lines = []
    for i, row in enumerate(rows):
        cells = [_tex_cell(row.get(c.key, Cell("")), c) for c in shown]
        if i < len(bold) and bold[i]:
            cells = [rf"\textbf{{{c}}}" if c else c for c in cells]
        lines.append(_tex_row(cells))
    return lines


def _tex_title(column: Column) -> str:
    return _stacked(*map(_tex, column.title.split())) if column.is_number else _tex(column.title)


def _tex_cell(cell: Cell, column: Column) -> str:
    if not column.is_number:
        return _tex(cell.text)
    value, _, spread = cell.text.partition(" ± ")
    above, below = (cell.text, cell.small) if column.key == "mae" else (value, spread and f"± {spread}")
    return _stacked(_tex(above), rf"{{\scriptsize {_tex(below)}}}") if below else _tex(above)


def _stacked(*lines: str) -> str:
    return lines[0] if len(lines) == 1 else r"\shortstack[r]{" + r"\\".join(lines) + "}"


def _tex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _tex(text: str) -> str:
    """Return text so that LaTeX prints it as it is."""
    return "".join(_LATEX.get(c, c) for c in one_line(text))
