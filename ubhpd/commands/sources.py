"""`ubhpd sources`: the datasets that can be read, where they were found, and how to get them."""

from __future__ import annotations

import json

import click

from ubhpd.commands._completion import complete_dataset


@click.command(short_help="List the datasets and find them on disk.")
@click.argument("name", required=False, shell_complete=complete_dataset)
@click.option("--data-root", envvar="UBHPD_DATA", metavar="DIR", help="Folder (or archive) to search for them.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(name: str | None, data_root: str | None, as_json: bool) -> None:
    """List the datasets that can be read; with NAME, everything that is known about one of them.

    Exit code 0 good, 2 wrong input.
    """
    from ubhpd.pool.sources import survey
    from ubhpd.reports.terminal import source_text, sources_text

    cards = survey(data_root, [name] if name else None)
    if as_json:
        click.echo(json.dumps(cards, indent=2, ensure_ascii=False))
    elif name:
        click.echo("\n".join(map(source_text, cards.values())))  # one, under its name in the usual case
    else:
        click.echo(sources_text(cards, data_root))
