"""Makes UBHPD from a pool: selects the heads, splits them, computes the bin weights, writes OUT/ubhpd.parquet.

The selection uses a few columns as arrays; complete rows are only copied in batches, so memory does not grow with the
landmarks of the pool. The text of a build reports how near the densities are to the target, the splits and the leaks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd import manifest
from ubhpd.core import bins
from ubhpd.core.bins import ANGLES
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing
from ubhpd.core.text import csv_lines, table
from ubhpd.core.typing import AnyArray, FloatArray, IntArray
from ubhpd.manifest.schema import COLUMNS, Column
from ubhpd.quality import checks, decisions
from ubhpd.quality.audit import AuditReport, audit_text
from ubhpd.sampling import heads, splits
from ubhpd.sampling.sampler import SamplingConfig, SamplingResult, sample, sigma_text

UBHPD_COLUMNS: tuple[Column, ...] = (
    *COLUMNS,
    Column("split", pa.string(), "", "", "train or test"),
    *(
        Column(f"bin_{a}", pa.int8(), "", "", f"bin of the {a}, 0 to 14: [-90 + 12 i, -78 + 12 i) degrees")
        for a in bins.ANGLES
    ),
    *(
        Column(f"density_weight_{a}", pa.float64(), "", "", f"test density of its {a} bin divided by train density")
        for a in bins.ANGLES
    ),
)


@dataclass(frozen=True)
class UnbiasedConfig:
    """How UBHPD is made.

    sampling: size, target, sigma, seed, mode. split: a form of splits.FORMS. share: of train. exclude: datasets left
    out, for tests across datasets. decisions: CSV of heads to keep or drop, as `ubhpd review` writes it. drop_flagged:
    leave out heads that the automatic checks flag (`quality`), but for those that a decision keeps.
    """

    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    split: str = "random"
    share: float = splits.SHARE
    exclude: tuple[str, ...] = ()
    decisions: Path | None = None
    drop_flagged: bool = False


@dataclass(frozen=True)
class UnbiasedReport:
    """What was made. `excluded`: usable heads left out by dataset. `decisions`: what they changed, None without."""

    config: UnbiasedConfig
    fingerprint: str
    decisions: dict[str, int] | None
    excluded: int
    sampling: SamplingResult
    split: splits.Split
    counts: dict[str, IntArray]  # "train", "test" -> heads (3, 15)
    datasets: dict[str, dict[str, int]]  # dataset -> side -> heads

    def as_dict(self) -> dict[str, Any]:
        """Return what build.json says of it."""
        return {
            "fingerprint": self.fingerprint,
            "sampling": self.sampling.as_dict(),
            "split": self.split.as_dict(),
            "exclude": list(self.config.exclude),
            "excluded": self.excluded,
            "decisions": self.decisions,
            "counts": {side: table.tolist() for side, table in self.counts.items()},
            "datasets": self.datasets,
        }


def make(out: Path, config: UnbiasedConfig) -> UnbiasedReport:
    """Write OUT/ubhpd.parquet and OUT/densities.csv from OUT/pool.parquet; return what was made.

    Raises:
        UbhpdError: no pool, no usable head in it, an unknown dataset to exclude, or bad decisions.
    """
    pool = out / "pool.parquet"
    table = manifest.read(pool, [*heads.COLUMNS, "drop_detail"])
    table, changed = _decided(pool, table, config)
    table, excluded = _without(table, config.exclude)
    everything = heads.from_table(table)
    result = sample(everything, config.sampling)
    chosen = everything.take(result.rows)
    division = splits.split(chosen, config.split, config.sampling.seed, config.share)
    index = chosen.index
    counts = {s: bins.counts_of_indices(index[division.side == s]).inside for s in (splits.TRAIN, splits.TEST)}
    weights = _weights(counts)
    extra = {"split": division.side}
    for j, angle in enumerate(bins.ANGLES):
        extra[f"bin_{angle}"] = index[:, j].astype(np.int8)
        extra[f"density_weight_{angle}"] = weights[j, index[:, j]]
    rows = _with_columns(manifest.iterate(pool), result.rows, extra)
    mark = manifest.write_parquet(rows, out / "ubhpd.parquet", UBHPD_COLUMNS)
    _write_densities(out / "densities.csv", result, counts, weights)
    names = np.asarray(table.column("dataset").take(pa.array(result.rows)).to_pylist())
    datasets = {str(n): {s: int(((names == n) & (division.side == s)).sum()) for s in counts} for n in np.unique(names)}
    return UnbiasedReport(
        config=config,
        fingerprint=mark,
        decisions=changed,
        excluded=excluded,
        sampling=result,
        split=division,
        counts=counts,
        datasets=datasets,
    )


def _decided(pool: Path, table: pa.Table, config: UnbiasedConfig) -> tuple[pa.Table, dict[str, int] | None]:
    """Return the table after people's decisions and, if wanted, the automatic flags; and what they changed."""
    if config.decisions is None and not config.drop_flagged:
        return table, None
    decided = decisions.read(config.decisions, table.column("sample_id")) if config.decisions else {}
    applied = decisions.apply(table, decided, checks.check_manifest(pool) if config.drop_flagged else None)
    return applied.table, {n: getattr(applied, n) for n in ("rejected", "flagged", "protected", "already_refused")}


def _without(table: pa.Table, datasets: tuple[str, ...]) -> tuple[pa.Table, int]:
    """Return the table with the heads of these datasets out of the running, rows in place, and their number."""
    known = pc.unique(table.column("dataset")).to_pylist()
    by_lower = {name.lower(): name for name in known}
    datasets = tuple(by_lower.get(name.lower(), name) for name in datasets)
    if unknown := [name for name in datasets if name not in known]:
        raise UbhpdError(f"--exclude names {unknown[0]!r}, but the pool holds {', '.join(sorted(known))}.")
    if not datasets:
        return table, 0
    reasons = table.column("drop_reason")
    out = pc.and_(pc.is_in(table.column("dataset"), pa.array(datasets)), reasons.is_null())
    place = table.schema.get_field_index("drop_reason")
    changed = pc.if_else(out, pa.scalar("excluded"), reasons)
    return table.set_column(place, table.schema.field(place), changed), pc.sum(out).as_py() or 0


def _weights(counts: dict[str, IntArray]) -> FloatArray:
    """Return w = d / s (3, 15), d the test density and s that of train; 0 where either split is empty."""
    d, s = bins.densities(counts[splits.TEST]), bins.densities(counts[splits.TRAIN])
    return np.divide(d, s, out=np.zeros_like(d), where=(s > 0) & (d > 0))


def _with_columns(batches: Iterable[pa.RecordBatch], rows: IntArray, extra: dict[str, AnyArray]) -> Iterator[pa.Table]:
    """Yield the chosen rows (ascending) with their further columns."""
    start = 0
    for batch in batches:
        first, last = np.searchsorted(rows, [start, start + batch.num_rows])
        part = pa.Table.from_batches([batch]).take(pa.array(rows[first:last] - start))
        for column in UBHPD_COLUMNS[len(COLUMNS) :]:
            part = part.append_column(column.name, pa.array(extra[column.name][first:last], column.type))
        yield part
        start += batch.num_rows


def _write_densities(path: Path, result: SamplingResult, counts: dict[str, IntArray], weights: FloatArray) -> None:
    """Write heads and densities per angle and bin, of pool, target, UBHPD, train and test, and the weights."""
    heads_of = {"pool": result.counts_before, "ubhpd": result.counts_after, **counts}
    columns: dict[str, Any] = {
        "angle": np.repeat(bins.ANGLES, bins.N_BINS),
        "bin": np.tile(np.arange(bins.N_BINS), len(bins.ANGLES)),
        "low_deg": np.tile(bins.EDGES_DEG[:-1], len(bins.ANGLES)),
        "high_deg": np.tile(bins.EDGES_DEG[1:], len(bins.ANGLES)),
        **{f"{name}_heads": table.ravel() for name, table in heads_of.items()},
        **{f"{name}_density": bins.densities(table).ravel() for name, table in heads_of.items()},
        "target_density": result.target.ravel(),
        "density_weight": weights.ravel(),
    }
    with replacing(path) as part:
        part.write_text(csv_lines([columns, *zip(*columns.values(), strict=True)]), encoding="utf-8", newline="")


def unbiased_text(report: UnbiasedReport, audit: AuditReport, out: Path) -> str:
    """Return the report of a build's second half, for a terminal."""
    sampled, division = report.sampling, report.split
    shape = sampled.config.target if sampled.sigma_deg is None else f"sigma {sigma_text(sampled.sigma_deg)} degrees"
    rows = [["total variation to the target", *ANGLES, "mean"]]
    rows.append(["lower bound, each angle by itself", *map(_share, sampled.lower_bound_per_angle), ""])
    rows.append(["lower bound, all three together", "", "", "", _share(sampled.lower_bound)])
    rows.append(["reached", *map(_share, sampled.reached_per_angle), _share(sampled.reached)])
    rows.append(["between train and test", *map(_share, division.distance), _share(float(np.mean(division.distance)))])
    sides = [["dataset", "train", "test"]]
    sides += [[name, *(f"{n:,}" for n in own.values())] for name, own in report.datasets.items()]
    lines = [
        "",
        f"UBHPD: {sampled.size:,} heads, target {shape}, seed {sampled.config.seed}",
        table(rows),
        "",
        table(_beyond_rows(sampled)),
        _cells_line(sampled),
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
    lines += [f"warning: {sentence}" for sentence in sampled.warnings]
    lines += ["", audit_text(audit), ""]
    lines.append(f"Wrote {out / 'ubhpd.parquet'}, densities.csv, figures/, CARD.md and croissant.json beside it.")
    return "\n".join(lines)


def _beyond_rows(sampled: SamplingResult) -> list[list[str]]:
    """Return the table of the shares of heads turned further than some limits."""
    limits = list(sampled.beyond["pool"])
    head = [f"{angle} > {limit}" for angle in ANGLES for limit in limits]
    rows = [["share beyond, degrees", *head]]
    for name, shares in sampled.beyond.items():
        cells = [f"{shares[limit][j]:.2%}" for j in range(len(ANGLES)) for limit in limits]
        rows.append([name.replace("ubhpd", "UBHPD"), *cells])
    return rows


def _cells_line(sampled: SamplingResult) -> str:
    pool, own = sampled.cells["pool"], sampled.cells["ubhpd"]
    return (
        f"joint cells of yaw, pitch and roll: {own['effective']:,.0f} effective of {own['occupied']:,.0f} occupied in "
        f"UBHPD, {pool['effective']:,.0f} of {pool['occupied']:,.0f} in the pool"
    )


def _share(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.4f}"
