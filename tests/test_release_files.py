"""The files for contributors and releases agree with each other and with the package."""

import re

import pytest
from wheel_check import REPOSITORY

import ubhpd

PYPROJECT, CHANGELOG, CITATION, CONTRIBUTING, MAKEFILE, WORKFLOW = (
    (REPOSITORY / name).read_text(encoding="utf-8")
    for name in (
        "pyproject.toml", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "Makefile", ".github/workflows/ci.yml",
    )
)  # fmt: skip
TEMPLATES = sorted((REPOSITORY / ".github").rglob("*.yml"))


def make_targets():
    return set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.M))


def test_the_version_is_written_in_one_place():
    assert 'version = {attr = "ubhpd.__version__"}' in PYPROJECT
    source = (REPOSITORY / "ubhpd" / "__init__.py").read_text(encoding="utf-8")
    assert re.search(r'^__version__ = "([^"]+)"$', source, re.M)[1] == ubhpd.__version__
    for name in ("pyproject.toml", "CITATION.cff", "Makefile", "README.md", "mkdocs.yml"):
        text = (REPOSITORY / name).read_text(encoding="utf-8")
        assert not re.search(rf"\bversion\b.{{0,5}}\b{re.escape(ubhpd.__version__)}\b", text), name


def test_the_changelog_has_the_version_and_a_link_for_every_heading():
    headings = re.findall(r"^## \[([^\]]+)\](.*)$", CHANGELOG, re.M)
    assert headings[0] == ("Unreleased", "")
    assert ubhpd.__version__ in [name for name, _ in headings]
    assert all(re.fullmatch(r" - \d{4}-\d{2}-\d{2}", date) for _, date in headings[1:])
    assert [name for name, _ in headings] == re.findall(r"^\[([^\]]+)\]: https://", CHANGELOG, re.M)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", CHANGELOG, re.M)) <= kinds


def test_the_workflow_covers_every_python_that_the_package_names():
    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT)
    minors = [int(version.partition(".")[2]) for version in named]
    assert minors == list(range(10, minors[-1] + 1)) and 'requires-python = ">=3.10"' in PYPROJECT
    jobs = dict(re.findall(r"^  ([a-z-]+):\n((?:    .*\n|\n)+)", WORKFLOW, re.M))
    tested = {v for job in ("checks", "tests") for v in re.findall(r'"(3\.\d+)"', jobs[job])}
    assert tested == set(named)
    assert {named[0], named[-1]} == set(re.findall(r'"(3\.\d+)"', jobs["without-torch"]))
    assert all(system in jobs["without-torch"] for system in ("ubuntu", "macos", "windows"))


def test_the_workflow_runs_what_a_change_has_to_pass():
    assert "run: .ci/run" in WORKFLOW and (REPOSITORY / ".ci" / "run").stat().st_mode & 0o100
    assert set(re.findall(r"run: make ([a-z-]+)", WORKFLOW)) <= make_targets()


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md", "docs/completion.md"])
def test_every_make_target_of_a_page_exists(page):
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    for command in re.findall(r"(?:^|`)make ([^`\n]*)", text, re.M):
        words = command.partition("#")[0].split()
        assert {w for w in words if "=" not in w} <= make_targets(), command


def test_every_target_for_developers_is_explained():
    explained = set(re.findall(r"make ([a-z-]+)", CONTRIBUTING))
    assert make_targets() - explained <= {"help", "clean", "benchmark", "demo-gpu"}


def test_all_files_name_one_repository():
    texts = [PYPROJECT, CHANGELOG, CITATION, CONTRIBUTING, *(p.read_text(encoding="utf-8") for p in TEMPLATES)]
    found = {name for text in texts for name in re.findall(r"https://github\.com/([\w-]+/[\w-]+)", text)}
    assert found == {"ubhpd/ubhpd"}


def test_links_of_the_pages_for_contributors_lead_somewhere():
    for page in ("CONTRIBUTING.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (REPOSITORY / page).read_text(encoding="utf-8")):
            assert (REPOSITORY / target).exists(), f"{page}: {target}"
