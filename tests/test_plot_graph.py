"""`ubhpd plot graph`: the graph of one face, on the crop that the network judged."""

import cv2
import numpy as np
import pytest

from ubhpd.images.crops import crop, crop_box, recipe_named
from ubhpd.images.detectors import detector
from ubhpd.inference.facial_graph import facial_graph
from ubhpd.models.model import Model


@pytest.fixture
def image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (90, 80, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    return tmp_path / "a.png"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "osgg.safetensors"
    Model.untrained("osgg_small").save(path)
    return path


def test_the_graph_is_the_networks_own(image, weights):
    found = facial_graph(weights, image, detector("none"))
    recipe = Model.of_checkpoint(weights).recipe
    size, how = recipe.size, recipe_named(recipe.crop)
    box = crop_box({"image_width": 80, "image_height": 90, "bbox_xyxy": (0, 0, 80, 90)}, how)
    np.testing.assert_array_equal(found.image, crop(cv2.imread(str(image)), box, how, size, "BGR"))
    assert found.nodes_xy.shape == (19, 2) and (found.nodes_xy > -0.5).all() and (found.nodes_xy < size).all()
    assert found.weights.shape == (19, 19) and np.allclose(found.weights, found.weights.T) and found.weights.any()


def test_the_command_draws_it(image, weights, tmp_path, ubhpd):
    arguments = ("plot", "graph", "--weights", weights, "--image", image, "--out", tmp_path / "g.png")
    code, out, err = ubhpd(*arguments, "--detector", "none")
    assert code == 0, err
    assert cv2.imread(str(tmp_path / "g.png")) is not None and out.strip() == str(tmp_path / "g.png")


def test_wrong_input_is_one_sentence(image, weights, tmp_path, ubhpd):
    Model.untrained("fsanet_metric_wo").save(tmp_path / "other.safetensors")
    common = ("plot", "graph", "--image", image, "--out", tmp_path / "g.png", "--weights")
    for arguments, sentence in [
        ((tmp_path / "other.safetensors", "--detector", "none"), "makes no graph of a face"),
        ((weights, "--detector", "cascade"), "finds no face"),
    ]:
        code, _, err = ubhpd(*common, *arguments)
        assert code == 2 and sentence in err and err.count("\n") == 1
    assert not (tmp_path / "g.png").exists()
