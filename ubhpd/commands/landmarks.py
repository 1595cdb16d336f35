"""`ubhpd landmarks`: the 68 landmarks of heads that have none, by dlib, by FAN or from a file."""

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
    help="The manifest with build.json beside it, or a build's folder: its pool; with --out UBHPD if it is there.",
)
@click.option("--out", type=PATH, help="The manifest to write, Parquet; best in the same folder. Default: "
              "landmarks.parquet there, which ubhpd train and bench use by themselves.")  # fmt: skip
@click.option("--from", "source", default="dlib", show_default=True, metavar="dlib|fan|projected|FILE",
              help="dlib's model; FAN by the package face-alignment; the points that 300W-LP has of its warped faces; "
              "or CSV or Parquet with sample_id, x0, y0 to x67, y67 in pixels.")  # fmt: skip
@click.option("--only-missing/--all", default=True, show_default=True,
              help="Keep landmarks of the head's own image that are there, or none.")  # fmt: skip
@click.option("--detector", default="auto", show_default=True,
              help="Finds the faces for dlib, FAN: auto, mtcnn, cascade; none takes the heads' own boxes.")  # fmt: skip
@click.option("--jobs", default=1, show_default=True, help="Processes for dlib and FAN; -1 for all cores.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    manifest: Path,
    out: Path | None,
    source: str,
    only_missing: bool,
    detector: str,
    jobs: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write MANIFEST again with the 68 landmarks of its usable heads filled; nothing else changes.

    Landmarks of the photograph behind a warped image of 300W-LP count as missing. A head for which there are none ends
    without, or with those of its photograph, and is counted. An interrupted run resumes where it stopped. Exit code
    0 good, 2 wrong input.
    """
    from ubhpd.core.progress import Progress
    from ubhpd.images.landmarks import PROJECTED, FillConfig, fill_landmarks, fill_text

    own_file = None if source in ("dlib", "fan", PROJECTED) else Path(source)
    config = FillConfig(manifest, out, own_file, only_missing, detector, jobs, source == PROJECTED, source == "fan")
    report = fill_landmarks(config, Progress(show=not quiet and not as_json))
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2, ensure_ascii=False))
    elif not quiet:
        click.echo(fill_text(report))
