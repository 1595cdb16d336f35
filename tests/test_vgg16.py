"""VGG16 on images and on sequences: what is judged, what the recurrent layer computes, the loss by hand."""

import math

import pytest
import torch
from network_checks import batch, check_gradients, check_overfits_one_batch, overfit_one_batch

from ubhpd.baselines import vgg16, vgg16_rnn
from ubhpd.core.errors import UbhpdError
from ubhpd.nn.contract import Target
from ubhpd.nn.outputs import matrix_from_euler

IMAGE = vgg16.Config(size=32, width=64)
GRU = vgg16_rnn.Config(size=32, frames=2, width=64, state=64)
LSTM = vgg16_rnn.Config(size=32, frames=2, width=64, state=64, cell="lstm")
MODELS = [(module, name) for module in (vgg16, vgg16_rnn) for name in module.MODELS]
EACH = [(vgg16, IMAGE), (vgg16_rnn, GRU), (vgg16_rnn, LSTM)]


def built(module, config):
    torch.manual_seed(0)
    return module.Network(config)


@pytest.mark.parametrize(("module", "name"), MODELS)
def test_number_of_parameters(module, name):
    config = module.Config(**module.MODELS[name])
    with torch.device("meta"):
        network = module.Network(config)
    assert sum(p.numel() for p in network.parameters()) == module.PARAMETERS[name]
    # Gates of a cell: weights from the feature and from the state, and two offsets each.
    gates = {"vgg16": 0, "vgg16_rnn": 3, "vgg16_lstm": 4}[name]
    assert module.PARAMETERS[name] == 14_714_688 + 1025 * 3 + 25_089 * 1024 + gates * 2 * (1024 * 1024 + 1024)


@pytest.mark.parametrize(("module", "config"), EACH)
def test_shapes_and_gradients(module, config):
    network = built(module, config)
    inputs, truth = batch(network, module.input_recipe(config), n=2)
    assert inputs.ndim == (5 if module is vgg16_rnn else 4)
    output = network(inputs)
    assert output["angles"].shape == network.pose(output).shape == (2, 3)
    check_gradients(network, inputs, truth)


@pytest.mark.parametrize(("module", "config"), EACH)
def test_evaluation_is_deterministic_and_looks_at_each_input_alone(module, config):
    network = built(module, config).eval()
    inputs, _ = batch(network, module.input_recipe(config), n=3)
    with torch.no_grad():
        together = network(inputs)["angles"]
        alone = torch.cat([network(one)["angles"] for one in inputs.split(1)])
        assert torch.equal(together, network(inputs)["angles"])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("module", "config"), EACH)
def test_angles_are_radians_and_the_loss_is_theirs(module, config):
    with torch.device("meta"):
        network = module.Network(config)
    output = {"angles": torch.tensor([[math.pi / 2, 0.0, -math.pi / 6], [0.0, 0.0, 0.0]])}
    assert network.pose(output)[0].tolist() == pytest.approx([90, 0, -30], abs=1e-4)
    degrees = torch.tensor([[60.0, 0.0, 0.0], [0.0, 30.0, 0.0]])
    # Each head is 30 degrees off, the first in yaw and in roll.
    loss = network.loss(output, Target(degrees, matrix_from_euler(degrees)))["squared_error"].item()
    assert loss == pytest.approx(3 * (math.pi / 6) ** 2 / 2, rel=1e-5)


def test_the_recurrent_layer_is_that_of_the_textbook():
    """Gated units written out (Cho et al., EMNLP 2014, with the reset gate behind the product, as in torch)."""
    network = built(vgg16_rnn, GRU).eval()
    images, _ = batch(network, vgg16_rnn.input_recipe(GRU), n=2)
    cell = network.memory
    with torch.no_grad():
        state = torch.zeros(2, 64)
        for frame in images.unbind(1):
            x = torch.relu(network.hidden(network.backbone.head_input(network.backbone(frame))))
            ri, zi, ni = (x @ cell.weight_ih_l0.T + cell.bias_ih_l0).chunk(3, dim=1)
            rh, zh, nh = (state @ cell.weight_hh_l0.T + cell.bias_hh_l0).chunk(3, dim=1)
            update = torch.sigmoid(zi + zh)
            state = (1 - update) * torch.tanh(ni + torch.sigmoid(ri + rh) * nh) + update * state
        torch.testing.assert_close(network(images)["angles"], network.angles(state), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("config", [GRU, LSTM])
def test_earlier_images_and_their_order_matter(config):
    network = built(vgg16_rnn, config).eval()
    images, _ = batch(network, vgg16_rnn.input_recipe(config), n=1)
    with torch.no_grad():
        answer = network(images)["angles"]
        for order in ([1, 0], [1, 1], [0, 0]):
            assert (network(images[:, order])["angles"] - answer).abs().max() > 1e-6, order


@pytest.mark.parametrize(("module", "config"), EACH)
def test_learns_two_inputs_quickly(module, config):
    network = built(module, config)
    inputs, truth = batch(network, module.input_recipe(config), n=2)
    (loss, _), (last, _) = overfit_one_batch(network, inputs, truth, steps=20, lr=1e-4)
    assert last < loss / 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "config"),
    [
        (vgg16, vgg16.Config(size=32, width=128)),
        (vgg16_rnn, vgg16_rnn.Config(size=32, frames=2, width=128, state=64)),
        (vgg16_rnn, vgg16_rnn.Config(size=32, frames=2, width=128, state=64, cell="lstm")),
    ],
)
def test_fits_16_heads_it_trains_on(module, config):
    network = built(module, config)
    inputs, truth = batch(network, module.input_recipe(config))
    check_overfits_one_batch(network, inputs, truth, steps=160, lr=1e-4, loss_divided_by=100)


@pytest.mark.parametrize(
    ("config", "options", "words"),
    [
        (vgg16.Config, {"size": 31}, "size is 31"),
        (vgg16.Config, {"width": 0}, "width is 0"),
        (vgg16_rnn.Config, {"size": 31}, "size is 31"),
        (vgg16_rnn.Config, {"frames": 1}, "frames is 1"),
        (vgg16_rnn.Config, {"width": 0}, "width is 0"),
        (vgg16_rnn.Config, {"state": 0}, "state is 0"),
        (vgg16_rnn.Config, {"cell": "rnn"}, 'cell is "rnn"'),
    ],
)
def test_bad_options_are_refused(config, options, words):
    with pytest.raises(UbhpdError, match=words):
        config(**options)


def test_the_sequence_is_stated_in_the_recipe():
    assert vgg16.input_recipe(vgg16.Config()).frames == 1
    assert vgg16_rnn.input_recipe(vgg16_rnn.Config()).frames == 8
    assert vgg16_rnn.KIND == "sequence" and vgg16.KIND == "image"
