"""Runs builders over their units, in parallel and resumable, and merges the parts into one pool manifest.

A unit is read in a worker and written as a part file. A part is used again as long as its unit, its options
and the files it was read from are the same. The parts are merged in the order of the builders, so
the pool does not depend on the number of workers, their speed or the order of files on disk.
"""

from __future__ import annotations

import logging
import os
import platform
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd import __version__, manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import locked, write_json
from ubhpd.core.parallel import Engine
from ubhpd.core.progress import Progress
from ubhpd.core.records import Note
from ubhpd.core.typing import AnyArray
from ubhpd.manifest.schema import CONVENTION_VERSION, SCHEMA_VERSION
from ubhpd.pool import parts
from ubhpd.pool import sources as registry
from ubhpd.pool.parts import Task, run_task, sweep, without_cycle_search
from ubhpd.pool.sources import discover, is_utf8, missing_message
from ubhpd.raw.source import Source
from ubhpd.raw.trees import TreeSpec, open_tree

_LOG = logging.getLogger(__name__)
_MAX_LISTED = 5  # archives and folders that one line names

MAX_ANGLE_DEG = 99.0  # the literature's limit on each of yaw, pitch and roll, inclusive
WORK = "work"  # folder in OUT with the parts and what was unpacked from compressed tars


@dataclass(frozen=True)
class BuildConfig:
    """What to build, from where, and how.

    sources: names of builders. data_root: folder or archive to search. roots: places by dataset, searched instead.
    options: values by dataset and option. max_angle_deg: a larger angle gets drop_reason beyond_max_angle.
    check_images: decode every image. hdf5: write pool.h5 beside pool.parquet. shard: (i, n), 1 <= i <= n: read
    the i-th of every n units only, for machines that share OUT; a build without it then merges.
    """

    sources: tuple[str, ...]
    out: Path
    data_root: str | None = None
    roots: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    max_angle_deg: float = MAX_ANGLE_DEG
    check_images: bool = False
    hdf5: bool = False
    shard: tuple[int, int] | None = None


@dataclass
class DatasetReport:
    """What a build found of one dataset."""

    title: str
    roots: list[list[str]]  # (folder or archive, root inside it), as TreeSpec.parts
    options: dict[str, str]
    heads: int = 0
    usable: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    notes: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class BuildReport:
    """What a build did: the content of build.json."""

    ubhpd: str
    schema_version: int
    convention_version: int
    fingerprint: str | None
    max_angle_deg: float
    check_images: bool
    datasets: dict[str, DatasetReport]
    versions: dict[str, str]
    units_read: int = 0
    units_kept: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values; how much was resumed is no part of it."""
        return {k: v for k, v in asdict(self).items() if not k.startswith("units_")}


def build(config: BuildConfig, engine: Engine | None = None, progress: Progress | None = None) -> BuildReport:
    """Read the sources and write OUT/pool.parquet and OUT/build.json; return what was found.

    Args:
        config: what to build.
        engine: where the units run; one process by default.
        progress: shows how far it is; nothing by default.

    Raises:
        UbhpdError: an unknown source or option, a dataset that is not there or broken as a whole.
    """
    engine, progress = engine or Engine(), progress or Progress(show=False)
    engine.check()
    config = _resolved(config)
    _check(config)
    with locked(config.out, is_shared=config.shard is not None):
        return _build(config, engine, progress)


def _build(config: BuildConfig, engine: Engine, progress: Progress) -> BuildReport:
    chosen = registry.select(config.sources)
    config = _located(config, chosen)
    if unknown := sorted(set(config.options) - set(chosen)):
        raise UbhpdError(f"Option for {unknown[0]!r}, which is not among the sources {', '.join(chosen)}.")
    options = {n: registry.options_for(b, dict(config.options.get(n, {}))) for n, b in chosen.items()}
    work = config.out / WORK
    specs = _find(config, chosen, work)
    reports: dict[str, DatasetReport] = {}
    tasks: list[tuple[Task, bool]] = []
    for name, builder in chosen.items():
        with progress.step(f"opening {name}") as on_progress:
            source = Source(open_tree(specs[name], on_progress), config.check_images)
        roots = [[place, root] for place, root in specs[name].parts]
        reports[name] = DatasetReport(builder.TITLE, roots, asdict(options[name]))
        own, listing = _tasks(name, builder, source, specs[name], options[name], work)
        tasks += own
        reports[name].notes += _merged_notes(
            [Note(f"{path or 'the folder'} {fault}", is_warning=True) for path, fault in source.faults.items()]
            + [Note(listing)]
        )
    first, step = (config.shard[0] - 1, config.shard[1]) if config.shard else (0, 1)
    mine = [task for task, is_fresh in tasks[first::step] if not is_fresh]
    with progress.bar("reading heads", sum(t.unit.size for t in mine)) as advance:
        for size in engine.map(partial(run_task, session=uuid.uuid4().hex), mine):
            advance(size)
    report = BuildReport(
        ubhpd=__version__,
        schema_version=SCHEMA_VERSION,
        convention_version=CONVENTION_VERSION,
        fingerprint=None,
        max_angle_deg=config.max_angle_deg,
        check_images=config.check_images,
        datasets=reports,
        versions=_versions(),
        units_read=len(mine),
        units_kept=len(tasks[first::step]) - len(mine),
    )
    if config.shard is None:
        _merge(config, [task for task, _ in tasks], report, progress)
    return report


def _resolved(config: BuildConfig) -> BuildConfig:
    """Return the settings with absolute paths: workers may stand in another folder."""
    return replace(
        config,
        out=config.out.absolute(),
        data_root=None if config.data_root is None else os.path.abspath(config.data_root),
        roots={name: os.path.abspath(place) for name, place in config.roots.items()},
    )


def _located(config: BuildConfig, chosen: Mapping[str, registry.Builder]) -> BuildConfig:
    """Return the settings with roots and options by dataset; a table that --root names becomes folder and option."""
    roots = {registry.dataset_name(name): place for name, place in config.roots.items()}
    options = {registry.dataset_name(name): dict(own) for name, own in config.options.items()}
    for name, place in roots.items():
        if name in chosen and (locate := getattr(chosen[name], "locate", None)):
            roots[name], own = locate(place)
            options[name] = {**own, **options.get(name, {})}
    return replace(config, roots=roots, options=options)


def _check(config: BuildConfig) -> None:
    if not config.max_angle_deg > 0:
        raise UbhpdError(f"--max-angle is {config.max_angle_deg}, but must be above 0 degrees.")
    if config.shard and not 1 <= config.shard[0] <= config.shard[1]:
        raise UbhpdError(f"--shard {config.shard[0]}/{config.shard[1]} is impossible: give i/n with 1 <= i <= n.")
    for place in (str(config.out), config.data_root or "", *config.roots.values()):
        if not is_utf8(place):
            shown = place.encode("utf-8", "backslashreplace").decode()
            raise UbhpdError(f"The path {shown} is not UTF-8: rename the folder, or name another.")
    if config.out.exists() and not config.out.is_dir():
        raise UbhpdError(f"--out {config.out} is a file: name a folder.")
    try:
        (config.out / WORK).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UbhpdError(f"Cannot write to {config.out} ({error.strerror}): choose another --out.") from None


def _find(config: BuildConfig, chosen: Mapping[str, registry.Builder], work: Path) -> dict[str, TreeSpec]:
    findings = discover(
        chosen, config.data_root, config.roots, spool_dir=str(work / "spool"), keep_whole=config.check_images
    )
    if findings.faults and findings.specs:
        listed = [f"{place} {fault}" for place, fault in findings.faults.items()]
        more = f"; and {len(listed) - _MAX_LISTED:,} more" if len(listed) > _MAX_LISTED else ""
        _LOG.warning(f"Not read: {'; '.join(listed[:_MAX_LISTED])}{more}.")
    missing = [n for n in chosen if n not in findings.specs]
    if missing:
        messages = [missing_message(chosen[n], config.roots.get(n, config.data_root), findings.faults) for n in missing]
        raise UbhpdError("\n".join(messages))
    return findings.specs


def _tasks(
    name: str, builder: registry.Builder, source: Source, spec: TreeSpec, options: Any, work: Path
) -> tuple[list[tuple[Task, bool]], str]:
    """Return the tasks of a dataset, each with whether its part is there and still good, and a count of its files."""
    tasks = []
    with without_cycle_search():
        units = builder.units(source, options)
        listing = source.account(path for unit in units for path in unit.paths)
    is_rendered = source.is_rendered
    for i, unit in enumerate(units):
        digest = parts.digest_of(name, source, spec, unit, options, is_rendered)
        path = work / "parts" / name / f"{i:05d}-{digest[:12]}.arrow"
        task = Task(
            dataset=name,
            spec=spec,
            unit=unit._replace(paths=()),
            options=options,
            thorough=source.thorough,
            part=str(path),
            digest=digest,
            is_rendered=is_rendered,
            builder=registry.module_name(builder),
        )
        tasks.append((task, parts.is_fresh(path, digest)))
    if not tasks:
        raise UbhpdError(f"{spec.where} looked like {builder.TITLE}, but holds none of its files: check the folder.")
    return tasks, listing


def _merge(config: BuildConfig, tasks: list[Task], report: BuildReport, progress: Progress) -> None:
    pool = config.out / "pool.parquet"
    with progress.bar("writing pool", len(tasks)) as advance:
        report.fingerprint = manifest.write_parquet(_tables(config, tasks, report, advance), pool)
    if config.hdf5:
        with progress.step("writing pool.h5"):
            manifest.write_hdf5(pool, config.out / "pool.h5")
    _cross_check(config, report, pool)
    write_json(report.as_dict(), config.out / "build.json")
    sweep(config.out / WORK, {t.part for t in tasks}, set(report.datasets))


def _tables(config: BuildConfig, tasks: list[Task], report: BuildReport, advance: Any) -> Iterator[pa.Table]:
    """Yield the parts in order, limited to --max-angle, and fill in the report on the way."""
    ids = []
    for name, own in groupby(tasks, key=lambda t: t.dataset):
        notes: list[Note] = []
        for task in own:
            part = parts.read_part(Path(task.part))
            if part is None:
                raise UbhpdError(f"{task.part} vanished or is damaged: run the same command again.")
            head, table = part
            notes += head.notes
            table = _limited(table, config.max_angle_deg)
            ids.append(table.column("sample_id"))
            _count(table, report.datasets[name])
            advance(1)
            yield table
        report.datasets[name].notes += _merged_notes(notes)
    _refuse_duplicates(pa.chunked_array([c for column in ids for c in column.chunks], pa.string()))


def _limited(table: pa.Table, limit: float) -> pa.Table:
    """Return the table with heads beyond the limit dropped with that reason."""
    names = ("yaw", "pitch", "roll")
    angles = np.stack([table.column(f"{n}_deg").to_numpy() for n in names], axis=1).astype(np.float64)
    reasons, details = table.column("drop_reason"), table.column("drop_detail")
    with np.errstate(invalid="ignore"):
        beyond = (np.abs(angles) > limit).any(axis=1) & reasons.is_null().to_numpy()
    if not beyond.any():
        return table
    reason_list, detail_list = reasons.to_pylist(), details.to_pylist()
    for i in np.flatnonzero(beyond):
        worst = int(np.abs(angles[i]).argmax())
        reason_list[i] = "beyond_max_angle"
        detail_list[i] = f"{names[worst]} is {angles[i, worst]:.2f} degrees, the limit is {limit:g}"
    for name, values in (("drop_reason", reason_list), ("drop_detail", detail_list)):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), pa.array(values, pa.string()))
    return table


def _count(table: pa.Table, report: DatasetReport) -> None:
    report.heads += table.num_rows
    for entry in pc.value_counts(table.column("drop_reason")).to_pylist():
        if entry["values"] is None:
            report.usable += entry["counts"]
        else:
            report.dropped[entry["values"]] = report.dropped.get(entry["values"], 0) + entry["counts"]
    report.dropped = dict(sorted(report.dropped.items()))


def _merged_notes(notes: list[Note]) -> list[dict[str, Any]]:
    """Return each remark once, with how often it was made."""
    counts: dict[Note, int] = {}
    for note in notes:
        counts[note] = counts.get(note, 0) + 1
    return [{"text": n.text, "is_warning": n.is_warning, "count": c} for n, c in counts.items()]


def _refuse_duplicates(ids: pa.ChunkedArray) -> None:
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"].as_py()
    raise UbhpdError(f"{twice} was found more than once: two copies of the data lie in one tree, remove one.")


def _cross_check(config: BuildConfig, report: BuildReport, pool: Path) -> None:
    """Let each builder that can compare its heads with those of another dataset do so."""
    for name, builder in registry.select(config.sources).items():
        if check := getattr(builder, "check", None):
            notes = list(check(lambda dataset: _poses(pool, dataset)))
            report.datasets[name].notes += _merged_notes(notes)


def _poses(pool: Path, dataset: str) -> dict[str, AnyArray]:
    """Return canonical yaw, pitch, roll (frames, 3) of each sequence of a dataset in frame order."""
    names = ["dataset", "sequence_id", "frame_index", "yaw_deg", "pitch_deg", "roll_deg"]
    table = manifest.read(pool, names)
    mine = pc.and_(pc.equal(table.column("dataset"), dataset), table.column("yaw_deg").is_valid())
    frame = table.filter(mine).to_pandas().sort_values(["sequence_id", "frame_index"])
    return {str(s): rows[names[3:]].to_numpy() for s, rows in frame.groupby("sequence_id")}


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    names = ("numpy", "pyarrow", "scipy", "opencv-python-headless", "h5py")
    return {"python": platform.python_version(), **{n: version(n) for n in names}}
