"""A model's code and its options: imported when used, every value checked against the type of its field."""

from __future__ import annotations

import difflib
import importlib
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from ubhpd.errors import UbhpdError
from ubhpd.models.catalogue import NETWORKS, ModelCard, card

INSTALL = "pip install 'ubhpd[torch]'"

_OF_A_NETWORK = ("Network", "input_recipe", "training_recipe")
_OF_A_SOLVER = ("fit", "solve")


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
    hints = typing.get_type_hints(module.Config)
    values = dict(found.options)
    for key, text in (chosen or {}).items():
        _known(key, hints, name)
        values[key] = _parsed(text, hints[key])
    return module, config_of(module, values, name)


def config_of(module: Any, values: Mapping[str, Any], where: str) -> Any:
    """Return the module's Config with these values; a list stands for a tuple, and what is not named has its default.

    Raises:
        UbhpdError: an unknown option, or a value of another type; `where` begins the sentence.
    """
    hints = typing.get_type_hints(module.Config)
    checked = {}
    for key, value in values.items():
        _known(key, hints, where)
        try:
            checked[key] = _typed(value, hints[key])
        except ValueError:
            raise UbhpdError(f"{where}.{key} cannot be {value!r}: it is {_in_words(hints[key])}.") from None
    return module.Config(**checked)


def module_of(found: ModelCard) -> Any:
    """Return the imported module of a model.

    Raises:
        UbhpdError: torch is not installed, the file does not run or lacks a part, or the model is only reported.
    """
    where = f"baselines/{found.file}.py"
    if found.kind == "reported":
        raise UbhpdError(f"{found.name} is known by its printed numbers only: ubhpd models {found.name} says why.")
    try:
        module = importlib.import_module(f"ubhpd.baselines.{found.file}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "torch":
            raise UbhpdError(f"{found.name} needs torch, which is not installed: {INSTALL}.") from None
        raise UbhpdError(f"{where} imports {error.name}, which is not there: correct it, or install that.") from None
    except Exception as error:  # whatever the code of a broken file leads to
        raise UbhpdError(f"{where} does not run ({type(error).__name__}: {error}): correct it.") from error
    for part in _OF_A_NETWORK if found.kind in NETWORKS else _OF_A_SOLVER:
        if not callable(getattr(module, part, None)):
            raise UbhpdError(f"{where} has no {part}: see docs/add-a-model.md.")
    config = getattr(module, "Config", None)
    if not is_dataclass(config) or not getattr(config, "__dataclass_params__").frozen:  # noqa: B009
        raise UbhpdError(f"{where} has no frozen dataclass Config: see docs/add-a-model.md.")
    return module


def pairs(texts: Iterable[str]) -> dict[str, str]:
    """Return KEY=VALUE texts as a dictionary.

    Raises:
        UbhpdError: a text of another form, or a key given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise UbhpdError(f"{text!r} is not of the form KEY=VALUE, as size=64.")
        if key in found:
            raise UbhpdError(f"The option {key} is given twice: choose between {found[key]} and {value}.")
        found[key] = value
    return found


def options_listed(config: Any) -> list[tuple[str, str, Any]]:
    """Return (name, type in words, value) of every option of a Config."""
    hints = typing.get_type_hints(type(config))
    return [(f.name, _in_words(hints[f.name]), getattr(config, f.name)) for f in fields(config)]


def _known(key: str, hints: Mapping[str, Any], where: str) -> None:
    if key not in hints:
        near = difflib.get_close_matches(key, hints, n=1)
        hint = f"did you mean {near[0]}? It" if near else "it"
        raise UbhpdError(f"{where} has no option {key!r}: {hint} has {', '.join(hints) or 'none'}.")


def _parsed(text: str, hint: Any) -> Any:
    """Return the value that a typed text stands for, as JSON would give it; the text itself where it is none."""
    kinds = _alternatives(hint)
    if type(None) in kinds and text.lower() == "none":
        return None
    if any(typing.get_origin(kind) is tuple for kind in kinds):
        return [_parsed(part.strip(), int | float) for part in text.split(",")]
    if str in kinds or any(isinstance(choice, str) for kind in kinds for choice in typing.get_args(kind)):
        return text
    try:
        return json.loads(text.lower())
    except ValueError:
        return text


def _typed(value: Any, hint: Any) -> Any:
    """Return the value as the type has it; ValueError if it is none of it."""
    for kind in _alternatives(hint):
        origin, inner = typing.get_origin(kind), typing.get_args(kind)
        if origin is typing.Literal and value in inner and type(value) in map(type, inner):
            return value
        if origin is tuple and isinstance(value, list | tuple):
            kinds = inner[:1] * len(value) if inner[-1] is ... else inner
            if len(kinds) == len(value):
                return tuple(_typed(v, k) for v, k in zip(value, kinds, strict=True))
        if kind is type(value) and kind in (int, str, bool, type(None)):
            return value
        if kind is float and type(value) in (int, float) and math.isfinite(value):
            return float(value)
    raise ValueError


def _alternatives(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _in_words(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "none"}
    words = []
    for kind in _alternatives(hint):
        origin, inner = typing.get_origin(kind), typing.get_args(kind)
        if origin is typing.Literal:
            words.append(f"one of {', '.join(map(str, inner))}")
        elif origin is tuple:
            count = "" if inner[-1] is ... else f"{len(inner)} "
            words.append(f"{count}{'whole numbers' if inner[0] is int else 'numbers'} with commas between")
        else:
            words.append(names.get(kind, str(kind)))
    return " or ".join(words)
