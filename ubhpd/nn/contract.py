"""The interface of a network in baselines/: its input, its training targets, its output.

A file in baselines/ holds one model in all its named variants. Its constants, all literals, are its card:

    TITLE     the name in the literature
    PAPER     authors, title, venue, year
    CODE      address of the released code, "" if none
    LICENSE   of the published weights and code; what is written here is MIT
    KIND      "image", "sequence" or "landmarks": what the network sees; "geometric": no network, see `ubhpd.models`;
              "reported": only results of a paper, and the docstring says why
    SEES      only of a geometric method that reads no landmarks: "nothing", a constant prediction
    MODELS    name on the command line -> options of its Config that differ from the defaults
    PARAMETERS  the same names -> number of trainable parameters, checked by the tests
    REPORTED  the same names -> method as printed in published_results.csv, where one is

and its docstring says what the model is, what differs from the paper, and what is a reading of it. Then come

    Config                         frozen dataclass of every option, all of them numbers, texts or booleans
    input_recipe(config)           how a head becomes the network's input
    training_recipe(config)        how the paper trains it
    Network(config)                a `PoseNetwork`
    published(config, tensors)     optional: foreign weights, by their published names, to the network's own names
    landmark_terms(config)         optional: terms of the loss that only heads with landmarks supervise, each with the
                                   numbers (of 68) of the landmarks that it compares
    training_remarks(config, recipe, has_backbone)
                                   optional: sentences to warn of before a training by a recipe, which begins with a
                                   backbone's published weights or not

Images as Hopenet sees them, which several later papers took over: its crops, and ImageNet's normalisation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from ubhpd.nn.inputs import WHOLE
from ubhpd.nn.inputs import InputRecipe as InputRecipe

IMAGENET_MEAN = (123.675, 116.28, 103.53)  # of RGB values 0 to 255
IMAGENET_STD = (58.395, 57.12, 57.375)

Output = dict[str, torch.Tensor]


@dataclass(frozen=True)
class TrainingRecipe:
    """How the paper trains: optimiser, schedule, augmentation; the docstring of the model says where it is silent.

    epochs, batch_size: as printed. optimizer and its lr, betas, eps, momentum (nesterov where SGD has one),
    weight_decay. schedule: "constant"; "step": lr * gamma at each of the `milestones` (epochs); "cosine": down to lr *
    final_share at the end, per iteration; "exponential": lr * gamma per epoch. warmup_epochs: linear, from 0.
    clip_norm, clip_value: of the gradient. augmentations: names of `ubhpd.training.augmentations`, in their order.
    max_angle_deg: heads with an angle of this size or more are left out. batch_size_of, weight_decay_of: pairs (series
    of protocols or how their ids begin, value) where the paper has another one, as ("2", 8). crops: pairs (crop recipe
    of the input, crop recipe that takes its place in training), as for a margin that is drawn. cut_from: (a, b) where
    crops are cut b / a times as large as the input, of which training sees a random window, and validation the middle;
    before all augmentations.
    """

    epochs: int
    batch_size: int
    lr: float
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: Literal["constant", "step", "cosine", "exponential"] = "constant"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    final_share: float = 0.0
    warmup_epochs: int = 0
    clip_norm: float | None = None
    clip_value: float | None = None
    augmentations: tuple[str, ...] = ()
    max_angle_deg: float = 99.0
    batch_size_of: tuple[tuple[str, int], ...] = ()
    crops: tuple[tuple[str, str], ...] = ()
    cut_from: tuple[int, int] = (1, 1)
    weight_decay_of: tuple[tuple[str, float], ...] = ()

    def for_protocol(self, series: str, protocol: str) -> TrainingRecipe:
        """Return the recipe for a protocol, of the series that papers number."""

        def own(pairs: tuple[tuple[str, Any], ...], usual: Any) -> Any:
            return next((value for key, value in pairs if key == series or protocol.startswith(key)), usual)

        return replace(
            self,
            batch_size=own(self.batch_size_of, self.batch_size),
            weight_decay=own(self.weight_decay_of, self.weight_decay),
            batch_size_of=(),
            weight_decay_of=(),
        )

    def input_in_training(self, own: InputRecipe) -> InputRecipe:
        """Return how heads are cut in training, where `own` is how they are cut otherwise."""
        crops, (kept, cut) = dict(self.crops), self.cut_from
        # A recipe that keeps the middle is cut whole, since the window is drawn from all of it.
        whole = WHOLE if cut != kept else ""

        def of(crop: str) -> str:
            return crops.get(crop, crop) + whole

        crop_of = tuple((dataset, of(crop)) for dataset, crop in own.crop_of)
        return replace(own, crop=of(own.crop), crop_of=crop_of, size=round(own.size * cut / kept))


class Target(NamedTuple):
    """The truth about a batch of n heads.

    angles_deg: canonical yaw, pitch, roll (n, 3). rotation: the same as matrices (n, 3, 3), frame C of
    `ubhpd.core.rotation`. landmarks: the 68 points in the input image (n, 68, 2), x and y from -0.5 at its left and
    top edge to 0.5, NaN where not known; None if no head has any. teacher: probabilities that a teacher gives (n, 3,
    bins) for a network that learns from one, else None.
    """

    angles_deg: torch.Tensor
    rotation: torch.Tensor
    landmarks: torch.Tensor | None = None
    teacher: torch.Tensor | None = None


class PoseNetwork(nn.Module, ABC):
    """A network that estimates head pose.

    `forward` takes images (n, 3, size, size) that `InputRecipe` has normalised, sequences of them (n, frames, 3,
    size, size), or landmarks (n, 68, 2) as in `Target`, and returns named tensors, whose first axis is n.
    """

    config: Any
    has_published_backbone: bool = False  # whether its backbone's weights are those of a published file

    @abstractmethod
    def pose(self, output: Output) -> torch.Tensor:
        """Return canonical yaw, pitch, roll (n, 3) in degrees, or rotations (n, 3, 3) in frame C."""

    @abstractmethod
    def loss(self, output: Output, target: Target) -> Output:
        """Return the terms of the loss by name, scalars, weighted: their sum is what training makes small."""

    def learning_rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """Return groups of parameters and the share of the learning rate that each has."""
        return [(list(self.parameters()), 1.0)]


def hopenet_images(size: int, aflw2000: str = "hopenet-aflw2000", biwi: str = "hopenet-biwi") -> InputRecipe:
    """Return RGB images with ImageNet's mean and deviation, cut by Hopenet's recipe.

    Args:
        size: side of the input in pixels.
        aflw2000: crop recipe of AFLW2000, where a paper has its own.
        biwi: the same of BIWI.
    """
    crop_of = (("aflw2000", aflw2000), ("biwi", biwi))
    return InputRecipe(crop="hopenet", size=size, mean=IMAGENET_MEAN, std=IMAGENET_STD, crop_of=crop_of)


def hopenet_training_from_scratch() -> TrainingRecipe:
    """Return Hopenet's training at a learning rate of 1e-4, for models whose published weights are not at hand."""
    return TrainingRecipe(
        epochs=25,
        batch_size=64,
        lr=1e-4,
        crops=(("hopenet", "hopenet-random"),),
        augmentations=("hopenet_crop", "flip", "blur"),
    )
