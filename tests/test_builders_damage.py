"""Damage to raw data stays local, whatever the dataset and the kind of file."""

from __future__ import annotations

import os
import random
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trees_for_tests import (
    DATASETS,
    Kind,
    angles_of,
    assert_contract,
    copied,
    plain,
    read_all,
    replace_file,
    tree_at,
    tree_of,
)

from ubhpd.core.errors import UbhpdError
from ubhpd.pool import sources
from ubhpd.raw.folders import FolderTree
from ubhpd.raw.source import Source

NAMES = sorted(sources.builders())
DAMAGES = ("folder", "empty", "random", "cut to 1 byte", "cut to 0.3", "cut to 0.6", "cut by 20 bytes", "forbidden")


# Damage, for every kind of file


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
        "300wlp", "landmarks/AFW/AFW_134212_1_0_pts.mat",
        "300wlp/AFW/AFW_134212_1_0 300wlp/AFW_Flip/AFW_134212_1_0",  # the mirror image takes the points mirrored
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
KINDS += [kind for dataset in DATASETS.values() for kind in dataset.kinds]


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
        "biwi-depth.bin": None,
        "biwi-cal": None,
        "300wlp-pts.mat": None,  # optional
        "synhead-png": "frame_count_mismatch",
    }
    key = f"{kind.dataset}-{Path(kind.path).name.rpartition('_')[2]}".replace("rgb.cal", "cal").replace("1.png", "png")
    imaged = kind.path.endswith((".jpg", ".png", ".mp4"))
    reason = expected.get(key, "missing_image" if imaged else "missing_label")
    hit = {i for i in before.records if i.startswith(tuple(kind.heads.split()))}
    if reason is None:
        assert set(after.records) == set(before.records)
        return
    lost = set(before.records) - set(after.records)
    assert (lost == hit or reason == "frame_count_mismatch") and lost
    assert {d.reason for i, d in after.drops.items() if i not in before.drops} == {reason}


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("aflw", "table")])  # whose tables name the images
def test_a_folder_that_cannot_be_listed_is_named(
    name: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree_of(name, tmp_path_factory).root
    builder, source = sources.builders()[name], Source(tree_at(root))
    options = sources.options_for(builder, {})
    whole = builder.units(Source(tree_at(root)), options)
    victim = Path(whole[0].paths[0]).parent.as_posix().removeprefix(".")
    original = os.scandir

    def scandir(path: Any) -> Any:
        if os.path.relpath(path, root) == (victim or "."):
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert len(builder.units(source, options)) < len(whole)
    assert source.faults == {victim: "cannot be listed: Permission denied"}


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


# Size of text


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("upna", "*_groundtruth3D.txt"),
        ("upna", "*_groundtruth2D.txt"),
        ("synhead", "*.csv"),
        ("biwi", "*_pose.txt"),
        ("biwi", "rgb.cal"),
        ("biwi", "*.obj"),
        ("aflw2000", "image*.mat"),
        ("300wlp", "*.mat"),
    ],
)
def test_a_label_file_of_gigabytes_is_refused_unread(
    name: str, pattern: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = copied(tree_of(name, tmp_path_factory).root, tmp_path)
    victim = sorted(root.rglob(pattern))[0]
    victim.unlink()
    with victim.open("wb") as file:
        file.truncate(4 << 30)  # with holes: it takes no room
    before = read_all(name, tree_of(name, tmp_path_factory).root)
    tracemalloc.start()
    after = read_all(name, root)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 << 20
    said = [d.detail for i, d in after.drops.items() if i not in before.drops] + after.warnings
    assert said and all(victim.name in text for text in said)
    if pattern != "*.obj":  # its note says only that it is not readable
        assert all("more than the 8388608 expected at most" in text for text in said)
    assert len(after.records) + len(after.drops) == len(before.records) + len(before.drops) or name in (
        "upna",
        "synhead",
    )
