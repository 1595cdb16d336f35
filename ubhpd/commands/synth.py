"""`ubhpd synth`: raw datasets of rendered heads of known pose, or heads for the poses that real data lacks."""

from __future__ import annotations

from pathlib import Path

import click

from ubhpd.commands._completion import complete_datasets
from ubhpd.commands._options import Choice
from ubhpd.core.errors import UbhpdError


@click.command(short_help="Render raw datasets of synthetic heads.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write to: new, or begun before.")
@click.option(
    "--sources",
    metavar="A,B,...",
    shell_complete=complete_datasets,
    help="Datasets whose layout to write: biwi, aflw, aflw2000, 300wlp, ...",
)
@click.option("--heads", type=int, default=100, show_default=True, help="Images of each; 300W-LP mirrors them besides.")
@click.option("--fill", type=Choice(["rare"]), help="Write heads for the bins that --pool leaves thin, instead.")
@click.option(
    "--pool", type=click.Path(path_type=Path), help="With --fill: the pool.parquet of a build, or its folder."
)
@click.option("--per-bin", type=int, default=100, show_default=True, help="With --fill: heads a bin shall have.")
@click.option("--size", type=int, help="Side of face images in pixels; default: as in the original.")
@click.option("--seed", default=0, show_default=True, help="Which people, poses and scenes; seeds share no face.")
@click.option("--jobs", default=1, show_default=True, help="Processes; -1 for all cores.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def command(
    out: Path, sources: str | None, heads: int, fill: str | None, pool: Path | None, per_bin: int, size: int | None,
    seed: int, jobs: int, quiet: bool,
) -> None:  # fmt: skip
    """Render heads of exactly known pose into OUT, in the true layouts of the datasets.

    The same command again finishes what was interrupted; the same seed gives the same files. OUT/truth.csv has the
    poses. With --fill rare: heads in the layout of SynHead for the 12-degree bins of yaw, pitch and roll that have
    fewer than --per-bin real heads in --pool; ubhpd build reads them as source synhead, marked synthetic.
    Exit code 0 good, 2 wrong input.
    """
    from ubhpd.core.parallel import Engine
    from ubhpd.core.progress import Progress

    Engine(jobs).check()
    progress = Progress(not quiet)
    if fill:
        from ubhpd.synth.synthesize import FillConfig
        from ubhpd.synth.synthesize import fill as fill_bins

        if pool is None:
            raise UbhpdError("--fill needs the heads that are there: add --pool OUT/pool.parquet.")
        if sources:
            raise UbhpdError("--fill writes the layout of SynHead alone: leave --sources out.")
        made = fill_bins(FillConfig(str(pool), per_bin, size, seed), out, jobs, progress)
        thin = int((made.before < per_bin).sum())
        text = f"{thin} of {made.before.size} bins have fewer than {per_bin} real heads: drew {made.heads:,} for them."
        if not quiet:
            click.echo(text + (f" Read them with: ubhpd build --sources synhead --data-root {out}" if thin else ""))
        return
    from ubhpd.synth.synthesize import SynthConfig, write_sources

    if not sources:
        raise UbhpdError("Nothing to write: give --sources, for example --sources biwi,aflw,300wlp, or --fill rare.")
    names = tuple(dict.fromkeys(name.strip() for name in sources.split(",") if name.strip()))
    counts = write_sources(SynthConfig(names, heads, size, seed), out, jobs, progress)
    if not quiet:
        for name, count in counts.items():
            click.echo(f"{name}: {count:,} heads")
        click.echo(f"Their poses: {out / 'truth.csv'}. Read them with: ubhpd sources --data-root {out}")
