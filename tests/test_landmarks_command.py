"""`ubhpd landmarks`: fills what is missing, changes nothing else, resumes after a kill, reports failures."""

import json
import sys
import types

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.images import head_parts, landmarks
from ubhpd.images.faces import Face
from ubhpd.images.landmarks import POINT_COLUMNS, FillConfig, fill_landmarks
from ubhpd.manifest.schema import COLUMNS, Column, fingerprint
from ubhpd.pool.build import BuildConfig, build
from ubhpd.synth.writers import aflw2000_writer, biwi_writer, w300lp_writer

FILLED = ("landmarks68", "landmarks_kind")


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """A pool of four heads without 68 landmarks (BIWI) and three with (AFLW2000)."""
    root = tmp_path_factory.mktemp("landmarks")
    biwi_writer.write(root / "raw", (1,), frames=4, with_depth=False)
    aflw2000_writer.write(root / "raw", 3)
    build(BuildConfig(("biwi", "aflw2000"), root / "out", str(root / "raw")))
    return root / "out" / "pool.parquet"


@pytest.fixture
def fake_dlib(monkeypatch, tmp_path):
    """dlib's place taken by a function: the model and the module are large. Gives the calls made."""
    calls = []

    def landmarks68(image, box):
        calls.append(tuple(box))
        return np.arange(136.0).reshape(68, 2) + np.floor(box[0])

    model = tmp_path / "model.dat"
    model.touch()
    monkeypatch.setattr(landmarks, "model_path", lambda: model)
    monkeypatch.setattr(landmarks, "predictor", lambda path: None)
    monkeypatch.setattr(landmarks, "landmarks68", landmarks68)
    return calls


def rows(path, dataset=None):
    return [r for r in manifest.read(path).to_pylist() if dataset in (None, r["dataset"])]


def kept(path):
    """What stands in the filled columns of the heads that have landmarks of their own."""
    return [[r[name] for name in FILLED] for r in rows(path, "aflw2000")]


def write_points(path, ids, **more):
    frame = pd.DataFrame(
        {"sample_id": ids, **{n: np.arange(len(ids)) + i for i, n in enumerate(POINT_COLUMNS)}, **more}
    )
    frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path, index=False)


def others(path):
    """The fingerprint of all columns but those that are filled."""
    return fingerprint([manifest.read(path)], [c for c in COLUMNS if c.name not in FILLED])


@pytest.mark.parametrize("name", ["points.csv", "points.parquet"])
def test_a_file_fills_the_heads_that_have_none(pool, tmp_path, ubhpd, name):
    ids = [r["sample_id"] for r in rows(pool, "biwi")]
    write_points(tmp_path / name, [*ids[:3], "biwi/99/frame_00001", "aflw2000/image00002"], extra="x")
    out = tmp_path / "new.parquet"
    code, text, _ = ubhpd("landmarks", "--manifest", pool, "--out", out, "--from", tmp_path / name)
    assert code == 0 and f"3 of 4 heads filled (file:{name}), 3 kept: {out}" in text
    assert f"1 heads stay without 68 landmarks, the first of them:\n  {ids[3]}: {name} has no landmarks of" in text
    assert "1 rows of the file are of no head of this manifest." in text
    assert others(out) == others(pool) and manifest.read(out).schema.equals(manifest.read(pool).schema)
    found = rows(out, "biwi")
    for row in range(3):
        assert found[row]["landmarks68"] == [row + i for i in range(136)]
        assert found[row]["landmarks_kind"] == f"file:{name}"
    assert (found[3]["landmarks68"], found[3]["landmarks_kind"]) == (None, None)
    assert kept(out) == kept(pool)
    stated = manifest.header(out).fingerprint
    assert stated in text and stated != manifest.header(pool).fingerprint


def test_nothing_to_fill_gives_the_same_manifest(pool, tmp_path, fake_dlib):
    fill_landmarks(FillConfig(pool, tmp_path / "a.parquet", write_file(pool, tmp_path)))
    again = fill_landmarks(FillConfig(tmp_path / "a.parquet", tmp_path / "b.parquet", tmp_path / "all.csv"))
    assert (again.wanted, again.filled, again.had) == (0, 0, 7)
    assert again.fingerprint == manifest.header(tmp_path / "a.parquet").fingerprint
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def write_file(pool, folder):
    write_points(folder / "all.csv", [r["sample_id"] for r in rows(pool)])
    return folder / "all.csv"


def test_all_replaces_them_so_that_they_are_of_one_kind(pool, tmp_path):
    ids = [r["sample_id"] for r in rows(pool)]
    write_points(tmp_path / "p.csv", ids[1:])
    report = fill_landmarks(FillConfig(pool, tmp_path / "o.parquet", tmp_path / "p.csv", only_missing=False))
    found = rows(tmp_path / "o.parquet")
    assert (report.wanted, report.filled, report.failed, report.had) == (7, 6, 1, 0)
    assert found[0]["landmarks68"] is None and {r["landmarks_kind"] for r in found[1:]} == {"file:p.csv"}


def test_dlib_fills_from_the_heads_own_boxes(pool, tmp_path, ubhpd, fake_dlib):
    out = tmp_path / "new.parquet"
    code, text, _ = ubhpd("landmarks", "--manifest", pool, "--out", out, "--detector", "none", "--json")
    report = json.loads(text)
    assert code == 0 and (report["wanted"], report["filled"], report["had"], report["kind"]) == (4, 4, 3, "dlib68")
    before = rows(pool, "biwi")
    assert fake_dlib == [tuple(r["bbox_xyxy"]) for r in before]
    for old, new in zip(before, rows(out, "biwi")):
        assert new["landmarks68"] == (np.arange(136.0) + np.floor(old["bbox_xyxy"][0])).tolist()
        assert new["landmarks_kind"] == "dlib68"
    assert others(out) == others(pool) and kept(out) == kept(pool)
    assert not list((pool.parent / "work" / "landmarks").iterdir())  # what is written is not kept twice


@pytest.fixture
def fake_face_alignment(monkeypatch):
    """face-alignment's place taken by a module with its names: its weights come from the network. Gives the calls."""
    calls = []

    class FaceAlignment:
        def __init__(self, landmarks_type, device="cuda", flip_input=True, face_detector="sfd", compile=True):
            calls.append((landmarks_type, device, flip_input, face_detector, compile))

        def get_landmarks_from_image(self, image, detected_faces):
            assert image.dtype == np.uint8 and image.shape[2] == 3 and len(detected_faces) == 1
            calls.append(tuple(detected_faces[0]))
            return [np.arange(136.0).reshape(68, 2) + np.floor(detected_faces[0][0])]

    module = types.ModuleType("face_alignment")
    module.FaceAlignment, module.LandmarksType = FaceAlignment, types.SimpleNamespace(TWO_D="2d")
    monkeypatch.setitem(sys.modules, "face_alignment", module)
    landmarks.fan_network.cache_clear()
    yield calls, module
    landmarks.fan_network.cache_clear()


def test_fan_fills_from_the_heads_own_boxes(pool, tmp_path, ubhpd, fake_face_alignment):
    calls, _ = fake_face_alignment
    out = tmp_path / "new.parquet"
    options = ("--from", "fan", "--detector", "none", "--json")
    code, text, err = ubhpd("landmarks", "--manifest", pool, "--out", out, *options)
    assert code == 0, err
    report = json.loads(text)
    assert (report["wanted"], report["filled"], report["had"], report["kind"]) == (4, 4, 3, "fan68")
    before = rows(pool, "biwi")
    assert calls == [("2d", "cpu", False, "folder", False), *(tuple(r["bbox_xyxy"]) for r in before)]
    for old, new in zip(before, rows(out, "biwi")):
        assert new["landmarks68"] == (np.arange(136.0) + np.floor(old["bbox_xyxy"][0])).tolist()
        assert new["landmarks_kind"] == "fan68"
    assert others(out) == others(pool) and kept(out) == kept(pool)


def test_fan_that_cannot_be_used_is_one_sentence(pool, tmp_path, ubhpd, fake_face_alignment, monkeypatch):
    _, module = fake_face_alignment
    command = ("landmarks", "--manifest", pool, "--out", tmp_path / "x.parquet", "--from", "fan", "--detector", "none")

    def no_network(*given, **named):
        raise OSError("no route to host\n")

    class Nothing:
        def __init__(self, *given):
            pass

        def get_landmarks_from_image(self, image, detected_faces):
            return None

    for change, match in (
        (lambda: monkeypatch.setattr(module, "FaceAlignment", Nothing), "FAN finds no 68 landmarks"),
        (lambda: monkeypatch.setattr(module, "FaceAlignment", no_network), "FAN's weights (OSError: no route to host"),
        (lambda: monkeypatch.delattr(module.LandmarksType, "TWO_D"), "older than 1.4: pip install 'ubhpd[fan]'"),
        (lambda: monkeypatch.setitem(sys.modules, "face_alignment", None), "need the package face-alignment"),
    ):
        change()
        landmarks.fan_network.cache_clear()
        code, _, err = ubhpd(*command)
        assert code == 2 and match in err and err.count("\n") == 1, err
        assert not (tmp_path / "x.parquet").exists()


def test_an_interrupted_run_goes_on(pool, tmp_path, fake_dlib, monkeypatch):
    monkeypatch.setattr(head_parts, "_CHUNK", 2)
    whole = fill_landmarks(FillConfig(pool, tmp_path / "whole.parquet", detector="none"))
    assert len(fake_dlib) == 4
    find = landmarks.landmarks68

    def killed(image, box):
        if len(fake_dlib) == 4 + 3:
            raise KeyboardInterrupt
        return find(image, box)

    monkeypatch.setattr(landmarks, "landmarks68", killed)
    with pytest.raises(KeyboardInterrupt):
        fill_landmarks(FillConfig(pool, tmp_path / "again.parquet", detector="none"))
    assert not (tmp_path / "again.parquet").exists()
    monkeypatch.setattr(landmarks, "landmarks68", find)
    again = fill_landmarks(FillConfig(pool, tmp_path / "again.parquet", detector="none"))
    assert len(fake_dlib) == 4 + 3 + 2  # the first part was finished
    assert again.fingerprint == whole.fingerprint
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_a_head_that_fails_is_named_and_a_box_of_another_image_is_not_used(pool, tmp_path, fake_dlib):
    table = manifest.read(pool).to_pydict()
    table["bbox_xyxy"][0] = None
    table["bbox_kind"][1] = "landmarks68_of_source_photo"
    table["image_path"][2] = "01/gone.png"
    table["drop_reason"][3] = "bad_label"
    moved = pool.parent / "moved.parquet"
    manifest.write_parquet([pa.table(table, schema=manifest.read(pool).schema)], moved)
    report = fill_landmarks(FillConfig(moved, tmp_path / "o.parquet", only_missing=False, detector="none"))
    assert (report.wanted, report.filled, report.failed) == (6, 3, 3)
    reasons = dict(report.first_failures)
    ids = table["sample_id"]
    assert "has no face box" in reasons[ids[0]]
    assert "is that of another image: use --detector" in reasons[ids[1]]
    assert "01/gone.png cannot be read" in reasons[ids[2]]
    found = rows(tmp_path / "o.parquet")
    assert [r["landmarks68"] is None for r in found] == [True] * 4 + [False] * 3


def test_a_detectors_box_is_used_where_it_lies_on_the_head(pool, tmp_path, fake_dlib, monkeypatch):
    own = [r["bbox_xyxy"] for r in rows(pool)]

    class Shifted:
        name = "shifted"

        def boxes(self, image):
            """All boxes but the first head's, moved by a quarter of a pixel, and one where no head is."""
            return [Face((0, 0, 20, 20), 1.0), *(Face(tuple(np.add(box, 0.25)), 0.5) for box in own[1:])]

    monkeypatch.setattr(landmarks, "detector", lambda name: Shifted())
    monkeypatch.setattr(landmarks, "_SAME_FACE", 0.95)  # the heads lie near each other
    report = fill_landmarks(FillConfig(pool, tmp_path / "o.parquet", only_missing=False, detector="any"))
    assert np.array(fake_dlib) == pytest.approx(np.array(own[1:]) + 0.25)
    assert (report.kind, report.filled, report.failed) == ("dlib68:shifted", 6, 1)
    assert "The detector shifted finds no face in the box of" in report.first_failures[0][1]


def test_columns_beyond_the_pools_own_come_along(pool, tmp_path):
    columns = (*COLUMNS, Column("split", pa.string(), "", "", "train or test"))
    table = manifest.read(pool)
    manifest.write_parquet(
        [table.append_column("split", pa.array(["train"] * table.num_rows))], tmp_path / "u.parquet", columns
    )
    fill_landmarks(FillConfig(tmp_path / "u.parquet", tmp_path / "o.parquet", write_file(pool, tmp_path)))
    read = manifest.read(tmp_path / "o.parquet")
    assert read.column("split").to_pylist() == ["train"] * 7
    assert read.schema.equals(manifest.read(tmp_path / "u.parquet").schema, check_metadata=False)
    assert read.schema.field("split").metadata[b"meaning"] == b"train or test"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("sample_id,x0\na,1\n", "has no column y0: it must have sample_id, x0, y0 to x67, y67"),
        ("", "is neither CSV nor Parquet"),
        ("twice", "row 2: 'a' stands in row 1 already"),
        ("missing", "row 1: the sample_id is missing"),
        ("words", "the column x5 holds string, not numbers"),
        ("strange", "has landmarks of no head of"),
    ],
)
def test_a_wrong_landmark_file_is_one_sentence(pool, tmp_path, ubhpd, text, match):
    path = tmp_path / "p.csv"
    if text in ("twice", "missing", "words", "strange"):
        write_points(path, {"twice": ["a", "a"], "missing": [""], "words": ["a"], "strange": ["a"]}[text],
                     **({"x5": ["1,5"]} if text == "words" else {}))  # fmt: skip
    else:
        path.write_text(text)
    code, _, err = ubhpd("landmarks", "--manifest", pool, "--out", tmp_path / "o.parquet", "--from", path)
    assert code == 2 and match in err and "Traceback" not in err
    assert not (tmp_path / "o.parquet").exists()


def test_wrong_places_are_one_sentence(pool, tmp_path, ubhpd, monkeypatch):
    for arguments, match in (
        (("--out", tmp_path / "o.h5"), "let its name end in .parquet"),
        (("--out", pool), "is the manifest that is read: name another file"),
        (("--out", tmp_path / "o.parquet", "--from", tmp_path / "gone.csv"), "Cannot open"),
    ):
        code, _, err = ubhpd("landmarks", "--manifest", pool, *arguments)
        assert code == 2 and match in err
    monkeypatch.setenv("UBHPD_DLIB68", str(tmp_path / "gone.dat"))
    with pytest.raises(UbhpdError, match="UBHPD_DLIB68 names .*gone.dat, which is no file"):
        fill_landmarks(FillConfig(pool, tmp_path / "o.parquet", detector="none"))


def test_not_one_head_filled_is_an_error_and_writes_nothing(pool, tmp_path, fake_dlib, monkeypatch):
    def fails(image, box):
        raise UbhpdError("No.")

    monkeypatch.setattr(landmarks, "landmarks68", fails)
    with pytest.raises(UbhpdError, match="Not one of 4 heads could be filled; the first: No."):
        fill_landmarks(FillConfig(pool, tmp_path / "o.parquet", detector="none"))
    assert not (tmp_path / "o.parquet").exists()


def test_parquet_is_readable_by_others(pool, tmp_path):
    fill_landmarks(FillConfig(pool, tmp_path / "o.parquet", write_file(pool, tmp_path)))
    assert pq.read_table(tmp_path / "o.parquet").num_rows == 7


@pytest.fixture(scope="module")
def warped(tmp_path_factory):
    """A build with 12 heads of 300W-LP, nine of them warped, and their mirror images; and two of BIWI."""
    root = tmp_path_factory.mktemp("warped")
    w300lp_writer.write(root / "raw", 12, views=4, distinct_images=2)
    biwi_writer.write(root / "raw", (1,), frames=2, with_depth=False)
    build(BuildConfig(("300wlp", "biwi"), root / "out", str(root / "raw")))
    return root / "out"


def test_projected_points_fill_the_warped_heads_of_a_build_and_their_mirror_images(warped, ubhpd):
    code, text, _ = ubhpd("landmarks", "--manifest", warped, "--from", "projected")
    out = warped / "landmarks.parquet"
    assert code == 0 and f"18 of 18 heads filled (ibug68), 8 kept: {out}" in text
    assert others(out) == others(warped / "pool.parquet")
    before, after = rows(warped / "pool.parquet"), rows(out)
    for old, new in zip(before, after, strict=True):
        assert new["bbox_xyxy"] == old["bbox_xyxy"]
        if old["dataset"] == "biwi":
            assert new["landmarks68"] is None
        elif old["landmarks_kind"] == "ibug68":
            assert new["landmarks68"] == old["landmarks68"]
        else:
            assert old["landmarks_kind"] == "ibug68_of_source_photo" and new["landmarks_kind"] == "ibug68"
            assert new["landmarks68"] != old["landmarks68"]


def test_landmarks_of_the_source_photo_count_as_missing_and_stay_where_nothing_is_found(warped, tmp_path):
    heads = [r for r in rows(warped / "pool.parquet") if r["synthetic"]]
    write_points(tmp_path / "fan.csv", [heads[0]["sample_id"]])
    report = fill_landmarks(FillConfig(warped / "pool.parquet", tmp_path / "o.parquet", tmp_path / "fan.csv"))
    assert (report.wanted, report.filled, report.failed, report.had) == (20, 1, 19, 6)
    found = {r["sample_id"]: r for r in rows(tmp_path / "o.parquet")}
    assert found[heads[0]["sample_id"]]["landmarks_kind"] == "file:fan.csv"
    assert found[heads[0]["sample_id"]]["landmarks68"] == list(range(136))
    for head in heads[1:]:
        assert [found[head["sample_id"]][n] for n in FILLED] == [head[n] for n in FILLED]


def test_landmarks_of_another_manifest_complete_rows(warped, tmp_path):
    table = manifest.read(warped / "pool.parquet")
    heads = [r for r in table.to_pylist() if r["synthetic"]]
    write_points(tmp_path / "fan.csv", [heads[1]["sample_id"]])
    fill_landmarks(FillConfig(warped / "pool.parquet", tmp_path / "o.parquet", tmp_path / "fan.csv"))
    rows_ = table.take(pa.array([table.num_rows - 1, *range(table.num_rows - 1)]))
    found = manifest.with_landmarks(rows_, tmp_path / "o.parquet")
    assert found.schema.equals(rows_.schema) and found.column("sample_id").equals(rows_.column("sample_id"))
    for old, new in zip(rows_.to_pylist(), found.to_pylist(), strict=True):
        if old["sample_id"] == heads[1]["sample_id"]:
            assert (new["landmarks68"], new["landmarks_kind"]) == (list(range(136)), "file:fan.csv")
        else:
            assert new == old
    biwi = rows_.filter(pa.compute.equal(rows_.column("dataset"), "biwi"))
    with pytest.raises(UbhpdError, match="has landmarks of not one of these 2 heads"):
        manifest.with_landmarks(biwi, tmp_path / "o.parquet")
