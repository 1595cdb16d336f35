"""FSA-Net: published weights answer as the original code; routing and NetVLAD by hand; fusion; files of others."""

import numpy as np
import pytest
import torch
from network_checks import batch, check_gradients, check_overfits_one_batch
from realdata import REAL, needs

from ubhpd.baselines import fsanet
from ubhpd.baselines.fsanet import Config, Network, published
from ubhpd.core.errors import UbhpdError
from ubhpd.images.recipes import RECIPES
from ubhpd.models import importing
from ubhpd.nn.contract import Target
from ubhpd.nn.outputs import matrix_from_euler
from ubhpd.nn.stagewise import AGGREGATIONS, NetVlad, Structure, TwoMatrices, squash

SMALL = 16
WEIGHTS = "weights/fsanet_300W_LP"
GOLDEN = "weights/golden"
KERAS = {"1x1": ("", 21), "var": ("_var", 21), "wo": ("_noS", 192)}  # scoring -> what stands in a file's name
PUBLISHED = [(a, s) for a in ("capsule", "metric", "netvlad") for s in KERAS if a != "netvlad" or s == "1x1"]


def weight_file(aggregation, scoring):
    middle, capsules = KERAS[scoring]
    return REAL / WEIGHTS / f"fsanet{middle}_{aggregation}_3_16_2_{capsules}_5.h5"


def golden(name):
    return np.load(REAL / GOLDEN / name)


def images(bgr):
    return torch.from_numpy(bgr).permute(0, 3, 1, 2).float()


def released(aggregation, scoring, *files):
    config = Config(aggregation, scoring)
    network = Network(config)
    network.load_state_dict(published(config, importing.read_files(files)))
    return network.eval()


def untrained(seed=0, **options):
    torch.manual_seed(seed)
    return Network(Config(**{"size": SMALL, **options}))


def invented(aggregation, scoring):
    """Random tensors with the names and shapes of a published file, out of a network's own."""
    torch.manual_seed(0)
    member = Network(Config(aggregation, scoring)).members[scoring]
    state, names = member.state_dict(), fsanet._names(Config(aggregation, scoring), scoring)
    tensors = {}
    for own, name in names.items():
        tensor = state[own]
        layers = [g for g in (*fsanet.stagewise.SHIFT_GROUPS, fsanet._p_layers(scoring)) if g[0] == name.split("/")[0]]
        if layers:
            parts = zip(layers[0], tensor.chunk(3))
            tensors |= {f"{layer}/{name.split('/')[1]}": part.mT if part.ndim == 2 else part for layer, part in parts}
        elif name == "conv2d_7/kernel":
            tensors[name] = tensor.T[None, None]
        elif name == "caps/W":
            tensors[name] = tensor.unflatten(2, (3, 16)).permute(2, 0, 3, 1)
        elif tensor.ndim == 4:
            tensors[name] = tensor.permute((2, 3, 0, 1) if "depthwise" in name else (2, 3, 1, 0))
        else:
            tensors[name] = tensor.T if tensor.ndim == 2 else tensor
    return member, {name: tensor.numpy() for name, tensor in tensors.items()}


@needs(WEIGHTS)
@pytest.mark.parametrize("aggregation, scoring", PUBLISHED)
def test_published_weights_answer_as_the_original_code(aggregation, scoring):
    network = released(aggregation, scoring, weight_file(aggregation, scoring))
    wanted = golden(f"keras215_300W_LP_fsanet{KERAS[scoring][0]}_{aggregation}.npz")
    with torch.inference_mode():
        output = network(images(golden("input_bgr_uint8.npy")))

    def stages(name):
        return np.stack([wanted[name.format(k)] for k in (1, 2, 3)], axis=1)

    inner = {
        "places": stages("G_feat_s{}_nhwc").reshape(10, 192, 64),
        "capsules": wanted["primcaps"],
        "vectors": stages("agg_s{}"),
        "p": stages("pred_s{}"),
        "delta": stages("delta_s{}"),
        "eta": stages("local_s{}"),
    }
    for name, values in inner.items():
        np.testing.assert_allclose(output[f"{scoring}/{name}"], values, rtol=0, atol=1e-4, err_msg=name)
    np.testing.assert_allclose(network.pose(output), wanted["pred_pose"], rtol=0, atol=1e-3)


@needs(WEIGHTS)
@pytest.mark.parametrize(
    "aggregation, scoring", [p for p in PUBLISHED if p not in (("metric", "var"), ("metric", "wo"))]
)
def test_published_weights_on_a_real_face(aggregation, scoring):
    network = released(aggregation, scoring, weight_file(aggregation, scoring))
    with torch.inference_mode():
        found = network.pose(network(images(golden("real_astronaut.npz")["fsa_bgr64"])))
    wanted = golden("real_astronaut_keras_pred.npz")[f"fsanet{KERAS[scoring][0]}_{aggregation}"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3)


@needs(WEIGHTS)
@pytest.mark.parametrize("order", [("1x1", "var", "wo"), ("wo", "1x1", "var")])
def test_a_fusion_of_published_weights_in_any_order(order):
    network = released("capsule", "fusion", *(weight_file("capsule", scoring) for scoring in order))
    with torch.inference_mode():
        found = network.pose(network(images(golden("real_astronaut.npz")["fsa_bgr64"])))
    np.testing.assert_allclose(found, golden("real_astronaut_keras_pred.npz")["fusion_caps"], rtol=0, atol=1e-3)


@needs(WEIGHTS)
def test_the_file_without_numbers_is_refused():
    with pytest.raises(UbhpdError, match="finite"):
        importing.read(weight_file("netvlad", "var"))


@pytest.mark.parametrize("name", fsanet.MODELS)
def test_parameters_are_those_of_the_published_files(name):
    with torch.device("meta"):
        network = Network(Config(**fsanet.MODELS[name]))
    assert sum(p.numel() for p in network.parameters()) == fsanet.PARAMETERS[name]


@pytest.mark.parametrize("name", fsanet.MODELS)
def test_forward_and_backward(name):
    network = untrained(**fsanet.MODELS[name])
    inputs, target = batch(network, fsanet.input_recipe(network.config), n=4)
    terms = check_gradients(network, inputs, target)
    assert list(terms) == [f"mae_{member}" for member in network.config.members]
    output = network(inputs)
    assert network.pose(output).shape == (4, 3)
    for member in network.config.members:
        capsules = 3 * 4 if member == "wo" else 21
        assert output[f"{member}/places"].shape == (4, 3 * 4, 64)
        assert output[f"{member}/capsules"].shape == (4, capsules, 64)
        assert output[f"{member}/vectors"].shape == (4, 3, 16)
        assert output[f"{member}/p"].shape == (4, 3, 3, 3)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_batch_is_overfitted(aggregation):
    network = untrained(aggregation=aggregation)
    inputs, target = batch(network, fsanet.input_recipe(network.config))
    check_overfits_one_batch(network, inputs, target, steps=600, lr=1e-2, loss_divided_by=8)


def test_the_variant_with_feature_layers_learns():
    network = untrained(feature_dense=True, min_delta=-0.9)
    inputs, target = batch(network, fsanet.input_recipe(network.config))
    check_gradients(network, inputs, target)
    check_overfits_one_batch(network, inputs, target, steps=600, lr=1e-2, loss_divided_by=8)


def test_the_variant_with_feature_layers_is_larger_by_them():
    plain, dense = (sum(p.numel() for p in untrained(feature_dense=f, size=64).parameters()) for f in (False, True))
    assert dense - plain == 3 * (2 * (16 * 6 + 6) + 2 * (6 * 3 - 4 * 3) + (16 * 9 - 8 * 9))


@pytest.mark.parametrize("scoring", ["1x1", "var", "wo"])
def test_answers_do_not_depend_on_the_rest_of_the_batch(scoring):
    network = untrained(scoring=scoring)
    inputs, _ = batch(network, fsanet.input_recipe(network.config), n=5)
    network(inputs)  # statistics other than 0 and 1
    network.eval()
    with torch.inference_mode():
        whole, again = network(inputs)["angles"], network(inputs)["angles"]
        alone = torch.cat([network(inputs[i : i + 1])["angles"] for i in range(5)])
    assert whole.equal(again)
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-3)


def test_a_fusion_is_the_mean_and_its_members_learn_from_their_own_errors():
    network = untrained(scoring="fusion")
    inputs, target = batch(network, fsanet.input_recipe(network.config), n=4)
    output = network(inputs)
    members = [output[f"{m}/angles"] for m in ("1x1", "var", "wo")]
    torch.testing.assert_close(network.pose(output), (members[0] + members[1] + members[2]) / 3)
    terms = network.loss(output, target)
    for name, angles in zip(("1x1", "var", "wo"), members):
        torch.testing.assert_close(terms[f"mae_{name}"], (angles - target.angles_deg).abs().mean())
    terms["mae_var"].backward()
    assert all((p.grad is not None) == name.startswith("members.var.") for name, p in network.named_parameters())


def test_loss_by_hand():
    network = untrained()
    truth = torch.tensor([[10.0, -20.0, 0.0], [0.0, 0.0, 6.0]])
    angles = torch.tensor([[13.0, -20.0, 0.0], [0.0, -3.0, 0.0]])
    terms = network.loss({"1x1/angles": angles}, Target(truth, matrix_from_euler(truth)))
    assert float(terms["mae_1x1"]) == pytest.approx((3 + 3 + 6) / 6)


def test_squash_by_hand():
    length = 5.0  # of (3, 4): l^2 / (1 + l^2) of it remains
    expected = torch.tensor([3.0, 4.0]) / length * (25 / 26)
    torch.testing.assert_close(squash(torch.tensor([3.0, 4.0])), expected)
    assert squash(torch.zeros(4)).equal(torch.zeros(4))


def test_routing_step_by_step():
    torch.manual_seed(1)
    layer = AGGREGATIONS["capsule"](5)
    capsules = torch.randn(2, 5, 64)
    matrices = layer.weight.unflatten(2, (3, 16))
    for found, x in zip(layer(capsules), capsules):
        votes = [[x[i] @ matrices[i, :, j] for i in range(5)] for j in range(3)]
        first = [squash(sum(votes[j]) / 3) for j in range(3)]
        agreement = torch.tensor([[first[j] @ votes[j][i] for i in range(5)] for j in range(3)])
        share = agreement.exp() / agreement.exp().sum(dim=0)
        second = torch.stack([squash(sum(share[j, i] * votes[j][i] for i in range(5))) for j in range(3)])
        torch.testing.assert_close(found, second)


def test_netvlad_step_by_step():
    torch.manual_seed(2)
    layer = NetVlad(4)
    x = torch.randn(1, 4, 64)
    logits = x[0] @ layer.assign.weight.T + layer.assign.bias
    share = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    clusters = [sum(share[i, k] * (x[0, i] - layer.centres[0, :, k]) for i in range(4)) for k in range(3)]
    clusters = [c / c.norm() for c in clusters]
    flat = torch.stack([clusters[k][f] for f in range(64) for k in range(3)])
    torch.testing.assert_close(layer(x).flatten(), layer.reduce.weight @ (flat / flat.norm()), rtol=1e-4, atol=1e-5)


def test_two_matrices_by_hand():
    layer = TwoMatrices(2)
    x = torch.randn(1, 2, 64)
    expected = layer.over_capsules.weight @ (x[0] @ layer.over_features.weight.T)
    torch.testing.assert_close(layer(x)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scoring", ["1x1", "var"])
def test_a_capsule_is_a_weighted_mean_of_places(scoring):
    torch.manual_seed(3)
    layer = Structure(4, scoring)
    torch.testing.assert_close(layer(torch.ones(2, 12, 64)), torch.ones(2, 21, 64))
    places = torch.randn(2, 12, 64)
    capsules = layer(places)
    assert (capsules <= places.amax(dim=1, keepdim=True)).all()
    assert (capsules >= places.amin(dim=1, keepdim=True)).all()


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("scoring", KERAS)
def test_keras_tensors_land_where_they_belong(aggregation, scoring):
    member, tensors = invented(aggregation, scoring)
    found = published(Config(aggregation, scoring), tensors)
    state = {f"members.{scoring}.{name}": tensor for name, tensor in member.state_dict().items()}
    assert list(found) and set(found) == set(state)
    assert all(found[name].equal(state[name]) for name in state)


def test_weights_of_another_model_are_refused():
    _, tensors = invented("capsule", "var")
    with pytest.raises(UbhpdError, match="with scoring var, and scoring 1x1 takes"):
        published(Config("capsule", "1x1"), tensors)
    with pytest.raises(UbhpdError, match="caps/W too many"):
        published(Config("metric", "var"), tensors)
    with pytest.raises(UbhpdError, match="lack delta_s2/kernel"):
        published(Config("capsule", "var"), {n: t for n, t in tensors.items() if n != "delta_s2/kernel"})
    with pytest.raises(UbhpdError, match=r"dense_2/bias has shape \(34,\)"):
        published(Config("capsule", "var"), {**tensors, "dense_2/bias": np.zeros(34)})
    with pytest.raises(UbhpdError, match="delta_s1/kernel, delta_s2/kernel, delta_s3/kernel differ"):
        published(Config("capsule", "var"), {**tensors, "delta_s2/kernel": np.zeros((6, 3))})
    with pytest.raises(UbhpdError, match="scoring var"):
        published(Config("capsule", "var"), {})


def test_a_fusion_wants_one_file_of_each():
    files = [invented("metric", scoring)[1] for scoring in ("1x1", "var", "var")]
    with pytest.raises(UbhpdError, match="with scoring 1x1, var, var, and scoring fusion takes one file each"):
        published(Config("metric", "fusion"), {f"{i}/{n}": t for i, file in enumerate(files) for n, t in file.items()})
    with pytest.raises(UbhpdError, match="fusion"):
        published(Config("metric", "fusion"), files[0])


def test_recipes():
    recipe = fsanet.input_recipe(Config(colour="RGB"))
    assert (recipe.colour, recipe.size, recipe.mean, recipe.std) == ("RGB", 64, (0, 0, 0), (1, 1, 1))
    assert {RECIPES[recipe.crop].size, RECIPES[recipe.crop_for("biwi")].size} == {64}
    assert fsanet.input_recipe(Config()).colour == "BGR"
    training = fsanet.training_recipe(Config())
    assert (training.batch_size, training.epochs, training.milestones) == (16, 90, (30, 60))


@pytest.mark.parametrize(
    "wrong",
    [{"aggregation": "mean"}, {"scoring": "both"}, {"size": 60}, {"size": 0}, {"min_delta": 0.5}, {"colour": "HSV"}],
)
def test_bad_options_are_refused(wrong):
    with pytest.raises(UbhpdError, match=next(iter(wrong))):
        Config(**wrong)
