"""Prediction files: read and checked.

CSV with commas, or Parquet. The header says what a row holds: an id (`sample_id` or `image`), and either yaw,
pitch, roll in degrees, or a rotation matrix r00 to r22 (row-major, frame C), or a quaternion qx, qy, qz, qw.
A file may carry its truth (yaw_true or gt_yaw, and so on), `subject_id` and `sequence_id`. An error is
one sentence with the row, the first one after the header being row 1. Nothing in a file is ever executed.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from ubhpd.core.bins import ANGLES
from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import euler_from_matrix, matrix_from_quaternion, orthonormality_error
from ubhpd.core.typing import FloatArray, IntArray

ID_NAMES = ("sample_id", "image", "image_id", "name", "id")
PREDICTED = ("{}", "{}_deg", "pred_{}", "{}_pred", "predicted_{}", "{}_predicted")
TRUE = ("{}_true", "true_{}", "gt_{}", "{}_gt", "{}_true_deg", "true_{}_deg")
MATRIX = tuple(f"r{i}{j}" for i in range(3) for j in range(3))
QUATERNION = ("qx", "qy", "qz", "qw")
GROUPS = ("subject_id", "sequence_id")
TOLERANCE = 0.01  # of a rotation matrix written with few decimals
MOST_PIPED_BYTES = 1 << 30
QUOTED = 60  # characters of a file in one error sentence
_HEADER_FORM = "sample_id,yaw,pitch,roll (degrees), or r00 to r22, or qx,qy,qz,qw instead of the angles"
_NOT_TEXT = {
    b"\x80": "a pickle, which is never opened",
    b"PK\x03\x04": "a zip archive (.npz, .xlsx, .pth), which is never opened",
    b"\x93NUMPY": "a .npy file",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "compressed with gzip",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}


class Roles(NamedTuple):
    """The role of each column of a file."""

    sample_id: str
    form: str  # "angles", "matrix" or "quaternion"
    predicted: tuple[str, ...]
    true: tuple[str, ...]
    groups: dict[str, str]
    unused: tuple[str, ...]


@dataclass(frozen=True)
class Predictions:
    """A prediction file in memory; angles are canonical, degrees. Truth is None where the file has none."""

    path: str
    roles: Roles
    sample_id: pa.Array
    predicted_deg: FloatArray  # (n, 3)
    predicted_rotation: FloatArray | None  # (n, 3, 3), if the file gives rotations
    true_deg: FloatArray | None  # (n, 3)
    groups: dict[str, pa.Array]

    def __len__(self) -> int:
        return len(self.sample_id)


def read(path: str | Path, *, strict: bool = True) -> Predictions:
    """Return a prediction file.

    Args:
        path: CSV or Parquet, told apart by content.
        strict: refuse a file with `problems`; the doctor reads it to say more about them.

    Raises:
        UbhpdError: no such file, another kind of file, a header without the columns, a row that does not follow it.
    """
    path = Path(path)
    content = piped(path)
    head = _head(path, content)
    source = path if content is None else pa.py_buffer(content)
    table, roles = _read_parquet(path, source) if head.startswith(b"PAR1") else _read_csv(path, source, head)
    return _checked(table, roles, path, strict)


def of_table(table: pa.Table, name: str = "the table", *, strict: bool = True) -> Predictions:
    """Return predictions that lie in memory, with the columns of a prediction file; `name` stands for its path.

    Raises:
        UbhpdError: as `read`.
    """
    roles = roles_of(table.column_names, name)
    return _checked(table.select(_columns(roles)), roles, Path(name), strict)


def given(source: str | Path | Predictions, *, strict: bool = True) -> Predictions:
    """Return the predictions themselves, or those of a file; errors as `read`."""
    return source if isinstance(source, Predictions) else read(source, strict=strict)


def _checked(table: pa.Table, roles: Roles, path: Path, strict: bool) -> Predictions:
    if table.num_rows == 0:
        raise UbhpdError(f"{path} has a header and no rows: there is nothing to score.")
    ids = _ids(table.column(roles.sample_id), path)
    values = _numbers(table, roles.predicted, path)
    true = _numbers(table, roles.true, path) if roles.true else None
    groups = {name: _text(table.column(column)) for name, column in roles.groups.items()}
    angles, rotation = _pose(values, roles.form)
    file = Predictions(
        path=str(path),
        roles=roles,
        sample_id=ids,
        predicted_deg=angles,
        predicted_rotation=rotation,
        true_deg=true,
        groups=groups,
    )
    if strict and (found := problems(file, values)):
        raise UbhpdError(f"{path}, {found[0].sentence}.")
    return file


class Problem(NamedTuple):
    """Why a file is not scored: kind, the rows (k,) concerned, the sentence of the first, text and remedy of all."""

    kind: str
    rows: IntArray
    sentence: str
    text: str
    fix: str


def problems(file: Predictions, values: FloatArray | None = None) -> list[Problem]:
    """Return why `score` refuses a file; the doctor reports the same list, so that both examine the same things.

    Args:
        file: of `read(path, strict=False)`.
        values: the columns of the predictions as they are in the file, if available.
    """
    found: list[Problem] = []
    names = file.sample_id
    if not _all_different(names):
        codes = names.dictionary_encode().indices.to_numpy()
        first = np.unique(codes, return_index=True)[1]
        extra = np.setdiff1d(np.arange(len(codes)), first)
        row, before = first_repeat(names)
        sentence = f"row {row + 1}: the id {quoted(names[row].as_py())} stands in row {before + 1} already"
        text = (
            f"{len(extra):,} rows repeat an id, the first in row {row + 1}: {quoted(names[row].as_py())} stands in "
            f"row {before + 1} already"
        )
        found.append(Problem("duplicated_ids", extra, sentence, text, "keep one row per id"))
    if problem := _not_finite(file, values):
        found.append(problem)
    if file.predicted_rotation is not None and (problem := _no_rotation(file)):
        found.append(problem)
    return found


def _not_finite(file: Predictions, values: FloatArray | None) -> Problem | None:
    rotation = file.predicted_rotation
    if values is None:
        values = file.predicted_deg if rotation is None else rotation.reshape(len(file), -1)
    bad = ~np.isfinite(values).all(axis=1)
    if file.true_deg is not None:
        bad |= ~np.isfinite(file.true_deg).all(axis=1)
    rows = np.flatnonzero(bad)
    if not len(rows):
        return None
    sentence = f"row {rows[0] + 1}: a value is no number"
    columns = [(n, values[:, k]) for k, n in enumerate(file.roles.predicted) if k < values.shape[1]]
    if file.true_deg is not None:
        columns += [(n, file.true_deg[:, k]) for k, n in enumerate(file.roles.true)]
    for name, column in columns:
        wrong = np.flatnonzero(~np.isfinite(column))
        if len(wrong):
            more = f" ({len(wrong)} such values in this column)" if len(wrong) > 1 else ""
            sentence = f"row {wrong[0] + 1}, column {name}: {column[wrong[0]]} is no angle{more}"
            break
    text = f"{len(rows):,} heads have a value that is no number, the first is {quoted(file.sample_id[rows[0]].as_py())}"
    fix = "predict every head, or leave its row out: coverage falls"
    return Problem("not_a_number", rows, sentence, text, fix)


def _no_rotation(file: Predictions) -> Problem | None:
    rotation = file.predicted_rotation
    assert rotation is not None
    finite = np.isfinite(rotation).all(axis=(1, 2))
    if file.roles.form == "quaternion":
        rows = np.flatnonzero(finite & ~rotation.any(axis=(1, 2)))
        if not len(rows):
            return None
        sentence = f"row {rows[0] + 1}: the quaternion is zero, so it is no rotation"
        text = f"{len(rows):,} quaternions are zero, the first in row {rows[0] + 1}: they are no rotations"
        return Problem("not_a_rotation", rows, sentence, text, "predict every head, or leave its row out")
    error = np.zeros(len(rotation))
    error[finite] = orthonormality_error(rotation[finite])
    rows = np.flatnonzero(error > TOLERANCE)
    if not len(rows):
        return None
    text, fix = _kind_of_matrix(rotation[rows], len(rotation))
    sentence = f"row {rows[0] + 1}: r00 to r22 are no rotation matrix ({text}): {fix}"
    return Problem("not_a_rotation", rows, sentence, text, fix)


def _kind_of_matrix(matrices: FloatArray, n: int) -> tuple[str, str]:
    """Return what is wrong with matrices (k, 3, 3) that are no rotations, and the remedy."""
    determinant = np.linalg.det(matrices)
    count = f"{len(matrices):,} of {n:,} matrices are no rotations"
    scale = float(np.median(np.cbrt(np.abs(determinant))))
    if scale > 0.0:
        unit = matrices / np.cbrt(np.abs(determinant) + (determinant == 0.0))[:, None, None]
        orthogonal = np.abs(unit @ np.swapaxes(unit, 1, 2) - np.eye(3)).max(axis=(1, 2)) <= TOLERANCE
        if orthogonal.mean() > 0.5:
            scaled = f", scaled by {scale:.3g}" if abs(scale - 1.0) > TOLERANCE / 2 else ""
            if (determinant < 0.0).mean() > 0.5:
                fix = "multiply one axis by -1: one row or column has the wrong sign, or two axes are exchanged"
                return f"{count}: they are mirrored, determinant -1{scaled}", fix
            return f"{count}: they are scaled by {scale:.3g}", f"divide the matrices by {scale:.3g}"
    fix = "write the nearest rotation, U V^T of the singular value decomposition"
    return f"{count}: their columns are not orthonormal", fix


def quoted(text: object) -> str:
    """Return at most 60 characters of what a file holds, escaped and in quotes, for an error sentence."""
    escaped = repr(text)
    return escaped if len(escaped) <= QUOTED + 2 else escaped[: QUOTED - 2] + "..." + escaped[0]


def roles_of(names: list[str], path: str | Path) -> Roles:
    """Return the role of each column of a header.

    Raises:
        UbhpdError: columns missing, or two for the same role.
    """
    known: dict[str, str] = {}
    for name in names:
        if (plain := name.strip().lower()) in known:
            raise UbhpdError(f"{path} has two columns {quoted(name)}: rename one.")
        known[plain] = name
    sample_id = next((known[n] for n in ID_NAMES if n in known), None)
    angles = _triplet(known, PREDICTED, path, "predicted")
    forms = {"angles": angles, "matrix": _all(known, MATRIX), "quaternion": _all(known, QUATERNION)}
    given = [form for form, columns in forms.items() if columns]
    if sample_id is None or not given:
        what = "no column sample_id" if sample_id is None else "no predicted angles"
        raise UbhpdError(
            f"{path} has {what} (its header is {quoted(','.join(names))[1:-1]}): the header must be {_HEADER_FORM}."
        )
    if len(given) > 1:
        raise UbhpdError(f"{path} has {' and '.join(given)}: keep one of them, so that it is plain which is scored.")
    true = _triplet(known, TRUE, path, "true")
    groups = {g: known[g] for g in GROUPS if g in known}
    used = {sample_id, *forms[given[0]], *true, *groups.values()}
    return Roles(sample_id, given[0], forms[given[0]], true, groups, tuple(n for n in names if n not in used))


def piped(path: Path) -> bytes | None:
    """Return all of a pipe, as the shell's <(command) gives one, which can be read once only; None for a file.

    Raises:
        UbhpdError: more than a prediction file can have.
    """
    try:
        if path.is_file() or not path.exists() or path.is_dir():
            return None
        with open(path, "rb") as file:
            content = file.read(MOST_PIPED_BYTES + 1)
    except OSError as error:
        raise UbhpdError(f"Cannot open {path} ({error.strerror}): check the path.") from None
    if len(content) > MOST_PIPED_BYTES:
        raise UbhpdError(f"{path} gives more than {MOST_PIPED_BYTES >> 20} MB: write the predictions to a file.")
    return content


def _head(path: Path, content: bytes | None) -> bytes:
    try:
        if content is None:
            with open(path, "rb") as file:
                head = file.read(1 << 16)
        else:
            head = content[: 1 << 16]
    except OSError as error:
        raise UbhpdError(f"Cannot open {path} ({error.strerror}): check the path.") from None
    if not head.strip():
        raise UbhpdError(f"{path} is empty: write a header and one row per head.")
    for magic, what in _NOT_TEXT.items():
        if head.startswith(magic):
            raise UbhpdError(f"{path} is {what}: write the predictions as CSV (UTF-8) or Parquet.")
    return head


def _read_parquet(path: Path, source: Path | pa.Buffer) -> tuple[pa.Table, Roles]:
    try:
        file = pq.ParquetFile(_opened(source))
        roles = roles_of(file.schema_arrow.names, path)
        return file.read(columns=_columns(roles)), roles
    except (pa.ArrowInvalid, pa.ArrowException, OSError) as error:
        raise UbhpdError(
            f"{path} is not readable Parquet ({quoted(str(error).splitlines()[0])[1:-1]}): write it again."
        ) from None


def _read_csv(path: Path, source: Path | pa.Buffer, head: bytes) -> tuple[pa.Table, Roles]:
    names = _header(path, head)
    roles = roles_of(names, path)
    numbers = (*roles.predicted, *roles.true)
    types = {n: pa.float64() if n in numbers else pa.string() for n in _columns(roles)}
    convert = pacsv.ConvertOptions(column_types=types, include_columns=_columns(roles), strings_can_be_null=False)
    read_options = pacsv.ReadOptions(column_names=names, skip_rows=1, block_size=4 << 20)
    try:
        return pacsv.read_csv(_opened(source), read_options=read_options, convert_options=convert), roles
    except pa.ArrowException as error:
        raise UbhpdError(_what_is_wrong(path, source, names, roles, str(error))) from None


def _opened(source: Path | pa.Buffer) -> Any:
    return source if isinstance(source, Path) else pa.BufferReader(source)


def _header(path: Path, head: bytes) -> list[str]:
    try:
        line = head.decode("utf-8-sig", errors="strict" if len(head) < (1 << 16) else "ignore").lstrip("\n\r")
    except UnicodeDecodeError as error:
        raise UbhpdError(f"{path} is not UTF-8 text (byte {error.start}): write it as CSV in UTF-8.") from None
    line = line.splitlines()[0]
    for mark, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if mark in line and "," not in line:
            raise UbhpdError(f"{path} separates its columns by {word}: write commas, and decimal points.")
    try:
        names = next(csv.reader([line]))
    except csv.Error:  # Python 3.10 refuses a NUL character
        names = line.split(",")
    return [name.strip() for name in names]


def _what_is_wrong(path: Path, source: Path | pa.Buffer, names: list[str], roles: Roles, error: str) -> str:
    """Return the sentence for a CSV that pyarrow refused, by reading it again slowly as text."""
    bad: list[Any] = []

    def remember(row: Any) -> str:
        bad.append(row)
        return "skip"

    try:
        text = pacsv.read_csv(
            _opened(source),
            read_options=pacsv.ReadOptions(column_names=names, skip_rows=1, use_threads=False),
            parse_options=pacsv.ParseOptions(invalid_row_handler=remember),
            convert_options=pacsv.ConvertOptions(
                column_types={n: pa.string() for n in names}, strings_can_be_null=False, check_utf8=False
            ),
        )
    except pa.ArrowException:
        return (
            f"{path} is not a CSV table ({quoted(error.splitlines()[0])[1:-1]}): write one row per head, with commas."
        )
    if bad:
        row = bad[0]
        hint = "a decimal comma? Write points" if row.actual_columns > row.expected_columns else "is it cut off?"
        return (
            f"{path}, row {row.number - 1}: {row.actual_columns} columns where the header has "
            f"{row.expected_columns} ({hint})."
        )
    for name in (*roles.predicted, *roles.true):
        for number, value in enumerate(text.column(name).to_pylist(), start=1):
            if not _is_number(value):
                hint = ": write a decimal point, not a comma" if _is_number(value.replace(",", ".")) else ""
                return f"{path}, row {number}, column {name}: {quoted(value)} is not a number{hint}."
    return f"{path} is not a CSV table ({quoted(error.splitlines()[0])[1:-1]}): write it in UTF-8, one row per head."


def _is_number(value: str) -> bool:
    try:
        float(value or "nan")
    except ValueError:
        return value in ("NA", "N/A", "NULL", "null", "n/a", "#N/A", "<NA>")
    return True


def _columns(roles: Roles) -> list[str]:
    return [roles.sample_id, *roles.predicted, *roles.true, *roles.groups.values()]


def _text(column: pa.ChunkedArray) -> pa.Array:
    column = column if pa.types.is_string(column.type) else column.cast(pa.string())
    joined = column.combine_chunks()
    return pa.concat_arrays(joined.chunks) if isinstance(joined, pa.ChunkedArray) else joined


def _ids(column: pa.ChunkedArray, path: Path) -> pa.Array:
    ids = _text(column)
    if ids.null_count or pc.min(pc.binary_length(ids)).as_py() == 0:
        row = pc.index(pc.or_kleene(pc.is_null(ids), pc.equal(ids, "")), True).as_py()
        raise UbhpdError(f"{path}, row {row + 1}: the id is missing.")
    return ids


def _all_different(ids: pa.Array) -> bool:
    ascending = pc.all(pc.less(ids[:-1], ids[1:])).as_py()  # sorted, as most files are: no table of ids needed
    return ascending or len(ids) < 2 or len(ids.dictionary_encode().dictionary) == len(ids)


def first_repeat(ids: pa.Array) -> tuple[int, int]:
    """Return (row, row of its first appearance), counted from 0, of the first id that comes again."""
    codes = ids.dictionary_encode().indices.to_numpy()
    _, first = np.unique(codes, return_index=True)
    repeated = np.ones(len(codes), dtype=bool)
    repeated[first] = False
    row = int(np.flatnonzero(repeated)[0])
    return row, int(first[codes[row]])


def _numbers(table: pa.Table, names: tuple[str, ...], path: Path) -> FloatArray:
    values = np.empty((len(names), table.num_rows))
    for k, name in enumerate(names):
        column = table.column(name)
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
            raise UbhpdError(f"{path}: the column {name} holds {column.type}, not numbers.")
        _copy(column.cast(pa.float64(), safe=False), values[k])
    transposed: FloatArray = values.T
    return transposed


def _copy(column: pa.ChunkedArray, out: FloatArray) -> None:
    """Write a column into `out`, NaN for null. By DLPack: to_numpy would import pandas, which takes half a second."""
    at = 0
    for chunk in column.chunks:
        known = chunk if chunk.null_count == 0 else pc.fill_null(chunk, float("nan"))
        out[at : at + len(chunk)] = np.from_dlpack(known)
        at += len(chunk)


def _pose(values: FloatArray, form: str) -> tuple[FloatArray, FloatArray | None]:
    """Return angles (n, 3), and rotations (n, 3, 3) where the file gives them; a zero quaternion gives zeros."""
    if form == "angles":
        return values, None
    if form == "matrix":
        rotation = values.reshape(-1, 3, 3)
    else:
        finite = np.isfinite(values).all(axis=1)
        rotation = np.full((len(values), 3, 3), np.nan)
        zero = finite & (np.abs(values).sum(axis=1) == 0.0)
        rotation[zero] = 0.0
        rotation[finite & ~zero] = matrix_from_quaternion(values[finite & ~zero])
    return euler_from_matrix(rotation), rotation


def _triplet(known: dict[str, str], patterns: tuple[str, ...], path: str | Path, word: str) -> tuple[str, ...]:
    """Return the three columns that follow one of the patterns, or none."""
    complete: list[tuple[str, ...]] = []
    for pattern in patterns:
        present = [known[n] for a in ANGLES if (n := pattern.format(a)) in known]
        if len(present) == len(ANGLES):
            complete.append(tuple(present))
        elif present:
            missing = next(pattern.format(a) for a in ANGLES if pattern.format(a) not in known)
            raise UbhpdError(
                f"{path} has the {word} column {present[0]} and no {missing}: the header must be {_HEADER_FORM}."
            )
    if len(complete) > 1:
        raise UbhpdError(f"{path} has the {word} angles twice, as {complete[0][0]} and {complete[1][0]}: keep one.")
    return complete[0] if complete else ()


def _all(known: dict[str, str], names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(known[n] for n in names) if all(n in known for n in names) else ()
