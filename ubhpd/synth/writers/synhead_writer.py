"""SynHead as its archive unpacks: synhead2_release/<folder>/NN.csv and <folder>/<head>/NN/<row>.png.

Layout: Gu et al., CVPR 2017, as the few public readers have it. A csv is a track that every head model
follows: pitch, yaw, roll in degrees, no header, the yaw with the opposite sign of ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ubhpd.core.errors import UbhpdError
from ubhpd.synth.rendered_heads import Head, Pose, Truth, draw_track
from ubhpd.synth.renderer.render import Light, paint_head
from ubhpd.synth.writers.writer_files import Images, Work, draw_image, face_view, jpeg_bytes, png_bytes, write_bytes

# Folder -> how many tracks the original has in it.
TRACKS: dict[str, int] = {"BIWI": 24, "breitenstein": 26, "kinect": 5, "softkinetic": 15}
HEADS: tuple[str, ...] = (*(f"f{i:02d}" for i in range(1, 6)), *(f"m{i:02d}" for i in range(1, 6)))
SIDE_PX = 400

_DEFAULT_TRACKS: dict[str, Sequence[int]] = {"BIWI": (0, 1), "breitenstein": (0,), "kinect": (0,), "softkinetic": (0,)}


def write(
    root: Path,
    tracks: Mapping[str, Sequence[int]] | None = None,
    heads: Sequence[str] = ("f01", "m01"),
    *,
    seed: int = 0,
    frames: int = 5,
    poses: Mapping[int, Sequence[Pose]] | None = None,
    replay: Mapping[tuple[str, int], Sequence[Pose]] | None = None,
    backdrops: bool = False,
    first_frame: int = 0,
    distinct_images: int | None = None,
    side_px: int = SIDE_PX,
    first_subject: int = 201,
    work: Work | None = None,
) -> Truth:
    """Write `synhead2_release/` below root and return the poses written.

    Args:
        root: folder that receives the folder synhead2_release.
        tracks: folder -> numbers of its tracks, from 0; None for a few of each.
        heads: names of head models, of HEADS.
        seed: decides everything left open.
        frames: rows of a track.
        poses: BIWI sequence (from 1) -> canonical yaw, pitch, roll a frame. Track NN of the folder BIWI gets
            those of sequence NN + 1; these tracks are written in place of the BIWI ones in `tracks`.
        replay: folder and number of a track -> canonical yaw, pitch, roll a frame; in place of `tracks` and `poses`.
        backdrops: draw a background; without it the images are transparent around the head.
        first_frame: number of the first png of a track.
        distinct_images: draw only so many images and repeat them; labels stay distinct.
        side_px: of the images.
        first_subject: number of the first of the ten people; datasets that share no subject share no face.
        work: how images are drawn.

    Returns:
        sample_id (`synhead/BIWI/00/f01/000123`, the number that of the png) -> canonical yaw, pitch, roll
        in degrees.
    """
    wanted = dict(_DEFAULT_TRACKS if tracks is None else tracks)
    given = dict(replay or {})
    if poses is not None:
        given |= {("BIWI", sequence - 1): track for sequence, track in poses.items()}
        wanted["BIWI"] = [sequence - 1 for sequence in sorted(poses)]
    if replay is not None:
        wanted = {name: sorted(n for f, n in replay if f == name) for name in sorted({f for f, _ in replay})}
    if unknown := [*(set(wanted) - set(TRACKS)), *(set(heads) - set(HEADS))]:
        raise UbhpdError(f"SynHead has no {', '.join(sorted(unknown))}: use {', '.join((*TRACKS, *HEADS))}.")
    folder = root / "synhead2_release"
    background = draw_image([], (side_px, side_px), np.random.default_rng([70, seed]))
    write_bytes(folder / "background" / "a01.jpg", jpeg_bytes(background))
    images = Images(distinct_images, work)
    truth: Truth = {}
    for name, numbers in wanted.items():
        for number in numbers:
            track = _track([70, seed, list(TRACKS).index(name), number], frames, given.get((name, number)))
            write_bytes(folder / name / f"{number:02d}.csv", _csv(track))
            for model in heads:
                for row, pose in enumerate(track, start=first_frame):
                    path = folder / name / model / f"{number:02d}" / f"{row}.png"
                    head = Head(*pose, first_subject + HEADS.index(model))
                    scene = np.random.default_rng([70, seed, len(truth)]) if backdrops else None
                    images.add((path,), _drawn, head, side_px, scene, subject=head.subject)
                    truth[f"synhead/{name}/{number:02d}/{model}/{row:06d}"] = pose
    images.write()
    return truth


def _track(seed: list[int], frames: int, given: Sequence[Pose] | None) -> list[Pose]:
    if given is not None:
        return [(float(yaw), float(pitch), float(roll)) for yaw, pitch, roll in given]
    return [head.pose for head in draw_track(frames, np.random.default_rng(seed))]


def _csv(track: Sequence[Pose]) -> bytes:
    return "".join(f"{pitch + 0.0:.8f},{0.0 - yaw:.8f},{roll + 0.0:.8f}\n" for yaw, pitch, roll in track).encode()


def _drawn(head: Head, side_px: int, scene: np.random.Generator | None) -> tuple[bytes]:
    view = face_view(head, side_px)
    if scene is not None:
        return (png_bytes(draw_image([(view, head)], (side_px, side_px), scene)),)
    canvas = np.zeros((side_px, side_px, 4), dtype=np.uint8)  # transparent
    paint_head(canvas, view, head, Light())
    return (png_bytes(canvas),)
