"""Reads the size of an image from its header and checks that the file is complete, without decoding it.

A build is fast because it reads 512 bytes instead of decoding 450x450 pixels. A JPEG must end with its end-of-image
marker and a PNG with its IEND chunk; a file that does not is decoded once to find out whether it is complete.
"""

from __future__ import annotations

import logging
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ubhpd.core.typing import Image

_LOG = logging.getLogger(__name__)

HEAD_BYTES = 512  # holds the frame header of nearly every image without a large EXIF block
TAIL_BYTES = 12  # a whole IEND chunk; a JPEG needs the last two

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_START = b"\xff\xd8\xff"
_EXIF, _MOST_EXIF_BYTES = b"Exif\0\0", 1 << 17  # an orientation is in the first segments
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_JPEG_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # not a stuffed byte, a fill byte or a restart marker
_MAX_SIDE = 65_500
_PNG_CHANNELS = {2: 3, 4: 2, 6: 4}  # by colour type; 1 of the others
_JPEG_DAMAGE = re.compile(r"Corrupt JPEG data: (?!bad ICC)|Premature end of JPEG|Inconsistent progression")
_MAX_PIXELS = 1 << 28  # 268 megapixels; to decode them takes a second and 800 MB
_PNG_HEADER = 33  # bytes of the signature and of a whole IHDR chunk


class ImageError(Exception):
    """The bytes are not a complete JPEG or PNG image; the message says why."""


class FalseSizeError(ImageError):
    """The header states a size that no image has, or that the file is too small for."""


class HeaderTooShort(Exception):
    """The frame header lies beyond the bytes given: call again with more of the file."""


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int


# The header bytes that determined the size of the last image, and that size. Most images of a dataset start with the
# same bytes, and images that share these bytes have the same size.
_last = (b"", Size(0, 0))


def size_from_header(head: bytes) -> Size:
    """Return the image size from the first bytes of a JPEG or PNG.

    Raises:
        HeaderTooShort: more bytes of the file are needed.
        ImageError: the bytes are not JPEG or PNG, or give an impossible size.
    """
    global _last
    last_header, size = _last
    if last_header and head.startswith(last_header):
        return size
    if head[:3] == b"\xff\xd8\xff":
        return _jpeg_size(head)
    if head[:8] == _PNG_SIGNATURE:
        if len(head) >= 16 and head[8:16] != b"\x00\x00\x00\x0dIHDR":
            raise ImageError("PNG without an IHDR chunk")
        if len(head) < _PNG_HEADER:
            raise HeaderTooShort
        if zlib.crc32(head[12:29]) != int.from_bytes(head[29:_PNG_HEADER], "big"):
            raise ImageError("damaged: the header of the PNG fails its checksum")
        size = _checked(*struct.unpack_from(">II", head, 16))
        _last = (head[:_PNG_HEADER], size)
        return size
    if not head:
        raise ImageError("empty file")
    if head.lstrip()[:1] == b"<":
        raise ImageError("a web page, not an image")
    raise ImageError("neither JPEG nor PNG")


def refuse_false_size(size: Size, head: bytes, file_size: int) -> None:
    """Raise FalseSizeError if the file has too few bytes for the size in its header, however well they are compressed.

    Args:
        size: what `size_from_header` returned for `head`.
        head: the first bytes of the JPEG or PNG.
        file_size: bytes of the whole file.
    """
    pixels = size.width * size.height
    if head[:8] == _PNG_SIGNATURE:
        # One byte of deflate gives at most 1032; a pixel has at least 1 bit, and interlaced rows may be rounded up.
        is_too_small = pixels * head[24] * _PNG_CHANNELS.get(head[25], 1) > 8 * 1032 * file_size
    else:
        is_too_small = pixels > 1024 * file_size  # a block of 8 x 8 pixels takes one bit at least, most often two
    if is_too_small:
        raise FalseSizeError(f"its header says {size.width}x{size.height}, but {file_size:,} bytes cannot hold that")


def has_end(head: bytes, tail: bytes) -> bool:
    """Return True if the file ends as a complete image does."""
    if head[:8] == _PNG_SIGNATURE:
        return tail[-12:] == _PNG_END
    return tail[-2:] == b"\xff\xd9"


def decode_fault(data: bytes) -> str | None:
    """Decode the whole image; return the fault as text, or None if it decodes without one."""
    try:
        size = size_from_header(data)
        refuse_false_size(size, data, len(data))
    except HeaderTooShort:
        return "truncated inside its header"
    except ImageError as error:
        return str(error)
    is_png = data[:8] == _PNG_SIGNATURE
    if is_png and (fault := _png_chunk_fault(data)):
        return fault
    if not is_png and b"\xff\xd9" not in data[-4096:]:
        return "truncated: a JPEG without its end marker"
    pixels = decode_undamaged(data)
    if isinstance(pixels, str):
        return f"is a damaged JPEG ({pixels})"
    if pixels is None:
        return "does not decode"
    if pixels.shape[:2] != (size.height, size.width):
        return f"decodes to {pixels.shape[1]}x{pixels.shape[0]}, its header says {size.width}x{size.height}"
    return None


def decode(data: bytes, upright: bool = False) -> Image | None:
    """Return the image (height, width, 3), BGR, or None if it does not decode.

    With simplejpeg installed it decodes JPEGs, with equal pixels; OpenCV decodes what it cannot.

    A truncated JPEG gives None with every version of OpenCV. Up to version 4.11, `cv2.imdecode` itself returns a
    baseline JPEG that is cut off with its lower part grey. An image whose header states more pixels than its bytes can
    hold gives None before any memory is taken for it.

    Args:
        data: the file.
        upright: undo the EXIF orientation. The labels of every dataset belong to the pixels as they are stored.
    """
    import cv2

    is_jpeg = data[:3] == _JPEG_START
    if not data or (is_jpeg and not _jpeg_is_complete(data)) or _has_false_size(data):
        return None
    if is_jpeg and not (upright and _EXIF in data[:_MOST_EXIF_BYTES]):
        fast = _by_simplejpeg(data)
        if fast is not None:
            return fast
    flags = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error:  # for example, more pixels than OpenCV allocates
        return None
    return None if pixels is None else np.asarray(pixels, dtype=np.uint8)


def decode_undamaged(data: bytes, upright: bool = False) -> Image | str | None:
    """Return the image as `decode` does, or for a JPEG with damage inside the warning of `jpeg_damage`.

    An image that simplejpeg decodes without a warning is decoded once.
    """
    if data[:3] != _JPEG_START:
        return decode(data, upright)
    if not (upright and _EXIF in data[:_MOST_EXIF_BYTES]) and _jpeg_is_complete(data) and not _has_false_size(data):
        fast = _by_simplejpeg(data)
        if fast is not None:
            return fast
    return jpeg_damage(data) or decode(data, upright)


def _by_simplejpeg(data: bytes) -> Image | None:
    """Return the pixels of a JPEG, equal to OpenCV's; None without simplejpeg, or if it reports anything."""
    try:
        import simplejpeg
    except ImportError:
        return None
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, "BGR"), np.uint8)
    except (ValueError, MemoryError):  # damaged, or of a kind that only OpenCV decodes
        return None


@lru_cache
def _warn_once(text: str) -> None:
    _LOG.warning(text)


def jpeg_damage(data: bytes) -> str | None:
    """Return libjpeg's warning on the pixels of a JPEG, as "Corrupt JPEG data: bad Huffman code".

    libjpeg fills a damaged stretch with what it guesses and decodes on; OpenCV returns such an image as a good one.
    None for a JPEG without damage, and for every other file. Without the package simplejpeg no damage is found, and the
    log says so once.
    """
    if data[:3] != b"\xff\xd8\xff":
        return None
    try:
        import simplejpeg
    except ImportError:
        _warn_once("Damage inside JPEG files is not detected without simplejpeg: pip install 'ubhpd[fast]'.")
        return None

    try:
        colours = simplejpeg.decode_jpeg_header(data)[2]
        # One pixel of each 8 x 8 is enough: the entropy-coded data is read to its end all the same.
        simplejpeg.decode_jpeg(data, "CMYK" if colours in ("CMYK", "YCCK") else "GRAY", min_height=1, min_width=1)
    except ValueError as error:
        # Every other message is on a file that no decoder takes, or on one that only this decoder does not know.
        return str(error) if _JPEG_DAMAGE.match(str(error)) else None
    return None


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV from writing log messages to the terminal, for callers that report the problem themselves."""
    import cv2

    log: Any = getattr(cv2.utils, "logging", cv2)  # OpenCV 4.13 moved the two functions from cv2 to cv2.utils.logging
    level = log.getLogLevel()
    log.setLogLevel(0)  # silent
    try:
        yield
    finally:
        log.setLogLevel(level)


def _has_false_size(data: bytes) -> bool:
    """Return True if a JPEG or PNG states more pixels than its bytes can hold, or than any image here has."""
    try:
        refuse_false_size(size_from_header(data), data, len(data))
    except FalseSizeError:
        return True
    except (ImageError, HeaderTooShort):
        pass
    return False


def _jpeg_is_complete(data: bytes) -> bool:
    """Return True if the end marker follows the scans of a JPEG; an end marker inside a thumbnail does not count."""
    if data[-2:] == b"\xff\xd9":
        return True
    position = 2
    while found := _JPEG_MARKER.search(data, position):
        marker, position = data[found.start() + 1], found.end()
        if marker == 0xD9:
            return True
        if marker not in (0x01, 0xD8):  # markers without a length
            position += int.from_bytes(data[position : position + 2], "big")
    return False


def _jpeg_size(head: bytes) -> Size:
    global _last
    position, end = 2, len(head)
    while True:
        if position + 4 > end:
            raise HeaderTooShort
        if head[position] != 0xFF:
            raise ImageError("damaged JPEG header")
        marker = head[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in _JPEG_FRAME_MARKERS:
            if position + 9 > end:
                raise HeaderTooShort
            height, width = struct.unpack_from(">HH", head, position + 5)
            size = _checked(width, height)
            _last = (head[: position + 9], size)
            return size
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a length
            position += 2
            continue
        if marker in (0xD9, 0xDA):
            raise ImageError("JPEG without a frame header")
        length = (head[position + 2] << 8) + head[position + 3]
        if length < 2:
            raise ImageError("damaged JPEG header")
        position += 2 + length


def _png_chunk_fault(data: bytes) -> str | None:
    position = len(_PNG_SIGNATURE)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        end = position + 12 + length
        if end > len(data):
            break
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return f"damaged: the PNG chunk at byte {position} fails its checksum"
        if data[position + 4 : position + 8] == b"IEND":
            return None
        position = end
    return "truncated: a PNG without its IEND chunk"


def _checked(width: int, height: int) -> Size:
    if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE and width * height <= _MAX_PIXELS):
        raise FalseSizeError(f"impossible size {width}x{height}")
    return Size(width, height)


VIDEO_SUFFIXES = (".mp4", ".avi", ".mov")
