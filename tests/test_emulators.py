import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from score_data import heads

from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import matrix_from_euler
from ubhpd.evaluation.metric_cards import all_scores
from ubhpd.evaluation.torchmetric import opal_wrapped_mae, osggnet_short_batch_mae, sixdrepnet_folded_mae
from ubhpd.metrics.mae import mae

EMULATORS = (sixdrepnet_folded_mae, osggnet_short_batch_mae, opal_wrapped_mae)


def test_folding_makes_a_head_turned_round_free():
    predicted, true = [[170.0, 0.0, -175.0]], [[-10.0, 0.0, 0.0]]
    found = sixdrepnet_folded_mae(predicted, true)
    assert (found.yaw, found.roll) == (0.0, 5.0)
    assert mae(predicted, true).yaw == 180.0


@given(st.integers(0, 500))
def test_folded_errors_never_exceed_90_nor_the_plain_ones(seed):
    rng = np.random.default_rng(seed)
    predicted, true = rng.uniform(-180, 180, (2, 20, 3))
    found = sixdrepnet_folded_mae(predicted, true)
    assert max(found[:3]) <= 90.0 and found.mean <= mae(predicted, true).mean + 1e-9


def test_the_short_batch_is_divided_by_the_full_one():
    true = np.zeros((5, 3))
    predicted = np.array([[2.0, 0, 0], [4.0, 0, 0], [6.0, 0, 0], [8.0, 0, 0], [10.0, 0, 0]])
    batches = [(2 + 4) / 2, (6 + 8) / 2, 10 / 2]
    assert osggnet_short_batch_mae(predicted, true, 2).yaw == pytest.approx(sum(batches) / 3)
    assert mae(predicted, true).yaw == pytest.approx(6.0)


@given(st.integers(1, 200), st.integers(1, 64))
def test_the_short_batch_makes_the_error_smaller_by_a_known_factor(n, batch):
    predicted, true = heads(n)
    factor = n / (batch * -(-n // batch))
    found = osggnet_short_batch_mae(predicted, true, batch)
    assert found.mean == pytest.approx(factor * mae(predicted, true).mean)


def test_opal_takes_the_better_way_to_write_the_same_rotation():
    true = np.array([[120.0, 10.0, 5.0]])
    predicted = np.array([[60.0, -170.0, -175.0]])  # the same rotation
    assert matrix_from_euler(predicted) == pytest.approx(matrix_from_euler(true), abs=1e-12)
    assert opal_wrapped_mae(predicted, true).mean == pytest.approx(0.0, abs=1e-12)
    assert mae(predicted, true).mean == pytest.approx((60 + 180 + 180) / 3)


@given(st.integers(0, 500))
def test_opal_never_exceeds_the_plain_error(seed):
    rng = np.random.default_rng(seed)
    predicted, true = rng.uniform(-180, 180, (2, 20, 3))
    assert opal_wrapped_mae(predicted, true).mean <= mae(predicted, true).mean + 1e-9


@pytest.mark.parametrize("emulate", EMULATORS)
def test_emulators_are_no_metrics_and_take_the_same_care(emulate):
    assert emulate.__name__ not in all_scores()
    assert emulate([[1.0, 2.0, 3.0]] * 64, [[1.0, 2.0, 3.0]] * 64).mean == 0.0
    assert np.isnan(emulate(np.empty((0, 3)), np.empty((0, 3))).mean)
    with pytest.raises(UbhpdError):
        emulate([[np.nan, 0, 0]], [[0, 0, 0]])
    with pytest.raises(UbhpdError):
        emulate(np.zeros((2, 3)), np.zeros((3, 3)))


def test_a_batch_of_nothing_is_said():
    with pytest.raises(UbhpdError, match="1 or more"):
        osggnet_short_batch_mae([[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]], 0)
