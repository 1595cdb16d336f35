"""SSR-Net-MD and its stage-wise sum: by hand, the pole, and the published weights."""

import numpy as np
import pytest
import torch
from network_checks import batch, check_gradients, check_overfits_one_batch
from realdata import REAL, needs

from ubhpd.baselines import ssrnet_md
from ubhpd.baselines.ssrnet_md import Config, Network, published
from ubhpd.core.errors import UbhpdError
from ubhpd.models import importing
from ubhpd.nn.contract import Target
from ubhpd.nn.outputs import matrix_from_euler
from ubhpd.nn.stagewise import StageDense, from_keras, stagewise_deg

FILE = "weights/fsanet_300W_LP/ssrnet_mt.h5"
GOLDEN = "weights/golden"


def untrained(seed=0, **options):
    torch.manual_seed(seed)
    return Network(Config(**{"size": 16, **options}))


def released():
    network = Network(Config())
    network.load_state_dict(published(Config(), importing.read(REAL / FILE)))
    return network.eval()


def _array(name, key):
    found = np.load(REAL / GOLDEN / name)
    return found if key is None else found[key]


@needs(FILE)
@pytest.mark.parametrize(
    "inputs, answers",
    [
        (("input_bgr_uint8.npy", None), ("keras215_300W_LP_ssrnet_mt.npz", "pred_pose")),
        (("real_astronaut.npz", "fsa_bgr64"), ("real_astronaut_keras_pred.npz", "ssrnet_mt")),
    ],
)
def test_published_weights_answer_as_the_original_code(inputs, answers):
    bgr, wanted = (_array(*where) for where in (inputs, answers))
    network = released()
    with torch.inference_mode():
        found = network.pose(network(torch.from_numpy(bgr).permute(0, 3, 1, 2).float()))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3)


@needs(FILE)
def test_missing_and_foreign_tensors_are_named():
    tensors = importing.read(REAL / FILE)
    with pytest.raises(UbhpdError, match="lack conv2d_3/bias"):
        published(Config(), {n: t for n, t in tensors.items() if n != "conv2d_3/bias"})
    with pytest.raises(UbhpdError, match="head/kernel too many"):
        published(Config(), {**tensors, "head/kernel": np.zeros((3, 2))})
    with pytest.raises(UbhpdError, match="dense_7/kernel has shape"):
        published(Config(), {**tensors, **_narrow(tensors)})


def _narrow(tensors):
    return {f"dense_{k}/kernel": tensors[f"dense_{k}/kernel"][:1024] for k in (7, 8, 9)}


def test_stagewise_sum_by_hand():
    p = torch.tensor([[0.2, 0.3, 0.5], [0.0, 1.0, 0.5], [2.0, 0.0, 0.0]]).view(1, 3, 1, 3)
    eta = torch.tensor([0.1, -0.2, 0.5]).view(1, 3, 1)
    delta = torch.tensor([0.0, 0.5, -0.5]).view(1, 3, 1)
    first = (-1 + 0.1) * 0.2 + (0 + 0.1) * 0.3 + (1 + 0.1) * 0.5
    second = (0 - 0.2) * 1.0 + (1 - 0.2) * 0.5
    third = (-1 + 0.5) * 2.0
    expected = 99 * (first / 3 + second / (3 * 4.5) + third / (3 * 4.5 * 1.5))
    assert float(stagewise_deg(p, eta, delta)) == pytest.approx(expected)


def test_equal_weights_and_no_shift_are_straight_ahead():
    assert stagewise_deg(torch.ones(2, 3, 3, 3), torch.zeros(2, 3, 3), torch.zeros(2, 3, 3)).equal(torch.zeros(2, 3))


def test_the_floor_of_delta_takes_the_pole_away():
    p, eta = torch.ones(1, 3, 3, 3), torch.ones(1, 3, 3)
    delta = torch.zeros(1, 3, 3)
    delta[:, 0] = -1
    assert not stagewise_deg(p, eta, delta).isfinite().any()
    at_floor = stagewise_deg(p, eta, delta.clamp(min=-0.9))
    assert stagewise_deg(p, eta, delta, min_delta=-0.9).equal(at_floor) and at_floor.isfinite().all()


def test_the_floor_is_an_option_of_the_network():
    plain, floored = untrained(), untrained(min_delta=-0.5)
    for network in (plain, floored):
        torch.nn.init.constant_(network.shifts.delta.bias, -1.0)
    inputs, _ = batch(plain, ssrnet_md.input_recipe(plain.config), n=2)
    plain_output, floored_output = plain.eval()(inputs), floored.eval()(inputs)
    assert (plain_output["delta"] < -0.5).any() and not plain_output["angles"].equal(floored_output["angles"])
    parts = (plain_output[name] for name in ("p", "eta", "delta"))
    torch.testing.assert_close(floored_output["angles"], stagewise_deg(*parts, min_delta=-0.5))


def test_a_layer_per_stage_is_three_layers():
    layer = StageDense(4, 2)
    x = torch.randn(5, 3, 4)
    for stage in range(3):
        rows = slice(2 * stage, 2 * stage + 2)
        expected = x[:, stage] @ layer.weight[rows].T + layer.bias[rows]
        torch.testing.assert_close(layer(x)[:, stage], expected)


def test_keras_layouts():
    kernel = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    depthwise = torch.arange(2 * 3 * 4.0).view(2, 3, 4, 1)
    dense = torch.arange(6.0).view(3, 2)
    found = from_keras(
        {"c/kernel": kernel, "d/depthwise_kernel": depthwise, "a/kernel": dense, "b/kernel": dense + 6}
        | {"a/bias": torch.zeros(2), "b/bias": torch.ones(2)},
        [("a", "b")],
    )
    assert found["c/kernel"].shape == (5, 4, 2, 3) and found["c/kernel"][4, 3, 1, 2] == kernel[1, 2, 3, 4]
    assert found["d/depthwise_kernel"].shape == (4, 1, 2, 3)
    assert found["a/kernel"].tolist() == [[0, 2, 4], [1, 3, 5], [6, 8, 10], [7, 9, 11]] and "b/kernel" not in found
    assert found["a/bias"].tolist() == [0, 0, 1, 1] and "b/bias" not in found


def test_parameters_are_those_of_the_published_file():
    with torch.device("meta"):
        network = Network(Config())
    assert sum(p.numel() for p in network.parameters()) == ssrnet_md.PARAMETERS["ssrnet_md"]


def test_shapes_gradients_and_loss():
    network = untrained()
    inputs, target = batch(network, ssrnet_md.input_recipe(network.config), n=4)
    assert set(check_gradients(network, inputs, target)) == {"mae"}
    output = network(inputs)
    assert output["p"].shape == (4, 3, 3, 3) and output["eta"].shape == output["delta"].shape == (4, 3, 3)
    truth = torch.tensor([[1.0, 2.0, 3.0]])
    loss = network.loss({"angles": torch.tensor([[1.0, -2.0, 5.0]])}, Target(truth, matrix_from_euler(truth)))
    assert float(loss["mae"]) == pytest.approx((0 + 4 + 2) / 3)


def test_a_batch_is_overfitted():
    network = untrained()
    inputs, target = batch(network, ssrnet_md.input_recipe(network.config))
    check_overfits_one_batch(network, inputs, target, steps=200, lr=5e-3, loss_divided_by=8)


def test_answers_do_not_depend_on_the_rest_of_the_batch():
    network = untrained()
    inputs, _ = batch(network, ssrnet_md.input_recipe(network.config), n=5)
    network(inputs)
    network.eval()
    with torch.inference_mode():
        whole, again = network(inputs)["angles"], network(inputs)["angles"]
        alone = torch.cat([network(inputs[i : i + 1])["angles"] for i in range(5)])
    assert whole.equal(again)
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("wrong", [{"size": 40}, {"min_delta": -2.0}, {"min_delta": float("nan")}, {"colour": "grey"}])
def test_bad_options_are_refused(wrong):
    with pytest.raises(UbhpdError, match=next(iter(wrong))):
        Config(**wrong)


def test_the_batch_is_half_of_fsanets():
    assert ssrnet_md.training_recipe(Config()).batch_size == 8
