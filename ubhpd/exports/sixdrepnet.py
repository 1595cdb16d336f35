"""6DRepNet's (and Hopenet's) layout: a list of names without extension, a .jpg and a .mat under each.

    train.txt                        one name a line, as images/300wlp/IBUG/IBUG_image_092 _01_0; spaces are part of it
    images/<sample_id>.jpg           the whole image: their loaders crop by pt2d themselves
    images/<sample_id>.mat           Pose_Para (1, 7): canonical pitch, yaw, roll in radians, then zeros;
                                     pt2d (2, m): the visible landmarks, or two corners of the face box without any

Use it as `Pose_300W_LP(data_dir=DIR, filename_path=DIR/train.txt)`. Images that are no JPEG become one, quality 95.
Hidden points are left out, so that minimum and maximum over pt2d is the face; the published AFLW2000 files, where
they are not, are there for the published numbers.

Reference: Hempel et al., ICIP 2022; thohemp/6DRepNet, sixdrepnet/create_filename_list.py and datasets.py.
"""

from __future__ import annotations

import io

import numpy as np

from ubhpd.core.files import replacing
from ubhpd.core.typing import FloatArray
from ubhpd.exports._crops import Card, Job

CARD = Card(
    "6drepnet",
    "6DRepNet's file list per split, whole images and .mat labels under each name",
    recipe="none",
    images="files",
    crops=False,
    jpeg=True,
    faces=True,
    points=True,
)

_DESCRIPTION = b"MATLAB 5.0 MAT-file, written by ubhpd"
_TEXT_BYTES = 116  # of a level-5 header, where scipy would write the date


def write(job: Job) -> list[str]:
    """Write the labels and SPLIT.txt for every split."""
    heads, files = job.heads, []
    for split, rows in job.heads.splits().items():
        stems = [job.names[i].removesuffix(".jpg") for i in rows]
        for stem, row in zip(stems, rows.tolist(), strict=True):
            points = heads.points[row] if heads.points is not None else np.zeros((0, 2))
            if len(points) < 2:
                points = heads.face[row].reshape(2, 2)
            with replacing(job.out / f"{stem}.mat") as part:
                part.write_bytes(_mat(heads.angles[row], points))
            job.advance(1)
        with replacing(job.out / f"{split}.txt") as part:
            part.write_text("\n".join(stems), encoding="utf-8")  # their list ends without a line break
        files.append(f"{split}.txt")
    return files


def _mat(angles_deg: FloatArray, points: FloatArray) -> bytes:
    """Return a label file; angles yaw, pitch, roll (3,), points (m, 2)."""
    import scipy.io

    yaw, pitch, roll = np.radians(angles_deg)
    pose = np.array([[pitch, yaw, roll, 0.0, 0.0, 0.0, 0.0]])
    file = io.BytesIO()
    scipy.io.savemat(file, {"pt2d": points.T, "Pose_Para": pose}, do_compression=True)  # type: ignore[arg-type]
    return _DESCRIPTION.ljust(_TEXT_BYTES) + file.getvalue()[_TEXT_BYTES:]
