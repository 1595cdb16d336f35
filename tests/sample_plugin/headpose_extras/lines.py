"""Lines of text: `heads.txt` with a path and three angles per head, and crops as PNG files. A sample of a plug-in."""

from __future__ import annotations

from ubhpd.core.files import replacing
from ubhpd.exports._crops import Card, Job

CARD = Card("lines", "`heads.txt`, a path and three angles per line, and crops as PNG files", "square", "files")


def write(job: Job) -> list[str]:
    """Write heads.txt; the image files are written already."""
    with replacing(job.out / "heads.txt") as part, part.open("w", encoding="utf-8") as file:
        for name, angles in zip(job.names, job.heads.angles.tolist(), strict=True):
            file.write(" ".join([name, *(f"{angle:.4f}" for angle in angles)]) + "\n")
            job.advance(1)
    return ["heads.txt"]
