"""WHENet: the published weights on a real face, the wrapped loss by hand, the names of Keras, overfitting one batch."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from network_checks import batch, check_gradients, check_overfits_one_batch
from realdata import REAL, needs

from ubhpd.baselines import whenet
from ubhpd.baselines.whenet import Config, Network, published, wrapped_deg
from ubhpd.core.errors import UbhpdError
from ubhpd.images.recipes import RECIPES
from ubhpd.nn.contract import Target
from ubhpd.nn.outputs import matrix_from_euler
from ubhpd.nn.small_backbones import StochasticDepth

SMALL = Config(size=32)
WEIGHTS = Path(os.environ.get("UBHPD_WHENET", "no WHENet.h5"))
GOLDEN = "weights/golden"


def untrained(config=SMALL, seed=0):
    torch.manual_seed(seed)
    return Network(config)


def truth(*angles):
    angles_deg = torch.tensor(angles, dtype=torch.float32)
    return Target(angles_deg, matrix_from_euler(angles_deg))


def keep_all_blocks(network):
    for module in network.modules():
        if isinstance(module, StochasticDepth):
            module.share = 0.0


def sure(network, yaw_bin, pitch_bin, roll_bin):
    """Logits that are all but certain of a bin."""
    chosen = dict(zip(("yaw", "pitch", "roll"), (yaw_bin, pitch_bin, roll_bin)))
    output = {angle: torch.full((1, bins.count), -60.0) for angle, bins in network.bins.items()}
    for angle, index in chosen.items():
        output[angle][0, index] = 60.0
    return output


@needs(GOLDEN)
@pytest.mark.skipif(not WEIGHTS.is_file(), reason="the published weights are not here: set UBHPD_WHENET to WHENet.h5")
def test_the_published_weights_answer_as_in_keras():
    from ubhpd.models.importing import read

    config = Config()
    network = Network(config)
    network.load_state_dict(published(config, read(WEIGHTS)))
    recipe = whenet.input_recipe(config)
    bgr = np.load(REAL / GOLDEN / "real_astronaut.npz")["whenet_bgr224"]
    golden = np.load(REAL / GOLDEN / "real_astronaut_whenet.npz")
    rgb = torch.from_numpy(bgr[..., ::-1].astype(np.float32)).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (recipe.mean, recipe.std))
    with torch.no_grad():
        output = network.eval()((rgb - mean) / std)
    for angle in ("yaw", "pitch", "roll"):
        np.testing.assert_allclose(output[angle], golden[angle], atol=1e-5)
    np.testing.assert_allclose(network.pose(output), golden["ypr"], atol=1e-3)


def test_bins():
    network = untrained()
    assert network.pose(sure(network, 0, 33, 34)).tolist() == [[-180.0, 0.0, 3.0]]
    assert network.pose(sure(network, 119, 0, 65)).tolist() == [[177.0, -99.0, 96.0]]
    narrow = untrained(Config(size=32, full_range=False))
    assert narrow.pose(sure(narrow, 65, 33, 0)).tolist() == [[96.0, 0.0, -99.0]]


def test_wrapped_difference():
    found = wrapped_deg(torch.tensor([0.0, 90, 179, 181, 358, -358, 360, -181]))
    assert found.tolist() == [0, 90, 179, -179, -2, 2, 0, 179]
    difference = torch.linspace(-360, 360, 997)
    size = difference.abs()
    assert torch.allclose(wrapped_deg(difference) ** 2, torch.minimum(size**2, (360 - size) ** 2), atol=1e-2)


def test_loss_by_hand():
    network = untrained(Config(size=32, regression_weight=0.5))
    loss = network.loss(sure(network, 119, 33, 33), truth((-178, 1, 0)))  # says 177, 0, 0
    assert float(loss["regression"]) == pytest.approx(0.5 * (5**2 + 1**2))
    assert float(loss["class"]) == pytest.approx(120, abs=1e-3)  # the true yaw's logit is 120 lower
    plain = untrained(Config(size=32, full_range=False))
    loss = plain.loss(sure(plain, 65, 33, 33), truth((-96, 0, 3)))  # says 96, 0, 0
    assert float(loss["regression"]) == pytest.approx(192**2 + 3**2)
    assert float(loss["class"]) == pytest.approx(120 + 120, abs=1e-3)


def test_a_label_beyond_180_is_the_same_as_its_twin():
    network = untrained()
    output = {angle: torch.randn(1, bins.count) for angle, bins in network.bins.items()}
    one, other = (network.loss(output, truth((yaw, 5, -5))) for yaw in (190.0, -170.0))
    assert all(torch.allclose(one[name], other[name]) for name in one)


def test_loss_of_a_batch_is_the_mean():
    network = untrained()
    output = {angle: torch.randn(4, bins.count) for angle, bins in network.bins.items()}
    angles = torch.tensor([[150.0, 3, -8], [-20, 50, 7], [0, 0, 0], [-179, -60, 80]])
    together = network.loss(output, truth(*angles.tolist()))
    parts = [
        network.loss({a: logits[i : i + 1] for a, logits in output.items()}, truth(angles[i].tolist()))
        for i in range(4)
    ]
    for name, value in together.items():
        assert float(value) == pytest.approx(np.mean([float(part[name]) for part in parts]), rel=1e-5)


@pytest.mark.parametrize("model", whenet.MODELS)
def test_parameters(model):
    with torch.device("meta"):
        network = Network(Config(**whenet.MODELS[model]))
    assert sum(p.numel() for p in network.parameters()) == whenet.PARAMETERS[model]


@pytest.mark.parametrize("full_range", [True, False])
def test_shapes_gradients_and_batches(full_range):
    config = Config(size=64, full_range=full_range)
    network = untrained(config)
    keep_all_blocks(network)
    inputs, target = batch(network, whenet.input_recipe(config), n=3)
    check_gradients(network, inputs, target)
    network.eval()
    with torch.no_grad():
        together = network(inputs)
        alone = torch.cat([network.pose(network(one[None])) for one in inputs])
    assert together["yaw"].shape == (3, 120 if full_range else 66)
    assert together["pitch"].shape == together["roll"].shape == (3, 66)
    assert torch.allclose(network.pose(together), alone, atol=1e-2)


def test_learns_a_batch_by_heart():
    network = untrained()
    keep_all_blocks(network)
    inputs, target = batch(network, whenet.input_recipe(SMALL))
    check_overfits_one_batch(network, inputs, target, steps=150, lr=3e-3, loss_divided_by=20)


def keras_weights(seed=0):
    """The tensors of WHENet.h5 by name and shape, numbered by hand for the first layers, with random values."""
    draw = np.random.default_rng(seed)
    shapes = {
        "conv2d_1/kernel": (3, 3, 3, 32),
        "depthwise_conv2d_1/depthwise_kernel": (3, 3, 32, 1),
        "conv2d_2/kernel": (1, 1, 32, 8),
        "conv2d_2/bias": (8,),
        "conv2d_3/kernel": (1, 1, 8, 32),
        "conv2d_4/kernel": (1, 1, 32, 16),
        "conv2d_5/kernel": (1, 1, 16, 96),
        "conv2d_65/kernel": (1, 1, 320, 1280),
        "batch_normalization_49/moving_variance": (1280,),
        "yaw_new/kernel": (1280, 120),
        "roll_new/bias": (66,),
    }
    with torch.device("meta"):
        network = Network(Config())
    own = network.state_dict()
    every = {}
    for name, theirs in whenet._keras_names(network):
        shape = tuple(own[name].shape)
        if theirs.endswith("/depthwise_kernel"):
            shape = (*shape[2:], shape[0], shape[1])
        elif len(shape) == 4:
            shape = (*shape[2:], shape[1], shape[0])
        every[theirs] = draw.normal(size=shape if len(shape) != 2 else shape[::-1]).astype(np.float32)
    assert {name: every[name].shape for name in shapes} == shapes
    return every


def test_every_tensor_of_keras_finds_its_place():
    tensors = keras_weights()
    assert len(tensors) == 315
    found = published(Config(), tensors)
    with torch.device("meta"):
        assert found.keys() == Network(Config()).state_dict().keys()
    first = found["backbone.features.0.0.weight"]
    assert first[7, 2, 0, 1] == tensors["conv2d_1/kernel"][0, 1, 2, 7]
    depthwise = found["backbone.features.1.0.block.0.0.weight"]
    assert depthwise[30, 0, 2, 1] == tensors["depthwise_conv2d_1/depthwise_kernel"][2, 1, 30, 0]
    squeeze = found["backbone.features.1.0.block.1.fc1.weight"]
    assert squeeze[5, 31, 0, 0] == tensors["conv2d_2/kernel"][0, 0, 31, 5]
    assert found["heads.yaw.weight"][100, 3] == tensors["yaw_new/kernel"][3, 100]
    norm = found["backbone.features.8.1.running_var"]
    assert np.array_equal(norm, tensors["batch_normalization_49/moving_variance"])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t.pop("conv2d_64/kernel"), "lack conv2d_64/kernel"),
        (lambda t: t.update({"conv2d_66/kernel": np.zeros((1, 1, 2, 2))}), "have conv2d_66/kernel too many"),
        (lambda t: t.update({"yaw_new/bias": np.zeros(66)}), r"yaw_new/bias has shape \(66,\) where \(120,\)"),
    ],
)
def test_bad_weights_are_refused(change, complaint):
    tensors = keras_weights()
    change(tensors)
    with pytest.raises(UbhpdError, match=complaint):
        published(Config(), tensors)


@pytest.mark.parametrize("options", [{"size": 20}, {"regression_weight": -1.0}, {"regression_weight": float("inf")}])
def test_bad_options_are_refused(options):
    with pytest.raises(UbhpdError):
        Config(**options)


def test_recipes():
    recipe = whenet.input_recipe(Config())
    assert {recipe.crop_for(d) for d in ("w300lp", "aflw2000", "biwi")} <= RECIPES.keys()
    assert whenet.training_recipe(Config()).max_angle_deg == 180
    assert whenet.training_recipe(Config(full_range=False)).max_angle_deg == 99
