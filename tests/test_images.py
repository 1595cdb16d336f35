import json

import numpy as np
import pytest

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.images.reading import Images
from ubhpd.pool.build import BuildConfig, build
from ubhpd.synth.writers import biwi_writer, upna_writer


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    biwi_writer.write(root / "raw", (1,), frames=3, with_depth=False)
    upna_writer.write(root / "raw", users=(1,), videos=(1,), frames=6)
    build(BuildConfig(("biwi", "upna"), root / "out", str(root / "raw")))
    return root / "out"


def rows(built, dataset):
    table = manifest.read(
        built / "pool.parquet", ["dataset", "image_path", "frame_index", "image_width", "image_height"]
    )
    return [r for r in table.to_pylist() if r["dataset"] == dataset]


@pytest.mark.parametrize("dataset", ["biwi", "upna"])
def test_every_head_of_a_pool_has_its_image(built, dataset):
    images = Images.of_build(built)
    for row in rows(built, dataset):
        image = images.image(dataset, row["image_path"], row["frame_index"])
        assert image.shape == (row["image_height"], row["image_width"], 3) and image.dtype == np.uint8


def test_frames_of_a_video_are_the_same_in_any_order(built):
    row = rows(built, "upna")[0]
    forwards, backwards = Images.of_build(built), Images.of_build(built)
    first = {i: forwards.image("upna", row["image_path"], i) for i in range(6)}
    for i in (5, 2, 2, 0):
        assert np.array_equal(backwards.image("upna", row["image_path"], i), first[i])
    with pytest.raises(UbhpdError, match="has no frame 6"):
        forwards.image("upna", row["image_path"], 6)


def test_heads_of_one_image_that_follow_each_other_have_it_read_once(built, monkeypatch):
    images, asked = Images.of_build(built), []
    data = images.data
    monkeypatch.setattr(images, "data", lambda *place: asked.append(place[1]) or data(*place))
    first, second = rows(built, "biwi")[:2]
    gone = {**first, "image_path": "01/none.png"}
    found = list(images.of_heads([first, first, gone, gone, second, first]))
    assert asked == [r["image_path"] for r in (first, gone, second, first)]
    assert isinstance(found[2], UbhpdError) and found[3] is found[2] and "01/none.png cannot be read" in str(found[2])
    for at, row in ((0, first), (1, first), (4, second), (5, first)):
        assert np.array_equal(found[at], images.image("biwi", row["image_path"]))


@pytest.mark.parametrize("path", ["../../../etc/passwd", "/etc/passwd", "01/../../x.png", "../x.mp4", "/x.mp4"])
def test_nothing_outside_the_dataset_is_read(built, path):
    with pytest.raises(UbhpdError, match="lies outside its dataset"):
        Images.of_build(built).image("biwi", path)


def test_what_is_not_there_is_one_sentence(built, tmp_path):
    images = Images.of_build(built)
    with pytest.raises(UbhpdError, match=r"01/none.png cannot be read in .*hpdb"):
        images.image("biwi", "01/none.png")
    with pytest.raises(UbhpdError, match="has no dataset 'aflw': it has biwi, upna"):
        images.data("aflw", "x.jpg")
    with pytest.raises(UbhpdError, match="does not decode"):
        images.image("biwi", "01.obj")
    for text, sentence in (
        ("{", "is not JSON"),
        ("[]", "is not what ubhpd build writes"),
        (json.dumps({"datasets": {"biwi": {}}}), "does not say where the images of 'biwi' are"),
    ):
        (tmp_path / "build.json").write_text(text)
        with pytest.raises(UbhpdError, match=sentence):
            Images.of_build(tmp_path)
