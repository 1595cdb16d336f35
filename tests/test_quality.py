"""Automatic checks: what is planted is flagged with the right code and number, and good heads are left alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ubhpd import manifest
from ubhpd.core.records import Record
from ubhpd.core.rotation import geodesic_deg, matrix_from_euler
from ubhpd.manifest.schema import fingerprint, table_from_records
from ubhpd.pool.build import BuildConfig, build
from ubhpd.quality import checks
from ubhpd.quality.checks import FLAGS, Thresholds, check, check_manifest, write_flags
from ubhpd.synth.rendered_heads import weak_view
from ubhpd.synth.renderer.shape import landmarks21, landmarks68
from ubhpd.synth.writers import aflw2000_writer, aflw_writer, w300lp_writer


def record(name="d/1", ypr=(10.0, 5.0, -3.0), **more):
    """A head that nothing is wrong with: its landmarks are those of its pose."""
    rotation = matrix_from_euler(ypr)
    points = weak_view(rotation, 1.0, (200.0, 150.0)).project(landmarks68())[:, :2]
    box = (*points.min(axis=0), *points.max(axis=0))
    good = Record(name, f"{name}.jpg", 400, 300, *ypr, rotation.ravel(), bbox_xyxy=box, bbox_kind="landmarks68",
                  landmarks68=points.ravel(), landmarks_kind="fitted_3d", source_photo=name)  # fmt: skip
    return good._replace(**more)


def flags(*records, thresholds=None):
    """What was flagged: [(sample_id, flag)], and the rows."""
    rows = check(table_from_records("d", records), thresholds).to_pylist()
    return [(r["sample_id"], r["flag"]) for r in rows], rows


def test_good_heads_are_left_alone():
    assert flags(*(record(f"d/{i}", (i * 7.0 - 60, i - 8.0, 20.0 - 2 * i)) for i in range(18)))[0] == []
    assert flags()[0] == []


PLANTED = {
    "angle_out_of_range": ({"roll_deg": 459.0, "ypr": None}, 459.0),
    "rotation_mismatch": ({"yaw_deg": 12.0}, 2.0),
    "box_degenerate": ({"bbox_xyxy": (10.0, 10.0, 300.0, 12.5)}, 2.5),
    "box_outside": ({"bbox_xyxy": (-100.0, 0.0, 100.0, 300.0)}, 0.5),
    "landmarks_outside": ({"image_width": 190}, None),
    "pose_mismatch": ({"turn": (90.0, 5.0, -3.0)}, 80.0),
}


@pytest.mark.parametrize("flag", PLANTED)
def test_what_is_planted_is_flagged(flag):
    change, value = PLANTED[flag]
    change = dict(change)
    if turn := change.pop("turn", None):
        yaw, pitch, roll = turn
        change = {"yaw_deg": yaw, "pitch_deg": pitch, "roll_deg": roll, "rotation": matrix_from_euler(turn).ravel()}
    if "ypr" in change:
        change = {"roll_deg": 459.0, "rotation": matrix_from_euler((10.0, 5.0, 459.0)).ravel(), "landmarks_kind": None}
    if flag == "landmarks_outside":
        change["bbox_xyxy"] = (120.0, 100.0, 190.0, 200.0)
    found, rows = flags(record("d/0"), record("d/1", **change), record("d/2"))
    assert found == [("d/1", flag)]
    assert value is None or rows[0]["value"] == pytest.approx(value, rel=0.03)
    assert rows[0]["detail"].endswith(".") and FLAGS[flag]


def test_an_inverted_or_missing_number_is_flagged():
    assert flags(record(bbox_xyxy=(100.0, 200.0, 50.0, 260.0)))[0] == [("d/1", "box_degenerate")]
    assert flags(record(bbox_xyxy=(np.nan, 0.0, 50.0, 60.0)))[0] == [("d/1", "box_degenerate")]
    assert ("d/1", "angle_out_of_range") in flags(record(yaw_deg=None))[0]


def test_a_head_without_box_image_size_or_landmarks_is_no_suspect():
    assert (
        flags(record(bbox_xyxy=None, image_width=None, image_height=None, landmarks68=None, landmarks_kind=None))[0]
        == []
    )


def test_limits_themselves_are_inside_and_can_be_moved():
    head = record(bbox_xyxy=(-100.0, 0.0, 100.0, 300.0))
    assert flags(head, thresholds=Thresholds(max_box_outside=0.5))[0] == []
    assert flags(head, thresholds=Thresholds(max_box_outside=0.49))[0] == [("d/1", "box_outside")]


def test_landmarks_of_the_source_photo_are_not_held_against_a_warped_head():
    turned = matrix_from_euler((80.0, 5.0, -3.0)).ravel()
    warped = record(
        yaw_deg=80.0, rotation=turned, image_width=190, landmarks_kind="ibug68_of_source_photo", bbox_xyxy=None
    )
    assert flags(warped)[0] == []
    assert len(flags(warped._replace(landmarks_kind="ibug68"))[0]) == 2


def test_refused_heads_are_left_out_but_not_those_refused_from_here():
    bad = record(bbox_xyxy=(0.0, 0.0, 1.0, 1.0))
    assert flags(bad._replace(drop_reason="bad_image"))[0] == []
    assert flags(bad._replace(drop_reason="flagged"))[0] == [("d/1", "box_degenerate")]


def test_duplicates():
    one, two = record("d/1", image_path="a.jpg"), record("d/2", image_path="a.jpg")
    found, rows = flags(one, two, record("d/3"))
    assert found == [("d/2", "duplicate")] and rows[0]["value"] == 1 and "d/1" in rows[0]["detail"]
    moved = [two._replace(bbox_xyxy=tuple(np.array(one.bbox_xyxy) + shift)) for shift in (2.0, 60.0)]
    assert flags(one, moved[0])[0] == [("d/2", "duplicate")]
    assert flags(one, moved[1])[0] == []
    frames = [h._replace(frame_index=i) for i, h in enumerate((one, two))]
    assert flags(*(h._replace(source_photo=None) for h in frames))[0] == []
    # The same box of one photograph under two names; of a warped view the box is that of the photograph by design.
    other_file = two._replace(image_path="b.jpg", source_photo=one.source_photo)
    assert flags(one, other_file)[0] == [("d/2", "duplicate")]
    assert flags(one, other_file._replace(bbox_kind="landmarks68_of_source_photo"))[0] == []


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_the_pose_of_projected_landmarks_is_found(seed, few):
    rng = np.random.default_rng(seed)
    rotation = matrix_from_euler(rng.uniform((-85, -50, -60), (85, 50, 60)))
    face = landmarks21() if few else landmarks68()
    points = weak_view(rotation, rng.uniform(0.02, 3), (220, 230)).project(face)[:, :2]
    found = checks.fit(points[None])
    assert geodesic_deg(found.rotation[0], rotation) < 4 and found.residual[0] < 0.02


def test_landmarks_without_a_pose_give_none():
    line = np.linspace(0, 100, 68)
    points = np.stack([np.stack([line, line], 1), np.full((68, 2), np.nan), np.full((68, 2), 7.0)])
    found = checks.fit(points)
    assert np.isnan(found.rotation[1:]).all() and np.isnan(found.residual[1:]).all()


def test_a_constant_offset_is_taken_out_and_outliers_do_not_move_it():
    rng = np.random.default_rng(1)
    labels = matrix_from_euler(rng.normal(0, 25, (300, 3)))
    offset = matrix_from_euler((4.0, -12.0, 3.0))
    fitted = labels @ offset.T
    fitted[:20] = matrix_from_euler(rng.uniform(-90, 90, (20, 3)))
    assert geodesic_deg(checks.without_offset(fitted, labels), labels)[20:].max() < 1.5
    assert np.array_equal(checks.without_offset(fitted[:30], labels[:30]), fitted[:30])


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    root = tmp_path_factory.mktemp("built")
    aflw_writer.write(root / "raw", 120, seed=2)
    aflw2000_writer.write(root / "raw", 60, seed=5)
    w300lp_writer.write(root / "raw", 60, seed=3, bad_flips=2)
    build(BuildConfig(("aflw", "aflw2000", "300wlp"), root / "out", str(root / "raw")))
    return root / "out"


def test_generated_datasets_agree_with_their_landmarks(out):
    every = check(manifest.read(out / "pool.parquet"), Thresholds(max_pose_mismatch_deg=0.0)).to_pandas()
    off = every[every.flag == "pose_mismatch"]
    assert {s.split("/")[0] for s in off.sample_id} == {"aflw", "aflw2000", "300wlp"}
    assert off.value.max() < 25 and len(off) > 150
    usual = check(manifest.read(out / "pool.parquet"))
    assert set(usual.column("flag").to_pylist()) <= {"box_outside", "landmarks_outside"}


def test_a_wrong_label_among_good_ones_is_found(out):
    table = manifest.read(out / "pool.parquet").to_pylist()
    victim = next(r for r in table if r["dataset"] == "aflw" and r["drop_reason"] is None and abs(r["yaw_deg"]) > 40)
    heads = [Record(**{k: v for k, v in r.items() if k != "dataset"}) for r in table]
    ypr = (-victim["yaw_deg"], victim["pitch_deg"], victim["roll_deg"])
    heads = [
        h._replace(yaw_deg=ypr[0], rotation=matrix_from_euler(ypr).ravel()) if h.sample_id == victim["sample_id"] else h
        for h in heads
    ]
    found = check(table_from_records("d", heads)).to_pandas()
    assert found[found.flag == "pose_mismatch"].sample_id.tolist() == [victim["sample_id"]]


def test_batches_and_a_whole_table_give_the_same(out):
    table = manifest.read(out / "pool.parquet")
    limits = Thresholds(max_pose_mismatch_deg=5.0)
    whole = check(table, limits)
    assert check(iter(table.combine_chunks().to_batches(7)), limits).equals(whole)
    order = [table.column("sample_id").to_pylist().index(s) for s in whole.column("sample_id").to_pylist()]
    assert order == sorted(order) and whole.schema == checks.RESULT


def test_flags_are_kept_with_the_manifest_and_made_anew_for_another(out, tmp_path):
    path = out / "pool.parquet"
    told = []
    first = check_manifest(path)
    kept = list((out / "work").glob("flags-*.parquet"))
    assert len(kept) == 1 and check_manifest(path).equals(first)
    check_manifest(path, Thresholds(min_box_px=500.0))
    assert len(list((out / "work").glob("flags-*.parquet"))) == 2
    write_flags(first, tmp_path / "flags.csv")
    assert (tmp_path / "flags.csv").read_text().splitlines()[0].replace('"', "") == "sample_id,flag,value,detail"
    check(manifest.read(path), advance=told.append)
    assert sum(told) == manifest.header(path).rows
    assert fingerprint([manifest.read(path)]) == manifest.header(path).fingerprint


def test_the_rough_face_is_the_mean_face_of_the_renderer():
    """The checks read it from a file, so that they need no renderer."""
    np.testing.assert_allclose(checks.rough_face(68), landmarks68(), atol=1e-9)
    np.testing.assert_allclose(checks.rough_face(21), landmarks21(), atol=1e-9)
