"""What a builder yields: a head, a refused head, or a remark.

Builders yield these three types and nothing else; `manifest` turns them into columns. They are named tuples, not
dataclasses, because a pool holds a million of them and `zip(*records)` is the fastest way from rows to columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from ubhpd.core.typing import FloatArray

# How the kind of a box or of landmarks ends that are the photograph's behind a warped image, not the image's own.
OF_SOURCE_PHOTO = "_of_source_photo"

# Kinds of landmarks that are part of a dataset: ground truth for a method that reads them from a test head. Landmarks
# that a detector found have other kinds.
TRUE_LANDMARKS = ("fitted_3d", "ibug68", "manual_21", "table")

# Why a head was refused. The code goes into `drop_reason`, the sentence into `drop_detail`.
DROP_REASONS: dict[str, str] = {
    "missing_image": "a label without its image",
    "missing_label": "an image without its label",
    "reader_failed": "a fault that the reader of the dataset did not foresee, on this head or on one before it",
    "unreadable_file": "a file that cannot be opened (permissions, a folder in its place, a broken link)",
    "bad_image": "an image that is truncated, not an image, or does not decode",
    "bad_label": "a label file that does not follow its format",
    "bad_calibration": "a camera calibration that does not follow its format",
    "bad_depth": "a depth file that does not follow its format",
    "undefined_pose": "the source itself marks the pose as undefined",
    "missing_box": "the source gives no face box for this head",
    "duplicate_label": "a second label for the same head",
    "frame_count_mismatch": "images and label rows cannot be paired because their numbers differ",
    "beyond_max_angle": "an angle beyond --max-angle (99 degrees in the literature)",
    "rejected_by_review": "a person rejected the head: see the decisions file",
    "flagged": "an automatic check flagged the head and nobody decided to keep it",
}

Floats: TypeAlias = "Sequence[float] | FloatArray"  # a row of 3, 4, 9, 42 or 136 floats


class Record(NamedTuple):
    """One annotated head. Missing is None, never -1.

    Angles are canonical yaw, pitch, roll in degrees; `rotation` is the 3x3 matrix, row-major,
    from head coordinates to frame C (x image-right, y up, z toward the viewer).
    Boxes and landmarks are pixels of the image, x right, y down, origin at the top-left pixel.
    docs/manifest.md explains every field.
    """

    sample_id: str
    image_path: str | None
    image_width: int | None
    image_height: int | None
    yaw_deg: float | None
    pitch_deg: float | None
    roll_deg: float | None
    rotation: Floats | None
    raw_angles: Floats | None = None
    raw_convention: str | None = None
    subject_id: str | None = None
    sequence_id: str | None = None
    frame_index: int | None = None
    bbox_xyxy: Floats | None = None
    bbox_kind: str | None = None
    landmarks68: Floats | None = None
    landmarks21: Floats | None = None
    landmarks_kind: str | None = None
    synthetic: bool = False
    flip_of: str | None = None
    source_photo: str | None = None
    drop_reason: str | None = None
    drop_detail: str | None = None


class Drop(NamedTuple):
    """One refused head: no pose could be read. `reason` is a key of DROP_REASONS."""

    sample_id: str
    reason: str
    detail: str
    image_path: str | None = None
    sequence_id: str | None = None
    frame_index: int | None = None


class Note(NamedTuple):
    """A remark on the data that is not about one head: an assumption made, a check that passed or failed."""

    text: str
    is_warning: bool = False


class Unit(NamedTuple):
    """An independent piece of a builder's work: a recording, or a slice of a folder.

    `key` names it within its dataset (stable, readable); `items` is what the builder needs to read it, plain tuples of
    strings and numbers (their repr tells one unit from another);
    `paths` are the files it is made from, so that a resumed build can tell whether they changed.
    """

    key: str
    items: tuple[Any, ...]
    size: int
    paths: tuple[str, ...] = ()
