"""OsGG-Net: shapes, counts, hand-made losses, landmarks that are missing, options, and that it learns."""

import ast
import csv
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from network_checks import batch, check_gradients, check_overfits_one_batch, mean_error_deg, overfit_one_batch

from ubhpd.baselines import osggnet
from ubhpd.baselines.osggnet import ABLATIONS, MODELS, PARAMETERS, REPORTED, Config, Network, input_recipe
from ubhpd.core.errors import UbhpdError
from ubhpd.images import recipes
from ubhpd.nn.contract import Target
from ubhpd.nn.graphs import LandmarkNetwork

TINY = {"size": 32, "backbone": "thin", "decoder_width": 16}


def network(seed=0, **options):
    torch.manual_seed(seed)
    config = Config(**{**TINY, **options})
    return Network(config), input_recipe(config)


def readings(name):
    """The options of a model by which it is more than a size."""
    return {k: v for k, v in MODELS[name].items() if k not in TINY}


def published_rows():
    text = Path(osggnet.__file__).parents[1] / "ubhpd/data/published_results.csv"
    with text.open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.parametrize("name", MODELS)
def test_the_card_tells_the_number_of_parameters(name):
    with torch.device("meta"):
        model = Network(Config(**{**MODELS[name], "neighbours": 5}))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == PARAMETERS[name]


def test_the_two_parts_have_the_parameters_of_the_released_code():
    with torch.device("meta"):
        assert sum(p.numel() for p in LandmarkNetwork("resnet34", 256, 19).parameters()) == 21_459_283
    assert PARAMETERS["osgg_paper"] == 21_459_283 + 98_127


def test_the_card_is_literal_and_names_what_exists():
    constants = {}
    for node in ast.parse(Path(osggnet.__file__).read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id.isupper() and node.targets[0].id[0] != "_":
            constants[node.targets[0].id] = ast.literal_eval(node.value)
    assert {
        "TITLE",
        "PAPER",
        "CODE",
        "LICENSE",
        "KIND",
        "MODELS",
        "PARAMETERS",
        "REPORTED",
        "ABLATIONS",
        "SAME_TRAINING",
    } == set(constants)
    assert set(constants["PARAMETERS"]) == set(MODELS)
    printed = {row["method"] for row in published_rows()}
    assert set(REPORTED) <= set(MODELS) and set(REPORTED.values()) <= printed
    recipe = input_recipe(Config())
    assert {recipe.crop, recipe.crop_for("biwi")} == {"osggnet", "osggnet-biwi"} <= set(recipes.RECIPES)


def test_every_printed_row_of_the_ablations_has_its_options():
    rows = (row for row in published_rows() if row["paper"] == "OsGG-Net 2021")
    printed = {row["method"] for row in rows if row["table"] in {"5", "6", "7", "8", "9"}}
    assert set(ABLATIONS) == printed and len(printed) == 30
    for options in ABLATIONS.values():
        Config(**options)


def test_rows_with_the_same_numbers_have_the_same_options():
    """The tables hang together: the best of each is the first row, or the S, that the next one starts from."""
    by_numbers = {}
    for row in published_rows():
        if row["method"] in ABLATIONS:
            key = tuple(row[k] for k in ("yaw", "pitch", "roll"))
            by_numbers.setdefault(key, []).append(asdict(Config(**ABLATIONS[row["method"]])))
    shared = [same for same in by_numbers.values() if len(same) > 1]
    assert len(shared) == 4
    assert all(same[0] == other for same in shared for other in same[1:])


def test_rows_said_to_be_one_training_are_one():
    """The same options but for the weight of the sparse loss, and that where the loss is constant."""
    for names in osggnet.SAME_TRAINING:
        options = [asdict(Config(**ABLATIONS[n])) for n in names]
        weights = {o.pop("sparse_weight") for o in options}
        assert all(o == options[0] for o in options) and (len(weights) == 1 or options[0]["clip"] == 0)
    listed = {n for names in osggnet.SAME_TRAINING for n in names}
    rest = [asdict(Config(**o)) for n, o in ABLATIONS.items() if n not in listed and n != "OsGG-Net: GCN x5"]
    assert all(rest.count(o) == 1 for o in rest)


@pytest.mark.parametrize(("clip", "is_constant"), [(0.0, True), (0.2, False)])
def test_the_sparse_loss_has_no_gradient_where_nothing_is_clipped(clip, is_constant):
    gradients = []
    for weight in (1.0, 20.0):
        model, recipe = network(clip=clip, sparse_weight=weight, dense_weight=1.0, graph_blocks=3, neighbours=3)
        images, truth = batch(model, recipe, n=2)
        output = model(images)
        if is_constant:
            assert output["graph"].sum(dim=(1, 2)).tolist() == pytest.approx([19, 19], rel=1e-5)
        model.loss(output, truth)["graph"].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.landmark_network.parameters()]))
    one, twenty = gradients
    difference = ((one - twenty).norm() / one.norm()).item()
    assert difference < 1e-3 if is_constant else difference > 1


def test_k_34_and_68_are_in_the_setting_of_the_row_they_are_compared_with():
    for name, count in (("osgg_paper_k34", 34), ("osgg_paper_k68", 68)):
        own = asdict(Config(**MODELS[name]))
        assert own.pop("landmarks") == count
        assert own == {k: v for k, v in asdict(Config(**ABLATIONS["OsGG-Net: S=3"])).items() if k != "landmarks"}


def test_nodes_outside_the_block_of_equation_7_have_no_edge():
    model, recipe = network(search="block", neighbours=7, clip=0.0)
    images, truth = batch(model, recipe, n=2)
    output = model(images)
    assert output["graph"][:, 7:].abs().sum() == 0 and output["graph"][:, :7, :7].sum(dim=(1, 2)).min() > 6.9
    sum(model.loss(output, truth).values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [32, 64])
def test_shapes_and_gradients(name, size):
    model, recipe = network(**{**readings(name), "size": size})
    images, target = batch(model, recipe, n=4)
    out = model(images)
    k = model.config.landmarks
    assert {name: tuple(t.shape) for name, t in out.items()} == {
        "logits": (4, k, size // 4, size // 4),
        "landmarks": (4, k, 2),
        "nodes": (4, k, 2),
        "graph": (4, k, k),
        "pose": (4, 3),
    }
    assert out["landmarks"].abs().max() < 0.5
    assert torch.equal(model.pose(out), out["pose"])
    assert set(check_gradients(model, images, target)) == {"landmark", "graph", "pose"}


@pytest.mark.parametrize("name", ["osgg_paper", "osgg_released"])
def test_eval_is_deterministic_and_takes_each_image_by_itself(name):
    model, recipe = network(**readings(name))
    images, _ = batch(model, recipe, n=3)
    model.eval()
    with torch.no_grad():
        together, again, alone = model(images), model(images), model(images[1:2])
    assert all(torch.equal(together[k], again[k]) for k in together)
    torch.testing.assert_close(together["pose"][1:2], alone["pose"], atol=1e-5, rtol=1e-4)


def test_the_paper_reads_a_graph_that_changes_with_the_image_and_the_code_does_not():
    """The heat maps of an untrained decoder are nearly flat: they get the contrast of trained ones by hand."""
    spreads = {}
    for name in ("osgg_paper", "osgg_released"):
        model, recipe = network(**readings(name), size=128)
        images, _ = batch(model, recipe, n=4)
        with torch.no_grad():
            model.landmark_network.decoder[-1].weight *= 100
            spreads[name] = float(model.eval()(images)["graph"].std(dim=0).max())
    assert spreads["osgg_paper"] > 0.02 and spreads["osgg_released"] < 0.001


def example(model, known):
    """An output with landmarks at the middle and pose 0, and a truth that is off by 0.1, -0.2 and by 3, -6, 9."""
    n, k = len(known), model.config.landmarks
    landmarks = torch.zeros((n, k, 2), requires_grad=True)
    off = torch.tensor([0.1, -0.2]).repeat(n, 68, 1)
    off[~torch.tensor(known)] = torch.nan
    output = {"nodes": landmarks, "graph": torch.zeros(n, k, k), "pose": torch.zeros(n, 3, requires_grad=True)}
    return output, Target(torch.tensor([[3.0, -6.0, 9.0]] * n), torch.eye(3).expand(n, 3, 3), off)


def test_losses_of_the_paper_by_hand():
    model, _ = network(landmark_weight=2.0, graph_weight=3.0, pose_weight=5.0)
    output, target = example(model, [True, True])
    output["graph"][0, 0, 1] = output["graph"][0, 1, 0] = 0.4
    terms = model.loss(output, target)
    assert terms["landmark"].item() == pytest.approx(2 * 19 * 0.15)
    assert terms["pose"].item() == pytest.approx(5 * 6)
    dense, sparse = (17 + 2 * 0.6 + 19) / 2, 0.8 / 2
    assert terms["graph"].item() == pytest.approx(3 * (1 * sparse + 10 * dense))
    literal, _ = network(graph_loss="literal", graph_weight=3.0)
    assert literal.loss(output, target)["graph"].item() == pytest.approx(3 * (1 + 10) * sparse)


def test_losses_of_the_code_by_hand():
    model, recipe = network(**readings("osgg_released"))
    output, target = example(model, [True, True])
    terms = model.loss(output, target)
    shift = 0.5 / recipe.size
    assert terms["landmark"].item() == pytest.approx(10 * 19 * ((0.1 - shift) ** 2 + (0.2 + shift) ** 2))
    assert terms["pose"].item() == pytest.approx(0.01 * 9 + 0.015 * 36 + 0.01 * 81)
    assert terms["graph"].item() == pytest.approx(10 * 19)  # |0 - I|, and no column reaches 1


def test_the_released_nodes_are_cells_of_the_map():
    model, recipe = network(**readings("osgg_released"))
    out = model(batch(model, recipe, n=2)[0])
    torch.testing.assert_close(out["nodes"], (out["landmarks"] + 0.5) * 8 - 0.5)
    assert out["nodes"].min() >= 0 and out["nodes"].max() <= 7


def test_unknown_landmarks_count_nothing():
    model, _ = network()
    output, target = example(model, [True, False])
    one = model.loss(output, target)
    assert one["landmark"].item() == pytest.approx(10 * 19 * 0.15)
    one["landmark"].backward()
    assert output["nodes"].grad[0].count_nonzero() == 38 and output["nodes"].grad[1].count_nonzero() == 0
    for unknown in (target._replace(landmarks=None), target._replace(landmarks=target.landmarks * torch.nan)):
        none = model.loss(output, unknown)["landmark"]
        assert none.item() == 0 and torch.autograd.grad(none, output["nodes"])[0].count_nonzero() == 0


def test_without_landmarks_it_still_learns_pose():
    model, recipe = network()
    images, target = batch(model, recipe, n=4)
    assert check_gradients(model, images, target._replace(landmarks=None))["landmark"] == 0


def test_the_network_looks_at_the_landmarks_of_its_set():
    model, _ = network(landmarks=68, neighbours=7)
    output, target = example(model, [True])
    target.landmarks[0, 5] = 0
    by_node = torch.autograd.grad(model.loss(output, target)["landmark"], output["nodes"])[0][0].abs().sum(dim=1)
    assert (by_node == 0).nonzero().tolist() == [[5]]


@pytest.mark.parametrize(
    ("option", "other"),
    [
        ("neighbours", 3), ("clip", 0.15), ("graph_blocks", 3), ("map_reading", "softmax"),
        ("index_reading", "column-row"), ("mask_reading", "multiply"), ("sum_reading", "sum"),
        ("clip_reading", "floor"), ("search", "block"), ("ties", "all"), ("self_loops", True), ("node_unit", "cells"),
    ],
)  # fmt: skip
def test_every_option_of_the_graph_changes_the_pose(option, other):
    """In training mode, where the normalisation of the coordinates takes their unit away but for its epsilon."""
    plain, recipe = network()
    changed, _ = network(**{option: other})
    images, _ = batch(plain, recipe, n=4)
    assert not torch.allclose(plain(images)["pose"], changed(images)["pose"], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("size", 40, "size is 40: give a multiple of 16"),
        ("backbone", "vgg16", "backbone is 'vgg16': choose of resnet18"),
        ("decoder_width", 6, "decoder_width is 6"),
        ("landmarks", 20, "landmarks is 20: choose of 19, 34, 68"),
        ("neighbours", 19, "neighbours is 19 of 19 landmarks: give 1 to 18"),
        ("neighbours", 0, "neighbours is 0 of 19"),
        ("clip", -0.1, "clip is -0.1: give a number from 0 on"),
        ("graph_blocks", 1, "graph_blocks is 1"),
        ("pose_weight", float("nan"), "pose_weight is nan"),
        ("map_reading", "probability", "map_reading is 'probability': choose of logits, softmax"),
        ("recipe", "", "recipe is ''"),
    ],
)
def test_options_that_cannot_be_are_refused(option, value, message):
    with pytest.raises(UbhpdError, match=message):
        Config(**{option: value})


def test_recipes_are_those_of_paper_and_code():
    paper, code = Config(), Config(**MODELS["osgg_released"])
    assert osggnet.input_recipe(paper).colour == "RGB" and osggnet.input_recipe(code).colour == "BGR"
    paper, code = osggnet.training_recipe(paper), osggnet.training_recipe(code)
    assert (paper.batch_size, paper.weight_decay, paper.augmentations) == (16, 0, ("fsanet_crop", "fsanet_zoom"))
    assert (code.batch_size, code.weight_decay, code.augmentations, code.schedule) == (32, 1e-4, (), "constant")


def test_options_are_numbers_texts_or_booleans():
    assert all(isinstance(getattr(Config(), f.name), int | float | str | bool) for f in fields(Config))


def test_it_fits_sixteen_heads_it_trains_on():
    """Under the weights "land + graph + pose"; made-up landmarks take longer than pose, see the slow test."""
    model, recipe = network(decoder_width=64, landmark_weight=1.0, graph_weight=0.01)
    images, target = batch(model, recipe)
    _, error = check_overfits_one_batch(model, images, target, steps=500, lr=5e-3, loss_divided_by=4)
    assert error > 40


@pytest.mark.slow
def test_the_small_model_fits_sixteen_heads_it_trains_on():
    torch.manual_seed(0)
    config = Config(**MODELS["osgg_small"])
    model = Network(config)
    images, target = batch(model, input_recipe(config))
    before, after = overfit_one_batch(model, images, target, steps=400)
    assert after[0] < before[0] / 4 and after[1] < 5
    model.eval()
    with torch.no_grad():
        out = model(images)
        assert mean_error_deg(model, out, target) < 10
    off = (out["landmarks"] - target.landmarks[:, model.landmark_indices]).abs().mean()
    assert np.isfinite(float(off)) and off < 0.08
