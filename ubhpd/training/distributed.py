"""Training by several processes, one per device, on one machine or several: torch's DistributedDataParallel.

torchrun starts the processes and sets the rank of each in its environment. Each takes its part of every batch;
gradients are averaged, so that all have the same weights. Batch normalisation sees the part of its own process only.
Only the main process (rank 0) writes files, validates and logs.
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
    """The processes that train together: this one is number `rank` of `size`, and works on `device`.

    is_joined: whether torch.distributed joins them, as it also does a single one that torchrun has started.
    """

    rank: int
    size: int
    device: torch.device
    is_joined: bool = False

    @property
    def is_main_process(self) -> bool:
        """Whether this is rank 0, the process that writes files and logs."""
        return self.rank == 0

    def part(self, rows: IntArray) -> tuple[int, IntArray]:
        """Return this process's part of a batch, and the place of its first head in the batch."""
        own = len(rows) // self.size
        return self.rank * own, rows[self.rank * own : (self.rank + 1) * own]

    def wrapped(self, network: PoseNetwork) -> Any:
        """Return the network, its gradients averaged over the team."""
        return DistributedDataParallel(network) if self.is_joined else network

    def wait(self) -> None:
        """Wait until all processes have reached this call."""
        if self.is_joined:
            distributed.barrier()

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """Return values added up over the team."""
        if self.is_joined:
            distributed.all_reduce(values)
        return values

    def broadcast_from_main(self, value: float) -> float:
        """Return the value of the main process."""
        if not self.is_joined:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, 0)
        return float(shared)


@contextmanager
def team(device: str) -> Iterator[Team]:
    """Give the team that torchrun has started, or a team of one.

    Raises:
        UbhpdError: there is no such device, or fewer than processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 and not distributed.is_torchelastic_launched():
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
        yield Team(rank, size, device_named(device if device.startswith("cuda") else "cpu"), is_joined=True)
    finally:
        distributed.destroy_process_group()
