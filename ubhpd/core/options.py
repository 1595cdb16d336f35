"""Options from the command line and values from JSON, as frozen dataclasses whose fields are checked by msgspec.

Three ways in, one check: texts that a user typed (`from_texts`), values that a file or another module holds
(`from_values`), and whole JSON documents (`from_json`). Every error is one UbhpdError that names the option.
"""

from __future__ import annotations

import json
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import msgspec

from ubhpd.core.errors import UbhpdError, shortened
from ubhpd.core.registry import nearest, suggestion

T = TypeVar("T")

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "none"}
_JSON_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "array": "a list",
    "object": "an object",
}
_JSON_KINDS: dict[type, str] = {
    int: "int",
    float: "float",
    bool: "bool",
    str: "str",
    type(None): "null",
    list: "array",
    dict: "object",
}
_PLACE = re.compile(r" - at `\$([^`]*)`$")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


def key_value(text: str, form: str = "KEY=VALUE", option: str = "", example: str = "") -> tuple[str, str]:
    """Return the two halves of KEY=VALUE; `form`, `option` and `example` are for the error.

    Raises:
        UbhpdError: a text of another form.
    """
    key, equals, value = text.partition("=")
    if not (key.strip() and equals and value):
        raise _wrong_form(text, form, option, example)
    return key.strip(), value


def key_values(texts: Iterable[str], form: str = "KEY=VALUE", option: str = "", example: str = "") -> dict[str, str]:
    """Return KEY=VALUE texts as a dictionary; arguments as `key_value`.

    Raises:
        UbhpdError: a text of another form, or a key given twice with different values.
    """
    values: dict[str, str] = {}
    for text in texts:
        key, value = key_value(text, form, option, example)
        if values.get(key, value) != value:
            raise UbhpdError(f"The option {key} is given twice: choose between {values[key]} and {value}.")
        values[key] = value
    return values


def owner_key_values(texts: Iterable[str], form: str, option: str = "", example: str = "") -> dict[str, dict[str, str]]:
    """Return OWNER.KEY=VALUE texts as a dictionary of dictionaries; other arguments and errors as `key_values`."""
    owners: dict[str, dict[str, str]] = {}
    for place, value in key_values(texts, form, option, example).items():
        owner, dot, key = place.partition(".")
        if not (owner and dot and key):
            raise _wrong_form(f"{place}={value}", form, option, example)
        owners.setdefault(owner, {})[key] = value
    return owners


def _wrong_form(text: str, form: str, option: str, example: str) -> UbhpdError:
    name = f"{option} " if option else ""
    hint = f", as {example}" if example else ""
    return UbhpdError(f"{name}{shortened(text)} is not of the form {form}{hint}.")


def from_texts(kind: type[T], texts: Mapping[str, str], where: str, base: Mapping[str, Any] | None = None) -> T:
    """Return options of a frozen dataclass with values as the user typed them.

    Args:
        kind: the dataclass.
        texts: option -> text, such as {"size": "64", "betas": "0.9,0.99"}.
        where: whose options they are; begins the sentence of an error.
        base: values that stand where no text is given, before the defaults of the dataclass.

    Raises:
        UbhpdError: an unknown option, or a value that is not allowed.
    """
    hints = typing.get_type_hints(kind)
    values = dict(base or {})
    choices = {f.name: f.metadata.get("choices", ()) for f in fields(kind)}  # type: ignore[arg-type]
    for key, text in texts.items():
        _check_known(key, hints, where)
        values[key] = _with_known_case(_parsed(text, hints[key]), [*choices[key], *_literals(hints[key])])
    return from_values(kind, values, where)


def from_values(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Return options of a frozen dataclass; a list stands for a tuple, and what is not named has its default.

    A field's metadata["choices"] lists what it may be, where its type does not.

    Raises:
        UbhpdError: an unknown option, or a value that is not allowed; `where` begins the sentence.
    """
    hints = typing.get_type_hints(kind)
    choices = {f.name: f.metadata.get("choices", ()) for f in fields(kind)}  # type: ignore[arg-type]
    checked = {}
    for key, value in values.items():
        _check_known(key, hints, where)
        try:
            checked[key] = _finite(msgspec.convert(value, hints[key]))
        except (ValueError, msgspec.ValidationError):
            near = nearest(value, _literals(hints[key])) if isinstance(value, str) else []
            hint = f", did you mean {' or '.join(near)}?" if near else "."
            raise UbhpdError(
                f"{where}.{key} cannot be {shortened(value)}: it is {in_words(hints[key])}{hint}"
            ) from None
        if choices[key] and checked[key] not in choices[key]:
            hint = suggestion(str(value), map(str, choices[key]))
            raise UbhpdError(f"{where}.{key} cannot be {shortened(value)}: {hint}")
    return kind(**checked)


def from_json(content: Any, kind: type[T], where: str) -> T:
    """Return parsed JSON as a dataclass, dataclasses inside it included; a list stands for a tuple.

    Args:
        content: as json.loads gives it.
        kind: the dataclass.
        where: the file; begins the sentence of an error.

    Raises:
        UbhpdError: a value of another type, a number that is not finite, or a field that is missing or unknown.
    """
    try:
        result = msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise UbhpdError(_sentence(str(error), content, where)) from None
    _check_complete(content, msgspec.to_builtins(result), where)
    return result


def in_words(hint: Any) -> str:
    """Return the type of an option in words, as "a whole number"."""
    words = []
    for kind in _alternatives(hint):
        origin, inner = typing.get_origin(kind), typing.get_args(kind)
        if origin is typing.Literal:
            words.append(f"one of {', '.join(map(str, inner))}")
        elif origin is tuple:
            count = "" if inner[-1] is ... else f"{len(inner)} "
            what = {int: "whole numbers", str: "names"}.get(inner[0], "numbers")
            words.append(f"{count}{what} with commas between")
        else:
            words.append(_WORDS.get(kind, str(kind)))
    return " or ".join(words)


def listed(options: Any) -> list[tuple[str, str, Any]]:
    """Return (name, type in words, value) of every field of an options dataclass."""
    hints = typing.get_type_hints(type(options))
    return [(f.name, in_words(hints[f.name]), getattr(options, f.name)) for f in fields(options)]


def _check_known(key: str, hints: Mapping[str, Any], where: str) -> None:
    if key not in hints:
        near = nearest(key, hints)
        known = ", ".join(hints) or "none"
        hint = f"did you mean {near[0]}, one of {known}?" if near else f"it has {known}."
        raise UbhpdError(f"{where} has no option {shortened(key)}: {hint}")


def _parsed(text: str, hint: Any) -> Any:
    """Return the value that a text stands for, as JSON would give it; the text itself where it is none."""
    kinds = _alternatives(hint)
    if type(None) in kinds and text.lower() == "none":
        return None
    if any(typing.get_origin(kind) is tuple for kind in kinds):
        return [] if text.lower() == "none" else [_parsed(part.strip(), int | float) for part in text.split(",")]
    if str in kinds or any(isinstance(choice, str) for kind in kinds for choice in typing.get_args(kind)):
        return text
    try:
        return json.loads(text.lower())
    except (ValueError, RecursionError):
        return text


def _literals(hint: Any) -> tuple[str, ...]:
    """Return the texts that an option may be, where its type lists them."""
    kinds = (kind for kind in _alternatives(hint) if typing.get_origin(kind) is typing.Literal)
    return tuple(choice for kind in kinds for choice in typing.get_args(kind) if isinstance(choice, str))


def _with_known_case(value: Any, known: Sequence[Any]) -> Any:
    """Return the known text that equals a text but for upper and lower case; any other value as it is."""
    if not isinstance(value, str) or value in known:
        return value
    same = [k for k in known if isinstance(k, str) and k.lower() == value.lower()]
    return same[0] if len(same) == 1 else value


def _alternatives(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _finite(value: T) -> T:
    """Return the value; raise ValueError if it is, or holds, a number that is not finite."""
    if isinstance(value, tuple):
        for part in value:
            _finite(part)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError
    return value


def _check_complete(given: Any, converted: Any, where: str) -> None:
    """Refuse what the conversion left out in silence: fields of no dataclass, and numbers that are not finite."""
    if isinstance(given, float) and not math.isfinite(given):
        raise UbhpdError(f"{where} is {given}, it has to be a number.")
    if isinstance(given, dict) and isinstance(converted, dict):
        for key, value in given.items():
            if key not in converted:
                raise UbhpdError(f"{where} has a field {shortened(key)} that this ubhpd does not know: update ubhpd.")
            _check_complete(value, converted[key], f"{where}.{key}")
    elif isinstance(given, list) and isinstance(converted, list):
        for i, (value, own) in enumerate(zip(given, converted, strict=True)):
            _check_complete(value, own, f"{where}[{i}]")


def _sentence(message: str, content: Any, where: str) -> str:
    """Return msgspec's message, "Expected `int | null`, got `str` - at `$.seed`", as a sentence on the value."""
    place = match[1] if (match := _PLACE.search(message)) else ""
    if missing := re.match(r"Object missing required field `([^`]*)`", message):
        at = next((p for p, v in _values(content, place, where) if missing[1] not in v), where + place)
        return f"{at} lacks the field {missing[1]!r}: the file is incomplete."
    expected = re.match(r"Expected `([^`]*)`", message)
    if expected is None:
        return f"{where}{place} does not fit ({_PLACE.sub('', message)}): the file is incomplete."
    kinds = expected[1].split(" | ")
    words = " or ".join(_JSON_WORDS.get(kind, kind) for kind in kinds)
    for at, value in _values(content, place, where):
        if _JSON_KINDS[type(value)] not in kinds and not (type(value) is int and "float" in kinds):
            return f"{at} is {shortened(value)}, it has to be {words}."
    return f"{where}{place} is not what it has to be, {words}."


def _values(content: Any, place: str, where: str) -> Iterator[tuple[str, Any]]:
    """Yield the values at a place that msgspec names, and their full path: "[...]" is any key of a dictionary."""
    step = _STEP.match(place)
    if step is None:
        yield where, content
        return
    rest, key, index = place[step.end() :], step[1], step[2]
    if index == "..." and isinstance(content, dict):
        for own, value in content.items():
            yield from _values(value, rest, f"{where}.{own}")
    elif index is not None and isinstance(content, list):
        yield from _values(content[int(index)], rest, f"{where}[{index}]")
    elif isinstance(content, dict) and key in content:
        yield from _values(content[key], rest, f"{where}.{key}")
