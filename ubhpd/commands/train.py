"""`ubhpd train`: a model's weights from the heads of a build."""

from __future__ import annotations

from pathlib import Path

import click

from ubhpd.commands._completion import complete_protocol, complete_runnable_model
from ubhpd.commands._options import Choice
from ubhpd.training.request import BALANCES, OPTIMIZERS, PRECISIONS, SCHEDULES, SELECTIONS

PATH = click.Path(path_type=Path)


@click.command(short_help="Train a model on the heads of a build.")
@click.option(
    "--model", required=True, metavar="NAME", shell_complete=complete_runnable_model, help="See: ubhpd models."
)
@click.option(
    "--data",
    type=PATH,
    required=True,
    metavar="OUT",
    help="Folder of a build: UBHPD's split train, or with --protocol its training heads.",
)
@click.option("--out", type=PATH, required=True, metavar="RUN", help="Folder of this run: weights, log, report.")
@click.option(
    "--protocol",
    metavar="ID",
    shell_complete=complete_protocol,
    help="Train on its training split. Default: the split train of UBHPD.",
)
@click.option("--frames", "frame_list", type=PATH, metavar="FILE", help="Frame list, for protocols that need one.")
@click.option("--protocol-seed", default=0, help="Seed of a protocol that divides one set of heads.")
@click.option("-O", "chosen", multiple=True, metavar="KEY=VALUE", help="Option of the model, as size=64.")
@click.option("--epochs", type=int, help="How long to train. Default: as the paper.")
@click.option("--steps", type=int, help="How long to train, in steps of the optimiser.")
@click.option("--batch-size", type=int, help="Heads per step, of all processes together. Default: as the paper.")
@click.option("--lr", type=float, help="Learning rate. Default: as the paper.")
@click.option("--optimizer", type=Choice(OPTIMIZERS), help="Default: as the paper.")
@click.option("--schedule", type=Choice(SCHEDULES), help="Learning-rate schedule. Default: as the paper.")
@click.option("--weight-decay", type=float, help="Default: as the paper.")
@click.option("--recipe", "-R", "recipe", multiple=True, metavar="KEY=VALUE",
              help="Any other value of the paper's recipe, as momentum=0.9 or augmentations=flip,blur; see: ubhpd "
              "models NAME.")  # fmt: skip
@click.option("--as-paper", is_flag=True,
              help="Hold no heads out and keep the last epoch, as papers do. Other options still count.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Seed of weights, order, augmentation and dropout.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1; auto takes a GPU if there is.")
@click.option(
    "--precision",
    type=Choice(PRECISIONS),
    default="32",
    show_default=True,
    help="Bits of floating-point numbers.",
)
@click.option("--channels-last/--channels-first", default=True, show_default=True, help="Memory order of images.")
@click.option("--compile", "compiled", is_flag=True, help="Compile the network first.")
@click.option("--workers", default=0, help="Threads that prepare images. Default: up to 4.")
@click.option("--balance", type=Choice(BALANCES), default="none", show_default=True,
              help="Make up for uneven poses: draw rare ones more often, or weight them in the loss.")  # fmt: skip
@click.option("--validation", type=float,
              help="Share of the training heads that is held out. Default: 0.1, with --as-paper 0.")  # fmt: skip
@click.option("--select", type=Choice(SELECTIONS),
              help="Keep the epoch that is best on the heads held out, or the last. Default: best, with --as-paper "
              "last.")  # fmt: skip
@click.option(
    "--backbone",
    type=PATH,
    metavar="FILE",
    help="Published weights of the backbone to begin with; imagenet downloads torchvision's.",
)
@click.option("--teacher", "teachers", type=PATH, multiple=True, metavar="FILE", help="Checkpoint to learn from.")
@click.option("--landmarks", type=PATH, metavar="FILE|none",
              help="Manifest with landmarks of the heads. Default: landmarks.parquet in OUT, if there.")  # fmt: skip
@click.option("--allow-unsupervised", multiple=True, metavar="TERM",
              help="Train although no head has what this term of the loss needs, as landmark.")  # fmt: skip
@click.option("--cache", type=PATH, metavar="DIR", help="Where crops are kept. Default: OUT/work/crops.")
@click.option("--save-seconds", default=300.0, show_default=True, help="Seconds between two saved states of the run.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def command(
    model: str, data: Path, out: Path, protocol: str | None, frame_list: Path | None, protocol_seed: int,
    chosen: tuple[str, ...], epochs: int | None, steps: int | None, batch_size: int | None, lr: float | None,
    optimizer: str | None, schedule: str | None, weight_decay: float | None, recipe: tuple[str, ...], as_paper: bool,
    seed: int, device: str, precision: str, channels_last: bool,
    compiled: bool, workers: int, balance: str, validation: float | None, select: str | None, backbone: Path | None,
    teachers: tuple[Path, ...], landmarks: Path | None, allow_unsupervised: tuple[str, ...], cache: Path | None,
    save_seconds: float, quiet: bool,
) -> None:  # fmt: skip
    """Train a model on the heads of a build by its paper's recipe; a geometric method is fitted.

    A tenth of the heads is held out to choose the epoch; --as-paper trains on all of them and keeps the last epoch.

    An interrupted run resumes where it stopped. By torchrun several processes train together. Exit code 0 good, 2 wrong
    input, 130 interrupted.
    """
    from ubhpd.core.options import key_values
    from ubhpd.models.catalogue import card, module_of

    module_of(card(model))  # says so before any import of torch if it is not there
    from ubhpd.core.progress import Progress, log_shown
    from ubhpd.training.request import TrainRequest
    from ubhpd.training.run import train

    request = TrainRequest(
        model=model,
        data=data,
        out=out,
        protocol=protocol,
        options=key_values(chosen),
        seed=seed,
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        optimizer=optimizer,
        schedule=schedule,
        weight_decay=weight_decay,
        recipe=key_values(recipe, "KEY=VALUE", "--recipe", "momentum=0.9"),
        as_paper=as_paper,
        device=device,
        precision=precision,
        channels_last=channels_last,
        compiled=compiled,
        workers=workers,
        balance=balance,
        validation=validation,  # type: ignore[arg-type]
        select=select,  # type: ignore[arg-type]
        backbone=backbone,
        teachers=teachers,
        landmarks=landmarks,
        allow_unsupervised=allow_unsupervised,
        cache=cache,
        frame_list=frame_list,
        protocol_seed=protocol_seed,
        save_seconds=save_seconds,
    )
    with log_shown(not quiet):
        train(request, Progress(show=not quiet))
