"""The options of `ubhpd bench`, the runs that follow from them, and the splits of a protocol on a build."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from ubhpd import manifest
from ubhpd.core import bins
from ubhpd.core.bins import ANGLES
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing
from ubhpd.evaluation.pairing import angles
from ubhpd.leaderboards.reported import Known, KnownProtocol
from ubhpd.leaderboards.result import FITTED, IMPORTED, TRAINED, Split, canonical_hash
from ubhpd.manifest import BuildFolder, readmitted
from ubhpd.manifest.schema import COLUMNS, NAMES, Fingerprint
from ubhpd.models.catalogue import card, catalogue, configured
from ubhpd.protocols.resolve import PROTOCOLS, Resolution, ids_hash, in_series, protocol, resolve
from ubhpd.training.request import TrainRequest

# What papers call by these numbers, one id for each pair of train and test set. Of the divisions of BIWI it is the
# one that is drawn as FSA-Net drew it; the others are there by their ids.
SHORT_NAMES: Mapping[str, tuple[str, ...]] = {
    "1": ("300wlp_aflw2000_1969", "300wlp_biwi_15678"),
    "2": ("biwi_16_8_drawn", "upna_subjects"),
    "3": ("ubhpd",),
    "cross": tuple(p.id for p in in_series("cross")),
}


@dataclass(frozen=True)
class HowToTrain:
    """What is passed on to training; None leaves it to the model's own recipe."""

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

    def request(self, model: str, data: Path, out: Path, **rest: Any) -> TrainRequest:
        """Return the request to train a model with what is not None, and the rest.

        Raises:
            UbhpdError: a value that nothing can be trained with.
        """
        return TrainRequest(model, data, out, **rest, **{k: v for k, v in vars(self).items() if v is not None})


@dataclass(frozen=True)
class BenchRequest:
    """Every model on every protocol with every seed.

    options: model -> option -> value as typed. weights: model -> files of published weights, for models that are not
    trained. frames: list of frames, for protocols that need one. speed: batch size to measure the speed with.
    cache: folder for crops, by default in the build.
    """

    models: tuple[str, ...]
    protocols: tuple[str, ...]
    data: Path
    out: Path
    seeds: tuple[int, ...] = (0,)
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    weights: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    train: HowToTrain = field(default_factory=HowToTrain)
    frames: Path | None = None
    protocol_seed: int = 0
    device: str = "auto"
    workers: int = 0
    speed: int | None = None
    cache: Path | None = None


class Run(NamedTuple):
    """One model with its options, on one protocol, with one seed: None where nothing is drawn."""

    model: str
    chosen: dict[str, str]
    options: dict[str, Any]
    how: str
    protocol_id: str
    seed: int | None

    @property
    def name(self) -> str:
        """Name of its files, without an ending."""
        last = self.how if self.seed is None else f"seed{self.seed}"
        return f"{self.model}-{canonical_hash(self.options)[:8]}-{last}"


def protocol_ids(names: Iterable[str]) -> dict[str, bool]:
    """Return the ids that names of protocols stand for, each with whether the user named that very id.

    Raises:
        UbhpdError: neither a protocol nor one of SHORT_NAMES.
    """
    found: dict[str, bool] = {}
    for name in names:
        if name in SHORT_NAMES:
            found |= {i: found.get(i, False) for i in SHORT_NAMES[name]}
        else:
            found[protocol(name).id] = True
    return found


def runs_of(request: BenchRequest) -> list[Run]:
    """Return all runs, one protocol after the other.

    Raises:
        UbhpdError: no model, protocol or seed, an unknown one, or a wrong option.
    """
    for what, values in (("model", request.models), ("protocol", request.protocols), ("seed", request.seeds)):
        if not values:
            raise UbhpdError(f"No {what} is named: give --{what}s with one at least.")
    if stray := [m for m in (*request.options, *request.weights) if m not in request.models]:
        raise UbhpdError(f"{stray[0]} has an option or weights, but is not among --models: add it, or leave them out.")
    if negative := [s for s in request.seeds if s < 0]:
        raise UbhpdError(f"The seed {negative[0]} is negative: give whole numbers of at least 0.")
    ids = protocol_ids(request.protocols)
    request.train.request("", request.data, request.out)  # refuses values that no training can do with
    methods = [_method(model, request) for model in dict.fromkeys(request.models)]
    return [
        Run(model, chosen, options, how, protocol_id, seed)
        for protocol_id in ids
        for model, chosen, options, how in methods
        for seed in (dict.fromkeys(request.seeds) if how == TRAINED else (None,))
    ]


def _method(model: str, request: BenchRequest) -> tuple[str, dict[str, str], dict[str, Any], str]:
    """Return a model, its options, chosen and all, and how its weights come about."""
    chosen = dict(request.options.get(model, {}))
    options = asdict(configured(model, chosen)[1])
    is_geometric = card(model).kind == "geometric"
    if is_geometric and model in request.weights:
        raise UbhpdError(f"{model} is a geometric method, which is fitted: leave --weights {model}=FILE out.")
    how = FITTED if is_geometric else IMPORTED if model in request.weights else TRAINED
    return model, dict(sorted(chosen.items())), options, how


def known() -> Known:
    """Return what the leaderboard needs to know of the protocols and models of this version."""
    return Known(
        protocols={p.id: KnownProtocol(p.sentence, p.definition_hash, bool(p.published)) for p in PROTOCOLS.values()},
        reported_as={c.name: c.reported for c in catalogue().values() if c.reported is not None},
    )


GROUPS_TO_RESAMPLE = 10  # percentile intervals of fewer persons or recordings say little


class Splits(NamedTuple):
    """A protocol on a build: rows of the manifest that train and that test, all usable, and what they are."""

    resolution: Resolution
    train_rows: pa.Table
    test_rows: pa.Table
    train: Split
    test: Split


def splits_of(protocol_id: str, data: Path, frames: Path | None = None, seed: int = 0) -> Splits:
    """Return both splits of a protocol on the build in the folder `data`; other arguments and errors as `resolve`."""
    resolution = resolve(protocol_id, data, frames, seed)
    own = resolution.protocol
    train_rows = _rows(data, own.train.table, resolution.train)
    test_rows = _rows(data, own.test.table, resolution.test)
    return Splits(resolution, train_rows, test_rows, _side(train_rows), _side(test_rows))


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
    return readmitted(pa.Table.from_batches(batches))


def _side(rows: pa.Table) -> Split:
    mark = Fingerprint(COLUMNS)
    mark.update(rows)
    counted = bins.counts(angles(rows))
    datasets = {r["values"]: r["counts"] for r in rows.column("dataset").value_counts().to_pylist()}
    return Split(
        rows.num_rows,
        ids_hash(rows.column("sample_id").to_pylist()),
        mark.hexdigest(),
        dict(sorted(datasets.items())),
        {a: tuple(own) for a, own in zip(ANGLES, counted.inside.tolist(), strict=True)},
        dict(zip(ANGLES, counted.outside.tolist(), strict=True)),
    )
