"""Model cards as text for a terminal and as content for JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from ubhpd.core.text import table
from ubhpd.evaluation.printed_results import Printed, results
from ubhpd.models.catalogue import NETWORKS, ModelCard, configured, options_listed


def list_content(cards: Iterable[ModelCard]) -> list[dict[str, Any]]:
    """Return the short card of every model, for JSON and for the table."""
    methods = [row.method for row in results()]
    return [
        {
            "name": c.name, "title": c.title, "kind": c.kind, "parameters": c.parameters, "megabytes": c.megabytes,
            "license": c.license, "printed_results": methods.count(c.reported) if c.reported else 0,
        }
        for c in cards
    ]  # fmt: skip


def list_text(cards: Iterable[ModelCard]) -> str:
    """Return the table of all models."""
    rows = [["name", "title", "kind", "parameters", "MB", "reported results", "licence"]]
    for c in list_content(cards):
        count = "" if c["parameters"] is None else f"{c['parameters']:,}"
        size = "" if c["megabytes"] is None else f"{c['megabytes']:.1f}"
        rows.append([c["name"], c["title"], c["kind"], count, size, str(c["printed_results"]), c["license"]])
    return f"{table(rows)}\nMore on one of them: ubhpd models NAME"


def card_content(card: ModelCard, with_code: bool) -> dict[str, Any]:
    """Return the full card of a model; options and recipes, which need its code, only `with_code`."""
    own = [r for r in results() if card.reported is not None and r.method == card.reported]
    content = {**asdict(card), "megabytes": card.megabytes, "printed_results": [_printed(r) for r in own]}
    if with_code:
        module, config = configured(card.name)
        content["config"] = {name: {"value": value, "type": kind} for name, kind, value in options_listed(config)}
        if card.kind in NETWORKS:
            content["input"] = asdict(module.input_recipe(config))
            content["training"] = asdict(module.training_recipe(config))
    return content


def card_text(content: dict[str, Any]) -> str:
    """Return the result of `card_content` as text."""
    lines = [f"{content['title']} ({content['name']}, {content['kind']})"]
    lines += [f"  {label:<10}{content[key]}" for label, key in _LABELS.items() if content[key]]
    if content["parameters"] is not None:
        lines.append(f"  weights   {content['parameters']:,} parameters, {content['megabytes']:.1f} MB")
    lines += ["", content["text"]]
    if content.get("config"):
        rows = [["option", "value", "type"]]
        rows += [[name, _value(o["value"]), o["type"]] for name, o in content["config"].items()]
        lines += ["", table(rows)]
    for what in ("input", "training"):
        if what in content:
            lines += ["", f"{what}: " + ", ".join(f"{k} {_value(v)}" for k, v in content[what].items())]
    if content["printed_results"]:
        rows = [["reported in", "train", "test", "yaw", "pitch", "roll", "MAE"]]
        for r in content["printed_results"]:
            numbers = ["" if r[k] is None else f"{r[k]:g}" for k in ("yaw", "pitch", "roll", "mae")]
            rows.append([f"{r['paper']}, table {r['table']}", r["train"], r["test"], *numbers])
        lines += ["", table(rows)]
    return "\n".join(lines)


_LABELS = {"paper": "paper", "code": "code", "licence": "license"}


def _printed(row: Printed) -> dict[str, Any]:
    return {k: getattr(row, k) for k in ("paper", "table", "train", "test", "yaw", "pitch", "roll", "mae", "ubmae")}


def _value(value: Any) -> str:
    words = ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return words or "none"
