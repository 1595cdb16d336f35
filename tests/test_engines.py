"""Engines other than torch: the same numbers, an export that is kept, and torch where anything is wrong."""

import json
import logging

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from ubhpd.core.errors import UbhpdError  # noqa: E402
from ubhpd.inference import engines  # noqa: E402
from ubhpd.inference.engines import EnginePredictor, chosen_engine  # noqa: E402
from ubhpd.inference.network_predictor import NetworkPredictor  # noqa: E402
from ubhpd.inference.onnx_export import random_inputs  # noqa: E402
from ubhpd.inference.prediction_file import Speed  # noqa: E402
from ubhpd.models.model import Model  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("engines") / "w.safetensors"
    Model.untrained("ssrnet_md", {}, 1).save(path)
    return Model.of_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "options"), [("ssrnet_md", {}), ("sixdrepnet", {"backbone": "resnet18", "size": "64"})]
)
def test_onnxruntime_gives_what_torch_gives(name, options, tmp_path):
    model = Model.untrained(name, options, 1)
    predictor = EnginePredictor(model, "onnx", 1, tmp_path)
    inputs = random_inputs(model, 9, 3)
    angles, rotations = predictor.poses(inputs)
    wanted, wanted_rotations = NetworkPredictor(model).poses(inputs)
    np.testing.assert_allclose(rotations, wanted_rotations, atol=2e-5)
    np.testing.assert_allclose(angles, wanted, atol=1e-3)
    assert predictor.name.startswith("onnxruntime ") and predictor.poses(inputs[:0])[0].shape == (0, 3)


def test_the_export_is_made_once_and_again_where_it_is_damaged(model, tmp_path, monkeypatch):
    made = []
    write = engines._write
    monkeypatch.setattr(engines, "_write", lambda *a: (made.append(1), write(*a))[1])
    for _ in range(2):
        EnginePredictor(model, "onnx", 1, tmp_path)
    (path,) = tmp_path.iterdir()
    assert len(made) == 1
    path.write_bytes(path.read_bytes()[:2000])
    assert EnginePredictor(model, "onnx", 1, tmp_path).name != "torch" and len(made) == 2
    monkeypatch.setattr(engines, "__version__", "9.9")
    EnginePredictor(model, "onnx", 1, tmp_path)
    assert len(made) == 3 and len(list(tmp_path.iterdir())) == 2  # another version has an export of its own


def test_a_cache_that_cannot_be_written_does_no_harm(model, tmp_path):
    (tmp_path / "cache").write_text("a file where a folder belongs")
    assert EnginePredictor(model, "onnx", 1, tmp_path / "cache" / "engines").name != "torch"


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (lambda session, inputs: np.zeros((len(inputs), 3)) + 5.0, "onnx differs from torch by"),
        (lambda session, inputs: 1 / 0, "onnx fails on ssrnet_md (division by zero)"),
    ],
)
def test_torch_is_used_where_the_engine_is_wrong(model, tmp_path, monkeypatch, caplog, fault, sentence):
    monkeypatch.setattr(engines, "_run", fault)
    with caplog.at_level(logging.WARNING, "ubhpd"):
        predictor = EnginePredictor(model, "onnx", 1, tmp_path)
    inputs = random_inputs(model, 4, 3)
    assert predictor.name == "torch" and sentence in caplog.text and "predicting with torch" in caplog.text
    np.testing.assert_array_equal(predictor.poses(inputs)[0], NetworkPredictor(model).poses(inputs)[0])


def test_which_engine_auto_takes(monkeypatch):
    plain = Speed()
    assert chosen_engine("auto", "cpu", plain, engines.WORTH_HEADS) == "onnx"
    assert chosen_engine("auto", "cpu", plain, None) == "onnx"
    assert chosen_engine("auto", "cpu", plain, engines.WORTH_HEADS - 1) == "torch"
    assert chosen_engine("auto", "cuda", plain, None) == chosen_engine("auto", "cpu", Speed(half=True), None) == "torch"
    monkeypatch.setattr(engines, "_is_installed", lambda name: name != "onnxruntime")
    assert chosen_engine("auto", "cpu", plain, None) == "torch"
    with pytest.raises(
        UbhpdError, match=r"--engine onnx needs onnxruntime, which is not installed: pip install 'ubhpd\[onnx"
    ):
        chosen_engine("onnx", "cpu", plain, None)
    with pytest.raises(UbhpdError, match="runs on a CPU in 32 bits"):
        chosen_engine("openvino", "cuda", plain, None)


def test_predict_records_the_engine(model, tmp_path, ubhpd, monkeypatch):
    monkeypatch.setenv("UBHPD_CACHE", str(tmp_path / "cache"))
    model.save(tmp_path / "w.safetensors")
    (tmp_path / "images").mkdir()
    draw = np.random.default_rng(0)
    for number in range(3):
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), draw.integers(0, 256, (70, 70, 3), dtype=np.uint8))
    lines = {}
    for engine in ("torch", "onnx"):
        out = tmp_path / f"{engine}.csv"
        code, _, err = ubhpd("predict", "--weights", tmp_path / "w.safetensors", "--images", tmp_path / "images",
                             "--detector", "none", "--out", out, "--engine", engine, "--device", "cpu",
                             "--quiet")  # fmt: skip
        assert code == 0, err
        lines[engine] = np.loadtxt(out, delimiter=",", skiprows=1, usecols=(-3, -2, -1))
    assert "onnxruntime" in json.dumps(json.loads((tmp_path / "onnx.json").read_text()))
    assert '"engine"' not in (tmp_path / "torch.json").read_text()
    np.testing.assert_allclose(lines["onnx"], lines["torch"], atol=1e-3)
