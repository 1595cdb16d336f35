"""Models of others: an ONNX file, an OpenVINO model, or a Python function, run on the crops that an IO file describes.

A file can only compute: an ONNX file with tensors in other files is opened only if these lie in its own folder, and no
operator from a library of somebody else is loaded. A Python function is code of the user, named by the user.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ubhpd.core.errors import UbhpdError, shortened
from ubhpd.core.files import sha256_of
from ubhpd.core.text import content_hash, one_line
from ubhpd.core.typing import AnyArray, FloatArray
from ubhpd.inference.io_file import InputFile, IoFile, averaged
from ubhpd.inference.prediction_file import cores

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_MOST_EXTERNAL_BYTES = 2 << 30

Outputs = dict[str, AnyArray]


class Session(NamedTuple):
    """A model that is open: its inputs and outputs with their shapes (None where free), and how it is run."""

    inputs: Mapping[str, tuple[int | None, ...]]
    outputs: Mapping[str, tuple[int | None, ...]]
    run: Callable[[str, AnyArray], Outputs]


class ForeignModel:
    """One or several model files that share an IO file, or a Python function: crops in, poses out."""

    def __init__(
        self, io: IoFile, files: Sequence[Path] = (), function: str | Callable[..., Any] | None = None,
        device: str = "auto", threads: int = 0,
    ) -> None:  # fmt: skip
        """Open the files or import the function.

        Args:
            io: how the model takes images and gives poses.
            files: ONNX files or OpenVINO models (.xml); the poses of several are averaged.
            function: "module:function", or a callable; it takes crops (n, size, size, 3) as uint8.
            device: "cpu", "cuda" or "auto".
            threads: of the engine, 0 for one per core.

        Raises:
            UbhpdError: a file or function that cannot be opened, or inputs and outputs that do not fit the IO file.
        """
        self.io = io
        self.files = tuple(files)
        self._function = function_named(function) if isinstance(function, str) else function
        self.name = ", ".join(p.stem for p in self.files) if files else _function_name(function)
        self._sessions = [opened(path, device, threads) for path in self.files]
        self._inputs = [
            _input_of(session, io.input, str(path)) for session, path in zip(self._sessions, self.files, strict=True)
        ]
        for session, path in zip(self._sessions, self.files, strict=True):
            for output in io.output:
                _check_names(output.names, session, str(path))

    @property
    def sha256(self) -> str:
        """Return the hash of the files, or of the function's name: a function has no bytes of its own."""
        hashes = [sha256_of(p) for p in self.files]
        return hashes[0] if len(hashes) == 1 else content_hash(" ".join(hashes) or self.name)

    def about(self) -> dict[str, Any]:
        """Return what a prediction file records of the model."""
        return {"model": self.name, "weights": self.sha256, "io": json.loads(json.dumps(asdict(self.io)))}

    def poses(self, crops: AnyArray) -> tuple[FloatArray, FloatArray]:
        """Return canonical angles (n, 3) in degrees and rotations (n, 3, 3) of uint8 crops (n, size, size, 3).

        A head for which the model gives no finite numbers has NaN.

        Raises:
            UbhpdError: outputs that do not fit the IO file, or a model that fails.
        """
        if not len(crops):
            return np.empty((0, 3)), np.empty((0, 3, 3))
        if self._function is not None:
            return self._of_function(crops)
        poses = []
        for session, name, path in zip(self._sessions, self._inputs, self.files, strict=True):
            outputs = self.run_session(session, name, network_input(crops, self.io.input), path)
            for own in self.io.output:
                chosen = [outputs[n] for n in own.names or _all_of(outputs, own.kind)]
                poses.append(own.poses(chosen, str(path)))
        return averaged(poses)

    def _of_function(self, crops: AnyArray) -> tuple[FloatArray, FloatArray]:
        assert self._function is not None
        try:
            result = self._function(crops)
            arrays = [np.asarray(r) for r in result] if isinstance(result, (tuple, list)) else [np.asarray(result)]
        except Exception as error:  # code of the user: whatever it raises is said in one sentence
            raise UbhpdError(f"The function {self.name} failed ({_said(error)}): correct it.") from error
        if any(a.dtype.kind not in "fiu" or len(a) != len(crops) for a in arrays):
            shapes = " and ".join(f"{a.shape} of {a.dtype}" for a in arrays)
            raise UbhpdError(
                f"The function {self.name} returned {shapes} for {len(crops)} crops: return numbers, a row a crop."
            )
        own = self.io.output[0]
        is_matrices = own == type(own)() and len(arrays) == 1 and arrays[0].ndim == 3
        if is_matrices:
            own = type(own)(kind="matrix")
        return own.poses(arrays, f"The function {self.name}")

    @staticmethod
    def run_session(session: Session, name: str, values: AnyArray, path: Path) -> Outputs:
        """Return the outputs for an input (n, ...); a model with a fixed batch size gets that many at a time."""
        fixed = session.inputs[name][0]
        if fixed is None or fixed == len(values):
            return _checked_run(session, name, values, path)
        parts: list[Outputs] = []
        for start in range(0, len(values), fixed):
            part = values[start : start + fixed]
            padded = np.concatenate([part, np.repeat(part[-1:], fixed - len(part), axis=0)])
            parts.append({k: v[: len(part)] for k, v in _checked_run(session, name, padded, path).items()})
        return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}


def network_input(crops: AnyArray, own: InputFile) -> AnyArray:
    """Return crops (n, size, size, 3) of uint8 as the network's float32 input; grey crops come as RGB."""
    values: AnyArray = crops.astype(np.float32)
    if own.colour == "grey":
        values = (values @ _LUMA)[..., None]
    values = (values - np.asarray(own.mean, np.float32)) / np.asarray(own.std, np.float32)
    return np.ascontiguousarray(np.moveaxis(values, -1, 1)) if own.layout == "NCHW" else values


def opened(path: Path, device: str = "auto", threads: int = 0) -> Session:
    """Return an ONNX file or an OpenVINO model, open.

    Raises:
        UbhpdError: no such file, a package that is missing, or a file that the engine refuses.
    """
    if not path.is_file():
        raise UbhpdError(f"There is no file {path}: check the path.")
    if path.suffix.lower() == ".xml":
        return opened_openvino(path)
    return _onnx(path, device, threads)


def _onnx(path: Path, device: str, threads: int) -> Session:
    onnxruntime = _package("onnxruntime", "ONNX files need onnxruntime", "onnx")
    _check_external(path)
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = threads or cores()
    session_options.log_severity_level = 4  # what is wrong is in the exception
    providers = ["CPUExecutionProvider"]
    if device != "cpu" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, "CUDAExecutionProvider")
    try:
        session = onnxruntime.InferenceSession(str(path), session_options, providers=providers)
    except Exception as error:  # onnxruntime has its own exceptions, most of them without a common base
        raise UbhpdError(
            f"onnxruntime cannot open {path} ({_said(error)}): check that it is a whole ONNX file."
        ) from None
    inputs = {i.name: tuple(d if isinstance(d, int) and d > 0 else None for d in i.shape) for i in session.get_inputs()}
    outputs = {
        o.name: tuple(d if isinstance(d, int) and d > 0 else None for d in o.shape) for o in session.get_outputs()
    }
    names = list(outputs)

    def run(name: str, values: AnyArray) -> Outputs:
        return dict(zip(names, session.run(names, {name: values}), strict=True))

    return Session(inputs, outputs, run)


def _check_external(path: Path) -> None:
    """Raise UbhpdError if tensors of an ONNX file lie outside its folder, are missing, or are too large."""
    onnx = _package("onnx", "ONNX files need onnx", "onnx")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError and others
        raise UbhpdError(f"{path} is not a readable ONNX file ({_said(error)}): get it again.") from None
    folder = path.resolve().parent
    total = 0
    for location in sorted(_external_files(model)):
        place = (folder / location).resolve()
        if Path(location).is_absolute() or not place.is_relative_to(folder):
            raise UbhpdError(f"{path} keeps weights in {shortened(location)}, outside its folder: it is not opened.")
        if not place.is_file():
            raise UbhpdError(
                f"{path} keeps weights in {shortened(location)}, which is not beside it: get that file, too."
            )
        total += place.stat().st_size
    if total > _MOST_EXTERNAL_BYTES:
        raise UbhpdError(
            f"{path} has {total / 1e9:.1f} GB of weights in other files: models of up to "
            f"{_MOST_EXTERNAL_BYTES / 1e9:.1f} GB are opened."
        )


def _external_files(model: Any) -> set[str]:
    """Return the files that any tensor of the model, those in subgraphs included, is stored in."""
    found: set[str] = set()
    waiting = [model]
    while waiting:
        message = waiting.pop()
        for descriptor, value in message.ListFields():
            if descriptor.message_type is None:
                continue
            if descriptor.full_name == "onnx.TensorProto.external_data":
                found |= {entry.value for entry in value if entry.key == "location"}
            elif hasattr(value, "ListFields"):
                waiting.append(value)
            else:
                waiting += list(value)
    return found


def opened_openvino(path: Path) -> Session:
    """Return a model that OpenVINO reads, open on the CPU; errors as `opened`."""
    openvino = _package("openvino", "OpenVINO models need openvino", None)
    try:
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(str(path)), "CPU")
    except Exception as error:
        raise UbhpdError(
            f"OpenVINO cannot open {path} ({_said(error)}): check that the .bin file lies beside it."
        ) from None

    def shapes(ports: Any) -> dict[str, tuple[int | None, ...]]:
        return {
            port.get_any_name(): tuple(d.get_length() if d.is_static else None for d in port.get_partial_shape())
            for port in ports
        }

    inputs, outputs = shapes(compiled.inputs), shapes(compiled.outputs)

    def run(name: str, values: AnyArray) -> Outputs:
        result = compiled({name: values})
        return {port.get_any_name(): np.array(array) for port, array in result.items()}

    return Session(inputs, outputs, run)


def _checked_run(session: Session, name: str, values: AnyArray, path: Path) -> Outputs:
    try:
        outputs = session.run(name, values)
    except Exception as error:
        raise UbhpdError(
            f"{path} failed on an input of shape {values.shape} ({_said(error)}): check its IO file."
        ) from None
    for key, array in outputs.items():
        if not np.ndim(array) or len(array) != len(values):
            raise UbhpdError(
                f"{path} gives {key!r} of shape {np.shape(array)} for {len(values)} heads: its first axis must be the "
                "heads."
            )
    return outputs


def _input_of(session: Session, own: InputFile, path: str) -> str:
    """Return the name of the input that takes the image, after checking its shape."""
    images = {n: s for n, s in session.inputs.items() if len(s) == 4}
    if own.name is None and len(session.inputs) != 1:
        raise UbhpdError(f"{path} has the inputs {', '.join(session.inputs)}: exactly one, the image, can be given.")
    name = own.name or next(iter(session.inputs))
    if name not in session.inputs:
        raise UbhpdError(f"{path} has no input {name!r}, but {', '.join(session.inputs)}: correct input.name.")
    if name not in images:
        raise UbhpdError(
            f"The input {name!r} of {path} has shape {_shape(session.inputs[name])}: an image has four axes."
        )
    channels = 1 if own.colour == "grey" else 3
    expected = (channels, own.size, own.size) if own.layout == "NCHW" else (own.size, own.size, channels)
    if any(d is not None and d != e for d, e in zip(images[name][1:], expected, strict=True)):
        raise UbhpdError(
            f"The input {name!r} of {path} has shape {_shape(images[name])}, the IO file gives it "
            f"(n, {', '.join(map(str, expected))}): correct size, colour or layout."
        )
    return name


def _check_names(names: Sequence[str], session: Session, path: str) -> None:
    for name in names:
        if name not in session.outputs:
            raise UbhpdError(f"{path} has no output {name!r}, but {', '.join(session.outputs)}: correct output.names.")


def _all_of(outputs: Outputs, kind: str) -> list[str]:
    names = list(outputs)
    return names[:3] if kind in ("angles", "bins") and len(names) >= 3 else names[:1]


def _shape(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('free' if d is None else str(d) for d in shape)})"


def heads_per_second(model: ForeignModel, batch_size: int) -> float:
    """Return how many crops in memory a model predicts per second, outputs back in memory: median of 5 batches."""
    size = model.io.input.size
    crops = np.random.default_rng(0).integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8)
    model.poses(crops)  # the first batch also pays for memory
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        model.poses(crops)
        seconds.append(time.perf_counter() - start)
    return batch_size / median(seconds)


def function_named(text: str) -> Callable[..., Any]:
    """Return the function that "module:function" names; the current folder is searched, too.

    Raises:
        UbhpdError: another form, no such module or function, or a module that fails at import.
    """
    module_name, colon, name = text.partition(":")
    if not (module_name and colon and name):
        raise UbhpdError(f"--python {shortened(text)} does not name a function: give it as module:function.")
    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UbhpdError(
            f"The module {shortened(module_name)} cannot be imported ({_said(error)}): correct it."
        ) from error
    finally:
        if added:
            sys.path.remove(here)
    function = getattr(module, name, None)
    if not callable(function):
        raise UbhpdError(f"The module {module_name} has no function {shortened(name)}: check the name.")
    return function  # type: ignore[no-any-return]


def _function_name(function: str | Callable[..., Any] | None) -> str:
    if isinstance(function, str):
        return function
    return f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', type(function).__name__)}"


def _package(name: str, need: str, extra: str | None) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        how = f"'ubhpd[{extra}]'" if extra else name
        raise UbhpdError(f"{need}, which is not installed: pip install {how}.") from None


def _said(error: Exception) -> str:
    text = one_line(str(error)) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}..."
