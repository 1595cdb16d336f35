"""What every archive has in common, what it is refused for, and the .zip, read in place.

An archive is refused as a whole if a name in it leads outside or its sizes are absurd.
"""

# ruff: noqa: D102 - the methods are those of Tree

from __future__ import annotations

import gzip
import re
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from typing import IO

from ubhpd.errors import UbhpdError
from ubhpd.raw.folders import LABEL_LIMIT, TAIL_BYTES, Entry, Probe, Tree, changed_at, refuse_large

try:
    from lzma import LZMAError
except ImportError:  # a Python built without it cannot read such archives either
    LZMAError = EOFError  # type: ignore[misc, assignment]

# What zipfile and tarfile raise on foreign bytes; ValueError is for names that do not decode.
DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, LZMAError, struct.error),
    *(EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError),
)

_MAX_MEMBER = 64 << 30
_MAX_TOTAL = 4 << 40
_MAX_RATIO = 1100  # deflate itself ends at 1032
_MAX_DENSE_MEMBER = 256 << 20  # above this size a ratio over 100 is a bomb, not a picture


class ArchiveTree(Tree):
    """What zip and tar share: a listing made from member names, paths below a root inside the archive."""

    def __init__(self, archive: str, root: str, names: Iterable[str]) -> None:
        self._archive = archive
        self._prefix = f"{root}/" if root else ""
        self._folders: dict[str, dict[str, bool]] = {"": {}}
        for name in names:
            refuse_escape(archive, name)
            if name.startswith(self._prefix):
                self._add(name[len(self._prefix) :].rstrip("/"), is_dir=name.endswith("/"))

    def listdir(self, path: str) -> list[Entry]:
        return sorted(Entry(name, is_dir) for name, is_dir in self._folders.get(path, {}).items())

    def changed_at(self, path: str) -> float:
        return changed_at(self._archive)

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
            self._zip = zipfile.ZipFile(archive)
        except (*DAMAGED, OSError) as error:
            raise UbhpdError(f"Cannot open {archive}: {error}; download it again.") from None
        infos = self._zip.infolist()
        total = sum(i.file_size for i in infos)
        for info in infos:
            refuse_absurd(archive, info.filename, info.file_size, max(info.compress_size, 1), total)
        super().__init__(archive, root, (i.filename for i in infos))

    def read(self, path: str, limit: int = LABEL_LIMIT) -> bytes:
        info = self._info(path)
        refuse_large(info.file_size, limit)
        try:
            with self._zip.open(info) as member:
                data = member.read(info.file_size)  # never inflates more than it says
        except DAMAGED as error:
            raise OSError(f"damaged inside the archive ({error})") from None
        if len(data) != info.file_size:
            raise OSError("damaged inside the archive (shorter than it says)")
        return data

    def probe(self, path: str, head: int) -> Probe:
        data = self.read(path)  # whole: the checksum of a zip member covers all of it
        return Probe(data, data[-TAIL_BYTES:], len(data))

    def _info(self, path: str) -> zipfile.ZipInfo:
        try:
            return self._zip.getinfo(self._prefix + path)
        except KeyError:
            raise FileNotFoundError("no such file in the archive") from None

    def _copy(self, path: str, to: IO[bytes]) -> None:
        try:
            with self._zip.open(self._info(path)) as source:
                shutil.copyfileobj(source, to)
        except DAMAGED as error:
            raise OSError(f"damaged inside the archive ({error})") from None


def refuse_escape(archive: str, name: str) -> None:
    """Raise UbhpdError if a name in an archive leads outside of it."""
    if name.startswith("/") or "\\" in name or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
        raise UbhpdError(f"{archive} is refused: the name {name!r} in it leads outside; get the official archive.")


def refuse_absurd(archive: str, name: str, size: int, packed: int, total: int) -> None:
    """Raise UbhpdError if a member is of an impossible size, or inflates like a bomb."""
    dense = size > _MAX_DENSE_MEMBER and size / packed > 100
    if size < 0 or size > _MAX_MEMBER or total > _MAX_TOTAL or size / packed > _MAX_RATIO or dense:
        raise UbhpdError(
            f"{archive} is refused: {name!r} claims {size:,} bytes of {packed:,} packed; get the official archive."
        )
