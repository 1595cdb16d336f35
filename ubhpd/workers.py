"""Where units run: in this process, in processes of this machine, or on a Dask or Ray cluster, all through joblib."""

from __future__ import annotations

import gc
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from ubhpd import registry
from ubhpd.errors import UbhpdError
from ubhpd.pool import parts
from ubhpd.raw.source import Source
from ubhpd.raw.trees import TreeSpec, open_tree
from ubhpd.records import Unit

_T = TypeVar("_T")
_R = TypeVar("_R")

CONNECT_SECONDS = 20
BACKENDS = ("loky", "multiprocessing", "threading", "dask", "ray")


class Task(NamedTuple):
    """A unit to read and the part file to write."""

    dataset: str
    spec: TreeSpec
    unit: Unit
    options: Any
    thorough: bool
    part: str
    digest: str


@dataclass(frozen=True)
class Engine:
    """How tasks are run.

    jobs: processes; 1 runs in this one. backend: a name of BACKENDS. scheduler: address of a Dask scheduler.
    """

    jobs: int = 1
    backend: str = "loky"
    scheduler: str | None = None

    def check(self) -> None:
        """Raise UbhpdError if these settings cannot be meant."""
        if self.backend not in BACKENDS:
            raise UbhpdError(f"--backend {self.backend!r} is not one of {', '.join(BACKENDS)}.")
        if self.jobs < 1 and self.jobs != -1:
            raise UbhpdError(f"--jobs is {self.jobs}: give the number of processes, or -1 for all cores.")
        if self.scheduler and self.backend != "dask":
            raise UbhpdError("--scheduler is the address of a Dask cluster: add --backend dask.")

    def run(self, tasks: list[Task]) -> Iterator[int]:
        """Run the tasks in any order and yield the size of each unit as it is done.

        Raises:
            UbhpdError: from a task, or because the cluster cannot be reached.
        """
        yield from self.map(partial(_run, session=uuid.uuid4().hex), tasks)

    def map(self, do: Callable[[_T], _R], tasks: Sequence[_T]) -> Iterator[_R]:
        """Run a function over tasks in any order and yield what it returns, each as it is done; errors as `run`."""
        if self.backend in ("loky", "multiprocessing", "threading") and (self.jobs == 1 or len(tasks) < 2):
            yield from (do(task) for task in tasks)
            return
        from joblib import Parallel, delayed, parallel_config

        with self._cluster(), parallel_config(backend=self.backend, n_jobs=self.jobs):
            try:
                parallel = Parallel(return_as="generator_unordered", batch_size=1)
            except ValueError:  # a backend that only tells when all is done, as Ray's
                parallel = Parallel(batch_size=1)
            yield from parallel(delayed(do)(task) for task in tasks)

    def _cluster(self) -> AbstractContextManager[Any]:
        if self.backend == "dask":
            try:
                from dask.distributed import Client
            except ImportError:
                raise UbhpdError("--backend dask needs Dask: pip install 'ubhpd[dask]'.") from None
            try:
                client = Client(self.scheduler, timeout=CONNECT_SECONDS)  # type: ignore[no-untyped-call]
                return cast(AbstractContextManager[Any], client)
            except (OSError, ValueError) as error:
                raise UbhpdError(f"No Dask scheduler answers at {self.scheduler} ({error}): check it.") from None
        if self.backend == "ray":
            try:
                from ray.util.joblib import register_ray
            except ImportError:
                raise UbhpdError("--backend ray needs Ray: pip install 'ray[default]'.") from None
            register_ray()
        return nullcontext()


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


def _run(task: Task, session: str) -> int:
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
