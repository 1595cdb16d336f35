"""`ubhpd boxes`: the face boxes of heads, by a detector or from a file."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ubhpd.commands._options import Choice

PATH = click.Path(path_type=Path)


@click.command(short_help="Fill or replace the face boxes of a manifest.")
@click.argument("place", type=PATH, metavar="OUT")
@click.option("--from", "source", required=True, metavar="mtcnn|yunet|cascade|FILE",
              help="A face detector; or a file: CSV, Parquet, OPAL's biwi_ann.txt, headposeplus's .npz.")  # fmt: skip
@click.option("--out", type=PATH, required=True, help="Folder to write, or the Parquet file if OUT is a manifest.")
@click.option("--form", type=Choice(["auto", "xyxy", "xywh"]), default="auto", show_default=True,
              help="Boxes of a file: corners, or corner and size. auto: by the names of its columns.")  # fmt: skip
@click.option("--only-missing", is_flag=True, help="Leave heads alone that have a box.")
@click.option("--keep", is_flag=True, help="A head for which there is no new box keeps its own; else it has none.")
@click.option("--jobs", default=1, show_default=True, help="Processes for a detector; -1 for all cores.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    place: Path, source: str, out: Path, form: str, only_missing: bool, keep: bool, jobs: int, quiet: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Write the build OUT again with other face boxes; the old ones stay beside them.

    OUT is a build's folder, which is written as a folder of its own, with the pool, UBHPD and build.json: train,
    predict, export and bench take it in place of the first. Or it is one manifest. Every usable head is counted: with a
    new box, with its own, or without. An interrupted run resumes. Exit code 0 good, 2 wrong input.
    """
    from ubhpd.core.progress import Progress
    from ubhpd.images.boxes import BoxConfig, fill_boxes, fill_text

    config = BoxConfig(place, out, source, form, only_missing, keep, jobs)
    report = fill_boxes(config, Progress(show=not quiet and not as_json))
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2, ensure_ascii=False))
    elif not quiet:
        click.echo(fill_text(report))
