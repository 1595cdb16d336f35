"""How a model's error rises when its input gets worse: one perturbation at a time, on the heads of a manifest.

The face box is moved or scaled, the image is turned in its plane (the label turns with it, exactly), and the crop loses
resolution (Hopenet, CVPRW 2018, figure 8), gets JPEG artefacts, blur, noise, another brightness or a grey patch, or is
mirrored. What is drawn at random depends on the seed and the head's id alone: every model gets the same perturbations.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from ubhpd.core import plotting  # noqa: F401, before anything of matplotlib

# isort: split

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ubhpd import __version__, manifest
from ubhpd.core.bins import ANGLES
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import locked, write_json
from ubhpd.core.progress import Progress
from ubhpd.core.registry import pick
from ubhpd.core.rotation import euler_from_matrix, geodesic_deg, matrix_from_euler, mirror_euler
from ubhpd.core.typing import AnyArray, FloatArray, Image
from ubhpd.inference.manifest_source import PLAN_COLUMNS, ManifestSource, Plan, plan_of
from ubhpd.inference.predicting import OpenedModel, Request, cut_by, open_model
from ubhpd.leaderboards.result import STRESS_KIND, canonical_hash
from ubhpd.manifest import BuildFolder
from ubhpd.nn.inputs import InputRecipe

_LOG = logging.getLogger(__name__)
SET = "stress-1"  # a changed set gets another number
_MIRROR = "mirror"


class Perturbation(NamedTuple):
    """A kind of perturbation, its amounts, and what the amount means. `counted`: the amounts in the set."""

    kind: str
    unit: str
    amounts: tuple[float, ...]
    counted: tuple[float, ...]


PERTURBATIONS = (
    Perturbation("shift", "% of the box, in a random direction", (1, 2, 5, 10, 15, 20), (5, 10, 20)),
    Perturbation("scale", "of the box", (0.6, 0.7, 0.8, 0.9, 1.1, 1.2, 1.4, 1.6, 1.8), (0.8, 1.2, 1.4)),
    Perturbation("rotation", "degrees in the image plane", (-30, -20, -10, 10, 20, 30), (-20, 20)),
    Perturbation("resolution", "pixels of the crop's side", (96, 64, 48, 32, 16, 8), (48, 32, 16)),
    Perturbation("jpeg", "quality", (50, 30, 20, 10, 5), (30, 10)),
    Perturbation("blur", "% of the crop's side, sigma", (1, 2, 3, 5), (2, 3)),
    Perturbation("noise", "grey levels, sigma", (5, 10, 20, 40), (10, 20)),
    Perturbation("brightness", "factor", (0.3, 0.5, 0.7, 1.3, 1.6, 2.0), (0.5, 1.6)),
    Perturbation("patch", "% of the crop's area, grey", (5, 10, 20, 30), (10, 20)),
    Perturbation(_MIRROR, "the mirrored image", (1,), ()),
)


@dataclass(frozen=True)
class StressRequest:
    """What to put under stress.

    model: what is opened, as for `ubhpd predict`; its manifest, crop, device and threads count. out: the JSON file.
    heads: how many heads of the manifest, at equal distances; 0 for all. seed: of shifts, noise and patches. kinds: of
    perturbations, all of them if empty.
    """

    model: Request
    out: Path
    heads: int = 300
    seed: int = 0
    kinds: tuple[str, ...] = ()


class Condition(NamedTuple):
    """What one perturbation with one amount did: MAE and mean geodesic error in degrees, and the heads predicted."""

    kind: str
    amount: float
    mae: float
    geodesic: float
    heads: int


@dataclass(frozen=True)
class StressReport:
    """All conditions, that without a perturbation first, and the mean rise of the geodesic error over the set.

    mirror_deg: mean angle between the prediction of the mirrored image and the mirrored prediction. rise_deg is None if
    only some kinds were run. left_out: heads without a prediction of the unchanged image.
    """

    out: Path
    conditions: tuple[Condition, ...]
    rise_deg: float | None
    mirror_deg: float | None
    left_out: int = 0
    model: dict[str, Any] = field(default_factory=dict)


class _Heads(NamedTuple):
    plan: Plan
    angles: FloatArray
    rotation: FloatArray
    build: Path


def stress(request: StressRequest, progress: Progress) -> StressReport:
    """Predict the heads under every perturbation and write the JSON file; an interrupted call resumes.

    Raises:
        UbhpdError: a model that sees no crops, no usable head, an unknown kind, or as `open_model`.
    """
    chosen = _chosen(request.kinds)
    if request.model.manifest is None:
        raise UbhpdError("ubhpd stress needs labelled heads: give --manifest.")
    opened = cut_by(open_model(request.model), request.model.crop)
    if opened.sees != "crops" or opened.recipe is None or opened.recipe.frames > 1:
        raise UbhpdError(f"{opened.about['model']} does not see single crops, so there is nothing to perturb.")
    heads = _heads(request, opened.recipe)
    identity = {
        "kind": STRESS_KIND, "perturbations": SET, "ubhpd": __version__, "model": opened.about,
        "manifest": heads.plan.fingerprint, "heads": len(heads.plan), "seed": request.seed,
    }  # fmt: skip
    identity = json.loads(json.dumps(identity))
    with locked(request.out, is_file=True):
        done = _resumed(request.out, identity)
        waiting = [("none", 0.0), *((p.kind, float(a)) for p in chosen for a in p.amounts)]
        with progress.bar("Perturbations", len(waiting)) as advance:
            for kind, amount in waiting:
                if (kind, amount) not in done:
                    done[kind, amount] = _run(opened, heads, kind, amount, request)
                    _write(request.out, identity, done)
                advance(1)
        content = _write(request.out, identity, done)
    conditions = tuple(Condition(**c) for c in content["conditions"])
    left_out = len(heads.plan) - conditions[0].heads
    return StressReport(request.out, conditions, content["rise_deg"], content["mirror_deg"], left_out, opened.about)


def _chosen(kinds: tuple[str, ...]) -> list[Perturbation]:
    known = {p.kind: p for p in PERTURBATIONS}
    wanted = {pick(known, k, "perturbation")[0] for k in kinds}
    return [p for p in PERTURBATIONS if not kinds or p.kind in wanted]


def _heads(request: StressRequest, recipe: InputRecipe) -> _Heads:
    assert request.model.manifest is not None
    build = BuildFolder.at(request.model.manifest)
    path = build.manifest()
    columns = [*PLAN_COLUMNS, *(f"{a}_deg" for a in ANGLES), "rotation"]
    table = manifest.usable(path, columns, request.model.split)
    if not table.num_rows:
        raise UbhpdError(f"{path} has no usable head: there is nothing to predict.")
    if 0 < request.heads < table.num_rows:
        table = table.take(np.unique(np.linspace(0, table.num_rows - 1, request.heads).astype(int)))
    plan = plan_of(table, recipe, manifest.header(path).fingerprint, request.seed)
    angles = np.stack([table.column(f"{a}_deg").to_numpy() for a in ANGLES], axis=1).astype(np.float64)
    rotation = np.array(table.column("rotation").to_pylist(), dtype=np.float64).reshape(-1, 3, 3)
    return _Heads(plan, angles, rotation, build.folder)


class _TurnedSource(ManifestSource):
    """A manifest whose images are turned about the middle of the face's crop."""

    turn_deg = 0.0

    def _image(self, row: int) -> Image:
        image = super()._image(row)
        if not self.turn_deg:
            return image
        x0, y0, x1, y1 = self._plan.box[row].tolist()
        turn = cv2.getRotationMatrix2D(((x0 + x1) / 2, (y0 + y1) / 2), self.turn_deg, 1.0)
        turned: Any = cv2.warpAffine(image, turn, (image.shape[1], image.shape[0]), flags=cv2.INTER_LINEAR)
        return np.asarray(turned, np.uint8)


def _run(opened: OpenedModel, heads: _Heads, kind: str, amount: float, request: StressRequest) -> dict[str, Any]:
    """Return MAE, geodesic error and heads of a condition, and for the mirror its consistency."""
    assert opened.recipe is not None
    plan = replace(heads.plan, box=_boxes(heads.plan, kind, amount, request.seed))
    source = _TurnedSource(plan, heads.build, opened.recipe, "crops", request.model.threads)
    source.turn_deg = amount if kind == "rotation" else 0.0
    change = _CHANGES.get(kind)
    place = {name: i for i, name in enumerate(plan.texts["sample_id"])}
    angles = np.full((len(plan), 3), np.nan)
    rotation = np.full((len(plan), 3, 3), np.nan)
    plain = angles.copy()
    for batch in source.batches((), False):
        crops = np.asarray(batch.inputs)
        rows = [place[i] for i in batch.sample_id]
        if kind == _MIRROR and len(crops):
            plain[rows] = opened.predictor(crops)[0]
        if change is not None and len(crops):
            draws = (_draw(request.seed, name) for name in batch.sample_id)
            crops = np.stack([change(crop, amount, draw) for crop, draw in zip(crops, draws, strict=True)])
        angles[rows], rotation[rows] = opened.predictor(crops)
    true_angles, true_rotation = _truth(heads, kind, amount)
    known = np.isfinite(angles).all(axis=1)
    if not known.any():
        raise UbhpdError(f"{opened.about['model']} gave no prediction for any of the {len(plan):,} heads.")
    found: dict[str, Any] = {
        "kind": kind, "amount": amount,
        "mae": float(np.abs(angles - true_angles)[known].mean()),
        "geodesic": float(geodesic_deg(rotation[known], true_rotation[known]).mean()),
        "heads": int(known.sum()),
    }  # fmt: skip
    if kind == _MIRROR:
        both = known & np.isfinite(plain).all(axis=1)
        mirrored = matrix_from_euler(mirror_euler(plain[both]))
        found["mirror_deg"] = float(geodesic_deg(rotation[both], mirrored).mean())
    return found


def _boxes(plan: Plan, kind: str, amount: float, seed: int) -> FloatArray:
    """Return the crops (n, 4) of a condition: moved, scaled, or as they are."""
    middle, size = (plan.box[:, :2] + plan.box[:, 2:]) / 2, plan.box[:, 2:] - plan.box[:, :2]
    if kind == "shift":
        turns = np.array([_draw(seed, name).uniform(0, 2 * np.pi) for name in plan.texts["sample_id"]])
        middle = middle + amount / 100 * size * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    elif kind == "scale":
        size = size * amount
    else:
        return plan.box
    moved: FloatArray = np.rint(np.concatenate([middle - size / 2, middle + size / 2], axis=1))
    return moved


def _truth(heads: _Heads, kind: str, amount: float) -> tuple[FloatArray, FloatArray]:
    """Return the true angles and rotations of a condition."""
    if kind == _MIRROR:
        angles = mirror_euler(heads.angles)
        return angles, matrix_from_euler(angles)
    if kind != "rotation":
        return heads.angles, heads.rotation
    cos, sin = np.cos(np.radians(amount)), np.sin(np.radians(amount))
    rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ heads.rotation
    return euler_from_matrix(rotation), rotation


def _draw(seed: int, sample_id: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed} {sample_id}".encode("utf-8", "backslashreplace")).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


Change = Callable[[Image, float, np.random.Generator], Image]


def _resolution(crop: Image, side: float, _: np.random.Generator) -> Image:
    size = crop.shape[0]
    if side >= size:
        return crop
    small = cv2.resize(crop, (int(side), int(side)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)


def _jpeg(crop: Image, quality: float, _: np.random.Generator) -> Image:
    encoded = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)


def _blur(crop: Image, percent: float, _: np.random.Generator) -> Image:
    return np.asarray(cv2.GaussianBlur(crop, (0, 0), percent / 100 * crop.shape[0]), np.uint8)


def _noise(crop: Image, sigma: float, draw: np.random.Generator) -> Image:
    return _as_pixels(crop + draw.normal(0, sigma, crop.shape))


def _brightness(crop: Image, factor: float, _: np.random.Generator) -> Image:
    return _as_pixels(crop * np.float64(factor))


def _patch(crop: Image, percent: float, draw: np.random.Generator) -> Image:
    side = max(1, round(float(np.sqrt(percent / 100)) * crop.shape[0]))
    y, x = draw.integers(0, crop.shape[0] - side + 1, 2)
    changed: Image = crop.copy()
    changed[y : y + side, x : x + side] = 127
    return changed


def _mirrored(crop: Image, _: float, __: np.random.Generator) -> Image:
    mirrored: Image = np.ascontiguousarray(crop[:, ::-1])
    return mirrored


def _as_pixels(values: AnyArray) -> Image:
    pixels: Image = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return pixels


_CHANGES: dict[str, Change] = {
    "resolution": _resolution, "jpeg": _jpeg, "blur": _blur, "noise": _noise, "brightness": _brightness,
    "patch": _patch, _MIRROR: _mirrored,
}  # fmt: skip


def _resumed(out: Path, identity: dict[str, Any]) -> dict[tuple[str, float], dict[str, Any]]:
    """Return the conditions that an earlier call of the same left in the file."""
    try:
        said = json.loads(out.read_text(encoding="utf-8"))
        if said["inputs"] != canonical_hash(identity):
            return {}
        return {(c["kind"], float(c["amount"])): _with_mirror(c, said) for c in said["conditions"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _with_mirror(condition: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    return {**condition, "mirror_deg": said["mirror_deg"]} if condition["kind"] == _MIRROR else condition


def _write(out: Path, identity: dict[str, Any], done: dict[tuple[str, float], dict[str, Any]]) -> dict[str, Any]:
    """Write the file and return its content; the rise is None until every condition of the set is there."""
    plain = done["none", 0.0]
    counted = [(p.kind, float(a)) for p in PERTURBATIONS for a in p.counted]
    rise = None
    if all(c in done for c in counted):
        rise = float(np.mean([done[c]["geodesic"] - plain["geodesic"] for c in counted]))
    conditions = [{k: v for k, v in c.items() if k != "mirror_deg"} for c in done.values()]
    mirror = done.get((_MIRROR, 1.0), {}).get("mirror_deg")
    content = {**identity, "rise_deg": rise, "mirror_deg": mirror, "conditions": conditions}
    content["inputs"] = canonical_hash(identity)
    write_json(content, out)
    return content


def figure_of(report: StressReport) -> Figure:
    """Return the geodesic error against the amount of each perturbation, a panel a kind; the dashed line: without."""
    kinds = [p for p in PERTURBATIONS if p.kind != _MIRROR and any(c.kind == p.kind for c in report.conditions)]
    figure = Figure(figsize=(11, 2.5 * max(1, -(-len(kinds) // 3))), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = np.atleast_1d(figure.subplots(max(1, -(-len(kinds) // 3)), 3)).ravel()
    plain = report.conditions[0].geodesic
    for axes in panels[len(kinds) :]:
        axes.set_axis_off()
    for axes, own in zip(panels, kinds, strict=False):
        points = sorted((c.amount, c.geodesic) for c in report.conditions if c.kind == own.kind)
        axes.plot(*zip(*points, strict=True), "o-", ms=3)
        axes.axhline(plain, color="0.5", linestyle="--", linewidth=1)
        axes.set(title=own.kind, xlabel=own.unit, ylabel="geodesic error (degrees)", ylim=(0, None))
        axes.grid(alpha=0.3)
    return figure
