"""`ubhpd submit`: what is checked, what is written, who is ranked, and the challenge for Codabench."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from dataclasses import asdict

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from realdata import REAL, needs
from scipy.spatial.transform import Rotation
from score_data import write_csv, write_manifest

import ubhpd as api
from ubhpd import manifest
from ubhpd.core import rotation
from ubhpd.core.errors import UbhpdError
from ubhpd.evaluation.pairing import known as known_counts
from ubhpd.evaluation.scoring import score_arrays
from ubhpd.experiments import submission
from ubhpd.experiments.plan import declared_training, known
from ubhpd.experiments.submission import Submission, SubmitRequest, from_toml, submit
from ubhpd.leaderboards import standings
from ubhpd.leaderboards.result import read, read_all
from ubhpd.manifest.schema import COLUMNS, Column
from ubhpd.models.catalogue import card
from ubhpd.protocols.resolve import PROTOCOLS

AFLW, BIWI = "300wlp_aflw2000_1969", "biwi_16_8_drawn"
N = 300


@pytest.fixture(scope="module")
def true():
    rng = np.random.default_rng(5)
    return np.clip(rng.normal(size=(N, 3)) * (35.0, 20.0, 15.0), -88.0, 88.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory, true):
    """A build with heads of AFLW2000 and of 24 recordings of BIWI, and none of 300W-LP."""
    folder = tmp_path_factory.mktemp("submit") / "out"
    folder.mkdir()
    ids = [f"aflw2000/image{i:05d}" for i in range(N)] + [f"biwi/{i % 24 + 1:02d}/frame_{i:05d}" for i in range(N)]
    sequences = [None] * N + [f"biwi/{i % 24 + 1:02d}" for i in range(N)]
    write_manifest(
        folder / "pool.parquet", np.concatenate([true, true]), ids, sequences=sequences,
        datasets=["aflw2000"] * N + ["biwi"] * N,
    )  # fmt: skip
    (folder / "build.json").write_text('{"datasets": {}}')
    return folder


@pytest.fixture(scope="module")
def predicted(true):
    return true + 3.0 * np.random.default_rng(6).normal(size=true.shape)


@pytest.fixture
def file(tmp_path, predicted):
    return write_csv(tmp_path / "p.csv", predicted, ids=[f"aflw2000/image{i:05d}" for i in range(N)])


def submitted(file, data, out, name="MyNet", protocol=AFLW, **said):
    return submit([Submission(str(file), name, protocol, **said)], SubmitRequest(data, out))[0]


# What is written


def test_a_submission_is_scored_and_written_as_a_result(file, data, tmp_path, true, predicted):
    made = submitted(file, data, tmp_path / "r", trained_on="300w-lp", paper="https://example.org/p", year=2024,
                     parameters=1000, license="MIT", by="Ann")  # fmt: skip
    own = read(made.path)
    assert own == made.result and made.path == tmp_path / "r" / AFLW / "MyNet-submitted.json"
    counts = known_counts()["300W-LP"].counts
    for name, value in score_arrays(predicted, true, counts).items():
        if np.isfinite(value) and name in ("mae", "balanced_mae", "ubmae", "geodesic", "dropped_mass"):
            assert own.scores[name].value == pytest.approx(value, abs=1e-9), name
    assert own.scores["mae"].low < own.scores["mae"].value < own.scores["mae"].high
    training = own.training
    assert (training.how, training.declared, own.ubmae_source) == ("submitted", "300W-LP", "300W-LP")
    assert (own.info.paper, own.info.year, own.info.license, own.by) == ("https://example.org/p", 2024, "MIT", "Ann")
    assert (made.path.parent / own.predictions).read_bytes() == file.read_bytes()
    assert not re.search(r"/(tmp|home|root)/", made.path.read_text())


def test_the_same_submission_gives_the_same_bytes_and_is_kept(file, data, tmp_path, predicted):
    paths = [submitted(file, data, tmp_path / folder, trained_on="300W-LP").path for folder in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert not submitted(file, data, tmp_path / "a", trained_on="300W-LP").is_new
    other = write_csv(tmp_path / "q.csv", predicted + 0.1, ids=[f"aflw2000/image{i:05d}" for i in range(N)])
    with pytest.raises(UbhpdError, match=r"holds another result of 'MyNet': give --replace"):
        submitted(other, data, tmp_path / "a")
    assert paths[0].read_bytes() == paths[1].read_bytes()
    request = SubmitRequest(data, tmp_path / "a", replace=True)
    assert submit([Submission(str(other), "MyNet", AFLW)], request)[0].is_new
    assert paths[0].read_bytes() != paths[1].read_bytes()


def test_the_mean_pose_of_300w_lp_comes_from_its_counts(file, data, tmp_path, true):
    floor = submitted(file, data, tmp_path / "r").result.floor
    counts = known_counts()["300W-LP"].counts
    pose = counts @ np.arange(-84.0, 85.0, 12.0) / counts.sum(axis=1)
    assert floor.scores["mae"] == pytest.approx(np.abs(true - pose).mean(), abs=1e-9)
    assert floor.scores["ubmae"] > 0 and "label counts of 300W-LP" in floor.note


def test_names_that_differ_in_odd_characters_only_have_files_of_their_own(file, data, tmp_path):
    paths = {submitted(file, data, tmp_path / "r", name).path for name in ("a b", "a/b", "../a", "é", "..")}
    assert len(paths) == 5 and {p.parent for p in paths} == {tmp_path / "r" / AFLW}


# What is refused


def changed(file, change):
    lines = file.read_text().splitlines()
    file.write_text("\n".join(change(lines)) + "\n")
    return file


def in_radians(lines):
    rows = [line.split(",") for line in lines[1:]]
    return [lines[0], *(",".join([r[0], *(repr(np.radians(float(v)).item()) for v in r[1:])]) for r in rows)]


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (lambda t: [t[0], *(x.replace("aflw2000/image", "biwi/01/frame_") for x in t[1:])], 2,
         "no prediction for any of the 300 test heads of 300wlp_aflw2000_1969: its ids are like 'biwi/01/frame_00000'"),
        (lambda t: [*t, t[5]], 2, "row 301: the id 'aflw2000/image00004' stands in row 5 already"),
        (lambda t: [*t[:3], "aflw2000/image00002,nan,1,2", *t[4:]], 2, "row 3, column yaw: nan is no angle"),
        (lambda t: [*t[:3], "aflw2000/image00002,inf,1,2", *t[4:]], 2, "row 3, column yaw: inf is no angle"),
        (lambda t: [*t, "aflw2000/image99999,1,2,3"], 2, "the id 'aflw2000/image99999' is not in"),
        (lambda t: [*t[:100], "aflw2000/image00099,1"], 2, "2 columns where the header has 4"),
        (lambda t: t[:1], 2, "a header and no rows"),
        (lambda t: t[: N // 2 + 1], 1, "missing: 150 of 300 heads have no prediction"),
        (in_radians, 1, "radians"),
        (lambda t: [t[0].replace("yaw,pitch", "pitch,yaw"), *t[1:]], 1, "column_order"),
    ],
    ids=("other protocol", "duplicate", "nan", "inf", "unknown id", "cut", "empty", "half", "radians", "exchanged"),
)  # fmt: skip
def test_bad_input_is_one_sentence_and_leaves_nothing(file, data, tmp_path, ubhpd, change, code, said):
    changed(file, change)
    typed = ("submit", file, "--protocol", AFLW, "--data", data)
    found, out, err = ubhpd(*typed, "--name", "x", "--out", tmp_path / "r", "--quiet")
    assert found == code and said in out + err and "Traceback" not in err
    if code == 2:
        assert err.count("\n") == 1 and out == ""
    assert not (tmp_path / "r").exists()
    assert ubhpd(*typed, "--check")[0] == code
    with pytest.raises(UbhpdError, match="p.csv"):
        submitted(file, data, tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"name": " "}, "has no name of its method"),
        ({"name": "a\nb"}, "write one line"),
        ({"name": "x" * 301}, "at most 300 characters"),
        ({"protocol": "300wlp"}, "no protocol '300wlp'"),
        ({"code": "javascript:alert(1)"}, "give an address"),
        ({"year": 20244}, "year of MyNet is 20244"),
        ({"parameters": -1}, "parameters of MyNet is -1"),
        ({"seed": -1}, "seed of MyNet is -1"),
        ({"counts": "x.csv"}, "has counts and no training set"),
        ({"trained_on": "X", "counts": "gone.csv"}, "gone.csv"),
        ({"reported_as": "Hopenet (alpha=3)"}, "did you mean 'Hopenet"),
        ({"stress": "gone.json"}, "Cannot open gone.json"),
    ],
    ids=lambda v: str(v)[:25],
)
def test_a_wrong_statement_is_refused(file, data, tmp_path, said, error):
    given = {"name": "MyNet", "protocol": AFLW, **said}
    with pytest.raises(UbhpdError, match=re.escape(error)):
        submitted(file, data, tmp_path / "r", **given)
    assert not (tmp_path / "r").exists()


def test_a_folder_that_is_no_build_is_refused(file, tmp_path):
    with pytest.raises(UbhpdError, match="no folder of a build"):
        submitted(file, tmp_path, tmp_path / "r")


def test_the_command_says_what_is_missing(file, data, ubhpd):
    for typed, said in (
        ((file,), "give --data OUT"),
        (("--data", data), "No predictions are named"),
        ((file, "--data", data), "names no protocol"),
        ((file, "--data", data, "--protocol", AFLW), "give --out RESULTS"),
        ((file, "--data", data, "--codabench", "x"), "needs no predictions"),
    ):
        code, _, err = ubhpd("submit", *typed)
        assert code == 2 and said in err and err.count("\n") == 1


def test_a_failure_while_writing_leaves_neither_file(file, data, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(submission.shutil, "copyfile", full)
    with pytest.raises(UbhpdError, match="No space left on device"):
        submitted(file, data, tmp_path / "r")
    assert not list((tmp_path / "r").rglob("MyNet*"))


# Findings that are accepted


def test_an_accepted_finding_is_recorded(file, data, tmp_path, ubhpd):
    changed(file, lambda t: t[: N // 2 + 1])
    code, out, _ = ubhpd("submit", file, "--name", "Half", "--protocol", AFLW, "--data", data, "--out", tmp_path / "r",
                         "--accept", "missing", "--trained-on", "300W-LP")  # fmt: skip
    assert code == 0 and "accepted: missing" in out and "only 50.0 % of the heads are predicted" in out
    own = read(tmp_path / "r" / AFLW / "Half-submitted.json")
    assert own.coverage == 0.5 and [a.kind for a in own.accepted] == ["missing"]
    code, out, _ = ubhpd("leaderboard", tmp_path / "r")
    assert code == 0 and "Not ranked: Half: predicted only 50.0 % of the heads." in out
    page = (tmp_path / "r" / "leaderboard.html").read_text()
    assert "predicted only 50.0 % of the heads" in page and ">missing<" in page


# Training sets


@pytest.mark.parametrize(
    ("text", "name", "counted"),
    [
        (None, None, None),
        ("protocol", "300W-LP", "300W-LP"),
        ("300w-lp", "300W-LP", "300W-LP"),
        ("BIWI", "BIWI", "BIWI"),
        (BIWI, f"training split of {BIWI}", f"training split of {BIWI}"),
        ("WIDER FACE and more", "WIDER FACE and more", None),
    ],
)
def test_the_declared_training_set_decides_which_heads_ubmae_counts(file, data, tmp_path, text, name, counted):
    own = submitted(file, data, tmp_path / "r", trained_on=text).result
    assert (own.training.declared, own.ubmae_source) == (name, counted)
    assert ("ubmae" in own.scores) == (counted is not None)
    (table,) = standings.standings(read_all([tmp_path / "r"]), known())
    assert (table.methods[0].rank is None) == (text is None)
    assert table.methods[0].evidence == ("unknown" if text is None else "submitted")


def test_counts_of_a_named_set_come_from_a_table(file, data, tmp_path, predicted, true):
    edges = np.arange(-90, 91, 12)
    heads = np.arange(15) + 1
    table = tmp_path / "counts.csv"
    rows = [f"{a},{b},{n},{n},{n}" for a, b, n in zip(edges[:-1], edges[1:], heads)]
    table.write_text("\n".join(["low_deg,high_deg,yaw,pitch,roll", *rows]) + "\n")
    own = submitted(file, data, tmp_path / "r", trained_on="Mine", counts=str(table)).result
    assert own.ubmae_source == "Mine"
    expected = score_arrays(predicted, true, np.tile(heads, (3, 1)))["ubmae"]
    assert own.scores["ubmae"].value == pytest.approx(expected)
    by_file = submitted(file, data, tmp_path / "s", trained_on=str(table)).result
    assert by_file.training.declared == "120 heads of counts.csv" and str(tmp_path) not in json.dumps(asdict(by_file))


def test_the_training_split_of_another_dataset_is_not_taken_for_300w_lp():
    assert declared_training("protocol", PROTOCOLS["ubhpd_cross_300wlp"]).name == "training split of ubhpd_cross_300wlp"


def test_the_stress_of_a_method_is_a_column(file, data, tmp_path, ubhpd):
    stress = tmp_path / "stress.json"
    stress.write_text('{"kind": "ubhpd-stress", "perturbations": "set 1", "rise_deg": 2.5, "other": 1}')
    submitted(file, data, tmp_path / "r", trained_on="300W-LP", stress=str(stress))
    assert ubhpd("leaderboard", tmp_path / "r")[0] == 0
    text = (tmp_path / "r" / "leaderboard.md").read_text()
    assert "| Stress |" in text and "+2.50 (set 1)" in text
    stress.write_text('{"kind": "ubhpd-stress", "perturbations": "set 1", "rise_deg": "x"}')
    with pytest.raises(UbhpdError, match="rise_deg cannot be 'x'"):
        submitted(file, data, tmp_path / "s", stress=str(stress))


# Several submissions in one file


def test_a_toml_file_describes_several_submissions(file, data, tmp_path, ubhpd):
    toml = tmp_path / "all.toml"
    toml.write_text(f'''
protocol = "{AFLW}"
trained_on = "300W-LP"
[[submission]]
name = "A"
predictions = "p.csv"
seed = 3
[[submission]]
name = "B"
predictions = "p.csv"
trained_on = "BIWI"
accept = ["quantised"]
''')
    code, out, _ = ubhpd("submit", "--meta", toml, "--data", data, "--out", tmp_path / "r", "--by", "Ann")
    assert code == 0 and out.count("Wrote") == 2
    found = {f.result.model: f.result for f in read_all([tmp_path / "r"])}
    assert (found["A"].seed, found["A"].training.declared, found["A"].by) == (3, "300W-LP", "Ann")
    assert found["B"].training.declared == "BIWI"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("predictions = 3", "names no prediction file"),
        ("predictions = 'p.csv'\nyear = 'x'", "year cannot be 'x': it is a whole number or none"),
        ("predictions = 'p.csv'\naccept = [1]", "accept cannot be"),
        ("predictions = 'p.csv'\nnmae = 'x'", "no option 'nmae': did you mean name, one of predictions"),
        ("submission = 3", "write [[submission]]"),
        ("a = [", "is not TOML"),
    ],
)
def test_a_wrong_toml_file_is_one_sentence(tmp_path, text, said):
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(UbhpdError, match=re.escape(said)):
        from_toml(tmp_path / "m.toml", {})


def test_nothing_is_written_unless_every_submission_is_good(file, data, tmp_path):
    good = Submission(str(file), "A", AFLW)
    for bad in (Submission("gone.csv", "B", AFLW), Submission(str(file), "A", AFLW, year=2020)):
        with pytest.raises(UbhpdError):
            submit([good, bad], SubmitRequest(data, tmp_path / "r"))
        assert not (tmp_path / "r").exists()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_pipe_is_submitted_like_a_file(file, data, tmp_path):
    options = f"--name x --protocol {AFLW} --data {data} --out {tmp_path}/r"
    script = f"{sys.executable} -m ubhpd submit <(cat {file}) {options}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (own,) = read_all([tmp_path / "r"])
    assert (own.path.parent / own.result.predictions).read_bytes() == file.read_bytes()


# In Python


def test_a_data_frame_is_submitted(file, data, tmp_path):
    frame = pd.read_csv(file)
    row = api.submit(frame, "MyNet", protocol=AFLW, data=data, out=tmp_path / "r", trained_on="300W-LP", by="Ann")
    by_file = submitted(file, data, tmp_path / "s", trained_on="300W-LP", by="Ann").result
    assert row.is_fit and row.path.is_file() and row.table().loc["mae", "value"] == by_file.scores["mae"].value
    assert "300 of 300 test heads" in row._repr_html_()
    frame[["yaw", "pitch", "roll"]] = np.radians(frame[["yaw", "pitch", "roll"]])
    checked = api.submit(frame, protocol=AFLW, data=data, check=True)
    assert not checked.is_fit and checked.result is None and "radians" in set(checked.findings()["kind"])
    with pytest.raises(UbhpdError, match="no argument 'papr'"):
        api.submit(frame, "x", protocol=AFLW, data=data, out=tmp_path / "r", papr="x")
    with pytest.raises(UbhpdError, match="has no ids: give a table with sample_id"):
        api.submit(frame[["yaw", "pitch", "roll"]].to_numpy(), "x", protocol=AFLW, data=data, check=True)
    with pytest.raises(UbhpdError, match="give out, or check=True"):
        api.submit(frame, "x", protocol=AFLW, data=data)


# Codabench


def codabench_run(challenge, tmp_path, *files):
    """Lay out folders as Codabench does, run the command of metadata.yaml there, return the process and the output."""
    source, out, program = tmp_path / "input", tmp_path / "output", tmp_path / "program"
    for archive, place in (("reference_data", source / "ref"), ("scoring_program", program)):
        with zipfile.ZipFile(challenge / "bundle.zip") as bundle, bundle.open(f"{archive}.zip") as inner:
            zipfile.ZipFile(inner).extractall(place)
    (source / "res").mkdir()
    out.mkdir()
    for name, content in files:
        (source / "res" / name).write_bytes(content)
    command = re.search("command: (.*)", (program / "metadata.yaml").read_text())[1]
    assert command == "python3 /app/program/score.py /app/input /app/output"
    run = [sys.executable, str(program / "score.py"), str(source), str(out)]
    return subprocess.run(run, cwd=program, capture_output=True, text=True), out


@pytest.fixture(scope="module")
def challenge(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("codabench") / "challenge"
    submission.write_codabench(AFLW, SubmitRequest(data, folder), folder)
    return folder


def test_the_scoring_program_scores_as_submit_does(challenge, file, data, tmp_path, true):
    toml = b'name = "MyNet"\nyear = 2024\n'
    done, out = codabench_run(challenge, tmp_path, ("p.csv", file.read_bytes()), ("submission.toml", toml))
    assert done.returncode == 0, done.stderr
    scores = json.loads((out / "scores.json").read_text())
    own = submitted(file, data, tmp_path / "r", trained_on="300W-LP").result
    for name in ("balanced_mae", "mae", "mae_yaw", "mae_pitch", "mae_roll", "geodesic", "ubmae"):
        assert scores[name] == pytest.approx(own.scores[name].value, abs=1e-9)
    assert scores["coverage"] == 1.0 and "<html" in (out / "detailed_results.html").read_text()
    (row,) = read_all([out])
    assert row.result.model == "MyNet" and row.result.info.year == 2024
    assert row.result.test.labels_sha256 == own.test.labels_sha256
    # The true angles stay where participants cannot download them.
    assert not list(out.rglob("*.parquet"))
    shown = "".join(p.read_text() for p in out.rglob("*") if p.is_file())
    assert not [v for v in true[:50, 0] if f"{v:.5f}" in shown]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "The submission holds no prediction file"),
        ([("a.csv", b"x"), ("b.csv", b"x")], "2 files that may be predictions"),
        ([("a.csv", b"sample_id,yaw,pitch,roll\naflw2000/image00000,1,2,3\n")], "missing"),
        ([("a.csv", b"sample_id,yaw,pitch,roll\nx,1,2,3\n")], "no prediction for any of the 300 test heads"),
        ([("a.csv", b"x"), ("submission.toml", b"accept = ['missing']")], "has a key 'accept'"),
        ([("a.csv", b"x"), ("submission.toml", b"trained_on = '/'")], "no name of a training set"),
    ],
)
def test_the_scoring_program_refuses_in_one_sentence(challenge, tmp_path, files, said):
    done, out = codabench_run(challenge, tmp_path, *files)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
    assert not list(out.iterdir())


def test_a_challenge_of_a_divided_protocol_keeps_both_splits(data, true, tmp_path):
    folder = tmp_path / "challenge"
    request = SubmitRequest(data, folder, protocol_seed=3)
    submission.write_codabench(BIWI, request, folder)
    ids = [f"biwi/{i % 24 + 1:02d}/frame_{i:05d}" for i in range(N)]
    made = write_csv(tmp_path / "b.csv", true + np.random.default_rng(1).normal(size=true.shape), ids=ids)
    (tmp_path / "run").mkdir()
    done, out = codabench_run(folder, tmp_path / "run", ("p.csv", made.read_bytes()))
    assert done.returncode == 0, done.stderr
    own = submit([Submission(str(made), "x", BIWI, "protocol")], SubmitRequest(data, tmp_path / "r", protocol_seed=3))
    assert json.loads((out / "scores.json").read_text())["mae"] == pytest.approx(own[0].result.scores["mae"].value)


@pytest.mark.parametrize(
    ("protocol", "files", "test", "has_ubmae"),
    [
        ("ubhpd", ["about.json", "build.json", "training_counts.csv", "ubhpd.parquet"], range(200, 300), True),
        ("ubhpd_cross_aflw2000", ["about.json", "build.json", "pool.parquet", "ubhpd.parquet"], range(N), False),
    ],
)
def test_a_challenge_on_ubhpd_holds_no_training_head(data, tmp_path, predicted, protocol, files, test, has_ubmae):
    build = tmp_path / "build"
    shutil.copytree(data, build)
    pool = manifest.read(data / "pool.parquet").slice(0, N)
    split = pa.array(["train"] * 200 + ["test"] * 100)
    columns = (*COLUMNS, Column("split", pa.string(), "", "", ""))
    manifest.write_parquet([pool.append_column("split", split)], build / "ubhpd.parquet", columns)
    submission.write_codabench(protocol, SubmitRequest(build, build), tmp_path / "c")
    assert sorted(p.name for p in (tmp_path / "c" / "reference_data").iterdir()) == files
    names = {i for p in (tmp_path / "c" / "reference_data").glob("*.parquet")
             for i in manifest.read(p).column("sample_id").to_pylist()}  # fmt: skip
    assert names == {f"aflw2000/image{i:05d}" for i in test}
    made = write_csv(tmp_path / "p.csv", predicted[list(test)], ids=sorted(names))
    done, out = codabench_run(tmp_path / "c", tmp_path, ("p.csv", made.read_bytes()))
    assert done.returncode == 0, done.stderr
    scores = json.loads((out / "scores.json").read_text())
    (row,) = submit([Submission(str(made), "x", protocol, "protocol")], SubmitRequest(build, tmp_path / "r"))
    assert scores["mae"] == pytest.approx(row.result.scores["mae"].value)
    assert ("ubmae" in scores) == has_ubmae == (row.result.ubmae_source is not None)
    if has_ubmae:
        assert scores["ubmae"] == pytest.approx(row.result.scores["ubmae"].value)


def test_the_bundle_names_every_file_that_it_needs(challenge):
    with zipfile.ZipFile(challenge / "bundle.zip") as bundle:
        names = set(bundle.namelist())
        text = bundle.read("competition.yaml").decode()
    assert set(re.findall(r"(?:image|terms|file|reference_data|scoring_program): (\S+\.\w+)", text)) < names
    assert "version: 2" in text and 'key: "balanced_mae"' in text
    yaml = pytest.importorskip("yaml", reason="needs PyYAML: pip install pyyaml")
    content = yaml.safe_load(text)
    assert [c["index"] for c in content["leaderboards"][0]["columns"]] == list(range(7))
    assert content["phases"][0]["tasks"] == [content["tasks"][0]["index"]]


def test_a_challenge_needs_an_empty_folder_and_a_protocol(data, tmp_path, ubhpd):
    (tmp_path / "x").write_text("mine")
    code, _, err = ubhpd("submit", "--codabench", tmp_path, "--protocol", AFLW, "--data", data)
    assert code == 2 and "is not an empty folder" in err and [p.name for p in tmp_path.iterdir()] == ["x"]
    code, _, err = ubhpd("submit", "--codabench", tmp_path / "c", "--data", data)
    assert code == 2 and "No protocol is named" in err and not (tmp_path / "c").exists()


# Real predictions


@pytest.fixture(scope="module")
def real_build(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real") / "out"
    api.build("aflw2000", roots={"aflw2000": REAL / "AFLW2000"}, out=folder, progress=False)
    return folder


@needs("AFLW2000")
@needs("predictions")
def test_real_predictions_have_their_known_errors_and_stand_beside_printed_results(real_build, tmp_path):
    known_mae = {"hopenet": 6.404, "opentrack": 3.27, "openvino": 8.99, "lightweight": 3.92}
    for name, mae in known_mae.items():
        path = REAL / "predictions" / f"{name}_aflw2000.csv"
        reported = "Hopenet (alpha=1)" if name == "hopenet" else None
        own = submitted(path, real_build, tmp_path / "r", name, trained_on="300W-LP", reported_as=reported)
        assert own.result.scores["mae"].value == pytest.approx(mae, abs=0.005), name
    (table,) = standings.standings(read_all([tmp_path / "r"]), known())
    assert [(m.name, m.rank) for m in table.methods] == [
        ("opentrack", 1), ("lightweight", 2), ("hopenet", 3), ("openvino", 4)
    ]  # fmt: skip
    assert {m.decided_by for m in table.methods[1:]} == {"paired"}
    assert table.reported and table.methods[2].reported.printed.mae == 6.41
    assert all(m.values["ubmae"].mean > 0 and m.left_out is not None for m in table.methods)
    assert 15 < table.baseline_values["mae"].mean < 20  # not that of a few heads


@needs("AFLW2000")
@needs("predictions")
@needs("weights/fsanet_300W_LP")
def test_published_weights_and_submitted_predictions_share_one_ranking(real_build, tmp_path):
    pytest.importorskip("torch")
    weights = REAL / "weights/fsanet_300W_LP/fsanet_capsule_3_16_2_21_5.h5"
    report = api.bench("fsanet_capsule_1x1", AFLW, real_build, tmp_path / "r", weights={"fsanet_capsule_1x1": weights},
                       trained_on={"fsanet_capsule_1x1": "300W-LP"}, device="cpu", progress=False)  # fmt: skip
    assert report.failed == ()
    for name in ("opentrack", "hopenet"):
        submitted(REAL / "predictions" / f"{name}_aflw2000.csv", real_build, tmp_path / "r", name, trained_on="300W-LP")
    (table,) = standings.standings(read_all([tmp_path / "r"]), known())
    assert [(m.name, m.rank, m.evidence) for m in table.methods] == [
        ("opentrack", 1, "submitted"), ("fsanet_capsule_1x1", 2, "imported"), ("hopenet", 3, "submitted")
    ]  # fmt: skip
    assert table.methods[1].values["mae"].mean == pytest.approx(5.25, abs=0.02)  # as printed
    assert table.methods[1].reported.printed.mae == 5.25
    standings.verify(read_all([tmp_path / "r"]))


def commands_of(name):
    """The commands that a card shows, as words."""
    lines = card(name).text.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.startswith("    ubhpd ")]


def test_the_card_of_img2pose_leads_to_a_result(data, true, tmp_path, ubhpd):
    # The rotation vectors of OpenCV's camera, and the quaternion as the card writes it.
    own = rotation.matrix_from_euler(true)
    turned = rotation.camera_to_canonical(own)  # its own inverse
    np.testing.assert_allclose(rotation.camera_to_canonical(turned), own, atol=1e-12)
    camera = Rotation.from_matrix(turned).as_rotvec()
    angle = np.linalg.norm(camera, axis=1, keepdims=True)
    vector = np.sin(angle / 2) / angle * camera * (1, -1, -1)
    frame = pd.DataFrame(np.hstack([vector, np.cos(angle / 2)]), columns=["qx", "qy", "qz", "qw"])
    frame.insert(0, "sample_id", [f"aflw2000/image{i:05d}" for i in range(N)])
    frame.to_csv(tmp_path / "img2pose.csv", index=False)
    check, submitted = commands_of("img2pose")
    places = {"OUT": data, "RESULTS": tmp_path / "results", "img2pose.csv": tmp_path / "img2pose.csv"}
    code, out, err = ubhpd(*[places.get(word, word) for word in check[1:]])
    assert code == 0, (out, err)
    code, out, err = ubhpd(*[places.get(word, word) for word in submitted[1:]], "--quiet")
    assert code == 0, (out, err)
    (found,) = read_all([tmp_path / "results"])
    assert found.result.scores["mae"].value < 1e-6


def test_the_card_of_kepler_leads_to_a_result(data, predicted, tmp_path, ubhpd):
    ids = [f"aflw2000/image{i:05d}" for i in range(N)]
    write_csv(tmp_path / "kepler.csv", predicted, ids=ids)
    places = {"OUT": data, "RESULTS": tmp_path / "results", "kepler.csv": tmp_path / "kepler.csv"}
    check, submitted, predict, inspect = commands_of("kepler")
    for command in (check, submitted):
        code, out, err = ubhpd(*[places.get(word, word) for word in command[1:]])
        assert code == 0, (out, err)
    assert (predict[1], inspect[1:3]) == ("predict", ["onnx", "inspect"])
    for command in (predict, inspect):  # there is no such file, but every option is known
        code, _, err = ubhpd(*[places.get(word, word) for word in command[1:]])
        assert code == 2 and "No such option" not in err and "kepler" in err
