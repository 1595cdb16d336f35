"""Weight files that ubhpd did not write: what kind a file is, and the tensors in a file of torch or safetensors.

The content says what a file is, not its name. Nothing in a file is ever executed: torch unpickles tensors alone.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from ubhpd.errors import UbhpdError

Tensors = dict[str, torch.Tensor]
Kind = Literal["keras", "torch", "safetensors"]

AGAIN = "get it again"  # what to do about a damaged file

_HDF5 = b"\x89HDF\r\n\x1a\n"
_TORCH = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # a zip archive, or pickles one after another
_WRAPPERS = ("state_dict", "model_state_dict")
_PARALLEL = "module."


def kind(path: Path) -> Kind:
    """Return what kind of weight file this is, by its first bytes.

    Raises:
        UbhpdError: no such file, or no weight file.
    """
    if path.is_dir():
        raise UbhpdError(f"{path} is a folder: give the weight file in it.")
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise UbhpdError(f"Cannot open {path} ({error.strerror}): check the path.") from None
    if not start:
        raise UbhpdError(f"{path} is empty: {AGAIN}.")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UbhpdError(f"{path} is a web page, no weights: the download gave a page instead of the file, {AGAIN}.")
    if start.startswith(b"version https://git-lfs"):
        raise UbhpdError(f"{path} only points to weights in Git LFS: get the file itself, as by git lfs pull.")
    if start.startswith(_HDF5):
        return "keras"
    if start.startswith(_TORCH):
        return "torch"
    if start[8:9] == b"{":
        return "safetensors"
    raise UbhpdError(f"{path} is no weight file: give .h5 of Keras, .pth of torch, or .safetensors.")


def tensors(path: Path) -> Tensors:
    """Return the tensors of a file of torch or safetensors by name, dense and on the CPU, of the types they have there.

    The names in a file of torch are the keys of the state dict, bare or wrapped in {"state_dict": ...}, without the
    "module." that a network trained in parallel puts before them.

    Raises:
        UbhpdError: as `kind`; or of Keras, damaged, or with anything but plain tensors in it.
    """
    found = kind(path)
    if found == "keras":
        raise UbhpdError(f"{path} is a file of Keras: give .pth of torch or .safetensors.")
    return _torch(path) if found == "torch" else _safetensors(path)


def _torch(path: Path) -> Tensors:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pickle protocol; and of TorchScript, refused in the next breath
            # Files of torch before 1.6 are no zip archives, and cannot be mapped.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged or hostile pickle leads to any of them
        if "weights only" in str(error).lower() or "weights_only" in str(error):
            raise UbhpdError(
                f"{path} holds more than tensors, so it is not opened: save the state_dict of the network alone."
            ) from None
        raise UbhpdError(f"{path} is damaged or no file of torch ({type(error).__name__}): {AGAIN}.") from None
    content = _unwrapped(content)
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise UbhpdError(f"{path} holds no tensors by name: save the state_dict of the network.")
    found: Tensors = {}
    for key, value in content.items():
        if not _is_plain(value):
            raise UbhpdError(f"{path}: {key} is no plain tensor: save the state_dict of the network alone.")
        name = key.removeprefix(_PARALLEL)
        if name in found:
            raise UbhpdError(f"{path} has {name} twice, with and without {_PARALLEL!r}: give one network.")
        found[name] = value.detach()
    return found


def _unwrapped(content: Any) -> Any:
    """Return the innermost state dict; one level a wrapper, for a pickle can hold itself."""
    for _ in _WRAPPERS:
        if isinstance(content, Mapping):
            content = next((content[k] for k in _WRAPPERS if isinstance(content.get(k), Mapping)), content)
    return content


def _is_plain(value: Any) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def _safetensors(path: Path) -> Tensors:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise UbhpdError(f"Reading {path} needs the package {error.name}: pip install {error.name}.") from None
    try:
        return load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UbhpdError(f"{path} is no weight file, or is cut off ({error}): {AGAIN}.") from None
