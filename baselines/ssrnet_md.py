"""SSR-Net-MD: soft stage-wise regression of three angles at once, the network that FSA-Net grew from.

Two streams of small separable convolutions give features at three depths, pooled and multiplied; each depth is a
stage of `ubhpd.nn.stagewise`. Published as a comparison in the FSA-Net paper and released with it, as
`SSR_net_MT`; the older `SSR_net_ori_MT` with plain convolutions is not the one in the tables.

The input is BGR of 0 to 255 as it is, the image stretched to a square.

Differs from the release: nothing in the network. Options, off by default: `min_delta` keeps the head away from the
pole of the stage-wise sum at delta = -1, -0.9 will do; `colour`. Training holds back no random fifth of 300W-LP,
for that put mirrored frames of one photo in both splits; the last epoch was what was released.
Readings: the paper prints a batch of 8 on BIWI's videos where the script has 16; here it is 8, as on 300W-LP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from ubhpd.nn import stagewise
from ubhpd.nn.contract import InputRecipe, Output, PoseNetwork, Target, TrainingRecipe
from ubhpd.nn.stagewise import ANGLES, BINS, FEATURES, STAGES, Shifts, TwoStreams, stagewise_deg
from ubhpd.nn.weight_files import fit

TITLE = "SSR-Net-MD"
PAPER = (
    "Yang, Huang, Lin, Hsiu, Chuang, SSR-Net, IJCAI 2018; for head pose in Yang, Chen, Lin, Chuang, FSA-Net: Learning "
    "Fine-Grained Structure Aggregation for Head Pose Estimation From a Single Image, CVPR 2019"
)
CODE = "https://github.com/shamangary/FSA-Net"
LICENSE = "Apache-2.0"
KIND = "image"
MODELS: dict[str, dict[str, object]] = {"ssrnet_md": {}}
PARAMETERS = {"ssrnet_md": 231_763}
REPORTED = {"ssrnet_md": "SSR-Net-MD"}

_PARTS = [6, 6, ANGLES * BINS]  # features of a stage for delta, eta and p


@dataclass(frozen=True)
class Config:
    """Options of SSR-Net-MD.

    size: side of the input in pixels, a multiple of 16. min_delta: a smaller delta counts as this; -1 changes nothing.
    colour: order of the channels, "BGR" or "RGB".
    """

    size: int = 64
    min_delta: float = -1.0
    colour: str = "BGR"

    def __post_init__(self) -> None:
        stagewise.check_options("SSR-Net-MD", self.size, 16, self.min_delta, self.colour)


def input_recipe(config: Config) -> InputRecipe:
    """Return FSA-Net's crops, unchanged values of 0 to 255."""
    return stagewise.input_recipe(config.size, config.colour)


def training_recipe(config: Config) -> TrainingRecipe:
    """Return FSA-Net's training with batches of 8."""
    return stagewise.training_recipe(batch_size=8)


class Network(PoseNetwork):
    """Images (n, 3, size, size) to "angles" (n, 3) in degrees, and "p", "eta", "delta" of the stages."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config: Config = config
        self.trunk = TwoStreams()
        places = [(config.size // side) ** 2 for side in (16, 16, 8)]
        self.features = nn.ModuleList(nn.Linear(FEATURES * n, sum(_PARTS)) for n in places)
        for layer in self.features:
            for part in torch.split(cast(nn.Linear, layer).weight, _PARTS):
                nn.init.xavier_uniform_(part)
            nn.init.zeros_(cast(nn.Linear, layer).bias)
        self.shifts = Shifts(_PARTS[0])

    def forward(self, images: torch.Tensor) -> Output:
        """Return the angles and what they are made of."""
        parts = []
        for (relu, tanh), layer in zip(self.trunk(images), self.features, strict=True):
            maps = functional.avg_pool2d(relu, 2) * functional.max_pool2d(tanh, 2)
            parts.append(layer(maps.permute(0, 2, 3, 1).flatten(1)))
        features = torch.stack(parts, dim=1)
        for_delta, for_eta, for_p = torch.split(features, _PARTS, dim=-1)
        delta, eta = self.shifts(for_delta.tanh(), for_eta.tanh())
        p = for_p.relu().view(-1, STAGES, ANGLES, BINS)
        return {"angles": stagewise_deg(p, eta, delta, self.config.min_delta), "p": p, "eta": eta, "delta": delta}

    def pose(self, output: Output) -> torch.Tensor:
        """Return yaw, pitch, roll (n, 3) in degrees."""
        return output["angles"]

    def loss(self, output: Output, target: Target) -> Output:
        """Return the mean absolute error "mae" in degrees."""
        return {"mae": functional.l1_loss(output["angles"], target.angles_deg)}


def published(config: Config, tensors: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the network's weights of the released ssrnet_mt.h5.

    Args:
        config: of the network that will get them.
        tensors: arrays by layer and kind, such as conv2d_1/kernel, as Keras lays them out.

    Raises:
        UbhpdError: a tensor is missing, unknown or of another shape.
    """
    with torch.device("meta"):
        own = Network(config).state_dict()
    names = {**stagewise.trunk_names("trunk"), **stagewise.shift_names("shifts")}
    layers = [tuple(f"dense_{3 * stage + part}" for part in (1, 2, 3)) for stage in range(STAGES)]
    for stage, (first, *_) in enumerate(layers):
        names |= stagewise.dense_names(f"features.{stage}", first)
    return fit(own, stagewise.from_keras(tensors, (*stagewise.SHIFT_GROUPS, *layers)), names)
