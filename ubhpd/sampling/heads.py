"""The heads of a pool as arrays: pose, and who, where and when each was taken, as 64-bit keys.

Sampling and splitting only compare names for equality and, to break ties, need a pseudo-random number per name.
Therefore every name becomes a key, a hash of its bytes: it does not depend on the order of the heads, on the other
heads or on how the pool is cut into batches. Two of a million names share a key by accident with a probability of 3e-8.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ubhpd.core import bins
from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import AnyArray, BoolArray, FloatArray, IntArray, UInt64Array

UNKNOWN = np.uint64(0)  # the key of a missing name
NO_FRAME = -1
COLUMNS: tuple[str, ...] = (
    "sample_id",
    "dataset",
    "subject_id",
    "sequence_id",
    "frame_index",
    "yaw_deg",
    "pitch_deg",
    "roll_deg",
    "flip_of",
    "source_photo",
    "drop_reason",
)

_BLOCK = 1 << 16  # heads worked on at a time: what fits in a core's cache


@dataclass(frozen=True)
class Heads:
    """n heads. Keys are uint64 (n,), 0 where the name is missing.

    ypr_deg: yaw, pitch, roll (n, 3), NaN for a refused head. frame_index: int64 (n,), -1 outside a recording.
    """

    ypr_deg: FloatArray
    sample: UInt64Array
    dataset: UInt64Array
    subject: UInt64Array
    sequence: UInt64Array
    frame_index: IntArray
    photo: UInt64Array
    flip_of: UInt64Array

    def __len__(self) -> int:
        return len(self.sample)

    def take(self, rows: AnyArray) -> Heads:
        """Return the heads of these rows, by index or by mask."""
        return Heads(*(getattr(self, f.name)[rows] for f in fields(self)))

    @property
    def index(self) -> IntArray:
        """The bin of each angle (n, 3), -1 outside the bins."""
        result = np.empty((len(self), len(bins.ANGLES)), dtype=np.int64)
        for first in range(0, len(self), _BLOCK):
            result[first : first + _BLOCK] = bins.bin_index(self.ypr_deg[first : first + _BLOCK])
        return result

    @property
    def cell(self) -> IntArray:
        """The joint cell of each head (n,), as `cells` numbers them."""
        return cells(self.index)

    @property
    def refused(self) -> BoolArray:
        """Whether a head has no pose (n,)."""
        return np.isnan(self.ypr_deg[:, 0])

    @property
    def recording(self) -> UInt64Array:
        """The sequence where it is a recording, that is where frames are counted; else the head itself.

        300W-LP, for one, gives the folder as sequence: that is no recording.
        """
        return np.where((self.frame_index != NO_FRAME) & (self.sequence != UNKNOWN), self.sequence, self.sample)

    @property
    def person(self) -> UInt64Array:
        """The nearest there is to a person: subject, else photograph, else recording, else the head itself."""
        person = np.where(self.photo != UNKNOWN, self.photo, self.recording)
        return np.where(self.subject != UNKNOWN, self.subject, person)


def cells(index: IntArray) -> IntArray:
    """Return the joint cell (n,), 225 yaw + 15 pitch + roll, of bins (n, 3); -1 with an angle outside the bins."""
    yaw, pitch, roll = index.T
    return np.where((yaw | pitch | roll) >= 0, (yaw * bins.N_BINS + pitch) * bins.N_BINS + roll, -1)


def from_arrays(
    ypr_deg: npt.ArrayLike,
    sample_id: Any,
    dataset: Any = None,
    subject: Any = None,
    sequence: Any = None,
    frame_index: npt.ArrayLike | None = None,
    photo: Any = None,
    flip_of: Any = None,
) -> Heads:
    """Return heads from angles (n, 3) in degrees and names.

    Args:
        ypr_deg: yaw, pitch, roll; NaN for a head that is not to be used.
        sample_id: unique names; as all names below an Arrow array, a sequence of strings, or integer codes,
            where a negative code is a missing name. Codes must mean the same in every batch.
        dataset: the datasets they come from.
        subject: the persons.
        sequence: the recordings, or folders.
        frame_index: whole numbers from 0; negative, null or NaN where the head is not of a recording.
        photo: the photographs they were rendered from.
        flip_of: the sample_id of the head that each mirrors.

    Raises:
        UbhpdError: the lengths differ.
    """
    angles = np.ascontiguousarray(ypr_deg, dtype=np.float64)
    if angles.ndim != 2 or angles.shape[1] != len(bins.ANGLES):
        raise UbhpdError(f"Expected angles of shape (n, 3), found shape {angles.shape}.")
    if (refused := np.isnan(angles[:, 0]) | np.isnan(angles[:, 1]) | np.isnan(angles[:, 2])).any():
        angles = np.where(refused[:, None], np.nan, angles)
    n = len(angles)
    frames = np.full(n, NO_FRAME) if frame_index is None else _frames(frame_index)
    names = {"dataset": dataset, "subject": subject, "sequence": sequence, "photo": photo}
    # A person and an image may have the same name; only flip_of refers to other samples.
    keys = {k: _with_tag(_keys(v, n), tag) for tag, (k, v) in enumerate(names.items())}
    keys |= {"sample_id": _keys(sample_id, n), "flip_of": _keys(flip_of, n)}
    for name, array in {**keys, "frame_index": frames}.items():
        if array.shape != (n,):
            raise UbhpdError(f"There are {n} heads but {name} has shape {array.shape}: give one per head.")
    return Heads(
        ypr_deg=angles,
        sample=keys["sample_id"],
        dataset=keys["dataset"],
        subject=keys["subject"],
        sequence=keys["sequence"],
        frame_index=frames,
        photo=keys["photo"],
        flip_of=keys["flip_of"],
    )


def from_table(table: pa.Table | pa.RecordBatch) -> Heads:
    """Return the heads of a manifest's rows, which need COLUMNS; a refused head (drop_reason) gets no pose."""
    angles = np.empty((table.num_rows, len(bins.ANGLES)))
    for j, angle in enumerate(bins.ANGLES):
        angles[:, j] = table.column(f"{angle}_deg").to_numpy(zero_copy_only=False)
    refused = table.column("drop_reason")
    if refused.null_count < table.num_rows:
        angles[np.asarray(refused.is_valid())] = np.nan
    return from_arrays(
        ypr_deg=angles,
        sample_id=table.column("sample_id"),
        dataset=table.column("dataset"),
        subject=table.column("subject_id"),
        sequence=table.column("sequence_id"),
        frame_index=table.column("frame_index"),
        photo=table.column("source_photo"),
        flip_of=table.column("flip_of"),
    )


def concatenated(parts: list[Heads]) -> Heads:
    """Return the heads of all parts, in order."""
    return Heads(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Heads)))


def mixed(*keys: AnyArray | np.uint64 | int) -> UInt64Array:
    """Return one key of several: equal where all are equal, otherwise pseudo-random (splitmix64, Steele 2014)."""
    result: Any = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        for key in keys:
            part = np.uint64(key) if isinstance(key, int) else key.astype(np.uint64, copy=False)
            z = np.atleast_1d(result ^ part)
            z *= np.uint64(0xBF58476D1CE4E5B9)
            z ^= z >> np.uint64(32)
            z *= np.uint64(0x94D049BB133111EB)
            z ^= z >> np.uint64(29)
            result = z
    return np.asarray(result)


def _frames(values: Any) -> IntArray:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        values = values.fill_null(NO_FRAME).to_numpy()
    array = np.asarray(values)
    if array.dtype == object:
        array = np.array([np.nan if v is None else v for v in array], dtype=np.float64)
    if array.dtype.kind == "f":
        array = np.where(np.isfinite(array), array, NO_FRAME)
    return np.maximum(array.astype(np.int64), NO_FRAME)


def _keys(names: Any, n: int) -> UInt64Array:
    """Return a key (n,) per name."""
    if names is None:
        return np.zeros(n, dtype=np.uint64)
    if isinstance(names, np.ndarray) and names.dtype.kind in "iu":
        of_codes: UInt64Array = np.where(names >= 0, np.maximum(mixed(names), np.uint64(1)), UNKNOWN)
        return of_codes
    array = names if isinstance(names, (pa.Array, pa.ChunkedArray)) else pa.array(names, type=pa.string())
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
    if array.null_count == len(array):
        return np.zeros(len(array), dtype=np.uint64)
    if pa.types.is_dictionary(array.type):
        of_words = np.append(_hashed(array.dictionary), UNKNOWN)
        spread: UInt64Array = of_words[array.indices.fill_null(len(array.dictionary)).to_numpy()]
        return spread
    if _repeats(array):
        return _keys(array.dictionary_encode(), n)
    keys = _hashed(array)
    if array.null_count:
        keys[np.asarray(array.is_null())] = UNKNOWN
    return keys


def _with_tag(keys: UInt64Array, tag: int) -> UInt64Array:
    """Return keys mixed with a tag, so that equal names in different columns differ; keys of missing names stay."""
    result: UInt64Array = np.where(keys == UNKNOWN, UNKNOWN, np.maximum(mixed(keys, tag), np.uint64(1)))
    return result


def _repeats(array: pa.Array) -> bool:
    """Return True if, by the first rows, a dictionary of the names would be faster."""
    head = array.slice(0, 4096)
    return len(array) > 2 * len(head) and len(head.unique()) < len(head) // 2


def _hashed(names: pa.Array) -> UInt64Array:
    """Return a key for each string, null or not: its length and its bytes, eight at a time, mixed."""
    names = names.cast(pa.large_string())
    _, offsets, data = names.buffers()
    result = np.zeros(len(names), dtype=np.uint64)
    ends = np.frombuffer(offsets, dtype=np.int64)[names.offset : names.offset + len(names) + 1]
    flat = np.frombuffer(data, dtype=np.uint8) if data is not None else np.zeros(0, dtype=np.uint8)
    for first in range(0, len(names), _BLOCK):
        block = ends[first : first + _BLOCK + 1]
        text = np.concatenate([flat[block[0] : block[-1]], np.zeros(8, dtype=np.uint8)])
        words: Any = np.ndarray((len(text) - 7,), dtype="<u8", buffer=text, strides=(1,))
        starts, lengths = block[:-1] - block[0], np.diff(block)
        keys = mixed(lengths)
        for start in range(0, int(lengths.max(initial=0)), 8):
            rows: Any = slice(None) if (lengths > start).all() else np.flatnonzero(lengths > start)
            left = np.minimum(lengths[rows] - start, 8).astype(np.uint64)
            word = words[starts[rows] + start] & (~UNKNOWN >> (np.uint64(64) - np.uint64(8) * left))
            keys[rows] = mixed(keys[rows], word)
        result[first : first + _BLOCK] = keys
    keys_but_zero: UInt64Array = np.maximum(result, np.uint64(1))
    return keys_but_zero
