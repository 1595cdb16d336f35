"""Progress bars with rate and time left, on stderr, where a person is watching."""

from __future__ import annotations

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
