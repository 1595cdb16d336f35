"""AlexNet with torchvision's names (features.0, classifier.1, .4, .6).

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
"""

from __future__ import annotations

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
