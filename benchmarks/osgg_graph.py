"""What the readings of OsGG-Net's graph are worth: its pose network on landmarks that are perfectly known.

    python benchmarks/osgg_graph.py [--steps 1000] [--out docs/benchmarks/osgg-graph.md]

Heads are the mean face of `networks.landmark_sets` turned by up to 75, 45 and 45 degrees, seen from afar and cropped
as the network's input is. The heat maps are ideal: logits -d^2 / (2 sigma^2) of the distance d in cells to the true
landmark. So nothing is left to learn but the pose, and the readings differ in the graph alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from machine import describe_machine, show
from torch.nn import functional

from ubhpd.core.rotation import matrix_from_euler
from ubhpd.nn.graphs import GraphPose, adjacency, affinities, clipped, middles
from ubhpd.nn.landmark_sets import LANDMARK_SETS, mean_face_mm, neighbours

LIMITS_DEG = (75.0, 45.0, 45.0)
TRAIN, TEST, BATCH, LEARNING_RATE = 4096, 1024, 64, 2e-3
RANK_SHARE = 1e-3  # of the largest singular value
SIDE, SIGMA_CELLS, GROWTH = 64, 8.0, 0.6
NODES = LANDMARK_SETS[19]

RELEASED = {"maps": "softmax", "index": "column-row", "mask": "multiply", "total": "sum"}
PAPER = {"maps": "logits", "index": "row-column", "mask": "inf", "total": "mean"}
CASES: tuple[tuple[str, dict[str, str], int, float], ...] = (
    ("released", RELEASED, 5, 0.0),
    ("released, maps read at [y, x]", {**RELEASED, "index": "row-column"}, 5, 0.0),
    ("logits, mask multiplied", {**PAPER, "mask": "multiply"}, 5, 0.0),
    ("osgg_paper, nothing pruned", PAPER, 7, 0.0),
    ("osgg_paper", PAPER, 7, 0.1),
)


class Heads(NamedTuple):
    """Landmarks x, y (n, 19, 2) from -0.5 to 0.5, and yaw, pitch, roll (n, 3) in degrees."""

    places: torch.Tensor
    angles_deg: torch.Tensor


def draw_heads(count: int, rng: np.random.Generator) -> Heads:
    """Return heads of uniform pose, the middle of their 68 landmarks in the middle of the image."""
    angles = rng.uniform(-1, 1, (count, 3)) * LIMITS_DEG
    turned = np.einsum("nij,kj->nki", matrix_from_euler(angles), mean_face_mm())
    xy = turned[..., :2] * (1, -1)
    low, high = xy.min(axis=1, keepdims=True), xy.max(axis=1, keepdims=True)
    places = (xy - (low + high) / 2) / ((high - low) * (1 + 2 * GROWTH))
    return Heads(torch.tensor(places[:, NODES], dtype=torch.float32), torch.tensor(angles, dtype=torch.float32))


def ideal_logits(places: torch.Tensor) -> torch.Tensor:
    """Return heat maps (n, 19, SIDE, SIDE) that fall off with the squared distance to the true landmark."""
    squares = (middles(SIDE, places) - places.unsqueeze(-1)) ** 2
    x, y = squares.unbind(2)
    return -(y.unsqueeze(-1) + x.unsqueeze(-2)) * SIDE**2 / (2 * SIGMA_CELLS**2)


def graphs_of(heads: Heads, reading: dict[str, Any], count: int, threshold: float) -> torch.Tensor:
    """Return the graphs (n, 1, 19, 19) of all heads under a reading, with `count` neighbours."""
    allowed = torch.from_numpy(neighbours(NODES, count))
    parts = []
    for places in heads.places.split(BATCH):
        affinity = affinities(ideal_logits(places), places, reading["maps"], reading["index"])
        parts.append(clipped(adjacency(affinity, allowed, reading["mask"], reading["total"]), threshold, "prune"))
    return torch.cat(parts).unsqueeze(1)


def sensitivity_rank(network: GraphPose, heads: Heads, graphs: torch.Tensor) -> int:
    """Return how many directions of the 38 coordinates the pose depends on, the graphs given, over 64 heads."""
    places = heads.places[:64].clone().requires_grad_()
    pose = network(places, graphs[:64])
    rows = [torch.autograd.grad(pose[:, i].sum(), places, retain_graph=True)[0].flatten(1) for i in range(3)]
    return int(torch.linalg.matrix_rank(torch.cat(rows).double(), rtol=RANK_SHARE))


def trained_error(
    train: Heads, test: Heads, reading: dict[str, Any], count: int, threshold: float, steps: int
) -> tuple[float, float, int]:
    """Return the mean absolute error in degrees, the spread of the entries between heads, and the rank above."""
    torch.manual_seed(0)
    network = GraphPose(len(NODES))
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    graphs = graphs_of(train, reading, count, threshold)
    order = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(TRAIN, (BATCH,), generator=order)
        loss = functional.l1_loss(network(train.places[rows], graphs[rows]), train.angles_deg[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    network.eval()
    seen = graphs_of(test, reading, count, threshold)
    with torch.no_grad():
        error = functional.l1_loss(network(test.places, seen), test.angles_deg)
    return float(error), float(seen.std(dim=0).max()), sensitivity_rank(network, test, seen)


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--steps", type=int, default=1000)
    arguments.add_argument("--out", type=Path)
    chosen = arguments.parse_args()
    rng = np.random.default_rng(0)
    train, test = draw_heads(TRAIN, rng), draw_heads(TEST, rng)
    lines = [
        f"{TRAIN:,} heads to learn from, {TEST:,} others judged; {chosen.steps:,} steps of {BATCH}, Adam at "
        f"{LEARNING_RATE:g}, absolute error, one seed. Always answering 0 gives "
        f"{float(test.angles_deg.abs().mean()):.1f} degrees. Spread: the largest standard deviation of an entry of "
        "the graph between heads. Rank: how many directions of the 38 coordinates move the pose, by more than "
        f"{RANK_SHARE:g} of what the strongest does.",
        "",
        "| graph | MAE, degrees | spread | rank |",
        "|---|---:|---:|---:|",
    ]
    for name, reading, count, threshold in CASES:
        error, spread, rank = trained_error(train, test, reading, count, threshold, chosen.steps)
        lines.append(f"| {name} | {error:.2f} | {spread:.4f} | {rank} |")
        print(lines[-1], flush=True)
    lines += ["", describe_machine("torch")]
    show("What the readings of OsGG-Net's graph are worth", lines, chosen.out)


if __name__ == "__main__":
    main()
