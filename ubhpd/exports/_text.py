"""What an export tells its user, and the lists of formats and recipes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ubhpd.export import formats
from ubhpd.exports._job import ExportReport
from ubhpd.recipes import FACE_SOURCES, RECIPES
from ubhpd.text import table

_LISTED = 5


def export_text(report: ExportReport) -> str:
    """Return what was exported and what was left out."""
    size = f" at {report.size} px" if report.size else ""
    splits = ", ".join(f"{n:,} {s}" if s != "all" else f"{n:,}" for s, n in report.heads.items())
    lines = [f"{report.format}: {splits} heads, recipe {report.recipe['name']}{size}"]
    if report.units_kept:
        lines[0] += f"; {report.units_kept} units kept from an earlier run"
    if len(report.box_sources) > 1 or set(report.box_sources) - {report.recipe["sources"][0]}:
        told = (f"{n:,} by {s} ({FACE_SOURCES[s]})" for s, n in report.box_sources.items())
        lines.append(f"boxes: {', '.join(told)}")
    lines += _left_out(report.without_box, "without a box for this recipe", report)
    lines += _left_out(report.unreadable, "whose picture cannot be read", report)
    return "\n".join([*lines, f"Wrote {', '.join(report.files)} and export.json to {report.out}"])


def list_content() -> dict[str, Any]:
    """Return formats and recipes as JSON-ready values."""
    return {
        "formats": {n: f.CARD._asdict() for n, f in formats().items()},
        "recipes": {n: asdict(r) for n, r in RECIPES.items()},
    }


def list_text() -> str:
    """Return formats and recipes as two tables."""
    forms = [
        ["format", "default recipe", "what it is"],
        *([n, f.CARD.recipe, f.CARD.title] for n, f in formats().items()),
    ]
    recipes = [["recipe", "size", "box from", "outside", "colour", "what to know"]]
    for name, r in RECIPES.items():
        size = str(r.size) if r.size else "own"
        recipes.append([name, size, ", ".join(r.sources), r.outside, r.colour, r.note.split(". ")[0].rstrip(".")])
    return f"{table(forms)}\n\n{table(recipes)}\n\nMore in docs/exports.md; all fields with --json."


def _left_out(ids: list[str], why: str, report: ExportReport) -> list[str]:
    if not ids:
        return []
    more = f" and {len(ids) - _LISTED:,} more, all in {report.out}/export.json" if len(ids) > _LISTED else ""
    return [f"{len(ids):,} head{'s' * (len(ids) > 1)} {why}, left out: {', '.join(ids[:_LISTED])}{more}"]
