"""What a build's folder holds, for its card and its Croissant file: nothing of the machine that it was made on.

The dataset card of a build's folder, in Markdown: what is in it, where it comes from, what is wrong with it.

It is made of build.json and of counts over the manifests. The same folder gives the same bytes: no date, no path
of the machine, no head's data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd import manifest
from ubhpd.core import bins
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing
from ubhpd.core.records import DROP_REASONS
from ubhpd.manifest import BuildFolder
from ubhpd.manifest.schema import COLUMNS, list_length
from ubhpd.pool import sources as registry
from ubhpd.pool.summary import summarise
from ubhpd.sampling import densities

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
    """One raw dataset of a build: its card, what was found and what was refused."""

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
    """A manifest in the folder. splits: the sides that its column split names, sorted."""

    name: str
    rows: int
    fingerprint: str
    columns: tuple[BuiltColumn, ...]
    splits: tuple[str, ...]


@dataclass(frozen=True)
class Built:
    """A build's folder. unbiased: what build.json says of UBHPD, empty where none was sampled."""

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

    @property
    def description(self) -> str:
        """One sentence on what it is."""
        sources = "; ".join(s.title for s in self.sources)
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
    """Return a text in which these folders, and any absolute path, are reduced to what says nothing of a machine."""
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
    """Return the files; raise UbhpdError if build.json speaks of another pool."""
    if files[0].fingerprint != report["fingerprint"]:
        raise UbhpdError(f"{out / files[0].name} is not the pool that build.json speaks of: {_REMEDY}.")
    return files


NAME = "CARD.md"

_MAX_WARNINGS = 10
_MAX_ITEMS = 8  # of a list that is printed whole
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
    facts = summarise(out / FILES[0])["datasets"]
    parts = [
        [f"# {built.name}", built.description, *_files(built)],
        ["## Sources", *_sources(built, facts), *_refused(built)],
        ["## How it was made", *_making(built)],
        ["## Splits", *_splits(built)] if any(f.splits for f in built.files) else [],
        ["## Densities", *_densities(built)] if any(s.usable for s in built.sources) else [],
        ["## Columns", *_columns(built)],
        ["## Known limits and biases", "\n".join(f"* {limit}" for limit in limits(built))],
        ["## Licence and people", *_licence()],
        ["## How to cite", *_citations(built)],
    ]
    return "\n\n".join(block for part in parts for block in part) + "\n"


def limits(built: Built) -> list[str]:
    """Return sentences on what a user of the folder should know before trusting a number made with it."""
    facts = summarise(built.out / FILES[0])["datasets"]
    return [
        *_pose_limits(built),
        *_people_limits(facts),
        "Labels come from different instruments and fits, each with an offset and a frame of its own; a constant "
        "difference of a few degrees between sources is possible.",
        "Nothing is recorded of age, sex or origin of the people, so the folder cannot be balanced over them.",
        *(
            f"{s.title}: {warning.rstrip('.')}."
            for s in built.sources
            for warning in (*s.warnings[:_MAX_WARNINGS], *_more(len(s.warnings) - _MAX_WARNINGS))
        ),
    ]


def _files(built: Built) -> Iterator[str]:
    rows = [["file", "heads", "fingerprint"]]
    rows += [[f"`{f.name}`", f"{f.rows:,}", f"`{f.fingerprint}`"] for f in built.files]
    yield _table(rows)
    yield (
        f"Made by ubhpd {built.version}. The fingerprint is a SHA-256 of the rows: equal rows have equal fingerprints, "
        "on any machine. Images are not in the folder; `image_path` leads to them in the raw data."
    )


def _sources(built: Built, facts: dict[str, Any]) -> Iterator[str]:
    rows = [["source", "heads found", "usable", "refused", "people told apart", "synthetic", "licence"]]
    for s in built.sources:
        own = facts.get(s.name, {})
        title = f"[{s.title}]({s.homepage})" if s.homepage else s.title
        people, synthetic = (f"{own.get(k, 0):,}" for k in ("subjects", "synthetic"))
        rows.append([title, f"{s.heads:,}", f"{s.usable:,}", f"{s.heads - s.usable:,}", people, synthetic, s.licence])
    yield _table(rows)


def _refused(built: Built) -> Iterator[str]:
    rows = [["source", "refused as", "heads", "meaning"]]
    for s in built.sources:
        rows += [[s.title, f"`{r}`", f"{n:,}", DROP_REASONS.get(r, "")] for r, n in s.dropped.items()]
    if rows[1:]:
        yield "Refused heads are in `pool.parquet`, each with its reason, and nowhere else:"
        yield _table(rows)
    else:
        yield "No head was refused."


def _making(built: Built) -> Iterator[str]:
    rows = [["setting", "value"], ["largest angle", f"{built.max_angle_deg:g} degrees"]]
    rows += [[f"`{s.name}.{key}`", value] for s in built.sources for key, value in s.options.items()]
    yield _table(rows)
    if built.unbiased:
        yield "The sampling of UBHPD from the pool:"
        yield _table([["item", "value"], *_items(built.unbiased)])


def _items(block: dict[str, Any], prefix: str = "") -> Iterator[list[str]]:
    """Yield name and value of whatever build.json says, tables of numbers and long lists aside."""
    for key, value in block.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _items(value, f"{name}.")
        elif (text := _value(value)) is not None:
            yield [f"`{name}`", text]


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


def _splits(built: Built) -> Iterator[str]:
    for file in (f for f in built.files if f.splits):
        table = manifest.read(built.out / file.name, ["dataset", "split"])
        counts = {
            (row["dataset"], row["split"]): row["split_count"]
            for row in table.group_by(["dataset", "split"]).aggregate([("split", "count")]).to_pylist()
        }
        rows = [[f"`{file.name}`", *file.splits]]
        for name in sorted({dataset for dataset, _ in counts}):
            rows.append([name, *(f"{counts.get((name, side), 0):,}" for side in file.splits)])
        totals = [sum(n for (_, s), n in counts.items() if s == side) for side in file.splits]
        yield _table([*rows, ["all", *(f"{n:,}" for n in totals)]])


def _densities(built: Built) -> Iterator[str]:
    yield (
        "Heads per bin of 12 degrees, in percent of the heads inside -90 to 90. The pool holds the usable heads only."
        + (" UBHPD is what was chosen of it." if len(built.files) > 1 else "")
    )
    found = [densities.read(built.out / f.name) for f in built.files]
    counted = [t for d, own in zip(found, ("pool", "ubhpd"), strict=False) if (t := getattr(d, own)) is not None]
    rows = [["bin", *(f"{t.name} {a}" for t in counted for a in bins.ANGLES)]]
    for i in range(bins.N_BINS):
        low, high = bins.EDGES_DEG[i], bins.EDGES_DEG[i + 1]
        shares = [_share(int(row[i]), int(row.sum())) for t in counted for row in t.inside]
        rows.append([f"{low:.0f} to {high:.0f}", *shares])
    yield _table([*rows, ["outside (heads)", *(f"{n:,}" for t in counted for n in t.outside)]])


def _columns(built: Built) -> Iterator[str]:
    own = {c.name: c for f in built.files for c in f.columns}
    first = {c.name for c in built.files[0].columns}
    rows = [["column", "type", "unit", "what it is"]]
    for c in own.values():
        only = "" if c.name in first else f" (only in `{built.files[-1].name}`)"
        kind = str(c.type) if c.length is None else f"double x {c.length}"
        rows.append([f"`{c.name}`", kind, c.unit, f"{c.meaning}{only}"])
    yield "Missing is null. Angles: R = Rx(-pitch) Ry(-yaw) Rz(-roll), x right in the image, y up, z to the viewer."
    yield _table(rows)


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


def _people_limits(facts: dict[str, Any]) -> Iterator[str]:
    unknown = [name for name, own in facts.items() if own["usable"] and not own["subjects"]]
    if unknown:
        yield (
            f"{', '.join(unknown)}: the source does not tell persons apart, so one person may be on both sides of any "
            "split."
        )
    for name, own in facts.items():
        if own["subjects"]:
            yield f"{name}: {own['usable']:,} heads of only {own['subjects']:,} people, many nearly the same frame."
    synthetic = sum(own["synthetic"] for own in facts.values())
    if synthetic:
        yield f"{synthetic:,} of {sum(own['usable'] for own in facts.values()):,} usable heads are rendered or warped."


def _more(n: int) -> list[str]:
    return [f"{n} more remarks stand in build.json"] if n > 0 else []


def _licence() -> Iterator[str]:
    yield "The labels keep the terms of the sources above; together, the strictest apply. The code of ubhpd is MIT."
    yield PERSONAL


def _citations(built: Built) -> Iterator[str]:
    own = dict.fromkeys(s.citation for s in built.sources if s.citation)
    yield "\n".join(f"* {c}" for c in [f"UBHPD and UBMAE: {CITATION}", *own])
    yield f"Name the fingerprint with a result: `{built.files[-1].fingerprint}`."


def _share(heads: int, total: int) -> str:
    if not heads:
        return "0"
    return f"{100 * heads / total:.2f}" if heads >= total / 20_000 else "< 0.01"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first row is its header."""
    cells = [[" ".join(c.split()).replace("|", "\\|") for c in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
