"""The leaderboard: which results are refused, which share a table, how methods are ranked, and all output formats."""

import base64
import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from leaderboard_data import result, score, side
from score_data import heads, write_csv, write_manifest

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import sha256_of
from ubhpd.core.text import csv_text
from ubhpd.evaluation.evaluate import evaluate
from ubhpd.experiments.plan import known
from ubhpd.leaderboards import page, standings
from ubhpd.leaderboards import tables as texts
from ubhpd.leaderboards.page import publish
from ubhpd.leaderboards.result import (
    Accepted,
    MethodInfo,
    ResultFile,
    Training,
    canonical_hash,
    labels_hash,
    read,
    read_all,
    write,
)
from ubhpd.leaderboards.tables import COLUMNS, method_cells

EVIL = "<img src=x onerror=alert(1)>\"'&_$%#|\\"


def found(*results, folder="."):
    return [ResultFile(Path(folder) / f"{i}.json", r) for i, r in enumerate(results)]


def tables(*results):
    return standings.standings(found(*results), known())


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def rewritten(path, change, with_hash=True):
    """Change the JSON of a result as somebody with an editor would, or one who also mends the hash."""
    content = json.loads(path.read_text())
    del content["hash"]
    change(content)
    path.write_text(json.dumps({**content, "hash": canonical_hash(content) if with_hash else "0" * 64}))
    return path


# A result


def test_a_result_is_read_as_it_was_written(tmp_path):
    own = result(seed=None, chosen={"size": "64"}, options={"size": 64, "name": "é"})
    write(own, tmp_path / "r.json")
    assert read(tmp_path / "r.json") == own


def test_equal_results_give_equal_bytes(tmp_path):
    for name in "ab":
        write(result(), tmp_path / f"{name}.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_number_changed_by_hand_is_refused(tmp_path):
    path = tmp_path / "r.json"
    write(result(mae=5.0), path)
    path.write_text(path.read_text().replace('"value": 5.0', '"value": 3.0', 1))
    with pytest.raises(UbhpdError, match=r"r\.json was changed after it was written"):
        read(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["scores"]["mae"].update(value="3"), r"scores\.mae\.value is '3', it has to be a number or null"),
        (lambda c: c.update(seed=1.5), r"seed is 1\.5, it has to be a whole number or null"),
        (lambda c: c.update(seed=True), r"seed is True"),
        (lambda c: c.pop("test"), "lacks the field 'test'"),
        (lambda c: c.update(comment="best"), "has a field 'comment'"),
        (lambda c: c["bins"].pop("roll"), "is not a table of yaw, pitch and roll"),
        (lambda c: c["bins"]["yaw"]["error"].pop(), "with 15 bins"),
        (lambda c: c.update(format=2), "format 2, this ubhpd reads 1"),
    ],
)
def test_a_result_of_another_form_is_refused_even_with_the_right_hash(change, said, tmp_path):
    write(result(), tmp_path / "r.json")
    with pytest.raises(UbhpdError, match=said):
        read(rewritten(tmp_path / "r.json", change))


def test_other_json_files_are_skipped_in_a_folder_and_refused_by_name(tmp_path):
    write(result(), tmp_path / "deep" / "r.json")
    (tmp_path / "other.json").write_text('{"kind": "score"}')
    assert [f.result for f in read_all([tmp_path, tmp_path / "deep"])] == [result()]
    for place, said in ((tmp_path / "other.json", "not a result of ubhpd bench"), (tmp_path / "gone", "There is no")):
        with pytest.raises(UbhpdError, match=said):
            read_all([place])
    (tmp_path / "cut.json").write_text('{"kind": "ubhpd-res')
    with pytest.raises(UbhpdError, match=r"cut\.json is not JSON"):
        read_all([tmp_path])


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no /dev/zero")
def test_a_device_is_refused(ubhpd):
    code, out, err = ubhpd("leaderboard", "/dev/zero")
    assert (code, out) == (2, "") and "/dev/zero is neither a file nor a folder" in err


def test_a_file_too_large_for_a_result_is_not_read(tmp_path):
    write(result(), tmp_path / "r.json")
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(17 << 20)
    assert [f.path.name for f in read_all([tmp_path])] == ["r.json"]
    with pytest.raises(UbhpdError, match=r"large\.json is larger than 16 MB"):
        read_all([tmp_path / "large.json"])


# Which results share a table


def test_seeds_are_averaged():
    (table,) = tables(result(mae=5.0, seed=0), result(mae=5.6, seed=1), result(mae=5.3, seed=2))
    (method,) = table.methods
    mae = method.values["mae"]
    assert method.seeds == (0, 1, 2)
    assert (mae.mean, mae.sd, mae.low, mae.high) == pytest.approx((5.3, 0.3, 5.1, 5.5))
    assert method_cells(method)["mae"].text == "5.30 ± 0.30"


@pytest.mark.parametrize(
    "other",
    [
        {"protocol": "300wlp_aflw2000_2000"},
        {"test": side(1_969, 3)},
        {"printed_pair": None},
    ],
    ids=lambda o: next(iter(o)),
)
def test_results_of_other_protocols_heads_or_labels_have_another_table(other):
    found = tables(result("a", 5.0), result("b", 4.0, **other))
    assert [[e.name for e in t.methods] for t in found] in ([["a"], ["b"]], [["b"], ["a"]])
    assert [t.methods[0].rank for t in found] == [1, 1]
    assert len({t.anchor for t in found}) == 2


def test_methods_are_ranked_by_mae_and_equal_mae_shares_a_rank():
    (table,) = tables(*(result(m, v) for m, v in (("c", 7.0), ("a", 5.0), ("d", 7.0), ("e", 9.0))))
    assert [(e.name, e.rank) for e in table.methods] == [("a", 1), ("c", 2), ("d", 2), ("e", 4)]


def test_other_options_are_another_method():
    (table,) = tables(result(mae=5.0), result(mae=4.0, chosen={"alpha": "2"}, options={"alpha": 2.0}))
    assert [e.name for e in table.methods] == ["hopenet alpha=2", "hopenet"]


def test_two_different_results_of_one_run_are_refused():
    assert len(tables(result(), result())[0].methods[0].runs) == 1
    with pytest.raises(UbhpdError, match=r"0\.json and 1\.json are both of hopenet .* seed 0, but differ"):
        tables(result(mae=5.0), result(mae=5.1))


FOREIGN = Training("imported", "a" * 64, "w.pth", "that of its authors")
HANDED_IN = Training("submitted", "", "not known", "not known")


def declared(training, name="300W-LP"):
    return replace(training, declared=name)


def test_results_of_other_training_heads_share_the_table_and_are_other_methods():
    own = result("a", 5.0)
    (table,) = tables(own, result("a", 4.0, train=side(50, 3)), result("b", 4.5))
    assert [(e.name, e.rank) for e in table.methods] == [("a", 1), ("b", 2), ("a", 3)]
    assert table.result.train == own.train  # that of most methods
    marks = [e.trained_on.rpartition(" ")[2] for e in table.methods]
    assert marks[0] != marks[1] == marks[2] == own.train.fingerprint[:8]
    text = texts.markdown([table])
    assert f"trained on {table.methods[0].trained_on}" in text.replace("\\", "")


def test_results_share_a_table_by_their_labels_whatever_their_boxes():
    test = side(1_969, 2)
    labelled = replace(test, labels_sha256="1" * 64)
    other_boxes = replace(labelled, fingerprint="2" * 64)
    found = tables(result("old", test=test), result("a", test=labelled), result("b", test=other_boxes))
    assert [sorted(e.name for e in t.methods) for t in found] == [["a", "b", "old"]]
    other_labels = replace(labelled, labels_sha256="3" * 64, fingerprint="4" * 64)
    assert len(tables(result("a", test=labelled), result("b", test=other_labels))) == 2


@pytest.mark.parametrize(
    ("training", "evidence", "is_ranked"),
    [
        (result().training, "trained", True),
        (Training("fitted", "a" * 64, "nothing", "none"), "trained", True),
        (declared(FOREIGN), "imported", True),
        (declared(HANDED_IN, "my own photographs"), "submitted", True),
        (FOREIGN, "unknown", False),
        (HANDED_IN, "unknown", False),
    ],
)
def test_evidence_decides_whether_a_method_is_ranked(training, evidence, is_ranked):
    (table,) = tables(result("a", 5.0), result("b", 4.0, training=training))
    other = next(e for e in table.methods if e.name == "b")
    assert (other.evidence, other.rank) == (evidence, 1 if is_ranked else None)
    title = standings.EVIDENCE[evidence]
    for text in (texts.markdown([table]), texts.latex([table]), page.page([table])):
        reasons = re.findall("(?:weights|submitted predictions) without a declared training set", text)
        assert title in text and bool(reasons) != is_ranked


def test_partial_coverage_is_shown_and_not_ranked():
    (table,) = tables(result("a", 5.0), result("b", 1.0, coverage=0.99999))
    assert [(e.name, e.rank) for e in table.methods] == [("a", 1), ("b", None)]
    assert table.methods[1].why_unranked == "predicted only 99.9 % of the heads"
    assert method_cells(table.methods[1])["coverage"].text == "99.9 %"


def test_what_sees_ground_truth_at_test_time_is_an_oracle_and_not_ranked():
    fitted = Training("fitted", "a" * 64, "nothing", "none")
    true, found, unstated = (
        result(m, 1.0, training=fitted, input=None, landmarks=kinds, oracle=oracle, title=n)
        for n, m, kinds, oracle in (
            ("true", "landmarks_pnp", ("fitted_3d",), "true landmarks (fitted_3d)"),
            ("found", "landmarks_pnp", ("dlib68",), None),
            ("unstated", "landmarks_pnp_12", None, None),
        )
    )
    (table,) = tables(result("a", 5.0), true, found, unstated)
    ranks = {e.result.title: (e.rank, e.oracle) for e in table.methods}
    assert ranks["true"] == (None, "true landmarks (fitted_3d)") and ranks["found"] == (1, "")
    assert ranks["unstated"][0] is None and "does not state" in ranks["unstated"][1]
    assert page.page([table]).count('badge oracle"') == 4  # twice each: among all methods, and in the table


def test_the_mean_pose_is_one_line_without_a_rank():
    fitted = Training("fitted", "a" * 64, "nothing", "none")
    runs = [result(m, v, seed=None, training=fitted, input=None, parameters=None)
            for m, v in (("mean_pose", 0.5), ("median_pose", 0.4))]  # fmt: skip
    (table,) = tables(result("a", 5.0), *runs)
    assert [(e.name, e.rank) for e in table.methods] == [("a", 1)]
    rows = texts.baseline_rows(table)
    assert [r["model"].text for r in rows] == ["mean pose", "median_pose"]
    assert rows[0]["mae"].text == "0.50" and rows[0]["mae"].small == "0.30 to 0.70"  # the run has an interval
    for text in (texts.markdown([table]), texts.latex([table])):
        assert text.count("mean pose &") + text.count("| mean pose (") == 1
    only = tables(runs[0])[0]
    assert only.methods == () and "no ranked method" in texts.how_tied(only) and "mean pose" in page.page([only])


def test_ubmae_names_its_training_set_and_is_ranked_within_it():
    third = result("c", 1.0, training=declared(HANDED_IN, "BIWI"), ubmae_source="BIWI")
    third = replace(third, scores={**third.scores, "dropped_mass": replace(score(0.015), unit="share")})
    (table,) = tables(
        result("a", 5.0, ubmae_source="300W-LP"), result("b", 4.0, ubmae_source="300W-LP"), third
    )  # fmt: skip
    assert {e.name: e.places["ubmae"].rank for e in table.methods} == {"a": 2, "b": 1, "c": None}
    assert {e.name: e.places["mae"].rank for e in table.methods} == {"a": 3, "b": 2, "c": 1}
    cell = method_cells(table.methods[0])["ubmae"]
    assert table.methods[0].name == "c" and cell.small.split("; ")[1:] == ["BIWI", "leaves out 1.5 %"]


@pytest.mark.parametrize(("metric", "first"), [("balanced_mae", "a"), ("mae", "b"), ("ubmae", "b")])
def test_the_metric_of_the_order_can_be_chosen(metric, first):
    a, b = result("a", 5.0), result("b", 4.0)
    b = replace(b, scores={**b.scores, "balanced_mae": score(30.0)})
    (table,) = standings.standings(found(a, b), known(), metric)
    assert table.methods[0].name == first and table.methods[0].rank == 1 and table.rank_by == metric
    assert {m: e.places[m].rank for e in table.methods for m in ("mae", "balanced_mae") if e.name == "a"} == {
        "mae": 2, "balanced_mae": 1
    }  # fmt: skip
    with pytest.raises(UbhpdError, match="No metric of a ranking is called 'x': choose from balanced_mae, mae, ubmae"):
        standings.standings(found(a), known(), "x")


def test_a_number_of_runs_does_not_read_as_a_seed():
    def runs(*results):
        return method_cells(tables(*results)[0].methods[0])["runs"]

    assert runs(result(seed=0))[:2] == ("1", "seed 0")
    assert runs(result(seed=0), result(seed=7))[:2] == ("2", "seeds 0, 7")
    assert runs(result(seed=None))[:2] == ("1", "no seed")
    assert runs(result(seed=None, training=HANDED_IN))[:2] == ("1", "seed not stated")


def test_a_warning_about_the_training_split_stands_in_the_rows_that_it_concerns():
    own = result("a", 5.0)
    warned = replace(own.protocol, warnings=("Train has 28 heads.", "Test has 5 heads."))
    tested = replace(own.protocol, warnings=("Test has 5 heads.",))
    third = result("b", 4.0, protocol="300wlp_aflw2000_1969", training=declared(HANDED_IN))
    (table,) = tables(replace(own, protocol=warned), replace(third, protocol=tested))
    assert texts.warnings(table) == ["Test has 5 heads."]
    assert [method_cells(e)["model"].small.count("Train has 28 heads.") for e in table.methods] == [0, 1]
    (table,) = tables(replace(own, protocol=warned))
    assert texts.warnings(table) == ["Train has 28 heads.", "Test has 5 heads."]


# Results of several people


def test_results_of_several_people_are_merged_and_say_whose(tmp_path, ubhpd):
    write(result("a", 5.0, by="Ann"), tmp_path / "x" / "a.json")
    write(result("b", 6.0), tmp_path / "x" / "b.json")
    write(result("b", 6.0), tmp_path / "y" / "b.json")  # the same run, repeated by somebody else
    write(result("a", 4.0), tmp_path / "y" / "a.json")  # another run with the same seed
    code, out, _ = ubhpd("leaderboard", f"xena={tmp_path / 'x'}", f"yuri={tmp_path / 'y'}", "--out", tmp_path / "o")
    assert code == 0
    (table,) = json.loads((tmp_path / "o" / "leaderboard.json").read_text())["tables"]
    assert [(m["name"], m["by"], m["rank"]) for m in table["methods"]] == [
        ("a", ["yuri"], 1), ("a", ["Ann"], 2), ("b", ["xena", "yuri"], 3)
    ]  # fmt: skip
    assert "xena, yuri" in out and "| xena, yuri |" in (tmp_path / "o" / "leaderboard.md").read_text()
    code, _, err = ubhpd("leaderboard", tmp_path / "x" / "b.json", tmp_path / "y", "--out", tmp_path / "p")
    assert code == 0
    write(result("b", 6.1), tmp_path / "y" / "b.json")
    code, _, err = ubhpd("leaderboard", tmp_path / "x", tmp_path / "y", "--out", tmp_path / "p")
    assert code == 2 and "but differ: leave one of them out, or say whose each is as NAME=FOLDER" in err


def test_a_folder_with_an_equals_sign_in_its_name_is_a_folder(tmp_path, ubhpd):
    write(result(), tmp_path / "a=b" / "r.json")
    assert ubhpd("leaderboard", tmp_path / "a=b", "--out", tmp_path / "o")[0] == 0


@pytest.fixture
def scored(tmp_path):
    """A result with its predictions and its test heads, written as `ubhpd submit` writes them."""
    predicted, true = heads(300)
    (tmp_path / "r" / "test").mkdir(parents=True)
    write_manifest(tmp_path / "r" / "test" / "pool.parquet", true)
    path = write_csv(tmp_path / "r" / "a.predictions.csv", predicted)
    ids = [f"set/{i:05d}" for i in range(300)]
    own = result("a", float(abs(predicted - true).mean()), predictions_sha256=sha256_of(path), printed_pair=None)
    evaluation = evaluate(path, tmp_path / "r" / "test" / "pool.parquet")
    scores = {n: replace(score(0.0), value=s["value"], unit=s["unit"]) for n, s in evaluation.result["scores"].items()}
    own = replace(own, scores=scores, test=replace(side(300, 2), labels_sha256=labels_hash(ids, true)))
    write(own, tmp_path / "r" / "a.json")
    return tmp_path / "r"


def test_verified_results_have_the_scores_of_their_predictions(scored, ubhpd):
    assert ubhpd("leaderboard", scored, "--verify")[0] == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: rewritten(f / "a.json", lambda c: c["scores"]["mae"].update(value=1.0)), "states mae 1.0000, but"),
        (lambda f: rewritten(f / "a.json", lambda c: c["test"].update(labels_sha256="0" * 64)), "of other test heads"),
        (lambda f: rewritten(f / "a.json", lambda c: c["test"].update(heads=299)), "of other test heads"),
        (lambda f: (f / "a.predictions.csv").write_text("sample_id,yaw,pitch,roll\n"), "its predictions are not"),
        (lambda f: (f / "test" / "pool.parquet").unlink(), "its test heads"),
    ],
    ids=("a score", "labels", "heads", "predictions", "truth"),
)
def test_verification_refuses_a_result_whose_hash_was_mended(scored, ubhpd, change, said):
    change(scored)
    assert ubhpd("leaderboard", scored)[0] == 0  # the hash alone cannot tell
    code, _, err = ubhpd("leaderboard", scored, "--verify")
    assert code == 2 and said in err and err.count("\n") == 1


# Ties


def test_without_predictions_a_tie_is_decided_by_the_interval_of_the_first():
    (table,) = tables(result("a", 5.0), result("b", 5.1), result("c", 5.3))  # of the first: 4.8 to 5.2
    assert [(e.standing, e.decided_by) for e in table.methods] == [
        ("winner", ""),
        ("tied", "interval"),
        ("", "interval"),
    ]


def test_with_predictions_a_tie_is_decided_by_paired_resampling(tmp_path):
    """b is a with one head moved, c has errors a little larger on every head: intervals alone could not tell c."""
    predicted, true = heads(300)
    (tmp_path / "test").mkdir()
    mark = manifest.header(write_manifest(tmp_path / "test" / "pool.parquet", true)).fingerprint
    moved = predicted.copy()
    moved[0] += 0.5
    worse = true + 1.01 * (predicted - true)
    written = []
    for name, own in (("a", predicted), ("b", moved), ("c", worse)):
        path = write_csv(tmp_path / f"{name}.predictions.csv", own)
        mae = float(abs(own - true).mean())
        written.append(
            result(name, mae, predictions_sha256=sha256_of(path), test=replace(side(300, 2), fingerprint=mark))
        )
    (table,) = standings.standings(found(*written, folder=tmp_path), known())
    assert [e.decided_by for e in table.methods[1:]] == ["paired", "paired"]
    assert {e.name: e.standing for e in table.methods}["c"] == ""
    assert sorted(e.standing for e in table.methods) == ["", "tied", "winner"]
    (tmp_path / "c.predictions.csv").write_text("sample_id,yaw,pitch,roll\n")
    (table,) = standings.standings(found(*written, folder=tmp_path), known())
    assert {e.name: e.decided_by for e in table.methods}["c"] == "interval"


# Reported rows


def test_reported_rows_are_shown_only_for_the_published_heads():
    (table,) = tables(result())
    printed = {(r.printed.paper[:4], r.printed.method): r for r in table.reported}
    assert printed["OsGG", "OsGG-Net"].printed.mae == 4.39 and table.why_no_reported is None
    assert table.methods[0].reported.printed.mae == 6.41  # hopenet
    assert "yaw and roll exchanged" in printed["OsGG", "HPE"].notes[0] and not printed["DADL", "HPE"].notes
    own = result()
    for test in (side(40, 2), replace(own.test, names_sha256="0" * 64)):  # fewer heads, as many others
        (table,) = tables(replace(own, test=test))
        assert table.reported == () and "not the published ones" in table.why_no_reported
        assert table.methods[0].reported is None
        for text in (texts.markdown([table]), texts.latex([table]), page.page([table])):
            assert "OsGG-Net 2021" not in text


def test_a_row_that_several_papers_report_is_shown_once_and_exactly():
    (table,) = tables(result())
    same = [r.printed for r in table.reported if r.printed.method == "Hopenet (alpha=1)"]
    assert [(r.paper, r.mae) for r in same] == [("OsGG-Net 2021", 6.41)]
    text = texts.markdown([table])
    assert "| TriNet \\[3\\] (OsGG-Net 2021, table 1) | 4.67 | 4.04 | 5.77 | 4.20 | 5.96 |" in text


def test_ubhpd_of_another_size_has_no_reported_rows():
    (small,), (paper,) = (
        tables(result(protocol="ubhpd", train=side(t, 1), test=side(u, 2))) for t, u in ((70, 30), (17_500, 7_500))
    )
    assert not small.reported and "25,000" in small.why_no_reported
    assert [r.printed.method for r in paper.reported][:2] == ["OsGG-Net", "TriNet"]


def test_an_unknown_protocol_has_no_reported_rows():
    own = result()
    other = replace(own, protocol=replace(own.protocol, definition_hash="0" * 64))
    assert "not a protocol of this version" in tables(other)[0].why_no_reported


def test_printed_results_stand_beside_weights_that_were_trained_elsewhere():
    info = MethodInfo(reported_as="Hopenet (alpha=2)")
    warned = ("The training split is not in this manifest: only the test split is used.",)
    own = result("Net", 6.2, training=declared(HANDED_IN, "my photographs"), info=info, options={})
    own = replace(own, train=side(0, 1), protocol=replace(own.protocol, warnings=warned))
    (table,) = tables(own)
    assert len(table.reported) > 20 and table.methods[0].reported.printed.mae == 6.16
    assert method_cells(table.methods[0])["printed"].text == "6.16"
    namesake = replace(own, model="hopenet", info=None)  # a name is no proof that it is the model
    assert tables(namesake)[0].methods[0].reported is None


def test_old_results_are_read_without_the_optional_fields(tmp_path):
    write(result(seed=1), tmp_path / "r.json")
    new = ("ubmae_source", "by", "info", "crop", "landmarks", "oracle", "accepted", "stress")

    def old(content):
        for name in new:
            del content[name]
        for part, name in (("training", "declared"), ("train", "labels_sha256"), ("test", "labels_sha256")):
            del content[part][name]
        del content["floor"]["note"]

    assert read(rewritten(tmp_path / "r.json", old)) == result(seed=1)


# Output


def test_csv_is_tidy_and_gives_the_origin_of_each_number():
    (table,) = tables(result(mae=5.0), result("b", 6.0))
    read_back = rows(texts.tidy([table]))
    own = {(r["model"], r["score"]): r for r in read_back if r["origin"] == "reproduced"}
    assert float(own["hopenet", "mae"]["value"]) == 5.0 and own["b", "mae"]["rank"] == "2"
    assert {r["origin"] for r in read_back} == {"reproduced", "baseline", "reported"}
    assert all(r["rank"] == "" for r in read_back if r["origin"] != "reproduced")
    assert len({r["protocol_hash"] for r in read_back}) == 1


def test_links_lead_to_the_web_only():
    def shown(paper):
        own = result("a", training=declared(HANDED_IN), info=MethodInfo(paper=paper, code="https://x.org/a b"))
        table = tables(own)
        return page.page(table), texts.markdown(table)

    for paper in ("javascript:alert(1)", "data:text/html,x", "Ann: A paper. 2024", "https://x.org/ javascript:"):
        html, md = shown(paper)
        assert ">paper</a>" not in html and "[paper]" not in md and ">code</a>" not in html
    html, md = shown('https://x.org/?a=1&b=(2)|"<')
    assert 'href="https://x.org/?a=1&amp;b=(2)|&#34;&lt;"' in html
    assert "[paper](https://x.org/?a=1&b=%282%29%7C%22%3C)" in md


def test_json_and_the_downloads_of_the_page_hold_all_methods():
    table = tables(result("a", 5.0), result("b", 4.0, training=declared(HANDED_IN), by="Ann"))
    content = json.loads(texts.as_json(table))
    assert content["kind"] == "ubhpd-leaderboard" and [m["name"] for m in content["tables"][0]["methods"]] == ["b", "a"]
    assert content["tables"][0]["methods"][1]["scores"]["mae"]["mean"] == 5.0
    links = dict(re.findall(r'<a download="leaderboard\.(\w+)" href="data:[^,]*;base64,([^"]+)"', page.page(table)))
    assert json.loads(base64.b64decode(links["json"])) == content
    lines = rows(base64.b64decode(links["csv"]).decode())
    assert [(r["name"], r["evidence"], r["mae"]) for r in lines] == [("b", "submitted", "4.0"), ("a", "trained", "5.0")]


def test_the_first_table_of_the_page_has_all_methods_and_protocols():
    made = [result("a", 5.0), result("a", 6.0, protocol="ubhpd"), result("b", 4.0, protocol="ubhpd"), result("c", 7.0)]
    first = page.overview(tables(*made, result("d", 8.0), result("a", 5.5, options={"size": 64})))
    assert [h[0] for h in first.headings] == ["300wlp_aflw2000_1969", "ubhpd"]
    shown = {r.name: [None if c is None else c["balanced_mae"].value for c in r.cells] for r in first.rows}
    assert [r.name for r in first.rows] == ["a", "a", "c", "d", "b"]
    assert shown["b"] == [None, "8.00"] and shown["c"] == ["14.00", None]
    assert first.rows[0].cells[0]["balanced_mae"].small == "MAE 5.00" and first.rows[0].cells[1]["mae"].rank == "2"


def test_hostile_names_are_escaped_in_every_format():
    info = MethodInfo(EVIL, EVIL, 2024, EVIL, EVIL)
    made = result(
        EVIL, 5.0, options={}, chosen={"a\nb\x1b": EVIL}, by=EVIL, info=info, accepted=(Accepted(EVIL, EVIL),)
    )
    (table,) = tables(replace(made, title=EVIL, protocol=replace(made.protocol, id=EVIL, warnings=(EVIL,))))
    html = page.page([table])
    assert "<img src=x" not in html and "&lt;img src=x onerror=alert(1)&gt;&#34;&#39;&amp;" in html
    assert html.count("<script>") == 1
    tex = texts.latex([table])
    assert r"\textless{}img src=x onerror=alert(1)\textgreater{}{''}'\&\_\$\%\#\textbar{}\textbackslash{}" in tex
    md = texts.markdown([table])
    assert "\x1b" not in tex + md + table.methods[0].name
    assert "<img" not in md and r"\|" in md
    lines = [line for line in md.splitlines() if line.startswith("|")]
    assert {len(line.replace(r"\|", "").split("|")) for line in lines[:4]} == {len(lines[0].split("|"))}
    assert rows(texts.tidy([table]))[0]["title"] == EVIL


@pytest.mark.parametrize("title", ["=1+1", "+cmd|x", "-A1", "@SUM(A1)", "\t=1"])
def test_no_cell_of_the_csv_is_a_formula(title):
    assert rows(texts.tidy(tables(replace(result(), title=title))))[0]["title"] == f"'{title}"
    assert csv_text("-3.5") == "-3.5" and csv_text("a=b") == "a=b" and csv_text("-") == "-"


def test_latex_has_as_many_cells_in_each_row_as_columns():
    text = texts.latex(tables(result(), result("vgg_16", 8.0)))
    body = [line for line in text.splitlines() if line.endswith(r" \\") and r"\multicolumn" not in line]
    assert len({line.replace(r"\&", "").count("&") for line in body}) == 1
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1 and r"vgg\_16" in text


def test_latex_fits_the_text_width_and_contains_the_warnings():
    own = result(mae=5.0)
    warned = replace(own.protocol, warnings=("Test has 40 heads where 1,969 are published.",))
    text = texts.latex(tables(*(replace(own, seed=i, protocol=warned) for i in range(2))))
    assert text.count(r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%") == 1
    assert text.count("{") == text.count("}")
    first, yaw = (method_cells(tables(own)[0].methods[0])[k] for k in ("balanced_mae", "mae_yaw"))
    assert first.small in text and yaw.small not in text.replace(first.small, "")
    assert "Test has 40 heads where 1,969 are published." in text
    assert f"{own.train.heads:,} heads train, {own.test.heads:,} test." in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs LaTeX: apt-get install texlive-latex-recommended")
def test_latex_compiles_and_fits(tmp_path):
    made = texts.latex(tables(*(result(mae=5.0 + i, seed=i) for i in range(2)), result(EVIL, 12.25), result("b", 9.0)))
    packages = r"\documentclass{article}\usepackage{booktabs,graphicx}"
    (tmp_path / "a.tex").write_text(rf"{packages}\begin{{document}}{made}\end{{document}}", encoding="utf-8")
    typed = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    told = subprocess.run(typed, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0 and (tmp_path / "a.pdf").is_file() and "Overfull" not in told.stdout, told.stdout


def test_page_loads_nothing_and_its_policy_allows_nothing():
    html = page.page(tables(result(), result(protocol="ubhpd")), docs="https://example.org/docs/")
    policy = html.partition('http-equiv="Content-Security-Policy" content="')[2].partition('"')[0]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and policy.count("sha256-") == 2
    assert "src=" not in html and "@import" not in html and " style=" not in html and " on" + "click" not in html
    assert 'href="https://example.org/docs/metrics/mae.md"' in html
    for column in COLUMNS:
        assert f"<dt>{column.title}</dt>" in html


def test_documents_named_by_columns_exist():
    docs = Path(__file__).parent.parent / "docs"
    assert [c.page for c in COLUMNS if not (docs / c.page).is_file()] == []


def test_a_missing_score_is_a_dash_and_is_not_ranked():
    own = result("a")
    nothing = replace(own, scores={**own.scores, "mae": replace(score(0.0), value=None, low=None, high=None)})
    (table,) = tables(nothing, result("b", 9.0))
    assert [(e.name, e.rank) for e in table.methods] == [("b", 1), ("a", None)]
    assert method_cells(table.methods[1])["mae"].text == "–"


# The command


def test_command_writes_the_chosen_formats(tmp_path, ubhpd):
    for i in range(2):
        write(result(mae=5.0 + i, seed=i), tmp_path / f"{i}.json")
    code, out, _ = ubhpd("leaderboard", tmp_path, "--out", tmp_path / "o", "--format", "md,html")
    assert code == 0 and "5.500" in out
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == ["leaderboard.html", "leaderboard.md"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--format", "pdf"), "leaderboard is called 'pdf'"), ((), "was changed after it was written")],
)
def test_command_refuses_wrong_input_in_one_sentence(tmp_path, ubhpd, arguments, said):
    write(result(), tmp_path / "r.json")
    if not arguments:
        rewritten(tmp_path / "r.json", lambda c: None, with_hash=False)
    code, _, err = ubhpd("leaderboard", tmp_path, "--out", tmp_path / "o", *arguments)
    assert code == 2 and said in err and "Traceback" not in err
    assert not (tmp_path / "o").exists()


def test_the_files_appear_together_or_not_at_all(tmp_path, monkeypatch):
    write(result(), tmp_path / "r.json")
    publish([tmp_path], tmp_path / "o", ["md", "csv"], known())
    before = {p.name: p.read_bytes() for p in (tmp_path / "o").iterdir()}
    write(result("b", 6.0), tmp_path / "b.json")
    own = Path.write_text

    def full(self, text, *args, **kwargs):
        if "csv" in self.name:
            raise OSError(28, "No space left on device", str(self))
        return own(self, text, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UbhpdError, match=r"Cannot write to .*No space left on device"):
        publish([tmp_path], tmp_path / "o", ["md", "csv"], known())
    assert {p.name: p.read_bytes() for p in (tmp_path / "o").iterdir()} == before
