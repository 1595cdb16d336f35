import importlib.util
from uuid import uuid4

import pytest

from ubhpd import cli

HAS_TORCH = importlib.util.find_spec("torch") is not None


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """Without torch, skip the files of tests that import it."""
    report = yield
    if not HAS_TORCH and report.failed and "No module named 'torch'" in str(report.longrepr):
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 0, "needs torch: pip install 'ubhpd[torch]'")
    return report


@pytest.fixture(autouse=True)
def _own_state_folder(tmp_path_factory, monkeypatch):
    """No test sees, or leaves, a note of the last build in the home of whoever runs it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / f"state-{uuid4().hex}"))


@pytest.fixture
def ubhpd(capsys):
    """Run a command line: gives (exit code, stdout, stderr)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main([str(a) for a in arguments])
        return stop.value.code, *capsys.readouterr()

    return run
