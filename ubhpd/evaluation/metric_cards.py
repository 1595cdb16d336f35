"""Finds the metrics in their room and checks their cards, as `registry` does for the builders."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from typing import Any, Protocol, cast

from ubhpd.core.errors import UbhpdError

# What every file in metrics/ defines, and its type; the docstring of the room explains each.
METRIC_CARD: dict[str, type] = {"NAME": str, "TITLE": str, "UNIT": str, "PAPER": str, "SCORES": dict}
INPUTS = ("angles", "relative", "aligned")


class Metric(Protocol):
    """One family of metrics: a module in metrics/."""

    NAME: str
    TITLE: str
    UNIT: str
    PAPER: str
    SCORES: dict[str, str]  # name of a score -> what it is
    Options: type[Any]  # frozen dataclass

    def score(self, statistics: Mapping[str, Any], options: Any) -> dict[str, Any]:
        """Return the scores whose inputs are among the statistics."""


@lru_cache(maxsize=1)
def metrics() -> dict[str, Metric]:
    """Return the metrics by name, sorted.

    Raises:
        UbhpdError: a file in the room has no valid card, or two share a name or a score.
    """
    import ubhpd.metrics as room

    found: dict[str, Metric] = {}
    owner: dict[str, str] = {}
    for info in pkgutil.iter_modules(room.__path__):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{room.__name__}.{info.name}")
        check_metric(module)
        if module.NAME in found:
            raise UbhpdError(f"Two metrics are called {module.NAME!r}: rename the one in {info.name}.py.")
        for score in module.SCORES:
            if score in owner:
                raise UbhpdError(f"The score {score!r} is in {owner[score]} and in {module.NAME}: rename one.")
            owner[score] = module.NAME
        found[module.NAME] = cast(Metric, module)
    return dict(sorted(found.items()))


def check_metric(module: Any) -> None:
    """Raise UbhpdError unless `module` has the card and the functions of a metric."""
    where = f"metrics/{module.__name__.rpartition('.')[2]}.py"
    if not (module.__doc__ or "").strip():
        raise UbhpdError(f"{where} has no docstring: give paper, equation, units and the rules for empty bins.")
    for name, kind in METRIC_CARD.items():
        if not isinstance(getattr(module, name, None), kind) or not getattr(module, name):
            raise UbhpdError(f"{where} has no {name} of type {kind.__name__}: add it to its card.")
    if not callable(getattr(module, "score", None)):
        raise UbhpdError(f"{where} has no function score: see the docstring of metrics/.")
    options = getattr(module, "Options", None)
    if not is_dataclass(options) or not getattr(options, "__dataclass_params__").frozen:  # noqa: B009
        raise UbhpdError(f"{where} has no frozen dataclass Options: see the docstring of metrics/.")
    if (kind_of_input := getattr(module, "INPUT", None)) is not None and (
        kind_of_input not in INPUTS or not getattr(module, "COLUMNS", ()) or not callable(module.per_sample)
    ):
        raise UbhpdError(f"{where} needs INPUT in {', '.join(INPUTS)}, COLUMNS and per_sample.")


def all_scores() -> dict[str, str]:
    """Return the meaning of every score, by its name."""
    return {name: meaning for m in metrics().values() for name, meaning in m.SCORES.items()}


def units() -> dict[str, str]:
    """Return the unit of every score, by its name."""
    return {name: m.UNIT for m in metrics().values() for name in m.SCORES}


def metric_options(chosen: Iterable[str] = ()) -> dict[str, Any]:
    """Return the options of every metric, with the choices METRIC.KEY=VALUE made.

    Raises:
        UbhpdError: not of that form, an unknown metric or key, or a value that is not allowed.
    """
    options = {name: m.Options() for name, m in metrics().items()}
    for text in chosen:
        place, equals, value = text.partition("=")
        name, dot, key = place.partition(".")
        if not (equals and dot and value):
            raise UbhpdError(f"{text!r} is not of the form METRIC.KEY=VALUE, as ubmae.unseen=smooth.")
        if name not in options:
            raise UbhpdError(f"Unknown metric {name!r}: choose from {', '.join(options)}.")
        options[name] = _with(options[name], name, key, value)
    return options


def _with(options: Any, name: str, key: str, value: str) -> Any:
    known = {f.name: f for f in fields(options)}
    if key not in known:
        raise UbhpdError(f"{name} has no option {key!r}: it has {', '.join(known) or 'none'}.")
    if (choices := known[key].metadata.get("choices")) and value not in choices:
        raise UbhpdError(f"{name}.{key} cannot be {value!r}: choose from {', '.join(choices)}.")
    kind = type(getattr(options, key))
    try:
        return replace(options, **{key: kind(value)})
    except ValueError:
        raise UbhpdError(f"{name}.{key} cannot be {value!r}: it is a number, as {getattr(options, key)}.") from None
