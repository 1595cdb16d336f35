"""Imports matplotlib whatever MPLBACKEND says; modules that draw import this one before anything of matplotlib.

The variable often comes from a notebook: its backend may not be installed here, and with a name that matplotlib does
not know the import itself fails. No figure of the package needs a backend of a screen.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

if "matplotlib" not in sys.modules:
    _backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if _backend is not None:
            os.environ["MPLBACKEND"] = _backend
    if _backend:
        with suppress(ValueError, ImportError):  # that of a notebook stays in use where it is installed
            matplotlib.rcParams["backend"] = _backend
