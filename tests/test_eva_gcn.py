"""EVA-GCN: its graph, landmarks that are not known, hand-made losses, options, and that it learns."""

import ast
import csv
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from network_checks import batch, check_gradients, check_overfits_one_batch, mean_error_deg

from ubhpd.baselines import eva_gcn
from ubhpd.baselines.eva_gcn import (
    MODELS,
    NODES,
    PARAMETERS,
    REPORTED,
    Config,
    Network,
    filled,
    input_recipe,
    joined,
    partitions,
    training_recipe,
)
from ubhpd.core.errors import UbhpdError
from ubhpd.images import recipes
from ubhpd.nn.contract import Target
from ubhpd.nn.landmark_sets import mean_face_mm, mirror_of
from ubhpd.nn.outputs import matrix_from_euler

AT = {landmark: node for node, landmark in enumerate(NODES)}
EDGES = torch.from_numpy(joined().astype(np.float32))


def network(seed=0, **options):
    torch.manual_seed(seed)
    return Network(Config(**options))


def heads(n, seed=0):
    """Mean faces seen from far away, turned, of different sizes, at different places of the crop."""
    draw = torch.Generator().manual_seed(seed)
    angles = (torch.rand((n, 3), generator=draw) * 2 - 1) * torch.tensor([60.0, 40.0, 30.0])
    rotation = matrix_from_euler(angles)
    face = torch.from_numpy(mean_face_mm().copy()).float()
    places = face @ rotation[:, :2].transpose(1, 2) * torch.tensor([1.0, -1.0])
    places = places * (torch.rand((n, 1, 1), generator=draw) * 0.001 + 0.002)
    places = places + torch.rand((n, 1, 2), generator=draw) * 0.2 - 0.1
    return places, Target(angles, rotation, places)


def test_the_card_tells_the_number_of_parameters():
    for name, options in MODELS.items():
        with torch.device("meta"):
            model = Network(Config(**options))
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == PARAMETERS[name]
    widths = [2, 64, 64, 64, 64, 128]
    blocks = sum(3 * b * (a + 1) + b * (b + 1) + 4 * b for a, b in pairwise(widths))
    shortcut = 128 * (64 + 1) + 2 * 128
    ends = 2 * 38 + 256 * (128 + 1) + 3 * (256 + 1)
    assert PARAMETERS["eva_gcn"] == blocks + shortcut + ends + 5 * 3 * 19 * 19


def test_the_card_is_literal_and_names_what_exists():
    source = Path(eva_gcn.__file__)
    card = {}
    for node in ast.parse(source.read_text()).body:
        name = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if getattr(name, "id", None) in ("KIND", "MODELS", "PARAMETERS", "REPORTED"):
            card[name.id] = ast.literal_eval(node.value)
    assert card["KIND"] == "landmarks" and set(card["PARAMETERS"]) == set(card["MODELS"]) == set(MODELS)
    with (source.parents[1] / "ubhpd/data/published_results.csv").open(encoding="utf-8") as lines:
        assert set(REPORTED.values()) <= {row["method"] for row in csv.DictReader(lines)}
    recipe = input_recipe(Config())
    assert {recipe.crop, recipe.crop_for("biwi")} == {"osggnet", "osggnet-biwi"} <= set(recipes.RECIPES)


def test_the_graph_is_that_of_the_released_code():
    edges = joined()
    assert edges.sum() == 2 * 40 and not edges.diagonal().any() and (edges == edges.T).all()
    mirror = list(mirror_of(NODES))
    assert (edges[mirror][:, mirror] == edges).all()
    of_centre = {NODES[k] for k in np.flatnonzero(edges[AT[33]])}
    assert of_centre == {31, 35, 39, 42, 51}
    degree = {landmark: int(edges[k].sum()) for landmark, k in AT.items()}
    assert [degree[k] for k in (1, 3, 8, 17, 21, 31, 33, 36, 39, 48, 51)] == [2, 6, 4, 4, 3, 5, 5, 5, 5, 4, 3]
    assert edges[AT[21], AT[45]] and not edges[AT[21], AT[22]], "brows meet the far eye, not each other"


def test_what_a_node_takes_adds_up_to_one():
    graph = partitions()
    assert graph.shape == (3, 19, 19)
    assert np.allclose(graph.sum(axis=(0, 1)), 1)
    assert (graph.sum(axis=0) > 0)[joined()].all() and ((graph > 0).sum(axis=0) <= 1).all()


def test_the_three_partitions_by_hand():
    """The nose base has five neighbours, none nearer than itself; the nose wing takes from it as from a nearer one."""
    itself, farther, nearer = partitions()
    centre, wing, jaw = AT[33], AT[31], AT[8]
    assert np.allclose(itself, np.diag(1 / (joined().sum(axis=0) + 1)))
    assert farther[AT[39], centre] == pytest.approx(1 / 6) and nearer[:, centre].sum() == 0
    assert nearer[centre, wing] == pytest.approx(1 / 6) and farther[centre, wing] == 0
    assert farther[AT[48], wing] == pytest.approx(1 / 6)
    assert set(np.flatnonzero(nearer.sum(axis=0))) == {AT[k] for k in (31, 35, 39, 42, 51)} | {
        k for k in range(19) if k != centre and joined()[k, [AT[w] for w in (31, 35, 39, 42, 51)]].any()
    }
    assert nearer[AT[48], jaw] == 0, "two nodes that do not touch the centre are equally far"


def test_shapes_and_gradients():
    model = network()
    places, target = heads(6)
    out = model(places)
    assert {k: tuple(v.shape) for k, v in out.items()} == {"nodes": (6, 19, 2), "known": (6,), "pose": (6, 3)}
    assert torch.equal(model.pose(out), out["pose"]) and torch.equal(out["nodes"], places[:, list(NODES)])
    assert set(check_gradients(model, places, target)) == {"pose"}


def test_only_the_nineteen_nodes_are_seen():
    model = network().eval()
    places, _ = heads(3)
    other = torch.full_like(places, torch.nan)
    other[:, list(NODES)] = places[:, list(NODES)]
    assert torch.equal(model(places)["pose"], model(other)["pose"])
    places[:, NODES[4], 0] += 0.1
    assert not torch.equal(model(places)["pose"], model(other)["pose"])


def test_eval_is_deterministic_and_takes_each_head_by_itself():
    model = network().eval()
    places, _ = heads(4)
    places[1, NODES[3]] = torch.nan
    together, alone = model(places), torch.cat([model(p[None])["pose"] for p in places])
    assert torch.equal(together["pose"], model(places)["pose"])
    torch.testing.assert_close(together["pose"], alone, atol=1e-5, rtol=1e-4)


def test_an_unknown_node_is_put_amid_its_known_neighbours():
    places = torch.rand((1, 19, 2), generator=torch.Generator().manual_seed(0))
    known = torch.ones((1, 19), dtype=torch.bool)
    known[0, [AT[51], AT[31]]] = False
    found = filled(places.masked_fill(~known.unsqueeze(2), torch.nan), known, EDGES)[0]
    assert torch.equal(found[known[0]], places[0][known[0]])
    torch.testing.assert_close(found[AT[51]], places[0, [AT[33], AT[35]]].mean(dim=0))
    around = [AT[k] for k in (33, 36, 3, 48)]
    torch.testing.assert_close(found[AT[31]], places[0, around].mean(dim=0))


@pytest.mark.parametrize("only", range(19))
def test_one_known_node_is_enough_to_fill_all(only):
    places = torch.full((1, 19, 2), torch.nan)
    places[0, only] = torch.tensor([0.25, -0.5])
    found = filled(places, places.isfinite().all(dim=2), EDGES)
    assert torch.equal(found, places[:, only : only + 1].expand(1, 19, 2))


def test_filling_in_and_mirroring_may_be_exchanged():
    draw = torch.Generator().manual_seed(1)
    places, known = torch.rand((20, 19, 2), generator=draw), torch.rand((20, 19), generator=draw) < 0.4
    mirror, flip = list(mirror_of(NODES)), torch.tensor([-1.0, 1.0])
    first = filled(places, known, EDGES)[:, mirror] * flip
    torch.testing.assert_close(first, filled(places[:, mirror] * flip, known[:, mirror], EDGES))


def test_a_head_without_any_node_has_no_pose_and_does_not_count():
    model = network()
    places, target = heads(4)
    places[2] = torch.nan
    out = model(places)
    assert out["pose"][2].isnan().all() and out["pose"][[0, 1, 3]].isfinite().all()
    model.loss(out, target)["pose"].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    none = model.loss(model(places * torch.nan), target)["pose"]
    assert none.item() == 0


def test_the_loss_by_hand():
    model = network(yaw_weight=2.0, pitch_weight=3.0, roll_weight=5.0)
    pose = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [torch.nan] * 3])
    target = Target(torch.tensor([[1.0, 2.0, -3.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]), torch.eye(3).expand(3, 3, 3))
    output = {"pose": pose, "known": torch.tensor([True, True, False])}
    assert model.loss(output, target)["pose"].item() == pytest.approx((2 * 1 + 3 * 4 + 5 * 9) / 2)
    assert (Config().yaw_weight, Config().pitch_weight, Config().roll_weight) == (0.001, 0.0015, 0.001)


def test_every_block_learns_its_own_edges_unless_told_not_to():
    model, plain = network(), network(learns_edges=False)
    assert [tuple(e.shape) for e in model.graph_pose.edges] == [(3, 19, 19)] * 5
    assert all((e == 1).all() for e in model.graph_pose.edges) and len(plain.graph_pose.edges) == 0
    places, target = heads(8)
    torch.testing.assert_close(model(places)["pose"], plain(places)["pose"])
    check_gradients(model, places, target)
    is_edge = model.graph > 0
    assert all((e.grad[~is_edge] == 0).all() and e.grad.abs().sum() > 0 for e in model.graph_pose.edges)


def test_the_recipe_is_that_of_the_released_configuration():
    recipe = training_recipe(Config())
    assert (recipe.optimizer, recipe.nesterov, recipe.momentum, recipe.lr) == ("sgd", True, 0.9, 0.1)
    assert (recipe.schedule, recipe.milestones, recipe.gamma) == ("step", (50, 100, 150, 170), 0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"graph_blocks": 1}, "graph_blocks is 1: give 2 or more"),
        ({"roll_weight": -1.0}, "roll_weight is -1.0: give a number from 0 on"),
        ({"yaw_weight": float("inf")}, "yaw_weight is inf"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(UbhpdError, match=message):
        Config(**options)


def test_it_fits_sixteen_heads_it_trains_on():
    model = network()
    _, target = batch(model, input_recipe(Config()))
    _, error = check_overfits_one_batch(model, target.landmarks, target, steps=150, lr=3e-3, loss_divided_by=50)
    assert error > 40


@pytest.mark.slow
def test_it_judges_heads_that_it_has_not_seen_and_heads_with_a_hidden_landmark():
    model = network().train()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [240, 320], gamma=0.2)
    for step in range(400):
        places, target = heads(32, seed=step + 1)
        optimiser.zero_grad()
        sum(model.loss(model(places), target).values()).backward()
        optimiser.step()
        schedule.step()
    model.eval()
    places, truth = heads(64)
    with torch.no_grad():
        assert mean_error_deg(model, model(places), truth) < 7
        for head in range(64):
            places[head, NODES[head % 19]] = torch.nan
        assert mean_error_deg(model, model(places), truth) < 10
