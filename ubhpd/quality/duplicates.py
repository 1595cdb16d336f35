"""The nearest of two sets of 64-bit hashes, by the number of bits that differ.

Near hashes are found by bands: of 4 bands of 16 bits, two hashes that differ in at most d bits have one that
differs in at most d // 4, so only those with such a band are compared.

Perceptual hashes of images: 64 bits that are equal, or nearly, where two images look alike.

The hash (pHash) is the signs of the 64 lowest frequencies, but for the constant one, of the cosine transform of
the face at 32 x 32 pixels, each against their median. It changes little with size, compression and brightness.
"""

from __future__ import annotations

import hashlib
import itertools
import uuid
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing
from ubhpd.core.progress import Progress
from ubhpd.core.records import OF_SOURCE_PHOTO
from ubhpd.core.typing import BoolArray, Float32Array, Image, IntArray, UInt64Array
from ubhpd.images.reading import Images
from ubhpd.manifest import BuildFolder
from ubhpd.raw.trees import Tree, TreeSpec, open_tree

_BANDS, _BAND_BITS = 4, 16
_BLOCK = 1 << 21  # pairs compared at a time
_FEW = 1 << 18  # pairs, up to which every one is compared


class Nearest(NamedTuple):
    """Of each test hash (n,): the nearest train hash, its distance, and how many are near; -1, -1 and 0 if none is.

    is_partner (m,): which train hashes are near to any test hash.
    """

    train: IntArray
    distance: IntArray
    partners: IntArray
    is_partner: BoolArray


def nearest(train: UInt64Array, test: UInt64Array, low: int, high: int) -> Nearest:
    """Return the train hashes that differ in `low` to `high` bits from each test hash; of equals the first."""
    words, first, number, count = np.unique(train, return_index=True, return_inverse=True, return_counts=True)
    queries, test_number = np.unique(test, return_inverse=True)
    far = np.int64(1) << 62
    best, partners = np.full(len(queries), far), np.zeros(len(queries), dtype=np.int64)
    is_partner = np.zeros(len(words), dtype=bool)
    for i, j in _candidates(words, queries, high):
        bits = _differing(words[i] ^ queries[j])
        near = (bits >= low) & (bits <= high)
        i, j, bits = i[near], j[near], bits[near]
        np.minimum.at(best, j, (bits << 40) | first[i])
        np.add.at(partners, j, count[i])
        is_partner[i] = True
    found = best < far
    row = np.where(found, best & ((1 << 40) - 1), -1)
    distance = np.where(found, best >> 40, -1)
    return Nearest(row[test_number], distance[test_number], partners[test_number], is_partner[number])


def _candidates(words: UInt64Array, queries: UInt64Array, reach: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield indices into both of all pairs that may differ in at most `reach` bits, every pair once."""
    if len(words) * len(queries) <= _FEW:
        i, j = np.divmod(np.arange(len(words) * len(queries)), max(len(queries), 1))
        yield i, j
        return
    radius = reach // _BANDS
    masks = [
        sum(1 << b for b in chosen)
        for r in range(radius + 1)
        for chosen in itertools.combinations(range(_BAND_BITS), r)
    ]
    for band in range(_BANDS):
        of_words, of_queries = _band(words, band), _band(queries, band)
        order = np.argsort(of_words, kind="stable")
        count = np.bincount(of_words, minlength=1 << _BAND_BITS)
        start = np.cumsum(count) - count
        for mask in masks:
            bucket = of_queries ^ mask
            size = count[bucket]
            ends = np.cumsum(size)
            at = 0
            while at < len(queries):
                stop = max(int(np.searchsorted(ends, (ends[at - 1] if at else 0) + _BLOCK)), at + 1)
                lengths = size[at:stop]
                j = np.repeat(np.arange(at, stop), lengths)
                within = np.arange(len(j)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
                i = order[np.repeat(start[bucket[at:stop]], lengths) + within]
                # A pair that an earlier band has found is not found again.
                fresh = np.ones(len(i), dtype=bool)
                for earlier in range(band):
                    fresh &= (
                        _differing((_band(words, earlier)[i] ^ _band(queries, earlier)[j]).astype(np.uint64)) > radius
                    )
                yield i[fresh], j[fresh]
                at = stop


def _band(words: UInt64Array, band: int) -> IntArray:
    part: IntArray = ((words >> np.uint64(_BAND_BITS * band)) & np.uint64((1 << _BAND_BITS) - 1)).astype(np.int64)
    return part


def _differing(x: UInt64Array) -> IntArray:
    """Return the number of bits set, by adding up neighbours in parallel."""
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    with np.errstate(over="ignore"):
        total: IntArray = ((x * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.int64)
    return total


COLUMNS: tuple[str, ...] = ("dataset", "image_path", "frame_index", "bbox_xyxy", "bbox_kind")
SIDE = 32
VERSION = 1  # of the hash: another one does not use the parts of the last

_CHUNK = 512  # heads whose hashes make one part
_MIN_BOX_PX = 12
_FLAT = 1.0  # standard deviation, of 255 grey levels, below which an image shows nothing


class ImageHashes(NamedTuple):
    """Perceptual hashes (n,) of images, which of them are known, and why the others are not, in sentences."""

    hash: UInt64Array
    known: BoolArray
    failures: list[str]


def hash_patches(patches: npt.ArrayLike) -> UInt64Array:
    """Return the hashes (n,) of grey patches (n, 32, 32)."""
    grey = np.asarray(patches, dtype=np.float64)
    place = np.pi * (np.arange(SIDE) + 0.5) / SIDE
    basis = np.cos(np.arange(9)[:, None] * place)
    waves = basis @ grey @ basis.T
    low = np.concatenate([waves[:, :8, :8].reshape(-1, 64)[:, 1:], waves[:, :1, 8]], axis=1)
    signs = low > np.median(low, axis=1, keepdims=True)
    result: UInt64Array = np.packbits(signs, axis=1).view(">u8")[:, 0].astype(np.uint64)
    return result


def patch_of(image: Image, box: npt.ArrayLike | None) -> Float32Array | None:
    """Return the face (32, 32) in grey, the whole image without a box in it; None if it shows nothing.

    Args:
        image: (height, width, 3), BGR.
        box: left, top, right, bottom in pixels.
    """
    import cv2

    if box is not None:
        height, width = image.shape[:2]
        with np.errstate(invalid="ignore"):
            left, top, right, bottom = np.nan_to_num(np.asarray(box, dtype=np.float64)).clip(0, [width, height] * 2)
        if min(right - left, bottom - top) >= _MIN_BOX_PX:
            image = image[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))]
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    return small if small.std() >= _FLAT else None


def image_hashes(table: pa.Table, out: Path, jobs: int = 1, progress: Progress | None = None) -> ImageHashes:
    """Return the hashes of the heads of a table whose build is in `out`; refused heads have none.

    What is finished lies in OUT/work/hashes: an interrupted run resumes from there.

    Args:
        table: COLUMNS of a manifest, and drop_reason and split where they are there.
        out: folder of the build, with build.json.
        jobs: processes; -1 for all cores.
        progress: what to tell about it.

    Raises:
        UbhpdError: there is no build.json, or no image of a dataset can be read.
    """
    build = BuildFolder(out)
    places = build.roots
    parts = list(_parts(table, build.work / "hashes", {n: str(p) for n, p in places.items()}))
    spool = str(build.spool)
    trees = {
        n: open_tree(TreeSpec(places[n], spool, keep_whole=True)) for n in {p.dataset for p in parts} & set(places)
    }
    identity = {p.path: _identity(p, trees[p.dataset]) if p.dataset in trees else "" for p in parts}
    missing = [part for part in parts if not _is_fresh(part, identity[part.path])]
    with (progress or Progress(show=False)).bar("looking at images", sum(len(p.rows) for p in missing)) as advance:
        for done in _run(missing, identity, table.select(COLUMNS), out, jobs):
            advance(done)
    value, known = np.zeros(table.num_rows, dtype=np.uint64), np.zeros(table.num_rows, dtype=bool)
    failures: list[str] = []
    for part in parts:
        with np.load(part.path, allow_pickle=False) as stored:
            value[part.rows], known[part.rows] = stored["hash"], stored["known"]
            failures += stored["failures"].tolist()
    return ImageHashes(value, known, failures)


class _Part(NamedTuple):
    """Heads whose hashes are computed together, and the file that keeps them."""

    path: Path
    rows: IntArray
    dataset: str
    images: frozenset[str]


def _parts(table: pa.Table, folder: Path, places: dict[str, str]) -> Iterator[_Part]:
    """Yield the parts, cut between images: the frames of a video are read in their order, and once."""
    used = np.ones(table.num_rows, dtype=bool)
    if "drop_reason" in table.column_names:
        used = table.column("drop_reason").is_null().to_numpy()
    if "split" in table.column_names:
        used = used & table.column("split").is_valid().to_numpy()
    used = used & table.column("image_path").is_valid().to_numpy()
    keys = [(n, "ascending") for n in ("dataset", "image_path", "frame_index")]
    own = table.select(COLUMNS).append_column("row", pa.array(np.arange(table.num_rows))).filter(pa.array(used))
    own = own.take(pc.sort_indices(own, sort_keys=keys))
    rows = own.column("row").to_numpy()
    paths, datasets = own.column("image_path").to_pylist(), own.column("dataset").to_pylist()
    start = 0
    for stop in range(1, len(rows) + 1):
        is_end = stop == len(rows)
        if (
            not is_end
            and (stop - start < _CHUNK or paths[stop] == paths[stop - 1])
            and datasets[stop] == datasets[start]
        ):
            continue
        mark = hashlib.sha256(f"phash {VERSION} {datasets[start]} {places.get(datasets[start])}".encode())
        for column in own.slice(start, stop - start).select(COLUMNS).columns:
            mark.update(repr(column.to_pylist()).encode())
        name = f"{mark.hexdigest()[:32]}.npz"
        yield _Part(folder / name, rows[start:stop], datasets[start], frozenset(paths[start:stop]))
        start = stop


def _is_fresh(part: _Part, identity: str) -> bool:
    """Return True if the part is there, whole, and its images are the same files as then."""
    if not identity or not part.path.exists():
        return False
    try:
        with np.load(part.path, allow_pickle=False) as stored:  # a zip, with a checksum of each array
            lengths = {len(stored["hash"]), len(stored["known"])}
            return lengths == {len(part.rows)} and str(stored["images"]) == identity and bool(stored["failures"].ndim)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return False


def _identity(part: _Part, tree: Tree) -> str:
    """Return a hash of which files the images of a part are."""
    files = "\n".join(f"{path} {tree.identity(path)}" for path in sorted(part.images))
    return hashlib.sha256(files.encode("utf-8", "surrogateescape")).hexdigest()


def _run(parts: list[_Part], identity: dict[Path, str], table: pa.Table, out: Path, jobs: int) -> Iterator[int]:
    """Compute parts, in any order, and yield how many heads are done."""
    session = uuid.uuid4().hex
    tasks = (
        (str(p.path), identity[p.path], table.take(pa.array(p.rows)).to_pylist(), str(out), session) for p in parts
    )
    if jobs == 1 or len(parts) < 2:
        yield from (_hash_part(*task) for task in tasks)
        return
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
    yield from parallel(delayed(_hash_part)(*task) for task in tasks)


def _hash_part(path: str, identity: str, heads: list[dict[str, Any]], out: str, session: str) -> int:
    """Compute the hashes of one part and write them.

    Raises:
        UbhpdError: not one image of the part can be read, as when the dataset has moved.
    """
    images = _images(out, session)
    patches, known, failures = np.zeros((len(heads), SIDE, SIDE), np.float32), np.zeros(len(heads), bool), []
    unreadable = 0
    for row, (head, image) in enumerate(zip(heads, images.of_heads(heads), strict=True)):
        if isinstance(image, UbhpdError):
            failures.append(str(image))
            unreadable += 1
            continue
        # The box of a warped head is that of the photograph before: it does not lie on the face.
        is_own = head["bbox_xyxy"] is not None and not (head["bbox_kind"] or "").endswith(OF_SOURCE_PHOTO)
        patch = patch_of(image, head["bbox_xyxy"] if is_own else None)
        if patch is None:
            failures.append(f"{head['image_path']} is of one colour where the face should be.")
        else:
            patches[row], known[row] = patch, True
    if unreadable == len(heads):
        raise UbhpdError(failures[0])
    with replacing(Path(path)) as half, half.open("wb") as file:
        np.savez(file, hash=hash_patches(patches), known=known, failures=np.array(failures, dtype=str),
                 images=np.array(identity))  # fmt: skip
    return len(heads)


@lru_cache(maxsize=2)
def _images(out: str, session: str) -> Images:
    """Return the images of a build; `session` keeps a long-lived worker from seeing those of an earlier run."""
    return Images.of_build(Path(out))
