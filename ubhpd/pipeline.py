"""The main job from raw data to UBHPD: pool, sampling, split, audit, figures and card; build.json records it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ubhpd import manifest
from ubhpd.core.files import write_json
from ubhpd.core.parallel import Engine
from ubhpd.core.progress import Progress
from ubhpd.evaluation import pairing
from ubhpd.pool.build import BuildConfig, BuildReport, build
from ubhpd.quality.audit import AuditReport, audit
from ubhpd.sampling import targets
from ubhpd.sampling.ubhpd import UnbiasedConfig, UnbiasedReport, make

_AUDITED = (
    "sample_id", "dataset", "subject_id", "sequence_id", "frame_index", "flip_of", "source_photo", "drop_reason",
    "split",
)  # fmt: skip


@dataclass
class Made:
    """What was made: the pool and, unless only the pool was asked for, UBHPD and what leaks between its splits."""

    pool: BuildReport
    unbiased: UnbiasedReport | None = None
    audit: AuditReport | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the content of build.json."""
        content = self.pool.as_dict()
        if self.unbiased is not None and self.audit is not None:
            content |= {"unbiased": self.unbiased.as_dict(), "audit": self.audit.as_dict()}
        return content


def run(config: BuildConfig, unbiased: UnbiasedConfig | None, engine: Engine, progress: Progress) -> Made:
    """Build the pool and, with `unbiased`, UBHPD and everything that comes with it; return what was made.

    Raises:
        UbhpdError: as `build.build` and `unbiased.make`; the pool stays if only the second step fails.
    """
    if unbiased is not None and unbiased.sampling.target not in targets.NAMES:
        targets.from_file(unbiased.sampling.target)  # a file that does not do is said before the pool is read
    made = Made(build(config, engine, progress))
    if unbiased is None or config.shard is not None:
        return made
    with progress.step("sampling"):
        made.unbiased = make(config.out, unbiased)
    if config.hdf5:
        with progress.step("writing ubhpd.h5"):
            manifest.write_hdf5(config.out / "ubhpd.parquet", config.out / "ubhpd.h5")
    made.audit = audit(manifest.read(config.out / "ubhpd.parquet", _AUDITED))
    write_json(made.as_dict(), config.out / "build.json")
    _illustrate(config, progress)
    pairing.remember(config.out)
    return made


def _illustrate(config: BuildConfig, progress: Progress) -> None:
    from ubhpd.reports import card, croissant, figures

    with progress.step("drawing figures"):
        figures.write(config.out)
    with progress.step("writing the card"):
        card.write_card(config.out)
        croissant.write_croissant(config.out)
