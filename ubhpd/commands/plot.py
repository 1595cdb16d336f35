"""`ubhpd plot`: figures of what a build wrote. One subcommand per kind of figure."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ubhpd.commands._options import Choice, Renamed, Subcommands


@click.group(cls=Subcommands, short_help="Draw figures as PNG, SVG or PDF.")
def command() -> None:
    """Draw figures as PNG, SVG or PDF. Exit code 0 good, 2 wrong input."""


@command.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--figures", default="density,joint,overlay", show_default=True, metavar="A,B,...", help="What to draw.")
@click.option("--out", "folder", type=click.Path(path_type=Path), help="Folder to write to; default: OUT/figures.")
@click.option(
    "--format", "formats", multiple=True, default=("png", "svg"), show_default=True,
    type=Choice(["png", "svg", "pdf"]), help="Format; may be given several times.",
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
    "--image",
    "--picture",
    "image",
    cls=Renamed,
    type=click.Path(path_type=Path),
    required=True,
    help="An image with a face.",
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


@command.command()
@click.option("--weights", type=click.Path(path_type=Path), required=True, help="A checkpoint of an FSA-Net.")
@click.option("--image", type=click.Path(path_type=Path), required=True, help="An image with a face.")
@click.option("--detector", default="auto", show_default=True, help="Finds the face: auto, mtcnn, cascade, none.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The figure, .png, .svg or .pdf.")
def structure(weights: Path, image: Path, detector: str, out: Path) -> None:
    """Draw the fine-grained structures that a network makes of a face (FSA-Net, figure 5)."""
    from ubhpd.images import detectors
    from ubhpd.inference.facial_graph import structure_maps
    from ubhpd.reports import figures as figure_style
    from ubhpd.reports.figures import draw_structures

    found = structure_maps(weights, image, detectors.detector(detector))
    click.echo(figure_style.save(draw_structures(found.image, found.maps, found.scorings), out))


@command.command()
@click.option(
    "--weights", type=click.Path(path_type=Path), required=True, multiple=True,
    help="A checkpoint; several, one option each, are columns side by side.",
)  # fmt: skip
@click.option(
    "--image", "images", type=click.Path(path_type=Path), required=True, multiple=True,
    help="An image with a face; several, one option each, are rows.",
)  # fmt: skip
@click.option(
    "--angle", default="all", show_default=True, help="Which angle the regions decide: yaw, pitch, roll, all."
)
@click.option("--detector", default="auto", show_default=True, help="Finds the face: auto, mtcnn, cascade, none.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The figure, .png, .svg or .pdf.")
def cam(weights: tuple[Path, ...], images: tuple[Path, ...], angle: str, detector: str, out: Path) -> None:
    """Draw the regions of a face that decide its pose, by Grad-CAM (DADL, figure 10)."""
    from ubhpd.images import detectors
    from ubhpd.inference.facial_graph import activation_map
    from ubhpd.models import checkpoint
    from ubhpd.reports import figures as figure_style
    from ubhpd.reports.figures import draw_activations

    finder = detectors.detector(detector)
    rows = []
    for image in images:
        found = [activation_map(own, image, finder, angle.lower()) for own in weights]
        rows.append([(found[0].image, None), *((f.image, f.share) for f in found)])
    titles = ["image", *(checkpoint.read_about(own).model for own in weights)]
    click.echo(figure_style.save(draw_activations(rows, titles), out))


@command.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--dataset", default="aflw2000", show_default=True, help="Whose heads; they need 68 landmarks.")
@click.option("--heads", default=500, show_default=True, help="How many, at equal distances; 0 for all.")
@click.option("--seed", default=0, show_default=True, help="Of the noise.")
@click.option("--estimated", type=click.Path(path_type=Path), metavar="FILE",
              help="Manifest with landmarks of a detector for these heads, from ubhpd landmarks --all.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), required=True,
              help="The figure, .png, .svg or .pdf; its numbers are written beside it, .json.")  # fmt: skip
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def landmarks(data: Path, dataset: str, heads: int, seed: int, estimated: Path | None, out: Path, quiet: bool) -> None:
    """Draw what makes pose from landmarks wrong: number, noise, another face (Hopenet, figures 3 to 6).

    DATA is a manifest or the folder of a build.
    """
    from ubhpd.core.progress import Progress
    from ubhpd.experiments.landmark_study import StudyRequest, landmark_study, study_text
    from ubhpd.reports import figures as figure_style
    from ubhpd.reports.figures import draw_landmark_study

    request = StudyRequest(data, dataset, heads, seed, estimated)
    study = landmark_study(request, Progress(show=not quiet), out.with_suffix(".json"))
    path = figure_style.save(draw_landmark_study(study.points), out)
    if not quiet:
        click.echo(f"{study_text(study)}\n{path}")


@command.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--weights", type=click.Path(path_type=Path), help="A checkpoint whose features count. Default: pixels.")
@click.option("--dataset", metavar="NAME", help="Only its heads. Default: all.")
@click.option("--bin", "bin_deg", default=6.0, show_default=True, help="Width of a bin in degrees.")
@click.option("--near", "near_deg", default=15.0, show_default=True,
              help="How far from 0 degrees the other two angles may be.")  # fmt: skip
@click.option("--heads", default=50, show_default=True, help="At most so many heads of a bin.")
@click.option("--out", type=click.Path(path_type=Path), required=True,
              help="The figure, .png, .svg or .pdf; its numbers are written beside it, .json.")  # fmt: skip
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def similarity(
    data: Path, weights: Path | None, dataset: str | None, bin_deg: float, near_deg: float, heads: int, out: Path,
    quiet: bool,
) -> None:  # fmt: skip
    """Draw how alike heads look as they turn, by each angle (DADL, figures 1, 4 and 5).

    DATA is a manifest or the folder of a build.
    """
    from ubhpd.core.files import write_json
    from ubhpd.core.progress import Progress
    from ubhpd.inference.similarity import SimilarityRequest
    from ubhpd.inference.similarity import similarity as measured
    from ubhpd.reports import figures as figure_style
    from ubhpd.reports.figures import draw_similarity

    request = SimilarityRequest(data, weights, dataset, bin_deg, near_deg, heads)
    found = measured(request, Progress(show=not quiet))
    write_json(found.as_dict(), out.with_suffix(".json"))
    path = figure_style.save(draw_similarity(found.curves), out)
    if not quiet:
        for own in found.curves:
            click.echo(
                f"{own.angle}: mu {own.mu_deg:+.1f}, sigma {own.sigma_deg:.1f} degrees, {sum(own.heads):,} heads"
            )
        click.echo(str(path))
