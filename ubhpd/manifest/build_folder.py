"""The folder that `ubhpd build --out` writes: its manifests, its record build.json, and where the raw data lies.

The one rule for a command that is given a folder: it reads UBHPD (ubhpd.parquet, else ubhpd.h5) if it is there, else
the pool (pool.parquet, else pool.h5). A command that is about the pool itself reads the pool, and a protocol reads the
manifest that it is defined on. A command that is given a manifest reads that file, and build.json beside it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import read_json

POOL, UBHPD = "pool", "ubhpd"
RECORD = "build.json"
LANDMARKS = "landmarks.parquet"  # the pool with landmarks filled, which ubhpd landmarks writes and training uses
NO_LANDMARKS = Path("none")  # in place of such a file: use none
WORK = "work"  # folder in a build with what can be made again: parts, unpacked archives, caches
SUFFIXES = (".parquet", ".h5")

_REMEDY = {
    POOL: "name the folder that ubhpd build --out wrote to",
    UBHPD: "let ubhpd build sample UBHPD from the pool, then name its folder",
}


@dataclass(frozen=True)
class BuildFolder:
    """A build's folder. named: the manifest that the user named instead of the folder, None for a folder."""

    folder: Path
    named: Path | None = None

    @classmethod
    def at(cls, place: str | os.PathLike[str]) -> BuildFolder:
        """Return the build in a folder, or the one that a manifest file belongs to. Nothing is opened yet."""
        path = Path(place)
        return cls(path) if path.is_dir() else cls(path.parent, path)

    def manifest(self, first: str = UBHPD) -> Path:
        """Return the manifest to read: the named file; else `first` (UBHPD or POOL) if there is one, else the other.

        Raises:
            UbhpdError: the folder holds neither.
        """
        if self.named is not None:
            return self.named
        other = POOL if first == UBHPD else UBHPD
        if (path := self.find(first) or self.find(other)) is None:
            raise UbhpdError(f"{self.folder} holds no {first}.parquet or {other}.parquet: {_REMEDY[POOL]}.")
        return path

    def pool(self) -> Path:
        """Return the named file, else the pool.

        Raises:
            UbhpdError: the folder holds no pool.
        """
        return self.named or self.require(POOL)

    def find(self, kind: str) -> Path | None:
        """Return the folder's manifest of a kind, POOL or UBHPD, Parquet before HDF5; None if there is none."""
        return next((p for s in SUFFIXES if (p := self.folder / f"{kind}{s}").is_file()), None)

    def require(self, kind: str, user: str = "") -> Path:
        """Return the folder's manifest of a kind.

        Args:
            kind: POOL or UBHPD.
            user: who needs it, for the error, as "Protocol ubhpd".

        Raises:
            UbhpdError: there is none.
        """
        if (path := self.find(kind)) is not None:
            return path
        if user:
            raise UbhpdError(f"{user} needs {kind}.parquet, which is not in {self.folder}: {_REMEDY[kind]}.")
        raise UbhpdError(f"{self.folder} holds no {kind}.parquet: {_REMEDY[kind]}.")

    @property
    def record_path(self) -> Path:
        """Path of build.json."""
        return self.folder / RECORD

    @property
    def has_record(self) -> bool:
        """Whether build.json is there, which a build writes last."""
        return self.record_path.is_file()

    def check(self) -> None:
        """Raise UbhpdError unless the folder is one that a build wrote."""
        if not self.has_record:
            raise UbhpdError(f"{self.folder} is no folder of a build, it has no {RECORD}: {_REMEDY[POOL]}.")

    @cached_property
    def record(self) -> dict[str, Any]:
        """Content of build.json.

        Raises:
            UbhpdError: it is missing, unreadable, or not what a build writes.
        """
        content = read_json(self.record_path, "build again, or name the folder that ubhpd build --out wrote to")
        if not isinstance(content, dict):
            raise UbhpdError(f"{self.record_path} is not what ubhpd build writes: build again.")
        return content

    @cached_property
    def roots(self) -> Mapping[str, tuple[tuple[str, str], ...]]:
        """Where each dataset was read: (folder or archive, root inside it), one or more.

        Raises:
            UbhpdError: build.json is missing, or does not say it.
        """
        if not self.has_record:
            raise UbhpdError(f"There is no {self.record_path}, which says where the images are: {_REMEDY[POOL]}.")
        roots = {}
        datasets = self.record.get("datasets")
        if not isinstance(datasets, dict):
            raise UbhpdError(f"{self.record_path} does not say where the images are: build again.")
        for name, dataset in datasets.items():
            places = dataset.get("roots") if isinstance(dataset, dict) else None
            if not isinstance(places, list) or not places or not all(map(_is_place, places)):
                raise UbhpdError(
                    f"{self.record_path} does not say where the images of {str(name)[:60]!r} are: build again."
                )
            roots[name] = tuple((place, root) for place, root in places)
        return roots

    @property
    def work(self) -> Path:
        """Folder with what can be made again."""
        return self.folder / WORK

    @property
    def spool(self) -> Path:
        """Folder with what was unpacked from compressed tars."""
        return self.work / "spool"

    @property
    def densities(self) -> Path:
        """Path of densities.csv."""
        return self.folder / "densities.csv"

    def landmarks(self, chosen: Path | None = None) -> Path | None:
        """Return the manifest whose landmarks complete those of the build's heads; None where there is none.

        Args:
            chosen: the file to take, NO_LANDMARKS for none; None takes landmarks.parquet of this folder if it is there.

        Raises:
            UbhpdError: the chosen file is not there.
        """
        if chosen is None:
            own = self.folder / LANDMARKS
            return own if own.is_file() else None
        if chosen.is_file():
            return chosen
        if chosen == NO_LANDMARKS:
            return None
        raise UbhpdError(f"There is no file {chosen} of landmarks: write it by ubhpd landmarks, or name none.")

    def target(self) -> Any:
        """Return the density that UBHPD was sampled to, as build.json has it; None where none is recorded."""
        try:
            return self.record["unbiased"]["sampling"]["target"]
        except (UbhpdError, KeyError, TypeError):
            return None


def readmitted(rows: pa.Table) -> pa.Table:
    """Return rows that a protocol chose, none of them refused any more.

    A protocol has a limit of its own for the angles, so it takes heads back that the build refused for theirs.
    """
    nothing = pa.nulls(rows.num_rows, pa.string())
    for name in ("drop_reason", "drop_detail"):
        if (place := rows.schema.get_field_index(name)) >= 0:
            rows = rows.set_column(place, rows.schema.field(place), nothing)
    return rows


def _is_place(place: Any) -> bool:
    return isinstance(place, list) and len(place) == 2 and all(isinstance(p, str) and "\0" not in p for p in place)
