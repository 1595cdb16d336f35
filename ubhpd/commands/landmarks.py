"""`ubhpd landmarks`: the 68 landmarks of heads that have none, by dlib or from a file."""

from __future__ import annotations

import json
from pathlib import Path

import click

PATH = click.Path(path_type=Path)


@click.command(short_help="Add 68 landmarks to the heads of a manifest.")
@click.option(
    "--manifest",
    type=PATH,
    required=True,
    help="The manifest with build.json beside it, or a build's folder: UBHPD if it is there, else the pool.",
)
@click.option("--out", type=PATH, required=True, help="The manifest to write, Parquet; best in the same folder.")
@click.option("--from", "source", default="dlib", show_default=True, metavar="dlib|FILE",
              help="dlib's model, or CSV or Parquet with sample_id, x0, y0 to x67, y67 in pixels.")  # fmt: skip
@click.option("--only-missing/--all", default=True, show_default=True, help="Keep landmarks that are there, or none.")
@click.option("--detector", default="auto", show_default=True,
              help="Finds the faces for dlib: auto, mtcnn, cascade; none takes the heads' own boxes.")  # fmt: skip
@click.option("--jobs", default=1, show_default=True, help="Processes for dlib; -1 for all cores.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    manifest: Path, out: Path, source: str, only_missing: bool, detector: str, jobs: int, quiet: bool, as_json: bool
) -> None:
    """Write MANIFEST again with the 68 landmarks of its usable heads filled; nothing else changes.

    A head for which there are none ends without, and is counted. An interrupted run resumes where it stopped. Exit code
    0 good, 2 wrong input.
    """
    from ubhpd.core.progress import Progress
    from ubhpd.images.landmarks import FillConfig, fill_landmarks, fill_text

    own_file = None if source == "dlib" else Path(source)
    config = FillConfig(manifest, out, own_file, only_missing, detector, jobs)
    report = fill_landmarks(config, Progress(show=not quiet and not as_json))
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2, ensure_ascii=False))
    elif not quiet:
        click.echo(fill_text(report))
