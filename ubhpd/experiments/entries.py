"""The weights of a run: trained, fitted or brought in, kept under the hash of what they were made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import read_json, sha256_of, write_json
from ubhpd.core.options import from_json
from ubhpd.core.progress import Progress
from ubhpd.experiments.plan import BenchRequest, Run, Splits
from ubhpd.leaderboards.result import FITTED, IMPORTED, TRAINED, Training, canonical_hash
from ubhpd.models import checkpoint
from ubhpd.training.request import WEIGHTS

_RECORD = "training.json"


class Weights(NamedTuple):
    """A checkpoint, and how it came about."""

    path: Path
    training: Training


def made_from(run: Run, splits: Splits, request: BenchRequest) -> dict[str, Any]:
    """Return everything that decides which weights a run has, as JSON can hold it.

    Protocols with the same training split have the same weights, whatever they test on.
    """
    own: dict[str, Any] = {"model": run.model, "options": run.options, "how": run.how, "seed": run.seed}
    if run.how == IMPORTED:
        return {**own, "files": [_file(f) for f in request.weights[run.model]]}
    how = asdict(request.train) | {"backbone": request.train.backbone and _file(request.train.backbone)}
    recipe = {} if run.how == FITTED else {"how_to_train": how}
    return {**own, **recipe, "train": [splits.train.names_sha256, splits.train.fingerprint]}


def weights_of(run: Run, splits: Splits, request: BenchRequest, progress: Progress) -> Weights:
    """Return the weights of a run: those of an earlier run if they were made from the same, else made now.

    Raises:
        UbhpdError: as training, fitting or importing does.
    """
    folder = request.out / "weights" / f"{run.name}-{canonical_hash(made_from(run, splits, request))[:12]}"
    path, record = folder / WEIGHTS, folder / _RECORD
    kept = _kept(path, record)
    if kept is not None:
        return Weights(path, kept)
    if run.how == FITTED:
        training = _fitted(run, splits, path)
    elif run.how == IMPORTED:
        training = _imported(run, request.weights[run.model], path)
    else:
        training = _trained(run, splits, request, path, progress)
    write_json(asdict(training), record)
    return Weights(path, training)


def _kept(path: Path, record: Path) -> Training | None:
    """Return how weights came about that are there already, None unless they are there whole."""
    try:
        found = from_json(read_json(record, "run ubhpd bench again"), Training, str(record))
        is_same = checkpoint.read_about(path).sha256 == found.weights_sha256
    except (OSError, ValueError, UbhpdError):
        return None
    return found if is_same else None


def _fitted(run: Run, splits: Splits, path: Path) -> Training:
    from ubhpd.models.geometric_model import GeometricMethod, heads_of

    origin = {"protocol": run.protocol_id, "list": splits.resolution.hashes["train"]}
    about = GeometricMethod.fitted(run.model, run.chosen, heads_of(splits.train_rows), origin).save(path)
    return Training(FITTED, about.sha256, "nothing", "none: a fit has one solution", splits.train.heads)


def _imported(run: Run, files: Sequence[Path], path: Path) -> Training:
    from ubhpd.models.importing import imported
    from ubhpd.models.model import Model

    model = Model.of_checkpoint(files[0], run.model) if _is_own(files) else imported(files, run.model, run.chosen)
    if canonical_hash(asdict(model.config)) != canonical_hash(run.options):
        raise UbhpdError(f"{files[0]} has other options than this run: give those of ubhpd weights show with -O.")
    about = model.save(path)
    origin = ", ".join(f"{o['name']} {o['sha256'][:16]}" for o in map(checkpoint.file_origin, files))
    return Training(IMPORTED, about.sha256, origin, "that of its authors")


def _is_own(files: Sequence[Path]) -> bool:
    """Whether it is one checkpoint of ubhpd."""
    try:
        checkpoint.read_about(files[0])
    except UbhpdError:
        return False
    return len(files) == 1


def _trained(run: Run, splits: Splits, request: BenchRequest, path: Path, progress: Progress) -> Training:
    from ubhpd.training import run as training

    frames = request.frames if splits.resolution.protocol.needs_frames else None
    wanted = request.train.request(
        run.model, request.data, path.parent, protocol=run.protocol_id, options=run.chosen, seed=run.seed,
        device=request.device, workers=request.workers, frame_list=frames, protocol_seed=request.protocol_seed,
        cache=request.cache,
    )  # fmt: skip
    report = training.train(wanted, progress)
    recipe, backbone = report.recipe, report.origin.get("backbone")
    return Training(
        how=TRAINED,
        weights_sha256=report.weights_sha256,
        start=f"{backbone['name']} {backbone['sha256'][:16]}" if backbone else "from scratch",
        selection=report.selection_rule,
        heads=report.heads,
        epochs=report.epochs,
        steps=report.steps,
        batch_size=recipe["batch_size"],
        optimizer=recipe["optimizer"],
        lr=recipe["lr"],
        schedule=recipe["schedule"],
        augmentations=tuple(recipe["augmentations"]),
        balance=wanted.balance,
        precision=wanted.precision,
    )


def _file(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise UbhpdError(f"Cannot read {path} ({error.strerror}): check the path.") from None
