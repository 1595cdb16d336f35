"""docs/benchmarks/synthetic.md: every error on the page stands in a result file beside it, and those are whole."""

import re
from pathlib import Path

from ubhpd.leaderboards import result

DOCS = Path(__file__).parents[1] / "docs" / "benchmarks"
_ESTIMATE = re.compile(r"(\d+\.\d\d) \((\d+\.\d\d) to (\d+\.\d\d)\)")


def results():
    return [found.result for found in result.read_all([DOCS / "synthetic"])]


def test_every_error_on_the_page_is_of_a_result():
    known = {
        tuple(f"{value:.2f}" for value in (own.value, own.low, own.high))
        for found in results()
        for name, own in found.scores.items()
        if name in ("mae", "balanced_mae") and None not in (own.value, own.low, own.high)
    }
    shown = _ESTIMATE.findall((DOCS / "synthetic.md").read_text(encoding="utf-8"))
    assert len(shown) >= 20 and not set(shown) - known


def test_every_result_is_in_the_committed_table():
    table = (DOCS / "synthetic" / "leaderboard.md").read_text(encoding="utf-8")
    for found in results():
        assert f"{found.scores['mae'].value:.2f}" in table, found.model


def test_all_results_are_of_the_same_test_side_and_name_their_device():
    assert len({found.test.fingerprint for found in results()}) == 1
    assert all(found.device for found in results())
