"""`ubhpd build`: raw datasets to one pool manifest, and UBHPD sampled from it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from ubhpd.commands._completion import complete_datasets
from ubhpd.commands._options import Choice
from ubhpd.core.errors import UbhpdError, shortened
from ubhpd.core.parallel import BACKENDS


@click.command(short_help="Read raw datasets and sample UBHPD.")
@click.option(
    "--sources",
    required=True,
    metavar="A,B,...",
    shell_complete=complete_datasets,
    help="Datasets to read; see: ubhpd sources.",
)
@click.option("--data-root", envvar="UBHPD_DATA", metavar="DIR", help="Folder (or archive) to search for them.")
@click.option("--root", "roots", multiple=True, metavar="NAME=PATH", help="Where one dataset is; may be repeated.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
@click.option("-O", "--option", "options", multiple=True, metavar="NAME.KEY=VALUE", help="A mode, as biwi.frame=rgb.")
@click.option("--max-angle", default=99.0, show_default=True, help="Drop heads with an angle beyond it (degrees).")
@click.option("--check-images", is_flag=True, help="Decode every image instead of reading its header.")
@click.option("--pool-only", is_flag=True, help="Stop at the pool of all heads: no sampling, no split.")
@click.option("--size", default="25000", show_default=True, metavar="N|auto", help="Heads of UBHPD.")
@click.option(
    "--target",
    default="gaussian",
    show_default=True,
    metavar="gaussian|widest|uniform|joint|FILE",
    help="Density that yaw, pitch and roll follow. widest: for each angle the widest Gaussian that the pool allows. "
    "joint: as even over the joint cells of the three angles as the pool allows. A file holds 15 numbers, or 15 for "
    "each angle.",
)
@click.option(
    "--sigma",
    default="auto",
    show_default=True,
    metavar="DEG|auto",
    help="Width of the Gaussian; three, as 40,20,15 or auto,20,15, for yaw, pitch and roll.",
)
@click.option(
    "--seed", default=0, show_default=True, help="Seed of the choice among equally good heads, and of the split."
)
@click.option(
    "--mode",
    default="joint",
    show_default=True,
    type=Choice(["joint", "independent"]),
    help="independent: plain sampling by the three histograms, for comparison.",
)
@click.option(
    "--split",
    default="random",
    show_default=True,
    type=Choice(["random", "sequence", "subject"]),
    help="What the 70/30 split keeps together: nothing, a recording, a person.",
)
@click.option(
    "--exclude",
    metavar="A,B,...",
    shell_complete=complete_datasets,
    help="Datasets of the pool to leave out, to test on them.",
)
@click.option(
    "--drop-flagged", is_flag=True, help="Leave out heads that automatic checks flag, unless decided to keep."
)
@click.option("--decisions", type=click.Path(path_type=Path), help="CSV of heads to keep or drop; see: ubhpd review.")
@click.option(
    "--format",
    "form",
    type=Choice(["parquet", "hdf5"]),
    default="parquet",
    show_default=True,
    help="hdf5: write pool.h5 and ubhpd.h5 beside the Parquet files.",
)
@click.option("--jobs", default=1, show_default=True, help="Processes; -1 for all cores.")
@click.option(
    "--backend",
    type=Choice(BACKENDS),
    default="loky",
    show_default=True,
    help="How joblib runs work.",
)
@click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler, as tcp://host:8786.")
@click.option(
    "--shard",
    metavar="I/N",
    help="Read only the I-th of N shares, on machines that share OUT and the data; a build without it merges them.",
)
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    sources: str, data_root: str | None, roots: tuple[str, ...], out: Path, options: tuple[str, ...],
    max_angle: float, check_images: bool, pool_only: bool, size: str, target: str, sigma: str, seed: int, mode: str,
    split: str, exclude: str | None, decisions: Path | None, drop_flagged: bool, form: str, jobs: int, backend: str,
    scheduler: str | None, shard: str | None, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Read raw datasets into OUT/pool.parquet, and sample OUT/ubhpd.parquet from it.

    The pool has every head that was found, refused ones with their reason. UBHPD is a selection of its heads whose yaw,
    pitch and roll each follow the target density, divided into train and test. An interrupted build resumes. Exit code
    0 good, 2 wrong input, 130 or 143 interrupted.
    """
    from ubhpd.core.options import key_values, owner_key_values
    from ubhpd.core.parallel import Engine
    from ubhpd.core.progress import Progress
    from ubhpd.pipeline import run
    from ubhpd.pool.build import BuildConfig
    from ubhpd.reports.terminal import build_text
    from ubhpd.sampling.sampler import SamplingConfig
    from ubhpd.sampling.ubhpd import UnbiasedConfig, unbiased_text

    config = BuildConfig(
        sources=tuple(_names(sources)),
        out=out,
        data_root=data_root,
        roots=key_values(roots, "NAME=VALUE", "--root"),
        options=owner_key_values(options, "DATASET.KEY=VALUE", "--option", "biwi.frame=rgb"),
        max_angle_deg=max_angle,
        check_images=check_images,
        hdf5=form == "hdf5",
        shard=_shard(shard) if shard else None,
    )
    sampling = SamplingConfig(
        "auto" if size == "auto" else _whole(size, "--size"), target,
        _sigma(sigma), seed, mode,
    )  # fmt: skip
    unbiased_config = UnbiasedConfig(
        sampling, split, exclude=tuple(_names(exclude)), decisions=decisions, drop_flagged=drop_flagged
    )
    unbiased = None if pool_only else unbiased_config
    made = run(config, unbiased, Engine(jobs, backend, scheduler), Progress(show=not quiet and not as_json))
    if as_json:
        click.echo(json.dumps(made.as_dict(), indent=2, ensure_ascii=False))
    elif not quiet:
        click.echo(build_text(made.pool, out, config.shard))
        if made.unbiased is not None and made.audit is not None:
            click.echo(unbiased_text(made.unbiased, made.audit, out))


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _whole(text: str, option: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise UbhpdError(f"{option} is {shortened(text)}: give a whole number, or auto.")
    return int(text)


def _sigma(text: str) -> Any:
    sigmas = tuple("auto" if s.strip() == "auto" else _number(s, "--sigma") for s in text.split(","))
    return sigmas[0] if len(sigmas) == 1 else sigmas


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UbhpdError(f"{option} is {shortened(text)}: give a number, or auto.") from None


def _shard(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not re.fullmatch(r"[0-9]{1,9}/[0-9]{1,9}", text):
        raise UbhpdError(f"--shard {shortened(text)} is not of the form I/N, as 2/8.")
    return int(number), int(count)
