"""Landmarks + solvePnP: exact faces and poses come back, invisible points, the mirror, focal lengths, bad input."""

import subprocess
import sys

import numpy as np
import pytest
from realdata import REAL, needs
from scipy.spatial.transform import Rotation

from ubhpd.baselines.landmarks_pnp import MODELS, Config, fit, solve
from ubhpd.core import rotation
from ubhpd.core.errors import UbhpdError
from ubhpd.nn.inputs import Heads
from ubhpd.nn.landmark_sets import mean_face_mm, mirror_of
from ubhpd.quality import checks
from ubhpd.raw.label_files import MatReader
from ubhpd.synth.rendered_heads import pinhole_view

WIDTH, HEIGHT = 640.0, 480.0
ALL = tuple(range(68))
FACES = {"68": ALL, "49": (*range(17, 60), 61, 62, 63, 65, 66, 67)}
FACES["12"] = (17, 21, 22, 26, 31, 35, 36, 39, 42, 45, 48, 54)


def standard(face):
    """A face (K, 3) as `fit` gives it: centred, of radius 1."""
    face = face - face.mean(axis=0)
    return face / np.sqrt((face**2).sum(axis=1).mean())


def as_heads(landmarks, angles, size=(WIDTH, HEIGHT)):
    angles = np.asarray(angles, dtype=np.float64)
    n = len(angles)
    names = [f"h{i}" for i in range(n)]
    return Heads(names, angles, rotation.matrix_from_euler(angles), landmarks, np.full((n, 2), size))


def poses(n, seed=0, spread=(40.0, 25.0, 20.0)):
    return np.random.default_rng(seed).uniform(-1, 1, (n, 3)) * spread


def flat_heads(n=40, seed=0, noise_px=0.0):
    """Heads seen by scaled orthography, of many sizes and places."""
    rng = np.random.default_rng(seed)
    angles = poses(n, seed)
    r = rotation.matrix_from_euler(angles)
    xy = rng.uniform(0.2, 3, (n, 1, 1)) * (mean_face_mm() @ np.swapaxes(r[:, :2], 1, 2)) * (1, -1)
    return as_heads(xy + rng.uniform(100, 500, (n, 1, 2)) + rng.normal(0, noise_px, xy.shape), angles)


def seen_heads(angles, focal_px, size=(WIDTH, HEIGHT), noise_px=0.0):
    """Heads of the mean face, 0.8 to 1.2 m before a pinhole camera, beside its axis."""
    rng = np.random.default_rng(1)
    camera = [[focal_px, 0, size[0] / 2], [0, focal_px, size[1] / 2], [0, 0, 1]]
    places = rng.uniform((-150, -100, 800), (150, 100, 1200), (len(angles), 3))
    views = [pinhole_view(rotation.matrix_from_euler(a), p, camera) for a, p in zip(angles, places, strict=True)]
    landmarks = np.stack([v.project(mean_face_mm())[:, :2] for v in views])
    return as_heads(landmarks + rng.normal(0, noise_px, landmarks.shape), angles, size)


def known_face(points="68"):
    return {"face": standard(mean_face_mm()[list(FACES[points])])}


@pytest.mark.parametrize("points", FACES)
def test_the_face_that_heads_were_made_of_comes_back(points):
    found = fit(Config(points), flat_heads())
    assert np.allclose(found["face"], standard(mean_face_mm()[list(FACES[points])]), atol=1e-6)
    assert found["residual"].shape == (1,) and found["residual"][0] < 1e-6


def test_it_comes_back_though_points_are_invisible_and_heads_unknown():
    heads = flat_heads(60)
    rng = np.random.default_rng(2)
    heads.landmarks68[rng.random((60, 68)) < 0.4] = np.nan
    heads.landmarks68[:20, 0] = np.nan
    heads.landmarks68[7] = np.nan
    heads.landmarks68[8] = 5.0  # all in one place
    heads.landmarks68[9, 5:] = np.nan
    heads.rotation[10] = np.nan
    found = fit(Config(), heads)
    assert np.allclose(found["face"], standard(mean_face_mm()), atol=1e-6)
    assert found["residual"][0] < 1e-6


def test_a_fit_is_symmetrical_repeatable_and_tells_the_noise():
    heads = flat_heads(200, noise_px=0.5)
    found = fit(Config(), heads)
    face = found["face"]
    assert np.allclose(face, face[list(mirror_of(ALL))] * (-1, 1, 1), atol=1e-12)
    assert all(np.array_equal(found[k], v) for k, v in fit(Config(), heads).items())
    assert np.abs(face - standard(mean_face_mm())).max() < 0.01
    spread = np.sqrt(heads.landmarks68.var(axis=1).sum(axis=1))
    assert found["residual"][0] == pytest.approx(np.sqrt((2 * 0.25 / spread**2).mean()), rel=0.05)


def left_over(face, heads):
    """The least squares of landmarks in shares of their spread, over the scale and the shift of each head."""
    own = heads.landmarks68 * (1, -1)
    own = own - own.mean(axis=1, keepdims=True)
    own /= np.sqrt((own**2).sum(axis=2).mean(axis=1))[:, None, None]
    seen = face @ np.swapaxes(heads.rotation[:, :2], 1, 2)
    scale = (own * seen).sum(axis=(1, 2)) / (seen**2).sum(axis=(1, 2))
    return ((own - scale[:, None, None] * seen) ** 2).sum()


def test_no_symmetrical_face_nearby_leaves_less():
    heads = flat_heads(30, noise_px=2.0)
    found = fit(Config(), heads)
    least = left_over(found["face"], heads)
    assert np.sqrt(least / (30 * 68)) == pytest.approx(found["residual"][0], rel=1e-9)
    rng = np.random.default_rng(3)
    for _ in range(30):
        moved = rng.normal(0, 0.01, (68, 3))
        moved += moved[list(mirror_of(ALL))] * (-1, 1, 1)
        assert least < left_over(standard(found["face"] + moved), heads)


@pytest.mark.parametrize("points", FACES)
@pytest.mark.parametrize(("focal", "unit", "pixels"), [(1, "sum", 1120), (1, "width", 640), (575, "pixel", 575)])
def test_poses_come_back_exactly_at_any_place_of_the_image(points, focal, unit, pixels):
    heads = seen_heads(poses(12, spread=(85, 60, 90)), pixels)
    found = solve(Config(points, float(focal), unit), known_face(points), heads)
    assert rotation.geodesic_deg(found, heads.rotation).max() < 1e-3


def test_twelve_points_do_not_tip_over_in_noise():
    heads = seen_heads(poses(60, spread=(60, 40, 40)), 1120, noise_px=0.5)
    for points, bound in (("68", 3), ("12", 9)):
        assert rotation.geodesic_deg(solve(Config(points), known_face(points), heads), heads.rotation).max() < bound


@pytest.mark.parametrize("points", FACES)
def test_the_mirror_image_has_the_mirrored_pose(points):
    heads = seen_heads(poses(12), 1120, noise_px=2.0)
    mirrored = heads.landmarks68[:, list(mirror_of(ALL))] * (-1, 1) + (WIDTH, 0)
    here, there = (solve(Config(points), known_face(points), h) for h in (heads, heads._replace(landmarks68=mirrored)))
    assert rotation.geodesic_deg(np.diag([-1.0, 1.0, 1.0]) @ here @ np.diag([-1.0, 1.0, 1.0]), there).max() < 1e-3


def test_another_size_of_the_image_changes_nothing():
    heads = seen_heads(poses(12), 1120, noise_px=2.0)
    larger = heads._replace(landmarks68=heads.landmarks68 * 3, image_size=heads.image_size * 3)
    here, there = (solve(Config(), known_face(), h) for h in (heads, larger))
    assert rotation.geodesic_deg(here, there).max() < 1e-3


def test_the_angles_of_the_camera_frame_are_the_canonical_ones():
    """Read off the camera's rotation: extrinsic x, y, z angles of its transpose, of which y and z change sign."""
    heads = seen_heads(poses(20, spread=(85, 60, 90)), 1120)
    camera = rotation.camera_to_canonical(solve(Config(), known_face(), heads))
    x, y, z = Rotation.from_matrix(np.swapaxes(camera, 1, 2)).as_euler("xyz", degrees=True).T
    assert np.allclose(np.stack([-y, x, -z], axis=1), heads.angles_deg, atol=1e-3)


def test_it_agrees_with_the_check_of_labels_in_the_same_image():
    """Both see the same landmarks from far away; their faces differ, but a turn to the left is one for both."""
    heads = seen_heads([(30, 0, 0), (0, 20, 0), (0, 0, 25), (-40, -20, 10)], 1120)
    other = checks.fit(heads.landmarks68).rotation
    assert rotation.geodesic_deg(solve(Config(), known_face(), heads), other).max() < 25


def test_invisible_points_are_left_out_until_six_remain():
    heads = seen_heads(poses(5), 1120)
    for head, count in enumerate((68, 30, 7, 6, 5)):
        order = np.random.default_rng(head).permutation(68)
        heads.landmarks68[head, order[count:], head % 2] = np.nan
    found = solve(Config(), known_face(), heads)
    assert rotation.geodesic_deg(found[:4], heads.rotation[:4]).max() < 0.1
    assert np.isnan(found[4]).all()


def test_what_has_no_pose_is_nan_and_the_rest_goes_on():
    heads = seen_heads(poses(5), 1120)
    heads.landmarks68[0] = np.nan
    heads.landmarks68[1] = 7.0
    heads.landmarks68[2] = np.arange(68)[:, None] * (1.0, 2.0)
    heads.image_size[3, 0] = np.nan
    found = solve(Config(), known_face(), heads)
    assert np.isnan(found[[0, 1, 3]]).all()
    assert rotation.geodesic_deg(found[4], heads.rotation[4]) < 1e-3
    assert np.isnan(found[2]).all() or rotation.orthonormality_error(found[2]) < 1e-6


def test_no_heads_give_no_poses():
    assert solve(Config(), known_face(), as_heads(np.zeros((0, 68, 2)), np.zeros((0, 3)))).shape == (0, 3, 3)


def test_landmarks_that_do_not_belong_to_the_poses_are_refused():
    heads = flat_heads(60)
    with pytest.raises(UbhpdError, match=r"residual 0\.\d\d, 0.2 at most.*300wlp.landmarks=projected"):
        fit(Config(), heads._replace(landmarks68=heads.landmarks68[::-1]))


def test_heads_that_do_not_tell_a_face_are_refused():
    heads = flat_heads(10)
    with pytest.raises(UbhpdError, match="pose is known"):
        fit(Config(), heads._replace(rotation=None))
    with pytest.raises(UbhpdError, match="Landmark 0 is not seen in poses that differ"):
        fit(Config(), heads._replace(landmarks68=np.full((10, 68, 2), np.nan)))
    with pytest.raises(UbhpdError, match="Landmark 0 is not seen in poses that differ"):
        fit(Config(), heads._replace(rotation=np.broadcast_to(np.eye(3), (10, 3, 3))))
    heads.landmarks68[:, [3, 13]] = np.nan
    with pytest.raises(UbhpdError, match="Landmark 3 is not seen"):
        fit(Config(), heads)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": "5"}, "points of landmarks_pnp cannot be '5': choose from 68, 49, 12"),
        ({"focal_unit": "mm"}, "focal_unit of landmarks_pnp cannot be 'mm'"),
        ({"focal": 0.0}, "focal length of landmarks_pnp cannot be 0.0"),
        ({"focal": float("nan")}, "focal length of landmarks_pnp cannot be nan"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(UbhpdError, match=message):
        Config(**options)


def test_the_models_are_fitted_and_solved_from_a_checkpoint(tmp_path):
    pytest.importorskip("safetensors")
    from ubhpd.models.geometric_model import GeometricMethod

    heads = seen_heads(poses(40), 1120)
    for name in MODELS:
        GeometricMethod.fitted(name, {"focal": "1.5"}, heads, {"manifest": "m"}).save(tmp_path / "w.safetensors")
        again = GeometricMethod.of_checkpoint(tmp_path / "w.safetensors")
        assert again.config == Config(focal=1.5, **MODELS[name])
        own = heads._replace(landmarks_kind=["fan68" if name.startswith("fan") else "fitted_3d"] * 40)
        assert rotation.geodesic_deg(again.solve(own), heads.rotation).max() < 12


def test_no_torch_is_needed(tmp_path):
    script = "import sys; import ubhpd.baselines.landmarks_pnp; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)


@needs("AFLW2000")
def test_real_heads_of_aflw2000_by_the_face_of_others():
    reader = MatReader(["Pose_Para", "pt3d_68"])
    labels = [reader.read(p.read_bytes()) for p in sorted((REAL / "AFLW2000").glob("*.mat"))]
    angles, _ = rotation.canonical_from_angles([pose[0, :3] for pose, _ in labels], "300wlp")
    inside = (np.abs(angles) <= 99).all(axis=1)
    angles, landmarks = angles[inside], np.stack([points[:2].T for _, points in labels])[inside]
    train, test = (as_heads(landmarks[i::2], angles[i::2], (450.0, 450.0)) for i in (0, 1))
    for points, bound in (("68", 4.5), ("12", 6.5)):
        config = Config(points)
        found = solve(config, fit(config, train), test)
        assert rotation.geodesic_deg(found, test.rotation).mean() < bound


def test_fan_takes_its_own_landmarks_and_refuses_others():
    heads = flat_heads(n=12)
    own = Config(points="12", landmarks="fan")
    parameters = fit(own, heads)
    n = len(heads.sample_id)
    for kinds in (["fan68:mtcnn"] * n, ["file:points.csv"] * n):
        found = solve(own, parameters, heads._replace(landmarks_kind=kinds))
        np.testing.assert_array_equal(found, solve(Config(points="12"), parameters, heads))
    for kinds, match in (
        (None, "of unknown kind"),
        (["dlib68"] * n, f"The landmarks of {heads.sample_id[0]} are not FAN's but dlib68"),
    ):
        with pytest.raises(UbhpdError, match=match):
            solve(own, parameters, heads._replace(landmarks_kind=kinds))
    one_failed = solve(own, parameters, heads._replace(landmarks_kind=[*["fan68"] * (n - 1), "fitted_3d"]))
    assert np.isnan(one_failed[-1]).all() and np.isfinite(one_failed[:-1]).all()
    without = heads._replace(landmarks68=np.full_like(heads.landmarks68, np.nan))
    assert np.isnan(solve(own, parameters, without)).all()
