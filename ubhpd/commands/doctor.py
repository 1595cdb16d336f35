"""`ubhpd doctor`: why a prediction file scores badly."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command(short_help="Diagnose a prediction file.")
@click.argument("predictions", type=click.Path(path_type=Path))
@click.option(
    "--manifest",
    type=click.Path(path_type=Path),
    help="The truth: a manifest, or a build's folder (UBHPD if it is there, else the pool). "
    "Default: the file's own columns, else the manifest that `ubhpd predict` made it from.",
)
@click.option("--last-build", is_flag=True, help="Take the truth from the build made last on this account.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def command(ctx: click.Context, predictions: Path, manifest: Path | None, last_build: bool, as_json: bool) -> None:
    """Find what is wrong with PREDICTIONS: unit, columns, signs, rotations, offsets, order of rows, ids, values.

    Each finding says how far it explains the errors and what to change. Exit code 0 good, 1 findings, 2 wrong input.
    """
    from ubhpd.evaluation.doctor import diagnose
    from ubhpd.evaluation.report import diagnosis_text

    diagnosis = diagnose(predictions, manifest, last_build)
    click.echo(json.dumps(diagnosis.as_dict(), indent=2, ensure_ascii=False) if as_json else diagnosis_text(diagnosis))
    ctx.exit(diagnosis.exit_code)
