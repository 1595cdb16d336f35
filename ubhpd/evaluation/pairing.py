"""Pairs predictions with their truth, and counts the training set that density weights refer to.

The truth is in the file's own columns or in a manifest, where heads are found by id. The training set is a manifest, a
table of counts, or one whose counts are part of the package.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd import manifest
from ubhpd.core.bins import ANGLES, EDGES_DEG, N_BINS, counts
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing, user_folder
from ubhpd.core.typing import AnyArray, FloatArray, IntArray
from ubhpd.evaluation.predictions import GROUPS, Predictions, quoted
from ubhpd.evaluation.scoring import Pairs
from ubhpd.manifest import BuildFolder
from ubhpd.manifest.schema import mask_of, row_numbers

_COLUMNS = ("sample_id", "yaw_deg", "pitch_deg", "roll_deg", "rotation", "subject_id", "sequence_id", "drop_reason")


class Source(NamedTuple):
    """Where the truth of a prediction file comes from: a manifest, None for the file's own columns, and in words."""

    manifest: Path | None
    text: str
    protocol: str | None = None  # to go by if the user names none

    @classmethod
    def of(cls, file: Predictions, manifest_path: str | Path | None = None, last_build: bool = False) -> Source:
        """Return the truth to use: the manifest given, else the file's own columns, else what its sidecar names.

        Args:
            file: the predictions.
            manifest_path: a manifest or a build's folder.
            last_build: use the last build of this account.

        Raises:
            UbhpdError: there is none, two are asked for, or the manifest that the sidecar names has gone or changed.
        """
        if last_build:
            if manifest_path is not None:
                raise UbhpdError("Both --manifest and --last-build name a truth: give one of them.")
            if (last := recall()) is None:
                raise UbhpdError("There is no last build with a ubhpd.parquet any more: give --manifest.")
            return cls(last, f"{last}, the last build (--last-build)", "ubhpd")
        if manifest_path is not None:
            return cls(Path(manifest_path), str(manifest_path))
        if file.true_deg is not None:
            return cls(None, "columns of the file")
        if (named := _sidecar(file)) is not None:
            return named
        raise UbhpdError(
            f"{file.path} has no truth (columns yaw_true,pitch_true,roll_true, or a manifest named in the JSON file "
            "that ubhpd predict writes beside it): give --manifest, or --last-build for the build made last."
        )


def _sidecar(file: Predictions) -> Source | None:
    """Return the manifest that the JSON file beside predictions names, as `ubhpd predict` writes it; None without."""
    path = Path(file.path).with_suffix(".json")
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size < 1 << 20 else None
    except (OSError, ValueError, RecursionError):
        return None
    about = content if isinstance(content, dict) else {}
    place = about.get("manifest_path")
    if not isinstance(place, str) or not place or "\0" in place:
        return None
    if not Path(place).is_file():
        raise UbhpdError(f"{path} says that the truth is in {quoted(place)}, which is not there: give --manifest.")
    head = manifest.header(Path(place))
    if head.fingerprint != about.get("manifest"):
        raise UbhpdError(
            f"{place} has changed since {path} was written (another fingerprint): give --manifest, or predict again."
        )
    protocol = "ubhpd" if "split" in head.schema.names else None
    return Source(Path(place), f"{place}, named in {path.name}", protocol)


@dataclass(frozen=True)
class Paired:
    """Heads with a prediction and a truth, in the order of the file, and how many there should be.

    `wanted` counts the usable heads of the manifest or the protocol (or the rows of the file), `missing` those
    without a prediction, `refused` predictions for heads that the manifest dropped or the protocol leaves out.
    `by_ending` counts ids that equal one of the manifest's by their unique ending, `example_ending` is one of them.
    `groups` has codes (n,), 0 upwards, of subjects and sequences, where known for every head.
    """

    pairs: Pairs
    sample_id: pa.Array
    groups: dict[str, IntArray]
    truth: str
    wanted: int
    missing: int
    refused: int
    example_missing: str | None = None
    fingerprint: str | None = None
    by_ending: int = 0
    example_ending: tuple[str, str] | None = None

    @property
    def coverage(self) -> float:
        """Share of the wanted heads that have a prediction."""
        return len(self.sample_id) / self.wanted if self.wanted else float("nan")


def pair(
    predictions: Predictions, manifest_path: str | Path | None = None, only: Sequence[str] | None = None
) -> Paired:
    """Return the predictions with their truth.

    Args:
        predictions: of `ubhpd.evaluation.predictions.read`.
        manifest_path: a manifest or a build's folder; none to take the truth that the file carries.
        only: ids of the heads that count, usable or not; by default the usable ones of the manifest.

    Raises:
        UbhpdError: neither a manifest nor truth in the file; ids that the manifest does not have; a bad manifest.
    """
    if manifest_path is None:
        return _own_truth(predictions)
    return _with_manifest(predictions, Path(manifest_path), only)


def places(names: pa.Array, ids: pa.Array) -> pa.Array:
    """Return the row of each name among ids (int64), null where there is none.

    A name that is not among the ids stands for the one id that it is the ending of, or that is its own ending, folder
    by folder, whatever the case, the extension, and hyphens or underscores in the name of the dataset: `image00002`,
    `image00002.jpg` and `data/AFLW2000/image00002.jpg` are all `aflw2000/image00002`. An ending of two ids is none.
    """
    if len(names) == len(ids) and names.equals(ids):
        return row_numbers(np.arange(len(ids)))
    exact = pc.index_in(names, value_set=ids).cast(pa.int64())
    if not exact.null_count:
        return exact
    endings: dict[str, int] = {}
    whole: dict[str, int] = {}
    for row, name in enumerate(ids.to_pylist()):
        parts = _parts(name)
        for start in range(len(parts)):
            ending = "/".join(parts[start:])
            endings[ending] = row if ending not in endings else -1
        whole["/".join(parts)] = row if "/".join(parts) not in whole else -1
    rows = exact.to_pylist()
    taken = {row for row in rows if row is not None}
    by_ending: dict[int, int] = {}
    for at, (name, row) in enumerate(zip(names.to_pylist(), rows, strict=True)):
        if row is not None:
            continue
        parts = _parts(name)
        own = endings.get("/".join(parts), -1)
        for start in range(1, len(parts)):
            own = whole.get("/".join(parts[start:]), -1) if own < 0 else own
        if own >= 0 and own not in taken:
            taken.add(own)
            by_ending[at] = own
    for at, own in by_ending.items():
        rows[at] = own
    return pa.array(rows, pa.int64())


def _parts(name: str) -> list[str]:
    """Return the folders and the file name of an id, comparable: lower case, no extension, letters and digits."""
    parts = [p for p in name.replace("\\", "/").lower().split("/") if p not in ("", ".")]
    if parts:
        parts[-1] = re.sub(r"\.[a-z][a-z0-9_]{1,8}$", "", parts[-1])
    return [*(re.sub(r"[-_ ]", "", p) for p in parts[:-1]), *parts[-1:]]


def truth_table(place: Path, whole: bool = False) -> tuple[pa.Table, str]:
    """Return the columns of a manifest that scoring needs, and its fingerprint; `whole`: of a folder, its pool."""
    path = BuildFolder.at(place).manifest(manifest.POOL if whole else manifest.UBHPD)
    head = manifest.header(path)
    return manifest.read(path, _COLUMNS), head.fingerprint


def angles(table: pa.Table) -> FloatArray:
    """Return yaw, pitch, roll (n, 3) in degrees of a manifest table, NaN where there is none."""
    ypr: FloatArray = np.stack([table.column(f"{a}_deg").to_numpy() for a in ("yaw", "pitch", "roll")]).T
    return ypr


def _own_truth(predictions: Predictions) -> Paired:
    if predictions.true_deg is None:
        raise UbhpdError(
            f"{predictions.path} has no truth (columns yaw_true,pitch_true,roll_true): give --manifest, or add them."
        )
    pairs = Pairs(predictions.predicted_deg, predictions.true_deg, predictions.predicted_rotation)
    groups = {name: codes for name in GROUPS if (codes := _codes(predictions.groups.get(name))) is not None}
    return Paired(
        pairs=pairs,
        sample_id=predictions.sample_id,
        groups=groups,
        truth="columns of the file",
        wanted=len(predictions),
        missing=0,
        refused=0,
    )


def _with_manifest(predictions: Predictions, path: Path, only: Sequence[str] | None) -> Paired:
    folder = BuildFolder.at(path)
    path = folder.manifest(manifest.UBHPD if only is None else manifest.POOL)
    table, fingerprint = truth_table(path)
    ids = table.column("sample_id").combine_chunks()
    place = places(predictions.sample_id, ids)
    if place.null_count and only is None and (pool := folder.manifest(manifest.POOL)) != path:
        # Predictions of a whole dataset are not all in UBHPD: then the pool is the truth, if it has them all.
        of_pool, mark = truth_table(pool)
        names = of_pool.column("sample_id").combine_chunks()
        if not (in_pool := places(predictions.sample_id, names)).null_count:
            path, table, fingerprint, ids, place = pool, of_pool, mark, names, in_pool
    if place.null_count:
        row = pc.index(pc.is_null(place), True).as_py()
        what = "None" if place.null_count == len(place) else f"{place.null_count:,} of {len(place):,}"
        example = f"; the manifest has ids like {quoted(ids[0].as_py())}" if len(ids) else ""
        raise UbhpdError(
            f"{predictions.path}, row {row + 1}: the id {quoted(predictions.sample_id[row].as_py())} is not in {path} "
            f"({what} {'of the ids is' if what == 'None' else 'ids are not'} there{example})."
        )
    names = ids.take(place)
    differ = pc.not_equal(names, predictions.sample_id)
    by_ending = pc.sum(differ).as_py() or 0
    example_ending = None
    if by_ending:
        first = pc.index(differ, True).as_py()
        example_ending = (predictions.sample_id[first].as_py(), names[first].as_py())
    rows = place.to_numpy()
    wanted = table.column("drop_reason").is_null() if only is None else pc.is_in(ids, value_set=pa.array(only))
    usable = wanted.to_numpy(zero_copy_only=False) & np.isfinite(angles(table)).all(axis=1)
    kept = usable[rows]
    rows_kept = rows[kept]
    predicted = np.zeros(len(ids), dtype=bool)
    predicted[rows_kept] = True
    absent = np.flatnonzero(usable & ~predicted)
    if not len(rows_kept):
        raise UbhpdError(f"{predictions.path}: none of its heads counts in {path}, so there is nothing to score.")
    rotation = table.column("rotation").combine_chunks()
    matrices = None
    if rotation.null_count == 0 or pc.is_valid(rotation).to_numpy(zero_copy_only=False)[rows_kept].all():
        matrices = pc.list_flatten(rotation.take(row_numbers(rows_kept))).to_numpy().reshape(-1, 3, 3)
    own = predictions.predicted_rotation
    pairs = Pairs(
        _fortran(predictions.predicted_deg, kept),
        _fortran(angles(table), rows_kept),
        None if own is None else own[kept],
        matrices,
    )
    groups = {
        name: codes
        for name in GROUPS
        if (codes := _codes(table.column(name).combine_chunks().take(row_numbers(rows_kept)))) is not None
    }
    return Paired(
        pairs=pairs,
        sample_id=names if kept.all() else names.filter(mask_of(kept)),
        groups=groups,
        truth=str(path),
        wanted=int(usable.sum()),
        missing=len(absent),
        refused=int((~kept).sum()),
        example_missing=ids[int(absent[0])].as_py() if len(absent) else None,
        fingerprint=fingerprint,
        by_ending=by_ending,
        example_ending=example_ending,
    )


def _fortran(values: FloatArray, rows: AnyArray) -> FloatArray:
    chosen: FloatArray = np.stack([values[:, j][rows] for j in range(3)]).T
    return chosen


def _codes(names: pa.Array | None) -> IntArray | None:
    """Return codes in the order of the sorted names, so that resamples do not depend on the order of the file."""
    if names is None or names.null_count or not len(names):
        return None
    encoded = names.dictionary_encode()
    order = np.argsort(np.argsort(np.array(encoded.dictionary.to_pylist(), dtype=str)))
    codes: IntArray = order[encoded.indices.to_numpy()].astype(np.int64)
    return codes


def remember(out: Path) -> None:
    """Note that `out` holds the last build; a state folder that cannot be written to is no fault of the build."""
    if (note := _note()) is None:
        return
    try:
        with replacing(note) as part:
            part.write_text(f"{out.resolve()}\n", encoding="utf-8")
    except OSError:
        return


def recall() -> Path | None:
    """Return the manifest of the last build's UBHPD, None if there is none any more."""
    if (note := _note()) is None:
        return None
    try:
        out = Path(note.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return None
    return out / "ubhpd.parquet" if (out / "ubhpd.parquet").is_file() else None


def _note() -> Path | None:
    folder = user_folder("XDG_STATE_HOME", ".local/state")
    return None if folder is None else folder / "last-build"


class TrainingSet(NamedTuple):
    """Heads per angle and bin (3, 15), heads outside the bins (3,), the set's name, and which counts these are."""

    counts: FloatArray
    outside: FloatArray
    name: str
    text: str

    @property
    def heads(self) -> int:
        """Number of heads that were counted."""
        return int(self.counts[0].sum() + self.outside[0])


@lru_cache(maxsize=1)
def known() -> dict[str, TrainingSet]:
    """Return the sets whose counts are shipped, by name."""
    text = (files("ubhpd") / "data" / "label_counts.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    sets = {}
    for name in dict.fromkeys(row["source"] for row in rows):
        own = {row["angle"]: row for row in rows if row["source"] == name}
        inside = np.array([[float(own[a][f"bin{i:02d}"]) for i in range(1, N_BINS + 1)] for a in ANGLES])
        outside = np.array([float(own[a]["outside"]) for a in ANGLES])
        sets[name] = TrainingSet(inside, outside, name, f"the label counts of {name} that are part of the package")
    return sets


def training_set(text: str) -> TrainingSet:
    """Return the training set that `text` names: a known one, a manifest or a build's folder, or a CSV table.

    Of a manifest with a column split, only the training split counts. The table has low_deg, high_deg, yaw, pitch,
    roll: heads per bin, bins of 12 degrees or finer ones that nest.

    Raises:
        UbhpdError: none of these, or a table whose bins do not fit.
    """
    named = {name.lower(): own for name, own in known().items()}
    if text.lower() in named:
        return named[text.lower()]
    path = Path(text)
    if not path.exists():
        raise UbhpdError(
            f"No training set {quoted(text)}: give a manifest, a table of counts, or one of {', '.join(known())}."
        )
    if path.is_file() and path.suffix.lower() == ".csv":
        try:
            return _from_table(path)
        except csv.Error as error:  # an endless field; with Python 3.10, a NUL character
            raise UbhpdError(f"{path} is not CSV ({error}): write the table again.") from None
    path = BuildFolder.at(path).manifest(manifest.UBHPD)
    if "split" not in manifest.header(path).schema.names:
        return counted(truth_table(path)[0], text, "all usable heads")
    table = manifest.read(path, [*_COLUMNS, "split"])
    train = table.filter(pc.equal(table.column("split"), "train")).column("sample_id").to_pylist()
    return counted(table, text, "the training split", train)


def counted(table: pa.Table, name: str, which: str, only: Sequence[str] | None = None) -> TrainingSet:
    """Return the heads of a manifest table per bin: those with these ids, or the usable ones.

    Raises:
        UbhpdError: there is none inside the bins of some angle.
    """
    ids = table.column("sample_id")
    mask = table.column("drop_reason").is_null() if only is None else pc.is_in(ids, value_set=pa.array(only))
    ypr = angles(table)[mask.to_numpy()]
    tally = counts(ypr[np.isfinite(ypr).all(axis=1)])
    if not (tally.inside.sum(axis=1) > 0).all():
        raise UbhpdError(f"{name} has no head inside -90 to 90 for some angle: it is no training set.")
    inside, outside = tally.inside.astype(np.float64), tally.outside.astype(np.float64)
    return TrainingSet(inside, outside, name, f"{which} of {name}")


def _from_table(path: Path) -> TrainingSet:
    inside, outside = np.zeros((len(ANGLES), N_BINS)), np.zeros(len(ANGLES))
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        columns = ("low_deg", "high_deg", *ANGLES)
        if missing := [n for n in columns if n not in (reader.fieldnames or [])]:
            raise UbhpdError(f"{path} has no column {missing[0]}: a table of counts has {','.join(columns)}.")
        for number, row in enumerate(reader, start=1):
            try:
                low, high, *heads = (float(row[n]) for n in columns)
            except (TypeError, ValueError):
                raise UbhpdError(f"{path}, row {number}: a value is not a number.") from None
            if not (low < high and all(np.isfinite(h) and h >= 0 for h in heads)):
                raise UbhpdError(f"{path}, row {number}: expected low_deg < high_deg and counts of 0 or more.")
            place = int(np.searchsorted(EDGES_DEG, low + 1e-9, side="right")) - 1
            if high <= EDGES_DEG[0] + 1e-9 or low >= EDGES_DEG[-1] - 1e-9:
                outside += heads
            elif 0 <= place < N_BINS and high <= EDGES_DEG[place + 1] + 1e-9:
                inside[:, place] += heads
            else:
                raise UbhpdError(
                    f"{path}, row {number}: {low:g} to {high:g} lies in two of the 12-degree bins from -90 to 90: "
                    "give bins that nest in them, of 12, 6, 4 or 3 degrees."
                )
    if not (inside.sum(axis=1) > 0).all():
        raise UbhpdError(f"{path} counts no head inside -90 to 90 for some angle: it is no training set.")
    return TrainingSet(inside, outside, str(path), f"the table of counts {path}")
