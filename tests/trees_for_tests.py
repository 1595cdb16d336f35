"""Raw datasets for tests: small trees written once a session, copies to damage, and what a builder says of them."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ubhpd.core.records import DROP_REASONS, Drop, Note, Record
from ubhpd.core.rotation import CONVENTIONS, matrix_from_angles, matrix_from_euler, orthonormality_error
from ubhpd.pool import sources
from ubhpd.raw.source import Source
from ubhpd.raw.trees import Tree, TreeSpec, open_tree
from ubhpd.synth.writers import aflw2000_writer, aflw_writer, biwi_writer, synhead_writer, upna_writer, w300lp_writer

Pose = tuple[float, float, float]


class Kind(NamedTuple):
    """A kind of file of a dataset, an example of it, and the heads that damage to it may cost.

    harm: `drop` refuses the heads, `box` takes their boxes and leaves a remark, `none` is a file nobody reads,
    `error` ends the reading with one UbhpdError. spares: damages that leave everything as it is.
    """

    dataset: str
    path: str
    heads: str  # start of their sample_ids, several separated by spaces
    harm: str = "drop"
    spares: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()


class Dataset(NamedTuple):
    """A small tree of a dataset: the folder below the written root that is its root, its writer, its kinds of files."""

    folder: str
    write: Callable[[Path], dict[str, Pose]]
    kinds: tuple[Kind, ...] = ()


DATASETS: dict[str, Dataset] = {
    "aflw": Dataset("aflw", lambda root: aflw_writer.write(root, 9)),
    "aflw2000": Dataset("AFLW2000", lambda root: aflw2000_writer.write(root, 8)),
    "biwi": Dataset("hpdb", lambda root: biwi_writer.write(root, (1, 6), frames=4)),
    "synhead": Dataset("synhead2_release", lambda root: synhead_writer.write(root, frames=3)),
    "upna": Dataset("Head_Pose_Database_UPNA", lambda root: upna_writer.write(root, (1, 2), (1,), frames=24)),
    "300wlp": Dataset("300W_LP", lambda root: w300lp_writer.write(root, 8, views=2, bad_flips=1)),
}


class Written(NamedTuple):
    """A written tree: the dataset's root and the poses in it."""

    root: Path
    truth: dict[str, Pose]


class Said(NamedTuple):
    """What a builder yields for all units: heads and refused heads by sample_id, in its order, and its remarks."""

    records: dict[str, Record]
    drops: dict[str, Drop]
    notes: list[Note]

    @property
    def warnings(self) -> list[str]:
        return [n.text for n in self.notes if n.is_warning]


_written: dict[tuple[Path, str], Written] = {}


def tree_of(name: str, factory: Any) -> Written:
    """Return the tree of a dataset, written at the first call of a session; never change it."""
    base = factory.getbasetemp()
    if (base, name) not in _written:
        folder = base / f"tree-{name}"
        truth = DATASETS[name].write(folder)
        _written[base, name] = Written(folder / DATASETS[name].folder, truth)
    return _written[base, name]


def copied(root: Path, to: Path) -> Path:
    """Return a copy of a tree made of hard links: replace its files, never write into them."""
    shutil.copytree(root, to / root.name, copy_function=os.link)
    return to / root.name


def replace_file(path: Path, content: bytes | None) -> None:
    """Replace a file by one of other content, or by a folder if that is None."""
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)


def tree_at(root: Path | str, inside: str = "") -> Tree:
    return open_tree(TreeSpec(((str(root), inside),)))


def read_items(
    name: str, root: Path | str | Tree, *, thorough: bool = False, inside: str = "", **options: str
) -> list[Record | Drop | Note]:
    """Return everything that a builder yields for a folder, an archive or a tree, in its order."""
    builder = sources.builders()[name]
    source = Source(root if isinstance(root, Tree) else tree_at(root, inside), thorough)
    chosen = sources.options_for(builder, options)
    return [item for unit in builder.units(source, chosen) for item in builder.read(source, unit, chosen)]


def read_all(name: str, root: Path | str | Tree, *, thorough: bool = False, inside: str = "", **options: str) -> Said:
    """Return (records, drops, notes) of a dataset; two heads of one sample_id are an AssertionError."""
    said = Said({}, {}, [])
    for item in read_items(name, root, thorough=thorough, inside=inside, **options):
        if isinstance(item, Note):
            said.notes.append(item)
            continue
        assert item.sample_id not in said.records and item.sample_id not in said.drops, item.sample_id
        heads: Any = said.records if isinstance(item, Record) else said.drops
        heads[item.sample_id] = item
    return said


def plain(item: Record | Drop | Note | None) -> str:
    """Return an item as text, equal for equal content, NaN included."""
    return repr(None if item is None else tuple(v.tolist() if isinstance(v, np.ndarray) else v for v in item))


def plain_all(items: Iterable[Record | Drop | Note]) -> list[str]:
    return [plain(item) for item in items]


def angles_of(record: Record) -> tuple[Any, Any, Any]:
    return record.yaw_deg, record.pitch_deg, record.roll_deg


def assert_contract(name: str, said: Said, root: Path) -> None:
    """Assert that what a builder said of a tree obeys records.py."""
    assert not set(said.records) & set(said.drops)
    for head in (*said.records.values(), *said.drops.values()):
        assert head.sample_id.startswith(f"{name}/") and head.sample_id.isprintable()
        assert head.image_path is None or not head.image_path.startswith(("/", ".."))
        assert head.sequence_id is None or head.sequence_id.startswith(f"{name}/")
        assert head.frame_index is None or type(head.frame_index) is int
    for drop in said.drops.values():
        assert drop.reason in DROP_REASONS and drop.detail
    for record in said.records.values():
        assert (root / record.image_path).is_file()
        assert type(record.image_width) is int and type(record.image_height) is int
        assert min(record.image_width, record.image_height) > 0
        assert_pose(record)
        if record.bbox_xyxy is None:
            assert record.bbox_kind is None
        else:
            left, top, right, bottom = map(float, record.bbox_xyxy)
            assert left < right and top < bottom and np.isfinite([left, top, right, bottom]).all()
            assert record.bbox_kind
        for points, size in ((record.landmarks68, 136), (record.landmarks21, 42)):
            assert points is None or (np.shape(points) == (size,) and not np.isinf(points).any())
        assert (record.landmarks68 is None and record.landmarks21 is None) == (record.landmarks_kind is None)
        assert (record.drop_reason is None) == (record.drop_detail is None)
        assert record.drop_reason is None or record.drop_reason in DROP_REASONS
        for other in (record.subject_id, record.source_photo, record.flip_of):
            assert other is None or "/" in other


def assert_pose(record: Record) -> None:
    angles = angles_of(record)
    assert all(type(a) is float for a in angles) and np.isfinite(angles).all()
    rotation = np.reshape(record.rotation, (3, 3))
    assert orthonormality_error(rotation) < 1e-5
    if abs(record.yaw_deg) < 90:
        np.testing.assert_allclose(rotation, matrix_from_euler(angles), atol=1e-5)
    assert (record.raw_angles is None) == (record.raw_convention is None)
    if record.raw_convention in CONVENTIONS:
        rebuilt = matrix_from_angles(record.raw_angles, record.raw_convention)
        np.testing.assert_allclose(rotation, rebuilt, atol=1e-12)


# The test of a further builder, tests/test_FILE.py for builders/FILE.py, has its tree as TREE.
for _name, _builder in sources.builders().items():
    if _name not in DATASETS:
        DATASETS[_name] = importlib.import_module(f"test_{_builder.__name__.rpartition('.')[2]}").TREE
