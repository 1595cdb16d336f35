"""Compares the two readings of AFLW's angles with AFLW2000-3D on the photographs that both datasets contain.

    ubhpd build --sources aflw,aflw2000 --data-root DATA --out EXACT
    ubhpd build --sources aflw,aflw2000 --data-root DATA --out FLIP -O aflw.angles=roll-flip
    python benchmarks/aflw_reading.py EXACT FLIP

A photograph counts if AFLW has exactly one face in it. Prints, for each reading, the median geodesic error and the
median absolute error of yaw, pitch and roll against the label of AFLW2000-3D, in degrees.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from ubhpd import manifest
from ubhpd.core.bins import ANGLES
from ubhpd.core.rotation import geodesic_deg, wrap_deg

COLUMNS = ("dataset", "source_photo", "rotation", *(f"{angle}_deg" for angle in ANGLES))


def shared_photographs(pool: Path) -> pd.DataFrame:
    """Return one row per photograph that both datasets contain: its labels in AFLW and in AFLW2000-3D."""
    heads = manifest.read(pool, COLUMNS).to_pandas().dropna(subset=["source_photo", "yaw_deg"])
    aflw = heads[heads["dataset"] == "aflw"].drop_duplicates("source_photo", keep=False)
    aflw2000 = heads[heads["dataset"] == "aflw2000"].drop_duplicates("source_photo", keep=False)
    return aflw.merge(aflw2000, on="source_photo", suffixes=("_aflw", "_aflw2000"))


def errors(photographs: pd.DataFrame) -> dict[str, float]:
    """Return the median errors in degrees."""
    first, second = (np.stack(photographs[f"rotation_{name}"]).reshape(-1, 3, 3) for name in ("aflw", "aflw2000"))
    medians = {"geodesic": float(np.median(geodesic_deg(first, second)))}
    for angle in ANGLES:
        difference = photographs[f"{angle}_deg_aflw"] - photographs[f"{angle}_deg_aflw2000"]
        medians[angle] = float(np.median(np.abs(wrap_deg(difference))))
    return medians


def main() -> None:
    """Compare the builds named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("builds", type=Path, nargs="+", help="folders that ubhpd build wrote")
    for build in parser.parse_args().builds:
        photographs = shared_photographs(build / "pool.parquet")
        if photographs.empty:
            print(f"{build}: AFLW and AFLW2000-3D share no photograph in this build")
            continue
        medians = ", ".join(f"{name} {value:.1f}" for name, value in errors(photographs).items())
        print(f"{build}: {len(photographs):,} photographs; median error in degrees: {medians}")


if __name__ == "__main__":
    main()
