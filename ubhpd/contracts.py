"""What every plug-in has to keep, as tests: `pytest --pyargs ubhpd.contracts`.

Every dataset, metric, model and export format that a plug-in adds is put through the same checks as those of ubhpd.
With UBHPD_CONTRACTS=all those of ubhpd are checked, too. docs/plugins.md explains how plug-ins are found.

A builder is read on a small tree of its own if its module has a function `write_sample(folder)`, which writes the raw
layout with invented heads and returns {sample_id: (yaw, pitch, roll)}; without it only its card is checked.
"""

from __future__ import annotations

import importlib
import math
import os
import random
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ubhpd.core import options, registry
from ubhpd.core.bins import N_BINS
from ubhpd.core.errors import UbhpdError
from ubhpd.core.records import DROP_REASONS, Drop, Note, Record
from ubhpd.core.rotation import matrix_from_euler, orthonormality_error
from ubhpd.evaluation import metric_cards, scoring
from ubhpd.exports._runner import ExportConfig, export, formats
from ubhpd.models import catalogue as models
from ubhpd.pool import sources
from ubhpd.pool.build import BuildConfig, build
from ubhpd.raw.folders import FolderTree
from ubhpd.raw.source import Source

_ALL = os.environ.get("UBHPD_CONTRACTS", "") == "all"
_HEADS = 60
_TOLERANCE_DEG = 1e-3


def _of_plugins(kind: str, known: Mapping[str, Any], module_of: Any) -> list[Any]:
    """Return the names to check, as parameters of a test: those of plug-ins, or all."""
    own = {plugin.module for plugin in registry.plugins(kind, _PACKAGES[kind])}
    names = [name for name, entry in known.items() if _ALL or module_of(entry) in own]
    if names:
        return names
    return [pytest.param("none", marks=pytest.mark.skip(reason=f"no plug-in adds to the {kind}"))]


_PACKAGES = {
    kind: importlib.import_module(f"ubhpd.{'baselines' if kind == 'models' else kind}")
    for kind in registry.PLUGIN_KINDS
}
_BUILDERS = _of_plugins("builders", sources.builders(), lambda own: own.__name__)
_METRICS = _of_plugins("metrics", metric_cards.metrics(), lambda own: own.__name__)
_MODELS = _of_plugins("models", models.catalogue(), lambda card: card.module)
_EXPORTS = _of_plugins("exports", formats(), lambda own: own.__name__)


def test_no_plugin_is_left_out() -> None:
    """Every plug-in that is found can be imported, has a valid card and a name of its own."""
    assert not registry.faults()


# Datasets


@pytest.mark.parametrize("name", _BUILDERS)
def test_card_of_a_builder(name: str) -> None:
    builder = sources.builders()[name]
    sources.check_builder(builder)
    assert builder.NAME == name and name.islower() and name.isalnum()
    for text in (builder.TITLE, builder.HOMEPAGE, builder.LICENSE, builder.CITATION, builder.ACCESS, builder.LAYOUT):
        assert text.strip()
    assert all(key.startswith(f"{name}/") and count > 0 for key, count in builder.PUBLISHED.items())
    for option in fields(builder.Options):
        assert option.default in option.metadata.get("choices", (option.default,))
    assert options.from_texts(builder.Options, {}, name) == builder.Options()


@pytest.mark.parametrize("name", _BUILDERS)
def test_an_empty_folder_is_not_the_dataset(name: str, tmp_path: Path) -> None:
    source = Source(FolderTree(str(tmp_path)))
    assert not sources.builders()[name].recognise(source, "")
    assert not sources.builders()[name].recognise(source, "nowhere")


@pytest.mark.parametrize("name", _BUILDERS)
def test_heads_of_a_builder(name: str, tmp_path: Path) -> None:
    """The heads of the sample have the poses that were written, unique ids, and whole records."""
    root, truth = _sample(name, tmp_path)
    items = _read(name, root)
    records = {r.sample_id: r for r in items if isinstance(r, Record)}
    assert set(records) == set(truth)
    ids = [item.sample_id for item in items if not isinstance(item, Note)]
    assert len(set(ids)) == len(ids) and all(own.startswith(f"{name}/") for own in ids)
    for sample_id, pose in truth.items():
        record = records[sample_id]
        angles = (record.yaw_deg, record.pitch_deg, record.roll_deg)
        np.testing.assert_allclose(np.array(angles, float), pose, atol=_TOLERANCE_DEG)
        rotation = np.reshape(np.array(record.rotation, float), (3, 3))
        assert orthonormality_error(rotation) < 1e-5
        np.testing.assert_allclose(rotation, matrix_from_euler(pose), atol=1e-4)
        assert (root / str(record.image_path)).is_file() and record.image_width and record.image_height
        if record.bbox_xyxy is not None:
            left, top, right, bottom = map(float, record.bbox_xyxy)
            assert left < right and top < bottom and record.bbox_kind


@pytest.mark.parametrize("name", _BUILDERS)
def test_an_empty_file_costs_heads_and_not_the_build(name: str, tmp_path: Path) -> None:
    """Files are emptied in turn: heads are refused with a reason, or one sentence says what is wrong."""
    root, truth = _sample(name, tmp_path)
    files = sorted(p for p in root.rglob("*") if p.is_file())
    for path in random.Random(0).sample(files, min(len(files), 12)):
        content = path.read_bytes()
        path.write_bytes(b"")
        try:
            items = _read(name, root)
        except UbhpdError as error:
            assert "\n" not in str(error)
        else:
            drops = [item for item in items if isinstance(item, Drop)]
            assert all(drop.reason in DROP_REASONS and drop.detail for drop in drops)
            assert {i.sample_id for i in items if isinstance(i, Record)} <= set(truth)
        path.write_bytes(content)


@pytest.mark.parametrize("name", _BUILDERS)
def test_a_build_of_a_builder(name: str, tmp_path: Path) -> None:
    """`ubhpd build` finds the sample by itself; a second build keeps its parts and its fingerprint."""
    root, truth = _sample(name, tmp_path)
    config = BuildConfig((name,), tmp_path / "out", roots={name: str(root)})
    first, second = build(config), build(config)
    assert first.datasets[name].heads == len(truth)
    assert second.units_read == 0 and second.fingerprint == first.fingerprint


def _sample(name: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    write = getattr(sources.builders()[name], "write_sample", None)
    if write is None:
        pytest.skip(f"the builder {name} has no write_sample(folder): only its card is checked")
    root = folder / "sample"
    root.mkdir()
    return root, write(root)


def _read(name: str, root: Path) -> list[Record | Drop | Note]:
    builder = sources.builders()[name]
    source, chosen = Source(FolderTree(str(root))), builder.Options()
    units = builder.units(source, chosen)
    assert len({unit.key for unit in units}) == len(units)
    return [item for unit in units for item in builder.read(source, unit, chosen)]


# Metrics


@pytest.mark.parametrize("name", _METRICS)
def test_card_and_scores_of_a_metric(name: str) -> None:
    metric = metric_cards.metrics()[name]
    metric_cards.check_metric(metric)
    found = metric.score(_statistics(*_predictions(3.0)), metric.Options())
    assert set(found) == set(metric.SCORES)
    assert all(np.ndim(value) == 0 for value in found.values())


@pytest.mark.parametrize("name", _METRICS)
def test_nothing_to_average_is_nan(name: str) -> None:
    metric = metric_cards.metrics()[name]
    found = metric.score(_statistics(np.empty((0, 3)), np.empty((0, 3))), metric.Options())
    assert all(np.isnan(value) for value in found.values())


@pytest.mark.parametrize("name", _METRICS)
def test_larger_errors_give_no_better_score(name: str) -> None:
    metric = metric_cards.metrics()[name]
    if metric.BETTER == "neither":
        pytest.skip("no value of it is the better one")
    near, far = (metric.score(_statistics(*_predictions(noise)), metric.Options()) for noise in (1.0, 8.0))
    for score in near:
        worse = float(far[score] - near[score])
        assert math.isnan(worse) or (worse >= 0.0) == (metric.BETTER == "lower") or worse == 0.0, score


@pytest.mark.parametrize("name", _METRICS)
def test_the_order_of_the_heads_does_not_matter(name: str) -> None:
    metric = metric_cards.metrics()[name]
    predicted, true = _predictions(3.0)
    order = np.random.default_rng(1).permutation(len(true))
    first = metric.score(_statistics(predicted, true), metric.Options())
    second = metric.score(_statistics(predicted[order], true[order]), metric.Options())
    assert all(second[score] == pytest.approx(float(value), nan_ok=True) for score, value in first.items())


def _predictions(noise: float) -> tuple[Any, Any]:
    draw = np.random.default_rng(0)
    true = np.clip(draw.normal(size=(400, 3)) * (35.0, 20.0, 15.0), -88.0, 88.0)
    return true + noise * draw.normal(size=true.shape), true


def _statistics(predicted: Any, true: Any) -> Any:
    own = scoring.statistics_of(scoring.sample_errors(scoring.Pairs(predicted, true)))
    return scoring.with_context(own, np.full((3, N_BINS), 50.0), np.array([1.1, 1.2, 1.3]))


# Models


@pytest.mark.parametrize("name", _MODELS)
def test_card_and_options_of_a_model(name: str) -> None:
    card = models.card(name)
    if card.kind == "reported":
        pytest.skip("it has no code")
    module, _ = models.configured(name)
    assert (module.TITLE, module.KIND, module.MODELS[name]) == (card.title, card.kind, card.options)


@pytest.mark.parametrize("name", _MODELS)
def test_a_network_predicts_learns_and_is_kept(name: str, tmp_path: Path) -> None:
    """It has as many parameters as it states, gives finite poses, learns, and a checkpoint gives the same poses."""
    card = models.card(name)
    if card.kind not in models.NETWORKS:
        pytest.skip(f"it is no network: {card.kind}")
    torch = pytest.importorskip("torch")
    from ubhpd.models.importing import invented_input
    from ubhpd.models.model import Model

    model = Model.untrained(name, {}, 0)
    network = model.network
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == card.parameters
    inputs = invented_input(card.kind, model.recipe, heads=4)
    network.eval()
    with torch.no_grad():
        pose = network.pose(network(inputs))
    assert tuple(pose.shape) in ((4, 3), (4, 3, 3)) and bool(torch.isfinite(pose).all())
    _check_learning(torch, network, inputs)
    recipe = model.module.training_recipe(model.config)
    assert recipe.epochs > 0 and recipe.batch_size > 0 and recipe.lr > 0
    network.eval()
    with torch.no_grad():
        pose = network.pose(network(inputs))
    model.save(tmp_path / "w.safetensors")
    again = Model.of_checkpoint(tmp_path / "w.safetensors").network.eval()
    with torch.no_grad():
        assert torch.equal(again.pose(again(inputs)), pose)


def _check_learning(torch: Any, network: Any, inputs: Any) -> None:
    """Assert that a step back reaches every trainable parameter with finite numbers."""
    from ubhpd.nn.contract import Target

    angles = torch.linspace(-40.0, 40.0, 12).reshape(4, 3)
    rotations = torch.from_numpy(matrix_from_euler(angles.numpy())).float()
    network.train()
    try:
        terms = network.loss(network(inputs), Target(angles, rotations, torch.zeros((4, 68, 2))))
    except UbhpdError:  # it learns from something else, such as a teacher
        return
    sum(terms.values()).backward()
    trainable = [p for p in network.parameters() if p.requires_grad]
    assert trainable and all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in trainable)


# Export formats


@pytest.fixture(scope="session")
def small_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a build of 60 heads in noise, each with a box."""
    import cv2

    folder = tmp_path_factory.mktemp("contract")
    draw = np.random.default_rng(0)
    lines = ["image,yaw,pitch,roll,x1,y1,x2,y2,split"]
    for number in range(_HEADS):
        cv2.imwrite(str(folder / f"{number:03d}.png"), draw.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        yaw, pitch, roll = draw.normal(size=3) * (30, 15, 10)
        lines.append(f"{number:03d}.png,{yaw},{pitch},{roll},10,8,50,44,train")
    (folder / "heads.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    build(BuildConfig(("table",), folder / "out", roots={"table": str(folder / "heads.csv")}))
    return folder / "out"


@pytest.mark.parametrize("name", _EXPORTS)
def test_an_export_writes_every_head_inside_its_folder(name: str, small_build: Path, tmp_path: Path) -> None:
    out, size = tmp_path / "export", 32 if formats()[name].CARD.crops else None
    report = export(ExportConfig(small_build, name, size=size, out=out))
    assert sum(report.heads.values()) == _HEADS and report.files
    assert all((out / file).resolve().is_relative_to(out.resolve()) and (out / file).exists() for file in report.files)
    before = {p: p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
    again = export(ExportConfig(small_build, name, size=size, out=tmp_path / "again"))
    after = {tmp_path / "export" / p.relative_to(tmp_path / "again"): p.read_bytes()
             for p in sorted((tmp_path / "again").rglob("*")) if p.is_file()}  # fmt: skip
    assert again.files == report.files and set(before) == set(after)
    assert [p for p in before if before[p] != after[p] and p.name in report.files] == []
