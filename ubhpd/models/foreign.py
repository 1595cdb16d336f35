"""Weight files of others: named tensors out of Keras' .h5, torch's .pth and safetensors, whatever the file is called.

Nothing in a file is executed and nothing outside it is read: torch unpickles tensors alone, and links of HDF5 to other
files are not followed.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from ubhpd.errors import UbhpdError
from ubhpd.models.checkpoint import Array, check_finite

Tensors = dict[str, Array]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_KERAS = "model_weights"
_WRAPPERS = ("state_dict", "model_state_dict")
_PARALLEL = "module."
_AGAIN = "get it again"


def read_files(paths: Iterable[Path]) -> Tensors:
    """Return the tensors of weight files by name; of several files those of file i begin "i/". Errors as `read`."""
    files = [read(path) for path in paths]
    if len(files) == 1:
        return files[0]
    return {f"{i}/{name}": values for i, tensors in enumerate(files) for name, values in tensors.items()}


def read(path: Path) -> Tensors:
    """Return the tensors of a weight file by name, floating-point ones as float32.

    The names in an .h5 of Keras are the last two parts of the path inside the file without ":0", such as
    "dense_1/kernel", whatever sub-model holds them; the whole path if two would be the same. Those in a .pth are the
    keys of the state dict without a leading "module.".

    Raises:
        UbhpdError: no such file, not a weight file, damaged, with more than tensors in it, or with a tensor that is
            not finite.
    """
    start = _start(path)
    if start.startswith(_HDF5):
        found = _keras(path)
    elif start.startswith((b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        found = _torch(path)
    elif start[8:9] == b"{":
        found = _safetensors(path)
    else:
        raise UbhpdError(f"{path} is no weight file: give .h5 of Keras, .pth of torch, or .safetensors.")
    if not found:
        raise UbhpdError(f"{path} holds no weights: give the file with the trained network.")
    check_finite(found, str(path))
    return found


def _start(path: Path) -> bytes:
    """Return the first bytes of a file that can hold weights."""
    if path.is_dir():
        raise UbhpdError(f"{path} is a folder: give the weight file in it.")
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise UbhpdError(f"Cannot open {path} ({error.strerror}): check the path.") from None
    if not start:
        raise UbhpdError(f"{path} is empty: {_AGAIN}.")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UbhpdError(f"{path} is a web page, no weights: the download gave a page instead of the file, {_AGAIN}.")
    if start.startswith(b"version https://git-lfs"):
        raise UbhpdError(f"{path} only points to weights in Git LFS: get the file itself, as by git lfs pull.")
    return start


def _keras(path: Path) -> Tensors:
    found: Tensors = {}

    def take(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            if item.is_virtual or item.external:
                raise UbhpdError(f"{path}: {name} lies in another file, which is not opened: give one whole file.")
            if item.dtype.kind not in "fiub":
                raise UbhpdError(f"{path}: {name} is of type {item.dtype}, no numbers: give a file of weights.")
            found[name.removesuffix(":0")] = _numbers(torch.as_tensor(np.asarray(item[()])))

    try:
        with h5py.File(path, "r") as file:
            group = file[_KERAS] if isinstance(file.get(_KERAS, getlink=True), h5py.HardLink) else file
            group.visititems(take)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise UbhpdError(f"{path} is damaged or cut off ({error}): {_AGAIN}.") from None
    short = {name: "/".join(name.split("/")[-2:]) for name in found}
    is_unique = max(Counter(short.values()).values(), default=1) == 1
    return {short[name] if is_unique else name: values for name, values in found.items()}


def _torch(path: Path) -> Tensors:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pickle protocol; and of TorchScript, refused in the next breath
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile pickle leads to any of them
        if "weights only" in str(error).lower() or "weights_only" in str(error):
            raise UbhpdError(
                f"{path} holds more than tensors, so it is not opened: save the state_dict of the network alone."
            ) from None
        raise UbhpdError(f"{path} is damaged or no file of torch ({type(error).__name__}): {_AGAIN}.") from None
    while isinstance(content, Mapping) and (inner := [k for k in _WRAPPERS if isinstance(content.get(k), Mapping)]):
        content = content[inner[0]]
    if not isinstance(content, Mapping):
        raise UbhpdError(f"{path} holds no tensors by name: save the state_dict of the network.")
    found: Tensors = {}
    for key, value in content.items():
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_quantized:
            raise UbhpdError(f"{path}: {key} is no plain tensor: save the state_dict of the network alone.")
        name = str(key).removeprefix(_PARALLEL)
        if name in found:
            raise UbhpdError(f"{path} has {name} twice, with and without {_PARALLEL!r}: give one network.")
        found[name] = _numbers(value)
    return found


def _safetensors(path: Path) -> Tensors:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UbhpdError(f"{path} is no weight file, or is cut off ({error}): {_AGAIN}.") from None
    return {name: _numbers(v) for name, v in found.items()}


def _numbers(tensor: torch.Tensor) -> Array:
    values: Array = (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()
    return values
