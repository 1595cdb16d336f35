"""Reports as text for a terminal: only the form, the numbers are computed elsewhere.

Names and notes come out of foreign files: their control characters are shown, so that a terminal does not obey them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ubhpd.core.text import printable, table

if TYPE_CHECKING:
    from ubhpd.pool.build import BuildReport
    from ubhpd.pool.validate import Finding


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
