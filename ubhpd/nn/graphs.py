"""From heat maps to coordinates and back to cells of the map.

Coordinates are those of `contract.Target`: x and y from -0.5 at the left and top edge to 0.5, so that a map and the
image it belongs to agree for all sizes: the middle of column i of n lies at (i + 0.5) / n - 0.5.

A graph of a face out of the heat maps of its landmarks: one-step graph generation (OsGG-Net, section 3.2).

The paper can be read in several ways and its code does otherwise; each choice has a name here, and baselines/osggnet.py
says which is whose.

Head pose from landmarks by graph convolution: the network that EVA-GCN and OsGG-Net share.

Its block is that of Yan et al., Spatial Temporal Graph Convolutional Networks, AAAI 2018, for a single frame. A graph
is a stack of P adjacency matrices, its partitions, (P, K, K), or one such stack per head (n, P, K, K). Column w of a
matrix tells how much node w takes from each node; nothing is normalised by degree, and a node sees itself only where
the diagonal says so.

Images to heat maps of landmarks: a backbone that keeps its last map at 1/16, and a decoder up to 1/4.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from ubhpd.core.errors import UbhpdError
from ubhpd.nn.backbone import initialise_convolutions
from ubhpd.nn.backbones import backbone
from ubhpd.nn.resnets import BasicBlock


def soft_argmax(probabilities: torch.Tensor) -> torch.Tensor:
    """Return the mean place x, y (n, K, 2) of maps (n, K, h, w) that each sum to 1, differentiable.

    Sun et al., Integral Human Pose Regression, ECCV 2018; equations 2 and 4 of OsGG-Net, whose columns count from 1.
    """
    height, width = probabilities.shape[-2:]
    x = (probabilities.sum(dim=-2) * middles(width, probabilities)).sum(dim=-1)
    y = (probabilities.sum(dim=-1) * middles(height, probabilities)).sum(dim=-1)
    return torch.stack([x, y], dim=-1)


def softmax_maps(logits: torch.Tensor) -> torch.Tensor:
    """Return logits (n, K, h, w) as probabilities: the softmax over all cells of a map (OsGG-Net, equation 3)."""
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
        allowed: which nodes (K, K) the node of the row may be joined to.
        mask: "inf" takes the others out of the softmax, and a row without any has no edge; "multiply", printed and
            released, makes their affinity 0, which the softmax counts as exp(0).
        total: "mean" is (A + A^T) / 2, as printed; "sum" A + A^T, as released.
    """
    masked = affinity.masked_fill(~allowed, -torch.inf) if mask == "inf" else affinity * allowed
    weights = masked.softmax(dim=2)
    if mask == "inf":  # a row without any is a softmax of nothing
        weights = torch.where(allowed.any(dim=1, keepdim=True), weights, 0.0)
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
            raise UbhpdError(f"The network has {blocks} graph blocks: choose 2 or more.")
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


# "thin" is four residual blocks of 32 to 128 channels: about a hundredth of ResNet-34's work, for small images.
LANDMARK_BACKBONES = ("resnet18", "resnet34", "resnet50", "thin")
_THIN = 32


class LandmarkNetwork(nn.Module):
    """The landmark network of OsGG-Net: 21,459,283 parameters with ResNet-34, a width of 256 and 19 landmarks.

    Three 1x1 convolutions with BN and ReLU, of `width`, half and a quarter of it, the first two after a bilinear
    doubling whose corners stay in place, and a last 1x1 convolution.

    Args:
        name: one of LANDMARK_BACKBONES; a ResNet has layer 4 at stride 1.
        width: channels of the decoder's first block.
        landmarks: K.
    """

    def __init__(self, name: str, width: int, landmarks: int) -> None:
        super().__init__()
        self.backbone: nn.Module
        if name == "thin":
            self.backbone, channels = _thin_backbone(), 4 * _THIN
        else:
            self.backbone = backbone(name, strides=(1, 2, 2, 1))
            channels = self.backbone.channels
        self.decoder = nn.Sequential(
            nn.UpsamplingBilinear2d(scale_factor=2),
            *_pointwise(channels, width),
            nn.UpsamplingBilinear2d(scale_factor=2),
            *_pointwise(width, width // 2),
            *_pointwise(width // 2, width // 4),
            nn.Conv2d(width // 4, landmarks, 1),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (n, K, side/4, side/4) of images (n, 3, side, side), side a multiple of 16."""
        logits: torch.Tensor = self.decoder(self.backbone(images))
        return logits


def _pointwise(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


def _thin_backbone() -> nn.Sequential:
    network = nn.Sequential(
        nn.Conv2d(3, _THIN, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(_THIN),
        nn.ReLU(inplace=True),
        BasicBlock(_THIN, _THIN, 2),
        BasicBlock(_THIN, 2 * _THIN, 2),
        BasicBlock(2 * _THIN, 4 * _THIN, 2),
        BasicBlock(4 * _THIN, 4 * _THIN),
    )
    initialise_convolutions(network)
    return network
