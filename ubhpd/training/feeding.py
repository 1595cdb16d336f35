"""Training heads as batches: shuffled, augmented, and prepared by threads while the network computes.

What a batch holds is a function of (seed, epoch, place in the epoch) alone. Resuming after an
interruption therefore needs no saved random state, and the batches do not depend on the number of threads or processes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch.utils.data import Dataset

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.core.progress import Progress
from ubhpd.core.rotation import matrix_from_euler
from ubhpd.core.typing import FloatArray, Image, IntArray
from ubhpd.images.crops import recipe_named
from ubhpd.inference.manifest_source import plan_of
from ubhpd.inference.prediction_file import cores, in_order
from ubhpd.manifest.build_folder import BuildFolder, readmitted
from ubhpd.manifest.schema import NAMES, matrix
from ubhpd.nn.contract import InputRecipe, Target
from ubhpd.protocols.resolve import resolve
from ubhpd.training.augmentations import Augmentation, Sample, augmentation, window
from ubhpd.training.crop_cache import crops_of
from ubhpd.training.training_heads import angles_deg

# More threads are slower, on 16 cores too: Python runs one at a time, and each call of OpenCV has to wait for the GIL
# again.
_THREADS, _THREADS_SMALL, _SMALL = 4, 2, 64  # _SMALL: side of crops in pixels up to which _THREADS_SMALL is used

_ORDER, _CHANGES = 0, 1  # first element of a seed: the order of heads, or the augmentation


@dataclass(frozen=True)
class TrainingHeads:
    """n heads with all that is known of them.

    sample_id: n names. angles_deg: canonical yaw, pitch, roll (n, 3). pixels: crops (n, size, size, 3), None for a
    network that sees landmarks. landmarks: (n, 68, 2) in pixels of the crop, NaN where not known; None if none is.
    size: side of the crop. window: rows (n, frames) that make up the sequence of each head, None for single images.
    """

    sample_id: list[str]
    angles_deg: FloatArray
    pixels: Image | None
    landmarks: FloatArray | None
    size: int
    window: IntArray | None = None

    def sequence(self, row: int) -> IntArray:
        """Return the rows whose images the network sees of a head, its own last."""
        return np.array([row]) if self.window is None else self.window[row]


class HeadBatch(NamedTuple):
    """Some heads for a network: rows (n,), uint8 crops (n, [frames,] size, size, 3) or landmarks, and the truth."""

    rows: IntArray
    inputs: torch.Tensor
    target: Target

    def to(self, device: torch.device) -> HeadBatch:
        """Return the batch on a device; from pinned memory the copy runs beside the network's work."""
        moved = [None if t is None else t.to(device, non_blocking=True) for t in self.target]
        return HeadBatch(self.rows, self.inputs.to(device, non_blocking=True), Target(*moved))  # type: ignore[arg-type]


class Order:
    """Which heads make up which batch of which epoch."""

    def __init__(
        self, rows: IntArray, batch_size: int, seed: int, share: FloatArray | None = None, parts: int = 1
    ) -> None:
        """Fix the heads and the batch size; no batch is drawn yet.

        Args:
            rows: to train on.
            batch_size: heads per batch; the last, incomplete one of an epoch is left out.
            seed: of the shuffling.
            share: weights (n,) to draw by, with replacement; None to take every head once per epoch.
            parts: number of processes that a batch is divided among.

        Raises:
            UbhpdError: the batch cannot be divided.
        """
        self._rows, self._seed = rows, seed
        self._share = None if share is None else share / share.sum()
        if batch_size % parts or len(rows) < parts:
            raise UbhpdError(
                f"A batch of {batch_size} out of {len(rows):,} heads cannot be divided among {parts} processes: give "
                "another --batch-size."
            )
        self.batch_size = min(batch_size, len(rows) // parts * parts)
        self.steps = len(rows) // self.batch_size
        self._epoch: tuple[int, IntArray] | None = None

    def batch(self, epoch: int, step: int) -> IntArray:
        """Return the rows of a batch."""
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = (epoch, self._shuffled(epoch))
        return self._epoch[1][step * self.batch_size : (step + 1) * self.batch_size]

    def _shuffled(self, epoch: int) -> IntArray:
        draw = np.random.default_rng((self._seed, _ORDER, epoch))
        if self._share is None:
            return draw.permutation(self._rows)
        return draw.choice(self._rows, len(self._rows), p=self._share)


class Feed:
    """Batches of augmented heads."""

    def __init__(self, heads: TrainingHeads, recipe: InputRecipe, names: tuple[str, ...], seed: int, threads: int = 0,
                 pinned: bool = False) -> None:  # fmt: skip
        """Start the threads that prepare batches.

        Args:
            heads: to take from.
            recipe: of the model.
            names: of augmentations.
            seed: of the augmentation.
            threads: that prepare batches, 0 for as many as serve a GPU best, and one per core at most.
            pinned: put batches where a GPU can fetch them by itself.

        Raises:
            UbhpdError: an augmentation that there is not, or any for a network that sees landmarks.
        """
        if names and heads.pixels is None:
            raise UbhpdError(f"The augmentation {names[0]} changes images, and this model sees landmarks only.")
        self._heads, self._recipe, self._seed = heads, recipe, seed
        # Landmarks without images are relative to the crop that they were placed in.
        self._size = heads.size if heads.pixels is None else recipe.size
        self._change = augmentation(names) if names else None
        best = _THREADS_SMALL if recipe.size <= _SMALL else _THREADS
        self._threads, self._pinned = threads or min(cores(), best), pinned

    def batches(self, wanted: Iterator[tuple[int, int, IntArray]]) -> Generator[HeadBatch, None, None]:
        """Yield a batch for each (epoch, place of its first head in the epoch, rows), in order, changed at random."""
        return self._prepared(lambda item: self._batch(item[2], self._draws(item[0], item[1])), wanted)

    def unchanged(self, wanted: Iterator[IntArray]) -> Generator[HeadBatch, None, None]:
        """Yield a batch for each of several rows, in order, as the heads are."""
        return self._prepared(lambda rows: self._batch(rows, None), wanted)

    def _prepared(self, work: Callable[..., HeadBatch], items: Iterator[Any]) -> Generator[HeadBatch, None, None]:
        before = cv2.getNumThreads()
        cv2.setNumThreads(1)  # these threads are the parallelism; OpenCV's own would only get in their way
        try:
            yield from in_order(work, items, self._threads)
        finally:
            cv2.setNumThreads(before)

    def _draws(self, epoch: int, first: int) -> Callable[[int], np.random.Generator] | None:
        if self._change is None and self._size == self._heads.size:
            return None
        return lambda at: np.random.default_rng((self._seed, _CHANGES, epoch, first + at))

    def _batch(self, rows: IntArray, draws: Callable[[int], np.random.Generator] | None) -> HeadBatch:
        heads = self._heads
        angles = heads.angles_deg[rows].copy()
        points = None if heads.landmarks is None else heads.landmarks[rows].copy()
        if heads.pixels is None:
            inputs = self._tensor((len(rows), 68, 2), torch.float32)
            inputs.numpy()[:] = self._relative(points)
            return HeadBatch(rows, inputs, self._target(angles, points))
        frames = () if heads.window is None else (heads.window.shape[1],)
        inputs = self._tensor((len(rows), *frames, self._size, self._size, 3), torch.uint8)
        images = inputs.numpy().reshape(len(rows), -1, self._size, self._size, 3)
        for at, row in enumerate(rows.tolist()):
            for frame, source in enumerate(heads.sequence(row).tolist()):
                sample = Sample(heads.pixels[source], angles[at], None if points is None else points[at])
                # Each image of a sequence is changed by the same numbers.
                changed = self._seen(sample, None if draws is None else draws(at))
                images[at, frame] = changed.pixels
            angles[at] = changed.angles_deg
            if points is not None and changed.landmarks68 is not None:
                points[at] = changed.landmarks68
        return HeadBatch(rows, inputs, self._target(angles, points))

    def _seen(self, sample: Sample, draw: np.random.Generator | None) -> Sample:
        """Return a head as the network sees it: a window of a larger crop, then augmented, if numbers are drawn."""
        if sample.side != self._size:
            sample = window(sample, self._size, draw)
        change: Augmentation | None = self._change
        return sample if change is None or draw is None else change(sample, draw)

    def _target(self, angles: FloatArray, points: FloatArray | None) -> Target:
        angles_deg = self._tensor(angles.shape, torch.float32)
        angles_deg.numpy()[:] = angles
        # In double precision first: it is the truth that errors are measured from.
        rotation = self._tensor((len(angles), 3, 3), torch.float32)
        rotation.numpy()[:] = matrix_from_euler(angles)
        landmarks = None
        if points is not None:
            landmarks = self._tensor(points.shape, torch.float32)
            landmarks.numpy()[:] = self._relative(points)
        return Target(angles_deg, rotation, landmarks)

    def _relative(self, points: FloatArray | None) -> FloatArray:
        if points is None:
            raise UbhpdError(
                "This model sees landmarks, and none of these heads has any: fill them with ubhpd landmarks."
            )
        return points / self._size - 0.5

    def _tensor(self, shape: tuple[int, ...], kind: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=kind, pin_memory=self._pinned)


def normalised(inputs: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, channels_last: bool) -> torch.Tensor:
    """Return what a network sees of a batch's inputs: crops as (n, [frames,] 3, size, size), landmarks as they are.

    Args:
        inputs: uint8 (n, [frames,] size, size, 3), or landmarks.
        mean: (3, 1, 1), as in `InputRecipe`.
        std: likewise.
        channels_last: leave the channels innermost in memory, where they are.
    """
    if inputs.dtype != torch.uint8:
        return inputs
    images = (inputs.movedim(-1, -3).to(mean.dtype) - mean) / std
    return images if channels_last else images.contiguous()


SPLITS = ("train", "test")


class HeadDataset(Dataset[tuple[Any, dict[str, Any]]]):
    """Heads as (image, target).

    image: float32 (3, size, size), RGB, 0 to 1; or what `transform` makes of the crop, uint8 (size, size, 3) RGB.
    target: sample_id, dataset; angles_deg, canonical yaw, pitch, roll, float32 (3,); rotation, float32 (3, 3), from
    head coordinates to frame C of docs/conventions.md. problems: (sample_id, reason) of heads that are left out because
    they have no crop.
    """

    def __init__(
        self,
        pixels: Image,
        rows: IntArray,
        table: pa.Table,
        problems: list[tuple[str, str]],
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        """Keep crops (n, size, size, 3), uint8 RGB, and the rows (m,) of `table` and `pixels` that are used."""
        self._pixels, self._rows, self._transform = pixels, rows, transform
        chosen = table.take(pa.array(rows))
        self.sample_id: list[str] = chosen.column("sample_id").to_pylist()
        self.dataset: list[str] = chosen.column("dataset").to_pylist()
        self.angles_deg: FloatArray = angles_deg(chosen)
        self.rotation: FloatArray = matrix(chosen.column("rotation"), 9).reshape(-1, 3, 3)
        self.problems = problems

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Any]]:
        crop = np.array(self._pixels[self._rows[index]])
        if self._transform is not None:
            image = self._transform(crop)
        else:
            image = torch.from_numpy(crop).permute(2, 0, 1).float() / 255
        return image, {
            "sample_id": self.sample_id[index],
            "dataset": self.dataset[index],
            "angles_deg": torch.from_numpy(self.angles_deg[index].astype(np.float32)),
            "rotation": torch.from_numpy(self.rotation[index].astype(np.float32)),
        }


def head_dataset(
    build: Path,
    split: str,
    *,
    crop: str = "square",
    size: int | None = None,
    transform: Callable[[Any], Any] | None = None,
    protocol: str | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> HeadDataset:
    """Return the heads of a split of UBHPD, or of one of the two sets of a protocol; see `ubhpd.Build.dataset`.

    Raises:
        UbhpdError: no build, no such split, recipe or protocol, or no image that can be cut.
    """
    if split not in SPLITS:
        raise UbhpdError(f"There is no split {split!r}: choose {' or '.join(SPLITS)}.")
    side = size if size is not None else recipe_named(crop).size
    if side is None or side < 1:
        raise UbhpdError(f"The crop recipe {crop!r} needs a size of at least 1 pixel: give size.")
    table, fingerprint = _rows(BuildFolder.at(build), split, protocol)
    recipe = InputRecipe(crop, side)
    plan = plan_of(table, recipe, fingerprint)
    crops = crops_of(plan, recipe, build, cache or build / "work" / "crops", progress or Progress(show=False))
    return HeadDataset(crops.pixels, np.flatnonzero(crops.is_cut), table, crops.problems, transform)


def _rows(folder: BuildFolder, split: str, protocol: str | None) -> tuple[pa.Table, str]:
    """Return the usable heads of a split, every column of a manifest, and the fingerprint of the manifest."""
    folder.check()
    if protocol is None:
        path = folder.require("ubhpd")
        return manifest.usable(path, NAMES, split).select(NAMES), manifest.header(path).fingerprint
    found = resolve(protocol, folder.folder)
    path = folder.require(getattr(found.protocol, split).table)
    names = pa.array(getattr(found, split), pa.string())
    batches = [b.filter(pc.is_in(b.column("sample_id"), value_set=names)) for b in manifest.iterate(path, NAMES)]
    return readmitted(pa.Table.from_batches(batches)), manifest.header(path).fingerprint
