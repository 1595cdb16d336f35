"""`ubhpd plot landmarks`: errors of pose from landmarks by their number, noise, another face, and another source."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.core.progress import Progress
from ubhpd.experiments.landmark_study import NOISE_PX, STRETCH_PERCENT, StudyRequest, landmark_study
from ubhpd.images.landmarks import POINT_COLUMNS, FillConfig, fill_landmarks
from ubhpd.pool.build import BuildConfig, build
from ubhpd.synth.writers import aflw2000_writer, biwi_writer

QUIET = Progress(show=False)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    aflw2000_writer.write(root / "raw", 24, distinct_images=1)
    biwi_writer.write(root / "raw", (1,), frames=2, with_depth=False)
    build(BuildConfig(("aflw2000", "biwi"), root / "out", str(root / "raw")))
    return root / "out"


@pytest.fixture(scope="module")
def study(built):
    return landmark_study(StudyRequest(built, heads=0), QUIET)


def line(study, figure, count):
    return {p.amount: p for p in study.points if (p.figure, p.points) == (figure, count)}


def test_true_landmarks_and_the_true_face_give_the_true_pose(study):
    assert study.heads == 22 and len(study.points) == 3 * (1 + len(NOISE_PX) + 2 * len(STRETCH_PERCENT))
    for count in (12, 49, 68):
        own = line(study, "number", count)[0]
        assert own.mae < 6 and own.heads == 22
        for figure in ("noise", "width", "height"):
            assert line(study, figure, count)[0] == own._replace(figure=figure)


def test_more_landmarks_withstand_more_noise(study):
    for count in (12, 49, 68):
        own = line(study, "noise", count)
        assert own[10].mae > own[0].mae and own[10].mae > own[4].mae
    rise = {c: line(study, "noise", c)[10].mae - line(study, "noise", c)[0].mae for c in (12, 68)}
    assert rise[68] < rise[12]


def test_another_face_gives_another_pose_about_the_axis_that_it_is_stretched_along(study):
    """A wider face looks turned away; a higher one looks up or down."""
    width, height = line(study, "width", 68), line(study, "height", 68)

    def rise(own, angle):
        return getattr(own[40], angle) - getattr(own[0], angle)

    assert rise(width, "yaw") > 2 and rise(height, "pitch") > 2
    assert rise(width, "yaw") > rise(height, "yaw") and rise(height, "pitch") > rise(width, "pitch")


def test_the_landmarks_of_a_detector_take_the_place_of_the_true_ones(built, tmp_path, ubhpd):
    pool = [r for r in manifest.read(built / "pool.parquet").to_pylist() if r["dataset"] == "aflw2000"]
    draw = np.random.default_rng(0)
    rows = [[r["sample_id"], *(np.array(r["landmarks68"]) + draw.normal(0, 6, 136))] for r in pool]
    pd.DataFrame(rows, columns=["sample_id", *POINT_COLUMNS]).to_csv(tmp_path / "fan.csv", index=False)
    fill_landmarks(FillConfig(built, tmp_path / "fan.parquet", tmp_path / "fan.csv", only_missing=False))
    code, out, err = ubhpd("plot", "landmarks", built, "--estimated", tmp_path / "fan.parquet", "--out",
                           tmp_path / "l.png")  # fmt: skip
    assert code == 0 and cv2.imread(str(tmp_path / "l.png")) is not None, err
    assert "22 heads of aflw2000" in out and "noise +10 px, 12 points:" in out
    points = json.loads((tmp_path / "l.json").read_text())["points"]
    found = {p["figure"]: p["mae"] for p in points if p["points"] == 68 and p["amount"] == 0}
    assert found["estimated"] > found["number"]


def test_the_noise_is_a_function_of_the_seed(built, study):
    again, other = (landmark_study(StudyRequest(built, heads=0, seed=s), QUIET) for s in (0, 1))
    assert again == study != other


def test_heads_without_landmarks_are_refused(built, tmp_path):
    with pytest.raises(UbhpdError, match="has 0 heads of biwi with 68 landmarks of their own"):
        landmark_study(StudyRequest(built, dataset="biwi"), QUIET)
