"""`ubhpd train`: from a build to weights, whatever happens on the way."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest
import torch
from training_room import PROTOCOL, QUIET, trial_room, write_build

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.models import checkpoint
from ubhpd.models.model import Model
from ubhpd.protocols.resolve import resolve
from ubhpd.training import state
from ubhpd.training.run import TrainRequest, train

SCRIPT = Path(__file__).with_name("training_room.py")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A build; read only but for the crops."""
    return write_build(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module", autouse=True)
def _trial(tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with trial_room(tmp_path_factory.mktemp("room")):
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def request_(built, tmp_path):
    return TrainRequest("trial", built, tmp_path / "run", PROTOCOL, validation=0.2, device="cpu", workers=2)


@pytest.fixture(scope="module")
def whole(built, tmp_path_factory):
    """The report of a run that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return run(TrainRequest("trial", built, out, PROTOCOL, validation=0.2, device="cpu", workers=1))


def run(request):
    return train(request, QUIET)


def rows(out):
    with (out / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def started(request, room, **environment):
    given = {k: getattr(request, k) for k in ("model", "protocol", "validation", "device", "seed", "precision")}
    given |= {"data": str(request.data), "out": str(request.out), "save_seconds": request.save_seconds,
              "batch_size": request.batch_size, "steps": request.steps, "options": dict(request.options)}  # fmt: skip
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(room), json.dumps(given)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )  # fmt: skip


def position(out):
    try:
        with state.safe_open(out / state.STATE_FILE, "pt") as file:
            return json.loads(file.metadata()["ubhpd-training"])["position"]["step"]
    except Exception:
        return 0


def test_a_run_leaves_weights_that_predict_and_say_where_they_are_from(whole, built, tmp_path, ubhpd):
    out = whole.weights.parent
    assert {p.name for p in out.iterdir()} - {"tensorboard"} == {
        "weights.safetensors", "weights.safetensors.json", "log.csv", "train.json"}  # fmt: skip
    model = Model.of_checkpoint(whole.weights, "trial")
    origin = model.about.origin
    assert (origin["how"], origin["seed"], origin["data"]["protocol"]) == ("trained", 0, PROTOCOL)
    assert origin["data"]["list"] == resolve(PROTOCOL, built).hash
    assert origin["recipe"]["augmentations"] == ["flip", "hopenet_crop"]
    assert origin["torch"] == metadata.version("torch")
    assert json.loads((out / "train.json").read_text())["weights_sha256"] == model.about.sha256
    code, _, err = ubhpd("predict", "--weights", whole.weights, "--manifest", built / "pool.parquet",
                         "--out", tmp_path / "p.csv", "--device", "cpu")  # fmt: skip
    assert code == 0, err


def test_it_learns(request_):
    found = run(replace(request_, epochs=60, lr=3e-2, options={"dropout": "0.0"}))
    losses = [float(r["loss"]) for r in rows(request_.out)]
    errors = [float(r["validation_error_deg"]) for r in rows(request_.out) if r["validation_error_deg"]]
    assert losses[-1] < 0.7 * losses[0]
    assert found.validation_error_deg == pytest.approx(min(errors), rel=1e-4) and min(errors) < errors[0]
    assert found.best_epoch == 1 + int(np.argmin(errors))


def test_equal_seeds_give_equal_weights_whatever_the_threads_and_others_do_not(whole, request_):
    again, other = run(request_), run(replace(request_, seed=1, out=request_.out.with_name("other")))
    assert again.weights_sha256 == whole.weights_sha256 != other.weights_sha256
    assert again.validation_heads == whole.validation_heads > 0


def test_the_callers_random_numbers_are_left_alone(request_):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    run(replace(request_, steps=2))
    assert torch.equal(torch.rand(3), wanted)


def test_after_a_kill_the_same_command_gives_the_same_weights(whole, request_, tmp_path):
    """Killed at an arbitrary moment after some steps."""
    steps = 5
    request = replace(request_, save_seconds=0.0)
    process = started(request, tmp_path / "room")
    until = time.monotonic() + 60
    while position(request.out) < steps and process.poll() is None and time.monotonic() < until:
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL and position(request.out) >= steps
    assert not (request.out / "train.json").exists()
    for name in (state.STATE_FILE, "weights.safetensors"):  # what a kill in the midst of saving leaves
        (request.out / f".{name}.{process.pid}.part").write_bytes(b"half")
    (request.out / ".tmpAb3dE6").write_bytes(b"half")  # as safetensors calls its own
    assert run(request).weights_sha256 == whole.weights_sha256
    assert not list(request.out.glob(".*"))
    seen = [int(r["step"]) for r in rows(request.out)]
    assert seen == sorted(set(seen)) and seen[-1] == whole.steps


def test_it_goes_on_bit_for_bit_from_every_step(whole, request_, monkeypatch):
    """Stopped by Ctrl-C after each step in turn."""
    from ubhpd.training.loop import Loop

    own, taken = Loop._step, []

    def one(self, batch):
        own(self, batch)
        taken.append(self.position.step)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Loop, "_step", one)
    for _ in range(whole.steps):
        with pytest.raises(KeyboardInterrupt):
            run(request_)
    assert taken == list(range(1, whole.steps + 1))
    monkeypatch.setattr(Loop, "_step", own)
    assert run(request_).weights_sha256 == whole.weights_sha256


def test_ctrl_c_on_the_command_line_saves_and_exits_130(request_, monkeypatch, ubhpd):
    from ubhpd.training.loop import Loop

    own = Loop._step

    def one(self, batch):
        own(self, batch)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Loop, "_step", one)
    code, _, err = ubhpd("train", "--model", "trial", "--data", request_.data, "--out", request_.out,
                         "--protocol", PROTOCOL, "--device", "cpu")  # fmt: skip
    assert (code, position(request_.out)) == (130, 1) and "resumes" in err


def test_a_finished_run_is_not_done_again(request_, monkeypatch):
    first = run(request_)
    monkeypatch.setattr("ubhpd.training.run.Loop", None)
    assert run(request_) == replace(first, recipe=json.loads(json.dumps(dict(first.recipe))))


@pytest.mark.parametrize("other", [{"seed": 3}, {"lr": 0.5}, {"options": {"dropout": "0.1"}}, {"balance": "loss"}])
def test_a_folder_with_another_run_is_refused(other, request_, monkeypatch):
    run(replace(request_, steps=2))
    with pytest.raises(UbhpdError, match="another run"):
        run(replace(request_, steps=2, **other))


def test_a_damaged_state_is_told(request_):
    request_.out.mkdir()
    (request_.out / state.STATE_FILE).write_bytes(b"nothing")
    with pytest.raises(UbhpdError, match="is damaged: delete it"):
        run(request_)


def test_no_test_head_is_read(built, request_, tmp_path):
    """BIWI, the test split, is not even there."""
    moved = built.parent / "raw" / "hidden"
    folder = next(p for p in (built.parent / "raw").rglob("*") if p.is_dir() and p.name == "01").parent
    folder.rename(moved)
    try:
        found = run(replace(request_, steps=2, cache=tmp_path / "cache"))
    finally:
        moved.rename(folder)
    (file,) = (tmp_path / "cache").iterdir()
    with h5py.File(file) as crops:
        cut = {i.decode() for i in crops["sample_id"]}
    assert cut == set(resolve(PROTOCOL, built).train)
    assert found.heads + found.validation_heads <= len(cut)


def test_validation_heads_share_no_photograph_with_those_trained_on(built):
    from ubhpd.training.training_heads import held_out, training_split

    side = training_split(built, PROTOCOL)
    held = held_out(side.table, 0.25)
    photos = np.array(side.table.column("source_photo").to_pylist())
    assert len(held.train) + len(held.validation) == side.table.num_rows and len(held.validation) >= 4
    assert not set(photos[held.train]) & set(photos[held.validation])


def test_one_person_alone_leaves_nobody_to_validate_on(built):
    from ubhpd.training.training_heads import held_out, training_split

    table = training_split(built, PROTOCOL).table
    place = table.schema.get_field_index("subject_id")
    table = table.set_column(place, table.schema.field(place), pa.array(["one"] * table.num_rows))
    with pytest.raises(UbhpdError, match="No validation heads can be held out.*--validation 0"):
        held_out(table, 0.1)
    assert len(held_out(table, 0.0).train) == table.num_rows


def test_heads_beyond_the_recipes_angle_are_left_out_and_counted(built, whole):
    table = manifest.read(built / "pool.parquet").to_pylist()
    side = set(resolve(PROTOCOL, built).train)
    within = [
        r for r in table if r["sample_id"] in side and max(abs(r[f"{a}_deg"]) for a in ("yaw", "pitch", "roll")) < 50
    ]
    assert whole.heads + whole.validation_heads == len(within) < len(side)
    assert any("50 degrees or more" in w for w in whole.warnings)


def test_without_validation_the_last_epoch_is_kept(request_):
    found = run(replace(request_, validation=0.0))
    assert (found.best_epoch, found.validation_error_deg, found.validation_heads) == (None, None, 0)
    assert found.selection_rule == "the last of 4 epochs"
    last = run(replace(request_, select="last", out=request_.out.with_name("last")))
    assert last.best_epoch is not None and last.selection_rule == "the last of 4 epochs"


def test_the_best_epoch_is_kept(request_, monkeypatch):
    given = iter([9.0, 3.0, 7.0, 5.0] * 2)
    monkeypatch.setattr("ubhpd.training.loop.mean_error_deg", lambda *a: next(given))
    best = run(request_)
    assert (best.best_epoch, best.validation_error_deg) == (2, 3.0) and "4 with the least" in best.selection_rule
    half = run(replace(request_, out=request_.out.with_name("half"), validation=0.2, select="last"))
    assert half.weights_sha256 != best.weights_sha256
    steps = Model.of_checkpoint(best.weights).network.steps
    assert int(steps) == best.steps // 2


def test_a_loss_that_is_not_finite_stops_and_names_its_heads(request_, built):
    with pytest.raises(UbhpdError, match=r"not finite at step 5: its batch is in .*nan_batch\.json"):
        run(replace(request_, options={"breaks_at": "5"}))
    said = json.loads((request_.out / "nan_batch.json").read_text())
    assert said["step"] == 5 and len(said["sample_id"]) == 8
    assert set(said["sample_id"]) <= set(resolve(PROTOCOL, built).train)
    assert not (request_.out / "weights.safetensors").exists() and position(request_.out) < 5


def test_a_full_disk_keeps_the_last_state(request_, whole, monkeypatch):
    request = replace(request_, save_seconds=0.0)
    own, calls = state.save_file, []

    def full(tensors, path, metadata):
        if len(calls) == 4:
            raise OSError(28, "No space left on device", str(path))
        calls.append(path)
        own(tensors, path, metadata)

    monkeypatch.setattr("ubhpd.training.state.save_file", full)
    with pytest.raises(UbhpdError, match="No space left on device.*resumes from it"):
        run(request)
    assert position(request.out) == 4 and not list(request.out.glob(".*part"))
    monkeypatch.setattr("ubhpd.training.state.save_file", own)
    assert run(request).weights_sha256 == whole.weights_sha256


def test_a_folder_that_cannot_be_written_is_told(request_, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UbhpdError, match="Cannot write"):
        run(replace(request_, out=tmp_path / "file" / "run"))


@pytest.mark.parametrize("balance", ["sampling", "loss", "lds"])
def test_balanced_runs_differ_from_the_plain_one(balance, whole, request_):
    found = run(replace(request_, balance=balance))
    assert found.weights_sha256 != whole.weights_sha256 and found.recipe["balance"] == balance
    assert np.isfinite([float(r["loss"]) for r in rows(request_.out)]).all()


def test_a_geometric_method_is_fitted(request_):
    found = run(replace(request_, model="mean_pose"))
    about, tensors = checkpoint.load(found.weights, "mean_pose")
    assert about.origin["how"] == "fitted" and about.origin["protocol"] == PROTOCOL and tensors
    assert (found.steps, found.heads) == (0, len(resolve(PROTOCOL, request_.data).train))


def test_a_pupil_learns_from_teachers(whole, request_):
    pupil = replace(request_, model="trial_pupil", steps=2)
    found = run(replace(pupil, teachers=(whole.weights, whole.weights)))
    assert "taught=" in rows(request_.out)[0]["terms"] and len(found.origin["teachers"]) == 2
    with pytest.raises(UbhpdError, match="sees other images"):
        run(replace(pupil, teachers=(whole.weights,), options={"size": "24"}, out=request_.out.with_name("b")))
    with pytest.raises(UbhpdError, match="learns from no teacher"):
        run(replace(request_, teachers=(whole.weights,)))


@pytest.mark.parametrize("model", ["eva_gcn", "vgg16_rnn"])
def test_networks_of_other_kinds_train(model, request_, monkeypatch):
    options = {"size": "32", "frames": "2", "width": "4", "state": "4"} if model == "vgg16_rnn" else {}
    found = run(replace(request_, model=model, options=options, steps=2, batch_size=4, validation=0.2))
    assert found.steps == 2 and np.isfinite(found.validation_error_deg)


@pytest.mark.parametrize("way", [{"precision": "16"}, {"channels_last": False}])
def test_half_precision_and_channels_first_train(request_, whole, way):
    found = run(replace(request_, **way))
    assert found.validation_error_deg == pytest.approx(whole.validation_error_deg, rel=0.1)


def test_a_schedule_takes_the_place_of_the_papers(request_):
    found = run(replace(request_, steps=20, epochs=None, schedule="cosine"))
    assert found.recipe["schedule"] == "cosine" and found.identity["recipe"]["schedule"] == "cosine"
    assert float(rows(request_.out)[-1]["lr"]) == pytest.approx(0, abs=1e-12)


def test_a_mixture_of_wrong_input(request_, built, tmp_path):
    for wrong, words in (
        ({"data": tmp_path}, "is no folder of a build"),
        ({"protocol": None}, "needs ubhpd.parquet, which is not in"),
        ({"protocol": "nothing"}, "nothing"),
        ({"model": "trail"}, "did you mean trial"),
        ({"device": "tpu"}, "There is no device 'tpu'"),
        ({"backbone": tmp_path}, "has no backbone"),
    ):
        with pytest.raises(UbhpdError, match=words) as found:
            run(replace(request_, **wrong))
        assert "\n" not in str(found.value)
    for wrong in ({"epochs": 0}, {"epochs": 1, "steps": 1}, {"lr": float("nan")}, {"balance": "x"}, {"seed": -1},
                  {"schedule": "step"}, {"save_seconds": float("nan")}):  # fmt: skip
        with pytest.raises(UbhpdError):
            replace(request_, **wrong)


@pytest.mark.parametrize("processes", [1, 2])
def test_processes_that_torchrun_starts_give_what_one_gives(processes, request_, tmp_path):
    """Each takes its part of every batch, gradients are averaged: the loss is that of the whole batch."""
    plain = replace(request_, options={"dropout": "0.0"}, steps=6, batch_size=8)
    alone = run(plain)
    team = replace(plain, out=tmp_path / "team")
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(29_500 + os.getpid() % 1000),
             "WORLD_SIZE": str(processes), "TORCHELASTIC_RUN_ID": "test"}  # fmt: skip
    own = [started(team, tmp_path / f"room{r}", RANK=str(r), LOCAL_RANK=str(r), **place) for r in range(processes)]
    ended = [(p.communicate(timeout=120), p.returncode) for p in own]
    assert all(code == 0 for _, code in ended), ended
    losses = [[float(r["loss"]) for r in rows(out)] for out in (plain.out, team.out)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    one, both = (checkpoint.load(p).tensors for p in (alone.weights, team.out / "weights.safetensors"))
    assert all(np.allclose(one[n], both[n], atol=1e-4) for n in one)
    assert checkpoint.read_about(team.out / "weights.safetensors").origin["processes"] == processes


def test_the_command_line_trains(built, tmp_path, ubhpd):
    given = ("train", "--model", "trial", "--data", built, "--out", tmp_path / "run", "--protocol", PROTOCOL)
    other = ("--epochs", 2, "--batch-size", 4, "--lr", 0.01, "--optimizer", "sgd", "--balance", "lds")
    code, out, err = ubhpd(*given, *other, "-O", "dropout=0.5", "--device", "cpu", "--validation", 0.2)
    assert code == 0, err
    assert "epoch 2 of 2: loss" in out and "waiting for data" in out and "best epoch" in out
    recipe = json.loads((tmp_path / "run" / "train.json").read_text())["recipe"]
    assert (recipe["optimizer"], recipe["lr"], recipe["batch_size"], recipe["balance"]) == ("sgd", 0.01, 4, "lds")
    code, _, err = ubhpd("train", "--model", "quatnet", "--data", built, "--out", tmp_path / "q")
    assert code == 2 and err.count("\n") == 1
