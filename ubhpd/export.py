"""Exports: crops or whole pictures of a built dataset, with their labels, in formats that other code reads.

The heads are cut into units of some hundred, in the order of their pictures, so that a video is read through once
and a picture with many faces is decoded once. A unit is written by a worker and marked when all of it is on disk.
The last step puts everything into the manifest's order: the bytes do not depend on the number of workers.
"""

from __future__ import annotations

import importlib
import pkgutil
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import cast

import numpy as np

from ubhpd import __version__, exports, manifest
from ubhpd.crops import Picture, recipe_named
from ubhpd.errors import UbhpdError
from ubhpd.exports import _plan as plan
from ubhpd.exports._heads import read_heads
from ubhpd.exports._job import Canvas, ExportConfig, ExportReport, Format, Job
from ubhpd.exports._unit import Unit, forget, run
from ubhpd.files import write_json
from ubhpd.progress import Progress
from ubhpd.raw.images import Images
from ubhpd.recipes import Recipe
from ubhpd.workers import Engine

__all__ = ["ExportConfig", "ExportReport", "export", "formats"]

MANIFESTS = ("ubhpd.parquet", "pool.parquet", "pool.h5")


@lru_cache(maxsize=1)
def formats() -> dict[str, Format]:
    """Return the formats by name."""
    found = [i.name for i in pkgutil.iter_modules(exports.__path__) if not i.name.startswith("_")]
    modules = [cast(Format, importlib.import_module(f"{exports.__name__}.{name}")) for name in found]
    return {m.CARD.name: m for m in sorted(modules, key=lambda m: m.CARD.name)}


def export(config: ExportConfig, engine: Engine | None = None, progress: Progress | None = None,
           say: Callable[[str], None] = lambda text: None) -> ExportReport:  # fmt: skip
    """Write an export and return what it holds.

    Args:
        config: what to export.
        engine: where the units run; one process by default.
        progress: what to tell about it; nothing by default.
        say: is told the expected size before the work begins.

    Raises:
        UbhpdError: no such format, recipe or split; no head with a box; a folder with something else in it; too little
            room on the disk; pictures that cannot be read.
    """
    engine, progress = engine or Engine(), progress or Progress(show=False)
    engine.check()
    form, recipe, size = _checked(config)
    card = form.CARD
    path = _manifest_at(config.place)
    build = path.absolute().parent
    with progress.step("reading the manifest"):
        heads = read_heads(path, recipe, config.split, config.seed, face=card.faces, points=card.points)
    if not len(heads):
        raise UbhpdError(f"{path} has no usable head with a box for the recipe {recipe.name}: nothing to export.")
    report = ExportReport(
        __version__, card.name, asdict(recipe), size, config.split, config.picture, config.seed,
        manifest.header(path).fingerprint, out=str(config.out or _default_out(path, config, recipe, size)),
    )  # fmt: skip
    out = Path(report.out)
    names = plan.file_names(card, config, plan.copies(card, recipe, size), heads)
    say(plan.room(plan.expected_bytes(card, config, recipe, size, heads, build), out))
    plan.claim(out, report)
    job = Job(recipe, size, plan.colour(card, recipe), heads, out, out / plan.WORK, names, report.fingerprint)
    canvas = None
    failed: dict[int, str] = {}
    if card.pictures == "array":
        if not any(p for p in job.work.iterdir() if p.is_file() and p.name != plan.MARK):
            shutil.rmtree(job.work / plan.MARKS, ignore_errors=True)  # marks without what they speak of
        canvas = form.begin(job)
    if card.pictures != "none":
        units = plan.units(card, config, recipe, size, heads, names, build, out, canvas)
        failed, report.units_kept = _run(units, engine, progress)
    first = failed[min(failed)].rstrip(".") if failed else ""
    if len(failed) == len(heads):
        raise UbhpdError(f"None of the pictures of {len(heads):,} heads can be read; the first: {first}.")
    if failed and not config.skip_unreadable:
        raise UbhpdError(
            f"The pictures of {len(failed):,} of {len(heads):,} heads cannot be read (the first: {first}): bring them "
            "back and run this again, what is done is kept, or leave them out with --skip-unreadable."
        )
    kept = [i for i in range(len(heads)) if i not in failed]
    report.unreadable = [heads.texts["sample_id"][i] for i in sorted(failed)]
    pixels = None if canvas is None else _pixel_reader(canvas, (len(heads), size or 0, size or 0, 3), kept)
    heads = heads.only(kept) if failed else heads
    with progress.bar(f"writing {card.name}", len(heads)) as advance:
        names = [names[i] for i in kept]
        job = replace(job, heads=heads, names=names, pixels=pixels, is_whole=not failed, advance=advance)
        report.files = form.write(job)
    report.heads = {s: len(rows) for s, rows in heads.splits().items()}
    report.box_sources, report.without_box = heads.sources(recipe), heads.without_box
    write_json(report.as_dict(), out / plan.MARK)
    shutil.rmtree(out / plan.WORK, ignore_errors=True)
    return report


def _checked(config: ExportConfig) -> tuple[Format, Recipe, int | None]:
    if config.form not in formats():
        raise UbhpdError(f"No export format is called {config.form!r}: choose from {', '.join(formats())}.")
    form = formats()[config.form]
    card = form.CARD
    recipe = recipe_named(config.recipe or card.recipe)
    size = config.size if config.size is not None else recipe.size
    if size is not None and not 8 <= size <= 4096:
        raise UbhpdError(f"--size is {size}: give the side of the crops in pixels, 8 to 4096.")
    if card.pictures == "array" and size is None:
        raise UbhpdError(f"The recipe {recipe.name} has no size of its own: add --size for the format {card.name}.")
    if config.picture not in ("png", "jpg"):
        raise UbhpdError(f"--picture is {config.picture!r}: choose png or jpg.")
    if config.unit_heads < 1:
        raise UbhpdError(f"A unit of {config.unit_heads} heads is impossible: give 1 or more.")
    if not card.crops and (recipe.shape != "picture" or size is not None):
        raise UbhpdError(f"The format {card.name} holds whole pictures, its loaders crop: drop --recipe and --size.")
    return form, recipe, size


def _manifest_at(place: Path) -> Path:
    """Return the manifest in the folder of a build, the sampled dataset before the pool, or the file itself."""
    found = [place / n for n in MANIFESTS if (place / n).is_file()] if place.is_dir() else [place]
    if not found:
        raise UbhpdError(f"{place} holds no ubhpd.parquet or pool.parquet: name the folder that ubhpd build wrote to.")
    return found[0]


def _default_out(path: Path, config: ExportConfig, recipe: Recipe, size: int | None) -> Path:
    words = (path.stem, config.form, recipe.name, str(size or ""), config.split or "")
    return path.parent / "exports" / "-".join(w for w in words if w)


def _run(units: list[Unit], engine: Engine, progress: Progress) -> tuple[dict[int, str], int]:
    """Run the units that are not done; return the rows that failed with why, and how many units were done before."""
    failed: dict[int, str] = {}
    waiting = [u for u in units if not Path(u.mark).is_file()]
    _open_once(waiting)
    with progress.bar("cropping heads", sum(len(u.rows) for u in waiting)) as advance:
        try:
            for done in engine.map(partial(run, session=uuid.uuid4().hex), waiting):
                failed |= dict(done.failed)
                advance(done.heads)
        finally:
            forget()
    return failed, len(units) - len(waiting)


def _open_once(units: list[Unit]) -> None:
    """Open each dataset before the workers do, so that a compressed archive is read through by one of us only."""
    firsts = {row.dataset: row.image_path for unit in units for row in unit.rows[:1]}
    for dataset, image_path in firsts.items():
        with suppress(UbhpdError):  # told of each head when its turn comes
            Images.of_build(Path(units[0].build)).data(dataset, image_path)


def _pixel_reader(canvas: Canvas, shape: tuple[int, ...], kept: list[int]) -> Callable[[int], Picture]:
    """Return a function that gives the crop of a kept head; the pixels stay on disk."""
    rows: Picture = np.memmap(canvas.path, np.uint8, "r", canvas.offset, shape)

    def pixels(row: int) -> Picture:
        face: Picture = rows[kept[row]]
        return face

    return pixels
