"""Postcards: an invented dataset whose file names hold the pose.

Layout: a folder postcards with images such as anna_+12.5_-03.0_+00.5.png: person, yaw, pitch and roll in degrees, as
300W-LP has them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ubhpd.core.records import Drop, Note, Record, Unit
from ubhpd.core.rotation import canonical_from_angles
from ubhpd.raw.source import Refused, Source

NAME = "postcards"
TITLE = "Postcards"
HOMEPAGE = "https://example.org/postcards"
LICENSE = "MIT"
CITATION = "none: a sample"
ACCESS = "It does not exist: write_sample writes it."
LAYOUT = """\
postcards/
  anna_+12.5_-03.0_+00.5.png
"""
PUBLISHED: dict[str, int] = {"postcards/": 5}
OUT_OF_RANGE: frozenset[str] = frozenset()

_NAME = re.compile(r"([a-z]+)_([+-][\d.]+)_([+-][\d.]+)_([+-][\d.]+)\.png")


@dataclass(frozen=True)
class Options:
    """No modes."""


def recognise(source: Source, path: str) -> bool:
    """Return True if the folder has an image with a pose in its name."""
    return any(_NAME.fullmatch(entry.name) for entry in source.listdir(path))


def units(source: Source, options: Options) -> list[Unit]:
    """Return one unit with all images."""
    names = tuple(sorted(entry.name for entry in source.listdir("") if _NAME.fullmatch(entry.name)))
    return [Unit("all", names, len(names), names)] if names else []


def read(source: Source, unit: Unit, options: Options) -> Iterator[Record | Drop | Note]:
    """Yield a head for each image."""
    for name in unit.items:
        match = _NAME.fullmatch(name)
        assert match is not None
        sample_id = f"postcards/{name.removesuffix('.png')}"
        try:
            image, (width, height) = source.find_image(name)
        except Refused as refused:
            yield Drop(sample_id, refused.reason, refused.detail, name)
            continue
        angles = [float(text) for text in match.groups()[1:]]
        (yaw, pitch, roll), rotation = canonical_from_angles(angles, "canonical")
        yield Record(
            sample_id, image, width, height, float(yaw), float(pitch), float(roll), rotation.ravel(), raw_angles=angles,
            raw_convention="canonical", subject_id=f"postcards/{match[1]}",
            bbox_xyxy=(0.0, 0.0, float(width), float(height)), bbox_kind="whole_image",
        )  # fmt: skip


def write_sample(folder: Path) -> dict[str, tuple[float, float, float]]:
    """Write five images, and return the pose of each head, for the contract tests."""
    import cv2
    import numpy as np

    truth = {}
    for number in range(5):
        pose = (12.5 * number - 25.0, -3.0 * number, 0.5 * number)
        stem = "_".join(["anna", *(f"{angle:+05.1f}" for angle in pose)])
        cv2.imwrite(str(folder / f"{stem}.png"), np.full((40, 40, 3), 40 * number, np.uint8))
        truth[f"postcards/{stem}"] = pose
    return truth
