"""`ubhpd stress`: how a model's error rises when its input gets worse."""

from __future__ import annotations

from pathlib import Path

import click

from ubhpd.commands._completion import complete_io_file, complete_recipe
from ubhpd.commands._options import Choice

PATH = click.Path(path_type=Path)


@click.command(short_help="Measure how a model's error rises under perturbations.")
@click.option("--weights", type=PATH, help="A checkpoint of ubhpd; see: ubhpd weights.")
@click.option("--onnx", type=PATH, multiple=True, metavar="FILE", help="A model of others, as for ubhpd predict.")
@click.option("--io", metavar="FILE|NAME", shell_complete=complete_io_file, help="Its IO file, as for ubhpd predict.")
@click.option("--python", metavar="MODULE:FUNCTION", help="A function on crops, as for ubhpd predict.")
@click.option("--crop", metavar="RECIPE", shell_complete=complete_recipe, help="Another crop than the model's own.")
@click.option("--manifest", type=PATH, required=True, help="Labelled heads: a manifest, or a build's folder.")
@click.option("--split", metavar="NAME", help="Of the manifest only this split, as test.")
@click.option("--heads", default=300, show_default=True, help="How many heads, at equal distances; 0 for all.")
@click.option("--kinds", metavar="A,B,...", help="Only these perturbations. Default: all.")
@click.option("--seed", default=0, show_default=True, help="Of random directions, noise and patches.")
@click.option("--out", type=PATH, required=True, help="The JSON file; ubhpd submit --stress takes it.")
@click.option("--figure", type=PATH, metavar="FILE.png", help="Draw the curves.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1; auto takes a GPU if there is.")
@click.option("--engine", type=Choice(["auto", "torch", "onnx", "openvino"]), default="auto", show_default=True,
              help="What runs a checkpoint's network; auto: onnxruntime, if it is installed, for 500 heads or more "
              "on a CPU.")  # fmt: skip
@click.option("--threads", default=0, help="For reading images. Default: one per core.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def command(
    weights: Path | None, onnx: tuple[Path, ...], io: str | None, python: str | None, crop: str | None,
    manifest: Path, split: str | None, heads: int, kinds: str | None, seed: int, out: Path, figure: Path | None,
    device: str, engine: str, threads: int, quiet: bool,
) -> None:  # fmt: skip
    """Predict the heads of a manifest under box shifts and scales, in-plane rotation, low resolution, JPEG artefacts,
    blur, noise, brightness, patches and mirroring.

    The stress of a model is the mean rise of its geodesic error over the fixed set of perturbations stress-1. An
    interrupted call resumes. Exit code 0 good, 2 wrong input.
    """
    from ubhpd.core.progress import Progress
    from ubhpd.core.text import table
    from ubhpd.experiments.stress import SET, StressRequest, figure_of, stress
    from ubhpd.inference.predicting import Request

    model = Request(weights, out, manifest=manifest, split=split, device=device, threads=threads, onnx=onnx, io=io,
                    crop=crop, python=python, engine=engine)  # fmt: skip
    chosen = tuple(k.strip() for k in (kinds or "").split(",") if k.strip())
    report = stress(StressRequest(model, out, heads, seed, chosen), Progress(show=not quiet))
    if figure is not None:
        figure_of(report).savefig(figure)
    if quiet:
        return
    rows = [["perturbation", "amount", "MAE", "geodesic error", "heads"]]
    rows += [[c.kind, f"{c.amount:g}", f"{c.mae:.2f}", f"{c.geodesic:.2f}", f"{c.heads:,}"] for c in report.conditions]
    click.echo(table(rows))
    if report.mirror_deg is not None:
        click.echo(
            f"Predictions of mirrored images differ from mirrored predictions by {report.mirror_deg:.2f} degrees."
        )
    if report.rise_deg is not None:
        click.echo(f"Stress: the geodesic error rises by {report.rise_deg:.2f} degrees on average over the set {SET}.")
    click.echo(f"Wrote {out}" + (f" and {figure}" if figure else ""))
