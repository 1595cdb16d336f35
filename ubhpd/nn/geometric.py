"""The interface of geometric methods: baselines without a network, which use landmarks or nothing at all.

A file in baselines/ with KIND = "geometric" has no Network but

    fit(config, heads)                 its parameters: named arrays, {} if it has none
    solve(config, parameters, heads)   yaw, pitch, roll (n, 3) in degrees or rotations (n, 3, 3), NaN where it cannot
"""

from __future__ import annotations

from typing import NamedTuple

from ubhpd.core.typing import FloatArray

Parameters = dict[str, FloatArray]


class Heads(NamedTuple):
    """n heads.

    sample_id: n names. angles_deg: canonical yaw, pitch, roll (n, 3). rotation: the same as matrices (n, 3, 3), frame
    C of `ubhpd.core.rotation`; both None where the truth is not known. landmarks68: (n, 68, 2) pixels, x right and y
    down, NaN where a point is not known. image_size: width and height of the images (n, 2), pixels, NaN where not
    known.
    """

    sample_id: list[str]
    angles_deg: FloatArray | None
    rotation: FloatArray | None
    landmarks68: FloatArray
    image_size: FloatArray
