"""Weights of others into a model: read, renamed by the model's own `published`, tried once, kept with their origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ubhpd.errors import UbhpdError
from ubhpd.models import checkpoint, foreign
from ubhpd.models.catalogue import card
from ubhpd.models.model import Model, fill
from ubhpd.networks.contract import InputRecipe


def imported(files: Sequence[Path], name: str, chosen: Mapping[str, str] | None = None) -> Model:
    """Return a model with the weights of others.

    Args:
        files: weight files; several for a model that is put together of several.
        name: of the model.
        chosen: options as typed.

    Raises:
        UbhpdError: a file is of no use (see `foreign.read`), the tensors are not those of the model, or the model
            answers with numbers that are not finite.
    """
    model = Model.untrained(name, chosen)
    tensors: Mapping[str, Any] = foreign.read_files(files)
    where = " + ".join(map(str, files))
    if hasattr(model.module, "published"):
        try:
            tensors = model.module.published(model.config, tensors)
        except UbhpdError as error:
            raise UbhpdError(f"{where}: {error}") from None
    fill(model.network, {n: torch.as_tensor(np.asarray(v)) for n, v in tensors.items()}, where)
    check_answer(model, where)
    origin = {"how": "imported", "files": [checkpoint.file_origin(f) for f in files]}
    return model.of_origin(origin, card(name).license)


def with_backbone(model: Model, file: Path) -> Model:
    """Return the untrained model with a backbone's published weights, as a rule those of ImageNet.

    Raises:
        UbhpdError: the model has no backbone, or the file does not fit it.
    """
    from ubhpd.networks.pretrained import load_backbone

    backbone = getattr(model.network, "backbone", None)
    if backbone is None:
        raise UbhpdError(f"{model.name} has no backbone that weights could be loaded into: leave --backbone out.")
    load_backbone(backbone, file)
    origin = {**model.about.origin, "backbone": checkpoint.file_origin(file)}
    return model.of_origin(origin, f"that of the backbone's weights, {file.name}")


def check_answer(model: Model, where: str) -> None:
    """Raise UbhpdError unless the model answers an invented input with finite poses; `where` begins the sentence."""
    with torch.inference_mode():
        output = model.network(invented_input(model.kind, model.recipe))
        answers = {**output, "the pose": model.network.pose(output)}
    for name, values in answers.items():
        if not values.isfinite().all():
            raise UbhpdError(f"{where}: with these weights {name} is not finite, even for an invented input.")


def invented_input(kind: str, recipe: InputRecipe, heads: int = 2) -> torch.Tensor:
    """Return random input of the form that a network of this kind sees, always the same."""
    draw = torch.Generator().manual_seed(0)
    if kind == "landmarks":
        return torch.rand((heads, 68, 2), generator=draw) - 0.5
    frames = () if kind == "picture" else (recipe.frames,)
    values = torch.rand((heads, *frames, 3, recipe.size, recipe.size), generator=draw) * 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (recipe.mean, recipe.std))
    return (values - mean) / std
