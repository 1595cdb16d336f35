"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from ubhpd.core.errors import shortened
from ubhpd.core.registry import nearest, suggestion


class Renamed(click.Option):
    """An option that still takes its former names; the help shows the first name alone."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the row of the help without the former names."""
        names, self.opts = self.opts, self.opts[:1]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = names


class Choice(click.Choice):  # type: ignore[type-arg]  # click 8.1 has no type argument
    """A choice between names: upper and lower case do not count, and an error suggests the nearest."""

    def __init__(self, names: Iterable[str]) -> None:
        """Keep the names."""
        super().__init__(list(names), case_sensitive=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name that is meant."""
        names = [str(name) for name in self.choices]
        if isinstance(value, str) and value.lower() not in (n.lower() for n in names):
            near = nearest(value, names)
            hint = f": did you mean {' or '.join(near)}?" if near else "."
            self.fail(f"{shortened(value)} is not one of {', '.join(names)}{hint}", param, ctx)
        return super().convert(value, param, ctx)


class Subcommands(click.Group):
    """A command with subcommands: the case of their names does not count, and an error suggests the nearest."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the subcommand that is meant; as click's."""
        names = self.list_commands(ctx)
        if args[0].lower() in names:
            args = [args[0].lower(), *args[1:]]
        elif not args[0].startswith("-"):
            ctx.fail(f"No such command {shortened(args[0])}: {suggestion(args[0], names)}")
        return super().resolve_command(ctx, args)
