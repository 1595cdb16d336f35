"""Files of raw data: the same through folders, zip and tar; several as one; what is kept of a compressed tar."""

import os
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from archives_for_tests import CUT, DOORS, FILES, FOLDERS, opened, through, write_tar, write_zip, written

from ubhpd.core.errors import UbhpdError
from ubhpd.raw.trees import Entry, FolderTree, Probe, TreeSpec, UnionTree, is_archive, open_tree, peek


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return written(tmp_path_factory.mktemp("raw"))


# The same through every door.


@pytest.mark.parametrize("root", ["", "some data/v1"])
@pytest.mark.parametrize("door", DOORS)
def test_listing_is_the_same_for_every_kind_of_tree(door, root, place, tmp_path):
    tree = through(door, place, root, tmp_path)
    for folder in FOLDERS:
        depth = folder + "/" if folder else ""
        below = [name[len(depth) :] for name in FILES if name.startswith(depth)]
        expected = sorted({Entry(name.split("/")[0], "/" in name) for name in below})
        assert [e for e in tree.listdir(folder) if e.name != "some data"] == expected
    assert tree.listdir("no such folder") == []
    assert tree.listdir("readme.txt") == []


@pytest.mark.parametrize("root", ["", "some data/v1"])
@pytest.mark.parametrize("door", DOORS)
def test_reading_is_the_same_for_every_kind_of_tree(door, root, place, tmp_path):
    tree = through(door, place, root, tmp_path)
    for name, data in FILES.items():
        assert tree.read(name) == data
        assert tree.read(name, limit=len(data)) == data
        with tree.local_path(name) as path:
            assert Path(path).read_bytes() == data
            assert Path(path).suffix == Path(name).suffix
        for length in (8, 512, 65_536):
            probe = tree.probe(name, length)
            assert tree.head(name, length)[:length] == probe.head[:length] == data[:length]
            assert probe.tail == data[-12:]
            assert probe.size == len(data)
        assert tree.identity(name) == tree.identity(name) != "absent"


@pytest.mark.parametrize("door", DOORS)
def test_reading_with_a_limit_is_refused_for_every_kind_of_tree(door, place, tmp_path):
    tree = through(door, place, "", tmp_path)
    for name, data in FILES.items():
        if data:
            with pytest.raises(OSError, match="more than"):
                tree.read(name, limit=len(data) - 1)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("path", ["AFW", "no such file", "AFW/no such file", "readme.txt/x", "", "AFW_1_0.mat"])
def test_a_path_that_is_not_a_file_raises_oserror_for_every_kind_of_tree(door, path, place, tmp_path):
    tree = through(door, place, "", tmp_path)
    for call in (lambda: tree.read(path), lambda: tree.probe(path, 512)):
        with pytest.raises(OSError, match=r"."):
            call()


@pytest.mark.parametrize("suffix", [".tgz", ".tar.gz", ".dot.tgz"])
@pytest.mark.parametrize("root", ["", "some data/v1"])
def test_a_spool_keeps_of_images_head_and_tail_only(suffix, root, place, tmp_path):
    tree = through(suffix, place, root, tmp_path, keep_whole=False)
    for name, data in FILES.items():
        probe = tree.probe(name, 512)
        assert (probe.head[:512], probe.tail, probe.size) == (data[:512], data[-12:], len(data))
        if name not in CUT:
            assert tree.read(name) == data
            continue
        assert probe.head == data[: CUT[name]]
        with pytest.raises(OSError, match="only its head"):
            tree.read(name)
        with pytest.raises(OSError, match="only its head"), tree.local_path(name):
            pass
    spools = list(tmp_path.glob("*.spool"))
    dropped = sum(len(FILES[name]) - head - 12 for name, head in CUT.items())
    assert [s.stat().st_size for s in spools] == [sum(map(len, FILES.values())) - dropped]


def test_a_tar_in_place_keeps_no_copy(place, tmp_path):
    through(".tar", place, "", tmp_path)
    assert [p.suffix for p in tmp_path.iterdir()] == [".json"]


def test_a_root_is_a_folder_not_a_name_prefix(tmp_path):
    write_zip(tmp_path / "a.zip", {"data/a.txt": b"1", "data2/b.txt": b"2", "x/data/c.txt": b"3"})
    assert opened(tmp_path / "a.zip", "data").listdir("") == [Entry("a.txt", False)]
    assert opened(tmp_path / "a.zip", "x").listdir("") == [Entry("data", True)]
    assert opened(tmp_path / "a.zip", "nowhere").listdir("") == []


def test_empty_folders_are_listed_as_folders(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("empty/", b"")
        archive.writestr("full/a.txt", b"1")
    (tmp_path / "folder/empty").mkdir(parents=True)
    (tmp_path / "folder/full").mkdir()
    expected = [Entry("empty", True), Entry("full", True)]
    assert opened(tmp_path / "a.zip").listdir("") == opened(tmp_path / "folder").listdir("") == expected


def test_spec_describes_its_places_as_text():
    assert TreeSpec((("/d/a.zip", ""), ("/d/b.tgz", "aflw/data"))).where == "/d/a.zip + /d/b.tgz:aflw/data"


@pytest.mark.parametrize("name", ["a.zip", "A.ZIP", "a.tgz", "a.tar.gz", "a.tar", "x.TAR.GZ"])
def test_archives_are_recognised_by_their_suffix(name):
    assert is_archive(name)
    assert not is_archive(name + ".txt")


# Several as one.


def test_a_union_takes_a_file_from_the_first_that_has_it(tmp_path):
    write_zip(tmp_path / "a.zip", {"both.txt": b"zip", "d/one.txt": b"1", "x": b"a file"})
    write_tar(tmp_path / "b.tgz", {"both.txt": b"tgz", "d/two.txt": b"22", "x/y.txt": b"3"}, "w:gz")
    (tmp_path / "c").mkdir()
    (tmp_path / "c/both.txt").write_bytes(b"folder")
    (tmp_path / "c/last.txt").write_bytes(b"last")
    parts = tuple((str(tmp_path / name), "") for name in ("a.zip", "b.tgz", "c"))
    tree = open_tree(TreeSpec(parts, str(tmp_path / "spool")))
    assert isinstance(tree, UnionTree)
    assert [e.name for e in tree.listdir("")] == ["both.txt", "d", "last.txt", "x"]
    assert tree.listdir("d") == [Entry("one.txt", False), Entry("two.txt", False)]
    assert Entry("x", False) in tree.listdir("")
    assert tree.read("both.txt") == b"zip"
    assert tree.read("d/two.txt") == b"22"
    assert tree.probe("last.txt", 9) == Probe(b"last", b"last", 4)
    assert tree.identity("last.txt") == FolderTree(str(tmp_path / "c")).identity("last.txt")
    with tree.local_path("d/two.txt") as path:
        assert Path(path).read_bytes() == b"22"
    with pytest.raises(OSError, match="no such file"):
        tree.read("nowhere.txt")
    backwards = open_tree(TreeSpec(parts[::-1], str(tmp_path / "spool")))
    assert backwards.read("both.txt") == b"folder"


def test_a_union_finds_a_file_without_searching_the_whole_listing(tmp_path):
    names = [f"image{i:05}.jpg" for i in range(20_000)]
    write_zip(tmp_path / "a.zip", dict.fromkeys(names[:10_000], b"a"), zipfile.ZIP_STORED)
    write_zip(tmp_path / "b.zip", dict.fromkeys(names[10_000:], b"b"), zipfile.ZIP_STORED)
    tree = open_tree(TreeSpec(tuple((str(tmp_path / n), "") for n in ("a.zip", "b.zip"))))
    start = time.perf_counter()
    assert b"".join(tree.read(name) for name in names) == b"a" * 10_000 + b"b" * 10_000
    assert time.perf_counter() - start < 10.0  # searching takes minutes


# Changes and interruptions.


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
def test_a_second_opening_uses_the_stored_index(suffix, place, tmp_path):
    seen = []
    spec = TreeSpec(((str(place / ("flat" + suffix)), ""),), str(tmp_path))
    open_tree(spec, lambda done, total: seen.append((done, total)))
    assert bool(seen) == (suffix == ".tgz")
    assert all(0 < done <= total for done, total in seen)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    again = open_tree(spec, lambda done, total: pytest.fail("read the archive again"))
    assert again.read("readme.txt") == b"hello"
    assert {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
def test_a_changed_archive_is_read_again(suffix, tmp_path):
    archive, options = tmp_path / ("a" + suffix), {"mode": "w:gz", "compresslevel": 0} if suffix == ".tgz" else {}
    write_tar(archive, {"a.txt": b"old!", "b.txt": b""}, **options)
    os.utime(archive, ns=(1, 1))
    size = archive.stat().st_size
    assert opened(archive, spool=tmp_path / "s").read("a.txt") == b"old!"
    write_tar(archive, {"b.txt": b"", "a.txt": b"new!"}, **options)
    assert archive.stat().st_size == size
    assert opened(archive, spool=tmp_path / "s").read("a.txt") == b"new!"


def test_complete_images_use_a_separate_spool(place, tmp_path):
    name = "AFW/AFW_1_0.jpg"
    with pytest.raises(OSError, match="only its head"):
        through(".tgz", place, "", tmp_path, keep_whole=False).read(name)
    assert through(".tgz", place, "", tmp_path, keep_whole=True).read(name) == FILES[name]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError("disk full")])
def test_an_interrupted_spool_leaves_no_partial_files(error, place, tmp_path):
    def break_off(done, total):
        calls.append(done)
        if len(calls) == 5:
            raise error

    calls = []
    spec = TreeSpec(((str(place / "flat.tgz"), ""),), str(tmp_path))
    with pytest.raises((KeyboardInterrupt, MemoryError, UbhpdError)):
        open_tree(spec, break_off)
    assert list(tmp_path.iterdir()) == []
    tree = open_tree(spec)
    assert tree.read("big.npz") == FILES["big.npz"]


@pytest.mark.parametrize("survivor", [".spool", ".index.json"])
def test_a_spool_without_its_index_or_the_reverse_is_written_again(survivor, place, tmp_path):
    spec = TreeSpec(((str(place / "flat.tgz"), ""),), str(tmp_path))
    open_tree(spec)
    for path in list(tmp_path.iterdir()):
        if path.name.endswith(survivor):
            path.write_bytes(b"half") if survivor == ".spool" else None
        else:
            path.unlink()
    assert open_tree(spec).read("readme.txt") == b"hello"


# Folders on disk.


def test_a_missing_place_raises_one_error(tmp_path):
    for name in ("nothing", "nothing.zip", "nothing.tgz", "nothing.tar"):
        with pytest.raises(UbhpdError, match="nothing"):
            opened(tmp_path / name)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UbhpdError, match="not a folder"):
        opened(tmp_path / "file")


def test_an_unreadable_file_raises_oserror(tmp_path, monkeypatch):
    (tmp_path / "a.mat").write_bytes(b"1")
    (tmp_path / "a.mat").chmod(0)
    tree = FolderTree(str(tmp_path))
    if os.access(tmp_path / "a.mat", os.R_OK):  # root reads everything: let the system call refuse instead

        def refuse(*args):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError):
        tree.read("a.mat")
    with pytest.raises(PermissionError):
        tree.probe("a.mat", 9)
    assert tree.identity("a.mat") != "absent"


def test_all_files_are_closed(tmp_path):
    (tmp_path / "a.mat").write_bytes(b"1" * 100_000)
    tree = FolderTree(str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        tree.read("a.mat")
        tree.probe("a.mat", 9)
        for wrong in (lambda: tree.read("a.mat", limit=9), lambda: tree.read(""), lambda: tree.probe("", 9)):
            with pytest.raises(OSError, match=r"."):
                wrong()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no /dev/zero here")
def test_an_endless_file_is_refused_at_the_limit(tmp_path):
    (tmp_path / "endless.mat").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="more than"):
        FolderTree(str(tmp_path)).read("endless.mat", limit=1 << 20)


def test_a_file_replaced_by_an_older_one_of_equal_size_has_another_identity(tmp_path):
    for name, data in (("a.txt", b"1"), ("b.txt", b"2")):
        (tmp_path / name).write_bytes(data)
        os.utime(tmp_path / name, ns=(10**18, 10**18))
    tree = FolderTree(str(tmp_path))
    first, second = tree.identity("a.txt"), tree.identity("b.txt")
    (tmp_path / "a.txt").unlink()
    assert tree.identity("a.txt") == "absent"
    (tmp_path / "b.txt").rename(tmp_path / "a.txt")
    assert tree.identity("a.txt") not in (first, "absent") and first != second


def test_a_member_has_another_identity_when_its_archive_changes(tmp_path):
    write_zip(tmp_path / "a.zip", {"a.txt": b"1"})
    write_zip(tmp_path / "b.zip", {"a.txt": b"2"})
    tree = opened(tmp_path / "a.zip")
    before = tree.identity("a.txt")
    (tmp_path / "b.zip").replace(tmp_path / "a.zip")
    assert tree.identity("a.txt") != before


@pytest.mark.parametrize("ending", [".index.json", ".spool"])
def test_a_stored_index_and_spool_are_verified_before_use(ending, tmp_path, caplog):
    write_tar(tmp_path / "a.tgz", {"a.txt": b"some text", "b.txt": b"other"}, "w:gz")
    spec = TreeSpec(((str(tmp_path / "a.tgz"), ""),), str(tmp_path / "spool"))
    assert open_tree(spec).read("a.txt") == b"some text"
    (kept,) = (tmp_path / "spool").glob(f"*{ending}")
    for damaged in (kept.read_bytes().replace(b"a.txt", b"b.txt", 1)[:-1], b"", b"[" * 100_000, b'{"members": 30}'):
        kept.write_bytes(damaged)
        caplog.clear()
        assert open_tree(spec).read("a.txt") == b"some text"
        assert "is read again" in caplog.text


def test_a_changed_byte_in_a_spool_affects_only_its_member(tmp_path):
    write_tar(tmp_path / "a.tgz", {"a.txt": b"some text", "b.txt": b"other"}, "w:gz")
    spec = TreeSpec(((str(tmp_path / "a.tgz"), ""),), str(tmp_path / "spool"))
    open_tree(spec)
    (spool,) = (tmp_path / "spool").glob("*.spool")
    spool.write_bytes(spool.read_bytes().replace(b"some", b"sone"))
    tree = open_tree(spec)
    assert tree.read("b.txt") == b"other"
    with pytest.raises(OSError, match=r"damaged in .*\.spool"):
        tree.read("a.txt")
    assert open_tree(spec, lambda done, total: None).read("a.txt") == b"some text"


# A first look.


def test_a_peek_has_the_same_listing_as_the_tree(place, tmp_path):
    for door in DOORS:
        seen = peek(str(place / "folder" if door == "folder" else place / ("flat" + door)))
        tree = through(door, place, "", tmp_path)
        for folder in FOLDERS:
            assert seen.listdir(folder) == tree.listdir(folder)


def test_a_peek_into_a_tgz_reads_only_its_beginning(tmp_path):
    rng = np.random.default_rng(0)
    write_tar(tmp_path / "a.tgz", {f"{i:04}.txt": rng.bytes(3000) for i in range(2000)}, "w:gz")
    data = (tmp_path / "a.tgz").read_bytes()
    (tmp_path / "a.tgz").write_bytes(data[: len(data) // 2])
    tree = peek(str(tmp_path / "a.tgz"))
    assert 100 <= len(tree.listdir("")) < 1000
    for call in (lambda: tree.read("0000.txt"), lambda: tree.probe("0000.txt", 9)):
        with pytest.raises(OSError, match="not read"):
            call()
