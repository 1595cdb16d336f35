"""FSA-Net's layers: capsules made of the places that belong together, and three ways from them to a vector per stage.

Yang et al., FSA-Net, CVPR 2019, sections 3.3 and 3.4. Capsules are (n, capsules, 64), the vectors have 16 numbers.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ubhpd.networks.stagewise import FEATURES, STAGES

VECTOR = 16
CAPSULES = 7  # n' of the paper, for each stage

_STRUCTURES = 5  # m of the paper
_CLUSTERS = 3
_EPSILON = 1e-7  # Keras', in the length of a vector
_MIN_NORM = 1e-6  # TensorFlow's, of what is normalised to length 1


class Structure(nn.Module):
    """The fine-grained structure: which places make a capsule, learnt from their scores (section 3.3).

    Args:
        places: of each stage.
        scoring: "1x1" or "var".
    """

    def __init__(self, places: int, scoring: str) -> None:
        super().__init__()
        self.score = nn.Linear(FEATURES, 1) if scoring == "1x1" else None  # one for all stages
        self.maps = nn.Linear(places, _STRUCTURES * STAGES * places)  # M
        self.weights = nn.Linear(STAGES * places, CAPSULES * _STRUCTURES)  # C
        for layer in (self.score, self.maps, self.weights):
            if layer is not None:
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, places: torch.Tensor) -> torch.Tensor:
        """Return capsules (n, 21, 64) of places (n, 192, 64): S_k = C M_k, rows of sum 1, times the places."""
        if self.score is not None:
            scores = self.score(places).squeeze(-1).sigmoid()
        else:
            scores = places.var(dim=-1, correction=0)
        n, all_places = scores.shape
        maps = self.maps(scores.view(n, STAGES, -1)).sigmoid().view(n, STAGES, _STRUCTURES, all_places)
        weights = self.weights(scores).sigmoid().view(n, 1, CAPSULES, _STRUCTURES)
        shares = (weights @ maps).flatten(1, 2)
        capsules: torch.Tensor = (shares @ places) / shares.sum(dim=-1, keepdim=True)
        return capsules


class CapsuleRouting(nn.Module):
    """Dynamic routing between capsules (Sabour, Frosst, Hinton, NeurIPS 2017, procedure 1), without bias.

    Each capsule votes for each stage's vector by a matrix of its own, and votes count more where they agree with the
    outcome of the first of two rounds. The gradient goes through the agreement too.
    """

    def __init__(self, capsules: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(capsules, FEATURES, STAGES * VECTOR))
        bound = (6 / (STAGES * capsules * (VECTOR + FEATURES))) ** 0.5  # Glorot's, as Keras counts (3, n, 16, 64)
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, capsules: torch.Tensor) -> torch.Tensor:
        """Return the vectors (n, stage, 16)."""
        votes = torch.bmm(capsules.transpose(0, 1), self.weight).view(len(self.weight), -1, STAGES, VECTOR)
        first = squash(votes.sum(dim=0) / STAGES)  # equal shares to begin with
        agreement = (votes * first).sum(dim=-1, keepdim=True)
        return squash((agreement.softmax(dim=2) * votes).sum(dim=0))


class NetVlad(nn.Module):
    """NetVLAD (Arandjelovic et al., CVPR 2016) with three clusters, and a matrix to the vectors."""

    def __init__(self, capsules: int) -> None:
        super().__init__()
        self.assign = nn.Linear(FEATURES, _CLUSTERS)
        self.centres = nn.Parameter(torch.empty(1, FEATURES, _CLUSTERS))
        self.reduce = nn.Linear(FEATURES * _CLUSTERS, STAGES * VECTOR, bias=False)
        for weight in (self.assign.weight, self.centres, self.reduce.weight):
            nn.init.xavier_uniform_(weight.squeeze(0))
        nn.init.zeros_(self.assign.bias)

    def forward(self, capsules: torch.Tensor) -> torch.Tensor:
        """Return the vectors (n, stage, 16)."""
        shares = self.assign(capsules).softmax(dim=-1)
        residuals = capsules.transpose(1, 2) @ shares - shares.sum(dim=1, keepdim=True) * self.centres
        residuals = functional.normalize(residuals, dim=1, eps=_MIN_NORM).flatten(1)
        vectors: torch.Tensor = self.reduce(functional.normalize(residuals, dim=1, eps=_MIN_NORM))
        return vectors.view(-1, STAGES, VECTOR)


class TwoMatrices(nn.Module):
    """One matrix over the capsules, one over the features: what the release calls metric."""

    def __init__(self, capsules: int) -> None:
        super().__init__()
        self.over_capsules = nn.Linear(capsules, STAGES, bias=False)
        self.over_features = nn.Linear(FEATURES, VECTOR, bias=False)
        for layer in (self.over_capsules, self.over_features):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, capsules: torch.Tensor) -> torch.Tensor:
        """Return the vectors (n, stage, 16)."""
        vectors: torch.Tensor = self.over_features(self.over_capsules.weight @ capsules)
        return vectors


AGGREGATIONS = {"capsule": CapsuleRouting, "netvlad": NetVlad, "metric": TwoMatrices}

_NAMES = {
    "capsule": {"weight": "caps/W"},
    "netvlad": {
        "assign.weight": "net_vlad_1/kernel_W1",
        "assign.bias": "net_vlad_1/kernel_B1",
        "centres": "net_vlad_1/kernel_W2",
        "reduce.weight": "net_vlad_1/kernel_H1",
    },
    "metric": {
        "over_features.weight": "mat_mul_layer_1/kernel_type1",
        "over_capsules.weight": "mat_mul_layer_2/kernel_type2",
    },
}


def squash(vectors: torch.Tensor) -> torch.Tensor:
    """Return vectors (..., size) of the same directions with lengths below 1: l^2 / (1 + l^2) (ibid., equation 1)."""
    squared = vectors.square().sum(dim=-1, keepdim=True)
    return vectors * (squared / ((1 + squared) * (squared + _EPSILON).sqrt()))


def aggregation_names(aggregation: str) -> dict[str, str]:
    """Return the published name of each tensor of an aggregation, called so in the network."""
    return {f"aggregation.{own}": theirs for own, theirs in _NAMES[aggregation].items()}
