"""Hopenet: bins and their left edge, the loss by hand, what is frozen, the released weights by their names."""

import math

import pytest
import torch
from network_checks import batch, check_gradients, check_overfits_one_batch

from ubhpd.baselines import hopenet
from ubhpd.baselines.hopenet import Config, Network
from ubhpd.core.errors import UbhpdError
from ubhpd.images.recipes import RECIPES
from ubhpd.nn.contract import Target
from ubhpd.nn.outputs import HOPENET_BINS, matrix_from_euler

SMALL = Config(backbone="resnet18", size=32)
FAR_BELOW = -1e4  # a logit that leaves no probability


def target(angles_deg):
    angles = torch.tensor(angles_deg)
    return Target(angles, matrix_from_euler(angles))


def sure_of(classes):
    """Logits of a classifier that has no doubt."""
    return torch.nn.functional.one_hot(classes, 66) * -FAR_BELOW


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return Network(SMALL)


@pytest.mark.parametrize("name", hopenet.MODELS)
def test_number_of_parameters(name):
    with torch.device("meta"):
        network = Network(Config(**hopenet.MODELS[name]))
    assert sum(p.numel() for p in network.parameters()) == hopenet.PARAMETERS[name]
    body = sum(p.numel() for p in network.backbone.parameters())
    if name == "hopenet":
        assert (body, hopenet.PARAMETERS[name] - body) == (23_508_032, 405_702)


def test_classes_are_those_of_numpy_digitize():
    angles = torch.tensor([-98.999, -96.001, -96.0, -0.001, 0.0, 2.999, 3.0, 98.999])
    assert HOPENET_BINS.classes(angles).tolist() == [0, 0, 1, 32, 33, 33, 34, 65]
    assert hopenet.training_recipe(Config()).max_angle_deg == 99.0  # heads from there on have no bin


@pytest.mark.parametrize(("centred", "bias_deg", "mae_deg"), [(False, -1.5, 1.5), (True, 0.0, 0.75)])
def test_a_perfect_classifier_answers_with_the_left_edge(centred, bias_deg, mae_deg):
    angles = (torch.arange(19_800, dtype=torch.float64) + 0.5) / 100 - 99  # every 0.01 degree within (-99, 99)
    truth = angles.expand(3, -1).T
    with torch.device("meta"):
        network = Network(Config(backbone="resnet18", centred=centred))
    error = network.pose({"logits": sure_of(HOPENET_BINS.classes(truth)).double()}) - truth
    assert error.mean().item() == pytest.approx(bias_deg, abs=1e-9)
    assert error.abs().mean().item() == pytest.approx(mae_deg, abs=1e-9)


def test_pose_is_the_expectation(small):
    logits = torch.full((1, 3, 66), FAR_BELOW)
    logits[0, 0, 33] = 0.0  # 3 * 33 - 99 = 0
    logits[0, 1, [33, 34]] = 0.0  # 3 * 33.5 - 99 = 1.5
    logits[0, 2, 0], logits[0, 2, 65] = 0.0, math.log(3)  # 3 * (65 * 3/4) - 99 = 47.25
    assert small.pose({"logits": logits})[0].tolist() == pytest.approx([0.0, 1.5, 47.25], abs=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.0])
def test_loss_by_hand(alpha):
    with torch.device("meta"):
        network = Network(Config(backbone="resnet18", alpha=alpha))
    half = torch.full((3, 66), FAR_BELOW)
    half[:, [33, 34]] = 0.0
    logits = torch.stack([half, torch.zeros(3, 66)])
    # First head: 1.5 degrees for all, off by 0.5, -3, 1.5: 0.25 + 9 + 2.25, and a cross entropy of ln 2 each.
    # Second head: every bin alike, 3 * 32.5 - 99 = -1.5 degrees, off by 1.5 each: 6.75, and ln 66 each.
    terms = network.loss({"logits": logits}, target([[1.0, 4.5, 0.0], [0.0, 0.0, 0.0]]))
    assert terms["squared_error"].item() == pytest.approx(alpha * (11.5 + 6.75) / 2, rel=1e-5)
    assert terms["cross_entropy"].item() == pytest.approx(3 * (math.log(2) + math.log(66)) / 2, rel=1e-5)


def test_loss_of_the_regression_by_hand():
    with torch.device("meta"):
        network = Network(Config(backbone="resnet18", head="regression", alpha=0.5))
    terms = network.loss({"angles": torch.tensor([[1.0, 2.0, 3.0]])}, target([[0.0, 4.0, 6.0]]))
    assert {name: float(term) for name, term in terms.items()} == {"squared_error": pytest.approx(0.5 * (1 + 4 + 9))}


@pytest.mark.parametrize(
    ("options", "name", "shape"),
    [
        ({"size": 64}, "logits", (2, 3, 66)),
        ({"size": 32, "backbone": "resnet18", "head": "regression"}, "angles", (2, 3)),
        ({"size": 64, "backbone": "alexnet"}, "logits", (2, 3, 66)),
    ],
)
def test_shapes_and_gradients(options, name, shape):
    torch.manual_seed(0)
    config = Config(**options)
    network = Network(config)
    inputs, truth = batch(network, hopenet.input_recipe(config), n=2)
    output = network(inputs)
    assert {key: value.shape for key, value in output.items()} == {name: shape}
    assert network.pose(output).shape == (2, 3)
    check_gradients(network, inputs, truth)


def test_evaluation_is_deterministic_and_looks_at_each_head_alone(small):
    inputs, _ = batch(small, hopenet.input_recipe(SMALL), n=3)
    small.eval()
    with torch.no_grad():
        together = small(inputs)["logits"]
        alone = torch.cat([small(one)["logits"] for one in inputs.split(1)])
        again = small(inputs)["logits"]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert torch.equal(together, again)


def test_alexnet_drops_out_in_training_only():
    torch.manual_seed(0)
    config = Config(backbone="alexnet", size=64)
    network = Network(config)
    inputs, _ = batch(network, hopenet.input_recipe(config), n=1)
    with torch.no_grad():
        assert not torch.equal(network(inputs)["logits"], network(inputs)["logits"])
        network.eval()
        assert torch.equal(network(inputs)["logits"], network(inputs)["logits"])


def test_learns_heads_it_trains_on():
    torch.manual_seed(0)
    network = Network(SMALL)
    inputs, truth = batch(network, hopenet.input_recipe(SMALL), n=8)
    check_overfits_one_batch(network, inputs, truth, steps=60, lr=2e-3, loss_divided_by=20)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["bins", "regression"])
def test_resnet50_fits_16_heads_it_trains_on(head):
    torch.manual_seed(0)
    config = Config(size=32, head=head)
    network = Network(config)
    inputs, truth = batch(network, hopenet.input_recipe(config))
    check_overfits_one_batch(network, inputs, truth, steps=160, loss_divided_by=50)


@pytest.mark.parametrize(
    ("options", "stem"),
    [
        ({"backbone": "resnet18"}, {"backbone.conv1.weight", "backbone.bn1.weight", "backbone.bn1.bias"}),
        ({"backbone": "alexnet"}, {"backbone.features.0.weight", "backbone.features.0.bias"}),
    ],
)
def test_learning_rates_of_stem_layers_and_heads(options, stem):
    with torch.device("meta"):
        network, free = Network(Config(**options)), Network(Config(**options, freeze_stem=False))
    assert [share for _, share in network.learning_rates()] == [1.0, 1.0, 5.0]  # random numbers are not frozen
    network.has_published_backbone = free.has_published_backbone = True
    names = {parameter: name for name, parameter in network.named_parameters()}
    groups = {share: {names[p] for p in parameters} for parameters, share in network.learning_rates()}
    assert groups[0.0] == stem
    assert groups[5.0] == {
        f"heads.fc_{angle}.{kind}" for angle in ("yaw", "pitch", "roll") for kind in ("weight", "bias")
    }
    assert groups[1.0] == set(names.values()) - groups[0.0] - groups[5.0]
    assert sum(len(parameters) for parameters, _ in network.learning_rates()) == len(names)
    assert [share for _, share in free.learning_rates()] == [1.0, 1.0, 5.0]


def test_a_training_from_random_weights_says_that_nothing_is_frozen():
    recipe = hopenet.training_recipe(Config())
    (said,) = hopenet.training_remarks(Config(freeze_bn=True), recipe, False)
    assert "freeze_stem and freeze_bn would freeze what was never trained: all layers train" in said
    assert hopenet.training_remarks(Config(), recipe, True) == ()
    assert hopenet.training_remarks(Config(freeze_stem=False), recipe, False) == ()


@pytest.mark.parametrize(("freeze_bn", "is_loaded"), [(False, True), (True, True), (True, False)])
def test_frozen_statistics_are_those_inside_residual_blocks_that_were_loaded(freeze_bn, is_loaded):
    torch.manual_seed(0)
    config = Config(backbone="resnet18", size=32, freeze_bn=freeze_bn)
    network = Network(config)
    network.has_published_backbone = is_loaded
    network.train()
    inputs, truth = batch(network, hopenet.input_recipe(config), n=4)
    check_gradients(network, inputs, truth)  # gains and offsets are trained all the same
    moved = {
        name for name, b in network.backbone.named_buffers() if name.endswith("running_mean") and b.abs().max() > 0
    }
    every = {name for name, _ in network.backbone.named_buffers() if name.endswith("running_mean")}
    outside = {"bn1.running_mean", *(f"layer{i}.0.downsample.1.running_mean" for i in (2, 3, 4))}
    assert moved == (outside if freeze_bn and is_loaded else every)
    assert not any(module.training for module in network.eval().modules())


def released_resnet50(counters):
    """Names and shapes of a released file, each tensor filled with a number of its own."""
    shapes = {"conv1.weight": (64, 3, 7, 7)}

    def norm(name, width):
        shapes.update({f"{name}.{k}": (width,) for k in ("weight", "bias", "running_mean", "running_var")})
        if counters:
            shapes[f"{name}.num_batches_tracked"] = ()

    norm("bn1", 64)
    inputs = 64
    for layer, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), start=1):
        for block in range(blocks):
            at = f"layer{layer}.{block}"
            for i, shape in enumerate(((width, inputs, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)), start=1):
                shapes[f"{at}.conv{i}.weight"] = shape
                norm(f"{at}.bn{i}", shape[0])
            if block == 0:
                shapes[f"{at}.downsample.0.weight"] = (4 * width, inputs, 1, 1)
                norm(f"{at}.downsample.1", 4 * width)
            inputs = 4 * width
    for angle in ("yaw", "pitch", "roll"):
        shapes |= {f"fc_{angle}.weight": (66, 2048), f"fc_{angle}.bias": (66,)}
    shapes |= {"fc_finetune.weight": (3, 2051), "fc_finetune.bias": (3,)}
    return {name: torch.tensor(float(i + 1)).expand(shape) for i, (name, shape) in enumerate(shapes.items())}


@pytest.mark.parametrize("counters", [False, True])
def test_released_weights_by_their_names(counters):
    tensors = released_resnet50(counters)
    state = hopenet.published(Config(), tensors)
    with torch.device("meta"):
        network = Network(Config())
    network.load_state_dict(state, assign=True)
    for name, tensor in tensors.items():
        if not name.startswith("fc_finetune") and not name.endswith("num_batches_tracked"):
            own = state[("heads." if name.startswith("fc_") else "backbone.") + name]
            assert own.shape == tensor.shape and own.flatten()[0] == tensor.flatten()[0], name
    assert state["backbone.bn1.num_batches_tracked"] == 0


def test_released_weights_of_alexnet_and_arrays():
    outputs = {"features.0": (64, 3, 11, 11), "features.3": (192, 64, 5, 5), "features.6": (384, 192, 3, 3)}
    outputs |= {"features.8": (256, 384, 3, 3), "features.10": (256, 256, 3, 3)}
    outputs |= {"classifier.1": (4096, 9216), "classifier.4": (4096, 4096)}
    outputs |= {f"fc_{angle}": (66, 4096) for angle in ("yaw", "pitch", "roll")}
    tensors = {f"{name}.weight": torch.zeros(()).expand(shape) for name, shape in outputs.items()}
    tensors |= {f"{name}.bias": torch.arange(shape[0]).float().numpy() for name, shape in outputs.items()}
    config = Config(backbone="alexnet")
    with torch.device("meta"):
        network = Network(config)
    network.load_state_dict(hopenet.published(config, tensors), assign=True)
    assert network.heads["fc_roll"].bias[65] == 65
    with pytest.raises(UbhpdError, match=r"lack conv1\.weight"):
        hopenet.published(Config(), tensors)


def test_weights_that_do_not_fit_are_refused_in_one_sentence():
    good = released_resnet50(counters=False)
    missing = {k: v for k, v in good.items() if k != "layer3.5.bn2.bias"}
    for tensors, words in (
        (missing, r"lack layer3\.5\.bn2\.bias;"),
        (good | {"fc_yaw.weight": torch.zeros(62, 2048)}, r"fc_yaw\.weight has shape \(62, 2048\) where \(66, 2048\)"),
        (good | {"fc_gaze.weight": torch.zeros(1)}, r"have fc_gaze\.weight too many;"),
    ):
        with pytest.raises(UbhpdError, match=words):
            hopenet.published(Config(), tensors)
    with pytest.raises(UbhpdError, match=r"lack fc_angles\.weight"):
        hopenet.published(Config(head="regression"), good)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "vgg16"}, 'backbone is "vgg16"'),
        ({"head": "both"}, 'head is "both"'),
        ({"low_resolution": "x5"}, 'low_resolution is "x5"'),
        ({"alpha": -1.0}, "alpha is -1.0"),
        ({"alpha": math.nan}, "alpha is nan"),
        ({"size": 31}, "size is 31"),
        ({"size": 62, "backbone": "alexnet"}, "needs 63"),
        ({"head": "regression", "centred": True}, "not centred"),
        ({"head": "regression", "alpha": 0.0}, "alpha above 0"),
        ({"backbone": "alexnet", "freeze_bn": True}, "freeze_bn"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(UbhpdError, match=words):
        Config(**options)


def test_recipes():
    fed = hopenet.input_recipe(Config())
    assert [fed.crop_for(d) for d in ("300wlp", "aflw2000", "biwi")] == ["hopenet", "hopenet-aflw2000", "hopenet-biwi"]
    assert all(RECIPES[fed.crop_for(d)].size == fed.size for d in ("300wlp", "aflw2000", "biwi"))
    trained = {low: hopenet.training_recipe(Config(low_resolution=low)) for low in ("none", "x10", "1_10", "set")}
    plain = trained["none"].augmentations
    assert trained["set"].augmentations == ("low_resolution_set", *plain)
    assert len({t.augmentations for t in trained.values()}) == 4
