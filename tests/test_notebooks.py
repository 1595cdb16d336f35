"""The notebooks: all of them run, are stored with their outputs, hold no logic, and use the public API alone."""

import ast
import json
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from wheel_check import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "notebooks"))

import execute

import ubhpd

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
NEEDS_TORCH = ("3-training-and-comparing",)
SMALL = {"HEADS": 24, "STEPS": 2}
MOST_KILOBYTES = 600
OUTPUT_KEYS = {"stream": {"name", "output_type", "text"}, "display_data": {"data", "metadata", "output_type"}}


def code_of(path):
    return [c.text.replace("%matplotlib inline", "") for c in execute.cells(path) if c.kind == "code"]


def notebook(path, *cells):
    """Write a notebook of cells (kind, text)."""
    content = {"cells": [{"cell_type": k, "source": t.splitlines(keepends=True)} for k, t in cells]}
    path.write_text(json.dumps(content))
    return path


def test_there_are_three():
    assert [p.stem[0] for p in NOTEBOOKS] == ["1", "2", "3"]


def shows_something(png):
    """Whether a figure is of a fair size and drawn on: one pixel in a hundred is not white, in many colours."""
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None and png.startswith(b"\x89PNG")
    height, width = image.shape[:2]
    drawn = (image < 250).any(axis=2)
    return width >= 300 and height >= 150 and drawn.mean() > 0.01 and len(np.unique(image.reshape(-1, 3), axis=0)) > 20


def test_an_empty_figure_shows_nothing():
    white = np.full((400, 600, 3), 255, np.uint8)
    assert not shows_something(cv2.imencode(".png", white)[1].tobytes())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs_and_shows_what_is_stored(path, tmp_path):
    if path.stem in NEEDS_TORCH:
        pytest.importorskip("torch")
    done = list(execute.executed(path, tmp_path, SMALL))
    assert [cell for cell, _ in done] == execute.cells(path)
    shown = [s for _, own in done for s in own]
    images = [s.content for s in shown if s.kind == "png"]
    assert len(images) >= 2 and all(map(shows_something, images))
    assert any(s.kind == "html" for s in shown) and Path.cwd() != tmp_path
    stored = [[s.kind for s in own] for _, own in execute.stored(path)]
    assert stored == [[s.kind for s in own] for _, own in done]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_stored_with_outputs_in_format_4(path):
    assert path.stat().st_size < MOST_KILOBYTES * 1024
    content = json.loads(path.read_text(encoding="utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert content["metadata"]["kernelspec"] == {"display_name": "Python 3", "language": "python", "name": "python3"}
    ids = [cell["id"] for cell in content["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in content["cells"]:
        keys = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            keys |= {"execution_count", "outputs"}
            assert cell["execution_count"] is None
            assert all(set(o) in OUTPUT_KEYS.values() and o.get("metadata", {}) == {} for o in cell["outputs"])
        assert set(cell) == keys and cell["cell_type"] in ("code", "markdown") and cell["metadata"] == {}
        assert "".join(cell["source"]).strip() and all(line.endswith("\n") for line in cell["source"][:-1])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_holds_no_logic_and_uses_the_public_api(path):
    lines = [line for code in code_of(path) for line in code.splitlines()]
    imported = [line for line in lines if line.startswith(("import ", "from "))]
    assert len(imported) == 2 and "import ubhpd" in imported
    for code in code_of(path):
        tree = ast.parse(code)
        assert not [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef, ast.While, ast.Try))]
        attributes = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute)]
        assert not [n.attr for n in attributes if n.attr.startswith("_")]
        used = {n.attr for n in attributes if isinstance(n.value, ast.Name) and n.value.id == "ubhpd"}
        assert used <= set(ubhpd.__all__)
        assert code.strip().count("\n") < 25 and max(map(len, code.splitlines())) <= 120


def test_parameters_replace_constants_and_nothing_else(tmp_path):
    path = notebook(
        tmp_path / "a.ipynb", ("code", "HEADS = 400  # images\nOTHER = HEADS + 1"), ("code", "HEADS, OTHER")
    )
    shown = [own for _, own in execute.executed(path, tmp_path, {"HEADS": 3, "OTHER": 7})]
    assert shown[1] == [execute.Shown("text", "(3, 4)\n")]


def test_what_is_stored_is_what_was_shown(tmp_path):
    path = notebook(
        tmp_path / "a.ipynb",
        ("markdown", "# T"),
        ("code", "print('said')"),
        ("code", "import pandas as pd\npd.DataFrame({'a': [1]})"),
        ("code", "pd.Series([1, 2]).plot();"),
        ("code", "x = 1"),
    )
    execute.store(path)
    first = path.read_bytes()
    stored = execute.stored(path)
    assert [[s.kind for s in own] for _, own in stored] == [[], ["text"], ["html"], ["png"], []]
    assert stored[1][1][0].content == "said\n" and "<td>1</td>" in stored[2][1][0].content
    assert stored[3][1][0].content.startswith(b"\x89PNG")
    execute.store(path)
    assert path.read_bytes() == first


def test_what_a_cell_shows(tmp_path):
    path = notebook(
        tmp_path / "a.ipynb",
        ("markdown", "# A title"),
        ("code", "%matplotlib inline\nfrom pathlib import Path\nprint('said')\n2 + 3"),
        ("code", "x = 4"),
        ("code", "x;"),
        ("code", "import pandas as pd\npd.DataFrame({'a': [x]})"),
        ("code", "from ubhpd.reports.figures import new_figure\nnew_figure(2, 1)"),
        ("code", "Path('left.txt').write_text('here')"),
    )
    folder = tmp_path / "work"
    folder.mkdir()
    shown = [[(s.kind, s.content) for s in own] for _, own in execute.executed(path, folder)]
    assert shown[:4] == [[], [("text", "said\n"), ("text", "5\n")], [], []]
    assert shown[4][0][0] == "html" and "<td>4</td>" in shown[4][0][1]
    assert shown[5][0][0] == "png" and (folder / "left.txt").read_text() == "here"


def test_a_cell_that_fails_is_named_and_the_folder_is_left(tmp_path):
    path = notebook(tmp_path / "a.ipynb", ("code", "x = 1"), ("code", "x / 0"))
    here = Path.cwd()
    with pytest.raises(RuntimeError, match=r"a\.ipynb, cell 2: ZeroDivisionError: division by zero"):
        list(execute.executed(path, tmp_path))
    assert Path.cwd() == here


def test_the_site_has_every_page_and_every_notebook_once():
    nav = (REPOSITORY / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    docs = REPOSITORY / "docs"
    pages = [p.relative_to(docs).as_posix() for p in docs.rglob("*.md")]
    made = ["index.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"notebooks/{p.stem}.md" for p in NOTEBOOKS)]
    metrics = [page for page in pages if page.startswith("metrics/")]  # docs/hook.py puts them where nav says metrics/
    assert "Metrics: metrics/" in nav
    assert sorted([*re.findall(r"[\w/-]+\.md", nav), *metrics]) == sorted(pages + made)
