"""Fills the 68 landmarks of a manifest's heads, from dlib's model or from a file, and changes nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd import manifest
from ubhpd.errors import UbhpdError
from ubhpd.faces import landmark_file
from ubhpd.faces.dlib_parts import OWN_BOX, PICTURE_COLUMNS, DlibParts, Found
from ubhpd.faces.face import Array
from ubhpd.progress import Progress
from ubhpd.schema import COLUMNS, Column, list_length, lists, matrix

Mask = npt.NDArray[np.bool_]
Points = Callable[[pa.Table], Found]  # of rows of the manifest

DLIB = "dlib68"
_NAMED = 5  # heads that failed, in the report
_LENGTH = 136


@dataclass(frozen=True)
class FillConfig:
    """What to fill.

    manifest: the file to read. out: the Parquet file to write. source: a file of `landmark_file`; None for dlib.
    only_missing: leave heads alone that have 68 landmarks; else all are replaced, so that all are of one kind.
    detector: for dlib, whose box to take: a name of `detectors.DETECTORS`, "none" for the manifest's.
    jobs: processes for dlib; -1 for all cores.
    """

    manifest: Path
    out: Path
    source: Path | None = None
    only_missing: bool = True
    detector: str = "auto"
    jobs: int = 1


@dataclass
class FillReport:
    """What was filled.

    wanted: usable heads whose landmarks were to be filled. filled: those that were. had: usable heads that kept their
    own. failed: wanted heads without a result, of which `first_failures` names some, sample_id and why.
    unknown: rows of the landmark file that belong to no head of the manifest.
    """

    out: str
    kind: str
    fingerprint: str = ""
    wanted: int = 0
    filled: int = 0
    had: int = 0
    failed: int = 0
    unknown: int = 0
    first_failures: list[tuple[str, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


def fill_landmarks(config: FillConfig, progress: Progress | None = None) -> FillReport:
    """Write the manifest again with landmarks68 and landmarks_kind filled, and return what was done.

    Refused heads stay as they are. A head for which the source has nothing ends without 68 landmarks. What dlib found
    lies in `work/landmarks` beside the manifest: an interrupted run goes on from there.

    Raises:
        UbhpdError: a wrong path or file, dlib is not here, or not one head could be filled; nothing is written then.
    """
    schema = manifest.header(config.manifest).schema
    if config.out.suffix != ".parquet":
        raise UbhpdError(f"{config.out} would be a Parquet file: let its name end in .parquet.")
    if config.out.exists() and config.out.samefile(config.manifest):
        raise UbhpdError(f"{config.out} is the manifest that is read: name another file, in the same folder.")
    progress = progress or Progress(show=False)
    columns = tuple(_column(stored) for stored in schema)
    if config.source is not None:
        points, unknown = _file_points(config.source, config.manifest)
        report = FillReport(str(config.out), f"file:{config.source.name}", unknown=unknown)
        report.fingerprint = manifest.write_parquet(_filled(config, points, report), config.out, columns)
        return report
    parts = DlibParts(config.manifest.parent, config.detector)
    report = FillReport(str(config.out), DLIB if config.detector == OWN_BOX else f"{DLIB}:{parts.detector_name}")
    wanted = list(_wanted_heads(config))
    parts.compute(wanted, config.jobs, progress)
    report.fingerprint = manifest.write_parquet(_filled(config, parts.found, report), config.out, columns)
    parts.remove(wanted)
    return report


def fill_text(report: FillReport) -> str:
    """Return the report as text for a terminal."""
    lines = [f"{report.filled:,} of {report.wanted:,} heads filled ({report.kind}), {report.had:,} kept: {report.out}"]
    if report.failed:
        lines.append(f"{report.failed:,} heads stay without 68 landmarks, the first of them:")
        lines += [f"  {sample_id}: {why}" for sample_id, why in report.first_failures]
    if report.unknown:
        lines.append(f"{report.unknown:,} rows of the file are of no head of this manifest.")
    return "\n".join([*lines, f"Fingerprint {report.fingerprint}"])


def _filled(config: FillConfig, points: Points, report: FillReport) -> Iterator[pa.Table]:
    """Yield the manifest in tables with the landmarks filled, and count.

    Raises:
        UbhpdError: at the end, if there were heads to fill and not one was.
    """
    for batch in manifest.iterate(config.manifest):
        table = pa.Table.from_batches([batch])
        wanted = _is_wanted(table, config.only_missing)
        found = np.full((len(wanted), _LENGTH), np.nan)
        rows = np.flatnonzero(wanted)
        found[rows], reasons = points(table.take(pa.array(rows)))
        yield _with_landmarks(table, found, wanted, report.kind)
        usable = table.column("drop_reason").is_null().to_numpy()
        report.wanted += len(rows)
        report.filled += len(rows) - len(reasons)
        report.had += int((usable & ~wanted).sum())
        report.failed += len(reasons)
        ids = table.column("sample_id")
        for row in sorted(reasons)[: _NAMED - len(report.first_failures)]:
            report.first_failures.append((ids[int(rows[row])].as_py(), reasons[row]))
    if report.wanted and not report.filled:
        raise UbhpdError(f"Not one of {report.wanted} heads could be filled; the first: {report.first_failures[0][1]}")


def _is_wanted(table: pa.Table, only_missing: bool) -> Mask:
    """Return which heads (n,) are to be filled: usable ones, with `only_missing` those without 68 landmarks."""
    wanted = table.column("drop_reason").is_null()
    if only_missing:
        wanted = pc.and_(wanted, table.column("landmarks68").is_null())
    return np.asarray(wanted.to_numpy(), dtype=bool)


def _with_landmarks(table: pa.Table, found: Array, wanted: Mask, kind: str) -> pa.Table:
    is_filled: Mask = np.asarray(~np.isnan(found).all(axis=1))
    points = matrix(table.column("landmarks68"), _LENGTH)
    has: Mask = np.asarray(table.column("landmarks68").is_valid().to_numpy(), dtype=bool)
    lost = wanted & has & ~is_filled
    points[wanted] = found[wanted]
    # Where landmarks21 remain, the kind may speak of them.
    has_none = pc.and_(pa.array(lost), table.column("landmarks21").is_null())
    kinds = pc.if_else(has_none, pa.scalar(None, pa.string()), table.column("landmarks_kind"))
    kinds = pc.if_else(pa.array(is_filled), kind, kinds)
    at = {name: table.column_names.index(name) for name in ("landmarks68", "landmarks_kind")}
    valid = (has & ~wanted) | is_filled
    table = table.set_column(at["landmarks68"], table.field("landmarks68"), lists(points, valid))
    return table.set_column(at["landmarks_kind"], table.field("landmarks_kind"), kinds)


def _wanted_heads(config: FillConfig) -> Iterator[pa.Table]:
    """Yield PICTURE_COLUMNS of the heads to fill, cut as `_filled` cuts them."""
    for batch in manifest.iterate(config.manifest, ["drop_reason", "landmarks68", *PICTURE_COLUMNS]):
        table = pa.Table.from_batches([batch])
        yield table.filter(pa.array(_is_wanted(table, config.only_missing))).select(PICTURE_COLUMNS)


def _file_points(path: Path, own: Path) -> tuple[Points, int]:
    """Return what gives a file's landmarks, and how many of its rows are of no head of the manifest."""
    known = landmark_file.read(path)
    heads = set(manifest.read(own, ["sample_id"]).column("sample_id").to_pylist())
    unknown = sum(sample_id not in heads for sample_id in known.row_of)
    if unknown == len(known.row_of):
        raise UbhpdError(f"{path} has landmarks of no head of {own}: check its sample_id.")

    def points(table: pa.Table) -> Found:
        found, reasons = np.full((table.num_rows, _LENGTH), np.nan), {}
        for row, sample_id in enumerate(table.column("sample_id").to_pylist()):
            if sample_id in known.row_of:
                found[row] = known.rows[known.row_of[sample_id]]
            if np.isnan(found[row]).all():
                reasons[row] = f"{path.name} has no landmarks of {sample_id}."
        return Found(found, reasons)

    return points, unknown


def _column(stored: pa.Field) -> Column:
    """Return a manifest's column as its file describes it, so that those beyond the pool's own come along."""
    said = {key.decode(): value.decode() for key, value in (stored.metadata or {}).items()}
    is_unique = any(c.mostly_unique for c in COLUMNS if c.name == stored.name)
    unit, frame, meaning = (said.get(key, "") for key in ("unit", "frame", "meaning"))
    return Column(stored.name, stored.type, unit, frame, meaning, is_unique, list_length(stored))
