"""A head's pose drawn on its image, from the rotation matrix: no Euler angle, no order to get wrong.

The head is drawn as seen from far away: a point p of the head's own frame lies at R p in frame C (x image-right, y up,
z toward the viewer), of which x and -y are pixels beside the centre. Everything is drawn antialiased, into the image
that is given (BGR, uint8), and what leaves the image is cut off.

Colours, as in `ubhpd review`: the head's x axis, to image-right in a face that looks into the camera, is orange
(X_BGR), its y axis, up, is green (Y_BGR), its z axis, where the nose points, is blue (Z_BGR); the cube is pale grey
(CUBE_BGR) with the side of the face in blue; landmarks are cyan (POINT_BGR).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import FloatArray, Image, Int32Array

X_BGR, Y_BGR, Z_BGR = (12, 89, 232), (68, 158, 47), (214, 126, 28)
CUBE_BGR, POINT_BGR, RIM_BGR = (230, 230, 230), (255, 230, 34), (0, 0, 0)

_SHIFT = 4  # bits behind the point in the coordinates that OpenCV takes
_FAR_PX = 1e6  # OpenCV's whole numbers end somewhere beyond
_SIDES = tuple((axis, sign) for axis in range(3) for sign in (-1.0, 1.0))
_FACE_SIDE = (2, 1.0)
_FACE_TINT = 0.3

Colour = tuple[int, int, int]


def draw_axes(image: Image, rotation: npt.ArrayLike, centre_xy: npt.ArrayLike, size_px: float) -> None:
    """Draw the head's three axes, the farthest first, so that what points to the viewer lies on top.

    Args:
        image: (height, width, 3), BGR; drawn into.
        rotation: (3, 3), head to frame C.
        centre_xy: where the axes meet, in pixels.
        size_px: length of an axis that lies in the image's plane.

    Raises:
        UbhpdError: not a finite matrix, centre and size.
    """
    r, centre = _checked(rotation, centre_xy, size_px)
    tips = _projected(r, centre, np.eye(3) * size_px)
    width = _line_width(size_px)
    for axis in np.argsort(r[2], kind="stable"):
        ends = np.stack([centre, tips[axis]])
        _line(image, ends, RIM_BGR, width + 2)
        _line(image, ends, (X_BGR, Y_BGR, Z_BGR)[axis], width)


def draw_cube(image: Image, rotation: npt.ArrayLike, centre_xy: npt.ArrayLike, size_px: float) -> None:
    """Draw a cube that is turned as the head is; the side of the face is blue, and tinted where it is seen.

    Edges behind the cube are thin, those in front are thick.

    Args:
        image: (height, width, 3), BGR; drawn into.
        rotation: (3, 3), head to frame C.
        centre_xy: the cube's middle, in pixels.
        size_px: length of an edge.

    Raises:
        UbhpdError: not a finite matrix, centre and size.
    """
    import cv2

    r, centre = _checked(rotation, centre_xy, size_px)
    width = _line_width(size_px)
    # The side of the face is the last of the hidden or of the seen sides, so that its colour wins on shared edges.
    order = sorted(_SIDES, key=lambda side: (_faces_viewer(r, side), side == _FACE_SIDE))
    for side in order:
        corners = _projected(r, centre, _corners(side) * size_px)
        is_seen = _faces_viewer(r, side)
        if is_seen and side == _FACE_SIDE:
            tinted = image.copy()
            cv2.fillConvexPoly(tinted, _pixels(corners), Z_BGR, cv2.LINE_AA, _SHIFT)
            cv2.addWeighted(tinted, _FACE_TINT, image, 1.0 - _FACE_TINT, 0.0, dst=image)
        closed = np.concatenate([corners, corners[:1]])
        if is_seen:
            _line(image, closed, RIM_BGR, width + 2)
        _line(image, closed, Z_BGR if side == _FACE_SIDE else CUBE_BGR, width if is_seen else 1)


def draw_landmarks(image: Image, points_xy: npt.ArrayLike, radius_px: float = 1.5) -> None:
    """Draw points (n, 2), in pixels; those that are not finite, as invisible landmarks are, are left out."""
    import cv2

    points = np.asarray(points_xy, dtype=np.float64).reshape(-1, 2)
    for point in _pixels(points[np.isfinite(points).all(axis=1)]):
        centre = (int(point[0]), int(point[1]))
        for more, colour in ((1.0, RIM_BGR), (0.0, POINT_BGR)):
            radius = round((radius_px + more) * 2**_SHIFT)
            cv2.circle(image, centre, radius, colour, thickness=cv2.FILLED, lineType=cv2.LINE_AA, shift=_SHIFT)


def draw_label(image: Image, ypr_deg: npt.ArrayLike, corner_xy: npt.ArrayLike) -> None:
    """Write yaw, pitch and roll in degrees, on a dark ground, above a corner: the top left one of a face's box.

    The text is moved as far as it must be to stay in the image.

    Args:
        image: (height, width, 3), BGR; drawn into.
        ypr_deg: (3,) canonical angles.
        corner_xy: where the ground's lower left corner lies, in pixels.
    """
    yaw, pitch, roll = (float(angle) for angle in np.asarray(ypr_deg))
    draw_text(image, f"yaw {yaw:+.1f}  pitch {pitch:+.1f}  roll {roll:+.1f}", corner_xy)


def draw_text(image: Image, text: str, corner_xy: npt.ArrayLike) -> None:
    """Write a line of text as `draw_label` does."""
    import cv2

    height, width = image.shape[:2]
    scale = float(np.clip(width / 900.0, 0.35, 1.0))
    (wide, tall), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    room = np.array([wide + 6, tall + below + 6])
    low = np.asarray(corner_xy, dtype=np.float64) - (0, room[1])
    x, y = np.round(low.clip(0, np.maximum(np.array([width, height]) - room, 0))).astype(int).tolist()
    ground = image[y : y + int(room[1]), x : x + int(room[0])]
    ground[:] = ground // 4
    place, white = (x + 3, y + 3 + tall), (255, 255, 255)
    cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, white, thickness=1, lineType=cv2.LINE_AA)


def _checked(rotation: npt.ArrayLike, centre_xy: npt.ArrayLike, size_px: float) -> tuple[FloatArray, FloatArray]:
    r, centre = np.asarray(rotation, dtype=np.float64), np.asarray(centre_xy, dtype=np.float64)
    if r.shape != (3, 3) or centre.shape != (2,):
        raise UbhpdError(f"A pose is drawn from a (3, 3) matrix at a point (2,), not from {r.shape} at {centre.shape}.")
    if not (np.isfinite(r).all() and np.isfinite(centre).all() and np.isfinite(size_px)):
        raise UbhpdError("A pose with a rotation, a centre or a size that is not finite cannot be drawn: leave it out.")
    return r, centre


def _projected(rotation: FloatArray, centre: FloatArray, points: FloatArray) -> FloatArray:
    """Return where points (n, 3) of the head's frame, in pixels, lie in the image (n, 2)."""
    seen = points @ rotation.T
    return np.asarray(centre + seen[:, :2] * (1.0, -1.0))


def _corners(side: tuple[int, float]) -> FloatArray:
    """Return the four corners (4, 3), in order around it, of a side of the cube with edges of length 1."""
    axis, sign = side
    around = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    return np.insert(around, axis, sign / 2, axis=1)


def _faces_viewer(rotation: FloatArray, side: tuple[int, float]) -> bool:
    axis, sign = side
    return bool(rotation[2, axis] * sign > 1e-9)


def _line_width(size_px: float) -> int:
    return round(float(np.clip(size_px / 40.0, 2, 6)))


def _line(image: Image, points: FloatArray, colour: Colour, width: int) -> None:
    import cv2

    cv2.polylines(
        image, [_pixels(points)], isClosed=False, color=colour, thickness=width, lineType=cv2.LINE_AA, shift=_SHIFT
    )


def _pixels(points: FloatArray) -> Int32Array:
    fine: Int32Array = np.round(points.clip(-_FAR_PX, _FAR_PX) * 2**_SHIFT).astype(np.int32)
    return fine
