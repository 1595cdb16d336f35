"""The one pass over all metrics: against the metrics one by one, and the laws that hold for every score."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import needs
from scipy.spatial.transform import Rotation
from score_data import HOPENET, heads

from ubhpd.core.rotation import euler_from_matrix, matrix_from_euler
from ubhpd.evaluation import predictions, scoring
from ubhpd.evaluation import scoring as relative
from ubhpd.evaluation.pairing import known, pair
from ubhpd.evaluation.scoring import Pairs, ScoreOptions, bin_table, sample_errors, score, score_arrays, sums
from ubhpd.metrics import aligned, balanced, geodesic, mae, maev, ubmae

SOURCE = np.full((3, 15), 50.0)
SEEDS = st.integers(0, 10_000)


def same(a, b, tolerance=1e-7):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name] == pytest.approx(b[name], abs=tolerance, nan_ok=True), name


@given(SEEDS)
def test_the_closed_form_is_the_convention(seed):
    angles = np.random.default_rng(seed).uniform(-180, 180, (50, 3))
    found = relative.canonical_matrices(angles)
    assert np.moveaxis(found, -1, 0) == pytest.approx(matrix_from_euler(angles), abs=1e-12)
    out = np.empty((3, 3, 25))
    relative.relative(found[:, :, :25], found[:, :, 25:], out)
    wanted = np.swapaxes(matrix_from_euler(angles[:25]), 1, 2) @ matrix_from_euler(angles[25:])
    assert np.moveaxis(out, -1, 0) == pytest.approx(wanted, abs=1e-12)


def test_cosine_and_sine_hold_at_every_quarter_turn():
    angles = np.array([[0.0, 90.0, 180.0], [-180.0, -90.0, 270.0], [360.0, 540.0, 893.0], [1e-9, -720.0, 45.0]])
    found = np.moveaxis(relative.canonical_matrices(angles), -1, 0)
    assert found == pytest.approx(matrix_from_euler(angles), abs=1e-14)


def test_one_pass_equals_the_metrics_one_by_one():
    predicted, true = heads(1500, noise=6.0)
    p, t = matrix_from_euler(predicted), matrix_from_euler(true)
    found = score(Pairs(predicted, true), source_counts=SOURCE).scores
    assert found["mae"] == pytest.approx(mae.mae(predicted, true).mean)
    assert found["mae_wrapped_roll"] == pytest.approx(mae.mae_wrapped(predicted, true).roll)
    assert found["geodesic"] == pytest.approx(geodesic.geodesic(p, t).mean)
    assert found["maev"] == pytest.approx(maev.maev(p, t).mean)
    assert found["geodesic_aligned"] == pytest.approx(aligned.aligned(p, t).mean)
    assert found["balanced_mae"] == pytest.approx(balanced.balanced_mae(predicted, true))
    assert found["bmae"] == pytest.approx(balanced.bmae(p, t))
    assert found["ubmae"] == pytest.approx(float(ubmae.ubmae(predicted, true, SOURCE).value))


@settings(max_examples=25)
@given(SEEDS)
def test_the_order_of_the_heads_does_not_matter(seed):
    predicted, true = heads(80, seed=seed)
    order = np.random.default_rng(seed).permutation(80)
    same(score_arrays(predicted, true, SOURCE), score_arrays(predicted[order], true[order], SOURCE))


@pytest.mark.parametrize("chunk", [1, 7, 64, 10_000])
def test_the_chunks_do_not_matter(chunk, monkeypatch):
    predicted, true = heads(100)
    whole = score_arrays(predicted, true, SOURCE)
    monkeypatch.setattr(scoring, "CHUNK", chunk)
    same(score_arrays(predicted, true, SOURCE), whole)


@settings(max_examples=25)
@given(SEEDS, st.integers(1, 79))
def test_sums_of_two_parts_are_the_sums_of_the_whole(seed, cut):
    predicted, true = heads(80, seed=seed)
    errors = sample_errors(Pairs(predicted, true))
    whole, parts = sums(errors), [sums(errors.rows(0, cut)), sums(errors.rows(cut, 80))]
    for name, value in whole.items():
        assert value == pytest.approx(parts[0][name] + parts[1][name]), name


def test_float32_differs_by_its_rounding_only():
    predicted, true = heads()
    single = score_arrays(predicted.astype(np.float32), true.astype(np.float32), SOURCE)
    same(score_arrays(predicted, true, SOURCE), single, tolerance=1e-3)


@settings(max_examples=25)
@given(SEEDS)
def test_one_rotation_applied_to_both_leaves_the_rotation_errors(seed):
    predicted, true = heads(40, seed=seed)
    turn = Rotation.from_quat(np.random.default_rng(seed).normal(size=4)).as_matrix()
    p, t = turn @ matrix_from_euler(predicted), turn @ matrix_from_euler(true)
    turned = score(Pairs(euler_from_matrix(p), euler_from_matrix(t), p, t)).scores
    plain = score_arrays(predicted, true)
    for name in ("geodesic", "maev", "geodesic_aligned"):
        assert turned[name] == pytest.approx(plain[name], abs=1e-6)


def test_rotations_are_used_where_they_are_given():
    predicted, true = heads(30)
    given_rotations = score(Pairs(predicted, true, matrix_from_euler(predicted), matrix_from_euler(true))).scores
    same(given_rotations, score_arrays(predicted, true))
    identity = np.tile(np.eye(3), (30, 1, 1))
    assert score(Pairs(predicted, true, identity, identity)).scores["geodesic"] == 0.0


def test_heads_outside_the_bins_are_counted_and_left_out_only_by_name():
    predicted, true = heads(50)
    true[3], true[4, 1] = [120.0, 0.0, 0.0], -95.0
    kept = score(Pairs(predicted, true))
    assert kept.outside.tolist() == [1, 1, 0] and len(kept.errors) == 50 and kept.excluded == 0
    assert kept.statistics["bin_n"].sum() == 150 - 2
    out = score(Pairs(predicted, true), ScoreOptions(exclude_outside=True))
    assert len(out.errors) == 48 and out.excluded == 2 and 3 not in out.kept and 4 not in out.kept
    rows = [i for i in range(50) if i not in (3, 4)]
    same(out.scores, score_arrays(predicted[rows], true[rows]))


def test_the_bin_table_has_the_weights_of_ubmae():
    predicted, true = heads()
    scored = score(Pairs(predicted, true), source_counts=SOURCE)
    tables = bin_table(scored)
    found = ubmae.ubmae(predicted, true, SOURCE)
    assert tables["weight"] == pytest.approx(found.weight)
    assert tables["error"] == pytest.approx(found.error, nan_ok=True)
    assert tables["target"].sum(axis=1) == pytest.approx([1.0, 1.0, 1.0])


def test_scores_without_a_training_set_do_not_invent_one():
    assert not {"ubmae", "ubmae_printed", "mae_few"} & score_arrays(*heads(20)).keys()


@needs("predictions")
def test_hopenet_gives_the_numbers_of_its_table():
    scored = score(pair(predictions.read(HOPENET)).pairs, source_counts=known()["300W-LP"].counts)
    assert len(scored.errors) == 1969
    wanted = {"mae_yaw": 6.898, "mae_pitch": 6.640, "mae_roll": 5.673, "mae": 6.404}
    for name, value in wanted.items():
        assert scored.scores[name] == pytest.approx(value, abs=5e-4)
    beyond = np.abs(pair(predictions.read(HOPENET)).pairs.true_deg) > 90
    assert beyond.any(axis=1).sum() == 5  # heads; two angles of one head count twice per angle
    assert scored.outside.sum() == beyond.sum()
