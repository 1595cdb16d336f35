"""The command `ubhpd`: a thin shell. Each file in commands/ is one command, imported when it is called."""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click

from ubhpd import __version__, commands
from ubhpd.commands._options import Subcommands
from ubhpd.core import registry
from ubhpd.core.errors import UbhpdError, disk_fault
from ubhpd.core.text import printable

GOOD, FINDINGS, WRONG_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


class _Commands(Subcommands):
    """Looks up a command by its file name, so that --help imports no heavy library."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(registry.files(commands))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0].startswith("_"):  # click 8.1 takes the underscore for the prefix of an option and shows the help
            ctx.fail(f"No such command {args[0]!r}.")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        command: click.Command = registry.module(commands, name).command
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="ubhpd")
def root() -> None:
    """Unbiased head pose estimation, from raw datasets to a leaderboard.

    Reads raw datasets into one manifest, samples UBHPD (the unbiased head pose dataset) from it, audits the split for
    leaks, shows heads for review, exports face crops, writes dataset cards, renders heads. Trains, imports and
    runs the models of the literature. Scores predictions with every metric of the field, UBMAE (the unbiased mean
    absolute error) among them, diagnoses wrong prediction files, compares methods, makes leaderboards. Start with:
    ubhpd sources, ubhpd build, ubhpd score. In Python: import ubhpd.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exit code 0 good, 1 findings, 2 wrong input, 130 or 143 interrupted."""
    if "_UBHPD_COMPLETE" in os.environ:  # a shell asks for its completion script, or for the words that fit
        importlib.import_module("ubhpd.commands._completion")
    os.environ["MPLBACKEND"] = "agg"  # that of a notebook, inherited from it, may not be installed or may not exist
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    try:
        Path.cwd()
    except FileNotFoundError:
        click.echo("Error: The current folder no longer exists: change to one that does.", err=True)
        sys.exit(WRONG_INPUT)
    asked: list[int] = []  # signals that asked the process to end
    try:
        with _terminable(asked):
            code: Any = root.main(arguments, prog_name="ubhpd", standalone_mode=False)
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        error.show()
        code = WRONG_INPUT
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted: what was finished is kept, the same command resumes from there.", err=True)
        code = TERMINATED if asked else INTERRUPTED
    except UbhpdError as error:
        click.echo(f"Error: {printable(str(error))}", err=True)
        code = WRONG_INPUT
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("torch", "safetensors"):
            raise
        click.echo(f"Error: This needs {error.name}, which is not installed: pip install 'ubhpd[torch]'.", err=True)
        code = WRONG_INPUT
    except OSError as error:
        if (fault := disk_fault(error)) is None:
            raise
        click.echo(f"Error: {fault}", err=True)
        code = WRONG_INPUT
    code = code if isinstance(code, int) else GOOD
    for fault in registry.faults():  # of a plug-in: the command worked without it
        click.echo(f"Warning: {printable(fault)}", err=True)
        code = code or FINDINGS
    sys.exit(code)


@contextmanager
def _terminable(asked: list[int]) -> Iterator[None]:
    """Make SIGTERM end a command as Ctrl-C does, so that it cleans up; the signal is added to `asked`."""

    def stop(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
