"""The models there are, read from the cards at the top of their files: nothing is imported, so torch need not be there.

`ubhpd.networks.contract` says what a card holds. A file in baselines/ is a card and code; `ubhpd.models.configure`
imports the code when a model is used.
"""

from __future__ import annotations

import ast
import difflib
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ubhpd.errors import UbhpdError

NETWORKS = ("picture", "sequence", "landmarks")
KINDS = (*NETWORKS, "solver", "reported")

_TEXTS = ("TITLE", "PAPER", "CODE", "LICENSE", "KIND")
_TABLES = ("MODELS", "PARAMETERS", "REPORTED")
_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model without running it.

    name: on the command line. file: its module in baselines/. title, paper, code, license: of the method and its
    published weights. kind: one of KINDS. options: of its Config, where they differ from the defaults. parameters:
    trainable ones, None where it is no network. reported: its name in the published tables, None where it has no row.
    summary: first line of `text`, which is the file's docstring.
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
    import ubhpd.baselines as room

    found: dict[str, ModelCard] = {}
    for folder in room.__path__:
        for info in pkgutil.iter_modules([folder]):
            for card in cards_of(Path(folder) / f"{info.name}.py"):
                if card.name in found:
                    raise UbhpdError(
                        f"Two models are called {card.name!r}: rename the one in {card.file}.py or that in "
                        f"{found[card.name].file}.py."
                    )
                found[card.name] = card
    return dict(sorted(found.items()))


def card(name: str) -> ModelCard:
    """Return the card of a model.

    Raises:
        UbhpdError: no model has that name.
    """
    known = catalogue()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(known) or 'none'}."
    raise UbhpdError(f"No model is called {name!r}: {hint}")


def cards_of(path: Path) -> list[ModelCard]:
    """Return the cards of the models in one file.

    Raises:
        UbhpdError: it is no Python, or its card is not as it has to be.
    """
    where = f"baselines/{path.name}"
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
            name, path.stem, card["TITLE"], card["PAPER"], card["CODE"], card["LICENSE"], card["KIND"], options,
            card["PARAMETERS"].get(name), card["REPORTED"].get(name), text.splitlines()[0], text,
        )
        for name, options in card["MODELS"].items()
    ]  # fmt: skip


def _constants(tree: ast.Module, where: str) -> dict[str, Any]:
    """Return the constants of the card; those that may be left out are empty then."""
    found: dict[str, Any] = {"PARAMETERS": {}, "REPORTED": {}}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for name in (t.id for t in targets if isinstance(t, ast.Name) and t.id in (*_TEXTS, *_TABLES)):
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
    models, parameters, reported = (card[name] for name in _TABLES)
    if not models:
        raise UbhpdError(f"{where}: MODELS is empty: name one model at least.")
    for name, options in models.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UbhpdError(f"{where}: {name!r} is no name for a model: use lower case, digits and underscores.")
        if not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
            raise UbhpdError(f"{where}: the options of {name} are no dictionary of names: write {{}} for none.")
        if options and card["KIND"] == "reported":
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
