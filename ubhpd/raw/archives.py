"""Archives as trees of files: zip and tar are read in place, a compressed tar through a spool file.

An archive is refused as a whole if one of its names leads outside of it or its sizes are implausible.

A compressed tar has no random access. It is therefore decompressed once, and a spool file in the build's work folder
keeps what a build needs: label files as a whole, and the first and last bytes of each image. A tar that is truncated,
or damaged where that could hide files, is refused.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib
import io
import json
import logging
import os
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, NamedTuple, cast

from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import file_identity, read_json, replacing
from ubhpd.raw.folders import LABEL_LIMIT, TAIL_BYTES, Entry, Probe, Tree, refuse_large
from ubhpd.raw.image_files import HeaderTooShort, ImageError, size_from_header

# ruff: noqa: D102 - the public methods implement Tree, which documents them

try:
    from lzma import LZMAError
except ImportError:  # a Python built without it cannot read such archives either
    LZMAError = EOFError  # type: ignore[misc, assignment]

# What zipfile and tarfile raise on foreign bytes; ValueError is for names that do not decode.
DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, LZMAError, struct.error),
    *(EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError),
)

_DIRECTORY_ENTRY = b"PK\x01\x02"  # of a zip
_ENCRYPTED = 0x1  # bit of a zip member's flags
_GZIP_START = b"\x1f\x8b"
_ZSTD_FRAME = b"\x28\xb5\x2f\xfd"
_SYMBOLIC_LINK = "symbolic links in the archive"
_KINDS = {tarfile.SYMTYPE: _SYMBOLIC_LINK, tarfile.LNKTYPE: "hard links in the archive to files that are not in it"}
_OTHER_KIND = "devices, pipes and other special members of the archive"

_MAX_MEMBER = 64 << 30
_MAX_TOTAL = 4 << 40
_MAX_RATIO = 1100  # deflate itself ends at 1032
_MAX_DENSE = 256 << 20  # above this size a ratio over 100 is a bomb, not an image


class ArchiveTree(Tree):
    """An archive whose listing is built from its member names; paths are relative to a root inside the archive."""

    def __init__(
        self, archive: str, root: str, names: Iterable[str], left_out: Mapping[str, int] | None = None
    ) -> None:
        """Build the listing.

        Args:
            archive: path of the archive.
            root: folder inside it that is the root of the tree; "" for the top.
            names: cleaned member names; those of folders end in a slash.
            left_out: how many members of which kind the archive has that are not files.
        """
        self._archive = archive
        self._prefix = f"{root}/" if root else ""
        self._left_out = dict(left_out or {})
        self._folders: dict[str, dict[str, bool]] = {"": {}}
        for name in names:
            if name.startswith(self._prefix):
                self._add(name[len(self._prefix) :].rstrip("/"), is_dir=name.endswith("/"))

    def listdir(self, path: str) -> list[Entry]:
        return sorted(Entry(name, is_dir) for name, is_dir in self._folders.get(path, {}).items())

    def identity(self, path: str) -> str:
        return file_identity(self._archive)

    def left_out(self) -> dict[str, int]:
        return self._left_out

    def _add(self, path: str, is_dir: bool) -> None:
        while path:
            folder, _, name = path.rpartition("/")
            siblings = self._folders.setdefault(folder, {})
            if name in siblings:
                return
            siblings[name] = is_dir
            path, is_dir = folder, True


class ZipTree(ArchiveTree):
    """A .zip read in place."""

    def __init__(self, archive: str, root: str) -> None:
        try:
            self._zip, self._file = _open_zip(archive)
            on_disk = os.path.getsize(archive)
        except (*DAMAGED, OSError) as error:
            raise UbhpdError(f"Cannot open {archive}: {error}; download it again.") from None
        self._infos: dict[str, zipfile.ZipInfo] = {}
        links = total = 0
        for info in self._zip.infolist():
            name = _clean_name(info.filename)
            refuse_escape(archive, name)
            total += info.file_size
            refuse_implausible(archive, name, info.file_size, max(info.compress_size, 1), total, on_disk)
            if stat.S_ISLNK(info.external_attr >> 16):  # its content is the name of another file
                links += 1
            elif name:
                self._infos[name] = info
        super().__init__(archive, root, self._infos, {_SYMBOLIC_LINK: links} if links else None)

    def __del__(self) -> None:
        if file := getattr(self, "_file", None):
            self._zip.close()
            file.close()

    def read(self, path: str, limit: int = LABEL_LIMIT) -> bytes:
        info = self._info(path)
        refuse_large(info.file_size, limit)
        with self._member(path) as member:
            data = member.read(info.file_size)  # never inflates more than it says
        if len(data) != info.file_size:
            raise OSError("damaged inside the archive (shorter than it says)")
        return data

    def probe(self, path: str, head: int) -> Probe:
        data = self.read(path)  # as a whole, because the checksum of a zip member covers all of it
        return Probe(data, data[-TAIL_BYTES:], len(data))

    def _info(self, path: str) -> zipfile.ZipInfo:
        try:
            return self._infos[self._prefix + path]
        except KeyError:
            raise FileNotFoundError("no such file in the archive") from None

    @contextmanager
    def _member(self, path: str) -> Iterator[IO[bytes]]:
        """Open a member; what is wrong with it is an OSError."""
        info = self._info(path)
        if info.flag_bits & _ENCRYPTED:
            raise OSError("encrypted in the archive: unpack it with its password")
        try:
            with self._zip.open(info) as member:
                yield member
        except NotImplementedError:
            raise OSError(
                f"packed by a method that is not read here (type {info.compress_type}): unpack the archive"
            ) from None
        except DAMAGED as error:
            raise OSError(f"damaged inside the archive ({error})") from None

    def _copy(self, path: str, to: IO[bytes]) -> None:
        with self._member(path) as source:
            shutil.copyfileobj(source, to)


def refuse_escape(archive: str, name: str) -> None:
    """Raise UbhpdError if a member name points outside of the archive."""
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
        raise UbhpdError(f"{archive} is refused: the name {name!r} in it leads outside; get the official archive.")


def refuse_implausible(archive: str, name: str, size: int, packed: int, total: int, on_disk: int) -> None:
    """Raise UbhpdError if a member has an impossible size or the compression ratio of a decompression bomb.

    Args:
        archive: path of the archive.
        name: of the member.
        size: of the member, unpacked, in bytes.
        packed: compressed size of the member, or of the whole archive if it is compressed as a whole.
        total: unpacked size of all members up to and including this one.
        on_disk: size of the archive file.
    """
    if size < 0 or size > _MAX_MEMBER or total > _MAX_TOTAL or _is_too_dense(size, packed):
        raise UbhpdError(
            f"{archive} is refused: {name!r} claims {size:,} bytes of {packed:,} packed; get the official archive."
        )
    if _is_too_dense(total, max(on_disk, 1)):
        raise UbhpdError(
            f"{archive} is refused: its members up to {name!r} claim {total:,} bytes in an archive of {on_disk:,}; "
            "get the official archive."
        )


def _is_too_dense(size: int, packed: int) -> bool:
    return size / packed > (100 if size > _MAX_DENSE else _MAX_RATIO)


def _open_zip(archive: str) -> tuple[zipfile.ZipFile, IO[bytes] | None]:
    """Return a zip, and the file to close with it if there is one.

    A name that is marked as UTF-8 but is not affects only its member: it is read as CP437, like an unmarked name.
    """
    try:
        return zipfile.ZipFile(archive), None
    except UnicodeDecodeError:
        file = _WithoutFalseUtf8(io.FileIO(archive))
        opened = zipfile.ZipFile(file)
        file.is_directory_read = True
        return opened, file


class _WithoutFalseUtf8(io.BufferedReader):
    """A zip file whose central directory, when read, does not mark names as UTF-8 that are not."""

    is_directory_read = False

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if self.is_directory_read or not data.startswith(_DIRECTORY_ENTRY):
            return data
        directory, position = bytearray(data), 0
        while directory.startswith(_DIRECTORY_ENTRY, position) and position + 46 <= len(directory):
            name, extra, comment = struct.unpack_from("<HHH", directory, position + 28)
            try:
                directory[position + 46 : position + 46 + name].decode()
            except UnicodeDecodeError:
                directory[position + 9] &= ~0x08  # bit 11 of the flags: the name is UTF-8
            position += 46 + name + extra + comment
        return bytes(directory)


_LOG = logging.getLogger(__name__)

_PEEK_MEMBERS = 400
_MAX_INDEX = 1 << 30  # bytes; AFLW's is about 3 MB
# Bytes at the start of a file of each kind that a spool keeps.
_BULK_HEAD = {".png": 4096, ".bin": 4096, ".jpg": 65_536, ".jpeg": 65_536}
_NAMES_THE_NEXT = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)
_MAX_LONG_NAME = 1 << 20
_MAX_PADDING = 16 << 20  # between the end-of-archive blocks of a compressed tar and its checksum

OnProgress = Callable[[int, int], None]  # bytes done, bytes in all


class TarIndex(NamedTuple):
    """The regular files of a tar with the position of their bytes, and how many members of other kinds it has."""

    members: dict[str, list[int]]
    left_out: dict[str, int]


class TarTree(ArchiveTree):
    """A .tar read in place, or a compressed one through its spool.

    The index maps a member to (offset, stored bytes, size) in the data file, which is the tar itself or the spool.
    For a spool it also gives the CRC-32 of the stored bytes.
    Of a member that is stored in part, the spool holds the first bytes followed by the last twelve.
    """

    def __init__(self, archive: str, root: str, data_file: str, index: TarIndex) -> None:
        self._index = index.members
        self._data = open(data_file, "rb")  # noqa: SIM115 - closed with the tree
        super().__init__(archive, root, index.members, index.left_out)

    def __del__(self) -> None:
        if hasattr(self, "_data"):
            self._data.close()

    def read(self, path: str, limit: int = LABEL_LIMIT) -> bytes:
        offset, stored, size, *checksum = self._find(path)
        refuse_large(size, limit)
        if stored < size:
            raise OSError("only its head was kept from the compressed archive; build with --check-images")
        data = os.pread(self._data.fileno(), size, offset)
        if checksum and zlib.crc32(data) != checksum[0]:
            raise OSError(f"damaged in {self._data.name}, which holds what was unpacked; remove that file")
        return data

    def probe(self, path: str, head: int) -> Probe:
        offset, stored, size, *_ = self._find(path)
        tail = min(TAIL_BYTES, stored)
        first = min(head, size) if stored == size else stored - tail
        fd = self._data.fileno()
        return Probe(os.pread(fd, first, offset), os.pread(fd, tail, offset + stored - tail), size)

    def _find(self, path: str) -> list[int]:
        try:
            return self._index[self._prefix + path]
        except KeyError:
            raise FileNotFoundError("no such file in the archive") from None

    def _copy(self, path: str, to: IO[bytes]) -> None:
        offset, stored, size, *_ = self._find(path)
        if stored < size:
            raise OSError("only its head was kept from the compressed archive")
        for start in range(0, size, 1 << 20):
            to.write(os.pread(self._data.fileno(), min(1 << 20, size - start), offset + start))


class _PeekTree(ArchiveTree):
    """The listing of the first members of a tar: enough to recognise the dataset, but no content can be read."""

    def read(self, path: str, limit: int = LABEL_LIMIT) -> bytes:
        raise OSError("not read yet")

    def probe(self, path: str, head: int) -> Probe:
        raise OSError("not read yet")

    def _copy(self, path: str, to: IO[bytes]) -> None:
        raise OSError("not read yet")


def tar_fault(archive: str) -> str | None:
    """Return why the file is not a tar, compressed or not, or None."""
    if _starts(archive) == _ZSTD_FRAME and _zstd_opener() is None:
        return "is compressed with Zstandard: pip install zstandard, or decompress it with zstd -d"
    try:
        with _opened(archive):
            return None
    except tarfile.ReadError:
        return "is not a tar archive: get it again, or move it away"


def peek_tar(archive: str) -> Tree:
    """Return the listing of a tar's first members.

    Raises:
        UbhpdError: the archive is damaged there, or unsafe.
    """
    names: list[str] = []
    try:
        with _opened(archive) as (tar, _):
            for name, member in _checked_members(archive, tar):
                names.append(name + "/" * member.isdir())
                if len(names) == _PEEK_MEMBERS:
                    break
    except (*DAMAGED, OSError) as error:
        raise UbhpdError(f"Cannot read {archive}: {error}; download it again.") from None
    return _PeekTree(archive, "", names)


def open_tar(place: str, root: str, spool_dir: str | None, keep_whole: bool, on_progress: OnProgress | None) -> TarTree:
    """Return the tree of a tar; a compressed one is decompressed once unless a valid spool exists.

    Raises:
        UbhpdError: the archive is damaged or unsafe, or its spool cannot be written.
    """
    compressed = not _is_plain_tar(place)
    identity = f"{os.path.abspath(place)} {file_identity(place)} {keep_whole}"
    stem = Path(spool_dir or tempfile.gettempdir(), hashlib.sha256(identity.encode()).hexdigest()[:16])
    spool = stem.with_suffix(".spool")
    index_file = stem.with_suffix(".index.json")
    # Only the planning process verifies the whole spool; a worker verifies each member that it reads.
    index = _stored_index(index_file, spool if compressed else None, thorough=on_progress is not None)
    if index is None:
        try:
            index = _index_tar(place, spool if compressed else None, keep_whole, on_progress)
            _write_index(index, index_file)
        except DAMAGED as error:
            raise UbhpdError(f"Cannot read {place} to its end: {error}; download it again.") from None
        except OSError as error:
            raise UbhpdError(f"Cannot read {place} or write what is kept of it in {stem.parent}: {error}.") from None
    return TarTree(place, root, str(spool) if compressed else place, index)


def _stored_index(path: Path, spool: Path | None, thorough: bool) -> TarIndex | None:
    """Return the index that an earlier run stored; None if it is absent or if the index or the spool is damaged."""
    if not path.exists() or (spool is not None and not spool.exists()):
        return None
    try:
        content = read_json(path, "it is made again", _MAX_INDEX)
        members, left_out = content["members"], content["left_out"]
        end = max((offset + stored for offset, stored, *_ in members.values()), default=0)
        is_whole = content["sha256"] == _index_hash([members, left_out]) and (
            spool is None or spool.stat().st_size == end
        )
        if is_whole and not (spool is not None and thorough and _has_damaged_member(spool, members)):
            return TarIndex(cast(dict[str, list[int]], members), cast(dict[str, int], left_out))
    except (UbhpdError, OSError, KeyError, TypeError, ValueError, AttributeError):
        pass
    _LOG.warning(f"{path} or its spool is damaged: the archive is read again.")
    return None


def _has_damaged_member(spool: Path, members: dict[str, list[int]]) -> bool:
    with spool.open("rb") as file:
        for offset, stored, _, checksum in members.values():
            crc = 0
            for start in range(0, stored, 1 << 20):
                crc = zlib.crc32(os.pread(file.fileno(), min(1 << 20, stored - start), offset + start), crc)
            if crc != checksum:
                return True
    return False


def _write_index(index: TarIndex, path: Path) -> None:
    with replacing(path) as part:
        part.write_text(json.dumps({**index._asdict(), "sha256": _index_hash(list(index))}), encoding="utf-8")


def _index_hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


class _Member(tarfile.TarInfo):
    """A member header. A damaged one is an error here, while tarfile takes it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _Member:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the zero block that ends every tar
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"damaged or missing member header ({error})") from None

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or (member.type in _NAMES_THE_NEXT and member.size > _MAX_LONG_NAME):
            raise tarfile.ReadError(f"impossible size {member.size} in a member header")
        return member


def _index_tar(place: str, spool: Path | None, keep_whole: bool, on_progress: OnProgress | None) -> TarIndex:
    """Return the position of each member's bytes; write the spool in the same pass if one is given."""
    if spool is None:
        return _index_members(place, None, keep_whole, on_progress)
    with replacing(spool) as part, open(part, "wb") as out:
        return _index_members(place, out, keep_whole, on_progress)


def _index_members(place: str, out: IO[bytes] | None, keep_whole: bool, on_progress: OnProgress | None) -> TarIndex:
    index: dict[str, list[int]] = {}
    left_out: Counter[str] = Counter()
    packed = os.path.getsize(place)
    with _opened(place) as (tar, raw):
        for name, member in _checked_members(place, tar):
            if member.islnk() and (target := index.get(_clean_name(member.linkname))):
                index[name] = target  # another name of a file in the archive
                continue
            if not member.isreg():  # links that lead elsewhere and devices are never followed
                if not member.isdir():
                    left_out[_KINDS.get(member.type, _OTHER_KIND)] += 1
                continue
            if out is None:
                if member.issparse():
                    raise UbhpdError(f"{place} is refused: {name!r} in it is stored with holes; pack it without -S.")
                index[name] = [member.offset_data, member.size, member.size]
                continue
            content = tar.extractfile(member)
            assert content is not None  # a regular member always has content
            start = out.tell()
            stored, checksum = _spool_member(content, member.size, name, keep_whole, out)
            index[name] = [start, stored, member.size, checksum]
            if on_progress:
                on_progress(raw.tell(), packed)
        if out is not None and tar.fileobj is not None:
            tar.fileobj.read(_MAX_PADDING)  # up to the checksum, which is verified there
    return TarIndex(index, dict(left_out))


def _checked_members(place: str, tar: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Yield the members of a tar with their cleaned names; UbhpdError at the first that is unsafe."""
    packed, total = os.path.getsize(place), 0
    for member in tar:
        name = _clean_name(member.name)
        refuse_escape(place, name)
        total += member.size
        refuse_implausible(place, name, member.size, max(packed, 1), total, packed)
        yield name, member


@contextmanager
def _opened(place: str) -> Iterator[tuple[tarfile.TarFile, IO[bytes]]]:
    """Open a tar, compressed or not, and the file that it is read from."""
    with open(place, "rb") as raw:
        start, zstd, isal = _starts(place), _zstd_opener(), _isal_opener()
        source: Any = raw
        mode: Literal["r", "r:", "r|"] = "r"
        if start == _ZSTD_FRAME and zstd is not None:
            source, mode = zstd(raw), "r|"
        elif start[:2] == _GZIP_START and isal is not None:
            source, mode = isal(raw), "r:"
        with tarfile.open(fileobj=source, mode=mode, tarinfo=_Member) as tar:
            yield tar, raw


def _starts(place: str) -> bytes:
    with open(place, "rb") as file:
        return file.read(len(_ZSTD_FRAME))


def _isal_opener() -> Callable[[IO[bytes]], Any] | None:
    """Return what decompresses gzip by Intel's ISA-L, which is faster, if the package isal is installed."""
    with suppress(ImportError):
        igzip = importlib.import_module("isal.igzip")
        error = importlib.import_module("isal.isal_zlib").error
        return lambda raw: io.BufferedReader(_Decompressed(igzip.IGzipFile(fileobj=raw), error), 1 << 18)
    return None


def _zstd_opener() -> Callable[[IO[bytes]], Any] | None:
    """Return what decompresses Zstandard: Python's own module from 3.14 on, or the package zstandard if installed."""
    with suppress(ImportError):
        own = importlib.import_module("compression.zstd")
        return lambda raw: _Decompressed(own.ZstdFile(raw), own.ZstdError)
    with suppress(ImportError):
        package = importlib.import_module("zstandard")
        return lambda raw: _Decompressed(
            package.ZstdDecompressor().stream_reader(raw, read_across_frames=True), package.ZstdError
        )
    return None


class _Decompressed(io.RawIOBase):
    """A stream that raises tarfile.ReadError where its decompressor raises an error of its own."""

    def __init__(self, stream: Any, error: type[Exception]) -> None:
        self._stream = stream
        self._error = error

    def readable(self) -> bool:
        return True

    seekable = readable

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except self._error as error:
            raise tarfile.ReadError(str(error)) from None
        buffer[: len(data)] = data
        return len(data)

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        try:
            return cast(int, self._stream.seek(place, whence))
        except self._error as error:
            raise tarfile.ReadError(str(error)) from None

    def tell(self) -> int:
        return cast(int, self._stream.tell())


def _is_plain_tar(place: str) -> bool:
    """Return True if the content, not the name, shows that the tar is not compressed."""
    try:
        with tarfile.open(place, "r:"):
            return True
    except tarfile.ReadError:
        return False


def _spool_member(content: IO[bytes], size: int, name: str, keep_whole: bool, out: IO[bytes]) -> tuple[int, int]:
    """Write the bytes of a member that the spool keeps; return their number and CRC-32."""
    head = _BULK_HEAD.get(PurePosixPath(name).suffix.lower(), size)
    checksum = 0
    if keep_whole or size <= head + TAIL_BYTES:
        while block := content.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
            out.write(block)
        return size, checksum
    first = content.read(head)
    if _is_header_longer(first):
        rest = content.read(size - head)
        out.write(first + rest)
        return size, zlib.crc32(rest, zlib.crc32(first))
    for start in range(head, size - TAIL_BYTES, 1 << 20):  # a stream cannot seek
        content.read(min(1 << 20, size - TAIL_BYTES - start))
    last = content.read(TAIL_BYTES)
    out.write(first + last)
    return head + TAIL_BYTES, zlib.crc32(first + last)


def _is_header_longer(first: bytes) -> bool:
    """Return True if an image states its size only after these first bytes, as with a large EXIF block."""
    try:
        size_from_header(first)
    except HeaderTooShort:
        return True
    except ImageError:
        pass
    return False


def _clean_name(name: str) -> str:
    """Return a member name with slashes, which some Windows tools write as backslashes, and without . and empty parts.

    A leading slash stays, and that behind a folder, too.
    """
    name = re.sub(r"^(\./)+", "", name.replace("\\", "/"))
    return re.sub(r"/(\.?/)+", "/", name)
