"""The rules that a protocol is made of: conditions on columns, frame lists, and divisions.

Frame lists of BIWI are read as they circulate: a line names a frame, and other content is ignored. A frame is a
recording and a frame number, as `01/frame_00003` or `hpdb/01/frame_00003_rgb.png`; what stands before and after it on
the line (a folder, a label, the name of the pose file) does not matter, nor do Windows' separators and line ends. Empty
lines, lines that begin with #, and a header without any digit are passed over.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd.core.bins import ANGLES
from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import BoolArray
from ubhpd.manifest import readmitted
from ubhpd.protocols.definitions import TRAIN, Divide, SplitDefinition
from ubhpd.sampling import heads
from ubhpd.sampling.splits import split

_FRAME = re.compile(r"(?<![0-9A-Za-z])(\d{1,2})[/\\_]frame_(\d{1,5})(?!\d)")
_EXAMPLE = "01/frame_00003 or hpdb/01/frame_00003_rgb.png"


class FrameList(NamedTuple):
    """The frames of a list: sample_id -> number of the line that names it first, and how many were named again."""

    path: str
    lines: dict[str, int]
    repeated: int


def read_frame_list(path: str | os.PathLike[str]) -> FrameList:
    """Return the BIWI frames that a text file names, in its order.

    Raises:
        UbhpdError: no such file, not text, a line that names no frame, or no frame at all.
    """
    lines: dict[str, int] = {}
    repeated = 0
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        # A line may name the image and the pose file of one frame: that is one frame.
        found = dict.fromkeys(f"biwi/{int(s):02d}/frame_{int(f):05d}" for s, f in _FRAME.findall(line))
        if not found:
            if not lines and not any(c.isdigit() for c in line):
                continue
            shown = line.strip()[:60]
            raise UbhpdError(f"{path}, line {number}: {shown!r} names no BIWI frame such as {_EXAMPLE}.")
        for sample_id in found:
            repeated += sample_id in lines
            lines.setdefault(sample_id, number)
    if not lines:
        raise UbhpdError(f"{path} names no frame: give one per line, such as {_EXAMPLE}.")
    return FrameList(str(path), lines, repeated)


def _text(path: str | os.PathLike[str]) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UbhpdError(f"Cannot open {path} ({error.strerror}): check the path of the frame list.") from None
    except UnicodeDecodeError:
        raise UbhpdError(
            f"{path} is not UTF-8 text: a frame list has one frame per line, such as {_EXAMPLE}."
        ) from None


CONDITIONS: dict[str, Callable[[Any, tuple[str, ...]], Any]] = {
    "is": lambda column, values: pc.is_in(column, pa.array(values, pa.string())),
    "is not": lambda column, values: pc.invert(pc.is_in(column, pa.array(values, pa.string()))),
    "does not start with": lambda column, values: pc.invert(_starts(column, values)),
}

_BEYOND = "beyond_max_angle"


class Chosen(NamedTuple):
    """The rows of one split, how many were left out and why, and what there is to say."""

    rows: pa.Table
    refused: int = 0
    beyond: int = 0
    shared: int = 0
    warnings: tuple[str, ...] = ()


def choose(side: SplitDefinition, tables: Mapping[str, pa.Table], frames: FrameList | None) -> Chosen:
    """Return the heads that meet the conditions of a split and have a pose within its limit.

    Raises:
        UbhpdError: a listed frame is not in the manifest.
    """
    rows = tables[side.table]
    for where in side.where:
        rows = rows.filter(CONDITIONS[where.how](rows.column(where.column), where.values))
    warnings: tuple[str, ...] = ()
    if side.listed and frames is not None:
        rows, warnings = _listed(rows, frames)
    reasons = rows.column("drop_reason")
    # What the build refused for its angle alone has a pose: the protocol has a limit of its own.
    usable = rows.filter(pc.or_(reasons.is_null(), pc.fill_null(pc.equal(reasons, _BEYOND), False)))
    within = usable
    if side.max_angle_deg is not None:
        angles = np.stack([usable.column(f"{a}_deg").to_numpy() for a in ANGLES], axis=1).astype(np.float64)
        within = usable.filter(pa.array((np.abs(angles) <= side.max_angle_deg).all(axis=1)))
    refused = rows.num_rows - usable.num_rows
    if refused and side.listed:
        warnings += (f"{_frames(refused)} in the list but refused in this manifest: see ubhpd info OUT --dropped.",)
    return Chosen(within, refused, usable.num_rows - within.num_rows, 0, warnings)


def apart(side: Chosen, columns: Iterable[str], other: pa.Table) -> Chosen:
    """Return the side without the heads that share a value of one of the columns with the other split."""
    rows = side.rows
    for name in columns:
        there = pc.unique(other.column(name)).drop_null()
        rows = rows.filter(pc.invert(pc.is_in(rows.column(name), there)))
    return side._replace(rows=rows, shared=side.rows.num_rows - rows.num_rows)


def divided(both: Chosen, divide: Divide, seed: int) -> tuple[Chosen, Chosen]:
    """Return train and test of one set of heads.

    Raises:
        UbhpdError: there are too few groups to divide.
    """
    rows = both.rows
    if not rows.num_rows:
        return both, both
    train = DIVISIONS[divide.form](rows, divide, seed)
    return both._replace(rows=rows.filter(pa.array(train))), both._replace(rows=rows.filter(pa.array(~train)))


def _listed(rows: pa.Table, frames: FrameList) -> tuple[pa.Table, tuple[str, ...]]:
    """Return the rows that the list names, and what there is to say of the list."""
    known = set(rows.column("sample_id").to_pylist())
    if unknown := [i for i in frames.lines if i not in known]:
        more = f", and {len(unknown) - 1:,} more of the list are not" if len(unknown) > 1 else ""
        raise UbhpdError(
            f"{frames.path}, line {frames.lines[unknown[0]]}: {unknown[0]} is not in the manifest{more}; "
            "check the list, and whether the data is whole."
        )
    again = (f"{_frames(frames.repeated)} named more than once in the list.",) if frames.repeated else ()
    return rows.filter(pc.is_in(rows.column("sample_id"), pa.array(frames.lines, pa.string()))), again


def _split(rows: pa.Table, divide: Divide, seed: int) -> BoolArray:
    """Return True for train, as ubhpd.sampling.splits divides."""
    known = heads.from_table(readmitted(rows))
    return np.asarray(split(known, divide.form, seed, divide.share).side == TRAIN)


def _drawn(rows: pa.Table, divide: Divide, seed: int) -> BoolArray:
    """Return True for train: the recordings in a random order, which depends on seed and names alone."""
    column = rows.column("sequence_id")
    by_lot = sorted(pc.unique(column).to_pylist(), key=lambda s: hashlib.sha256(f"{seed} {s}".encode()).digest())
    drawn = by_lot[: round(divide.share * len(by_lot))]
    return np.asarray(pc.is_in(column, pa.array(drawn, pa.string())))


def _starts(column: Any, values: tuple[str, ...]) -> Any:
    starts = pc.starts_with(column, values[0])
    for value in values[1:]:
        starts = pc.or_(starts, pc.starts_with(column, value))
    return pc.fill_null(starts, False)


def _frames(n: int) -> str:
    return "1 frame is" if n == 1 else f"{n:,} frames are"


DIVISIONS: dict[str, Callable[[pa.Table, Divide, int], BoolArray]] = {
    "random": _split,
    "sequence": _split,
    "subject": _split,
    "drawn recordings": _drawn,
}
