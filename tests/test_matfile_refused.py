"""Files that are no label files of MATLAB, damaged or hostile: refused, or read as scipy reads them."""

import io
import signal
import struct
import time
import zlib
from contextlib import contextmanager

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from mat_data import (
    GLOBAL,
    LIKE_300WLP,
    LOGICAL,
    WANTED,
    assert_reads_like_scipy,
    mat_file,
    matrix,
    outcome,
    packed,
    same,
    saved,
    scipy_values,
    variables_like_300wlp,
)
from realdata import REAL

from ubhpd.raw.label_files import MatError, MatReader


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"x": np.eye(2)}, "not a real matrix"),
        (np.array([[np.eye(2), "a"]], dtype=object), "not a real matrix"),
        ("some text", "not a real matrix"),
        (np.array([[1 + 2j, 3.0]]), "not a real matrix"),
        (np.array([[True, False]]), "not a real matrix"),
        (np.zeros((2, 3, 4)), "not a real matrix"),
        (scipy.sparse.eye(3).tocsc(), "not a real matrix"),
    ],
    ids=["struct", "cell", "char", "complex", "logical", "three dimensions", "sparse"],
)
def test_a_variable_that_is_not_a_real_matrix_is_refused(value, reason, compressed):
    with pytest.raises(MatError, match=f"roi is {reason}"):
        MatReader(WANTED).read(saved({"Pose_Para": np.eye(3), "pt2d": np.eye(2), "roi": value}, compressed))


def test_a_logical_matrix_written_by_matlab_is_refused():
    elements = [packed(matrix(n, np.ones((1, 4), np.uint8), flags=LOGICAL)) for n in WANTED]
    with pytest.raises(MatError, match="not a real matrix"):
        MatReader(WANTED).read(mat_file(*elements))


def test_a_global_matrix_reads_like_scipy():
    assert_reads_like_scipy(mat_file(*(packed(matrix(n, np.ones((1, 4)), flags=GLOBAL)) for n in WANTED)))


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("absent", WANTED)
def test_a_missing_variable_is_named(absent, compressed):
    variables = {k: v for k, v in variables_like_300wlp().items() if k != absent}
    with pytest.raises(MatError, match=f"no variable {absent}"):
        MatReader(WANTED).read(saved(variables, compressed))


@pytest.mark.parametrize("wrap", [lambda element: element, packed])
def test_a_name_with_the_requested_name_as_prefix_is_another_variable(wrap):
    elements = [wrap(matrix(n, np.eye(2))) for n in ("Pose_Para2", "pt2d_", "roi")]
    with pytest.raises(MatError, match="no variable"):
        MatReader(WANTED).read(mat_file(*elements))


@pytest.mark.parametrize("wrap", [lambda element: element, packed])
@pytest.mark.parametrize("at", [0, 1, 8])
def test_a_variable_that_is_stored_twice_is_refused(wrap, at):
    elements = [wrap(matrix(k, v)) for k, v in variables_like_300wlp().items()]
    elements.insert(at, wrap(matrix("Pose_Para", np.zeros((1, 7)))))
    warm = MatReader(WANTED)
    warm.read(LIKE_300WLP)
    for reader in (MatReader(WANTED), warm):
        with pytest.raises(MatError, match="Pose_Para twice"):
            reader.read(mat_file(*elements))


@pytest.mark.parametrize("name", WANTED)
@pytest.mark.parametrize("shape", [(1, 7), (2, 68), (3, 3)])
def test_a_second_variable_of_a_name_in_place_of_another_is_refused(name, shape):
    """The number of variables is as usual: the answer does not depend on the file that was read before."""
    variables = variables_like_300wlp()
    for at, other in enumerate(variables):
        if other in WANTED:
            continue
        elements = [packed(matrix(k, v)) for k, v in variables.items()]
        elements[at] = packed(matrix(name, np.ones(shape)))
        warm = MatReader(WANTED)
        warm.read(LIKE_300WLP)
        for reader in (MatReader(WANTED), warm):
            with pytest.raises(MatError, match=f"{name} twice"):
                reader.read(mat_file(*elements))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>quota exceeded</html>", "web page"),
        (b"\r\n <html>" + b"x" * 500, "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not a MATLAB v5 file"),
        (bytes(4096), "not a MATLAB v5 file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(600), "not a MATLAB v5 file"),
        (b"PK\x03\x04" + b"\x14" * 300, "not a MATLAB v5 file"),
        (LIKE_300WLP[:100], "not a MATLAB v5 file"),
        (LIKE_300WLP[:128], "no variable"),
        (LIKE_300WLP[:131], "truncated"),
        (LIKE_300WLP[:1000], "truncated"),
        (LIKE_300WLP[:-1], "truncated"),
        (LIKE_300WLP + b"\n", "truncated"),
    ],
    ids=str.split("empty page page_after_space pointer zeros hdf5 zip header_cut bare tag_cut cut one_less one_more"),
)
def test_a_file_that_is_not_a_complete_mat_file_is_identified(data, reason):
    warm = MatReader(WANTED)
    warm.read(LIKE_300WLP)
    for reader in (MatReader(WANTED), warm):
        with pytest.raises(MatError, match=reason):
            reader.read(data)


@pytest.mark.parametrize("change", [lambda c: c[:-4], lambda c: c[:-1], lambda c: c[:-4] + b"1234"])
@pytest.mark.parametrize("name", WANTED)
@pytest.mark.parametrize("side", [2, 50])
def test_a_compressed_variable_without_its_checksum_is_refused(name, change, side):
    elements = []
    for key in WANTED:
        content = zlib.compress(matrix(key, np.random.default_rng(7).normal(size=(side, side))))
        content = change(content) if key == name else content
        elements.append(struct.pack("<II", 15, len(content)) + content)
    with pytest.raises(MatError, match="damaged"):
        MatReader(WANTED).read(mat_file(*elements))


def test_a_version_4_file_is_refused():
    out = io.BytesIO()
    scipy.io.savemat(out, {name: np.eye(2) for name in WANTED}, format="4")
    with pytest.raises(MatError, match="not a MATLAB v5 file"):
        MatReader(WANTED).read(out.getvalue())


def test_a_version_4_file_that_makes_scipy_loop_is_refused_immediately():
    circle = struct.pack("<5i4s", 0, 1, -3, 0, 4, b"abc\0") + bytes(200)
    with deadline(5):
        for data in (circle, circle[:124] + b"\x00\x01IM" + circle):
            with pytest.raises(MatError):
                MatReader(WANTED).read(data)


@pytest.mark.parametrize("size", [5 << 20, 200 << 20])
def test_a_bomb_is_refused_quickly(size):
    squeezer = zlib.compressobj(9)
    content = squeezer.compress(matrix("Pose_Para", np.zeros((1, 7)))[:56])
    content += b"".join(squeezer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + squeezer.flush()
    bomb = struct.pack("<II", 15, len(content)) + content
    others = [packed(matrix(n, np.eye(2))) for n in ("pt2d", "roi")]
    start = time.perf_counter()
    for elements in ([*others, bomb], [bomb, *others]):
        with pytest.raises(MatError, match="far more than a label file holds"):
            MatReader(WANTED).read(mat_file(*elements))
    assert time.perf_counter() - start < 30


# Mutations.


@contextmanager
def deadline(seconds):
    def ring(signum, frame):
        raise AssertionError(f"still running after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def length_fields(data):
    """Return where the tags of the file lie, and in an uncompressed file those inside its elements."""
    places, position = [], 128
    while position + 8 <= len(data):
        places += [position, position + 4]
        kind, length = struct.unpack_from("<II", data, position)
        if kind == 14:
            places += [position + n for n in (8, 12, 16, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60)]
        position += 8 + length
    return places


def mutated(data, rng):
    out = bytearray(data)
    kind = rng.integers(0, 8)
    at, length = int(rng.integers(0, len(out))), int(rng.integers(1, 40))
    if kind == 0:
        out[at] ^= 1 << int(rng.integers(0, 8))
    elif kind == 1:
        for position in rng.integers(0, len(out), length):
            out[position] = rng.integers(0, 256)
    elif kind == 2:
        del out[at:]
    elif kind == 3:
        out[at:at] = rng.bytes(length)
    elif kind == 4:
        del out[at : at + length]
    elif kind == 5:  # two blocks change places
        other = int(rng.integers(0, len(out)))
        out[at : at + length], out[other : other + length] = out[other : other + length], out[at : at + length]
    elif kind == 6:
        place = int(rng.choice(length_fields(data)))
        edit = rng.choice([0, 1, 4, 8, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, int(rng.integers(0, 4000))])
        old = struct.unpack_from("<I", out, place)[0]
        new = int(edit) if rng.integers(0, 2) else (old + int(rng.integers(-9, 10))) & 0xFFFFFFFF
        struct.pack_into("<I", out, place, new)
    else:  # the 128 bytes of the header, which no checksum guards
        out[int(rng.integers(0, 4)) if rng.integers(0, 2) else int(rng.integers(116, 128))] = rng.integers(0, 256)
    return bytes(out)


def elements_of(data):
    order = "<" if data[126:128] == b"IM" else ">"
    elements, position = [], 128
    while position < len(data):
        length = struct.unpack_from(order + "I", data, position + 4)[0]
        elements.append(data[position : position + 8 + length])
        position += 8 + length
    return elements


def holds_wanted(element):
    try:
        head = zlib.decompressobj().decompress(element[8:], 100)
    except zlib.error:
        head = element
    return any(name.encode() in head[:100] for name in WANTED)


def whole_elements_moved(data, rng):
    """Return the file with its elements in another order, some dropped or some there twice."""
    elements = elements_of(data)
    order = list(rng.permutation(len(elements)))
    if rng.integers(0, 2):
        order += list(rng.integers(0, len(elements), rng.integers(1, 4)))
    else:
        del order[: rng.integers(0, 5)]
    return data[:128] + b"".join(elements[i] for i in order)


ORIGINALS = {
    "generated": LIKE_300WLP,
    "uncompressed": saved(variables_like_300wlp(), compressed=False),
    "big-endian": mat_file(*(packed(matrix(*v, ">"), ">") for v in variables_like_300wlp().items()), order=">"),
}
for real in ("AFLW2000/image00002.mat", "300W_LP/AFW/AFW_134212_1_3.mat"):
    if (REAL / real).exists():
        ORIGINALS[real] = (REAL / real).read_bytes()


@pytest.mark.parametrize("data", ORIGINALS.values(), ids=ORIGINALS.keys())
def test_a_mutated_file_is_refused_or_reads_like_scipy(data):
    rng = np.random.default_rng(2024)
    warm = MatReader(WANTED)
    warm.read(data)
    read = refused = 0
    with deadline(60):
        for trial in range(4000):
            change = whole_elements_moved if trial % 10 == 0 else mutated
            damaged = change(data, rng)
            found = outcome(MatReader(WANTED), damaged)
            assert same(outcome(warm, damaged), found), trial
            warm.read(data)
            if found is None:
                refused += 1
                continue
            read += 1
            try:
                expected = scipy_values(damaged)
            except Exception:  # over a variable that nobody asked for
                expected = scipy_values(damaged[:128] + b"".join(e for e in elements_of(damaged) if holds_wanted(e)))
            assert same(found, expected), trial
    assert read > 50
    assert refused > 500


@given(st.binary(max_size=400), st.sampled_from([b"", LIKE_300WLP[:128], LIKE_300WLP[:136], LIKE_300WLP[:300]]))
@settings(deadline=None, max_examples=200)
def test_random_bytes_are_refused(rest, start):
    with pytest.raises(MatError):
        MatReader(WANTED).read(start + rest)
