"""`ubhpd reproduce`: the tables and figures of the five papers."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from ubhpd.commands._completion import complete_experiment
from ubhpd.commands._options import Choice
from ubhpd.core.errors import UbhpdError

PATH = click.Path(path_type=Path)


@click.command(short_help="Run a table or figure of a paper.")
@click.argument("names", nargs=-1, metavar="[ID]...", shell_complete=complete_experiment)
@click.option("--data", type=PATH, metavar="OUT", help="The folder that ubhpd build wrote to.")
@click.option("--out", type=PATH, metavar="RESULTS",
              help="Folder of tables, figures, and runs, which experiments share.")  # fmt: skip
@click.option("--scale", type=Choice(["full", "small", "smoke"]), default="full", show_default=True,
              help="full: as the paper trains, three seeds; small: 2,000 steps; smoke: two steps, to see that it "
              "runs.")  # fmt: skip
@click.option("--seeds", metavar="0,1,...", help="A run for each. Default: 0,1,2 for full, else 0.")
@click.option("--rows", metavar="A,B,...", help="Only these methods, as the paper calls them.")
@click.option("--backbone", type=PATH, metavar="FILE",
              help="Published weights that networks begin with; imagenet downloads torchvision's.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1; auto takes a GPU if there is.")
@click.option("--workers", default=0, help="For reading images. Default: one per core.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def command(
    ctx: click.Context, names: tuple[str, ...], data: Path | None, out: Path | None, scale: str, seeds: str | None,
    rows: str | None, backbone: Path | None, device: str, workers: int, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Run tables and figures of papers by their ID, as osgg/table-6, and write printed beside reproduced.

    Without an ID: list all, with the datasets that each needs, its rows, and why it cannot be run. ID all runs all that
    can be. RESULTS/reproduced gets a table as Markdown and JSON, or a figure; runs are shared and resume. Exit code 0
    good, 1 if a run failed, 2 wrong input.
    """
    from ubhpd.core.progress import log_shown
    from ubhpd.core.registry import pick
    from ubhpd.reports.paper_tables import experiments, listing, listing_text

    if not names:
        click.echo(json.dumps(listing(), indent=2, ensure_ascii=False) if as_json else listing_text())
        return
    from ubhpd.api.labels import reproduce
    from ubhpd.experiments.reproduce import reproduction_text

    if data is None or out is None:
        raise UbhpdError("Name a build by --data OUT and a folder for results by --out RESULTS.")
    if names == ("all",):
        names = tuple(own["id"] for own in listing() if not own["why"])
    for name in names:
        pick(experiments(), name, "table or figure")  # a wrong name before any work
    made, left_out = [], []
    for name in names:
        try:
            with log_shown(not quiet and not as_json):
                made.append(reproduce(
                    name, data, out, scale=scale, seeds=_numbers(seeds), rows=_names(rows), backbone=backbone,
                    device=device, workers=workers, progress=not quiet and not as_json,
                ))  # fmt: skip
        except UbhpdError as error:
            if len(names) == 1:
                raise
            left_out.append((name, str(error)))
            continue
        if not quiet and not as_json:
            click.echo(f"{reproduction_text(made[-1])}\n")
    if as_json:
        click.echo(json.dumps([asdict(own) for own in made], indent=2, ensure_ascii=False))
    for name, reason in left_out:
        click.echo(f"{name} was left out: {reason}", err=True)
    ctx.exit(1 if left_out or any(own.failed for own in made) else 0)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _numbers(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in _names(text))
    except ValueError:
        raise UbhpdError(f"--seeds {text[:60]!r} are no whole numbers: write 0,1,2.") from None
