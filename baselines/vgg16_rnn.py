"""VGG16+RNN, ours: VGG-16 on every image of a sequence, a recurrent layer over them, the angles of the last one.

Gu et al. let a recurrent network follow the head through a video instead of a filter with hand-made rules; row
"VGG16+RNN" of the tables. The code was not released. Known are VGG-16, the recurrence over its features and the
squared error. From memory, no source was opened: a linear layer of 1024. All else is ours: gated recurrent units
(option `cell`: "lstm"), their number, sequences of 8 images, a loss on the last image alone, the crop, the
optimiser and its numbers. So a result of this is not one of Gu et al.'s network.

Each sequence starts from a state of zeros: no memory is kept between sequences. ImageNet weights
(torchvision's vgg16) fit `backbone`, and are not part of this project.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from ubhpd.core.errors import UbhpdError
from ubhpd.nn.contract import IMAGENET_MEAN, IMAGENET_STD, InputRecipe, Output, PoseNetwork, Target, TrainingRecipe
from ubhpd.nn.small_backbones import VGG16

TITLE = "VGG16+RNN (ours)"
PAPER = (
    "Gu, Yang, De Mello and Kautz, Dynamic Facial Analysis: From Bayesian Filtering to Recurrent Neural "
    "Network, CVPR 2017"
)
CODE = ""
LICENSE = "no weights or code published"
KIND = "sequence"
MODELS = {"vgg16_rnn": {}, "vgg16_lstm": {"cell": "lstm"}}
PARAMETERS = {"vgg16_rnn": 46_706_499, "vgg16_lstm": 48_805_699}
REPORTED = {"vgg16_rnn": "VGG16+RNN", "vgg16_lstm": "VGG16+RNN"}

_PLACES = 7 * 7
_SMALLEST = 32  # pixels, for a last feature map of one place
_CELLS = {"gru": nn.GRU, "lstm": nn.LSTM}


@dataclass(frozen=True)
class Config:
    """Options.

    size: side of an image in pixels. frames: images of a sequence, the pose of the last one is predicted. width: units
    of the linear layer on each image. cell: "gru" or "lstm". state: units of the recurrent layer.
    """

    size: int = 224
    frames: int = 8
    width: int = 1024
    cell: str = "gru"
    state: int = 1024

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.size < _SMALLEST:
            raise UbhpdError(f"VGG16+RNN's size is {self.size}: give {_SMALLEST} pixels or more.")
        if self.frames < 2:
            raise UbhpdError(f"VGG16+RNN's frames is {self.frames}: give 2 or more, or take vgg16 for single images.")
        for option in ("width", "state"):
            if getattr(self, option) < 1:
                raise UbhpdError(f"VGG16+RNN's {option} is {getattr(self, option)}: give 1 unit or more.")
        if self.cell not in _CELLS:
            raise UbhpdError(f'VGG16+RNN\'s cell is "{self.cell}": choose one of {", ".join(_CELLS)}.')


def input_recipe(config: Config) -> InputRecipe:
    """Return sequences of RGB images with ImageNet's mean and deviation; the crop is ours."""
    return InputRecipe(crop="square", size=config.size, mean=IMAGENET_MEAN, std=IMAGENET_STD, frames=config.frames)


def training_recipe(config: Config) -> TrainingRecipe:
    """Return 25 epochs of Adam at 1e-4; all of it ours."""
    return TrainingRecipe(epochs=25, batch_size=8, lr=1e-4, clip_norm=1.0)


class Network(PoseNetwork):
    """VGG-16's convolutions and a linear layer with ReLU on each image, a recurrent layer, three angles."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.backbone = VGG16()
        self.hidden = nn.Linear(self.backbone.channels * _PLACES, config.width)
        self.memory = _CELLS[config.cell](config.width, config.state, batch_first=True)
        self.angles = nn.Linear(config.state, 3)

    def forward(self, images: torch.Tensor) -> Output:
        """Return "angles" (n, 3) in radians of the last images of sequences (n, frames, 3, size, size)."""
        places = self.backbone.head_input(self.backbone(images.flatten(0, 1)))
        features = functional.relu(self.hidden(places)).view(*images.shape[:2], -1)
        states, _ = self.memory(features)
        return {"angles": self.angles(states[:, -1])}

    def pose(self, output: Output) -> torch.Tensor:
        """Return yaw, pitch, roll (n, 3) in degrees."""
        return torch.rad2deg(output["angles"])

    def loss(self, output: Output, target: Target) -> Output:
        """Return "squared_error" in square radians: mean over heads, sum over angles."""
        return {"squared_error": 3 * functional.mse_loss(output["angles"], torch.deg2rad(target.angles_deg))}
