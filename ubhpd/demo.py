"""The main job on generated data, as a newcomer sees it first: `make demo`, or python -m ubhpd.demo.

Writes small raw datasets in the true layouts of BIWI, AFLW and 300W-LP (drawn heads of known pose, no
research data), then types the commands that a researcher would type on the real ones.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from ubhpd.progress import Progress
from ubhpd.synth import aflw, biwi, w300lp

_BIWI_FRAMES = 40
_HEADS = 400


def write_raw(root: Path) -> None:
    """Write the three raw datasets below `root`."""
    progress = Progress()
    with progress.step("drawing BIWI"):
        biwi.write(root, range(1, 7), frames=_BIWI_FRAMES, seed=1)
    with progress.step("drawing AFLW"):
        aflw.write(root, _HEADS, seed=2)
    with progress.step("drawing 300W-LP"):
        w300lp.write(root, _HEADS, seed=3, bad_flips=3)


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
    _type("ubhpd", "build", "--sources", "biwi,aflw,300wlp", "--data-root", str(raw), "--out", str(out), "--jobs", "2")
    _type("ubhpd", "info", str(out))
    print(f"\nLook at {out / 'pool.parquet'} and {out / 'build.json'}.")


def _type(*command: str) -> None:
    print(f"\n$ {shlex.join(command)}", flush=True)
    subprocess.run([sys.executable, "-m", *command], check=True)


if __name__ == "__main__":
    main()
