"""AlexNet with torchvision's names (features.0, classifier.1, .4, .6).

Krizhevsky, One weird trick for parallelizing convolutional neural networks, arXiv:1404.5997: the one-column form of
Krizhevsky et al., NeurIPS 2012, without local response normalisation.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ubhpd.networks.backbone import Backbone


class AlexNet(Backbone):
    """The five convolutions, and the three linear layers if `num_classes` is given.

    Args:
        num_classes: rows of the last layer of `classifier`; None for no classifier.
    """

    OUTPUT = "classifier.6"
    channels = 256

    def __init__(self, num_classes: int | None = None) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
        )
        if num_classes is not None:
            self.classifier = nn.Sequential(
                nn.Dropout(),
                nn.Linear(256 * 6 * 6, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(),
                nn.Linear(4096, 4096),
                nn.ReLU(inplace=True),
                nn.Linear(4096, num_classes),
            )

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return the last feature map of pictures (N, 3, H, W): (N, 256, 6, 6) for 224 x 224."""
        return self.features(pictures)  # type: ignore[no-any-return]

    def head_input(self, features: torch.Tensor) -> torch.Tensor:
        """Return the map averaged to 6 x 6 places, flattened (N, 9216)."""
        return functional.adaptive_avg_pool2d(features, (6, 6)).flatten(1)
