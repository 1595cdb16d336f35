"""Times the builders against the loop that most loaders of the field have, in one run, on generated data.

    python benchmarks/build.py [--pairs 4000] [--frames 2600] [--rounds 5] [--out docs/benchmarks/build.md]

The loop opens and decodes every image and parses its label: scipy.io.loadmat twice for 300W-LP (once for
the pose, once for the points), the nine numbers of pose.txt for BIWI. The builder is timed in two ways:
`read` (find, list, read, and write the parts: what the loop does and more) and `build` (all of it, up to
pool.parquet). Rounds are interleaved; a figure is the median. Worker processes are started before the first
round, as they would be by the first unit of a long build. The memory figure is the peak of a process that
builds a million heads.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io
from machine import describe_machine, show
from PIL import Image

from ubhpd.core.parallel import Engine
from ubhpd.core.records import Record
from ubhpd.manifest.schema import schema
from ubhpd.pool.build import BuildConfig, build
from ubhpd.pool.parts import collect
from ubhpd.synth.writers import biwi_writer as synth_biwi
from ubhpd.synth.writers import w300lp_writer as synth_300wlp


@dataclass
class Row:
    """One line of the result: what ran, how long a head took, and how much faster that is than the loop."""

    name: str
    microseconds: float
    ratio: float


def loop_300wlp(root: Path) -> int:
    """Do what a Hopenet-style loader does for each pair."""
    count = 0
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and p.name not in ("landmarks", "Code")):
        for label in sorted(folder.glob("*.mat")):
            Image.open(label.with_suffix(".jpg")).convert("RGB")
            points = scipy.io.loadmat(label)["pt2d"]
            pose = scipy.io.loadmat(label)["Pose_Para"][0][:3]
            _ = points.min(axis=1), np.degrees(pose)
            count += 1
    return count


def loop_biwi(root: Path) -> int:
    """Do what a Hopenet-style loader does for each frame."""
    count = 0
    for label in sorted(root.glob("*/*_pose.txt")):
        Image.open(str(label).replace("_pose.txt", "_rgb.png")).convert("RGB")
        rows = [line.split() for line in label.read_text().splitlines()[:3]]
        matrix = np.array(rows, dtype=np.float64).T
        _ = np.degrees([-np.arctan2(matrix[1, 0], matrix[0, 0]), np.arctan2(matrix[2, 1], matrix[2, 2])])
        count += 1
    return count


def run_build(dataset: str, root: Path, jobs: int, merge: bool = True) -> int:
    """Build a dataset into a new folder; without `merge` only read it and write the parts."""
    with tempfile.TemporaryDirectory() as out:
        shard = None if merge else (1, 1)
        report = build(BuildConfig((dataset,), Path(out), roots={dataset: str(root)}, shard=shard), Engine(jobs))
    return report.datasets[dataset].heads if merge else 0


def compare(loop: Callable[[Path], int], dataset: str, root: Path, rounds: int) -> list[Row]:
    """Return the rows of one dataset."""
    contenders: dict[str, Callable[[], int]] = {
        "loop": lambda: loop(root),
        "ubhpd read, 1 core": lambda: run_build(dataset, root, 1, merge=False),
        "ubhpd read, 2 cores": lambda: run_build(dataset, root, 2, merge=False),
        "ubhpd build, 1 core": lambda: run_build(dataset, root, 1),
        "ubhpd build, 2 cores": lambda: run_build(dataset, root, 2),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    found = {name: run() for name, run in contenders.items()}  # also warms the page cache and starts the workers
    if len(set(found.values()) - {0}) != 1:
        raise SystemExit(f"the contenders disagree on the number of heads: {found}")
    heads = found["loop"]
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(t) / heads * 1e6 for name, t in times.items()}
    return [Row(f"{dataset}: {name}", us, medians["loop"] / us) for name, us in medians.items()]


def peak_of_a_million() -> tuple[float, float]:
    """Return (MB, seconds) of a fresh process that merges a million heads into a pool."""
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import build; build.write_a_million()"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", script], check=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, time.perf_counter() - start


def write_a_million(heads: int = 1_000_000, size: int = 2000) -> None:
    """Write parts of heads with 68 points, as many as a large build has, and merge them."""
    from ubhpd import manifest
    from ubhpd.pool import parts

    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        paths = []
        for start in range(0, heads, size):
            angles, points = rng.normal(0, 30, (size, 3)), rng.uniform(0, 450, (size, 136))
            records = [
                Record(f"x/{start + i:07d}", f"{start + i:07d}.jpg", 450, 450, *angles[i].tolist(), points[i, :9],
                       raw_angles=angles[i], landmarks68=points[i], bbox_xyxy=points[i, :4])
                for i in range(size)
            ]  # fmt: skip
            paths.append(Path(folder, f"{start:07d}.arrow"))
            parts.write_part(paths[-1], collect("x", records)[0], [], "", 0.0)
        manifest.write_parquet(map(parts.read_part, paths), Path(folder, "pool.parquet"))
        assert manifest.header(Path(folder, "pool.parquet")).schema.names == schema().names


def main() -> None:
    """Run and print the comparison."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--pairs", type=int, default=4000)
    arguments.add_argument("--frames", type=int, default=2600)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--no-memory", action="store_true", help="leave out the build of a million heads")
    arguments.add_argument("--out", type=Path)
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        synth_300wlp.write(data, chosen.pairs // 2, views=8, landmarks=False, distinct_images=32)
        synth_biwi.write(data, range(1, 5), frames=chosen.frames // 4, distinct_images=16)
        rows = compare(loop_300wlp, "300wlp", data / "300W_LP", chosen.rounds)
        rows += compare(loop_biwi, "biwi", data / "hpdb", chosen.rounds)
        shutil.rmtree(data / "hpdb")
    lines = ["| what | microseconds a head | times faster than the loop |", "|---|---:|---:|"]
    lines += [f"| {r.name} | {r.microseconds:,.1f} | {r.ratio:,.1f} |" for r in rows]
    if not chosen.no_memory:
        megabytes, seconds = peak_of_a_million()
        lines += [
            "",
            f"A million heads with 68 points each, parts and pool: {megabytes:,.0f} MB peak, {seconds:,.0f} s.",
        ]
    about = [
        f"300W-LP: {chosen.pairs} pairs; BIWI: {chosen.frames} frames; medians of {chosen.rounds} rounds.",
        describe_machine(),
        "",
    ]
    show("Reading: the builders against the usual loop", [*about, *lines], chosen.out)


if __name__ == "__main__":
    main()
