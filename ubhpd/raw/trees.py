"""Opens raw downloads: a folder, a .zip, a .tar, compressed or not, or several of them merged into one tree.

A `Tree` lists and reads files below a root by relative paths with slashes. Nothing is unpacked into the user's
folders. `ubhpd.raw.folders` holds the interface and `ubhpd.raw.archives` the archives.
"""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

from ubhpd.core.errors import UbhpdError
from ubhpd.raw.archives import DAMAGED, OnProgress, ZipTree, open_tar, peek_tar, tar_fault
from ubhpd.raw.folders import LABEL_LIMIT, Entry, FolderTree, Probe, Tree, UnionTree

__all__ = [
    "LABEL_LIMIT",
    "Entry",
    "FolderTree",
    "Probe",
    "Tree",
    "TreeSpec",
    "UnionTree",
    "archive_fault",
    "foreign_archive",
    "is_archive",
    "is_compressed_tar",
    "open_tree",
    "peek",
]

_COMPRESSED_TAR = (".tgz", ".tar.gz", ".txz", ".tar.xz", ".tar.bz2", ".tbz2", ".tar.zst", ".tzst")
ARCHIVE_SUFFIXES = (".zip", ".tar", *_COMPRESSED_TAR)

_SPLIT = re.compile(r"(.+\.(?:zip|7z|rar|tar|tgz|tar\.\w+))\.(?:\d{2,3}|a[a-z]|part\d+)", re.IGNORECASE)
_UNFINISHED = (".part", ".crdownload", ".download", ".!ut", ".aria2")
_OTHER_ARCHIVES = (".7z", ".rar", ".gz", ".xz", ".bz2", ".zst", ".lz4", ".lzma", ".z", ".iso", ".dmg", ".cab")


class TreeSpec(NamedTuple):
    """How to open a tree, in this process, another process or on another machine."""

    parts: tuple[tuple[str, str], ...]  # (folder or archive, root inside it); earlier parts take precedence
    spool_dir: str | None = None
    keep_whole: bool = False  # keep complete images in the spool, which --check-images needs

    @property
    def where(self) -> str:
        """Return the places as text for messages."""
        return " + ".join(f"{place}:{root}" if root else place for place, root in self.parts)


def is_compressed_tar(path: str) -> bool:
    """Return True if the name is that of a tar which has to be decompressed to be listed."""
    return path.lower().endswith(_COMPRESSED_TAR)


def is_archive(path: str) -> bool:
    """Return True if the name has the suffix of an archive that this module reads."""
    return path.lower().endswith(ARCHIVE_SUFFIXES)


def foreign_archive(path: str) -> tuple[str, str] | None:
    """Return the name and the remedy of an archive that this module cannot read, judged by its name; None for others.

    All parts of a split archive have one name.
    """
    lower = path.lower()
    if match := _SPLIT.fullmatch(path):
        whole = match[1]
        return f"{whole}.*", f"is an archive in parts: join them (cat {Path(whole).name}.* > {Path(whole).name})"
    if re.search(r"\.z\d{2}$", lower):
        name = Path(path).with_suffix("").name
        return f"{path[:-4]}.z*", f"is a zip in parts: join them (zip -s 0 {name}.zip --out {name}-whole.zip)"
    if lower.endswith(_UNFINISHED):
        inner = lower.rpartition(".")[0]
        return (path, "is an unfinished download: get it again") if inner.endswith(ARCHIVE_SUFFIXES) else None
    if lower.endswith(_OTHER_ARCHIVES) and not is_archive(path):
        return path, "is an archive of a kind that ubhpd does not read: unpack it there"
    return None


def archive_fault(archive: str) -> str | None:
    """Return why the file is not an archive of the kind that its name says, or None. Often it is a saved web page."""
    try:
        with open(archive, "rb") as file:
            head = file.read(512)
        if head.lstrip()[:1] == b"<":
            return "is a web page saved under that name (a login or quota page), not an archive"
        if archive.lower().endswith(".zip"):
            if os.path.exists(f"{archive[:-4]}.z01"):
                name = Path(archive).stem
                return f"is the last part of a zip in parts: join them (zip -s 0 {name}.zip --out {name}-whole.zip)"
            return None if zipfile.is_zipfile(archive) else "is not a zip archive, or is truncated"
        return tar_fault(archive)
    except (*DAMAGED, OSError) as error:
        return f"cannot be read ({error})"


def open_tree(spec: TreeSpec, on_progress: OnProgress | None = None) -> Tree:
    """Return the tree of a spec. Opening a compressed tar for the first time decompresses all of it.

    Raises:
        UbhpdError: a place does not exist, is damaged or is unsafe.
    """
    trees = [_open_part(place, root, spec, on_progress) for place, root in spec.parts]
    return trees[0] if len(trees) == 1 else UnionTree(trees)


def peek(place: str) -> Tree:
    """Return a tree that suffices to recognise a dataset; of a tar only the first members are listed."""
    if not is_archive(place):
        return FolderTree(place)
    if fault := archive_fault(place):
        raise UbhpdError(f"{place} {fault}; download it again.")
    return ZipTree(place, "") if place.lower().endswith(".zip") else peek_tar(place)


def _open_part(place: str, root: str, spec: TreeSpec, on_progress: OnProgress | None) -> Tree:
    if not is_archive(place):
        if not Path(place).is_dir():
            raise UbhpdError(f"{place} is not a folder: check the path.")
        return FolderTree(os.path.join(place, root))
    if fault := archive_fault(place):
        raise UbhpdError(f"{place} {fault}; download it again.")
    if place.lower().endswith(".zip"):
        return ZipTree(place, root)
    return open_tar(place, root, spec.spool_dir, spec.keep_whole, on_progress)
