"""What sources of heads give to a model: batches in order, and the heads that could not be read, each with why."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ubhpd.crops import Picture
from ubhpd.solving import Heads

BATCH_HEADS = 64

Item = TypeVar("Item")
Result = TypeVar("Result")


class Drawable(NamedTuple):
    """Where a head is in its picture, for drawing: the picture (height, width, 3) BGR, and its box in pixels."""

    picture: Picture
    box_xyxy: tuple[float, float, float, float]


class Batch(NamedTuple):
    """Some heads, in order.

    sample_id: of those that can be judged. inputs: uint8 crops (n, size, size, 3) or sequences of them (n, frames,
    size, size, 3), landmarks (n, 68, 2) from -0.5 to 0.5 in the crop, or `Heads` for a solver. extra: values of the
    source's `extra_columns`, one tuple per head. problems: (sample_id, reason) of heads that cannot. drawables: the
    pictures, if asked for.
    """

    sample_id: list[str]
    inputs: npt.NDArray[Any] | Heads
    extra: list[tuple[Any, ...]]
    problems: list[tuple[str, str]]
    drawables: list[Drawable]


class HeadSource(Protocol):
    """Where heads come from: a manifest, a folder, a video, a camera.

    extra_columns: written to the prediction file beside the pose. identity: what a file begun must have been made
    from for it to be gone on with.
    """

    extra_columns: tuple[str, ...]
    identity: dict[str, Any]

    def total(self) -> int:
        """Return the number of heads or pictures to come, 0 if that is not known."""

    def batches(self, done: Collection[str], draws: bool) -> Iterator[Batch]:
        """Yield all heads but those done; `draws`: with their pictures."""


def in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield work(item) in the order of the items, computed by `threads` threads that run a little ahead."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def stacked(crops: list[Picture], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return crops of `shape` as one array (n, *shape), also of none at all."""
    return np.stack(crops) if crops else np.empty((0, *shape), dtype=np.uint8)
