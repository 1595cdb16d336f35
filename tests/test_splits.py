"""Splits: the share, likeness of the sides, what may not be on both, and independence of the order."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import REAL, needs

from ubhpd.core.errors import UbhpdError
from ubhpd.sampling import heads, splits
from ubhpd.sampling import splits as groups


def random_pool(n, seed, spread=20.0):
    """Heads of recordings with people, photographs with renderings and mirror images, and loose heads."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, n)
    ids = rng.permutation(n)
    sequence = np.where(kind == 0, rng.integers(0, max(n // 20, 1), n), 1_000_000)
    flip_of = np.where((kind == 1) & (rng.random(n) < 0.3), rng.integers(0, 2 * n, n), -1)
    return heads.from_arrays(
        rng.normal(size=(n, 3)) * spread,
        ids,
        kind,
        np.where((kind == 0) & (sequence % 3 > 0), sequence // 2, -1),
        sequence,
        np.where(kind == 0, rng.integers(0, 500, n), -1),
        np.where(kind == 1, rng.integers(0, max(n // 3, 1), n), -1),
        flip_of,
    )


pools = st.builds(random_pool, st.integers(2, 300), st.integers(0, 2**32), st.sampled_from([0.0, 20.0, 60.0]))


def shared(keys, train):
    """Return the names, 0 aside, that are in both splits."""
    return (set(keys[train].tolist()) & set(keys[~train].tolist())) - {0}


@settings(max_examples=60, deadline=None)
@given(pools, st.integers(0, 3))
def test_a_subject_split_leaks_nothing(pool, seed):
    try:
        train = splits.split(pool, "subject", seed).side == "train"
    except UbhpdError:
        assert groups.by_person(pool).max() == 0
        return
    assert 0 < train.sum() < len(pool)
    assert not shared(pool.subject, train)
    assert not shared(pool.photo, train)
    filmed = pool.frame_index >= 0
    assert not shared(np.where(filmed, pool.sequence, 0), train)
    assert not set(pool.flip_of[train].tolist()) & set(pool.sample[~train].tolist())
    assert not set(pool.flip_of[~train].tolist()) & set(pool.sample[train].tolist())
    assert not shared(pool.flip_of, train)


@settings(max_examples=40, deadline=None)
@given(pools, st.integers(0, 3))
def test_a_sequence_split_keeps_recordings_whole(pool, seed):
    try:
        train = splits.split(pool, "sequence", seed).side == "train"
    except UbhpdError:
        assert groups.by_recording(pool).max() == 0
        return
    assert not shared(np.where(pool.frame_index >= 0, pool.sequence, 0), train)


@settings(max_examples=40, deadline=None)
@given(pools, st.sampled_from(splits.FORMS), st.integers(0, 3), st.floats(0.05, 0.95), st.randoms())
def test_a_split_does_not_depend_on_the_order(pool, form, seed, share, random):
    try:
        result = splits.split(pool, form, seed, share)
    except UbhpdError:
        return
    order = np.array(random.sample(range(len(pool)), len(pool)))
    shuffled = splits.split(pool.take(order), form, seed, share)
    np.testing.assert_array_equal(shuffled.side, result.side[order])
    assert shuffled.as_dict() == result.as_dict()
    if form == "random":
        assert abs((result.side == "train").sum() - share * len(pool)) <= 1


@pytest.mark.parametrize("form", splits.FORMS)
def test_both_sides_of_a_large_pool_are_alike(form):
    result = splits.split(random_pool(50_000, 0), form)
    assert result.share == pytest.approx(0.7, abs=0.0002)
    assert (result.distance < 0.002).all()
    chance = np.random.default_rng(0).random(50_000) < 0.7
    index = splits.bins.bin_index(random_pool(50_000, 0).ypr_deg)
    assert (result.distance < splits._distance(index, chance) / 5).all()


def test_random_is_even_over_cells_and_datasets():
    # 100 frontal heads of two datasets and 100 at yaw 45: 70 of each cell, 35 of each dataset
    ypr = np.zeros((200, 3))
    ypr[100:, 0] = 45
    pool = heads.from_arrays(ypr, np.arange(200), np.arange(200) % 2)
    train = splits.split(pool, "random").side == "train"
    assert train[:100].sum() == train[100:].sum() == 70
    assert [train[d::2].sum() for d in (0, 1)] == [70, 70]
    assert train[:100:2].sum() == 35


def test_another_seed_gives_another_split():
    pool = random_pool(2000, 1)
    for form in splits.FORMS:
        first, again, other = (splits.split(pool, form, s).side for s in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert (first != other).mean() > 0.1


def test_another_seed_divides_a_cell_of_one_dataset_otherwise():
    pool = heads.from_arrays(np.zeros((1000, 3)), np.arange(1000))
    first, other = (splits.split(pool, "random", s).side for s in (0, 1))
    assert (first != other).mean() > 0.3


def test_the_best_of_a_few_groups_is_found():
    # Ten people, of 10 heads each; two of them look left, the others straight on: 7 train, of them 1.4 left.
    ypr = np.zeros((100, 3))
    ypr[:20, 0] = 40
    pool = heads.from_arrays(ypr, np.arange(100), subject=np.repeat(np.arange(10), 10))
    result = splits.split(pool, "subject", seed=5)
    train = result.side == "train"
    assert (result.share, result.groups, train[:20].sum()) == (0.7, 10, 10)
    # train: 10 of 70 left, test: 10 of 30 left
    assert result.distance == pytest.approx([10 / 30 - 10 / 70, 0, 0])


@needs("labels")
def test_biwi_by_subject_is_the_best_of_all_divisions():
    table = pd.read_csv(REAL / "labels/biwi_labels.csv", dtype={"sequence": str})
    name = "biwi/" + table.sequence + "/" + table.frame.astype(str)
    pool = heads.from_arrays(
        table[["yaw", "pitch", "roll"]], list(name), None, list(table.subject), list(table.sequence), table.frame
    )
    result = splits.split(pool, "subject")
    index = splits.bins.bin_index(pool.ypr_deg)
    rows = np.where(index < 0, 15, index) + 16 * np.arange(3)
    _, person = np.unique(table.subject, return_inverse=True)
    profile = np.zeros((20, 48))
    np.add.at(profile, (np.repeat(person, 3), rows.ravel()), 1)
    wanted = 0.7 * profile.sum(axis=0)
    bits = (np.arange(1024)[:, None] >> np.arange(10)) & 1
    first, second = bits @ profile[:10], bits @ profile[10:]
    best = min(np.abs(first[i] + second - wanted).sum(axis=1).min() for i in range(1024))
    train = np.bincount(rows[result.side == "train"].ravel(), minlength=48)
    assert np.abs(train - wanted).sum() == pytest.approx(best)
    assert result.share == pytest.approx(0.7, abs=0.01)
    assert splits.split(pool, "sequence").groups == 24


def test_heads_outside_the_bins_are_divided_too():
    ypr = np.full((100, 3), 120.0)
    ypr[:50] = np.nan
    result = splits.split(heads.from_arrays(ypr, np.arange(100)), "random")
    assert (result.side == "train").sum() == 70
    assert result.as_dict()["distance"] == [None, None, None]


def test_a_folder_is_no_recording():
    pool = heads.from_arrays(np.zeros((100, 3)), np.arange(100), sequence=np.zeros(100, dtype=int))
    assert splits.split(pool, "sequence").groups == 100


def test_a_mirror_image_of_an_absent_head_links():
    # 1 and 2 both mirror sample 77, which is not there; 3 mirrors 1
    pool = heads.from_arrays(np.zeros((5, 3)), np.array([1, 2, 3, 4, 5]), flip_of=np.array([77, 77, 1, -1, -1]))
    group = groups.by_person(pool)
    assert group[0] == group[1] == group[2]
    assert len(set(group.tolist())) == 3


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("form", splits.FORMS)
def test_no_side_is_ever_empty(form, n):
    pool = heads.from_arrays(np.zeros((n, 3)), np.arange(n), subject=np.arange(n))
    for share in (0.01, 0.7, 0.99):
        assert set(splits.split(pool, form, 0, share).side.tolist()) == {"train", "test"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("people",), "random, sequence, subject"), (("random", 0, 1.0), "share"), (("random", -1), "seed")],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UbhpdError, match=message):
        splits.split(random_pool(10, 0), *arguments)


@pytest.mark.parametrize("form", splits.FORMS)
def test_nothing_to_divide(form):
    with pytest.raises(UbhpdError, match="0 heads in 0 groups"):
        splits.split(random_pool(0, 0), form)
    one = heads.from_arrays(np.zeros((9, 3)), np.arange(9), subject=np.zeros(9, dtype=int))
    if form == "subject":
        with pytest.raises(UbhpdError, match="9 heads in 1 group to split by subject"):
            splits.split(one, form)
