"""`ubhpd info`: what is in a built pool."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command(short_help="Show what is in a pool.")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--dropped", is_flag=True, help="List every refused head with its reason.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(out: Path, dropped: bool, as_json: bool) -> None:
    """Show heads, angles, boxes and refusals of each dataset in OUT.

    OUT is a manifest, or a build's folder; of a folder the pool is shown. Exit code 0 good, 2 wrong input.
    """
    from ubhpd.pool.summary import dropped_heads, summarise
    from ubhpd.reports.terminal import dropped_text, info_text

    if dropped:
        heads = dropped_heads(out)
        click.echo(json.dumps(heads, indent=2, ensure_ascii=False) if as_json else dropped_text(heads))
        return
    summary = summarise(out)
    click.echo(json.dumps(summary, indent=2, ensure_ascii=False) if as_json else info_text(summary))
