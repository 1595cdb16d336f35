"""The target density: hand sums, symmetry, limits, and files good and bad."""

import json

import numpy as np
import pytest
from scipy.stats import norm

from ubhpd.core.bins import EDGES_DEG
from ubhpd.core.errors import UbhpdError
from ubhpd.sampling import targets
from ubhpd.sampling.sampler import SamplingConfig

GOOD = [1, 2, 3, 4, 5, 6, 7, 8, 7, 6, 5, 4, 3, 2, 1]  # sum 64


@pytest.mark.parametrize("sigma_deg", [6, 15, 20.5, 90])
def test_gaussian_is_the_difference_of_the_normal_distribution_at_the_edges(sigma_deg):
    mass = norm.cdf(EDGES_DEG[1:], 0, sigma_deg) - norm.cdf(EDGES_DEG[:-1], 0, sigma_deg)
    density = targets.gaussian(sigma_deg)
    assert density.shape == (3, 15)
    np.testing.assert_allclose(density, np.tile(mass / mass.sum(), (3, 1)), rtol=1e-9, atol=1e-15)
    np.testing.assert_array_equal(density, density[:, ::-1])
    np.testing.assert_allclose(density.sum(axis=1), 1, atol=1e-15)


def test_middle_bin_by_hand():
    # sigma 12: the middle bin is +-6 degrees, +-0.5 sigma, which holds 0.3829 of a normal distribution
    assert targets.gaussian(12)[0, 7] == pytest.approx(0.3829, abs=1e-4)


def test_a_narrow_gaussian_is_one_bin_and_a_wide_one_uniform():
    assert targets.gaussian(0.5)[0, 7] == 1
    np.testing.assert_allclose(targets.gaussian(1e6), targets.uniform(), atol=1e-9)
    np.testing.assert_allclose(targets.uniform(), 1 / 15)


def test_each_angle_can_have_a_sigma_of_its_own():
    density = targets.gaussian([40, 20, 15])
    for j, sigma in enumerate((40, 20, 15)):
        np.testing.assert_array_equal(density[j], targets.gaussian(sigma)[j])


def test_a_recorded_target_may_have_empty_bins_but_no_empty_angle():
    row = [0] * 5 + [1] * 5 + [0] * 5
    np.testing.assert_allclose(targets.checked(row, may_be_zero=True)[0], np.array(row) / 5)
    for numbers, allowed in ((row, False), ([0] * 15, True)):
        with pytest.raises(UbhpdError, match="positive finite number"):
            targets.checked(numbers, may_be_zero=allowed)


@pytest.mark.parametrize(
    "numbers", [[[1.0] * 15, [1.0] * 14, [1.0] * 15], [["x"] * 15] * 3, {"a": 1}, [[10**400] * 15] * 3]
)
def test_a_recorded_target_of_another_shape_is_refused(numbers):
    with pytest.raises(UbhpdError, match="is no table of numbers: give 15 positive numbers"):
        targets.checked(numbers, "The sampling in build.json")


def test_the_case_of_a_target_does_not_count_and_the_nearest_is_suggested(tmp_path):
    assert SamplingConfig(5, "Uniform").target == "uniform" and SamplingConfig(5, "GAUSSIAN").target == "gaussian"
    with pytest.raises(UbhpdError, match=r"^gausian is neither a target nor a file: did you mean gaussian\?$"):
        targets.from_file("gausian")
    with pytest.raises(UbhpdError, match="cannot be read"):
        targets.from_file("a\0b")


def test_a_target_that_does_not_do_is_said_before_the_pool_is_read(ubhpd, tmp_path):
    code, _, err = ubhpd(
        "build", "--sources", "biwi", "--data-root", tmp_path, "--target", "unifrom", "--out", tmp_path / "o"
    )
    assert (code, err) == (2, "Error: unifrom is neither a target nor a file: did you mean uniform?\n")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("sigma_deg", [0, -1, float("nan"), float("inf"), [20, 20], [20, 20, 0]])
def test_gaussian_needs_a_positive_sigma(sigma_deg):
    with pytest.raises(UbhpdError, match="positive"):
        targets.gaussian(sigma_deg)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "\n".join(map(str, GOOD))),
        ("t.csv", "density\n" + "\n".join(map(str, GOOD)) + "\n\n"),
        ("t.csv", "\ufeff" + "\r\n".join(map(str, GOOD))),
        ("t.json", json.dumps(GOOD)),
        ("t.JSON", json.dumps({"roll": GOOD, "yaw": GOOD, "pitch": GOOD})),
        ("t.csv", "\n".join(f"{v}, {v}, {v}" for v in GOOD)),
    ],
)
def test_a_file_with_one_density(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    np.testing.assert_allclose(targets.from_file(tmp_path / name), np.tile(np.array(GOOD) / 64, (3, 1)))


@pytest.mark.parametrize("named", [True, False])
def test_three_columns_go_by_name_where_there_are_names(tmp_path, named):
    columns = np.stack([np.arange(1, 16), np.full(15, 2), np.arange(15, 0, -1)])  # yaw, pitch, roll
    order = [2, 0, 1] if named else [0, 1, 2]
    lines = [",".join(str(v) for v in row) for row in columns[order].T]
    (tmp_path / "t.csv").write_text("\n".join((["roll_deg,Yaw,pitch"] if named else []) + lines))
    found = targets.from_file(tmp_path / "t.csv")
    np.testing.assert_allclose(found, columns / columns.sum(axis=1, keepdims=True))


def bad(value):
    return [*GOOD[:4], value, *GOOD[5:]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "\n".join(map(str, bad(0))), "0.0 in bin 5 of yaw"),
        ("t.csv", "\n".join(map(str, bad(-1))), "-1.0 in bin 5"),
        ("t.csv", "\n".join(map(str, bad("nan"))), "nan in bin 5"),
        ("t.csv", "\n".join(map(str, bad("inf"))), "inf in bin 5"),
        ("t.csv", "\n".join(map(str, bad("x"))), "'x', which is no number"),
        ("t.csv", "\n".join(map(str, GOOD[:-1])), "14 rows"),
        ("t.csv", "\n".join(map(str, [*GOOD, 1])), "16 rows"),
        ("t.csv", "\n".join(f"{v},{v}" for v in GOOD), "of 2"),
        ("t.csv", "a,b,c\n" + "\n".join(f"{v},{v},{v}" for v in GOOD), "columns a, b, c"),
        ("t.csv", "", "0 rows"),
        ("t.csv", 200_000 * "1", "is not CSV"),
        ("t.json", "{", "no list of numbers"),
        ("t.json", json.dumps(GOOD[1:]), "shape"),
        ("t.json", json.dumps({"yaw": GOOD}), "keys yaw"),
        ("t.json", json.dumps(bad(None)), "nan in bin 5"),
        ("t.json", json.dumps(bad("x")), "no list of numbers"),
        ("t.json", json.dumps([GOOD, GOOD]), "shape"),
    ],
)
def test_a_bad_file_is_one_sentence_that_names_it(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UbhpdError) as caught:
        targets.from_file(tmp_path / name)
    assert message in str(caught.value)
    assert name in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(UbhpdError, match="cannot be read"):
        targets.from_file(tmp_path / "none.csv")
