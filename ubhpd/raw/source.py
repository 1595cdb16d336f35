"""The view that a builder has of the raw files: listings, label bytes and image sizes. A failure drops the head."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ubhpd.raw.image_files import (
    HEAD_BYTES,
    HeaderTooShort,
    ImageError,
    Size,
    decode_fault,
    has_end,
    size_from_header,
)
from ubhpd.raw.trees import Entry, Tree

_WHOLE_HEADER = 65_536 * 4  # bytes; enough for large EXIF and colour profile blocks


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
        self.faults: list[str] = []  # folders that could not be listed
        self._tree = tree

    def listdir(self, path: str) -> list[Entry]:
        """Return the entries of a folder sorted by name; "" is the root of the dataset, a missing folder is empty.

        A folder that cannot be listed also counts as empty, and is added to `faults`.
        """
        try:
            return self._tree.listdir(path)
        except OSError as error:
            self.faults.append(f"{path or 'the folder'} cannot be listed: {_reason(error)}")
            return []

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
        """Return the bytes of a label file.

        Raises:
            Refused: with reason `missing` if the file does not exist, otherwise `unreadable_file`.
        """
        try:
            return self._tree.read(path)
        except FileNotFoundError:
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
                size = size_from_header(self._tree.probe(path, _WHOLE_HEADER).head)
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

    def _decoded_size(self, path: str) -> Size:
        data = self._tree.read(path)
        if fault := decode_fault(data):
            raise ImageError(fault)
        return size_from_header(data)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
