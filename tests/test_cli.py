"""The commands as people type them: what they print, write and return."""

import errno
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ubhpd import cli
from ubhpd.core import progress
from ubhpd.core.progress import Progress, log_shown
from ubhpd.core.text import printable, table
from ubhpd.reports.terminal import dropped_text, info_text
from ubhpd.synth.writers import aflw2000_writer, biwi_writer


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    biwi_writer.write(root, (1, 2), frames=3, with_depth=False)
    aflw2000_writer.write(root, 8, distinct_images=2)
    return root


@pytest.fixture
def built(ubhpd, data, tmp_path):
    code, _, _ = ubhpd("build", "--sources", "biwi,aflw2000", "--data-root", data, "--out", tmp_path / "out", "--quiet")
    assert code == 0
    return tmp_path / "out"


def test_help_lists_the_commands_and_imports_nothing_heavy():
    script = (
        "import sys; from ubhpd import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'numpy', 'pyarrow', 'scipy', 'cv2', 'pandas', 'matplotlib', 'torch'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("build", "sources", "validate", "info"):
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("command", ["score", "doctor"])
def test_a_file_that_holds_its_truth_is_scored_and_examined_without_pandas(command, tmp_path):
    """Pandas, which pyarrow imports for many of its conversions, takes longer to load than 2,000 heads to score."""
    rows = (f"h{n},{n % 50},{n % 7},{n % 5},{n % 50 + n % 3},{n % 7 + 1},{n % 5}" for n in range(200))
    text = "\n".join(["sample_id,yaw,pitch,roll,yaw_true,pitch_true,roll_true", *rows])
    (tmp_path / "p.csv").write_text(text)
    code = (
        "import sys\nfrom ubhpd.cli import main\ntry:\n    main()\nfinally:\n"
        "    print('pandas' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, command, tmp_path / "p.csv"], capture_output=True, text=True)
    assert "200 heads" in done.stdout and done.stderr.split()[-1] == "False", done.stderr


@pytest.mark.parametrize("name", cli.root.list_commands(None))
def test_every_command_has_help(name, ubhpd):
    code, out, _ = ubhpd(name, "--help")
    assert code == 0
    assert out.startswith(f"Usage: ubhpd {name}")


@pytest.mark.parametrize(("typed", "sentence"), [("pedict", "did you mean predict?"), ("zzz", "choose from audit, ")])
def test_an_unknown_command_suggests_the_nearest(ubhpd, typed, sentence):
    code, _, err = ubhpd(typed)
    assert code == 2 and f"No such command {typed!r}: {sentence}" in err


@pytest.mark.parametrize(
    ("typed", "usual"),
    [
        (["Models"], ["models"]),
        (["models", "HopeNet"], ["models", "hopenet"]),
        (["sources", "BIWI"], ["sources", "biwi"]),
        (["protocols", "UBHPD_Cross_BIWI"], ["protocols", "ubhpd_cross_biwi"]),
        (["protocols", "Cross"], ["protocols", "cross"]),
        (["plot", "Density", "--help"], ["plot", "density", "--help"]),
        (["weights", "INIT", "--help"], ["weights", "init", "--help"]),
        (["onnx", "List"], ["onnx", "list"]),
    ],
)
def test_upper_case_does_not_count_in_a_name(ubhpd, typed, usual):
    found = ubhpd(*typed)
    assert found == ubhpd(*usual) and found[0] == 0


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (["plot", "densty"], "No such command 'densty': did you mean density?"),
        (["weights", "imprt"], "No such command 'imprt': did you mean import?"),
        (["build", "--split", "Subjct"], "'Subjct' is not one of random, sequence, subject: did you mean subject?"),
        (["export", "--backend", "lokky"], "'lokky' is not one of loky, multiprocessing"),
        (["train", "--optimizer", "adm"], "did you mean adam"),
    ],
)
def test_a_wrong_choice_suggests_the_nearest(ubhpd, typed, sentence):
    code, _, err = ubhpd(*typed)
    assert code == 2 and sentence in err


@pytest.mark.parametrize("flags", [["-OO"], []])
def test_commands_run_without_docstrings_and_in_the_c_locale(tmp_path, flags):
    """The names of files and the output are in an encoding that has ASCII alone."""
    code = "import sys; from ubhpd.cli import main; main(sys.argv[1:])"
    own = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHON"))}
    run = subprocess.run(
        [sys.executable, *flags, "-c", code, "sources", "--data", os.fsencode(tmp_path) + b"/\xca\xfd"],
        env={**own, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, capture_output=True, text=True,
    )  # fmt: skip
    assert "Traceback" not in run.stderr and "docstring" not in run.stderr, run.stderr
    assert run.returncode == 2 or "aflw2000" in run.stdout


def test_without_torch_a_command_is_one_sentence(tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import ubhpd.cli, ubhpd.core.registry as registry, click\n"
        "command = click.Command('needs', callback=lambda: __import__('torch'))\n"
        "ubhpd.cli._Commands.get_command = lambda self, ctx, name: command\n"
        "ubhpd.cli.main(['predict'])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    sentence = "Error: This needs torch, which is not installed: pip install 'ubhpd[torch]'.\n"
    assert (run.returncode, run.stderr) == (2, sentence)


@pytest.mark.parametrize(
    "module", ["images.detectors", "images.landmarks", "inference.predicting", "experiments.benchmark"]
)
def test_what_geometric_methods_and_cascades_use_imports_no_torch(module):
    code = f"import sys; sys.modules['torch'] = None; import ubhpd.{module}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_long_work_without_a_terminal_writes_a_line_a_minute(monkeypatch, capsys):
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress().bar("Predicting", 400) as advance:
        for _ in range(130):
            now[0] += 1.0
            advance(2)
    lines = ["Predicting: 120 of 400 (30%), 2.0/s", "Predicting: 240 of 400 (60%), 2.0/s"]
    assert capsys.readouterr().err.splitlines() == lines
    with Progress().step("Reading") as update:
        now[0] += 61.0
        update(1, 3)
    with Progress(show=False).bar("Quiet", 400) as advance:
        now[0] += 100.0
        advance(1)
    assert capsys.readouterr().err == "Reading: 1 of 3 (33%), 0.0/s\n"


def test_version(ubhpd):
    code, out, _ = ubhpd("--version")
    assert code == 0 and out.startswith("ubhpd, version ")


def test_build_prints_what_it_found_and_refused(ubhpd, data, tmp_path):
    code, out, err = ubhpd("build", "--sources", "biwi, aflw2000", "--data-root", data, "--out", tmp_path / "o")
    assert (code, err) == (0, "")
    assert "biwi          6       6        0" in out
    assert "dropped as beyond_max_angle" in out
    assert str(tmp_path / "o" / "pool.parquet") in out


def test_quiet_is_quiet_and_json_is_json(ubhpd, data, tmp_path):
    arguments = ("build", "--sources", "biwi", "--data-root", data, "--out", tmp_path / "o")
    assert ubhpd(*arguments, "--quiet") == (0, "", "")
    code, out, _ = ubhpd(*arguments, "--json")
    assert code == 0
    assert json.loads(out) == json.loads((tmp_path / "o" / "build.json").read_text())


def test_options_reach_the_builder(ubhpd, data, tmp_path):
    base = ("build", "--sources", "biwi", "--data-root", data, "--out", tmp_path / "o", "--json")
    depth = json.loads(ubhpd(*base)[1])
    rgb = json.loads(ubhpd(*base, "-O", "biwi.frame=rgb")[1])
    assert rgb["datasets"]["biwi"]["options"] == {"frame": "rgb"}
    assert rgb["fingerprint"] != depth["fingerprint"]


def test_root_shard_format_and_limit(ubhpd, data, tmp_path):
    base = ("build", "--sources", "biwi", "--root", f"biwi={data / 'hpdb'}", "--out", tmp_path / "o")
    code, out, _ = ubhpd(*base, "--shard", "1/2")
    assert code == 0 and out.startswith("Shard 1/2: 1 units read")
    code, out, _ = ubhpd(*base, "--format", "hdf5", "--max-angle", "0.00001")
    assert code == 0 and (tmp_path / "o" / "pool.h5").exists()
    assert "1 kept from an earlier run" in out
    assert "dropped as beyond_max_angle" in out


WRONG = {
    "unknown command": (["bild"], "No such command 'bild'"),
    "a file that is no command": (["_evaluating"], "No such command '_evaluating'"),
    "unknown option": (["build", "--sauces", "biwi"], "No such option"),
    "no sources": (["build", "--out", "o"], "Missing option '--sources'"),
    "unknown source": (["build", "--sources", "bivi", "--out", "o"], "No source is called 'bivi': did you mean biwi?"),
    "no data": (["build", "--sources", "biwi", "--out", "o"], "give --data-root"),
    "missing data": (
        ["build", "--sources", "biwi", "--out", "o", "--data-root", "/nowhere"],
        "/nowhere does not exist",
    ),
    "bad root": (["build", "--sources", "biwi", "--out", "o", "--root", "biwi"], "not of the form NAME=VALUE"),
    "bad option": (
        ["build", "--sources", "biwi", "--out", "o", "-O", "frame=rgb"],
        "not of the form DATASET.KEY=VALUE",
    ),
    "size that is no number": (["build", "--sources", "biwi", "--out", "o", "--size", "²"], "--size is '²'"),
    "long out": (["build", "--sources", "biwi", "--data-root", ".", "--out", "o" * 300], "File name too long"),
    "bad shard": (["build", "--sources", "biwi", "--out", "o", "--shard", "x"], "not of the form I/N"),
    "bad limit": (["build", "--sources", "biwi", "--out", "o", "--max-angle", "many"], "not a valid float"),
    "bad backend": (["build", "--sources", "biwi", "--out", "o", "--backend", "slurm"], "'slurm' is not one of loky"),
    "bad jobs": (["build", "--sources", "biwi", "--out", "o", "--jobs", "0"], "--jobs"),
    "no manifest": (["info", "/nowhere"], "Cannot open /nowhere"),
    "empty folder": (["info", "."], "holds no pool.parquet"),
    "nothing to validate": (["validate"], "Nothing to validate"),
    "unknown card": (["sources", "bivi"], "No source is called 'bivi': did you mean biwi?"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_a_sentence_and_exit_code_2(case, ubhpd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UBHPD_DATA", raising=False)
    arguments, sentence = WRONG[case]
    code, out, err = ubhpd(*arguments)
    assert code == 2 and out == ""
    assert sentence in err and "Traceback" not in err


def test_the_data_root_may_come_from_the_environment(ubhpd, data, tmp_path, monkeypatch):
    monkeypatch.setenv("UBHPD_DATA", str(data))
    assert ubhpd("build", "--sources", "biwi", "--out", tmp_path / "o", "--quiet")[0] == 0


def test_an_interrupt_says_that_nothing_is_lost(ubhpd, data, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ubhpd.pipeline.run", interrupted)
    code, _, err = ubhpd("build", "--sources", "biwi", "--data-root", data, "--out", tmp_path / "o")
    assert code == 130 and "resumes from there" in err


def test_sources_tell_what_is_there_and_how_to_get_the_rest(ubhpd, data):
    code, out, _ = ubhpd("sources", "--data-root", data)
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert str(data / "hpdb") in lines["biwi"] and lines["biwi"].endswith("6")
    assert "510,960" in lines["synhead"]
    card = ubhpd("sources", "biwi")[1]
    assert "biwi.frame=depth (of depth, rgb)" in card and "frame_00003_rgb.png" in card
    found = json.loads(ubhpd("sources", "--data-root", data, "--json")[1])
    assert found["biwi"]["heads_listed"] == 6 and found["upna"]["found"] == []


def test_info_describes_a_pool(ubhpd, built):
    code, out, _ = ubhpd("info", built)
    assert code == 0
    assert "biwi: boxes template_projection 6" in out
    summary = json.loads(ubhpd("info", built, "--json")[1])
    assert summary["datasets"]["biwi"]["usable"] == 6
    assert summary["datasets"]["biwi"]["subjects"] == 2
    assert ubhpd("info", built / "pool.parquet")[1] == out


def test_info_lists_every_refused_head(ubhpd, built):
    summary = json.loads(ubhpd("info", built, "--json")[1])
    refused = sum(d["heads"] - d["usable"] for d in summary["datasets"].values())
    listed = json.loads(ubhpd("info", built, "--dropped", "--json")[1])
    assert len(listed) == refused > 0
    lines = ubhpd("info", built, "--dropped")[1].splitlines()
    assert lines[0].split("\t")[1] == "beyond_max_angle"


def test_output_into_a_closed_pipe_is_no_error(built):
    script = f"{sys.executable} -m ubhpd info {built} --dropped --json | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_takes_no_more_is_one_sentence(ubhpd, tmp_path, monkeypatch, number):
    def full(self, *args, **kwargs):
        raise OSError(number, os.strerror(number), str(self))

    typed = ("synth", "--sources", "biwi", "--heads", "4", "--out", tmp_path / "o")
    monkeypatch.setattr(Path, "write_text", full)
    code, out, err = ubhpd(*typed)
    assert (code, out) == (2, "") and err.startswith("Error: Cannot") and err.count("\n") == 1
    assert os.strerror(number) in err and str(tmp_path / "o") in err


def test_a_fault_of_the_program_is_no_sentence(ubhpd, tmp_path, monkeypatch):
    def gone(self, *args, **kwargs):
        raise FileNotFoundError(errno.ENOENT, "No such file", str(self))

    monkeypatch.setattr(Path, "write_text", gone)
    with pytest.raises(FileNotFoundError):
        ubhpd("synth", "--sources", "biwi", "--heads", "4", "--out", tmp_path / "o")


def test_the_log_is_printed_line_by_line_on_the_chosen_stream_or_not_at_all(capsys):
    logger = logging.getLogger("ubhpd.training.run")
    for options, streams in (({}, ("a\nb\n", "")), ({"err": True}, ("", "a\nb\n")), ({"show": False}, ("", ""))):
        with log_shown(**options):
            logger.info("a")
            logger.debug("hidden")
            logger.warning("b")
        logger.info("outside")
        assert capsys.readouterr() == streams


def test_control_characters_of_a_file_do_not_reach_the_terminal():
    assert printable("a\x1b[31mb\x9b\nc\td") == "a\\x1b[31mb\\x9b\nc\td"
    assert printable("é 漢 plain") == "é 漢 plain"
    assert table([["name", "n"], ["a\x1b[2J\nb", "3"]]).splitlines() == ["name         n", "a\\x1b[2J\\nb  3"]
    summary = {
        "manifest": "p\x1b[0m.parquet",
        "fingerprint": "0" * 64,
        "datasets": {
            "x\x1b[1m": {
                **dict.fromkeys(("heads", "usable", "subjects", "synthetic"), 1),
                "angles_deg": dict.fromkeys(("yaw", "pitch", "roll")),
                **{key: {"k\x1b": 1} for key in ("dropped", "boxes", "landmarks")},
            }
        },
    }
    text = info_text(summary) + dropped_text([{"sample_id": "a\nb", "drop_reason": "x", "drop_detail": "\x1b"}])
    assert "\x1b" not in text and text.splitlines()[-1].endswith("a\\nb\tx\t\\x1b")


def test_an_error_that_names_a_hostile_file_is_harmless(ubhpd):
    code, _, err = ubhpd("leaderboard", "no\x1b[31mfile")
    assert code == 2 and "\x1b" not in err and "no\\x1b[31mfile" in err


def test_former_names_of_options_work_and_are_not_shown(ubhpd, tmp_path):
    for command, name in (("predict", "--pictures"), ("export", "--picture"), ("audit", "--pictures")):
        assert name not in ubhpd(command, "--help")[1]
    code, _, err = ubhpd("predict", "--weights", tmp_path / "w", "--pictures", tmp_path, "--out", tmp_path / "p.csv")
    assert code == 2 and "No such option" not in err


def test_the_help_of_every_command_has_its_exit_codes(ubhpd):
    import importlib
    import pkgutil

    import ubhpd.commands as commands

    names = [m.name for m in pkgutil.iter_modules(commands.__path__) if not m.name.startswith("_")]
    assert len(names) > 20
    for name in names:
        text = importlib.import_module(f"ubhpd.commands.{name}").command.help or ""
        assert "exit code" in " ".join(text.split()).lower(), name
