"""validate holds a pool, or raw data, against what was published."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ubhpd import cli, manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.core.parallel import Engine
from ubhpd.core.progress import Progress
from ubhpd.core.records import Drop, Record
from ubhpd.pool import parts, sources
from ubhpd.pool.build import BuildConfig, build
from ubhpd.pool.summary import validate_pool, validate_raw
from ubhpd.synth.writers import aflw2000_writer, biwi_writer


def as_published(name):
    """As many heads as were published, under the published prefixes."""
    return [
        Record(f"{prefix}{i:06d}", "x.jpg", 9, 9, 0.0, 0.0, 0.0, np.eye(3).ravel())
        for prefix, count in sources.builders()[name].PUBLISHED.items()
        for i in range(count)
    ]


@pytest.fixture
def pool_of(tmp_path):
    """Write a pool of what a builder would yield; gives its folder."""

    def write(name, items):
        manifest.write_parquet([parts.collect(name, items)[0]], tmp_path / "pool.parquet")
        return tmp_path

    return write


def kinds(findings):
    return {(f.kind, f.heads) for f in findings}


def test_biwi_as_published_has_no_findings(pool_of):
    assert validate_pool(pool_of("biwi", as_published("biwi"))) == []


def test_a_missing_head_and_a_missing_recording_are_counted(pool_of):
    heads = [h for h in as_published("biwi") if not h.sample_id.startswith("biwi/07/")][1:]
    assert kinds(validate_pool(pool_of("biwi", heads))) == {("count", 1), ("absent", 745)}


def test_a_refused_head_is_a_finding_with_its_file(pool_of):
    heads = as_published("biwi")
    heads[5] = Drop(heads[5].sample_id, "bad_label", "01/frame_00005_pose.txt: 3 numbers")
    found = validate_pool(pool_of("biwi", heads))
    assert kinds(found) == {("bad_label", 1), ("count", 1)}
    assert "01/frame_00005_pose.txt" in found[0].text


def test_the_published_out_of_range_list_is_checked(pool_of):
    names = sorted(sources.builders()["aflw2000"].OUT_OF_RANGE)
    beyond = [Record(n, "x.jpg", 9, 9, 0.0, 120.0, 0.0, np.eye(3).ravel()) for n in names]
    plain = [
        Record(f"aflw2000/image{i:05d}", "x.jpg", 9, 9, 1.0, 2.0, 3.0, np.eye(3).ravel()) for i in range(9000, 10969)
    ]
    assert validate_pool(pool_of("aflw2000", plain + beyond)) == []
    beyond[0] = beyond[0]._replace(pitch_deg=9.0)
    plain[0] = plain[0]._replace(yaw_deg=-99.5)
    found = validate_pool(pool_of("aflw2000", plain + beyond))
    assert kinds(found) == {("out_of_range", 1)} and len(found) == 2


def test_a_pool_that_was_changed_after_the_build_is_noticed(tmp_path):
    biwi_writer.write(tmp_path / "raw", (1,), frames=2, with_depth=False)
    build(BuildConfig(("biwi",), tmp_path / "out", str(tmp_path / "raw")))
    path = tmp_path / "out" / "pool.parquet"
    table = manifest.read(path)
    mark = manifest.header(path).fingerprint
    place = table.schema.get_field_index("yaw_deg")
    forged = table.set_column(place, table.schema.field(place), pa.array([0.0, 0.0]))
    with pq.ParquetWriter(path, forged.schema) as writer:
        writer.write_table(forged)
        writer.add_key_value_metadata({b"ubhpd.fingerprint": mark.encode()})
    assert "fingerprint" in {f.kind for f in validate_pool(tmp_path / "out")}


def test_raw_data_is_validated_without_leaving_anything_behind(tmp_path):
    aflw2000_writer.write(tmp_path, 8, quirks=False, distinct_images=2)
    image = sorted(tmp_path.rglob("*.jpg"))[0]
    image.unlink()
    before = sorted(tmp_path.rglob("*"))
    found = validate_raw(str(tmp_path), None, False, Engine(), Progress(show=False))
    assert ("missing_image", 1) in kinds(found)
    assert sorted(tmp_path.rglob("*")) == before


def test_warnings_of_the_readers_are_findings(tmp_path):
    biwi_writer.write(tmp_path, (1,), frames=2, with_depth=False)
    (tmp_path / "hpdb" / "01" / "rgb.cal").unlink()
    found = validate_raw(str(tmp_path), ["biwi"], False, Engine(), Progress(show=False))
    assert any(f.kind == "warning" and "rgb.cal" in f.text for f in found)


def test_nothing_there_is_one_sentence(tmp_path):
    with pytest.raises(UbhpdError, match="None of 300wlp, .* was found"):
        validate_raw(str(tmp_path), None, False, Engine(), Progress(show=False))


def test_exit_codes_and_json(tmp_path, capsys):
    biwi_writer.write(tmp_path, (1,), frames=2, with_depth=False)
    with pytest.raises(SystemExit) as stop:
        cli.main(["validate", "--data-root", str(tmp_path), "--json"])
    assert stop.value.code == 1
    found = json.loads(capsys.readouterr().out)
    assert {f["kind"] for f in found} == {"count", "absent"}


def test_no_findings_are_said_and_exit_0(pool_of, capsys):
    out = pool_of("biwi", as_published("biwi"))
    with pytest.raises(SystemExit) as stop:
        cli.main(["validate", str(out)])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("No findings")
