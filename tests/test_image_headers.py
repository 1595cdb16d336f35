import io
import struct
import sys
import zipfile
import zlib
from contextlib import suppress

import cv2
import numpy as np
import pytest
from archives_for_tests import opened, write_tar, write_zip
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from realdata import REAL, needs

from ubhpd.raw import image_files
from ubhpd.raw.image_files import (
    HEAD_BYTES,
    TAIL_BYTES,
    HeaderTooShort,
    ImageError,
    Size,
    decode,
    decode_fault,
    has_end,
    quiet_opencv,
    refuse_false_size,
    size_from_header,
)
from ubhpd.raw.source import Refused, Source

JPEG_END = b"\xff\xd9"


def noise(width, height, mode="RGB"):
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(np.random.default_rng(width).integers(0, 255, shape, dtype=np.uint8))


def encoded(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def with_segment(jpeg, size, marker=0xE1):
    """Return the JPEG with an application segment of `size` bytes before everything else."""
    return jpeg[:2] + struct.pack(">BBH", 0xFF, marker, size - 2) + bytes(size - 4) + jpeg[2:]


def png(width, height):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


SMALL = {
    "baseline": encoded(noise(23, 17), "JPEG"),
    "progressive": encoded(noise(23, 17), "JPEG", progressive=True),
    "restarts": encoded(noise(23, 17), "JPEG", restart_marker_blocks=1),
    "grey": encoded(noise(23, 17, "L"), "JPEG"),
    "thumbnail": encoded(noise(23, 17), "JPEG", exif=b"Exif\0\0" + encoded(noise(8, 8), "JPEG")),
    "png": encoded(noise(23, 17), "PNG"),
    "png grey": encoded(noise(23, 17, "L"), "PNG"),
    "png palette": encoded(noise(23, 17).quantize(16), "PNG"),
    "png interlaced": cv2.imencode(".png", np.zeros((17, 23, 3), np.uint8))[1].tobytes(),
}
small = pytest.mark.parametrize("data", SMALL.values(), ids=SMALL.keys())


@pytest.mark.parametrize("size", [(1, 1), (640, 480), (450, 450), (3, 2000), (2000, 3)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"quality": 100, "subsampling": 0}), ("PNG", {})],
)
def test_size_equals_that_of_pillow_and_opencv(size, kind, options):
    data = encoded(noise(*size), kind, **options)
    found = size_from_header(data[:HEAD_BYTES]) if kind == "PNG" else size_from_header(data)
    assert found == size == Image.open(io.BytesIO(data)).size
    assert found == cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[1::-1]
    assert decode_fault(data) is None
    assert has_end(data[:8], data[-TAIL_BYTES:])


@small
def test_every_kind_of_small_image_is_read_and_complete(data):
    assert size_from_header(data) == Size(23, 17)
    assert decode_fault(data) is None
    assert has_end(data, data[-TAIL_BYTES:])


def test_an_exif_orientation_does_not_change_the_size():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to show
    data = encoded(noise(30, 20), "JPEG", exif=exif)
    assert size_from_header(data) == Size(30, 20)
    assert decode_fault(data) is None


@pytest.mark.parametrize("size", [600, 4096, 65_000])
def test_a_large_segment_asks_for_more_bytes_and_then_gives_the_size(size):
    data = with_segment(SMALL["baseline"], size)
    with pytest.raises(HeaderTooShort):
        size_from_header(data[:HEAD_BYTES])
    assert size_from_header(data) == Size(23, 17)
    assert decode_fault(data) is None


@pytest.mark.parametrize("segments", [1, 5, 40, 100])  # of 65 kB each: EXIF with previews, colour profiles
@pytest.mark.parametrize("kind", ["folder", ".zip", ".tar", ".tgz"])
def test_a_long_header_is_followed_to_the_size_in_every_kind_of_tree(segments, kind, tmp_path):
    data = SMALL["baseline"]
    for _ in range(segments):
        data = with_segment(data, 65_000)
    place = tmp_path / ("x" if kind == "folder" else "x" + kind)
    if kind == "folder":
        place.mkdir()
        (place / "a.jpg").write_bytes(data)
    elif kind == ".zip":
        write_zip(place, {"a.jpg": data}, zipfile.ZIP_STORED)
    else:  # noise beside it, so that zeros in the segments do not look like a bomb
        noise_bytes = np.random.default_rng(0).bytes(100_000)
        write_tar(place, {"a.jpg": data, "b.bin": noise_bytes}, "w:gz" if kind == ".tgz" else "w")
    assert Source(opened(place, spool=tmp_path / "s")).image_size("a.jpg") == (23, 17)


def test_a_header_without_an_end_is_refused(tmp_path):
    data = SMALL["baseline"]
    for _ in range(6):
        data = with_segment(data, 65_000)
    (tmp_path / "a.jpg").write_bytes(data[:300_000])
    with pytest.raises(Refused, match=r"a\.jpg: truncated inside its header"):
        Source(opened(tmp_path)).image_size("a.jpg")


def test_a_size_that_the_file_is_too_small_for_is_refused_without_decoding_by_a_source(tmp_path):
    (tmp_path / "a.png").write_bytes(png(16_000, 16_000))
    (tmp_path / "b.png").write_bytes(png(40_000, 40_000))
    for thorough in (False, True):
        source = Source(opened(tmp_path), thorough)
        with pytest.raises(Refused, match=r"a\.png: its header says 16000x16000, but \d+ bytes cannot hold that"):
            source.image_size("a.png")
        with pytest.raises(Refused, match=r"b\.png: impossible size 40000x40000"):
            source.image_size("b.png")


def test_many_segments_are_walked_through():
    data = SMALL["progressive"]
    for marker in (0xE0, 0xED, 0xFE, 0xDB, 0xC4, 0xC8, 0xCC):
        data = with_segment(data, 300, marker)
    assert size_from_header(data) == Size(23, 17)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_fill_bytes_before_a_marker_are_skipped(count):
    plain = SMALL["baseline"]
    assert size_from_header(plain[:2] + b"\xff" * count + plain[2:]) == Size(23, 17)
    assert decode_fault(plain[:2] + b"\xff" * count + plain[2:]) is None


@small
def test_a_truncated_image_never_has_a_wrong_size_or_an_end(data):
    for length in range(len(data)):
        with suppress(HeaderTooShort, ImageError):
            assert size_from_header(data[:length]) == Size(23, 17)
        thumbnail_ends_here = data is SMALL["thumbnail"] and data[:length].endswith(JPEG_END)
        assert not has_end(data[:length], data[:length][-TAIL_BYTES:]) or thumbnail_ends_here


@small
def test_a_truncated_image_is_always_detected_by_decoding(data):
    for length in range(len(data)):
        assert decode_fault(data[:length]), length


@small
def test_a_truncated_image_does_not_decode_with_any_version_of_opencv(data):
    for length in range(len(data)):
        assert decode(data[:length]) is None, length


@small
@pytest.mark.parametrize("trailer", [b"\0" * 5000, b"junk", SMALL["baseline"][:40], b"\xff"])
def test_bytes_after_the_end_of_an_image_do_not_matter(data, trailer):
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decode(data + trailer), expected)
    assert expected.shape == (17, 23, 3)


def test_an_image_too_large_for_opencv_does_not_decode():
    assert decode(png(60_000, 60_000)) is None


def test_opencv_writes_no_log_messages_while_it_is_quiet(capfd):
    log = getattr(cv2.utils, "logging", cv2)
    level = log.getLogLevel()
    with quiet_opencv():
        assert log.getLogLevel() == 0
        assert not cv2.VideoCapture("/nowhere/video.avi").isOpened()
    assert log.getLogLevel() == level
    assert capfd.readouterr().err == ""


def test_the_log_level_of_opencv_is_restored_after_an_error():
    log = getattr(cv2.utils, "logging", cv2)
    level = log.getLogLevel()
    with pytest.raises(KeyError), quiet_opencv():
        raise KeyError
    assert log.getLogLevel() == level


@pytest.mark.parametrize("name", ["png", "png palette"])
def test_any_changed_byte_of_a_png_is_detected_by_decoding(name):
    for position in range(len(SMALL[name])):
        data = bytearray(SMALL[name])
        data[position] ^= 0x10
        assert decode_fault(bytes(data)), position


@small
def test_damaged_images_raise_no_other_errors(data):
    rng = np.random.default_rng(5)
    for _ in range(150):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), rng.integers(1, 6)):
            damaged[position] = rng.integers(0, 256)
        assert decode_fault(bytes(damaged)) is None or isinstance(decode_fault(bytes(damaged)), str)


def test_trailing_bytes_hide_the_end_but_are_not_a_fault():
    for name in ("baseline", "png"):
        data = SMALL[name] + b"\n\n"
        assert not has_end(data[:8], data[-TAIL_BYTES:])
        assert decode_fault(data) is None


@pytest.mark.parametrize("size", [(65_000, 65_000), (40_000, 40_000)])
def test_a_small_file_with_a_gigantic_size_is_a_fault_not_a_crash(size):
    with pytest.raises(ImageError, match="impossible size"):
        size_from_header(png(*size))
    assert "impossible size" in decode_fault(png(*size))
    assert decode(png(*size)) is None


def test_a_size_that_the_file_is_too_small_for_is_refused_before_decoding(monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", None)  # calling it would fail the test
    data = png(16_000, 16_000)
    assert len(data) < 100 and size_from_header(data) == (16_000, 16_000)
    assert "bytes cannot hold that" in decode_fault(data)
    assert decode(data) is None
    jpeg = bytearray(SMALL["baseline"])
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 16_000, 16_000)
    assert "bytes cannot hold that" in decode_fault(bytes(jpeg))
    assert decode(bytes(jpeg)) is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_the_emptiest_image_of_a_size_is_not_refused(kind, mode):
    """A white image is the smallest file of its size: fewer than 1,032 x 8 pixels a byte."""
    if (kind, mode) == ("JPEG", "1"):
        mode, options = "L", {"progressive": True, "optimize": True, "quality": 1}
    else:
        options = {"optimize": True} if kind == "PNG" else {"subsampling": 2, "quality": 1, "optimize": True}
    data = encoded(Image.new(mode, (4000, 3000), "white"), kind, **options)
    refuse_false_size(size_from_header(data), data, len(data))
    assert decode(data).shape == (3000, 4000, 3)


def test_every_changed_bit_of_a_png_header_is_detected_without_decoding():
    for at in range(8, 33):
        for bit in range(8):
            data = bytearray(SMALL["png"])
            data[at] ^= 1 << bit
            size_from_header(SMALL["baseline"])  # so that no header is remembered
            with pytest.raises(ImageError):
                size_from_header(bytes(data))


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (65_501, 5), (5, 65_501), (2**31, 2**31)])
def test_an_impossible_size_is_refused(width, height):
    with pytest.raises(ImageError, match="impossible size"):
        size_from_header(png(width, height))
    assert "impossible size" in decode_fault(png(width, height))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>quota exceeded</html>", "web page"),
        (b"\n\n  <html>", "web page"),
        (b"GIF89a" + bytes(50), "neither"),
        (b"\xff\xd8", "neither"),
        (b"\x89PNG", "neither"),
        (b"\x00" * 600, "neither"),
        (b"version https://git-lfs.github.com/spec/v1\n", "neither"),
        (b"\xff\xd8\xff\xe0\x00\x04ab" + b"\x00\x00\x00\x00", "damaged"),
        (b"\xff\xd8\xff\xe0\x00\x01ab" + b"\xff\xd9", "damaged"),
        (b"\xff\xd8\xff\xd9" + bytes(20), "without a frame header"),
        (b"\xff\xd8\xff\xda\x00\x08" + bytes(20), "without a frame header"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\x0dJHDR" + bytes(20), "IHDR"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\x0dIHDR" + bytes(20), "header of the PNG fails its checksum"),
    ],
)
def test_a_file_that_is_not_an_image_is_identified(data, reason):
    with pytest.raises(ImageError, match=reason):
        size_from_header(data)
    assert reason in decode_fault(data)


@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xc0\x00\x11"]), st.binary(max_size=600)
)
@settings(deadline=None)
def test_random_bytes_give_a_possible_size_or_one_of_the_two_errors(start, rest):
    try:
        size = size_from_header(start + rest)
    except (HeaderTooShort, ImageError):
        return
    assert 0 < size.width <= 65_535
    assert 0 < size.height <= 65_535


@given(st.binary(max_size=40), st.binary(max_size=12))
@settings(deadline=None)
def test_has_end_is_true_only_for_the_two_end_markers(head, tail):
    assert has_end(b"\xff\xd8\xff" + head, tail) == tail.endswith(JPEG_END)
    assert has_end(b"\x89PNG\r\n\x1a\n" + head, tail) == (tail == b"\0\0\0\0IEND\xaeB\x60\x82")
    assert has_end(b"\x89PNG\r\n\x1a\n" + head, b"\0\0\0\0IEND\xaeB\x60\x82")
    assert not has_end(b"\x89PNG\r\n\x1a\n" + head, b"\0\0\0\1IEND\xaeB\x60\x82")


@needs("AFLW2000")
def test_real_jpeg_sizes_are_those_of_opencv():
    files = sorted((REAL / "AFLW2000").glob("image*.jpg"))[::8]
    assert len(files) >= 50
    for file in files:
        data = file.read_bytes()
        assert size_from_header(data[:HEAD_BYTES]) == cv2.imread(str(file)).shape[1::-1] == (450, 450)
        assert has_end(data[:HEAD_BYTES], data[-TAIL_BYTES:])
        assert decode_fault(data) is None
        assert decode_fault(data[: len(data) // 2])


@needs("300W_LP")
def test_real_300wlp_jpeg_sizes_are_those_of_opencv_though_some_have_much_exif():
    files = sorted((REAL / "300W_LP").rglob("*.jpg"))
    long_headers = 0
    for file in files:
        data = file.read_bytes()
        try:
            size = size_from_header(data[:HEAD_BYTES])
        except HeaderTooShort:
            long_headers += 1
            size = size_from_header(data)
        assert size == cv2.imread(str(file)).shape[1::-1] == (450, 450)
    assert 0 < long_headers < len(files)


@needs("BIWI/hpdb")
def test_real_png_sizes_are_those_of_opencv():
    files = sorted((REAL / "BIWI/hpdb").rglob("*_rgb.png"))
    assert files
    for file in files:
        data = file.read_bytes()
        assert size_from_header(data[:HEAD_BYTES]) == cv2.imread(str(file)).shape[1::-1] == (640, 480)
        assert has_end(data[:HEAD_BYTES], data[-TAIL_BYTES:])
        assert decode_fault(data) is None


def test_without_simplejpeg_damage_is_not_found_and_the_log_says_so_once(monkeypatch, caplog):
    image_files._warn_once.cache_clear()
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    assert [image_files.jpeg_damage(b"\xff\xd8\xff cut") for _ in range(2)] == [None, None]
    assert caplog.messages == [
        "Damage inside JPEG files is not detected without simplejpeg: pip install 'ubhpd[fast]'."
    ]
    image_files._warn_once.cache_clear()


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"restart_marker_blocks": 8}, {"subsampling": 0}, {"subsampling": 1}, {"quality": 30}],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("upright", [False, True])
def test_simplejpeg_gives_the_pixels_of_opencv(mode, options, upright, monkeypatch):
    """Of any size and subsampling, with an EXIF orientation or without."""
    pytest.importorskip("simplejpeg")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    files = [encoded(noise(*size, mode), "JPEG", **options) for size in ((120, 90), (77, 123), (1, 1))]
    files.append(encoded(noise(120, 90, mode), "JPEG", exif=exif, **options))
    found = [image_files.decode_undamaged(data, upright) for data in files]
    assert found[-1].shape[:2] == ((120, 90) if upright else (90, 120))
    for pixels, data in zip(found, files, strict=True):
        np.testing.assert_array_equal(decode(data, upright), pixels)
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    for pixels, data in zip(found, files, strict=True):
        np.testing.assert_array_equal(decode(data, upright), pixels)


@needs("AFLW2000")
def test_simplejpeg_gives_the_pixels_of_opencv_on_real_photographs():
    simplejpeg = pytest.importorskip("simplejpeg")
    for file in sorted((REAL / "AFLW2000").glob("image*.jpg"))[::40]:
        np.testing.assert_array_equal(simplejpeg.decode_jpeg(file.read_bytes(), "BGR"), cv2.imread(str(file)))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 8}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_damage_inside_a_jpeg_that_decodes_is_found(mode, options):
    """As predict --images finds it: build --check-images decodes by the same function."""
    pytest.importorskip("simplejpeg")
    whole = encoded(noise(120, 90, mode), "JPEG", **options)
    middle = len(whole) // 2
    zeroed = whole[:middle] + bytes(400) + whole[middle + 400 :]
    hole = whole[:middle] + whole[middle + 600 :]
    closed = whole[: 3 * len(whole) // 4] + JPEG_END
    assert decode_fault(whole) is None
    for damaged in (zeroed, hole, closed):
        if decode(damaged) is not None:
            assert decode_fault(damaged).startswith("is a damaged JPEG")
    assert decode(hole) is not None
