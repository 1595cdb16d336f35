"""AFLW2000-3D as its archive unpacks: AFLW2000/imageNNNNN.jpg and .mat, and the folder Code.

Layout: nine variables, each compressed by itself (Zhu et al., CVPR 2016). Invisible points of pt2d are
(-1, height + 2), as in the original. A few files of the original break the pattern, and with `quirks` so do
some of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ubhpd.core.typing import FloatArray
from ubhpd.synth.rendered_heads import Head, Pose, Truth, View, heads_from
from ubhpd.synth.renderer.shape import landmarks21, landmarks68, visible21
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

# Which image of the dataset has which quirk, if the dataset is that long.
QUIRKS: dict[int, str] = {
    1: "pt2d of integers",
    2: "pt2d of 23 columns",
    3: "Pose_Para of float64",
    4: "a pose beyond 99 degrees",
    5: "a pitch of 893 degrees and a negative scale",
    6: "Exp_Para of uint8",
}

_BEYOND_POSE: Pose = (-118.25, 12.5, -7.75)
_ABSURD_PITCH_DEG = 893.7


def write(
    root: Path,
    heads: int | Sequence[Head] = 12,
    *,
    seed: int = 0,
    quirks: bool = True,
    distinct_images: int | None = None,
    side_px: int = FACE_SIDE_PX,
    work: Work | None = None,
) -> Truth:
    """Write `AFLW2000/` below root and return the labels written.

    Args:
        root: folder that receives the folder AFLW2000.
        heads: the heads, one an image, or how many to draw.
        seed: decides everything that `heads` leaves open.
        quirks: give the images of QUIRKS their peculiarity; two of them get another pose.
        distinct_images: draw only so many images and repeat them; labels stay distinct.
        side_px: of the images.
        work: how images are drawn.

    Returns:
        sample_id (`aflw2000/image00002`) -> canonical yaw, pitch, roll in degrees.
    """
    rng = np.random.default_rng([2000, seed])
    drawn = heads_from(heads, rng)
    steps = rng.integers(1, 4, len(drawn))
    numbers = 2 + np.cumsum(steps) - steps  # not contiguous, the first is 2
    folder = root / "AFLW2000"
    images = Images(distinct_images, work)
    truth: Truth = {}
    for index, (head, number) in enumerate(zip(drawn, numbers, strict=True)):
        own = np.random.default_rng([2000, seed, index])
        quirk = QUIRKS.get(index, "") if quirks else ""
        if quirk == QUIRKS[4]:
            head = head._replace(yaw_deg=_BEYOND_POSE[0], pitch_deg=_BEYOND_POSE[1], roll_deg=_BEYOND_POSE[2])
        pose = (head.yaw_deg, _ABSURD_PITCH_DEG, head.roll_deg) if quirk == QUIRKS[5] else head.pose
        view = face_view(head, side_px)
        stem = f"image{number:05d}"
        write_bytes(folder / f"{stem}.mat", mat_bytes(_variables(head, pose, view, side_px, quirk, own)))
        scene = np.random.default_rng([2000, seed, index, 1])
        images.add((folder / f"{stem}.jpg",), _drawn, head, view, side_px, scene, subject=head.subject)
        truth[f"aflw2000/{stem}"] = pose
    images.write()
    write_bytes(folder / "Code" / "Model_Shape_Sim.mat", model_mat_bytes(rng))
    write_bytes(folder / "Code" / "readme.txt", b"Viewer of the fitted models; its .mat files are not samples.\r\n")
    return truth


def _drawn(head: Head, view: View, side_px: int, rng: np.random.Generator) -> tuple[bytes]:
    return (jpeg_bytes(draw_image([(view, head)], (side_px, side_px), rng)),)


def _variables(
    head: Head, pose: Pose, view: View, side_px: int, quirk: str, rng: np.random.Generator
) -> dict[str, npt.NDArray[np.generic]]:
    pt2d: npt.NDArray[np.generic] = _points21(head, view, side_px)
    if quirk == QUIRKS[1]:
        pt2d = np.round(_points21(head, view, side_px)).astype(np.int16)
    elif quirk == QUIRKS[2]:
        pt2d = np.concatenate([pt2d, pt2d[:, :2]], axis=1)
    appearance = appearance_variables(rng)
    if quirk == QUIRKS[6]:
        appearance["Exp_Para"] = np.zeros((29, 1), dtype=np.uint8)
    parameters = pose_para(pose, view, side_px)
    if quirk == QUIRKS[5]:
        parameters[0, 6] *= -1.0
    points68 = view.project(landmarks68(head.subject, head.expression)).T
    points68[2] *= -view.scale_px_per_mm  # toward the viewer, in pixels
    return {
        "pt2d": pt2d,
        **appearance,
        "Pose_Para": parameters if quirk == QUIRKS[3] else parameters.astype(np.float32),
        "roi": crop_box(points68, rng),
        "pt3d_68": points68.astype(np.float32),
    }


def _points21(head: Head, view: View, side_px: int) -> FloatArray:
    """Return pt2d (2, 21) in pixels; (-1, side + 2) where the head hides the point."""
    points = view.project(landmarks21(head.subject, head.expression))[:, :2].T
    hidden = np.array([[-1.0], [side_px + 2.0]])
    return np.where(visible21(head.rotation, head.subject), points, hidden)
