"""The doctor: reads a prediction file that scores badly and says why, by how much, and what to change.

First the file (ids twice, ids unknown, heads without a prediction, values that are no numbers), then the output as a
whole (constant, shuffled, shifted by rows), then the hypotheses on unit, columns, signs and rotations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd.bins import ANGLES
from ubhpd.manifest import header, read
from ubhpd.scores import last_build, predictions
from ubhpd.scores.hypotheses import Array, Explanation, explain, mean_error, radians
from ubhpd.scores.pairing import Paired, pair, truth_table
from ubhpd.scores.predictions import Predictions, first_repeat

SEVERITIES = ("error", "warning", "note")
LARGEST = 100_000  # heads examined; more are thinned evenly
_WARNINGS = ("offset", "full_turn", "bin_edge")


class Finding(NamedTuple):
    """One thing found: how bad, its kind, what it is, how to mend it, and the mean error before and after if known."""

    severity: str
    kind: str
    text: str
    fix: str
    before: float | None = None
    after: float | None = None


@dataclass(frozen=True)
class Diagnosis:
    """All findings, worst first, and the mean error in degrees as it is and as it would be."""

    path: str
    heads: int
    findings: tuple[Finding, ...]
    error_deg: float | None
    corrected_deg: float | None

    @property
    def exit_code(self) -> int:
        """1 if there is an error or a warning, else 0."""
        return int(any(f.severity in ("error", "warning") for f in self.findings))

    def as_dict(self) -> dict[str, Any]:
        """Return the diagnosis as plain values."""
        return {**vars(self), "findings": [f._asdict() for f in self.findings], "exit_code": self.exit_code}


def diagnose(path: str | Path, manifest: str | Path | None = None) -> Diagnosis:
    """Return the diagnosis of a prediction file against a manifest, its own truth columns, or the last build.

    Raises:
        UbhpdError: the file cannot be read at all, or there is no truth.
    """
    file = predictions.read(path, strict=False)
    findings: list[Finding] = []
    if manifest is None and file.true_deg is None:
        manifest = last_build.recall()
    file = _known_ids(file, manifest, findings)
    file = _each_id_once(file, findings)
    file = _finite(file, findings)
    if not len(file):
        return _diagnosis(str(path), 0, findings, None, None)
    found = pair(file, manifest, _own_split(file, manifest))
    _coverage(found, findings)
    thin = np.unique(np.linspace(0, len(found.sample_id) - 1, LARGEST).astype(np.int64))
    predicted, true = found.pairs.predicted_deg[thin], found.pairs.true_deg[thin]
    known = np.isfinite(true).all(axis=1)
    predicted, true = predicted[known], true[known]
    if not len(true):
        return _diagnosis(str(path), 0, findings, None, None)
    return examine(predicted, true, str(path), findings)


def examine(predicted: Array, true: Array, path: str = "", findings: list[Finding] | None = None) -> Diagnosis:
    """Return the diagnosis of finite angles (n, 3) in degrees, in the order of the file."""
    findings = [] if findings is None else findings
    before = mean_error(predicted, true)
    after = before
    constant = _constant(predicted, true)
    if constant:
        findings += constant
    else:
        explained = explain(predicted, true) if len(true) >= 10 else []
        corrected = explained[-1].corrected if explained else predicted
        order = _rows(corrected, true)
        if order:  # rows that belong to other heads: what else seems to explain them is chance
            alone = _rows(predicted, true)
            explained, order = ([], alone) if alone else (explained, order)
        findings += [_finding(e) for e in explained] + order
        after = order[-1].after if order and order[-1].after is not None else after
        after = mean_error(explained[-1].corrected, true) if explained and not order else after
    return _diagnosis(path, len(true), findings, before, after)


def _diagnosis(
    path: str, heads: int, findings: list[Finding], error: float | None, corrected: float | None
) -> Diagnosis:
    ordered = tuple(sorted(findings, key=lambda f: SEVERITIES.index(f.severity)))
    return Diagnosis(path, heads, ordered, error, corrected)


def _known_ids(file: Predictions, manifest: str | Path | None, findings: list[Finding]) -> Predictions:
    if manifest is None:
        return file
    table, _ = truth_table(Path(manifest))
    ids = table.column("sample_id").combine_chunks()
    known = pc.is_in(file.sample_id, value_set=ids).to_numpy(zero_copy_only=False)
    if known.all():
        return file
    row = int(np.argmin(known))
    example = f"; the manifest has ids like {ids[0].as_py()!r}" if len(ids) else ""
    text = (
        f"{int((~known).sum()):,} of {len(file):,} ids are not in the manifest, the first in row {row + 1}: "
        f"{file.sample_id[row].as_py()!r}{example}"
    )
    findings.append(Finding("error", "unknown_ids", text, "write the sample_id of the manifest, or give its manifest"))
    return _take(file, np.flatnonzero(known))


def _each_id_once(file: Predictions, findings: list[Finding]) -> Predictions:
    codes = file.sample_id.dictionary_encode().indices.to_numpy() if len(file) else np.zeros(0, np.int64)
    _, first = np.unique(codes, return_index=True)
    extra = len(codes) - len(first)
    if not extra:
        return file
    row, before = first_repeat(file.sample_id)
    name = file.sample_id[row].as_py()
    text = f"{extra:,} rows repeat an id, the first in row {row + 1}: {name!r} stands in row {before + 1} already"
    findings.append(Finding("error", "duplicated_ids", text, "keep one row per id"))
    return _take(file, np.sort(first))


def _finite(file: Predictions, findings: list[Finding]) -> Predictions:
    good = np.isfinite(file.predicted_deg).all(axis=1)
    if file.true_deg is not None:
        good &= np.isfinite(file.true_deg).all(axis=1)
    if good.all():
        return file
    row = int(np.argmin(good))
    name = file.sample_id[row].as_py()
    text = f"{int((~good).sum()):,} heads have a value that is no number, the first is {name!r}"
    findings.append(Finding("error", "not_a_number", text, "predict every head, or leave its row out: coverage falls"))
    return _take(file, np.flatnonzero(good))


def _own_split(file: Predictions, manifest: str | Path | None) -> list[str] | None:
    """Return the heads of the one split that all predictions are of; None if there are none or several."""
    if manifest is None or Path(manifest).is_dir() or "split" not in header(manifest).schema.names:
        return None
    table = read(manifest, ["sample_id", "split"])
    splits = table.filter(pc.is_in(table.column("sample_id"), value_set=file.sample_id)).column("split").unique()
    if len(splits) != 1 or splits.null_count:
        return None
    return list(table.filter(pc.equal(table.column("split"), splits[0])).column("sample_id").to_pylist())


def _coverage(found: Paired, findings: list[Finding]) -> None:
    if found.missing:
        text = f"{found.missing:,} of {found.wanted:,} heads have no prediction, the first is {found.example_missing!r}"
        findings.append(Finding("warning", "missing", text, "predict every head of the manifest, or of the split"))
    if found.refused:
        text = f"{found.refused:,} predictions are for heads that the manifest refuses"
        findings.append(Finding("note", "refused", text, "leave them out"))


def _constant(predicted: Array, true: Array) -> list[Finding]:
    if len(true) < 3:
        return []
    if (in_degrees := radians(predicted, true)) is not None:  # radians look flat beside degrees
        predicted = in_degrees.corrected
    narrow = (predicted.std(axis=0) < 0.02 * true.std(axis=0)) & (true.std(axis=0) > 1.0)
    flat = [a for j, a in enumerate(ANGLES) if narrow[j] and np.ptp(predicted[:, j]) < 0.1 * np.ptp(true[:, j])]
    if not flat:
        return []
    values = ", ".join(f"{a} {predicted[:, ANGLES.index(a)].mean():.2f}" for a in flat)
    text = f"the output hardly changes from head to head: {values} throughout"
    return [
        Finding("error", "constant", text, "look for a collapsed or unloaded network, or one picture fed each time")
    ]


def _rows(predicted: Array, true: Array) -> list[Finding]:
    """Find predictions that belong to other rows: shifted by a few, or shuffled."""
    n = len(true)
    if n < 50:
        return []
    now = mean_error(predicted, true)
    for lag in (1, -1, 2, -2, 3, -3):
        shifted = np.roll(predicted, lag, axis=0)
        if (then := mean_error(shifted, true)) < 0.5 * now:
            text = f"predictions stand {abs(lag)} row{'s' * (abs(lag) > 1)} too {'early' if lag > 0 else 'late'}"
            return [Finding("error", "shifted", text, "pair ids and predictions from one loop", now, then)]
    wide = [j for j in range(3) if predicted[:, j].std() > 2.0 and true[:, j].std() > 2.0]
    related = [abs(float(np.corrcoef(predicted[:, j], true[:, j])[0, 1])) for j in wide]
    alike = float(np.abs(np.sort(predicted, axis=0) - np.sort(true, axis=0)).mean())
    if wide and max(related) < max(0.15, 4.0 / np.sqrt(n)) and alike < 0.4 * now:
        text = (
            f"predictions have the right distribution (it differs by {alike:.1f} degrees) and nothing to do with their "
            f"own heads (correlation {max(related):.2f} at most): ids are shuffled"
        )
        fix = "write ids in the order of the loader, and do not shuffle when predicting"
        return [Finding("error", "shuffled", text, fix, now, None)]
    return []


def _finding(e: Explanation) -> Finding:
    severity = "warning" if e.kind in _WARNINGS else "error"
    if e.kind == "full_turn" and e.before - e.after < 0.01 * e.after:
        severity = "note"
    return Finding(severity, e.kind, e.text, e.fix, e.before, e.after)


def _take(file: Predictions, rows: npt.NDArray[np.int64]) -> Predictions:
    rotation, true = file.predicted_rotation, file.true_deg
    return replace(
        file,
        sample_id=file.sample_id.take(pa.array(rows)),
        predicted_deg=file.predicted_deg[rows],
        predicted_rotation=None if rotation is None else rotation[rows],
        true_deg=None if true is None else true[rows],
        groups={name: g.take(pa.array(rows)) for name, g in file.groups.items()},
    )
