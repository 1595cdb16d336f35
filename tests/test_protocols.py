"""Protocols: definitions that do not move, the published counts and names, frame lists, and what is refused."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from realdata import REAL, needs

from ubhpd import cli, manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.manifest.schema import COLUMNS, Column
from ubhpd.protocols.resolve import (
    CONDITIONS,
    DIVISIONS,
    PROTOCOLS,
    ids_hash,
    in_series,
    list_text,
    protocol,
    protocols_named,
    read_frame_list,
    resolve,
    training_protocol,
)
from ubhpd.sampling import heads

# A hash that differs here means another protocol: give it a new version or, better, a new id.
DEFINITIONS = {
    "300wlp_aflw2000_1969": "f08f8557bbd01da615ba5430215298c13f1c841ec8b330aff7ec28320f48e673",
    "300wlp_aflw2000_2000": "fe47e6549802394d04ca11bcfad35df99cb234b91928b454cbda4154a8e04a9c",
    "300wlp_biwi_15678": "c54b287a5cf72467d56b71caaf2aa96a20438caf8dc7ad2acabe86e70a502692",
    "300wlp_biwi_13219": "262956ca4a416184f393fa8df35bccda2ac7c7f8a721bef5718fd4f4dd96969c",
    "biwi_70_30_frames": "7b2073bb92c92f6a5b568cd0da0629a539d296f5dd9d2d94881cb55ba32af695",
    "biwi_70_30_sequences": "88aa75694ab6caa505b88923c1a61c56cd0cc60243b8bcb06e2b68efcf1f3c9e",
    "biwi_70_30_subjects": "9beceb713d0155c539f03afb5a9e79d880b7de54b74fe690ccd740887b963a4d",
    "biwi_16_8_drawn": "f8afaa9fe21e53c4404894b720625a9174f2847c5dd8c3d6fe1938c69934a997",
    "biwi_leave_out_01_10_23": "6c488775c4f1726a943eccefe4a4a0de0d0c598dd155a029fadaa6c8e196d43c",
    "upna_subjects": "afe8c03b6a496bd978e8c3bb0db07a56eb0b2b685b3e89bd53d4688d7416ee61",
    "aflw_21080_1000": "a228d9a810b0d8c3a98a8dce0ae9729eac16fe6dc3a84c65859cf245c02b92b6",
    "upna_7_3": "e85397870714902c8d790452b7bc3df50e413d0afb14cd4a64dee9cff9a9e83b",
    "ubhpd": "64e07a30e6402407d3b66a0edc8c9301454d6af4022b450ca2c911a5f76486fb",
    "ubhpd_cross_300wlp": "6e126f2ffebeddb9e9f35c24f6fdf810071bf8619ab051eeeb4e7fab51bc833e",
    "ubhpd_cross_aflw": "7b83a28edc28d1dd3dc4f7f0968d3765c6c1bcf922ab9fb7643c7821dc8946d3",
    "ubhpd_cross_aflw2000": "11a987e4dbd2eaa297a7a19bce8b6d2f29638ff62d9df7bdff2e878374947baa",
    "ubhpd_cross_biwi": "c1f0d58956999b95fbb7385208ff8b70cab43dab18c5d2e8b7cb0076f1e9ecad",
    "ubhpd_cross_synhead": "1f227777bf37d044fcea0674ce5b44172b601add275b04453b1689b6cde6224a",
    "ubhpd_cross_upna": "e9d2e8c8c310ef3854e506e911f1656bde5a20d2e38712a8476824a1e20655e6",
}
# First frame, last frame and gaps of BIWI's recordings: 15,678 frames.
BIWI = """1:3-501 2:3-513 3:3-674,683-740 4:3-746 5:3-948 6:0-364,389-448,482-598 7:3-747 8:3-774 9:3-884 10:3-728
11:3-574 12:3-734 13:3-487 14:3-799 15:0-582,612-674,694-701 16:0-853,884-908,928-962 17:0-351,391-419,464-477
18:0-529,554-571,584-586,657-698,735-755 19:0-281,303-522 20:0-100,111-427,437-475,481-579
21:0-218,220-223,230-387,443-444,451-476,522-746 22:0-664 23:0-512,579-580,773-826 24:0-424,508-534,583-622"""
PEOPLE = [f"F{n:02d}" for n in range(1, 7)] + [f"M{n:02d}" for n in range(1, 9)]
PEOPLE += ["F03", "M09", "M10", "F05", "M11", "M12", "F02", "M01", "M13", "M14"]


def table(rows, split=None):
    """A manifest's columns that protocols read; `rows` are dicts, or columns of one length."""
    frame = pd.DataFrame(rows)
    n = len(frame)
    columns = {}
    for name in heads.COLUMNS:
        is_text = name not in ("frame_index", "yaw_deg", "pitch_deg", "roll_deg")
        kind = pa.string() if is_text else pa.int64() if name == "frame_index" else pa.float64()
        values = frame[name].to_numpy() if name in frame else None
        columns[name] = pa.nulls(n, kind) if values is None else pa.array(values, kind, from_pandas=True)
    if split is not None:
        columns["split"] = pa.array(split, pa.string())
    return pa.table(columns)


def limited(heads_of, limit):
    """The table as a build with this --max-angle has it."""
    angles = np.stack([heads_of.column(f"{a}_deg").to_numpy() for a in ("yaw", "pitch", "roll")], axis=1)
    reason = np.where((np.abs(angles) > limit).any(axis=1), "beyond_max_angle", None)
    place = heads_of.schema.get_field_index("drop_reason")
    return heads_of.set_column(place, "drop_reason", pa.array(reason, pa.string()))


def biwi():
    rows = []
    for text, person in zip(BIWI.split(), PEOPLE):
        number, _, ranges = text.partition(":")
        for part in ranges.split(","):
            first, last = map(int, part.split("-"))
            rows += [(f"biwi/{int(number):02d}", f, f"biwi/{person}") for f in range(first, last + 1)]
    sequence, frame, subject = zip(*rows)
    rng = np.random.default_rng(0)
    return table({
        "sample_id": [f"{s}/frame_{f:05d}" for s, f in zip(sequence, frame)],
        "dataset": "biwi", "subject_id": subject, "sequence_id": sequence, "frame_index": frame,
        **dict(zip(("yaw_deg", "pitch_deg", "roll_deg"), rng.normal(0, 20, (3, len(rows))).round(3).clip(-80, 80))),
    })  # fmt: skip


def photos(dataset, n, beyond, first=0):
    """Heads of which the last few are beyond 99 degrees, by one angle each."""
    angles = np.zeros((n, 3))
    angles[n - beyond :, 1] = 99.001
    angles[0] = [99, -99, 99]  # inclusive
    return table({
        "sample_id": [f"{dataset}/image{i:06d}" for i in range(n)], "dataset": dataset,
        "source_photo": [f"aflw/image{i + first:06d}" for i in range(n)],
        **{f"{a}_deg": angles[:, j] for j, a in enumerate(("yaw", "pitch", "roll"))},
    })  # fmt: skip


@pytest.fixture(scope="module")
def pool():
    own = [photos("300wlp", 122_450, 35, 10**6), photos("aflw2000", 2000, 31, 2 * 10**6), biwi()]
    return limited(pa.concat_tables(own), 99)


@pytest.fixture(scope="module")
def small():
    """A pool and a UBHPD of a few heads of five datasets."""
    rows = []
    for dataset in ("biwi", "upna", "aflw", "aflw2000", "synhead"):
        for i in range(20):
            own = {
                "biwi": {"subject_id": f"biwi/P{i % 4}", "sequence_id": f"biwi/{i % 4:02d}", "frame_index": i},
                "upna": {"subject_id": f"upna/user_{i % 10 + 1:02d}", "sequence_id": f"upna/{i}", "frame_index": i},
                "aflw": {"source_photo": f"aflw/{i}"},
                "aflw2000": {"source_photo": f"aflw/{i + 15}"},
                "synhead": {"subject_id": f"synhead/f{i % 2}", "sequence_id": "synhead/x", "frame_index": i},
            }[dataset]
            inside = "BIWI/" if dataset == "synhead" and i < 8 else ""
            angles = dict.fromkeys(("yaw_deg", "pitch_deg", "roll_deg"), 4.0 * i - 40)
            rows.append({"sample_id": f"{dataset}/{inside}{i:03d}", "dataset": dataset, **own, **angles})
    whole = table(rows)
    kept = whole.filter(pa.array(np.arange(100) % 5 > 0))
    ubhpd = kept.append_column("split", pa.array(np.where(np.arange(len(kept)) % 4 > 0, "train", "test")))
    return {"pool": whole, "ubhpd": ubhpd}


def written(content, path, extra=()):
    """Write a table as a manifest, the columns it lacks null."""
    columns = (*COLUMNS, *extra)
    cells = [
        content.column(c.name) if c.name in content.column_names else pa.nulls(len(content), c.type) for c in columns
    ]
    cells = [c.cast(k.type) if isinstance(c, pa.ChunkedArray) else c for c, k in zip(cells, columns)]
    manifest.write_parquet([pa.table(cells, names=[c.name for c in columns])], path, columns)


@pytest.fixture
def folder(small, tmp_path):
    written(small["pool"], tmp_path / "out/pool.parquet")
    written(small["ubhpd"], tmp_path / "out/ubhpd.parquet", [Column("split", pa.string(), "", "", "side")])
    return tmp_path / "out"


def test_definitions_are_frozen():
    assert {p.id: p.definition_hash for p in PROTOCOLS.values()} == DEFINITIONS


def test_a_definition_hash_covers_what_decides_and_nothing_else():
    own = protocol("300wlp_aflw2000_1969")
    assert replace(own, sentence="x", paper="y", note="z", published={}).definition_hash == own.definition_hash
    for changed in (
        replace(own, version=2),
        replace(own, id="other"),
        replace(own, test=replace(own.test, max_angle_deg=98)),
        replace(own, train=own.test),
        replace(own, divide=protocol("biwi_70_30_frames").divide),
    ):
        assert changed.definition_hash != own.definition_hash


@pytest.mark.parametrize("own", PROTOCOLS.values(), ids=str)
def test_a_definition_uses_known_rules_and_a_name_for_files_and_shells(own):
    assert re.fullmatch(r"[a-z0-9_]+", own.id)
    assert own.sentence.endswith(".") and own.paper and own.version >= 1
    for side in (own.train, own.test):
        assert all(w.how in CONDITIONS and w.column in (*heads.COLUMNS, "split") for w in side.where)
    assert own.divide is None or (own.divide.form in DIVISIONS and own.train == own.test)
    assert json.loads(json.dumps(own.as_dict()))["definition_hash"] == own.definition_hash


def test_the_page_lists_every_protocol():
    page = (Path(__file__).parents[1] / "docs/protocols.md").read_text()
    for own in PROTOCOLS.values():
        names = [own.id, *(own.test.where[0].values if own.series == "cross" else ())]
        rows = [line for line in page.splitlines() if line.startswith("| `") and line.endswith(f"| {own.series} |")]
        assert any(f"`{name}`" in row for name in names for row in rows), own.id


def test_series_are_those_of_the_papers():
    assert {p.id for p in in_series("1")} == {i for i in PROTOCOLS if i.startswith("300wlp_")}
    assert [p.id for p in in_series("3")] == ["ubhpd"]
    with pytest.raises(UbhpdError, match="1, 2, 3, cross"):
        in_series("4")


@pytest.mark.parametrize(("heads_in_test", "target"), [(1969, "aflw2000"), (2000, "aflw2000"), (15678, "biwi")])
def test_published_counts_come_out_whatever_the_limit_of_the_build(pool, heads_in_test, target):
    found = resolve(f"300wlp_{target}_{heads_in_test}", pool)
    assert found.counts["train"] == (122_415, 122_415, 0, 35, 0)
    assert found.counts["test"].heads == heads_in_test
    assert not [w for w in found.warnings if "where" in w]
    for limit in (45, 180):
        other = resolve(f"300wlp_{target}_{heads_in_test}", limited(pool, limit))
        assert other.hash == found.hash


def test_biwi_is_known_by_name(pool):
    found = resolve("300wlp_biwi_15678", pool)
    assert found.warnings == ()
    found = resolve("biwi_leave_out_01_10_23", pool)
    assert (len(found.train), len(found.test), found.warnings) == (13_884, 1_794, ())
    assert {i[:8] for i in found.test} == {"biwi/01/", "biwi/10/", "biwi/23/"}


def test_as_many_heads_but_others_are_noticed(pool):
    assert resolve("300wlp_aflw2000_1969", pool).warnings == (
        "Test has as many heads as published, 1,969, but not the same ones: results are not comparable with published "
        "ones.",
    )


@needs("labels")
def test_aflw2000_is_known_by_name(pool):
    labels = pd.read_csv(REAL / "labels/aflw2000_labels.csv")
    own = table({
        "sample_id": "aflw2000/" + labels.name, "dataset": "aflw2000",
        **{f"{a}_deg": labels[a] for a in ("yaw", "pitch", "roll")},
    })  # fmt: skip
    for name in ("300wlp_aflw2000_1969", "300wlp_aflw2000_2000"):
        assert resolve(name, pa.concat_tables([pool.slice(0, 122_450), own])).warnings == ()


def test_a_partial_copy_is_a_warning(pool):
    found = resolve("300wlp_biwi_15678", pa.concat_tables([pool.slice(0, 1000), pool.slice(124_450, 500)]))
    assert found.warnings == (
        "Train has 1,000 heads where 122,415 are published: results are not comparable with published ones.",
        "Test has 500 heads where 15,678 are published: results are not comparable with published ones.",
    )


SEEDED = {
    "biwi_70_30_frames": [
        "12c2541943c50a7475fe25f8882742fcdc9ae4acaf6b3cd8a35ebeca33f86a05",
        "3679ff1285e6575f8cfcc46a33a993fd272271b218004dfcac61b07019eddb08",
    ],
    "biwi_70_30_sequences": [
        "eda81bf95093984806c3f48e9ba45666e815a507317aba0433abc4c078a93744",
        "eda81bf95093984806c3f48e9ba45666e815a507317aba0433abc4c078a93744",
    ],
    "biwi_70_30_subjects": [
        "84fb11cf448a3d77632040fb20b25cad18981cc61307f2c431b0b07f7215e692",
        "3b312f4d46061edf3463d7a13c7020a0d4545a1cd7c35587f904d6c2dc86e032",
    ],
    "biwi_16_8_drawn": [
        "8083248c952fd1df092204c6b6f58c3630c99eea01b87131512340e827f25c20",
        "dfc5fbb4750030d17301edfe646a70b4fa24a8de6a17a9b1b7e7512aea2de2a8",
    ],
}


@pytest.mark.parametrize(
    "name", ["biwi_70_30_frames", "biwi_70_30_sequences", "biwi_70_30_subjects", "biwi_16_8_drawn"]
)
def test_biwi_divisions_are_frozen_too(name):
    own = biwi()
    found = [resolve(name, own, seed=s) for s in (0, 1)]
    assert [f.hash for f in found] == SEEDED[name]
    order = np.random.default_rng(3).permutation(len(own))
    assert resolve(name, own.take(order), seed=1).hash == found[1].hash
    for f in found:
        assert f.warnings == () and len(f.train) + len(f.test) == 15_678
        assert len(f.train) / 15_678 == pytest.approx(0.7, abs=0.08 if name == "biwi_16_8_drawn" else 0.02)
    train, test = ({i.split("/")[1] for i in side} for side in (found[0].train, found[0].test))
    assert bool(train & test) == (name == "biwi_70_30_frames")
    if name == "biwi_70_30_subjects":
        assert not {PEOPLE[int(s) - 1] for s in train} & {PEOPLE[int(s) - 1] for s in test}
    if name == "biwi_16_8_drawn":
        assert (len(train), len(test)) == (16, 8)


@pytest.mark.parametrize("n", [24_384, 230])
def test_heads_of_aflw_are_drawn_by_photograph(n):
    """Two heads on every third photograph; a small copy has the same proportion."""
    own = photos("aflw", n, 10)
    names = [f"aflw/p{i - (i % 3 == 1)}" for i in range(n)]
    own = own.set_column(own.schema.get_field_index("source_photo"), "source_photo", pa.array(names))
    photo = dict(zip(own.column("sample_id").to_pylist(), names, strict=True))
    found, other = (resolve("aflw_21080_1000", own, seed=s) for s in (0, 1))
    wanted = min(n - 10, 22_080)
    tests = round(wanted * 1000 / 22_080)
    assert len(found.test) == tests and wanted - tests - 1 <= len(found.train) <= wanted - tests
    if n == 24_384:
        assert (len(found.train), len(found.test), found.warnings) == (21_080, 1_000, ())
    assert not {photo[i] for i in found.train} & {photo[i] for i in found.test}
    assert set(found.test) != set(other.test)
    order = np.random.default_rng(0).permutation(len(own))
    assert resolve("aflw_21080_1000", own.take(order), seed=0).hash == found.hash


def test_upna_has_the_persons_of_the_papers(small):
    found = resolve("upna_7_3", small["pool"])
    people = dict(zip(*(small["pool"].column(n).to_pylist() for n in ("sample_id", "subject_id")), strict=True))
    assert {people[i] for i in found.train} == {f"upna/user_{u:02d}" for u in range(1, 8)}
    assert {people[i] for i in found.test} == {f"upna/user_{u:02d}" for u in (8, 9, 10)}
    assert {n: p.heads for n, p in protocol("upna_7_3").published.items()} == {"train": 25_200, "test": 10_800}


def test_upna_by_person(small):
    found = resolve("upna_subjects", small["pool"])
    assert (len(found.train), len(found.test)) == (12, 8)
    assert found.seed is None and len(found.warnings) == 2


def test_ubhpd_takes_its_column(small, folder):
    found = resolve("ubhpd", folder)
    assert found.train == tuple(sorted(small["ubhpd"].filter(
        pa.array(np.asarray(small["ubhpd"].column("split")) == "train")).column("sample_id").to_pylist()))  # fmt: skip
    assert found.warnings == ()
    for same in (folder / "ubhpd.parquet", folder / "pool.parquet", small, small["ubhpd"], str(folder)):
        assert resolve("ubhpd", same).hash == found.hash


def test_cross_leaves_out_the_target_and_what_shares_photographs_with_it(small, folder):
    found = resolve("ubhpd_cross_aflw2000", folder)
    assert found.test == tuple(f"aflw2000/{i:03d}" for i in range(20))
    # UBHPD holds 4 of 5 heads: aflw/015 is not in it, 016 to 019 are, and they are on photographs of AFLW2000.
    assert found.counts["train"].shared == 4
    assert {i for i in found.train if i.startswith("aflw/")} == {f"aflw/{i:03d}" for i in range(15) if i % 5}
    assert {i.split("/")[0] for i in found.train} == {"aflw", "biwi", "synhead", "upna"}
    (warning, difference) = found.warnings
    assert warning.startswith("UBHPD was sampled with aflw2000 and loses its 16 heads here")
    assert "ubhpd build --exclude aflw2000" in warning and found.test_warnings == (difference,)
    own = small["ubhpd"]
    without = own.filter(pc.not_equal(own.column("dataset"), "aflw2000"))
    again = resolve("ubhpd_cross_aflw2000", {**small, "ubhpd": without})
    assert again.warnings == (difference,) and again.train == found.train
    found = resolve("ubhpd_cross_biwi", small)
    assert {i for i in found.train if i.startswith("synhead/")} == {f"synhead/{i:03d}" for i in range(8, 20) if i % 5}
    assert not any(i.startswith("biwi") for i in found.train)


def test_the_hash_is_that_of_the_list(small):
    found = resolve("upna_subjects", small["pool"])
    text = list_text(found)
    assert text.startswith("sample_id,side\nupna/000,train\n") and text.count("\n") == 21
    assert hashlib.sha256(text.encode()).hexdigest() == found.hash
    assert found.hashes["test"] == hashlib.sha256(("\n".join(found.test) + "\n").encode()).hexdigest()
    assert ids_hash(reversed(found.test)) == found.hashes["test"]


def test_the_order_of_a_manifest_does_not_matter(pool):
    order = np.random.default_rng(1).permutation(len(pool))
    for name in ("300wlp_aflw2000_1969", "biwi_leave_out_01_10_23"):
        assert resolve(name, pool.take(order)).hash == resolve(name, pool).hash


def test_a_frame_list_makes_the_13219(pool, tmp_path):
    ids = biwi().column("sample_id").to_pylist()[:13_219]
    styles = (
        "{0}/frame_{1:05d}", "hpdb/{0}/frame_{1:05d}_rgb.png", "biwi\\{0}\\frame_{1:05d}_rgb.png, 1.5, -2",
        "{0}/frame_{1:05d}_rgb.png {0}/frame_{1:05d}_pose.txt",
        "/data/faces_0/{0}/frame_{1:05d}.jpg", "biwi/{0}/frame_{1}",
    )  # fmt: skip
    lines = [styles[k % 6].format(i[5:7], int(i[-5:])) for k, i in enumerate(ids)]
    path = tmp_path / "frames.txt"
    path.write_bytes(("\ufeffname,yaw,pitch\r\n# kept\r\n\r\n" + "\r\n".join(lines) + "\r\n").encode())
    found = resolve("300wlp_biwi_13219", pool, path)
    assert found.test == tuple(sorted(ids)) and found.warnings == ()
    path.write_text("\n".join([*lines[:-1], lines[0]]))
    assert resolve("300wlp_biwi_13219", pool, path).warnings == (
        "1 frame is named more than once in the list.",
        "Test has 13,218 heads where 13,219 are published: results are not comparable with published ones.",
    )


def test_a_refused_frame_of_the_list_is_said(pool, tmp_path):
    own = pool.slice(124_450).to_pydict()
    own["drop_reason"][5] = "bad_image"
    refused = pa.concat_tables([pool.slice(0, 9), pa.table(own, schema=pool.schema)])
    (tmp_path / "frames.txt").write_text("\n".join(own["sample_id"][:10]))
    found = resolve("300wlp_biwi_13219", refused, tmp_path / "frames.txt")
    assert (found.counts["test"].heads, found.counts["test"].refused) == (9, 1)
    assert found.warnings[0] == "1 frame is in the list but refused in this manifest: see ubhpd info OUT --dropped."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"02/frame_99999\n01/frame_00001", "None of the 2 frames of"),
        (b"01/frame_00003\nimage00002.jpg", "line 2: 'image00002.jpg' names no BIWI frame such as 01/frame_00003"),
        (b"one\ntwo\n", "names no frame: give one per line"),
        (b"", "names no frame"),
        (b"\xff\xfe0\x001\x00", "is not UTF-8 text"),
        (b"125/frame_000031", "line 1: '125/frame_000031' names no BIWI frame"),
    ],
)
def test_bad_frame_lists(pool, tmp_path, text, message):
    (tmp_path / "frames.txt").write_bytes(text)
    with pytest.raises(UbhpdError, match=re.escape(message)):
        resolve("300wlp_biwi_13219", pool, tmp_path / "frames.txt")


def test_an_absent_frame_of_the_list_is_a_warning(pool, tmp_path):
    (tmp_path / "frames.txt").write_text("01/frame_00003\n\n02/frame_99999\n01/frame_00001")
    found = resolve("300wlp_biwi_13219", pool, tmp_path / "frames.txt")
    assert found.warnings[0].startswith(
        "2 frames are in the list but not in the manifest, the first is biwi/02/frame_99999"
    )
    assert found.counts["test"].heads == 1


def test_frame_lists_as_they_circulate(pool, tmp_path):
    """OPAL's text with boxes and angles behind the name, and headposeplus's .npz, of which no pickle is read."""
    (tmp_path / "opal.txt").write_text(
        "#;image;tl_x;tl_y;br_x;br_y;yaw;pitch;roll;\nkinect_head_pose_db/01/frame_00003_rgb.png;270;177;414;355;-3.29;7.6;-1.5\n"
    )
    names = np.array(["01/frame_00003_rgb.png", "01/frame_00004_rgb.png"])
    np.savez(tmp_path / "plus.npz", date=np.array("2023-01-09"), bbox=np.zeros((2, 4)), images=names)
    np.savez(tmp_path / "pickled.npz", images=names.astype(object))
    np.savez(tmp_path / "other.npz", images=np.array(["a.jpg"]))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "plus.npz").read_bytes()[:200])
    assert list(read_frame_list(tmp_path / "opal.txt").lines) == ["biwi/01/frame_00003"]
    assert list(read_frame_list(tmp_path / "plus.npz").lines) == ["biwi/01/frame_00003", "biwi/01/frame_00004"]
    np.save(tmp_path / "plain.npy", names.astype("S"))
    (tmp_path / "renamed.txt").write_bytes((tmp_path / "plus.npz").read_bytes())
    for name in ("plain.npy", "renamed.txt"):
        assert list(read_frame_list(tmp_path / name).lines) == ["biwi/01/frame_00003", "biwi/01/frame_00004"]
    large = (tmp_path / "plain.npy").read_bytes().replace(b"'shape': (2,), ", b"'shape': (10**15,), ", 1)
    huge = (tmp_path / "plain.npy").read_bytes().replace(b"(2,), }           ", b"(9999999999,), }  ", 1)
    assert huge != (tmp_path / "plain.npy").read_bytes()
    for data in (large, huge, b"\x93NUMPY", b"PK\x03\x04"):
        (tmp_path / "bad.txt").write_bytes(data)
        with pytest.raises(UbhpdError, match="is not a readable file of NumPy|Cannot open|has no array"):
            read_frame_list(tmp_path / "bad.txt")
    for name, sentence in (
        ("pickled", "has no array of names"),
        ("other", "has no array"),
        ("cut", "is not a readable file of NumPy"),
    ):
        with pytest.raises(UbhpdError, match=sentence):
            read_frame_list(tmp_path / f"{name}.npz")
    with pytest.raises(UbhpdError, match="Cannot open"):
        read_frame_list(tmp_path / "none.npz")


@needs("boxes")
def test_the_real_lists_name_the_same_frames():
    lists = [
        read_frame_list(REAL / "boxes" / n).lines for n in ("opal23_biwi_ann.txt", "headposeplus_Biwi_FSA-Net.npz")
    ]
    assert len(lists[0]) == 13_219 and set(lists[0]) == set(lists[1])


def test_frames_are_read_in_order_with_their_lines(tmp_path):
    (tmp_path / "f").write_text("frame\n3/frame_7.png\n01/frame_00003 01/frame_00004\n")
    found = read_frame_list(tmp_path / "f").lines
    assert found == {"biwi/03/frame_00007": 2, "biwi/01/frame_00003": 3, "biwi/01/frame_00004": 3}


def test_what_is_refused(small, folder, tmp_path):
    cases = [
        (("biwi_7030", folder), "did you mean biwi_70_30_"),
        (("nonsense!", folder), "There is no protocol 'nonsense!'"),
        (("300wlp_biwi_13219", folder), "needs a list of frames: give --frames FILE"),
        (("300wlp_biwi_13219", folder, tmp_path / "none.txt"), "Cannot open .*none.txt"),
        (("upna_subjects", folder, tmp_path / "none.txt"), "takes no list of frames"),
        (("300wlp_biwi_15678", folder), "no head to train: it takes heads of pool.parquet with dataset is 300wlp"),
        (("ubhpd", small["pool"]), "needs the manifest ubhpd, which is not given"),
        (("ubhpd_cross_biwi", small["ubhpd"]), "needs the manifest pool"),
        (("upna_subjects", small["pool"].drop_columns(["subject_id"])), "has no column 'subject_id'"),
        (("upna_subjects", tmp_path / "nowhere"), "Cannot open"),
        (("biwi_16_8_drawn", folder, None, -1), "The seed is -1"),
    ]
    for arguments, message in cases:
        with pytest.raises(UbhpdError, match=message) as caught:
            resolve(*arguments)
        assert "\n" not in str(caught.value)
    (folder / "ubhpd.parquet").unlink()
    with pytest.raises(UbhpdError, match="needs ubhpd.parquet, which is not in"):
        resolve("ubhpd", folder)


def test_the_command(folder, tmp_path, capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main(["protocols", *map(str, arguments)])
        return stop.value.code, *capsys.readouterr()

    code, out, err = run()
    assert (code, err) == (0, "") and all(f"\n{name} " in out for name in PROTOCOLS)
    code, out, _ = run("ubhpd_cross_biwi")
    assert code == 0 and DEFINITIONS["ubhpd_cross_biwi"] in out and "does not start with synhead/BIWI/" in out
    code, out, _ = run("biwi_16_8_drawn", "--manifest", folder, "--seed", 2, "--list", tmp_path / "l.csv", "--json")
    found = json.loads(out)
    assert (code, found["seed"], found["counts"]["train"]["heads"]) == (0, 2, 15)
    assert hashlib.sha256((tmp_path / "l.csv").read_bytes()).hexdigest() == found["hash"]
    code, out, _ = run("upna_subjects", "--manifest", folder)
    assert code == 0 and "warning: Train has 12 heads where 21,600 are published" in out
    code, out, _ = run("--manifest", folder)
    assert code == 0 and "ubhpd_cross_upna" in out and "needs a list of frames" in out
    for arguments in (
        ["--frames", "x"], ["ubhpd", "--seed", 1], ["ubhpd", "--list", "x"], ["nothing"],
        ["--manifest", tmp_path / "no"],
        ["ubhpd", "--manifest", folder, "--list", folder],
    ):  # fmt: skip
        code, out, err = run(*arguments)
        assert (code, out) == (2, "") and err.startswith("Error: ") and err.count("\n") == 1


def test_ids_ignore_case_and_short_names_are_known():
    assert protocol("300WLP_AFLW2000_1969").id == "300wlp_aflw2000_1969"
    assert [p.id for p in protocols_named("1")] == ["300wlp_aflw2000_1969", "300wlp_biwi_15678"]
    assert [p.id for p in protocols_named("UBHPD")] == ["ubhpd"] and len(protocols_named("Cross")) > 3
    assert training_protocol("1").id == "300wlp_aflw2000_1969" and training_protocol("3").id == "ubhpd"
    for name in ("2", "cross"):
        with pytest.raises(UbhpdError, match="train on different heads: choose one of"):
            training_protocol(name)


def test_the_command_takes_short_names(ubhpd, tmp_path):
    code, out, _ = ubhpd("protocols", "1")
    assert code == 0 and "300wlp_aflw2000_1969, version" in out and "300wlp_biwi_15678, version" in out
    code, out, _ = ubhpd("protocols", "1", "--json")
    assert code == 0 and [p["id"] for p in json.loads(out)] == ["300wlp_aflw2000_1969", "300wlp_biwi_15678"]
    code, _, err = ubhpd("protocols", "1", "--manifest", tmp_path, "--list", tmp_path / "l.csv")
    assert code == 2 and "needs one protocol" in err
