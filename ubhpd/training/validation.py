"""How good a network is on heads held out of the training set."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from ubhpd.networks.contract import PoseNetwork
from ubhpd.prediction.poses import angles_and_rotations
from ubhpd.rotation import geodesic_deg, matrix_from_euler
from ubhpd.training.feeding import Feed, Rows
from ubhpd.training.optimisation import single_precision
from ubhpd.training.sample import Floats


def mean_error_deg(network: PoseNetwork, see: Callable[[torch.Tensor], torch.Tensor], feed: Feed, rows: Rows,
                   angles_deg: Floats, batch_size: int) -> float:  # fmt: skip
    """Return the mean geodesic error in degrees of a network on heads as they are; infinite without a finite answer.

    The network is left in the mode it was in.

    Args:
        network: to judge.
        see: from a batch's inputs to what the network takes, on its device.
        feed: of the heads.
        rows: which of them.
        angles_deg: truth of all heads (n, 3).
        batch_size: heads at a time.
    """
    trains = network.training
    network.eval()
    found = []
    try:
        with torch.no_grad():
            for batch in feed.unchanged(_pieces(rows, batch_size)):
                pose = network.pose(single_precision(network(see(batch.inputs))))
                found.append(pose.double().cpu().numpy())
    finally:
        network.train(trains)
    _, rotations = angles_and_rotations(np.concatenate(found))
    errors = geodesic_deg(rotations, matrix_from_euler(angles_deg[rows]))
    return float(errors.mean()) if np.isfinite(errors).all() else float("inf")


def _pieces(rows: Rows, size: int) -> Iterator[Rows]:
    return (rows[i : i + size] for i in range(0, len(rows), size))
