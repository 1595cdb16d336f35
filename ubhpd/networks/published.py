"""Foreign weights under a network's own names: every tensor is used or knowingly left aside, or there is an error."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from ubhpd.errors import UbhpdError

# Only a normalisation without momentum reads this count, and Keras and older checkpoints have none.
_COUNTER = "num_batches_tracked"
_SHOWN = 3


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
    missing = [name for name in names.values() if name not in tensors]
    known = {*published_names.values(), *ignored}
    unknown = [name for name in tensors if name not in known]
    if missing or unknown:
        parts = [f"lack {_listed(missing)}"] * bool(missing) + [f"have {_listed(unknown)} too many"] * bool(unknown)
        raise UbhpdError(f"The weights {' and '.join(parts)}: give those of this very model, with the same options.")
    filled = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in own.items() if name not in names}
    for name, published in names.items():
        tensor = torch.as_tensor(tensors[published])
        if tensor.shape != own[name].shape:
            shapes = f"{tuple(tensor.shape)} where {tuple(own[name].shape)} belongs"
            raise UbhpdError(f"The tensor {published} has shape {shapes}: give the weights of this very model.")
        filled[name] = tensor.detach().to(own[name].dtype, copy=True).contiguous()
    return filled


def _listed(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
