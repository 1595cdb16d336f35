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

Instead of dlib's, the 68 landmarks of FAN by the package face-alignment, optional, too: Bulat and Tzimiropoulos, How
far are we from solving the 2D & 3D Face Alignment problem?, ICCV 2017. The package downloads its weights from its
author when it is first used. The points are those it calls TWO_D, which follow the visible outline of a turned face, as
dlib's do. Its own face detector is not used: a head has the same box as for dlib.

A file with the 68 landmarks of heads: CSV or Parquet, sample_id and x0, y0 to x67, y67 in pixels of the image.

Landmarks of many heads by dlib are stored in parts: an interrupted run resumes, and processes share the work.

The projected points that 300W-LP has of its warped faces, mirrored for its mirror images.

Fills the 68 landmarks of a manifest's heads, from one of these, and changes nothing else. Landmarks of the photograph
behind a warped image, which 300W-LP publishes, count as missing.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from importlib import metadata
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
from ubhpd.core.files import locked
from ubhpd.core.progress import Progress
from ubhpd.core.records import OF_SOURCE_PHOTO
from ubhpd.core.text import one_line
from ubhpd.core.typing import BoolArray, FloatArray, Image
from ubhpd.images.detectors import detector
from ubhpd.images.faces import Detector, overlap
from ubhpd.images.head_parts import IMAGE_COLUMNS, Found, HeadParts
from ubhpd.images.reading import Images
from ubhpd.manifest import LANDMARKS, POOL, UBHPD, BuildFolder
from ubhpd.manifest.schema import COLUMNS, Column, list_length, lists, matrix
from ubhpd.raw.label_files import MatError, projected_points68

VARIABLE = "UBHPD_DLIB68"
FILE = "shape_predictor_68_face_landmarks.dat"
DEBIAN_FOLDER = Path("/usr/share/dlib")

_INSTALL = "pip install 'ubhpd[dlib]'"
_INSTALL_FAN = "pip install 'ubhpd[fan]'"


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


OWN_BOX = "none"  # instead of a detector's
VERSION = 1  # of the method: another one does not use the parts of the last

_SAME_FACE = 0.3  # overlap above which a detected box is that of the head
_LENGTH = 136


def fan_landmarks68(image_bgr: Image, bbox_xyxy: npt.ArrayLike) -> FloatArray:
    """Return the 68 landmarks (68, 2) of a face by FAN, x and y in pixels, float64.

    Args:
        image_bgr: (height, width, 3), BGR.
        bbox_xyxy: left, top, right, bottom of the face in pixels, as a detector gives it.

    Raises:
        UbhpdError: face-alignment or its weights are not here, the box is empty or not finite, or it finds nothing.
    """
    box = np.asarray(bbox_xyxy, dtype=np.float64)
    if box.shape != (4,) or not np.isfinite(box).all() or box[2] - box[0] < 1 or box[3] - box[1] < 1:
        raise UbhpdError(f"The face box {box.tolist()} is empty or not finite: no landmarks can be found in it.")
    rgb = np.ascontiguousarray(image_bgr[:, :, ::-1])
    found = fan_network().get_landmarks_from_image(rgb, detected_faces=[box.tolist()])
    points = np.asarray(found[0] if found is not None and len(found) else np.empty((0, 2)), dtype=np.float64)
    if points.shape != (68, 2) or not np.isfinite(points).all():
        raise UbhpdError(f"FAN finds no 68 landmarks in the face box {box.tolist()}.")
    return points


@lru_cache(maxsize=1)
def fan_network() -> Any:
    """Return face-alignment's network for points in the image, on the CPU.

    Raises:
        UbhpdError: it is not here, is older than 1.4, or its weights cannot be loaded.
    """
    try:
        import face_alignment
    except ImportError as error:
        raise UbhpdError(f"The landmarks of FAN need the package face-alignment ({error}): {_INSTALL_FAN}.") from None
    kind = getattr(face_alignment.LandmarksType, "TWO_D", None)
    if kind is None:
        raise UbhpdError(f"This face-alignment is older than 1.4: {_INSTALL_FAN}.")
    # "folder" is the one detector that loads no weights; compiling takes longer than some thousand heads.
    wanted = {"device": "cpu", "flip_input": False, "face_detector": "folder", "compile": False}
    known = inspect.signature(face_alignment.FaceAlignment).parameters
    try:
        return face_alignment.FaceAlignment(kind, **{name: value for name, value in wanted.items() if name in known})
    except Exception as error:  # of the download, of a damaged file, or of torch
        raise UbhpdError(
            f"face-alignment cannot load FAN's weights ({type(error).__name__}: {one_line(str(error))[:200]}): "
            "connect, for it downloads them when it is first used."
        ) from None


@dataclass(frozen=True)
class DlibFinder:
    """dlib's landmarks, in the boxes of a detector (its name) or in those of the heads (OWN_BOX)."""

    detector_name: str
    width = _LENGTH
    step = "finding landmarks"

    @property
    def mark(self) -> str:
        """Return what decides the landmarks."""
        model = model_path()
        return repr((VERSION, str(model.resolve()), model.stat().st_size, self.detector_name))

    def opened(self) -> Callable[[Image, dict[str, Any]], FloatArray]:
        """Return the function that finds the landmarks (136,) of a head."""
        finder = None if self.detector_name == OWN_BOX else detector(self.detector_name)
        return lambda image, head: landmarks68(image, _face_box(image, head, finder)).ravel()


@dataclass(frozen=True)
class FanFinder(DlibFinder):
    """FAN's landmarks, in the same boxes; `version` of face-alignment."""

    version: str = "unknown"

    @property
    def mark(self) -> str:
        """Return what decides the landmarks."""
        return repr((VERSION, FAN, self.version, self.detector_name))

    def opened(self) -> Callable[[Image, dict[str, Any]], FloatArray]:
        """Return the function that finds the landmarks (136,) of a head."""
        finder = None if self.detector_name == OWN_BOX else detector(self.detector_name)
        return lambda image, head: fan_landmarks68(image, _face_box(image, head, finder)).ravel()


def fan_parts(out: Path, detector_name: str) -> tuple[HeadParts, str]:
    """Return the parts of FAN's landmarks for the build in `out`, and the name of the detector that is used.

    Raises:
        UbhpdError: no build.json, or face-alignment, its weights or the detector is not here.
    """
    name = OWN_BOX if detector_name == OWN_BOX else detector(detector_name).name
    fan_network()
    try:
        version = metadata.version("face-alignment")
    except metadata.PackageNotFoundError:
        version = "unknown"
    return HeadParts(out, "landmarks", FanFinder(name, version)), name


def dlib_parts(out: Path, detector_name: str) -> tuple[HeadParts, str]:
    """Return the parts of dlib's landmarks for the build in `out`, and the name of the detector that is used.

    Raises:
        UbhpdError: no build.json, or dlib, its model or the detector is not here.
    """
    name = OWN_BOX if detector_name == OWN_BOX else detector(detector_name).name
    predictor(str(model_path()))
    return HeadParts(out, "landmarks", DlibFinder(name)), name


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


Points = Callable[[pa.Table], Found]  # of rows of the manifest

DLIB, FAN = "dlib68", "fan68"  # how the manifest calls them
PROJECTED, PROJECTED_OF = "projected", "300wlp"  # source of the points, and the dataset that has it
PROJECTED_KIND = "ibug68"  # as the builder calls them
_NAMED = 5  # heads that failed, in the report


@dataclass(frozen=True)
class FillConfig:
    """What to fill.

    manifest: the file or build's folder to read. out: the Parquet file to write; None for landmarks.parquet in the
    build's folder, which training uses by itself: then a folder stands for its pool. source: a file of `landmark_file`;
    None for dlib, or FAN with `fan`. projected: the points that 300W-LP has of its warped faces; other datasets stay as
    they are. only_missing: leave heads alone that have 68 landmarks of their own image; else all are replaced, so that
    all are of one kind. detector: for dlib and FAN, whose box to take: a name of `detectors.DETECTORS`, "none" for the
    manifest's. jobs: processes for dlib and FAN; -1 for all cores.
    """

    manifest: Path
    out: Path | None = None
    source: Path | None = None
    only_missing: bool = True
    detector: str = "auto"
    jobs: int = 1
    projected: bool = False
    fan: bool = False

    @property
    def place(self) -> Path:
        """The file to write."""
        return self.out or BuildFolder.at(self.manifest).folder / LANDMARKS


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

    Refused heads stay as they are. A head for which the source has nothing ends without 68 landmarks. What dlib or
    FAN found lies in `work/landmarks` beside the manifest: an interrupted run resumes from there.

    Raises:
        UbhpdError: a wrong path or file, dlib or face-alignment is not here, or not one head could be filled. Nothing
            is written then.
    """
    build = BuildFolder.at(config.manifest)
    config = replace(config, out=config.place, manifest=build.manifest(POOL if config.out is None else UBHPD))
    with locked(config.place, is_file=True):
        return _fill(config, build, progress or Progress(show=False))


def _fill(config: FillConfig, build: BuildFolder, progress: Progress) -> FillReport:
    schema, out = manifest.header(config.manifest).schema, config.place
    if out.suffix != ".parquet":
        raise UbhpdError(f"{out} would be a Parquet file: let its name end in .parquet.")
    if out.exists() and out.samefile(config.manifest):
        raise UbhpdError(f"{out} is the manifest that is read: name another file, in the same folder.")
    columns = tuple(stored_column(stored) for stored in schema)
    if config.source is not None:
        points, unknown = _file_points(config.source, config.manifest)
        report = FillReport(str(out), f"file:{config.source.name}", unknown=unknown)
        report.fingerprint = manifest.write_parquet(_filled(config, points, report), out, columns)
        return report
    if config.projected:
        report = FillReport(str(out), PROJECTED_KIND)
        points = _projected_points(Images.of_build(build.folder))
        report.fingerprint = manifest.write_parquet(_filled(config, points, report), out, columns)
        return report
    parts, detector_name = (fan_parts if config.fan else dlib_parts)(build.folder, config.detector)
    kind = FAN if config.fan else DLIB
    report = FillReport(str(out), kind if config.detector == OWN_BOX else f"{kind}:{detector_name}")
    wanted = list(_wanted_heads(config))
    parts.compute(wanted, config.jobs, progress)
    report.fingerprint = manifest.write_parquet(_filled(config, parts.found, report), out, columns)
    parts.remove(wanted)
    return report


def _projected_points(images: Images) -> Points:
    """Return what gives the points that 300W-LP has of its warped faces."""

    def points(table: pa.Table) -> Found:
        found, reasons = np.full((table.num_rows, _LENGTH), np.nan), {}
        heads = table.select(["sample_id", "image_path"]).to_pylist()
        for row, head in enumerate(heads):
            folder, _, name = (head["image_path"] or "").rpartition("/")
            try:
                own = projected_points68(_reads(images), folder, name.rpartition(".")[0])
            except (MatError, UbhpdError) as error:
                reasons[row] = str(error)
                continue
            if own is None:
                reasons[row] = f"{head['sample_id']} has no file in the folder landmarks of 300W-LP."
            else:
                found[row] = own.ravel()
        return Found(found, reasons)

    return points


def _reads(images: Images) -> Callable[[str], bytes]:
    return lambda path: images.label(PROJECTED_OF, path)


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
        wanted = _is_wanted(table, config)
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


def _is_wanted(table: pa.Table, config: FillConfig) -> BoolArray:
    """Return which heads (n,) are to be filled: usable ones, with `only_missing` those without 68 landmarks of their
    own image, and of projected points those of 300W-LP."""
    wanted = table.column("drop_reason").is_null()
    if config.only_missing:
        of_photo = pc.ends_with(pc.fill_null(table.column("landmarks_kind"), ""), OF_SOURCE_PHOTO)
        wanted = pc.and_(wanted, pc.or_(table.column("landmarks68").is_null(), of_photo))
    if config.projected:
        wanted = pc.and_(wanted, pc.equal(table.column("dataset"), PROJECTED_OF))
    return np.asarray(wanted.to_numpy(), dtype=bool)


def _with_landmarks(table: pa.Table, found: FloatArray, wanted: BoolArray, kind: str) -> pa.Table:
    is_filled: BoolArray = np.asarray(~np.isnan(found).all(axis=1))
    points = matrix(table.column("landmarks68"), _LENGTH)
    has: BoolArray = np.asarray(table.column("landmarks68").is_valid().to_numpy(), dtype=bool)
    of_photo = pc.ends_with(pc.fill_null(table.column("landmarks_kind"), ""), OF_SOURCE_PHOTO)
    # Those of the photograph stay where there is nothing better: the crops of the literature are cut by them.
    stays: BoolArray = np.asarray(of_photo.to_numpy(zero_copy_only=False), dtype=bool) & ~is_filled
    wanted = wanted & ~stays
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
    names = ["drop_reason", "landmarks68", "landmarks_kind", *IMAGE_COLUMNS]
    for batch in manifest.iterate(config.manifest, names):
        table = pa.Table.from_batches([batch])
        yield table.filter(pa.array(_is_wanted(table, config))).select(IMAGE_COLUMNS)


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


def stored_column(stored: pa.Field) -> Column:
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
