"""`ubhpd review`: a page on this machine to look at heads and to keep or drop them."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command(short_help="Look at heads in a browser; keep or drop them.")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--port", default=8765, show_default=True, help="Port to listen on; 0 for any that is free.")
@click.option("--host", default="127.0.0.1", show_default=True, help="127.0.0.1 or localhost; no other is taken.")
@click.option("--who", help="Your name in the decisions; default: your user name.")
@click.option("--open", "open_browser", is_flag=True, help="Open the page in the browser.")
@click.option("--quiet", is_flag=True, help="Print the address only.")
def command(out: Path, port: int, host: str, who: str | None, open_browser: bool, quiet: bool) -> None:
    """Show the heads of OUT with boxes, axes and flags in a local web page, and keep or drop them by keyboard.

    OUT is a build's folder, of which the pool is shown, or a manifest in it.
    Decisions go to OUT/decisions.csv at once; ubhpd build --decisions applies them. Ends with Ctrl-C.
    Exit code 0 good, 2 wrong input.
    """
    from ubhpd.core.progress import Progress
    from ubhpd.quality.review import open_server

    server, address = open_server(out, host, port, who or _user_name(), Progress(not quiet))
    click.echo(address)
    if not quiet:
        click.echo(f"Open this address; decisions go to {out / 'decisions.csv'}. Ctrl-C ends.")
    if open_browser:
        import webbrowser

        webbrowser.open(address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        if not quiet:
            click.echo(f"\nEvery decision is in {out / 'decisions.csv'}.")
    finally:
        server.server_close()


def _user_name() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in a container
        return f"user {os.getuid()}" if hasattr(os, "getuid") else "unnamed"
