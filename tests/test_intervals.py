import numpy as np
import pytest
from scipy.stats import norm, poisson
from score_data import heads

from ubhpd.core.errors import UbhpdError
from ubhpd.evaluation.intervals import (
    _POISSON,
    FEW_GROUPS,
    BootstrapOptions,
    intervals,
    paired,
    resamples,
    sign_test,
)
from ubhpd.evaluation.scoring import Pairs, ScoreOptions, score, scores

OPTIONS = ScoreOptions()
SOURCE = np.full((3, 15), 50.0)


def scored(n=300, noise=4.0, seed=0):
    return score(Pairs(*heads(n, noise, seed)), source_counts=SOURCE)


# Scores of bins: a resample keeps bins that the rows drawn leave empty.
OF_BINS = ("balanced_mae", "bmae", "worst_bin", "mae_many", "mae_median", "mae_few", "ubmae", "ubmae_normalised")


def test_a_resample_is_the_score_of_the_rows_drawn():
    s = scored(40)
    options = BootstrapOptions(rounds=5, seed=3)
    found = scores(resamples([s.errors], options)[0] | {"source_counts": SOURCE}, OPTIONS)
    drawn = np.random.default_rng(3).integers(0, 40, size=(5, 40))
    predicted, true = heads(40, 4.0)
    for r, rows in enumerate(drawn):
        wanted = score(Pairs(predicted[rows], true[rows]), source_counts=SOURCE).scores
        for name in set(wanted) - {"geodesic_aligned", *OF_BINS}:
            assert found[name][r] == pytest.approx(wanted[name], nan_ok=True), name


def test_a_resample_of_groups_is_the_score_of_the_groups_drawn():
    s = scored(60)
    groups = np.arange(60) // 10
    found = scores(resamples([s.errors], BootstrapOptions(rounds=4, seed=1), groups)[0], OPTIONS)
    predicted, true = heads(60, 4.0)
    for r, chosen in enumerate(np.random.default_rng(1).integers(0, 6, size=(4, 6))):
        rows = np.concatenate([np.flatnonzero(groups == g) for g in chosen])
        assert found["mae"][r] == pytest.approx(np.abs(predicted - true)[rows].mean())


def with_rare_bins(n, seed):
    """Return heads with normal angles, and errors that grow towards the profile: few heads carry much of the score."""
    rng = np.random.default_rng(seed)
    true = np.clip(rng.normal(0.0, [34.0, 18.0, 15.0], size=(n, 3)), -89.0, 89.0)
    hard = 1 + (np.abs(true).max(axis=1) / 45.0) ** 2
    return true + rng.normal(0.0, 4.0, (n, 3)) * hard[:, None], true


@pytest.mark.parametrize("over", ["samples", "subjects"])
def test_the_interval_of_a_balanced_error_holds_its_value(over):
    for seed in range(10):
        s = score(Pairs(*with_rare_bins(300, seed)), source_counts=SOURCE)
        groups = np.arange(300) // 15 if over == "subjects" else None
        found = intervals(s.errors, s.statistics, OPTIONS, BootstrapOptions(rounds=300, over=over), groups)
        for name in ("balanced_mae", "bmae", "ubmae", "ubmae_normalised", "mae_many", "mae_median", "mae_few"):
            if np.isfinite(s.scores[name]):
                assert found[name].low < s.scores[name] < found[name].high, (seed, name)


def test_the_interval_of_a_balanced_error_covers_the_value_of_the_population():
    """Of 120 test sets of 250 heads; the population has the same bins as each test set."""
    predicted, true = with_rare_bins(60_000, 1000)
    population = score(Pairs(predicted, true)).statistics
    with np.errstate(invalid="ignore"):
        bin_mae = population["bin_abs_error"] / population["bin_n"]
    covered = 0
    for seed in range(120):
        rows = np.random.default_rng(seed).integers(0, len(true), 250)
        s = score(Pairs(predicted[rows], true[rows]))
        occupied = s.statistics["bin_n"] > 0
        value = np.mean([bin_mae[j][occupied[j]].mean() for j in range(3)])
        found = intervals(s.errors, s.statistics, OPTIONS, BootstrapOptions(rounds=300, seed=seed))["balanced_mae"]
        covered += found.low <= value <= found.high
    assert 0.90 <= covered / 120 <= 0.99


@pytest.mark.parametrize("n", [FEW_GROUPS + 1, 30])
def test_a_bin_of_few_heads_varies_as_the_mean_of_so_few(n):
    rng = np.random.default_rng(2)
    true = np.concatenate([np.zeros((400, 3)), np.tile([60.0, 0.0, 0.0], (n, 1))])
    s = score(Pairs(true + np.abs(rng.normal(0, 5, true.shape)), true))
    drawn = resamples([s.errors], BootstrapOptions(rounds=8000))[0]
    bin_mae = drawn["bin_abs_error"][:, 0, 12] / drawn["bin_n"][:, 0, 12]
    own = s.errors.columns["abs_error"][400:, 0]
    assert bin_mae.mean() == pytest.approx(own.mean(), rel=0.02)
    assert bin_mae.std() == pytest.approx(own.std(ddof=1) / np.sqrt(n), rel=0.06)


def test_a_bin_of_one_head_varies_as_the_heads_of_other_bins():
    rng = np.random.default_rng(2)
    true = np.concatenate([np.zeros((2000, 3)), [[60.0, 0.0, 0.0]]])
    s = score(Pairs(true + np.abs(rng.normal(0, 5, true.shape)), true))
    drawn = resamples([s.errors], BootstrapOptions(rounds=8000))[0]
    bin_mae = drawn["bin_abs_error"][:, 0, 12] / drawn["bin_n"][:, 0, 12]
    share = s.errors.columns["abs_error"][:2000, 0].std() / s.errors.columns["abs_error"][:2000, 0].mean()
    tails = np.sqrt(6 / 4)  # the standard deviation of Student's t with 6 degrees of freedom
    expected = s.errors.columns["abs_error"][2000, 0] * share / np.sqrt(1 + share**2) * tails
    assert bin_mae.std() == pytest.approx(expected, rel=0.1)
    paired_drawn = resamples([s.errors, s.errors], BootstrapOptions(rounds=50))
    np.testing.assert_array_equal(paired_drawn[0]["bin_abs_error"], paired_drawn[1]["bin_abs_error"])


def test_the_interval_of_the_mae_is_that_of_the_normal_theory():
    s = scored(4000)
    per_head = s.errors.columns["abs_error"].mean(axis=1)
    half = 1.96 * per_head.std() / np.sqrt(len(per_head))
    found = intervals(s.errors, s.statistics, OPTIONS, BootstrapOptions(rounds=2000))["mae"]
    assert found.low == pytest.approx(per_head.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(per_head.mean() + half, abs=0.15 * half)


def test_many_samples_are_drawn_by_poisson_counts_with_the_same_interval():
    s = scored(9000)
    per_head = s.errors.columns["abs_error"].mean(axis=1)
    half = 1.96 * per_head.std() / np.sqrt(len(per_head))
    found = intervals(s.errors, s.statistics, OPTIONS, BootstrapOptions())["mae"]
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)


def test_groups_that_move_together_widen_the_interval():
    rng = np.random.default_rng(0)
    _, true = heads(1000)
    groups = np.arange(1000) // 50
    predicted = true + rng.normal(0, 6, 20)[groups][:, None] + rng.normal(size=true.shape)
    s = score(Pairs(predicted, true))
    single = intervals(s.errors, s.statistics, OPTIONS, BootstrapOptions())["mae"]
    grouped = intervals(s.errors, s.statistics, OPTIONS, BootstrapOptions(over="subjects"), groups)["mae"]
    assert grouped.high - grouped.low > 3 * (single.high - single.low)


def test_same_seed_same_interval():
    s = scored(200)
    a, b = (intervals(s.errors, s.statistics, OPTIONS, BootstrapOptions(seed=5)) for _ in range(2))
    assert repr(a) == repr(b)
    assert repr(a) != repr(intervals(s.errors, s.statistics, OPTIONS, BootstrapOptions(seed=6)))


def test_paired_test_sees_a_small_difference_that_single_intervals_do_not():
    predicted, true = heads(500, noise=5.0)
    better = predicted + 0.02 * (true - predicted)
    a, b = score(Pairs(predicted, true)), score(Pairs(better, true))
    found = paired(a.errors, b.errors, a.statistics, OPTIONS, BootstrapOptions())["mae"]
    assert found.difference == pytest.approx(a.scores["mae"] - b.scores["mae"])
    assert 0 < found.low < found.difference < found.high and found.p_value < 0.01
    alone = intervals(a.errors, a.statistics, OPTIONS, BootstrapOptions())["mae"]
    assert alone.low < b.scores["mae"]


def test_paired_test_of_equals_says_so():
    s = scored(100)
    found = paired(s.errors, s.errors, s.statistics, OPTIONS, BootstrapOptions())
    finite = {name: d for name, d in found.items() if np.isfinite(d.difference)}
    assert all(d.difference == 0 for d in finite.values()) and "mae" in finite
    assert {d.p_value for name, d in finite.items() if name != "worst_bin"} == {1.0}
    assert np.isnan(found["worst_bin"].p_value)
    assert sign_test(np.zeros(10), BootstrapOptions()) == 1.0


def test_false_alarms_of_both_tests_are_as_rare_as_promised():
    alarms = np.zeros(2)
    _, true = heads(80)
    for seed in range(150):
        rng = np.random.default_rng(seed)
        a, b = (score(Pairs(true + 3 * rng.normal(size=true.shape), true)) for _ in range(2))
        options = BootstrapOptions(rounds=200, seed=seed)
        p = paired(a.errors, b.errors, a.statistics, OPTIONS, options)["mae"].p_value
        delta = (a.errors.columns["abs_error"] - b.errors.columns["abs_error"]).mean(axis=1)
        alarms += [p < 0.05, sign_test(delta, options) < 0.05]
    assert (alarms / 150 < 0.11).all() and (alarms > 0).all()


def test_sign_test_counts_as_the_exact_enumeration():
    delta = np.array([1.0, 2.0, 3.0, -0.5])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 4)).reshape(4, -1)
    exact = (np.abs(signs.T @ delta) >= delta.sum() - 1e-9).mean()
    assert sign_test(delta, BootstrapOptions(rounds=20_000)) == pytest.approx(exact, abs=0.02)


def test_p_values_are_two_sided_and_never_zero():
    options = BootstrapOptions(rounds=999)
    assert sign_test(np.ones(60), options) == pytest.approx(1 / 1000)
    rng = np.random.default_rng(1)
    delta = rng.normal(0.15, 1.0, 400)
    z = delta.mean() / (delta.std() / np.sqrt(400))
    wanted = 2 * norm.sf(abs(z))
    assert sign_test(delta, BootstrapOptions(rounds=20_000)) == pytest.approx(wanted, rel=0.2)
    _, true = heads(400)
    a, b = (score(Pairs(true + np.abs(10.0 + k * delta)[:, None], true)) for k in (1.0, 0.0))
    found = paired(a.errors, b.errors, a.statistics, OPTIONS, BootstrapOptions(rounds=20_000))["mae"].p_value
    assert found == pytest.approx(wanted, rel=0.25)


def test_poisson_counts_have_mean_and_variance_one():
    assert (_POISSON.size, _POISSON.mean(), _POISSON.var()) == (256, 1.0, 1.0)
    for k in range(5):
        assert (k == _POISSON).mean() == pytest.approx(poisson.pmf(k, 1), abs=0.005)


def test_bad_options_are_said():
    with pytest.raises(UbhpdError, match="Cannot resample 0 times"):
        BootstrapOptions(rounds=0)
    with pytest.raises(UbhpdError, match="level"):
        BootstrapOptions(level=1.5)
    with pytest.raises(UbhpdError, match="No sample"):
        resamples([score(Pairs(np.empty((0, 3)), np.empty((0, 3)))).errors], BootstrapOptions())
    with pytest.raises(UbhpdError, match="Cannot pair"):
        paired(scored(5).errors, scored(6).errors, {}, OPTIONS, BootstrapOptions())
