"""What a training writes about itself as it goes: log.csv always, TensorBoard's files where that is installed."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

FILE = "log.csv"
TENSORBOARD = "tensorboard"
COLUMNS = (
    "step", "epoch", "lr", "loss", "terms", "validation_error_deg", "heads_per_second", "wait_share",
)  # fmt: skip


class Log:
    """A CSV with a row for each interval: see COLUMNS; `terms` are NAME=VALUE, the validation is empty between epochs.

    A run that goes on cuts off what was written after the state it begins from.
    """

    def __init__(self, folder: Path, keep_bytes: int) -> None:
        self._path = folder / FILE
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
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()
