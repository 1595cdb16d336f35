"""Ways in which a test head may be related to a train head, each found in one pass over arrays.

Heads are rows, in the order of their names; a name is a number from 0 on, -1 where it is missing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ubhpd.checking.near_hashes import nearest
from ubhpd.errors import UbhpdError

Whole = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

EQUAL_PICTURE, SIMILAR_PICTURE = "equal_picture", "similar_picture"


class Leak(NamedTuple):
    """Test heads that leak in one way (k,): their rows, the nearest train rows, distances (-1: none), partners."""

    kind: str
    test: Whole
    train: Whole
    distance: Whole
    partners: Whole
    train_heads: int  # how many train heads are a partner of any


def shared(kind: str, code: Whole, is_test: Mask, key: Whole | None = None, test_code: Whole | None = None) -> Leak:
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


def near(kind: str, key: Whole, is_frame: Mask, is_test: Mask, reach: int) -> Leak:
    """Return the test frames with a train frame of the same recording at most `reach` away."""
    train, test = np.flatnonzero(is_frame & ~is_test), np.flatnonzero(is_frame & is_test)
    partners, of_train = _within(key[train], key[test], reach), _within(key[test], key[train], reach)
    test, partners = test[partners > 0], partners[partners > 0]
    nearest, distance = _nearest(key, train, test)
    return Leak(kind, test, nearest, distance, partners, int((of_train > 0).sum()))


def across(kind: str, photo: Whole, dataset: Whole, is_test: Mask) -> Leak:
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


def by_picture(values: npt.NDArray[np.uint64], known: Mask, is_test: Mask, bits: int) -> list[Leak]:
    """Return the test heads whose picture equals, or nearly equals, that of a train head."""
    train, test = np.flatnonzero(known & ~is_test), np.flatnonzero(known & is_test)
    result = []
    for kind, low, high in ((EQUAL_PICTURE, 0, 0), (SIMILAR_PICTURE, 1, bits)):
        found = nearest(values[train], values[test], low, high)
        hit = np.flatnonzero(found.partners > 0)
        result.append(Leak(kind, test[hit], train[found.train[hit]], found.distance[hit], found.partners[hit],
                           int(found.is_partner.sum())))  # fmt: skip
    return result


def _nearest(key: Whole, train: Whole, test: Whole) -> tuple[Whole, Whole]:
    """Return for each test row the train row with the nearest key, the lower one of two, and how far it is."""
    if not len(test):
        return test, test
    order = train[np.argsort(key[train], kind="stable")]
    after = np.searchsorted(key[order], key[test])
    low, high = order[np.maximum(after - 1, 0)], order[np.minimum(after, len(order) - 1)]
    below, above = np.abs(key[test] - key[low]), np.abs(key[high] - key[test])
    return np.where(below <= above, low, high), np.minimum(below, above)


def _within(key: Whole, at: Whole, reach: int) -> Whole:
    """Return how many of the keys are at most `reach` away from each of `at`."""
    ordered = np.sort(key)
    return np.searchsorted(ordered, at + reach, side="right") - np.searchsorted(ordered, at - reach, side="left")


def frame_key(sequence: Whole, frame: Whole, is_frame: Mask, reach: int) -> Whole:
    """Return whole numbers that differ by the frames between two heads, and by more for two recordings."""
    frame = np.where(is_frame, frame, 0)
    low, high = int(frame.min(initial=0)), int(frame.max(initial=0))
    stride = 2 * (high - low) + 2 * reach + 2
    if stride * (int(sequence.max(initial=0)) + 1) > 2**62:
        raise UbhpdError(f"frame_index goes from {low} to {high}, which no recording does: build the manifest again.")
    return np.where(is_frame, sequence * stride + frame - low, -1)


def codes(names: pa.ChunkedArray) -> Whole:
    """Return a number from 0 on per name (n,), -1 where it is missing."""
    names = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
    indices = names.cast(pa.string()).dictionary_encode().indices
    codes: Whole = indices.fill_null(-1).to_numpy().astype(np.int64)
    return codes


def joint(photo: Whole, dataset: Whole) -> Whole:
    """Return a number per pair of numbers, -1 where the first is."""
    return np.where(photo >= 0, photo * (int(dataset.max(initial=0)) + 1) + dataset, -1)
