"""What may be wrong with a set of predicted angles: each hypothesis is tried, measured and, if it explains, named.

The measure is the mean error of yaw, pitch and roll on the circle, in degrees. A hypothesis is believed if undoing
it lowers that error by a share of its own and by far more than chance (5 standard errors), and the simplest of
those that explain about equally well is taken. Rows are pairs, so nothing here needs ids.

The doctor: reads a prediction file that scores badly and says why, by how much, and what to change.

First the file (ids twice, ids unknown, heads without a prediction, values that are no numbers), then the output as a
whole (constant, shuffled, shifted by rows), then the hypotheses on unit, columns, signs and rotations.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd.core.bins import ANGLES
from ubhpd.core.rotation import (
    Convention,
    euler_from_matrix,
    geodesic_deg,
    matrix_from_angles,
    matrix_from_euler,
    wrap_deg,
)
from ubhpd.core.typing import FloatArray, IntArray
from ubhpd.evaluation import pairing, predictions
from ubhpd.evaluation.pairing import Paired, pair, truth_table
from ubhpd.evaluation.predictions import Predictions, first_repeat
from ubhpd.manifest import header, read
from ubhpd.metrics.aligned import nearest_rotation

SCREENED = 2_000  # heads on which every candidate is tried; the best is measured on all
STANDARD_ERRORS = 5.0
HALF_BIN_DEG = 1.5  # half of Hopenet's 3-degree bins
_PER_CHANGE = 0.03  # a further change must explain at least this share more
_SHARE = {"axes": 0.15, "transposed": 0.15, "euler_order": 0.15, "offset": 0.10, "bin_edge": 0.01, "folded": 0.01}


class Explanation(NamedTuple):
    """One believed hypothesis: its kind, what it says, how to undo it, the error before and after, the angles after."""

    kind: str
    text: str
    fix: str
    before: float
    after: float
    corrected: FloatArray


class _Candidate(NamedTuple):
    kind: str
    text: str
    fix: str
    changes: int
    undo: Callable[[FloatArray], FloatArray]


def mean_error(predicted: FloatArray, true: FloatArray) -> float:
    """Return the mean error on the circle over all angles, degrees."""
    return float(_errors(predicted, true).mean())


def explain(predicted: FloatArray, true: FloatArray) -> list[Explanation]:
    """Return what explains the errors of angles (n, 3) in degrees, each step on top of the one before."""
    found: list[Explanation] = []
    for step in (radians, wrapped, axes_or_order, folded, half_bin, offset):
        explanation = step(predicted, true)
        if explanation is not None:
            found.append(explanation)
            predicted = explanation.corrected
    return found


def radians(predicted: FloatArray, true: FloatArray) -> Explanation | None:
    """Predictions in radians: by their spread alone, so that a wrong order or sign does not hide it."""
    spread, wanted = _spread(predicted), _spread(true)
    if np.abs(predicted).max() > 2 * np.pi + 0.1 or wanted < 3.0 or not 0.3 < np.degrees(spread) / wanted < 3.0:
        return None
    corrected = np.degrees(predicted)
    text = f"predictions are in radians (the largest is {np.abs(predicted).max():.2f})"
    fix = "multiply the predicted angles by 180/pi"
    return Explanation("radians", text, fix, mean_error(predicted, true), mean_error(corrected, true), corrected)


def wrapped(predicted: FloatArray, true: FloatArray) -> Explanation | None:
    """Angles a full turn off, as 350 for -10: free on the circle, dear in the plain MAE."""
    turn = np.abs(predicted - true) - _errors(predicted, true) > 1.0
    if not turn.any():
        return None
    corrected = np.where(turn, true + wrap_deg(predicted - true), predicted)
    before, after = float(np.abs(predicted - true).mean()), float(np.abs(corrected - true).mean())
    text = f"{int(turn.any(axis=1).sum()):,} heads have an angle a full turn off, which the plain MAE counts in full"
    return Explanation("full_turn", text, "bring the angles into -180 to 180 degrees", before, after, corrected)


def axes_or_order(predicted: FloatArray, true: FloatArray) -> Explanation | None:
    """Columns exchanged, signs flipped, a transposed rotation, or another order of the three rotations."""
    some = _some(len(true))
    p, t = predicted[some], true[some]
    best: _Candidate | None = None
    least = mean_error(p, t)
    for candidate in _candidates():
        value = mean_error(candidate.undo(p), t) * (1.0 + _PER_CHANGE * candidate.changes)
        if value < least:
            best, least = candidate, value
    if best is None:
        return None
    return _believed(best.kind, best.text, best.fix, predicted, best.undo(predicted), true)


def folded(predicted: FloatArray, true: FloatArray) -> Explanation | None:
    """Angles 180 degrees off, and otherwise as good as the others: folded by somebody's evaluation code."""
    errors = _errors(predicted, true)
    turned = np.abs(180.0 - errors)
    near, far = errors[errors < 90.0], turned[errors >= 90.0]
    if len(far) < 3 or len(far) < 0.002 * errors.size or np.median(far) > 2.0 * np.median(near) + 1.0:
        return None
    corrected = np.where(errors >= 90.0, true + wrap_deg(predicted + 180.0 - true), predicted)
    text = f"{len(far):,} angles are 180 degrees off (median {np.median(far):.1f} degrees from the opposite)"
    fix = "do not fold angles by 180 degrees; predict the full circle, or leave those heads out by name"
    return _believed("folded", text, fix, predicted, corrected, true)


def half_bin(predicted: FloatArray, true: FloatArray) -> Explanation | None:
    """Every angle 1.5 degrees too low: bins of 3 degrees decoded at their left edge instead of their centre."""
    bias = np.median(wrap_deg(predicted - true), axis=0)
    sign = -1.0 if bias.mean() < 0 else 1.0
    away = np.abs(bias - sign * HALF_BIN_DEG)
    if abs(bias.mean() - sign * HALF_BIN_DEG) > 0.35 or away.max() > 0.9:  # a model has a bias of its own, too
        return None
    where = "left edge" if sign < 0 else "right edge"
    text = f"all three angles are off by {sign * HALF_BIN_DEG:+.1f} degrees: 3-degree bins decoded at their {where}"
    fix = f"add {-sign * HALF_BIN_DEG:+.1f} degrees to every angle, or decode bins at their centres (3 i - 97.5)"
    return _believed("bin_edge", text, fix, predicted, predicted - sign * HALF_BIN_DEG, true)


def offset(predicted: FloatArray, true: FloatArray) -> Explanation | None:
    """A constant rotation between the two frames: of the head (which head is frontal), or of the camera."""
    p, t = matrix_from_euler(predicted), matrix_from_euler(true)
    p_inverse = np.swapaxes(p, 1, 2)
    head = nearest_rotation((p_inverse @ t).sum(axis=0))
    camera = nearest_rotation((t @ p_inverse).sum(axis=0))
    moved = {"head": p @ head, "camera": camera @ p}
    errors = {name: geodesic_deg(m, t) for name, m in moved.items()}
    frame = min(errors, key=lambda name: float(errors[name].mean()))
    before = geodesic_deg(p, t)
    rotation = {"head": head, "camera": camera}[frame]
    if not _certain(before, errors[frame], _SHARE["offset"]):
        return None
    angles = ", ".join(f"{a} {v:+.1f}" for a, v in zip(ANGLES, euler_from_matrix(rotation), strict=True))
    side = "R O" if frame == "head" else "O R"
    text = f"a constant rotation of {float(geodesic_deg(rotation, np.eye(3))):.1f} degrees in the {frame}'s frame"
    fix = f"replace every rotation R by {side}, O being {angles}; or report geodesic_aligned"
    corrected = true + wrap_deg(euler_from_matrix(moved[frame]) - true)
    return Explanation("offset", text, fix, float(before.mean()), float(errors[frame].mean()), corrected)


def _candidates() -> Iterator[_Candidate]:
    """Yield every change of columns, signs, order and side of the rotation, simple ones first."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            if order == (0, 1, 2) and signs == (1.0, 1.0, 1.0):
                continue
            yield _axes(order, signs)
    yield _Candidate("transposed", "rotations are transposed (camera to head instead of head to camera)",
                     "transpose the predicted rotation matrix", 1, _transpose)  # fmt: skip
    for axes in ("XZY", "YXZ", "YZX", "ZXY", "ZYX"):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            yield _order(axes, signs)


def _axes(order: tuple[int, ...], signs: tuple[float, ...]) -> _Candidate:
    moved = order != (0, 1, 2)
    flipped = [ANGLES[j] for j in range(3) if signs[j] < 0]
    said, fixes = [], []
    if moved:
        said.append("the columns yaw,pitch,roll hold " + ",".join(ANGLES[order.index(k)] for k in range(3)))
        fixes.append("rename the columns to " + ",".join(ANGLES[order.index(k)] for k in range(3)))
    if flipped:
        note = " (AFLW counts roll the other way)" if flipped == ["roll"] else ""
        said.append(f"the sign of {' and '.join(flipped)} is flipped{note}")
        fixes.append(f"negate {' and '.join(flipped)}")
    factors = np.array(signs)

    def undo(angles: FloatArray) -> FloatArray:
        moved: FloatArray = angles[:, order] * factors
        return moved

    kind = "column_order" if moved else "sign"
    return _Candidate(kind, ", and ".join(said), ", then ".join(fixes), 2 * moved + len(flipped), undo)


def _order(axes: str, signs: tuple[float, ...]) -> _Candidate:
    """Angles of R = product of the rotations about `axes`, each canonical sign times that of yaw, pitch, roll."""
    yaw, pitch, roll = (-int(s) for s in signs)
    convention = Convention("tried", ANGLES, "deg", axes, pitch, yaw, roll)  # type: ignore[arg-type]
    flipped = [a for a, s in zip(ANGLES, signs, strict=True) if s < 0]
    name = f"Euler order {axes} instead of XYZ" + (f", {' and '.join(flipped)} negated" if flipped else "")
    if axes == "YXZ" and flipped == ["roll"]:
        name = "angles are in AFLW's convention (order YXZ, roll the other way)"

    def undo(angles: FloatArray) -> FloatArray:
        return euler_from_matrix(matrix_from_angles(angles, convention))

    fix = f"rebuild the rotation in the order {axes} and read the angles off it in the order XYZ"
    return _Candidate("euler_order", name, fix, 1 + len(flipped), undo)


def _transpose(angles: FloatArray) -> FloatArray:
    transposed: FloatArray = np.swapaxes(matrix_from_euler(angles), -1, -2)
    return euler_from_matrix(transposed)


def _believed(
    kind: str, text: str, fix: str, predicted: FloatArray, corrected: FloatArray, true: FloatArray
) -> Explanation | None:
    before, after = _errors(predicted, true).mean(axis=1), _errors(corrected, true).mean(axis=1)
    if not _certain(before, after, _SHARE.get(kind, _SHARE["axes"])):
        return None
    return Explanation(kind, text, fix, float(before.mean()), float(after.mean()), corrected)


def _certain(before: FloatArray, after: FloatArray, share: float) -> bool:
    """True if the mean falls by `share` of itself and by 5 standard errors of the paired difference."""
    gain = before - after
    mean = float(gain.mean())
    spread = float(gain.std()) / np.sqrt(len(gain))
    return mean > share * float(before.mean()) and mean > STANDARD_ERRORS * spread


def _errors(predicted: FloatArray, true: FloatArray) -> FloatArray:
    errors: FloatArray = np.abs(wrap_deg(predicted - true))
    return errors


def _spread(angles: FloatArray) -> float:
    return float(np.sqrt(np.mean((angles - np.median(angles, axis=0)) ** 2)))


def _some(n: int) -> IntArray:
    return np.unique(np.linspace(0, n - 1, min(n, SCREENED)).astype(np.int64))


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


def diagnose(path: str | Path | Predictions, manifest: str | Path | None = None) -> Diagnosis:
    """Return the diagnosis of a prediction file against a manifest, its own truth columns, or the last build.

    Raises:
        UbhpdError: the file cannot be read at all, or there is no truth.
    """
    file = predictions.given(path, strict=False)
    path = file.path
    findings: list[Finding] = []
    if manifest is None and file.true_deg is None:
        manifest = pairing.recall()
    file = _known_ids(file, manifest, findings)
    file = _each_id_once(file, findings)
    file = _finite(file, findings)
    if not len(file):
        return _diagnosis(path, 0, findings, None, None)
    found = pair(file, manifest, _own_split(file, manifest))
    _coverage(found, findings)
    thin = np.unique(np.linspace(0, len(found.sample_id) - 1, LARGEST).astype(np.int64))
    predicted, true = found.pairs.predicted_deg[thin], found.pairs.true_deg[thin]
    known = np.isfinite(true).all(axis=1)
    predicted, true = predicted[known], true[known]
    if not len(true):
        return _diagnosis(path, 0, findings, None, None)
    return examine(predicted, true, path, findings)


def examine(
    predicted: FloatArray, true: FloatArray, path: str = "", findings: list[Finding] | None = None
) -> Diagnosis:
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


def _constant(predicted: FloatArray, true: FloatArray) -> list[Finding]:
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
    return [Finding("error", "constant", text, "look for a collapsed or unloaded network, or one image fed each time")]


def _rows(predicted: FloatArray, true: FloatArray) -> list[Finding]:
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


def _take(file: Predictions, rows: IntArray) -> Predictions:
    rotation, true = file.predicted_rotation, file.true_deg
    return replace(
        file,
        sample_id=file.sample_id.take(pa.array(rows)),
        predicted_deg=file.predicted_deg[rows],
        predicted_rotation=None if rotation is None else rotation[rows],
        true_deg=None if true is None else true[rows],
        groups={name: g.take(pa.array(rows)) for name, g in file.groups.items()},
    )
