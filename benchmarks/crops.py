"""Times the export of face crops against the loops that the field's scripts have, in one run, on generated data.

    python benchmarks/crops.py [--pairs 1200] [--rounds 7] [--out docs/benchmarks/crops.md]

The loops keep all crops in memory and save them at the end, as the scripts do:
* FSA-Net's (data/type1/TYY_create_db_type1.py): list the folder, loadmat, decode with OpenCV, crop, resize to 64,
  savez; and the same without the label files, with boxes and poses given: decode, crop, resize and no more.
* Hopenet's (code/datasets.py): loadmat twice, decode, crop and resize with PIL, middle 224 of 240.

The export writes HDF5 with labels from a pool that is built already. Rounds are interleaved; a time is the median and a
ratio the median of the ratios within a round. Worker processes are started before the first round, as they would be by
the first unit of a long export. The last rows say what two processes that only decode gain over one in the same run:
where other work shares the machine no more can be had, and the fastest runs tell more than the medians. Reading is
timed as training reads: rows in random order.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import scipy.io
from machine import describe_machine, show
from PIL import Image
from usual_crops import hopenet_box

from ubhpd import manifest
from ubhpd.core.parallel import Engine
from ubhpd.exports._runner import ExportConfig, export
from ubhpd.images.crops import RECIPES, crop, crop_box
from ubhpd.images.reading import Images
from ubhpd.pool.build import BuildConfig, build
from ubhpd.synth.writers import w300lp_writer

Run = Callable[[], int]


def fsanet_crop(path: str, points: np.ndarray) -> np.ndarray:
    """Do to an image what FSA-Net's script does, points (2, n)."""
    keep = points[0] > 0 if (points[0] > 0).sum() <= (points[1] > 0).sum() else points[1] > 0
    image = cv2.imread(path)
    (x_min, y_min), (x_max, y_max) = points[:, keep].min(axis=1).astype(int), points[:, keep].max(axis=1).astype(int)
    w, h = x_max - x_min, y_max - y_min
    x_min, x_max = max(int(x_min - 0.6 * w), 0), min(int(x_max + 0.6 * w), image.shape[1] - 1)
    y_min, y_max = max(int(y_min - 0.6 * h), 0), min(int(y_max + 0.6 * h), image.shape[0] - 1)
    return cv2.resize(image[y_min:y_max, x_min:x_max], (64, 64))


def loop_fsanet(folders: list[Path], out: Path) -> int:
    """Do what FSA-Net's script does to the folders."""
    images, poses = [], []
    for folder in folders:
        for image_path in sorted(p for p in folder.iterdir() if p.suffix == ".jpg"):
            label = scipy.io.loadmat(image_path.with_suffix(".mat"))
            images.append(fsanet_crop(str(image_path), label["pt2d"]))
            poses.append(np.degrees(label["Pose_Para"][0][[1, 0, 2]]))
    np.savez(out / "loop.npz", image=np.array(images), pose=np.array(poses), img_size=64)
    return len(images)


def loop_pixels(known: list[tuple[str, np.ndarray, np.ndarray]], out: Path) -> int:
    """Do the same with points and poses given: decode, crop, resize, save."""
    images = [fsanet_crop(path, points) for path, points, _ in known]
    np.savez(out / "loop.npz", image=np.array(images), pose=np.array([pose for *_, pose in known]), img_size=64)
    return len(images)


def loop_hopenet(folders: list[Path], out: Path) -> int:
    """Do what Hopenet's loader does for each image, and save the result."""
    images, poses = [], []
    for folder in folders:
        for image_path in sorted(p for p in folder.iterdir() if p.suffix == ".jpg"):
            image = Image.open(image_path).convert("RGB")
            box = hopenet_box(scipy.io.loadmat(image_path.with_suffix(".mat"))["pt2d"])
            image = image.crop(tuple(map(int, box)))
            scale = 240 / min(image.size)
            image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BILINEAR)
            left, top = round((image.width - 224) / 2), round((image.height - 224) / 2)
            images.append(np.asarray(image.crop((left, top, left + 224, top + 224))))
            poses.append(np.degrees(scipy.io.loadmat(image_path.with_suffix(".mat"))["Pose_Para"][0][:3]))
    np.savez(out / "loop.npz", image=np.array(images), pose=np.array(poses), img_size=224)
    return len(images)


def exporter(built: Path, out: Path, recipe: str, jobs: int, size: int | None = None) -> Run:
    """Return a function that exports to HDF5."""

    def run() -> int:
        shutil.rmtree(out / "export", ignore_errors=True)
        report = export(
            ExportConfig(built, "h5", recipe, size, out=out / "export", unit_heads=UNIT_HEADS), Engine(jobs)
        )
        return sum(report.heads.values())

    return run


UNIT_HEADS = 100  # so that a small benchmark has as evenly shared units as a large export has with 500


def timed(contenders: dict[str, Run], rounds: int) -> tuple[int, dict[str, list[float]]]:
    """Return the number of heads and the seconds of each contender, round by round."""
    found = {name: run() for name, run in contenders.items()}  # also warms the page cache and starts the workers
    if len(set(found.values())) != 1:
        raise SystemExit(f"the contenders disagree on the number of heads: {found}")
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        names = list(contenders)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.perf_counter()
            contenders[name]()
            times[name].append(time.perf_counter() - start)
    return next(iter(found.values())), times


def decode(paths: list[str]) -> int:
    """Decode images and do nothing with them."""
    cv2.setNumThreads(1)
    return sum(cv2.imread(path) is not None for path in paths)


def decoder(known: list[tuple[str, np.ndarray, np.ndarray]], jobs: int) -> Run:
    """Return a function that decodes all images in so many processes: what the machine gives at that time."""
    paths = [path for path, *_ in known]
    shares = [paths[i : i + UNIT_HEADS] for i in range(0, len(paths), UNIT_HEADS)]
    return lambda: sum(Engine(jobs).map(decode, shares))


def ratio(times: dict[str, list[float]], slow: str, fast: str) -> float:
    """Return how many times faster `fast` is, the median over the rounds."""
    return statistics.median(s / f for s, f in zip(times[slow], times[fast], strict=True))


def reading(built: Path, out: Path) -> list[str]:
    """Return rows of the table on random reads of 224 px crops: one by one from HDF5, and from the images."""
    exporter(built, out, "square", 1)()
    rows = manifest.read(built / "pool.parquet").to_pylist()
    order = np.random.default_rng(0).permutation(len(rows))[:400]
    images, recipe = Images.of_build(built), RECIPES["square"]
    with h5py.File(out / "export" / "crops.h5") as file, h5py.File(out / "chunked.h5", "w") as other:
        contiguous = file["image"]
        chunked = other.create_dataset("image", data=contiguous[:], chunks=(1, *contiguous.shape[1:]))
        contenders: dict[str, Run] = {
            "decode and crop from the images": lambda: sum(
                len(crop(images.image(r["dataset"], r["image_path"]), crop_box(r, recipe) or (), recipe)) > 0
                for r in (rows[i] for i in order)
            ),
            "HDF5, a chunk a crop": lambda: sum(len(chunked[i]) > 0 for i in order),
            "HDF5, contiguous, as exported": lambda: sum(len(contiguous[i]) > 0 for i in order),
        }
        count, times = timed(contenders, 5)
    first = next(iter(times))
    return [
        f"| {name} | {statistics.median(t) / count * 1e6:,.0f} | {ratio(times, first, name):,.1f} |"
        for name, t in times.items()
    ]


def main() -> None:
    """Run and print the comparison."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--pairs", type=int, default=1200)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--out", type=Path)
    chosen = arguments.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        data, built = Path(folder), Path(folder, "built")
        w300lp_writer.write(data, chosen.pairs // 2, views=8, landmarks=False, distinct_images=64)
        root = data / "300W_LP"
        build(BuildConfig(("300wlp",), built, roots={"300wlp": str(root)}))
        folders = sorted(p for p in root.iterdir() if p.name != "Code")
        rows = manifest.read(built / "pool.parquet").to_pylist()
        known = [
            (str(root / r["image_path"]), np.reshape(r["landmarks68"], (68, 2)).T,
             np.array([r["yaw_deg"], r["pitch_deg"], r["roll_deg"]]))
            for r in rows
        ]  # fmt: skip
        groups: list[tuple[str, dict[str, Run]]] = [
            ("fsanet-0.6, 64 px", {
                "FSA-Net's script": lambda: loop_fsanet(folders, data),
                "decode, crop, resize": lambda: loop_pixels(known, data),
                "ubhpd export, 1 core": exporter(built, data, "fsanet-0.6", 1),
                "ubhpd export, 2 cores": exporter(built, data, "fsanet-0.6", 2),
            }),
            ("hopenet, 224 px", {
                "Hopenet's loader": lambda: loop_hopenet(folders, data),
                "ubhpd export, 1 core": exporter(built, data, "hopenet", 1),
                "ubhpd export, 2 cores": exporter(built, data, "hopenet", 2),
            }),
            ("the machine", {
                "decoding alone, 1 core": decoder(known, 1),
                "decoding alone, 2 cores": decoder(known, 2),
            }),
        ]  # fmt: skip
        lines = ["| what | microseconds a head | times faster than the loop | 2 cores over 1 | over 1, fastest runs |"]
        lines += ["|---|---:|---:|---:|---:|"]
        for title, contenders in groups:
            heads, times = timed(contenders, chosen.rounds)
            first = next(iter(times))
            for name, seconds in times.items():
                one, both = name.replace("2 cores", "1 core"), " | "
                if one != name:
                    both = f"{ratio(times, one, name):.2f} | {min(times[one]) / min(seconds):.2f}"
                microseconds = statistics.median(seconds) / heads * 1e6
                lines.append(f"| {title}: {name} | {microseconds:,.0f} | {ratio(times, first, name):.2f} | {both} |")
        lines += ["", "| one crop of 224 px, in random order | microseconds | times faster |", "|---|---:|---:|"]
        lines += reading(built, data)
    about = [
        f"300W-LP as generated, {heads} images of 450x450 px; medians of {chosen.rounds} rounds.",
        describe_machine("opencv-python-headless", "h5py", "pillow"),
        "",
    ]
    show("Crops: the export against the usual loops", [*about, *lines], chosen.out)


if __name__ == "__main__":
    main()
