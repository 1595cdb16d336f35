"""Checkpoints: what is written is what is read, and whatever else a file may be is refused in one sentence."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from model_room import GEOMETRIC, blocks, room_with
from safetensors.numpy import load, save

from ubhpd.core.errors import UbhpdError
from ubhpd.models import checkpoint
from ubhpd.models.checkpoint import About, tensor_hash
from ubhpd.models.geometric_model import GeometricMethod
from ubhpd.models.model import Model, device_named, fill
from ubhpd.nn.inputs import Heads

ABOUT = About("tinynet", {"size": 32, "channels": 8}, {"crop": "square"}, {"how": "untrained", "seed": 0}, "MIT")
TENSORS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array(7), "empty": np.zeros((0, 4), np.float64)}


@pytest.fixture
def room(tmp_path):
    folder = tmp_path / "room"
    folder.mkdir()
    with room_with(folder, tinynet=blocks()[0], middle=GEOMETRIC):
        yield


@pytest.fixture
def file(tmp_path):
    checkpoint.save(tmp_path / "w.safetensors", TENSORS, ABOUT)
    return tmp_path / "w.safetensors"


def rewritten(file, tensors=None, **said):
    """Write the file again with other tensors or another header, as someone without ubhpd could."""
    about = {**json.loads((file.parent / f"{file.name}.json").read_text()), **said}
    tensors = load(file.read_bytes()) if tensors is None else tensors
    file.write_bytes(save(tensors, {"ubhpd": json.dumps(about)}))


def refused(file, match, name=None):
    with pytest.raises(UbhpdError, match=match) as error:
        checkpoint.load(file, name)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_what_is_written_is_read(file):
    about, tensors = checkpoint.load(file, "tinynet")
    assert list(tensors) == ["a", "b", "empty"]
    for name, values in TENSORS.items():
        np.testing.assert_array_equal(tensors[name], values)
        assert (tensors[name].dtype, tensors[name].shape) == (values.dtype, values.shape)
    assert about == replace(ABOUT, sha256=tensor_hash(TENSORS)) == checkpoint.read_about(file)
    assert json.loads((file.parent / "w.safetensors.json").read_text())["sha256"] == about.sha256


def test_equal_tensors_give_equal_bytes_in_any_order(file, tmp_path):
    other = tmp_path / "other" / "v.safetensors"
    turned = {"empty": TENSORS["empty"], "a": TENSORS["a"], "b": np.asfortranarray(TENSORS["b"])}
    checkpoint.save(other, turned, ABOUT)
    assert other.read_bytes() == file.read_bytes()
    assert sorted(p.name for p in other.parent.iterdir()) == ["v.safetensors", "v.safetensors.json"]


def test_the_file_is_laid_out_as_the_page_says(file):
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert json.loads(header.pop("__metadata__")["ubhpd"])["model"] == "tinynet"
    start, end = header["b"]["data_offsets"]
    assert (header["b"]["dtype"], header["b"]["shape"]) == ("F32", [2, 3])
    np.testing.assert_array_equal(np.frombuffer(content[8 + length :][start:end], "<f4"), np.arange(6))


def test_the_hash_is_that_of_the_page():
    import hashlib

    text = b"a\0int64\0[]\0" + (7).to_bytes(8, "little") + b"b\0float32\0[2, 3]\0" + TENSORS["b"].tobytes()
    assert tensor_hash(TENSORS) == hashlib.sha256(text + b"empty\0float64\0[0, 4]\0").hexdigest()
    assert tensor_hash({"b": TENSORS["b"].astype(">f4")}) == tensor_hash({"b": TENSORS["b"]})


def test_the_json_beside_it_is_not_believed(file):
    (file.parent / "w.safetensors.json").write_text('{"model": "hopenet"}')
    assert checkpoint.load(file).about.model == "tinynet"
    (file.parent / "w.safetensors.json").unlink()
    assert checkpoint.load(file).about.model == "tinynet"


@pytest.mark.parametrize("content", [b"", b"abc", b"<html>no such page</html>", b"\xff" * 64, b"PK\x03\x04" * 8])
def test_a_file_that_is_no_safetensors_is_refused(tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    match = "is a weight file of Keras or" if content[:2] == b"PK" else "is no safetensors file, or is cut off"
    refused(tmp_path / "x.safetensors", match)


@pytest.mark.parametrize("kept", [4, 100, -1])
def test_a_file_that_is_cut_off_is_refused(file, kept):
    file.write_bytes(file.read_bytes()[:kept])
    refused(file, "is cut off")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    refused(tmp_path / "no.safetensors", "There is no checkpoint")
    refused(tmp_path, "There is no checkpoint")


def test_a_safetensors_file_of_others_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(save({"a": np.zeros(2)}))
    refused(path, "only a safetensors file: bring it in by ubhpd weights import")


def test_the_checkpoint_of_another_model_is_refused(file):
    refused(file, "is of tinynet, not whenet", "whenet")


@pytest.mark.parametrize("said, match", [
    ({"format": 2}, "checkpoint format 2, this ubhpd reads 1: update ubhpd"),
    ({"format": 0}, "header of .* is damaged"),
    ({"format": "1"}, "header of .* is damaged"),
    ({"model": 3}, "header of .* is damaged"),
    ({"config": [1]}, "header of .* is damaged"),
    ({"more": 1}, "header of .* is damaged"),
    ({"sha256": "0" * 64}, "are not those it was written with"),
])  # fmt: skip
def test_a_wrong_header_is_refused(file, said, match):
    rewritten(file, **said)
    refused(file, match)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "{}", "[" * 5000])
def test_a_header_that_is_no_json_is_refused(tmp_path, text):
    path = tmp_path / "x.safetensors"
    path.write_bytes(save({"a": np.zeros(2)}, {"ubhpd": text}))
    refused(path, "header of .* is damaged")


def test_changed_tensors_are_refused(file):
    rewritten(file, {**TENSORS, "b": TENSORS["b"] + 1})
    refused(file, "are not those it was written with")
    rewritten(file, {**TENSORS, "b": TENSORS["b"].T.copy()})
    refused(file, "are not those it was written with")


def test_numbers_that_are_not_finite_are_refused_both_ways(file, tmp_path):
    bad = {**TENSORS, "b": np.array([1, np.inf], np.float32)}
    rewritten(file, bad, sha256=tensor_hash(bad))
    refused(file, "b is not finite .some of it is")
    with pytest.raises(UbhpdError, match="b is not finite .all of it is"):
        checkpoint.save(tmp_path / "n.safetensors", {"b": np.full(3, np.nan)}, ABOUT)
    assert not list(tmp_path.glob("n.*"))


def test_a_type_that_numpy_lacks_is_refused(tmp_path):
    from safetensors.torch import save as save_torch

    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"a": np.zeros(2)}, ABOUT)
    said = (tmp_path / "x.safetensors.json").read_text()
    path.write_bytes(save_torch({"a": torch.zeros(2, dtype=torch.bfloat16)}, {"ubhpd": said}))
    with pytest.raises(UbhpdError, match="tensors of a type that no checkpoint"):
        checkpoint.load(path)


def test_what_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UbhpdError, match="Cannot write .*x.safetensors"):
        checkpoint.save(tmp_path / "file" / "x.safetensors", TENSORS, ABOUT)
    with pytest.raises(UbhpdError, match="call it x.safetensors, not x.pth"):
        checkpoint.save(tmp_path / "x.pth", TENSORS, ABOUT)


def test_a_model_comes_back_from_its_checkpoint(room, tmp_path):
    made = Model.untrained("tinynet_wide", {"size": "16"}, seed=3)
    made.save(tmp_path / "w.safetensors")
    found = Model.of_checkpoint(tmp_path / "w.safetensors", "tinynet_wide")
    assert found.config == made.config and found.recipe == made.recipe and found.recipe.size == 16
    assert not found.network.training and found.kind == "image"
    images = torch.rand((2, 3, 16, 16))
    torch.testing.assert_close(found.network(images), made.network(images), rtol=0, atol=0)
    assert found.about.origin == {"how": "untrained", "seed": 3}


def test_random_weights_depend_on_the_seed_alone(room):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    states = [Model.untrained("tinynet", seed=s).network.state_dict() for s in (5, 5, 6)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(states[0]["angles.weight"], states[1]["angles.weight"])
    assert not torch.equal(states[0]["angles.weight"], states[2]["angles.weight"])


@pytest.mark.parametrize("change, match", [
    (lambda t: t.pop("angles.bias"), "does not fit this model: it lacks angles.bias; give weights of this model"),
    (lambda t: t.update(more=np.zeros(2)), "it has more too many;"),
    (lambda t: t.update({"angles.bias": np.zeros(4, np.float32)}), r"angles.bias has shape \(4,\) where \(3,\)"),
    (lambda t: t.update({"angles.bias": np.zeros(3, np.int64)}), "angles.bias is of type torch.int64"),
])  # fmt: skip
def test_tensors_that_are_not_the_models_are_refused(room, tmp_path, change, match):
    path = tmp_path / "w.safetensors"
    made = Model.untrained("tinynet")
    tensors = {n: v.numpy() for n, v in made.network.state_dict().items()}
    change(tensors)
    checkpoint.save(path, tensors, made.about)
    with pytest.raises(UbhpdError, match=match) as error:
        Model.of_checkpoint(path)
    assert str(path) in str(error.value)


def test_options_that_the_model_has_not_are_refused(room, tmp_path):
    path = tmp_path / "w.safetensors"
    for config, match in (({"depth": 3}, "has no option 'depth'"), ({"size": "x"}, "size cannot be 'x'")):
        checkpoint.save(path, TENSORS, replace(ABOUT, config=config))
        with pytest.raises(UbhpdError, match=f"w.safetensors: tinynet.*{match}"):
            Model.of_checkpoint(path)
    checkpoint.save(path, TENSORS, replace(ABOUT, model="gone"))
    with pytest.raises(UbhpdError, match="No model is called 'gone'"):
        Model.of_checkpoint(path)


def test_filling_leaves_a_network_alone_that_the_tensors_do_not_fit():
    network = torch.nn.Linear(2, 2)
    before = network.weight.detach().clone()
    with pytest.raises(UbhpdError, match="x does not fit this model: it lacks bias"):
        fill(network, {"weight": torch.zeros(2, 2)}, "x")
    assert torch.equal(network.weight, before)


HEADS = Heads(
    ["a", "b"],
    angles_deg=np.array([[1.0, 2, 3], [3, 4, 5]]),
    rotation=np.tile(np.eye(3), (2, 1, 1)),
    landmarks68=np.full((2, 68, 2), np.nan),
    image_size=np.full((2, 2), 64.0),
)


def test_a_geometric_method_comes_back_from_its_checkpoint(room, tmp_path):
    GeometricMethod.fitted("middle", {"trim": "1"}, HEADS, {"manifest": "m"}).save(tmp_path / "w.safetensors")
    found = GeometricMethod.of_checkpoint(tmp_path / "w.safetensors", "middle")
    np.testing.assert_array_equal(found.solve(HEADS), [[3, 4, 5]] * 2)
    assert found.about.origin == {"how": "fitted", "manifest": "m", "heads": 2} and found.about.input is None


def test_geometric_methods_and_networks_are_not_taken_for_each_other(room, tmp_path):
    GeometricMethod.fitted("middle", {}, HEADS, {}).save(tmp_path / "s.safetensors")
    Model.untrained("tinynet").save(tmp_path / "n.safetensors")
    with pytest.raises(UbhpdError, match="middle is no network but a geometric method"):
        Model.of_checkpoint(tmp_path / "s.safetensors")
    with pytest.raises(UbhpdError, match="tinynet is no geometric method"):
        GeometricMethod.of_checkpoint(tmp_path / "n.safetensors")
    with pytest.raises(UbhpdError, match="fitted to heads of known pose"):
        GeometricMethod.fitted("middle", {}, HEADS._replace(angles_deg=None), {})


def test_a_geometric_method_that_lacks_a_number_or_answers_oddly_is_one_sentence(room):
    method = GeometricMethod.fitted("middle", {}, HEADS, {})
    with pytest.raises(UbhpdError, match="lacks the parameter 'mean_deg'"):
        replace(method, parameters={}).solve(HEADS)
    with pytest.raises(UbhpdError, match=r"poses of shape \(2, 2\) for 2 heads"):
        replace(method, parameters={"mean_deg": np.zeros(2)}).solve(HEADS)


def test_devices_by_name(room):
    assert device_named("cpu").type == "cpu"
    assert device_named("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "cuda:x", "cuda:", "", "CPU"):
        with pytest.raises(UbhpdError, match="write cpu, cuda, cuda:1 or auto"):
            device_named(name)
    with pytest.raises(UbhpdError, match="There is no device cuda:99: torch finds"):
        device_named("cuda:99")
    assert next(Model.untrained("tinynet").to("cpu").network.parameters()).device.type == "cpu"
