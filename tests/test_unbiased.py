"""From pool to UBHPD: what `ubhpd build` writes after the pool, and what it says of it."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ubhpd import cli, manifest
from ubhpd.core import bins
from ubhpd.core.errors import UbhpdError
from ubhpd.core.parallel import Engine
from ubhpd.core.progress import Progress
from ubhpd.pipeline import run
from ubhpd.pool.build import BuildConfig
from ubhpd.quality import checks
from ubhpd.sampling.sampler import SamplingConfig
from ubhpd.sampling.ubhpd import UBHPD_COLUMNS, UnbiasedConfig, make
from ubhpd.synth.writers import aflw_writer, biwi_writer, w300lp_writer

SOURCES = ("300wlp", "aflw", "biwi")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    biwi_writer.write(root, (1, 2, 3, 21), frames=12, with_depth=False, distinct_images=2)
    aflw_writer.write(root, 40)
    w300lp_writer.write(root, 40, distinct_images=4, landmarks=False)
    return root


@pytest.fixture(scope="module")
def built(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    run(BuildConfig(SOURCES, out, str(data)), None, Engine(), Progress(show=False))
    return out


def small(**kwargs):
    return SamplingConfig(**{"size": 60, "sigma_deg": 20.0, **kwargs})


def test_rows_are_those_of_the_pool_with_further_columns(built):
    report = make(built, UnbiasedConfig(small()))
    pool, ubhpd = manifest.read(built / "pool.parquet"), manifest.read(built / "ubhpd.parquet")
    assert ubhpd.schema.names == [c.name for c in UBHPD_COLUMNS]
    assert ubhpd.num_rows == report.sampling.size == 60
    chosen = pool.filter(pc.is_in(pool.column("sample_id"), ubhpd.column("sample_id")))
    for name in pool.schema.names:
        assert chosen.column(name).equals(ubhpd.column(name)) or name.startswith("landmarks"), name
    assert ubhpd.column("drop_reason").null_count == 60
    assert report.fingerprint == manifest.header(built / "ubhpd.parquet").fingerprint


def test_bins_sides_and_weights_by_hand(built):
    report = make(built, UnbiasedConfig(small()))
    frame = manifest.read(built / "ubhpd.parquet").to_pandas()
    assert (frame.split == "train").sum() == round(0.7 * 60)
    for angle in bins.ANGLES:
        assert (frame[f"bin_{angle}"] == bins.bin_index(frame[f"{angle}_deg"])).all()
        for number in frame[f"bin_{angle}"].unique():
            d = (frame[frame.split == "test"][f"bin_{angle}"] == number).mean()
            s = (frame[frame.split == "train"][f"bin_{angle}"] == number).mean()
            weights = frame[frame[f"bin_{angle}"] == number][f"density_weight_{angle}"].unique()
            assert weights == pytest.approx([d / s if s else 0.0])
    assert sum(t.sum() for t in report.counts.values()) == 3 * 60


def test_densities_are_a_table_of_45_rows_that_add_up(built):
    report = make(built, UnbiasedConfig(small()))
    table = pd.read_csv(built / "densities.csv")
    assert len(table) == 45
    shares = [f"{name}_density" for name in ("pool", "ubhpd", "train", "test", "target")]
    assert table.groupby("angle")[shares].sum().to_numpy() == pytest.approx(1)
    assert (table.train_heads + table.test_heads == table.ubhpd_heads).all()
    assert table.ubhpd_heads.to_numpy().reshape(3, 15).tolist() == report.sampling.counts_after.tolist()


def test_same_seed_same_bytes_another_seed_another_choice(built):
    def bytes_of(seed):
        make(built, UnbiasedConfig(small(seed=seed)))
        return (built / "ubhpd.parquet").read_bytes()

    first = bytes_of(0)
    assert first == bytes_of(0)
    assert first != bytes_of(1)


def test_a_dataset_can_be_left_out(built):
    report = make(built, UnbiasedConfig(small(size=30), exclude=("biwi",)))
    assert report.excluded == 48
    assert set(report.datasets) == {"300wlp", "aflw"}
    assert make(built, UnbiasedConfig(small(size=30), exclude=("BIWI",))).excluded == 48
    with pytest.raises(UbhpdError, match="--exclude names 'upna', but the pool holds 300wlp, aflw, biwi"):
        make(built, UnbiasedConfig(small(), exclude=("upna",)))


def test_decisions_take_heads_out(built, tmp_path):
    make(built, UnbiasedConfig(small()))
    first = manifest.read(built / "ubhpd.parquet", ["sample_id"]).column(0)[0].as_py()
    path = tmp_path / "decisions.csv"
    path.write_text(f"sample_id,decision,reason,who\n{first},drop,not a face,anna\n")
    report = make(built, UnbiasedConfig(small(), decisions=path))
    assert report.decisions == {"rejected": 1, "flagged": 0, "protected": 0, "already_refused": 0}
    assert first not in manifest.read(built / "ubhpd.parquet", ["sample_id"]).column(0).to_pylist()


def test_flagged_heads_are_left_out_unless_someone_keeps_them(built, tmp_path, monkeypatch):
    flagged = [f"biwi/01/frame_{i:05d}" for i in (3, 4, 5)]
    flags = pa.table({"sample_id": flagged, "flag": ["box_outside"] * 3, "value": [1.0] * 3, "detail": ["far out"] * 3})
    monkeypatch.setattr(checks, "check_manifest", lambda path: flags)
    report = make(built, UnbiasedConfig(small(size=30), drop_flagged=True))
    assert report.decisions["flagged"] == len(flagged)
    assert not set(flagged) & set(manifest.read(built / "ubhpd.parquet", ["sample_id"]).column(0).to_pylist())
    path = tmp_path / "decisions.csv"
    path.write_text(f"sample_id,decision,reason,who\n{flagged[0]},keep,it is fine,anna\n")
    report = make(built, UnbiasedConfig(small(size=30), decisions=path, drop_flagged=True))
    assert (report.decisions["flagged"], report.decisions["protected"]) == (len(flagged) - 1, 1)


def test_unknown_heads_in_the_decisions_leave_everything_as_it_was(built, tmp_path):
    make(built, UnbiasedConfig(small()))
    before = (built / "ubhpd.parquet").read_bytes()
    path = tmp_path / "decisions.csv"
    path.write_text("sample_id,decision,reason,who\nbiwi/99/frame_1,drop,x,y\n")
    with pytest.raises(UbhpdError, match="line 2"):
        make(built, UnbiasedConfig(small(), decisions=path))
    assert (built / "ubhpd.parquet").read_bytes() == before


def test_a_subject_split_keeps_people_apart(built):
    make(built, UnbiasedConfig(small(), split="subject"))
    frame = manifest.read(built / "ubhpd.parquet", ["subject_id", "source_photo", "split"]).to_pandas()
    for name in ("subject_id", "source_photo"):
        assert (frame.dropna(subset=[name]).groupby(name).split.nunique() == 1).all()


def command(data, out, *more):
    sources = ("--sources", "biwi,aflw,300wlp", "--data-root", str(data))
    with pytest.raises(SystemExit) as stop:
        cli.main(["build", *sources, "--out", str(out), *more])
    return stop.value.code


def test_the_command_makes_everything(data, tmp_path, capsys):
    assert command(data, tmp_path / "o", "--size", "60", "--sigma", "20", "--format", "hdf5") == 0
    names = {p.name for p in (tmp_path / "o").iterdir()}
    assert names == {
        "pool.parquet", "pool.h5", "ubhpd.parquet", "ubhpd.h5", "build.json", "densities.csv", "figures", "CARD.md",
        "croissant.json", "work",
    }  # fmt: skip
    out = capsys.readouterr().out
    assert "UBHPD: 60 heads, target sigma 20 degrees, seed 0" in out
    assert "lower bound, all three together" in out and "leakage" in out
    told = json.loads((tmp_path / "o" / "build.json").read_text())
    assert told["unbiased"]["sampling"]["size"] == 60
    assert told["audit"]["kinds"]["photo"]["pairs"] >= 0
    assert {p.name for p in (tmp_path / "o" / "figures").glob("*.png")} == {"density.png", "joint.png", "overlay.png"}
    one, two = (
        manifest.read(tmp_path / "o" / f"ubhpd.{x}", ["sample_id", "bin_yaw", "split"]) for x in ("parquet", "h5")
    )
    assert one.equals(two)


def test_same_bytes_with_another_number_of_workers_and_on_another_day(data, tmp_path, capsys):
    for name, jobs in (("a", "1"), ("b", "2")):
        assert command(data, tmp_path / name, "--size", "60", "--sigma", "20", "--jobs", jobs, "--quiet") == 0
    for path in sorted((tmp_path / "a").rglob("*")):
        if path.is_file() and "work" not in path.parts:
            twin = tmp_path / "b" / path.relative_to(tmp_path / "a")
            assert path.read_bytes() == twin.read_bytes(), path


def test_pool_only_stops_at_the_pool(data, tmp_path, capsys):
    assert command(data, tmp_path / "o", "--pool-only") == 0
    assert {p.name for p in (tmp_path / "o").iterdir()} == {"pool.parquet", "build.json", "work"}


WRONG = {
    "size": (["--size", "many"], "--size is 'many'"),
    "negative size": (["--size", "-5"], "whole number of at least 1"),
    "half a head": (["--size", "10.5"], "--size"),
    "sigma": (["--sigma", "wide"], "--sigma is 'wide'"),
    "no sigma": (["--sigma", "0"], "positive number"),
    "target": (["--target", "/nowhere.csv"], "/nowhere.csv"),
    "split": (["--split", "person"], "is not one of"),
    "exclude": (["--exclude", "upna"], "--exclude names 'upna'"),
    "decisions": (["--decisions", "/nowhere.csv"], "/nowhere.csv"),
    "seed": (["--seed", "-1"], "seed is -1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_a_sentence(case, data, tmp_path, capsys):
    arguments, sentence = WRONG[case]
    assert command(data, tmp_path / "o", *arguments) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "o" / "ubhpd.parquet").exists()


def test_a_larger_size_than_the_pool_is_reduced_and_said(data, tmp_path, capsys):
    assert command(data, tmp_path / "o", "--size", "5000") == 0
    assert "5,000 heads were requested" in capsys.readouterr().out


def test_a_pool_of_one_side_only_of_the_angles(tmp_path):
    biwi_writer.write(tmp_path / "raw", poses={1: [(0.0, 0.0, 0.0)] * 12}, with_depth=False)
    made = run(
        BuildConfig(("biwi",), tmp_path / "o", str(tmp_path / "raw")),
        UnbiasedConfig(small(size=10)),
        Engine(),
        Progress(show=False),
    )
    assert made.unbiased.sampling.size == 10
    assert np.isclose(made.unbiased.sampling.reached, made.unbiased.sampling.lower_bound, atol=0.05)


def test_no_usable_head_leaves_the_pool_and_says_so(tmp_path, capsys):
    biwi_writer.write(tmp_path / "raw", (1,), frames=2, with_depth=False)
    for image in (tmp_path / "raw").rglob("*.png"):
        image.unlink()
    with pytest.raises(SystemExit) as stop:
        cli.main(["build", "--sources", "biwi", "--data-root", str(tmp_path / "raw"), "--out", str(tmp_path / "o")])
    assert stop.value.code == 2
    assert "nothing to sample" in capsys.readouterr().err
    assert (tmp_path / "o" / "pool.parquet").exists()


def test_predictions_are_scored_against_the_last_build(data, tmp_path, capsys):
    assert command(data, tmp_path / "o", "--size", "60", "--sigma", "20", "--split", "subject", "--quiet") == 0
    ubhpd = manifest.read(tmp_path / "o" / "ubhpd.parquet", ["sample_id", "split", *(f"{a}_deg" for a in bins.ANGLES)])
    frame = ubhpd.to_pandas().rename(columns=lambda c: c.removesuffix("_deg"))
    frame["yaw"] += 2.0
    frame.drop(columns="split").to_csv(tmp_path / "predictions.csv", index=False)
    for name in ("score", "doctor"):
        with pytest.raises(SystemExit) as stop:
            more = ["--json", "-"] if name == "score" else []
            cli.main([name, str(tmp_path / "predictions.csv"), "--last-build", *more])
        assert stop.value.code in (0, 1)
        printed = capsys.readouterr().out
        if name == "score":
            result = json.loads(printed)
            assert result["heads"] == (frame.split == "test").sum()
            assert result["scores"]["mae_yaw"]["value"] == pytest.approx(2.0)
            assert result["protocol"]["protocol"] == "ubhpd"
    # The heads of one split are asked for no more than these: 'missing' is said of a head of that split alone.
    of_test = frame[frame.split == "test"].drop(columns="split")
    for left_out in (0, 1):
        of_test[left_out:].to_csv(tmp_path / "test.csv", index=False)
        with pytest.raises(SystemExit):
            cli.main(["doctor", str(tmp_path / "test.csv"), "--last-build", "--json"])
        found = {f["kind"]: f["text"] for f in json.loads(capsys.readouterr().out)["findings"]}
        assert ("missing" in found) is bool(left_out)
    assert found["missing"].startswith(f"1 of {len(of_test)} heads")
    out, predictions = str(tmp_path / "o"), str(tmp_path / "predictions.csv")
    with pytest.raises(SystemExit) as stop:
        cli.main(["score", predictions, "--manifest", out, "--source", "ubhpd", "--json", "-"])
    assert stop.value.code == 0
    result = json.loads(capsys.readouterr().out)
    assert result["source"] == "the training split of ubhpd"
    assert result["scores"]["ubmae"]["value"] > 0
