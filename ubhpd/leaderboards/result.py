"""One run as one JSON file, the only input of the leaderboard: what ran, on which heads, and with which scores.

A file carries the SHA-256 of its own content and is refused if the two differ, so that a number edited by hand does
not get into a table unnoticed. It holds no date and no path of a machine: the same run gives the same file, except
for `speed`, which is measured. Every value is checked against the type of its field when a file is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ubhpd import __version__
from ubhpd.core.bins import ANGLES, N_BINS
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import read_json, replacing
from ubhpd.core.options import from_json, from_values
from ubhpd.core.typing import FloatArray

FORMAT = 1
MAX_BYTES = 16 << 20  # of a result file; one has a few kilobytes
KIND = "ubhpd-result"
STRESS_KIND = "ubhpd-stress"
TRAINED, FITTED, IMPORTED, SUBMITTED = "trained", "fitted", "imported", "submitted"

_REMEDY = "make it again with ubhpd bench or ubhpd submit, or leave the file out"


@dataclass(frozen=True)
class Score:
    """A value in its unit, with the ends of its confidence interval; None where it does not exist."""

    value: float | None
    unit: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Split:
    """The training heads, or the test heads.

    names_sha256: of their sorted names. fingerprint: of all their columns, labels and boxes included. datasets: heads
    of each. bins: heads per angle and bin of 12 degrees. outside: heads beyond 90 degrees, per angle. labels_sha256: of
    names and angles alone, see `labels_hash`; None in results of ubhpd 0.1.0.
    """

    heads: int
    names_sha256: str
    fingerprint: str
    datasets: dict[str, int]
    bins: dict[str, tuple[int, ...]]
    outside: dict[str, int]
    labels_sha256: str | None = None


@dataclass(frozen=True)
class ProtocolUsed:
    """A named protocol as it resolved: see `ubhpd.protocols.resolve.Resolution`."""

    id: str
    version: int
    definition_hash: str
    hash: str
    seed: int | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Input:
    """How a head became the network's input: the fields of `ubhpd.nn.contract.InputRecipe`."""

    crop: str
    size: int
    colour: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_of: tuple[tuple[str, ...], ...]
    frames: int


@dataclass(frozen=True)
class Training:
    """How the weights were made.

    how: "trained", "fitted" (a geometric method), "imported", or "submitted" (only predictions are known).
    weights_sha256: of the tensors, "" for submitted predictions. start: what training began with, "from scratch" or the
    file and hash of a backbone; for imported weights their files. selection: which checkpoint of the training was kept.
    declared: the training set of imported weights and submitted predictions, as declared by the person who ran or
    submitted them; None where nobody declared one. The rest is None where nothing was trained.
    """

    how: str
    weights_sha256: str
    start: str
    selection: str
    heads: int | None = None
    epochs: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    optimizer: str | None = None
    lr: float | None = None
    schedule: str | None = None
    augmentations: tuple[str, ...] | None = None
    balance: str | None = None
    precision: str | None = None
    declared: str | None = None


@dataclass(frozen=True)
class MethodInfo:
    """What a reader wants to know about a method: all of it optional, and as the authors or submitters state it.

    paper: address or citation. code: address. year: of the paper. license: of code or weights. input: the crop, in
    words. reported_as: name of the method in published_results.csv.
    """

    paper: str | None = None
    code: str | None = None
    year: int | None = None
    license: str | None = None
    input: str | None = None
    reported_as: str | None = None


@dataclass(frozen=True)
class Accepted:
    """A finding of `ubhpd doctor` with which predictions were submitted all the same: its kind and its sentence."""

    kind: str
    text: str


@dataclass(frozen=True)
class Stress:
    """The mean rise of the error over a fixed, named set of perturbations, in degrees."""

    perturbations: str
    rise_deg: float


@dataclass(frozen=True)
class Speed:
    """Heads predicted per second in batches of this size on a named device, with crops in memory."""

    images_per_second: float
    batch_size: int
    device: str


@dataclass(frozen=True)
class Resampling:
    """How intervals were made: see `ubhpd.evaluation.intervals.BootstrapOptions`; `groups` of them were resampled."""

    over: str
    groups: int
    rounds: int
    level: float
    seed: int


@dataclass(frozen=True)
class PerBin:
    """One angle, 15 bins: heads, mean absolute error in degrees (None without a head), weight of UBMAE."""

    heads: tuple[int, ...]
    error: tuple[float | None, ...]
    weight: tuple[float | None, ...]


@dataclass(frozen=True)
class Baseline:
    """What the mean-pose baseline scores on the same heads: for every head it predicts the mean pose of training.

    note: where the mean is an estimate, or why there is no score.
    """

    scores: dict[str, float | None]
    error: dict[str, tuple[float | None, ...]]
    note: str | None = None


@dataclass(frozen=True)
class Result:
    """One run. options: all of the model's Config; chosen: those named by the user. seed: None where nothing is drawn.

    input: the input recipe, None for a geometric method. coverage: share of the test heads with a prediction.
    printed_pair: the printed table whose constants `ubmae_printed` uses. inputs: hash of all inputs of the run.

    The fields from `ubmae_source` on are optional. ubmae_source: the training set whose counts weigh UBMAE; None in
    results of ubhpd 0.1.0, which used the training split of the protocol. by: the person or group that ran or submitted
    it. crop: the crop recipe, where it is not the model's own. landmarks: kinds of the landmarks that a method read in
    the test heads. oracle: the ground truth that the method sees at test time. accepted: findings of the doctor.
    """

    model: str
    title: str
    options: dict[str, Any]
    chosen: dict[str, str]
    parameters: int | None
    input: Input | None
    protocol: ProtocolUsed
    train: Split
    test: Split
    seed: int | None
    training: Training
    coverage: float
    scores: dict[str, Score]
    resampling: Resampling
    bins: dict[str, PerBin]
    floor: Baseline  # the key of the JSON files
    printed_pair: str | None
    speed: Speed | None
    device: str
    predictions: str
    predictions_sha256: str
    inputs: str
    torch: str | None = None
    ubhpd: str = __version__
    ubmae_source: str | None = None
    by: str | None = None
    info: MethodInfo | None = None
    crop: str | None = None
    landmarks: tuple[str, ...] | None = None
    oracle: str | None = None
    accepted: tuple[Accepted, ...] = ()
    stress: Stress | None = None

    @property
    def options_hash(self) -> str:
        """Eight digits that distinguish the options of one model."""
        return canonical_hash(self.options)[:8]

    @property
    def left_out(self) -> float | None:
        """Share of the test heads that UBMAE leaves out, as their bins hold no training head; None without UBMAE."""
        own = self.scores.get("dropped_mass")
        return None if own is None else own.value

    def group(self, labels: str) -> tuple[str, ...]:
        """Return what two results of one table have in common: protocol, test heads, their labels, printed pair.

        Args:
            labels: hash of the labels of the test heads, see `Split`.
        """
        p = self.protocol
        return p.id, str(p.version), p.definition_hash, self.test.names_sha256, labels, self.printed_pair or ""


class ResultFile(NamedTuple):
    """A result, the file it stands in, and whose it is: a name, "" where nobody is named."""

    path: Path
    result: Result
    owner: str = ""


def canonical_hash(content: Any) -> str:
    """Return the SHA-256 of a value as JSON with sorted keys and without spaces."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def labels_hash(names: Sequence[str], angles_deg: FloatArray) -> str:
    """Return the SHA-256 of heads with their labels: a line per head, sorted by name, angles in 1e-4 degrees.

    Args:
        names: of the heads (n,).
        angles_deg: their yaw, pitch, roll (n, 3).
    """
    whole = np.rint(np.asarray(angles_deg) * 1e4).astype(np.int64).tolist()
    lines = sorted(f"{name} {yaw} {pitch} {roll}\n" for name, (yaw, pitch, roll) in zip(names, whole, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def text_of(result: Result) -> str:
    """Return the JSON text of a result with its hash."""
    content = {"kind": KIND, "format": FORMAT, **asdict(result)}
    return json.dumps({**content, "hash": canonical_hash(content)}, indent=2, ensure_ascii=False) + "\n"


def write(result: Result, path: Path) -> None:
    """Write a result and its hash; the file appears complete or not at all.

    Raises:
        UbhpdError: the file cannot be written.
    """
    try:
        with replacing(path) as part:
            part.write_text(text_of(result), encoding="utf-8")
    except OSError as error:
        raise UbhpdError(f"Cannot write {path} ({error.strerror}): check the path and the free disk space.") from None


def read(path: Path) -> Result:
    """Return the result that a file holds.

    Raises:
        UbhpdError: no such file, no result, a newer format, a content that was changed, or a value of a wrong type.
    """
    content = _loaded(path)
    if not _is_result(content):
        raise UbhpdError(
            f"{path} is not a result of ubhpd bench or ubhpd submit: give their --out folder, or the JSON files in it."
        )
    version = content.pop("format", None)
    if type(version) is int and version > FORMAT:
        raise UbhpdError(f"{path} is a result of format {version}, this ubhpd reads {FORMAT}: update ubhpd.")
    own = content.pop("hash", None)
    try:
        is_own = canonical_hash({**content, "format": version}) == own
    except ValueError:  # NaN or Infinity, which no result holds
        is_own = False
    if not is_own:
        raise UbhpdError(f"{path} was changed after it was written (its hash does not match): {_REMEDY}.")
    del content["kind"]
    result = from_json(content, Result, str(path))
    _check_tables(result, path)
    return result


def read_all(places: Iterable[Path | tuple[str, Path]]) -> list[ResultFile]:
    """Return the results in files and folders, sub-folders included, sorted by path; each file counts once.

    Args:
        places: paths, or (whose results they are, path). A result that names its own person keeps that name.

    Raises:
        UbhpdError: no result anywhere, a path that does not exist or is neither file nor folder, or as `read`.
    """
    paths: dict[Path, str] = {}
    for owner, place in (own if isinstance(own, tuple) else ("", own) for own in places):
        if not place.exists():
            raise UbhpdError(f"There is no {place}: give the --out folder of ubhpd bench or ubhpd submit.")
        if not (place.is_dir() or place.is_file()):
            raise UbhpdError(f"{place} is neither a file nor a folder: give the --out folder of ubhpd bench.")
        inside = sorted(p for p in place.rglob("*.json") if _may_be_result(p)) if place.is_dir() else [place]
        for path in inside:
            if not place.is_dir() or _is_result(_loaded(path)):
                paths.setdefault(path.resolve(), owner)
    if not paths:
        raise UbhpdError("No result was found: ubhpd bench and ubhpd submit write them, see their --out.")
    found = [(path, read(path)) for path in sorted(paths)]
    return [ResultFile(path, own, own.by or paths[path]) for path, own in found]


def read_stress(path: Path) -> Stress:
    """Return the mean rise of the error that a JSON file of `ubhpd stress` holds.

    Raises:
        UbhpdError: no such file, or another one.
    """
    content = read_json(path, "make it with ubhpd stress")
    if not isinstance(content, dict) or content.get("kind") != STRESS_KIND:
        raise UbhpdError(f"{path} is not what ubhpd stress writes: its kind is not {STRESS_KIND}.")
    wanted = {k: content.get(k) for k in ("perturbations", "rise_deg")}
    return from_values(Stress, wanted, str(path))


def place_of(text: str) -> tuple[str, Path]:
    """Return whose results lie where: ("ann", FOLDER) of ann=FOLDER, ("", FOLDER) of a path without a name."""
    name, equals, rest = text.partition("=")
    if not equals or "/" in name or not name.strip() or Path(text).exists():
        return "", Path(text)
    return name.strip(), Path(rest)


def _check_tables(result: Result, path: Path) -> None:
    parts = {name: {a: getattr(b, name) for a, b in result.bins.items()} for name in ("heads", "error", "weight")}
    splits = {"train.bins": result.train.bins, "test.bins": result.test.bins}
    for where, table in {**parts, **splits, "floor.error": result.floor.error}.items():
        if set(table) != set(ANGLES) or any(len(values) != N_BINS for values in table.values()):
            raise UbhpdError(f"{path}: {where} is not a table of yaw, pitch and roll with {N_BINS} bins: {_REMEDY}.")


def _may_be_result(path: Path) -> bool:
    return path.is_file() and path.stat().st_size <= MAX_BYTES


def _loaded(path: Path) -> Any:
    return read_json(path, _REMEDY, MAX_BYTES)


def _is_result(content: Any) -> bool:
    return isinstance(content, dict) and content.get("kind") == KIND
