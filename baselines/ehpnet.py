"""EHPNet: a ResNet-18 that learns from three large networks what they make of an image, instead of its label.

Student and teachers predict as Hopenet does, with 62 bins of 3 degrees for each angle and the expectation 3 sum(i p_i)
- 93. Teachers are trained on labels, cross entropy + alpha * squared error in degrees. The student is trained on the
mean of their probabilities: KL(teachers || student), summed over the angles, with no term for the label (equation 5,
whose sign is misprinted). `ehpnet_nokd` is the student without teachers, trained as they are.

`ehpnet_resnet101`, `ehpnet_res2net101` and `ehpnet_botnet101` are the teachers. `ehpnet_ensemble` is all three, with
the mean of their probabilities (equation 4): trained as one network each member learns from its own loss, as it would
alone, since Adam and the cut of the gradients work number by number; or it is put together of three checkpoints.
`ubhpd bench --teacher ehpnet=ehpnet_resnet101,ehpnet_res2net101,ehpnet_botnet101` trains them and then the student.

The code for the paper could not be found. What the paper leaves open follows the code of the same authors for a
network that also tells masks (github.com/chientv99/maskpose):

- After the mean over the last map comes a linear layer to a quarter of the channels and a ReLU, which BoTNet-101 lacks,
  and then the three classifiers. The paper draws the classifiers right on the mean: `layers` direct.
- BGR, (v - 127.5) / 128. Augmentations; the paper names flips, coarser pixels, brightness and contrast, and a Gaussian
  blur, without numbers: `augmentation` paper takes these of the code alone, and never sharpens. Rising learning rate
  in the first epoch, gradients cut to +-0.5.
- The learning rate falls to 1/100 for the student and to 1/1000 for teachers.

Readings. Temperature 1 is the paper's; others are an option. That code takes the mean over the bins too and multiplies
by 10, which makes its loss 10/62 of the one here: with Adam only the cut of the gradients notices. Batch size: not in
the paper; 64 is ours (the code's 16 comes, like its other defaults, from Hopenet's script). The face is cut as a
square, the shorter side grown on both ends, about RetinaFace's box there and the dataset's here; what lies outside the
image is black. Teachers start from random weights, as the paper has it, and so does the student here; that code
starts it from the weights of `ehpnet_nokd`.

Heads with an angle of 93 degrees or more are left out: they would be in a class that is not there. The expectation
takes the left edge of a bin, as Hopenet's does, and a sure and right classifier is 1.5 degrees low.

The paper trains on 300W-LPA, for which it cites Hsu et al. (QuatNet, 2019) and says no more than that it is synthetic
and has more than 350,000 images. It is not the usual 300W-LP of 122,450, and the paper does not say how it is made, so
it is no source here: what is trained on 300W-LP cannot be held against the printed rows. That code chooses its epoch on
BIWI, which is a test set. Table 1 prints pitch 5.54 on AFLW2000 where table 2 has 5.345, the one that
agrees with the mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ubhpd.core.errors import UbhpdError
from ubhpd.nn.backbones import backbone
from ubhpd.nn.contract import InputRecipe, Output, PoseNetwork, Target, TrainingRecipe
from ubhpd.nn.outputs import AngleHeads, Bins, cross_entropy, divergence
from ubhpd.nn.weight_files import fit

TITLE = "EHPNet"
PAPER = (
    "Thai, Tran, Bui, Ninh and Tran, An Effective Deep Network for Head Pose Estimation without Keypoints, ICPRAM 2022"
)
CODE = ""
LICENSE = "none stated"
KIND = "image"
MODELS = {
    "ehpnet": {},
    "ehpnet_nokd": {"distill": False},
    "ehpnet_resnet101": {"backbone": "resnet101", "distill": False},
    "ehpnet_res2net101": {"backbone": "res2net101", "distill": False},
    "ehpnet_botnet101": {"backbone": "botnet101", "distill": False},
    "ehpnet_ensemble": {"backbone": "ensemble", "distill": False},
}
PARAMETERS = {
    "ehpnet": 11_266_170,
    "ehpnet_nokd": 11_266_170,
    "ehpnet_resnet101": 43_644_666,
    "ehpnet_res2net101": 44_321_426,
    "ehpnet_botnet101": 38_936_058,
    "ehpnet_ensemble": 126_902_150,
}
REPORTED = {
    "ehpnet": "EHPNet (distilled ResNet18)",
    "ehpnet_nokd": "EHPNet teacher ResNet18",
    "ehpnet_resnet101": "EHPNet teacher ResNet101",
    "ehpnet_res2net101": "EHPNet teacher Res2Net101",
    "ehpnet_botnet101": "EHPNet teacher BotNet101",
    "ehpnet_ensemble": "EHPNet teacher ensemble",
}

BINS = Bins(62, 3.0, -93.0)

_BOTNET, _ENSEMBLE = "botnet101", "ensemble"
_MEMBERS = ("resnet101", "res2net101", _BOTNET)  # of the ensemble
_BACKBONES = ("resnet18", *_MEMBERS, _ENSEMBLE)
_AUGMENTATIONS = {
    "released": (
        "flip",
        "ehpnet_brightness",
        "ehpnet_crop",
        "ehpnet_resolution",
        "ehpnet_blur",
        "ehpnet_shrink",
        "ehpnet_grey",
    ),
    "paper": ("flip", "ehpnet_brightness", "ehpnet_resolution", "ehpnet_gaussian_blur"),
}
_STEP = 16  # pixels of the input for one of BoTNet's last map
_SMALLEST = 32  # pixels, for a last feature map of one place
_COUNTER = "num_batches_tracked"  # of batch normalisation
_VESTIGIAL = ("fc_mask.weight", "fc_mask.bias")  # of the network that also tells masks


@dataclass(frozen=True)
class Config:
    """Options of EHPNet.

    backbone: "resnet18", or "resnet101", "res2net101", "botnet101", or these three as "ensemble". size: side of the
    input. distill: learn from teachers, not from labels. temperature: of teachers and student while distilling.
    alpha: weight of the squared error on labels. layers: "quarter" puts a linear layer before the classifiers, as the
    code does, "direct" none, as the paper draws it. augmentation: of the "released" code, or what the "paper" names
    of it.
    """

    backbone: str = "resnet18"
    size: int = 112
    distill: bool = True
    temperature: float = 1.0
    alpha: float = 1.0
    layers: str = "quarter"
    augmentation: str = "released"

    def __post_init__(self) -> None:
        """Refuse what cannot be built, and options that would do nothing."""
        if self.backbone not in _BACKBONES:
            raise UbhpdError(f'EHPNet\'s backbone is "{self.backbone}": choose one of {", ".join(_BACKBONES)}.')
        if self.size < _SMALLEST:
            raise UbhpdError(f"EHPNet's size is {self.size}: give {_SMALLEST} pixels or more.")
        if self.backbone in (_BOTNET, _ENSEMBLE) and self.size % _STEP:
            raise UbhpdError(f"EHPNet's size is {self.size}: {_BOTNET} needs a multiple of {_STEP}.")
        if self.layers not in ("quarter", "direct"):
            raise UbhpdError(f'EHPNet\'s layers is "{self.layers}": choose quarter or direct.')
        if self.augmentation not in _AUGMENTATIONS:
            raise UbhpdError(f'EHPNet\'s augmentation is "{self.augmentation}": choose released or paper.')
        if self.backbone == _ENSEMBLE and self.distill:
            raise UbhpdError("EHPNet's ensemble is of teachers, which learn from labels: turn distill off.")
        if not (isfinite(self.temperature) and self.temperature > 0):
            raise UbhpdError(f"EHPNet's temperature is {self.temperature}: give a number above 0.")
        if not (isfinite(self.alpha) and self.alpha >= 0):
            raise UbhpdError(f"EHPNet's alpha is {self.alpha}: give a number from 0 on.")
        if self.distill and self.alpha != 1:
            raise UbhpdError("EHPNet's alpha is for labels, which distilling does not use: leave alpha or distill off.")
        if not self.distill and self.temperature != 1:
            raise UbhpdError("EHPNet's temperature is for distilling: leave it at 1, or turn distill on.")


def input_recipe(config: Config) -> InputRecipe:
    """Return the face box made square, BGR, values of about -1 to 1."""
    return InputRecipe("ehpnet", config.size, "BGR", mean=(127.5,) * 3, std=(128.0,) * 3)


def training_recipe(config: Config) -> TrainingRecipe:
    """Return Adam at 1e-4 for 200 epochs if distilling, else 100, and the released augmentations."""
    return TrainingRecipe(
        epochs=200 if config.distill else 100,
        batch_size=64,
        lr=1e-4,
        schedule="cosine",
        final_share=0.01 if config.distill else 0.001,
        warmup_epochs=1,
        clip_value=0.5,
        augmentations=_AUGMENTATIONS[config.augmentation],
        max_angle_deg=93.0,
    )


class Network(PoseNetwork):
    """A backbone, the mean of its last map, a linear layer, and a classifier for each angle."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config: Config = config
        self.members = nn.ModuleDict()
        if config.backbone == _ENSEMBLE:
            self.members.update({name: Network(replace(config, backbone=name)) for name in _MEMBERS})
            return
        is_botnet = config.backbone == _BOTNET
        self.backbone = backbone(config.backbone, **({"map_size": config.size // _STEP} if is_botnet else {}))
        width = self.backbone.channels if config.layers == "direct" else self.backbone.channels // 4
        self.linear: nn.Module = nn.Identity()
        self.activation: nn.Module = nn.Identity()
        if config.layers == "quarter":
            self.linear = nn.Linear(self.backbone.channels, width)
            self.activation = nn.Identity() if is_botnet else nn.ReLU()
        self.heads = AngleHeads(width, BINS.count)

    def forward(self, images: torch.Tensor) -> Output:
        """Return "logits" (n, 3, 62) of images (n, 3, size, size); of an ensemble the logarithm of the mean of its
        members' probabilities, and the logits of each as "MEMBER/logits"."""
        if self.members:
            own = {f"{name}/logits": member(images)["logits"] for name, member in self.members.items()}
            mean = torch.stack([logits.float().softmax(dim=-1) for logits in own.values()]).mean(dim=0)
            return {"logits": mean.clamp(min=torch.finfo(mean.dtype).tiny).log(), **own}
        features = self.backbone.pooled(self.backbone(images))
        return {"logits": self.heads(self.activation(self.linear(features)))}

    def probabilities(self, output: Output) -> torch.Tensor:
        """Return probabilities of the bins (n, 3, 62): what this network says as a teacher."""
        return output["logits"].softmax(dim=-1)

    def pose(self, output: Output) -> torch.Tensor:
        """Return yaw, pitch, roll (n, 3) in degrees: the expectation over the bins."""
        return BINS.expectation_deg(output["logits"])

    def loss(self, output: Output, target: Target) -> Output:
        """Return "divergence" from the teachers, or "cross_entropy" and "squared_error": sums over the angles.

        Of an ensemble these are the terms of each member, as "MEMBER/cross_entropy".

        Raises:
            UbhpdError: distilling without a teacher, or with one that has other bins.
        """
        if self.members:
            return {
                f"{name}/{term}": value
                for name, member in self.members.items()
                for term, value in member.loss({"logits": output[f"{name}/logits"]}, target).items()  # type: ignore[operator]
            }
        if not self.config.distill:
            error = 3 * functional.mse_loss(self.pose(output), target.angles_deg)
            terms = {"cross_entropy": cross_entropy(output["logits"], target.angles_deg, BINS)}
            return terms | {"squared_error": self.config.alpha * error}
        logits, teacher = output["logits"], target.teacher
        if teacher is None:
            raise UbhpdError("EHPNet learns from teachers and there is none: give some, or train ehpnet_nokd.")
        if teacher.shape != logits.shape:
            raise UbhpdError(f"EHPNet has {BINS.count} bins and its teachers {teacher.shape[-1]}: give its own.")
        return {"divergence": divergence(logits, teacher, self.config.temperature)}


def published(config: Config, tensors: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the network's weights of those of the authors' code: conv1, layer1, ..., linear, fc_yaw.

    There BoTNet's last layer is called BOT. The classifier of masks, fc_mask, is left aside.

    Args:
        config: of the network that will get them.
        tensors: the state dict; of an ensemble those of three files, beginning 0/, 1/ and 2/, in any order.

    Raises:
        UbhpdError: a tensor is missing, unknown or of another shape, or a member of an ensemble is missing.
    """
    if config.backbone == _ENSEMBLE:
        return _of_files(config, tensors)
    with torch.device("meta"):
        own = Network(config).state_dict()
    names = {name: name.removeprefix("backbone.").removeprefix("heads.") for name in own}
    if config.backbone == _BOTNET:
        names = {name: theirs.replace("layer4.", "BOT.", 1) for name, theirs in names.items()}
    return fit(own, tensors, names, _VESTIGIAL)


def _of_files(config: Config, tensors: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the state of an ensemble of three files of weights, each of this package or of the authors' code."""
    files: dict[str, dict[str, Any]] = {}
    for name, values in tensors.items():
        number, _, rest = name.partition("/")
        files.setdefault(number, {})[rest] = values
    found: dict[str, torch.Tensor] = {}
    for member in _MEMBERS:
        own = replace(config, backbone=member)
        with torch.device("meta"):
            state = Network(own).state_dict()
        for number, values in list(files.items()):
            try:
                is_own = {n for n in state if not n.endswith(_COUNTER)} <= values.keys()
                held = fit(state, values, {n: n for n in state}) if is_own else published(own, values)
            except UbhpdError:
                continue
            found.update({f"members.{member}.{n}": v for n, v in held.items()})
            del files[number]
            break
        else:
            raise UbhpdError(f"No file is of the member {member}: give three files, of {', '.join(_MEMBERS)}.")
    return found
