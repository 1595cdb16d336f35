"""Exports as work: any number of workers, interruptions, images gone, wrong input, the command."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import h5py
import numpy as np
import pyarrow as pa
import pytest
from export_data import FORMATS, built_once, run, tree, usable, wanted_crop
from trees_for_tests import copied

from ubhpd import cli, manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import write_json
from ubhpd.core.parallel import Engine
from ubhpd.exports import _runner
from ubhpd.exports._runner import ExportConfig, formats
from ubhpd.images.crops import RECIPES
from ubhpd.pool.build import BuildConfig, build


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return built_once(tmp_path_factory)


@pytest.fixture(scope="module")
def rows(built):
    return usable(built)


@pytest.mark.parametrize("form", FORMATS)
def test_the_number_of_workers_leaves_no_trace(built, form, tmp_path):
    one = run(built, form, tmp_path / "one", Engine(1), unit_heads=1000)
    two = run(built, form, tmp_path / "two", Engine(2), unit_heads=5)
    assert one.as_dict() == two.as_dict()
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_threads_do_not_share_a_video(built, tmp_path):
    run(built, "h5", tmp_path / "one", size=16)
    run(built, "h5", tmp_path / "two", Engine(3, "threading"), size=16, unit_heads=1)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_videos_are_read_through_once(built, rows, tmp_path, monkeypatch):
    opened, sought = [], []
    real = cv2.VideoCapture

    class Watched:
        def __init__(self, path):
            opened.append(path)
            self._capture = real(path)
            self.read, self.grab = self._capture.read, self._capture.grab

        def set(self, *arguments):
            sought.append(arguments)

    monkeypatch.setattr(cv2, "VideoCapture", Watched)
    run(built, "h5", tmp_path / "o", size=16, unit_heads=1)
    assert len(opened) == len({r["image_path"] for r in rows if r["dataset"] == "upna"}) == 2 and not sought


def test_units_are_cut_between_images_and_videos_only(built, rows, tmp_path, monkeypatch):
    seen = []
    real = _runner.run
    monkeypatch.setattr(_runner, "run", lambda unit, session: seen.append(unit) or real(unit, session))
    run(built, "h5", tmp_path / "o", size=16, unit_heads=3)
    places = [(number, r.dataset, r.image_path) for number, unit in enumerate(seen) for r in unit.rows]
    assert len(seen) > 5 and len({p[1:] for p in places}) == len(set(places))
    assert sorted(r.row for unit in seen for r in unit.rows) == list(range(len(rows)))


@pytest.fixture
def damaged(built, tmp_path):
    """A copy of the build whose raw data may be changed, and two images of it."""
    raw = tmp_path / "raw"
    copied(built.parent / "raw" / "300W_LP", raw)
    out = tmp_path / "out"
    build(BuildConfig(("300wlp",), out, str(raw)))
    images = sorted((raw / "300W_LP" / "LFPW").glob("*.jpg"))[:2]
    return out, images


@pytest.mark.parametrize("form", ["h5", "fsanet", "hf", "coco"])
def test_missing_images_stop_the_export_and_it_goes_on_afterwards(damaged, form, tmp_path):
    out, images = damaged
    whole = run(out, form, tmp_path / "whole")
    for path in images:
        path.rename(path.with_suffix(".away"))
    with pytest.raises(
        UbhpdError, match=r"^The images of 2 of 23 heads cannot be read \(the first: LFPW/LFPW"
    ) as error:
        run(out, form, tmp_path / "o")
    assert "bring them back" in str(error.value) and str(error.value).count(". ") == 0
    assert not (tmp_path / "o" / "export.json").exists()
    for path in images:
        path.with_suffix(".away").rename(path)
    report = run(out, form, tmp_path / "o")
    assert report.units_kept >= 2 and report.as_dict() == whole.as_dict()
    assert tree(tmp_path / "o") == tree(tmp_path / "whole")


@pytest.mark.parametrize("form", FORMATS)
def test_unreadable_images_can_be_left_out(damaged, form, tmp_path):
    out, images = damaged
    images[0].unlink()
    images[1].unlink()
    images[1].write_bytes(b"\xff\xd8\xff no image")
    gone = [f"300wlp/LFPW/{p.stem}" for p in images]
    report = run(out, form, tmp_path / "o", skip_unreadable=True)
    if form == "csv":
        assert report.unreadable == [] and report.heads == {"all": 23}
        return
    assert report.unreadable == gone and report.heads == {"all": 21}
    with pytest.raises(UbhpdError, match="images of 2 of 23 heads"):
        run(out, form, tmp_path / "again")
    again = run(out, form, tmp_path / "again", Engine(2), skip_unreadable=True)
    assert again.units_kept >= 2
    assert again.as_dict() == report.as_dict() and tree(tmp_path / "o") == tree(tmp_path / "again")
    if form == "h5":
        rows = manifest.read(out / "pool.parquet").to_pylist()
        rows = [r for r in rows if r["drop_reason"] is None and r["sample_id"] not in gone]
        with h5py.File(tmp_path / "o" / "crops.h5", "r") as file:
            assert file["sample_id"].asstr()[:].tolist() == [r["sample_id"] for r in rows]
            for i, row in enumerate(rows):
                np.testing.assert_array_equal(file["image"][i], wanted_crop(out, row, "square", 224))


def test_all_images_gone(damaged, tmp_path):
    out, _ = damaged
    shutil.rmtree(tmp_path / "raw")
    with pytest.raises(UbhpdError, match="None of the images of 23 heads can be read; the first: "):
        run(out, "h5", tmp_path / "o", skip_unreadable=True)


def test_an_image_of_another_size_is_refused(damaged, tmp_path):
    out, images = damaged
    images[0].unlink()
    cv2.imwrite(str(images[0]), np.zeros((300, 450, 3), np.uint8))
    for form in ("h5", "coco"):
        with pytest.raises(UbhpdError, match="has 450x300 pixels, the manifest says 450x450"):
            run(out, form, tmp_path / form)


def test_a_killed_export_goes_on(built, tmp_path):
    """SIGKILL in the middle, in the way of a batch system: no half-written file is taken for a whole one."""
    whole = run(built, "h5", tmp_path / "whole", size=64, unit_heads=4)
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom ubhpd.exports import _crops, _runner\n"
        "run = _crops.run\n"
        "def slow(unit, session):\n    time.sleep(0.15)\n    return run(unit, session)\n"
        "_runner.run = slow\n"
        "c = _runner.ExportConfig(Path(sys.argv[1]), 'h5', out=Path(sys.argv[2]), size=64, unit_heads=4)\n"
        "_runner.export(c)\n"
    )
    out = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", script, str(built), str(out)])
    deadline = time.monotonic() + 30
    while len(list(out.glob("work/done/*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "crops.h5").exists() and not (out / "export.json").exists()
    report = run(built, "h5", out, size=64, unit_heads=4)
    assert report.units_kept >= 2
    assert report.as_dict() == whole.as_dict() and tree(out) == tree(tmp_path / "whole")


def test_marks_without_their_pixels_count_for_nothing(built, tmp_path, monkeypatch):
    whole = run(built, "h5", tmp_path / "whole", size=16)
    monkeypatch.setattr(formats()["h5"], "write", lambda job: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(built, "h5", tmp_path / "o", size=16)
    monkeypatch.undo()
    (tmp_path / "o" / "work" / "crops.h5").unlink()
    report = run(built, "h5", tmp_path / "o", size=16)
    assert report.units_kept == 0 and report.as_dict() == whole.as_dict()
    assert tree(tmp_path / "o") == tree(tmp_path / "whole")


def test_a_folder_with_something_else_is_left_alone(built, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(UbhpdError, match="is there and is no export: name a new folder"):
        run(built, "csv", tmp_path / "mine")
    assert tree(tmp_path / "mine") == {"thesis.tex": b"years of work"}
    run(built, "h5", tmp_path / "o", size=16)
    before = tree(tmp_path / "o")
    for other in ({"size": 17}, {"size": 16, "recipe": "fsanet-0.6"}, {"size": 16, "split": "test"}):
        with pytest.raises(UbhpdError, match="holds another export"):
            run(built, "h5", tmp_path / "o", **other)
    assert tree(tmp_path / "o") == before
    run(built, "h5", tmp_path / "o", size=16)
    assert tree(tmp_path / "o") == before


def test_too_little_room(built, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(UbhpdError, match=r"needs about \d+\.\d MB, .* has 1\.0 MB free"):
        run(built, "h5", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_the_expected_size_is_logged(built, rows, tmp_path, caplog):
    caplog.set_level("INFO", "ubhpd")
    _runner.export(ExportConfig(built, "h5", size=64, out=tmp_path / "o"))
    size = (tmp_path / "o" / "crops.h5").stat().st_size
    (line,) = caplog.messages
    assert line.startswith("Takes about ") and f"{len(rows) * 64 * 64 * 3 / 1e3:,.0f} kB" in line
    assert len(rows) * 64 * 64 * 3 <= size < 1.1 * len(rows) * 64 * 64 * 3 + 20_000


WRONG = {
    "format": ({"form": "hdf"}, "No export format is called 'hdf': did you mean hf"),
    "recipe": ({"form": "h5", "recipe": "hope"}, "No crop recipe is called 'hope'"),
    "split": ({"form": "h5", "split": "valid"}, "has no split 'valid': it has test, train"),
    "size": ({"form": "h5", "size": 2}, "--size is 2: give the side"),
    "no size": ({"form": "h5", "recipe": "none"}, "has no size of its own: add --size"),
    "crops": ({"form": "6drepnet", "recipe": "square"}, "holds whole images, its loaders crop"),
    "image": ({"form": "hf", "image": "gif"}, "choose png or jpg"),
    "unit": ({"form": "h5", "unit_heads": 0}, "give 1 or more"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input(built, case, tmp_path):
    options, message = WRONG[case]
    with pytest.raises(UbhpdError, match=message):
        _runner.export(ExportConfig(built, out=tmp_path / "o", **options))
    assert not (tmp_path / "o").exists()


def test_manifests_that_cannot_be_exported(built, tmp_path):
    with pytest.raises(UbhpdError, match=r"holds no ubhpd\.parquet or pool\.parquet"):
        run(tmp_path, "h5", tmp_path / "o")
    with pytest.raises(UbhpdError, match="Cannot open"):
        run(tmp_path / "none.parquet", "h5", tmp_path / "o")
    shutil.copy(built / "pool.parquet", tmp_path / "lone.parquet")
    with pytest.raises(UbhpdError, match=r"build\.json, which says where the images are"):
        run(tmp_path / "lone.parquet", "h5", tmp_path / "o")
    with pytest.raises(UbhpdError, match="has no column 'split'"):
        run(built / "pool.parquet", "h5", tmp_path / "o", split="train")
    empty = manifest.read(built / "pool.parquet").slice(0, 0)
    manifest.write_parquet([empty], tmp_path / "empty.parquet")
    with pytest.raises(UbhpdError, match="nothing to export"):
        run(tmp_path / "empty.parquet", "h5", tmp_path / "o")
    with pytest.raises(UbhpdError, match="no usable head with a box for the recipe 6drepnet-aflw2000-legacy"):
        only = manifest.read(built / "pool.parquet").to_pandas().query("dataset == 'biwi'")
        table = pa.Table.from_pandas(only, empty.schema, preserve_index=False)
        manifest.write_parquet([table], tmp_path / "biwi.parquet")
        run(tmp_path / "biwi.parquet", "h5", tmp_path / "o", recipe="6drepnet-aflw2000-legacy")


@pytest.mark.parametrize("name", ["biwi/../../evil", "/etc/passwd", "biwi/a\nb", "biwi//x", "a\\b"])
def test_names_that_lead_elsewhere_are_refused(built, name, tmp_path):
    table = manifest.read(built / "pool.parquet").slice(0, 3)
    ids = pa.array([name, *table.column("sample_id").to_pylist()[1:]])
    shutil.copy(built / "build.json", tmp_path / "build.json")
    manifest.write_parquet([table.set_column(0, table.schema.field(0), ids)], tmp_path / "pool.parquet")
    with pytest.raises(UbhpdError, match="cannot be the name of a file"):
        run(tmp_path, "hf", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_an_unfinished_folder_of_an_older_version_is_another_export(built, tmp_path):
    write_json({"format": "h5"}, tmp_path / "o" / "work" / "export.json")
    with pytest.raises(UbhpdError, match="holds another export"):
        run(built, "h5", tmp_path / "o")


def command(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(["export", *map(str, arguments)])
    return stop.value.code, *capsys.readouterr()


def test_the_command(built, rows, tmp_path, capsys):
    code, out, err = command(
        capsys, built, "--format", "h5", "--recipe", "fsanet-0.6", "--split", "train", "--out", tmp_path / "o"
    )
    count = sum(r["split"] == "train" for r in rows)
    assert code == 0 and f"h5: {count} train heads, recipe fsanet-0.6 at 64 px" in out
    assert "Takes about" in err and f"to {tmp_path / 'o'}" in out
    code, out, err = command(capsys, built, "--format", "csv", "--out", tmp_path / "c", "--json", "--jobs", 2)
    assert (code, err) == (0, "") and json.loads(out)["heads"]["train"] == count
    assert command(capsys, built, "--format", "csv", "--out", tmp_path / "q", "--quiet") == (0, "", "")
    code, out, err = command(capsys, built)
    assert code == 2 and "Name the folder to export and a format" in err
    assert command(capsys, built, "--format", "x")[0] == 2


def test_the_list_names_formats_and_recipes(capsys):
    code, out, _ = command(capsys, "--list")
    assert code == 0
    for name in (*FORMATS, *RECIPES):
        assert f"\n{name} " in f"\n{out}"
    content = json.loads(command(capsys, "--list", "--json")[1])
    assert set(content["formats"]) == set(FORMATS) and set(content["recipes"]) == set(RECIPES)


def test_the_default_folder_says_what_is_in_it(built, tmp_path):
    for name in ("pool.parquet", "build.json"):
        shutil.copy(built / name, tmp_path / name)
    report = _runner.export(ExportConfig(tmp_path, "csv"))
    assert Path(report.out) == tmp_path / "exports" / "pool-csv-square-224"
