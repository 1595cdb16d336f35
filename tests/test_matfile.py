"""The reader of .mat files gives what scipy gives, and uses its fast path for files of the usual layout."""

import io

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from mat_data import (
    CLASSES,
    LIKE_300WLP,
    WANTED,
    assert_reads_like_scipy,
    mat_file,
    matrix,
    outcome,
    packed,
    same,
    saved,
    variables_like_300wlp,
)
from numpy.testing import assert_array_equal
from realdata import REAL, needs

from ubhpd.raw.label_files import MatReader


@pytest.fixture
def fast_path_only(monkeypatch):
    """Fail a test that leaves the fast path."""

    def refuse(self, data):
        raise AssertionError("left the fast path")

    monkeypatch.setattr(MatReader, "_read_slowly", refuse)


@needs("AFLW2000")
@pytest.mark.parametrize("names", [WANTED, ("Pose_Para",), ("roi", "Exp_Para", "Color_Para", "pt3d_68", "Tex_Para")])
def test_every_real_aflw2000_file_reads_like_scipy(names):
    reader = MatReader(names)
    shapes, kinds = set(), set()
    for file in sorted((REAL / "AFLW2000").glob("image*.mat")):
        data = file.read_bytes()
        assert_reads_like_scipy(data, names, reader)
        raw = scipy.io.loadmat(io.BytesIO(data))
        shapes.add(raw["pt2d"].shape)
        kinds |= {("pt2d", raw["pt2d"].dtype.kind), ("Pose_Para", raw["Pose_Para"].dtype.itemsize)}
    assert shapes == {(2, 21), (2, 23)}
    assert kinds >= {("pt2d", "f"), ("pt2d", "i"), ("Pose_Para", 4), ("Pose_Para", 8)}  # some copies add "u"


@needs("300W_LP")
def test_every_real_300wlp_file_reads_like_scipy():
    reader = MatReader(WANTED)
    files = sorted((REAL / "300W_LP").rglob("*.mat"))
    assert files
    for file in files:
        assert_reads_like_scipy(file.read_bytes(), WANTED, reader)


@needs("AFLW2000")
def test_every_real_file_takes_the_fast_path(fast_path_only):
    reader = MatReader(WANTED)
    for file in [*(REAL / "AFLW2000").glob("image*.mat"), *(REAL / "300W_LP").rglob("*.mat")]:
        assert len(reader.read(file.read_bytes())) == 3


def test_a_normal_file_takes_the_fast_path(fast_path_only):
    reader = MatReader(WANTED)
    for seed in range(3):
        expected = variables_like_300wlp(seed)
        for name, found in zip(WANTED, reader.read(saved(expected)), strict=True):
            assert_array_equal(found, expected[name].astype(np.float64))


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("dtype", [*CLASSES, "i8", "u8"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 21), (3, 68), (1, 3), (5, 5)])
def test_savemat_files_of_every_number_type_read_like_scipy(compressed, dtype, shape):
    rng = np.random.default_rng(3)
    values = {
        name: rng.uniform(0, 100, shape).astype(dtype) for name in ("a", "abcd", "abcde", "abcdefgh", "long_name_9")
    }
    data = saved(values, compressed)
    assert_reads_like_scipy(data, tuple(values))
    assert_reads_like_scipy(data, tuple(reversed(values)))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("wrap", [lambda element, order: element, packed])
@pytest.mark.parametrize("dtype", CLASSES)
def test_both_byte_orders_read_like_scipy(order, wrap, dtype):
    values = np.arange(14).reshape(2, 7).astype(dtype)
    data = mat_file(*(wrap(matrix(n, values, order), order) for n in WANTED), order=order)
    assert_reads_like_scipy(data)
    assert_array_equal(MatReader(WANTED).read(data)[1], values)


@pytest.mark.parametrize("stored", ["u1", "i2", "u2", "i4"])
def test_numbers_stored_smaller_than_their_class_take_the_fast_path(stored, fast_path_only):
    values = np.arange(14.0).reshape(2, 7)
    data = mat_file(*(packed(matrix(n, values, stored=stored)) for n in WANTED))
    for found in MatReader(WANTED).read(data):
        assert_array_equal(found, values)


def test_nan_and_infinity_are_read_as_they_are():
    values = np.array([[np.nan, np.inf, -np.inf, -0.0]])
    (found,) = MatReader(["a"]).read(saved({"a": values}))
    assert found.tobytes() == values.tobytes()


def test_reordered_variables_are_found_again_by_the_same_reader(fast_path_only):
    variables = variables_like_300wlp()
    reader = MatReader(WANTED)
    rng = np.random.default_rng(4)
    for _ in range(30):
        names = rng.permutation(list(variables))
        data = saved({str(n): variables[n] for n in names})
        for name, found in zip(WANTED, reader.read(data), strict=True):
            assert_array_equal(found, variables[name])


def test_a_reader_remembers_only_positions():
    # Whatever was read before, the same bytes give the same answer.
    normal = variables_like_300wlp()
    noise = np.random.default_rng(0).normal(size=(1000, 600))  # inflates to more than a label file holds
    shapes = [
        saved({k: normal[k] for k in reversed(normal)}),
        saved({k: noise if k == "pt2d" else v for k, v in normal.items()}),
        saved({**{k: v for k, v in normal.items() if k != "Pose_Para"}, "Other": noise, "Pose_Para": normal["roi"]}),
        saved({"Pose_Para": normal["Pose_Para"], "pt2d": normal["pt2d"]}),
        mat_file(*(packed(matrix(k, v)) for k, v in [*normal.items(), *normal.items()])),
        mat_file(*(packed(matrix(k, v)) for k, v in normal.items())),
        saved({**{k: v for k, v in normal.items() if k != "Exp_Para"}, "Other": noise}),
        LIKE_300WLP[:-10],
        LIKE_300WLP,
    ]
    for first in shapes:
        for second in shapes:
            reader = MatReader(WANTED)
            outcome(reader, first)
            assert same(outcome(reader, second), outcome(MatReader(WANTED), second))


@given(st.permutations(WANTED), st.integers(1, 3), st.integers(1, 9), st.sampled_from([*CLASSES]), st.booleans())
@settings(deadline=None, max_examples=60)
def test_any_plain_file_reads_like_scipy(names, rows, columns, dtype, compressed):
    values = np.random.default_rng(rows).uniform(0, 100, (rows, columns)).astype(dtype)
    assert_reads_like_scipy(saved(dict.fromkeys(names, values), compressed))
