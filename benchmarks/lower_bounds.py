"""How near a UBHPD of real labels comes to its target: the lower bound, what is reached, and what plain sampling gives.

    python benchmarks/lower_bounds.py --labels DIR [--out docs/benchmarks/lower-bounds.md]

Reads the published label lists of BIWI (sequence, frame, subject, yaw, pitch, roll) and AFLW2000 (name, yaw, pitch,
roll) and the histogram of 300W-LP's labels (low_deg, high_deg, yaw, pitch, roll), takes the heads with all angles
within 99 degrees, and samples them under several sizes and targets. The figures are exact and the same on every
machine.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from machine import show

from ubhpd.sampling import heads, splits
from ubhpd.sampling.sampler import SamplingConfig, SamplingResult, sample

CASES: tuple[dict[str, object], ...] = (
    *({"size": 2000, "sigma_deg": s} for s in (15.0, 20.0, 25.0, 30.0)),
    {"size": 2000, "target": "uniform"},
    *({"size": n, "sigma_deg": "auto"} for n in (1000, 2000, 5000, 10000)),
    *({"size": "auto", "sigma_deg": s} for s in (15.0, 20.0, 25.0)),
)

LARGE_CASES: tuple[dict[str, object], ...] = (
    *({"size": 25_000, "sigma_deg": s} for s in (15.0, 20.0, 25.0)),
    {"size": 25_000, "target": "uniform"},
    {"size": 25_000, "sigma_deg": "auto"},
)


def read_labels(folder: Path) -> heads.Heads:
    """Return the heads of both lists."""
    biwi = pd.read_csv(folder / "biwi_labels.csv", dtype={"sequence": str})
    aflw = pd.read_csv(folder / "aflw2000_labels.csv")
    both = pd.concat(
        [
            biwi.assign(dataset="biwi", sample_id="biwi/" + biwi.sequence + "/" + biwi.frame.astype(str)),
            aflw.assign(dataset="aflw2000", sample_id="aflw2000/" + aflw.name),
        ],
        ignore_index=True,
    )
    both = both[(both[["yaw", "pitch", "roll"]].abs() <= 99).all(axis=1)]
    texts = both.astype(object).where(both.notna(), None)
    return heads.from_arrays(
        both[["yaw", "pitch", "roll"]].to_numpy(),
        texts.sample_id.tolist(),
        dataset=texts.dataset.tolist(),
        subject=texts.subject.tolist(),
        sequence=texts.sequence.tolist(),
        frame_index=both.frame.fillna(-1).astype(int).to_numpy(),
        photo=[None if d == "biwi" else s for d, s in zip(texts.dataset, texts.sample_id, strict=True)],
    )


def with_300wlp(pool: heads.Heads, folder: Path, seed: int = 0) -> heads.Heads:
    """Return the pool and as many heads as 300W-LP has, drawn from its three published histograms.

    The histograms do not say which yaw goes with which roll: the three angles are drawn independently, which real
    heads are not. What comes out is a pool of the right size and marginals, not 300W-LP.
    """
    table = pd.read_csv(folder / "300wlp_histogram_3deg.csv")
    table = table[np.isfinite(table.low_deg) & np.isfinite(table.high_deg)]
    rng = np.random.default_rng(seed)
    columns = []
    for angle in ("yaw", "pitch", "roll"):
        low = np.repeat(table.low_deg.to_numpy(), table[angle])
        columns.append(rng.permutation(low + 3.0 * rng.random(len(low)))[: int(table.yaw.sum()) - 100])
    ypr = np.stack(columns, axis=1)
    drawn = heads.from_arrays(
        ypr, [f"300wlp/{i:06d}" for i in range(len(ypr))], dataset=["300wlp"] * len(ypr), subject=None, sequence=None,
        frame_index=None, photo=[f"300wlp/{i // 32}" for i in range(len(ypr))],
    )  # fmt: skip
    return heads.concatenated([pool, drawn])


def row(pool: heads.Heads, case: dict[str, object]) -> str:
    """Return the line of one case."""
    joint = sample(pool, SamplingConfig(**case))  # type: ignore[arg-type]
    settled = {"size": joint.size, "target": joint.config.target, "sigma_deg": joint.sigma_deg or "auto"}
    plain = sample(pool, SamplingConfig(**settled, mode="independent"))  # type: ignore[arg-type]
    target = joint.config.target if joint.sigma_deg is None else f"sigma {joint.sigma_deg:g}"
    asked = ", ".join(f"{k.removesuffix('_deg')} auto" for k, v in case.items() if v == "auto")
    distances = f"{joint.lower_bound:.4f} | {joint.reached:.4f} | {plain.reached:.4f}"
    return f"| {joint.size:,} | {target} | {asked} | {distances} |"


def split_row(pool: heads.Heads, chosen: SamplingResult, form: str) -> str:
    """Return the line of one split of a sample."""
    division = splits.split(pool.take(chosen.rows), form)
    distances = " | ".join(f"{d:.4f}" for d in division.distance)
    return f"| {form} | {division.share:.3f} | {distances} |"


def main() -> None:
    """Print the tables."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--labels", type=Path, required=True, help="folder with the three lists")
    arguments.add_argument("--out", type=Path)
    chosen = arguments.parse_args()
    pool = read_labels(chosen.labels)
    inside = int((pool.index >= 0).all(axis=1).sum())
    lines = [
        f"AFLW2000 and all of BIWI: {len(pool):,} heads within 99 degrees, {inside:,} inside the bins. Total variation "
        "distance to the target, mean of yaw, pitch and roll.",
        "",
        "| heads | target | chosen automatically | lower bound | reached | plain sampling |",
        "|---:|---|---|---:|---:|---:|",
        *(row(pool, case) for case in CASES),
        "",
        "Splits of the 2,000 heads at sigma 20: share of train, and total variation distance between train and test.",
        "",
        "| split | train | yaw | pitch | roll |",
        "|---|---:|---:|---:|---:|",
    ]
    sampled = sample(pool, SamplingConfig(size=2000, sigma_deg=20.0))
    lines += [split_row(pool, sampled, form) for form in splits.FORMS]
    large = with_300wlp(pool, chosen.labels)
    lines += [
        "",
        f"The same heads and {len(large) - len(pool):,} drawn from the three histograms of 300W-LP's labels, each "
        "angle by itself (a stand-in of the right size, not 300W-LP):",
        "",
        "| heads | target | chosen automatically | lower bound | reached | plain sampling |",
        "|---:|---|---|---:|---:|---:|",
        *(row(large, case) for case in LARGE_CASES),
    ]
    show("How near UBHPD comes to its target", lines, chosen.out)


if __name__ == "__main__":
    main()
