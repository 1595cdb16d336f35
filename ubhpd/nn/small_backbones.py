"""Backbones without residual bottlenecks: AlexNet, VGG, RepVGG, MobileNetV2, EfficientNet.

AlexNet with torchvision's names (features.0, classifier.1, .4, .6).

Krizhevsky, One weird trick for parallelizing convolutional neural networks, arXiv:1404.5997: the one-column form of
Krizhevsky et al., NeurIPS 2012, without local response normalisation.

VGG-16, plain or with batch normalisation, with torchvision's names (features.0, classifier.0, .3, .6).

Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015, table 1,
column D.

RepVGG-B1g2 with the names of the authors' weights (stage0.rbr_dense.conv, stage1.0.rbr_identity, linear).

Ding et al., RepVGG: Making VGG-style ConvNets Great Again, CVPR 2021, section 3 and table 2: in training each layer
is the sum of a 3x3 convolution, a 1x1 convolution and the identity, each normalised; for use the three become one
3x3 convolution with the same output. Names after github.com/DingXiaoH/RepVGG; the published checkpoint is there in
both forms, "train" and "deploy".

MobileNetV2 with torchvision's names (features.0.0, features.1.conv.0.0, features.18.0, classifier.1).

Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018, table 2, width 1.

EfficientNet-B0 with torchvision's names (features.0.0, features.1.0.block.0.0, features.8.0, classifier.1).

Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019, table 1. Weights that
were trained in TensorFlow (WHENet's) need its padding and its constants of normalisation: `tensorflow=True`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from ubhpd.nn.backbone import Backbone, initialise_convolutions


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

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the last feature map of images (N, 3, H, W): (N, 256, 6, 6) for 224 x 224."""
        return self.features(images)  # type: ignore[no-any-return]

    def head_input(self, features: torch.Tensor) -> torch.Tensor:
        """Return the map averaged to 6 x 6 places, flattened (N, 9216)."""
        return functional.adaptive_avg_pool2d(features, (6, 6)).flatten(1)


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

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the last feature map (N, 512, H/32, W/32) of images (N, 3, H, W)."""
        return self.features(images)  # type: ignore[no-any-return]

    def head_input(self, features: torch.Tensor) -> torch.Tensor:
        """Return the map averaged to 7 x 7 places, flattened (N, 25088)."""
        return functional.adaptive_avg_pool2d(features, (7, 7)).flatten(1)


_REPVGG_STAGES = ((128, 4), (256, 6), (512, 16), (2048, 1))  # channels and blocks
_GROUPS = 2  # in every other layer, so that channels of different groups still mix


class Branch(nn.Module):
    """A convolution without bias and the normalisation of its output."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the branch's feature map."""
        return self.bn(self.conv(x))  # type: ignore[no-any-return]


class RepVGGBlock(nn.Module):
    """The three branches and a ReLU, or with `deploy` the one convolution that they amount to."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int = 1, deploy: bool = False) -> None:
        super().__init__()
        self.stride = stride
        self.rbr_reparam: nn.Conv2d | None = None
        if deploy:
            self.rbr_reparam = nn.Conv2d(inputs, outputs, 3, stride, padding=1, groups=groups)
        else:
            has_identity = stride == 1 and inputs == outputs
            self.rbr_identity = nn.BatchNorm2d(inputs) if has_identity else None
            self.rbr_dense = Branch(inputs, outputs, 3, stride, groups)
            self.rbr_1x1 = Branch(inputs, outputs, 1, stride, groups)
        self.nonlinearity = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's feature map."""
        if self.rbr_reparam is not None:
            return self.nonlinearity(self.rbr_reparam(x))  # type: ignore[no-any-return]
        out = self.rbr_dense(x) + self.rbr_1x1(x)
        if self.rbr_identity is not None:
            out += self.rbr_identity(x)
        return self.nonlinearity(out)  # type: ignore[no-any-return]

    @torch.no_grad()
    def reparameterize(self) -> None:
        """Put one convolution in the place of the branches, with the same output in evaluation (section 3.3)."""
        if self.rbr_reparam is not None:
            return
        dense = self.rbr_dense.conv
        parts = [
            _fused(dense.weight, self.rbr_dense.bn),
            _fused(functional.pad(self.rbr_1x1.conv.weight, (1, 1, 1, 1)), self.rbr_1x1.bn),
        ]
        if self.rbr_identity is not None:
            unit = nn.init.dirac_(torch.empty_like(dense.weight), dense.groups)
            parts.append(_fused(unit, self.rbr_identity))
        kernels, biases = zip(*parts, strict=True)
        whole = nn.Conv2d(dense.in_channels, dense.out_channels, 3, self.stride, padding=1, groups=dense.groups)
        self.rbr_reparam = whole.to(dense.weight)
        self.rbr_reparam.weight.copy_(sum(kernels))
        self.rbr_reparam.bias.copy_(sum(biases))  # type: ignore[union-attr]
        del self.rbr_dense, self.rbr_1x1, self.rbr_identity


class RepVGGB1g2(Backbone):
    """RepVGG-B1g2.

    Args:
        num_classes: rows of the classifier `linear`; None for none.
        deploy: build the form for use, which loads a "deploy" checkpoint.
    """

    OUTPUT = "linear"
    channels = 2048

    def __init__(self, num_classes: int | None = None, deploy: bool = False) -> None:
        super().__init__()
        self.stage0 = RepVGGBlock(3, 64, stride=2, deploy=deploy)
        stages = []
        inputs, layer = 64, 0
        for width, depth in _REPVGG_STAGES:
            blocks = []
            for i in range(depth):
                layer += 1
                groups = _GROUPS if layer % 2 == 0 else 1
                blocks.append(RepVGGBlock(inputs, width, 2 if i == 0 else 1, groups, deploy))
                inputs = width
            stages.append(nn.Sequential(*blocks))
        self.stage1, self.stage2, self.stage3, self.stage4 = stages
        if num_classes is not None:
            self.linear = nn.Linear(self.channels, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the last feature map (N, 2048, H/32, W/32) of images (N, 3, H, W)."""
        x = self.stage2(self.stage1(self.stage0(images)))
        return self.stage4(self.stage3(x))  # type: ignore[no-any-return]

    def reparameterize(self) -> None:
        """Bring every block to the form for use, in place; what is trained after that is another network."""
        for module in list(self.modules()):
            if isinstance(module, RepVGGBlock):
                module.reparameterize()


def _fused(kernel: torch.Tensor, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Return kernel and bias, in double precision, of a convolution and the normalisation of its output (eq. 3)."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return kernel.double() * scale[:, None, None, None], norm.bias.double() - norm.running_mean.double() * scale


# Expansion, channels, blocks, stride of the first block: the rows t, c, n, s of table 2.
_MOBILENET_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


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
        for expansion, outputs, blocks, stride in _MOBILENET_STAGES:
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

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the last feature map (N, 1280, H/32, W/32) of images (N, 3, H, W)."""
        return self.features(images)  # type: ignore[no-any-return]


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


class Stage(NamedTuple):
    """A row of table 1: the first of its blocks has the stride and changes the width."""

    expansion: int
    kernel: int
    stride: int
    outputs: int
    blocks: int


STAGES = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)


class SameConv2d(nn.Conv2d):
    """A convolution that pads as TensorFlow's 'same': as little as gives ceil(size / stride), the odd pixel last."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the feature map (N, outputs, ceil(H / stride), ceil(W / stride))."""
        top, bottom = _same(x.shape[-2], self.kernel_size[0], self.stride[0])
        left, right = _same(x.shape[-1], self.kernel_size[1], self.stride[1])
        return super().forward(functional.pad(x, (left, right, top, bottom)))


class SqueezeExcitation(nn.Module):
    """Scale each channel by what a small network says of all channels' means (Hu et al., CVPR 2018, eq. 2-4)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = nn.SiLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scaled map (N, channels, h, w)."""
        scale: torch.Tensor = self.fc2(self.activation(self.fc1(functional.adaptive_avg_pool2d(x, 1))))
        return x * scale.sigmoid()


class StochasticDepth(nn.Module):
    """In training, 0 for a share of the batch and the rest scaled to the same mean (Huang et al., ECCV 2016)."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the map, each head's kept or dropped as a whole."""
        if not self.training or self.share == 0:
            return x
        kept = 1 - self.share
        return x * x.new_empty(len(x), 1, 1, 1).bernoulli_(kept).div_(kept)


class MBConv(nn.Module):
    """An inverted residual block with squeeze and excitation; `share` of the time its own part is left out."""

    def __init__(self, inputs: int, stage: Stage, stride: int, share: float, tensorflow: bool) -> None:
        super().__init__()
        inner = inputs * stage.expansion
        self.is_residual = stride == 1 and inputs == stage.outputs
        widen = _normed_convolution(inputs, inner, 1, tensorflow=tensorflow)
        self.block = nn.Sequential(
            *([widen] if stage.expansion > 1 else []),
            _normed_convolution(inner, inner, stage.kernel, stride, groups=inner, tensorflow=tensorflow),
            SqueezeExcitation(inner, max(1, inputs // 4)),
            _normed_convolution(inner, stage.outputs, 1, tensorflow=tensorflow)[:2],
        )
        self.stochastic_depth = StochasticDepth(share)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's feature map."""
        out: torch.Tensor = self.block(x)
        return x + self.stochastic_depth(out) if self.is_residual else out


class EfficientNetB0(Backbone):
    """EfficientNet-B0.

    Args:
        num_classes: rows of `classifier`; None for none.
        tensorflow: pad as TensorFlow and normalise with eps 1e-3 and momentum 0.99 (torch's 0.01).
        stochastic_depth: share of dropped blocks in training, growing linearly from 0 to this with depth.
    """

    OUTPUT = "classifier.1"
    channels = 1280

    def __init__(self, num_classes: int | None = None, tensorflow: bool = False, stochastic_depth: float = 0.2) -> None:
        super().__init__()
        layers: list[nn.Module] = [_normed_convolution(3, 32, 3, stride=2, tensorflow=tensorflow)]
        total = sum(stage.blocks for stage in STAGES)
        inputs, done = 32, 0
        for stage in STAGES:
            blocks: list[nn.Module] = []
            for i in range(stage.blocks):
                stride = stage.stride if i == 0 else 1
                blocks.append(MBConv(inputs, stage, stride, stochastic_depth * done / total, tensorflow))
                inputs, done = stage.outputs, done + 1
            layers.append(nn.Sequential(*blocks))
        layers.append(_normed_convolution(inputs, self.channels, 1, tensorflow=tensorflow))
        self.features = nn.Sequential(*layers)
        initialise_convolutions(self)
        if num_classes is not None:
            last = nn.Linear(self.channels, num_classes)
            bound = num_classes**-0.5
            nn.init.uniform_(last.weight, -bound, bound)
            nn.init.zeros_(last.bias)
            self.classifier = nn.Sequential(nn.Dropout(0.2), last)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the last feature map (N, 1280, H/32, W/32) of images (N, 3, H, W)."""
        return self.features(images)  # type: ignore[no-any-return]


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    outputs = -(-size // stride)
    missing = max((outputs - 1) * stride + kernel - size, 0)
    return missing // 2, missing - missing // 2


def _normed_convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, *, tensorflow: bool
) -> nn.Sequential:
    # At stride 1 an odd kernel's 'same' padding is even on all sides, and needs no step of its own.
    if tensorflow and stride > 1:
        convolution: nn.Conv2d = SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
    else:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01) if tensorflow else nn.BatchNorm2d(outputs)
    return nn.Sequential(convolution, norm, nn.SiLU(inplace=True))
