"""Backbones by the names that models have in their options."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from ubhpd.core.registry import pick
from ubhpd.nn.backbone import Backbone
from ubhpd.nn.resnets import LAYOUTS, BoTNet101, Res2Net101, ResNet, resnet
from ubhpd.nn.small_backbones import VGG16, AlexNet, EfficientNetB0, MobileNetV2, RepVGGB1g2

BACKBONES: dict[str, Callable[..., Backbone]] = {
    **{f"resnet{depth}": partial(resnet, depth) for depth in LAYOUTS},
    "res2net101": Res2Net101,
    "botnet101": BoTNet101,
    "vgg16": VGG16,
    "vgg16_bn": partial(VGG16, batch_norm=True),
    "alexnet": AlexNet,
    "mobilenet_v2": MobileNetV2,
    "efficientnet_b0": EfficientNetB0,
    "repvgg_b1g2": RepVGGB1g2,
}


def backbone(name: str, num_classes: int | None = None, **options: Any) -> Backbone:
    """Return a new backbone of that name, with random weights.

    Args:
        name: a key of `BACKBONES`.
        num_classes: rows of its classifier; None for none.
        options: what else the family's constructor takes, such as `strides` of a ResNet.

    Raises:
        UbhpdError: no backbone has that name.
    """
    return pick(BACKBONES, name, "backbone")[1](num_classes=num_classes, **options)


def torchvision_name(network: Backbone) -> str | None:
    """Return the name of torchvision's ImageNet weights that fit this backbone, None if there are none."""
    if type(network) is ResNet:
        depths = tuple(len(getattr(network, f"layer{n}")) for n in range(1, 5))
        block = type(network.layer1[0])
        return next((f"resnet{depth}" for depth, own in LAYOUTS.items() if own == (block, depths)), None)
    if type(network) is VGG16:
        return "vgg16_bn" if any(isinstance(m, nn.BatchNorm2d) for m in network.modules()) else "vgg16"
    return {AlexNet: "alexnet", MobileNetV2: "mobilenet_v2"}.get(type(network))
