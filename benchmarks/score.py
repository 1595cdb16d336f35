"""Times scoring against reading the file, a loop over rows, and resampling by rows, in one run, on generated data.

    python benchmarks/score.py [--rows 1000000] [--rounds 5] [--out docs/benchmarks/score.md]

* read: `pyarrow.csv.read_csv` of the same file and nothing else.
* score: `ubhpd.evaluation.predictions.read` with its checks, and every metric without intervals.
* loops over rows: `csv.DictReader` and the metrics of one head after the other, once with numpy as the evaluation
  scripts of the field do it, once with `math` alone; timed on fewer rows and scaled, since they are linear.
* resampling: 1,000 resamples of 100,000 heads, against drawing rows and recomputing all metrics with the same fast
  code (timed on fewer resamples and scaled).

Rounds are interleaved; a figure is the median, with the least and the largest.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from machine import describe_machine

from ubhpd.core.rotation import matrix_from_euler
from ubhpd.evaluation import predictions
from ubhpd.evaluation.intervals import BootstrapOptions, intervals
from ubhpd.evaluation.pairing import known, pair
from ubhpd.evaluation.scoring import Pairs, ScoreOptions, score
from ubhpd.metrics.aligned import nearest_rotation

SOURCE = known()["300W-LP"].counts
ANGLES = ("yaw", "pitch", "roll")


def write_file(path: Path, rows: int, shuffled: bool = False) -> None:
    """Write a prediction file with its truth, ids as a build makes them."""
    rng = np.random.default_rng(0)
    true = np.clip(rng.normal(size=(3, rows)) * np.array([[40.0], [20.0], [15.0]]), -95, 95)
    predicted = true + 5.0 * rng.normal(size=true.shape)
    order = rng.permutation(rows) if shuffled else np.arange(rows)
    ids = [f"biwi/{i // 1000:03d}/frame_{i:07d}" for i in order]
    columns = {a: predicted[j] for j, a in enumerate(ANGLES)} | {f"{a}_true": true[j] for j, a in enumerate(ANGLES)}
    pacsv.write_csv(pa.table({"sample_id": ids, **columns}), path)


def score_file(path: Path) -> dict[str, float]:
    """Do what `ubhpd score` does, without printing."""
    return score(pair(predictions.read(path)).pairs, source_counts=SOURCE).scores


def loop_numpy(path: Path, rows: int) -> dict[str, float]:
    """Score head by head with numpy."""
    return _loop(path, rows, _rotation_numpy, _rotation_errors_numpy, _aligned_numpy)


def loop_math(path: Path, rows: int) -> dict[str, float]:
    """Score head by head with plain Python numbers."""
    return _loop(path, rows, _rotation_math, _rotation_errors_math, _aligned_math)


def _loop(
    path: Path, rows: int, rotation: Callable[..., Any], errors: Callable[..., Any], aligned: Callable[..., float]
) -> dict[str, float]:
    total, wrapped = [0.0] * 3, [0.0] * 3
    geodesic = axes = 0.0
    bins: dict[tuple[int, int], list[float]] = {}
    rings: dict[int, list[float]] = {}
    turns = []
    n = 0
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if n == rows:
                break
            n += 1
            predicted = [float(row[a]) for a in ANGLES]
            true = [float(row[f"{a}_true"]) for a in ANGLES]
            for j in range(3):
                error = abs(predicted[j] - true[j])
                total[j] += error
                wrapped[j] += abs((error + 180.0) % 360.0 - 180.0)
                if -90.0 <= true[j] <= 90.0:
                    place = bins.setdefault((j, min(int((true[j] + 90.0) // 12.0), 14)), [0, 0.0])
                    place[0] += 1
                    place[1] += error
            p, t = rotation(*predicted), rotation(*true)
            relative, turn, axis, frontal = errors(p, t)
            turns.append(relative)
            geodesic += turn
            axes += axis
            if frontal < 75.0:
                place = rings.setdefault(int(frontal // 5.0), [0, 0.0])
                place[0] += 1
                place[1] += turn
    share = SOURCE / SOURCE.sum(axis=1, keepdims=True)
    inside = [sum(v[0] for (k, _), v in bins.items() if k == j) for j in range(3)]
    means = [[v[1] / v[0] for (k, _), v in bins.items() if k == j] for j in range(3)]
    return {
        "mae": sum(total) / n / 3,
        "mae_wrapped": sum(wrapped) / n / 3,
        "geodesic": geodesic / n,
        "geodesic_aligned": aligned(turns),
        "maev": axes / n,
        "balanced_mae": sum(sum(m) / len(m) for m in means) / 3,
        "bmae": sum(v[1] / v[0] for v in rings.values()) / len(rings),
        "ubmae": sum(v[0] / inside[j] / share[j, i] * v[1] / v[0] for (j, i), v in bins.items()) / 45,
    }


def _rotation_numpy(yaw: float, pitch: float, roll: float) -> Any:
    y, p, r = np.radians([yaw, pitch, roll])
    rx = np.array([[1, 0, 0], [0, np.cos(-p), -np.sin(-p)], [0, np.sin(-p), np.cos(-p)]])
    ry = np.array([[np.cos(-y), 0, np.sin(-y)], [0, 1, 0], [-np.sin(-y), 0, np.cos(-y)]])
    rz = np.array([[np.cos(-r), -np.sin(-r), 0], [np.sin(-r), np.cos(-r), 0], [0, 0, 1]])
    return rx @ ry @ rz


def _rotation_errors_numpy(p: Any, t: Any) -> tuple[Any, float, float, float]:
    relative = p.T @ t
    turn = np.degrees(np.arccos(np.clip((np.trace(relative) - 1) / 2, -1, 1)))
    axis = np.degrees(np.arccos(np.clip(np.diag(relative), -1, 1))).mean()
    frontal = np.degrees(np.arccos(np.clip((np.trace(t) - 1) / 2, -1, 1)))
    return relative, turn, axis, frontal


def _aligned_numpy(turns: list[Any]) -> float:
    alignment = nearest_rotation(sum(turns))
    errors = [np.degrees(np.arccos(np.clip((np.trace(alignment.T @ r) - 1) / 2, -1, 1))) for r in turns]
    return float(sum(errors)) / len(errors)


def _rotation_math(yaw: float, pitch: float, roll: float) -> Any:
    y, p, r = math.radians(yaw), math.radians(pitch), math.radians(roll)
    cy, sy, cp, sp, cr, sr = math.cos(y), math.sin(y), math.cos(p), math.sin(p), math.cos(r), math.sin(r)
    return (
        (cy * cr, cy * sr, -sy),
        (sp * sy * cr - cp * sr, cp * cr + sp * sy * sr, sp * cy),
        (sp * sr + cp * sy * cr, cp * sy * sr - sp * cr, cp * cy),
    )


def _rotation_errors_math(p: Any, t: Any) -> tuple[Any, float, float, float]:
    relative = [p[0][i] * t[0][j] + p[1][i] * t[1][j] + p[2][i] * t[2][j] for i in range(3) for j in range(3)]
    dots = relative[::4]
    angles = [math.degrees(math.acos(max(-1.0, min(1.0, d)))) for d in dots]
    turn = math.degrees(math.acos(max(-1.0, min(1.0, (sum(dots) - 1) / 2))))
    frontal = math.degrees(math.acos(max(-1.0, min(1.0, (t[0][0] + t[1][1] + t[2][2] - 1) / 2))))
    return relative, turn, sum(angles) / 3, frontal


def _aligned_math(turns: list[Any]) -> float:
    total = np.array([sum(r[k] for r in turns) for k in range(9)]).reshape(3, 3)
    o = nearest_rotation(total).ravel().tolist()
    angle = 0.0
    for r in turns:
        cosine = (sum(a * b for a, b in zip(o, r, strict=True)) - 1) / 2
        angle += math.degrees(math.acos(max(-1.0, min(1.0, cosine))))
    return angle / len(turns)


def resample_rows(pairs: Pairs, rounds: int) -> None:
    """Draw rows and recompute every metric, `rounds` times."""
    rng = np.random.default_rng(0)
    n = len(pairs.true_deg)
    for _ in range(rounds):
        score(pairs.take(rng.integers(0, n, n)), source_counts=SOURCE)


def seconds(work: Callable[[], Any]) -> float:
    """Return how long `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def command_seconds(*arguments: str) -> float:
    """Return how long a command takes from start to end, in a process of its own."""
    return seconds(lambda: subprocess.run([sys.executable, "-m", "ubhpd", *arguments], check=True, capture_output=True))


def measure(rows: int, rounds: int, heads: int) -> dict[str, list[float]]:
    """Return the seconds of every piece of work, one per round, scaled where only a part was done."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        big, mixed, small = (Path(folder) / name for name in ("big.csv", "mixed.csv", "small.csv"))
        write_file(big, rows)
        write_file(mixed, rows, shuffled=True)
        write_file(small, 2000)
        file = predictions.read(big)
        assert file.true_deg is not None
        pairs = Pairs(file.predicted_deg[:heads], file.true_deg[:heads])
        s = score(pairs, source_counts=SOURCE)
        groups = np.arange(heads) // 500
        check(small)
        work: dict[str, Callable[[], float]] = {
            "read": lambda: seconds(lambda: pacsv.read_csv(big)),
            "score": lambda: seconds(lambda: score_file(big)),
            "read, ids in random order": lambda: seconds(lambda: pacsv.read_csv(mixed)),
            "score, ids in random order": lambda: seconds(lambda: score_file(mixed)),
            "loop numpy": lambda: seconds(lambda: loop_numpy(big, 10_000)) * rows / 10_000,
            "loop math": lambda: seconds(lambda: loop_math(big, 30_000)) * rows / 30_000,
            "bootstrap groups": lambda: seconds(
                lambda: intervals(s.errors, s.statistics, ScoreOptions(), BootstrapOptions(), groups)
            ),
            "bootstrap samples": lambda: seconds(
                lambda: intervals(s.errors, s.statistics, ScoreOptions(), BootstrapOptions())
            ),
            "resample rows": lambda: seconds(lambda: resample_rows(pairs, 20)) * 1000 / 20,
            "help": lambda: command_seconds("--help"),
            "2,000 rows": lambda: command_seconds("score", str(small), "--source", "300W-LP"),
        }
        for _ in range(rounds):
            for name, take in work.items():
                found.setdefault(name, []).append(take())
    return found


def check(path: Path) -> None:
    """Make sure that the loops compute the same numbers."""
    fast = score_file(path)
    for loop in (loop_numpy, loop_math):
        for name, value in loop(path, 10**9).items():
            assert math.isclose(value, fast[name], rel_tol=1e-6), (loop.__name__, name, value, fast[name])
    ypr = [12.0, -30.0, 44.0]
    assert np.allclose(_rotation_numpy(*ypr), matrix_from_euler(ypr))


def report(found: dict[str, list[float]], rows: int, heads: int, rounds: int) -> str:
    """Return the table in Markdown, each goal beside what was reached."""
    m = {name: statistics.median(values) for name, values in found.items()}

    def ratio(slow: str, fast: str) -> float:
        return statistics.median(a / b for a, b in zip(found[slow], found[fast], strict=True))

    goals = [
        ("score, over its limit of 1.5 read + 1 s", f"{m['score'] / (1.5 * m['read'] + 1):.2f}", "at most 1"),
        ("the same, ids in random order",
         f"{m['score, ids in random order'] / (1.5 * m['read, ids in random order'] + 1):.2f}", "at most 1"),
        ("loop over rows with numpy, over score", f"{ratio('loop numpy', 'score'):.0f}", "at least 100"),
        ("loop over rows with math, over score", f"{ratio('loop math', 'score'):.0f}", ""),
        ("resampling rows, over groups", f"{ratio('resample rows', 'bootstrap groups'):.0f}", "at least 50"),
        ("resampling rows, over samples", f"{ratio('resample rows', 'bootstrap samples'):.0f}", "at least 50"),
        ("ubhpd --help", f"{m['help']:.2f} s", "under 0.3 s"),
        ("ubhpd score, 2,000 rows", f"{m['2,000 rows']:.2f} s", "under 1 s"),
    ]  # fmt: skip
    lines = [
        "# Scoring", "", describe_machine("pyarrow"), "",
        f"{rows:,} predictions in CSV with their truth; 1,000 resamples of {heads:,} heads ({heads // 500} groups). "
        f"Medians of {rounds} interleaved rounds; loops and row resampling are timed on a part and scaled.", "",
        "| what | reached | goal |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in goals), "",
        "| work | median s | least | largest |", "|---|---|---|---|",
        *(f"| {n} | {m[n]:.3f} | {min(v):.3f} | {max(v):.3f} |" for n, v in found.items()), "",
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--heads", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    text = report(measure(options.rows, options.rounds, options.heads), options.rows, options.heads, options.rounds)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
