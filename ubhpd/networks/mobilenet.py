"""MobileNetV2 with torchvision's names (features.0.0, features.1.conv.0.0, features.18.0, classifier.1).

Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018, table 2, width 1.
"""

from __future__ import annotations

import torch
from torch import nn

from ubhpd.networks.backbone import Backbone, initialise_convolutions

# Expansion, channels, blocks, stride of the first block: the rows t, c, n, s of table 2.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel by 3x3, narrow by 1x1 without activation; added to the input if it fits."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.is_residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *([_convolution(inputs, inner, 1)] if expansion > 1 else []),
            _convolution(inner, inner, 3, stride, groups=inner),
            nn.Conv2d(inner, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's feature map."""
        out: torch.Tensor = self.conv(x)
        return x + out if self.is_residual else out


class MobileNetV2(Backbone):
    """MobileNetV2 of width 1.

    Args:
        num_classes: rows of `classifier`; None for none.
    """

    OUTPUT = "classifier.1"
    channels = 1280

    def __init__(self, num_classes: int | None = None) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(3, 32, 3, stride=2)]
        inputs = 32
        for expansion, outputs, blocks, stride in _STAGES:
            for i in range(blocks):
                layers.append(InvertedResidual(inputs, outputs, stride if i == 0 else 1, expansion))
                inputs = outputs
        layers.append(_convolution(inputs, self.channels, 1))
        self.features = nn.Sequential(*layers)
        initialise_convolutions(self)
        if num_classes is not None:
            last = nn.Linear(self.channels, num_classes)
            nn.init.normal_(last.weight, std=0.01)
            nn.init.zeros_(last.bias)
            self.classifier = nn.Sequential(nn.Dropout(0.2), last)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return the last feature map (N, 1280, H/32, W/32) of pictures (N, 3, H, W)."""
        return self.features(pictures)  # type: ignore[no-any-return]


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )
