import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import matrix_from_euler
from ubhpd.metrics import aligned, geodesic, maev

SEEDS = st.integers(0, 10_000)


def random_rotations(seed, n=20):
    return Rotation.from_quat(np.random.default_rng(seed).normal(size=(n, 4))).as_matrix()


def test_geodesic_is_the_angle_about_one_axis():
    true = matrix_from_euler([[0.0, 0.0, 0.0], [30.0, 0.0, 0.0], [0.0, 0.0, 170.0]])
    predicted = matrix_from_euler([[0.0, 10.0, 0.0], [10.0, 0.0, 0.0], [0.0, 0.0, -170.0]])
    found = geodesic.geodesic(predicted, true)
    assert found.errors == pytest.approx([10.0, 20.0, 20.0])
    assert found.mean == pytest.approx((10 + 20 + 20) / 3) and found.n == 3


def test_maev_of_a_turn_about_one_axis_leaves_that_axis():
    # a turn of 30 degrees about y moves the x and z axes by 30 and y by 0
    found = maev.maev(matrix_from_euler([[30.0, 0.0, 0.0]]), np.eye(3)[None])
    assert found.axes == pytest.approx([30.0, 0.0, 30.0])
    assert found.mean == pytest.approx((30 + 0 + 30) / 3)


@given(SEEDS)
def test_geodesic_agrees_with_scipy(seed):
    p, t = random_rotations(seed), random_rotations(seed + 1)
    wanted = np.degrees((Rotation.from_matrix(p).inv() * Rotation.from_matrix(t)).magnitude())
    assert geodesic.geodesic(p, t).errors == pytest.approx(wanted, abs=1e-6)
    assert geodesic.angle_deg(np.swapaxes(p, 1, 2) @ t) == pytest.approx(wanted, abs=1e-6)


@given(SEEDS)
def test_maev_agrees_with_the_angles_between_columns(seed):
    p, t = random_rotations(seed), random_rotations(seed + 1)
    cosine = np.clip(np.einsum("nik,nik->nk", p, t), -1, 1)
    assert maev.maev(p, t).mean == pytest.approx(np.degrees(np.arccos(cosine)).mean(), abs=1e-5)
    assert maev.maev(p, t).mean <= geodesic.geodesic(p, t).mean + 1e-9


@given(SEEDS)
def test_one_rotation_applied_to_both_changes_nothing(seed):
    p, t = random_rotations(seed), random_rotations(seed + 1)
    turn = random_rotations(seed + 2, 1)
    for metric in (geodesic.geodesic, maev.maev, aligned.aligned):
        assert metric(turn @ p, turn @ t).mean == pytest.approx(metric(p, t).mean, abs=1e-6)


@given(SEEDS)
def test_perfect_is_zero_and_the_error_is_symmetric(seed):
    p, t = random_rotations(seed), random_rotations(seed + 1)
    for metric in (geodesic.geodesic, maev.maev, aligned.aligned):
        assert metric(t, t).mean == pytest.approx(0.0, abs=1e-5)
    assert geodesic.geodesic(p, t).mean == pytest.approx(geodesic.geodesic(t, p).mean)


@settings(max_examples=30)
@given(SEEDS, st.sampled_from(["head", "camera"]))
def test_a_constant_rotation_is_removed_whole(seed, frame):
    true, constant = random_rotations(seed), random_rotations(seed + 1, 1)
    predicted = true @ constant if frame == "head" else constant @ true
    found = aligned.aligned(predicted, true, frame)
    assert found.mean == pytest.approx(0.0, abs=1e-5)
    assert found.alignment == pytest.approx(constant[0].T, abs=1e-9)
    assert found.alignment_deg == pytest.approx(geodesic.geodesic(constant, np.eye(3)[None]).mean, abs=1e-6)


def test_aligned_beats_every_other_alignment_in_the_chordal_sense():
    rng = np.random.default_rng(3)
    true = random_rotations(3, 200)
    predicted = true @ Rotation.from_euler("xyz", rng.normal([8, 0, -4], 5, (200, 3)), degrees=True).as_matrix()
    found = aligned.aligned(predicted, true)
    assert found.mean < geodesic.geodesic(predicted, true).mean
    cost = np.linalg.norm(predicted @ found.alignment - true)
    for nudge in Rotation.from_rotvec(0.02 * np.eye(3)).as_matrix():
        assert cost < np.linalg.norm(predicted @ found.alignment @ nudge - true)


def test_the_mean_of_opposite_rotations_is_still_a_rotation():
    found = aligned.nearest_rotation(np.diag([3.0, 2.0, -1.0]))  # nearest orthogonal matrix is a reflection
    assert np.linalg.det(found) == pytest.approx(1.0) and found == pytest.approx(np.eye(3))
    assert aligned.nearest_rotation(np.zeros((3, 3))) == pytest.approx(np.eye(3))


def test_nothing_to_average_is_nan():
    empty = np.empty((0, 3, 3))
    for metric in (geodesic.geodesic, maev.maev, aligned.aligned):
        found = metric(empty, empty)
        assert np.isnan(found.mean) and found.n == 0


def test_bad_rotations_and_frames_are_said():
    with pytest.raises(UbhpdError, match="shape"):
        geodesic.geodesic(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(UbhpdError, match="unknown|Unknown"):
        aligned.aligned(np.eye(3)[None], np.eye(3)[None], "world")
