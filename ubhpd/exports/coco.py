"""COCO: a JSON per split with images, boxes and the pose of every head, and the images.

    annotations/train.json           images, annotations (bbox x y w h; attributes yaw_deg, pitch_deg, roll_deg,
                                     rotation, row-major), one category, head
    images/<dataset>/<image_path>    whole images, copied byte for byte (frames of videos as PNG), each once however
                                     many heads are in it; with a crop recipe images/<sample_id>.png, one a head

`bbox` is the face box of the manifest, else of its landmarks, in the pixels of the image that is written. Pixels are
the source's own: no half pixel is added. Reference: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from ubhpd.core.files import replacing
from ubhpd.exports._crops import ANGLES, Card, Job
from ubhpd.images.crops import placed

CARD = Card("coco", "COCO JSON per split with boxes and pose attributes, and the images", "none", "files", faces=True)


def write(job: Job) -> list[str]:
    """Write annotations/SPLIT.json for every split."""
    files = []
    for split, rows in job.heads.splits().items():
        name = f"annotations/{split}.json"
        with replacing(job.out / name) as part, open(part, "w", encoding="utf-8") as file:
            json.dump(_content(job, rows.tolist(), split), file, ensure_ascii=False)
        files.append(name)
    return files


def _content(job: Job, rows: list[int], split: str) -> dict[str, Any]:
    heads = job.heads
    ids: dict[str, int] = {}
    images, annotations = [], []
    for number, row in enumerate(rows, 1):
        name = job.names[row]
        if name not in ids:
            ids[name] = len(ids) + 1
            width, height = (job.size, job.size) if job.size else heads.size[row].tolist()
            images.append({"id": ids[name], "file_name": name, "width": width, "height": height})
        corners = heads.face[row].reshape(2, 2)
        if job.size:
            corners = placed(corners, heads.box[row].tolist(), job.recipe, job.size)
        (x, y), (right, bottom) = np.round(corners, 3).tolist()
        pose = dict(zip(ANGLES, heads.angles[row].tolist(), strict=True))
        annotations.append(
            {
                "id": number,
                "image_id": ids[name],
                "category_id": 1,
                "bbox": [x, y, round(right - x, 3), round(bottom - y, 3)],
                "area": round((right - x) * (bottom - y), 3),
                "iscrowd": 0,
                "sample_id": heads.texts["sample_id"][row],
                "attributes": {**pose, "rotation": heads.rotation[row].ravel().tolist()},
            }
        )
        job.advance(1)
    return {
        "info": {
            "description": f"{split} of a dataset by ubhpd; crop recipe {job.recipe.name}",
            "version": job.fingerprint,
            "angles": "canonical yaw, pitch, roll in degrees: R = Rx(-pitch) Ry(-yaw) Rz(-roll)",
        },
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "head", "supercategory": "person"}],
    }
