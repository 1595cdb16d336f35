"""Predictions set beside their truth: from the file's own columns, or from a manifest by id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd import manifest
from ubhpd.errors import UbhpdError
from ubhpd.scores.predictions import GROUPS, Predictions
from ubhpd.scores.scoring import Pairs

Array = npt.NDArray[np.float64]
_COLUMNS = ("sample_id", "yaw_deg", "pitch_deg", "roll_deg", "rotation", "subject_id", "sequence_id", "drop_reason")


@dataclass(frozen=True)
class Paired:
    """Heads with a prediction and a truth, in the order of the file, and how many there should be.

    `wanted` counts the usable heads of the manifest or the protocol (or the rows of the file), `missing` those
    without a prediction, `refused` predictions for heads that the manifest dropped or the protocol leaves out.
    `groups` has codes (n,), 0 upwards, of subjects and sequences, where known for every head.
    """

    pairs: Pairs
    sample_id: pa.Array
    groups: dict[str, npt.NDArray[np.int64]]
    truth: str
    wanted: int
    missing: int
    refused: int
    example_missing: str | None = None
    fingerprint: str | None = None

    @property
    def coverage(self) -> float:
        """Share of the wanted heads that have a prediction."""
        return len(self.sample_id) / self.wanted if self.wanted else float("nan")


def pair(
    predictions: Predictions, manifest_path: str | Path | None = None, only: Sequence[str] | None = None
) -> Paired:
    """Return the predictions with their truth.

    Args:
        predictions: of `ubhpd.scores.predictions.read`.
        manifest_path: a manifest or a build's folder; none to take the truth that the file carries.
        only: ids of the heads that count, usable or not; by default the usable ones of the manifest.

    Raises:
        UbhpdError: neither a manifest nor truth in the file; ids that the manifest does not have; a bad manifest.
    """
    if manifest_path is None:
        return _own_truth(predictions)
    return _with_manifest(predictions, Path(manifest_path), only)


def truth_table(path: Path) -> tuple[pa.Table, str]:
    """Return the columns of a manifest that scoring needs, and its fingerprint."""
    if path.is_dir():
        path = path / "pool.parquet"
    head = manifest.header(path)
    return manifest.read(path, _COLUMNS), head.fingerprint


def angles(table: pa.Table) -> Array:
    """Return yaw, pitch, roll (n, 3) in degrees of a manifest table, NaN where there is none."""
    ypr: Array = np.stack([table.column(f"{a}_deg").to_numpy() for a in ("yaw", "pitch", "roll")]).T
    return ypr


def _own_truth(predictions: Predictions) -> Paired:
    if predictions.true_deg is None:
        raise UbhpdError(
            f"{predictions.path} has no truth (columns yaw_true,pitch_true,roll_true): give --manifest, or add them."
        )
    pairs = Pairs(predictions.predicted_deg, predictions.true_deg, predictions.predicted_rotation)
    groups = {name: codes for name in GROUPS if (codes := _codes(predictions.groups.get(name))) is not None}
    return Paired(pairs, predictions.sample_id, groups, "columns of the file", len(predictions), 0, 0)


def _with_manifest(predictions: Predictions, path: Path, only: Sequence[str] | None) -> Paired:
    table, fingerprint = truth_table(path)
    ids = table.column("sample_id").combine_chunks()
    place = _places(predictions.sample_id, ids)
    if place.null_count:
        row = pc.index(pc.is_null(place), True).as_py()
        what = "None" if place.null_count == len(place) else f"{place.null_count:,} of {len(place):,}"
        example = f"; the manifest has ids like {ids[0].as_py()!r}" if len(ids) else ""
        raise UbhpdError(
            f"{predictions.path}, row {row + 1}: the id {predictions.sample_id[row].as_py()!r} is not in {path} "
            f"({what} {'of the ids is' if what == 'None' else 'ids are not'} there{example})."
        )
    rows = place.to_numpy()
    wanted = table.column("drop_reason").is_null() if only is None else pc.is_in(ids, value_set=pa.array(only))
    usable = wanted.to_numpy(zero_copy_only=False) & np.isfinite(angles(table)).all(axis=1)
    kept = usable[rows]
    rows_kept = rows[kept]
    found = np.zeros(len(ids), dtype=bool)
    found[rows_kept] = True
    absent = np.flatnonzero(usable & ~found)
    if not len(rows_kept):
        raise UbhpdError(f"{predictions.path}: none of its heads counts in {path}, so there is nothing to score.")
    rotation = table.column("rotation").combine_chunks()
    matrices = None
    if rotation.null_count == 0 or pc.is_valid(rotation).to_numpy(zero_copy_only=False)[rows_kept].all():
        matrices = pc.list_flatten(rotation.take(pa.array(rows_kept))).to_numpy().reshape(-1, 3, 3)
    own = predictions.predicted_rotation
    pairs = Pairs(
        _fortran(predictions.predicted_deg, kept),
        _fortran(angles(table), rows_kept),
        None if own is None else own[kept],
        matrices,
    )
    groups = {
        name: codes
        for name in GROUPS
        if (codes := _codes(table.column(name).combine_chunks().take(pa.array(rows_kept)))) is not None
    }
    return Paired(
        pairs,
        predictions.sample_id if kept.all() else predictions.sample_id.filter(pa.array(kept)),
        groups,
        str(path),
        int(usable.sum()),
        len(absent),
        int((~kept).sum()),
        ids[int(absent[0])].as_py() if len(absent) else None,
        fingerprint,
    )


def _places(wanted: pa.Array, ids: pa.Array) -> pa.Array:
    """Return the row of each wanted id, null where there is none."""
    if len(wanted) == len(ids) and wanted.equals(ids):
        return pa.array(np.arange(len(ids)))
    return pc.index_in(wanted, value_set=ids)


def _fortran(values: Array, rows: npt.NDArray[Any]) -> Array:
    chosen: Array = np.stack([values[:, j][rows] for j in range(3)]).T
    return chosen


def _codes(names: pa.Array | None) -> npt.NDArray[np.int64] | None:
    """Return codes in the order of the sorted names, so that resamples do not depend on the order of the file."""
    if names is None or names.null_count or not len(names):
        return None
    encoded = names.dictionary_encode()
    order = np.argsort(np.argsort(np.array(encoded.dictionary.to_pylist(), dtype=str)))
    codes: npt.NDArray[np.int64] = order[encoded.indices.to_numpy()].astype(np.int64)
    return codes
