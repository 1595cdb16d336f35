"""The pages docs/add-*.md: each is followed literally in a copy of the project, where its test and contracts run."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys

import pytest
from wheel_check import REPOSITORY, ROOMS, code_files

COPIED = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "pyproject.toml", "mkdocs.yml", "docs", "tests", "notebooks")
STRUCTURE = "tests/test_structure.py"
NOT_HERE = (
    "no_file_is_larger",
    "stay_within_their_limits",
    "without_the_repository",
)  # these ask git or the installation
# Page -> contract tests to run over the addition besides its own, with the names to choose by, "" for all.
PAGES = {
    "add-a-dataset": {"tests/test_builders.py": "tinypose", "tests/test_builders_damage.py": "tinypose or every_kind"},
    "add-a-model": {"tests/test_models_contract.py": "tinynet"},
    "add-a-metric": {"tests/test_metrics_contract.py": "", "tests/test_scoring.py": ""},
    "add-an-export": {"tests/test_export_runs.py": "jsonl", "tests/test_exports.py": "page"},
    "add-a-command": {"tests/test_cli.py": ""},
}


def files_of(page):
    """The files that a page shows: path -> content."""
    text = (REPOSITORY / "docs" / f"{page}.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^`([\w/]+\.py)`:\n\n```python\n(.*?)^```", text, re.M | re.S))


@pytest.fixture
def copy(tmp_path):
    """A copy of the project, and beside it the package in the layout of the wheel."""
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / "copy" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (tmp_path / "copy").mkdir(exist_ok=True)
            shutil.copy(source, tmp_path / "copy")
    skipped = shutil.ignore_patterns("__pycache__")
    for folder in ("ubhpd", *ROOMS):
        shutil.copytree(REPOSITORY / folder, tmp_path / "copy" / folder, ignore=skipped)
    return tmp_path / "copy"


def in_copy(copy, *command):
    """Run a module in the copy, with the copy's package."""
    wheel = copy.parent / "wheel"
    shutil.rmtree(wheel, ignore_errors=True)
    shutil.copytree(copy / "ubhpd", wheel / "ubhpd")
    for room in ROOMS:
        shutil.copytree(copy / room, wheel / "ubhpd" / room)
    path = os.pathsep.join([str(wheel), str(copy / "tests")])
    # `python -m` would put the working directory first, where ubhpd has no builders, metrics and baselines in it.
    start = f"import runpy, sys; sys.path[0] = {str(wheel)!r}; sys.argv = sys.argv[1:]; "
    start += "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
    done = subprocess.run(
        [sys.executable, "-c", start, *command], cwd=copy, capture_output=True, text=True, encoding="utf-8",
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_followed(page, copy):
    if page in ("add-a-model",):
        pytest.importorskip("torch")
    files = files_of(page)
    own = [path for path in files if path.startswith("tests/")]
    assert len(files) == 2 and len(own) == 1
    assert len(set(files) & {n.removeprefix("ubhpd/") for n in code_files()} | set(files) & code_files()) == 0
    for path, content in files.items():
        (copy / path).write_text(content, encoding="utf-8")
    assert in_copy(copy, "ubhpd.reports.doc_tables")[0] == 0
    assert in_copy(copy, "ubhpd.reports.doc_tables", "--check") == (0, "")
    if importlib.util.find_spec("ruff"):
        for check in (("check",), ("format", "--check")):
            code, said = in_copy(copy, "ruff", *check, "--no-cache", *files)
            assert code == 0, said
    chosen = " and ".join(f"not {name}" for name in NOT_HERE)
    for tests, names in {own[0]: "", **PAGES[page], STRUCTURE: chosen}.items():
        code, said = in_copy(copy, "pytest", "-q", "-p", "no:cacheprovider", tests, *(["-k", names] if names else []))
        assert code == 0, f"{tests}\n{said[-4000:]}"
