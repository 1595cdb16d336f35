"""What a network makes of one face, on the crop that it saw: the graph of an OsGG-Net, its landmarks and the weights
between them; the fine-grained structures of an FSA-Net; and the regions that decide an angle, by Grad-CAM.

Grad-CAM: Selvaraju et al., ICCV 2017. With A^k the channels of the backbone's last map and y the output, the region is
ReLU(sum_k w_k A^k), w_k the mean of dy / dA^k over the places. y is the logit of the most probable bin of an angle, or
the angle itself of a network without bins; of all three angles it is their sum.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from ubhpd.core.bins import ANGLES
from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import FloatArray, Image
from ubhpd.images import faces as inputs
from ubhpd.images.faces import Detector
from ubhpd.inference.image_source import seen_of_face
from ubhpd.models.model import Model
from ubhpd.nn.contract import PoseNetwork
from ubhpd.nn.outputs import euler_from_matrix
from ubhpd.nn.stagewise import STAGES, Structure


class FacialGraph(NamedTuple):
    """A face's graph: the crop (size, size, 3), BGR, its nodes (K, 2) in pixels of the crop, the weights (K, K)."""

    image: Image
    nodes_xy: FloatArray
    weights: FloatArray


class ActivationMap(NamedTuple):
    """The crop (size, size, 3), BGR, and how much each pixel of it decides, 0 to 1 (size, size); all 0 for none."""

    image: Image
    share: FloatArray


class StructureMaps(NamedTuple):
    """The crop (size, size, 3), BGR, and the maps (scoring, stage, structure, map, side, side) from 0 to 1 of each
    member with structures, by its scoring; of the three maps the deepest is the first."""

    image: Image
    maps: FloatArray
    scorings: tuple[str, ...]


ALL_ANGLES = "all"


class _Seen(NamedTuple):
    """A model, the crop that it sees (size, size, 3), and the same as its network takes it (1, 3, size, size)."""

    model: Model
    crop: Image
    inputs: torch.Tensor

    @property
    def image(self) -> Image:
        """The crop in BGR."""
        return self.crop if self.model.recipe.colour == "BGR" else self.crop[..., ::-1]


def facial_graph(weights: Path, image: Path, detector: Detector) -> FacialGraph:
    """Return the graph that a checkpoint's network makes of the largest face in an image.

    Raises:
        UbhpdError: the network makes no graph, the image cannot be read, or no face is found in it.
    """
    seen = _seen(weights, image, detector)
    with torch.inference_mode():
        output = seen.model.network.eval()(seen.inputs)
    if "graph" not in output:
        raise UbhpdError(f"{seen.model.name} makes no graph of a face: give the weights of an OsGG-Net.")
    nodes = (output["landmarks"][0].double().numpy() + 0.5) * seen.model.recipe.size - 0.5
    return FacialGraph(seen.image, nodes, output["graph"][0].double().numpy())


def structure_maps(weights: Path, image: Path, detector: Detector) -> StructureMaps:
    """Return the fine-grained structures that an FSA-Net makes of the largest face in an image.

    Raises:
        UbhpdError: the network has no structures, the image cannot be read, or no face is found in it.
    """
    seen = _seen(weights, image, detector)
    parts = {name: m for name, m in seen.model.network.named_modules() if isinstance(m, Structure)}
    if not parts:
        raise UbhpdError(f"{seen.model.name} has no structures: give the weights of an FSA-Net that learns them.")
    places: dict[str, torch.Tensor] = {}
    for name, part in parts.items():
        part.register_forward_pre_hook(lambda module, inputs, name=name: places.update({name: inputs[0]}))
    with torch.inference_mode():
        seen.model.network.eval()(seen.inputs)
        maps = [part.structures(places[name])[0] for name, part in parts.items()]
    folded = torch.stack(maps).double().numpy()
    folded = folded.reshape(*folded.shape[:-1], STAGES, -1)
    side = round(folded.shape[-1] ** 0.5)
    scorings = tuple(name.rpartition(".")[0].rpartition(".")[2] for name in parts)
    return StructureMaps(seen.image, folded.reshape(*folded.shape[:-1], side, side), scorings)


def activation_map(weights: Path, image: Path, detector: Detector, angle: str = ALL_ANGLES) -> ActivationMap:
    """Return which pixels of the largest face in an image decide an angle of a checkpoint's network, by Grad-CAM.

    Args:
        weights: the checkpoint.
        image: an image file.
        detector: finds the face.
        angle: "yaw", "pitch", "roll" or "all".

    Raises:
        UbhpdError: the network has no backbone with a last map, there is no such angle, the image cannot be read, or no
            face is found in it.
    """
    if angle not in (*ANGLES, ALL_ANGLES):
        raise UbhpdError(f"There is no angle {angle!r}: choose yaw, pitch, roll or all.")
    seen = _seen(weights, image, detector)
    network = seen.model.network.eval()
    backbone = getattr(network, "backbone", None)
    if not isinstance(backbone, torch.nn.Module):
        raise UbhpdError(f"{seen.model.name} has no backbone whose last map could be drawn: give another model.")
    held: dict[str, torch.Tensor] = {}
    hook = backbone.register_forward_hook(lambda module, inputs, output: held.update(map=output))
    try:
        with torch.enable_grad():
            output = network(seen.inputs)
            if "map" not in held or held["map"].dim() != 4:
                raise UbhpdError(f"The backbone of {seen.model.name} ends in no map, so there is none to draw.")
            chosen = list(range(3)) if angle == ALL_ANGLES else [ANGLES.index(angle)]
            (gradient,) = torch.autograd.grad(_decided(network, output)[chosen].sum(), held["map"])
    finally:
        hook.remove()
    weights_of = gradient.mean(dim=(2, 3), keepdim=True)
    region = (weights_of * held["map"]).sum(dim=1, keepdim=True).relu().detach()
    region = functional.interpolate(region, size=seen.crop.shape[:2], mode="bilinear", align_corners=False)[0, 0]
    largest = region.max()
    share = (region / largest if largest > 0 else region).double().numpy()
    return ActivationMap(seen.image, share)


def _decided(network: PoseNetwork, output: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return what is differentiated for yaw, pitch and roll (3,)."""
    logits = output.get("logits")
    if logits is not None and logits.dim() == 3 and logits.shape[1] == len(ANGLES):
        return logits[0].max(dim=-1).values
    pose = network.pose(output)
    return (euler_from_matrix(pose) if pose.dim() == 3 else pose)[0]


def _seen(weights: Path, image: Path, detector: Detector) -> _Seen:
    """Return the model of a checkpoint and the largest face of an image as it sees it."""
    model = Model.of_checkpoint(weights)
    if model.kind != "image":
        raise UbhpdError(f"{model.name} sees no single image: give the weights of a model that does.")
    found = next(inputs.folder(image))
    if found.pixels_bgr is None:
        raise UbhpdError(found.problem or f"{image} does not decode.")
    faces = detector.boxes(found.pixels_bgr)
    if not faces:
        raise UbhpdError(f"The detector {detector.name} finds no face in {image}: name another with --detector.")
    seen = seen_of_face(found.pixels_bgr, faces[0].bbox_xyxy, model.recipe)
    if seen is None:
        raise UbhpdError(f"The face that {detector.name} finds in {image} lies outside it: name another --detector.")
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.recipe.mean, model.recipe.std))
    pixels = torch.from_numpy(np.ascontiguousarray(seen)).permute(2, 0, 1)
    return _Seen(model, seen, ((pixels.float() - mean) / std)[None])
