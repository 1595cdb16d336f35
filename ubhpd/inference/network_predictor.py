"""Poses in both of their forms.

How a network is run.

Runs a network: crops in, canonical angles and rotations out, on the chosen device and in the chosen precision.

Measures the speed of a network on a device, and names the device.
"""

from __future__ import annotations

import platform
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import AnyArray, FloatArray
from ubhpd.inference.prediction_file import Speed, angles_and_rotations
from ubhpd.models.model import Model, device_named
from ubhpd.nn.contract import InputRecipe, PoseNetwork
from ubhpd.nn.tracing import RecordedByShape, fused, traced

_CPU_HEADS = 16  # per forward pass: feature maps of more heads do not fit the caches and cost page faults


class FromPixels(nn.Module):
    """A network that takes crops as they are: uint8 (n, size, size, 3), or (n, frames, size, size, 3), BGR or RGB as
    its input recipe says, and gives canonical yaw, pitch, roll (n, 3) in degrees, or rotations (n, 3, 3).

    A network that sees landmarks gets them unchanged.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: PoseNetwork, recipe: InputRecipe | None) -> None:
        super().__init__()
        self.network = network
        mean, std = (recipe.mean, recipe.std) if recipe else ((0.0,) * 3, (1.0,) * 3)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the pose of each input."""
        if inputs.dtype == torch.uint8:
            inputs = (inputs.transpose(-1, -2).transpose(-2, -3).to(self.mean.dtype) - self.mean) / self.std
        return self.network.pose(self.network(inputs))


def input_shape(model: Model) -> tuple[int, ...]:
    """Return the shape of one input of a network, as `Batch.inputs` has them."""
    if model.kind == "landmarks":
        return (68, 2)
    crop = (model.recipe.size, model.recipe.size, 3)
    return (model.recipe.frames, *crop) if model.kind == "sequence" else crop


class NetworkPredictor:
    """Judges batches of inputs."""

    def __init__(self, model: Model, device: str = "cpu", speed: Speed | None = None) -> None:
        """Put the model on a device; its normalisation is folded, and it is recorded.

        A CPU's cores take blocks of heads each for itself: networks of many small steps gain little from cores that
        share a step, and lose much by waiting for each other.

        Raises:
            UbhpdError: there is no such device.
        """
        speed = speed or Speed()
        self._device = torch.device(device)
        self._speed = speed
        self._on_cpu = self._device.type == "cpu"
        module: Any = FromPixels(model.network, model.recipe).eval().to(self._device)
        example = torch.zeros(
            (2, *input_shape(model)), dtype=torch.float32 if model.kind == "landmarks" else torch.uint8,
            device=self._device,
        )  # fmt: skip
        module = fused(module, example)
        if speed.channels_last:
            module = module.to(memory_format=torch.channels_last)
        if speed.compiled:
            module = torch.compile(module)
        elif self._on_cpu and not speed.half:
            module = traced(module, example)
        if self._device.type == "cuda":
            module = RecordedByShape(module, self._device)
        self._module = module
        self._at_once = _CPU_HEADS if self._on_cpu else 0  # 0 for a whole batch
        threads = torch.get_num_threads() if self._on_cpu else 1
        self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        self._threads = threads
        self._half = torch.bfloat16 if self._on_cpu else torch.float16

    def poses(self, inputs: AnyArray) -> tuple[FloatArray, FloatArray]:
        """Return canonical angles (n, 3) in degrees and rotations (n, 3, 3) of a batch.

        If the device's memory is too small for so many at once, it takes half as many from then on.

        Raises:
            UbhpdError: the memory is too small for a single head.
        """
        if not len(inputs):
            return np.empty((0, 3)), np.empty((0, 3, 3))
        tensor = torch.from_numpy(inputs if inputs.dtype == np.uint8 else inputs.astype(np.float32))
        while True:
            try:
                return angles_and_rotations(self._judged(tensor))
            except torch.OutOfMemoryError:
                tried = min(self._at_once or len(tensor), len(tensor))
                if tried == 1:
                    raise UbhpdError(f"The memory of {self._device} is too small for one head: use another.") from None
                self._at_once = tried // 2

    def _judged(self, tensor: torch.Tensor) -> FloatArray:
        blocks = torch.split(tensor, self._at_once or len(tensor))
        spreads = self._threads > 1 and len(blocks) >= self._threads
        outputs = self._pool.map(self._block, blocks) if spreads else map(self._block, blocks)
        found: FloatArray = torch.cat(list(outputs)).double().cpu().numpy()
        return found

    def _block(self, block: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), torch.autocast(self._device.type, self._half, enabled=self._speed.half):
            pose: torch.Tensor = self._module(block.to(self._device, non_blocking=True))
        return pose


_ROUNDS = 5


def heads_per_second(model: Model, device: str, batch_size: int) -> float:
    """Return how many crops in memory the model predicts per second, outputs back in memory: median of 5 batches.

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
    inputs: AnyArray
    if model.kind == "landmarks":
        inputs = draw.uniform(-0.5, 0.5, (batch_size, 68, 2))
    else:
        inputs = draw.integers(0, 256, (batch_size, *frames, recipe.size, recipe.size, 3), dtype=np.uint8)
    for _ in range(3 if device_named(device).type == "cuda" else 1):
        predictor.poses(inputs)  # the first batch also pays for memory and algorithms, a GPU's third for the recording
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
