"""SynHead: layout, quirks and angles as docs/sources.md has them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trees_for_tests import angles_of, copied, plain, plain_all, read_all, read_items, replace_file, tree_at, tree_of

from ubhpd.builders import synhead as builder
from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import matrix_from_angles
from ubhpd.pool import sources
from ubhpd.pool.build import BuildConfig, build
from ubhpd.raw.source import Source
from ubhpd.synth.writers import biwi_writer, synhead_writer

TRACK = "synhead/BIWI/00/f01"


@pytest.fixture
def tree(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the small tree: five tracks of three frames, two heads."""
    return copied(tree_of("synhead", tmp_path_factory).root, tmp_path)


def test_published_heads_and_tracks() -> None:
    assert builder.TRACKS == {"BIWI": 24, "breitenstein": 26, "kinect": 5, "softkinetic": 15}
    assert sum(builder.TRACKS.values()) == 70
    assert builder.PUBLISHED == {"synhead/": 510_960, "synhead/BIWI/": 10 * 15_678}


def test_a_head_is_a_row_of_a_track_for_one_model(tree: Path) -> None:
    records = read_all("synhead", tree).records
    assert len(records) == 5 * 3 * 2
    record = records[f"{TRACK}/000002"]
    assert (record.subject_id, record.sequence_id, record.frame_index) == ("synhead/f01", TRACK, 2)
    assert (record.image_path, record.image_width, record.image_height) == ("BIWI/f01/00/2.png", 400, 400)
    assert record.synthetic and record.bbox_xyxy is None and record.landmarks68 is None
    other = records["synhead/BIWI/00/m01/000002"]
    assert angles_of(other) == angles_of(record) and other.subject_id == "synhead/m01"


def test_columns_by_hand(tree: Path) -> None:
    """pitch, yaw, roll in degrees, the yaw with the opposite sign of 300W-LP."""
    replace_file(tree / "BIWI/00.csv", b"1,2,3\n4,5,6\n7,8,9\n")
    record = read_all("synhead", tree).records[f"{TRACK}/000001"]
    np.testing.assert_allclose(angles_of(record), (-5, 4, 6), atol=1e-12)
    assert tuple(record.raw_angles) == (4, 5, 6) and record.raw_convention == "synhead"


def test_images_are_sorted_by_number_not_as_text(tmp_path: Path) -> None:
    truth = synhead_writer.write(tmp_path, {"kinect": (0,)}, ("f01",), frames=12, first_frame=8, distinct_images=1)
    said = read_all("synhead", tmp_path / "synhead2_release")
    assert [r.frame_index for r in said.records.values()] == list(range(8, 20)) and not said.notes
    for sample_id, pose in truth.items():
        np.testing.assert_allclose(angles_of(said.records[sample_id]), pose, atol=1e-6)


@pytest.mark.parametrize("form", ["{}.png", "{:05d}.png", "frame_{:03d}.png"])
def test_images_may_be_named_in_several_ways(tree: Path, form: str) -> None:
    before = {i: angles_of(r) for i, r in read_all("synhead", tree).records.items()}
    folder = tree / "BIWI/f01/00"
    for path in list(folder.iterdir()):
        path.rename(folder / f"new {path.name}")
    for path in list(folder.iterdir()):
        path.rename(folder / form.format(int(path.stem.removeprefix("new "))))
    said = read_all("synhead", tree)
    assert {i: angles_of(r) for i, r in said.records.items()} == before and not said.notes


@pytest.mark.parametrize("name", ["softkinetic", "softkinect"])
def test_both_names_of_the_fourth_folder(tree: Path, name: str) -> None:
    (tree / "softkinetic").rename(tree / name)
    assert f"synhead/{name}/00/f01/000000" in read_all("synhead", tree).records


def test_a_subset_of_heads_and_tracks_is_read(tree: Path) -> None:
    for folder in ("BIWI", "breitenstein", "softkinetic"):
        shutil.rmtree(tree / folder)
    shutil.rmtree(tree / "kinect/m01")
    assert set(read_all("synhead", tree).records) == {f"synhead/kinect/00/f01/{i:06d}" for i in range(3)}
    assert builder.recognise(Source(tree_at(tree)), "")


def test_other_folders_are_not_tracks(tree: Path) -> None:
    before = plain_all(read_items("synhead", tree))
    shutil.copytree(tree / "kinect", tree / "kinect2")
    shutil.copytree(tree / "kinect/f01", tree / "kinect/x01")
    (tree / "kinect/f01/masks").mkdir()
    assert plain_all(read_items("synhead", tree)) == before


# Pairing


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[:-1],
        lambda rows: [*rows, rows[-1]],
        lambda rows: [b"pitch,yaw,roll", *rows],  # there is no header: with one the rows do not fit
        lambda rows: [],
    ],
)
def test_a_csv_of_another_length_refuses_the_track(tree: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    before = read_all("synhead", tree).records
    lines = (tree / "BIWI/00.csv").read_bytes().splitlines()
    replace_file(tree / "BIWI/00.csv", b"".join(line + b"\n" for line in change(lines)))
    said = read_all("synhead", tree)
    assert {d.reason for d in said.drops.values()} == {"frame_count_mismatch"}
    assert set(said.drops) == {i for i in before if i.startswith("synhead/BIWI/00/")}
    assert all("BIWI/00.csv" in d.detail and "3 images" in d.detail for d in said.drops.values())
    assert all(plain(r) == plain(before[i]) for i, r in said.records.items())


def test_a_missing_or_extra_image_refuses_the_track_of_that_head(tree: Path) -> None:
    (tree / "BIWI/f01/00/1.png").unlink()
    shutil.copy(tree / "BIWI/m01/00/1.png", tree / "BIWI/m01/00/3.png")
    said = read_all("synhead", tree)
    assert {i: d.reason for i, d in said.drops.items()} == dict.fromkeys(
        [f"{TRACK}/000000", f"{TRACK}/000002", *(f"synhead/BIWI/00/m01/{i:06d}" for i in range(4))],
        "frame_count_mismatch",
    )
    assert len(said.records) == 30 - 6


def test_gaps_in_the_numbers_are_noted(tree: Path) -> None:
    (tree / "BIWI/f01/00/2.png").rename(tree / "BIWI/f01/00/7.png")
    said = read_all("synhead", tree)
    assert f"{TRACK}/000007" in said.records and not said.drops
    assert len(said.warnings) == 1 and "BIWI/f01/00" in said.warnings[0] and "gaps" in said.warnings[0]


def test_two_images_of_one_number(tree: Path) -> None:
    (tree / "BIWI/f01/00/2.png").rename(tree / "BIWI/f01/00/01.png")
    said = read_all("synhead", tree)  # which would fail on a name given twice
    assert {f"{TRACK}/000001", f"{TRACK}/000001#2"} <= set(said.records)
    assert len(said.warnings) == 1 and "gaps" in said.warnings[0]
    shutil.copy(tree / "BIWI/m01/00/2.png", tree / "BIWI/f01/00/002.png")
    assert {d.reason for d in read_all("synhead", tree).drops.values()} == {"frame_count_mismatch"}


def test_a_track_without_images_or_without_csv(tree: Path) -> None:
    shutil.rmtree(tree / "BIWI/f01/00")
    (tree / "kinect/00.csv").unlink()
    said = read_all("synhead", tree)
    assert said.drops[TRACK].reason == "frame_count_mismatch" and "0 images" in said.drops[TRACK].detail
    lost = {i: d.reason for i, d in said.drops.items() if i != TRACK}
    assert lost == {f"synhead/kinect/00/{h}/{i:06d}": "missing_label" for h in ("f01", "m01") for i in range(3)}


@pytest.mark.parametrize(
    "row", [b"1,2", b"", b"1,x,3", b"1,nan,3", b"1,2,inf", b"1 2 3", b"1;2;3", b"1,400,3", b"1,1_0,3", b"1,,2,3", b"\0"]
)
def test_a_bad_row_refuses_its_heads(tree: Path, row: bytes) -> None:
    before = read_all("synhead", tree).records
    lines = (tree / "BIWI/00.csv").read_bytes().splitlines()
    replace_file(tree / "BIWI/00.csv", b"\n".join((lines[0], row, lines[2], b"")))
    said = read_all("synhead", tree)
    if not row:  # a line less
        assert {d.reason for d in said.drops.values()} == {"frame_count_mismatch"} and len(said.drops) == 6
        return
    assert set(said.drops) == {f"synhead/BIWI/00/{h}/000001" for h in ("f01", "m01")}
    assert all(d.reason == "bad_label" and "BIWI/00.csv: line 2 " in d.detail for d in said.drops.values())
    assert all(plain(r) == plain(before[i]) for i, r in said.records.items())


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.replace(b"\n", b"\r\n"),
        lambda t: t.replace(b",", b" , "),
        lambda t: t.replace(b"\n", b",\n"),
        lambda t: t.replace(b"\n", b", 0.5\n"),  # more columns
        lambda t: t + b"\n\n",
    ],
)
def test_csv_with_other_white_space_and_line_ends(tree: Path, change: Callable[[bytes], bytes]) -> None:
    before = plain_all(read_items("synhead", tree))
    replace_file(tree / "BIWI/00.csv", change((tree / "BIWI/00.csv").read_bytes()))
    assert plain_all(read_items("synhead", tree)) == before


def test_every_truncation_of_a_csv(tree: Path) -> None:
    """However short: the track is refused, or its last row, or a remark says that it may be cut."""
    before = read_all("synhead", tree).records
    content = (tree / "BIWI/00.csv").read_bytes()
    remarks = 0
    for size in range(len(content)):
        replace_file(tree / "BIWI/00.csv", content[:size])
        said = read_all("synhead", tree)
        remarks += bool(said.warnings)
        for sample_id, record in said.records.items():
            may_differ = bool(said.warnings) and sample_id.startswith("synhead/BIWI/00/") and sample_id.endswith("2")
            assert angles_of(record) == angles_of(before[sample_id]) or may_differ, size
    assert 0 < remarks < 60


# Options


def test_columns_and_signs(tree: Path) -> None:
    replace_file(tree / "BIWI/00.csv", b"1,2,3\n4,5,6\n7,8,9\n")
    for columns in permutations(("pitch", "yaw", "roll")):
        for signs in product((1, -1), repeat=3):
            options = {"columns": ",".join(columns), "signs": "".join("+" if s > 0 else "-" for s in signs)}
            record = read_all("synhead", tree, **options).records[f"{TRACK}/000000"]
            stored = dict(zip(columns, (1, 2, 3), strict=True))
            pitch, yaw, roll = (stored[n] * s for n, s in zip(("pitch", "yaw", "roll"), signs, strict=True))
            np.testing.assert_allclose(angles_of(record), (yaw, pitch, roll), atol=1e-12)
            chosen = sources.options_for(sources.builders()["synhead"], options).convention
            assert record.raw_convention == chosen.name
            rebuilt = matrix_from_angles(record.raw_angles, chosen)
            np.testing.assert_allclose(np.reshape(record.rotation, (3, 3)), rebuilt, atol=1e-12)


@pytest.mark.parametrize(
    ("option", "value"), [("columns", "yaw,pitch"), ("columns", "a,b,c"), ("signs", "+-"), ("signs", "123")]
)
def test_impossible_choices(option: str, value: str) -> None:
    expected = re.escape(f"synhead.{option} cannot be '{value}': ") + "(choose from|did you mean) "
    with pytest.raises(UbhpdError, match=expected):
        sources.options_for(sources.builders()["synhead"], {option: value})


# Against BIWI


def poses(recordings: dict[int, np.ndarray], tracks: dict[str, np.ndarray]) -> Callable[[str], dict[str, np.ndarray]]:
    given = {"biwi": {f"biwi/{n:02d}": v for n, v in recordings.items()}, "synhead": tracks}
    return lambda dataset: given[dataset]


def motion(seed: int = 0, frames: int = 50) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, (30, 15, 10), (frames, 3)).cumsum(axis=0) / 5


def test_check_agrees_where_track_nn_is_recording_nn_plus_1() -> None:
    a, b = motion(1), motion(2)
    tracks = {"synhead/BIWI/00/f01": a, "synhead/BIWI/01/f01": b + 0.1, "synhead/kinect/00/f01": motion(3)}
    (note,) = builder.check(poses({1: a, 2: b}, tracks))
    assert note.text == "column order and signs agree with BIWI on 2 tracks" and not note.is_warning


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v * (-1, 1, 1), "yaw with BIWI's -yaw"),
        (lambda v: v * (1, 1, -1), "roll with BIWI's -roll"),
        (lambda v: v[:, [1, 0, 2]], "yaw with BIWI's pitch, pitch with BIWI's yaw"),
        (lambda v: v[:, [1, 2, 0]] * (1, -1, 1), "pitch with BIWI's -roll"),
    ],
)
def test_check_names_the_better_fit(change: Callable[[np.ndarray], np.ndarray], said: str) -> None:
    a = motion()
    (note,) = builder.check(poses({1: a}, {"synhead/BIWI/00/f01": change(a)}))
    assert note.is_warning and said in note.text and "-O synhead.columns" in note.text


@pytest.mark.parametrize(
    ("recordings", "tracks"),
    [
        ({}, {"synhead/BIWI/00/f01": motion()}),
        ({1: motion()}, {}),
        ({1: motion()}, {"synhead/BIWI/01/f01": motion()}),  # another recording
        ({1: motion()}, {"synhead/BIWI/00/f01": motion()[:-1]}),  # of another length
        ({1: motion()}, {"synhead/kinect/00/f01": motion()}),
    ],
)
def test_check_notes_when_it_is_not_possible(recordings: dict[int, np.ndarray], tracks: dict[str, np.ndarray]) -> None:
    (note,) = builder.check(poses(recordings, tracks))
    assert "no BIWI track could be compared" in note.text


def test_check_of_a_head_that_does_not_move() -> None:
    still = np.zeros((20, 3))
    (note,) = builder.check(poses({1: still}, {"synhead/BIWI/00/f01": still}))
    assert note.is_warning


@pytest.mark.parametrize(
    ("options", "word"), [({}, "agree with BIWI on 2 tracks"), ({"signs": "+++"}, "yaw with BIWI's -yaw")]
)
def test_a_build_of_both_checks_one_against_the_other(tmp_path: Path, options: dict[str, str], word: str) -> None:
    data = tmp_path / "data"
    recorded = biwi_writer.poses_by_sequence(
        biwi_writer.write(data, (1, 7), frames=30, with_depth=False, distinct_images=1)
    )
    synhead_writer.write(data, {}, ("f01",), poses=recorded, distinct_images=1)
    chosen: dict[str, Any] = {"synhead": options} if options else {}
    report = build(BuildConfig(("biwi", "synhead"), tmp_path / "out", str(data), options=chosen))
    assert report.datasets["biwi"].heads == report.datasets["synhead"].heads == 60
    listing, note = report.datasets["synhead"].notes
    assert "1 not used by this reader (background/a01.jpg)" in listing["text"]
    assert word in note["text"] and note["is_warning"] == bool(options)
    alone = build(BuildConfig(("synhead",), tmp_path / "alone", str(data), options=chosen))
    assert "no BIWI track" in alone.datasets["synhead"].notes[1]["text"]
