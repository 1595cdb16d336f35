"""Augmentations that leave the face where it is: blur, coarse pixels, brightness, squares that hide a part."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from ubhpd.training.sample import Picture, Sample, in_pixels, with_pixels

_BLUR = np.pad(np.zeros((3, 3), dtype=np.float32), 1, constant_values=1 / 16)
_BLUR_MARGIN_PX = 2

_COARSE = (1, 6, 11, 16, 21)

_GAMMAS = (0.1, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)
_TRINET_PX = 224
_SQUARE_PX = 10
_SQUARES = 2


def blur(sample: Sample, draw: np.random.Generator) -> Sample:
    """Return the crop blurred with p = 0.05, by the filter that PIL calls BLUR (Hopenet, 6DRepNet).

    It is the mean of the 16 pixels two away; the outer two rows and columns stay as they are. In the released code it
    works on the box as cut out of the picture, here on the crop at its size.
    """
    if draw.random() >= 0.05:
        return sample
    pixels, inner = sample.pixels.copy(), slice(_BLUR_MARGIN_PX, -_BLUR_MARGIN_PX)
    pixels[inner, inner] = cv2.filter2D(sample.pixels, -1, _BLUR)[inner, inner]
    return with_pixels(sample, pixels)


def low_resolution_x10(sample: Sample, draw: np.random.Generator) -> Sample:
    """Return the crop at a tenth of its resolution (Hopenet, section 4.5)."""
    return _coarse(sample, 10)


def low_resolution_1_10(sample: Sample, draw: np.random.Generator) -> Sample:
    """Return the crop at one of 1/1, 1/2 ... 1/10 of its resolution (Hopenet, section 4.5)."""
    return _coarse(sample, int(draw.integers(1, 10, endpoint=True)))


def low_resolution_set(sample: Sample, draw: np.random.Generator) -> Sample:
    """Return the crop at one of 1/1, 1/6, 1/11, 1/16, 1/21 of its resolution (Hopenet, section 4.5)."""
    return _coarse(sample, _COARSE[int(draw.integers(len(_COARSE)))])


def _coarse(sample: Sample, factor: int) -> Sample:
    """Return the crop made smaller and larger again, each time from the nearest pixel as PIL finds it."""
    side = sample.side
    small = max(1, side // factor)
    pixels = cv2.resize(sample.pixels, (small, small), interpolation=cv2.INTER_NEAREST_EXACT)
    return with_pixels(sample, cv2.resize(pixels, (side, side), interpolation=cv2.INTER_NEAREST_EXACT))


def gamma(sample: Sample, draw: np.random.Generator) -> Sample:
    """Return 255 (v / 255)^(1 / gamma) of each value v with p = 0.3, gamma one of seven from 0.1 to 2 (TriNet).

    From its released data set; values are cut to whole numbers as there.
    """
    if draw.random() >= 0.3:
        return sample
    table = _gamma_table(_GAMMAS[int(draw.integers(len(_GAMMAS)))])
    return with_pixels(sample, cv2.LUT(sample.pixels, table))


@lru_cache(maxsize=len(_GAMMAS))
def _gamma_table(value: float) -> Picture:
    return np.asarray(255 * (np.arange(256) / 255) ** (1 / value), dtype=np.uint8)


def black_squares(sample: Sample, draw: np.random.Generator) -> Sample:
    """Return the crop with two black squares of 10 of 224 pixels; their middles lie anywhere in it (TriNet)."""
    pixels = sample.pixels.copy()
    half = in_pixels(sample, _SQUARE_PX / 2, _TRINET_PX)
    for x, y in draw.integers(sample.side, size=(_SQUARES, 2)).tolist():
        pixels[max(0, y - half) : y + half, max(0, x - half) : x + half] = 0
    return with_pixels(sample, pixels)
