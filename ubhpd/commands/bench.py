"""`ubhpd bench`: train, predict and score models on protocols, one result file per run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from ubhpd.commands._completion import complete_protocols, complete_runnable_models
from ubhpd.core.errors import UbhpdError

PATH = click.Path(path_type=Path)


@click.command(short_help="Train and evaluate models on protocols.")
@click.option(
    "--models", required=True, metavar="A,B,...", shell_complete=complete_runnable_models, help="See: ubhpd models."
)
@click.option("--protocols", required=True, metavar="A,B,...", shell_complete=complete_protocols,
              help="1, 2, 3 or cross as papers call them, or ids: see ubhpd protocols.")  # fmt: skip
@click.option("--seeds", default="0", show_default=True, metavar="0,1,...", help="A run for each, of what is trained.")
@click.option("--data", type=PATH, required=True, metavar="OUT", help="The folder that ubhpd build wrote to.")
@click.option("--out", type=PATH, required=True, metavar="RESULTS", help="Folder of results, predictions and weights.")
@click.option("-O", "chosen", multiple=True, metavar="MODEL.KEY=VALUE", help="Option of a model, as hopenet.alpha=2.")
@click.option("--weights", multiple=True, metavar="MODEL=FILE",
              help="Published weights: MODEL is not trained. Again for each file of a model.")  # fmt: skip
@click.option(
    "--backbone", type=PATH, metavar="FILE", help="Published weights that training starts with, as ImageNet's."
)
@click.option("--epochs", type=int, help="How long to train. Default: the model's own recipe.")
@click.option("--steps", type=int, help="How long to train, in steps. Default: the model's own recipe.")
@click.option("--batch-size", type=int, help="Heads per step. Default: the model's own recipe.")
@click.option("--lr", type=float, help="Learning rate. Default: the model's own recipe.")
@click.option("--optimizer", help="Optimiser; choices as in ubhpd train --help.")
@click.option("--schedule", help="Learning-rate schedule; choices as in ubhpd train --help.")
@click.option("--precision", help="Bits of floating-point numbers: 32, 16 or bf16.")
@click.option("--balance", help="Make up for uneven poses.")
@click.option("--validation", type=float, help="Share of the training heads that is held out.")
@click.option("--select", help="Keep the best epoch or the last.")
@click.option("--frames", type=PATH, metavar="FILE", help="List of frames, for a protocol that needs one.")
@click.option("--protocol-seed", default=0, show_default=True, help="For a protocol that divides one dataset.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1; auto takes a GPU if there is.")
@click.option("--workers", default=0, help="For reading images. Default: one per core.")
@click.option(
    "--speed", type=click.IntRange(min=1), metavar="BATCH", help="Measure heads per second at this batch size."
)
@click.option("--cache", type=PATH, metavar="DIR", help="Where crops are kept. Default: OUT/work/crops.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.pass_context
def command(
    ctx: click.Context, models: str, protocols: str, seeds: str, data: Path, out: Path, chosen: tuple[str, ...],
    weights: tuple[str, ...], backbone: Path | None, epochs: int | None, steps: int | None, batch_size: int | None,
    lr: float | None, optimizer: str | None, schedule: str | None, precision: str | None, balance: str | None,
    validation: float | None, select: str | None, frames: Path | None, protocol_seed: int, device: str, workers: int,
    speed: int | None, cache: Path | None, quiet: bool,
) -> None:  # fmt: skip
    """Train every model under every protocol with every seed, predict the test split, score it, write RESULTS.

    A run that is done and whose inputs have not changed is kept; the same command resumes after an interruption. A
    run that fails is told, and the others go on. Exit code 0 good, 1 if a run failed, 2 wrong input.
    """
    from ubhpd.core.progress import Progress, log_shown
    from ubhpd.experiments.benchmark import bench
    from ubhpd.experiments.plan import BenchRequest, HowToTrain

    request = BenchRequest(
        models=_names(models),
        protocols=_names(protocols),
        data=data,
        out=out,
        seeds=_numbers(seeds),
        options=_options(chosen),
        weights=_files(weights),
        train=HowToTrain(
            epochs=epochs,
            steps=steps,
            batch_size=batch_size,
            lr=lr,
            precision=precision,
            balance=balance,
            optimizer=optimizer,
            schedule=schedule,
            validation=validation,
            select=select,
            backbone=backbone,
        ),
        frames=frames,
        protocol_seed=protocol_seed,
        device=device,
        workers=workers,
        speed=speed,
        cache=cache,
    )
    with log_shown(not quiet):
        report = bench(request, Progress(show=not quiet))
    for name, reason in report.failed if quiet else ():
        click.echo(f"{name} failed: {reason}", err=True)
    if not quiet:
        failed = f", {len(report.failed)} failed" if report.failed else ""
        click.echo(f"{len(report.written)} results written, {len(report.kept)} kept from before{failed}.")
        click.echo(f"See: ubhpd leaderboard {out}")
    ctx.exit(1 if report.failed else 0)


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, _names(text)))
    except ValueError:
        raise UbhpdError(f"--seeds {text!r} is not a list of whole numbers: write them as 0,1,2.") from None


def _options(texts: Iterable[str]) -> dict[str, dict[str, str]]:
    from ubhpd.core.options import owner_key_values

    return owner_key_values(texts, "MODEL.KEY=VALUE", "-O", "hopenet.alpha=2")


def _files(texts: Iterable[str]) -> dict[str, tuple[Path, ...]]:
    from ubhpd.core.options import key_value

    files: dict[str, tuple[Path, ...]] = {}
    for text in texts:
        model, file = key_value(text, "MODEL=FILE", "--weights")
        files[model] = (*files.get(model, ()), Path(file))
    return files
