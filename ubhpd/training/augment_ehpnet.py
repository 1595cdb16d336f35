"""EHPNet's augmentations, from the code its authors released for a sibling of it (github.com/chientv99/maskpose).

The crop is BGR. Lengths are in pixels of its 112, and grow with the crop. What makes a face smaller, coarser or
softer is only done to a sharp crop: one whose Laplacian has a variance above 120 at that moment. The threshold is for
112 pixels and stays as it is at other sizes.

Two defects of that code are not repeated. Its grey goes into the first channel only, the others become middle grey,
and its weights are those of RGB. And brightness takes the absolute value of what falls below 0, here it is black.
"""

from __future__ import annotations

import cv2
import numpy as np

from ubhpd.training.sample import Sample, enlarged, in_pixels, moved, with_pixels

_PX = 112
_SHARP = 120.0
_BRIGHT = 200.0
_SHARPEN = np.full((3, 3), -1.0, dtype=np.float32)
_SHARPEN[1, 1] = 9.0


def is_sharp(sample: Sample) -> bool:
    """Return whether the Laplacian over all pixels and channels has a variance above 120."""
    laplacian = cv2.Laplacian(sample.pixels, cv2.CV_16S)
    _, deviation = cv2.meanStdDev(laplacian.reshape(-1, 1))
    return bool(deviation[0, 0] ** 2 > _SHARP)


def brightness(sample: Sample, draw: np.random.Generator) -> Sample:
    """Return a v + b of each value v with p = 0.5: a evenly in 0.75 to 1.25, b one of -15, -13 ... 13.

    To get darker, a < 1.05 and b < 0, is only for a crop whose mean grey is above 200.
    """
    if draw.random() >= 0.5:
        return sample
    factor, offset = draw.uniform(0.75, 1.25), -15 + 2 * int(draw.integers(15))
    if factor < 1.05 and offset < 0 and _grey(sample).mean() <= _BRIGHT:
        return sample
    table = np.clip(np.rint(factor * np.arange(256) + offset), 0, 255).astype(np.uint8)
    return with_pixels(sample, cv2.LUT(sample.pixels, table))


def crop(sample: Sample, draw: np.random.Generator) -> Sample:
    """Return a sharp crop without 5 to 10 pixels on each side, at the full size, with p = 0.5."""
    if draw.random() >= 0.5 or not is_sharp(sample):
        return sample
    margin = in_pixels(sample, int(draw.integers(5, 11)), _PX)
    kept = sample.side - 2 * margin
    return enlarged(sample, margin, margin, kept, kept)


def resolution(sample: Sample, draw: np.random.Generator) -> Sample:
    """Return a sharp crop made 30, 33 ... 99 pixels wide and large again, bilinear, with p = 0.7."""
    if draw.random() >= 0.7 or not is_sharp(sample):
        return sample
    small = in_pixels(sample, 30 + 3 * int(draw.integers(24)), _PX)
    pixels = cv2.resize(sample.pixels, (small, small))
    return with_pixels(sample, cv2.resize(pixels, (sample.side, sample.side)))


def blur_or_sharpen(sample: Sample, draw: np.random.Generator) -> Sample:
    """Return a sharp crop blurred with p = 0.4, sharpened with p = 0.42.

    Blur: a Gaussian in a window of 3, 5, 7 or 9 pixels, with what OpenCV takes for it as deviation. Sharpening:
    9 times the pixel minus its eight neighbours.
    """
    kind = draw.random()
    if kind >= 0.4 + 0.6 * 0.7 or not is_sharp(sample):
        return sample
    if kind >= 0.4:
        return with_pixels(sample, cv2.filter2D(sample.pixels, -1, _SHARPEN))
    window = 1 + 2 * in_pixels(sample, 1 + int(draw.integers(4)), _PX)
    return with_pixels(sample, cv2.GaussianBlur(sample.pixels, (window, window), 0))


def shrink(sample: Sample, draw: np.random.Generator) -> Sample:
    """Return a sharp crop shrunk by 2 to 5 pixels on each side, black around it, with p = 0.5."""
    if draw.random() >= 0.5 or not is_sharp(sample):
        return sample
    margin = in_pixels(sample, int(draw.integers(2, 6)), _PX)
    kept = sample.side - 2 * margin
    small = cv2.resize(sample.pixels, (kept, kept))
    pixels = cv2.copyMakeBorder(small, margin, margin, margin, margin, cv2.BORDER_CONSTANT)
    scale = kept / sample.side
    return moved(sample, pixels, (scale, scale), (float(margin), float(margin)))


def grey(sample: Sample, draw: np.random.Generator) -> Sample:
    """Return the crop in grey, alike in all channels, with p = 0.3."""
    if draw.random() >= 0.3:
        return sample
    return with_pixels(sample, cv2.cvtColor(_grey(sample), cv2.COLOR_GRAY2BGR))


def _grey(sample: Sample) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(cv2.cvtColor(sample.pixels, cv2.COLOR_BGR2GRAY), dtype=np.uint8)
