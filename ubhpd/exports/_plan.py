"""The plan of an export: names of its files, the units of work, the room it takes, and whose folder it writes to."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path, PurePosixPath

import numpy as np

from ubhpd import __version__
from ubhpd.errors import UbhpdError
from ubhpd.exports._heads import Heads
from ubhpd.exports._job import Canvas, Card, ExportConfig, ExportReport
from ubhpd.exports._unit import Row, Unit
from ubhpd.files import write_json
from ubhpd.raw.images import VIDEO_SUFFIXES, Images
from ubhpd.recipes import Recipe

WORK = "work"  # folder in the export with the parts of one that is not finished
MARK = "export.json"
MARKS = "done"  # folder in WORK, a file for each finished unit

_IDENTITY = ("ubhpd", "format", "recipe", "size", "split", "picture", "seed", "fingerprint")
_PNG_SHARE, _JPEG_SHARE = 0.7, 0.25  # of the pixels' bytes, on the safe side
_SAMPLED = 16  # pictures whose files stand for all
_NEVER_IN_A_NAME = ("\\", "\n", "\r", "\0", "//")


def copies(card: Card, recipe: Recipe, size: int | None) -> bool:
    """Return True if the export holds the pictures as they are."""
    return card.pictures == "files" and recipe.shape == "picture" and size is None


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
    """Return each head's picture file below the export's folder; empty names for a format without files.

    Raises:
        UbhpdError: a sample id cannot be the name of a file.
    """
    if card.pictures != "files":
        return [""] * len(heads)
    names = []
    for i, sample_id in enumerate(heads.texts["sample_id"]):
        path = PurePosixPath(heads.texts["image_path"][i])
        is_video = path.suffix.lower() in VIDEO_SUFFIXES
        suffix = ".jpg" if card.jpeg else f".{config.picture}" if not is_copy else ".png" if is_video else path.suffix
        stem = sample_id
        if is_copy and card.faces and not card.points:  # a picture with several heads is there once
            frame = f"/frame_{int(heads.frame[i]):05d}" if is_video else ""
            stem = f"{heads.texts['dataset'][i]}/{path.with_suffix('')}{frame}"
        name = f"{card.folder.format(split=heads.texts['split'][i] or 'train')}/{stem}{suffix}"
        if ".." in name.split("/") or any(c in name for c in _NEVER_IN_A_NAME):
            raise UbhpdError(f"{sample_id!r} cannot be the name of a file: rename that sample.")
        names.append(name)
    return names


def units(
    card: Card, config: ExportConfig, recipe: Recipe, size: int | None, heads: Heads, names: list[str],
    build: Path, out: Path, canvas: Canvas | None,
) -> list[Unit]:  # fmt: skip
    """Return the units: heads in the order of pictures and frames, cut only between pictures and between videos."""
    is_copy = copies(card, recipe, size)
    kind = "array" if card.pictures == "array" else "copies" if is_copy else "crops"
    datasets, paths = heads.texts["dataset"], heads.texts["image_path"]
    boxes, sizes, frames = heads.box.tolist(), heads.size.tolist(), heads.frame.tolist()
    rows = [
        Row(i, datasets[i], paths[i], frames[i], (sizes[i][0], sizes[i][1]), tuple(boxes[i]), names[i])
        for i in sorted(range(len(heads)), key=lambda i: (datasets[i], paths[i], frames[i], i))
    ]
    groups: list[list[Row]] = []
    for row in rows:
        if not groups or (len(groups[-1]) >= config.unit_heads and groups[-1][-1][1:3] != row[1:3]):
            groups.append([])
        groups[-1].append(row)
    found = []
    for number, group in enumerate(groups):
        told = repr((__version__, group, recipe, size, colour(card, recipe), kind))
        mark = out / WORK / MARKS / f"{number:05d}-{hashlib.sha256(told.encode()).hexdigest()[:12]}.json"
        channels = colour(card, recipe)
        found.append(Unit(str(build), str(out), str(mark), canvas, tuple(group), recipe, size, channels, kind))
    return found


def colour(card: Card, recipe: Recipe) -> str:
    """Return the channels' order in the pixels; OpenCV wants BGR to write a file, whose colours are then true."""
    return card.colour or ("BGR" if card.pictures == "files" else recipe.colour)


def expected_bytes(card: Card, config: ExportConfig, recipe: Recipe, size: int | None, heads: Heads,
                   build: Path) -> int:  # fmt: skip
    """Return about how many bytes the export will take, those of its parts included."""
    if card.pictures == "none":
        return 500 * len(heads)
    if copies(card, recipe, size):
        return _bytes_of_copies(card, heads, build)
    pixels = (size or 0) ** 2 * 3 * len(heads)
    if card.pictures == "array":
        return pixels if card.in_place else 2 * pixels
    return int(pixels * (_JPEG_SHARE if card.jpeg or config.picture == "jpg" else _PNG_SHARE))


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
