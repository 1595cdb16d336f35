"""`ubhpd audit`: what leaks from train to test."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ubhpd.commands._options import Renamed

PATH = click.Path(path_type=Path)


@click.command(short_help="Count what the train and test splits share.")
@click.argument("out", type=PATH)
@click.option("--test", type=PATH, help="The test set, a manifest of its own; OUT then is the train set.")
@click.option(
    "--images",
    "--pictures",
    "images",
    cls=Renamed,
    is_flag=True,
    help="Compare the images, too: takes minutes, and resumes if interrupted.",
)
@click.option("--frames", default=5, show_default=True, help="Frames so far apart still are neighbours.")
@click.option("--bits", default=6, show_default=True, help="Bits, of 64, in which hashes of like images may differ.")
@click.option("--list", "list_to", type=PATH, metavar="FILE.csv", help="Write the leaking pairs to this file.")
@click.option("--jobs", default=1, show_default=True, help="Processes for --images; -1 for all cores.")
@click.option("--quiet", is_flag=True, help="Print nothing; the exit code tells.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def command(
    ctx: click.Context, out: Path, test: Path | None, images: bool, frames: int, bits: int, list_to: Path | None,
    jobs: int, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Find what train and test of OUT share.

    OUT is a manifest with a split, or a build's folder; of a folder UBHPD is read.

    Looks for the same person, recording, neighbouring frames, mirror images, renderings of one photograph, and
    with --images for equal or nearly equal images. Exit code 0 nothing shared, 1 leakage, 2 wrong input.
    """
    from ubhpd.core.progress import Progress
    from ubhpd.quality.audit import AuditOptions, audit_places, audit_text, write_list

    progress = Progress(not quiet and not as_json)
    report = audit_places(out, test, AuditOptions(frames, bits), images, jobs, progress)
    if list_to is not None:
        write_list(report, list_to)
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2, ensure_ascii=False))
    elif not quiet:
        click.echo(audit_text(report))
        if list_to is not None:
            click.echo(f"Wrote {list_to}")
    ctx.exit(1 if report.has_leaks else 0)
