"""What every backbone family has in common: a feature map, its mean, and optionally a classifier.

A user's ImageNet checkpoint loads as it is (`ubhpd.nn.weight_files.load_backbone`), because each family keeps the names
of the published weights. So modules are called `layer1` or `rbr_dense` here and not what they would be called
otherwise.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from ubhpd.core.errors import UbhpdError


class Backbone(nn.Module):
    """A network whose `forward` takes images (N, 3, H, W) to its last feature map (N, channels, h, w).

    Attributes:
        channels: width of the feature map.
        OUTPUT: name of the layer with one row per class; its first part is the name of the whole classifier,
            which is there only if the backbone was built with `num_classes`.
    """

    OUTPUT: ClassVar[str]
    channels: int

    @property
    def head(self) -> nn.Module | None:
        """Return the classifier, None if there is none."""
        return self._modules.get(self.OUTPUT.partition(".")[0])

    def pooled(self, features: torch.Tensor) -> torch.Tensor:
        """Return the mean (N, channels) of a feature map (N, channels, h, w) over its places."""
        return functional.adaptive_avg_pool2d(features, 1).flatten(1)

    def head_input(self, features: torch.Tensor) -> torch.Tensor:
        """Return what the family's classifier sees of a feature map: here its mean."""
        return self.pooled(features)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return the classifier's output (N, num_classes) for images (N, 3, H, W).

        Raises:
            UbhpdError: the backbone was built without a classifier.
        """
        head = self.head
        if head is None:
            raise UbhpdError(f"This {type(self).__name__} has no classifier: build it with num_classes.")
        result: torch.Tensor = head(self.head_input(self(images)))
        return result


def initialise_convolutions(module: nn.Module) -> None:
    """Draw every convolution's weights as torchvision does: normal, variance 2 / (outputs k^2 / groups), bias 0.

    That is the fan-out form of He et al., ICCV 2015, eq. 14.
    """
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            if m.bias is not None:
                nn.init.zeros_(m.bias)
