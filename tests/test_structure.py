"""The shape of the code: who may import whom, what the package map holds, what the documents must keep up with."""

import ast
import graphlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from wheel_check import REPOSITORY, ROOMS, code_files

from ubhpd.core.errors import UbhpdError
from ubhpd.core.records import DROP_REASONS
from ubhpd.manifest.schema import COLUMNS
from ubhpd.reports import doc_tables

DATA = {".csv", ".html", ".css", ".js", ".jinja"}  # what a folder of the package can hold besides code
MOST_PACKAGES, MOST_LAYERS, MOST_EDGES, MOST_CODE_FILES = 30, 13, 130, 250
MAY_IMPORT_TORCH = (
    "ubhpd/nn/",
    "ubhpd/models/",
    "ubhpd/training/",
    "ubhpd/inference/",
    "ubhpd/images/mtcnn.py",
    "ubhpd/evaluation/torchmetric.py",
    "baselines/",
)


def imports(path):
    """The dotted names that a file imports, those inside functions included and those for type checking left out.

    `from a import b` gives a.b, which is a module or a name in one.
    """
    names = set()
    waiting = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        waiting += ast.iter_child_nodes(node)
    return names


def python_files(folder):
    return sorted((REPOSITORY / folder).rglob("*.py"))


def test_torch_is_imported_only_where_it_may_be():
    for folder in ("ubhpd", *ROOMS):
        for path in python_files(folder):
            is_torch = any(name.split(".")[0] == "torch" for name in imports(path))
            assert not is_torch or path.relative_to(REPOSITORY).as_posix().startswith(MAY_IMPORT_TORCH), path


def test_no_package_names_a_builder_or_a_baseline():
    """They are found by scanning their folders."""
    for path in python_files("ubhpd"):
        assert not [n for n in imports(path) if n.startswith(("ubhpd.builders.", "ubhpd.baselines."))], path


def module_graph():
    """Which modules each module imports, under the names of an installation; a package is named by its __init__."""
    names = {}
    for file in code_files():
        path = REPOSITORY / file if file.split("/")[1] not in ROOMS else REPOSITORY / file.partition("/")[2]
        names[file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")] = path
    graph = {}
    for name, path in names.items():
        imported = imports(path)
        graph[name] = ({n if n in names else n.rpartition(".")[0] for n in imported} & set(names)) - {name}
    return graph


def package_graph(modules):
    """Which packages and loose modules of ubhpd each of them imports."""
    packages = {".".join(name.split(".")[:2]): set() for name in modules if name != "ubhpd"}
    for name, imported in modules.items():
        if name != "ubhpd":
            own = ".".join(name.split(".")[:2])
            packages[own] |= {".".join(n.split(".")[:2]) for n in imported if n != "ubhpd"} - {own}
    return packages


def cycle_in(graph):
    try:
        list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        return " -> ".join(error.args[1])
    return None


def layers_of(graph):
    """How many nodes the longest chain of imports has."""
    depth = {}
    for node in graphlib.TopologicalSorter(graph).static_order():
        depth[node] = 1 + max((depth[n] for n in graph[node]), default=0)
    return max(depth.values())


def test_no_modules_import_each_other_in_a_circle():
    modules = module_graph()
    assert cycle_in(modules) is None
    assert cycle_in(package_graph(modules)) is None


def test_a_cycle_and_the_layers_are_seen():
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert layers_of({"a": {"b", "c"}, "b": {"c"}, "c": set(), "d": set()}) == 3


def test_packages_layers_edges_and_files_stay_within_their_limits():
    packages = package_graph(module_graph())
    assert len(packages) <= MOST_PACKAGES
    assert layers_of(packages) <= MOST_LAYERS
    assert sum(map(len, packages.values())) <= MOST_EDGES
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=REPOSITORY, capture_output=True, text=True).stdout.split()
    code = [n for n in tracked if not n.startswith(("tests/", "benchmarks/")) and (REPOSITORY / n).exists()]
    assert len(code) <= MOST_CODE_FILES


def test_no_module_name_stands_twice():
    """A command or an export format has the name that users type, which may also be that of what it deals with."""
    files = [n for n in code_files() if not n.startswith(("ubhpd/commands/", "ubhpd/exports/"))]
    names = [Path(n).stem for n in files]
    assert sorted(n for n in set(names) if names.count(n) > 1) == ["__init__"]


def test_import_linter_finds_the_layers_kept(tmp_path):
    pytest.importorskip("importlinter")
    for file in code_files():
        source = REPOSITORY / file if file.split("/")[1] not in ROOMS else REPOSITORY / file.partition("/")[2]
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, tmp_path / file)
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    run = [sys.executable, "-c", script, str(REPOSITORY / "pyproject.toml"), "--no-cache"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_design_page_shows_the_layers_that_import_linter_checks():
    text = (REPOSITORY / "pyproject.toml").read_text()
    layers = re.search(r"^layers = \[(.*?)^\]", text, re.M | re.S)[1]
    checked = [set(line.split(" | ")) for line in re.findall(r'"([^"]+)"', layers)]
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", (REPOSITORY / "docs" / "design.md").read_text(), re.M)
    shown = [{name for number, name in rows if int(number) == n} for n in range(len(checked) - 1, -1, -1)]
    assert shown == checked and len(rows) == sum(map(len, checked))


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


def test_the_tables_of_the_documents_are_those_of_the_cards():
    assert list(doc_tables.outdated(REPOSITORY)) == [], "run: make tables"
    for name in ("README.md", "docs/sources.md", "docs/models.md", "docs/exports.md"):
        assert "<!-- table: " in (REPOSITORY / name).read_text()


def test_a_marked_table_is_made_anew_and_an_unknown_one_refused():
    text = "a\n<!-- table: exports -->\nbefore\n<!-- end of table -->\nb\n"
    made = doc_tables.with_tables(text)
    assert made.startswith("a\n<!-- table: exports -->\n| format |") and made.endswith("-->\nb\n")
    assert "before" not in made
    with pytest.raises(UbhpdError, match="'pictures': choose from"):
        doc_tables.with_tables(text.replace("exports", "pictures"))


def test_heads_of_a_prefix_are_not_counted_twice():
    assert doc_tables.heads_published({"a/": 10, "a/b/": 4, "c/": 1}) == 11


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
