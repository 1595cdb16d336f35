"""`ubhpd score` and `ubhpd compare` as a user runs them."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from realdata import needs
from score_data import HOPENET, heads, write_csv, write_manifest

from ubhpd import manifest
from ubhpd.cli import root
from ubhpd.core.bins import counts
from ubhpd.evaluation.evaluate import evaluate
from ubhpd.evaluation.metric_cards import all_scores
from ubhpd.evaluation.score_figures import sheet_of_worst, worst_heads
from ubhpd.metrics.ubmae import ubmae
from ubhpd.pool import build as building
from ubhpd.synth.writers import aflw2000_writer


def ubhpd(*arguments):
    """Run the command in a process of its own, as a user does."""
    command = [sys.executable, "-m", "ubhpd", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def result_of(*arguments):
    run = CliRunner().invoke(root, ["score", *map(str, arguments), "--json", "-"], catch_exceptions=False)
    assert run.exit_code == 0, run.output
    return json.loads(run.output)


@pytest.fixture
def files(tmp_path):
    predicted, true = heads(120, 5.0)
    subjects = [f"s{i % 6}" for i in range(120)]
    manifest = write_manifest(tmp_path / "m.parquet", true, subjects=subjects, sequences=subjects)
    own = write_csv(tmp_path / "own.csv", predicted, true)
    plain = write_csv(tmp_path / "plain.csv", predicted[:100])
    return {"predicted": predicted, "true": true, "manifest": manifest, "own": own, "plain": plain, "dir": tmp_path}


def test_a_file_with_its_own_truth_is_scored_as_it_is(files):
    found = result_of(files["own"])
    assert found["scores"]["mae"]["value"] == pytest.approx(np.abs(files["predicted"] - files["true"]).mean())
    assert (found["heads"], found["coverage"], found["truth"]) == (120, 1.0, "columns of the file")
    assert "ubmae" not in found["scores"] and found["source"] is None


def test_missing_predictions_are_printed_with_the_coverage(files):
    run = CliRunner().invoke(root, ["score", str(files["plain"]), "--manifest", str(files["manifest"])])
    assert run.exit_code == 0
    assert "Coverage 83.33 %: 120 heads expected, 20 without a prediction (the first: set/00100)" in run.output
    found = result_of(files["plain"], "--manifest", files["manifest"])
    assert (found["missing"], found["heads"], found["coverage"]) == (20, 100, pytest.approx(100 / 120))
    assert len(found["fingerprint"]) == 64


def test_every_metric_comes_once_all_inputs_are_named(files):
    found = result_of(files["own"], "--source", "300W-LP", "--pair", "300W-LP:AFLW2000")
    assert set(found["scores"]) == set(all_scores())
    assert found["bins"]["yaw"]["weight"] and found["dropped_mass"]["yaw"] == 0.0
    text = CliRunner().invoke(root, ["score", str(files["own"]), "--source", "300W-LP", "--bins"]).output
    assert all(f"\n{name} " in text for name in set(all_scores()) - {"ubmae_printed"})
    assert "-90 to -78" in text and "yaw w" in text


def test_options_are_recorded_in_the_result(files):
    found = result_of(files["own"], "--source", files["manifest"], "--exclude-outside",
                      "--protocol", "300wlp_biwi_15678",
                      "--max-angle", "60", "-O", "ubmae.unseen=smooth", "--bootstrap", "samples",
                      "--rounds", "50", "--seed", "4")  # fmt: skip
    options = found["options"]
    assert (
        options["exclude_outside"] is True
        and options["protocol"] == "300wlp_biwi_15678"
        and options["max_angle_deg"] == 60
    )
    assert options["metrics"]["ubmae"] == {"unseen": "smooth", "alpha": 1.0}
    assert options["bootstrap"] == {"rounds": 50, "level": 0.95, "over": "samples", "seed": 4}
    kept = (np.abs(files["true"]) <= 60).all(axis=1).sum()
    assert (found["heads"], found["excluded"]) == (kept, 120 - kept)


@pytest.mark.parametrize("over", ["samples", "subjects", "sequences"])
def test_intervals_hold_the_value(files, over):
    manifest = ["--manifest", files["manifest"]]
    found = result_of(files["plain"], *manifest, "--bootstrap", over, "--rounds", "200")
    s = found["scores"]["mae"]
    assert s["low"] < s["value"] < s["high"] and found["groups"] == (100 if over == "samples" else 6)


def test_groups_follow_the_heads_that_are_left(tmp_path):
    predicted, true = heads(90, 5.0)
    subjects = [f"s{i // 10}" if i < 50 else "z" for i in range(90)]
    true[:10, 0] = 100.0  # the whole first subject is outside
    manifest = write_manifest(tmp_path / "m.parquet", true, subjects=subjects)
    path = write_csv(tmp_path / "p.csv", predicted)
    found = result_of(path, "--manifest", manifest, "--exclude-outside", "--bootstrap", "subjects")
    assert (found["heads"], found["excluded"], found["groups"]) == (80, 10, 5)
    assert found["outside"] == {"yaw": 10, "pitch": 0, "roll": 0}


def test_json_html_and_images_are_written(files):
    out = files["dir"] / "out"
    run = CliRunner().invoke(
        root,
        ["score", str(files["own"]), "--source", "300W-LP", "--quiet", "--json", str(out / "r.json"), "--html",
         str(out / "r.html"), "--figures", str(out / "f")],
    )  # fmt: skip
    assert (run.exit_code, run.output) == (0, "")
    assert json.loads((out / "r.json").read_text())["kind"] == "score"
    page = (out / "r.html").read_text()
    assert page.count("data:image/png;base64,") == 3 and "://" not in page and "<script" not in page
    assert '<meta name="viewport"' in page and "default-src 'none'" in page
    images = sorted((out / "f").iterdir())
    assert len(images) == 3 and all(p.read_bytes().startswith(b"\x89PNG") for p in images)


def test_names_in_a_page_are_escaped(tmp_path):
    predicted, true = heads(20)
    path = write_csv(tmp_path / "a<b>&.csv", predicted, true)
    CliRunner().invoke(root, ["score", str(path), "--html", str(tmp_path / "r.html")], catch_exceptions=False)
    page = (tmp_path / "r.html").read_text()
    assert "a&lt;b&gt;&amp;.csv" in page and "a<b>" not in page


def test_the_worst_heads_are_shown_where_images_are(files):
    import cv2

    for i in range(100):
        (files["dir"] / "set").mkdir(exist_ok=True)
        cv2.imwrite(str(files["dir"] / "set" / f"{i:05d}.png"), np.full((64, 64, 3), i, np.uint8))
    arguments = ["score", files["plain"], "--manifest", files["manifest"], "--figures", files["dir"] / "f"]
    run = CliRunner().invoke(root, [*map(str, arguments), "--images", str(files["dir"])], catch_exceptions=False)
    assert run.exit_code == 0 and (files["dir"] / "f" / "worst_heads.png").exists()
    run = CliRunner().invoke(root, [*map(str, arguments), "--images", str(files["dir"] / "nowhere")])
    assert run.exit_code == 0  # no images, no sheet


def test_the_images_of_the_worst_heads_are_found_by_the_build(tmp_path):
    aflw2000_writer.write(tmp_path / "raw", 8, distinct_images=2)
    building.build(building.BuildConfig(("aflw2000",), tmp_path / "out", str(tmp_path / "raw")))
    table = manifest.read(tmp_path / "out" / "pool.parquet").to_pandas()
    table = table[table.drop_reason.isna()]
    true = table[["yaw_deg", "pitch_deg", "roll_deg"]].to_numpy()
    moved = true.copy()
    moved[3, 0] += 25.0
    path = write_csv(tmp_path / "p.csv", moved, ids=table.sample_id)
    page = tmp_path / "r.html"
    arguments = ["score", path, "--manifest", tmp_path / "out", "--html", page, "--quiet"]
    run = CliRunner().invoke(root, [*map(str, arguments)], catch_exceptions=False)
    text = page.read_text()
    assert run.exit_code == 0 and 'alt="worst heads"' in text
    first = text.partition("<h2>Worst heads</h2>")[2].partition("<tbody>")[2]
    assert re.search(r'<th scope="row" class="name">([^<]*)</th>', first)[1] == table.sample_id.iloc[3]
    evaluation = evaluate(path, tmp_path / "out")
    worst = worst_heads(evaluation)
    assert len(worst) == len(table) and worst[0].error_deg == pytest.approx(24.9, abs=0.5)
    assert sheet_of_worst(evaluation, tmp_path / "out", tmp_path / "nowhere") is None


def test_options_are_shown_without_python_notation(files):
    page = files["dir"] / "r.html"
    arguments = ["score", files["own"], "--bootstrap", "samples", "--html", page, "--quiet"]
    CliRunner().invoke(root, [*map(str, arguments)], catch_exceptions=False)
    options = page.read_text().partition("<h2>Options</h2>")[2]
    cells = dict(re.findall(r'<tr><th scope="row">([^<]*)</th><td class="name">([^<]*)</td></tr>', options))
    assert cells["bootstrap.over"] == "samples" and cells["bootstrap.rounds"] == "1,000"
    assert cells["exclude_outside"] == "no" and cells["source"] == "not set"
    assert not re.search(r"[{}\[\]]|None|True|False", options)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{plain}"], "give --manifest"),
        (["{own}", "--source", "nowhere"], "No training set 'nowhere'"),
        (["{own}", "--pair", "300W-LP"], "TRAIN:TEST"),
        (["{own}", "--pair", "A:B"], "No UBMAE is reported for A:B"),
        (["{own}", "--bootstrap", "subjects"], "subject_id is not known"),
        (["{own}", "--max-angle", "0"], "raise --max-angle"),
        (["{own}", "--images", "{dir}"], "--images needs --manifest"),
        (["{own}", "-O", "ubmae.beta=1"], "no option 'beta'"),
        (["{own}", "-O", "ubmae.unseen=raise", "--source", "{narrow}"], "no head in yaw"),
        (["{dir}/none.csv"], "Cannot open"),
        (["{own}", "--manifest", "{own}"], "not a readable|not a manifest"),
        (["{own}", "--rounds", "x"], "x"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(files, arguments, said):
    import re

    narrow = files["dir"] / "narrow.csv"
    narrow.write_text("low_deg,high_deg,yaw,pitch,roll\n-6,6,1,1,1\n")
    run = ubhpd("score", *(a.format(**files, narrow=narrow) for a in arguments))
    assert run.returncode == 2 and run.stdout == ""
    assert re.search(said, run.stderr) and "Traceback" not in run.stderr
    assert not run.stderr.startswith("Error") or run.stderr.count("\n") == 1


def test_compare_sees_the_better_of_two(files):
    better = files["true"] + 0.5 * (files["predicted"] - files["true"])
    other = write_csv(
        files["dir"] / "b.csv", better[::-1], files["true"][::-1], ids=[f"set/{i:05d}" for i in range(119, -1, -1)]
    )
    run = CliRunner().invoke(root, ["compare", str(files["own"]), str(other)])
    assert run.exit_code == 0 and "MAE: the second is lower by" in run.output
    run = CliRunner().invoke(root, ["compare", str(files["own"]), str(other), "--json"])
    found = json.loads(run.output)
    mae = found["scores"]["mae"]
    assert mae["difference"] == pytest.approx(mae["first"] / 2) and mae["p_value"] < 0.01
    assert found["sign_test"]["abs_error"] < 0.01 and found["heads"] == 120


def test_compare_uses_the_common_heads_and_says_what_it_left_out(files):
    short = write_csv(files["dir"] / "b.csv", files["predicted"][20:], files["true"][20:],
                      ids=[f"set/{i:05d}" for i in range(20, 120)])  # fmt: skip
    found = json.loads(CliRunner().invoke(root, ["compare", str(files["own"]), str(short), "--json"]).output)
    assert (found["heads"], found["only_first"], found["only_second"]) == (100, 20, 0)
    assert found["scores"]["mae"]["difference"] == 0.0 and found["scores"]["mae"]["p_value"] == 1.0
    text = CliRunner().invoke(root, ["compare", str(files["own"]), str(short)]).output
    assert "the data do not tell the two apart" in text


def test_what_cannot_be_compared_is_said(files):
    stranger = write_csv(files["dir"] / "c.csv", files["predicted"], files["true"], ids=[f"x{i}" for i in range(120)])
    run = CliRunner().invoke(root, ["compare", str(files["own"]), str(stranger)])
    assert "no id in common" in str(run.exception)
    moved = write_csv(files["dir"] / "d.csv", files["predicted"], files["true"] + 1.0)
    run = CliRunner().invoke(root, ["compare", str(files["own"]), str(moved)])
    assert "different truth for 'set/00000' (row 1)" in str(run.exception)


@needs("predictions")
def test_hopenet_end_to_end():
    run = ubhpd("score", HOPENET, "--source", "300W-LP", "--pair", "300W-LP:AFLW2000")
    for name, value in [("mae", "6.404"), ("mae_yaw", "6.898"), ("mae_pitch", "6.640"), ("mae_roll", "5.673")]:
        assert any(line.split()[:2] == [name, value] for line in run.stdout.splitlines())
    assert "yaw 0, pitch 2, roll 4" in run.stdout


def test_help_names_the_commands_and_imports_nothing_heavy():
    code = (
        "import sys\nfrom ubhpd.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'pyarrow', 'scipy', 'matplotlib', 'pandas'} & set(sys.modules)\nassert not heavy, heavy"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert all(name in run.stdout for name in ("score", "compare", "doctor"))


@pytest.fixture
def build(tmp_path):
    """A build's folder with 40 heads of 300W-LP and 30 of AFLW2000, two of them beyond 99 degrees and refused."""
    predicted, true = heads(70, 5.0)
    true[40], true[41] = [120.0, 0.0, 0.0], [0.0, 0.0, -100.0]
    ids = [f"300wlp/AFW/{i}" for i in range(40)] + [f"aflw2000/{i}" for i in range(30)]
    datasets = ["300wlp"] * 40 + ["aflw2000"] * 30
    write_manifest(tmp_path / "out" / "pool.parquet", true, ids=ids, dropped={40, 41}, datasets=datasets)
    return {"dir": tmp_path / "out", "predicted": predicted, "true": true, "ids": ids}


def test_a_protocol_scores_its_test_split_against_its_training_split(build, tmp_path):
    path = write_csv(tmp_path / "p.csv", build["predicted"], ids=build["ids"])
    found = result_of(path, "--manifest", build["dir"], "--protocol", "300wlp_aflw2000_1969")
    assert (found["heads"], found["wanted"], found["missing"], found["refused"]) == (28, 28, 0, 42)
    assert found["protocol"]["protocol"] == "300wlp_aflw2000_1969" and len(found["protocol"]["hash"]) == 64
    assert found["source"] == "the training split of 300wlp_aflw2000_1969"
    rows = slice(42, 70)
    wanted = ubmae(build["predicted"][rows], build["true"][rows], counts(build["true"][:40]).inside)
    assert found["scores"]["ubmae"]["value"] == pytest.approx(float(wanted.value))
    everything = result_of(path, "--manifest", build["dir"], "--protocol", "300wlp_aflw2000_2000")
    assert everything["heads"] == 30  # the protocol takes back what the build refused for its angle alone


def test_a_protocol_without_a_manifest_is_said_to_be_unchecked(files):
    run = CliRunner().invoke(root, ["score", str(files["own"]), "--protocol", "300wlp_aflw2000_1969"])
    assert run.exit_code == 0 and "as stated, not checked" in run.output
    run = CliRunner().invoke(root, ["score", str(files["own"]), "--protocol", "P1"])
    assert "no protocol 'P1'" in str(run.exception)


def test_compare_keeps_to_the_protocol(build, tmp_path):
    path = write_csv(tmp_path / "p.csv", build["predicted"], ids=build["ids"])
    arguments = ["compare", path, path, "--manifest", build["dir"], "--protocol", "300wlp_aflw2000_1969", "--json"]
    run = CliRunner().invoke(root, [*map(str, arguments)], catch_exceptions=False)
    assert json.loads(run.output)["heads"] == 28


def test_control_characters_in_ids_and_columns_do_not_reach_the_terminal(tmp_path):
    predicted, true = heads(20)
    path = write_csv(
        tmp_path / "p.csv", predicted, true, header="sample_id,yaw,pitch,roll,yaw_true,pitch_true,roll_true"
    )
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0] + ",x\x1b[31m", *(line + ",1" for line in lines[1:])]) + "\n")
    done = ubhpd("score", path)
    assert done.returncode == 0 and "\x1b" not in done.stdout and "x\\x1b[31m" in done.stdout
