"""Face crops by named, versioned recipes: the same head cut in the same way here, in an export and in training.

Papers crop differently, and that alone moves their errors by degrees (deep-head-pose issues 23, 40 and 65). A
`Recipe` states where the face box comes from, how it grows, what lies outside the image, how the cut is brought
to its size, and whose code it follows, line by line: `int()` truncates toward zero, and with `sequential` the right
side grows by the width that the left side's step has already changed. docs/exports.md has the table.

    from ubhpd.images.crops import RECIPES, crop, crop_box
    box = crop_box(row, RECIPES["fsanet-0.6"])           # row: the columns of one head; None without a box
    face = crop(image, box, RECIPES["fsanet-0.6"])     # uint8 (64, 64, 3)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.core.registry import pick
from ubhpd.core.typing import FloatArray, Image, IntArray
from ubhpd.images.recipes import FACE_SOURCES, RECIPES, Recipe
from ubhpd.nn.inputs import WHOLE

__all__ = ["FACE_SOURCES", "RECIPES", "Boxes", "Recipe", "crop", "crop_box", "crop_boxes", "face_boxes", "placed"]


FIELDS = ("sample_id", "image_width", "image_height", "bbox_xyxy", "landmarks21", "landmarks68")
MAX_SIDE_PX = 8192  # a larger crop comes from a label that is no face, and would fill the memory
_LINEAR_SHRINK = 1.2  # up to here bilinear sampling misses nothing that can be seen


class Boxes(NamedTuple):
    """The crops of n heads.

    xyxy: left, top, right, bottom (n, 4) in pixels, right and bottom exclusive; NaN where there is no box.
    source: index into recipe.sources of where the face came from (n,), -1 where there is no box.
    """

    xyxy: FloatArray
    source: IntArray


def crop_box(fields: Mapping[str, Any], recipe: Recipe, seed: int = 0) -> tuple[float, float, float, float] | None:
    """Return left, top, right, bottom of a head's crop in pixels, right and bottom exclusive; None without a box.

    Args:
        fields: columns of a manifest, those of FIELDS that the recipe needs; missing or None is null.
        recipe: whole numbers come out unless its rounding is "none".
        seed: of the factor k, where the recipe draws it; with sample_id it decides alone.
    """
    columns: dict[str, Any] = {"sample_id": [fields.get("sample_id") or ""]}
    for name in ("image_width", "image_height"):
        columns[name] = np.array([fields.get(name) or 0], dtype=np.float64)
    for name, length in (("bbox_xyxy", 4), ("landmarks21", 42), ("landmarks68", 136)):
        value = fields.get(name)
        flat = np.full(length, np.nan) if value is None else np.asarray(value, dtype=np.float64).ravel()
        columns[name] = flat[None, :]
    boxes = crop_boxes(columns, recipe, seed)
    if boxes.source[0] < 0:
        return None
    x0, y0, x1, y1 = boxes.xyxy[0].tolist()
    return (x0, y0, x1, y1) if recipe.rounding == "none" else (int(x0), int(y0), int(x1), int(y1))


def crop_boxes(columns: Mapping[str, Any], recipe: Recipe, seed: int = 0) -> Boxes:
    """Return the crops of n heads; see `crop_box`.

    Args:
        columns: sample_id (n strings), image_width and image_height (n,), bbox_xyxy (n, 4), landmarks21 (n, 42)
            and landmarks68 (n, 136), NaN for null.
        recipe: which crop.
        seed: of a drawn k.
    """
    size = np.stack([columns["image_width"], columns["image_height"]], axis=1).astype(np.float64)
    xyxy = np.full((len(size), 4), np.nan)
    source = np.full(len(size), -1)
    k = _factors(columns["sample_id"], recipe, seed)
    for index, name in enumerate(recipe.sources):
        faces = face_boxes(columns, name)
        grown = _inside(_grown(faces, size, k, recipe), size, recipe)
        takes = (source < 0) & ~np.isnan(grown).any(axis=1)
        xyxy[takes], source[takes] = grown[takes], index
    return Boxes(xyxy, source)


def face_boxes(columns: Mapping[str, Any], source: str) -> FloatArray:
    """Return the face boxes (n, 4) that a source of FACE_SOURCES gives, NaN where it gives none."""
    if source == "bbox":
        boxes = np.array(columns["bbox_xyxy"], dtype=np.float64)
    elif source == "image":
        width, height = np.asarray(columns["image_width"]), np.asarray(columns["image_height"])
        boxes = np.stack([np.zeros(len(width)), np.zeros(len(width)), width, height], axis=1).astype(np.float64)
    else:
        boxes = _landmark_boxes(columns, source)
    boxes[~((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))] = np.nan
    return boxes


def crop(
    image: Image, box: Sequence[float], recipe: Recipe, size: int | None = None, colour: str | None = None
) -> Image:
    """Return the crop, uint8 (size, size, 3); its own size where neither `size` nor the recipe names one.

    Args:
        image: (height, width, 3), BGR, as `ubhpd.raw.image_files` gives it.
        box: from `crop_box` or a row of `crop_boxes`.
        recipe: how the cut is brought to its size.
        size: side in pixels; the recipe's own by default.
        colour: "RGB" or "BGR"; the recipe's own by default.
    """
    side = size or recipe.size
    if recipe.interpolation == "nearest" and side:
        out = _nearest(image, box, side)
    else:
        x0, y0, x1, y1 = (int(v) for v in box)
        out = _cut(image, x0, y0, x1, y1)
        if side:
            width, height = _resized(x1 - x0, y1 - y0, recipe, side)
            left, top = round((width - side) / 2), round((height - side) / 2)
            out = _resize(out, width, height, recipe.interpolation)[top : top + side, left : left + side]
    if (colour or recipe.colour) == "RGB":
        out = out[:, :, ::-1]
    return np.ascontiguousarray(out)


def placed(points_xy: npt.ArrayLike, box: Sequence[float], recipe: Recipe, size: int | None = None) -> FloatArray:
    """Return where points (n, 2) of the image lie in the crop, in pixels of the crop."""
    x0, y0, x1, y1 = box
    points = np.asarray(points_xy, dtype=np.float64) - (x0, y0)
    side = size or recipe.size
    if not side:
        return points
    width, height = _resized(x1 - x0, y1 - y0, recipe, side)
    offset = (round((width - side) / 2), round((height - side) / 2))
    moved: FloatArray = points * (width / (x1 - x0), height / (y1 - y0)) - offset
    return moved


def _landmark_boxes(columns: Mapping[str, Any], source: str) -> FloatArray:
    """Return min and max over pt2d: the 21 points where any is visible, as in AFLW2000-3D, else the 68."""
    of_21, of_68 = np.asarray(columns["landmarks21"], float), np.asarray(columns["landmarks68"], float)
    has_21 = ~np.isnan(of_21).all(axis=1)
    boxes = np.full((len(has_21), 4), np.nan)
    for rows, flat in ((has_21, of_21), (~has_21 & ~np.isnan(of_68).all(axis=1), of_68)):
        if not rows.any():
            continue
        x, y = flat[rows, 0::2].copy(), flat[rows, 1::2].copy()
        if source == "pt2d_hidden":
            hidden = np.isnan(x)
            x[hidden] = -1.0  # (-1, -1) in AFLW; the authors of AFLW2000-3D flipped y, y -> height + 1 - y
            y[hidden] = np.broadcast_to(np.asarray(columns["image_height"], float)[rows, None] + 2, y.shape)[hidden]
        if source == "pt2d_positive":
            keep_x, keep_y = x > 0, y > 0
            fewer_y = (keep_x.sum(axis=1) > keep_y.sum(axis=1))[:, None]
            dropped = ~np.where(fewer_y, keep_y, keep_x)
            x[dropped] = y[dropped] = np.nan
        gone = np.isnan(x) | np.isnan(y)
        low, high = (
            (np.where(gone, np.inf, v).min(axis=1) for v in (x, y)),
            (np.where(gone, -np.inf, v).max(axis=1) for v in (x, y)),
        )
        boxes[rows] = np.stack([*low, *high], axis=1)
    return boxes


def _factors(sample_ids: Sequence[str], recipe: Recipe, seed: int) -> FloatArray:
    """Return k of each head (n, 1): the recipe's, or drawn uniformly from seed and sample_id, so that the order of the
    heads does not matter."""
    if isinstance(recipe.k, tuple):
        low, high = recipe.k
        digests = [hashlib.sha256(f"{seed}:{i}".encode()).digest() for i in sample_ids]
        shares = np.array([int.from_bytes(d[:6], "big") / 2**48 for d in digests])
        return (low + (high - low) * shares)[:, None]
    return np.full((len(sample_ids), 1), recipe.k)


def _grown(faces: FloatArray, size: FloatArray, k: FloatArray, recipe: Recipe) -> FloatArray:
    """Return the boxes after the recipe's steps, not yet clamped."""
    if recipe.shape == "image":
        whole = np.concatenate([np.zeros_like(size), size], axis=1)
        return np.where(np.isnan(faces), np.nan, whole)
    low, high = faces[:, :2], faces[:, 2:]
    if recipe.shape == "square":
        longer = (high - low).max(axis=1, keepdims=True)
        side = longer * recipe.margin
        if recipe.rounding == "round":
            side = np.maximum(np.floor(side + 0.5), 1)
        low = (low + high) / 2 + longer * np.array(recipe.shift) - side / 2
        if recipe.rounding == "round":
            low = np.floor(low + 0.5)
        return np.concatenate([low, low + side], axis=1)
    if recipe.truncate_first:
        low, high = np.trunc(low), np.trunc(high)
    grow = np.array(recipe.grow, dtype=np.float64)
    before = np.abs(high - low)
    low = low - grow[:2] * k * before
    high = high + grow[2:] * k * (np.abs(high - low) if recipe.sequential else before)
    grown: FloatArray = np.trunc(np.concatenate([low, high], axis=1))
    return grown


def _inside(boxes: FloatArray, size: FloatArray, recipe: Recipe) -> FloatArray:
    """Return the boxes clamped where the recipe does so; NaN for one that is empty, absurd or beside the image."""
    low, high = boxes[:, :2], boxes[:, 2:]
    if recipe.outside == "clamp":
        low = np.maximum(low, 0)
        high = np.minimum(high, size - 1) + (1 if recipe.takes_last else 0)
    with np.errstate(invalid="ignore"):
        sound = (high > low) & (high > 0) & (low < size) & (high - low <= MAX_SIDE_PX)
    return np.where(sound.all(axis=1, keepdims=True), np.concatenate([low, high], axis=1), np.nan)


def _resized(width: float, height: float, recipe: Recipe, side: int) -> tuple[int, int]:
    """Return width and height to resize to, of which the middle square is kept, as torchvision does it."""
    kept, of = recipe.keep
    target = round(side * of / kept)
    if recipe.fit == "stretch":
        return target, target
    if width <= height:
        return target, int(target * height / width)
    return int(target * width / height), target


def _cut(image: Image, x0: int, y0: int, x1: int, y1: int) -> Image:
    """Return the part of the image inside the box, black where the box leaves it."""
    height, width = image.shape[:2]
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    part = image[top:bottom, left:right]
    if (left, top, right, bottom) == (x0, y0, x1, y1):
        return part
    canvas = np.zeros((y1 - y0, x1 - x0, 3), dtype=np.uint8)
    canvas[top - y0 : bottom - y0, left - x0 : right - x0] = part
    return canvas


def _resize(part: Image, width: int, height: int, interpolation: str) -> Image:
    """Return the part resized; "area" averages what lies under a pixel, within 50 dB of the exact mean.

    cv2's INTER_AREA takes half as long as decoding the image does. Bilinear sampling to a whole multiple of the
    size, which shrinks at most by two and therefore skips no pixel, and then the exact mean is 2 to 6 times faster.
    """
    import cv2

    if interpolation == "area":
        across, down = (_multiple(o / n) for o, n in ((part.shape[1], width), (part.shape[0], height)))
        if across > 1 or down > 1:
            fine = cv2.resize(part, (across * width, down * height), interpolation=cv2.INTER_LINEAR)
            return np.asarray(cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _multiple(shrink: float) -> int:
    return 1 if shrink <= _LINEAR_SHRINK else max(2, ceil(shrink / 2))


def _nearest(image: Image, box: Sequence[float], side: int) -> Image:
    """Return the pixels under the centres of the crop's pixels, as PIL's affine transform; black outside."""
    x0, y0, x1, y1 = box
    centres = np.arange(side) + 0.5
    xs = np.floor(x0 + centres * ((x1 - x0) / side)).astype(np.int64)
    ys = np.floor(y0 + centres * ((y1 - y0) / side)).astype(np.int64)
    height, width = image.shape[:2]
    out = image[np.clip(ys, 0, height - 1)[:, None], np.clip(xs, 0, width - 1)[None, :]]
    out[(ys < 0) | (ys >= height)] = 0
    out[:, (xs < 0) | (xs >= width)] = 0
    return np.asarray(out, dtype=np.uint8)


def recipe_named(name: str) -> Recipe:
    """Return the recipe of that name; upper and lower case do not count.

    "NAME:whole" is the recipe without its last step, which keeps the middle of what was cut.

    Raises:
        UbhpdError: there is none; the sentence suggests the nearest.
    """
    own, colon, part = name.partition(":")
    found: Recipe = pick(RECIPES, own if f"{colon}{part}" == WHOLE else name, "crop recipe")[1]
    return replace(found, name=f"{found.name}{WHOLE}", keep=(1, 1)) if colon else found
