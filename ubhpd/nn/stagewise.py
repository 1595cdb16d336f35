"""Soft stage-wise regression, and the two streams of small convolutions that FSA-Net and SSR-Net-MD share.

Yang et al., SSR-Net, IJCAI 2018, and FSA-Net, CVPR 2019: an angle is found coarse to fine in K stages of s bins. Each
stage gives the weights p of its bins, a shift eta of their places, and a change delta of their number. In the
released code p comes from a ReLU, not from a softmax: it is no distribution, and no angle is bounded by V.

FSA-Net's layers: capsules made of the places that belong together, and three ways from them to a vector per stage.

Yang et al., FSA-Net, CVPR 2019, sections 3.4 and 3.5. Capsules are (n, capsules, 64), the vectors have 16 numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.nn import functional

from ubhpd.core.errors import UbhpdError
from ubhpd.nn.contract import InputRecipe, TrainingRecipe

STAGES = 3
BINS = 3  # per stage
ANGLES = 3
RANGE_DEG = 99.0  # V of the papers
FEATURES = 64  # channels of a stage

_WIDTHS = (16, 32, 32, 64, 64, 128, 128)
_POOLED = (0, 2, 4)  # units whose map is halved
_TAPPED = (2, 4, 6)  # units whose map goes to a stage
_KERAS_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def stagewise_deg(p: torch.Tensor, eta: torch.Tensor, delta: torch.Tensor, min_delta: float = -1.0) -> torch.Tensor:
    """Return angles (n, 3) in degrees: V sum_k [sum_i (i + eta_k) p_ki] / prod_{l<=k} s (1 + delta_l).

    That is equation 2 of FSA-Net with bins i = -1, 0, 1 about the middle, as its code has it.

    Args:
        p: weights of the bins, (n, stage, angle, bin).
        eta: shifts of the bins, (n, stage, angle).
        delta: relative changes of the number of bins, (n, stage, angle).
        min_delta: a smaller delta counts as this. At -1 the sum has a pole, which users and a published file met.
    """
    if min_delta > -1:
        delta = delta.clamp(min=min_delta)
    places = (p[..., 2] - p[..., 0]) + eta * p.sum(dim=-1)
    counts = BINS * (1 + delta)
    angles = places[:, -1] / counts[:, -1]
    for stage in reversed(range(STAGES - 1)):
        angles = (places[:, stage] + angles) / counts[:, stage]
    return RANGE_DEG * angles


def check_options(model: str, size: int, step: int, min_delta: float, colour: str) -> None:
    """Raise UbhpdError unless `size` is a multiple of `step`, and the other options are possible."""
    if size < step or size % step:
        raise UbhpdError(f"size of {model} is {size}: give a multiple of {step}.")
    if not -1 <= min_delta <= 0:
        raise UbhpdError(f"min_delta of {model} is {min_delta}: give -1 to leave delta alone, or a number up to 0.")
    if colour not in ("BGR", "RGB"):
        raise UbhpdError(f"colour of {model} is {colour!r}: give BGR, as the published weights want it, or RGB.")


def input_recipe(size: int, colour: str) -> InputRecipe:
    """Return FSA-Net's crops: 60 % about the landmarks' box, 40 % about BIWI's; values of 0 to 255 as they are."""
    order = cast(Literal["RGB", "BGR"], colour)
    return InputRecipe("fsanet-0.6", size, order, crop_of=(("biwi", "fsanet-0.4"),))


def training_recipe(batch_size: int, batch_size_of: tuple[tuple[str, int], ...] = ()) -> TrainingRecipe:
    """Return FSA-Net's training: Adam with Keras' eps, and a tenth of the rate at epochs 30 and 60 of 90."""
    return TrainingRecipe(
        epochs=90,
        batch_size=batch_size,
        batch_size_of=batch_size_of,
        lr=1e-3,
        eps=1e-7,
        schedule="step",
        milestones=(30, 60),
        augmentations=("fsanet_crop", "fsanet_zoom"),
    )


class StageDense(nn.Linear):
    """A linear layer for each stage, their weights below each other: (stages * outputs, inputs)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, STAGES * outputs)
        bound = (6 / (inputs + outputs)) ** 0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.zeros_(self.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, stages, outputs) of (n, stages, inputs)."""
        weight, bias = self.weight.view(STAGES, -1, self.in_features), self.bias.view(STAGES, 1, -1)
        return torch.baddbmm(bias, x.transpose(0, 1), weight.transpose(1, 2)).transpose(0, 1)


class Shifts(nn.Module):
    """The linear layers behind delta and eta of each stage."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.delta = StageDense(inputs, ANGLES)
        self.eta = StageDense(inputs, ANGLES)

    def forward(self, for_delta: torch.Tensor, for_eta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return delta and eta (n, stage, angle) of their features (n, stage, inputs)."""
        return self.delta(for_delta).tanh(), self.eta(for_eta).tanh()


class Unit(nn.Sequential):
    """A depthwise 3x3 convolution, a 1x1 convolution, and batch normalisation with Keras' constants."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)


class TwoStreams(nn.Module):
    """One stream with ReLU and mean pooling, one with tanh and maximum pooling, and features of both for each stage.

    Images (n, 3, 8 k, 8 k) become three pairs of maps of 64 channels, deepest first: two of side k, one of side 2 k.
    """

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *_WIDTHS[:-1])
        self.relu = nn.ModuleList(Unit(i, o) for i, o in zip(inputs, _WIDTHS, strict=True))
        self.tanh = nn.ModuleList(Unit(i, o) for i, o in zip(inputs, _WIDTHS, strict=True))
        self.relu_features = nn.ModuleList(nn.Conv2d(_WIDTHS[k], FEATURES, 1) for k in reversed(_TAPPED))
        self.tanh_features = nn.ModuleList(nn.Conv2d(_WIDTHS[k], FEATURES, 1) for k in reversed(_TAPPED))
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.xavier_uniform_(m.weight)
                if m.bias is not None:
                    nn.init.zeros_(m.bias)

    def forward(self, images: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return (ReLU features, tanh features) of the three stages."""
        r = t = images
        maps = []
        for k, (relu, tanh) in enumerate(zip(self.relu, self.tanh, strict=True)):
            r, t = relu(r).relu_(), tanh(t)
            if k in _POOLED:
                r, t = functional.avg_pool2d(r, 2), functional.max_pool2d(t, 2)
            t = t.tanh_()  # after the maximum, which tanh leaves in its place, there are four times fewer to compute
            if k in _TAPPED:
                maps.append((r, t))
        layers = zip(self.relu_features, self.tanh_features, reversed(maps), strict=True)
        return [(relu(r).relu_(), tanh(t).tanh_()) for relu, tanh, (r, t) in layers]


def trunk_names(ours: str) -> dict[str, str]:
    """Return the published name of each tensor of a `TwoStreams` called `ours`."""
    names = {}
    for stream, first in (("relu", 1), ("tanh", 1 + len(_WIDTHS))):
        for k in range(len(_WIDTHS)):
            unit, layer = f"{ours}.{stream}.{k}", f"separable_conv2d_{first + k}"
            norm = f"batch_normalization_{first + k}"
            names[f"{unit}.depthwise.weight"] = f"{layer}/depthwise_kernel"
            names[f"{unit}.pointwise.weight"] = f"{layer}/pointwise_kernel"
            names[f"{unit}.pointwise.bias"] = f"{layer}/bias"
            names |= {f"{unit}.norm.{own}": f"{norm}/{theirs}" for own, theirs in _KERAS_NORM.items()}
    for stage in range(STAGES):
        names |= dense_names(f"{ours}.tanh_features.{stage}", f"conv2d_{2 * stage + 1}")
        names |= dense_names(f"{ours}.relu_features.{stage}", f"conv2d_{2 * stage + 2}")
    return names


def shift_names(ours: str) -> dict[str, str]:
    """Return the published name, after `joined`, of each tensor of a `Shifts` called `ours`."""
    return {**dense_names(f"{ours}.delta", "delta_s1"), **dense_names(f"{ours}.eta", "local_delta_stage1")}


SHIFT_GROUPS = tuple(tuple(f"{name}{k}" for k in (1, 2, 3)) for name in ("delta_s", "local_delta_stage"))


def dense_names(ours: str, layer: str) -> dict[str, str]:
    """Return the names of a layer with weight and bias."""
    return {f"{ours}.weight": f"{layer}/kernel", f"{ours}.bias": f"{layer}/bias"}


def from_keras(tensors: Mapping[str, Any], groups: Iterable[tuple[str, ...]] = ()) -> dict[str, torch.Tensor]:
    """Return the tensors of a Keras file in torch's layout.

    Args:
        tensors: by "layer/tensor". Kernels are (height, width, inputs, outputs), (height, width, channels, 1) if
            depthwise, or (inputs, outputs).
        groups: layers that are one here, their outputs side by side: it has the name of the first.

    Raises:
        UbhpdError: a layer of a group is missing, or its input has another width than those of the rest.
    """
    turned = {name: _turned(name, torch.as_tensor(values)) for name, values in tensors.items()}
    for layers in groups:
        for kind in ("kernel", "bias"):
            names = [f"{layer}/{kind}" for layer in layers]
            if missing := [name for name in names if name not in turned]:
                raise UbhpdError(f"The weights lack {missing[0]}: give those of this very model.")
            if len({turned[name].shape[1:] for name in names}) > 1:
                raise UbhpdError(f"The widths of {', '.join(names)} differ: give the weights of this very model.")
            turned[names[0]] = torch.cat([turned.pop(name) for name in names])
    return turned


def _turned(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if name == "caps/W":  # (stages, capsules, outputs, inputs)
        return tensor.permute(1, 3, 0, 2).flatten(2)
    if tensor.ndim == 4:
        return tensor.permute((2, 3, 0, 1) if name.endswith("/depthwise_kernel") else (3, 2, 0, 1))
    return tensor.mT if tensor.ndim == 2 else tensor


VECTOR = 16
CAPSULES = 7  # n' of the paper, for each stage

_STRUCTURES = 5  # m of the paper
_CLUSTERS = 3
_EPSILON = 1e-7  # Keras', in the length of a vector
_MIN_NORM = 1e-6  # TensorFlow's, of what is normalised to length 1


class Structure(nn.Module):
    """The fine-grained structure: which places make a capsule, learnt from their scores (section 3.5).

    Args:
        places: of each stage.
        scoring: "1x1" or "var".
    """

    def __init__(self, places: int, scoring: str) -> None:
        super().__init__()
        self.score = nn.Linear(FEATURES, 1) if scoring == "1x1" else None  # one for all stages
        self.maps = nn.Linear(places, _STRUCTURES * STAGES * places)  # M
        self.weights = nn.Linear(STAGES * places, CAPSULES * _STRUCTURES)  # C
        for layer in (self.score, self.maps, self.weights):
            if layer is not None:
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, places: torch.Tensor) -> torch.Tensor:
        """Return capsules (n, 21, 64) of places (n, 192, 64): S_k = C M_k, rows of sum 1, times the places."""
        scores = self._scores(places)
        maps = self._maps(scores)
        weights = self.weights(scores).sigmoid().view(scores.shape[0], 1, CAPSULES, _STRUCTURES)
        shares = (weights @ maps).flatten(1, 2)
        capsules: torch.Tensor = (shares @ places) / shares.sum(dim=-1, keepdim=True)
        return capsules

    def structures(self, places: torch.Tensor) -> torch.Tensor:
        """Return the maps M_k (n, stage, 5, 192) of places (n, 192, 64), from 0 to 1: each row is a fine-grained
        structure, how much each of the places of all three maps contributes (equation 5 and figure 5)."""
        return self._maps(self._scores(places))

    def _scores(self, places: torch.Tensor) -> torch.Tensor:
        if self.score is None:
            return places.var(dim=-1, correction=0)
        scores: torch.Tensor = self.score(places).squeeze(-1).sigmoid()
        return scores

    def _maps(self, scores: torch.Tensor) -> torch.Tensor:
        n, all_places = scores.shape
        maps: torch.Tensor = self.maps(scores.view(n, STAGES, -1)).sigmoid()
        return maps.view(n, STAGES, _STRUCTURES, all_places)


class CapsuleRouting(nn.Module):
    """Dynamic routing between capsules (Sabour, Frosst, Hinton, NeurIPS 2017, procedure 1), without bias.

    Each capsule votes for each stage's vector by a matrix of its own, and votes count more where they agree with the
    outcome of the first of two rounds. The gradient goes through the agreement too.
    """

    def __init__(self, capsules: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(capsules, FEATURES, STAGES * VECTOR))
        bound = (6 / (STAGES * capsules * (VECTOR + FEATURES))) ** 0.5  # Glorot's, as Keras counts (3, n, 16, 64)
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, capsules: torch.Tensor) -> torch.Tensor:
        """Return the vectors (n, stage, 16)."""
        votes = torch.bmm(capsules.transpose(0, 1), self.weight).view(len(self.weight), -1, STAGES, VECTOR)
        first = squash(votes.sum(dim=0) / STAGES)  # equal shares to begin with
        agreement = (votes * first).sum(dim=-1, keepdim=True)
        return squash((agreement.softmax(dim=2) * votes).sum(dim=0))


class NetVlad(nn.Module):
    """NetVLAD (Arandjelovic et al., CVPR 2016) with three clusters, and a matrix to the vectors."""

    def __init__(self, capsules: int) -> None:
        super().__init__()
        self.assign = nn.Linear(FEATURES, _CLUSTERS)
        self.centres = nn.Parameter(torch.empty(1, FEATURES, _CLUSTERS))
        self.reduce = nn.Linear(FEATURES * _CLUSTERS, STAGES * VECTOR, bias=False)
        for weight in (self.assign.weight, self.centres, self.reduce.weight):
            nn.init.xavier_uniform_(weight.squeeze(0))
        nn.init.zeros_(self.assign.bias)

    def forward(self, capsules: torch.Tensor) -> torch.Tensor:
        """Return the vectors (n, stage, 16)."""
        shares = self.assign(capsules).softmax(dim=-1)
        residuals = capsules.transpose(1, 2) @ shares - shares.sum(dim=1, keepdim=True) * self.centres
        residuals = functional.normalize(residuals, dim=1, eps=_MIN_NORM).flatten(1)
        vectors: torch.Tensor = self.reduce(functional.normalize(residuals, dim=1, eps=_MIN_NORM))
        return vectors.view(-1, STAGES, VECTOR)


class TwoMatrices(nn.Module):
    """One matrix over the capsules, one over the features: what the release calls metric."""

    def __init__(self, capsules: int) -> None:
        super().__init__()
        self.over_capsules = nn.Linear(capsules, STAGES, bias=False)
        self.over_features = nn.Linear(FEATURES, VECTOR, bias=False)
        for layer in (self.over_capsules, self.over_features):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, capsules: torch.Tensor) -> torch.Tensor:
        """Return the vectors (n, stage, 16)."""
        vectors: torch.Tensor = self.over_features(self.over_capsules.weight @ capsules)
        return vectors


AGGREGATIONS = {"capsule": CapsuleRouting, "netvlad": NetVlad, "metric": TwoMatrices}

_NAMES = {
    "capsule": {"weight": "caps/W"},
    "netvlad": {
        "assign.weight": "net_vlad_1/kernel_W1",
        "assign.bias": "net_vlad_1/kernel_B1",
        "centres": "net_vlad_1/kernel_W2",
        "reduce.weight": "net_vlad_1/kernel_H1",
    },
    "metric": {
        "over_features.weight": "mat_mul_layer_1/kernel_type1",
        "over_capsules.weight": "mat_mul_layer_2/kernel_type2",
    },
}


def squash(vectors: torch.Tensor) -> torch.Tensor:
    """Return vectors (..., size) of the same directions with lengths below 1: l^2 / (1 + l^2) (ibid., equation 1)."""
    squared = vectors.square().sum(dim=-1, keepdim=True)
    return vectors * (squared / ((1 + squared) * (squared + _EPSILON).sqrt()))


def aggregation_names(aggregation: str) -> dict[str, str]:
    """Return the published name of each tensor of an aggregation, called so in the network."""
    return {f"aggregation.{own}": theirs for own, theirs in _NAMES[aggregation].items()}
