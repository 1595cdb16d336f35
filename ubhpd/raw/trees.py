"""Raw downloads as people have them: a folder, a .zip, a .tar, a .tgz, or several archives seen as one.

A `Tree` lists and reads files below a root by relative, slash-separated paths. Nothing is unpacked into the
user's folders. `ubhpd.raw.folders` holds the interface, `ubhpd.raw.archives` and `ubhpd.raw.archives` the rest.
"""

from __future__ import annotations

import os
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
    "is_archive",
    "open_tree",
    "peek",
]

ARCHIVE_SUFFIXES = (".zip", ".tgz", ".tar.gz", ".tar")


class TreeSpec(NamedTuple):
    """How to open a tree, here, in another process or on another machine."""

    parts: tuple[tuple[str, str], ...]  # (folder or archive, root inside it); an earlier part hides a later
    spool_dir: str | None = None
    keep_whole: bool = False  # keep images whole in a spool, as --check-images needs them

    @property
    def where(self) -> str:
        """Return the places as a person would write them."""
        return " + ".join(f"{place}:{root}" if root else place for place, root in self.parts)


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
        return tar_fault(archive)
    except (*DAMAGED, OSError) as error:
        return f"cannot be read ({error})"


def open_tree(spec: TreeSpec, on_progress: OnProgress | None = None) -> Tree:
    """Return the tree of a spec. The first opening of a compressed tar reads through all of it.

    Raises:
        UbhpdError: a place is missing, damaged or unsafe.
    """
    trees = [_open_part(place, root, spec, on_progress) for place, root in spec.parts]
    return trees[0] if len(trees) == 1 else UnionTree(trees)


def peek(place: str) -> Tree:
    """Return a tree good for recognising a dataset: of a tar only its first members are listed."""
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
