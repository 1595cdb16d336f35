"""Runs the cells of a notebook in this process, from top to bottom, and gives what each one shows; without Jupyter.

The tests run the notebooks so, and the documents' site shows what comes out. What a cell shows is what it prints, then
the value of its last expression: a matplotlib figure as PNG, what has an HTML form as that, all else as text, and
nothing if it ends with a semicolon. Lines that begin with % are for Jupyter alone.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from joblib.externals.loky import get_reusable_executor
from matplotlib.figure import Figure

_DPI = 130
_MAGIC = re.compile(r"^%.*$", re.MULTILINE)


class Cell(NamedTuple):
    """A cell: "markdown" or "code", and its text."""

    kind: str
    text: str


class Shown(NamedTuple):
    """Something a cell shows: "text" or "html" as text, "png" as the bytes of a file."""

    kind: str
    content: str | bytes


def cells(path: Path) -> list[Cell]:
    """Return the cells of a notebook."""
    return [Cell(c["cell_type"], "".join(c["source"])) for c in json.loads(path.read_text(encoding="utf-8"))["cells"]]


def executed(path: Path, folder: Path) -> Iterator[tuple[Cell, list[Shown]]]:
    """Yield each cell of a notebook with what it shows; while it runs `folder` is the working directory.

    Raises:
        RuntimeError: a cell fails; it names the notebook, the cell and the fault.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    get_reusable_executor().shutdown()  # processes of an earlier notebook have that one's working directory
    for number, cell in enumerate(cells(path), start=1):
        here = Path.cwd()
        os.chdir(folder)
        try:
            shown = _run(cell.text, names, f"{path.stem}, cell {number}") if cell.kind == "code" else []
        except Exception as error:
            raise RuntimeError(f"{path.name}, cell {number}: {type(error).__name__}: {error}") from error
        finally:
            os.chdir(here)
        yield cell, shown


def _run(text: str, names: dict[str, Any], title: str) -> list[Shown]:
    """Run code and return what it shows."""
    tree = ast.parse(_MAGIC.sub("", text))
    last = tree.body[-1] if tree.body and not text.rstrip().endswith(";") else None
    asked = ast.Expression(last.value) if isinstance(last, ast.Expr) else None
    if asked is not None:
        tree.body.pop()
    value = None
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, title, "exec"), names)
        if asked is not None:
            value = eval(compile(asked, title, "eval"), names)
    shown = [Shown("text", printed.getvalue())] if printed.getvalue() else []
    return shown if value is None else [*shown, _shown(value)]


def _shown(value: Any) -> Shown:
    if isinstance(value, Figure):
        buffer = io.BytesIO()
        value.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight")
        return Shown("png", buffer.getvalue())
    if hasattr(value, "_repr_html_"):
        return Shown("html", value._repr_html_())
    return Shown("text", f"{value!r}\n")
