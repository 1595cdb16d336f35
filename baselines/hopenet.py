"""Hopenet: a classifier over 66 bins of 3 degrees for each angle, and the expectation over its softmax as the angle.

The loss of an angle is the cross entropy of its bin plus `alpha` times the squared error of the expectation in
degrees (section 3.2); the three are added up. Table 5's ablations are options: other values of alpha (0, 0.01, 0.1,
1, 2, 4), AlexNet instead of ResNet-50, and a linear layer for three angles instead of classifiers ("regression").

Bins: the class is floor((angle + 99) / 3), and heads are left out unless all |angle| < 99 (31 of AFLW2000's 2,000).
The expectation 3 sum(i p_i) - 99 takes the left edge of a bin, so a sure and right classifier is 1.5 degrees low
(mean error 1.5 instead of 0.75) and the two terms of the loss pull apart. All published numbers have that: kept.
`centred` adds half a bin, and is not the paper's.

Batch size: the paper is silent and the released script has 16; 128 is what the author gives in the repository. The
script's other defaults (learning rate 1e-3, alpha 1e-3, 5 epochs) are not the paper's. Where the paper divides BIWI
70/30 it adds a weight decay of 0.04 (section 4.1), and so does training here on a part of BIWI.

Starting point: ImageNet weights, which are not part of this project. What the released code freezes makes sense only
for them: the first convolution and its normalisation have learning rate 0 (`freeze_stem`), and normalisations within
residual blocks keep their statistics while those of the stem and the shortcuts go on (`freeze_bn`), a by-product of
how it collects parameters. Only what was loaded is frozen: a network that begins with random weights trains all of its
layers, whatever these options say, and a training says so. `--backbone imagenet` loads the weights.

Low resolution: images are made coarser and blown up again, nearest neighbour: always by 10, by
1 to 10, or by one of 1, 6, 11, 16, 21. The released code never draws 21; here it is drawn, as printed.

AlexNet: the released loop never resets its gradients, so they pile up over the whole training, which may explain
the 15 degrees of table 5. Not repeated here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ubhpd.core.errors import UbhpdError
from ubhpd.nn.backbone import Backbone
from ubhpd.nn.contract import InputRecipe, Output, PoseNetwork, Target, TrainingRecipe, hopenet_images
from ubhpd.nn.outputs import HOPENET_BINS, AngleHeads, cross_entropy
from ubhpd.nn.resnets import LAYOUTS, resnet
from ubhpd.nn.small_backbones import AlexNet
from ubhpd.nn.weight_files import fit

TITLE = "Hopenet"
PAPER = "Ruiz, Chong and Rehg, Fine-Grained Head Pose Estimation Without Keypoints, CVPRW 2018"
CODE = "https://github.com/natanielruiz/deep-head-pose"
LICENSE = "Apache-2.0"
KIND = "image"
MODELS = {
    "hopenet": {},
    "hopenet_a2": {"alpha": 2.0},
    "hopenet_alexnet": {"backbone": "alexnet"},
    "hopenet_regression": {"head": "regression"},
}
PARAMETERS = {
    "hopenet": 23_913_734,
    "hopenet_a2": 23_913_734,
    "hopenet_alexnet": 57_815_046,
    "hopenet_regression": 23_514_179,
}
REPORTED = {
    "hopenet": "Hopenet (alpha=1)",
    "hopenet_a2": "Hopenet (alpha=2)",
    "hopenet_alexnet": "Hopenet AlexNet (alpha=1)",
    "hopenet_regression": "ResNet50 regression only",
}

_RESNETS = tuple(f"resnet{depth}" for depth in LAYOUTS)
_SMALLEST = {"alexnet": 63}  # what its last pooling still has a place of; a ResNet does with 32
_ALEXNET_FEATURES = 4096
_LOW_RESOLUTION = {
    "none": (),
    "x10": ("low_resolution_x10",),
    "1_10": ("low_resolution_1_10",),
    "set": ("low_resolution_set",),
}
_VESTIGIAL = ("fc_finetune.weight", "fc_finetune.bias")  # in the files, in no forward pass


@dataclass(frozen=True)
class Config:
    """Options of Hopenet.

    backbone: "resnet50", another ResNet, or "alexnet". head: "bins", or "regression" of three angles. alpha: weight
    of the squared error. size: side of the input. centred: a bin stands for its centre. freeze_stem, freeze_bn: of a
    backbone with published weights, see the docstring of the file. low_resolution: "none", "x10", "1_10" or "set", an
    augmentation in training.
    """

    backbone: str = "resnet50"
    head: str = "bins"
    alpha: float = 1.0
    size: int = 224
    centred: bool = False
    freeze_stem: bool = True
    freeze_bn: bool = False
    low_resolution: str = "none"

    def __post_init__(self) -> None:
        """Refuse what cannot be built, and options that would do nothing."""
        _choose("backbone", self.backbone, (*_RESNETS, "alexnet"))
        _choose("head", self.head, ("bins", "regression"))
        _choose("low_resolution", self.low_resolution, tuple(_LOW_RESOLUTION))
        smallest = _SMALLEST.get(self.backbone, 32)
        if self.size < smallest:
            raise UbhpdError(f"Hopenet's size is {self.size}: {self.backbone} needs {smallest} pixels or more.")
        if not (isfinite(self.alpha) and self.alpha >= 0):
            raise UbhpdError(f"Hopenet's alpha is {self.alpha}: give a number from 0 on.")
        if self.head == "regression" and (self.alpha == 0 or self.centred):
            raise UbhpdError("Hopenet's regression has alpha = 0 or centred: give an alpha above 0, and not centred.")
        if self.backbone == "alexnet" and self.freeze_bn:
            raise UbhpdError("Hopenet's freeze_bn is set, but AlexNet has no normalisations: leave it off.")


def input_recipe(config: Config) -> InputRecipe:
    """Return RGB with ImageNet's mean and deviation, cut as the released code cuts each dataset."""
    return hopenet_images(config.size)


def training_recipe(config: Config) -> TrainingRecipe:
    """Return 25 epochs of Adam at 1e-5, on parts of BIWI with a weight decay of 0.04.

    Flips with p = 0.5, blur with p = 0.05, a random 224 of 240 pixels.
    """
    return TrainingRecipe(
        epochs=25,
        batch_size=128,
        lr=1e-5,
        crops=(("hopenet", "hopenet-random"),),
        weight_decay_of=(("biwi_", 0.04),),
        augmentations=(*_LOW_RESOLUTION[config.low_resolution], "flip", "blur", "hopenet_crop"),
        max_angle_deg=99.0,
    )


def training_remarks(config: Config, recipe: TrainingRecipe, has_backbone: bool) -> tuple[str, ...]:
    """Return what to warn of where no ImageNet weights were loaded."""
    frozen = [name for name in ("freeze_stem", "freeze_bn") if getattr(config, name)]
    if has_backbone or not frozen:
        return ()
    return (
        f"Hopenet begins with random weights, so that {' and '.join(frozen)} would freeze what was never trained: all "
        "layers train. The paper begins with ImageNet's: --backbone imagenet.",
    )


class Network(PoseNetwork):
    """Hopenet, with the released code's names below `backbone` and `heads`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.backbone = _backbone(config)
        features = self.backbone.channels if self.backbone.head is None else _ALEXNET_FEATURES
        self.heads: nn.Module
        if config.head == "regression":
            self.heads = nn.Sequential(OrderedDict(fc_angles=nn.Linear(features, 3)))
        else:
            self.heads = AngleHeads(features, HOPENET_BINS.count)

    def forward(self, images: torch.Tensor) -> Output:
        """Return "logits" (n, 3, 66), or "angles" (n, 3) of the regression, of images (n, 3, size, size)."""
        features = self.backbone.head_input(self.backbone(images))
        if self.backbone.head is not None:
            features = self.backbone.head(features)
        return {"angles" if self.config.head == "regression" else "logits": self.heads(features)}

    def pose(self, output: Output) -> torch.Tensor:
        """Return yaw, pitch, roll (n, 3) in degrees: the expectation over the bins (section 3.2)."""
        if "angles" in output:
            return output["angles"]
        shift = HOPENET_BINS.width_deg / 2 if self.config.centred else 0.0
        return HOPENET_BINS.expectation_deg(output["logits"]) + shift

    def loss(self, output: Output, target: Target) -> Output:
        """Return "cross_entropy", which the regression lacks, and "squared_error" times alpha."""
        error = 3 * functional.mse_loss(self.pose(output), target.angles_deg)
        terms = {"squared_error": self.config.alpha * error}
        if "logits" in output:
            terms["cross_entropy"] = cross_entropy(output["logits"], target.angles_deg, HOPENET_BINS)
        return terms

    def learning_rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """Return the released code's groups: stem 0 if frozen and loaded, the other layers 1, heads 5."""
        freezes = self.config.freeze_stem and self.has_published_backbone
        stem = ("features.0.",) if self.config.backbone == "alexnet" else ("conv1.", "bn1.")
        named = list(self.backbone.named_parameters())
        return [
            ([p for name, p in named if name.startswith(stem)], 0.0 if freezes else 1.0),
            ([p for name, p in named if not name.startswith(stem)], 1.0),
            (list(self.heads.parameters()), 5.0),
        ]

    def train(self, mode: bool = True) -> Network:
        """Return the network in training mode, but for the normalisations that `freeze_bn` keeps as they are."""
        super().train(mode)
        if mode and self.config.freeze_bn and self.has_published_backbone:
            for name, module in self.backbone.named_modules():
                if name.startswith("layer") and "bn" in name:
                    module.eval()
        return self


def published(config: Config, tensors: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the network's state of a released state dict (conv1.weight, ..., fc_yaw.weight).

    Args:
        config: of the network that will get them.
        tensors: the state dict. The vestigial layer fc_finetune is left aside.

    Raises:
        UbhpdError: a tensor is missing, unknown or of another shape.
    """
    with torch.device("meta"):
        own = Network(config).state_dict()
    return fit(own, tensors, {name: name.partition(".")[2] for name in own}, _VESTIGIAL)


def _backbone(config: Config) -> Backbone:
    """Return a ResNet without its classifier, or AlexNet with two of the three layers of its own."""
    if config.backbone != "alexnet":
        return resnet(int(config.backbone.removeprefix("resnet")))
    alexnet = AlexNet(num_classes=1)
    del alexnet.classifier[-1]
    return alexnet


def _choose(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UbhpdError(f'Hopenet\'s {option} is "{value}": choose one of {", ".join(choices)}.')
