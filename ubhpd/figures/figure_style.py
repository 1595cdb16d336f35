"""How every picture of ubhpd looks: colours, hatches, fonts, sizes, and files whose bytes depend on the input alone.

Colours are those of Okabe and Ito (2008), which colour-blind people can tell apart; what matters is told a second
time by hatch, line or marker, so that it also reads in grey print. Pictures are drawn through matplotlib's
objects, never through pyplot: no window, no global figure, no setting of the user's matplotlibrc.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ubhpd.errors import UbhpdError
from ubhpd.files import replacing

FORMATS = ("png", "svg")
DPI = 200

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
DARK_GREY, PALE_GREY = "#404040", "#D9D9D9"

# Light means few, dark means many, also in grey print: magma is even in lightness. Its palest tenth is left out,
# so that white can mean none at all.
SEQUENTIAL = ListedColormap(matplotlib.colormaps["magma_r"](np.linspace(0.1, 1.0, 256)), "ubhpd")
NOTHING = "#FFFFFF"

# One look per role, the same in every picture.
BEFORE: dict[str, Any] = {"facecolor": "#A6D5F2", "edgecolor": BLUE, "linewidth": 0.5}
AFTER: dict[str, Any] = {"facecolor": "#F7D9A0", "edgecolor": "#B87F00", "linewidth": 0.5, "hatch": "//////"}
AFTER_OVER: dict[str, Any] = {**AFTER, "facecolor": "none", "edgecolor": VERMILLION, "linewidth": 0.9}
TRAIN: dict[str, Any] = {"color": BLUE, "linewidth": 1.2, "linestyle": "-"}
TEST: dict[str, Any] = {"color": VERMILLION, "linewidth": 1.2, "linestyle": (0, (2.5, 1.2))}
TARGET: dict[str, Any] = {"color": BLACK, "linewidth": 0.9, "marker": "o", "markersize": 2.4}

FONT_PT, SMALL_PT, TITLE_PT = 8.0, 6.5, 9.0

_SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
    "font.size": FONT_PT,
    "axes.titlesize": SMALL_PT,
    "axes.labelsize": FONT_PT,
    "xtick.labelsize": SMALL_PT,
    "ytick.labelsize": SMALL_PT,
    "legend.fontsize": FONT_PT,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": DARK_GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": PALE_GREY,
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "hatch.linewidth": 0.5,
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "svg.hashsalt": "ubhpd",
    "svg.fonttype": "path",
}
# What the two writers would add of themselves: the date, and which matplotlib it was.
_METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save in the style of ubhpd, whatever the user's settings; they are as before afterwards."""
    with matplotlib.style.context(["default", _SETTINGS]):
        yield


def new_figure(width_in: float, height_in: float) -> Figure:
    """Return an empty figure that lays itself out without overlaps; `settled` ends that."""
    figure = Figure(figsize=(width_in, height_in), layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.05))
    FigureCanvasAgg(figure)
    return figure


def settled(figure: Figure) -> Figure:
    """Return the figure with its layout fixed, so that saving it twice, or in another format, changes nothing."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def encoded(figure: Figure, form: str) -> bytes:
    """Return the figure as the bytes of a PNG (200 dots per inch) or SVG file; equal figures give equal bytes.

    Raises:
        UbhpdError: an unknown format.
    """
    if form not in FORMATS:
        raise UbhpdError(f"Figures are not written as {form!r}: choose of {', '.join(FORMATS)}.")
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format=form, metadata=_METADATA[form])
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> Path:
    """Write the figure in the format of the path's ending, whole or not at all, and return the path.

    Raises:
        UbhpdError: an unknown format.
    """
    content = encoded(figure, path.suffix.removeprefix("."))
    with replacing(path) as part:
        part.write_bytes(content)
    return path
