"""The decisions of people on single heads: a CSV file with a line per head, keep or drop, why, and who decided.

    sample_id,decision,reason,who
    aflw/39439,drop,not a face,anna

A head that is dropped gets drop_reason `rejected_by_review`; one that is kept is safe from automatic flags. The
file is written by `ubhpd review`, and may be written by hand. A line is on disk when `record` returns.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing
from ubhpd.core.text import csv_lines

KEEP, DROP = "keep", "drop"
WORDS = (KEEP, DROP)
REJECTED, FLAGGED = "rejected_by_review", "flagged"
MAX_TEXT = 500  # characters of a reason or a name


class Decision(NamedTuple):
    """What one person decided on one head."""

    sample_id: str
    decision: str  # keep or drop
    reason: str = ""
    who: str = ""


HEADER = Decision._fields


class Applied(NamedTuple):
    """A table after decisions and flags, and how many heads each of them took out, or kept in."""

    table: pa.Table
    rejected: int
    flagged: int
    protected: int  # flagged heads that a decision keeps
    already_refused: int  # decisions on heads that are refused for another reason


def read(path: Path, known: pa.Array | pa.ChunkedArray | None = None) -> dict[str, Decision]:
    """Return the decisions of a file by sample_id, in its order.

    Args:
        path: the file.
        known: every sample_id there is; a decision on another one is an error.

    Raises:
        UbhpdError: no such file, another header, a line that is not of four fields, a word other than keep and
            drop, an unknown head, or two lines that contradict each other. The sentence names the line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UbhpdError(f"Cannot read the decisions {path} ({error.strerror}): check the path.") from None
    except UnicodeDecodeError as error:
        raise UbhpdError(f"{path} is not UTF-8 text (byte {error.start}): save it as CSV in UTF-8.") from None
    rows = csv.reader(io.StringIO(text, newline=""))
    found: dict[str, Decision] = {}
    lines: dict[str, int] = {}
    try:
        header = [name.strip() for name in next(rows, [])]
        if sorted(header) != sorted(HEADER):
            shown = ",".join(header)[:80] or "nothing"
            raise UbhpdError(f"{path} begins with {shown!r}: its first line must be {','.join(HEADER)}.")
        for cells in rows:
            if cells:
                one = _decision(dict(zip(header, cells, strict=False)), len(cells), f"{path} line {rows.line_num}")
                before = found.setdefault(one.sample_id, one)
                if before.decision != one.decision:
                    raise UbhpdError(
                        f"{path} line {rows.line_num} says {one.decision} of {one.sample_id}, but line "
                        f"{lines[one.sample_id]} says {before.decision}: remove one of them."
                    )
                found[one.sample_id] = one
                lines.setdefault(one.sample_id, rows.line_num)
    except csv.Error as error:
        raise UbhpdError(f"{path} line {rows.line_num} is not CSV ({error}): mend it.") from None
    if known is not None:
        decided = pa.array(list(found), pa.string())
        unknown = decided.filter(pc.invert(pc.is_in(decided, value_set=_flat(known)))).to_pylist()
        if unknown:
            more = f", as do {len(unknown) - 1:,} others" if len(unknown) > 1 else ""
            raise UbhpdError(
                f"{path} line {lines[unknown[0]]} decides on {unknown[0]}, which the manifest does not have{more}: "
                "remove it, or build with the sources that were reviewed."
            )
    return found


def apply(table: pa.Table, decisions: Mapping[str, Decision], flags: pa.Table | None = None) -> Applied:
    """Return the table with the decisions in drop_reason and drop_detail, and with the flags where they are given.

    A head that is refused for another reason stays refused. What an earlier call put there is
    taken back first, so that the result depends on the file and the flags alone.

    Args:
        table: a manifest with sample_id, drop_reason and drop_detail.
        decisions: as `read` returns them; ids that the table does not have are no error here, but in `read`.
        flags: sample_id, flag and detail of heads that are dropped as `flagged` unless they are kept.
    """
    ids = table.column("sample_id")
    own = (REJECTED,) if flags is None else (REJECTED, FLAGGED)
    is_own = pc.is_in(table.column("drop_reason"), pa.array(own))
    reasons = np.array(
        pc.if_else(is_own, pa.scalar(None, pa.string()), table.column("drop_reason")).to_pylist(), object
    )
    details = np.array(
        pc.if_else(is_own, pa.scalar(None, pa.string()), table.column("drop_detail")).to_pylist(), object
    )
    free = np.array([r is None for r in reasons], dtype=bool)
    decided = _rows(ids, decisions)
    rejected = already = protected = flagged = 0
    for sample_id, one in decisions.items():
        row = decided.get(sample_id)
        if row is None:
            continue
        if not free[row]:
            already += 1
        elif one.decision == DROP:
            reasons[row], details[row] = REJECTED, f"{one.who or 'unnamed'}: {one.reason or 'no reason given'}"
            rejected += 1
    if flags is not None:
        sentences: dict[str, list[str]] = {}
        for flag in flags.select(["sample_id", "flag", "detail"]).to_pylist():
            sentences.setdefault(flag["sample_id"], []).append(f"{flag['flag']}: {flag['detail']}")
        for sample_id, row in _rows(ids, sentences).items():
            if not free[row] or reasons[row] is not None:
                continue
            if sample_id in decisions:  # kept
                protected += 1
                continue
            reasons[row], details[row] = FLAGGED, " ".join(sentences[sample_id])
            flagged += 1
    for name, values in (("drop_reason", reasons), ("drop_detail", details)):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), pa.array(values.tolist(), pa.string()))
    return Applied(table, rejected, flagged, protected, already)


def record(path: Path, one: Decision) -> None:
    """Write a decision to the file, in place of an earlier one on the same head; it is on disk on return.

    A new head is one line more, written at once; a changed one is the file written anew and put in its place.

    Raises:
        UbhpdError: the decision or the file is not valid, or it cannot be written.
    """
    one = one._replace(reason=_clean(one.reason), who=_clean(one.who))
    one = _decision(one._asdict(), len(HEADER), "The decision")
    with _alone(path):
        found = read(path) if path.exists() and path.stat().st_size else {}
        before = found.pop(one.sample_id, None)
        if before == one:
            return
        if before is None:
            _append(path, one)
        else:
            _rewrite(path, [*found.values(), one])


def withdraw(path: Path, sample_id: str) -> None:
    """Take the decision on a head out of the file, if it is there; it is gone from the disk on return."""
    with _alone(path):
        found = read(path) if path.exists() and path.stat().st_size else {}
        if found.pop(sample_id, None) is not None:
            _rewrite(path, list(found.values()))


def _decision(cells: dict[str, str], count: int, where: str) -> Decision:
    if count != len(HEADER):
        raise UbhpdError(f"{where} has {count} fields instead of {len(HEADER)}: complete it, or remove it.")
    one = Decision(**{n: cells[n].strip() for n in HEADER})
    if not one.sample_id:
        raise UbhpdError(f"{where} names no sample_id: complete it, or remove it.")
    if one.decision not in WORDS:
        raise UbhpdError(f"{where} has the decision {one.decision[:40]!r}: write {KEEP} or {DROP}.")
    return one


def _rows(ids: pa.ChunkedArray, wanted: Iterable[str]) -> dict[str, int]:
    """Return the rows of those of the wanted ids that are there."""
    names = pa.array(list(wanted), pa.string())
    at = np.flatnonzero(pc.is_in(ids, value_set=names).to_numpy())
    return dict(zip(ids.take(pa.array(at)).to_pylist(), at.tolist(), strict=True))


def _flat(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _append(path: Path, one: Decision) -> None:
    is_new = not path.exists()
    try:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(fd).st_size
            text = _line(one) if size else _line(HEADER) + _line(one)
            if size and os.pread(fd, 1, size - 1) != b"\n":  # left so by an editor
                text = "\n" + text
            data = text.encode()
            if os.write(fd, data) != len(data):
                os.ftruncate(fd, size)
                raise OSError(0, "the disk is full")
            os.fsync(fd)
        finally:
            os.close(fd)
        if is_new:
            _sync_folder(path)
    except OSError as error:
        raise UbhpdError(f"Cannot write the decision to {path} ({error.strerror}): it is not recorded.") from None


def _rewrite(path: Path, rows: list[Decision]) -> None:
    try:
        with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            file.write(_line(HEADER) + "".join(map(_line, rows)))
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(path)
    except OSError as error:
        raise UbhpdError(f"Cannot write the decisions to {path} ({error.strerror}): they are as before.") from None


def _line(cells: Iterable[str]) -> str:
    return csv_lines([cells])


def _clean(text: str) -> str:
    """Return the text on one line, without control characters, and not endless."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:MAX_TEXT]


def _sync_folder(path: Path) -> None:
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes of this machine from writing the file meanwhile, where the system can."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UbhpdError(f"Cannot write decisions to {path} ({error.strerror}): make its folder writable.") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
