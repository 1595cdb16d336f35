"""The heads of an export: which ones, where their crops are, and their labels, from a manifest read in batches.

The labels of exported heads as rows of text, the same in every format that has a table.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing
from ubhpd.core.typing import FloatArray, IntArray
from ubhpd.images import crops
from ubhpd.images.crops import FIELDS, Recipe
from ubhpd.manifest.schema import matrix

ANGLES = ("yaw_deg", "pitch_deg", "roll_deg")

_TEXTS = ("sample_id", "dataset", "subject_id", "sequence_id", "image_path")
_LENGTHS = {"bbox_xyxy": 4, "landmarks21": 42, "landmarks68": 136}
_ARRAYS = ("frame", "size", "angles", "rotation", "box", "source", "face")
_SPLIT = re.compile(r"[A-Za-z0-9_-]+")
_FACES = ("bbox", "pt2d")  # what a face is where no crop is wanted


@dataclass
class Heads:
    """n heads in the manifest's order.

    texts: sample_id, dataset, subject_id, sequence_id, image_path and split ("" for null), n strings each.
    frame: number in the recording (n,), 0 for null. size: of the image (n, 2). angles: canonical yaw, pitch,
    roll in degrees (n, 3). rotation: (n, 3, 3). box: the crops (n, 4). source: which of the recipe's sources gave
    them (n,). face: face boxes before they grow (n, 4). points: n arrays (m, 2) of visible landmarks, empty without
    any; None if not requested. without_box: sample ids of usable heads left out.
    """

    texts: dict[str, list[str]]
    frame: IntArray
    size: IntArray
    angles: FloatArray
    rotation: FloatArray
    box: FloatArray
    source: IntArray
    face: FloatArray
    points: list[FloatArray] | None = None
    without_box: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.frame)

    def splits(self) -> dict[str, IntArray]:
        """Return the rows of each split by its name, "all" where there is none."""
        names = np.array([s or "all" for s in self.texts["split"]])
        return {str(s): np.flatnonzero(names == s) for s in sorted(set(names.tolist()), key=_split_order)}

    def only(self, rows: list[int]) -> Heads:
        """Return the heads of `rows`."""
        texts = {n: [v[i] for i in rows] for n, v in self.texts.items()}
        points = None if self.points is None else [self.points[i] for i in rows]
        arrays = {n: getattr(self, n)[rows] for n in _ARRAYS}
        return Heads(texts, **arrays, points=points, without_box=self.without_box)

    def sources(self, recipe: Recipe) -> dict[str, int]:
        """Return how many boxes came from which of the recipe's sources."""
        counts = np.bincount(self.source, minlength=len(recipe.sources))
        return {s: int(n) for s, n in zip(recipe.sources, counts, strict=True) if n}


def read_heads(path: Path, recipe: Recipe, split: str | None, seed: int, face: bool, points: bool) -> Heads:
    """Return the usable heads of a manifest that have a box.

    Args:
        path: a manifest, with or without the column `split`.
        recipe: what a box is.
        split: keep those of this split only.
        seed: of crops drawn at random.
        face: a head must have a face box, not only a crop.
        points: read the landmarks.

    Raises:
        UbhpdError: no manifest, no column `split` to choose from, or no such split.
    """
    known = manifest.header(path).schema.names
    if split is not None and "split" not in known:
        raise UbhpdError(f"{path} has no column 'split', so that --split {split} selects nothing: leave it out.")
    names = dict.fromkeys([*_TEXTS, *FIELDS, "frame_index", "drop_reason", *ANGLES, "rotation"])
    if not (points or face or any(s.startswith("pt2d") for s in recipe.sources)):
        names = {n: None for n in names if not n.startswith("landmarks")}
    wanted = [*names, "split"] if "split" in known else list(names)
    parts: list[Heads] = []
    found: set[str] = set()
    for batch in manifest.iterate(path, wanted):
        part, splits = _part(pa.Table.from_batches([batch]), recipe, split, seed, face, points)
        parts.append(part)
        found |= splits
    if odd := sorted(s for s in found if not _SPLIT.fullmatch(s)):
        raise UbhpdError(f"{path} has a split {odd[0]!r}, which cannot name a file: use letters, digits, - and _.")
    if split is not None and split not in found:
        raise UbhpdError(f"{path} has no split {split!r}: it has {', '.join(sorted(found)) or 'none'}.")
    if not parts:
        raise UbhpdError(f"{path} has no heads: nothing to export.")
    return _joined(parts)


def floats(table: pa.Table, name: str, length: int) -> FloatArray:
    """Return a column of lists as (n, length), NaN for null or a column that is not there."""
    if name in table.column_names:
        return matrix(table.column(name), length)
    return np.full((table.num_rows, length), np.nan)


def _part(
    table: pa.Table, recipe: Recipe, split: str | None, seed: int, face: bool, points: bool
) -> tuple[Heads, set[str]]:
    found = {s for s in _strings(table, "split") if s}
    table = table.filter(table.column("drop_reason").is_null())
    if split is not None:
        table = table.filter(pa.array([s == split for s in _strings(table, "split")], pa.bool_()))
    columns: dict[str, Any] = {"sample_id": _strings(table, "sample_id")}
    for name in ("image_width", "image_height"):
        columns[name] = table.column(name).fill_null(0).to_numpy().astype(np.float64)
    columns |= {n: floats(table, n, length) for n, length in _LENGTHS.items()}
    boxes = crops.crop_boxes(columns, recipe, seed)
    faces = crops.face_boxes(columns, _FACES[0])
    other = crops.face_boxes(columns, _FACES[1])
    faces = np.where(np.isnan(faces).any(axis=1, keepdims=True), other, faces)
    good = boxes.source >= 0
    if face:
        good &= ~np.isnan(faces).any(axis=1)
    rows = np.flatnonzero(good)
    texts = {n: [v[i] for i in rows] for n in (*_TEXTS, "split") for v in [_strings(table, n)]}
    return Heads(
        texts,
        frame=table.column("frame_index").fill_null(0).to_numpy()[rows],
        size=np.stack([columns["image_width"], columns["image_height"]], axis=1)[rows].astype(np.int64),
        angles=np.stack([table.column(n).to_numpy() for n in ANGLES], axis=1).astype(np.float64)[rows],
        rotation=floats(table, "rotation", 9).reshape(-1, 3, 3)[rows],
        box=boxes.xyxy[rows],
        source=boxes.source[rows],
        face=faces[rows],
        points=[_visible(columns, i) for i in rows.tolist()] if points else None,
        without_box=[i for i, g in zip(columns["sample_id"], good, strict=True) if not g],
    ), found


def _joined(parts: list[Heads]) -> Heads:
    first = parts[0]
    return Heads(
        {n: [v for p in parts for v in p.texts[n]] for n in first.texts},
        **{n: np.concatenate([getattr(p, n) for p in parts]) for n in _ARRAYS},
        points=None if first.points is None else [q for p in parts for q in p.points or ()],
        without_box=[i for p in parts for i in p.without_box],
    )


def _strings(table: pa.Table, name: str) -> list[str]:
    if name not in table.column_names:
        return [""] * table.num_rows
    values: list[str] = table.column(name).fill_null("").to_pylist()
    return values


def _visible(columns: dict[str, Any], row: int) -> FloatArray:
    """Return the visible points of pt2d (m, 2)."""
    for name in ("landmarks21", "landmarks68"):
        points: FloatArray = columns[name][row].reshape(-1, 2)
        points = points[~np.isnan(points).any(axis=1)]
        if len(points):
            return points
    return np.zeros((0, 2))


def _split_order(name: str) -> tuple[int, str]:
    return (("train", "test", "all").index(name) if name in ("train", "test", "all") else 3, name)


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
