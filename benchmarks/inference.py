"""Times the networks, torch against onnxruntime, and images to predictions against the usual loop.

    python benchmarks/inference.py [--parts networks,onnx,manifest] [--models NAME ...] [--quick] [--out FOLDER]

* networks: each network of the catalogue with random weights, crops in memory in, poses in memory out, one crop and 64
  at a time; on the CPU, and on a GPU if there is one also in 16 bits, in channels-last order and compiled. Variants
  that differ in their training alone are timed once. Where 64 crops take too long, as many as fit are taken.
* onnx: networks in torch as they are, as `ubhpd predict` runs them with `--engine torch` and `--engine onnx`, and a
  bare session of onnxruntime on what `ubhpd onnx` writes, with the same number of threads.
* manifest: images of 450x450 px on disk to a prediction file, `ubhpd predict` with each engine against the loop of the
  field's scripts: one image at a time, opened with PIL, cropped, resized, judged; the table saved at the end by pandas.
  Beside it stand decoding alone and the network alone, each with all cores.

Contenders of one table take turns within a round; a time is the median, a ratio the median of the ratios within a
round. FOLDER gets inference.json and inference.md, written anew after each result.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import torch
from machine import describe_machine
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from ubhpd import manifest
from ubhpd.core.files import replacing, write_json
from ubhpd.core.progress import Progress
from ubhpd.inference.engines import EnginePredictor
from ubhpd.inference.network_predictor import FromPixels, NetworkPredictor
from ubhpd.inference.onnx_export import export_onnx, random_inputs
from ubhpd.inference.predicting import Request, predict_request
from ubhpd.inference.prediction_file import Speed, cores
from ubhpd.models.catalogue import NETWORKS, catalogue
from ubhpd.models.model import Model
from ubhpd.pool.build import BuildConfig, build
from ubhpd.raw.image_files import decode
from ubhpd.synth.writers import w300lp_writer

COMPARED = (
    "fsanet_capsule_1x1", "fsanet_capsule_fusion", "ssrnet_md", "hopenet", "whenet", "sixdrepnet", "trinet_mobilenetv2",
    "ehpnet", "osgg_small", "lightweight", "threeddfa_v2",
)  # fmt: skip
FSANET = ("fsanet_capsule_1x1", "fsanet_capsule_fusion")
PARTS = ("networks", "onnx", "manifest")
WAYS = {
    "plain": Speed(),
    "half": Speed(half=True),
    "half, channels last": Speed(half=True, channels_last=True),
    "half, channels last, compiled": Speed(half=True, channels_last=True, compiled=True),
}
Row = dict[str, Any]
Run = Callable[[], object]


GAP = """torch is behind onnxruntime, most at batch 1, where the start of some hundred small operations costs. At
batch 64 most of it was memory: each operation of torch takes fresh buffers of several MB, whose pages fault in;
blocks of 16 heads stay in the caches. `--engine torch` also folds the batch normalisation, records the network,
replaces tanh by a sigmoid and 2x2 max-pooling by maxima of slices, which are about 4 and 10 times faster here, and lets
each core judge blocks for itself. torch.compile was no faster, after 5 to 24 s of compiling for each shape. With
`pip install 'ubhpd[onnx]'`, `--engine auto` takes onnxruntime."""


def seconds_of(run: Run, limit_s: float) -> float:
    """Return the median seconds of a run: 3 or more, for about a quarter of the limit, after it has warmed up."""
    start = time.perf_counter()
    for _ in range(4):  # torch settles a recorded network in its first runs
        run()
        if time.perf_counter() - start > limit_s / 8:
            break
    times: list[float] = []
    while len(times) < 3 or (sum(times) < limit_s / 4 and len(times) < 200):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def in_turns(contenders: dict[str, Run], rounds: int, repeats: int = 1) -> dict[str, list[float]]:
    """Return the seconds of each contender, round by round, the first of a round another each time."""
    for run in contenders.values():
        for _ in range(4 if repeats > 1 else 1):
            run()
    names = list(contenders)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.perf_counter()
            for _ in range(repeats):
                contenders[name]()
            times[name].append((time.perf_counter() - start) / repeats)
    return times


def ratio(times: dict[str, list[float]], slow: str, fast: str) -> float:
    """Return how many times faster `fast` is, the median over the rounds."""
    return statistics.median(s / f for s, f in zip(times[slow], times[fast], strict=True))


def distinct_networks() -> dict[str, list[str]]:
    """Return the networks to time, and with each the variants that have the same layers."""
    groups: dict[tuple[str, int, str], list[str]] = {}
    for name, card in catalogue().items():
        if card.kind in NETWORKS:
            scoring = f"{card.options.get('size')} {card.options.get('recipe')}"
            groups.setdefault((card.file, card.parameters or 0, scoring), []).append(name)
    return {names[0]: names[1:] for names in groups.values()}


def time_networks(names: list[str], limit_s: float) -> Iterator[Row]:
    """Yield a row for each network, device, way and batch."""
    same = distinct_networks()
    for name in names or list(same):
        model = Model.untrained(name)
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            FromPixels(model.network, model.recipe).eval()(torch.from_numpy(random_inputs(model, 1, 0)))
        about = {
            "model": name, "same": same.get(name, []), "size": model.recipe.size,
            "parameters": sum(p.numel() for p in model.network.parameters()), "flops": counter.get_total_flops(),
        }  # fmt: skip
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            for way, speed in WAYS.items():
                if device == "cpu" and way != "plain":
                    continue
                predictor = NetworkPredictor(Model.untrained(name), device, speed)
                yield from (
                    {**about, "device": device, "way": way, **row} for row in _batches(predictor, model, limit_s)
                )


def _batches(predictor: NetworkPredictor, model: Model, limit_s: float) -> Iterator[Row]:
    """Yield the speed at one crop, and at the largest batch up to 64 of which four runs fit into the limit."""
    crops = random_inputs(model, 64, 0)
    one = seconds_of(lambda: predictor.poses(crops[:1]), limit_s)
    yield {"batch": 1, "ms_per_head": one * 1e3}
    batch = 64
    while batch > 2 and 4 * batch * one > limit_s:
        batch //= 2
    many = seconds_of(lambda: predictor.poses(crops[:batch]), limit_s)
    yield {"batch": batch, "ms_per_head": many * 1e3 / batch}


def time_onnx(names: list[str], rounds: int) -> Iterator[Row]:
    """Yield a row for each network, number of threads and batch."""
    threads_before = torch.get_num_threads()
    for name in names or COMPARED:
        model = Model.untrained(name)
        eager = FromPixels(model.network, model.recipe).eval()
        with tempfile.TemporaryDirectory() as folder:
            weights, exported = Path(folder, "w.safetensors"), Path(folder, "w.onnx")
            model.save(weights)
            export_onnx(weights, exported)
            content = exported.read_bytes()
        for threads in (1, 2):
            torch.set_num_threads(threads)
            predictor = NetworkPredictor(model)
            with tempfile.TemporaryDirectory() as folder:
                engine = EnginePredictor(model, "onnx", threads, Path(folder))
            if not engine.name.startswith("onnxruntime"):
                raise SystemExit(f"{name} does not run by onnxruntime")
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            for batch in (1, 64):
                crops = random_inputs(model, batch, 0)
                yield {"model": name, "threads": threads, "batch": batch,
                       **_against_onnx(eager, predictor, engine, session, crops, rounds)}  # fmt: skip
    torch.set_num_threads(threads_before)


def _against_onnx(
    eager: Any, predictor: NetworkPredictor, engine: EnginePredictor, session: Any, crops: Any, rounds: int
) -> Row:
    def as_it_is() -> Any:
        with torch.inference_mode():
            return eager(torch.from_numpy(crops)).numpy()

    start = time.perf_counter()
    wanted = as_it_is()
    rounds = int(np.clip(8 / (time.perf_counter() - start), 3, rounds))  # a minute of large batches is enough
    found = {
        "predict": predictor.poses(crops)[0],
        "engine": engine.poses(crops)[0],
        "onnx": session.run(None, {"input": crops})[0],
    }
    times = in_turns(
        {"eager": as_it_is, "predict": lambda: predictor.poses(crops), "engine": lambda: engine.poses(crops),
         "onnx": lambda: session.run(None, {"input": crops})},
        rounds, 1 if len(crops) > 1 else 5,
    )  # fmt: skip
    return {
        "ms": {name: statistics.median(t) * 1e3 for name, t in times.items()},
        "least_ms": {name: min(t) * 1e3 for name, t in times.items()},
        "eager_over_onnx": ratio(times, "eager", "onnx"),
        "predict_over_onnx": ratio(times, "predict", "onnx"),
        "engine_over_onnx": ratio(times, "engine", "onnx"),
        "difference_deg": {name: float(np.abs(value - wanted).max()) for name, value in found.items()},
    }


def time_manifest(heads: int, rounds: int) -> Iterator[Row]:
    """Yield a row for each FSA-Net on generated images."""
    with tempfile.TemporaryDirectory() as folder:
        data, built = Path(folder), Path(folder, "built")
        w300lp_writer.write(data, heads // 2, views=8, landmarks=False, distinct_images=64)
        build(BuildConfig(("300wlp",), built, roots={"300wlp": str(data / "300W_LP")}))
        path = built / "pool.parquet"
        rows = manifest.read(path).to_pylist()
        for name in FSANET:
            weights = data / f"{name}.safetensors"
            Model.untrained(name).save(weights)
            requests = {
                engine: Request(weights, data / f"{engine}.csv", manifest=path, device="cpu", engine=engine)
                for engine in ("torch", "onnx")
            }

            def own(request: Request) -> Run:
                return lambda: predict_request(request, Progress(show=False))

            def usual(weights: Path = weights) -> object:
                return usual_loop(weights, rows, data / "300W_LP", data / "loop.csv")

            crops = random_inputs(Model.untrained(name), 64, 0)
            networks: dict[str, Any] = {"network, torch": NetworkPredictor(Model.of_checkpoint(weights))}
            with tempfile.TemporaryDirectory() as cache:
                networks["network, onnx"] = EnginePredictor(Model.of_checkpoint(weights), "onnx", 0, Path(cache))
            files = [(data / "300W_LP" / row["image_path"]).read_bytes() for row in rows]
            times = in_turns(
                {"loop": usual, **{engine: own(request) for engine, request in requests.items()},
                 "decoding": lambda files=files: decode_all(files),
                 **{what: lambda predictor=p, crops=crops: [predictor.poses(crops) for _ in range(4)]
                    for what, p in networks.items()}},
                rounds,
            )  # fmt: skip
            tables = [pd.read_csv(data / f).set_index("sample_id").sort_index() for f in ("onnx.csv", "loop.csv")]
            if len(tables[0]) != len(tables[1]):
                raise SystemExit(f"the contenders disagree on the number of heads: {[len(t) for t in tables]}")
            yield {
                "model": name,
                "heads": len(tables[0]),
                "heads_per_second": {
                    k: (256 if k.startswith("network") else len(tables[0])) / statistics.median(t)
                    for k, t in times.items()
                },
                "loop_over_predict": {engine: ratio(times, "loop", engine) for engine in requests},
            }


def decode_all(files: list[bytes]) -> int:
    """Decode images with a thread per core, and return how many."""
    with ThreadPoolExecutor(cores()) as pool:
        return sum(pixels is not None for pixels in pool.map(decode, files))


def usual_loop(weights: Path, rows: list[Row], root: Path, out: Path) -> int:
    """Judge image after image as the field's scripts do; boxes are 60 % about the landmarks, as FSA-Net's."""
    model = Model.of_checkpoint(weights)
    found = []
    for row in rows:
        image = Image.open(root / row["image_path"]).convert("RGB")
        points = np.reshape(row["landmarks68"], (68, 2))
        (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
        w, h = x1 - x0, y1 - y0
        box = (max(x0 - 0.6 * w, 0), max(y0 - 0.6 * h, 0), min(x1 + 0.6 * w, 449), min(y1 + 0.6 * h, 449))
        crop = image.crop(tuple(map(int, box))).resize((model.recipe.size,) * 2, Image.Resampling.BILINEAR)
        array = np.asarray(crop)[:, :, ::-1].transpose(2, 0, 1).astype(np.float32)
        with torch.no_grad():
            pose = model.network.pose(model.network(torch.from_numpy(array).unsqueeze(0)))
        found.append((row["sample_id"], *pose[0].tolist()))
    pd.DataFrame(found, columns=["sample_id", "yaw", "pitch", "roll"]).to_csv(out, index=False)
    return len(found)


def page(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = ["# Inference", "", results["machine"], *([results["gpu"], ""] if results["gpu"] else [""])]
    if rows := results.get("networks"):
        lines += [
            "## The networks",
            "",
            "Random weights, crops in memory in, poses in memory out. A multiplication and an addition are two FLOPs.",
            "",
            "| model | the same layers | size | parameters | GFLOPs | device | way | batch | ms a head | heads a s |",
            "|---|---|---:|---:|---:|---|---|---:|---:|---:|",
        ]
        lines += [
            f"| `{r['model']}` | {', '.join(r['same'])} | {r['size']} | {r['parameters']:,} | {r['flops'] / 1e9:.3g} "
            f"| {r['device']} | {r['way']} | {r['batch']} | {r['ms_per_head']:,.3g} | {1e3 / r['ms_per_head']:,.0f} |"
            for r in rows
        ]
    if rows := results.get("onnx"):
        lines += [
            "",
            "## Engines",
            "",
            "A bare session is onnxruntime alone on the exported file. The engines are those of `ubhpd predict`, with",
            "what they do before and after; / bare session: how many times as long.",
            "",
            "| model | threads | batch | torch as it is, ms | `--engine torch` ms | `--engine onnx` ms "
            "| bare session ms "
            "| torch / bare session | `--engine torch` / bare session | `--engine onnx` / bare session "
            "| largest difference, degrees |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        ]
        lines += [
            f"| `{r['model']}` | {r['threads']} | {r['batch']} | {r['ms']['eager']:.2f} | {r['ms']['predict']:.2f} "
            f"| {r['ms']['engine']:.2f} | {r['ms']['onnx']:.2f} | {r['eager_over_onnx']:.2f} "
            f"| {r['predict_over_onnx']:.2f} | {r['engine_over_onnx']:.2f} | {max(r['difference_deg'].values()):.1g} |"
            for r in rows
        ]
        lines += ["", GAP]
    if rows := results.get("manifest"):
        lines += [
            "",
            "## A manifest of images to a prediction file",
            "",
            "Heads a second. Decoding is of these images alone, the network of 64 crops in memory at a time alone,",
            "each with all cores; 1 / (1 / decoding + 1 / network) is what one after the other would give.",
            "",
            "| model | heads | usual loop | engine | `ubhpd predict` | times faster | decoding | network "
            "| one after the other | `predict` / one after the other |",
            "|---|---:|---:|---|---:|---:|---:|---:|---:|---:|",
        ]
        for r in rows:
            rates = r["heads_per_second"]
            for engine, faster in r["loop_over_predict"].items():
                network = rates[f"network, {engine}"]
                after = 1 / (1 / rates["decoding"] + 1 / network)
                lines.append(
                    f"| `{r['model']}` | {r['heads']:,} | {rates['loop']:,.0f} | {engine} | {rates[engine]:,.0f} "
                    f"| {faster:.2f} | {rates['decoding']:,.0f} | {network:,.0f} | {after:,.0f} "
                    f"| {rates[engine] / after:.2f} |"
                )
    return "\n".join([*lines, ""])


def main() -> None:
    """Run the parts and write what they find."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--parts", default=",".join(PARTS), help="of networks,onnx,manifest")
    arguments.add_argument("--models", nargs="*", default=[], help="networks to time; all by default")
    arguments.add_argument("--quick", action="store_true", help="a few runs of each, to see that it works")
    arguments.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "benchmarks")
    chosen = arguments.parse_args()
    gpu = f"GPU: {torch.cuda.get_device_name()}." if torch.cuda.is_available() else ""
    results: dict[str, Any] = {
        "machine": describe_machine("torch", "onnxruntime", "opencv-python-headless", "simplejpeg", "pillow"),
        "gpu": gpu,
        "speeds": {name: asdict(speed) for name, speed in WAYS.items()},
    }
    before = chosen.out / "inference.json"
    kept = json.loads(before.read_text()) if before.exists() else {}
    if kept.get("machine") == results["machine"] and kept["gpu"] == gpu:
        results = kept  # the parts that are not asked for stay
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "networks": lambda: time_networks(chosen.models, 1.0 if chosen.quick else 20.0),
        "onnx": lambda: time_onnx(chosen.models, 3 if chosen.quick else 9),
        "manifest": lambda: time_manifest(*((200, 2) if chosen.quick else (1500, 5))),
    }
    for part in (p for p in PARTS if p in chosen.parts.split(",")):
        results[part] = []
        for row in parts[part]():
            results[part].append(row)
            print(part, json.dumps(row), flush=True)
            write_json(results, chosen.out / "inference.json")
            with replacing(chosen.out / "inference.md") as file:
                file.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
