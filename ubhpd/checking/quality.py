"""Suspicious heads, found by looking at the manifest alone: labels, boxes and landmarks that cannot be quite right.

A flag is a hint for a person, not a verdict: it has a code of FLAGS, a number and a sentence. Heads that are
refused already are not looked at, except those that an earlier review or these flags have taken out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ubhpd import manifest
from ubhpd.checking import checks
from ubhpd.checking.checks import FLAGS, Flag, Thresholds
from ubhpd.errors import UbhpdError
from ubhpd.files import replacing
from ubhpd.progress import Progress

__all__ = ["COLUMNS", "FLAGS", "REVIEWED", "Thresholds", "check", "check_manifest", "write_flags"]

REVIEWED = ("rejected_by_review", "flagged")  # reasons that stem from here, so these heads are looked at again
COLUMNS: tuple[str, ...] = (
    "sample_id",
    "dataset",
    "image_path",
    "frame_index",
    "image_width",
    "image_height",
    "bbox_xyxy",
    "bbox_kind",
    "landmarks68",
    "landmarks21",
    "landmarks_kind",
    "yaw_deg",
    "pitch_deg",
    "roll_deg",
    "rotation",
    "source_photo",
    "drop_reason",
)
RESULT = pa.schema(
    [("sample_id", pa.string()), ("flag", pa.string()), ("value", pa.float64()), ("detail", pa.string())]
)
VERSION = 1  # of the checks: another one does not use the flags kept of the last

_BATCH = 4096


def check(
    batches: pa.Table | Iterable[pa.RecordBatch],
    thresholds: Thresholds | None = None,
    advance: Callable[[int], None] | None = None,
) -> pa.Table:
    """Return the flags of a manifest's heads as sample_id, flag, value, detail, in the order of the rows.

    Args:
        batches: a table with COLUMNS, or its batches one after the other.
        thresholds: what is suspicious.
        advance: is told how many rows are done.
    """
    limits = thresholds or Thresholds()
    pieces = batches.select(COLUMNS).to_batches(_BATCH) if isinstance(batches, pa.Table) else batches
    flags: list[Flag] = []
    fitted: dict[str, list[checks.Fitted]] = {}
    light: list[pa.RecordBatch] = []
    start = 0
    for batch in pieces:
        used = batch.column("drop_reason").is_null().to_numpy(zero_copy_only=False)
        used = used | pc.is_in(batch.column("drop_reason"), pa.array(REVIEWED)).to_numpy(zero_copy_only=False)
        own, rows = batch.filter(pa.array(used)), start + np.flatnonzero(used)
        if own.num_rows:
            flags += checks.labels(own, rows, limits)
            flags += checks.boxes(own, rows, limits)
            flags += checks.landmarks(own, rows, limits)
            for kind, heads in checks.fits(own, rows, limits):
                fitted.setdefault(kind, []).append(heads)
            light.append(own.select(["sample_id", *checks.FOR_DUPLICATES]).append_column("row", pa.array(rows)))
        start += batch.num_rows
        if advance:
            advance(batch.num_rows)
    if not light:
        return RESULT.empty_table()
    heads = pa.Table.from_batches(light)
    flags += [flag for heads_of_kind in fitted.values() for flag in checks.poses(heads_of_kind, limits)]
    flags += checks.duplicates(heads, limits)
    flags.sort()
    place = np.searchsorted(heads.column("row").to_numpy(), [f.row for f in flags])
    codes = list(FLAGS)
    columns = {
        "sample_id": heads.column("sample_id").take(pa.array(place, pa.int64())),
        "flag": pa.array([codes[f.order] for f in flags], pa.string()),
        "value": pa.array([f.value for f in flags], pa.float64()),
        "detail": pa.array([f.detail for f in flags], pa.string()),
    }
    return pa.table(columns, schema=RESULT)


def check_manifest(path: Path, thresholds: Thresholds | None = None, progress: Progress | None = None) -> pa.Table:
    """Return the flags of a manifest; beside a build.json they are kept in its folder work, and found again.

    Raises:
        UbhpdError: no manifest there, or not a readable one.
    """
    limits = thresholds or Thresholds()
    head = manifest.header(path)
    mark = hashlib.sha256(f"{VERSION} {head.fingerprint} {limits}".encode()).hexdigest()
    kept = path.parent / "work" / f"flags-{mark[:16]}.parquet"
    if kept.is_file():
        table: pa.Table = pq.read_table(kept)
        return table
    with (progress or Progress(show=False)).bar("checking heads", head.rows) as advance:
        table = check(manifest.iterate(path, COLUMNS), limits, advance)
    if (path.parent / "build.json").is_file():
        with replacing(kept) as part:
            pq.write_table(table, part)
    return table


def write_flags(flags: pa.Table, path: Path) -> None:
    """Write flags as CSV: sample_id,flag,value,detail."""
    from pyarrow import csv

    try:
        with replacing(path) as part:
            csv.write_csv(flags, part, csv.WriteOptions(quoting_style="needed"))
    except OSError as error:
        raise UbhpdError(f"Cannot write the flags to {path} ({error.strerror}): choose another file.") from None
