"""One step of training: optimiser, learning rate and gradient, as a `TrainingRecipe` says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import cos, pi

import numpy as np
import torch
from torch import nn

from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import FloatArray
from ubhpd.nn.contract import Output, PoseNetwork, Target, TrainingRecipe
from ubhpd.training.request import TrainRequest

SHARE = "share"  # key of a parameter group: its share of the learning rate


def recipe_asked_for(recipe: TrainingRecipe, request: TrainRequest) -> TrainingRecipe:
    """Return the recipe of the paper, with what the request says otherwise.

    Epochs stay the paper's: the schedule is stretched over the length of the run, see `learning_rate`.
    """
    given = {n: getattr(request, n) for n in ("batch_size", "lr", "optimizer", "schedule")}
    return replace(recipe, **{name: value for name, value in given.items() if value is not None})


def learning_rate(recipe: TrainingRecipe, step: int, steps: int) -> float:
    """Return the learning rate of a step, from 0, of a run of `steps`.

    The run as a whole is the `recipe.epochs` epochs of the paper, whatever its length: milestones, warming up and
    decay come at the paper's share of it. Warming up is linear and ends at the full rate; what follows of "cosine" is

        lr (f + (1 - f) (1 + cos(pi t)) / 2)       t from 0 to 1 at the last step, f = final_share
    """
    warm = recipe.warmup_epochs * steps // recipe.epochs
    if step < warm:
        return recipe.lr * (step + 1) / (warm + 1)
    epoch = step * recipe.epochs // steps
    if recipe.schedule == "step":
        return recipe.lr * recipe.gamma ** sum(m <= epoch for m in recipe.milestones)
    if recipe.schedule == "exponential":
        return recipe.lr * recipe.gamma**epoch
    if recipe.schedule == "cosine":
        t = (step - warm) / max(1, steps - 1 - warm)
        return recipe.lr * (recipe.final_share + (1 - recipe.final_share) * (1 + cos(pi * t)) / 2)
    return recipe.lr


def optimizer_of(network: PoseNetwork, recipe: TrainingRecipe, fused: bool | None = True) -> torch.optim.Optimizer:
    """Return the optimiser of a network's parameters, in the groups of `PoseNetwork.learning_rates`.

    Fused, it takes one pass over all numbers of a parameter instead of one per operation: for small batches on a CPU
    it is otherwise a fifth of the step. None is what torch does by default.

    Raises:
        UbhpdError: the network leaves a parameter out of its groups.
    """
    rates = network.learning_rates()
    listed = {id(p) for parameters, _ in rates for p in parameters}
    left_out = [n for n, p in network.named_parameters() if p.requires_grad and id(p) not in listed]
    if left_out:
        raise UbhpdError(f"{type(network).__module__} gives no learning rate for {left_out[0]}: add it to its groups.")
    groups = [{"params": [p for p in parameters if p.requires_grad], SHARE: share} for parameters, share in rates]
    groups = [g for g in groups if g["params"]]
    device = next(network.parameters()).device
    is_recordable = device.type == "cuda" and bool(fused)
    lr, decay = recipe.lr, recipe.weight_decay
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        momentum, nesterov = recipe.momentum, recipe.nesterov
        optimizer = torch.optim.SGD(groups, lr, momentum, weight_decay=decay, nesterov=nesterov, fused=fused)
    else:
        kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
        optimizer = kind(groups, lr, recipe.betas, recipe.eps, decay, fused=fused, capturable=is_recordable)
    if is_recordable:
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(lr, device=device)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give each group its share of a learning rate; a rate that is a tensor keeps its place in memory."""
    for group in optimizer.param_groups:
        share = lr * group[SHARE]
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(share)
        else:
            group["lr"] = share


def clip(parameters: Sequence[nn.Parameter], recipe: TrainingRecipe) -> None:
    """Limit each number of the gradients, then their common norm, where the recipe says so."""
    if recipe.clip_value is not None:
        nn.utils.clip_grad_value_(parameters, recipe.clip_value)
    if recipe.clip_norm is not None:
        nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)


def loss_terms(network: PoseNetwork, output: Output, target: Target, weights: FloatArray | None = None) -> Output:
    """Return the terms of the loss in single precision, weighted by head where weights are given.

    A network's loss is a mean over heads, and is not known per head. Therefore the loss is computed for groups of equal
    weight together: the term is sum_g w_g n_g / n L_g over the groups g of n_g heads with the weight w_g. Where a
    network takes its mean over fewer than all heads, as over those with landmarks, it does so in each group.

    Args:
        network: whose loss it is.
        output: what it gave for n heads.
        target: the truth.
        weights: of the heads (n,); None for 1 each.
    """
    output = single_precision(output)
    if weights is None:
        return network.loss(output, target)
    found: Output = {}
    values, group = np.unique(weights, return_inverse=True)
    for number, weight in enumerate(values.tolist()):
        rows = torch.from_numpy(np.flatnonzero(group == number)).to(target.angles_deg.device)
        part = {name: value[rows] for name, value in output.items()}
        own = Target(*(None if t is None else t[rows] for t in target))  # type: ignore[arg-type]
        for name, term in network.loss(part, own).items():
            found[name] = found.get(name, 0) + weight * len(rows) / len(weights) * term
    return found


def single_precision(output: Output) -> Output:
    """Return what a network gave, its 16-bit floats as 32-bit ones: bfloat16 has steps of half a degree at 90."""
    return {name: value.float() if value.is_floating_point() else value for name, value in output.items()}
