"""GridNet: the mean colours of a grid of 4 x 4 cells and a linear layer that predicts yaw, pitch and roll.

It has no paper: it is a sample of a plug-in.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ubhpd.nn.contract import InputRecipe, Output, PoseNetwork, Target, TrainingRecipe

TITLE = "GridNet"
PAPER = "none: a sample of a plug-in"
CODE = ""
LICENSE = "MIT"
KIND = "image"
MODELS: dict[str, dict[str, object]] = {"gridnet": {}}
PARAMETERS = {"gridnet": 147}
REPORTED: dict[str, str] = {}


@dataclass(frozen=True)
class Config:
    """size: side of the input in pixels."""

    size: int = 32


def input_recipe(config: Config) -> InputRecipe:
    """Return square crops, values of 0 to 255 taken to -1 to 1."""
    return InputRecipe("square", config.size, mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5))


def training_recipe(config: Config) -> TrainingRecipe:
    """Return Adam with a constant learning rate."""
    return TrainingRecipe(epochs=2, batch_size=16, lr=1e-2)


class Network(PoseNetwork):
    """The network."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.cells = nn.AdaptiveAvgPool2d(4)
        self.angles = nn.Linear(48, 3)

    def forward(self, images: torch.Tensor) -> Output:
        """Return angles_deg (n, 3)."""
        return {"angles_deg": 90 * self.angles(self.cells(images).flatten(1))}

    def pose(self, output: Output) -> torch.Tensor:
        """Return the angles."""
        return output["angles_deg"]

    def loss(self, output: Output, target: Target) -> Output:
        """Return the mean absolute error in degrees."""
        return {"angles": (output["angles_deg"] - target.angles_deg).abs().mean()}
