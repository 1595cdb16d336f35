"""From rows of a manifest to heads that a network can be trained on: crops, landmarks, sequences.

`ubhpd train` as a function: a model and a build in, a checkpoint and its report out.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from ubhpd import __version__
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import clear_parts, locked, write_json
from ubhpd.core.progress import Progress, log_level
from ubhpd.core.typing import FloatArray, IntArray
from ubhpd.images.crops import placed, recipe_named
from ubhpd.inference.manifest_source import Plan, plan_of
from ubhpd.inference.network_predictor import device_title
from ubhpd.models import checkpoint
from ubhpd.models.catalogue import card
from ubhpd.models.geometric_model import GeometricMethod, heads_of, own_landmarks
from ubhpd.models.importing import with_backbone
from ubhpd.models.model import Model
from ubhpd.nn.contract import InputRecipe, PoseNetwork, TrainingRecipe
from ubhpd.training import state
from ubhpd.training.crop_cache import crops_of
from ubhpd.training.distributed import Team, team
from ubhpd.training.feeding import Feed, Order, TrainingHeads
from ubhpd.training.loop import Loop, Work, recipe_asked_for
from ubhpd.training.request import REPORT, WEIGHTS, TrainReport, TrainRequest, departures
from ubhpd.training.training_heads import (
    Held,
    TrainingSplit,
    angles_deg,
    check_supervision,
    held_out,
    loss_weights,
    sampling_weights,
    supervision,
    training_split,
)

_LOG = logging.getLogger(__name__)
# Fields of a recipe that only some have, and their value where there is none.
_OF_SOME: dict[str, tuple[Any, ...]] = {"batch_size_of": ((),), "crops": ((),), "cut_from": ((1, 1),),
                                        "weight_decay_of": ((),)}  # fmt: skip
_CHECKSUM = "sha256"  # key of train.json


@dataclass(frozen=True)
class Assembled:
    """Heads of a table, which of its rows are usable, and sentences on those that are not."""

    heads: TrainingHeads
    usable: IntArray
    warnings: tuple[str, ...]


def assembled(
    table: pa.Table,
    fingerprint: str,
    kind: str,
    recipe: InputRecipe,
    max_angle_deg: float,
    *,
    build: Path,
    cache: Path,
    seed: int,
    threads: int,
    team: Team,
    progress: Progress,
    completed: pa.Table | None = None,
) -> Assembled:
    """Return the rows of a manifest as heads for a network.

    Args:
        table: all rows of the training split.
        fingerprint: of the manifest.
        kind: of the model: image, sequence or landmarks.
        recipe: its input recipe.
        max_angle_deg: heads with an angle of this size or more are not usable.
        build: folder with build.json.
        cache: folder for crops.
        seed: of a crop recipe that draws.
        threads: for cutting.
        team: its first process cuts, the others wait.
        progress: shows how far the cutting is.
        completed: the same rows with the landmarks that the network sees or learns from; None for those of `table`.

    Raises:
        UbhpdError: no head is usable, or crops cannot be kept.
    """
    plan = replace(
        plan_of(table, recipe, fingerprint, seed), landmarks=own_landmarks(table if completed is None else completed)
    )
    angles = angles_deg(table)
    is_usable = (np.abs(angles) < max_angle_deg).all(axis=1)
    warnings = _said(np.flatnonzero(~is_usable), plan, f"with an angle of {max_angle_deg:g} degrees or more")
    points = _landmarks(plan, recipe)
    pixels = window = None
    if kind == "landmarks":
        has_points = ~np.isnan(points).all(axis=(1, 2))
        warnings += _said(np.flatnonzero(is_usable & ~has_points), plan, "without landmarks")
        is_usable &= has_points
    else:
        window = plan.before(recipe.frames) if kind == "sequence" else None
        if team.is_main_process:
            crops_of(plan, recipe, build, cache, progress, threads)
        team.wait()
        crops = crops_of(plan, recipe, build, cache, progress, threads)
        is_whole = crops.is_cut if window is None else crops.is_cut[window].all(axis=1)
        if crops.problems:
            why = f"whose image cannot be cut (the first, {crops.problems[0][0]}: {crops.problems[0][1]})"
            warnings += _said(np.flatnonzero(is_usable & ~is_whole), plan, why)
        is_usable &= is_whole
        pixels = crops.pixels
    usable = np.flatnonzero(is_usable)
    if len(usable) < 2:
        raise UbhpdError(
            f"{len(usable)} of {len(plan):,} heads can be trained on, two at least are needed: "
            f"{'; '.join(w.removesuffix('.') for w in warnings) or 'give more data'}."
        )
    known = None if np.isnan(points).all() else points
    heads = TrainingHeads(plan.texts["sample_id"], angles, pixels, known, recipe.size, window)
    return Assembled(heads, usable, warnings)


def _landmarks(plan: Plan, recipe: InputRecipe) -> FloatArray:
    """Return the 68 points of each head in pixels of its crop (n, 68, 2), NaN where not known."""
    points = np.full((len(plan), 68, 2), np.nan)
    known = ~np.isnan(plan.landmarks).all(axis=(1, 2)) & ~np.isnan(plan.box).any(axis=1)
    recipes = {d: recipe_named(recipe.crop_for(d)) for d in set(plan.texts["dataset"])}
    for row in np.flatnonzero(known).tolist():
        how = recipes[plan.texts["dataset"][row]]
        points[row] = placed(plan.landmarks[row], plan.box[row], how, recipe.size)
    return points


def _said(rows: IntArray, plan: Plan, why: str) -> tuple[str, ...]:
    if not len(rows):
        return ()
    return (f"{len(rows):,} of {len(plan):,} heads {why} are left out.",)


__all__ = ["TrainReport", "TrainRequest", "train"]


def train(request: TrainRequest, progress: Progress) -> TrainReport:
    """Train a network, or fit a geometric method, and return the report; an interrupted run resumes.

    The folder `request.out` gets weights.safetensors with its JSON, log.csv and train.json. A run that is finished is
    not done again. A line per epoch, and what is left out, is logged.

    Args:
        request: what to train.
        progress: shows how far it is.

    Raises:
        UbhpdError: wrong input; a folder that holds another run; a loss that is not finite; no room.
        KeyboardInterrupt: a shutdown was requested; the same request resumes from there.
    """
    side = training_split(request.data, request.protocol, request.frame_list, request.protocol_seed, request.landmarks)
    try:
        # Of several processes of one training the first one holds the lock.
        with locked(request.out, is_file=True) if os.environ.get("RANK", "0") == "0" else nullcontext():
            request.out.mkdir(parents=True, exist_ok=True)
            if card(request.model).kind == "geometric":
                report = _fitted(request, side)
                _LOG.info(_summary(report))
                return report
            devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
            with torch.random.fork_rng(devices), team(request.device) as members:
                # Of several processes only the first shows anything.
                with nullcontext() if members.is_main_process else log_level(logging.CRITICAL):
                    report = _trained(
                        request, side, members, progress if members.is_main_process else Progress(show=False)
                    )
                    _LOG.info(_summary(report))
                return report
    except OSError as error:
        raise UbhpdError(
            f"Cannot write {error.filename or request.out} ({error.strerror}): check the path and the room on the disk."
        ) from None


def _fitted(request: TrainRequest, side: TrainingSplit) -> TrainReport:
    method = GeometricMethod.fitted(request.model, request.options, heads_of(side.completed), side.origin)
    about = method.save(request.out / WEIGHTS)
    return _written(
        request,
        TrainReport(
            model=request.model,
            weights=request.out / WEIGHTS,
            weights_sha256=about.sha256,
            steps=0,
            epochs=0,
            best_epoch=None,
            validation_error_deg=None,
            selection_rule="none: a fit has one solution",
            heads=side.table.num_rows,
            validation_heads=0,
            recipe={},
            origin=dict(about.origin),
            identity={},
            warnings=side.warnings,
        ),
    )


def _trained(request: TrainRequest, side: TrainingSplit, members: Team, progress: Progress) -> TrainReport:
    for warning in side.warnings:
        _LOG.warning(warning)
    model = Model.untrained(request.model, request.options, request.seed)
    if request.backbone is not None:
        model = with_backbone(model, request.backbone)
    teachers = tuple(_teacher(path, model) for path in request.teachers)
    recipe = recipe_asked_for(model.module.training_recipe(model.config), request)
    if request.as_paper:
        others = ", ".join(departures(request))
        _LOG.info(f"Trains as its paper does{f', but for {others}' if others else ''}.")
    found = assembled(
        side.table, side.origin["manifest_fingerprint"], model.kind, recipe.input_in_training(model.recipe),
        recipe.max_angle_deg,
        build=request.data, cache=request.cache or request.data / "work" / "crops", seed=request.seed,
        threads=request.workers, team=members, progress=progress,
        completed=side.completed,
    )  # fmt: skip
    for warning in found.warnings:
        _LOG.warning(warning)
    held = held_out(side.table.take(found.usable), request.validation)
    held = held._replace(train=found.usable[held.train], validation=found.usable[held.validation])
    warnings = (*_remarks(model, recipe), *_check_supervision(request, model, found, held))
    angles = found.heads.angles_deg[held.train]
    share = sampling_weights(angles) if request.balance == "sampling" else None
    order = Order(held.train, recipe.batch_size, request.seed, share, members.size)
    _check_normalisation(model, order, members)
    steps = request.steps or (request.epochs or recipe.epochs) * order.steps
    identity = json.loads(json.dumps(_identity(request, side, model, order, steps, _described(recipe))))
    kept = _finished(request, identity)
    if kept is not None:
        return kept
    names = recipe.augmentations
    feed = Feed(found.heads, model.recipe, names, request.seed, request.workers, members.device.type == "cuda")
    work = Work(
        model=model,
        recipe=recipe,
        heads=found.heads,
        order=order,
        feed=feed,
        steps=steps,
        weights=_loss_weights(request, found, held),
        validation=held.validation,
        teachers=teachers,
        team=members,
        request=request,
        identity=identity,
    )
    loop = Loop(work)
    loop.run(progress)
    if members.is_main_process:
        _save(work, loop, side, held, (*found.warnings, *warnings))
    members.wait()
    report = _finished(request, identity)
    if report is None:
        raise UbhpdError(f"{request.out / REPORT} is not there after training: all processes need the same folder.")
    return report


def _save(work: Work, loop: Loop, side: TrainingSplit, held: Held, warnings: tuple[str, ...]) -> None:
    """Write the checkpoint of the weights selected, and the report; the state is needed no more."""
    request, model, position = work.request, work.model, loop.position
    epochs = -(-work.steps // work.order.steps)
    is_best = request.select == "best" and bool(loop.best)
    rule = f"the last of {epochs} epochs"
    if is_best:
        rule = (
            f"the epoch of {epochs} with the least mean geodesic error on {len(held.validation):,} validation heads "
            f"out of the training set, which share no {held.grouped_by.replace(' and ', ' or ')} with those trained on"
        )
    loop.network.load_state_dict(loop.best if is_best else loop.network.state_dict())
    best = position.best_epoch or None
    error = position.best_error_deg if best else None
    recipe = {**_described(work.recipe), "batch_size": work.order.batch_size,
              "balance": request.balance, "precision": request.precision}  # fmt: skip
    origin = {
        **model.about.origin, "how": "trained", "data": side.origin, "heads": len(held.train),
        "validation_heads": len(held.validation), "recipe": recipe, "steps": work.steps, "epochs": epochs,
        **({"as_paper": True, "departures": list(departures(request))} if request.as_paper else {}),
        "selection": rule, "best_epoch": best, "validation_error_deg": error, "seed": request.seed,
        "teachers": [checkpoint.file_origin(t) for t in request.teachers], "processes": work.team.size,
        "device": device_title(str(work.team.device)), "torch": metadata.version("torch"), "ubhpd": __version__,
    }  # fmt: skip
    terms = "that of the heads it was trained on"
    if request.backbone is not None:
        terms += f", and {model.about.license}"
    about = model.of_origin(origin, terms).save(request.out / WEIGHTS)
    _written(
        request,
        TrainReport(
            model=request.model,
            weights=request.out / WEIGHTS,
            weights_sha256=about.sha256,
            steps=work.steps,
            epochs=epochs,
            best_epoch=best,
            validation_error_deg=error,
            selection_rule=rule,
            heads=len(held.train),
            validation_heads=len(held.validation),
            recipe=recipe,
            origin=origin,
            identity=work.identity,
            warnings=(*side.warnings, *warnings),
        ),
    )
    state.remove(request.out)
    clear_parts(request.out / WEIGHTS)


def _summary(report: TrainReport) -> str:
    if not report.steps:
        return f"{report.model} fitted to {report.heads:,} heads: {report.weights}"
    error = report.validation_error_deg
    judged = "" if error is None else f", best epoch {report.best_epoch} with {error:.3f} degrees in validation"
    return f"{report.model} on {report.heads:,} heads, {report.steps:,} steps{judged}: {report.weights}"


def _written(request: TrainRequest, report: TrainReport) -> TrainReport:
    content = json.loads(json.dumps(report.as_dict()))
    write_json({**content, _CHECKSUM: _checksum(content)}, request.out / REPORT)
    return report


def _checksum(content: dict[str, Any]) -> str:
    """Return the SHA-256 of everything in train.json but itself."""
    rest = {name: value for name, value in content.items() if name != _CHECKSUM}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _finished(request: TrainRequest, identity: dict[str, Any]) -> TrainReport | None:
    """Return the report of an earlier run of the same that was finished, None if there is none.

    Raises:
        UbhpdError: the folder holds another run.
    """
    path = request.out / REPORT
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        before = dict(said["identity"])
        is_intact = said.pop(_CHECKSUM) == _checksum(said)
    except OSError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        is_intact = False
    if not is_intact:
        _LOG.warning(f"{path} is damaged: the run is made again.")
        return None
    state.check_same(path, before, identity)
    try:
        about = checkpoint.read_about(request.out / WEIGHTS)
    except UbhpdError:
        return None
    if about.sha256 != said["weights_sha256"]:
        return None
    return TrainReport(**{**said, "weights": request.out / WEIGHTS, "warnings": tuple(said["warnings"])})


def _described(recipe: TrainingRecipe) -> dict[str, Any]:
    """Return a recipe as JSON has it; what only some recipes have is left out where it is empty."""
    found = asdict(recipe)
    return {name: value for name, value in found.items() if name not in _OF_SOME or value not in _OF_SOME[name]}


def _identity(
    request: TrainRequest, side: TrainingSplit, model: Model, order: Order, steps: int, recipe: dict[str, Any]
) -> dict[str, Any]:
    """Return all that decides the weights, but for rounding."""
    return {
        "model": request.model, "options": asdict(model.config), "input": asdict(model.recipe), "seed": request.seed,
        "heads": side.origin["fingerprint"], "recipe": recipe, "batch_size": order.batch_size, "steps": steps,
        "balance": request.balance, "precision": request.precision, "validation": request.validation,
        "select": request.select, "backbone": model.about.origin.get("backbone"),
        "teachers": [checkpoint.file_origin(t)["sha256"] for t in request.teachers],
    }  # fmt: skip


def _loss_weights(request: TrainRequest, found: Assembled, held: Held) -> FloatArray | None:
    if request.balance not in ("loss", "lds"):
        return None
    weights = np.zeros(len(found.heads.sample_id))
    weights[held.train] = loss_weights(found.heads.angles_deg[held.train], smoothed=request.balance == "lds")
    return weights


def _teacher(path: Path, student: Model) -> PoseNetwork:
    """Return the network of a checkpoint that a model can learn from."""
    if not getattr(student.config, "distill", False):
        raise UbhpdError(f"{student.name} learns from no teacher with these options: leave --teacher out.")
    found = Model.of_checkpoint(path)
    if found.recipe != student.recipe:
        raise UbhpdError(f"{path} sees other images than {student.name}: take a teacher with the same input.")
    return found.network


def _remarks(model: Model, recipe: TrainingRecipe) -> tuple[str, ...]:
    """Log and return what the model's file warns of before such a training."""
    remarks = getattr(model.module, "training_remarks", None)
    found = () if remarks is None else tuple(remarks(model.config, recipe, model.network.has_published_backbone))
    for sentence in found:
        _LOG.warning(sentence)
    return found


def _check_supervision(request: TrainRequest, model: Model, found: Assembled, held: Held) -> tuple[str, ...]:
    """Log which share of the heads supervises each term of the loss, and return the warnings.

    Raises:
        UbhpdError: no head supervises a term, and it was not allowed by name.
    """
    terms_of = getattr(model.module, "landmark_terms", None)
    terms = terms_of(model.config) if terms_of is not None else {}
    shares = supervision(terms, found.heads.landmarks, held.train)
    told, few = check_supervision(shares, request.allow_unsupervised)
    for sentence in told:
        _LOG.info(sentence)
    for sentence in few:
        _LOG.warning(sentence)
    return tuple(few)


def _check_normalisation(model: Model, order: Order, members: Team) -> None:
    if order.batch_size == members.size and any(isinstance(m, _BatchNorm) for m in model.network.modules()):
        raise UbhpdError(f"{model.name} normalises over its batch, which cannot be of one head: give --batch-size 2.")
