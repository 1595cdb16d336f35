"""ONNX files: every kind of network gives in onnxruntime what it gives in torch, and the file says what it is."""

import json
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

from ubhpd.core import rotation
from ubhpd.core.errors import UbhpdError
from ubhpd.inference import onnx_export
from ubhpd.inference.network_predictor import FromPixels, NetworkPredictor
from ubhpd.models.checkpoint import read_about
from ubhpd.models.model import Model
from ubhpd.nn.outputs import matrix_from_euler, nearest_rotation
from ubhpd.nn.tracing import traced

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SMALL = {
    "eva_gcn": {},
    "fsanet_capsule_1x1": {"size": "32"},
    "fsanet_metric_var": {"size": "32"},
    "fsanet_netvlad_wo": {"size": "32"},
    "osgg_small": {},
    "ssrnet_md": {"size": "32"},
    "trinet_mobilenetv2": {"size": "32"},
    "whenet": {"size": "32"},
    "dadl_resnet18": {"size": "32"},
    "ehpnet": {"size": "32"},
    "hpe": {"size": "32", "backbone": "resnet18"},
    "lightweight": {"size": "32"},
    "quatnet": {"size": "32", "backbone": "resnet18"},
    "threeddfa_v2": {"size": "32"},
    "vgg16_rnn": {"size": "32", "frames": "2", "width": "16", "state": "16"},
}
LARGE = {
    "ehpnet_botnet101": {"size": "32"},
    "ehpnet_res2net101": {"size": "32"},
    "hopenet": {"size": "32"},
    "hopenet_alexnet": {"size": "64"},
    "osgg_released": {"size": "64"},
    "sixdrepnet": {"size": "32"},
    "sixdrepnet_deploy": {"size": "32"},
    "trinet": {"size": "32"},
    "vgg16": {"size": "32"},
    "vgg16_lstm": {"size": "32", "frames": "2"},
}
OF_LARGE = [pytest.param(n, o, marks=pytest.mark.slow) for n, o in LARGE.items()]


def made(name, options, folder):
    """A checkpoint of random weights; TriNet's vectors are near those of a head, where its pose is well defined."""
    model = Model.untrained(name, options)
    if name.startswith("trinet"):
        wanted = 25.0 * torch.eye(3).flatten()
        for sign, head in zip(wanted, model.network.heads.values()):
            nn.init.zeros_(head.bias)
            head.bias.data += sign * model.network.grid
    model.save(folder / "w.safetensors")
    return model, folder / "w.safetensors"


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("name", "options"), [*SMALL.items(), *OF_LARGE])
def test_onnxruntime_gives_what_torch_gives(name, options, tmp_path):
    model, weights = made(name, options, tmp_path)
    report = onnx_export.export_onnx(weights, tmp_path / "m.onnx", heads=3)
    assert report.difference_deg < 1e-3
    inputs = onnx_export.random_inputs(model, 5, seed=7)
    found = session(tmp_path / "m.onnx").run(["pose"], {"input": inputs})[0]
    with torch.inference_mode():
        pose = FromPixels(model.network, model.recipe)(torch.from_numpy(inputs)).double().numpy()
    wanted = rotation.euler_from_matrix(pose) if pose.ndim == 3 else pose
    assert found.shape == (5, 3) and found.dtype == np.float32
    assert np.isfinite(wanted).all()
    assert np.allclose((found - wanted + 180) % 360, 180, atol=1e-3)


@pytest.mark.parametrize(("name", "options"), [*SMALL.items(), *OF_LARGE])
def test_what_predict_runs_gives_the_same(name, options, tmp_path):
    """A network folded and recorded for the CPU, with more heads than it is given at a time."""
    model, _ = made(name, options, tmp_path)
    inputs = onnx_export.random_inputs(model, 18, seed=1)
    angles, rotations = NetworkPredictor(model).poses(inputs)
    with torch.inference_mode():
        pose = FromPixels(model.network, model.recipe)(torch.from_numpy(inputs)).double().numpy()
    wanted = pose if pose.ndim == 3 else rotation.matrix_from_euler(pose)
    # Of random weights a matrix is next to degenerate, and the rotation nearest to it moves with the rounding.
    limit_deg = 1e-2 if pose.ndim == 3 else 1e-3
    assert angles.shape == (18, 3) and np.abs(rotations - wanted).max() < np.radians(limit_deg)


def test_the_file_says_what_it_is_and_its_inputs_are_free_in_number(tmp_path):
    _, weights = made("fsanet_metric_var", {"size": "32"}, tmp_path)
    onnx_export.export_onnx(weights, tmp_path / "m.onnx", heads=2)
    proto = onnx.load(tmp_path / "m.onnx")
    said = {p.key: p.value for p in proto.metadata_props}
    assert json.loads(said["ubhpd"]) == json.loads(json.dumps(asdict(read_about(weights))))
    (entry,), (pose,) = session(tmp_path / "m.onnx").get_inputs(), session(tmp_path / "m.onnx").get_outputs()
    assert (entry.name, entry.type, entry.shape) == ("input", "tensor(uint8)", ["n", 32, 32, 3])
    assert (pose.name, pose.type, pose.shape[0]) == ("pose", "tensor(float)", "n")
    assert [o.version for o in proto.opset_import] == [17]
    before = (tmp_path / "m.onnx").read_bytes()
    onnx_export.export_onnx(weights, tmp_path / "m.onnx", heads=2)
    assert (tmp_path / "m.onnx").read_bytes() == before


@pytest.mark.parametrize("opset", onnx_export.OPSETS)
def test_the_first_and_the_last_opset(opset, tmp_path):
    _, weights = made("vgg16_rnn", SMALL["vgg16_rnn"], tmp_path)
    assert onnx_export.export_onnx(weights, tmp_path / "m.onnx", opset=opset, heads=2).opset == opset


def test_the_command(tmp_path, ubhpd):
    made("eva_gcn", {}, tmp_path)
    code, out, err = ubhpd(
        "onnx", "--weights", tmp_path / "w.safetensors", "--out", tmp_path / "m.onnx", "--check", "3"
    )
    assert (code, err) == (0, "") and "input (n, 68, 2), opset 17" in out and "3 random inputs" in out
    assert out.count("\n") == 1


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"--out": "m.pt"}, "call it m.onnx, not m.pt"),
        ({"--opset": "9"}, "choose one from 14 to 20"),
        ({"--check": "1"}, "--check is 1: give 2 heads or more"),
        ({"--weights": "nothing.safetensors"}, "There is no checkpoint nothing.safetensors"),
    ],
)
def test_wrong_requests_are_one_sentence(changed, sentence, tmp_path, ubhpd):
    _, weights = made("eva_gcn", {}, tmp_path)
    options = {"--weights": weights, "--out": tmp_path / "m.onnx", **changed}
    code, _, err = ubhpd("onnx", *(text for pair in options.items() for text in pair))
    assert code == 2 and sentence in err and err.count("\n") == 1
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_one_sentence(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UbhpdError, match=rf"ONNX files need {package}.*pip install 'ubhpd\[onnx\]'"):
        onnx_export.export_onnx(tmp_path / "w.safetensors", tmp_path / "m.onnx")


def test_no_file_is_left_if_the_answers_differ(tmp_path, monkeypatch):
    _, weights = made("ehpnet", SMALL["ehpnet"], tmp_path)
    exported = onnx_export.exported

    def of_another(network, *rest):
        other = Model.untrained("ehpnet", SMALL["ehpnet"], seed=3)
        return exported(onnx_export.CanonicalPose(FromPixels(other.network, other.recipe)).eval(), *rest)

    monkeypatch.setattr(onnx_export, "exported", of_another)
    with pytest.raises(UbhpdError, match="differs from torch by"):
        onnx_export.export_onnx(weights, tmp_path / "m.onnx", heads=2)
    assert not (tmp_path / "m.onnx").exists()


class Powerless(nn.Module):
    def forward(self, inputs):
        return torch.linalg.svd(inputs.float())[1]


def test_what_onnx_cannot_express_is_one_sentence_and_nothing_is_printed(capfd):
    with pytest.raises(UbhpdError, match="torch cannot write x as ONNX with opset 17"):
        onnx_export.exported(Powerless(), np.zeros((2, 3, 3), dtype=np.uint8), 17, "x")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("places", "cells"), [(7, 7), (1, 7), (3, 2), (10, 4), (5, 1)])
def test_means_over_cells_are_torchs(places, cells):
    maps = torch.randn(2, 3, places, places + 1)
    wanted = nn.functional.adaptive_avg_pool2d(maps, cells)
    torch.testing.assert_close(onnx_export._cell_means(maps, cells), wanted)


def test_the_nearest_rotation_is_that_of_singular_values():
    draw = torch.Generator().manual_seed(0)
    angles = (torch.rand((200, 3), generator=draw, dtype=torch.float64) - 0.5) * torch.tensor([178.0, 350.0, 350.0])
    noisy = matrix_from_euler(angles) + 0.3 * torch.randn((200, 3, 3), generator=draw, dtype=torch.float64)
    mirrored = noisy @ torch.diag(torch.tensor([1.0, 1.0, -0.4], dtype=torch.float64))
    for given in (noisy, mirrored):
        u, _, vt = torch.linalg.svd(given)
        sign = torch.linalg.det(u @ vt)
        wanted = u @ torch.diag_embed(torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], -1)) @ vt
        assert (torch.linalg.det(given) < 0).any() or given is noisy
        torch.testing.assert_close(nearest_rotation(given), wanted, rtol=0, atol=1e-9)
        single = nearest_rotation(given.float()).double()
        assert torch.rad2deg((single - wanted).norm(dim=(1, 2))).max() < 1e-3


class Pools(nn.Module):
    """Maxima with and without an odd edge, a step and a margin, and tanh in three ways."""

    def forward(self, x):
        pool = nn.functional.max_pool2d
        parts = [pool(x, 2), pool(x, 2, 1), pool(x, 3, 2, padding=1), pool(x, 2, 2, ceil_mode=True), x.tanh()]
        return torch.cat([p.flatten(1) for p in (*parts, torch.tanh(x), x.clone().tanh_())], dim=1)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 3, 7, 9)])
def test_quicker_means_give_the_same(shape):
    x = torch.randn(shape) * 3
    run = traced(Pools().eval(), x[:1])
    torch.testing.assert_close(run(x), Pools()(x), rtol=0, atol=1e-6)


def test_recording_leaves_the_network_as_it_is():
    model = Model.untrained("ssrnet_md", {"size": "32"})
    before = {name: values.clone() for name, values in model.network.state_dict().items()}
    NetworkPredictor(model).poses(onnx_export.random_inputs(model, 2, seed=0))
    after = model.network.state_dict()
    assert list(after) == list(before) and all(torch.equal(before[name], after[name]) for name in before)
