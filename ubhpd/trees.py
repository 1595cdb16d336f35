"""Raw downloads as people have them: a folder, a .zip, a .tar, a .tgz, or several archives seen as one.

A `Tree` lists and reads files below a root by relative, slash-separated paths. Nothing is unpacked into the
user's folders. An archive is refused as a whole if a name in it leads outside or its sizes are absurd.

A compressed tar cannot be read at random, so it is run through once and a spool is kept beside the build:
label files whole, and of each picture the head and the tail that a build looks at.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from ubhpd.errors import UbhpdError

ARCHIVE_SUFFIXES = (".zip", ".tgz", ".tar.gz", ".tar")
LABEL_LIMIT = 64 << 20  # no label file comes near this

_TAIL_BYTES = 12
_PEEK_MEMBERS = 400
_BULK_HEAD = {".png": 4096, ".bin": 4096, ".jpg": 65_536, ".jpeg": 65_536}  # kept of each in a spool
_MAX_MEMBER = 64 << 30
_MAX_TOTAL = 4 << 40
_MAX_RATIO = 1100  # deflate itself ends at 1032
_MAX_DENSE_MEMBER = 256 << 20  # above this size a ratio over 100 is a bomb, not a picture
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError)

OnProgress = Callable[[int, int], None]  # bytes done, bytes in all


class Entry(NamedTuple):
    """A name in a folder of a tree."""

    name: str
    is_dir: bool


class Probe(NamedTuple):
    """The first bytes of a file, its last twelve (fewer if it is shorter) and its size."""

    head: bytes
    tail: bytes
    size: int


class TreeSpec(NamedTuple):
    """How to open a tree, here, in another process or on another machine."""

    parts: tuple[tuple[str, str], ...]  # (folder or archive, root inside it); an earlier part hides a later
    spool_dir: str | None = None
    keep_whole: bool = False  # keep pictures whole in a spool, as --check-images needs them

    @property
    def where(self) -> str:
        """Return the places as a person would write them."""
        return " + ".join(f"{place}:{root}" if root else place for place, root in self.parts)


class Tree(ABC):
    """Files below a root. Reading raises OSError with a plain reason; builders turn it into a Drop."""

    @abstractmethod
    def listdir(self, path: str) -> list[Entry]:
        """Return the entries of a folder sorted by name; "" is the root, a missing folder is empty."""

    @abstractmethod
    def read(self, path: str, limit: int = LABEL_LIMIT) -> bytes:
        """Return the bytes of a file; OSError if it has more than `limit`."""

    @abstractmethod
    def probe(self, path: str, head: int) -> Probe:
        """Return the first `head` bytes of a file (archives may give more), its last ones and its size."""

    @abstractmethod
    def changed_at(self, path: str) -> float:
        """Return when the file last changed, in seconds since 1970; infinity if that cannot be told."""

    @contextmanager
    def local_path(self, path: str) -> Iterator[str]:
        """Give a path on disk with the content of the file, for libraries that open files themselves."""
        with tempfile.NamedTemporaryFile(suffix=PurePosixPath(path).suffix) as copy:
            self._copy(path, copy)
            copy.flush()
            yield copy.name

    @abstractmethod
    def _copy(self, path: str, to: IO[bytes]) -> None: ...


class FolderTree(Tree):
    """A folder on disk."""

    def __init__(self, root: str) -> None:
        self._prefix = os.path.join(root, "")
        self._listings: dict[str, list[Entry]] = {}

    def listdir(self, path: str) -> list[Entry]:
        if path not in self._listings:
            try:
                with os.scandir(self._prefix + path) as found:
                    entries = [Entry(e.name, e.is_dir()) for e in found]
            except (FileNotFoundError, NotADirectoryError):
                entries = []
            self._listings[path] = sorted(entries)
        return self._listings[path]

    def read(self, path: str, limit: int = LABEL_LIMIT) -> bytes:
        fd = os.open(self._prefix + path, os.O_RDONLY)
        try:
            data = os.read(fd, 65_536)
            if len(data) == 65_536:
                data = self._read_rest(fd, data, limit)
        finally:
            os.close(fd)
        return data

    def probe(self, path: str, head: int) -> Probe:
        fd = os.open(self._prefix + path, os.O_RDONLY)
        try:
            first = os.read(fd, head)
            size = os.fstat(fd).st_size
            tail = os.pread(fd, _TAIL_BYTES, max(size - _TAIL_BYTES, 0))
        finally:
            os.close(fd)
        return Probe(first, tail, size)

    def changed_at(self, path: str) -> float:
        try:
            status = os.stat(self._prefix + path)
        except OSError:
            return float("inf")
        return max(status.st_mtime, status.st_ctime)

    @contextmanager
    def local_path(self, path: str) -> Iterator[str]:
        yield self._prefix + path

    def _copy(self, path: str, to: IO[bytes]) -> None:
        with open(self._prefix + path, "rb") as source:
            shutil.copyfileobj(source, to)

    @staticmethod
    def _read_rest(fd: int, data: bytes, limit: int) -> bytes:
        size = os.fstat(fd).st_size
        if size > limit:
            raise OSError(f"has {size} bytes, more than the {limit} expected at most")
        pieces = [data]
        while piece := os.read(fd, 1 << 20):
            pieces.append(piece)
        return b"".join(pieces)


class _ArchiveTree(Tree):
    """What zip and tar share: a listing made from member names, paths below a root inside the archive."""

    def __init__(self, archive: str, root: str, names: Iterable[str]) -> None:
        self._archive = archive
        self._prefix = f"{root}/" if root else ""
        self._folders: dict[str, dict[str, bool]] = {"": {}}
        for name in names:
            _refuse_escape(archive, name)
            if name.startswith(self._prefix):
                self._add(name[len(self._prefix) :].rstrip("/"), is_dir=name.endswith("/"))

    def listdir(self, path: str) -> list[Entry]:
        return sorted(Entry(name, is_dir) for name, is_dir in self._folders.get(path, {}).items())

    def changed_at(self, path: str) -> float:
        return _changed_at(self._archive)

    def _add(self, path: str, is_dir: bool) -> None:
        while path:
            folder, _, name = path.rpartition("/")
            siblings = self._folders.setdefault(folder, {})
            if name in siblings:
                return
            siblings[name] = is_dir
            path, is_dir = folder, True


class ZipTree(_ArchiveTree):
    """A .zip read in place."""

    def __init__(self, archive: str, root: str) -> None:
        try:
            self._zip = zipfile.ZipFile(archive)
        except (*_DAMAGED, OSError) as error:
            raise UbhpdError(f"Cannot open {archive}: {error}; download it again.") from None
        infos = self._zip.infolist()
        total = sum(i.file_size for i in infos)
        for info in infos:
            _refuse_absurd(archive, info.filename, info.file_size, max(info.compress_size, 1), total)
        super().__init__(archive, root, (i.filename for i in infos))

    def read(self, path: str, limit: int = LABEL_LIMIT) -> bytes:
        info = self._info(path)
        if info.file_size > limit:
            raise OSError(f"has {info.file_size} bytes, more than the {limit} expected at most")
        try:
            return self._zip.read(info)
        except _DAMAGED as error:
            raise OSError(f"damaged inside the archive ({error})") from None

    def probe(self, path: str, head: int) -> Probe:
        data = self.read(path)  # whole: the checksum of a zip member covers all of it
        return Probe(data, data[-_TAIL_BYTES:], len(data))

    def _info(self, path: str) -> zipfile.ZipInfo:
        try:
            return self._zip.getinfo(self._prefix + path)
        except KeyError:
            raise FileNotFoundError("no such file in the archive") from None

    def _copy(self, path: str, to: IO[bytes]) -> None:
        try:
            with self._zip.open(self._info(path)) as source:
                shutil.copyfileobj(source, to)
        except _DAMAGED as error:
            raise OSError(f"damaged inside the archive ({error})") from None


class TarTree(_ArchiveTree):
    """A .tar read in place, or a compressed one through its spool.

    The index maps a member to (offset, bytes stored, size) in the data file: the tar itself, or the spool.
    A member stored in part holds its head and then its last twelve bytes.
    """

    def __init__(self, archive: str, root: str, data_file: str, index: dict[str, list[int]]) -> None:
        self._index = index
        self._data = open(data_file, "rb")  # noqa: SIM115 - lives as long as the tree
        super().__init__(archive, root, index)

    def __del__(self) -> None:
        if hasattr(self, "_data"):
            self._data.close()

    def read(self, path: str, limit: int = LABEL_LIMIT) -> bytes:
        offset, stored, size = self._find(path)
        if size > limit:
            raise OSError(f"has {size} bytes, more than the {limit} expected at most")
        if stored < size:
            raise OSError("only its head was kept from the compressed archive; build with --check-images")
        return os.pread(self._data.fileno(), size, offset)

    def probe(self, path: str, head: int) -> Probe:
        offset, stored, size = self._find(path)
        tail = min(_TAIL_BYTES, stored)
        first = min(head, size) if stored == size else stored - tail
        fd = self._data.fileno()
        return Probe(os.pread(fd, first, offset), os.pread(fd, tail, offset + stored - tail), size)

    def _find(self, path: str) -> list[int]:
        try:
            return self._index[self._prefix + path]
        except KeyError:
            raise FileNotFoundError("no such file in the archive") from None

    def _copy(self, path: str, to: IO[bytes]) -> None:
        offset, stored, size = self._find(path)
        if stored < size:
            raise OSError("only its head was kept from the compressed archive")
        for start in range(0, size, 1 << 20):
            to.write(os.pread(self._data.fileno(), min(1 << 20, size - start), offset + start))


class UnionTree(Tree):
    """Several trees as one; a file is taken from the first that has it."""

    def __init__(self, trees: list[Tree]) -> None:
        self._trees = trees

    def listdir(self, path: str) -> list[Entry]:
        merged = {entry.name: entry for tree in reversed(self._trees) for entry in tree.listdir(path)}
        return sorted(merged.values())

    def read(self, path: str, limit: int = LABEL_LIMIT) -> bytes:
        return self._holder(path).read(path, limit)

    def probe(self, path: str, head: int) -> Probe:
        return self._holder(path).probe(path, head)

    def changed_at(self, path: str) -> float:
        return self._holder(path).changed_at(path)

    @contextmanager
    def local_path(self, path: str) -> Iterator[str]:
        with self._holder(path).local_path(path) as local:
            yield local

    def _holder(self, path: str) -> Tree:
        folder, _, name = path.rpartition("/")
        for tree in self._trees:
            if any(entry.name == name for entry in tree.listdir(folder)):
                return tree
        return self._trees[0]

    def _copy(self, path: str, to: IO[bytes]) -> None:
        self._holder(path)._copy(path, to)


class _PeekTree(_ArchiveTree):
    """The listing of a compressed tar's first members: enough to recognise it, nothing to read."""

    def read(self, path: str, limit: int = LABEL_LIMIT) -> bytes:
        raise OSError("not read yet")

    def probe(self, path: str, head: int) -> Probe:
        raise OSError("not read yet")

    def _copy(self, path: str, to: IO[bytes]) -> None:
        raise OSError("not read yet")


def is_archive(path: str) -> bool:
    """Return True if the name is that of an archive this module reads."""
    return path.lower().endswith(ARCHIVE_SUFFIXES)


def archive_fault(archive: str) -> str | None:
    """Return why the file is not the archive its name promises, or None. A saved web page is the usual case."""
    try:
        with open(archive, "rb") as file:
            head = file.read(512)
        if head.lstrip()[:1] == b"<":
            return "is a web page saved under that name (a login or quota page), not an archive"
        if archive.lower().endswith(".zip"):
            return None if zipfile.is_zipfile(archive) else "is not a zip archive, or is truncated"
        return None if tarfile.is_tarfile(archive) else "is not a tar archive"
    except (*_DAMAGED, OSError) as error:
        return f"cannot be read ({error})"


def open_tree(spec: TreeSpec, on_progress: OnProgress | None = None) -> Tree:
    """Return the tree of a spec. The first opening of a compressed tar reads through all of it.

    Raises:
        UbhpdError: a place is missing, damaged or unsafe.
    """
    trees = [_open_part(place, root, spec, on_progress) for place, root in spec.parts]
    return trees[0] if len(trees) == 1 else UnionTree(trees)


def peek(place: str) -> Tree:
    """Return a tree good for recognising a dataset: of a compressed tar only its first members are listed."""
    if not is_archive(place):
        return FolderTree(place)
    if fault := archive_fault(place):
        raise UbhpdError(f"{place} {fault}; download it again.")
    if place.lower().endswith(".zip"):
        return ZipTree(place, "")
    names = []
    try:
        with tarfile.open(place) as tar:
            for member in tar:
                names.append(member.name + "/" * member.isdir())
                if len(names) == _PEEK_MEMBERS:
                    break
    except (*_DAMAGED, OSError) as error:
        raise UbhpdError(f"Cannot read {place}: {error}; download it again.") from None
    return _PeekTree(place, "", map(_clean_name, names))


def _open_part(place: str, root: str, spec: TreeSpec, on_progress: OnProgress | None) -> Tree:
    if not is_archive(place):
        if not Path(place).is_dir():
            raise UbhpdError(f"{place} is not a folder: check the path.")
        return FolderTree(os.path.join(place, root))
    if fault := archive_fault(place):
        raise UbhpdError(f"{place} {fault}; download it again.")
    if place.lower().endswith(".zip"):
        return ZipTree(place, root)
    return _open_tar(place, root, spec, on_progress)


def _open_tar(place: str, root: str, spec: TreeSpec, on_progress: OnProgress | None) -> TarTree:
    compressed = not place.lower().endswith(".tar")
    status = os.stat(place)
    identity = f"{os.path.abspath(place)} {status.st_size} {status.st_mtime_ns} {spec.keep_whole}"
    stem = Path(spec.spool_dir or tempfile.gettempdir(), hashlib.sha256(identity.encode()).hexdigest()[:16])
    spool = stem.with_suffix(".spool")
    index_file = stem.with_suffix(".index.json")
    data_file = str(spool) if compressed else place
    if not index_file.exists() or (compressed and not spool.exists()):
        stem.parent.mkdir(parents=True, exist_ok=True)
        try:
            index = _index_tar(place, spool if compressed else None, spec.keep_whole, on_progress)
        except (*_DAMAGED, OSError) as error:
            raise UbhpdError(f"Cannot read {place} to its end: {error}; download it again.") from None
        _write_beside(index_file, json.dumps(index).encode())
    return TarTree(place, root, data_file, json.loads(index_file.read_bytes()))


def _index_tar(
    place: str, spool: Path | None, keep_whole: bool, on_progress: OnProgress | None
) -> dict[str, list[int]]:
    """Return where each member's bytes lie; fill the spool on the way if there is one."""
    index: dict[str, list[int]] = {}
    packed, total = os.path.getsize(place), 0
    part = spool.with_suffix(f".{os.getpid()}.part") if spool else None
    with open(place, "rb") as raw, tarfile.open(fileobj=raw) as tar, open(part or os.devnull, "wb") as out:
        for member in tar:
            name = _clean_name(member.name)
            _refuse_escape(place, name)
            if not member.isreg():  # links and devices are never followed
                continue
            total += member.size
            _refuse_absurd(place, name, member.size, packed, total)
            if part is None:
                index[name] = [member.offset_data, member.size, member.size]
                continue
            content = tar.extractfile(member)
            assert content is not None  # a regular member always has content
            index[name] = [out.tell(), _spool_member(content, member.size, name, keep_whole, out), member.size]
            if on_progress:
                on_progress(raw.tell(), packed)
    if spool and part:
        part.replace(spool)
    return index


def _spool_member(content: IO[bytes], size: int, name: str, keep_whole: bool, out: IO[bytes]) -> int:
    head = _BULK_HEAD.get(PurePosixPath(name).suffix.lower(), size)
    if keep_whole or size <= head + _TAIL_BYTES:
        shutil.copyfileobj(content, out)
        return size
    out.write(content.read(head))
    content.seek(size - _TAIL_BYTES)
    out.write(content.read(_TAIL_BYTES))
    return head + _TAIL_BYTES


def _write_beside(target: Path, data: bytes) -> None:
    part = target.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(target)


def _clean_name(name: str) -> str:
    return re.sub(r"^(\./)+", "", name)


def _refuse_escape(archive: str, name: str) -> None:
    if name.startswith("/") or "\\" in name or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
        raise UbhpdError(f"{archive} is refused: the name {name!r} in it leads outside; get the official archive.")


def _refuse_absurd(archive: str, name: str, size: int, packed: int, total: int) -> None:
    dense = size > _MAX_DENSE_MEMBER and size / packed > 100
    if size > _MAX_MEMBER or total > _MAX_TOTAL or size / packed > _MAX_RATIO or dense:
        raise UbhpdError(
            f"{archive} is refused: {name!r} claims {size:,} bytes of {packed:,} packed; get the official archive."
        )


def _changed_at(path: str) -> float:
    status = os.stat(path)
    return max(status.st_mtime, status.st_ctime)
