"""`ubhpd plot`: figures of what a build wrote. One subcommand per kind of figure."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.group(short_help="Draw figures as PNG, SVG or PDF.")
def command() -> None:
    """Draw figures as PNG, SVG or PDF."""


@command.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--figures", default="density,joint,overlay", show_default=True, metavar="A,B,...", help="What to draw.")
@click.option("--out", "folder", type=click.Path(path_type=Path), help="Folder to write to; default: OUT/figures.")
@click.option(
    "--format", "formats", multiple=True, default=("png", "svg"), show_default=True,
    type=click.Choice(["png", "svg", "pdf"]), help="Format; may be given several times.",
)  # fmt: skip
@click.option(
    "--target", metavar="SIGMA|uniform|FILE", help="Density to draw as a line; default: that of OUT/build.json, if any."
)
@click.option("--quiet", is_flag=True, help="Print nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the paths as JSON.")
def density(
    out: Path, figures: str, folder: Path | None, formats: tuple[str, ...], target: str | None, quiet: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Draw the densities in OUT: a build's folder (pool and UBHPD), or one manifest.

    Figures: density (per angle, a column per dataset and UBHPD last), joint (two angles at a time, before and
    after) and overlay (per angle, before and after on top of each other). densities.csv holds the numbers.
    """
    from ubhpd.reports.figures import write

    written = write(out, [f.strip() for f in figures.split(",") if f.strip()], folder, formats, target)
    if as_json:
        click.echo(json.dumps([str(p) for p in written], indent=2, ensure_ascii=False))
    elif not quiet:
        click.echo("\n".join(map(str, written)))


@command.command()
@click.option("--weights", type=click.Path(path_type=Path), required=True, help="A checkpoint of an OsGG-Net.")
@click.option(
    "--image", "--picture", "image", type=click.Path(path_type=Path), required=True, help="An image with a face."
)
@click.option("--detector", default="auto", show_default=True, help="Finds the face: auto, mtcnn, cascade, none.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The figure, .png, .svg or .pdf.")
def graph(weights: Path, image: Path, detector: str, out: Path) -> None:
    """Draw the landmark graph that a network generates for a face (OsGG-Net, figure 5)."""
    from ubhpd.images import detectors
    from ubhpd.inference.facial_graph import facial_graph
    from ubhpd.reports import figures as figure_style
    from ubhpd.reports.figures import draw_graph

    found = facial_graph(weights, image, detectors.detector(detector))
    click.echo(figure_style.save(draw_graph(found.image, found.nodes_xy, found.weights), out))
