"""Where work runs: in this process, in processes of this machine, or on a Dask or Ray cluster, all through joblib."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from ubhpd.core.errors import UbhpdError

_T = TypeVar("_T")
_R = TypeVar("_R")

CONNECT_SECONDS = 20
BACKENDS = ("loky", "multiprocessing", "threading", "dask", "ray")


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

    def map(self, do: Callable[[_T], _R], tasks: Sequence[_T]) -> Iterator[_R]:
        """Run a function over tasks in any order and yield what it returns, each as it is done.

        Raises:
            UbhpdError: from a task, or because the cluster cannot be reached.
        """
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
