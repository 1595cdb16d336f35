"""Where work runs: in this process, in processes of this machine, or on a Dask or Ray cluster, all through joblib."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeVar, cast

from ubhpd.core.errors import UbhpdError

_T = TypeVar("_T")
_R = TypeVar("_R")

CONNECT_SECONDS = 20
_WATCH_SECONDS = 1.0  # between two looks of a worker whether its parent lives
BACKENDS = ("loky", "multiprocessing", "threading", "dask", "ray")


@dataclass(frozen=True)
class Engine:
    """How tasks are run.

    jobs: processes; 1 runs in this one. backend: a name of BACKENDS; "multiprocessing" runs as "loky", since a pool of
    the standard library waits forever for a worker that was killed. scheduler: address of a Dask scheduler.
    """

    jobs: int = 1
    backend: str = "loky"
    scheduler: str | None = None

    def check(self) -> None:
        """Raise UbhpdError if the settings contradict each other or are out of range."""
        if self.backend not in BACKENDS:
            raise UbhpdError(f"--backend {self.backend!r} is not one of {', '.join(BACKENDS)}.")
        if self.jobs < 1 and self.jobs != -1:
            raise UbhpdError(f"--jobs is {self.jobs}: give the number of processes, or -1 for all cores.")
        if self.scheduler and self.backend != "dask":
            raise UbhpdError("--scheduler is the address of a Dask cluster: add --backend dask.")

    def map(self, do: Callable[[_T], _R], tasks: Sequence[_T]) -> Iterator[_R]:
        """Run a function over tasks in any order and yield what it returns, each as it is done.

        Raises:
            UbhpdError: from a task, or because the cluster cannot be reached.
        """
        if self.backend in ("loky", "multiprocessing", "threading") and (self.jobs == 1 or len(tasks) < 2):
            yield from (do(task) for task in tasks)
            return
        from joblib import Parallel, delayed, parallel_config

        backend = "loky" if self.backend == "multiprocessing" else self.backend
        call = partial(_call_below, os.getpid(), do) if backend == "loky" else do
        with self._cluster(), parallel_config(backend=backend, n_jobs=self.jobs), _told_of_killed_workers():
            try:
                parallel = Parallel(return_as="generator_unordered", batch_size=1)
            except ValueError:  # a backend that returns results only when all are there, as Ray's
                parallel = Parallel(batch_size=1)
            yield from parallel(delayed(call)(task) for task in tasks)

    def _cluster(self) -> AbstractContextManager[Any]:
        if self.backend == "dask":
            try:
                from dask.distributed import Client
            except ImportError:
                raise UbhpdError("--backend dask needs Dask: pip install 'ubhpd[dask]'.") from None
            try:
                if self.scheduler:
                    client = Client(self.scheduler, timeout=CONNECT_SECONDS)  # type: ignore[no-untyped-call]
                else:  # a cluster of this machine alone: nothing listens to other machines, and there is no dashboard
                    client = Client(  # type: ignore[no-untyped-call]
                        host="127.0.0.1",
                        dashboard_address=None,
                        worker_dashboard_address=None,
                        n_workers=None if self.jobs == -1 else self.jobs,
                        timeout=CONNECT_SECONDS,
                    )
                return cast(AbstractContextManager[Any], client)
            except (OSError, ValueError) as error:
                raise UbhpdError(
                    f"No Dask scheduler answers at {self.scheduler} ({error}): check the address."
                ) from None
        if self.backend == "ray":
            try:
                from ray.util.joblib import register_ray
            except ImportError:
                raise UbhpdError("--backend ray needs Ray: pip install 'ray[default]'.") from None
            register_ray()
        return nullcontext()


@contextmanager
def _told_of_killed_workers() -> Iterator[None]:
    """Turn the death of a worker into one sentence; on any other end, as by Ctrl-C, the workers end too."""
    from joblib.externals.loky.process_executor import BrokenProcessPool

    try:
        yield
    except BrokenProcessPool:
        raise UbhpdError(
            "A worker process was killed, as the system does when memory runs out: what is finished is kept; run the "
            "same command again with fewer --jobs."
        ) from None
    except (KeyboardInterrupt, GeneratorExit):
        from joblib.externals.loky import reusable_executor

        if (executor := reusable_executor._executor) is not None:
            executor.shutdown(wait=False, kill_workers=True)
        raise


def _call_below(parent: int, do: Callable[[_T], _R], task: _T) -> _R:
    """Run a task in a worker that ends when its parent does, however that ended."""
    _watch_parent(parent)
    return do(task)


@lru_cache(maxsize=1)
def _watch_parent(parent: int) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    if os.getppid() == parent:
        threading.Thread(target=watch, daemon=True).start()
