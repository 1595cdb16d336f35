"""VGG-16, plain or with batch normalisation, with torchvision's names (features.0, classifier.0, .3, .6).

Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015, table 1,
column D.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ubhpd.networks.backbone import Backbone, initialise_convolutions

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(Backbone):
    """The thirteen convolutions, and the three linear layers if `num_classes` is given.

    Args:
        num_classes: rows of the last layer of `classifier`; None for no classifier.
        batch_norm: normalise after each convolution (torchvision's vgg16_bn).
    """

    OUTPUT = "classifier.6"
    channels = 512

    def __init__(self, num_classes: int | None = None, batch_norm: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for stage in _STAGES:
            for width in stage:
                layers.append(nn.Conv2d(inputs, width, 3, padding=1))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(width))
                layers.append(nn.ReLU(inplace=True))
                inputs = width
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        initialise_convolutions(self)
        if num_classes is not None:
            self.classifier = nn.Sequential(
                nn.Linear(512 * 7 * 7, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(),
                nn.Linear(4096, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(),
                nn.Linear(4096, num_classes),
            )
            for layer in self.classifier:
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=0.01)
                    nn.init.zeros_(layer.bias)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return the last feature map (N, 512, H/32, W/32) of pictures (N, 3, H, W)."""
        return self.features(pictures)  # type: ignore[no-any-return]

    def head_input(self, features: torch.Tensor) -> torch.Tensor:
        """Return the map averaged to 7 x 7 places, flattened (N, 25088)."""
        return functional.adaptive_avg_pool2d(features, (7, 7)).flatten(1)
