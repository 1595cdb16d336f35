"""`ubhpd models`: the models and their cards."""

from __future__ import annotations

import importlib.util
import json

import click

from ubhpd.commands._completion import complete_model


@click.command(short_help="List the models and what is known of them.")
@click.argument("name", required=False, shell_complete=complete_model)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(name: str | None, as_json: bool) -> None:
    """List the models; with NAME, show the card of one: options, input, training, reported results.

    Exit code 0 good, 2 wrong input.
    """
    from ubhpd.models.catalogue import NETWORKS, card, catalogue
    from ubhpd.reports import terminal as text

    if name is None:
        cards = catalogue().values()
        click.echo(_json(text.list_content(cards)) if as_json else text.list_text(cards))
        return
    found = card(name)
    has_torch = importlib.util.find_spec("torch") is not None
    content = text.card_content(found, found.kind == "geometric" or (found.kind in NETWORKS and has_torch))
    click.echo(_json(content) if as_json else text.card_text(content))
    if found.kind in NETWORKS and not has_torch:
        click.echo("Its options and recipes are shown if torch is installed: pip install 'ubhpd[torch]'.", err=True)


def _json(content: object) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False)
