"""BIWI: layout, quirks and angles as docs/sources.md has them."""

from __future__ import annotations

import random
import shutil
import struct
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from trees_for_tests import angles_of, copied, plain, plain_all, read_all, read_items, replace_file, tree_at, tree_of

from ubhpd.builders import biwi as builder
from ubhpd.core.rotation import camera_to_canonical, euler_from_matrix, geodesic_deg
from ubhpd.raw.source import Source
from ubhpd.synth.rendered_heads import pinhole_view
from ubhpd.synth.renderer.shape import head_mesh
from ubhpd.synth.writers import biwi_writer

# Sequence 12, frame 3, as published in the dataset's own description.
SAMPLE = b"""0.980639 0.109899 0.162077 \n-0.11023 0.993882 -0.00697376 \n-0.161851 -0.011027 0.986754 \n
43.4019 -30.7038 906.864 \n\n"""
SAMPLE_YPR = (9.327, -0.405, -6.394)
SAMPLE_R = np.array(SAMPLE.split()[:9], dtype=float).reshape(3, 3)
# The turn between the cameras of the recordings 01-05 and 07-14, a rotation vector in degrees.
EXTRINSIC_DEG = (-0.863, 0.531, -0.252)


@pytest.fixture
def tree(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the small tree: recordings 01 and 06, four frames each."""
    return copied(tree_of("biwi", tmp_path_factory).root, tmp_path)


@pytest.fixture
def sample(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recording 12 with the published frame alone, and the published calibration."""
    source = tree_of("biwi", tmp_path_factory).root
    folder = tmp_path / "hpdb" / "12"
    folder.mkdir(parents=True)
    shutil.copy(source / "01.obj", folder.parent / "12.obj")
    shutil.copy(source / "01/frame_00003_rgb.png", folder / "frame_00003_rgb.png")
    extrinsic = Rotation.from_rotvec(EXTRINSIC_DEG, degrees=True).as_matrix()
    (folder / "frame_00003_pose.txt").write_bytes(SAMPLE)
    (folder / "rgb.cal").write_bytes(calibration(extrinsic))
    return folder.parent


def calibration(rotation: np.ndarray) -> bytes:
    rows = "\n".join(" ".join(f"{v:.9g}" for v in row) + " " for row in rotation)
    return f"""517.679 0 320 \n0 517.679 240.5 \n0 0 1 \n\n0 0 0 0 \n\n{rows}\n
-24.0198 5.8896 -13.2308 \n\n640 480\n""".encode()


def only(records: dict) -> object:
    (record,) = records.values()
    return record


# What is published


def test_published_frames() -> None:
    assert sum(builder.PUBLISHED.values()) == 15_678
    assert list(builder.PUBLISHED) == [f"biwi/{n:02d}/" for n in range(1, 25)]
    assert [builder.PUBLISHED[f"biwi/{n}/"] for n in ("01", "17", "18", "24")] == [499, 395, 614, 492]


def test_twenty_people_four_of_them_twice() -> None:
    counts = Counter(builder.SUBJECTS.values())
    assert len(counts) == 20 and sum(counts.values()) == 24
    assert {p for p, n in counts.items() if n == 2} == {"F02", "F03", "F05", "M01"} and max(counts.values()) == 2
    assert sorted(counts)[:6] == [f"F{n:02d}" for n in range(1, 7)]
    same = [("02", "21"), ("03", "15"), ("05", "18"), ("07", "22")]
    assert all(builder.SUBJECTS[a] == builder.SUBJECTS[b] for a, b in same)


def test_the_published_frame(sample: Path) -> None:
    record = only(read_all("biwi", sample).records)
    assert record.sample_id == "biwi/12/frame_00003" and record.image_path == "12/frame_00003_rgb.png"
    np.testing.assert_allclose(angles_of(record), SAMPLE_YPR, atol=6e-4)
    np.testing.assert_allclose(np.reshape(record.rotation, (3, 3)), camera_to_canonical(SAMPLE_R), atol=1e-12)
    assert (record.subject_id, record.sequence_id, record.frame_index) == ("biwi/M06", "biwi/12", 3)
    assert record.raw_angles is None and not record.synthetic and record.source_photo is None


def test_the_formula_of_the_literature_gives_the_same_angles(sample: Path) -> None:
    """Hopenet's: M = R^T, roll = -atan2(M10, M00), yaw = -atan2(-M20, hypot(M21, M22)), pitch = atan2(M21, M22)."""
    m = SAMPLE_R.T
    yaw = -np.degrees(np.arctan2(-m[2, 0], np.hypot(m[2, 1], m[2, 2])))
    pitch, roll = np.degrees(np.arctan2(m[2, 1], m[2, 2])), -np.degrees(np.arctan2(m[1, 0], m[0, 0]))
    np.testing.assert_allclose(angles_of(only(read_all("biwi", sample).records)), (yaw, pitch, roll), atol=1e-5)


def test_rgb_frame_puts_the_extrinsic_rotation_first(sample: Path) -> None:
    depth, rgb = (only(read_all("biwi", sample, frame=f).records) for f in ("depth", "rgb"))
    extrinsic = Rotation.from_rotvec(EXTRINSIC_DEG, degrees=True).as_matrix()
    turned = camera_to_canonical(extrinsic @ SAMPLE_R)
    np.testing.assert_allclose(np.reshape(rgb.rotation, (3, 3)), turned, atol=1e-7)
    np.testing.assert_allclose(angles_of(rgb), euler_from_matrix(turned), atol=1e-5)
    swapped = camera_to_canonical(SAMPLE_R @ extrinsic)  # the order that one public reader got wrong
    assert geodesic_deg(np.reshape(rgb.rotation, (3, 3)), swapped) > 0.1
    away = geodesic_deg(np.reshape(rgb.rotation, (3, 3)), np.reshape(depth.rotation, (3, 3)))
    assert away == pytest.approx(np.linalg.norm(EXTRINSIC_DEG), abs=1e-5) and 1.0 < away < 1.5
    np.testing.assert_array_equal(depth.bbox_xyxy, rgb.bbox_xyxy)


# Files that are there, and files that are not


def test_box_encloses_the_head_in_the_colour_image(tmp_path: Path) -> None:
    """Against the writer's own projection of every vertex of its mesh, which is coarser than the original's."""
    biwi_writer.write(tmp_path, (1,), frames=4)
    said = read_all("biwi", tmp_path / "hpdb")
    _, camera = biwi_writer.cameras(1)
    mesh = head_mesh(1 + sorted(set(biwi_writer.SUBJECTS)).index("F01")).points_mm
    for record in said.records.values():
        text = (tmp_path / "hpdb" / record.image_path.replace("_rgb.png", "_pose.txt")).read_text().split()
        rotation = np.reshape(record.rotation, (3, 3))
        view = pinhole_view(rotation, np.array(text[9:], float), camera.matrix, camera.rotation, camera.translation_mm)
        pixels = view.project(mesh)[:, :2]
        wanted = [*pixels.min(axis=0), *pixels.max(axis=0)]
        np.testing.assert_allclose(record.bbox_xyxy, wanted, atol=3.0)
        assert record.bbox_kind == "template_projection"
        left, top, right, bottom = record.bbox_xyxy
        assert 0 < left < right < 640 and 0 < top < bottom < 480


def test_pose_bin_alone_gives_the_same_pose(tmp_path: Path) -> None:
    truth = biwi_writer.write(tmp_path, (1,), frames=4, with_pose_bin=True, with_depth=False)
    from_text = read_all("biwi", tmp_path / "hpdb").records
    for path in (tmp_path / "hpdb" / "01").glob("*_pose.txt"):
        path.unlink()
    records = read_all("biwi", tmp_path / "hpdb").records
    assert set(records) == set(truth)
    for sample_id, record in records.items():
        np.testing.assert_allclose(angles_of(record), truth[sample_id], atol=1e-4)
        np.testing.assert_allclose(record.bbox_xyxy, from_text[sample_id].bbox_xyxy, atol=0.01)
        stem = tmp_path / "hpdb" / record.image_path.removesuffix("_rgb.png")
        stored = struct.unpack("<6f", stem.with_name(f"{stem.name}_pose.bin").read_bytes())
        assert record.raw_convention == "biwi_bin" and tuple(record.raw_angles) == stored[3:]


def test_pose_txt_takes_precedence_over_pose_bin(tmp_path: Path) -> None:
    biwi_writer.write(tmp_path, (1,), frames=3, with_pose_bin=True, with_depth=False)
    before = plain_all(read_items("biwi", tmp_path / "hpdb"))
    for path in (tmp_path / "hpdb" / "01").glob("*_pose.bin"):
        path.write_bytes(b"nothing of use")
    assert plain_all(read_items("biwi", tmp_path / "hpdb")) == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 23,
        b"\0" * 25,
        b"\0" * 24,  # a head in the middle of the camera
        struct.pack("<6f", 0, 0, 900, float("nan"), 0, 0),
        struct.pack("<6f", 0, 0, 900, 0, 400, 0),
        struct.pack("<6f", 0, 0, -900, 0, 0, 0),
        struct.pack("<6f", float("inf"), 0, 900, 0, 0, 0),
    ],
)
def test_damaged_pose_bin(sample: Path, content: bytes) -> None:
    (sample / "12/frame_00003_pose.txt").unlink()
    (sample / "12/frame_00003_pose.bin").write_bytes(content)
    said = read_all("biwi", sample)
    drop = only(said.drops)
    assert drop.reason == "bad_label" and "frame_00003_pose.bin" in drop.detail and not said.records


def test_no_label_at_all(sample: Path) -> None:
    (sample / "12/frame_00003_pose.txt").unlink()
    drop = only(read_all("biwi", sample).drops)
    assert (drop.reason, drop.sample_id, drop.frame_index) == ("missing_label", "biwi/12/frame_00003", 3)


def test_label_without_image(tree: Path) -> None:
    (tree / "06/frame_00000_rgb.png").unlink()
    drop = only(read_all("biwi", tree).drops)
    assert (drop.reason, drop.sample_id) == ("missing_image", "biwi/06/frame_00000")


def test_kaggle_copy(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tree_of("biwi", tmp_path_factory).root
    other = tmp_path / "archive" / "faces_0"
    other.parent.mkdir()
    copied(root, tmp_path / "link")
    (tmp_path / "link" / "hpdb").rename(other)
    source = Source(tree_at(tmp_path))
    assert [f for f in ("", "archive", "archive/faces_0") if builder.recognise(source, f)] == ["archive/faces_0"]
    assert plain_all(read_items("biwi", tmp_path, inside="archive/faces_0")) == plain_all(read_items("biwi", root))


def test_partial_copy(tree: Path) -> None:
    shutil.rmtree(tree / "01")
    assert {r.sequence_id for r in read_all("biwi", tree).records.values()} == {"biwi/06"}
    assert builder.recognise(Source(tree_at(tree)), "")


@pytest.mark.parametrize("name", ["00", "25", "1", "001", "01 "])
def test_other_folders_are_not_recordings(tree: Path, name: str) -> None:
    (tree / "01").rename(tree / name)
    assert {r.sequence_id for r in read_all("biwi", tree).records.values()} == {"biwi/06"}


def test_masks_are_not_frames(tmp_path: Path) -> None:
    folder = tmp_path / "head_pose_masks" / "01"
    folder.mkdir(parents=True)
    (folder / "frame_00003_depth_mask.png").write_bytes(b"mask")
    assert not builder.recognise(Source(tree_at(tmp_path / "head_pose_masks")), "")


def test_frames_of_a_recording_come_in_order_with_gaps(tree: Path) -> None:
    records = read_all("biwi", tree).records
    assert [r.frame_index for r in records.values()] == [3, 4, 7, 8, 0, 1, 4, 5]
    assert {r.subject_id for r in records.values()} == {"biwi/F01", "biwi/F06"}


# Damaged labels


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        (b"0.980639", b"nan", "no rotation"),
        (b"0.980639", b"inf", "no rotation"),
        (b"0.980639", b"-0.980639", "no rotation"),
        (b"0.980639", b"0.970639", "no rotation"),
        (b"0.980639", b"1e200", "no rotation"),
        (b"0.980639", b"0.98_0639", "not a number"),
        (b"0.980639", b"0,980639", "not a number"),
        (b"0.980639", b"", "11 numbers"),
        (b"906.864", b"906.864 1", "13 numbers"),
        (b"906.864", b"nan", "not before the camera"),
        (b"906.864", b"9", "not before the camera"),
        (b"906.864", b"-906.864", "not before the camera"),
        (b"43.4019", b"inf", "not before the camera"),
    ],
)
def test_damaged_pose_text(sample: Path, old: bytes, new: bytes, word: str) -> None:
    (sample / "12/frame_00003_pose.txt").write_bytes(SAMPLE.replace(old, new, 1))
    said = read_all("biwi", sample)
    drop = only(said.drops)
    assert not said.records and drop.reason == "bad_label"
    assert drop.detail.startswith("12/frame_00003_pose.txt: ") and word in drop.detail


def test_a_mirrored_matrix_is_not_a_rotation(sample: Path) -> None:
    rows = SAMPLE.split(b"\n")
    rows[0], rows[1] = rows[1], rows[0]
    (sample / "12/frame_00003_pose.txt").write_bytes(b"\n".join(rows))
    assert "no rotation" in only(read_all("biwi", sample).drops).detail


@pytest.mark.parametrize("change", [(b" \n", b"\n"), (b"\n", b"\r\n"), (b" ", b"   "), (b" ", b"\t"), (b"\n\n", b"\n")])
def test_white_space_of_every_kind(sample: Path, change: tuple[bytes, bytes]) -> None:
    before = plain(only(read_all("biwi", sample).records))
    (sample / "12/frame_00003_pose.txt").write_bytes(SAMPLE.replace(*change))
    assert plain(only(read_all("biwi", sample).records)) == before


def test_every_truncation_of_a_pose_text(sample: Path) -> None:
    """However short: refused, or the right angles. Only a digit or two of the centre can go unnoticed."""
    whole = read_all("biwi", sample).records["biwi/12/frame_00003"]
    kept = []
    for size in range(len(SAMPLE)):
        replace_file(sample / "12/frame_00003_pose.txt", SAMPLE[:size])
        said = read_all("biwi", sample)
        assert len(said.records) + len(said.drops) == 1
        for record in said.records.values():
            kept.append(size)
            assert angles_of(record) == angles_of(whole)
            np.testing.assert_allclose(record.bbox_xyxy, whole.bbox_xyxy, atol=1.0)
    assert kept and min(kept) == SAMPLE.index(b"906.864") + 3


# Calibration


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"517.679 0 320", b"nan 0 320"),
        (b"517.679 0 320", b"17.679 0 320"),
        (b"517.679 0 320", b"-517.679 0 320"),
        (b"517.679 0 320", b"517.679 0 3200"),
        (b"0 0 1 \n", b"0 0 2 \n"),
        (b"0 0 1 \n", b"0 0 1 1 \n"),
        (b"0.999", b"9.999"),
        (b"0.999", b"0.9_9"),
        (b"-24.0198", b"here"),
        (b"640 480", b""),
        (b"640 480", b"64 48"),
    ],
)
@pytest.mark.parametrize("frame", ["depth", "rgb"])
def test_damaged_calibration_refuses_the_recording(tree: Path, old: bytes, new: bytes, frame: str) -> None:
    content = (tree / "06/rgb.cal").read_bytes()
    assert old in content
    replace_file(tree / "06/rgb.cal", content.replace(old, new, 1))
    said = read_all("biwi", tree, frame=frame)
    assert {d.reason for d in said.drops.values()} == {"bad_calibration"} and len(said.drops) == 4
    assert all("06/rgb.cal" in d.detail for d in said.drops.values())
    assert {r.sequence_id for r in said.records.values()} == {"biwi/01"}


def test_missing_calibration_removes_the_box_or_with_frame_rgb_the_head(tree: Path) -> None:
    before = read_all("biwi", tree).records
    (tree / "06/rgb.cal").unlink()
    said = read_all("biwi", tree)
    assert len(said.records) == 8 and not said.drops
    assert {r.sequence_id for r in said.records.values() if r.bbox_xyxy is None} == {"biwi/06"}
    assert all(angles_of(r) == angles_of(before[i]) for i, r in said.records.items())
    assert len(said.warnings) == 1 and "rgb.cal" in said.warnings[0] and "06" in said.warnings[0]
    said = read_all("biwi", tree, frame="rgb")
    assert {d.reason for d in said.drops.values()} == {"bad_calibration"} and len(said.drops) == 4


def test_depth_calibration_is_not_needed(tree: Path) -> None:
    before = plain_all(read_items("biwi", tree))
    (tree / "06/depth.cal").unlink()
    assert plain_all(read_items("biwi", tree)) == before


# Template


def test_missing_template_removes_the_box(tree: Path) -> None:
    (tree / "06.obj").unlink()
    said = read_all("biwi", tree)
    assert {r.sequence_id for r in said.records.values() if r.bbox_xyxy is None} == {"biwi/06"} and not said.drops
    assert len(said.warnings) == 1 and "06.obj" in said.warnings[0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda obj: obj[: obj.index(b"\nf ")],  # whole, but for its faces: as if cut among the vertices
        lambda obj: obj.replace(b"\nv ", b"\nv nan ", 40),
        lambda obj: obj.replace(b"\nv ", b"\nv 9", 40),
        lambda obj: obj.replace(b"\nv ", b"\nv x", 40),
        lambda obj: b"v 1 2 3\nf 1 1 1\n",
        lambda obj: b"<html>",
    ],
)
def test_damaged_template_removes_the_box(tree: Path, damage: object) -> None:
    content = (tree / "06.obj").read_bytes()
    replace_file(tree / "06.obj", damage(content))
    said = read_all("biwi", tree)
    assert {r.sequence_id for r in said.records.values() if r.bbox_xyxy is None} == {"biwi/06"} and not said.drops
    assert len(said.warnings) == 1 and "06.obj" in said.warnings[0]


def test_a_head_beside_the_camera_has_no_box(sample: Path) -> None:
    """Its points cannot be projected; the pose is a pose all the same."""
    (sample / "12/frame_00003_pose.txt").write_bytes(SAMPLE.replace(b"906.864", b"201"))
    lines = (sample / "12.obj").read_bytes().split(b"\n")
    far = [b"v 0 0 -400" if line.startswith(b"v ") and i % 2 else line for i, line in enumerate(lines)]
    replace_file(sample / "12.obj", b"\n".join(far))
    record = only(read_all("biwi", sample).records)
    assert record.bbox_xyxy is None and record.bbox_kind is None
    np.testing.assert_allclose(angles_of(record), SAMPLE_YPR, atol=6e-4)


# Depth


@pytest.mark.parametrize("size", [(), (640,), (0, 480), (-640, 480), (640, 1 << 30)])
def test_depth_headers_are_always_checked(tree: Path, size: tuple[int, ...]) -> None:
    content = struct.pack(f"<{len(size)}i", *size)
    replace_file(tree / "01/frame_00003_depth.bin", content)
    drop = only(read_all("biwi", tree).drops)
    assert (drop.reason, drop.sample_id) == ("bad_depth", "biwi/01/frame_00003")
    assert "frame_00003_depth.bin" in drop.detail


def test_depth_runs_are_checked_by_check_images(tree: Path) -> None:
    """Every cut, and a run too long, is found when asked for; by default the head of the file is all that is read."""
    path = tree / "01/frame_00003_depth.bin"
    shutil.rmtree(tree / "06")
    for other in tree.glob("01/frame_0000[4-9]*"):
        other.unlink()
    whole = path.read_bytes()
    assert not read_all("biwi", tree, thorough=True).drops
    rng = random.Random(0)
    for size in [*range(8, 40), *(rng.randrange(8, len(whole)) for _ in range(20)), *range(len(whole) - 9, len(whole))]:
        if size == len(whole) - 4:
            continue  # the count of an empty last run may be left out
        replace_file(path, whole[:size])
        assert only(read_all("biwi", tree, thorough=True).drops).reason == "bad_depth", size
    assert not read_all("biwi", tree).drops
    for damaged in (
        whole[:8] + struct.pack("<i", 640 * 480 + 1) + whole[12:],
        whole[:8] + struct.pack("<i", -5) + whole[12:],
        whole[:12] + struct.pack("<i", -5) + whole[16:],
        whole[:12] + struct.pack("<i", 1 << 30) + whole[16:],
    ):
        replace_file(path, damaged)
        assert only(read_all("biwi", tree, thorough=True).drops).reason == "bad_depth"


def test_depth_may_end_with_a_single_empty_run(tree: Path) -> None:
    for runs in (struct.pack("<i", 640 * 480), struct.pack("<ii", 640 * 480, 0)):
        replace_file(tree / "01/frame_00003_depth.bin", struct.pack("<ii", 640, 480) + runs)
        assert not read_all("biwi", tree, thorough=True).drops


def test_depth_may_be_absent(tree: Path) -> None:
    before = plain_all(read_items("biwi", tree))
    for path in tree.glob("*/*_depth.bin"):
        path.unlink()
    assert plain_all(read_items("biwi", tree, thorough=True)) == before


# Images


def test_image_damaged_inside_is_found_by_check_images(tree: Path) -> None:
    path = tree / "01/frame_00003_rgb.png"
    content = path.read_bytes()
    middle = len(content) // 2
    replace_file(path, content[:middle] + bytes(100) + content[middle + 100 :])
    assert not read_all("biwi", tree).drops
    drop = only(read_all("biwi", tree, thorough=True).drops)
    assert (drop.reason, drop.sample_id) == ("bad_image", "biwi/01/frame_00003")


def test_size_is_that_of_the_image(tree: Path) -> None:
    ok, png = cv2.imencode(".png", np.zeros((48, 64, 3), np.uint8))
    assert ok
    replace_file(tree / "01/frame_00003_rgb.png", png.tobytes())
    record = read_all("biwi", tree).records["biwi/01/frame_00003"]
    assert (record.image_width, record.image_height) == (64, 48)
