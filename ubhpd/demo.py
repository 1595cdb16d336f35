"""The whole journey on generated data, as a newcomer sees it first: `make demo`, or python -m ubhpd.demo.

Writes raw datasets in the true layouts of BIWI, AFLW and 300W-LP (rendered heads of known pose, no research data), then
types the commands that a researcher would type on the real ones: build, train and score three small networks and the
mean pose, and make the leaderboard of them.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

SMALL = ("mean_pose", "osgg_small", "ssrnet_md", "fsanet_metric_1x1")
# One model of each file in baselines/ that has a network, for a machine with a GPU.
LARGE = (
    "mean_pose", "landmarks_pnp", "eva_gcn", "osgg_small", "osgg_paper", "osgg_released", "ssrnet_md",
    "fsanet_capsule_1x1", "fsanet_capsule_var", "fsanet_capsule_wo", "hopenet", "dadl", "ehpnet_nokd", "trinet",
    "whenet", "sixdrepnet", "vgg16", "vgg16_rnn",
)  # fmt: skip

_SMALL_RUN = ("--steps", "700", "--batch-size", "32", "--lr", "0.001", "--schedule", "cosine")
_LARGE_RUN = ("--epochs", "10", "--batch-size", "64", "--lr", "0.0003", "--precision", "16")


def main() -> None:
    """Run the demo; its raw data and its build are made anew."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "The demo.").splitlines()[0])
    arguments.add_argument("--out", type=Path, default=Path("demo-out"))
    arguments.add_argument("--heads", type=int, default=1000, help="images of each of the three sources")
    arguments.add_argument("--gpu", action="store_true", help="train one model of every kind, on a GPU")
    chosen = arguments.parse_args()
    began = time.monotonic()
    run(chosen.out, chosen.heads, LARGE if chosen.gpu else SMALL, _LARGE_RUN if chosen.gpu else _SMALL_RUN)
    print(f"\nDone in {(time.monotonic() - began) / 60:.1f} minutes. Look at")
    for what, path in (
        ("the leaderboard", chosen.out / "leaderboard/leaderboard.html"),
        ("densities before and after", chosen.out / "figures/density.png"),
        ("the dataset's card", chosen.out / "CARD.md"),
        ("the dataset", chosen.out / "ubhpd.parquet"),
    ):
        print(f"  {what:28}{path}")


def run(out: Path, heads: int, models: Sequence[str], training: Sequence[str]) -> None:
    """Type the commands, from raw data to the leaderboard's page, into `out`."""
    raw, results = str(out / "raw"), str(out / "results")
    for old in ("raw", "work", "results"):
        shutil.rmtree(out / old, ignore_errors=True)
    sources = "biwi,aflw,300wlp"
    _type("ubhpd", "synth", "--out", raw, "--sources", sources, "--heads", str(heads), "--size", "160", "--seed", "1",
          "--jobs", "-1")  # fmt: skip
    _type("ubhpd", "sources", "--data-root", raw)
    _type("ubhpd", "build", "--sources", sources, "--data-root", raw, "--out", str(out), "--size", "auto",
          "--sigma", "15", "--split", "subject", "--jobs", "-1")  # fmt: skip
    _type("ubhpd", "info", str(out))
    _type("ubhpd", "landmarks", "--manifest", str(out), "--from", "projected")
    _type("ubhpd", "bench", "--models", ",".join(models), "--protocols", "3", "--data", str(out), "--out", results,
          "--speed", "64", *training)  # fmt: skip
    _type("ubhpd", "leaderboard", results, "--out", str(out / "leaderboard"))


def _type(*command: str) -> None:
    print(f"\n$ {shlex.join(command)}", flush=True)
    subprocess.run([sys.executable, "-m", *command], check=True)


if __name__ == "__main__":
    main()
