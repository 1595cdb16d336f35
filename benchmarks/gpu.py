"""Measures training and inference on a GPU: every image network against the usual loader and the papers' times.

    python benchmarks/gpu.py [--parts processes,feed,training,inference,precision,compiled] [--models NAME ...]
                             [--budget SECONDS] [--quick] [--page] [--out FOLDER]

* training: heads per second of `ubhpd train`'s loop, and the share of the time in which the GPU waits for heads,
  against the usual loader of usual_loader.py with the step of the field's scripts; both described in training.py.
* inference: milliseconds per image of `NetworkPredictor`, crops in memory in, poses in memory out, 1 and 64 at a time,
  against the times that papers print.
* precision: training of three networks in TF32, without TF32, in float16 and bfloat16, channels first, and without the
  CUDA graph; also the usual loader with a process for each core.
* compiled: training of one network and inference of two by torch.compile.
* feed: heads per second that threads of different number prepare for the GPU, without a network.
* processes: training under torchrun with one process, whose gradients go through NCCL, against training without.

A speed is the median of three turns, a ratio the median of the ratios of turns with the same number. Before its turns
a contender uses up the batches that were prepared before. Networks with the same batches take turns after each other,
so that the loaders of a group are started once. FOLDER gets gpu.json, written after each result, and gpu.md;
rows of an earlier run on the same machine stay where a network is not measured again, and so do "notes", sentences on
each section, and "table3", results of `ubhpd bench` on rendered heads, which this script only shows.

`--budget` ends the run after so many seconds: the page names what is not measured by then. Without a GPU the
script runs on the CPU, which is of use to test the script only.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gpu_page import Row, page
from machine import describe_machine
from training import (
    ENDLESS,
    Data,
    Step,
    check_agreement,
    distinct_images,
    generated,
    looked_at,
    own_batches,
)
from usual_loader import UsualHeads, plain_step, usual_batches

from ubhpd import manifest
from ubhpd.core.files import replacing, write_json
from ubhpd.core.progress import Progress
from ubhpd.inference.network_predictor import NetworkPredictor, device_title
from ubhpd.inference.onnx_export import random_inputs
from ubhpd.inference.prediction_file import Speed, cores
from ubhpd.models.catalogue import NETWORKS, catalogue
from ubhpd.models.model import Model
from ubhpd.nn import tracing
from ubhpd.nn.contract import InputRecipe, TrainingRecipe
from ubhpd.pool.build import BuildConfig, build
from ubhpd.synth.writers import biwi_writer
from ubhpd.training.distributed import Team
from ubhpd.training.feeding import Feed, HeadBatch, Order
from ubhpd.training.loop import Loop, Work, fast
from ubhpd.training.request import TrainRequest
from ubhpd.training.run import Assembled, assembled
from ubhpd.training.state import Waits

PARTS = ("processes", "feed", "training", "inference", "precision", "compiled")
FOLDER = Path(__file__).parents[1] / "docs" / "benchmarks"
TURNS = 3
# Milliseconds per image that the papers print, in the text on implementation: OsGG-Net on a Titan RTX, FSA-Net on a
# GTX 1080 Ti; EHPNet, abstract, 300 images a second on a Tesla V100.
PAPER_MS = {"osgg_paper": 2.5, "fsanet_capsule_1x1": 1.0, "fsanet_capsule_fusion": 1.0, "ehpnet_nokd": 1000 / 300}
SAME_LAYERS = {"ehpnet": "ehpnet_nokd"}  # a network that needs teachers, and the one with its layers that needs none
DETAILED = ("fsanet_capsule_1x1", "hopenet", "osgg_paper")
COMPILED = ("fsanet_capsule_1x1", "osgg_paper")
FED = ("ssrnet_md", "fsanet_capsule_1x1", "ehpnet_nokd", "hopenet", "trinet", "sixdrepnet")
THREADS = (1, 2, 4, 8, 16)

TRAINING_WAYS: dict[str, dict[str, Any]] = {"32 bits": {}, "16 bits": {"precision": "16"}}
PRECISION_WAYS: dict[str, dict[str, Any]] = {
    "32 bits, TF32 in convolutions": {},
    "32 bits, no TF32": {"tf32": False},
    "32 bits, without the CUDA graph": {"graph": False},
    "float16": {"precision": "16"},
    "bfloat16": {"precision": "bf16"},
    "32 bits, channels first": {"channels_last": False},
    "float16, channels first": {"precision": "16", "channels_last": False},
}
COMPILED_WAYS: dict[str, dict[str, Any]] = {
    "float16": {"precision": "16"},
    "32 bits, compiled": {"compiled": True},
    "float16, compiled": {"precision": "16", "compiled": True},
}
INFERENCE_WAYS = {"32 bits": Speed(), "16 bits": Speed(half=True, channels_last=True)}
COMPILED_INFERENCE = {
    "32 bits, compiled": Speed(compiled=True),
    "16 bits, compiled": Speed(half=True, channels_last=True, compiled=True),
}


class Turn(NamedTuple):
    """How fast a turn was, and the share of its time in which the device waited for heads."""

    heads_per_second: float
    wait_share: float


class Length(NamedTuple):
    """How long a measurement takes: seconds of a turn, and steps and seconds at most before the first turn."""

    turn_s: float
    drained_steps: int
    drained_s: float


FULL = Length(0.25, 12, 0.5)
QUICK = Length(0.05, 3, 0.1)


def turns_of(batches: Iterator[HeadBatch], heads: int, step: Step, length: Length, device: torch.device) -> list[Turn]:
    """Return the turns of one contender; the batches that were prepared before are used up first."""
    waits = Waits(device)
    for _ in range(3):  # choice of algorithms, state of the optimiser, recording
        step(next(batches))
    begun, steps = time.perf_counter(), 0
    waits.read()
    while steps < length.drained_steps and time.perf_counter() - begun < length.drained_s:
        step(next(batches))
        steps += 1
    turns = []
    for _ in range(TURNS):
        waits.read()
        begun, steps = time.perf_counter(), 0
        while steps < 2 or time.perf_counter() - begun < length.turn_s:
            mark = waits.begin()
            batch = next(batches)
            waits.end(mark)
            step(batch)
            steps += 1
        taken, share = waits.read()
        turns.append(Turn(steps * heads / taken, share))
    return turns


def summed_up(turns: list[Turn], usual: list[Turn] | None = None) -> Row:
    """Return the medians of turns, and how many times faster than the usual loader they are."""
    row: Row = {
        "heads_per_second": statistics.median(t.heads_per_second for t in turns),
        "wait_share": statistics.median(t.wait_share for t in turns),
    }
    if usual is not None:
        row["times_faster"] = statistics.median(
            t.heads_per_second / u.heads_per_second for t, u in zip(turns, usual, strict=True)
        )
    return row


@contextmanager
def tf32(wanted: bool | None) -> Iterator[None]:
    """Have torch use TF32 everywhere or nowhere; None leaves its default, which is in convolutions only."""
    if wanted is None:
        yield
        return
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = wanted
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


class Group(NamedTuple):
    """Networks whose batches are alike: heads of a size, in a number, changed alike."""

    recipe: InputRecipe
    batch_size: int
    augmentations: tuple[str, ...]


def crops_of_group(group: Group, data: Data, team: Team) -> tuple[Assembled, list[str]]:
    """Return the heads of the build as a group of networks sees them, and the path of each head's image."""
    path = data.built / "pool.parquet"
    table, mark = manifest.read(path), manifest.header(path).fingerprint
    found = assembled(
        table, mark, "image", group.recipe, 99.0, build=data.built, cache=data.built / "crops", seed=0, threads=0,
        team=team, progress=Progress(show=False),
    )  # fmt: skip
    return found, table.column("image_path").to_pylist()


class Loaders:
    """What feeds the networks of one group: crops cut before, and the usual loader; both run on without end."""

    def __init__(self, group: Group, data: Data, device: torch.device, workers: int, stack: ExitStack) -> None:
        self.device, self.team = device, Team(0, 1, device)
        self.found, images = crops_of_group(group, data, self.team)
        self.order = Order(self.found.usable, group.batch_size, 0)
        self.feed = Feed(self.found.heads, group.recipe, group.augmentations, 0, 0, device.type == "cuda")
        heads = UsualHeads([str(data.raw / images[row]) for row in self.found.usable.tolist()], group.recipe)
        check_agreement(heads, self.found)
        self.usual = stack.enter_context(closing(usual_batches(heads, self.order.batch_size, device, workers)))
        next(self.usual)  # starts the processes before there are threads
        self.own = stack.enter_context(closing(own_batches(self.feed, self.order, device)))

    def step(self, model: Model, recipe: TrainingRecipe, way: dict[str, Any], out: Path) -> tuple[Step, Loop]:
        """Return the step of `ubhpd train`'s loop for a model, and the loop."""
        options = {k: v for k, v in way.items() if k not in ("tf32", "graph")}
        os.environ[tracing.CUDA_GRAPH_SWITCH] = "1" if way.get("graph", True) else "0"
        request = TrainRequest(model.name, out, out, **options)
        none = self.found.usable[:0]
        loop = Loop(
            Work(
                model=model,
                recipe=recipe,
                heads=self.found.heads,
                order=self.order,
                feed=self.feed,
                steps=ENDLESS,
                weights=None,
                validation=none,
                teachers=(),
                team=self.team,
                request=request,
                identity={},
            )
        )

        def step(batch: HeadBatch) -> None:
            with fast(self.device), tf32(way.get("tf32")):
                loop._step(batch)

        return step, loop


def fresh(model: Model) -> Model:
    """Return the model with weights of its own."""
    return replace(model, network=copy.deepcopy(model.network))


def groups_of(names: list[str]) -> dict[Group, list[str]]:
    """Return the networks by their batches."""
    groups: dict[Group, list[str]] = {}
    for name in names:
        model = Model.untrained(name)
        recipe = model.module.training_recipe(model.config)
        groups.setdefault(Group(model.recipe, recipe.batch_size, recipe.augmentations), []).append(name)
    return groups


def released() -> None:
    """Give the memory of networks that are no longer used back to the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


class Clock:
    """Says whether the time is up."""

    def __init__(self, budget_s: float | None) -> None:
        self._end = None if budget_s is None else time.monotonic() + budget_s

    def is_up(self) -> bool:
        """Whether nothing new should be started."""
        return self._end is not None and time.monotonic() > self._end


def trained(names: list[str], data: Data, length: Length, device: torch.device, clock: Clock) -> Iterator[Row]:
    """Yield a row for each network: the usual loader, and `ubhpd train` with 32 and 16 bits."""
    for group, members in groups_of(names).items():
        if clock.is_up():
            return
        with ExitStack() as stack:
            loaders = Loaders(group, data, device, 2, stack)
            size, look = loaders.order.batch_size, looked_at(group.recipe, device)
            feeding = {
                "usual": summed_up(turns_of(loaders.usual, size, look, length, device)),
                "ubhpd": summed_up(turns_of(loaders.own, size, look, length, device)),
            }
            for name in members:
                if clock.is_up():
                    return
                model = Model.untrained(name)
                recipe = model.module.training_recipe(model.config)
                row = {"model": name, "size": group.recipe.size, "batch": size,
                       "augmentations": group.augmentations, "feeding_alone": feeding}  # fmt: skip
                usual = turns_of(loaders.usual, size, plain_step(fresh(model), recipe, device), length, device)
                row["usual"] = summed_up(usual)
                for way, options in TRAINING_WAYS.items():
                    step, loop = loaders.step(fresh(model), recipe, options, data.out)
                    row[way] = summed_up(turns_of(loaders.own, size, step, length, device), usual)
                    row[way]["recorded"] = is_recorded(loop)
                    del step, loop
                    released()
                yield row


def fed(data: Data, length: Length, device: torch.device, clock: Clock) -> Iterator[Row]:
    """Yield a row for each network's batches and number of threads that prepare them."""
    for group, (name, *_) in groups_of(list(FED)).items():
        found, _ = crops_of_group(group, data, Team(0, 1, device))
        order = Order(found.usable, group.batch_size, 0)
        for threads in THREADS:
            if clock.is_up():
                return
            feed = Feed(found.heads, group.recipe, group.augmentations, 0, threads, device.type == "cuda")
            with closing(own_batches(feed, order, device)) as batches:
                steady = length._replace(drained_steps=2 * threads + 2)
                turns = turns_of(batches, order.batch_size, lambda batch: None, steady, device)
            yield {"model": name, "size": group.recipe.size, "batch": order.batch_size,
                   "augmentations": group.augmentations, "threads": threads,
                   "heads_per_second": summed_up(turns)["heads_per_second"]}  # fmt: skip


def is_recorded(loop: Loop) -> bool:
    """Return whether the steps of a loop run as a CUDA graph."""
    return isinstance(loop._advance, tracing.Recorded) and loop._advance.is_recorded


def by_way(
    names: list[str], ways: dict[str, dict[str, Any]], data: Data, length: Length, device: torch.device, clock: Clock
) -> Iterator[Row]:
    """Yield a row for each network and way to train it, and for the usual loader with a process for each core."""
    for group, members in groups_of(names).items():
        if clock.is_up():
            return
        with ExitStack() as stack:
            loaders = Loaders(group, data, device, cores(), stack)
            size = loaders.order.batch_size
            for name in members:
                model = Model.untrained(name)
                recipe = model.module.training_recipe(model.config)
                usual = turns_of(loaders.usual, size, plain_step(fresh(model), recipe, device), length, device)
                about = {"model": name, "size": group.recipe.size, "batch": size}
                yield {**about, "way": f"usual loader with {cores()} processes", **summed_up(usual, usual)}
                for way, options in ways.items():
                    if clock.is_up():
                        return
                    begun = time.perf_counter()
                    step, loop = loaders.step(fresh(model), recipe, options, data.out)
                    step(next(loaders.own))
                    first_s = time.perf_counter() - begun
                    turns = turns_of(loaders.own, size, step, length, device)
                    yield {**about, "way": way, **summed_up(turns, usual), "recorded": is_recorded(loop),
                           "first_step_s": first_s}  # fmt: skip
                    del step, loop
                    released()


def inferred(names: list[str], ways: dict[str, Speed], seconds: float, device: torch.device, clock: Clock
             ) -> Iterator[Row]:  # fmt: skip
    """Yield a row for each network and way: milliseconds per image, one and 64 at a time."""
    for name in names:
        if clock.is_up():
            return
        model = Model.untrained(name)
        crops = random_inputs(model, 64, 0)
        for way, speed in ways.items():
            predictor = NetworkPredictor(fresh(model), device.type, speed)
            row: Row = {"model": name, "size": model.recipe.size, "way": way, "paper_ms": PAPER_MS.get(name)}
            for batch in (1, 64):
                begun = time.perf_counter()
                for _ in range(4):  # the third call of a shape is recorded
                    predictor.poses(crops[:batch])
                row[f"first_calls_s_{batch}"] = time.perf_counter() - begun
                times = []
                while len(times) < 5 or (sum(times) < seconds and len(times) < 500):
                    begun = time.perf_counter()
                    predictor.poses(crops[:batch])
                    times.append(time.perf_counter() - begun)
                row[f"ms_{batch}"] = statistics.median(times) * 1e3 / batch
            del predictor
            released()
            yield row


def in_processes(data: Data, steps: int) -> Row:
    """Return what training alone and under torchrun comes to: backend, speed, and how far the losses differ."""
    model = "fsanet_capsule_1x1"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    root, built = data.raw.parent, data.raw.parent / "with-test"
    biwi_writer.write(root, (1, 2), frames=8, with_depth=False)  # the protocol needs heads to test on
    build(BuildConfig(("300wlp", "biwi"), built, str(root)))
    own = ("-m", "ubhpd", "train", "--model", model, "--data", str(built), "--steps", str(steps),
           "--protocol", "300wlp_biwi_15678", "--batch-size", "64", "--device", device)  # fmt: skip
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1")
    found: Row = {"model": model, "batch": 64, "steps": steps}
    losses: dict[str, list[float]] = {}
    for name, start, switch in (("alone", (), "1"), ("alone, without the CUDA graph", (), "0"),
                                ("torchrun", torchrun, "1")):  # fmt: skip
        out = data.out / name.replace(",", "").replace(" ", "-")
        begun = time.perf_counter()
        ended = subprocess.run(
            [sys.executable, *start, *own, "--out", str(out)], capture_output=True, text=True, check=False,
            env={**os.environ, "NCCL_DEBUG": "VERSION", tracing.CUDA_GRAPH_SWITCH: switch},
        )  # fmt: skip
        if ended.returncode:
            raise SystemExit(f"training {name} failed: {ended.stderr[-2000:]}")
        with (out / "log.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        losses[name] = [float(row["loss"]) for row in rows]
        speeds = sorted(float(row["heads_per_second"]) for row in rows[1:])
        versions = [line for line in (ended.stdout + ended.stderr).splitlines() if "NCCL version" in line]
        found[name] = {"heads_per_second": statistics.median(speeds), "seconds": time.perf_counter() - begun,
                       "nccl": versions[0].strip() if versions else None}  # fmt: skip
    alone = np.array(losses["alone"])
    found["largest_difference_of_losses"] = {
        name: float(np.abs(np.array(own) / alone - 1).max()) for name, own in losses.items() if name != "alone"
    }
    return found


def main() -> None:
    """Run the parts and write what they find, anew after each result."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--parts", default=",".join(PARTS))
    arguments.add_argument("--models", nargs="*", default=[], help="networks; all by default")
    arguments.add_argument("--budget", type=float, help="seconds after which nothing new is started")
    arguments.add_argument("--heads", type=int, default=1200, help="generated images")
    arguments.add_argument("--quick", action="store_true", help="turns of a twentieth of a second")
    arguments.add_argument("--out", type=Path, default=FOLDER)
    arguments.add_argument("--page", action="store_true", help="write gpu.md of the JSON that is there, and no more")
    chosen = arguments.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    path = chosen.out / "gpu.json"
    results: Row = json.loads(path.read_text()) if path.is_file() else {}
    if chosen.page:
        write_page(results, chosen.out)
        return
    clock, length = Clock(chosen.budget), QUICK if chosen.quick else FULL
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    about = {"device": device_title(device.type),
             "machine": describe_machine("torch", "opencv-python-headless", "pillow")}  # fmt: skip
    if any(results.get(key) != value for key, value in about.items()):
        results = about  # of another machine
    parts = chosen.parts.split(",")
    networks = chosen.models or [*image_networks(), *others()]
    images = [n for n in networks if catalogue()[n].kind == "image"]
    detailed, compiled = ([n for n in part if n in images] for part in (DETAILED, COMPILED))
    seconds = 0.02 if chosen.quick else 0.2
    with tempfile.TemporaryDirectory() as folder:
        needs_data = set(parts) != {"inference"}
        data = generated(Path(folder), chosen.heads) if needs_data else Data(Path(), Path(), Path())
        rows: dict[str, Callable[[], Iterator[Row]]] = {
            "feed": lambda: fed(data, length, device, clock),
            "training": lambda: trained(images, data, length, device, clock),
            "inference": lambda: inferred(networks, INFERENCE_WAYS, seconds, device, clock),
            "precision": lambda: by_way(detailed, PRECISION_WAYS, data, length, device, clock),
            "compiled": lambda: by_way(compiled[:1], COMPILED_WAYS, data, length, device, clock),
            "compiled_inference": lambda: inferred(compiled, COMPILED_INFERENCE, seconds, device, clock),
        }
        if "processes" in parts:
            results["processes"] = in_processes(data, 100 if chosen.quick else 400)
            print("processes", json.dumps(results["processes"]), flush=True)
            write_json(results, path)
        for part in (p for p in rows if p.partition("_")[0] in parts):
            before = results.get(part, [])
            results[part] = found = []
            for row in rows[part]():
                found.append(row)
                anew = {r["model"] for r in found}
                results[part] = [r for r in before if r["model"] not in anew] + found
                print(part, json.dumps(row), flush=True)
                write_json(results, path)
                write_page(results, chosen.out)
        write_json(results, path)
        write_page(results, chosen.out)


def image_networks() -> list[str]:
    """Return the networks that see single images, one of each set of the same layers."""
    return [SAME_LAYERS.get(n, n) for n in [*distinct_images(), "osgg_released"]]


def others() -> list[str]:
    """Return the networks that see landmarks or sequences."""
    return [n for n, c in catalogue().items() if c.kind in NETWORKS[1:]]


def write_page(results: Row, out: Path) -> None:
    """Write gpu.md."""
    wanted = {"training": image_networks(), "inference": [*image_networks(), *others()]}
    with replacing(out / "gpu.md") as file:
        file.write_text(page(results, wanted), encoding="utf-8")


if __name__ == "__main__":
    main()
