"""AFLW2000-3D: the first 2,000 images of AFLW with a fitted 3-D face, the field's usual test set.

Layout: imageNNNNN.jpg beside imageNNNNN.mat. The folder Code holds the viewer; its .mat files are not samples.

Handled: integer pt2d and pt2d with 23 columns (the first 21 are AFLW's points, two are appended); an invisible
point becomes NaN (AFLW's (-1, -1) is (-1, 452) in these files, because the authors flipped the y axis of all
points); float64 parameters; angles of up to 893 degrees, which are kept as they are and dropped by --max-angle;
an image without its .mat or the reverse. The 31 heads beyond 99 degrees are OUT_OF_RANGE.

The box is that of the 68 projected points (bbox_kind landmarks68). Some code takes the minimum and maximum of pt2d
with the invisible points included, which moves most boxes to the lower left corner of the image. To reproduce those
boxes, replace each NaN of landmarks21 by (-1, height + 2).
Coordinates are those of the file and count from 1, as MATLAB does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ubhpd.core.records import Drop, Note, Record, Unit
from ubhpd.core.rotation import canonical_from_angles
from ubhpd.raw.label_files import MatError, MatReader
from ubhpd.raw.source import Refused, Source

NAME = "aflw2000"
TITLE = "AFLW2000-3D"
POSE = "fitted 3-D face"
HOMEPAGE = "http://www.cbsr.ia.ac.cn/users/xiangyuzhu/projects/3DDFA/main.htm"
LICENSE = "none stated; derived from AFLW, so research only"
CITATION = "X. Zhu, Z. Lei, X. Liu, H. Shi, S. Z. Li: Face Alignment Across Large Poses: A 3D Solution. CVPR 2016."
ACCESS = "Download AFLW2000-3D.zip (83 MB) from the homepage."
LAYOUT = """\
AFLW2000/
  image00002.jpg  image00002.mat
  image00004.jpg  image00004.mat
"""
PUBLISHED: dict[str, int] = {"aflw2000/": 2000}
OUT_OF_RANGE: frozenset[str] = frozenset(
    f"aflw2000/image{n}"
    for n in [
        "00032",
        "00088",
        "00091",
        "00139",
        "00150",
        "00179",
        "00188",
        "00260",
        "00290",
        "00339",
        "00352",
        "00392",
        "00400",
        "00450",
        "00617",
        "00734",
        "00983",
        "01486",
        "01530",
        "01547",
        "01845",
        "01916",
        "02000",
        "02958",
        "03123",
        "03162",
        "03173",
        "03174",
        "03273",
        "03286",
        "04157",
    ]
)

_FILE = re.compile(r"(image\d{5})\.(?i:jpg|mat)")
_MAX_RAD = 1e6  # the largest published label is 17 rad; a number beyond this limit is damage
_UNIT_SIZE = 1000


@dataclass(frozen=True)
class Options:
    """No modes."""


def recognise(source: Source, path: str) -> bool:
    """Return True if the folder holds imageNNNNN.mat files."""
    return any(e.name.lower().endswith(".mat") and _FILE.fullmatch(e.name) for e in source.listdir(path))


def units(source: Source, options: Options) -> list[Unit]:
    """Return units of 1,000 samples in the order of their names."""
    unique_stems: set[str] = set()
    for entry in source.listdir(""):
        if match := _FILE.fullmatch(entry.name):
            unique_stems.add(match[1])
    stems = sorted(unique_stems)
    chunks = [tuple(stems[i : i + _UNIT_SIZE]) for i in range(0, len(stems), _UNIT_SIZE)]
    return [Unit(c[0], c, len(c), tuple(source.actual(f"{s}.{x}") for s in c for x in ("jpg", "mat"))) for c in chunks]


def read(source: Source, unit: Unit, options: Options) -> Iterator[Record | Drop | Note]:
    """Yield the samples of a unit."""
    reader = MatReader(["Pose_Para", "pt2d", "pt3d_68"])
    good: list[tuple[Any, ...]] = []
    for stem in unit.items:
        try:
            image, size = source.find_image(f"{stem}.jpg")
            pose, pt2d, pt3d = _label(source, reader, f"{stem}.mat")
            if pt2d.shape[1] != 21:
                yield Note("pt2d with 23 columns: its first 21 are the points of AFLW")
            good.append((stem, image, size, pose, pt2d[:, :21], pt3d[:2]))
        except Refused as refused:
            yield Drop(f"aflw2000/{stem}", refused.reason, refused.detail, f"{stem}.jpg")
    if not good:
        return
    stems, images, sizes, poses, pt2d, pt3d = zip(*good, strict=True)
    angles, rotations = canonical_from_angles(np.array(poses), "300wlp")
    points21 = np.swapaxes(np.array(pt2d), 1, 2)
    hidden = (points21[:, :, 0] == -1.0) & ((points21[:, :, 1] == -1.0) | (points21[:, :, 1] == _hidden_y(sizes)))
    points21[hidden] = np.nan
    points68 = np.swapaxes(np.array(pt3d), 1, 2)
    boxes = np.concatenate([points68.min(axis=1), points68.max(axis=1)], axis=1)
    for i, stem in enumerate(stems):
        (width, height), (yaw, pitch, roll) = sizes[i], angles[i].tolist()
        yield Record(
            sample_id=f"aflw2000/{stem}",
            image_path=images[i],
            image_width=width,
            image_height=height,
            yaw_deg=yaw,
            pitch_deg=pitch,
            roll_deg=roll,
            rotation=rotations[i].ravel(),
            raw_angles=poses[i],
            raw_convention="300wlp",
            bbox_xyxy=boxes[i],
            bbox_kind="landmarks68",
            landmarks68=points68[i].ravel(),
            landmarks21=points21[i].ravel(),
            landmarks_kind="fitted_3d",
            source_photo=f"aflw/{stem}",
        )


def _hidden_y(sizes: Any) -> Any:
    """Return (n, 1): the value of y = -1 after the authors flipped the y axis, y -> height + 1 - y."""
    return np.array([[size.height + 2.0] for size in sizes])


def _label(source: Source, reader: MatReader, path: str) -> tuple[Any, Any, Any]:
    """Return (pitch yaw roll in radians (3,), pt2d (2, 21 or 23), pt3d_68 (3, 68))."""
    try:
        pose, pt2d, pt3d = reader.read(source.read(path))
    except MatError as error:
        raise Refused("bad_label", f"{path}: {error}") from None
    if pose.shape != (1, 7) or pt2d.shape not in ((2, 21), (2, 23)) or pt3d.shape != (3, 68):
        shapes = f"{pose.shape}, {pt2d.shape}, {pt3d.shape}"
        raise Refused("bad_label", f"{path}: Pose_Para, pt2d, pt3d_68 have shapes {shapes}, unlike AFLW2000-3D")
    if not (np.isfinite(pose).all() and np.isfinite(pt2d).all() and np.isfinite(pt3d).all()):
        raise Refused("bad_label", f"{path}: holds a number that is not finite")
    if np.abs(pose[0, :3]).max() > _MAX_RAD:
        raise Refused("bad_label", f"{path}: its angles {pose[0, :3]} are no radians")
    return pose[0, :3], pt2d, pt3d
