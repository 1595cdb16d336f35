"""HDF5 of face crops: one file, a row per head, for training.

`image` is uint8 (n, size, size, 3), contiguous and not compressed: a row is one read at a known place, in any order,
and several times faster than from loose files. Beside it `yaw_deg`, `pitch_deg`, `roll_deg`, `rotation` (n, 3, 3),
`box_xyxy` (n, 4; the crop in pixels of its image) and the texts `sample_id`, `dataset`, `subject_id`, `split`.
Attributes name the recipe, the order of the channels and the manifest.

    with h5py.File("crops.h5") as file:
        face, yaw = file["image"][17], file["yaw_deg"][17]
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ubhpd import __version__
from ubhpd.core.files import replacing
from ubhpd.exports._crops import ANGLES, Canvas, Card, Job

CARD = Card("h5", "one HDF5 file of crops and labels, read row by row in training", "square", "array", in_place=True)

FILE = "crops.h5"

_TEXTS = ("sample_id", "dataset", "subject_id", "split")


def begin(job: Job) -> Canvas:
    """Make the file with all labels and room for the crops."""
    path = job.work / FILE
    if not path.is_file():
        with replacing(path) as part:
            _create(part, job)
    with h5py.File(path, "r") as file:
        return Canvas(str(path), file["image"].id.get_offset())


def write(job: Job) -> list[str]:
    """Put crops.h5 in its place."""
    if job.is_whole:
        (job.work / FILE).replace(job.out / FILE)
        job.advance(len(job.heads))
        return [FILE]
    assert job.pixels is not None
    with replacing(job.out / FILE) as part:
        _create(part, job)
        with h5py.File(part, "r+", libver="latest") as file:
            for row in range(len(job.heads)):
                file["image"][row] = job.pixels(row)
                job.advance(1)
    return [FILE]


def _create(path: Path, job: Job) -> None:
    heads = job.heads
    labels: dict[str, Any] = {n: heads.angles[:, i] for i, n in enumerate(ANGLES)}
    labels |= {"rotation": heads.rotation, "box_xyxy": heads.box}
    attributes = {
        "ubhpd": __version__, "format": CARD.name, "recipe": job.recipe.name, "size": job.size, "colour": job.colour,
        "recipe_json": json.dumps(asdict(job.recipe)), "fingerprint": job.fingerprint,
        "angles": "canonical yaw, pitch, roll in degrees: R = Rx(-pitch) Ry(-yaw) Rz(-roll)",
    }  # fmt: skip
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs.update(attributes)
        for name, values in labels.items():
            file.create_dataset(name, data=values, track_times=False)
        for name in _TEXTS:
            encoded = np.array([t.encode() for t in heads.texts[name]])
            kind = h5py.string_dtype("utf-8", max(encoded.dtype.itemsize, 1))
            file.create_dataset(name, data=encoded.astype(kind), track_times=False)
        # Room at a known place, not filled: the workers write there, past HDF5, without waiting for each other.
        options = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        options.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        options.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        options.set_obj_track_times(False)
        space = h5py.h5s.create_simple((len(heads), job.size, job.size, 3))
        h5py.h5d.create(file.id, b"image", h5py.h5t.STD_U8LE, space, options)
