import csv
import struct

import numpy as np
import pytest
import scipy.io
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from realdata import REAL, needs
from scipy.spatial.transform import Rotation

from ubhpd.core import rotation as r
from ubhpd.core.errors import UbhpdError

FLIP = np.diag([1.0, -1.0, -1.0])
MIRROR = np.diag([-1.0, 1.0, 1.0])

law = settings(deadline=None)
angle = st.floats(-180.0, 180.0)
ypr_anywhere = st.tuples(angle, angle, angle)
ypr_unique = st.tuples(st.floats(-89.9, 89.9), angle, angle).filter(lambda ypr: abs(ypr[1]) + abs(ypr[2]) < 179.9)
any_rotation = ypr_anywhere.map(lambda a: Rotation.from_euler("ZYX", a, degrees=True).as_matrix())


def scipy_matrix(axes, angles_deg):
    return Rotation.from_euler(axes, angles_deg, degrees=True).as_matrix()  # upper case: Rx(a) Ry(b) Rz(c)


# Each convention, written out again with the elementary rotations of scipy.

ELSEWHERE = {
    "canonical": ("deg", ("yaw", "pitch", "roll"), lambda p, y, r: scipy_matrix("XYZ", [-p, -y, -r])),
    "300wlp": ("rad", ("pitch", "yaw", "roll"), lambda p, y, r: scipy_matrix("XYZ", [-p, -y, -r])),
    "biwi_bin": (
        "deg",
        ("pitch", "yaw", "roll"),
        lambda p, y, r: FLIP @ scipy_matrix("ZYX", [r, y, p]) @ FLIP,
    ),
    "aflw": ("rad", ("roll", "pitch", "yaw"), lambda p, y, r: scipy_matrix("YXZ", [-y, -p, r])),
    "aflw_roll_flip": ("rad", ("roll", "pitch", "yaw"), lambda p, y, r: scipy_matrix("XYZ", [-p, -y, r])),
    "upna": ("deg", ("roll", "yaw", "pitch"), lambda p, y, r: scipy_matrix("XYZ", [p, -y, -r])),
    "synhead": ("deg", ("pitch", "yaw", "roll"), lambda p, y, r: scipy_matrix("XYZ", [-p, y, -r])),
}


def test_every_convention_is_checked_against_scipy():
    assert set(ELSEWHERE) == set(r.CONVENTIONS)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_convention_is_the_product_of_elementary_rotations_that_scipy_gives(name):
    unit, columns, matrix = ELSEWHERE[name]
    rng = np.random.default_rng(0)
    for pitch, yaw, roll in rng.uniform(-180.0, 180.0, (200, 3)):
        stored = [{"pitch": pitch, "yaw": yaw, "roll": roll}[c] for c in columns]
        stored = np.radians(stored) if unit == "rad" else stored
        assert_allclose(r.matrix_from_angles(stored, name), matrix(pitch, yaw, roll), atol=1e-12)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_canonical_triplet_of_a_convention_gives_the_same_matrix(name):
    angles = np.random.default_rng(1).uniform(-80.0, 80.0, (200, 3))
    angles = np.radians(angles) if r.CONVENTIONS[name].unit == "rad" else angles
    ypr, rotation = r.canonical_from_angles(angles, name)
    assert_allclose(r.matrix_from_euler(ypr), rotation, atol=1e-12)


@pytest.mark.parametrize(
    ("convention", "stored", "ypr"),
    [
        ("300wlp", np.radians([-300.0, -102.0, 893.0]), [-102.0, -300.0, 893.0]),
        ("aflw_roll_flip", np.radians([200.0, 10.0, 95.0]), [95.0, 10.0, -200.0]),
        ("upna", [200.0, 95.0, 10.0], [95.0, -10.0, 200.0]),
        ("synhead", [10.0, 95.0, 200.0], [-95.0, 10.0, 200.0]),
    ],
)
def test_a_label_past_90_degrees_stays_as_the_source_wrote_it(convention, stored, ypr):
    assert_allclose(r.canonical_from_angles(stored, convention)[0], ypr, atol=1e-9)


def test_signs_are_the_documented_ones():
    # Frame C: x image-right, y up, z toward the viewer; the nose is +z, the top of the head +y.
    nose, top = np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0])
    assert (r.matrix_from_euler([30.0, 0.0, 0.0]) @ nose)[0] < 0.0  # +yaw: toward image-left
    assert (r.matrix_from_euler([0.0, 30.0, 0.0]) @ nose)[1] > 0.0  # +pitch: up
    assert (r.matrix_from_euler([0.0, 0.0, 30.0]) @ top)[0] > 0.0  # +roll: clockwise in the image
    assert_array_equal(r.matrix_from_euler([0.0, 0.0, 0.0]), np.eye(3))


def test_aflw_naive_roll_flip_is_exact_only_where_pitch_or_yaw_is_zero():
    for roll, pitch, yaw in np.radians([[20.0, 0.0, 40.0], [20.0, 40.0, 0.0]]):
        exact = r.matrix_from_angles([roll, pitch, yaw], "aflw")
        assert_allclose(r.matrix_from_angles([roll, pitch, yaw], "aflw_roll_flip"), exact, atol=1e-12)
    both = np.radians([20.0, 40.0, 40.0])
    assert r.geodesic_deg(r.matrix_from_angles(both, "aflw"), r.matrix_from_angles(both, "aflw_roll_flip")) > 5.0


def test_biwi_published_sample_gives_the_published_angles():
    # Sequence 12, frame 3: README of huggingface/datasets biwi_kinect_head_pose.
    file_matrix = np.array(
        [[0.980639, 0.109899, 0.162077], [-0.11023, 0.993882, -0.00697376], [-0.161851, -0.011027, 0.986754]]
    )
    ypr = r.euler_from_matrix(r.camera_to_canonical(file_matrix))
    assert_allclose(ypr, [9.327, -0.405, -6.394], atol=5e-4)
    hopenet_yaw = np.degrees(np.arctan2(0.162077, np.hypot(0.00697376, 0.986754)))
    hopenet_pitch = np.degrees(np.arctan2(-0.00697376, 0.986754))
    hopenet_roll = -np.degrees(np.arctan2(0.109899, 0.980639))
    assert_allclose(ypr, [hopenet_yaw, hopenet_pitch, hopenet_roll], atol=1e-4)


@given(any_rotation)
@law
def test_hopenet_formula_for_biwi_is_the_canonical_extraction(m):
    ours = r.euler_from_matrix(r.camera_to_canonical(m))
    yaw = np.arctan2(m[0, 2], np.hypot(m[1, 2], m[2, 2]))
    hopenet = np.degrees([yaw, np.arctan2(m[1, 2], m[2, 2]), -np.arctan2(m[0, 1], m[0, 0])])
    assume(abs(hopenet[0]) < 89.9 and abs(hopenet[1]) + abs(hopenet[2]) < 180.0)
    assert_allclose(r.wrap_deg(ours - hopenet), 0.0, atol=1e-9)


# Laws.


@given(ypr_unique)
@law
def test_angles_of_a_matrix_are_those_it_was_made_from(ypr):
    assert_allclose(r.wrap_deg(r.euler_from_matrix(r.matrix_from_euler(ypr)) - ypr), 0.0, atol=1e-9)


@given(any_rotation)
@example(r.matrix_from_euler([90.0, 20.0, 50.0]))
@example(r.matrix_from_euler([-90.0, 170.0, -50.0]))
@law
def test_matrix_to_euler_to_matrix_is_the_same_even_at_90_degrees_of_yaw(m):
    assert r.geodesic_deg(r.matrix_from_euler(r.euler_from_matrix(m)), m) < 1e-9


@given(any_rotation)
@law
def test_extracted_angles_lie_in_their_ranges(m):
    yaw, pitch, roll = r.euler_from_matrix(m)
    assert abs(yaw) <= 180.0
    assert abs(pitch) + abs(roll) <= 180.0 + 1e-9


@given(st.floats(-90.0, 90.0), st.floats(-89.0, 89.0), st.sampled_from((-1.0, 1.0)))
@law
def test_angles_are_continuous_through_profile(pitch, roll, side):
    """A head that turns from 80 to 100 degrees of yaw keeps its pitch and roll."""
    assume(abs(pitch) + abs(roll) < 179.0)
    yaws = side * np.array([80.0, 89.0, 89.9, 90.1, 91.0, 100.0, 150.0, 179.0])
    ypr = np.stack([yaws, np.full(8, pitch), np.full(8, roll)], axis=1)
    assert_allclose(r.euler_from_matrix(r.matrix_from_euler(ypr)), ypr, atol=1e-9)


def test_a_head_turned_right_round_has_no_pitch_and_no_roll():
    assert_allclose(np.abs(r.euler_from_matrix(np.diag([-1.0, 1.0, -1.0]))), [180.0, 0.0, 0.0])
    # Equal sums: the triplet with the smaller yaw.
    assert_allclose(np.abs(r.euler_from_matrix(np.diag([1.0, -1.0, -1.0]))), [0.0, 180.0, 0.0])


@given(ypr_anywhere)
@law
def test_matrices_are_rotations(ypr):
    assert r.orthonormality_error(r.matrix_from_euler(ypr)) < 1e-14


@given(ypr_anywhere)
@law
def test_mirror_twice_is_the_identity(ypr):
    assert_array_equal(r.mirror_euler(r.mirror_euler(ypr)), ypr)


@given(ypr_anywhere)
@law
def test_mirror_of_the_matrix_is_the_matrix_of_the_mirrored_triplet(ypr):
    mirrored = MIRROR @ r.matrix_from_euler(ypr) @ MIRROR
    assert_allclose(mirrored, r.matrix_from_euler(r.mirror_euler(ypr)), atol=1e-14)


@given(any_rotation)
@law
def test_camera_frame_there_and_back_is_the_identity(m):
    assert_array_equal(r.camera_to_canonical(r.camera_to_canonical(m)), m)
    assert_allclose(r.camera_to_canonical(m), FLIP @ m @ FLIP, atol=1e-15)


@given(any_rotation)
@law
def test_quaternion_round_trip(m):
    q = r.quaternion_from_matrix(m)
    assert q[3] >= 0.0
    assert_allclose(np.linalg.norm(q), 1.0, atol=1e-12)
    assert_allclose(r.matrix_from_quaternion(q), m, atol=1e-12)
    assert_allclose(r.matrix_from_quaternion(-7.5 * q), m, atol=1e-12)


@given(any_rotation, any_rotation)
@law
def test_geodesic_is_symmetric_and_what_scipy_calls_the_magnitude(a, b):
    ours = r.geodesic_deg(a, b)
    assert ours == r.geodesic_deg(b, a)
    assert_allclose(ours, np.degrees((Rotation.from_matrix(a) * Rotation.from_matrix(b).inv()).magnitude()), atol=1e-5)


@given(any_rotation, any_rotation, any_rotation)
@law
def test_geodesic_keeps_the_triangle_inequality(a, b, c):
    assert r.geodesic_deg(a, c) <= r.geodesic_deg(a, b) + r.geodesic_deg(b, c) + 1e-5


@given(any_rotation)
@law
def test_geodesic_of_a_rotation_with_itself_is_exactly_zero(m):
    assert r.geodesic_deg(m, m) == 0.0


@given(any_rotation, any_rotation)
@law
def test_geodesic_is_the_same_in_the_mirror_and_in_the_camera_frame(a, b):
    assert_allclose(r.geodesic_deg(MIRROR @ a @ MIRROR, MIRROR @ b @ MIRROR), r.geodesic_deg(a, b), atol=1e-9)
    assert_allclose(r.geodesic_deg(r.camera_to_canonical(a), r.camera_to_canonical(b)), r.geodesic_deg(a, b), atol=1e-9)


@pytest.mark.parametrize("step", [1e-12, 1e-9, 1e-6, 1e-3, 1.0])
def test_geodesic_is_exact_near_0_and_near_180(step):
    base = Rotation.from_euler("XYZ", [10.0, 20.0, 30.0], degrees=True)
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14.0)
    for angle_deg, tolerance in ((step, 1e-13), (180.0 - step, 1e-6)):
        turned = base * Rotation.from_rotvec(np.radians(angle_deg) * axis)
        assert abs(r.geodesic_deg(base.as_matrix(), turned.as_matrix()) - angle_deg) < tolerance


@given(st.floats(-1e6, 1e6))
@example(180.0)
@example(-180.0)
@example(np.nextafter(-180.0, -np.inf))
@example(np.nextafter(180.0, -np.inf))
@example(-5e-324)
@law
def test_wrapped_angles_lie_in_the_half_open_circle_and_stay_there(angle_deg):
    wrapped = r.wrap_deg(angle_deg)
    assert -180.0 <= wrapped < 180.0
    assert r.wrap_deg(wrapped) == wrapped
    turns = (angle_deg - wrapped) / 360.0
    assert abs(turns - round(float(turns))) < 1e-9


def test_wrapping_by_hand():
    assert_array_equal(
        r.wrap_deg([0.0, 180.0, -180.0, 190.0, 540.0, 893.0]), [0.0, -180.0, -180.0, -170.0, -180.0, 173.0]
    )


@pytest.mark.parametrize("shape", [(), (4,), (2, 5), (0,)])
def test_every_function_takes_any_leading_shape(shape):
    ypr = np.random.default_rng(2).uniform(-80.0, 80.0, (*shape, 3))
    m = r.matrix_from_euler(ypr)
    assert m.shape == (*shape, 3, 3)
    assert_allclose(r.euler_from_matrix(m), ypr, atol=1e-9)
    assert r.geodesic_deg(m, np.eye(3)).shape == shape
    assert r.orthonormality_error(m).shape == shape
    assert r.quaternion_from_matrix(m).shape == (*shape, 4)
    assert_allclose(r.matrix_from_quaternion(r.quaternion_from_matrix(m)), m, atol=1e-12)
    for index in np.ndindex(*shape):
        assert_array_equal(m[index], r.matrix_from_euler(ypr[index]))


# Wrong input.


@pytest.mark.parametrize(
    "call",
    [
        lambda: r.matrix_from_euler([1.0, 2.0]),
        lambda: r.matrix_from_euler(5.0),
        lambda: r.matrix_from_angles(np.zeros((3, 4)), "aflw"),
        lambda: r.canonical_from_angles([1.0], "300wlp"),
        lambda: r.mirror_euler([1.0]),
        lambda: r.mirror_euler([[1.0, 2.0]]),
        lambda: r.euler_from_matrix(np.eye(4)),
        lambda: r.euler_from_matrix(np.zeros(9)),
        lambda: r.camera_to_canonical(np.zeros((3, 4))),
        lambda: r.geodesic_deg(np.eye(3), np.eye(2)),
        lambda: r.orthonormality_error([1.0, 2.0, 3.0]),
        lambda: r.quaternion_from_matrix(np.eye(4)),
        lambda: r.matrix_from_quaternion([1.0, 0.0, 0.0]),
        lambda: r.matrix_from_quaternion(np.ones(8)),
        lambda: r.matrix_from_quaternion(np.ones((2, 2))),
    ],
)
def test_a_wrong_shape_is_said_in_one_sentence(call):
    with pytest.raises(UbhpdError, match="shape"):
        call()


@pytest.mark.parametrize("q", [[0.0] * 4, [np.nan, 0.0, 0.0, 1.0], [np.inf, 0.0, 0.0, 1.0], [[0, 0, 0, 1], [0] * 4]])
def test_a_zero_or_infinite_quaternion_is_refused(q):
    with pytest.raises(UbhpdError, match="quaternion"):
        r.matrix_from_quaternion(q)


@pytest.mark.parametrize("m", [np.zeros((3, 3)), np.diag([1.0, 1.0, -1.0]), np.full((3, 3), np.nan)])
def test_a_matrix_that_is_no_rotation_has_no_quaternion(m):
    with pytest.raises(UbhpdError, match="not a rotation"):
        r.quaternion_from_matrix(m)


def test_an_unknown_convention_names_the_known_ones():
    with pytest.raises(UbhpdError, match="300wlp"):
        r.matrix_from_angles([0.0, 0.0, 0.0], "hopenet")


def test_orthonormality_error_is_infinite_for_a_reflection_and_counts_a_stretch():
    assert r.orthonormality_error(MIRROR) == np.inf
    assert r.orthonormality_error(1.5 * np.eye(3)) == 1.25
    assert r.orthonormality_error(np.zeros((3, 3))) == np.inf
    assert np.isinf(r.orthonormality_error(np.full((3, 3), np.nan)))


# Real labels.


def labels_of(name, keys):
    with (REAL / "labels" / name).open(newline="") as file:
        return {tuple(row[k] for k in keys): row for row in csv.DictReader(file)}


def ypr_of(row):
    return [float(row["yaw"]), float(row["pitch"]), float(row["roll"])]


@needs("BIWI/hpdb")
def test_biwi_pose_txt_gives_the_real_labels():
    labels = labels_of("biwi_labels.csv", ("sequence", "frame"))
    files = sorted((REAL / "BIWI/hpdb").glob("*/frame_*_pose.txt"))
    assert files
    for file in files:
        numbers = np.array(file.read_text().split(), dtype=float)
        row = labels[file.parent.name, str(int(file.name[6:11]))]
        m = r.camera_to_canonical(numbers[:9].reshape(3, 3))
        assert r.orthonormality_error(m) < 1e-5
        assert_allclose(r.euler_from_matrix(m), ypr_of(row), atol=1e-4)
        centre = [float(row[f"centre_{axis}_mm"]) for axis in "xyz"]
        assert_allclose(numbers[9:], centre, atol=1e-3)


@needs("BIWI/hpdb")
def test_biwi_pose_bin_gives_the_real_labels():
    labels = labels_of("biwi_labels.csv", ("sequence", "frame"))
    files = sorted((REAL / "BIWI/hpdb").glob("*/frame_*_pose.bin"))
    assert files
    for file in files:
        numbers = struct.unpack("<6f", file.read_bytes())
        ypr, m = r.canonical_from_angles(numbers[3:], "biwi_bin")
        row = labels[file.parent.name, str(int(file.name[6:11]))]
        assert_allclose(ypr, ypr_of(row), atol=1e-4)
        assert r.geodesic_deg(m, r.matrix_from_euler(ypr_of(row))) < 1e-4


@needs("BIWI/hpdb")
def test_every_real_biwi_label_survives_the_matrix():
    ypr = np.array([ypr_of(row) for row in labels_of("biwi_labels.csv", ("sequence", "frame")).values()])
    assert len(ypr) == 15_678
    assert_allclose(r.euler_from_matrix(r.matrix_from_euler(ypr)), ypr, atol=1e-9)


@needs("AFLW2000")
def test_aflw2000_pose_para_gives_the_real_labels():
    labels = labels_of("aflw2000_labels.csv", ("name",))
    files = sorted((REAL / "AFLW2000").glob("image*.mat"))
    assert len(files) > 400
    past_90 = 0
    for file in files:
        pose = scipy.io.loadmat(file, variable_names=["Pose_Para"])["Pose_Para"].astype(float)
        ypr, m = r.canonical_from_angles(pose[0, :3], "300wlp")
        expected = ypr_of(labels[(file.stem,)])
        assert_allclose(ypr, expected, rtol=2e-7, atol=1e-5)  # five decimals, and single precision radians
        assert r.geodesic_deg(m, r.matrix_from_euler(expected)) < 1e-3
        past_90 += abs(expected[0]) > 90.0
    assert past_90  # the labels that a matrix alone would have lost
