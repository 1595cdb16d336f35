"""Head pose from landmarks by graph convolution: the network that EVA-GCN and OsGG-Net share.

Its block is that of Yan et al., Spatial Temporal Graph Convolutional Networks, AAAI 2018, for a single frame. A graph
is a stack of P adjacency matrices, its partitions, (P, K, K), or one such stack per head (n, P, K, K). Column w of a
matrix tells how much node w takes from each node; nothing is normalised by degree, and a node sees itself only where
the diagonal says so.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from ubhpd.errors import UbhpdError


class GraphBlock(nn.Module):
    """ReLU(BN(C(ReLU(BN(sum_p C_p(x) A_p)))) + shortcut(x)), where each C mixes the channels of one node.

    Args:
        inputs, outputs: channels of a node before and after.
        partitions: P, matrices of the graph.
        has_shortcut: whether the input is added: as it is where the channels are the same, else through C and BN.
    """

    def __init__(self, inputs: int, outputs: int, partitions: int = 1, has_shortcut: bool = True) -> None:
        super().__init__()
        self.partitions = partitions
        self.spread = nn.Conv1d(inputs, outputs * partitions, 1)
        self.mix = nn.Sequential(
            nn.BatchNorm1d(outputs), nn.ReLU(), nn.Conv1d(outputs, outputs, 1), nn.BatchNorm1d(outputs)
        )
        self.shortcut: nn.Module | None = None
        if has_shortcut:
            same = inputs == outputs
            self.shortcut = (
                nn.Identity() if same else nn.Sequential(nn.Conv1d(inputs, outputs, 1), nn.BatchNorm1d(outputs))
            )

    def forward(self, nodes: torch.Tensor, graph: torch.Tensor) -> torch.Tensor:
        """Return nodes (n, outputs, K) of nodes (n, inputs, K) and a graph (P, K, K) or (n, P, K, K)."""
        spread = self.spread(nodes).unflatten(1, (self.partitions, -1))
        mixed: torch.Tensor = self.mix((spread @ graph).sum(dim=1))
        if self.shortcut is not None:
            mixed = mixed + self.shortcut(nodes)
        return functional.relu(mixed)


class GraphPose(nn.Module):
    """Yaw, pitch, roll in degrees of K nodes with a place each and a graph: 98,127 parameters for 19 nodes.

    BN of all coordinates, blocks of 64 channels (the first without a shortcut, the last of 128), the mean over the
    nodes, and two linear layers of 256 and 3.

    Args:
        nodes: K.
        blocks: graph blocks; the papers have 5.
        partitions: P, matrices of the graph.
        learns_edges: whether each block weighs each entry of the graph by a number of its own that is learned
            (EVA-GCN); they start at 1.

    Raises:
        UbhpdError: fewer than two blocks.
    """

    def __init__(self, nodes: int, blocks: int = 5, partitions: int = 1, learns_edges: bool = False) -> None:
        super().__init__()
        if blocks < 2:
            raise UbhpdError(f"A network of {blocks} graph blocks was asked for: choose 2 or more.")
        self.norm = nn.BatchNorm1d(2 * nodes)
        widths = [2, *[64] * (blocks - 1), 128]
        self.blocks = nn.ModuleList(
            GraphBlock(a, b, partitions, has_shortcut=i > 0) for i, (a, b) in enumerate(pairwise(widths))
        )
        self.edges = nn.ParameterList(
            torch.ones(partitions, nodes, nodes) for _ in self.blocks if learns_edges
        )  # one per block or none
        self.widen = nn.Conv1d(128, 256, 1)
        self.pose = nn.Linear(256, 3)
        self.apply(_initialise)

    def forward(self, places: torch.Tensor, graph: torch.Tensor) -> torch.Tensor:
        """Return yaw, pitch, roll (n, 3) of places (n, K, 2) and a graph (P, K, K) or (n, P, K, K)."""
        nodes = self.norm(places.flatten(1)).view_as(places).transpose(1, 2)
        for i, block in enumerate(self.blocks):
            nodes = block(nodes, graph * self.edges[i] if len(self.edges) else graph)
        pose: torch.Tensor = self.pose(self.widen(nodes.mean(dim=2, keepdim=True)).squeeze(2))
        return pose


def _initialise(module: nn.Module) -> None:
    """Draw weights as the released code of OsGG-Net does: normal, deviation 0.02, about 1 in a batch norm."""
    if isinstance(module, nn.Conv1d | nn.BatchNorm1d):
        nn.init.normal_(module.weight, 1.0 if isinstance(module, nn.BatchNorm1d) else 0.0, 0.02)
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]
