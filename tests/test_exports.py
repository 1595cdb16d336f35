"""Exports: what is written comes back, whoever writes it and however often it is interrupted."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import h5py
import numpy as np
import pyarrow as pa
import pytest
import scipy.io
from trees_for_tests import copied
from wheel_check import REPOSITORY

from ubhpd import cli, export, manifest
from ubhpd.crops import RECIPES, crop, crop_box
from ubhpd.errors import UbhpdError
from ubhpd.export import ExportConfig, formats
from ubhpd.files import write_json
from ubhpd.pool.build import BuildConfig, build
from ubhpd.raw.images import Images
from ubhpd.schema import COLUMNS, Column
from ubhpd.synth import aflw, aflw2000, biwi, upna, w300lp
from ubhpd.workers import Engine

FORMATS = tuple(formats())
SPACE = "IBUG_image_092 _01"


def sampled(out):
    """Write ubhpd.parquet: every other head test, one head without box and landmarks, videos shuffled."""
    rows = manifest.read(out / "pool.parquet").to_pylist()
    rows = [r for r in rows if r["drop_reason"] is None]
    np.random.default_rng(3).shuffle(rows)
    bare = next(r for r in rows if r["dataset"] == "biwi")
    bare.update(bbox_xyxy=None, landmarks68=None, landmarks21=None)
    for number, row in enumerate(rows):
        row["split"] = ("train", "train", "test")[number % 3]
    columns = (*COLUMNS, Column("split", pa.string(), "", "", "train or test"))
    table = pa.table({c.name: pa.array([r[c.name] for r in rows], c.type) for c in columns})
    manifest.write_parquet([table], out / "ubhpd.parquet", columns)
    return bare["sample_id"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A build of five small datasets, raw data beside it; read only."""
    root = tmp_path_factory.mktemp("export")
    w300lp.write(root / "raw", 12, views=3, landmarks=False, distinct_pictures=6, bad_flips=1)
    aflw.write(root / "raw", 10, seed=2)
    aflw2000.write(root / "raw", 8, distinct_pictures=4)
    biwi.write(root / "raw", (1,), frames=4, with_depth=False)
    upna.write(root / "raw", (1, 2), (1,), frames=5)
    sources = ("300wlp", "aflw", "aflw2000", "biwi", "upna")
    build(BuildConfig(sources, root / "out", str(root / "raw")))
    (root / "bare.txt").write_text(sampled(root / "out"))
    return root / "out"


@pytest.fixture(scope="module")
def rows(built):
    """The usable heads with a box, in the manifest's order."""
    bare = (built.parent / "bare.txt").read_text()
    return [r for r in manifest.read(built / "ubhpd.parquet").to_pylist() if r["sample_id"] != bare]


def run(built, form, out, engine=None, **kwargs):
    kwargs.setdefault("unit_heads", 7)
    return export.export(ExportConfig(built, form, out=out, **kwargs), engine)


def wanted_crop(built, row, recipe, size, colour=None):
    picture = Images.of_build(built).picture(row["dataset"], row["image_path"], row["frame_index"])
    return crop(picture, crop_box(row, RECIPES[recipe]), RECIPES[recipe], size, colour)


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_h5_comes_back(built, rows, tmp_path):
    report = run(built, "h5", tmp_path / "o", recipe="square", size=48)
    with h5py.File(tmp_path / "o" / "crops.h5", "r") as file:
        image = file["image"]
        assert image.shape == (len(rows), 48, 48, 3) and image.dtype == np.uint8
        assert image.chunks is None and image.compression is None  # a row is one read at a known place
        assert dict(file.attrs)["recipe"] == "square" and dict(file.attrs)["colour"] == "RGB"
        assert file.attrs["fingerprint"] == manifest.header(built / "ubhpd.parquet").fingerprint
        for i, row in enumerate(rows):
            np.testing.assert_array_equal(image[i], wanted_crop(built, row, "square", 48), row["sample_id"])
            for name in ("sample_id", "dataset", "split"):
                assert file[name].asstr()[i] == row[name]
            for name in ("yaw_deg", "pitch_deg", "roll_deg"):
                assert file[name][i] == row[name]
            np.testing.assert_array_equal(file["rotation"][i].ravel(), row["rotation"])
            np.testing.assert_array_equal(file["box_xyxy"][i], crop_box(row, RECIPES["square"]))
    assert report.heads == {s: sum(r["split"] == s for r in rows) for s in ("train", "test")}
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == ["crops.h5", "export.json"]


def test_every_third_head_stands_in_its_place_in_a_shuffled_manifest(built, rows):
    """The premise of the test above: the order of work is not the order of the file."""
    work = sorted(rows, key=lambda r: (r["dataset"], r["image_path"], r["frame_index"] or 0))
    assert [r["sample_id"] for r in work] != [r["sample_id"] for r in rows]


def test_fsanet_comes_back_in_bgr_and_without_pickles(built, rows, tmp_path):
    run(built, "fsanet", tmp_path / "o", recipe="square", size=32)  # a recipe in RGB: the format asks for BGR
    for split in ("train", "test"):
        own = [r for r in rows if r["split"] == split]
        with np.load(tmp_path / "o" / f"{split}.npz", allow_pickle=False) as file:
            assert sorted(file) == ["image", "img_size", "pose"]
            assert file["img_size"] == 32 and file["image"].dtype == np.uint8
            np.testing.assert_array_equal(
                file["pose"], [[r[f"{a}_deg"] for a in ("yaw", "pitch", "roll")] for r in own]
            )
            images = file["image"]
        for image, row in zip(images, own, strict=True):
            np.testing.assert_array_equal(image, wanted_crop(built, row, "square", 32, "BGR"))
        names = (tmp_path / "o" / f"{split}.txt").read_text().splitlines()
        assert names == [r["sample_id"] for r in own]


def test_fsanet_is_what_its_script_writes(built, rows, tmp_path):
    run(built, "fsanet", tmp_path / "o", split="test")
    own = [r for r in rows if r["split"] == "test"]
    with np.load(tmp_path / "o" / "test.npz", allow_pickle=False) as file:
        images = file["image"]
    root = built.parent / "raw" / "300W_LP"
    seen = 0
    for image, row in zip(images, own, strict=True):
        if row["dataset"] != "300wlp":
            continue
        x, y = scipy.io.loadmat(root / row["image_path"].replace(".jpg", ".mat"))["pt2d"]
        picture = cv2.imread(str(root / row["image_path"]))
        x0, x1, y0, y1 = int(min(x)), int(max(x)), int(min(y)), int(max(y))
        w, h = x1 - x0, y1 - y0
        x0, x1 = max(int(x0 - 0.6 * w), 0), min(int(x1 + 0.6 * w), 449)
        y0, y1 = max(int(y0 - 0.6 * h), 0), min(int(y1 + 0.6 * h), 449)
        np.testing.assert_array_equal(image, cv2.resize(picture[y0:y1, x0:x1], (64, 64)))
        seen += 1
    assert seen > 3


def test_6drepnet_lists_pictures_and_labels(built, rows, tmp_path):
    run(built, "6drepnet", tmp_path / "o")
    by_name = {f"images/{r['sample_id']}": r for r in rows}
    listed = []
    for split in ("train", "test"):
        text = (tmp_path / "o" / f"{split}.txt").read_text()
        assert not text.endswith("\n")
        own = text.splitlines()
        assert own == [n for n, r in by_name.items() if r["split"] == split]
        listed += own
    assert set(listed) == set(by_name) and any(SPACE in n for n in listed)
    for name, row in by_name.items():
        label = scipy.io.loadmat(tmp_path / "o" / f"{name}.mat")
        pose = label["Pose_Para"][0]
        np.testing.assert_allclose(np.degrees(pose[:3]), [row["pitch_deg"], row["yaw_deg"], row["roll_deg"]], atol=1e-9)
        assert pose.shape == (7,) and label["pt2d"].shape[0] == 2
        points = np.reshape(row["landmarks21"] or row["landmarks68"] or row["bbox_xyxy"], (-1, 2))
        np.testing.assert_array_equal(label["pt2d"].min(axis=1), np.nanmin(points, axis=0))
        np.testing.assert_array_equal(label["pt2d"].max(axis=1), np.nanmax(points, axis=0))
        data = (tmp_path / "o" / f"{name}.jpg").read_bytes()
        assert cv2.imdecode(np.frombuffer(data, np.uint8), 1).shape[:2] == (row["image_height"], row["image_width"])
        if row["image_path"].endswith(".jpg"):
            assert data == Images.of_build(built).data(row["dataset"], row["image_path"])
        else:
            assert data[:3] == b"\xff\xd8\xff"


def coco(folder, split):
    return json.loads((folder / "annotations" / f"{split}.json").read_text())


def test_coco_copies_whole_pictures_once(built, rows, tmp_path):
    run(built, "coco", tmp_path / "o")
    named = {}
    for split in ("train", "test"):
        content = coco(tmp_path / "o", split)
        own = [r for r in rows if r["split"] == split]
        images = {i["id"]: i for i in content["images"]}
        assert len(images) == len(content["images"]) == len({i["file_name"] for i in content["images"]})
        assert [a["sample_id"] for a in content["annotations"]] == [r["sample_id"] for r in own]
        assert [a["id"] for a in content["annotations"]] == list(range(1, len(own) + 1))
        assert content["categories"] == [{"id": 1, "name": "head", "supercategory": "person"}]
        for note, row in zip(content["annotations"], own, strict=True):
            x, y, w, h = note["bbox"]
            assert (x, y, x + w, y + h) == pytest.approx(row["bbox_xyxy"], abs=2e-3)
            assert note["area"] == pytest.approx(w * h, rel=1e-3, abs=0.5) and note["category_id"] == 1
            assert [note["attributes"][f"{a}_deg"] for a in ("yaw", "pitch", "roll")] == [
                row[f"{a}_deg"] for a in ("yaw", "pitch", "roll")
            ]
            image = images[note["image_id"]]
            named.setdefault(image["file_name"], []).append(row["sample_id"])
            assert (image["width"], image["height"]) == (row["image_width"], row["image_height"])
            path = tmp_path / "o" / image["file_name"]
            if row["dataset"] == "upna":
                frame = Images.of_build(built).picture("upna", row["image_path"], row["frame_index"])
                np.testing.assert_array_equal(cv2.imread(str(path)), frame)
            else:
                assert path.read_bytes() == Images.of_build(built).data(row["dataset"], row["image_path"])
    assert max(len(v) for v in named.values()) > 1, "no picture with two heads: the fixture tests nothing"
    assert len(named) == len([p for p in (tmp_path / "o" / "images").rglob("*") if p.is_file()])


def test_coco_boxes_follow_the_crop(built, rows, tmp_path):
    run(built, "coco", tmp_path / "o", recipe="square", size=100)
    for split in ("train", "test"):
        content = coco(tmp_path / "o", split)
        assert {(i["width"], i["height"]) for i in content["images"]} == {(100, 100)}
        for note in content["annotations"]:
            x, y, w, h = note["bbox"]
            assert max(w, h) == pytest.approx(100 / 1.6, abs=1)  # square grows by 1.6 about the middle
            assert (x + w / 2, y + h / 2) == pytest.approx((50, 50), abs=1.5)


def test_hf_folder(built, rows, tmp_path):
    run(built, "hf", tmp_path / "o", size=40)
    for split in ("train", "test"):
        with open(tmp_path / "o" / split / "metadata.csv", newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        own = [r for r in rows if r["split"] == split]
        assert [t["sample_id"] for t in table] == [r["sample_id"] for r in own]
        for told, row in zip(table, own, strict=True):
            image = cv2.imread(str(tmp_path / "o" / split / told["file_name"]))
            np.testing.assert_array_equal(image, wanted_crop(built, row, "square", 40, "BGR"))  # png loses nothing
            assert float(told["yaw_deg"]) == row["yaw_deg"] and told["split"] == split
            assert [float(told[f"r{i}{j}"]) for i in range(3) for j in range(3)] == row["rotation"]
        files = list((tmp_path / "o" / split).rglob("*.png"))
        assert len(files) == len(own)


def test_hf_can_hold_jpeg_and_whole_pictures(built, rows, tmp_path):
    run(built, "hf", tmp_path / "jpg", size=96, picture="jpg", split="test")
    assert not (tmp_path / "jpg" / "train").exists()
    row = next(r for r in rows if r["split"] == "test" and r["dataset"] == "300wlp")
    image = cv2.imread(str(tmp_path / "jpg" / "test" / "images" / f"{row['sample_id']}.jpg"))
    difference = np.abs(image.astype(int) - wanted_crop(built, row, "square", 96, "BGR"))
    assert 0 < difference.mean() < 4
    run(built, "hf", tmp_path / "whole", recipe="none", split="test")
    path = tmp_path / "whole" / "test" / "images" / f"{row['sample_id']}.jpg"
    assert path.read_bytes() == Images.of_build(built).data("300wlp", row["image_path"])


def test_csv_has_faces_crops_and_labels(built, rows, tmp_path):
    run(built, "csv", tmp_path / "o", recipe="hopenet-random", seed=5)
    with open(tmp_path / "o" / "heads.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [t["sample_id"] for t in table] == [r["sample_id"] for r in rows]
    for told, row in zip(table, rows, strict=True):
        found = tuple(float(told[f"crop_{c}"]) for c in ("x0", "y0", "x1", "y1"))
        assert found == crop_box(row, RECIPES["hopenet-random"], seed=5)
        assert [float(told[f"face_{c}"]) for c in ("x0", "y0", "x1", "y1")] == row["bbox_xyxy"]
        assert told["image_path"] == row["image_path"]


def test_heads_without_a_box_are_counted_and_named(built, tmp_path, capsys):
    bare = (built.parent / "bare.txt").read_text()
    for form in FORMATS:
        assert run(built, form, tmp_path / form).without_box == [bare], form
        told = json.loads((tmp_path / form / "export.json").read_text())
        assert told["without_box"] == [bare] and told["format"] == form
    with pytest.raises(SystemExit):
        cli.main(["export", str(built), "--format", "csv", "--out", str(tmp_path / "said")])
    assert f"1 head without a box for this recipe, left out: {bare}" in capsys.readouterr().out


def test_where_boxes_came_from_is_told(built, rows, tmp_path):
    report = run(built, "csv", tmp_path / "o", recipe="fsanet-0.6")
    with_points = sum(r["landmarks68"] is not None or r["landmarks21"] is not None for r in rows)
    assert report.box_sources == {"pt2d_positive": with_points, "bbox": len(rows) - with_points}
    assert 0 < with_points < len(rows)


@pytest.mark.parametrize("form", FORMATS)
def test_the_number_of_workers_leaves_no_trace(built, form, tmp_path):
    one = run(built, form, tmp_path / "one", Engine(1), unit_heads=1000)
    two = run(built, form, tmp_path / "two", Engine(2), unit_heads=5)
    assert one.as_dict() == two.as_dict()
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_threads_do_not_share_a_video(built, tmp_path):
    run(built, "h5", tmp_path / "one", size=16)
    run(built, "h5", tmp_path / "two", Engine(3, "threading"), size=16, unit_heads=1)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_videos_are_read_through_once(built, rows, tmp_path, monkeypatch):
    opened, sought = [], []
    real = cv2.VideoCapture

    class Watched:
        def __init__(self, path):
            opened.append(path)
            self._capture = real(path)
            self.read, self.grab = self._capture.read, self._capture.grab

        def set(self, *arguments):
            sought.append(arguments)

    monkeypatch.setattr(cv2, "VideoCapture", Watched)
    run(built, "h5", tmp_path / "o", size=16, unit_heads=1)
    assert len(opened) == len({r["image_path"] for r in rows if r["dataset"] == "upna"}) == 2 and not sought


def test_units_are_cut_between_pictures_and_videos_only(built, rows, tmp_path, monkeypatch):
    seen = []
    real = export.run
    monkeypatch.setattr(export, "run", lambda unit, session: seen.append(unit) or real(unit, session))
    run(built, "h5", tmp_path / "o", size=16, unit_heads=3)
    places = [(number, r.dataset, r.image_path) for number, unit in enumerate(seen) for r in unit.rows]
    assert len(seen) > 5 and len({p[1:] for p in places}) == len(set(places))
    assert sorted(r.row for unit in seen for r in unit.rows) == list(range(len(rows)))


def test_of_a_pool_only_usable_heads_are_exported(built, tmp_path):
    pool = manifest.read(built / "pool.parquet").to_pylist()
    usable = [r["sample_id"] for r in pool if r["drop_reason"] is None]
    assert len(usable) < len(pool)
    run(built / "pool.parquet", "csv", tmp_path / "o", recipe="hopenet-biwi")
    with open(tmp_path / "o" / "heads.csv", newline="", encoding="utf-8") as file:
        assert [t["sample_id"] for t in csv.DictReader(file)] == usable


@pytest.fixture
def damaged(built, tmp_path):
    """A copy of the build whose raw data may be changed, and two pictures of it."""
    raw = tmp_path / "raw"
    copied(built.parent / "raw" / "300W_LP", raw)
    out = tmp_path / "out"
    build(BuildConfig(("300wlp",), out, str(raw)))
    pictures = sorted((raw / "300W_LP" / "LFPW").glob("*.jpg"))[:2]
    return out, pictures


@pytest.mark.parametrize("form", ["h5", "fsanet", "hf", "coco"])
def test_missing_pictures_stop_the_export_and_it_goes_on_afterwards(damaged, form, tmp_path):
    out, pictures = damaged
    whole = run(out, form, tmp_path / "whole")
    for path in pictures:
        path.rename(path.with_suffix(".away"))
    with pytest.raises(
        UbhpdError, match=r"^The pictures of 2 of 23 heads cannot be read \(the first: LFPW/LFPW"
    ) as error:
        run(out, form, tmp_path / "o")
    assert "bring them back" in str(error.value) and str(error.value).count(". ") == 0
    assert not (tmp_path / "o" / "export.json").exists()
    for path in pictures:
        path.with_suffix(".away").rename(path)
    report = run(out, form, tmp_path / "o")
    assert report.units_kept >= 2 and report.as_dict() == whole.as_dict()
    assert tree(tmp_path / "o") == tree(tmp_path / "whole")


@pytest.mark.parametrize("form", FORMATS)
def test_unreadable_pictures_can_be_left_out(damaged, form, tmp_path):
    out, pictures = damaged
    pictures[0].unlink()
    pictures[1].unlink()
    pictures[1].write_bytes(b"\xff\xd8\xff no picture")
    gone = [f"300wlp/LFPW/{p.stem}" for p in pictures]
    report = run(out, form, tmp_path / "o", skip_unreadable=True)
    if form == "csv":
        assert report.unreadable == [] and report.heads == {"all": 23}
        return
    assert report.unreadable == gone and report.heads == {"all": 21}
    with pytest.raises(UbhpdError, match="pictures of 2 of 23 heads"):
        run(out, form, tmp_path / "again")
    again = run(out, form, tmp_path / "again", Engine(2), skip_unreadable=True)
    assert again.units_kept >= 2
    assert again.as_dict() == report.as_dict() and tree(tmp_path / "o") == tree(tmp_path / "again")
    if form == "h5":
        rows = manifest.read(out / "pool.parquet").to_pylist()
        rows = [r for r in rows if r["drop_reason"] is None and r["sample_id"] not in gone]
        with h5py.File(tmp_path / "o" / "crops.h5", "r") as file:
            assert file["sample_id"].asstr()[:].tolist() == [r["sample_id"] for r in rows]
            for i, row in enumerate(rows):
                np.testing.assert_array_equal(file["image"][i], wanted_crop(out, row, "square", 224))


def test_all_pictures_gone(damaged, tmp_path):
    out, _ = damaged
    shutil.rmtree(tmp_path / "raw")
    with pytest.raises(UbhpdError, match="None of the pictures of 23 heads can be read; the first: "):
        run(out, "h5", tmp_path / "o", skip_unreadable=True)


def test_a_picture_of_another_size_is_refused(damaged, tmp_path):
    out, pictures = damaged
    pictures[0].unlink()
    cv2.imwrite(str(pictures[0]), np.zeros((300, 450, 3), np.uint8))
    for form in ("h5", "coco"):
        with pytest.raises(UbhpdError, match="has 450x300 pixels, the manifest says 450x450"):
            run(out, form, tmp_path / form)


def test_a_killed_export_goes_on(built, tmp_path):
    """SIGKILL in the middle, in the way of a batch system: no half-written file is taken for a whole one."""
    whole = run(built, "h5", tmp_path / "whole", size=64, unit_heads=4)
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom ubhpd import export\nfrom ubhpd.exports import _unit\n"
        "run = _unit.run\n"
        "def slow(unit, session):\n    time.sleep(0.15)\n    return run(unit, session)\n"
        "export.run = slow\n"
        "c = export.ExportConfig(Path(sys.argv[1]), 'h5', out=Path(sys.argv[2]), size=64, unit_heads=4)\n"
        "export.export(c)\n"
    )
    out = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", script, str(built), str(out)])
    deadline = time.monotonic() + 30
    while len(list(out.glob("work/done/*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "crops.h5").exists() and not (out / "export.json").exists()
    report = run(built, "h5", out, size=64, unit_heads=4)
    assert report.units_kept >= 2
    assert report.as_dict() == whole.as_dict() and tree(out) == tree(tmp_path / "whole")


def test_marks_without_their_pixels_count_for_nothing(built, tmp_path, monkeypatch):
    whole = run(built, "h5", tmp_path / "whole", size=16)
    monkeypatch.setattr(formats()["h5"], "write", lambda job: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(built, "h5", tmp_path / "o", size=16)
    monkeypatch.undo()
    (tmp_path / "o" / "work" / "crops.h5").unlink()
    report = run(built, "h5", tmp_path / "o", size=16)
    assert report.units_kept == 0 and report.as_dict() == whole.as_dict()
    assert tree(tmp_path / "o") == tree(tmp_path / "whole")


def test_a_folder_with_something_else_is_left_alone(built, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(UbhpdError, match="is there and is no export: name a new folder"):
        run(built, "csv", tmp_path / "mine")
    assert tree(tmp_path / "mine") == {"thesis.tex": b"years of work"}
    run(built, "h5", tmp_path / "o", size=16)
    before = tree(tmp_path / "o")
    for other in ({"size": 17}, {"size": 16, "recipe": "fsanet-0.6"}, {"size": 16, "split": "test"}):
        with pytest.raises(UbhpdError, match="holds another export"):
            run(built, "h5", tmp_path / "o", **other)
    assert tree(tmp_path / "o") == before
    run(built, "h5", tmp_path / "o", size=16)
    assert tree(tmp_path / "o") == before


def test_too_little_room(built, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(UbhpdError, match=r"needs about \d+\.\d MB, .* has 1\.0 MB free"):
        run(built, "h5", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_the_expected_size_is_said(built, rows, tmp_path):
    said = []
    export.export(ExportConfig(built, "h5", size=64, out=tmp_path / "o"), say=said.append)
    size = (tmp_path / "o" / "crops.h5").stat().st_size
    assert said[0].startswith("Takes about ") and f"{len(rows) * 64 * 64 * 3 / 1e3:,.0f} kB" in said[0]
    assert len(rows) * 64 * 64 * 3 <= size < 1.1 * len(rows) * 64 * 64 * 3 + 20_000


WRONG = {
    "format": ({"form": "hdf"}, "No export format is called 'hdf': choose from 6drepnet, coco, csv"),
    "recipe": ({"form": "h5", "recipe": "hope"}, "No crop recipe is called 'hope'"),
    "split": ({"form": "h5", "split": "valid"}, "has no split 'valid': it has test, train"),
    "size": ({"form": "h5", "size": 2}, "--size is 2: give the side"),
    "no size": ({"form": "h5", "recipe": "none"}, "has no size of its own: add --size"),
    "crops": ({"form": "6drepnet", "recipe": "square"}, "holds whole pictures, its loaders crop"),
    "picture": ({"form": "hf", "picture": "gif"}, "choose png or jpg"),
    "unit": ({"form": "h5", "unit_heads": 0}, "give 1 or more"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input(built, case, tmp_path):
    options, message = WRONG[case]
    with pytest.raises(UbhpdError, match=message):
        export.export(ExportConfig(built, out=tmp_path / "o", **options))
    assert not (tmp_path / "o").exists()


def test_manifests_that_cannot_be_exported(built, tmp_path):
    with pytest.raises(UbhpdError, match=r"holds no ubhpd\.parquet or pool\.parquet"):
        run(tmp_path, "h5", tmp_path / "o")
    with pytest.raises(UbhpdError, match="Cannot open"):
        run(tmp_path / "none.parquet", "h5", tmp_path / "o")
    shutil.copy(built / "pool.parquet", tmp_path / "lone.parquet")
    with pytest.raises(UbhpdError, match=r"build\.json does not say where the pictures are"):
        run(tmp_path / "lone.parquet", "h5", tmp_path / "o")
    with pytest.raises(UbhpdError, match="has no column 'split'"):
        run(built / "pool.parquet", "h5", tmp_path / "o", split="train")
    empty = manifest.read(built / "pool.parquet").slice(0, 0)
    manifest.write_parquet([empty], tmp_path / "empty.parquet")
    with pytest.raises(UbhpdError, match="nothing to export"):
        run(tmp_path / "empty.parquet", "h5", tmp_path / "o")
    with pytest.raises(UbhpdError, match="no usable head with a box for the recipe 6drepnet-aflw2000-legacy"):
        only = manifest.read(built / "pool.parquet").to_pandas().query("dataset == 'biwi'")
        table = pa.Table.from_pandas(only, empty.schema, preserve_index=False)
        manifest.write_parquet([table], tmp_path / "biwi.parquet")
        run(tmp_path / "biwi.parquet", "h5", tmp_path / "o", recipe="6drepnet-aflw2000-legacy")


@pytest.mark.parametrize("name", ["biwi/../../evil", "/etc/passwd", "biwi/a\nb", "biwi//x", "a\\b"])
def test_names_that_lead_elsewhere_are_refused(built, name, tmp_path):
    table = manifest.read(built / "pool.parquet").slice(0, 3)
    ids = pa.array([name, *table.column("sample_id").to_pylist()[1:]])
    shutil.copy(built / "build.json", tmp_path / "build.json")
    manifest.write_parquet([table.set_column(0, table.schema.field(0), ids)], tmp_path / "pool.parquet")
    with pytest.raises(UbhpdError, match="cannot be the name of a file"):
        run(tmp_path, "hf", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_an_unfinished_folder_of_an_older_version_is_another_export(built, tmp_path):
    write_json({"format": "h5"}, tmp_path / "o" / "work" / "export.json")
    with pytest.raises(UbhpdError, match="holds another export"):
        run(built, "h5", tmp_path / "o")


def command(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(["export", *map(str, arguments)])
    return stop.value.code, *capsys.readouterr()


def test_the_command(built, rows, tmp_path, capsys):
    code, out, err = command(capsys, built, "--format", "h5", "--recipe", "fsanet-0.6", "--split", "train",
                             "--out", tmp_path / "o")  # fmt: skip
    count = sum(r["split"] == "train" for r in rows)
    assert code == 0 and f"h5: {count} train heads, recipe fsanet-0.6 at 64 px" in out
    assert "Takes about" in err and f"to {tmp_path / 'o'}" in out
    code, out, err = command(capsys, built, "--format", "csv", "--out", tmp_path / "c", "--json", "--jobs", 2)
    assert (code, err) == (0, "") and json.loads(out)["heads"]["train"] == count
    assert command(capsys, built, "--format", "csv", "--out", tmp_path / "q", "--quiet") == (0, "", "")
    code, out, err = command(capsys, built)
    assert code == 2 and "Name the folder to export and a format" in err
    assert command(capsys, built, "--format", "x")[0] == 2


def test_the_list_names_formats_and_recipes(capsys):
    code, out, _ = command(capsys, "--list")
    assert code == 0
    for name in (*FORMATS, *RECIPES):
        assert f"\n{name} " in f"\n{out}"
    content = json.loads(command(capsys, "--list", "--json")[1])
    assert set(content["formats"]) == set(FORMATS) and set(content["recipes"]) == set(RECIPES)


def test_the_default_folder_says_what_is_in_it(built, tmp_path):
    for name in ("pool.parquet", "build.json"):
        shutil.copy(built / name, tmp_path / name)
    report = export.export(ExportConfig(tmp_path, "csv"))
    assert Path(report.out) == tmp_path / "exports" / "pool-csv-square-224"


def test_the_page_explains_every_format_and_recipe():
    page = (REPOSITORY / "docs" / "exports.md").read_text()
    for name in (*FORMATS, *RECIPES):
        assert f"\n| `{name}` |" in page, name
