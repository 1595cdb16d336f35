"""Figures: their style, the densities of datasets and UBHPD, and the landmark graph of a face.

Style: colours are those of Okabe and Ito (2008), which colour-blind people can distinguish; hatches, lines and markers
repeat what colours show, so that figures also work in grey print. Figures are drawn through matplotlib's objects, never
through pyplot: no window, no global figure, no setting of the user's matplotlibrc. The bytes of a file depend on the
input alone.

Densities: each dataset beside UBHPD, two angles at a time, pool and UBHPD on top of each other. Figure `density` has
the layout of figure 3 of OsGG-Net (ACM MM 2021). The figures take what `densities.read` counts in manifests or
`densities.from_arrays` in arrays.

Landmark graph: drawn on the image, as figure 5 of OsGG-Net. Structures of FSA-Net (its figure 5), and regions that
decide an angle (Grad-CAM, figure 10 of DADL).
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ubhpd.core import plotting  # noqa: F401, before anything of matplotlib

# isort: split

import matplotlib
import matplotlib.style
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.optimize import brentq

from ubhpd.core import bins
from ubhpd.core.bins import ANGLES, CENTRES_DEG, EDGES_DEG, LIMIT_DEG, N_BINS
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing
from ubhpd.core.registry import chosen
from ubhpd.core.text import csv_lines
from ubhpd.core.typing import AnyArray, FloatArray, IntArray
from ubhpd.pool.sources import builders
from ubhpd.sampling import densities, targets
from ubhpd.sampling.densities import PAIRS, POOL, SIDES, TARGET, UBHPD, Densities, Tally
from ubhpd.sampling.sampler import LARGE_ROLL_DEG, RARE_YAW_DEG, rolled_share

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("png", "svg", "pdf")
DEFAULT_FORMATS = ("png", "svg")
DPI = 200

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
DARK_GREY, PALE_GREY = "#404040", "#D9D9D9"

# Light means few, dark means many, also in grey print: magma is even in lightness. Its palest tenth is left out,
# so that white can mean none at all.
SEQUENTIAL = ListedColormap(matplotlib.colormaps["magma_r"](np.linspace(0.1, 1.0, 256)), "ubhpd")
NOTHING = "#FFFFFF"

# One look per role, the same in every figure.
BEFORE_LOOK: dict[str, Any] = {"facecolor": "#A6D5F2", "edgecolor": BLUE, "linewidth": 0.5}
AFTER_LOOK: dict[str, Any] = {"facecolor": "#F7D9A0", "edgecolor": "#B87F00", "linewidth": 0.5, "hatch": "//////"}
AFTER_OVER_LOOK: dict[str, Any] = {**AFTER_LOOK, "facecolor": "none", "edgecolor": VERMILLION, "linewidth": 0.9}
TRAIN_LOOK: dict[str, Any] = {"color": BLUE, "linewidth": 1.2, "linestyle": "-"}
TEST_LOOK: dict[str, Any] = {"color": VERMILLION, "linewidth": 1.2, "linestyle": (0, (2.5, 1.2))}
TARGET_LOOK: dict[str, Any] = {"color": BLACK, "linewidth": 0.9, "marker": "o", "markersize": 2.4}

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
    "pdf.fonttype": 42,  # TrueType, which publishers ask for
}
# What the writers would add of themselves: the date, and the version of matplotlib.
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


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
    """Return the figure as the bytes of a PNG (200 dots per inch), SVG or PDF file; equal figures give equal bytes.

    Raises:
        UbhpdError: an unknown format.
    """
    if form not in FORMATS:
        raise UbhpdError(f"Figures are not written as {form!r}: choose from {', '.join(FORMATS)}.")
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format=form, metadata=_METADATA[form])
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> Path:
    """Write the figure in the format of the path's suffix and return the path; the file appears complete or not at all.

    Raises:
        UbhpdError: an unknown format.
    """
    content = encoded(figure, path.suffix.removeprefix("."))
    with replacing(path) as part:
        part.write_bytes(content)
    return path


Look = dict[str, Any]  # keyword arguments of matplotlib's artists

_LOOK_OF_SIDE = dict(zip(SIDES, (TRAIN_LOOK, TEST_LOOK), strict=True))
_WIDE_PANEL_IN = 2.0
_LEGEND_ENTRY_IN = 1.35
_SIGMAS_DEG = (0.5, 1000.0)  # between which the sigma of a target is looked for
_HEADROOM = 1.06


def write(
    place: str | os.PathLike[str],
    names: Sequence[str] = ("density", "joint", "overlay"),
    folder: Path | None = None,
    formats: Sequence[str] = DEFAULT_FORMATS,
    target: str | None = None,
) -> list[Path]:
    """Draw figures of a build's folder, or of one manifest, write them and densities.csv, and return the paths.

    Args:
        place: as for `densities.read`.
        names: which of FIGURES.
        folder: where to write; by default the folder `figures` beside the manifest.
        formats: which of FORMATS.
        target: as for `densities.target_for`.

    Raises:
        UbhpdError: an unknown figure, no usable head, or a folder that cannot be written. Nothing was written then.
    """
    if not names:
        raise UbhpdError(f"No figure was named: choose from {', '.join(FIGURES)}.")
    names = [chosen(FIGURES, name, "figure") for name in names]
    content = densities.read(place, densities.target_for(place, target))
    files: dict[str, bytes] = {}
    for name in dict.fromkeys(names):
        figure = FIGURES[name](content)
        files |= {f"{name}.{form}": encoded(figure, form) for form in dict.fromkeys(formats)}
    files["densities.csv"] = _csv(densities.table(content)).encode()
    where = folder or (Path(place) if Path(place).is_dir() else Path(place).parent) / "figures"
    try:
        for name, data in files.items():
            with replacing(where / name) as part:
                part.write_bytes(data)
    except OSError as error:
        raise UbhpdError(f"Cannot write to {where} ({error.strerror}): name another folder with --out.") from None
    return [where / name for name in files]


def density_figure(content: Densities) -> Figure:
    """Return rows yaw, pitch, roll, a column per dataset and UBHPD last; the scale is shared along a row."""
    columns = [*content.datasets, *([content.ubhpd] if content.ubhpd is not None else [])]
    panel_in = min(max(6.6 / len(columns), 1.6), 3.0)
    with styled():
        figure = new_figure(0.6 + panel_in * len(columns), 5.4)
        grid = figure.subplots(len(ANGLES), len(columns), sharex=True, sharey="row", squeeze=False)
        for (j, k), axes in np.ndenumerate(grid):
            tally = columns[k]
            _bars(axes, tally, j, AFTER_LOOK if tally is content.ubhpd else BEFORE_LOOK)
            for side, own in tally.sides.items():
                axes.stairs(_drawable(own, j), EDGES_DEG, baseline=None, zorder=3, **_LOOK_OF_SIDE[side])
            _finish(axes, j, content.target, [t for c in columns for t in (c, *c.sides.values())], panel_in)
            axes.set_title(_outside(tally.outside[j]))
            if j == 0:
                _column_title(axes, tally, panel_in)
            if k == 0:
                axes.set_ylabel(f"{ANGLES[j]}: share per bin")
            if j == len(ANGLES) - 1:
                axes.set_xlabel("angle (degrees)")
        looks = {}
        if content.datasets:
            looks["dataset" if content.pool is not None else f"dataset inside {UBHPD}"] = BEFORE_LOOK
        if content.ubhpd is not None:
            looks[UBHPD] = AFTER_LOOK
        _legend(figure, content, looks, content.ubhpd.sides if content.ubhpd is not None else ())
        return settled(figure)


def joint_figure(content: Densities) -> Figure:
    """Return the densities of two angles at a time, the pool left and UBHPD right, on one logarithmic scale."""
    columns = [t for t in (content.pool, content.ubhpd) if t is not None]
    shares = [[_share(tally.joint[p]) for tally in columns] for p in range(len(PAIRS))]
    positive = np.concatenate([s[s > 0] for row in shares for s in row])
    panel_in = 2.35
    low, high = (float(positive.min()), float(positive.max())) if len(positive) else (0.1, 1.0)
    with styled():
        figure = new_figure(1.0 + panel_in * len(columns), 7.6)
        grid = figure.subplots(len(PAIRS), len(columns), squeeze=False)
        norm = LogNorm(low if low < high else high / 10, high)
        for (p, k), axes in np.ndenumerate(grid):
            across, up = PAIRS[p]
            shown = np.ma.masked_equal(shares[p][k].T, 0)
            mesh = axes.pcolormesh(
                EDGES_DEG, EDGES_DEG, shown, norm=norm, cmap=SEQUENTIAL, edgecolors="face", linewidth=0.3
            )
            axes.set(xlabel=f"{ANGLES[across]} (degrees)", ylabel=f"{ANGLES[up]} (degrees)", aspect="equal")
            axes.set(xticks=_ticks(panel_in), yticks=_ticks(panel_in), facecolor=NOTHING)
            axes.spines[["top", "right"]].set_visible(True)
            outside = columns[k].heads - int(columns[k].joint[p].sum())
            axes.set_title(_outside(outside))
            is_rolls = ANGLES[across] == "yaw" and ANGLES[up] == "roll"
            if is_rolls and (share := rolled_share(columns[k].joint[p])) is not None:
                degree = "\N{DEGREE SIGN}"
                text = f"|yaw| > {RARE_YAW_DEG}{degree}: {share:.0%} with |roll| > {LARGE_ROLL_DEG}{degree}"
                axes.text(0.5, 0.03, text, transform=axes.transAxes, ha="center", fontsize=SMALL_PT, color="0.25")
            if p == 0:
                _column_title(axes, columns[k], panel_in)
        bar = figure.colorbar(mesh, ax=grid, shrink=0.6, aspect=35, pad=0.02)
        bar.set_label("share of heads per cell of 12 x 12 degrees (log scale); white: none")
        return settled(figure)


def overlay_figure(content: Densities) -> Figure:
    """Return the density of each angle in the pool and in UBHPD on top of each other, and the target."""
    layers = [
        (tally, label, look)
        for tally, label, look in (
            (content.pool, f"{POOL} (before)", BEFORE_LOOK),
            (content.ubhpd, f"{UBHPD} (after)", AFTER_OVER_LOOK),
        )
        if tally is not None
    ]
    with styled():
        figure = new_figure(7.2, 3.0)
        for j, axes in enumerate(figure.subplots(1, len(ANGLES))):
            for tally, _, look in layers:
                _bars(axes, tally, j, look)
            _finish(axes, j, content.target, [tally for tally, _, _ in layers], _WIDE_PANEL_IN)
            axes.set_title("\n".join(f"{t.name}: {_outside(n)}" for t, _, _ in layers if (n := t.outside[j])))
            axes.set_xlabel(f"{ANGLES[j]} (degrees)")
            if j == 0:
                axes.set_ylabel("share per bin")
        looks = {f"{label}, {tally.heads:,} heads": look for tally, label, look in layers}
        _legend(figure, content, looks, always=True)
        return settled(figure)


def _csv(table: pd.DataFrame) -> str:
    cells = table.astype(object).where(table.notna(), None)
    return csv_lines([list(table), *cells.itertuples(index=False, name=None)])


FIGURES: dict[str, Callable[[Densities], Figure]] = {
    "density": density_figure,
    "joint": joint_figure,
    "overlay": overlay_figure,
}


def _share(counts: IntArray) -> FloatArray:
    return bins.densities(counts.ravel()).reshape(counts.shape)


def _drawable(tally: Tally, angle: int) -> FloatArray:
    return np.nan_to_num(bins.densities(tally.inside[angle]))


def _outside(heads: int) -> str:
    return f"{heads:,} outside" if heads else ""


def display_name(dataset: str) -> str:
    """Return the usual short name of a dataset, as "300W-LP" for 300wlp; a name that is not known stays as it is."""
    builder = builders().get(dataset)
    if builder is None:
        return dataset
    acronym = re.search(r"\((\w+)\)$", builder.TITLE)
    return acronym[1] if acronym else builder.TITLE.split()[0].rstrip(":")


def target_label(target: FloatArray) -> str:
    """Return what the legend calls a target (3, 15): with its sigma if it is Gaussian."""
    if np.allclose(target, targets.uniform(), atol=1e-6):
        return f"{TARGET} (uniform)"
    sigmas = [_sigma_of(row) for row in target]
    if None in sigmas:
        return TARGET
    texts = [f"{sigma:.3g}\N{DEGREE SIGN}" for sigma in sigmas]
    return f"{TARGET} (Gaussian, sigma {texts[0] if len(set(texts)) == 1 else ', '.join(texts)})"


def _sigma_of(row: FloatArray) -> float | None:
    """Return the sigma in degrees of the Gaussian that a density (15,) is; None if it is none."""
    middle = N_BINS // 2

    def excess(sigma_deg: float) -> float:
        return float(targets.gaussian(sigma_deg)[0, middle] - row[middle])

    if excess(_SIGMAS_DEG[0]) > 0.0 > excess(_SIGMAS_DEG[1]):
        sigma = float(brentq(excess, *_SIGMAS_DEG, xtol=1e-9))
        if np.allclose(row, targets.gaussian(sigma)[0], atol=1e-6):
            return sigma
    return None


def _ticks(panel_in: float) -> IntArray:
    """Return the ticks of an angle in degrees: fewer on a narrow panel, but always those at -90 and 90."""
    return np.arange(-90, 91, 30 if panel_in > _WIDE_PANEL_IN else 45)


def _bars(axes: Axes, tally: Tally, angle: int, look: Look) -> None:
    axes.bar(CENTRES_DEG, _drawable(tally, angle), bins.WIDTH_DEG, **look)
    if not tally.inside[angle].any():
        axes.text(0.5, 0.5, "none inside the bins", transform=axes.transAxes, ha="center", va="center")


def _finish(axes: Axes, angle: int, target: FloatArray | None, row: Sequence[Tally], panel_in: float) -> None:
    """Draw the target, and scale the panel so that nothing in its row is cut off."""
    drawn = [_drawable(tally, angle) for tally in row]
    if target is not None:
        axes.plot(CENTRES_DEG, target[angle], zorder=4, **TARGET_LOOK)
        drawn.append(target[angle])
    axes.set(xlim=(-LIMIT_DEG, LIMIT_DEG), xticks=_ticks(panel_in), ylim=(0, _HEADROOM * float(np.max(drawn)) or 1.0))
    axes.grid(axis="y")


def _column_title(axes: Axes, tally: Tally, width_in: float) -> None:
    """Write name and heads above a column; the heads are the same in all its panels."""
    name = display_name(tally.name)
    size = min(TITLE_PT, 100 * width_in / len(name))
    axes.annotate(
        name, (0.5, 1), (0, 26), "axes fraction", "offset points", ha="center", fontweight="bold", fontsize=size
    )
    axes.annotate(
        f"{tally.heads:,} heads", (0.5, 1), (0, 15), "axes fraction", "offset points", ha="center", fontsize=SMALL_PT
    )


def _legend(
    figure: Figure, content: Densities, looks: dict[str, Look], sides: Iterable[str] = (), always: bool = False
) -> None:
    """Add a legend below the figure, unless only one kind of thing is drawn; `always`: then, too."""
    handles: list[Patch | Line2D] = [Patch(label=name, **look) for name, look in looks.items()]
    handles += [Line2D([], [], label=f"{UBHPD} {side}", **_LOOK_OF_SIDE[side]) for side in sides]
    if content.target is not None:
        handles.append(Line2D([], [], label=target_label(content.target), **TARGET_LOOK))
    if len(handles) > 1 or always:
        columns = max(2, int(figure.get_figwidth() / _LEGEND_ENTRY_IN))
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), columns))


_THICKEST_PT = 3.0
_RIM_PT = 1.2  # of white, so that lines are seen on dark images too
_SHORTER_SIDE_IN = 3.2


def draw_graph(image: AnyArray, landmarks_xy: npt.ArrayLike, adjacency: npt.ArrayLike) -> Figure:
    """Return the image with a line for each edge: the larger its weight, the thicker and darker.

    An undirected edge has the mean of the two weights; a node's edge to itself is not drawn. Unknown nodes (NaN) and
    their edges are left out.

    Args:
        image: (height, width, 3), uint8, BGR.
        landmarks_xy: nodes (K, 2) in pixels of the image.
        adjacency: weights (K, K), 0 for no edge.

    Raises:
        UbhpdError: sizes that do not agree, or weights that are negative or not finite.
    """
    places, weights = _checked(np.asarray(landmarks_xy, dtype=float), np.asarray(adjacency, dtype=float))
    first, second = np.nonzero(np.triu(weights, k=1))
    known = np.asarray(np.isfinite(places).all(axis=1))
    kept = known[first] & known[second]
    first, second = first[kept], second[kept]
    order = np.argsort(weights[first, second], kind="stable")  # the strongest on top
    first, second = first[order], second[order]
    height, width = image.shape[:2]
    inch = _SHORTER_SIDE_IN / min(height, width)
    with styled():
        figure = new_figure(width * inch, height * inch + 0.3)
        axes = figure.add_subplot()
        axes.imshow(image[..., ::-1])
        _add_edges(figure, axes, np.stack([places[first], places[second]], axis=1), weights[first, second])
        axes.plot(
            *places[known].T, "o", color=BLACK, markerfacecolor="white", markersize=3.2, zorder=3, markeredgewidth=0.8
        )
        axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        axes.set_axis_off()
        return settled(figure)


def draw_activations(rows: Sequence[Sequence[tuple[AnyArray, AnyArray | None]]], titles: Sequence[str]) -> Figure:
    """Return a grid of crops with what decides on them laid over: the darker, the more (as figure 10 of DADL).

    Args:
        rows: of images; each is (crop (size, size, 3) BGR, share (size, size) from 0 to 1), None for the crop alone.
        titles: of the columns.
    """
    with styled():
        figure = new_figure(1.25 * len(titles), 1.25 * len(rows) + 0.3)
        axes = figure.subplots(len(rows), len(titles), squeeze=False)
        for row, own in zip(axes, rows, strict=True):
            for place, (image, share) in zip(row, own, strict=True):
                place.imshow(image[..., ::-1])
                if share is not None:
                    place.imshow(share, cmap=SEQUENTIAL, vmin=0, vmax=1, alpha=0.25 + 0.5 * np.asarray(share))
                place.set_axis_off()
        for place, title in zip(axes[0], titles, strict=True):
            place.set_title(title, fontsize=6)
        return settled(figure)


def draw_structures(image: AnyArray, maps: AnyArray, scorings: Sequence[str]) -> Figure:
    """Return the fine-grained structures of an FSA-Net beside the crop (figure 5 of FSA-Net).

    Args:
        image: the crop (size, size, 3), BGR.
        maps: (scoring, stage, structure, map, side, side) from 0 to 1; of the maps the deepest is the first.
        scorings: names of the first axis.
    """
    scores, stages, structures, depths = maps.shape[:4]
    with styled():
        figure = new_figure(0.62 * (structures * depths + 2), 0.62 * scores * stages + 0.5)
        grid = figure.add_gridspec(scores * stages, structures * depths + 2)
        face = figure.add_subplot(grid[:, :2])
        face.imshow(image[..., ::-1])
        face.set_axis_off()
        for row in range(scores * stages):
            for column in range(structures * depths):
                place = figure.add_subplot(grid[row, column + 2])
                own = maps[row // stages, row % stages, column // depths, column % depths]
                place.imshow(own, cmap=SEQUENTIAL, vmin=0, vmax=1)
                place.set(xticks=[], yticks=[])
                if row == 0 and column % depths == 0:
                    place.set_title(f"row {column // depths + 1}", fontsize=6, loc="left")
                if column == 0:
                    place.set_ylabel(f"{scorings[row // stages]}, k = {row % stages + 1}", fontsize=5)
        return settled(figure)


def draw_similarity(curves: Sequence[Any]) -> Figure:
    """Return the similarity of heads with the frontal one by each angle, and the curves fitted to it.

    They are figures 1, 4 and 5 of DADL.

    Args:
        curves: with angle, centres_deg, similarity, offset, mu_deg and sigma_deg, as `ubhpd.inference.similarity` gives
            them.
    """
    with styled():
        figure = new_figure(2.0 * len(curves), 1.9)
        for place, own in zip(np.atleast_1d(figure.subplots(1, len(curves), sharey=True)), curves, strict=True):
            place.plot(own.centres_deg, own.similarity, "o", color=BLUE, markersize=2.5)
            if np.isfinite(own.sigma_deg):
                x = np.linspace(min(own.centres_deg), max(own.centres_deg), 200)
                bell = np.exp(-((x - own.mu_deg) ** 2) / (2 * own.sigma_deg**2))
                place.plot(x, own.offset + (1 - own.offset) * bell, color=VERMILLION, linewidth=1)
                place.set_title(f"mu {own.mu_deg:+.1f}, sigma {own.sigma_deg:.1f} degrees", fontsize=6)
            place.set_xlabel(f"{own.angle}, degrees")
        figure.axes[0].set_ylabel("similarity with 0")
        return settled(figure)


def draw_landmark_study(points: Sequence[Any]) -> Figure:
    """Return the errors of pose from landmarks by their number, noise, stretch of the face and source.

    They are figures 3 to 6 of Hopenet.

    Args:
        points: with figure, points, amount and mae, as `ubhpd.experiments.landmark_study` gives them.
    """
    panels = {"number": "number of landmarks", "noise": "noise, pixels", "width": "width of the face, %",
              "height": "height of the face, %", "estimated": "landmarks of the other file"}  # fmt: skip
    there = [name for name in panels if any(p.figure == name for p in points)]
    looks = (("o", BLUE), ("s", VERMILLION), ("^", GREEN), ("D", PURPLE))
    counts = sorted({p.points for p in points})
    with styled():
        figure = new_figure(1.7 * len(there), 1.8)
        for place, name in zip(np.atleast_1d(figure.subplots(1, len(there))), there, strict=True):
            own = [p for p in points if p.figure == name]
            if name in ("number", "estimated"):
                place.bar([str(p.points) for p in own], [p.mae for p in own], color=SKY, edgecolor=BLUE, linewidth=0.5)
            else:
                for count, (marker, colour) in zip(counts, looks, strict=False):
                    line = [(p.amount, p.mae) for p in own if p.points == count]
                    place.plot(*zip(*line, strict=True), marker=marker, color=colour, markersize=2.5, label=f"{count}")
                place.legend(title="landmarks", fontsize=5, title_fontsize=5)
            place.set(xlabel=panels[name], ylim=(0, None))
        figure.axes[0].set_ylabel("MAE, degrees")
        return settled(figure)


def _add_edges(figure: Figure, axes: Any, ends: AnyArray, weights: AnyArray) -> None:
    """Draw edges (m, 2 ends, 2) by weight, with a legend of the thickest and the thinnest line."""
    if not len(weights):
        return
    share = weights / weights.max()
    colours = SEQUENTIAL(0.15 + 0.75 * share)
    widths = _THICKEST_PT * share
    axes.add_collection(LineCollection(list(ends), linewidths=widths + _RIM_PT, colors="white", zorder=1.5))
    axes.add_collection(LineCollection(list(ends), linewidths=widths, colors=colours, zorder=2))
    ends_of_scale = sorted({0, len(weights) - 1})  # weights are in ascending order
    lines = [Line2D([], [], color=colours[i], linewidth=widths[i]) for i in ends_of_scale]
    figure.legend(lines, [f"{weights[i]:.2f}" for i in ends_of_scale], loc="outside lower center", ncols=2)


def _checked(places: AnyArray, weights: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Return nodes (K, 2) and symmetric weights (K, K)."""
    nodes = len(places)
    if places.shape != (nodes, 2) or weights.shape != (nodes, nodes):
        shapes = f"landmarks of shape {places.shape} and a graph of shape {weights.shape}"
        raise UbhpdError(f"Cannot draw {shapes}: give (K, 2) and (K, K).")
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise UbhpdError("Cannot draw a graph with weights that are negative or not finite: give numbers from 0 on.")
    return places, (weights + weights.T) / 2
