import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ubhpd.core.errors import UbhpdError
from ubhpd.metrics import mae

ANGLES = hnp.arrays(np.float64, st.tuples(st.integers(1, 30), st.just(3)), elements=st.floats(-400, 400))


def test_mae_is_the_hand_sum():
    predicted = [[10.0, 0.0, -5.0], [20.0, 4.0, 5.0]]
    true = [[13.0, 1.0, -5.0], [15.0, 2.0, 11.0]]
    found = mae.mae(predicted, true)
    assert found.yaw == pytest.approx((3 + 5) / 2)
    assert found.pitch == pytest.approx((1 + 2) / 2)
    assert found.roll == pytest.approx((0 + 6) / 2)
    assert found.mean == pytest.approx((4 + 1.5 + 3) / 3)
    assert found.n == 2


def test_plain_counts_a_full_turn_and_wrapped_does_not():
    predicted, true = [[179.0, 0.0, 350.0]], [[-179.0, 0.0, -10.0]]
    assert mae.mae(predicted, true)[:3] == (358.0, 0.0, 360.0)
    assert mae.mae_wrapped(predicted, true)[:3] == pytest.approx((2.0, 0.0, 0.0))


def test_a_head_turned_round_costs_180_degrees():
    assert mae.mae_wrapped([[180.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]]).yaw == 180.0
    assert mae.mae_wrapped([[90.0, 0.0, 0.0]], [[-90.0, 0.0, 0.0]]).yaw == 180.0


def test_per_bin_is_the_hand_sum_and_counts_what_is_outside():
    true = [[-90.0, 0.0, 0.0], [-79.0, 0.0, 0.0], [90.0, 95.0, 0.0], [-78.0, 0.0, 0.0]]
    predicted = [[-88.0, 1.0, 0.0], [-75.0, 2.0, 0.0], [80.0, 3.0, 0.0], [-77.0, 6.0, 0.0]]
    table = mae.per_bin(predicted, true)
    assert table.n[0].tolist() == [2, 1] + [0] * 12 + [1]
    assert table.error[0, 0] == pytest.approx((2 + 4) / 2)
    assert table.error[0, 1] == pytest.approx(1.0)
    assert table.error[0, 14] == pytest.approx(10.0)
    assert np.isnan(table.error[0, 2:14]).all()
    assert table.n[1, 7] == 3 and table.error[1, 7] == pytest.approx((1 + 2 + 6) / 3)
    assert table.outside.tolist() == [0, 1, 0]


def test_nothing_to_average_is_nan_and_zero():
    found = mae.mae(np.empty((0, 3)), np.empty((0, 3)))
    assert found.n == 0 and np.isnan(found[:4]).all()
    table = mae.per_bin(np.empty((0, 3)), np.empty((0, 3)))
    assert np.isnan(table.error).all() and table.n.sum() == 0


@given(ANGLES)
def test_perfect_is_zero_and_any_error_is_not(true):
    assert mae.mae(true, true).mean == 0.0
    assert mae.mae_wrapped(true, true).mean == 0.0
    assert mae.mae(true + 1.0, true).mean == pytest.approx(1.0)


@given(ANGLES, st.sampled_from([-720.0, -360.0, 360.0]))
def test_wrapped_is_blind_to_full_turns_and_never_above_plain(true, turn):
    predicted = true[::-1].copy()
    whole = mae.mae_wrapped(predicted, true).mean
    assert mae.mae_wrapped(predicted + turn, true).mean == pytest.approx(whole, abs=1e-6)
    assert whole <= mae.mae(predicted, true).mean + 1e-9
    assert whole <= 180.0


@pytest.mark.parametrize(
    ("predicted", "true", "said"),
    [
        (np.zeros((2, 3)), np.zeros((3, 3)), "2 rows and true has 3"),
        (np.zeros((2, 2)), np.zeros((2, 2)), "found shape"),
        (np.zeros(3), np.zeros(3), "found shape"),
        ([[0.0, np.nan, 0.0]], [[0.0, 0.0, 0.0]], "row 0"),
        ([[0.0, 0.0, 0.0]], [[0.0, np.inf, 0.0]], "True"),
        ([["a", "b", "c"]], [[0.0, 0.0, 0.0]], "no array of numbers"),
    ],
)
def test_bad_arrays_are_said(predicted, true, said):
    with pytest.raises(UbhpdError, match=said):
        mae.mae(predicted, true)
