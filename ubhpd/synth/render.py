"""A synthetic person seen by a camera: colours with soft edges, and distances."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ubhpd.rotation import euler_from_matrix, matrix_from_euler
from ubhpd.synth.body import PIVOT_MM, ear_parts, glasses_parts, neck_part, neck_place, torso_part
from ubhpd.synth.face import head_part, mean_front, texture_of
from ubhpd.synth.features import texture
from ubhpd.synth.grids import Part, grid_normals, grid_triangles
from ubhpd.synth.hair import beard_part, covers_ears, hair_parts
from ubhpd.synth.heads import Head, View
from ubhpd.synth.paint import noise_tile
from ubhpd.synth.persons import Expression, looks_of, shape_of
from ubhpd.synth.raster import Cover, Indices, rasterise

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Picture = npt.NDArray[Any]  # of uint8

SUPERSAMPLING = 1.5  # so that bilinear scaling down weighs every pixel
_BODY_FOLLOWS = (0.35, 0.10, 0.12)  # shares of the head's yaw, pitch and roll that the shoulders take
_REMAP_WIDTH = 256


class Light(NamedTuple):
    """Light on a scene: where it comes from in frame C, its strength, and that of the light from all around."""

    direction: tuple[float, float, float] = (0.2, 0.45, 1.0)
    strength: float = 0.72
    ambient: float = 0.42
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)  # BGR


class Person(NamedTuple):
    """The triangles of a person, in head coordinates with the shoulders straight below."""

    points_mm: Array  # (3, n)
    normals: Floats  # (3, n)
    uv_px: Floats  # (2, n)
    shade: Floats  # (n,)
    shine: Floats  # (n,)
    body: Array  # (n,)
    triangles: Indices  # (3, m)
    one_sided: npt.NDArray[np.bool_]  # (m,)


def draw_light(rng: np.random.Generator) -> Light:
    """Return the light of a scene: mostly from in front and above, sometimes from a side."""
    x, y, z = rng.normal((0.0, 0.45, 1.0), (0.7, 0.35, 0.15)).tolist()
    ambient, warm = float(rng.uniform(0.32, 0.55)), float(rng.normal(0.0, 0.05))
    strength = float(rng.uniform(0.85, 1.2)) - ambient
    return Light((x, y, max(z, 0.3)), strength, ambient, (1.0 - warm, 1.0, 1.0 + warm))


@lru_cache(maxsize=16)
def person_of(subject: int, expression: Expression) -> Person:
    """Return the triangles of a subject with an expression."""
    shape, looks = shape_of(subject), looks_of(subject)
    face = head_part(shape, looks, expression)
    beard = beard_part(face.points_mm, mean_front(), looks, noise_tile(128, 2.2, 2.2).astype(np.float64))
    return _joined([_flat(face), *([] if beard is None else [_flat(beard)]), *_worn(subject)])


def paint_head(canvas: Picture, view: View, head: Head, light: Light) -> None:
    """Draw a person into a picture (height, width, 3 or 4) of 8 bits; a fourth channel becomes opaque there."""
    person = person_of(head.subject, head.expression)
    points, normals = _on_shoulders(person, view)
    x0, y0, x1, y1, seen = _window(view, points, canvas.shape)
    if x1 <= x0 or y1 <= y0:
        return
    s = SUPERSAMPLING
    xy = (seen[:2] - [[x0], [y0]]) * s + (s - 1) / 2
    size = (math.ceil((x1 - x0) * s), math.ceil((y1 - y0) * s))
    values = np.concatenate([person.uv_px, _lit(person, normals, view, light)])
    cover = rasterise(xy, _nearness(view, seen), person.triangles, person.one_sided, values, size)
    if not len(cover.pixels):
        return
    layer = np.zeros(size[0] * size[1], dtype=np.uint32)  # four bytes a pixel, the last opaque
    layer[cover.pixels] = _colours(cover, texture(head.subject, head.expression), light)
    four = layer.view(np.uint8).reshape(size[1], size[0], 4)
    small = cv2.resize(four, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
    place = canvas[y0:y1, x0:x1]
    if canvas.shape[2] == 4:  # a picture without background: a pixel is the person's or it is nothing
        opaque = small[..., 3] > 127
        place[opaque] = np.concatenate([_full(small)[opaque], np.full((int(opaque.sum()), 1), 255, np.uint8)], axis=1)
        return
    gap = cv2.cvtColor(255 - small[..., 3], cv2.COLOR_GRAY2BGR)
    place[:] = cv2.add(cv2.multiply(place, gap, scale=1 / 255), cv2.cvtColor(small, cv2.COLOR_BGRA2BGR))


def depth_picture(view: View, head: Head, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return distances along the camera's axis in millimetres (height, width) of a person; 0 where there is none."""
    person = person_of(head.subject, head.expression)
    points, _ = _on_shoulders(person, view)
    depth = np.zeros((size[1], size[0]), dtype=np.float32)
    x0, y0, x1, y1, seen = _window(view, points, depth.shape)
    if x1 <= x0 or y1 <= y0:
        return depth
    near = _nearness(view, seen)
    window = (x1 - x0, y1 - y0)
    cover = rasterise(seen[:2] - [[x0], [y0]], near, person.triangles, person.one_sided, near[None], window)
    flat = np.zeros(window[0] * window[1], dtype=np.float32)
    flat[cover.pixels] = 1.0 / cover.values[0] if view.is_perspective else -cover.values[0]
    depth[y0:y1, x0:x1] = flat.reshape(window[1], window[0])
    return depth


def visible(
    view: View, head: Head, points_mm: Array, size: tuple[int, int], slack_mm: float = 7.0
) -> npt.NDArray[np.bool_]:
    """Return which points (n,) of the head's surface, (n, 3), lie in the picture with nothing before them."""
    seen = view.project(points_mm)
    column, row = np.round(seen[:, :2]).astype(int).T
    within = (column >= 0) & (column < size[0]) & (row >= 0) & (row < size[1])
    depth = depth_picture(view, head, size)
    before = depth[np.where(within, row, 0), np.where(within, column, 0)]
    found: npt.NDArray[np.bool_] = within & (seen[:, 2] <= before + slack_mm)
    return found


@lru_cache(maxsize=8)
def _worn(subject: int) -> tuple[Person, ...]:
    """Return the triangles of a subject that no expression moves."""
    shape, looks = shape_of(subject), looks_of(subject)
    u, v = texture_of(*neck_place(shape))
    lumps = noise_tile(128, 2.2, 2.2)[:, (subject * 37) % 256 :].astype(np.float64)
    parts = [neck_part(shape, (float(u), float(v))), *glasses_parts(looks, shape), *hair_parts(looks, shape, lumps)]
    parts += [] if covers_ears(looks) else ear_parts(shape)
    return _torso(), *(_flat(part) for part in parts)


@lru_cache(maxsize=1)
def _torso() -> Person:
    return _flat(torso_part())


def _flat(part: Part) -> Person:
    rows, columns = part.points_mm.shape[:2]
    normals = grid_normals(part.points_mm, part.is_closed)
    triangles = grid_triangles(rows, columns, part.kept)
    count = rows * columns
    return Person(
        part.points_mm.reshape(-1, 3).T,
        normals.reshape(-1, 3).T.astype(np.float32),
        part.uv_px.reshape(-1, 2).T.astype(np.float32),
        part.shade.reshape(-1).astype(np.float32),
        np.full(count, part.shine, dtype=np.float32),
        np.zeros(count) if part.body is None else part.body.reshape(-1),
        triangles.T,
        np.full(len(triangles), part.one_sided),
    )


def _joined(persons: list[Person]) -> Person:
    starts = np.cumsum([0] + [len(p.body) for p in persons])
    moved = [p._replace(triangles=p.triangles + start) for p, start in zip(persons, starts[:-1], strict=True)]
    return Person(*(np.ascontiguousarray(np.concatenate(column, axis=-1)) for column in zip(*moved, strict=True)))


def _on_shoulders(person: Person, view: View) -> tuple[Array, Floats]:
    """Return points and normals (3, n) with the shoulders where they stay when the head turns."""
    head = view.rotation
    body = matrix_from_euler(np.asarray(euler_from_matrix(head)) * _BODY_FOLLOWS)
    back = head.T @ body
    moving = np.flatnonzero(person.body)
    share = person.body[moving]
    points, normals = person.points_mm.copy(), person.normals.copy()
    away = points[:, moving] - PIVOT_MM[:, None]
    points[:, moving] += share * (_turned(away, back) - away)
    straight = normals[:, moving]
    normals[:, moving] += share * (_turned(straight, back) - straight)
    return points, normals


def _turned(vectors: npt.NDArray[Any], rotation: Array) -> npt.NDArray[Any]:
    """Return R v of vectors (3, n), the same bits whatever the number of threads."""
    x, y, z = vectors
    return np.stack([a * x + b * y + c * z for a, b, c in rotation.tolist()])


def _window(view: View, points: Array, shape: tuple[int, ...]) -> tuple[int, int, int, int, Array]:
    """Return the part of the picture that a person may cover, and the projected points (3, n)."""
    seen = _turned(points, view.matrix[:, :3]) + view.matrix[:, 3:]
    if view.is_perspective:
        seen[2] = np.maximum(seen[2], 1.0)
        seen[:2] /= seen[2]
    (x0, x1), (y0, y1) = (
        (max(math.floor(v.min()) - 1, 0), min(math.ceil(v.max()) + 2, limit))
        for v, limit in ((seen[0], shape[1]), (seen[1], shape[0]))
    )
    return x0, y0, x1, y1, seen


def _nearness(view: View, seen: Array) -> Array:
    found: Array = 1.0 / seen[2] if view.is_perspective else -seen[2]
    return found


def _lit(person: Person, normals: Floats, view: View, light: Light) -> Floats:
    """Return the brightness of every point and what its gloss adds, (2, n)."""
    toward = np.asarray(light.direction) / np.linalg.norm(light.direction)
    half = toward + np.array((0.0, 0.0, 1.0))
    half /= np.linalg.norm(half)
    rotation = view.rotation
    diffuse, glance, up = _turned(normals, np.stack([toward @ rotation, half @ rotation, rotation[1]]))
    wrapped = np.clip((diffuse + 0.18) / 1.18, 0.0, 1.0)
    bright = person.shade * (light.ambient * (0.82 + 0.18 * up) + light.strength * wrapped)
    second = np.square(np.clip(glance, 0.0, 1.0))
    sixteenth = np.square(np.square(np.square(second)))
    gloss = 255.0 * light.strength * person.shine * person.shade * second * sixteenth
    return np.stack([bright, gloss])


def _colours(cover: Cover, painted: Picture, light: Light) -> npt.NDArray[np.uint32]:
    """Return the colours (n,) of the covered pixels, blue, green, red and 255 in four bytes."""
    count = len(cover.pixels)
    rows = -(-count // _REMAP_WIDTH)
    padded = np.zeros((4, rows * _REMAP_WIDTH), dtype=np.float32)
    padded[:, :count] = cover.values
    u, v, bright, gloss = padded.reshape(4, rows, _REMAP_WIDTH)
    colours = cv2.remap(painted, u, v, cv2.INTER_LINEAR)
    colours = cv2.multiply(colours, cv2.merge([bright * t for t in light.tint]), dtype=cv2.CV_8U)
    colours = cv2.add(colours, cv2.merge([cv2.convertScaleAbs(gloss, alpha=t) for t in light.tint]))
    four: npt.NDArray[np.uint32] = cv2.cvtColor(colours, cv2.COLOR_BGR2BGRA).view(np.uint32)
    return four.reshape(-1)[:count]


def _full(premultiplied: Picture) -> Picture:
    """Return the colours (..., 3) of a layer whose colours were weighted with its fourth channel."""
    alpha = np.maximum(premultiplied[..., 3:], 1).astype(np.float32)
    full: Picture = np.clip(premultiplied[..., :3] * (255.0 / alpha), 0, 255).astype(np.uint8)
    return full
