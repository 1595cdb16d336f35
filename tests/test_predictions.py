import pickle

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from realdata import needs
from score_data import HEADER, HOPENET, heads, write_csv, write_manifest

from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import matrix_from_euler, quaternion_from_matrix
from ubhpd.evaluation import predictions
from ubhpd.evaluation.pairing import pair
from ubhpd.evaluation.predictions import read

GOOD = "sample_id,yaw,pitch,roll\na,1,2,3\nb,4,5,6\n"


def write(tmp_path, text, name="p.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_plain_form(tmp_path):
    found = read(write(tmp_path, GOOD))
    assert found.sample_id.to_pylist() == ["a", "b"]
    assert found.predicted_deg.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert found.true_deg is None and found.predicted_rotation is None and len(found) == 2


@pytest.mark.parametrize("header", ["image,gt_yaw,gt_pitch,gt_roll,pred_yaw,pred_pitch,pred_roll",
                                    "id,yaw_true,pitch_true,roll_true,yaw,pitch,roll",
                                    "name,true_yaw,true_pitch,true_roll,yaw_pred,pitch_pred,roll_pred",
                                    " Sample_ID,Yaw_true,PITCH_TRUE,roll_true,yaw_deg,pitch_deg,roll_deg"])  # fmt: skip
def test_headers_in_use_are_understood(tmp_path, header):
    found = read(write(tmp_path, f"{header}\na,1,2,3,4,5,6\n"))
    assert found.true_deg.tolist() == [[1, 2, 3]] and found.predicted_deg.tolist() == [[4, 5, 6]]


def test_the_order_of_columns_and_what_is_unused_are_the_headers_business(tmp_path):
    found = read(write(tmp_path, "roll,confidence,sample_id,yaw,pitch\n3,0.9,a,1,2\n"))
    assert found.predicted_deg.tolist() == [[1, 2, 3]] and found.roles.unused == ("confidence",)


def test_byte_order_mark_carriage_returns_quotes_and_no_last_newline(tmp_path):
    text = '\ufeff"sample_id","yaw","pitch","roll"\r\n"a, b",1.5,-2e0,+3\r\nb,4,5,6'
    found = read(write(tmp_path, text))
    assert found.sample_id.to_pylist() == ["a, b", "b"]
    assert found.predicted_deg.tolist() == [[1.5, -2, 3], [4, 5, 6]]


@pytest.mark.parametrize("form", ["matrix", "quaternion"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rotations_give_the_angles_of_the_convention(tmp_path, form, suffix):
    angles, _ = heads(50)
    rotation = matrix_from_euler(angles)
    if form == "matrix":
        values = dict(zip(predictions.MATRIX, rotation.reshape(-1, 9).T, strict=True))
    else:
        values = dict(zip(predictions.QUATERNION, 2.5 * quaternion_from_matrix(rotation).T, strict=True))
    table = pa.table({"sample_id": [str(i) for i in range(50)], **values})
    path = tmp_path / f"p.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, path)
    else:
        pacsv.write_csv(table, path)
    found = read(path)
    assert found.roles.form == form
    assert found.predicted_deg == pytest.approx(angles, abs=1e-6)
    assert found.predicted_rotation == pytest.approx(rotation, abs=1e-9)


def test_parquet_is_told_by_its_content_and_integers_are_numbers(tmp_path):
    path = tmp_path / "p.csv"
    pq.write_table(pa.table({"sample_id": [7, 8], "yaw": [1, 2], "pitch": [0.5, 1], "roll": [0, 0]}), path)
    found = read(path)
    assert found.sample_id.to_pylist() == ["7", "8"] and found.predicted_deg.tolist() == [[1, 0.5, 0], [2, 1, 0]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("  \n", "is empty"),
        ("sample_id,yaw,pitch,roll\n", "no rows"),
        ("sample_id;yaw;pitch;roll\na;1;2;3\n", "semicolons"),
        ("sample_id\tyaw\tpitch\troll\na\t1\t2\t3\n", "tabs"),
        ("sample_id,yaw,pitch\na,1,2\n", "no roll"),
        ("yaw,pitch,roll\n1,2,3\n", "no column sample_id"),
        ("a,1,2,3\nb,4,5,6\n", "its header is a,1,2,3"),
        ("sample_id,x,y,z\na,1,2,3\n", "no predicted angles"),
        ("sample_id,yaw,pitch,roll,qx,qy,qz,qw\na,1,2,3,0,0,0,1\n", "keep one"),
        ("sample_id,yaw,pitch,roll,pred_yaw,pred_pitch,pred_roll\na,1,2,3,1,2,3\n", "twice"),
        ("sample_id,yaw,yaw,pitch,roll\na,1,1,2,3\n", "two columns 'yaw'"),
        ("sample_id,yaw,pitch,roll\na,1,2,3\nb,1,2\n", "row 2: 3 columns where the header has 4"),
        ("sample_id,yaw,pitch,roll\na,1,5,2,5,3,5\n", "row 1: 7 columns.*decimal comma"),
        ('sample_id,yaw,pitch,roll\na,1,2,3\nb,"1,5",2,3\n', "row 2, column yaw: '1,5'.*decimal point"),
        ("sample_id,yaw,pitch,roll\na,1,2,3\nb,4,five,6\n", "row 2, column pitch: 'five' is not a number"),
        ("sample_id,yaw,pitch,roll\na,1,2,3\nb,nan,5,6\n", "row 2, column yaw: nan is no angle"),
        ("sample_id,yaw,pitch,roll\na,1,2,inf\nb,4,5,inf\n", "row 1, column roll: inf.*2 such values"),
        ("sample_id,yaw,pitch,roll\na,1,2,\n", "row 1, column roll: nan"),
        ("sample_id,yaw,pitch,roll\na,1,2,3\n,4,5,6\n", "row 2: the id is missing"),
        ("sample_id,yaw,pitch,roll\nb,1,2,3\na,1,2,3\nb,4,5,6\n", "row 3: the id 'b' stands in row 1"),
        ("sample_id,qx,qy,qz,qw\na,0,0,0,0\n", "row 1: the quaternion is zero"),
        ("sample_id,r00,r01,r02,r10,r11,r12,r20,r21,r22\na,1,0,0,0,1,0,0,0,-1\n", "row 1: r00 to r22"),
        ("sample_id,r00,r01,r02,r10,r11,r12,r20,r21,r22\na,2,0,0,0,1,0,0,0,1\n", "are not orthonormal"),
        ("sample_id,yaw,pitch,roll\na,1,2,3\n".encode("utf-16"), "UTF-16"),
        (b"sample_id,yaw,pitch,roll\n\xff\xfe,1,2,3\n", "UTF-8"),
        (pickle.dumps({"yaw": 1}), "never opened"),
        (b"PK\x03\x04....", "zip archive"),
        (b"\x93NUMPY....", r"\.npy"),
        (b"PAR1 but not really", "not readable Parquet"),
        (b"\x00\x01\x02\x03", "its header is"),
    ],
)
def test_bad_files_are_said_in_one_sentence(tmp_path, text, said):
    path = write(tmp_path, text)
    with pytest.raises(UbhpdError, match=said) as caught:
        read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_are_said(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(UbhpdError, match="Cannot open"):
            read(path)


def test_text_in_a_parquet_column_of_numbers_is_said(tmp_path):
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"sample_id": ["a"], "yaw": ["1"], "pitch": [1.0], "roll": [2.0]}), path)
    with pytest.raises(UbhpdError, match="column yaw holds string"):
        read(path)


def test_a_bad_row_far_down_is_found(tmp_path):
    rows = "".join(f"id{i},1,2,3\n" for i in range(200_000))
    path = write(tmp_path, f"sample_id,yaw,pitch,roll\n{rows}last,1,x,3\n")
    with pytest.raises(UbhpdError, match="row 200001, column pitch: 'x'"):
        read(path)


def test_the_doctor_may_read_what_scoring_refuses(tmp_path):
    path = write(tmp_path, "sample_id,yaw,pitch,roll\na,1,2,3\na,nan,5,6\n")
    found = read(path, strict=False)
    assert len(found) == 2 and np.isnan(found.predicted_deg[1, 0])


def test_nothing_is_ever_unpickled(tmp_path, monkeypatch):
    monkeypatch.setattr(pickle, "load", lambda *_: pytest.fail("unpickled"))
    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("unpickled"))
    monkeypatch.setattr(np, "load", lambda *_: pytest.fail("loaded"))
    for name in ("p.npz", "p.pkl", "p.npy"):
        with pytest.raises(UbhpdError):
            read(write(tmp_path, {"p.npz": b"PK\x03\x04", "p.pkl": b"\x80\x04", "p.npy": b"\x93NUMPY"}[name], name))


# with a manifest


def test_ids_are_matched_whatever_their_order(tmp_path):
    predicted, true = heads(40)
    order = np.random.default_rng(0).permutation(40)
    ids = [f"set/{i:05d}" for i in order]
    path = write_csv(tmp_path / "p.csv", predicted[order], ids=ids)
    found = pair(read(path), write_manifest(tmp_path / "m.parquet", true))
    assert found.pairs.true_deg == pytest.approx(true[order])
    assert found.pairs.true_rotation == pytest.approx(matrix_from_euler(true[order]))
    assert (found.coverage, found.missing, found.refused) == (1.0, 0, 0)


def test_missing_predictions_lower_the_coverage(tmp_path):
    predicted, true = heads(40)
    path = write_csv(tmp_path / "p.csv", predicted[:30])
    found = pair(read(path), write_manifest(tmp_path / "m.parquet", true))
    assert found.coverage == pytest.approx(30 / 40) and found.missing == 10 and found.example_missing == "set/00030"


def test_heads_that_the_manifest_refuses_are_not_scored(tmp_path):
    predicted, true = heads(40)
    manifest = write_manifest(tmp_path / "m.parquet", true, dropped={0, 5})
    found = pair(read(write_csv(tmp_path / "p.csv", predicted)), manifest)
    assert (len(found.sample_id), found.wanted, found.refused, found.coverage) == (38, 38, 2, 1.0)
    assert found.pairs.true_deg == pytest.approx(np.delete(true, [0, 5], axis=0))


def test_ids_of_another_manifest_are_said(tmp_path):
    predicted, true = heads(10)
    manifest = write_manifest(tmp_path / "m.parquet", true)
    none = write_csv(tmp_path / "p.csv", predicted, ids=[f"other/{i}" for i in range(10)])
    with pytest.raises(UbhpdError, match="row 1: the id 'other/0' is not in.*None of the ids.*'set/00000'"):
        pair(read(none), manifest)
    some = write_csv(tmp_path / "q.csv", predicted, ids=[f"set/{i:05d}" for i in range(9)] + ["other/9"])
    with pytest.raises(UbhpdError, match="row 10.*1 of 10 ids"):
        pair(read(some), manifest)


def test_groups_come_from_the_manifest_or_the_file(tmp_path):
    predicted, true = heads(6)
    manifest = write_manifest(tmp_path / "m.parquet", true, subjects=list("bbaacc"), sequences=["s"] * 5 + [None])
    found = pair(read(write_csv(tmp_path / "p.csv", predicted)), manifest)
    assert found.groups["subject_id"].tolist() == [1, 1, 0, 0, 2, 2] and "sequence_id" not in found.groups
    text = HEADER + ",subject_id\na,1,2,3,4,5,6,x\nb,1,2,3,4,5,6,y\n"
    assert pair(read(write(tmp_path, text))).groups["subject_id"].tolist() == [0, 1]


def test_no_truth_anywhere_is_said(tmp_path):
    with pytest.raises(UbhpdError, match="give --manifest"):
        pair(read(write(tmp_path, GOOD)))


def test_a_manifest_of_another_schema_version_is_said(tmp_path):
    predicted, true = heads(3)
    good = write_manifest(tmp_path / "m.parquet", true)
    table = pq.read_table(good)
    table = table.replace_schema_metadata({b"ubhpd.schema_version": b"99", b"ubhpd.fingerprint": b"0"})
    pq.write_table(table, tmp_path / "old.parquet")
    with pytest.raises(UbhpdError, match="schema 99"):
        pair(read(write_csv(tmp_path / "p.csv", predicted)), tmp_path / "old.parquet")
    with pytest.raises(UbhpdError, match="not a manifest|not a readable"):
        pair(read(write_csv(tmp_path / "p.csv", predicted)), tmp_path / "p.csv")


@needs("predictions")
def test_the_real_file_is_read():
    found = read(HOPENET)
    assert len(found) == 1969 and found.roles.form == "angles" and found.true_deg.shape == (1969, 3)
