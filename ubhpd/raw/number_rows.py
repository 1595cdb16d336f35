"""Label files with one row of numbers a frame: each row its numbers, or a sentence that says what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class NumberRows(NamedTuple):
    """The rows of a file, blank ones aside: the numbers, or what is wrong; and whether the last row may be cut."""

    rows: list[list[float] | str]
    is_cut: bool


def number_rows(
    data: bytes, path: str, limits: Sequence[float], separator: bytes | None = None, may_go_on: bool = False
) -> NumberRows:
    """Return the rows of a label file.

    Args:
        data: its bytes.
        path: of the file, for what is said of a row.
        limits: one per number of a row: beyond it, in either direction, the number is damage.
        separator: between numbers; white space by default.
        may_go_on: a row can be longer than `limits`, and what follows is not looked at unless it is no number.
    """
    rows: list[list[float] | str] = []
    count = len(limits)
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            tokens = line.split() if separator is None else line.rstrip(separator + b" \t").split(separator)
            values = [float(token) for token in tokens]
        except ValueError:
            values = []
        is_long_enough = len(values) >= count if may_go_on else len(values) == count
        # Python reads 1_0 as 10. A NaN is within no limit.
        if not is_long_enough or b"_" in line or not all(abs(v) <= m for v, m in zip(values, limits, strict=False)):
            how = "start with" if may_go_on else "hold"
            rows.append(f"{path}: line {number} does not {how} {count} possible numbers")
        else:
            rows.append(values[:count])
    return NumberRows(rows, not data[-1:].isspace())
