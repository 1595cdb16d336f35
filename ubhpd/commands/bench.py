"""`ubhpd bench`: train, predict and score models on protocols, one result file per run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from ubhpd.commands._completion import complete_protocols, complete_recipe, complete_runnable_models
from ubhpd.commands._options import Choice
from ubhpd.core.errors import UbhpdError

PATH = click.Path(path_type=Path)


@click.command(short_help="Train and evaluate models on protocols.")
@click.option(
    "--models",
    required=True,
    metavar="A,B,...",
    shell_complete=complete_runnable_models,
    help="See: ubhpd models; onnx:FILE for an ONNX file or an OpenVINO model (.xml) of others.",
)
@click.option("--protocols", required=True, metavar="A,B,...", shell_complete=complete_protocols,
              help="1, 2, 3 or cross as papers call them, or ids: see ubhpd protocols.")  # fmt: skip
@click.option("--seeds", default="0", show_default=True, metavar="0,1,...", help="A run for each, of what is trained.")
@click.option("--data", type=PATH, required=True, metavar="OUT", help="The folder that ubhpd build wrote to.")
@click.option("--out", type=PATH, required=True, metavar="RESULTS", help="Folder of results, predictions and weights.")
@click.option("-O", "chosen", multiple=True, metavar="MODEL.KEY=VALUE", help="Option of a model, as hopenet.alpha=2.")
@click.option("--grid", multiple=True, metavar="MODEL.KEY=A,B,...",
              help="A run for each of these values, and each combination of several, as dadl.alpha=1,2,3.")  # fmt: skip
@click.option("--weights", multiple=True, metavar="MODEL=FILE",
              help="Published weights: MODEL is not trained. Again for each file of a model.")  # fmt: skip
@click.option("--io", multiple=True, metavar="[MODEL=]FILE|NAME",
              help="How onnx:FILE takes images and gives poses, of all or of one, MODEL being the file's name without "
              "ending. Default: FILE.io.toml beside it.")  # fmt: skip
@click.option("--trained-on", "trained_on", multiple=True, metavar="MODEL=SET",
              help="What the weights of MODEL were trained on, as 300W-LP: see ubhpd submit --help.")  # fmt: skip
@click.option("--teacher", "teachers", multiple=True, metavar="MODEL=A,B,...",
              help="What MODEL learns from: checkpoints, or models, which are trained first.")  # fmt: skip
@click.option("--by", metavar="WHO", help="Person or group that runs it, for the leaderboard.")
@click.option(
    "--backbone",
    type=PATH,
    metavar="FILE",
    help="Published weights of the backbone to begin with; imagenet downloads torchvision's.",
)
@click.option("--epochs", type=int, help="How long to train. Default: the model's own recipe.")
@click.option("--steps", type=int, help="How long to train, in steps. Default: the model's own recipe.")
@click.option("--batch-size", type=int, help="Heads per step. Default: the model's own recipe.")
@click.option("--lr", type=float, help="Learning rate. Default: the model's own recipe.")
@click.option("--optimizer", help="Optimiser; choices as in ubhpd train --help.")
@click.option("--schedule", help="Learning-rate schedule; choices as in ubhpd train --help.")
@click.option("--weight-decay", type=float, help="Default: the model's own recipe.")
@click.option("--recipe", "-R", "recipe", multiple=True, metavar="[MODEL.]KEY=VALUE",
              help="Any other value of the recipe, of all models or of one, as hopenet.momentum=0.9.")  # fmt: skip
@click.option("--as-paper", is_flag=True,
              help="Hold no heads out and keep the last epoch, as papers do. Other options still count.")  # fmt: skip
@click.option("--precision", help="Bits of floating-point numbers: 32, 16 or bf16.")
@click.option("--balance", help="Make up for uneven poses.")
@click.option("--validation", type=float, help="Share of the training heads that is held out.")
@click.option("--select", help="Keep the best epoch or the last.")
@click.option("--frames", type=PATH, metavar="FILE", help="List of frames, for a protocol that needs one.")
@click.option("--protocol-seed", default=0, show_default=True, help="For a protocol that divides one dataset.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1; auto takes a GPU if there is.")
@click.option("--engine", type=Choice(["auto", "torch", "onnx", "openvino"]), default="auto", show_default=True,
              help="What runs networks on the test heads, as for ubhpd predict.")  # fmt: skip
@click.option("--workers", default=0, help="For reading images. Default: one per core.")
@click.option(
    "--speed", type=click.IntRange(min=1), metavar="BATCH", help="Measure heads per second at this batch size."
)
@click.option("--landmarks", type=PATH, metavar="FILE|none",
              help="Manifest with landmarks of the heads. Default: landmarks.parquet in OUT, if there.")  # fmt: skip
@click.option("--allow-unsupervised", multiple=True, metavar="TERM",
              help="Train although no head has what this term of a loss needs, as landmark.")  # fmt: skip
@click.option("--crop", metavar="RECIPE", shell_complete=complete_recipe,
              help="Cut the test heads of every network by this recipe, as ubhpd predict --crop does.")  # fmt: skip
@click.option("--cache", type=PATH, metavar="DIR", help="Where crops are kept. Default: OUT/work/crops.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.pass_context
def command(
    ctx: click.Context, models: str, protocols: str, seeds: str, data: Path, out: Path, chosen: tuple[str, ...],
    grid: tuple[str, ...], weights: tuple[str, ...], io: tuple[str, ...],
    trained_on: tuple[str, ...], teachers: tuple[str, ...], by: str | None,
    backbone: Path | None, epochs: int | None,
    steps: int | None, batch_size: int | None, lr: float | None, optimizer: str | None, schedule: str | None,
    weight_decay: float | None, recipe: tuple[str, ...], as_paper: bool,
    precision: str | None, balance: str | None, validation: float | None, select: str | None, frames: Path | None,
    protocol_seed: int, device: str, engine: str, workers: int, speed: int | None, landmarks: Path | None,
    allow_unsupervised: tuple[str, ...], crop: str | None, cache: Path | None, quiet: bool,
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
        grid=_grid(grid),
        weights=_files(weights),
        io=_io(io),
        trained_on=_declared(trained_on),
        teachers=_teachers(teachers),
        by=by,
        train=HowToTrain(
            epochs=epochs,
            steps=steps,
            batch_size=batch_size,
            lr=lr,
            precision=precision,
            balance=balance,
            optimizer=optimizer,
            schedule=schedule,
            weight_decay=weight_decay,
            recipe=_recipes(recipe) or None,
            as_paper=as_paper or None,
            validation=validation,
            select=select,
            backbone=backbone,
            allow_unsupervised=allow_unsupervised or None,
        ),
        landmarks=landmarks,
        frames=frames,
        protocol_seed=protocol_seed,
        device=device,
        workers=workers,
        speed=speed,
        cache=cache,
        crop=crop,
        engine=engine,
    )
    with log_shown(not quiet):
        report = bench(request, Progress(show=not quiet))
    for name, reason in report.failed if quiet else ():
        click.echo(f"{name} failed: {reason}", err=True)
    if not quiet:
        failed = f", {len(report.failed)} failed" if report.failed else ""
        click.echo(f"{len(report.written)} results written, {len(report.kept)} kept from before{failed}.")
        if report.written or report.kept:
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


def _recipes(texts: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return KEY=VALUE by model, those of all models by ""."""
    from ubhpd.core.options import key_values

    found: dict[str, dict[str, str]] = {}
    for place, value in key_values(texts, "[MODEL.]KEY=VALUE", "--recipe", "hopenet.momentum=0.9").items():
        model, _, key = place.rpartition(".")
        found.setdefault(model, {})[key] = value
    return found


def _grid(texts: Iterable[str]) -> dict[str, dict[str, tuple[str, ...]]]:
    from ubhpd.core.options import owner_key_values

    found = owner_key_values(texts, "MODEL.KEY=A,B,...", "--grid", "dadl.alpha=1,2,3")
    return {model: {key: _names(values) for key, values in own.items()} for model, own in found.items()}


def _declared(texts: Iterable[str]) -> dict[str, str]:
    from ubhpd.core.options import key_values

    return key_values(texts, "MODEL=SET", "--trained-on", "fsanet_capsule_1x1=300W-LP")


def _io(texts: Iterable[str]) -> dict[str, str]:
    """Return IO files by the names of models, that of all models by ""."""
    found: dict[str, str] = {}
    for text in texts:
        model, equals, file = text.partition("=")
        name, file = (model.strip(), file) if equals else ("", text)
        if found.get(name, file) != file:
            raise UbhpdError(f"--io of {name or 'all models'} is given twice: choose between {found[name]} and {file}.")
        found[name] = file
    return found


def _teachers(texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    from ubhpd.core.options import key_value

    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        model, names = key_value(text, "MODEL=A,B,...", "--teacher", "ehpnet=ehpnet_resnet101,ehpnet_botnet101")
        found[model] = (*found.get(model, ()), *_names(names))
    return found


def _files(texts: Iterable[str]) -> dict[str, tuple[Path, ...]]:
    from ubhpd.core.options import key_value

    files: dict[str, tuple[Path, ...]] = {}
    for text in texts:
        model, file = key_value(text, "MODEL=FILE", "--weights")
        files[model] = (*files.get(model, ()), Path(file))
    return files
