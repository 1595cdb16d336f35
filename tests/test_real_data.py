"""The published files themselves: AFLW2000-3D, whole or in part, 28 heads of 300W-LP, 11 of BIWI, against tables."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.io
from realdata import REAL, needs
from trees_for_tests import angles_of, plain_all, read_all, read_items

from ubhpd.builders import aflw2000, biwi
from ubhpd.core.records import Record
from ubhpd.core.rotation import geodesic_deg, matrix_from_angles, orthonormality_error
from ubhpd.pool.build import BuildConfig, build

TOLERANCE_DEG = 1e-3  # the tables have five decimals


def labels(name: str) -> list[dict[str, str]]:
    with open(REAL / "labels" / f"{name}_labels.csv", newline="") as file:
        return list(csv.DictReader(file))


def pose(row: dict[str, str]) -> list[float]:
    return [float(row[name]) for name in ("yaw", "pitch", "roll")]


def assert_sound(record: Record, root: Path) -> None:
    assert (root / record.image_path).is_file()
    assert orthonormality_error(np.reshape(record.rotation, (3, 3))) < 1e-5


def aflw2000_heads() -> int:
    return len(list((REAL / "AFLW2000").glob("image*.jpg")))


@needs("AFLW2000")
@needs("labels/aflw2000_labels.csv")
def test_aflw2000_equals_its_table() -> None:
    said = read_all("aflw2000", REAL / "AFLW2000")
    assert len(said.records) == aflw2000_heads() and not said.drops and not said.warnings
    table = {f"aflw2000/{row['name']}": pose(row) for row in labels("aflw2000")}
    assert set(said.records) <= set(table)
    for sample_id, record in said.records.items():
        np.testing.assert_allclose(angles_of(record), table[sample_id], atol=TOLERANCE_DEG)
        assert (record.image_width, record.image_height) == (450, 450)
        assert_sound(record, REAL / "AFLW2000")


@needs("AFLW2000")
def test_aflw2000_beyond_99_degrees_are_the_published_ones() -> None:
    records = read_all("aflw2000", REAL / "AFLW2000").records
    beyond = {i for i, r in records.items() if max(map(abs, angles_of(r))) > 99}
    assert beyond == aflw2000.OUT_OF_RANGE & set(records) and beyond
    absurd = records.get("aflw2000/image04157")
    assert absurd is None or absurd.pitch_deg == pytest.approx(893.7, abs=0.1)


@needs("labels/aflw2000_labels.csv")
def test_aflw2000_table_has_the_31_published_ones() -> None:
    rows = labels("aflw2000")
    beyond = {f"aflw2000/{row['name']}" for row in rows if max(map(abs, pose(row))) > 99}
    assert len(rows) == 2000 and beyond == aflw2000.OUT_OF_RANGE


@needs("AFLW2000")
def test_aflw2000_peculiar_files_are_read() -> None:
    records = read_all("aflw2000", REAL / "AFLW2000").records
    seen = 0
    for stem in ("image00494", "image03742", "image03772", "image01198", "image02899", "image03189", "image02156"):
        path = REAL / "AFLW2000" / f"{stem}.mat"
        if path.is_file():
            seen += 1
            points = scipy.io.loadmat(path)["pt2d"].astype(np.float64)[:, :21]
            wanted = np.where((points.T == (-1, 452)).all(axis=1), np.nan, points).T.ravel()
            np.testing.assert_array_equal(records[f"aflw2000/{stem}"].landmarks21, wanted)
    assert seen, "no file with integer or wide pt2d is here"


@needs("AFLW2000")
def test_aflw2000_hidden_points_are_no_points() -> None:
    """AFLW's (-1, -1) with y turned round; one left in would stand at the lower left corner."""
    hidden = 0
    for record in read_all("aflw2000", REAL / "AFLW2000").records.values():
        stored = scipy.io.loadmat(REAL / "AFLW2000" / f"{record.sample_id.partition('/')[2]}.mat")["pt2d"].T[:21]
        gone = np.isnan(np.reshape(record.landmarks21, (21, 2))).all(axis=1)
        np.testing.assert_array_equal(gone, (stored.astype(float) == (-1, 452)).all(axis=1))
        hidden += gone.any()
    assert hidden > 300


@needs("AFLW2000")
def test_aflw2000_box_and_points_lie_on_the_face() -> None:
    """AFLW's own points and the fitted ones are of one face, so the ones are in the box of the others."""
    inside = []
    for record in read_all("aflw2000", REAL / "AFLW2000").records.values():
        if max(map(abs, angles_of(record))) > 99:
            continue
        points = np.reshape(record.landmarks21, (21, 2))
        left, top, right, bottom = record.bbox_xyxy
        room = 0.25 * max(right - left, bottom - top)
        seen = points[np.isfinite(points).all(axis=1)]
        within = (seen > (left - room, top - room)) & (seen < (right + room, bottom + room))
        inside.append(within.all(axis=1).mean())
    assert np.mean(inside) > 0.95


@needs("300W_LP")
def test_300wlp_files() -> None:
    said = read_all("300wlp", REAL / "300W_LP")
    assert len(said.records) == 28 and not said.drops and not said.notes
    for record in said.records.values():
        path = REAL / "300W_LP" / record.image_path.replace(".jpg", ".mat")
        stored = scipy.io.loadmat(path)
        pitch, yaw, roll = np.degrees(stored["Pose_Para"][0, :3].astype(np.float64))
        np.testing.assert_allclose(angles_of(record), (yaw, pitch, roll), atol=1e-9)
        np.testing.assert_array_equal(record.landmarks68, stored["pt2d"].T.ravel())
        assert record.synthetic == (not record.sample_id.endswith("_0")) and record.flip_of is None
        assert (record.image_width, record.image_height) == (450, 450)
        assert_sound(record, REAL / "300W_LP")
    by_photo = {r.source_photo for r in said.records.values()}
    assert {"300wlp/AFW_134212", "300wlp/AFW_261068"} <= by_photo and len(by_photo) == 4


@needs("300W_LP")
def test_300wlp_views_turn_farther_from_the_photo() -> None:
    records = read_all("300wlp", REAL / "300W_LP").records
    views = [records[f"300wlp/AFW/AFW_134212_1_{k}"] for k in range(13)]
    yaws = [abs(v.yaw_deg) for v in views]
    assert yaws == sorted(yaws) and yaws[-1] > 60
    assert all(np.array_equal(v.landmarks68, views[0].landmarks68) for v in views)  # those of the photo


@needs("BIWI/hpdb")
@needs("labels/biwi_labels.csv")
def test_biwi_equals_its_table() -> None:
    said = read_all("biwi", REAL / "BIWI" / "hpdb")
    table = {f"biwi/{r['sequence']}/frame_{int(r['frame']):05d}": r for r in labels("biwi")}
    assert len(said.records) == 11 and set(said.records) <= set(table) and not said.drops and not said.notes
    for sample_id, record in said.records.items():
        row = table[sample_id]
        np.testing.assert_allclose(angles_of(record), pose(row), atol=TOLERANCE_DEG)
        assert (record.subject_id, record.frame_index) == (f"biwi/{row['subject']}", int(row["frame"]))
        assert (record.image_width, record.image_height) == (640, 480)
        assert_sound(record, REAL / "BIWI" / "hpdb")


@needs("labels/biwi_labels.csv")
def test_biwi_table_has_the_published_frames_and_people() -> None:
    rows = labels("biwi")
    assert Counter(f"biwi/{row['sequence']}/" for row in rows) == biwi.PUBLISHED
    assert {row["sequence"]: row["subject"] for row in rows} == biwi.SUBJECTS
    assert max(max(map(abs, pose(row))) for row in rows) < 99  # no frame is lost to the limit
    depths = [float(row["centre_z_mm"]) for row in rows]
    assert biwi._RANGE_MM[0] * 1.5 < min(depths) < max(depths) < biwi._RANGE_MM[1] / 1.5


@needs("BIWI/hpdb")
def test_biwi_labels_of_both_kinds_are_there() -> None:
    """One frame has its text, ten have the binary alone."""
    records = read_all("biwi", REAL / "BIWI" / "hpdb").records.values()
    assert sorted(str(r.raw_convention) for r in records) == ["None", *["biwi_bin"] * 10]
    for record in records:
        if record.raw_angles is not None:
            rebuilt = matrix_from_angles(record.raw_angles, record.raw_convention)
            np.testing.assert_allclose(np.reshape(record.rotation, (3, 3)), rebuilt, atol=1e-12)


@needs("BIWI/hpdb")
def test_biwi_rgb_frame_differs_by_the_turn_between_the_cameras() -> None:
    depth, rgb = (read_all("biwi", REAL / "BIWI" / "hpdb", frame=f).records for f in ("depth", "rgb"))
    for sample_id, record in depth.items():
        turn = geodesic_deg(np.reshape(record.rotation, (3, 3)), np.reshape(rgb[sample_id].rotation, (3, 3)))
        assert turn == pytest.approx(np.linalg.norm((-0.863, 0.531, -0.252)), abs=2e-3)


@needs("BIWI/hpdb")
@needs("labels/biwi_labels.csv")
def test_biwi_box_is_that_of_every_vertex_of_the_template(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = read_all("biwi", REAL / "BIWI" / "hpdb").records
    monkeypatch.setattr(biwi, "_VERTEX_STEP", 1)
    monkeypatch.setattr(biwi, "_DIRECTIONS", 1_000)
    for sample_id, record in read_all("biwi", REAL / "BIWI" / "hpdb").records.items():
        np.testing.assert_allclose(quick[sample_id].bbox_xyxy, record.bbox_xyxy, atol=1.0)
        left, top, right, bottom = record.bbox_xyxy
        assert 0 < left < right < 640 and 0 < top < bottom < 480
        assert 60 < right - left < 180 and 90 < bottom - top < 250  # a head a metre away


@needs("BIWI/hpdb")
def test_biwi_box_lies_on_the_colours_of_the_person() -> None:
    """The background of the depth image is empty: within the box, moved to its camera, it is not."""
    said = read_all("biwi", REAL / "BIWI" / "hpdb")
    record = said.records["biwi/01/frame_00003"]
    depth = depth_image(REAL / "BIWI" / "hpdb" / "01" / "frame_00003_depth.bin")
    left, top, right, bottom = (int(v) for v in record.bbox_xyxy)
    # From one camera to the other: focal lengths 575.8 and 517.7, and 24 mm, at a metre some 15 pixels.
    scale = 575.816 / 517.679
    columns = slice(int(320 + (left - 320) * scale), int(320 + (right - 320) * scale) + 15)
    inside = depth[int(240 + (top - 240) * scale) : int(240 + (bottom - 240) * scale), columns]
    assert (inside > 0).mean() > 0.5 > (depth > 0).mean()


def depth_image(path: Path) -> Any:
    data = path.read_bytes()
    width, height = np.frombuffer(data, "<i4", 2)
    pixels: list[Any] = []
    position = 8
    while sum(map(len, pixels)) < width * height:
        empty, full = np.frombuffer(data, "<i4", 2, position)
        pixels += [np.zeros(empty, np.int16), np.frombuffer(data, "<i2", full, position + 8)]
        position += 8 + 2 * int(full)
    return np.concatenate(pixels).reshape(height, width)


@needs("AFLW2000")
@needs("300W_LP")
@needs("BIWI/hpdb")
@pytest.mark.parametrize(("name", "folder"), [("aflw2000", "AFLW2000"), ("300wlp", "300W_LP"), ("biwi", "BIWI/hpdb")])
def test_every_image_decodes(name: str, folder: str) -> None:
    assert plain_all(read_items(name, REAL / folder, thorough=True)) == plain_all(read_items(name, REAL / folder))


@needs("AFLW2000")
@needs("300W_LP")
@needs("BIWI/hpdb")
@needs("labels/aflw2000_labels.csv")
def test_build_of_all_three(tmp_path: Path) -> None:
    report = build(BuildConfig(("aflw2000", "300wlp", "biwi"), tmp_path, str(REAL)))
    count = aflw2000_heads()
    assert {n: d.heads for n, d in report.datasets.items()} == {"aflw2000": count, "300wlp": 28, "biwi": 11}
    pool = pq.read_table(tmp_path / "pool.parquet").to_pandas()
    assert len(pool) == count + 39 == pool.sample_id.nunique()
    tables = {f"aflw2000/{row['name']}": pose(row) for row in labels("aflw2000")}
    tables |= {f"biwi/{r['sequence']}/frame_{int(r['frame']):05d}": pose(r) for r in labels("biwi")}
    known = pool[pool.dataset != "300wlp"]
    assert len(known) == count + 11
    found = known[["yaw_deg", "pitch_deg", "roll_deg"]].to_numpy()
    np.testing.assert_allclose(found, [tables[i] for i in known.sample_id], atol=TOLERANCE_DEG)
    dropped = pool[pool.drop_reason.notna()]
    assert set(dropped.drop_reason) == {"beyond_max_angle"}
    here = {i for i in aflw2000.OUT_OF_RANGE if (REAL / "AFLW2000" / f"{i.partition('/')[2]}.mat").is_file()}
    assert set(dropped.sample_id) == here
    assert report.datasets["aflw2000"].dropped == {"beyond_max_angle": len(here)}
