"""Which heads of a manifest a model predicts, and where each is cut: columns only, no image is opened.

The heads of a manifest as batches: images opened from the raw data, decoded and cut by threads, in order.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import FloatArray, Image, IntArray
from ubhpd.images.crops import FIELDS, crop, crop_boxes, placed, recipe_named
from ubhpd.images.reading import Images
from ubhpd.inference.prediction_file import BATCH_HEADS, Batch, Drawable, cores, in_order, stacked
from ubhpd.manifest.schema import matrix
from ubhpd.models.geometric_model import heads_of, own_landmarks
from ubhpd.raw.image_files import VIDEO_SUFFIXES

if TYPE_CHECKING:
    from ubhpd.nn.contract import InputRecipe

_TEXTS = ("sample_id", "dataset", "sequence_id", "image_path")
_LISTS = {"bbox_xyxy": 4, "landmarks21": 42, "landmarks68": 136}
PLAN_COLUMNS = (*_TEXTS, *(name for name in FIELDS if name not in _TEXTS), "landmarks_kind", "frame_index")


@dataclass(frozen=True)
class Plan:
    """n heads in the manifest's order.

    texts: sample_id, dataset, sequence_id and image_path ("" for null), n strings each. frame: number in the
    recording (n,). size: of the image (n, 2). box: of the crop (n, 4), NaN for a head without a face box.
    landmarks: of the image itself (n, 68, 2), NaN where unknown. table: the columns that a geometric method reads.
    """

    texts: dict[str, list[str]]
    frame: IntArray
    size: IntArray
    box: FloatArray
    landmarks: FloatArray
    table: pa.Table
    fingerprint: str

    def __len__(self) -> int:
        return len(self.frame)

    def before(self, frames: int) -> IntArray:
        """Return rows (n, frames): of each head the heads of the same recording that lead up to it, itself last.

        Where the recording begins, its first head stands in for those before it; a head without a recording stands
        for itself. Frames that the manifest left out are passed over.
        """
        keys = [
            (d, s) if s else (d, f"\0{i}")
            for d, s, i in zip(self.texts["dataset"], self.texts["sequence_id"], self.texts["sample_id"], strict=True)
        ]
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


def read_plan(
    path: Path, recipe: InputRecipe | None, split: str | None, seed: int = 0, completed_by: Path | None = None
) -> Plan:
    """Return the usable heads of a manifest, of one split if it is named, each with its crop.

    Args:
        path: a manifest.
        recipe: of the model; None for a geometric method, which cuts nothing.
        split: keep those of this split only.
        seed: of a crop recipe that draws its margin.
        completed_by: a manifest whose landmarks complete those of the heads; they do not move the crops.

    Raises:
        UbhpdError: no manifest, no such split, or no usable head.
    """
    table = manifest.usable(path, [*PLAN_COLUMNS], split)
    if table.num_rows == 0:
        raise UbhpdError(f"{path} has no usable head: there is nothing to predict.")
    plan = plan_of(table, recipe, manifest.header(path).fingerprint, seed)
    if completed_by is None:
        return plan
    completed = manifest.with_landmarks(table, completed_by)
    return replace(plan, landmarks=own_landmarks(completed), table=completed)


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
        texts=texts,
        frame=table.column("frame_index").fill_null(0).to_numpy(),
        size=np.stack([columns["image_width"], columns["image_height"]], axis=1).astype(np.int64),
        box=_boxes(texts, columns, recipe, seed),
        landmarks=own_landmarks(table),
        table=table,
        fingerprint=fingerprint,
    )


def _boxes(texts: dict[str, list[str]], columns: dict[str, Any], recipe: InputRecipe | None, seed: int) -> FloatArray:
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


def _of(values: Sequence[str], rows: IntArray) -> list[str]:
    return [values[i] for i in rows.tolist()]


if TYPE_CHECKING:
    from ubhpd.nn.contract import InputRecipe

Sees = Literal["crops", "landmarks", "table"]


class ManifestSource:
    """The heads of a `Plan`: crops for a network, their landmarks, or the rows of the table for a geometric method."""

    extra_columns: tuple[str, ...] = ()
    passed_over: Mapping[str, int] = MappingProxyType({})

    def __init__(self, plan: Plan, build: Path, recipe: InputRecipe | None, sees: Sees, threads: int = 0) -> None:
        """Prepare to read.

        Args:
            plan: which heads.
            build: the folder with build.json, which says where the images are.
            recipe: of the model, None for a geometric method.
            sees: what the model is fed with.
            threads: for decoding and cutting, 0 for one per core. A video is read by a single one, in order.
        """
        self._plan, self._build, self._recipe, self._sees = plan, build, recipe, sees
        is_video = any(p.lower().endswith(VIDEO_SUFFIXES) for p in set(plan.texts["image_path"]))
        self._threads = 1 if is_video else threads or cores()
        self._open = threading.local()
        self._draws = False
        self._window = plan.before(recipe.frames) if recipe and recipe.frames > 1 else None
        self.manifest_path: str | None = None  # written to the JSON file beside the predictions
        self.identity: dict[str, Any] = {"manifest": plan.fingerprint, "heads": len(plan)}
        self.total = lambda: len(plan)

    def batches(self, done: Collection[str], draws: bool) -> Iterator[Batch]:
        """Yield all heads but those done; `draws`: with their images."""
        import cv2

        self._draws = draws
        left = np.array([i for i, s in enumerate(self._plan.texts["sample_id"]) if s not in done], dtype=np.int64)
        units = [left[i : i + BATCH_HEADS] for i in range(0, len(left), BATCH_HEADS)]
        before = cv2.getNumThreads()
        cv2.setNumThreads(1)  # these threads are the parallelism; OpenCV's own would only get in their way
        try:
            yield from in_order(self._batch, units, self._threads)
        finally:
            cv2.setNumThreads(before)

    def _batch(self, rows: IntArray) -> Batch:
        if self._sees == "table":
            return Batch(self._ids(rows), heads_of(self._plan.table.take(rows)), [()] * len(rows), [], [])
        if self._recipe is None:
            raise TypeError("a network has an input recipe")
        if self._sees == "landmarks":
            return self._landmarks(rows, self._recipe)
        return self._crops(rows, self._recipe)

    def _landmarks(self, rows: IntArray, recipe: InputRecipe) -> Batch:
        points = np.full((len(rows), 68, 2), np.nan)
        for at, row in enumerate(rows.tolist()):
            if not np.isnan(self._plan.box[row]).any():
                points[at] = placed(self._plan.landmarks[row], self._plan.box[row], self._crop_recipe(row), recipe.size)
        points = points / recipe.size - 0.5
        known = ~np.isnan(points).all(axis=(1, 2))
        problems = [(i, "no 68 landmarks: fill them with ubhpd landmarks") for i in self._ids(rows[~known])]
        return Batch(self._ids(rows[known]), points[known], [()] * int(known.sum()), problems, [])

    def _crops(self, rows: IntArray, recipe: InputRecipe) -> Batch:
        """Return the crops of rows, or the sequences of crops that lead up to them."""
        window = rows[:, None] if self._window is None else self._window[rows]
        cut: dict[int, Image] = {}
        failed: dict[int, str] = {}
        drawables: dict[int, Drawable] = {}
        for row in sorted(set(window.ravel().tolist())):
            try:
                image = self._image(row)
            except UbhpdError as error:
                failed[row] = str(error)
                continue
            cut[row] = crop(image, self._plan.box[row], self._crop_recipe(row), recipe.size, recipe.colour)
            if self._draws:
                drawables[row] = Drawable(image, tuple(self._plan.box[row].tolist()))
        good = [r for r in range(len(rows)) if not any(i in failed for i in window[r].tolist())]
        shape = (recipe.size, recipe.size, 3)
        inputs = stacked([cut[i] for r in good for i in window[r].tolist()], shape)
        if self._window is not None:
            inputs = inputs.reshape(-1, recipe.frames, *shape)
        bad = sorted(set(range(len(rows))) - set(good))
        reasons = [next(failed[i] for i in window[r].tolist() if i in failed) for r in bad]
        problems = list(zip(self._ids(rows[bad]), reasons, strict=True))
        drawn = [drawables[i] for i in rows[good].tolist()] if self._draws else []
        return Batch(self._ids(rows[good]), inputs, [()] * len(good), problems, drawn)

    def _image(self, row: int) -> Image:
        """Return a head's image; each thread has its own open files."""
        if np.isnan(self._plan.box[row]).any():
            raise UbhpdError("no face box: fill it in, or predict from the folder of images with a detector")
        if not hasattr(self._open, "images"):
            self._open.images = Images.of_build(self._build)
        texts = self._plan.texts
        image: Image = self._open.images.image(
            texts["dataset"][row], texts["image_path"][row], int(self._plan.frame[row])
        )
        found, stated = (image.shape[1], image.shape[0]), tuple(self._plan.size[row].tolist())
        if found != stated:
            raise UbhpdError(
                f"{texts['image_path'][row]} has {found[0]}x{found[1]} pixels, the manifest says "
                f"{stated[0]}x{stated[1]}: build again."
            )
        return image

    def _crop_recipe(self, row: int) -> Any:
        if self._recipe is None:
            raise TypeError("a network has an input recipe")
        return recipe_named(self._recipe.crop_for(self._plan.texts["dataset"][row]))

    def _ids(self, rows: IntArray) -> list[str]:
        return [self._plan.texts["sample_id"][i] for i in rows.tolist()]
