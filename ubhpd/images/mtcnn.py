"""The face detector MTCNN: three small networks, each of which refines the boxes that the one before proposes.

Zhang et al., Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks, IEEE Signal Processing
Letters 2016. The weights are those in facenet-pytorch 2.6.0 (MIT), which come from the authors' Caffe models over
TensorFlow. The images are RGB, scaled to (value - 127.5) / 128. Coordinates inside count from 1 as in the authors'
MATLAB, and the flat layers take width, height, channel in that order; both are part of the weights' meaning.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import FloatArray, Image
from ubhpd.images.faces import MTCNN_INSTALL, Face, keep_apart, largest_first

_CELL, _STRIDE = 12, 2  # of P-Net: what one output sees, and how far two of them are apart
_BATCH = 512  # patches at once


@dataclass(frozen=True)
class MtcnnOptions:
    """How MTCNN searches.

    min_face_px: smallest face looked for. factor: between the sizes of the image at which it is searched.
    thresholds: least probability of a face in P-Net, R-Net and O-Net. overlaps: overlap above which the less sure of
    two boxes goes: within one size, across sizes, after R-Net, and after O-Net, the last by the smaller box.
    """

    min_face_px: float = 20.0
    factor: float = 0.709
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7)
    overlaps: tuple[float, float, float, float] = (0.5, 0.7, 0.7, 0.7)


class PNet(nn.Module):
    """Proposes: of an image (n, 3, h, w) gives boxes (n, 4, r, c) and probabilities (n, r, c) of its 12 px cells."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)
        self.pool1 = nn.MaxPool2d(2, 2, ceil_mode=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the boxes' corrections and the probability of a face."""
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_2(x), self.conv4_1(x).softmax(dim=1)[:, 1]


class RNet(nn.Module):
    """Refines: of patches (n, 3, 24, 24) gives boxes (n, 4) and probabilities (n,)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the boxes' corrections and the probability of a face."""
        x = self.pool(self.prelu1(self.conv1(x)))
        x = self.pool(self.prelu2(self.conv2(x)))
        x = _flat(self.prelu3(self.conv3(x)))
        x = self.prelu4(self.dense4(x))
        return self.dense5_2(x), self.dense5_1(x).softmax(dim=1)[:, 1]


class ONet(nn.Module):
    """Decides: of patches (n, 3, 48, 48) gives boxes (n, 4), probabilities (n,) and five points (n, 10), x then y."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2, self.dense6_3 = nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10)
        self.pool, self.pool3 = nn.MaxPool2d(3, 2, ceil_mode=True), nn.MaxPool2d(2, 2, ceil_mode=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the boxes' corrections, the probability of a face and the points as shares of the box."""
        x = self.pool(self.prelu1(self.conv1(x)))
        x = self.pool(self.prelu2(self.conv2(x)))
        x = self.pool3(self.prelu3(self.conv3(x)))
        x = _flat(self.prelu4(self.conv4(x)))
        x = self.prelu5(self.dense5(x))
        return self.dense6_2(x), self.dense6_1(x).softmax(dim=1)[:, 1], self.dense6_3(x)


class Mtcnn:
    """MTCNN as a `Detector`: its score is O-Net's probability, 0.7 to 1."""

    name = "mtcnn"

    def __init__(self, weights: Mapping[str, bytes], options: MtcnnOptions | None = None) -> None:
        """Load the networks.

        Args:
            weights: of `mtcnn_files.read_weights`.
            options: how to search.

        Raises:
            UbhpdError: the weights are not those of these networks.
        """
        self.options = options or MtcnnOptions()
        self.pnet, self.rnet, self.onet = PNet(), RNet(), ONet()
        for name, network in (("pnet", self.pnet), ("rnet", self.rnet), ("onet", self.onet)):
            try:
                network.load_state_dict(torch.load(io.BytesIO(weights[name]), map_location="cpu", weights_only=True))
            except Exception:  # torch raises many kinds of errors for a damaged file
                raise UbhpdError(f"{name}.pt does not hold the weights of MTCNN's {name}: {MTCNN_INSTALL}.") from None
            network.eval()

    @torch.inference_mode()
    def boxes(self, image_bgr: Image) -> list[Face]:
        """Return the faces of an image (height, width, 3), BGR, the largest first."""
        pixels = torch.from_numpy(np.ascontiguousarray(image_bgr[:, :, ::-1])).permute(2, 0, 1)[None].float()
        proposed = _square(self._propose(pixels))
        refined = _square(self._refine(pixels, proposed))
        return largest_first(self._decide(pixels, refined))

    def _propose(self, pixels: Tensor) -> FloatArray:
        """Return boxes (n, 4) of P-Net over the whole image at many sizes."""
        scale, cells = _CELL / self.options.min_face_px, []
        while min(pixels.shape[2:]) * scale >= _CELL:
            cells.append(self._propose_at(pixels, scale))
            scale *= self.options.factor
        if not cells:
            return np.zeros((0, 4))
        boxes, score, moved = (np.concatenate(part) for part in zip(*cells, strict=True))
        kept = keep_apart(boxes, score, self.options.overlaps[1])
        return _moved(boxes[kept], moved[kept])

    def _propose_at(self, pixels: Tensor, scale: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return boxes, probabilities and corrections at one size of the image."""
        height, width = pixels.shape[2:]
        moved, probability = self.pnet(_sized(pixels, int(height * scale + 1), int(width * scale + 1)))
        rows, columns = (probability[0] >= self.options.thresholds[0]).nonzero(as_tuple=True)
        cell = np.stack([columns.numpy(), rows.numpy()], axis=1) * float(_STRIDE)
        boxes = np.floor(np.concatenate([cell + 1, cell + _CELL], axis=1) / scale)
        score = probability[0, rows, columns].numpy().astype(np.float64)
        kept = keep_apart(boxes, score, self.options.overlaps[0])
        return boxes[kept], score[kept], moved[0, :, rows, columns].T.numpy().astype(np.float64)[kept]

    def _refine(self, pixels: Tensor, boxes: FloatArray) -> FloatArray:
        """Return the boxes (n, 4) that R-Net takes for faces, corrected."""
        boxes, patches = _patches(pixels, boxes, 24)
        if not len(boxes):
            return boxes
        moved, score = _batched(self.rnet, patches)
        sure = np.flatnonzero(score > self.options.thresholds[1])
        kept = sure[keep_apart(boxes[sure], score[sure], self.options.overlaps[2])]
        return _moved(boxes[kept], moved[kept], pixel=1.0)

    def _decide(self, pixels: Tensor, boxes: FloatArray) -> list[Face]:
        """Return what O-Net takes for faces."""
        boxes, patches = _patches(pixels, boxes, 48)
        if not len(boxes):
            return []
        moved, score, points = _batched(self.onet, patches)
        sure = score > self.options.thresholds[2]
        boxes, moved, score, points = boxes[sure], moved[sure], score[sure], points[sure]
        place = points.reshape(-1, 2, 5).transpose(0, 2, 1) * (boxes[:, 2:] - boxes[:, :2] + 1)[:, None]
        place += boxes[:, None, :2] - 1
        boxes = _moved(boxes, moved, pixel=1.0)
        kept = keep_apart(boxes, score, self.options.overlaps[3], pixel=1.0, over_smaller=True)
        return [
            Face(cast("tuple[float, float, float, float]", tuple(boxes[i].tolist())), float(score[i]), place[i])
            for i in kept
        ]


def _flat(x: Tensor) -> Tensor:
    return x.permute(0, 3, 2, 1).flatten(1)


def _sized(pixels: Tensor, height: int, width: int) -> Tensor:
    """Return images brought to a size by averaging areas, and scaled as the networks want them."""
    return (interpolate(pixels, size=(height, width), mode="area") - 127.5) / 128.0


def _patches(pixels: Tensor, boxes: FloatArray, side: int) -> tuple[FloatArray, Tensor]:
    """Return the boxes that hold a part of the image, and these parts (n, 3, side, side)."""
    height, width = pixels.shape[2:]
    low = np.maximum(np.trunc(boxes[:, :2]), 1).astype(np.int64) - 1
    high = np.minimum(np.trunc(boxes[:, 2:]), (width, height)).astype(np.int64)
    kept = np.flatnonzero((high > low).all(axis=1))
    cut = [_sized(pixels[:, :, low[i, 1] : high[i, 1], low[i, 0] : high[i, 0]], side, side) for i in kept]
    return boxes[kept], torch.cat(cut) if cut else pixels.new_zeros((0, 3, side, side))


def _batched(network: nn.Module, patches: Tensor) -> list[FloatArray]:
    parts = [network(patches[i : i + _BATCH]) for i in range(0, len(patches), _BATCH)]
    return [torch.cat(part).numpy().astype(np.float64) for part in zip(*parts, strict=True)]


def _moved(boxes: FloatArray, moved: FloatArray, pixel: float = 0.0) -> FloatArray:
    """Return the boxes with corners moved by shares (n, 4) of width and height."""
    size = boxes[:, 2:] - boxes[:, :2] + pixel
    return np.asarray(boxes + moved * np.concatenate([size, size], axis=1))


def _square(boxes: FloatArray) -> FloatArray:
    """Return squares about the boxes' centres, as wide as the longer side."""
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.max(axis=1, keepdims=True, initial=-np.inf)
    low = boxes[:, :2] + size / 2 - side / 2
    return np.concatenate([low, low + side], axis=1)
