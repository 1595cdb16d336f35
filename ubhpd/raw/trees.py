"""Opens raw downloads: a folder, a .zip, a .tar, a .tgz, or several of them merged into one tree.

A `Tree` lists and reads files below a root by relative paths with slashes. Nothing is unpacked into the user's
folders. `ubhpd.raw.folders` holds the interface and `ubhpd.raw.archives` the archives.
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
    """How to open a tree, in this process, another process or on another machine."""

    parts: tuple[tuple[str, str], ...]  # (folder or archive, root inside it); earlier parts take precedence
    spool_dir: str | None = None
    keep_whole: bool = False  # keep complete images in the spool, which --check-images needs

    @property
    def where(self) -> str:
        """Return the places as text for messages."""
        return " + ".join(f"{place}:{root}" if root else place for place, root in self.parts)


def is_archive(path: str) -> bool:
    """Return True if the name has the suffix of an archive that this module reads."""
    return path.lower().endswith(ARCHIVE_SUFFIXES)


def archive_fault(archive: str) -> str | None:
    """Return why the file is not an archive of the kind that its name says, or None. Often it is a saved web page."""
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
