"""A user's ImageNet checkpoint into a backbone: all of it, or a sentence that says what is wrong with it.

Checkpoints are .pth or .pt of torch.save, or .safetensors, with the published names of the family, bare or wrapped as
`weight_files` reads them.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from ubhpd.errors import UbhpdError
from ubhpd.networks import weight_files
from ubhpd.networks.backbone import Backbone
from ubhpd.networks.weight_files import Tensors

# A count that older checkpoints lack and that only a normalisation without momentum reads.
_COUNTER = "num_batches_tracked"


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
    found = weight_files.tensors(path)
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
    _check(wanted, expected, f"{path} does not fit this {type(backbone).__name__}")
    _check_values(wanted, path)
    # No metadata of the file's goes along: so torch takes a missing counter for an older file's, not for an error.
    backbone.load_state_dict(wanted | kept)
    return [name for name in found if name not in wanted]


def _check(found: Tensors, expected: Tensors, problem: str) -> None:
    missing = [name for name in expected if name not in found and not name.endswith(_COUNTER)]
    unexpected = [name for name in found if name not in expected]
    parts = [f"it lacks {_listed(missing)}"] if missing else []
    parts += [f"it has {_listed(unexpected)} too many"] if unexpected else []
    if parts:
        raise UbhpdError(f"{problem}: {' and '.join(parts)}; give a checkpoint of this very network.")
    for name, tensor in found.items():
        own = expected[name]
        if tensor.shape != own.shape:
            shapes = f"{tuple(tensor.shape)} where {tuple(own.shape)} belongs"
            raise UbhpdError(f"{problem}: {name} has shape {shapes}; give a checkpoint of this very network.")
        if tensor.is_floating_point() != own.is_floating_point():
            types = f"{tensor.dtype} where {own.dtype} belongs"
            raise UbhpdError(f"{problem}: {name} is of type {types}; give the checkpoint before quantisation.")


def _check_values(tensors: Tensors, path: Path) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise UbhpdError(f"{path} has values in {name} that are not finite: give a checkpoint that is sound.")


def _listed(names: list[str], shown: int = 3) -> str:
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")
