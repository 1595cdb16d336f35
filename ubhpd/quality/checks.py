"""Finds suspicious heads from the manifest alone: labels, boxes and landmarks that contradict each other.

A flag is a hint for a person, not a verdict: it has a code of FLAGS, a number and a sentence. Each check takes a batch
of heads and returns the flags of those it suspects. Refused heads are not checked, except those that an earlier review
or these flags have taken out.

One check compares the label with the pose that solvePnP finds from the landmarks and a rough 3-D face
(data/face_landmarks.csv, in millimetres). The axes of that face are not quite those of a dataset's own face model, so
the constant rotation between the two is estimated from the heads themselves and removed (`without_offset`).
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ubhpd import manifest
from ubhpd.core.bins import ANGLES
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing
from ubhpd.core.progress import Progress
from ubhpd.core.records import OF_SOURCE_PHOTO
from ubhpd.core.rotation import geodesic_deg, matrix_from_euler
from ubhpd.core.text import csv_lines
from ubhpd.core.typing import BoolArray, FloatArray, IntArray
from ubhpd.manifest import BuildFolder
from ubhpd.manifest.schema import COLUMNS, matrix

MIN_POINTS = 6
FOCAL = 1.5  # of AFLW's own tool: focal length over the image's width, the image's centre on the camera's axis
_FAR = 10.0  # without perspective: focal length over the size of the face, which is on the axis

_MIN_HEADS = 50  # to estimate the offset of a kind
_AGREES_DEG = 40.0  # a label farther off says nothing about it
_ROUNDS = 3

_FLIP = np.array([[1.0], [-1.0], [-1.0]])


class Fit(NamedTuple):
    """Rotations (n, 3, 3) to frame C, NaN where no pose was found; distance (n,) of the points over the face's size."""

    rotation: FloatArray
    residual: FloatArray


@lru_cache(maxsize=2)
def rough_face(points: int) -> FloatArray:
    """Return the 68 or 21 landmarks (n, 3) of a mean face in millimetres: x image-right, y up, z toward the viewer."""
    text = (files("ubhpd") / "data" / "face_landmarks.csv").read_text(encoding="utf-8")
    rows = [row for row in csv.DictReader(text.splitlines()) if int(row["points"]) == points]
    face = np.array([[float(row[f"{axis}_mm"]) for axis in "xyz"] for row in rows])
    face.setflags(write=False)
    return face


def fit(points_px: npt.ArrayLike, size_px: npt.ArrayLike | None = None, min_points: int = MIN_POINTS) -> Fit:
    """Return the poses that explain landmarks best.

    Args:
        points_px: (n, 68, 2) or (n, 21, 2) pixels, NaN for an invisible point.
        size_px: width and height (n, 2) of images taken with the camera that AFLW assumes; without it the faces
            are taken to be seen from far away, as 300W-LP and AFLW2000 were fitted.
        min_points: visible points below which no pose is given; 6 at least.
    """
    import cv2

    points = np.asarray(points_px, dtype=np.float64)
    face = rough_face(68 if points.shape[1] == 68 else 21)
    visible: BoolArray = np.asarray(np.isfinite(points).all(axis=2))
    rotation = np.full((len(points), 3, 3), np.nan)
    residual = np.full(len(points), np.nan)
    sizes = None if size_px is None else np.asarray(size_px, dtype=np.float64)
    for i, seen in enumerate(visible):
        if seen.sum() < max(min_points, MIN_POINTS):
            continue
        own, model = points[i, seen], face[seen]
        extent = float(np.linalg.norm(own.max(axis=0) - own.min(axis=0)))
        centre = own.mean(axis=0) if sizes is None else sizes[i] / 2
        f = _FAR * extent if sizes is None else FOCAL * sizes[i, 0]
        camera = np.array([[f, 0.0, centre[0]], [0.0, f, centre[1]], [0.0, 0.0, 1.0]])
        try:
            found, turn, shift = cv2.solvePnP(model, own, camera, None, flags=cv2.SOLVEPNP_SQPNP)
        except cv2.error:  # points on one line, or in one place, as those of a tiny face nearly are
            continue
        if not found or not extent > 0 or not np.isfinite(turn).all():
            continue
        r = cv2.Rodrigues(turn)[0]
        seen_at = (model @ r.T + shift.T) @ camera.T
        off = seen_at[:, :2] / seen_at[:, 2:] - own
        # The head's own axes are those of frame C already; only the camera's have to be turned.
        rotation[i] = _FLIP * r
        residual[i] = np.sqrt((off**2).sum(axis=1).mean()) / extent
    return Fit(rotation, residual)


def without_offset(fitted: npt.ArrayLike, labels: npt.ArrayLike) -> FloatArray:
    """Return fitted rotations (n, 3, 3) after the constant rotation of the head that leads to the labels.

    It is the mean over the heads where both agree within 40 degrees, found in three rounds; with fewer than 50
    of them the rotations are returned as they are.
    """
    r, label = np.asarray(fitted, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    turned: FloatArray = r
    for _ in range(_ROUNDS):
        near = geodesic_deg(turned, label) <= _AGREES_DEG
        if near.sum() < _MIN_HEADS:
            return r
        u, _, v = np.linalg.svd((np.swapaxes(r[near], 1, 2) @ label[near]).sum(axis=0))
        turned = r @ (u @ np.diag([1.0, 1.0, np.linalg.det(u @ v)]) @ v)
    return turned


FLAGS: dict[str, str] = {
    "angle_out_of_range": "an angle that is missing, or beyond the limit; value in degrees",
    "rotation_mismatch": "the angles and the matrix are not the same pose; value in degrees",
    "box_degenerate": "a box without area, or too small to be a face; value: its shorter side in pixels",
    "box_outside": "a box of which much lies outside the image; value: the share that does",
    "landmarks_outside": "landmarks outside the image; value: the share that is",
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
        max_box_outside: largest share of the box's area outside the image.
        max_landmarks_outside: largest share of the visible landmarks outside the image.
        max_pose_mismatch_deg: largest angle between the label and the pose from the landmarks.
        min_landmarks: visible landmarks below which no pose is made from them.
        min_overlap: overlap, intersection over union, from which two boxes in one image are the same face.
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

    row: IntArray
    fit: Fit
    label: FloatArray


def labels(batch: pa.RecordBatch, rows: IntArray, limits: Thresholds) -> list[Flag]:
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


def boxes(batch: pa.RecordBatch, rows: IntArray, limits: Thresholds) -> list[Flag]:
    """Return the heads whose box is no box of a face, or leaves the image; a head without a box is none of them."""
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
        text = f"{outside[i]:.0%} of the box lies outside the image of {size[i, 0]:.0f}x{size[i, 1]:.0f} pixels."
        flags.append(Flag(int(rows[i]), _ORDER["box_outside"], float(outside[i]), text))
    return flags


def landmarks(batch: pa.RecordBatch, rows: IntArray, limits: Thresholds) -> list[Flag]:
    """Return the heads with too many landmarks outside the image; landmarks of another image do not count."""
    flags = []
    own = ~_of_other_image(batch, "landmarks_kind")
    size = _sizes(batch)[:, None]
    for column in ("landmarks68", "landmarks21"):
        points = _lists(batch, column).reshape(len(rows), -1, 2)
        visible: BoolArray = np.asarray(np.isfinite(points).all(axis=2))
        with np.errstate(invalid="ignore"):
            # The last pixel of a source that counts from 1 is as large as the image.
            outside: BoolArray = np.asarray(visible & ((points < 0) | (points > size)).any(axis=2))
        share = outside.sum(axis=1) / np.maximum(visible.sum(axis=1), 1)
        for i in np.flatnonzero(own & (share > limits.max_landmarks_outside)):
            text = f"{outside[i].sum()} of {visible[i].sum()} visible points of {column} lie outside the image."
            flags.append(Flag(int(rows[i]), _ORDER["landmarks_outside"], float(share[i]), text))
    return flags


def fits(batch: pa.RecordBatch, rows: IntArray, limits: Thresholds) -> Iterator[tuple[str, Fitted]]:
    """Yield, by kind of landmarks, the poses that the landmarks of this image show, beside the labels."""
    label, size = _lists(batch, "rotation").reshape(-1, 3, 3), _sizes(batch)
    kinds = np.array(batch.column("landmarks_kind").fill_null("").to_pylist(), dtype=object)
    usable = np.isfinite(label).all(axis=(1, 2)) & np.isfinite(size).all(axis=1) & (kinds != "")
    usable &= ~_of_other_image(batch, "landmarks_kind")
    done = np.zeros(len(rows), dtype=bool)
    # A head with 68 fitted points and the 21 marked by hand is checked by the 68.
    for column, has_camera in (("landmarks68", False), ("landmarks21", True)):
        has_points = batch.column(column).is_valid().to_numpy(zero_copy_only=False)
        chosen = usable & has_points & ~done
        done |= chosen
        points = _lists(batch, column).reshape(len(rows), -1, 2)
        for kind in sorted(set(kinds[chosen])):
            at = np.flatnonzero(chosen & (kinds == kind))
            found = fit(points[at], size[at] if has_camera else None, limits.min_landmarks)
            good = np.isfinite(found.residual)
            yield kind, Fitted(rows[at[good]], Fit(*(v[good] for v in found)), label[at[good]])


def poses(heads: list[Fitted], limits: Thresholds) -> list[Flag]:
    """Return the heads, all of one kind of landmarks, whose label is not the pose that the landmarks show."""
    row = np.concatenate([h.row for h in heads])
    label = np.concatenate([h.label for h in heads])
    residual = np.concatenate([h.fit.residual for h in heads])
    shown = without_offset(np.concatenate([h.fit.rotation for h in heads]), label)
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
    """Return the heads that an earlier one repeats: nearly the same box in one image, or the same box of one photo.

    Args:
        heads: sample_id, FOR_DUPLICATES, and the column row.
        limits: the overlap that makes two boxes the same.
    """
    own = ~_of_other_image(heads, "bbox_kind") & heads.column("bbox_xyxy").is_valid().to_numpy()
    heads = heads.filter(pa.array(own)).combine_chunks()
    if not heads.num_rows:
        return []
    box, names = _lists(heads, "bbox_xyxy"), heads.column("sample_id").to_pylist()
    frame = heads.column("frame_index").fill_null(-1).to_numpy()
    image = _numbered(_codes(heads, "dataset"), _codes(heads, "image_path"), frame)
    found = [(i, j, _overlap(box[i], box[j])) for i, j in _pairs(image)]
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


def _pairs(group: IntArray) -> Iterator[tuple[int, int]]:
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


def _overlap(first: FloatArray, second: FloatArray) -> float:
    """Return intersection over union of two boxes."""
    shared = np.clip(np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2]), 0.0, None).prod()
    union = (first[2:] - first[:2]).prod() + (second[2:] - second[:2]).prod() - shared
    return float(shared / union) if union > 0 else 0.0


def _numbered(*keys: npt.NDArray[np.generic]) -> IntArray:
    """Return a number (n,) per combination of keys."""
    result = np.zeros(len(keys[0]), dtype=np.int64)
    for key in keys:
        number = np.unique(key, return_inverse=True)[1]
        result = np.unique(result * (int(number.max()) + 1) + number, return_inverse=True)[1]
    return result


def _codes(table: pa.Table, column: str) -> IntArray:
    indices = table.column(column).combine_chunks().dictionary_encode().indices
    codes: IntArray = indices.fill_null(-1).to_numpy().astype(np.int64)
    return codes


def _of_other_image(batch: pa.RecordBatch | pa.Table, column: str) -> BoolArray:
    ends = pc.ends_with(batch.column(column), OF_SOURCE_PHOTO).fill_null(False)
    mask: BoolArray = np.asarray(ends).astype(bool)
    return mask


def _sizes(batch: pa.RecordBatch) -> FloatArray:
    """Return width and height (n, 2), NaN where unknown."""
    return np.stack([_numbers(batch, "image_width"), _numbers(batch, "image_height")], axis=1)


def _numbers(batch: pa.RecordBatch, column: str) -> FloatArray:
    numbers: FloatArray = batch.column(column).cast(pa.float64()).to_numpy(zero_copy_only=False)
    return numbers


def _lists(batch: pa.RecordBatch | pa.Table, column: str) -> FloatArray:
    """Return a column of lists as the rows of a matrix, NaN where missing."""
    return matrix(batch.column(column), _LENGTHS[column])


__all__ = ["COLUMNS", "FLAGS", "REVIEWED", "Thresholds", "check", "check_manifest", "write_flags"]

REVIEWED = ("rejected_by_review", "flagged")  # reasons that stem from here, so these heads are looked at again
FLAG_COLUMNS: tuple[str, ...] = (
    "sample_id",
    "dataset",
    "image_path",
    "frame_index",
    "image_width",
    "image_height",
    "bbox_xyxy",
    "bbox_kind",
    "landmarks68",
    "landmarks21",
    "landmarks_kind",
    "yaw_deg",
    "pitch_deg",
    "roll_deg",
    "rotation",
    "source_photo",
    "drop_reason",
)
RESULT = pa.schema(
    [("sample_id", pa.string()), ("flag", pa.string()), ("value", pa.float64()), ("detail", pa.string())]
)
VERSION = 1  # of the checks: another one does not use the flags kept of the last

_BATCH = 4096


def check(
    batches: pa.Table | Iterable[pa.RecordBatch],
    thresholds: Thresholds | None = None,
    advance: Callable[[int], None] | None = None,
) -> pa.Table:
    """Return the flags of a manifest's heads as sample_id, flag, value, detail, in the order of the rows.

    Args:
        batches: a table with COLUMNS, or its batches one after the other.
        thresholds: what is suspicious.
        advance: called with the number of rows done.
    """
    limits = thresholds or Thresholds()
    pieces = batches.select(FLAG_COLUMNS).to_batches(_BATCH) if isinstance(batches, pa.Table) else batches
    flags: list[Flag] = []
    fitted: dict[str, list[Fitted]] = {}
    light: list[pa.RecordBatch] = []
    start = 0
    for batch in pieces:
        used = batch.column("drop_reason").is_null().to_numpy(zero_copy_only=False)
        used = used | pc.is_in(batch.column("drop_reason"), pa.array(REVIEWED)).to_numpy(zero_copy_only=False)
        own, rows = batch.filter(pa.array(used)), start + np.flatnonzero(used)
        if own.num_rows:
            flags += labels(own, rows, limits)
            flags += boxes(own, rows, limits)
            flags += landmarks(own, rows, limits)
            for kind, heads in fits(own, rows, limits):
                fitted.setdefault(kind, []).append(heads)
            light.append(own.select(["sample_id", *FOR_DUPLICATES]).append_column("row", pa.array(rows)))
        start += batch.num_rows
        if advance:
            advance(batch.num_rows)
    if not light:
        return RESULT.empty_table()
    heads = pa.Table.from_batches(light)
    flags += [flag for heads_of_kind in fitted.values() for flag in poses(heads_of_kind, limits)]
    flags += duplicates(heads, limits)
    flags.sort()
    place = np.searchsorted(heads.column("row").to_numpy(), [f.row for f in flags])
    codes = list(FLAGS)
    columns = {
        "sample_id": heads.column("sample_id").take(pa.array(place, pa.int64())),
        "flag": pa.array([codes[f.order] for f in flags], pa.string()),
        "value": pa.array([f.value for f in flags], pa.float64()),
        "detail": pa.array([f.detail for f in flags], pa.string()),
    }
    return pa.table(columns, schema=RESULT)


def check_manifest(path: Path, thresholds: Thresholds | None = None, progress: Progress | None = None) -> pa.Table:
    """Return the flags of a manifest; beside a build.json they are kept in its folder work, and found again.

    Raises:
        UbhpdError: no manifest there, or not a readable one.
    """
    limits = thresholds or Thresholds()
    head = manifest.header(path)
    mark = hashlib.sha256(f"{VERSION} {head.fingerprint} {limits}".encode()).hexdigest()
    build = BuildFolder.at(path)
    kept = build.work / f"flags-{mark[:16]}.parquet"
    if kept.is_file():
        table: pa.Table = pq.read_table(kept)
        return table
    with (progress or Progress(show=False)).bar("checking heads", head.rows) as advance:
        table = check(manifest.iterate(path, FLAG_COLUMNS), limits, advance)
    if build.has_record:
        with replacing(kept) as part:
            pq.write_table(table, part)
    return table


def write_flags(flags: pa.Table, path: Path) -> None:
    """Write flags as CSV: sample_id,flag,value,detail."""
    try:
        with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            file.write(csv_lines([flags.column_names]))
            for batch in flags.to_batches(max_chunksize=65_536):
                file.write(csv_lines(zip(*(c.to_pylist() for c in batch.columns), strict=True)))
    except OSError as error:
        raise UbhpdError(f"Cannot write the flags to {path} ({error.strerror}): choose another file.") from None
