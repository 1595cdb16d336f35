"""Angles as classes: bins of equal width, their probabilities, and the expectation that is the angle.

Hopenet (Ruiz et al., CVPRW 2018) made it the field's custom: 66 bins of 3 degrees from -99 on, a classifier for each
angle, and the expectation over its softmax as the angle. EHPNet has 62 bins from -93 on, WHENet 120 for yaw.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class Bins:
    """`count` bins of `width_deg` from `first_deg` on; bin i covers first + i * width up to the next."""

    count: int = 66
    width_deg: float = 3.0
    first_deg: float = -99.0

    def classes(self, angle_deg: torch.Tensor) -> torch.Tensor:
        """Return the bin (...) of each angle (...); an angle beyond the first or last bin belongs to that bin."""
        return ((angle_deg - self.first_deg) / self.width_deg).floor().long().clamp(0, self.count - 1)

    def expectation_deg(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the angles (...) of logits (..., count): width * sum(i softmax_i) + first (Hopenet, section 3.2).

        That is the left edge of a bin, so a sure and right classifier is half a bin low: kept, for it is what all
        published numbers have.
        """
        index = torch.arange(self.count, device=logits.device, dtype=logits.dtype)
        return (logits.softmax(dim=-1) * index).sum(dim=-1) * self.width_deg + self.first_deg


HOPENET_BINS = Bins()


class AngleHeads(nn.ModuleDict):
    """A linear classifier for each angle, named fc_yaw, fc_pitch and fc_roll as in Hopenet's published weights."""

    def __init__(self, features: int, bins: int) -> None:
        super().__init__({f"fc_{angle}": nn.Linear(features, bins) for angle in ("yaw", "pitch", "roll")})

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits (n, 3, bins), yaw, pitch, roll, of features (n, f)."""
        return torch.stack([head(features) for head in self.values()], dim=1)


def cross_entropy(logits: torch.Tensor, angles_deg: torch.Tensor, bins: Bins) -> torch.Tensor:
    """Return the cross entropy of logits (n, 3, count) with angles (n, 3): mean over heads, sum over angles."""
    return 3 * functional.cross_entropy(logits.flatten(0, 1), bins.classes(angles_deg).flatten())
