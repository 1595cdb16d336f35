"""Tables of the documents that are made from the cards of datasets, models, metrics, exports and crop recipes.

`python -m ubhpd.reports.doc_tables` writes them; with `--check` it only says whether they are up to date, and exits
with 1 if not. A table stands between two lines in README.md or in a page of docs/:

    <!-- table: datasets -->
    <!-- end of table -->

It also writes the pages of docs/metrics, which are made from the docstrings of metrics/.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ubhpd.core.errors import UbhpdError
from ubhpd.evaluation.metric_cards import metrics, page
from ubhpd.exports._runner import formats
from ubhpd.models.catalogue import catalogue
from ubhpd.pool.sources import builders
from ubhpd.reports.paper_tables import markdown_listing

_MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->\n)", re.DOTALL)
Rows = list[list[str]]


def heads_published(published: dict[str, int]) -> int:
    """Return how many heads were published, given the numbers of a builder's card by prefix of sample ids.

    A prefix that begins with another one counts heads that the other one counts already.
    """
    outer = [key for key in published if not any(key != other and key.startswith(other) for other in published)]
    return sum(published[key] for key in outer)


def datasets() -> Rows:
    """Return the datasets: name, title, heads published, where the pose comes from."""
    rows = [["`--sources`", "dataset", "heads", "pose from"]]
    for name, own in builders().items():
        heads = f"{heads_published(own.PUBLISHED):,}" if own.PUBLISHED else ""
        rows.append([f"`{name}`", own.TITLE, heads, getattr(own, "POSE", "")])
    return rows


def models() -> Rows:
    """Return the models: names, method, kind; a row for each file in baselines/."""
    files: dict[str, list[str]] = {}
    cards = catalogue()
    for name, card in cards.items():
        files.setdefault(card.file, []).append(name)
    order = {kind: place for place, kind in enumerate(("image", "sequence", "landmarks", "geometric", "reported"))}
    rows = []
    for names in files.values():
        card = cards[names[0]]
        kind = "geometric method" if card.kind == "geometric" else card.kind
        rows.append((order.get(card.kind, len(order)), [", ".join(f"`{n}`" for n in names), card.title, kind]))
    return [["models", "method", "kind"], *(row for _, row in sorted(rows, key=lambda r: (r[0], r[1][1])))]


def metric_pages() -> Rows:
    """Return the metrics: title with a link to the page, scores, unit."""
    rows = [["metric", "scores", "unit"]]
    for name, own in metrics().items():
        scores = list(own.SCORES)
        shown = ", ".join(f"`{s}`" for s in scores[:6]) + (f" and {len(scores) - 6} more" if len(scores) > 6 else "")
        rows.append([f"[{own.TITLE}](metrics/{name}.md)", shown, own.UNIT])
    return rows


def export_formats() -> Rows:
    """Return the export formats: name, default crop recipe, what is written."""
    rows = [["format", "default recipe", "what is written"]]
    return [*rows, *([f"`{name}`", f"`{own.CARD.recipe}`", own.CARD.title] for name, own in formats().items())]


TABLES: dict[str, Callable[[], Rows]] = {
    "datasets": datasets,
    "models": models,
    "metrics": metric_pages,
    "exports": export_formats,
    "experiments": markdown_listing,
}


def with_tables(text: str, place: str = "the text") -> str:
    """Return a document with its marked tables made anew.

    Raises:
        UbhpdError: a marker names no table.
    """

    def table(found: re.Match[str]) -> str:
        if found[2] not in TABLES:
            raise UbhpdError(f"{place} asks for a table {found[2]!r}: choose from {', '.join(TABLES)}.")
        return found[1] + _markdown(TABLES[found[2]]()) + found[3]

    return _MARKED.sub(table, text)


def outdated(root: Path) -> dict[Path, str]:
    """Return the documents below a repository's root that differ from what they should be, with the right content."""
    wanted = {root / "docs" / "metrics" / f"{name}.md": page(own) for name, own in metrics().items()}
    for path in (root / "README.md", *sorted((root / "docs").rglob("*.md"))):
        if path not in wanted:
            wanted[path] = with_tables(path.read_text(encoding="utf-8"), str(path))
    return {
        path: text for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text
    }


def _markdown(rows: Iterable[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * (head.count(" | ") + 1), *body]) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the documents below the working directory; return the exit code."""
    chosen = list(sys.argv[1:] if arguments is None else arguments)
    changed = outdated(Path())
    for path, text in changed.items():
        if "--check" in chosen:
            print(f"{path} is not up to date: run make tables.")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"Wrote {path}")
    return 1 if changed and "--check" in chosen else 0


if __name__ == "__main__":
    sys.exit(main())
