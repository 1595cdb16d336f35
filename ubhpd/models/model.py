"""A network at work: with its options, its input recipe, its weights, on a device."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ubhpd.core.errors import UbhpdError
from ubhpd.models import checkpoint
from ubhpd.models.catalogue import NETWORKS, ModelCard, card, config_of, configured, module_of
from ubhpd.nn.contract import InputRecipe, PoseNetwork
from ubhpd.nn.weight_files import check_fit

_DEVICE = re.compile(r"cpu|cuda(:\d+)?|auto")


@dataclass(frozen=True)
class Model:
    """A network in evaluation mode, and what belongs to it."""

    name: str
    module: Any
    config: Any
    network: PoseNetwork
    about: checkpoint.About

    @property
    def recipe(self) -> InputRecipe:
        """How a head becomes the network's input."""
        recipe: InputRecipe = self.module.input_recipe(self.config)
        return recipe

    @property
    def kind(self) -> str:
        """What the network sees: image, sequence or landmarks."""
        return card(self.name).kind

    @classmethod
    def untrained(cls, name: str, chosen: Mapping[str, str] | None = None, seed: int = 0) -> Model:
        """Return the model with random weights, equal for equal seeds.

        Args:
            name: of the model.
            chosen: options as typed, as in `configured`.
            seed: of the weights; the caller's own random numbers are left as they are.

        Raises:
            UbhpdError: no such network, or a wrong option.
        """
        check_network(card(name))
        module, config = configured(name, chosen)
        origin = {"how": "untrained", "seed": seed}
        about = checkpoint.About(
            name, asdict(config), asdict(module.input_recipe(config)), origin, "none needed: the weights are random"
        )
        return cls(name, module, config, _built(module, config, seed), about)

    @classmethod
    def of_checkpoint(cls, path: Path, name: str | None = None) -> Model:
        """Return the model that a checkpoint holds, on the CPU.

        Args:
            path: the file.
            name: refuse the checkpoint of another model.

        Raises:
            UbhpdError: as `checkpoint.load`, or the tensors or options are not those of the model.
        """
        about, tensors = checkpoint.load(path, name)
        found = card(about.model)
        check_network(found)
        module = module_of(found)
        config = config_of(module, about.config, f"{path}: {about.model}")
        network = _built(module, config, seed=0)
        fill(network, {n: torch.from_numpy(v) for n, v in tensors.items()}, str(path))
        return cls(about.model, module, config, network, about)

    def of_origin(self, origin: Mapping[str, Any], license: str) -> Model:
        """Return the model with another origin and licence of its weights."""
        return replace(self, about=replace(self.about, origin=dict(origin), license=license))

    def to(self, device: str) -> Model:
        """Return the model on a device: "cpu", "cuda", "cuda:1" or "auto"; see `device_named`."""
        return replace(self, network=self.network.to(device_named(device)))

    def save(self, path: Path) -> checkpoint.About:
        """Write the model's checkpoint and return what it says of itself."""
        state = self.network.state_dict()
        return checkpoint.save(path, {n: v.detach().cpu().numpy() for n, v in state.items()}, self.about)


def check_network(found: ModelCard) -> None:
    """Raise UbhpdError unless the model is a network that can be run."""
    if found.kind == "geometric":
        raise UbhpdError(f"{found.name} is no network but a geometric method: make its numbers by ubhpd weights fit.")
    if found.kind not in NETWORKS:
        module_of(found)  # says why


def fill(network: torch.nn.Module, tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Copy tensors into a network, by its own names, all of them and nothing else.

    Raises:
        UbhpdError: a tensor is missing, left over, of another shape, or whole numbers where others belong; `where`
            begins the sentence.
    """
    check_fit(tensors, network.state_dict(), f"{where} does not fit this model",
              "give weights of this model with the same options, see ubhpd models")  # fmt: skip
    network.load_state_dict(dict(tensors))


def device_named(text: str) -> torch.device:
    """Return the device of that name; "auto" is the first CUDA device, the CPU where there is none.

    Raises:
        UbhpdError: no name of a device, or one that is not there.
    """
    if not _DEVICE.fullmatch(text):
        raise UbhpdError(f"There is no device {text!r}: write cpu, cuda, cuda:1 or auto.")
    if text == "auto":
        text = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(text)
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise UbhpdError(f"There is no device {text}: torch finds {count} CUDA devices here, so write cpu or auto.")
    return device


def _built(module: Any, config: Any, seed: int) -> PoseNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: PoseNetwork = module.Network(config).eval()
    return network
