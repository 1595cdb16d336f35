"""MATLAB files for tests: written by scipy and by a writer of our own, and what scipy reads in them."""

import io
import struct
import warnings
import zlib

import numpy as np
import scipy.io
from numpy.testing import assert_array_equal

from ubhpd.raw.label_files import MatError, MatReader

WANTED = ("Pose_Para", "pt2d", "roi")
CLASSES = {"f8": 6, "f4": 7, "i1": 8, "u1": 9, "i2": 10, "u2": 11, "i4": 12, "u4": 13}
STORED = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 9}
LOGICAL, GLOBAL = 2, 4


def scipy_values(data, names=WANTED):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        variables = scipy.io.loadmat(io.BytesIO(data), variable_names=names)
    return [variables[name].astype(np.float64) for name in names]


def assert_reads_like_scipy(data, names=WANTED, reader=None):
    found = (reader or MatReader(names)).read(data)
    for ours, theirs in zip(found, scipy_values(data, names), strict=True):
        assert ours.dtype == np.float64
        assert_array_equal(ours, theirs)


# A writer of our own, for the files that scipy.io.savemat does not write.


def matrix(name, values, order="<", flags=0, mx_class=None, stored=None):
    values = np.atleast_2d(values)
    stored = stored or values.dtype.str[1:]
    numbers = values.astype(order + stored).tobytes(order="F")

    def element(kind, content):
        return struct.pack(order + "II", kind, len(content)) + content + bytes(-len(content) % 8)

    label = name.encode()
    body = element(6, struct.pack(order + "II", (mx_class or CLASSES[values.dtype.str[1:]]) | flags << 8, 0))
    body += element(5, struct.pack(order + "ii", *values.shape))
    if len(label) <= 4:
        body += struct.pack(order + "I", len(label) << 16 | 1) + label + bytes(4 - len(label))
    else:
        body += element(1, label)
    body += element(STORED[stored], numbers)
    return struct.pack(order + "II", 14, len(body)) + body


def packed(element, order="<"):
    content = zlib.compress(element)
    return struct.pack(order + "II", 15, len(content)) + content


def mat_file(*elements, order="<"):
    version = struct.pack(order + "H", 0x0100) + (b"IM" if order == "<" else b"MI")
    return b"MATLAB 5.0 MAT-file, made by a test".ljust(116) + bytes(8) + version + b"".join(elements)


def variables_like_300wlp(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "pt2d": rng.uniform(0, 450, (2, 68)),
        "roi": rng.integers(-50, 450, (1, 4), dtype=np.int16),
        "Illum_Para": rng.normal(size=(1, 10)),
        "Color_Para": rng.normal(size=(1, 7)).astype(np.float32),
        "Tex_Para": rng.normal(size=(199, 1)),
        "Shape_Para": rng.normal(size=(199, 1)),
        "Exp_Para": rng.normal(size=(29, 1)),
        "Pose_Para": rng.normal(size=(1, 7)).astype(np.float32),
    }


def saved(variables, compressed=True):
    out = io.BytesIO()
    scipy.io.savemat(out, variables, do_compression=compressed)
    return out.getvalue()


LIKE_300WLP = saved(variables_like_300wlp())


def outcome(reader, data):
    try:
        return reader.read(data)
    except MatError as error:
        assert str(error)
        assert "\n" not in str(error)
        return None


def same(first, second):
    if first is None or second is None:
        return first is second
    return all(a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))
