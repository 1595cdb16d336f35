"""The two splits of a protocol on a build: their rows, what a result says of them, and the test split as a manifest."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from ubhpd import manifest
from ubhpd.core import bins
from ubhpd.core.bins import ANGLES
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing
from ubhpd.evaluation.pairing import angles
from ubhpd.leaderboards.result import Split
from ubhpd.manifest import BuildFolder, readmitted
from ubhpd.manifest.schema import COLUMNS, NAMES, Fingerprint
from ubhpd.protocols.resolve import Resolution, ids_hash, resolve

GROUPS_TO_RESAMPLE = 10  # percentile intervals of fewer persons or recordings say little


class Splits(NamedTuple):
    """A protocol on a build: rows of the manifest that train and that test, all usable, and what they are."""

    resolution: Resolution
    train_rows: pa.Table
    test_rows: pa.Table
    train: Split
    test: Split


def splits_of(protocol_id: str, data: Path, frames: Path | None = None, seed: int = 0) -> Splits:
    """Return both splits of a protocol on the build in the folder `data`; other arguments and errors as `resolve`."""
    resolution = resolve(protocol_id, data, frames, seed)
    own = resolution.protocol
    train_rows = _rows(data, own.train.table, resolution.train)
    test_rows = _rows(data, own.test.table, resolution.test)
    return Splits(resolution, train_rows, test_rows, _side(train_rows), _side(test_rows))


def write_test_manifest(splits: Splits, data: Path, folder: Path) -> Path:
    """Write the test split as a manifest of its own, with the build's record of where images are, and return it."""
    path = folder / "pool.parquet"
    if not (path.is_file() and manifest.header(path).fingerprint == splits.test.fingerprint):
        manifest.write_parquet([splits.test_rows], path)
    with replacing(folder / "build.json") as part:
        try:
            shutil.copyfile(BuildFolder(data).record_path, part)
        except OSError as error:
            raise UbhpdError(f"Cannot read {BuildFolder(data).record_path} ({error.strerror}): build again.") from None
    return path


def resampled(test_rows: pa.Table) -> str:
    """Return what intervals resample: persons, else recordings, where enough are known of every head, else heads."""
    for over, column in (("subjects", "subject_id"), ("sequences", "sequence_id")):
        names = test_rows.column(column)
        if not names.null_count and len(pc.unique(names)) >= GROUPS_TO_RESAMPLE:
            return over
    return "samples"


def _rows(data: Path, table: str, names: tuple[str, ...]) -> pa.Table:
    path = BuildFolder(data).require(table)
    wanted = pa.array(names, pa.string())
    batches = (b.filter(pc.is_in(b.column("sample_id"), value_set=wanted)) for b in manifest.iterate(path, NAMES))
    return readmitted(pa.Table.from_batches(batches))


def _side(rows: pa.Table) -> Split:
    mark = Fingerprint(COLUMNS)
    mark.update(rows)
    counted = bins.counts(angles(rows))
    datasets = {r["values"]: r["counts"] for r in rows.column("dataset").value_counts().to_pylist()}
    return Split(
        rows.num_rows,
        ids_hash(rows.column("sample_id").to_pylist()),
        mark.hexdigest(),
        dict(sorted(datasets.items())),
        {a: tuple(own) for a, own in zip(ANGLES, counted.inside.tolist(), strict=True)},
        dict(zip(ANGLES, counted.outside.tolist(), strict=True)),
    )
