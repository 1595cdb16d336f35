"""FSA-Net: which places of the feature maps belong together is learnt, and they are aggregated to a vector per stage.

Two streams of small separable convolutions give maps G of 64 channels at three depths. Their 192 places are scored,
by a 1x1 convolution ("1x1"), by the variance over the channels ("var"), or not at all ("wo"). Of the scores come 7
weighted means of all places for each depth, 21 primary capsules; without scores the 192 places themselves are. They
are aggregated to three vectors of 16 numbers by capsules with routing ("capsule"), by NetVLAD ("netvlad"), or by two
plain matrices ("metric"), and each vector is a stage of `ubhpd.nn.stagewise`. A fusion is the mean of the
outputs of the three scorings of one aggregation: one network here, whose members learn side by side, each from its
own error. They share no parameter, so that is the same as training them apart on the same batches.

The input is BGR of 0 to 255 as it is, the image stretched to a square.

Where paper and released code differ this is the code, whose weights are public: the 1x1 convolution to 64 channels
and its activation come before the product of the streams, not after; variance is a mean, not a sum; the weights p
of the bins come from a ReLU, so that angles have no bound.
Known defects of the release: the sum over the stages has a pole at delta = -1, whence users' NaN; one published file,
fsanet_var_netvlad of 300W-LP, is NaN all through. A fifth of 300W-LP was held back at random, so mirrored frames of
one photo stood in both splits, and the last epoch was released; the recipe here holds nothing back.
Options, off by default: `min_delta` keeps away from the pole, -0.9 will do; `colour`; `feature_dense` is the "FC"
variant of the release, which has a layer between vector and delta, eta, p, and no published weights.
Readings: the paper names Glorot's initialisation, here that of every layer; biases start at 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ubhpd.core.errors import UbhpdError
from ubhpd.nn import stagewise
from ubhpd.nn.contract import InputRecipe, Output, PoseNetwork, Target, TrainingRecipe
from ubhpd.nn.stagewise import (
    AGGREGATIONS,
    ANGLES,
    BINS,
    CAPSULES,
    STAGES,
    VECTOR,
    Shifts,
    StageDense,
    Structure,
    TwoStreams,
    aggregation_names,
    stagewise_deg,
)
from ubhpd.nn.weight_files import fit

TITLE = "FSA-Net"
PAPER = (
    "Yang, Chen, Lin, Chuang, FSA-Net: Learning Fine-Grained Structure Aggregation for Head Pose Estimation From a "
    "Single Image, CVPR 2019"
)
CODE = "https://github.com/shamangary/FSA-Net"
LICENSE = "Apache-2.0"
KIND = "image"
MODELS = {
    "fsanet_capsule_1x1": {},
    "fsanet_capsule_var": {"scoring": "var"},
    "fsanet_capsule_wo": {"scoring": "wo"},
    "fsanet_capsule_fusion": {"scoring": "fusion"},
    "fsanet_metric_1x1": {"aggregation": "metric"},
    "fsanet_metric_var": {"aggregation": "metric", "scoring": "var"},
    "fsanet_metric_wo": {"aggregation": "metric", "scoring": "wo"},
    "fsanet_metric_fusion": {"aggregation": "metric", "scoring": "fusion"},
    "fsanet_netvlad_1x1": {"aggregation": "netvlad"},
    "fsanet_netvlad_var": {"aggregation": "netvlad", "scoring": "var"},
    "fsanet_netvlad_wo": {"aggregation": "netvlad", "scoring": "wo"},
    "fsanet_netvlad_fusion": {"aggregation": "netvlad", "scoring": "fusion"},
}
PARAMETERS = {
    "fsanet_capsule_1x1": 236_615,
    "fsanet_capsule_var": 236_550,
    "fsanet_capsule_wo": 692_707,
    "fsanet_capsule_fusion": 1_165_872,
    "fsanet_metric_1x1": 173_190,
    "fsanet_metric_var": 173_125,
    "fsanet_metric_wo": 104_483,
    "fsanet_metric_fusion": 450_798,
    "fsanet_netvlad_1x1": 181_706,
    "fsanet_netvlad_var": 181_641,
    "fsanet_netvlad_wo": 112_486,
    "fsanet_netvlad_fusion": 475_833,
}
REPORTED = {
    "fsanet_capsule_1x1": "FSA-Caps (1x1)",
    "fsanet_capsule_var": "FSA-Caps (var)",
    "fsanet_capsule_wo": "FSA-Caps (w/o)",
    "fsanet_capsule_fusion": "FSA-Caps-Fusion",
    "fsanet_metric_1x1": "FSA-Metric (1x1)",
    "fsanet_metric_var": "FSA-Metric (var)",
    "fsanet_metric_wo": "FSA-Metric (w/o)",
    "fsanet_metric_fusion": "FSA-Metric-Fusion",
    "fsanet_netvlad_1x1": "FSA-NetVLAD (1x1)",
    "fsanet_netvlad_var": "FSA-NetVLAD (var)",
    "fsanet_netvlad_wo": "FSA-NetVLAD (w/o)",
    "fsanet_netvlad_fusion": "FSA-NetVLAD-Fusion",
}

_SCORINGS = ("1x1", "var", "wo")
_PARTS = [4, 4, 8]  # of a vector: for delta, eta and p
_DENSE = 6  # features for delta and for eta in the "FC" variant


@dataclass(frozen=True)
class Config:
    """Options of FSA-Net.

    aggregation: "capsule", "metric" or "netvlad". scoring: "1x1", "var", "wo", or "fusion" for the mean of the three.
    size: side of the input in pixels, a multiple of 8. feature_dense: the "FC" variant. min_delta: a smaller delta
    counts as this; -1 changes nothing. colour: order of the channels, "BGR" or "RGB".
    """

    aggregation: str = "capsule"
    scoring: str = "1x1"
    size: int = 64
    feature_dense: bool = False
    min_delta: float = -1.0
    colour: str = "BGR"

    def __post_init__(self) -> None:
        stagewise.check_options("FSA-Net", self.size, 8, self.min_delta, self.colour)
        for name, value, known in (
            ("aggregation", self.aggregation, tuple(AGGREGATIONS)),
            ("scoring", self.scoring, (*_SCORINGS, "fusion")),
        ):
            if value not in known:
                raise UbhpdError(f"{name} of FSA-Net is {value!r}: give one of {', '.join(known)}.")

    @property
    def members(self) -> tuple[str, ...]:
        """Return the scorings of the networks whose mean is the output."""
        return _SCORINGS if self.scoring == "fusion" else (self.scoring,)


def input_recipe(config: Config) -> InputRecipe:
    """Return FSA-Net's crops, unchanged values of 0 to 255."""
    return stagewise.input_recipe(config.size, config.colour)


def training_recipe(config: Config) -> TrainingRecipe:
    """Return FSA-Net's training with batches of 16."""
    return stagewise.training_recipe(batch_size=16, batch_size_of=(("2", 8),))


class Network(PoseNetwork):
    """Images (n, 3, size, size) to "angles" (n, 3) in degrees, and all of `Member` as "1x1/angles" and so on."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config: Config = config
        self.members = nn.ModuleDict({scoring: Member(config, scoring) for scoring in config.members})

    def forward(self, images: torch.Tensor) -> Output:
        """Return the mean of the members' angles, and all that the members return."""
        outputs = {name: member(images) for name, member in self.members.items()}
        output = {f"{name}/{key}": value for name, found in outputs.items() for key, value in found.items()}
        return {"angles": sum(found["angles"] for found in outputs.values()) / len(outputs), **output}

    def pose(self, output: Output) -> torch.Tensor:
        """Return yaw, pitch, roll (n, 3) in degrees."""
        return output["angles"]

    def loss(self, output: Output, target: Target) -> Output:
        """Return the mean absolute error of each member in degrees."""
        return {f"mae_{m}": functional.l1_loss(output[f"{m}/angles"], target.angles_deg) for m in self.members}


class Member(nn.Module):
    """FSA-Net with one scoring."""

    def __init__(self, config: Config, scoring: str) -> None:
        super().__init__()
        self.min_delta = config.min_delta
        self.trunk = TwoStreams()
        places = (config.size // 8) ** 2
        self.structure = None if scoring == "wo" else Structure(places, scoring)
        capsules = STAGES * (places if scoring == "wo" else CAPSULES)
        self.aggregation = AGGREGATIONS[config.aggregation](capsules)
        self.dense = config.feature_dense
        if config.feature_dense:
            self.for_delta = StageDense(VECTOR, _DENSE)
            self.for_eta = StageDense(VECTOR, _DENSE)
        self.p = StageDense(VECTOR if self.dense else _PARTS[2], ANGLES * BINS)
        self.shifts = Shifts(_DENSE if self.dense else _PARTS[0])

    def forward(self, images: torch.Tensor) -> Output:
        """Return the angles and what they are made of.

        "places": G of the stages, deepest first (n, places, 64). "capsules": (n, capsules, 64). "vectors":
        (n, stage, 16). "p": (n, stage, angle, bin). "eta", "delta": (n, stage, angle). "angles": (n, 3) in degrees.
        """
        maps = [relu * tanh for relu, tanh in self.trunk(images)]
        maps[-1] = functional.avg_pool2d(maps[-1], 2)
        places = torch.cat([m.permute(0, 2, 3, 1).flatten(1, 2) for m in maps], dim=1)
        capsules = places if self.structure is None else self.structure(places)
        vectors = self.aggregation(capsules)
        if self.dense:
            for_delta, for_eta, for_p = self.for_delta(vectors).tanh(), self.for_eta(vectors).tanh(), vectors
        else:
            for_delta, for_eta, for_p = torch.split(vectors, _PARTS, dim=-1)
        delta, eta = self.shifts(for_delta, for_eta)
        p = self.p(for_p).relu().view(-1, STAGES, ANGLES, BINS)
        return {
            "places": places,
            "capsules": capsules,
            "vectors": vectors,
            "p": p,
            "eta": eta,
            "delta": delta,
            "angles": stagewise_deg(p, eta, delta, self.min_delta),
        }


def published(config: Config, tensors: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the network's weights of released .h5 files.

    Args:
        config: of the network that will get them.
        tensors: arrays by layer and kind, such as conv2d_1/kernel, as Keras lays them out; for a fusion those of
            three files, beginning 0/, 1/ and 2/, in any order.

    Raises:
        UbhpdError: a file is of another scoring, or a tensor is missing, unknown or of another shape.
    """
    files: dict[str, dict[str, Any]] = {}
    for name, values in tensors.items():
        number, _, rest = name.partition("/")
        file, layer = (number, rest) if number.isdecimal() else ("", name)
        files.setdefault(file, {})[layer] = values
    found = {_scoring(file): file for file in files.values()}
    if len(files) != len(config.members) or set(found) != set(config.members):
        scorings = ", ".join(sorted(map(_scoring, files.values())))
        raise UbhpdError(
            f"The weights are of FSA-Net with scoring {scorings}, and scoring {config.scoring} takes one file each "
            f"of {', '.join(config.members)}: give those files, or name the model they are of."
        )
    state: dict[str, torch.Tensor] = {}
    for scoring, member in found.items():
        with torch.device("meta"):
            own = Member(config, scoring).state_dict()
        fitted = fit(own, _in_torch_layout(member, scoring), _names(config, scoring))
        state |= {f"members.{scoring}.{name}": tensor for name, tensor in fitted.items()}
    return state


def _scoring(file: Mapping[str, Any]) -> str:
    """Return the scoring of a file, in which the score is the 7th convolution, and p the last three dense layers."""
    if "conv2d_7/kernel" in file:
        return "1x1"
    return "var" if "dense_5/kernel" in file else "wo"


def _p_layers(scoring: str) -> tuple[str, ...]:
    first = 1 if scoring == "wo" else 3
    return tuple(f"dense_{first + stage}" for stage in range(STAGES))


def _in_torch_layout(file: Mapping[str, Any], scoring: str) -> dict[str, torch.Tensor]:
    """Return a file's tensors as `fit` wants them; that of the score is a linear layer here."""
    turned = stagewise.from_keras(file, (*stagewise.SHIFT_GROUPS, _p_layers(scoring)))
    if "conv2d_7/kernel" in turned:
        turned["conv2d_7/kernel"] = turned["conv2d_7/kernel"].flatten(1)
    return turned


def _names(config: Config, scoring: str) -> dict[str, str]:
    """Return the published name, after `from_keras`, of each tensor of a `Member`."""
    names = {
        **stagewise.trunk_names("trunk"),
        **stagewise.shift_names("shifts"),
        **aggregation_names(config.aggregation),
    }
    names |= stagewise.dense_names("p", _p_layers(scoring)[0])
    if scoring != "wo":
        names |= {
            **stagewise.dense_names("structure.maps", "dense_1"),
            **stagewise.dense_names("structure.weights", "dense_2"),
        }
    if scoring == "1x1":
        names |= stagewise.dense_names("structure.score", "conv2d_7")
    return names
