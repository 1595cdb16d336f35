"""FSA-Net's .npz, one per split: image, pose and img_size, as its scripts write and its training reads them.

`image` is uint8 (n, size, size, 3) in BGR for every recipe, since FSA-Net never converts OpenCV's order.
`pose` is (n, 3): yaw, pitch, roll in degrees. `img_size` is the side. The names of the heads stand in a text file of
the same name, a line each. No pickles: numpy.load reads it with allow_pickle=False. 6DRepNet takes its BIWI from such
a file, with --recipe fsanet-0.4 --size 256.

Reference: Yang et al., CVPR 2019; shamangary/FSA-Net, data/type1/TYY_create_db_type1.py.
"""

from __future__ import annotations

import zipfile
from typing import IO, Any

import numpy as np

from ubhpd.core.files import replacing
from ubhpd.exports._crops import Canvas, Card, Job

CARD = Card(
    "fsanet",
    "FSA-Net's .npz per split: image (BGR), pose (yaw, pitch, roll in degrees), img_size",
    recipe="fsanet-0.6",
    images="array",
    colour="BGR",
)


def begin(job: Job) -> Canvas:
    """Make a file for the crops of all splits."""
    path = job.work / "pixels.raw"
    if not path.is_file():
        with replacing(path) as part, open(part, "wb") as file:
            file.truncate(len(job.heads) * (job.size or 0) ** 2 * 3)
    return Canvas(str(path), 0)


def write(job: Job) -> list[str]:
    """Write SPLIT.npz and SPLIT.txt for every split."""
    assert job.pixels is not None
    files = []
    for split, rows in job.heads.splits().items():
        with replacing(job.out / f"{split}.npz") as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            with _member(archive, "image") as file:
                _header(file, (len(rows), job.size, job.size, 3), "|u1")
                for row in rows.tolist():
                    file.write(job.pixels(row).tobytes())
                    job.advance(1)
            for name, values in (("pose", job.heads.angles[rows]), ("img_size", np.array(job.size))):
                with _member(archive, name) as file:
                    np.lib.format.write_array(file, values, allow_pickle=False)
        with replacing(job.out / f"{split}.txt") as part:
            part.write_text("".join(f"{job.heads.texts['sample_id'][i]}\n" for i in rows), encoding="utf-8")
        files += [f"{split}.npz", f"{split}.txt"]
    return files


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    # A ZipInfo has the date 1980 by default: equal content gives equal bytes.
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)


def _header(file: IO[bytes], shape: tuple[Any, ...], kind: str) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
