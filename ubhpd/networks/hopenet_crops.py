"""Pictures as Hopenet sees them, which several later papers took over: its crops, and ImageNet's normalisation."""

from __future__ import annotations

from ubhpd.networks.contract import IMAGENET_MEAN, IMAGENET_STD, InputRecipe


def hopenet_pictures(size: int, aflw2000: str = "hopenet-aflw2000", biwi: str = "hopenet-biwi") -> InputRecipe:
    """Return RGB pictures with ImageNet's mean and deviation, cut by Hopenet's recipe.

    Args:
        size: side of the input in pixels.
        aflw2000: crop recipe of AFLW2000, where a paper has its own.
        biwi: the same of BIWI.
    """
    crop_of = (("aflw2000", aflw2000), ("biwi", biwi))
    return InputRecipe(crop="hopenet", size=size, mean=IMAGENET_MEAN, std=IMAGENET_STD, crop_of=crop_of)
