"""Runs the cells of a notebook in this process, from top to bottom, and gives what each one shows; without Jupyter.

The tests run the notebooks so. `python notebooks/execute.py` runs all of them, or those named, and stores in the files
what they show. What a cell shows is what it prints, then the figures that it drew with pyplot, then the value of its
last expression: a matplotlib figure as PNG, what has an HTML form as that, all else as text, and nothing if it ends
with a semicolon. Lines that begin with % are for Jupyter alone.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from joblib.externals.loky import get_reusable_executor
from matplotlib.figure import Figure
from PIL import Image

_DPI = 80  # of stored images: a notebook stays below 600 KB
_MAGIC = re.compile(r"^%.*$", re.MULTILINE)
_STYLE = re.compile(r"<style.*?</style>\s*", re.DOTALL)


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


def executed(
    path: Path, folder: Path, parameters: Mapping[str, Any] | None = None
) -> Iterator[tuple[Cell, list[Shown]]]:
    """Yield each cell of a notebook with what it shows; while it runs `folder` is the working directory.

    Args:
        path: the notebook.
        folder: where its files go.
        parameters: values for names that the notebook gives a constant, in place of that constant.

    Raises:
        RuntimeError: a cell fails; it names the notebook, the cell and the error.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    get_reusable_executor().shutdown()  # processes of an earlier notebook have that one's working directory
    for number, cell in enumerate(cells(path), start=1):
        here = Path.cwd()
        os.chdir(folder)
        try:
            title = f"{path.stem}, cell {number}"
            shown = _run(cell.text, names, title, parameters or {}) if cell.kind == "code" else []
        except Exception as error:
            raise RuntimeError(f"{path.name}, cell {number}: {type(error).__name__}: {error}") from error
        finally:
            os.chdir(here)
        yield cell, shown


def stored(path: Path) -> list[tuple[Cell, list[Shown]]]:
    """Return each cell of a notebook with the outputs that are stored in its file."""
    found = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        shown = [_of_output(output) for output in cell.get("outputs", [])]
        found.append((Cell(cell["cell_type"], "".join(cell["source"])), shown))
    return found


def store(path: Path) -> None:
    """Run a notebook and write what its cells show into its file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        for own, (cell, shown) in zip(content["cells"], executed(path, Path(folder)), strict=True):
            if cell.kind == "code":
                own["outputs"] = [_to_output(s) for s in shown]
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _to_output(shown: Shown) -> dict[str, Any]:
    """Return an output as notebook format 4 has it; execution counts stay empty, so that runs give equal files."""
    if shown.kind == "text":
        return {"name": "stdout", "output_type": "stream", "text": str(shown.content).splitlines(keepends=True)}
    if isinstance(shown.content, bytes):
        encoded = base64.b64encode(shown.content).decode()
        return {
            "data": {"image/png": encoded, "text/plain": ["<Figure>"]},
            "metadata": {},
            "output_type": "display_data",
        }
    html = _STYLE.sub("", shown.content).splitlines(keepends=True)
    return {"data": {"text/html": html, "text/plain": ["<table>"]}, "metadata": {}, "output_type": "display_data"}


def _of_output(output: Mapping[str, Any]) -> Shown:
    if output["output_type"] == "stream":
        return Shown("text", "".join(output["text"]))
    if "image/png" in output["data"]:
        return Shown("png", base64.b64decode(output["data"]["image/png"]))
    return Shown("html", "".join(output["data"]["text/html"]))


class _Parameters(ast.NodeTransformer):
    """Puts other constants in the place of those that names get."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:
        target = node.targets[0]
        if isinstance(target, ast.Name) and target.id in self._values and isinstance(node.value, ast.Constant):
            node.value = ast.copy_location(ast.Constant(self._values[target.id]), node.value)
        return node


def _run(text: str, names: dict[str, Any], title: str, parameters: Mapping[str, Any]) -> list[Shown]:
    """Run code and return what it shows."""
    matplotlib.use("agg")
    tree = _Parameters(parameters).visit(ast.parse(_MAGIC.sub("", text)))
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
    shown += map(_shown, _pyplot_figures())
    return shown if value is None else [*shown, _shown(value)]


def _pyplot_figures() -> list[Figure]:
    """Return the figures that pandas or the cell opened with pyplot, and close them, as Jupyter does."""
    if "matplotlib.pyplot" not in sys.modules:
        return []
    from matplotlib import pyplot as plt

    figures = [plt.figure(number) for number in plt.get_fignums()]
    plt.close("all")
    return figures


def _small(png: bytes) -> bytes:
    """Return an image with at most 128 colours, a third of the bytes."""
    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.quantize(128, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _shown(value: Any) -> Shown:
    if isinstance(value, Figure):
        buffer = io.BytesIO()
        value.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight", metadata={"Software": None})
        return Shown("png", _small(buffer.getvalue()))
    if hasattr(value, "_repr_html_"):
        return Shown("html", value._repr_html_())
    return Shown("text", f"{value!r}\n")


def main() -> None:
    """Store the outputs of the notebooks that are named, or of all."""
    for path in map(Path, sys.argv[1:]) if sys.argv[1:] else sorted(Path(__file__).parent.glob("*.ipynb")):
        print(path, flush=True)
        store(path)


if __name__ == "__main__":
    main()
