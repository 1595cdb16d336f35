"""TriNet: its vectors and our rotations, its loss by hand, its weights' names, overfitting one batch."""

import numpy as np
import pytest
import torch
from network_checks import batch, check_gradients, check_overfits_one_batch

from ubhpd.baselines import trinet
from ubhpd.baselines.trinet import Config, Network, nearest_rotation, published, soft_label, turned_y
from ubhpd.core import rotation
from ubhpd.core.errors import UbhpdError
from ubhpd.images.recipes import RECIPES
from ubhpd.nn.contract import Target
from ubhpd.nn.outputs import matrix_from_euler

SMALL = Config(size=64, backbone="mobilenet_v2", bins=20)


def elementary(axis, angle_deg):
    a = np.radians(angle_deg)
    c, s = np.cos(a), np.sin(a)
    return {
        "x": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]


def labels_of_300wlp(yaw, pitch, roll):
    """Left, down and front as rows, as the authors' script makes them: columns of Rx(pitch) Ry(-yaw) Rz(roll)."""
    return (elementary("x", pitch) @ elementary("y", -yaw) @ elementary("z", roll)).T


def labels_of_aflw(yaw, pitch, roll):
    """The same for AFLW's angles in degrees: columns of Ry(-yaw) Rx(pitch) Rz(-roll)."""
    return (elementary("y", -yaw) @ elementary("x", pitch) @ elementary("z", -roll)).T


def untrained(config=SMALL, seed=0):
    torch.manual_seed(seed)
    return Network(config)


def pose_of(vectors):
    return Network.pose(None, {"vectors": torch.as_tensor(np.asarray(vectors))[None]})[0].numpy()


@pytest.mark.parametrize("angles", [(30, 0, 0), (0, 20, 0), (0, 0, 25), (-55, 31, -12), (88, -70, 100), (130, 10, -5)])
def test_the_papers_vectors_decode_to_the_canonical_rotation(angles):
    np.testing.assert_allclose(pose_of(labels_of_300wlp(*angles)), rotation.matrix_from_euler(angles), atol=1e-12)


def test_vectors_made_from_aflws_angles_decode_to_aflws_rotation():
    for yaw, pitch, roll in np.random.default_rng(0).uniform(-89, 89, (20, 3)):
        expected = rotation.matrix_from_angles(np.radians([roll, pitch, yaw]), "aflw")
        np.testing.assert_allclose(pose_of(labels_of_aflw(yaw, pitch, roll)), expected, atol=1e-12)


def test_signs_by_where_the_vectors_point_in_the_image():
    """x right, y down: a face turned to image-left has its front at x < 0, one that looks up at y < 0."""
    half = np.sqrt(0.5)
    left, down, front = np.eye(3)
    turned = [[half, 0, half], down, [-half, 0, half]]
    np.testing.assert_allclose(rotation.euler_from_matrix(pose_of(turned)), [45, 0, 0], atol=1e-6)
    looking_up = [left, [0, half, half], [0, -half, half]]
    np.testing.assert_allclose(rotation.euler_from_matrix(pose_of(looking_up)), [0, 45, 0], atol=1e-6)
    clockwise = [[half, half, 0], [-half, half, 0], front]
    np.testing.assert_allclose(rotation.euler_from_matrix(pose_of(clockwise)), [0, 0, 45], atol=1e-6)


def test_the_way_into_the_papers_frame_and_back():
    angles = torch.tensor(np.random.default_rng(1).uniform(-180, 180, (40, 3)))
    vectors = turned_y(matrix_from_euler(angles)).transpose(1, 2)
    np.testing.assert_allclose(vectors[7], labels_of_300wlp(*angles[7].numpy()), atol=1e-12)
    assert torch.allclose(Network.pose(None, {"vectors": vectors}), matrix_from_euler(angles), atol=1e-12)


def test_nearest_rotation():
    assert torch.allclose(nearest_rotation(3 * torch.eye(3)), torch.eye(3))
    mirrored = torch.diag(torch.tensor([1.0, 0.9, -0.1]))
    assert torch.allclose(nearest_rotation(mirrored), torch.eye(3), atol=1e-6)  # U V^T alone would be a reflection
    draw = torch.Generator().manual_seed(0)
    true = matrix_from_euler(torch.tensor([[20.0, -30, 10]], dtype=torch.float64))
    noisy = true + 0.1 * torch.randn((1, 3, 3), generator=draw, dtype=torch.float64)
    best = nearest_rotation(noisy)
    for step in 1e-3 * torch.eye(3, dtype=torch.float64):
        for sign in (1, -1):
            skew = torch.linalg.cross(torch.eye(3, dtype=torch.float64), (sign * step).expand(3, 3))
            other = best @ torch.linalg.matrix_exp(skew)
            assert (other - noisy).square().sum() > (best - noisy).square().sum()


def test_coordinates_are_expectations_and_vectors_have_length_1():
    network = untrained(Config(size=32, backbone="mobilenet_v2", bins=5)).eval()
    with torch.no_grad():
        for name, head in network.heads.items():
            head.weight.zero_()
            head.bias.fill_(-50.0)
            head.bias[{"x": 4, "y": 2, "z": 1}[name[3]]] = 50.0  # of -1, -0.5, 0, 0.5, 1
        output = network(torch.zeros(1, 3, 32, 32))
    expected = torch.tensor([1.0, 0.0, -0.5]) / np.sqrt(1.25)
    assert output["logits"].shape == (1, 3, 3, 5)
    assert torch.allclose(output["vectors"][0], expected.expand(3, 3), atol=1e-6)


def test_soft_label():
    grid = torch.linspace(-1, 1, 5)
    label = soft_label(torch.tensor([-1.0, -0.51, 0.2, 1.0]), grid)
    assert label.argmax(dim=1).tolist() == [0, 0, 2, 4]
    weights = np.exp(-np.sqrt([2, 1, 0, 1, 2]))
    np.testing.assert_allclose(label[2], weights / weights.sum(), rtol=1e-6)


def test_loss_by_hand():
    config = Config(size=32, backbone="mobilenet_v2", bins=2, alpha=2.0, beta=0.5)
    network = untrained(config)
    vectors = torch.tensor([[[0.0, 1, 0], [0, 1, 0], [0, 0, 1]]])  # left is 90 degrees off
    output = {"logits": torch.zeros(1, 3, 3, 2), "vectors": vectors}
    loss = network.loss(output, Target(torch.zeros(1, 3), torch.eye(3)[None]))
    assert float(loss["class"]) == pytest.approx(9 * np.log(2))  # sigmoid 1/2 against labels that sum to 1
    nearly = np.arccos(1 - 1e-4)
    assert float(loss["regression"]) == pytest.approx(2 * ((np.pi / 2) ** 2 + 2 * nearly**2), rel=1e-4)
    assert float(loss["orthogonality"]) == pytest.approx(0.5 * 2 * 1)  # one pair, once for each of the two


@pytest.mark.parametrize("config", [SMALL, Config(size=64)])
def test_shapes_gradients_and_batches(config):
    network = untrained(config)
    inputs, target = batch(network, trinet.input_recipe(config), n=3)
    assert inputs.max() > 200  # values 0 to 255 as they are
    check_gradients(network, inputs, target)
    network.eval()
    with torch.no_grad():
        together = network(inputs)
        alone = torch.cat([network(one[None])["vectors"] for one in inputs])
    assert together["logits"].shape == (3, 3, 3, config.bins)
    assert torch.allclose(together["vectors"], alone, atol=1e-4)
    assert torch.allclose(torch.linalg.det(network.pose(together)), torch.ones(3), atol=1e-5)


def test_learns_a_batch_by_heart():
    config = Config(size=32, backbone="mobilenet_v2")
    network = untrained(config)
    inputs, target = batch(network, trinet.input_recipe(config))
    check_overfits_one_batch(network, inputs, target, steps=200, lr=3e-3, loss_divided_by=8)


def test_rates():
    for config, of_heads in ((Config(), 10.0), (SMALL, 1.0)):
        with torch.device("meta"):
            network = Network(config)
        groups = network.learning_rates()
        assert [rate for _, rate in groups] == [1.0, of_heads]
        assert sum(len(group) for group, _ in groups) == len(list(network.parameters()))


@pytest.mark.parametrize("model", trinet.MODELS)
def test_parameters(model):
    with torch.device("meta"):
        network = Network(Config(**trinet.MODELS[model]))
    assert sum(p.numel() for p in network.parameters()) == trinet.PARAMETERS[model]


@pytest.mark.parametrize(
    ("config", "some"),
    [
        (Config(bins=60), {"features.conv1.weight", "features.layer1.0.downsample.1.running_var", "features.fc.bias"}),
        (SMALL, {"features.0.0.weight", "features.1.conv.0.1.bias", "features.18.1.running_mean"}),
    ],
)
def test_released_names(config, some):
    network = untrained(config)
    prefix = "features." if config.backbone == "resnet50" else ""
    tensors = {n.replace("backbone.", prefix, 1).removeprefix("heads."): t for n, t in network.state_dict().items()}
    assert some | {"fc_x1.weight", "fc_z3.bias"} <= tensors.keys()
    found = published(config, tensors)
    assert all(torch.equal(found[name], own) for name, own in network.state_dict().items())
    with pytest.raises(UbhpdError, match=r"fc_x1.weight has shape"):
        published(Config(backbone=config.backbone, bins=41), tensors)
    del tensors["fc_y2.bias"]
    with pytest.raises(UbhpdError, match=r"lack fc_y2\.bias"):
        published(config, tensors)


@pytest.mark.parametrize(
    "options", [{"size": 31}, {"backbone": "resnet18"}, {"bins": 1}, {"alpha": -1.0}, {"beta": float("nan")}]
)
def test_bad_options_are_refused(options):
    with pytest.raises(UbhpdError):
        Config(**options)


def test_recipes_exist():
    recipe = trinet.input_recipe(Config())
    assert {recipe.crop_for(d) for d in ("w300lp", "aflw2000", "biwi")} <= RECIPES.keys()
    assert (recipe.colour, recipe.mean, recipe.std) == ("BGR", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
