"""Which of the 68 landmarks a network uses, which mirrors which, and which lie near each other on a mean face.

The mean face was written down for this project from general proportions of adult faces (outer eye corners 90 mm apart,
inner ones 32, mouth 52 wide, eyes to chin 108, jaw 144). It is fitted to no dataset and accurate enough for neighbour
relations. Half of it is written, so the other half is its exact mirror image, and so is all that is derived from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

import numpy as np

from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import BoolArray, FloatArray

# Landmark of the image-left half, its mirror (the same on the midline), x, y, z in millimetres: x image-right, y up,
# z toward the viewer, from the middle between the outer eye corners.
_HALF_FACE: tuple[tuple[int, int, float, float, float], ...] = (
    (0, 16, -72.0, 0.0, -66.0),
    (1, 15, -71.0, -18.0, -65.0),
    (2, 14, -69.0, -36.0, -62.0),
    (3, 13, -65.0, -54.0, -57.0),
    (4, 12, -57.0, -71.0, -47.0),
    (5, 11, -46.0, -86.0, -32.0),
    (6, 10, -33.0, -97.0, -14.0),
    (7, 9, -17.0, -105.0, 4.0),
    (8, 8, 0.0, -108.0, 11.0),
    (17, 26, -56.0, 17.0, -4.0),
    (18, 25, -49.0, 24.0, 7.0),
    (19, 24, -38.0, 27.0, 15.0),
    (20, 23, -26.0, 26.0, 20.0),
    (21, 22, -14.0, 22.0, 23.0),
    (27, 27, 0.0, 8.0, 22.0),
    (28, 28, 0.0, -5.0, 29.0),
    (29, 29, 0.0, -18.0, 36.0),
    (30, 30, 0.0, -31.0, 43.0),
    (31, 35, -15.0, -42.0, 23.0),
    (32, 34, -8.0, -44.0, 28.0),
    (33, 33, 0.0, -46.0, 31.0),
    (36, 45, -45.0, 0.0, 0.0),
    (37, 44, -36.0, 5.0, 9.0),
    (38, 43, -26.0, 5.0, 11.0),
    (39, 42, -16.0, -2.0, 7.0),
    (40, 47, -26.0, -5.0, 9.0),
    (41, 46, -36.0, -5.0, 7.0),
    (48, 54, -26.0, -69.0, 12.0),
    (49, 53, -17.0, -63.0, 22.0),
    (50, 52, -7.0, -60.0, 28.0),
    (51, 51, 0.0, -61.5, 29.0),
    (57, 57, 0.0, -82.0, 27.0),
    (58, 56, -8.0, -81.0, 26.0),
    (59, 55, -17.0, -77.0, 20.0),
    (60, 64, -22.0, -69.0, 14.0),
    (61, 63, -8.0, -67.5, 24.0),
    (62, 62, 0.0, -68.0, 26.0),
    (66, 66, 0.0, -71.0, 25.0),
    (67, 65, -8.0, -70.5, 24.0),
)

# The 0-based index of each node in the 68 of iBUG, by the number of nodes. 19: of the code of OsGG-Net and EVA-GCN,
# two left and two right of the jaw about the chin, brow ends, nose base, eye corners, mouth corners and upper lip.
# 34: OsGG-Net has such a set but prints no list; this one starts from the 19 and takes, again and again, the landmark
# that is farthest from all taken ones on the mean face (of equal ones the first) together with its mirror, if both
# still fit.
LANDMARK_SETS: Mapping[int, tuple[int, ...]] = MappingProxyType(
    {
        19: (1, 3, 8, 13, 15, 17, 21, 22, 26, 31, 33, 35, 36, 39, 42, 45, 48, 51, 54),
        34: (
            *(1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 17, 19, 21, 22, 24, 26),
            *(27, 28, 29, 31, 33, 35, 36, 39, 42, 45, 48, 51, 54, 56, 58),
        ),
        68: tuple(range(68)),
    }
)


@lru_cache(maxsize=1)
def mean_face_mm() -> FloatArray:
    """Return the 68 landmarks (68, 3) of the mean face in the frame and unit of the table above."""
    face = np.empty((68, 3))
    for index, mirror, x, y, z in _HALF_FACE:
        face[mirror] = -x, y, z
        face[index] = x, y, z
    face.setflags(write=False)
    return face


def mirror_of(landmarks: Sequence[int]) -> tuple[int, ...]:
    """Return, for each node of a set, the node that takes its place in the mirrored image.

    Raises:
        UbhpdError: a landmark whose mirror is not in the set.
    """
    partner = {a: b for row in _HALF_FACE for a, b in (row[:2], row[1::-1])}
    position = {landmark: node for node, landmark in enumerate(landmarks)}
    alone = [i for i in landmarks if partner[i] not in position]
    if alone:
        raise UbhpdError(f"Landmark {alone[0]} has no mirror in its set: add {partner[alone[0]]}.")
    return tuple(position[partner[i]] for i in landmarks)


def distances_mm(landmarks: Sequence[int]) -> FloatArray:
    """Return the distances (K, K) between the nodes of a set on the mean face."""
    points = mean_face_mm()[list(landmarks)]
    distance: FloatArray = np.linalg.norm(points[:, None] - points[None], axis=-1)
    return distance


Ties = Literal["all", "first"]


def neighbours(landmarks: Sequence[int], count: int, ties: Ties = "all") -> BoolArray:
    """Return which nodes (K, K) are among the `count` nearest other ones of the node of the row.

    A node of the midline has its neighbours in pairs that are equally far.

    Args:
        landmarks: the nodes.
        count: S, nodes per row.
        ties: "all" takes all nodes as far as the last one, so that a row may hold one more, and mirroring the nodes
            leaves the matrix as it is; "first" takes of equally far ones those that come first, so that every row holds
            `count`.

    Raises:
        UbhpdError: a count that is not in 1 to K - 1.
    """
    if not 1 <= count < len(landmarks):
        raise UbhpdError(f"A node of {len(landmarks)} has no {count} neighbours: choose 1 to {len(landmarks) - 1}.")
    # Pairs that mirror each other are equally far but for the last digits.
    distance = distances_mm(landmarks).round(6)
    np.fill_diagonal(distance, np.inf)
    if ties == "first":
        nearest = np.argsort(distance, axis=1, kind="stable")[:, :count]
        first: BoolArray = np.zeros(distance.shape, dtype=bool)
        np.put_along_axis(first, nearest, True, axis=1)
        return first
    farthest = np.sort(distance, axis=1)[:, count - 1 : count]
    near: BoolArray = distance <= farthest
    return near


def block(landmarks: Sequence[int], count: int) -> BoolArray:
    """Return the mask (K, K) whose first `count` rows and columns are True: equation 7 of OsGG-Net, as printed.

    Raises:
        UbhpdError: a count that is not in 1 to K.
    """
    if not 1 <= count <= len(landmarks):
        raise UbhpdError(f"A block of {len(landmarks)} nodes has no {count} rows: choose 1 to {len(landmarks)}.")
    inside = np.arange(len(landmarks)) < count
    mask: BoolArray = inside[:, None] & inside
    return mask
