"""Files that are there whole or not at all, what killed processes leave, locks, and JSON that is bounded."""

import os
import subprocess
import sys

import pytest

from ubhpd.core import files
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import file_identity, locked, read_json, replacing

DEAD = int(subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True).stdout)


def test_a_file_is_replaced_or_stays(tmp_path):
    path = tmp_path / "folder" / "a"
    with replacing(path) as part:
        part.write_text("one")
        assert not path.exists()
    with pytest.raises(KeyError), replacing(path) as part:
        part.write_text("two")
        raise KeyError
    assert path.read_text() == "one" and [p.name for p in path.parent.iterdir()] == ["a"]


def test_the_content_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(files.os, "fsync", lambda fd: order.append(os.readlink(f"/proc/self/fd/{fd}")))
    with replacing(tmp_path / "a") as part:
        part.write_text("one")
    assert order == [str(part), str(tmp_path)]


@pytest.mark.parametrize(
    "name",
    [f".b.{DEAD}.part", f".b.c.{DEAD}.part-journal", f".b.{files._this_machine()}-{DEAD}.part"],
    ids=["process", "journal", "machine and process"],
)
def test_what_a_killed_process_left_is_removed(tmp_path, name):
    (tmp_path / name).write_text("half")
    with replacing(tmp_path / "a") as part:
        part.write_text("one")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    "name",
    [f".b.{os.getppid()}.part", f".b.0badcafe-{DEAD}.part", ".b.part", "b.part", ".b.x.part"],
    ids=["living process", "another machine", "no process", "no dot", "no number"],  # equal in every test worker
)
def test_what_somebody_may_still_write_stays(tmp_path, name):
    (tmp_path / name).write_text("half")
    with replacing(tmp_path / "a") as part:
        part.write_text("one")
    assert (tmp_path / name).exists()


def test_what_another_thread_of_this_process_writes_stays(tmp_path):
    with replacing(tmp_path / "a") as first:
        first.write_text("one")
        with replacing(tmp_path / "b") as second:
            second.write_text("two")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_what_another_machine_left_is_removed_after_a_day(tmp_path):
    left = tmp_path / f".b.0badcafe-{DEAD}.part"
    left.write_text("half")
    os.utime(left, (0, 0))
    files.remove_leftovers(tmp_path)
    assert not left.exists()


@pytest.mark.parametrize("is_file", [False, True])
def test_a_lock_is_held_by_one_and_leaves_nothing(tmp_path, is_file):
    place = tmp_path / "out.x"
    with locked(place, is_file):
        with pytest.raises(UbhpdError, match=r"is writing to .*out\.x: let it finish"), locked(place, is_file):
            pass
        script = (
            "import sys\nfrom pathlib import Path\nfrom ubhpd.core.files import locked\n"
            "with locked(Path(sys.argv[1]), bool(int(sys.argv[2]))): pass"
        )
        done = subprocess.run([sys.executable, "-c", script, place, str(int(is_file))], capture_output=True, text=True)
        assert "Another ubhpd command is writing" in done.stderr
    with locked(place, is_file):
        pass
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_shards_share_a_lock_that_a_merge_wants_alone(tmp_path):
    share = locked(tmp_path, is_shared=True), locked(tmp_path, is_shared=True)
    with share[0], share[1], pytest.raises(UbhpdError), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 2000, "is larger than"),
        (None, "Cannot open"),
    ],
)
def test_json_that_cannot_be_read_is_one_sentence(tmp_path, content, sentence):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UbhpdError, match=f"{sentence}.*: build again\\.$"):
        read_json(tmp_path / "a.json", "build again", 1 << 20 if content and b"[" in content else 1000)


def test_identity_tells_contents_apart_without_reading(tmp_path):
    (tmp_path / "a").write_text("1")
    before = file_identity(tmp_path / "a")
    assert before == file_identity(tmp_path / "a") and file_identity(tmp_path / "none") == "absent"
    os.utime(tmp_path / "a", ns=(1, 1))
    assert file_identity(tmp_path / "a") != before


def test_files_that_are_written_together_do_not_remove_each_other(tmp_path):
    with files.replacing(tmp_path / "a") as a, files.replacing(tmp_path / "b") as b:
        a.write_text("a")
        b.write_text("b")
        files.remove_leftovers(tmp_path)
    assert sorted((p.name, p.read_text()) for p in tmp_path.iterdir()) == [("a", "a"), ("b", "b")]
