"""The shape of the code: who may import whom, what the package map holds, what the documents must keep up with."""

import ast
import graphlib
import re
import subprocess
import sys

import pytest
from wheel_check import REPOSITORY, ROOMS, code_files

from ubhpd.core.records import DROP_REASONS
from ubhpd.manifest.schema import COLUMNS
from ubhpd.pool import sources

# What a room may import of ubhpd, besides the file itself.
MAY_IMPORT = {
    "builders": {"core", "raw"},
    "metrics": {"core"},
    "baselines": {"core", "nn"},
}
DATA = {".csv", ".html", ".css", ".js"}  # what a folder of the package can hold besides code
MAY_IMPORT_TORCH = (
    "ubhpd/nn/",
    "ubhpd/models/",
    "ubhpd/training/",
    "ubhpd/inference/",
    "ubhpd/images/mtcnn.py",
    "ubhpd/evaluation/torchmetric.py",
    "baselines/",
)


def imports(path, at_start=False):
    """The dotted names that a file imports, type checking aside; `at_start`: without those inside functions."""
    found = set()
    waiting = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        if at_start and isinstance(node, ast.FunctionDef):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        waiting += ast.iter_child_nodes(node)
    return found


def own(names):
    return {name.split(".")[1] for name in names if name.startswith("ubhpd.")}


def python_files(folder):
    return sorted((REPOSITORY / folder).rglob("*.py"))


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(room):
    for path in python_files(room):
        assert own(imports(path)) <= MAY_IMPORT[room] | {room}, path
        others = {f"ubhpd.{room}.{p.stem}" for p in python_files(room) if p != path}
        if room != "metrics":
            assert not any(name.startswith(tuple(others)) for name in imports(path)), path


def test_torch_is_imported_only_where_it_may_be():
    for folder in ("ubhpd", *ROOMS):
        for path in python_files(folder):
            is_torch = any(name.split(".")[0] == "torch" for name in imports(path))
            assert not is_torch or path.relative_to(REPOSITORY).as_posix().startswith(MAY_IMPORT_TORCH), path


def test_the_spine_names_no_builder_and_no_baseline():
    """They are found by scanning; the writers of raw data are named after the builders."""
    for path in python_files("ubhpd"):
        names = {n for n in imports(path) if n.startswith(tuple(f"ubhpd.{room}." for room in ROOMS))}
        rooms = {n for n in names if n.split(".")[1] in ("builders", "baselines")}
        assert not rooms, path


def test_modules_import_each_other_in_one_direction():
    paths = {p.relative_to(REPOSITORY).with_suffix("").as_posix().replace("/", "."): p for p in python_files("ubhpd")}
    graph = {}
    for name, path in paths.items():
        imported = imports(path, at_start=True)
        graph[name] = {other for other in paths if other != name and {other, *_within(other, imported)} & imported}
    assert list(graphlib.TopologicalSorter(graph).static_order())


def _within(module, names):
    """Those names that are taken out of the module itself, not out of a module below it."""
    return {n for n in names if n.rpartition(".")[0] == module}


def test_the_package_map_holds_every_folder_of_code_and_of_data():
    text = (REPOSITORY / "pyproject.toml").read_text()
    packages = re.findall(r'"([\w.]+)"', re.search(r"^packages = \[(.*?)\]", text, re.M | re.S)[1])
    data = {p.relative_to(REPOSITORY).as_posix() for p in (REPOSITORY / "ubhpd").rglob("*.*") if p.suffix in DATA}
    folders = {name.rpartition("/")[0].replace("/", ".") for name in code_files() | data}
    assert folders == set(packages)


def test_rooms_are_flat():
    for room in ROOMS:
        assert not [p for p in (REPOSITORY / room).iterdir() if p.is_dir() and p.name != "__pycache__"]


def test_package_imports_without_the_repository_on_the_path(tmp_path):
    script = "import ubhpd.builders.biwi, ubhpd.metrics, ubhpd.baselines"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)


def test_reading_and_building_import_neither_torch_nor_scipy(tmp_path):
    script = (
        "import sys\nfrom ubhpd.pool import build, sources\nsources.builders()\n"
        "sys.exit(str({'torch', 'scipy', 'cv2', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.strip() == "set()"


def test_the_manifest_page_explains_every_column_and_drop_reason():
    page = (REPOSITORY / "docs" / "manifest.md").read_text()
    columns, _, rest = page.partition("## Kinds")
    types = dict(re.findall(r"^\| `(\w+)` \| ([^ |]*) \|", columns, re.M))
    assert types == {c.name: str(c.type) if c.length is None else f"double[{c.length}]" for c in COLUMNS}
    assert set(re.findall(r"^\| `(\w+)` \|", rest, re.M)) == set(DROP_REASONS)


def test_the_readme_lists_every_source():
    readme = (REPOSITORY / "README.md").read_text()
    for name, builder in sources.builders().items():
        assert f"`{name}`" in readme and builder.TITLE in readme


def test_links_in_the_documents_lead_somewhere():
    for page in [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_no_file_is_larger_than_a_file_of_code_should_be():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True)
    names = [n for n in tracked.stdout.split("\0") if n and (REPOSITORY / n).exists()]
    large = [n for n in names if (REPOSITORY / n).stat().st_size > 600 * 1024]
    code = [n for n in names if n.endswith(".py") and not n.startswith("tests/")]
    long = [n for n in code if (REPOSITORY / n).read_text().count("\n") > 600]
    assert (large, long) == ([], [])
