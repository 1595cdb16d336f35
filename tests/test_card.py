"""The dataset card and the Croissant file: required content, nothing private or hostile, accepted by mlcroissant."""

import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from ubhpd import cli, manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.core.records import DROP_REASONS
from ubhpd.manifest.schema import COLUMNS, Column
from ubhpd.pool import sources
from ubhpd.pool.build import BuildConfig, build
from ubhpd.reports.card import CITATION, card, limits, read_built, without_places, write_card
from ubhpd.reports.croissant import croissant, write_croissant
from ubhpd.synth.writers import aflw2000_writer, biwi_writer, w300lp_writer

EXTRA = (
    Column("split", pa.string(), "", "", "train or test"),
    Column("bin_yaw", pa.int8(), "", "", "bin of the yaw, 0 to 14"),
    Column("density_weight_yaw", pa.float64(), "", "", "test density divided by train density"),
)
SAMPLED = {
    "sampling": {
        "config": {"size": 25000, "target": "/home/someone/target.csv", "sigma_deg": "auto", "seed": 7},
        "size": 30, "sigma_deg": 22.5, "lower_bound": 0.0125, "lower_bound_per_angle": [0.01, 0.0125, 0.015],
        "reached": 0.0131,
        "target": [[1 / 15] * 15] * 3, "counts_before": [[0] * 15] * 3, "edges": [0.5] * 16,
        "notes": ["25,000 heads were requested, 30 are inside the bins."],
    },
    "split": {"form": "subject", "share": 0.7, "distance": [0.1, None, 0.2]},
    "exclude": [],
    "decisions": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    biwi_writer.write(root, (1, 2), frames=6, with_depth=False)
    aflw2000_writer.write(root, 12, distinct_images=2)
    w300lp_writer.write(root, 6, views=2, bad_flips=1)
    (root / "hpdb/01/frame_00003_pose.txt").write_text("1 0 0\n0 1")
    return root


def made(raw, out):
    """Build a pool, and a UBHPD of two heads in three."""
    build(BuildConfig(("biwi", "aflw2000", "300wlp"), out, str(raw)))
    pool = manifest.read(out / "pool.parquet")
    usable = pool.filter(pool.column("drop_reason").is_null())
    chosen = usable.take(np.flatnonzero(np.arange(len(usable)) % 3))
    n = len(chosen)
    cells = (np.where(np.arange(n) % 4, "train", "test"), np.full(n, 7, dtype=np.int8), np.ones(n))
    for column, values in zip(EXTRA, cells):
        chosen = chosen.append_column(column.name, pa.array(values, column.type))
    manifest.write_parquet([chosen], out / "ubhpd.parquet", (*COLUMNS, *EXTRA))
    report = json.loads((out / "build.json").read_text())
    report["unbiased"] = SAMPLED
    (out / "build.json").write_text(json.dumps(report))
    return out


@pytest.fixture(scope="module")
def out(raw, tmp_path_factory):
    return made(raw, tmp_path_factory.mktemp("built") / "out")


@pytest.fixture
def own(out, tmp_path):
    """A copy to damage."""
    shutil.copytree(out, tmp_path / "own", ignore=shutil.ignore_patterns("work", "CARD.md", "croissant.json"))
    return tmp_path / "own"


def report_of(own, **changes):
    report = json.loads((own / "build.json").read_text())
    (own / "build.json").write_text(json.dumps({**report, **changes}))


def test_card_describes_sources_files_and_columns(out):
    text = card(out)
    report = json.loads((out / "build.json").read_text())
    assert text.startswith("# UBHPD\n")
    for name, own in report["datasets"].items():
        builder = sources.builders()[name]
        for said in (builder.TITLE, builder.LICENSE, builder.CITATION, builder.HOMEPAGE):
            assert said in text
        assert f"| {own['heads']:,} | {own['usable']:,} | {own['heads'] - own['usable']:,} |" in text
        for reason, n in own["dropped"].items():
            assert f"| {own['title']} | `{reason}` | {n} | {DROP_REASONS[reason]} |" in text
        for key, value in own["options"].items():
            assert f"| `{name}.{key}` | {value} |" in text
    assert report["datasets"]["biwi"]["dropped"] == {"bad_label": 1}
    assert (
        CITATION in text
        and report["fingerprint"] in text
        and manifest.header(out / "ubhpd.parquet").fingerprint in text
    )
    for column in (*COLUMNS, *EXTRA):
        assert re.search(rf"^\| `{column.name}` \| .* \| {re.escape(column.meaning)}", text, re.M)
    assert "(only in `ubhpd.parquet`)" in text


def test_card_lists_the_sampling_of_build_json(out):
    text = card(out)
    for row in (
        "| `sampling.config.size` | 25,000 |", "| `sampling.config.seed` | 7 |",
        "| `sampling.config.target` | target.csv |",
        "| `sampling.lower_bound` | 0.0125 |",
        "| `sampling.lower_bound_per_angle` | yaw 0.01, pitch 0.0125, roll 0.015 |",
        "| `sampling.reached` | 0.0131 |", "| `split.form` | subject |", "| `exclude` | none |",
        "| `decisions` | none |",
        "| `sampling.notes` | 25,000 heads were requested, 30 are inside the bins. |",
    ):  # fmt: skip
        assert row in text
    assert "counts_before" not in text and "edges" not in text and "sampling.target`" not in text


def test_card_has_the_densities_of_pool_and_ubhpd(out):
    text = card(out)
    found = [manifest.read(out / f"{n}.parquet", ["yaw_deg", "drop_reason"]).to_pandas() for n in ("pool", "ubhpd")]
    yaw = [f.yaw_deg[f.drop_reason.isna() & (f.yaw_deg.abs() <= 90)] for f in found]
    row = next(line for line in text.splitlines() if line.startswith("| -6 to 6 |")).strip("| ").split(" | ")
    for cell, values in zip((row[1], row[4]), yaw):
        share = 100 * ((values >= -6) & (values < 6)).mean()
        assert cell == (f"{share:.2f}" if share else "0")
    assert "| bin | pool yaw | pool pitch | pool roll | UBHPD yaw | UBHPD pitch | UBHPD roll |" in text
    assert f"| all | {len(found[1]) - -(-len(found[1]) // 4)} |" not in text  # sides are sorted: test first
    assert f"| all | {-(-len(found[1]) // 4)} | {len(found[1]) - -(-len(found[1]) // 4)} |" in text


def test_limits_state_counts(out):
    found = "\n".join(limits(read_built(out)))
    assert "biwi: 11 heads of only 2 people" in found
    assert "300wlp, aflw2000: the source does not distinguish persons" in found
    assert "are rendered or warped" in found and "Bins without any head" in found


def test_card_and_croissant_contain_no_path_date_or_head(out, raw):
    for text in (card(out), json.dumps(croissant(out))):
        for path in (raw, out, "/tmp", "/home", "someone"):
            assert str(path) not in text
        for sample_id in manifest.read(out / "pool.parquet", ["sample_id"]).column("sample_id").to_pylist():
            assert sample_id not in text
        assert not re.search(r"20\d\d-\d\d-\d\d|\d\d:\d\d", text)


def test_equal_data_in_another_folder_gives_equal_bytes(raw, out, tmp_path):
    shutil.copytree(raw, tmp_path / "moved", copy_function=shutil.copyfile)
    again = made(tmp_path / "moved", tmp_path / "again")
    for write in (write_card, write_croissant):
        first, second = write(out), write(again)
        assert first.read_bytes() == second.read_bytes()
        assert write(out).read_bytes() == second.read_bytes()
    assert not [p for p in out.iterdir() if p.name.endswith(".part")]


def test_warnings_are_shown_without_paths(own):
    report = json.loads((own / "build.json").read_text())
    root = report["datasets"]["biwi"]["roots"][0][0]
    texts = [f"{root}/x.txt is odd (see /etc/passwd)", *(f"remark {i}" for i in range(12))]
    report["datasets"]["biwi"]["notes"] = [{"text": t, "is_warning": True, "count": 1} for t in texts]
    report_of(own, datasets=report["datasets"])
    text = card(own)
    assert "DATA/x.txt is odd (see passwd)." in text and "3 more warnings are in build.json." in text
    assert root not in text and "remark 9" not in text


def test_without_places_removes_absolute_paths():
    assert without_places(r"target C:\Users\me\t.csv, or /a/b/c.csv; half/way, 3/4 and /") == (
        "target t.csv, or c.csv; half/way, 3/4 and /"
    )


HOSTILE = "<img src=x onerror=alert(1)> [a](javascript:b) `c` | d\n# e\x1b[31m"


def test_markup_in_names_and_notes_of_a_hostile_folder_is_escaped(own):
    """None of them becomes HTML, a link, a heading, another cell or another line."""
    report = json.loads((own / "build.json").read_text())
    biwi = report["datasets"]["biwi"]
    biwi |= {
        "title": HOSTILE,
        "notes": [{"text": HOSTILE, "is_warning": True, "count": 1}],
        "options": {HOSTILE: HOSTILE},
    }
    biwi["dropped"] = {HOSTILE: 1}
    report_of(own, datasets=report["datasets"], ubhpd=HOSTILE, unbiased={HOSTILE: HOSTILE})
    table = manifest.read(own / "ubhpd.parquet")
    columns = [c._replace(meaning=HOSTILE) if c.name == "bin_yaw" else c for c in EXTRA]
    table = table.set_column(
        table.schema.get_field_index("split"), "split", pa.array([HOSTILE] * len(table), pa.string())
    )
    manifest.write_parquet([table], own / "ubhpd.parquet", (*COLUMNS, *columns))
    before = card(own)
    spans = re.sub(r"(`+).*?(?<!`)\1(?!`)", "", before.replace("\\`", ""))
    assert "<img" not in spans and re.search(r"(?<!\\)\]\(javascript", spans) is None
    assert "\x1b" not in before and not re.search("^# e", before, re.M)
    for block in before.split("\n\n"):
        if block.startswith("| "):
            cells = {line.replace("\\|", "").count("|") for line in block.splitlines()}
            assert len(cells) == 1, block


def test_croissant_has_every_file_and_a_field_per_column(out):
    content = croissant(out)
    assert [f["@id"] for f in content["distribution"]] == ["pool.parquet", "ubhpd.parquet"]
    for file in content["distribution"]:
        data = (out / file["contentUrl"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(data).hexdigest()
        assert file["contentSize"] == f"{len(data)} B"
    splits, pool, ubhpd = content["recordSet"]
    assert [row["splits/name"] for row in splits["data"]] == ["test", "train"]
    assert [f["name"] for f in pool["field"]] == [c.name for c in COLUMNS]
    assert [f["name"] for f in ubhpd["field"]] == [c.name for c in (*COLUMNS, *EXTRA)]
    fields = {f["name"]: f for f in ubhpd["field"]}
    assert fields["rotation"]["arrayShape"] == "9" and fields["rotation"]["dataType"] == "sc:Float"
    assert fields["split"]["references"] == {"field": {"@id": "splits/name"}}
    assert fields["yaw_deg"]["description"] == "canonical yaw, + toward image-left. Unit: deg."
    assert (fields["bin_yaw"]["dataType"], fields["synthetic"]["dataType"]) == ("sc:Integer", "sc:Boolean")


@pytest.mark.skipif(importlib.util.find_spec("mlcroissant") is None, reason="mlcroissant is not installed")
@pytest.mark.parametrize("has_ubhpd", [True, False])
def test_mlcroissant_accepts_and_reads_it(own, has_ubhpd):
    if not has_ubhpd:
        (own / "ubhpd.parquet").unlink()
    path = write_croissant(own)
    script = "import sys; from mlcroissant.scripts.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "validate", "--jsonld", str(path)], capture_output=True, text=True
    )
    assert done.returncode == 0 and "Done." in done.stderr, done.stderr
    import mlcroissant

    name = "ubhpd" if has_ubhpd else "pool"
    records = list(mlcroissant.Dataset(str(path)).records(name))
    rows = manifest.read(own / f"{name}.parquet").to_pylist()
    assert len(records) == len(rows)
    for record, row in zip(records, rows):
        assert record[f"{name}/sample_id"].decode() == row["sample_id"]
        if row["rotation"] is not None:
            assert record[f"{name}/rotation"] == row["rotation"]
        if has_ubhpd:
            assert record["ubhpd/split"].decode() == row["split"]


def test_card_of_a_pool_without_ubhpd(own):
    (own / "ubhpd.parquet").unlink()
    report = json.loads((own / "build.json").read_text())
    del report["unbiased"]
    (own / "build.json").write_text(json.dumps(report))
    text = card(own)
    assert text.startswith("# Head pose pool\n") and "## Splits" not in text and "UBHPD yaw" not in text
    assert "splits" not in [r["@id"] for r in croissant(own)["recordSet"]]


def test_card_of_a_pool_without_a_usable_head(raw, tmp_path):
    shutil.copytree(raw / "hpdb", tmp_path / "hpdb", copy_function=shutil.copyfile)
    for path in (tmp_path / "hpdb").glob("*/*_pose.txt"):
        path.write_text("")
    build(BuildConfig(("biwi",), tmp_path / "out", str(tmp_path / "hpdb")))
    text = write_card(tmp_path / "out").read_text()
    assert "No head is usable." in text and "## Densities" not in text
    write_croissant(tmp_path / "out")


def test_damaged_folders_are_refused_in_one_sentence(own, tmp_path):
    def refused(message, place=own):
        for write in (write_card, write_croissant):
            with pytest.raises(UbhpdError, match=message) as caught:
                write(place)
            assert "\n" not in str(caught.value)

    good = (own / "build.json").read_text()
    refused("build.json .*name the folder that ubhpd build --out wrote to", tmp_path)
    for bad, message in (("{", "is not JSON"), ("[]", "is not what ubhpd build writes"), ("{}", "is not what")):
        (own / "build.json").write_text(bad)
        refused(message)
    (own / "build.json").write_text(good)
    report_of(own, fingerprint="0" * 64)
    refused("is not the pool that build.json describes")
    (own / "build.json").write_text(good)
    (own / "CARD.md").mkdir()
    with pytest.raises(UbhpdError, match=r"Cannot write .*CARD.md \(.*directory.*\)"):
        write_card(own)
    (own / "pool.parquet").unlink()
    refused("holds no pool.parquet")


def test_command_writes_both_files(own, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["card", str(own)])
    assert stop.value.code == 0 and "CARD.md" in capsys.readouterr().out
    assert (own / "CARD.md").read_text() == card(own)
    assert json.loads((own / "croissant.json").read_text()) == croissant(own)
    with pytest.raises(SystemExit) as stop:
        cli.main(["card", str(own / "none")])
    assert stop.value.code == 2 and capsys.readouterr().err.startswith("Error: Cannot open")
