"""ResNet-18 to ResNet-152 with torchvision's names (conv1, layer1.0.conv1, layer1.0.downsample.0, fc).

He et al., Deep Residual Learning for Image Recognition, CVPR 2016, table 1. The stride of a bottleneck sits in its
3x3 convolution, as in torchvision's weights, not in the first 1x1 as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from ubhpd.networks.backbone import Backbone, initialise_convolutions


class Block(nn.Module):
    """A residual block: `inputs` channels to `width * expansion`, at 1/`stride` of the resolution."""

    expansion: ClassVar[int]

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()


class BasicBlock(Block):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__(inputs, width, stride)
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's feature map."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.downsample(x)
        return self.relu(out)  # type: ignore[no-any-return]


class Bottleneck(Block):
    """1x1, 3x3 and 1x1 convolutions, the last four times as wide, and a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__(inputs, width, stride)
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's feature map."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += self.downsample(x)
        return self.relu(out)  # type: ignore[no-any-return]


class ResNet(Backbone):
    """The stem and four layers of blocks; `resnet` gives those of the paper.

    Args:
        block: kind of block.
        depths: blocks in each of the four layers.
        strides: of the first block of each layer; (1, 2, 2, 1) keeps the last map at 1/16.
        num_classes: rows of the classifier `fc`; None for none.
    """

    OUTPUT = "fc"

    def __init__(
        self,
        block: type[Block],
        depths: Sequence[int],
        strides: Sequence[int] = (1, 2, 2, 2),
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.channels = 512 * block.expansion
        self.conv1: nn.Module = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _layer(block, 64, 64, depths[0], strides[0])
        self.layer2 = _layer(block, 64 * block.expansion, 128, depths[1], strides[1])
        self.layer3 = _layer(block, 128 * block.expansion, 256, depths[2], strides[2])
        self.layer4 = _layer(block, 256 * block.expansion, 512, depths[3], strides[3])
        if num_classes is not None:
            self.fc = nn.Linear(self.channels, num_classes)
        initialise_convolutions(self)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return the last feature map (N, channels, H/32, W/32) of pictures (N, 3, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(pictures))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))  # type: ignore[no-any-return]


LAYOUTS: dict[int, tuple[type[Block], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


def resnet(depth: int, strides: Sequence[int] = (1, 2, 2, 2), num_classes: int | None = None) -> ResNet:
    """Return the ResNet of `depth` 18, 34, 50, 101 or 152."""
    block, depths = LAYOUTS[depth]
    return ResNet(block, depths, strides, num_classes)


def _layer(block: type[Block], inputs: int, width: int, depth: int, stride: int) -> nn.Sequential:
    rest = (block(width * block.expansion, width) for _ in range(depth - 1))
    return nn.Sequential(block(inputs, width, stride), *rest)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
