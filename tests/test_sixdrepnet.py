"""6DRepNet: its matrix and ours, hand angles, both forms of its weights, overfitting one batch."""

import numpy as np
import pytest
import torch
from network_checks import batch, check_gradients, check_overfits_one_batch

from ubhpd.baselines import sixdrepnet
from ubhpd.baselines.sixdrepnet import Config, Network, published
from ubhpd.core import rotation
from ubhpd.core.errors import UbhpdError
from ubhpd.images.recipes import RECIPES
from ubhpd.nn.contract import Target
from ubhpd.nn.outputs import matrix_from_euler, orthonormal_columns

SMALL = Config(size=32, backbone="resnet18")


def papers_matrix(yaw_deg, pitch_deg, roll_deg):
    """Rz(roll) Ry(yaw) Rx(pitch), written out on its own."""
    y, p, r = np.radians([yaw_deg, pitch_deg, roll_deg])
    x_part = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    y_part = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    z_part = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return z_part @ y_part @ x_part


def angles_of_the_paper(matrix):
    """The inverse of it: yaw, pitch, roll in degrees."""
    pitch = np.arctan2(matrix[2, 1], matrix[2, 2])
    yaw = np.arctan2(-matrix[2, 0], np.hypot(matrix[0, 0], matrix[1, 0]))
    return np.degrees([yaw, pitch, np.arctan2(matrix[1, 0], matrix[0, 0])])


def untrained(config=SMALL, seed=0):
    torch.manual_seed(seed)
    return Network(config)


def pose_of(matrix):
    pose = Network.pose(None, {"rotation": torch.as_tensor(matrix)[None]})
    return pose[0].numpy()


@pytest.mark.parametrize("angles", [(30, 0, 0), (0, 20, 0), (0, 0, 25), (-55, 31, -12), (88, -70, 100), (130, 10, -5)])
def test_the_papers_matrix_of_some_angles_is_the_canonical_rotation_of_the_same_angles(angles):
    np.testing.assert_allclose(pose_of(papers_matrix(*angles)), rotation.matrix_from_euler(angles), atol=1e-12)


def test_both_read_the_same_angles_off():
    for angles in np.random.default_rng(0).uniform(-89, 89, (50, 3)):
        matrix = papers_matrix(*angles)
        np.testing.assert_allclose(angles_of_the_paper(matrix), angles, atol=1e-9)
        np.testing.assert_allclose(rotation.euler_from_matrix(pose_of(matrix)), angles, atol=1e-9)


def test_signs_by_where_the_nose_and_the_right_of_the_head_go():
    """Frame C: x image-right, y up, z to the viewer; the nose is z of the head."""
    half = np.sqrt(0.5)
    nose = np.array([0.0, 0.0, 1.0])
    np.testing.assert_allclose(pose_of(papers_matrix(45, 0, 0)) @ nose, [-half, 0, half], atol=1e-12)  # image-left
    np.testing.assert_allclose(pose_of(papers_matrix(0, 45, 0)) @ nose, [0, half, half], atol=1e-12)  # up
    right = pose_of(papers_matrix(0, 0, 45)) @ np.array([1.0, 0.0, 0.0])
    np.testing.assert_allclose(right, [half, -half, 0], atol=1e-12)  # clockwise


def test_six_numbers_become_a_rotation():
    network = untrained().eval()
    with torch.no_grad():
        network.linear_reg.weight.zero_()
        network.linear_reg.bias.copy_(torch.tensor([0.0, 2.0, 0.0, -3.0, 5.0, 0.0]))
        found = network(torch.zeros(1, 3, 32, 32))["rotation"][0]
    # x = (0, 1, 0); z = x x (-3, 5, 0) = (0, 0, 3) -> (0, 0, 1); y = z x x = (-1, 0, 0): columns
    assert torch.allclose(found, torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]))


def test_loss_is_the_mean_angle():
    truth = torch.tensor([[0.0, 0, 0], [10.0, 20, 30]])
    answer = torch.tensor([[90.0, 0, 0], [10.0, 20, 0]])
    output = {"rotation": matrix_from_euler(answer).transpose(1, 2)}
    loss = untrained().loss(output, Target(truth, matrix_from_euler(truth)))
    assert float(loss["geodesic"]) == pytest.approx(np.radians((90 + 30) / 2), abs=1e-6)


def test_mirrored_matrix_is_the_mirrored_heads():
    angles = (25, -10, 40)
    mirrored = pose_of(papers_matrix(-25, -10, -40))
    np.testing.assert_allclose(mirrored, rotation.matrix_from_euler(rotation.mirror_euler(angles)), atol=1e-12)


@pytest.mark.parametrize("config", [SMALL, Config(size=64, backbone="resnet50")])
def test_shape_and_gradients(config):
    network = untrained(config)
    inputs, target = batch(network, sixdrepnet.input_recipe(config), n=3)
    check_gradients(network, inputs, target)
    network.eval()
    with torch.no_grad():
        together = network.pose(network(inputs))
        alone = torch.cat([network.pose(network(one[None])) for one in inputs])
    assert together.shape == (3, 3, 3) and torch.allclose(together, alone, atol=1e-4)
    identity = torch.eye(3).expand(3, 3, 3)
    assert torch.allclose(together @ together.transpose(1, 2), identity, atol=1e-5)


def test_learns_a_batch_by_heart():
    config = Config(size=32, backbone="resnet18")
    network = untrained(config)
    inputs, target = batch(network, sixdrepnet.input_recipe(config))
    check_overfits_one_batch(network, inputs, target, steps=60, loss_divided_by=20)


@pytest.mark.parametrize("model", sixdrepnet.MODELS)
def test_parameters(model):
    with torch.device("meta"):
        network = Network(Config(**sixdrepnet.MODELS[model]))
    assert sum(p.numel() for p in network.parameters()) == sixdrepnet.PARAMETERS[model]


def released_name(own):
    return own.removeprefix("backbone.").replace("stage", "layer")


def released_of_repvgg(network):
    return {released_name(name): tensor.numpy() for name, tensor in network.state_dict().items()}


@pytest.fixture(scope="module")
def both_forms():
    """A network with the training form's tensors as released, and the same after they were summed up."""
    network = untrained(Config(size=32)).eval()
    draw = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1, generator=draw)
            module.running_var.uniform_(0.5, 2.0, generator=draw)
    training = {name: values.copy() for name, values in released_of_repvgg(network).items()}
    images = torch.randn((2, 3, 32, 32), generator=draw)
    with torch.no_grad():
        answer = network(images)["rotation"]
        network.backbone.reparameterize()
    return training, released_of_repvgg(network), images, answer


def test_released_names(both_forms):
    training, deploy, *_ = both_forms
    assert {"layer0.rbr_dense.conv.weight", "layer1.0.rbr_1x1.bn.running_var", "linear_reg.weight"} <= training.keys()
    assert {"layer0.rbr_reparam.weight", "layer3.15.rbr_reparam.bias", "linear_reg.bias"} <= deploy.keys()
    assert "layer2.5.rbr_identity.weight" in training and "layer2.0.rbr_identity.weight" not in training


def test_both_forms_of_the_released_weights_answer_alike(both_forms):
    training, deploy, images, answer = both_forms
    for config, tensors in ((Config(size=32), training), (Config(size=32, deploy=True), deploy)):
        with torch.device("meta"):
            network = Network(config).eval()
        network.load_state_dict(published(config, tensors), assign=True)
        with torch.no_grad():
            assert torch.allclose(network(images)["rotation"], answer, atol=1e-4)


def test_the_other_form_is_refused_by_name(both_forms):
    training, deploy, *_ = both_forms
    with pytest.raises(UbhpdError, match="form for use: load them as the model sixdrepnet_deploy"):
        published(Config(), deploy)
    with pytest.raises(UbhpdError, match="training form: load them as the model sixdrepnet"):
        published(Config(deploy=True), training)


def released_resnet():
    tensors = {name.removeprefix("backbone."): t for name, t in untrained().state_dict().items()}
    width = 512
    return {**tensors, "fc_finetune.weight": torch.zeros(3, width + 3), "fc_finetune.bias": torch.zeros(3)}


def test_the_released_resnet_with_its_unused_layer():
    found = published(SMALL, released_resnet())
    own = untrained().state_dict()
    assert found.keys() == own.keys() and all(torch.equal(found[name], own[name]) for name in own)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t.pop("layer1.0.conv1.weight"), "lack layer1.0.conv1.weight"),
        (lambda t: t.update(fc=torch.zeros(2)), "have fc too many"),
        (lambda t: t.update({"linear_reg.bias": torch.zeros(9)}), r"linear_reg.bias has shape \(9,\) where \(6,\)"),
    ],
)
def test_bad_weights_are_refused(change, complaint):
    tensors = released_resnet()
    change(tensors)
    with pytest.raises(UbhpdError, match=complaint):
        published(SMALL, tensors)


def test_weights_from_before_torch_counted_batches():
    tensors = {name: t for name, t in released_resnet().items() if not name.endswith("num_batches_tracked")}
    assert published(SMALL, tensors)["backbone.bn1.num_batches_tracked"] == 0


@pytest.mark.parametrize("options", [{"size": 16}, {"backbone": "vgg16"}, {"backbone": "resnet18", "deploy": True}])
def test_bad_options_are_refused(options):
    with pytest.raises(UbhpdError):
        Config(**options)


def test_recipes_exist():
    recipe = sixdrepnet.input_recipe(Config())
    assert {recipe.crop_for(d) for d in ("w300lp", "aflw2000", "biwi")} <= RECIPES.keys()
    assert recipe.crop_for("biwi") == "6drepnet-biwi" and recipe.size == 224


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_six_numbers_of_16_bits_give_rotations_of_32(kind):
    torch.manual_seed(0)
    found = orthonormal_columns(torch.randn(5, 6).to(kind))
    assert found.dtype == torch.float32
    assert torch.allclose(found @ found.transpose(1, 2), torch.eye(3).expand(5, 3, 3), atol=1e-6)


def test_the_port_with_a_mobilenet():
    config = Config(size=64, backbone="mobilenet_v2")
    network = Network(config)
    tensors = {name.removeprefix("backbone."): t.numpy() for name, t in network.state_dict().items()}
    assert {"features.0.0.weight", "features.18.1.running_var", "linear_reg.weight"} <= set(tensors)
    found = published(config, tensors)
    assert set(found) == set(network.state_dict())
    normalisations = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert sorted({m.eps for m in normalisations}) == [1e-5, 1e-3]
    assert sum(m.eps == 1e-5 for m in normalisations) == 17  # one narrowing layer in every block
