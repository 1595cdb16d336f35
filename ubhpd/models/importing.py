"""Weight files of other projects: named tensors from Keras .h5 and .keras, torch .pth and safetensors.

Nothing in a file is executed and nothing outside it is read: torch unpickles tensors alone, and links of HDF5 to other
files are not followed.

Weights of others into a model: read, renamed by the model's own `published`, tried once, kept with their origin.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import AnyArray
from ubhpd.models import checkpoint
from ubhpd.models.catalogue import card
from ubhpd.models.checkpoint import check_finite
from ubhpd.models.downloads import imagenet_weights, is_imagenet
from ubhpd.models.model import Model, fill
from ubhpd.nn import weight_files
from ubhpd.nn.backbones import torchvision_name
from ubhpd.nn.contract import InputRecipe

Tensors = dict[str, AnyArray]

_KERAS = "model_weights"
_COUNTER = "num_batches_tracked"  # of batch normalisation
_MAX_GROWTH = 1032  # of deflate
_NUMBERED = re.compile(r"/vars/[0-3]$")
_KERAS_KINDS = {1: ("kernel",), 2: ("kernel", "bias"), 4: ("gamma", "beta", "moving_mean", "moving_variance")}


def read_files(paths: Iterable[Path]) -> Tensors:
    """Return the tensors of weight files by name; of several files those of file i begin "i/". Errors as `read`.

    Beside another file an .npz of NumPy is read, too: so come statistics that belong to a network.
    """
    places = list(paths)
    files = [_npz(p) if len(places) > 1 and weight_files.kind(p) == "npz" else read(p) for p in places]
    if len(files) == 1:
        return files[0]
    return {f"{i}/{name}": values for i, tensors in enumerate(files) for name, values in tensors.items()}


def read(path: Path) -> Tensors:
    """Return the tensors of a weight file by name, floating-point ones as float32.

    The names in an .h5 of Keras are the last two parts of the path inside the file without ":0", such as
    "dense_1/kernel", in any sub-model; the whole path if two would be the same. A .keras of Keras 3 is a zip archive
    with an .h5 in it. Those in a .pth are the keys of the state dict, without what DataParallel, torch.compile or
    Lightning put before all of them.

    Raises:
        UbhpdError: no such file, not a weight file, damaged, with more than tensors in it, or with a tensor that is
            not finite.
    """
    kind = weight_files.kind(path)
    if kind == "keras":
        found = _keras(path, path)
    elif kind == "keras_zip":
        found = _keras(path, _weights_in_zip(path))
    else:
        found = {name: _numbers(values) for name, values in weight_files.tensors(path).items()}
    if not found:
        raise UbhpdError(f"{path} holds no weights: give the file with the trained network.")
    check_finite(found, str(path))
    return found


def _npz(path: Path) -> Tensors:
    """Return the arrays of an .npz by name; pickled objects in it are refused. Errors as `read`."""
    found: Tensors = {}
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MAX_GROWTH * path.stat().st_size:
                raise UbhpdError(f"{path} states more arrays than its bytes can hold: {weight_files.AGAIN}.")
        with np.load(path, allow_pickle=False) as stored:
            for name in stored.files:
                values = stored[name]
                if values.dtype.kind not in "fiub":
                    raise UbhpdError(f"{path}: {name} is of type {values.dtype}, no numbers: give arrays of numbers.")
                found[name] = _numbers(torch.as_tensor(values))
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, TypeError, EOFError, MemoryError, KeyError) as error:
        if "allow_pickle" in str(error):
            raise UbhpdError(f"{path} holds pickled objects, which are not opened: store arrays of numbers.") from None
        raise UbhpdError(f"{path} is damaged or cut off ({error}): {weight_files.AGAIN}.") from None
    check_finite(found, str(path))
    return found


def _weights_in_zip(path: Path) -> io.BytesIO:
    """Return the HDF5 file in the zip archive that Keras 3 writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo(weight_files.KERAS_WEIGHTS)
            if entry.file_size > _MAX_GROWTH * path.stat().st_size:
                raise UbhpdError(f"{path} states more weights than its bytes can hold: {weight_files.AGAIN}.")
            return io.BytesIO(archive.read(entry))
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, NotImplementedError, MemoryError) as error:
        raise UbhpdError(f"{path} is damaged or cut off ({error}): {weight_files.AGAIN}.") from None


def _keras(path: Path, content: Path | io.BytesIO) -> Tensors:
    found: Tensors = {}

    def take(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            if item.is_virtual or item.external:
                raise UbhpdError(f"{path}: {name} lies in another file, which is not opened: give one whole file.")
            if item.dtype.kind not in "fiub":
                raise UbhpdError(f"{path}: {name} is of type {item.dtype}, no numbers: give a file of weights.")
            found[name.removesuffix(":0")] = _numbers(torch.as_tensor(np.asarray(item[()])))

    try:
        with h5py.File(content, "r") as file:
            group = file[_KERAS] if isinstance(file.get(_KERAS, getlink=True), h5py.HardLink) else file
            group.visititems(take)
            found = _by_keras_names(found)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise UbhpdError(f"{path} is damaged or cut off ({error}): {weight_files.AGAIN}.") from None
    short = {name: "/".join(name.split("/")[-2:]) for name in found}
    is_unique = max(Counter(short.values()).values(), default=1) == 1
    return {short[name] if is_unique else name: values for name, values in found.items()}


def _by_keras_names(found: Tensors) -> Tensors:
    """Return the tensors of Keras 3, which numbers those of a layer ("dense/vars/0"), as Keras 2 named them.

    The names stay where the number of a layer's tensors leaves them open.
    """
    layers = Counter(name.rpartition("/")[0] for name in found if _NUMBERED.search(name))
    named = {}
    for name, values in found.items():
        layer, _, number = name.rpartition("/")
        kinds = _KERAS_KINDS.get(layers[layer], ()) if _NUMBERED.search(name) else ()
        named[f"{layer.removesuffix('/vars')}/{kinds[int(number)]}" if kinds else name] = values
    return named if len(named) == len(found) else found


def _numbers(tensor: torch.Tensor) -> AnyArray:
    values: AnyArray = (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()
    return values


def imported(files: Sequence[Path], name: str, chosen: Mapping[str, str] | None = None) -> Model:
    """Return a model with the weights of others.

    Args:
        files: weight files; several for a model that is put together of several.
        name: of the model.
        chosen: options as typed.

    Raises:
        UbhpdError: a file is of no use (see `foreign.read`), the tensors are not those of the model, or the model
            has outputs that are not finite.
    """
    model = Model.untrained(name, chosen)
    tensors: Mapping[str, Any] = read_files(files)
    where = " + ".join(map(str, files))
    own = {n for n in model.network.state_dict() if not n.endswith(_COUNTER)}
    # A file may also have the names of this package's network, as somebody saves its state_dict.
    if hasattr(model.module, "published") and not own <= tensors.keys():
        try:
            tensors = model.module.published(model.config, tensors)
        except UbhpdError as error:
            raise UbhpdError(f"{where}: {error}") from None
    filled = {n: torch.as_tensor(np.asarray(v)) for n, v in tensors.items()}
    state = model.network.state_dict()
    if {n for n in state if not n.endswith(_COUNTER)} <= filled.keys():  # torch before 0.4.1 had no such counters
        filled |= {n: torch.zeros_like(v) for n, v in state.items() if n not in filled}
    fill(model.network, filled, where)
    check_answer(model, where)
    origin = {"how": "imported", "files": [checkpoint.file_origin(f) for f in files]}
    return model.of_origin(origin, card(name).license)


def with_backbone(model: Model, file: Path) -> Model:
    """Return the untrained model with a backbone's published weights, as a rule those of ImageNet.

    Args:
        model: its network has a backbone.
        file: the weights; `imagenet`, where no file has that name, stands for torchvision's, which are downloaded.

    Raises:
        UbhpdError: the model has no backbone, the file does not fit it, or there are no such weights to download.
    """
    from ubhpd.nn.weight_files import load_backbone

    backbone = getattr(model.network, "backbone", None)
    if backbone is None:
        raise UbhpdError(f"{model.name} has no backbone that weights could be loaded into: leave --backbone out.")
    if is_imagenet(file):
        if (name := torchvision_name(backbone)) is None:
            kind = type(backbone).__name__
            raise UbhpdError(
                f"torchvision publishes no ImageNet weights for the backbone of {model.name}, {kind}: give a file by "
                "--backbone."
            )
        file = imagenet_weights(name)
    load_backbone(backbone, file)
    model.network.has_published_backbone = True
    origin = {**model.about.origin, "backbone": checkpoint.file_origin(file)}
    return model.of_origin(origin, f"that of the backbone's weights, {file.name}")


def check_answer(model: Model, where: str) -> None:
    """Raise UbhpdError unless the model gives finite poses for a random input; `where` begins the sentence."""
    with torch.inference_mode():
        output = model.network(invented_input(model.kind, model.recipe))
        outputs = {**output, "the pose": model.network.pose(output)}
    for name, values in outputs.items():
        if not values.isfinite().all():
            raise UbhpdError(f"{where}: with these weights {name} is not finite, even for an invented input.")


def invented_input(kind: str, recipe: InputRecipe, heads: int = 2) -> torch.Tensor:
    """Return random input of the form that a network of this kind sees, always the same."""
    draw = torch.Generator().manual_seed(0)
    if kind == "landmarks":
        return torch.rand((heads, 68, 2), generator=draw) - 0.5
    frames = () if kind == "image" else (recipe.frames,)
    values = torch.rand((heads, *frames, 3, recipe.size, recipe.size), generator=draw) * 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (recipe.mean, recipe.std))
    return (values - mean) / std
