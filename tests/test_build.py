"""The engine: a pool that depends on the data alone, resumes, shards, and says what it refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import locked
from ubhpd.core.parallel import Engine
from ubhpd.core.records import Note, Record
from ubhpd.pool import sources
from ubhpd.pool.build import BuildConfig, build
from ubhpd.synth.writers import aflw2000_writer, biwi_writer, synhead_writer, w300lp_writer

SOURCES = ("300wlp", "aflw2000", "biwi")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    w300lp_writer.write(root, 24, seed=1, bad_flips=2)
    aflw2000_writer.write(root, 12, seed=2)
    biwi_writer.write(root, (1, 2, 3), frames=4, seed=3, with_depth=False)
    return root


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    """Several units for each dataset, so that there is something to share out."""
    for name in ("300wlp", "aflw2000"):
        monkeypatch.setattr(sources.builders()[name], "_UNIT_SIZE", 5)


def pool_bytes(out):
    return (out / "pool.parquet").read_bytes()


def run(data, out, engine=None, **kwargs):
    return build(BuildConfig(kwargs.pop("sources", SOURCES), out, str(data), **kwargs), engine)


def test_a_build_writes_pool_and_report(data, tmp_path):
    report = run(data, tmp_path)
    told = json.loads((tmp_path / "build.json").read_text())
    assert told == report.as_dict()
    table = manifest.read(tmp_path / "pool.parquet")
    assert table.num_rows == sum(d.heads for d in report.datasets.values())
    assert manifest.header(tmp_path / "pool.parquet").fingerprint == told["fingerprint"]
    for name, own in report.datasets.items():
        mine = [r for d, r in zip(*(table.column(c).to_pylist() for c in ("dataset", "drop_reason"))) if d == name]
        assert own.usable == mine.count(None)
        assert own.heads - own.usable == sum(own.dropped.values())


def test_same_bytes_with_one_and_two_workers_and_in_threads(data, tmp_path):
    run(data, tmp_path / "one")
    run(data, tmp_path / "two", Engine(2))
    run(data, tmp_path / "threads", Engine(2, "threading"))
    assert pool_bytes(tmp_path / "one") == pool_bytes(tmp_path / "two") == pool_bytes(tmp_path / "threads")


def test_same_bytes_from_a_copy_elsewhere_written_in_another_order(data, tmp_path):
    run(data, tmp_path / "one")
    files = sorted((p for p in data.rglob("*") if p.is_file()), reverse=True)
    for path in files:
        target = tmp_path / "copy" / "nested" / path.relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    run(tmp_path / "copy", tmp_path / "two")
    assert pool_bytes(tmp_path / "one") == pool_bytes(tmp_path / "two")


def test_sources_in_any_order_give_one_order_of_rows(data, tmp_path):
    run(data, tmp_path / "one")
    run(data, tmp_path / "two", sources=tuple(reversed(SOURCES)))
    assert pool_bytes(tmp_path / "one") == pool_bytes(tmp_path / "two")


def test_heads_beyond_the_limit_stay_with_their_reason_and_the_limit_moves(data, tmp_path):
    report = run(data, tmp_path)
    assert report.datasets["300wlp"].dropped["beyond_max_angle"] == 2
    table = manifest.read(tmp_path / "pool.parquet").to_pandas()
    beyond = table[table.drop_reason == "beyond_max_angle"]
    angles = beyond[["yaw_deg", "pitch_deg", "roll_deg"]]
    assert (angles.abs().max(axis=1) > 99).all()
    assert beyond.drop_detail.str.contains("the limit is 99").all()
    wide = run(data, tmp_path, max_angle_deg=1000)
    assert "beyond_max_angle" not in wide.datasets["300wlp"].dropped
    assert wide.units_read == 0


def test_the_limit_itself_is_inside(data, tmp_path):
    run(data, tmp_path)
    table = manifest.read(tmp_path / "pool.parquet").to_pandas()
    largest = table.loc[table.drop_reason.isna(), ["yaw_deg", "pitch_deg", "roll_deg"]].abs().max().max()
    assert not run(data, tmp_path, max_angle_deg=largest).datasets["biwi"].dropped
    refused = run(data, tmp_path, max_angle_deg=float(np.nextafter(largest, 0)))
    assert sum(d.dropped.get("beyond_max_angle", 0) for d in refused.datasets.values()) > 0


def test_a_second_build_reads_nothing_again(data, tmp_path):
    first = run(data, tmp_path)
    before = pool_bytes(tmp_path)
    second = run(data, tmp_path)
    assert (second.units_read, second.units_kept) == (0, first.units_read)
    assert pool_bytes(tmp_path) == before


def test_only_the_unit_of_a_changed_file_is_read_again(tmp_path):
    biwi_writer.write(tmp_path / "raw", (1, 2), frames=3, with_depth=False)
    run(tmp_path / "raw", tmp_path / "out", sources=("biwi",))
    label = next((tmp_path / "raw").rglob("02/*_pose.txt"))
    label.write_text("1 0 0\n0 1 0\n0 0 1\n\n0 0 900\n")
    report = run(tmp_path / "raw", tmp_path / "out", sources=("biwi",))
    assert (report.units_read, report.units_kept) == (1, 1)
    table = manifest.read(tmp_path / "out" / "pool.parquet").to_pandas().set_index("sample_id")
    changed = f"biwi/02/{label.name.removesuffix('_pose.txt')}"
    assert table.loc[changed, "yaw_deg"] == 0


def test_another_option_or_root_does_not_use_the_old_parts(tmp_path):
    biwi_writer.write(tmp_path / "a", (1,), frames=3, seed=1, with_depth=False)
    biwi_writer.write(tmp_path / "b", (1,), frames=3, seed=2, with_depth=False)
    run(tmp_path / "b", tmp_path / "alone", sources=("biwi",))
    run(tmp_path / "a", tmp_path / "out", sources=("biwi",))
    assert run(tmp_path / "a", tmp_path / "out", sources=("biwi",), options={"biwi": {"frame": "rgb"}}).units_read == 1
    assert run(tmp_path / "b", tmp_path / "out", sources=("biwi",)).units_read == 1
    assert pool_bytes(tmp_path / "out") == pool_bytes(tmp_path / "alone")


def test_a_damaged_part_is_read_again_and_said(data, tmp_path, caplog):
    run(data, tmp_path)
    before = pool_bytes(tmp_path)
    part = sorted((tmp_path / "work" / "parts").rglob("*.arrow"))[0]
    whole = part.read_bytes()
    for at in (0, 40, len(whole) // 2, len(whole) - 1):  # one bit: in the checksum, the header, a value, the footer
        part.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        caplog.clear()
        assert run(data, tmp_path).units_read == 1
        assert f"{part} is damaged" in caplog.text
        assert pool_bytes(tmp_path) == before
    for content in (whole[:50], b"", b"x" * 1000):
        part.write_bytes(content)
        assert run(data, tmp_path).units_read == 1
    assert pool_bytes(tmp_path) == before


def test_a_folder_exchanged_for_one_with_older_files_is_read_again(tmp_path):
    for seed in (1, 2):
        biwi_writer.write(tmp_path / str(seed), (1,), frames=3, seed=seed, with_depth=False)
        for path in (tmp_path / str(seed)).rglob("*"):
            os.utime(path, ns=(10**18, 10**18))
    run(tmp_path / "2", tmp_path / "fresh", sources=("biwi",))
    (tmp_path / "raw").symlink_to(tmp_path / "1")
    run(tmp_path / "raw", tmp_path / "out", sources=("biwi",))
    (tmp_path / "raw").unlink()
    (tmp_path / "raw").symlink_to(tmp_path / "2")
    assert run(tmp_path / "raw", tmp_path / "out", sources=("biwi",)).units_read == 1
    assert pool_bytes(tmp_path / "out") == pool_bytes(tmp_path / "fresh")
    shutil.move(tmp_path / "1", tmp_path / "3")
    shutil.move(tmp_path / "2", tmp_path / "1")
    shutil.move(tmp_path / "3", tmp_path / "2")
    assert run(tmp_path / "raw", tmp_path / "out", sources=("biwi",)).units_read == 1


def test_a_relative_out_keeps_its_parts(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = run(data, Path("out"))
    second = run(data, Path("out"))
    assert (second.units_read, second.units_kept) == (0, first.units_read)


def test_two_builds_into_one_folder_are_one_too_many(data, tmp_path):
    with locked(tmp_path), pytest.raises(UbhpdError, match=r"Another ubhpd command is writing to .*: let it finish"):
        run(data, tmp_path)
    run(data, tmp_path)
    assert not list(tmp_path.glob(".*"))


def test_parts_of_units_that_are_gone_are_swept_away(tmp_path):
    biwi_writer.write(tmp_path / "raw", (1, 2), frames=3, with_depth=False)
    run(tmp_path / "raw", tmp_path / "out", sources=("biwi",))
    shutil.rmtree(tmp_path / "raw" / "hpdb" / "02")
    (tmp_path / "out" / "work" / "parts" / "biwi" / ".x.arrow.1.part").write_bytes(b"half")
    run(tmp_path / "raw", tmp_path / "out", sources=("biwi",))
    assert len(list((tmp_path / "out" / "work" / "parts" / "biwi").iterdir())) == 1


def test_a_source_added_later_leaves_the_others_as_they_were(data, tmp_path):
    run(data, tmp_path, sources=("biwi",))
    report = run(data, tmp_path)
    assert report.units_kept == 3
    run(data, tmp_path / "fresh")
    assert pool_bytes(tmp_path) == pool_bytes(tmp_path / "fresh")


def test_shards_read_disjoint_shares_and_a_plain_build_merges_them(data, tmp_path):
    shards = [run(data, tmp_path, shard=(i, 3)) for i in (1, 2, 3)]
    assert not (tmp_path / "pool.parquet").exists()
    merged = run(data, tmp_path)
    assert merged.units_read == 0
    assert sum(s.units_read for s in shards) == merged.units_kept
    run(data, tmp_path / "whole")
    assert pool_bytes(tmp_path) == pool_bytes(tmp_path / "whole")


KILLED = """
import sys, time
from ubhpd.pool import sources
from ubhpd.pool.build import BuildConfig, build
builder = sources.builders()["biwi"]
read = builder.read
def slow(source, unit, options):
    if unit.key == "03":
        print("at the third", flush=True)
        time.sleep(60)
    return read(source, unit, options)
builder.read = slow
from pathlib import Path
build(BuildConfig(("biwi",), Path(sys.argv[2]), sys.argv[1]))
"""


def test_a_killed_build_goes_on_where_it_was(data, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(data), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "at the third\n"
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "pool.parquet").exists()
    report = run(data, tmp_path, sources=("biwi",))
    assert (report.units_read, report.units_kept) == (1, 2)
    run(data, tmp_path / "fresh", sources=("biwi",))
    assert pool_bytes(tmp_path) == pool_bytes(tmp_path / "fresh")


KILLED_WORKER = """
import os, signal, sys
from ubhpd.core.errors import UbhpdError
from ubhpd.core.parallel import Engine
def die(task):
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return task
try:
    print(sorted(Engine(2, sys.argv[1]).map(die, range(6))))
except UbhpdError as error:
    print(error)
"""


@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_a_killed_worker_is_one_sentence(backend):
    done = subprocess.run([sys.executable, "-c", KILLED_WORKER, backend], capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith("A worker process was killed") and "fewer --jobs" in done.stdout


LONG_BUILD = """
import sys, time
from ubhpd import cli
from ubhpd.pool import sources
def read(source, unit, options):
    print("reading", flush=True)
    time.sleep(600)
    yield
sources.builders()["biwi"].read = read
cli.main(["build", "--sources", "biwi", "--data-root", sys.argv[1], "--out", sys.argv[2], "--pool-only"])
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_build_that_is_asked_to_end_says_so(data, tmp_path, number, code):
    command = [sys.executable, "-c", LONG_BUILD, str(data), str(tmp_path)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background inherits it ignored
    ) as process:
        assert process.stdout.readline() == "reading\n"
        process.send_signal(number)
        error = process.communicate()[1]
    assert process.returncode == code
    assert error.strip().startswith("Interrupted: what was finished is kept") and "Traceback" not in error


ORPHANS = """
import os, sys, time
from ubhpd.core.parallel import Engine
def wait(task):
    print(os.getpid(), flush=True)
    time.sleep(600)
list(Engine(2).map(wait, range(2)))
"""


def test_workers_end_with_their_parent():
    with subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True) as process:
        workers = [int(process.stdout.readline()) for _ in range(2)]
        process.kill()
        assert process.stdout.read() == ""  # the pipe ends when the last worker has let go of it
    assert len(set(workers)) == 2


def test_hdf5_on_request(data, tmp_path):
    run(data, tmp_path, hdf5=True)
    one, two = (manifest.read(tmp_path / f"pool.{x}") for x in ("parquet", "h5"))
    assert one.column("sample_id").equals(two.column("sample_id"))


def test_check_images_finds_what_the_header_hides(tmp_path):
    biwi_writer.write(tmp_path / "raw", (1,), frames=4)
    images = sorted((tmp_path / "raw").rglob("*.png"))
    data = images[0].read_bytes()
    images[0].write_bytes(data[:20_000] + bytes(100) + data[20_100:])
    images[1].write_bytes(data[:20_000])
    depth = sorted((tmp_path / "raw").rglob("*_depth.bin"))[2]
    depth.write_bytes(depth.read_bytes()[:5000])
    plain = run(tmp_path / "raw", tmp_path / "out", sources=("biwi",))
    assert plain.datasets["biwi"].dropped == {"bad_image": 1}
    thorough = run(tmp_path / "raw", tmp_path / "out", sources=("biwi",), check_images=True)
    assert thorough.datasets["biwi"].dropped == {"bad_depth": 1, "bad_image": 2}


def test_synhead_is_compared_with_biwi_when_both_are_there(tmp_path):
    poses = biwi_writer.poses_by_sequence(
        biwi_writer.write(tmp_path, (1, 2), frames=30, with_depth=False, distinct_images=2)
    )
    synhead_writer.write(tmp_path, poses=poses, distinct_images=2)
    together = run(tmp_path, tmp_path / "out", sources=("biwi", "synhead"))
    assert any("agree with BIWI" in n["text"] for n in together.datasets["synhead"].notes)
    wrong = run(tmp_path, tmp_path / "out", sources=("biwi", "synhead"), options={"synhead": {"signs": "+++"}})
    assert [n["text"] for n in wrong.datasets["synhead"].notes if n["is_warning"]]
    alone = run(tmp_path, tmp_path / "alone", sources=("synhead",))
    assert any("assumed" in n["text"] for n in alone.datasets["synhead"].notes)


def test_two_copies_in_one_tree_are_refused(tmp_path, monkeypatch):
    biwi_writer.write(tmp_path / "raw", (1,), frames=2, with_depth=False)
    builder = sources.builders()["biwi"]
    twice = builder.units

    def units(source, options):
        return [*twice(source, options), twice(source, options)[0]._replace(key="again")]

    def read(source, unit, options, read=builder.read):
        return read(source, unit._replace(key="01"), options)

    monkeypatch.setattr(builder, "units", units)
    monkeypatch.setattr(builder, "read", read)
    with pytest.raises(UbhpdError, match="biwi/01/frame_0000. was found more than once"):
        run(tmp_path / "raw", tmp_path / "out", sources=("biwi",))
    assert not (tmp_path / "out" / "pool.parquet").exists()


def test_a_reader_that_fails_costs_the_rest_of_its_unit_and_is_asked_again(data, tmp_path, monkeypatch):
    builder = sources.builders()["biwi"]
    read = builder.read

    def fails(source, unit, options):
        heads = read(source, unit, options)
        yield next(heads)
        if unit.key == "02":
            raise KeyError("surprise")
        yield from heads

    run(data, tmp_path / "whole", sources=("biwi",))
    with monkeypatch.context() as patch:
        patch.setattr(builder, "read", fails)
        report = run(data, tmp_path / "out", sources=("biwi",)).datasets["biwi"]
    assert (report.heads, report.usable, report.dropped) == (12, 9, {"reader_failed": 3})
    (note,) = [n for n in report.notes if n["is_warning"]]
    assert "biwi reader failed on 02 (KeyError: 'surprise'), which costs 3 heads" in note["text"]
    table = manifest.read(tmp_path / "out" / "pool.parquet").to_pandas()
    lost = table[table.drop_reason == "reader_failed"]
    assert lost.sample_id.tolist() == [f"biwi/02/unread_{i:05d}" for i in (1, 2, 3)]
    assert run(data, tmp_path / "out", sources=("biwi",)).units_read == 1
    assert pool_bytes(tmp_path / "out") == pool_bytes(tmp_path / "whole")


def test_a_reader_that_gives_what_no_manifest_can_hold_costs_its_unit(data, tmp_path, monkeypatch):
    def read(source, unit, options):
        yield Record(f"biwi/{unit.key}", "x.png", "wide", 1, 0.0, 0.0, 0.0, np.eye(3).ravel())

    monkeypatch.setattr(sources.builders()["biwi"], "read", read)
    report = run(data, tmp_path, sources=("biwi",)).datasets["biwi"]
    assert (report.heads, report.dropped) == (12, {"reader_failed": 12})


def test_names_that_are_not_utf8_are_refused_heads(data, tmp_path, monkeypatch):
    name = os.fsdecode(b"caf\xe9")

    def read(source, unit, options):
        yield Record(f"biwi/{unit.key}/a", "a.png", 1, 1, 0.0, 0.0, 0.0, np.eye(3).ravel())
        yield Record(f"biwi/{unit.key}/{name}", f"{name}.png", 1, 1, 0.0, 0.0, 0.0, np.eye(3).ravel())
        yield Note(f"{name} is odd", is_warning=True)

    monkeypatch.setattr(sources.builders()["biwi"], "read", read)
    report = run(data, tmp_path, sources=("biwi",)).datasets["biwi"]
    assert (report.usable, report.dropped) == (3, {"unreadable_file": 3})
    table = manifest.read(tmp_path / "pool.parquet").to_pandas()
    assert table.sample_id[1] == "biwi/01/caf\\udce9" and "not UTF-8" in table.drop_detail[1]


def test_a_pose_that_is_not_finite_never_passes_as_usable(data, tmp_path, monkeypatch):
    def read(source, unit, options):
        yield Record(f"biwi/{unit.key}", "x.png", 1, 1, float("nan"), 0.0, 0.0, np.eye(3).ravel())

    monkeypatch.setattr(sources.builders()["biwi"], "read", read)
    report = run(data, tmp_path, sources=("biwi",))
    assert report.datasets["biwi"].dropped == {"bad_label": 3}


def test_a_folder_that_cannot_be_listed_is_a_warning(tmp_path):
    biwi_writer.write(tmp_path / "raw", (1, 2), frames=2, with_depth=False)
    os.symlink("03", tmp_path / "raw" / "hpdb" / "03")  # a link to itself
    report = run(tmp_path / "raw", tmp_path / "out", sources=("biwi",))
    assert report.datasets["biwi"].usable == 4
    warnings = [n["text"] for n in report.datasets["biwi"].notes if n["is_warning"]]
    assert len(warnings) == 1 and "03 cannot be listed" in warnings[0]


WRONG = {
    "unknown source": ({"sources": ("biwi", "bivi")}, "No source is called 'bivi': did you mean biwi?"),
    "no source": ({"sources": ()}, "No source named"),
    "unknown option": ({"options": {"biwi": {"frme": "rgb"}}}, "no option 'frme'"),
    "unknown value": ({"options": {"biwi": {"frame": "left"}}}, "cannot be 'left': choose from depth, rgb"),
    "option of another": ({"options": {"aflw": {"angles": "exact"}}}, "not among the sources"),
    "limit": ({"max_angle_deg": -1}, "--max-angle"),
    "limit NaN": ({"max_angle_deg": float("nan")}, "--max-angle"),
    "shard": ({"shard": (3, 2)}, "--shard 3/2"),
    "missing dataset": ({"sources": ("upna",)}, "UPNA Head Pose Database .* was not found in "),
    "missing place": ({"roots": {"biwi": "/nowhere"}}, "/nowhere does not exist"),
    "root of another": ({"roots": {"aflw": "/tmp"}}, "not among the sources"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_sentence(case, data, tmp_path):
    kwargs, sentence = WRONG[case]
    with pytest.raises(UbhpdError, match=sentence):
        run(data, tmp_path, **kwargs)
    assert not (tmp_path / "pool.parquet").exists()


def test_out_that_is_a_file_is_refused(data, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(UbhpdError, match="is a file"):
        run(data, tmp_path / "out")


def test_a_scheduler_without_its_backend_is_refused(data, tmp_path):
    with pytest.raises(UbhpdError, match="add --backend dask"):
        run(data, tmp_path, Engine(scheduler="tcp://localhost:1"))


def test_units_run_on_a_dask_cluster(data, tmp_path):
    distributed = pytest.importorskip("dask.distributed", reason="Dask is not installed: pip install 'ubhpd[dask]'")
    run(data, tmp_path / "one")
    before = time.time()
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        run(data, tmp_path / "two", Engine(2, "dask", cluster.scheduler_address))
    assert pool_bytes(tmp_path / "one") == pool_bytes(tmp_path / "two")
    parts = list(Path(tmp_path / "two" / "work" / "parts").rglob("*.arrow"))
    assert len(parts) > 5 and all(p.stat().st_mtime >= before - 1 for p in parts)


def test_a_dask_scheduler_that_does_not_answer_is_one_sentence(data, tmp_path, monkeypatch):
    pytest.importorskip("dask.distributed", reason="Dask is not installed: pip install 'ubhpd[dask]'")
    monkeypatch.setattr("ubhpd.core.parallel.CONNECT_SECONDS", 1)
    with pytest.raises(UbhpdError, match="No Dask scheduler answers at tcp://127.0.0.1:9"):
        run(data, tmp_path, Engine(2, "dask", "tcp://127.0.0.1:9"))
