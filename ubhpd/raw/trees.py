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
    "unnamed_archive",
]

_COMPRESSED_TAR = (".tgz", ".tar.gz", ".txz", ".tar.xz", ".tar.bz2", ".tbz2", ".tar.zst", ".tzst")
ARCHIVE_SUFFIXES = (".zip", ".tar", *_COMPRESSED_TAR)

_WEB_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|!--|\?xml|html|head|body|script|meta)", re.IGNORECASE)
_SIGNATURES = (  # first bytes, what the file is, what to do, the suffix that it should have
    (b"PK\x03\x04", "a zip archive", "name it .zip", ".zip"),
    (b"\x1f\x8b", "compressed with gzip", "name it .tar.gz", "gz"),
    (b"\xfd7zXZ\x00", "compressed with xz", "name it .tar.xz", "xz"),
    (b"BZh", "compressed with bzip2", "name it .tar.bz2", "bz2"),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard", "name it .tar.zst", "zst"),
    (b"Rar!", "a RAR archive", "unpack it there", ".rar"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it there", ".7z"),
)
_SPLIT = re.compile(r"(.+\.(?:zip|7z|rar|tar|tgz|tar\.\w+))\.(?:\d{2,3}|a[a-z]|part\d+)", re.IGNORECASE)
_UNFINISHED = (".part", ".crdownload", ".download", ".!ut", ".aria2")
_AGAIN = re.compile(r"(.+\.(?:zip|tar|tgz|tar\.\w+))\.\d", re.IGNORECASE)  # wget's name of a second download
_OTHER_ARCHIVES = (
    ".7z", ".rar", ".gz", ".xz", ".bz2", ".zst", ".lz4", ".lzma", ".z", ".iso", ".dmg", ".cab", ".zipx", ".lz", ".lzo",
    ".br", ".arj", ".squashfs", ".gpg",
)  # fmt: skip


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
    if match := _AGAIN.fullmatch(path):
        return path, f"has the name of a second download: rename it to {Path(match[1]).name} if that one is not whole"
    if lower.endswith(_UNFINISHED):
        inner = lower.rpartition(".")[0]
        return (path, "is an unfinished download: get it again") if inner.endswith(ARCHIVE_SUFFIXES) else None
    if lower.endswith(_OTHER_ARCHIVES) and not is_archive(path):
        return path, "is an archive of a kind that ubhpd does not read: unpack it there"
    return None


def archive_fault(archive: str) -> str | None:
    """Return why the file is not an archive of the kind that its name says, or None. Often it is a saved web page."""
    if os.path.exists(archive) and not os.path.isfile(archive):
        return "is no regular file: move it away"
    try:
        with open(archive, "rb") as file:
            head = file.read(512)
        if archive.lower().endswith(".zip") and os.path.exists(f"{archive[:-4]}.z01"):
            name = Path(archive).stem
            return f"is the last part of a zip in parts: join them (zip -s 0 {name}.zip --out {name}-whole.zip)"
        if _WEB_PAGE.match(head):
            return "is a web page saved under that name (a login or quota page): download it again"
        if archive.lower().endswith(".zip"):
            fault = None if zipfile.is_zipfile(archive) else "is not a zip archive, or is truncated: download it again"
        else:
            fault = tar_fault(archive)
        return (_by_content(archive, head) or fault) if fault else None
    except (*DAMAGED, OSError) as error:
        return f"cannot be read ({error}): download it again"


def unnamed_archive(path: str) -> tuple[str, str] | None:
    """Return the name and the remedy of an archive whose name has no suffix, by its first bytes; None for others."""
    if "." in os.path.basename(path):
        return None
    if not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as file:
            found = _by_content(path, file.read(16))
    except OSError:
        return None
    return None if found is None else (path, found)


def _by_content(path: str, head: bytes) -> str | None:
    """Return what an archive is by its first bytes, and the remedy; None if it has the suffix of that kind."""
    is_zip = path.lower().endswith(".zip")
    is_tar = is_archive(path) and not is_zip  # whatever a tar is compressed with, it is opened
    what = "not a zip archive but " if is_zip else "not a tar archive but " if is_tar else ""
    for start, kind, remedy, suffix in _SIGNATURES:
        if head.startswith(start) and not path.lower().endswith(suffix) and not (is_tar and "compressed" in kind):
            return f"is {what}{kind}: {remedy}"
    return None


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
        raise UbhpdError(f"{place} {fault}.")
    return ZipTree(place, "") if place.lower().endswith(".zip") else peek_tar(place)


def _open_part(place: str, root: str, spec: TreeSpec, on_progress: OnProgress | None) -> Tree:
    if not is_archive(place):
        if not Path(place).is_dir():
            raise UbhpdError(f"{place} is not a folder: check the path.")
        return FolderTree(os.path.join(place, root))
    if fault := archive_fault(place):
        raise UbhpdError(f"{place} {fault}.")
    if place.lower().endswith(".zip"):
        return ZipTree(place, root)
    return open_tar(place, root, spec.spool_dir, spec.keep_whole, on_progress)
