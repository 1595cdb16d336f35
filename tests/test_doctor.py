"""Each hypothesis is planted in good predictions and must be named, and good predictions must get no name."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from realdata import REAL, needs
from scipy.spatial.transform import Rotation
from score_data import HOPENET, heads, write_csv, write_manifest

from ubhpd.cli import root
from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import euler_from_matrix, matrix_from_euler, wrap_deg
from ubhpd.evaluation import predictions
from ubhpd.evaluation.doctor import Diagnosis, Finding, diagnose, examine
from ubhpd.evaluation.evaluate import evaluate
from ubhpd.evaluation.report import score_text
from ubhpd.evaluation.torchmetric import sixdrepnet_folded_mae

NOISE = 4.0


def mean_error(predicted, true):
    return float(np.abs(wrap_deg(predicted - true)).mean())


def in_order(ypr, axes, signs=(-1, -1, -1)):
    """Return yaw, pitch, roll that somebody reads off the same rotations in another order of the axes."""
    found = Rotation.from_matrix(matrix_from_euler(ypr)).as_euler(axes, degrees=True)
    by_axis = dict(zip(axes, found.T, strict=True))
    return np.stack([by_axis["Y"] * signs[1], by_axis["X"] * signs[0], by_axis["Z"] * signs[2]], axis=1)


def turned(ypr, by, frame):
    r, o = matrix_from_euler(ypr), matrix_from_euler(by)
    return euler_from_matrix(r @ o if frame == "head" else o @ r)


def folded(ypr, share=0.05):
    out = ypr.copy()
    chosen = np.random.default_rng(1).random(len(out)) < share
    out[chosen, 0] = wrap_deg(out[chosen, 0] + 180.0)
    return out


PLANTED = {
    "radians": (np.radians, "radians", "180/pi"),
    "pitch first": (lambda p: p[:, [1, 0, 2]], "column_order", "hold pitch,yaw,roll"),
    "roll first": (lambda p: p[:, [2, 1, 0]], "column_order", "hold roll,pitch,yaw"),
    "rotated columns": (lambda p: p[:, [1, 2, 0]], "column_order", "hold pitch,roll,yaw"),
    "yaw flipped": (lambda p: p * [-1, 1, 1], "sign", "yaw is flipped"),
    "pitch flipped": (lambda p: p * [1, -1, 1], "sign", "pitch is flipped"),
    "roll of AFLW": (lambda p: p * [1, 1, -1], "sign", "AFLW counts roll the other way"),
    "all flipped": (lambda p: -p, "sign", "yaw and pitch and roll"),
    "order and sign": (lambda p: p[:, [1, 0, 2]] * [1, -1, 1], "column_order", "the sign of yaw is flipped"),
    "transposed": (lambda p: euler_from_matrix(np.swapaxes(matrix_from_euler(p), 1, 2)), "transposed", "transpose"),
    "XZY": (lambda p: in_order(p, "XZY"), "euler_order", "Euler order XZY"),
    "YXZ": (lambda p: in_order(p, "YXZ"), "euler_order", "Euler order YXZ"),
    "ZYX": (lambda p: in_order(p, "ZYX"), "euler_order", "Euler order ZYX"),
    "AFLW": (lambda p: in_order(p, "YXZ", (-1, -1, 1)), "euler_order", "AFLW's convention"),
    "another frontal head": (lambda p: turned(p, [5, -12, 4], "head"), "offset", "head's frame"),
    "a tilted camera": (lambda p: turned(p, [3, 14, -4], "camera"), "offset", "camera's frame"),
    "folded": (folded, "folded", "180 degrees off"),
    "left edge of bins": (lambda p: p - 1.5, "bin_edge", "left edge"),
    "full turns": (lambda p: np.where(p < 0, p + 360.0, p), "full_turn", "full turn"),
    "shuffled": (lambda p: p[np.random.default_rng(2).permutation(len(p))], "shuffled", "ids are shuffled"),
    "one row late": (lambda p: np.roll(p, 1, axis=0), "shifted", "1 row too late"),
    "two rows early": (lambda p: np.roll(p, -2, axis=0), "shifted", "2 rows too early"),
    "constant": (lambda p: p * 0.0 + np.array([1.0, 2.0, 3.0]), "constant", "hardly changes"),
    "one angle constant": (lambda p: p * [0, 1, 1], "constant", "yaw 0.00"),
}


@pytest.mark.parametrize("what", PLANTED)
def test_what_is_planted_is_found_and_comes_first(what):
    plant, kind, said = PLANTED[what]
    predicted, true = heads(1500, NOISE, spread=(28.0, 22.0, 16.0))
    found = examine(plant(predicted), true)
    kinds = [f.kind for f in found.findings]
    assert kind in kinds, found.findings
    finding = found.findings[kinds.index(kind)]
    assert said in finding.text + finding.fix
    assert found.exit_code == 1
    if finding.after is not None and kind not in ("full_turn", "bin_edge", "offset"):
        assert found.corrected_deg == pytest.approx(mean_error(predicted, true), abs=0.4)
    if finding.before is not None and finding.after is not None:
        assert finding.after < finding.before
    allowed = {kind, "full_turn", "column_order" if what == "order and sign" else kind}
    assert {f.kind for f in found.findings if f.severity != "note"} <= allowed, found.findings


def quaternion(ypr, order):
    q = Rotation.from_matrix(matrix_from_euler(ypr)).as_quat()[:, order]
    return Rotation.from_quat(q).as_matrix()


TURN_X = np.diag([1.0, -1.0, -1.0])
AS_ROTATIONS = {
    "scalar first": (lambda p: quaternion(p, [3, 0, 1, 2]), "quaternion_order", "hold w,x,y,z (scalar first)"),
    "transposed": (lambda p: np.swapaxes(matrix_from_euler(p), 1, 2), "transposed", "transposed"),
    "head turned about x": (lambda p: matrix_from_euler(p) @ TURN_X, "frame", "head's frame is turned by 180 degrees"),
    "camera turned about x": (lambda p: TURN_X @ matrix_from_euler(p), "frame", "camera's frame is turned by 180"),
    "y down, z away": (lambda p: TURN_X @ matrix_from_euler(p) @ TURN_X, "sign", "camera frame with y down"),
}


@pytest.mark.parametrize("what", AS_ROTATIONS)
def test_mistakes_in_rotations_are_named_alone(what):
    plant, kind, said = AS_ROTATIONS[what]
    predicted, true = heads(600, NOISE, spread=(28.0, 22.0, 16.0))
    rotation = plant(predicted)
    found = examine(euler_from_matrix(rotation), true, predicted_rotation=rotation)
    assert [f.kind for f in found.findings] == [kind] and said in found.findings[0].text
    assert found.corrected_deg == pytest.approx(mean_error(predicted, true), abs=0.1)


@pytest.mark.parametrize("factor", [90.0, 99.0, 180.0])
def test_a_constant_factor_is_named_and_radians_stay_radians(factor):
    predicted, true = heads(600, NOISE)
    found = examine(predicted / factor, true)
    assert [f.kind for f in found.findings] == ["scale"] and f"divided by {factor:g} " in found.findings[0].text
    assert found.corrected_deg == pytest.approx(mean_error(predicted, true))
    assert [f.kind for f in examine(np.radians(predicted), true).findings] == ["radians"]


def test_units_scales_classes_parts_and_steps_are_named():
    predicted, true = heads(600, 2.0)
    half = predicted.copy()
    half[250:] *= [-1.0, 1.0, -1.0]
    for changed, kind, said in (
        (0.9 * predicted, "scale", "scaled by 0.9"),
        ((predicted + 99.0) / 3.0, "class_index", "class indices of 3-degree bins"),
        (half, "part_of_rows", "from row 25"),
        (15.0 * np.rint(predicted / 15.0), "quantised", "in steps of yaw 15, pitch 15, roll 15 degrees"),
    ):
        found = [f for f in examine(changed, true).findings if f.severity != "note"]
        assert [f.kind for f in found] == [kind] and said in found[0].text


def test_an_offset_of_each_dataset_is_named():
    predicted, true = heads(600, 2.0)
    changed = predicted.copy()
    changed[::2], changed[1::2] = (
        turned(predicted[::2], [12, 0, 5], "head"),
        turned(predicted[1::2], [-10, 8, 0], "head"),
    )
    found = examine(changed, true, ids=[f"{'ab'[i % 2]}/{i}" for i in range(600)])
    assert [f.kind for f in found.findings] == ["offset_by_dataset"]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (lambda n: int(n.split("/")[1]), "sorted by the number in the file name without folder"),
        (lambda n: (n.split("/")[0], int(n.split("/")[1])), "sorted by their numbers"),
    ],
)
def test_rows_in_another_order_of_the_same_names_are_named(key, said):
    predicted, true = heads(300, NOISE)
    ids = sorted(f"{'abc'[i % 3]}/{i}" for i in range(300))  # as text: a/0, a/102, a/105, ...
    order = sorted(range(300), key=lambda i: key(ids[i]))
    found = examine(predicted[order], true, ids=ids)
    assert [f.kind for f in found.findings] == ["row_order"] and said in found.findings[0].text
    assert found.corrected_deg == pytest.approx(mean_error(predicted, true))


def test_heads_of_the_full_range_are_sound_as_rotations_and_as_angles():
    rng = np.random.default_rng(3)
    true = np.stack([rng.uniform(-180, 180, 400), *rng.normal(0, 15, (2, 400))], axis=1)
    predicted = true + 4.0 * rng.normal(size=true.shape)
    assert examine(predicted, true).findings == ()
    rotation = matrix_from_euler(predicted)
    assert examine(euler_from_matrix(rotation), true, predicted_rotation=rotation).findings == ()


def test_the_truth_in_radians_is_named():
    predicted, true = heads(200, NOISE)
    for values, kinds in ((predicted, ["truth_in_radians"]), (np.radians(predicted), ["truth_in_radians", "radians"])):
        found = examine(values, np.radians(true))
        assert [f.kind for f in found.findings] == kinds
        assert found.corrected_deg == pytest.approx(mean_error(predicted, true))


def test_an_error_that_nothing_explains_is_said_to_be_unexplained():
    rng = np.random.default_rng(0)
    _, true = heads(400)
    found = examine(rng.uniform(-90, 90, (400, 3)), true)
    assert [f.kind for f in found.findings] == ["unexplained"]
    assert found.findings[0].text.startswith("unexplained: ") and found.exit_code == 1


@pytest.mark.parametrize(
    ("change", "said", "fix"),
    [
        (lambda r: 1.5 * r, "scaled by 1.5", "divide the matrices by 1.5"),
        (lambda r: r * [[1.0], [-1.0], [1.0]], "mirrored, determinant -1", "multiply row 2 of the matrix by -1"),
        (lambda r: r * [1.0, 1.0, -1.0], "mirrored, determinant -1", "multiply column 3 of the matrix by -1"),
        (lambda r: r[:, [1, 0, 2]], "mirrored, determinant -1", "exchange the two rows other than 3"),
        (lambda r: r + 0.1, "not orthonormal", "singular value decomposition"),
    ],
)
def test_the_doctor_never_calls_sound_what_score_refuses(tmp_path, change, said, fix):
    predicted, true = heads(80, NOISE)
    values = np.concatenate([change(matrix_from_euler(predicted)).reshape(80, 9), true], axis=1)
    header = ",".join(["sample_id", *predictions.MATRIX, "yaw_true", "pitch_true", "roll_true"])
    rows = [",".join([f"h{i}", *map(repr, map(float, row))]) for i, row in enumerate(values)]
    path = tmp_path / "p.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    with pytest.raises(UbhpdError, match="are no rotation matrix"):
        evaluate(path)
    found = diagnose(path)
    assert found.exit_code == 1 and found.findings[0].kind == "not_a_rotation"
    assert said in found.findings[0].text and fix in found.findings[0].fix
    assert [f.kind for f in found.findings if f.kind != "not_a_rotation"] == []


def test_score_prints_what_the_doctor_finds(tmp_path):
    predicted, true = heads(200, NOISE)
    path = write_csv(tmp_path / "p.csv", predicted * [1, 1, -1], true)
    result = evaluate(path).result
    assert [f["kind"] for f in result["doctor"]] == ["sign"]
    assert "Warning: ubhpd doctor finds sign: the sign of roll is flipped" in score_text(result)


CASES = REAL.parent / "cases"
EXPECTED = {
    "doctor-normalised/by57.csv": ("radians", "180/pi", 2.9),
    "doctor-normalised/by90.csv": ("scale", "by 90", 2.9),
    "doctor-normalised/by99.csv": ("scale", "by 99", 2.9),
    "doctor-normalised/by180.csv": ("scale", "by 180", 2.9),
    "quaternion-scalar-first/scalar_first.csv": ("quaternion_order", "w,x,y,z", 2.9),
    "quaternion-scalar-first/good.csv": (None, "", 2.9),
    "all-round-heads-as-matrices/matrices.csv": (None, "", 3.1),
    "all-round-heads-as-matrices/angles.csv": (None, "", 3.1),
    "truth-in-radians/both.csv": ("truth_in_radians", "180/pi", 2.9),
    "truth-in-radians/truth_only.csv": ("truth_in_radians", "180/pi", 2.9),
    "doctor-not-a-rotation/scaled.csv": ("not_a_rotation", "1.5", 2.8),
    "doctor-not-a-rotation/mirrored.csv": ("not_a_rotation", "by -1", 2.8),
}


@pytest.mark.skipif(not CASES.is_dir(), reason="the reported cases are not here")
@pytest.mark.parametrize("name", EXPECTED)
def test_reported_cases(name):
    kind, fix, left = EXPECTED[name]
    found = diagnose(CASES / name)
    assert [f.kind for f in found.findings][:1] == ([kind] if kind else [])
    assert found.exit_code == (1 if kind else 0) and (not kind or fix in found.findings[0].fix)
    assert found.corrected_deg == pytest.approx(left, abs=0.06)


@pytest.mark.parametrize("noise", [0.0, 1.0, 5.0, 15.0])
@pytest.mark.parametrize("n", [1, 5, 40, 1500])
def test_good_predictions_get_no_finding(noise, n):
    found = examine(*heads(n, noise, seed=3))
    assert found.findings == () and found.exit_code == 0
    assert found.corrected_deg == found.error_deg


def test_several_mistakes_are_undone_one_after_the_other():
    predicted, true = heads(1500, NOISE)
    found = examine(np.radians(predicted[:, [1, 0, 2]] * [1, 1, -1]), true)
    assert [f.kind for f in found.findings] == ["radians", "column_order"]
    assert found.corrected_deg == pytest.approx(mean_error(predicted, true))


def test_folding_hides_the_error_that_the_doctor_names():
    predicted, true = heads(1500, NOISE)
    assert sixdrepnet_folded_mae(folded(predicted), true).mean == pytest.approx(mean_error(predicted, true), abs=0.05)
    assert mean_error(folded(predicted), true) > mean_error(predicted, true) + 2.5


@needs("predictions")
def test_hopenet_is_healthy():
    found = diagnose(HOPENET)
    assert found.findings == () and found.heads == 1969


@needs("predictions")
@pytest.mark.parametrize("what", sorted(set(PLANTED) - {"another frontal head", "a tilted camera"}))
def test_what_is_planted_in_hopenet_is_found(what):
    plant, kind, _ = PLANTED[what]
    file = predictions.read(HOPENET)
    assert kind in [f.kind for f in examine(plant(file.predicted_deg), file.true_deg).findings]


# files


def test_duplicates_unknown_ids_missing_heads_and_nan_are_all_said(tmp_path):
    predicted, true = heads(60, NOISE)
    manifest = write_manifest(tmp_path / "m.parquet", true)
    ids = [f"set/{i:05d}" for i in range(60)]
    ids[7], ids[9] = "set/00003", "elsewhere/1"
    values = predicted.copy()
    values[20, 1] = np.nan
    path = write_csv(tmp_path / "p.csv", values[:50], ids=ids[:50])
    found = diagnose(path, manifest)
    text = {f.kind: f.text for f in found.findings}
    assert set(text) == {"duplicated_ids", "unknown_ids", "not_a_number", "missing"}
    assert "row 8" in text["duplicated_ids"] and "row 4" in text["duplicated_ids"]
    assert "row 10" in text["unknown_ids"] and "1 of 50" in text["unknown_ids"]
    assert "set/00020" in text["not_a_number"]
    assert text["missing"].startswith("13 of 60")  # ten at the end, and heads 7, 9 and 20
    assert found.findings[0].severity == "error" and found.findings[-1].severity == "warning"
    assert found.exit_code == 1 and found.heads == 47


def test_a_file_without_one_usable_row_is_still_diagnosed(tmp_path):
    _, true = heads(5)
    found = diagnose(write_csv(tmp_path / "p.csv", np.full((5, 3), np.nan), true))
    assert [f.kind for f in found.findings] == ["not_a_number"] and found.heads == 0 and found.exit_code == 1


@pytest.mark.parametrize(("severity", "code"), [("error", 1), ("warning", 1), ("note", 0)])
def test_the_exit_code_follows_the_severity(severity, code):
    assert Diagnosis("p", 1, (Finding(severity, "k", "t", "f"),), 1.0, 1.0).exit_code == code


def test_the_command_says_finding_gain_and_fix(tmp_path):
    predicted, true = heads(500, NOISE)
    bad = write_csv(tmp_path / "bad.csv", np.radians(predicted), true)
    run = CliRunner().invoke(root, ["doctor", str(bad)])
    assert run.exit_code == 1
    assert "error: radians" in run.output and "fix: multiply" in run.output and "% less" in run.output
    good = write_csv(tmp_path / "good.csv", predicted, true)
    run = CliRunner().invoke(root, ["doctor", str(good)])
    assert run.exit_code == 0 and "Nothing found" in run.output
    run = CliRunner().invoke(root, ["doctor", str(bad), "--json"])
    assert json.loads(run.output)["findings"][0]["kind"] == "radians"
