import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from score_data import covering, heads

from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import matrix_from_euler
from ubhpd.metrics import balanced, mae


def test_balanced_mae_is_the_mean_of_bins_then_of_angles():
    true = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [80.0, 0.0, 0.0]]
    predicted = [[1.0, 0.0, 3.0], [2.0, 0.0, 3.0], [3.0, 0.0, 3.0], [90.0, 4.0, 3.0]]
    yaw = ((1 + 2 + 3) / 3 + 10) / 2
    pitch = (0 + 0 + 0 + 4) / 4
    roll = 3.0
    assert balanced.balanced_mae(predicted, true) == pytest.approx((yaw + pitch + roll) / 3)


def test_bmae_is_the_mean_over_rings_from_frontal():
    true = matrix_from_euler([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 22.0, 0.0], [0.0, 0.0, 74.9], [80.0, 0.0, 0.0]])
    predicted = matrix_from_euler(
        [[1.0, 0.0, 0.0], [5.0, 0.0, 0.0], [0.0, 26.0, 0.0], [0.0, 0.0, 64.9], [0.0, 0.0, 0.0]]
    )
    # rings 0 (errors 1 and 3), 4 (error 4), 14 (error 10); 80 degrees is beyond the last ring
    assert balanced.bmae(predicted, true) == pytest.approx(((1 + 3) / 2 + 4 + 10) / 3)


def test_rings_are_half_open_and_end_at_75():
    assert balanced.ring_index([0.0, 4.999, 5.0, 74.999, 75.0, 180.0]).tolist() == [0, 0, 1, 14, -1, -1]


def test_shots_follow_the_training_counts():
    error, n, source = np.full((3, 15), np.nan), np.zeros((3, 15)), np.full((3, 15), 1000.0)
    error[0, 0], n[0, 0], source[0, 0] = 10.0, 2, 19
    error[1, 1], n[1, 1], source[1, 1] = 4.0, 3, 20
    error[2, 2], n[2, 2], source[2, 2] = 6.0, 1, 100
    error[0, 7], n[0, 7], source[0, 7] = 1.0, 5, 101
    error[1, 3], n[1, 3], source[1, 3] = 40.0, 1, 0
    found = balanced.shots(error, n, source)
    assert found["few"] == pytest.approx((10 * 2 + 40 * 1) / 3)
    assert found["median"] == pytest.approx((4 * 3 + 6 * 1) / 4)
    assert found["many"] == pytest.approx(1.0)


def test_shots_without_samples_are_nan():
    found = balanced.shots(np.full((3, 15), np.nan), np.zeros((3, 15)), np.ones((3, 15)))
    assert all(np.isnan(v) for v in found.values())


def test_worst_bin_asks_for_enough_samples():
    error, n = np.full((3, 15), np.nan), np.zeros((3, 15))
    error[0, 0], n[0, 0] = 50.0, 1
    error[1, 1], n[1, 1] = 20.0, 9
    assert balanced.worst_bin(error, n) == 50.0
    assert balanced.worst_bin(error, n, min_count=5) == 20.0
    assert np.isnan(balanced.worst_bin(error, n, min_count=10))
    with pytest.raises(UbhpdError, match="at least 1"):
        balanced.worst_bin(error, n, 0)


@given(st.integers(0, 500))
def test_equal_bins_make_balanced_and_plain_the_same(seed):
    predicted, true = covering(seed)
    assert balanced.balanced_mae(predicted, true) == pytest.approx(mae.mae(predicted, true).mean)


@given(st.integers(0, 500), st.integers(2, 4))
def test_repeating_the_set_changes_no_balanced_error(seed, times):
    predicted, true = heads(40, seed=seed)
    again = balanced.balanced_mae(np.tile(predicted, (times, 1)), np.tile(true, (times, 1)))
    assert again == pytest.approx(balanced.balanced_mae(predicted, true))


def test_an_angle_without_samples_leaves_no_balanced_mae():
    assert np.isnan(balanced.balanced_mae([[0.0, 0.0, 95.0]], [[0.0, 0.0, 95.0]]))
    assert np.isnan(balanced.balanced_mae(np.empty((0, 3)), np.empty((0, 3))))
    assert np.isnan(balanced.bmae(np.empty((0, 3, 3)), np.empty((0, 3, 3))))
