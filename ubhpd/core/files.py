"""Files that are there whole or not at all: written beside their place, then renamed."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ubhpd.core.errors import UbhpdError

MAX_JSON_BYTES = 64 << 20


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; on success it takes the place of `path`, on failure it goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def clear_parts(path: Path) -> None:
    """Remove what killed writers left beside `path`; nobody else may be writing it."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        part.unlink(missing_ok=True)


def write_json(content: Any, path: Path) -> None:
    """Write JSON that a person can read, whole or not at all."""
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, remedy: str, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Return the content of a JSON file of at most `max_bytes`.

    Args:
        path: the file.
        remedy: what the user can do if the file is no good, as "build again".
        max_bytes: a larger file is refused before it is read.

    Raises:
        UbhpdError: it cannot be opened, is too large, is not JSON, or is nested too deeply.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise UbhpdError(f"Cannot open {path} ({error.strerror}): {remedy}.") from None
    if len(data) > max_bytes:
        raise UbhpdError(f"{path} is larger than {max_bytes >> 20} MB: {remedy}.")
    try:
        return json.loads(data)
    except RecursionError:
        raise UbhpdError(f"{path} is JSON that is nested too deeply: {remedy}.") from None
    except ValueError as error:
        raise UbhpdError(f"{path} is not JSON ({str(error)[:60]}): {remedy}.") from None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
