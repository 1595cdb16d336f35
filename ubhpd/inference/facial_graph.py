"""The graph that a network sees on one face: its landmarks and the weights between them, on the crop that it saw."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import FloatArray, Image
from ubhpd.images import faces as inputs
from ubhpd.images.faces import Detector
from ubhpd.inference.image_source import seen_of_face
from ubhpd.inference.network_predictor import FromPixels
from ubhpd.models.model import Model


class FacialGraph(NamedTuple):
    """A face's graph: the crop (size, size, 3), BGR, its nodes (K, 2) in pixels of the crop, the weights (K, K)."""

    image: Image
    nodes_xy: FloatArray
    weights: FloatArray


def facial_graph(weights: Path, image: Path, detector: Detector) -> FacialGraph:
    """Return the graph that a checkpoint's network makes of the largest face in an image.

    Raises:
        UbhpdError: the network makes no graph, the image cannot be read, or no face is found in it.
    """
    model = Model.of_checkpoint(weights)
    found = next(inputs.folder(image))
    if found.pixels_bgr is None:
        raise UbhpdError(found.problem or f"{image} does not decode.")
    faces = detector.boxes(found.pixels_bgr)
    if not faces:
        raise UbhpdError(f"The detector {detector.name} finds no face in {image}: name another with --detector.")
    seen = seen_of_face(found.pixels_bgr, faces[0].bbox_xyxy, model.recipe)
    if seen is None:
        raise UbhpdError(f"The face that {detector.name} finds in {image} lies outside it: name another --detector.")
    output: dict[str, torch.Tensor] = {}
    model.network.register_forward_hook(lambda network, inputs, outputs: output.update(outputs))
    with torch.inference_mode():
        FromPixels(model.network, model.recipe).eval()(torch.from_numpy(seen[None]))
    if "graph" not in output:
        raise UbhpdError(f"{model.name} makes no graph of a face: give the weights of an OsGG-Net.")
    nodes = (output["landmarks"][0].double().numpy() + 0.5) * model.recipe.size - 0.5
    crop = seen if model.recipe.colour == "BGR" else seen[..., ::-1]
    return FacialGraph(crop, nodes, output["graph"][0].double().numpy())
