"""QuatNet: a unit quaternion by L2 regression, its features led by ordinal regression of the three angles.

Image -> ResNet-50 -> mean over the feature map -> Linear(4), normalised: the quaternion, which is the prediction.
Beside it a Linear of 65 binary answers per angle, "is the angle above -96, -93, ... 96 degrees?": they train the
features and predict nothing.

Read from the abstract, all that is at hand of the paper: a multi-regression loss, an L2 loss of quaternions together
with an ordinal regression loss that deals with features that change in another way at other angles; a convolutional
network on RGB images; quaternions instead of angles, against the ambiguity of these.
Guessed: everything else. The ordinal loss is the usual one of binary cross entropies, one a threshold (Niu et al., CVPR
2016), on Hopenet's 66 bins; the L2 loss is the squared distance to q or -q, whichever is nearer, for both are the same
rotation; ordinal_weight is 1. Backbone, crops, augmentations, optimiser and schedule are Hopenet's, at 1e-4, since no
layer starts from released weights. So this is a reading: a result of it is no reproduction of the printed one.

The printed numbers: the row in table 1 of OsGG-Net has yaw and roll exchanged; the MAE is not affected.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

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
from ubhpd.nn.outputs import HOPENET_BINS, quaternion_from_euler, rotation_from_quaternion
from ubhpd.nn.resnets import LAYOUTS

TITLE = "QuatNet"
PAPER = (
    "Hsu, Wu, Wan, Wong, Lee: QuatNet: Quaternion-Based Head Pose Estimation With Multiregression Loss. "
    "IEEE Transactions on Multimedia 2019."
)
CODE = ""
LICENSE = "no code and no weights were released"
KIND = "image"
MODELS: dict[str, dict[str, str]] = {"quatnet": {}}
PARAMETERS = {"quatnet": 23_915_783}
REPORTED = {"quatnet": "QuatNet"}

_BACKBONES = tuple(f"resnet{depth}" for depth in LAYOUTS)
_THRESHOLDS = HOPENET_BINS.count - 1


@dataclass(frozen=True)
class Config:
    """Options of QuatNet.

    size: side of the input in pixels. backbone: a ResNet, as resnet50. ordinal_weight: of the ordinal loss; the
    quaternion's has 1.
    """

    size: int = 224
    backbone: str = "resnet50"
    ordinal_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.size < 32:
            raise UbhpdError(f"QuatNet divides its input by 32, and size is {self.size}: give 32 or more.")
        if self.backbone not in _BACKBONES:
            raise UbhpdError(f'QuatNet has no backbone "{self.backbone}": choose one of {", ".join(_BACKBONES)}.')
        if not 0 <= self.ordinal_weight < float("inf"):
            raise UbhpdError(f"ordinal_weight of QuatNet is {self.ordinal_weight}: give a finite number not below 0.")


def input_recipe(config: Config) -> InputRecipe:
    """Return Hopenet's crops, RGB, normalised as for ImageNet."""
    return hopenet_images(config.size)


def training_recipe(config: Config) -> TrainingRecipe:
    """Return Hopenet's training with a higher learning rate, see above."""
    return hopenet_training_from_scratch()


class Network(PoseNetwork):
    """Images (n, 3, size, size) to "quaternion" (n, 4), unit, w x y z, and "ordinal" (n, 3, 65), logits."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config: Config = config
        self.backbone = backbone(config.backbone)
        self.quaternion = nn.Linear(self.backbone.channels, 4)
        self.ordinal = nn.Linear(self.backbone.channels, 3 * _THRESHOLDS)
        with torch.no_grad():  # from the identity, the middle of all poses
            self.quaternion.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))

    def forward(self, images: torch.Tensor) -> Output:
        """Return the quaternion and the answers to the thresholds."""
        features = self.backbone.pooled(self.backbone(images))
        return {
            "quaternion": functional.normalize(self.quaternion(features), dim=1),
            "ordinal": self.ordinal(features).unflatten(1, (3, _THRESHOLDS)),
        }

    def pose(self, output: Output) -> torch.Tensor:
        """Return rotations (n, 3, 3) in frame C."""
        return rotation_from_quaternion(output["quaternion"])

    def loss(self, output: Output, target: Target) -> Output:
        """Return the squared distance "quaternion" and the mean binary cross entropy "ordinal"."""
        truth = quaternion_from_euler(target.angles_deg)
        cosine = (output["quaternion"] * truth).sum(dim=1).abs()
        return {
            "quaternion": (2 - 2 * cosine).mean(),  # |q - t|^2 of unit quaternions, t or -t
            "ordinal": self.config.ordinal_weight
            * functional.binary_cross_entropy_with_logits(output["ordinal"], is_above(target.angles_deg)),
        }


def is_above(angles_deg: torch.Tensor) -> torch.Tensor:
    """Return 1 where an angle (n, 3) reaches a threshold (n, 3, 65) of -96, -93, ... 96 degrees, else 0."""
    steps = torch.arange(1, HOPENET_BINS.count, device=angles_deg.device, dtype=angles_deg.dtype)
    thresholds = steps * HOPENET_BINS.width_deg + HOPENET_BINS.first_deg
    return (angles_deg[..., None] >= thresholds).to(angles_deg.dtype)
