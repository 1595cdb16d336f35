"""One head in training: its crop and what is known of it, and how pixels and landmarks move together.

Augmentations that leave the face where it is: blur, coarse pixels, brightness, squares that hide a part.

Augmentations that move the face in its crop, and its landmarks with it: flips, windows, zoom.

Lengths are in pixels of the crop that the paper has, and grow with the crop. All follow the released code's numbers.

EHPNet's augmentations, from the code its authors released for a sibling of it (github.com/chientv99/maskpose).

The crop is BGR. Lengths are in pixels of its 112, and grow with the crop. What makes a face smaller, coarser or
softer is only done to a sharp crop: one whose Laplacian has a variance above 120 at that moment. The threshold is for
112 pixels and stays as it is at other sizes.

Two defects of that code are not repeated. Its grey goes into the first channel only, the others become middle grey,
and its weights are those of RGB. And brightness takes the absolute value of what falls below 0, here it is black.

The augmentations by the names that training recipes have: each changes one head at random.

An augmentation is a function of a `Sample` and a numpy Generator, which alone decides what comes out: it may leave the
head as it is, keeps size and type of the crop, and never writes into the sample it got. Angles change in a flip only;
landmarks move with the pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from math import exp, log, sqrt
from types import MappingProxyType
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ubhpd.core.registry import pick
from ubhpd.core.rotation import mirror_euler
from ubhpd.core.typing import FloatArray, Image
from ubhpd.nn.landmark_sets import LANDMARK_SETS, mirror_of


class Sample(NamedTuple):
    """A head.

    pixels: the crop, (side, side, 3), channels in the order of the model. angles_deg: canonical yaw, pitch, roll (3,).
    landmarks68: (68, 2), x and y in pixels from the crop's left and top edge, so that the middle of the first pixel is
    (0.5, 0.5), as `ubhpd.images.crops.placed` gives them; NaN where not known, None if none is.
    """

    pixels: Image
    angles_deg: FloatArray
    landmarks68: FloatArray | None = None

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


def window(sample: Sample, side: int, draw: np.random.Generator | None) -> Sample:
    """Return a window of `side` pixels of a larger crop, at a place that is drawn; None takes the middle."""
    room = sample.side - side
    left, top = (room // 2,) * 2 if draw is None else (int(v) for v in draw.integers(0, room, size=2, endpoint=True))
    pixels = np.ascontiguousarray(sample.pixels[top : top + side, left : left + side])
    return moved(sample, pixels, (1.0, 1.0), (-float(left), -float(top)))


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
    works on the box as cut out of the image, here on the crop at its size.
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
def _gamma_table(value: float) -> Image:
    return np.asarray(255 * (np.arange(256) / 255) ** (1 / value), dtype=np.uint8)


def black_squares(sample: Sample, draw: np.random.Generator) -> Sample:
    """Return the crop with two black squares of 10 of 224 pixels; their middles lie anywhere in it (TriNet)."""
    pixels = sample.pixels.copy()
    half = in_pixels(sample, _SQUARE_PX / 2, _TRINET_PX)
    for x, y in draw.integers(sample.side, size=(_SQUARES, 2)).tolist():
        pixels[max(0, y - half) : y + half, max(0, x - half) : x + half] = 0
    return with_pixels(sample, pixels)


_MIRROR = np.array(mirror_of(LANDMARK_SETS[68]))

_FSANET_PX = 64
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


def gaussian_blur(sample: Sample, draw: np.random.Generator) -> Sample:
    """Return the crop blurred by a Gaussian in a window of 3, 5, 7 or 9 pixels with p = 0.4, sharp or not."""
    if draw.random() >= 0.4:
        return sample
    side = 1 + 2 * in_pixels(sample, 1 + int(draw.integers(4)), _PX)
    return with_pixels(sample, cv2.GaussianBlur(sample.pixels, (side, side), 0))


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


__all__ = ["AUGMENTATIONS", "Augmentation", "Sample", "augmentation"]

AUGMENTATIONS: Mapping[str, Augmentation] = MappingProxyType(
    {
        "flip": flip,
        "hopenet_crop": hopenet_crop,
        "random_resized_crop": random_resized_crop,
        "fsanet_crop": fsanet_crop,
        "fsanet_zoom": fsanet_zoom,
        "trinet_crop": trinet_crop,
        "blur": blur,
        "low_resolution_x10": low_resolution_x10,
        "low_resolution_1_10": low_resolution_1_10,
        "low_resolution_set": low_resolution_set,
        "gamma": gamma,
        "ehpnet_brightness": brightness,
        "ehpnet_crop": crop,
        "ehpnet_resolution": resolution,
        "ehpnet_blur": blur_or_sharpen,
        "ehpnet_gaussian_blur": gaussian_blur,
        "ehpnet_shrink": shrink,
        "ehpnet_grey": grey,
    }
)


def augmentation(names: Sequence[str]) -> Augmentation:
    """Return the augmentations of these names as one, in their order.

    Raises:
        UbhpdError: none has such a name.
    """
    steps = [pick(AUGMENTATIONS, name, "augmentation")[1] for name in names]

    def all_of_them(sample: Sample, draw: np.random.Generator) -> Sample:
        for step in steps:
            sample = step(sample, draw)
        return sample

    return all_of_them
