"""Models of others: IO files, ONNX files with known outputs, Python functions, and what is refused."""

import csv
import json
import re
import sys

import numpy as np
import pytest
from realdata import REAL, needs

from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import (
    camera_to_canonical,
    geodesic_deg,
    matrix_from_angles,
    matrix_from_euler,
    quaternion_from_matrix,
)
from ubhpd.inference import io_file
from ubhpd.inference.io_file import InputFile, IoFile, OutputFile
from ubhpd.pool.build import BuildConfig, build
from ubhpd.synth.writers import aflw2000_writer, w300lp_writer

ANGLES = np.random.default_rng(0).uniform(-60, 60, (12, 3))
ROTATIONS = matrix_from_euler(ANGLES)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A build of 24 heads of 300W-LP's layout; read only."""
    root = tmp_path_factory.mktemp("foreign")
    w300lp_writer.write(root / "raw", 12, views=2, distinct_images=12)
    build(BuildConfig(("300wlp",), root / "out", str(root / "raw")))
    return root / "out"


# Outputs as poses


def poses(output, *arrays):
    angles, rotation = output.poses(arrays, "model.onnx")
    np.testing.assert_allclose(rotation, matrix_from_euler(angles), atol=1e-9)
    return angles


def test_the_projects_own_angles_are_the_default():
    np.testing.assert_allclose(OutputFile().poses([ANGLES], "m")[0], ANGLES)
    np.testing.assert_allclose(OutputFile().poses([ANGLES], "m")[1], ROTATIONS)
    columns = [ANGLES[:, [j]] for j in range(3)]
    np.testing.assert_allclose(poses(OutputFile(names=("a", "b", "c")), *columns), ANGLES)


def test_order_signs_and_unit_of_angles():
    output = OutputFile(order=("roll", "yaw", "pitch"), signs=(1, -1, 1), unit="radians")
    np.testing.assert_allclose(poses(output, np.radians(ANGLES[:, [2, 0, 1]] * [1, -1, 1])), ANGLES)


def test_an_euler_order_is_that_of_the_conventions():
    output = OutputFile(order=("roll", "pitch", "yaw"), signs=(-1, 1, 1), unit="radians", axes="YXZ")
    values = np.radians(ANGLES[:, [2, 1, 0]])
    np.testing.assert_allclose(output.poses([values], "m")[1], matrix_from_angles(values, "aflw"), atol=1e-12)


def test_bins_are_the_mean_of_their_classes():
    index = np.arange(66)
    scores = [-np.abs(index - (a[:, None] + 99) / 3) * 4 for a in ANGLES.T]
    np.testing.assert_allclose(poses(OutputFile("bins"), *scores), ANGLES, atol=0.5)
    shares = [np.eye(66)[np.rint((a + 99) / 3).astype(int)] for a in ANGLES.T]
    np.testing.assert_allclose(poses(OutputFile("bins", softmax=False), *shares), 3 * np.rint(ANGLES / 3), atol=1e-9)
    wide = [np.eye(120)[np.rint((ANGLES[:, 0] + 180) / 3).astype(int)], *shares[1:]]
    output = OutputFile("bins", first=(-180.0, -99.0, -99.0), softmax=False)
    np.testing.assert_allclose(poses(output, *wide), 3 * np.rint(ANGLES / 3), atol=1e-9)


@pytest.mark.parametrize("width", [9, 12, 16])
def test_matrices_of_several_shapes_scaled_or_not(width):
    square = np.zeros((12, 4, 4))
    square[:, :3, :3] = 1.7 * ROTATIONS
    square[:, :3, 3] = 5
    values = 1.7 * ROTATIONS if width == 9 else square[:, : width // 4]
    np.testing.assert_allclose(poses(OutputFile("matrix"), values), ANGLES, atol=1e-9)
    np.testing.assert_allclose(poses(OutputFile("matrix"), values.reshape(12, -1)), ANGLES, atol=1e-9)


def test_six_numbers_are_two_axes_of_the_matrix():
    columns = np.concatenate([2 * ROTATIONS[:, :, 0], ROTATIONS[:, :, 1] + 0.3 * ROTATIONS[:, :, 0]], axis=1)
    np.testing.assert_allclose(poses(OutputFile("6d"), columns), ANGLES, atol=1e-9)
    rows = np.concatenate([ROTATIONS[:, 0], ROTATIONS[:, 1]], axis=1)
    np.testing.assert_allclose(poses(OutputFile("6d", vectors="rows"), rows), ANGLES, atol=1e-9)
    np.testing.assert_allclose(poses(OutputFile("6d", transposed=True), rows), ANGLES, atol=1e-9)


def test_quaternions_with_the_scalar_first_or_last_in_a_cameras_frame():
    last = quaternion_from_matrix(camera_to_canonical(ROTATIONS)) * 3
    np.testing.assert_allclose(poses(OutputFile("quaternion", frame="camera"), last), ANGLES, atol=1e-9)
    first = np.roll(quaternion_from_matrix(ROTATIONS), 1, axis=1)
    np.testing.assert_allclose(poses(OutputFile("quaternion", scalar="first"), first), ANGLES, atol=1e-9)


def test_the_frame_of_the_head_can_differ_from_the_images():
    turned = ROTATIONS @ np.diag([1.0, -1.0, -1.0])
    output = OutputFile("matrix", head="camera")
    np.testing.assert_allclose(poses(output, turned), ANGLES, atol=1e-9)
    output = OutputFile("matrix", frame=("y", "z", "x"))
    axes = np.eye(3)[[1, 2, 0]]
    np.testing.assert_allclose(poses(output, axes.T @ ROTATIONS @ axes), ANGLES, atol=1e-9)


def test_what_is_not_finite_gives_nan_and_nothing_else_changes():
    quaternion = quaternion_from_matrix(ROTATIONS)
    quaternion[3] = 0
    quaternion[4, 1] = np.nan
    angles = OutputFile("quaternion").poses([quaternion], "m")[0]
    assert np.isnan(angles[[3, 4]]).all()
    np.testing.assert_allclose(np.delete(angles, [3, 4], axis=0), np.delete(ANGLES, [3, 4], axis=0), atol=1e-9)
    matrix = ROTATIONS.copy()
    matrix[0, 0, 0] = np.inf
    assert np.isnan(OutputFile("matrix").poses([matrix], "m")[0][0]).all()


def test_an_average_is_the_mean_of_the_angles_and_the_nearest_rotation():
    angles, rotation = io_file.averaged([(ANGLES, ROTATIONS), (ANGLES + 2, matrix_from_euler(ANGLES + 2))])
    np.testing.assert_allclose(angles, ANGLES + 1)
    assert geodesic_deg(rotation, matrix_from_euler(ANGLES + 1)).max() < 0.1


@pytest.mark.parametrize(
    ("output", "arrays"),
    [
        (OutputFile(), [ANGLES[:, :2]]),
        (OutputFile(), [ANGLES, ANGLES]),
        (OutputFile(), []),
        (OutputFile("bins"), [ANGLES]),
        (OutputFile("matrix"), [ANGLES]),
        (OutputFile("6d"), [ANGLES]),
        (OutputFile("quaternion"), [ANGLES]),
    ],
)
def test_outputs_of_another_shape_are_refused(output, arrays):
    with pytest.raises(UbhpdError, match="needed"):
        output.poses(arrays, "model.onnx")


# IO files


def test_every_shipped_file_is_read_and_comes_back_from_its_text(tmp_path):
    assert {"fsanet-pytorch", "opentrack", "openvino-adas-0001", "6drepnet", "whenet", "mediapipe-matrix"} <= set(
        io_file.shipped()
    )
    for name in io_file.shipped():
        io = io_file.read(name)
        assert io.title and io.source and io.license
        (tmp_path / "copy.toml").write_text(io_file.as_toml(io))
        assert io_file.read(tmp_path / "copy.toml") == io
    assert io_file.read("FSANET-pytorch").input == InputFile("fsanet-0.6", 64, "BGR", "NCHW", (127.5,), (128.0,))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[input", "is not TOML"),
        ("[inputs]\nsize = 64", "inputs"),
        ("[input]\nsice = 64", "did you mean size"),
        ("[input]\nsize = 2000", "input.size is 2000"),
        ("[input]\nsize = 'big'", "a whole number"),
        ("[input]\ncolour = 'BRG'", "one of RGB, BGR, grey"),
        ("[input]\nmean = [1, 2]", "input.mean has 2 numbers"),
        ("[input]\nstd = 0", "input.std is 0"),
        ("[input]\ncrop = 'fsanet-0.7'", "fsanet-0.6"),
        ("[[output]]\nkind = 'euler'", "one of angles, bins, matrix, 6d, quaternion"),
        ("[[output]]\norder = ['yaw', 'yaw', 'roll']", "name yaw, pitch and roll once each"),
        ("[[output]]\nsigns = [1, 1, 2]", "give 1 or -1"),
        ("[[output]]\naxes = 'XYY'", "give X, Y and Z"),
        ("[[output]]\nframe = ['x', 'y', '-z']", "is no rotation"),
        ("[[output]]\nframe = ['x', 'y', 'w']", "give three of x, y, z"),
        ("[[output]]\nkind = 'bins'\nwidth = 0", "output.width is 0"),
        ("[[output]]\nnames = ['a', 'b']", "output.names has 2 names"),
        ("output = 3", "needs one table"),
        ("output = [3]", "an output that is no table"),
    ],
)
def test_a_wrong_io_file_is_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "io.toml"
    path.write_text(text)
    with pytest.raises(UbhpdError, match=sentence) as raised:
        io_file.read(path)
    assert "\n" not in str(raised.value)


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UbhpdError, match="did you mean opentrack"):
        io_file.read("opentrak")


# ONNX files

IO = IoFile(InputFile("square", 32), (OutputFile(names=("pose",)),))


def onnx_file(path, shape=("n", 3, 32, 32), scale=0.5, external=None, outputs=("pose",)):
    """Write a model whose output is the mean of each channel times `scale`."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, TensorProto = onnx.helper, onnx.TensorProto
    constant = helper.make_tensor("scale", TensorProto.FLOAT, [1], [scale])
    if external is not None:
        constant = TensorProto(name="scale", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
        constant.external_data.add(key="location", value=external)
    axes = [2, 3] if shape[1] != 32 else [1, 2]
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=axes, keepdims=0),
        *(helper.make_node("Mul", ["mean", "scale"], [name]) for name in outputs),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs], [constant],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def crops(n=5):
    return np.random.default_rng(1).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


def opened(path, io=IO):
    from ubhpd.inference.foreign import ForeignModel

    return ForeignModel(io, [path], device="cpu", threads=1)


def test_an_onnx_file_gets_the_crops_that_its_io_file_describes(tmp_path):
    mean = crops().mean(axis=(1, 2))
    model = opened(onnx_file(tmp_path / "m.onnx"))
    np.testing.assert_allclose(model.poses(crops())[0], 0.5 * mean, rtol=1e-5)
    assert model.poses(crops(0))[0].shape == (0, 3)
    normalised = IoFile(InputFile("square", 32, mean=(10.0, 20.0, 30.0), std=(2.0,)), IO.output)
    found = opened(tmp_path / "m.onnx", normalised).poses(crops())[0]
    np.testing.assert_allclose(found, (mean - [10, 20, 30]) / 4, rtol=1e-5)
    last = onnx_file(tmp_path / "last.onnx", shape=("n", 32, 32, 3))
    rows = IoFile(InputFile("square", 32, layout="NHWC"), IO.output)
    np.testing.assert_allclose(opened(last, rows).poses(crops())[0], 0.5 * mean, rtol=1e-5)


def test_a_fixed_batch_size_gets_that_many_at_a_time(tmp_path):
    expected = opened(onnx_file(tmp_path / "free.onnx")).poses(crops(5))[0]
    for batch in (1, 2, 8):
        model = opened(onnx_file(tmp_path / f"{batch}.onnx", shape=(batch, 3, 32, 32)))
        np.testing.assert_allclose(model.poses(crops(5))[0], expected, rtol=1e-6)


def test_several_files_are_averaged(tmp_path):
    from ubhpd.inference.foreign import ForeignModel

    files = [onnx_file(tmp_path / f"{s}.onnx", scale=s) for s in (0.1, 0.3)]
    both = ForeignModel(IO, files, device="cpu")
    np.testing.assert_allclose(both.poses(crops())[0], 0.2 * crops().mean(axis=(1, 2)), rtol=1e-5)
    assert both.name == "0.1, 0.3" and len(both.sha256) > 20


@pytest.mark.parametrize(
    ("change", "io", "sentence"),
    [
        ({"shape": ("n", 1, 32, 32)}, IO, r"\(free, 1, 32, 32\), the IO file gives it \(n, 3, 32, 32\)"),
        ({}, IoFile(InputFile("square", 64), IO.output), "correct size, colour or layout"),
        ({"outputs": ("other",)}, IO, "has no output 'pose', but other"),
        ({}, IoFile(InputFile("square", 32, name="picture"), IO.output), "has no input 'picture', but image"),
        (
            {},
            IoFile(InputFile("square", 32), (OutputFile("quaternion", ("pose",)),)),
            "4 numbers for each head are needed",
        ),
    ],
)
def test_an_io_file_that_does_not_fit_is_refused(tmp_path, change, io, sentence):
    path = onnx_file(tmp_path / "m.onnx", **change)
    with pytest.raises(UbhpdError, match=sentence) as raised:
        opened(path, io).poses(crops())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("place", ["../secret", "/etc/hostname", "sub/../../secret"])
def test_weights_outside_the_models_folder_are_not_opened(tmp_path, place):
    (tmp_path / "secret").write_bytes(np.float32(7).tobytes())
    (tmp_path / "in").mkdir()
    with pytest.raises(UbhpdError, match="outside its folder: it is not opened"):
        opened(onnx_file(tmp_path / "in" / "m.onnx", external=place))


def test_weights_beside_the_model_are_read_unless_missing_or_too_large(tmp_path, monkeypatch):
    path = onnx_file(tmp_path / "m.onnx", external="w.bin")
    with pytest.raises(UbhpdError, match="is not beside it: get that file, too"):
        opened(path)
    (tmp_path / "w.bin").write_bytes(np.float32(0.5).tobytes())
    np.testing.assert_allclose(opened(path).poses(crops())[0], 0.5 * crops().mean(axis=(1, 2)), rtol=1e-5)
    monkeypatch.setattr("ubhpd.inference.foreign._MOST_EXTERNAL_BYTES", 3)
    with pytest.raises(UbhpdError, match="of weights in other files"):
        opened(path)


def test_damaged_files_and_unknown_operators_are_one_sentence(tmp_path):
    whole = onnx_file(tmp_path / "m.onnx").read_bytes()
    damaged = {"cut": whole[: len(whole) // 2], "html": b"<html>", "op": whole.replace(b"ReduceMean", b"ReduceMxxx")}
    for name, content in damaged.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        with pytest.raises(UbhpdError, match=rf"{name}\.onnx") as raised:
            opened(path)
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 400
    with pytest.raises(UbhpdError, match="There is no file"):
        opened(tmp_path / "none.onnx")


# predict


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_predict_takes_an_onnx_file_and_records_it(built, tmp_path, ubhpd):
    model = onnx_file(tmp_path / "m.onnx", scale=0.01)
    assert "How " in ubhpd("predict", "--onnx", model, "--manifest", built, "--out", tmp_path / "p.csv")[2]
    (tmp_path / "m.io.toml").write_text(io_file.as_toml(IO))
    code, out, err = ubhpd("predict", "--onnx", model, "--manifest", built, "--out", tmp_path / "p.csv")
    assert code == 0 and "24 heads predicted" in out, err
    assert f"24 heads in {built / 'pool.parquet'}: 24 predicted, 0 left out, 0 refused" in out
    about = json.loads((tmp_path / "p.json").read_text())
    assert about["model"] == "m" and about["io"]["input"]["crop"] == "square" and len(about["weights"]) == 64
    first = rows_of(tmp_path / "p.csv")
    other = ("--io", tmp_path / "m.io.toml", "--crop", "none", "--out", tmp_path / "q.csv")
    code, out, err = ubhpd("predict", "--onnx", model, "--manifest", built, *other)
    assert code == 0 and json.loads((tmp_path / "q.json").read_text())["crop"] == "none"
    assert [r["sample_id"] for r in first] == [r["sample_id"] for r in rows_of(tmp_path / "q.csv")]
    assert first != rows_of(tmp_path / "q.csv")


def test_heads_without_a_finite_output_are_left_out_by_name(built, tmp_path, ubhpd):
    model = onnx_file(tmp_path / "m.onnx", scale=float("nan"))
    (tmp_path / "m.io.toml").write_text(io_file.as_toml(IO))
    code, out, _ = ubhpd("predict", "--onnx", model, "--manifest", built, "--out", tmp_path / "p.csv")
    assert code == 1 and "24 left out" in out


MODULE = """
import numpy as np
def angles(crops):
    return crops.mean(axis=(1, 2)) / 10
def matrices(crops):
    return np.tile(np.eye(3), (len(crops), 1, 1))
def fails(crops):
    raise KeyError("no weights")
def short(crops):
    return np.zeros((1, 3))
text = "no function"
"""


def test_predict_takes_a_python_function(built, tmp_path, ubhpd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mymodel_for_test.py").write_text(MODULE)
    code, _, err = ubhpd("predict", "--python", "mymodel_for_test:angles", "--manifest", built, "--out", "p.csv")
    assert code == 0, err
    assert str(tmp_path) not in sys.path
    assert ubhpd("predict", "--python", "mymodel_for_test:matrices", "--manifest", built, "--out", "q.csv")[0] == 0
    assert {float(r["yaw"]) for r in rows_of(tmp_path / "q.csv")} == {0.0}
    for name, sentence in (
        ("mymodel_for_test:fails", "KeyError|no weights"),
        ("mymodel_for_test:short", "a row a crop"),
        ("mymodel_for_test:text", "has no function"),
        ("mymodel_for_test:none", "has no function"),
        ("no_such_module:f", "cannot be imported"),
        ("nothing", "as module:function"),
    ):
        code, _, err = ubhpd("predict", "--python", name, "--manifest", built, "--out", "r.csv")
        assert code == 2 and len(err.strip().splitlines()) == 1, err
        assert re.search(sentence, err), err
    del sys.modules["mymodel_for_test"]


def test_the_python_api_takes_a_callable(built):
    import ubhpd

    table = ubhpd.predict(data=built / "pool.parquet", python=lambda crops: np.zeros((len(crops), 3)), progress=False)
    assert len(table) == 24 and (table[["yaw", "pitch", "roll"]] == 0).all().all()


def test_exactly_one_model_is_needed(built, tmp_path, ubhpd):
    out = ("--manifest", built, "--out", tmp_path / "p.csv")
    assert "One model is needed, found none" in ubhpd("predict", *out)[2]
    assert "--onnx and --python" in ubhpd("predict", "--onnx", "a.onnx", "--python", "a:b", *out)[2]
    assert "leave it out" in ubhpd("predict", "--python", "a:b", "--model", "hopenet", *out)[2]


# inspect


class Encoded:
    """A model that knows the pose of every head by its crop, and gives it in some form; stands in for a trained one."""

    def __init__(self, built, form, colour="BGR"):
        from ubhpd.inference.inspecting import _labelled

        labelled = _labelled(built, 32, ("RGB", "BGR"), 200)
        known = labelled.crops["fsanet-0.6", colour]
        self.pose = {known[i].tobytes(): form(labelled.angles[i : i + 1]) for i in range(24)}

    def session(self):
        from ubhpd.inference.foreign import Session

        def run(name, values):
            pixels = np.moveaxis(values * 128 + 127.5, 1, -1)
            is_whole = np.abs(pixels - np.rint(pixels)).max(axis=(1, 2, 3)) < 0.01
            codes = np.rint(pixels).clip(0, 255).astype(np.uint8)
            known = [self.pose.get(c.tobytes()) if w else None for c, w in zip(codes, is_whole, strict=True)]
            return {"out": np.concatenate([np.full((1, 3), 45.0) if k is None else k for k in known])}

        return Session({"image": (None, 3, 32, 32)}, {"out": (None, 3)}, run)


def test_inspect_finds_crop_colour_range_and_reading(built, tmp_path, monkeypatch, ubhpd):
    """The model takes (BGR - 127.5) / 128 of fsanet-0.6 and gives roll, -yaw, pitch in radians."""
    encoded = Encoded(built, lambda a: np.radians(a[:, [2, 0, 1]] * [1, -1, 1]))
    monkeypatch.setattr("ubhpd.inference.inspecting.opened", lambda *_: encoded.session())
    monkeypatch.setattr("ubhpd.inference.foreign.opened", lambda *_: encoded.session())
    # The right crop gives nothing with another colour or range, so the right ones must be tried with every crop.
    monkeypatch.setattr("ubhpd.inference.inspecting.CROPS", ("fsanet-0.6", "square", "square-1.4"))
    (tmp_path / "m.onnx").write_bytes(b"")
    code, out, err = ubhpd("onnx", "inspect", tmp_path / "m.onnx", "--manifest", built, "--quiet")
    assert code == 0, err
    (tmp_path / "io.toml").write_text(out)
    io = io_file.read(tmp_path / "io.toml")
    assert (io.input.crop, io.input.colour, io.input.mean, io.input.std) == ("fsanet-0.6", "BGR", (127.5,), (128.0,))
    assert io.output[0].order == ("roll", "yaw", "pitch") and io.output[0].signs == (1.0, -1.0, 1.0)
    assert io.output[0].unit == "radians"
    assert ubhpd("onnx", "inspect", tmp_path / "m.onnx", "--manifest", built, "--out", tmp_path / "o.toml")[0] == 0
    assert (tmp_path / "o.toml").read_text() == out


def test_inspect_refuses_what_it_cannot_read(built, tmp_path, ubhpd):
    path = onnx_file(tmp_path / "two.onnx", shape=("n", 3, 32, 48))
    code, _, err = ubhpd("onnx", "inspect", path, "--manifest", built)
    assert code == 2 and "no square image" in err
    code, out, _ = ubhpd("onnx", "inspect", onnx_file(tmp_path / "m.onnx"), "--manifest", built, "--quiet")
    assert code == 1 and "kind" in out  # the best reading of a model that knows nothing is still far off
    assert "did you mean" in ubhpd("onnx", "list", "--nothing")[2] or ubhpd("onnx", "list")[1].count("\n") >= 7


@needs("weights/foreign")
@needs("AFLW2000")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("io", "files", "mae"),
    [
        ("fsanet-pytorch", ["fsanet-pytorch-1x1-iter-688590.onnx"], 5.34),
        ("fsanet-pytorch", ["fsanet-pytorch-var-iter-688590.onnx"], 5.48),
        ("fsanet-pytorch", ["fsanet-pytorch-1x1-iter-688590.onnx", "fsanet-pytorch-var-iter-688590.onnx"], 5.16),
        ("opentrack", ["opentrack-head-pose-0.4-small-int8.onnx"], 3.28),
        ("openvino-adas-0001", ["openvino-head-pose-adas-0001.xml"], 8.49),
    ],
)
def test_real_models_of_others_reach_their_known_errors(tmp_path, io, files, mae):
    import ubhpd

    if files[0].endswith(".xml"):
        pytest.importorskip("openvino")
    roots = {"aflw2000": REAL / "AFLW2000"}
    made = ubhpd.build("aflw2000", roots=roots, out=tmp_path / "out", pool_only=True, progress=False)
    table = ubhpd.predict(data=made, onnx=[REAL / "weights/foreign" / f for f in files], io=io, progress=False)
    score = ubhpd.score(table, made)
    assert len(table) == 1969 and score["mae"] == pytest.approx(mae, abs=0.015)


# In bench


@pytest.fixture(scope="module")
def trained_and_tested(tmp_path_factory):
    """A build of 12 heads of 300W-LP's layout and 8 of AFLW2000's; read only."""
    root = tmp_path_factory.mktemp("bench-onnx")
    w300lp_writer.write(root / "raw", 6, views=2, distinct_images=3)
    aflw2000_writer.write(root / "raw", 8, distinct_images=2)
    build(BuildConfig(("300wlp", "aflw2000"), root / "out", str(root / "raw")))
    return root / "out"


def bench_onnx(ubhpd, build, out, *more):
    return ubhpd(
        "bench", "--protocols", "300wlp_aflw2000_2000", "--data", build, "--out", out, "--device", "cpu", *more
    )


def test_bench_takes_onnx_files_beside_models_and_the_leaderboard_ranks_them(trained_and_tested, tmp_path, ubhpd):
    pytest.importorskip("torch")
    from ubhpd.leaderboards.result import read

    model = onnx_file(tmp_path / "my net.onnx", scale=0.01)
    (tmp_path / "my.io.toml").write_text(io_file.as_toml(IO))
    models = ("--models", f"mean_pose,onnx:{model}", "--io", tmp_path / "my.io.toml", "--trained-on", "my-net=300W-LP")
    code, out, err = bench_onnx(ubhpd, trained_and_tested, tmp_path / "r", *models, "--speed", 4)
    assert code == 0 and "2 results written" in out, err
    path = next((tmp_path / "r" / "300wlp_aflw2000_2000").glob("my-net-*imported.json"))
    result = read(path)
    assert (result.model, result.training.how, result.training.declared) == ("my-net", "imported", "300W-LP")
    assert result.coverage == 1.0 and result.speed.images_per_second > 0 and result.options["input"]["size"] == 32
    predicted = ubhpd("predict", "--onnx", model, "--io", tmp_path / "my.io.toml", "--manifest", tmp_path / "r" /
                      "300wlp_aflw2000_2000" / "test", "--out", tmp_path / "p.csv")  # fmt: skip
    assert predicted[0] == 0 and rows_of(tmp_path / "p.csv") == rows_of(path.with_name(result.predictions))
    assert (
        "0 results written, 2 kept" in bench_onnx(ubhpd, trained_and_tested, tmp_path / "r", *models, "--speed", 4)[1]
    )
    board = ubhpd("leaderboard", tmp_path / "r")[1]
    assert "my-net" in board and "imported weights" in board
    onnx_file(model, scale=0.02)  # another file of the same name is another result
    assert (
        "1 results written, 1 kept" in bench_onnx(ubhpd, trained_and_tested, tmp_path / "r", *models, "--speed", 4)[1]
    )
    assert read(path).training.weights_sha256 != result.training.weights_sha256


def test_bench_says_in_one_sentence_what_is_wrong_with_an_onnx_model(trained_and_tested, tmp_path, ubhpd):
    model = onnx_file(tmp_path / "net.onnx", scale=0.01)
    same = onnx_file((tmp_path / "other").mkdir() or tmp_path / "other" / "net.onnx")
    (tmp_path / "io.toml").write_text(io_file.as_toml(IO))
    own, io = ("--models", f"onnx:{model}"), ("--io", tmp_path / "io.toml")
    for arguments, sentence in (
        (own, "How "),
        (("--models", f"onnx:{tmp_path / 'absent.onnx'}", *io), "There is no file"),
        (("--models", "onnx:", *io), "names no file"),
        (("--models", f"onnx:{model},onnx:{same}", *io), "rename the file"),
        (("--models", f"onnx:{onnx_file(tmp_path / 'whenet.onnx')}", *io), "as a model of ubhpd is"),
        (("--models", "mean_pose", *io), "leave it out"),
        ((*own, "--io", f"nat={tmp_path / 'io.toml'}"), "nat has an IO file"),
        ((*own, *io, "--io", "opentrack"), "is given twice"),
        ((*own, "--io", "opentrak"), "There is no IO file 'opentrak'"),
        ((*own, *io, "--weights", f"net={model}"), "net has an option or weights"),
    ):
        code, _, err = bench_onnx(ubhpd, trained_and_tested, tmp_path / "r", *arguments)
        assert code == 2 and sentence in err and len(err.strip().splitlines()) == 1, (arguments, err)
    assert not list((tmp_path / "r").rglob("*.json"))
    onnx_file(tmp_path / "nan.onnx", scale=float("nan"))
    code, _, err = bench_onnx(
        ubhpd, trained_and_tested, tmp_path / "r", "--models", f"onnx:{tmp_path / 'nan.onnx'}", *io, "--quiet"
    )
    assert code == 1 and "nan gave no prediction" in err, err
