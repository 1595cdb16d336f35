"""Ways in which a test head may be related to a train head, each found in one pass over arrays.

Heads are rows, in the order of their names; a name is a number from 0 on, -1 where it is missing.

Leakage between train and test: what a model may have seen of a test head before it is tested.

The kinds of KINDS are looked for by name (person, recording, frame, mirror image, photograph), and two more by
the look of the images, with hashes from `similar`. For every test head that leaks in one way, the report
holds the nearest train head and how many train heads are related to it in that way, so that it stays as long as
the test set even where every frame of a person is related to every other one. Leaving out the listed test heads
leaves no leakage of that kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing
from ubhpd.core.progress import Progress
from ubhpd.core.text import csv_lines
from ubhpd.core.typing import BoolArray, IntArray, UInt64Array
from ubhpd.manifest import BuildFolder
from ubhpd.quality.duplicates import ImageHashes, nearest

EQUAL_IMAGE, SIMILAR_IMAGE = "equal_image", "similar_image"


class Leak(NamedTuple):
    """Test heads that leak in one way (k,): their rows, the nearest train rows, distances (-1: none), partners."""

    kind: str
    test: IntArray
    train: IntArray
    distance: IntArray
    partners: IntArray
    train_heads: int  # how many train heads are a partner of any


def shared(
    kind: str, code: IntArray, is_test: BoolArray, key: IntArray | None = None, test_code: IntArray | None = None
) -> Leak:
    """Return the test heads whose code a train head has; `key` orders the heads of a code, the nearest is named."""
    test_code = code if test_code is None else test_code
    size = int(max(code.max(initial=-1), test_code.max(initial=-1))) + 1
    train = np.flatnonzero(~is_test & (code >= 0))
    n_train = np.bincount(code[train], minlength=size)
    test = np.flatnonzero(is_test & (test_code >= 0))
    test = test[n_train[test_code[test]] > 0]
    n_test = np.bincount(test_code[test], minlength=size)
    if key is None:
        first = np.full(size, -1)
        first[code[train[::-1]]] = train[::-1]
        nearest, distance = first[test_code[test]], np.full(len(test), -1)
    else:
        nearest, distance = _nearest(key, train, test)
    return Leak(kind, test, nearest, distance, n_train[test_code[test]], int((n_test[code[train]] > 0).sum()))


def near(kind: str, key: IntArray, is_frame: BoolArray, is_test: BoolArray, reach: int) -> Leak:
    """Return the test frames with a train frame of the same recording at most `reach` away."""
    train, test = np.flatnonzero(is_frame & ~is_test), np.flatnonzero(is_frame & is_test)
    partners, of_train = _within(key[train], key[test], reach), _within(key[test], key[train], reach)
    test, partners = test[partners > 0], partners[partners > 0]
    nearest, distance = _nearest(key, train, test)
    return Leak(kind, test, nearest, distance, partners, int((of_train > 0).sum()))


def across(kind: str, photo: IntArray, dataset: IntArray, is_test: BoolArray) -> Leak:
    """Return the test heads whose photograph a train head of another dataset has."""
    both = joint(photo, dataset)
    train = np.flatnonzero(~is_test & (photo >= 0))[::-1]
    test = np.flatnonzero(is_test & (photo >= 0))
    of_photo = np.bincount(photo[train], minlength=int(photo.max(initial=-1)) + 1)
    of_joint = np.bincount(both[train], minlength=int(both.max(initial=-1)) + 1)
    partners = of_photo[photo[test]] - of_joint[both[test]]
    test, partners = test[partners > 0], partners[partners > 0]
    first, second = np.full((2, len(of_photo)), -1)
    first[photo[train]] = train  # the last assignment, which is the first row, stays
    others = train[dataset[train] != dataset[first[photo[train]]]]
    second[photo[others]] = others
    nearest = first[photo[test]]
    nearest = np.where(dataset[nearest] != dataset[test], nearest, second[photo[test]])
    of_test = np.bincount(photo[test], minlength=len(of_photo))
    same = np.bincount(both[test], minlength=len(of_joint))
    involved = int((of_test[photo[train]] > same[both[train]]).sum())
    return Leak(kind, test, nearest, np.full(len(test), -1), partners, involved)


def by_image(values: UInt64Array, known: BoolArray, is_test: BoolArray, bits: int) -> list[Leak]:
    """Return the test heads whose image equals, or nearly equals, that of a train head."""
    train, test = np.flatnonzero(known & ~is_test), np.flatnonzero(known & is_test)
    result = []
    for kind, low, high in ((EQUAL_IMAGE, 0, 0), (SIMILAR_IMAGE, 1, bits)):
        found = nearest(values[train], values[test], low, high)
        hit = np.flatnonzero(found.partners > 0)
        result.append(Leak(kind, test[hit], train[found.train[hit]], found.distance[hit], found.partners[hit],
                           int(found.is_partner.sum())))  # fmt: skip
    return result


def _nearest(key: IntArray, train: IntArray, test: IntArray) -> tuple[IntArray, IntArray]:
    """Return for each test row the train row with the nearest key, the lower one of two, and how far it is."""
    if not len(test):
        return test, test
    order = train[np.argsort(key[train], kind="stable")]
    after = np.searchsorted(key[order], key[test])
    low, high = order[np.maximum(after - 1, 0)], order[np.minimum(after, len(order) - 1)]
    below, above = np.abs(key[test] - key[low]), np.abs(key[high] - key[test])
    return np.where(below <= above, low, high), np.minimum(below, above)


def _within(key: IntArray, at: IntArray, reach: int) -> IntArray:
    """Return how many of the keys are at most `reach` away from each of `at`."""
    ordered = np.sort(key)
    return np.searchsorted(ordered, at + reach, side="right") - np.searchsorted(ordered, at - reach, side="left")


def frame_key(sequence: IntArray, frame: IntArray, is_frame: BoolArray, reach: int) -> IntArray:
    """Return whole numbers that differ by the frames between two heads, and by more for two recordings."""
    frame = np.where(is_frame, frame, 0)
    low, high = int(frame.min(initial=0)), int(frame.max(initial=0))
    stride = 2 * (high - low) + 2 * reach + 2
    if stride * (int(sequence.max(initial=0)) + 1) > 2**62:
        raise UbhpdError(f"frame_index goes from {low} to {high}, which no recording does: build the manifest again.")
    return np.where(is_frame, sequence * stride + frame - low, -1)


def codes(names: pa.ChunkedArray) -> IntArray:
    """Return a number from 0 on per name (n,), -1 where it is missing."""
    names = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
    indices = names.cast(pa.string()).dictionary_encode().indices
    codes: IntArray = indices.fill_null(-1).to_numpy().astype(np.int64)
    return codes


def joint(photo: IntArray, dataset: IntArray) -> IntArray:
    """Return a number per pair of numbers, -1 where the first is."""
    return np.where(photo >= 0, photo * (int(dataset.max(initial=0)) + 1) + dataset, -1)


KINDS: dict[str, str] = {
    "head": "the same sample_id in both splits",
    "subject": "the same person",
    "sequence": "the same recording; distance in frames",
    "neighbour": "frames next to each other in the same recording; distance in frames",
    "flip": "a head and its mirror image",
    "photo": "made from, or faces in, the same photograph",
    "photo_across": "the same photograph in two datasets, as AFLW2000 images in AFLW",
    EQUAL_IMAGE: "images with equal perceptual hashes",
    SIMILAR_IMAGE: "images with nearly equal perceptual hashes; distance in bits",
}
COLUMNS: tuple[str, ...] = (
    "sample_id",
    "dataset",
    "subject_id",
    "sequence_id",
    "frame_index",
    "flip_of",
    "source_photo",
)
SPLIT, TRAIN, TEST = "split", "train", "test"


@dataclass(frozen=True)
class AuditOptions:
    """frames: so far apart two frames of a recording still are neighbours. bits: so many bits, of 64, may differ."""

    frames: int = 5
    bits: int = 6


@dataclass(frozen=True)
class AuditReport:
    """What the audit found. Rows in `leaks` are those of `sample_id`; kinds that were not looked for are not in it."""

    train: int
    test: int
    options: AuditOptions
    sample_id: pa.ChunkedArray
    leaks: tuple[Leak, ...]
    failures: tuple[str, ...] = ()  # images that could not be compared

    @property
    def has_leaks(self) -> bool:
        """Whether anything leaks."""
        return any(len(leak.test) for leak in self.leaks)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return per kind the numbers of pairs, and of heads of either split that are in one."""
        return {
            leak.kind: {
                "pairs": int(leak.partners.sum()),
                "test_heads": len(leak.test),
                "train_heads": leak.train_heads,
            }
            for leak in self.leaks
        }

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the list as what JSON can hold."""
        return {
            "train": self.train,
            "test": self.test,
            "options": asdict(self.options),
            "kinds": self.counts(),
            "images_not_compared": len(self.failures),
            "leakage": self.has_leaks,
        }

    def pairs(self) -> pa.Table:
        """Return the list: train and test sample_id, kind, distance (null: none), train heads related alike."""
        columns: dict[str, list[Any]] = {n: [] for n in ("train", "test", "kind", "distance", "partners")}
        for leak in self.leaks:
            columns["train"] += self.sample_id.take(pa.array(leak.train)).chunks
            columns["test"] += self.sample_id.take(pa.array(leak.test)).chunks
            columns["kind"].append(pa.repeat(leak.kind, len(leak.test)))
            columns["distance"].append(pa.array(leak.distance, mask=leak.distance < 0))
            columns["partners"].append(pa.array(leak.partners))
        types = {"distance": pa.int64(), "partners": pa.int64()}
        return pa.table({n: pa.chunked_array(v, types.get(n, pa.string())) for n, v in columns.items()})


def audit(
    table: pa.Table,
    test: pa.Table | None = None,
    options: AuditOptions | None = None,
    hashes: Sequence[ImageHashes] | None = None,
) -> AuditReport:
    """Return what leaks from train to test.

    Refused heads (drop_reason) and heads in neither split are left out. The result does not depend on the order
    of the rows.

    Args:
        table: a manifest with the column split (train, test or null); or the train set, where `test` is given.
        test: the test set, another manifest. Both are then taken as a whole; their own splits do not count.
        options: what counts as near.
        hashes: of the rows of `table`, and of `test`; images are not compared without them.

    Raises:
        UbhpdError: a column is missing, a split other than train or test, or a split without heads.
    """
    options = options or AuditOptions()
    if options.frames < 0 or not 0 <= options.bits <= 15:
        raise UbhpdError(f"frames is {options.frames} and bits {options.bits}: give at least 0, and 0 to 15.")
    heads, is_test, rows = _sides(table, test)
    code = {n: codes(heads.column(n)) for n in ("subject_id", "sequence_id", "source_photo", "dataset")}
    ids, twins = heads.column("sample_id"), heads.column("flip_of")
    frames = heads.column("frame_index")
    is_frame = frames.is_valid().to_numpy() & (code["sequence_id"] >= 0)
    key = frame_key(code["sequence_id"], frames.fill_null(0).to_numpy(), is_frame, options.frames)
    # A head and its mirror image are the same photograph seen from either role: one of each makes a pair.
    pair, is_twin = codes(pc.coalesce(twins, ids)), twins.is_valid().to_numpy()
    found = [
        shared("head", codes(ids), is_test),
        shared("subject", code["subject_id"], is_test),
        shared("sequence", np.where(is_frame, code["sequence_id"], -1), is_test, key),
        near("neighbour", key, is_frame, is_test, options.frames),
        shared("flip", 2 * pair + is_twin, is_test, test_code=2 * pair + ~is_twin),
        shared("photo", joint(code["source_photo"], code["dataset"]), is_test),
        across("photo_across", code["source_photo"], code["dataset"], is_test),
    ]
    failures: list[str] = []
    if hashes is not None:
        values = np.concatenate([h.hash for h in hashes])[rows]
        known = np.concatenate([h.known for h in hashes])[rows]
        found += by_image(values, known, is_test, options.bits)
        failures = [sentence for h in hashes for sentence in h.failures]
    n_test = int(is_test.sum())
    return AuditReport(len(is_test) - n_test, n_test, options, ids, tuple(found), tuple(failures))


def audit_places(
    train: Path,
    test: Path | None = None,
    options: AuditOptions | None = None,
    images: bool = False,
    jobs: int = 1,
    progress: Progress | None = None,
) -> AuditReport:
    """Return the audit of a build's folder, of a manifest with a split, or of a train and a test manifest.

    Args:
        train: a folder with ubhpd.parquet, or a manifest.
        test: the same, where the first is train as a whole.
        options: what counts as near.
        images: compare the images, too; they are found through build.json beside the manifest.
        jobs: processes for the images.
        progress: what to tell about them.

    Raises:
        UbhpdError: no manifest, no split, or no images there.
    """
    from ubhpd.quality.duplicates import COLUMNS as OF_IMAGES
    from ubhpd.quality.duplicates import image_hashes

    tables, hashes = [], []
    for place in (train,) if test is None else (train, test):
        path = BuildFolder.at(place).manifest()
        names = manifest.header(path).schema.names
        wanted = dict.fromkeys((*COLUMNS, *(OF_IMAGES if images else ()), "drop_reason", SPLIT))
        kept = [n for n in wanted if n in names and (n != SPLIT or test is None)]
        if test is None and SPLIT not in names:
            raise UbhpdError(f"{path} has no column {SPLIT!r}: give a split manifest, or a second one with --test.")
        tables.append(manifest.read(path, kept))
        if images:
            hashes.append(image_hashes(tables[-1], path.parent, jobs, progress))
    return audit(tables[0], tables[1] if test is not None else None, options, hashes if images else None)


def write_list(report: AuditReport, path: Path) -> None:
    """Write the pairs as CSV: train,test,kind,distance,partners; by kind, then by the test head."""
    pairs = report.pairs()
    try:
        with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            file.write(csv_lines([pairs.column_names]))
            for batch in pairs.to_batches(max_chunksize=65_536):
                file.write(csv_lines(zip(*(c.to_pylist() for c in batch.columns), strict=True)))
    except OSError as error:
        raise UbhpdError(f"Cannot write the list to {path} ({error.strerror}): choose another file.") from None


def audit_text(report: AuditReport, limit: int = 0) -> str:
    """Return the report as a table, with up to `limit` pairs of each kind."""
    from ubhpd.core.text import table

    rows = [["leakage", "test heads", "train heads", "pairs", "meaning"]]
    for kind, own in report.counts().items():
        numbers = [f"{own[k]:,}" for k in ("test_heads", "train_heads", "pairs")]
        rows.append([kind, *numbers, KINDS[kind]])
    lines = [f"{report.train:,} heads in train, {report.test:,} in test", table(rows)]
    if limit:
        for leak in report.leaks:
            named = zip(leak.test[:limit].tolist(), leak.train[:limit].tolist(), strict=True)
            lines += [f"{leak.kind}: {report.sample_id[t]} and {report.sample_id[r]}" for t, r in named]
    if EQUAL_IMAGE not in report.counts():
        lines.append("Images were not compared: --images does it.")
    if report.failures:
        lines.append(f"{len(report.failures):,} images could not be compared, for example: {report.failures[0]}")
    lines.append("Train and test share nothing that was looked for." if not report.has_leaks else
                 "Train and test are not independent.")  # fmt: skip
    return "\n".join(lines)


def _sides(table: pa.Table, test: pa.Table | None) -> tuple[pa.Table, BoolArray, IntArray]:
    """Return the heads of both splits in the order of their names, which are test, and their rows in the input."""
    parts, sides, rows, start = [], [], [], 0
    for number, part in enumerate((table,) if test is None else (table, test)):
        if missing := [n for n in COLUMNS if n not in part.column_names]:
            raise UbhpdError(f"The manifest has no column {missing[0]!r}: build it again.")
        side = np.full(part.num_rows, bool(number))
        used = np.ones(part.num_rows, dtype=bool)
        if test is None:
            side, used = _by_split(part)
        if "drop_reason" in part.column_names:
            used = used & part.column("drop_reason").is_null().to_numpy()
        at = np.flatnonzero(used)
        parts.append(part.select(COLUMNS).take(pa.array(at)))
        sides.append(side[at])
        rows.append(at + start)
        start += part.num_rows
    heads, is_test = pa.concat_tables(parts).combine_chunks(), np.concatenate(sides)
    for name, n in (("train", len(is_test) - is_test.sum()), ("test", is_test.sum())):
        if n == 0:
            raise UbhpdError(f"There is no usable head in {name}: an audit compares two splits.")
    order = np.lexsort((is_test, pc.rank(heads.column("sample_id"), tiebreaker="dense").to_numpy()))
    return heads.take(pa.array(order)), is_test[order], np.concatenate(rows)[order]


def _by_split(table: pa.Table) -> tuple[BoolArray, BoolArray]:
    """Return which rows are test, and which are in a split at all."""
    if SPLIT not in table.column_names:
        raise UbhpdError(f"The manifest has no column {SPLIT!r}: audit a split manifest, or two manifests.")
    split = table.column(SPLIT).cast(pa.string())
    found = pc.unique(split.drop_null()).to_pylist()
    if unknown := sorted(set(found) - {TRAIN, TEST}):
        raise UbhpdError(f"The column {SPLIT!r} holds {unknown[0]!r}: only {TRAIN} and {TEST} are known.")
    return pc.equal(split, TEST).fill_null(False).to_numpy(), split.is_valid().to_numpy()
