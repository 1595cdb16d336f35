"""`ubhpd weights`: checkpoints out of weights of others, out of random numbers, out of a fit; and what is in one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ubhpd.commands._completion import complete_runnable_model, complete_weights
from ubhpd.commands._options import Subcommands

if TYPE_CHECKING:
    from ubhpd.models.checkpoint import About

PATH = click.Path(path_type=Path)


def _of_a_model(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that all commands have which make a checkpoint."""
    for option in (
        click.option("-O", "chosen", multiple=True, metavar="KEY=VALUE", help="Option of the model, as size=64."),
        click.option("--out", type=PATH, required=True, help="Checkpoint to write, FILE.safetensors."),
        click.option(
            "--model",
            required=True,
            metavar="NAME",
            shell_complete=complete_runnable_model,
            help="See: ubhpd models.",
        ),
    ):
        command = option(command)
    return command


@click.group(cls=Subcommands, short_help="Import or inspect model weights.")
def command() -> None:
    """Make a model's checkpoint, or show what is in one. Exit code 0 good, 2 wrong input."""


@command.command(short_help="Download published weights by name.")
@click.argument("name", required=False, shell_complete=complete_weights)
@click.option("--list", "lists", is_flag=True, help="List the names, licences and sources.")
@click.option("--out", type=PATH, help="Checkpoint to write. Default: in the cache folder.")
@click.option("--sha256", multiple=True, help="Hash of a file whose hash is not known; again for each file.")
def get(name: str | None, lists: bool, out: Path | None, sha256: tuple[str, ...]) -> None:
    """Download the published weights NAME, verify their SHA-256, and make a checkpoint of them for ubhpd predict.

    Downloads are kept in ~/.cache/ubhpd, or in UBHPD_CACHE. Exit code 0 good, 2 wrong input or no connection.
    """
    from ubhpd.core.text import table
    from ubhpd.models.downloads import cache_folder, download, named, published_weights, with_hashes

    if lists or name is None:
        rows = [["name", "files", "trained on", "licence", "source"]]
        for own in published_weights().values():
            count = str(len(own.files)) if own.files else "by browser"
            count += " (needs --sha256)" if any(f.sha256 is None for f in own.files) else ""
            rows.append([own.name, count, own.trained_on, own.license, own.source])
        click.echo(table(rows))
        return
    entry = with_hashes(named(name), sha256)
    click.echo(f"{entry.name}: licence {entry.license}, from {entry.source}")
    files = download(entry)
    from ubhpd.models.catalogue import card, module_of

    module_of(card(entry.model))
    from ubhpd.models.importing import imported

    place = out or cache_folder() / "weights" / f"{entry.name}.safetensors"
    _tell(imported(files, entry.model, dict(entry.options)).save(place), place)


@command.command("import")
@click.argument("files", type=PATH, nargs=-1, required=True)
@_of_a_model
def import_(files: tuple[Path, ...], model: str, out: Path, chosen: tuple[str, ...]) -> None:
    """Bring in published weights: FILES as .h5 or .keras of Keras, .pth of torch, or .safetensors.

    Where a model needs statistics beside its network, as threeddfa_v2, they are a second file, .npz of NumPy.
    """
    from ubhpd.core.options import key_values
    from ubhpd.models.catalogue import card, module_of

    module_of(card(model))  # says so before any import of torch if it is not there
    from ubhpd.models.importing import imported

    _tell(imported(files, model, key_values(chosen, example="size=64")).save(out), out)


@command.command()
@_of_a_model
@click.option("--seed", default=0, show_default=True, help="Of the random weights.")
@click.option(
    "--backbone", type=PATH, metavar="FILE", help="Published weights of its backbone; imagenet downloads torchvision's."
)
def init(model: str, out: Path, chosen: tuple[str, ...], seed: int, backbone: Path | None) -> None:
    """Make a checkpoint of random weights, to train or to try things with."""
    from ubhpd.core.options import key_values
    from ubhpd.models.catalogue import card, module_of

    module_of(card(model))
    from ubhpd.models.importing import with_backbone
    from ubhpd.models.model import Model

    made = Model.untrained(model, key_values(chosen, example="size=64"), seed)
    _tell((with_backbone(made, backbone) if backbone else made).save(out), out)


@command.command()
@_of_a_model
@click.option(
    "--manifest",
    type=PATH,
    required=True,
    metavar="FILE",
    help="Heads of known pose: a manifest, or a build's folder (UBHPD if it is there, else the pool).",
)
@click.option("--split", metavar="NAME", help="Only this split, as train.")
def fit(model: str, out: Path, chosen: tuple[str, ...], manifest: Path, split: str | None) -> None:
    """Fit a geometric method, a model without a network, to the usable heads of a manifest."""
    from ubhpd.core.options import key_values
    from ubhpd.models.geometric_model import GeometricMethod, training_heads

    heads, origin = training_heads(manifest, split)
    _tell(GeometricMethod.fitted(model, key_values(chosen, example="size=64"), heads, origin).save(out), out)


@command.command()
@click.argument("file", type=PATH)
def show(file: Path) -> None:
    """Print what the checkpoint FILE says of itself, after checking its tensors."""
    from ubhpd.models.checkpoint import load

    found = load(file)
    shapes = {name: list(values.shape) for name, values in found.tensors.items()}
    click.echo(json.dumps({**asdict(found.about), "tensors": shapes}, indent=2, ensure_ascii=False))


def _tell(about: About, out: Path) -> None:
    click.echo(f"Wrote {out}: {about.model}, {about.origin['how']}; licence of the weights: {about.license}")
