"""VGG16 regression, ours: VGG-16, a linear layer, and three angles of one image, with a squared error.

The row "VGG16" of the tables is the frame-wise network that Gu et al. compare their recurrent one with. Its code was
not released. Known are VGG-16 and the squared error. From memory, no source was opened: one linear layer of 1024 in
place of VGG's own two of 4096. All else is ours: that it sees all 7 x 7 places of the last map, the ReLU behind it,
no dropout, the crop, the optimiser and its numbers. So a result of this is not one of Gu et al.'s network.

ImageNet weights (torchvision's vgg16) fit `backbone`, and are not part of this project.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from ubhpd.core.errors import UbhpdError
from ubhpd.nn.contract import IMAGENET_MEAN, IMAGENET_STD, InputRecipe, Output, PoseNetwork, Target, TrainingRecipe
from ubhpd.nn.small_backbones import VGG16

TITLE = "VGG16 regression (ours)"
PAPER = (
    "Gu, Yang, De Mello and Kautz, Dynamic Facial Analysis: From Bayesian Filtering to Recurrent Neural "
    "Network, CVPR 2017"
)
CODE = ""
LICENSE = "no weights or code published"
KIND = "image"
MODELS: dict[str, dict[str, float]] = {"vgg16": {}}
PARAMETERS = {"vgg16": 40_408_899}
REPORTED = {"vgg16": "VGG16"}

_PLACES = 7 * 7
_SMALLEST = 32  # pixels, for a last feature map of one place


@dataclass(frozen=True)
class Config:
    """Options: size, side of the input in pixels; width, units of the linear layer."""

    size: int = 224
    width: int = 1024

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.size < _SMALLEST:
            raise UbhpdError(f"VGG16's size is {self.size}: give {_SMALLEST} pixels or more.")
        if self.width < 1:
            raise UbhpdError(f"VGG16's width is {self.width}: give 1 unit or more.")


def input_recipe(config: Config) -> InputRecipe:
    """Return RGB with ImageNet's mean and deviation; the crop is ours."""
    return InputRecipe(crop="square", size=config.size, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def training_recipe(config: Config) -> TrainingRecipe:
    """Return 25 epochs of Adam at 1e-4; all of it ours."""
    return TrainingRecipe(epochs=25, batch_size=32, lr=1e-4, augmentations=("flip",))


class Network(PoseNetwork):
    """VGG-16's convolutions, a linear layer with ReLU, three angles in radians."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.backbone = VGG16()
        self.hidden = nn.Linear(self.backbone.channels * _PLACES, config.width)
        self.angles = nn.Linear(config.width, 3)

    def forward(self, images: torch.Tensor) -> Output:
        """Return "angles" (n, 3) in radians of images (n, 3, size, size)."""
        places = self.backbone.head_input(self.backbone(images))
        return {"angles": self.angles(functional.relu(self.hidden(places)))}

    def pose(self, output: Output) -> torch.Tensor:
        """Return yaw, pitch, roll (n, 3) in degrees."""
        return torch.rad2deg(output["angles"])

    def loss(self, output: Output, target: Target) -> Output:
        """Return "squared_error" in square radians: mean over heads, sum over angles."""
        return {"squared_error": 3 * functional.mse_loss(output["angles"], torch.deg2rad(target.angles_deg))}
