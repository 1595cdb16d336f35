"""The heads of a split as a torch Dataset, for training loops outside this package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch.utils.data import Dataset

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.core.progress import Progress
from ubhpd.core.typing import FloatArray, Image, IntArray
from ubhpd.images.crops import recipe_named
from ubhpd.inference.manifest_source import plan_of
from ubhpd.manifest.build_folder import BuildFolder, readmitted
from ubhpd.manifest.schema import NAMES, matrix
from ubhpd.nn.contract import InputRecipe
from ubhpd.protocols.resolve import resolve
from ubhpd.training.crop_cache import crops_of
from ubhpd.training.training_heads import angles_deg

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
