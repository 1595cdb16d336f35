"""The one exception that users see, and errors of the disk as one sentence."""

from __future__ import annotations

import errno
import os

_NO_ENTRY = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ENOTDIR,
    errno.EISDIR, errno.ELOOP, errno.EIO,
)  # fmt: skip


class UbhpdError(Exception):
    """Wrong input, as one sentence: what was found, where, and what to do.

    The command line prints the sentence without a traceback and exits with code 2.
    """


def shortened(value: object, limit: int = 60) -> str:
    """Return a value for an error sentence: its repr, control characters escaped, at most `limit` characters."""
    text = repr(value) if not isinstance(value, str) or len(value) <= limit else repr(value[:limit])
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def disk_fault(error: Exception) -> str | None:
    """Return the sentence for a disk that is full or a place that may not be opened; None for any other fault."""
    if not isinstance(error, OSError) or error.errno not in _NO_ENTRY:
        return None
    place = f" {error.filename}" if error.filename else ""
    return (
        f"Cannot open or write{place} ({os.strerror(error.errno)}): make room, or name a place that can be written; "
        "what was finished is kept."
    )
