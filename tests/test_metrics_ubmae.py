import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from realdata import needs
from score_data import HOPENET, LP_HISTOGRAM, covering, heads

from ubhpd.core.bins import counts
from ubhpd.core.errors import UbhpdError
from ubhpd.evaluation import predictions
from ubhpd.evaluation.pairing import known, training_set
from ubhpd.evaluation.printed_results import printed_constants, printed_pairs, results
from ubhpd.metrics import balanced, density_weights, mae, ubmae, ubmae_printed

SOURCE = np.full((3, 15), 10.0)


def test_equation_14_is_the_hand_sum():
    # yaw in bins 0 (twice) and 7, pitch and roll all in bin 7; 3U = 45
    true = [[-85.0, 0.0, 0.0], [-80.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    predicted = [[-83.0, 1.0, 2.0], [-76.0, 1.0, 2.0], [5.0, 1.0, 2.0], [8.0, 1.0, 2.0]]
    source = np.zeros((3, 15))
    source[:, 0], source[:, 7] = 1, 3  # s = 1/4 and 3/4 for each angle
    found = ubmae.ubmae(predicted, true, source)
    yaw = (2 / 4) / (1 / 4) * (2 + 4) / 2 + (2 / 4) / (3 / 4) * (5 + 7) / 2
    pitch = (4 / 4) / (3 / 4) * 1
    roll = (4 / 4) / (3 / 4) * 2
    assert found.value == pytest.approx((yaw + pitch + roll) / 45)
    assert found.normalised == pytest.approx((yaw + pitch + roll) / (2 + 2 / 3 + 4 / 3 + 4 / 3))
    assert found.non_empty == 4 and found.smallest_count == 2
    assert found.dropped.tolist() == [0.0, 0.0, 0.0]
    assert found.error[0, 0] == pytest.approx(3.0) and np.isnan(found.error[0, 1])


def test_with_d_equal_s_and_no_empty_bin_it_is_the_balanced_mae():
    predicted, true = covering()
    found = ubmae.ubmae(predicted, true, counts(true).inside)
    assert (found.weight == 1.0).all() and found.non_empty == 45
    assert found.value == pytest.approx(balanced.balanced_mae(predicted, true))
    assert found.normalised == pytest.approx(found.value)


@given(st.integers(0, 1000), st.floats(0.5, 20.0))
def test_the_scale_of_the_source_counts_does_not_matter(seed, factor):
    predicted, true = heads(60, seed=seed)
    one, other = (ubmae.ubmae(predicted, true, SOURCE * k) for k in (1.0, factor))
    assert one.value == pytest.approx(float(other.value))


def test_a_bin_the_source_never_saw_is_dropped_and_its_mass_is_said():
    true = [[-85.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    source = SOURCE.copy()
    source[0, 0] = 0
    w = density_weights.weights(counts(true).inside, source)
    assert w.weight[0, 0] == 0.0 and w.dropped.tolist() == [0.25, 0.0, 0.0]
    assert w.weight[0, 7] == pytest.approx((3 / 4) / (10 / 140))


def test_smooth_adds_to_both_and_raise_names_the_bin():
    target, source = np.zeros((3, 15)), np.zeros((3, 15))
    target[:, 0], source[:, 7] = 4, 6
    w = density_weights.weights(target, source, "smooth", alpha=2.0)
    d, s = (4 + 2) / (4 + 30), 2 / (6 + 30)
    assert w.weight[0, 0] == pytest.approx(d / s)
    assert w.dropped.tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(UbhpdError, match="no head in yaw -90 to -78"):
        density_weights.weights(target, source, "raise")


@pytest.mark.parametrize(
    ("source", "rule", "alpha", "said"),
    [
        (SOURCE, "guess", 1.0, "Unknown rule"),
        (np.zeros((3, 15)), "drop", 1.0, "no head inside the bins of yaw"),
        (SOURCE / 150, "smooth", 1.0, "give its counts"),
        (SOURCE, "smooth", 0.0, "above 0"),
        (SOURCE[:, :14], "drop", 1.0, "shape"),
        (-SOURCE, "drop", 1.0, "negative"),
    ],
)
def test_bad_sources_are_said(source, rule, alpha, said):
    with pytest.raises(UbhpdError, match=said):
        density_weights.weights(SOURCE, source, rule, alpha)


def test_no_sample_is_nan():
    found = ubmae.ubmae(np.empty((0, 3)), np.empty((0, 3)), SOURCE)
    assert np.isnan(found.value) and np.isnan(found.normalised) and found.non_empty == 0
    outside_only = ubmae.ubmae([[95.0, 95.0, 95.0]], [[95.0, 95.0, 95.0]], SOURCE)
    assert np.isnan(outside_only.value)


def test_normalised_divides_by_the_weights_of_bins_with_samples_only():
    predicted, true = [[1.0, 2.0, 3.0]], [[0.0, 0.0, 0.0]]
    found = ubmae.ubmae(predicted, true, SOURCE, "smooth")  # smoothing gives empty bins a weight, too
    assert (found.weight > 0).all() and found.normalised == pytest.approx((1 + 2 + 3) / 3)


def test_an_angle_without_a_sample_has_no_weight_rather_than_nan():
    w = density_weights.weights(np.zeros((3, 15)), SOURCE)
    assert (w.weight == 0.0).all() and (w.dropped == 0.0).all()


def test_sample_weights_are_those_of_the_bins_and_zero_outside():
    weight = np.arange(45.0).reshape(3, 15)
    assert density_weights.sample_weights([[-90.0, 0.0, 95.0]], weight).tolist() == [[0.0, 22.0, 0.0]]


def test_every_printed_value_but_one_follows_the_constants():
    wrong = {}
    checked = 0
    for row in results():
        if row.ubmae is None or row.angles is None:
            continue
        value = float(ubmae_printed.ubmae_printed(row.angles, printed_constants(row.train, row.test)))
        checked += 1
        if abs(value - row.ubmae) > 0.01:
            wrong[row.method, row.test] = (row.ubmae, round(value, 2))
    assert checked >= 70
    assert wrong == {("Landmarks", "BIWI"): (9.52, 15.87)}


def test_pairs_that_are_not_printed_are_refused():
    assert len(printed_pairs()) == 6
    with pytest.raises(UbhpdError, match="300W-LP:AFLW2000"):
        printed_constants("UBHPD", "AFLW2000")
    assert printed_constants("300w-lp", "biwi")[0] == 1.5699


def test_printed_is_linear_in_the_three_maes():
    k = printed_constants("300W-LP", "AFLW2000")
    assert ubmae_printed.ubmae_printed([6.92, 6.64, 5.67], k) == pytest.approx(
        (1.1518 * 6.92 + 1.0799 * 6.64 + 1.6686 * 5.67) / 3
    )
    with pytest.raises(UbhpdError, match="shapes"):
        ubmae_printed.ubmae_printed([1.0, 2.0], k)
    with pytest.raises(UbhpdError, match="positive"):
        ubmae_printed.ubmae_printed([1.0, 2.0, 3.0], [0.0, 1.0, 1.0])


@needs("labels")
def test_the_shipped_counts_are_those_of_the_histogram():
    yaw = [9046, 9253, 9228, 9120, 9150, 7933, 5877, 3220, 5890, 7920, 9132, 9149, 9206, 9263, 9063]
    pitch = [64, 119, 238, 770, 3908, 17601, 52774, 36040, 8400, 1813, 487, 117, 44, 5, 9]
    roll = [35, 61, 113, 201, 810, 5327, 24250, 60628, 24281, 5391, 859, 255, 101, 68, 33]
    found = training_set(str(LP_HISTOGRAM))
    assert found.counts.tolist() == [yaw, pitch, roll]
    assert found.outside.tolist() == [0, 61, 37]
    shipped = known()["300W-LP"]
    assert shipped.counts.tolist() == found.counts.tolist() and shipped.outside.tolist() == found.outside.tolist()
    assert (shipped.counts.sum(axis=1) + shipped.outside == 122_450).all()


@needs("predictions")
def test_hopenet_on_aflw2000_is_about_180_by_equation_14_and_8_as_printed():
    file = predictions.read(HOPENET)
    found = ubmae.ubmae(file.predicted_deg, file.true_deg, known()["300W-LP"].counts)
    assert found.value == pytest.approx(177.65, abs=0.01)
    table = mae.per_bin(file.predicted_deg, file.true_deg)
    source = known()["300W-LP"].counts
    total = 0.0
    for j in range(3):  # equation 14, term by term
        for i in range(15):
            d = table.n[j, i] / table.n[j].sum()
            s = source[j, i] / source[j].sum()
            total += d / s * (table.error[j, i] if table.n[j, i] else 0.0)
    assert found.value == pytest.approx(total / (3 * 15))
    printed = ubmae_printed.ubmae_printed(
        mae.mae(file.predicted_deg, file.true_deg)[:3], printed_constants("300W-LP", "AFLW2000")
    )
    assert printed == pytest.approx(8.20, abs=0.01)
