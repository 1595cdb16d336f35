"""HPE: two stages of ensembles; each member classifies angles into bins and regresses over its k most probable bins.

Image -> ResNet-50 -> mean over the feature map. Stage 1: several classifiers of each angle, whose bins of 3 degrees are
shifted against each other by a share of a bin; the angle of a member is the expectation over its top k bins, their
probabilities made to sum to 1, and the stage's angle is the mean of its members. Stage 2: as many classifiers of what
stage 1 has left over, into bins of 1 degree within 16 degrees, by the features and the angles of stage 1; again top k
and a mean. The prediction is the sum of both.

Read from the title, all that is at hand of the paper: two-stage ensembles, and top-k regression.
Guessed: everything else, such as that the second stage corrects the first, the number and kind of members, the bins,
that "HPE-40" of DADL's tables has k = 40 (`hpe_40`), the loss (each member's cross entropy, and the squared error of
each stage) and its weight. Backbone, crops, augmentations, optimiser and schedule are Hopenet's, at 1e-4. So this is a
reading: a result of it is no reproduction of the printed one.

The printed numbers: two papers print its row with yaw and roll exchanged against each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ubhpd.core.errors import UbhpdError
from ubhpd.nn.backbones import backbone
from ubhpd.nn.contract import (
    InputRecipe,
    Output,
    PoseNetwork,
    Target,
    TrainingRecipe,
    hopenet_images,
    hopenet_training_from_scratch,
)
from ubhpd.nn.outputs import Bins, cross_entropy
from ubhpd.nn.resnets import LAYOUTS

TITLE = "HPE"
PAPER = (
    "Huang, Chen, Xu, Zhou: Improving head pose estimation using two-stage ensembles with top-k regression. "
    "Image and Vision Computing 2020."
)
CODE = ""
LICENSE = "no code and no weights were released"
KIND = "image"
MODELS = {"hpe": {}, "hpe_40": {"top_k": 40}}
PARAMETERS = {"hpe": 25_353_023, "hpe_40": 25_353_023}
REPORTED = {"hpe": "HPE", "hpe_40": "HPE"}

_BACKBONES = tuple(f"resnet{depth}" for depth in LAYOUTS)
_COARSE = Bins(count=67, width_deg=3.0, first_deg=-102.0)
_FINE = Bins(count=33, width_deg=1.0, first_deg=-16.5)
_UNIT_DEG = 90.0  # the angles of stage 1 enter stage 2 in this unit


@dataclass(frozen=True)
class Config:
    """Options of HPE.

    size: side of the input in pixels. backbone: a ResNet, as resnet50. members: classifiers of each angle in a stage.
    top_k: bins of a member that the regression uses; more than it has mean all. regression_weight: of the squared
    errors in degrees^2; the cross entropies have 1.
    """

    size: int = 224
    backbone: str = "resnet50"
    members: int = 3
    top_k: int = 10
    regression_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.size < 32:
            raise UbhpdError(f"HPE divides its input by 32, and size is {self.size}: give 32 or more.")
        if self.backbone not in _BACKBONES:
            raise UbhpdError(f'HPE has no backbone "{self.backbone}": choose one of {", ".join(_BACKBONES)}.')
        if self.members < 1 or self.top_k < 1:
            raise UbhpdError(f"HPE has members {self.members} and top_k {self.top_k}: give 1 or more.")
        if not 0 <= self.regression_weight < float("inf"):
            raise UbhpdError(f"regression_weight of HPE is {self.regression_weight}: give a finite number not below 0.")


def input_recipe(config: Config) -> InputRecipe:
    """Return Hopenet's crops, RGB, normalised as for ImageNet."""
    return hopenet_images(config.size)


def training_recipe(config: Config) -> TrainingRecipe:
    """Return Hopenet's training with a higher learning rate, see above."""
    return hopenet_training_from_scratch()


class _Stage(nn.Module):
    """An ensemble of classifiers of three angles; member m has its bins shifted by m / members of a bin."""

    def __init__(self, features: int, bins: Bins, config: Config) -> None:
        super().__init__()
        self.members, self.top_k = config.members, min(config.top_k, bins.count)
        self.bins = [
            Bins(bins.count, bins.width_deg, bins.first_deg + bins.width_deg * m / self.members)
            for m in range(self.members)
        ]
        self.classify = nn.Linear(features, self.members * 3 * bins.count)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits (n, members, 3, bins) of features (n, f)."""
        logits: torch.Tensor = self.classify(features)
        return logits.reshape(-1, self.members, 3, self.bins[0].count)

    def angles_deg(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the mean angles (n, 3) of the members."""
        each = [top_k_deg(logits[:, m], own, self.top_k) for m, own in enumerate(self.bins)]
        return torch.stack(each).mean(dim=0)

    def entropy(self, logits: torch.Tensor, angles_deg: torch.Tensor) -> torch.Tensor:
        """Return the mean cross entropy of the members, summed over the angles."""
        each = [cross_entropy(logits[:, m], angles_deg, own) for m, own in enumerate(self.bins)]
        return torch.stack(each).mean()


def top_k_deg(logits: torch.Tensor, bins: Bins, k: int) -> torch.Tensor:
    """Return the angles (...) of logits (..., count): the expectation over the middles of the k most probable bins."""
    best, index = logits.topk(k, dim=-1)
    middles = (index.to(logits.dtype) + 0.5) * bins.width_deg + bins.first_deg
    return (best.softmax(dim=-1) * middles).sum(dim=-1)


class Network(PoseNetwork):
    """Images (n, 3, size, size) to "coarse" and "fine", logits of both stages, and their angles in degrees."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config: Config = config
        self.backbone = backbone(config.backbone)
        self.first = _Stage(self.backbone.channels, _COARSE, config)
        self.second = _Stage(self.backbone.channels + 3, _FINE, config)

    def forward(self, images: torch.Tensor) -> Output:
        """Return logits and angles of both stages; the second takes the first's angles as given."""
        features = self.backbone.pooled(self.backbone(images))
        coarse = self.first(features)
        coarse_deg = self.first.angles_deg(coarse)
        fine = self.second(torch.cat([features, coarse_deg.detach() / _UNIT_DEG], dim=1))
        return {"coarse": coarse, "coarse_deg": coarse_deg, "fine": fine, "fine_deg": self.second.angles_deg(fine)}

    def pose(self, output: Output) -> torch.Tensor:
        """Return yaw, pitch, roll (n, 3) in degrees."""
        return output["coarse_deg"] + output["fine_deg"]

    def loss(self, output: Output, target: Target) -> Output:
        """Return the cross entropy "class_N" and the squared error "regression_N" of stage N, summed over angles."""
        truth, weight = target.angles_deg, self.config.regression_weight
        left = truth - output["coarse_deg"].detach()
        return {
            "class_1": self.first.entropy(output["coarse"], truth),
            "regression_1": weight * (output["coarse_deg"] - truth).square().mean(dim=0).sum(),
            "class_2": self.second.entropy(output["fine"], left),
            "regression_2": weight * (output["fine_deg"] - left).square().mean(dim=0).sum(),
        }
