"""Weight files of others: named tensors out of Keras' .h5, torch's .pth and safetensors, whatever the file is called.

Nothing in a file is executed and nothing outside it is read: torch unpickles tensors alone, and links of HDF5 to other
files are not followed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from ubhpd.errors import UbhpdError
from ubhpd.models.checkpoint import Array, check_finite
from ubhpd.networks import weight_files

Tensors = dict[str, Array]

_KERAS = "model_weights"


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
    if weight_files.kind(path) == "keras":
        found = _keras(path)
    else:
        found = {name: _numbers(values) for name, values in weight_files.tensors(path).items()}
    if not found:
        raise UbhpdError(f"{path} holds no weights: give the file with the trained network.")
    check_finite(found, str(path))
    return found


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
        raise UbhpdError(f"{path} is damaged or cut off ({error}): {weight_files.AGAIN}.") from None
    short = {name: "/".join(name.split("/")[-2:]) for name in found}
    is_unique = max(Counter(short.values()).values(), default=1) == 1
    return {short[name] if is_unique else name: values for name, values in found.items()}


def _numbers(tensor: torch.Tensor) -> Array:
    values: Array = (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()
    return values
