"""`ubhpd plot` as people type it: what it writes, prints and refuses."""

import json
import subprocess
import sys

import pandas as pd
import pytest
from figure_data import BIWI, heads, write_build

from ubhpd import manifest
from ubhpd.sampling import densities


@pytest.fixture
def built(tmp_path):
    return write_build(tmp_path / "out")


def test_another_process_writes_the_same_bytes_without_pyplot(built, ubhpd, tmp_path):
    assert ubhpd("plot", "density", built, "--figures", "joint,overlay", "--quiet") == (0, "", "")
    script = (
        "import sys; from ubhpd.reports.figures import write\n"
        "from pathlib import Path\n"
        "write(sys.argv[1], ['joint', 'overlay'], Path(sys.argv[2]))\n"
        "sys.exit('pyplot was imported' if 'matplotlib.pyplot' in sys.modules else 0)"
    )
    subprocess.run([sys.executable, "-c", script, str(built), str(tmp_path / "again")], check=True)
    files = sorted((built / "figures").iterdir())
    assert len(files) == 5
    for file in files:
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name
        assert b"<dc:date" not in file.read_bytes()


def test_command_writes_figures_and_numbers_and_prints_their_paths(built, ubhpd, tmp_path):
    code, out, err = ubhpd("plot", "density", built, "--figures", "overlay,overlay")
    names = ["overlay.png", "overlay.svg", "densities.csv"]
    assert (code, err) == (0, "")
    assert out.splitlines() == [str(built / "figures" / n) for n in names]
    pd.testing.assert_frame_equal(
        pd.read_csv(built / "figures" / "densities.csv"), densities.table(densities.read(built)), check_dtype=False
    )
    place = tmp_path / "elsewhere"
    code, out, _ = ubhpd(
        "plot", "density", built / "pool.parquet", "--figures", " overlay,", "--format", "png", "--out", place,
        "--target", "uniform", "--json",
    )  # fmt: skip
    assert code == 0 and json.loads(out) == [str(place / "overlay.png"), str(place / "densities.csv")]
    assert sorted(p.name for p in place.iterdir()) == ["densities.csv", "overlay.png"]


def test_plot_is_a_group(ubhpd):
    code, out, _ = ubhpd("plot", "--help")
    assert code == 0 and "\n  density " in out
    assert ubhpd("plot", "density", "--help")[0] == 0
    assert ubhpd("plot", "histogramm")[0] == 2


WRONG = {
    "no manifest": (["/nowhere"], "Cannot open /nowhere"),
    "empty folder": (["empty"], "holds no ubhpd.parquet or pool.parquet"),
    "not a manifest": (["text.parquet"], "is not a readable Parquet or HDF5 manifest"),
    "nothing usable": (["refused.parquet"], "holds no usable head"),
    "empty pool": (["nobody.parquet"], "holds no usable head"),
    "unknown figure": (
        ["pool.parquet", "--figures", "density,violin"],
        "No figure is called 'violin'",
    ),
    "no figure": (["pool.parquet", "--figures", ","], "No figure was named"),
    "unknown format": (["pool.parquet", "--format", "gif"], "'gif' is not one of"),
    "bad sigma": (["pool.parquet", "--target", "-3"], "give a positive number"),
    "no target file": (["pool.parquet", "--target", "aim.csv"], "cannot be read"),
    "file in the way": (
        ["pool.parquet", "--figures", "overlay", "--out", "text.parquet"],
        "Cannot write to text.parquet",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_refused_in_one_sentence_and_nothing_is_written(case, ubhpd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("no manifest")
    manifest.write_parquet([heads("biwi", BIWI)], tmp_path / "pool.parquet")
    manifest.write_parquet([heads("biwi", BIWI, dropped=range(4))], tmp_path / "refused.parquet")
    manifest.write_parquet([], tmp_path / "nobody.parquet")
    before = sorted(tmp_path.rglob("*"))
    arguments, sentence = WRONG[case]
    code, out, err = ubhpd("plot", "density", *arguments)
    assert (code, out) == (2, "")
    assert sentence in err and "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before
