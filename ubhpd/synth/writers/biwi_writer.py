"""BIWI Kinect Head Pose Database as its archive unpacks: hpdb/NN.obj and hpdb/NN/frame_FFFFF_*.

Layout: Fanelli et al., IJCV 2013. The pose is that of the head in the frame of the depth camera; the colour
camera stands 24 mm beside it, slightly turned, and rgb.cal says how.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import camera_to_canonical
from ubhpd.core.typing import FloatArray
from ubhpd.synth.rendered_heads import Head, Pose, Truth, draw_track, pinhole_view
from ubhpd.synth.renderer.render import depth_image
from ubhpd.synth.renderer.shape import head_mesh
from ubhpd.synth.writers.writer_files import Images, Work, draw_image, png_bytes, write_bytes

# The person of sequences 1 to 24; four of them come twice.
SUBJECTS: tuple[str, ...] = (
    *("F01", "F02", "F03", "F04", "F05", "F06", "M01", "M02", "M03", "M04", "M05", "M06", "M07", "M08"),
    *("F03", "M09", "M10", "F05", "M11", "M12", "F02", "M01", "M13", "M14"),
)
SIZE_PX = (640, 480)


class Camera(NamedTuple):
    """A calibration: intrinsics, and the way from the depth camera's frame to this camera's, X' = R X + T."""

    matrix: FloatArray
    rotation: FloatArray
    translation_mm: FloatArray


_FIRST_SETUP = frozenset((*range(1, 6), *range(7, 15)))  # frames count from 3, others from 0
_ROWS_FIRST = ((0.999948, 0.0044, 0.0092), (-0.004538, 0.999878, 0.014951), (-0.009133, -0.014992, 0.999846))
_ROWS_SECOND = ((0.999984, -0.000032, -0.005707), (0.000177, 0.999679, 0.025357), (0.005704, -0.025358, 0.999662))


def write(
    root: Path,
    sequences: Sequence[int] = (1, 2),
    *,
    seed: int = 0,
    frames: int = 5,
    poses: Mapping[int, Sequence[Pose]] | None = None,
    prefix: str = "hpdb",
    with_depth: bool = True,
    with_pose_bin: bool = False,
    gaps: bool = True,
    digits: int = 6,
    distinct_images: int | None = None,
    first_subject: int = 1,
    work: Work | None = None,
) -> Truth:
    """Write recordings below root and return their poses in the frame of the depth camera.

    Args:
        root: folder that receives the folder `prefix`.
        sequences: numbers from 1 to 24.
        seed: decides everything left open.
        frames: how many a sequence has.
        poses: sequence -> canonical yaw, pitch, roll a frame, in place of `sequences` and `frames`.
        prefix: `hpdb` in the official archive, `faces_0` in the copy on Kaggle, may be "".
        with_depth: write depth.bin files.
        with_pose_bin: write pose.bin files, which the official archive keeps apart.
        gaps: leave out two frame numbers after the first three fifths, as where the tracker failed.
        digits: significant digits in pose.txt; 6 in the original.
        distinct_images: draw only so many images (and depths) and repeat them; labels stay distinct.
        first_subject: number of the first of the twenty people; datasets that share no subject share no face.
        work: how images are drawn.

    Returns:
        sample_id (`biwi/01/frame_00003`) -> canonical yaw, pitch, roll in degrees.
    """
    folder = root / prefix
    images = Images(distinct_images, work)
    truth: Truth = {}
    for sequence in sorted(poses) if poses is not None else sequences:
        if not 1 <= sequence <= 24:
            raise UbhpdError(f"BIWI has sequences 1 to 24, not {sequence}.")
        rng = np.random.default_rng([24, seed, sequence])
        heads = _heads(sequence, first_subject, rng, frames, poses)
        depth, rgb = cameras(sequence)
        write_bytes(folder / f"{sequence:02d}.obj", template_obj(heads[0].subject if heads else 0))
        write_bytes(folder / f"{sequence:02d}" / "depth.cal", _calibration_text(depth))
        write_bytes(folder / f"{sequence:02d}" / "rgb.cal", _calibration_text(rgb))
        numbers = _frame_numbers(sequence, len(heads), gaps)
        for head, number in zip(heads, numbers, strict=True):
            stem = f"{sequence:02d}/frame_{number:05d}"
            scene = np.random.default_rng([24, seed, sequence, 1])  # one room for the whole recording
            paths = (folder / f"{stem}_rgb.png", folder / f"{stem}_depth.bin")[: 1 + with_depth]
            images.add(paths, _drawn, head, depth, rgb, with_depth, scene, subject=head.subject)
            write_bytes(folder / f"{stem}_pose.txt", pose_text(head, digits))
            if with_pose_bin:
                write_bytes(folder / f"{stem}_pose.bin", pose_bin(head))
            truth[f"biwi/{stem}"] = head.pose
    images.write()
    return truth


def poses_by_sequence(truth: Truth) -> dict[int, list[Pose]]:
    """Return sequence -> poses in the order of the frames, of a truth that `write` returned."""
    found: dict[int, list[Pose]] = {}
    for sample_id in sorted(truth):
        found.setdefault(int(sample_id.split("/")[1]), []).append(truth[sample_id])
    return found


def cameras(sequence: int) -> tuple[Camera, Camera]:
    """Return the depth camera and the colour camera of a sequence; there were two set-ups."""
    rows = _ROWS_FIRST if sequence in _FIRST_SETUP else _ROWS_SECOND
    depth_matrix = np.array([[575.816, 0.0, 320.0], [0.0, 575.816, 240.0], [0.0, 0.0, 1.0]])
    rgb_matrix = np.array([[517.679, 0.0, 320.0], [0.0, 517.679, 240.5], [0.0, 0.0, 1.0]])
    depth = Camera(depth_matrix, np.eye(3), np.zeros(3))
    return depth, Camera(rgb_matrix, np.array(rows), np.array([-24.0198, 5.8896, -13.2308]))


def pose_text(head: Head, digits: int = 6) -> bytes:
    """Return a pose.txt: the rotation in the camera frame, a blank line, the centre in millimetres."""
    rows = [*camera_to_canonical(head.rotation), None, head.centre_mm]
    lines = ["" if row is None else "".join(f"{value + 0.0:.{digits}g} " for value in row) for row in rows]
    return ("\n".join(lines) + "\n").encode()


def pose_bin(head: Head) -> bytes:
    """Return a pose.bin: centre in mm, then pitch, yaw, roll in degrees, R = Rz(roll) Ry(yaw) Rx(pitch)."""
    r = camera_to_canonical(head.rotation)
    pitch = np.arctan2(r[2, 1], r[2, 2])
    yaw = np.arctan2(-r[2, 0], np.hypot(r[0, 0], r[1, 0]))
    roll = np.arctan2(r[1, 0], r[0, 0])
    return struct.pack("<6f", *head.centre_mm, *np.degrees([pitch, yaw, roll]))


def depth_bin(depth_mm: npt.NDArray[np.integer]) -> bytes:
    """Return a depth.bin of distances (height, width): width, height, then runs of nothing and of something."""
    flat = depth_mm.ravel().astype("<i2")
    change = np.flatnonzero(np.diff(flat != 0)) + 1
    edges = [0, *change.tolist(), flat.size]
    if flat.size and flat[0] != 0:
        edges.insert(0, 0)  # a first run of nothing
    if len(edges) % 2 == 0:
        edges.append(flat.size)  # a last run of something, empty
    pieces = [struct.pack("<ii", depth_mm.shape[1], depth_mm.shape[0])]
    for start, middle, stop in zip(edges[:-2:2], edges[1:-1:2], edges[2::2], strict=True):
        pieces += [struct.pack("<ii", middle - start, stop - middle), flat[middle:stop].tobytes()]
    return b"".join(pieces)


def template_obj(subject: int) -> bytes:
    """Return the template mesh of a person: vertices with normals, in mm, axes of the camera frame."""
    mesh = head_mesh(subject)
    flip = (1.0, -1.0, -1.0)
    count, points = len(mesh.points_mm), mesh.points_mm * flip
    rows = np.column_stack([points, mesh.normals * flip, 0.5 + points[:, 0] / 400, 0.5 - points[:, 1] / 400])
    vertices = "v %.10f %.10f %.10f\nvn %.10f %.10f %.10f\nvt %.6f %.6f\n" * count % tuple(rows.ravel().tolist())
    return (f"# {count} vertices, {len(mesh.triangles)} faces\n" + vertices + _faces_obj()).encode()


@lru_cache(maxsize=1)
def _faces_obj() -> str:
    """Return the lines of the triangles, the same for all people."""
    corners = (head_mesh().triangles[:, [0, 2, 1]] + 1).tolist()
    return "".join(f"f {a}/{a}/{a} {b}/{b}/{b} {c}/{c}/{c}\n" for a, b, c in corners)


def _heads(
    sequence: int, first: int, rng: np.random.Generator, frames: int, poses: Mapping[int, Sequence[Pose]] | None
) -> list[Head]:
    subject = first + sorted(set(SUBJECTS)).index(SUBJECTS[sequence - 1])
    wanted = None if poses is None else poses[sequence]
    centre = (float(rng.uniform(-60, 90)), float(rng.uniform(-40, 60)), float(rng.uniform(840, 1000)))
    track = draw_track(frames if wanted is None else len(wanted), rng, subject, centre_mm=centre)
    if wanted is None:
        return track
    return [h._replace(yaw_deg=p[0], pitch_deg=p[1], roll_deg=p[2]) for h, p in zip(track, wanted, strict=True)]


def _frame_numbers(sequence: int, count: int, gaps: bool) -> list[int]:
    first = 3 if sequence in _FIRST_SETUP else 0
    after = 3 * count // 5 if gaps else count
    return [first + i + 2 * (i >= after) for i in range(count)]


def _drawn(head: Head, depth: Camera, rgb: Camera, with_depth: bool, rng: np.random.Generator) -> tuple[bytes, ...]:
    view = pinhole_view(head.rotation, head.centre_mm, rgb.matrix, rgb.rotation, rgb.translation_mm)
    png = png_bytes(draw_image([(view, head)], SIZE_PX, rng, noise=1.0, clutter=0.6))
    if not with_depth:
        return (png,)
    exact = depth_image(pinhole_view(head.rotation, head.centre_mm, depth.matrix), head, SIZE_PX)
    distances = np.round(exact).astype(np.int16)
    distances += (distances > 0) * rng.integers(-1, 2, distances.shape, dtype=np.int16)
    return png, depth_bin(distances)


def _calibration_text(camera: Camera) -> bytes:
    blocks = [camera.matrix, np.zeros((1, 4)), camera.rotation, camera.translation_mm[None, :]]
    text = "\n".join("".join("".join(f"{v:.6g} " for v in row) + "\n" for row in block) for block in blocks)
    return (text + "\n{} {}\n".format(*SIZE_PX)).encode()
