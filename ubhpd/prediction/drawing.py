"""Predicted poses drawn on the pictures: axes and a cube on every head."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ubhpd.errors import UbhpdError
from ubhpd.faces.draw import draw_axes, draw_cube, draw_label
from ubhpd.files import replacing
from ubhpd.prediction.batches import Drawable
from ubhpd.prediction.job import Draw
from ubhpd.rotation import euler_from_matrix

Floats = npt.NDArray[np.float64]


def drawer(folder: Path) -> Draw:
    """Return a function that writes a head's picture with its pose to `folder`, named after the head."""

    def draw(sample_id: str, drawable: Drawable, rotation: Floats) -> None:
        x0, y0, x1, y1 = drawable.box_xyxy
        middle, size = ((x0 + x1) / 2, (y0 + y1) / 2), max(x1 - x0, y1 - y0) / 2
        picture = drawable.picture.copy()
        draw_cube(picture, rotation, middle, size)
        draw_axes(picture, rotation, middle, size)
        draw_label(picture, euler_from_matrix(rotation), (x0, y0))
        name = sample_id.replace("/", "_").replace("\\", "_").lstrip(".") or "_"
        is_written, data = cv2.imencode(".jpg", picture)
        if not is_written:
            raise UbhpdError(f"The picture of {sample_id} cannot be encoded: leave --draw out.")
        with replacing(folder / f"{name}.jpg") as part:
            part.write_bytes(data.tobytes())

    return draw
