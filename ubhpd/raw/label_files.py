"""Reads label files: named variables of small MATLAB v5 files, and text files with one row of numbers per frame.

The MATLAB files of 300W-LP and AFLW2000-3D hold eight or nine variables, each compressed separately.
scipy.io.loadmat inflates them all; this reader inflates only the requested ones, at the positions where the previous
file had them (the fast path). The fast path accepts a variable only if its header is, byte for byte, that of a plain
real matrix of a known type and its checksum is right. Every other file takes the slow path, which walks through all
elements, limits the inflated size and checks every length, so that a damaged file is refused instead of misread.
scipy.io.loadmat is not used: some damaged files make it ignore a wrong checksum or crash the process.

Format: MAT-File Format, level 5 (The MathWorks).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ubhpd.core.rotation import MIRROR_68, mirrored_points68
from ubhpd.core.typing import AnyArray, FloatArray

_MAX_INFLATED = 4 << 20
_HEAD_BYTES = 128  # of an inflated variable: its header with a name of up to 64 characters
_HEAD_PACKED = 512  # compressed bytes that are enough for these, tables of a Huffman code included
_SMALL = _MAX_INFLATED // 1033  # deflate packs at most 1032 to 1
_unpack_tag = struct.Struct("<II").unpack_from
_COMPRESSED = 15
_MATRIX = 14
# Data type of the stored numbers -> numpy type; array class -> the class those numbers may stand for.
_STORED = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8"}
_CLASS = {6: "<f8", 7: "<f4", 8: "<i1", 9: "<u1", 10: "<i2", 11: "<u2", 12: "<i4", 13: "<u4"}
# The slow path accepts numbers of any stored type for any class, and 64-bit integers.
_ANY_STORED = {**_STORED, 12: "<i8", 13: "<u8"}
_REAL_CLASSES = range(6, 16)
_COMPLEX_OR_LOGICAL = 0x0A00


class MatError(Exception):
    """The requested variables cannot be read from the file; the message says why."""


class MatReader:
    """Reads the same variables from many files. It remembers where the last file had them.

    Of the variables that are not requested only the beginning is inflated, to see that none of them has a requested
    name. Damage in one of them is not detected.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._count = -1  # variables in the last file
        self._places: tuple[int, ...] = ()
        self._layouts: list[_Layout | None] = [None] * len(self._names)  # of the wanted variables in the last file
        self._name_tags = tuple(map(_name_tag, self._names))
        # Fixed part of an inflated variable: tags, flags, two dimensions, its name, the tag of its numbers.
        self._header_sizes = tuple(48 + (8 if len(n) <= 4 else 8 + (len(n) + 7) // 8 * 8) for n in self._names)

    def read(self, data: bytes) -> list[AnyArray]:
        """Return the requested variables, in the requested order, as float64 matrices.

        Raises:
            MatError: not a MATLAB v5 file, a variable is missing or not a real matrix, or the file is damaged.
        """
        values = self._read_fast(data)
        return values if values is not None else self._read_slowly(data)

    def _read_fast(self, data: bytes) -> list[AnyArray] | None:
        if data[124:128] != b"\x00\x01IM" or b"\0" in data[:4]:  # a zero there means version 4
            return None
        offsets = []
        position, end = 128, len(data)
        while position + 8 <= end:
            kind, length = _unpack_tag(data, position)
            if kind != _COMPRESSED:
                return None
            start = position + 8
            position = start + length
            offsets.append((start, position))
        if position != end:
            return None
        if len(offsets) == self._count:
            try:
                if (values := self._take(data, offsets, self._places)) is not None:
                    return None if self._has_namesake(data, offsets, self._places) else values
            except MatError:  # this file may have another variable at that position
                pass
        places = self._locate(data, offsets)
        if places is None or (values := self._take(data, offsets, places)) is None:
            return None
        self._count, self._places = len(offsets), places
        return None if self._has_namesake(data, offsets, places) else values

    def _has_namesake(self, data: bytes, offsets: list[tuple[int, int]], places: tuple[int, ...]) -> bool:
        """Return True if another variable seems to have a requested name; the slow path then decides."""
        for place, (start, stop) in enumerate(offsets):
            if place not in places:
                try:
                    head = zlib.decompressobj().decompress(data[start : min(stop, start + _HEAD_PACKED)], _HEAD_BYTES)
                except zlib.error:
                    continue
                if any(tag in head for tag in self._name_tags):
                    return True
        return False

    def _take(self, data: bytes, offsets: list[tuple[int, int]], places: tuple[int, ...]) -> list[AnyArray] | None:
        matrices: list[AnyArray] = []
        for i, place in enumerate(places):
            start, stop = offsets[place]
            inflated = _inflate(data[start:stop])
            layout = self._layouts[i]
            if layout is None or not inflated.startswith(layout.header):
                layout = self._layouts[i] = _layout(inflated[: self._header_sizes[i]], self._names[i])
                if layout is None:
                    return None
            if len(inflated) != layout.total:
                return None
            values = np.frombuffer(inflated, layout.stored, layout.numbers, len(layout.header))
            matrices.append(values.reshape(layout.shape, order="F").astype(np.float64, copy=False))
        return matrices

    def _locate(self, data: bytes, offsets: list[tuple[int, int]]) -> tuple[int, ...] | None:
        """Return the position of each requested variable in the file, or None unless each occurs exactly once."""
        places: dict[str, int] = {}
        for place, (start, stop) in enumerate(offsets):
            try:
                head = zlib.decompressobj().decompress(data[start:stop], 128)
            except zlib.error:
                continue
            for name, header_size in zip(self._names, self._header_sizes, strict=True):
                if _layout(head[:header_size], name) is not None:
                    if name in places:
                        return None
                    places[name] = place
        return tuple(places[n] for n in self._names) if len(places) == len(self._names) else None

    def _read_slowly(self, data: bytes) -> list[AnyArray]:
        if data.lstrip()[:1] in (b"<", b""):
            raise MatError("a web page, not a MATLAB file" if data.strip() else "empty file")
        order = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}.get(data[124:128])
        if order is None or b"\0" in data[:4]:
            raise MatError("not a MATLAB v5 file")
        matrices: dict[str, AnyArray] = {}
        for element in _elements(data, order):
            header = _header(element, order)
            if header is None or header.name not in self._names:
                continue
            if header.name in matrices:
                raise MatError(f"holds {header.name} twice")
            matrices[header.name] = _matrix(element, header, order)
        for name in self._names:
            if name not in matrices:
                raise MatError(f"holds no variable {name}")
        return [matrices[name] for name in self._names]


class _Layout(NamedTuple):
    """The layout of an inflated variable; `numbers` is their count and `total` the length in bytes."""

    header: bytes
    stored: np.dtype[Any]
    shape: tuple[int, int]
    numbers: int
    total: int


def _layout(header: bytes, name: str) -> _Layout | None:
    """Return the layout if this is the header of a plain real matrix called `name`.

    The element sizes in the first tag are left to the caller's length check; complex, logical and global
    matrices, other classes, and more than two dimensions are None.
    """
    if len(header) < 56:
        return None
    kind, total, flags_kind, flags_size, flags, _, dims_kind, dims_size, rows, columns = struct.unpack_from(
        "<IIIIIIIIii", header
    )
    if (kind, flags_kind, flags_size, dims_kind, dims_size) != (_MATRIX, 6, 8, 5, 8):
        return None
    if header[40:-8] != _name_tag(name):
        return None
    stored_kind, size = struct.unpack_from("<II", header, len(header) - 8)
    stored, array_class = _STORED.get(stored_kind), _CLASS.get(flags & 0xFF)
    if stored is None or array_class is None or flags >> 8 or rows < 1 or columns < 1:
        return None
    if rows * columns * int(stored[2]) != size or total != len(header) - 8 + (size + 7) // 8 * 8:
        return None
    if not np.can_cast(stored, array_class, "safe"):
        return None
    return _Layout(header, np.dtype(stored), (rows, columns), rows * columns, len(header) + (size + 7) // 8 * 8)


def _name_tag(name: str) -> bytes:
    """Return the part of a matrix element that holds its name."""
    encoded = name.encode()
    if len(encoded) <= 4:
        return struct.pack("<HH4s", 1, len(encoded), encoded)
    return struct.pack(f"<II{(len(encoded) + 7) // 8 * 8}s", 1, len(encoded), encoded)


def _inflate(data: bytes) -> bytes:
    """Return one inflated element, checksum verified; MatError if it is damaged or too large."""
    try:
        if len(data) <= _SMALL:  # cannot become larger than _MAX_INFLATED
            return zlib.decompress(data)
        inflater = zlib.decompressobj()
        inflated = inflater.decompress(data, _MAX_INFLATED)
    except zlib.error:
        raise MatError("damaged: a compressed variable fails its checksum") from None
    if inflater.unconsumed_tail:
        raise MatError(f"a variable of more than {_MAX_INFLATED:,} bytes, far more than a label file holds")
    if not inflater.eof or inflater.unused_data:
        raise MatError("damaged: a compressed variable is cut short")
    return inflated


class _Header(NamedTuple):
    """The header of a matrix element; its numbers start at `numbers_at`."""

    name: str
    array_class: int
    flags: int
    shape: tuple[int, ...]
    numbers_at: int


def _elements(data: bytes, order: str) -> Iterator[bytes]:
    """Yield the content of every matrix element, inflated."""
    position = 128
    while position < len(data):
        if position + 8 > len(data):
            raise MatError("truncated")
        kind, length = struct.unpack_from(order + "II", data, position)
        content = data[position + 8 : position + 8 + length]
        if len(content) != length:
            raise MatError("truncated")
        position += 8 + length
        if kind == _COMPRESSED:
            inflated = _inflate(content)
            if len(inflated) < 8:
                raise MatError("damaged: a variable without a header")
            kind, length = struct.unpack_from(order + "II", inflated)
            content = inflated[8:]
        if kind != _MATRIX or len(content) != length:
            raise MatError("damaged: a variable of the wrong length or kind")
        yield content


def _header(element: bytes, order: str) -> _Header | None:
    """Return the header of a matrix element, or None if it is not that of a named array."""
    position, parts = 0, []
    for expected_kind in (6, 5, 1):  # flags, dimensions, name
        kind, content, position = _part(element, position, order)
        if kind != expected_kind:
            return None
        parts.append(content)
    flags, dims, name = parts
    if len(flags) != 8 or len(dims) % 4:
        return None
    (word,) = struct.unpack_from(order + "I", flags)
    shape = struct.unpack(f"{order}{len(dims) // 4}i", dims)
    return _Header(name.decode("latin1"), word & 0xFF, word, shape, position)


def _matrix(element: bytes, header: _Header, order: str) -> AnyArray:
    if header.array_class not in _REAL_CLASSES or header.flags & _COMPLEX_OR_LOGICAL or len(header.shape) != 2:
        raise MatError(f"{header.name} is not a real matrix")
    kind, numbers, _ = _part(element, header.numbers_at, order)
    stored = _ANY_STORED.get(kind)
    rows, columns = header.shape
    if stored is None or rows < 0 or columns < 0 or rows * columns * int(stored[2]) != len(numbers):
        raise MatError(f"damaged: the numbers of {header.name} do not fit its size")
    values = np.frombuffer(bytearray(numbers), order + stored[1:])
    return values.reshape(header.shape, order="F").astype(np.float64)


def _part(element: bytes, position: int, order: str) -> tuple[int, bytes, int]:
    """Return data type, bytes and end position of one part of a matrix element; the type is -1 if it is truncated."""
    if position + 8 > len(element):
        return -1, b"", position
    kind, size = struct.unpack_from(order + "II", element, position)
    start, following = position + 8, position + 8 + (size + 7) // 8 * 8
    if kind >> 16:  # up to four bytes are stored in the tag itself
        kind, size, start, following = kind & 0xFFFF, kind >> 16, position + 4, position + 8
    content = element[start : min(start + size, following)]
    return (kind, content, following) if len(content) == size else (-1, b"", position)


_FLIP = "_Flip"  # end of the folder of 300W-LP that holds the mirror images of another
_MIRRORED_PX = 0.5  # by how much the points of a mirror image may miss those of its twin


def projected_path(folder: str, stem: str) -> str:
    """Return the file of 300W-LP with the points of a warped face, as in folder AFW the stem AFW_134212_1_3."""
    return f"landmarks/{folder}/{stem}_pts.mat"


def projected_paths(folder: str, stem: str) -> tuple[str, ...]:
    """Return the files that may hold the points of a head: its own and, of a mirror image, those of its twin."""
    own, twin = projected_path(folder, stem), folder.removesuffix(_FLIP)
    return (own,) if twin == folder else (own, projected_path(twin, stem), f"{twin}/{stem}.mat")


def projected_points68(read: Callable[[str], bytes], folder: str, stem: str) -> FloatArray | None:
    """Return the 68 points (68, 2) of a head of 300W-LP on its own, warped image; None if there is no file of them.

    The dataset has such files for the four sets without their mirror images only. Points of a mirror image are those of
    its twin, mirrored: left and right landmarks change places, and x becomes w - x. Since the points of the photograph,
    pt2d, were published for both, w is what x and mirrored x add up to there.

    Args:
        read: gives the bytes of a file of the dataset; it raises FileNotFoundError for a file that is not there.
        folder: of the dataset, as AFW or AFW_Flip.
        stem: of the image.

    Raises:
        MatError: a file is damaged, or holds something else.
    """
    if (own := _points(read, projected_path(folder, stem), "pts_2d", (68, 2))) is not None:
        return own
    twin = folder.removesuffix(_FLIP)
    if twin == folder or (of_twin := _points(read, projected_path(twin, stem), "pts_2d", (68, 2))) is None:
        return None
    photo = [_points(read, f"{f}/{stem}.mat", "pt2d", (2, 68)) for f in (folder, twin)]
    if photo[0] is None or photo[1] is None:
        return None
    width = photo[0][0] + photo[1][0, list(MIRROR_68)]
    if float(np.ptp(width)) > _MIRRORED_PX:
        raise MatError(f"{folder}/{stem}.mat: its points are not the mirror image of those in {twin}/{stem}.mat")
    return mirrored_points68(of_twin, float(np.median(width)))


def _points(read: Callable[[str], bytes], path: str, name: str, shape: tuple[int, int]) -> FloatArray | None:
    """Return a variable of a file as numbers, None if there is no such file."""
    try:
        content = read(path)
    except FileNotFoundError:
        return None
    try:
        (points,) = MatReader([name]).read(content)
    except MatError as error:
        raise MatError(f"{path}: {error}") from None
    if points.shape != shape or not np.isfinite(points).all():
        raise MatError(f"{path}: {name} has shape {points.shape} or a number that is not finite")
    return np.asarray(points, dtype=np.float64)


class NumberRows(NamedTuple):
    """The non-blank rows of a file, each its numbers or an error message, and whether the last row may be truncated."""

    rows: list[list[float] | str]
    is_cut: bool


def number_rows(
    data: bytes, path: str, limits: Sequence[float], separator: bytes | None = None, allows_more: bool = False
) -> NumberRows:
    """Return the rows of a label file.

    Args:
        data: the content of the file.
        path: of the file, for error messages.
        limits: the largest possible absolute value of each number of a row.
        separator: between numbers; white space by default.
        allows_more: a row may have more numbers than `limits`; they are ignored.
    """
    rows: list[list[float] | str] = []
    count = len(limits)
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            tokens = line.split() if separator is None else line.rstrip(separator + b" \t").split(separator)
            values = [float(token) for token in tokens]
        except ValueError:
            values = []
        is_long_enough = len(values) >= count if allows_more else len(values) == count
        # Python reads 1_0 as 10. A NaN is within no limit.
        if not is_long_enough or b"_" in line or not all(abs(v) <= m for v, m in zip(values, limits, strict=False)):
            how = "start with" if allows_more else "hold"
            rows.append(f"{path}: line {number} does not {how} {count} possible numbers")
        else:
            rows.append(values[:count])
    return NumberRows(rows, not data[-1:].isspace())
