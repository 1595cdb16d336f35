"""`ubhpd compare`: two prediction files on the same heads, with a paired test."""

from __future__ import annotations

import json
from pathlib import Path

import click

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("first", type=PATH)
@click.argument("second", type=PATH)
@click.option(
    "--manifest", type=PATH, help="The truth: a manifest, or a build's folder. Default: the files' own columns."
)
@click.option("--source", metavar="NAME|FILE", help="Training set for UBMAE: 300W-LP, a manifest, a table of counts.")
@click.option("--protocol", metavar="ID", help="Compare on its test side; see: ubhpd protocols.")
@click.option("--frames", metavar="FILE", help="List of frames, for a protocol that needs one.")
@click.option("--protocol-seed", default=0, show_default=True, help="For a protocol that divides one dataset.")
@click.option("--exclude-outside", is_flag=True, help="Leave out heads with a true angle beyond 90 degrees.")
@click.option("--max-angle", type=float, metavar="DEG", help="Leave out heads with a true angle beyond DEG.")
@click.option("--bootstrap", "over", type=click.Choice(["samples", "subjects", "sequences"]), default="samples",
              show_default=True, help="What is resampled.")  # fmt: skip
@click.option("--rounds", default=1000, show_default=True, help="Resamples.")
@click.option("--level", default=0.95, show_default=True, help="Level of the intervals.")
@click.option("--seed", default=0, show_default=True, help="Seed of the resamples.")
@click.option("-O", "--option", "chosen", multiple=True, metavar="METRIC.KEY=VALUE", help="As ubmae.unseen=smooth.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(
    first: Path, second: Path, manifest: Path | None, source: str | None, protocol: str | None,
    frames: str | None, protocol_seed: int, exclude_outside: bool,
    max_angle: float | None, over: str, rounds: int, level: float, seed: int, chosen: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """Compare FIRST and SECOND on the heads that both predict: differences, intervals and p-values.

    Exit code 0 whatever the outcome, 2 wrong input.
    """
    from ubhpd.scores.evaluate import EvaluationOptions, compare
    from ubhpd.scores.intervals import BootstrapOptions
    from ubhpd.scores.metric_cards import metric_options
    from ubhpd.scores.score_report import compare_text
    from ubhpd.scores.scoring import ScoreOptions

    options = EvaluationOptions(
        ScoreOptions(exclude_outside, metric_options(chosen)),
        BootstrapOptions(rounds, level, over, seed),
        source,
        protocol=protocol,
        max_angle_deg=max_angle,
        frames=frames,
        protocol_seed=protocol_seed,
    )
    result = compare(first, second, manifest, options).result
    click.echo(json.dumps(result, indent=2, ensure_ascii=False) if as_json else compare_text(result))
