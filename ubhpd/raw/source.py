"""The view that a builder has of the raw files: listings, label bytes and image sizes. A failure drops the head."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ubhpd.raw.image_files import (
    HEAD_BYTES,
    HeaderTooShort,
    ImageError,
    Size,
    decode_fault,
    has_end,
    refuse_false_size,
    size_from_header,
)
from ubhpd.raw.trees import LABEL_LIMIT, Entry, Tree

TEXT_LIMIT = 8 << 20  # bytes of a label file; the largest real one, a template of BIWI, has less than 1 MB
_MAX_DEPTH = 8  # of folders that are listed; a symbolic link may lead to a folder above it
_EXAMPLES = 3
_WHOLE_HEADER = 65_536 * 4  # bytes; enough for most EXIF and colour profile blocks


RENDERED_MARK = "ubhpd-rendered.txt"  # in the root of a dataset that `ubhpd synth` made
RENDERED = "@rendered"  # at the end of the ids of its heads


class Refused(Exception):
    """A head cannot be read. `reason` is a key of records.DROP_REASONS, `detail` names the file and the fault."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Source:
    """The files of one dataset. With `thorough` every image is decoded; otherwise only its header is read."""

    def __init__(self, tree: Tree, thorough: bool = False) -> None:
        self.thorough = thorough
        self.faults: dict[str, str] = {}  # folder that could not be listed -> why
        self._tree = tree
        self._variants: dict[str, dict[str, str]] = {}  # folder -> name with a lower-case suffix -> name as listed

    def listdir(self, path: str) -> list[Entry]:
        """Return the entries of a folder sorted by name; "" is the root of the dataset, a missing folder is empty.

        A folder that cannot be listed also counts as empty, and is added to `faults`.
        """
        try:
            return self._tree.listdir(path)
        except OSError as error:
            self.faults[path] = f"cannot be listed: {_reason(error)}"
            return []

    @property
    def is_rendered(self) -> bool:
        """Whether `ubhpd synth` made this dataset: then it has the file RENDERED_MARK."""
        return any(entry.name == RENDERED_MARK and not entry.is_dir for entry in self.listdir(""))

    def actual(self, path: str) -> str:
        """Return the path as the listing spells it, which may have a suffix in upper case (image00002.JPG)."""
        folder, _, name = path.rpartition("/")
        if folder not in self._variants:
            names = [e.name for e in self.listdir(folder) if not e.is_dir]
            odd = {name: _with_lower_suffix(name) for name in names if _with_lower_suffix(name) != name}
            present = set(names) if odd else set()
            self._variants[folder] = {lower: name for name, lower in odd.items() if lower not in present}
        variant = self._variants[folder].get(name)
        return path if variant is None else f"{folder}/{variant}" if folder else variant

    def account(self, used: Iterable[str]) -> str:
        """Return a sentence in which every file below the root counts as read or as left out for a reason.

        Args:
            used: the paths that the reader of the dataset opens; those that do not exist do not count.
        """
        read_paths = {RENDERED_MARK, *used}
        read = hidden = 0
        others: list[str] = []
        other_count = too_deep = 0
        folders = [("", 0)]
        while folders:
            folder, depth = folders.pop()
            for name, is_dir in self.listdir(folder):
                path = f"{folder}/{name}" if folder else name
                if is_dir:
                    if depth < _MAX_DEPTH:
                        folders.append((path, depth + 1))
                    else:
                        too_deep += 1
                elif path in read_paths:
                    read += 1
                elif name.startswith(".") or "__MACOSX" in path:
                    hidden += 1
                else:
                    other_count += 1
                    others = sorted([*others, path])[:_EXAMPLES]
        reasons = {f"not used by this reader ({', '.join(others)}{', ...' * (other_count > _EXAMPLES)})": other_count}
        reasons |= {"hidden": hidden, **self._tree.left_out()}
        counts = {reason: count for reason, count in reasons.items() if count}
        total = read + sum(counts.values())
        text = f"{total:,} files listed: {read:,} read, {total - read:,} left out"
        text += f" [{'; '.join(f'{count:,} {reason}' for reason, count in counts.items())}]" if counts else ""
        unlisted = len(self.faults) + too_deep
        return text + (f"; {unlisted:,} folders not listed" if unlisted else "")

    def has_folder_with(self, path: str, folder: re.Pattern[str], entry: re.Pattern[str]) -> bool:
        """Return True if a folder in `path` whose whole name matches `folder` has an entry that matches `entry`."""
        for inner in self.listdir(path):
            if inner.is_dir and folder.fullmatch(inner.name):
                inside = self.listdir(f"{path}/{inner.name}" if path else inner.name)
                if any(entry.fullmatch(e.name) for e in inside):
                    return True
        return False

    def identity(self, path: str) -> str:
        """Return a text that changes whenever the content of the file does; the file is not read."""
        return self._tree.identity(path)

    def read(self, path: str, missing: str = "missing_label") -> bytes:
        """Return the bytes of a label file; its suffix may be in upper case.

        Raises:
            Refused: with reason `missing` if the file does not exist, otherwise `unreadable_file`.
        """
        try:
            return self._tree.read(path, TEXT_LIMIT)
        except FileNotFoundError:
            if (actual := self.actual(path)) != path:
                return self.read(actual, missing)
            raise Refused(missing, f"{path}: no such file") from None
        except OSError as error:
            raise Refused("unreadable_file", f"{path}: {_reason(error)}") from None

    def head(self, path: str, size: int) -> bytes:
        """Return at least the first `size` bytes of a file, or all of a shorter one.

        Raises:
            Refused: the file is missing or unreadable.
        """
        try:
            return self._tree.head(path, size)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and (actual := self.actual(path)) != path:
                return self.head(actual, size)
            raise Refused("unreadable_file", f"{path}: {_reason(error)}") from None

    def image_size(self, path: str) -> Size:
        """Return the size of a JPEG or PNG from its header, after checking that the file is complete.

        Raises:
            Refused: the image is missing, unreadable or damaged.
        """
        try:
            if self.thorough:
                return self._decoded_size(path)
            probe = self._tree.probe(path, HEAD_BYTES)
            try:
                size = size_from_header(probe.head)
            except HeaderTooShort:
                size = self._size_after_long_header(path)
            refuse_false_size(size, probe.head, probe.size)
            # Some tools append bytes to a complete JPEG. Only decoding distinguishes such a file from a truncated one.
            if has_end(probe.head, probe.tail):
                return size
            return self._decoded_size(path)
        except FileNotFoundError:
            raise Refused("missing_image", f"{path}: no such file") from None
        except OSError as error:
            raise Refused("unreadable_file", f"{path}: {_reason(error)}") from None
        except HeaderTooShort:
            raise Refused("bad_image", f"{path}: truncated inside its header") from None
        except ImageError as error:
            raise Refused("bad_image", f"{path}: {error}") from None

    def find_image(self, path: str) -> tuple[str, Size]:
        """Return the path of an image as the listing spells it, and its size.

        Raises:
            Refused: as `image_size`.
        """
        try:
            return path, self.image_size(path)
        except Refused as refused:
            if refused.reason != "missing_image" or (actual := self.actual(path)) == path:
                raise
        return actual, self.image_size(actual)

    @contextmanager
    def local_path(self, path: str, missing: str = "missing_image") -> Iterator[str]:
        """Yield a path on disk that has the content of the file, for libraries that open files themselves.

        Raises:
            Refused: the file is missing or unreadable.
        """
        try:
            with self._tree.local_path(path) as local:
                yield local
        except FileNotFoundError:
            raise Refused(missing, f"{path}: no such file") from None
        except OSError as error:
            raise Refused("unreadable_file", f"{path}: {_reason(error)}") from None

    def _size_after_long_header(self, path: str) -> Size:
        """Return the size of an image whose header is long, as with a large EXIF block; HeaderTooShort at its end."""
        size = _WHOLE_HEADER
        while True:
            probe = self._tree.probe(path, size)
            try:
                return size_from_header(probe.head)
            except HeaderTooShort:
                if size >= min(probe.size, LABEL_LIMIT):
                    raise
                size *= 16

    def _decoded_size(self, path: str) -> Size:
        data = self._tree.read(path)
        if fault := decode_fault(data):
            raise ImageError(fault)
        return size_from_header(data)


def _with_lower_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}{dot}{suffix.lower()}"


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
