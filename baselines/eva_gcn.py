"""EVA-GCN: graph convolution over 19 landmarks of a face gives the head pose; no image is seen.

A fixed graph joins the landmarks (40 edges and each node with itself), divided by the degree of the node that takes,
into three partitions as in Yan et al., Spatial Temporal Graph Convolutional Networks, AAAI 2018: a node itself; nodes
as far from the centre of the face, the nose base, or farther; nodes nearer. Distances end at one edge in their code,
and so here: nodes that do not touch the centre are all equally far. Five graph blocks (`GraphPose` of
`ubhpd.nn.graphs`), each with a learned weight for every edge: that is the edge attention of the paper.

Of the rest of the paper's attention nothing can be built. Adaptive channel attention and the densely connected
architecture are not in the released code. Its vertex attention wants a third channel, the confidence of each landmark,
that no released configuration has, and hands a list of parameters where a tensor is needed, so it does not run. Hence
`eva_gcn` is the paper's graph network with edge attention only, and the printed row is that of the whole.

The released files disagree, too: that with vertex attention has five blocks after a batch normalisation of the
coordinates, that without has a sixth block of 128 channels and leaves the normalisation out. Five with it are built
here, as in OsGG-Net of the same authors. The loss weighs pitch by 1.5; their script writes labels as yaw, pitch,
roll and the training reads pitch, yaw, roll, and what comes between was not released.

Landmarks were FAN's, found in crops with a margin of 0.6, and images without were left out, of the test sets too.
Here they are those of the manifest, a dataset's own or filled in by `ubhpd landmarks`; those of warped 300W-LP images
have to be filled in (`ubhpd landmarks --from projected`), as pt2d is of another image. Places count in the crop of
`osggnet`, which is the same; the first normalisation makes their unit irrelevant. A landmark that is not known is put
amid its neighbours in the graph that are known, ring by ring; a head without any of the 19 has no pose (NaN) and does
not count in the loss. No weights were published, so there is nothing to import.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import numpy as np
import torch

from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import BoolArray, Float32Array
from ubhpd.nn.contract import InputRecipe, Output, PoseNetwork, Target, TrainingRecipe
from ubhpd.nn.graphs import GraphPose
from ubhpd.nn.landmark_sets import LANDMARK_SETS, mirror_of

TITLE = "EVA-GCN"
PAPER = "Xin, Mo and Lin, EVA-GCN: Head Pose Estimation Based on Graph Convolutional Networks, CVPR Workshops 2021"
CODE = "https://github.com/stoneMo/EVA-GCN"
LICENSE = "the code has none; no weights were published"
KIND = "landmarks"
MODELS: dict[str, dict[str, object]] = {"eva_gcn": {}}
PARAMETERS = {"eva_gcn": 145526}
REPORTED = {"eva_gcn": "EVA-GCN"}

NODES = LANDMARK_SETS[19]
CENTRE = 33  # the nose base
# Landmarks joined in the released graph, each pair of it or the mirror image of one.
_HALF_EDGES = (
    *((1, 3), (3, 8), (1, 17), (3, 17), (3, 36), (3, 31), (3, 48)),  # jaw
    *((17, 21), (17, 36), (21, 39), (21, 45)),  # brow
    *((36, 39), (31, 36), (39, 42), (33, 39), (39, 48)),  # eye
    *((31, 33), (31, 48), (31, 51), (33, 51)),  # nose
    (8, 48),
)
_LONGEST_WAY = 4  # edges between two nodes


@dataclass(frozen=True)
class Config:
    """Options.

    graph_blocks: how many. learns_edges: whether each block has a learned weight for each entry of the graph (edge
    attention). yaw_weight, pitch_weight, roll_weight: of the squared errors in degrees.
    """

    graph_blocks: int = 5
    learns_edges: bool = True
    yaw_weight: float = 0.001
    pitch_weight: float = 0.0015
    roll_weight: float = 0.001

    def __post_init__(self) -> None:
        if self.graph_blocks < 2:
            raise UbhpdError(f"EVA-GCN's graph_blocks is {self.graph_blocks}: give 2 or more.")
        for name in ("yaw_weight", "pitch_weight", "roll_weight"):
            if not (isfinite(found := getattr(self, name)) and found >= 0):
                raise UbhpdError(f"EVA-GCN's {name} is {found}: give a number from 0 on.")


def input_recipe(config: Config) -> InputRecipe:
    """Return the crops of the released code, in whose shares places are given."""
    return InputRecipe(crop="osggnet", size=256, crop_of=(("biwi", "osggnet-biwi"),))


def training_recipe(config: Config) -> TrainingRecipe:
    """Return the released configuration of 300W-LP; the code augments nothing."""
    return TrainingRecipe(
        epochs=200, batch_size=256, lr=0.1, optimizer="sgd", momentum=0.9, nesterov=True, weight_decay=1e-4,
        schedule="step", milestones=(50, 100, 150, 170), gamma=0.2,
    )  # fmt: skip


class Network(PoseNetwork):
    """Landmarks (n, 68, 2) as in `Target` to nodes and pose.

    Output: nodes (n, 19, 2), unknown ones filled in; known (n,), whether any was known; pose (n, 3), yaw, pitch, roll
    in degrees, NaN where none was.
    """

    config: Config
    landmark_indices: torch.Tensor
    graph: torch.Tensor
    joined: torch.Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        graph = torch.from_numpy(partitions())
        self.graph_pose = GraphPose(len(NODES), config.graph_blocks, len(graph), config.learns_edges)
        self.register_buffer("landmark_indices", torch.tensor(NODES), persistent=False)
        self.register_buffer("graph", graph, persistent=False)
        self.register_buffer("joined", torch.from_numpy(joined().astype(np.float32)), persistent=False)

    def forward(self, landmarks: torch.Tensor) -> Output:
        """Return the network's output, see above."""
        places = landmarks[:, self.landmark_indices]
        known = places.isfinite().all(dim=2)
        nodes = filled(places, known, self.joined)
        any_known = known.any(dim=1)
        pose = torch.where(any_known.unsqueeze(1), self.graph_pose(nodes, self.graph), torch.nan)
        return {"nodes": nodes, "known": any_known, "pose": pose}

    def pose(self, output: Output) -> torch.Tensor:
        """Return yaw, pitch, roll (n, 3) in degrees."""
        return output["pose"]

    def loss(self, output: Output, target: Target) -> Output:
        """Return the weighted squared errors of the angles in degrees, the mean over the heads with a pose."""
        c, known = self.config, output["known"]
        errors = torch.where(known.unsqueeze(1), output["pose"] - target.angles_deg, 0.0) ** 2
        yaw, pitch, roll = errors.sum(dim=0)
        return {"pose": (c.yaw_weight * yaw + c.pitch_weight * pitch + c.roll_weight * roll) / known.sum().clamp(min=1)}


def joined() -> BoolArray:
    """Return which nodes (19, 19) an edge joins; none with itself."""
    position = {landmark: node for node, landmark in enumerate(NODES)}
    mirror = mirror_of(NODES)
    edges = np.zeros((len(NODES), len(NODES)), dtype=bool)
    for a, b in ((position[a], position[b]) for a, b in _HALF_EDGES):
        edges[[a, b, mirror[a], mirror[b]], [b, a, mirror[b], mirror[a]]] = True
    return edges


def partitions() -> Float32Array:
    """Return the graph (3, 19, 19): what node w (column) takes from itself, from nodes as far or farther, from nearer.

    All that a node takes adds up to 1.
    """
    itself, others = np.eye(len(NODES), dtype=bool), joined()
    centre = NODES.index(CENTRE)
    distance = np.where(itself[centre], 0, np.where(others[centre], 1, 2))
    is_nearer = distance[:, None] < distance
    share = (itself | others) / (itself | others).sum(axis=0)
    return np.stack([share * itself, share * (others & ~is_nearer), share * (others & is_nearer)]).astype(np.float32)


def filled(places: torch.Tensor, known: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
    """Return places (n, K, 2) with each unknown node at the mean of its known neighbours; 0 where none is known at all.

    Args:
        places: anything where not known.
        known: (n, K).
        neighbours: 1 where two nodes (K, K) are joined, else 0. Nodes that are filled in count as known for the next.
    """
    is_set = known.unsqueeze(2)
    values = torch.where(is_set, places, 0.0)
    for _ in range(_LONGEST_WAY):
        count = neighbours @ is_set.to(values.dtype)
        is_new = ~is_set & (count > 0)
        values = torch.where(is_new, neighbours @ values / count.clamp(min=1), values)
        is_set = is_set | is_new
    return values
