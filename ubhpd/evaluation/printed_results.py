"""Results reported in papers, the constants behind the reported UBMAE, and a linter of such tables.

`data/published_results.csv` holds what papers and repositories report, one row per method, train and test set, with a
note where a reported value is known to be wrong, and `differs` where it was measured in another way than the rest: such
a row is listed but not shown beside other results. The linter finds wrong rows by arithmetic alone: a mean that is not
the mean of the three angles, two rows for one result whose columns are exchanged, and a reported UBMAE that does not
follow the rule of its pair.
"""

from __future__ import annotations

import csv
import itertools
from collections import defaultdict
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ubhpd.core.bins import ANGLES
from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import FloatArray

COLUMNS = ("paper", "table", "train", "test", "method", "yaw", "pitch", "roll", "mae", "ubmae")


class Printed(NamedTuple):
    """One reported result, degrees; None where the paper reports nothing. `row` counts from 1 after the header.

    `decimals` are those of the angles, as printed; `note` says what is known to be wrong, "" if nothing is. `differs`
    says why the row cannot stand beside others, "" if it can; `source` is the address of a repository, "" for a paper.
    """

    row: int
    paper: str
    table: str
    train: str
    test: str
    method: str
    yaw: float | None
    pitch: float | None
    roll: float | None
    mae: float | None
    ubmae: float | None
    decimals: int
    note: str
    differs: str = ""
    source: str = ""

    @property
    def angles(self) -> tuple[float, float, float] | None:
        """Yaw, pitch, roll, if all are reported."""
        if self.yaw is None or self.pitch is None or self.roll is None:
            return None
        return self.yaw, self.pitch, self.roll


class Lint(NamedTuple):
    """One finding: the row, its kind ("mean", "exchanged", "ubmae"), and a sentence."""

    row: int
    kind: str
    text: str


def results(path: str | Path | None = None) -> list[Printed]:
    """Return the table of the package, or another with the same columns.

    Raises:
        UbhpdError: a column is missing, or a value is not a number.
    """
    text = _data("published_results.csv") if path is None else _read(Path(path))
    reader = csv.DictReader(text.splitlines())
    if missing := [c for c in COLUMNS if c not in (reader.fieldnames or [])]:
        raise UbhpdError(f"{path} has no column {missing[0]}: a table of results has {','.join(COLUMNS)}.")
    return [_printed(number, row, path) for number, row in enumerate(reader, start=1)]


def lint(rows: list[Printed] | None = None) -> list[Lint]:
    """Return what is wrong in the rows by arithmetic alone, in the order of the rows."""
    rows = results() if rows is None else rows
    lints = [f for check in (_means, _exchanged, _printed_ubmae) for f in check(rows)]
    return sorted(lints)


@lru_cache(maxsize=1)
def printed_pairs() -> dict[tuple[str, str], FloatArray]:
    """Return the constants k (yaw, pitch, roll) of every (train, test) pair for which UBMAE is reported."""
    rows = csv.DictReader(_data("ubmae_printed_constants.csv").splitlines())
    return {(r["train"], r["test"]): np.array([float(r[f"k_{a}"]) for a in ANGLES]) for r in rows}


def printed_constants(train: str, test: str) -> FloatArray:
    """Return the constants k (3,) behind the UBMAE reported for this pair.

    Raises:
        UbhpdError: a pair for which the paper reports nothing.
    """
    pairs = {(a.lower(), b.lower()): k for (a, b), k in printed_pairs().items()}
    try:
        return pairs[train.lower(), test.lower()]
    except KeyError:
        listed = ", ".join(f"{a}:{b}" for a, b in printed_pairs())
        raise UbhpdError(
            f"No UBMAE is reported for {train}:{test}, so its constants are not known: {listed}."
        ) from None


def _means(rows: list[Printed]) -> list[Lint]:
    lints = []
    for r in rows:
        if r.angles is None or r.mae is None:
            continue
        mean = sum(r.angles) / 3
        # papers average before they round, and round the mean with its own number of decimals
        allowed = 0.5 * 10.0**-r.decimals + 0.5 * 10.0 ** -_decimals(r.mae) + 1e-9
        if abs(mean - r.mae) > max(allowed, 0.011):
            text = f"{_name(r)}: the mean of {r.yaw:g}, {r.pitch:g}, {r.roll:g} is {mean:.2f}, printed {r.mae:g}"
            lints.append(Lint(r.row, "mean", text))
    return lints


def _exchanged(rows: list[Printed]) -> list[Lint]:
    """Find rows of the same train set, test set and method whose angles are a permutation of another paper's."""
    lints = []
    by_entry = defaultdict(list)
    for r in rows:
        if r.angles is not None:
            by_entry[r.train, r.test, r.method].append(r)
    for same in by_entry.values():
        for a, b in itertools.combinations(same, 2):
            if a.paper == b.paper or a.angles is None or b.angles is None or _close(a.angles, b.angles):
                continue
            if b.note:  # the other one is known to be wrong
                continue
            for order in itertools.permutations(range(3)):
                if order != (0, 1, 2) and _close(a.angles, tuple(b.angles[k] for k in order)):
                    moved = " and ".join(ANGLES[k] for k in range(3) if order[k] != k)
                    text = f"{_name(a)}: {moved} are exchanged relative to {b.paper}, table {b.table} (row {b.row})"
                    lints.append(Lint(a.row, "exchanged", text))
    return lints


def _printed_ubmae(rows: list[Printed]) -> list[Lint]:
    lints = []
    for r in rows:
        k = printed_pairs().get((r.train, r.test))
        if k is None or r.ubmae is None or r.angles is None:
            continue
        value = float(np.dot(k, r.angles) / 3)
        if abs(value - r.ubmae) > max(0.011, 0.5 * 10.0**-r.decimals * float(k.sum()) / 3):
            text = (
                f"{_name(r)}: UBMAE {r.ubmae:g} is printed, the rule of all other rows of this pair gives {value:.2f}"
            )
            lints.append(Lint(r.row, "ubmae", text))
    return lints


def _close(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return all(abs(x - y) <= 0.011 for x, y in zip(a, b, strict=True))


def _name(r: Printed) -> str:
    return f"{r.paper}, table {r.table}, {r.method} ({r.train} to {r.test})"


def _printed(number: int, row: dict[str, str], path: str | Path | None) -> Printed:
    values: dict[str, float | None] = {}
    for column in (*ANGLES, "mae", "ubmae"):
        text = (row[column] or "").strip()
        try:
            values[column] = float(text) if text else None
        except ValueError:
            raise UbhpdError(f"{path}, row {number}, column {column}: {text!r} is not a number.") from None
    decimals = min((len((row[a] or "").partition(".")[2]) for a in ANGLES if row[a]), default=2)
    own = {c: row[c] for c in ("paper", "table", "train", "test", "method")}
    notes = {c: (row.get(c) or "").strip() for c in ("note", "differs", "source")}
    return Printed(number, **own, **values, decimals=max(decimals, 1), **notes)  # type: ignore[arg-type]


def _decimals(value: float) -> int:
    return max(1, len(f"{value:g}".partition(".")[2]))


def _data(name: str) -> str:
    return (files("ubhpd") / "data" / name).read_text(encoding="utf-8")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UbhpdError(f"Cannot read {path} ({error}): give a CSV table in UTF-8.") from None
