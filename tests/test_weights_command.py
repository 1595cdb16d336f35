"""`ubhpd weights`: files of others in every form they come in, random weights, fits, and all that is refused."""

import hashlib
import json
import os
import pickle
import zipfile

import h5py
import numpy as np
import pytest
import torch
from model_room import GEOMETRIC, blocks, room_with
from realdata import REAL, needs
from safetensors.numpy import save_file
from score_data import write_manifest

from ubhpd.core.errors import UbhpdError
from ubhpd.models import checkpoint, importing
from ubhpd.models.model import Model

FSANET = REAL / "weights/fsanet_300W_LP"

# A network with a backbone, the input of landmarks, and weights that go wrong in a forward pass only.
LANDMARKS = '''"""Points: a linear layer over landmarks."""

from dataclasses import dataclass

import torch
from torch import nn

from ubhpd.nn.small_backbones import AlexNet
from ubhpd.nn.contract import InputRecipe, PoseNetwork, TrainingRecipe

TITLE = "Points"
PAPER = "none"
CODE = ""
LICENSE = "MIT"
KIND = "landmarks"
MODELS = {"points": {}}
PARAMETERS = {"points": 0}
REPORTED = {}


@dataclass(frozen=True)
class Config:
    power: int = 1


def input_recipe(config):
    return InputRecipe("square", 8)


def training_recipe(config):
    return TrainingRecipe(1, 1, 1e-3)


class Network(PoseNetwork):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.linear = nn.Linear(136, 3)

    def forward(self, points):
        return {"raw": self.linear(points.flatten(1))}

    def pose(self, output):
        return output["raw"] ** self.config.power

    def loss(self, output, target):
        return {"angles": output["raw"].sum()}
'''
BACKBONE = LANDMARKS.replace("points", "featured").replace("nn.Linear(136, 3)", "nn.Linear(256, 3)").replace(
    "        self.linear", "        self.backbone = AlexNet()\n        self.linear"
).replace('KIND = "landmarks"', 'KIND = "image"')  # fmt: skip


@pytest.fixture
def room(tmp_path):
    folder = tmp_path / "room"
    folder.mkdir()
    with room_with(folder, tinynet=blocks()[0], middle=GEOMETRIC, points=LANDMARKS, featured=BACKBONE):
        yield


@pytest.fixture
def state(room):
    """Weights of TinyNet under the names that its `published` knows."""
    own = Model.untrained("tinynet", seed=9).network.state_dict()
    return {name.replace("angles.", "fc."): v for name, v in own.items()}


def write_keras(path, tensors, group="model_weights"):
    with h5py.File(path, "w") as file:
        for name, values in tensors.items():
            file[f"{group}/{name}:0"] = np.asarray(values)
        file["optimizer_weights/iterations:0"] = np.array(3)
    return path


def same_as(path, state):
    _, tensors = checkpoint.load(path, "tinynet")
    for name, values in state.items():
        np.testing.assert_array_equal(tensors[name.replace("fc.", "angles.")], values.numpy())


@pytest.mark.parametrize(
    "form",
    ["state", "wrapped", "parallel", "legacy", "half", "parameters", "safetensors", "compiled", "compiled_part",
     "parallel_compiled", "compiled_parallel", "lightning", "bare_model", "holder", "other_name", "two_levels",
     "with_optimizer"],
)  # fmt: skip
def test_weights_of_torch_in_every_form_come_in_as_they_are(state, tmp_path, ubhpd, form):
    file, out = tmp_path / "theirs.bin", tmp_path / "w.safetensors"
    if form == "safetensors":
        save_file({n: v.numpy() for n, v in state.items()}, file)
    else:
        if form == "half":
            state = {n: v.half() for n, v in state.items()}
        content = {
            "wrapped": {"model_state_dict": {**state, "aux.weight": torch.ones(2)}, "epoch": 3, "optimizer": {"lr": 1}},
            "parallel": {"state_dict": {f"module.{n}": v for n, v in state.items()}},
            "compiled": {f"_orig_mod.{n}": v for n, v in state.items()},
            "compiled_part": {n.replace(".", "._orig_mod.", 1): v for n, v in state.items()},
            "parallel_compiled": {f"module._orig_mod.{n}": v for n, v in state.items()},
            "compiled_parallel": {f"_orig_mod.module.{n}": v for n, v in state.items()},
            "lightning": {"state_dict": {f"model.{n}": v for n, v in state.items()}, "global_step": 7},
            "bare_model": {"model": state, "epoch": 3},
            "other_name": {"ema": state, "model": None, "args": {}},
            "two_levels": {"checkpoint": {"state_dict": state}},
            "with_optimizer": {"params": state, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
            "holder": {f"model.net.{n}": v for n, v in state.items()},
            "parameters": {n: torch.nn.Parameter(v) for n, v in state.items()},
        }.get(form, state)
        torch.save(content, file, _use_new_zipfile_serialization=form != "legacy")
    code, text, err = ubhpd("weights", "import", file, "--model", "tinynet", "--out", out)
    assert (code, err) == (0, "") and "tinynet, imported; licence of the weights: MIT" in text
    same_as(out, state)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    origin = {"how": "imported", "files": [{"name": "theirs.bin", "sha256": digest}]}
    assert checkpoint.read_about(out).origin == origin


def test_options_of_the_model_travel_with_its_weights(room, tmp_path, ubhpd):
    out = tmp_path / "w.safetensors"
    made = ["weights", "init", "--model", "tinynet", "--seed", 4, "-O", "size=16", "-O", "channels=2", "--out", out]
    assert ubhpd(*made)[0] == 0
    shown = json.loads(ubhpd("weights", "show", out)[1])
    assert shown["config"] == {"size": 16, "channels": 2} and shown["input"]["size"] == 16
    assert shown["origin"] == {"how": "untrained", "seed": 4} and shown["tensors"]["angles.weight"] == [3, 4]
    first = out.read_bytes()
    ubhpd(*made)
    assert out.read_bytes() == first


def test_names_in_keras_files_are_the_last_two_parts_where_these_are_unique(tmp_path):
    one = {"sub/dense_1/kernel": np.ones((2, 3)), "dense_2/dense_2/bias": np.zeros(3)}
    found = importing.read(write_keras(tmp_path / "a.h5", one))
    assert set(found) == {"dense_1/kernel", "dense_2/bias"} and found["dense_1/kernel"].dtype == np.float32
    two = {"left/dense_1/kernel": np.ones(2), "right/dense_1/kernel": np.zeros(2)}
    assert set(importing.read(write_keras(tmp_path / "b.h5", two))) == set(two)
    assert set(importing.read(write_keras(tmp_path / "c.h5", {"x/y": np.ones(1)}, group="a/b"))) == {
        "x/y",
        "optimizer_weights/iterations",
    }


def test_tensors_of_several_files_are_told_apart(tmp_path):
    for name in "ab":
        torch.save({"w": torch.full((1,), float(ord(name)))}, tmp_path / f"{name}.pth")
    found = importing.read_files([tmp_path / "a.pth", tmp_path / "b.pth"])
    assert {name: values.item() for name, values in found.items()} == {"0/w": 97.0, "1/w": 98.0}


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("content, match", [
    (b"", "is empty"),
    (b"\n<!DOCTYPE html><html>404</html>", "is a web page"),
    (b"<HTML><body>", "is a web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid", "only points to weights in Git LFS"),
    (b"hello, these are no weights at all", "is no weight file: give .h5 or .keras of Keras"),
    (b"\x10\0\0\0\0\0\0\0{}", "is no weight file, or is cut off"),
    (b"abc", "is no weight file"),
    (b"\x89HDF\r\n\x1a\n and nothing else", "is damaged or cut off"),
    (b"PK\x03\x04 and nothing else", "is damaged or no file of torch"),
    (b"\x80\x02abc", "is damaged or no file of torch"),
    (pickle.dumps({"a": Evil()}, protocol=2), "holds more than tensors, so it is not opened"),
    (pickle.dumps({"a": Evil()}, protocol=5), "holds more than tensors, so it is not opened"),
])  # fmt: skip
def test_files_that_hold_no_weights_are_one_sentence(tmp_path, monkeypatch, content, match):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.h5").write_bytes(content)
    with pytest.raises(UbhpdError, match=match) as error:
        importing.read(tmp_path / "x.h5")
    assert "\n" not in str(error.value) and str(tmp_path / "x.h5") in str(error.value)
    assert not (tmp_path / "executed").exists()


def test_a_folder_and_a_missing_file_are_one_sentence(tmp_path):
    with pytest.raises(UbhpdError, match="is a folder: give the weight file in it"):
        importing.read(tmp_path)
    with pytest.raises(UbhpdError, match="Cannot open .*No such file"):
        importing.read(tmp_path / "no.h5")


@pytest.mark.parametrize("content, match", [
    (torch.nn.Linear(2, 2), "holds more than tensors"),
    ([torch.ones(2)], "holds no tensors by name"),
    ({}, "holds no weights"),
    ({"state_dict": {"a": 3}}, "a is no plain tensor"),
    ({"a": torch.ones(2).to_sparse()}, "a is no plain tensor"),
    ({"a": torch.ones(2), "module.a": torch.ones(2)}, "has a twice"),
    ({"g": {"a": torch.ones(2)}, "d": {"a": torch.ones(2)}}, r"holds several sets of tensors \(g, d\)"),
    ({"a": torch.tensor([1.0, float("nan")])}, "a is not finite .some of it is"),
    ({"a": torch.tensor([1e300], dtype=torch.float64)}, "a is not finite .some of it is"),
])  # fmt: skip
def test_files_of_torch_that_hold_something_else_are_one_sentence(tmp_path, content, match):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UbhpdError, match=match) as error:
        importing.read(tmp_path / "x.pth")
    assert "\n" not in str(error.value)


def test_a_torchscript_archive_is_not_opened(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "x.pt")
    with pytest.raises(UbhpdError, match="holds more than tensors"):
        importing.read(tmp_path / "x.pt")


def test_hdf5_does_not_lead_into_other_files(tmp_path):
    write_keras(tmp_path / "secret.h5", {"a/b": np.ones(2)})
    (tmp_path / "raw.bin").write_bytes(np.ones(2).tobytes())
    with h5py.File(tmp_path / "links.h5", "w") as file:
        file["model_weights/own/kernel:0"] = np.ones(1)
        file["model_weights/other"] = h5py.ExternalLink("secret.h5", "/model_weights/a")
        file["model_weights/soft"] = h5py.SoftLink("/optimizer")
    assert set(importing.read(tmp_path / "links.h5")) == {"own/kernel"}
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file["model_weights"] = h5py.ExternalLink("secret.h5", "/model_weights")
    with pytest.raises(UbhpdError, match="holds no weights"):
        importing.read(tmp_path / "all.h5")
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout((2,), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "model_weights/a/b:0", (2,))
        file.create_virtual_dataset("a/b", layout)
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file.create_dataset("a/b", (2,), "f8", external=[(str(tmp_path / "raw.bin"), 0, 16)])
    for name in ("virtual.h5", "raw.h5"):
        with pytest.raises(UbhpdError, match="a/b lies in another file, which is not opened"):
            importing.read(tmp_path / name)


def test_a_prefix_that_is_not_known_is_named(state, tmp_path, ubhpd):
    file, out = tmp_path / "x.pth", tmp_path / "w.safetensors"
    torch.save({f"student.{n}": v for n, v in state.items()}, file)
    code, _, err = ubhpd("weights", "import", file, "--model", "tinynet", "--out", out)
    assert code == 2 and "all names fit but for 'student.' before them" in err
    content = {f"model.{n}": v for n, v in state.items()} | {"criterion.weight": torch.ones(3)}
    torch.save(content, tmp_path / "w.pth")
    code, _, err = ubhpd("weights", "import", tmp_path / "w.pth", "--model", "tinynet", "--out", tmp_path / "o")
    assert code == 2 and "'model.' before them, and it has criterion.weight besides: save" in err


def test_the_zip_archive_of_keras_3_is_read(tmp_path):
    write = {"layers/conv2d/vars/0": np.full((3, 3, 2, 4), 2.0), "layers/conv2d/vars/1": np.ones(4)}
    for i in range(4):
        write[f"layers/batch_normalization/vars/{i}"] = np.full(4, float(i))
    with h5py.File(tmp_path / "model.weights.h5", "w") as file:
        for name, values in write.items():
            file[name] = values
    with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.write(tmp_path / "model.weights.h5", "model.weights.h5")
    found = importing.read(tmp_path / "x.keras")
    assert set(found) == {
        "conv2d/kernel", "conv2d/bias",
        *(f"batch_normalization/{k}" for k in ("gamma", "beta", "moving_mean", "moving_variance")),
    }  # fmt: skip
    assert found["conv2d/kernel"].shape == (3, 3, 2, 4) and (found["batch_normalization/moving_variance"] == 3).all()
    (tmp_path / "x.keras").write_bytes((tmp_path / "x.keras").read_bytes()[:-40])
    with pytest.raises(UbhpdError, match="x.keras is damaged"):
        importing.read(tmp_path / "x.keras")


def test_archives_of_something_else_are_called_what_they_are(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.ones(2))
    np.save(tmp_path / "x.npy", np.ones(2))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("w.h5", b"")
    for name, match in (
        ("x.npz", r"is an archive of NumPy arrays \(.npz\)"), ("x.npy", "is an array of NumPy"),
        ("x.zip", "is a zip archive without weights in it"),
    ):  # fmt: skip
        with pytest.raises(UbhpdError, match=match):
            importing.read(tmp_path / name)


@pytest.mark.parametrize("start", [b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"\x80\x02"])
def test_foreign_weights_given_as_a_checkpoint_lead_to_weights_import(tmp_path, ubhpd, start):
    (tmp_path / "w.h5").write_bytes(start + bytes(100))
    code, _, err = ubhpd("predict", "--weights", tmp_path / "w.h5", "--images", tmp_path, "--out", tmp_path / "p.csv")
    assert code == 2 and "make one of it by ubhpd weights import" in err


def test_texts_in_keras_files_are_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a/b"] = "text"
    with pytest.raises(UbhpdError, match="a/b is of type object, no numbers"):
        importing.read(tmp_path / "x.h5")


def test_weights_that_do_not_fit_are_refused_by_the_name_of_the_file(state, tmp_path, ubhpd):
    file = tmp_path / "theirs.pth"
    torch.save(state, file)
    code, _, err = ubhpd("weights", "import", file, "--model", "tinynet_wide", "--out", tmp_path / "w.safetensors")
    assert code == 2
    assert (
        "theirs.pth does not fit this model: features.0.weight has shape (8, 3, 3, 3) where (16, 3, 3, 3) belongs"
        in err
    )
    torch.save({n: v for n, v in state.items() if n != "fc.bias"}, file)
    code, _, err = ubhpd("weights", "import", file, "--model", "tinynet", "--out", tmp_path / "w.safetensors")
    assert code == 2 and "theirs.pth does not fit this model: it lacks angles.bias;" in err
    assert not (tmp_path / "w.safetensors").exists()


def test_without_published_names_the_networks_own_are_taken_and_tried(room, tmp_path, ubhpd):
    file, out = tmp_path / "x.pth", tmp_path / "w.safetensors"
    torch.save({"linear.weight": torch.full((3, 136), 1e30), "linear.bias": torch.zeros(3)}, file)
    assert ubhpd("weights", "import", file, "--model", "points", "--out", out)[0] == 0
    code, _, err = ubhpd("weights", "import", file, "--model", "points", "-O", "power=2", "--out", out)
    assert code == 2 and "with these weights the pose is not finite, even for an invented input" in err
    assert checkpoint.read_about(out).config == {"power": 1}


def test_a_backbone_gets_its_published_weights(room, tmp_path, ubhpd):
    from ubhpd.nn.small_backbones import AlexNet

    backbone = AlexNet(num_classes=5).state_dict()
    torch.save(backbone, tmp_path / "imagenet.pth")
    out = tmp_path / "w.safetensors"
    made = ["weights", "init", "--model", "featured", "--out", out, "--backbone"]
    assert ubhpd(*made, tmp_path / "imagenet.pth")[0] == 0
    about, tensors = checkpoint.load(out)
    np.testing.assert_array_equal(tensors["backbone.features.0.weight"], backbone["features.0.weight"].numpy())
    assert about.origin["backbone"]["name"] == "imagenet.pth" and "imagenet.pth" in about.license
    code, _, err = ubhpd(*made, tmp_path / "no.pth")
    assert code == 2 and "no.pth" in err
    code, _, err = ubhpd("weights", "init", "--model", "points", "--out", out, "--backbone", tmp_path / "imagenet.pth")
    assert code == 2 and "points has no backbone" in err


def test_a_geometric_method_is_fitted_to_the_usable_heads_of_a_manifest(room, tmp_path, ubhpd):
    true = np.array([[10.0, 0, 0], [20, 0, 0], [90, 90, 90]])
    manifest = write_manifest(tmp_path / "m.parquet", true, dropped=(2,))
    out = tmp_path / "w.safetensors"
    made = ["weights", "fit", "--model", "middle", "--out", out, "--manifest"]
    code, text, _ = ubhpd(*made, manifest)
    assert code == 0 and "middle, fitted; licence of the weights: that of the heads" in text
    about, tensors = checkpoint.load(out)
    np.testing.assert_array_equal(tensors["mean_deg"], [15, 0, 0])
    assert (about.origin["manifest"], about.origin["heads"], about.origin["split"]) == ("m.parquet", 2, None)
    for arguments, match in (
        ((manifest, "--split", "train"), "has no column 'split'"),
        ((tmp_path / "no.parquet",), "Cannot open"),
        ((write_manifest(tmp_path / "e.parquet", true, dropped=(0, 1, 2)),), "fitted to heads of known pose"),
    ):
        code, _, err = ubhpd(*made, *arguments)
        assert code == 2 and match in err
    code, _, err = ubhpd("weights", "fit", "--model", "tinynet", "--out", out, "--manifest", manifest)
    assert code == 2 and "tinynet is no geometric method" in err


def test_a_split_of_a_sampled_dataset_is_fitted_alone(room, tmp_path):
    import pyarrow as pa

    from ubhpd import manifest as manifests
    from ubhpd.manifest.schema import COLUMNS, Column
    from ubhpd.models.geometric_model import training_heads

    plain = write_manifest(tmp_path / "m.parquet", np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]))
    table = manifests.read(plain).append_column("split", pa.array(["train", "test", None]))
    columns = (*COLUMNS, Column("split", pa.string(), "", "", "for the test"))
    manifests.write_parquet([table], tmp_path / "s.parquet", columns)
    heads, origin = training_heads(tmp_path / "s.parquet", "test")
    np.testing.assert_allclose(heads.angles_deg, [[4, 5, 6]])
    assert (
        heads.rotation.shape == (1, 3, 3)
        and np.isnan(heads.landmarks68).all()
        and heads.landmarks68.shape == (1, 68, 2)
    )
    assert heads.image_size.tolist() == [[64, 64]] and origin["split"] == "test"
    with pytest.raises(UbhpdError, match="no usable head of the split 'val': it has test, train"):
        training_heads(tmp_path / "s.parquet", "val")


def test_networks_are_made_of_networks_only(room, tmp_path, ubhpd):
    for name, match in (("middle", "no network but a geometric method"), ("nothing", "No model is called 'nothing'")):
        code, _, err = ubhpd("weights", "init", "--model", name, "--out", tmp_path / "w.safetensors")
        assert code == 2 and match in err


def test_the_group_lists_its_commands(ubhpd):
    code, out, _ = ubhpd("weights", "--help")
    assert code == 0 and all(f"  {name} " in out for name in ("import", "init", "fit", "show"))


@needs("weights")
@pytest.mark.parametrize("path", sorted(FSANET.glob("*.h5")), ids=lambda path: path.stem)
def test_real_keras_files_have_flat_names(path):
    if "var_netvlad" in path.name:
        with pytest.raises(UbhpdError, match="is not finite .all of it is NaN or infinite"):
            importing.read(path)
        return
    found = importing.read(path)
    assert found["separable_conv2d_1/depthwise_kernel"].shape == (3, 3, 3, 1)
    assert all(name.count("/") == 1 and ":" not in name for name in found)
    assert 129 <= len(found) <= 140


@needs("weights")
@pytest.mark.parametrize("kept", [100, 3000, -10])
def test_a_real_keras_file_that_is_cut_off_is_one_sentence(tmp_path, kept):
    (tmp_path / "x.h5").write_bytes((FSANET / "ssrnet_mt.h5").read_bytes()[:kept])
    with pytest.raises(UbhpdError, match="is damaged or cut off .*truncated"):
        importing.read(tmp_path / "x.h5")


@needs("weights")
@pytest.mark.parametrize("files, name, golden", [
    (["ssrnet_mt"], "ssrnet_md", ["ssrnet_mt"]),
    (["fsanet_metric_3_16_2_21_5", "fsanet_noS_metric_3_16_2_192_5", "fsanet_var_metric_3_16_2_21_5"],
     "fsanet_metric_fusion", ["fsanet_metric", "fsanet_noS_metric", "fsanet_var_metric"]),
])  # fmt: skip
def test_published_weights_judge_as_their_authors_network_does(tmp_path, ubhpd, files, name, golden):
    out = tmp_path / "w.safetensors"
    paths = [FSANET / f"{file}.h5" for file in files]
    assert ubhpd("weights", "import", *paths, "--model", name, "--out", out)[0] == 0
    model = Model.of_checkpoint(out)
    assert (model.recipe.colour, model.recipe.mean, model.recipe.std) == ("BGR", (0, 0, 0), (1, 1, 1))
    folder = REAL / "weights/golden"
    images = torch.from_numpy(np.load(folder / "input_bgr_uint8.npy")).movedim(-1, 1).float()
    with torch.inference_mode():
        pose = model.network.pose(model.network(images)).numpy()
    theirs = [np.load(folder / f"keras215_300W_LP_{kind}.npz")["pred_pose"] for kind in golden]
    np.testing.assert_allclose(pose, np.mean(theirs, axis=0), atol=1e-3)
