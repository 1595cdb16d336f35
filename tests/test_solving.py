"""What a geometric method sees of a manifest."""

import numpy as np
import pyarrow as pa
import pytest
from score_data import write_manifest

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import matrix_from_euler
from ubhpd.manifest.schema import lists
from ubhpd.models.geometric_model import COLUMNS, heads_of, own_landmarks

TRUE = np.array([[10.0, 20.0, 30.0], [-10.0, 0.0, 5.0]])


def test_heads_are_the_rows_of_a_manifest(tmp_path):
    table = manifest.read(write_manifest(tmp_path / "m.parquet", TRUE), COLUMNS)
    points = np.arange(2 * 136, dtype=float).reshape(2, 136)
    table = table.set_column(
        table.column_names.index("landmarks68"), "landmarks68", lists(points, np.array([True, False]))
    )
    heads = heads_of(table)
    assert heads.sample_id == ["set/00000", "set/00001"]
    np.testing.assert_array_equal(heads.angles_deg, TRUE)
    np.testing.assert_allclose(heads.rotation, matrix_from_euler(TRUE))
    np.testing.assert_array_equal(heads.landmarks68[0, :2], [[0, 1], [2, 3]])
    assert heads.landmarks68.shape == (2, 68, 2) and np.isnan(heads.landmarks68[1]).all()
    np.testing.assert_array_equal(heads.image_size, [[64, 64]] * 2)


def test_what_is_not_in_the_table_is_not_known():
    heads = heads_of(pa.table({"sample_id": ["a"], "yaw_deg": [1.0]}))
    assert heads.angles_deg is None and heads.rotation is None
    assert heads.landmarks68.shape == (1, 68, 2) and heads.image_size.shape == (1, 2)
    assert np.isnan(heads.landmarks68).all() and np.isnan(heads.image_size).all()
    with pytest.raises(UbhpdError, match="no column sample_id"):
        heads_of(pa.table({"x": [1]}))


def test_landmarks_of_the_photo_behind_a_warped_image_are_not_known():
    table = pa.table({"landmarks68": [[1.0] * 136] * 3, "landmarks_kind": ["ibug68", "ibug68_of_source_photo", None]})
    assert np.isnan(own_landmarks(table)).all(axis=(1, 2)).tolist() == [False, True, False]
