import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubhpd.core.bins import CENTRES_DEG, EDGES_DEG, N_BINS, OUTSIDE, bin_index, counts, densities
from ubhpd.core.errors import UbhpdError


def test_edges_are_those_of_the_paper():
    assert EDGES_DEG.tolist() == [-90 + 12 * i for i in range(16)]
    assert CENTRES_DEG[7] == 0


def test_a_bin_holds_its_lower_edge_and_the_last_one_its_upper_too():
    assert bin_index(EDGES_DEG[:-1]).tolist() == list(range(N_BINS))
    assert bin_index(np.nextafter(EDGES_DEG[1:-1], -np.inf)).tolist() == list(range(N_BINS - 1))
    assert bin_index(90.0) == N_BINS - 1


def test_nothing_outside_is_moved_inside():
    outside = [np.nextafter(90, 91), np.nextafter(-90, -91), 99.0, 893.7, np.nan, np.inf, -np.inf]
    assert bin_index(outside).tolist() == [OUTSIDE] * 7


@given(st.floats(-90, 90, exclude_max=True))
def test_an_angle_lies_between_the_edges_of_its_bin(angle):
    i = bin_index(angle)
    assert EDGES_DEG[i] <= angle < EDGES_DEG[i + 1]


def test_counts_by_hand():
    found = counts([[0.0, -90.0, 90.0], [5.9, 99.0, 80.0], [6.0, np.nan, -91.0]])
    assert found.inside[0].tolist() == [0] * 7 + [2, 1] + [0] * 6
    assert found.inside[1].tolist() == [1] + [0] * 14
    assert found.inside[2].tolist() == [0] * 14 + [2]
    assert found.outside.tolist() == [0, 2, 1]


def test_densities_sum_to_one_and_of_nothing_are_nan():
    assert densities([[1] * 15, [0] * 14 + [3]]).sum(axis=1).tolist() == pytest.approx([1, 1])
    assert np.isnan(densities(np.zeros((3, 15)))).all()


def test_wrong_shape_is_one_sentence():
    with pytest.raises(UbhpdError, match=r"\(n, 3\)"):
        counts([1.0, 2.0, 3.0])
