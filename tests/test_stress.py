"""`ubhpd stress`: what each perturbation does to boxes, pixels and labels, resuming, and what is refused."""

import json

import cv2
import numpy as np
import pytest

from ubhpd.core.errors import UbhpdError
from ubhpd.core.progress import Progress
from ubhpd.core.rotation import geodesic_deg, matrix_from_euler
from ubhpd.experiments import stress as module
from ubhpd.experiments.stress import PERTURBATIONS, SET, StressRequest, figure_of, stress
from ubhpd.inference.predicting import Request
from ubhpd.leaderboards.result import read_stress
from ubhpd.pool.build import BuildConfig, build
from ubhpd.synth.writers import w300lp_writer

QUIET = Progress(show=False)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("stress")
    w300lp_writer.write(root / "raw", 6, views=2, distinct_images=6)
    build(BuildConfig(("300wlp",), root / "out", str(root / "raw")))
    return root / "out"


def request(built, out, function, **rest):
    return StressRequest(Request(None, out, manifest=built, python=function, device="cpu", threads=1), out, **rest)


def brightness(crops):
    """A model whose yaw is the mean grey of the crop."""
    return np.stack([crops.mean(axis=(1, 2, 3)) / 4, np.zeros(len(crops)), np.zeros(len(crops))], axis=1)


def test_every_condition_is_measured_and_the_rise_is_that_of_the_set(built, tmp_path):
    report = stress(request(built, tmp_path / "s.json", brightness), QUIET)
    assert len(report.conditions) == 1 + sum(len(p.amounts) for p in PERTURBATIONS)
    assert {c.heads for c in report.conditions} == {12} and report.left_out == 0
    by = {(c.kind, c.amount): c for c in report.conditions}
    plain = by["none", 0.0].geodesic
    counted = [by[p.kind, float(a)].geodesic - plain for p in PERTURBATIONS for a in p.counted]
    assert report.rise_deg == pytest.approx(np.mean(counted)) and len(counted) == 21
    assert abs(by["brightness", 0.3].mae - by["none", 0.0].mae) > 1 > abs(by["blur", 1.0].mae - by["none", 0.0].mae)
    content = json.loads((tmp_path / "s.json").read_text())
    assert content["perturbations"] == SET and read_stress(tmp_path / "s.json").rise_deg == pytest.approx(
        report.rise_deg
    )
    figure = figure_of(report)
    assert len([a for a in figure.axes if a.lines]) == 9


def test_an_interrupted_call_resumes_and_gives_the_same(built, tmp_path):
    whole = stress(request(built, tmp_path / "whole.json", brightness, kinds=("shift", "noise")), QUIET)
    calls = []

    def stops(crops):
        calls.append(len(crops))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return brightness(crops)

    stops.__qualname__, stops.__module__ = brightness.__qualname__, brightness.__module__
    with pytest.raises(KeyboardInterrupt):
        stress(request(built, tmp_path / "part.json", stops, kinds=("shift", "noise")), QUIET)
    done = len(calls)
    again = stress(request(built, tmp_path / "part.json", stops, kinds=("shift", "noise")), QUIET)
    assert again.conditions == whole.conditions and again.rise_deg is None
    assert len(calls) - done == 11 - 4


def test_a_turned_image_has_the_turned_label():
    """A frontal head turned counter-clockwise in the image rolls by the same angle, negative in our convention."""
    heads = module._Heads(None, np.zeros((1, 3)), np.eye(3)[None], None)
    angles, _ = module._truth(heads, "rotation", 20.0)
    np.testing.assert_allclose(angles, [[0, 0, -20]], atol=1e-9)
    heads = module._Heads(None, np.array([[30.0, 10.0, 5.0]]), matrix_from_euler([[30.0, 10.0, 5.0]]), None)
    assert geodesic_deg(module._truth(heads, "rotation", 20.0)[1], heads.rotation) == pytest.approx(20)


def test_a_turn_is_counter_clockwise_about_the_middle_of_the_box(built, monkeypatch):
    image = np.zeros((100, 100, 3), np.uint8)
    image[48:53, 70:75] = 255  # right of the middle of the box
    source = module._TurnedSource.__new__(module._TurnedSource)
    source.turn_deg = 90.0

    class Plan:
        box = np.array([[20.0, 20.0, 80.0, 80.0]])

    source._plan = Plan()
    monkeypatch.setattr(module.ManifestSource, "_image", lambda self, row: image)
    y, x = np.argwhere(source._image(0)[..., 0] > 128).mean(axis=0)
    assert (round(x), round(y)) == (50, 28)  # above the middle


def test_what_each_change_does_to_a_crop():
    crop = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    rng = np.random.default_rng
    assert np.array_equal(module._resolution(crop, 96, rng(0)), crop)
    small = module._resolution(crop, 8, rng(0))
    assert small.shape == crop.shape and small.std() < crop.std() / 2
    assert module._jpeg(crop, 5, rng(0)).shape == crop.shape
    assert module._blur(crop, 5, rng(0)).std() < crop.std() / 2
    grey = np.full((64, 64, 3), 127, np.uint8)
    assert module._noise(grey, 20, rng(0)).std() == pytest.approx(20, rel=0.1)
    assert module._brightness(grey, 2.0, rng(0)).max() == 254 and module._brightness(grey, 3.0, rng(0)).max() == 255
    patched = (module._patch(np.zeros_like(crop), 10, rng(0)) == 127).all(axis=2)
    assert patched.mean() == pytest.approx(0.1, abs=0.01)
    assert np.array_equal(module._mirrored(crop, 1, rng(0)), cv2.flip(crop, 1))
    for kind, change in module._CHANGES.items():
        assert change(crop, 10, rng(3)).dtype == np.uint8, kind


def test_boxes_are_moved_and_scaled_about_their_middle(built, tmp_path):
    heads = module._heads(request(built, tmp_path / "s.json", brightness), module.InputRecipe("square", 64))
    box = heads.plan.box
    size = box[:, 2:] - box[:, :2]
    moved = module._boxes(heads.plan, "shift", 10, 0) - box
    length = np.hypot(*(moved[:, :2] / size).T)
    assert np.allclose(moved[:, :2], moved[:, 2:], atol=1) and np.allclose(length, 0.1, atol=0.02)
    assert len(np.unique(moved[:, 0])) > 3
    larger = module._boxes(heads.plan, "scale", 1.4, 0)
    assert np.allclose(larger[:, :2] + larger[:, 2:], box[:, :2] + box[:, 2:], atol=1.5)
    assert np.allclose(larger[:, 2:] - larger[:, :2], 1.4 * size, atol=1.5)


def test_a_model_that_knows_mirrors_is_consistent(built, tmp_path):
    def symmetric(crops):
        left = crops[:, :, : crops.shape[2] // 2].mean(axis=(1, 2, 3))
        right = crops[:, :, (crops.shape[2] + 1) // 2 :].mean(axis=(1, 2, 3))
        return np.stack([left - right, np.full(len(crops), 3.0), np.zeros(len(crops))], axis=1)

    report = stress(request(built, tmp_path / "m.json", symmetric, kinds=("mirror",)), QUIET)
    assert report.mirror_deg == pytest.approx(0, abs=1e-6)
    other = stress(request(built, tmp_path / "b.json", brightness, kinds=("mirror",)), QUIET)
    assert other.mirror_deg > 1


def test_the_command_writes_json_and_figure_and_refuses_in_one_sentence(built, tmp_path, ubhpd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stressed_for_test.py").write_text("import numpy as np\ndef f(c):\n    return np.zeros((len(c), 3))\n")
    base = ("stress", "--manifest", built, "--out", "s.json", "--quiet")
    code, _, err = ubhpd(*base, "--python", "stressed_for_test:f", "--kinds", "blur", "--heads", 5, "--figure", "s.png")
    assert code == 0, err
    assert cv2.imread("s.png") is not None and json.loads((tmp_path / "s.json").read_text())["heads"] == 5
    assert "did you mean" in ubhpd(*base, "--python", "stressed_for_test:f", "--crop", "squar")[2]
    assert "No perturbation is called 'fog'" in ubhpd(*base, "--python", "stressed_for_test:f", "--kinds", "fog")[2]
    assert "One model is needed" in ubhpd(*base)[2]
    with pytest.raises(UbhpdError, match="is not what ubhpd stress writes|rise_deg"):
        read_stress(tmp_path / "s.json")


def test_the_python_api_returns_a_table(built):
    import ubhpd

    table = ubhpd.stress(built, python=brightness, kinds=["brightness"], heads=6, progress=False)
    assert list(table.columns) == ["kind", "amount", "mae", "geodesic", "heads"] and len(table) == 7
    assert table.attrs["rise_deg"] is None and set(table.heads) == {6}
    assert len(ubhpd.stress(built, python=brightness, heads=3, progress=False).attrs) == 2
