import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_data import heads

from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import matrix_from_euler
from ubhpd.evaluation.metric_cards import scores_of_whole_sets
from ubhpd.evaluation.pairing import known
from ubhpd.evaluation.scoring import ScoreOptions, score_arrays
from ubhpd.evaluation.torchmetric import HeadPoseScores

SOURCE = known()["300W-LP"].counts


@settings(max_examples=25)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.booleans())
def test_batches_do_not_matter(sizes, keep_heads):
    predicted, true = heads(sum(sizes))
    collected = HeadPoseScores("300W-LP", keep_heads=keep_heads)
    at = 0
    for size in sizes:
        collected.update(predicted[at : at + size], true[at : at + size])
        at += size
    found, whole = collected.compute(), score_arrays(predicted, true, SOURCE)
    assert set(whole) - set(found) == (set() if keep_heads else scores_of_whole_sets())
    for name, value in found.items():
        assert value == pytest.approx(whole[name], nan_ok=True, abs=1e-9), name


def test_rotations_are_taken_as_they_are():
    predicted, true = heads(30)
    collected = HeadPoseScores()
    collected.update(matrix_from_euler(predicted), matrix_from_euler(true))
    assert collected.compute()["geodesic"] == pytest.approx(score_arrays(predicted, true)["geodesic"])


def test_calling_it_gives_the_batch_and_keeps_the_whole():
    predicted, true = heads(20)
    collected = HeadPoseScores()
    first = collected(predicted[:5], true[:5])
    collected(predicted[5:], true[5:])
    assert first["mae"] == pytest.approx(score_arrays(predicted[:5], true[:5])["mae"])
    assert collected.compute()["mae"] == pytest.approx(score_arrays(predicted, true)["mae"])
    collected.reset()
    assert np.isnan(collected.compute()["mae"])


def test_a_bad_batch_is_refused_whole():
    predicted, true = heads(10)
    collected = HeadPoseScores()
    collected.update(predicted, true)
    before = collected.compute()
    for bad in (predicted[:4], predicted[:, :2], np.full((10, 3), np.nan)):
        with pytest.raises(UbhpdError):
            collected.update(bad, true)
    with pytest.raises(UbhpdError, match="same kind"):
        collected.update(matrix_from_euler(predicted), true)
    assert repr(collected.compute()) == repr(before)


def test_what_needs_every_head_says_so():
    with pytest.raises(UbhpdError, match="keep_heads"):
        HeadPoseScores(keep_heads=False, options=ScoreOptions(exclude_outside=True))
    assert np.isnan(HeadPoseScores(keep_heads=False).compute()["mae"])


def test_tensors_are_taken_from_any_type():
    torch = pytest.importorskip("torch", reason="torch is an optional extra")
    predicted, true = heads(10)
    for kind in (torch.float64, torch.float32):
        collected = HeadPoseScores()
        collected.update(torch.tensor(predicted, dtype=kind, requires_grad=True), torch.tensor(true, dtype=kind))
        assert collected.compute()["mae"] == pytest.approx(score_arrays(predicted, true)["mae"], abs=1e-4)


class Tensor:
    """Stands for a tensor: it has to be detached and brought to the processor before numpy can read it."""

    def __init__(self, values, ready=0):
        self.values, self.ready = values, ready

    def detach(self):
        return Tensor(self.values, self.ready + 1)

    def cpu(self):
        return Tensor(self.values, self.ready + 1)

    def __array__(self, dtype=None, copy=None):
        assert self.ready == 2, "read before it was detached and moved"
        return np.asarray(self.values, dtype)


def test_what_behaves_as_a_tensor_is_one():
    predicted, true = heads(10)
    collected = HeadPoseScores()
    collected.update(Tensor(predicted), Tensor(true))
    assert collected.compute()["mae"] == pytest.approx(score_arrays(predicted, true)["mae"])


def test_torch_is_not_imported():
    code = "import sys, ubhpd.evaluation.torchmetric; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
