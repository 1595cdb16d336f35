"""The labels of exported heads as rows of text, the same in every format that has a table."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from ubhpd.exports._heads import ANGLES, Heads
from ubhpd.files import replacing

TEXTS = ("sample_id", "dataset", "subject_id", "sequence_id", "split")
ROTATION = tuple(f"r{i}{j}" for i in range(3) for j in range(3))


def label_names() -> list[str]:
    """Return the names of the label columns: texts, canonical angles in degrees, the rotation row by row."""
    return [*TEXTS, *ANGLES, *ROTATION]


def labels_of(heads: Heads, row: int) -> list[str]:
    """Return the labels of a head as text; numbers come back from it unchanged."""
    numbers = [*heads.angles[row].tolist(), *heads.rotation[row].ravel().tolist()]
    return [*(heads.texts[n][row] for n in TEXTS), *map(repr, numbers)]


def write_table(names: Sequence[str], rows: Iterable[Sequence[str]], path: Path) -> None:
    """Write a table as CSV, whole or not at all."""
    with replacing(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)
