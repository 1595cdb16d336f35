"""`ubhpd validate`: compares a built pool, or raw data, with what was published."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ubhpd.commands._completion import complete_datasets
from ubhpd.core.errors import UbhpdError


@click.command(short_help="Compare a pool with the published counts.")
@click.argument("out", required=False, type=click.Path(path_type=Path))
@click.option("--data-root", envvar="UBHPD_DATA", metavar="DIR", help="Read the raw data here, instead of OUT.")
@click.option(
    "--sources",
    metavar="A,B,...",
    shell_complete=complete_datasets,
    help="Datasets to read; default: all that are found.",
)
@click.option("--check-images", is_flag=True, help="Decode every image.")
@click.option("--jobs", default=1, show_default=True, help="Processes; -1 for all cores.")
@click.option("--quiet", is_flag=True, help="Print nothing; see the exit code.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def command(
    ctx: click.Context, out: Path | None, data_root: str | None, sources: str | None, check_images: bool, jobs: int,
    quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Check counts against the published ones, pairs, readability and the pool itself.

    OUT is a manifest, or a build's folder; of a folder the pool is checked. Exit code 1 on findings.
    """
    from ubhpd.core.parallel import Engine
    from ubhpd.core.progress import Progress
    from ubhpd.pool.summary import validate_pool, validate_raw
    from ubhpd.reports.terminal import findings_text

    if out is not None:
        findings = validate_pool(out)
    elif data_root is not None:
        names = [s.strip() for s in sources.split(",")] if sources else None
        findings = validate_raw(data_root, names, check_images, Engine(jobs), Progress(not quiet and not as_json))
    else:
        raise UbhpdError("Nothing to validate: name the folder of a build, or give --data-root.")
    if as_json:
        click.echo(json.dumps([f._asdict() for f in findings], indent=2, ensure_ascii=False))
    elif not quiet:
        click.echo(findings_text(findings))
    ctx.exit(1 if findings else 0)
