"""DADL: the soft labels by number, the loss of equation 13 by hand, its ablations."""

import math
from dataclasses import replace

import pytest
import torch
from network_checks import batch, check_gradients, check_overfits_one_batch

from ubhpd.baselines import dadl
from ubhpd.baselines.dadl import Config, Network, soft_labels
from ubhpd.core.errors import UbhpdError
from ubhpd.images.recipes import RECIPES
from ubhpd.nn.contract import Target
from ubhpd.nn.outputs import HOPENET_BINS, matrix_from_euler

SMALL = {"backbone": "mobilenet_v2", "size": 32}


def on_meta(**options):
    with torch.device("meta"):
        network = Network(Config(**SMALL | options))
    network.sigmas = torch.tensor(network.config.sigmas)
    return network


def target(angles_deg):
    angles = torch.tensor(angles_deg)
    return Target(angles, matrix_from_euler(angles))


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return Network(Config(**SMALL))


@pytest.mark.parametrize("name", dadl.MODELS)
def test_number_of_parameters(name):
    with torch.device("meta"):
        network = Network(Config(**dadl.MODELS[name]))
    assert sum(p.numel() for p in network.parameters()) == dadl.PARAMETERS[name]


@pytest.mark.parametrize(
    ("sigma", "weights"),
    [
        (1.0, [0.39894, 0.24197, 0.05399]),
        (2.0, [0.19947, 0.17603, 0.12099]),
        (0.5, [0.78657, 0.10645, 0.00026]),
        (0.35, [0.96734, 0.01633, 0.00000]),
        (0.6, [0.66381, 0.16552, 0.00257]),
        (0.3, [0.99233, 0.00384, 0.00000]),
    ],
)
def test_weights_of_the_true_bin_and_the_next_two(sigma, weights):
    label = soft_labels(torch.full((1, 3), 30), torch.full((3,), sigma), 66)[0, 0]
    assert label[30:33].tolist() == pytest.approx(weights, abs=1e-5)
    assert label[28:31].flip(0).tolist() == pytest.approx(weights, abs=1e-5)
    assert label.sum().item() == pytest.approx(1, abs=1e-6)


def test_a_label_at_the_edge_is_cut_and_normalised():
    label = soft_labels(torch.zeros(1, 3), torch.ones(3), 66)[0, 0]
    parts = [math.exp(-(j**2) / 2) for j in range(66)]
    assert label.tolist() == pytest.approx([p / sum(parts) for p in parts], abs=1e-6)
    assert label[0].item() == pytest.approx(0.5704, abs=1e-4)


@pytest.mark.parametrize(("name", "sigmas"), [("dadl", (1.0, 2.0, 0.5)), ("dadl_biwi", (0.35, 0.6, 0.3))])
def test_each_angle_has_its_own_width(name, sigmas):
    config = Config(**dadl.MODELS[name])
    assert config.sigmas == sigmas
    assert Config(**dadl.MODELS["dadl_common"]).sigmas == (1.0, 1.0, 1.0)
    labels = soft_labels(torch.full((1, 3), 30), torch.tensor(config.sigmas), 66)[0]
    spread = ((torch.arange(66) - 30) ** 2 * labels).sum(dim=1).sqrt()
    assert spread[1] > spread[0] > spread[2]


@pytest.mark.parametrize(("centre", "bias_deg"), [("class", -1.5), ("real", 0.0)])
def test_what_a_perfect_answer_decodes_to(centre, bias_deg):
    """The expectation over the label itself: half a bin low about the true bin, the truth about the real value."""
    network = on_meta(centre=centre, sigma_roll=1.0)
    angles = (torch.arange(1200) + 0.5)[:, None].expand(-1, 3) / 10 - 60
    labels = soft_labels(network._position(angles), network.sigmas, 66)
    error = network.pose({"logits": labels.clamp(min=1e-30).log()}) - angles
    assert error.mean().item() == pytest.approx(bias_deg, abs=1e-3)
    if centre == "real":
        assert error.abs().max() < 1e-3
    else:
        assert -3 < error.min() < -2.9 and -0.1 < error.max() < 0


def test_loss_by_hand():
    # Every bin alike: 3 * 32.5 - 99 = -1.5 degrees, off by 1.5, 4.5, 0.5; cross entropy ln 66 each, and a divergence
    # of ln 66 minus the entropy of the label, for wide Gaussians ln(sigma sqrt(2 pi e)).
    logits, truth = torch.zeros(1, 3, 66), target([[0.0, 3.0, -1.0]])
    sigmas = (1.0, 2.0, 1.5)
    network = on_meta(alpha=2.0, beta=3.0, sigma_yaw=1.0, sigma_pitch=2.0, sigma_roll=1.5)
    terms = network.loss({"logits": logits}, truth)
    entropy = sum(math.log(s * math.sqrt(2 * math.pi * math.e)) for s in sigmas)
    assert terms["squared_error"].item() == pytest.approx(2 * (2.25 + 20.25 + 0.25), rel=1e-5)
    assert terms["cross_entropy"].item() == pytest.approx(3 * math.log(66), rel=1e-5)
    assert terms["divergence"].item() == pytest.approx(3 * (3 * math.log(66) - entropy), rel=1e-5)
    twice = network.loss({"logits": logits.repeat(2, 1, 1)}, target([[0.0, 3.0, -1.0]] * 2))
    assert {k: float(v) for k, v in twice.items()} == pytest.approx({k: float(v) for k, v in terms.items()})


def test_divergence_is_zero_at_the_label_alone(small):
    truth = target([[12.0, -7.0, 40.0]])
    best = soft_labels(small._position(truth.angles_deg), small.sigmas, 66).clamp(min=1e-37).log()
    other = best.clone()
    other[0, 0, 40] += 1  # three bins beside the true one
    assert small.loss({"logits": best}, truth)["divergence"].item() == pytest.approx(0, abs=1e-6)
    assert small.loss({"logits": other}, truth)["divergence"].item() > 1e-4


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("dadl_mse", {"squared_error"}),
        ("dadl_hard", {"squared_error", "cross_entropy"}),
        ("dadl_common", {"squared_error", "divergence"}),
        ("dadl", {"squared_error", "cross_entropy", "divergence"}),
    ],
)
def test_terms_of_the_ablation(name, terms):
    network = on_meta(**dadl.MODELS[name])
    torch.manual_seed(0)
    logits, truth = torch.randn(2, 3, 66), target([[0.0, 3.0, -1.0], [20.0, 50.0, -80.0]])
    if name == "dadl_mse":  # no bins at all: three angles, by their squared error alone
        found = network.loss({"angles": truth.angles_deg + torch.tensor([1.0, 2.0, 0.0])}, truth)
        assert {k: v.item() for k, v in found.items()} == {"squared_error": pytest.approx(5)}
        return
    found = network.loss({"logits": logits}, truth)
    assert set(found) == terms
    full = on_meta(sigma_yaw=1.0, sigma_pitch=1.0, sigma_roll=1.0).loss({"logits": logits}, truth)
    same = set(found) - ({"divergence"} if name == "dadl" else set())
    assert all(found[term] == full[term] for term in same)


def test_a_training_from_random_weights_by_slow_descent_is_warned_of():
    recipe = dadl.training_recipe(Config())
    (said,) = dadl.training_remarks(Config(), recipe, False)
    assert "random weights, which SGD at 1e-05 hardly moves" in said and "--backbone imagenet" in said
    assert dadl.training_remarks(Config(), recipe, True) == ()
    for other in ({"lr": 1e-2}, {"optimizer": "adam"}):
        assert dadl.training_remarks(Config(), replace(recipe, **other), False) == ()


def test_heads_are_cut_at_256_pixels_of_which_224_are_seen():
    own, recipe = dadl.input_recipe(Config()), dadl.training_recipe(Config())
    cut = recipe.input_in_training(own)
    assert (own.size, own.crop, cut.size, cut.crop) == (224, "dadl", 256, "dadl:whole")
    assert dict(cut.crop_of) == {"aflw2000": "6drepnet-aflw2000:whole", "biwi": "dadl-biwi:whole"}
    assert "hopenet_crop" not in recipe.augmentations


def test_without_bins_three_angles_are_regressed():
    network = Network(Config(**SMALL | {"head": "regression", "labels": "none"}))
    inputs, truth = batch(network, dadl.input_recipe(network.config), n=3)
    output = network(inputs)
    assert set(output) == {"angles"} and torch.equal(network.pose(output), output["angles"])
    check_gradients(network, inputs, truth)


@pytest.mark.parametrize("labels", ["none", "gaussian"])
def test_shapes_and_gradients(labels):
    torch.manual_seed(0)
    config = Config(**SMALL, labels=labels)
    network = Network(config)
    inputs, truth = batch(network, dadl.input_recipe(config), n=3)
    output = network(inputs)
    assert output["logits"].shape == (3, 3, 66) and network.pose(output).shape == (3, 3)
    check_gradients(network, inputs, truth)


def test_evaluation_is_deterministic_and_looks_at_each_head_alone(small):
    inputs, _ = batch(small, dadl.input_recipe(Config(**SMALL)), n=3)
    small.eval()
    with torch.no_grad():
        together = small(inputs)["logits"]
        alone = torch.cat([small(one)["logits"] for one in inputs.split(1)])
        assert torch.equal(together, small(inputs)["logits"])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_fits_16_heads_it_trains_on():
    torch.manual_seed(0)
    config = Config(**SMALL)
    network = Network(config)
    inputs, truth = batch(network, dadl.input_recipe(config))
    check_overfits_one_batch(network, inputs, truth, steps=75, lr=2e-3, loss_divided_by=50)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dadl_biwi", "dadl_mse"])
def test_resnet18_fits_16_heads_it_trains_on(name):
    torch.manual_seed(0)
    config = Config(**dadl.MODELS[name] | {"backbone": "resnet18", "size": 32})
    network = Network(config)
    inputs, truth = batch(network, dadl.input_recipe(config))
    check_overfits_one_batch(network, inputs, truth, steps=200, loss_divided_by=50)


@pytest.mark.parametrize("spoiled", [-99.0, 98.999])
def test_angles_at_the_ends_have_a_finite_loss(small, spoiled):
    truth = target([[spoiled, spoiled, spoiled]])
    terms = small.loss({"logits": torch.randn(1, 3, 66) * 100}, truth)
    assert all(term.isfinite() for term in terms.values())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "resnet34"}, 'backbone is "resnet34"'),
        ({"labels": "soft"}, 'labels is "soft"'),
        ({"centre": "edge"}, 'centre is "edge"'),
        ({"size": 16}, "size is 16"),
        ({"sigma_pitch": 0.0}, "sigma_pitch is 0.0"),
        ({"sigma_roll": math.nan}, "sigma_roll is nan"),
        ({"alpha": -1.0}, "alpha is -1.0"),
        ({"beta": math.inf}, "beta is inf"),
        ({"labels": "none", "alpha": 0.0}, "nothing to learn from"),
        ({"head": "regression"}, "regression has no bins that labels could be of"),
        ({"head": "angles"}, 'head is "angles"'),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(UbhpdError, match=words):
        Config(**options)


def test_recipes_and_bins_are_those_of_hopenet():
    fed = dadl.input_recipe(Config())
    assert all(RECIPES[fed.crop_for(d)].size == fed.size for d in ("300wlp", "aflw2000", "biwi"))
    assert dadl.training_recipe(Config()).max_angle_deg == 99.0
    assert (HOPENET_BINS.count, HOPENET_BINS.width_deg, HOPENET_BINS.first_deg) == (66, 3.0, -99.0)
