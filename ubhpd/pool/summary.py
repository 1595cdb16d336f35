"""What is in a pool: heads, angles, boxes and refusals of each dataset."""

from __future__ import annotations

import os
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ubhpd import manifest
from ubhpd.core.typing import FloatArray
from ubhpd.manifest import BuildFolder

_ANGLES = ("yaw", "pitch", "roll")


def summarise(place: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the fingerprint and, per dataset, counts and the range and spread of the usable heads' angles.

    Raises:
        UbhpdError: no manifest there, or not a readable one.
    """
    path = BuildFolder.at(place).pool()
    names = ["dataset", "drop_reason", "bbox_kind", "landmarks_kind", "subject_id", "synthetic"]
    table = manifest.read(path, [*names, *(f"{a}_deg" for a in _ANGLES)])
    datasets = {}
    for name in pc.unique(table.column("dataset")).to_pylist():
        own = table.filter(pc.equal(table.column("dataset"), name))
        usable = own.filter(own.column("drop_reason").is_null())
        datasets[name] = {
            "heads": own.num_rows,
            "usable": usable.num_rows,
            "dropped": _counts(own, "drop_reason"),
            "boxes": _counts(usable, "bbox_kind"),
            "landmarks": _counts(usable, "landmarks_kind"),
            "subjects": pc.count_distinct(usable.column("subject_id")).as_py(),
            "synthetic": pc.sum(usable.column("synthetic")).as_py() or 0,
            "angles_deg": {a: _spread(usable.column(f"{a}_deg").to_numpy()) for a in _ANGLES},
        }
    return {"manifest": str(path), "fingerprint": manifest.header(path).fingerprint, "datasets": datasets}


def dropped_heads(place: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Return sample_id, reason and detail of every refused head, in the pool's order.

    Raises:
        UbhpdError: no manifest there, or not a readable one.
    """
    table = manifest.read(BuildFolder.at(place).pool(), ["sample_id", "drop_reason", "drop_detail"])
    refused: list[dict[str, str]] = table.filter(table.column("drop_reason").is_valid()).to_pylist()
    return refused


def _counts(table: pa.Table, column: str) -> dict[str, int]:
    counts = pc.value_counts(table.column(column).drop_null()).to_pylist()
    return dict(sorted((e["values"], e["counts"]) for e in counts))


def _spread(angles: FloatArray) -> dict[str, float] | None:
    if not len(angles):
        return None
    return {
        "min": float(angles.min()),
        "max": float(angles.max()),
        "mean": float(angles.mean()),
        "std": float(angles.std()),
    }
