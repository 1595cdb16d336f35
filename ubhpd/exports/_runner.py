"""The plan of an export: names of its files, the units of work, the room it takes, and whose folder it writes to.

Exports: crops or whole images of a built dataset, with their labels, in formats that other code reads.

The heads are cut into units of some hundred, in the order of their images, so that a video is read through once
and an image with many faces is decoded once. A unit is written by a worker and marked when all of it is on disk.
The last step puts everything into the manifest's order: the bytes do not depend on the number of workers.

What an export tells its user, and the lists of formats and recipes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ubhpd import __version__, exports, manifest
from ubhpd.core import registry
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import locked, write_json
from ubhpd.core.parallel import Engine
from ubhpd.core.progress import Progress
from ubhpd.core.text import table
from ubhpd.core.typing import Image
from ubhpd.exports._crops import (
    Canvas,
    Card,
    ExportConfig,
    ExportReport,
    Format,
    Heads,
    Job,
    Row,
    Unit,
    forget,
    read_heads,
    run,
)
from ubhpd.images.crops import recipe_named
from ubhpd.images.reading import Images
from ubhpd.images.recipes import FACE_SOURCES, RECIPES, Recipe
from ubhpd.manifest import BuildFolder
from ubhpd.raw.image_files import VIDEO_SUFFIXES

_LOG = logging.getLogger(__name__)

WORK = "work"  # folder in the export with the parts of one that is not finished
MARK = "export.json"
MARKS = "done"  # folder in WORK, a file for each finished unit

_IDENTITY = ("ubhpd", "format", "recipe", "size", "split", "image", "seed", "fingerprint")
_PNG_SHARE, _JPEG_SHARE = 0.7, 0.25  # of the pixels' bytes, on the safe side
_SAMPLED = 16  # images whose files stand for all
_NEVER_IN_A_NAME = ("\\", "\n", "\r", "\0", "//")


def copies(card: Card, recipe: Recipe, size: int | None) -> bool:
    """Return True if the export holds the images as they are."""
    return card.images == "files" and recipe.shape == "image" and size is None


def claim(out: Path, report: ExportReport) -> None:
    """Make the folder this export's own.

    Raises:
        UbhpdError: it holds another export or somebody's files, or cannot be written to.
    """
    wanted = json.loads(json.dumps({k: v for k, v in report.as_dict().items() if k in _IDENTITY}))
    marks = [m for m in (out / MARK, out / WORK / MARK) if m.is_file()]
    for mark in marks:
        try:
            found = json.loads(mark.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {}
        if {k: found.get(k) for k in _IDENTITY} != wanted:
            what = f"{found.get('format', 'damaged')} of {str(found.get('fingerprint', ''))[:8]}"
            raise UbhpdError(f"{out} holds another export ({what}): remove it, or name a new folder with --out.")
    if not marks and out.exists() and (not out.is_dir() or any(p.name != WORK for p in out.iterdir())):
        raise UbhpdError(f"{out} is there and is no export: name a new folder with --out.")
    try:
        write_json(wanted, out / WORK / MARK)
    except OSError as error:
        raise UbhpdError(f"Cannot write to {out} ({error.strerror}): choose another --out.") from None


def file_names(card: Card, config: ExportConfig, is_copy: bool, heads: Heads) -> list[str]:
    """Return each head's image file below the export's folder; empty names for a format without files.

    Raises:
        UbhpdError: a sample id cannot be the name of a file.
    """
    if card.images != "files":
        return [""] * len(heads)
    names = []
    for i, sample_id in enumerate(heads.texts["sample_id"]):
        path = PurePosixPath(heads.texts["image_path"][i])
        is_video = path.suffix.lower() in VIDEO_SUFFIXES
        suffix = ".jpg" if card.jpeg else f".{config.image}" if not is_copy else ".png" if is_video else path.suffix
        stem = sample_id
        if is_copy and card.faces and not card.points:  # an image with several heads is there once
            frame = f"/frame_{int(heads.frame[i]):05d}" if is_video else ""
            stem = f"{heads.texts['dataset'][i]}/{path.with_suffix('')}{frame}"
        name = f"{card.folder.format(split=heads.texts['split'][i] or 'train')}/{stem}{suffix}"
        if ".." in name.split("/") or any(c in name for c in _NEVER_IN_A_NAME):
            raise UbhpdError(f"{sample_id!r} cannot be the name of a file: rename that sample.")
        names.append(name)
    return names


def plan_units(
    card: Card, config: ExportConfig, recipe: Recipe, size: int | None, heads: Heads, names: list[str],
    build: Path, out: Path, canvas: Canvas | None,
) -> list[Unit]:  # fmt: skip
    """Return the units: heads in the order of images and frames, cut only between images and between videos."""
    is_copy = copies(card, recipe, size)
    kind = "array" if card.images == "array" else "copies" if is_copy else "crops"
    datasets, paths = heads.texts["dataset"], heads.texts["image_path"]
    boxes, sizes, frames = heads.box.tolist(), heads.size.tolist(), heads.frame.tolist()
    rows = [
        Row(
            row=i,
            dataset=datasets[i],
            image_path=paths[i],
            frame=frames[i],
            size=(sizes[i][0], sizes[i][1]),
            box=tuple(boxes[i]),
            name=names[i],
        )
        for i in sorted(range(len(heads)), key=lambda i: (datasets[i], paths[i], frames[i], i))
    ]
    groups: list[list[Row]] = []
    for row in rows:
        if not groups or (len(groups[-1]) >= config.unit_heads and groups[-1][-1][1:3] != row[1:3]):
            groups.append([])
        groups[-1].append(row)
    found = []
    for number, group in enumerate(groups):
        identity = repr((__version__, group, recipe, size, colour(card, recipe), kind))
        mark = out / WORK / MARKS / f"{number:05d}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.json"
        channels = colour(card, recipe)
        found.append(
            Unit(
                build=str(build),
                out=str(out),
                mark=str(mark),
                canvas=canvas,
                rows=tuple(group),
                recipe=recipe,
                size=size,
                colour=channels,
                kind=kind,
            )
        )
    return found


def colour(card: Card, recipe: Recipe) -> str:
    """Return the channels' order in the pixels; OpenCV wants BGR to write a file, whose colours are then true."""
    return card.colour or ("BGR" if card.images == "files" else recipe.colour)


def expected_bytes(
    card: Card, config: ExportConfig, recipe: Recipe, size: int | None, heads: Heads, build: Path
) -> int:
    """Return about how many bytes the export will take, those of its parts included."""
    if card.images == "none":
        return 500 * len(heads)
    if copies(card, recipe, size):
        return _bytes_of_copies(card, heads, build)
    pixels = (size or 0) ** 2 * 3 * len(heads)
    if card.images == "array":
        return pixels if card.in_place else 2 * pixels
    return int(pixels * (_JPEG_SHARE if card.jpeg or config.image == "jpg" else _PNG_SHARE))


def room(expected: int, out: Path) -> str:
    """Return a sentence on the room it takes and the room there is.

    Raises:
        UbhpdError: there is too little.
    """
    place = next(p for p in (out, *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if expected > free:
        raise UbhpdError(
            f"The export needs about {_sized(expected)}, {place} has {_sized(free)} free: choose another --out, a "
            "smaller --size or one --split."
        )
    return f"Takes about {_sized(expected)} while it runs; {_sized(free)} are free."


def _bytes_of_copies(card: Card, heads: Heads, build: Path) -> int:
    images, seen = Images.of_build(build), []
    datasets, paths = heads.texts["dataset"], heads.texts["image_path"]
    for i in np.unique(np.linspace(0, len(heads) - 1, _SAMPLED).astype(int)).tolist():
        if paths[i].lower().endswith(VIDEO_SUFFIXES):
            seen.append(float(np.prod(heads.size[i]) * 3 * (_JPEG_SHARE if card.jpeg else _PNG_SHARE)))
            continue
        try:
            seen.append(float(len(images.data(datasets[i], paths[i]))))
        except UbhpdError:
            continue  # counted, with all others, when the heads are read
    return int(np.mean(seen) * len(heads)) if seen else 0


def _sized(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:,.0f} kB"


__all__ = ["ExportConfig", "ExportReport", "export", "formats"]


@lru_cache(maxsize=1)
def formats() -> dict[str, Format]:
    """Return the formats by name."""
    return registry.entries(exports, _check_format, lambda form: form.CARD.name, "export formats", "exports")


def _check_format(module: Any) -> None:
    if not isinstance(getattr(module, "CARD", None), Card):
        raise UbhpdError(f"exports/{module.__name__.rpartition('.')[2]}.py has no CARD: see the docstring of exports/.")


def export(config: ExportConfig, engine: Engine | None = None, progress: Progress | None = None) -> ExportReport:
    """Write an export and return what it holds; the expected size is logged before the work begins.

    Args:
        config: what to export.
        engine: where the units run; one process by default.
        progress: what to tell about it; nothing by default.

    Raises:
        UbhpdError: no such format, recipe or split; no head with a box; a folder with something else in it; too little
            room on the disk; images that cannot be read.
    """
    engine, progress = engine or Engine(), progress or Progress(show=False)
    engine.check()
    _, recipe, size = _checked(config)
    path = BuildFolder.at(config.place).manifest()
    out = config.out or _default_out(path, config, recipe, size)
    with locked(out, is_file=True):
        return _export(replace(config, out=out), engine, progress)


def _export(config: ExportConfig, engine: Engine, progress: Progress) -> ExportReport:
    form, recipe, size = _checked(config)
    card = form.CARD
    path = BuildFolder.at(config.place).manifest()
    build = path.absolute().parent
    with progress.step("reading the manifest"):
        heads = read_heads(path, recipe, config.split, config.seed, face=card.faces, points=card.points)
    if not len(heads):
        raise UbhpdError(f"{path} has no usable head with a box for the recipe {recipe.name}: nothing to export.")
    report = ExportReport(
        ubhpd=__version__,
        format=card.name,
        recipe=asdict(recipe),
        size=size,
        split=config.split,
        image=config.image,
        seed=config.seed,
        fingerprint=manifest.header(path).fingerprint,
        out=str(config.out),
    )
    out = Path(report.out)
    names = file_names(card, config, copies(card, recipe, size), heads)
    _LOG.info(room(expected_bytes(card, config, recipe, size, heads, build), out))
    claim(out, report)
    job = Job(
        recipe=recipe,
        size=size,
        colour=colour(card, recipe),
        heads=heads,
        out=out,
        work=out / WORK,
        names=names,
        fingerprint=report.fingerprint,
    )
    canvas = None
    failed: dict[int, str] = {}
    if card.images == "array":
        if not any(p for p in job.work.iterdir() if p.is_file() and p.name != MARK):
            shutil.rmtree(job.work / MARKS, ignore_errors=True)  # marks without what they speak of
        canvas = form.begin(job)
    if card.images != "none":
        units = plan_units(
            card=card,
            config=config,
            recipe=recipe,
            size=size,
            heads=heads,
            names=names,
            build=build,
            out=out,
            canvas=canvas,
        )
        failed, report.units_kept = _run(units, engine, progress)
    first = failed[min(failed)].rstrip(".") if failed else ""
    if len(failed) == len(heads):
        raise UbhpdError(f"None of the images of {len(heads):,} heads can be read; the first: {first}.")
    if failed and not config.skip_unreadable:
        raise UbhpdError(
            f"The images of {len(failed):,} of {len(heads):,} heads cannot be read (the first: {first}): bring them "
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
    write_json(report.as_dict(), out / MARK)
    shutil.rmtree(out / WORK, ignore_errors=True)
    return report


def _checked(config: ExportConfig) -> tuple[Format, Recipe, int | None]:
    form = registry.pick(formats(), config.form, "export format")[1]
    card = form.CARD
    recipe = recipe_named(config.recipe or card.recipe)
    size = config.size if config.size is not None else recipe.size
    if size is not None and not 8 <= size <= 4096:
        raise UbhpdError(f"--size is {size}: give the side of the crops in pixels, 8 to 4096.")
    if card.images == "array" and size is None:
        raise UbhpdError(f"The recipe {recipe.name} has no size of its own: add --size for the format {card.name}.")
    if config.image not in ("png", "jpg"):
        raise UbhpdError(f"--image-format is {config.image!r}: choose png or jpg.")
    if config.unit_heads < 1:
        raise UbhpdError(f"A unit of {config.unit_heads} heads is impossible: give 1 or more.")
    if not card.crops and (recipe.shape != "image" or size is not None):
        raise UbhpdError(f"The format {card.name} holds whole images, its loaders crop: drop --recipe and --size.")
    return form, recipe, size


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
        with suppress(UbhpdError):  # reported per head when it is read
            Images.of_build(Path(units[0].build)).data(dataset, image_path)


def _pixel_reader(canvas: Canvas, shape: tuple[int, ...], kept: list[int]) -> Callable[[int], Image]:
    """Return a function that gives the crop of a kept head; the pixels stay on disk."""
    rows: Image = np.memmap(canvas.path, np.uint8, "r", canvas.offset, shape)

    def pixels(row: int) -> Image:
        face: Image = rows[kept[row]]
        return face

    return pixels


_LISTED = 5


def export_text(report: ExportReport) -> str:
    """Return what was exported and what was left out."""
    size = f" at {report.size} px" if report.size else ""
    splits = ", ".join(f"{n:,} {s}" if s != "all" else f"{n:,}" for s, n in report.heads.items())
    lines = [f"{report.format}: {splits} heads, recipe {report.recipe['name']}{size}"]
    if report.units_kept:
        lines[0] += f"; {report.units_kept} units kept from an earlier run"
    if len(report.box_sources) > 1 or set(report.box_sources) - {report.recipe["sources"][0]}:
        sources = (f"{n:,} by {s} ({FACE_SOURCES[s]})" for s, n in report.box_sources.items())
        lines.append(f"boxes: {', '.join(sources)}")
    lines += _left_out(report.without_box, "without a box for this recipe", report)
    lines += _left_out(report.unreadable, "whose image cannot be read", report)
    return "\n".join([*lines, f"Wrote {', '.join(report.files)} and export.json to {report.out}"])


def list_content() -> dict[str, Any]:
    """Return formats and recipes as JSON-ready values."""
    return {
        "formats": {n: f.CARD._asdict() for n, f in formats().items()},
        "recipes": {n: asdict(r) for n, r in RECIPES.items()},
    }


def list_text() -> str:
    """Return formats and recipes as two tables."""
    forms = [
        ["format", "default recipe", "what it is"],
        *([n, f.CARD.recipe, f.CARD.title] for n, f in formats().items()),
    ]
    recipes = [["recipe", "size", "box from", "outside", "colour", "what to know"]]
    for name, r in RECIPES.items():
        size = str(r.size) if r.size else "own"
        recipes.append([name, size, ", ".join(r.sources), r.outside, r.colour, r.note.split(". ")[0].rstrip(".")])
    return f"{table(forms)}\n\n{table(recipes)}\n\nMore in docs/exports.md; all fields with --json."


def _left_out(ids: list[str], why: str, report: ExportReport) -> list[str]:
    if not ids:
        return []
    more = f" and {len(ids) - _LISTED:,} more, all in {report.out}/export.json" if len(ids) > _LISTED else ""
    return [f"{len(ids):,} head{'s' * (len(ids) > 1)} {why}, left out: {', '.join(ids[:_LISTED])}{more}"]
