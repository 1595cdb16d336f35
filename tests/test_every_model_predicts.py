"""Every model in baselines/ goes from weights to a prediction file by the commands that a user types."""

import csv
from dataclasses import fields

import pytest

from ubhpd import manifest
from ubhpd.images.landmarks import POINT_COLUMNS
from ubhpd.manifest.schema import COLUMNS
from ubhpd.models.catalogue import NETWORKS, catalogue, module_of
from ubhpd.pool.build import BuildConfig, build
from ubhpd.synth.writers import aflw2000_writer

SMALL = {"size": "64", "map_size": "4", "frames": "2"}
RUNNABLE = [c for c in catalogue().values() if c.kind != "reported"]
FIRST = {c.file: c.name for c in reversed(RUNNABLE)}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("every")
    aflw2000_writer.write(root / "raw", 6, distinct_images=3)
    build(BuildConfig(("aflw2000",), root / "out", str(root / "raw")))
    return root / "out"


def with_landmarks_of_a_file(built, tmp_path, ubhpd):
    """The pool with its landmarks read from a file, as those of FAN can come."""
    table = manifest.read(built / "pool.parquet", ["sample_id", "landmarks68"]).to_pylist()
    with open(tmp_path / "points.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["sample_id", *POINT_COLUMNS])
        rows.writerows([row["sample_id"], *row["landmarks68"]] for row in table if row["landmarks68"] is not None)
    out = built / "of-a-file.parquet"
    code, _, err = ubhpd(
        "landmarks", "--manifest", built / "pool.parquet", "--out", out, "--from", tmp_path / "points.csv", "--all"
    )
    assert code == 0, err
    return out


@pytest.mark.parametrize(
    "card",
    [c if c.name in FIRST.values() else pytest.param(c, marks=pytest.mark.slow) for c in RUNNABLE],
    ids=lambda card: card.name,
)
def test_it_predicts_from_the_command_line(card, built, tmp_path, ubhpd):
    pytest.importorskip("safetensors")
    if card.kind in NETWORKS:
        pytest.importorskip("torch")
    weights = tmp_path / "w.safetensors"
    if card.kind in NETWORKS:
        known = {f.name for f in fields(module_of(card).Config)}
        options = [text for key, value in SMALL.items() if key in known for text in ("-O", f"{key}={value}")]
        code, _, err = ubhpd("weights", "init", "--model", card.name, "--out", weights, *options)
    else:
        code, _, err = ubhpd(
            "weights", "fit", "--model", card.name, "--manifest", built / "pool.parquet", "--out", weights
        )
    assert code == 0, err
    heads = built / "pool.parquet"
    if card.options.get("landmarks") == "fan":
        heads = with_landmarks_of_a_file(built, tmp_path, ubhpd)
    code, _, err = ubhpd("predict", "--weights", weights, "--manifest", heads,
                         "--out", tmp_path / "p.csv", "--device", "cpu")  # fmt: skip
    assert code == 0, err
    with open(tmp_path / "p.csv", newline="") as file:
        found = [row["sample_id"] for row in csv.DictReader(file)]
    table = manifest.read(built / "pool.parquet", [c.name for c in COLUMNS]).to_pylist()
    assert found == [r["sample_id"] for r in table if r["drop_reason"] is None]
