"""What a face detector gives, whichever it is, and how boxes that show the same face are thinned out."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Picture = npt.NDArray[np.uint8]


class Face(NamedTuple):
    """One face in a picture, in pixels, x right and y down.

    bbox_xyxy: left, top, right, bottom; may leave the picture. score: higher is surer, the scale is the detector's.
    points5: eyes, nose and corners of the mouth (5, 2), each pair from image-left to image-right in an upright face;
    None where the detector has none.
    """

    bbox_xyxy: tuple[float, float, float, float]
    score: float
    points5: Array | None = None


class Detector(Protocol):
    """Finds faces."""

    name: str

    def boxes(self, picture_bgr: Picture) -> list[Face]:
        """Return the faces of a picture (height, width, 3), BGR, the largest first; of equal size the surest."""


def largest_first(faces: list[Face]) -> list[Face]:
    """Return the faces by the area of their boxes, the largest first; of equal size the surest first."""
    return sorted(faces, key=lambda face: (-_area(face), -face.score, face.bbox_xyxy))


def keep_apart(boxes_xyxy: npt.ArrayLike, scores: npt.ArrayLike, limit: float, pixel: float = 0.0,
               over_smaller: bool = False) -> npt.NDArray[np.int64]:  # fmt: skip
    """Return the rows of the boxes that survive greedy non-maximum suppression, the surest first.

    The surest box stays, all that overlap it by more than `limit` go, and so on with what is left; of equally sure
    boxes the first stays.

    Args:
        boxes_xyxy: (n, 4) pixels.
        scores: (n,).
        limit: overlap up to which two boxes count as two faces.
        pixel: added to widths and heights: 1 where right and bottom are the last pixels inside.
        over_smaller: measure the overlap by the smaller box instead of by the union, so that a box inside another
            goes.
    """
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    waiting = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    kept = []
    while len(waiting):
        first, others = waiting[0], waiting[1:]
        kept.append(first)
        waiting = others[~(overlap(boxes[first], boxes[others], pixel, over_smaller) > limit)]
    return np.array(kept, dtype=np.int64)


def overlap(
    box_xyxy: npt.ArrayLike, boxes_xyxy: npt.ArrayLike, pixel: float = 0.0, over_smaller: bool = False
) -> Array:
    """Return what share (n,) of its union with a box each of the boxes (n, 4) has in common with it.

    `pixel` and `over_smaller` are those of `keep_apart`. A share of nothing is 0.
    """
    one, boxes = np.asarray(box_xyxy, dtype=np.float64), np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    area, areas = (one[2:] - one[:2] + pixel).prod(), (boxes[:, 2:] - boxes[:, :2] + pixel).prod(axis=1)
    sides = np.minimum(one[2:], boxes[:, 2:]) - np.maximum(one[:2], boxes[:, :2]) + pixel
    shared: Array = sides.clip(0).prod(axis=1)
    whole = np.minimum(area, areas) if over_smaller else area + areas - shared
    share: Array = np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
    return share


def _area(face: Face) -> float:
    left, top, right, bottom = face.bbox_xyxy
    return (right - left) * (bottom - top)
