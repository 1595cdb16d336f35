"""The dataset card of a build's folder, in Markdown: what is in it, where it comes from, what its limits are.

It is made of build.json and of counts over the manifests. The same folder gives the same bytes: the card holds no date,
no path of the machine, and no data of a single head. What a build's folder says of itself is not trusted: names, notes
and options are escaped, so that a card never shows foreign HTML or Markdown. `read_built` also serves the Croissant
file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from ubhpd import manifest
from ubhpd.core import bins
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing
from ubhpd.core.records import DROP_REASONS
from ubhpd.core.text import markdown_text, rendered
from ubhpd.manifest import BuildFolder
from ubhpd.manifest.schema import COLUMNS, list_length
from ubhpd.pool import sources as registry
from ubhpd.pool.summary import summarise
from ubhpd.sampling import densities

Escape = Callable[[str], str]

FILES = ("pool.parquet", "ubhpd.parquet")
CITATION = (
    "S. Mo, X. Miao: OsGG-Net: One-step Graph Generation Network for Unbiased Head Pose Estimation. "
    "ACM Multimedia 2021."
)
PERSONAL = (
    "But for rendered ones the heads are those of people, some of them of private persons photographed in public. "
    "This folder holds labels and names of files, no images; no age, sex or origin is recorded. Do not use it to "
    "recognise persons."
)

_UNBIASED = ("ubhpd", "unbiased", "sampling")  # keys of build.json that may hold what was sampled
_ABSOLUTE = re.compile(r"(^|[\s'\"(=,:])((?:/|[A-Za-z]:[\\/])[^\s'\"),;]+)")
_REMEDY = "run ubhpd build again"


@dataclass(frozen=True)
class BuiltSource:
    """One raw dataset of a build: its card, how many heads it has and how many were refused."""

    name: str
    title: str
    homepage: str
    licence: str
    citation: str
    options: dict[str, str]
    heads: int
    usable: int
    dropped: dict[str, int]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class BuiltColumn:
    """A column of a manifest with its unit and meaning."""

    name: str
    type: pa.DataType
    unit: str
    meaning: str
    length: int | None = None  # of a list


@dataclass(frozen=True)
class BuiltFile:
    """A manifest in the folder. splits: the values of its column split, sorted."""

    name: str
    rows: int
    fingerprint: str
    columns: tuple[BuiltColumn, ...]
    splits: tuple[str, ...]


@dataclass(frozen=True)
class Built:
    """A build's folder. unbiased: what build.json says of UBHPD, empty if none was sampled."""

    out: Path
    version: str
    max_angle_deg: float
    sources: tuple[BuiltSource, ...]
    files: tuple[BuiltFile, ...]
    unbiased: dict[str, Any]

    @property
    def name(self) -> str:
        """What to call the dataset."""
        return "UBHPD" if len(self.files) == len(FILES) else "Head pose pool"

    def description(self, escape: Escape = str) -> str:
        """Return one sentence on what it is; `escape` is applied to names out of the folder."""
        sources = "; ".join(escape(s.title) for s in self.sources)
        pool = f"{sum(s.usable for s in self.sources):,} usable heads ({sources})"
        if len(self.files) == len(FILES):
            return (
                f"UBHPD, the unbiased head pose dataset: {self.files[1].rows:,} heads, chosen so that yaw, pitch and "
                f"roll each follow one target density, out of a pool of {pool}."
            )
        return f"A pool of {pool} with yaw, pitch, roll and rotation in one convention."


def read_built(out: Path) -> Built:
    """Return what a build's folder holds.

    Raises:
        UbhpdError: no build there, or files that do not belong together.
    """
    report = BuildFolder(out).record
    if not (out / FILES[0]).is_file():
        raise UbhpdError(f"{out} holds no {FILES[0]}: {_REMEDY}.")
    files = tuple(_file(out / name) for name in FILES if (out / name).is_file())
    try:
        return Built(
            out=out,
            version=_version(report),
            max_angle_deg=float(report["max_angle_deg"]),
            sources=tuple(_source(name, own) for name, own in report["datasets"].items()),
            files=_belonging(files, report, out),
            unbiased=next((report[k] for k in _UNBIASED if isinstance(report.get(k), dict)), {}),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UbhpdError(f"{out / 'build.json'} is not what ubhpd build writes: {_REMEDY}.") from None


def without_places(text: str, places: tuple[str, ...] = ()) -> str:
    """Return a text in which these folders, and any absolute path, are reduced to names without a place."""
    for place in sorted(filter(None, places), key=len, reverse=True):
        text = text.replace(place.rstrip("/\\"), "DATA")
    return _ABSOLUTE.sub(lambda m: m[1] + (PureWindowsPath(m[2]).name or "/"), text)


def _version(report: dict[str, Any]) -> str:
    """Return the version of ubhpd that built it, which stands under "ubhpd" where nothing else does."""
    own = report["ubhpd"]
    return own if isinstance(own, str) else str(report["versions"].get("ubhpd", "unknown"))


def _source(name: str, own: dict[str, Any]) -> BuiltSource:
    card = registry.builders().get(name)
    places = tuple(part for root in own["roots"] for part in root)
    return BuiltSource(
        name=name,
        title=own["title"],
        homepage=card.HOMEPAGE if card else "",
        licence=card.LICENSE if card else "unknown",
        citation=card.CITATION if card else "",
        options={str(k): str(v) for k, v in own["options"].items()},
        heads=int(own["heads"]),
        usable=int(own["usable"]),
        dropped={str(k): int(v) for k, v in own["dropped"].items()},
        warnings=tuple(without_places(n["text"], places) for n in own["notes"] if n["is_warning"]),
    )


def _file(path: Path) -> BuiltFile:
    header = manifest.header(path)
    known = {c.name: c for c in COLUMNS}
    columns = []
    for field in header.schema:
        said = {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
        own = known.get(field.name)
        unit, meaning = (own.unit, own.meaning) if own else (said.get("unit", ""), said.get("meaning", ""))
        columns.append(BuiltColumn(field.name, field.type, unit, meaning, list_length(field)))
    splits = ()
    if "split" in header.schema.names:
        found = pc.unique(manifest.read(path, ["split"]).column("split")).drop_null()
        splits = tuple(sorted(found.to_pylist()))
    return BuiltFile(path.name, header.rows, header.fingerprint, tuple(columns), splits)


def _belonging(files: tuple[BuiltFile, ...], report: dict[str, Any], out: Path) -> tuple[BuiltFile, ...]:
    """Return the files; raise UbhpdError if build.json describes another pool."""
    if files[0].fingerprint != report["fingerprint"]:
        raise UbhpdError(f"{out / files[0].name} is not the pool that build.json describes: {_REMEDY}.")
    return files


NAME = "CARD.md"

_MAX_WARNINGS = 10
_MAX_ITEMS = 8  # of a list that is shown in full
_FRONTAL_DEG = 30.0


def write_card(out: Path) -> Path:
    """Write OUT/CARD.md and return its path.

    Raises:
        UbhpdError: no build in OUT, or a folder that cannot be written to.
    """
    text = card(out)
    try:
        with replacing(out / NAME) as part:
            part.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UbhpdError(f"Cannot write {out / NAME} ({error.strerror}): check the folder.") from None
    return out / NAME


def card(out: Path) -> str:
    """Return the card of a build's folder.

    Raises:
        UbhpdError: no build there, or files that do not belong together.
    """
    built = read_built(out)
    cited = dict.fromkeys(s.citation for s in built.sources if s.citation)
    return rendered(
        "card.md",
        name=built.name,
        description=Markup(built.description(markdown_text)),
        version=built.version,
        files=built.files,
        sources=_sources(built),
        refused=[
            _Refused(s.title, reason, heads, Markup(DROP_REASONS.get(reason, "")))
            for s in built.sources
            for reason, heads in s.dropped.items()
        ],
        max_angle=f"{built.max_angle_deg:g}",
        settings=[(f"{s.name}.{key}", value) for s in built.sources for key, value in s.options.items()],
        sampling=list(_items(built.unbiased)) if built.unbiased else None,
        splits=[_split_counts(built, file) for file in built.files if file.splits],
        densities=_densities(built) if any(s.usable for s in built.sources) else None,
        columns=_columns(built),
        limits=[Markup(limit) for limit in limits(built, markdown_text)],
        personal=Markup(PERSONAL),
        citations=[Markup(c) for c in (f"UBHPD and UBMAE: {CITATION}", *cited)],
    )


class _Source(NamedTuple):
    name: str
    title: str
    homepage: Markup
    licence: Markup
    heads: int
    usable: int
    subjects: int
    synthetic: int


class _Refused(NamedTuple):
    title: str
    reason: str
    heads: int
    meaning: Markup


class _SplitCounts(NamedTuple):
    """Heads per dataset, and of all, in each split of a file."""

    file: str
    names: tuple[str, ...]
    rows: list[tuple[str, list[int]]]


class _Densities(NamedTuple):
    """Share of the heads per bin, as text; a column per manifest and angle."""

    titles: list[str]
    rows: list[tuple[str, list[Markup]]]


class _Column(NamedTuple):
    """`only_in`: the file that has the column, "" if all have it."""

    name: str
    type: str
    unit: str
    meaning: str
    only_in: str


def limits(built: Built, escape: Escape = str) -> list[str]:
    """Return sentences on what a user of the folder should know before trusting a number made with it.

    Args:
        built: the folder.
        escape: applied to names and notes out of the folder.
    """
    facts = summarise(built.out / FILES[0])["datasets"]
    return [
        *_pose_limits(built),
        *_people_limits(facts, escape),
        "Labels come from different instruments and fits, each with an offset and a frame of its own; a constant "
        "difference of a few degrees between sources is possible.",
        "Nothing is recorded of age, sex or origin of the people, so the folder cannot be balanced over them.",
        *(
            f"{escape(s.title)}: {escape(warning.rstrip('.'))}."
            for s in built.sources
            for warning in (*s.warnings[:_MAX_WARNINGS], *_more(len(s.warnings) - _MAX_WARNINGS))
        ),
    ]


def _sources(built: Built) -> list[_Source]:
    facts = summarise(built.out / FILES[0])["datasets"]
    rows = []
    for s in built.sources:
        subjects, synthetic = (facts.get(s.name, {}).get(key, 0) for key in ("subjects", "synthetic"))
        own = Markup(s.homepage), Markup(s.licence)
        rows.append(_Source(s.name, s.title, *own, s.heads, s.usable, subjects, synthetic))
    return rows


def _items(block: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield name and value of all that build.json says, except tables of numbers and long lists."""
    for key, value in block.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _items(value, f"{name}.")
        elif (text := _value(value)) is not None:
            yield name, text


def _value(value: Any) -> str | None:
    if isinstance(value, list):
        if len(value) > _MAX_ITEMS or any(isinstance(v, (list, dict)) for v in value):
            return None
        texts = [t for v in value if (t := _value(v)) is not None]
        if len(value) == len(bins.ANGLES) and all(isinstance(v, (int, float)) for v in value):
            texts = [f"{a} {t}" for a, t in zip(bins.ANGLES, texts, strict=True)]
        return ", ".join(texts) or "none"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else without_places(str(value))


def _split_counts(built: Built, file: BuiltFile) -> _SplitCounts:
    table = manifest.read(built.out / file.name, ["dataset", "split"])
    counts = {
        (row["dataset"], row["split"]): row["split_count"]
        for row in table.group_by(["dataset", "split"]).aggregate([("split", "count")]).to_pylist()
    }
    rows = [
        (name, [counts.get((name, split), 0) for split in file.splits])
        for name in sorted({dataset for dataset, _ in counts})
    ]
    totals = [sum(n for (_, own), n in counts.items() if own == split) for split in file.splits]
    return _SplitCounts(file.name, file.splits, [*rows, ("all", totals)])


def _densities(built: Built) -> _Densities:
    read = [densities.read(built.out / f.name) for f in built.files]
    counted = [t for d, own in zip(read, ("pool", "ubhpd"), strict=False) if (t := getattr(d, own)) is not None]
    rows = []
    for i in range(bins.N_BINS):
        low, high = bins.EDGES_DEG[i], bins.EDGES_DEG[i + 1]
        shares = [_share(int(row[i]), int(row.sum())) for t in counted for row in t.inside]
        rows.append((f"{low:.0f} to {high:.0f}", shares))
    outside = [Markup(f"{n:,}") for t in counted for n in t.outside]
    return _Densities([f"{t.name} {a}" for t in counted for a in bins.ANGLES], [*rows, ("outside (heads)", outside)])


def _columns(built: Built) -> list[_Column]:
    all_columns = {c.name: c for f in built.files for c in f.columns}
    first = {c.name for c in built.files[0].columns}
    known = {c.name for c in COLUMNS}
    rows = []
    for c in all_columns.values():
        only_in = "" if c.name in first else built.files[-1].name
        kind = str(c.type) if c.length is None else f"double x {c.length}"
        texts = (Markup(c.unit), Markup(c.meaning)) if c.name in known else (c.unit, c.meaning)
        rows.append(_Column(c.name, kind, *texts, only_in))
    return rows


def _pose_limits(built: Built) -> Iterator[str]:
    file = built.files[-1]
    names = [f"{a}_deg" for a in bins.ANGLES]
    table = manifest.read(built.out / file.name, [*names, "drop_reason"])
    table = table.filter(table.column("drop_reason").is_null())
    if not table.num_rows:
        yield "No head is usable."
        return
    angles = np.stack([table.column(n).to_numpy() for n in names], axis=1).astype(np.float64)
    frontal = int((np.abs(angles) <= _FRONTAL_DEG).all(axis=1).sum())
    yield (
        f"{frontal / len(angles):.1%} of the {len(angles):,} usable heads in `{file.name}` have all three angles "
        f"within {_FRONTAL_DEG:.0f} degrees of frontal."
    )
    found = bins.counts(angles)
    empty = [f"{int(n)} of {a}" for a, n in zip(bins.ANGLES, (found.inside == 0).sum(axis=1), strict=True) if n]
    if empty:
        yield f"Bins without any head: {', '.join(empty)}, of {bins.N_BINS} each; no statement can be made there."
    if found.outside.any():
        outside = ", ".join(f"{int(n):,} by {a}" for a, n in zip(bins.ANGLES, found.outside, strict=True) if n)
        yield f"Heads outside the bins, beyond 90 degrees: {outside}."
    if len(built.files) > 1:
        yield "UBHPD follows its target angle by angle, not jointly: combinations of two large angles stay rare."


def _people_limits(facts: dict[str, Any], escape: Escape) -> Iterator[str]:
    unknown = [name for name, own in facts.items() if own["usable"] and not own["subjects"]]
    if unknown:
        yield (
            f"{', '.join(map(escape, unknown))}: the source does not distinguish persons, so one person may be in "
            "several splits."
        )
    for name, own in facts.items():
        if own["subjects"]:
            people = f"{own['subjects']:,} people"
            yield f"{escape(name)}: {own['usable']:,} heads of only {people}, many nearly the same frame."
    synthetic = sum(own["synthetic"] for own in facts.values())
    if synthetic:
        yield f"{synthetic:,} of {sum(own['usable'] for own in facts.values()):,} usable heads are rendered or warped."


def _more(n: int) -> list[str]:
    return [f"{n} more warnings are in build.json"] if n > 0 else []


def _share(heads: int, total: int) -> Markup:
    if not heads:
        return Markup("0")
    return Markup(f"{100 * heads / total:.2f}" if heads >= total / 20_000 else "< 0.01")
