"""The tasks of a build: one unit of a dataset to read, one part file to write."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ubhpd import registry
from ubhpd.errors import UbhpdError
from ubhpd.pool import parts
from ubhpd.raw.source import Source
from ubhpd.raw.trees import TreeSpec, open_tree
from ubhpd.records import Unit


class Task(NamedTuple):
    """A unit to read and the part file to write."""

    dataset: str
    spec: TreeSpec
    unit: Unit
    options: Any
    thorough: bool
    part: str
    digest: str


@contextmanager
def without_cycle_search() -> Iterator[None]:
    """Make thousands of small objects, none of them in a cycle: looking for cycles would cost a tenth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def sweep(work: Path, parts_in_use: set[str], datasets: set[str]) -> None:
    """Remove the parts of `datasets` that no task names any more, and what a killed build left half-written."""
    for folder in (work / "parts").iterdir():
        for path in folder.iterdir():
            stale = folder.name in datasets and str(path) not in parts_in_use
            if stale or path.name.endswith(".part"):
                path.unlink(missing_ok=True)


def run_task(task: Task, session: str) -> int:
    """Read a unit and write its part."""
    builder = registry.builders()[task.dataset]
    started_at = time.time()
    try:
        with without_cycle_search():
            source = _source(task.spec, task.thorough, session)
            table, notes = parts.collect(task.dataset, builder.read(source, task.unit, task.options))
    except UbhpdError:
        raise
    except Exception as error:
        # A builder turns bad data into drops; what it did not foresee must still name the place.
        raise UbhpdError(
            f"The {task.dataset} reader failed on {task.unit.key} ({type(error).__name__}: {error}): "
            "please report this with the file that causes it."
        ) from error
    parts.write_part(Path(task.part), table, notes, task.digest, started_at)
    return task.unit.size


@lru_cache(maxsize=4)
def _source(spec: TreeSpec, thorough: bool, session: str) -> Source:
    """Return the opened source; `session` keeps a long-lived worker from seeing the listings of an earlier build."""
    return Source(open_tree(spec), thorough)
