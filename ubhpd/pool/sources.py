"""What datasets are known, how to get them, and which of them lie below a folder.

Datasets are found unpacked or as archives, whatever their top folders are called.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, Protocol

from ubhpd.core import options, registry
from ubhpd.core.errors import UbhpdError
from ubhpd.core.records import Drop, Note, Record, Unit
from ubhpd.core.registry import Card
from ubhpd.raw.source import Source
from ubhpd.raw.trees import (
    ARCHIVE_SUFFIXES,
    Tree,
    TreeSpec,
    archive_fault,
    foreign_archive,
    is_archive,
    is_compressed_tar,
    open_tree,
    peek,
    unnamed_archive,
)

# What every file in builders/ defines; docs/add-a-dataset.md explains each.
BUILDER_CARD = Card(
    "builders",
    {
        "NAME": str,
        "TITLE": str,
        "HOMEPAGE": str,
        "LICENSE": str,
        "CITATION": str,
        "ACCESS": str,
        "LAYOUT": str,
        "PUBLISHED": dict,
        "OUT_OF_RANGE": frozenset,
    },
    ("recognise", "units", "read"),
    "Options",
    "say what the dataset is and which quirks are handled",
    "docs/add-a-dataset.md",
)


class Builder(Protocol):
    """The reader of one raw dataset: a module in builders/.

    A builder that can read any number of datasets has an option `name`, the dataset's name in the manifest, and a
    function `locate(place) -> (folder, options)`, which turns what --root names into a folder and options.
    """

    NAME: str
    TITLE: str
    HOMEPAGE: str
    LICENSE: str
    CITATION: str
    ACCESS: str  # where to request it
    LAYOUT: str  # what the folder must look like
    PUBLISHED: dict[str, int]  # prefix of sample ids -> heads published under it
    OUT_OF_RANGE: frozenset[str]  # sample ids published as beyond 99 degrees
    Options: type[Any]  # frozen dataclass of named modes, each a string with a default

    def recognise(self, source: Source, path: str) -> bool:
        """Return True if the folder `path` of `source` is the root of this dataset."""

    def units(self, source: Source, options: Any) -> list[Unit]:
        """Return the independent pieces of work, in a stable order."""

    def read(self, source: Source, unit: Unit, options: Any) -> Iterator[Record | Drop | Note]:
        """Yield every head of a unit, in a stable order, and what else there is to say."""


@lru_cache(maxsize=1)
def builders() -> dict[str, Builder]:
    """Return the builders by name, sorted.

    Raises:
        UbhpdError: a file of the package has no valid card, or two share a name.
    """
    import ubhpd.builders as package

    return registry.entries(package, check_builder, lambda builder: builder.NAME, "builders", "builders")


def check_builder(module: Any) -> None:
    """Raise UbhpdError unless `module` has the card and the functions of a builder."""
    registry.check_card(module, BUILDER_CARD)


class Named:
    """A builder that reads a dataset of another name, as `table:mycar` does; otherwise the builder itself."""

    def __init__(self, builder: Builder, name: str) -> None:
        self.builder = builder
        self.NAME = name
        self.TITLE = f"{builder.TITLE} {name}"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.builder, name)


def select(names: Iterable[str]) -> dict[str, Builder]:
    """Return the named builders by the names of their datasets, in the order of all builders; case does not count.

    `table:mycar` is the builder table for a dataset mycar.

    Raises:
        UbhpdError: an unknown name, none at all, or a name of a dataset that is none or taken.
    """
    known = builders()
    chosen: dict[str, Builder] = {}
    for text in sorted(set(names)):
        base, colon, own = text.partition(":")
        name = registry.pick(known, base, "source")[0]
        if not colon:
            chosen[name] = known[name]
            continue
        if not hasattr(known[name], "locate"):
            raise UbhpdError(f"{name} is one dataset and takes no other name: write {name} instead of {text}.")
        if not _DATASET_NAME.fullmatch(own) or own in known or own in chosen:
            raise UbhpdError(
                f"{text} has no good name for a dataset: use up to 40 lower-case letters, digits, _ and -, and no name "
                "of another source."
            )
        chosen[own] = Named(known[name], own)
    if not chosen:
        raise UbhpdError(f"No source named: choose from {', '.join(known)}.")
    order = {name: place for place, name in enumerate(known)}
    return dict(sorted(chosen.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))


def dataset_name(text: str) -> str:
    """Return the dataset's name in the manifest of a source as --sources, --root and -O name it."""
    return text.partition(":")[2] or text


def module_name(builder: Builder) -> str:
    """Return the name under which `builders()` has the module of a builder."""
    return builder.builder.NAME if isinstance(builder, Named) else builder.NAME


def options_for(builder: Builder, chosen: Mapping[str, str]) -> Any:
    """Return the builder's options with the chosen values.

    A field's metadata["choices"] lists what it may be; without choices any text goes to the builder's own check.

    Raises:
        UbhpdError: an unknown option or value.
    """
    own = {"name": builder.NAME} if isinstance(builder, Named) else {}
    return options.from_texts(builder.Options, {**chosen, **own}, builder.NAME)


_DATASET_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_MAX_DEPTH = 5  # folders below the data root, and again inside an archive
_MAX_FOLDERS = 5000
_MAX_LISTED = 20  # archives and folders that a message names
_CROWD = 400  # a folder with more sub-folders than this holds recordings, not datasets


@dataclass
class Findings:
    """Where each dataset was found, and the archives and folders that cannot be read with the reason."""

    specs: dict[str, TreeSpec] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


def discover(
    builders: Mapping[str, Builder], data_root: str | None, roots: Mapping[str, str], *, spool_dir: str | None = None,
    keep_whole: bool = False,
) -> Findings:  # fmt: skip
    """Return where the datasets of `builders` lie.

    Args:
        builders: by name.
        data_root: a folder (or an archive) to search; None to go by `roots` alone.
        roots: places that the user named, dataset to folder or archive; they are searched instead of data_root.
        spool_dir: where the label files of a compressed tar are kept.
        keep_whole: keep whole images there, too.

    Raises:
        UbhpdError: a place does not exist, or a dataset is found twice.
    """
    findings = Findings()
    for name in roots:
        if name not in builders:
            raise UbhpdError(f"--root names {name!r}, which is not among the sources {', '.join(builders)}.")
    searched = {n: b for n, b in builders.items() if n not in roots}
    if data_root is not None and searched:
        _search(data_root, searched, findings, spool_dir, keep_whole)
    for name, place in roots.items():
        is_table = hasattr(builders[name], "locate") and (os.path.isdir(place) or is_archive(place))
        if is_table or (
            os.path.isdir(place) and _recognised(builders[name], "recognise", Source(peek(place)), "")
        ):  # the dataset itself
            findings.specs[name] = TreeSpec(((place, ""),), spool_dir, keep_whole)
        else:
            _search(place, {name: builders[name]}, findings, spool_dir, keep_whole)
    return findings


def missing_message(builder: Builder, place: str | None, faults: Mapping[str, str]) -> str:
    """Return what to tell a user whose dataset was not found in `place`, or who named no place."""
    where = (
        f"was not found in {place}" if place else f"has no place: give --data-root DIR or --root {builder.NAME}=PATH"
    )
    lines = [f"{builder.TITLE} ({builder.NAME}) {where}. {builder.ACCESS}"]
    lines += [f"  Homepage: {builder.HOMEPAGE}", f"  Licence: {builder.LICENSE}", "  It must look like this, or be the"]
    lines[-1] += " official archive of it:"
    lines += [f"    {line}" for line in builder.LAYOUT.rstrip().splitlines()]
    lines += [f"  Not usable: {place} {fault}." for place, fault in list(faults.items())[:_MAX_LISTED]]
    if len(faults) > _MAX_LISTED:
        lines.append(f"  Not usable: {len(faults) - _MAX_LISTED:,} more.")
    return "\n".join(lines)


def _search(
    place: str, builders: Mapping[str, Builder], findings: Findings, spool_dir: str | None, keep_whole: bool
) -> None:
    if not os.path.exists(place):
        raise UbhpdError(f"{place} does not exist: check --data-root and --root.")
    whole: dict[str, list[tuple[str, str]]] = {name: [] for name in builders}
    parts: dict[str, list[tuple[str, str]]] = {name: [] for name in builders}
    for source, home, folder in _folders(place, findings):
        for name, builder in builders.items():
            if _recognised(builder, "recognise", source, folder):
                whole[name].append((home, folder))
            elif _recognised(builder, "recognise_part", source, folder):
                parts[name].append((home, folder))
    for name in builders:
        if chosen := _choose(name, whole[name]):
            rest = tuple(p for p in parts[name] if p != chosen)
            findings.specs[name] = TreeSpec((_normal(chosen), *map(_normal, rest)), spool_dir, keep_whole)


def _recognised(builder: Builder, function: str, source: Source, folder: str) -> bool:
    ask = getattr(builder, function, None)
    return bool(ask is not None and ask(source, folder))


def _choose(name: str, places: list[tuple[str, str]]) -> tuple[str, str] | None:
    """Return the one place of a dataset: an unpacked folder goes before the archive it came from."""
    unpacked = [p for p in places if not is_archive(p[0])]
    candidates = unpacked or places
    if len(candidates) > 1:
        listed = " and ".join(TreeSpec((c,)).where for c in candidates[:3])
        raise UbhpdError(f"{name} was found more than once ({listed}): name one with --root {name}=PLACE.")
    return candidates[0] if candidates else None


def _normal(part: tuple[str, str]) -> tuple[str, str]:
    place, root = part
    return part if is_archive(place) else (os.path.join(place, root) if root else place, "")


def _folders(place: str, findings: Findings) -> Iterator[tuple[Source, str, str]]:
    """Yield (files, where they are, folder among them), breadth first, archives in their turn."""
    places = deque([os.fspath(place)])
    seen = 0
    while places:
        here = places.popleft()
        tree = _peek(here, findings)
        if tree is None:
            continue
        source = Source(tree)
        folders: deque[tuple[str, int]] = deque([("", 0)])
        while folders and seen < _MAX_FOLDERS:
            folder, depth = folders.popleft()
            seen += 1
            yield source, here, folder
            entries = []
            for entry in source.listdir(folder):
                if is_utf8(entry.name):
                    entries.append(entry)
                elif entry.is_dir or is_archive(entry.name):  # build.json could not say where the dataset is
                    shown = os.path.join(here, folder, entry.name).encode("utf-8", "backslashreplace").decode()
                    findings.faults[shown] = "has a name that is not UTF-8: rename it"
            inside = [e.name for e in entries if e.is_dir and not e.name.startswith((".", "__MACOSX"))]
            if depth < _MAX_DEPTH and len(inside) <= _CROWD:
                folders.extend((f"{folder}/{name}" if folder else name, depth + 1) for name in inside)
            if not is_archive(here):
                files = [os.path.join(here, folder, e.name) for e in entries if not e.is_dir]
                places.extend(file for file in files if is_archive(file))
                findings.faults |= dict(filter(None, map(foreign_archive, files)))
                unnamed = [file for file in files if "." not in os.path.basename(file)]
                findings.faults |= dict(filter(None, map(unnamed_archive, unnamed[:_MAX_LISTED])))
            else:
                for entry in entries:
                    if not entry.is_dir and is_archive(entry.name):
                        inner = f"{folder}/{entry.name}" if folder else entry.name
                        findings.faults[f"{here}:{inner}"] = f"is an archive inside an archive: unpack {here} there"
        for folder, fault in source.faults.items():
            findings.faults[os.path.join(here, folder)] = fault


def is_utf8(text: str) -> bool:
    """Return True if a path can be written as UTF-8; one that the system gave as other bytes cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _peek(place: str, findings: Findings) -> Tree | None:
    if not os.path.isdir(place) and not is_archive(place):
        raise UbhpdError(f"{place} is neither a folder nor an archive ({', '.join(ARCHIVE_SUFFIXES)}).")
    try:
        if is_archive(place) and (fault := archive_fault(place)):
            findings.faults[place] = fault
            return None
        return peek(place)
    except UbhpdError as error:
        findings.faults[place] = f"cannot be used ({str(error).removesuffix('.')})"
        return None


def survey(data_root: str | None, names: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Return a card per dataset: what it is, how to get it, its options, and where and how much of it was found.

    `heads_listed` counts labels by the listing alone, without reading them; it is None for a compressed tar,
    which would have to be read through.

    Raises:
        UbhpdError: an unknown name, a data root that does not exist, or a dataset found twice.
    """
    chosen = select(names) if names else builders()
    specs = discover(chosen, data_root, {}).specs if data_root else {}
    return {name: _card(builder, specs.get(name)) for name, builder in chosen.items()}


def _card(builder: Builder, spec: TreeSpec | None) -> dict[str, Any]:
    return {
        "name": builder.NAME,
        "title": builder.TITLE,
        "homepage": builder.HOMEPAGE,
        "licence": builder.LICENSE,
        "citation": builder.CITATION,
        "access": builder.ACCESS,
        "layout": builder.LAYOUT,
        "published": builder.PUBLISHED,
        "options": {
            f.name: {"default": f.default, "choices": list(f.metadata.get("choices", ()))}
            for f in fields(builder.Options)
        },
        "found": [TreeSpec((part,)).where for part in spec.parts] if spec else [],
        "heads_listed": _listed(builder, spec) if spec else None,
    }


def _listed(builder: Builder, spec: TreeSpec) -> int | None:
    if any(is_compressed_tar(place) for place, _ in spec.parts):
        return None
    return sum(unit.size for unit in builder.units(Source(open_tree(spec)), builder.Options()))
