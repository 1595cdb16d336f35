"""Finds what lies in a package: scans the folder, imports its files, checks their cards. No list to keep by hand.

The package is an argument: a registry stands above what it scans, this module only gives it the means. A file whose
name begins with an underscore is part of the package and no entry of the registry.

Plug-ins: installed packages name modules as entry points `ubhpd.builders`, `ubhpd.metrics`, `ubhpd.models` and
`ubhpd.exports`; the variable UBHPD_PLUGINS names folders with sub-folders of these names. A plug-in that cannot be used
is left out, and `faults()` says why. See docs/plugins.md.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from ubhpd.core.errors import UbhpdError, shortened

T = TypeVar("T")
PLUGIN_KINDS = ("builders", "metrics", "models", "exports")
PLUGINS_VARIABLE = "UBHPD_PLUGINS"
_faults: dict[str, str] = {}  # plug-in -> why it is left out


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
    """Return the files of a package itself by module name, sorted; nothing is imported."""
    paths: dict[str, Path] = {}
    extra = {folder for kind in PLUGIN_KINDS for folder in plugin_folders(kind)}
    for folder in (f for f in package.__path__ if f not in extra):
        for info in pkgutil.iter_modules([folder]):
            if not info.name.startswith("_"):
                paths.setdefault(info.name, Path(folder, f"{info.name}.py"))
    return dict(sorted(paths.items()))


def module(package: ModuleType, name: str) -> ModuleType:
    """Return an imported module of a package."""
    return importlib.import_module(f"{package.__name__}.{name}")


class Plugin(NamedTuple):
    """A plug-in before it is imported: its kind, what it is called in messages, and the name of its module."""

    kind: str
    where: str
    module: str


def plugin_folders(kind: str) -> list[str]:
    """Return the folders for plug-ins of a kind, from UBHPD_PLUGINS; a package adds them to its `__path__`."""
    folders = []
    for place in filter(None, os.environ.get(PLUGINS_VARIABLE, "").split(os.pathsep)):
        if not os.path.isdir(place):
            _faults[place] = f"{PLUGINS_VARIABLE} names {shortened(place)}, which is no folder: correct it."
        folder = os.path.join(os.path.abspath(place), kind)
        if os.path.isdir(folder):
            folders.append(folder)
    return folders


def plugins(kind: str, package: ModuleType) -> list[Plugin]:
    """Return the plug-ins of a kind, from folders and from installed packages; nothing is imported."""
    from importlib.metadata import entry_points

    own = set(files(package))
    found = []
    for folder in plugin_folders(kind):
        for info in sorted(pkgutil.iter_modules([folder]), key=lambda info: info.name):
            where = os.path.join(folder, f"{info.name}.py")
            if info.name.startswith("_"):
                continue
            if info.name in own:
                _fault(where, "it has the name of a file of ubhpd: rename it")
            else:
                found.append(Plugin(kind, where, f"{package.__name__}.{info.name}"))
    for point in sorted(entry_points(group=f"ubhpd.{kind}"), key=lambda point: (point.name, point.value)):
        where = f"{point.value} (entry point {point.name} of {getattr(point.dist, 'name', 'a package')})"
        if point.attr:
            _fault(where, "an entry point names a module, without a colon")
        else:
            found.append(Plugin(kind, where, point.value))
    return found


def faults() -> list[str]:
    """Return a sentence for each plug-in that was left out by now."""
    return list(_faults.values())


def _fault(where: str, reason: str) -> None:
    _faults[where] = f"The plug-in {where} is left out: {reason.rstrip('.')}."


def add_plugins(known: dict[str, T], kind: str, package: ModuleType, load: Callable[[Plugin], Mapping[str, T]]) -> None:
    """Add the plug-ins of a kind to the entries of the package; one that cannot be used is left out, see `faults`.

    Args:
        known: entries by name; gets those of the plug-ins.
        kind: of PLUGIN_KINDS.
        package: the package of the same kind.
        load: returns the entries of a plug-in by name; may raise anything.
    """
    for plugin in plugins(kind, package):
        try:
            own = dict(load(plugin))
        except (Exception, SystemExit) as error:  # foreign code
            _fault(plugin.where, str(error) if isinstance(error, UbhpdError) else
                   shortened(f"{type(error).__name__}: {error}".splitlines()[0], 200))  # fmt: skip
            continue
        if taken := sorted(set(own) & set(known)):
            _fault(plugin.where, f"{taken[0]} is the name of another of the {kind}: choose another name")
            continue
        known |= own


def entries(
    package: ModuleType, check: Callable[[Any], None], name_of: Callable[[Any], str], what: str,
    kind: str | None = None, check_plugin: Callable[[Mapping[str, Any], Any], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the checked modules of a package and of its plug-ins by the name that each states, sorted.

    Args:
        package: to scan.
        check: raises UbhpdError for a module that is no entry.
        name_of: returns the name under which a module is known.
        what: what the entries are, as "export formats".
        kind: of plug-ins, see PLUGIN_KINDS; None for a package that takes none.
        check_plugin: raises UbhpdError for a plug-in that does not go with the entries known before it.

    Raises:
        UbhpdError: from `check`, or two entries of the package share a name.
    """
    named: list[tuple[str, str, Any]] = []
    for stem in files(package):
        own = module(package, stem)
        check(own)
        named.append((name_of(own), f"{stem}.py", own))
    known = by_name(named, what)

    def load(plugin: Plugin) -> dict[str, Any]:
        own = importlib.import_module(plugin.module)
        check(own)
        if check_plugin is not None:
            check_plugin(known, own)
        return {name_of(own): own}

    if kind is not None:
        add_plugins(known, kind, package, load)
    return dict(sorted(known.items()))


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


def chosen(known: Iterable[str], name: str, what: str) -> str:
    """Return the known name that is meant; upper and lower case do not count.

    Raises:
        UbhpdError: no such name; the sentence suggests the nearest.
    """
    return pick({n: n for n in known}, name, what)[0]


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
