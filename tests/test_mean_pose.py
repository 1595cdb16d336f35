import numpy as np
import pytest

from ubhpd.baselines import mean_pose
from ubhpd.core import rotation
from ubhpd.core.errors import UbhpdError
from ubhpd.nn.inputs import Heads


def heads(angles):
    angles = np.asarray(angles, dtype=np.float64)
    n = len(angles)
    matrices = rotation.matrix_from_euler(angles)
    return Heads([f"h{i}" for i in range(n)], angles, matrices, np.full((n, 68, 2), np.nan), np.full((n, 2), np.nan))


POSES = heads([[0, 0, 0], [30, 10, -4], [60, -40, 10]])


@pytest.mark.parametrize(("of", "expected"), [("mean", [30, (10 - 40) / 3, (-4 + 10) / 3]), ("median", [30, 0, 0])])
def test_the_answer_is_the_mean_or_the_median_of_each_angle(of, expected):
    config = mean_pose.Config(of)
    answer = mean_pose.solve(config, mean_pose.fit(config, POSES), heads(np.zeros((5, 3))))
    assert answer.shape == (5, 3)
    assert np.allclose(answer, expected)


def test_the_mean_rotation_lies_halfway_between_two_turns_about_one_axis():
    config = mean_pose.Config("rotation")
    assert np.allclose(mean_pose.fit(config, heads([[-20, 0, 0], [60, 0, 0]]))["angles_deg"], [20, 0, 0])


def test_no_rotation_is_nearer_to_all_heads_than_the_mean_rotation():
    rng = np.random.default_rng(0)
    some = heads(rng.uniform(-60, 60, (40, 3)))
    mean = mean_pose.fit(mean_pose.Config("rotation"), some)["angles_deg"]

    def squared_chords(angles):
        return ((rotation.matrix_from_euler(angles) - some.rotation) ** 2).sum()

    assert all(squared_chords(mean) < squared_chords(mean + rng.normal(0, 2, 3)) for _ in range(50))


def test_heads_without_a_known_pose_are_refused():
    with pytest.raises(UbhpdError, match="known"):
        mean_pose.fit(mean_pose.Config(), POSES._replace(angles_deg=None))


def test_an_unknown_mean_is_refused():
    with pytest.raises(UbhpdError, match="choose from mean, median, rotation"):
        mean_pose.Config("mode")


def test_no_torch_is_needed(tmp_path):
    import subprocess
    import sys

    script = "import sys; import ubhpd.baselines.mean_pose; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
