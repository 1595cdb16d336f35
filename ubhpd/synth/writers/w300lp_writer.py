"""300W-LP as its archive unpacks: a folder per set and its mirrored twin, landmarks, and the folder Code.

Layout: `<set>[_Flip]/<stem>_<k>.jpg` and `.mat` with eight variables, k = 0 the photo and larger k the same
face turned farther (Zhu et al., CVPR 2016). pt2d is that of the photo for every k, as in the original;
`landmarks/<set>/<stem>_<k>_pts.mat` holds the points of the turned face.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import MIRROR_68
from ubhpd.core.typing import FloatArray
from ubhpd.synth.rendered_heads import Head, Pose, Truth, heads_from
from ubhpd.synth.renderer.shape import landmarks68
from ubhpd.synth.writers.writer_files import (
    FACE_SIDE_PX,
    Images,
    Work,
    appearance_variables,
    crop_box,
    draw_image,
    face_view,
    jpeg_bytes,
    mat_bytes,
    model_mat_bytes,
    pose_para,
    write_bytes,
)

SETS = ("AFW", "HELEN", "IBUG", "LFPW")
STEM_WITH_SPACE = "IBUG_image_092 _01"

_PROFILE_DEG = 88.0  # where the synthesised views end
_BAD_ROLL_DEG = 150.0


class _Shot(NamedTuple):
    """One image: which stem it belongs to, which view of it, the head in it and in the photo."""

    set_name: str
    stem: str
    view_index: int
    head: Head
    photo: Head


def write(
    root: Path,
    heads: int | Sequence[Head] = 24,
    *,
    seed: int = 0,
    views: int = 4,
    flips: bool = True,
    bad_flips: int = 0,
    landmarks: bool = True,
    distinct_images: int | None = None,
    side_px: int = FACE_SIDE_PX,
    work: Work | None = None,
) -> Truth:
    """Write `300W_LP/` below root and return the labels written.

    Args:
        root: folder that receives the folder 300W_LP.
        heads: the heads, one an image, or how many images to draw; mirrored ones are not counted.
        seed: decides everything that `heads` leaves open.
        views: consecutive images of one photo, k = 0 .. views - 1. Photos go round the four sets.
        flips: write the mirrored twin of every image.
        bad_flips: so many mirrored twins, from the end, get a roll beyond 99 degrees.
        landmarks: write the folder landmarks.
        distinct_images: draw only so many images and repeat them; labels stay distinct.
        side_px: of the images.
        work: how images are drawn.

    Returns:
        sample_id (`300wlp/AFW/AFW_134212_1_0`, `300wlp/AFW_Flip/AFW_134212_1_0`) -> canonical yaw, pitch,
        roll in degrees.
    """
    if not 1 <= views <= 18:
        raise UbhpdError(f"A photo of 300W-LP has 1 to 18 views, not {views}.")
    rng = np.random.default_rng([300, seed])
    shots = _shots(heads, views, rng)
    images = Images(distinct_images, work)
    folder = root / "300W_LP"
    truth: Truth = {}
    for index, shot in enumerate(shots):
        own = np.random.default_rng([300, seed, index])
        name = f"{shot.stem}_{shot.view_index}"
        twin = folder / f"{shot.set_name}_Flip" / f"{name}.jpg"
        paths = (folder / shot.set_name / f"{name}.jpg", twin)[: 1 + flips]
        scene = np.random.default_rng([300, seed, index // views, 1])  # one photo for all its views
        images.add(paths, _drawn, shot, flips, side_px, scene, subject=shot.head.subject)
        write_bytes(folder / shot.set_name / f"{name}.mat", _label(shot, shot.head.pose, side_px, own, mirror=False))
        truth[f"300wlp/{shot.set_name}/{name}"] = shot.head.pose
        if landmarks:
            points = face_view(shot.head, side_px).project(landmarks68(shot.head.subject, shot.head.expression))[:, :2]
            pts = mat_bytes({"pts_2d": points, "pts_3d": points})
            write_bytes(folder / "landmarks" / shot.set_name / f"{name}_pts.mat", pts)
        if flips:
            yaw, pitch, roll = shot.head.pose
            bad_deg = math.copysign(_BAD_ROLL_DEG, roll) if index >= len(shots) - bad_flips else 0.0
            pose = (-yaw, pitch, -roll - bad_deg)
            write_bytes(twin.with_suffix(".mat"), _label(shot, pose, side_px, own, mirror=True))
            truth[f"300wlp/{shot.set_name}_Flip/{name}"] = pose
    images.write()
    for code in ("Model_Shape.mat", "Model_Exp.mat"):
        write_bytes(folder / "Code" / code, model_mat_bytes(rng))
    return truth


def _shots(heads: int | Sequence[Head], views: int, rng: np.random.Generator) -> list[_Shot]:
    if isinstance(heads, int):
        photos = heads_from(math.ceil(heads / views), rng)
        wanted = [_turned(photo, k, views, rng) for photo in photos for k in range(views)][:heads]
    else:
        wanted = list(heads)
    shots = []
    for index, head in enumerate(wanted):
        photo_index, view_index = divmod(index, views)
        set_name = SETS[photo_index % len(SETS)]
        stem = _stem(set_name, photo_index // len(SETS))
        shots.append(_Shot(set_name, stem, view_index, head, wanted[photo_index * views]))
    return shots


def _turned(photo: Head, view_index: int, views: int, rng: np.random.Generator) -> Head:
    """Return the head turned toward the profile it is nearer to: not at all for k = 0."""
    if view_index == 0:
        return photo
    profile = math.copysign(_PROFILE_DEG, photo.yaw_deg)
    share = view_index / views
    yaw = photo.yaw_deg + (profile - photo.yaw_deg) * share
    wobble = rng.normal(0.0, 1.0, 2)
    return photo._replace(
        yaw_deg=yaw, pitch_deg=photo.pitch_deg + float(wobble[0]), roll_deg=photo.roll_deg + float(wobble[1])
    )


def _stem(set_name: str, index: int) -> str:
    if set_name == "AFW":
        return f"AFW_{134212 + 126_856 * index}_{1 + index % 3}"
    if set_name == "HELEN":
        return f"HELEN_{100_032_540 + 7_919_317 * index}_{1 + index % 2}"
    if set_name == "IBUG":
        return STEM_WITH_SPACE if index == 0 else f"IBUG_image_{2 + index:03d}" + "_1" * (index % 2)
    return f"LFPW_image_{('train', 'test')[index % 2]}_{1 + index:04d}"


def _drawn(shot: _Shot, flips: bool, side_px: int, rng: np.random.Generator) -> tuple[bytes, ...]:
    image = draw_image([(face_view(shot.head, side_px), shot.head)], (side_px, side_px), rng)
    if not flips:
        return (jpeg_bytes(image),)
    return jpeg_bytes(image), jpeg_bytes(np.ascontiguousarray(cv2.flip(image, 1)))


def _label(shot: _Shot, pose: Pose, side_px: int, rng: np.random.Generator, *, mirror: bool) -> bytes:
    view = face_view(shot.head, side_px)
    photo = shot.photo
    points: FloatArray = face_view(photo, side_px).project(landmarks68(photo.subject, photo.expression))[:, :2].T
    parameters = pose_para(pose, view, side_px)
    if mirror:
        points = points[:, MIRROR_68]
        points[0] = side_px - 1 - points[0]
        parameters[0, 3] = side_px - 1 - parameters[0, 3]
    return mat_bytes(
        {
            "pt2d": points,
            "roi": crop_box(points, rng),
            **appearance_variables(rng),
            "Pose_Para": parameters.astype(np.float32),
        }
    )
