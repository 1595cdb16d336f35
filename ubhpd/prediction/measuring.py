"""How fast a network judges heads on a device, and what that device is called."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ubhpd.models.model import Model, device_named
from ubhpd.prediction.network_predictor import NetworkPredictor

_ROUNDS = 5


def heads_per_second(model: Model, device: str, batch_size: int) -> float:
    """Return how many crops at hand the model judges per second, the answer back in memory: median of 5 batches.

    Args:
        model: the network.
        device: as for `device_named`.
        batch_size: crops in a batch.

    Raises:
        UbhpdError: no such device, or too little memory on it.
    """
    predictor = NetworkPredictor(model, str(device_named(device)))
    recipe = model.recipe
    frames = (recipe.frames,) if model.kind == "sequence" else ()
    draw = np.random.default_rng(0)
    inputs: npt.NDArray[Any]
    if model.kind == "landmarks":
        inputs = draw.uniform(-0.5, 0.5, (batch_size, 68, 2))
    else:
        inputs = draw.integers(0, 256, (batch_size, *frames, recipe.size, recipe.size, 3), dtype=np.uint8)
    predictor.poses(inputs)  # the first batch also pays for memory and for the choice of algorithms
    seconds = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        predictor.poses(inputs)
        seconds.append(time.perf_counter() - start)
    return batch_size / median(seconds)


def device_title(device: str) -> str:
    """Return the name of the hardware behind a device, as "NVIDIA H200"; errors as `device_named`."""
    found = device_named(device)
    if found.type == "cuda":
        return str(torch.cuda.get_device_name(found))
    return f"CPU {_processor()}, {torch.get_num_threads()} threads"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
