"""BIWI Kinect Head Pose Database: 24 recordings of 20 people, head pose from a Kinect and a face template.

Layout: a folder NN per recording with images, depth, calibrations and one pose file per frame, and the
person's template mesh NN.obj beside it. The pose is given for the depth camera; option frame=rgb converts it to the
colour camera with the extrinsics in rgb.cal, which changes it by 1 to 1.5 degrees.

Handled: the Kaggle copy (faces_0/NN instead of hpdb/NN); pose.bin where pose.txt is missing (if both exist, only
pose.txt is read); trailing spaces and blank lines; frames in any order; partial copies. Four people appear in two
recordings each, so a split by recording is not a split by person: use subject_id.

The box is that of the template mesh, posed and projected into the colour image (bbox_kind template_projection).
Without rgb.cal or a complete template there is no box, and a note says so.

Refused: a matrix that is not a rotation within 1e-3; a centre that is not 0.2 to 5 m in front of the camera; all heads
of a recording whose rgb.cal is damaged (if it is missing, only with frame=rgb); a depth.bin whose header has no valid
image size, and with --check-images one whose runs do not fill the image. depth.cal is not needed and not read.

pose.bin holds centre x y z (mm), pitch, yaw, roll (degrees) as float32; R = Rz(roll) Ry(yaw) Rx(pitch) in the
camera frame gives the matrix of pose.txt to 7e-6 degrees on ten frames for which both are available.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ubhpd.core.records import Drop, Note, Record, Unit
from ubhpd.core.rotation import camera_to_canonical, euler_from_matrix, matrix_from_angles, orthonormality_error
from ubhpd.core.typing import FloatArray
from ubhpd.raw.source import Refused, Source

NAME = "biwi"
TITLE = "BIWI Kinect Head Pose Database"
POSE = "depth camera and template"
HOMEPAGE = "https://data.vision.ee.ethz.ch/cvl/gfanelli/head_pose/head_forest.html"
LICENSE = "research and education only, not commercial; cite the paper"
CITATION = (
    "G. Fanelli, M. Dantone, J. Gall, A. Fossati, L. Van Gool: Random Forests for Real Time 3D Face Analysis. "
    "IJCV 2013."
)
ACCESS = (
    "Request kinect_head_pose_db.tgz (6 GB) at the homepage; "
    "where that link is dead, Kaggle has a copy: kmader/biwi-kinect-head-pose-database."
)
LAYOUT = """\
hpdb/
  01.obj
  01/
    rgb.cal  depth.cal
    frame_00003_rgb.png  frame_00003_depth.bin  frame_00003_pose.txt
"""
_PEOPLE = "F01 F02 F03 F04 F05 F06 M01 M02 M03 M04 M05 M06 M07 M08 F03 M09 M10 F05 M11 M12 F02 M01 M13 M14"
SUBJECTS: dict[str, str] = {f"{n:02d}": person for n, person in enumerate(_PEOPLE.split(), start=1)}
_FRAMES = (499, 511, 730, 744, 946, 542, 745, 772, 882, 726, 572, 732,
           485, 797, 654, 914, 395, 614, 502, 556, 634, 665, 569, 492)  # fmt: skip
PUBLISHED: dict[str, int] = {f"biwi/{s}/": n for s, n in zip(SUBJECTS, _FRAMES, strict=True)}
OUT_OF_RANGE: frozenset[str] = frozenset()

_SEQUENCE = re.compile(r"(0[1-9]|1[0-9]|2[0-4])")
_FRAME = re.compile(r"frame_(\d{5})_(rgb\.(?i:png)|pose\.(?i:txt|bin)|depth\.(?i:bin))")
_MAX_DEFECT = 1e-3  # of R R^T from I; the files are exact to 1e-5
_RANGE_MM = (200.0, 5000.0)  # measuring range of a Kinect; the heads are about a metre away
_MAX_VERTEX_MM = 500.0  # the templates reach to 160
_VERTEX_STEP = 4  # using every fourth of the 6,918 vertices moves a side of the box by a pixel on average
_DIRECTIONS = 64


@dataclass(frozen=True)
class Options:
    """frame: the camera that the pose refers to: `depth`, as in all of the literature, or `rgb`."""

    frame: str = field(default="depth", metadata={"choices": ("depth", "rgb")})


class Camera(NamedTuple):
    """A camera of the Kinect: intrinsics in pixels; R X + T converts depth-camera coordinates in mm to its own."""

    matrix: FloatArray  # (3, 3)
    rotation: FloatArray  # (3, 3)
    translation: FloatArray  # (3,)


def recognise(source: Source, path: str) -> bool:
    """Return True if the folder holds recordings of BIWI."""
    return source.has_folder_with(path, _SEQUENCE, _FRAME)


def units(source: Source, options: Options) -> list[Unit]:
    """Return one unit per recording."""
    recordings = []
    for entry in source.listdir(""):
        if not _SEQUENCE.fullmatch(entry.name):
            continue
        kinds: dict[str, list[str]] = {}
        paths = [source.actual(path) for path in (f"{entry.name}/rgb.cal", f"{entry.name}.obj")]
        for file in source.listdir(entry.name):
            if match := _FRAME.fullmatch(file.name):
                kinds.setdefault(match[1], []).append(match[2].lower())
                paths.append(f"{entry.name}/{file.name}")
        items = tuple((number, tuple(frame_kinds)) for number, frame_kinds in sorted(kinds.items()))
        if items:
            recordings.append(Unit(entry.name, items, len(items), tuple(paths)))
    return recordings


def read(source: Source, unit: Unit, options: Options) -> Iterator[Record | Drop | Note]:
    """Yield the frames of a recording."""
    sequence = unit.key
    camera, fault, note = _camera(source, sequence, options)
    if note:
        yield note
    template = None
    if camera is not None:
        template, note = _template(source, sequence)
        if note:
            yield note
    good: list[tuple[Any, ...]] = []
    for number, kinds in unit.items:
        stem = f"{sequence}/frame_{number}"
        image = f"{stem}_rgb.png"
        try:
            if fault:
                raise fault
            if "rgb.png" not in kinds:
                raise Refused("missing_image", f"{image}: no such file")
            image, size = source.find_image(image)
            pose = _pose(source, stem, kinds)
            if "depth.bin" in kinds:
                _check_depth(source, f"{stem}_depth.bin")
            good.append((number, image, size, *pose))
        except Refused as refused:
            sample_id, recording = f"biwi/{stem}", f"biwi/{sequence}"
            yield Drop(sample_id, refused.reason, refused.detail, image, recording, int(number))
    yield from _records(sequence, good, camera, template, options)


def _records(
    sequence: str, good: list[Any], camera: Camera | None, template: FloatArray | None, options: Options
) -> Iterator[Record | Drop]:
    if not good:
        return
    numbers, images, sizes, nines, triples, raw = zip(*good, strict=True)
    matrices, centres = np.array(nines).reshape(-1, 3, 3), np.array(triples)
    boxes: Any = [None] * len(good)
    with np.errstate(all="ignore"):  # values that are not finite are refused below
        defects = orthonormality_error(matrices)
        is_near = np.isfinite(centres).all(axis=1) & (centres[:, 2] > _RANGE_MM[0]) & (centres[:, 2] < _RANGE_MM[1])
        if camera is not None and template is not None:
            boxes = _boxes(matrices, centres, camera, template)
        camera_matrices = camera.rotation @ matrices if options.frame == "rgb" and camera is not None else matrices
        rotations = camera_to_canonical(camera_matrices)
        angles = euler_from_matrix(rotations)
    flat, is_valid = rotations.reshape(-1, 9), ((defects <= _MAX_DEFECT) & is_near).tolist()
    person, recording = f"biwi/{SUBJECTS[sequence]}", f"biwi/{sequence}"
    for i, number in enumerate(numbers):
        sample_id = f"biwi/{sequence}/frame_{number}"
        if not is_valid[i]:
            label = f"{sequence}/frame_{number}_pose.{'txt' if raw[i] is None else 'bin'}"
            fault = f"its nine numbers are no rotation (R R^T differs from I by {defects[i]:.2g})"
            if defects[i] <= _MAX_DEFECT:
                fault = f"its head centre {tuple(centres[i].tolist())} mm is not before the camera"
            yield Drop(sample_id, "bad_label", f"{label}: {fault}", images[i], recording, int(number))
            continue
        box, (width, height), (yaw, pitch, roll) = boxes[i], sizes[i], angles[i].tolist()
        yield Record(
            sample_id=sample_id,
            image_path=images[i],
            image_width=width,
            image_height=height,
            yaw_deg=yaw,
            pitch_deg=pitch,
            roll_deg=roll,
            rotation=flat[i],
            raw_angles=raw[i],
            raw_convention=None if raw[i] is None else "biwi_bin",
            subject_id=person,
            sequence_id=recording,
            frame_index=int(number),
            bbox_xyxy=box,
            bbox_kind=None if box is None else "template_projection",
        )


def _pose(source: Source, stem: str, kinds: tuple[str, ...]) -> tuple[Any, Any, Any]:
    """Return (rotation in the depth camera frame (9,), head centre in mm (3,), angles of pose.bin or None)."""
    if "pose.txt" in kinds:
        path = f"{stem}_pose.txt"
        data = source.read(path)
        try:
            numbers = list(map(float, data.split()))
        except ValueError:
            numbers = []
        if not numbers or b"_" in data:  # Python reads 1_0 as 10
            raise Refused("bad_label", f"{path}: empty, or holds something that is not a number")
        if len(numbers) != 12:
            raise Refused("bad_label", f"{path}: {len(numbers)} numbers, expected 9 of a rotation and 3 of a centre")
        return numbers[:9], numbers[9:], None
    if "pose.bin" not in kinds:
        raise Refused("missing_label", f"{stem}_pose.txt: no such file")
    path = f"{stem}_pose.bin"
    data = source.read(path)
    if len(data) != 24:
        raise Refused("bad_label", f"{path}: {len(data)} bytes, expected 6 float32")
    *centre, pitch, yaw, roll = struct.unpack("<6f", data)
    angles = (pitch, yaw, roll)
    if not all(abs(angle) <= 180.0 for angle in angles):
        raise Refused("bad_label", f"{path}: its angles {angles} are no degrees")
    rotation = camera_to_canonical(matrix_from_angles(angles, "biwi_bin"))
    return rotation.ravel(), centre, angles


def _camera(source: Source, sequence: str, options: Options) -> tuple[Camera | None, Refused | None, Note | None]:
    """Return the colour camera, or the reason to refuse the whole recording, or a note if rgb.cal is missing."""
    path = f"{sequence}/rgb.cal"
    try:
        return _parse_calibration(source.read(path, missing="bad_calibration"), path), None, None
    except Refused as refused:
        if refused.detail.endswith("no such file") and options.frame == "depth":
            note = Note(f"no rgb.cal in recording {sequence}, so its heads have no box", is_warning=True)
            return None, None, note
        return None, refused, None


def _parse_calibration(data: bytes, path: str) -> Camera:
    try:
        numbers = np.array([float(token) for token in data.replace(b"_", b"?").split()])
    except ValueError:
        raise Refused("bad_calibration", f"{path}: holds something that is not a number") from None
    if len(numbers) != 27 or not np.isfinite(numbers).all():
        raise Refused("bad_calibration", f"{path}: {len(numbers)} numbers, expected 27 finite ones")
    camera = Camera(numbers[:9].reshape(3, 3), numbers[13:22].reshape(3, 3), numbers[22:25])
    (fx, skew, cx), (zero, fy, cy), last = camera.matrix
    pinhole = zero == 0 and tuple(last) == (0, 0, 1) and fx > 0 and max(abs(skew), abs(fx - fy)) <= 0.1 * fx
    centred = 0 < cx < numbers[25] and 0 < cy < numbers[26]  # the last two are the size of the image
    with np.errstate(all="ignore"):
        is_rotation = orthonormality_error(camera.rotation) <= _MAX_DEFECT
    if not (pinhole and centred and is_rotation):
        raise Refused("bad_calibration", f"{path}: its intrinsics or its rotation are impossible")
    return camera


def _template(source: Source, sequence: str) -> tuple[FloatArray | None, Note | None]:
    """Return the template's outermost vertices (64, 3) in head coordinates, mm."""
    path = f"{sequence}.obj"
    try:
        data = b"\n" + source.read(path)
        lines = data.split(b"\nv ")[1::_VERTEX_STEP]
        numbers = b" ".join([line.split(b"\n", 1)[0] for line in lines]).split()
        vertices = np.array(list(map(float, numbers))).reshape(-1, 3)
        is_whole = b"\nf " in data  # the faces follow the vertices: a file without faces is truncated
        if not is_whole or len(vertices) < 4 or not np.abs(vertices).max() < _MAX_VERTEX_MM:
            raise ValueError
    except (Refused, ValueError):
        return None, Note(f"no readable template {path}, so the heads of its recording have no box", is_warning=True)
    # Points spread evenly over a sphere (a Fibonacci lattice): the farthest vertex in each direction.
    steps = np.arange(_DIRECTIONS) + 0.5
    z, turn = 1 - 2 * steps / _DIRECTIONS, np.pi * (1 + np.sqrt(5)) * steps
    directions = np.stack([np.cos(turn) * np.sqrt(1 - z**2), np.sin(turn) * np.sqrt(1 - z**2), z])
    return vertices[np.unique(np.argmax(vertices @ directions, axis=0))], None


def _boxes(rotations: FloatArray, centres: FloatArray, camera: Camera, template: FloatArray) -> list[FloatArray | None]:
    """Return the box around the projected template of each pose, None where the head is not in front of the camera."""
    with np.errstate(all="ignore"):
        # K (R_ext (R X + c) + T), expanded so that each pose needs one small matrix product.
        to_pixels = camera.matrix @ camera.rotation
        shift = centres @ to_pixels.T + camera.matrix @ camera.translation
        x, y, depth = np.moveaxis((to_pixels @ rotations) @ template.T + shift[:, :, None], 1, 0)
        x, y = x / depth, y / depth
        boxes = np.stack([x.min(axis=1), y.min(axis=1), x.max(axis=1), y.max(axis=1)], axis=1)
        good = (depth.min(axis=1) > 1.0) & np.isfinite(boxes).all(axis=1)
    return [box if ok else None for box, ok in zip(boxes, good.tolist(), strict=True)]


def _check_depth(source: Source, path: str) -> None:
    """Refuse a depth file with an invalid header or, if the source is thorough, with invalid runs."""
    head = source.head(path, 8)
    width, height = struct.unpack_from("<ii", head) if len(head) >= 8 else (0, 0)
    if not (0 < width <= 4096 and 0 < height <= 4096):
        raise Refused("bad_depth", f"{path}: its head does not state an image size")
    if not source.thorough:
        return
    data = source.read(path)
    position, pixels = 8, 0
    while pixels < width * height:
        if position + 4 > len(data):
            raise Refused("bad_depth", f"{path}: ends after {pixels:,} of {width * height:,} pixels")
        (empty,) = struct.unpack_from("<i", data, position)
        full = struct.unpack_from("<i", data, position + 4)[0] if position + 8 <= len(data) else 0
        pixels += empty + full
        end = position + 8 + 2 * full
        is_cut = end > len(data) and position + 4 != len(data)  # a last run without pixels may have no second count
        if empty < 0 or full < 0 or pixels > width * height or is_cut:
            raise Refused("bad_depth", f"{path}: a run of pixels leads beyond the image or the file")
        position = end
