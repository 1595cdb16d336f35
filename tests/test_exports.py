"""The export formats: what is written comes back, as the loaders of other repositories read it."""

import csv
import json

import cv2
import h5py
import numpy as np
import pytest
import scipy.io
from export_data import FORMATS, SPACE, built_once, run, usable, wanted_crop
from wheel_check import REPOSITORY

from ubhpd import cli, manifest
from ubhpd.images.crops import RECIPES, crop_box
from ubhpd.images.reading import Images


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return built_once(tmp_path_factory)


@pytest.fixture(scope="module")
def rows(built):
    return usable(built)


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
        whole = cv2.imread(str(root / row["image_path"]))
        x0, x1, y0, y1 = int(min(x)), int(max(x)), int(min(y)), int(max(y))
        w, h = x1 - x0, y1 - y0
        x0, x1 = max(int(x0 - 0.6 * w), 0), min(int(x1 + 0.6 * w), 449)
        y0, y1 = max(int(y0 - 0.6 * h), 0), min(int(y1 + 0.6 * h), 449)
        np.testing.assert_array_equal(image, cv2.resize(whole[y0:y1, x0:x1], (64, 64)))
        seen += 1
    assert seen > 3


def test_6drepnet_lists_images_and_labels(built, rows, tmp_path):
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


def test_coco_copies_whole_images_once(built, rows, tmp_path):
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
                frame = Images.of_build(built).image("upna", row["image_path"], row["frame_index"])
                np.testing.assert_array_equal(cv2.imread(str(path)), frame)
            else:
                assert path.read_bytes() == Images.of_build(built).data(row["dataset"], row["image_path"])
    assert max(len(v) for v in named.values()) > 1, "no image with two heads: the fixture tests nothing"
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


def test_hf_can_hold_jpeg_and_whole_images(built, rows, tmp_path):
    run(built, "hf", tmp_path / "jpg", size=96, image="jpg", split="test")
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


def test_of_a_pool_only_usable_heads_are_exported(built, tmp_path):
    pool = manifest.read(built / "pool.parquet").to_pylist()
    usable = [r["sample_id"] for r in pool if r["drop_reason"] is None]
    assert len(usable) < len(pool)
    run(built / "pool.parquet", "csv", tmp_path / "o", recipe="hopenet-biwi")
    with open(tmp_path / "o" / "heads.csv", newline="", encoding="utf-8") as file:
        assert [t["sample_id"] for t in csv.DictReader(file)] == usable


def test_the_page_explains_every_format_and_recipe():
    page = (REPOSITORY / "docs" / "exports.md").read_text()
    for name in (*FORMATS, *RECIPES):
        assert f"\n| `{name}` |" in page, name
