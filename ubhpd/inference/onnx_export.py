"""A network as an ONNX file: crops in as uint8, canonical yaw, pitch, roll in degrees out, for any runtime.

The file holds what `FromPixels` does, normalisation and decoding included, and says of itself what the checkpoint
says. It is written only after onnxruntime has given what torch gives.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing
from ubhpd.core.typing import AnyArray
from ubhpd.inference.network_predictor import FromPixels, input_shape
from ubhpd.models import checkpoint
from ubhpd.models.model import Model
from ubhpd.nn.outputs import euler_from_matrix

TOLERANCE_DEG = 1e-3
OPSETS = (14, 20)  # the first has all that the networks need, the last is the newest that torch 2.4 writes


@dataclass(frozen=True)
class OnnxReport:
    """An ONNX file made: `difference_deg` is the largest between onnxruntime and torch on `heads` random inputs."""

    out: str
    model: str
    input_shape: tuple[int | str, ...]
    opset: int
    heads: int
    difference_deg: float
    bytes: int


def export_onnx(weights: Path, out: Path, opset: int = 17, heads: int = 16, seed: int = 0) -> OnnxReport:
    """Write a checkpoint's network as ONNX and return what was found in its check.

    The input "input" is uint8 (n, size, size, 3), sequences (n, frames, size, size, 3), or for landmarks float32
    (n, 68, 2) from -0.5 to 0.5 in the crop; the output "pose" is float32 (n, 3). n is free. The metadata property
    "ubhpd" is the JSON of the checkpoint's header.

    Args:
        weights: a checkpoint of ubhpd.
        out: the file, M.onnx.
        opset: version of ONNX's operators, within OPSETS.
        heads: random inputs of the check, at least 2: they are predicted one by one and together.
        seed: of the random inputs.

    Raises:
        UbhpdError: onnx or onnxruntime is missing, a wrong option, a checkpoint that is no network's, a network that
            ONNX cannot express, an output that differs by TOLERANCE_DEG or more, or the file cannot be written.
    """
    onnx, onnxruntime = _packages()
    if out.suffix != ".onnx":
        raise UbhpdError(f"An ONNX file is called .onnx: call it {out.stem}.onnx, not {out.name}.")
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise UbhpdError(f"There is no export to opset {opset}: choose one from {OPSETS[0]} to {OPSETS[1]}.")
    if heads < 2:
        raise UbhpdError(f"--check is {heads}: give 2 heads or more, since one alone and several are compared.")
    model = Model.of_checkpoint(weights)
    network = CanonicalPose(FromPixels(model.network, model.recipe)).eval()
    inputs = random_inputs(model, heads, seed)
    content = _with_metadata(onnx, exported(network, inputs[:2], opset, model.name), model.about)
    difference = _difference_deg(onnxruntime, content, network, inputs)
    if not difference < TOLERANCE_DEG:
        raise UbhpdError(
            f"{model.name} as ONNX differs from torch by {difference:.2g} degrees, so {out} was not written: "
            "choose another --opset, or other versions of torch and onnxruntime."
        )
    try:
        with replacing(out) as part:
            part.write_bytes(content)
    except OSError as error:
        raise UbhpdError(f"Cannot write {out} ({error.strerror}): check the path and the room on the disk.") from None
    return OnnxReport(
        out=str(out),
        model=model.name,
        input_shape=("n", *inputs.shape[1:]),
        opset=opset,
        heads=heads,
        difference_deg=difference,
        bytes=len(content),
    )


class CanonicalPose(nn.Module):
    """`FromPixels` with the pose always as canonical yaw, pitch, roll (n, 3) in degrees."""

    def __init__(self, module: FromPixels) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the pose of each input."""
        pose: torch.Tensor = self.module(inputs)
        return euler_from_matrix(pose) if pose.ndim == 3 else pose


def random_inputs(model: Model, heads: int, seed: int) -> AnyArray:
    """Return inputs of a network drawn at random: uint8 crops or sequences; landmarks, one in ten of them unknown."""
    draw, shape = np.random.default_rng(seed), (heads, *input_shape(model))
    if model.kind == "landmarks":
        points = draw.uniform(-0.5, 0.5, shape).astype(np.float32)
        points[draw.random(shape[:2]) < 0.1] = np.nan
        return points
    return draw.integers(0, 256, shape, dtype=np.uint8)


class _Expressible(TorchFunctionMode):
    """Does by other means what torch's exporter cannot write."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _BY_OTHER_MEANS.get(func, func)(*args, **(kwargs or {}))


def _cell_means(maps: torch.Tensor, output_size: int | tuple[int, int]) -> torch.Tensor:
    """Return the means that `adaptive_avg_pool2d` gives, also over cells that do not divide the map evenly."""
    cells = (output_size, output_size) if isinstance(output_size, int) else output_size
    rows, columns = (_shares(int(n), c) for n, c in zip(maps.shape[-2:], cells, strict=True))
    return rows @ maps @ columns.mT


def _shares(places: int, cells: int) -> torch.Tensor:
    """Return the share (cells, places) of each place in each cell: cell i is floor(i n / c) to ceil((i + 1) n / c)."""
    shares = np.zeros((cells, places), dtype=np.float32)
    for i in range(cells):
        first, end = i * places // cells, -((i + 1) * places // -cells)
        shares[i, first:end] = 1 / (end - first)
    return torch.from_numpy(shares)


_BY_OTHER_MEANS: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.adaptive_avg_pool2d: _cell_means,
    torch.rad2deg: lambda radians: radians * (180 / math.pi),
}


def exported(network: nn.Module, inputs: AnyArray, opset: int, name: str) -> bytes:
    """Return the ONNX file that torch makes of a network by tracing it."""
    file: Any = io.BytesIO()
    # Tracing, because the newer exporter cannot write all of the networks; before torch 2.5 there is no choice.
    way: dict[str, Any] = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    try:
        with _silence(), torch.no_grad(), _Expressible():
            torch.onnx.export(
                network, (torch.from_numpy(inputs),), file, opset_version=opset, input_names=["input"],
                output_names=["pose"], dynamic_axes={"input": {0: "n"}, "pose": {0: "n"}}, **way,
            )  # fmt: skip
    except (RuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise UbhpdError(f"torch cannot write {name} as ONNX with opset {opset} ({reason}): try another.") from None
    content: bytes = file.getvalue()
    return content


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep what torch says of its exporter off the terminal, also what its C++ part prints of a graph that fails."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere:
            warnings.simplefilter("ignore")
            os.dup2(nowhere.fileno(), 1)
            yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
        logging.disable(before)


def _with_metadata(onnx: ModuleType, content: bytes, about: checkpoint.About) -> bytes:
    proto = onnx.load_from_string(content)
    onnx.helper.set_model_props(proto, {checkpoint.KEY: json.dumps(asdict(about), ensure_ascii=False)})
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString(deterministic=True))


def _difference_deg(onnxruntime: ModuleType, content: bytes, network: nn.Module, inputs: AnyArray) -> float:
    """Return the largest difference of an angle, between one head at a time and all at once, ONNX and torch.

    Infinite where one has an output and the other none.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for some in (inputs[:1], inputs):
        with torch.inference_mode():
            wanted = network(torch.from_numpy(some)).numpy()
        found = session.run(["pose"], {"input": some})[0]
        if found.shape != wanted.shape or (np.isfinite(found) != np.isfinite(wanted)).any():
            return float("inf")
        turned = np.abs((found - wanted + 180.0) % 360.0 - 180.0)
        worst = max(worst, float(np.nanmax(turned, initial=0.0)))
    return worst


def _packages() -> tuple[ModuleType, ModuleType]:
    try:
        found = importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        raise UbhpdError(f"ONNX files need {error.name}, which is not installed: pip install 'ubhpd[onnx]'.") from None
    return found
