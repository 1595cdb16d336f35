"""Options that `ubhpd score` and `ubhpd compare` share: which truth and heads count, and how intervals are computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ubhpd.commands._completion import complete_protocol
from ubhpd.commands._options import Choice

if TYPE_CHECKING:
    from ubhpd.evaluation.evaluate import EvaluationOptions

NO_INTERVALS = "none"

Command = Callable[..., None]


def asked(protocol: str, bootstrap: str, over: str) -> Callable[[Command], Command]:
    """Return a decorator that adds the options; the command hands their values to `evaluation_options`.

    Args:
        protocol: help of --protocol.
        bootstrap: help of --bootstrap.
        over: what is resampled by default; NO_INTERVALS for nothing, which is a choice only then.
    """
    choices = ["samples", "subjects", "sequences", *([NO_INTERVALS] if over == NO_INTERVALS else [])]
    options = (
        click.option("--last-build", is_flag=True, help="Take the truth from the build made last on this account."),
        click.option("--protocol", metavar="ID", shell_complete=complete_protocol, help=protocol),
        click.option("--frames", metavar="FILE", help="List of frames, for a protocol that needs one."),
        click.option("--protocol-seed", default=0, show_default=True, help="For a protocol that divides one dataset."),
        click.option("--exclude-outside", is_flag=True, help="Leave out heads with a true angle beyond 90 degrees."),
        click.option("--max-angle", type=float, metavar="DEG", help="Leave out heads with a true angle beyond DEG."),
        click.option("--bootstrap", "over", type=Choice(choices), default=over, show_default=True, help=bootstrap),
        click.option("--rounds", default=1000, show_default=True, help="Resamples."),
        click.option("--level", default=0.95, show_default=True, help="Level of the intervals."),
        click.option("--seed", default=0, show_default=True, help="Seed of the resamples."),
        click.option(
            "-O", "--option", "chosen", multiple=True, metavar="METRIC.KEY=VALUE", help="As ubmae.unseen=smooth."
        ),
    )

    def decorated(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


def evaluation_options(source: str | None, pair: str | None, chosen: dict[str, Any]) -> EvaluationOptions:
    """Return what the values of the options ask for.

    Args:
        source: training set for UBMAE.
        pair: printed pair, see `EvaluationOptions`.
        chosen: values of the options of `asked`, by name.

    Raises:
        UbhpdError: an option of a metric is unknown or impossible.
    """
    from ubhpd.evaluation.evaluate import EvaluationOptions
    from ubhpd.evaluation.intervals import BootstrapOptions
    from ubhpd.evaluation.metric_cards import metric_options
    from ubhpd.evaluation.scoring import ScoreOptions

    over = chosen["over"]
    return EvaluationOptions(
        score=ScoreOptions(chosen["exclude_outside"], metric_options(chosen["chosen"])),
        bootstrap=None
        if over == NO_INTERVALS
        else BootstrapOptions(chosen["rounds"], chosen["level"], over, chosen["seed"]),
        source=source,
        pair=pair,
        protocol=chosen["protocol"],
        max_angle_deg=chosen["max_angle"],
        frames=chosen["frames"],
        protocol_seed=chosen["protocol_seed"],
        last_build=chosen["last_build"],
    )
