"""Tables of heads: every form of pose and box, every kind of bad row, and docs/own-data.md as it stands."""

import csv
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trees_for_tests import Dataset, Kind, read_all

from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import camera_to_canonical, matrix_from_euler, quaternion_from_matrix
from ubhpd.pool import sources

PAGE = Path(__file__).parents[1] / "docs" / "own-data.md"
POSES = {f"{i:03d}": (9.5 * i - 20.0, 5.25 * i - 12.0, 3.0 * i - 7.0) for i in range(6)}  # yaw, pitch, roll


def image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    cv2.imwrite(str(path), pixels)


def write(root):
    """Write a Parquet table with the pose in all three forms below a folder, and return the pose of each head."""
    folder = root / "Own"
    for name in POSES:
        image(folder / f"{name}.png")
    rotations = matrix_from_euler(list(POSES.values()))
    quaternions = np.roll(quaternion_from_matrix(rotations), 1, axis=1)
    columns = {
        "image": [f"{name}.png" for name in POSES],
        **{f"{a}_deg": [pose[i] for pose in POSES.values()] for i, a in enumerate(("yaw", "pitch", "roll"))},
        "rotation": [r.ravel().tolist() for r in rotations],
        "quaternion": quaternions.tolist(),
        "bbox_xyxy": [[10.0, 5.0, 40.0, 30.0]] * len(POSES),
        "person": ["anna", "ben", None, "anna", "ben", "cleo"],
        "recording": ["a"] * len(POSES),
        "frame": list(range(len(POSES))),
        "landmarks68": [[float(k) for k in range(136)]] * len(POSES),
    }
    pq.write_table(pa.table(columns), folder / "heads.parquet")
    return {f"table/{name}": pose for name, pose in POSES.items()}


TREE = Dataset("Own", write, (Kind("table", "003.png", "table/003"), Kind("table", "heads.parquet", "table/", "error")))


def heads(folder, rows, name="heads.csv", **options):
    """Write a CSV with these rows, each a dictionary, and return what the reader says."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return read_all("table", folder, **options)


def row(number=1, **more):
    return {"image": f"{number:03d}.png", "yaw": 10 + number, "pitch": -5, "roll": 2, **more}


@pytest.fixture
def folder(tmp_path):
    for number in range(5):
        image(tmp_path / f"{number:03d}.png")
    return tmp_path


# Poses


def test_everything_that_a_row_says_is_in_the_head(tmp_path):
    write(tmp_path)
    head = read_all("table", tmp_path / "Own").records["table/001"]
    assert (head.yaw_deg, head.pitch_deg, head.roll_deg) == POSES["001"]
    assert (head.subject_id, head.sequence_id, head.frame_index) == ("table/ben", "table/a", 1)
    assert list(head.bbox_xyxy) == [10, 5, 40, 30] and head.bbox_kind == head.landmarks_kind == "table"
    assert head.landmarks68[135] == 135 and (head.image_width, head.image_height) == (80, 60)
    assert read_all("table", tmp_path / "Own").records["table/002"].subject_id is None


@pytest.mark.parametrize("pose", ["angles", "matrix", "quaternion"])
def test_the_three_forms_of_a_pose_are_one_rotation(tmp_path, pose):
    truth = write(tmp_path)
    said = read_all("table", tmp_path / "Own", pose=pose)
    for name, angles in truth.items():
        head = said.records[name]
        np.testing.assert_allclose((head.yaw_deg, head.pitch_deg, head.roll_deg), angles, atol=1e-9)
        np.testing.assert_allclose(np.reshape(head.rotation, (3, 3)), matrix_from_euler(angles), atol=1e-12)
        assert (head.raw_convention is None) == (pose != "angles")


def test_columns_of_a_matrix_and_of_a_quaternion_in_another_frame(folder):
    rotation = matrix_from_euler((30.0, -10.0, 5.0))
    seen = camera_to_canonical(rotation).T
    numbers = {f"r{i + 1}{j + 1}": seen[i, j] for i in range(3) for j in range(3)}
    options = {"frame": "camera", "rotates": "frame_to_head"}
    head = heads(folder, [{"image": "001.png", **numbers}], **options).records["table/001"]
    np.testing.assert_allclose((head.yaw_deg, head.pitch_deg, head.roll_deg), (30, -10, 5), atol=1e-9)
    four = dict(zip(("qx", "qy", "qz", "qw"), quaternion_from_matrix(rotation) * 3, strict=True))
    head = heads(folder, [{"image": "001.png", **four}]).records["table/001"]
    np.testing.assert_allclose((head.yaw_deg, head.pitch_deg, head.roll_deg), (30, -10, 5), atol=1e-9)


def test_a_list_quaternion_in_both_orders(folder):
    last = quaternion_from_matrix(matrix_from_euler((30.0, -10.0, 5.0)))
    for order, four in (("xyzw", last), ("wxyz", np.roll(last, 1))):
        text = " ".join(map(str, four))
        head = heads(folder, [{"image": "001.png", "quaternion": text}], quaternion=order).records["table/001"]
        assert abs(head.yaw_deg - 30) < 1e-9


def test_conventions_and_units(folder):
    radians = {"image": "001.png", **dict(zip(("pitch", "yaw", "roll"), np.radians((-5.0, 11.0, 2.0)), strict=True))}
    head = heads(folder, [radians], convention="300wlp").records["table/001"]
    np.testing.assert_allclose((head.yaw_deg, head.pitch_deg, head.roll_deg), (11, -5, 2), atol=1e-9)
    assert head.raw_convention == "300wlp" and abs(head.raw_angles[0] - np.radians(-5)) < 1e-12
    head = heads(folder, [row(1)], convention="synhead").records["table/001"]
    assert abs(head.yaw_deg + 11) < 1e-9
    named = {"image": "001.png", "yaw_rad": np.pi / 6, "pitch_rad": 0, "roll_rad": 0}
    assert abs(heads(folder, [named]).records["table/001"].yaw_deg - 30) < 1e-9
    assert abs(heads(folder, [named], unit="deg").records["table/001"].yaw_deg - np.pi / 6) < 1e-9


def test_angles_that_look_like_radians_are_a_warning(folder):
    rows = [{"image": "001.png", "yaw": 0.01 * i, "pitch": 0.1, "roll": 0} for i in range(30)]
    assert any("looks like radians: set -O table.unit=rad" in text for text in heads(folder, rows).warnings)
    assert not heads(folder, rows, unit="rad").warnings


def test_a_rounded_matrix_becomes_a_rotation_and_another_one_costs_the_head(folder):
    rounded = np.round(matrix_from_euler((30.0, -10.0, 5.0)), 2)
    for matrix, is_good in ((rounded, True), (rounded * 1.5, False), (np.diag([1.0, 1.0, -1.0]), False)):
        said = heads(folder, [{"image": "001.png", "rotation": " ".join(map(str, matrix.ravel()))}])
        assert ("table/001" in said.records) == is_good
        if is_good:
            found = np.reshape(said.records["table/001"].rotation, (3, 3))
            np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-12)
        else:
            assert "its matrix is no rotation" in said.drops["table/001"].detail


# Rows


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        ({"yaw": "ten"}, "bad_label", "yaw is 'ten' and no number"),
        ({"yaw": ""}, "bad_label", "its pose is incomplete"),
        ({"yaw": "nan"}, "bad_label", "its pose is incomplete"),
        ({"yaw": "1e9"}, "bad_label", "an angle is beyond 3600 degrees"),
        ({"image": ""}, "missing_image", "it names no image"),
        ({"image": "none.png"}, "missing_image", "none.png: no such file"),
        ({"image": "../outside.png"}, "bad_label", "'../outside.png' lies outside the folder"),
        ({"image": "/etc/passwd"}, "bad_label", "lies outside the folder"),
        ({"image": "C:\\own\\1.png"}, "bad_label", "lies outside the folder"),
        ({"x1": 50, "x2": 10}, "bad_label", "is no box from left top to right bottom"),
        ({"x1": "", "x2": 10}, "bad_label", "is no box from left top to right bottom"),
        ({"x1": 500, "x2": 510}, "bad_label", "lies outside the image of 80 x 60 pixels"),
    ],
)
def test_a_bad_row_costs_one_head(folder, change, reason, detail):
    box = {"x1": 1, "y1": 2, "x2": 30, "y2": 40}
    said = heads(folder, [row(1, id="a", **box), row(2, id="b", **box) | change, row(3, id="c", **box)])
    assert set(said.records) == {"table/a", "table/c"} and set(said.drops) == {"table/b"}
    assert said.drops["table/b"].reason == reason and detail in said.drops["table/b"].detail
    assert reason == "missing_image" or "row 3" in said.drops["table/b"].detail


def test_several_heads_in_an_image_and_two_rows_of_one_name(folder):
    said = heads(folder, [row(1), row(1), row(2)])
    assert set(said.records) == {"table/001", "table/001#2", "table/002"}
    said = heads(folder, [row(1, id="a"), row(2, id="a")])
    assert set(said.records) == {"table/a"} and said.drops["table/a#row3"].reason == "duplicate_label"


def test_boxes_by_corner_and_size_as_columns_and_as_text(folder):
    for more, options in (
        ({"x": 5, "y": 6, "w": 20, "h": 30}, {}),
        ({"bbox": "[5, 6, 20, 30]"}, {"box": "xywh"}),
        ({"bbox": "5 6 25 36"}, {"box": "xyxy"}),
        ({"left": 5, "top": 6, "right": 25, "bottom": 36}, {}),
    ):
        assert list(heads(folder, [row(1, **more)], **options).records["table/001"].bbox_xyxy) == [5, 6, 25, 36]
    assert heads(folder, [row(1, x=5, y=6, w=20, h=30)], box="none").records["table/001"].bbox_xyxy is None
    with pytest.raises(UbhpdError, match=r"does not say how its column bbox is meant: set -O table\.box"):
        heads(folder, [row(1, bbox="5 6 25 36")])


def test_one_split_is_read_and_the_rest_is_counted(folder):
    rows = [row(1, split="train"), row(2, split="test"), row(3, split="train")]
    said = heads(folder, rows, split="train")
    assert set(said.records) == {"table/001", "table/003"} and any(
        "1 rows of other splits" in n.text for n in said.notes
    )
    with pytest.raises(UbhpdError, match="has no row of the split 'val': its splits are test, train"):
        heads(folder, rows, split="val")
    with pytest.raises(UbhpdError, match="has no column split"):
        heads(folder, [row(1)], split="train")


# Files


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_a_byte_order_mark_and_odd_headers(folder, delimiter):
    text = (
        f'Image Path{delimiter}"YAW"{delimiter}Pitch{delimiter}roll\r\n001.png{delimiter}1{delimiter}2{delimiter}3\r\n'
    )
    (folder / "heads.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_all("table", folder).records["table/001"].pitch_deg == 2


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("heads.csv", b"", "has one column only"),
        ("heads.csv", b"image\n001.png\n", "has one column only"),
        ("heads.csv", b"image,yaw,yaw,pitch,roll\n001.png,1,1,2,3\n", "has two columns 'yaw'"),
        ("heads.csv", b"file_id,yaw,pitch,roll\n001.png,1,2,3\n", "has no column of image paths"),
        ("heads.csv", b"image,yaw,pitch\n001.png,1,2\n", "has no pose"),
        ("heads.csv", b"image,yaw,pitch,roll\n001.png,1,2\n", "cannot be read"),
        ("heads.csv", b"image,yaw,pitch,roll\n\xff\xfe.png,1,2,3\n", "cannot be read"),
        ("heads.parquet", b"PAR1 but nothing else PAR1", "cannot be read"),
        ("heads.json", b"[1, 2", "cannot be read"),
        ("heads.json", b"[" * 100_000, "cannot be read"),
        ("heads.json", b'{"images": []}', "is no COCO file"),
        ("heads.xlsx", b"PK", "is none of .csv"),
    ],
)
def test_a_table_that_is_none_is_one_sentence(folder, name, content, sentence):
    (folder / name).write_bytes(content)
    with pytest.raises(UbhpdError, match=re.escape(sentence)) as raised:
        read_all("table", folder, file=name)
    assert "\n" not in str(raised.value)


def test_a_folder_without_a_table_or_with_two_asks_for_one(folder):
    with pytest.raises(UbhpdError, match="has none of heads.csv, heads.parquet, heads.json"):
        read_all("table", folder)
    for name in ("heads.csv", "heads.json"):
        (folder / name).touch()
    with pytest.raises(UbhpdError, match=r"has heads\.csv and heads\.json: name the table by --root table=FILE"):
        read_all("table", folder)


def test_coco(folder):
    content = {
        "images": [{"id": 7, "file_name": "001.png"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "bbox": [5, 6, 20, 30],
                "attributes": {"yaw_deg": 3, "pitch_deg": 2, "roll_deg": 1},
            },
            {"id": 2, "image_id": 9, "bbox": [5, 6, 20, 30], "yaw_deg": 3, "pitch_deg": 2, "roll_deg": 1},
        ],
    }
    (folder / "heads.json").write_text(json.dumps(content))
    said = read_all("table", folder)
    assert list(said.records["table/001"].bbox_xyxy) == [5, 6, 25, 36] and said.records["table/001"].yaw_deg == 3
    assert [d.reason for d in said.drops.values()] == ["missing_image"]


# The command line


def test_what_is_exported_as_coco_is_read_back(tmp_path, ubhpd):
    from ubhpd.manifest import read

    write(tmp_path)
    place = tmp_path / "Own" / "heads.parquet"
    assert (
        ubhpd("build", "--sources", "table", "--root", f"table={place}", "--out", tmp_path / "a", "--pool-only")[0] == 0
    )
    code, _, err = ubhpd("export", tmp_path / "a", "--format", "coco", "--out", tmp_path / "c")
    assert code == 0, err
    (exported,) = (tmp_path / "c" / "annotations").glob("*.json")
    code, _, err = ubhpd("build", "--sources", "table:again", "--root", f"table:again={tmp_path / 'c'}",
                         "-O", f"again.file=annotations/{exported.name}",
                         "--out", tmp_path / "b", "--pool-only")  # fmt: skip
    assert code == 0, err
    names = ("sample_id", "dataset", "yaw_deg", "rotation", "bbox_xyxy")
    before, after = (read(tmp_path / own / "pool.parquet", names).to_pydict() for own in "ab")
    assert after.pop("dataset") == ["again"] * 6 and before.pop("dataset") == ["table"] * 6
    assert after.pop("sample_id") == [f"again/{own}" for own in before.pop("sample_id")]
    assert before == after


def test_several_tables_in_one_build_whose_parts_are_kept(tmp_path, ubhpd):
    for name in ("one", "two"):
        write(tmp_path / name)
    roots = [
        w for name in ("one", "two") for w in ("--root", f"table:{name}={tmp_path / name / 'Own' / 'heads.parquet'}")
    ]
    command = ("build", "--sources", "table:one,table:two", *roots, "--out", tmp_path / "out", "--pool-only", "--json")
    first, second = (json.loads(ubhpd(*command)[1]) for _ in range(2))
    assert {n: d["usable"] for n, d in first["datasets"].items()} == {"one": 6, "two": 6}
    assert first["fingerprint"] == second["fingerprint"]
    assert first["datasets"]["one"]["roots"] == [[str(tmp_path / "one" / "Own"), ""]]
    assert "2 kept" in ubhpd(*command[:-1])[1]
    image(tmp_path / "one" / "Own" / "002.png", seed=9)
    assert "1 units read, 1 kept" in ubhpd(*command[:-1])[1]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("biwi:mine", "biwi is one dataset and takes no other name"),
        ("table:biwi", "has no good name for a dataset"),
        ("table:", "has no good name for a dataset"),
        ("table:../x", "has no good name for a dataset"),
        ("tabel:x", "did you mean table"),
    ],
)
def test_names_of_datasets(source, sentence):
    with pytest.raises(UbhpdError, match=sentence):
        sources.select([source])


def test_a_table_without_a_place_says_how_to_name_one(ubhpd, tmp_path):
    code, _, err = ubhpd("build", "--sources", "table", "--out", tmp_path / "out")
    assert code == 2 and "--root table=FILE.csv" in err


def test_the_commands_of_the_page(tmp_path, ubhpd, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    table = re.search(r"```csv\n(.*?)```", text, re.DOTALL)[1]
    (tmp_path / "DATA").mkdir()
    (tmp_path / "DATA" / "heads.csv").write_text(table)
    for line in csv.DictReader(table.splitlines()):
        path = tmp_path / "DATA" / line["image"]
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.zeros((120, 120, 3), np.uint8))
    assert ubhpd("weights", "init", "--model", "ssrnet_md", "--out", "W.safetensors")[0] == 0
    commands = re.search(r"```sh\n(.*?)```", text, re.DOTALL)[1].splitlines()
    for command in commands:
        code, out, err = ubhpd(*command.split()[1:])
        assert code == 0, (command, err)
    assert "MAE" in out


def test_the_page_names_every_column_and_option():
    from ubhpd.builders import table

    text = PAGE.read_text(encoding="utf-8")
    names = {name for own in table._NAMES.values() for name in own} | {n for own in table._CORNERS for n in own}
    others = {"rotation_matrix", "matrix", "quat", "box", "box_xyxy", "box_xywh"}  # second names of lists
    assert not {name for name in names if f"`{name}`" not in text} - others
    for option in (
        "convention",
        "unit",
        "frame",
        "rotates",
        "quaternion",
        "pose",
        "box",
        "images",
        "split",
        "synthetic",
        "file",
    ):
        assert f"mycar.{option}=" in text
