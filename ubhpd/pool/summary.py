"""The content of a pool: heads, angles, boxes and refusals of each dataset, and deviations from the published
counts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.core.parallel import Engine
from ubhpd.core.progress import Progress
from ubhpd.core.typing import FloatArray
from ubhpd.manifest import BuildFolder
from ubhpd.pool import sources
from ubhpd.pool.build import MAX_ANGLE_DEG, BuildConfig, DatasetReport, build
from ubhpd.pool.sources import discover

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


# The published counts include heads that are refused for these reasons.
_PRESENT = ("beyond_max_angle", "undefined_pose")


class Finding(NamedTuple):
    """A difference from what was published, with the number of heads that it concerns."""

    dataset: str
    kind: str
    text: str
    heads: int


def validate_raw(
    data_root: str, names: Sequence[str] | None, check_images: bool, engine: Engine, progress: Progress
) -> list[Finding]:
    """Return the findings on raw data below a folder; of all datasets there if `names` is None.

    Raises:
        UbhpdError: a named dataset is missing, or none is there.
    """
    chosen = list(names) if names else sorted(discover(sources.builders(), data_root, {}).specs)
    if not chosen:
        raise UbhpdError(f"None of {', '.join(sources.builders())} was found in {data_root}: see ubhpd sources.")
    with tempfile.TemporaryDirectory() as folder:
        config = BuildConfig(tuple(chosen), Path(folder), data_root, check_images=check_images)
        report = build(config, engine, progress)
        warnings = [f for name, own in report.datasets.items() for f in _warnings(name, own)]
        return warnings + validate_pool(folder)


def validate_pool(place: str | Path) -> list[Finding]:
    """Return the findings on a built pool (a build's folder, or a manifest).

    Raises:
        UbhpdError: no manifest there, or not a readable one.
    """
    path = BuildFolder.at(place).pool()
    findings = []
    if not manifest.is_unchanged(path):
        findings.append(Finding("", "fingerprint", f"{path} was changed after it was built: build it again", 0))
    names = ["sample_id", "dataset", "drop_reason", "drop_detail", "yaw_deg", "pitch_deg", "roll_deg"]
    table = manifest.read(path, names, verify=False)
    known = sources.builders()
    for name in pc.unique(table.column("dataset")).to_pylist():
        own = table.filter(pc.equal(table.column("dataset"), name))
        findings += _refusals(name, own)
        if name in known:
            findings += _head_counts(known[name], own)
            findings += _out_of_range(known[name], own)
    return findings


def _warnings(name: str, report: DatasetReport) -> Iterator[Finding]:
    for note in report.notes:
        if note["is_warning"]:
            yield Finding(name, "warning", note["text"], note["count"])


def _refusals(name: str, heads: pa.Table) -> Iterator[Finding]:
    reasons = heads.column("drop_reason")
    for reason in sorted(pc.unique(reasons.drop_null()).to_pylist()):
        if reason in _PRESENT:
            continue
        refused = heads.filter(pc.equal(reasons, reason))
        yield Finding(name, reason, f"for example {refused.column('drop_detail')[0].as_py()}", refused.num_rows)


def _head_counts(builder: sources.Builder, heads: pa.Table) -> Iterator[Finding]:
    reasons = heads.column("drop_reason")
    present = heads.filter(pc.or_(reasons.is_null(), pc.is_in(reasons, pa.array(_PRESENT)))).column("sample_id")
    absent: dict[str, int] = {}
    for prefix, published in builder.PUBLISHED.items():
        heads_found = pc.sum(pc.starts_with(present, prefix)).as_py() or 0
        if heads_found == 0:
            absent[prefix] = published
        elif heads_found != published:
            yield Finding(builder.NAME, "count", f"{prefix} has {heads_found:,} of {published:,} published heads",
                          abs(published - heads_found))  # fmt: skip
    if absent:
        listed = ", ".join(absent)
        yield Finding(builder.NAME, "absent", f"nothing of {listed} is there", sum(absent.values()))


def _out_of_range(builder: sources.Builder, heads: pa.Table) -> Iterator[Finding]:
    """Compare the heads beyond the literature's 99 degrees with the published list, where there is one."""
    ids = np.array(heads.column("sample_id").to_pylist())
    angles = np.stack([heads.column(f"{a}_deg").to_numpy() for a in ("yaw", "pitch", "roll")], axis=1)
    beyond = set(ids[(np.abs(angles.astype(np.float64)) > MAX_ANGLE_DEG).any(axis=1)].tolist())
    expected = builder.OUT_OF_RANGE & set(ids.tolist())
    if not builder.OUT_OF_RANGE or beyond == expected:
        return
    for kind, wrong in (("beyond", beyond - expected), ("not beyond", expected - beyond)):
        if wrong:
            yield Finding(builder.NAME, "out_of_range", f"{kind} {MAX_ANGLE_DEG:g} degrees, unlike the published list: "
                          f"{', '.join(sorted(wrong)[:5])}", len(wrong))  # fmt: skip
