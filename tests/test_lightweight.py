"""Lightweight: the bins' middles, groups and activations of its layers, the released weights, overfitting."""

import csv

import numpy as np
import pytest
import torch
from network_checks import batch, check_gradients, check_overfits_one_batch
from realdata import REAL, needs, predicted_part
from torch import nn

from ubhpd.baselines.lightweight import Config, Network, input_recipe, published
from ubhpd.core.errors import UbhpdError
from ubhpd.models.importing import imported
from ubhpd.nn.contract import Target
from ubhpd.nn.outputs import matrix_from_euler

SMALL = Config(size=32)
FILE = "weights/foreign/lightweight-b66.pkl"
PREDICTIONS = "predictions/lightweight_aflw2000.csv"


def untrained(config=SMALL):
    torch.manual_seed(0)
    return Network(config)


def test_the_angle_is_the_middle_of_a_sure_bin():
    logits = torch.full((1, 3, 66), -60.0)
    for angle, index in enumerate((0, 33, 65)):
        logits[0, angle, index] = 60.0
    assert untrained().pose({"logits": logits}).tolist() == [[-97.5, 1.5, 97.5]]


def test_the_loss_is_cross_entropy_and_squared_error():
    logits = torch.zeros(1, 3, 66)  # all bins alike: log 66 each, and the expectation is 0
    angles = torch.tensor([[30.0, 0.0, -10.0]])
    loss = Network(Config(size=32, regression_weight=0.5)).loss(
        {"logits": logits}, Target(angles, matrix_from_euler(angles))
    )
    assert float(loss["class"]) == pytest.approx(3 * np.log(66), rel=1e-5)
    assert float(loss["regression"]) == pytest.approx(0.5 * (900 + 100), rel=1e-4)


def test_layers_are_grouped_and_activated_as_released():
    features = untrained().features
    assert all(block.exp_conv[0].groups == 4 and block.pw_conv[0].groups == 1 for block in features[1:])
    assert [type(block.pw_conv[2]) for block in features[1:]] == [nn.ReLU] * 3 + [nn.Hardswish] * 4
    with torch.no_grad():
        assert features(torch.zeros(1, 3, 224, 224)).shape == (1, 128, 7, 7)


def test_a_state_dict_without_counters_fills_the_network_and_a_wrong_one_is_one_sentence():
    state = dict(untrained().state_dict())
    plain = {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")}
    filled = published(SMALL, plain)
    assert all(torch.equal(filled[name], values) for name, values in plain.items())
    for tensors, match in (
        ({n: v for n, v in plain.items() if n != "fc_yaw.bias"}, "lack fc_yaw.bias"),
        (plain | {"fc_yaw.weight": torch.zeros(67, 128)}, r"fc_yaw.weight has shape \(67, 128\)"),
        (plain | {"more": torch.zeros(1)}, "more too many"),
    ):
        with pytest.raises(UbhpdError, match=match) as error:
            published(SMALL, tensors)
        assert "\n" not in str(error.value)


def test_options_that_cannot_work_are_refused():
    with pytest.raises(UbhpdError, match="size is 16"):
        Config(size=16)
    with pytest.raises(UbhpdError, match="regression_weight of lightweight is -1"):
        Config(regression_weight=-1.0)


def test_it_learns_heads_it_trains_on():
    network = untrained()
    images, target = batch(network, input_recipe(SMALL), n=8)
    terms = check_gradients(network, images, target)
    assert terms["class"] > 0 and terms["regression"] > 0
    check_overfits_one_batch(network, images, target, steps=600, lr=3e-3, loss_divided_by=20)


@needs(FILE)
@needs(PREDICTIONS)
@needs("AFLW2000")
@pytest.mark.parametrize("every", [50, pytest.param(1, marks=pytest.mark.slow)])
def test_the_released_weights_predict_what_others_predicted_with_them(tmp_path, every):
    ids, predicted, truth = predicted_part(imported([REAL / FILE], "lightweight"), tmp_path / "build", every)
    with (REAL / PREDICTIONS).open(newline="") as file:
        of_id = {row["sample_id"]: [float(row[a]) for a in ("yaw", "pitch", "roll")] for row in csv.DictReader(file)}
    theirs = np.array([of_id[i] for i in ids])
    difference = np.abs(predicted - theirs)
    assert np.median(difference) < 0.4 and difference.mean() < 0.8  # their crop is not rounded to the same pixels
    assert np.abs(predicted - truth).mean() == pytest.approx(np.abs(theirs - truth).mean(), abs=0.2)
    assert every > 1 or np.abs(predicted - truth).mean() == pytest.approx(3.923, abs=0.01)
