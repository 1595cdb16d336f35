"""`ubhpd plot similarity`: how alike heads look as they turn."""

import json

import cv2
import numpy as np
import pytest

from ubhpd.core.errors import UbhpdError
from ubhpd.core.progress import Progress
from ubhpd.inference.similarity import SimilarityRequest, _curve, _fitted, similarity
from ubhpd.models.model import Model
from ubhpd.pool.build import BuildConfig, build
from ubhpd.synth.writers import aflw2000_writer, synhead_writer

QUIET = Progress(show=False)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("similarity")
    aflw2000_writer.write(root / "raw", 150)
    build(BuildConfig(("aflw2000",), root / "out", str(root / "raw")))
    return root / "out"


def test_a_curve_by_hand():
    """Features that turn: the cosine of the angle between them is the similarity."""
    turned = {b: [np.array([np.cos(np.radians(6 * b)), np.sin(np.radians(6 * b))])] * 2 for b in range(-5, 6)}
    own = _curve("yaw", turned, 6.0)
    assert own.centres_deg == tuple(6.0 * b for b in range(-5, 6)) and own.heads == (2,) * 11
    assert own.similarity == pytest.approx([np.cos(np.radians(d)) for d in own.centres_deg])
    assert own.mu_deg == pytest.approx(0, abs=1e-3)
    assert _curve("yaw", {1: turned[1]}, 6.0).similarity == ()


def test_a_known_curve_is_found():
    x = np.arange(-60, 61, 6.0)
    wanted = (0.2, 4.0, 22.0)
    values = wanted[0] + (1 - wanted[0]) * np.exp(-((x - wanted[1]) ** 2) / (2 * wanted[2] ** 2))
    assert _fitted(x, values) == pytest.approx(wanted, rel=1e-3)
    assert all(np.isnan(v) for v in _fitted(x[:3], values[:3]))


def test_heads_that_turn_look_less_and_less_like_the_frontal_one(built):
    found = similarity(SimilarityRequest(built, bin_deg=20.0, near_deg=40.0), QUIET)
    yaw = dict(zip(found.curves[0].centres_deg, found.curves[0].similarity, strict=True))
    assert found.features == "pixels" and yaw[0.0] == pytest.approx(1)
    far = [s for d, s in yaw.items() if abs(d) >= 60]
    assert far and max(far) < 0.6 and all(s <= 1 + 1e-9 for s in yaw.values())


def test_the_command_draws_the_features_of_a_checkpoint(built, tmp_path, ubhpd):
    Model.untrained("dadl_resnet18", {"size": "32"}).save(tmp_path / "w.safetensors")
    typed = ("plot", "similarity", built, "--bin", 20, "--near", 40, "--heads", 3, "--out", tmp_path / "s.png")
    code, out, err = ubhpd(*typed, "--weights", tmp_path / "w.safetensors")
    assert code == 0 and cv2.imread(str(tmp_path / "s.png")) is not None, err
    content = json.loads((tmp_path / "s.json").read_text())
    assert content["features"].startswith("dadl_resnet18 ") and len(content["curves"]) == 3
    assert max(content["curves"][0]["heads"]) <= 3 and out.count("sigma") == 3
    Model.untrained("eva_gcn").save(tmp_path / "e.safetensors")
    for more, words in (
        (("--weights", tmp_path / "e.safetensors"), "has no backbone whose features"),
        (("--dataset", "biwi"), "has no usable head whose other angles"),
        (("--bin", 0), "must be above 0"),
    ):
        code, _, err = ubhpd(*typed, *more)
        assert code == 2 and words in err


def test_heads_without_images_are_refused(tmp_path):
    synhead_writer.write(tmp_path / "raw")
    build(BuildConfig(("synhead",), tmp_path / "out", str(tmp_path / "raw")))
    with pytest.raises(UbhpdError, match="has an image that can be cut"):
        similarity(SimilarityRequest(tmp_path / "out", near_deg=90.0), QUIET)
