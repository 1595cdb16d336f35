"""Values out of JSON into frozen dataclasses, every one checked against the type of its field."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from ubhpd.errors import UbhpdError

_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}


def typed(value: Any, hint: Any, where: str) -> Any:
    """Return a value as its type has it: dataclasses, tuples and dictionaries by their parts, a list for a tuple.

    Args:
        value: as json.loads gives it.
        hint: a dataclass, int, float, str, bool, None, Any, tuple[X, ...], dict[str, X], or a union of these.
        where: path of the value, which begins the sentence of an error.

    Raises:
        UbhpdError: a value of another type, a number that is not finite, or a field missing or unknown.
    """
    if hint is Any:
        return value
    kinds = _alternatives(hint)
    for kind in kinds:
        origin, inner = typing.get_origin(kind), typing.get_args(kind)
        if is_dataclass(kind) and isinstance(value, dict):
            return _object(value, kind, where)
        if origin is tuple and isinstance(value, list):
            return tuple(typed(v, inner[0], f"{where}[{i}]") for i, v in enumerate(value))
        if origin is dict and isinstance(value, dict):
            return {k: typed(v, inner[1], f"{where}.{k}") for k, v in value.items()}
        if kind is type(value) and kind is not float:
            return value
        if kind is float and type(value) in (int, float) and math.isfinite(value):
            return float(value)
    raise UbhpdError(f"{where} is {_shown(value)}, it has to be {' or '.join(map(_in_words, kinds))}.")


def _object(value: Mapping[str, Any], kind: Any, where: str) -> Any:
    hints = typing.get_type_hints(kind)
    if unknown := [k for k in value if k not in hints]:
        raise UbhpdError(f"{where} has a field {unknown[0]!r} that is not known: is it of a later ubhpd?")
    needed = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    if missing := [n for n in needed if n not in value]:
        raise UbhpdError(f"{where} lacks the field {missing[0]!r}: the file is not whole.")
    return kind(**{k: typed(v, hints[k], f"{where}.{k}") for k, v in value.items()})


def _alternatives(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _in_words(kind: Any) -> str:
    origin = typing.get_origin(kind)
    return "a list" if origin is tuple else _WORDS.get(kind, "an object")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
