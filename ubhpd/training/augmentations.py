"""The augmentations by the names that training recipes have: each changes one head at random.

An augmentation is a function of a `Sample` and a numpy Generator, which alone decides what comes out: it may leave the
head as it is, keeps size and type of the crop, and never writes into the sample it got. Angles change in a flip only;
landmarks move with the pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from ubhpd.errors import UbhpdError
from ubhpd.training import augment_ehpnet, augment_geometry, augment_pixels
from ubhpd.training.sample import Augmentation, Sample

__all__ = ["AUGMENTATIONS", "Augmentation", "Sample", "augmentation"]

AUGMENTATIONS: Mapping[str, Augmentation] = MappingProxyType(
    {
        "flip": augment_geometry.flip,
        "hopenet_crop": augment_geometry.hopenet_crop,
        "random_resized_crop": augment_geometry.random_resized_crop,
        "fsanet_crop": augment_geometry.fsanet_crop,
        "fsanet_zoom": augment_geometry.fsanet_zoom,
        "trinet_crop": augment_geometry.trinet_crop,
        "blur": augment_pixels.blur,
        "low_resolution_x10": augment_pixels.low_resolution_x10,
        "low_resolution_1_10": augment_pixels.low_resolution_1_10,
        "low_resolution_set": augment_pixels.low_resolution_set,
        "gamma": augment_pixels.gamma,
        "ehpnet_brightness": augment_ehpnet.brightness,
        "ehpnet_crop": augment_ehpnet.crop,
        "ehpnet_resolution": augment_ehpnet.resolution,
        "ehpnet_blur": augment_ehpnet.blur_or_sharpen,
        "ehpnet_shrink": augment_ehpnet.shrink,
        "ehpnet_grey": augment_ehpnet.grey,
    }
)


def augmentation(names: Sequence[str]) -> Augmentation:
    """Return the augmentations of these names as one, in their order.

    Raises:
        UbhpdError: none has such a name.
    """
    if unknown := [name for name in names if name not in AUGMENTATIONS]:
        raise UbhpdError(f"No augmentation is called {unknown[0]!r}: choose from {', '.join(AUGMENTATIONS)}.")
    steps = [AUGMENTATIONS[name] for name in names]

    def all_of_them(sample: Sample, draw: np.random.Generator) -> Sample:
        for step in steps:
            sample = step(sample, draw)
        return sample

    return all_of_them
