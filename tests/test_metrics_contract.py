"""Every metric that is found: its card, its laws, and what it does with nothing and with nonsense."""

import ast
import types
from pathlib import Path

import numpy as np
import pytest
from score_data import heads

import ubhpd.metrics as metrics_package
from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import matrix_from_euler
from ubhpd.evaluation import metric_cards
from ubhpd.evaluation.metric_cards import (
    METRIC_CARD,
    all_scores,
    better,
    check_metric,
    metric_options,
    metrics,
    page,
    scores_of_whole_sets,
    units,
)
from ubhpd.evaluation.scoring import (
    Pairs,
    SampleErrors,
    ScoreOptions,
    sample_errors,
    scores,
    statistics_of,
    sums,
    with_context,
)

SOURCE = np.full((3, 15), 50.0)
K = np.array([1.1, 1.2, 1.3])
NAMES = sorted(metrics())
FILES = sorted(p for folder in metrics_package.__path__ for p in Path(folder).glob("*.py"))


def statistics(predicted, true):
    return with_context(statistics_of(sample_errors(Pairs(predicted, true))), SOURCE, K)


def test_every_metric_is_found():
    expected = {"mae", "geodesic", "maev", "aligned", "ubmae", "ubmae_printed", "balanced", "accuracy", "quantiles"}
    assert expected | {"error_auc", "density_weights"} <= set(NAMES)
    assert set(units()) == set(all_scores()) == set(better())


@pytest.mark.parametrize("name", NAMES)
def test_every_promised_score_comes_and_no_other(name):
    metric = metrics()[name]
    found = metric.score(statistics(*heads()), metric.Options())
    assert set(found) == set(metric.SCORES)
    assert all(np.isfinite(v) and np.ndim(v) == 0 for v in found.values()) or name == "balanced"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_average_is_nan_never_zero(name):
    metric = metrics()[name]
    found = metric.score(statistics(np.empty((0, 3)), np.empty((0, 3))), metric.Options())
    assert set(found) == set(metric.SCORES)
    assert all(np.isnan(v) for v in found.values()), found


@pytest.mark.parametrize("name", NAMES)
def test_perfect_predictions_get_the_best_score(name):
    metric = metrics()[name]
    _, true = heads()
    found = metric.score(statistics(true, true), metric.Options())
    best = 100.0 if metric.BETTER == "higher" else 0.0
    assert all(v == pytest.approx(best, abs=1e-4) or np.isnan(v) for v in found.values()), found


@pytest.mark.parametrize("name", [n for n in NAMES if metrics()[n].BETTER != "neither"])
def test_larger_errors_never_give_a_better_score(name):
    metric = metrics()[name]
    predicted, true = heads(noise=6.0)
    near, far = (metric.score(statistics(true + f * (predicted - true), true), metric.Options()) for f in (0.5, 1.0))
    for score in near:
        worse = far[score] - near[score]
        assert np.isnan(worse) or (worse > 0.0) == (metric.BETTER == "lower"), score


@pytest.mark.parametrize("name", NAMES)
def test_leading_axes_are_kept_and_mean_the_same(name):
    metric = metrics()[name]
    predicted, true = heads(60)
    groups = np.arange(60) % 4
    errors = sample_errors(Pairs(predicted, true))
    grouped = with_context(sums(errors, groups, 4), SOURCE, K)
    found = metric.score(grouped, metric.Options())
    assert set(found) == set(metric.SCORES) - (scores_of_whole_sets() - {"geodesic_aligned"})
    for g in range(4):
        rows = groups == g
        own = types.SimpleNamespace(**metric.score(_of_rows(errors, rows), metric.Options()).copy())
        for score, values in found.items():
            assert values.shape == (4,)
            assert values[g] == pytest.approx(float(getattr(own, score)), nan_ok=True), score


def _of_rows(errors, rows):
    columns = {k: v[rows] for k, v in errors.columns.items()}
    return with_context(sums(SampleErrors(columns, errors.bins[rows], errors.rings[rows], {})), SOURCE, K)


@pytest.mark.parametrize("name", [n for n in NAMES if hasattr(metrics()[n], "INPUT")])
def test_per_sample_errors_have_the_columns_of_the_card(name):
    metric = metrics()[name]
    predicted, true = heads(5)
    relative = np.swapaxes(matrix_from_euler(predicted), 1, 2) @ matrix_from_euler(true)
    columns = {"wrapped_error": np.abs(predicted - true), "geodesic": np.arange(5.0)}
    arguments = {"angles": (predicted, true), "relative": (relative,), "columns": (columns,)}
    found = metric.per_sample(*arguments.get(metric.INPUT, (relative, np.eye(3))))
    assert tuple(found) == metric.COLUMNS
    assert all(v.shape in ((5,), (5, 3)) and (v >= 0).all() for v in found.values())


@pytest.mark.parametrize(
    ("predicted", "true", "said"),
    [
        (np.full((2, 3), np.nan), np.zeros((2, 3)), "head 0"),
        (np.zeros((2, 3)), np.array([[0.0, 0.0, 0.0], [0.0, np.inf, 0.0]]), "true angles of head 1"),
        (np.zeros((2, 3)), np.zeros((3, 3)), "shape"),
        (np.zeros((2, 4)), np.zeros((2, 4)), "shape"),
        (np.zeros(3), np.zeros(3), "shape"),
    ],
)
def test_bad_arrays_never_reach_a_metric(predicted, true, said):
    from ubhpd.evaluation.scoring import score

    with pytest.raises(UbhpdError, match=said):
        score(Pairs(predicted, true))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_a_metric_imports_only_the_core(path):
    allowed = {"ubhpd.core.rotation", "ubhpd.core.bins", "ubhpd.core.errors", "ubhpd.core.typing", "ubhpd.metrics"}
    allowed |= {"ubhpd.core.registry"} if path.name == "__init__.py" else set()  # for the folders of plug-ins
    forbidden = {"print", "open"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ubhpd"):
            assert any(node.module == a or node.module.startswith(a + ".") for a in allowed), node.module
        if isinstance(node, ast.Import):
            assert all(n.name.split(".")[0] == "numpy" for n in node.names), ast.unparse(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in forbidden


def module(**changes):
    """Return a metric with a complete card, changed."""
    found = types.ModuleType("ubhpd.metrics.made_up", "A metric.")
    card = {
        n: getattr(metrics()["geodesic"], n) for n in (*METRIC_CARD.constants, "INPUT", "COLUMNS", "Options", "score")
    }
    for name, value in (card | {"per_sample": metrics()["geodesic"].per_sample} | changes).items():
        setattr(found, name, value)
    return found


def test_a_complete_card_passes():
    check_metric(module())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"__doc__": " "}, "docstring"),
        ({"UNIT": None}, "UNIT"),
        ({"SCORES": {}}, "SCORES"),
        ({"score": None}, "function score"),
        ({"Options": int}, "frozen dataclass"),
        ({"INPUT": "pixels"}, "INPUT"),
        ({"COLUMNS": ()}, "COLUMNS"),
        ({"BETTER": "large"}, "choose from lower, higher, neither"),
        ({"QUANTILES": {"geodesic": (95,)}}, "not shares between 0 and 1"),
    ],
)
def test_an_incomplete_card_is_said(changes, said):
    with pytest.raises(UbhpdError, match=f"metrics/made_up.py.*{said}"):
        check_metric(module(**changes))


def test_options_are_read_and_checked():
    options = metric_options(["ubmae.unseen=smooth", "ubmae.alpha=0.5", "balanced.min_count=7"])
    assert (options["ubmae"].unseen, options["ubmae"].alpha, options["balanced"].min_count) == ("smooth", 0.5, 7)
    for text, said in [
        ("ubmae.unseen", "form"),
        ("unknown.key=1", "Unknown metric"),
        ("ubmae.beta=1", "no option 'beta'"),
        ("mae.alpha=1", "it has none"),
        ("ubmae.unseen=guess", "choose from drop, smooth, raise"),
        ("ubmae.alpha=much", "a number"),
    ]:
        with pytest.raises(UbhpdError, match=said):
            metric_options([text])


def test_the_pages_of_the_metrics_are_made_from_their_docstrings():
    pages = Path(__file__).resolve().parents[1] / "docs" / "metrics"
    assert {p.stem for p in pages.glob("*.md")} == set(NAMES)
    for name, metric in metrics().items():
        text = (pages / f"{name}.md").read_text(encoding="utf-8")
        assert text == page(metric), f"run: python -m ubhpd.evaluation.metric_cards docs/metrics ({name}.md differs)"
        assert all(f"| `{score}` | {metric.UNIT} | {metric.BETTER} |" in text for score in metric.SCORES)


def test_a_metric_that_needs_a_column_that_nobody_computes_is_refused(monkeypatch):
    monkeypatch.setattr(metrics()["quantiles"], "QUANTILES", {"colour": (0.5,)})
    metrics.cache_clear()
    try:
        with pytest.raises(UbhpdError, match="'colour' in QUANTILES, a column that no metric computes"):
            metrics()
    finally:
        monkeypatch.undo()
        metrics.cache_clear()


def test_scores_are_those_of_the_cards():
    found = scores(statistics(*heads()), ScoreOptions())
    assert list(found) == [s for m in metrics().values() for s in m.SCORES]
    assert metric_cards.metrics() is metrics()


@pytest.mark.parametrize("module", ["scoring", "intervals"])
def test_scoring_and_intervals_name_no_metric_and_no_column(module):
    path = Path(metric_cards.__file__).with_name(f"{module}.py")
    names = set(NAMES) | set(all_scores()) | {c for m in metrics().values() for c in getattr(m, "COLUMNS", ())}
    words = {n.value for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Constant)}
    assert not words & (names - {"aligned"})  # "aligned" is a kind of input, too
