"""300W-LP: 61,225 faces of 300W and their mirror images, most of them rotated further by a 3-D warp.

Layout: folders AFW, HELEN, IBUG, LFPW and their _Flip twins, each with <stem>_<k>.jpg beside <stem>_<k>.mat.
k = 0 is the photograph and k > 0 a warped, synthetic view. The folders landmarks and Code hold no samples.

Handled: a stem with a space (IBUG_image_092 _01); the 35 mirrored heads beyond 99 degrees are OUT_OF_RANGE;
pt2d holds the points of the photograph for every k, so for k > 0 they are not on the warped face. They are kept
because the literature crops by them, and landmarks_kind and bbox_kind then end in _of_source_photo. Option
landmarks=projected uses the points of landmarks/<set>/<stem>_<k>_pts.mat instead. These files do not exist for the
mirrored images, which get those of their twins, mirrored as pt2d is. Coordinates are those of the file and count from
1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ubhpd.core.records import OF_SOURCE_PHOTO, Drop, Note, Record, Unit
from ubhpd.core.rotation import canonical_from_angles
from ubhpd.raw.label_files import MatError, MatReader, projected_paths, projected_points68
from ubhpd.raw.source import Refused, Source

NAME = "300wlp"
TITLE = "300W-LP"
POSE = "fitted 3-D face, warped views"
HOMEPAGE = "http://www.cbsr.ia.ac.cn/users/xiangyuzhu/projects/3DDFA/main.htm"
LICENSE = "none stated; derived from 300W, so research only"
CITATION = "X. Zhu, Z. Lei, X. Liu, H. Shi, S. Z. Li: Face Alignment Across Large Poses: A 3D Solution. CVPR 2016."
ACCESS = "Download 300W-LP.zip (2.8 GB) from the homepage."
LAYOUT = """\
300W_LP/
  AFW/  AFW_Flip/  HELEN/  HELEN_Flip/  IBUG/  IBUG_Flip/  LFPW/  LFPW_Flip/
    AFW_134212_1_0.jpg  AFW_134212_1_0.mat
"""
SETS = {"AFW": 5207, "HELEN": 37676, "IBUG": 1786, "LFPW": 16556}
PUBLISHED: dict[str, int] = {f"300wlp/{s}{twin}/": n for s, n in SETS.items() for twin in ("", "_Flip")}
OUT_OF_RANGE: frozenset[str] = frozenset(
    f"300wlp/{folder}_Flip/{folder}_{stem}"
    for folder, stems in {
        "AFW": "2372995574_1_17 3062021448_2_12 4555082379_1_13 88094323_1_12 899545263_1_15",
        "HELEN": """10405146_1_15 108349477_1_13 111836119_1_15 146978430_2_17 190546275_1_14 192804444_1_15
        2163071133_1_14 2200760295_1_12 2343200154_1_15 2344899163_1_13 2386722927_2_16 2446262151_1_15
        2477958141_2_13 2507543274_1_17 2553305603_1_15 2554127648_1_17 265195892_1_14 2671732783_1_16
        2719473671_1_15 280005127_1_14 2809588534_1_15 2879550020_1_16 2882152659_1_16 3036476835_1_17
        3039563250_1_17""",
        "IBUG": "image_035_14 image_110_01_9",
        "LFPW": "image_test_0035_16 image_train_0075_16 image_train_0388_10",
    }.items()
    for stem in stems.split()
)

_FOLDER = re.compile(r"(AFW|HELEN|IBUG|LFPW)(_Flip)?")
_FILE = re.compile(r"((?:AFW|HELEN|IBUG|LFPW)_.+_\d+)\.(?i:jpg|mat)")
_FACE_OF_PHOTO = re.compile(r"(IBUG_image_\d+) ?_\d+|((?:AFW|HELEN)_\d+)_\d+")
_MAX_RAD = 1e6  # a number beyond this limit is damage
_UNIT_SIZE = 2000


@dataclass(frozen=True)
class Options:
    """landmarks: `pt2d` of the photograph, as in all of the literature, or `projected` from the folder landmarks."""

    landmarks: str = field(default="pt2d", metadata={"choices": ("pt2d", "projected")})


def recognise(source: Source, path: str) -> bool:
    """Return True if the folder holds one of the eight folders with samples in it."""
    return source.has_folder_with(path, _FOLDER, _FILE)


def units(source: Source, options: Options) -> list[Unit]:
    """Return units of 2,000 samples of a folder in the order of their names."""
    slices = []
    for folder in source.listdir(""):
        if not _FOLDER.fullmatch(folder.name):
            continue
        matches = map(_FILE.fullmatch, (e.name for e in source.listdir(folder.name)))
        stems = sorted({m[1] for m in matches if m})
        for start in range(0, len(stems), _UNIT_SIZE):
            chunk = tuple(stems[start : start + _UNIT_SIZE])
            paths = [source.actual(f"{folder.name}/{s}.{x}") for s in chunk for x in ("jpg", "mat")]
            if options.landmarks == "projected":
                paths += [path for s in chunk for path in projected_paths(folder.name, s)]
            slices.append(Unit(f"{folder.name}/{chunk[0]}", (folder.name, chunk), len(chunk), tuple(paths)))
    return slices


def read(source: Source, unit: Unit, options: Options) -> Iterator[Record | Drop | Note]:
    """Yield the samples of a unit."""
    folder, stems = unit.items
    reader = MatReader(["Pose_Para", "pt2d"])
    good: list[str] = []
    images: list[str] = []
    sizes, poses, points = [], [], []
    for stem in stems:
        path = f"{folder}/{stem}"
        try:
            image, size = source.find_image(f"{path}.jpg")
            pose, pt2d = _label(source, reader, f"{path}.mat")
            if options.landmarks == "projected":
                pt2d = _projected(source, folder, stem)
        except Refused as refused:
            yield Drop(f"300wlp/{path}", refused.reason, refused.detail, f"{path}.jpg", f"300wlp/{folder}")
            continue
        good.append(stem)
        images.append(image)
        sizes.append(size)
        poses.append(pose)
        points.append(pt2d)
    if good:
        yield from _records(folder, good, images, sizes, np.array(poses), np.array(points), options)


def _records(
    folder: str, stems: list[str], images: list[str], sizes: Any, poses: Any, points: Any, options: Options
) -> Iterator[Record | Drop]:
    with np.errstate(all="ignore"):
        finite = ((np.abs(poses).max(axis=1) < _MAX_RAD) & ~np.isinf(points).any(axis=(1, 2))).tolist()
        angles, rotations = canonical_from_angles(poses, "300wlp")
    landmarks = np.swapaxes(points, 1, 2).reshape(-1, 136)
    boxes = np.concatenate([points.min(axis=2), points.max(axis=2)], axis=1)
    has_points = np.isfinite(boxes).all(axis=1).tolist()
    if options.landmarks == "pt2d":  # where NaN means damage, not a missing point
        finite = [a and b for a, b in zip(finite, has_points, strict=True)]
    flat, triplets, sequence = rotations.reshape(-1, 9), angles.tolist(), f"300wlp/{folder}"
    twin = f"300wlp/{folder.removesuffix('_Flip')}" if folder.endswith("_Flip") else None
    for i, stem in enumerate(stems):
        sample_id, path = f"{sequence}/{stem}", images[i]
        if not finite[i]:
            detail = f"{folder}/{stem}.mat: holds a number that is not finite, or an impossible angle"
            yield Drop(sample_id, "bad_label", detail, path, sequence)
            continue
        photo, _, k = stem.rpartition("_")
        if match := _FACE_OF_PHOTO.fullmatch(photo):
            photo = match[1] or match[2]
        is_warped, is_visible = int(k) > 0, has_points[i]
        of_photo = OF_SOURCE_PHOTO if is_warped and options.landmarks == "pt2d" else ""
        (width, height), (yaw, pitch, roll) = sizes[i], triplets[i]
        # Positional arguments in the order of Record's fields: keywords would add 5 % to the time of 122,450 heads.
        yield Record(
            sample_id=sample_id,
            image_path=path,
            image_width=width,
            image_height=height,
            yaw_deg=yaw,
            pitch_deg=pitch,
            roll_deg=roll,
            rotation=flat[i],
            raw_angles=poses[i],
            raw_convention="300wlp",
            subject_id=None,
            sequence_id=sequence,
            frame_index=None,
            bbox_xyxy=boxes[i] if is_visible else None,
            bbox_kind=f"landmarks68{of_photo}" if is_visible else None,
            landmarks68=landmarks[i] if is_visible else None,
            landmarks21=None,
            landmarks_kind=f"ibug68{of_photo}" if is_visible else None,
            synthetic=is_warped,
            flip_of=f"{twin}/{stem}" if twin else None,
            source_photo=f"300wlp/{photo}",
        )


def _label(source: Source, reader: MatReader, path: str) -> tuple[Any, Any]:
    """Return (pitch yaw roll in radians (3,), pt2d (2, 68))."""
    try:
        pose, pt2d = reader.read(source.read(path))
    except MatError as error:
        raise Refused("bad_label", f"{path}: {error}") from None
    if pose.shape != (1, 7) or pt2d.shape != (2, 68):
        raise Refused(
            "bad_label",
            f"{path}: Pose_Para and pt2d have shapes {pose.shape} and {pt2d.shape}, unlike 300W-LP",
        )
    return pose[0, :3], pt2d


def _projected(source: Source, folder: str, stem: str) -> Any:
    def read(path: str) -> bytes:
        try:
            return source.read(path)
        except Refused as refused:
            if refused.reason == "missing_label":
                raise FileNotFoundError(path) from None
            raise

    try:
        points = projected_points68(read, folder, stem)
    except MatError as error:
        raise Refused("bad_label", str(error)) from None
    return np.full((2, 68), np.nan) if points is None else points.T
