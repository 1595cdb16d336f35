"""What every builder promises, whatever the dataset: the contract of records.py, in any order, in any archive."""

from __future__ import annotations

import os
import random
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trees_for_tests import (
    DATASETS,
    angles_of,
    assert_contract,
    copied,
    plain,
    plain_all,
    read_all,
    read_items,
    tree_at,
    tree_of,
)

from ubhpd.core.errors import UbhpdError
from ubhpd.core.records import Record
from ubhpd.pool import sources
from ubhpd.raw.source import Source

NAMES = sorted(sources.builders())
# Digits of the angles in the raw files: BIWI's text has six, Pose_Para is float32.
TOLERANCE_DEG = {"biwi": 2e-4, "aflw2000": 1e-4, "300wlp": 1e-4}
STRAYS = ("dockerface-01.txt", "Thumbs.db", ".DS_Store", "README", "desktop.ini", "frame_00003.txt")


# The card, and whose tree it is


def test_every_builder_has_a_tree_to_be_tested_on() -> None:
    assert sorted(DATASETS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_card(name: str) -> None:
    builder = sources.builders()[name]
    sources.check_builder(builder)
    assert (builder.NAME, name.isalnum(), name.islower()) == (name, True, True)
    for text in (builder.TITLE, builder.HOMEPAGE, builder.LICENSE, builder.CITATION, builder.ACCESS, builder.LAYOUT):
        assert text.strip() and "TODO" not in text
    assert builder.HOMEPAGE.startswith(("https://", "http://"))
    assert all(key.startswith(f"{name}/") and count > 0 for key, count in builder.PUBLISHED.items())
    assert all(key.startswith(f"{name}/") for key in builder.OUT_OF_RANGE)
    lines = builder.__doc__.splitlines()
    assert lines[0].endswith(".") and len(lines) > 5 and max(map(len, lines)) <= 120
    for option in fields(builder.Options):
        assert option.default in option.metadata.get("choices", (option.default,)) and option.name in builder.__doc__


@pytest.mark.parametrize("owner", NAMES)
def test_recognises_only_its_own_tree(owner: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """As `discover` does, every folder of a tree is shown to every builder: the owner takes one, the others none."""
    top = tree_of(owner, tmp_path_factory).root.parent
    source = Source(tree_at(top))
    folders = ["", *(str(p.relative_to(top)) for p in sorted(top.rglob("*")) if p.is_dir())]
    for name, builder in sources.builders().items():
        taken = [folder for folder in folders if builder.recognise(source, folder)]
        assert taken == ([DATASETS[owner].folder] if name == owner else [])


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_or_missing_folder_is_not_a_dataset(name: str, tmp_path: Path) -> None:
    builder = sources.builders()[name]
    source = Source(tree_at(tmp_path))
    assert not builder.recognise(source, "") and not builder.recognise(source, "nowhere")


# Heads


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
    for option in fields(sources.builders()[name].Options):
        for value in option.metadata.get("choices", ()):
            said = read_all(name, root, **{option.name: value})
            assert set(said.records) == set(truth)
            assert_contract(name, said, root)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_option_or_value_is_refused(name: str) -> None:
    builder = sources.builders()[name]
    with pytest.raises(UbhpdError, match=f"{name} has no option 'nonsense'"):
        sources.options_for(builder, {"nonsense": "1"})
    for option in (o for o in fields(builder.Options) if "choices" in o.metadata):
        with pytest.raises(UbhpdError, match="cannot be 'nonsense': (choose from|did you mean)"):
            sources.options_for(builder, {option.name: "nonsense"})


@pytest.mark.parametrize("name", NAMES)
def test_units_name_their_files(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A resumed build trusts `paths`: every image and label that a unit was read from is among them."""
    root = tree_of(name, tmp_path_factory).root
    builder, source = sources.builders()[name], Source(tree_at(root))
    options = sources.options_for(builder, {})
    units = builder.units(source, options)
    assert len({u.key for u in units}) == len(units)
    for unit in units:
        assert all((root / path).is_file() for path in unit.paths)
        images = {r.image_path for r in builder.read(source, unit, options) if isinstance(r, Record)}
        assert images <= set(unit.paths)
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
    assert sources.builders()[name].recognise(Source(tree_at(copy)), "")


@pytest.mark.parametrize("name", NAMES)
def test_suffixes_in_upper_case_give_the_same_heads(
    name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As a camera card or a Windows tool leaves them; the manifest names the files as they are called."""
    written = tree_of(name, tmp_path_factory).root
    root = copied(written, tmp_path)
    for path in list(root.rglob("*.*")):
        if path.is_file() and path.suffix != ".sqlite":
            path.rename(path.with_suffix(path.suffix.upper()))
    before, after = read_all(name, written), read_all(name, root)
    assert sources.builders()[name].recognise(Source(tree_at(root)), "")
    assert list(after.records) == list(before.records) and list(after.drops) == list(before.drops)
    for record, old in zip(after.records.values(), before.records.values(), strict=True):
        assert record.image_path != old.image_path and (root / record.image_path).is_file()
        assert plain(record._replace(image_path=old.image_path)) == plain(old)
    units = sources.builders()[name].units(Source(tree_at(root)), sources.options_for(sources.builders()[name], {}))
    assert all((root / path).is_file() for unit in units for path in unit.paths)
