"""A part: what one unit gave, as an Arrow file in the work folder of a build.

The tasks of a build: one unit of a dataset to read, one part file to write.
"""

from __future__ import annotations

import gc
import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from ubhpd import __version__
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing
from ubhpd.core.records import Drop, Note, Record, Unit
from ubhpd.manifest.schema import SCHEMA_VERSION, schema, table_from_records
from ubhpd.pool import parts, sources
from ubhpd.raw.source import Source
from ubhpd.raw.trees import TreeSpec, open_tree

_DIGEST = b"ubhpd.unit"
_NOTES = b"ubhpd.notes"
_STARTED = b"ubhpd.started_at"
_NOTHING = Record("", None, None, None, None, None, None, None)
# One thread per worker: the workers themselves are the parallelism.
_WRITE = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)


class PartHead(NamedTuple):
    """What a part file says of itself: the digest of what it was made from, when, and the notes."""

    digest: str
    started_at: float  # seconds since 1970: a file that changed later was not seen
    notes: list[Note]


def digest_of(dataset: str, spec: TreeSpec, unit: Unit, options: Any, thorough: bool) -> str:
    """Return a digest of everything a part depends on but the content of its files."""
    told = repr((__version__, SCHEMA_VERSION, dataset, spec.parts, unit.key, unit.items, options, thorough))
    return hashlib.sha256(told.encode()).hexdigest()


def collect(dataset: str, said: Iterable[Record | Drop | Note]) -> tuple[pa.Table, list[Note]]:
    """Return the heads of a unit as a manifest table, in their order, and the notes."""
    records: list[Record] = []
    notes: list[Note] = []
    for item in said:
        if isinstance(item, Record):
            records.append(item)
        elif isinstance(item, Drop):
            records.append(_refused(item))
        else:
            notes.append(item)
    return table_from_records(dataset, [_guarded(r) for r in records]), notes


def write_part(path: Path, table: pa.Table, notes: list[Note], digest: str, started_at: float) -> None:
    """Write a part, whole or not at all."""
    metadata = {_DIGEST: digest, _STARTED: repr(started_at), _NOTES: json.dumps(notes)}
    with (
        replacing(path) as part,
        pa.OSFile(str(part), "wb") as file,
        pa.ipc.new_file(file, schema().with_metadata(metadata), options=_WRITE) as writer,
    ):
        writer.write_table(table)


def read_head(path: Path) -> PartHead | None:
    """Return what a part says of itself, None if there is no such part or it is damaged."""
    try:
        with pa.memory_map(str(path)) as file:
            metadata = pa.ipc.open_file(file).schema.metadata
        notes = [Note(*n) for n in json.loads(metadata[_NOTES])]
        return PartHead(metadata[_DIGEST].decode(), float(metadata[_STARTED]), notes)
    except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError):
        return None


def read_part(path: Path) -> pa.Table:
    """Return the heads of a part."""
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all().replace_schema_metadata(schema().metadata)


def _guarded(record: Record) -> Record:
    """Return the record, refused if its angles are not numbers: whatever a builder let through ends here."""
    yaw, pitch, roll = record.yaw_deg, record.pitch_deg, record.roll_deg
    if record.drop_reason is not None or (yaw is not None and isfinite(yaw + pitch + roll)):  # type: ignore[operator]
        return record
    return record._replace(
        yaw_deg=None, pitch_deg=None, roll_deg=None, rotation=None,
        drop_reason="bad_label", drop_detail=f"{record.image_path}: its pose is not finite",
    )  # fmt: skip


def _refused(drop: Drop) -> Record:
    return _NOTHING._replace(
        sample_id=drop.sample_id, image_path=drop.image_path, sequence_id=drop.sequence_id,
        frame_index=drop.frame_index, drop_reason=drop.reason, drop_detail=drop.detail,
    )  # fmt: skip


class Task(NamedTuple):
    """A unit to read and the part file to write."""

    dataset: str
    spec: TreeSpec
    unit: Unit
    options: Any
    thorough: bool
    part: str
    digest: str


@contextmanager
def without_cycle_search() -> Iterator[None]:
    """Make thousands of small objects, none of them in a cycle: looking for cycles would cost a tenth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def sweep(work: Path, parts_in_use: set[str], datasets: set[str]) -> None:
    """Remove the parts of `datasets` that no task names any more, and what a killed build left half-written."""
    for folder in (work / "parts").iterdir():
        for path in folder.iterdir():
            stale = folder.name in datasets and str(path) not in parts_in_use
            if stale or path.name.endswith(".part"):
                path.unlink(missing_ok=True)


def run_task(task: Task, session: str) -> int:
    """Read a unit and write its part."""
    builder = sources.builders()[task.dataset]
    started_at = time.time()
    try:
        with without_cycle_search():
            source = _source(task.spec, task.thorough, session)
            table, notes = parts.collect(task.dataset, builder.read(source, task.unit, task.options))
    except UbhpdError:
        raise
    except Exception as error:
        # A builder turns bad data into drops; what it did not foresee must still name the place.
        raise UbhpdError(
            f"The {task.dataset} reader failed on {task.unit.key} ({type(error).__name__}: {error}): "
            "please report this with the file that causes it."
        ) from error
    parts.write_part(Path(task.part), table, notes, task.digest, started_at)
    return task.unit.size


@lru_cache(maxsize=4)
def _source(spec: TreeSpec, thorough: bool, session: str) -> Source:
    """Return the opened source; `session` keeps a long-lived worker from seeing the listings of an earlier build."""
    return Source(open_tree(spec), thorough)
