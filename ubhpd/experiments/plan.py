"""The options of `ubhpd bench`, and the runs that follow from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ubhpd.core.errors import UbhpdError
from ubhpd.leaderboards.reported import Known, KnownProtocol
from ubhpd.leaderboards.result import FITTED, IMPORTED, TRAINED, canonical_hash
from ubhpd.models.catalogue import card, catalogue, configured
from ubhpd.protocols.resolve import PROTOCOLS, in_series, protocol
from ubhpd.training.request import TrainRequest

# What papers call by these numbers, one id for each pair of train and test set. Of the divisions of BIWI it is the
# one that is drawn as FSA-Net drew it; the others are there by their ids.
SHORT_NAMES: Mapping[str, tuple[str, ...]] = {
    "1": ("300wlp_aflw2000_1969", "300wlp_biwi_15678"),
    "2": ("biwi_16_8_drawn", "upna_subjects"),
    "3": ("ubhpd",),
    "cross": tuple(p.id for p in in_series("cross")),
}


@dataclass(frozen=True)
class HowToTrain:
    """What is passed on to training; None leaves it to the model's own recipe."""

    epochs: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    precision: str | None = None
    balance: str | None = None
    optimizer: str | None = None
    schedule: str | None = None
    validation: float | None = None
    select: str | None = None
    backbone: Path | None = None

    def request(self, model: str, data: Path, out: Path, **rest: Any) -> TrainRequest:
        """Return the request to train a model with what is not None, and the rest.

        Raises:
            UbhpdError: a value that nothing can be trained with.
        """
        return TrainRequest(model, data, out, **rest, **{k: v for k, v in vars(self).items() if v is not None})


@dataclass(frozen=True)
class BenchRequest:
    """Every model on every protocol with every seed.

    options: model -> option -> value as typed. weights: model -> files of published weights, for models that are not
    trained. frames: list of frames, for protocols that need one. speed: batch size to measure the speed with.
    cache: folder for crops, by default in the build.
    """

    models: tuple[str, ...]
    protocols: tuple[str, ...]
    data: Path
    out: Path
    seeds: tuple[int, ...] = (0,)
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    weights: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    train: HowToTrain = field(default_factory=HowToTrain)
    frames: Path | None = None
    protocol_seed: int = 0
    device: str = "auto"
    workers: int = 0
    speed: int | None = None
    cache: Path | None = None


class Run(NamedTuple):
    """One model with its options, on one protocol, with one seed: None where nothing is drawn."""

    model: str
    chosen: dict[str, str]
    options: dict[str, Any]
    how: str
    protocol_id: str
    seed: int | None

    @property
    def name(self) -> str:
        """Name of its files, without an ending."""
        last = self.how if self.seed is None else f"seed{self.seed}"
        return f"{self.model}-{canonical_hash(self.options)[:8]}-{last}"


def protocol_ids(names: Iterable[str]) -> dict[str, bool]:
    """Return the ids that names of protocols stand for, each with whether the user named that very id.

    Raises:
        UbhpdError: neither a protocol nor one of SHORT_NAMES.
    """
    found: dict[str, bool] = {}
    for name in names:
        if name in SHORT_NAMES:
            found |= {i: found.get(i, False) for i in SHORT_NAMES[name]}
        else:
            found[protocol(name).id] = True
    return found


def runs_of(request: BenchRequest) -> list[Run]:
    """Return all runs, one protocol after the other.

    Raises:
        UbhpdError: no model, protocol or seed, an unknown one, or a wrong option.
    """
    for what, values in (("model", request.models), ("protocol", request.protocols), ("seed", request.seeds)):
        if not values:
            raise UbhpdError(f"No {what} is named: give --{what}s with one at least.")
    if stray := [m for m in (*request.options, *request.weights) if m not in request.models]:
        raise UbhpdError(f"{stray[0]} has an option or weights, but is not among --models: add it, or leave them out.")
    if negative := [s for s in request.seeds if s < 0]:
        raise UbhpdError(f"The seed {negative[0]} is negative: give whole numbers of at least 0.")
    ids = protocol_ids(request.protocols)
    request.train.request("", request.data, request.out)  # refuses values that no training can do with
    methods = [_method(model, request) for model in dict.fromkeys(request.models)]
    return [
        Run(model, chosen, options, how, protocol_id, seed)
        for protocol_id in ids
        for model, chosen, options, how in methods
        for seed in (dict.fromkeys(request.seeds) if how == TRAINED else (None,))
    ]


def _method(model: str, request: BenchRequest) -> tuple[str, dict[str, str], dict[str, Any], str]:
    """Return a model, its options, chosen and all, and how its weights come about."""
    chosen = dict(request.options.get(model, {}))
    options = asdict(configured(model, chosen)[1])
    is_geometric = card(model).kind == "geometric"
    if is_geometric and model in request.weights:
        raise UbhpdError(f"{model} is a geometric method, which is fitted: leave --weights {model}=FILE out.")
    how = FITTED if is_geometric else IMPORTED if model in request.weights else TRAINED
    return model, dict(sorted(chosen.items())), options, how


def known() -> Known:
    """Return what the leaderboard needs to know of the protocols and models of this version."""
    return Known(
        protocols={p.id: KnownProtocol(p.sentence, p.definition_hash, bool(p.published)) for p in PROTOCOLS.values()},
        reported_as={c.name: c.reported for c in catalogue().values() if c.reported is not None},
    )
