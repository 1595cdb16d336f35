"""The decisions file: what is read, refused and applied, and that a decision written is a decision kept."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ubhpd.core.errors import UbhpdError
from ubhpd.quality import decisions
from ubhpd.quality.decisions import Decision, apply, read, record, withdraw

HEADER = "sample_id,decision,reason,who\n"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "decisions.csv"


def test_a_file_by_hand(path):
    path.write_bytes(
        ("\ufeff" + HEADER + 'a,drop,"not a face, a poster",anna\r\n\nb, keep ,,\na,drop,again,ben').encode()
    )
    assert list(read(path).values()) == [Decision("a", "drop", "again", "ben"), Decision("b", "keep", "", "")]
    path.write_text("who,reason,decision,sample_id\nanna,blurred,drop,x\n")
    assert read(path)["x"] == Decision("x", "drop", "blurred", "anna")
    path.write_text(HEADER)
    assert read(path) == {}


WRONG = {
    "empty": ("", "begins with 'nothing'"),
    "no header": ("a,drop,,\n", "begins with 'a,drop,,'"),
    "semicolons": ("sample_id;decision;reason;who\na;drop;;\n", "must be sample_id,decision,reason,who"),
    "unknown word": (HEADER + "a,keep,,\nb,remove,,\n", "line 3 has the decision 'remove': write keep or drop"),
    "capital": (HEADER + "a,Keep,,\n", "line 2 has the decision 'Keep'"),
    "contradiction": (HEADER + "a,keep,,\nb,drop,,\na,drop,,\n", "line 4 says drop of a, but line 2 says keep"),
    "too few fields": (HEADER + "a,keep\n", "line 2 has 2 fields instead of 4"),
    "too many fields": (HEADER + "a,keep,x,y,z\n", "line 2 has 5 fields"),
    "no name": (HEADER + ",keep,,\n", "line 2 names no sample_id"),
    "unknown id": (
        HEADER + "a,keep,,\nzz,drop,,\nyy,drop,,\n",
        "line 3 decides on zz, which the manifest",
    ),
    "after a quoted line break": (HEADER + 'a,keep,"two\nlines",\nb,no,,\n', "line 4 has the decision"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_bad_file_is_a_sentence_with_its_line(case, path):
    text, sentence = WRONG[case]
    path.write_text(text)
    with pytest.raises(UbhpdError, match=sentence):
        read(path, pa.array(["a", "b"]))


def test_other_bytes_and_no_file(path):
    with pytest.raises(UbhpdError, match="Cannot read the decisions"):
        read(path)
    path.write_bytes(HEADER.encode("utf-16"))
    with pytest.raises(UbhpdError, match="is not UTF-8"):
        read(path)
    path.write_bytes(HEADER.encode() + b"a,keep,\xff,\n")
    with pytest.raises(UbhpdError, match="is not UTF-8"):
        read(path)


def pool(*heads):
    names = ("sample_id", "drop_reason", "drop_detail")
    return pa.table({n: pa.array([h[i] for h in heads], pa.string()) for i, n in enumerate(names)})


def rows(table):
    return [tuple(r.values()) for r in table.to_pylist()]


POOL = pool(("a", None, None), ("b", None, None), ("c", "bad_label", "broken"), ("d", None, None), ("e", None, None))
FLAGS = pa.table(
    {"sample_id": ["b", "d", "d", "c", "a"], "flag": ["duplicate"] * 5, "value": [1.0] * 5, "detail": ["Twice."] * 5}
)


def decided(*lines):
    return {d.sample_id: d for d in (Decision(*line) for line in lines)}


def test_a_dropped_head_says_who_and_why():
    done = apply(POOL, decided(("a", "drop", "not a face", "anna"), ("b", "keep"), ("c", "drop"), ("d", "drop")))
    assert rows(done.table) == [
        ("a", "rejected_by_review", "anna: not a face"),
        ("b", None, None),
        ("c", "bad_label", "broken"),
        ("d", "rejected_by_review", "unnamed: no reason given"),
        ("e", None, None),
    ]
    assert done[1:] == (2, 0, 0, 1)
    assert done.table.schema == POOL.schema


def test_keep_protects_from_flags_and_nothing_else():
    done = apply(POOL, decided(("b", "keep"), ("a", "drop", "x", "y"), ("c", "keep")), FLAGS)
    assert [r[1] for r in rows(done.table)] == ["rejected_by_review", None, "bad_label", "flagged", None]
    assert rows(done.table)[3][2] == "duplicate: Twice. duplicate: Twice."
    assert done[1:] == (1, 1, 1, 1)


def test_without_decisions_nothing_changes():
    assert apply(POOL, {}).table.equals(POOL)


def test_applied_again_it_depends_on_the_file_alone():
    first = apply(POOL, decided(("a", "drop"), ("b", "keep")), FLAGS).table
    second = decided(("e", "drop"), ("a", "keep"))
    assert apply(first, second, FLAGS).table.equals(apply(POOL, second, FLAGS).table)
    assert apply(apply(POOL, {}, FLAGS).table, {}).table.equals(apply(POOL, {}, FLAGS).table)


def test_record_change_and_withdraw(path):
    record(path, Decision("a", "keep", "", "anna"))
    record(path, Decision("b", "drop", 'said "no", twice\nover', "anna"))
    assert path.read_text() == HEADER + 'a,keep,,anna\nb,drop,"said ""no"", twice over",anna\n'
    record(path, Decision("a", "drop", "x", "ben"))
    assert list(read(path)) == ["b", "a"] and read(path)["a"].who == "ben"
    withdraw(path, "b")
    withdraw(path, "b")
    assert list(read(path)) == ["a"]


def test_what_people_wrote_by_hand_stays(path):
    path.write_text(HEADER + "by hand,drop,mine,me")  # an editor that ends no line
    record(path, Decision("a", "keep"))
    assert list(read(path)) == ["by hand", "a"]


def test_a_bad_file_is_not_written_to(path):
    path.write_text(HEADER + "a,perhaps,,\n")
    before = path.read_bytes()
    for change in (lambda: record(path, Decision("b", "keep")), lambda: withdraw(path, "a")):
        with pytest.raises(UbhpdError, match="line 2 has the decision"):
            change()
    assert path.read_bytes() == before


@pytest.mark.parametrize("one", [Decision("a", "maybe"), Decision("", "keep")])
def test_a_bad_decision_is_not_written(one, path):
    with pytest.raises(UbhpdError):
        record(path, one)
    assert not path.exists()


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UbhpdError, match="Cannot write decisions"):
        record(tmp_path / "file" / "decisions.csv", Decision("a", "keep"))


def test_it_is_on_disk_before_record_returns(path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(decisions.os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_size), fsync(fd)))
    record(path, Decision("a", "keep"))
    assert synced[0] == path.stat().st_size and len(synced) == 2  # and the folder, which holds a new name


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
words = ["keep", "drop", None]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["x/1", "y 2", 'z,"3"']), st.sampled_from(["keep", "drop", None]), text, text))
)
def test_the_file_holds_the_last_decision_on_each_head(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("d") / "decisions.csv"
    wanted = {}
    for sample_id, word, reason, who in steps:
        if word is None:
            withdraw(path, sample_id)
            wanted.pop(sample_id, None)
        else:
            record(path, Decision(sample_id, word, reason, who))
            wanted[sample_id] = word
    found = read(path) if path.exists() else {}
    assert {k: d.decision for k, d in found.items()} == wanted


def write_many(path, name):
    for i in range(40):
        record(path, Decision(f"{name}{i}", "keep", "", name))
        if i % 4 == 0:
            record(path, Decision(f"{name}{i}", "drop", "", name))


def test_two_programs_at_once_lose_nothing(path):
    writers = [multiprocessing.get_context("spawn").Process(target=write_many, args=(path, n)) for n in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert set(read(path)) == {f"{n}{i}" for n in "ab" for i in range(40)}


def test_a_kill_loses_nothing_that_was_answered(path):
    script = (
        "import sys; from pathlib import Path; from ubhpd.quality.decisions import Decision, record\n"
        "for i in range(100000):\n"
        "    record(Path(sys.argv[1]), Decision(f'h{i % 50}', 'keep' if i // 50 % 2 else 'drop', str(i)))\n"
        "    print(i, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) as child:
        while int(child.stdout.readline()) < 120:
            pass
        time.sleep(0.05)
        child.send_signal(signal.SIGKILL)
        last = int((child.stdout.read().split() or ["120"])[-1])
    found = read(path)
    assert len(found) == 50
    assert all(any(found[f"h{i % 50}"].reason == str(j) for j in (i, i + 50)) for i in range(last - 48, last + 1))
