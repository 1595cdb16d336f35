"""The named crop recipes: data only. `ubhpd.images.crops` carries them out, docs/exports.md explains them.

A recipe never changes under its name: a correction gets a higher `version`, another reading another name. Quirks
of published code that tables depend on stand in recipes of their own, called `...-legacy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

# Where a face box can come from. pt2d is the field's name for the landmarks a dataset publishes: the 21 of AFLW
# for AFLW2000-3D, the 68 for 300W-LP.
FACE_SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "bbox": "bbox_xyxy",
        "pt2d": "minimum and maximum over the visible points of pt2d",
        "pt2d_positive": "the same over points with coordinates > 0, decided by the axis that has fewer of them",
        "pt2d_hidden": "the same with hidden points where the files have them, at (-1, height + 2)",
        "image": "the whole image",
    }
)


@dataclass(frozen=True)
class Recipe:
    """How a face is cut out.

    name: of the recipe. version: of its meaning. sources: keys of FACE_SOURCES, the first that gives a crop is taken.
    size: side of the crop in pixels, None to leave it as cut. reference: whose code or paper. note: what to know.
    shape: "sides" moves each side by `grow`, "square" takes max(width, height) * margin about the middle, "image"
    is all of it. shift: of a square's middle, right and down, as shares of max(width, height).
    grow: left, top, right, bottom as shares of width or height, times k. k: a number, or (low, high) to draw it per
    sample. sequential: right and bottom grow by the width and height after left and top have moved.
    truncate_first: the face box is cut to whole pixels before it grows. outside: what is beyond the image, "black"
    or "clamp" to its last pixel but one. takes_last: the clamped right and bottom pixel belongs to the crop.
    rounding: "truncate" toward zero, "round" to the nearest, "none". fit: "stretch" to a square, or "shorter-side"
    to the size and the middle of it. keep: (kept, resized), the middle `kept` of every `resized` pixels stay.
    interpolation: "linear" as cv2's default, "area" the mean of what lies under a pixel, "nearest". colour: order of
    the channels in arrays; image files always have true colours.
    """

    name: str
    sources: tuple[str, ...]
    size: int | None
    reference: str
    note: str
    version: int = 1
    shape: Literal["sides", "square", "image"] = "sides"
    grow: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    k: float | tuple[float, float] = 1.0
    margin: float = 1.0
    sequential: bool = False
    truncate_first: bool = False
    outside: Literal["black", "clamp"] = "black"
    takes_last: bool = False
    rounding: Literal["truncate", "round", "none"] = "truncate"
    fit: Literal["stretch", "shorter-side"] = "stretch"
    keep: tuple[int, int] = (1, 1)
    interpolation: Literal["linear", "area", "nearest"] = "area"
    colour: Literal["RGB", "BGR"] = "RGB"
    shift: tuple[float, float] = (0.0, 0.0)


_HOPENET = "Ruiz et al., CVPRW 2018; natanielruiz/deep-head-pose, code/datasets.py"
_FSANET = "Yang et al., CVPR 2019; shamangary/FSA-Net, data/"
_SIXDREPNET = "Hempel et al., ICIP 2022; thohemp/6DRepNet, sixdrepnet/"
_OSGGNET = "Mo and Miao, ACM MM 2021; stoneMo/OsGG-Net, data_preprocessing/"
_EHPNET = "Thai et al., ICPRAM 2022; arxiv.org/abs/2210.13705"
_OPAL = "Cobo et al., Pattern Recognition 2024; pcr-upm/opal23_headpose, src/opal23_headpose.py"

_FSANET_06 = Recipe(
    name="fsanet-0.6",
    sources=("pt2d_positive", "bbox"),
    size=64,
    reference=_FSANET + "type1/TYY_create_db_type1.py",
    note="300W-LP and AFLW2000 of FSA-Net. bbox for heads without landmarks, such as BIWI's.",
    grow=(0.6, 0.6, 0.6, 0.6),
    truncate_first=True,
    outside="clamp",
    interpolation="linear",
    colour="BGR",
)
_FSANET_04 = Recipe(
    name="fsanet-0.4",
    sources=("bbox",),
    size=64,
    reference=_FSANET + "TYY_create_db_biwi.py",
    note="BIWI of FSA-Net, there about a box of the detector MTCNN, here about bbox_xyxy.",
    grow=(0.4, 0.4, 0.4, 0.4),
    outside="clamp",
    takes_last=True,
    interpolation="linear",
    colour="BGR",
)
_HOPENET_TRAIN = Recipe(
    name="hopenet",
    sources=("pt2d", "bbox"),
    size=224,
    reference=_HOPENET + ", class Pose_300W_LP",
    note="300W-LP for training, k in the middle of its range; the random cut of 224 from 240 is the middle one. "
    "6DRepNet trains on the same.",
    grow=(0.6, 2.0, 0.6, 0.6),
    k=0.3,
    sequential=True,
    fit="shorter-side",
    keep=(224, 240),
)
_HOPENET_AFLW2000 = Recipe(
    name="hopenet-aflw2000",
    sources=("pt2d", "bbox"),
    size=224,
    reference=_HOPENET + ", class AFLW2000",
    note="AFLW2000 for testing, hidden points left out.",
    grow=(2.0, 2.0, 2.0, 0.6),
    k=0.2,
    sequential=True,
    fit="shorter-side",
)
_LEGACY_NOTE = (
    "AFLW2000 as the published tables have it: the box of 1,718 of 2,000 images spans hidden points too, which lie "
    "at x = -1 (and y = height + 2, since the authors flipped y)."
)
_HOPENET_BIWI = Recipe(
    name="hopenet-biwi",
    sources=("bbox", "image"),
    size=224,
    reference=_HOPENET + ", class BIWI",
    note="BIWI, there about a box of Dockerface, here about bbox_xyxy; the whole image where there is none.",
    grow=(0.6, 1.0, 0.6, 0.6),
    k=0.35,
    sequential=True,
    fit="shorter-side",
)
_OPAL_16 = Recipe(
    name="opal-1.6",
    sources=("bbox",),
    size=128,
    reference=_OPAL,
    note="AFLW2000 of OPAL; not rounded to pixels, nearest neighbour.",
    shape="square",
    margin=1.6,
    rounding="none",
    interpolation="nearest",
    colour="BGR",
)

_SQUARE = Recipe(
    name="square",
    sources=("bbox", "pt2d"),
    size=224,
    reference="this project",
    note="The default: aspect ratio kept, black outside, whole pixels, no aliasing.",
    shape="square",
    margin=1.6,
    rounding="round",
)

_ALL = (
    _SQUARE,
    replace(
        _SQUARE, name="square-1.4", margin=1.4, rounding="none", interpolation="linear",
        note="For models of others whose own crop is not known: of margins from 1.0 to 1.6, the one with which "
        "opentrack's and OpenVINO's networks have the lowest error on AFLW2000.",
    ),
    replace(
        _SQUARE, name="square-1.2-up", margin=1.2, shift=(0.0, -0.1), interpolation="linear",
        note="The square of the longer side with a fifth of it above and a tenth at either end: about the box of the "
        "68 landmarks the forehead comes in. 3DDFA v2 and lightweight have their lowest error on AFLW2000 with it.",
    ),
    _FSANET_06,
    _FSANET_04,
    _HOPENET_TRAIN,
    replace(
        _HOPENET_TRAIN, name="hopenet-random", k=(0.2, 0.4),
        note="The same with k drawn per sample in [0.2, 0.4) from seed and sample_id, as in training.",
    ),
    _HOPENET_AFLW2000,
    replace(_HOPENET_AFLW2000, name="hopenet-aflw2000-legacy", sources=("pt2d_hidden",), note=_LEGACY_NOTE),
    _HOPENET_BIWI,
    replace(
        _HOPENET_AFLW2000, name="6drepnet-aflw2000", keep=(224, 256), reference=_SIXDREPNET + "datasets.py, test.py",
        note="Hopenet's box; the middle 224 of 256. Hidden points left out.",
    ),
    replace(
        _HOPENET_AFLW2000, name="6drepnet-aflw2000-legacy", keep=(224, 256), sources=("pt2d_hidden",),
        reference=_SIXDREPNET + "datasets.py, test.py", note=_LEGACY_NOTE,
    ),
    replace(
        _FSANET_04, name="6drepnet-biwi", size=224, keep=(224, 256), reference=_SIXDREPNET + "datasets.py, README",
        note="FSA-Net's BIWI at 256, of it the middle 224; BGR, as 6DRepNet in effect used.",
    ),
    replace(
        _HOPENET_TRAIN, name="dadl", keep=(224, 256),
        note="Hopenet's box, of which the paper says nothing; the middle 224 of 256 (DADL, section 4.3).",
    ),
    replace(
        _HOPENET_BIWI, name="dadl-biwi", keep=(224, 256),
        note="Hopenet's box of BIWI; the middle 224 of 256 (DADL, section 4.3).",
    ),
    replace(_FSANET_06, name="osggnet", size=256, reference=_OSGGNET, note="FSA-Net's 300W-LP and AFLW2000 at 256."),
    replace(_FSANET_04, name="osggnet-biwi", size=256, reference=_OSGGNET, note="FSA-Net's BIWI at 256."),
    Recipe(
        name="ehpnet",
        sources=("bbox", "pt2d"),
        size=112,
        reference=_EHPNET,
        note="All datasets of EHPNet, there about a box of RetinaFace. The paper adds floor(|w - h| / 2) at both ends "
        "of the shorter side, which is one pixel less than a square where |w - h| is odd.",
        shape="square",
        rounding="round",
        colour="BGR",
    ),
    _OPAL_16,
    Recipe(
        name="3ddfa-v2",
        sources=("bbox", "pt2d"),
        size=120,
        reference="Guo et al., ECCV 2020; cleardusk/3DDFA_V2, utils/functions.py (crop about landmarks)",
        note="3DDFA v2 about landmarks, where its code has them: the side is the diagonal of a square of the longer "
        "side.",
        shape="square",
        margin=2**0.5,
        rounding="round",
        interpolation="linear",
        colour="BGR",
    ),
    replace(_OPAL_16, name="opal-1.0", margin=1.0, note="BIWI of OPAL; not rounded to pixels, nearest neighbour."),
    Recipe(
        name="none",
        sources=("bbox", "pt2d", "image"),
        size=None,
        reference="this project",
        note="The whole image. Files are copied byte for byte unless a size is given.",
        shape="image",
    ),
)  # fmt: skip

RECIPES: Mapping[str, Recipe] = MappingProxyType({r.name: r for r in _ALL})
