"""BoTNet-101 as EHPNet's teacher uses it: ResNet-101 whose last layer is three blocks with self-attention.

Srinivas et al., Bottleneck Transformers for Visual Recognition, CVPR 2021, figure 3 and section 3: in a bottleneck
the 3x3 convolution gives way to attention of all places to all, with relative positions. The last layer keeps the
resolution, so a picture of 112 x 112 gives a map of 7 x 7.

No ImageNet checkpoint is known. The names are torchvision's up to layer3; layer4 has those of the reference
implementation in torch (github.com/lucidrains/bottleneck-transformer-pytorch: net.0.shortcut.0, net.0.net.3.to_qkv,
net.0.net.3.pos_emb.rel_height), and so has the first block's shortcut its ReLU.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

from ubhpd.errors import UbhpdError
from ubhpd.networks.backbone import initialise_convolutions
from ubhpd.networks.resnet import LAYOUTS, Bottleneck, ResNet

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
                f"{self.map_size}: give pictures of {16 * self.map_size} pixels, or another map_size."
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
        map_size: places along a side of the last map: 1/16 of the picture's side.
        num_classes: rows of the classifier `fc`; None for none.
    """

    def __init__(self, map_size: int = 7, num_classes: int | None = None) -> None:
        super().__init__(Bottleneck, LAYOUTS[101][1], num_classes=num_classes)
        widths = (self.channels // 2, self.channels, self.channels)
        stack = nn.Sequential(*(AttentionBlock(width, self.channels, map_size) for width in widths))
        self.layer4 = nn.Sequential(OrderedDict(net=stack))
        initialise_convolutions(self.layer4)
