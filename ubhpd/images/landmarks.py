"""The 68 iBUG landmarks by dlib's shape predictor, an optional part: neither dlib nor its model comes with ubhpd.

Kazemi and Sullivan, One Millisecond Face Alignment with an Ensemble of Regression Trees, CVPR 2014. The model is
dlib's shape_predictor_68_face_landmarks.dat, found in the variable UBHPD_DLIB68, in Debian's libdlib-data, or in the
package face_recognition_models, which is not imported.

It was trained on nearly frontal faces in the square boxes of dlib's own detector, and the box matters. On 387 images
of AFLW2000-3D the median error of the inner points, in shares of the face's size, by degrees of yaw:

| box | 0 to 20 | 20 to 30 | 30 to 40 | 40 to 50 |
|---|---|---|---|---|
| around the landmarks, as in the manifest | 0.02 | 0.06 | 0.23 | 0.29 |
| of MTCNN, made square | 0.02 | 0.03 | 0.05 | 0.14 |

In a box around the whole head, as BIWI's, the points land beside the mouth and the chin even from the front.

A file with the 68 landmarks of heads: CSV or Parquet, sample_id and x0, y0 to x67, y67 in pixels of the image.

Landmarks of many heads by dlib are stored in parts: an interrupted run resumes, and processes share the work.

Fills the 68 landmarks of a manifest's heads, from dlib's model or from a file, and changes nothing else.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import locked, replacing
from ubhpd.core.parallel import Engine
from ubhpd.core.progress import Progress
from ubhpd.core.records import OF_SOURCE_PHOTO
from ubhpd.core.typing import BoolArray, FloatArray, Image
from ubhpd.images.detectors import detector
from ubhpd.images.faces import Detector, overlap
from ubhpd.images.reading import Images
from ubhpd.manifest import BuildFolder
from ubhpd.manifest.schema import COLUMNS, Column, list_length, lists, matrix

VARIABLE = "UBHPD_DLIB68"
FILE = "shape_predictor_68_face_landmarks.dat"
DEBIAN_FOLDER = Path("/usr/share/dlib")

_INSTALL = "pip install 'ubhpd[dlib]'"


def model_path() -> Path:
    """Return where dlib's model of the 68 landmarks lies.

    Raises:
        UbhpdError: it is not here; the sentence says what to install.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not Path(named).is_file():
            raise UbhpdError(f"{VARIABLE} names {named}, which is no file: let it name {FILE}.")
        return Path(named)
    spec = find_spec("face_recognition_models")
    packaged = [Path(f) / "models" for f in (spec.submodule_search_locations or ())] if spec else []
    for folder in (DEBIAN_FOLDER, *packaged):
        if (folder / FILE).is_file():
            return folder / FILE
    raise UbhpdError(f"dlib's landmark model {FILE} is not here: {_INSTALL}, or name the file in {VARIABLE}.")


def landmarks68(image_bgr: Image, bbox_xyxy: npt.ArrayLike) -> FloatArray:
    """Return the 68 landmarks (68, 2) of a face, x and y in whole pixels counted from 0, float64.

    Args:
        image_bgr: (height, width, 3), BGR.
        bbox_xyxy: left, top, right, bottom of the face in pixels, made square about its middle as the boxes of the
            model's training were; it may leave the image.

    Raises:
        UbhpdError: dlib or its model is not here, or the box is empty or not finite.
    """
    box = np.asarray(bbox_xyxy, dtype=np.float64)
    if box.shape != (4,) or not np.isfinite(box).all() or box[2] - box[0] < 1 or box[3] - box[1] < 1:
        raise UbhpdError(f"The face box {box.tolist()} is empty or not finite: no landmarks can be found in it.")
    find = predictor(str(model_path()))
    import dlib

    half = float((box[2:] - box[:2]).max()) / 2
    x, y = ((box[:2] + box[2:]) / 2).tolist()
    square = dlib.rectangle(round(x - half), round(y - half), round(x + half), round(y + half))
    shape = find(np.ascontiguousarray(image_bgr[:, :, ::-1]), square)
    return np.array([(point.x, point.y) for point in shape.parts()], dtype=np.float64)


@lru_cache(maxsize=1)
def predictor(path: str) -> Any:
    """Return dlib's shape predictor of a model file.

    Raises:
        UbhpdError: dlib is not here, or the file is no such model.
    """
    try:
        import dlib
    except ImportError:
        raise UbhpdError(f"The landmarks of dlib need the module dlib: {_INSTALL}.") from None
    try:
        return dlib.shape_predictor(path)
    except RuntimeError as error:
        raise UbhpdError(f"{path} is no shape predictor of dlib ({error}): take {FILE} from dlib.") from None


POINT_COLUMNS = tuple(f"{axis}{point}" for point in range(68) for axis in "xy")


class LandmarkFile(NamedTuple):
    """The landmarks of a file: rows (n, 136) as the manifest has them, NaN for invisible, and the row of each head."""

    rows: FloatArray
    row_of: dict[str, int]


def read(path: Path) -> LandmarkFile:
    """Return the landmarks of a file; other columns are ignored.

    Raises:
        UbhpdError: no such file, no table, a column that is missing or holds no numbers, a missing id, or one twice.
    """
    table = _table(path)
    if missing := [name for name in ("sample_id", *POINT_COLUMNS) if name not in table.column_names]:
        raise UbhpdError(f"{path} has no column {missing[0]}: it must have sample_id, x0, y0 to x67, y67, in pixels.")
    ids = table.column("sample_id").cast(pa.string()).to_pylist()
    row_of: dict[str, int] = {}
    for row, sample_id in enumerate(ids):
        if not sample_id:
            raise UbhpdError(f"{path}, row {row + 1}: the sample_id is missing.")
        if sample_id in row_of:
            raise UbhpdError(f"{path}, row {row + 1}: {sample_id!r} stands in row {row_of[sample_id] + 1} already.")
        row_of[sample_id] = row
    rows = np.empty((len(ids), len(POINT_COLUMNS)))
    for place, name in enumerate(POINT_COLUMNS):
        column = table.column(name)
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_null(column.type)):
            raise UbhpdError(f"{path}: the column {name} holds {column.type}, not numbers: write pixels with points.")
        rows[:, place] = column.cast(pa.float64()).fill_null(np.nan).to_numpy()
    rows[np.isinf(rows)] = np.nan
    return LandmarkFile(rows, row_of)


def _table(path: Path) -> pa.Table:
    try:
        with open(path, "rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        if is_parquet:
            return pq.read_table(path)
        return pacsv.read_csv(path, convert_options=pacsv.ConvertOptions(column_types={"sample_id": pa.string()}))
    except OSError as error:
        raise UbhpdError(f"Cannot open {path} ({error.strerror or error}): check the path.") from None
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise UbhpdError(f"{path} is neither CSV nor Parquet ({reason}): write it again.") from None


IMAGE_COLUMNS = ("sample_id", "dataset", "image_path", "frame_index", "bbox_xyxy", "bbox_kind")
OWN_BOX = "none"  # instead of a detector's
VERSION = 1  # of the method: another one does not use the parts of the last

_CHUNK = 256  # heads of a part
_SAME_FACE = 0.3  # overlap above which a detected box is that of the head
_LENGTH = 136


class Found(NamedTuple):
    """Landmarks (n, 136) of heads, NaN where there are none, and why, by row."""

    rows: FloatArray
    reasons: dict[int, str]


class _Part(NamedTuple):
    path: Path
    heads: pa.Table


class DlibParts:
    """The landmarks of tables of heads: IMAGE_COLUMNS of a manifest. First `compute`, then `found` of each table."""

    def __init__(self, out: Path, detector_name: str) -> None:
        """Prepare for the build in `out`.

        Args:
            out: folder of the build, with build.json.
            detector_name: whose boxes to use; OWN_BOX takes those of the heads.

        Raises:
            UbhpdError: no build.json, or dlib, its model or the detector is not here.
        """
        build = BuildFolder(out)
        record = build.record
        self._out, self._folder = out, build.work / "landmarks"
        self.detector_name = OWN_BOX if detector_name == OWN_BOX else detector(detector_name).name
        model = model_path()
        predictor(str(model))
        made_by = (VERSION, str(model.resolve()), model.stat().st_size, self.detector_name)
        self._mark = f"{made_by} {record}"

    def compute(self, tables: Sequence[pa.Table], jobs: int, progress: Progress) -> None:
        """Find the landmarks of all heads, but for the parts that an earlier run has finished."""
        missing = [part for table in tables for part in self._parts(table) if not _is_done(part.path)]
        do = partial(_write_part, out=str(self._out), detector_name=self.detector_name, session=uuid.uuid4().hex)
        engine = Engine(jobs)
        engine.check()
        with progress.bar("finding landmarks", sum(part.heads.num_rows for part in missing)) as advance:
            for done in engine.map(do, missing):
                advance(done)

    def found(self, table: pa.Table) -> Found:
        """Return the landmarks of a table that was computed."""
        rows, reasons = np.full((table.num_rows, _LENGTH), np.nan), {}
        start = 0
        for part in self._parts(table):
            with np.load(part.path, allow_pickle=False) as stored:
                rows[start : start + part.heads.num_rows] = stored["rows"]
                failed = zip(stored["failed"].tolist(), stored["reasons"].tolist(), strict=True)
                reasons.update({start + row: why for row, why in failed})
            start += part.heads.num_rows
        return Found(rows, reasons)

    def remove(self, tables: Sequence[pa.Table]) -> None:
        """Remove the parts, when what they hold is written elsewhere."""
        for table in tables:
            for part in self._parts(table):
                part.path.unlink(missing_ok=True)

    def _parts(self, table: pa.Table) -> Iterator[_Part]:
        for start in range(0, table.num_rows, _CHUNK):
            heads = table.slice(start, _CHUNK).select(IMAGE_COLUMNS)
            mark = hashlib.sha256(self._mark.encode())
            for column in heads.columns:
                mark.update(repr(column.to_pylist()).encode())
            yield _Part(self._folder / f"{mark.hexdigest()[:32]}.npz", heads)


def _is_done(path: Path) -> bool:
    """Return True if the part is there and every image could be read: a disk that was away may be back."""
    if not path.exists():
        return False
    with np.load(path, allow_pickle=False) as stored:
        return not stored["unreadable"]


def _write_part(part: _Part, out: str, detector_name: str, session: str) -> int:
    """Find the landmarks of one part's heads and write them."""
    images, finder = _opened(out, detector_name, session)
    rows, reasons, unreadable = np.full((part.heads.num_rows, _LENGTH), np.nan), {}, 0
    heads = part.heads.to_pylist()
    for row, (head, image) in enumerate(zip(heads, images.of_heads(heads), strict=True)):
        if isinstance(image, UbhpdError):
            reasons[row] = str(image)
            unreadable += 1
            continue
        try:
            rows[row] = landmarks68(image, _face_box(image, head, finder)).ravel()
        except UbhpdError as error:
            reasons[row] = str(error)
    with replacing(part.path) as half, half.open("wb") as file:
        np.savez(file, rows=rows, failed=np.array(list(reasons), dtype=np.int64), unreadable=np.array(unreadable > 0),
                 reasons=np.array(list(reasons.values()), dtype=str))  # fmt: skip
    return len(rows)


def _face_box(image: Image, head: dict[str, Any], finder: Detector | None) -> Sequence[float]:
    """Return where the face of a head is, by its own box or by the detector's that lies on it.

    Raises:
        UbhpdError: there is no such box.
    """
    own: list[float] | None = head["bbox_xyxy"]
    if own is None:
        raise UbhpdError(f"{head['sample_id']} has no face box: leave it without landmarks.")
    if finder is None:
        if (head["bbox_kind"] or "").endswith(OF_SOURCE_PHOTO):
            raise UbhpdError(f"The box of {head['sample_id']} is that of another image: use --detector.")
        return own
    faces = finder.boxes(image)
    shares = overlap(own, [face.bbox_xyxy for face in faces])
    if not len(shares) or shares.max() < _SAME_FACE:
        raise UbhpdError(f"The detector {finder.name} finds no face in the box of {head['sample_id']}.")
    return faces[int(shares.argmax())].bbox_xyxy


@lru_cache(maxsize=2)
def _opened(out: str, detector_name: str, session: str) -> tuple[Images, Detector | None]:
    """Return images and detector; `session` keeps a long-lived worker from seeing those of an earlier run."""
    return Images.of_build(Path(out)), None if detector_name == OWN_BOX else detector(detector_name)


Points = Callable[[pa.Table], Found]  # of rows of the manifest

DLIB = "dlib68"
_NAMED = 5  # heads that failed, in the report


@dataclass(frozen=True)
class FillConfig:
    """What to fill.

    manifest: the file to read. out: the Parquet file to write. source: a file of `landmark_file`; None for dlib.
    only_missing: leave heads alone that have 68 landmarks; else all are replaced, so that all are of one kind.
    detector: for dlib, whose box to take: a name of `detectors.DETECTORS`, "none" for the manifest's.
    jobs: processes for dlib; -1 for all cores.
    """

    manifest: Path
    out: Path
    source: Path | None = None
    only_missing: bool = True
    detector: str = "auto"
    jobs: int = 1


@dataclass
class FillReport:
    """What was filled.

    wanted: usable heads whose landmarks were to be filled. filled: those that were. had: usable heads that kept their
    own. failed: wanted heads without a result, of which `first_failures` names some, sample_id and why.
    unknown: rows of the landmark file that belong to no head of the manifest.
    """

    out: str
    kind: str
    fingerprint: str = ""
    wanted: int = 0
    filled: int = 0
    had: int = 0
    failed: int = 0
    unknown: int = 0
    first_failures: list[tuple[str, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


def fill_landmarks(config: FillConfig, progress: Progress | None = None) -> FillReport:
    """Write the manifest again with landmarks68 and landmarks_kind filled, and return what was done.

    Refused heads stay as they are. A head for which the source has nothing ends without 68 landmarks. What dlib found
    lies in `work/landmarks` beside the manifest: an interrupted run resumes from there.

    Raises:
        UbhpdError: a wrong path or file, dlib is not here, or not one head could be filled; nothing is written then.
    """
    build = BuildFolder.at(config.manifest)
    config = replace(config, manifest=build.manifest())
    with locked(config.out, is_file=True):
        return _fill(config, build, progress or Progress(show=False))


def _fill(config: FillConfig, build: BuildFolder, progress: Progress) -> FillReport:
    schema = manifest.header(config.manifest).schema
    if config.out.suffix != ".parquet":
        raise UbhpdError(f"{config.out} would be a Parquet file: let its name end in .parquet.")
    if config.out.exists() and config.out.samefile(config.manifest):
        raise UbhpdError(f"{config.out} is the manifest that is read: name another file, in the same folder.")
    columns = tuple(_column(stored) for stored in schema)
    if config.source is not None:
        points, unknown = _file_points(config.source, config.manifest)
        report = FillReport(str(config.out), f"file:{config.source.name}", unknown=unknown)
        report.fingerprint = manifest.write_parquet(_filled(config, points, report), config.out, columns)
        return report
    parts = DlibParts(build.folder, config.detector)
    report = FillReport(str(config.out), DLIB if config.detector == OWN_BOX else f"{DLIB}:{parts.detector_name}")
    wanted = list(_wanted_heads(config))
    parts.compute(wanted, config.jobs, progress)
    report.fingerprint = manifest.write_parquet(_filled(config, parts.found, report), config.out, columns)
    parts.remove(wanted)
    return report


def fill_text(report: FillReport) -> str:
    """Return the report as text for a terminal."""
    lines = [f"{report.filled:,} of {report.wanted:,} heads filled ({report.kind}), {report.had:,} kept: {report.out}"]
    if report.failed:
        lines.append(f"{report.failed:,} heads stay without 68 landmarks, the first of them:")
        lines += [f"  {sample_id}: {why}" for sample_id, why in report.first_failures]
    if report.unknown:
        lines.append(f"{report.unknown:,} rows of the file are of no head of this manifest.")
    return "\n".join([*lines, f"Fingerprint {report.fingerprint}"])


def _filled(config: FillConfig, points: Points, report: FillReport) -> Iterator[pa.Table]:
    """Yield the manifest in tables with the landmarks filled, and count.

    Raises:
        UbhpdError: at the end, if there were heads to fill and not one was.
    """
    for batch in manifest.iterate(config.manifest):
        table = pa.Table.from_batches([batch])
        wanted = _is_wanted(table, config.only_missing)
        found = np.full((len(wanted), _LENGTH), np.nan)
        rows = np.flatnonzero(wanted)
        found[rows], reasons = points(table.take(pa.array(rows)))
        yield _with_landmarks(table, found, wanted, report.kind)
        usable = table.column("drop_reason").is_null().to_numpy()
        report.wanted += len(rows)
        report.filled += len(rows) - len(reasons)
        report.had += int((usable & ~wanted).sum())
        report.failed += len(reasons)
        ids = table.column("sample_id")
        for row in sorted(reasons)[: _NAMED - len(report.first_failures)]:
            report.first_failures.append((ids[int(rows[row])].as_py(), reasons[row]))
    if report.wanted and not report.filled:
        raise UbhpdError(f"Not one of {report.wanted} heads could be filled; the first: {report.first_failures[0][1]}")


def _is_wanted(table: pa.Table, only_missing: bool) -> BoolArray:
    """Return which heads (n,) are to be filled: usable ones, with `only_missing` those without 68 landmarks."""
    wanted = table.column("drop_reason").is_null()
    if only_missing:
        wanted = pc.and_(wanted, table.column("landmarks68").is_null())
    return np.asarray(wanted.to_numpy(), dtype=bool)


def _with_landmarks(table: pa.Table, found: FloatArray, wanted: BoolArray, kind: str) -> pa.Table:
    is_filled: BoolArray = np.asarray(~np.isnan(found).all(axis=1))
    points = matrix(table.column("landmarks68"), _LENGTH)
    has: BoolArray = np.asarray(table.column("landmarks68").is_valid().to_numpy(), dtype=bool)
    lost = wanted & has & ~is_filled
    points[wanted] = found[wanted]
    # Where landmarks21 remain, the kind may speak of them.
    has_none = pc.and_(pa.array(lost), table.column("landmarks21").is_null())
    kinds = pc.if_else(has_none, pa.scalar(None, pa.string()), table.column("landmarks_kind"))
    kinds = pc.if_else(pa.array(is_filled), kind, kinds)
    at = {name: table.column_names.index(name) for name in ("landmarks68", "landmarks_kind")}
    valid = (has & ~wanted) | is_filled
    table = table.set_column(at["landmarks68"], table.field("landmarks68"), lists(points, valid))
    return table.set_column(at["landmarks_kind"], table.field("landmarks_kind"), kinds)


def _wanted_heads(config: FillConfig) -> Iterator[pa.Table]:
    """Yield IMAGE_COLUMNS of the heads to fill, cut as `_filled` cuts them."""
    for batch in manifest.iterate(config.manifest, ["drop_reason", "landmarks68", *IMAGE_COLUMNS]):
        table = pa.Table.from_batches([batch])
        yield table.filter(pa.array(_is_wanted(table, config.only_missing))).select(IMAGE_COLUMNS)


def _file_points(path: Path, own: Path) -> tuple[Points, int]:
    """Return what gives a file's landmarks, and how many of its rows are of no head of the manifest."""
    known = read(path)
    heads = set(manifest.read(own, ["sample_id"]).column("sample_id").to_pylist())
    unknown = sum(sample_id not in heads for sample_id in known.row_of)
    if unknown == len(known.row_of):
        raise UbhpdError(f"{path} has landmarks of no head of {own}: check its sample_id.")

    def points(table: pa.Table) -> Found:
        found, reasons = np.full((table.num_rows, _LENGTH), np.nan), {}
        for row, sample_id in enumerate(table.column("sample_id").to_pylist()):
            if sample_id in known.row_of:
                found[row] = known.rows[known.row_of[sample_id]]
            if np.isnan(found[row]).all():
                reasons[row] = f"{path.name} has no landmarks of {sample_id}."
        return Found(found, reasons)

    return points, unknown


def _column(stored: pa.Field) -> Column:
    """Return a manifest's column as its file describes it, so that those beyond the pool's own come along."""
    metadata = {key.decode(): value.decode() for key, value in (stored.metadata or {}).items()}
    is_unique = any(c.mostly_unique for c in COLUMNS if c.name == stored.name)
    unit, frame, meaning = (metadata.get(key, "") for key in ("unit", "frame", "meaning"))
    return Column(
        name=stored.name,
        type=stored.type,
        unit=unit,
        frame=frame,
        meaning=meaning,
        mostly_unique=is_unique,
        length=list_length(stored),
    )
