"""Every model in baselines/ goes from weights to a prediction file by the commands that a user types."""

import csv
from dataclasses import fields

import pytest

from ubhpd import manifest
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
    code, _, err = ubhpd("predict", "--weights", weights, "--manifest", built / "pool.parquet",
                         "--out", tmp_path / "p.csv", "--device", "cpu")  # fmt: skip
    assert code == 0, err
    with open(tmp_path / "p.csv", newline="") as file:
        found = [row["sample_id"] for row in csv.DictReader(file)]
    table = manifest.read(built / "pool.parquet", [c.name for c in COLUMNS]).to_pylist()
    assert found == [r["sample_id"] for r in table if r["drop_reason"] is None]
