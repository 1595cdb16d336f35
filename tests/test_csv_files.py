"""No CSV file that the package writes holds a cell that a spreadsheet takes for a formula."""

from __future__ import annotations

import ast
import csv
import io
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from test_structure import REPOSITORY, python_files

from ubhpd.core.text import csv_lines
from ubhpd.exports import _crops
from ubhpd.inference import prediction_file
from ubhpd.protocols import resolve
from ubhpd.quality import audit, checks, decisions
from ubhpd.reports import figures
from ubhpd.sampling import densities
from ubhpd.synth import synthesize

EVIL = ("=HYPERLINK(0)", "@SUM(A1)", "+cmd|' /C calc'!A0", "-A1", "\t=1", " =1", "＝1+1", "=1,\n=2")
WRITERS = {"csv.writer", "csv.DictWriter", "csv.write_csv", "pacsv.write_csv"}
# Tables in memory that the API hands to the command's code, in a folder that is removed at once.
IN_MEMORY = {("ubhpd/api/runs.py", "frame.to_csv")}


def is_formula(cell):
    text = cell.lstrip()
    return text[:1] in tuple("=@＝＠") or (text[:1] in tuple("+-＋－") and text[1:2].isalpha())


def test_one_function_writes_all_csv_files():
    """A writer that goes round csv_lines would write cells as they are."""
    found = set()
    for folder in ("ubhpd", "builders", "baselines", "metrics"):
        for path in python_files(folder):
            own = path.relative_to(REPOSITORY).as_posix()
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    called = ast.unparse(node.func)
                    if called in WRITERS or called.endswith(".to_csv"):
                        found.add((own, called))
    assert found - IN_MEMORY == {("ubhpd/core/text.py", "csv.writer")}


@pytest.mark.parametrize("text", EVIL)
def test_lines_hold_no_formula_and_numbers_as_they_are(text):
    (row,) = csv.reader(io.StringIO(csv_lines([[text, -1.5, "-1.5", "+.5", None, "a=b"]]), newline=""))
    assert row == [f"'{text}", "-1.5", "-1.5", "+.5", "", "a=b"]


def _decisions(folder, text):
    place = folder / "decisions.csv"
    for decision in (decisions.KEEP, decisions.DROP):  # a line more, then the file anew
        decisions.record(place, decisions.Decision(text, decision, text, text))
    return place


def _exported(folder, text):
    _crops.write_table(["sample_id", "subject_id"], [[text, text]], folder / "heads.csv")
    return folder / "heads.csv"


def _leaks(folder, text):
    table = pa.table({"train": [text], "test": [text], "kind": ["person"], "distance": [None], "partners": [1]})
    audit.write_list(SimpleNamespace(pairs=lambda: table), folder / "leaks.csv")
    return folder / "leaks.csv"


def _flags(folder, text):
    table = pa.table({"sample_id": [text], "flag": ["large_box"], "value": [-2.5], "detail": [text]})
    checks.write_flags(table, folder / "flags.csv")
    return folder / "flags.csv"


def _protocol(folder, text):
    content = resolve.list_text(SimpleNamespace(train=(text,), test=(text,)))
    (folder / "list.csv").write_text(content, encoding="utf-8", newline="")
    return folder / "list.csv"


def _problems(folder, text):
    source = SimpleNamespace(
        extra_columns=("image_path",), identity={}, passed_over={}, total=lambda: 2,
        batches=lambda done, draws: [SimpleNamespace(
            sample_id=[text], inputs=None, drawables=[None], extra=[[text]], problems=[(text, text)],
        )],
    )  # fmt: skip

    def predictor(inputs):
        return np.full((1, 3), -1.5), np.eye(3)[None]

    prediction_file.predict(source, predictor, folder / "p.csv", {}, prediction_file.Progress(show=False))
    (folder / "both.csv").write_bytes((folder / "p.csv").read_bytes() + (folder / "p.problems.csv").read_bytes())
    return folder / "both.csv"


def _densities(folder, text):
    content = densities.Densities((densities.Tally(text),), None, None)
    (folder / "densities.csv").write_text(figures._csv(densities.table(content)), encoding="utf-8", newline="")
    return folder / "densities.csv"


def _rendered(folder, text):
    synthesize.write_truth({text: (-1.0, 2.0, 3.0)}, folder)
    return folder / synthesize.TRUTH


@pytest.mark.parametrize("text", EVIL)
@pytest.mark.parametrize("write", [_decisions, _exported, _leaks, _flags, _protocol, _problems, _densities, _rendered])
def test_no_file_holds_a_formula(tmp_path, write, text):
    with write(tmp_path, text).open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    cells = [cell for row in rows for cell in row]
    assert any(text.split()[0] in cell for cell in cells)
    assert not [cell for cell in cells if is_formula(cell)]
