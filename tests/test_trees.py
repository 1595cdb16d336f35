import io
import os
import struct
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ubhpd.errors import UbhpdError
from ubhpd.raw.trees import Entry, FolderTree, Probe, TreeSpec, UnionTree, archive_fault, is_archive, open_tree, peek

RNG = np.random.default_rng(0)
FILES = {
    "readme.txt": b"hello",
    "empty.txt": b"",
    "short.png": b"\x89PNG",
    "ten.txt": b"0123456789",
    "AFW/AFW_1_0.mat": RNG.bytes(3000),
    "AFW/AFW_1_0.jpg": RNG.bytes(200_000),
    "AFW/AFW_2_0.jpg": RNG.bytes(65_536 + 12),
    "AFW/AFW_3_0.jpg": RNG.bytes(65_536 + 13),
    "IBUG/IBUG_image_092 _01_0.mat": RNG.bytes(100),
    "hpdb/01/frame_00003_rgb.png": RNG.bytes(9000),
    "hpdb/01/frame_00003_depth.bin": RNG.bytes(5000),
    "hpdb/01/frame_00003_pose.txt": b"1 0 0\n",
    "big.npz": RNG.bytes(300_000),
    "Grüße/ä.txt": b"umlaut",
}
CUT = {"AFW/AFW_1_0.jpg": 65_536, "AFW/AFW_3_0.jpg": 65_536, "hpdb/01/frame_00003_rgb.png": 4096}
CUT["hpdb/01/frame_00003_depth.bin"] = 4096
FOLDERS = ["", "AFW", "IBUG", "hpdb", "hpdb/01", "Grüße"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The same files as a folder and as archives; below the root and below a prefix."""
    top = tmp_path_factory.mktemp("raw")
    for prefix in ("", "some data/v1"):
        folder = top / "folder" / prefix
        for name, data in FILES.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        members = {f"{prefix}/{name}".lstrip("/"): data for name, data in FILES.items()}
        stem = str(top / ("deep" if prefix else "flat"))
        write_zip(stem + ".zip", members)
        for suffix, mode in ((".tar", "w"), (".tgz", "w:gz"), (".tar.gz", "w:gz")):
            write_tar(stem + suffix, members, mode)
        write_tar(stem + ".dot.tgz", {f"./{name}": data for name, data in members.items()}, "w:gz")
    return top


def write_zip(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def write_tar(path, members, mode="w", **options):
    with tarfile.open(path, mode, **options) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def opened(path, root="", spool=None, **options):
    return open_tree(TreeSpec(((str(path), root),), str(spool) if spool else None, options.pop("keep_whole", False)))


# The same through every door.

DOORS = ["folder", ".zip", ".tar", ".tgz", ".tar.gz", ".dot.tgz"]


def through(door, place, root, spool, keep_whole=True):
    stem = "deep" if root else "flat"
    path = place / "folder" if door == "folder" else place / (stem + door)
    return opened(path, root, spool, keep_whole=keep_whole)


@pytest.mark.parametrize("root", ["", "some data/v1"])
@pytest.mark.parametrize("door", DOORS)
def test_listing_is_the_same_through_every_door(door, root, place, tmp_path):
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
def test_reading_is_the_same_through_every_door(door, root, place, tmp_path):
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
        assert tree.changed_at(name) <= time.time() + 1


@pytest.mark.parametrize("door", DOORS)
def test_reading_with_a_limit_is_refused_through_every_door(door, place, tmp_path):
    tree = through(door, place, "", tmp_path)
    for name, data in FILES.items():
        if data:
            with pytest.raises(OSError, match="more than"):
                tree.read(name, limit=len(data) - 1)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("path", ["AFW", "no such file", "AFW/no such file", "readme.txt/x", "", "AFW_1_0.mat"])
def test_what_is_no_file_raises_oserror_through_every_door(door, path, place, tmp_path):
    tree = through(door, place, "", tmp_path)
    for call in (lambda: tree.read(path), lambda: tree.probe(path, 512)):
        with pytest.raises(OSError, match=r"."):
            call()


@pytest.mark.parametrize("suffix", [".tgz", ".tar.gz", ".dot.tgz"])
@pytest.mark.parametrize("root", ["", "some data/v1"])
def test_a_spool_keeps_of_pictures_head_and_tail_only(suffix, root, place, tmp_path):
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


def test_a_root_is_a_folder_and_not_the_beginning_of_a_name(tmp_path):
    write_zip(tmp_path / "a.zip", {"data/a.txt": b"1", "data2/b.txt": b"2", "x/data/c.txt": b"3"})
    assert opened(tmp_path / "a.zip", "data").listdir("") == [Entry("a.txt", False)]
    assert opened(tmp_path / "a.zip", "x").listdir("") == [Entry("data", True)]
    assert opened(tmp_path / "a.zip", "nowhere").listdir("") == []


def test_folders_without_files_are_folders(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.mkdir("empty")
        archive.writestr("full/a.txt", b"1")
    (tmp_path / "folder/empty").mkdir(parents=True)
    (tmp_path / "folder/full").mkdir()
    expected = [Entry("empty", True), Entry("full", True)]
    assert opened(tmp_path / "a.zip").listdir("") == opened(tmp_path / "folder").listdir("") == expected


def test_spec_says_where_as_a_person_would():
    assert TreeSpec((("/d/a.zip", ""), ("/d/b.tgz", "aflw/data"))).where == "/d/a.zip + /d/b.tgz:aflw/data"


@pytest.mark.parametrize("name", ["a.zip", "A.ZIP", "a.tgz", "a.tar.gz", "a.tar", "x.TAR.GZ"])
def test_archives_are_known_by_their_names(name):
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
    assert tree.changed_at("last.txt") == FolderTree(str(tmp_path / "c")).changed_at("last.txt")
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
def test_a_second_opening_does_not_read_the_archive_again(suffix, place, tmp_path):
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
def test_a_changed_archive_is_read_anew(suffix, tmp_path):
    archive, options = tmp_path / ("a" + suffix), {"mode": "w:gz", "compresslevel": 0} if suffix == ".tgz" else {}
    write_tar(archive, {"a.txt": b"old!", "b.txt": b""}, **options)
    os.utime(archive, ns=(1, 1))
    size = archive.stat().st_size
    assert opened(archive, spool=tmp_path / "s").read("a.txt") == b"old!"
    write_tar(archive, {"b.txt": b"", "a.txt": b"new!"}, **options)
    assert archive.stat().st_size == size
    assert opened(archive, spool=tmp_path / "s").read("a.txt") == b"new!"


def test_whole_pictures_have_a_spool_of_their_own(place, tmp_path):
    name = "AFW/AFW_1_0.jpg"
    with pytest.raises(OSError, match="only its head"):
        through(".tgz", place, "", tmp_path, keep_whole=False).read(name)
    assert through(".tgz", place, "", tmp_path, keep_whole=True).read(name) == FILES[name]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError("disk full")])
def test_a_broken_off_spool_leaves_nothing_half(error, place, tmp_path):
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
def test_a_spool_without_its_other_half_is_made_again(survivor, place, tmp_path):
    spec = TreeSpec(((str(place / "flat.tgz"), ""),), str(tmp_path))
    open_tree(spec)
    for path in list(tmp_path.iterdir()):
        if path.name.endswith(survivor):
            path.write_bytes(b"half") if survivor == ".spool" else None
        else:
            path.unlink()
    assert open_tree(spec).read("readme.txt") == b"hello"


# Names and links that lead outside.

EVIL = ["../a.txt", "d/../../a.txt", "/etc/a.txt", "..", "d/..", "d\\a.txt", "C:/a.txt", "c:a.txt", "\\\\host\\a.txt"]


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tgz"])
@pytest.mark.parametrize("name", [*EVIL, ".//etc/a.txt", "././../a.txt"])
def test_a_name_that_leads_outside_refuses_the_archive(name, suffix, tmp_path):
    archive, members = tmp_path / ("a" + suffix), {"good.txt": b"1", name: b"2"}
    if suffix == ".zip":
        if name == ".//etc/a.txt":
            pytest.skip("in a zip this is a name below the folder '.'")
        write_zip(archive, members)
    else:
        write_tar(archive, members, "w:gz" if suffix == ".tgz" else "w")
    for call in (lambda: opened(archive, spool=tmp_path / "s"), lambda: peek(str(archive))):
        with pytest.raises(UbhpdError, match="refused"):
            call()
    assert not (tmp_path / "s").exists() or list((tmp_path / "s").iterdir()) == []


@pytest.mark.parametrize("name", ["a..b/c.txt", "..a/b.txt", "a/...", "d e/f: g.txt", "~/a.txt"])
def test_odd_names_that_stay_inside_are_allowed(name, tmp_path):
    write_zip(tmp_path / "a.zip", {name: b"1"})
    write_tar(tmp_path / "a.tgz", {name: b"1"}, "w:gz")
    for suffix in (".zip", ".tgz"):
        assert opened(tmp_path / ("a" + suffix), spool=tmp_path / "s").read(name) == b"1"


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_links_and_devices_in_a_tar_are_never_followed(mode, tmp_path):
    (tmp_path / "secret.txt").write_bytes(b"secret")
    archive = tmp_path / ("a.tgz" if mode == "w:gz" else "a.tar")
    with tarfile.open(archive, mode) as tar:
        for name, kind in (
            ("sym", "SYMTYPE"),
            ("hard", "LNKTYPE"),
            ("chr", "CHRTYPE"),
            ("blk", "BLKTYPE"),
            ("fifo", "FIFOTYPE"),
        ):
            info = tarfile.TarInfo(name)
            info.type = getattr(tarfile, kind)
            info.linkname = str(tmp_path / "secret.txt")
            tar.addfile(info)
        info = tarfile.TarInfo("dir")
        info.type, info.linkname = tarfile.SYMTYPE, str(tmp_path)
        tar.addfile(info)
        tar.addfile(tarfile.TarInfo("good.txt"))
    tree = opened(archive, spool=tmp_path / "s")
    assert tree.listdir("") == [Entry("good.txt", False)]
    for name in ("sym", "hard", "chr", "blk", "fifo", "dir/secret.txt"):
        with pytest.raises(OSError, match="no such file"):
            tree.read(name)


# Bombs.


def zip_with_lies(path, data, **lies):
    """Write a zip of one member, then put other sizes into its two headers."""
    write_zip(path, {"a.mat": data})
    raw = bytearray(Path(path).read_bytes())
    central = raw.index(b"PK\x01\x02")
    for field, (local_at, central_at) in {"crc": (14, 16), "packed": (18, 20), "size": (22, 24)}.items():
        if field in lies:
            struct.pack_into("<I", raw, local_at, lies[field])
            struct.pack_into("<I", raw, central + central_at, lies[field])
    Path(path).write_bytes(raw)


def test_a_zip_that_claims_an_absurd_size_is_refused(tmp_path):
    zip_with_lies(tmp_path / "a.zip", b"1" * 50, size=0xFFFFFFF0)
    with pytest.raises(UbhpdError, match=r"refused.*claims"):
        opened(tmp_path / "a.zip")


def test_a_true_zip_bomb_is_refused(tmp_path):
    write_zip(tmp_path / "a.zip", {"a.mat": bytes(300 << 20)})
    with pytest.raises(UbhpdError, match=r"refused.*claims"):
        opened(tmp_path / "a.zip")


def test_a_zip_that_hides_its_size_is_not_inflated_beyond_it(tmp_path):
    zip_with_lies(tmp_path / "a.zip", bytes(200 << 20), size=100, crc=zlib.crc32(bytes(100)))
    tree = opened(tmp_path / "a.zip")
    for call in (lambda: tree.read("a.mat"), lambda: tree.probe("a.mat", 512), lambda: read_local(tree, "a.mat")):
        tracemalloc.start()
        try:
            assert len(call()) <= 100
        except OSError:
            pass
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak < 8 << 20


def test_a_zip_member_shorter_than_it_says_raises_oserror(tmp_path):
    zip_with_lies(tmp_path / "a.zip", b"1" * 50, size=100)
    with pytest.raises(OSError, match="shorter"):
        opened(tmp_path / "a.zip").read("a.mat")


def read_local(tree, name):
    with tree.local_path(name) as path:
        return Path(path).read_bytes()


def test_a_tgz_bomb_is_refused_before_it_fills_the_disk(tmp_path):
    write_tar(tmp_path / "a.tgz", {"a.mat": bytes(300 << 20)}, "w:gz")
    with pytest.raises(UbhpdError, match=r"refused.*claims"):
        opened(tmp_path / "a.tgz", spool=tmp_path / "s")
    assert list((tmp_path / "s").iterdir()) == []


def tar_header(name, size, kind=b"0"):
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf())
    block[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
@pytest.mark.parametrize("kind", [b"0", b"x", b"L"])
@pytest.mark.parametrize("size", [1 << 50, (1 << 62), -512, -1536])
def test_a_tar_that_lies_about_a_size_is_refused_at_once(suffix, kind, size, tmp_path):
    data = tar_header("good.txt", 0) + tar_header("evil.txt", size, kind) + tar_header("more.txt", 0) + bytes(1024)
    if suffix == ".tgz":
        squeezer = zlib.compressobj(wbits=31)
        data = squeezer.compress(data) + squeezer.flush()
    (tmp_path / ("a" + suffix)).write_bytes(data)
    start = time.perf_counter()
    with pytest.raises(UbhpdError):
        opened(tmp_path / ("a" + suffix), spool=tmp_path / "s")
    assert time.perf_counter() - start < 5.0


# Downloads that are not what their names say.


@pytest.mark.parametrize("name", ["a.zip", "a.tgz", "a.tar.gz", "a.tar"])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<!DOCTYPE html><html>log in first</html>" * 50, "web page"),
        (b"\n <html></html>", "web page"),
        (b"", "is not a|truncated"),
        (b"x" * 5000, "is not a|truncated"),
        (np.random.default_rng(1).bytes(20_000), "is not a|truncated"),
        (b"\x1f\x8b\x08\x00" + b"\x55" * 3000, "is not a|truncated|Cannot|cannot"),
    ],
    ids=["page", "page after a blank", "empty", "text", "random", "gzip of nothing"],
)
def test_what_is_no_archive_is_named(name, data, reason, tmp_path):
    (tmp_path / name).write_bytes(data)
    assert archive_fault(str(tmp_path / name))
    for call in (lambda: opened(tmp_path / name, spool=tmp_path / "s"), lambda: peek(str(tmp_path / name))):
        with pytest.raises(UbhpdError, match=reason) as caught:
            call()
        assert name in str(caught.value)


@pytest.mark.parametrize("name", ["flat.zip", "flat.tgz", "flat.tar", "flat.tar.gz"])
@pytest.mark.parametrize("kept", [0.01, 0.3, 0.7, 0.95])
def test_a_truncated_archive_is_refused(name, kept, place, tmp_path):
    data = (place / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(UbhpdError, match="download it again"):
        opened(tmp_path / name, spool=tmp_path / "s")
    assert not (tmp_path / "s").exists() or not list((tmp_path / "s").glob("*.spool"))


def test_a_tar_cut_exactly_between_two_members_is_refused(tmp_path):
    write_tar(tmp_path / "a.tar", {"a.txt": b"1", "b.txt": b"2"})
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:1024])
    with pytest.raises(UbhpdError, match="download it again"):
        opened(tmp_path / "a.tar", spool=tmp_path / "s")


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
def test_a_damaged_header_in_the_middle_never_hides_the_files_after_it(suffix, tmp_path):
    write_tar(tmp_path / "a.tar", {f"{i}.txt": b"x" * 600 for i in range(9)})
    data = bytearray((tmp_path / "a.tar").read_bytes())
    data[4 * 1536 + 3] ^= 0x55
    if suffix == ".tgz":
        squeezer = zlib.compressobj(wbits=31)
        data = squeezer.compress(bytes(data)) + squeezer.flush()
    (tmp_path / ("a" + suffix)).write_bytes(data)
    with pytest.raises(UbhpdError, match="download it again"):
        opened(tmp_path / ("a" + suffix), spool=tmp_path / "s")


def test_a_tgz_whose_checksum_fails_is_refused(tmp_path):
    write_tar(tmp_path / "a.tgz", {"a.txt": b"x" * 600}, "w:gz")
    data = bytearray((tmp_path / "a.tgz").read_bytes())
    data[-8] ^= 1
    (tmp_path / "a.tgz").write_bytes(data)
    with pytest.raises(UbhpdError, match="download it again"):
        opened(tmp_path / "a.tgz", spool=tmp_path / "s")


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w:gz"), ("a.tgz", "w"), ("a.tar", "w:xz"), ("a.tgz", "w:bz2")])
def test_a_tar_is_known_as_compressed_by_its_content_not_its_name(name, mode, tmp_path):
    write_tar(tmp_path / name, FILES, mode)
    tree = opened(tmp_path / name, spool=tmp_path / "s", keep_whole=True)
    for path, data in FILES.items():
        assert tree.read(path) == data


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
def test_a_sparse_file_is_read_right_or_refused(suffix, tmp_path):
    with (tmp_path / "holes.mat").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(600_000)
        file.write(b"data")
    code = os.spawnlp(
        os.P_WAIT,
        "tar",
        "tar",
        "-S",
        "-C",
        str(tmp_path),
        "-c" + "z" * (suffix == ".tgz") + "f",
        str(tmp_path / ("a" + suffix)),
        "holes.mat",
    )
    if code:
        pytest.skip("no tar here that packs sparse files")
    try:
        found = opened(tmp_path / ("a" + suffix), spool=tmp_path / "s").read("holes.mat")
    except (UbhpdError, OSError):
        return
    assert found == (tmp_path / "holes.mat").read_bytes()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_zip_member_raises_oserror(method, tmp_path):
    write_zip(tmp_path / "a.zip", {"a.mat": RNG.bytes(2000) * 2}, method)
    for position in range(60, 2000, 97):
        data = bytearray((tmp_path / "a.zip").read_bytes())
        data[position] ^= 0xFF
        (tmp_path / "b.zip").write_bytes(data)
        tree = opened(tmp_path / "b.zip")
        for call in (tree.read, partial(tree.probe, head=99), partial(read_local, tree)):
            with pytest.raises(OSError, match=r"damaged inside the archive|Invalid data"):
                call("a.mat")


@pytest.mark.parametrize("suffix", [".zip", ".lzma.zip", ".tar", ".tgz"])
def test_mutated_archives_give_files_or_one_of_the_two_errors(suffix, tmp_path):
    members = {f"d {i}/a{i}.mat": RNG.bytes(50) * 8 for i in range(4)}
    archive = tmp_path / ("a" + suffix)
    if suffix.endswith("zip"):
        write_zip(archive, members, zipfile.ZIP_LZMA if "lzma" in suffix else zipfile.ZIP_DEFLATED)
    else:
        write_tar(archive, members, "w:gz" if suffix == ".tgz" else "w")
    whole, rng = archive.read_bytes(), np.random.default_rng(6)
    used = len(whole.rstrip(b"\0"))
    for trial in range(400):
        data = bytearray(whole)
        for position in rng.integers(0, used, rng.integers(1, 4)):
            data[position] = rng.integers(0, 256)
        if trial % 4 == 0:
            data = data[: rng.integers(0, used)]
        archive.write_bytes(data)
        try:
            tree = opened(archive, spool=tmp_path / f"s{trial}")
            for folder in tree.listdir(""):
                for entry in tree.listdir(folder.name):
                    tree.probe(f"{folder.name}/{entry.name}", 512)
                    tree.read(f"{folder.name}/{entry.name}")
        except (UbhpdError, OSError):
            continue


# Folders on disk.


def test_a_missing_place_is_one_sentence(tmp_path):
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
    assert tree.changed_at("a.mat") < float("inf")


def test_no_file_is_left_open(tmp_path):
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
def test_a_file_without_an_end_is_refused_at_the_limit(tmp_path):
    (tmp_path / "endless.mat").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="more than"):
        FolderTree(str(tmp_path)).read("endless.mat", limit=1 << 20)


def test_when_a_file_changed_is_infinity_where_it_cannot_be_told(tmp_path):
    write_zip(tmp_path / "a.zip", {"a.txt": b"1"})
    tree = opened(tmp_path / "a.zip")
    assert tree.changed_at("a.txt") == pytest.approx(time.time(), abs=60)
    (tmp_path / "a.zip").unlink()
    assert tree.changed_at("a.txt") == float("inf")
    assert FolderTree(str(tmp_path)).changed_at("nothing") == float("inf")


# A first look.


def test_a_peek_lists_like_the_tree_itself(place, tmp_path):
    for door in DOORS:
        seen = peek(str(place / "folder" if door == "folder" else place / ("flat" + door)))
        tree = through(door, place, "", tmp_path)
        for folder in FOLDERS:
            assert seen.listdir(folder) == tree.listdir(folder)


def test_a_peek_into_a_tgz_reads_its_beginning_only(tmp_path):
    write_tar(tmp_path / "a.tgz", {f"{i:04}.txt": RNG.bytes(3000) for i in range(2000)}, "w:gz")
    data = (tmp_path / "a.tgz").read_bytes()
    (tmp_path / "a.tgz").write_bytes(data[: len(data) // 2])
    tree = peek(str(tmp_path / "a.tgz"))
    assert 100 <= len(tree.listdir("")) < 1000
    for call in (lambda: tree.read("0000.txt"), lambda: tree.probe("0000.txt", 9)):
        with pytest.raises(OSError, match="not read"):
            call()
