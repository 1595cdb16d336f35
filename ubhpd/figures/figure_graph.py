"""The graph of a face drawn on its picture, as figure 5 of OsGG-Net (ACM MM 2021)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ubhpd.errors import UbhpdError
from ubhpd.figures import figure_style

_THICKEST_PT = 3.0
_RIM_PT = 1.2  # of white, so that lines are seen on dark pictures too
_SHORTER_SIDE_IN = 3.2


def draw_graph(picture: npt.NDArray[Any], landmarks_xy: npt.ArrayLike, adjacency: npt.ArrayLike) -> Figure:
    """Return the picture with a line for each edge, the thicker and darker the larger its weight.

    An undirected edge has the mean of the two weights; a node's edge to itself is not drawn. Nodes that are not known
    (NaN), and their edges, are left out.

    Args:
        picture: (height, width, 3), uint8, BGR.
        landmarks_xy: nodes (K, 2) in pixels of the picture.
        adjacency: weights (K, K), 0 for no edge.

    Raises:
        UbhpdError: sizes that do not agree, or weights that are negative or not finite.
    """
    places, weights = _checked(np.asarray(landmarks_xy, dtype=float), np.asarray(adjacency, dtype=float))
    first, second = np.nonzero(np.triu(weights, k=1))
    known = np.isfinite(places).all(axis=1)
    kept = known[first] & known[second]
    first, second = first[kept], second[kept]
    order = np.argsort(weights[first, second], kind="stable")  # the strongest on top
    first, second = first[order], second[order]
    height, width = picture.shape[:2]
    inch = _SHORTER_SIDE_IN / min(height, width)
    with figure_style.styled():
        figure = figure_style.new_figure(width * inch, height * inch + 0.3)
        axes = figure.add_subplot()
        axes.imshow(picture[..., ::-1])
        _add_edges(figure, axes, np.stack([places[first], places[second]], axis=1), weights[first, second])
        axes.plot(
            *places[known].T, "o", color=figure_style.BLACK, markerfacecolor="white", markersize=3.2, zorder=3,
            markeredgewidth=0.8,
        )  # fmt: skip
        axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        axes.set_axis_off()
        return figure_style.settled(figure)


def _add_edges(figure: Figure, axes: Any, ends: npt.NDArray[Any], weights: npt.NDArray[Any]) -> None:
    """Draw edges (m, 2 ends, 2) by weight, and tell what the thickest and the thinnest line mean."""
    if not len(weights):
        return
    share = weights / weights.max()
    colours = figure_style.SEQUENTIAL(0.15 + 0.75 * share)
    widths = _THICKEST_PT * share
    axes.add_collection(LineCollection(list(ends), linewidths=widths + _RIM_PT, colors="white", zorder=1.5))
    axes.add_collection(LineCollection(list(ends), linewidths=widths, colors=colours, zorder=2))
    told = sorted({0, len(weights) - 1})  # weights are in ascending order
    lines = [Line2D([], [], color=colours[i], linewidth=widths[i]) for i in told]
    figure.legend(lines, [f"{weights[i]:.2f}" for i in told], loc="outside lower center", ncols=2)


def _checked(places: npt.NDArray[Any], weights: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return nodes (K, 2) and symmetric weights (K, K)."""
    nodes = len(places)
    if places.shape != (nodes, 2) or weights.shape != (nodes, nodes):
        shapes = f"landmarks of shape {places.shape} and a graph of shape {weights.shape}"
        raise UbhpdError(f"Cannot draw {shapes}: give (K, 2) and (K, K).")
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise UbhpdError("Cannot draw a graph with weights that are negative or not finite: give numbers from 0 on.")
    return places, (weights + weights.T) / 2
