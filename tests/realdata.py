"""Where the real data is, and the mark for a test that cannot do without it."""

import os
from pathlib import Path

import pytest

REAL = Path(os.environ.get("UBHPD_REAL") or Path(__file__).resolve().parents[1].parent / "shared/real")


def needs(part):
    """Return the mark that skips a test, saying why, where this part of the real data is absent."""
    folder = REAL / part
    return pytest.mark.skipif(not folder.exists(), reason=f"the real data folder {folder} is not here: set UBHPD_REAL")
