"""Times reading archives in place against reading the unpacked folder, in one run, on generated data.

    python benchmarks/archives.py [--pairs 2000] [--frames 600] [--rounds 5] [--biwi DIR] [--out FILE]

--biwi DIR takes real frames of BIWI, as many as there are, 24 times under other names: how fast a stream inflates
depends on what it holds. Each build reads the same heads into a new folder, so a compressed tar is decompressed every
time: `tgz` by Python's gzip, `tgz, isal` by ISA-L. A second build of the same archive reads the spool of the first and
is timed as `again`.
Inflating is what gunzip does alone: the stream read to its end, nothing kept. Rounds are interleaved; figures are
medians, ratios are of the unpacked folder in the same round. All builds must have the same fingerprint.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import statistics
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from isal import igzip
from machine import describe_machine, show

from ubhpd import manifest
from ubhpd.pool.build import BuildConfig, build
from ubhpd.raw import archives
from ubhpd.synth.writers import biwi_writer, w300lp_writer


def packed(folder: Path, to: Path) -> dict[str, Path]:
    """Return the folder as zip, tar and tgz."""
    to.mkdir()
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    places = {suffix: to / suffix[1:] / f"{folder.name}{suffix}" for suffix in (".zip", ".tar", ".tgz")}
    for place in places.values():
        place.parent.mkdir()
    with zipfile.ZipFile(places[".zip"], "w", zipfile.ZIP_DEFLATED) as zipped:
        for file in files:
            zipped.write(file, file.relative_to(folder.parent))
    for suffix, mode in ((".tar", "w"), (".tgz", "w:gz")):
        with tarfile.open(places[suffix], mode, format=tarfile.GNU_FORMAT) as tar:  # type: ignore[call-overload]
            tar.add(folder, folder.name)
    return places


@contextmanager
def without_isal() -> Iterator[None]:
    """Read as if the package isal were not installed."""
    own = archives._isal_opener
    archives._isal_opener = lambda: None
    try:
        yield
    finally:
        archives._isal_opener = own


def built(dataset: str, root: Path, out: Path) -> str:
    """Build a dataset and return the fingerprint of its pool."""
    build(BuildConfig((dataset,), out, roots={dataset: str(root)}))
    return str(manifest.header(out / "pool.parquet").fingerprint)


def in_new_folder(dataset: str, root: Path) -> str:
    """Build a dataset into a folder that is removed."""
    with tempfile.TemporaryDirectory() as out:
        return built(dataset, root, Path(out))


def read_through(opener: Callable[..., object], place: Path) -> None:
    """Inflate a gzip file to its end."""
    with opener(place, "rb") as file:  # type: ignore[attr-defined]
        while file.read(1 << 20):
            pass


def contenders(dataset: str, folder: Path, work: Path) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name."""
    places = packed(folder, work / f"{dataset}-packed")
    kept = work / f"{dataset}-kept"
    built(dataset, places[".tgz"], kept)

    def again() -> str:
        shutil.rmtree(kept / "work" / "parts", ignore_errors=True)  # only the spool stays
        return built(dataset, places[".tgz"], kept)

    def by_gzip() -> str:
        with without_isal():
            return in_new_folder(dataset, places[".tgz"])

    return {
        "folder": lambda: in_new_folder(dataset, folder),
        "zip": lambda: in_new_folder(dataset, places[".zip"]),
        "tar": lambda: in_new_folder(dataset, places[".tar"]),
        "tgz": by_gzip,
        "tgz, isal": lambda: in_new_folder(dataset, places[".tgz"]),
        "tgz, again": again,
        "inflating alone, gzip": lambda: read_through(gzip.open, places[".tgz"]),
        "inflating alone, isal": lambda: read_through(igzip.open, places[".tgz"]),
    }


def main() -> None:
    """Time both datasets and show the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--biwi", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lines = [describe_machine("isal"), ""]
    lines += ["| what | ms | times the folder | tgz / this |", "|---|---:|---:|---:|"]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        w300lp_writer.write(work / "raw", arguments.pairs // 2, views=8, distinct_images=64)
        if arguments.biwi:
            person = next(p for p in sorted(arguments.biwi.rglob("*")) if p.is_dir() and p.name.isdigit())
            for number in range(1, 25):
                shutil.copytree(person, work / "raw" / "hpdb" / f"{number:02d}")
        else:
            biwi_writer.write(work / "raw", range(1, 5), frames=arguments.frames // 4)
        for dataset, name in (("300wlp", "300W_LP"), ("biwi", "hpdb")):
            runs = contenders(dataset, work / "raw" / name, work)
            times: dict[str, list[float]] = {own: [] for own in runs}
            for _ in range(arguments.rounds):
                marks = set()
                for own, run in runs.items():
                    start = time.perf_counter()
                    marks.add(run())
                    times[own].append(time.perf_counter() - start)
                if len(marks - {None}) != 1:
                    raise SystemExit(f"the ways of reading {dataset} disagree: {marks}")
            for own, seconds in times.items():
                against, faster = (
                    statistics.median(a / b for a, b in zip(*pair, strict=True))
                    for pair in ((seconds, times["folder"]), (times["tgz"], seconds))
                )
                ms = statistics.median(seconds) * 1e3
                lines.append(f"| {dataset}: {own} | {ms:,.0f} | {against:.2f} | {faster:.2f} |")
    frames = "real frames, 24 times" if arguments.biwi else f"{arguments.frames} rendered frames"
    text = f"300W-LP: {arguments.pairs} pairs; BIWI: {frames}; medians of {arguments.rounds} rounds."
    show("Archives: reading in place against the unpacked folder", [text, *lines], arguments.out)


if __name__ == "__main__":
    main()
