"""One run as one JSON file, the only input of the leaderboard: what ran, on which heads, and with which scores.

A file carries the SHA-256 of its own content and is refused if the two differ, so that a number edited by hand does
not get into a table unnoticed. It holds no date and no path of a machine: the same run gives the same file, except
for `speed`, which is measured. Every value is checked against the type of its field when a file is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ubhpd import __version__
from ubhpd.core.bins import ANGLES, N_BINS
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import read_json, write_json
from ubhpd.core.options import from_json

FORMAT = 1
MAX_BYTES = 16 << 20  # of a result file; one has a few kilobytes
KIND = "ubhpd-result"
TRAINED, FITTED, IMPORTED = "trained", "fitted", "imported"

_REMEDY = "run ubhpd bench again, or leave the file out"


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
    of each. bins: heads per angle and bin of 12 degrees. outside: heads beyond 90 degrees, per angle.
    """

    heads: int
    names_sha256: str
    fingerprint: str
    datasets: dict[str, int]
    bins: dict[str, tuple[int, ...]]
    outside: dict[str, int]


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

    how: "trained", "fitted" (a geometric method) or "imported". weights_sha256: of the tensors. start: what training
    began with, "from scratch" or the file and hash of a backbone; for imported weights their files. selection: which
    checkpoint of the training was kept. The rest is None where nothing was trained.
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
    """What the mean-pose baseline scores on the same heads: for every head it predicts the mean pose of training."""

    scores: dict[str, float | None]
    error: dict[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class Result:
    """One run. options: all of the model's Config; chosen: those named by the user. seed: None where nothing is drawn.

    input: the input recipe, None for a geometric method. coverage: share of the test heads with a prediction.
    printed_pair: the printed table whose constants `ubmae_printed` uses. inputs: hash of all inputs of the run.
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

    @property
    def options_hash(self) -> str:
        """Eight digits that distinguish the options of one model."""
        return canonical_hash(self.options)[:8]

    @property
    def group(self) -> tuple[str, ...]:
        """What two results of one table have in common: protocol, heads, labels, printed pair."""
        p = self.protocol
        return (
            p.id, str(p.version), p.definition_hash, p.hash, self.train.fingerprint, self.test.fingerprint,
            self.printed_pair or "",
        )  # fmt: skip


class ResultFile(NamedTuple):
    """A result and the file it stands in."""

    path: Path
    result: Result


def canonical_hash(content: Any) -> str:
    """Return the SHA-256 of a value as JSON with sorted keys and without spaces."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write(result: Result, path: Path) -> None:
    """Write a result and its hash; the file appears complete or not at all.

    Raises:
        UbhpdError: the file cannot be written.
    """
    content = {"kind": KIND, "format": FORMAT, **asdict(result)}
    try:
        write_json({**content, "hash": canonical_hash(content)}, path)
    except OSError as error:
        raise UbhpdError(f"Cannot write {path} ({error.strerror}): check the path and the free disk space.") from None


def read(path: Path) -> Result:
    """Return the result that a file holds.

    Raises:
        UbhpdError: no such file, no result, a newer format, a content that was changed, or a value of a wrong type.
    """
    content = _loaded(path)
    if not _is_result(content):
        raise UbhpdError(f"{path} is not a result of ubhpd bench: give its --out folder, or the JSON files in it.")
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


def read_all(places: Iterable[Path]) -> list[ResultFile]:
    """Return the results in files and folders, sub-folders included, sorted by path; each file counts once.

    Raises:
        UbhpdError: no result anywhere, a path that does not exist or is neither file nor folder, or as `read`.
    """
    paths: dict[Path, None] = {}
    for place in places:
        if not place.exists():
            raise UbhpdError(f"There is no {place}: give the --out folder of ubhpd bench.")
        if not (place.is_dir() or place.is_file()):
            raise UbhpdError(f"{place} is neither a file nor a folder: give the --out folder of ubhpd bench.")
        inside = sorted(p for p in place.rglob("*.json") if _may_be_result(p)) if place.is_dir() else [place]
        paths |= {p.resolve(): None for p in inside if not place.is_dir() or _is_result(_loaded(p))}
    if not paths:
        raise UbhpdError("No result was found: ubhpd bench writes them, see its --out.")
    return [ResultFile(path, read(path)) for path in sorted(paths)]


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
