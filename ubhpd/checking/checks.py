"""The single checks of `quality`: each looks at a batch of heads and returns the flags of those it suspects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd.bins import ANGLES
from ubhpd.checking import landmark_pose
from ubhpd.records import OF_SOURCE_PHOTO
from ubhpd.rotation import geodesic_deg, matrix_from_euler
from ubhpd.schema import COLUMNS, matrix

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Whole = npt.NDArray[np.int64]

FLAGS: dict[str, str] = {
    "angle_out_of_range": "an angle that is missing, or beyond the limit; value in degrees",
    "rotation_mismatch": "the angles and the matrix are not the same pose; value in degrees",
    "box_degenerate": "a box without area, or too small to be a face; value: its shorter side in pixels",
    "box_outside": "a box of which much lies outside the picture; value: the share that does",
    "landmarks_outside": "landmarks outside the picture; value: the share that is",
    "pose_mismatch": "the label is not the pose that the landmarks show; value in degrees",
    "duplicate": "the same face a second time; value: overlap of the two boxes",
}
FOR_DUPLICATES = ("dataset", "image_path", "frame_index", "bbox_xyxy", "bbox_kind", "source_photo")

_LENGTHS = {c.name: c.length for c in COLUMNS if c.length is not None}
_ORDER = {name: number for number, name in enumerate(FLAGS)}


@dataclass(frozen=True)
class Thresholds:
    """Beyond which a head is flagged.

    Attributes:
        max_angle_deg: largest absolute yaw, pitch or roll.
        max_rotation_mismatch_deg: largest angle between the matrix and the triplet.
        min_box_px: shortest side of a box.
        max_box_outside: largest share of the box's area outside the picture.
        max_landmarks_outside: largest share of the visible landmarks outside the picture.
        max_pose_mismatch_deg: largest angle between the label and the pose from the landmarks.
        min_landmarks: visible landmarks below which no pose is made from them.
        min_overlap: overlap, intersection over union, from which two boxes in one picture are the same face.
    """

    max_angle_deg: float = 99.0
    max_rotation_mismatch_deg: float = 0.5
    min_box_px: float = 8.0
    max_box_outside: float = 0.3
    max_landmarks_outside: float = 0.1
    max_pose_mismatch_deg: float = 30.0
    min_landmarks: int = 8
    min_overlap: float = 0.9


class Flag(NamedTuple):
    """A flag of one head: its row, which of FLAGS, value and sentence."""

    row: int
    order: int
    value: float
    detail: str


class Fitted(NamedTuple):
    """Heads of one kind of landmarks: their rows, the pose of the points, how well it fits, and the label."""

    row: Whole
    fit: landmark_pose.Fit
    label: Array


def labels(batch: pa.RecordBatch, rows: Whole, limits: Thresholds) -> list[Flag]:
    """Return the heads with an angle out of range, and those whose angles and matrix disagree."""
    ypr = np.stack([_numbers(batch, f"{a}_deg") for a in ANGLES], axis=1)
    size = np.abs(ypr)
    flags = []
    for i in np.flatnonzero(~(size <= limits.max_angle_deg).all(axis=1)):
        missing = ~np.isfinite(ypr[i])
        worst = int(missing.argmax() if missing.any() else size[i].argmax())
        text = f"{ANGLES[worst]} is {ypr[i, worst]:.1f} degrees, the limit is {limits.max_angle_deg:g}."
        flags.append(Flag(int(rows[i]), _ORDER["angle_out_of_range"], float(size[i, worst]), text))
    with np.errstate(invalid="ignore"):
        off = geodesic_deg(matrix_from_euler(ypr), _lists(batch, "rotation").reshape(-1, 3, 3))
    for i in np.flatnonzero(off > limits.max_rotation_mismatch_deg):
        text = f"The matrix is {off[i]:.1f} degrees away from yaw, pitch and roll."
        flags.append(Flag(int(rows[i]), _ORDER["rotation_mismatch"], float(off[i]), text))
    return flags


def boxes(batch: pa.RecordBatch, rows: Whole, limits: Thresholds) -> list[Flag]:
    """Return the heads whose box is no box of a face, or leaves the picture; a head without a box is none of them."""
    box, size = _lists(batch, "bbox_xyxy"), _sizes(batch)
    side = np.minimum(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1])
    flags = []
    has_box = batch.column("bbox_xyxy").is_valid().to_numpy(zero_copy_only=False)
    bad = has_box & ~(side >= limits.min_box_px)
    for i in np.flatnonzero(bad):
        text = f"The shorter side of the box is {side[i]:.1f} pixels, the limit is {limits.min_box_px:g}."
        flags.append(Flag(int(rows[i]), _ORDER["box_degenerate"], float(side[i]), text))
    with np.errstate(invalid="ignore", divide="ignore"):
        inside = np.clip(np.minimum(box[:, 2:], size) - np.maximum(box[:, :2], 0.0), 0.0, None).prod(axis=1)
        outside = 1.0 - inside / (box[:, 2:] - box[:, :2]).prod(axis=1)
    for i in np.flatnonzero(~bad & (outside > limits.max_box_outside)):
        text = f"{outside[i]:.0%} of the box lies outside the picture of {size[i, 0]:.0f}x{size[i, 1]:.0f} pixels."
        flags.append(Flag(int(rows[i]), _ORDER["box_outside"], float(outside[i]), text))
    return flags


def landmarks(batch: pa.RecordBatch, rows: Whole, limits: Thresholds) -> list[Flag]:
    """Return the heads with too many landmarks outside the picture; landmarks of another picture do not count."""
    flags = []
    own = ~_of_other_picture(batch, "landmarks_kind")
    size = _sizes(batch)[:, None]
    for column in ("landmarks68", "landmarks21"):
        points = _lists(batch, column).reshape(len(rows), -1, 2)
        visible: Mask = np.asarray(np.isfinite(points).all(axis=2))
        with np.errstate(invalid="ignore"):
            # The last pixel of a source that counts from 1 is as large as the picture.
            outside: Mask = np.asarray(visible & ((points < 0) | (points > size)).any(axis=2))
        share = outside.sum(axis=1) / np.maximum(visible.sum(axis=1), 1)
        for i in np.flatnonzero(own & (share > limits.max_landmarks_outside)):
            text = f"{outside[i].sum()} of {visible[i].sum()} visible points of {column} lie outside the picture."
            flags.append(Flag(int(rows[i]), _ORDER["landmarks_outside"], float(share[i]), text))
    return flags


def fits(batch: pa.RecordBatch, rows: Whole, limits: Thresholds) -> Iterator[tuple[str, Fitted]]:
    """Yield, by kind of landmarks, the poses that the landmarks of this picture show, beside the labels."""
    label, size = _lists(batch, "rotation").reshape(-1, 3, 3), _sizes(batch)
    kinds = np.array(batch.column("landmarks_kind").fill_null("").to_pylist(), dtype=object)
    usable = np.isfinite(label).all(axis=(1, 2)) & np.isfinite(size).all(axis=1) & (kinds != "")
    usable &= ~_of_other_picture(batch, "landmarks_kind")
    done = np.zeros(len(rows), dtype=bool)
    # A head with 68 fitted points and the 21 marked by hand is judged by the 68.
    for column, has_camera in (("landmarks68", False), ("landmarks21", True)):
        has_points = batch.column(column).is_valid().to_numpy(zero_copy_only=False)
        chosen = usable & has_points & ~done
        done |= chosen
        points = _lists(batch, column).reshape(len(rows), -1, 2)
        for kind in sorted(set(kinds[chosen])):
            at = np.flatnonzero(chosen & (kinds == kind))
            found = landmark_pose.fit(points[at], size[at] if has_camera else None, limits.min_landmarks)
            good = np.isfinite(found.residual)
            yield kind, Fitted(rows[at[good]], landmark_pose.Fit(*(v[good] for v in found)), label[at[good]])


def poses(heads: list[Fitted], limits: Thresholds) -> list[Flag]:
    """Return the heads, all of one kind of landmarks, whose label is not the pose that the landmarks show."""
    row = np.concatenate([h.row for h in heads])
    label = np.concatenate([h.label for h in heads])
    residual = np.concatenate([h.fit.residual for h in heads])
    shown = landmark_pose.without_offset(np.concatenate([h.fit.rotation for h in heads]), label)
    off = geodesic_deg(shown, label)
    return [
        Flag(
            int(row[i]),
            _ORDER["pose_mismatch"],
            float(off[i]),
            f"The label is {off[i]:.0f} degrees away from the pose that the landmarks show; they fit a face to "
            f"{residual[i]:.1%} of its size.",
        )
        for i in np.flatnonzero(off > limits.max_pose_mismatch_deg)
    ]


def duplicates(heads: pa.Table, limits: Thresholds) -> list[Flag]:
    """Return the heads that an earlier one repeats: nearly the same box in one picture, or the same box of one photo.

    Args:
        heads: sample_id, FOR_DUPLICATES, and the column row.
        limits: the overlap that makes two boxes the same.
    """
    own = ~_of_other_picture(heads, "bbox_kind") & heads.column("bbox_xyxy").is_valid().to_numpy()
    heads = heads.filter(pa.array(own)).combine_chunks()
    if not heads.num_rows:
        return []
    box, names = _lists(heads, "bbox_xyxy"), heads.column("sample_id").to_pylist()
    frame = heads.column("frame_index").fill_null(-1).to_numpy()
    picture = _numbered(_codes(heads, "dataset"), _codes(heads, "image_path"), frame)
    found = [(i, j, _overlap(box[i], box[j])) for i, j in _pairs(picture)]
    photo = _codes(heads, "source_photo")
    found += [(i, j, 1.0) for i, j in _pairs(np.where(photo >= 0, _numbered(photo, *box.T), -1))]
    row = heads.column("row").to_numpy()
    first: dict[int, tuple[int, float]] = {}
    for i, j, overlap in found:
        if overlap >= limits.min_overlap and (j not in first or overlap > first[j][1]):
            first[j] = (i, overlap)
    return [
        Flag(
            int(row[j]),
            _ORDER["duplicate"],
            overlap,
            f"{names[i]} is the same face: the boxes overlap by {overlap:.0%}.",
        )
        for j, (i, overlap) in sorted(first.items())
    ]


def _pairs(group: Whole) -> Iterator[tuple[int, int]]:
    """Yield the pairs of rows, the earlier one first, that are in the same group; -1 is none."""
    order = np.argsort(group, kind="stable")
    order = order[group[order] >= 0]
    shift, left = 1, np.arange(len(order))
    while True:
        left = left[left + shift < len(order)]
        left = left[group[order[left]] == group[order[left + shift]]]
        if not len(left):
            return
        yield from zip(order[left].tolist(), order[left + shift].tolist(), strict=True)
        shift += 1


def _overlap(first: Array, second: Array) -> float:
    """Return intersection over union of two boxes."""
    shared = np.clip(np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2]), 0.0, None).prod()
    union = (first[2:] - first[:2]).prod() + (second[2:] - second[:2]).prod() - shared
    return float(shared / union) if union > 0 else 0.0


def _numbered(*keys: npt.NDArray[np.generic]) -> Whole:
    """Return a number (n,) per combination of keys."""
    result = np.zeros(len(keys[0]), dtype=np.int64)
    for key in keys:
        number = np.unique(key, return_inverse=True)[1]
        result = np.unique(result * (int(number.max()) + 1) + number, return_inverse=True)[1]
    return result


def _codes(table: pa.Table, column: str) -> Whole:
    indices = table.column(column).combine_chunks().dictionary_encode().indices
    codes: Whole = indices.fill_null(-1).to_numpy().astype(np.int64)
    return codes


def _of_other_picture(batch: pa.RecordBatch | pa.Table, column: str) -> Mask:
    ends = pc.ends_with(batch.column(column), OF_SOURCE_PHOTO).fill_null(False)
    mask: Mask = np.asarray(ends).astype(bool)
    return mask


def _sizes(batch: pa.RecordBatch) -> Array:
    """Return width and height (n, 2), NaN where unknown."""
    return np.stack([_numbers(batch, "image_width"), _numbers(batch, "image_height")], axis=1)


def _numbers(batch: pa.RecordBatch, column: str) -> Array:
    numbers: Array = batch.column(column).cast(pa.float64()).to_numpy(zero_copy_only=False)
    return numbers


def _lists(batch: pa.RecordBatch | pa.Table, column: str) -> Array:
    """Return a column of lists as the rows of a matrix, NaN where missing."""
    return matrix(batch.column(column), _LENGTHS[column])
