import numpy as np
import pytest
from score_data import heads, write_manifest

from ubhpd.core.bins import counts
from ubhpd.core.errors import UbhpdError
from ubhpd.evaluation.pairing import known, training_set


def table(tmp_path, width, extra=""):
    edges = np.arange(-96.0, 96.0, width)
    rows = [f"{low},{low + width},1,2,3" for low in edges]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["low_deg,high_deg,yaw,pitch,roll", "-inf,-96,5,0,0", *rows]) + f"\n{extra}")
    return str(path)


@pytest.mark.parametrize("width", [1.0, 2.0, 3.0, 6.0])
def test_finer_bins_are_joined_and_those_outside_counted_apart(tmp_path, width):
    found = training_set(table(tmp_path, width))
    assert (found.counts == np.array([[1], [2], [3]]) * (12 / width)).all()
    assert found.outside.tolist() == [5 + 12 / width, 2 * 12 / width, 3 * 12 / width]


def test_known_sets_are_found_in_any_case():
    assert training_set("300w-lp").name == "300W-LP"
    assert {"300W-LP", "AFLW2000", "BIWI"} == set(known())
    assert known()["BIWI"].counts.sum() == 3 * 15_678 and known()["AFLW2000"].outside.tolist() == [0, 2, 4]


def test_a_manifest_is_counted_without_what_it_refuses(tmp_path):
    _, true = heads(30)
    path = write_manifest(tmp_path / "pool.parquet", true, dropped={0, 1})
    assert (training_set(str(path)).counts == counts(true[2:]).inside).all()
    assert (training_set(str(tmp_path)).counts == counts(true[2:]).inside).all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("low_deg,high_deg,yaw,pitch\n", "no column roll"),
        ("low_deg,high_deg,yaw,pitch,roll\n", "counts no head"),
        ("low_deg,high_deg,yaw,pitch,roll\n-80,-76,1,1,1\n", "row 1: -80 to -76 lies in two"),
        ("low_deg,high_deg,yaw,pitch,roll\n0,3,1,x,1\n", "row 1: a value is not a number"),
        ("low_deg,high_deg,yaw,pitch,roll\n3,0,1,1,1\n", "low_deg < high_deg"),
        ("low_deg,high_deg,yaw,pitch,roll\n0,3,1,-1,1\n", "counts of 0 or more"),
        ("low_deg,high_deg,yaw,pitch,roll\n0,3,1,0,1\n", "no head inside"),
        ("low_deg,high_deg,yaw,pitch,roll\n0,3,1,\0,1\n", "row 1: a value is not a number|is not CSV"),
        ("low_deg,high_deg,yaw,pitch,roll\n0,3,1,1," + 200_000 * "1", "t.csv is not CSV"),
    ],
)
def test_bad_tables_are_said(tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UbhpdError, match=said):
        training_set(str(tmp_path / "t.csv"))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UbhpdError, match="No training set 'AFLV'.*300W-LP"):
        training_set("AFLV")
