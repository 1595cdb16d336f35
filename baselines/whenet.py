"""WHENet: EfficientNet-B0 with a classifier per angle, for heads seen from anywhere around.

EfficientNet-B0 -> mean over the feature map -> Linear for yaw, pitch, roll -> expectation over bins of 3 degrees:
Hopenet on a smaller backbone. `whenet` covers all of yaw by 120 bins from -180 on, `whenet_v` by Hopenet's 66 from -99
on; pitch and roll have Hopenet's in both. The published weights are of `whenet`; the network is that of TensorFlow,
so it pads as TensorFlow pads ("same", the odd pixel last) and normalises with eps 1e-3: with torch's own padding the
published weights are up to two degrees off.

The loss is Hopenet's, cross entropy and a squared error per angle, but yaw's error in `whenet` is wrapped: with
d = |predicted - true| it is the smaller of d^2 and (360 - d)^2, so that 179 and -179 are 2 degrees apart.

Yaw goes from -180 to 177, as an expectation over left edges can, and is passed on as it is: beyond 90 degrees the
triplet (yaw, pitch, roll) with small pitch and roll is the one the model was trained on. For a head turned right
away half of the probability can sit at either end, and then the expectation is near 0. That is a defect of the
published model which the wrapped loss, being on the same expectation, cannot mend; it is kept.

Differs from the paper: it fine-tunes ImageNet weights, and trains `whenet` on 300W-LP together with heads of the CMU
Panoptic dataset, for which no builder is here; from 300W-LP alone nothing beyond 90 degrees is learnt.
Readings: no training code was released. The wrapped loss is written from its description; the weight of the squared
errors, optimiser, schedule, augmentations and crops are Hopenet's, whose losses it takes over. (The released
demonstration widens a detector's box by a fifth of its width to either side, a tenth of its height up and down.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ubhpd.core.errors import UbhpdError
from ubhpd.nn.backbones import backbone
from ubhpd.nn.contract import InputRecipe, Output, PoseNetwork, Target, TrainingRecipe, hopenet_images
from ubhpd.nn.outputs import HOPENET_BINS, Bins
from ubhpd.nn.weight_files import fit

TITLE = "WHENet"
PAPER = "Zhou and Gregson, WHENet: Real-time Fine-Grained Estimation for Wide Range Head Pose, BMVC 2020"
CODE = "https://github.com/Ascend-Research/HeadPoseEstimation-WHENet"
LICENSE = "BSD-3-Clause"
KIND = "image"
MODELS = {"whenet": {}, "whenet_v": {"full_range": False}}
PARAMETERS = {"whenet": 4_330_360, "whenet_v": 4_261_186}
REPORTED = {"whenet": "WHENet", "whenet_v": "WHENet-V"}

_ANGLES = ("yaw", "pitch", "roll")
_ALL_AROUND = Bins(count=120, width_deg=3.0, first_deg=-180.0)
_KERAS_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


@dataclass(frozen=True)
class Config:
    """Options of WHENet.

    size: side of the input in pixels. full_range: 120 bins of yaw and the wrapped loss, else 66 bins and the plain
    one. regression_weight: of the squared errors in degrees^2; the cross entropy has 1.
    """

    size: int = 224
    full_range: bool = True
    regression_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.size < 32:
            raise UbhpdError(f"WHENet divides its input by 32, and size is {self.size}: give 32 or more.")
        if not 0 <= self.regression_weight < float("inf"):
            raise UbhpdError(
                f"regression_weight of WHENet is {self.regression_weight}: give a finite number not below 0."
            )


def input_recipe(config: Config) -> InputRecipe:
    """Return Hopenet's crops, RGB, normalised as for ImageNet."""
    return hopenet_images(config.size)


def training_recipe(config: Config) -> TrainingRecipe:
    """Return Hopenet's training, see above; all of yaw's range where the model has it."""
    return TrainingRecipe(
        epochs=25,
        batch_size=16,
        lr=1e-5,
        augmentations=("hopenet_crop", "flip", "blur"),
        max_angle_deg=180.0 if config.full_range else 99.0,
    )


class Network(PoseNetwork):
    """Images (n, 3, size, size) to the logits "yaw" (n, 120 or 66), "pitch" (n, 66) and "roll" (n, 66)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config: Config = config
        yaw = _ALL_AROUND if config.full_range else HOPENET_BINS
        self.bins = {"yaw": yaw, "pitch": HOPENET_BINS, "roll": HOPENET_BINS}
        self.backbone = backbone("efficientnet_b0", tensorflow=True)
        self.heads = nn.ModuleDict({a: nn.Linear(self.backbone.channels, self.bins[a].count) for a in _ANGLES})

    def forward(self, images: torch.Tensor) -> Output:
        """Return the logits by angle."""
        features = self.backbone.pooled(self.backbone(images))
        return {angle: head(features) for angle, head in self.heads.items()}

    def pose(self, output: Output) -> torch.Tensor:
        """Return yaw, pitch, roll (n, 3) in degrees; yaw within [-180, 177], or [-99, 96] if not of full range."""
        return torch.stack([self.bins[angle].expectation_deg(output[angle]) for angle in _ANGLES], dim=1)

    def loss(self, output: Output, target: Target) -> Output:
        """Return the cross entropy "class" and the squared error "regression", each summed over the angles."""
        truth_deg = target.angles_deg
        error_deg = self.pose(output) - truth_deg
        if self.config.full_range:
            first = self.bins["yaw"].first_deg
            truth_deg = torch.cat([(truth_deg[:, :1] - first) % 360 + first, truth_deg[:, 1:]], dim=1)
            error_deg = torch.cat([wrapped_deg(error_deg[:, :1]), error_deg[:, 1:]], dim=1)
        by_angle = zip(_ANGLES, truth_deg.unbind(1), strict=True)
        entropies = [functional.cross_entropy(output[a], self.bins[a].classes(truth)) for a, truth in by_angle]
        return {
            "class": torch.stack(entropies).sum(),
            "regression": self.config.regression_weight * error_deg.square().mean(dim=0).sum(),
        }


def wrapped_deg(difference_deg: torch.Tensor) -> torch.Tensor:
    """Return differences (...) of angles moved by multiples of 360 into [-180, 180).

    Squared it is the wrapped loss: min(d^2, (360 - d)^2) for d = |difference| up to 360.
    """
    return (difference_deg + 180) % 360 - 180


def published(config: Config, tensors: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the network's weights of WHENet.h5.

    Args:
        config: of the network that will get them.
        tensors: arrays by layer and kind, such as conv2d_1/kernel, as Keras lays them out.

    Raises:
        UbhpdError: a tensor is missing, unknown or of another shape.
    """
    with torch.device("meta"):
        own = Network(config)
    names = dict(_keras_names(own))
    turned = {name: _from_keras(name, torch.as_tensor(tensor)) for name, tensor in tensors.items()}
    return fit(own.state_dict(), turned, names)


def _keras_names(network: Network) -> Iterator[tuple[str, str]]:
    """Yield (own name, name in the .h5) of every tensor: Keras numbers layers by kind, in the order of the network."""
    numbers = {"conv2d": 0, "depthwise_conv2d": 0, "batch_normalization": 0}
    for name, layer in network.backbone.named_modules(prefix="backbone"):
        if isinstance(layer, nn.Conv2d):
            kind = "depthwise_conv2d" if layer.groups > 1 else "conv2d"
            kernel = "depthwise_kernel" if layer.groups > 1 else "kernel"
            tensors = {"weight": kernel, "bias": "bias"} if layer.bias is not None else {"weight": kernel}
        elif isinstance(layer, nn.BatchNorm2d):
            kind, tensors = "batch_normalization", _KERAS_NORM
        else:
            continue
        numbers[kind] += 1
        yield from ((f"{name}.{own}", f"{kind}_{numbers[kind]}/{theirs}") for own, theirs in tensors.items())
    for angle in _ANGLES:
        yield f"heads.{angle}.weight", f"{angle}_new/kernel"
        yield f"heads.{angle}.bias", f"{angle}_new/bias"


def _from_keras(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in torch's layout: kernels are stored (height, width, inputs, outputs) or (inputs, outputs)."""
    if tensor.ndim == 4:
        return tensor.permute((2, 3, 0, 1) if name.endswith("/depthwise_kernel") else (3, 2, 0, 1))
    return tensor.T if tensor.ndim == 2 else tensor
