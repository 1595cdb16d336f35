"""Networks run with less overhead: fused for prediction, traced for a CPU, recorded as CUDA graphs for a GPU.

Fused: each batch normalisation is part of the convolution before it. Traced: run without Python, with what torch is
slow at on a CPU done by quicker means. Recorded: a small network is hundreds of kernels of a few microseconds each.
Started one by one from Python they take longer to start than to run, and the threads that prepare heads delay every
start further, since Python runs one thread at a time. From a CUDA graph the GPU starts them itself.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode

from ubhpd.core.errors import UbhpdError


def traced(network: nn.Module, example: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a network for inference on the CPU, recorded on an example: its outputs are the same up to rounding.

    Args:
        network: in evaluation mode; its control flow must not depend on the values of its input.
        example: one input or more.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing is deprecated, and it remarks on each shape that becomes a constant
        with _Quicker():
            recorded = torch.jit.trace(network, (example,), check_trace=False)  # type: ignore[no-untyped-call]
        frozen: Callable[[torch.Tensor], torch.Tensor] = torch.jit.freeze(recorded)
    return frozen


class _Quicker(TorchFunctionMode):
    """Does some operations by others that torch computes several times faster on a CPU."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _QUICKER.get(func, func)(*args, **(kwargs or {}))


def _tanh(x: torch.Tensor) -> torch.Tensor:
    """Return tanh as a sigmoid, within 1e-7: torch's own takes four times as long."""
    return (x * 2).sigmoid() * 2 - 1


def _max_pool2d(x: torch.Tensor, kernel_size: Any, **how: Any) -> torch.Tensor:
    """Return the maxima of squares of 2 x 2 as those of slices, in a tenth of the time; others as ever."""
    stride = how["stride"] or kernel_size
    if (kernel_size, stride, how["padding"], how["dilation"], how["ceil_mode"]) != (2, 2, 0, 1, False):
        pooled: torch.Tensor = functional.max_pool2d(x, kernel_size, **how)
        return pooled
    height, width = (2 * (int(side) // 2) for side in x.shape[-2:])
    rows = torch.maximum(x[..., 0:height:2, :width], x[..., 1:height:2, :width])
    return torch.maximum(rows[..., 0::2], rows[..., 1::2])


_QUICKER: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.tanh: _tanh,
    torch.Tensor.tanh: _tanh,
    torch.Tensor.tanh_: _tanh,
    functional.max_pool2d: _max_pool2d,
}


AnyModule = TypeVar("AnyModule", bound=nn.Module)


def fused(network: AnyModule, example: torch.Tensor) -> AnyModule:
    """Return a copy for inference in which each batch normalisation is part of the convolution before it.

    Which convolution that is shows when the network runs: the one whose output the normalisation is given as it is. A
    layer that runs more than once keeps its place, and so does a convolution whose output anything else looks at.

    Args:
        network: any network; it stays as it is.
        example: one input of it, on its device.
    """
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()  # copied one by one; on a GPU they have to lie side by side
    names = {module: name for name, module in network.named_modules()}
    for convolution, norm in _pairs(network, example):
        _replace(network, names[convolution], fuse_conv_bn_eval(convolution, norm))
        _replace(network, names[norm], nn.Identity())
    return network


class _Reads(TorchFunctionMode):
    """Counts how many calls of torch that give tensors are given a tensor, by its id."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[int] = Counter()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor | tuple | list) and not isinstance(result, torch.Size):
            self.count.update(map(id, _tensors((*args, *(kwargs or {}).values()))))
        return result


def _pairs(network: nn.Module, example: torch.Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return the convolutions and normalisations of which one is all that sees what the other gives."""
    made: dict[int, tuple[torch.Tensor, nn.Conv2d]] = {}  # holding the tensor keeps its id its own
    pairs: dict[int, tuple[nn.Conv2d, nn.BatchNorm2d]] = {}
    runs: Counter[nn.Module] = Counter()
    reads = _Reads()

    def before(norm: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        runs[norm] += 1
        if isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats and id(inputs[0]) in made:
            pairs[id(inputs[0])] = (made[id(inputs[0])][1], norm)

    def after(convolution: nn.Module, _: Any, output: torch.Tensor) -> None:
        runs[convolution] += 1
        if isinstance(convolution, nn.Conv2d):
            made[id(output)] = (output, convolution)
            reads.count[id(output)] = 0

    hooks = [m.register_forward_pre_hook(before) for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    hooks += [m.register_forward_hook(after) for m in network.modules() if isinstance(m, nn.Conv2d)]
    try:
        with torch.no_grad(), reads:
            answer = network(example)
    finally:
        for hook in hooks:
            hook.remove()
    reads.count.update(map(id, _tensors(answer.values() if isinstance(answer, dict) else [answer])))
    return [(c, n) for key, (c, n) in pairs.items() if runs[c] == runs[n] == reads.count[key] == 1]


def _tensors(values: Iterable[Any]) -> list[torch.Tensor]:
    """Return the tensors among values, and in the lists among them."""
    found: list[torch.Tensor] = []
    for value in values:
        found += _tensors(value) if isinstance(value, tuple | list) else [value] * isinstance(value, torch.Tensor)
    return found


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


CUDA_GRAPH_SWITCH = "UBHPD_CUDA_GRAPH"  # environment variable: 0 turns recording off

_EAGER_CALLS = 2  # the first sets up libraries and the optimiser; the second is watched
_SHAPES = 4  # recordings that are kept, one for each shape of the input
_WAITED, _PROTOTYPE = "synchronizing CUDA operation", "debug mode is a prototype"  # in torch's warnings

Work = Callable[..., Any]


class Recorded:
    """A function of tensors on one GPU, run as it is twice and recorded at the third call.

    The shapes of the inputs must be those of the first call. What the function reads besides its inputs, and what it
    changes, must be tensors that keep their place in memory. A function that makes the program wait for the GPU, as
    `tensor.item()` does, cannot be recorded, and neither can one for which the memory is too small a second time: they
    are run as they are.
    """

    def __init__(self, work: Work, device: torch.device) -> None:
        """Prepare to record.

        Args:
            work: takes tensors or None, and returns a tensor or None.
            device: a CUDA device.
        """
        self._work, self._device = work, device
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._calls = 0
        self._is_recordable = cuda_graphs_are_wanted()
        self._graph: Any = None
        self._inputs: list[torch.Tensor | None] = []
        self._result: Any = None

    @property
    def is_recorded(self) -> bool:
        """Whether the next call replays the recording."""
        return self._graph is not None

    def __call__(self, *inputs: torch.Tensor | None) -> Any:
        """Return work(*inputs). Of a recording it is a tensor that the next call overwrites.

        Raises:
            UbhpdError: the recording failed.
        """
        if not self._is_recordable:
            return self._work(*inputs)
        if self._graph is None and self._calls < _EAGER_CALLS:
            return self._run_once(inputs)
        if self._graph is None:
            self._record(inputs)
        if self._graph is None:
            return self._work(*inputs)
        for own, given in zip(self._inputs, inputs, strict=True):
            if own is not None and given is not None:
                own.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._result

    def _run_once(self, inputs: tuple[torch.Tensor | None, ...]) -> Any:
        """Run the work beside the current stream, as torch asks for before a recording."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream), _waits_noticed() as waits:
            result = self._work(*inputs)
        current.wait_stream(self._stream)
        self._calls += 1
        if self._calls == _EAGER_CALLS and waits():
            self._is_recordable = False
        return result

    def _record(self, inputs: tuple[torch.Tensor | None, ...]) -> None:
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(self._device)
        if free < torch.cuda.max_memory_allocated(self._device):
            self._is_recordable = False
            return
        self._inputs = [None if t is None else t.clone() for t in inputs]
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        try:
            # Only this thread's calls count: others take pinned memory meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._result = self._work(*self._inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise UbhpdError(
                f"Recording the network as a CUDA graph failed ({str(error).splitlines()[0]}): set the environment "
                f"variable {CUDA_GRAPH_SWITCH}=0 to run it without."
            ) from None
        self._graph = graph


class RecordedByShape:
    """A function of one tensor on one GPU, recorded for each of the first few shapes that come repeatedly."""

    def __init__(self, work: Work, device: torch.device) -> None:
        self._work, self._device = work, device
        self._of_shape: dict[tuple[Any, ...], Recorded] = {}

    def __call__(self, inputs: torch.Tensor) -> Any:
        """Return work(inputs), as `Recorded`."""
        key = (*inputs.shape, inputs.dtype)
        if key not in self._of_shape:
            if len(self._of_shape) == _SHAPES:
                return self._work(inputs)
            self._of_shape[key] = Recorded(self._work, self._device)
        return self._of_shape[key](inputs)


def cuda_graphs_are_wanted() -> bool:
    """Return whether work is to be recorded: unless the environment variable UBHPD_CUDA_GRAPH is 0."""
    return os.environ.get(CUDA_GRAPH_SWITCH, "1") != "0"


@contextmanager
def _waits_noticed() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether the program waited for the GPU meanwhile; other warnings are passed on."""
    before = torch.cuda.get_sync_debug_mode()
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            yield lambda: any(_WAITED in str(w.message) for w in caught)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    for warning in caught:
        if not any(words in str(warning.message) for words in (_WAITED, _PROTOTYPE)):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
