"""Finds what lies in a room: scans the folder, imports each file, checks its card. No list to keep by hand."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from typing import Any, Protocol, cast

from ubhpd.errors import UbhpdError
from ubhpd.raw.source import Source
from ubhpd.records import Drop, Note, Record, Unit

# What every file in builders/ defines, and its type; docs/add-a-dataset.md explains each.
BUILDER_CARD: dict[str, type] = {
    "NAME": str,
    "TITLE": str,
    "HOMEPAGE": str,
    "LICENSE": str,
    "CITATION": str,
    "ACCESS": str,
    "LAYOUT": str,
    "PUBLISHED": dict,
    "OUT_OF_RANGE": frozenset,
}


class Builder(Protocol):
    """The reader of one raw dataset: a module in builders/."""

    NAME: str
    TITLE: str
    HOMEPAGE: str
    LICENSE: str
    CITATION: str
    ACCESS: str  # where to request it
    LAYOUT: str  # what the folder must look like
    PUBLISHED: dict[str, int]  # prefix of sample ids -> heads published under it
    OUT_OF_RANGE: frozenset[str]  # sample ids published as beyond 99 degrees
    Options: type[Any]  # frozen dataclass of named modes, each a string with a default

    def recognise(self, source: Source, path: str) -> bool:
        """Return True if the folder `path` of `source` is the root of this dataset."""

    def units(self, source: Source, options: Any) -> list[Unit]:
        """Return the independent pieces of work, in a stable order."""

    def read(self, source: Source, unit: Unit, options: Any) -> Iterator[Record | Drop | Note]:
        """Yield every head of a unit, in a stable order, and what else there is to say."""


@lru_cache(maxsize=1)
def builders() -> dict[str, Builder]:
    """Return the builders by name, sorted.

    Raises:
        UbhpdError: a file in the room has no valid card, or two share a name.
    """
    import ubhpd.builders as room

    found: dict[str, Builder] = {}
    for info in pkgutil.iter_modules(room.__path__):
        module = importlib.import_module(f"{room.__name__}.{info.name}")
        check_builder(module)
        if module.NAME in found:
            raise UbhpdError(f"Two builders are called {module.NAME!r}: rename the one in {info.name}.py.")
        found[module.NAME] = cast(Builder, module)
    return dict(sorted(found.items()))


def check_builder(module: Any) -> None:
    """Raise UbhpdError unless `module` has the card and the functions of a builder."""
    where = f"builders/{module.__name__.rpartition('.')[2]}.py"
    if not (module.__doc__ or "").strip():
        raise UbhpdError(f"{where} has no docstring: say what the dataset is and which quirks are handled.")
    for name, kind in BUILDER_CARD.items():
        if not isinstance(getattr(module, name, None), kind):
            raise UbhpdError(f"{where} has no {name} of type {kind.__name__}: add it to its card.")
    for name in ("recognise", "units", "read"):
        if not callable(getattr(module, name, None)):
            raise UbhpdError(f"{where} has no function {name}: see docs/add-a-dataset.md.")
    options = getattr(module, "Options", None)
    if not (isinstance(options, type) and is_dataclass(options) and _is_frozen(options)):
        raise UbhpdError(f"{where} has no frozen dataclass Options: see docs/add-a-dataset.md.")


def select(names: Iterable[str]) -> dict[str, Builder]:
    """Return the named builders in the order of all builders.

    Raises:
        UbhpdError: an unknown name, or none at all.
    """
    known, wanted = builders(), set(names)
    if unknown := sorted(wanted - set(known)):
        raise UbhpdError(f"Unknown source {unknown[0]!r}: choose from {', '.join(known)}.")
    if not wanted:
        raise UbhpdError(f"No source named: choose from {', '.join(known)}.")
    return {name: builder for name, builder in known.items() if name in wanted}


def options_for(builder: Builder, chosen: dict[str, str]) -> Any:
    """Return the builder's options with the chosen values.

    A field's metadata["choices"] lists what it may be; without choices any text goes to the builder's own check.

    Raises:
        UbhpdError: an unknown option or value.
    """
    known = {f.name: f for f in fields(builder.Options)}
    for key, value in chosen.items():
        if key not in known:
            listed = ", ".join(known) or "none"
            raise UbhpdError(f"{builder.NAME} has no option {key!r}: it has {listed}.")
        choices = known[key].metadata.get("choices")
        if choices and value not in choices:
            raise UbhpdError(f"{builder.NAME}.{key} cannot be {value!r}: choose from {', '.join(choices)}.")
    return replace(builder.Options(), **chosen)


def _is_frozen(kind: Any) -> bool:
    return bool(kind.__dataclass_params__.frozen)
