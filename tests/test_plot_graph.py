"""`ubhpd plot graph`: the graph of one face, on the crop that the network judged."""

import cv2
import numpy as np
import pytest
import torch

from ubhpd.core.errors import UbhpdError
from ubhpd.images.crops import crop, crop_box, recipe_named
from ubhpd.images.detectors import detector
from ubhpd.inference.facial_graph import activation_map, facial_graph, structure_maps
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


@pytest.mark.parametrize(
    ("model", "scorings"), [("fsanet_metric_1x1", ("1x1",)), ("fsanet_capsule_fusion", ("1x1", "var"))]
)
def test_structures_are_those_that_make_the_capsules(image, tmp_path, model, scorings):
    made = Model.untrained(model, seed=3)
    made.save(tmp_path / "w.safetensors")
    found = structure_maps(tmp_path / "w.safetensors", image, detector("none"))
    assert found.scorings == scorings and found.maps.shape == (len(scorings), 3, 5, 3, 8, 8)
    assert found.maps.min() > 0 and found.maps.max() < 1 and found.image.shape == (64, 64, 3)
    member = made.network.eval().members[scorings[0]]
    pixels = torch.from_numpy(found.image.copy()).permute(2, 0, 1).float()[None]
    if made.recipe.colour == "RGB":
        pixels = pixels.flip(1)
    with torch.no_grad():
        output = member(pixels)
        places, maps = output["places"], torch.from_numpy(found.maps[0]).float().flatten(2)[None]
        weights = member.structure.weights(member.structure._scores(places)).sigmoid().view(1, 1, 7, 5)
        shares = (weights @ maps).flatten(1, 2)
        capsules = shares @ places / shares.sum(dim=-1, keepdim=True)
    torch.testing.assert_close(capsules, output["capsules"], rtol=1e-4, atol=1e-4)


def test_the_region_is_grad_cam_by_hand(tmp_path):
    """Behind the last map lie a mean and a linear layer, so that its gradient is known."""
    made = Model.untrained("dadl_resnet18", {"size": "64"}, seed=0)
    made.save(tmp_path / "w.safetensors")
    pixels = np.random.default_rng(1).integers(0, 255, (80, 80, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    found = activation_map(tmp_path / "w.safetensors", tmp_path / "a.png", detector("none"), "yaw")
    assert found.share.shape == (64, 64) and found.share.min() >= 0 and found.share.max() == pytest.approx(1)
    network = made.network.eval()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (made.recipe.mean, made.recipe.std))
    images = ((torch.from_numpy(found.image[..., ::-1].copy()).permute(2, 0, 1).float() - mean) / std)[None]
    held = network.backbone(images).detach().requires_grad_()
    logits = network.heads(network.backbone.pooled(held))
    logits[0, 0].max().backward()
    # The mean over the map is linear: the weight of a channel is that of the classifier, divided by the places.
    row = network.heads["fc_yaw"].weight[logits[0, 0].argmax()] / held.shape[2] / held.shape[3]
    torch.testing.assert_close(held.grad.mean(dim=(2, 3))[0], row.detach(), rtol=1e-4, atol=1e-7)
    region = (row[None, :, None, None] * held).sum(dim=1, keepdim=True).relu().detach()
    region = torch.nn.functional.interpolate(region, size=(64, 64), mode="bilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(found.share, (region / region.max()).numpy(), atol=1e-3)


def test_regions_and_structures_are_drawn(image, tmp_path, ubhpd):
    for name in ("dadl_mobilenet_v2", "fsanet_metric_1x1"):
        Model.untrained(name, {"size": "64"}).save(tmp_path / f"{name}.safetensors")
    first, second = tmp_path / "dadl_mobilenet_v2.safetensors", tmp_path / "fsanet_metric_1x1.safetensors"
    code, _, err = ubhpd("plot", "cam", "--weights", first, "--weights", first, "--image", image, "--image", image,
                         "--detector", "none", "--out", tmp_path / "c.png")  # fmt: skip
    assert code == 0 and cv2.imread(str(tmp_path / "c.png")) is not None, err
    code, _, err = ubhpd("plot", "structure", "--weights", second, "--image", image, "--detector", "none", "--out",
                         tmp_path / "s.png")  # fmt: skip
    assert code == 0 and cv2.imread(str(tmp_path / "s.png")) is not None, err
    for typed, words in (
        (("cam", "--weights", second), "has no backbone whose last map could be drawn"),
        (("cam", "--weights", first, "--angle", "jaw"), "There is no angle 'jaw'"),
        (("structure", "--weights", first), "has no structures: give the weights of an FSA-Net"),
    ):
        code, _, err = ubhpd("plot", *typed, "--image", image, "--detector", "none", "--out", tmp_path / "x.png")
        assert code == 2 and words in err and err.count("\n") == 1
    with pytest.raises(UbhpdError, match="sees no single image"):
        Model.untrained("eva_gcn").save(tmp_path / "e.safetensors")
        activation_map(tmp_path / "e.safetensors", image, detector("none"))
