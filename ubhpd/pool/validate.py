"""A pool, or raw data, against what was published of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.core.parallel import Engine
from ubhpd.core.progress import Progress
from ubhpd.manifest import BuildFolder
from ubhpd.pool import sources
from ubhpd.pool.build import MAX_ANGLE_DEG, BuildConfig, DatasetReport, build
from ubhpd.pool.sources import discover

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
            findings += _counts(known[name], own)
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


def _counts(builder: sources.Builder, heads: pa.Table) -> Iterator[Finding]:
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
