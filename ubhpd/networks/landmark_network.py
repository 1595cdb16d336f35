"""Pictures to heat maps of landmarks: a backbone that keeps its last map at 1/16, and a decoder up to 1/4."""

from __future__ import annotations

import torch
from torch import nn

from ubhpd.networks.backbone import initialise_convolutions
from ubhpd.networks.backbones import backbone
from ubhpd.networks.resnet import BasicBlock

# "thin" is four residual blocks of 32 to 128 channels: about a hundredth of ResNet-34's work, for small pictures.
LANDMARK_BACKBONES = ("resnet18", "resnet34", "resnet50", "thin")
_THIN = 32


class LandmarkNetwork(nn.Module):
    """The landmark network of OsGG-Net: 21,459,283 parameters with ResNet-34, a width of 256 and 19 landmarks.

    Three 1x1 convolutions with BN and ReLU, of `width`, half and a quarter of it, the first two after a bilinear
    doubling whose corners stay in place, and a last 1x1 convolution.

    Args:
        name: one of LANDMARK_BACKBONES; a ResNet has layer 4 at stride 1.
        width: channels of the decoder's first block.
        landmarks: K.
    """

    def __init__(self, name: str, width: int, landmarks: int) -> None:
        super().__init__()
        self.backbone: nn.Module
        if name == "thin":
            self.backbone, channels = _thin_backbone(), 4 * _THIN
        else:
            self.backbone = backbone(name, strides=(1, 2, 2, 1))
            channels = self.backbone.channels
        self.decoder = nn.Sequential(
            nn.UpsamplingBilinear2d(scale_factor=2),
            *_pointwise(channels, width),
            nn.UpsamplingBilinear2d(scale_factor=2),
            *_pointwise(width, width // 2),
            *_pointwise(width // 2, width // 4),
            nn.Conv2d(width // 4, landmarks, 1),
        )

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return logits (n, K, side/4, side/4) of pictures (n, 3, side, side), side a multiple of 16."""
        logits: torch.Tensor = self.decoder(self.backbone(pictures))
        return logits


def _pointwise(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


def _thin_backbone() -> nn.Sequential:
    network = nn.Sequential(
        nn.Conv2d(3, _THIN, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(_THIN),
        nn.ReLU(inplace=True),
        BasicBlock(_THIN, _THIN, 2),
        BasicBlock(_THIN, 2 * _THIN, 2),
        BasicBlock(2 * _THIN, 4 * _THIN, 2),
        BasicBlock(4 * _THIN, 4 * _THIN),
    )
    initialise_convolutions(network)
    return network
