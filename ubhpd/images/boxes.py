"""Face boxes of others: fills or replaces the boxes of a manifest's heads, from a file or a detector.

Boxes decide what a network sees, and the literature's results on BIWI stand on detected boxes. Files as they circulate
are read as they are: FSA-Net's frames and boxes of BIWI in `biwi_ann.txt` of pcr-upm/opal23_headpose (image; left; top;
right; bottom; ...) and in the .npz files of kuhnkeF/headposeplus (images, and bbox as left, top, width, height), CSV
and Parquet. The old box stays beside the new one, in the columns `bbox_xyxy_before` and `bbox_kind_before`.
"""

from __future__ import annotations

import csv
import re
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError, shortened
from ubhpd.core.files import locked, write_json
from ubhpd.core.progress import Progress
from ubhpd.core.records import OF_SOURCE_PHOTO
from ubhpd.core.typing import BoolArray, FloatArray, Image
from ubhpd.images.detectors import DETECTORS, detector
from ubhpd.images.faces import overlap
from ubhpd.images.head_parts import IMAGE_COLUMNS, Found, HeadParts
from ubhpd.images.landmarks import stored_column
from ubhpd.manifest import LANDMARKS, POOL, UBHPD, BuildFolder
from ubhpd.manifest.build_folder import RECORD
from ubhpd.manifest.schema import Column, lists, matrix

FORMS = ("auto", "xyxy", "xywh")
BEFORE, KIND_BEFORE = "bbox_xyxy_before", "bbox_kind_before"
VERSION = 1  # of the choice among detected faces
_SAME_FACE = 0.3  # overlap above which a detected box is that of the head
_MAX_FILE_BYTES = 512 << 20
_NAMED = 5  # heads that failed, in the report
_CORNERS = (("left", "top", "right", "bottom"), ("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"),
            ("tl_x", "tl_y", "br_x", "br_y"))  # fmt: skip
_SIZES = (("x", "y", "w", "h"), ("left", "top", "width", "height"), ("x", "y", "width", "height"))
_NAMES = ("sample_id", "image", "image_path", "file_name", "filename", "id", "name", "path")


@dataclass(frozen=True)
class BoxConfig:
    """What to fill.

    place: a manifest, or a build's folder. out: the Parquet file to write, or for a folder the folder. source: the name
    of a detector, or a file. form: of the boxes in a file, one of FORMS. only_missing: leave heads alone that have a
    box. keep: a head for which there is no box keeps its own. jobs: processes for a detector; -1 for all cores.
    """

    place: Path
    out: Path
    source: str
    form: str = "auto"
    only_missing: bool = False
    keep: bool = False
    jobs: int = 1


@dataclass
class BoxReport:
    """What was filled: every usable head is filled, kept or without.

    kind: of the new boxes. kept: heads that kept their own box. without: heads that have none. failed: heads for which
    the source has none, of which `first_failures` names some. unknown: boxes of a file that belong to no head.
    fingerprints: of the manifests written, by file name.
    """

    out: str
    kind: str
    usable: int = 0
    filled: int = 0
    kept: int = 0
    without: int = 0
    failed: int = 0
    unknown: int = 0
    first_failures: list[tuple[str, str]] = field(default_factory=list)
    fingerprints: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


@dataclass(frozen=True)
class BoxFinder:
    """The boxes of a face detector: the one that lies on the head's own box, else the largest."""

    detector_name: str
    width = 4
    step = "finding faces"

    @property
    def mark(self) -> str:
        """Return what decides the boxes."""
        return repr((VERSION, self.detector_name))

    def opened(self) -> Callable[[Image, dict[str, Any]], FloatArray]:
        """Return the function that finds the box (4,) of a head."""
        finder = detector(self.detector_name)

        def find(image: Image, head: dict[str, Any]) -> FloatArray:
            faces = finder.boxes(image)
            own = None if (head["bbox_kind"] or "").endswith(OF_SOURCE_PHOTO) else head["bbox_xyxy"]
            if not faces:
                raise UbhpdError(f"{finder.name} finds no face in the image of {head['sample_id']}.")
            if own is None:
                return np.array(faces[0].bbox_xyxy)
            shares = overlap(own, [face.bbox_xyxy for face in faces])
            if shares.max() < _SAME_FACE:
                raise UbhpdError(f"{finder.name} finds no face in the box of {head['sample_id']}.")
            return np.array(faces[int(shares.argmax())].bbox_xyxy)

        return find


def fill_boxes(config: BoxConfig, progress: Progress | None = None) -> BoxReport:
    """Write a manifest again with other boxes, or all manifests of a build's folder into another folder.

    A folder that is written is a build of its own: it has build.json, so every later command takes it in place of the
    first. Refused heads stay as they are. What a detector found lies in `work/boxes` of the build: an interrupted run
    resumes.

    Raises:
        UbhpdError: a wrong path or file, a detector that is not here, or not one head could be filled; nothing is
            written then.
    """
    progress = progress or Progress(show=False)
    build = BuildFolder.at(config.place)
    if config.form not in FORMS:
        raise UbhpdError(f"--form is {shortened(config.form)}: choose from {', '.join(FORMS)}.")
    if not config.place.exists():
        raise UbhpdError(f"There is no build and no manifest {config.place}: check the path.")
    if build.named is not None:
        if config.out.suffix != ".parquet":
            raise UbhpdError(f"{config.out} would be a Parquet file: let its name end in .parquet.")
        if config.out.exists() and config.out.samefile(build.named):
            raise UbhpdError(f"{config.out} is the manifest that is read: name another file.")
        with locked(config.out, is_file=True):
            return _fill(config, build, {build.named: config.out}, progress)
    build.check()
    if config.out.exists() and config.out.samefile(build.folder):
        raise UbhpdError(f"{config.out} is the build that is read: name another folder.")
    if config.out.exists() and any(config.out.iterdir()) and not (config.out / RECORD).is_file():
        raise UbhpdError(f"{config.out} holds something else than a build: name another folder.")
    places = {path: config.out / f"{kind}.parquet" for kind in (POOL, UBHPD) if (path := build.find(kind)) is not None}
    config.out.mkdir(parents=True, exist_ok=True)
    with locked(config.out):
        report = _fill(config, build, places, progress)
        for name in (LANDMARKS, "densities.csv"):
            if (build.folder / name).is_file():
                shutil.copyfile(build.folder / name, config.out / name)
        record = {**build.record, "boxes": {"source": _source_name(config.source), "kind": report.kind}}
        if "pool.parquet" in report.fingerprints:
            record["fingerprint"] = report.fingerprints["pool.parquet"]
        write_json(record, config.out / RECORD)  # last: with it the folder is a build
    return report


def fill_text(report: BoxReport) -> str:
    """Return the report as text for a terminal."""
    lines = [
        f"{report.usable:,} usable heads: {report.filled:,} with a new box ({report.kind}), {report.kept:,} with their "
        f"own, {report.without:,} without: {report.out}"
    ]
    if report.failed:
        lines.append(f"There is no new box for {report.failed:,} heads, the first of them:")
        lines += [f"  {why}" for _, why in report.first_failures]
    if report.unknown:
        lines.append(f"{report.unknown:,} boxes of the file are of no head of this manifest.")
    return "\n".join(lines)


def _source_name(source: str) -> str:
    return source if source in DETECTORS else Path(source).name


def _fill(config: BoxConfig, build: BuildFolder, places: Mapping[Path, Path], progress: Progress) -> BoxReport:
    """Write each manifest; the counts of the report are those of the first."""
    if config.source in DETECTORS and config.source != "none":
        name = detector(config.source).name
        report = BoxReport(str(config.out), name)
        parts = HeadParts(build.folder, "boxes", BoxFinder(name))
        wanted = {path: list(_wanted_heads(path, config)) for path in places}
        parts.compute([table for tables in wanted.values() for table in tables], config.jobs, progress)
        for path, target in places.items():
            _write(path, target, parts.found, config, report)
        for tables in wanted.values():
            parts.remove(tables)
        return report
    source = Path(config.source)
    if not source.is_file():
        raise UbhpdError(f"There is no file and no detector {shortened(config.source)}: name a file, or one of "
                         f"{', '.join(d for d in DETECTORS if d != 'none')}.")  # fmt: skip
    report = BoxReport(str(config.out), f"file:{source.name}")
    boxes = read(source, config.form)
    for number, (path, target) in enumerate(places.items()):
        points, unknown = _of_heads(boxes, path, source)
        report.unknown = unknown if number == 0 else report.unknown
        _write(path, target, points, config, report)
    return report


def _write(path: Path, target: Path, boxes: Callable[[pa.Table], Found], config: BoxConfig, report: BoxReport) -> None:
    columns = tuple(stored_column(stored) for stored in manifest.header(path).schema)
    if BEFORE not in {c.name for c in columns}:
        columns += (
            Column(BEFORE, pa.list_(pa.float64()), "px", "", "the box before ubhpd boxes", length=4),
            Column(KIND_BEFORE, pa.string(), "", "", "how that box was made"),
        )
    counts = report if not report.fingerprints else BoxReport(report.out, report.kind)
    fingerprint = manifest.write_parquet(_filled(path, boxes, config, counts), target, columns)
    report.fingerprints[target.name] = fingerprint


def _filled(path: Path, boxes: Callable[[pa.Table], Found], config: BoxConfig, report: BoxReport) -> Iterator[pa.Table]:
    """Yield the manifest in tables with the boxes filled, and count.

    Raises:
        UbhpdError: at the end, if there were heads to fill and not one was.
    """
    wanted_heads = 0
    for batch in manifest.iterate(path):
        table = pa.Table.from_batches([batch])
        wanted = _is_wanted(table, config.only_missing)
        found, rows = np.full((len(wanted), 4), np.nan), np.flatnonzero(wanted)
        found[rows], reasons = boxes(table.take(pa.array(rows)))
        is_filled: BoolArray = np.asarray(np.isfinite(found).all(axis=1))
        usable = np.asarray(table.column("drop_reason").is_null().to_numpy(), dtype=bool)
        has = np.asarray(table.column("bbox_xyxy").is_valid().to_numpy(), dtype=bool)
        stays = has & ~is_filled & (~wanted | config.keep)
        yield _with_boxes(table, found, is_filled, stays, report.kind)
        wanted_heads += len(rows)
        report.usable += int(usable.sum())
        report.filled += int((usable & is_filled).sum())
        report.kept += int((usable & stays).sum())
        report.without += int((usable & ~is_filled & ~stays).sum())
        report.failed += len(reasons)
        ids = table.column("sample_id")
        for row in sorted(reasons)[: _NAMED - len(report.first_failures)]:
            report.first_failures.append((ids[int(rows[row])].as_py(), reasons[row]))
    if wanted_heads and not report.filled:
        first = report.first_failures[0][1] if report.first_failures else "no head has an image."
        raise UbhpdError(f"Not one of {wanted_heads:,} heads could be given a box; the first: {first}")


def _is_wanted(table: pa.Table, only_missing: bool) -> BoolArray:
    wanted = table.column("drop_reason").is_null()
    if only_missing:
        wanted = pc.and_(wanted, table.column("bbox_xyxy").is_null())
    return np.asarray(wanted.to_numpy(), dtype=bool)


def _wanted_heads(path: Path, config: BoxConfig) -> Iterator[pa.Table]:
    """Yield IMAGE_COLUMNS of the heads to fill, cut as `_filled` cuts them."""
    for batch in manifest.iterate(path, ["drop_reason", *IMAGE_COLUMNS]):
        table = pa.Table.from_batches([batch])
        yield table.filter(pa.array(_is_wanted(table, config.only_missing))).select(IMAGE_COLUMNS)


def _with_boxes(table: pa.Table, found: FloatArray, is_filled: BoolArray, stays: BoolArray, kind: str) -> pa.Table:
    """Return the table with new boxes; the boxes of before stand beside them, those of the first time for ever."""
    own, kinds = table.column("bbox_xyxy"), table.column("bbox_kind")
    if BEFORE not in table.column_names:
        table = table.append_column(BEFORE, own).append_column(KIND_BEFORE, kinds)
    boxes = matrix(own, 4)
    boxes[is_filled] = found[is_filled]
    valid = is_filled | (stays & np.asarray(own.is_valid().to_numpy(), dtype=bool))
    new_kinds = pc.if_else(pa.array(is_filled), pa.scalar(kind), kinds)
    new_kinds = pc.if_else(pa.array(valid), new_kinds, pa.scalar(None, pa.string()))
    at = {name: table.column_names.index(name) for name in ("bbox_xyxy", "bbox_kind")}
    table = table.set_column(at["bbox_xyxy"], table.field("bbox_xyxy"), lists(boxes, valid))
    return table.set_column(at["bbox_kind"], table.field("bbox_kind"), new_kinds)


# Files


def read(path: Path, form: str = "auto") -> dict[str, FloatArray]:
    """Return the boxes of a file, left, top, right, bottom (4,) in pixels, by the name that each has there.

    Args:
        path: CSV, OPAL's text, Parquet, or .npz with an array of names and one of boxes (n, 4), read without pickle.
        form: "xyxy", "xywh", or "auto": by the names of the columns; text without names is xyxy, an .npz is xywh.

    Raises:
        UbhpdError: no such file, not one of these, a box that is none, or a name twice with different boxes.
    """
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise UbhpdError(f"{path} is larger than {_MAX_FILE_BYTES >> 20} MB: no file of boxes is.")
        with path.open("rb") as file:
            start = file.read(4)
        if start == b"PAR1":
            rows = _from_parquet(path, form)
        elif start.startswith(b"PK\x03\x04"):
            rows = _from_npz(path, form)
        else:
            rows = _from_text(path, form)
    except OSError as error:
        raise UbhpdError(f"Cannot open {path} ({error.strerror or error}): check the path.") from None
    found: dict[str, FloatArray] = {}
    for where, name, box in rows:
        if not np.isfinite(box).all() or not (box[0] < box[2] and box[1] < box[3]):
            numbers = ", ".join(f"{v:g}" for v in box)
            raise UbhpdError(f"{path}, {where}: {numbers} is no box from left top to right bottom: set --form, or "
                             "correct the file.")  # fmt: skip
        if name in found and not np.array_equal(found[name], box):
            raise UbhpdError(f"{path}, {where}: {shortened(name)} has two different boxes.")
        found[name] = box
    if not found:
        raise UbhpdError(f"{path} holds no box.")
    return found


_Rows = Iterator[tuple[str, str, FloatArray]]


def _from_text(path: Path, form: str) -> _Rows:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UbhpdError(f"{path} is neither text, Parquet nor .npz: give a file of boxes.") from None
    lines = [line for line in lines if line.strip()]
    if not lines:
        return
    delimiter = max(";,\t", key=lines[0].count)
    names = [text.strip().lower() for text in next(csv.reader([lines[0].removeprefix("#;")], delimiter=delimiter))]
    is_header = not any(_is_number(text) for text in names[1:5])
    name_at, box_at, is_size = _places(path, names, form) if is_header else (0, [1, 2, 3, 4], form == "xywh")
    for number, fields in enumerate(csv.reader(lines[is_header:], delimiter=delimiter), start=1 + is_header):
        try:
            box = np.array([float(fields[k]) for k in box_at])
        except (ValueError, IndexError):
            raise UbhpdError(f"{path}, line {number}: it has no name and four numbers of a box.") from None
        yield f"line {number}", fields[name_at].strip(), _corners(box, is_size)


def _from_parquet(path: Path, form: str) -> _Rows:
    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise UbhpdError(f"{path} is a damaged Parquet file ({str(error).splitlines()[0][:80]}).") from None
    names = [name.lower() for name in table.column_names]
    if "bbox_xyxy" in names:
        name_at = next((names.index(n) for n in _NAMES if n in names), None)
        if name_at is None:
            raise UbhpdError(f"{path} has no column of names: call one of them sample_id or image.")
        for row, (name, box) in enumerate(
            zip(table.column(name_at).to_pylist(), table.column(names.index("bbox_xyxy")).to_pylist(), strict=True)
        ):
            if box is not None:
                yield f"row {row + 1}", str(name), _four(path, row, box)
        return
    name_at, box_at, is_size = _places(path, names, form)
    values = [table.column(k).to_pylist() for k in box_at]
    for row, name in enumerate(table.column(name_at).to_pylist()):
        yield f"row {row + 1}", str(name), _corners(_four(path, row, [v[row] for v in values]), is_size)


def _from_npz(path: Path, form: str) -> _Rows:
    arrays: dict[str, Any] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > _MAX_FILE_BYTES:
                raise UbhpdError(f"{path} holds more than {_MAX_FILE_BYTES >> 20} MB: no file of boxes does.")
        with np.load(path, allow_pickle=False) as stored:
            for name in stored.files:
                try:
                    arrays[name] = stored[name]
                except ValueError:  # an array of objects, which only pickle could read
                    continue
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        raise UbhpdError(f"{path} is a damaged .npz file ({str(error)[:80]}): get it again.") from None
    texts = [a for a in arrays.values() if a.dtype.kind == "U" and a.ndim == 1]
    four = {n: a for n, a in arrays.items() if a.dtype.kind in "iuf" and a.ndim == 2 and a.shape[1] == 4}
    boxes = four.get("bbox", next(iter(four.values()), None))
    if not texts or boxes is None or len(texts[0]) != len(boxes):
        raise UbhpdError(f"{path} has no array of names, or no array of boxes (n, 4) beside it, that can be read "
                         "without pickle.")  # fmt: skip
    for row, (name, box) in enumerate(zip(texts[0].tolist(), boxes.astype(np.float64), strict=True)):
        yield f"row {row + 1}", name, _corners(box, form != "xyxy")


def _places(path: Path, names: Sequence[str], form: str) -> tuple[int, list[int], bool]:
    """Return the places of the name and of the four numbers of a box, and whether these are corner and size."""
    name_at = next((names.index(n) for n in _NAMES if n in names), None)
    choices = [(own, False) for own in _CORNERS] + [(own, True) for own in _SIZES]
    for own, is_size in choices:
        if all(n in names for n in own) and name_at is not None:
            return name_at, [names.index(n) for n in own], is_size if form == "auto" else form == "xywh"
    raise UbhpdError(
        f"{path} has the columns {', '.join(names)[:80]}: it needs a name (sample_id or image) and a box "
        "(left, top, right, bottom, or x, y, w, h)."
    )


def _four(path: Path, row: int, values: Any) -> FloatArray:
    try:
        box = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    except (TypeError, ValueError):
        box = np.empty(0)
    if box.shape != (4,):
        raise UbhpdError(f"{path}, row {row + 1}: its box does not hold four numbers.")
    return box


def _corners(box: FloatArray, is_size: bool) -> FloatArray:
    return np.concatenate([box[:2], box[:2] + box[2:]]) if is_size else box


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _of_heads(boxes: Mapping[str, FloatArray], path: Path, source: Path) -> tuple[Callable[[pa.Table], Found], int]:
    """Return what gives a file's boxes, and how many of them are of no head of the manifest.

    A name is a sample_id, or a path that ends as the image of one head ends, with or without its suffix.
    """
    table = manifest.read(path, ["sample_id", "dataset", "image_path"]).to_pydict()
    by_ending: dict[str, int] = {}
    ambiguous: Counter[str] = Counter()
    for row, (sample_id, dataset, image) in enumerate(zip(*table.values(), strict=True)):
        endings = {sample_id}
        for own in (f"{dataset}/{image}" if image else "", sample_id):
            parts = re.sub(r"\.[A-Za-z]{2,5}$", "", own).split("/")
            endings |= {"/".join(parts[k:]) for k in range(len(parts))} - {""}
        for ending in endings:
            if by_ending.setdefault(ending, row) != row:
                ambiguous[ending] += 1
    box_of_row: dict[int, FloatArray] = {}
    unknown = 0
    for name, box in boxes.items():
        plain = re.sub(r"\.[A-Za-z]{2,5}$", "", name.replace("\\", "/").strip("/"))
        parts = plain.split("/")
        candidates = [name, *("/".join(parts[k:]) for k in range(len(parts)))]
        own = next((e for e in candidates if e in by_ending and e not in ambiguous), None)
        if own is None:
            unknown += 1
        else:
            box_of_row[by_ending[own]] = box
    if not box_of_row:
        example = next(iter(boxes))
        raise UbhpdError(
            f"{source} has boxes of no head of {path}, the first of {shortened(example)}: check the names."
        )
    of_id = {table["sample_id"][row]: box for row, box in box_of_row.items()}

    def found(heads: pa.Table) -> Found:
        values, reasons = np.full((heads.num_rows, 4), np.nan), {}
        for row, sample_id in enumerate(heads.column("sample_id").to_pylist()):
            if (box := of_id.get(sample_id)) is None:
                reasons[row] = f"{source.name} has no box of {sample_id}."
            else:
                values[row] = box
        return Found(values, reasons)

    return found, unknown
