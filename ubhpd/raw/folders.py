"""Trees of raw files: the interface, a folder on disk, and several trees merged into one."""

# ruff: noqa: D102 - the public methods implement Tree, which documents them

from __future__ import annotations

import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, NamedTuple

from ubhpd.core.files import file_identity

LABEL_LIMIT = 64 << 20  # bytes; real label files are far smaller
TAIL_BYTES = 12

_FLAGS = os.O_RDONLY | os.O_NONBLOCK  # so that opening a named pipe does not block the build
_FIRST_READ = 16_384  # more than nearly every label file has


class Entry(NamedTuple):
    """A name in a folder of a tree."""

    name: str
    is_dir: bool


class Probe(NamedTuple):
    """The first bytes of a file, its last twelve (fewer if it is shorter) and its size."""

    head: bytes
    tail: bytes
    size: int


class Tree(ABC):
    """Files below a root folder. Reading raises OSError with a short reason, which builders turn into a Drop."""

    @abstractmethod
    def listdir(self, path: str) -> list[Entry]:
        """Return the entries of a folder sorted by name; "" is the root, a missing folder is empty."""

    @abstractmethod
    def read(self, path: str, limit: int = LABEL_LIMIT) -> bytes:
        """Return the bytes of a file; OSError if it has more than `limit`."""

    @abstractmethod
    def probe(self, path: str, head: int) -> Probe:
        """Return the first `head` bytes of a file (archives may give more), its last ones and its size."""

    def head(self, path: str, size: int) -> bytes:
        """Return at least the first `size` bytes of a file, or all of a shorter one."""
        return self.probe(path, size).head

    @abstractmethod
    def identity(self, path: str) -> str:
        """Return a text that changes whenever the content of the file does, see `ubhpd.core.files.file_identity`."""

    def left_out(self) -> dict[str, int]:
        """Return how many members of which kind an archive has that are no files: kind -> number."""
        return {}

    @contextmanager
    def local_path(self, path: str) -> Iterator[str]:
        """Yield a path on disk that has the content of the file, for libraries that open files themselves."""
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
                with os.scandir(self._prefix + path) as scan:
                    listed = list(scan)
            except (FileNotFoundError, NotADirectoryError):
                listed = []
            try:
                names = sorted([(e.name, e.is_dir()) for e in listed])
            except OSError:  # a symbolic link that points to itself
                names = sorted([(e.name, _is_dir(e)) for e in listed])
            self._listings[path] = list(map(Entry._make, names))
        return self._listings[path]

    def read(self, path: str, limit: int = LABEL_LIMIT) -> bytes:
        fd = os.open(self._prefix + path, _FLAGS)
        try:
            data = os.read(fd, _FIRST_READ)
            if len(data) == _FIRST_READ:
                data = self._read_rest(fd, data, limit)
        finally:
            os.close(fd)
        refuse_large(len(data), limit)
        return data

    def probe(self, path: str, head: int) -> Probe:
        head = max(head, TAIL_BYTES)
        fd = os.open(self._prefix + path, _FLAGS)
        try:
            first = os.read(fd, head)
            if len(first) < head:  # the file is not longer
                return Probe(first, first[-TAIL_BYTES:], len(first))
            size = os.lseek(fd, -TAIL_BYTES, os.SEEK_END) + TAIL_BYTES  # takes half the time of fstat
            tail = os.read(fd, TAIL_BYTES)
        finally:
            os.close(fd)
        return Probe(first, tail, size)

    def head(self, path: str, size: int) -> bytes:
        fd = os.open(self._prefix + path, _FLAGS)
        try:
            return os.read(fd, size)
        finally:
            os.close(fd)

    def identity(self, path: str) -> str:
        return file_identity(self._prefix + path)

    @contextmanager
    def local_path(self, path: str) -> Iterator[str]:
        yield self._prefix + path

    def _copy(self, path: str, to: IO[bytes]) -> None:
        with open(self._prefix + path, "rb") as source:
            shutil.copyfileobj(source, to)

    @staticmethod
    def _read_rest(fd: int, data: bytes, limit: int) -> bytes:
        refuse_large(os.fstat(fd).st_size, limit)
        pieces, size = [data], len(data)
        while piece := os.read(fd, 1 << 20):
            pieces.append(piece)
            size += len(piece)
            refuse_large(size, limit)  # a device reports no size and may never end
        return b"".join(pieces)


class UnionTree(Tree):
    """Several trees merged into one; a file is taken from the first tree that has it."""

    def __init__(self, trees: list[Tree]) -> None:
        self._trees = trees
        self._holders: dict[str, dict[str, Tree]] = {}  # folder -> file name -> tree that provides it

    def listdir(self, path: str) -> list[Entry]:
        merged = {entry.name: entry for tree in reversed(self._trees) for entry in tree.listdir(path)}
        return sorted(merged.values())

    def read(self, path: str, limit: int = LABEL_LIMIT) -> bytes:
        return self._holder(path).read(path, limit)

    def probe(self, path: str, head: int) -> Probe:
        return self._holder(path).probe(path, head)

    def identity(self, path: str) -> str:
        return self._holder(path).identity(path)

    def left_out(self) -> dict[str, int]:
        total: Counter[str] = Counter()
        for tree in self._trees:
            total.update(tree.left_out())
        return dict(total)

    @contextmanager
    def local_path(self, path: str) -> Iterator[str]:
        with self._holder(path).local_path(path) as local:
            yield local

    def _holder(self, path: str) -> Tree:
        folder, _, name = path.rpartition("/")
        if folder not in self._holders:
            self._holders[folder] = {e.name: tree for tree in reversed(self._trees) for e in tree.listdir(folder)}
        return self._holders[folder].get(name, self._trees[0])

    def _copy(self, path: str, to: IO[bytes]) -> None:
        self._holder(path)._copy(path, to)


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def refuse_large(size: int, limit: int) -> None:
    """Raise OSError if a file has more bytes than the reader allows."""
    if size > limit:
        raise OSError(f"has {size} bytes, more than the {limit} expected at most")
