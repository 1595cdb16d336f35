"""Heads for the bins that real data leaves thin: `ubhpd synth --fill rare`.

What counts are the 15 bins of 12 degrees of each angle (`ubhpd.bins`) and the usable real heads of a pool. For every
bin with fewer than wanted, heads are drawn: that angle evenly within the bin, the other two as some head of the pool
has them. They stand in the layout of SynHead, so that they are read as such and are always marked synthetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd import manifest
from ubhpd.bins import ANGLES, EDGES_DEG, N_BINS, bin_index, counts
from ubhpd.errors import UbhpdError
from ubhpd.progress import Progress
from ubhpd.synth import synhead
from ubhpd.synth.files import Work
from ubhpd.synth.heads import Pose
from ubhpd.synth.job import MIN_SIDE_PX, claim, write_truth

Array = npt.NDArray[np.float64]

_FOLDER = "kinect"  # of SynHead's; not BIWI, whose tracks the reader compares with BIWI itself
_TRACK_FRAMES = 200
_EDGE_DEG = 1.5  # kept from +-90, where yaw is no longer unique
_FIRST_SUBJECT = 2_000_000_000  # people that no other command draws
_SALT = 137


@dataclass(frozen=True)
class FillConfig:
    """What to fill: every bin of the pool with fewer than `per_bin` real heads; `size` of a picture in pixels."""

    pool: str
    per_bin: int
    size: int | None = None
    seed: int = 0

    def check(self) -> None:
        """Raise UbhpdError if these settings cannot be meant."""
        if self.per_bin < 1:
            raise UbhpdError(f"--per-bin is {self.per_bin}: give 1 or more.")
        if self.size is not None and self.size < MIN_SIDE_PX:
            raise UbhpdError(f"--size is {self.size}: give {MIN_SIDE_PX} pixels or more.")


class Filled(NamedTuple):
    """What was done: heads in each bin (3, 15) of the pool and of the drawn ones, and how many were drawn."""

    before: npt.NDArray[np.int64]
    drawn: npt.NDArray[np.int64]
    heads: int


def fill(config: FillConfig, out: Path, jobs: int, progress: Progress) -> Filled:
    """Write heads for the thin bins of a pool below `out` and return what was found and drawn.

    Raises:
        UbhpdError: impossible settings, no such pool, a folder that holds something else, or a full disk.
    """
    config.check()
    real = _real_poses(Path(config.pool))
    people = synhead.HEADS
    poses = rare_poses(real, config.per_bin, len(people), np.random.default_rng([_SALT, config.seed]))
    found = Filled(counts(real).inside, counts(poses).inside * len(people), len(poses) * len(people))
    if not len(poses):
        return found
    fingerprint = [int(n) for n in found.before.ravel()]
    claim(
        out, {"fill": "rare", "per_bin": config.per_bin, "size": config.size, "seed": config.seed, "pool": fingerprint}
    )
    rows: list[Pose] = [(yaw, pitch, roll) for yaw, pitch, roll in poses.tolist()]
    replay = {(_FOLDER, i // _TRACK_FRAMES): rows[i : i + _TRACK_FRAMES] for i in range(0, len(rows), _TRACK_FRAMES)}
    with progress.step("drawing rare heads") as report:
        truth = synhead.write(
            out, heads=people, replay=replay, backdrops=True, seed=config.seed, side_px=config.size or synhead.SIDE_PX,
            first_subject=_FIRST_SUBJECT + len(people) * config.seed, work=Work(jobs, keep=True, report=report),
        )  # fmt: skip
    write_truth(truth, out)
    return found


def rare_poses(real: Array, per_bin: int, people: int, rng: np.random.Generator) -> Array:
    """Return poses (n, 3), yaw, pitch, roll in degrees, that bring every bin to `per_bin` heads.

    Args:
        real: poses (m, 3) that are there.
        per_bin: heads that every bin of every angle shall have at least.
        people: how many heads are drawn with each pose.
        rng: decides which.
    """
    found = np.empty((0, len(ANGLES)))
    rest = np.clip(real, -88.0, 88.0) if len(real) else np.zeros((1, len(ANGLES)))
    for angle in range(len(ANGLES)):
        for number in range(N_BINS):
            have = np.count_nonzero(bin_index(real[:, angle]) == number)
            have += people * np.count_nonzero(bin_index(found[:, angle]) == number)
            missing = -(-max(per_bin - have, 0) // people)
            low, high = np.clip(EDGES_DEG[[number, number + 1]], -90.0 + _EDGE_DEG, 90.0 - _EDGE_DEG)
            poses = rest[rng.integers(len(rest), size=missing)].copy()
            poses[:, angle] = rng.uniform(low, high, missing)
            found = np.concatenate([found, poses])
    return found


def _real_poses(pool: Path) -> Array:
    """Return yaw, pitch, roll (n, 3) of the usable heads of a pool that are no renderings."""
    names = ["drop_reason", "synthetic", *(f"{a}_deg" for a in ANGLES)]
    table = manifest.read(pool, names).to_pandas()
    kept = table[table.drop_reason.isna() & ~table.synthetic.fillna(False).astype(bool)]
    return np.asarray(kept[names[2:]], dtype=np.float64).reshape(-1, len(ANGLES))
