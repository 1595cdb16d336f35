"""HPE: top-k expectations by hand, shifted members, the second stage corrects the first, overfitting one batch."""

import pytest
import torch
from network_checks import batch, check_gradients, check_overfits_one_batch

from ubhpd.baselines.hpe import Config, Network, input_recipe, top_k_deg
from ubhpd.core.errors import UbhpdError
from ubhpd.nn.contract import Target
from ubhpd.nn.outputs import Bins, matrix_from_euler

SMALL = Config(size=32, backbone="resnet18", members=2, top_k=5)


def untrained(config=SMALL):
    torch.manual_seed(0)
    return Network(config)


def test_only_the_k_most_probable_bins_count():
    bins = Bins(count=4, width_deg=10.0, first_deg=-20.0)  # middles -15, -5, 5, 15
    logits = torch.tensor([[0.1, 0.3, 0.0, 0.6]]).log().clamp(-60)
    assert float(top_k_deg(logits, bins, 1)) == pytest.approx(15.0)
    assert float(top_k_deg(logits, bins, 2)) == pytest.approx((0.3 * -5 + 0.6 * 15) / 0.9, rel=1e-5)
    assert float(top_k_deg(logits, bins, 4)) == pytest.approx(0.1 * -15 + 0.3 * -5 + 0.6 * 15, rel=1e-4)


def test_more_than_all_bins_are_all_bins():
    network = untrained(Config(size=32, backbone="resnet18", top_k=1000))
    assert (network.first.top_k, network.second.top_k) == (67, 33)


def test_the_bins_of_members_are_shifted_by_shares_of_a_bin():
    first = untrained(Config(size=32, backbone="resnet18", members=3)).first
    assert [b.first_deg for b in first.bins] == [-102.0, -101.0, -100.0]
    logits = torch.full((1, 3, 3, 67), -60.0)
    logits[..., 34] = 60.0  # middles 1.5, 2.5 and 3.5
    torch.testing.assert_close(first.angles_deg(logits), torch.full((1, 3), 2.5))


def test_the_second_stage_corrects_the_first():
    network = untrained()
    output = {"coarse_deg": torch.tensor([[10.0, 0.0, -5.0]]), "fine_deg": torch.tensor([[-1.0, 2.0, 0.5]])}
    assert network.pose(output).tolist() == [[9.0, 2.0, -4.5]]
    angles = torch.tensor([[9.0, 2.0, -4.5]])
    output |= {"coarse": torch.zeros(1, 2, 3, 67), "fine": torch.zeros(1, 2, 3, 33)}
    loss = network.loss(output, Target(angles, matrix_from_euler(angles)))
    assert float(loss["regression_2"]) == pytest.approx(0.0, abs=1e-9)
    assert float(loss["regression_1"]) == pytest.approx(1 + 4 + 0.25)
    assert float(loss["class_1"]) == pytest.approx(3 * float(torch.tensor(67.0).log()), rel=1e-5)
    assert float(loss["class_2"]) == pytest.approx(3 * float(torch.tensor(33.0).log()), rel=1e-5)


def test_it_learns_heads_it_trains_on():
    network = untrained()
    images, target = batch(network, input_recipe(SMALL), n=8)
    terms = check_gradients(network, images, target)
    assert set(terms) == {"class_1", "regression_1", "class_2", "regression_2"}
    check_overfits_one_batch(network, images, target, steps=400, lr=1e-3, loss_divided_by=8)


def test_options_that_cannot_work_are_refused():
    for options, match in (
        ({"size": 16}, "size is 16"),
        ({"backbone": "alexnet"}, 'no backbone "alexnet"'),
        ({"members": 0}, "members 0"),
        ({"top_k": 0}, "top_k 0"),
        ({"regression_weight": -1.0}, "regression_weight of HPE is -1.0"),
    ):
        with pytest.raises(UbhpdError, match=match):
            Config(**options)
