"""Which landmarks, which mirrors, which neighbours; and the mean face against real ones."""

import numpy as np
import pytest
import scipy.io
from realdata import REAL, needs

from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import matrix_from_angles
from ubhpd.nn.landmark_sets import LANDMARK_SETS, block, distances_mm, mean_face_mm, mirror_of, neighbours
from ubhpd.synth.renderer.shape import MIRROR_68

MIRROR_19 = (4, 3, 2, 1, 0, 8, 7, 6, 5, 11, 10, 9, 15, 14, 13, 12, 18, 17, 16)


def test_the_mean_face_is_its_own_mirror_image():
    face = mean_face_mm()
    assert np.isfinite(face).all()
    assert np.array_equal(face[list(mirror_of(range(68)))] * (-1, 1, 1), face)
    assert face[30, 2] == face[:, 2].max()  # the tip of the nose
    assert face[8, 1] == face[:, 1].min()  # the chin
    assert face[0, 0] == face[:, 0].min()  # the image-left ear


def test_mirrors_are_those_of_the_68_and_of_the_19_nodes():
    assert mirror_of(range(68)) == tuple(MIRROR_68)
    assert mirror_of(LANDMARK_SETS[19]) == MIRROR_19
    with pytest.raises(UbhpdError, match="Landmark 36 has no mirror in its set: add 45"):
        mirror_of((8, 36))


@pytest.mark.parametrize("count", LANDMARK_SETS)
def test_a_set_is_sorted_and_mirroring_twice_is_no_change(count):
    nodes = LANDMARK_SETS[count]
    mirror = mirror_of(nodes)
    assert len(nodes) == count and list(nodes) == sorted(set(nodes))
    assert [mirror[i] for i in mirror] == list(range(count))
    assert set(LANDMARK_SETS[19]) <= set(nodes)


def test_the_34_follow_their_rule():
    distance, mirror, taken = distances_mm(range(68)), mirror_of(range(68)), set(LANDMARK_SETS[19])
    while len(taken) < 34:
        pairs = ({i, mirror[i]} for i in range(68) if i not in taken)
        fitting = [pair for pair in pairs if len(taken) + len(pair) <= 34]
        taken |= max(fitting, key=lambda pair: distance[min(pair), sorted(taken)].min())
    assert tuple(sorted(taken)) == LANDMARK_SETS[34]


@pytest.mark.parametrize("nodes", LANDMARK_SETS.values(), ids=len)
@pytest.mark.parametrize("count", [1, 3, 5, 7, 18])
def test_neighbours_are_the_nearest_and_mirror_with_the_face(nodes, count):
    near, distance = neighbours(nodes, count), distances_mm(nodes)
    mirror = np.array(mirror_of(nodes))
    assert np.array_equal(near[mirror][:, mirror], near)
    assert not near.diagonal().any()
    assert set(near.sum(axis=1)) <= {count, count + 1}
    others = ~near & ~np.eye(len(nodes), dtype=bool)
    farthest_in = np.where(near, distance, 0).max(axis=1)
    assert (np.where(others, distance, np.inf).min(axis=1) > farthest_in).all()


@pytest.mark.parametrize("nodes", LANDMARK_SETS.values(), ids=len)
@pytest.mark.parametrize("count", [3, 5, 7, 9, 18])
def test_without_ties_every_row_holds_as_many_neighbours_as_asked_for(nodes, count):
    every, first = neighbours(nodes, count), neighbours(nodes, count, "first")
    assert (first.sum(axis=1) == count).all() and not first[~every].any()
    distance = distances_mm(nodes).round(6)
    for row in np.flatnonzero(every.sum(axis=1) > count):  # the last of those that are equally far is left out
        (left_out,) = np.flatnonzero(every[row] & ~first[row])
        tied = np.flatnonzero(distance[row] == distance[row, left_out])
        assert distance[row, left_out] == distance[row, every[row]].max() and left_out == tied.max()
    if len(nodes) == 19 and count in (5, 7, 9):
        assert (every.sum(axis=1) > count).any()


def test_the_block_of_equation_7():
    mask = block(LANDMARK_SETS[19], 7)
    assert mask[:7, :7].all() and mask.sum() == 49
    with pytest.raises(UbhpdError, match="has no 20 rows: choose 1 to 19"):
        block(LANDMARK_SETS[19], 20)


def test_neighbours_told_by_hand():
    near = neighbours(LANDMARK_SETS[19], 3)
    assert list(np.flatnonzero(near[13])) == [6, 12, 14]  # an inner eye corner: inner brow end, both eye corners beside
    assert list(np.flatnonzero(near[17])) == [9, 10, 11]  # the upper lip: the base of the nose
    assert neighbours(LANDMARK_SETS[19], 18).sum() == 19 * 18


@pytest.mark.parametrize("count", [0, 19])
def test_a_number_of_neighbours_that_cannot_be_is_refused(count):
    with pytest.raises(UbhpdError, match=f"A node of 19 has no {count} neighbours: choose 1 to 18"):
        neighbours(LANDMARK_SETS[19], count)


@needs("AFLW2000")
def test_the_mean_face_is_near_that_of_real_heads():
    """Landmarks in space, turned back by their labels and averaged: the faces agree to half a centimetre."""
    turned = []
    for file in sorted((REAL / "AFLW2000").glob("*.mat"))[:100]:
        labels = scipy.io.loadmat(file)
        points = labels["pt3d_68"].T.astype(float) * (1, -1, 1)
        rotation = matrix_from_angles(labels["Pose_Para"][0, :3], "300wlp")
        turned.append((points - points.mean(axis=0)) @ rotation / labels["Pose_Para"][0, 6])
    real, own = np.mean(turned, axis=0), mean_face_mm() - mean_face_mm().mean(axis=0)
    real *= (real * own).sum() / (real**2).sum()
    distance = np.linalg.norm(real - own, axis=1)
    assert distance.mean() < 6 and distance.max() < 13
