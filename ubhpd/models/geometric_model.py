"""The rows of a manifest as the heads that a geometric method or a landmark network sees.

Runs a geometric method: a baseline without a network, with the parameters it was fitted to. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.core.records import OF_SOURCE_PHOTO
from ubhpd.core.typing import FloatArray
from ubhpd.manifest import BuildFolder
from ubhpd.manifest.schema import matrix
from ubhpd.models import checkpoint
from ubhpd.models.catalogue import ModelCard, card, config_of, configured, module_of
from ubhpd.nn.inputs import Heads, Parameters

COLUMNS = (
    "sample_id", "yaw_deg", "pitch_deg", "roll_deg", "rotation", "landmarks68", "landmarks_kind", "image_width",
    "image_height",
)  # fmt: skip
_ANGLES = COLUMNS[1:4]


def heads_of(table: pa.Table) -> Heads:
    """Return the rows of a manifest's table as heads; a column that is not there counts as not known.

    Raises:
        UbhpdError: the table has no column sample_id.
    """
    there = set(table.column_names)
    if "sample_id" not in there:
        raise UbhpdError("The table has no column sample_id, so it is no manifest: read one by ubhpd.manifest.read.")
    return Heads(
        table.column("sample_id").to_pylist(),
        np.stack([_numbers(table, n) for n in _ANGLES], axis=1) if there.issuperset(_ANGLES) else None,
        _matrix(table, "rotation", 9).reshape(-1, 3, 3) if "rotation" in there else None,
        own_landmarks(table),
        np.stack([_numbers(table, n) for n in ("image_width", "image_height")], axis=1),
        table.column("landmarks_kind").to_pylist() if "landmarks_kind" in there else None,
    )


def own_landmarks(table: pa.Table) -> FloatArray:
    """Return the 68 points (n, 68, 2) of the rows in pixels, NaN where there are none.

    Points of the photograph behind a warped image, which is what 300W-LP publishes, lie beside its face: they
    count as none.
    """
    points = _matrix(table, "landmarks68", 136).reshape(-1, 68, 2)
    if "landmarks_kind" in table.column_names:
        kinds = table.column("landmarks_kind").fill_null("")
        points[np.asarray(pc.ends_with(kinds, OF_SOURCE_PHOTO))] = np.nan
    return points


def _numbers(table: pa.Table, name: str) -> FloatArray:
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    return np.asarray(table.column(name).cast(pa.float64()).to_numpy(), dtype=np.float64)


def _matrix(table: pa.Table, name: str, length: int) -> FloatArray:
    if name not in table.column_names:
        return np.full((table.num_rows, length), np.nan)
    return matrix(table.column(name), length)


@dataclass(frozen=True)
class GeometricMethod:
    """A module of KIND "geometric" with its options and parameters."""

    name: str
    module: Any
    config: Any
    parameters: Parameters
    about: checkpoint.About

    @classmethod
    def fitted(cls, name: str, chosen: Mapping[str, str], heads: Heads, origin: Mapping[str, Any]) -> GeometricMethod:
        """Return a geometric method fitted to heads of known pose; `origin` says where they are from.

        Raises:
            UbhpdError: the model is no geometric method, an option is wrong, or the heads do not do.
        """
        _checked(card(name))
        module, config = configured(name, chosen)
        if heads.angles_deg is None or heads.rotation is None or not heads.sample_id:
            raise UbhpdError(f"{name} is fitted to heads of known pose: give a manifest with usable heads.")
        parameters = {key: np.asarray(value) for key, value in module.fit(config, heads).items()}
        checkpoint.check_finite(parameters, name)
        about = checkpoint.About(
            name, asdict(config), None, {"how": "fitted", **origin, "heads": len(heads.sample_id)},
            "that of the heads it was fitted to",
        )  # fmt: skip
        return cls(name, module, config, parameters, about)

    @classmethod
    def of_checkpoint(cls, path: Path, name: str | None = None) -> GeometricMethod:
        """Return the geometric method that a checkpoint holds; `name`: refuse another. Errors as `checkpoint.load`."""
        about, tensors = checkpoint.load(path, name)
        found = card(about.model)
        _checked(found)
        module = module_of(found)
        return cls(about.model, module, config_of(module, about.config, f"{path}: {about.model}"), tensors, about)

    def solve(self, heads: Heads) -> FloatArray:
        """Return yaw, pitch, roll (n, 3) in degrees or rotations (n, 3, 3), NaN where it cannot.

        Raises:
            UbhpdError: the geometric method lacks a parameter, or returns another shape.
        """
        try:
            found = np.asarray(self.module.solve(self.config, self.parameters, heads), dtype=np.float64)
        except KeyError as error:
            raise UbhpdError(f"{self.name} lacks the parameter {error}: fit it again by ubhpd weights fit.") from None
        if found.shape[1:] not in ((3,), (3, 3)) or len(found) != len(heads.sample_id):
            raise UbhpdError(f"{self.name} gave poses of shape {found.shape} for {len(heads.sample_id)} heads.")
        return found

    def save(self, path: Path) -> checkpoint.About:
        """Write the geometric method's checkpoint and return what it says of itself."""
        return checkpoint.save(path, self.parameters, self.about)


def training_heads(place: Path, split: str | None) -> tuple[Heads, dict[str, Any]]:
    """Return the usable heads of a manifest or of a build's folder, or of one split, and their origin.

    Raises:
        UbhpdError: no manifest, no such split, or no usable head in it.
    """
    path = BuildFolder.at(place).manifest()
    table = manifest.usable(path, COLUMNS, split)
    mark = manifest.header(path).fingerprint
    return heads_of(table), {"manifest": path.name, "fingerprint": mark, "split": split}


def _checked(found: ModelCard) -> None:
    if found.kind != "geometric":
        raise UbhpdError(f"{found.name} is no geometric method, so it is not fitted: see ubhpd models {found.name}.")
