"""Finds the metrics in `ubhpd.metrics`, checks their cards, and writes their pages in the documentation.

`python -m ubhpd.evaluation.metric_cards docs/metrics` writes one page for each metric from its docstring and card.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from ubhpd.core import options, registry
from ubhpd.core.errors import UbhpdError

# What every file in metrics/ defines; the docstring of `ubhpd.metrics` explains each.
METRIC_CARD = registry.Card(
    "metrics",
    {"NAME": str, "TITLE": str, "UNIT": str, "PAPER": str, "BETTER": str, "SCORES": dict},
    ("score",),
    "Options",
    "give paper, equation, units and the rules for empty bins",
    "the docstring of metrics/",
)
INPUTS = ("angles", "relative", "columns", "aligned")
BETTER = ("lower", "higher", "neither")


class Metric(Protocol):
    """One family of metrics: a module in metrics/."""

    NAME: str
    TITLE: str
    UNIT: str
    PAPER: str
    BETTER: str  # "lower", "higher" or "neither"
    SCORES: dict[str, str]  # name of a score -> what it is
    Options: type[Any]  # frozen dataclass

    def score(self, statistics: Mapping[str, Any], options: Any) -> dict[str, Any]:
        """Return the scores whose inputs are among the statistics."""


@lru_cache(maxsize=1)
def metrics() -> dict[str, Metric]:
    """Return the metrics by name, sorted.

    Raises:
        UbhpdError: a file in the package has no valid card, two share a name or a score, or a metric needs a
            per-sample column that no metric computes.
    """
    import ubhpd.metrics as package

    by_name: dict[str, Metric] = registry.entries(
        package, check_metric, lambda metric: metric.NAME, "metrics", "metrics", _check_plugin
    )
    seen: dict[str, Metric] = {}
    for name, metric in by_name.items():
        _check_scores(seen, metric)
        seen[name] = metric
    for metric in by_name.values():
        _check_needs(by_name, metric)
    return by_name


def _check_plugin(known: Mapping[str, Metric], metric: Metric) -> None:
    _check_scores(known, metric)
    _check_needs({**known, metric.NAME: metric}, metric)


def _check_scores(known: Mapping[str, Metric], metric: Metric) -> None:
    """Raise UbhpdError if a score of the metric is another metric's, too."""
    for name, other in known.items():
        if twice := sorted(set(metric.SCORES) & set(other.SCORES)):
            raise UbhpdError(f"The score {twice[0]!r} is in {name} and in {metric.NAME}: rename one.")


def _check_needs(known: Mapping[str, Metric], metric: Metric) -> None:
    """Raise UbhpdError if the metric needs a per-sample column that no metric computes."""
    computed = {name for module in known.values() for name in getattr(module, "COLUMNS", ())}
    for need in ("PER_BIN", "PER_RING", "QUANTILES"):
        if absent := sorted(set(getattr(metric, need, ())) - computed):
            raise UbhpdError(
                f"The metric {metric.NAME!r} has {absent[0]!r} in {need}, a column that no metric computes."
            )


def columns_needed(attribute: str) -> tuple[str, ...]:
    """Return the per-sample columns that any metric lists in PER_BIN or PER_RING, sorted."""
    return tuple(sorted({name for m in metrics().values() for name in getattr(m, attribute, ())}))


def quantiles_needed() -> dict[str, tuple[float, ...]]:
    """Return the shares, 0 to 1, for which any metric needs a quantile, by per-sample column."""
    needed: dict[str, set[float]] = {}
    for m in metrics().values():
        for column, levels in getattr(m, "QUANTILES", {}).items():
            needed.setdefault(column, set()).update(levels)
    return {column: tuple(sorted(levels)) for column, levels in sorted(needed.items())}


def quantile_name(column: str, level: float) -> str:
    """Return the name of a quantile among the statistics, as geodesic_q95 for 0.95."""
    return f"{column}_q{100 * level:g}"


def error_columns() -> list[str]:
    """Return the per-sample columns that are errors, of which lower is better."""
    return [name for m in metrics().values() if m.BETTER == "lower" for name in getattr(m, "COLUMNS", ())]


def scores_of_whole_sets() -> set[str]:
    """Return the scores that need all samples at once: sums over batches do not give them."""
    return {
        score
        for m in metrics().values()
        if getattr(m, "INPUT", None) == "aligned" or getattr(m, "QUANTILES", None)
        for score in m.SCORES
    }


def scores_without_interval() -> set[str]:
    """Return the scores that metrics list in NO_INTERVAL: percentiles of resamples say nothing of a maximum."""
    return {score for m in metrics().values() for score in getattr(m, "NO_INTERVAL", ())}


def check_metric(module: Any) -> None:
    """Raise UbhpdError unless `module` has the card and the functions of a metric."""
    registry.check_card(module, METRIC_CARD, may_be_empty=False)
    where = f"metrics/{module.__name__.rpartition('.')[2]}.py"
    if (kind_of_input := getattr(module, "INPUT", None)) is not None and (
        kind_of_input not in INPUTS or not getattr(module, "COLUMNS", ()) or not callable(module.per_sample)
    ):
        raise UbhpdError(f"{where} needs INPUT in {', '.join(INPUTS)}, COLUMNS and per_sample.")
    if module.BETTER not in BETTER:
        raise UbhpdError(f"{where} has BETTER = {module.BETTER!r}: choose from {', '.join(BETTER)}.")
    if unknown := sorted(set(getattr(module, "NO_INTERVAL", ())) - set(module.SCORES)):
        raise UbhpdError(f"{where} has {unknown[0]!r} in NO_INTERVAL, which is none of its SCORES.")
    for column, levels in getattr(module, "QUANTILES", {}).items():
        if not levels or not all(0.0 < level < 1.0 for level in levels):
            raise UbhpdError(f"{where} has QUANTILES of {column!r} that are not shares between 0 and 1.")


def all_scores() -> dict[str, str]:
    """Return the meaning of every score, by its name."""
    return {name: meaning for m in metrics().values() for name, meaning in m.SCORES.items()}


def units() -> dict[str, str]:
    """Return the unit of every score, by its name."""
    return {name: m.UNIT for m in metrics().values() for name in m.SCORES}


def better() -> dict[str, str]:
    """Return by the name of every score whether "lower" or "higher" is better, or "neither"."""
    return {name: m.BETTER for m in metrics().values() for name in m.SCORES}


def page(metric: Metric) -> str:
    """Return the page of a metric in docs/metrics: its title, docstring, scores, options and source."""
    first, _, rest = inspect.cleandoc(str(metric.__doc__ or "")).partition("\n")
    rows = [f"| `{score}` | {metric.UNIT} | {metric.BETTER} | {text} |" for score, text in metric.SCORES.items()]
    lines = [f"# {metric.TITLE}", "", first, *([rest] if rest.strip() else []), "", "## Scores", ""]
    lines += ["| score | unit | better | meaning |", "|---|---|---|---|", *rows]
    if own := fields(metric.Options):
        lines += ["", "## Options", "", "| option | default | choices |", "|---|---|---|"]
        for f in own:
            choices = ", ".join(f"`{c}`" for c in f.metadata.get("choices", ())) or "a number"
            lines.append(f"| `-O {metric.NAME}.{f.name}=VALUE` | `{f.default}` | {choices} |")
    return "\n".join([*lines, "", f"Source: {metric.PAPER}."]) + "\n"


def main(folder: str) -> None:
    """Write the page of every metric to a folder."""
    for name, metric in metrics().items():
        Path(folder, f"{name}.md").write_text(page(metric), encoding="utf-8")


def metric_options(chosen: Iterable[str] = ()) -> dict[str, Any]:
    """Return the options of every metric, with the choices METRIC.KEY=VALUE made.

    Raises:
        UbhpdError: not of that form, an unknown metric or key, or a value that is not allowed.
    """
    by_metric = options.owner_key_values(chosen, "METRIC.KEY=VALUE", "", "ubmae.unseen=smooth")
    known = metrics()
    for name in by_metric:
        if name not in known:
            raise UbhpdError(f"Unknown metric {name!r}: {registry.suggestion(name, known)}")
    return {name: options.from_texts(m.Options, by_metric.get(name, {}), name) for name, m in known.items()}


if __name__ == "__main__":
    main(sys.argv[1])
