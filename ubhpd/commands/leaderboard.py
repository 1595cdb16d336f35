"""`ubhpd leaderboard`: result files as tables and as one page."""

from __future__ import annotations

from pathlib import Path

import click

PATH = click.Path(path_type=Path)


@click.command(short_help="Make the leaderboard of result files.")
@click.argument("results", type=PATH, nargs=-1, required=True)
@click.option("--out", type=PATH, help="Folder to write to. Default: the first of RESULTS, if it is a folder.")
@click.option(
    "--format", "formats", default="md,csv,tex,html", show_default=True, metavar="A,B,...", help="What to write."
)
@click.option("--docs", metavar="URL", help="Address of this project's docs/; the page links to it.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def command(results: tuple[Path, ...], out: Path | None, formats: str, docs: str | None, quiet: bool) -> None:
    """Make the leaderboard of RESULTS: files that ubhpd bench wrote, or folders of them.

    Each table has one protocol on the same heads; methods are not ranked across tables. Writes leaderboard.md, .csv
    (one score per line), .tex (booktabs) and .html (one self-contained page). Refuses results edited by hand.
    """
    from ubhpd.core.text import one_line, table
    from ubhpd.experiments.plan import known
    from ubhpd.leaderboards.columns import method_cells
    from ubhpd.leaderboards.page import publish

    place = out or (results[0] if results[0].is_dir() else results[0].parent)
    asked = [f.strip() for f in formats.split(",") if f.strip()]
    tables, written = publish(results, place, asked, known(), docs)
    if quiet:
        return
    for standing in tables:
        own = standing.result
        rows = [["#", "method", "MAE", "interval"]]
        for method in standing.methods:
            mae = method.values["mae"]
            value = "-" if mae.mean is None else f"{mae.mean:.3f}"
            interval = "-" if mae.low is None or mae.high is None else f"{mae.low:.3f} to {mae.high:.3f}"
            rows.append([method_cells(method)["rank"].text or "-", method.name, value, interval])
        heading = f"{one_line(own.protocol.id)}, {own.test.heads:,} heads, list hash {own.protocol.hash[:12]}"
        click.echo(f"{heading}\n{table(rows)}\n")
    click.echo("\n".join(f"Wrote {path}" for path in written))
