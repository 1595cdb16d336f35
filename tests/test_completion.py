"""Completion of commands, options and names, in click's terms and in the shells themselves."""

import os
import shutil
import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete

from ubhpd import cli
from ubhpd.commands import _completion
from ubhpd.core.errors import UbhpdError
from ubhpd.images.recipes import RECIPES
from ubhpd.models.catalogue import catalogue
from ubhpd.pool import sources
from ubhpd.protocols.definitions import PROTOCOLS


def completed(line):
    """The words that complete the last word of a command line."""
    *arguments, incomplete = line.split(" ")[1:]
    found = ShellComplete(cli.root, {}, "ubhpd", "_UBHPD_COMPLETE").get_completions(arguments, incomplete)
    return [item.value for item in found]


RUNNABLE = [name for name, card in catalogue().items() if card.kind != "reported"]
SERIES = list(dict.fromkeys(p.series for p in PROTOCOLS.values()))


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("ubhpd models ", list(catalogue())),
        ("ubhpd train --model ", RUNNABLE),
        ("ubhpd predict --model ", RUNNABLE),
        ("ubhpd weights init --model ", RUNNABLE),
        ("ubhpd weights import --model ", RUNNABLE),
        ("ubhpd bench --models ", RUNNABLE),
        ("ubhpd bench --protocols ", [*SERIES, *PROTOCOLS]),
        ("ubhpd protocols ", list(PROTOCOLS)),
        ("ubhpd train --protocol ", list(PROTOCOLS)),
        ("ubhpd score predictions.csv --protocol ", list(PROTOCOLS)),
        ("ubhpd compare a.csv b.csv --protocol ", list(PROTOCOLS)),
        ("ubhpd sources ", list(sources.builders())),
        ("ubhpd build --sources ", list(sources.builders())),
        ("ubhpd build --exclude ", list(sources.builders())),
        ("ubhpd validate --sources ", list(sources.builders())),
        ("ubhpd synth --sources ", list(sources.builders())),
        ("ubhpd export OUT --recipe ", list(RECIPES)),
        ("ubhpd export OUT --format ", ["6drepnet", "coco", "csv", "fsanet", "h5", "hf"]),
    ],
)
def test_every_name_of_a_catalogue_is_offered(line, names):
    assert names and sorted(completed(line)) == sorted(names)


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("ubhpd tra", ["train"]),
        ("ubhpd train --opti", ["--optimizer"]),
        ("ubhpd train --model ssrn", ["ssrnet_md"]),
        ("ubhpd train --model no-such-model", []),
        ("ubhpd sources aflw", ["aflw", "aflw2000"]),
        ("ubhpd build --sources biwi,up", ["biwi,upna"]),
        ("ubhpd build --sources aflw,biwi,a", ["aflw,biwi,aflw2000"]),
        ("ubhpd bench --protocols 1,cr", ["1,cross"]),
        ("ubhpd bench --models mean_pose,ssr", ["mean_pose,ssrnet_md"]),
    ],
)
def test_what_is_typed_is_completed(line, names):
    assert completed(line) == names


def test_names_come_with_one_line_of_help():
    for names in (_completion.model_names, _completion.protocol_and_series_names, _completion.dataset_names,
                  _completion.recipe_names, _completion.format_names):  # fmt: skip
        for item in _completion.one_of(names)(None, None, ""):
            assert item.help and "\n" not in item.help, item.value


def test_a_catalogue_that_cannot_be_read_completes_to_nothing():
    def broken():
        raise UbhpdError("baselines/mine.py has no docstring: write one.")

    assert _completion.one_of(broken)(None, None, "") == []
    assert _completion.list_of(broken)(None, None, "a,") == []


@pytest.mark.parametrize("words", ["train --model ", "bench --protocols ", "export OUT --recipe ", "build --sources "])
def test_completion_imports_no_heavy_library(words):
    script = (
        "import sys; from ubhpd import cli\n"
        "try: cli.main([])\n"
        "except SystemExit as stop: assert stop.code == 0, stop.code\n"
        "heavy = {'torch', 'pyarrow', 'scipy', 'cv2', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    asked = {
        "_UBHPD_COMPLETE": "bash_complete",
        "COMP_WORDS": f"ubhpd {words}",
        "COMP_CWORD": str(words.count(" ") + 1),
    }
    done = subprocess.run([sys.executable, "-c", script], env=os.environ | asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("plain,")


@pytest.fixture
def environment(tmp_path):
    """The environment of a shell that has the command ubhpd."""
    command = tmp_path / "bin" / "ubhpd"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ubhpd "$@"\n')
    command.chmod(0o755)
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    return os.environ | home | {"PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}"}


def shell(name, environment, script):
    found = shutil.which(name)
    if found is None or os.name == "nt":
        pytest.skip(f"needs {name}")
    return subprocess.run([found, "-c", script], env=environment, capture_output=True, text=True)


def test_bash_completes_a_list(environment):
    script = (
        'eval "$(_UBHPD_COMPLETE=bash_source ubhpd)" || exit 3\n'
        'COMP_WORDS=(ubhpd build --sources biwi,a) COMP_CWORD=3\n_ubhpd_completion ubhpd; echo "${COMPREPLY[@]}"'
    )
    version = shell("bash", environment, 'echo "${BASH_VERSINFO[0]} ${BASH_VERSINFO[1]}"').stdout.split()
    if tuple(map(int, version)) < (4, 4):
        pytest.skip("click completes in bash 4.4 or later")
    done = shell("bash", environment, script)
    assert (done.stdout, done.returncode) == ("biwi,aflw biwi,aflw2000\n", 0), done.stderr


def test_fish_completes_a_list(environment):
    script = "_UBHPD_COMPLETE=fish_source ubhpd | source; complete -C 'ubhpd build --sources biwi,a'"
    done = shell("fish", environment, script)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["biwi,aflw", "biwi,aflw2000"], done.stderr


def test_zsh_completes_a_list(environment):
    """In place of the line editor, `_describe` prints what the completion function gives it."""
    script = (
        'autoload -Uz compinit; compinit -D; eval "$(_UBHPD_COMPLETE=zsh_source ubhpd)" || exit 3\n'
        '_describe() { print -rl -- "${(@P)3}" }\n'
        "words=(ubhpd build --sources biwi,a) CURRENT=4; _ubhpd_completion"
    )
    done = shell("zsh", environment, script)
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["biwi,aflw", "biwi,aflw2000"], done.stderr
