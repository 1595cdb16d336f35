"""How often face detectors find the heads of AFLW2000-3D, by yaw, and how well their boxes fit.

    python benchmarks/detectors.py --aflw2000 DIR [--detectors mtcnn,cascade] [--out docs/benchmarks]

A head counts as found if a detected box overlaps the box of its 68 landmarks by 0.3 of their union, as `ubhpd boxes`
decides. Weights: UBHPD_MTCNN for MTCNN, UBHPD_YUNET for YuNet; a detector whose file is not there is left out, and
named. Writes detectors.md and detectors.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.images.detectors import detector
from ubhpd.images.faces import overlap
from ubhpd.images.reading import Images
from ubhpd.pool.build import BuildConfig, build

EDGES = (0, 15, 30, 45, 60, 75, 90, 180)
SAME_FACE = 0.3


def measured(name: str, heads: list[dict[str, Any]], out: Path) -> dict[str, Any]:
    """Return found heads and heads by range of |yaw|, the median overlap of the found ones, and the time."""
    finder = detector(name)
    found, shares, seconds = [], [], 0.0
    for head, image in zip(heads, Images.of_build(out).of_heads(heads), strict=True):
        if isinstance(image, UbhpdError):
            raise image
        start = time.perf_counter()
        faces = finder.boxes(image)
        seconds += time.perf_counter() - start
        own = overlap(head["bbox_xyxy"], [face.bbox_xyxy for face in faces]) if faces else np.zeros(1)
        found.append(bool(own.max() >= SAME_FACE))
        if found[-1]:
            shares.append(float(own.max()))
    yaw = np.abs([head["yaw_deg"] for head in heads])
    place = np.clip(np.searchsorted(EDGES, yaw, side="right") - 1, 0, len(EDGES) - 2)
    counts = [[int(np.sum(np.array(found)[place == k])), int(np.sum(place == k))] for k in range(len(EDGES) - 1)]
    return {"found": int(sum(found)), "heads": len(heads), "by_yaw": counts, "median_overlap": float(np.median(shares)),
            "seconds_per_image": seconds / len(heads)}  # fmt: skip


def table(results: dict[str, Any]) -> str:
    """Return the rates as Markdown."""
    ranges = [f"{a} to {b}" for a, b in itertools.pairwise(EDGES)]
    rows = [["detector", "all", *ranges, "median overlap", "ms per image"], ["---"] * (len(ranges) + 4)]
    for name, own in results.items():
        shares = [f"{100 * n / of:.1f}" if of else "" for n, of in own["by_yaw"]]
        rows.append([name, f"{100 * own['found'] / own['heads']:.1f}", *shares, f"{own['median_overlap']:.2f}",
                     f"{1000 * own['seconds_per_image']:.0f}"])  # fmt: skip
    counts = [str(of) for _, of in next(iter(results.values()))["by_yaw"]]
    heads = next(iter(results.values()))["heads"]
    rows.append(["heads", str(heads), *counts, "", ""])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--aflw2000", type=Path, required=True)
    parser.add_argument("--detectors", default="mtcnn,yunet,cascade")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        build(BuildConfig(("aflw2000",), out, roots={"aflw2000": str(arguments.aflw2000)}, max_angle_deg=1e6))
        names = [
            "sample_id",
            "dataset",
            "image_path",
            "frame_index",
            "bbox_xyxy",
            "bbox_kind",
            "yaw_deg",
            "drop_reason",
        ]
        heads = [r for r in manifest.read(out / "pool.parquet", names).to_pylist() if r["drop_reason"] is None]
        results, absent = {}, {}
        for name in arguments.detectors.split(","):
            try:
                results[name] = measured(name, heads, out)
            except UbhpdError as error:
                absent[name] = str(error)
            print(name, results.get(name, absent.get(name)), flush=True)
    content = {
        "dataset": "aflw2000",
        "edges_deg": EDGES,
        "machine": describe_machine("opencv-python-headless", "torch"),
        "detectors": results,
        "absent": absent,
    }
    (arguments.out / "detectors.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    missing = "".join(f"\n`{name}` was not measured: its file was not there.\n" for name in absent)
    text = f"""Percentage of the heads of AFLW2000-3D (all 2,000) for which a detected box overlaps the box of the
68 landmarks by {SAME_FACE} of their union, by |yaw| in degrees; the median overlap of the boxes that were found; the
time on one core.

{table(results)}
{missing}
Made by `python benchmarks/detectors.py --aflw2000 DIR`; the numbers are in [detectors.json](detectors.json).
{content["machine"]}
"""
    (arguments.out / "detectors.md").write_text(f"# How often face detectors find a head\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
