"""Res2Net-101 v1b, 26w x 4s, with the names of the authors' weights (conv1.0, layer1.0.convs.0, layer1.0.bns.0, fc).

Gao et al., Res2Net: A New Multi-scale Backbone Architecture, TPAMI 2021, figure 2 (b): after the first 1x1
convolution the channels are cut into four slices, and each slice but the last goes through a 3x3 convolution that
also sees the slice before it. v1b, the authors' later form (github.com/Res2Net/Res2Net-PretrainedModels), has three
3x3 convolutions as stem and averages before a shortcut's convolution.
"""

from __future__ import annotations

import torch
from torch import nn

from ubhpd.networks.backbone import initialise_convolutions
from ubhpd.networks.resnet import LAYOUTS, Block, ResNet

_SCALES = 4
_WIDTH_PER_64 = 26


class Bottle2neck(Block):
    """A bottleneck with hierarchical 3x3 convolutions on slices of the channels.

    Where the block changes stride or width, the slices are independent, and the one without a convolution is
    averaged to the new resolution.
    """

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__(inputs, width, stride)
        outputs = width * self.expansion
        self.slice = width * _WIDTH_PER_64 // 64
        self.is_first = stride != 1 or inputs != outputs
        self.conv1 = nn.Conv2d(inputs, self.slice * _SCALES, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(self.slice * _SCALES)
        self.convs = nn.ModuleList(
            nn.Conv2d(self.slice, self.slice, 3, stride, padding=1, bias=False) for _ in range(_SCALES - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm2d(self.slice) for _ in range(_SCALES - 1))
        self.conv3 = nn.Conv2d(self.slice * _SCALES, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AvgPool2d(3, stride, padding=1) if self.is_first else nn.Identity()
        self.downsample: nn.Module = nn.Identity()
        if self.is_first:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's feature map."""
        *slices, last = self.relu(self.bn1(self.conv1(x))).split(self.slice, dim=1)
        done: list[torch.Tensor] = []
        for s, conv, norm in zip(slices, self.convs, self.bns, strict=True):
            seen = s + done[-1] if done and not self.is_first else s
            done.append(self.relu(norm(conv(seen))))
        out = self.bn3(self.conv3(torch.cat([*done, self.pool(last)], dim=1)))
        out += self.downsample(x)
        return self.relu(out)  # type: ignore[no-any-return]


class Res2Net101(ResNet):
    """Res2Net-101 26w x 4s v1b.

    Args:
        num_classes: rows of the classifier `fc`; None for none.
    """

    def __init__(self, num_classes: int | None = None) -> None:
        super().__init__(Bottle2neck, LAYOUTS[101][1], num_classes=num_classes)
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 64, 3, padding=1, bias=False),
        )
        initialise_convolutions(self.conv1)
