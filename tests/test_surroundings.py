"""Commands where a home folder, a user name, the current folder or matplotlib's backend are not as usual."""

import ctypes
import os
import subprocess
import sys

import pytest
from score_data import heads, write_csv

import ubhpd as package
from ubhpd.evaluation import pairing
from ubhpd.models import downloads
from ubhpd.synth.writers import aflw2000_writer

COMMAND = [sys.executable, "-c", "import sys; from ubhpd.cli import main; main(sys.argv[1:])"]


def said(run):
    assert "Traceback" not in run.stderr, run.stderr
    return run.returncode, run.stdout + run.stderr


@pytest.fixture
def no_home(monkeypatch):
    """As in a container whose user id has no name and that has no HOME."""

    def no_entry(key):
        raise KeyError(key)

    for name in ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    pwd = pytest.importorskip("pwd")
    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    monkeypatch.setattr(pwd, "getpwnam", no_entry)


def test_without_a_home_a_build_ends_as_always(no_home, ubhpd, tmp_path):
    aflw2000_writer.write(tmp_path / "raw", 12)
    code, out, err = ubhpd("build", "--sources", "aflw2000", "--data-root", tmp_path / "raw", "--out", tmp_path / "o",
                           "--size", 4)  # fmt: skip
    assert (code, err) == (0, "") and "UBHPD: 4 heads" in out
    assert pairing.recall() is None


def test_without_a_home_score_asks_for_the_manifest(no_home, ubhpd, tmp_path):
    path = write_csv(tmp_path / "p.csv", heads(20)[0])
    assert ubhpd("score", path)[::2] == (2, ubhpd("doctor", path)[2]) and "--manifest" in ubhpd("score", path)[2]
    code, _, err = ubhpd("score", path, "--last-build")
    assert code == 2 and "There is no last build" in err


def test_without_a_home_downloads_need_a_folder(no_home, monkeypatch, tmp_path):
    with pytest.raises(package.UbhpdError, match="no home folder.*UBHPD_CACHE"):
        downloads.cache_folder()
    monkeypatch.setenv("UBHPD_CACHE", str(tmp_path))
    assert downloads.cache_folder() == tmp_path


def test_without_a_user_name_decisions_name_the_number(no_home):
    from ubhpd.commands.review import _user_name

    assert _user_name() == f"user {os.getuid()}"


def test_a_current_folder_that_was_deleted_is_one_sentence(tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    code = f"import os, sys; os.rmdir({str(here)!r}); from ubhpd.cli import main; main(['sources'])"
    run = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True)
    assert said(run) == (2, "Error: The current folder no longer exists: change to one that does.\n")


def _obey_permissions():
    """Let root, too, be refused what the permissions of a folder forbid (Linux): drop CAP_DAC_OVERRIDE for good."""
    ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="drops a capability of Linux")
def test_commands_run_in_a_folder_that_cannot_be_written_to(tmp_path):
    aflw2000_writer.write(tmp_path / "raw", 12)
    here = tmp_path / "here"
    here.mkdir()
    here.chmod(0o555)

    def run(*arguments):
        own = {**os.environ, "MPLCONFIGDIR": str(tmp_path)}
        return said(subprocess.run(
            [*COMMAND, *map(str, arguments)], cwd=here, env=own, capture_output=True, text=True,
            preexec_fn=_obey_permissions,
        ))  # fmt: skip

    build = ("build", "--sources", "aflw2000", "--data-root", tmp_path / "raw", "--size", 4, "--quiet", "--out")
    assert run(*build, tmp_path / "o") == (0, "")
    code, text = run(*build, "relative")
    assert code == 2 and "Cannot write to" in text and "(Permission denied)" in text
    path = write_csv(tmp_path / "p.csv", *heads(20))
    assert run("score", path, "--html", tmp_path / "s.html")[0] == 0
    code, text = run("score", path, "--html", "s.html")
    assert code == 2 and "(Permission denied)" in text
    assert not list(here.iterdir())


@pytest.mark.parametrize("backend", ["bogus", "module://nothing.there", "module://matplotlib_inline.backend_inline"])
def test_figures_do_without_the_backend_of_a_notebook(tmp_path, backend):
    code = (
        "import os, ubhpd.reports.figures, ubhpd.evaluation.score_figures, ubhpd.experiments.stress\n"
        "print(os.environ['MPLBACKEND'])"
    )
    own = {**os.environ, "MPLBACKEND": backend}
    run = subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True)
    assert said(run) == (0, f"{backend}\n")
    path = write_csv(tmp_path / "p.csv", *heads(20))
    arguments = ["score", str(path), "--html", str(tmp_path / "s.html"), "--quiet"]
    run = subprocess.run([*COMMAND, *arguments], env=own, capture_output=True, text=True)
    assert said(run)[0] == 0 and (tmp_path / "s.html").stat().st_size
