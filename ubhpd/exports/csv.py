"""A table of the heads, without images: where each image is, its face box, its crop by the recipe, its labels."""

from __future__ import annotations

from ubhpd.exports._crops import Card, Job, label_names, labels_of, write_table

CARD = Card("csv", "a table of images, face boxes, crops and labels, without images", "square", "none")

FILE = "heads.csv"

_FACE = ("face_x0", "face_y0", "face_x1", "face_y1")
_CROP = ("crop_x0", "crop_y0", "crop_x1", "crop_y1")


def write(job: Job) -> list[str]:
    """Write heads.csv."""
    heads = job.heads
    names = [*label_names(), "image_path", "frame_index", *_FACE, *_CROP]
    rows = (
        [
            *labels_of(heads, i),
            heads.texts["image_path"][i],
            str(int(heads.frame[i])),
            *("" if v != v else repr(v) for v in (*heads.face[i].tolist(), *heads.box[i].tolist())),
        ]
        for i in range(len(heads))
    )
    write_table(names, rows, job.out / FILE)
    job.advance(len(heads))
    return [FILE]
