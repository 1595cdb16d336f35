"""The doctor: reads a prediction file that scores badly and says why, by how much, and what to change.

First the file (what `score` refuses: repeated ids, values that are no numbers, matrices that are no rotations; then
unknown ids and heads without a prediction), then the truth (in radians), then the output as a whole (constant,
shuffled), then the hypotheses of `ubhpd.evaluation.hypotheses`, and last what concerns single heads (full turns, angles
folded by 180 degrees, quantised outputs). `score` runs the same examination and prints its findings beside the scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc

from ubhpd.core.bins import ANGLES
from ubhpd.core.rotation import matrix_from_euler, wrap_deg
from ubhpd.core.typing import FloatArray, IntArray
from ubhpd.evaluation import hypotheses, predictions
from ubhpd.evaluation.hypotheses import Explained
from ubhpd.evaluation.mistakes import LEAST_HEADS, Pose, Step, Truth, geodesic, mean_error, nearer_triplet, pose_of
from ubhpd.evaluation.pairing import Paired, Source, pair, places, truth_table
from ubhpd.evaluation.predictions import Predictions, Problem, quoted
from ubhpd.manifest import header, read
from ubhpd.manifest.schema import row_numbers
from ubhpd.metrics.aligned import nearest_rotation

SEVERITIES = ("error", "warning", "note")
LARGEST = 100_000  # heads examined; more are thinned evenly
HALF_BIN_DEG = 1.5  # half of Hopenet's 3-degree bins
UNEXPLAINED, LEFT_OVER = 0.75, 0.5  # of the error of the mean-pose baseline
_WARNINGS = ("offset", "offset_by_dataset", "full_turn", "bin_edge", "quantised", "unexplained")


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
    truth: str = ""

    @property
    def exit_code(self) -> int:
        """1 if there is an error or a warning, else 0."""
        return int(any(f.severity in ("error", "warning") for f in self.findings))

    def as_dict(self) -> dict[str, Any]:
        """Return the diagnosis as plain values."""
        return {**vars(self), "findings": [f._asdict() for f in self.findings], "exit_code": self.exit_code}


def diagnose(path: str | Path | Predictions, manifest: str | Path | None = None, last_build: bool = False) -> Diagnosis:
    """Return the diagnosis of a prediction file or of predictions in memory; the truth is found as for `score`.

    Raises:
        UbhpdError: the file cannot be read at all, or there is no truth.
    """
    file = predictions.given(path, strict=False)
    path = file.path
    source = Source.of(file, manifest, last_build)
    findings: list[Finding] = []
    for problem in predictions.problems(file):
        findings.append(Finding("error", problem.kind, problem.text, problem.fix))
    file = _known_ids(file, source, findings)
    file = _without(file)
    if not len(file):
        return _diagnosis(path, 0, findings, None, None, source.text)
    paired = pair(file, source.manifest, _own_split(file, source.manifest))
    if any(f.kind == "not_a_rotation" and "mirrored" in f.text for f in findings):
        paired = _mirrored(paired, findings)
    findings += coverage_findings(paired)
    found = examine_pairs(paired, findings)
    return replace(found, path=path, truth=source.text)


def examine_pairs(paired: Paired, findings: list[Finding] | None = None, most: int = LARGEST) -> Diagnosis:
    """Return the diagnosis of predictions with their truth, in the order of the file; `most`: heads examined."""
    findings = [] if findings is None else findings
    thin = np.unique(np.linspace(0, len(paired.sample_id) - 1, min(len(paired.sample_id), most)).astype(np.int64))
    pairs = paired.pairs.take(thin)
    known = np.flatnonzero(np.isfinite(pairs.true_deg).all(axis=1))
    if not len(known):
        return _diagnosis("", 0, findings, None, None, "")
    pairs = pairs.take(known)
    ids = paired.sample_id.take(row_numbers(thin[known])).to_pylist()
    rotation = pairs.predicted_rotation
    return examine(pairs.predicted_deg, pairs.true_deg, findings, ids, rotation, pairs.true_rotation)


def examine(
    predicted: FloatArray,
    true: FloatArray,
    findings: list[Finding] | None = None,
    ids: Sequence[str] | None = None,
    predicted_rotation: FloatArray | None = None,
    true_rotation: FloatArray | None = None,
) -> Diagnosis:
    """Return the diagnosis of finite predictions in the order of the file.

    Args:
        predicted: angles (n, 3) in degrees.
        true: angles (n, 3) in degrees.
        findings: what is known already.
        ids: names of the heads, for datasets and other orders of the rows.
        predicted_rotation: rotations (n, 3, 3) if the file gives rotations: these are then examined.
        true_rotation: rotations (n, 3, 3) of the truth, if known.
    """
    findings = [] if findings is None else findings
    pose = pose_of(predicted, predicted_rotation, _datasets(ids))
    truth = Truth(true, matrix_from_euler(true) if true_rotation is None else true_rotation)
    before = mean_error(pose, true)
    if in_radians(true):
        true = np.degrees(true)
        truth = Truth(true, matrix_from_euler(true))
        findings.append(_true_radians(pose, before, true))
    constant = _constant(pose, true)
    if constant:
        return _diagnosis("", len(true), findings + constant, before, before)
    explained = hypotheses.explain(pose, truth, ids)
    explained = _half_bin(explained, pose, truth)
    error = mean_error(pose, true)
    for step, after in zip(explained.steps, explained.poses, strict=True):
        left = mean_error(after, true)
        findings.append(_finding(step, error, left, explained))
        error = left
    corrected = explained.poses[-1] if explained.steps else pose
    corrected, more = _single_heads(pose, corrected, truth)
    findings += more
    if not more and not explained.steps:
        findings += _shuffled(pose, truth)
    findings += _quantised(corrected)
    findings += _unexplained(pose, corrected, truth, explained, findings)
    return _diagnosis("", len(true), findings, before, mean_error(corrected, true))


def in_radians(true: FloatArray) -> bool:
    """True if true angles (n, 3) must be radians.

    No set of heads spreads less than 2 degrees in all three angles and has none beyond 2 pi.
    """
    n = len(true)
    return n >= LEAST_HEADS and bool(np.abs(true).max() <= 6.3 and (true.std(axis=0) < 2.0).all()
                                                and true.std(axis=0).max() > 0.01)  # fmt: skip


def _true_radians(pose: Pose, before: float, true: FloatArray) -> Finding:
    text = f"the true angles are in radians (the largest is {np.abs(np.radians(true)).max():.2f})"
    after = mean_error(pose, true)
    known = (before, after) if after < before else (None, None)  # the error in wrong units may be the smaller number
    return Finding("error", "truth_in_radians", text, "multiply the true angles by 180/pi", *known)


def _diagnosis(
    path: str, heads: int, findings: list[Finding], error: float | None, corrected: float | None, truth: str = ""
) -> Diagnosis:
    ordered = tuple(sorted(findings, key=lambda f: SEVERITIES.index(f.severity)))
    return Diagnosis(path, heads, ordered, error, corrected, truth)


def _datasets(ids: Sequence[str] | None) -> IntArray | None:
    """Return a code (n,) for the first folder of each id; None without ids."""
    if ids is None:
        return None
    names = [name.partition("/")[0] if "/" in name else "" for name in ids]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def _without(file: Predictions) -> Predictions:
    """Return the file without the rows that `score` refuses, matrices replaced by the nearest rotations."""
    found: list[Problem] = predictions.problems(file)
    rotation = file.predicted_rotation
    drop = np.zeros(len(file), dtype=bool)
    for problem in found:
        if problem.kind != "not_a_rotation":
            drop[problem.rows] = True
        elif rotation is not None:
            usable = problem.rows[np.abs(np.linalg.det(np.nan_to_num(rotation[problem.rows]))) > 1e-9]
            drop[np.setdiff1d(problem.rows, usable)] = True
            rotation = rotation.copy()
            rotation[usable] = [_nearest(m) for m in rotation[usable]]
    return _take(replace(file, predicted_rotation=rotation), np.flatnonzero(~drop))


def _nearest(matrix: FloatArray) -> FloatArray:
    """Return the rotation nearest to a matrix (3, 3), whose first axis is turned round if it is mirrored."""
    if np.linalg.det(matrix) < 0.0:
        matrix = matrix * np.array([[-1.0], [1.0], [1.0]])
    return nearest_rotation(matrix)


def _mirrored(paired: Paired, findings: list[Finding]) -> Paired:
    """Name the mirrored axis: the one whose sign, or whose exchange, brings the matrices nearest to the truth."""
    pairs = paired.pairs
    rotation = pairs.predicted_rotation
    if rotation is None:
        return paired
    truth = Truth(pairs.true_deg, matrix_from_euler(pairs.true_deg))
    matrices = rotation * np.array([[-1.0], [1.0], [1.0]])  # as they stand in the file, see _nearest
    eye = np.eye(3)
    tried: list[tuple[float, str, FloatArray]] = []
    for k in range(3):
        sign = np.diag(1.0 - 2.0 * eye[k])
        swap = np.eye(3)[[i for i in (0, 1, 2) if i != k][::-1]]
        swap = np.insert(swap, k, eye[k], axis=0)
        for word, m in (("multiply {} by -1", sign), ("exchange the two {}s other than {}", swap)):
            for axis, moved in (("row", m @ matrices), ("column", matrices @ m)):
                text = word.format(f"{axis} {k + 1} of the matrix") if "-1" in word else word.format(axis, k + 1)
                tried.append((float(geodesic(pose_of(None, moved), truth).mean()), text, moved))
    tried.append((float(geodesic(pose_of(None, -matrices), truth).mean()), "multiply the matrix by -1", -matrices))
    _, text, moved = min(tried, key=lambda t: t[0])
    at = next(i for i, f in enumerate(findings) if f.kind == "not_a_rotation")
    findings[at] = findings[at]._replace(fix=text)
    return replace(paired, pairs=pairs._replace(predicted_rotation=moved))


def _known_ids(file: Predictions, source: Source, findings: list[Finding]) -> Predictions:
    if source.manifest is None:
        return file
    table, _ = truth_table(Path(source.manifest), whole=True)
    ids = table.column("sample_id").combine_chunks()
    known = places(file.sample_id, ids).is_valid().to_numpy(zero_copy_only=False)
    if known.all():
        return file
    row = int(np.argmin(known))
    example = f"; the manifest has ids like {quoted(ids[0].as_py())}" if len(ids) else ""
    text = (
        f"{int((~known).sum()):,} of {len(file):,} ids are not in the manifest, the first in row {row + 1}: "
        f"{quoted(file.sample_id[row].as_py())}{example}"
    )
    findings.append(Finding("error", "unknown_ids", text, "write the sample_id of the manifest, or give its manifest"))
    return _take(file, np.flatnonzero(known))


def _own_split(file: Predictions, manifest: str | Path | None) -> list[str] | None:
    """Return the heads of the one split that all predictions are of; None if there are none or several."""
    if manifest is None or Path(manifest).is_dir() or "split" not in header(manifest).schema.names:
        return None
    table = read(manifest, ["sample_id", "split"])
    splits = table.filter(pc.is_in(table.column("sample_id"), value_set=file.sample_id)).column("split").unique()
    if len(splits) != 1 or splits.null_count:
        return None
    return list(table.filter(pc.equal(table.column("split"), splits[0])).column("sample_id").to_pylist())


def coverage_findings(paired: Paired) -> list[Finding]:
    """Return what there is to say of heads without a prediction, and of predictions for heads that do not count."""
    findings = []
    if paired.missing:
        first = quoted(paired.example_missing)
        text = f"{paired.missing:,} of {paired.wanted:,} heads have no prediction, the first is {first}"
        findings.append(Finding("warning", "missing", text, "predict every head of the manifest, or of the split"))
    if paired.refused:
        text = f"{paired.refused:,} predictions are for heads that the manifest refuses or the protocol leaves out"
        findings.append(Finding("note", "refused", text, "leave them out"))
    return findings


def _constant(pose: Pose, true: FloatArray) -> list[Finding]:
    """Find angles that hardly change from head to head, and do not follow the truth as a small unit would."""
    if len(true) < 3 or pose.angles is None:
        return []
    predicted = pose.angles
    spread, wide = predicted.std(axis=0), true.std(axis=0)
    flat = []
    for j, angle in enumerate(ANGLES):
        if not (spread[j] < 0.02 * wide[j] and wide[j] > 1.0 and np.ptp(predicted[:, j]) < 0.1 * np.ptp(true[:, j])):
            continue
        related = [abs(float(np.corrcoef(predicted[:, j], true[:, k])[0, 1])) for k in range(3) if spread[j] > 1e-9]
        if not related or max(related) < max(0.3, 4.0 / np.sqrt(len(true))):
            flat.append(angle)
    if not flat:
        return []
    values = ", ".join(f"{a} {predicted[:, ANGLES.index(a)].mean():.2f}" for a in flat)
    text = f"the output hardly changes from head to head: {values} throughout"
    return [Finding("error", "constant", text, "look for a collapsed or unloaded network, or one image fed each time")]


def _half_bin(explained: Explained, pose: Pose, truth: Truth) -> Explained:
    """Every angle 1.5 degrees too low: bins of 3 degrees decoded at their left edge instead of their centre."""
    steps, poses = list(explained.steps), list(explained.poses)
    if steps and steps[-1].kind == "offset":
        steps, poses = steps[:-1], poses[:-1]
    start = poses[-1] if poses else pose
    if start.angles is None or len(truth.angles) < LEAST_HEADS:
        return explained
    bias = np.median(wrap_deg(start.angles - truth.angles), axis=0)
    sign = -1.0 if bias.mean() < 0 else 1.0
    away = np.abs(bias - sign * HALF_BIN_DEG)
    if abs(bias.mean() - sign * HALF_BIN_DEG) > 0.35 or away.max() > 0.9:  # a model has a bias of its own, too
        return explained
    after = start.with_angles(start.angles - sign * HALF_BIN_DEG)
    before_e, after_e = geodesic(start, truth), geodesic(after, truth)
    if not hypotheses.certain(before_e, after_e, 0.01):
        return explained
    if len(explained.steps) > len(steps) and geodesic(explained.poses[-1], truth).mean() < 0.93 * after_e.mean():
        return explained  # a constant rotation explains clearly more
    where = "left edge" if sign < 0 else "right edge"
    text = f"all three angles are off by {sign * HALF_BIN_DEG:+.1f} degrees: 3-degree bins decoded at their {where}"
    fix = f"add {-sign * HALF_BIN_DEG:+.1f} degrees to every angle, or decode bins at their centres (3 i - 97.5)"
    step = Step("bin_edge", text, fix, 1, lambda p: p)
    return Explained((*steps, step), (*poses, after), ())


def _single_heads(pose: Pose, corrected: Pose, truth: Truth) -> tuple[Pose, list[Finding]]:
    """Find heads whose angles are a full turn off, the other triplet of their rotation, or folded by 180 degrees."""
    findings: list[Finding] = []
    if corrected.angles is None and pose.angles is None:
        return corrected, findings
    start = corrected.triplet() if corrected.angles is None else corrected.angles
    true = truth.angles
    if corrected.angles is not None:
        plain, circle = np.abs(start - true), np.abs(wrap_deg(start - true))
        turn = plain - circle > 1.0
        if turn.any():
            before, after = float(plain.mean()), float(np.where(turn, circle, plain).mean())
            heads = int(turn.any(axis=1).sum())
            text = f"{heads:,} heads have an angle a full turn off, which the plain MAE counts in full"
            severity = "note" if before - after < 0.01 * after else "warning"
            fix = "bring the angles into -180 to 180 degrees"
            findings.append(Finding(severity, "full_turn", text, fix, before, after))
        nearer = nearer_triplet(start, true)
        other = (nearer != start).any(axis=1) & (geodesic(corrected, truth) < 60.0)
        if other.sum() >= 3 and other.mean() > 0.002:
            before = float(circle.mean())
            after = float(np.abs(wrap_deg(np.where(other[:, None], nearer, start) - true)).mean())
            heads = int(other.sum())
            text = f"{heads:,} heads have the other triplet of the same rotation, which the MAE counts as an error"
            fix = "judge heads turned beyond 90 degrees by the geodesic error: Euler angles are not unique there"
            findings.append(Finding("note", "other_triplet", text, fix, before, after))
            start = np.where(other[:, None], nearer, start)
            corrected = corrected._replace(angles=start)
    if folded := _folded(corrected, start, truth):
        corrected, finding = folded
        findings.append(finding)
    return corrected, findings


def _folded(corrected: Pose, start: FloatArray, truth: Truth) -> tuple[Pose, Finding] | None:
    """Angles 180 degrees off, and otherwise as good as the others: folded by somebody's evaluation code."""
    errors = np.abs(wrap_deg(start - truth.angles))
    e = geodesic(corrected, truth)
    wrong = (errors >= 90.0) & (e >= 90.0)[:, None]
    near, far = errors[errors < 90.0], np.abs(180.0 - errors)[wrong]
    if len(far) < 3 or len(far) < 0.002 * errors.size or len(far) > 0.4 * errors.size:
        return None
    if np.median(near) > 25.0 or np.median(far) > 2.0 * np.median(near) + 1.0:
        return None
    undone = np.where(wrong, truth.angles + wrap_deg(start + 180.0 - truth.angles), start)
    after = corrected.with_angles(undone)
    if not hypotheses.certain(e, geodesic(after, truth), 0.01):
        return None
    text = f"{len(far):,} angles are 180 degrees off (median {np.median(far):.1f} degrees from the opposite)"
    fix = "do not fold angles by 180 degrees; predict the full circle, or leave those heads out by name"
    before = mean_error(corrected, truth.angles)
    return after, Finding("error", "folded", text, fix, before, mean_error(after, truth.angles))


def _shuffled(pose: Pose, truth: Truth) -> list[Finding]:
    """Find predictions that have nothing to do with their own heads, and the distribution of the truth."""
    predicted, true = pose.triplet(), truth.angles
    n = len(true)
    if n < 50:
        return []
    now = mean_error(pose, true)
    wide = [j for j in range(3) if predicted[:, j].std() > 2.0 and true[:, j].std() > 2.0]
    related = [abs(float(np.corrcoef(predicted[:, j], true[:, k])[0, 1])) for j in wide for k in range(3)]
    alike = float(np.abs(np.sort(predicted, axis=0) - np.sort(true, axis=0)).mean())
    if not wide or max(related) >= max(0.2, 4.5 / np.sqrt(n)) or alike >= 0.4 * now:
        return []
    text = (
        f"predictions have the right distribution (it differs by {alike:.1f} degrees) and nothing to do with their "
        f"own heads (correlation {max(related):.2f} at most): ids are shuffled"
    )
    return [Finding("error", "shuffled", text, "write ids in the order of the loader, and do not shuffle when "
                    "predicting", now, None)]  # fmt: skip


def _quantised(pose: Pose) -> list[Finding]:
    """Find outputs that take few values: the class of a bin instead of the expectation over bins."""
    if pose.angles is None or len(pose.angles) < 50:
        return []
    steps = [_grid(pose.angles[:, j]) for j in range(3)]
    if max(steps) < 0.9:
        return []
    values = ", ".join(f"{a} {s:g}" for a, s in zip(ANGLES, steps, strict=True) if s >= 0.9)
    lost = float(np.mean([s / 4.0 for s in steps]))
    text = f"outputs are quantised, in steps of {values} degrees, which alone is an error of {lost:.1f} degrees"
    fix = "write the expectation over the bins instead of the most likely bin, and do not round"
    return [Finding("warning" if max(steps) > 2.0 else "note", "quantised", text, fix)]


def _grid(values: FloatArray) -> float:
    """Return the step of an equidistant grid that holds all values and is filled several times over; else 0."""
    levels = np.unique(np.round(values, 4))
    if len(levels) < 3 or len(levels) > len(values) / 3:
        return 0.0
    gaps = np.diff(levels)
    step = float(gaps.min())
    rest = np.abs(gaps / step - np.rint(gaps / step))
    return step if step > 0.01 and float(rest.max()) < 0.02 else 0.0


def _unexplained(
    pose: Pose, corrected: Pose, truth: Truth, explained: Explained, findings: list[Finding]
) -> list[Finding]:
    """Say so where much of the error is left."""
    if len(truth.angles) < LEAST_HEADS or any(f.kind in ("shuffled", "constant") for f in findings):
        return []
    before, left = float(geodesic(pose, truth).mean()), float(geodesic(corrected, truth).mean())
    baseline = hypotheses.spread(truth)
    if left <= (LEFT_OVER if explained.steps else UNEXPLAINED) * baseline or baseline < 2.0:
        return []
    text = (
        f"unexplained: {left:.1f} of {before:.1f} degrees of geodesic error (the mean pose for every head gives "
        f"{baseline:.1f})"
    )
    fix = "no hypothesis explains this error: look at single heads (score --html), and at the crops and the model"
    return [Finding("warning", "unexplained", text, fix)]


def _finding(step: Step, before: float, after: float, explained: Explained) -> Finding:
    text = step.text
    if step is explained.steps[-1] and explained.alternatives:
        text += f"; these data do not tell it apart from: {'; or '.join(explained.alternatives)}"
    return Finding("warning" if step.kind in _WARNINGS else "error", step.kind, text, step.fix, before, after)


def _take(file: Predictions, rows: IntArray) -> Predictions:
    rotation, true = file.predicted_rotation, file.true_deg
    return replace(
        file,
        sample_id=file.sample_id.take(row_numbers(rows)),
        predicted_deg=file.predicted_deg[rows],
        predicted_rotation=None if rotation is None else rotation[rows],
        true_deg=None if true is None else true[rows],
        groups={name: g.take(row_numbers(rows)) for name, g in file.groups.items()},
    )
