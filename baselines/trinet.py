"""TriNet: three unit vectors instead of angles, the head's left, down and front, each coordinate a classification.

ResNet-50 with its classifier of 1000 rows as features -> nine Linear(1000, B), one for each coordinate of each
vector -> expectation over the softmax of B values evenly from -1 to 1 -> each vector normalised. `trinet_mobilenetv2`
has MobileNetV2's 1280 mean features instead. The paper reports MAEV, the mean angle between true and predicted
vectors.

The vectors live in the image's own frame: x right, y down, and z toward the viewer, a left-handed frame that is
frame C with y turned round. With M = diag(1, -1, 1) their matrix, in columns left, down, front, is P = M R M for the
canonical rotation R. Turning y round inverts rotations about x and z, so R = Rx(-pitch) Ry(-yaw) Rz(-roll) becomes
P = Rx(pitch) Ry(-yaw) Rz(roll), which is how the authors' data script makes the labels of 300W-LP and AFLW2000 from
the same three angles. For AFLW it composes Ry(-yaw) Rx(pitch) Rz(-roll), as the released refinement does: AFLW's own
angles, with another order and roll counter-clockwise, give the same matrix of the same head. So the way from P to R
needs no angles and is exact for both, and the network here outputs P as the published one does. (The script's labels
for BIWI are right-handed, the third column away from the viewer: weights trained on those do not decode here.)

Predicted vectors are not quite orthogonal. The paper looks for the rotation with the smallest sum of squared angles
to them by Nelder and Mead; here it is the nearest in the sense of least squares, by singular values, which needs no
start and agrees to second order (the authors' script has this as a second mode, without care for reflections).

Differs from the paper: ImageNet weights are a user's to give; Adam keeps its moments, while the released script makes a
new one every epoch; all of the network is trained, while there the BatchNorm layers whose names have "bn" in them are
kept at ImageNet's statistics. MobileNetV2's learning rate there is ten times as high for five epochs.
Readings: the squared dot product of each pair enters twice, once for each of its vectors, as in the code. The crop is
FSA-Net's, whose augmentation it takes over; its own boxes come in files that were not released. The class
MobileNetV2 of the last release cannot be built, the one before it is followed.

Known defects of the released code that matter: parameters of the backbone are given to Adam up to five times over, so
each step moves them that often; the script behind the tables counts errors of 180 degrees as none, and leaves out
heads whose angles it cannot read back from the matrix, which are those beyond 90 degrees of yaw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ubhpd.core.errors import UbhpdError
from ubhpd.nn.backbones import backbone
from ubhpd.nn.contract import InputRecipe, Output, PoseNetwork, Target, TrainingRecipe
from ubhpd.nn.outputs import nearest_rotation
from ubhpd.nn.weight_files import fit

TITLE = "TriNet"
PAPER = "Cao, Chu, Liu and Chen, A Vector-based Representation to Enhance Head Pose Estimation, WACV 2021"
CODE = "https://github.com/chuzcjoe/TriNet"
LICENSE = "MIT"
KIND = "image"
MODELS = {"trinet": {}, "trinet_mobilenetv2": {"backbone": "mobilenet_v2"}}
PARAMETERS = {"trinet": 25_917_392, "trinet_mobilenetv2": 2_685_032}
REPORTED = {"trinet": "TriNet"}

_RESNET = "resnet50"
_MOBILENET = "mobilenet_v2"
_HEADS = tuple(f"fc_{axis}{vector}" for vector in (1, 2, 3) for axis in "xyz")
_COSINE_MARGIN = 1e-4


@dataclass(frozen=True)
class Config:
    """Options of TriNet.

    size: side of the input in pixels. backbone: resnet50 or mobilenet_v2. bins: values of a coordinate, 40 or 60
    in the paper. alpha: weight of the angles between vectors. beta: weight of orthogonality.
    """

    size: int = 224
    backbone: str = _RESNET
    bins: int = 40
    alpha: float = 1.0
    beta: float = 0.3

    def __post_init__(self) -> None:
        if self.size < 32:
            raise UbhpdError(f"TriNet divides its input by 32, and size is {self.size}: give 32 or more.")
        if self.backbone not in (_RESNET, _MOBILENET):
            raise UbhpdError(f'TriNet has no backbone "{self.backbone}": choose {_RESNET} or {_MOBILENET}.')
        if self.bins < 2:
            raise UbhpdError(f"TriNet cannot tell coordinates apart with bins={self.bins}: give 2 or more.")
        for name in ("alpha", "beta"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UbhpdError(f"{name} of TriNet is {getattr(self, name)}: give a finite number not below 0.")


def input_recipe(config: Config) -> InputRecipe:
    """Return FSA-Net's crops with values 0 to 255 as they are, BGR."""
    return InputRecipe(crop="fsanet-0.6", size=config.size, colour="BGR", crop_of=(("biwi", "fsanet-0.4"),))


def training_recipe(config: Config) -> TrainingRecipe:
    """Return the released script's training."""
    return TrainingRecipe(
        epochs=20,
        batch_size=64 if config.backbone == _RESNET else 128,
        lr=1e-5 if config.backbone == _RESNET else 1e-4,
        schedule="exponential",
        gamma=0.95,
        augmentations=("gamma", "trinet_crop", "fsanet_zoom"),
    )


class Network(PoseNetwork):
    """Images (n, 3, size, size) to "logits" (n, 3, 3, bins) and "vectors" (n, 3, 3).

    The second axis of both is the vector, left, down, front; the third its coordinate, x right, y down, z to the
    viewer.
    """

    grid: torch.Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config: Config = config
        is_resnet = config.backbone == _RESNET
        self.backbone = backbone(config.backbone, num_classes=1000 if is_resnet else None)
        features = 1000 if is_resnet else self.backbone.channels
        self.heads = nn.ModuleDict({name: nn.Linear(features, config.bins) for name in _HEADS})
        self.register_buffer("grid", torch.linspace(-1, 1, config.bins), persistent=False)

    def forward(self, images: torch.Tensor) -> Output:
        """Return logits of the coordinates and the vectors they expect."""
        if self.backbone.head is None:
            features = self.backbone.pooled(self.backbone(images))
        else:
            features = self.backbone.logits(images)
        stacked = torch.stack([head(features) for head in self.heads.values()], dim=1)
        logits = stacked.view(-1, 3, 3, self.config.bins)
        coordinates = (logits.softmax(dim=-1) * self.grid).sum(dim=-1)
        return {"logits": logits, "vectors": functional.normalize(coordinates, dim=2)}

    def pose(self, output: Output) -> torch.Tensor:
        """Return the rotations (n, 3, 3) in frame C that are nearest to the vectors."""
        return turned_y(nearest_rotation(output["vectors"].transpose(1, 2)))

    def loss(self, output: Output, target: Target) -> Output:
        """Return the terms of the loss, each summed over the three vectors.

        class: binary cross entropy of each logit with the soft label, summed over coordinates. regression: alpha times
        the squared angle in radians between true and predicted vector. orthogonality: beta times the squared dot
        products of each vector with the two others.
        """
        vectors = output["vectors"]
        truth = turned_y(target.rotation).transpose(1, 2)
        label = soft_label(truth, self.grid)
        cosine = (vectors * truth).sum(dim=2).clamp(-1 + _COSINE_MARGIN, 1 - _COSINE_MARGIN)
        products = (vectors * vectors.roll(1, dims=1)).sum(dim=2)
        return {
            "class": 9 * functional.binary_cross_entropy_with_logits(output["logits"], label),
            "regression": 3 * self.config.alpha * cosine.acos().square().mean(),
            "orthogonality": 6 * self.config.beta * products.square().mean(),
        }

    def learning_rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """Return the backbone and the heads, these ten times as fast on ResNet-50."""
        heads = 10.0 if self.config.backbone == _RESNET else 1.0
        return [(list(self.backbone.parameters()), 1.0), (list(self.heads.parameters()), heads)]


def turned_y(rotation: torch.Tensor) -> torch.Tensor:
    """Return M R M (..., 3, 3), M = diag(1, -1, 1): from frame C to the paper's frame, or back."""
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in rotation.unbind(-2))
    rows = ((a, -b, c), (-d, e, -f), (g, -h, i))  # no constant tensor, which a GPU would wait for
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def soft_label(coordinates: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Return labels (..., B) of coordinates (...): exp(-sqrt(|i - c|)), normalised to the sum 1.

    c is the last of the B values of `grid` that is not above the coordinate, i any of them.
    """
    found = torch.bucketize(coordinates.contiguous(), grid, right=True) - 1
    distance = torch.arange(len(grid), device=grid.device) - found.clamp(min=0)[..., None]
    return (-distance.abs().to(grid.dtype).sqrt()).softmax(dim=-1)


def published(config: Config, tensors: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the network's weights of a snapshot of the authors' training script.

    There ResNet-50 is called `features`, with torchvision's names; MobileNetV2's one part is called that itself. The
    heads are fc_x1, fc_y1, fc_z1 for the left vector, 2 for down, 3 for front.

    Args:
        config: of the network that will get them; `bins` as in the snapshot.
        tensors: its state dict.

    Raises:
        UbhpdError: a tensor is missing, unknown or of another shape.
    """
    with torch.device("meta"):
        own = Network(config).state_dict()
    prefix = "features." if config.backbone == _RESNET else ""
    names = {name: name.replace("backbone.", prefix, 1).removeprefix("heads.") for name in own}
    return fit(own, tensors, names)
