"""Which heads of a manifest a model is to judge, and where each is cut: columns only, no picture is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ubhpd import manifest
from ubhpd.crops import FIELDS, Floats, crop_boxes, recipe_named
from ubhpd.errors import UbhpdError
from ubhpd.models.heads_table import own_landmarks
from ubhpd.schema import matrix

if TYPE_CHECKING:
    from ubhpd.networks.contract import InputRecipe

_TEXTS = ("sample_id", "dataset", "sequence_id", "image_path")
_LISTS = {"bbox_xyxy": 4, "landmarks21": 42, "landmarks68": 136}


@dataclass(frozen=True)
class Plan:
    """n heads in the manifest's order.

    texts: sample_id, dataset, sequence_id and image_path ("" for null), n strings each. frame: number in the
    recording (n,). size: of the picture (n, 2). box: of the crop (n, 4), NaN for a head without a face box.
    landmarks: of the picture itself (n, 68, 2), NaN where unknown. table: the columns that a solver reads.
    """

    texts: dict[str, list[str]]
    frame: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    box: Floats
    landmarks: Floats
    table: pa.Table
    fingerprint: str

    def __len__(self) -> int:
        return len(self.frame)

    def before(self, frames: int) -> npt.NDArray[np.int64]:
        """Return rows (n, frames): of each head the heads of the same recording that lead up to it, itself last.

        Where the recording begins, its first head stands in for those before it; a head without a recording stands
        for itself. Frames that the manifest left out are passed over.
        """
        keys = [(d, s) if s else (d, f"\0{i}") for d, s, i in zip(
            self.texts["dataset"], self.texts["sequence_id"], self.texts["sample_id"], strict=True)]  # fmt: skip
        number = {key: n for n, key in enumerate(dict.fromkeys(keys))}
        recording = np.array([number[k] for k in keys], dtype=np.int64)
        order = np.lexsort((self.frame, recording))
        previous = np.arange(len(self))
        follows = recording[order][1:] == recording[order][:-1]
        previous[order[1:][follows]] = order[:-1][follows]
        rows = [np.arange(len(self))]
        for _ in range(frames - 1):
            rows.append(previous[rows[-1]])
        return np.stack(rows[::-1], axis=1)


def read_plan(path: Path, recipe: InputRecipe | None, split: str | None, seed: int = 0) -> Plan:
    """Return the usable heads of a manifest, of one split if it is named, each with its crop.

    Args:
        path: a manifest.
        recipe: of the model; None for a solver, which cuts nothing.
        split: keep those of this split only.
        seed: of a crop recipe that draws its margin.

    Raises:
        UbhpdError: no manifest, no such split, or no usable head.
    """
    table = manifest.usable(path, [*_TEXTS, *FIELDS, "landmarks_kind", "frame_index"], split)
    if table.num_rows == 0:
        raise UbhpdError(f"{path} has no usable head: there is nothing to predict.")
    return plan_of(table, recipe, manifest.header(path).fingerprint, seed)


def plan_of(table: pa.Table, recipe: InputRecipe | None, fingerprint: str, seed: int = 0) -> Plan:
    """Return the plan of a manifest's rows, all of them; other arguments as `read_plan`."""
    columns: dict[str, Any] = {name: matrix(table.column(name), length) for name, length in _LISTS.items()}
    for name in ("image_width", "image_height"):
        columns[name] = table.column(name).fill_null(0).to_numpy()
    texts: dict[str, list[str]] = {name: table.column(name).fill_null("").to_pylist() for name in _TEXTS}
    # A folder that was published as a whole, such as those of 300W-LP, is no recording: frames are not counted there.
    counted = table.column("frame_index").is_valid().to_pylist()
    texts["sequence_id"] = [s if c else "" for s, c in zip(texts["sequence_id"], counted, strict=True)]
    return Plan(
        texts,
        table.column("frame_index").fill_null(0).to_numpy(),
        np.stack([columns["image_width"], columns["image_height"]], axis=1).astype(np.int64),
        _boxes(texts, columns, recipe, seed),
        own_landmarks(table),
        table,
        fingerprint,
    )


def _boxes(texts: dict[str, list[str]], columns: dict[str, Any], recipe: InputRecipe | None, seed: int) -> Floats:
    """Return the crops (n, 4), each by the recipe for its dataset."""
    boxes = np.full((len(texts["sample_id"]), 4), np.nan)
    if recipe is None:
        return boxes
    datasets = np.array(texts["dataset"])
    for dataset in np.unique(datasets).tolist():
        rows = np.flatnonzero(datasets == dataset)
        some = {name: values[rows] for name, values in columns.items()}
        some["sample_id"] = _of(texts["sample_id"], rows)
        boxes[rows] = crop_boxes(some, recipe_named(recipe.crop_for(dataset)), seed).xyxy
    return boxes


def _of(values: Sequence[str], rows: npt.NDArray[np.int64]) -> list[str]:
    return [values[i] for i in rows.tolist()]
