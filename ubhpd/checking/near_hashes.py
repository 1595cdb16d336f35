"""The nearest of two sets of 64-bit hashes, by the number of bits that differ.

Near hashes are found by bands: of 4 bands of 16 bits, two hashes that differ in at most d bits have one that
differs in at most d // 4, so only those with such a band are compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Whole = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_BANDS, _BAND_BITS = 4, 16
_BLOCK = 1 << 21  # pairs compared at a time
_FEW = 1 << 18  # pairs, up to which every one is compared


class Nearest(NamedTuple):
    """Of each test hash (n,): the nearest train hash, its distance, and how many are near; -1, -1 and 0 if none is.

    is_partner (m,): which train hashes are near to any test hash.
    """

    train: Whole
    distance: Whole
    partners: Whole
    is_partner: Mask


def nearest(train: Hashes, test: Hashes, low: int, high: int) -> Nearest:
    """Return the train hashes that differ in `low` to `high` bits from each test hash; of equals the first."""
    words, first, number, count = np.unique(train, return_index=True, return_inverse=True, return_counts=True)
    asked, test_number = np.unique(test, return_inverse=True)
    far = np.int64(1) << 62
    best, partners = np.full(len(asked), far), np.zeros(len(asked), dtype=np.int64)
    is_partner = np.zeros(len(words), dtype=bool)
    for i, j in _candidates(words, asked, high):
        bits = _differing(words[i] ^ asked[j])
        near = (bits >= low) & (bits <= high)
        i, j, bits = i[near], j[near], bits[near]
        np.minimum.at(best, j, (bits << 40) | first[i])
        np.add.at(partners, j, count[i])
        is_partner[i] = True
    found = best < far
    row = np.where(found, best & ((1 << 40) - 1), -1)
    distance = np.where(found, best >> 40, -1)
    return Nearest(row[test_number], distance[test_number], partners[test_number], is_partner[number])


def _candidates(words: Hashes, asked: Hashes, reach: int) -> Iterator[tuple[Whole, Whole]]:
    """Yield indices into both of all pairs that may differ in at most `reach` bits, every pair once."""
    if len(words) * len(asked) <= _FEW:
        i, j = np.divmod(np.arange(len(words) * len(asked)), max(len(asked), 1))
        yield i, j
        return
    radius = reach // _BANDS
    masks = [
        sum(1 << b for b in chosen)
        for r in range(radius + 1)
        for chosen in itertools.combinations(range(_BAND_BITS), r)
    ]
    for band in range(_BANDS):
        of_words, of_asked = _band(words, band), _band(asked, band)
        order = np.argsort(of_words, kind="stable")
        count = np.bincount(of_words, minlength=1 << _BAND_BITS)
        start = np.cumsum(count) - count
        for mask in masks:
            bucket = of_asked ^ mask
            size = count[bucket]
            ends = np.cumsum(size)
            at = 0
            while at < len(asked):
                stop = max(int(np.searchsorted(ends, (ends[at - 1] if at else 0) + _BLOCK)), at + 1)
                lengths = size[at:stop]
                j = np.repeat(np.arange(at, stop), lengths)
                within = np.arange(len(j)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
                i = order[np.repeat(start[bucket[at:stop]], lengths) + within]
                # A pair that an earlier band has found is not found again.
                fresh = np.ones(len(i), dtype=bool)
                for earlier in range(band):
                    fresh &= (
                        _differing((_band(words, earlier)[i] ^ _band(asked, earlier)[j]).astype(np.uint64)) > radius
                    )
                yield i[fresh], j[fresh]
                at = stop


def _band(words: Hashes, band: int) -> Whole:
    part: Whole = ((words >> np.uint64(_BAND_BITS * band)) & np.uint64((1 << _BAND_BITS) - 1)).astype(np.int64)
    return part


def _differing(x: Hashes) -> Whole:
    """Return the number of bits set, by adding up neighbours in parallel."""
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    with np.errstate(over="ignore"):
        total: Whole = ((x * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.int64)
    return total
