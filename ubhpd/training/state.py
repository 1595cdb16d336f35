"""The log and the saved state of a training run.

The log is log.csv, and TensorBoard files where TensorBoard is installed. The saved state is one safetensors file from
which a run resumes to the same weights as without the interruption.

The tensors are network/NAME, best/NAME for the best weights so far, and optimizer/NUMBER/KEY; the header holds the
numbers and what run it is of. Random numbers need no state: all are drawn from (seed, epoch, place) or (seed, step).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import clear_parts, replacing
from ubhpd.core.text import csv_lines

LOG_FILE = "log.csv"
TENSORBOARD = "tensorboard"
COLUMNS = ("step", "epoch", "lr", "loss", "terms", "validation_error_deg", "heads_per_second", "wait_share")


class Log:
    """A CSV with a row for each interval: see COLUMNS; `terms` are NAME=VALUE, the validation is empty between epochs.

    A resumed run removes the rows that were written after the state it starts from.
    """

    def __init__(self, folder: Path, keep_bytes: int) -> None:
        self._path = folder / LOG_FILE
        self._board = _board(folder)
        if not keep_bytes or not self._path.is_file():
            self._path.write_text(_line(COLUMNS), encoding="utf-8", newline="")
        else:
            with self._path.open("r+b") as file:
                file.truncate(keep_bytes)

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self._path.stat().st_size

    def write(self, row: Mapping[str, float | None], terms: Mapping[str, float]) -> None:
        """Add a row; None is left empty."""
        joined = " ".join(f"{name}={value:.6g}" for name, value in terms.items())
        values = [joined if n == "terms" else _text(row.get(n)) for n in COLUMNS]
        with self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(_line(values))
        if self._board is not None:
            named = {**{n: v for n, v in row.items() if n != "step" and v is not None}, **terms}
            for name, value in named.items():
                self._board.add_scalar(name, value, int(row["step"] or 0))

    def close(self) -> None:
        """Let TensorBoard write what it still holds."""
        if self._board is not None:
            self._board.close()


class Waits:
    """Which share of the time the device waits for heads.

    On a CPU it is the time that asking for a batch takes. A GPU works behind the program's back: there marks in its
    queue of work tell how long it was idle between one step's end and the next one's begin.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._marks: list[tuple[Any, Any]] = []
        self._waited, self._since = 0.0, time.perf_counter()

    def begin(self) -> Any:
        """Mark that the program asks for a batch; give the result to `end`."""
        return self._mark() if self._on_gpu else time.perf_counter()

    def end(self, begun: Any) -> None:
        """Mark that the batch is there."""
        if self._on_gpu:
            self._marks.append((begun, self._mark()))
        else:
            self._waited += time.perf_counter() - begun

    def read(self) -> tuple[float, float]:
        """Return the seconds since the last reading, and the share of them that was waiting; waits for a GPU."""
        if self._on_gpu:
            torch.cuda.synchronize()
            self._waited = sum(a.elapsed_time(b) for a, b in self._marks) / 1000
            self._marks.clear()
        now = time.perf_counter()
        seconds = now - self._since
        share = self._waited / seconds if seconds > 0 else 0.0
        self._waited, self._since = 0.0, now
        return seconds, min(share, 1.0)

    def _mark(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / TENSORBOARD))


def _text(value: float | None) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _line(values: Any) -> str:
    return csv_lines([values])


STATE_FILE = "state.safetensors"
_KEY = "ubhpd-training"

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Position:
    """How far a training is.

    step: optimiser steps done. best_epoch: from 1, 0 for none yet. best_error_deg: of it. log_bytes: of log.csv.
    scale, growth: of the gradient scaler.
    """

    step: int = 0
    best_epoch: int = 0
    best_error_deg: float = float("inf")
    log_bytes: int = 0
    scale: float = 0.0
    growth: int = 0


@dataclass(frozen=True)
class State:
    """A position with the tensors that belong to it."""

    position: Position
    network: Tensors
    best: Tensors
    optimizer: Tensors


def save(folder: Path, state: State, identity: Mapping[str, Any]) -> None:
    """Write the state, whole or not at all.

    Args:
        folder: of the run.
        state: to keep.
        identity: of the run, as JSON can hold it.

    Raises:
        OSError: the file cannot be written; the one before is still there.
    """
    tensors: Tensors = {}
    for part in ("network", "best", "optimizer"):
        for name, value in getattr(state, part).items():
            # A copy, because safetensors refuses tensors that share memory, as best and network may.
            tensors[f"{part}/{name}"] = value.detach().cpu().clone().contiguous()
    said = {"identity": dict(identity), "position": asdict(state.position)}
    _clear(folder)  # only now: it is the leader that saves
    try:
        with replacing(folder / STATE_FILE) as part_file:
            save_file(tensors, part_file, {_KEY: json.dumps(said)})
    except SafetensorError as error:
        raise OSError(5, str(error), str(folder / STATE_FILE)) from None


def remove(folder: Path) -> None:
    """Remove the state, and what a kill while saving left."""
    (folder / STATE_FILE).unlink(missing_ok=True)
    _clear(folder)


def load(folder: Path, identity: Mapping[str, Any]) -> State | None:
    """Return the state that an interrupted run left, None if there is none.

    Raises:
        UbhpdError: it is of another run, or damaged.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            said = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        position = Position(**said["position"])
        before = dict(said["identity"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        raise UbhpdError(f"{path} is damaged: delete it to begin this run anew, or name another --out.") from None
    check_same(path, before, identity)
    parts: dict[str, Tensors] = {"network": {}, "best": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = value
    return State(position, **parts)


def check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise UbhpdError unless a file is of this run; it says what differs."""
    was, wanted = _flat(before), _flat(now)
    for name in sorted({**was, **wanted}):
        if was.get(name) != wanted.get(name):
            raise UbhpdError(
                f"{path} is of another run, with {name} {was.get(name)!r} and not {wanted.get(name)!r}: name another "
                "--out, or delete that folder."
            )


def _clear(folder: Path) -> None:
    """Remove what a kill while saving left: our part, and the one that safetensors writes first."""
    clear_parts(folder / STATE_FILE)
    for part in folder.glob(".tmp??????"):
        part.unlink(missing_ok=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """Return the state of an optimiser as tensors named NUMBER/KEY, by the numbers of its parameters."""
    found: Tensors = {}
    for number, own in optimizer.state_dict()["state"].items():
        for key, value in own.items():
            if value is not None:
                found[f"{number}/{key}"] = torch.as_tensor(value)
    return found


def fill_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Give an optimiser the state that `optimizer_tensors` took from one like it.

    What has the shape of a parameter gets its order in memory too: fused optimisers go by that unchecked.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    own: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        number, _, key = name.partition("/")
        parameter = parameters[int(number)]
        is_of_each = value.shape == parameter.shape
        own.setdefault(int(number), {})[key] = torch.empty_like(parameter).copy_(value) if is_of_each else value
    optimizer.load_state_dict({"state": own, "param_groups": optimizer.state_dict()["param_groups"]})


def _flat(values: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """Return values inside of each other as one row, named by their way."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{start}{name}.") if isinstance(value, dict) else {f"{start}{name}": value}
    return found
