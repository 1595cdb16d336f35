"""`ubhpd card`: the dataset card and the Croissant metadata of a build."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Write the dataset card and Croissant metadata.")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def command(out: Path, quiet: bool) -> None:
    """Write OUT/CARD.md (Markdown) and OUT/croissant.json for a build's folder: sources, licences, counts, limits.

    Exit code 0 good, 2 wrong input.
    """
    from ubhpd.reports.card import write_card
    from ubhpd.reports.croissant import write_croissant

    written = [write_card(out), write_croissant(out)]
    if not quiet:
        click.echo(f"Wrote {written[0]} and {written[1]}.")
