"""Plug-ins: an installed package and a folder add a dataset, a metric, a model and an export format."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ubhpd.core.files import read_toml

REPOSITORY = Path(__file__).parents[1]
SAMPLE = REPOSITORY / "tests" / "sample_plugin"
PAGE = REPOSITORY / "docs" / "plugins.md"
FILES = {"builders": "postcards", "metrics": "within", "models": "gridnet", "exports": "lines"}


def installed(folder, points=None):
    """Make a folder on the path in which the sample is installed; return the environment that sees it."""
    project = read_toml(SAMPLE / "pyproject.toml", "")["project"]
    points = project["entry-points"] if points is None else points
    info = folder / "headpose_extras-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [line for group, own in points.items() for line in (f"[{group}]", *(f"{n} = {v}" for n, v in own.items()))]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(SAMPLE)]), "UBHPD_PLUGINS": ""}


def in_a_folder(folder):
    for kind, name in FILES.items():
        (folder / kind).mkdir(parents=True)
        (folder / kind / f"{name}.py").write_text((SAMPLE / "headpose_extras" / f"{name}.py").read_text())
    return {**os.environ, "UBHPD_PLUGINS": str(folder)}


def run(environment, *arguments, cwd=None):
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, encoding="utf-8")
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(params=["package", "folder"])
def environment(request, tmp_path):
    return installed(tmp_path / "site") if request.param == "package" else in_a_folder(tmp_path / "plugins")


def test_the_commands_of_the_page(environment, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "DATA" / "postcards").mkdir(parents=True)
    write = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import headpose_extras.postcards as p; "
    )
    write += "p.write_sample(Path(sys.argv[2]))"
    subprocess.run([sys.executable, "-c", write, str(SAMPLE), str(tmp_path / "DATA" / "postcards")], check=True)
    commands = re.search(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1].splitlines()
    for command in commands:
        code, out, err = run(environment, *command.split(), cwd=tmp_path)
        assert code == 0, (command, out, err)
        if command.startswith("ubhpd score"):
            assert "within_20" in out
    assert len((tmp_path / "OUT" / "exports").rglob("heads.txt").__next__().read_text().splitlines()) == 5


def test_workers_read_with_a_plugin(environment, tmp_path):
    folder = tmp_path / "postcards"
    folder.mkdir()
    sys.path.insert(0, str(SAMPLE))
    try:
        from headpose_extras import postcards

        postcards.write_sample(folder)
    finally:
        sys.path.remove(str(SAMPLE))
    code, out, err = run(environment, "ubhpd", "build", "--sources", "postcards", "--data-root", tmp_path, "--out",
                         tmp_path / "out", "--pool-only", "--jobs", "2", "--json")  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["datasets"]["postcards"]["usable"] == 5


def test_the_contracts_pass_for_the_sample(environment, tmp_path):
    pytest.importorskip("torch")
    code, out, _ = run(
        environment, "pytest", "-q", "-p", "no:cacheprovider", "--pyargs", "ubhpd.contracts", cwd=tmp_path
    )
    assert code == 0 and "13 passed" in out, out


def test_without_plugins_the_contracts_say_so(tmp_path):
    environment = {**os.environ, "UBHPD_PLUGINS": ""}
    code, out, _ = run(environment, "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--pyargs", "ubhpd.contracts",
                       cwd=tmp_path)  # fmt: skip
    assert code == 0 and "no plug-in adds to the builders" in out, out


@pytest.mark.parametrize("kind", FILES)
def test_the_contracts_see_what_is_wrong(kind, tmp_path):
    """A builder with a wrong pose, a metric with a wrong direction, a model and an export that lie about themselves."""
    pytest.importorskip("torch")
    environment = in_a_folder(tmp_path / "plugins")
    path = tmp_path / "plugins" / kind / f"{FILES[kind]}.py"
    wrong = {
        "builders": ("float(roll), rotation", "float(roll) + 1, rotation"),
        "metrics": ('BETTER = "higher"', 'BETTER = "lower"'),
        "models": ('"gridnet": 147', '"gridnet": 148'),
        "exports": ('return ["heads.txt"]', 'return ["other.txt"]'),
    }[kind]
    text = path.read_text()
    assert wrong[0] in text
    path.write_text(text.replace(*wrong))
    code, out, _ = run(
        environment, "pytest", "-q", "-p", "no:cacheprovider", "--pyargs", "ubhpd.contracts", cwd=tmp_path
    )
    assert code == 1 and "failed" in out


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("import nothing_of_that_name\n", "No module named 'nothing_of_that_name'"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("def f(:\n", "SyntaxError"),
        ('"""A builder."""\nNAME = "x"\n', "has no TITLE of type str"),
    ],
)
def test_a_broken_builder_is_left_out_and_named(tmp_path, content, reason):
    environment = in_a_folder(tmp_path / "plugins")
    (tmp_path / "plugins" / "builders" / "broken.py").write_text(content)
    code, out, err = run(environment, "ubhpd", "sources")
    assert code == 1 and "postcards" in out and "biwi" in out
    (line,) = err.splitlines()
    assert "broken.py is left out" in line and reason in line


def test_names_that_are_taken(tmp_path):
    environment = in_a_folder(tmp_path / "plugins")
    text = (SAMPLE / "headpose_extras" / "postcards.py").read_text()
    (tmp_path / "plugins" / "builders" / "biwi.py").write_text(text)
    (tmp_path / "plugins" / "builders" / "second.py").write_text(text)
    (tmp_path / "plugins" / "models" / "hopenet2.py").write_text(
        (SAMPLE / "headpose_extras" / "gridnet.py").read_text().replace('"gridnet"', '"hopenet"')
    )
    code, _, err = run(environment, "ubhpd", "sources")
    assert code == 1 and "biwi.py is left out: it has the name of a file of ubhpd" in err
    assert "second.py is left out: postcards is the name of another of the builders" in err
    code, out, err = run(environment, "ubhpd", "models")
    assert (
        code == 1
        and "hopenet2.py is left out: hopenet is the name of another of the models" in err
        and "gridnet" in out
    )


def test_a_metric_with_a_score_of_another_is_left_out(tmp_path, score_file):
    environment = in_a_folder(tmp_path / "plugins")
    path = tmp_path / "plugins" / "metrics" / "within.py"
    path.write_text(path.read_text().replace('"within_20"', '"mae"'))
    code, out, err = run(environment, "ubhpd", "score", score_file, "--source", "none")
    assert code == 1 and "The score 'mae' is in mae and in within: rename one" in err and "MAE" in out


@pytest.fixture
def score_file(tmp_path):
    path = tmp_path / "p.csv"
    lines = [f"a/{i},{i},{i},{i},{i + 1},{i},{i}" for i in range(30)]
    path.write_text("\n".join(["sample_id,yaw,pitch,roll,yaw_true,pitch_true,roll_true", *lines]) + "\n")
    return path


def test_a_wrong_folder_and_a_wrong_entry_point_are_named(tmp_path):
    environment = {**os.environ, "UBHPD_PLUGINS": str(tmp_path / "nowhere")}
    code, _, err = run(environment, "ubhpd", "sources")
    assert code == 1 and "UBHPD_PLUGINS names" in err and "is no folder" in err
    environment = installed(
        tmp_path / "site", {"ubhpd.builders": {"a": "headpose_extras.postcards:read", "b": "gone.b"}}
    )
    code, _, err = run(environment, "ubhpd", "sources")
    assert code == 1 and "an entry point names a module, without a colon" in err and "No module named 'gone'" in err
