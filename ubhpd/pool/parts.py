"""A part: what one unit gave, as an Arrow file in the work folder of a build.

The tasks of a build: one unit of a dataset to read, one part file to write.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
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
from ubhpd.manifest.schema import CONVENTION_VERSION, SCHEMA_VERSION, schema, table_from_records
from ubhpd.pool import sources
from ubhpd.raw.source import RENDERED, Source
from ubhpd.raw.trees import TreeSpec, open_tree

_LOG = logging.getLogger(__name__)

_DIGEST = b"ubhpd.unit"
_NOTES = b"ubhpd.notes"
_CHECKSUM_BYTES = 32  # of SHA-256, before the Arrow file
_LONGEST_REASON = 200
UNFINISHED = "unfinished"  # digest of a part whose reader failed: it is merged, and read again by the next build
_NOTHING = Record(
    sample_id="",
    image_path=None,
    image_width=None,
    image_height=None,
    yaw_deg=None,
    pitch_deg=None,
    roll_deg=None,
    rotation=None,
)
# One thread per worker: the workers themselves are the parallelism.
_WRITE = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)


class PartHead(NamedTuple):
    """What a part file says of itself: the digest of what it was made from, and the notes."""

    digest: str
    notes: list[Note]


def digest_of(dataset: str, source: Source, spec: TreeSpec, unit: Unit, options: Any, is_rendered: bool = False) -> str:
    """Return a digest of everything a part depends on: the unit, how it is read, and which files it is read from."""
    files = [source.identity(path) for path in unit.paths]
    content = (
        __version__,
        SCHEMA_VERSION,
        CONVENTION_VERSION,
        dataset,
        spec.parts,
        unit,
        files,
        options,
        source.thorough,
        is_rendered,
    )
    return hashlib.sha256(repr(content).encode("utf-8", "backslashreplace")).hexdigest()


def collect(
    dataset: str, items: Iterable[Record | Drop | Note], is_rendered: bool = False
) -> tuple[pa.Table, list[Note]]:
    """Return the heads of a unit as a manifest table, in their order, and the notes.

    The ids of rendered heads end in RENDERED, which no real head has: predictions of one are never scored against
    the other.
    """
    records: list[Record] = []
    notes: list[Note] = []
    for item in items:
        if isinstance(item, Record):
            records.append(item)
        elif isinstance(item, Drop):
            records.append(_refused(item))
        else:
            notes.append(item)
    records = [_guarded(r) for r in records]
    if is_rendered:
        records = [
            r._replace(sample_id=f"{r.sample_id}{RENDERED}", flip_of=r.flip_of and f"{r.flip_of}{RENDERED}")
            for r in records
        ]
    try:
        return table_from_records(dataset, records), notes
    except UnicodeEncodeError:  # a name that is not UTF-8, as an old archive leaves them
        notes = [note._replace(text=_utf8(note.text)) for note in notes]
        return table_from_records(dataset, [_nameable(r) for r in records]), notes


def write_part(path: Path, table: pa.Table, notes: list[Note], digest: str) -> None:
    """Write a part, whole or not at all: the SHA-256 of all that follows it, and an Arrow file."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(
        sink, schema().with_metadata({_DIGEST: digest, _NOTES: json.dumps(notes)}), options=_WRITE
    ) as writer:
        writer.write_table(table)
    content = sink.getvalue()
    with replacing(path, can_be_made_again=True) as part, part.open("wb") as file:
        file.write(hashlib.sha256(content).digest())
        file.write(content)


def read_part(path: Path) -> tuple[PartHead, pa.Table] | None:
    """Return what a part says of itself and its heads; None if there is no such part or it is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    content = memoryview(data)[_CHECKSUM_BYTES:]
    if hashlib.sha256(content).digest() != data[:_CHECKSUM_BYTES]:
        return None
    try:
        table = pa.ipc.open_file(pa.py_buffer(content)).read_all()
        metadata = table.schema.metadata
        head = PartHead(metadata[_DIGEST].decode(), [Note(*n) for n in json.loads(metadata[_NOTES])])
        return head, table.cast(schema())
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError, RecursionError):
        return None


def is_fresh(path: Path, digest: str) -> bool:
    """Return True if a part is there, whole, and made from what the digest says; a damaged one is logged."""
    part = read_part(path)
    if part is None and path.exists():
        _LOG.warning(f"{path} is damaged: its heads are read again.")
    return part is not None and part[0].digest == digest


def _guarded(record: Record) -> Record:
    """Return the record, refused if its angles are not numbers: whatever a builder let through ends here."""
    yaw, pitch, roll = record.yaw_deg, record.pitch_deg, record.roll_deg
    if record.drop_reason is not None or (yaw is not None and isfinite(yaw + pitch + roll)):  # type: ignore[operator]
        return record
    return record._replace(
        yaw_deg=None, pitch_deg=None, roll_deg=None, rotation=None,
        drop_reason="bad_label", drop_detail=f"{record.image_path}: its pose is not finite",
    )  # fmt: skip


def _nameable(record: Record) -> Record:
    """Return the record with texts that are UTF-8; one whose names are not is refused."""
    texts: dict[str, Any] = {n: _utf8(v) for n, v in record._asdict().items() if isinstance(v, str)}
    if all(getattr(record, n) == text for n, text in texts.items()):
        return record
    if record.drop_reason is None:
        texts |= {"drop_reason": "unreadable_file", "drop_detail": "the name is not UTF-8: rename the file"}
    return record._replace(**texts)


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _refused(drop: Drop) -> Record:
    return _NOTHING._replace(
        sample_id=drop.sample_id, image_path=drop.image_path, sequence_id=drop.sequence_id,
        frame_index=drop.frame_index, drop_reason=drop.reason, drop_detail=drop.detail,
    )  # fmt: skip


class Task(NamedTuple):
    """A unit to read and the part file to write. builder: the reader, where its name is not the dataset's."""

    dataset: str
    spec: TreeSpec
    unit: Unit
    options: Any
    thorough: bool
    part: str
    digest: str
    is_rendered: bool = False
    builder: str = ""


@contextmanager
def without_cycle_search() -> Iterator[None]:
    """Do not search for reference cycles: builders make many small objects and no cycle; this saves a tenth of time."""
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
    builder = sources.builders()[task.builder or task.dataset]
    items: list[Record | Drop | Note] = []
    digest = task.digest
    with without_cycle_search():
        source = _source(task.spec, task.thorough, session)
        try:
            items.extend(builder.read(source, task.unit, task.options))
            table, notes = collect(task.dataset, items, task.is_rendered)
        except UbhpdError:
            raise
        except Exception as error:  # what a builder did not foresee costs the heads of this unit, not the build
            table, notes = collect(task.dataset, _lost(task, items, error), task.is_rendered)
            digest = UNFINISHED
    write_part(Path(task.part), table, notes, digest)
    return task.unit.size


def _lost(task: Task, items: list[Record | Drop | Note], error: Exception) -> list[Record | Drop | Note]:
    """Return what a reader gave before it failed, if that can be kept, and a refusal for every head after it."""
    reason = _utf8(f"{type(error).__name__}: {error}"[:_LONGEST_REASON])
    given = [item for item in items if not isinstance(item, Note)]
    try:
        collect(task.dataset, items)
    except Exception:
        items, given = [], []
    lost = max(task.unit.size - len(given), 1)
    detail = f"the {task.dataset} reader failed on {task.unit.key} ({reason})"
    note = Note(
        f"The {task.dataset} reader failed on {task.unit.key} ({reason}), which costs {lost:,} heads: please report "
        "this with the file that causes it.",
        is_warning=True,
    )
    names = (f"{task.dataset}/{task.unit.key}/unread_{number:05d}" for number in range(1, lost + 1))
    return [*items, *(Drop(name, "reader_failed", detail) for name in names), note]


@lru_cache(maxsize=4)
def _source(spec: TreeSpec, thorough: bool, session: str) -> Source:
    """Return the opened source; `session` keeps a long-lived worker from seeing the listings of an earlier build."""
    return Source(open_tree(spec), thorough)
