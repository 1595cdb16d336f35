"""The 68 iBUG landmarks by dlib's shape predictor, an optional part: neither dlib nor its model comes with ubhpd.

Kazemi and Sullivan, One Millisecond Face Alignment with an Ensemble of Regression Trees, CVPR 2014. The model is
dlib's shape_predictor_68_face_landmarks.dat, found in the variable UBHPD_DLIB68, in Debian's libdlib-data, or in the
package face_recognition_models, which is not imported.

It was trained on nearly frontal faces in the square boxes of dlib's own detector, and the box matters. On 387 pictures
of AFLW2000-3D the median error of the inner points, in shares of the face's size, by degrees of yaw:

| box | 0 to 20 | 20 to 30 | 30 to 40 | 40 to 50 |
|---|---|---|---|---|
| around the landmarks, as in the manifest | 0.02 | 0.06 | 0.23 | 0.29 |
| of MTCNN, made square | 0.02 | 0.03 | 0.05 | 0.14 |

In a box around the whole head, as BIWI's, the points land beside the mouth and the chin even from the front.
"""

from __future__ import annotations

import os
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ubhpd.errors import UbhpdError
from ubhpd.faces.face import Array, Picture

VARIABLE = "UBHPD_DLIB68"
FILE = "shape_predictor_68_face_landmarks.dat"
DEBIAN_FOLDER = Path("/usr/share/dlib")

_INSTALL = "pip install 'ubhpd[dlib]'"


def model_path() -> Path:
    """Return where dlib's model of the 68 landmarks lies.

    Raises:
        UbhpdError: it is not here; the sentence says what to install.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not Path(named).is_file():
            raise UbhpdError(f"{VARIABLE} names {named}, which is no file: let it name {FILE}.")
        return Path(named)
    spec = find_spec("face_recognition_models")
    packaged = [Path(f) / "models" for f in (spec.submodule_search_locations or ())] if spec else []
    for folder in (DEBIAN_FOLDER, *packaged):
        if (folder / FILE).is_file():
            return folder / FILE
    raise UbhpdError(f"dlib's landmark model {FILE} is not here: {_INSTALL}, or name the file in {VARIABLE}.")


def landmarks68(picture_bgr: Picture, bbox_xyxy: npt.ArrayLike) -> Array:
    """Return the 68 landmarks (68, 2) of a face, x and y in whole pixels counted from 0, float64.

    Args:
        picture_bgr: (height, width, 3), BGR.
        bbox_xyxy: left, top, right, bottom of the face in pixels, made square about its middle as the boxes of the
            model's training were; it may leave the picture.

    Raises:
        UbhpdError: dlib or its model is not here, or the box is empty or not finite.
    """
    box = np.asarray(bbox_xyxy, dtype=np.float64)
    if box.shape != (4,) or not np.isfinite(box).all() or box[2] - box[0] < 1 or box[3] - box[1] < 1:
        raise UbhpdError(f"The face box {box.tolist()} is empty or not finite: no landmarks can be found in it.")
    find = predictor(str(model_path()))
    import dlib

    half = float((box[2:] - box[:2]).max()) / 2
    x, y = ((box[:2] + box[2:]) / 2).tolist()
    square = dlib.rectangle(round(x - half), round(y - half), round(x + half), round(y + half))
    shape = find(np.ascontiguousarray(picture_bgr[:, :, ::-1]), square)
    return np.array([(point.x, point.y) for point in shape.parts()], dtype=np.float64)


@lru_cache(maxsize=1)
def predictor(path: str) -> Any:
    """Return dlib's shape predictor of a model file.

    Raises:
        UbhpdError: dlib is not here, or the file is no such model.
    """
    try:
        import dlib
    except ImportError:
        raise UbhpdError(f"The landmarks of dlib need the module dlib: {_INSTALL}.") from None
    try:
        return dlib.shape_predictor(path)
    except RuntimeError as error:
        raise UbhpdError(f"{path} is no shape predictor of dlib ({error}): take {FILE} from dlib.") from None
