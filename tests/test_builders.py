"""What every builder promises, whatever the dataset: the contract of records.py, and damage that stays local."""

from __future__ import annotations

import os
import random
import re
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from trees_for_tests import (
    DATASETS,
    Said,
    angles_of,
    copied,
    plain,
    plain_all,
    read_all,
    read_items,
    replace_file,
    tree_at,
    tree_of,
)

from ubhpd import registry
from ubhpd.errors import UbhpdError
from ubhpd.raw.folders import FolderTree
from ubhpd.raw.source import Source
from ubhpd.records import DROP_REASONS, Record
from ubhpd.rotation import CONVENTIONS, matrix_from_angles, matrix_from_euler, orthonormality_error

NAMES = sorted(registry.builders())
# Digits of the angles in the raw files: BIWI's text has six, Pose_Para is float32.
TOLERANCE_DEG = {"biwi": 2e-4, "aflw2000": 1e-4, "300wlp": 1e-4}
STRAYS = ("dockerface-01.txt", "Thumbs.db", ".DS_Store", "README", "desktop.ini", "frame_00003.txt")
DAMAGES = ("folder", "empty", "random", "cut to 1 byte", "cut to 0.3", "cut to 0.6", "cut by 20 bytes", "forbidden")


# The card, and whose tree it is


def test_every_builder_has_a_tree_to_be_tested_on() -> None:
    assert sorted(DATASETS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_card(name: str) -> None:
    builder = registry.builders()[name]
    registry.check_builder(builder)
    assert (builder.NAME, name.isalnum(), name.islower()) == (name, True, True)
    for text in (builder.TITLE, builder.HOMEPAGE, builder.LICENSE, builder.CITATION, builder.ACCESS, builder.LAYOUT):
        assert text.strip() and "TODO" not in text
    assert builder.HOMEPAGE.startswith(("https://", "http://"))
    assert all(key.startswith(f"{name}/") and count > 0 for key, count in builder.PUBLISHED.items())
    assert all(key.startswith(f"{name}/") for key in builder.OUT_OF_RANGE)
    lines = builder.__doc__.splitlines()
    assert lines[0].endswith(".") and len(lines) > 5 and max(map(len, lines)) <= 120
    for option in fields(builder.Options):
        assert option.default in option.metadata["choices"] and option.name in builder.__doc__


@pytest.mark.parametrize("owner", NAMES)
def test_recognises_its_own_tree_alone(owner: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """As `discover` does, every folder of a tree is shown to every builder: the owner takes one, the others none."""
    top = tree_of(owner, tmp_path_factory).root.parent
    source = Source(tree_at(top))
    folders = ["", *(str(p.relative_to(top)) for p in sorted(top.rglob("*")) if p.is_dir())]
    for name, builder in registry.builders().items():
        taken = [folder for folder in folders if builder.recognise(source, folder)]
        assert taken == ([DATASETS[owner].folder] if name == owner else [])


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_or_missing_folder_is_no_dataset(name: str, tmp_path: Path) -> None:
    builder = registry.builders()[name]
    source = Source(tree_at(tmp_path))
    assert not builder.recognise(source, "") and not builder.recognise(source, "nowhere")


# Heads


def assert_contract(name: str, said: Said, root: Path) -> None:
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


@pytest.mark.parametrize("name", NAMES)
def test_heads_obey_the_contract_and_are_the_written_ones(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    root, truth = tree_of(name, tmp_path_factory)
    said = read_all(name, root)
    assert_contract(name, said, root)
    assert set(said.records) == set(truth) and not said.warnings
    for sample_id, pose in truth.items():
        np.testing.assert_allclose(angles_of(said.records[sample_id]), pose, atol=TOLERANCE_DEG.get(name, 1e-6))


@pytest.mark.parametrize("name", NAMES)
def test_every_option_obeys_the_contract(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    root, truth = tree_of(name, tmp_path_factory)
    for option in fields(registry.builders()[name].Options):
        for value in option.metadata["choices"]:
            said = read_all(name, root, **{option.name: value})
            assert set(said.records) == set(truth)
            assert_contract(name, said, root)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_option_or_value_is_refused(name: str) -> None:
    builder = registry.builders()[name]
    with pytest.raises(UbhpdError, match=f"{name} has no option 'nonsense'"):
        registry.options_for(builder, {"nonsense": "1"})
    for option in fields(builder.Options):
        with pytest.raises(UbhpdError, match="cannot be 'nonsense': choose from"):
            registry.options_for(builder, {option.name: "nonsense"})


@pytest.mark.parametrize("name", NAMES)
def test_units_name_their_files(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A resumed build trusts `paths`: every picture and label that a unit was read from is among them."""
    root = tree_of(name, tmp_path_factory).root
    builder, source = registry.builders()[name], Source(tree_at(root))
    options = registry.options_for(builder, {})
    units = builder.units(source, options)
    assert len({u.key for u in units}) == len(units)
    for unit in units:
        assert all((root / path).is_file() for path in unit.paths)
        pictures = {r.image_path for r in builder.read(source, unit, options) if isinstance(r, Record)}
        assert pictures <= set(unit.paths)
    assert len({p for u in units for p in u.paths}) > len({Path(p).suffix for u in units for p in u.paths}) > 1


@pytest.mark.parametrize("name", NAMES)
def test_thorough_reading_finds_the_same_heads(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tree_of(name, tmp_path_factory).root
    assert plain_all(read_items(name, root, thorough=True)) == plain_all(read_items(name, root))


# Order, archives, strays


@pytest.mark.parametrize("name", NAMES)
def test_order_of_the_listing_does_not_matter(
    name: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree_of(name, tmp_path_factory).root
    expected = plain_all(read_items(name, root))
    real_scandir, real_listdir, listings = os.scandir, os.listdir, []

    @contextmanager
    def scandir(path: Any) -> Iterator[list[os.DirEntry[str]]]:
        with real_scandir(path) as found:
            yield shuffled(sorted(found, key=lambda e: e.name))

    def shuffled(entries: list[Any]) -> list[Any]:
        listings.append(entries)
        return random.Random(seed).sample(entries, len(entries))

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "listdir", lambda path: shuffled(sorted(real_listdir(path))))
    for seed in range(3):  # noqa: B007 - `shuffled` reads it
        assert plain_all(read_items(name, root)) == expected
    assert listings or name == "aflw"  # its database is the list


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
@pytest.mark.parametrize("name", NAMES)
def test_an_archive_reads_as_the_folder(
    name: str, kind: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # the spool of a tgz
    root = tree_of(name, tmp_path_factory).root
    archive = tmp_path / f"download.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for path in sorted(root.rglob("*"), reverse=True):
                packed.write(path, f"top/{path.relative_to(root)}")
    else:
        with (
            tarfile.open(archive, "w:gz" if kind == "tgz" else "w", compresslevel=1)
            if kind == "tgz"
            else (tarfile.open(archive, "w")) as tar
        ):
            tar.add(root, "top")
    assert plain_all(read_items(name, archive, inside="top")) == plain_all(read_items(name, root))


@pytest.mark.parametrize("name", NAMES)
def test_stray_files_change_nothing(name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tree_of(name, tmp_path_factory).root
    expected = plain_all(read_items(name, root))
    copy = copied(root, tmp_path)
    folders = [copy, *(p for p in copy.rglob("*") if p.is_dir())]
    for path in [p for p in copy.rglob("*") if p.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")  # what a Mac leaves beside every file
        path.with_name(f"{path.name}.bak").write_bytes(b"old")
    for folder in folders:
        for stray in STRAYS:
            (folder / stray).write_bytes(b"1 2 3\n")
        (folder / "__MACOSX").mkdir()
    assert plain_all(read_items(name, copy)) == expected
    assert registry.builders()[name].recognise(Source(tree_at(copy)), "")


# Damage, for every kind of file


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


_CUTS = ("cut to 0.3", "cut to 0.6", "cut by 20 bytes")
KINDS = [
    Kind("biwi", "01/frame_00004_rgb.png", "biwi/01/frame_00004"),
    Kind("biwi", "01/frame_00004_pose.txt", "biwi/01/frame_00004"),
    Kind("biwi", "01/frame_00004_depth.bin", "biwi/01/frame_00004", spares=_CUTS),  # see test_biwi for --check-images
    Kind("biwi", "01/rgb.cal", "biwi/01/"),
    Kind("biwi", "01/depth.cal", "biwi/01/", "none"),
    Kind("biwi", "01.obj", "biwi/01/", "box", spares=("cut by 20 bytes", "cut to 0.6")),  # cut among the faces
    Kind("aflw", "data/aflw.sqlite", "aflw/", "error"),
    Kind("aflw", "data/flickr/2/image00004.jpg", "aflw/39342 aflw/39343"),
    Kind("aflw", "data/aflw-changelog.txt", "aflw/", "none"),
    Kind("aflw", "doc/README.txt", "aflw/", "none"),
    Kind("aflw2000", "image00002.jpg", "aflw2000/image00002"),
    Kind("aflw2000", "image00002.mat", "aflw2000/image00002"),
    Kind("aflw2000", "Code/Model_Shape_Sim.mat", "aflw2000/", "none"),
    Kind("300wlp", "AFW/AFW_134212_1_0.jpg", "300wlp/AFW/AFW_134212_1_0"),
    Kind("300wlp", "AFW/AFW_134212_1_0.mat", "300wlp/AFW/AFW_134212_1_0"),
    Kind("300wlp", "AFW_Flip/AFW_134212_1_1.mat", "300wlp/AFW_Flip/AFW_134212_1_1"),
    Kind("300wlp", "Code/Model_Exp.mat", "300wlp/", "none"),
    Kind("300wlp", "landmarks/AFW/AFW_134212_1_0_pts.mat", "300wlp/AFW/AFW_134212_1_0", "none"),
    Kind(
        "300wlp", "landmarks/AFW/AFW_134212_1_0_pts.mat", "300wlp/AFW/AFW_134212_1_0",
        options=(("landmarks", "projected"),),
    ),
    Kind("upna", "User_02/user_02_video_01.mp4", "upna/user_02/video_01", spares=("cut by 20 bytes",)),
    Kind("upna", "User_02/user_02_video_01_groundtruth3D.txt", "upna/user_02/video_01"),
    Kind("upna", "User_02/user_02_video_01_groundtruth3D_zeroed.txt", "upna/user_02/video_01", "none"),
    Kind(
        "upna", "User_02/user_02_video_01_groundtruth3D_zeroed.txt", "upna/user_02/video_01",
        options=(("labels", "zeroed"),),
    ),
    Kind("upna", "User_02/user_02_video_01_groundtruth2D.txt", "upna/user_02/video_01", "box"),
    Kind("upna", "Camera_parameters.mat", "upna/", "none"),
    Kind("synhead", "BIWI/f01/00/1.png", "synhead/BIWI/00/f01/000001"),
    Kind("synhead", "BIWI/00.csv", "synhead/BIWI/00/"),
    Kind("synhead", "background/a01.jpg", "synhead/", "none"),
]  # fmt: skip


def test_every_kind_of_file_is_damaged(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No kind of file in a tree is left out of KINDS; a kind is what follows the numbers in a name."""

    def shape(path: str) -> str:
        name = re.sub(r"^Model_.*", "Model", path.rpartition("/")[2])
        return re.sub(r".*(?:\d\d|_\d)|^\d", "", name)

    covered = {(k.dataset, shape(k.path)) for k in KINDS}
    for name in NAMES:
        root = tree_of(name, tmp_path_factory).root
        files = [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.name != "readme.txt"]
        assert {(name, shape(f)) for f in files} - covered == set()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "kind", KINDS, ids=lambda k: "-".join([k.dataset, Path(k.path).name, *(v for _, v in k.options)])
)
def test_damage_stays_local(
    kind: Kind, damage: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree_of(kind.dataset, tmp_path_factory).root
    options = dict(kind.options)
    before = read_all(kind.dataset, root, **options)
    copy = copied(root, tmp_path)
    inflict(damage, copy, kind.path, monkeypatch)
    if kind.harm == "error":
        with pytest.raises(UbhpdError, match=kind.path) as caught:
            read_all(kind.dataset, copy, **options)
        assert "\n" not in str(caught.value)
        return
    after = read_all(kind.dataset, copy, **options)
    assert_contract(kind.dataset, after, copy)
    harm = "none" if damage in kind.spares else kind.harm
    wholly = "cut" not in damage
    hit = {i for i in (*before.records, *before.drops) if i.startswith(tuple(kind.heads.split()))}
    assert hit
    for sample_id in (*before.records, *before.drops):
        old = before.records.get(sample_id) or before.drops[sample_id]
        new = after.records.get(sample_id) or after.drops.get(sample_id)
        if harm == "drop" and sample_id in hit and (wholly or plain(new) != plain(old)):
            if new is None:  # labels and frames are both unknown: one drop speaks for the video
                new = after.drops[sample_id.rpartition("/")[0]]
            assert new.sample_id in after.drops and Path(kind.path).name in new.detail, new
            assert damage not in ("folder", "forbidden") or new.reason == "unreadable_file"
        elif harm == "box" and sample_id in hit:
            assert new.bbox_xyxy is None and plain(new._replace(bbox_xyxy=1, bbox_kind=1)) == plain(
                old._replace(bbox_xyxy=1, bbox_kind=1)
            )
        else:
            assert plain(new) == plain(old)
    if harm == "drop":
        assert len(after.drops) > len(before.drops)
    if harm == "box":
        assert any(Path(kind.path).name in text for text in after.warnings)


def inflict(damage: str, root: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do to a file of a tree what `damage` says."""
    if damage == "forbidden":
        forbid(path, monkeypatch)
        return
    content = (root / path).read_bytes()
    size = len(content)
    damaged = {
        "folder": None,
        "empty": b"",
        "random": np.random.default_rng(size).bytes(max(size, 100)),
        "cut to 1 byte": content[:1],
        "cut to 0.3": content[: int(size * 0.3)],
        "cut to 0.6": content[: int(size * 0.6)],
        "cut by 20 bytes": content[:-20],
    }
    replace_file(root / path, damaged[damage])


def forbid(forbidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let reading this file fail as without permission; the tests run as root, whom nothing stops."""
    for method in ("read", "probe", "head", "local_path"):
        original = getattr(FolderTree, method)

        def refusing(self: FolderTree, path: str, *rest: Any, original: Any = original) -> Any:
            if path == forbidden:
                raise PermissionError(13, "Permission denied")
            return original(self, path, *rest)

        monkeypatch.setattr(FolderTree, method, refusing)


@pytest.mark.parametrize(
    "kind", [k for k in KINDS if k.harm == "drop"], ids=lambda k: f"{k.dataset}-{Path(k.path).name}"
)
def test_a_missing_file_costs_its_heads(kind: Kind, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tree_of(kind.dataset, tmp_path_factory).root
    options = dict(kind.options)
    before = read_all(kind.dataset, root, **options)
    copy = copied(root, tmp_path)
    (copy / kind.path).unlink()
    after = read_all(kind.dataset, copy, **options)
    expected = {
        "biwi-depth.bin": None, "biwi-cal": None, "300wlp-pts.mat": None,  # optional
        "synhead-png": "frame_count_mismatch",
    }  # fmt: skip
    key = f"{kind.dataset}-{Path(kind.path).name.rpartition('_')[2]}".replace("rgb.cal", "cal").replace("1.png", "png")
    pictured = kind.path.endswith((".jpg", ".png", ".mp4"))
    reason = expected.get(key, "missing_image" if pictured else "missing_label")
    hit = {i for i in before.records if i.startswith(tuple(kind.heads.split()))}
    if reason is None:
        assert set(after.records) == set(before.records)
        return
    lost = set(before.records) - set(after.records)
    assert (lost == hit or reason == "frame_count_mismatch") and lost
    assert {d.reason for i, d in after.drops.items() if i not in before.drops} == {reason}


@pytest.mark.parametrize("name", [n for n in NAMES if n != "aflw"])  # its database names the pictures
def test_a_folder_that_cannot_be_listed_is_named(
    name: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree_of(name, tmp_path_factory).root
    builder, source = registry.builders()[name], Source(tree_at(root))
    options = registry.options_for(builder, {})
    whole = builder.units(Source(tree_at(root)), options)
    victim = "" if name == "aflw2000" else str(Path(whole[0].paths[0]).parent)
    original = os.scandir

    def scandir(path: Any) -> Any:
        if os.path.relpath(path, root) == (victim or "."):
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert len(builder.units(source, options)) < len(whole)
    assert source.faults and "Permission denied" in source.faults[0]
    assert (victim or "the folder") in source.faults[0]


# Damaged text


TEXTS = [
    Kind("biwi", "01/frame_00004_pose.txt", "biwi/01/frame_00004"),
    Kind("biwi", "01/rgb.cal", "biwi/01/", options=(("frame", "rgb"),)),
    Kind("upna", "User_02/user_02_video_01_groundtruth3D.txt", "upna/user_02/video_01"),
    Kind("upna", "User_02/user_02_video_01_groundtruth2D.txt", "upna/user_02/video_01"),
    Kind("synhead", "BIWI/00.csv", "synhead/BIWI/00/"),
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda k: Path(k.path).name)
def test_damaged_text_is_refused_or_harmless(
    text: Kind, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Bytes become others that are no digits, lines vanish or come twice, ends are cut: right angles or a remark.

    A digit that becomes another digit is out of reach where nothing else in the file depends on it, as in
    the tables of UPNA and SynHead; in BIWI the rotation does, and there digits are damaged too.
    """
    root = tree_of(text.dataset, tmp_path_factory).root
    options = dict(text.options)
    before = read_all(text.dataset, root, **options)
    folder = text.path.partition("/")[0]
    copy = tmp_path / "copy"
    only = copied(root / folder, copy) if (root / folder).is_dir() else None
    assert only
    for extra in root.glob("*.obj"):
        os.link(extra, copy / extra.name)
    content = (root / text.path).read_bytes()
    rng = random.Random(text.path)
    outcomes = {"same": 0, "refused": 0}
    for _ in range(150):
        replace_file(copy / text.path, damaged_text(content, rng, digits=text.dataset == "biwi"))
        after = read_all(text.dataset, copy, **options)
        remarked = bool(after.warnings) or any(d.reason == "frame_count_mismatch" for d in after.drops.values())
        for sample_id, record in after.records.items():
            away = np.abs(np.array(angles_of(record)) - angles_of(before.records[sample_id])).max()
            assert away < 0.1 or remarked, (sample_id, away)
        outcomes["refused" if after.drops or remarked else "same"] += 1
    assert outcomes["refused"] > 50, outcomes


def damaged_text(content: bytes, rng: random.Random, digits: bool) -> bytes:
    at = rng.randrange(len(content))
    kind = rng.choice(("byte", "byte", "byte", "line twice", "line gone", "cut", "hole"))
    lines = content.splitlines(keepends=True)
    row = rng.randrange(len(lines))
    if kind == "byte":
        junk = b"_xX?;:\0\xff\x80" + (b"0123456789-. ,eE" if digits else b"")
        return content[:at] + bytes([rng.choice(junk)]) + content[at + 1 :]
    if kind == "line twice":
        return b"".join((*lines[:row], lines[row], *lines[row:]))
    if kind == "line gone":
        return b"".join((*lines[:row], *lines[row + 1 :]))
    if kind == "cut":
        return content[:at]
    return content[:at] + bytes(rng.randrange(1, 30)) + content[at + 30 :]  # a block of zeros, as from a bad disk
