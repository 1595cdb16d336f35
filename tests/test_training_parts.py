"""The parts of training: weights that balance, the learning rate, the order of heads, crops, batches, states."""

import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from torch import nn
from training_room import PROTOCOL, QUIET, write_build

from ubhpd.core.bins import bin_index
from ubhpd.core.errors import UbhpdError
from ubhpd.images.crops import crop, recipe_named
from ubhpd.images.reading import Images
from ubhpd.inference.manifest_source import plan_of
from ubhpd.nn.contract import InputRecipe, PoseNetwork, Target, TrainingRecipe
from ubhpd.nn.outputs import matrix_from_euler
from ubhpd.training import crop_cache, state
from ubhpd.training.feeding import Feed, Order, TrainingHeads, normalised
from ubhpd.training.loop import clip, learning_rate, loss_terms, optimizer_of, set_learning_rate
from ubhpd.training.request import TrainRequest
from ubhpd.training.state import Log, Waits
from ubhpd.training.training_heads import loss_weights, sampling_weights, smoothed_density, training_split

RECIPE = TrainingRecipe(epochs=10, batch_size=4, lr=1.0)
SEES = InputRecipe("square", 16)


# Balance


def test_joint_weights_by_hand():
    """Four heads in one cell, one in another, one beyond the bins."""
    angles = np.array([[0, 0, 0]] * 4 + [[30, 0, 0], [0, 0, 95]], dtype=float)
    # Of the 5 inside, in 2 cells: 5 / (2 * 4) and 5 / (2 * 1); beside them 1. The mean is 1 already.
    assert np.allclose(sampling_weights(angles), [0.625] * 4 + [2.5, 1.0])


def test_drawing_by_joint_weights_takes_every_cell_equally_often():
    angles = np.array([[0, 0, 0]] * 90 + [[30, 0, 0]] * 9 + [[0, 40, 0]], dtype=float)
    drawn = np.concatenate([Order(np.arange(100), 100, 0, sampling_weights(angles)).batch(e, 0) for e in range(60)])
    counts = np.bincount(np.repeat([0, 1, 2], [90, 9, 1])[drawn])
    assert np.allclose(counts / counts.sum(), 1 / 3, atol=0.02)


def test_angle_weights_by_hand():
    """Yaw in bins of 3 and 1 heads, pitch in one, roll in 2 and 1 with one beyond."""
    angles = np.array([[0, 0, 0], [0, 0, 0], [0, 0, 20], [50, 0, 95]], dtype=float)
    yaw = [4 / (2 * 3)] * 3 + [4 / (2 * 1)]
    roll = [3 / (2 * 2), 3 / (2 * 2), 3 / (2 * 1), 1]
    assert np.allclose(loss_weights(angles), [(y + 1 + r) / 3 for y, r in zip(yaw, roll)])
    assert loss_weights(angles).mean() == pytest.approx(1)


def test_smoothing_by_hand():
    """A single bin spreads over five: exp(-k^2 / 8), normalised; at the end of the bins it loses what is beyond."""
    kernel = np.exp(-np.array([4, 1, 0, 1, 4]) / 8)
    kernel /= kernel.sum()
    density = np.zeros((3, 15))
    density[0, 7] = density[1, 0] = 1
    found = smoothed_density(density)
    assert np.allclose(found[0], np.concatenate([np.zeros(5), kernel, np.zeros(5)]))
    assert np.allclose(found[1], np.concatenate([kernel[2:], np.zeros(12)])) and not found[2].any()


def test_smoothed_weights_by_hand():
    """Three heads of yaw bin 7 and one of bin 8: the smoothed densities are those of neighbours."""
    angles = np.array([[0, 0, 0]] * 3 + [[10, 0, 0]], dtype=float)
    assert bin_index(angles)[:, 0].tolist() == [7, 7, 7, 8]
    g = np.exp(-np.array([0, 1]) / 8) / np.exp(-np.array([4, 1, 0, 1, 4]) / 8).sum()
    inverse = 1 / np.array([[0.75 * g[0] + 0.25 * g[1]] * 3 + [0.25 * g[0] + 0.75 * g[1]]])[0]
    wanted = (inverse / inverse.mean() + 2) / 3
    found = loss_weights(angles, smoothed=True)
    assert np.allclose(found, wanted)
    assert found[3] / found[0] < loss_weights(angles)[3] / loss_weights(angles)[0]


class Plain(PoseNetwork):
    """Answers its input; squared error."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.other = nn.Linear(3, 3)

    def forward(self, x):
        return {"angles": self.layer(x) + self.other(x)}

    def pose(self, output):
        return output["angles"]

    def loss(self, output, target):
        return {"squared": ((output["angles"] - target.angles_deg) ** 2).mean()}

    def learning_rates(self):
        return [(list(self.layer.parameters()), 1.0), (list(self.other.parameters()), 5.0)]


def truth(angles):
    return Target(angles, matrix_from_euler(angles))


def test_weighted_loss_by_hand():
    output, angles = torch.tensor([[1.0, 0, 0], [2, 0, 0], [3, 0, 0]]), torch.zeros(3, 3)
    weights = np.array([0.5, 2.0, 0.5])
    found = loss_terms(Plain(), {"angles": output}, truth(angles), weights)["squared"]
    assert float(found) == pytest.approx((0.5 * 1 + 2 * 4 + 0.5 * 9) / 9)
    plain = loss_terms(Plain(), {"angles": output}, truth(angles))["squared"]
    assert float(loss_terms(Plain(), {"angles": output}, truth(angles), np.ones(3))["squared"]) == float(plain)


def test_half_precision_answers_are_judged_in_single():
    output = {"angles": torch.tensor([[90.25, 0, 0]], dtype=torch.bfloat16)}
    assert loss_terms(Plain(), output, truth(torch.zeros(1, 3)))["squared"].dtype == torch.float32


# Optimiser


@pytest.mark.parametrize(
    ("recipe", "wanted"),
    [
        ({}, [1.0] * 10),
        ({"schedule": "step", "milestones": (3, 8)}, [1.0] * 3 + [0.1] * 5 + [0.01] * 2),
        ({"schedule": "exponential", "gamma": 0.5}, [0.5**i for i in range(10)]),
        ({"warmup_epochs": 3}, [0.25, 0.5, 0.75] + [1.0] * 7),
        ({"schedule": "cosine", "final_share": 0.2}, [0.2 + 0.8 * (1 + np.cos(np.pi * i / 9)) / 2 for i in range(10)]),
    ],
)
def test_the_learning_rate_by_hand(recipe, wanted):
    own = replace(RECIPE, **recipe)
    assert np.allclose([learning_rate(own, s, 10) for s in range(10)], wanted)


def test_a_shorter_run_has_the_whole_schedule():
    own = replace(RECIPE, epochs=90, schedule="step", milestones=(30, 60))
    assert [learning_rate(own, s, 900) for s in (299, 300, 599, 600)] == pytest.approx([1, 0.1, 0.1, 0.01])
    assert [learning_rate(own, s, 6) for s in range(6)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_the_optimiser_takes_torchs_own_step(kind):
    torch.manual_seed(0)
    network, twin = Plain(), Plain()
    twin.load_state_dict(network.state_dict())
    is_sgd = kind == "sgd"
    recipe = replace(RECIPE, optimizer=kind, weight_decay=0.1, momentum=0.9 * is_sgd, nesterov=is_sgd)
    own = optimizer_of(network, recipe)
    set_learning_rate(own, 0.01)
    more = {"momentum": 0.9, "nesterov": True} if is_sgd else {}
    named = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[kind]
    others = [
        named(p, lr, weight_decay=0.1, **more)
        for p, lr in ((twin.layer.parameters(), 0.01), (twin.other.parameters(), 0.05))
    ]
    for _ in range(3):
        for net in (network, twin):
            net.zero_grad()
            net.loss(net(torch.ones(2, 3)), truth(torch.zeros(2, 3)))["squared"].backward()
        for one in (own, *others):
            one.step()
    assert all(torch.allclose(a, b, rtol=1e-5) for a, b in zip(network.parameters(), twin.parameters()))


def test_gradients_are_clipped_by_value_then_by_norm():
    p = nn.Parameter(torch.zeros(2))
    p.grad = torch.tensor([3.0, 40.0])
    clip([p], replace(RECIPE, clip_value=4.0, clip_norm=1.0))
    assert torch.allclose(p.grad, torch.tensor([0.6, 0.8]), atol=1e-5)


def test_a_parameter_without_a_learning_rate_is_told():
    network = Plain()
    network.learning_rates = lambda: [(list(network.layer.parameters()), 1.0)]
    with pytest.raises(UbhpdError, match="no learning rate for other.weight"):
        optimizer_of(network, RECIPE)


# State


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_a_state_comes_back_as_it_was(kind, tmp_path):
    network, twin = Plain(), Plain()
    recipe = replace(RECIPE, optimizer=kind, momentum=0.5 if kind == "sgd" else 0.0)
    one, two = optimizer_of(network, recipe), optimizer_of(twin, recipe)
    network.loss(network(torch.ones(2, 3)), truth(torch.zeros(2, 3)))["squared"].backward()
    one.step()
    own = network.state_dict()
    kept = state.State(state.Position(7, 2, 3.5, 10, 4.0, 1), own, own, state.optimizer_tensors(one))
    state.save(tmp_path, kept, {"lr": 1.0})
    found = state.load(tmp_path, {"lr": 1.0})
    state.fill_optimizer(two, found.optimizer)
    assert found.position == kept.position and set(found.best) == set(own)
    assert all(torch.equal(found.network[n], own[n]) for n in own)
    before, after = one.state_dict()["state"], two.state_dict()["state"]
    assert all(torch.equal(before[n][k], after[n][k]) for n in before for k in before[n]) and before
    with pytest.raises(UbhpdError, match=r"with recipe.lr 1.0 and not 2.0"):
        state.check_same(tmp_path, {"recipe": {"lr": 1.0}}, {"recipe": {"lr": 2.0}})


def test_a_log_goes_on_from_the_state(tmp_path):
    log = Log(tmp_path, 0)
    log.write({"step": 1, "epoch": 1, "loss": 0.5}, {"a": 0.25, "b": 0.25})
    size = log.bytes
    log.write({"step": 2, "epoch": 1, "loss": 0.4}, {"a": 0.4})
    log.close()
    again = Log(tmp_path, size)
    again.write({"step": 2, "epoch": 1, "loss": 0.3}, {})
    again.close()
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[1:] == ["1,1,,0.5,a=0.25 b=0.25,,,", "2,1,,0.3,,,,"]


def test_tensorboard_gets_the_same_numbers_where_it_is_there(tmp_path, monkeypatch):
    given = []

    class Writer:
        def __init__(self, folder):
            self.close = lambda: given.append("closed")

        def add_scalar(self, name, value, step):
            given.append((name, value, step))

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    log = Log(tmp_path, 0)
    log.write({"step": 3, "lr": 0.5, "validation_error_deg": None}, {"a": 0.25})
    log.close()
    assert given == [("lr", 0.5, 3), ("a", 0.25, 3), "closed"]


def test_the_share_of_waiting_is_measured(monkeypatch):
    clock = iter([0.0, 1.0, 2.5, 6.0])
    monkeypatch.setattr("ubhpd.training.state.time.perf_counter", lambda: next(clock))
    waits = Waits(torch.device("cpu"))
    waits.end(waits.begin())
    assert waits.read() == (6.0, 0.25)


# Order and batches


def test_every_head_comes_once_an_epoch_in_another_order():
    order = Order(np.arange(100, 112), 4, 3)
    epochs = [np.concatenate([order.batch(e, s) for s in range(order.steps)]) for e in range(2)]
    assert order.steps == 3 and all(sorted(e) == list(range(100, 112)) for e in epochs)
    assert list(epochs[0]) != list(epochs[1]) and list(epochs[0]) == list(
        np.concatenate([Order(np.arange(100, 112), 4, 3).batch(0, s) for s in range(3)])
    )
    assert (Order(np.arange(11), 4, 0).steps, Order(np.arange(3), 4, 0).batch_size) == (2, 3)
    with pytest.raises(UbhpdError, match="divided among 3 processes"):
        Order(np.arange(11), 4, 0, parts=3)


@pytest.fixture
def heads():
    draw = np.random.default_rng(0)
    points = draw.uniform(2, 14, (20, 68, 2))
    points[3:6] = np.nan
    names = [f"h{i}" for i in range(20)]
    pixels = draw.integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    return TrainingHeads(names, draw.uniform(-60, 60, (20, 3)), pixels, points, 16)


def wanted(order, epochs=2):
    return ((e, s * order.batch_size, order.batch(e, s)) for e in range(epochs) for s in range(order.steps))


def test_batches_are_the_same_for_any_number_of_threads(heads):
    names = ("flip", "hopenet_crop", "gamma", "fsanet_zoom")
    one, many = (list(Feed(heads, SEES, names, 5, t).batches(wanted(Order(np.arange(20), 6, 1)))) for t in (1, 4))
    assert len(one) == len(many) == 6
    for a, b in zip(one, many):
        assert torch.equal(a.inputs, b.inputs) and torch.equal(a.target.angles_deg, b.target.angles_deg)
    other = list(Feed(heads, SEES, names, 6, 1).batches(wanted(Order(np.arange(20), 6, 1))))
    assert not all(torch.equal(a.inputs, b.inputs) for a, b in zip(one, other))


@pytest.mark.parametrize("cores, size, given, wanted", [(16, 64, 0, 2), (16, 65, 0, 4), (3, 224, 0, 3), (16, 64, 7, 7)])
def test_few_threads_prepare_heads_unless_more_are_asked_for(cores, size, given, wanted, heads, monkeypatch):
    monkeypatch.setattr("ubhpd.training.feeding.cores", lambda: cores)
    used = []
    monkeypatch.setattr("ubhpd.training.feeding.in_order", lambda work, items, threads: used.append(threads) or [])
    list(Feed(heads, replace(SEES, size=size), (), 0, given).unchanged(iter([])))
    assert used == [wanted]


def test_a_window_of_a_larger_crop_is_drawn_in_training_and_the_middle_otherwise(heads):
    larger = heads.size
    seen = replace(SEES, size=larger - 4)
    feed = Feed(heads, seen, (), 0, 1)
    (plain,) = feed.unchanged(iter([np.arange(3)]))
    middle = heads.pixels[:3, 2:-2, 2:-2]
    assert torch.equal(plain.inputs, torch.from_numpy(np.ascontiguousarray(middle)))
    points = heads.landmarks[:3] - 2
    assert plain.target.landmarks.numpy() == pytest.approx(points / (larger - 4) - 0.5, abs=1e-6, nan_ok=True)
    places = set()
    for epoch in range(40):
        (batch,) = feed.batches(iter([(epoch, 0, np.arange(1))]))
        found = [
            (x, y) for x in range(5) for y in range(5)
            if np.array_equal(batch.inputs[0], heads.pixels[0, y : y + larger - 4, x : x + larger - 4])
        ]  # fmt: skip
        assert len(found) == 1
        places.add(found[0])
        moved = heads.landmarks[0] - found[0]
        assert batch.target.landmarks[0].numpy() == pytest.approx(moved / (larger - 4) - 0.5, abs=1e-6, nan_ok=True)
    assert {x for x, _ in places} == {y for _, y in places} == set(range(5))


def test_a_flip_turns_pixels_angles_rotation_and_landmarks(heads):
    (batch,) = Feed(heads, SEES, ("flip",), 0, 1).batches(iter([(0, 0, np.arange(20))]))
    plain = next(Feed(heads, SEES, (), 0, 1).unchanged(iter([np.arange(20)])))
    flipped = batch.target.angles_deg[:, 0] == -plain.target.angles_deg[:, 0]
    assert 0 < flipped.sum() < 20
    assert torch.equal(batch.inputs[flipped], plain.inputs[flipped].flip(2))
    assert torch.equal(batch.inputs[~flipped], plain.inputs[~flipped])
    assert torch.allclose(batch.target.rotation, matrix_from_euler(batch.target.angles_deg), atol=1e-5)
    mean = [t.landmarks[..., 0].nanmean(dim=1) for t in (batch.target, plain.target)]
    known = ~mean[0].isnan()
    assert known.tolist() == [i not in (3, 4, 5) for i in range(20)]
    assert torch.allclose(mean[0][known & flipped], -mean[1][known & flipped], atol=1e-5)
    assert np.allclose(plain.target.landmarks[0], heads.landmarks[0] / 16 - 0.5, atol=1e-6)


def test_all_images_of_a_sequence_change_alike(heads):
    same = replace_pixels(heads, np.broadcast_to(heads.pixels[:1], heads.pixels.shape))
    window = np.stack([np.maximum(np.arange(20) - 1, 0), np.arange(20)], axis=1)
    feed = Feed(replace(same, window=window), SEES, ("flip", "hopenet_crop", "gamma"), 0, 1)
    (batch,) = feed.batches(iter([(0, 0, np.arange(20))]))
    assert batch.inputs.shape == (20, 2, 16, 16, 3)
    assert torch.equal(batch.inputs[:, 0], batch.inputs[:, 1])
    plain = next(Feed(replace(heads, window=window), SEES, (), 0, 1).unchanged(iter([np.array([7])])))
    assert np.array_equal(plain.inputs[0].numpy(), heads.pixels[[6, 7]])


def replace_pixels(heads, pixels):
    return replace(heads, pixels=np.ascontiguousarray(pixels))


def test_a_network_of_landmarks_sees_them_and_takes_no_augmentation_of_images(heads):
    seen = replace(heads, pixels=None)
    batch = next(Feed(seen, SEES, (), 0, 1).unchanged(iter([np.arange(4)])))
    assert np.allclose(batch.inputs, heads.landmarks[:4] / 16 - 0.5, atol=1e-6, equal_nan=True)
    with pytest.raises(UbhpdError, match="flip changes images"):
        Feed(seen, SEES, ("flip",), 0)


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (2, 4, 8, 8, 3)])
def test_pixels_are_normalised_as_in_prediction(shape):
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
    mean, std = torch.tensor([1.0, 2, 3]).view(3, 1, 1), torch.tensor([2.0, 4, 8]).view(3, 1, 1)
    plain, last = (normalised(pixels, mean, std, c) for c in (False, True))
    by_hand = (pixels.float() - mean.flatten()) / std.flatten()
    assert torch.equal(plain.movedim(-3, -1), by_hand) and torch.equal(plain, last)
    assert plain.is_contiguous() and not last.is_contiguous()


# Crops


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return write_build(tmp_path_factory.mktemp("crops"))


@pytest.fixture(scope="module")
def plan(built):
    side = training_split(built, PROTOCOL)
    return plan_of(side.table, SEES, side.origin["manifest_fingerprint"])


def cut(plan, built, folder, recipe=SEES):
    return crop_cache.crops_of(plan, recipe, built, folder, QUIET, 2)


def test_the_cache_holds_what_the_recipe_cuts(plan, built, tmp_path):
    found = cut(plan, built, tmp_path)
    images, how = Images.of_build(built), recipe_named("square")
    for row in range(0, len(plan), 9):
        image = images.image(plan.texts["dataset"][row], plan.texts["image_path"][row])
        assert np.array_equal(found.pixels[row], crop(image, plan.box[row], how, 16, "RGB"))
    assert found.is_cut.all() and found.problems == []
    assert sorted(p.suffixes[-1] for p in tmp_path.iterdir()) == [".h5", ".json"]
    with h5py.File(next(tmp_path.glob("*.h5"))) as file:
        assert np.array_equal(file["image"], found.pixels) and file["image"].chunks is None


def test_the_cache_is_cut_once_and_named_by_what_decides_it(plan, built, tmp_path, monkeypatch):
    first = cut(plan, built, tmp_path)
    keys = {
        crop_cache.key_of(plan, r)
        for r in (SEES, replace(SEES, size=24), replace(SEES, colour="BGR"), replace(SEES, crop="hopenet"))
    }
    keys.add(crop_cache.key_of(replace(plan, box=plan.box + 1), SEES))
    assert len(keys) == 5
    monkeypatch.setattr("ubhpd.training.crop_cache.ManifestSource", None)
    assert np.array_equal(cut(plan, built, tmp_path).pixels, first.pixels)


def flipped(content, place):
    changed = bytearray(content)
    changed[place] ^= 1
    return bytes(changed)


DAMAGES = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[:3000],
    "last byte lost": lambda content: content[:-1],
    "a bit of a pixel": lambda content: flipped(content, len(content) // 2),
    "a bit of the header": lambda content: flipped(content, 100),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_cache_is_cut_again_and_that_is_said(damage, plan, built, tmp_path, caplog):
    pixels = cut(plan, built, tmp_path).pixels.copy()
    (path,) = tmp_path.glob("*.h5")
    path.write_bytes(damage(path.read_bytes()))
    assert np.array_equal(cut(plan, built, tmp_path).pixels, pixels)
    assert f"{path} is damaged: its crops are cut again." in caplog.messages


@pytest.mark.parametrize("text", ["", "{", "[" * 10_000, '{"crc32": "x", "file": 3}', '{"crc32": 1, "file": "2"}'])
def test_a_cache_whose_checksum_is_damaged_is_cut_again(text, plan, built, tmp_path, caplog):
    pixels = cut(plan, built, tmp_path).pixels.copy()
    (note,) = tmp_path.glob("*.json")
    note.write_text(text)
    assert np.array_equal(cut(plan, built, tmp_path).pixels, pixels)
    assert "is damaged: its crops are cut again." in caplog.text


def test_a_copied_cache_is_verified_once_and_used(plan, built, tmp_path, monkeypatch):
    pixels = cut(plan, built, tmp_path / "first").pixels.copy()
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    monkeypatch.setattr("ubhpd.training.crop_cache.ManifestSource", None)
    read = []
    checksum = crop_cache._checksum
    monkeypatch.setattr("ubhpd.training.crop_cache._checksum", lambda path: read.append(path) or checksum(path))
    for _ in range(2):
        assert np.array_equal(cut(plan, built, tmp_path / "copy").pixels, pixels)
    assert len(read) == 1


@pytest.mark.parametrize("batches", [1, 2])
def test_a_cut_that_was_stopped_goes_on(batches, plan, built, tmp_path, monkeypatch):
    monkeypatch.setattr("ubhpd.inference.manifest_source.BATCH_HEADS", 8)
    monkeypatch.setattr("ubhpd.training.crop_cache._MARK_EVERY", 8)
    wanted = cut(plan, built, tmp_path / "whole").pixels
    own, read = Images.image, []

    def stops(self, *where):
        read.append(where)
        if len(read) > 8 * batches + 3:
            raise KeyboardInterrupt
        return own(self, *where)

    monkeypatch.setattr(Images, "image", stops)
    monkeypatch.setattr("ubhpd.training.crop_cache.ManifestSource", one_thread)
    with pytest.raises(KeyboardInterrupt):
        cut(plan, built, tmp_path / "cut")
    monkeypatch.setattr(Images, "image", lambda self, *where: read.append(where) or own(self, *where))
    read.clear()
    assert np.array_equal(cut(plan, built, tmp_path / "cut").pixels, wanted)
    assert len(read) < len(plan) and sorted(p.suffix for p in (tmp_path / "cut").iterdir()) == [".h5", ".json"]


def one_thread(plan, build, recipe, sees, threads):
    from ubhpd.inference.manifest_source import ManifestSource

    return ManifestSource(plan, build, recipe, sees, 1)


def test_heads_whose_image_is_gone_are_named(plan, built, tmp_path, monkeypatch):
    own = Images.image

    def gone(self, dataset, path, frame=None):
        if path == plan.texts["image_path"][5]:
            raise UbhpdError("it is gone")
        return own(self, dataset, path, frame)

    monkeypatch.setattr(Images, "image", gone)
    found = cut(plan, built, tmp_path)
    assert found.problems == [(plan.texts["sample_id"][5], "it is gone")]
    assert np.flatnonzero(~found.is_cut).tolist() == [5]
    monkeypatch.setattr(Images, "image", lambda *a: (_ for _ in ()).throw(UbhpdError("all gone")))
    with pytest.raises(UbhpdError, match="None of the images.*all gone"):
        cut(plan, built, tmp_path / "none")


def test_too_little_room_is_told_before_and_a_full_disk_when_it_comes(plan, built, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("ubhpd.training.crop_cache._ROOM", 1e12)
        with pytest.raises(UbhpdError, match="GB left: make room or name another folder by --cache"):
            cut(plan, built, tmp_path)

    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ubhpd.training.crop_cache.os.pwrite", full)
    with pytest.raises(UbhpdError, match="No space left on device.*what is cut is kept"):
        cut(plan, built, tmp_path)


def test_a_folder_that_was_published_as_a_whole_is_no_recording(plan):
    """300W-LP's folders are: each head leads up to itself alone."""
    assert set(plan.texts["sequence_id"]) == {""}
    assert np.array_equal(plan.before(3), np.repeat(np.arange(len(plan))[:, None], 3, axis=1))


def test_a_request_says_what_it_cannot_be():
    for wrong in ({"precision": "8"}, {"batch_size": 0}, {"workers": -1}, {"validation": 1.0}, {"optimizer": "lion"}):
        with pytest.raises(UbhpdError) as found:
            TrainRequest("trial", None, None, **wrong)
        assert next(iter(wrong)) in str(found.value)


def test_two_runs_do_not_cut_the_same_crops_at_once(tmp_path, monkeypatch):
    def locked(*arguments):
        raise BlockingIOError(11, "unable to lock file")

    monkeypatch.setattr(crop_cache, "key_of", lambda plan, recipe: "key")
    monkeypatch.setattr(crop_cache, "_cut", locked)
    with pytest.raises(UbhpdError, match="Another run is cutting the same crops"):
        crop_cache.crops_of(None, InputRecipe("square", 64), tmp_path, tmp_path, QUIET)
