"""From rows of a manifest to heads that a network can be trained on: crops, landmarks, sequences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ubhpd.crops import placed, recipe_named
from ubhpd.errors import UbhpdError
from ubhpd.networks.contract import InputRecipe
from ubhpd.prediction.plan import Plan, plan_of
from ubhpd.progress import Progress
from ubhpd.training.crop_cache import crops_of
from ubhpd.training.distributed import Team
from ubhpd.training.feeding import Rows, TrainingHeads
from ubhpd.training.heads import angles_deg
from ubhpd.training.sample import Floats


@dataclass(frozen=True)
class Assembled:
    """Heads of a table, which of its rows are usable, and sentences on those that are not."""

    heads: TrainingHeads
    usable: Rows
    warnings: tuple[str, ...]


def assembled(table: pa.Table, fingerprint: str, kind: str, recipe: InputRecipe, max_angle_deg: float, *,
              build: Path, cache: Path, seed: int, threads: int, team: Team, progress: Progress,
              say: Callable[[str], None]) -> Assembled:  # fmt: skip
    """Return the rows of a manifest as heads for a network.

    Args:
        table: all rows of the training side.
        fingerprint: of the manifest.
        kind: of the model: picture, sequence or landmarks.
        recipe: its input recipe.
        max_angle_deg: heads with an angle of this size or more are not usable.
        build: folder with build.json.
        cache: folder for crops.
        seed: of a crop recipe that draws.
        threads: for cutting.
        team: its first process cuts, the others wait.
        progress: shows how far the cutting is.
        say: told what is cut.

    Raises:
        UbhpdError: no head is usable, or crops cannot be kept.
    """
    plan = plan_of(table, recipe, fingerprint, seed)
    angles = angles_deg(table)
    is_usable = (np.abs(angles) < max_angle_deg).all(axis=1)
    warnings = _said(np.flatnonzero(~is_usable), plan, f"with an angle of {max_angle_deg:g} degrees or more")
    points = _landmarks(plan, recipe)
    pixels = window = None
    if kind == "landmarks":
        has_points = ~np.isnan(points).all(axis=(1, 2))
        warnings += _said(np.flatnonzero(is_usable & ~has_points), plan, "without landmarks")
        is_usable &= has_points
    else:
        window = plan.before(recipe.frames) if kind == "sequence" else None
        if team.leads:
            crops_of(plan, recipe, build, cache, progress, threads, say)
        team.wait()
        crops = crops_of(plan, recipe, build, cache, progress, threads)
        is_whole = crops.is_cut if window is None else crops.is_cut[window].all(axis=1)
        if crops.problems:
            why = f"whose picture cannot be cut (the first, {crops.problems[0][0]}: {crops.problems[0][1]})"
            warnings += _said(np.flatnonzero(is_usable & ~is_whole), plan, why)
        is_usable &= is_whole
        pixels = crops.pixels
    usable = np.flatnonzero(is_usable)
    if len(usable) < 2:
        raise UbhpdError(f"{len(usable)} of {len(plan):,} heads can be trained on, two at least are needed: "
                         f"{' '.join(warnings) or 'give more data.'}")  # fmt: skip
    known = None if np.isnan(points).all() else points
    heads = TrainingHeads(plan.texts["sample_id"], angles, pixels, known, recipe.size, window)
    return Assembled(heads, usable, warnings)


def _landmarks(plan: Plan, recipe: InputRecipe) -> Floats:
    """Return the 68 points of each head in pixels of its crop (n, 68, 2), NaN where not known."""
    points = np.full((len(plan), 68, 2), np.nan)
    known = ~np.isnan(plan.landmarks).all(axis=(1, 2)) & ~np.isnan(plan.box).any(axis=1)
    recipes = {d: recipe_named(recipe.crop_for(d)) for d in set(plan.texts["dataset"])}
    for row in np.flatnonzero(known).tolist():
        how = recipes[plan.texts["dataset"][row]]
        points[row] = placed(plan.landmarks[row], plan.box[row], how, recipe.size)
    return points


def _said(rows: Rows, plan: Plan, why: str) -> tuple[str, ...]:
    if not len(rows):
        return ()
    return (f"{len(rows):,} of {len(plan):,} heads {why} are left out.",)
