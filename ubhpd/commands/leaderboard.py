"""`ubhpd leaderboard`: result files as tables and as one page."""

from __future__ import annotations

from pathlib import Path

import click

PATH = click.Path(path_type=Path)


@click.command(short_help="Make the leaderboard of result files.")
@click.argument("results", nargs=-1, required=True, metavar="[NAME=]RESULTS...")
@click.option("--out", type=PATH, help="Folder to write to. Default: the first of RESULTS, if it is a folder.")
@click.option(
    "--format", "formats", default="md,csv,json,tex,html", show_default=True, metavar="A,B,...", help="What to write."
)
@click.option(
    "--rank-by", default="balanced_mae", show_default=True, metavar="METRIC",
    help="balanced_mae, mae or ubmae. The page can switch between them.",
)  # fmt: skip
@click.option("--verify", is_flag=True, help="Score all predictions again, and refuse a result with other scores.")
@click.option("--docs", metavar="URL", help="Address of this project's docs/; the page links to it.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def command(
    results: tuple[str, ...], out: Path | None, formats: str, rank_by: str, verify: bool, docs: str | None, quiet: bool
) -> None:
    """Make the leaderboard of RESULTS: files that ubhpd bench and ubhpd submit wrote, or folders of them.

    Give the results of several people as ANN=FOLDER BOB=FOLDER, so that each row says whose it is. Each table has one
    protocol on the same test heads; methods are not ranked across tables. Writes leaderboard.md, .csv (one score per
    line), .json, .tex (booktabs) and .html (one self-contained page). Refuses results that were changed. Exit
    code 0 good, 2 wrong input.
    """
    from ubhpd.core.text import one_line, printable, table
    from ubhpd.experiments.plan import known
    from ubhpd.leaderboards.page import publish
    from ubhpd.leaderboards.result import place_of
    from ubhpd.leaderboards.tables import screen_rows

    places = [place_of(text) for text in results]
    first = places[0][1]
    place = out or (first if first.is_dir() else first.parent)
    asked = [f.strip() for f in formats.split(",") if f.strip()]
    tables, written = publish(places, place, asked, known(), docs, rank_by, verify)
    if quiet:
        return
    for standing in tables:
        own = standing.result
        heading = f"{one_line(own.protocol.id)}, {own.test.heads:,} heads, list hash {own.protocol.hash[:12]}"
        rows, reasons = screen_rows(standing)
        click.echo(f"{heading}\n{table(rows)}")
        click.echo(printable("\n".join([*(f"Not ranked: {reason}" for reason in reasons), ""])))
    click.echo("\n".join(f"Wrote {path}" for path in written))
