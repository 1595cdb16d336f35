"""The notebooks: all of them run, hold no outputs and no logic, and only call what other users can call."""

import ast
import json
import re
import sys
from pathlib import Path

import pytest
from wheel_check import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "notebooks"))

import execute

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
NEEDS_TORCH = ("3-training-and-comparing",)


def code_of(path):
    return [c.text.replace("%matplotlib inline", "") for c in execute.cells(path) if c.kind == "code"]


def notebook(path, *cells):
    """Write a notebook of cells (kind, text)."""
    content = {"cells": [{"cell_type": k, "source": t.splitlines(keepends=True)} for k, t in cells]}
    path.write_text(json.dumps(content))
    return path


def test_there_are_three():
    assert [p.stem[0] for p in NOTEBOOKS] == ["1", "2", "3"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    if path.stem in NEEDS_TORCH:
        pytest.importorskip("torch")
    monkeypatch.setenv("UBHPD_NOTEBOOK_HEADS", "24")
    monkeypatch.setenv("UBHPD_NOTEBOOK_STEPS", "2")
    monkeypatch.delenv("UBHPD_DATA", raising=False)
    done = list(execute.executed(path, tmp_path))
    assert [cell for cell, _ in done] == execute.cells(path)
    shown = [s for _, own in done for s in own]
    images = [s.content for s in shown if s.kind == "png"]
    assert len(images) >= 2 and all(p.startswith(b"\x89PNG") and len(p) > 5_000 for p in images)
    assert any(s.kind == "html" for s in shown) and Path.cwd() != tmp_path


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_stored_without_outputs_in_format_4(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert content["metadata"]["kernelspec"] == {"display_name": "Python 3", "language": "python", "name": "python3"}
    ids = [cell["id"] for cell in content["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in content["cells"]:
        keys = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            keys |= {"execution_count", "outputs"}
            assert cell["execution_count"] is None and cell["outputs"] == []
        assert set(cell) == keys and cell["cell_type"] in ("code", "markdown") and cell["metadata"] == {}
        assert "".join(cell["source"]).strip() and all(line.endswith("\n") for line in cell["source"][:-1])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_holds_no_logic_and_calls_what_is_public(path):
    for code in code_of(path):
        tree = ast.parse(code)
        assert not [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef, ast.While, ast.Try))]
        assert not [n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr.startswith("_")]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert not {p[0] for p in [*node.module.split("."), *(a.name for a in node.names)]} & {"_"}
        assert code.strip().count("\n") < 25 and max(map(len, code.splitlines())) <= 120


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
    made = ["index.md", *(f"notebooks/{p.stem}.md" for p in NOTEBOOKS)]
    assert sorted(re.findall(r"[\w/-]+\.md", nav)) == sorted(pages + made)
