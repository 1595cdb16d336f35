"""SynHead: ten rendered heads that replay 70 recorded tracks of head motion.

Layout: four folders of tracks, each with NN.csv (one row per frame, no header: pitch, yaw, roll in degrees)
and a folder of numbered PNG images per head model, <model>/NN/*.png. All heads share a track's csv.

Handled: images sorted by number, not as text; both spellings softkinetic and softkinect. If a csv and its folder of
images differ in length, rows and images cannot be paired, and the whole track is refused. A note reports gaps in the
image numbers (rows are then paired in order) and a csv whose last line has no line end, so that it may be truncated.

Assumed from a single source: the column order, and the sign of yaw, which is opposite to that of 300W-LP. If BIWI is
in the same build, the tracks in the folder BIWI, which replay it, are compared with BIWI's own angles, and a note says
which order and signs fit. The options columns and signs change the assumption, for example
columns=yaw,pitch,roll signs=+++ (signs of pitch, yaw, roll against the canonical ones).
There are no boxes and no landmarks; a head fills its 400x400 image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import permutations, product
from typing import Any

import numpy as np

from ubhpd.core.records import Drop, Note, Record, Unit
from ubhpd.core.rotation import Convention, canonical_from_angles
from ubhpd.core.typing import FloatArray
from ubhpd.raw.label_files import number_rows
from ubhpd.raw.source import Refused, Source

NAME = "synhead"
TITLE = "NVIDIA Synthetic Head (SynHead)"
POSE = "rendered"
HOMEPAGE = (
    "https://research.nvidia.com/publication/dynamic-facial-analysis-bayesian-filtering-recurrent-neural-networks"
)
LICENSE = "none found: check the terms at the homepage"
CITATION = (
    "J. Gu, X. Yang, S. De Mello, J. Kautz: Dynamic Facial Analysis: From Bayesian Filtering to Recurrent Neural "
    "Network. CVPR 2017."
)
ACCESS = "Request synhead2_release from the authors through the homepage."
LAYOUT = """\
synhead2_release/
  BIWI/  breitenstein/  kinect/  softkinetic/
    00.csv
    f01/00/0.png  f01/00/1.png  ...
"""
TRACKS = {"BIWI": 24, "breitenstein": 26, "kinect": 5, "softkinetic": 15}
# 10 heads times 51,096 rows; the BIWI tracks replay its 15,678 frames.
PUBLISHED: dict[str, int] = {"synhead/": 510_960, "synhead/BIWI/": 156_780}
OUT_OF_RANGE: frozenset[str] = frozenset()

_FOLDER = re.compile(r"BIWI|breitenstein|kinect|softkin(?:etic|ect)")
_CSV = re.compile(r"(\d{2,})\.csv", re.IGNORECASE)
_HEAD = re.compile(r"[fm]\d{2}")
_IMAGE = re.compile(r"(?!\.)\D*(\d+)\.(?i:png)")  # not ._0.png, which macOS writes beside 0.png
_MAX_ANGLE_DEG = 360.0  # a number beyond this limit is damage
_MIN_AGREEMENT = 0.9  # correlation of an angle of a track with that of the recording it replays
_ANGLES = ("pitch", "yaw", "roll")

Poses = Mapping[str, FloatArray]


@dataclass(frozen=True)
class Options:
    """columns: the column order of the csv; signs: those of pitch, yaw, roll relative to the canonical angles."""

    columns: str = field(
        default="pitch,yaw,roll", metadata={"choices": tuple(",".join(p) for p in permutations(_ANGLES))}
    )
    signs: str = field(default="+-+", metadata={"choices": tuple("".join(s) for s in product("+-", repeat=3))})

    @property
    def convention(self) -> Convention:
        """Return the convention these options describe."""
        pitch, yaw, roll = (-1 if s == "+" else 1 for s in self.signs)
        columns: Any = tuple(self.columns.split(","))
        name = (
            "synhead"
            if (self.columns, self.signs) == ("pitch,yaw,roll", "+-+")
            else f"synhead[{self.columns} {self.signs}]"
        )
        return Convention(
            name=name, columns=columns, unit="deg", axes="XYZ", sign_pitch=pitch, sign_yaw=yaw, sign_roll=roll
        )


def recognise(source: Source, path: str) -> bool:
    """Return True if the folder holds a folder of tracks with csv files."""
    return source.has_folder_with(path, _FOLDER, _CSV)


def units(source: Source, options: Options) -> list[Unit]:
    """Return one unit per track and head."""
    tracks_of_heads = []
    for folder in source.listdir(""):
        if not (folder.is_dir and _FOLDER.fullmatch(folder.name)):
            continue
        entries = source.listdir(folder.name)
        tracks = {m[1] for e in entries if (m := _CSV.fullmatch(e.name))}
        for head in entries:
            if not (head.is_dir and _HEAD.fullmatch(head.name)):
                continue
            with_images = {e.name for e in source.listdir(f"{folder.name}/{head.name}") if e.is_dir}
            for track in sorted(tracks | {t for t in with_images if t.isdigit()}):
                images = _images(source, f"{folder.name}/{head.name}/{track}")
                paths = tuple(path for _, path in images)
                table = source.actual(f"{folder.name}/{track}.csv")
                items = (folder.name, track, head.name)
                tracks_of_heads.append(Unit(f"{folder.name}/{track}/{head.name}", items, len(images), (table, *paths)))
    return tracks_of_heads


def read(source: Source, unit: Unit, options: Options) -> Iterator[Record | Drop | Note]:
    """Yield the frames of a track as one head replays it."""
    folder, track, head = unit.items
    sequence = f"synhead/{unit.key}"
    table, images = f"{folder}/{track}.csv", _images(source, f"{folder}/{head}/{track}")
    try:
        rows, is_cut = number_rows(source.read(table), table, [_MAX_ANGLE_DEG] * 3, b",", allows_more=True)
        if len(rows) != len(images):
            detail = f"{table}: {len(rows)} rows, but {folder}/{head}/{track} has {len(images)} images"
            raise Refused("frame_count_mismatch", detail)
    except Refused as refused:
        for sample_id, (number, path) in zip(_sample_ids(sequence, images), images, strict=True):
            yield Drop(sample_id, refused.reason, refused.detail, path, sequence, number)
        if not images:
            yield Drop(sequence, refused.reason, refused.detail, None, sequence)
        return
    if is_cut:
        yield Note(f"{table}: its last line has no line end, so it may be cut", is_warning=True)
    if images and images[-1][0] - images[0][0] != len(images) - 1:
        where = f"{folder}/{head}/{track}"
        yield Note(f"{where}: the numbers of its images have gaps; paired with the rows in order", is_warning=True)
    labels = np.array([row if isinstance(row, list) else [np.nan] * 3 for row in rows]).reshape(-1, 3)
    convention = options.convention
    angles, rotations = canonical_from_angles(labels, convention)
    for i, (sample_id, (number, path)) in enumerate(zip(_sample_ids(sequence, images), images, strict=True)):
        row = rows[i]
        try:
            if isinstance(row, str):
                raise Refused("bad_label", row)
            size = source.image_size(path)
        except Refused as refused:
            yield Drop(sample_id, refused.reason, refused.detail, path, sequence, number)
            continue
        yaw, pitch, roll = angles[i].tolist()
        yield Record(
            sample_id=sample_id,
            image_path=path,
            image_width=size.width,
            image_height=size.height,
            yaw_deg=yaw,
            pitch_deg=pitch,
            roll_deg=roll,
            rotation=rotations[i].ravel(),
            raw_angles=labels[i],
            raw_convention=convention.name,
            subject_id=f"synhead/{head}",
            sequence_id=sequence,
            frame_index=number,
            synthetic=True,
        )


def check(poses: Callable[[str], Poses]) -> Iterator[Note]:
    """Compare the tracks that replay BIWI with BIWI's own angles.

    Args:
        poses: gives, for a dataset, the canonical yaw, pitch, roll (frames, 3) of each sequence in frame order.
    """
    biwi, own = poses("biwi"), poses("synhead")
    pairs = []
    for sequence, track in own.items():
        _, folder, number, _ = sequence.split("/")
        recording = biwi.get(f"biwi/{int(number) + 1:02d}")
        if folder == "BIWI" and recording is not None and len(recording) == len(track) > 2:
            pairs.append((track, recording))
    if not pairs:
        yield Note("column order and signs are assumed: no BIWI track could be compared with BIWI itself in this build")
        return
    tracks, recordings = (np.concatenate(poses) for poses in zip(*pairs, strict=True))
    agreement = _correlation(tracks, recordings)
    if agreement.diagonal().min() >= _MIN_AGREEMENT:
        yield Note(f"column order and signs agree with BIWI on {len(pairs)} tracks")
        return
    names = ("yaw", "pitch", "roll")
    best_matches = [
        f"{name} with BIWI's {'-' if agreement[i, (j := int(np.abs(agreement[i]).argmax()))] < 0 else ''}{names[j]}"
        for i, name in enumerate(names)
    ]
    yield Note(
        f"column order or signs disagree with BIWI on {len(pairs)} tracks ({', '.join(best_matches)} correlates best): "
        "set -O synhead.columns and -O synhead.signs",
        is_warning=True,
    )


def _correlation(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the 3x3 correlations between the columns of (n, 3) and (n, 3); 0 for a constant column."""
    a, b = first - first.mean(axis=0), second - second.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation: FloatArray = (a.T @ b) / np.outer(np.linalg.norm(a, axis=0), np.linalg.norm(b, axis=0))
    return np.nan_to_num(correlation, copy=False)


def _images(source: Source, folder: str) -> list[tuple[int, str]]:
    """Return the number and the path of the images of a folder in the order of their numbers."""
    matches = ((_IMAGE.fullmatch(e.name), e.name) for e in source.listdir(folder))
    return sorted((int(m[1]), f"{folder}/{name}") for m, name in matches if m)


def _sample_ids(sequence: str, images: list[tuple[int, str]]) -> Iterator[str]:
    """Yield the sample ids of the heads; where both 1.png and 01.png exist, the id of the second ends in #2."""
    seen: dict[int, int] = {}
    for number, _ in images:
        seen[number] = seen.get(number, 0) + 1
        yield f"{sequence}/{number:06d}" + (f"#{seen[number]}" if seen[number] > 1 else "")
