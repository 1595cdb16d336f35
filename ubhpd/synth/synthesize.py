"""The work of `ubhpd synth`: folders of synthetic datasets, finished by the same command if it was interrupted.

Heads for the bins that real data leaves thin: `ubhpd synth --fill rare`.

What counts are the 15 bins of 12 degrees of each angle (`ubhpd.core.bins`) and the usable real heads of a pool. For
every bin with fewer than wanted, heads are drawn: that angle evenly within the bin, the other two as some head of the
pool has them. They stand in the layout of SynHead, so that they are read as such and are always marked synthetic.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ubhpd import __version__, manifest
from ubhpd.core.bins import ANGLES, EDGES_DEG, N_BINS, bin_index, counts
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import locked, replacing, write_json
from ubhpd.core.progress import Progress
from ubhpd.core.text import csv_lines
from ubhpd.core.typing import FloatArray, IntArray
from ubhpd.manifest import BuildFolder
from ubhpd.raw.source import RENDERED, RENDERED_MARK
from ubhpd.synth.rendered_heads import Head, Pose, Truth, draw_heads, draw_movement, draw_poses
from ubhpd.synth.writers import aflw2000_writer, aflw_writer, biwi_writer, synhead_writer, upna_writer, w300lp_writer
from ubhpd.synth.writers.writer_files import FACE_SIDE_PX, Work, write_bytes

SETTINGS = "synth.json"
_MARK_TEXT = """ubhpd synth rendered the heads in this folder; they are no photographs of people.
A build ends their ids with @rendered, so that they are not taken for the real dataset's: keep this file.
"""
TRUTH = "truth.csv"
MIN_SIDE_PX = 32

_PEOPLE_BLOCK = 100_000  # subjects a source of a seed may use: sources and seeds share no face
_VIEWS = 4  # images of a photo of 300W-LP
_FRAMES = 60  # about as many in a recording, at least
_SALT = 131


@dataclass(frozen=True)
class SynthConfig:
    """What to write: `heads` images of each source, `size` the side of face images (None as in the originals)."""

    sources: tuple[str, ...]
    heads: int
    size: int | None = None
    seed: int = 0

    def check(self) -> None:
        """Raise UbhpdError if these settings cannot be meant."""
        if unknown := [name for name in self.sources if name not in WRITERS]:
            raise UbhpdError(f"There is no writer of {', '.join(unknown)}: --sources takes {', '.join(WRITERS)}.")
        if not self.sources:
            raise UbhpdError(f"No source is named: --sources takes {', '.join(WRITERS)}.")
        if self.heads < 1:
            raise UbhpdError(f"--heads is {self.heads}: give 1 or more.")
        if self.size is not None and self.size < MIN_SIDE_PX:
            raise UbhpdError(f"--size is {self.size}: give {MIN_SIDE_PX} pixels or more.")
        if self.seed < 0:
            raise UbhpdError(f"--seed is {self.seed}: give 0 or more.")

    @property
    def rng(self) -> np.random.Generator:
        """Return the generator of the poses and people of a source."""
        return np.random.default_rng([_SALT, self.seed])

    def first_subject(self, source: str) -> int:
        """Return the first of the subjects that belong to a source and to this seed alone."""
        return 1 + (self.seed * len(WRITERS) + list(WRITERS).index(source)) * _PEOPLE_BLOCK


def write_sources(config: SynthConfig, out: Path, jobs: int, progress: Progress) -> dict[str, int]:
    """Write datasets below `out` and return how many heads each has; their poses go to `out`/truth.csv.

    Raises:
        UbhpdError: impossible settings, a folder that holds something else, or a full disk.
    """
    config.check()
    with locked(out, is_file=True):
        return _write_sources(config, out, jobs, progress)


def _write_sources(config: SynthConfig, out: Path, jobs: int, progress: Progress) -> dict[str, int]:
    claim(out, asdict(config))
    truth: Truth = {}
    heads = {}
    for source in config.sources:
        with progress.step(f"drawing {source}") as report:
            written = WRITERS[source](config, out, Work(jobs, keep=True, report=report))
        heads[source] = len(written)
        truth |= written
    mark_rendered(out)
    write_truth(truth, out)
    return heads


def mark_rendered(out: Path) -> None:
    """Write the file by which a build knows the datasets in a folder as rendered."""
    for folder in sorted(p for p in out.iterdir() if p.is_dir()):
        with replacing(folder / RENDERED_MARK) as part:
            part.write_text(_MARK_TEXT, encoding="utf-8")


def claim(out: Path, settings: dict[str, Any]) -> None:
    """Make a folder for what these settings give, or take up the one that was begun with them.

    Raises:
        UbhpdError: it holds anything else.
    """
    wanted = json.loads(json.dumps({"ubhpd": __version__, **settings}))
    if out.exists() and not out.is_dir():
        raise UbhpdError(f"{out} is a file: give a folder as --out.")
    if out.is_dir() and any(out.iterdir()):
        try:
            found = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise UbhpdError(f"{out} is not empty and was not made by ubhpd synth: give another --out.") from None
        if found != wanted:
            raise UbhpdError(f"{out} was made with other settings (see {out / SETTINGS}): give those or another --out.")
        for part in out.rglob(".*.part*"):  # of a run that was killed
            part.unlink(missing_ok=True)
    write_json(wanted, out / SETTINGS)


def write_truth(truth: Truth, out: Path) -> None:
    """Write the table of the poses that were drawn, sample_id and yaw, pitch, roll in degrees."""
    header = ("sample_id", "yaw_deg", "pitch_deg", "roll_deg")
    rows = ((f"{sample_id}{RENDERED}", *pose) for sample_id, pose in sorted(truth.items()))
    write_bytes(out / TRUTH, csv_lines([header, *rows]).encode())


def _heads(config: SynthConfig, source: str) -> list[Head]:
    """Return heads turned as the source's are; a person comes about three times."""
    rng = config.rng
    poses = draw_poses(source, config.heads, rng)
    people = 1 + config.heads // 3
    return draw_heads(config.heads, rng, people, first_subject=config.first_subject(source), poses=poses)


def _aflw(config: SynthConfig, out: Path, work: Work) -> Truth:
    heads = _heads(config, "aflw")
    return aflw_writer.write(out, heads, seed=config.seed, undefined_poses=0, without_rect=0, work=work)


def _aflw2000(config: SynthConfig, out: Path, work: Work) -> Truth:
    side = config.size or FACE_SIDE_PX
    return aflw2000_writer.write(
        out, _heads(config, "aflw2000"), seed=config.seed, quirks=False, side_px=side, work=work
    )


def _w300lp(config: SynthConfig, out: Path, work: Work) -> Truth:
    """Write photos with views that turn farther and farther to the side."""
    heads, rng = _heads(config, "300wlp"), np.random.default_rng([_SALT, config.seed, 1])
    ordered: list[Head] = []
    for start in range(0, len(heads), _VIEWS):
        views = sorted(heads[start : start + _VIEWS], key=lambda h: abs(h.yaw_deg))
        photo, side = views[0], float(rng.choice([-1.0, 1.0]))
        for head, wobble in zip(views, rng.normal(0.0, 1.0, (len(views), 2)).tolist(), strict=True):
            pose = (side * abs(head.yaw_deg), photo.pitch_deg + wobble[0], photo.roll_deg + wobble[1])
            ordered.append(photo._replace(yaw_deg=pose[0], pitch_deg=pose[1], roll_deg=pose[2]))
    return w300lp_writer.write(
        out, ordered, seed=config.seed, views=_VIEWS, side_px=config.size or FACE_SIDE_PX, work=work
    )


def _biwi(config: SynthConfig, out: Path, work: Work) -> Truth:
    rng = config.rng
    shares = np.array_split(np.arange(config.heads), min(24, -(-config.heads // _FRAMES)))
    poses = {n: [_pose(row) for row in draw_movement("biwi", len(s), rng)] for n, s in enumerate(shares, start=1)}
    return biwi_writer.write(out, poses=poses, seed=config.seed, first_subject=config.first_subject("biwi"), work=work)


def _upna(config: SynthConfig, out: Path, work: Work) -> Truth:
    recordings = min(120, -(-config.heads // _FRAMES))
    users = min(10, recordings)
    videos = -(-recordings // users)
    return upna_writer.write(
        out, range(1, users + 1), range(1, videos + 1), seed=config.seed, frames=-(-config.heads // (users * videos)),
        first_subject=config.first_subject("upna"), work=work,
    )  # fmt: skip


def _synhead(config: SynthConfig, out: Path, work: Work) -> Truth:
    models = synhead_writer.HEADS[: min(10, -(-config.heads // _FRAMES))]
    tracks = [(name, n) for name, count in synhead_writer.TRACKS.items() for n in range(count)]
    chosen = tracks[: -(-config.heads // (len(models) * 10 * _FRAMES))]
    frames, rng = -(-config.heads // (len(models) * len(chosen))), config.rng
    return synhead_writer.write(
        out, heads=models, replay={t: [_pose(row) for row in draw_movement("biwi", frames, rng)] for t in chosen},
        seed=config.seed, side_px=config.size or synhead_writer.SIDE_PX, first_subject=config.first_subject("synhead"),
        work=work,
    )  # fmt: skip


def _pose(row: Any) -> tuple[float, float, float]:
    yaw, pitch, roll = row.tolist()
    return yaw, pitch, roll


# By the names of the builders that read what they write.
WRITERS: dict[str, Callable[[SynthConfig, Path, Work], Truth]] = {
    "biwi": _biwi,
    "aflw": _aflw,
    "aflw2000": _aflw2000,
    "300wlp": _w300lp,
    "upna": _upna,
    "synhead": _synhead,
}


_FOLDER = "kinect"  # of SynHead's; not BIWI, whose tracks the reader compares with BIWI itself
_TRACK_FRAMES = 200
_EDGE_DEG = 1.5  # kept from +-90, where yaw is no longer unique
_FIRST_SUBJECT = 2_000_000_000  # people that no other command draws
_RARE_SALT = 137


@dataclass(frozen=True)
class FillConfig:
    """What to fill: every bin of the pool with fewer than `per_bin` real heads; `size` of an image in pixels."""

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

    before: IntArray
    drawn: IntArray
    heads: int


def fill(config: FillConfig, out: Path, jobs: int, progress: Progress) -> Filled:
    """Write heads for the thin bins of a pool below `out` and return what was found and drawn.

    Raises:
        UbhpdError: impossible settings, no such pool, a folder that holds something else, or a full disk.
    """
    config.check()
    real = _real_poses(Path(config.pool))
    people = synhead_writer.HEADS
    poses = rare_poses(real, config.per_bin, len(people), np.random.default_rng([_RARE_SALT, config.seed]))
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
        truth = synhead_writer.write(
            out, heads=people, replay=replay, backdrops=True, seed=config.seed,
            side_px=config.size or synhead_writer.SIDE_PX,
            first_subject=_FIRST_SUBJECT + len(people) * config.seed, work=Work(jobs, keep=True, report=report),
        )  # fmt: skip
    mark_rendered(out)
    write_truth(truth, out)
    return found


def rare_poses(real: FloatArray, per_bin: int, people: int, rng: np.random.Generator) -> FloatArray:
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


def _real_poses(pool: Path) -> FloatArray:
    """Return yaw, pitch, roll (n, 3) of the usable heads of a pool that are no renderings."""
    names = ["drop_reason", "synthetic", *(f"{a}_deg" for a in ANGLES)]
    table = manifest.read(BuildFolder.at(pool).pool(), names).to_pandas()
    kept = table[table.drop_reason.isna() & ~table.synthetic.fillna(False).astype(bool)]
    return np.asarray(kept[names[2:]], dtype=np.float64).reshape(-1, len(ANGLES))
