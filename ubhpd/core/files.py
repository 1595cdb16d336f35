"""Files that are written completely or not at all, locks against a second command, and JSON of bounded size."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import platform
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from ubhpd.core.errors import UbhpdError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_JSON_BYTES = 64 << 20


_PART = re.compile(r"\..+\.(?:([0-9a-f]{8})-)?(\d+)\.part(?:-journal|-wal|-shm)?")
_FOREIGN_PART_SECONDS = 24 * 3600  # after which a half-written file of another machine is taken for left over
_swept: set[Path] = set()
_open: set[str] = set()  # paths of the parts that this process is writing now


@contextmanager
def replacing(path: Path, can_be_made_again: bool = False) -> Iterator[Path]:
    """Give a path beside `path` to write to; on success it takes the place of `path`, on failure it is removed.

    The content is on the disk before the name is, so that a power cut leaves the old file or the new one. What a
    killed process left half-written in the folder is removed first.

    Args:
        path: the file to write.
        can_be_made_again: it is one of many that are checked before they are used: it is not waited for until the
            disk has it, and the folder is searched for leftovers only once by this process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not can_be_made_again or path.parent not in _swept:
        remove_leftovers(path.parent)
        _swept.add(path.parent)
    part = path.with_name(f".{path.name}.{_this_machine()}-{os.getpid()}.part")
    own = os.path.abspath(part)
    _open.add(own)
    try:
        yield part
        if not can_be_made_again:
            _sync(part)
        part.replace(path)
        if not can_be_made_again:
            _sync(path.parent)
    finally:
        _open.discard(own)
        part.unlink(missing_ok=True)
        part.with_name(f"{part.name}-journal").unlink(missing_ok=True)  # of SQLite


def remove_leftovers(folder: Path) -> None:
    """Remove the half-written files of `replacing` in a folder that no living process is writing."""
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        if name.endswith((".part", "-journal", "-wal", "-shm")) and (match := _PART.fullmatch(name)):
            part = folder / name
            with suppress(OSError):
                if _is_left_over(part, match[1], int(match[2])):
                    part.unlink()


def _is_left_over(part: Path, machine: str | None, process: int) -> bool:
    if machine not in (None, _this_machine()):
        return time.time() - part.stat().st_mtime > _FOREIGN_PART_SECONDS
    return os.path.abspath(part) not in _open if process == os.getpid() else not is_alive(process)


def is_alive(process: int) -> bool:
    """Return True if a process of this machine has this id and has not ended."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # a process of another user
        return True
    try:  # one that has ended, and whose parent has not asked how, keeps its id
        return Path(f"/proc/{process}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return True


@lru_cache(maxsize=1)
def _this_machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _sync(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder."""
    with suppress(OSError):  # a file system, or a folder on Windows, that cannot do it
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def clear_parts(path: Path) -> None:
    """Remove what killed writers left beside `path`; nobody else may be writing it."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        part.unlink(missing_ok=True)


def file_identity(path: str | os.PathLike[str]) -> str:
    """Return what tells one content of a file from another without reading it; "absent" where there is no file.

    Inode, size and the times of the last change of content and of inode: a file that is exchanged for another one
    differs, also if that is older or of equal size. No clock is asked, and no device number, which differs between
    machines that mount one disk.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return "absent"
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


LOCK = ".ubhpd-lock"


@contextmanager
def locked(place: Path, is_file: bool = False, is_shared: bool = False) -> Iterator[None]:
    """Keep other commands from writing to a folder, or to a file, at the same time.

    Args:
        place: a folder, which is made if it is not there.
        is_file: it is a file, or a folder that is checked for what is in it: the lock is beside it.
        is_shared: others that also share it may write, as the shards of a build do.

    Raises:
        UbhpdError: another command is writing there.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    path = place.with_name(f".{place.name}{LOCK}") if is_file else place / LOCK
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o666))
    except OSError:  # a folder that is not writable: whatever is to be written there says so
        yield
        return
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise UbhpdError(
                f"Another ubhpd command is writing to {place}: let it finish, or name another --out."
            ) from None
        except OSError:  # a file system without locks
            break
        with suppress(OSError):
            if os.path.samestat(os.fstat(lock), os.stat(path)):
                break
        os.close(lock)  # its last holder removed the file meanwhile
    try:
        yield
    finally:
        if not is_shared:
            path.unlink(missing_ok=True)
        os.close(lock)


def user_folder(variable: str, usual: str) -> Path | None:
    """Return the folder of the package that a variable of the XDG specification names, else the usual one.

    Args:
        variable: as "XDG_CACHE_HOME".
        usual: where it is below the home folder, as ".cache".

    Returns:
        None where neither is known, as in a container whose user id has no name.
    """
    if named := os.environ.get(variable):
        return Path(named, "ubhpd")
    try:
        return Path.home() / usual / "ubhpd"
    except RuntimeError:
        return None


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


def read_toml(path: Path, remedy: str, max_bytes: int = 1 << 20) -> dict[str, Any]:
    """Return the content of a TOML file; arguments and errors as `read_json`.

    Raises:
        UbhpdError: it cannot be opened, is too large, or is not TOML.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise UbhpdError(f"Cannot open {path} ({error.strerror}): {remedy}.") from None
    if len(data) > max_bytes:
        raise UbhpdError(f"{path} is larger than {max_bytes >> 10} KB: {remedy}.")
    try:
        content: dict[str, Any] = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise UbhpdError(f"{path} is not TOML ({str(error)[:80]}): {remedy}.") from None
    return content


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
