"""What models see: crops by an input recipe, or the known landmarks of heads for a geometric method.

Imports no torch, so that geometric methods and models of others need none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from ubhpd.core.typing import FloatArray

WHOLE = ":whole"  # after the name of a crop recipe: without its last step, which keeps the middle only


@dataclass(frozen=True)
class InputRecipe:
    """How an image of a head becomes the network's input: it belongs to the model and travels with its weights.

    crop: name of a crop recipe of `ubhpd.images.recipes`. size: side of the input in pixels. colour: order of the
    channels. mean, std: a value v of 0 to 255 enters as (v - mean) / std, per channel in the order of `colour`.
    crop_of: pairs (dataset, crop recipe) where the paper cuts a dataset in another way. frames: images per input;
    more than one for a network that sees a sequence and predicts its last image.
    """

    crop: str
    size: int
    colour: Literal["RGB", "BGR"] = "RGB"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    crop_of: tuple[tuple[str, str], ...] = ()
    frames: int = 1

    def crop_for(self, dataset: str) -> str:
        """Return the name of the crop recipe for a dataset."""
        return dict(self.crop_of).get(dataset, self.crop)


Parameters = dict[str, FloatArray]


class Heads(NamedTuple):
    """n heads.

    sample_id: n names. angles_deg: canonical yaw, pitch, roll (n, 3). rotation: the same as matrices (n, 3, 3), frame
    C of `ubhpd.core.rotation`; both None where the truth is not known. landmarks68: (n, 68, 2) pixels, x right and y
    down, NaN where a point is not known. image_size: width and height of the images (n, 2), pixels, NaN where not
    known. landmarks_kind: what found the landmarks, as the manifest says it, such as "dlib68:mtcnn"; None where not
    known.
    """

    sample_id: list[str]
    angles_deg: FloatArray | None
    rotation: FloatArray | None
    landmarks68: FloatArray
    image_size: FloatArray
    landmarks_kind: list[str | None] | None = None
