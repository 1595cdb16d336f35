"""3DDFA v2: the rotation of a camera matrix, two files at import, the released weights on AFLW2000, overfitting."""

import numpy as np
import pytest
import torch
from network_checks import batch, check_gradients, check_overfits_one_batch
from realdata import REAL, needs, predicted_part

from ubhpd.baselines.threeddfa_v2 import Config, Network, input_recipe, published, rotation_of_camera
from ubhpd.core.errors import UbhpdError
from ubhpd.models.importing import imported
from ubhpd.nn.outputs import matrix_from_euler

SMALL = Config(size=32, width=0.25)
NETWORK = "weights/foreign/3ddfa_v2-mb05_120x120.pth"
STATISTICS = "weights/foreign/3ddfa_v2-param_mean_std_62d.npz"


def untrained(config=SMALL):
    torch.manual_seed(0)
    return Network(config)


def as_released(network):
    """The two files of this network: names of the .pth with an aid of training in it, and the statistics."""
    state = {n: v.clone() for n, v in network.state_dict().items()}
    statistics = {n: state.pop(n) for n in ("mean", "std")}
    state |= {"fc_lm.weight": torch.zeros(136, 8), "fc_lm.bias": torch.zeros(136)}
    return state, statistics


def files(first, second):
    return {f"0/{n}": v for n, v in first.items()} | {f"1/{n}": v for n, v in second.items()}


def test_the_rotation_is_that_of_the_scaled_matrix_whatever_its_translation():
    angles = torch.tensor([[30.0, -20.0, 10.0], [-75.0, 5.0, -40.0], [0.0, 0.0, 0.0]])
    rotation = matrix_from_euler(angles)
    camera = torch.cat([3e-4 * rotation, torch.tensor([60.0, 70.0, -66.0]).expand(3, 3)[..., None]], dim=2)
    torch.testing.assert_close(rotation_of_camera(camera.flatten(1)), rotation, atol=1e-5, rtol=0)


def test_a_matrix_that_is_no_rotation_gives_the_nearest_one():
    bent = torch.tensor([[[1.0, 0.1, 0.0, 5.0], [0.0, 1.0, 0.1, 5.0], [0.1, 0.0, 1.0, 5.0]]]) * 2e-4
    found = rotation_of_camera(bent.flatten(1))[0]
    u, _, v = torch.linalg.svd(bent[0, :, :3].double())
    torch.testing.assert_close(found.double(), u @ v, atol=1e-5, rtol=0)


def test_the_statistics_are_applied_to_the_last_layer():
    network = untrained().eval()
    images, _ = batch(network, input_recipe(SMALL), n=2)
    plain = network(images)["parameters"]
    mean, std = network.mean.clone(), network.std.clone()
    network.mean.copy_(torch.arange(62.0))
    network.std.fill_(3.0)
    torch.testing.assert_close(network(images)["parameters"], (plain - mean) / std * 3 + torch.arange(62.0))


@pytest.mark.parametrize("order", [0, 1])
def test_two_files_in_either_order_fill_the_network(order):
    network = untrained()
    network.mean.copy_(torch.randn(62))
    pair = as_released(network)
    filled = published(SMALL, files(*(pair if order == 0 else pair[::-1])))
    assert filled.keys() == network.state_dict().keys()
    for name, values in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(filled[name], values, rtol=0, atol=0)


def test_wrong_files_are_one_sentence():
    network, statistics = as_released(untrained())
    for tensors, match in (
        (network, "two files, the network"),
        (files(network, network), "two files, the network"),
        (files(network, statistics | {"more": torch.zeros(1)}), "more too many"),
        (files(network, {n: v[:61] for n, v in statistics.items()}), r"has shape \(61,\) where \(62,\) belongs"),
        (files(network, statistics | {"std": torch.zeros(62)}), "std of the 62 parameters .* not above 0"),
        (files({n: v for n, v in network.items() if n != "conv1.weight"}, statistics), "lack conv1.weight"),
        (files(network | {"fc_param.weight": torch.zeros(12, 256)}, statistics), "fc_param.weight has shape"),
    ):
        with pytest.raises(UbhpdError, match=match) as error:
            published(SMALL, tensors)
        assert "\n" not in str(error.value)
    with pytest.raises(UbhpdError, match="conv1.weight has shape"):
        published(Config(width=0.5), files(network, statistics))


def test_options_that_cannot_work_are_refused():
    with pytest.raises(UbhpdError, match="size is 16"):
        Config(size=16)
    with pytest.raises(UbhpdError, match=r"width of 3DDFA v2 is 0\.01"):
        Config(width=0.01)


def test_the_statistics_are_read_from_npz_and_nothing_pickled_is(ubhpd, tmp_path):
    network, statistics = as_released(untrained())
    torch.save({"state_dict": {f"module.{n}": v for n, v in network.items()}, "epoch": 3}, tmp_path / "n.pth")
    np.savez(tmp_path / "s.npz", **{n: v.numpy() for n, v in statistics.items()})
    np.savez(tmp_path / "pickled.npz", mean=np.array([{}], dtype=object), std=np.ones(62))
    np.savez(tmp_path / "text.npz", mean=np.array(["x"]), std=np.ones(62))
    np.savez(tmp_path / "nan.npz", mean=np.full(62, np.nan), std=np.ones(62))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "s.npz").read_bytes()[:-30])
    options = ("--model", "threeddfa_v2", "-O", "width=0.25", "-O", "size=32", "--out", tmp_path / "w.safetensors")
    code, out, err = ubhpd("weights", "import", tmp_path / "n.pth", tmp_path / "s.npz", *options)
    assert code == 0 and "threeddfa_v2, imported" in out, err
    for name, match in (
        ("pickled.npz", "holds pickled objects"), ("text.npz", "mean is of type"), ("nan.npz", "nan.npz"),
        ("cut.npz", "cut.npz"),
    ):  # fmt: skip
        code, _, err = ubhpd("weights", "import", tmp_path / "n.pth", tmp_path / name, *options)
        assert code == 2 and match in err and err.count("\n") == 1, err


def test_yaw_is_within_90_degrees_as_in_the_released_code():
    beyond = matrix_from_euler(torch.tensor([[95.0, 2.0, 1.0], [40.0, -20.0, 10.0]]))
    camera = torch.cat([1e-4 * beyond, torch.zeros(2, 3, 1)], dim=2).flatten(1)
    found = untrained().pose({"parameters": torch.cat([camera, torch.zeros(2, 50)], dim=1)})
    wanted = [[85.0, 2.0 - 180, 1.0 - 180], [40.0, -20.0, 10.0]]
    torch.testing.assert_close(found, torch.tensor(wanted), atol=0.05, rtol=0)


def test_training_reaches_what_the_pose_needs():
    network = untrained()
    images, target = batch(network, input_recipe(SMALL), n=8)
    assert check_gradients(network, images, target)["geodesic"] > 0
    check_overfits_one_batch(network, images, target, steps=400, lr=3e-3, loss_divided_by=8)


@needs(STATISTICS)
@needs("AFLW2000")
@pytest.mark.parametrize(
    ("every", "heads", "mae_deg"), [(50, 40, 4.38), pytest.param(1, 1969, 3.633, marks=pytest.mark.slow)]
)
def test_the_released_weights_have_the_error_that_the_card_states(tmp_path, every, heads, mae_deg):
    model = imported([REAL / NETWORK, REAL / STATISTICS], "threeddfa_v2")
    _, predicted, truth = predicted_part(model, tmp_path / "build", every)
    assert len(predicted) == heads
    assert np.abs(predicted - truth).mean() == pytest.approx(mae_deg, abs=0.1 if every > 1 else 0.01)
