"""Seconds, memory and distance to the lower bound of sampling and splitting up to a million heads, on one core.

    OMP_NUM_THREADS=1 python benchmarks/sampling.py [--out docs/benchmarks/sampling.md] [--repeats 5]

The pool is made up, like the real ones in what matters: a fifth films of people (BIWI, UPNA), who look about and
come back to the front; two fifths renderings of photographs in steps of yaw, with mirror images (300W-LP); two
fifths loose photographs (AFLW). Each size runs in a process of its own, so that the peak memory is its own.
The rivals are loops over the heads that do the independent sampling, one in plain Python and one that calls
numpy for each head; they run on part of the heads and their seconds are multiplied up, as the table says.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ubhpd.core.bins import EDGES_DEG
from ubhpd.sampling import heads, splits
from ubhpd.sampling.sampler import SamplingConfig, sample, sample_stream
from ubhpd.sampling.targets import gaussian

SIZES = (100_000, 300_000, 1_000_000)
SIGMA_DEG = 20.0
LOOP_HEADS = 50_000  # of the Python loop


def made_up_columns(n: int, seed: int = 0) -> dict[str, Any]:
    """Return angles (n, 3), names as Arrow strings and frame numbers."""
    rng = np.random.default_rng(seed)
    kind = np.sort(rng.choice(3, size=n, p=[0.2, 0.4, 0.4]))  # film, rendering, photograph
    frame = np.arange(n) % 700
    film = np.arange(n) // 700
    phase = rng.random((n // 700 + 1, 3))[film] + frame[:, None] / np.array([150.0, 110.0, 170.0])
    ypr = np.sin(2 * np.pi * phase) ** 3 * [60, 40, 25] + rng.normal(size=(n, 3)) * 3
    rendered, photo = kind == 1, np.arange(n) // 32
    pose = (rng.normal(size=(n // 32 + 1, 3)) * [15, 8, 7])[photo]
    side = np.where(np.arange(n) % 2, -1, 1)[:, None]
    warped = pose + np.stack([np.arange(n) % 32 // 2 * 5.0, *rng.normal(size=(2, n)) * 4], axis=1)
    ypr[rendered] = (warped * np.where([True, False, True], side, 1))[rendered]
    ypr[kind == 2] = (rng.standard_t(4, size=(n, 3)) * [30, 9, 10])[kind == 2]

    def names(form: str, numbers: Any, known: Any) -> pa.Array:
        return pa.array([form % i if k else None for i, k in zip(numbers.tolist(), known.tolist(), strict=True)])

    everywhere = np.ones(n, dtype=bool)
    return {
        "ypr_deg": ypr,
        "sample_id": names("pool/recording/frame_%07d", np.arange(n), everywhere),
        "dataset": names("dataset%d", kind, everywhere),
        "subject": names("film/person%d", film // 2, kind == 0),
        "sequence": names("film/%d", film, kind == 0),
        "frame_index": np.where(kind == 0, frame, -1),
        "photo": names("photo/%d", photo, rendered),
        "flip_of": names("pool/recording/frame_%07d", np.arange(n) - 1, rendered & (np.arange(n) % 2 == 1)),
    }


def python_loop(ypr: list[list[float]], size: int, seed: int) -> list[int]:
    """Return the rows that the independent sampling takes, one head after the other."""
    edges, target = EDGES_DEG.tolist(), gaussian(SIGMA_DEG).tolist()
    counts = [[0] * 15 for _ in range(3)]
    inside = []
    for row, angles in enumerate(ypr):
        index = []
        for angle in angles:
            for i in range(15):
                if edges[i] <= angle < edges[i + 1]:
                    index.append(i)
                    break
        if len(index) == 3:
            inside.append((row, index))
            for j in range(3):
                counts[j][index[j]] += 1
    rng = random.Random(seed)
    keys = []
    for row, index in inside:
        weight = 1.0
        for j in range(3):
            weight *= target[j][index[j]] * len(inside) / counts[j][index[j]]
        keys.append((math.log(rng.random() or 1e-300) / weight, row))
    return [row for _, row in heapq.nlargest(size, keys)]


def numpy_loop(ypr: Any, size: int, seed: int) -> list[int]:
    """Return what `python_loop` would, with numpy asked for the bins and the weight of each head."""
    target = gaussian(SIGMA_DEG)
    counts = np.zeros((3, 15))
    inside = []
    for row, angles in enumerate(ypr):
        index = np.digitize(angles, EDGES_DEG) - 1
        if ((index >= 0) & (index < 15)).all():
            inside.append((row, index))
            counts[np.arange(3), index] += 1
    ratio = target / np.maximum(counts / counts[0].sum(), 1e-12)
    rng = np.random.default_rng(seed)
    keys = [(np.log(rng.random()) / np.prod(ratio[np.arange(3), index]), row) for row, index in inside]
    return [row for _, row in heapq.nlargest(size, keys)]


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """Return the median time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(n: int, repeats: int) -> dict[str, float]:
    """Return seconds, megabytes and distances for a pool of n heads."""
    columns = made_up_columns(n)
    joint = SamplingConfig(sigma_deg=SIGMA_DEG)
    before = peak_mb()
    pool = heads.from_arrays(**columns)
    result = sample(pool, joint)
    chosen = pool.take(result.rows)
    subjects = splits.split(chosen, "subject")
    found = {"peak_mb": peak_mb(), "columns_mb": before}
    independent = sample(pool, SamplingConfig(sigma_deg=SIGMA_DEG, mode="independent"))
    parts = [pool.take(np.arange(i, min(i + 16_384, n))) for i in range(0, n, 16_384)]
    some = columns["ypr_deg"][np.random.default_rng(0).permutation(n)[:LOOP_HEADS]].tolist()

    def everything() -> None:
        loaded = heads.from_arrays(**columns)
        splits.split(loaded.take(sample(loaded, joint).rows), "subject")

    return found | {
        "heads": n,
        "eligible": result.eligible,
        "lower_bound": result.lower_bound,
        "reached": result.reached,
        "independent": independent.reached,
        "split_share": subjects.share,
        "split_distance": float(subjects.distance.mean()),
        "keys_s": seconds(lambda: heads.from_arrays(**columns), repeats),
        "sample_s": seconds(lambda: sample(pool, joint), repeats),
        "auto_s": seconds(lambda: sample(pool, SamplingConfig()), repeats),
        "stream_s": seconds(lambda: sample_stream(lambda: parts, joint), repeats),
        "split_random_s": seconds(lambda: splits.split(chosen, "random"), repeats),
        "split_subject_s": seconds(lambda: splits.split(chosen, "subject"), repeats),
        "whole_s": seconds(everything, repeats),
        "loop_s": seconds(lambda: python_loop(some, 25_000, 0), min(repeats, 3)) * n / len(some),
        "numpy_loop_s": seconds(lambda: numpy_loop(np.array(some), 25_000, 0), min(repeats, 3)) * n / len(some),
        "loop_heads": len(some),
    }


def report(rows: list[dict[str, float]], repeats: int) -> str:
    """Return the tables in Markdown."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
    last = rows[-1]
    timed = {
        "names to keys": "keys_s",
        "sample 25,000, sigma 20": "sample_s",
        "sample 25,000, sigma auto": "auto_s",
        "sample 25,000 in batches of 16,384": "stream_s",
        "split the 25,000, random": "split_random_s",
        "split the 25,000, subject": "split_subject_s",
        "keys, sample and split by subject": "whole_s",
        "loop over heads, independent sampling, plain Python": "loop_s",
        "the same, numpy called for each head": "numpy_loop_s",
    }
    text = ["# Sampling and splitting on one core", "", f"Machine: {model}, {os.cpu_count()} cores, one used; "]
    text[-1] += f"Python {platform.python_version()}, numpy {np.__version__}. Medians of {repeats}, in seconds."
    text += ["", "| | " + " | ".join(f"{r['heads']:,} heads" for r in rows) + " |", "|---|" + "---:|" * len(rows)]
    text += [f"| {name} | " + " | ".join(f"{r[key]:.3f}" for r in rows) + " |" for name, key in timed.items()]
    text += ["| peak memory of the process, MB | " + " | ".join(f"{r['peak_mb']:.0f}" for r in rows) + " |"]
    text += ["| of it before sampling, with the columns as read | "]
    text[-1] += " | ".join(f"{r['columns_mb']:.0f}" for r in rows) + " |"
    text += ["", f"The loops ran on {last['loop_heads']:,.0f} heads; their seconds are scaled to the size. "]
    text[-1] += f"Sampling {last['heads']:,} heads takes {last['loop_s'] / last['sample_s']:.0f} times less than the "
    text[-1] += f"plain loop and {last['numpy_loop_s'] / last['sample_s']:.0f} times less than the loop with numpy."
    text += [
        "",
        "| mean total variation distance to the target | " + " | ".join(f"{r['heads']:,}" for r in rows) + " |",
    ]
    text += ["|---|" + "---:|" * len(rows)]
    for name, key in (("lower_bound", "lower_bound"), ("joint", "reached"), ("independent", "independent")):
        text += [f"| {name} | " + " | ".join(f"{r[key]:.4f}" for r in rows) + " |"]
    text += [
        "| train against test, split by subject | " + " | ".join(f"{r['split_distance']:.4f}" for r in rows) + " |"
    ]
    return "\n".join(text) + "\n"


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the tables to this Markdown file too")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--heads", type=int, help="measure this size alone and print JSON")
    options = parser.parse_args()
    if options.heads:
        print(json.dumps(measure(options.heads, options.repeats)))
        return
    rows = []
    for n in SIZES:
        command = [sys.executable, __file__, "--heads", str(n), "--repeats", str(options.repeats)]
        ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(ran.stdout))
    text = report(rows, options.repeats)
    print(text, end="")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
