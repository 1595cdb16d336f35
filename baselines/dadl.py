"""DADL: Hopenet's network, with soft labels whose width is chosen for each angle.

The truth of an angle is a distribution over the 66 bins, D_j ~ exp(-(j - c)^2 / (2 sigma^2)), and the loss is
cross entropy + alpha * squared error in degrees + beta * KL(D || softmax) (equation 13), summed over the angles.
No code was found, and the paper contradicts itself; what stands here is a reading of it:

- Equations 16 and 18 (a squared error between distributions, 1 + alpha on the divergence) contradict 13: 13 is used,
  with the cross entropy of the true bin.
- sigma has no unit, and the text calls it a variance. It is the deviation in bins: 0.5 degrees, for one, would be a
  hard label. Values are given for AFLW2000 (1, 2, 0.5) and BIWI (0.35, 0.6, 0.3), yaw, pitch, roll.
- Whether c is the true bin or the true angle in bins is not stated: `centre`, "class" by default. An angle is the
  expectation over left edges as in Hopenet, so with "class" a perfect output is half a bin low; with "real" it is
  not, and the terms of the loss agree.
- alpha and beta are 2 and 1 for AFLW2000 in section 4.5.1 and 3 and 3 in 4.8: the former here. BIWI: 1 and 2.
- Sigmas, alpha and beta were chosen on the test sets, and differ by test set though the training set is the same:
  printed numbers are optimistic for that.
- Batch 32 and 128 are both given: 32 here. The number of epochs is not: 25 as in Hopenet is ours. Mini-batch
  gradient descent at 1e-5 with momentum 0.9 and weight decay 1e-4 is the paper's.
- "ResNet-50 pretrained on 300W-LP" probably means ImageNet. ImageNet weights are not part of this project.
- A random 224 of 256 pixels in training; the box is not stated, nor what is cut in testing. Here they are Hopenet's
  boxes with the shorter side at 256 pixels, and in testing the middle 224.

The ablation (table 5): `dadl_mse`, "w/o", regresses the three angles from the features by their squared error, without
bins; `dadl_hard` is Hopenet's loss; in `dadl_common`, "GSoft-label", soft labels of one common sigma take the place of
the hard ones, so that there is no cross entropy; the value of that sigma is not given, here it is that of yaw.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from math import isfinite

import torch
from torch import nn
from torch.nn import functional

from ubhpd.core.errors import UbhpdError
from ubhpd.nn.backbones import backbone
from ubhpd.nn.contract import InputRecipe, Output, PoseNetwork, Target, TrainingRecipe, hopenet_images
from ubhpd.nn.outputs import HOPENET_BINS, AngleHeads, cross_entropy

TITLE = "DADL"
PAPER = "DADL, 2023"
CODE = ""
LICENSE = "no weights or code published"
KIND = "image"
MODELS = {
    "dadl": {},
    "dadl_biwi": {"sigma_yaw": 0.35, "sigma_pitch": 0.6, "sigma_roll": 0.3, "alpha": 1.0, "beta": 2.0},
    "dadl_mse": {"head": "regression", "labels": "none", "alpha": 1.0},
    "dadl_hard": {"labels": "hard"},
    "dadl_common": {"labels": "gaussian-one"},
    "dadl_resnet18": {"backbone": "resnet18"},
    "dadl_resnet152": {"backbone": "resnet152"},
    "dadl_mobilenet_v2": {"backbone": "mobilenet_v2"},
}
PARAMETERS = {
    "dadl": 23_913_734,
    "dadl_biwi": 23_913_734,
    "dadl_mse": 23_514_179,
    "dadl_hard": 23_913_734,
    "dadl_common": 23_913_734,
    "dadl_resnet18": 11_278_086,
    "dadl_resnet152": 58_549_510,
    "dadl_mobilenet_v2": 2_477_510,
}
REPORTED = {
    "dadl": "DADL",
    "dadl_biwi": "DADL",
    "dadl_mse": "DADL w/o",
    "dadl_hard": "DADL hard label",
    "dadl_common": "DADL common soft label",
    "dadl_resnet18": "DADL ResNet18",
    "dadl_resnet152": "DADL ResNet152",
    "dadl_mobilenet_v2": "DADL MobileNetV2",
}

_CHOICES = {
    "backbone": ("resnet18", "resnet50", "resnet152", "mobilenet_v2"),
    "head": ("bins", "regression"),
    "labels": ("none", "hard", "gaussian-one", "gaussian"),
    "centre": ("class", "real"),
}
_SMALLEST = 32  # pixels, for a last feature map of one place


@dataclass(frozen=True)
class Config:
    """Options of DADL.

    backbone: "resnet50", or "resnet18", "resnet152", "mobilenet_v2" of table 4. size: side of the input. head:
    "bins", or "regression" of three angles. labels: "none", "hard", "gaussian-one" (soft instead of hard ones, with
    sigma_yaw for all angles) or "gaussian" (beside the hard ones). sigma_yaw, sigma_pitch, sigma_roll:
    deviations in bins. centre: of a soft label, "class" or "real". alpha: weight of the squared error. beta: weight
    of the divergence, for soft labels.
    """

    backbone: str = "resnet50"
    size: int = 224
    head: str = "bins"
    labels: str = "gaussian"
    sigma_yaw: float = 1.0
    sigma_pitch: float = 2.0
    sigma_roll: float = 0.5
    centre: str = "class"
    alpha: float = 2.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        for option, choices in _CHOICES.items():
            value = getattr(self, option)
            if value not in choices:
                raise UbhpdError(f'DADL\'s {option} is "{value}": choose one of {", ".join(choices)}.')
        if self.size < _SMALLEST:
            raise UbhpdError(f"DADL's size is {self.size}: give {_SMALLEST} pixels or more.")
        for option in ("sigma_yaw", "sigma_pitch", "sigma_roll"):
            value = getattr(self, option)
            if not (isfinite(value) and value > 0):
                raise UbhpdError(f"DADL's {option} is {value}: give a number of bins above 0.")
        for option in ("alpha", "beta"):
            value = getattr(self, option)
            if not (isfinite(value) and value >= 0):
                raise UbhpdError(f"DADL's {option} is {value}: give a number from 0 on.")
        if self.head == "regression" and self.labels != "none":
            raise UbhpdError("DADL's regression has no bins that labels could be of: give labels none.")
        if self.labels == "none" and self.alpha == 0:
            raise UbhpdError("DADL has neither labels nor alpha, so nothing to learn from: give an alpha above 0.")

    @property
    def sigmas(self) -> tuple[float, float, float]:
        """Return the deviations of the soft labels in bins, yaw, pitch, roll."""
        if self.labels == "gaussian-one":
            return (self.sigma_yaw,) * 3
        return self.sigma_yaw, self.sigma_pitch, self.sigma_roll


def input_recipe(config: Config) -> InputRecipe:
    """Return RGB with ImageNet's mean and deviation, the middle 224 of 256 pixels of Hopenet's boxes."""
    return replace(hopenet_images(config.size, aflw2000="6drepnet-aflw2000", biwi="dadl-biwi"), crop="dadl")


def training_recipe(config: Config) -> TrainingRecipe:
    """Return gradient descent at 1e-5 with momentum; no augmentation but the random cut is mentioned."""
    return TrainingRecipe(
        epochs=25,
        batch_size=32,
        lr=1e-5,
        optimizer="sgd",
        momentum=0.9,
        weight_decay=1e-4,
        cut_from=(224, 256),
        max_angle_deg=99.0,
    )


_SLOW = 1e-4  # learning rate of gradient descent up to which a network from random weights hardly moves


def training_remarks(config: Config, recipe: TrainingRecipe, has_backbone: bool) -> tuple[str, ...]:
    """Return what to warn of where no pretrained weights were loaded."""
    if has_backbone or recipe.optimizer != "sgd" or recipe.lr > _SLOW:
        return ()
    return (
        f"DADL begins with random weights, which SGD at {recipe.lr:g} hardly moves: the paper begins with pretrained "
        "ones, --backbone imagenet; or give a larger --lr, or --optimizer adam.",
    )


def soft_labels(position: torch.Tensor, sigmas: torch.Tensor, count: int) -> torch.Tensor:
    """Return distributions (n, 3, count) over the bins: Gaussians at `position`, cut to the bins and normalised.

    Args:
        position: of the truth, (n, 3), in bins: bin j is at j.
        sigmas: deviations (3,) in bins.
        count: number of bins.
    """
    distance = torch.arange(count, device=position.device, dtype=sigmas.dtype) - position[..., None]
    return (-(distance**2) / (2 * sigmas[:, None] ** 2)).softmax(dim=-1)


class Network(PoseNetwork):
    """A backbone, the mean of its last map, and a classifier for each angle."""

    sigmas: torch.Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone(config.backbone)
        self.heads: nn.Module
        if config.head == "regression":
            self.heads = nn.Sequential(OrderedDict(fc_angles=nn.Linear(self.backbone.channels, 3)))
        else:
            self.heads = AngleHeads(self.backbone.channels, HOPENET_BINS.count)
        self.register_buffer("sigmas", torch.tensor(config.sigmas), persistent=False)

    def forward(self, images: torch.Tensor) -> Output:
        """Return "logits" (n, 3, 66), or "angles" (n, 3) of the regression, of images (n, 3, size, size)."""
        name = "angles" if self.config.head == "regression" else "logits"
        return {name: self.heads(self.backbone.pooled(self.backbone(images)))}

    def pose(self, output: Output) -> torch.Tensor:
        """Return yaw, pitch, roll (n, 3) in degrees: the expectation over the bins, as in Hopenet (equation 9)."""
        return output["angles"] if "angles" in output else HOPENET_BINS.expectation_deg(output["logits"])

    def loss(self, output: Output, target: Target) -> Output:
        """Return the terms of equation 13 that the labels ask for: means over heads, sums over angles."""
        truth = target.angles_deg
        terms = {"squared_error": self.config.alpha * 3 * functional.mse_loss(self.pose(output), truth)}
        if self.config.labels == "none":
            return terms
        logits = output["logits"]
        if self.config.labels in ("hard", "gaussian"):
            terms["cross_entropy"] = cross_entropy(logits, truth, HOPENET_BINS)
        if self.config.labels.startswith("gaussian"):
            labels = soft_labels(self._position(truth), self.sigmas, HOPENET_BINS.count)
            divergence = functional.kl_div(logits.log_softmax(dim=-1), labels, reduction="sum") / len(logits)
            terms["divergence"] = self.config.beta * divergence
        return terms

    def _position(self, angles_deg: torch.Tensor) -> torch.Tensor:
        """Return where soft labels are centred, in bins: the true bin, or the place that decodes to the truth."""
        if self.config.centre == "class":
            return HOPENET_BINS.classes(angles_deg)
        return (angles_deg - HOPENET_BINS.first_deg) / HOPENET_BINS.width_deg
