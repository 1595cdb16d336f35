"""The writers of raw datasets: exact names, labels that give back the truth, images that show it."""

from __future__ import annotations

import hashlib
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import (
    camera_to_canonical,
    canonical_from_angles,
    euler_from_matrix,
    geodesic_deg,
    matrix_from_euler,
)
from ubhpd.synth.rendered_heads import Head, draw_heads, pinhole_view, weak_view
from ubhpd.synth.renderer.shape import CODES_21, MIRROR_68, landmarks21, landmarks54, landmarks68, visible21
from ubhpd.synth.writers import aflw2000_writer, aflw_writer, biwi_writer, synhead_writer, upna_writer, w300lp_writer
from ubhpd.synth.writers.writer_files import mat_bytes

WRITERS: dict[str, Callable[[Path, int], dict[str, tuple[float, float, float]]]] = {
    "aflw": lambda root, seed: aflw_writer.write(root, 8, seed=seed),
    "aflw2000": lambda root, seed: aflw2000_writer.write(root, 8, seed=seed),
    "biwi": lambda root, seed: biwi_writer.write(root, (1, 6), seed=seed, frames=3, with_pose_bin=True),
    "synhead": lambda root, seed: synhead_writer.write(root, seed=seed, frames=2),
    "upna": lambda root, seed: upna_writer.write(root, (1,), (1, 5), seed=seed, frames=3),
    "w300lp": lambda root, seed: w300lp_writer.write(root, 10, seed=seed, views=2, bad_flips=1),
}


def files(root: Path) -> dict[str, str]:
    found = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def assert_pose(found: object, wanted: object, tolerance_deg: float) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(wanted), rtol=0, atol=tolerance_deg)


@pytest.mark.parametrize("name", WRITERS)
def test_same_seed_same_bytes(name: str, tmp_path: Path) -> None:
    first = WRITERS[name](tmp_path / "a", 3)
    second = WRITERS[name](tmp_path / "b", 3)
    other = WRITERS[name](tmp_path / "c", 4)
    assert first == second and files(tmp_path / "a") == files(tmp_path / "b")
    assert first != other
    assert all(type(angle) is float for pose in first.values() for angle in pose)


def test_import_is_light() -> None:
    code = "import ubhpd.synth, sys; print(sorted({'cv2', 'scipy', 'numpy', 'sqlite3'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Heads, landmarks, views


def test_landmarks_are_symmetric() -> None:
    points = landmarks68()
    np.testing.assert_allclose(points[list(MIRROR_68)] * (-1, 1, 1), points, atol=1e-9)
    assert [MIRROR_68[i] for i in MIRROR_68] == list(range(68))
    assert (landmarks21().shape, landmarks54().shape, len(CODES_21)) == ((21, 3), (54, 3), 21)
    assert np.argmax(points[:, 2]) == 30  # the tip of the nose
    assert points[36, 0] < points[39, 0] < 0 < points[42, 0] < points[45, 0]


def test_heads_stay_within_limits_and_look_ahead() -> None:
    poses = np.array([h.pose for h in draw_heads(3000, np.random.default_rng(0), limit_deg=(80, 40, 30))])
    assert np.all(np.abs(poses).max(axis=0) == (80, 40, 30))
    assert np.mean(np.abs(poses[:, 0]) < 30) > 0.6


@pytest.mark.parametrize(
    ("pose", "moves"), [((30, 0, 0), (-1, 0)), ((0, 20, 0), (0, -1)), ((-30, 0, 0), (1, 0)), ((0, -20, 0), (0, 1))]
)
def test_nose_moves_where_the_face_turns(pose: tuple[float, float, float], moves: tuple[int, int]) -> None:
    """+yaw toward image-left, +pitch upward, in pixels with y down, for both kinds of view."""
    nose = landmarks68()[30:31]
    k = [[500, 0, 320], [0, 500, 240], [0, 0, 1]]
    for make in (
        lambda r: weak_view(r, 1.2, (225.0, 225.0)),
        lambda r: pinhole_view(r, (10.0, 20.0, 800.0), k),
    ):
        shift = make(matrix_from_euler(pose)).project(nose) - make(np.eye(3)).project(nose)
        assert tuple(np.sign(np.round(shift[0, :2])).astype(int)) == moves


def test_positive_roll_lowers_the_image_right_eye() -> None:
    eyes = weak_view(matrix_from_euler((0, 0, 20)), 1.0, (0.0, 0.0)).project(landmarks21()[[7, 10]])
    assert eyes[1, 1] > eyes[0, 1] + 10


def test_view_knows_its_rotation_and_scale() -> None:
    rotation = matrix_from_euler((25.0, -10.0, 15.0))
    assert geodesic_deg(weak_view(rotation, 1.3, (0, 0)).rotation, rotation) < 1e-9
    view = pinhole_view(rotation, (50.0, -20.0, 800.0), [[500, 0, 320], [0, 500, 240], [0, 0, 1]])
    assert geodesic_deg(view.rotation, rotation) < 1e-9
    assert view.scale_px_per_mm == pytest.approx(500 / 800)


def test_far_side_is_hidden() -> None:
    turned = visible21(matrix_from_euler((-70.0, 0.0, 0.0)))  # toward image-right: the image-left side shows
    assert turned[CODES_21.index("LE")] and not turned[CODES_21.index("RE")]
    assert visible21(np.eye(3))[: CODES_21.index("LE")].all()


# BIWI


def read_pose_text(path: Path) -> tuple[np.ndarray, np.ndarray]:
    values = np.array(path.read_text().split(), dtype=float)
    return values[:9].reshape(3, 3), values[9:]


def read_depth(path: Path) -> np.ndarray:
    data = path.read_bytes()
    width, height = struct.unpack_from("<ii", data)
    pixels: list[np.ndarray] = []
    offset, filled = 8, 0
    while filled < width * height:
        empty, full = struct.unpack_from("<ii", data, offset)
        pixels += [np.zeros(empty, "<i2"), np.frombuffer(data, "<i2", full, offset + 8)]
        offset += 8 + 2 * full
        filled += empty + full
    assert (filled, offset) == (width * height, len(data))
    return np.concatenate(pixels).reshape(height, width)


def test_biwi_names(tmp_path: Path) -> None:
    truth = biwi_writer.write(tmp_path, (1, 15), frames=5, with_pose_bin=True)
    assert {"biwi/01/frame_00003", "biwi/01/frame_00008", "biwi/01/frame_00009", "biwi/15/frame_00000"} <= set(truth)
    assert len(truth) == 10 and "biwi/01/frame_00006" not in truth
    suffixes = ("_rgb.png", "_depth.bin", "_pose.txt", "_pose.bin")
    wanted = {f"hpdb/{key.removeprefix('biwi/')}{suffix}" for key in truth for suffix in suffixes}
    wanted |= {f"hpdb/{n}{rest}" for n in ("01", "15") for rest in (".obj", "/rgb.cal", "/depth.cal")}
    assert set(files(tmp_path)) == wanted
    assert cv2.imread(str(tmp_path / "hpdb/01/frame_00003_rgb.png")).shape == (480, 640, 3)


def test_biwi_labels(tmp_path: Path) -> None:
    truth = biwi_writer.write(tmp_path, (2,), frames=6, prefix="faces_0", with_pose_bin=True, digits=12)
    for key, pose in truth.items():
        stem = tmp_path / "faces_0" / key.removeprefix("biwi/")
        rotation, centre = read_pose_text(stem.with_name(f"{stem.name}_pose.txt"))
        assert_pose(euler_from_matrix(camera_to_canonical(rotation)), pose, 1e-6)
        stored = np.frombuffer(stem.with_name(f"{stem.name}_pose.bin").read_bytes(), "<f4")
        assert_pose(canonical_from_angles(stored[3:], "biwi_bin")[0], pose, 1e-4)
        np.testing.assert_allclose(stored[:3], centre, rtol=1e-6)
        depth = read_depth(stem.with_name(f"{stem.name}_depth.bin"))
        x, y = (biwi_writer.cameras(2)[0].matrix @ (centre / centre[2]))[:2].round().astype(int)
        assert abs(depth[y, x] - centre[2]) < 110 and (depth == 0).mean() > 0.5


def test_biwi_text_has_six_digits_as_in_the_original(tmp_path: Path) -> None:
    (key, pose), *_ = reversed(biwi_writer.write(tmp_path, (1,), with_depth=False).items())
    text = (tmp_path / f"hpdb/{key.removeprefix('biwi/')}_pose.txt").read_text()
    assert [line.endswith(" ") for line in text.split("\n")] == [True, True, True, False, True, False]
    assert_pose(euler_from_matrix(camera_to_canonical(np.array(text.split()[:9], float).reshape(3, 3))), pose, 1e-4)
    assert not list(tmp_path.rglob("*.bin"))
    calibration = (tmp_path / "hpdb/01/rgb.cal").read_text().splitlines()
    assert len(calibration) == 13 and calibration[12] == "640 480"
    assert [i for i, line in enumerate(calibration) if not line] == [3, 5, 9, 11]
    extrinsic = np.array([line.split() for line in calibration[6:9]], float)
    np.testing.assert_allclose(extrinsic @ extrinsic.T, np.eye(3), atol=1e-5)
    assert 0.5 < geodesic_deg(extrinsic, np.eye(3)) < 2


def test_biwi_depth_of_any_shape_survives(tmp_path: Path) -> None:
    for values in ([[0, 0], [0, 0]], [[5, 6], [7, 8]], [[0, 5], [6, 0]], [[5, 0], [0, 6]]):
        depth = np.array(values, dtype=np.int16)
        (tmp_path / "x.bin").write_bytes(biwi_writer.depth_bin(depth))
        np.testing.assert_array_equal(read_depth(tmp_path / "x.bin"), depth)


def test_biwi_takes_poses_and_refuses_a_wrong_sequence(tmp_path: Path) -> None:
    wanted = {3: [(10.0, 5.0, -2.0), (-70.0, 20.0, 4.0)], 22: [(1.0, 2.0, 3.0)]}
    truth = biwi_writer.write(tmp_path, poses=wanted, with_depth=False)
    assert biwi_writer.poses_by_sequence(truth) == wanted
    with pytest.raises(UbhpdError, match="1 to 24, not 25"):
        biwi_writer.write(tmp_path, (25,))


# AFLW2000-3D and 300W-LP


def test_mat_header_holds_no_time_of_day() -> None:
    data = mat_bytes({"x": np.zeros((1, 3))})
    assert data.startswith(b"MATLAB 5.0 MAT-file, Platform: PCWIN64, Created on: Tue Mar 29 22:50:26 2016  ")
    assert data[124:128] == b"\x00\x01IM"


def test_aflw2000_labels(tmp_path: Path) -> None:
    truth = aflw2000_writer.write(tmp_path, 12)
    folder = tmp_path / "AFLW2000"
    stems = [key.removeprefix("aflw2000/") for key in truth]
    assert stems[0] == "image00002"
    names = {f"AFLW2000/{stem}.{kind}" for stem in stems for kind in ("jpg", "mat")}
    assert set(files(tmp_path)) == names | {"AFLW2000/Code/Model_Shape_Sim.mat", "AFLW2000/Code/readme.txt"}
    order = ["pt2d", "Illum_Para", "Color_Para", "Tex_Para", "Shape_Para", "Exp_Para", "Pose_Para", "roi", "pt3d_68"]
    hidden = 0
    for stem, pose in zip(stems, truth.values(), strict=True):
        variables = scipy.io.loadmat(folder / f"{stem}.mat")
        assert [name for name in variables if not name.startswith("__")] == order
        assert_pose(canonical_from_angles(variables["Pose_Para"][0, :3], "300wlp")[0], pose, 1e-4)
        assert cv2.imread(str(folder / f"{stem}.jpg")).shape == (450, 450, 3)
        hidden += int((variables["pt2d"][0] == -1).any())
    assert hidden > 3
    load = [scipy.io.loadmat(folder / f"{stem}.mat") for stem in stems]
    assert load[1]["pt2d"].dtype == np.int16 and load[2]["pt2d"].shape == (2, 23)
    assert (load[0]["Pose_Para"].dtype, load[3]["Pose_Para"].dtype) == (np.float32, np.float64)
    assert load[6]["Exp_Para"].dtype == np.uint8 and load[5]["Pose_Para"][0, 6] < 0
    assert [max(map(abs, truth[f"aflw2000/{stem}"])) > 99 for stem in stems[:7]] == [False] * 4 + [True] * 2 + [False]
    assert "Pose_Para" not in scipy.io.loadmat(folder / "Code" / "Model_Shape_Sim.mat")


def test_aflw2000_points_show_the_pose(tmp_path: Path) -> None:
    """The rotation that carries the 68 points of the subject into pt3d_68 is the label's."""
    heads = draw_heads(6, np.random.default_rng(5))
    truth = aflw2000_writer.write(tmp_path, heads, quirks=False)
    assert list(truth.values()) == [head.pose for head in heads]
    for head, key in zip(heads, truth, strict=True):
        found = scipy.io.loadmat(tmp_path / "AFLW2000" / f"{key.split('/')[1]}.mat")["pt3d_68"].astype(float)
        found[1] *= -1  # pixels, y down
        shape = landmarks68(head.subject, head.expression)
        u, _, vt = np.linalg.svd((found - found.mean(1, keepdims=True)) @ (shape - shape.mean(0)))
        assert geodesic_deg(u @ vt, head.rotation) < 1e-3


def test_w300lp_labels(tmp_path: Path) -> None:
    truth = w300lp_writer.write(tmp_path, 16, views=2, bad_flips=1)
    assert len(truth) == 32
    assert {"300wlp/AFW/AFW_134212_1_0", "300wlp/AFW_Flip/AFW_134212_1_1", "300wlp/IBUG/IBUG_image_092 _01_0"} <= set(
        truth
    )
    folder = tmp_path / "300W_LP"
    order = ["pt2d", "roi", "Illum_Para", "Color_Para", "Tex_Para", "Shape_Para", "Exp_Para", "Pose_Para"]
    for key, pose in truth.items():
        set_name, name = key.split("/")[1:]
        variables = scipy.io.loadmat(folder / set_name / f"{name}.mat")
        assert [v for v in variables if not v.startswith("__")] == order
        types = [variables[v].dtype for v in ("pt2d", "roi", "Color_Para", "Pose_Para")]
        assert types == [np.float64, np.int16, np.float32, np.float32]
        assert_pose(canonical_from_angles(variables["Pose_Para"][0, :3], "300wlp")[0], pose, 1e-4)
        assert (folder / set_name / f"{name}.jpg").is_file()
        photo = scipy.io.loadmat(folder / set_name / f"{name[:-1]}0.mat")
        np.testing.assert_array_equal(variables["pt2d"], photo["pt2d"])
        if not set_name.endswith("_Flip"):
            pts = scipy.io.loadmat(folder / "landmarks" / set_name / f"{name}_pts.mat")
            assert pts["pts_2d"].shape == pts["pts_3d"].shape == (68, 2)
    assert sum(max(map(abs, pose)) > 99 for pose in truth.values()) == 1
    extra = set(files(tmp_path)) - {f"300W_LP/{k.split('/', 1)[1]}.{e}" for k in truth for e in ("jpg", "mat")}
    assert {path.split("/")[1] for path in extra} == {"landmarks", "Code"}


def test_w300lp_twin_is_the_mirrored_image(tmp_path: Path) -> None:
    truth = w300lp_writer.write(tmp_path, [Head(35.0, 10.0, 8.0, 2)])
    assert list(truth.values()) == [(35.0, 10.0, 8.0), (-35.0, 10.0, -8.0)]
    stem = tmp_path / "300W_LP" / "AFW" / "AFW_134212_1_0"
    twin = tmp_path / "300W_LP" / "AFW_Flip" / "AFW_134212_1_0"
    image, mirrored = (cv2.imread(f"{s}.jpg").astype(int) for s in (stem, twin))
    assert np.abs(image[:, ::-1] - mirrored).mean() < 3 < np.abs(image - mirrored).mean()
    points, other = (scipy.io.loadmat(f"{s}.mat")["pt2d"] for s in (stem, twin))
    np.testing.assert_allclose(other[0], 449 - points[0, list(MIRROR_68)])
    assert other[0, 36] < other[0, 45]  # the image-left eye is still the first


def test_pool_of_images_repeats_images_not_labels(tmp_path: Path) -> None:
    truth = w300lp_writer.write(tmp_path, 30, distinct_images=4, flips=False)
    assert len(set(truth.values())) == 30
    hashes = files(tmp_path)
    assert len({h for path, h in hashes.items() if path.endswith(".jpg")}) == 4
    with pytest.raises(UbhpdError, match="pool of 0"):
        w300lp_writer.write(tmp_path, 2, distinct_images=0)


# AFLW


def test_aflw_labels(tmp_path: Path) -> None:
    heads = draw_heads(20, np.random.default_rng(8))
    truth = aflw_writer.write(tmp_path, heads)
    assert list(truth) == [f"aflw/{39341 + i}" for i in range(18)]
    assert list(truth.values()) == [head.pose for head in heads[:18]]
    connection = sqlite3.connect(tmp_path / "aflw/data/aflw.sqlite")
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    wanted = "Faces FaceImages FacePose FaceRect FaceEllipse FaceMetaData FeatureCoords FeatureCoordTypes CamPose"
    assert tables >= {
        *wanted.split(),
        "AnnotationType",
        "Databases",
        "NearDuplicates",
        "sqlite_sequence",
        "sqlite_stat1",
    }
    assert [row[0] for row in connection.execute("SELECT code FROM FeatureCoordTypes ORDER BY feature_id")] == list(
        CODES_21
    )
    poses = {row[0]: row[1:] for row in connection.execute("SELECT face_id, roll, pitch, yaw FROM FacePose")}
    for key, pose in truth.items():
        assert_pose(canonical_from_angles(poses[int(key.split("/")[1])], "aflw")[0], pose, 1e-6)
    assert [max(map(abs, poses[39341 + i])) > 6.2 for i in range(20)] == [False] * 18 + [True] * 2
    rects = {row[0]: row[1:] for row in connection.execute("SELECT face_id, x, y, w, h FROM FaceRect")}
    assert sorted(set(poses) - set(rects)) == [39341 + 17]
    assert any(x < 0 and y < 0 for x, y, _, _ in rects.values()) and all(w == h for _, _, w, h in rects.values())
    points = dict(connection.execute("SELECT face_id, count(*) FROM FeatureCoords GROUP BY face_id"))
    assert max(points.values()) <= 21 and min(points.values()) < 16
    join = "SELECT count(*), max(n) FROM (SELECT count(*) n FROM Faces GROUP BY file_id)"
    assert connection.execute(join).fetchone()[1] == 3
    query = "SELECT filepath, width, height FROM FaceImages"
    for filepath, width, height in connection.execute(query):
        assert filepath.split("/")[0] in ("0", "2", "3")
        assert cv2.imread(str(tmp_path / "aflw/data/flickr" / filepath)).shape == (height, width, 3)
    connection.close()


def test_aflw_angles_undo_the_convention() -> None:
    rotations = matrix_from_euler(np.random.default_rng(0).uniform(-85, 85, (200, 3)))
    stored = np.array([aflw_writer.aflw_angles(r) for r in rotations])
    assert geodesic_deg(canonical_from_angles(stored, "aflw")[1], rotations).max() < 1e-9


# UPNA


def test_upna_labels(tmp_path: Path) -> None:
    truth = upna_writer.write(tmp_path, (1,), (1, 5), frames=6)
    zeroed = upna_writer.truth((1,), (1, 5), frames=6, truth_of="zeroed")
    assert list(truth)[-1] == "upna/user_01/video_05/frame_00005"
    folder = tmp_path / "Head_Pose_Database_UPNA"
    names = {"Camera_parameters.mat"}
    for video in ("01", "05"):
        stem = f"User_01/user_01_video_{video}"
        suffixes = (".mp4", "_groundtruth2D.txt", "_groundtruth3D.txt", "_groundtruth3D_zeroed.txt")
        names |= {stem + suffix for suffix in suffixes}
        for suffix, wanted in (("", truth), ("_zeroed", zeroed)):
            path = folder / f"{stem}_groundtruth3D{suffix}.txt"
            assert path.read_bytes().count(b"\t\r\n") == 6
            found, _ = canonical_from_angles(np.loadtxt(path)[:, 3:], "upna")
            assert_pose(found, [p for k, p in wanted.items() if f"video_{video}" in k], 1e-6)
        assert np.loadtxt(folder / f"{stem}_groundtruth2D.txt").shape == (6, 108)
        video_file = cv2.VideoCapture(str(folder / f"{stem}.mp4"))
        size = [int(video_file.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
        assert (*size, int(video_file.get(cv2.CAP_PROP_FRAME_COUNT))) == (1280, 720, 6)
        video_file.release()
    assert set(files(folder)) == names
    assert_pose(zeroed["upna/user_01/video_05/frame_00000"], (0, 0, 0), 1e-9)
    assert_pose(truth["upna/user_01/video_05/frame_00000"], (4.0, -6.0, 2.5), 1e-9)
    camera = scipy.io.loadmat(folder / "Camera_parameters.mat")
    assert camera["focal_length"].size == camera["principal_point"].size == 2


def test_upna_points_show_the_pose(tmp_path: Path) -> None:
    """OpenCV's perspective-n-point on the 54 points gives the zeroed poses back: an outside reference."""
    truth = upna_writer.write(tmp_path, (3,), (2,), frames=8, truth_of="zeroed", with_video=False)
    path = tmp_path / "Head_Pose_Database_UPNA/User_03/user_03_video_02_groundtruth2D.txt"
    for points, pose in zip(np.loadtxt(path).reshape(-1, 54, 2), truth.values(), strict=True):
        camera_axes = landmarks54(3) * (1, -1, -1)
        ok, turn, _ = cv2.solvePnP(camera_axes, points, upna_writer.camera_matrix(), None)
        rotation = camera_to_canonical(cv2.Rodrigues(turn)[0])
        assert ok and geodesic_deg(rotation, matrix_from_euler(pose)) < 1e-2


def test_upna_zeroed_on_the_other_side() -> None:
    raw = np.array(list(upna_writer.truth((1,), (1,), frames=5).values()))
    left = np.array(list(upna_writer.truth((1,), (1,), frames=5, zero_side="left", truth_of="zeroed").values()))
    r = matrix_from_euler(raw)
    assert geodesic_deg(matrix_from_euler(left), r[0].T @ r).max() < 1e-9


# SynHead


def test_synhead_labels(tmp_path: Path) -> None:
    recorded = biwi_writer.poses_by_sequence(biwi_writer.write(tmp_path, (1, 7), frames=4, with_depth=False))
    truth = synhead_writer.write(tmp_path, heads=("f01", "m05"), poses=recorded, frames=3)
    folder = tmp_path / "synhead2_release"
    assert (folder / "background" / "a01.jpg").is_file()
    assert len(truth) == 2 * (4 + 4 + 3 * 3)
    assert truth["synhead/BIWI/06/m05/000003"] == recorded[7][3]
    for key, pose in truth.items():
        name, number, model, row = key.split("/")[1:]
        table = np.loadtxt(folder / name / f"{number}.csv", delimiter=",")
        assert_pose(canonical_from_angles(table[int(row)], "synhead")[0], pose, 1e-6)
        image = cv2.imread(str(folder / name / model / number / f"{int(row)}.png"), cv2.IMREAD_UNCHANGED)
        assert image.shape == (400, 400, 4) and set(np.unique(image[..., 3])) == {0, 255}
    with pytest.raises(UbhpdError, match="SynHead has no f09"):
        synhead_writer.write(tmp_path, heads=("f09",))
