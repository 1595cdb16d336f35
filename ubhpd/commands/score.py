"""`ubhpd score`: all metrics of a prediction file in one pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ubhpd.commands._evaluating import NO_INTERVALS, asked, evaluation_options

PATH = click.Path(path_type=Path)


@click.command(short_help="Score a prediction file with every metric.")
@click.argument("predictions", type=PATH)
@click.option(
    "--manifest",
    type=PATH,
    help="The truth: a manifest, or a build's folder (UBHPD if it is there, else the pool; with --protocol the "
    "manifest of the protocol). Default: the file's own columns, else the manifest that `ubhpd predict` made it from.",
)
@click.option(
    "--source",
    metavar="NAME|FILE",
    help="Training set for UBMAE: 300W-LP, a manifest (its training split), a protocol, counts, or none.",
)
@click.option("--pair", metavar="TRAIN:TEST", help="Add ubmae_printed for this reported pair, as 300W-LP:AFLW2000.")
@asked(
    "Score its test split, against its training split; see: ubhpd protocols.",
    "Add confidence intervals, resampling these.",
    over=NO_INTERVALS,
)
@click.option("--bins", is_flag=True, help="Print the table per bin, too.")
@click.option("--json", "json_out", metavar="FILE", help="Write the result as JSON; - for the screen instead of text.")
@click.option("--html", "html_out", type=PATH, help="Write one page with images.")
@click.option("--figures", type=PATH, help="Write the images to this folder, as PNG.")
@click.option(
    "--images",
    type=PATH,
    help="Root of the images of the worst heads; needs --manifest. Default: the raw data that build.json names.",
)
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def command(
    predictions: Path, manifest: Path | None, source: str | None, pair: str | None, bins: bool, json_out: str | None,
    html_out: Path | None, figures: Path | None, images: Path | None, quiet: bool, **chosen: Any,
) -> None:  # fmt: skip
    """Score PREDICTIONS (CSV or Parquet: sample_id and yaw,pitch,roll, or r00..r22, or qx,qy,qz,qw).

    Prints which truth is used, every metric with its unit, the coverage, what lies outside the bins, and what
    `ubhpd doctor` finds. UBMAE (equation 14) and the shots need --source. Exit code 0 good, 2 wrong input.
    """
    from ubhpd.core.errors import UbhpdError
    from ubhpd.core.files import replacing
    from ubhpd.evaluation.evaluate import evaluate
    from ubhpd.evaluation.report import score_html, score_text

    if images is not None and manifest is None:
        raise UbhpdError("--images needs --manifest: the manifest says which image belongs to which head.")
    options = evaluation_options(source, pair, chosen)
    evaluation = evaluate(predictions, manifest, options)
    as_json = json.dumps(evaluation.result, indent=2, ensure_ascii=False)
    if json_out and json_out != "-":
        with replacing(Path(json_out)) as part:
            part.write_text(as_json + "\n", encoding="utf-8")
    if html_out or figures or images:
        from ubhpd.evaluation.score_figures import score_figures, worst_heads

        drawn = score_figures(evaluation, options.score, manifest, images)
        if figures:
            figures.mkdir(parents=True, exist_ok=True)
            for name, png in drawn.items():
                (figures / f"{name.replace(' ', '_')}.png").write_bytes(png)
        if html_out:
            with replacing(html_out) as part:
                part.write_text(score_html(evaluation.result, drawn, worst_heads(evaluation)), encoding="utf-8")
    if json_out == "-":
        click.echo(as_json)
    elif not quiet:
        click.echo(score_text(evaluation.result, bins))
