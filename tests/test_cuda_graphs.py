"""Work recorded as a CUDA graph: what can be recorded at all, on any machine; that results are equal, on a GPU."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ubhpd.inference.network_predictor import FromPixels, NetworkPredictor, input_shape
from ubhpd.inference.onnx_export import random_inputs
from ubhpd.models.catalogue import NETWORKS, catalogue
from ubhpd.models.model import Model
from ubhpd.nn import tracing
from ubhpd.nn.contract import Target
from ubhpd.training.distributed import Team
from ubhpd.training.feeding import Feed, HeadBatch, Order, TrainingHeads, normalised
from ubhpd.training.loop import Loop, Work, clip, loss_terms, optimizer_of, set_learning_rate
from ubhpd.training.request import TrainRequest

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
# What makes the program wait for a GPU: a value is asked for, or a result's shape depends on values.
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "unique", "equal.default")
HEADS = 4


def layers():
    """One network of each set of the same layers; EHPNet without teachers stands for the one that has them."""
    first = {}
    for name, card in catalogue().items():
        if card.kind in NETWORKS and name != "ehpnet":
            first.setdefault((card.file, card.parameters, card.options.get("recipe")), name)
    return sorted(first.values())


def target_of(model, heads, device):
    draw = np.random.default_rng(1)
    angles = torch.from_numpy(draw.uniform(-40, 40, (heads, 3)).astype(np.float32)).to(device)
    rotation = torch.eye(3, device=device).expand(heads, 3, 3).contiguous()
    landmarks = torch.from_numpy(draw.uniform(-0.4, 0.4, (heads, 68, 2)).astype(np.float32)).to(device)
    return Target(angles, rotation, landmarks)


class Watch(TorchDispatchMode):
    """Notes operations that would make the program wait for the device."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, str(func)
        if name.startswith("aten._to_copy"):
            target = torch.device(kwargs.get("device") or args[0].device)
            moves = target.type != args[0].device.type
        else:
            by_mask = name.startswith("aten.index.") and any(i is not None and i.dtype == torch.bool for i in args[1])
            moves = by_mask or any(word in name for word in WAITS)
        if moves:
            self.found.append(name)
        return func(*args, **kwargs)


@pytest.mark.parametrize("name", layers())
def test_no_network_makes_the_program_wait_in_a_training_step_or_an_answer(name, monkeypatch):
    """On the meta device nothing has a value, so what asks for one fails there, on a machine without a GPU too."""

    def refused(*args, device=None, **kwargs):
        raise AssertionError("a constant made from numbers of the program is copied to the device at every step")

    model = Model.untrained(name)
    network = copy.deepcopy(model.network).to("meta").train()
    recipe = model.module.training_recipe(model.config)
    kind = torch.float32 if model.kind == "landmarks" else torch.uint8
    inputs = torch.empty((HEADS, *input_shape(model)), dtype=kind, device="meta")
    target = Target(*(None if t is None else t.to("meta") for t in target_of(model, HEADS, "cpu")))
    scale = torch.ones(3, 1, 1, device="meta")
    pixels = FromPixels(network, model.recipe).to("meta")
    for function in ("tensor", "as_tensor"):
        monkeypatch.setattr(torch, function, refused)
    monkeypatch.setattr(torch.Tensor, "new_tensor", refused)
    with Watch() as watch:
        terms = loss_terms(network, network(normalised(inputs, scale, scale, channels_last=True)), target)
        torch.stack(list(terms.values())).sum().backward()
        clip(list(network.parameters()), recipe)
        with torch.no_grad():
            pixels.eval()(inputs)
    assert watch.found == []


def test_the_watch_notices_what_it_is_for():
    values = torch.ones(3)
    for work in (lambda: int(values.sum()), lambda: values[values > 0], lambda: values.to("meta")):
        with Watch() as watch:
            work()
        assert watch.found


def test_a_learning_rate_that_is_a_tensor_keeps_its_place():
    model = Model.untrained("ssrnet_md")
    optimizer = optimizer_of(model.network, model.module.training_recipe(model.config))
    place = torch.tensor(0.0)
    optimizer.param_groups[0]["lr"] = place
    set_learning_rate(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] is place and float(place) == 0.25


@pytest.mark.parametrize("said, wanted", [(None, True), ("1", True), ("0", False)])
def test_recording_is_turned_off_by_the_environment(said, wanted, monkeypatch):
    monkeypatch.delenv(tracing.CUDA_GRAPH_SWITCH, raising=False)
    if said is not None:
        monkeypatch.setenv(tracing.CUDA_GRAPH_SWITCH, said)
    assert tracing.cuda_graphs_are_wanted() is wanted


# On a GPU


def loop_of(model, tmp_path, **how):
    device = torch.device("cuda")
    recipe = model.module.training_recipe(model.config)
    draw = np.random.default_rng(0)
    size = model.recipe.size
    pixels = draw.integers(0, 256, (HEADS, size, size, 3), dtype=np.uint8)
    heads = TrainingHeads([str(i) for i in range(HEADS)], draw.uniform(-40, 40, (HEADS, 3)), pixels, None, size)
    rows = np.arange(HEADS)
    feed = Feed(heads, model.recipe, (), 0, 1, pinned=True)
    request = TrainRequest(model.name, tmp_path, tmp_path, **how)
    order = Order(rows, HEADS, 0)
    return Loop(Work(model, recipe, heads, order, feed, 10, None, rows[:0], (), Team(0, 1, device), request, {}))


def batch_of(model):
    inputs = torch.from_numpy(random_inputs(model, HEADS, 0))
    inputs = inputs.float() if inputs.dtype == torch.float64 else inputs
    return HeadBatch(np.arange(HEADS), inputs.cuda(), target_of(model, HEADS, "cuda"))


@needs_gpu
@pytest.mark.parametrize("precision", ["32", "16"])
@pytest.mark.parametrize("name", layers())
def test_recorded_steps_are_the_steps(name, precision, tmp_path, monkeypatch):
    """Losses of five steps with and without a recording; kernels may add up in another order."""
    if catalogue()[name].kind == "sequence":
        pytest.skip("the same layers as VGG16, and 16 pictures for each head")
    losses = {}
    for wanted in ("0", "1"):
        monkeypatch.setenv(tracing.CUDA_GRAPH_SWITCH, wanted)
        model = Model.untrained(name)
        loop, batch = loop_of(model, tmp_path, precision=precision), batch_of(model)
        own = []
        for _ in range(5):
            before = float(loop._sums["loss"]) if loop._sums else 0.0
            loop._step(batch)
            own.append(float(loop._sums["loss"]) - before)
        losses[wanted] = own
        assert not isinstance(loop._advance, tracing.Recorded) or loop._advance.is_recorded is (wanted == "1")
    assert np.isfinite(losses["0"]).all()
    assert losses["1"] == pytest.approx(losses["0"], rel=0.02 if precision == "32" else 0.1)


@needs_gpu
@pytest.mark.parametrize("name", layers())
def test_recorded_answers_are_those_of_the_cpu(name):
    model = Model.untrained(name)
    if model.kind == "sequence":
        pytest.skip("the same layers as VGG16, and 16 pictures for each head")
    inputs = random_inputs(model, HEADS, 0)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        predictor = NetworkPredictor(model, "cuda")
        found = [predictor.poses(inputs)[0] for _ in range(4)]
        assert next(iter(predictor._module._of_shape.values())).is_recorded
        other = random_inputs(model, HEADS, 1)
        after = predictor.poses(other)[0]
    wanted = NetworkPredictor(Model.untrained(name), "cpu")
    assert all(np.allclose(f, wanted.poses(inputs)[0], atol=0.02) for f in found)
    assert np.allclose(after, wanted.poses(other)[0], atol=0.02)


@needs_gpu
def test_work_that_waits_for_the_gpu_is_not_recorded():
    values = torch.ones(3, device="cuda")

    def work(x):
        return x + int(values.sum())

    recorded = tracing.Recorded(work, torch.device("cuda"))
    found = [recorded(torch.full((2,), float(i), device="cuda")).tolist() for i in range(4)]
    assert found == [[i + 3.0] * 2 for i in range(4)] and not recorded.is_recorded


@needs_gpu
def test_a_recording_draws_anew_and_follows_the_seed():
    """Dropout of step n is a function of the seed set before it, recorded or not."""
    device = torch.device("cuda")
    drawn = {}
    for wanted in (True, False):
        work = lambda x: torch.nn.functional.dropout(x, 0.5)  # noqa: E731
        run = tracing.Recorded(work, device) if wanted else work
        own = []
        for seed in (0, 1, 2, 3, 4, 3):
            torch.manual_seed(seed)
            own.append(run(torch.ones(64, device=device)).clone())
        drawn[wanted] = own
    assert all(torch.equal(a, b) for a, b in zip(drawn[True], drawn[False], strict=True))
    assert torch.equal(drawn[True][3], drawn[True][5]) and not torch.equal(drawn[True][3], drawn[True][4])


@needs_gpu
def test_other_warnings_are_passed_on():
    def work(x):
        warnings.warn("mine", stacklevel=1)
        return x

    recorded = tracing.Recorded(work, torch.device("cuda"))
    with pytest.warns(UserWarning, match="mine"):
        recorded(torch.ones(2, device="cuda"))
