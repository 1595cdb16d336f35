"""The training set that density weights refer to: heads per bin, from a manifest, a table, or a known name."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.bins import ANGLES, EDGES_DEG, N_BINS, counts
from ubhpd.errors import UbhpdError

if TYPE_CHECKING:
    import pyarrow as pa


class TrainingSet(NamedTuple):
    """Heads per angle and bin (3, 15), heads outside the bins (3,), and where they were found."""

    counts: npt.NDArray[np.float64]
    outside: npt.NDArray[np.float64]
    name: str


@lru_cache(maxsize=1)
def known() -> dict[str, TrainingSet]:
    """Return the sets whose counts are shipped, by name."""
    text = (files("ubhpd") / "data" / "label_counts.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    found = {}
    for name in dict.fromkeys(row["source"] for row in rows):
        own = {row["angle"]: row for row in rows if row["source"] == name}
        inside = np.array([[float(own[a][f"bin{i:02d}"]) for i in range(1, N_BINS + 1)] for a in ANGLES])
        found[name] = TrainingSet(inside, np.array([float(own[a]["outside"]) for a in ANGLES]), name)
    return found


def training_set(text: str) -> TrainingSet:
    """Return the training set that `text` names: a shipped one, a manifest or a build's folder, or a CSV table.

    The table has low_deg, high_deg, yaw, pitch, roll: heads per bin, bins of 12 degrees or finer ones that nest.

    Raises:
        UbhpdError: none of these, or a table whose bins do not fit.
    """
    named = {name.lower(): found for name, found in known().items()}
    if text.lower() in named:
        return named[text.lower()]
    path = Path(text)
    if not path.exists():
        raise UbhpdError(
            f"No training set {text!r}: give a manifest, a table of counts, or one of {', '.join(known())}."
        )
    if path.is_file() and path.suffix.lower() == ".csv":
        return _from_table(path)
    from ubhpd.scores.pairing import truth_table

    return counted(truth_table(path)[0], str(path))


def counted(table: pa.Table, name: str, only: Sequence[str] | None = None) -> TrainingSet:
    """Return the heads of a manifest table per bin: those with these ids, or the usable ones.

    Raises:
        UbhpdError: there is none inside the bins of some angle.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from ubhpd.scores.pairing import angles

    ids = table.column("sample_id")
    wanted = table.column("drop_reason").is_null() if only is None else pc.is_in(ids, value_set=pa.array(only))
    ypr = angles(table)[wanted.to_numpy()]
    found = counts(ypr[np.isfinite(ypr).all(axis=1)])
    if not (found.inside.sum(axis=1) > 0).all():
        raise UbhpdError(f"{name} has no head inside -90 to 90 for some angle: it is no training set.")
    return TrainingSet(found.inside.astype(np.float64), found.outside.astype(np.float64), name)


def _from_table(path: Path) -> TrainingSet:
    inside, outside = np.zeros((len(ANGLES), N_BINS)), np.zeros(len(ANGLES))
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        wanted = ("low_deg", "high_deg", *ANGLES)
        if missing := [n for n in wanted if n not in (reader.fieldnames or [])]:
            raise UbhpdError(f"{path} has no column {missing[0]}: a table of counts has {','.join(wanted)}.")
        for number, row in enumerate(reader, start=1):
            try:
                low, high, *heads = (float(row[n]) for n in wanted)
            except (TypeError, ValueError):
                raise UbhpdError(f"{path}, row {number}: a value is not a number.") from None
            if not (low < high and all(np.isfinite(h) and h >= 0 for h in heads)):
                raise UbhpdError(f"{path}, row {number}: expected low_deg < high_deg and counts of 0 or more.")
            place = int(np.searchsorted(EDGES_DEG, low + 1e-9, side="right")) - 1
            if high <= EDGES_DEG[0] + 1e-9 or low >= EDGES_DEG[-1] - 1e-9:
                outside += heads
            elif 0 <= place < N_BINS and high <= EDGES_DEG[place + 1] + 1e-9:
                inside[:, place] += heads
            else:
                raise UbhpdError(
                    f"{path}, row {number}: {low:g} to {high:g} lies in two of the 12-degree bins from -90 to 90: "
                    "give bins that nest in them, of 12, 6, 4 or 3 degrees."
                )
    if not (inside.sum(axis=1) > 0).all():
        raise UbhpdError(f"{path} counts no head inside -90 to 90 for some angle: it is no training set.")
    return TrainingSet(inside, outside, str(path))
