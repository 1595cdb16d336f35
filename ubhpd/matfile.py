"""Named variables of small MATLAB v5 label files, fast where the layout is the known one, by scipy elsewhere.

The label files of 300W-LP and AFLW2000-3D hold eight or nine variables, each compressed by itself. A loader
that calls scipy.io.loadmat inflates them all; here only the wanted ones are inflated, found at the place
where the previous file had them. A variable is accepted on this road only if its header is, byte for byte,
that of a plain real matrix of a known type and its checksum holds. Anything else goes to scipy, after every
compressed element has been inflated once with a bound, so that a damaged file is refused, not misread.

Format: MAT-File Format, level 5 (The MathWorks).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_MAX_INFLATED = 4 << 20
_COMPRESSED = 15
_MATRIX = 14
# Data type of the stored numbers -> numpy type; array class -> the class those numbers may stand for.
_STORED = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8"}
_CLASS = {6: "<f8", 7: "<f4", 8: "<i1", 9: "<u1", 10: "<i2", 11: "<u2", 12: "<i4", 13: "<u4"}


class MatError(Exception):
    """The file does not hold the wanted variables; the message says why."""


class MatReader:
    """Reads the same variables from many files. It remembers where the last file had them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._places: tuple[int, ...] = ()
        # Fixed part of an inflated variable: tags, flags, two dimensions, its name, the tag of its numbers.
        self._header_sizes = tuple(48 + (8 if len(n) <= 4 else 8 + (len(n) + 7) // 8 * 8) for n in self._names)

    def read(self, data: bytes) -> list[Array]:
        """Return the wanted variables, in the order asked for, as float64 matrices.

        Raises:
            MatError: no MATLAB v5 file, a variable is absent or not a real matrix, or the file is damaged.
        """
        found = self._read_fast(data)
        return found if found is not None else self._read_with_scipy(data)

    def _read_fast(self, data: bytes) -> list[Array] | None:
        if data[124:128] != b"\x00\x01IM":
            return None
        offsets = []
        position, end = 128, len(data)
        while position < end:
            if position + 8 > end:
                return None
            kind, length = struct.unpack_from("<II", data, position)
            if kind != _COMPRESSED or position + 8 + length > end:
                return None
            offsets.append((position + 8, position + 8 + length))
            position += 8 + length
        if (found := self._take(data, offsets, self._places)) is not None:
            return found
        places = self._locate(data, offsets)
        if places is None or (found := self._take(data, offsets, places)) is None:
            return None
        self._places = places
        return found

    def _take(self, data: bytes, offsets: list[tuple[int, int]], places: tuple[int, ...]) -> list[Array] | None:
        if len(places) != len(self._names):
            return None
        found = []
        for name, place, header_size in zip(self._names, places, self._header_sizes, strict=True):
            if place >= len(offsets):
                return None
            start, stop = offsets[place]
            inflated = _inflate(data[start:stop])
            header = _parse_header(inflated[:header_size], name)
            if header is None:
                return None
            stored, shape, size = header
            if len(inflated) != header_size + (size + 7) // 8 * 8:
                return None
            values = np.frombuffer(inflated, stored, shape[0] * shape[1], header_size)
            found.append(values.reshape(shape, order="F").astype(np.float64))
        return found

    def _locate(self, data: bytes, offsets: list[tuple[int, int]]) -> tuple[int, ...] | None:
        """Return the place of each wanted variable in the file, or None unless each is there exactly once."""
        places: dict[str, int] = {}
        for place, (start, stop) in enumerate(offsets):
            head = zlib.decompressobj().decompress(data[start:stop], 128) if stop > start else b""
            for name, header_size in zip(self._names, self._header_sizes, strict=True):
                if _parse_header(head[:header_size], name) is not None:
                    if name in places:
                        return None
                    places[name] = place
        return tuple(places[n] for n in self._names) if len(places) == len(self._names) else None

    def _read_with_scipy(self, data: bytes) -> list[Array]:
        import io

        import scipy.io

        if data[:1] in (b"<", b""):
            raise MatError("a web page, not a MATLAB file" if data else "empty file")
        _refuse_damage(data)
        try:
            variables = scipy.io.loadmat(io.BytesIO(data), variable_names=self._names)
        except Exception as error:  # foreign bytes: scipy raises nearly every type there is
            raise MatError(f"scipy cannot read it ({type(error).__name__}: {_one_line(error)})") from None
        found = []
        for name in self._names:
            if name not in variables:
                raise MatError(f"holds no variable {name}")
            value = variables[name]
            if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype.kind not in "iuf":
                raise MatError(f"{name} is not a real matrix")
            found.append(value.astype(np.float64))
        return found


@lru_cache(maxsize=256)
def _parse_header(header: bytes, name: str) -> tuple[str, tuple[int, int], int] | None:
    """Return (numpy type, shape, bytes of numbers) if this is the header of a plain real matrix called `name`.

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
    encoded = name.encode()
    if len(encoded) <= 4:
        expected = struct.pack("<HH4s", 1, len(encoded), encoded)
    else:
        padded = (len(encoded) + 7) // 8 * 8
        expected = struct.pack(f"<II{padded}s", 1, len(encoded), encoded)
    if header[40:-8] != expected:
        return None
    stored_kind, size = struct.unpack_from("<II", header, len(header) - 8)
    stored, array_class = _STORED.get(stored_kind), _CLASS.get(flags & 0xFF)
    if stored is None or array_class is None or flags >> 8 or rows < 1 or columns < 1:
        return None
    if rows * columns * int(stored[2]) != size or total != len(header) - 8 + (size + 7) // 8 * 8:
        return None
    if not np.can_cast(stored, array_class, "safe"):
        return None
    return stored, (rows, columns), size


def _inflate(data: bytes) -> bytes:
    """Return one inflated element, checksum verified; MatError if it is damaged or too large."""
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(data, _MAX_INFLATED)
    except zlib.error:
        raise MatError("damaged: a compressed variable fails its checksum") from None
    if inflater.unconsumed_tail:
        raise MatError(f"a variable of more than {_MAX_INFLATED:,} bytes, far more than a label file holds")
    if not inflater.eof or inflater.unused_data:
        raise MatError("damaged: a compressed variable is cut short")
    return inflated


def _refuse_damage(data: bytes) -> None:
    """Inflate every compressed element once: scipy would read past a failing checksum."""
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        return
    position = 128
    while position + 8 <= len(data):
        kind, length = struct.unpack_from(order + "II", data, position)
        if kind == _COMPRESSED:
            if position + 8 + length > len(data):
                raise MatError("truncated")
            _inflate(data[position + 8 : position + 8 + length])
        if kind >> 16:  # a small element carries its data in the tag
            length = 0
        position += 8 + length
    if position != len(data):
        raise MatError("truncated")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
