"""`ubhpd build`: the raw datasets into one pool manifest."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ubhpd.errors import UbhpdError


@click.command()
@click.option("--sources", required=True, metavar="A,B,...", help="Datasets to read; see: ubhpd sources.")
@click.option("--data-root", envvar="UBHPD_DATA", metavar="DIR", help="Folder (or archive) to search for them.")
@click.option("--root", "roots", multiple=True, metavar="NAME=PATH", help="Where one dataset is; may be repeated.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
@click.option("-O", "--option", "options", multiple=True, metavar="NAME.KEY=VALUE", help="A mode, as biwi.frame=rgb.")
@click.option("--max-angle", default=99.0, show_default=True, help="Drop heads with an angle beyond it (degrees).")
@click.option("--check-images", is_flag=True, help="Decode every picture instead of reading its header.")
@click.option("--format", "form", type=click.Choice(["parquet", "hdf5"]), default="parquet", show_default=True,
              help="hdf5: write pool.h5 beside pool.parquet.")  # fmt: skip
@click.option("--jobs", default=1, show_default=True, help="Processes; -1 for all cores.")
@click.option("--backend", default="loky", show_default=True, help="joblib backend: loky, multiprocessing, dask, ray.")
@click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler, as tcp://host:8786.")
@click.option("--shard", metavar="I/N", help="Read only the I-th of N shares; a build without it merges them.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    sources: str, data_root: str | None, roots: tuple[str, ...], out: Path, options: tuple[str, ...],
    max_angle: float, check_images: bool, form: str, jobs: int, backend: str, scheduler: str | None,
    shard: str | None, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Read raw datasets into OUT/pool.parquet, every head found and every head refused with its reason."""
    from ubhpd.build import BuildConfig, build
    from ubhpd.progress import Progress
    from ubhpd.report import build_text
    from ubhpd.workers import Engine

    config = BuildConfig(
        sources=tuple(s.strip() for s in sources.split(",") if s.strip()),
        out=out,
        data_root=data_root,
        roots=dict(_pair(r, "--root") for r in roots),
        options=_nested(options),
        max_angle_deg=max_angle,
        check_images=check_images,
        hdf5=form == "hdf5",
        shard=_shard(shard) if shard else None,
    )
    report = build(config, Engine(jobs, backend, scheduler), Progress(show=not quiet and not as_json))
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2, ensure_ascii=False))
    elif not quiet:
        click.echo(build_text(report, out, config.shard))


def _pair(text: str, option: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise UbhpdError(f"{option} {text!r} is not of the form NAME=VALUE.")
    return key.strip(), value


def _nested(options: tuple[str, ...]) -> dict[str, dict[str, str]]:
    nested: dict[str, dict[str, str]] = {}
    for text in options:
        key, value = _pair(text, "--option")
        dataset, dot, name = key.partition(".")
        if not (dataset and dot and name):
            raise UbhpdError(f"--option {text!r} is not of the form DATASET.KEY=VALUE, as biwi.frame=rgb.")
        nested.setdefault(dataset, {})[name] = value
    return nested


def _shard(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdigit() and count.isdigit()):
        raise UbhpdError(f"--shard {text!r} is not of the form I/N, as 2/8.")
    return int(number), int(count)
