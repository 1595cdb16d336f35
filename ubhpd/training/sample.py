"""One head in training: its crop and what is known of it, and how pixels and landmarks move together."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


class Sample(NamedTuple):
    """A head.

    pixels: the crop, (side, side, 3), channels in the order of the model. angles_deg: canonical yaw, pitch, roll (3,).
    landmarks68: (68, 2), x and y in pixels from the crop's left and top edge, so that the middle of the first pixel is
    (0.5, 0.5), as `ubhpd.crops.placed` gives them; NaN where not known, None if none is.
    """

    pixels: Picture
    angles_deg: Floats
    landmarks68: Floats | None = None

    @property
    def side(self) -> int:
        """Return the side of the crop in pixels."""
        return int(self.pixels.shape[0])


Augmentation = Callable[[Sample, np.random.Generator], Sample]


def with_pixels(sample: Sample, pixels: npt.NDArray[np.generic]) -> Sample:
    """Return the sample with other pixels, of the same place."""
    return Sample(np.asarray(pixels, dtype=np.uint8), sample.angles_deg, sample.landmarks68)


def moved(
    sample: Sample, pixels: npt.NDArray[np.generic], scale: tuple[float, float], shift: tuple[float, float]
) -> Sample:
    """Return the sample with other pixels, whose point p was at (p - shift) / scale, x and y apart."""
    points = sample.landmarks68
    if points is not None:
        points = points * scale + shift
    return Sample(np.asarray(pixels, dtype=np.uint8), sample.angles_deg, points)


def enlarged(
    sample: Sample, left: int, top: int, width: int, height: int, interpolation: int = cv2.INTER_LINEAR
) -> Sample:
    """Return the window of `width` x `height` pixels from (left, top) on, brought to the size of the crop."""
    side = sample.side
    window = sample.pixels[top : top + height, left : left + width]
    scale = (side / width, side / height)
    pixels = cv2.resize(window, (side, side), interpolation=interpolation)
    return moved(sample, pixels, scale, (-left * scale[0], -top * scale[1]))


def stretched(sample: Sample, scale: tuple[float, float], shift: tuple[float, float]) -> Sample:
    """Return the crop with point p moved to p * scale + shift; what comes in from outside repeats its edge."""
    side = sample.side
    (sx, sy), (tx, ty) = scale, shift
    # OpenCV counts from the middle of the first pixel.
    matrix = np.array([[sx, 0.0, tx + sx / 2 - 0.5], [0.0, sy, ty + sy / 2 - 0.5]])
    pixels = cv2.warpAffine(sample.pixels, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)
    return moved(sample, pixels, scale, shift)


def in_pixels(sample: Sample, pixels: float, of_side: int) -> int:
    """Return a length that a paper gives in pixels of a crop of `of_side`, for this crop: rounded, 1 at least."""
    return max(1, round(pixels * sample.side / of_side))
