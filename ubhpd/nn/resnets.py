"""ResNet-18 to ResNet-152 with torchvision's names (conv1, layer1.0.conv1, layer1.0.downsample.0, fc).

He et al., Deep Residual Learning for Image Recognition, CVPR 2016, table 1. The stride of a bottleneck sits in its
3x3 convolution, as in torchvision's weights, not in the first 1x1 as in the paper.

Res2Net-101 v1b, 26w x 4s, with the names of the authors' weights (conv1.0, layer1.0.convs.0, layer1.0.bns.0, fc).

Gao et al., Res2Net: A New Multi-scale Backbone Architecture, TPAMI 2021, figure 2 (b): after the first 1x1
convolution the channels are cut into four slices, and each slice but the last goes through a 3x3 convolution that
also sees the slice before it. v1b, the authors' later form (github.com/Res2Net/Res2Net-PretrainedModels), has three
3x3 convolutions as stem and averages before a shortcut's convolution.

BoTNet-101 as EHPNet's teacher uses it: ResNet-101 whose last layer is three blocks with self-attention.

Srinivas et al., Bottleneck Transformers for Visual Recognition, CVPR 2021, figure 3 and section 3: in a bottleneck
the 3x3 convolution gives way to attention of all places to all, with relative positions. The last layer keeps the
resolution, so an image of 112 x 112 gives a map of 7 x 7.

No ImageNet checkpoint is known. The names are torchvision's up to layer3; layer4 has those of the reference
implementation in torch (github.com/lucidrains/bottleneck-transformer-pytorch: net.0.shortcut.0, net.0.net.3.to_qkv,
net.0.net.3.pos_emb.rel_height), and so has the first block's shortcut its ReLU.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from ubhpd.core.errors import UbhpdError
from ubhpd.nn.backbone import Backbone, initialise_convolutions


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

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the last feature map (N, channels, H/32, W/32) of images (N, 3, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
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


_HEADS = 4
_HEAD_WIDTH = 128
_PROJECTION = 4


class RelativePositions(nn.Module):
    """What a query thinks of the row and column offsets to every place of a square map."""

    offset: torch.Tensor

    def __init__(self, map_size: int) -> None:
        super().__init__()
        self.map_size = map_size
        scale = _HEAD_WIDTH**-0.5
        self.rel_height = nn.Parameter(torch.randn(2 * map_size - 1, _HEAD_WIDTH) * scale)
        self.rel_width = nn.Parameter(torch.randn(2 * map_size - 1, _HEAD_WIDTH) * scale)
        place = torch.arange(map_size)
        self.register_buffer("offset", place - place[:, None] + map_size - 1, persistent=False)

    def forward(self, queries: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, heads, n n, n n) of queries (N, heads, n n, width), places in row-major order."""
        q = queries.reshape(-1, _HEADS, self.map_size, self.map_size, _HEAD_WIDTH)
        rows = torch.einsum("bhyxd,yid->bhyxi", q, self.rel_height[self.offset])
        columns = torch.einsum("bhyxd,xjd->bhyxj", q, self.rel_width[self.offset])
        return (rows[..., :, None] + columns[..., None, :]).flatten(4).flatten(2, 3)


class Attention(nn.Module):
    """Multi-head attention between all places of a map, with relative positions (section 3, figure 4)."""

    def __init__(self, inputs: int, map_size: int) -> None:
        super().__init__()
        self.map_size = map_size
        self.to_qkv = nn.Conv2d(inputs, 3 * _HEADS * _HEAD_WIDTH, 1, bias=False)
        self.pos_emb = RelativePositions(map_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the attended map (N, heads * width, n, n) of a map (N, inputs, n, n)."""
        height, width = x.shape[-2:]
        if (height, width) != (self.map_size, self.map_size):
            raise UbhpdError(
                f"BoTNet's last layer got a map of {height} x {width} where its positions are for {self.map_size} x "
                f"{self.map_size}: give images of {16 * self.map_size} pixels, or another map_size."
            )
        qkv: torch.Tensor = self.to_qkv(x)
        q, k, v = qkv.reshape(-1, 3, _HEADS, _HEAD_WIDTH, height * width).transpose(-1, -2).unbind(1)
        bias = self.pos_emb(q * _HEAD_WIDTH**-0.5)
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return out.transpose(-1, -2).reshape(-1, _HEADS * _HEAD_WIDTH, height, width)


class AttentionBlock(nn.Module):
    """A bottleneck whose middle is attention; the last gain starts at 0, so that the block starts as its shortcut."""

    def __init__(self, inputs: int, outputs: int, map_size: int) -> None:
        super().__init__()
        inner, attended = outputs // _PROJECTION, _HEADS * _HEAD_WIDTH
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
            )
        last = nn.BatchNorm2d(outputs)
        nn.init.zeros_(last.weight)
        self.net = nn.Sequential(
            nn.Conv2d(inputs, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            Attention(inner, map_size),
            nn.Identity(),  # where a block that halves the resolution averages: keeps the names of what follows
            nn.BatchNorm2d(attended),
            nn.ReLU(inplace=True),
            nn.Conv2d(attended, outputs, 1, bias=False),
            last,
        )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's feature map (N, outputs, n, n)."""
        out = self.net(x)
        out += self.shortcut(x)
        return self.activation(out)  # type: ignore[no-any-return]


class BoTNet101(ResNet):
    """ResNet-101 with three attention blocks as layer4.

    Args:
        map_size: places along a side of the last map: 1/16 of the image's side.
        num_classes: rows of the classifier `fc`; None for none.
    """

    def __init__(self, map_size: int = 7, num_classes: int | None = None) -> None:
        super().__init__(Bottleneck, LAYOUTS[101][1], num_classes=num_classes)
        widths = (self.channels // 2, self.channels, self.channels)
        stack = nn.Sequential(*(AttentionBlock(width, self.channels, map_size) for width in widths))
        self.layer4 = nn.Sequential(OrderedDict(net=stack))
        initialise_convolutions(self.layer4)
