"""What a build says of UBHPD: how near the densities came to the target, what each side holds, what leaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ubhpd.bins import ANGLES
from ubhpd.checking.audit import AuditReport, audit_text
from ubhpd.sampler.unbiased import UnbiasedReport
from ubhpd.text import table


def unbiased_text(report: UnbiasedReport, audit: AuditReport, out: Path) -> str:
    """Return the report of a build's second half, for a terminal."""
    sampled, division = report.sampling, report.split
    shape = f"sigma {sampled.sigma_deg:g} degrees" if sampled.sigma_deg is not None else sampled.config.target
    rows = [["total variation to the target", *ANGLES, "mean"]]
    rows.append(["floor, each angle by itself", *map(_share, sampled.floor_per_angle), ""])
    rows.append(["floor, all three together", "", "", "", _share(sampled.floor)])
    rows.append(["reached", *map(_share, sampled.reached_per_angle), _share(sampled.reached)])
    rows.append(["between train and test", *map(_share, division.distance), _share(float(np.mean(division.distance)))])
    sides = [["dataset", "train", "test"]]
    sides += [[name, *(f"{n:,}" for n in own.values())] for name, own in report.datasets.items()]
    lines = [
        "",
        f"UBHPD: {sampled.size:,} heads, target {shape}, seed {sampled.config.seed}",
        table(rows),
        "",
        table(sides),
    ]
    lines.append(f"split by {division.form}: {division.share:.1%} train")
    if report.excluded:
        lines.append(f"{report.excluded:,} heads of {', '.join(report.config.exclude)} left out")
    if report.decisions is not None:
        own = report.decisions
        lines.append(
            f"decisions: {own['rejected']:,} heads rejected by people, {own['flagged']:,} dropped as flagged, "
            f"{own['protected']:,} flagged but kept"
        )
    lines += sampled.notes
    lines += ["", audit_text(audit), ""]
    lines.append(f"Wrote {out / 'ubhpd.parquet'}, densities.csv, figures/, CARD.md and croissant.json beside it.")
    return "\n".join(lines)


def _share(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.4f}"
