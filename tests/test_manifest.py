import json
from itertools import pairwise

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing
from ubhpd.core.records import Record
from ubhpd.manifest.schema import COLUMNS, SCHEMA_VERSION, Column, fingerprint, regrouped, schema, table_from_records


def heads(count, seed=0, dataset="300wlp"):
    """Records in which every column is empty in some rows and filled in others."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(count):
        is_full = i % 3 != 0
        records.append(
            Record(
                f"{dataset}/AFW/é {i:05d}",
                f"AFW/é {i}.jpg",
                450 + i,
                451 + i,
                *rng.normal(0, 30, 3).tolist(),
                rng.normal(size=9),
                raw_angles=tuple(rng.normal(size=3)) if is_full else None,
                raw_convention="300wlp" if is_full else None,
                subject_id="a" if is_full else None,
                sequence_id="s" if i % 2 else None,
                frame_index=i if is_full else None,
                bbox_xyxy=[1.5, -2.0, 30.0, 40.0] if is_full else None,
                bbox_kind="x" if is_full else None,
                landmarks68=rng.normal(size=136) if i % 2 else None,
                landmarks21=np.where(rng.random(42) < 0.3, np.nan, 1.25) if i % 4 else None,
                landmarks_kind="y" if i % 2 else None,
                synthetic=bool(i % 2),
                flip_of="z" if i % 7 == 0 else None,
                source_photo="p" if is_full else None,
                drop_reason="bad_label" if i % 11 == 0 else None,
                drop_detail="why" if i % 11 == 0 else None,
            )
        )
    return table_from_records(dataset, records)


@pytest.fixture
def pool(tmp_path):
    manifest.write_parquet([heads(100)], tmp_path / "pool.parquet")
    return tmp_path / "pool.parquet"


def equal(first, second):
    """Arrow's own equality calls NaN unlike NaN: compare what is stored."""
    return first.schema.names == second.schema.names and fingerprint([first]) == fingerprint([second])


def test_parquet_gives_back_what_was_written(pool):
    found = manifest.read(pool)
    assert equal(found, heads(100))
    assert found.column("subject_id").equals(heads(100).column("subject_id"))
    assert found.schema.types == schema().types


def test_hdf5_gives_back_what_parquet_holds(pool, tmp_path):
    manifest.write_hdf5(pool, tmp_path / "pool.h5")
    found = manifest.read(tmp_path / "pool.h5")
    assert equal(found, manifest.read(pool))
    assert found.schema.types == schema().types
    assert manifest.header(tmp_path / "pool.h5").fingerprint == manifest.header(pool).fingerprint
    for name in ("sample_id", "frame_index", "synthetic", "drop_reason", "raw_angles"):
        assert found.column(name).to_pylist() == manifest.read(pool).column(name).to_pylist()


def test_hdf5_is_readable_without_this_package(pool, tmp_path):
    manifest.write_hdf5(pool, tmp_path / "pool.h5")
    with h5py.File(tmp_path / "pool.h5") as file:
        assert file["sample_id"].asstr()[1] == "300wlp/AFW/é 00001"
        assert file["rotation"].shape == (100, 9)
        assert np.isnan(file["bbox_xyxy"][0]).all() and not file["valid/bbox_xyxy"][0]
        assert file["yaw_deg"].attrs["unit"] == "deg"
        assert file["rotation"].chunks[0] > 1


def test_same_rows_same_bytes_whatever_the_cut(tmp_path):
    table = heads(300)
    one = manifest.write_parquet([table], tmp_path / "a.parquet")
    two = manifest.write_parquet([table.slice(0, 7), table.slice(7, 0), table.slice(7)], tmp_path / "b.parquet")
    assert one == two
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    manifest.write_hdf5(tmp_path / "a.parquet", tmp_path / "a.h5")
    manifest.write_hdf5(tmp_path / "b.parquet", tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@given(cuts=st.lists(st.integers(0, 60), max_size=5), size=st.integers(1, 70))
def test_regrouping_keeps_rows_and_their_order(cuts, size):
    table = pa.table({"x": list(range(60))})
    places = [0, *sorted(cuts), 60]
    pieces = [table.slice(a, b - a) for a, b in pairwise(places)]
    groups = list(regrouped(pieces, size))
    assert pa.concat_tables(groups).equals(table)
    assert all(g.num_rows == size for g in groups[:-1])


@pytest.mark.parametrize("column", [c.name for c in COLUMNS])
def test_fingerprint_sees_a_change_in_any_column(column):
    table = pa.concat_tables([heads(1, dataset="biwi"), heads(39)])
    before = fingerprint([table])
    place = table.schema.get_field_index(column)
    changed = table.column(place).combine_chunks().take(pa.array([1, 2, *range(2, 40)]))
    assert fingerprint([table.set_column(place, table.schema.field(place), changed)]) != before


def test_fingerprint_tells_empty_from_absent_and_where_a_text_ends():
    def of(*ids):
        return fingerprint([table_from_records("x", [Record(i, None, 1, 1, 0.0, 0.0, 0.0, np.eye(3)) for i in ids])])

    assert of("") != of(None)
    assert of("ab", "c") != of("a", "bc")


def test_schema_names_unit_frame_and_meaning_of_every_column(pool):
    for field in pq.read_schema(pool):
        assert set(field.metadata) - {b"length"} == {b"unit", b"frame", b"meaning"}
        assert (b"length" in field.metadata) == (str(field.type) == "list<element: double>")
        assert field.metadata[b"meaning"]
    metadata = pq.read_metadata(pool).metadata
    assert metadata[b"ubhpd.schema_version"] == str(SCHEMA_VERSION).encode()
    assert len(metadata[b"ubhpd.fingerprint"]) == 64


def test_a_manifest_may_have_further_columns(tmp_path):
    more = (*COLUMNS, Column("split", pa.string(), "", "", "train or test"))
    table = heads(5).append_column("split", pa.array(["train"] * 5))
    manifest.write_parquet([table], tmp_path / "x.parquet", more)
    manifest.write_hdf5(tmp_path / "x.parquet", tmp_path / "x.h5")
    for name in ("x.parquet", "x.h5"):
        assert manifest.read(tmp_path / name, ["split", "sample_id"]).column("split").to_pylist() == ["train"] * 5


def test_only_the_wanted_columns_are_read_in_the_wanted_order(pool, tmp_path):
    manifest.write_hdf5(pool, tmp_path / "pool.h5")
    for path in (pool, tmp_path / "pool.h5"):
        assert manifest.read(path, ["yaw_deg", "sample_id"]).schema.names == ["yaw_deg", "sample_id"]


def test_an_empty_pool_is_a_pool(tmp_path):
    manifest.write_parquet([table_from_records("x", [])], tmp_path / "e.parquet")
    manifest.write_hdf5(tmp_path / "e.parquet", tmp_path / "e.h5")
    for name in ("e.parquet", "e.h5"):
        assert manifest.read(tmp_path / name).num_rows == 0


def test_unknown_column_missing_file_and_foreign_files_are_told_apart(pool, tmp_path):
    with pytest.raises(UbhpdError, match="no column 'yaw'"):
        manifest.read(pool, ["yaw"])
    with pytest.raises(UbhpdError, match="Cannot open"):
        manifest.read(tmp_path / "none.parquet")
    with pytest.raises(UbhpdError, match="Cannot open"):
        manifest.read(tmp_path)
    foreign = {
        "text.parquet": b"sample_id,yaw\n",
        "empty.parquet": b"",
        "cut.parquet": pool.read_bytes()[:-100],
        "cut.h5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    }
    for name, data in foreign.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UbhpdError, match="not a readable"):
            manifest.read(tmp_path / name)
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(UbhpdError, match="not a manifest"):
        manifest.read(tmp_path / "other.parquet")


def test_another_schema_version_is_refused(tmp_path):
    other = heads(3).replace_schema_metadata({b"ubhpd.schema_version": b"99", b"ubhpd.fingerprint": b"0"})
    pq.write_table(other, tmp_path / "new.parquet")
    with pytest.raises(UbhpdError, match=f"schema 99, this ubhpd reads {SCHEMA_VERSION}"):
        manifest.read(tmp_path / "new.parquet")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(pool, tmp_path):
    before = pool.read_bytes()

    def broken():
        yield heads(10)
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        manifest.write_parquet(broken(), pool)
    assert pool.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["pool.parquet"]


def test_replacing_puts_the_file_in_place_only_at_the_end(tmp_path):
    with replacing(tmp_path / "deep" / "x.txt") as part:
        part.write_text("whole")
        assert not (tmp_path / "deep" / "x.txt").exists()
    assert (tmp_path / "deep" / "x.txt").read_text() == "whole"


def folder(tmp_path, *names, record=None):
    for name in names:
        (tmp_path / name).touch()
    if record is not None:
        (tmp_path / "build.json").write_text(record if isinstance(record, str) else json.dumps(record))
    return manifest.BuildFolder.at(tmp_path)


@pytest.mark.parametrize(
    ("names", "first", "read"),
    [
        (("pool.parquet", "ubhpd.parquet"), manifest.UBHPD, "ubhpd.parquet"),
        (("pool.parquet", "ubhpd.parquet"), manifest.POOL, "pool.parquet"),
        (("pool.parquet",), manifest.UBHPD, "pool.parquet"),
        (("ubhpd.h5",), manifest.POOL, "ubhpd.h5"),
        (("ubhpd.h5", "ubhpd.parquet"), manifest.UBHPD, "ubhpd.parquet"),
        (("ubhpd.h5", "pool.parquet"), manifest.UBHPD, "ubhpd.h5"),
    ],
)
def test_a_folder_stands_for_ubhpd_else_for_its_pool(tmp_path, names, first, read):
    assert folder(tmp_path, *names).manifest(first) == tmp_path / read


def test_a_named_manifest_is_read_and_its_folder_has_the_record(tmp_path):
    build = manifest.BuildFolder.at(folder(tmp_path, "mine.parquet", "pool.parquet", record={}).folder / "mine.parquet")
    assert build.manifest() == build.pool() == tmp_path / "mine.parquet"
    assert build.folder == tmp_path and build.has_record


def test_a_folder_without_what_is_needed_is_one_sentence(tmp_path):
    build = folder(tmp_path)
    for ask, sentence in (
        (build.manifest, "holds no ubhpd.parquet or pool.parquet: name the folder"),
        (build.pool, "holds no pool.parquet"),
        (lambda: build.require(manifest.UBHPD, "Protocol x"), "^Protocol x needs ubhpd.parquet, which is not in"),
        (build.check, "is no folder of a build"),
        (lambda: build.record, "Cannot open .*build.json"),
    ):
        with pytest.raises(UbhpdError, match=sentence):
            ask()


@pytest.mark.parametrize(
    "record",
    [
        "{",
        "[]",
        "[" * 100_000,
        '{"datasets": 3}',
        '{"datasets": {"a": {"roots": []}}}',
        '{"datasets": {"a": {"roots": [["x"]]}}}',
        '{"datasets": {"a": {"roots": [["x", 3]]}}}',
        '{"datasets": {"a": {"roots": [["x\\u0000", ""]]}}}',
        "\ud800",
    ],
)
def test_a_damaged_record_is_one_sentence(tmp_path, record):
    (tmp_path / "build.json").write_bytes(record.encode("utf-8", "surrogatepass"))
    with pytest.raises(UbhpdError, match=r"build\.json"):
        _ = manifest.BuildFolder.at(tmp_path).roots


def test_the_record_says_where_each_dataset_was_read(tmp_path):
    build = folder(tmp_path, record={"datasets": {"a": {"roots": [["/data/a.zip", "in/it"], ["/data/b", ""]]}}})
    assert build.roots == {"a": (("/data/a.zip", "in/it"), ("/data/b", ""))}
    assert build.target() is None and build.spool == tmp_path / "work" / "spool"


def test_readmitted_heads_have_no_reason_any_more():
    rows = manifest.readmitted(heads(30))
    assert rows.column("drop_reason").null_count == rows.column("drop_detail").null_count == 30
    assert rows.schema == heads(30).schema
