"""The options of `ubhpd bench` and the runs that follow from them; the splits of a protocol on a build; and the fields
of a result that follow from these splits and from scored predictions, whoever made the predictions.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd import manifest
from ubhpd.core import bins
from ubhpd.core.bins import ANGLES, CENTRES_DEG, N_BINS
from ubhpd.core.errors import UbhpdError, shortened
from ubhpd.core.files import replacing
from ubhpd.core.records import TRUE_LANDMARKS
from ubhpd.core.typing import FloatArray
from ubhpd.evaluation.evaluate import NO_SOURCE, Evaluation, EvaluationOptions, known_training_set
from ubhpd.evaluation.intervals import BootstrapOptions
from ubhpd.evaluation.pairing import angles, training_set
from ubhpd.evaluation.pairing import known as known_counts
from ubhpd.evaluation.scoring import Pairs, bin_table, score
from ubhpd.images.crops import recipe_named
from ubhpd.inference.predicting import io_of
from ubhpd.leaderboards.reported import Known, KnownProtocol, printed_pair
from ubhpd.leaderboards.result import (
    FITTED,
    IMPORTED,
    TRAINED,
    Baseline,
    MethodInfo,
    PerBin,
    ProtocolUsed,
    Resampling,
    Score,
    Split,
    canonical_hash,
    labels_hash,
)
from ubhpd.manifest import BuildFolder, readmitted
from ubhpd.manifest.schema import COLUMNS, NAMES, Fingerprint
from ubhpd.models.catalogue import card, catalogue, configured
from ubhpd.protocols.definitions import TEST, TRAIN
from ubhpd.protocols.resolve import PROTOCOLS, Protocol, Resolution, ids_hash, protocols_named, resolve
from ubhpd.training.request import TrainRequest


@dataclass(frozen=True)
class HowToTrain:
    """What is passed on to training; None leaves it to the model's own recipe.

    recipe: model -> value of its recipe -> text, as `TrainRequest.recipe`; "" stands for every model.
    """

    epochs: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    precision: str | None = None
    balance: str | None = None
    optimizer: str | None = None
    schedule: str | None = None
    validation: float | None = None
    select: str | None = None
    backbone: Path | None = None
    allow_unsupervised: tuple[str, ...] | None = None
    weight_decay: float | None = None
    recipe: Mapping[str, Mapping[str, str]] | None = None
    as_paper: bool | None = None

    def recipe_of(self, model: str) -> dict[str, str]:
        """Return the values of a model's recipe that are given."""
        given = self.recipe or {}
        return {**given.get("", {}), **given.get(model, {})}

    def request(self, model: str, data: Path, out: Path, **rest: Any) -> TrainRequest:
        """Return the request to train a model with what is not None, and the rest.

        Raises:
            UbhpdError: a value that nothing can be trained with.
        """
        given = {k: v for k, v in vars(self).items() if v is not None}
        given["recipe"] = self.recipe_of(model)
        return TrainRequest(model, data, out, **rest, **given)


@dataclass(frozen=True)
class BenchRequest:
    """Every model on every protocol with every seed.

    options: model -> option -> value as typed. grid: model -> option -> values as typed: a run for each combination,
    beside `options`. weights: model -> files of published weights, for models that are not
    trained; trained_on: what these were trained on, as declared, see `benchmark.declared_training`. teachers: model ->
    what it learns from: files of weights, or names of models, which are trained first on the same protocol with the
    same seed. by: the person or group that runs it. frames: list of frames, for protocols that need one. speed: batch
    size to measure the speed with. landmarks: a manifest with landmarks of the heads, see `BuildFolder.landmarks`.
    cache: folder for crops, by default in the build. io: model -> IO file of a model "onnx:FILE", "" for all of them;
    see `ubhpd.inference.predicting.io_of`. crop: recipe that cuts the test heads of all networks that see
    images; None for each one's own. engine: that predicts with networks, see `ubhpd.inference.engines`.
    """

    models: tuple[str, ...]
    protocols: tuple[str, ...]
    data: Path
    out: Path
    seeds: tuple[int, ...] = (0,)
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    grid: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    weights: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    trained_on: Mapping[str, str] = field(default_factory=dict)
    teachers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    by: str | None = None
    train: HowToTrain = field(default_factory=HowToTrain)
    frames: Path | None = None
    protocol_seed: int = 0
    device: str = "auto"
    workers: int = 0
    speed: int | None = None
    landmarks: Path | None = None
    cache: Path | None = None
    crop: str | None = None
    engine: str = "auto"
    io: Mapping[str, str] = field(default_factory=dict)


class Run(NamedTuple):
    """One model with its options, on one protocol, with one seed: None where nothing is drawn.

    crop: the recipe of the test crops, where it is not the model's own. onnx: the file of a model of others, which is
    named after it; options are then how it takes images and gives poses.
    """

    model: str
    chosen: dict[str, str]
    options: dict[str, Any]
    how: str
    protocol_id: str
    seed: int | None
    crop: str | None = None
    onnx: Path | None = None

    @property
    def weights_name(self) -> str:
        """Name of its weights, which do not depend on the crops of the test."""
        last = self.how if self.seed is None else f"seed{self.seed}"
        return f"{self.model}-{canonical_hash(self.options)[:8]}-{last}"

    @property
    def name(self) -> str:
        """Name of its files, without an ending."""
        return self.weights_name if self.crop is None else f"{self.weights_name}-{self.crop}"


ONNX = "onnx:"


def onnx_files(models: Iterable[str]) -> dict[str, Path]:
    """Return the files of models given as "onnx:FILE" by the names of their runs, which are those of the files.

    Raises:
        UbhpdError: two of one name, or one that has the name of a model of the catalogue.
    """
    files: dict[str, Path] = {}
    for text in dict.fromkeys(models):
        if not text.lower().startswith(ONNX):
            continue
        path = Path(text[len(ONNX) :])
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip(".-")
        if not name:
            raise UbhpdError(f"{shortened(text)} names no file: write onnx:FILE.")
        if name in files or name in catalogue():
            other = str(files[name]) if name in files else "a model of ubhpd"
            raise UbhpdError(f"{path} would be called {name}, as {other} is: rename the file.")
        if not path.is_file():
            raise UbhpdError(f"There is no file {path}: check the path.")
        files[name] = path
    return files


def protocol_ids(names: Iterable[str]) -> dict[str, bool]:
    """Return the ids that names of protocols stand for, each with whether the user named that very id.

    Raises:
        UbhpdError: neither a protocol nor a short name.
    """
    is_named: dict[str, bool] = {}
    for name in names:
        for own in protocols_named(name):
            is_named[own.id] = is_named.get(own.id, False) or own.id == name.lower()
    return is_named


def runs_of(request: BenchRequest) -> list[Run]:
    """Return all runs, one protocol after the other.

    Raises:
        UbhpdError: no model, protocol or seed, an unknown one, or a wrong option.
    """
    for what, values in (("model", request.models), ("protocol", request.protocols), ("seed", request.seeds)):
        if not values:
            raise UbhpdError(f"No {what} is named: give --{what}s with one at least.")
    onnx = onnx_files(request.models)
    own_models = tuple(m for m in dict.fromkeys(request.models) if not m.lower().startswith(ONNX))
    named_teachers = {t for own in request.teachers.values() for t in own}
    known_models = {*own_models, *named_teachers}
    if stray := [m for m in request.teachers if m not in request.models]:
        raise UbhpdError(f"{stray[0]} has teachers, but is not among --models: add it, or leave --teacher out.")
    if stray := [m for m in (*request.options, *request.weights) if m not in known_models]:
        raise UbhpdError(f"{stray[0]} has an option or weights, but is not among --models: add it, or leave them out.")
    if stray := [m for m in request.train.recipe or {} if m and m not in known_models]:
        raise UbhpdError(f"{stray[0]} has a recipe value, but is not among --models: add it, or leave the value out.")
    if stray := [m for m in request.grid if m not in request.models]:
        raise UbhpdError(f"{stray[0]} has a grid of options, but is not among --models: add it, or leave --grid out.")
    if stray := [m for m in request.grid if m in request.weights]:
        raise UbhpdError(f"{stray[0]} has a grid of options and weights, which have one set: leave one of them out.")
    if stray := [m for m in request.io if m and m not in onnx]:
        raise UbhpdError(f"{stray[0]} has an IO file, but no onnx:FILE of that name is among --models: see --io.")
    if request.io and not onnx:
        raise UbhpdError("--io describes models given as onnx:FILE, and there is none: leave it out.")
    if stray := [m for m in request.trained_on if m not in request.weights and m not in onnx]:
        raise UbhpdError(f"{stray[0]} has a declared training set and no weights: give --weights {stray[0]}=FILE, too.")
    if negative := [s for s in request.seeds if s < 0]:
        raise UbhpdError(f"The seed {negative[0]} is negative: give whole numbers of at least 0.")
    ids = protocol_ids(request.protocols)
    request.train.request("", request.data, request.out)  # refuses values that no training can do with
    methods = [_method(model, request, point) for model in own_models for point in _points(model, request)]
    crop = None if request.crop is None else recipe_named(request.crop).name
    described = {name: json.loads(json.dumps(asdict(io_of(path, io_named(name, request)))))
                 for name, path in onnx.items()}  # fmt: skip
    runs: list[Run] = []
    for protocol_id in ids:
        runs += [
            Run(model, chosen, options, how, protocol_id, seed, crop if card(model).sees == "image" else None)
            for model, chosen, options, how in methods
            for seed in (dict.fromkeys(request.seeds) if how == TRAINED else (None,))
        ]
        runs += [Run(name, {}, described[name], IMPORTED, protocol_id, None, crop, path) for name, path in onnx.items()]
    return runs


def io_named(name: str, request: BenchRequest) -> str | None:
    """Return the IO file that is given for an ONNX model of this name, None for the one beside it."""
    return request.io.get(name, request.io.get(""))


def teachers_of(run: Run, request: BenchRequest) -> tuple[Path | Run, ...]:
    """Return what a run learns from: files, and runs of other models that come first.

    Raises:
        UbhpdError: neither a file nor a model, or a model that would be its own teacher.
    """
    found: list[Path | Run] = []
    for text in request.teachers.get(run.model, ()):
        if Path(text).is_file():
            found.append(Path(text))
            continue
        name = card(text).name  # says what it may be
        if name == run.model or request.teachers.get(name):
            raise UbhpdError(f"{name} cannot teach {run.model}: name a model that has no teacher itself.")
        model, chosen, options, how = _method(name, request)
        found.append(Run(model, chosen, options, how, run.protocol_id, run.seed))
    return tuple(found)


def _points(model: str, request: BenchRequest) -> list[dict[str, str]]:
    """Return all combinations of a model's grid; one without options where it has none.

    Raises:
        UbhpdError: an option that is fixed, too, or one without a value.
    """
    own = request.grid.get(model, {})
    for name, values in own.items():
        if name in request.options.get(model, {}):
            raise UbhpdError(f"{model}.{name} is in the grid and among the options: leave one of them out.")
        if not values:
            raise UbhpdError(f"The grid of {model}.{name} has no value: give some with commas between.")
    return [dict(zip(own, point, strict=True)) for point in product(*own.values())]


def _method(
    model: str, request: BenchRequest, point: Mapping[str, str] = MappingProxyType({})
) -> tuple[str, dict[str, str], dict[str, Any], str]:
    """Return a model, its options, chosen and all, and how its weights come about."""
    chosen = {**request.options.get(model, {}), **point}
    options = asdict(configured(model, chosen)[1])
    is_geometric = card(model).kind == "geometric"
    if is_geometric and model in request.weights:
        raise UbhpdError(f"{model} is a geometric method, which is fitted: leave --weights {model}=FILE out.")
    how = FITTED if is_geometric else IMPORTED if model in request.weights else TRAINED
    return model, dict(sorted(chosen.items())), options, how


_YEAR = re.compile(r"\b(19[5-9]\d|20\d\d)\b")


def known() -> Known:
    """Return what the leaderboard needs to know of the protocols and models of this version."""
    cards = catalogue().values()
    return Known(
        protocols={p.id: _known_protocol(p) for p in PROTOCOLS.values()},
        reported_as={c.name: c.reported for c in cards if c.reported is not None},
        constants=frozenset(c.name for c in cards if c.sees == "nothing"),
        landmark_readers=frozenset(c.name for c in cards if c.sees == "landmarks"),
        models={
            c.name: MethodInfo(paper=c.paper, code=c.code or None, year=_year(c.paper), license=c.license)
            for c in cards
            if c.sees != "nothing"
        },
    )


def _known_protocol(own: Protocol) -> KnownProtocol:
    test = own.published.get(TEST)
    return KnownProtocol(
        sentence=own.sentence,
        definition_hash=own.definition_hash,
        has_published_counts=bool(own.published),
        test_heads=None if test is None else test.heads,
        test_names_sha256=None if test is None else test.ids_hash,
    )


def _year(citation: str) -> int | None:
    found = _YEAR.findall(citation)
    return int(found[-1]) if found else None


GROUPS_TO_RESAMPLE = 10  # percentile intervals of fewer persons or recordings say little


class Splits(NamedTuple):
    """A protocol on a build: rows of the manifest that train and that test, all usable, and what they are.

    landmarks: the manifest that completes the landmarks of the heads; None where there is none.
    """

    resolution: Resolution
    train_rows: pa.Table
    test_rows: pa.Table
    train: Split
    test: Split
    landmarks: Path | None = None

    def completed(self, rows: pa.Table) -> pa.Table:
        """Return rows of a split as a model sees them that reads landmarks."""
        return rows if self.landmarks is None or not rows.num_rows else manifest.with_landmarks(rows, self.landmarks)


def splits_of(
    protocol_id: str, data: Path, frames: Path | None = None, seed: int = 0, train_optional: bool = False,
    landmarks: Path | None = None,
) -> Splits:  # fmt: skip
    """Return both splits of a protocol on the build in the folder `data`; `landmarks` as `BuildFolder.landmarks` takes
    it, other arguments and errors as `resolve`."""
    resolution = resolve(protocol_id, data, frames, seed, train_optional)
    own = resolution.protocol
    train_rows = _rows(data, own.train.table, resolution.train)
    test_rows = _rows(data, own.test.table, resolution.test)
    filled = BuildFolder(data).landmarks(landmarks)
    return Splits(resolution, train_rows, test_rows, _side(train_rows), _side(test_rows), filled)


def write_test_manifest(splits: Splits, data: Path, folder: Path) -> Path:
    """Write the test split as a manifest of its own, with the build's record of where images are, and return it."""
    path = folder / "pool.parquet"
    if not (path.is_file() and manifest.header(path).fingerprint == splits.test.fingerprint):
        manifest.write_parquet([splits.test_rows], path)
    with replacing(folder / "build.json") as part:
        try:
            shutil.copyfile(BuildFolder(data).record_path, part)
        except OSError as error:
            raise UbhpdError(f"Cannot read {BuildFolder(data).record_path} ({error.strerror}): build again.") from None
    return path


def resampled(test_rows: pa.Table) -> str:
    """Return what intervals resample: persons, else recordings, where enough are known of every head, else heads."""
    for over, column in (("subjects", "subject_id"), ("sequences", "sequence_id")):
        names = test_rows.column(column)
        if not names.null_count and len(pc.unique(names)) >= GROUPS_TO_RESAMPLE:
            return over
    return "samples"


def _rows(data: Path, table: str, names: tuple[str, ...]) -> pa.Table:
    path = BuildFolder(data).require(table)
    wanted = pa.array(names, pa.string())
    batches = (b.filter(pc.is_in(b.column("sample_id"), value_set=wanted)) for b in manifest.iterate(path, NAMES))
    whole = manifest.header(path).schema
    schema = pa.schema([whole.field(name) for name in NAMES], whole.metadata)
    return readmitted(pa.Table.from_batches(batches, schema))


def _side(rows: pa.Table) -> Split:
    mark = Fingerprint(COLUMNS)
    mark.update(rows)
    ids, ypr = rows.column("sample_id").to_pylist(), angles(rows)
    counted = bins.counts(ypr)
    datasets = {r["values"]: r["counts"] for r in rows.column("dataset").value_counts().to_pylist()}
    return Split(
        rows.num_rows,
        ids_hash(ids),
        mark.hexdigest(),
        dict(sorted(datasets.items())),
        {a: tuple(own) for a, own in zip(ANGLES, counted.inside.tolist(), strict=True)},
        dict(zip(ANGLES, counted.outside.tolist(), strict=True)),
        labels_hash(ids, ypr),
    )


INTERVALS = BootstrapOptions()


class Declared(NamedTuple):
    """The training set of weights or predictions of others.

    name: as the leaderboard shows it, None if nobody declared one. source: its counts for UBMAE, as
    `EvaluationOptions.source` takes them: None stands for the training split of the protocol.
    """

    name: str | None
    source: str | None

    @property
    def counted(self) -> str | None:
        """Name of the training set whose counts weigh UBMAE, None where there is no UBMAE."""
        return None if self.source == NO_SOURCE else self.name


def declared_training(text: str | None, own: Protocol) -> Declared:
    """Return the training set that a person declares.

    Args:
        text: a set whose counts are part of the package, as 300W-LP; "protocol" for the training split of `own`; the id
            of another protocol; a manifest, a build's folder or a table of counts; or a name in words, whose counts are
            not known. None for no declaration.
        own: the protocol whose test heads are predicted.

    Raises:
        UbhpdError: a file that is none of these.
    """
    if text is None:
        return Declared(None, NO_SOURCE)
    if text.lower() == "protocol":
        shipped = known_training_set(own)
        return Declared(split_of(own.id), None) if shipped is None else Declared(shipped.name, shipped.name)
    if (name := {n.lower(): n for n in known_counts()}.get(text.lower())) is not None:
        return Declared(name, name)
    if text in PROTOCOLS:
        return Declared(split_of(text), text)
    try:
        is_place = Path(text).exists()
    except (OSError, ValueError):  # too long for a path, or with a NUL
        is_place = False
    if is_place:
        return Declared(f"{training_set(text).heads:,} heads of {Path(text).resolve().name}", text)
    return Declared(text, NO_SOURCE)


def split_of(protocol_id: str) -> str:
    """Return the name of the training split of a protocol, for tables."""
    return f"training split of {protocol_id}"


def landmark_kinds(test_rows: pa.Table) -> tuple[str, ...]:
    """Return the kinds of the landmarks that the heads have, sorted."""
    kinds = test_rows.column("landmarks_kind").filter(test_rows.column("landmarks68").is_valid())
    return tuple(sorted(k for k in kinds.unique().to_pylist() if k is not None))


def oracle_of(landmarks: tuple[str, ...] | None) -> str | None:
    """Return the ground truth that a method sees which reads landmarks of these kinds; None if it sees none."""
    true = [kind for kind in landmarks or () if kind in TRUE_LANDMARKS]
    return f"true landmarks ({', '.join(true)})" if true else None


def scoring_options(splits: Splits, frames: Path | None, protocol_seed: int, source: str | None) -> EvaluationOptions:
    """Return how predictions of the test heads of a protocol are scored, whoever made them.

    Args:
        splits: of the protocol.
        frames: list of frames, for a protocol that needs one.
        protocol_seed: for a protocol that divides one dataset.
        source: training set for UBMAE, see `Declared`.
    """
    needs_frames = splits.resolution.protocol.needs_frames
    return EvaluationOptions(
        bootstrap=BootstrapOptions(INTERVALS.rounds, INTERVALS.level, resampled(splits.test_rows), INTERVALS.seed),
        source=source,
        pair=printed_pair(splits.resolution.protocol.id),
        protocol=splits.resolution.protocol.id,
        frames=str(frames) if needs_frames else None,
        protocol_seed=protocol_seed,
    )


def evaluated(evaluation: Evaluation, splits: Splits, how: str, training: Declared) -> dict[str, Any]:
    """Return the fields of a result that follow from scored predictions and the splits of a protocol.

    Args:
        evaluation: of the predictions.
        splits: of the protocol.
        how: see `Training`. Warnings about the training split count only where it trained something.
        training: the set whose counts weigh UBMAE, where they are known.
    """
    resolution = splits.resolution
    return {
        "protocol": ProtocolUsed(
            resolution.protocol.id, resolution.protocol.version, resolution.protocol.definition_hash,
            resolution.hash, resolution.seed,
            resolution.warnings if how in (TRAINED, FITTED) else resolution.test_warnings,
        ),
        "train": splits.train, "test": splits.test, "coverage": evaluation.result["coverage"],
        "scores": _scores(evaluation), "resampling": _resampling(evaluation), "bins": _bins(evaluation),
        "floor": _floor(evaluation, splits), "printed_pair": printed_pair(resolution.protocol.id),
        "ubmae_source": training.counted if "ubmae" in evaluation.result["scores"] else None,
    }  # fmt: skip


def _scores(evaluation: Evaluation) -> dict[str, Score]:
    own = evaluation.result["scores"].items()
    return {name: Score(s["value"], s["unit"], s.get("low"), s.get("high")) for name, s in own}


def _resampling(evaluation: Evaluation) -> Resampling:
    o = evaluation.result["options"]["bootstrap"]
    return Resampling(o["over"], evaluation.result["groups"], o["rounds"], o["level"], o["seed"])


def _bins(evaluation: Evaluation) -> dict[str, PerBin]:
    tables = {a: evaluation.result["bins"][a] for a in ANGLES}
    unknown = (None,) * N_BINS
    return {a: PerBin(tuple(t["n"]), tuple(t["error"]), tuple(t.get("weight", unknown))) for a, t in tables.items()}


def _floor(evaluation: Evaluation, splits: Splits) -> Baseline:
    """Return what the mean pose of the training split scores on all test heads.

    Without a head of the training split it is the mean of the counts that are part of the package, where they are.
    """
    pose, training_counts, note = _mean_pose(splits)
    if pose is None:
        return Baseline({}, dict.fromkeys(ANGLES, (None,) * N_BINS), note)
    true = angles(splits.test_rows)
    constant = score(
        Pairs(np.broadcast_to(pose, true.shape), true),
        source_counts=training_counts,
        printed_k=evaluation.scored.statistics.get("printed_k"),
    )
    error = bin_table(constant)["error"]
    return Baseline(
        {k: _finite(v) for k, v in constant.scores.items()},
        {a: tuple(map(_finite, own)) for a, own in zip(ANGLES, error, strict=True)},
        note,
    )


def _mean_pose(splits: Splits) -> tuple[FloatArray | None, FloatArray | None, str | None]:
    """Return the mean pose (3,) of the training heads, their counts (3, 15), and a note where it is an estimate.

    It is an estimate where the published test heads are there and the training split is not, or only a part of it.
    """
    own = splits.resolution.protocol
    shipped, train, test = known_training_set(own), own.published.get(TRAIN), own.published.get(TEST)
    is_part = (
        shipped is not None and train is not None and test is not None and test.ids_hash == splits.test.names_sha256
        and train.heads != splits.train.heads
    )  # fmt: skip
    if splits.train_rows.num_rows and not is_part:
        angles_deg = angles(splits.train_rows)
        inside = bins.counts(angles_deg).inside.astype(np.float64)
        return angles_deg.mean(axis=0), inside if (inside.sum(axis=1) > 0).all() else None, None
    if shipped is None:
        return None, None, "the training split is not in this build"
    pose: FloatArray = shipped.counts @ CENTRES_DEG / shipped.counts.sum(axis=1)
    return pose, shipped.counts, f"estimated from {shipped.text}"


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
