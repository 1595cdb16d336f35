"""Proposes the IO file of an ONNX or OpenVINO model from labelled heads: tries readings, and takes the best one.

First the shape of the input gives size, layout and the possible colours. Then every crop, colour and value range is
tried on a few heads with every reading of the outputs that their shapes allow: the order, signs, unit and Euler order
of angles, bins of 3 degrees, matrices, six numbers and quaternions, in frame C or a camera's, inverted or not. The best
is the one with the smallest median geodesic error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.core.progress import Progress
from ubhpd.core.rotation import geodesic_deg
from ubhpd.core.typing import AnyArray, FloatArray
from ubhpd.inference.foreign import ForeignModel, Outputs, Session, network_input, opened
from ubhpd.inference.io_file import InputFile, IoFile, OutputFile, as_toml
from ubhpd.inference.manifest_source import PLAN_COLUMNS, ManifestSource, plan_of
from ubhpd.manifest import BuildFolder
from ubhpd.nn.inputs import InputRecipe

HEADS, FEW_HEADS = 200, 48
_FINALISTS = 6  # tried on all heads
CROPS = ("square-1.4", "square", "fsanet-0.6", "hopenet-aflw2000", "opal-1.0")
NORMALISATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "0 to 255": ((0.0,), (1.0,)),
    "0 to 1": ((0.0,), (255.0,)),
    "-1 to 1": ((127.5,), (127.5,)),
    "-1 to 1, by 128": ((127.5,), (128.0,)),
    "-0.5 to 0.5": ((127.5,), (255.0,)),
    "ImageNet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}
_GREY_NORMALISATIONS = ("0 to 255", "0 to 1", "-1 to 1", "-0.5 to 0.5")
_MAX_BINS = 400
_ORDERS = tuple(permutations(("yaw", "pitch", "roll")))
_SIGNS = tuple(product((1.0, -1.0), repeat=3))


@dataclass(frozen=True)
class Proposal:
    """The best reading: the IO file, and its errors on `heads` heads: median and mean geodesic error, MAE, in degrees.

    second_deg: median error of the best reading with another crop, colour or value range. text: the IO file as TOML.
    """

    io: IoFile
    median_deg: float
    mean_deg: float
    mae_deg: float
    second_deg: float
    heads: int
    text: str


class _Heads(NamedTuple):
    """Labelled heads: crops by (recipe, colour), true angles (n, 3) and rotations (n, 3, 3)."""

    crops: dict[tuple[str, str], AnyArray]
    angles: FloatArray
    rotation: FloatArray


class _Tried(NamedTuple):
    error: float
    input: InputFile
    output: OutputFile


def propose(path: Path, place: Path, progress: Progress, heads: int = HEADS, device: str = "cpu") -> Proposal:
    """Return the most likely IO file of a model.

    Args:
        path: an ONNX file or an OpenVINO model (.xml) with one image as its input.
        place: a manifest with images, or the folder of a build.
        progress: shows how far the trials are.
        heads: how many labelled heads to use; those at equal distances through the manifest are taken.
        device: as for `ForeignModel`.

    Raises:
        UbhpdError: a model that cannot be opened or whose shapes fit no reading, or too few usable heads.
    """
    session = opened(path, device)
    name, size, layout, colours = _shape_of_input(session, path)
    labelled = _labelled(place, size, colours, heads)
    few = slice(None, None, max(1, len(labelled.angles) // FEW_HEADS))
    inputs = [
        InputFile(crop, size, colour, layout, mean, std, name if len(session.inputs) > 1 else None)  # type: ignore[arg-type]
        for crop in CROPS[:1]
        for colour in colours
        for mean, std in _normalisations(colour)
    ]
    tried: list[_Tried] = []
    with progress.bar("Trying readings", len(inputs) + len(CROPS) - 1) as advance:
        for own in inputs:
            tried.append(_best(session, name, own, labelled, few, path))
            advance(1)
        best = min(tried, key=lambda t: t.error)
        for crop in CROPS[1:]:
            tried.append(_best(session, name, replace(best.input, crop=crop), labelled, few, path))
            advance(1)
    tried.sort(key=lambda t: t.error)
    finalists = [_best(session, name, t.input, labelled, slice(None), path) for t in tried[:_FINALISTS]]
    final, second = sorted(finalists, key=lambda t: t.error)[:2]
    io = IoFile(final.input, (final.output,), title=path.stem)
    angles, rotation = ForeignModel(io, [path], device=device).poses(
        labelled.crops[final.input.crop, _stored(final.input)]
    )
    errors = geodesic_deg(rotation, labelled.rotation)
    return Proposal(
        io, float(np.nanmedian(errors)), float(np.nanmean(errors)), float(np.nanmean(np.abs(angles - labelled.angles))),
        second.error, len(labelled.angles), as_toml(io),
    )  # fmt: skip


def _shape_of_input(session: Session, path: Path) -> tuple[str, int, str, tuple[str, ...]]:
    """Return name, side, layout and possible colours of the image input."""
    images = {n: s for n, s in session.inputs.items() if len(s) == 4}
    if len(session.inputs) != 1 or len(images) != 1:
        listed = ", ".join(f"{n} {s}" for n, s in session.inputs.items())
        raise UbhpdError(
            f"{path} has the inputs {listed}: only a model whose single input is an image can be inspected."
        )
    ((name, shape),) = images.items()
    layout = "NHWC" if shape[3] in (1, 3) and shape[1] not in (1, 3) else "NCHW"
    channels, sides = (shape[3], shape[1:3]) if layout == "NHWC" else (shape[1], shape[2:4])
    side = sides[0] or sides[1] or 224
    if channels not in (None, 1, 3) or any(s not in (None, side) for s in sides):
        raise UbhpdError(
            f"The input {name!r} of {path} has shape {shape}, which is no square image: write the IO file by hand."
        )
    return name, side, layout, ("grey",) if channels == 1 else ("RGB", "BGR")


def _normalisations(colour: str) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    if colour == "grey":
        return [NORMALISATIONS[n] for n in _GREY_NORMALISATIONS]
    turned = slice(None, None, -1 if colour == "BGR" else 1)
    return [(mean[turned], std[turned]) for mean, std in NORMALISATIONS.values()]


def _stored(own: InputFile) -> str:
    return "BGR" if own.colour == "BGR" else "RGB"


def _labelled(place: Path, size: int, colours: Sequence[str], heads: int) -> _Heads:
    """Return crops of some heads that have a box or landmarks, in all recipes."""
    build = BuildFolder.at(place)
    path = build.manifest()
    table = manifest.usable(path, [*PLAN_COLUMNS, "yaw_deg", "pitch_deg", "roll_deg", "rotation"])
    rows = np.linspace(0, table.num_rows - 1, min(heads, table.num_rows)).astype(int)
    table = table.take(np.unique(rows))
    mark = manifest.header(path).fingerprint
    crops: dict[tuple[str, str], dict[str, Any]] = {}
    for recipe_name in CROPS:
        for colour in sorted({"BGR" if c == "BGR" else "RGB" for c in colours}):
            recipe = InputRecipe(recipe_name, size, colour)
            source = ManifestSource(plan_of(table, recipe, mark), build.folder, recipe, "crops", 0)
            own: dict[str, Any] = {}
            for batch in source.batches((), False):
                own |= dict(zip(batch.sample_id, np.asarray(batch.inputs), strict=True))
            crops[recipe_name, colour] = own
    ids = [i for i in table.column("sample_id").to_pylist() if all(i in own for own in crops.values())]
    if len(ids) < 20:
        raise UbhpdError(f"{path} has {len(ids)} heads that all recipes can cut, and 20 are needed: give more.")
    chosen = {row["sample_id"]: row for row in table.to_pylist()}
    angles = np.array([[chosen[i][f"{a}_deg"] for a in ("yaw", "pitch", "roll")] for i in ids])
    rotation = np.array([chosen[i]["rotation"] for i in ids]).reshape(-1, 3, 3)
    return _Heads({key: np.stack([own[i] for i in ids]) for key, own in crops.items()}, angles, rotation)


def _best(session: Session, name: str, own: InputFile, heads: _Heads, part: slice, path: Path) -> _Tried:
    crops = heads.crops[own.crop, _stored(own)][part]
    outputs = ForeignModel.run_session(session, name, network_input(crops, own), path)
    true = heads.rotation[part]
    best = _Tried(np.inf, own, OutputFile())
    for output in _readings(outputs):
        arrays = [outputs[n] for n in output.names]
        with np.errstate(all="ignore"):
            rotation = output.poses(arrays, str(path))[1]
            error = float(np.median(np.nan_to_num(geodesic_deg(rotation, true), nan=180.0)))
        if error < best.error:
            best = _Tried(error, own, output)
    if not np.isfinite(best.error):
        shapes = ", ".join(f"{n} {np.shape(v)}" for n, v in outputs.items())
        raise UbhpdError(f"The outputs of {path} ({shapes}) fit no reading: write the IO file by hand.")
    return best


def _readings(outputs: Outputs) -> Iterator[OutputFile]:
    """Yield every reading that the shapes of the outputs allow."""
    widths = {n: int(np.prod(np.shape(v)[1:])) for n, v in outputs.items()}
    single = [n for n, w in widths.items() if w == 1]
    triples = [(n,) for n, w in widths.items() if w == 3] + ([tuple(single)] if len(single) == 3 else [])
    classes = [n for n, w in widths.items() if 15 <= w <= _MAX_BINS and np.ndim(outputs[n]) == 2]
    for names in triples:
        for order, signs, unit, axes in product(
            _ORDERS,
            _SIGNS,
            ("degrees", "radians"),
            ("XYZ", "ZYX", "YXZ"),
        ):
            yield OutputFile("angles", names, order, signs, unit, axes)  # type: ignore[arg-type]
    if len(classes) == 3:
        first = tuple(-3.0 * widths[n] / 2 for n in classes)
        for order, signs, softmax in product(_ORDERS, _SIGNS, (True, False)):
            yield OutputFile("bins", tuple(classes), order, signs, first=first, softmax=softmax)  # type: ignore[arg-type]
    frames = ("C", "camera")
    for name, width in widths.items():
        for transposed, frame, head in product((False, True), frames, frames):
            rest: dict[str, Any] = {"transposed": transposed, "frame": frame, "head": None if head == frame else head}
            if width in (9, 12, 16):
                yield OutputFile("matrix", (name,), **rest)
            elif width == 6:
                for vectors in ("columns", "rows"):
                    yield OutputFile("6d", (name,), vectors=vectors, **rest)
            elif width == 4:
                for scalar in ("last", "first"):
                    yield OutputFile("quaternion", (name,), scalar=scalar, **rest)
