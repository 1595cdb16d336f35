"""Pictures of densities: each dataset beside UBHPD, two angles at a time, before against after.

Figure `density` is laid out as figure 3 of OsGG-Net (ACM MM 2021). The figures take what `tallies.read` found in
manifests or `tallies.from_arrays` in arrays; heads outside the bins are told in every panel.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ubhpd import bins
from ubhpd.bins import ANGLES, CENTRES_DEG, EDGES_DEG, LIMIT_DEG
from ubhpd.errors import UbhpdError
from ubhpd.figures import figure_style
from ubhpd.files import replacing
from ubhpd.sampler import tallies
from ubhpd.sampler.tallies import PAIRS, POOL, SIDES, TARGET, UBHPD, Array, Densities, Tally, Whole

Look = dict[str, Any]  # keyword arguments of matplotlib's artists

_LOOK_OF_SIDE = dict(zip(SIDES, (figure_style.TRAIN, figure_style.TEST), strict=True))
_TICKS_DEG = np.arange(-60, 61, 30)
_HEADROOM = 1.06


def write(
    place: str | os.PathLike[str],
    names: Sequence[str] = ("density", "joint", "overlay"),
    folder: Path | None = None,
    formats: Sequence[str] = figure_style.FORMATS,
    target: str | None = None,
) -> list[Path]:
    """Draw figures of a build's folder, or of one manifest, write them and densities.csv, and return the paths.

    Args:
        place: as for `tallies.read`.
        names: which of FIGURES.
        folder: where to write; by default the folder `figures` beside the manifest.
        formats: which of figure_style.FORMATS.
        target: as for `tallies.target_for`.

    Raises:
        UbhpdError: an unknown figure, no usable head, or a folder that cannot be written. Nothing was written then.
    """
    if not names:
        raise UbhpdError(f"No figure was named: choose of {', '.join(FIGURES)}.")
    if unknown := [n for n in names if n not in FIGURES]:
        raise UbhpdError(f"There is no figure {unknown[0]!r}: choose of {', '.join(FIGURES)}.")
    content = tallies.read(place, tallies.target_for(place, target))
    files: dict[str, bytes] = {}
    for name in dict.fromkeys(names):
        figure = FIGURES[name](content)
        files |= {f"{name}.{form}": figure_style.encoded(figure, form) for form in dict.fromkeys(formats)}
    files["densities.csv"] = tallies.table(content).to_csv(index=False, lineterminator="\n").encode()
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
    with figure_style.styled():
        figure = figure_style.new_figure(0.6 + panel_in * len(columns), 5.4)
        grid = figure.subplots(len(ANGLES), len(columns), sharex=True, sharey="row", squeeze=False)
        for (j, k), axes in np.ndenumerate(grid):
            tally = columns[k]
            _bars(axes, tally, j, figure_style.AFTER if tally is content.ubhpd else figure_style.BEFORE)
            for side, own in tally.sides.items():
                axes.stairs(_drawable(own, j), EDGES_DEG, baseline=None, zorder=3, **_LOOK_OF_SIDE[side])
            _finish(axes, j, content.target, [t for c in columns for t in (c, *c.sides.values())])
            axes.set_title(_told(tally, j))
            if j == 0:
                _column_title(axes, tally.name, panel_in)
            if k == 0:
                axes.set_ylabel(f"{ANGLES[j]}: share per bin")
            if j == len(ANGLES) - 1:
                axes.set_xlabel("angle (degrees)")
        looks = {}
        if content.datasets:
            looks["dataset" if content.pool is not None else f"dataset inside {UBHPD}"] = figure_style.BEFORE
        if content.ubhpd is not None:
            looks[UBHPD] = figure_style.AFTER
        _legend(figure, content, looks, content.ubhpd.sides if content.ubhpd is not None else ())
        return figure_style.settled(figure)


def joint_figure(content: Densities) -> Figure:
    """Return the densities of two angles at a time, the pool left and UBHPD right, on one logarithmic scale."""
    columns = [t for t in (content.pool, content.ubhpd) if t is not None]
    shares = [[_share(tally.joint[p]) for tally in columns] for p in range(len(PAIRS))]
    positive = np.concatenate([s[s > 0] for row in shares for s in row])
    panel_in = 2.35
    low, high = (float(positive.min()), float(positive.max())) if len(positive) else (0.1, 1.0)
    with figure_style.styled():
        figure = figure_style.new_figure(1.0 + panel_in * len(columns), 7.6)
        grid = figure.subplots(len(PAIRS), len(columns), squeeze=False)
        norm = LogNorm(low if low < high else high / 10, high)
        for (p, k), axes in np.ndenumerate(grid):
            across, up = PAIRS[p]
            shown = np.ma.masked_equal(shares[p][k].T, 0)
            mesh = axes.pcolormesh(
                EDGES_DEG, EDGES_DEG, shown, norm=norm, cmap=figure_style.SEQUENTIAL, edgecolors="face", linewidth=0.3
            )
            axes.set(xlabel=f"{ANGLES[across]} (degrees)", ylabel=f"{ANGLES[up]} (degrees)", aspect="equal")
            axes.set(xticks=_TICKS_DEG, yticks=_TICKS_DEG, facecolor=figure_style.NOTHING)
            axes.spines[["top", "right"]].set_visible(True)
            outside = columns[k].heads - int(columns[k].joint[p].sum())
            axes.set_title(f"{columns[k].heads:,} heads, {outside:,} outside")
            if p == 0:
                _column_title(axes, columns[k].name, panel_in)
        bar = figure.colorbar(mesh, ax=grid, shrink=0.6, aspect=35, pad=0.02)
        bar.set_label("share of heads per cell of 12 x 12 degrees (log scale); white: none")
        return figure_style.settled(figure)


def overlay_figure(content: Densities) -> Figure:
    """Return the density of each angle in the pool and in UBHPD on top of each other, and the target."""
    layers = [
        (tally, label, look)
        for tally, label, look in (
            (content.pool, f"{POOL} (before)", figure_style.BEFORE),
            (content.ubhpd, f"{UBHPD} (after)", figure_style.AFTER_OVER),
        )
        if tally is not None
    ]
    with figure_style.styled():
        figure = figure_style.new_figure(7.2, 3.0)
        for j, axes in enumerate(figure.subplots(1, len(ANGLES))):
            for tally, _, look in layers:
                _bars(axes, tally, j, look)
            _finish(axes, j, content.target, [tally for tally, _, _ in layers])
            axes.set_title("\n".join(f"{tally.name}: {_told(tally, j)}" for tally, _, _ in layers))
            axes.set_xlabel(f"{ANGLES[j]} (degrees)")
            if j == 0:
                axes.set_ylabel("share per bin")
        _legend(figure, content, {label: look for _, label, look in layers})
        return figure_style.settled(figure)


FIGURES: dict[str, Callable[[Densities], Figure]] = {
    "density": density_figure,
    "joint": joint_figure,
    "overlay": overlay_figure,
}


def _share(counts: Whole) -> Array:
    return bins.densities(counts.ravel()).reshape(counts.shape)


def _drawable(tally: Tally, angle: int) -> Array:
    return np.nan_to_num(bins.densities(tally.inside[angle]))


def _told(tally: Tally, angle: int) -> str:
    return f"{tally.heads:,} heads, {tally.outside[angle]:,} outside"


def _bars(axes: Axes, tally: Tally, angle: int, look: Look) -> None:
    axes.bar(CENTRES_DEG, _drawable(tally, angle), bins.WIDTH_DEG, **look)
    if not tally.inside[angle].any():
        axes.text(0.5, 0.5, "none inside the bins", transform=axes.transAxes, ha="center", va="center")


def _finish(axes: Axes, angle: int, target: Array | None, row: Sequence[Tally]) -> None:
    """Draw the target, and scale the panel so that nothing in its row is cut off."""
    drawn = [_drawable(tally, angle) for tally in row]
    if target is not None:
        axes.plot(CENTRES_DEG, target[angle], zorder=4, **figure_style.TARGET)
        drawn.append(target[angle])
    axes.set(xlim=(-LIMIT_DEG, LIMIT_DEG), xticks=_TICKS_DEG, ylim=(0, _HEADROOM * float(np.max(drawn)) or 1.0))
    axes.grid(axis="y")


def _column_title(axes: Axes, text: str, width_in: float) -> None:
    axes.annotate(
        text, (0.5, 1), (0, 15), "axes fraction", "offset points", ha="center", fontweight="bold",
        fontsize=min(figure_style.TITLE_PT, 100 * width_in / len(text)),
    )  # fmt: skip


def _legend(figure: Figure, content: Densities, looks: dict[str, Look], sides: Iterable[str] = ()) -> None:
    """Say below the figure what is what, unless there is one thing only."""
    handles: list[Patch | Line2D] = [Patch(label=name, **look) for name, look in looks.items()]
    handles += [Line2D([], [], label=f"{UBHPD} {side}", **_LOOK_OF_SIDE[side]) for side in sides]
    if content.target is not None:
        handles.append(Line2D([], [], label=TARGET, **figure_style.TARGET))
    if len(handles) > 1:
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
