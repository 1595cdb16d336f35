"""AFLW2000-3D: layout, quirks and angles as docs/sources.md has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from trees_for_tests import angles_of, copied, plain, read_all, replace_file, tree_at, tree_of

from ubhpd.builders import aflw2000 as builder
from ubhpd.core.rotation import geodesic_deg, matrix_from_euler
from ubhpd.raw.source import Source
from ubhpd.synth.writers.writer_files import mat_bytes


@pytest.fixture
def tree(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tree_of("aflw2000", tmp_path_factory).root, tmp_path)


def stems(tree: Path) -> list[str]:
    return sorted(p.stem for p in tree.glob("image*.mat"))


def variables(tree: Path, stem: str) -> dict[str, Any]:
    loaded = scipy.io.loadmat(tree / f"{stem}.mat")
    return {k: v for k, v in loaded.items() if not k.startswith("__")}


def rewrite(tree: Path, stem: str, **changes: Any) -> None:
    """Write a .mat again with other variables; None leaves one out."""
    kept = {k: v for k, v in {**variables(tree, stem), **changes}.items() if v is not None}
    replace_file(tree / f"{stem}.mat", mat_bytes(kept))


def head(tree: Path, stem: str) -> Any:
    said = read_all("aflw2000", tree)
    return said.records.get(f"aflw2000/{stem}") or said.drops[f"aflw2000/{stem}"]


def test_published_heads_and_those_beyond_99_degrees() -> None:
    numbers = """00032 00088 00091 00139 00150 00179 00188 00260 00290 00339 00352 00392 00400 00450 00617 00734 00983
    01486 01530 01547 01845 01916 02000 02958 03123 03162 03173 03174 03273 03286 04157"""
    assert {f"aflw2000/image{n}" for n in numbers.split()} == builder.OUT_OF_RANGE
    assert builder.PUBLISHED == {"aflw2000/": 2000} and 2000 - len(builder.OUT_OF_RANGE) == 1969


def test_pitch_yaw_roll_in_radians_by_hand(tree: Path) -> None:
    """R = Rx(-pitch) Ry(-yaw) Rz(-roll); looking up, toward image-left, the image-right eye lower."""
    pose = np.array([[0.1, 0.2, 0.3, 0, 0, 0, 1e-3]])
    rewrite(tree, stems(tree)[0], Pose_Para=pose)
    record = head(tree, stems(tree)[0])
    np.testing.assert_allclose(angles_of(record), np.degrees([0.2, 0.1, 0.3]), atol=1e-12)
    assert tuple(record.raw_angles) == (0.1, 0.2, 0.3) and record.raw_convention == "300wlp"
    rotation = np.reshape(record.rotation, (3, 3))
    nose = rotation @ (0, 0, 1)  # frame C: x right, y up
    assert nose[0] < 0 < nose[1] and (rotation @ (1, 0, 0))[1] < 0


def is_hidden(points: Any) -> Any:
    return (points[0] == -1) & np.isin(points[1], (-1, 452))


def test_float64_parameters(tree: Path) -> None:
    stem = stems(tree)[3]
    stored = variables(tree, stem)["Pose_Para"]
    assert stored.dtype == np.float64
    np.testing.assert_array_equal(head(tree, stem).raw_angles, stored[0, :3])


@pytest.mark.parametrize("kind", [np.int16, np.uint16])
def test_integer_pt2d(tree: Path, kind: Any) -> None:
    """image00494, 03742 and 03772: -1 stays -1, that is no point; in an unsigned type there is none."""
    stem = stems(tree)[1]
    points = np.round(variables(tree, stem)["pt2d"]).astype(np.int16)
    if kind is np.uint16:
        points = np.abs(points)
    points[:, 5] = (300, 400) if kind is np.uint16 else (-1, -1)
    rewrite(tree, stem, pt2d=points.astype(kind))
    wanted = np.where(is_hidden(points), np.nan, points.astype(float))
    np.testing.assert_array_equal(head(tree, stem).landmarks21, wanted.T.ravel())
    assert np.isnan(wanted[:, 5]).all() == (kind is np.int16)


def test_pt2d_of_23_columns_gives_its_first_21(tree: Path) -> None:
    stem = stems(tree)[2]
    points = variables(tree, stem)["pt2d"]
    assert points.shape == (2, 23)
    wanted = np.where(is_hidden(points), np.nan, points)[:, :21]
    np.testing.assert_array_equal(head(tree, stem).landmarks21, wanted.T.ravel())
    notes = read_all("aflw2000", tree).notes
    assert [n for n in notes if "23 columns" in n.text and not n.is_warning] == notes and len(notes) == 1


def test_a_hidden_point_is_minus_one_or_has_a_flipped_y(tree: Path) -> None:
    """(-1, 452) is what stands in the real files of 450 rows; one coordinate alone is a point at the edge."""
    stem = stems(tree)[0]
    points = np.arange(42.0).reshape(2, 21)
    points[:, 3:9] = np.array([(-1, -1), (-1, 452), (-1, 7), (8, -1), (9, 452), (-1, 451)]).T
    rewrite(tree, stem, pt2d=points)
    found = np.reshape(head(tree, stem).landmarks21, (21, 2))
    assert np.isnan(found[3:5]).all()
    assert found[5:9].tolist() == [[-1, 7], [8, -1], [9, 452], [-1, 451]]
    assert np.isfinite(np.delete(found, [3, 4], axis=0)).all()


def test_landmarks_and_box_are_the_68_projected_points(tree: Path) -> None:
    for stem in stems(tree):
        points = variables(tree, stem)["pt3d_68"].astype(float)
        record = head(tree, stem)
        np.testing.assert_array_equal(record.landmarks68, points[:2].T.ravel())
        np.testing.assert_array_equal(record.bbox_xyxy, [*points[:2].min(axis=1), *points[:2].max(axis=1)])
        assert (record.bbox_kind, record.landmarks_kind) == ("landmarks68", "fitted_3d")
        assert record.source_photo == f"aflw/{stem}" and (record.image_width, record.image_height) == (450, 450)


def test_implausible_angles_and_a_negative_scale_are_kept(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    stem = stems(tree)[5]
    assert variables(tree, stem)["Pose_Para"][0, 6] < 0
    record = head(tree, stem)
    assert record.pitch_deg == pytest.approx(893.7, abs=1e-4) and record.drop_reason is None
    wanted = matrix_from_euler(tree_of("aflw2000", tmp_path_factory).truth[record.sample_id])
    assert geodesic_deg(np.reshape(record.rotation, (3, 3)), wanted) < 1e-4


def test_models_in_code_are_not_samples(tree: Path) -> None:
    assert (tree / "Code" / "Model_Shape_Sim.mat").is_file()
    (tree / "Code" / "image00777.mat").write_bytes(b"model")
    (tree / "image0077.mat").write_bytes(b"")
    (tree / "image000777.jpg").write_bytes(b"")
    (tree / "image00777.png").write_bytes(b"")
    assert set(read_all("aflw2000", tree).records) == {f"aflw2000/{s}" for s in stems(tree) if len(s) == 10}
    (unit,) = builder.units(Source(tree_at(tree)), builder.Options())
    assert unit.size == 8 and not any("Code" in p for p in unit.paths)


def test_a_folder_of_images_alone_is_not_this_dataset(tmp_path: Path) -> None:
    """AFLW's own images have the same names."""
    (tmp_path / "image00002.jpg").write_bytes(b"")
    assert not builder.recognise(Source(tree_at(tmp_path)), "")
    (tmp_path / "image00002.mat").write_bytes(b"")
    assert builder.recognise(Source(tree_at(tmp_path)), "")


def test_an_image_without_its_label_and_the_reverse(tree: Path) -> None:
    first, second = stems(tree)[:2]
    (tree / f"{first}.jpg").unlink()
    (tree / f"{second}.mat").unlink()
    said = read_all("aflw2000", tree)
    assert {i: d.reason for i, d in said.drops.items()} == {
        f"aflw2000/{first}": "missing_image",
        f"aflw2000/{second}": "missing_label",
    }
    assert len(said.records) == 6


@pytest.mark.parametrize(
    "changes",
    [
        {"Pose_Para": None},
        {"pt2d": None},
        {"pt3d_68": None},
        {"Pose_Para": np.zeros((7, 1))},
        {"Pose_Para": np.zeros((1, 6))},
        {"Pose_Para": np.full((1, 7), np.nan)},
        {"Pose_Para": np.array([[np.inf, 0, 0, 0, 0, 0, 1]])},
        {"Pose_Para": np.array([[1e300, 0, 0, 0, 0, 0, 1]])},
        {"Pose_Para": "pose"},
        {"Pose_Para": np.zeros((1, 7), dtype=complex) + 1j},
        {"pt2d": np.zeros((2, 22))},
        {"pt2d": np.zeros((2, 68))},
        {"pt2d": np.full((2, 21), np.inf)},
        {"pt3d_68": np.zeros((68, 3))},
        {"pt3d_68": np.full((3, 68), np.nan)},
    ],
    ids=str,
)
def test_a_label_of_another_kind_is_refused(tree: Path, changes: dict[str, Any]) -> None:
    stem = stems(tree)[0]
    before = read_all("aflw2000", tree).records
    rewrite(tree, stem, **changes)
    said = read_all("aflw2000", tree)
    (drop,) = said.drops.values()
    assert (drop.sample_id, drop.reason) == (f"aflw2000/{stem}", "bad_label") and f"{stem}.mat" in drop.detail
    assert all(plain(r) == plain(before[i]) for i, r in said.records.items()) and len(said.records) == 7


@pytest.mark.parametrize("size", [1, 4, 127, 128, 129, 136, 500, 3000, -1, -8, -100])
def test_a_truncated_label_is_refused(tree: Path, size: int) -> None:
    stem = stems(tree)[0]
    content = (tree / f"{stem}.mat").read_bytes()
    replace_file(tree / f"{stem}.mat", content[:size])
    assert head(tree, stem).reason == "bad_label"


@pytest.mark.parametrize(
    "content", [b"<html><body>quota</body></html>", b"MATLAB 7.3 MAT-file, Platform: PCWIN64" + bytes(600), b"\x89HDF"]
)
def test_a_file_of_another_format_is_refused(tree: Path, content: bytes) -> None:
    stem = stems(tree)[0]
    replace_file(tree / f"{stem}.mat", content)
    assert head(tree, stem).reason == "bad_label"


def test_units_hold_1000_samples(tmp_path: Path) -> None:
    for number in range(1001):
        (tmp_path / f"image{number:05d}.mat").write_bytes(b"")
    units = builder.units(Source(tree_at(tmp_path)), builder.Options())
    assert [(u.size, u.items[0]) for u in units] == [(1000, "image00000"), (1, "image01000")]
