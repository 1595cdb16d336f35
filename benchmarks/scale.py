"""Times the whole journey at the paper's size, and at a tenth of it, with the peak memory of each step.

    python benchmarks/scale.py [--shares 0.1,1] [--jobs 2] [--data DIR] [--out docs/benchmarks/scale.md]

The tree has the layouts and the numbers of heads of all six datasets: 122,450 of 300W-LP, 24,384 of AFLW, 2,000 of
AFLW2000, 15,678 of BIWI, 36,000 of UPNA and 510,960 of SynHead, or that share of them. Labels are all distinct; a few
small images are drawn for each dataset and repeated, so that the tree fits a disk: it is the number of files and heads
that is measured, not decoding. DIR keeps the trees for another run. Each step is a command of the package in a process
of its own, timed once; memory is the largest peak of this process and of its workers. `growth` compares the seconds of
the two shares: 1 is linear, above 1 faster than linear.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from machine import describe_machine, show

from ubhpd import manifest
from ubhpd.synth.writers import (
    aflw2000_writer,
    aflw_writer,
    biwi_writer,
    synhead_writer,
    upna_writer,
    w300lp_writer,
)
from ubhpd.synth.writers.synhead_writer import HEADS, TRACKS
from ubhpd.synth.writers.writer_files import Work

SOURCES = "biwi,aflw,aflw2000,300wlp,upna,synhead"
MB = 1024


def write_trees(root: Path, share: float, jobs: int) -> None:
    """Write the raw datasets of a share below a folder, unless they are there."""
    done = root / "done"
    if done.exists():
        return
    shutil.rmtree(root, ignore_errors=True)
    work = Work(jobs=jobs)
    w300lp_writer.write(root, round(61_225 * share), views=8, distinct_images=64, side_px=96, work=work)
    aflw_writer.write(root, round(24_384 * share), work=work)
    aflw2000_writer.write(root, round(2_000 * share), distinct_images=64, side_px=96, work=work)
    biwi_writer.write(root, range(1, 25), frames=round(15_678 / 24 * share), with_depth=False, distinct_images=96)
    users = range(1, 11)
    upna_writer.write(root, users, range(1, max(round(12 * share), 1) + 1), frames=300, with_video=False)
    upna_writer.write(root / "one", (1,), (1,), frames=300)
    (video,) = (root / "one").rglob("*.mp4")
    for text in (root / "Head_Pose_Database_UPNA").rglob("*_groundtruth2D.txt"):
        os.link(video, text.with_name(text.name.replace("_groundtruth2D.txt", ".mp4")))
    shutil.rmtree(root / "one")
    tracks = {name: range(count) for name, count in TRACKS.items()}
    synhead_writer.write(root, tracks, HEADS, frames=round(730 * share), distinct_images=64, side_px=96, work=work)
    done.touch()


# A process counts the memory of its parent at the start as its own peak: this small one stands between.
_WATCH = (
    "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, code, file=sys.stderr)"
)


def run(command: Sequence[object], allowed: Sequence[int] = (0,)) -> tuple[float, float]:
    """Run a command of the package; return its seconds and the peak memory of it and of its workers in MB."""
    words = [sys.executable, "-m", "ubhpd", *map(str, command)]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", _WATCH, *words], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - start
    memory, code = map(int, done.stderr.split()[-2:])
    if code not in allowed:
        raise SystemExit(f"{' '.join(words)} ended with {code}:\n{done.stderr[-2000:]}")
    return seconds, memory / MB


def predictions(pool: Path, out: Path) -> Path:
    """Write predictions for all usable heads of a pool."""
    table = manifest.usable(pool, ["sample_id", "yaw_deg", "pitch_deg", "roll_deg"]).to_pandas()
    noise = np.random.default_rng(0).normal(0, 4, (len(table), 3))
    values = table[["yaw_deg", "pitch_deg", "roll_deg"]].to_numpy() + noise
    frame = pd.DataFrame(values, columns=["yaw", "pitch", "roll"])
    frame.insert(0, "sample_id", table["sample_id"])
    frame.to_csv(out, index=False)
    return out


def steps(raw: Path, out: Path, share: float, jobs: int) -> dict[str, Callable[[], tuple[float, float]]]:
    """Return the steps by name, in their order."""
    source = ("build", "--sources", SOURCES, "--data-root", raw, "--out", out, "--quiet")
    exports = out / "exports"
    return {
        "build the pool": lambda: run((*source, "--pool-only")),
        f"build the pool, {jobs} processes": lambda: run(
            ("build", "--sources", SOURCES, "--data-root", raw, "--out", f"{out}-jobs", "--quiet", "--pool-only",
             "--jobs", jobs)
        ),
        "build again, nothing changed": lambda: run((*source, "--pool-only")),
        "sample, audit, figures, card": lambda: run((*source, "--size", round(25_000 * share))),
        "validate": lambda: run(("validate", out), (0, 1)),
        "info": lambda: run(("info", out)),
        "audit": lambda: run(("audit", out), (0, 1)),
        "plot density": lambda: run(("plot", "density", out)),
        "score all heads": lambda: run(
            ("score", predictions(out / "pool.parquet", out / "p.csv"), "--manifest", out / "pool.parquet")
        ),
        "doctor of all heads": lambda: run(("doctor", out / "p.csv", "--manifest", out / "pool.parquet"), (0, 1)),
        "export UBHPD as csv": lambda: run(("export", out, "--format", "csv", "--out", exports / "csv", "--quiet")),
        "export UBHPD as crops": lambda: run(
            ("export", out, "--format", "h5", "--out", exports / "h5", "--quiet", "--jobs", jobs, "--skip-unreadable")
        ),
    }  # fmt: skip


def main() -> None:
    """Time every share and show the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shares", default="0.1,1")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--data", type=Path, help="keep the trees here")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    shares = sorted(map(float, arguments.shares.split(",")))
    measured: dict[str, list[tuple[float, float]]] = {}
    heads = []
    with tempfile.TemporaryDirectory() as folder:
        for share in shares:
            raw, out = (arguments.data or Path(folder)) / f"raw-{share:g}", Path(folder) / f"out-{share:g}"
            write_trees(raw, share, arguments.jobs)
            for name, step in steps(raw, out, share, arguments.jobs).items():
                measured.setdefault(name, []).append(step())
                print(f"{share:g}", name, measured[name][-1], flush=True)
            marks = {manifest.header(Path(f"{out}{end}") / "pool.parquet").fingerprint for end in ("", "-jobs")}
            if len(marks) != 1:
                raise SystemExit(f"one process and {arguments.jobs} gave different pools: {marks}")
            heads.append(manifest.header(out / "pool.parquet").rows)
            shutil.rmtree(out)
            shutil.rmtree(f"{out}-jobs")
    columns = "".join(f" s, {count:,} heads | MB |" for count in heads)
    lines = [describe_machine("pyarrow"), "", f"| step |{columns} growth |", "|---|" + "---:|" * (2 * len(heads) + 1)]
    for name, own in measured.items():
        cells = "".join(f" {seconds:,.1f} | {memory:,.0f} |" for seconds, memory in own)
        growth = own[-1][0] / own[0][0] / (heads[-1] / heads[0])
        lines.append(f"| {name} |{cells} {growth:.2f} |")
    show("The paper's size", lines, arguments.out)


if __name__ == "__main__":
    main()
