"""`ubhpd predict`: the file holds what the network says of the crops, whatever happens on the way."""

import csv
import json
import shutil

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from ubhpd import manifest
from ubhpd.core import rotation
from ubhpd.core.errors import UbhpdError
from ubhpd.core.progress import Progress
from ubhpd.images.crops import RECIPES, crop, crop_box, placed
from ubhpd.images.reading import Images
from ubhpd.inference import prediction_file
from ubhpd.inference.image_source import drawer
from ubhpd.inference.manifest_source import ManifestSource, read_plan
from ubhpd.inference.network_predictor import FromPixels, NetworkPredictor
from ubhpd.inference.prediction_file import Drawable, Speed
from ubhpd.manifest.schema import COLUMNS
from ubhpd.models.geometric_model import GeometricMethod, heads_of
from ubhpd.models.model import Model
from ubhpd.pool.build import BuildConfig, build
from ubhpd.synth.writers import biwi_writer, upna_writer, w300lp_writer

MODEL = "fsanet_metric_wo"
QUIET = Progress(show=False)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A build with images, frames of recordings and videos; read only."""
    root = tmp_path_factory.mktemp("predict")
    w300lp_writer.write(root / "raw", 4, views=2, distinct_images=4)
    biwi_writer.write(root / "raw", (1,), frames=5, with_depth=False)
    upna_writer.write(root / "raw", (1, 2), (1,), frames=3)
    build(BuildConfig(("300wlp", "biwi", "upna"), root / "out", str(root / "raw")))
    return root / "out"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    Model.untrained(MODEL, seed=1).save(path)
    return path


def usable(built):
    return [r for r in manifest.read(built / "pool.parquet").to_pylist() if r["drop_reason"] is None]


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def angles(rows):
    return np.array([[float(r[a]) for a in ("yaw", "pitch", "roll")] for r in rows])


def crop_by_hand(built, row, recipe):
    image = Images.of_build(built).image(row["dataset"], row["image_path"], row["frame_index"])
    how = RECIPES[recipe.crop_for(row["dataset"])]
    return crop(image, crop_box(row, how), how, recipe.size, recipe.colour)


def rewritten(built, out, change):
    """Return a copy of the pool in which `change` has changed the rows."""
    out.mkdir()
    shutil.copy(built / "build.json", out)
    rows = change(usable(built))
    columns = pa.table({c.name: pa.array([r[c.name] for r in rows], c.type) for c in COLUMNS})
    manifest.write_parquet([columns], out / "pool.parquet")
    return out / "pool.parquet"


def test_every_head_gets_what_the_network_says_of_its_crop(built, weights, tmp_path, ubhpd):
    code, out, _ = ubhpd("predict", "--weights", weights, "--manifest", built / "pool.parquet",
                         "--out", tmp_path / "p.csv", "--device", "cpu")  # fmt: skip
    found, rows = table(tmp_path / "p.csv"), usable(built)
    assert code == 0 and f"{len(rows)} heads predicted" in out
    assert [r["sample_id"] for r in found] == [r["sample_id"] for r in rows]
    model = Model.of_checkpoint(weights)
    crops = np.stack([crop_by_hand(built, r, model.recipe) for r in rows])
    with torch.inference_mode():
        wanted = model.network(torch.from_numpy(crops).permute(0, 3, 1, 2).float())
    assert np.allclose(angles(found), model.network.pose(wanted).numpy(), atol=1e-3)
    about = json.loads((tmp_path / "p.json").read_text())
    assert (about["model"], about["judged"], about["left_out"]) == (MODEL, len(rows), 0)
    assert {p.name for p in tmp_path.iterdir()} == {"p.csv", "p.json"}


def test_the_file_can_be_scored(built, weights, tmp_path, ubhpd):
    ubhpd("predict", "--weights", weights, "--manifest", built / "pool.parquet", "--out", tmp_path / "p.csv")
    code, out, err = ubhpd("score", tmp_path / "p.csv", "--manifest", built / "pool.parquet", "--json", "-")
    assert code == 0, err
    assert json.loads(out)["coverage"]


def test_matrices_and_angles_are_the_same_poses(built, weights, tmp_path, ubhpd):
    common = ("predict", "--weights", weights, "--manifest", built / "pool.parquet", "--out")
    ubhpd(*common, tmp_path / "a.csv")
    ubhpd(*common, tmp_path / "m.csv", "--as", "matrix")
    matrices = [[float(r[c]) for c in prediction_file.MATRIX] for r in table(tmp_path / "m.csv")]
    wanted = rotation.matrix_from_euler(angles(table(tmp_path / "a.csv")))
    assert np.allclose(np.reshape(matrices, (-1, 3, 3)), wanted, atol=1e-5)


def run(built, weights, out, path=None, judge=None, draw=None):
    """Predict in units of a few heads; `judge` may get in between."""
    model = Model.of_checkpoint(weights)
    source = ManifestSource(read_plan(path or built / "pool.parquet", model.recipe, None), built, model.recipe, "crops")
    own = NetworkPredictor(model).poses
    return prediction_file.predict(
        source, judge(own) if judge else own, out, {"weights": str(weights)}, QUIET, draw=draw
    )


@pytest.fixture
def small_units(monkeypatch):
    monkeypatch.setattr("ubhpd.inference.manifest_source.BATCH_HEADS", 4)


def stopping_after(batches):
    def judge(own):
        left = iter(range(batches))

        def stop(inputs):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return own(inputs)

        return stop

    return judge


@pytest.mark.parametrize("tail", ["", "300wlp/torn,1.0,2"])
def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(built, weights, tmp_path, small_units, tail):
    run(built, weights, tmp_path / "whole.csv")
    with pytest.raises(KeyboardInterrupt):
        run(built, weights, tmp_path / "p.csv", judge=stopping_after(2))
    assert not (tmp_path / "p.csv").exists()
    with (tmp_path / ".p.csv.part").open("a") as part:
        part.write(tail)
    assert run(built, weights, tmp_path / "p.csv").kept == 8
    assert (tmp_path / "p.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_run_of_other_weights_does_not_go_on_with_what_is_there(built, weights, tmp_path, small_units):
    with pytest.raises(KeyboardInterrupt):
        run(built, weights, tmp_path / "p.csv", judge=stopping_after(2))
    Model.untrained(MODEL, seed=2).save(tmp_path / "other.safetensors")
    assert run(built, tmp_path / "other.safetensors", tmp_path / "p.csv").kept == 0


def test_a_head_that_cannot_be_read_is_named_and_the_others_stay(built, weights, tmp_path, ubhpd):
    broken = tmp_path / "raw"
    shutil.copytree(built.parent / "raw", broken)
    build(BuildConfig(("300wlp", "biwi", "upna"), tmp_path / "out", str(broken)))
    images = sorted(p for p in broken.rglob("*.jpg") if "300W_LP" in str(p) or "300w" in str(p).lower())
    images[0].write_bytes(images[0].read_bytes()[:700])
    images[1].unlink()
    code, out, _ = ubhpd(
        "predict", "--weights", weights, "--manifest", tmp_path / "out/pool.parquet", "--out", tmp_path / "p.csv"
    )
    problems = table(tmp_path / "p.problems.csv")
    assert code == 1 and "2 left out" in out
    assert "does not decode" in problems[0]["reason"] and "cannot be read" in problems[1]["reason"]
    heads = {r["sample_id"] for r in usable(tmp_path / "out")}
    assert {r["sample_id"] for r in table(tmp_path / "p.csv")} == heads - {p["sample_id"] for p in problems}


def test_heads_without_a_box_or_with_another_image_are_named(built, weights, tmp_path, ubhpd):
    def change(rows):
        rows[0].update(bbox_xyxy=None, landmarks68=None, landmarks21=None)
        rows[1].update(image_width=rows[1]["image_width"] + 1)
        rows[2].update(bbox_xyxy=[-90.0, -90.0, -80.0, -80.0], landmarks68=None, landmarks21=None)
        return rows

    path = rewritten(built, tmp_path / "changed", change)
    code, _, _ = ubhpd("predict", "--weights", weights, "--manifest", path, "--out", tmp_path / "p.csv")
    reasons = [p["reason"] for p in table(tmp_path / "p.problems.csv")]
    assert code == 1 and len(reasons) == 3
    assert "no face box" in reasons[0] and "the manifest says" in reasons[1] and "no face box" in reasons[2]


def test_a_pose_that_is_not_finite_is_left_out(built, weights, tmp_path):
    def judge(own):
        def some(inputs):
            found = own(inputs)
            found[0][0] = np.nan
            return found

        return some

    report = run(built, weights, tmp_path / "p.csv", judge=judge)
    assert len(report.problems) == 1 and "no finite pose" in report.problems[0][1]


def test_a_sequence_is_made_of_the_frames_that_lead_up_to_a_head(built, tmp_path):
    model = Model.untrained("vgg16_rnn", {"size": "32", "frames": "3"})
    plan = read_plan(built / "pool.parquet", model.recipe, None)
    ids = plan.texts["sample_id"]
    window = plan.before(3)
    first = ids.index(next(r["sample_id"] for r in usable(built) if r["dataset"] == "biwi"))
    assert window[first].tolist() == [first] * 3
    assert window[first + 1].tolist() == [first, first, first + 1]
    assert window[first + 3].tolist() == [first + 1, first + 2, first + 3]
    source = ManifestSource(plan, built, model.recipe, "crops")
    batch = next(source.batches((), False))
    assert batch.inputs.shape == (len(ids), 3, 32, 32, 3)
    assert (batch.inputs[first + 3, 0] == batch.inputs[first + 1, 2]).all()
    poses, _ = NetworkPredictor(model).poses(batch.inputs)
    assert poses.shape == (len(ids), 3)


def test_landmarks_reach_a_model_in_the_frame_of_its_crop(built):
    recipe = Model.untrained(MODEL).recipe
    plan = read_plan(built / "pool.parquet", recipe, None)
    batch = next(ManifestSource(plan, built, recipe, "landmarks").batches((), False))
    row = next(r for r in usable(built) if r["landmarks_kind"] == "ibug68")
    how = RECIPES[recipe.crop]
    points = placed(np.reshape(row["landmarks68"], (68, 2)), crop_box(row, how), how, recipe.size)
    assert np.allclose(
        batch.inputs[batch.sample_id.index(row["sample_id"])], points / recipe.size - 0.5, equal_nan=True
    )
    assert {"300wlp", "biwi", "upna"} == {name.partition("/")[0] for name, _ in batch.problems}


def test_a_geometric_method_predicts_without_images(built, tmp_path, ubhpd):
    heads = heads_of(manifest.read(built / "pool.parquet"))
    GeometricMethod.fitted("mean_pose", {}, heads, {}).save(tmp_path / "m.safetensors")
    code, _, _ = ubhpd("predict", "--weights", tmp_path / "m.safetensors", "--manifest", built / "pool.parquet",
                       "--out", tmp_path / "p.csv")  # fmt: skip
    assert code == 0
    assert np.allclose(angles(table(tmp_path / "p.csv")), np.nanmean(heads.angles_deg, axis=0), atol=1e-5)


@pytest.fixture
def folder(tmp_path):
    """Three images, one of which is none, and one in a folder of its own."""
    pixels = np.random.default_rng(0).integers(0, 255, (90, 80, 3), dtype=np.uint8)
    (tmp_path / "in/b").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "in/a.png"), pixels)
    cv2.imwrite(str(tmp_path / "in/b/c.png"), pixels[:, ::-1])
    (tmp_path / "in/no.jpg").write_bytes(b"no image")
    return tmp_path / "in"


def test_a_folder_of_images(folder, weights, tmp_path, ubhpd):
    (folder / "notes.txt").touch()
    cv2.imwrite(str(folder / "b_c.png"), np.zeros((90, 80, 3), np.uint8))  # drawn beside b/c.png, not over it
    code, out, _ = ubhpd("predict", "--weights", weights, "--images", folder, "--detector", "none",
                         "--out", tmp_path / "p.csv", "--draw", tmp_path / "drawn")  # fmt: skip
    assert "5 files found: 4 images, 1 passed over: 1 with the suffix .txt" in out
    found = table(tmp_path / "p.csv")
    assert code == 1
    assert [(r["sample_id"], r["x0"], r["x1"], r["y1"]) for r in found] == [
        ("a.png", "0.0", "80.0", "90.0"),
        ("b/c.png", "0.0", "80.0", "90.0"),
        ("b_c.png", "0.0", "80.0", "90.0"),
    ]
    assert [p["sample_id"] for p in table(tmp_path / "p.problems.csv")] == ["no.jpg"]
    drawn = sorted(p.relative_to(tmp_path / "drawn").as_posix() for p in (tmp_path / "drawn").rglob("*.jpg"))
    assert drawn == ["a.png.jpg", "b/c.png.jpg", "b_c.png.jpg"]


def test_names_that_are_no_paths_are_drawn_to_files_of_their_own(tmp_path):
    names = ["../x", "/x", "x", "..", ".x", "a\\b", "a_b", "a//b", "a/b", "n" * 300, "n" * 301, "v.mp4:1#2", "\n"]
    draw = drawer(tmp_path / "drawn")
    for name in names:
        draw(name, Drawable(np.zeros((9, 9, 3), np.uint8), (1, 1, 8, 8)), np.eye(3))
    assert len(list((tmp_path / "drawn").rglob("*.jpg"))) == len(names)
    assert [p.name for p in tmp_path.iterdir()] == ["drawn"]


@pytest.mark.parametrize("form", ["angles", "matrix"])
def test_a_video_is_drawn_as_a_video(weights, tmp_path, ubhpd, form):
    video = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 7.0, (96, 64))
    for _ in range(5):
        writer.write(np.full((64, 96, 3), 200, np.uint8))
    writer.release()
    code, out, _ = ubhpd("predict", "--weights", weights, "--video", video, "--detector", "none", "--as", form,
                         "--out", tmp_path / "p.csv", "--draw", tmp_path / "drawn")  # fmt: skip
    assert code == 0 and f"Video with the poses: {tmp_path / 'drawn/v.avi.mp4'}" in out
    assert [p.name for p in (tmp_path / "drawn").iterdir()] == ["v.avi.mp4"]
    drawn = cv2.VideoCapture(str(tmp_path / "drawn/v.avi.mp4"))
    assert drawn.get(cv2.CAP_PROP_FPS) == pytest.approx(7.0)
    frames = []
    while (found := drawn.read())[0]:
        frames.append(found[1])
    assert len(frames) == 5 and frames[0].shape == (64, 96, 3)
    for frame in frames:
        change = np.abs(frame.astype(int) - 200).max(axis=2)
        assert change.max() > 100 and np.percentile(change, 10) < 10  # lines, and the image beside them


def test_an_image_without_a_face_is_named(folder, weights, tmp_path, ubhpd):
    code, _, _ = ubhpd("predict", "--weights", weights, "--images", folder / "a.png", "--detector", "cascade",
                       "--out", tmp_path / "p.csv")  # fmt: skip
    assert code == 1
    assert "finds no face" in table(tmp_path / "p.problems.csv")[0]["reason"]


def test_a_video_is_predicted_frame_by_frame(built, weights, tmp_path, ubhpd):
    video = next((built.parent / "raw").rglob("*.mp4"))
    code, _, _ = ubhpd(
        "predict", "--weights", weights, "--video", video, "--detector", "none", "--out", tmp_path / "p.csv"
    )
    assert code == 0
    assert [r["frame_index"] for r in table(tmp_path / "p.csv")] == ["0", "1", "2"]


@pytest.mark.parametrize("speed", [Speed(channels_last=True), Speed(half=True)])
def test_what_makes_it_faster_changes_only_the_rounding(weights, speed):
    model = Model.of_checkpoint(weights)
    crops = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    plain, _ = NetworkPredictor(model).poses(crops)
    fast, _ = NetworkPredictor(Model.of_checkpoint(weights), "cpu", speed).poses(crops)
    assert np.allclose(plain, fast, atol=0.2 * np.abs(plain).max() if speed.half else 1e-3)


def test_crops_are_normalised_as_the_recipe_says():
    model = Model.untrained("hopenet", {"size": "32"})
    crops = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    seen = {}
    model.network.register_forward_pre_hook(lambda module, inputs: seen.update(inputs=inputs[0]))
    with torch.inference_mode():
        FromPixels(model.network, model.recipe)(torch.from_numpy(crops))
    wanted = (crops.transpose(0, 3, 1, 2) - np.reshape(model.recipe.mean, (3, 1, 1))) / np.reshape(
        model.recipe.std, (3, 1, 1)
    )
    assert np.allclose(seen["inputs"].numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "One source of heads is needed, found none"),
        (["--camera", "0", "--video", "v.mp4"], "found --video and --camera"),
        (["--images", "x", "--split", "test"], "--split selects heads of a manifest"),
        (["--images", "nowhere", "--detector", "none"], "There is no image or folder nowhere"),
        (["--images", "x", "--model", "hopenet"], "hopenet"),
        (["--images", ".", "--device", "cuda:9"], "There is no device cuda:9"),
        (["--images", ".", "--device", "tpu"], "There is no device 'tpu'"),
        (["--images", ".", "--detector", "eyes"], "No face detector is called 'eyes'"),
        (["--video", "rtsp://host/live", "--detector", "none"], "address of a stream: record it first"),
        (["--camera", "97", "--detector", "none"], "Camera 97 does not open"),
        (["--manifest", "nowhere.parquet"], "nowhere.parquet"),
    ],
)
def test_wrong_requests_are_one_sentence(weights, tmp_path, ubhpd, arguments, sentence):
    code, _, err = ubhpd("predict", "--weights", weights, "--out", tmp_path / "p.csv", *arguments)
    assert code == 2 and sentence in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("split", "sentence"), [("test", "no column 'split'")])
def test_a_split_that_is_not_there(built, split, sentence):
    with pytest.raises(UbhpdError, match=sentence):
        read_plan(built / "pool.parquet", None, split)


def test_a_folder_that_cannot_be_written_to_is_one_sentence(built, weights, tmp_path, ubhpd):
    (tmp_path / "file").write_text("")
    code, _, err = ubhpd(
        "predict", "--weights", weights, "--manifest", built / "pool.parquet", "--out", tmp_path / "file/p.csv"
    )
    assert code == 2 and "make room or name another --out" in err and err.count("\n") == 1


def test_a_memory_that_is_too_small_gets_fewer_heads_at_a_time(weights, monkeypatch):
    crops = np.random.default_rng(0).integers(0, 255, (13, 64, 64, 3), dtype=np.uint8)
    wanted, _ = NetworkPredictor(Model.of_checkpoint(weights)).poses(crops)
    predictor = NetworkPredictor(Model.of_checkpoint(weights))
    module, sizes = predictor._module, []

    def small(batch, most=3):
        sizes.append(len(batch))
        if len(batch) > most:
            raise torch.OutOfMemoryError("no room")
        return module(batch)

    monkeypatch.setattr(predictor, "_threads", 1)
    monkeypatch.setattr(predictor, "_module", small)
    found, _ = predictor.poses(crops)
    assert np.allclose(found, wanted, atol=1e-3) and sizes == [13, 6, 3, 3, 3, 3, 1]
    monkeypatch.setattr(predictor, "_module", lambda batch: small(batch, most=0))
    with pytest.raises(UbhpdError, match="too small for one head"):
        predictor.poses(crops)


def test_cores_that_take_blocks_each_for_itself_give_the_same_in_order(weights, monkeypatch):
    crops = np.random.default_rng(0).integers(0, 255, (50, 64, 64, 3), dtype=np.uint8)
    alone, spread = (NetworkPredictor(Model.of_checkpoint(weights)) for _ in range(2))
    monkeypatch.setattr(alone, "_threads", 1)
    monkeypatch.setattr(spread, "_threads", 2)
    assert np.allclose(alone.poses(crops)[0], spread.poses(crops)[0], atol=1e-3)


def test_the_ground_truth_is_drawn_beside_the_prediction(built, weights, tmp_path, ubhpd):
    given = ("predict", "--weights", weights, "--manifest", built, "--device", "cpu")
    plain, both = tmp_path / "plain", tmp_path / "both"
    assert ubhpd(*given, "--out", tmp_path / "p.csv", "--draw", plain)[0] in (0, 1)
    code, out, err = ubhpd(*given, "--out", tmp_path / "q.csv", "--draw", both, "--truth", "--grid", 3)
    assert code in (0, 1), err
    assert f"Grid of the drawings: {both / 'grid.jpg'}" in out
    names = sorted(p.relative_to(plain) for p in plain.rglob("*.jpg"))
    assert names == sorted(p.relative_to(both) for p in both.rglob("*.jpg") if p.name != "grid.jpg") and len(names) > 3
    single, double = (cv2.imread(str(folder / names[0])).astype(int) for folder in (plain, both))
    height, width = single.shape[:2]
    assert double.shape == (height, 2 * width, 3)
    above = slice(0, height // 2)  # of the words below
    assert np.abs(double[above, :width] - single[above]).mean() < 2
    assert np.abs(double[above, width:] - single[above]).max() > 60  # another pose
    grid = cv2.imread(str(both / "grid.jpg"))
    assert grid.shape[0] % 240 == 0 and grid.shape[0] * grid.shape[1] >= 3 * 240 * 480
    for wrong, words in (
        (("--truth",), "--truth is about drawings: give --draw DIR"),
        (("--grid", 2), "--grid is about drawings"),
    ):
        code, _, err = ubhpd(*given, "--out", tmp_path / "r.csv", *wrong)
        assert code == 2 and words in err
    code, _, err = ubhpd("predict", "--weights", weights, "--images", plain, "--out", tmp_path / "r.csv", "--draw",
                         tmp_path / "d", "--truth", "--device", "cpu")  # fmt: skip
    assert code == 2 and "--truth draws the pose that a manifest states" in err
