"""The heads that `ubhpd review` shows: filtered by dataset, bin, flag and decision, and what is known of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd import bins, manifest
from ubhpd.checking import decisions, quality
from ubhpd.checking.decisions import DROP, KEEP, Decision
from ubhpd.errors import UbhpdError
from ubhpd.pool.summary import manifest_in
from ubhpd.progress import Progress
from ubhpd.records import OF_SOURCE_PHOTO

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

STATES = ("undecided", KEEP, DROP)
OUTSIDE = "outside"  # the name of what is in no bin
ANY, NONE = "any", "none"  # flags: at least one of them, not one of them

_MARGIN = 0.35  # of the box, shown around it on every side
_MIN_CROP_PX = 8
_LIGHT = ("sample_id", "dataset", "subject_id", "image_path", "frame_index", "image_width", "image_height", "bbox_kind",
          "landmarks_kind", "drop_reason", "drop_detail")  # fmt: skip
_LISTS = ("bbox_xyxy", "rotation", "landmarks68", "landmarks21")


@dataclass(frozen=True)
class Filter:
    """Which heads to show; an empty string takes all. yaw, pitch and roll: the number of a bin, or `outside`."""

    dataset: str = ""
    yaw: str = ""
    pitch: str = ""
    roll: str = ""
    flag: str = ""
    decision: str = ""
    text: str = ""


class Heads:
    """The usable heads of a build, their flags, and the decisions on them as they are on disk."""

    def __init__(self, out: Path, progress: Progress | None = None) -> None:
        """Read the build in `out`.

        Raises:
            UbhpdError: there is no manifest, or the decisions beside it are no good.
        """
        path = manifest_in(out)
        self.path = path.parent / "decisions.csv"
        self.fingerprint = manifest.header(path).fingerprint
        angles = [f"{a}_deg" for a in bins.ANGLES]
        table = manifest.read(path, [*_LIGHT, *angles, *_LISTS])
        reasons = table.column("drop_reason")
        shown = pc.or_(reasons.is_null(), pc.is_in(reasons, pa.array(quality.REVIEWED)))
        self._all_ids = table.column("sample_id")
        self._table = table.filter(shown).combine_chunks()
        self._ids: list[str] = self._table.column("sample_id").to_pylist()
        self._row = {name: row for row, name in enumerate(self._ids)}
        self._ypr = np.stack([self._table.column(a).to_numpy() for a in angles], axis=1).astype(np.float64)
        self._bin = bins.bin_index(self._ypr)
        self._dataset = np.array(self._table.column("dataset").to_pylist(), dtype=object)
        flags = quality.check_manifest(path, progress=progress).to_pylist()
        self._flags: dict[int, list[dict[str, Any]]] = {}
        for flag in flags:
            if (row := self._row.get(flag["sample_id"])) is not None:
                value = flag["value"] if np.isfinite(flag["value"]) else None
                self._flags.setdefault(row, []).append({"flag": flag["flag"], "value": value, "detail": flag["detail"]})
        self._decisions: dict[str, Decision] = {}
        self._state = np.zeros(len(self._ids), dtype=np.int64)
        self._stamp: Any = None
        self.refresh()

    def __len__(self) -> int:
        return len(self._ids)

    def refresh(self) -> None:
        """Read the decisions again if the file has changed, by this or another program.

        Raises:
            UbhpdError: the file is no good any more.
        """
        try:
            status = self.path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        except FileNotFoundError:
            stamp = None
        if stamp == self._stamp:
            return
        found = decisions.read(self.path, self._all_ids) if stamp and stamp[1] else {}
        self._state[:] = 0
        for name, one in found.items():
            if name in self._row:
                self._state[self._row[name]] = STATES.index(one.decision)
        self._decisions, self._stamp = found, stamp

    def decision(self, sample_id: str) -> Decision | None:
        """Return what is decided on a head, as of the last refresh."""
        return self._decisions.get(sample_id)

    def last_of(self, who: str) -> str | None:
        """Return the head that `who` decided on last, by the order of the file."""
        return next((d.sample_id for d in reversed(self._decisions.values()) if d.who == who), None)

    def select(self, wanted: Filter) -> Rows:
        """Return the rows of the heads that pass, in the manifest's order; by a flag's value where one is chosen.

        Raises:
            UbhpdError: a filter that is not one.
        """
        keep = np.ones(len(self), dtype=bool)
        if wanted.dataset:
            keep &= self._dataset == wanted.dataset
        for axis, angle in enumerate(bins.ANGLES):
            if text := getattr(wanted, angle):
                keep &= self._bin[:, axis] == _bin_number(angle, text)
        if wanted.decision:
            if wanted.decision not in STATES:
                raise UbhpdError(f"There is no decision {wanted.decision!r}: choose {', '.join(STATES)}.")
            keep &= self._state == STATES.index(wanted.decision)
        if wanted.text:
            keep &= pc.match_substring(self._table.column("sample_id"), wanted.text).to_numpy()
        if not wanted.flag:
            return np.flatnonzero(keep)
        value = self._value_of(wanted.flag)
        keep &= np.isnan(value) if wanted.flag == NONE else ~np.isnan(value)
        rows = np.flatnonzero(keep)
        return rows if wanted.flag in (ANY, NONE) else rows[np.argsort(-value[rows], kind="stable")]

    def row(self, sample_id: str) -> int:
        """Return the row of a head.

        Raises:
            UbhpdError: it is not among the heads shown.
        """
        if sample_id not in self._row:
            raise UbhpdError(f"There is no head {sample_id[:80]!r} to review.")
        return self._row[sample_id]

    def card(self, row: int) -> dict[str, Any]:
        """Return what is known of a head, as what JSON can hold; coordinates are pixels of the whole picture."""
        light = {n: self._table.column(n)[row].as_py() for n in (*_LIGHT, *_LISTS)}
        # 300W-LP crops its warped pictures by the box of the photograph before: it is shown, and says so.
        points = light.pop("landmarks68") or light.pop("landmarks21", None)
        light.pop("landmarks21", None)
        decided = self._decisions.get(light["sample_id"])
        return {
            **light,
            "ypr_deg": [None if np.isnan(a) else round(float(a), 2) for a in self._ypr[row]],
            "landmarks": None if points is None else [round(p, 1) if p == p else None for p in points],
            "crop": self.crop(row),
            "window": self._window(row),
            "flags": self._flags.get(row, []),
            "decision": None if decided is None else decided._asdict(),
        }

    def picture(self, row: int) -> tuple[str, str, int | None]:
        """Return dataset, path and frame of a head's picture.

        Raises:
            UbhpdError: the path would lead out of the dataset, or there is none.
        """
        dataset, path, frame = (self._table.column(n)[row].as_py() for n in ("dataset", "image_path", "frame_index"))
        if not path:
            raise UbhpdError(f"{self._ids[row]} has no picture.")
        if path.startswith(("/", "~")) or "\\" in path or "\0" in path or ".." in path.split("/"):
            raise UbhpdError(f"{self._ids[row]} has the image_path {path!r}, which leads out of its dataset: refused.")
        return dataset, path, frame

    def crop(self, row: int) -> list[int] | None:
        """Return left, top, right, bottom of the part of the picture around the face; None for all of it."""
        size = [self._table.column(n)[row].as_py() for n in ("image_width", "image_height")]
        if (window := self._window(row)) is None or None in size:
            return None
        low = [max(v, 0) for v in window[:2]]
        high = [min(v, limit) for v, limit in zip(window[2:], size, strict=True)]
        return [*low, *high] if min(high[0] - low[0], high[1] - low[1]) >= _MIN_CROP_PX else None

    def counts(self) -> dict[str, int]:
        """Return how many heads there are, and how many in each state."""
        per_state = np.bincount(self._state, minlength=len(STATES)).tolist()
        return {"heads": len(self), **dict(zip(STATES, per_state, strict=True))}

    def choices(self) -> dict[str, Any]:
        """Return what can be filtered by, with the number of heads of each choice."""
        names, sizes = np.unique(self._dataset.astype(str), return_counts=True)
        flags = {name: int((~np.isnan(self._value_of(name))).sum()) for name in quality.FLAGS}
        per_bin = {}
        for axis, angle in enumerate(bins.ANGLES):
            inside = np.bincount(self._bin[:, axis] + 1, minlength=bins.N_BINS + 1).tolist()
            per_bin[angle] = {"inside": inside[1:], OUTSIDE: inside[0]}
        return {
            "datasets": dict(zip(names.tolist(), sizes.tolist(), strict=True)),
            "bins": per_bin,
            "edges_deg": bins.EDGES_DEG.tolist(),
            "flags": {n: {"heads": k, "meaning": quality.FLAGS[n]} for n, k in flags.items()},
            "any_flag": len(self._flags),
        }

    def _window(self, row: int) -> list[int] | None:
        """Return left, top, right, bottom of a square around the face, which may leave the picture."""
        box = self._table.column("bbox_xyxy")[row].as_py()
        is_own = not (self._table.column("bbox_kind")[row].as_py() or "").endswith(OF_SOURCE_PHOTO)
        if box is None or not is_own or not np.isfinite(box).all():
            return None
        half = max(box[2] - box[0], box[3] - box[1], _MIN_CROP_PX) * (0.5 + _MARGIN)
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        return [round(v) for v in (x - half, y - half, x + half, y + half)]

    def _value_of(self, flag: str) -> npt.NDArray[np.float64]:
        """Return the value of a flag (n,), NaN where a head does not have it."""
        if flag not in quality.FLAGS and flag not in (ANY, NONE):
            raise UbhpdError(f"There is no flag {flag!r}: choose {', '.join(quality.FLAGS)}, {ANY} or {NONE}.")
        value = np.full(len(self), np.nan)
        for row, own in self._flags.items():
            for one in own:
                if flag in (ANY, NONE, one["flag"]):
                    value[row] = np.inf if one["value"] is None else one["value"]
        return value


def filter_from(arguments: Mapping[str, str]) -> Filter:
    """Return the filter that the arguments of a request name; what is no part of it is left alone."""
    return Filter(**{n: arguments.get(n, "") for n in Filter.__dataclass_fields__})


def _bin_number(angle: str, text: str) -> int:
    if text == OUTSIDE:
        return bins.OUTSIDE
    if not (text.isascii() and text.isdigit() and int(text) < bins.N_BINS):
        raise UbhpdError(f"There is no bin {text[:40]!r} of {angle}: give 0 to {bins.N_BINS - 1}, or {OUTSIDE}.")
    return int(text)
