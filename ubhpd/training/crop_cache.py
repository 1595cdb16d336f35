"""The crops of a training set, cut once into one file and read from there as if they lay in memory.

The file is HDF5 with `image`, uint8 (n, size, size, 3), contiguous and not compressed, so that a crop is one piece of
the file at a known place, which the operating system keeps in memory if there is room; and beside it `sample_id`,
`box_xyxy` and `is_cut`, False for a head whose image could not be read. It is named by a hash of all that decides
its pixels. It is written beside its final place, resumes after an interruption, and is renamed when it is complete.

Beside it lies a checksum of the whole file. It is verified before the crops are used, unless the file is the very one
that was verified before (inode, size and times). A file that does not verify is cut again, and the log says so.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import zlib
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import file_identity, replacing, write_json
from ubhpd.core.progress import Progress
from ubhpd.core.typing import BoolArray, Image
from ubhpd.images.crops import recipe_named
from ubhpd.inference.manifest_source import ManifestSource, Plan
from ubhpd.nn.contract import InputRecipe

_LOG = logging.getLogger(__name__)

VERSION = 1  # of what this file writes for equal input


_MARK_EVERY = 4096  # heads; a kill costs no more than these
_BLOCK_BYTES = 8 << 20
_ROOM = 1.02  # of the disk, as a multiple of the pixels


class Crops(NamedTuple):
    """Crops of n heads in the order of a plan.

    pixels: (n, size, size, 3), read from the file as needed. is_cut: (n,), False where there is none; problems:
    (sample_id, reason) of those.
    """

    pixels: Image
    is_cut: BoolArray
    problems: list[tuple[str, str]]


def crops_of(plan: Plan, recipe: InputRecipe, build: Path, folder: Path, progress: Progress,
             threads: int = 0) -> Crops:  # fmt: skip
    """Return the crops of all heads of a plan, cut now unless they lie in `folder` already.

    Args:
        plan: the heads.
        recipe: of the model; of sequences the single images are cut.
        build: the folder with build.json.
        folder: where the file is, or will be.
        progress: shows how far the cutting is.
        threads: for cutting, 0 for one per core.

    Raises:
        UbhpdError: too little room, a folder that cannot be written, or no image can be read.
    """
    recipe = replace(recipe, frames=1)
    path = folder / f"{key_of(plan, recipe)}.h5"
    try:
        if path.is_file() and not _is_intact(path):
            _LOG.warning(f"{path} is damaged: its crops are cut again.")
            path.unlink()
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            _cut(path, plan, recipe, build, progress, threads)
        return _whole(path, plan)
    except BlockingIOError:
        raise UbhpdError(
            f"Another run is cutting the same crops into {folder}: let it finish, then start this one again."
        ) from None
    except OSError as error:
        raise UbhpdError(
            f"Cannot keep crops in {folder} ({error.strerror or error}): make room or name another folder by --cache; "
            "what is cut is kept."
        ) from None


def key_of(plan: Plan, recipe: InputRecipe) -> str:
    """Return 16 digits of a hash of all that decides the crops: the heads, their images and boxes, the recipes."""
    mark = hashlib.sha256(f"{VERSION} {recipe.size} {recipe.colour}\n".encode())
    for dataset in sorted(set(plan.texts["dataset"])):
        mark.update(json.dumps([dataset, asdict(recipe_named(recipe.crop_for(dataset)))]).encode())
    for name in ("sample_id", "dataset", "image_path"):
        mark.update("\n".join(plan.texts[name]).encode())
    for values in (plan.frame, plan.size, plan.box):
        mark.update(np.ascontiguousarray(values).tobytes())
    return mark.hexdigest()[:16]


class _Growing(NamedTuple):
    """The file while it grows, and how many of its rows are done."""

    path: Path
    mark: Path
    rows: int
    problems: list[tuple[str, str]]


def _cut(path: Path, plan: Plan, recipe: InputRecipe, build: Path, progress: Progress,
         threads: int) -> None:  # fmt: skip
    """Write the file."""
    shape = (len(plan), recipe.size, recipe.size, 3)
    growing = _begun(path, plan, shape)
    _LOG.info(f"Cutting {len(plan):,} crops into {path}, {np.prod(shape) / 1e9:.2f} GB")
    done, problems = growing.rows, list(growing.problems)
    place = {s: i for i, s in enumerate(plan.texts["sample_id"])}
    source = ManifestSource(plan, build, recipe, "crops", threads)
    offset = _place(growing.path)
    with progress.bar("Cutting", len(plan)) as advance, growing.path.open("r+b", buffering=0) as file:
        advance(done)
        marked = done
        for batch in source.batches(set(plan.texts["sample_id"][:done]), draws=False):
            rows = [place[i] for i in batch.sample_id]
            # Not by a memory map, which a full disk would end with a crash.
            for row, crop in zip(rows, np.asarray(batch.inputs), strict=True):
                os.pwrite(file.fileno(), crop.data, offset + row * crop.nbytes)
            problems += batch.problems
            done += len(rows) + len(batch.problems)
            advance(len(rows) + len(batch.problems))
            if done - marked >= _MARK_EVERY:
                os.fsync(file.fileno())
                write_json({"rows": done, "problems": problems}, growing.mark)
                marked = done
        os.fsync(file.fileno())
    if len(problems) == len(plan):
        raise UbhpdError(f"None of the images of {len(plan):,} heads can be cut; the first: {problems[0][1]}")
    _finish(growing, path, plan, problems)


def _begun(path: Path, plan: Plan, shape: tuple[int, ...]) -> _Growing:
    """Make the growing file, or take up that of an earlier run."""
    part, mark = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.part.json")
    try:
        said = json.loads(mark.read_text(encoding="utf-8"))
        rows, problems = int(said["rows"]), [(str(i), str(r)) for i, r in said["problems"]]
        if part.is_file():
            return _Growing(part, mark, rows, problems)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    needed, free = _ROOM * np.prod(shape, dtype=float), shutil.disk_usage(path.parent).free
    if needed > free:
        raise UbhpdError(
            f"The crops take {needed / 1e9:.2f} GB and {path.parent} has {free / 1e9:.2f} GB left: make room or name "
            "another folder by --cache."
        )
    with replacing(part) as new:
        _create(new, plan, shape)
    write_json({"rows": 0, "problems": []}, mark)
    return _Growing(part, mark, 0, [])


def _create(path: Path, plan: Plan, shape: tuple[int, ...]) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["format"] = f"ubhpd crops {VERSION}"
        encoded = np.array([s.encode() for s in plan.texts["sample_id"]])
        kind = h5py.string_dtype("utf-8", max(encoded.dtype.itemsize, 1))
        file.create_dataset("sample_id", data=encoded.astype(kind), track_times=False)
        file.create_dataset("box_xyxy", data=plan.box, track_times=False)
        file.create_dataset("is_cut", data=np.zeros(len(plan), dtype=bool), track_times=False)
        # Room at a known place, not filled: the crops are written past HDF5, as in exports/h5.py.
        options = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        options.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        options.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        options.set_obj_track_times(False)
        h5py.h5d.create(file.id, b"image", h5py.h5t.STD_U8LE, h5py.h5s.create_simple(shape), options)


def _finish(growing: _Growing, path: Path, plan: Plan, problems: list[tuple[str, str]]) -> None:
    failed = {i for i, _ in problems}
    with h5py.File(growing.path, "r+", libver="latest") as file:
        file["is_cut"][:] = [i not in failed for i in plan.texts["sample_id"]]
        file.attrs["problems"] = np.void(json.dumps(problems).encode())
    checksum = _checksum(growing.path)
    _note(path).unlink(missing_ok=True)  # of an earlier file of this name
    growing.path.replace(path)
    write_json({"crc32": checksum, "file": file_identity(path)}, _note(path))
    growing.mark.unlink(missing_ok=True)


def _note(path: Path) -> Path:
    return path.with_suffix(".checksum.json")


def _checksum(path: Path) -> int:
    """Return the CRC-32 of a file."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            value = zlib.crc32(block, value)
    return value


def _is_intact(path: Path) -> bool:
    """Whether a file has the checksum that was noted when it was written."""
    try:
        said = json.loads(_note(path).read_text(encoding="utf-8"))
        checksum, file = int(said["crc32"]), str(said["file"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    if file == file_identity(path):
        return True
    if checksum != _checksum(path):
        return False
    with suppress(OSError, UbhpdError):  # a folder that is not writable: the next run verifies again
        write_json({"crc32": checksum, "file": file_identity(path)}, _note(path))
    return True


def _whole(path: Path, plan: Plan) -> Crops:
    """Return what a file holds that has its name, and so was whole once."""
    try:
        return _opened(path, plan)
    except (BlockingIOError, PermissionError):
        raise
    except (OSError, KeyError, ValueError) as error:
        raise UbhpdError(f"{path} is damaged or cut off ({error}): delete it, and its crops are cut again.") from None


def _opened(path: Path, plan: Plan) -> Crops:
    with h5py.File(path, "r") as file:
        is_cut = np.asarray(file["is_cut"])
        shape = file["image"].shape
        problems: Any = json.loads(file.attrs["problems"].tobytes())
    if shape[0] != len(plan):
        raise UbhpdError(f"{path} holds {shape[0]:,} crops where {len(plan):,} belong: delete it.")
    pixels = np.memmap(path, np.uint8, "r", _place(path), shape)
    # A plain array over the same memory: slicing a memmap costs more than reading the crop.
    return Crops(np.asarray(pixels), is_cut, [(i, r) for i, r in problems])


def _place(path: Path) -> int:
    with h5py.File(path, "r") as file:
        return int(file["image"].id.get_offset())
