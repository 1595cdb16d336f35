"""What a synthetic person has besides the face: ears, neck, shoulders and glasses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ubhpd.synth.grids import CLOTH_ROWS, EAR_UV, FRAME_UV, Part, rows_uv, tube
from ubhpd.synth.persons import Looks, Shape
from ubhpd.synth.skin import surface, turn_at

Array = npt.NDArray[np.float64]

PIVOT_MM = np.array([0.0, -62.0, -68.0])  # about which the head turns on the shoulders

# Height, half width, z of the middle, half depth.
_NECK = np.array(
    [(-150.0, 66.0, -86.0, 60.0), (-128.0, 58.0, -83.0, 56.0), (-100.0, 53.0, -79.0, 52.0), (-70.0, 51.0, -73.0, 49.0),
     (-40.0, 50.0, -66.0, 46.0), (-15.0, 46.0, -56.0, 40.0), (5.0, 38.0, -50.0, 30.0)]
)  # fmt: skip
_TORSO = np.array(
    [(-520.0, 205.0, -90.0, 118.0), (-330.0, 214.0, -90.0, 116.0), (-235.0, 220.0, -90.0, 108.0),
     (-190.0, 212.0, -88.0, 98.0), (-165.0, 188.0, -86.0, 88.0), (-148.0, 146.0, -83.0, 78.0),
     (-136.0, 106.0, -80.0, 71.0), (-126.0, 78.0, -77.0, 66.0), (-117.0, 64.0, -74.0, 63.0),
     (-114.0, 60.0, -74.0, 60.0)]
)  # fmt: skip


def ear_parts(shape: Shape) -> list[Part]:
    """Return the two ears, image-right first."""
    around = np.linspace(0.0, 2 * np.pi, 25)[None, :]  # from the back, over the top, to the front
    ring = np.array([0.02, 0.25, 0.45, 0.58, 0.68, 0.78, 0.88, 0.96, 1.0, 0.96, 0.72])[:, None]
    out = np.array([-5.0, -5.0, -3.5, 0.2, 1.0, -0.6, -0.2, 2.2, 1.2, -1.6, -16.0])[:, None]
    lobe = np.clip(-np.sin(around), 0.0, 1.0)
    height = 31.0 * ring * np.sin(around) * (1.0 + 0.03 * np.cos(around))
    back = 17.0 + ring * np.cos(around) * (17.5 - 7.0 * lobe**2) + 2.5 * np.sin(around) * ring
    relief = out * np.where(ring < 0.9, 1.0 - 0.75 * lobe**2, 1.0) * np.ones_like(around)
    shade = np.interp(ring, [0.0, 0.4, 0.6, 0.78, 0.9, 1.0], [0.5, 0.62, 0.95, 0.72, 0.95, 1.0]) * np.ones_like(around)
    shade[9:] = 0.6
    tilt = 0.34 + shape.ear_out
    x, y, z = surface(1.60, 33.0, shape)
    parts = []
    for side in (1.0, -1.0):
        sideways = np.array([side * np.sin(tilt), 0.0, -np.cos(tilt)])
        outward = np.array([side * np.cos(tilt), 0.0, np.sin(tilt)])
        upward = np.array([0.0, 0.98, -0.2])
        local = back[..., None] * sideways + height[..., None] * upward + relief[..., None] * outward
        points = np.array([side * (x - 1.0), y, z + 2.0]) + 0.9 * shape.ear * local
        order = slice(None) if side < 0 else slice(None, None, -1)  # so that normals point outward on both sides
        uv = np.broadcast_to(np.array(EAR_UV), (*points.shape[:2], 2))
        parts.append(Part(points[:, order], uv, shade[:, order], True, False, 0.08))
    return parts


def neck_part(shape: Shape, uv: tuple[float, float]) -> Part:
    """Return the neck; it takes its colour from one place of the skin's texture."""
    points, y = _stack(_NECK, 10, 33)
    points = points * (shape.stretch[0] * (1.0 + 0.6 * shape.jaw), 1.0, shape.stretch[2])
    body = np.clip((-62.0 - y) / 70.0, 0.0, 1.0)
    under_chin = np.clip((y + 128.0) / 62.0, 0.0, 1.0) * np.clip(points[..., 2] / 60.0 + 1.1, 0.0, 1.0)
    shade = 0.92 - 0.42 * under_chin
    place = np.broadcast_to(np.array(uv), (*y.shape, 2))
    return Part(points, place, shade, is_closed=True, body=body * body * (3.0 - 2.0 * body))


def torso_part() -> Part:
    """Return the shoulders."""
    points, y = _stack(_TORSO, 22, 49)
    uv = rows_uv(y.shape[0], y.shape[1], CLOTH_ROWS)
    shade = 0.78 + 0.22 * np.clip((-112.0 - y) / 30.0, 0.0, 1.0)
    return Part(points, uv, shade, is_closed=True, one_sided=False, body=np.ones(y.shape))


def glasses_parts(looks: Looks, shape: Shape) -> list[Part]:
    """Return the frame of a person's glasses, if any."""
    if looks.glasses == "none":
        return []
    radius = 1.1 if looks.glasses == "thin" else 2.1
    turn = np.linspace(0.0, 2 * np.pi, 33)
    rounded = [np.sign(f) * np.abs(f) ** 0.62 for f in (np.cos(turn), np.sin(turn))]
    x, y = 34.0 + 23.5 * rounded[0], 32.0 + 18.0 * rounded[1]
    bridge = surface(0.0, 34.0, shape)[2] / shape.stretch[2]
    paths = []
    for side in (1.0, -1.0):
        paths.append(np.column_stack([side * x, y, _lens_z(x, bridge)]))
        hinge = np.array([side * 58.0, 41.0, float(_lens_z(np.array(58.0), bridge))])
        ear = surface(side * 1.62, 47.0, shape) / shape.stretch + (side * 4.0, 0.0, 0.0)
        share = np.linspace(0.0, 1.0, 9)[:, None]
        paths.append(hinge + share * (ear - hinge) + side * np.sin(np.pi * share) * (5.0, 0.0, 0.0))
    t = np.linspace(-10.5, 10.5, 9)
    paths.append(np.column_stack([t, 38.0 - 0.02 * t**2, _lens_z(t, bridge) + 1.0]))
    return [tube(path * shape.stretch, radius, FRAME_UV, 0.35) for path in paths]


def _lens_z(x: Array, bridge: float) -> Array:
    z: Array = bridge + 3.5 - 0.0038 * x**2
    return z


def neck_place(shape: Shape) -> tuple[Array, Array]:
    """Return turn and height of the skin that the neck takes its colour from."""
    return turn_at(30.0, -60.0), np.array(-60.0)


def _stack(table: Array, rows: int, columns: int) -> tuple[Array, Array]:
    """Return the points (rows, columns, 3) of stacked ellipses, and their heights (rows, columns)."""
    share = np.linspace(0.0, len(table) - 1.0, rows)
    y, width, centre, depth = (np.interp(share, np.arange(len(table)), column)[:, None] for column in table.T)
    turn = np.linspace(-np.pi, np.pi, columns)[None, :]
    points = np.stack([width * np.sin(turn), y + 0.0 * turn, centre + depth * np.cos(turn)], axis=-1)
    return points, np.broadcast_to(y, points.shape[:2])
