"""UPNA: layout, quirks and angles as docs/sources.md has them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import cv2
import numpy as np
import pytest
from trees_for_tests import (
    Said,
    angles_of,
    copied,
    plain,
    plain_all,
    read_all,
    read_items,
    replace_file,
    tree_at,
    tree_of,
)

from ubhpd.builders import upna as builder
from ubhpd.core.rotation import canonical_from_angles
from ubhpd.raw.source import Source
from ubhpd.synth.writers import upna_writer

FRAMES = 24
STEM = "User_01/user_01_video_01"
SEQUENCE = "upna/user_01/video_01"
AGREE = "the 2-D landmarks agree with the assumed order and signs of the angles"


@pytest.fixture
def tree(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the small tree: two users, a video each of 24 frames."""
    return copied(tree_of("upna", tmp_path_factory).root, tmp_path)


def edit(tree: Path, suffix: str, change: Callable[[bytes], bytes], stem: str = STEM) -> None:
    path = tree / f"{stem}{suffix}"
    replace_file(path, change(path.read_bytes()))


def rows(tree: Path, suffix: str = "_groundtruth3D.txt") -> np.ndarray:
    return np.loadtxt(tree / f"{STEM}{suffix}")


def table(values: np.ndarray) -> bytes:
    return "".join("\t".join(f"{v:.9f}" for v in row) + "\t\r\n" for row in values).encode()


def mine(said: Said, sequence: str = SEQUENCE) -> Said:
    """Return what was said of one video."""
    return Said(
        {i: r for i, r in said.records.items() if r.sequence_id == sequence},
        {i: d for i, d in said.drops.items() if d.sequence_id == sequence},
        said.notes,
    )


def test_published_heads() -> None:
    assert {f"upna/user_{u:02d}/": 12 * 300 for u in range(1, 11)} == builder.PUBLISHED


def test_a_head_is_a_frame_of_a_video(tree: Path) -> None:
    records = mine(read_all("upna", tree)).records
    assert [r.frame_index for r in records.values()] == list(range(FRAMES))
    first = records[f"{SEQUENCE}/frame_00000"]
    assert (first.image_path, first.image_width, first.image_height) == (f"{STEM}.mp4", 1280, 720)
    assert first.subject_id == "upna/user_01"


def test_columns_are_roll_yaw_pitch_with_pitch_negated(tree: Path) -> None:
    edit(tree, "_groundtruth3D.txt", lambda t: b"1 2 600 10 20 30\r\n" + t.split(b"\n", 1)[1])
    record = read_all("upna", tree).records[f"{SEQUENCE}/frame_00000"]
    np.testing.assert_allclose(angles_of(record), (20, -30, 10), atol=1e-12)
    assert tuple(record.raw_angles) == (10, 20, 30) and record.raw_convention == "upna"


def test_zeroed_labels_are_relative_to_the_first_frame(tree: Path) -> None:
    zeroed = upna_writer.truth((1, 2), (1,), frames=FRAMES, truth_of="zeroed")
    records = read_all("upna", tree, labels="zeroed").records
    assert set(records) == set(zeroed)
    for sample_id, pose in zeroed.items():
        np.testing.assert_allclose(angles_of(records[sample_id]), pose, atol=1e-6)
    np.testing.assert_allclose(angles_of(records[f"{SEQUENCE}/frame_00000"]), 0, atol=1e-9)
    raw = read_all("upna", tree).records[f"{SEQUENCE}/frame_00000"]
    assert np.abs(angles_of(raw)).max() > 5  # the offset of the headband


# Text


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.replace(b"\r\n", b"\n"),
        lambda t: t.replace(b"\t\r\n", b"\r\n"),
        lambda t: t.replace(b"\t", b"  "),
        lambda t: b"".join(b"   " + line for line in t.splitlines(keepends=True)),
        lambda t: t + b"\r\n\r\n",
        lambda t: t.replace(b"\r\n", b"\r\n\r\n"),
        lambda t: t.replace(b"\r\n", b"\r"),
    ],
)
@pytest.mark.parametrize("suffix", ["_groundtruth3D.txt", "_groundtruth2D.txt"])
def test_white_space_of_every_kind(tree: Path, suffix: str, change: Callable[[bytes], bytes]) -> None:
    before = plain_all(read_items("upna", tree))
    assert b"\t\r\n" in (tree / f"{STEM}{suffix}").read_bytes()
    edit(tree, suffix, change)
    assert plain_all(read_items("upna", tree)) == before


@pytest.mark.parametrize(
    "row", [b"1 2 3 4 5", b"1 2 3 4 5 6 7", b"1 2 3 4 5 x", b"1 2 3 4 5 nan", b"1 2 3 inf 5 6", b"1 2 3 400 5 6",
            b"1e9 2 3 4 5 6", b"1 2 3 1_0 5 6", b"\0\0\0", b"Tx Ty Tz Roll Yaw Pitch"]
)  # fmt: skip
def test_a_bad_row_is_one_refused_head(tree: Path, row: bytes) -> None:
    before = read_all("upna", tree).records
    edit(tree, "_groundtruth3D.txt", lambda t: b"\r\n".join((*t.split(b"\r\n")[:3], row, *t.split(b"\r\n")[4:])))
    said = read_all("upna", tree)
    (drop,) = said.drops.values()
    assert (drop.sample_id, drop.reason, drop.frame_index) == (f"{SEQUENCE}/frame_00003", "bad_label", 3)
    assert f"{STEM}_groundtruth3D.txt: line 4 " in drop.detail
    assert all(plain(r) == plain(before[i]) for i, r in said.records.items()) and len(said.records) == 2 * FRAMES - 1


def test_fewer_rows_than_frames(tree: Path) -> None:
    before = read_all("upna", tree).records
    edit(tree, "_groundtruth3D.txt", lambda t: b"\r\n".join(t.split(b"\r\n")[:20]) + b"\r\n")
    said = mine(read_all("upna", tree))
    assert list(said.drops) == [f"{SEQUENCE}/frame_{i:05d}" for i in range(20, FRAMES)]
    assert {d.reason for d in said.drops.values()} == {"frame_count_mismatch"}
    assert all("20 rows" in d.detail and "24 frames" in d.detail for d in said.drops.values())
    assert all(plain(r) == plain(before[i]) for i, r in said.records.items()) and len(said.records) == 20


def test_more_rows_than_frames(tree: Path) -> None:
    before = read_all("upna", tree).records
    for suffix in ("_groundtruth3D.txt", "_groundtruth2D.txt"):
        edit(tree, suffix, lambda t: t + t.split(b"\n")[0] + b"\n")
    said = mine(read_all("upna", tree))
    (drop,) = said.drops.values()
    assert (drop.sample_id, drop.reason) == (f"{SEQUENCE}/frame_00024", "frame_count_mismatch")
    assert "25 rows" in drop.detail and "24 frames" in drop.detail and f"{STEM}_groundtruth3D.txt" in drop.detail
    assert all(plain(r) == plain(before[i]) for i, r in said.records.items()) and len(said.records) == FRAMES


def test_every_truncation_of_the_labels(tree: Path) -> None:
    """However short: the right angles, or refused; only a last digit or two can be lost, and that is remarked."""
    shutil.rmtree(tree / "User_02")
    (tree / f"{STEM}_groundtruth2D.txt").unlink()
    before = read_all("upna", tree).records
    content = (tree / f"{STEM}_groundtruth3D.txt").read_bytes()
    start = content.index(b"\n", len(content) * 11 // 12)  # the last two rows
    for size in [0, 1, 2, 5, 30, *range(start, len(content))]:
        replace_file(tree / f"{STEM}_groundtruth3D.txt", content[:size])
        said = read_all("upna", tree)
        assert len(said.records) + len(said.drops) == FRAMES
        remarked = any("may be cut" in text for text in said.warnings)
        for sample_id, record in said.records.items():
            last = sample_id.endswith(f"{FRAMES - 1:05d}")
            assert angles_of(record) == angles_of(before[sample_id]) or (last and remarked), size
    assert not read_all("upna", tree).drops  # but for its last line end the file is whole


def test_labels_without_one_good_row(tree: Path) -> None:
    for content in (b"", b"\r\n\r\n", b"<html>\nno\n</html>", b"1 2 3\n" * FRAMES):
        replace_file(tree / f"{STEM}_groundtruth3D.txt", content)
        said = mine(read_all("upna", tree))
        assert not said.records and len(said.drops) == FRAMES
        assert {d.reason for d in said.drops.values()} == {"bad_label"}
        assert all(f"{STEM}_groundtruth3D.txt" in d.detail for d in said.drops.values())


# Landmarks


@pytest.mark.parametrize("points", [54, 43, 2])
def test_the_number_of_landmarks_is_counted(tree: Path, points: int) -> None:
    values = rows(tree, "_groundtruth2D.txt")[:, : 2 * points]
    replace_file(tree / f"{STEM}_groundtruth2D.txt", table(values))
    for i, record in enumerate(mine(read_all("upna", tree)).records.values()):
        frame = values[i].reshape(-1, 2)
        np.testing.assert_allclose(record.bbox_xyxy, [*frame.min(axis=0), *frame.max(axis=0)], atol=1e-6)
        assert record.bbox_kind == f"landmarks{points}"


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v[:, :-1],  # an odd number of columns
        lambda v: v[:-3],
        lambda v: np.concatenate([v, v]),
        lambda v: v[:, :2],  # one point has no extent
        lambda v: np.where(v > 0, np.nan, v),
        lambda v: v * 1e9,
    ],
)
def test_landmarks_that_do_not_fit_remove_the_box(tree: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    replace_file(tree / f"{STEM}_groundtruth2D.txt", table(change(rows(tree, "_groundtruth2D.txt"))))
    said = read_all("upna", tree)
    assert len(said.records) == 2 * FRAMES
    assert {r.sequence_id for r in said.records.values() if r.bbox_xyxy is None} == {SEQUENCE}
    assert len(said.warnings) == 1 and f"{STEM}_groundtruth2D.txt" in said.warnings[0]


def test_missing_landmarks_remove_the_box(tree: Path) -> None:
    (tree / f"{STEM}_groundtruth2D.txt").unlink()
    said = read_all("upna", tree)
    assert {r.sequence_id for r in said.records.values() if r.bbox_xyxy is None} == {SEQUENCE} and not said.drops
    assert len(said.warnings) == 1 and "no such file" in said.warnings[0]


def test_landmarks_truncated_in_their_last_row_give_no_box_there(tree: Path) -> None:
    edit(tree, "_groundtruth2D.txt", lambda t: t[:-4])
    said = mine(read_all("upna", tree))
    assert [i for i, r in said.records.items() if r.bbox_xyxy is None] == [f"{SEQUENCE}/frame_00023"]


# Videos


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"<html>" * 50, None])
def test_a_broken_video_refuses_its_frames(tree: Path, content: bytes | None) -> None:
    replace_file(tree / f"{STEM}.mp4", content)
    said = mine(read_all("upna", tree))
    assert list(said.drops) == [f"{SEQUENCE}/frame_{i:05d}" for i in range(FRAMES)] and not said.records
    assert {d.reason for d in said.drops.values()} == {"unreadable_file" if content is None else "bad_image"}
    assert all(f"{STEM}.mp4" in d.detail for d in said.drops.values())


def test_ffmpeg_does_not_write_into_the_progress_bar(tree: Path) -> None:
    """In a process of its own: OpenCV asks for the log level once."""
    edit(tree, ".mp4", lambda v: v[: len(v) // 2])
    code = "from trees_for_tests import read_all; import sys; print(len(read_all('upna', sys.argv[1]).drops))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    environment.pop("OPENCV_FFMPEG_LOGLEVEL", None)
    done = subprocess.run([sys.executable, "-c", code, tree], env=environment, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == (str(FRAMES), "")


def test_a_truncated_video_refuses_its_frames(tree: Path) -> None:
    edit(tree, ".mp4", lambda v: v[: len(v) // 2])
    said = mine(read_all("upna", tree))
    assert len(said.drops) == FRAMES and {d.reason for d in said.drops.values()} == {"bad_image"}


def test_a_missing_video_is_a_missing_image(tree: Path) -> None:
    (tree / f"{STEM}.mp4").unlink()
    said = mine(read_all("upna", tree))
    assert len(said.drops) == FRAMES and {d.reason for d in said.drops.values()} == {"missing_image"}


def test_neither_labels_nor_video_is_one_drop(tree: Path) -> None:
    (tree / f"{STEM}.mp4").unlink()
    (tree / f"{STEM}_groundtruth3D.txt").unlink()
    said = mine(read_all("upna", tree))
    assert {i: d.reason for i, d in said.drops.items()} == {SEQUENCE: "missing_label"}


def test_frames_that_do_not_decode_are_found_by_check_images(tree: Path) -> None:
    """The header says 24 frames; the data of the last ones is gone."""
    content = (tree / f"{STEM}.mp4").read_bytes()
    start, end = content.index(b"mdat"), content.rindex(b"moov")
    assert start < end
    hole = start + (end - start) // 2
    replace_file(tree / f"{STEM}.mp4", content[:hole] + bytes(end - 4 - hole) + content[end - 4 :])
    assert len(mine(read_all("upna", tree)).records) == FRAMES
    said = mine(read_all("upna", tree, thorough=True))
    assert len(said.records) + len(said.drops) == FRAMES
    assert all(d.reason == "frame_count_mismatch" for d in said.drops.values())


def test_a_video_of_another_size(tree: Path) -> None:
    writer = cv2.VideoWriter(str(tree / "small.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, (64, 48))
    for _ in range(3):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    (tree / "small.mp4").replace(tree / f"{STEM}.mp4")
    said = mine(read_all("upna", tree))
    assert {(r.image_width, r.image_height) for r in said.records.values()} == {(64, 48)}
    assert len(said.records) == 3 and len(said.drops) == FRAMES - 3


# Names


@pytest.mark.parametrize(
    "name", ["user_01_v05_yaw.mp4", "user_01_video_05.avi", "user_01_video_01_groundtruth3D_old.txt"]
)
def test_files_with_other_names_are_ignored(tree: Path, name: str) -> None:
    before = plain_all(read_items("upna", tree))
    (tree / "User_01" / name).write_bytes(b"1 2 3 4 5 6\n")
    (tree / "User_1").mkdir()
    assert plain_all(read_items("upna", tree)) == before


def test_labels_without_videos_are_recognised(tree: Path) -> None:
    for path in tree.rglob("*.mp4"):
        path.unlink()
    assert builder.recognise(Source(tree_at(tree)), "")
    shutil.rmtree(tree / "User_01")
    shutil.rmtree(tree / "User_02")
    assert not builder.recognise(Source(tree_at(tree)), "")


def test_any_number_of_users_and_videos(tmp_path: Path) -> None:
    upna_writer.write(tmp_path, (3, 10), (4, 12), frames=2)
    records = read_all("upna", tmp_path / "Head_Pose_Database_UPNA").records
    wanted = {f"upna/user_{u}/video_{v}" for u in ("03", "10") for v in ("04", "12")}
    assert {r.sequence_id for r in records.values()} == wanted
    assert {r.subject_id for r in records.values()} == {"upna/user_03", "upna/user_10"}


# Order and signs of the angles


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A longer recording without its image: labels and landmarks."""
    root = tmp_path_factory.mktemp("moving")
    upna_writer.write(root, (3,), (2,), frames=60, with_video=False)
    return root / "Head_Pose_Database_UPNA" / "User_03" / "user_03_video_02"


def checked(stem: Path, change: Callable[[np.ndarray], np.ndarray], suffix: str = "") -> list[str]:
    labels = change(np.loadtxt(f"{stem}_groundtruth3D{suffix}.txt"))
    points = np.loadtxt(f"{stem}_groundtruth2D.txt").reshape(len(labels), -1, 2)
    return [f"{'warning: ' if n.is_warning else ''}{n.text}" for n in builder._check_convention(labels, points)]


def test_each_video_that_moves_is_checked(tree: Path) -> None:
    assert [n.text for n in read_all("upna", tree).notes] == [AGREE, AGREE]
    assert [n.text for n in read_all("upna", tree, labels="zeroed").notes] == [AGREE, AGREE]


@pytest.mark.parametrize("suffix", ["", "_zeroed"])
def test_the_assumed_order_and_signs_agree(moving: Path, suffix: str) -> None:
    assert checked(moving, lambda v: v, suffix) == [AGREE]


@pytest.mark.parametrize("column", [3, 4, 5])
def test_an_inverted_sign_is_detected(moving: Path, column: int) -> None:
    (text,) = checked(moving, lambda v: np.where(np.arange(6) == column, -v, v))
    name = ("roll", "yaw", "pitch")[column - 3]
    assumed = {"roll": -1, "yaw": -1, "pitch": 1}
    assert text.startswith("warning: the 2-D landmarks fit the angles better as axes XYZ with signs ")
    for angle, sign in assumed.items():
        assert f"{angle} {-sign if angle == name else sign:+d}" in text


@pytest.mark.parametrize("order", [p for p in permutations((3, 4, 5)) if p != (3, 4, 5)])
def test_columns_in_another_order_are_detected(moving: Path, order: tuple[int, int, int]) -> None:
    (text,) = checked(moving, lambda v: v[:, [0, 1, 2, *order]])
    assert text.startswith("warning: ")


def test_another_order_of_axes_is_detected(moving: Path) -> None:
    """The same rotations, written as yaw first: no naming of columns, only the matrix tells."""
    from dataclasses import replace

    from scipy.spatial.transform import Rotation

    def rewritten(values: np.ndarray) -> np.ndarray:
        _, matrices = canonical_from_angles(values[:, 3:], "upna")
        yaw, pitch, roll = Rotation.from_matrix(matrices).as_euler("YXZ", degrees=True).T
        return np.column_stack([values[:, :3], -roll, -yaw, pitch])

    (text,) = checked(moving, rewritten)
    assert text.startswith("warning: ") and "axes YXZ with signs pitch +1, yaw -1, roll -1" in text
    convention = replace(builder._CONVENTION, axes="YXZ")
    labels = np.loadtxt(f"{moving}_groundtruth3D.txt")
    wanted = canonical_from_angles(labels[:, 3:], "upna")[1]
    np.testing.assert_allclose(canonical_from_angles(rewritten(labels)[:, 3:], convention)[1], wanted, atol=1e-9)


def test_landmarks_that_fit_no_convention_are_noted(moving: Path) -> None:
    labels = np.loadtxt(f"{moving}_groundtruth3D.txt")
    points = np.random.default_rng(0).uniform(0, 700, (len(labels), 54, 2))
    (note,) = builder._check_convention(labels, points)
    assert note.is_warning and "under no order and signs" in note.text


def test_a_head_that_turns_about_one_axis_gives_no_note(tmp_path: Path) -> None:
    """Video 5 is yaw alone: without the offset of the headband its order cannot be told."""
    upna_writer.write(tmp_path, (1,), (5,), frames=60, with_video=False)
    assert checked(tmp_path / "Head_Pose_Database_UPNA/User_01/user_01_video_05", lambda v: v, "_zeroed") == []


def test_too_few_rows_give_no_note(moving: Path) -> None:
    labels = np.loadtxt(f"{moving}_groundtruth3D.txt")
    labels[19:] = np.nan
    points = np.loadtxt(f"{moving}_groundtruth2D.txt").reshape(len(labels), -1, 2)
    assert list(builder._check_convention(labels, points)) == []
