"""Which truth is used: always named, never taken from another project, found by unique endings of ids."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from realdata import needs
from score_data import HOPENET, heads, write_csv, write_manifest

from ubhpd import manifest as manifests
from ubhpd.cli import root
from ubhpd.core.errors import UbhpdError
from ubhpd.evaluation import pairing
from ubhpd.evaluation.doctor import diagnose
from ubhpd.evaluation.evaluate import EvaluationOptions, compare, evaluate
from ubhpd.evaluation.intervals import BootstrapOptions
from ubhpd.evaluation.pairing import places, training_set
from ubhpd.evaluation.predictions import read
from ubhpd.manifest.schema import COLUMNS, Column


def result_of(*arguments):
    run = CliRunner().invoke(root, ["score", *map(str, arguments), "--json", "-"], catch_exceptions=False)
    assert run.exit_code == 0, run.output
    return json.loads(run.output)


def with_split(path, splits):
    """Add the column split to a manifest, as UBHPD has it."""
    columns = (*COLUMNS, Column("split", pa.string(), "", "", "train or test"))
    table = manifests.read(path).append_column("split", pa.array(splits))
    manifests.write_parquet([table], path, columns)
    return path


@pytest.fixture
def last_build(tmp_path, monkeypatch):
    """A build of another project, made last on this account, with the same ids."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    _, true = heads(60, seed=9)
    out = tmp_path / "another"
    write_manifest(out / "ubhpd.parquet", true)
    pairing.remember(out)
    return out


def test_the_last_build_is_used_only_when_asked_for(tmp_path, last_build):
    predicted, _ = heads(60)
    path = write_csv(tmp_path / "p.csv", predicted)
    for command in ("score", "doctor"):
        run = CliRunner().invoke(root, [command, str(path)])
        assert run.exit_code != 0 and "give --manifest, or --last-build" in str(run.exception)
    run = CliRunner().invoke(root, ["doctor", str(path), "--last-build"])
    assert f"Truth from {last_build / 'ubhpd.parquet'}, the last build (--last-build)" in run.output
    run = CliRunner().invoke(root, ["doctor", str(path), "--last-build", "--manifest", str(last_build)])
    assert "Both --manifest and --last-build" in str(run.exception)


def test_the_sidecar_of_predictions_names_their_truth(tmp_path, last_build):
    predicted, true = heads(60)
    manifest = write_manifest(tmp_path / "m.parquet", true)
    path = write_csv(tmp_path / "p.csv", predicted)
    about = {"manifest": manifests.header(manifest).fingerprint, "manifest_path": str(manifest)}
    (tmp_path / "p.json").write_text(json.dumps(about))
    found = result_of(path)
    assert found["scores"]["mae"]["value"] == pytest.approx(np.abs(predicted - true).mean())
    assert found["truth_source"] == f"{manifest}, named in p.json"
    assert f"truth from {manifest}, named in p.json" in CliRunner().invoke(root, ["score", str(path)]).output
    assert diagnose(path).truth == found["truth_source"]
    (tmp_path / "p.json").write_text(json.dumps(about | {"manifest": "0" * 64}))
    with pytest.raises(UbhpdError, match="has changed since"):
        evaluate(path)
    (tmp_path / "p.json").write_text(json.dumps(about | {"manifest_path": str(tmp_path / "gone")}))
    with pytest.raises(UbhpdError, match="which is not there: give --manifest"):
        evaluate(path)


@pytest.mark.parametrize("content", ["[1]", "{", '"a"', "{}", '{"manifest_path": 3}', "[" * 100_000])
def test_a_json_file_of_another_kind_beside_predictions_is_no_sidecar(tmp_path, content):
    path = write_csv(tmp_path / "p.csv", heads(5)[0])
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(UbhpdError, match="has no truth"):
        evaluate(path)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("aflw2000/image00002", 0),
        ("image00002", 0),
        ("image00002.jpg", 0),
        ("AFLW2000/image00002.jpg", 0),
        ("AFLW-2000/image00002", 0),
        ("/data/AFLW2000/image00002.jpg", 0),
        ("data\\aflw2000\\image00002.mat", 0),
        ("01/frame_00003", 1),
        ("biwi/02/frame_00003_rgb", None),
        ("frame_00003", None),  # two recordings have it
        ("other/image00002", None),
        ("mage00002", None),
        ("300W_LP/AFW/AFW_1_0.jpg", 3),
        ("AFW/AFW_1_0", 3),
    ],
)
def test_ids_are_accepted_by_their_unique_ending(name, row):
    ids = pa.array(["aflw2000/image00002", "biwi/01/frame_00003", "biwi/02/frame_00003", "300wlp/AFW/AFW_1_0"])
    assert places(pa.array([name]), ids).to_pylist() == [row]


def test_two_names_never_get_one_head():
    ids = pa.array(["set/a", "set/b"])
    assert places(pa.array(["a", "set/a"]), ids).to_pylist() == [None, 0]
    assert places(pa.array(["a.jpg", "a.png"]), ids).to_pylist() == [0, None]


def test_matching_by_ending_is_reported(tmp_path):
    predicted, true = heads(30)
    manifest = write_manifest(tmp_path / "m.parquet", true)
    path = write_csv(tmp_path / "p.csv", predicted, ids=[f"{i:05d}.jpg" for i in range(30)])
    found = result_of(path, "--manifest", manifest)
    assert (found["heads"], found["matched_by_ending"]) == (30, 30)
    text = CliRunner().invoke(root, ["score", str(path), "--manifest", str(manifest)]).output
    assert "30 ids were matched by their unique ending, as 00000.jpg = set/00000." in text
    exact = write_csv(tmp_path / "q.csv", predicted)
    both = compare(path, exact, manifest, EvaluationOptions()).result
    assert both["heads"] == 30 and both["scores"]["mae"]["difference"] == 0.0


@needs("predictions")
def test_the_names_of_the_field_are_those_of_the_manifest():
    names = read(HOPENET).sample_id
    ids = pa.array([f"aflw2000/{n}" for n in names.to_pylist()])
    assert places(names, ids).to_pylist() == list(range(len(names)))


def test_the_training_split_is_the_default_of_ubmae(tmp_path):
    _, true = heads(200)
    splits = ["train" if i % 3 else "test" for i in range(200)]
    manifest = with_split(write_manifest(tmp_path / "ubhpd.parquet", true), splits)
    for place in (manifest, tmp_path):
        found = training_set(str(place))
        assert found.heads == splits.count("train") and found.text == f"the training split of {place}"
    plain = training_set(str(write_manifest(tmp_path / "pool" / "m.parquet", true)))
    assert plain.heads == 200 and plain.text.startswith("all usable heads of")


def test_ubmae_is_never_shown_without_the_share_that_it_leaves_out(tmp_path):
    predicted, true = heads(300, 5.0)
    path = write_csv(tmp_path / "p.csv", predicted, true)
    counts = tmp_path / "narrow.csv"
    counts.write_text("low_deg,high_deg,yaw,pitch,roll\n-6,6,10,10,10\n6,18,10,10,10\n")
    text = CliRunner().invoke(root, ["score", str(path), "--source", str(counts)]).output
    lines = text.splitlines()
    at = next(k for k, line in enumerate(lines) if line.startswith("ubmae "))
    share = float(next(line for line in lines if line.startswith("dropped_mass ")).split()[1])
    shown = float(lines[at].partition("leaves out ")[2].split()[0])
    assert 30.0 < shown < 100.0 and shown == pytest.approx(100 * share, abs=0.06)
    assert lines[at + 1].startswith("dropped_mass ")
    assert f"Training set: the table of counts {counts}, 20 heads." in text


def test_a_protocol_needs_only_the_split_that_is_scored(tmp_path):
    predicted, true = heads(40, 5.0)
    ids = [f"aflw2000/{i}" for i in range(40)]
    write_manifest(tmp_path / "out" / "pool.parquet", true, ids=ids, datasets=["aflw2000"] * 40)
    path = write_csv(tmp_path / "p.csv", predicted, ids=ids)
    found = result_of(path, "--manifest", tmp_path / "out", "--protocol", "300wlp_aflw2000_1969")
    assert found["heads"] == 40 and found["source"] == "the training split of 300wlp_aflw2000_1969"
    assert found["source_counts"] == "the label counts of 300W-LP that are part of the package"
    assert found["source_heads"] == 122_450 and "ubmae" in found["scores"]
    assert "The training split is not in this manifest: only the test split is used." in found["protocol"]["warnings"]


def test_a_pipe_is_scored(tmp_path):
    import os
    import threading

    predicted, true = heads(50, 5.0)
    path = write_csv(tmp_path / "p.csv", predicted, true)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()), daemon=True)
    writer.start()
    found = evaluate(pipe).result
    writer.join()
    assert found["heads"] == 50 and found["scores"] == evaluate(path).result["scores"]


def test_intervals_of_samples_do_not_depend_on_the_order_of_rows(tmp_path):
    predicted, true = heads(150, 5.0)
    ids = [f"set/{i:05d}" for i in range(150)]
    order = np.random.default_rng(1).permutation(150)
    first = write_csv(tmp_path / "a.csv", predicted, true, ids=ids)
    second = write_csv(tmp_path / "b.csv", predicted[order], true[order], ids=[ids[i] for i in order])
    options = EvaluationOptions(bootstrap=BootstrapOptions(rounds=100))
    assert evaluate(first, None, options).result["scores"] == evaluate(second, None, options).result["scores"]
    one, other = (compare(p, q, None, options).result for p, q in ((first, second), (second, first)))
    assert one["scores"]["mae"]["low"] == other["scores"]["mae"]["low"] == 0.0


def test_large_unsigned_ids_are_read(tmp_path):
    predicted, _ = heads(3)
    ids = pa.array([2**53 + 1, 2**63 + 5, 2**64 - 1], pa.uint64())
    columns = {a: predicted[:, j] for j, a in enumerate(("yaw", "pitch", "roll"))}
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"sample_id": ids, **columns}), path)
    assert read(path).sample_id.to_pylist() == ["9007199254740993", "9223372036854775813", "18446744073709551615"]
    values = pa.array([2**64 - 1, 1, 2], pa.uint64())
    pq.write_table(pa.table({"sample_id": ["a", "b", "c"], **columns, "roll": values}), tmp_path / "q.parquet")
    assert read(tmp_path / "q.parquet").predicted_deg[:, 2].tolist() == [2.0**64, 1.0, 2.0]


def test_an_error_quotes_at_most_60_characters(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("sample_id,yaw,pitch,roll\na,1,2," + "x\x1b" * 2000 + "\n")
    with pytest.raises(UbhpdError) as caught:
        read(path)
    assert len(str(caught.value)) < len(str(path)) + 150 and "\x1b" not in str(caught.value)
    path.write_text("sample_id,yaw,pitch,roll\n" + "\n".join(f"{'z' * 900},{i},2,3" for i in range(2)) + "\n")
    with pytest.raises(UbhpdError) as caught:
        read(path)
    assert len(str(caught.value)) < len(str(path)) + 150


@pytest.mark.parametrize("name", ["=1+2.jpg", "@SUM(A1).jpg", "+a.jpg", "-cmd.jpg", "a.jpg", "./a.jpg"])
def test_no_id_of_a_prediction_file_begins_like_a_formula(name):
    from ubhpd.inference.prediction_file import _cell, _of_cell

    cell = _cell(name)
    assert cell[0] not in "=@+-" and _of_cell(cell) == name
    assert places(pa.array([cell]), pa.array([name])).to_pylist() == [0]


def test_of_a_folder_the_pool_is_the_truth_where_ubhpd_lacks_heads(tmp_path):
    predicted, true = heads(60)
    names = [f"set/{i:05d}" for i in range(60)]
    write_manifest(tmp_path / "ubhpd.parquet", true[:40], ids=names[:40])
    write_manifest(tmp_path / "pool.parquet", true, ids=names)
    some = write_csv(tmp_path / "some.csv", predicted[:40], ids=names[:40])
    assert result_of(some, "--manifest", tmp_path)["truth"].endswith("ubhpd.parquet")
    every = write_csv(tmp_path / "every.csv", predicted, ids=names)
    assert result_of(every, "--manifest", tmp_path)["truth"].endswith("pool.parquet")
    other = write_csv(tmp_path / "other.csv", predicted, ids=[f"unknown/{i}" for i in range(60)])
    run = CliRunner().invoke(root, ["score", str(other), "--manifest", str(tmp_path)])
    assert "is not in" in str(run.exception) and "ubhpd.parquet" in str(run.exception)
