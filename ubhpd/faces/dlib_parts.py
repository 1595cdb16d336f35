"""dlib's landmarks of many heads, in parts on disk: an interrupted run goes on, and processes share the work."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ubhpd.errors import UbhpdError
from ubhpd.faces import dlib68
from ubhpd.faces.detectors import detector
from ubhpd.faces.face import Array, Detector, Picture, overlap
from ubhpd.files import replacing
from ubhpd.progress import Progress
from ubhpd.raw.images import Images
from ubhpd.records import OF_SOURCE_PHOTO
from ubhpd.workers import Engine

PICTURE_COLUMNS = ("sample_id", "dataset", "image_path", "frame_index", "bbox_xyxy", "bbox_kind")
OWN_BOX = "none"  # instead of a detector's
VERSION = 1  # of the method: another one does not use the parts of the last

_CHUNK = 256  # heads of a part
_SAME_FACE = 0.3  # overlap above which a detected box is that of the head
_LENGTH = 136


class Found(NamedTuple):
    """Landmarks (n, 136) of heads, NaN where there are none, and why, by row."""

    rows: Array
    reasons: dict[int, str]


class _Part(NamedTuple):
    path: Path
    heads: pa.Table


class DlibParts:
    """The landmarks of tables of heads: PICTURE_COLUMNS of a manifest. First `compute`, then `found` of each table."""

    def __init__(self, out: Path, detector_name: str) -> None:
        """Prepare for the build in `out`.

        Args:
            out: folder of the build, with build.json.
            detector_name: whose boxes to use; OWN_BOX takes those of the heads.

        Raises:
            UbhpdError: no build.json, or dlib, its model or the detector is not here.
        """
        Images.of_build(out)  # says what is wrong with build.json
        self._out, self._folder = out, out / "work" / "landmarks"
        self.detector_name = OWN_BOX if detector_name == OWN_BOX else detector(detector_name).name
        model = dlib68.model_path()
        dlib68.predictor(str(model))
        made_by = (VERSION, str(model.resolve()), model.stat().st_size, self.detector_name)
        self._mark = f"{made_by} {(out / 'build.json').read_text(encoding='utf-8')}"

    def compute(self, tables: Sequence[pa.Table], jobs: int, progress: Progress) -> None:
        """Find the landmarks of all heads, but for the parts that an earlier run has finished."""
        missing = [part for table in tables for part in self._parts(table) if not _is_done(part.path)]
        do = partial(_write_part, out=str(self._out), detector_name=self.detector_name, session=uuid.uuid4().hex)
        engine = Engine(jobs)
        engine.check()
        with progress.bar("finding landmarks", sum(part.heads.num_rows for part in missing)) as advance:
            for done in engine.map(do, missing):
                advance(done)

    def found(self, table: pa.Table) -> Found:
        """Return the landmarks of a table that was computed."""
        rows, reasons = np.full((table.num_rows, _LENGTH), np.nan), {}
        start = 0
        for part in self._parts(table):
            with np.load(part.path, allow_pickle=False) as stored:
                rows[start : start + part.heads.num_rows] = stored["rows"]
                failed = zip(stored["failed"].tolist(), stored["reasons"].tolist(), strict=True)
                reasons.update({start + row: why for row, why in failed})
            start += part.heads.num_rows
        return Found(rows, reasons)

    def remove(self, tables: Sequence[pa.Table]) -> None:
        """Remove the parts, when what they hold is written elsewhere."""
        for table in tables:
            for part in self._parts(table):
                part.path.unlink(missing_ok=True)

    def _parts(self, table: pa.Table) -> Iterator[_Part]:
        for start in range(0, table.num_rows, _CHUNK):
            heads = table.slice(start, _CHUNK).select(PICTURE_COLUMNS)
            mark = hashlib.sha256(self._mark.encode())
            for column in heads.columns:
                mark.update(repr(column.to_pylist()).encode())
            yield _Part(self._folder / f"{mark.hexdigest()[:32]}.npz", heads)


def _is_done(path: Path) -> bool:
    """Return True if the part is there and every picture could be read: a disk that was away may be back."""
    if not path.exists():
        return False
    with np.load(path, allow_pickle=False) as stored:
        return not stored["unreadable"]


def _write_part(part: _Part, out: str, detector_name: str, session: str) -> int:
    """Find the landmarks of one part's heads and write them."""
    images, finder = _opened(out, detector_name, session)
    rows, reasons, unreadable = np.full((part.heads.num_rows, _LENGTH), np.nan), {}, 0
    heads = part.heads.to_pylist()
    for row, (head, picture) in enumerate(zip(heads, images.of_heads(heads), strict=True)):
        if isinstance(picture, UbhpdError):
            reasons[row] = str(picture)
            unreadable += 1
            continue
        try:
            rows[row] = dlib68.landmarks68(picture, _face_box(picture, head, finder)).ravel()
        except UbhpdError as error:
            reasons[row] = str(error)
    with replacing(part.path) as half, half.open("wb") as file:
        np.savez(file, rows=rows, failed=np.array(list(reasons), dtype=np.int64), unreadable=np.array(unreadable > 0),
                 reasons=np.array(list(reasons.values()), dtype=str))  # fmt: skip
    return len(rows)


def _face_box(picture: Picture, head: dict[str, Any], finder: Detector | None) -> Sequence[float]:
    """Return where the face of a head is, by its own box or by the detector's that lies on it.

    Raises:
        UbhpdError: there is no such box.
    """
    own: list[float] | None = head["bbox_xyxy"]
    if own is None:
        raise UbhpdError(f"{head['sample_id']} has no face box: leave it without landmarks.")
    if finder is None:
        if (head["bbox_kind"] or "").endswith(OF_SOURCE_PHOTO):
            raise UbhpdError(f"The box of {head['sample_id']} is that of another picture: use --detector.")
        return own
    faces = finder.boxes(picture)
    shares = overlap(own, [face.bbox_xyxy for face in faces])
    if not len(shares) or shares.max() < _SAME_FACE:
        raise UbhpdError(f"The detector {finder.name} finds no face in the box of {head['sample_id']}.")
    return faces[int(shares.argmax())].bbox_xyxy


@lru_cache(maxsize=2)
def _opened(out: str, detector_name: str, session: str) -> tuple[Images, Detector | None]:
    """Return pictures and detector; `session` keeps a long-lived worker from seeing those of an earlier run."""
    return Images.of_build(Path(out)), None if detector_name == OWN_BOX else detector(detector_name)
