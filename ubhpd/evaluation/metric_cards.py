"""Finds the metrics in `ubhpd.metrics`, checks their cards, and writes their pages in the documentation.

`python -m ubhpd.evaluation.metric_cards docs/metrics` writes one page for each metric from its docstring and card.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, cast

from ubhpd.core.errors import UbhpdError

# What every file in metrics/ defines, and its type; the docstring of `ubhpd.metrics` explains each.
METRIC_CARD: dict[str, type] = {"NAME": str, "TITLE": str, "UNIT": str, "PAPER": str, "BETTER": str, "SCORES": dict}
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

    by_name: dict[str, Metric] = {}
    owner: dict[str, str] = {}
    for info in pkgutil.iter_modules(package.__path__):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        check_metric(module)
        if module.NAME in by_name:
            raise UbhpdError(f"Two metrics are called {module.NAME!r}: rename the one in {info.name}.py.")
        for score in module.SCORES:
            if score in owner:
                raise UbhpdError(f"The score {score!r} is in {owner[score]} and in {module.NAME}: rename one.")
            owner[score] = module.NAME
        by_name[module.NAME] = cast(Metric, module)
    computed = {name for module in by_name.values() for name in getattr(module, "COLUMNS", ())}
    for name, metric in by_name.items():
        for need in ("PER_BIN", "PER_RING", "QUANTILES"):
            if absent := sorted(set(getattr(metric, need, ())) - computed):
                raise UbhpdError(f"The metric {name!r} has {absent[0]!r} in {need}, a column that no metric computes.")
    return dict(sorted(by_name.items()))


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
    if module.BETTER not in BETTER:
        raise UbhpdError(f"{where} has BETTER = {module.BETTER!r}: choose from {', '.join(BETTER)}.")
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
    first, _, rest = inspect.cleandoc(str(metric.__doc__)).partition("\n")
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


if __name__ == "__main__":
    main(sys.argv[1])
