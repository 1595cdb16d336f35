"""Shell completion of names: models, protocols, datasets, crop recipes and export formats.

Commands pass the functions `complete_...` to click as `shell_complete`. The shell runs the command line anew for every
press of the Tab key, so each of them imports only the catalogue that it needs, and none imports torch. A catalogue that
cannot be read completes to nothing: an error message would end up in the middle of the line that the user types.
docs/completion.md explains how to enable completion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import click
from click.shell_completion import CompletionItem, FishComplete, add_completion_class

from ubhpd.core.errors import UbhpdError

Names = Callable[[], Mapping[str, str]]  # name -> one line of help
Completion = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def model_names() -> dict[str, str]:
    """Return every model of the catalogue."""
    from ubhpd.models.catalogue import catalogue

    return {name: card.title for name, card in catalogue().items()}


def runnable_model_names() -> dict[str, str]:
    """Return the models that can be trained or run: all but those whose results are only reported."""
    from ubhpd.models.catalogue import catalogue

    return {name: card.title for name, card in catalogue().items() if card.kind != "reported"}


def protocol_names() -> dict[str, str]:
    """Return the ids of all protocols."""
    from ubhpd.protocols.definitions import PROTOCOLS

    return {name: protocol.sentence for name, protocol in PROTOCOLS.items()}


def protocol_and_series_names() -> dict[str, str]:
    """Return the series of protocols, as papers call them, and the ids of all protocols."""
    from ubhpd.protocols.definitions import PROTOCOLS

    series: dict[str, list[str]] = {}
    for name, protocol in PROTOCOLS.items():
        series.setdefault(protocol.series, []).append(name)
    return {**{name: ", ".join(ids) for name, ids in series.items()}, **protocol_names()}


def dataset_names() -> dict[str, str]:
    """Return the datasets that can be read."""
    from ubhpd.pool.sources import builders

    return {name: builder.TITLE for name, builder in builders().items()}


def recipe_names() -> dict[str, str]:
    """Return the crop recipes."""
    from ubhpd.images.recipes import RECIPES

    return {name: recipe.reference for name, recipe in RECIPES.items()}


def experiment_names() -> dict[str, str]:
    """Return the tables and figures of papers."""
    from importlib import resources

    from ubhpd.core.files import read_toml

    folder = Path(str(resources.files("ubhpd") / "data" / "experiments"))
    files = {path.stem: read_toml(path, "install ubhpd again") for path in sorted(folder.glob("*.toml"))}
    return {f"{name}/{e['id']}": e["title"] for name, content in files.items() for e in content["experiments"]}


def format_names() -> dict[str, str]:
    """Return the export formats."""
    from ubhpd.exports._runner import formats

    return {name: module.CARD.title for name, module in formats().items()}


def io_file_names() -> dict[str, str]:
    """Return the IO files that come with the package."""
    from ubhpd.inference.io_file import shipped

    return dict.fromkeys(shipped(), "")


def weight_names() -> dict[str, str]:
    """Return the published weights that can be downloaded."""
    from ubhpd.models.downloads import published_weights

    return {name: entry.source for name, entry in published_weights().items()}


def one_of(names: Names) -> Completion:
    """Return the completion of a single name."""

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return _items(names, incomplete)

    return complete


def list_of(names: Names) -> Completion:
    """Return the completion of the last name in a list A,B,..., without the names that it already has."""

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        chosen = {name.strip() for name in before.split(",")}
        items = [item for item in _items(names, last.lstrip()) if item.value not in chosen]
        for item in items:
            item.value = f"{before}{comma}{item.value}"
        return items

    return complete


def _items(names: Names, incomplete: str) -> list[CompletionItem]:
    try:
        known = names()
    except UbhpdError:
        return []
    matching = [name for name in known if name.startswith(incomplete)]
    return [CompletionItem(name, help=" ".join(known[name].split())) for name in matching]


complete_model = one_of(model_names)
complete_runnable_model = one_of(runnable_model_names)
complete_runnable_models = list_of(runnable_model_names)
complete_protocol = one_of(protocol_names)
complete_protocols = list_of(protocol_and_series_names)
complete_dataset = one_of(dataset_names)
complete_datasets = list_of(dataset_names)
complete_recipe = one_of(recipe_names)
complete_experiment = one_of(experiment_names)
complete_weights = one_of(weight_names)
complete_io_file = one_of(io_file_names)
complete_format = one_of(format_names)


@add_completion_class
class _FishWithLists(FishComplete):
    """Completion for fish that keeps the commas of a list; click's own script cuts a value at its first comma."""

    source_template = FishComplete.source_template.replace('string split ","', 'string split --max 1 ","')
