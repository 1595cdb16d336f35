"""Accuracy, quantiles and the area under the error distribution: definitions, intervals, and comparison."""

import numpy as np
import pytest
from score_data import heads, write_csv

from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import geodesic_deg, matrix_from_euler
from ubhpd.evaluation.evaluate import EvaluationOptions, compare, evaluate
from ubhpd.evaluation.intervals import BootstrapOptions, intervals, resamples
from ubhpd.evaluation.report import compare_text
from ubhpd.evaluation.scoring import Pairs, ScoreOptions, score, score_arrays, scores
from ubhpd.metrics.accuracy import accuracy
from ubhpd.metrics.error_auc import LIMIT_DEG, cdf, error_auc
from ubhpd.metrics.quantiles import quantiles

OPTIONS = ScoreOptions()


def test_accuracy_counts_errors_up_to_and_including_the_threshold():
    true = np.zeros((4, 3))
    predicted = np.array([[5.0, 5.0, 5.0], [5.001, 0.0, 0.0], [359.0, -4.0, 0.0], [12.0, 8.0, -16.0]])
    at_5 = accuracy(predicted, true, 5.0)
    assert at_5 == (50.0, 75.0, 75.0, 50.0, 4)
    found = score_arrays(predicted, true)
    assert [found[f"accuracy_5{a}"] for a in ("_yaw", "_pitch", "_roll", "")] == list(at_5[:4])
    assert [found[f"accuracy_{t}"] for t in (5, 10, 15)] == [50.0, 75.0, 75.0]
    assert found["accuracy_15_yaw"] == 100.0 and found["accuracy_15_roll"] == 75.0


def test_quantiles_are_those_of_numpy_on_angles_and_rotations():
    predicted, true = heads(501, noise=5.0)
    found = score_arrays(predicted, true)
    errors = np.abs(predicted - true)
    geodesic = geodesic_deg(matrix_from_euler(predicted), matrix_from_euler(true))
    for j, angle in enumerate(("yaw", "pitch", "roll")):
        assert found[f"median_{angle}"] == pytest.approx(np.median(errors[:, j]))
        assert found[f"p95_{angle}"] == pytest.approx(np.percentile(errors[:, j], 95))
    assert found["median_geodesic"] == pytest.approx(np.median(geodesic))
    assert quantiles(geodesic).p95 == pytest.approx(found["p95_geodesic"])
    assert np.isnan(quantiles(np.empty((0, 3))).median).all()
    with pytest.raises(UbhpdError, match="finite errors"):
        quantiles([np.nan])


def test_the_area_is_the_integral_of_the_distribution():
    predicted, true = heads(400, noise=12.0)
    errors = np.abs(predicted - true)
    at = (np.arange(30_000) + 0.5) * LIMIT_DEG / 30_000
    by_midpoints = [100 * cdf(errors[:, j], at).mean() for j in range(3)]
    assert error_auc(errors) == pytest.approx(by_midpoints, abs=0.01)
    found = score_arrays(predicted, true)
    assert [found[f"auc_{a}"] for a in ("yaw", "pitch", "roll")] == pytest.approx(error_auc(errors))
    assert cdf([1.0, 2.0, 2.0, 9.0], [0.5, 1.0, 2.0, 10.0]).tolist() == [0.0, 0.25, 0.75, 1.0]
    with pytest.raises(UbhpdError, match="negative"):
        cdf([-1.0], [0.0])


@pytest.mark.parametrize("n", [200, 7_000])
def test_the_interval_of_the_median_is_that_of_resampled_rows(n):
    predicted, true = heads(n, noise=6.0, seed=4)
    scored = score(Pairs(predicted, true))
    found = intervals(scored.errors, scored.statistics, OPTIONS, BootstrapOptions(rounds=1000))
    errors = np.abs(predicted - true)
    rng = np.random.default_rng(8)
    drawn = errors[rng.integers(0, n, size=(1000, n))] if n < 1000 else None
    for j, angle in enumerate(("yaw", "pitch", "roll")):
        for name, share in (("median", 0.5), ("p95", 0.95)):
            if drawn is None:
                rows = (errors[rng.integers(0, n, size=n), j] for _ in range(500))
                values = np.array([np.quantile(r, share) for r in rows])
            else:
                values = np.quantile(drawn[:, :, j], share, axis=1)
            low, high = np.quantile(values, [0.025, 0.975])
            interval = found[f"{name}_{angle}"]
            assert interval.low < scored.scores[f"{name}_{angle}"] < interval.high
            assert interval == pytest.approx((low, high), abs=0.2 * (high - low)), (name, angle)


def test_a_quantile_of_resampled_groups_follows_the_groups_drawn():
    predicted, true = heads(600, noise=6.0)
    groups = np.arange(600) // 60
    predicted += np.random.default_rng(0).normal(0.0, 4.0, (10, 3))[groups]
    errors = score(Pairs(predicted, true)).errors
    options = BootstrapOptions(rounds=40, seed=2)
    found = scores(resamples([errors], options, groups)[0], OPTIONS)
    for r, chosen in enumerate(np.random.default_rng(2).integers(0, 10, size=(40, 10))):
        rows = np.concatenate([np.flatnonzero(groups == g) for g in chosen])
        wanted = np.median(np.abs(predicted - true)[rows], axis=0)
        assert [found[f"median_{a}"][r] for a in ("yaw", "pitch", "roll")] == pytest.approx(wanted, abs=0.25)


def test_every_score_has_an_interval_that_holds_it(tmp_path):
    predicted, true = heads(300, 5.0)
    path = write_csv(tmp_path / "p.csv", predicted, true)
    result = evaluate(path, None, EvaluationOptions(bootstrap=BootstrapOptions(rounds=200))).result
    for name, s in result["scores"].items():
        if name == "worst_bin":  # a maximum has no percentile interval
            assert s["low"] is None and s["high"] is None
        else:
            assert s["low"] <= s["value"] <= s["high"], name
    assert result["error_cdf"]["degrees"][-1] == LIMIT_DEG and result["error_cdf"]["yaw"][-1] == 1.0


def test_compare_knows_for_which_scores_higher_is_better(tmp_path):
    predicted, true = heads(400, 6.0)
    worse = write_csv(tmp_path / "worse.csv", predicted, true)
    good = write_csv(tmp_path / "good.csv", true + 0.5 * (predicted - true), true)
    for first, second, name in ((worse, good, "second"), (good, worse, "first")):
        result = compare(first, second, None, EvaluationOptions()).result
        for score_name in ("mae", "geodesic", "median_yaw", "p95_geodesic", "accuracy_5", "auc_geodesic"):
            assert result["scores"][score_name]["better"] == name, score_name
        line = next(row for row in compare_text(result).splitlines() if row.startswith("accuracy_5 "))
        assert line.split()[-1] == name
    same = compare(good, good, None, EvaluationOptions()).result
    assert all(s["better"] is None for s in same["scores"].values())
