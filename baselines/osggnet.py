"""OsGG-Net: heat maps give landmarks, the same maps a graph between them, and graph convolution the head pose.

ResNet-34 with layer 4 at stride 1 and a decoder of 1x1 convolutions (the landmark network), soft-argmax, a graph out
of the heat maps (`ubhpd.nn.graphs`), five graph blocks (`GraphPose` of `ubhpd.nn.graphs`). Landmarks come from the
datasets here, where the authors took detections of FAN and dropped every image, of the test sets too, in which it
found none.

The paper does not determine the network, and the released code is another one, so there are two readings:

`osgg_paper` is a re-interpretation that works. Affinities are logits, as equation 6 is printed; nodes that are not
neighbours are taken out of the softmax, since 0 in it, as equation 7 is printed, counts as exp(0); edges up to t_clip
are pruned, as the text says and equation 8 does not. The dense loss, printed with the formula of the sparse one, is
what nodes lack to a degree of 1. Neighbours are by rule, the S nearest on a mean face, of equally far ones the first
in the order of iBUG: tables were released only for K = 19, S = 3 and 5, and not symmetric. Equation 7 prints a mask
with a block of S x S ones, which leaves K - S nodes without an edge: `search` block, for comparison. Coordinates of
map and image agree; printed, their grids are 1.5 pixels apart. S, t_clip, blocks and weights are those of the best
rows of tables 5 to 9, where weights are multiples of base values that are not given: here 1 for landmarks and pose,
0.01 for the graph, whose loss at 1 drowned the pose in trials. Tables 1 to 4 do not say their options: table 4's own
row is the untuned one of table 5. Unstated and thus as released: size 256, crops, a constant learning rate. Batch
size 16 is that of protocol 1; protocol 2 has 8.

`osgg_released` does what the code does. The softmax-normalised maps are read at [x, y] in place of [y, x]; their values
are so small that the softmax over them is flat: A + A^T is 2/19 everywhere for any image, to four digits on average.
So the pose depends on two linear functions of the 38 coordinates (docs/benchmarks/osgg-graph.md), and a t_clip of 0.106
leaves next to no edge. The 1/2 of equation 8 is missing. An in-place change makes cells 0 to 63 of the coordinates
that the graph sees and that the landmark loss compares with targets in -0.5 to 0.5. The dense loss is a count and has
no gradient, the sparse one has one on the diagonal only. No augmentation; the cosine schedule is never stepped; the
gradient is clipped by an iterator that is already empty; BGR is normalised with the statistics of RGB. Not reproduced
by design: the best of 300 epochs was chosen on the test set, and the mean error of batches was taken with a short last
batch divided by the full batch size. Neighbours are by rule here too: they hardly matter to a graph that is constant.

Rows that are one training. Where t_clip is 0 nothing is pruned, and the sparse loss is a constant: each row of the
softmax sums to 1, so that sum_ij |A~_ij| = sum_ij (A_ij + A_ji) / 2 = K for any weights of the network, and its
gradient is 0. Table 6 has t_clip 0, so its five rows of sparse weight 1, 5, 10, 15 and 20 with dense weight 1 differ by
nothing but the seed; what the paper prints for them, 3.36 to 3.84 degrees, is then the spread of training anew. So are
the last row of table 5 and the first of 6, the best of each table and the first, or S = 3, of the next: SAME_TRAINING.

Neither can be compared with the paper without ImageNet weights for the backbone. K = 34 and 68 (section 6.2) stand
before the tables of S, t_clip and blocks, so they have S = 3, t_clip = 0 and three blocks, as the row S=3 that they
are compared with. Of the model with K = 34 the list of landmarks is our own (`ubhpd.nn.landmark_sets`), and
`osgg_small` is for trying things out on a processor.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

import torch
from torch import nn
from torch.nn import functional

from ubhpd.core.errors import UbhpdError
from ubhpd.nn import graphs
from ubhpd.nn.contract import IMAGENET_MEAN, IMAGENET_STD, InputRecipe, Output, PoseNetwork, Target, TrainingRecipe
from ubhpd.nn.graphs import (
    LANDMARK_BACKBONES,
    ClipReading,
    GraphPose,
    IndexReading,
    LandmarkNetwork,
    MapReading,
    MaskReading,
    SumReading,
    soft_argmax,
    softmax_maps,
)
from ubhpd.nn.landmark_sets import LANDMARK_SETS, Ties, block, neighbours

TITLE = "OsGG-Net"
PAPER = "Mo and Miao, OsGG-Net: One-step Graph Generation Network for Unbiased Head Pose Estimation, ACM MM 2021"
CODE = "https://github.com/stoneMo/OsGG-Net"
LICENSE = "the code has none; no weights were published"
KIND = "image"
MODELS = {
    "osgg_paper": {},
    "osgg_paper_k34": {"landmarks": 34, "neighbours": 3, "clip": 0.0, "graph_blocks": 3},
    "osgg_paper_k68": {"landmarks": 68, "neighbours": 3, "clip": 0.0, "graph_blocks": 3},
    "osgg_released": {
        "neighbours": 5, "clip": 0.0, "graph_weight": 10.0, "map_reading": "softmax", "index_reading": "column-row",
        "mask_reading": "multiply", "sum_reading": "sum", "node_unit": "cells", "errors": "squared",
        "graph_loss": "released", "recipe": "released",
    },
    "osgg_small": {"size": 64, "backbone": "thin", "decoder_width": 64},
}  # fmt: skip
PARAMETERS = {
    "osgg_paper": 21557410,
    "osgg_paper_k34": 21541293,
    "osgg_paper_k68": 21543639,
    "osgg_released": 21557410,
    "osgg_small": 713410,
}
REPORTED = {
    "osgg_paper": "OsGG-Net",
    "osgg_paper_k34": "OsGG-Net: K=34",
    "osgg_paper_k68": "OsGG-Net: K=68",
    "osgg_released": "OsGG-Net",
}

# Rows of tables 5 to 9, each the options that differ from `osgg_paper`. The tables hang together: table 6 starts from
# the best row of 5, and so on to 9, whose first row is the best of 8. So tables 5 and 6 have S = 3, all before 8 have
# t_clip = 0, and all before 9 have three blocks.
ABLATIONS = {
    "OsGG-Net: land + pose": {"neighbours": 3, "clip": 0.0, "graph_blocks": 3, "dense_weight": 1.0,
        "landmark_weight": 1.0, "graph_weight": 0.0},
    "OsGG-Net: graph + pose": {"neighbours": 3, "clip": 0.0, "graph_blocks": 3, "dense_weight": 1.0,
        "landmark_weight": 0.0, "graph_weight": 0.01},
    "OsGG-Net: land + graph + pose": {"neighbours": 3, "clip": 0.0, "graph_blocks": 3, "dense_weight": 1.0,
        "landmark_weight": 1.0, "graph_weight": 0.01},
    "OsGG-Net: 10 land + graph + pose": {"neighbours": 3, "clip": 0.0, "graph_blocks": 3,
        "dense_weight": 1.0, "graph_weight": 0.01},
    "OsGG-Net: land + 10 graph + pose": {"neighbours": 3, "clip": 0.0, "graph_blocks": 3,
        "dense_weight": 1.0, "landmark_weight": 1.0},
    "OsGG-Net: 10 land + 10 graph + pose": {"neighbours": 3, "clip": 0.0, "graph_blocks": 3, "dense_weight": 1.0},
    "OsGG-Net: sparse 1 dense 1": {"neighbours": 3, "clip": 0.0, "graph_blocks": 3, "dense_weight": 1.0},
    "OsGG-Net: sparse 1 dense 5": {"neighbours": 3, "clip": 0.0, "graph_blocks": 3, "dense_weight": 5.0},
    "OsGG-Net: sparse 1 dense 10": {"neighbours": 3, "clip": 0.0, "graph_blocks": 3},
    "OsGG-Net: sparse 1 dense 15": {"neighbours": 3, "clip": 0.0, "graph_blocks": 3, "dense_weight": 15.0},
    "OsGG-Net: sparse 1 dense 20": {"neighbours": 3, "clip": 0.0, "graph_blocks": 3, "dense_weight": 20.0},
    "OsGG-Net: sparse 5 dense 1": {"neighbours": 3, "clip": 0.0, "graph_blocks": 3,
        "sparse_weight": 5.0, "dense_weight": 1.0},
    "OsGG-Net: sparse 10 dense 1": {"neighbours": 3, "clip": 0.0, "graph_blocks": 3,
        "sparse_weight": 10.0, "dense_weight": 1.0},
    "OsGG-Net: sparse 15 dense 1": {"neighbours": 3, "clip": 0.0, "graph_blocks": 3,
        "sparse_weight": 15.0, "dense_weight": 1.0},
    "OsGG-Net: sparse 20 dense 1": {"neighbours": 3, "clip": 0.0, "graph_blocks": 3,
        "sparse_weight": 20.0, "dense_weight": 1.0},
    "OsGG-Net: S=3": {"neighbours": 3, "clip": 0.0, "graph_blocks": 3},
    "OsGG-Net: S=5": {"neighbours": 5, "clip": 0.0, "graph_blocks": 3},
    "OsGG-Net: S=7": {"clip": 0.0, "graph_blocks": 3},
    "OsGG-Net: S=9": {"neighbours": 9, "clip": 0.0, "graph_blocks": 3},
    "OsGG-Net: S=18": {"neighbours": 18, "clip": 0.0, "graph_blocks": 3},
    "OsGG-Net: t_clip=0": {"clip": 0.0, "graph_blocks": 3},
    "OsGG-Net: t_clip=0.05": {"clip": 0.05, "graph_blocks": 3},
    "OsGG-Net: t_clip=0.10": {"graph_blocks": 3},
    "OsGG-Net: t_clip=0.15": {"clip": 0.15, "graph_blocks": 3},
    "OsGG-Net: t_clip=0.16": {"clip": 0.16, "graph_blocks": 3},
    "OsGG-Net: GCN x3": {"graph_blocks": 3},
    "OsGG-Net: GCN x5": {},
    "OsGG-Net: GCN x7": {"graph_blocks": 7},
    "OsGG-Net: GCN x9": {"graph_blocks": 9},
    "OsGG-Net: GCN x11": {"graph_blocks": 11},
}  # fmt: skip

# Rows of the tables that are the same training in `osgg_paper`, see above.
SAME_TRAINING = (
    ("OsGG-Net: sparse 1 dense 1", "OsGG-Net: sparse 5 dense 1", "OsGG-Net: sparse 10 dense 1",
     "OsGG-Net: sparse 15 dense 1", "OsGG-Net: sparse 20 dense 1", "OsGG-Net: 10 land + 10 graph + pose"),
    ("OsGG-Net: sparse 1 dense 10", "OsGG-Net: S=3"),
    ("OsGG-Net: S=7", "OsGG-Net: t_clip=0"),
    ("OsGG-Net: t_clip=0.10", "OsGG-Net: GCN x3"),
)  # fmt: skip

# Of the squared errors of yaw, pitch and roll in the released scripts.
_SQUARE_WEIGHTS = (0.01, 0.015, 0.01)

Errors = Literal["absolute", "squared"]
GraphLoss = Literal["hinge", "literal", "released"]
NodeUnit = Literal["share", "cells"]
Recipe = Literal["paper", "released"]
Search = Literal["nearest", "block"]
_CHOICES: dict[str, tuple[object, ...]] = {
    "backbone": LANDMARK_BACKBONES,
    "landmarks": tuple(LANDMARK_SETS),
    "map_reading": get_args(MapReading),
    "index_reading": get_args(IndexReading),
    "mask_reading": get_args(MaskReading),
    "sum_reading": get_args(SumReading),
    "clip_reading": get_args(ClipReading),
    "node_unit": get_args(NodeUnit),
    "errors": get_args(Errors),
    "graph_loss": get_args(GraphLoss),
    "recipe": get_args(Recipe),
    "search": get_args(Search),
    "ties": get_args(Ties),
}


@dataclass(frozen=True)
class Config:
    """Every option of the network.

    size: side of the image, a multiple of 16; maps have a quarter of it. backbone: of LANDMARK_BACKBONES.
    decoder_width: channels of the decoder's first block, halved in the second and third. landmarks: K, 19, 34 or 68.
    neighbours: S, nodes that one may be joined to. search: which these are, the "nearest", or the first S of them
    all, a "block" as equation 7 is printed. ties: of equally far nodes the "first", or "all", so that a row may hold
    S + 1. clip: t_clip. graph_blocks: of the pose network. landmark_weight, graph_weight, pose_weight: alpha, beta,
    gamma of equation 13; sparse_weight, dense_weight: beta_s, beta_d of equation 11. map_reading, index_reading,
    mask_reading, sum_reading, clip_reading: see `ubhpd.nn.graphs`. self_loops: whether a node sees itself. node_unit:
    of the coordinates that the graph network and the landmark loss see, "share" of the image about its middle, or
    "cells" of the map, from 0, as released. errors: "absolute", or "squared" as released. graph_loss: "hinge", a
    dense loss that opposes the sparse one, "literal", both as printed, which is the same formula twice, or
    "released". recipe: whose training and colours, of the "paper" or "released".
    """

    size: int = 256
    backbone: str = "resnet34"
    decoder_width: int = 256
    landmarks: int = 19
    neighbours: int = 7
    clip: float = 0.1
    graph_blocks: int = 5
    landmark_weight: float = 10.0
    graph_weight: float = 0.1
    pose_weight: float = 1.0
    sparse_weight: float = 1.0
    dense_weight: float = 10.0
    map_reading: MapReading = "logits"
    index_reading: IndexReading = "row-column"
    mask_reading: MaskReading = "inf"
    sum_reading: SumReading = "mean"
    clip_reading: ClipReading = "prune"
    self_loops: bool = False
    node_unit: NodeUnit = "share"
    errors: Errors = "absolute"
    graph_loss: GraphLoss = "hinge"
    recipe: Recipe = "paper"
    search: Search = "nearest"
    ties: Ties = "first"

    def __post_init__(self) -> None:
        """Refuse what no network can be made of."""
        for name, choices in _CHOICES.items():
            if (found := getattr(self, name)) not in choices:
                raise UbhpdError(f"OsGG-Net's {name} is {found!r}: choose of {', '.join(map(str, choices))}.")
        for name in (n for n in self.__dataclass_fields__ if n.endswith("_weight") or n == "clip"):
            if not (isfinite(found := getattr(self, name)) and found >= 0):
                raise UbhpdError(f"OsGG-Net's {name} is {found}: give a number from 0 on.")
        if self.size < 32 or self.size % 16:
            raise UbhpdError(f"OsGG-Net's size is {self.size}: give a multiple of 16 from 32 on.")
        if self.decoder_width < 4 or self.decoder_width % 4:
            raise UbhpdError(f"OsGG-Net's decoder_width is {self.decoder_width}: give a multiple of 4.")
        if self.graph_blocks < 2:
            raise UbhpdError(f"OsGG-Net's graph_blocks is {self.graph_blocks}: give 2 or more.")
        if not 1 <= self.neighbours < self.landmarks:
            found = f"neighbours is {self.neighbours} of {self.landmarks} landmarks"
            raise UbhpdError(f"OsGG-Net's {found}: give 1 to {self.landmarks - 1}.")


def input_recipe(config: Config) -> InputRecipe:
    """Return the crops of the released code; it applied ImageNet's statistics of RGB to BGR."""
    return InputRecipe(
        crop="osggnet",
        size=config.size,
        colour="BGR" if config.recipe == "released" else "RGB",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        crop_of=(("biwi", "osggnet-biwi"),),
    )


def training_recipe(config: Config) -> TrainingRecipe:
    """Return 300 epochs of Adam at 1e-3; see above for what is printed and what is released."""
    if config.recipe == "released":
        return TrainingRecipe(epochs=300, batch_size=32, lr=1e-3, weight_decay=1e-4)
    return TrainingRecipe(
        epochs=300,
        batch_size=16,
        batch_size_of=(("2", 8),),
        lr=1e-3,
        augmentations=("fsanet_crop", "fsanet_zoom"),
    )


def landmark_terms(config: Config) -> dict[str, tuple[int, ...]]:
    """Return the landmark loss (equation 5), unless it has no weight: heads without landmarks add nothing to it."""
    return {"landmark": LANDMARK_SETS[config.landmarks]} if config.landmark_weight > 0 else {}


class Network(PoseNetwork):
    """Images (n, 3, size, size) to landmarks, graph and pose.

    Output: logits (n, K, size/4, size/4), the heat maps; landmarks (n, K, 2) as in `Target`; nodes (n, K, 2), the same
    in the unit of `node_unit`; graph (n, K, K), A~ of equation 8; pose (n, 3), yaw, pitch, roll in degrees.
    """

    config: Config
    landmark_indices: torch.Tensor
    allowed: torch.Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        indices = LANDMARK_SETS[config.landmarks]
        self.landmark_network = LandmarkNetwork(config.backbone, config.decoder_width, len(indices))
        self.graph_pose = GraphPose(len(indices), config.graph_blocks)
        self.register_buffer("landmark_indices", torch.tensor(indices), persistent=False)
        mask = (
            block(indices, config.neighbours)
            if config.search == "block"
            else neighbours(indices, config.neighbours, config.ties)
        )
        self.register_buffer("allowed", torch.from_numpy(mask), persistent=False)

    @property
    def backbone(self) -> nn.Module:
        """Return what ImageNet weights can be loaded into."""
        return self.landmark_network.backbone

    def forward(self, images: torch.Tensor) -> Output:
        """Return the network's output, see above."""
        c = self.config
        logits = self.landmark_network(images)
        landmarks = soft_argmax(softmax_maps(logits))
        nodes = (landmarks + 0.5) * logits.shape[-1] - 0.5 if c.node_unit == "cells" else landmarks
        affinity = graphs.affinities(logits, landmarks, c.map_reading, c.index_reading)
        graph = graphs.adjacency(affinity, self.allowed, c.mask_reading, c.sum_reading)
        graph = graphs.clipped(graph, c.clip, c.clip_reading)
        seen = graph + torch.eye(c.landmarks, device=graph.device) if c.self_loops else graph
        pose = self.graph_pose(nodes, seen.unsqueeze(1))
        return {"logits": logits, "landmarks": landmarks, "nodes": nodes, "graph": graph, "pose": pose}

    def pose(self, output: Output) -> torch.Tensor:
        """Return yaw, pitch, roll (n, 3) in degrees."""
        return output["pose"]

    def loss(self, output: Output, target: Target) -> Output:
        """Return the terms landmark, graph and pose of equation 13."""
        c = self.config
        return {
            "landmark": c.landmark_weight * self._landmark_loss(output["nodes"], target.landmarks),
            "graph": c.graph_weight * self._graph_loss(output["graph"]),
            "pose": c.pose_weight * self._pose_loss(output["pose"], target.angles_deg),
        }

    def _landmark_loss(self, nodes: torch.Tensor, landmarks: torch.Tensor | None) -> torch.Tensor:
        """Return sum_k of the error of x and y, its mean over the landmarks that are known; 0 if none is.

        Absolute: the mean over x and y (equation 5). Squared: their sum, and targets are of whole pixels, as released.
        """
        if landmarks is None:
            return nodes.sum() * 0
        truth = landmarks[:, self.landmark_indices]
        known = truth.isfinite()
        if self.config.errors == "squared":
            truth = truth - 0.5 / self.config.size
        error = torch.where(known, nodes - truth, 0.0)
        error = error**2 * 2 if self.config.errors == "squared" else error.abs()
        return self.config.landmarks * error.sum() / known.sum().clamp(min=1)

    def _graph_loss(self, graph: torch.Tensor) -> torch.Tensor:
        """Return beta_s sparse + beta_d dense (equation 11), the mean over the heads."""
        sparse, dense = self.config.sparse_weight, self.config.dense_weight
        if self.config.graph_loss == "released":
            return graphs.released_graph_loss(graph, sparse, dense).mean()
        entries = graphs.entries(graph)
        second = entries if self.config.graph_loss == "literal" else graphs.missing_degree(graph)
        return (sparse * entries + dense * second).mean()

    def _pose_loss(self, pose: torch.Tensor, truth_deg: torch.Tensor) -> torch.Tensor:
        """Return the mean absolute error (equation 12), or the released sum of weighted squares per head."""
        if self.config.errors == "squared":
            yaw, pitch, roll = ((pose - truth_deg) ** 2).mean(dim=0)
            weighted: torch.Tensor = _SQUARE_WEIGHTS[0] * yaw + _SQUARE_WEIGHTS[1] * pitch + _SQUARE_WEIGHTS[2] * roll
            return weighted
        return functional.l1_loss(pose, truth_deg)
