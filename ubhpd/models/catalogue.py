"""The models there are, read from the cards at the top of their files: nothing is imported, so torch need not be there.

`ubhpd.nn.contract` says what a card holds. A file in baselines/ is a card and code; `ubhpd.models.catalogue`
imports the code when a model is used.

A model's code and its options: imported when used, every value checked against the type of its field.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ubhpd.core import options, registry
from ubhpd.core.errors import UbhpdError

NETWORKS = ("image", "sequence", "landmarks")
KINDS = (*NETWORKS, "geometric", "reported")

_TEXTS = ("TITLE", "PAPER", "CODE", "LICENSE", "KIND")
_TABLES = ("MODELS", "PARAMETERS", "REPORTED")
_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model without running it.

    name: on the command line. file: its module in baselines/. title, paper, code, license: of the method and its
    published weights. kind: one of KINDS. options: of its Config, where they differ from the defaults. parameters:
    trainable ones, None where it is no network. reported: its name in the published tables, None where it has no row.
    summary: first line of `text`, which is the file's docstring. sees: "image", "landmarks", or "nothing", where every
    head gets the same prediction. module: its import name, where it is a plug-in.
    """

    name: str
    file: str
    title: str
    paper: str
    code: str
    license: str
    kind: str
    options: Mapping[str, Any] = field(hash=False)
    parameters: int | None
    reported: str | None
    summary: str
    text: str
    sees: str = "image"
    module: str = ""

    @property
    def megabytes(self) -> float | None:
        """Size of the trainable parameters at 4 bytes each, in units of 10^6 bytes; None where there are none."""
        return None if self.parameters is None else self.parameters * 4 / 1e6


@lru_cache(maxsize=1)
def catalogue() -> dict[str, ModelCard]:
    """Return the card of every model by its name, sorted.

    Raises:
        UbhpdError: a file in the room has no valid card, or two models share a name.
    """
    import ubhpd.baselines as package

    cards = ((c.name, path.name, c) for path in registry.files(package).values() for c in cards_of(path))
    known = registry.by_name(cards, "models")
    registry.add_plugins(known, "models", package, _cards_of_plugin)
    return dict(sorted(known.items()))


def _cards_of_plugin(plugin: registry.Plugin) -> dict[str, ModelCard]:
    spec = importlib.util.find_spec(plugin.module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise UbhpdError(f"there is no Python file of the module {plugin.module}")
    path = Path(spec.origin)
    return {c.name: replace(c, module=plugin.module) for c in cards_of(path, str(path))}


def card(name: str) -> ModelCard:
    """Return the card of a model.

    Raises:
        UbhpdError: no model has that name.
    """
    return registry.pick(catalogue(), name, "model")[1]


def cards_of(path: Path, where: str | None = None) -> list[ModelCard]:
    """Return the cards of the models in one file; `where` names it in errors.

    Raises:
        UbhpdError: it is no Python, or its card is not as it has to be.
    """
    where = where or f"baselines/{path.name}"
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UbhpdError(f"{where} cannot be read as Python ({error}): correct it.") from None
    text = (ast.get_docstring(tree) or "").strip()
    if not text:
        raise UbhpdError(f"{where} has no docstring: say what the model is and what differs from the paper.")
    card = _checked(_constants(tree, where), where)
    return [
        ModelCard(
            name=name,
            file=path.stem,
            title=card["TITLE"],
            paper=card["PAPER"],
            code=card["CODE"],
            license=card["LICENSE"],
            kind=card["KIND"],
            options=own,
            parameters=card["PARAMETERS"].get(name),
            reported=card["REPORTED"].get(name),
            summary=text.splitlines()[0],
            text=text,
            sees=card["SEES"],
        )
        for name, own in card["MODELS"].items()
    ]


def _constants(tree: ast.Module, where: str) -> dict[str, Any]:
    """Return the constants of the card; those that may be left out are empty then."""
    found: dict[str, Any] = {"PARAMETERS": {}, "REPORTED": {}, "SEES": ""}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for name in (t.id for t in targets if isinstance(t, ast.Name) and t.id in (*_TEXTS, *_TABLES, "SEES")):
            try:
                found[name] = ast.literal_eval(getattr(node, "value"))  # noqa: B009
            except (ValueError, TypeError, MemoryError, RecursionError):
                raise UbhpdError(
                    f"{where}, line {node.lineno}: {name} has to be written out, it is read without running the file."
                ) from None
    return found


def _checked(card: dict[str, Any], where: str) -> dict[str, Any]:
    for name in _TEXTS:
        if not isinstance(card.get(name), str) or not (card[name].strip() or name == "CODE"):
            raise UbhpdError(f"{where} has no text {name}: add it to its card.")
    for name in _TABLES:
        if not isinstance(card.get(name), dict):
            raise UbhpdError(f"{where} has no dictionary {name}: add it to its card.")
    if card["KIND"] not in KINDS:
        raise UbhpdError(f"{where}: KIND is {card['KIND']!r}, it has to be one of {', '.join(KINDS)}.")
    if card["SEES"] not in ("", "nothing") or (card["SEES"] and card["KIND"] != "geometric"):
        raise UbhpdError(f"{where}: SEES is {card['SEES']!r}: only a geometric method has it, and it is 'nothing'.")
    card["SEES"] = card["SEES"] or ("landmarks" if card["KIND"] in ("landmarks", "geometric") else "image")
    models, parameters, reported = (card[name] for name in _TABLES)
    if not models:
        raise UbhpdError(f"{where}: MODELS is empty: name one model at least.")
    for name, own in models.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UbhpdError(f"{where}: {name!r} is no name for a model: use lower case, digits and underscores.")
        if not isinstance(own, dict) or not all(isinstance(key, str) for key in own):
            raise UbhpdError(f"{where}: the options of {name} are no dictionary of names: write {{}} for none.")
        if own and card["KIND"] == "reported":
            raise UbhpdError(f"{where}: {name} is only reported, so it can have no options: write {{}}.")
    counted = models if card["KIND"] in NETWORKS else {}
    if set(parameters) != set(counted):
        raise UbhpdError(f"{where}: PARAMETERS has {_listed(parameters)}, it has to have {_listed(counted)}.")
    for name, count in parameters.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise UbhpdError(f"{where}: PARAMETERS of {name} is {count!r}, it has to be a number of parameters.")
    for name, method in reported.items():
        if name not in models or not isinstance(method, str):
            raise UbhpdError(f"{where}: REPORTED has {name!r}: {method!r}, it goes from names in MODELS to a method.")
    return card


def _listed(names: Mapping[Any, Any]) -> str:
    return ", ".join(map(str, names)) or "nothing"


INSTALL = "pip install 'ubhpd[torch]'"

_OF_A_NETWORK = ("Network", "input_recipe", "training_recipe")
_OF_A_GEOMETRIC_METHOD = ("fit", "solve")


def configured(name: str, chosen: Mapping[str, str] | None = None) -> tuple[Any, Any]:
    """Return the module of a model and its Config: the defaults, then the model's options, then the chosen ones.

    Args:
        name: of the model.
        chosen: option -> value as typed, such as {"size": "64", "betas": "0.9,0.99"}.

    Raises:
        UbhpdError: no such model, it cannot be run, an unknown option, or a value that is not allowed.
    """
    found = card(name)
    module = module_of(found)
    return module, options.from_texts(module.Config, chosen or {}, name, found.options)


def config_of(module: Any, values: Mapping[str, Any], where: str) -> Any:
    """Return the module's Config with these values; a list stands for a tuple, and what is not named has its default.

    Raises:
        UbhpdError: an unknown option, or a value of another type; `where` begins the sentence.
    """
    return options.from_values(module.Config, values, where)


def module_of(found: ModelCard) -> Any:
    """Return the imported module of a model.

    Raises:
        UbhpdError: torch is not installed, the file does not run or lacks a part, or the model is only reported.
    """
    where = found.module or f"baselines/{found.file}.py"
    if found.kind == "reported":
        raise UbhpdError(f"{found.name} is known by its printed numbers only: ubhpd models {found.name} says why.")
    try:
        module = importlib.import_module(found.module or f"ubhpd.baselines.{found.file}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "torch":
            raise UbhpdError(f"{found.name} needs torch, which is not installed: {INSTALL}.") from None
        raise UbhpdError(f"{where} imports {error.name}, which is not there: correct it, or install that.") from None
    except Exception as error:  # a broken model file can raise anything
        raise UbhpdError(f"{where} does not run ({type(error).__name__}: {error}): correct it.") from error
    for part in _OF_A_NETWORK if found.kind in NETWORKS else _OF_A_GEOMETRIC_METHOD:
        if not callable(getattr(module, part, None)):
            raise UbhpdError(f"{where} has no {part}: see docs/add-a-model.md.")
    config = getattr(module, "Config", None)
    if not registry.is_frozen_dataclass(config):
        raise UbhpdError(f"{where} has no frozen dataclass Config: see docs/add-a-model.md.")
    return module


def options_listed(config: Any) -> list[tuple[str, str, Any]]:
    """Return (name, type in words, value) of every option of a Config."""
    return options.listed(config)
