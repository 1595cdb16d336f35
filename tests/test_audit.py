"""Leakage: planted leaks of every kind are found and named, a clean split has none, and it is quick."""

import csv
import json
import shutil
from unittest import mock

import cv2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ubhpd import cli, manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.manifest.schema import COLUMNS, Column
from ubhpd.pool.build import BuildConfig, build
from ubhpd.quality import duplicates
from ubhpd.quality.audit import KINDS, AuditOptions, audit, audit_places, audit_text, write_list
from ubhpd.quality.duplicates import ImageHashes, hash_patches, image_hashes, nearest, patch_of
from ubhpd.synth.writers import biwi_writer

NAMES = ("sample_id", "dataset", "subject_id", "sequence_id", "frame_index", "flip_of", "source_photo", "split")


def table(*heads, **same):
    """Heads as dictionaries; what is not said is null."""
    rows = [dict.fromkeys((*NAMES, "drop_reason")) | {"dataset": "d"} | same | head for head in heads]
    types = {n: pa.int64() if n == "frame_index" else pa.string() for n in rows[0]}
    return pa.table({n: pa.array([r[n] for r in rows], t) for n, t in types.items()})


def head(sample_id, split, **more):
    return {"sample_id": sample_id, "split": split, **more}


CLEAN = [
    head("a", "train", subject_id="s1", sequence_id="q1", frame_index=1, source_photo="p1"),
    head("b", "test", subject_id="s2", sequence_id="q2", frame_index=1, source_photo="p2"),
    head("a2", "train", subject_id="s1", sequence_id="q1", frame_index=2, source_photo="p1", flip_of="a"),
    head("c", "train", sequence_id="folder", flip_of="gone"),
    head("d", "test", sequence_id="folder"),
    head("unused", None, subject_id="s2", sequence_id="q2", frame_index=2),
    head("refused", "train", subject_id="s2", drop_reason="bad_label"),
]
PLANTED = {
    "subject": ({"subject_id": "s2"}, 1, {}, None),
    "sequence": ({"sequence_id": "q2", "frame_index": 101}, 1, {"sequence": 100}, None),
    "neighbour": ({"sequence_id": "q2", "frame_index": 4}, 1, {"neighbour": 3, "sequence": 3}, {"sequence"}),
    "flip": ({"flip_of": "b"}, 1, {}, None),
    "photo": ({"source_photo": "p2"}, 1, {}, None),
    "photo_across": ({"source_photo": "p2", "dataset": "other"}, 1, {}, None),
}


def kinds(report):
    return {k for k, n in report.counts().items() if n["pairs"]}


def test_a_clean_split_has_none():
    report = audit(table(*CLEAN))
    assert not report.has_leaks and kinds(report) == set() and report.pairs().num_rows == 0
    assert (report.train, report.test) == (3, 2)
    assert "share nothing" in audit_text(report)


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_leak_is_found_and_named(kind):
    planted, pairs, distances, others = PLANTED[kind]
    report = audit(table(*CLEAN, head("x", "train", **planted)))
    assert kinds(report) == {kind} | (others or set())
    assert report.counts()[kind] == {"pairs": pairs, "test_heads": 1, "train_heads": 1}
    listed = {p["kind"]: p for p in report.pairs().to_pylist()}
    assert (listed[kind]["train"], listed[kind]["test"]) == ("x", "b")
    assert listed[kind]["distance"] == distances.get(kind)
    assert KINDS[kind] in audit_text(report)


def test_the_mirror_image_leaks_in_either_direction():
    for first, second in (("train", "test"), ("test", "train")):
        report = audit(table(head("o", first), head("m", second, flip_of="o"), *CLEAN))
        assert kinds(report) == {"flip"}


def test_two_mirror_images_of_one_name_are_no_flip_pair():
    assert not audit(table(head("m", "train", flip_of="o"), head("n", "test", flip_of="o"))).has_leaks


def test_reach_of_neighbours_is_inclusive():
    heads = table(head("a", "train", sequence_id="q", frame_index=0), head("b", "test", sequence_id="q", frame_index=5))
    assert audit(heads, options=AuditOptions(frames=5)).counts()["neighbour"]["pairs"] == 1
    assert audit(heads, options=AuditOptions(frames=4)).counts()["neighbour"]["pairs"] == 0


def test_two_manifests_are_taken_as_a_whole():
    train, test = table(head("a", "test"), head("b", None)), table(head("a", "train"))
    report = audit(train, test)
    assert kinds(report) == {"head"} and (report.train, report.test) == (2, 1)
    assert not audit(train.slice(1), test).has_leaks


def random_heads(rng, n):
    def name(prefix, k, missing):
        return [None if rng.random() < missing else f"{prefix}{rng.integers(k)}" for _ in range(n)]

    return [
        head(f"h{i}", split, dataset=d, subject_id=s, sequence_id=q, frame_index=f, flip_of=m, source_photo=p)
        for i, (split, d, s, q, f, m, p) in enumerate(
            zip(
                rng.choice(["train", "test"], n).tolist(),
                rng.choice(["d", "e"], n).tolist(),
                name("s", 6, 0.5),
                name("q", 4, 0.3),
                [None if rng.random() < 0.3 else int(rng.integers(40)) for _ in range(n)],
                name("h", n, 0.6),
                name("p", 9, 0.4),
            )
        )
    ]


def by_hand(train, test, reach):
    same = {k: train[k] is not None and train[k] == test[k] for k in ("subject_id", "sequence_id", "source_photo")}
    frames = None not in (train["frame_index"], test["frame_index"])
    gap = abs(train["frame_index"] - test["frame_index"]) if frames else None
    photo = same["source_photo"]
    return {
        "head": False,
        "subject": same["subject_id"],
        "sequence": same["sequence_id"] and frames,
        "neighbour": same["sequence_id"] and frames and gap <= reach,
        "flip": (test["flip_of"] == train["sample_id"] and train["flip_of"] is None)
        or (train["flip_of"] == test["sample_id"] and test["flip_of"] is None),
        "photo": photo and train["dataset"] == test["dataset"],
        "photo_across": photo and train["dataset"] != test["dataset"],
    }


@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(0, 8))
def test_counts_are_those_of_looking_at_every_pair(seed, n, reach):
    heads = random_heads(np.random.default_rng(seed), n)
    heads[0]["split"], heads[1]["split"] = "train", "test"
    report = audit(table(*heads), options=AuditOptions(frames=reach))
    train, test = ([h for h in heads if h["split"] == s] for s in ("train", "test"))
    for kind, counted in report.counts().items():
        pairs = [(a, b) for a in train for b in test if by_hand(a, b, reach)[kind]]
        assert counted == {
            "pairs": len(pairs),
            "test_heads": len({b["sample_id"] for _, b in pairs}),
            "train_heads": len({a["sample_id"] for a, _ in pairs}),
        }, kind
    by_name = {h["sample_id"]: h for h in heads}
    for pair in report.pairs().to_pylist():
        a, b = by_name[pair["train"]], by_name[pair["test"]]
        assert by_hand(a, b, reach)[pair["kind"]]
        if pair["distance"] is not None:
            gaps = [abs(o["frame_index"] - b["frame_index"]) for o in train if by_hand(o, b, reach)[pair["kind"]]]
            assert pair["distance"] == abs(a["frame_index"] - b["frame_index"]) == min(gaps)


def test_the_order_of_rows_changes_nothing(tmp_path):
    heads = random_heads(np.random.default_rng(5), 80)
    rows = table(*heads)
    write_list(audit(rows), tmp_path / "one.csv")
    write_list(audit(rows.take(np.random.default_rng(1).permutation(80))), tmp_path / "two.csv")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    listed = list(csv.DictReader((tmp_path / "one.csv").read_text().splitlines()))
    assert list(listed[0]) == ["train", "test", "kind", "distance", "partners"]


WRONG = {
    "no split": (table(head("a", "train")).drop_columns("split"), {}, "has no column 'split'"),
    "odd split": (table(head("a", "train"), head("b", "val")), {}, "holds 'val'"),
    "no test": (table(head("a", "train")), {}, "no usable head in test"),
    "no train": (table(head("a", "test"), head("b", "train", drop_reason="bad_label")), {}, "no usable head in train"),
    "column": (table(*CLEAN).drop_columns("flip_of"), {}, "has no column 'flip_of'"),
    "frames": (table(*CLEAN), {"options": AuditOptions(frames=-1)}, "frames is -1"),
    "bits": (table(*CLEAN), {"options": AuditOptions(bits=40)}, "bits 40"),
    "wild frames": (
        table(head("a", "train", frame_index=-(2**62)), head("b", "test", frame_index=2**62), sequence_id="q"),
        {},
        "frame_index goes from",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_a_sentence(case):
    rows, more, sentence = WRONG[case]
    with pytest.raises(UbhpdError, match=sentence):
        audit(rows, **more)


def test_flip_pairs_of_170_000_heads_are_counted():
    n = 170_000
    i = np.arange(n)
    rng = np.random.default_rng(0)
    video = i < 50_000
    rows = pa.table(
        {
            "sample_id": pa.array([f"300wlp/AFW/AFW_{k}" for k in i.tolist()]),
            "dataset": pa.array(np.where(video, "biwi", "300wlp").tolist()),
            "subject_id": pa.array([f"s{k // 700}" if k < 50_000 else None for k in i.tolist()]),
            "sequence_id": pa.array([f"q{k // 650}" if k < 50_000 else "AFW" for k in i.tolist()]),
            "frame_index": pa.array(i % 650, mask=~video),
            "flip_of": pa.array([f"300wlp/AFW/AFW_{k - 1}" if k % 2 else None for k in i.tolist()]),
            "source_photo": pa.array([f"p{k // 36}" for k in i.tolist()]),
            "split": pa.array(np.where(rng.random(n) < 0.7, "train", "test").tolist()),
        }
    )
    hashes = ImageHashes(rng.integers(0, 2**63, n, dtype=np.uint64), np.ones(n, dtype=bool), [])
    report = audit(rows, hashes=[hashes])
    assert report.counts()["flip"]["pairs"] > 30_000


# ---- images


@pytest.mark.parametrize("few", [0, 1 << 18])
@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.integers(1, 200), st.integers(0, 8), st.integers(0, 3))
def test_near_hashes_are_those_of_looking_at_every_pair(few, seed, n, m, high, low):
    with mock.patch.object(duplicates, "_FEW", few):
        look_at_every_pair(seed, n, m, high, low)


def look_at_every_pair(seed, n, m, high, low):
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**63, 6, dtype=np.uint64)

    def hashes(size):
        found = centres[rng.integers(0, 6, size)]
        for _ in range(4):
            found = found ^ np.where(
                rng.random(size) < 0.7, np.uint64(1) << rng.integers(0, 64, size, dtype=np.uint64), 0
            )
        return found.astype(np.uint64)

    train, test = hashes(n), hashes(m)
    bits = np.array([[(int(a) ^ int(b)).bit_count() for a in train] for b in test])
    near = (bits >= low) & (bits <= high)
    found = nearest(train, test, low, high)
    assert found.partners.tolist() == near.sum(axis=1).tolist()
    assert found.is_partner.tolist() == near.any(axis=0).tolist()
    best = np.where(near, bits, 99)
    assert found.distance.tolist() == np.where(near.any(axis=1), best.min(axis=1), -1).tolist()
    assert found.train.tolist() == np.where(near.any(axis=1), best.argmin(axis=1), -1).tolist()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    biwi_writer.write(root, (1, 2, 3), frames=6, with_depth=False)
    return root


@pytest.fixture
def out(data, tmp_path):
    """A build of three recordings; its split has each of them in one split, except for a planted copy."""
    shutil.copytree(data, tmp_path / "raw")
    return rebuilt(tmp_path)


def rebuilt(tmp_path):
    out = tmp_path / "out"
    build(BuildConfig(("biwi",), out, str(tmp_path / "raw")))
    pool = manifest.read(out / "pool.parquet")
    split = ["test" if s == "biwi/02" else "train" for s in pool.column("sequence_id").to_pylist()]
    columns = (*COLUMNS, Column("split", pa.string(), "", "", "train or test"))
    manifest.write_parquet([pool.append_column("split", pa.array(split))], out / "ubhpd.parquet", columns)
    return out


def image_of(tmp_path, sequence, number=0):
    return sorted((tmp_path / "raw").rglob(f"{sequence}/*_rgb.png"))[number]


def test_a_hash_survives_size_compression_and_brightness_and_tells_faces_apart(data):
    faces = [cv2.imread(str(p)) for p in sorted(data.rglob("0[123]/*_rgb.png"))[::6]]
    box = (200, 100, 440, 400)
    one = hash_patches([patch_of(f, box) for f in faces])
    changed = []
    for face in faces:
        small = cv2.resize(face, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        jpeg = cv2.imdecode(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)
        changed.append(patch_of(cv2.convertScaleAbs(jpeg, alpha=0.8, beta=20), np.array(box) / 2))
    bits = np.array([[(int(a) ^ int(b)).bit_count() for a in one] for b in hash_patches(changed)])
    assert bits.diagonal().max() <= 4
    assert bits[~np.eye(len(faces), dtype=bool)].min() > 10


def test_an_odd_box_is_no_failure():
    image = np.random.default_rng(0).integers(0, 255, (50, 60, 3), dtype=np.uint8)
    whole = patch_of(image, None)
    for box in ((np.nan,) * 4, (70, 70, 90, 90), (5, 5, 5, 5), (30, 40, 10, 10), (-1e9, -1e9, 1e9, 1e9)):
        assert np.array_equal(patch_of(image, box), whole)
    assert patch_of(np.full((50, 60, 3), 7, np.uint8), None) is None


def test_a_copied_image_is_found_and_a_clean_split_stays_clean(out, tmp_path):
    assert not audit_places(out, images=True, options=AuditOptions(bits=3)).has_leaks
    shutil.copy(image_of(tmp_path, "01"), image_of(tmp_path, "02"))
    faded = cv2.convertScaleAbs(cv2.imread(str(image_of(tmp_path, "03", 2))), alpha=0.7, beta=10)
    cv2.imwrite(str(image_of(tmp_path, "02", 3)), faded)
    out = rebuilt(tmp_path)
    # The boxes are those of other heads, so the whole images are compared.
    table = manifest.read(out / "ubhpd.parquet")
    place = table.schema.get_field_index("bbox_xyxy")
    none = pa.nulls(table.num_rows, table.schema.field(place).type)
    table = table.set_column(place, table.schema.field(place), none)
    report = audit(table, hashes=[image_hashes(table, out)])
    assert kinds(report) == {"equal_image", "similar_image"} or kinds(report) == {"equal_image"}
    pairs = {(p["train"], p["test"]) for p in report.pairs().to_pylist()}
    planted = {("01", "02", 0, 0), ("03", "02", 2, 3)}
    names = {
        s: sorted(n for n in table.column("sample_id").to_pylist() if n.startswith(f"biwi/{s}/"))
        for s in ("01", "02", "03")
    }
    assert {(names[a][i], names[b][j]) for a, b, i, j in planted} <= pairs


def test_an_interrupted_run_goes_on_and_gives_the_same(out, monkeypatch):
    table = manifest.read(out / "ubhpd.parquet")
    monkeypatch.setattr(duplicates, "_CHUNK", 5)
    whole = image_hashes(table, out)
    parts = sorted((out / "work" / "hashes").iterdir())
    assert len(parts) > 2
    parts[1].unlink()
    read = []
    image = duplicates.Images.image
    monkeypatch.setattr(duplicates.Images, "image", lambda self, *a: read.append(a) or image(self, *a))
    again = image_hashes(table, out)
    assert 0 < len(read) <= 6
    assert again.hash.tolist() == whole.hash.tolist() and again.known.all()


def test_a_changed_image_is_looked_at_again(out, tmp_path):
    table = manifest.read(out / "ubhpd.parquet")
    before = image_hashes(table, out)
    damaged = image_of(tmp_path, "01")
    whole = damaged.read_bytes()
    damaged.write_bytes(b"no image")
    assert image_hashes(table, out).known.sum() == table.num_rows - 1
    damaged.write_bytes(whole)
    assert image_hashes(table, out).hash.tolist() == before.hash.tolist()


def test_two_processes_give_the_same(out, monkeypatch):
    table = manifest.read(out / "ubhpd.parquet")
    monkeypatch.setattr(duplicates, "_CHUNK", 5)
    one = image_hashes(table, out)
    shutil.rmtree(out / "work" / "hashes")
    assert image_hashes(table, out, jobs=2).hash.tolist() == one.hash.tolist()


def test_one_damaged_image_is_told_and_no_more(out, tmp_path):
    image_of(tmp_path, "01").write_bytes(b"no image")
    report = audit_places(out, images=True)
    assert len(report.failures) == 1 and "1 images could not be compared" in audit_text(report)


def test_a_moved_dataset_is_a_sentence(out, tmp_path):
    (tmp_path / "raw").rename(tmp_path / "elsewhere")
    with pytest.raises(UbhpdError, match="is not a folder"):
        audit_places(out, images=True)


# ---- the command


@pytest.fixture
def ubhpd(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main(["audit", *(str(a) for a in arguments)])
        return stop.value.code, *capsys.readouterr()

    return run


def test_the_command(ubhpd, out, tmp_path):
    code, text, _ = ubhpd(out)
    assert code == 0 and "12 heads in train, 6 in test" in text and "--images does it" in text
    code, text, _ = ubhpd(out / "ubhpd.parquet", "--images", "--bits", "0", "--json")
    told = json.loads(text)
    assert code == 0 and told["leakage"] is False and set(told["kinds"]) == set(KINDS)
    code, text, _ = ubhpd(out, "--test", out / "pool.parquet", "--list", tmp_path / "pairs.csv", "--quiet")
    assert (code, text) == (1, "")
    assert len((tmp_path / "pairs.csv").read_text().splitlines()) > 18


def test_the_command_on_what_is_not_there(ubhpd, out, tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments, sentence in (
        ((tmp_path / "empty",), "holds no ubhpd.parquet"),
        ((tmp_path / "nothing",), "Cannot open"),
        ((out / "pool.parquet",), "has no column 'split'"),
        ((out, "--list", out), "Cannot write the list"),
    ):
        code, text, error = ubhpd(*arguments)
        assert (code, text) == (2, "") and sentence in error and "Traceback" not in error
