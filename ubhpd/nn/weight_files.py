"""Weight files that ubhpd did not write: what kind a file is, its tensors, and whether they fit a network.

The content says what a file is, not its name. Nothing in a file is ever executed: torch unpickles tensors alone. A
state dict may be bare or wrapped ({"state_dict": ...}, {"model": ...}), and its names may begin with what
DataParallel, torch.compile or Lightning put before them.

`check_fit` is the one place that compares tensors with those of a network: every tensor is used or knowingly left
aside, or there is an error.
"""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from ubhpd.core.errors import UbhpdError, shortened
from ubhpd.nn.backbone import Backbone

Tensors = dict[str, torch.Tensor]
Kind = Literal["keras", "keras_zip", "torch", "safetensors", "npz"]

AGAIN = "get it again"  # what to do about a damaged file
_GIVE = "give .h5 or .keras of Keras, .pth of torch, or .safetensors"

_HDF5 = b"\x89HDF\r\n\x1a\n"
_TORCH = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # a zip archive, or pickles one after another
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net")
_COMPILED = "_orig_mod"  # put before the names of a network, or of a part of it, by torch.compile
_PREFIXES = ("module.", "model.", "network.", "net.")  # of DataParallel, of Lightning, and of classes that hold one
KERAS_WEIGHTS = "model.weights.h5"  # in the zip archive that Keras 3 writes as .keras


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
    if start[4:9] == b"\0\0\0\0{":  # after the length of the header, whose first bytes may be those of a pickle
        return "safetensors"
    if start.startswith(b"PK"):
        _check_zip(path)
        names = _zip_names(path)
        if names and all(name.endswith(".npy") for name in names):
            return "npz"
        return "keras_zip" if KERAS_WEIGHTS in names else "torch"
    if start.startswith(_TORCH):
        return "torch"
    if start.startswith(b"\x93NUMPY"):
        raise UbhpdError(f"{path} is an array of NumPy (.npy), which has no names: {_GIVE}.")
    if start[8:9] == b"{":
        return "safetensors"
    raise UbhpdError(f"{path} is no weight file: {_GIVE}.")


def _zip_names(path: Path) -> list[str]:
    """Return the names in a zip archive, none if it is damaged: the reader of its kind says what is wrong."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []


def _check_zip(path: Path) -> None:
    names = _zip_names(path)
    if all(name.endswith(".npy") for name in names):
        return
    if KERAS_WEIGHTS not in names and not any(name.endswith(("data.pkl", "constants.pkl")) for name in names):
        raise UbhpdError(f"{path} is a zip archive without weights in it: unpack it, and {_GIVE}.")


def tensors(path: Path) -> Tensors:
    """Return the tensors of a file of torch or safetensors by name, dense and on the CPU, of the types they have there.

    The names are the keys of the state dict, bare or wrapped in {"state_dict": ...}, without what DataParallel,
    torch.compile or Lightning put before all of them.

    Raises:
        UbhpdError: as `kind`; or of Keras, damaged, or with anything but plain tensors in it.
    """
    found = kind(path)
    if found == "npz":
        raise UbhpdError(f"{path} is an archive of NumPy arrays (.npz), no weight file of Keras or torch: {_GIVE}.")
    if found in ("keras", "keras_zip"):
        raise UbhpdError(f"{path} is a file of Keras: give .pth of torch or .safetensors.")
    return _without_prefixes(_torch(path) if found == "torch" else _safetensors(path), path)


def _without_prefixes(found: Tensors, path: Path) -> Tensors:
    """Return the tensors by the names that the network itself has."""
    names = {name: ".".join(part for part in name.split(".") if part != _COMPILED) for name in found}
    names = {name: short.removeprefix("module.") for name, short in names.items()}
    while names:
        prefix = next((p for p in _PREFIXES if all(short.startswith(p) for short in names.values())), None)
        if prefix is None:
            break
        names = {name: short.removeprefix(prefix) for name, short in names.items()}
    without: Tensors = {}
    for name, short in names.items():
        if short in without:
            raise UbhpdError(f"{path} has {short} twice, with a prefix and without it: give one network.")
        without[short] = found[name]
    return without


def _is_torchscript(path: Path) -> bool:
    """Return True for an archive of TorchScript, which holds code besides tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _torch(path: Path) -> Tensors:
    more = f"{path} holds more than tensors, so it is not opened: save the state_dict of the network alone."
    if _is_torchscript(path):  # torch 2.4 runs torch.jit.load on it, with weights_only too
        raise UbhpdError(more)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pickle protocol
            # Files of torch before 1.6 are no zip archives, and cannot be mapped.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged or hostile pickle can raise any of them
        text = str(error).lower()
        is_truncated = "unexpected eof" in text  # torch 2.4 adds to this, too, that the file may be loaded as a pickle
        if not is_truncated and ("weights only" in text or "weights_only" in text):
            raise UbhpdError(more) from None
        raise UbhpdError(f"{path} is damaged or no file of torch ({type(error).__name__}): {AGAIN}.") from None
    content = _unwrapped(content, path)
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise UbhpdError(f"{path} holds no tensors by name: save the state_dict of the network.")
    found: Tensors = {}
    for key, value in content.items():
        if not _is_plain(value):
            raise UbhpdError(f"{path}: {key} is no plain tensor: save the state_dict of the network alone.")
        found[key] = value.detach()
    return found


def _unwrapped(content: Any, path: Path) -> Any:
    """Return the innermost state dict: that of a usual name, else the only one there is.

    One level a wrapper, for a pickle can hold itself.
    """
    for _ in _WRAPPERS:
        if not isinstance(content, Mapping):
            break
        inner = {k: v for k, v in content.items() if isinstance(v, Mapping) and v}
        named = next((inner[k] for k in _WRAPPERS if k in inner), None)
        if named is None and not any(map(_is_plain, content.values())):
            holding = {
                k: v for k, v in inner.items() if any(isinstance(x, (torch.Tensor, Mapping)) for x in v.values())
            }
            holding = {k: v for k, v in holding.items() if "optim" not in str(k).lower()}
            if len(holding) > 1:
                names = ", ".join(str(k)[:40] for k in list(holding)[:_SHOWN])
                raise UbhpdError(f"{path} holds several sets of tensors ({names}): save the state_dict of one network.")
            named = next(iter(holding.values()), None)
        if named is None:
            break
        content = named
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


# Only a normalisation without momentum reads this count, and Keras and older checkpoints have none.
_COUNTER = "num_batches_tracked"
_SHOWN = 3


def check_fit(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], where: str, remedy: str,
              optional: Collection[str] = (), they: Literal["it", "they"] = "it") -> None:  # fmt: skip
    """Raise UbhpdError unless tensors have the names, shapes and kinds of numbers (floating-point or whole) expected.

    Args:
        found: by name.
        expected: by the same names; the values may be on the device "meta".
        where: what does not fit what; begins the sentence.
        remedy: what to do; ends the sentence.
        optional: names that may be missing.
        they: what `where` names, for the sentence.
    """
    missing = [name for name in expected if name not in found and name not in optional]
    unknown = [name for name in found if name not in expected]
    lack, have = ("lacks", "has") if they == "it" else ("lack", "have")
    if missing and unknown and (prefix := _prefix_of(found, missing)):
        others = [name for name in found if not name.startswith(prefix)]
        besides = f", and {they} {have} {_listed(others)} besides" if others else ""
        raise UbhpdError(
            f"{where}: all names fit but for {shortened(prefix)} before them{besides}: save the state_dict of that "
            "part alone."
        )
    parts = [f"{lack} {_listed(missing)}"] * bool(missing) + [f"{have} {_listed(unknown)} too many"] * bool(unknown)
    if parts:
        raise UbhpdError(f"{where}: {they} {' and '.join(parts)}; {remedy}.")
    for name, tensor in found.items():
        own = expected[name]
        if tensor.shape != own.shape:
            shapes = f"{tuple(tensor.shape)} where {tuple(own.shape)} belongs"
            raise UbhpdError(f"{where}: {name} has shape {shapes}; {remedy}.")
        if tensor.is_floating_point() != own.is_floating_point():
            types = f"{tensor.dtype} where {own.dtype} belongs"
            raise UbhpdError(f"{where}: {name} is of type {types}; {remedy}.")


def _prefix_of(found: Mapping[str, torch.Tensor], missing: list[str]) -> str:
    """Return what stands before names of the file, if all missing names are there behind it; "" otherwise."""
    name = missing[0]
    ends = [other.removesuffix(name) for other in found if other.endswith(name) and other != name]
    return next((p for p in ends if all(p + n in found for n in missing)), "")


def fit(
    own: Mapping[str, torch.Tensor],
    tensors: Mapping[str, Any],
    published_names: Mapping[str, str],
    ignored: Collection[str] = (),
) -> dict[str, torch.Tensor]:
    """Return a state dict with the keys, shapes and types of `own`, filled from published tensors.

    Args:
        own: state dict of the network; its values may be on the device "meta".
        tensors: arrays or tensors by their published names, in torch's layout.
        published_names: the published name of each of the network's own.
        ignored: published names that are known and not needed.

    Raises:
        UbhpdError: a tensor is missing, unknown or of another shape.
    """
    names = {name: published_names[name] for name in own if not name.endswith(_COUNTER)}
    aside = {*published_names.values(), *ignored} - set(names.values())
    expected = {published: own[name] for name, published in names.items()}
    found = {name: torch.as_tensor(values) for name, values in tensors.items() if name not in aside}
    remedy = "give those of this very model, with the same options"
    check_fit(found, expected, "The weights do not fit this model", remedy, they="they")
    filled = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in own.items() if name not in names}
    for name, published in names.items():
        filled[name] = found[published].detach().to(own[name].dtype, copy=True).contiguous()
    return filled


def _listed(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def load_backbone(backbone: Backbone, file: str | os.PathLike[str], with_output: bool = True) -> list[str]:
    """Return the names of the file's tensors that were left aside, after copying all others into the backbone.

    Left aside is what the backbone lacks of the classifier: all of it where it has none, the layer with one row per
    class where it keeps only what comes before. If anything is wrong the backbone stays as it was.

    Args:
        backbone: gets the weights, converted to its own precision and device.
        file: the checkpoint.
        with_output: False leaves the layer with one row per class as it is, for another number of classes.

    Raises:
        UbhpdError: the file is of no use (see `weight_files.tensors`), not one of this network (names or shapes
            differ), or has values that are not finite.
    """
    path = Path(file)
    found = tensors(path)
    own = backbone.state_dict()
    output = f"{backbone.OUTPUT}."
    kept = {} if with_output else {name: tensor for name, tensor in own.items() if name.startswith(output)}
    expected = {name: tensor for name, tensor in own.items() if name not in kept}
    lacks_output = not any(name.startswith(output) for name in expected)
    classifier = f"{backbone.OUTPUT.partition('.')[0]}."
    wanted = {
        name: tensor
        for name, tensor in found.items()
        if name in expected or not (lacks_output and name.startswith(classifier))
    }
    counters = [name for name in expected if name.endswith(_COUNTER)]
    check_fit(wanted, expected, f"{path} does not fit this {type(backbone).__name__}",
              "give a checkpoint of this very network, before any quantisation", counters)  # fmt: skip
    _check_values(wanted, path)
    # No metadata of the file's goes along: so torch takes a missing counter for an older file's, not for an error.
    backbone.load_state_dict(wanted | kept)
    return [name for name in found if name not in wanted]


def _check_values(tensors: Tensors, path: Path) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise UbhpdError(f"{path} has values in {name} that are not finite: give a checkpoint that is sound.")
