"""Eyes, brows, nostrils and mouth, painted on a person's texture where the landmarks of an expression are.

A synthetic person seen by a camera: colours with soft edges, and distances.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ubhpd.core.rotation import euler_from_matrix, matrix_from_euler
from ubhpd.core.typing import AnyArray, BoolArray, Float32Array, FloatArray, Image, IntArray
from ubhpd.synth.rendered_heads import Head, View
from ubhpd.synth.renderer.hair import (
    PIVOT_MM,
    beard_part,
    covers_ears,
    ear_parts,
    glasses_parts,
    hair_parts,
    neck_part,
    neck_place,
    torso_part,
)
from ubhpd.synth.renderer.paint import (
    Patch,
    bare_texture,
    head_part,
    mean_front,
    noise_tile,
    put_patches,
    rounded,
    stroke,
    texture_of,
    twofold,
)
from ubhpd.synth.renderer.persons import Expression, Looks, looks_of, shape_of
from ubhpd.synth.renderer.raster import Cover, Part, grid_normals, grid_triangles, rasterise
from ubhpd.synth.renderer.shape import front_xy

_WHITE = np.array((214.0, 219.0, 226.0))
_BLACK = np.array((18.0, 16.0, 16.0))
_TURNS = np.linspace(0, 2 * np.pi, 20, endpoint=False)
_CIRCLE = np.column_stack([np.cos(_TURNS), np.sin(_TURNS)])
_NOSTRIL = np.array((2.9, 1.2)) * _CIRCLE


@lru_cache(maxsize=16)
def texture(subject: int, expression: Expression) -> Image:
    """Return the texture of a subject with an expression."""
    looks, shape = looks_of(subject), shape_of(subject)
    points = front_xy(shape, expression)
    brows = _brow(points[17:22], looks), _brow(points[22:27][::-1], looks)
    other_eye = points[[45, 44, 43, 42, 47, 46]]
    eyes = _eye(points[36:42], -1, looks, expression), _eye(other_eye, 1, looks, expression)
    patches = [twofold(*pair) for sides in (brows, eyes) for pair in zip(*sides, strict=True)]
    holes = tuple(_NOSTRIL + np.array((x * shape.nose_width, -12.4)) for x in (-7.2, 7.2))
    patches.append(Patch(holes, np.array(looks.skin) * 0.22, 0.8, 0.9))
    patches += _mouth(points[48:68], looks, expression)
    painted: Image = bare_texture(subject).copy()
    put_patches(painted, patches)
    return painted


def _brow(brow: FloatArray, looks: Looks) -> list[Patch]:
    path = rounded(brow, closed=False)
    share = np.linspace(0, 1, len(path))
    width = looks.brow_mm * 2.0 * np.interp(share, [0, 0.35, 0.8, 1], [0.3, 0.85, 1.1, 0.75])
    colour = np.array(looks.hair) * 0.55 + np.array(looks.skin) * 0.08
    low = path + np.array((0.0, -0.4))
    return [stroke(path, width, colour, 0.72, 1.2), stroke(low, width * 0.6, colour * 0.8, 0.5, 0.8)]


def _eye(eye: FloatArray, side: int, looks: Looks, expression: Expression) -> list[Patch]:
    """Return the patches of an eye from outer corner, upper lid, inner corner and lower lid (6, 2) in millimetres."""
    upper, lower = rounded(eye[:4], 6, closed=False), rounded(eye[[0, 5, 4, 3]], 6, closed=False)
    skin = np.array(looks.skin)
    dark = skin * (0.42, 0.40, 0.48)
    shadow = np.array(looks.cloth) * looks.make_up * 0.35 + skin * (0.55, 0.52, 0.62) * (1 - 0.3 * looks.make_up)
    middle = (eye[0] + eye[3]) / 2 + (1.2 * -side + 4.2 * expression.gaze_x, 0.9 + 2.2 * expression.gaze_y)
    discs = ((5.9, np.array(looks.iris) * 0.45), (5.2, np.array(looks.iris)), (2.5, _BLACK))
    lid_shade = np.concatenate([upper, upper[::-1] - (0.0, 2.4)])
    inner = (
        *(Patch((_disc(middle, (0.0, 0.0), radius),), colour, 1.0, 0.5) for radius, colour in discs),
        Patch((_disc(middle, (1.6, 1.9), 1.0),), _WHITE * 1.15, 0.9, 0.3),
        Patch((lid_shade,), _BLACK, 0.35, 1.0),
    )
    lash = np.array(looks.hair) * 0.25 * (1 - 0.6 * looks.make_up)
    crease = upper[2:-2] + np.array((0.0, 3.0 + 1.5 * expression.eyes_closed))
    return [
        stroke(upper + np.array((0.0, 2.6)), 4.0, shadow, 0.22 + 0.35 * looks.make_up, 2.2),
        stroke(lower - (0.0, 1.6), 2.6, dark, 0.16, 1.8),
        Patch((rounded(eye, 6),), _WHITE * (0.82 + 0.18 * skin / 200.0), inner=inner),
        stroke(upper + np.array((0.0, 0.3)), 1.1 + 1.0 * looks.make_up, lash, 0.85, 0.5),
        stroke(lower, 0.6 + 0.4 * looks.make_up, dark * 0.8, 0.5, 0.6),
        stroke(crease, 1.0, dark, 0.5, 0.8),
        Patch((_disc(eye[3], (0.6 * side, 0.0), 1.4),), skin * (0.75, 0.68, 0.95), 0.6, 0.6),
    ]


def _mouth(lips: FloatArray, looks: Looks, expression: Expression) -> list[Patch]:
    """Return the patches of a mouth from the outer (12, 2) and inner (8, 2) outline of its lips in millimetres."""
    outer, inner = lips[:12], lips[12:]
    skin = np.array(looks.skin)
    natural = skin * (0.74, 0.68, 0.90)
    colour = natural + looks.make_up * 0.7 * (np.array((70.0, 50.0, 185.0)) - natural)
    shine = outer[7:12][::-1] + np.array((0.0, 2.6))
    patches = [
        Patch((rounded(outer, 4),), colour, 0.88, 0.9),
        stroke(shine, 2.0, np.minimum(colour * 1.18, 255.0), 0.35, 1.6),
    ]
    if expression.mouth_open > 0.1 or expression.smile > 0.45:
        bottom = inner[1:4] - (0.0, 0.35 + 0.8 * min(expression.mouth_open + 0.5 * expression.smile, 1.0))
        teeth = np.concatenate([inner[1:4] - (0.0, 0.15), bottom[::-1]])
        patches.append(Patch((rounded(inner, 4),), (38.0, 26.0, 62.0), 1.0, 0.5))
        patches.append(Patch((teeth,), (188.0, 205.0, 214.0), 0.9, 0.6))
    else:
        middle = rounded(np.concatenate([outer[:1], inner[1:4], outer[6:7]]), closed=False)
        patches.append(stroke(middle - (0.0, 0.6), 0.9, natural * (0.35, 0.32, 0.45), 0.85, 0.6))
    tips = _disc(outer[0], (-0.5, 0.0), 1.5), _disc(outer[6], (0.5, 0.0), 1.5)
    return [*patches, Patch(tips, natural * 0.5, 0.5, 0.9)]


def _disc(centre: FloatArray, away: tuple[float, float], radius_mm: float) -> FloatArray:
    """Return the outline (20, 2) of a circle that lies a little away from a point."""
    outline: FloatArray = centre + np.asarray(away) + radius_mm * _CIRCLE
    return outline


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

    points_mm: FloatArray  # (3, n)
    normals: Float32Array  # (3, n)
    uv_px: Float32Array  # (2, n)
    shade: Float32Array  # (n,)
    shine: Float32Array  # (n,)
    body: FloatArray  # (n,)
    triangles: IntArray  # (3, m)
    one_sided: BoolArray  # (m,)


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


def paint_head(canvas: Image, view: View, head: Head, light: Light) -> None:
    """Draw a person into an image (height, width, 3 or 4) of 8 bits; a fourth channel becomes opaque there."""
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
    if canvas.shape[2] == 4:  # an image without background: a pixel is the person's or it is nothing
        opaque = small[..., 3] > 127
        place[opaque] = np.concatenate(
            [_full(np.asarray(small, np.uint8))[opaque], np.full((int(opaque.sum()), 1), 255, np.uint8)], axis=1
        )
        return
    gap = cv2.cvtColor(255 - small[..., 3], cv2.COLOR_GRAY2BGR)
    place[:] = cv2.add(cv2.multiply(place, gap, scale=1 / 255), cv2.cvtColor(small, cv2.COLOR_BGRA2BGR))


def depth_image(view: View, head: Head, size: tuple[int, int]) -> Float32Array:
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


def visible(view: View, head: Head, points_mm: FloatArray, size: tuple[int, int], slack_mm: float = 7.0) -> BoolArray:
    """Return which points (n,) of the head's surface, (n, 3), lie in the image with nothing before them."""
    seen = view.project(points_mm)
    column, row = np.round(seen[:, :2]).astype(int).T
    within = (column >= 0) & (column < size[0]) & (row >= 0) & (row < size[1])
    depth = depth_image(view, head, size)
    before = depth[np.where(within, row, 0), np.where(within, column, 0)]
    found: BoolArray = within & (seen[:, 2] <= before + slack_mm)
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
        points_mm=part.points_mm.reshape(-1, 3).T,
        normals=normals.reshape(-1, 3).T.astype(np.float32),
        uv_px=part.uv_px.reshape(-1, 2).T.astype(np.float32),
        shade=part.shade.reshape(-1).astype(np.float32),
        shine=np.full(count, part.shine, dtype=np.float32),
        body=np.zeros(count) if part.body is None else part.body.reshape(-1),
        triangles=triangles.T,
        one_sided=np.full(len(triangles), part.one_sided),
    )


def _joined(persons: list[Person]) -> Person:
    starts = np.cumsum([0] + [len(p.body) for p in persons])
    moved = [p._replace(triangles=p.triangles + start) for p, start in zip(persons, starts[:-1], strict=True)]
    return Person(*(np.ascontiguousarray(np.concatenate(column, axis=-1)) for column in zip(*moved, strict=True)))


def _on_shoulders(person: Person, view: View) -> tuple[FloatArray, Float32Array]:
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


def _turned(vectors: AnyArray, rotation: FloatArray) -> AnyArray:
    """Return R v of vectors (3, n), the same bits for every number of threads."""
    x, y, z = vectors
    return np.stack([a * x + b * y + c * z for a, b, c in rotation.tolist()])


def _window(view: View, points: FloatArray, shape: tuple[int, ...]) -> tuple[int, int, int, int, FloatArray]:
    """Return the part of the image that a person may cover, and the projected points (3, n)."""
    seen = _turned(points, view.matrix[:, :3]) + view.matrix[:, 3:]
    if view.is_perspective:
        seen[2] = np.maximum(seen[2], 1.0)
        seen[:2] /= seen[2]
    (x0, x1), (y0, y1) = (
        (max(math.floor(v.min()) - 1, 0), min(math.ceil(v.max()) + 2, limit))
        for v, limit in ((seen[0], shape[1]), (seen[1], shape[0]))
    )
    return x0, y0, x1, y1, seen


def _nearness(view: View, seen: FloatArray) -> FloatArray:
    found: FloatArray = 1.0 / seen[2] if view.is_perspective else -seen[2]
    return found


def _lit(person: Person, normals: Float32Array, view: View, light: Light) -> Float32Array:
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


def _colours(cover: Cover, painted: Image, light: Light) -> npt.NDArray[np.uint32]:
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


def _full(premultiplied: Image) -> Image:
    """Return the colours (..., 3) of a layer whose colours were weighted with its fourth channel."""
    alpha = np.maximum(premultiplied[..., 3:], 1).astype(np.float32)
    full: Image = np.clip(premultiplied[..., :3] * (255.0 / alpha), 0, 255).astype(np.uint8)
    return full
