"""Progress bars with rate and remaining time on stderr, and log lines."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_NOTEBOOK_SECONDS = (
    0.2  # between two updates of a line in a notebook, which keeps every one of them until it is redrawn
)

_LOG_SECONDS = 60.0  # between two lines of progress where there is neither a terminal nor a notebook


def in_notebook() -> bool:
    """Return whether this process is the kernel of a Jupyter notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


class Progress:
    """Shows bars if `show`, in a terminal (stderr) or in a Jupyter notebook, where a bar is a line of text.

    Without either, as in a log file, long work writes a line a minute to stderr.
    """

    def __init__(self, show: bool = True) -> None:
        self._notebook = show and in_notebook()
        self._show = show and (self._notebook or sys.stderr.isatty())
        self._log = show and not self._show

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Give a function that moves the bar on by a number of items."""
        if total == 0 or not (self._show or self._log):
            yield lambda done: None
            return
        if self._log:
            count, update = 0, _lines_of_a_log(name)

            def advance_log(done: int) -> None:
                nonlocal count
                count += done
                update(count, total)

            yield advance_log
            return
        if self._notebook:
            with _line(name) as update:
                done_so_far = 0

                def advance_line(done: int) -> None:
                    nonlocal done_so_far
                    done_so_far += done
                    update(done_so_far, total)

                yield advance_line
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
            yield _lines_of_a_log(name) if self._log else lambda done, total: None
            return
        if self._notebook:
            with _line(name) as update:
                yield update
            return
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as shown:
            task = shown.add_task(name, total=None)
            yield lambda done, total: shown.update(task, completed=done, total=total)


def _lines_of_a_log(name: str) -> Callable[[int, int], None]:
    """Return a function (done, total) that writes a line to stderr at most once a minute."""
    began = written = time.monotonic()

    def update(done: int, total: int) -> None:
        nonlocal written
        now = time.monotonic()
        if now - written < _LOG_SECONDS:
            return
        written = now
        rate = done / (now - began)
        sys.stderr.write(f"{name}: {done:,} of {total:,} ({done / max(total, 1):.0%}), {rate:,.1f}/s\n")
        sys.stderr.flush()

    return update


@contextmanager
def _line(name: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function (done, total) that rewrites one line on stderr; the line is empty again at the end."""
    began = drawn = time.monotonic()
    width = 0

    def write(text: str) -> None:
        nonlocal width
        sys.stderr.write(f"\r{text.ljust(width)}")
        sys.stderr.flush()
        width = len(text)

    def update(done: int, total: int) -> None:
        nonlocal drawn
        now = time.monotonic()
        if now - drawn < _NOTEBOOK_SECONDS and done < total:
            return
        drawn = now
        rate = done / (now - began) if now > began else 0.0
        write(f"{name}: {done:,} of {total:,} ({done / max(total, 1):.0%}), {rate:,.0f}/s")

    write(f"{name} ...")
    try:
        yield update
    finally:
        write("")
        sys.stderr.write("\r")


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
