"""Scores for training loops outside this package, and emulators of known mistakes in published evaluation code.

The emulators are no metrics: each is named after the code it imitates and returns what that code would print, in
degrees, for angles yaw, pitch, roll (n, 3). `ubhpd score` offers none of them; compare with `ubhpd.metrics.mae`.

`HeadPoseScores` gives all metrics in a training loop: update with each batch, compute at the end, exact for every
batch size.

    scores = HeadPoseScores(source="300W-LP")
    for images, true in loader:
        scores.update(network(images), true)       # angles (n, 3) in degrees, or rotations (n, 3, 3)
    print(scores.compute()["mae"])

The interface is that of torchmetrics, without the dependency: arrays or tensors on any device are copied to float64
on the processor. Sums over all samples are kept, so a short last batch has the weight of its samples.
The aligned error and the quantiles need the whole epoch at once, so heads are kept (144 bytes each) unless
`keep_heads` is off; then `geodesic_aligned`, the medians and the 95th percentiles are absent, and memory is constant.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import euler_from_matrix
from ubhpd.core.typing import AnyArray, FloatArray
from ubhpd.evaluation.metric_cards import scores_of_whole_sets
from ubhpd.evaluation.pairing import training_set
from ubhpd.evaluation.scoring import Pairs, ScoreOptions, checked, sample_errors, score, scores, sums, with_context
from ubhpd.metrics.mae import absolute_errors, mae


class Emulated(NamedTuple):
    """What the imitated code prints: errors of yaw, pitch, roll and their mean, degrees; NaN for no sample."""

    yaw: float
    pitch: float
    roll: float
    mean: float
    n: int


def sixdrepnet_folded_mae(predicted_deg: npt.ArrayLike, true_deg: npt.ArrayLike) -> Emulated:
    """Return the MAE as 6DRepNet's test.py counts it: the least of |e|, |e +- 360| and also |e +- 180|.

    The 180 makes a head turned right round free of charge: no error above 90 degrees can arise from one in -180 to
    180 (thohemp/6DRepNet, test.py; also in 6DRepNet360 and DirectMHP).
    """
    predicted, true = _checked(predicted_deg, true_deg)
    shifts = np.array([0.0, 360.0, -360.0, 180.0, -180.0])
    errors = np.abs((predicted - true)[..., None] + shifts).min(axis=-1)
    return _mean(errors)


def osggnet_short_batch_mae(predicted_deg: npt.ArrayLike, true_deg: npt.ArrayLike, batch_size: int = 64) -> Emulated:
    """Return the MAE as OsGG-Net's evaluation averages it, for samples in this order.

    Each batch's sum of errors is divided by the full batch size, also that of the last, shorter batch, and the
    batches are averaged: the result is too small by n / (batch_size * number of batches), and depends on the batch
    size (stoneMo/OsGG-Net, train_test.py, evaluate).

    Raises:
        UbhpdError: bad arrays, or a batch size below 1.
    """
    predicted, true = _checked(predicted_deg, true_deg)
    if batch_size < 1:
        raise UbhpdError(f"A batch of {batch_size} samples is none: give 1 or more.")
    errors = absolute_errors(predicted, true)
    batches = [errors[i : i + batch_size].sum(axis=0) / batch_size for i in range(0, len(errors), batch_size)]
    means = np.mean(batches, axis=0) if batches else np.full(3, np.nan)
    yaw, pitch, roll = means.tolist()
    return Emulated(yaw, pitch, roll, float(means.mean()), len(errors))


def opal_wrapped_mae(predicted_deg: npt.ArrayLike, true_deg: npt.ArrayLike) -> Emulated:
    """Return the MAE as OPAL's evaluator counts it: per head, the better of two ways to write the prediction.

    A rotation has two Euler triplets: (yaw, pitch, roll) and (180 - yaw, pitch +- 180, roll +- 180). The evaluator
    takes for each head the one with the smaller mean error, chosen with the truth in hand, and then min(e, 360 - e)
    (pcr-upm/opal23_headpose, test/evaluator.py, compute_mae). Same rotation, so no cheat by itself; but a number
    below the plain MAE of the literature, and not comparable with it.
    """
    predicted, true = _checked(predicted_deg, true_deg)
    sign = np.sign(predicted)
    twin = predicted - 180.0 * sign
    twin[:, 0] = 180.0 - predicted[:, 0]
    twin = np.where(twin > 180.0, twin - 360.0, np.where(twin < -180.0, twin + 360.0, twin))
    plain, other = absolute_errors(predicted, true), absolute_errors(twin, true)
    errors = np.where((other.mean(axis=1) < plain.mean(axis=1))[:, None], other, plain)
    return _mean(np.minimum(errors, np.abs(360.0 - errors)))


def _checked(predicted_deg: npt.ArrayLike, true_deg: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    mae(predicted_deg, true_deg)  # shapes and values
    return np.asarray(predicted_deg, dtype=np.float64), np.asarray(true_deg, dtype=np.float64)


def _mean(errors: FloatArray) -> Emulated:
    means = errors.mean(axis=0) if len(errors) else np.full(3, np.nan)
    yaw, pitch, roll = means.tolist()
    return Emulated(yaw, pitch, roll, float(means.mean()), len(errors))


class HeadPoseScores:
    """Collects predictions batch by batch and computes every score over all of them.

    Args:
        source: training set for UBMAE and the shots, as in `ubhpd score --source`; none without.
        keep_heads: keep every head, for the scores that need all of them at once.
        options: of the scores.
    """

    def __init__(self, source: str | None = None, keep_heads: bool = True, options: ScoreOptions | None = None) -> None:
        self.options = options or ScoreOptions()
        self.keep_heads = keep_heads
        self._source = training_set(source).counts if source else None
        if self.options.exclude_outside and not keep_heads:
            raise UbhpdError("exclude_outside needs keep_heads: heads are left out when all of them are known.")
        self.reset()

    def reset(self) -> None:
        """Forget everything seen."""
        self._heads: list[Pairs] = []
        self._sums: dict[str, AnyArray] | None = None

    def update(self, predicted: Any, true: Any) -> None:
        """Add a batch: angles (n, 3) in degrees or rotations (n, 3, 3), arrays or tensors, each of either kind.

        Raises:
            UbhpdError: another shape, different lengths, or values that are not finite; the batch is not added.
        """
        predicted_deg, predicted_rotation = _angles_and_rotation(predicted, "predicted")
        true_deg, true_rotation = _angles_and_rotation(true, "true")
        pairs = checked(Pairs(predicted_deg, true_deg, predicted_rotation, true_rotation))
        if self.keep_heads:
            self._check_kind(pairs)
            self._heads.append(pairs)
            return
        own = sums(sample_errors(pairs))
        before = self._sums
        self._sums = own if before is None else {k: v + before[k] for k, v in own.items()}

    def compute(self) -> dict[str, float]:
        """Return every score over all batches so far; NaN throughout if there were none."""
        if self.keep_heads:
            return score(self._all(), self.options, self._source).scores
        statistics = self._sums
        if statistics is None:
            statistics = sums(sample_errors(Pairs(np.empty((0, 3)), np.empty((0, 3)))))
        values = scores(with_context(dict(statistics), self._source), self.options)
        return {k: float(v) for k, v in values.items() if k not in scores_of_whole_sets()}

    def __call__(self, predicted: Any, true: Any) -> dict[str, float]:
        """Add a batch and return the scores of this batch alone."""
        self.update(predicted, true)
        batch = HeadPoseScores(keep_heads=True, options=self.options)
        batch._source = self._source
        batch.update(predicted, true)
        return batch.compute()

    def _all(self) -> Pairs:
        if not self._heads:
            return Pairs(np.empty((0, 3)), np.empty((0, 3)))
        heads = self._heads
        predicted, true = heads[0].predicted_rotation, heads[0].true_rotation
        return Pairs(
            np.concatenate([h.predicted_deg for h in heads]),
            np.concatenate([h.true_deg for h in heads]),
            None if predicted is None else np.concatenate([h.predicted_rotation for h in heads]),
            None if true is None else np.concatenate([h.true_rotation for h in heads]),
        )

    def _check_kind(self, pairs: Pairs) -> None:
        if self._heads and [a is None for a in self._heads[0]] != [a is None for a in pairs]:
            raise UbhpdError(
                "A batch has angles where an earlier one has rotations: give the same kind in every batch."
            )


def _angles_and_rotation(values: Any, word: str) -> tuple[FloatArray, FloatArray | None]:
    for step in ("detach", "cpu"):  # a tensor of torch, without importing torch
        if hasattr(values, step):
            values = getattr(values, step)()
    if hasattr(values, "dtype") and "bfloat16" in str(values.dtype):
        values = values.float()
    a = np.array(values, dtype=np.float64)
    if a.ndim == 3 and a.shape[1:] == (3, 3):
        return euler_from_matrix(a), a
    if a.ndim != 2 or a.shape[1] != 3:
        raise UbhpdError(f"The {word} heads have shape {a.shape}: give angles (n, 3) or rotations (n, 3, 3).")
    return a, None
