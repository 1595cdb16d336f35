"""Finds what lies in a package: scans the folder, imports its files, checks their cards. No list to keep by hand.

The package is an argument: a registry stands above what it scans, this module only gives it the means. A file whose
name begins with an underscore is part of the package and no entry of the registry.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from ubhpd.core.errors import UbhpdError, shortened

T = TypeVar("T")


class Card(NamedTuple):
    """What every file of a package defines.

    folder: of the package in the repository, for errors. constants: name -> type. functions: names. options: name of
    a frozen dataclass. docstring: what the docstring says. page: the document that explains all this.
    """

    folder: str
    constants: Mapping[str, type]
    functions: tuple[str, ...]
    options: str
    docstring: str
    page: str


def files(package: ModuleType) -> dict[str, Path]:
    """Return the files of a package by module name, sorted; nothing is imported."""
    paths: dict[str, Path] = {}
    for folder in package.__path__:
        for info in pkgutil.iter_modules([folder]):
            if not info.name.startswith("_"):
                paths.setdefault(info.name, Path(folder, f"{info.name}.py"))
    return dict(sorted(paths.items()))


def module(package: ModuleType, name: str) -> ModuleType:
    """Return an imported module of a package."""
    return importlib.import_module(f"{package.__name__}.{name}")


def entries(
    package: ModuleType, check: Callable[[Any], None], name_of: Callable[[Any], str], what: str
) -> dict[str, Any]:
    """Return the checked modules of a package by the name that each states, sorted.

    Args:
        package: to scan.
        check: raises UbhpdError for a module that is no entry.
        name_of: returns the name under which a module is known.
        what: what the entries are, as "builders".

    Raises:
        UbhpdError: from `check`, or two entries share a name.
    """
    named: list[tuple[str, str, Any]] = []
    for stem in files(package):
        own = module(package, stem)
        check(own)
        named.append((name_of(own), f"{stem}.py", own))
    return by_name(named, what)


def by_name(named: Iterable[tuple[str, str, T]], what: str) -> dict[str, T]:
    """Return entries by name, sorted, from (name, file, entry); raise UbhpdError if two share a name."""
    entry_of: dict[str, T] = {}
    file_of: dict[str, str] = {}
    for name, file, entry in named:
        if name in entry_of:
            raise UbhpdError(f"Two {what} are called {name!r}: rename the one in {file} or that in {file_of[name]}.")
        entry_of[name], file_of[name] = entry, file
    return dict(sorted(entry_of.items()))


def check_card(own: Any, card: Card, may_be_empty: bool = True) -> None:
    """Raise UbhpdError unless a module has the docstring, constants, functions and options of a card."""
    where = f"{card.folder}/{own.__name__.rpartition('.')[2]}.py"
    if not (own.__doc__ or "").strip() and sys.flags.optimize < 2:  # python -OO drops all docstrings
        raise UbhpdError(f"{where} has no docstring: {card.docstring}.")
    for name, kind in card.constants.items():
        value = getattr(own, name, None)
        if not isinstance(value, kind) or not (value or may_be_empty):
            raise UbhpdError(f"{where} has no {name} of type {kind.__name__}: add it to its card.")
    for name in card.functions:
        if not callable(getattr(own, name, None)):
            raise UbhpdError(f"{where} has no function {name}: see {card.page}.")
    if not is_frozen_dataclass(getattr(own, card.options, None)):
        raise UbhpdError(f"{where} has no frozen dataclass {card.options}: see {card.page}.")


def is_frozen_dataclass(kind: Any) -> bool:
    """Return True for a class that is a frozen dataclass."""
    return isinstance(kind, type) and is_dataclass(kind) and bool(getattr(kind, "__dataclass_params__").frozen)  # noqa: B009


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three known names that a name may have been meant for, the nearest first; case does not count."""
    by_lower = {n.lower(): n for n in known}
    return [by_lower[n] for n in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)]


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return how an error on an unknown name ends: the nearest names, or all of them."""
    names = list(known)
    near = nearest(name, names)
    return f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(names) or 'none'}."


def pick(known: Mapping[str, T], name: str, what: str) -> tuple[str, T]:
    """Return a known name and what it stands for; upper and lower case do not count.

    Raises:
        UbhpdError: no such name; the sentence suggests the nearest.
    """
    if name in known:
        return name, known[name]
    same = [n for n in known if n.lower() == name.lower()]
    if len(same) == 1:
        return same[0], known[same[0]]
    raise UbhpdError(f"No {what} is called {shortened(name)}: {suggestion(name, known)}")
