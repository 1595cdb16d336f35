"""The leaderboard as Markdown, as LaTeX with booktabs, and as a tidy CSV with one score of one method per line.

Also the sentences around a table, which the page uses too: its heads and warnings about them, how methods are ranked,
footnotes of reported rows.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence

from ubhpd.core.text import csv_text, latex_text, markdown_text
from ubhpd.leaderboards.columns import (
    COLUMNS,
    SCORES,
    Cell,
    Column,
    baseline_cells,
    is_winner,
    method_cells,
    reported_cells,
)
from ubhpd.leaderboards.reported import COUNTERPARTS, Reported
from ubhpd.leaderboards.result import Split
from ubhpd.leaderboards.standings import BY_INTERVAL, PAIRED, TIED, Standing


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


HOW_RANKED = (
    "Methods are ranked by MAE: the mean over seeds with its standard deviation, and the ends of its confidence "
    "interval. An = marks methods that do not differ significantly from the first. Lower is better in every "
    "column of errors."
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
        ("Training split", _split(own.train)),
        ("Test split", _split(own.test)),
        ("Protocol", f"version {p.version}, definition hash {p.definition_hash[:12]}, list hash {p.hash[:12]}{seed}"),
        ("Intervals", f"{100 * r.level:g} %, {r.rounds:,} resamples over {r.over} ({r.groups:,} of them)"),
        ("Ties", how_tied(standing)),
    ]


def warnings(standing: Standing) -> list[str]:
    """Return the warnings of the protocol, and whether results are of several versions."""
    versions = sorted({e.result.ubhpd for e in standing.methods})
    mixed = [f"Results of several versions of ubhpd: {', '.join(versions)}."] if len(versions) > 1 else []
    return [*standing.result.protocol.warnings, *mixed]


def how_tied(standing: Standing) -> str:
    """Return how it was decided which methods are tied with the first."""
    decided = {e.decided_by for e in standing.methods if e.decided_by}
    if not decided:
        return "nothing to compare: one ranked method"
    tied = sum(e.standing == TIED for e in standing.methods)
    ways = {
        PAIRED: "paired resamples of the predictions",
        BY_INTERVAL: "the interval of the first where predictions are missing",
    }
    return f"{tied} with the first, by {' and '.join(ways[t] for t in sorted(decided))}"


def _split(split: Split) -> str:
    datasets = ", ".join(f"{name} {heads:,}" for name, heads in split.datasets.items())
    return f"{split.heads:,} heads ({datasets}), fingerprint {split.fingerprint[:12]}"


TIDY = (
    "protocol", "protocol_hash", "train_fingerprint", "test_fingerprint", "origin", "model", "title", "options_hash",
    "score", "unit", "value", "sd", "low", "high", "seeds", "rank", "standing", "coverage",
)  # fmt: skip


def markdown(standings: Sequence[Standing]) -> str:
    """Return all tables as Markdown."""
    lines = ["# Leaderboard", "", HOW_RANKED, ""]
    for standing in standings:
        lines += [f"## {markdown_text(standing.result.protocol.id)}", "", markdown_text(head_line(standing)), ""]
        lines += [f"* {markdown_text(name)}: {markdown_text(text)}" for name, text in facts(standing)]
        lines += [f"* **Warning:** {markdown_text(w)}" for w in warnings(standing)]
        notes = Footnotes(standing)
        shown = _filled([method_cells(e) for e in standing.methods])
        lines += ["", "Reproduced here, and the mean-pose baseline:", "", *_md_table(shown, _own_rows(standing))]
        if standing.reported:
            rows = [reported_cells(r, notes.marks(r)) for r in standing.reported]
            lines += [
                "",
                f"Reported in papers, not ranked. {markdown_text(notes.caveat)}",
                "",
                *_md_table(_filled(rows), rows),
            ]
            lines += ["", *(f"{mark} {markdown_text(text)}  " for mark, text in notes.texts)]
        else:
            lines += ["", markdown_text(standing.why_no_reported or "")]
        lines.append("")
    lines += [
        "## Columns",
        "",
        *(f"* {markdown_text(c.title)}: {markdown_text(c.meaning)} (docs/{c.page})" for c in COLUMNS),
    ]
    return "\n".join(lines) + "\n"


def latex(standings: Sequence[Standing]) -> str:
    r"""Return one table per protocol, no wider than the text; needs \usepackage{booktabs,graphicx}.

    Only the MAE has its interval beside it; the CSV holds all intervals.
    """
    shown = [c for c in COLUMNS if c.key in ("rank", "model", *(s.key for s in SCORES), "parameters", "seeds")]
    lines = [r"% \usepackage{booktabs,graphicx}; in a paper of two columns write table* for table."]
    for standing in standings:
        notes = Footnotes(standing)
        own = standing.result
        counts = f"{own.train.heads:,} heads train, {own.test.heads:,} test."
        caption = f"{own.protocol.id}: {head_line(standing)} {counts} {HOW_RANKED}"
        lines += [r"\begin{table}", r"\centering", rf"\caption{{{latex_text(caption)}}}"]
        lines += [r"\setlength{\tabcolsep}{4pt}", r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"]
        lines += [rf"\begin{{tabular}}{{{''.join('r' if c.is_number else 'l' for c in shown)}}}", r"\toprule"]
        lines += [_tex_row([_tex_title(c) for c in shown]), r"\midrule"]
        lines += _tex_rows([method_cells(e) for e in standing.methods], shown, [is_winner(e) for e in standing.methods])
        lines += [r"\midrule", *_tex_rows([baseline_cells(standing.baseline)], shown)]
        if standing.reported:
            title = rf"\multicolumn{{{len(shown)}}}{{l}}{{\emph{{Reported in papers, not ranked}}}} \\"
            rows = [reported_cells(r, notes.marks(r)) for r in standing.reported]
            lines += [r"\midrule", title, *_tex_rows(rows, shown)]
        lines += [r"\bottomrule", r"\end{tabular}}"]
        lines += [rf"\par\footnotesize {latex_text(warning)}" for warning in warnings(standing)]
        lines += [rf"\par\footnotesize {mark} {latex_text(text)}" for mark, text in notes.texts]
        lines += [r"\end{table}", ""]
    return "\n".join(lines)


def tidy(standings: Sequence[Standing]) -> str:
    """Return a CSV with one line per score: origin is "reproduced", "baseline" (mean pose) or "reported"."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(TIDY)

    def write(*cells: object) -> None:
        writer.writerow([csv_text(c) if isinstance(c, str) else c for c in cells])

    for standing in standings:
        own = standing.result
        table = (own.protocol.id, own.protocol.hash, own.train.fingerprint, own.test.fingerprint)
        unit = {name: s.unit for name, s in own.scores.items()}
        for e in standing.methods:
            last = (" ".join(map(str, e.seeds)), e.rank, e.standing, min(f.result.coverage for f in e.runs))
            who = ("reproduced", e.name, e.result.title, e.result.options_hash)
            for name, v in e.values.items():
                write(*table, *who, name, unit.get(name), v.mean, v.sd, v.low, v.high, *last)
        for name, value in standing.baseline.scores.items():
            write(*table, "baseline", "mean pose", "", "", name, unit.get(name), value, *[None] * 7)
        for row in standing.reported:
            paper = f"{row.printed.paper}, table {row.printed.table}"
            for key, cell in reported_cells(row).items():
                if key != "model" and cell.value is not None:
                    who = ("reported", row.printed.method, paper, "")
                    write(*table, *who, key, unit.get(key, "degrees"), cell.value, *[None] * 7)
    return text.getvalue()


FORMATS: Mapping[str, Callable[[Sequence[Standing]], str]] = {"md": markdown, "csv": tidy, "tex": latex}


def _own_rows(standing: Standing) -> list[dict[str, Cell]]:
    return [*(method_cells(e) for e in standing.methods), baseline_cells(standing.baseline)]


def _filled(rows: Sequence[Mapping[str, Cell]]) -> list[Column]:
    """Return the columns in which any of the rows has a value."""
    return [c for c in COLUMNS if any(row.get(c.key, Cell("")).value is not None for row in rows)]


def _md_table(shown: Sequence[Column], rows: Sequence[Mapping[str, Cell]]) -> list[str]:
    head = ["| " + " | ".join(markdown_text(c.title) for c in shown) + " |"]
    head.append("|" + "|".join("---:" if c.is_number else "---" for c in shown) + "|")
    return head + ["| " + " | ".join(_md_cell(row.get(c.key)) for c in shown) + " |" for row in rows]


def _md_cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return markdown_text(cell.text) + (f" ({markdown_text(cell.small)})" if cell.small else "")


def _tex_rows(rows: Sequence[Mapping[str, Cell]], shown: Sequence[Column], bold: Sequence[bool] = ()) -> list[str]:
    lines = []
    for i, row in enumerate(rows):
        cells = [_tex_cell(row.get(c.key, Cell("")), c) for c in shown]
        if i < len(bold) and bold[i]:
            cells = [rf"\textbf{{{c}}}" if c else c for c in cells]
        lines.append(_tex_row(cells))
    return lines


def _tex_title(column: Column) -> str:
    return _stacked(*map(latex_text, column.title.split())) if column.is_number else latex_text(column.title)


def _tex_cell(cell: Cell, column: Column) -> str:
    if not column.is_number:
        return latex_text(cell.text)
    value, _, spread = cell.text.partition(" ± ")
    above, below = (cell.text, cell.small) if column.key == "mae" else (value, spread and f"± {spread}")
    return _stacked(latex_text(above), rf"{{\scriptsize {latex_text(below)}}}") if below else latex_text(above)


def _stacked(*lines: str) -> str:
    return lines[0] if len(lines) == 1 else r"\shortstack[r]{" + r"\\".join(lines) + "}"


def _tex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
