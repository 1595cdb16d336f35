"""Runs a checkpoint's network by onnxruntime or OpenVINO instead of torch.

The network is exported once, into the cache folder, under a name that the checkpoint's hash and the versions decide.
Before the first batch both engines predict random inputs; if they differ by TOLERANCE_DEG or more, or the engine fails,
torch is used, and one line says so.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from ubhpd import __version__
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing
from ubhpd.core.rotation import geodesic_deg
from ubhpd.core.typing import AnyArray, FloatArray
from ubhpd.inference.foreign import Session, opened, opened_openvino
from ubhpd.inference.network_predictor import FromPixels, NetworkPredictor
from ubhpd.inference.onnx_export import TOLERANCE_DEG, exported, random_inputs
from ubhpd.inference.prediction_file import Speed, angles_and_rotations
from ubhpd.models.downloads import cache_folder
from ubhpd.models.model import Model

_LOG = logging.getLogger(__name__)

ENGINES = ("auto", "torch", "onnx", "openvino")
WORTH_HEADS = 500  # an export takes seconds: with fewer heads, auto takes torch
_OPSET = 17
_CHECKED_HEADS = 8
_PACKAGES = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}


def chosen_engine(wanted: str, device: str, speed: Speed, heads: int | None) -> str:
    """Return the engine for a network: that which is wanted, and for "auto" the fastest that is worth it.

    Args:
        wanted: of ENGINES.
        device: on which the network runs.
        speed: a half precision or compilation is torch's.
        heads: how many will be predicted; None where that is not known.

    Raises:
        UbhpdError: an engine that is not installed, or that cannot do what is asked for.
    """
    if wanted == "torch":
        return wanted
    only_torch = device != "cpu" or speed.half or speed.compiled or speed.channels_last
    if wanted == "auto":
        if only_torch or (heads is not None and heads < WORTH_HEADS):
            return "torch"
        return "onnx" if all(map(_is_installed, _PACKAGES["onnx"])) else "torch"
    if only_torch:
        raise UbhpdError(f"--engine {wanted} runs on a CPU in 32 bits: use --engine torch, or leave --device and the "
                         "other speed options out.")  # fmt: skip
    for name in _PACKAGES[wanted]:
        if not _is_installed(name):
            extra = "pip install 'ubhpd[onnx]'" if name != "openvino" else "pip install openvino"
            raise UbhpdError(f"--engine {wanted} needs {name}, which is not installed: {extra}.")
    return wanted


def _is_installed(name: str) -> bool:
    try:
        importlib.import_module(name)
    except Exception:  # not there, or it does not load
        return False
    return True


class EnginePredictor:
    """Predicts batches by an engine that agrees with torch, else by torch.

    name: the engine that predicts, with its version, as a prediction file records it.
    """

    def __init__(self, model: Model, engine: str, threads: int = 0, folder: Path | None = None) -> None:
        """Open the exported network, exporting it first if it is not in the cache, and compare it with torch.

        Args:
            model: the network, on the CPU.
            engine: "onnx" or "openvino".
            threads: of the engine; 0 for all cores.
            folder: of the cache; by default `engines` in the cache folder.
        """
        self._torch = NetworkPredictor(model, "cpu")
        self._session: Session | None = None
        self.name = "torch"
        try:
            session = _session(model, engine, threads, folder)
            _compare(session, self._torch, model, engine)
        except UbhpdError as error:
            _LOG.warning(f"{str(error).rstrip('.')}: predicting with torch.")
            return
        self._session = session
        package = _PACKAGES[engine][1]
        self.name = f"{package} {version(package)}"

    def poses(self, inputs: AnyArray) -> tuple[FloatArray, FloatArray]:
        """Return canonical angles (n, 3) in degrees and rotations (n, 3, 3) of a batch."""
        if self._session is None or not len(inputs):
            return self._torch.poses(inputs)
        return angles_and_rotations(_run(self._session, inputs))


def _run(session: Session, inputs: AnyArray) -> FloatArray:
    values = inputs if inputs.dtype == np.uint8 else inputs.astype(np.float32)
    found: FloatArray = np.asarray(next(iter(session.run("input", values).values())), dtype=np.float64)
    return found


def _compare(session: Session, by_torch: NetworkPredictor, model: Model, engine: str) -> None:
    """Raise UbhpdError unless the engine gives what torch gives for random inputs."""
    inputs = random_inputs(model, _CHECKED_HEADS, 0)
    try:
        own = angles_and_rotations(_run(session, inputs))[1]
    except Exception as error:  # the engine's own exceptions
        reason = str(error).strip().partition("\n")[0][:100]
        raise UbhpdError(f"{engine} fails on {model.name} ({reason})") from None
    wanted = by_torch.poses(inputs)[1]
    difference = float(np.nanmax(geodesic_deg(own, wanted), initial=0.0))
    if (np.isfinite(own) != np.isfinite(wanted)).any() or not difference < TOLERANCE_DEG:
        raise UbhpdError(f"{engine} differs from torch by {difference:.2g} degrees on {model.name}")


def _session(model: Model, engine: str, threads: int, folder: Path | None) -> Session:
    """Return the open network of the cache; one that cannot be opened is exported again.

    Raises:
        UbhpdError: it cannot be exported or opened.
    """
    path = (folder or cache_folder() / "engines") / f"{_name(model)}.onnx"
    for is_last in (False, True):
        if is_last or not path.is_file():
            path = _write(model, path)
        try:
            return opened_openvino(path) if engine == "openvino" else opened(path, "cpu", threads)
        except UbhpdError:
            if is_last:
                raise
    raise AssertionError


def _name(model: Model) -> str:
    """Return the name of an export: of the weights, the options and all versions that decide the file."""
    versions = [__version__, *(_version(name) for name in ("torch", "onnx", "onnxruntime", "openvino"))]
    content = repr((model.name, model.about.sha256, sorted(dict(model.about.config).items()), versions, _OPSET))
    return f"{model.name}-{hashlib.sha256(content.encode()).hexdigest()[:24]}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _write(model: Model, path: Path) -> Path:
    """Export a network to the cache, or to a temporary folder where the cache cannot be written."""
    content = exported(FromPixels(model.network, model.recipe).eval(), random_inputs(model, 2, 0), _OPSET, model.name)
    try:
        with replacing(path) as part:
            part.write_bytes(content)
        return path
    except OSError:
        import tempfile

        other = Path(tempfile.mkdtemp(prefix="ubhpd-engine-")) / path.name
        other.write_bytes(content)
        return other
