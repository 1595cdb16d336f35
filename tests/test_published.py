import numpy as np
import pytest
from realdata import REAL

from ubhpd.core.errors import UbhpdError
from ubhpd.evaluation.printed_results import lint, printed_pairs, results
from ubhpd.leaderboards.reported import comparable

HEADER = "paper,table,train,test,method,yaw,pitch,roll,mae,ubmae,model_mb,note\n"
FIVE_PAPERS = 211  # rows of the five papers; the rest is added after them
SHARED = REAL.parent / "tables" / "published_results.csv"


def table(tmp_path, *rows):
    path = tmp_path / "t.csv"
    path.write_text(HEADER + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_the_shipped_table_is_whole():
    rows = results()
    assert len(rows) == FIVE_PAPERS + 62
    five = {"OsGG-Net 2021", "Hopenet 2018", "FSA-Net 2019", "EHPNet 2022", "DADL 2023"}
    assert {r.paper for r in rows[:FIVE_PAPERS]} == five
    later = {"6DRepNet 2022", "yakhyo 2024", "Head Pose Plus 2023", "DirectMHP 2023"}
    assert {r.paper for r in rows[FIVE_PAPERS:]} == later | {"DADL 2023", "EHPNet 2022"}
    assert all(r.source.startswith("https://") for r in rows if r.paper in later)
    assert len(printed_pairs()) == 6


@pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is not here")
def test_the_shipped_table_is_the_original():
    assert results()[:FIVE_PAPERS] == results(SHARED)


def test_the_prints_known_to_be_wrong_are_found():
    found = {(f.kind, r.method, r.test, r.paper) for f in lint() for r in results() if r.row == f.row}
    for expected in [
        ("mean", "SSR-Net-MD", "BIWI", "OsGG-Net 2021"),
        ("mean", "SSR-Net-MD", "BIWI", "FSA-Net 2019"),
        ("mean", "FSA-Caps (1x1)", "BIWI", "FSA-Net 2019"),
        ("exchanged", "HPE", "AFLW2000", "OsGG-Net 2021"),
        ("ubmae", "Landmarks", "BIWI", "OsGG-Net 2021"),
    ]:
        assert expected in found
    assert [f.kind for f in lint()].count("ubmae") == 1


def test_most_rows_are_in_order():
    assert len({f.row for f in lint() if f.row <= FIVE_PAPERS}) < 15


def test_rows_that_were_measured_in_another_way_say_why():
    differ = {(r.paper, r.method, r.test): r.differs for r in results() if r.differs}
    assert "180 degrees" in differ["6DRepNet 2022", "6DRepNet", "AFLW2000"]
    assert "another method" in differ["DADL 2023", "WHENet", "BIWI"]
    assert ("6DRepNet 2022", "FDN", "AFLW2000") not in differ
    folded = {r.method for r in comparable("300wlp_aflw2000_1969")}
    assert "FDN" in folded
    assert not folded & {"6DRepNet", "DirectMHP-M", "6DRepNet port, ResNet-50"}


def test_frames_of_biwi_have_their_own_rows():
    own = [r for r in comparable("300wlp_biwi_13219") if r.test == "BIWI 13,219 frames"]
    assert {r.method for r in own} >= {"FSA-Net", "Hopenet", "6DRepNet"}
    assert not [r for r in comparable("300wlp_biwi_15678") if r.test == "BIWI 13,219 frames"]
    assert comparable("upna_elsewhere") == []


def test_a_wrong_mean_is_found_and_a_rounded_one_is_not(tmp_path):
    rows = results(table(tmp_path, "P,1,A,B,m,1,2,3,2.5,,,", "P,1,A,B,n,1.04,2.02,3.03,2.03,,,", "P,1,A,B,o,4,5,,9,,,"))
    found = lint(rows)
    assert [(f.row, f.kind) for f in found] == [(1, "mean")]
    assert "the mean of 1, 2, 3 is 2.00, printed 2.5" in found[0].text


def test_exchanged_columns_are_named(tmp_path):
    rows = results(table(tmp_path, "P,1,A,B,m,1.00,2.00,3.00,2,,,", "Q,4,A,B,m,3.00,2.00,1.00,2,,,"))
    assert [f.text for f in lint(rows)] == [
        "P, table 1, m (A to B): yaw and roll are exchanged relative to Q, table 4 (row 2)"
    ]


def test_a_ubmae_off_the_rule_is_found(tmp_path):
    k = printed_pairs()["300W-LP", "BIWI"]
    good = float(np.dot(k, [4.0, 5.0, 6.0]) / 3)
    rows = results(
        table(
            tmp_path,
            f"P,1,300W-LP,BIWI,m,4.00,5.00,6.00,5.00,{good:.2f},,",
            "P,1,300W-LP,BIWI,n,4.00,5.00,6.00,5.00,9.52,,",
        )
    )
    assert [(f.row, f.kind) for f in lint(rows)] == [(2, "ubmae")]


def test_bad_tables_are_said(tmp_path):
    with pytest.raises(UbhpdError, match="row 1, column yaw: 'x'"):
        results(table(tmp_path, "P,1,A,B,m,x,2,3,2,,,"))
    (tmp_path / "u.csv").write_text("paper,method\n", encoding="utf-8")
    with pytest.raises(UbhpdError, match="no column table"):
        results(tmp_path / "u.csv")
    with pytest.raises(UbhpdError, match="Cannot read"):
        results(tmp_path / "none.csv")
