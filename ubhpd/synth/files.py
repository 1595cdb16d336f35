"""The files of a synthetic dataset: each there whole or not at all, pictures drawn by as many processes as wanted."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2

from ubhpd.errors import UbhpdError
from ubhpd.files import replacing

JPEG_QUALITY = 90

_BATCH = 8  # pictures a process draws before it reports


class _Drawing(NamedTuple):
    paths: tuple[Path, ...]
    draw: Callable[..., tuple[bytes, ...]]
    arguments: tuple[Any, ...]
    subject: int
    copies: list[tuple[Path, ...]]  # where the same pictures stand once more


@dataclass(frozen=True)
class Work:
    """How pictures are drawn.

    jobs: processes, -1 for all cores. keep: leave pictures that are there already. report: told how many pictures
    (or videos) are finished, and of how many.
    """

    jobs: int = 1
    keep: bool = False
    report: Callable[[int, int], None] = lambda done, total: None


class Pictures:
    """Pictures to be drawn: all of them, or only the first few and those again and again, as benchmarks want it."""

    def __init__(self, distinct: int | None = None, work: Work | None = None) -> None:
        if distinct is not None and distinct < 1:
            raise UbhpdError(f"Cannot take pictures from a pool of {distinct}: give 1 or more, or None.")
        self._distinct = distinct
        self._work = work or Work()
        self._drawings: list[_Drawing] = []
        self._count = 0

    def add(
        self, paths: tuple[Path, ...], draw: Callable[..., tuple[bytes, ...]], *arguments: Any, subject: int
    ) -> None:
        """Note that `draw`, a function of a module, gives the bytes of the files `paths` for its arguments.

        Pictures of one subject are drawn one after another, so that the person is made only once.
        """
        if self._distinct is None or self._count < self._distinct:
            self._drawings.append(_Drawing(paths, draw, arguments, subject, []))
        else:
            self._drawings[self._count % self._distinct].copies.append(paths)
        self._count += 1

    def write(self) -> None:
        """Draw and write them all; the same bytes for any number of processes."""
        work, total = self._work, len(self._drawings)
        waiting = [d for d in self._drawings if not (work.keep and all(p.is_file() for p in d.paths) and not d.copies)]
        waiting.sort(key=lambda d: d.subject)
        done = total - len(waiting)
        work.report(done, total)
        for batch in self._finished(waiting):
            done += batch
            work.report(done, total)

    def _finished(self, waiting: list[_Drawing]) -> Iterator[int]:
        if self._work.jobs == 1 or len(waiting) < 2:
            for drawing in waiting:
                yield _write_all([drawing])
            return
        from ubhpd.workers import Engine

        size = max(1, min(_BATCH, len(waiting) // 8))
        yield from Engine(self._work.jobs).map(
            _write_all, [waiting[i : i + size] for i in range(0, len(waiting), size)]
        )


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all; its folder is made if need be.

    Raises:
        UbhpdError: the disk is full.
    """
    try:
        with replacing(path) as part:
            part.write_bytes(data)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise disk_full(path) from None


def disk_full(path: Path) -> UbhpdError:
    """Return the error that says so."""
    return UbhpdError(f"There is no room left to write {path}: free some, and the same command goes on from there.")


def jpeg_bytes(image: Any, quality: int = JPEG_QUALITY) -> bytes:
    """Return a picture (height, width, 3) BGR, uint8, as a JPEG file."""
    return _encoded(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])


def png_bytes(image: Any) -> bytes:
    """Return a picture (height, width, 3 or 4) BGR or BGRA, uint8, as a PNG file."""
    return _encoded(".png", image, _PNG)


# The Paeth filter, as nearly every row of a BIWI picture has it: it decides how long decoding takes. Noise has no
# repetitions worth a search, so only runs of one byte are looked for: faster, and smaller files.
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 2, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
if hasattr(cv2, "IMWRITE_PNG_FILTER"):
    _PNG += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_PAETH]


def _encoded(suffix: str, image: Any, options: list[int]) -> bytes:
    ok, data = cv2.imencode(suffix, image, options)
    if not ok:
        raise UbhpdError(f"OpenCV cannot write {suffix} files: reinstall opencv-python-headless.")
    return bytes(data.tobytes())


def _write_all(drawings: list[_Drawing]) -> int:
    cv2.setNumThreads(1)
    for drawing in drawings:
        contents = drawing.draw(*drawing.arguments)
        for paths in (drawing.paths, *drawing.copies):
            for path, content in zip(paths, contents, strict=True):
                write_bytes(path, content)
    return len(drawings)
