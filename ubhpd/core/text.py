"""Text of every kind that the package writes: tables for a terminal, escapes of each format, and templates.

Whatever comes out of a file of somebody else (names, notes, paths) goes through the escape of the format it is put in.
The templates lie in `ubhpd/templates`; what they print is escaped without being asked to: as HTML in NAME.html.jinja,
as Markdown in NAME.md.jinja, as LaTeX in NAME.tex.jinja, as a JSON string (which YAML and Python read, too) in any
other. Text of type `Markup` is in the format already and is printed as it is. The templates of LaTeX, which has braces
of its own, have their marks in angle brackets: <% if x %> and << x >>.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from jinja2 import Template

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "{''}", "±": r"$\pm$", "–": "--", "°": r"\textdegree{}",
}  # fmt: skip
_MARKDOWN = re.compile(r"([\\`*_\[\]|#~!])")
_ANGLE_BRACKETS: dict[str, Any] = {
    "block_start_string": "<%", "block_end_string": "%>", "variable_start_string": "<<", "variable_end_string": ">>",
    "comment_start_string": "<#", "comment_end_string": "#>",
}  # fmt: skip
_SAFE_IN_ADDRESS = ":/?#@!$&'*+,;=%-._~"
_FORMULA = re.compile(r"\s*([=@＝＠]|[+＋－-][^\d.\s])")  # also the full-width characters


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned columns, numbers to the right; the first row is the header."""
    shown = [[printable(cell).replace("\n", "\\n") for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in shown) for i in range(len(shown[0]))]
    numeric = [all(_is_number(row[i]) for row in shown[1:]) for i in range(len(widths))]
    lines = []
    for row in shown:
        cells = (c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def printable(text: str) -> str:
    r"""Return text whose control characters are visible (ESC as \x1b), so that a terminal does not obey them.

    Line ends and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """Return text with a single space for each run of white space and control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def markdown_text(text: str) -> str:
    """Return text in one line so that Markdown shows it as it is."""
    plain = _MARKDOWN.sub(r"\\\1", one_line(text).replace("&", "&amp;"))
    return plain.replace("<", "&lt;").replace(">", "&gt;")


def markdown_code(text: str) -> str:
    """Return text in one line as a Markdown code span, also fit for a cell of a table."""
    plain = one_line(text).replace("|", r"\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", plain)), default=0))
    return f"{fence}{plain}{fence}" if len(fence) == 1 else f"{fence} {plain} {fence}"


def markdown_link(text: str, address: str) -> str:
    """Return a Markdown link to an address of the web; characters that would end it are encoded."""
    return f"[{markdown_text(text)}]({quote(address, safe=_SAFE_IN_ADDRESS)})"


def latex_text(text: str) -> str:
    """Return text in one line so that LaTeX prints it as it is."""
    return "".join(_LATEX.get(c, c) for c in one_line(text))


def csv_text(text: str) -> str:
    """Return text that no spreadsheet takes for a formula: where it begins like one, an apostrophe is put before it."""
    return f"'{text}" if _FORMULA.match(text) else text


def csv_lines(rows: Iterable[Iterable[Any]]) -> str:
    r"""Return rows as CSV whose lines end with \n: every CSV file that the package writes is made of these.

    A text that begins like a formula gets an apostrophe, see `csv_text`; None is an empty cell.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([csv_text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return text.getvalue()


def rendered(template: str, /, **values: Any) -> str:
    """Return a template of `ubhpd/templates` filled with values.

    Args:
        template: file name without its last suffix, as "leaderboard.html".
        values: the variables of the template; one that is missing is an error.
    """
    return _template(template).render(values)


def template_part(name: str) -> str:
    """Return a file of `ubhpd/templates` as it is: a style sheet or a script."""
    return (files("ubhpd") / "templates" / name).read_text(encoding="utf-8")


def content_hash(text: str) -> str:
    """Return the hash by which a content security policy lets this style sheet or script through."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@lru_cache(maxsize=16)
def _template(name: str) -> Template:
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup
    from markupsafe import escape as html_text

    kind = name.rpartition(".")[2]
    escape: Callable[[str], str] = {"md": markdown_text, "tex": latex_text}.get(kind, json.dumps)

    def shown(value: Any) -> Any:
        return value if isinstance(value, Markup) else escape(str(value))

    is_html = kind == "html"
    environment = Environment(
        loader=FunctionLoader(lambda own: template_part(f"{own}.jinja")),
        autoescape=is_html,
        finalize=None if is_html else shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **(_ANGLE_BRACKETS if kind == "tex" else {}),
    )
    environment.filters["thousands"] = lambda number: f"{number:,}"
    environment.filters["number"] = lambda number: Markup(f"{number:g}")
    if is_html:  # a long name may be broken after an underscore
        environment.filters["breakable"] = lambda text: Markup(str(html_text(text)).replace("_", "_<wbr>"))
    else:
        environment.filters["code"] = lambda text: Markup(markdown_code(str(text)))
        environment.filters["link"] = lambda text, address: Markup(markdown_link(str(text), str(address)))
    return environment.get_template(name)


def _is_number(text: str) -> bool:
    return text.replace(",", "").isdigit() or not text
