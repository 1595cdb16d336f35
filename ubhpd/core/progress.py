"""What a person who waits sees: progress bars with rate and time left on stderr, and the lines of the log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Progress:
    """Shows bars if `show` and stderr is a terminal."""

    def __init__(self, show: bool = True) -> None:
        self._show = show and sys.stderr.isatty()

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Give a function that moves the bar on by a number of items."""
        if not self._show or total == 0:
            yield lambda done: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
            task = shown.add_task(name, total=total, rate="")

            def advance(done: int) -> None:
                shown.advance(task, done)
                speed = shown.tasks[0].finished_speed or shown.tasks[0].speed
                shown.update(task, rate=f"{speed:,.0f}/s" if speed else "")

            yield advance

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """Give a function (done, total) for a piece of work whose total shows up on the way."""
        if not self._show:
            yield lambda done, total: None
            return
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as shown:
            task = shown.add_task(name, total=None)
            yield lambda done, total: shown.update(task, completed=done, total=total)


class _EchoHandler(logging.Handler):
    """Prints each record as one line without decoration."""

    def __init__(self, err: bool) -> None:
        super().__init__()
        self._err = err

    def emit(self, record: logging.LogRecord) -> None:
        import click

        click.echo(self.format(record), err=self._err)


@contextmanager
def log_shown(show: bool = True, err: bool = False) -> Iterator[None]:
    """Print what the package logs from level INFO on while the context is open; print nothing if not `show`.

    Args:
        show: whether to print.
        err: print on stderr instead of stdout.
    """
    if not show:
        yield
        return
    logger, handler = logging.getLogger("ubhpd"), _EchoHandler(err)
    logger.addHandler(handler)
    try:
        with log_level(logging.INFO):
            yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def log_level(level: int) -> Iterator[None]:
    """Log only records of this level or above while the context is open."""
    logger = logging.getLogger("ubhpd")
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
