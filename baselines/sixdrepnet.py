"""6DRepNet: a RepVGG regresses a 6-D representation, Gram-Schmidt makes it a rotation; trained on the geodesic
distance.

RepVGG-B1g2 -> mean over the feature map -> Linear(2048, 6) -> rotation (Zhou et al., CVPR 2019), and as the loss the
mean angle between that rotation and the true one (equation 5). No angles anywhere, hence no jump at any pose.

The matrix. The released code makes its targets from the angles of 300W-LP as P = Rz(roll) Ry(yaw) Rx(pitch) and
reads angles off again by the inverse. The canonical rotation is R = Rx(-pitch) Ry(-yaw) Rz(-roll), each factor the
inverse of one of P's, in the opposite order: so P is R transposed, exactly, for every angle. The network here, too,
outputs P, so that published weights keep their meaning; `pose` transposes. The geodesic distance is the same.

Two forms. Training has three branches per layer; the released file for 300W-LP has them summed up to one convolution
(`rbr_reparam`), which is the model `sixdrepnet_deploy`. Checkpoints of the authors' training script load into
`sixdrepnet`; both give the same outputs. The ResNets are those of `SixDRepNet2` in the released code; 6DRepNet360 has
the ResNet50, and the ports of yakhyo/head-pose-estimation have the ResNets and a MobileNetV2.

Differs from the paper: it starts from ImageNet weights, which are a user's to give.
Readings: training is that of the released script since May 2022, when its authors changed it "for more robust results":
Adam at 1e-4, 80 epochs of batches of 80. Its schedule (half after 10 and 20 epochs) is off by default, so it is
off here. The script before had 30 epochs of batches of 64 at 1e-5, the last layer ten times as fast, the first fixed,
that schedule, and a random 224 of 240 pixels instead of a random resized crop.

Known defects of the released code that matter for its tables: the test script takes for each angle the smallest
error over shifts of the prediction by 0, 180 and 360 degrees both ways, so that an error of 180 degrees counts as none
and one of 100 as 80. Its BIWI images come in the order BGR though the network expects RGB. Its AFLW2000 boxes span
hidden landmarks at x = -1 (recipe 6drepnet-aflw2000-legacy; here they are left out).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ubhpd.core.errors import UbhpdError
from ubhpd.nn.backbones import backbone
from ubhpd.nn.contract import InputRecipe, Output, PoseNetwork, Target, TrainingRecipe, hopenet_images
from ubhpd.nn.outputs import geodesic_rad, orthonormal_columns
from ubhpd.nn.weight_files import fit

TITLE = "6DRepNet"
PAPER = (
    "Hempel, Abdelrahman and Al-Hamadi, 6D Rotation Representation for Unconstrained Head Pose Estimation, ICIP 2022"
)
CODE = "https://github.com/thohemp/6DRepNet"
LICENSE = "MIT"
KIND = "image"
MODELS = {"sixdrepnet": {}, "sixdrepnet_deploy": {"deploy": True}}
PARAMETERS = {"sixdrepnet": 43_745_670, "sixdrepnet_deploy": 39_323_398}
REPORTED = {"sixdrepnet": "6DRepNet", "sixdrepnet_deploy": "6DRepNet"}

_REPVGG = "repvgg_b1g2"
_RESNETS = ("resnet18", "resnet34", "resnet50")
_MOBILENET = "mobilenet_v2"
_VESTIGIAL = ("fc_finetune.weight", "fc_finetune.bias")  # of SixDRepNet2, never used


@dataclass(frozen=True)
class Config:
    """Options of 6DRepNet.

    size: side of the input in pixels. backbone: repvgg_b1g2, resnet18, resnet34, resnet50 or mobilenet_v2. deploy:
    build RepVGG in its form for use, one convolution per layer.
    """

    size: int = 224
    backbone: str = _REPVGG
    deploy: bool = False

    def __post_init__(self) -> None:
        if self.size < 32:
            raise UbhpdError(f"6DRepNet divides its input by 32, and size is {self.size}: give 32 or more.")
        choices = (_REPVGG, *_RESNETS, _MOBILENET)
        if self.backbone not in choices:
            raise UbhpdError(f'6DRepNet has no backbone "{self.backbone}": choose one of {", ".join(choices)}.')
        if self.deploy and self.backbone != _REPVGG:
            raise UbhpdError(f"Only RepVGG has a form for use, not {self.backbone}: leave deploy false.")


def input_recipe(config: Config) -> InputRecipe:
    """Return Hopenet's crop of the training set, and the paper's own of AFLW2000 and BIWI."""
    return hopenet_images(config.size, "6drepnet-aflw2000", "6drepnet-biwi")


def training_recipe(config: Config) -> TrainingRecipe:
    """Return the released script's training."""
    return TrainingRecipe(
        epochs=80,
        batch_size=80,
        lr=1e-4,
        crops=(("hopenet", "hopenet-random"),),
        augmentations=("hopenet_crop", "flip", "blur", "random_resized_crop"),
    )


class Network(PoseNetwork):
    """Images (n, 3, size, size) to "rotation" (n, 3, 3), the paper's: the canonical one transposed."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config: Config = config
        form = {"deploy": True} if config.deploy else {}
        self.backbone = backbone(config.backbone, **form)
        if config.backbone == _MOBILENET:
            _normalise_like_the_port(self.backbone)
        self.linear_reg = nn.Linear(self.backbone.channels, 6)

    def forward(self, images: torch.Tensor) -> Output:
        """Return the paper's rotation of each head."""
        six = self.linear_reg(self.backbone.pooled(self.backbone(images)))
        return {"rotation": orthonormal_columns(six)}

    def pose(self, output: Output) -> torch.Tensor:
        """Return rotations (n, 3, 3) in frame C."""
        return output["rotation"].transpose(1, 2)

    def loss(self, output: Output, target: Target) -> Output:
        """Return the mean geodesic distance in radians (equation 5)."""
        return {"geodesic": geodesic_rad(self.pose(output), target.rotation).mean()}


def _normalise_like_the_port(mobilenet: nn.Module) -> None:
    """Give batch normalisation before an activation the epsilon and momentum of the port's MobileNetV2."""
    for block in mobilenet.modules():
        if isinstance(block, nn.Sequential) and len(block) == 3 and isinstance(block[2], nn.ReLU6):
            normalisation = block[1]
            assert isinstance(normalisation, nn.BatchNorm2d)
            normalisation.eps, normalisation.momentum = 1e-3, 0.01


def published(config: Config, tensors: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the network's weights of the released ones.

    In the class `SixDRepNet` the stages 0 to 4 of RepVGG are called layer0 to layer4, with nothing before; in
    `SixDRepNet2` a ResNet's names are torchvision's.

    Args:
        config: of the network that will get them.
        tensors: state dict of a released file, `model_state_dict` of the training script's.

    Raises:
        UbhpdError: a tensor is missing, unknown or of another shape, or all are in the other form.
    """
    is_deploy = any(".rbr_reparam." in name for name in tensors)
    if config.backbone == _REPVGG and is_deploy != config.deploy:
        form, model = ("the form for use", "sixdrepnet_deploy") if is_deploy else ("the training form", "sixdrepnet")
        raise UbhpdError(f"These weights of 6DRepNet are in {form}: load them as the model {model}.")
    with torch.device("meta"):
        own = Network(config).state_dict()
    names = {name: name.removeprefix("backbone.").replace("stage", "layer") for name in own}
    return fit(own, tensors, names, () if config.backbone == _REPVGG else _VESTIGIAL)
