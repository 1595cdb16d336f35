"""`ubhpd synth`: what it writes is read with the poses it says, resumed, refused in one sentence."""

from __future__ import annotations

import errno
import hashlib
import shutil

import numpy as np
import pandas as pd
import pytest

from ubhpd import manifest
from ubhpd.core.bins import N_BINS, bin_index, counts
from ubhpd.pool.build import BuildConfig, build
from ubhpd.synth.synthesize import WRITERS, SynthConfig, rare_poses
from ubhpd.synth.writers import writer_files as synth_files

ANGLE_COLUMNS = ["yaw_deg", "pitch_deg", "roll_deg"]


def hashes(folder):
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def test_every_source_is_read_with_the_poses_of_the_truth(ubhpd, tmp_path):
    out = tmp_path / "raw"
    code, text, _ = ubhpd("synth", "--out", out, "--sources", ",".join(WRITERS), "--heads", 5, "--size", 64)
    assert code == 0 and "300wlp: 10 heads" in text and "biwi: 5 heads" in text
    truth = pd.read_csv(out / "truth.csv").set_index("sample_id")
    build(BuildConfig(tuple(WRITERS), tmp_path / "built", str(out)))
    pool = manifest.read(tmp_path / "built" / "pool.parquet").to_pandas().set_index("sample_id")
    assert set(pool.index) == set(truth.index) and pool.drop_reason.isna().all()
    np.testing.assert_allclose(pool[ANGLE_COLUMNS], truth.loc[pool.index, ANGLE_COLUMNS], atol=2e-4)
    sizes = pool[pool.dataset.isin(["300wlp", "aflw2000", "synhead"])].image_width
    assert set(sizes) == {64}


def test_same_seed_same_bytes_with_any_number_of_processes(ubhpd, tmp_path):
    for name, options in {"a": (), "b": ("--jobs", 2), "c": ("--seed", 1)}.items():
        assert ubhpd("synth", "--out", tmp_path / name, "--sources", "300wlp,biwi", "--heads", 6, "--size", 64,
                     "--quiet", *options) == (0, "", "")  # fmt: skip
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b") != hashes(tmp_path / "c")


def test_an_interrupted_run_is_finished_by_the_same_command(ubhpd, tmp_path):
    arguments = ("synth", "--out", tmp_path / "raw", "--sources", "aflw2000", "--heads", 5, "--size", 64, "--quiet")
    ubhpd(*arguments)
    whole = hashes(tmp_path / "raw")
    images = sorted((tmp_path / "raw").rglob("image*.jpg"))
    stamps = {p: p.stat().st_mtime_ns for p in images}
    images[1].unlink()
    (tmp_path / "raw" / "truth.csv").unlink()
    (images[0].parent / ".image.jpg.1.part").write_bytes(b"cut")
    assert ubhpd(*arguments)[0] == 0
    assert hashes(tmp_path / "raw") == whole
    assert [p.stat().st_mtime_ns == stamps[p] for p in images] == [True, False, True, True, True]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--sources", "biwi,biwj"), "There is no writer of biwj: --sources takes biwi, aflw"),
        (("--sources", ","), "No source is named"),
        ((), "Nothing to write"),
        (("--sources", "biwi", "--heads", 0), "--heads is 0: give 1 or more."),
        (("--sources", "biwi", "--size", 8), "--size is 8: give 32 pixels or more."),
        (("--sources", "biwi", "--seed", -1), "--seed is -1"),
        (("--sources", "biwi", "--jobs", 0), "--jobs is 0"),
        (("--fill", "rare"), "add --pool"),
        (("--fill", "rare", "--pool", "p.parquet", "--sources", "biwi"), "leave --sources out"),
        (("--fill", "rare", "--pool", "p.parquet", "--per-bin", 0), "--per-bin is 0: give 1 or more."),
        (("--fill", "rare", "--pool", "p.parquet"), "p.parquet"),
    ],
)
def test_wrong_input_is_one_sentence(ubhpd, tmp_path, arguments, sentence):
    code, text, error = ubhpd("synth", "--out", tmp_path / "raw", *arguments)
    assert code == 2 and text == "" and sentence in error and error.count("\n") == 1
    assert not (tmp_path / "raw").exists()


def test_a_folder_with_something_else_is_left_alone(ubhpd, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("do not touch")
    command = ("synth", "--sources", "aflw2000", "--size", 64, "--quiet", "--heads")
    code, _, error = ubhpd(*command, 2, "--out", mine)
    assert code == 2 and "is not empty and was not made by ubhpd synth" in error
    assert [p.name for p in mine.iterdir()] == ["thesis.txt"]
    code, _, error = ubhpd(*command, 2, "--out", mine / "thesis.txt")
    assert code == 2 and "is a file" in error
    assert ubhpd(*command, 2, "--out", tmp_path / "new")[0] == 0
    code, _, error = ubhpd(*command, 3, "--out", tmp_path / "new")
    assert code == 2 and "was made with other settings" in error


def test_a_full_disk_is_one_sentence(ubhpd, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(synth_files.Path, "write_bytes", full)
    code, _, error = ubhpd("synth", "--out", tmp_path / "raw", "--sources", "aflw2000", "--heads", 2, "--size", 64)
    assert code == 2 and "There is no room left to write" in error and error.count("\n") == 1


def test_sources_and_seeds_share_no_people():
    firsts = [SynthConfig((), 1, seed=s).first_subject(name) for s in (0, 1) for name in WRITERS]
    assert len(set(firsts)) == 12 and min(np.diff(sorted(firsts))) == 100_000


# --fill rare


def test_rare_poses_bring_every_bin_to_the_wanted_number():
    rng = np.random.default_rng(0)
    real = np.clip(rng.normal(0, 20, (2000, 3)), -80, 80)
    poses = rare_poses(real, 60, 10, rng)
    together = counts(real).inside + 10 * counts(poses).inside
    assert together.min() >= 60 and counts(poses).outside.sum() == 0
    full = counts(real).inside >= 60
    only = [np.isin(bin_index(poses), np.flatnonzero(~full[j])).any() for j in range(3)]
    assert all(only) and len(rare_poses(poses.repeat(60, axis=0), 60, 10, rng)) == 0
    assert len(rare_poses(np.empty((0, 3)), 10, 10, rng)) <= 3 * N_BINS


def test_fill_writes_synthetic_heads_for_thin_bins(ubhpd, tmp_path):
    ubhpd("synth", "--out", tmp_path / "raw", "--sources", "aflw2000", "--heads", 12, "--size", 64, "--quiet")
    build(BuildConfig(("aflw2000",), tmp_path / "built", str(tmp_path / "raw")))
    pool = tmp_path / "built" / "pool.parquet"
    out = tmp_path / "rare"
    code, text, _ = ubhpd("synth", "--fill", "rare", "--pool", pool, "--out", out, "--per-bin", 1, "--size", 48)
    assert code == 0 and "bins have fewer than 1 real heads: drew" in text
    build(BuildConfig(("synhead",), tmp_path / "both", str(out)))
    heads = manifest.read(tmp_path / "both" / "pool.parquet").to_pandas()
    assert heads.synthetic.all() and heads.drop_reason.isna().all() and heads.subject_id.nunique() == 10
    truth = pd.read_csv(out / "truth.csv").set_index("sample_id")
    np.testing.assert_allclose(heads[ANGLE_COLUMNS], truth.loc[heads.sample_id, ANGLE_COLUMNS], atol=1e-6)
    real = manifest.read(pool).to_pandas()[ANGLE_COLUMNS].to_numpy()
    assert (counts(real).inside + counts(heads[ANGLE_COLUMNS].to_numpy()).inside).min() >= 1


def test_fill_of_a_full_pool_writes_nothing(ubhpd, tmp_path, monkeypatch):
    monkeypatch.setattr("ubhpd.synth.synthesize.EDGES_DEG", np.linspace(-90, 90, 16))
    ubhpd("synth", "--out", tmp_path / "raw", "--sources", "aflw2000", "--heads", 2, "--size", 64, "--quiet")
    build(BuildConfig(("aflw2000",), tmp_path / "built", str(tmp_path / "raw")))
    monkeypatch.setattr(
        "ubhpd.synth.synthesize._real_poses", lambda pool: np.repeat(np.arange(-84, 90, 12.0), 3).reshape(-1, 3)
    )
    code, text, _ = ubhpd(
        "synth", "--fill", "rare", "--pool", tmp_path / "built/pool.parquet", "--out", tmp_path / "rare", "--per-bin", 1
    )
    assert code == 0 and "drew 0" in text and not (tmp_path / "rare").exists()


def test_ids_of_rendered_heads_are_none_that_a_real_head_can_have(tmp_path, ubhpd):
    """Also from an archive; the truth has the same ids, and every file is accounted for."""
    assert ubhpd("synth", "--out", tmp_path / "raw", "--sources", "aflw2000,300wlp", "--heads", 4, "--size", 64)[0] == 0
    shutil.make_archive(str(tmp_path / "packed" / "AFLW2000"), "zip", tmp_path / "raw", "AFLW2000")
    truth = {line.split(",")[0] for line in (tmp_path / "raw" / "truth.csv").read_text().splitlines()[1:]}
    for root in ("raw", "packed"):
        out = tmp_path / f"out-{root}"
        assert (
            ubhpd("build", "--sources", "aflw2000", "--data-root", tmp_path / root, "--out", out, "--pool-only")[0] == 0
        )
        ids = manifest.read(out / "pool.parquet").column("sample_id").to_pylist()
        assert len(ids) == 4 and all(i.endswith("@rendered") for i in ids) and set(ids) <= truth
        assert "ubhpd-rendered.txt" not in (out / "build.json").read_text()
    (tmp_path / "raw" / "AFLW2000" / "ubhpd-rendered.txt").unlink()
    out = tmp_path / "out-raw"
    assert ubhpd("build", "--sources", "aflw2000", "--data-root", tmp_path / "raw", "--out", out, "--pool-only")[0] == 0
    assert not any("@" in i for i in manifest.read(out / "pool.parquet").column("sample_id").to_pylist())
