import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

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
from ubhpd.manifest import store
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


FUZZ = """
import sys
sys.path.insert(0, sys.argv[4])
import fuzz_manifests
sys.exit(1 if fuzz_manifests.main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])) else 0)
"""


def fuzzed(tmp_path, first, count, seconds):
    """Read damaged copies of a pool in another process, which a crash or an endless loop ends."""
    manifest.write_parquet([heads(40)], tmp_path / "pool.parquet")
    manifest.write_hdf5(tmp_path / "pool.parquet", tmp_path / "pool.h5")
    split = Column("split", pa.string(), "", "", "train or test")
    table = heads(40).append_column("split", pa.array(["train", "test"] * 20))
    manifest.write_parquet([table], tmp_path / "ubhpd.parquet", (*COLUMNS, split))
    command = [sys.executable, "-c", FUZZ, str(tmp_path), str(first), str(count), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    faults = [line for line in done.stdout.splitlines() if line.startswith("FAULT")]
    assert (done.returncode, faults) == (0, []), (done.stdout.splitlines()[-1:], done.stderr[-2000:])


def test_damaged_manifests_give_their_rows_or_one_sentence(tmp_path):
    fuzzed(tmp_path, 0, 40, 600)


@pytest.mark.slow
def test_ten_thousand_damaged_manifests_give_their_rows_or_one_sentence(tmp_path):
    for first in range(0, 10_000, 500):
        fuzzed(tmp_path, first, 500, 3600)


def h5_with(tmp_path, change):
    manifest.write_parquet([heads(20)], tmp_path / "pool.parquet")
    manifest.write_hdf5(tmp_path / "pool.parquet", tmp_path / "pool.h5")
    with h5py.File(tmp_path / "pool.h5", "r+") as file:
        change(file, tmp_path)
    return tmp_path / "pool.h5"


def external_link(file, folder):
    del file["yaw_deg"]
    file["yaw_deg"] = h5py.ExternalLink("other.h5", "/yaw_deg")


def soft_link(file, folder):
    del file["yaw_deg"]
    file["yaw_deg"] = h5py.SoftLink("/pitch_deg")


def external_storage(file, folder):
    (folder / "secret").write_bytes(b"x" * 160)
    del file["yaw_deg"]
    file.create_dataset("yaw_deg", (20,), "<f8", external=[(str(folder / "secret"), 0, 160)])


def virtual(file, folder):
    del file["yaw_deg"]
    layout = h5py.VirtualLayout((20,), "<f8")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "yaw_deg", (20,))
    file.create_virtual_dataset("yaw_deg", layout)


def scalar(file, folder):
    file["more"] = 3.0


def many_rows(file, folder):
    for dataset in [d for g in (file, file["valid"]) for d in g.values() if isinstance(d, h5py.Dataset)]:
        dataset.resize(10**12, axis=0)


def another_type(file, folder):
    attributes = dict(file["yaw_deg"].attrs)
    del file["yaw_deg"]
    file.create_dataset("yaw_deg", data=np.zeros(20, "<i8"), chunks=True).attrs.update(attributes)


def no_column(file, folder):
    del file["yaw_deg"]


def texts_of_variable_length(file, folder):
    del file["sample_id"]
    file.create_dataset("sample_id", data=["a"] * 20, dtype=h5py.string_dtype(), chunks=True)


def no_schema(file, folder):
    del file.attrs["schema"]


def schema_of_variable_length(file, folder):
    file.attrs["schema"] = file.attrs["schema"].tobytes().decode()


def schema_cut(file, folder):
    file.attrs["schema"] = np.void(file.attrs["schema"].tobytes()[:-9])


H5_CHANGES = {
    texts_of_variable_length: "has texts of variable length",
    no_schema: "has no attribute 'schema'",
    schema_of_variable_length: "attribute 'schema' is not that of a manifest",
    schema_cut: "attribute 'schema' cannot be read",
    external_link: "is a link",
    soft_link: "is a link",
    external_storage: "is stored in another file",
    virtual: "is stored in another file",
    scalar: "is no column of a manifest",
    many_rows: "states more rows than it holds",
    another_type: "its column yaw_deg is of type int64, not double",
    no_column: "it has no column yaw_deg",
}


@pytest.mark.parametrize("change", H5_CHANGES, ids=lambda c: c.__name__)
def test_an_hdf5_manifest_shows_nothing_but_its_own_columns(tmp_path, change):
    path = h5_with(tmp_path, change)
    for ask in (manifest.header, manifest.read):
        with pytest.raises(UbhpdError, match=rf"pool\.h5 is not a readable .*{H5_CHANGES[change]}"):
            ask(path)


def rewritten(path, table):
    """Write a table as it is under the fingerprint of another, as somebody with another tool may do."""
    mark = manifest.header(path).fingerprint
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({b"ubhpd.fingerprint": mark.encode()})


def with_column(table, name, values, type_=None):
    place = table.schema.get_field_index(name)
    field = table.schema.field(place)
    return table.set_column(place, field.with_type(type_ or field.type), pa.array(values, type_ or field.type))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: with_column(t, "yaw_deg", [1.0] * 100), "fingerprint differs"),
        (lambda t: with_column(t, "dataset", [None] * 100), "dataset has 100 rows without a value"),
        (lambda t: with_column(t, "yaw_deg", ["1"] * 100, pa.string()), "yaw_deg is of type string, not double"),
        (lambda t: with_column(t, "rotation", [[1.0] * 8] * 100), "lists of other lengths than 9"),
        (lambda t: with_column(t, "rotation", [[None] * 9] * 100), "lists of other lengths than 9"),
        (lambda t: t.drop_columns(["drop_reason"]), "no column drop_reason"),
        (lambda t: t.append_column("yaw_deg", t.column("yaw_deg")), "a column is there twice"),
        (lambda t: t.append_column("x", pa.array([{"a": 1}] * 100)), "its column 'x' is of type struct"),
        (lambda t: t.slice(1), "fingerprint differs"),
    ],
)
def test_a_manifest_that_somebody_changed_is_refused(pool, change, sentence):
    rewritten(pool, change(manifest.read(pool)))
    with pytest.raises(UbhpdError, match=sentence):
        manifest.read(pool, ["sample_id", "yaw_deg", "rotation"])


def test_a_flipped_bit_is_found_where_only_some_columns_of_a_large_file_are_read(pool, monkeypatch):
    monkeypatch.setattr(store, "VERIFIED_BYTES", 0)
    whole = pool.read_bytes()
    chunk = pq.ParquetFile(pool).metadata.row_group(0)
    (column,) = [c for i in range(chunk.num_columns) if (c := chunk.column(i)).path_in_schema == "yaw_deg"]
    at = column.data_page_offset + column.total_compressed_size - 9
    pool.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(UbhpdError, match="not a readable"):
        manifest.read(pool, ["yaw_deg"])
    assert manifest.read(pool, ["pitch_deg"]).num_rows == 100


def test_a_pipe_is_no_manifest(tmp_path):
    os.mkfifo(tmp_path / "pool.parquet")
    with pytest.raises(UbhpdError, match="it is no regular file"):
        manifest.header(tmp_path / "pool.parquet")
