"""Where the field's scripts cut a face, line by line as they do it."""

from __future__ import annotations

import numpy as np


def hopenet_box(points: np.ndarray) -> tuple[float, float, float, float]:
    """Return left, top, right, bottom as Hopenet's code/datasets.py grows the box of points (2, n) in pixels."""
    (x_min, y_min), (x_max, y_max) = points.min(axis=1), points.max(axis=1)
    k = 0.3
    x_min -= 0.6 * k * abs(x_max - x_min)
    y_min -= 2 * k * abs(y_max - y_min)
    x_max += 0.6 * k * abs(x_max - x_min)
    y_max += 0.6 * k * abs(y_max - y_min)
    return x_min, y_min, x_max, y_max
