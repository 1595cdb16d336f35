"""The options and the report of a training run; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ubhpd.core.errors import UbhpdError

PRECISIONS = ("32", "16", "bf16")
BALANCES = ("none", "sampling", "loss", "lds")
SELECTIONS = ("best", "last")
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine")  # those that need no further numbers

WEIGHTS = "weights.safetensors"
REPORT = "train.json"


@dataclass(frozen=True)
class TrainRequest:
    """What to train, on which heads, and how; None takes the value of the model's own recipe.

    model: a name of the catalogue. data: folder of a build. out: folder of the run; an interrupted run resumes there.
    protocol: its training split; None takes the split train of ubhpd.parquet. options: of the model, as typed.
    seed: of the first weights, the order of the heads, augmentation and dropout. steps: instead of epochs. batch_size:
    of all devices together. recipe: any other value of the model's recipe (`TrainingRecipe`) by name, as typed.
    as_paper: train on all heads and keep the last epoch, as papers do; what is given beside it counts, and is named as
    a departure. device: as `device_named`. precision: "16" is float16 on a GPU, bfloat16 on a CPU.
    channels_last: memory order of images in which convolutions are faster, on a CPU too; rounding may differ.
    workers: threads that prepare heads, 0 for up to 4. balance: see `ubhpd.training.training_heads`. validation:
    share of the heads that chooses the epoch, 0 for none; by default 0.1, as the paper 0. select: "best" epoch or
    "last"; by default "best", as the paper "last". backbone: published weights to begin with. teachers: checkpoints to
    learn from. cache: folder for crops, by default in the build. frame_list,
    protocol_seed: as for `ubhpd.protocols.resolve.resolve`. landmarks: a manifest of `ubhpd landmarks` whose landmarks
    complete those of the heads, see `BuildFolder.landmarks`. allow_unsupervised: terms of the loss that may go without
    any head that supervises them. save_seconds: between two saved states.
    """

    model: str
    data: Path
    out: Path
    protocol: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    epochs: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    optimizer: str | None = None
    schedule: str | None = None
    weight_decay: float | None = None
    recipe: Mapping[str, str] = field(default_factory=dict)
    as_paper: bool = False
    device: str = "auto"
    precision: str = "32"
    channels_last: bool = True
    compiled: bool = False
    workers: int = 0
    balance: str = "none"
    validation: float = None  # type: ignore[assignment]  # of the instance never None
    select: str = None  # type: ignore[assignment]
    backbone: Path | None = None
    teachers: tuple[Path, ...] = ()
    cache: Path | None = None
    frame_list: Path | None = None
    protocol_seed: int = 0
    landmarks: Path | None = None
    allow_unsupervised: tuple[str, ...] = ()
    save_seconds: float = 300.0

    def __post_init__(self) -> None:
        """Put in what follows from `as_paper`, and refuse values that nothing can be trained with."""
        for name, usual, of_paper in (("validation", 0.1, 0.0), ("select", "best", "last")):
            if getattr(self, name) is None:
                object.__setattr__(self, name, of_paper if self.as_paper else usual)
        for name, allowed in (("precision", PRECISIONS), ("balance", BALANCES), ("select", SELECTIONS)):
            if getattr(self, name) not in allowed:
                raise UbhpdError(f"{name} is {getattr(self, name)!r}: choose one of {', '.join(allowed)}.")
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in (None, *known):
                raise UbhpdError(f"{name} is {getattr(self, name)!r}: choose one of {', '.join(known)}.")
        for name in ("epochs", "steps", "batch_size", "lr"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UbhpdError(f"{name} is {value}: give a number above 0.")
        if self.weight_decay is not None and not 0 <= self.weight_decay < float("inf"):
            raise UbhpdError(f"weight_decay is {self.weight_decay}: give a number of at least 0.")
        own = ("epochs", "batch_size", "lr", "optimizer", "schedule", "weight_decay")
        if twice := [n for n in own if n in self.recipe and getattr(self, n) is not None]:
            raise UbhpdError(f"The recipe's {twice[0]} is given twice, also by its own option: give it once.")
        if self.epochs is not None and self.steps is not None:
            raise UbhpdError("Both epochs and steps say how long to train: give one of them.")
        if self.seed < 0 or self.workers < 0:
            raise UbhpdError(f"seed is {self.seed} and workers {self.workers}: give whole numbers of at least 0.")
        if not self.save_seconds >= 0:
            raise UbhpdError(f"save_seconds is {self.save_seconds}: give a number of at least 0.")
        if not 0 <= self.validation < 1:
            raise UbhpdError(f"validation is {self.validation}: give a share from 0 to below 1, such as 0.1.")


def departures(request: TrainRequest) -> tuple[str, ...]:
    """Return what a request asks for otherwise than the paper, as "steps 200"; nothing but that differs."""
    names = ("epochs", "steps", "batch_size", "lr", "optimizer", "schedule", "weight_decay")
    found = [f"{n} {getattr(request, n)}" for n in names if getattr(request, n) is not None]
    found += [f"{n} {v}" for n, v in request.recipe.items()]
    usual = (("validation", 0), ("select", "last"), ("balance", "none"))
    return (*found, *(f"{n} {getattr(request, n)}" for n, v in usual if getattr(request, n) != v))


@dataclass(frozen=True)
class TrainReport:
    """The result of a training run: the content of train.json.

    weights: the checkpoint, its tensors' hash weights_sha256. steps, epochs: trained. best_epoch: from 1, the one whose
    weights were kept, None without validation. validation_error_deg: their mean geodesic error. selection_rule: in
    words. heads, validation_heads: trained on, and held out. recipe: what was trained with. origin: the
    origin stored in the checkpoint. warnings: sentences.
    """

    model: str
    weights: Path
    weights_sha256: str
    steps: int
    epochs: int
    best_epoch: int | None
    validation_error_deg: float | None
    selection_rule: str
    heads: int
    validation_heads: int
    recipe: Mapping[str, Any]
    origin: Mapping[str, Any]
    identity: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as what JSON can hold; the weights by their file name."""
        return {**asdict(self), "weights": self.weights.name}
