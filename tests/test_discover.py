"""Datasets are found as people have them: nested, renamed, zipped, in several archives, or not at all."""

import os
import re
import shutil
import tarfile
import zipfile

import pytest

from ubhpd.core.errors import UbhpdError
from ubhpd.pool import sources
from ubhpd.pool.build import BuildConfig, build
from ubhpd.pool.sources import discover, missing_message
from ubhpd.synth.writers import aflw2000_writer, aflw_writer, biwi_writer, synhead_writer, upna_writer, w300lp_writer

WRITERS = {
    "300wlp": lambda root: w300lp_writer.write(root, 4, views=2, distinct_images=2),
    "aflw": lambda root: aflw_writer.write(root, 6),
    "aflw2000": lambda root: aflw2000_writer.write(root, 4, distinct_images=2),
    "biwi": lambda root: biwi_writer.write(root, (1,), frames=2, with_depth=False),
    "synhead": lambda root: synhead_writer.write(root, tracks={"BIWI": (0,)}, heads=("f01",), frames=2),
    "upna": lambda root: upna_writer.write(root, users=(1,), videos=(1,), frames=2),
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Every dataset in a folder of its own."""
    root = tmp_path_factory.mktemp("raw")
    for name, write in WRITERS.items():
        (root / name).mkdir()
        write(root / name)
    return root


def find(data_root, roots=None, names=None):
    chosen = sources.select(names) if names else sources.builders()
    return discover(chosen, str(data_root) if data_root else None, roots or {})


def zipped(folder, target, prefix=""):
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, prefix + path.relative_to(folder).as_posix())


def tarred(folder, target, mode="w:gz", only=""):
    with tarfile.open(target, mode) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and only in path.as_posix():
                archive.add(path, path.relative_to(folder).as_posix())


def pool_of(name, place, out):
    build(BuildConfig((name,), out, str(place)))
    return (out / "pool.parquet").read_bytes()


def test_all_six_are_found_in_one_folder(raw):
    assert sorted(find(raw).specs) == sorted(WRITERS)


@pytest.mark.parametrize("name", WRITERS)
def test_deep_in_renamed_folders(name, raw, tmp_path):
    (top,) = (p for p in (raw / name).iterdir() if p.is_dir())
    shutil.copytree(top, tmp_path / "my data" / "head pose (1)" / "renamed")
    found = find(tmp_path)
    assert list(found.specs) == [name]
    assert found.specs[name].where.endswith("renamed")


@pytest.mark.parametrize("name", WRITERS)
def test_the_folder_itself_may_be_named(name, raw):
    (top,) = (p for p in (raw / name).iterdir() if p.is_dir())
    assert find(top).specs[name].where == str(top)
    assert find(None, {name: str(top)}).specs[name].where == str(top)


@pytest.mark.parametrize("kind", ["zip", "tgz", "tar", "tar.gz"])
@pytest.mark.parametrize("name", WRITERS)
def test_archives_give_the_same_pool_as_the_folder(name, kind, raw, tmp_path):
    (tmp_path / "data").mkdir()
    target = tmp_path / "data" / f"download.{kind}"
    if kind == "zip":
        zipped(raw / name, target, prefix="extra/")
    else:
        tarred(raw / name, target, "w" if kind == "tar" else "w:gz")
    assert pool_of(name, tmp_path / "data", tmp_path / "a") == pool_of(name, raw / name, tmp_path / "b")


def test_an_archive_may_be_the_data_root(raw, tmp_path):
    zipped(raw / "biwi", tmp_path / "hpdb.zip")
    assert list(find(tmp_path / "hpdb.zip").specs) == ["biwi"]


def test_aflw_in_its_four_archives(raw, tmp_path):
    (tmp_path / "data").mkdir()
    tarred(raw / "aflw", tmp_path / "data" / "aflw-db.tar.gz", only="aflw.sqlite")
    for folder in ("0", "2", "3"):
        tarred(raw / "aflw", tmp_path / "data" / f"aflw-images-{folder}.tar.gz", only=f"flickr/{folder}/")
    assert pool_of("aflw", tmp_path / "data", tmp_path / "a") == pool_of("aflw", raw / "aflw", tmp_path / "b")


def test_an_unpacked_folder_goes_before_its_archive(raw, tmp_path):
    shutil.copytree(raw / "biwi", tmp_path / "unpacked")
    zipped(raw / "biwi", tmp_path / "kinect.zip")
    assert "unpacked" in find(tmp_path).specs["biwi"].where


def test_two_copies_are_ambiguous_until_one_is_named(raw, tmp_path):
    shutil.copytree(raw / "biwi", tmp_path / "a")
    shutil.copytree(raw / "biwi", tmp_path / "b")
    with pytest.raises(UbhpdError, match="biwi was found more than once .*--root biwi=PLACE"):
        find(tmp_path)
    assert "/b/" in find(tmp_path, {"biwi": str(tmp_path / "b")}, ["biwi"]).specs["biwi"].where


def test_a_web_page_saved_as_zip_is_recognised_and_said(tmp_path):
    (tmp_path / "AFLW2000-3D.zip").write_text("<!DOCTYPE html><html>Quota exceeded</html>")
    found = find(tmp_path)
    assert not found.specs
    assert "web page" in found.faults[str(tmp_path / "AFLW2000-3D.zip")]
    with pytest.raises(UbhpdError, match="(?s)AFLW2000-3D.zip is a web page saved under that name"):
        build(BuildConfig(("aflw2000",), tmp_path / "out", str(tmp_path)))


def test_an_archive_that_leads_outside_is_refused(raw, tmp_path):
    (tmp_path / "data").mkdir()
    zipped(raw / "biwi", tmp_path / "data" / "x.zip")
    with zipfile.ZipFile(tmp_path / "data" / "x.zip", "a") as archive:
        archive.writestr("../../evil.txt", "x")
    with pytest.raises(UbhpdError, match=r"(?s)\.\./\.\./evil\.txt"):
        build(BuildConfig(("biwi",), tmp_path / "out", str(tmp_path / "data")))
    assert not (tmp_path / "evil.txt").exists()


def test_paths_that_are_not_utf8_are_one_error(raw, tmp_path):
    odd = tmp_path / os.fsdecode(b"d\xff")
    shutil.copytree(raw / "aflw2000", odd)
    for config in (
        BuildConfig(("aflw2000",), tmp_path / "out", str(odd)),
        BuildConfig(("aflw2000",), tmp_path / "out", None, {"aflw2000": str(odd)}),
        BuildConfig(("aflw2000",), tmp_path / os.fsdecode(b"o\xff"), str(raw / "aflw2000")),
    ):
        with pytest.raises(UbhpdError, match=r"The path .*\\udcff is not UTF-8: rename the folder"):
            build(config)
    with pytest.raises(UbhpdError, match=r"Not usable: .*d\\udcff has a name that is not UTF-8: rename it"):
        build(BuildConfig(("aflw2000",), tmp_path / "out", str(tmp_path)))


OTHER_ARCHIVES = {
    "x.7z": "unpack it there",
    "300W-LP.rar": "unpack it there",
    "labels.gz": "unpack it there",
    "AFLW2000-3D.zip.001": r"join them \(cat AFLW2000-3D\.zip\.\* > AFLW2000-3D\.zip\)",
    "a.tar.gz.part": "unfinished download",
    "b.zip.crdownload": "unfinished download",
    "c.z01": r"zip -s 0 c\.zip",
    "d.zipx": "unpack it there",
    "e.tar.lz": "unpack it there",
    "f.zip.1": r"rename it to f\.zip",
}


@pytest.mark.parametrize("name", OTHER_ARCHIVES)
def test_an_archive_that_cannot_be_read_is_named_with_the_remedy(name, tmp_path):
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "data" / "sub" / name).write_bytes(b"part")
    with pytest.raises(UbhpdError, match=rf"Not usable: .*sub/.*{OTHER_ARCHIVES[name]}"):
        build(BuildConfig(("aflw2000",), tmp_path / "out", str(tmp_path / "data")))


@pytest.mark.parametrize(
    ("name", "start", "said"),
    [
        ("a.zip", b"\x1f\x8b\x08", r"is not a zip archive but compressed with gzip: name it \.tar\.gz"),
        ("a.zip", b"Rar!\x1a\x07", "is not a zip archive but a RAR archive: unpack it there"),
        ("a.tar.gz", b"PK\x03\x04", r"is not a tar archive but a zip archive: name it \.zip"),
        ("a.tar", b"7z\xbc\xaf\x27\x1c", "is not a tar archive but a 7z archive: unpack it there"),
        ("AFLW2000-3D", b"PK\x03\x04", r"AFLW2000-3D is a zip archive: name it \.zip"),
    ],
)
def test_an_archive_under_a_wrong_name_is_said_to_be_what_it_is(name, start, said, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_bytes(start + bytes(5000))
    with pytest.raises(UbhpdError, match=f"Not usable: .*{said}"):
        build(BuildConfig(("aflw2000",), tmp_path / "out", str(tmp_path / "data")))


def test_an_archive_inside_an_archive_is_named(raw, tmp_path):
    zipped(raw / "aflw2000", tmp_path / "AFLW2000-3D.zip")
    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "data" / "all.zip", "w") as archive:
        archive.write(tmp_path / "AFLW2000-3D.zip", "sets/AFLW2000-3D.zip")
    faults = find(tmp_path / "data").faults
    assert faults[f"{tmp_path}/data/all.zip:sets/AFLW2000-3D.zip"].startswith("is an archive inside an archive: unpack")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no named pipes")
@pytest.mark.parametrize("name", ["a.zip", "a.tgz", "AFLW2000"])
def test_a_named_pipe_does_not_stop_the_search(name, tmp_path):
    os.mkfifo(tmp_path / name)
    fault = find(tmp_path).faults.get(str(tmp_path / name))
    assert fault == (None if name == "AFLW2000" else "is no regular file: move it away")


def test_all_parts_of_a_split_archive_are_named_once(tmp_path):
    for i in range(1, 40):
        (tmp_path / f"a.zip.{i:03d}").write_bytes(b"part")
    assert list(find(tmp_path).faults) == [str(tmp_path / "a.zip.*")]


def test_the_last_part_of_a_zip_in_parts_is_named(raw, tmp_path):
    zipped(raw / "aflw2000", tmp_path / "a.zip")
    (tmp_path / "a.z01").write_bytes(b"part")
    found = find(tmp_path, names=["aflw2000"])
    assert not found.specs and "last part" in found.faults[str(tmp_path / "a.zip")]


def test_archives_that_are_not_read_are_logged_beside_a_dataset_that_is(raw, tmp_path, caplog):
    shutil.copytree(raw / "aflw2000", tmp_path / "data")
    (tmp_path / "data" / "more.7z").write_bytes(b"part")
    build(BuildConfig(("aflw2000",), tmp_path / "out", str(tmp_path / "data")))
    assert "more.7z is an archive of a kind that ubhpd does not read" in caplog.text


def test_a_folder_without_permission_is_named(raw, tmp_path, monkeypatch):
    shutil.copytree(raw / "aflw2000", tmp_path / "data" / "closed")
    original = os.scandir

    def scandir(path):
        if os.path.basename(os.path.normpath(path)) == "closed":
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UbhpdError, match="Not usable: .*closed cannot be listed: Permission denied"):
        build(BuildConfig(("aflw2000",), tmp_path / "out", str(tmp_path / "data")))


def test_every_file_of_a_dataset_is_read_or_left_out_for_a_reason(raw, tmp_path):
    data = shutil.copytree(raw / "aflw2000", tmp_path / "data")
    root = next(data.rglob("image*.mat")).parent
    (root / ".DS_Store").write_bytes(b"1")
    (root / "notes.txt").write_bytes(b"1")
    total = sum(p.is_file() for p in root.rglob("*"))
    report = build(BuildConfig(("aflw2000",), tmp_path / "out", str(data)))
    (note,) = [n["text"] for n in report.datasets["aflw2000"].notes if "listed" in n["text"]]
    listed, read, left_out, unused, hidden = map(int, re.findall(r"\b(\d+) (?:files|read|left|not|hidden)", note))
    assert (listed, read) == (total, 2 * report.datasets["aflw2000"].heads)
    assert left_out == unused + hidden == listed - read and hidden == 1 and "notes.txt" in note


@pytest.mark.parametrize("name", WRITERS)
def test_a_missing_dataset_says_how_to_get_it_and_how_it_looks(name):
    builder = sources.builders()[name]
    told = missing_message(builder, "/data", {})
    assert builder.HOMEPAGE in told and builder.ACCESS in told and builder.LICENSE in told
    assert all(line.strip() in told for line in builder.LAYOUT.splitlines())


def test_crowded_and_hidden_folders_are_not_searched(raw, tmp_path):
    shutil.copytree(raw / "biwi", tmp_path / ".trash" / "hpdb")
    for i in range(450):
        (tmp_path / "many" / f"{i:03d}").mkdir(parents=True)
    shutil.copytree(raw / "aflw2000", tmp_path / "many" / "000" / "x")
    assert not find(tmp_path).specs


def test_neither_folder_nor_archive(tmp_path):
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(UbhpdError, match="neither a folder nor an archive"):
        find(tmp_path / "x.txt")
