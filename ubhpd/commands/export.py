"""`ubhpd export`: crops or images with labels, in formats that other code reads."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ubhpd.commands._completion import complete_format, complete_recipe
from ubhpd.commands._options import Choice, Renamed
from ubhpd.core.parallel import BACKENDS

PATH = click.Path(path_type=Path)


@click.command(short_help="Export face crops and labels for other code.")
@click.argument("out", type=PATH, required=False)
@click.option(
    "--format",
    "form",
    metavar="NAME",
    shell_complete=complete_format,
    help="h5, fsanet, 6drepnet, coco, hf, csv; see --list.",
)
@click.option(
    "--recipe",
    metavar="NAME",
    shell_complete=complete_recipe,
    help="How faces are cropped; see --list. Default: the format's own.",
)
@click.option("--size", type=int, metavar="PX", help="Side of the crops. Default: the recipe's own.")
@click.option("--split", metavar="NAME", help="Only this split, as train or test.")
@click.option("--out", "to", type=PATH, help="Folder to write. Default: OUT/exports/...")
@click.option(
    "--image-format",
    "--picture",
    "image_format",
    cls=Renamed,
    type=Choice(["png", "jpg"]),
    default="png",
    show_default=True,
    help="How crops are stored as files: png loses nothing.",
)
@click.option("--seed", default=0, show_default=True, help="Of recipes that draw their margin.")
@click.option("--skip-unreadable", is_flag=True, help="Leave out heads whose image cannot be read, and say so.")
@click.option("--jobs", default=1, show_default=True, help="Processes; -1 for all cores.")
@click.option("--backend", type=Choice(BACKENDS), default="loky", show_default=True, help="As of build.")
@click.option("--list", "lists", is_flag=True, help="List formats and recipes.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    out: Path | None, form: str | None, recipe: str | None, size: int | None, split: str | None, to: Path | None,
    image_format: str, seed: int, skip_unreadable: bool, jobs: int, backend: str, lists: bool, quiet: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Export the heads of OUT that have a face box.

    OUT is a build's folder, or a manifest with build.json beside it. Of a folder, UBHPD is exported if it is there,
    else the pool.

    An interrupted export resumes where it stopped. Exit code 0 good, 2 wrong input.
    """
    from ubhpd.core.errors import UbhpdError
    from ubhpd.core.parallel import Engine
    from ubhpd.core.progress import Progress, log_shown
    from ubhpd.exports._runner import ExportConfig, export, export_text, list_content, list_text

    if lists:
        click.echo(json.dumps(list_content(), indent=2, ensure_ascii=False) if as_json else list_text())
        return
    if out is None or form is None:
        raise UbhpdError("Name the folder to export and a format, as ubhpd export OUT --format h5; see --list.")
    talks = not quiet and not as_json
    config = ExportConfig(
        place=out,
        form=form,
        recipe=recipe,
        size=size,
        split=split,
        out=to,
        image=image_format,
        seed=seed,
        skip_unreadable=skip_unreadable,
    )
    with log_shown(talks, err=True):
        report = export(config, Engine(jobs, backend), Progress(show=talks))
    if as_json:
        click.echo(json.dumps({**report.as_dict(), "out": report.out}, indent=2, ensure_ascii=False))
    elif not quiet:
        click.echo(export_text(report))
