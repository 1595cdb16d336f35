"""What is found in the images of many heads, such as landmarks or face boxes, in parts.

An interrupted run resumes, and processes share the work. A part is made again if an image could not be read: a disk
that was away may be back.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing
from ubhpd.core.parallel import Engine
from ubhpd.core.progress import Progress
from ubhpd.core.typing import FloatArray, Image
from ubhpd.images.reading import Images
from ubhpd.manifest import BuildFolder

IMAGE_COLUMNS = ("sample_id", "dataset", "image_path", "frame_index", "bbox_xyxy", "bbox_kind")
Find = Callable[[Image, dict[str, Any]], npt.ArrayLike]  # image and the IMAGE_COLUMNS of its head -> numbers

_CHUNK = 256  # heads of a part


class Found(NamedTuple):
    """Numbers (n, width) of heads, NaN where there are none, and why, by row."""

    rows: FloatArray
    reasons: dict[int, str]


class Finder(Protocol):
    """What is looked for: a frozen dataclass, so that processes can be sent it.

    width: numbers of a head. mark: of everything that decides what is found. step: for the progress bar.
    """

    @property
    def width(self) -> int: ...  # noqa: D102
    @property
    def mark(self) -> str: ...  # noqa: D102
    @property
    def step(self) -> str: ...  # noqa: D102

    def opened(self) -> Find:
        """Return the function that finds, which raises UbhpdError for a head for which there is nothing."""

    def __hash__(self) -> int: ...


class _Part(NamedTuple):
    path: Path
    heads: pa.Table


class HeadParts:
    """Numbers of tables of heads: IMAGE_COLUMNS of a manifest. First `compute`, then `found` of each table."""

    def __init__(self, out: Path, name: str, finder: Finder) -> None:
        """Prepare for the build in `out`.

        Args:
            out: folder of the build, with build.json.
            name: of the folder in the build's work folder.
            finder: what is looked for.

        Raises:
            UbhpdError: no build.json.
        """
        build = BuildFolder(out)
        self._mark = f"{finder.mark} {build.record}"
        self._out, self._folder, self._finder = out, build.work / name, finder

    def compute(self, tables: Sequence[pa.Table], jobs: int, progress: Progress) -> None:
        """Find the numbers of all heads, but for the parts that an earlier run has finished."""
        missing = [part for table in tables for part in self._parts(table) if not _is_done(part.path)]
        do = partial(_write_part, out=str(self._out), finder=self._finder, session=uuid.uuid4().hex)
        engine = Engine(jobs)
        engine.check()
        with progress.bar(self._finder.step, sum(part.heads.num_rows for part in missing)) as advance:
            for done in engine.map(do, missing):
                advance(done)

    def found(self, table: pa.Table) -> Found:
        """Return the numbers of a table that was computed."""
        rows, reasons = np.full((table.num_rows, self._finder.width), np.nan), {}
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
            heads = table.slice(start, _CHUNK).select(IMAGE_COLUMNS)
            mark = hashlib.sha256(self._mark.encode())
            for column in heads.columns:
                mark.update(repr(column.to_pylist()).encode())
            yield _Part(self._folder / f"{mark.hexdigest()[:32]}.npz", heads)


def _is_done(path: Path) -> bool:
    """Return True if the part is there and every image could be read."""
    if not path.exists():
        return False
    with np.load(path, allow_pickle=False) as stored:
        return not stored["unreadable"]


def _write_part(part: _Part, out: str, finder: Finder, session: str) -> int:
    """Find the numbers of one part's heads and write them."""
    images, find = _opened(out, finder, session)
    rows, reasons, unreadable = np.full((part.heads.num_rows, finder.width), np.nan), {}, 0
    heads = part.heads.to_pylist()
    for row, (head, image) in enumerate(zip(heads, images.of_heads(heads), strict=True)):
        if isinstance(image, UbhpdError):
            reasons[row] = str(image)
            unreadable += 1
            continue
        try:
            rows[row] = find(image, head)
        except UbhpdError as error:
            reasons[row] = str(error)
    with replacing(part.path) as half, half.open("wb") as file:
        np.savez(file, rows=rows, failed=np.array(list(reasons), dtype=np.int64), unreadable=np.array(unreadable > 0),
                 reasons=np.array(list(reasons.values()), dtype=str))  # fmt: skip
    return len(rows)


@lru_cache(maxsize=2)
def _opened(out: str, finder: Finder, session: str) -> tuple[Images, Find]:
    """Return images and finder; `session` keeps a long-lived worker from seeing those of an earlier run."""
    return Images.of_build(Path(out)), finder.opened()
