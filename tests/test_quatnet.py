"""QuatNet: quaternions against matrices, thresholds, the two terms of the loss by hand, overfitting one batch."""

import numpy as np
import pytest
import torch
from network_checks import batch, check_gradients, check_overfits_one_batch

from ubhpd.baselines.quatnet import Config, Network, input_recipe, is_above
from ubhpd.core import rotation
from ubhpd.core.errors import UbhpdError
from ubhpd.nn.contract import Target
from ubhpd.nn.outputs import matrix_from_euler, quaternion_from_euler, rotation_from_quaternion

SMALL = Config(size=32, backbone="resnet18")


def untrained(config=SMALL):
    torch.manual_seed(0)
    return Network(config)


def test_quaternions_are_the_rotation_of_the_angles():
    draw = torch.Generator().manual_seed(0)
    angles = (torch.rand((200, 3), generator=draw) * 2 - 1) * torch.tensor([180.0, 90.0, 180.0])
    found = quaternion_from_euler(angles)
    assert (found[:, 0] >= 0).all()
    torch.testing.assert_close(found.norm(dim=1), torch.ones(200))
    torch.testing.assert_close(rotation_from_quaternion(found), matrix_from_euler(angles), atol=1e-5, rtol=0)
    own = rotation.quaternion_from_matrix(matrix_from_euler(angles.double()).numpy())[:, [3, 0, 1, 2]]
    np.testing.assert_allclose(np.abs((own * found.double().numpy()).sum(axis=1)), 1, atol=1e-6)


def test_thresholds_lie_between_hopenets_bins():
    above = is_above(torch.tensor([[-98.0, 0.0, 98.0]]))
    assert above.shape == (1, 3, 65) and above.sum(dim=2).tolist() == [[0.0, 33.0, 65.0]]
    assert is_above(torch.tensor([[-96.0, -96.1, 95.9]])).sum(dim=2).tolist() == [[1.0, 0.0, 64.0]]


def test_the_loss_by_hand_and_q_and_minus_q_are_one_rotation():
    angles = torch.tensor([[40.0, -10.0, 20.0]])
    target = Target(angles, matrix_from_euler(angles))
    truth = quaternion_from_euler(angles)
    turned = quaternion_from_euler(torch.tensor([[-90.0, 0.0, 0.0]]))
    logits = torch.zeros(1, 3, 65)
    network = untrained(Config(size=32, backbone="resnet18", ordinal_weight=2.0))
    for sign in (1, -1):
        loss = network.loss({"quaternion": sign * truth, "ordinal": logits}, target)
        assert float(loss["quaternion"]) == pytest.approx(0, abs=1e-6)
        assert float(loss["ordinal"]) == pytest.approx(2 * np.log(2), rel=1e-5)
    apart = float(network.loss({"quaternion": turned, "ordinal": logits}, target)["quaternion"])
    chord = ((turned - truth) ** 2).sum(), ((turned + truth) ** 2).sum()
    assert apart == pytest.approx(float(min(chord)), rel=1e-5)
    sure = (is_above(angles) * 2 - 1) * 40
    assert float(network.loss({"quaternion": truth, "ordinal": sure}, target)["ordinal"]) == pytest.approx(0, abs=1e-6)


def test_it_learns_heads_it_trains_on():
    network = untrained()
    images, target = batch(network, input_recipe(SMALL), n=8)
    terms = check_gradients(network, images, target)
    assert terms["quaternion"] > 0 and terms["ordinal"] > 0
    check_overfits_one_batch(network, images, target, steps=200, lr=1e-3, loss_divided_by=8)


def test_options_that_cannot_work_are_refused():
    for options, match in (
        ({"size": 16}, "size is 16"),
        ({"backbone": "vgg16"}, 'no backbone "vgg16"'),
        ({"ordinal_weight": float("nan")}, "ordinal_weight of QuatNet is nan"),
    ):
        with pytest.raises(UbhpdError, match=match):
            Config(**options)
