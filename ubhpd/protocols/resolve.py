"""Selects the heads of a protocol from a manifest: both splits, their hashes, and deviations from the papers.

The protocols themselves are data, in `definitions`; this module is all that others need to import. The
hash of a resolution is the SHA-256 of its list as `list_text` writes it, so that `sha256sum` of the written file
gives the same; the hash of one split is that of its sorted names, one per line. Neither depends on the order of the
manifest, on --max-angle, nor on the machine.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.manifest import BuildFolder
from ubhpd.protocols.definitions import ALL, POOL, PROTOCOLS, TEST, TRAIN, UBHPD, Protocol, in_series, protocol
from ubhpd.protocols.rules import Chosen, apart, choose, divided, read_frame_list
from ubhpd.sampling import heads

__all__ = [
    "PROTOCOLS",
    "Protocol",
    "Resolution",
    "SplitCount",
    "ids_hash",
    "in_series",
    "list_text",
    "protocol",
    "resolve",
]

Manifest: TypeAlias = str | os.PathLike[str] | pa.Table | Mapping[str, pa.Table]

_SPLIT = "split"  # the column that tells UBHPD from a pool
_REMEDY = {
    POOL: "name the folder that ubhpd build --out wrote to",
    UBHPD: "let ubhpd build sample UBHPD from the pool, then name its folder",
}


class SplitCount(NamedTuple):
    """Heads chosen; published, if known; and left out: without a usable pose, beyond the angle, or shared with the
    other split."""

    heads: int
    published: int | None
    refused: int
    beyond_max_angle: int
    shared: int


@dataclass(frozen=True)
class Resolution:
    """The heads of a protocol on one manifest.

    train, test: sorted sample_ids. seed: None where the protocol divides nothing. hash: of the list of both splits;
    hashes: of each. warnings: sentences, where the heads are not those of the papers.
    """

    protocol: Protocol
    seed: int | None
    train: tuple[str, ...]
    test: tuple[str, ...]
    hash: str
    hashes: Mapping[str, str]
    counts: Mapping[str, SplitCount]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the names as what JSON can hold."""
        return {
            "protocol": self.protocol.id,
            "version": self.protocol.version,
            "definition_hash": self.protocol.definition_hash,
            "seed": self.seed,
            "hash": self.hash,
            "hashes": dict(self.hashes),
            "counts": {side: count._asdict() for side, count in self.counts.items()},
            "warnings": list(self.warnings),
        }


def resolve(
    protocol_id: str,
    source: Manifest,
    frame_list: str | os.PathLike[str] | None = None,
    seed: int = 0,
    train_optional: bool = False,
) -> Resolution:
    """Return the heads that a protocol takes from a manifest.

    Args:
        protocol_id: a key of PROTOCOLS.
        source: a build's folder, a manifest in it, a table of one, or tables by "pool" and "ubhpd".
        frame_list: file with the frames, for protocols that need it.
        seed: of a protocol that divides one set of heads; others do not use it.
        train_optional: accept a manifest without the heads of the training split, with a warning: scoring needs only
            those of the test split.

    Raises:
        UbhpdError: no such protocol or manifest, a frame list missing, unwanted or with an unknown frame, a missing
            column, or a split without heads.
    """
    wanted = protocol(protocol_id)
    if wanted.needs_frames and frame_list is None:
        raise UbhpdError(f"Protocol {wanted.id} needs a list of frames: give --frames FILE with one frame per line.")
    if frame_list is not None and not wanted.needs_frames:
        raise UbhpdError(f"Protocol {wanted.id} takes no list of frames: leave --frames away.")
    if wanted.divide is not None and seed < 0:
        raise UbhpdError(f"The seed is {seed!r}: give a whole number of at least 0.")
    frames = None if frame_list is None else read_frame_list(frame_list)
    tables = _tables(wanted, source)
    test = choose(wanted.test, tables, frames)
    if wanted.divide is None:
        train = apart(choose(wanted.train, tables, frames), wanted.train.apart, test.rows)
    else:
        train, test = divided(test, wanted.divide, seed)
    sides = {TRAIN: train, TEST: test}
    for name, side in sides.items():
        if not side.rows.num_rows and not (name == TRAIN and train_optional):
            rule = getattr(wanted, name)
            raise UbhpdError(f"Protocol {wanted.id} finds no head to {name}: it takes {rule}, and there is none here.")
    ids = {name: _sorted_ids(side.rows) for name, side in sides.items()}
    hashes = {name: ids_hash(names) for name, names in ids.items()}
    return Resolution(
        protocol=wanted,
        seed=None if wanted.divide is None else seed,
        train=ids[TRAIN],
        test=ids[TEST],
        hash=hashlib.sha256(_list_text(ids[TRAIN], ids[TEST]).encode()).hexdigest(),
        hashes=hashes,
        counts={name: _count(wanted, name, side) for name, side in sides.items()},
        warnings=(*dict.fromkeys(train.warnings + test.warnings), *_differences(wanted, ids)),
    )


def ids_hash(ids: Iterable[str]) -> str:
    """Return the SHA-256 of names, sorted, one per line: what `LC_ALL=C sort ids.txt | sha256sum` prints."""
    return hashlib.sha256("".join(f"{i}\n" for i in sorted(ids)).encode()).hexdigest()


def list_text(resolution: Resolution) -> str:
    """Return the heads with their split as CSV, train first, each split sorted.

    The SHA-256 of this text is the hash of the resolution.
    """
    return _list_text(resolution.train, resolution.test)


def _list_text(train: Iterable[str], test: Iterable[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["sample_id", "side"])
    for side, ids in ((TRAIN, train), (TEST, test)):
        writer.writerows((i, side) for i in ids)
    return text.getvalue()


def _tables(wanted: Protocol, source: Manifest) -> dict[str, pa.Table]:
    """Return the manifests that the protocol is read from, with the columns that it needs."""
    if isinstance(source, pa.Table):
        source = {UBHPD if _SPLIT in source.column_names else POOL: source}
    found = {}
    for kind in wanted.tables:
        names = [*heads.COLUMNS, _SPLIT] if kind == UBHPD else list(heads.COLUMNS)
        if not isinstance(source, Mapping):
            found[kind] = manifest.read(_path_of(kind, Path(source), wanted), names)
            continue
        if kind not in source:
            raise UbhpdError(f"Protocol {wanted.id} needs the manifest {kind}, which is not given: {_REMEDY[kind]}.")
        if missing := [n for n in names if n not in source[kind].column_names]:
            raise UbhpdError(f"The manifest {kind} has no column {missing[0]!r}, which protocol {wanted.id} needs.")
        found[kind] = source[kind].select(names)
    return found


def _path_of(kind: str, place: Path, wanted: Protocol) -> Path:
    """Return the file itself if it is of that kind, else the one of that kind in the folder."""
    build = BuildFolder.at(place)
    if build.named is not None and (_SPLIT in manifest.header(build.named).schema.names) == (kind == UBHPD):
        return build.named
    return build.require(kind, f"Protocol {wanted.id}")


def _sorted_ids(rows: pa.Table) -> tuple[str, ...]:
    return tuple(sorted(rows.column("sample_id").to_pylist()))


def _count(wanted: Protocol, name: str, side: Chosen) -> SplitCount:
    published = wanted.published.get(name)
    return SplitCount(
        side.rows.num_rows, published.heads if published else None, side.refused, side.beyond, side.shared
    )


def _differences(wanted: Protocol, ids: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return a sentence for each split that does not have the published heads."""
    known = {**ids, ALL: ids[TRAIN] + ids[TEST]}
    found = []
    for name, published in wanted.published.items():
        start = "Both splits together have" if name == ALL else f"{name.capitalize()} has"
        if name == TRAIN and not ids[TRAIN]:
            found.append("The training split is not in this manifest: only the test split is used.")
            continue
        if len(known[name]) != published.heads:
            start += f" {len(known[name]):,} heads where {published.heads:,} are published"
        elif published.ids_hash and ids_hash(known[name]) != published.ids_hash:
            start += f" as many heads as published, {published.heads:,}, but not the same ones"
        else:
            continue
        found.append(f"{start}: results are not comparable with published ones.")
    return found
