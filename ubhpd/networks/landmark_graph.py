"""A graph of a face out of the heat maps of its landmarks: one-step graph generation (OsGG-Net, section 4.2).

The paper can be read in several ways and its code does otherwise; each choice has a name here, and baselines/osggnet.py
says which is whose.
"""

from __future__ import annotations

from typing import Literal

import torch

from ubhpd.networks.soft_argmax import softmax_maps, values_at

MapReading = Literal["logits", "softmax"]
IndexReading = Literal["row-column", "column-row"]
MaskReading = Literal["inf", "multiply"]
SumReading = Literal["mean", "sum"]
ClipReading = Literal["prune", "floor"]


def affinities(logits: torch.Tensor, places: torch.Tensor, maps: MapReading, index: IndexReading) -> torch.Tensor:
    """Return F (n, K, K) of equation 6: F[k, j] is what map k says at the place of landmark j.

    Args:
        logits: heat maps (n, K, side, side) before any softmax.
        places: predicted landmarks x, y (n, K, 2) from -0.5 to 0.5.
        maps: "logits" reads H itself, as equation 6 is printed; "softmax" the probabilities, as the code does.
        index: "row-column" reads row y, column x; "column-row" row x, column y, an error of the code, which also
            cuts to whole cells of a grid that is half a cell off.
    """
    side = logits.shape[-1]
    if index == "row-column":
        cells = ((places + 0.5) * side).long().clamp(0, side - 1)
        columns, rows = cells.unbind(-1)
    else:
        cells = ((places + 0.5) * side - 0.5).long().clamp(0, side - 1)
        rows, columns = cells.unbind(-1)
    return values_at(softmax_maps(logits) if maps == "softmax" else logits, columns, rows)


def adjacency(affinity: torch.Tensor, allowed: torch.Tensor, mask: MaskReading, total: SumReading) -> torch.Tensor:
    """Return A + A^T (n, K, K), or half of it, of affinities (n, K, K), A their softmax by rows (equations 7 and 8).

    Args:
        affinity: F of `affinities`.
        allowed: which nodes (K, K) the node of the row may be joined to, at least one each.
        mask: "inf" takes the others out of the softmax; "multiply", printed and released, makes their affinity 0,
            which the softmax counts as exp(0).
        total: "mean" is (A + A^T) / 2, as printed; "sum" A + A^T, as released.
    """
    masked = affinity.masked_fill(~allowed, -torch.inf) if mask == "inf" else affinity * allowed
    weights = masked.softmax(dim=2)
    both = weights + weights.transpose(1, 2)
    return both / 2 if total == "mean" else both


def clipped(graph: torch.Tensor, threshold: float, clip: ClipReading) -> torch.Tensor:
    """Return a graph (n, K, K) without its weak edges: "prune" makes entries up to the threshold 0.

    "floor" raises them to it, as equation 8 is printed, against its own text.
    """
    return graph.clamp(min=threshold) if clip == "floor" else graph * (graph > threshold)


def entries(graph: torch.Tensor) -> torch.Tensor:
    """Return sum |A~_ij| (n,) of graphs (n, K, K): the sparse loss (equation 9), and the dense one as printed (10)."""
    return graph.abs().sum(dim=(1, 2))


def missing_degree(graph: torch.Tensor, wanted: float = 1.0) -> torch.Tensor:
    """Return sum_i relu(wanted - sum_j!=i A~_ij) (n,): what nodes lack in edges to others.

    A reading of the dense loss, whose text speaks of row sums: the released code counts the columns that reach
    `wanted`, and this is the differentiable form of its indicator.
    """
    degree = graph.sum(dim=2) - graph.diagonal(dim1=1, dim2=2)
    return (wanted - degree).relu().sum(dim=1)


def released_graph_loss(graph: torch.Tensor, sparse_weight: float, dense_weight: float) -> torch.Tensor:
    """Return sparse_weight sum |A~ - I| - dense_weight count (n,), as released: the columns of A~ - I that reach 1.

    The count has no gradient, and of the sum, since rows of a softmax sum to 1, only the diagonal has one.
    """
    other = graph - torch.eye(graph.shape[-1], device=graph.device, dtype=graph.dtype)
    count = (other.sum(dim=1) >= 1).sum(dim=1)
    return sparse_weight * entries(other) - dense_weight * count
