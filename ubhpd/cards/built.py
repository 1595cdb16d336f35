"""What a build's folder holds, for its card and its Croissant file: nothing of the machine that it was made on."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ubhpd import manifest, registry
from ubhpd.errors import UbhpdError
from ubhpd.schema import COLUMNS, list_length

FILES = ("pool.parquet", "ubhpd.parquet")
CITATION = (
    "S. Mo, X. Miao: OsGG-Net: One-step Graph Generation Network for Unbiased Head Pose Estimation. "
    "ACM Multimedia 2021."
)
PERSONAL = (
    "But for rendered ones the heads are those of people, some of them of private persons photographed in public. "
    "This folder holds labels and names of files, no pictures; no age, sex or origin is recorded. Do not use it to "
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
    report = _report(out)
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


def _report(out: Path) -> dict[str, Any]:
    path = out / "build.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UbhpdError(
            f"Cannot open {path} ({error.strerror}): name the folder that ubhpd build --out wrote to."
        ) from None
    except ValueError:
        raise UbhpdError(f"{path} is not JSON: {_REMEDY}.") from None
    if not isinstance(report, dict):
        raise UbhpdError(f"{path} is not what ubhpd build writes: {_REMEDY}.")
    return report


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
