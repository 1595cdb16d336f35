"""What trained networks know, as the target of another: the mean of their probabilities.

Hinton et al., Distilling the Knowledge in a Neural Network, 2015; several teachers as in EHPNet (Thai et al., ICPRAM
2022, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch.nn import functional

from ubhpd.core.errors import UbhpdError
from ubhpd.nn.contract import PoseNetwork


def teacher_probabilities(networks: Sequence[PoseNetwork], images: torch.Tensor) -> torch.Tensor:
    """Return the mean (n, 3, bins) of the probabilities that teachers give: what `Target.teacher` is.

    Teachers run in evaluation mode and without gradient; their mode is restored afterwards.

    Args:
        networks: teachers that take the same images and have the same bins. A teacher has a method `probabilities`,
            from its output to (n, 3, bins).
        images: (n, 3, size, size), normalised.

    Raises:
        UbhpdError: no teacher, a network that cannot be one, or teachers with different bins.
    """
    if not networks:
        raise UbhpdError("Distillation needs a teacher: name one or more trained models.")
    outputs = [_output(network, images) for network in networks]
    if len(counts := {answer.shape[-1] for answer in outputs}) > 1:
        raise UbhpdError(f"The teachers have {', '.join(map(str, sorted(counts)))} bins: take those of one kind.")
    return torch.stack(outputs).mean(dim=0)


def divergence(logits: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Return T^2 KL(teacher || softmax(logits)) of angles, both at temperature T: mean over heads, sum over angles.

    Args:
        logits: the student's, (n, 3, bins).
        teacher: probabilities (n, 3, bins). At T they are p^(1/T), normalised: for a single teacher just the softmax
            of its logits over T.
        temperature: T; above 1 it brings out what is improbable (Hinton et al., section 2).
    """
    softened = (teacher.log() / temperature).softmax(dim=-1)
    student = (logits / temperature).log_softmax(dim=-1)
    return temperature**2 * functional.kl_div(student, softened, reduction="sum") / len(logits)


def _output(network: PoseNetwork, images: torch.Tensor) -> torch.Tensor:
    probabilities = getattr(network, "probabilities", None)
    if probabilities is None:
        raise UbhpdError(
            f"A network of {type(network).__module__} gives no probabilities of bins: take a teacher that does."
        )
    trains = network.training
    network.eval()
    with torch.no_grad():
        output = cast(torch.Tensor, probabilities(network(images)))
    network.train(trains)
    return output
