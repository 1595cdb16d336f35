"""Reports and model cards as text for a terminal: only the form, the numbers are computed elsewhere.

Names and notes come out of foreign files: their control characters are shown, so that a terminal does not obey them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ubhpd.core.text import printable, table
from ubhpd.evaluation.printed_results import Printed, results
from ubhpd.models.catalogue import NETWORKS, ModelCard, configured, options_listed

if TYPE_CHECKING:
    from ubhpd.pool.build import BuildReport
    from ubhpd.pool.summary import Finding


def build_text(report: BuildReport, out: Path, shard: tuple[int, int] | None) -> str:
    """Return the report of a build."""
    resumed = f", {report.units_kept} kept from an earlier run" if report.units_kept else ""
    if shard:
        return (
            f"Shard {shard[0]}/{shard[1]}: {report.units_read} units read{resumed}.\n"
            "When all shards are done, the same command without --shard writes the pool."
        )
    rows = [["dataset", "heads", "usable", "dropped"]]
    for name, own in report.datasets.items():
        rows.append([name, f"{own.heads:,}", f"{own.usable:,}", f"{own.heads - own.usable:,}"])
    lines = [table(rows)]
    for name, own in report.datasets.items():
        lines += [f"{name}: {n:,} dropped as {reason}" for reason, n in own.dropped.items()]
        lines += [_note(name, note) for note in own.notes]
    lines.append(f"{report.units_read} units read{resumed}; fingerprint {(report.fingerprint or '')[:16]}")
    lines.append(
        f"Wrote {out / 'pool.parquet'}; see: ubhpd info {out}, ubhpd info {out} --dropped, ubhpd validate {out}"
    )
    return printable("\n".join(lines))


def sources_text(found: dict[str, dict[str, Any]], data_root: str | None) -> str:
    """Return the list of datasets."""
    rows = [["name", "title", "heads published", "found", "heads listed"]]
    for name, card in found.items():
        listed = card["heads_listed"]
        count = "" if not card["found"] else "not counted" if listed is None else f"{listed:,}"
        where = " + ".join(card["found"]) or ("no" if data_root else "")
        rows.append([name, card["title"], f"{published_heads(card['published']):,}", where, count])
    hint = "" if data_root else "\nGive --data-root DIR to look for them."
    return f"{table(rows)}{hint}\nMore on one of them: ubhpd sources NAME"


def source_text(card: dict[str, Any]) -> str:
    """Return the card of one dataset."""
    lines = [
        f"{card['title']} ({card['name']})",
        f"  homepage  {card['homepage']}",
        f"  licence   {card['licence']}",
        f"  cite      {card['citation']}",
        f"  access    {card['access']}",
        f"  heads     {published_heads(card['published']):,} published",
        f"  found     {' + '.join(card['found']) or 'not looked for, or not there'}",
    ]
    for name, option in card["options"].items():
        choices = f" (of {', '.join(option['choices'][:8])})" if option["choices"] else ""
        lines.append(f"  option    {card['name']}.{name}={option['default']}{choices}")
    return "\n".join([*lines, "  layout", *(f"    {line}" for line in card["layout"].rstrip().splitlines())])


def info_text(summary: dict[str, Any]) -> str:
    """Return the content of a pool."""
    rows = [["dataset", "heads", "usable", "people", "synthetic", "yaw", "pitch", "roll"]]
    for name, own in summary["datasets"].items():
        counts = [f"{own[k]:,}" for k in ("heads", "usable", "subjects", "synthetic")]
        rows.append([name, *counts, *(_range(own["angles_deg"][a]) for a in ("yaw", "pitch", "roll"))])
    lines = [f"{summary['manifest']}, fingerprint {summary['fingerprint'][:16]}", table(rows)]
    for name, own in summary["datasets"].items():
        for what in ("dropped", "boxes", "landmarks"):
            if own[what]:
                lines.append(f"{name}: {what} " + ", ".join(f"{k} {n:,}" for k, n in own[what].items()))
    return printable("\n".join([*lines, "Angles: mean, and least to largest, in degrees, of the usable heads."]))


def dropped_text(heads: Sequence[dict[str, str]]) -> str:
    """Return the refused heads, one per line."""
    return "\n".join("\t".join(_in_line(h[k]) for k in ("sample_id", "drop_reason", "drop_detail")) for h in heads)


def findings_text(findings: Sequence[Finding]) -> str:
    """Return the findings, one per line."""
    if not findings:
        return "No findings: counts, pairs and files are as published."
    rows = [["dataset", "finding", "heads", ""]]
    rows += [[f.dataset, f.kind, f"{f.heads:,}" if f.heads else "", f.text] for f in findings]
    return table(rows)


def published_heads(published: dict[str, int]) -> int:
    """Return the published size of a dataset: prefixes inside another prefix are not counted twice."""
    return sum(n for p, n in published.items() if not any(p != q and p.startswith(q) for q in published))


def _in_line(text: str) -> str:
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def _range(spread: dict[str, float] | None) -> str:
    return "" if spread is None else f"{spread['mean']:.1f} ({spread['min']:.1f} to {spread['max']:.1f})"


def _note(name: str, note: dict[str, Any]) -> str:
    times = f" ({note['count']} times)" if note["count"] > 1 else ""
    return f"{name}: {'warning: ' if note['is_warning'] else ''}{note['text']}{times}"


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
        rows = [["reported in", "train", "test", "yaw", "pitch", "roll", "MAE", "note"]]
        for r in content["printed_results"]:
            numbers = ["" if r[k] is None else f"{r[k]:g}" for k in ("yaw", "pitch", "roll", "mae")]
            note = "; ".join(text for text in (r["note"], r["differs"]) if text)
            rows.append([f"{r['paper']}, table {r['table']}", r["train"], r["test"], *numbers, note])
        lines += ["", table(rows)]
    return "\n".join(lines)


_LABELS = {"paper": "paper", "code": "code", "licence": "license"}


def _printed(row: Printed) -> dict[str, Any]:
    angles = ("yaw", "pitch", "roll", "mae", "ubmae")
    return {k: getattr(row, k) for k in ("paper", "table", "train", "test", *angles, "note", "differs", "source")}


def _value(value: Any) -> str:
    words = ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return words or "none"
