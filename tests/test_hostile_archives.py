"""Archives that lead outside, claim too much, or are damaged: refused in one sentence, and never a wrong byte."""

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
from archives_for_tests import FILES, opened, read_local, write_tar, write_zip, written

from ubhpd.core.errors import UbhpdError
from ubhpd.raw import archives
from ubhpd.raw.source import Source
from ubhpd.raw.trees import Entry, archive_fault, peek

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return written(tmp_path_factory.mktemp("raw"))


# Names and links that lead outside.

EVIL = [
    "../a.txt",
    "d/../../a.txt",
    "/etc/a.txt",
    "..",
    "d/..",
    "..\\a.txt",
    "d\\..\\..\\a.txt",
    "C:/a.txt",
    "c:a.txt",
    "\\\\host\\a.txt",
]


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tgz"])
@pytest.mark.parametrize("name", [*EVIL, ".//etc/a.txt", "././../a.txt"])
def test_a_name_that_leads_outside_refuses_the_archive(name, suffix, tmp_path):
    archive, members = tmp_path / ("a" + suffix), {"good.txt": b"1", name: b"2"}
    if suffix == ".zip":
        if name == ".//etc/a.txt":
            name = "./../a.txt"
            members = {"good.txt": b"1", name: b"2"}
        write_zip(archive, members)
    else:
        write_tar(archive, members, "w:gz" if suffix == ".tgz" else "w")
    for call in (lambda: opened(archive, spool=tmp_path / "s"), lambda: peek(str(archive))):
        with pytest.raises(UbhpdError, match="refused"):
            call()
    assert not (tmp_path / "s").exists() or list((tmp_path / "s").iterdir()) == []


@pytest.mark.parametrize("name", ["a..b/c.txt", "..a/b.txt", "a/...", "d e/f: g.txt", "~/a.txt"])
def test_unusual_names_that_stay_inside_are_allowed(name, tmp_path):
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


def test_a_hard_link_to_a_file_of_the_tar_is_that_file(tmp_path):
    for suffix, mode in ((".tar", "w"), (".tgz", "w:gz")):
        archive = tmp_path / ("a" + suffix)
        with tarfile.open(archive, mode) as tar:
            info = tarfile.TarInfo("d/a.mat")
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
            for name, target in (("d/b.mat", "./d/a.mat"), ("d/c.mat", "../d/a.mat"), ("d/d.mat", "none.mat")):
                link = tarfile.TarInfo(name)
                link.type, link.linkname = tarfile.LNKTYPE, target
                tar.addfile(link)
        for _ in range(2):  # the second time from the stored index
            tree = opened(archive, spool=tmp_path / "s")
            assert [e.name for e in tree.listdir("d")] == ["a.mat", "b.mat"]
            assert tree.read("d/b.mat") == b"abc"
            assert tree.left_out() == {"hard links in the archive to files that are not in it": 2}


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
def test_members_that_are_not_files_are_counted_by_kind(suffix, tmp_path):
    archive = tmp_path / ("a" + suffix)
    with tarfile.open(archive, "w:gz" if suffix == ".tgz" else "w") as tar:
        for i, kind in enumerate(
            [tarfile.SYMTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
        ):
            info = tarfile.TarInfo(f"m{i}")
            info.type, info.linkname = kind, "good.txt"
            tar.addfile(info)
        tar.addfile(tarfile.TarInfo("good.txt"))
    source = Source(opened(archive, spool=tmp_path / "s"))
    assert source.account(["good.txt"]) == (
        "5 files listed: 1 read, 4 left out [2 symbolic links in the archive; "
        "2 devices, pipes and other special members of the archive]"
    )


def test_symbolic_links_in_a_zip_are_not_files(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.mat", b"1")
        link = zipfile.ZipInfo("b.mat")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    tree = opened(tmp_path / "a.zip")
    assert [e.name for e in tree.listdir("")] == ["a.mat"]
    assert Source(tree).account(["a.mat"]) == ("2 files listed: 1 read, 1 left out [1 symbolic links in the archive]")


# Names.


@pytest.mark.parametrize("name", ["./d/a.mat", "././d/a.mat", "d\\a.mat", ".\\d\\a.mat", "d//a.mat", "d/./a.mat"])
def test_leading_dots_and_backslashes_are_cleaned_in_every_archive(name, tmp_path):
    info = zipfile.ZipInfo()
    info.filename = name  # the constructor would change it on Windows
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, b"1")
    write_tar(tmp_path / "a.tar", {name: b"1"})
    write_tar(tmp_path / "a.tgz", {name: b"1"}, "w:gz")
    for suffix in (".zip", ".tar", ".tgz"):
        for root, path in (("", "d/a.mat"), ("d", "a.mat")):
            tree = opened(tmp_path / ("a" + suffix), root, tmp_path / "s")
            assert tree.read(path) == b"1"
        assert peek(str(tmp_path / ("a" + suffix))).listdir("d") == [Entry("a.mat", False)]


def test_a_member_that_is_encrypted_or_of_another_method_costs_itself(tmp_path):
    write_zip(tmp_path / "a.zip", {"a.mat": b"1" * 99, "b.mat": b"2" * 99, "c.mat": b"3" * 99})
    data = bytearray((tmp_path / "a.zip").read_bytes())
    for name, flags, method in ((b"a.mat", 1, 8), (b"b.mat", 0, 9)):
        entry = data.rindex(b"PK\x01\x02", 0, data.rindex(name))
        data[entry + 8] |= flags
        data[entry + 10] = method
        local = data.rindex(b"PK\x03\x04", 0, data.index(name))
        data[local + 6] |= flags
        data[local + 8] = method
    (tmp_path / "a.zip").write_bytes(data)
    tree = opened(tmp_path / "a.zip")
    assert tree.read("c.mat") == b"3" * 99
    with pytest.raises(OSError, match="encrypted in the archive: unpack it with its password"):
        tree.read("a.mat")
    for read in (tree.read, lambda path: tree.probe(path, 9)):
        with pytest.raises(OSError, match=r"packed by a method that is not read here \(type 9\): unpack"):
            read("b.mat")
    with pytest.raises(OSError, match="type 9"), tree.local_path("b.mat"):
        pass


def test_a_zip_name_that_is_falsely_marked_as_utf8_affects_only_its_member(tmp_path):
    write_zip(tmp_path / "a.zip", {"d/a.mat": b"1", "d/\u00fc.mat": b"2", "d/c.mat": b"3"})
    data = (tmp_path / "a.zip").read_bytes()
    assert data.count("\u00fc".encode()) == 2
    (tmp_path / "a.zip").write_bytes(data.replace("\u00fc".encode(), b"\xff\xfe"))
    tree = opened(tmp_path / "a.zip")
    names = [e.name for e in tree.listdir("d")]
    assert len(names) == 3 and {"a.mat", "c.mat"} < set(names)
    assert [tree.read(f"d/{name}") for name in ("a.mat", "c.mat")] == [b"1", b"3"]
    (other,) = set(names) - {"a.mat", "c.mat"}
    try:
        assert tree.read(f"d/{other}") == b"2"
    except OSError as error:  # Python versions differ in whether they decode the name a second time
        assert "damaged inside the archive" in str(error)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_name_that_is_not_utf8_keeps_its_bytes(mode, tmp_path):
    name = os.fsdecode(b"d/\xff\xfe.mat")
    archive = tmp_path / ("a.tar" if mode == "w" else "a.tgz")
    write_tar(archive, {"d/a.mat": b"1", name: b"2"}, mode, format=tarfile.GNU_FORMAT)
    for _ in range(2):
        tree = opened(archive, spool=tmp_path / "s")
        assert [e.name for e in tree.listdir("d")] == ["a.mat", name.removeprefix("d/")]
        assert tree.read(name) == b"2"


# Bombs.


def test_a_tgz_of_many_members_is_refused_for_their_sum(tmp_path):
    """Each member inflates to less than 1,100 times the archive, all together to more."""
    member = bytes(1 << 20)
    members = {"first.mat": RNG.bytes(8000), **{f"{i}.mat": member for i in range(20)}}
    write_tar(tmp_path / "a.tgz", members, "w:bz2")
    on_disk = (tmp_path / "a.tgz").stat().st_size
    assert len(member) / on_disk < 1100 < 20 * len(member) / on_disk
    for call in (lambda: opened(tmp_path / "a.tgz", spool=tmp_path / "s"), lambda: peek(str(tmp_path / "a.tgz"))):
        with pytest.raises(UbhpdError, match=r"refused: its members up to '\d+\.mat' claim"):
            call()
    assert list((tmp_path / "s").iterdir()) == []


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


def test_a_real_zip_bomb_is_refused(tmp_path):
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
def test_a_tar_with_a_false_size_is_refused_immediately(suffix, kind, size, tmp_path):
    data = tar_header("good.txt", 0) + tar_header("evil.txt", size, kind) + tar_header("more.txt", 0) + bytes(1024)
    if suffix == ".tgz":
        squeezer = zlib.compressobj(wbits=31)
        data = squeezer.compress(data) + squeezer.flush()
    (tmp_path / ("a" + suffix)).write_bytes(data)
    start = time.perf_counter()
    with pytest.raises(UbhpdError):
        opened(tmp_path / ("a" + suffix), spool=tmp_path / "s")
    assert time.perf_counter() - start < 60  # and not hours


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
def test_a_file_that_is_not_an_archive_is_identified(name, data, reason, tmp_path):
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


def test_a_tar_truncated_between_two_members_is_refused(tmp_path):
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


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w:gz"), ("a.tgz", "w"), ("a.tar", "w:xz"), ("a.tgz", "w:bz2"), ("a.tar.xz", "w:xz")]
)
def test_compression_of_a_tar_is_detected_by_content_not_name(name, mode, tmp_path):
    write_tar(tmp_path / name, FILES, mode)
    tree = opened(tmp_path / name, spool=tmp_path / "s", keep_whole=True)
    for path, data in FILES.items():
        assert tree.read(path) == data


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
def test_a_sparse_file_is_read_correctly_or_refused(suffix, tmp_path):
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
def test_mutated_archives_give_files_or_one_of_two_errors(suffix, tmp_path):
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


def test_isal_reads_and_refuses_the_same_tgz_as_python(tmp_path, monkeypatch):
    """Also where the gzip stream is damaged, cut off, followed by other bytes, or one of several."""
    pytest.importorskip("isal")
    archive = tmp_path / "a.tgz"
    write_tar(archive, {f"d {i}/a{i}.mat": RNG.bytes(300) * 8 for i in range(4)}, "w:gz")
    whole, rng = archive.read_bytes(), np.random.default_rng(7)
    copies = [whole, whole + bytes(512), whole + b"junk" * 9, whole + whole, whole[:-4], whole[:-8] + bytes(8), b""]
    for trial in range(300):
        data = bytearray(whole)
        for position in rng.integers(0, len(whole), rng.integers(1, 4)):
            data[position] = rng.integers(0, 256)
        copies.append(bytes(data[: rng.integers(0, len(whole))] if trial % 4 == 0 else data))

    def outcome(number):
        try:
            tree = opened(archive, spool=tmp_path / f"s{number}")
            places = [
                f"{folder.name}/{entry.name}" for folder in tree.listdir("") for entry in tree.listdir(folder.name)
            ]
            return {place: bytes(tree.read(place)) for place in places}
        except (UbhpdError, OSError):
            return "refused"

    outcomes = []
    for number, data in enumerate(copies):
        archive.write_bytes(data)
        found = outcome(f"isal{number}")
        with monkeypatch.context() as without:
            without.setattr(archives, "_isal_opener", lambda: None)
            assert outcome(f"python{number}") == found, number
        outcomes.append(found)
    assert len(outcomes[0]) == 4 and outcomes[1] == outcomes[0] and 200 < outcomes.count("refused") < len(outcomes)


def zstd_of(data):
    """Return Zstandard frames of data without a library: blocks stored raw."""
    frame = b"\x28\xb5\x2f\xfd" + b"\xa0" + struct.pack("<I", len(data))  # size in 4 bytes, one segment
    blocks = [data[i : i + (64 << 10)] for i in range(0, len(data), 64 << 10)]
    for i, block in enumerate(blocks):
        frame += struct.pack("<I", len(block) << 3 | (i == len(blocks) - 1))[:3] + block
    return frame


def test_a_tar_zst_is_read_where_a_decompressor_is_installed_or_named_otherwise(tmp_path):
    write_tar(tmp_path / "a.tar", FILES)
    (tmp_path / "a.tar.zst").write_bytes(zstd_of((tmp_path / "a.tar").read_bytes()))
    fault = archive_fault(str(tmp_path / "a.tar.zst"))
    if fault is not None:
        assert "compressed with Zstandard: pip install zstandard" in fault
        with pytest.raises(UbhpdError, match="pip install zstandard"):
            opened(tmp_path / "a.tar.zst", spool=tmp_path / "s")
        return
    tree = opened(tmp_path / "a.tar.zst", spool=tmp_path / "s", keep_whole=True)
    for path, data in FILES.items():
        assert tree.read(path) == data
    assert opened(tmp_path / "a.tar.zst", spool=tmp_path / "s").listdir("") == tree.listdir("")  # images in part
    data = (tmp_path / "a.tar.zst").read_bytes()
    for size in (100, len(data) // 2, len(data) - 12_000):
        (tmp_path / "b.tar.zst").write_bytes(data[:size])
        with pytest.raises(UbhpdError, match="download it again"):
            opened(tmp_path / "b.tar.zst", spool=tmp_path / "s")
