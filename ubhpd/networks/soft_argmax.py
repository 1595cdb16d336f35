"""From heat maps to coordinates and back to cells of the map.

Coordinates are those of `contract.Target`: x and y from -0.5 at the left and top edge to 0.5, so that a map and the
picture it belongs to agree whatever their sizes: the middle of column i of n lies at (i + 0.5) / n - 0.5.
"""

from __future__ import annotations

import torch


def soft_argmax(probabilities: torch.Tensor) -> torch.Tensor:
    """Return the mean place x, y (n, K, 2) of maps (n, K, h, w) that each sum to 1, differentiable.

    Sun et al., Integral Human Pose Regression, ECCV 2018; equations 3 and 4 of OsGG-Net, whose columns count from 1.
    """
    height, width = probabilities.shape[-2:]
    x = (probabilities.sum(dim=-2) * middles(width, probabilities)).sum(dim=-1)
    y = (probabilities.sum(dim=-1) * middles(height, probabilities)).sum(dim=-1)
    return torch.stack([x, y], dim=-1)


def softmax_maps(logits: torch.Tensor) -> torch.Tensor:
    """Return logits (n, K, h, w) as probabilities: the softmax over all cells of a map (OsGG-Net, equation 2)."""
    return logits.flatten(2).softmax(dim=2).view_as(logits)


def middles(count: int, like: torch.Tensor) -> torch.Tensor:
    """Return the coordinates (count,) of the middles of `count` columns, on the device and in the type of `like`."""
    return (torch.arange(count, device=like.device, dtype=like.dtype) + 0.5) / count - 0.5


def values_at(maps: torch.Tensor, columns: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return F (n, K, J) with F[k, j] = map k (n, K, h, w) in the cell of column j and row j (n, J), both integers.

    Gradient flows to the values, none to the choice of the cell.
    """
    cells = rows * maps.shape[-1] + columns
    return maps.flatten(2).gather(2, cells.unsqueeze(1).expand(-1, maps.shape[1], -1))
