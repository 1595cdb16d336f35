"""Augmentations that move the face in its crop, and its landmarks with it: flips, windows, zoom.

Lengths are in pixels of the crop that the paper has, and grow with the crop. All follow the released code's numbers.
"""

from __future__ import annotations

from math import exp, log, sqrt

import cv2
import numpy as np

from ubhpd.networks.landmark_sets import LANDMARK_SETS, mirror_of
from ubhpd.rotation import mirror_euler
from ubhpd.training.augment_pixels import black_squares
from ubhpd.training.sample import Sample, enlarged, in_pixels, moved, stretched

_MIRROR = np.array(mirror_of(LANDMARK_SETS[68]))

_FSANET_PX = 64
_TRINET_PX = 224
_WINDOW_PX = 15  # FSA-Net's largest loss of width and height
_HOPENET_PX = 240
_HOPENET_MARGIN_PX = 8  # about the 224 of 240 pixels
_TRIES = 10


def mirrored(sample: Sample) -> Sample:
    """Return the mirror image: yaw and roll negated, each landmark where its partner on the other side was."""
    points = sample.landmarks68
    if points is not None:
        points = points[_MIRROR] * (-1.0, 1.0) + (float(sample.side), 0.0)
    pixels = np.asarray(cv2.flip(sample.pixels, 1), dtype=np.uint8)
    return Sample(pixels, mirror_euler(sample.angles_deg), points)


def flip(sample: Sample, draw: np.random.Generator) -> Sample:
    """Return the mirror image with p = 0.5 (Hopenet, 6DRepNet, EHPNet)."""
    return mirrored(sample) if draw.random() < 0.5 else sample


def hopenet_crop(sample: Sample, draw: np.random.Generator) -> Sample:
    """Return another 224 of the 240 pixels of which the crop is the middle 224 (Hopenet, 6DRepNet): x and y apart.

    The recipe `hopenet` has cut the margin of 8 pixels off; it comes back as repetition of the edge. To enlarge the
    crop to 240 instead would make every face 7 % larger than in testing.
    """
    margin = in_pixels(sample, _HOPENET_MARGIN_PX, _HOPENET_PX - 2 * _HOPENET_MARGIN_PX)
    x, y = (int(v) for v in draw.integers(0, 2 * margin, size=2, endpoint=True))
    padded = cv2.copyMakeBorder(sample.pixels, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
    window = np.ascontiguousarray(padded[y : y + sample.side, x : x + sample.side])
    return moved(sample, window, (1.0, 1.0), (float(margin - x), float(margin - y)))


def random_resized_crop(sample: Sample, draw: np.random.Generator) -> Sample:
    """Return a window with 0.8 to 1 of the area, its sides 3/4 to 4/3 of each other, at the full size (6DRepNet).

    Drawn as torchvision's RandomResizedCrop does: the logarithm of the ratio evenly, ten tries for a window that
    fits, and if none does the whole crop.
    """
    side = sample.side
    for _ in range(_TRIES):
        area = draw.uniform(0.8, 1.0) * side * side
        ratio = exp(draw.uniform(log(3 / 4), log(4 / 3)))
        width, height = round(sqrt(area * ratio)), round(sqrt(area / ratio))
        if width <= side and height <= side:
            left, top = (int(draw.integers(0, side - n, endpoint=True)) for n in (width, height))
            return enlarged(sample, left, top, width, height)
    return sample


def fsanet_crop(sample: Sample, draw: np.random.Generator) -> Sample:
    """Return a window that is 1 to 15 of 64 pixels smaller: enlarged, on black or on white, each with p = 0.25.

    FSA-Net (Yang et al., CVPR 2019), released generator. The window lies anywhere, and anywhere else on black or white;
    enlarging is bicubic. With p = 0.25 the crop stays as it is.
    """
    return _window(sample, draw, _FSANET_PX) or sample


def trinet_crop(sample: Sample, draw: np.random.Generator) -> Sample:
    """Return what `fsanet_crop` does, with 1 to 15 of 224 pixels, and two black squares where it does nothing.

    TriNet (Cao et al., WACV 2021), released data set: it took FSA-Net's pixels over to crops of 224.
    """
    return _window(sample, draw, _TRINET_PX) or black_squares(sample, draw)


def _window(sample: Sample, draw: np.random.Generator, paper_px: int) -> Sample | None:
    """Return a window enlarged, on black or on white; None with p = 0.25."""
    kind = draw.random()
    if kind >= 0.75:
        return None
    side = sample.side
    lost = 1 + int(draw.integers(in_pixels(sample, _WINDOW_PX, paper_px)))
    left, top, to_left, to_top = draw.integers(lost, size=4).tolist()
    kept = side - lost
    if kind < 0.25:
        return enlarged(sample, left, top, kept, kept, cv2.INTER_CUBIC)
    canvas = np.full_like(sample.pixels, 0 if kind < 0.5 else 255)
    canvas[to_top : to_top + kept, to_left : to_left + kept] = sample.pixels[top : top + kept, left : left + kept]
    return moved(sample, canvas, (1.0, 1.0), (float(to_left - left), float(to_top - top)))


def fsanet_zoom(sample: Sample, draw: np.random.Generator) -> Sample:
    """Return the crop zoomed about its middle with p = 0.7: a pixel shows 0.8 to 1.2 of one, x and y apart.

    FSA-Net (Yang et al., CVPR 2019), released generator, by a function of Keras. Bilinear; what comes in from outside
    repeats the edge. Keras zooms about a point one pixel off the middle: not repeated.
    """
    if draw.random() >= 0.7:
        return sample
    x, y = draw.uniform(0.8, 1.2, size=2).tolist()
    middle = sample.side / 2
    return stretched(sample, (1 / x, 1 / y), (middle - middle / x, middle - middle / y))
