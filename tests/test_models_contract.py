"""What every file in baselines/ has to keep, for all models that the catalogue finds."""

import json
from dataclasses import asdict

import pytest
import torch
from wheel_check import REPOSITORY

from ubhpd.evaluation.printed_results import results
from ubhpd.images.recipes import RECIPES
from ubhpd.models.catalogue import NETWORKS, catalogue, config_of, configured, module_of
from ubhpd.models.importing import invented_input
from ubhpd.pool import sources

every = pytest.mark.parametrize("card", catalogue().values(), ids=lambda card: card.name)


def networks_only(card):
    if card.kind not in NETWORKS:
        pytest.skip(f"it is no network: {card.kind}")


@every
def test_the_code_has_the_card_that_was_read_from_it(card):
    if card.kind == "reported":
        pytest.skip("it has no code")
    module = module_of(card)
    assert (card.title, card.kind, card.license) == (module.TITLE, module.KIND, module.LICENSE)
    assert module.MODELS[card.name] == card.options
    assert getattr(module, "REPORTED", {}).get(card.name) == card.reported


@every
def test_its_options_are_valid_and_survive_json(card):
    if card.kind == "reported":
        pytest.skip("it has no options")
    module, config = configured(card.name)
    assert config_of(module, json.loads(json.dumps(asdict(config))), card.name) == config
    defaults = asdict(module.Config())
    assert all(defaults[key] != value for key, value in card.options.items()), "an option repeats the default"


@every
def test_it_has_as_many_parameters_as_it_says(card):
    networks_only(card)
    module, config = configured(card.name)
    with torch.device("meta"):
        network = module.Network(config)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == card.parameters


@every
def test_it_answers_a_batch_with_poses_and_a_loss(card):
    networks_only(card)
    module, config = configured(card.name)
    recipe = module.input_recipe(config)
    with torch.device("meta"):
        network = module.Network(config).eval().to("meta")  # what was made by numpy too
    pose = network.pose(network(invented_input(card.kind, recipe, heads=2).to("meta")))
    assert tuple(pose.shape) in ((2, 3), (2, 3, 3))
    listed = [p for group, _ in network.learning_rates() for p in group]
    assert len({id(p) for p in listed}) == len(listed), "a parameter has two learning rates"


@every
def test_its_input_recipe_is_valid(card):
    networks_only(card)
    module, config = configured(card.name)
    recipe = module.input_recipe(config)
    assert {recipe.crop, *dict(recipe.crop_of).values()} <= set(RECIPES)
    assert set(dict(recipe.crop_of)) <= set(sources.builders())
    assert recipe.size > 0 and min(recipe.std) > 0 and recipe.colour in ("RGB", "BGR")
    assert (recipe.frames > 1) == (card.kind == "sequence")


@every
def test_its_training_recipe_is_valid(card):
    networks_only(card)
    module, config = configured(card.name)
    recipe = module.training_recipe(config)
    assert recipe.epochs > 0 and recipe.batch_size > 0 and recipe.lr > 0 and 0 < recipe.max_angle_deg <= 180
    assert recipe.optimizer in ("adam", "adamw", "sgd")
    assert recipe.schedule in ("constant", "step", "cosine", "exponential")
    assert bool(recipe.milestones) == (recipe.schedule == "step")
    assert list(recipe.milestones) == sorted(m for m in set(recipe.milestones) if 0 < m < recipe.epochs)
    assert not recipe.nesterov or (recipe.optimizer == "sgd" and recipe.momentum > 0)


@every
def test_its_printed_name_is_in_the_published_tables(card):
    if card.reported is None:
        pytest.skip("no paper prints a result of it")
    assert card.reported in {row.method for row in results()}


@every
def test_the_page_lists_it(card):
    page = (REPOSITORY / "docs" / "models.md").read_text()
    assert f"`{card.name}`" in page and card.title in page, "add it to the table of docs/models.md"
