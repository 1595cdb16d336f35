"""Selects the heads of a protocol from a manifest: both splits, their hashes, and deviations from the papers.

The protocols themselves are data, in `definitions`; this module is all that others need to import. The
hash of a resolution is the SHA-256 of its list as `list_text` writes it, so that `sha256sum` of the written file
gives the same; the hash of one split is that of its sorted names, one per line. Neither depends on the order of the
manifest, on --max-angle, nor on the machine.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd import manifest
from ubhpd.core.bins import ANGLES
from ubhpd.core.errors import UbhpdError
from ubhpd.core.text import csv_lines
from ubhpd.core.typing import BoolArray
from ubhpd.manifest import BuildFolder, readmitted
from ubhpd.protocols.definitions import (
    ALL,
    POOL,
    PROTOCOLS,
    TEST,
    TRAIN,
    UBHPD,
    Divide,
    Protocol,
    SplitDefinition,
    in_series,
    protocol,
    protocols_named,
    training_protocol,
)
from ubhpd.sampling import heads
from ubhpd.sampling.splits import split

__all__ = [
    "PROTOCOLS",
    "Protocol",
    "Resolution",
    "SplitCount",
    "ids_hash",
    "in_series",
    "list_text",
    "protocol",
    "protocols_named",
    "resolve",
    "training_protocol",
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
    hashes: of each. warnings: sentences, where the heads are not those of the papers; test_warnings: those of them that
    concern the test split, which are all that matters where nothing is trained.
    """

    protocol: Protocol
    seed: int | None
    train: tuple[str, ...]
    test: tuple[str, ...]
    hash: str
    hashes: Mapping[str, str]
    counts: Mapping[str, SplitCount]
    warnings: tuple[str, ...]
    test_warnings: tuple[str, ...] = ()

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
        UbhpdError: no such protocol or manifest, a frame list missing, unwanted or without a known frame, a missing
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
    differences = _differences(wanted, ids)
    train_warnings = (*train.warnings, *_sampled_with_target(wanted, tables))
    return Resolution(
        protocol=wanted,
        seed=None if wanted.divide is None else seed,
        train=ids[TRAIN],
        test=ids[TEST],
        hash=hashlib.sha256(_list_text(ids[TRAIN], ids[TEST]).encode()).hexdigest(),
        hashes=hashes,
        counts={name: _count(wanted, name, side) for name, side in sides.items()},
        warnings=(*dict.fromkeys((*train_warnings, *test.warnings)), *differences.values()),
        test_warnings=(*test.warnings, *(text for name, text in differences.items() if name != TRAIN)),
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
    return csv_lines([("sample_id", "side"), *((i, TRAIN) for i in train), *((i, TEST) for i in test)])


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


def _sampled_with_target(wanted: Protocol, tables: Mapping[str, pa.Table]) -> tuple[str, ...]:
    """Return a warning where UBHPD was sampled with the dataset that a protocol across datasets tests on."""
    if wanted.series != "cross":
        return ()
    (target,) = wanted.test.where[0].values
    number = pc.sum(pc.equal(tables[UBHPD].column("dataset"), target)).as_py() or 0
    if not number:
        return ()
    return (
        f"UBHPD was sampled with {target} and loses its {number:,} heads here, so it misses its target: OsGG-Net's "
        f"was sampled without, as by ubhpd build --exclude {target}.",
    )


def _differences(wanted: Protocol, ids: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Return a sentence for each split that does not have the published heads, by the name of the split."""
    known = {**ids, ALL: ids[TRAIN] + ids[TEST]}
    found = {}
    for name, published in wanted.published.items():
        start = "Both splits together have" if name == ALL else f"{name.capitalize()} has"
        if name == TRAIN and not ids[TRAIN]:
            found[name] = "The training split is not in this manifest: only the test split is used."
            continue
        if len(known[name]) != published.heads:
            start += f" {len(known[name]):,} heads where {published.heads:,} are published"
        elif published.ids_hash and ids_hash(known[name]) != published.ids_hash:
            start += f" as many heads as published, {published.heads:,}, but not the same ones"
        else:
            continue
        found[name] = f"{start}: results are not comparable with published ones."
    return found


_FRAME = re.compile(r"(?<![0-9A-Za-z])(\d{1,2})[/\\_]frame_(\d{1,5})(?!\d)")
_MAX_NPZ_BYTES = 64 << 20
_NPY = b"\x93NUMPY"
_EXAMPLE = "01/frame_00003 or hpdb/01/frame_00003_rgb.png"


class FrameList(NamedTuple):
    """The frames of a list: sample_id -> number of the line that names it first, and how many were named again."""

    path: str
    lines: dict[str, int]
    repeated: int


def read_frame_list(path: str | os.PathLike[str]) -> FrameList:
    """Return the BIWI frames that a file names, in its order.

    The file is text with a frame per line (other columns are ignored, as in OPAL's biwi_ann.txt), or NumPy's .npz with
    an array of names, as headposeplus's Biwi_FSA-Net.npz, which is read without pickle.

    Raises:
        UbhpdError: no such file, neither text nor .npz, a line that names no frame, or no frame at all.
    """
    lines: dict[str, int] = {}
    repeated = 0
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        # A line may name the image and the pose file of one frame: that is one frame.
        found = dict.fromkeys(f"biwi/{int(s):02d}/frame_{int(f):05d}" for s, f in _FRAME.findall(line))
        if not found:
            if not lines and not any(c.isdigit() for c in line):
                continue
            shown = line.strip()[:60]
            raise UbhpdError(f"{path}, line {number}: {shown!r} names no BIWI frame such as {_EXAMPLE}.")
        for sample_id in found:
            repeated += sample_id in lines
            lines.setdefault(sample_id, number)
    if not lines:
        raise UbhpdError(f"{path} names no frame: give one per line, such as {_EXAMPLE}.")
    return FrameList(str(path), lines, repeated)


def _lines(path: str | os.PathLike[str]) -> list[str]:
    try:
        with Path(path).open("rb") as file:
            start = file.read(len(_NPY))
    except OSError as error:
        raise UbhpdError(f"Cannot open {path} ({error.strerror}): check the path of the frame list.") from None
    is_numpy = Path(path).suffix.lower() in (".npz", ".npy") or start.startswith((b"PK\x03\x04", _NPY))
    return _names_in_numpy(path) if is_numpy else _text(path).splitlines()


def _names_in_numpy(path: str | os.PathLike[str]) -> list[str]:
    """Return the strings of the first array of texts in an .npz or .npy file that names BIWI frames."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if sum(member.file_size for member in archive.infolist()) > _MAX_NPZ_BYTES:
                    raise UbhpdError(f"{path} holds more than {_MAX_NPZ_BYTES >> 20} MB: no frame list is that large.")
            with np.load(path, allow_pickle=False) as arrays:
                for name in arrays.files:
                    with suppress(ValueError):  # an array of Python objects, which only pickle reads
                        if names := _frame_names(arrays[name]):
                            return names
        else:
            with Path(path).open("rb") as file:
                if names := _frame_names(np.load(file, allow_pickle=False)):
                    return names
    except OSError as error:
        raise UbhpdError(f"Cannot open {path} ({error.strerror or error}): check the frame list.") from None
    except (
        zipfile.BadZipFile,
        ValueError,
        KeyError,
        EOFError,
        zlib.error,
        MemoryError,
        NotImplementedError,
        RuntimeError,
    ):
        raise UbhpdError(f"{path} is not a readable file of NumPy: get it again.") from None
    raise UbhpdError(f"{path} has no array of names such as {_EXAMPLE}: give a list of frames.")


def _frame_names(values: Any) -> list[str]:
    """Return the texts of an array, in its order, if the first of them names a frame, else nothing."""
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "US":
        return []
    texts = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values.ravel().tolist()]
    return texts if texts and _FRAME.search(texts[0]) else []


def _text(path: str | os.PathLike[str]) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UbhpdError(f"Cannot open {path} ({error.strerror}): check the path of the frame list.") from None
    except UnicodeDecodeError:
        raise UbhpdError(
            f"{path} is not UTF-8 text: a frame list has one frame per line, such as {_EXAMPLE}."
        ) from None


CONDITIONS: dict[str, Callable[[Any, tuple[str, ...]], Any]] = {
    "is": lambda column, values: pc.is_in(column, pa.array(values, pa.string())),
    "is not": lambda column, values: pc.invert(pc.is_in(column, pa.array(values, pa.string()))),
    "does not start with": lambda column, values: pc.invert(_starts(column, values)),
}

_BEYOND = "beyond_max_angle"


class Chosen(NamedTuple):
    """The rows of one split, how many were left out and why, and what there is to say."""

    rows: pa.Table
    refused: int = 0
    beyond: int = 0
    shared: int = 0
    warnings: tuple[str, ...] = ()


def choose(side: SplitDefinition, tables: Mapping[str, pa.Table], frames: FrameList | None) -> Chosen:
    """Return the heads that meet the conditions of a split and have a pose within its limit.

    Raises:
        UbhpdError: no listed frame is in the manifest.
    """
    rows = tables[side.table]
    for where in side.where:
        rows = rows.filter(CONDITIONS[where.how](rows.column(where.column), where.values))
    warnings: tuple[str, ...] = ()
    if side.listed and frames is not None:
        rows, warnings = _listed(rows, frames)
    reasons = rows.column("drop_reason")
    # What the build refused for its angle alone has a pose: the protocol has a limit of its own.
    usable = rows.filter(pc.or_(reasons.is_null(), pc.fill_null(pc.equal(reasons, _BEYOND), False)))
    within = usable
    if side.max_angle_deg is not None:
        angles = np.stack([usable.column(f"{a}_deg").to_numpy() for a in ANGLES], axis=1).astype(np.float64)
        within = usable.filter(pa.array((np.abs(angles) <= side.max_angle_deg).all(axis=1)))
    refused = rows.num_rows - usable.num_rows
    if refused and side.listed:
        warnings += (f"{_frames(refused)} in the list but refused in this manifest: see ubhpd info OUT --dropped.",)
    return Chosen(within, refused, usable.num_rows - within.num_rows, 0, warnings)


def apart(side: Chosen, columns: Iterable[str], other: pa.Table) -> Chosen:
    """Return the side without the heads that share a value of one of the columns with the other split."""
    rows = side.rows
    for name in columns:
        there = pc.unique(other.column(name)).drop_null()
        rows = rows.filter(pc.invert(pc.is_in(rows.column(name), there)))
    return side._replace(rows=rows, shared=side.rows.num_rows - rows.num_rows)


def divided(both: Chosen, divide: Divide, seed: int) -> tuple[Chosen, Chosen]:
    """Return train and test of one set of heads.

    Raises:
        UbhpdError: there are too few groups to divide.
    """
    rows = both.rows
    if not rows.num_rows:
        return both, both
    if divide.form == _DRAWN_HEADS:
        train, test = _drawn_heads(rows, divide, seed)
    else:
        train = DIVISIONS[divide.form](rows, divide, seed)
        test = ~train
    return both._replace(rows=rows.filter(pa.array(train))), both._replace(rows=rows.filter(pa.array(test)))


def _listed(rows: pa.Table, frames: FrameList) -> tuple[pa.Table, tuple[str, ...]]:
    """Return the rows that the list names, and what there is to say of the list."""
    known = set(rows.column("sample_id").to_pylist())
    absent = [i for i in frames.lines if i not in known]
    if len(absent) == len(frames.lines):
        raise UbhpdError(
            f"None of the {len(absent):,} frames of {frames.path} is in the manifest, the first is {absent[0]}: check "
            "the list, and that BIWI is part of the build."
        )
    missing: tuple[str, ...] = ()
    if absent:
        where = f"{_frames(len(absent))} in the list but not in the manifest, the first is {absent[0]}"
        missing = (f"{where}: check that the data is whole.",)
    again = (f"{_frames(frames.repeated)} named more than once in the list.",) if frames.repeated else ()
    return rows.filter(pc.is_in(rows.column("sample_id"), pa.array(frames.lines, pa.string()))), missing + again


def _split(rows: pa.Table, divide: Divide, seed: int) -> BoolArray:
    """Return True for train, as ubhpd.sampling.splits divides."""
    known = heads.from_table(readmitted(rows))
    return np.asarray(split(known, divide.form, seed, divide.share).side == TRAIN)


def _drawn(rows: pa.Table, divide: Divide, seed: int) -> BoolArray:
    """Return True for train: the recordings in a random order, which depends on seed and names alone."""
    column = rows.column("sequence_id")
    by_lot = sorted(pc.unique(column).to_pylist(), key=lambda s: hashlib.sha256(f"{seed} {s}".encode()).digest())
    drawn = by_lot[: round(divide.share * len(by_lot))]
    return np.asarray(pc.is_in(column, pa.array(drawn, pa.string())))


_DRAWN_HEADS = "drawn heads"
_DRAWN = 22_080  # heads of both splits at most


def _drawn_heads(rows: pa.Table, divide: Divide, seed: int) -> tuple[BoolArray, BoolArray]:
    """Return which heads train and which test: photographs in a random order, which depends on seed and names alone.

    The first ones test, until there are enough heads, those of the photographs that follow train. Heads of one
    photograph are never in both; the last photograph of a split may be cut off.
    """
    photos = rows.column("source_photo").to_pylist()
    names = [p or i for p, i in zip(photos, rows.column("sample_id").to_pylist(), strict=True)]
    mark = [hashlib.sha256(f"{seed} {name}".encode()).digest() for name in names]
    ids = rows.column("sample_id").to_pylist()
    order = sorted(range(len(names)), key=lambda i: (mark[i], ids[i]))
    wanted = min(len(names), _DRAWN)
    tests = round((1 - divide.share) * wanted)
    test, train = np.zeros(len(names), dtype=bool), np.zeros(len(names), dtype=bool)
    test[order[:tests]] = True
    tested = {names[i] for i in order[:tests]}
    rest = [i for i in order[tests:] if names[i] not in tested]
    train[rest[: wanted - tests]] = True
    return train, test


def _starts(column: Any, values: tuple[str, ...]) -> Any:
    starts = pc.starts_with(column, values[0])
    for value in values[1:]:
        starts = pc.or_(starts, pc.starts_with(column, value))
    return pc.fill_null(starts, False)


def _frames(n: int) -> str:
    return "1 frame is" if n == 1 else f"{n:,} frames are"


DIVISIONS: dict[str, Callable[[pa.Table, Divide, int], BoolArray]] = {
    _DRAWN_HEADS: lambda rows, divide, seed: _drawn_heads(rows, divide, seed)[0],
    "random": _split,
    "sequence": _split,
    "subject": _split,
    "drawn recordings": _drawn,
}
