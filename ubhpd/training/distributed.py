"""Training by several processes, one per device, on one machine or several: torch's DistributedDataParallel.

torchrun starts the processes and tells each by its environment which one it is. Each takes its part of every batch;
gradients are averaged, so that all have the same weights. Batch normalisation sees the part of its own process only.
The first process alone writes files, validates and speaks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import IntArray
from ubhpd.models.model import device_named
from ubhpd.nn.contract import PoseNetwork

_PATIENCE = timedelta(hours=24)  # the others wait while the first one cuts crops


@dataclass(frozen=True)
class Team:
    """The processes that train together: this one is number `rank` of `size`, and works on `device`."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def part(self, rows: IntArray) -> tuple[int, IntArray]:
        """Return this process's part of a batch, and the place of its first head in the batch."""
        own = len(rows) // self.size
        return self.rank * own, rows[self.rank * own : (self.rank + 1) * own]

    def wrapped(self, network: PoseNetwork) -> Any:
        """Return the network, its gradients averaged over the team."""
        return network if self.size == 1 else DistributedDataParallel(network)

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            distributed.barrier()

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """Return values added up over the team."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def told_by_leader(self, value: float) -> float:
        """Return the value that the first process has."""
        if self.size == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(told, 0)
        return float(told)


@contextmanager
def team(device: str) -> Iterator[Team]:
    """Give the team that torchrun has started, or a team of one.

    Raises:
        UbhpdError: there is no such device, or fewer than processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team(0, 1, device_named(device))
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if device_named(device).type == "cuda":
        if ":" in device:
            raise UbhpdError(f"Each of {size} processes takes a device of its own: write --device cuda, not {device}.")
        device = f"cuda:{local}"
        torch.cuda.set_device(device_named(device))
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=_PATIENCE)
    try:
        yield Team(rank, size, device_named(device if device.startswith("cuda") else "cpu"))
    finally:
        distributed.destroy_process_group()
