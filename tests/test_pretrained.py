"""Checkpoints into a backbone: what loads, what is refused, and that a refused file changes nothing."""

import os
import pickle
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from ubhpd.core.errors import UbhpdError  # noqa: E402
from ubhpd.nn.backbone import Backbone  # noqa: E402
from ubhpd.nn.backbones import backbone  # noqa: E402
from ubhpd.nn.weight_files import load_backbone  # noqa: E402

MOBILENET = Path(os.environ.get("UBHPD_MOBILENET") or "mobilenet_v2-b0353104.pth")


class Small(Backbone):
    """A backbone of four layers, with a classifier of two."""

    OUTPUT = "classifier.1"
    channels = 4

    def __init__(self, num_classes=None):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        if num_classes is not None:
            self.classifier = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, num_classes))

    def forward(self, images):
        return self.bn1(self.conv1(images))


@pytest.fixture
def weights():
    """A state dict of Small(10) with values all its own."""
    torch.manual_seed(1)
    small = Small(10)
    small(torch.randn(8, 3, 9, 9))
    return dict(small.state_dict())


def saved(content, path, **options):
    torch.save(content, path, **options)
    return path


def same(state, expected):
    assert list(state) == list(expected)
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0, equal_nan=True)


def kept(state):
    return {name: tensor.clone() for name, tensor in state.items()}


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "parallel", "both"])
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_checkpoints_of_torch_load(weights, tmp_path, wrap, form):
    content = {f"module.{k}": v for k, v in weights.items()} if wrap in ("parallel", "both") else weights
    content = {"state_dict": content, "epoch": 3} if wrap in ("state_dict", "both") else content
    file = saved(content, tmp_path / "w.pth", _use_new_zipfile_serialization=form == "zip")
    small = Small(10)
    assert load_backbone(small, file) == []
    same(small.state_dict(), weights)


def test_safetensors_load(weights, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(weights, tmp_path / "w.safetensors")
    small = Small(10)
    load_backbone(small, str(tmp_path / "w.safetensors"))
    same(small.state_dict(), weights)


def test_the_classifier_is_left_aside_where_there_is_none(weights, tmp_path):
    file = saved(weights, tmp_path / "w.pth")
    small = Small()
    classifier = [k for k in weights if k.startswith("classifier.")]
    assert load_backbone(small, file) == classifier and len(classifier) == 4
    same(small.state_dict(), {k: v for k, v in weights.items() if k not in classifier})


def test_a_checkpoint_of_features_alone_loads_where_there_is_no_classifier(weights, tmp_path):
    features = {k: v for k, v in weights.items() if not k.startswith("classifier.")}
    small = Small()
    assert load_backbone(small, saved(features, tmp_path / "w.pth")) == []
    same(small.state_dict(), features)


def test_another_number_of_classes_keeps_its_own_last_layer(weights, tmp_path):
    file = saved(weights, tmp_path / "w.pth")
    small = Small(3)
    before = kept(small.state_dict())
    assert load_backbone(small, file, with_output=False) == ["classifier.1.weight", "classifier.1.bias"]
    own = {"classifier.1.weight": before["classifier.1.weight"], "classifier.1.bias": before["classifier.1.bias"]}
    same(small.state_dict(), weights | own)


def test_older_files_lack_the_counters(weights, tmp_path):
    del weights["bn1.num_batches_tracked"]
    small = Small(10)
    load_backbone(small, saved(weights, tmp_path / "w.pth"))
    same({k: v for k, v in small.state_dict().items() if k in weights}, weights)


def test_values_take_the_precision_of_the_backbone(weights, tmp_path):
    file = saved({k: v.double() if v.is_floating_point() else v for k, v in weights.items()}, tmp_path / "w.pth")
    small = Small(10)
    load_backbone(small, file)
    same(small.state_dict(), weights)


def _with_nan(w):
    w["conv1.weight"][1, 2, 0, 0] = torch.nan
    return w


def _coarse(w):
    return w | {"conv1.weight": w["conv1.weight"].to(torch.int8)}


def _around_itself(w):
    content = dict(w)
    content["state_dict"] = content
    return content


REFUSED = {
    "lacks": (
        lambda w: {k: v for k, v in w.items() if k[:3] != "bn1"},
        "lacks bn1.weight, bn1.bias, bn1.running_mean and 1 more;",
    ),
    "too many": (
        lambda w: w | {"layer9.0.weight": torch.ones(1)},
        "does not fit this Small: it has layer9.0.weight too many;",
    ),
    "both": (lambda w: {"a": w["bn1.bias"]}, "it lacks conv1.weight, .* and 6 more and has a too many;"),
    "shape": (lambda w: w | {"bn1.bias": torch.ones(5)}, r"bn1.bias has shape \(5,\) where \(4,\) belongs;"),
    "classes": (
        lambda w: w | {"classifier.1.bias": torch.ones(7)},
        r"classifier.1.bias has shape \(7,\) where \(10,\)",
    ),
    "nan": (_with_nan, "has values in conv1.weight that are not finite"),
    "type": (_coarse, "conv1.weight is of type torch.int8 where torch.float32 belongs"),
    "sparse": (lambda w: w | {"bn1.bias": w["bn1.bias"].to_sparse()}, "bn1.bias is no plain tensor"),
    "empty": (lambda w: {}, "it lacks conv1.weight, bn1.weight, bn1.bias and 6 more;"),
    "list": (lambda w: list(w.values()), "holds no tensors by name"),
    "numbers": (lambda w: w | {"epoch": 3}, "epoch is no plain tensor"),
    "unnamed": (lambda w: dict(enumerate(w.values())), "holds no tensors by name"),
    "wrapped list": (lambda w: {"state_dict": [1, 2]}, "state_dict is no plain tensor"),
    "around itself": (_around_itself, "state_dict is no plain tensor"),
    "tensor": (lambda w: w["conv1.weight"], "holds no tensors by name"),
    "object": (lambda w: {"model": Small(2)}, "holds more than tensors, so it is not opened"),
}


def refuse(small, file, message):
    """The file is refused in one sentence, and the backbone stays as it was."""
    before = kept(small.state_dict())
    with pytest.raises(UbhpdError, match=message) as caught:
        load_backbone(small, file)
    text = str(caught.value)
    assert str(file) in text and "\n" not in text and text.endswith(".") and ". " not in text
    same(small.state_dict(), before)


@pytest.mark.parametrize("case", REFUSED)
def test_another_content_is_refused(weights, tmp_path, case):
    change, message = REFUSED[case]
    refuse(Small(10), saved(change(weights), tmp_path / "w.pth"), message)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.99])
def test_a_truncated_file_is_refused(weights, tmp_path, form, share):
    file = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        pytest.importorskip("safetensors.torch").save_file(weights, file)
    else:
        saved(weights, file, _use_new_zipfile_serialization=form == "zip")
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    refuse(Small(10), file, "is damaged or no file of torch|is cut off|is no weight file|is empty")


def test_files_that_are_no_checkpoints_are_refused(tmp_path):
    small = Small(10)
    refuse(small, tmp_path / "nowhere.pth", "Cannot open .*No such file")
    refuse(small, tmp_path, "is a folder: give the weight file in it")
    for name in ("notes.pth", "notes.safetensors"):
        (tmp_path / name).write_text("These are no weights.")
        refuse(small, tmp_path / name, "is no weight file: give")
    (tmp_path / "keras.pth").write_bytes(b"\x89HDF\r\n\x1a\n and more")
    refuse(small, tmp_path / "keras.pth", "is a file of Keras: give .pth of torch or .safetensors")


def test_nothing_in_a_file_is_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    file = tmp_path / "w.pth"
    file.write_bytes(pickle.dumps({"conv1.weight": Trap()}, protocol=2))
    refuse(Small(10), file, "holds more than tensors, so it is not opened")
    refuse(Small(10), saved({"conv1.weight": Trap()}, file), "holds more than tensors, so it is not opened")
    assert not (tmp_path / "sprung").exists()


def test_a_checkpoint_of_another_depth_is_refused(tmp_path):
    file = saved(backbone("resnet18", 10).state_dict(), tmp_path / "w.pth")
    with torch.device("meta"):
        other = backbone("resnet34", 10)
    with pytest.raises(UbhpdError, match=r"does not fit this ResNet: it lacks layer1.2.conv1.weight, .* and \d+ more;"):
        load_backbone(other, file)


@pytest.mark.skipif(
    not MOBILENET.is_file(), reason="torchvision's mobilenet_v2-b0353104.pth is not here: set UBHPD_MOBILENET"
)
def test_the_published_mobilenet_loads():
    whole, features = backbone("mobilenet_v2", 1000), backbone("mobilenet_v2")
    assert load_backbone(whole, MOBILENET) == []
    assert load_backbone(features, MOBILENET) == ["classifier.1.weight", "classifier.1.bias"]
    torch.manual_seed(0)
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(whole.eval()(images), features.eval()(images))
    same(whole.state_dict(), dict(torch.load(MOBILENET, weights_only=True)))


@pytest.mark.parametrize(("model", "source"), [("hopenet_alexnet", "alexnet"), ("vgg16", "vgg16")])
def test_the_models_whose_classifier_is_cut_take_a_whole_imagenet_file(tmp_path, model, source):
    from ubhpd.models.importing import with_backbone
    from ubhpd.models.model import Model

    whole = backbone(source, num_classes=10).state_dict()
    torch.save(whole, tmp_path / "whole.pth")
    filled = with_backbone(Model.untrained(model), tmp_path / "whole.pth").network.backbone.state_dict()
    assert filled and all(torch.equal(tensor, whole[name]) for name, tensor in filled.items())


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "model.", "net.", "module.model."])
def test_a_state_dict_of_this_packages_network_is_taken_by_its_own_names(prefix, tmp_path):
    """Also of a model whose published weights have other names."""
    from ubhpd.models.importing import imported
    from ubhpd.models.model import Model

    model = Model.untrained("hopenet", {"backbone": "resnet18"}, seed=3)
    torch.save({f"{prefix}{n}": v for n, v in model.network.state_dict().items()}, tmp_path / "w.pth")
    found = imported([tmp_path / "w.pth"], "hopenet", {"backbone": "resnet18"})
    for name, values in model.network.state_dict().items():
        assert torch.equal(found.network.state_dict()[name], values), name


def test_weights_without_the_counters_of_batch_normalisation_are_whole(tmp_path):
    """As torch before 0.4.1 wrote them."""
    from ubhpd.models.importing import imported
    from ubhpd.models.model import Model

    state = Model.untrained("hopenet", {"backbone": "resnet18"}, seed=3).network.state_dict()
    torch.save({n: v for n, v in state.items() if not n.endswith("num_batches_tracked")}, tmp_path / "w.pth")
    found = imported([tmp_path / "w.pth"], "hopenet", {"backbone": "resnet18"}).network.state_dict()
    assert all(torch.equal(found[n], v) for n, v in state.items() if n in found and v.is_floating_point())
