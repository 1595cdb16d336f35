"""300W-LP: layout, quirks and angles as docs/sources.md has them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from trees_for_tests import angles_of, copied, plain, plain_all, read_all, read_items, replace_file, tree_at, tree_of

from ubhpd.builders import w300lp as builder
from ubhpd.core.rotation import mirror_euler
from ubhpd.raw.source import Source
from ubhpd.synth.writers.writer_files import mat_bytes

FIRST = "300wlp/AFW/AFW_134212_1_0"


@pytest.fixture
def tree(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the small tree: one photo per set, two views each, and their mirrored twins."""
    return copied(tree_of("300wlp", tmp_path_factory).root, tmp_path)


def loaded(tree: Path, sample_id: str) -> dict[str, Any]:
    found = scipy.io.loadmat(tree / f"{sample_id.removeprefix('300wlp/')}.mat")
    return {k: v for k, v in found.items() if not k.startswith("__")}


def pair(tree: Path, to: str) -> None:
    """Put a sample of another name into the tree, by links."""
    (tree / to).parent.mkdir(exist_ok=True)
    for suffix in (".jpg", ".mat"):
        os.link(tree / f"AFW/AFW_134212_1_0{suffix}", tree / f"{to}{suffix}")


def test_published_heads() -> None:
    assert builder.PUBLISHED == {
        "300wlp/AFW/": 5207, "300wlp/AFW_Flip/": 5207, "300wlp/HELEN/": 37676, "300wlp/HELEN_Flip/": 37676,
        "300wlp/IBUG/": 1786, "300wlp/IBUG_Flip/": 1786, "300wlp/LFPW/": 16556, "300wlp/LFPW_Flip/": 16556,
    }  # fmt: skip
    assert sum(builder.PUBLISHED.values()) == 122_450


def test_heads_beyond_99_degrees_are_mirrored_ones() -> None:
    assert len(builder.OUT_OF_RANGE) == 35 and 122_450 - 35 == 122_415
    folders = Counter(i.split("/")[1] for i in builder.OUT_OF_RANGE)
    assert folders == {"AFW_Flip": 5, "HELEN_Flip": 25, "IBUG_Flip": 2, "LFPW_Flip": 3}
    after = {"AFW_Flip": 5202, "HELEN_Flip": 37651, "IBUG_Flip": 1784, "LFPW_Flip": 16553}
    assert {f: builder.PUBLISHED[f"300wlp/{f}/"] - n for f, n in folders.items()} == after
    for known in ("AFW_Flip/AFW_2372995574_1_17", "HELEN_Flip/HELEN_3039563250_1_17", "IBUG_Flip/IBUG_image_110_01_9",
                  "LFPW_Flip/LFPW_image_test_0035_16"):  # fmt: skip
        assert f"300wlp/{known}" in builder.OUT_OF_RANGE
    assert all(builder._FILE.fullmatch(i.rpartition("/")[2] + ".mat") for i in builder.OUT_OF_RANGE)


def test_every_set_and_its_twin_is_read(tree: Path) -> None:
    records = read_all("300wlp", tree).records
    assert Counter(r.sequence_id for r in records.values()) == dict.fromkeys(
        (p.removesuffix("/") for p in builder.PUBLISHED), 2
    )
    assert all((r.image_width, r.image_height) == (450, 450) for r in records.values())


def test_a_stem_with_a_space(tree: Path) -> None:
    records = read_all("300wlp", tree).records
    record = records["300wlp/IBUG/IBUG_image_092 _01_0"]
    assert record.image_path == "IBUG/IBUG_image_092 _01_0.jpg" and record.source_photo == "300wlp/IBUG_image_092"
    assert records["300wlp/IBUG_Flip/IBUG_image_092 _01_1"].flip_of == "300wlp/IBUG/IBUG_image_092 _01_1"


def test_twins_mirror_each_other(tree: Path) -> None:
    records = read_all("300wlp", tree).records
    twins = {i: r for i, r in records.items() if r.flip_of}
    assert len(twins) == 8 and all("_Flip/" in i for i in twins)
    bad = [i for i, r in twins.items() if max(map(abs, angles_of(r))) > 99]
    assert len(bad) == 1  # the writer's counterpart of the 35
    for sample_id, record in twins.items():
        original = records[record.flip_of]
        assert original.flip_of is None and original.source_photo == record.source_photo
        assert sample_id in bad or np.allclose(angles_of(record), mirror_euler(angles_of(original)), atol=1e-5)


def test_views_of_a_photo_share_it_and_are_synthetic(tree: Path) -> None:
    for record in read_all("300wlp", tree).records.values():
        assert record.synthetic == record.sample_id.endswith("_1")
    groups = Counter(r.source_photo for r in read_all("300wlp", tree).records.values())
    assert len(groups) == 4 and set(groups.values()) == {4}


@pytest.mark.parametrize(
    ("stem", "photo"),
    [
        ("AFW/AFW_134212_2_17", "AFW_134212"),  # the second face of the photo
        ("HELEN/HELEN_100032540_2_3", "HELEN_100032540"),
        ("IBUG/IBUG_image_008_1_0", "IBUG_image_008"),
        ("IBUG/IBUG_image_110_01_9", "IBUG_image_110"),
        ("IBUG/IBUG_image_035_14", "IBUG_image_035"),
        ("LFPW/LFPW_image_train_0388_10", "LFPW_image_train_0388"),
        ("LFPW/LFPW_image_test_0035_16", "LFPW_image_test_0035"),
        ("LFPW_Flip/LFPW_image_test_0035_16", "LFPW_image_test_0035"),
    ],
)
def test_faces_and_views_name_their_photo(tree: Path, stem: str, photo: str) -> None:
    pair(tree, stem)
    record = read_all("300wlp", tree).records[f"300wlp/{stem}"]
    assert record.source_photo == f"300wlp/{photo}"
    assert record.synthetic == (not stem.endswith("_0"))


def test_landmarks_and_code_hold_no_samples(tree: Path) -> None:
    pair(tree, "Code/AFW_1_1_0")
    pair(tree, "landmarks/AFW_2_1_0")
    pair(tree, "AFW_Other/AFW_3_1_0")
    pair(tree, "AFW/noname_3_1_0")
    pair(tree, "AFW/AFW_3_1_0_pts")
    assert len(read_all("300wlp", tree).records) == 16
    source = Source(tree_at(tree))
    assert not any(builder.recognise(source, folder) for folder in ("landmarks", "Code", "AFW"))


def test_a_folder_with_landmarks_alone_is_not_recognised(tmp_path: Path) -> None:
    (tmp_path / "AFW").mkdir()
    (tmp_path / "AFW" / "AFW_134212_1_0_pts.mat").write_bytes(b"")
    assert not builder.recognise(Source(tree_at(tmp_path)), "")


def test_points_are_those_of_the_photo_for_every_view(tree: Path) -> None:
    records = read_all("300wlp", tree).records
    for sample_id, record in records.items():
        points = loaded(tree, sample_id)["pt2d"]
        np.testing.assert_array_equal(record.landmarks68, points.T.ravel())
        np.testing.assert_array_equal(record.bbox_xyxy, [*points.min(axis=1), *points.max(axis=1)])
        suffix = "_of_source_photo" if record.synthetic else ""
        assert record.bbox_kind == f"landmarks68{suffix}" and record.landmarks_kind == f"ibug68{suffix}"
    np.testing.assert_array_equal(records[FIRST].landmarks68, records[f"{FIRST[:-1]}1"].landmarks68)


def test_projected_points_are_those_of_the_warped_face(tree: Path) -> None:
    said = read_all("300wlp", tree, landmarks="projected")
    assert len(said.records) == 16 and not said.drops
    for record in said.records.values():
        if record.flip_of:  # there are no files for the mirrored ones
            continue
        pts = scipy.io.loadmat(tree / "landmarks" / f"{record.sample_id.removeprefix('300wlp/')}_pts.mat")["pts_2d"]
        np.testing.assert_array_equal(record.landmarks68, pts.ravel())
        np.testing.assert_array_equal(record.bbox_xyxy, [*pts.min(axis=0), *pts.max(axis=0)])
        assert (record.bbox_kind, record.landmarks_kind) == ("landmarks68", "ibug68")
    original, turned = (np.array(said.records[f"{FIRST[:-1]}{k}"].landmarks68) for k in (0, 1))
    assert np.abs(original - turned).max() > 1
    assert [angles_of(r) for r in said.records.values()] == [
        angles_of(r) for r in read_all("300wlp", tree).records.values()
    ]


def test_projected_points_of_mirrored_heads_are_those_of_their_twins_mirrored(tree: Path) -> None:
    said = read_all("300wlp", tree, landmarks="projected")
    flipped = [r for r in said.records.values() if r.flip_of]
    assert len(flipped) == 8
    for record in flipped:
        points = np.array(record.landmarks68).reshape(68, 2)
        twin = np.array(said.records[record.flip_of].landmarks68).reshape(68, 2)
        width = points[[36, 8, 48], 0] + twin[[45, 8, 54], 0]  # an eye corner, the chin, a corner of the mouth
        assert width == pytest.approx(width[0]) and points[[36, 8, 48], 1] == pytest.approx(twin[[45, 8, 54], 1])
        assert (record.bbox_kind, record.landmarks_kind) == ("landmarks68", "ibug68")
        if not record.synthetic:  # where the points of the photograph are those of the image
            np.testing.assert_allclose(points, loaded(tree, record.sample_id)["pt2d"].T, atol=1e-3)


def test_points_of_a_mirrored_head_that_are_no_mirror_image_refuse_it(tree: Path) -> None:
    path = tree / "AFW_Flip/AFW_134212_1_0.mat"
    label = loaded(tree, "300wlp/AFW_Flip/AFW_134212_1_0")
    label["pt2d"][0, 30] += 2
    replace_file(path, mat_bytes(label))
    (drop,) = read_all("300wlp", tree, landmarks="projected").drops.values()
    assert drop.reason == "bad_label" and "are not the mirror image of those in AFW/AFW_134212_1_0.mat" in drop.detail


def test_projected_points_of_mirrored_heads_are_taken_if_there_are_any(tree: Path) -> None:
    (tree / "landmarks" / "AFW_Flip").mkdir()
    points = np.arange(136.0).reshape(68, 2)
    (tree / "landmarks/AFW_Flip/AFW_134212_1_0_pts.mat").write_bytes(mat_bytes({"pts_2d": points, "pts_3d": points}))
    record = read_all("300wlp", tree, landmarks="projected").records["300wlp/AFW_Flip/AFW_134212_1_0"]
    np.testing.assert_array_equal(record.landmarks68, points.ravel())


@pytest.mark.parametrize("points", [np.zeros((68, 3)), np.zeros((2, 68)), np.full((68, 2), np.nan), None], ids=str)
def test_damaged_projected_points_refuse_the_head(tree: Path, points: Any) -> None:
    path = tree / "landmarks/AFW/AFW_134212_1_0_pts.mat"
    replace_file(path, mat_bytes({"pts_3d": np.zeros((68, 2))} if points is None else {"pts_2d": points}))
    said = read_all("300wlp", tree, landmarks="projected")
    assert set(said.drops) == {FIRST, FIRST.replace("AFW/", "AFW_Flip/")}  # and the twin that they would be mirrored to
    assert all(drop.reason == "bad_label" and path.name in drop.detail for drop in said.drops.values())


@pytest.mark.parametrize(
    "changes",
    [
        {"Pose_Para": None},
        {"pt2d": None},
        {"Pose_Para": np.zeros((7, 1))},
        {"Pose_Para": np.full((1, 7), np.nan, np.float32)},
        {"Pose_Para": np.array([[0, 0, np.inf, 0, 0, 0, 1]])},
        {"Pose_Para": np.array([[0, 1e307, 0, 0, 0, 0, 1]])},
        {"pt2d": np.zeros((2, 21))},
        {"pt2d": np.full((2, 68), np.nan)},
        {"pt2d": np.full((2, 68), -np.inf)},
        {"pt2d": np.zeros((68, 2))},
    ],
    ids=str,
)
def test_a_label_of_another_kind_is_refused(tree: Path, changes: dict[str, Any]) -> None:
    before = read_all("300wlp", tree).records
    kept = {k: v for k, v in {**loaded(tree, FIRST), **changes}.items() if v is not None}
    replace_file(tree / "AFW/AFW_134212_1_0.mat", mat_bytes(kept))
    said = read_all("300wlp", tree)
    (drop,) = said.drops.values()
    assert (drop.sample_id, drop.reason) == (FIRST, "bad_label") and "AFW/AFW_134212_1_0.mat" in drop.detail
    assert all(plain(r) == plain(before[i]) for i, r in said.records.items()) and len(said.records) == 15


def test_variables_in_another_order_or_type_are_read(tree: Path) -> None:
    before = read_all("300wlp", tree).records[FIRST]
    variables = loaded(tree, FIRST)
    turned = {k: variables[k] for k in sorted(variables, reverse=True)}
    turned["Pose_Para"] = turned["Pose_Para"].astype(np.float64)
    replace_file(tree / "AFW/AFW_134212_1_0.mat", mat_bytes(turned))
    assert plain(read_all("300wlp", tree).records[FIRST]) == plain(before)


def test_an_image_without_its_label_and_the_reverse(tree: Path) -> None:
    (tree / "AFW/AFW_134212_1_0.jpg").unlink()
    (tree / "AFW/AFW_134212_1_1.mat").unlink()
    said = read_all("300wlp", tree)
    assert {i: d.reason for i, d in said.drops.items()} == {
        FIRST: "missing_image",
        f"{FIRST[:-1]}1": "missing_label",
    }
    assert len(said.records) == 14


def test_part_of_the_sets_is_enough(tree: Path, tmp_path: Path) -> None:
    alone = tmp_path / "part"
    alone.mkdir()
    (tree / "HELEN_Flip").rename(alone / "HELEN_Flip")
    assert builder.recognise(Source(tree_at(alone)), "")
    assert len(read_all("300wlp", alone).records) == 2


def test_units_hold_2000_samples_of_one_folder(tmp_path: Path) -> None:
    for folder in ("LFPW", "AFW"):
        (tmp_path / folder).mkdir()
        for number in range(2001 if folder == "LFPW" else 1):
            (tmp_path / folder / f"{folder}_{number:05d}_1_0.mat").write_bytes(b"")
    units = builder.units(Source(tree_at(tmp_path)), builder.Options())
    assert [u.size for u in units] == [1, 2000, 1]
    assert [u.key for u in units] == ["AFW/AFW_00000_1_0", "LFPW/LFPW_00000_1_0", "LFPW/LFPW_02000_1_0"]


def test_angles_near_and_beyond_90_degrees_of_yaw_keep_their_triplet(tree: Path) -> None:
    for yaw in (1.5, np.pi / 2, 1.7):
        pose = np.array([[0.2, yaw, -0.3, 0, 0, 0, 1]])
        replace_file(tree / "AFW/AFW_134212_1_0.mat", mat_bytes({**loaded(tree, FIRST), "Pose_Para": pose}))
        record = read_all("300wlp", tree).records[FIRST]
        np.testing.assert_allclose(angles_of(record), np.degrees([yaw, 0.2, -0.3]), atol=1e-12)


def test_reading_twice_gives_the_same(tree: Path) -> None:
    """The reader of .mat files remembers places from file to file: no sample may depend on the one before."""
    together = {i: plain(r) for i, r in read_all("300wlp", tree).records.items()}
    assert plain_all(read_items("300wlp", tree)) == plain_all(read_items("300wlp", tree))
    for path in tree.glob("AFW/*_0.*"):
        path.unlink()
    assert plain(read_all("300wlp", tree).records[f"{FIRST[:-1]}1"]) == together[f"{FIRST[:-1]}1"]
