"""`ubhpd boxes`: boxes from files as they circulate and from detectors, in every later command."""

import json
import types

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from realdata import REAL, needs

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.images import boxes, detectors, head_parts
from ubhpd.images.boxes import BoxConfig, fill_boxes, read
from ubhpd.images.detectors import detector
from ubhpd.images.faces import Face
from ubhpd.leaderboards.result import read_all
from ubhpd.pool.build import BuildConfig, build
from ubhpd.synth.writers import biwi_writer, synhead_writer

OPAL = "#;image;tl_x;tl_y;br_x;br_y;yaw;pitch;roll;\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("boxes")
    biwi_writer.write(root / "raw", (1, 2), frames=3, with_depth=False)
    synhead_writer.write(root / "raw", frames=1)
    build(BuildConfig(("biwi", "synhead"), root / "out", str(root / "raw")))
    return root / "out"


def rows(place, dataset=None):
    table = manifest.read(place)
    return {r["sample_id"]: r for r in table.to_pylist() if dataset in (None, r["dataset"])}


def opal(path, heads, box=(10, 20, 60, 80)):
    lines = [f"kinect_head_pose_db/{r['image_path']};{';'.join(map(str, box))};1;2;3" for r in heads.values()]
    path.write_text(OPAL + "\n".join(lines) + "\n")
    return path


# Files


def test_the_file_of_opal_gives_boxes_to_the_frames_that_it_names(built, tmp_path):
    frames = dict(list(rows(built / "pool.parquet", "biwi").items())[:4])
    file = opal(tmp_path / "biwi_ann.txt", frames)
    report = fill_boxes(BoxConfig(built, tmp_path / "new", str(file)))
    after = rows(tmp_path / "new" / "pool.parquet")
    usable = sum(r["drop_reason"] is None for r in after.values())
    assert (report.usable, report.filled, report.kept) == (usable, 4, 0) and report.without == usable - 4
    before = rows(built / "pool.parquet")
    for name, row in after.items():
        assert (
            row["bbox_xyxy_before"] == before[name]["bbox_xyxy"]
            and row["bbox_kind_before"] == before[name]["bbox_kind"]
        )
        if name in frames:
            assert row["bbox_xyxy"] == [10, 20, 60, 80] and row["bbox_kind"] == "file:biwi_ann.txt"
        else:
            assert row["bbox_xyxy"] is None and row["bbox_kind"] is None
        rest = {k: v for k, v in row.items() if not k.startswith("bbox")}
        assert all(before[name][k] == v or v != v for k, v in rest.items())
    record = json.loads((tmp_path / "new" / "build.json").read_text())
    assert record["boxes"] == {"source": "biwi_ann.txt", "kind": "file:biwi_ann.txt"}
    assert (
        record["fingerprint"]
        == report.fingerprints["pool.parquet"]
        != json.loads((built / "build.json").read_text())["fingerprint"]
    )


def test_keep_and_only_missing(built, tmp_path):
    frames = rows(built / "pool.parquet", "biwi")
    some = opal(tmp_path / "b.txt", dict(list(frames.items())[:2]))
    report = fill_boxes(BoxConfig(built, tmp_path / "kept", str(some), keep=True))
    assert (report.filled, report.kept) == (2, len(frames) - 2)
    synhead = rows(built / "pool.parquet", "synhead")
    file = tmp_path / "all.csv"
    file.write_text("sample_id,x,y,w,h\n" + "".join(f"{name},5,6,70,80\n" for name in {**frames, **synhead}))
    report = fill_boxes(BoxConfig(built, tmp_path / "missing", str(file), only_missing=True))
    assert (report.filled, report.kept, report.without) == (len(synhead), len(frames), 0)
    after = rows(tmp_path / "missing" / "pool.parquet")
    assert all(after[n]["bbox_xyxy"] == [5, 6, 75, 86] for n in synhead)
    assert all(after[n]["bbox_xyxy"] == frames[n]["bbox_xyxy"] for n in frames)


def test_npz_parquet_and_csv_say_the_same(built, tmp_path):
    heads = rows(built / "pool.parquet", "biwi")
    names = [r["image_path"] for r in heads.values()]
    size, corners = np.tile([10, 20, 50, 60], (len(names), 1)), np.tile([10.0, 20.0, 60.0, 80.0], (len(names), 1))
    np.savez(tmp_path / "a.npz", images=np.array(names), ypr=np.zeros((len(names), 3)), bbox=size,
             calibrated=np.array([None], dtype=object))  # fmt: skip
    pq.write_table(pa.table({"image": names, "bbox_xyxy": corners.tolist()}), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("top,image,left,bottom,right\n" + "".join(f"20,{n},10,80,60\n" for n in names))
    found = [read(tmp_path / name) for name in ("a.npz", "a.parquet", "a.csv")]
    for own in found:
        assert list(own) == names and all(box.tolist() == [10, 20, 60, 80] for box in own.values())
    assert read(tmp_path / "a.npz", "xyxy")[names[0]].tolist() == [10, 20, 50, 60]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "holds no box"),
        ("image;1;2;3\n", "line 1: it has no name and four numbers"),
        ("image,left,top\na,1,2\n", "it needs a name (sample_id or image) and a box"),
        ("image,left,top,right,bottom\na,1,2,x,4\n", "line 2: it has no name and four numbers"),
        ("image,left,top,right,bottom\na,1,2,nan,4\n", "is no box from left top to right bottom"),
        ("image,left,top,right,bottom\na,9,2,3,4\n", "is no box from left top to right bottom: set --form"),
        ("image,left,top,right,bottom\na,1,2,3,4\na,1,2,3,5\n", "line 3: 'a' has two different boxes"),
    ],
)
def test_a_bad_file_is_one_sentence_and_writes_nothing(built, tmp_path, content, sentence):
    (tmp_path / "b.csv").write_text(content)
    with pytest.raises(UbhpdError) as raised:
        fill_boxes(BoxConfig(built, tmp_path / "new", str(tmp_path / "b.csv")))
    assert sentence in str(raised.value) and "\n" not in str(raised.value)
    assert not list((tmp_path / "new").glob("*.parquet")) and not (tmp_path / "new" / "build.json").exists()


def test_binary_files_that_are_no_boxes(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"\xff\xfe\x00\x01" * 50)
    (tmp_path / "p.parquet").write_bytes(b"PAR1 and nothing")
    (tmp_path / "z.npz").write_bytes(b"PK\x03\x04 and nothing")
    np.savez(tmp_path / "o.npz", images=np.array(["a", None], dtype=object), bbox=np.ones((2, 4)))
    for name, sentence in (("a.bin", "is neither text"), ("p.parquet", "damaged Parquet"), ("z.npz", "damaged .npz"),
                           ("o.npz", "can be read without pickle")):  # fmt: skip
        with pytest.raises(UbhpdError, match=sentence):
            read(tmp_path / name)


def test_names_of_other_images_and_places_that_are_none(built, tmp_path, ubhpd):
    (tmp_path / "b.csv").write_text("image,left,top,right,bottom\nelsewhere/1.png,1,2,3,4\n")
    code, _, err = ubhpd("boxes", built, "--from", tmp_path / "b.csv", "--out", tmp_path / "new")
    assert code == 2 and "has boxes of no head of" in err and "elsewhere/1.png" in err
    code, _, err = ubhpd("boxes", built, "--from", "retina", "--out", tmp_path / "new")
    assert code == 2 and "no file and no detector 'retina'" in err
    code, _, err = ubhpd("boxes", tmp_path / "gone", "--from", "cascade", "--out", tmp_path / "new")
    assert code == 2 and "There is no build and no manifest" in err
    code, _, err = ubhpd("boxes", built, "--from", "cascade", "--out", built)
    assert code == 2 and "is the build that is read" in err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    code, _, err = ubhpd("boxes", built, "--from", tmp_path / "b.csv", "--out", tmp_path / "other")
    assert code == 2 and "holds something else than a build" in err


@needs("boxes/opal23_biwi_ann.txt")
def test_the_files_of_others_have_the_same_13219_frames():
    text, packed = read(REAL / "boxes/opal23_biwi_ann.txt"), read(REAL / "boxes/headposeplus_Biwi_FSA-Net.npz")
    assert len(text) == len(packed) == 13_219
    assert {name.removeprefix("kinect_head_pose_db/") for name in text} == set(packed)
    assert text["kinect_head_pose_db/01/frame_00003_rgb.png"].tolist() == [270, 177, 414, 355]
    # headposeplus counts the last pixel, and moves some boxes by a pixel
    shared = [(text[f"kinect_head_pose_db/{n}"], packed[n]) for n in packed]
    assert np.abs(np.array([a - b for a, b in shared])).max() <= 2


# Detectors


class Fake:
    """Finds a face at the place of the first pixel's colour, and another one in the corner."""

    name = "fake"

    def boxes(self, image_bgr):
        height, width = image_bgr.shape[:2]
        if image_bgr[0, 0, 0] == 7:
            return []
        return [Face((0.0, 0.0, width / 2, height / 2), 0.9), Face((200.0, 150.0, 460.0, 420.0), 0.8)]


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(boxes, "detector", lambda name: Fake())
    monkeypatch.setattr(boxes, "DETECTORS", ("fake",))


def test_a_detector_gives_the_face_on_the_heads_own_box_else_the_largest(built, tmp_path, fake, monkeypatch):
    report = fill_boxes(BoxConfig(built, tmp_path / "new", "fake"))
    after = rows(tmp_path / "new" / "pool.parquet")
    for row in after.values():
        if row["dataset"] == "synhead":
            assert row["bbox_xyxy"] == [0, 0, row["image_width"] / 2, row["image_height"] / 2]
        elif row["bbox_xyxy"] is not None:
            assert row["bbox_xyxy"] == [200, 150, 460, 420]
    assert report.kind == "fake" and report.filled + report.without == report.usable and report.kept == 0
    assert not list((built / "work" / "boxes").iterdir())


def test_an_interrupted_run_resumes(built, tmp_path, fake, monkeypatch):
    monkeypatch.setattr(head_parts, "_CHUNK", 2)
    seen = []

    class Counting(Fake):
        def boxes(self, image_bgr):
            seen.append(1)
            if len(seen) == 5:
                raise KeyboardInterrupt
            return super().boxes(image_bgr)

    monkeypatch.setattr(boxes, "detector", lambda name: Counting())
    with pytest.raises(KeyboardInterrupt):
        fill_boxes(BoxConfig(built, tmp_path / "new", "fake"))
    assert not (tmp_path / "new" / "build.json").exists()
    count = len(seen)
    report = fill_boxes(BoxConfig(built, tmp_path / "new", "fake"))
    assert len(seen) - count == report.usable - 4  # two parts were finished
    monkeypatch.setattr(boxes, "detector", lambda name: Fake())
    again = fill_boxes(BoxConfig(built, tmp_path / "again", "fake"))
    assert again.fingerprints == report.fingerprints


def test_yunet_through_opencv(monkeypatch, tmp_path):
    import cv2

    sizes = []

    class Network:
        def setInputSize(self, size):
            sizes.append(size)

        def detect(self, image):
            assert image.shape[1::-1] == sizes[-1]
            face = np.zeros((1, 15), np.float32)
            face[0, :4], face[0, 4:14], face[0, 14] = (10, 20, 30, 40), np.arange(10), 0.9
            return 1, face

    fake_create = types.SimpleNamespace(create=lambda *arguments: Network())
    monkeypatch.setattr(cv2, "FaceDetectorYN", fake_create, raising=False)
    monkeypatch.delenv("UBHPD_YUNET", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UbhpdError, match="YuNet's file is not here: get face_detection_yunet_2023mar.onnx"):
        detector("yunet")
    monkeypatch.setenv("UBHPD_YUNET", str(tmp_path / "gone.onnx"))
    with pytest.raises(UbhpdError, match=r"UBHPD_YUNET names .*, which is no file: get face_detection_yunet"):
        detector("yunet")
    (tmp_path / "y.onnx").touch()
    monkeypatch.setenv("UBHPD_YUNET", str(tmp_path / "y.onnx"))
    (face,) = detector("yunet").boxes(np.zeros((480, 1280, 3), np.uint8))
    assert sizes == [(640, 240)] and face.bbox_xyxy == (20, 40, 80, 120) and face.points5[4].tolist() == [16, 18]
    monkeypatch.setattr(detectors, "_YUNET_SCORE", 0.6)


def test_a_file_that_is_no_yunet_is_said(monkeypatch, tmp_path):
    (tmp_path / "y.onnx").write_bytes(b"not a network")
    monkeypatch.setenv("UBHPD_YUNET", str(tmp_path / "y.onnx"))
    with pytest.raises(UbhpdError, match="is no ONNX file of YuNet"):
        detector("yunet")


# Later commands


def test_heads_of_synhead_are_predicted_exported_and_ranked(built, tmp_path, ubhpd):
    """Without boxes no network sees them; with them the coverage is whole and the row is ranked."""
    pytest.importorskip("torch")
    names = rows(built / "pool.parquet")
    (tmp_path / "b.csv").write_text("sample_id,x,y,w,h\n" + "".join(f"{name},50,60,250,280\n" for name in names))
    assert ubhpd("boxes", built, "--from", tmp_path / "b.csv", "--only-missing", "--out", tmp_path / "new")[0] == 0
    ubhpd("weights", "init", "--model", "ssrnet_md", "--out", tmp_path / "w.safetensors")
    covered = {}
    for name, place in (("before", built), ("after", tmp_path / "new")):
        out = tmp_path / f"{name}.csv"
        ubhpd("predict", "--weights", tmp_path / "w.safetensors", "--manifest", place / "pool.parquet", "--out", out)
        covered[name] = len(out.read_text().splitlines()) - 1
    usable = sum(r["drop_reason"] is None for r in names.values())
    assert covered["after"] == usable > covered["before"] > 0
    code, out, err = ubhpd("export", tmp_path / "new", "--format", "csv", "--out", tmp_path / "export", "--json")
    assert code == 0 and json.loads(out)["without_box"] == [], err


def test_protocol_13219_with_boxes_of_its_frames(tmp_path, ubhpd, monkeypatch):
    """The frames of a list with boxes of the same file; the crop can be chosen and is recorded."""
    pytest.importorskip("torch")
    biwi_writer.write(tmp_path / "raw", (1, 2), frames=6, with_depth=False)
    build(BuildConfig(("biwi",), tmp_path / "out", str(tmp_path / "raw")))
    heads = rows(tmp_path / "out" / "pool.parquet")
    names = [r["image_path"] for r in heads.values()][:8]
    np.savez(tmp_path / "f.npz", images=np.array(names), bbox=np.tile([200, 150, 200, 220], (len(names), 1)))
    assert ubhpd("boxes", tmp_path / "out", "--from", tmp_path / "f.npz", "--out", tmp_path / "fsa")[0] == 0
    ubhpd("weights", "init", "--model", "ssrnet_md", "--out", tmp_path / "w.safetensors")
    common = ("bench", "--models", "ssrnet_md", "--weights", f"ssrnet_md={tmp_path / 'w.safetensors'}", "--trained-on",
              "ssrnet_md=300W-LP", "--protocols", "300wlp_biwi_13219", "--frames", tmp_path / "f.npz", "--data",
              tmp_path / "fsa", "--out", tmp_path / "results", "--device", "cpu", "--quiet")  # fmt: skip
    for more in ((), ("--crop", "square-1.4"), ("--crop", "square-1.4")):
        code, _, err = ubhpd(*common, *more)
        assert code == 0, err
    found = [own.result for own in read_all([tmp_path / "results"])]
    assert sorted(str(own.crop) for own in found) == ["None", "square-1.4"]
    assert all(own.coverage == 1.0 for own in found)
    assert len(list((tmp_path / "results" / "weights").iterdir())) == 1  # the crop of the test makes no other weights
