"""Where the last build went, so that `ubhpd score` needs no path: one line in the user's state folder."""

from __future__ import annotations

import os
from pathlib import Path

from ubhpd.files import replacing


def remember(out: Path) -> None:
    """Note that `out` holds the last build; a state folder that cannot be written to is no fault of the build."""
    try:
        with replacing(_note()) as part:
            part.write_text(f"{out.resolve()}\n", encoding="utf-8")
    except OSError:
        return


def recall() -> Path | None:
    """Return the manifest of the last build's UBHPD, None if there is none any more."""
    try:
        out = Path(_note().read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return None
    return out / "ubhpd.parquet" if (out / "ubhpd.parquet").is_file() else None


def _note() -> Path:
    folder = os.environ.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
    return Path(folder, "ubhpd", "last-build")
