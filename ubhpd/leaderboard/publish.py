"""`ubhpd leaderboard` as a function: result files in, the tables and the page out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ubhpd.errors import UbhpdError
from ubhpd.files import replacing
from ubhpd.leaderboard.page import page
from ubhpd.leaderboard.result import read_all
from ubhpd.leaderboard.standings import Standing, standings
from ubhpd.leaderboard.texts import FORMATS

HTML = "html"


def publish(places: Sequence[Path], out: Path, formats: Sequence[str], docs: str | None = None) -> tuple[
    list[Standing], list[Path]
]:  # fmt: skip
    """Write leaderboard.md, .csv, .tex and .html as asked for, and return the tables and the paths.

    Args:
        places: result files, or folders that hold them.
        out: folder to write to.
        formats: of "md", "csv", "tex", "html".
        docs: address that the page links the pages of docs/ below; see `page`.

    Raises:
        UbhpdError: an unknown format, no result, one that was changed or is not whole, or a folder that cannot be
            written. Nothing was written then.
    """
    if unknown := [f for f in formats if f not in (*FORMATS, HTML)]:
        raise UbhpdError(f"There is no format {unknown[0]!r}: choose from {', '.join((*FORMATS, HTML))}.")
    tables = standings(read_all(places))
    texts = {f: page(tables, docs) if f == HTML else FORMATS[f](tables) for f in dict.fromkeys(formats)}
    paths = {f: out / f"leaderboard.{f}" for f in texts}
    try:
        with ExitStack() as together:  # all of them or none
            for form, path in paths.items():
                together.enter_context(replacing(path)).write_text(texts[form], encoding="utf-8", newline="")
    except OSError as error:
        raise UbhpdError(f"Cannot write to {out} ({error.strerror}): name another folder with --out.") from None
    return tables, list(paths.values())
