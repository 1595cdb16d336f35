"""`ubhpd compare`: two prediction files on the same heads, with a paired test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ubhpd.commands._evaluating import asked, evaluation_options

PATH = click.Path(path_type=Path)


@click.command(short_help="Compare two prediction files, paired.")
@click.argument("first", type=PATH)
@click.argument("second", type=PATH)
@click.option(
    "--manifest",
    type=PATH,
    help="The truth: a manifest, or a build's folder (UBHPD if it is there, else the pool). "
    "Default: the files' own columns.",
)
@click.option(
    "--source", metavar="NAME|FILE", help="Training set for UBMAE: 300W-LP, a manifest (its training split), counts."
)
@asked("Compare on its test split; see: ubhpd protocols.", "What is resampled.", over="samples")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(first: Path, second: Path, manifest: Path | None, source: str | None, as_json: bool, **chosen: Any) -> None:
    """Compare FIRST and SECOND on the heads that both predict: differences, intervals and p-values.

    Exit code 0 whatever the outcome, 2 wrong input.
    """
    from ubhpd.evaluation.evaluate import compare
    from ubhpd.evaluation.report import compare_text

    result = compare(first, second, manifest, evaluation_options(source, None, chosen)).result
    click.echo(json.dumps(result, indent=2, ensure_ascii=False) if as_json else compare_text(result))
