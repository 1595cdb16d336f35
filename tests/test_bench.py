"""`ubhpd bench`: from a build to results, end to end for geometric methods, with a stand-in for the training of
networks."""

import importlib.util
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.core.progress import Progress, log_level
from ubhpd.evaluation.scoring import score_arrays
from ubhpd.experiments import benchmark, plan
from ubhpd.experiments.benchmark import bench
from ubhpd.experiments.plan import BenchRequest, HowToTrain, protocol_ids, runs_of
from ubhpd.images.landmarks import POINT_COLUMNS, FillConfig, fill_landmarks
from ubhpd.leaderboards.result import read
from ubhpd.pool.build import BuildConfig, build
from ubhpd.protocols.definitions import SHORT_NAMES
from ubhpd.protocols.resolve import PROTOCOLS, resolve
from ubhpd.synth.writers import aflw2000_writer, biwi_writer, w300lp_writer

QUIET = Progress(show=False)
NETWORK = "fsanet_metric_wo"
needs_safetensors = pytest.mark.skipif(
    importlib.util.find_spec("safetensors") is None, reason="checkpoints need safetensors: pip install safetensors"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("bench")
    biwi_writer.write(root / "raw", range(1, 25), frames=2, with_depth=False)
    w300lp_writer.write(root / "raw", 6, views=3, distinct_images=3)
    aflw2000_writer.write(root / "raw", 8, distinct_images=2)
    build(BuildConfig(("biwi", "300wlp", "aflw2000"), root / "out", str(root / "raw")))
    return root / "out"


def done(data, out, models=("mean_pose",), protocols=("biwi_70_30_subjects",), **rest):
    """Return the report and the lines logged."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("ubhpd")
    logger.addHandler(handler)
    try:
        with log_level(logging.INFO):
            report = bench(BenchRequest(models, protocols, data, out, **rest), QUIET)
    finally:
        logger.removeHandler(handler)
    return report, lines


def truth(data, ids):
    frame = manifest.read(data / "pool.parquet").to_pandas().set_index("sample_id")
    return frame.loc[list(ids), ["yaw_deg", "pitch_deg", "roll_deg"]].to_numpy()


# Geometric methods, end to end


@needs_safetensors
def test_a_geometric_method_is_fitted_to_the_training_side_and_scored_on_the_test_side(data, tmp_path):
    report, _ = done(data, tmp_path)
    (path,) = report.written
    found, heads = read(path), resolve("biwi_70_30_subjects", data)
    mean = truth(data, heads.train).mean(axis=0)
    table = pd.read_csv(path.parent / found.predictions)
    assert set(table.sample_id) == set(heads.test)
    assert np.allclose(table[["yaw", "pitch", "roll"]], mean, atol=1e-5)
    true = truth(data, heads.test)
    expected = score_arrays(np.broadcast_to(mean, true.shape), true)
    assert found.scores["mae"].value == pytest.approx(expected["mae"], abs=1e-5)
    assert found.scores["mae"].low < found.scores["mae"].value < found.scores["mae"].high
    # the mean pose is the floor, so here both are the same
    for name, value in found.floor.scores.items():
        assert found.scores[name].value == pytest.approx(value, abs=1e-4), name
    assert {a: sum(b) for a, b in found.test.bins.items()} == dict.fromkeys(("yaw", "pitch", "roll"), len(true))
    assert (found.train.names_sha256, found.test.names_sha256) == (heads.hashes["train"], heads.hashes["test"])
    assert found.training.how == "fitted" and found.training.heads == len(heads.train)
    assert (found.seed, found.parameters, found.torch, found.coverage) == (None, None, None, 1.0)


@needs_safetensors
def test_a_second_run_keeps_what_is_done_and_a_changed_one_is_done_again(data, tmp_path):
    first, _ = done(data, tmp_path)
    before = first.written[0].read_bytes()
    again, said = done(data, tmp_path)
    assert (again.written, again.kept, said) == ((), first.written, [])
    (first.written[0].parent / read(first.written[0]).predictions).write_text("sample_id,yaw,pitch,roll\n")
    assert done(data, tmp_path)[0].written == first.written
    first.written[0].write_text(first.written[0].read_text().replace('"seed": null', '"seed": 1', 1))
    assert done(data, tmp_path)[0].written == first.written
    assert first.written[0].read_bytes() == before


@needs_safetensors
def test_another_seed_of_the_protocol_is_another_input(data, tmp_path):
    first = done(data, tmp_path, protocols=("biwi_16_8_drawn",))[0]
    old = read(first.written[0])
    second = done(data, tmp_path, protocols=("biwi_16_8_drawn",), protocol_seed=1)[0]
    new = read(second.written[0])
    assert first.written == second.written and old.group != new.group and old.inputs != new.inputs


@needs_safetensors
def test_options_make_other_files(data, tmp_path):
    one = done(data, tmp_path)[0].written
    two = done(data, tmp_path, options={"mean_pose": {"of": "median"}})[0].written
    assert one != two and read(two[0]).options == {"of": "median"} and read(two[0]).chosen == {"of": "median"}


@needs_safetensors
def test_intervals_resample_people_where_enough_are_known(data, tmp_path):
    """BIWI has 20 people in 24 recordings: the test split of the 16-8 division has 8 recordings, too few."""
    both = plan.splits_of("300wlp_biwi_15678", data)
    assert plan.resampled(both.test_rows) == "subjects"
    assert plan.resampled(plan.splits_of("biwi_16_8_drawn", data).test_rows) == "samples"
    path = done(data, tmp_path, protocols=("300wlp_biwi_15678",))[0].written[0]
    own = read(path).resampling
    assert (own.over, own.groups) == ("subjects", 20)


def test_a_head_refused_for_its_angle_is_tested_where_the_protocol_wants_it(data, tmp_path):
    """The test manifest holds every head of the test split as usable, and its fingerprint is the result's."""
    both = plan.splits_of("300wlp_biwi_15678", data)
    path = plan.write_test_manifest(both, data, tmp_path / "test")
    table = manifest.read(path)
    assert set(table.column("sample_id").to_pylist()) == set(both.resolution.test)
    assert table.column("drop_reason").null_count == table.num_rows
    assert manifest.header(path).fingerprint == both.test.fingerprint


# What is asked for


def test_short_names_are_protocols_of_their_series():
    for name, ids in SHORT_NAMES.items():
        assert ids and all(PROTOCOLS[i].series == name for i in ids)
    assert protocol_ids(["2", "biwi_16_8_drawn"]) == {"biwi_16_8_drawn": True, "upna_7_3": False}
    with pytest.raises(UbhpdError, match="no protocol 'x'"):
        protocol_ids(["x"])


@needs_safetensors
def test_a_short_name_passes_over_what_the_data_does_not_have(data, tmp_path):
    report, said = done(data, tmp_path, protocols=("2",))
    assert report.failed == () and len(report.written) == 1
    assert "upna_7_3 is passed over" in said[0]
    report, _ = done(data, tmp_path, protocols=("upna_subjects", "biwi_70_30_subjects"))
    assert [name for name, _ in report.failed] == ["upna_subjects"] and len(report.written) == 1
    assert [name for name, _ in done(data, tmp_path, protocols=("3",))[0].failed] == ["ubhpd"]


def test_a_geometric_method_has_one_run_and_a_network_one_per_seed(data, tmp_path):
    pytest.importorskip("torch")
    request = BenchRequest(("mean_pose", NETWORK), ("1",), data, tmp_path, seeds=(3, 1))
    found = [(r.model, r.protocol_id[-5:], r.seed) for r in runs_of(request)]
    assert found == [
        (m, p, s) for p in ("_1969", "15678") for m, s in (("mean_pose", None), (NETWORK, 3), (NETWORK, 1))
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"models": ()}, "No model is named"),
        ({"models": ("nonsense",)}, "No model is called"),
        ({"models": ("kepler",)}, "printed numbers only"),
        ({"seeds": (-1,)}, "seed -1 is negative"),
        ({"options": {"hopenet": {"alpha": "1"}}}, "hopenet has an option or weights, but is not among --models"),
        ({"options": {"mean_pose": {"off": "mean"}}}, "no option 'off'"),
        ({"train": HowToTrain(epochs=0)}, "epochs is 0"),
        ({"train": HowToTrain(precision="8")}, "precision is '8'"),
        ({"train": HowToTrain(backbone=Path("gone.pth"))}, "There is no file gone.pth"),
        ({"frames": Path("gone.txt")}, "There is no file gone.txt"),
        ({"models": (NETWORK,), "weights": {NETWORK: (Path("gone.h5"),)}}, "There is no file gone.h5"),
        ({"data": Path("gone")}, "gone is no folder of a build"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_runs(data, tmp_path, change, said):
    if NETWORK in change.get("models", ()):
        pytest.importorskip("torch")
    request = replace(BenchRequest(("mean_pose",), ("1",), data, tmp_path / "o"), **change)
    with pytest.raises(UbhpdError, match=said):
        bench(request, QUIET)
    assert not (tmp_path / "o").exists()


# Networks, with a stand-in for training


class Trainer:
    """Writes the untrained network as a training would its weights, and remembers what it was asked for."""

    def __init__(self, fails_on=None):
        self.asked, self.fails_on = [], fails_on

    def __call__(self, request, progress):
        from ubhpd.models.model import Model
        from ubhpd.training.request import WEIGHTS, TrainReport

        self.asked.append(request)
        if request.seed == self.fails_on:
            raise RuntimeError("out of memory")
        path = request.out / WEIGHTS
        about = Model.untrained(request.model, request.options, request.seed).save(path)
        recipe = {"batch_size": 4, "optimizer": "adam", "lr": 0.001, "schedule": "constant", "augmentations": ["flip"]}
        return TrainReport(request.model, path, about.sha256, 10, 2, 1, 9.0, "the best epoch", 30, 3, recipe, {}, {})


@pytest.fixture
def trainer(monkeypatch):
    run = pytest.importorskip("ubhpd.training.run", reason="training needs torch: pip install 'ubhpd[torch]'")
    stand_in = Trainer()
    monkeypatch.setattr(run, "train", stand_in)
    return stand_in


def test_a_network_is_trained_once_for_all_protocols_with_the_same_training_side(data, tmp_path, trainer):
    own = SHORT_NAMES["1"]
    request = {"models": (NETWORK,), "seeds": (0, 1), "device": "cpu", "train": HowToTrain(epochs=2, batch_size=4)}
    report, _ = done(data, tmp_path, protocols=own, **request)
    assert report.failed == ()
    asked = [(r.seed, r.epochs, r.batch_size, r.protocol) for r in trainer.asked]
    assert asked == [(0, 2, 4, own[0]), (1, 2, 4, own[0])]
    assert [(p.parent.name, read(p).seed) for p in report.written] == [(p, s) for p in own for s in (0, 1)]
    found = read(report.written[1])
    assert found.training.selection == "the best epoch" and found.training.augmentations == ("flip",)
    assert found.training.start == "from scratch" and found.input.size == 64 and found.torch.startswith("2.")
    assert found.parameters > 100_000 and found.speed is None
    again, _ = done(data, tmp_path, protocols=own, **request)
    assert len(again.kept) == 4 and len(trainer.asked) == 2
    for path in report.written:
        path.unlink()
    done(data, tmp_path, protocols=own, **request)  # predicts and scores again, with the weights that are there
    assert len(trainer.asked) == 2
    done(data, tmp_path, protocols=own, **{**request, "train": HowToTrain(epochs=3, batch_size=4)})
    assert len(trainer.asked) == 4


def test_a_grid_is_a_run_for_each_combination(data, tmp_path, trainer, ubhpd):
    typed = ("bench", "--models", "dadl,mean_pose", "--protocols", "biwi_70_30_subjects", "--data", data, "--out",
             tmp_path, "--device", "cpu", "-O", "dadl.backbone=mobilenet_v2", "-O", "dadl.size=32")  # fmt: skip
    code, _, err = ubhpd(*typed, "--grid", "dadl.alpha=1,2", "--grid", "dadl.beta=0.5,1,3")
    assert code == 0, err
    asked = [(r.options["alpha"], r.options["beta"]) for r in trainer.asked]
    assert asked == [(a, b) for a in "12" for b in ("0.5", "1", "3")]
    assert all(r.options["size"] == "32" for r in trainer.asked)
    results = [read(p) for p in (tmp_path / "biwi_70_30_subjects").glob("dadl-*.json") if "predictions" not in p.name]
    assert len({(r.options["alpha"], r.options["beta"]) for r in results}) == 6
    assert ubhpd(*typed, "--grid", "dadl.alpha=1,2", "--grid", "dadl.beta=3")[0] == 0 and len(trainer.asked) == 6
    for grid, words in (
        ("hopenet.alpha=1,2", "hopenet has a grid of options, but is not among --models"),
        ("dadl.size=32,64", "dadl.size is in the grid and among the options"),
        ("alpha=1,2", "is not of the form MODEL.KEY=A,B"),
    ):
        code, _, err = ubhpd(*typed, "--grid", grid)
        assert code == 2 and words in err


def test_recipe_values_reach_the_models_they_are_given_for(data, tmp_path, trainer, ubhpd):
    other = "fsanet_metric_1x1"
    how = ("--recipe", "momentum=0.5", "-R", f"{other}.gamma=0.2", "--weight-decay", 0.04, "--as-paper")
    code, _, err = ubhpd("bench", "--models", f"{NETWORK},{other}", "--protocols", "biwi_16_8_drawn", "--data", data,
                         "--out", tmp_path, "--device", "cpu", *how)  # fmt: skip
    assert code == 0, err
    first, second = trainer.asked
    assert (first.model, first.recipe, first.weight_decay, first.as_paper) == (NETWORK, {"momentum": "0.5"}, 0.04, True)
    assert (second.model, second.recipe) == (other, {"momentum": "0.5", "gamma": "0.2"})
    assert (first.validation, first.select) == (0.0, "last")
    request = {"models": (NETWORK, other), "protocols": ("biwi_16_8_drawn",), "device": "cpu"}
    recipe = {"": {"momentum": "0.5"}, other: {"gamma": "0.3"}}
    done(data, tmp_path, **request, train=HowToTrain(weight_decay=0.04, as_paper=True, recipe=recipe))
    assert [r.model for r in trainer.asked[2:]] == [other]  # the recipe of the first is what it was
    with pytest.raises(UbhpdError, match="hopenet has a recipe value, but is not among --models"):
        done(data, tmp_path, **request, train=HowToTrain(recipe={"hopenet": {"gamma": "0.3"}}))


def test_a_run_that_fails_is_told_and_the_others_go_on(data, tmp_path, trainer):
    trainer.fails_on = 0
    report, said = done(data, tmp_path, models=(NETWORK, "mean_pose"), seeds=(0, 1), device="cpu")
    assert len(report.written) == 2
    ((name, reason),) = report.failed
    assert name.endswith("seed0") and reason == "RuntimeError: out of memory"
    assert f"{name} failed: {reason}" in said


def test_no_leaderboard_is_proposed_where_every_run_failed(data, tmp_path, ubhpd):
    typed = (
        "bench",
        "--models",
        "mean_pose",
        "--data",
        only(data, tmp_path / "d", "aflw2000"),
        "--out",
        tmp_path / "r",
    )
    code, out, _ = ubhpd(*typed, "--protocols", "300wlp_aflw2000_1969")
    assert code == 1 and "0 results written, 0 kept from before, 1 failed." in out and "leaderboard" not in out


def test_a_full_disk_is_told_as_such(data, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "Error writing bytes to file. Detail: [errno 28] No space left on device")

    monkeypatch.setattr("ubhpd.experiments.benchmark.write_test_manifest", full)
    ((_, why),) = done(data, tmp_path)[0].failed
    assert why.startswith("Cannot open or write (No space left on device): make room")


def test_weights_that_are_given_are_not_trained(data, tmp_path, trainer):
    from ubhpd.models.model import Model

    Model.untrained(NETWORK, seed=5).save(tmp_path / "w.safetensors")
    request = {"models": (NETWORK,), "weights": {NETWORK: (tmp_path / "w.safetensors",)}, "device": "cpu", "speed": 2}
    (path,) = done(data, tmp_path / "o", **request)[0].written
    found = read(path)
    assert trainer.asked == [] and found.seed is None
    assert found.training.how == "imported" and found.training.start.startswith("w.safetensors ")
    assert found.speed.batch_size == 2 and found.speed.images_per_second > 0 and found.speed.device.startswith("CPU ")
    Model.untrained(NETWORK, seed=6).save(tmp_path / "w.safetensors")
    assert done(data, tmp_path / "o", **request)[0].written == (path,)
    assert read(path).training.weights_sha256 != found.training.weights_sha256


def only(data, folder, dataset):
    """Write a build that holds the heads of one dataset."""
    pool = manifest.read(data / "pool.parquet")
    folder.mkdir()
    shutil.copy(data / "build.json", folder)
    manifest.write_parquet([pool.filter(pc.equal(pool.column("dataset"), dataset))], folder / "pool.parquet")
    return folder


@pytest.mark.parametrize(
    ("declared", "name", "counted"),
    [({}, None, None), ({NETWORK: "300w-lp"}, "300W-LP", "300W-LP"), ({NETWORK: "faces"}, "faces", None)],
    ids=("unknown", "counted", "named"),
)
def test_weights_of_others_need_the_test_split_only(data, tmp_path, trainer, declared, name, counted):
    from ubhpd.models.model import Model

    Model.untrained(NETWORK, seed=5).save(tmp_path / "w.safetensors")
    request = {
        "weights": {NETWORK: (tmp_path / "w.safetensors",)},
        "device": "cpu",
        "trained_on": declared,
        "by": "Ann",
    }
    report, _ = done(only(data, tmp_path / "d", "aflw2000"), tmp_path / "o", models=("mean_pose", NETWORK),
                     protocols=("300wlp_aflw2000_1969",), **request)  # fmt: skip
    ((failed, why),) = report.failed
    assert "mean_pose" in failed and "needs the training split of 300wlp_aflw2000_1969, which is not in" in why
    found = read(report.written[0])
    assert (found.training.declared, found.ubmae_source, found.by) == (name, counted, "Ann")
    assert ("ubmae" in found.scores) == (counted is not None) == all(w is not None for w in found.bins["yaw"].weight)
    assert found.train.heads == 0 and found.floor.scores["mae"] > 0 and "300W-LP" in found.floor.note
    assert [w for w in found.protocol.warnings if w.startswith("The training split")] == []


def test_a_checkpoint_of_ubhpd_declares_its_training_set(data, tmp_path, trainer):
    from ubhpd.models.model import Model

    model = Model.untrained(NETWORK, seed=5)
    origin = {"how": "trained", "data": {"protocol": "ubhpd"}, "heads": 1234}
    model.of_origin(origin, "MIT").save(tmp_path / "w.safetensors")
    request = {"models": (NETWORK,), "weights": {NETWORK: (tmp_path / "w.safetensors",)}, "device": "cpu"}
    (path,) = done(data, tmp_path / "o", **request)[0].written
    assert read(path).training.declared == "training split of ubhpd (1,234 heads), as its checkpoint says"


def test_a_checkpoint_that_ubhpd_trained_on_the_same_heads_counts_as_trained_here(data, tmp_path, trainer):
    from ubhpd.models.model import Model

    own = plan.splits_of("biwi_70_30_subjects", data).train
    origin = {"how": "trained", "data": {"protocol": "biwi_70_30_subjects", "heads_sha256": own.names_sha256},
              "heads": 30, "seed": 3, "steps": 7, "epochs": 2, "selection": "the last of 2 epochs",
              "recipe": {"batch_size": 8, "optimizer": "sgd", "lr": 0.1, "schedule": "step"}}  # fmt: skip
    model = Model.untrained(NETWORK, seed=5)
    request = {"models": (NETWORK,), "weights": {NETWORK: (tmp_path / "w.safetensors",)}, "device": "cpu"}
    model.of_origin(origin, "MIT").save(tmp_path / "w.safetensors")
    (path,) = done(data, tmp_path / "o", **request)[0].written
    found = read(path)
    assert (found.training.how, found.training.declared, found.seed) == ("trained", None, 3)
    assert found.training.start.startswith("trained before by ubhpd, seed 3: w.safetensors ")
    assert (found.training.selection, found.training.steps, found.training.lr) == ("the last of 2 epochs", 7, 0.1)
    assert "ubmae" in found.scores and trainer.asked == []
    origin["data"]["heads_sha256"] = "0" * 64  # other heads
    model.of_origin(origin, "MIT").save(tmp_path / "w.safetensors")
    (path,) = done(data, tmp_path / "p", **request)[0].written
    found = read(path)
    assert found.training.how == "imported" and found.training.declared.startswith("training split of biwi_70_30")


def test_teachers_are_trained_first_and_kept_as_runs_of_their_own(data, tmp_path, trainer, ubhpd):
    small = ("-O", "ehpnet.size=32", "-O", "ehpnet_nokd.size=32")
    typed = ("bench", "--models", "ehpnet", "--protocols", "biwi_70_30_subjects", "--data", data,
             "--out", tmp_path / "o", "--teacher", "ehpnet=ehpnet_nokd", "--device", "cpu")  # fmt: skip
    code, _, err = ubhpd(*typed, *small)
    assert code == 0, err
    teacher, student = trainer.asked
    assert (teacher.model, teacher.teachers, teacher.options) == ("ehpnet_nokd", (), {"size": "32"})
    assert (student.model, student.protocol) == ("ehpnet", teacher.protocol)
    assert student.teachers == (teacher.out / "weights.safetensors",)
    assert ubhpd(*typed[:2], "ehpnet_nokd,ehpnet", *typed[3:], *small)[0] == 0
    assert len(trainer.asked) == 2  # the teacher's row takes its weights from before
    other = tmp_path / "t.safetensors"
    other.write_bytes(student.teachers[0].read_bytes())
    request = {"models": ("ehpnet",), "device": "cpu", "options": {"ehpnet": {"size": "32"}}}
    done(data, tmp_path / "o", **request, teachers={"ehpnet": (str(other),)})
    assert trainer.asked[-1].teachers == (other,)
    for teachers, words in (
        ({"ehpnet": ("ehpnet",)}, "ehpnet cannot teach ehpnet"),
        ({"hopenet": ("ehpnet",)}, "hopenet has teachers, but is not among --models"),
    ):
        with pytest.raises(UbhpdError, match=words):
            report, _ = done(data, tmp_path / "q", **request, teachers=teachers)
            raise UbhpdError(report.failed[0][1])


@needs_safetensors
def test_true_landmarks_are_an_oracle_and_those_of_a_detector_are_not(data, tmp_path):
    """What the column landmarks_kind of the test heads says decides."""
    pool = manifest.read(data / "pool.parquet")
    at = pool.schema.get_field_index("landmarks_kind")
    for kind, oracle in (("fitted_3d", "true landmarks (fitted_3d)"), ("dlib68", None)):
        (tmp_path / kind).mkdir()
        shutil.copy(data / "build.json", tmp_path / kind)
        kinds = pa.array([kind] * pool.num_rows, pa.string())
        own = pool.set_column(at, pool.schema.field(at), kinds)
        manifest.write_parquet([own], tmp_path / kind / "pool.parquet")
        rows = plan.splits_of("300wlp_aflw2000_1969", tmp_path / kind).test_rows
        assert plan.landmark_kinds(rows) == (kind,)
        assert plan.oracle_of(plan.landmark_kinds(rows)) == oracle


@needs_safetensors
def test_models_that_see_landmarks_use_those_that_were_filled_and_others_are_kept(data, tmp_path):
    folder = tmp_path / "build"
    folder.mkdir()
    for name in ("build.json", "pool.parquet"):
        shutil.copy(data / name, folder)
    request = {"models": ("mean_pose", "landmarks_pnp"), "protocols": ("300wlp_biwi_15678",)}
    report, _ = done(folder, tmp_path / "o", **request)
    ((name, why),) = report.failed
    assert "landmarks_pnp" in name and "gave no prediction for any of the 48 test heads" in why
    pool = manifest.read(data / "pool.parquet").to_pylist()
    face = next(r["landmarks68"] for r in pool if r["dataset"] == "aflw2000")
    rows = [[r["sample_id"], *face] for r in pool if r["dataset"] == "biwi"]
    pd.DataFrame(rows, columns=["sample_id", *POINT_COLUMNS]).to_csv(tmp_path / "fan.csv", index=False)
    fill_landmarks(FillConfig(folder, source=tmp_path / "fan.csv"))
    report, _ = done(folder, tmp_path / "o", **request)
    assert report.failed == () and len(report.kept) == 1  # the mean pose
    found = read(report.written[0])
    assert (found.model, found.coverage, found.landmarks, found.oracle) == (
        "landmarks_pnp",
        1,
        ("file:fan.csv",),
        None,
    )
    again, _ = done(folder, tmp_path / "o", landmarks=Path("none"), **request)
    assert len(again.failed) == 1 and len(again.kept) == 1


def test_heads_that_cannot_be_judged_are_told(data, tmp_path, trainer):
    """One head of the test split without a box, then all of them."""
    pool = manifest.read(data / "pool.parquet")
    is_biwi = pool.column("dataset").to_pylist().index("biwi")
    at = pool.schema.get_field_index("bbox_xyxy")
    for name, first, last in (("one", is_biwi, is_biwi + 1), ("all", 0, pool.num_rows)):
        boxes = pool.column("bbox_xyxy").to_pylist()
        boxes[first:last] = [None] * (last - first)
        (tmp_path / name).mkdir()
        shutil.copy(data / "build.json", tmp_path / name)
        column = pa.array(boxes, pool.schema.field(at).type)
        manifest.write_parquet([pool.set_column(at, pool.schema.field(at), column)], tmp_path / name / "pool.parquet")
    request = {"models": (NETWORK,), "protocols": ("300wlp_biwi_15678",), "device": "cpu"}
    report, said = done(tmp_path / "one", tmp_path / "r1", cache=tmp_path / "c", **request)
    assert trainer.asked[0].cache == tmp_path / "c"
    assert report.failed == () and said[-1].endswith("on 47 of 48 heads") and read(report.written[0]).coverage < 1
    ((_, why),) = done(tmp_path / "all", tmp_path / "r2", **request)[0].failed
    assert why.startswith(f"{NETWORK} gave no prediction for any of the 48 test heads; the first: no face box")


# The commands


@needs_safetensors
def test_the_commands_go_from_a_build_to_a_page(data, tmp_path, ubhpd):
    typed = ("bench", "--models", "mean_pose,median_pose", "--protocols", "1,biwi_70_30_subjects", "--data", data,
             "--out", tmp_path / "r", "-O", "mean_pose.of=rotation")  # fmt: skip
    code, out, _ = ubhpd(*typed)
    assert code == 0 and "6 results written, 0 kept" in out
    code, out, _ = ubhpd(*typed)
    assert code == 0 and "0 results written, 6 kept" in out
    code, out, _ = ubhpd("leaderboard", tmp_path / "r")
    assert code == 0 and out.count("Wrote") == 5 and "mean_pose of=rotation" in out
    html = (tmp_path / "r" / "leaderboard.html").read_text()
    assert html.count("data-protocol=") == 3 and "OsGG-Net 2021" not in html
    names = [p.name for p in (tmp_path / "r" / "300wlp_biwi_15678").glob("*.json")]
    assert json.loads((tmp_path / "r" / "300wlp_biwi_15678" / sorted(names)[0]).read_text())["kind"] == "ubhpd-result"


@pytest.mark.parametrize(
    ("extra", "code", "said"),
    [
        (("--seeds", "0,x"), 2, "not a list of whole numbers"),
        (("-O", "of=mean"), 2, "not of the form MODEL.KEY=VALUE"),
        (("--weights", "w.pth"), 2, "not of the form MODEL=FILE"),
        (("--weights", "mean_pose=w.pth"), 2, "mean_pose is a geometric method"),
        (("--trained-on", "mean_pose=300W-LP"), 2, "has a declared training set and no weights"),
        (("--trained-on", "mean_pose"), 2, "not of the form MODEL=SET"),
        (("--protocols", "3"), 1, "ubhpd failed"),
    ],
)
def test_the_command_says_what_is_wrong(data, tmp_path, ubhpd, extra, code, said):
    found, out, err = ubhpd(
        "bench", "--models", "mean_pose", "--protocols", "1", "--data", data, "--out", tmp_path / "r", "--quiet", *extra
    )
    assert (found, out) == (code, "") and said in err and "Traceback" not in err


def test_paths_of_a_run_lie_side_by_side(data, tmp_path):
    (run,) = runs_of(BenchRequest(("mean_pose",), ("ubhpd",), data, tmp_path))
    paths = benchmark.Paths.of(run, tmp_path)
    assert paths.result.parent == paths.predictions.parent == tmp_path / "ubhpd"
    assert paths.result.name.startswith("mean_pose-") and paths.result.name.endswith("-fitted.json")
