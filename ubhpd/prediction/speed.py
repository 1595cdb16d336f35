"""How a network is run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Speed:
    """What makes a network faster; the angles stay the same but for rounding.

    half: 16-bit floats, bfloat16 on a CPU. channels_last: memory order of the pictures. compiled: torch.compile.
    """

    half: bool = False
    channels_last: bool = False
    compiled: bool = False
