"""The main job on generated data, as a newcomer sees it first: `make demo`, or python -m ubhpd.demo.

Writes small raw datasets in the true layouts of BIWI, AFLW and 300W-LP (rendered heads of known pose, no
research data), then types the commands that a researcher would type on the real ones.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from ubhpd import manifest
from ubhpd.bins import ANGLES
from ubhpd.files import replacing
from ubhpd.progress import Progress
from ubhpd.synth import aflw, biwi, w300lp
from ubhpd.synth.files import Work

_BIWI_FRAMES = 40
_HEADS = 400
_JOBS = 2


def write_raw(root: Path) -> None:
    """Write the three raw datasets below `root`."""
    progress = Progress()
    with progress.step("drawing BIWI") as report:
        biwi.write(root, range(1, 7), frames=_BIWI_FRAMES, seed=1, work=Work(_JOBS, report=report))
    with progress.step("drawing AFLW") as report:
        aflw.write(root, _HEADS, seed=2, work=Work(_JOBS, report=report))
    with progress.step("drawing 300W-LP") as report:
        w300lp.write(root, _HEADS, seed=3, bad_flips=3, work=Work(_JOBS, report=report))


def main() -> None:
    """Run the demo; its folder is made anew."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--out", type=Path, default=Path("demo-out"))
    out = arguments.parse_args().out
    raw = out / "raw"
    for old in (raw, out / "work"):
        shutil.rmtree(old, ignore_errors=True)
    print(f"Writing raw datasets in their true layouts to {raw} ...", flush=True)
    write_raw(raw)
    _type("ubhpd", "sources", "--data-root", str(raw))
    _type(
        "ubhpd", "build", "--sources", "biwi,aflw,300wlp", "--data-root", str(raw), "--out", str(out),
        "--size", "auto", "--sigma", "15", "--split", "subject", "--jobs", str(_JOBS),
    )  # fmt: skip
    _type("ubhpd", "info", str(out))
    print("\nA model that always answers with the mean pose of the training side: the least that any model must beat.")
    write_mean_pose(out)
    _type("ubhpd", "score", str(out / "mean_pose.csv"), "--manifest", str(out), "--protocol", "ubhpd",
          "--html", str(out / "mean_pose.html"))  # fmt: skip
    print(f"\nLook at {out / 'figures' / 'density.png'} (densities before and after), {out / 'CARD.md'},")
    print(f"{out / 'mean_pose.html'} and {out / 'ubhpd.parquet'}.")


def write_mean_pose(out: Path) -> None:
    """Write the predictions of the mean-pose model for the test side of the build in `out`."""
    names = ["sample_id", "split", *(f"{a}_deg" for a in ANGLES)]
    frame = manifest.read(out / "ubhpd.parquet", names).to_pandas()
    test = frame[frame.split == "test"][["sample_id"]]
    mean = frame[frame.split == "train"][[f"{a}_deg" for a in ANGLES]].mean()
    with replacing(out / "mean_pose.csv") as part:
        test.assign(**{a: mean[f"{a}_deg"] for a in ANGLES}).to_csv(part, index=False)


def _type(*command: str) -> None:
    print(f"\n$ {shlex.join(command)}", flush=True)
    subprocess.run([sys.executable, "-m", *command], check=True)


if __name__ == "__main__":
    main()
