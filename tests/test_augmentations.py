"""The augmentations: what all of them keep, where landmarks go, how often, and the numbers of each paper."""

import ast
import re
from itertools import product

import cv2
import numpy as np
import pytest
from wheel_check import REPOSITORY

from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import matrix_from_euler
from ubhpd.images.crops import RECIPES, crop
from ubhpd.nn.landmark_sets import mean_face_mm
from ubhpd.training import augmentations
from ubhpd.training.augmentations import AUGMENTATIONS, Sample, augmentation

GEOMETRY = (
    "flip", "hopenet_crop", "random_resized_crop", "fsanet_crop", "fsanet_zoom", "trinet_crop", "ehpnet_crop",
    "ehpnet_shrink",
)  # fmt: skip
TRIED = 4000

every = pytest.mark.parametrize("name", AUGMENTATIONS)


class Fixed:
    """A generator that gives the random() it was told, and the middle of every other range."""

    def __init__(self, *values):
        self.values = list(values)

    def random(self):
        return self.values.pop(0)

    def uniform(self, low, high, size=None):
        return (low + high) / 2 if size is None else np.full(size, (low + high) / 2)

    def integers(self, low, high=None, size=None, endpoint=False):
        low, high = (0, low) if high is None else (low, high)
        return np.full(size or (), (low + high + endpoint) // 2)


def noise(side, seed=0):
    """A crop of coarse random colours, sharp enough for all augmentations, and its made-up truth."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(20, 235, (8, 8, 3), dtype=np.uint8)
    pixels = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_NEAREST)
    return Sample(pixels, np.array([30.0, -20.0, 10.0]), draw.uniform(0.2, 0.8, (68, 2)) * side)


def dotted(side, x, y):
    """A crop with a reddish dot at (x, y) on stripes that keep it sharp, landmarks all there."""
    rows, columns = np.indices((side, side)) + 0.5
    dot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (side / 40) ** 2))
    pixels = np.empty((side, side, 3))
    pixels[:] = 60 + 80 * (np.indices((side, side)).sum(axis=0) % 2)[..., None]
    pixels[..., 0] += 100 * dot
    return Sample(np.rint(pixels).astype(np.uint8), np.zeros(3), np.full((68, 2), (x, y), dtype=float))


def dot_of(sample):
    """Where the dot is, in pixels from the left and top edge: the middle of what is more red than green."""
    red = np.clip(sample.pixels[..., 0].astype(float) - sample.pixels[..., 1] - 10, 0, None)
    rows, columns = np.indices(red.shape) + 0.5
    return np.array([(red * columns).sum(), (red * rows).sum()]) / red.sum()


def same(first, second):
    return all(
        (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b))
        for a, b in zip(first, second, strict=True)
    )


def shares(name, sample, changed, seed=0, tried=TRIED):
    draw = np.random.default_rng(seed)
    return sum(changed(AUGMENTATIONS[name](sample, draw)) for _ in range(tried)) / tried


def within(share, p, tried=TRIED):
    return abs(share - p) < 4 * np.sqrt(p * (1 - p) / tried)


@every
@pytest.mark.parametrize("side", [64, 224])
def test_it_keeps_size_type_angles_and_what_it_was_given(name, side):
    sample = noise(side)
    before = Sample(sample.pixels.copy(), sample.angles_deg.copy(), sample.landmarks68.copy())
    seen = 0
    for seed in range(40):
        out = AUGMENTATIONS[name](sample, np.random.default_rng(seed))
        assert out.pixels.shape == (side, side, 3) and out.pixels.dtype == np.uint8 and out.pixels.flags.c_contiguous
        assert out.landmarks68.shape == (68, 2)
        assert np.array_equal(out.angles_deg, sample.angles_deg) or name == "flip"
        assert np.array_equal(out.landmarks68, sample.landmarks68) or name in GEOMETRY
        seen += not np.array_equal(out.pixels, sample.pixels)
    assert seen and same(sample, before)


@every
def test_the_generator_alone_decides(name):
    sample = noise(64)
    first, second = np.random.default_rng(5), np.random.default_rng(5)
    outs = [AUGMENTATIONS[name](sample, first) for _ in range(30)]
    assert all(same(out, AUGMENTATIONS[name](sample, second)) for out in outs)
    assert name == "low_resolution_x10" or not all(same(out, outs[0]) for out in outs)


@every
@pytest.mark.parametrize("side", [64, 224])
def test_a_head_without_landmarks(name, side):
    sample = noise(side)
    bare = sample._replace(landmarks68=None)
    for seed in range(20):
        out = AUGMENTATIONS[name](bare, np.random.default_rng(seed))
        assert out.landmarks68 is None
        assert np.array_equal(out.pixels, AUGMENTATIONS[name](sample, np.random.default_rng(seed)).pixels)


@every
def test_an_unknown_landmark_stays_unknown_and_alone(name):
    sample = noise(64)
    sample.landmarks68[8] = np.nan  # the chin, its own mirror
    for seed in range(10):
        out = AUGMENTATIONS[name](sample, np.random.default_rng(seed))
        assert np.isnan(out.landmarks68[8]).all() and np.isfinite(np.delete(out.landmarks68, 8, axis=0)).all()


@pytest.mark.parametrize(("name", "side"), list(product(GEOMETRY, [64, 112, 224])))
def test_landmarks_go_where_their_pixels_go(name, side):
    draw = np.random.default_rng(side)
    farthest = 0.0
    for _ in range(40):
        sample = dotted(side, *draw.uniform(0.4, 0.6, 2) * side)
        out = AUGMENTATIONS[name](sample, draw)
        assert np.abs(out.landmarks68 - out.landmarks68[0]).max() == 0
        assert np.abs(dot_of(out) - out.landmarks68[0]).max() < 0.07
        farthest = max(farthest, np.abs(out.landmarks68[0] - sample.landmarks68[0]).max())
    assert farthest > 0.3  # more than the error that is let pass


@pytest.mark.parametrize("name", sorted(set(AUGMENTATIONS) - set(GEOMETRY)))
def test_pixels_stay_where_they_are(name):
    """The mean place over the whole image, which no blur and no coarser pixel may shift."""
    plain = np.zeros((63, 63, 3), dtype=np.uint8)
    plain[21:42, 21:42] = (240, 30, 90)
    sample = Sample(plain, np.zeros(3))
    rows, columns = np.indices((63, 63)) + 0.5
    for seed in range(20):
        light = AUGMENTATIONS[name](sample, np.random.default_rng(seed)).pixels.astype(float).sum(axis=2)
        light = np.clip(light - light[0, 0], 0, None)  # brightness adds to all
        place = np.array([(light * columns).sum(), (light * rows).sum()]) / light.sum()
        assert np.abs(place - 31.5).max() < (3.2 if "low_resolution" in name else 0.05)


def test_coarse_pixels_show_the_middle_of_what_they_cover():
    ramp = np.broadcast_to(np.arange(60, dtype=np.uint8)[None, :, None], (60, 60, 3)).copy()
    out = AUGMENTATIONS["low_resolution_x10"](Sample(ramp, np.zeros(3)), np.random.default_rng(0)).pixels
    # 6 pixels of 10; the middle of the first is at 5.0, which PIL and the exact form of OpenCV take as pixel 5
    assert out[0, ::10, 0].tolist() == [5, 15, 25, 35, 45, 55]
    assert np.array_equal(out, np.repeat(np.repeat(out[::10, ::10], 10, axis=0), 10, axis=1))


def test_a_flip_twice_is_nothing():
    sample = noise(64)
    twice = augmentations.mirrored(augmentations.mirrored(sample))
    assert np.array_equal(twice.pixels, sample.pixels) and np.array_equal(twice.angles_deg, sample.angles_deg)
    np.testing.assert_allclose(twice.landmarks68, sample.landmarks68, rtol=0, atol=1e-12)


def test_a_flip_is_a_mirrored_head():
    """A face that is its own mirror image, turned and projected: the mirrored landmarks are those of the angles."""

    def landmarks(angles_deg):
        # Frame C has y up, the image down.
        turned = mean_face_mm() @ matrix_from_euler(angles_deg).T
        return turned[:, :2] * (0.3, -0.3) + 32

    angles = np.array([25.0, -12.0, 17.0])
    head = Sample(noise(64).pixels, angles, landmarks(angles))
    out = augmentations.mirrored(head)
    assert out.angles_deg.tolist() == [-25.0, -12.0, -17.0]
    np.testing.assert_allclose(out.landmarks68, landmarks(out.angles_deg), atol=1e-9)
    assert np.array_equal(out.pixels, head.pixels[:, ::-1])


@pytest.mark.parametrize(
    ("name", "p"),
    [
        ("flip", 0.5), ("blur", 0.05), ("fsanet_crop", 0.75), ("trinet_crop", 1.0), ("fsanet_zoom", 0.7),
        ("gamma", 0.3 * 6 / 7), ("ehpnet_crop", 0.5), ("ehpnet_resolution", 0.7),
        ("ehpnet_blur", 0.82), ("ehpnet_shrink", 0.5), ("ehpnet_grey", 0.3), ("low_resolution_1_10", 0.9),
        ("low_resolution_set", 0.8), ("low_resolution_x10", 1.0), ("hopenet_crop", 1 - 1 / 25),
    ],
)  # fmt: skip
def test_how_often(name, p):
    # Smooth noise, of which no window is like another; at 64 pixels hopenet_crop has 2 pixels about the crop.
    sample = noise(64)
    pixels = cv2.GaussianBlur(sample.pixels, (5, 5), 0) + np.arange(64, dtype=np.uint8)[:, None]
    sample = sample._replace(pixels=pixels)
    assert augmentations.is_sharp(sample)
    share = shares(name, sample, lambda out: not np.array_equal(out.pixels, sample.pixels))
    assert share == 1 if p == 1 else within(share, p)


def test_blur_is_the_ring_of_16_pixels():
    dot = np.zeros((9, 9, 3), dtype=np.uint8)
    dot[4, 4] = 160
    out = augmentations.blur(Sample(dot, np.zeros(3)), Fixed(0.0)).pixels[..., 0]
    ring = np.zeros((9, 9), dtype=int)
    ring[2:7, 2:7] = 10
    ring[3:6, 3:6] = 0
    assert np.array_equal(out, ring)
    edge = np.zeros((9, 9, 3), dtype=np.uint8)
    edge[0, 0] = 255
    assert np.array_equal(augmentations.blur(Sample(edge, np.zeros(3)), Fixed(0.0)).pixels[:2], edge[:2])


def test_hopenet_crop_is_a_cut_of_the_larger_crop():
    """Where the crop is the middle 224 of 240, another cut has the same pixels, but for the margin that is gone."""
    image = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    box, recipe = (20, 30, 260, 270), RECIPES["hopenet"]
    middle = crop(image, box, recipe)
    whole = image[30:270, 20:260, ::-1]
    sample = Sample(middle, np.zeros(3), np.full((68, 2), 100.0))
    assert np.array_equal(middle, whole[8:232, 8:232])
    shifts = set()
    for seed in range(200):
        out = augmentations.hopenet_crop(sample, np.random.default_rng(seed))
        x, y = (100 - out.landmarks68[0]).astype(int).tolist()
        shifts |= {x, y}
        cut = whole[8 + y : 232 + y, 8 + x : 232 + x]
        inner = slice(8, -8)
        assert np.array_equal(out.pixels[inner, inner], cut[inner, inner])
    assert shifts == set(range(-8, 9))


def test_random_resized_crop_has_the_areas_and_ratios_of_torchvision():
    draw, sample = np.random.default_rng(0), noise(224)._replace(landmarks68=np.array([[0.0, 0.0], [224.0, 224.0]]))
    points = np.array([augmentations.random_resized_crop(sample, draw).landmarks68 for _ in range(1500)])
    width, height = (224 * 224 / (points[:, 1] - points[:, 0])).T
    left_top = -points[:, 0] * np.stack([width, height], axis=1) / 224
    area = width * height / 224**2
    assert 0.79 < area.min() < 0.81 and area.max() <= 1
    assert 0.7 < (width / height).min() < 0.9 and 1.1 < (width / height).max() < 1.4
    assert left_top.min() > -1e-9 and (left_top + np.stack([width, height], axis=1)).max() < 224 + 1e-9
    assert abs(np.log(width / height).mean()) < 0.02


@pytest.mark.parametrize(
    ("name", "side", "most"), [("fsanet_crop", 64, 15), ("fsanet_crop", 128, 30), ("trinet_crop", 224, 15)]
)
def test_windows_lose_1_to_15_pixels(name, side, most):
    sample = Sample(np.full((side, side, 3), 128, dtype=np.uint8), np.zeros(3), np.zeros((68, 2)))
    draw, lost, moves = np.random.default_rng(0), set(), set()
    for _ in range(800):
        out = AUGMENTATIONS[name](sample, draw)
        kept = np.sqrt(np.count_nonzero(out.pixels[..., 0] == 128))
        if kept == side or kept != round(kept):  # enlarged or untouched; two squares
            continue
        lost.add(side - int(kept))
        moves.update(out.landmarks68[0].astype(int).tolist())
        assert out.pixels.min() == 0 or out.pixels.max() == 255
    assert (min(lost), max(lost)) == (1, most)
    assert 1 - most <= min(moves) < -most / 2 and most / 2 < max(moves) <= most - 1


def test_the_three_kinds_of_window_are_equally_frequent():
    sample = Sample(np.full((64, 64, 3), 128, dtype=np.uint8), np.zeros(3), np.full((68, 2), 32.0))
    for colour in (0, 255):
        assert within(shares("fsanet_crop", sample, lambda out, c=colour: (out.pixels == c).any()), 0.25)
    enlarged = shares("fsanet_crop", sample, lambda out: (out.pixels == 128).all() and np.ptp(out.landmarks68) >= 0)
    assert within(enlarged, 0.5)  # half of them untouched


def test_zoom_by_hand():
    # 1/z = 1 / 0.8 = 1.25 about 32: a point at 40 goes to 32 + 8 * 1.25
    class Low(Fixed):
        def uniform(self, low, high, size=None):
            return np.array([low, high])

    sample = dotted(64, 40.0, 40.0)
    out = augmentations.fsanet_zoom(sample, Low(0.0))
    assert out.landmarks68[0] == pytest.approx([32 + 8 * 1.25, 32 + 8 / 1.2])
    assert np.array_equal(out.pixels[0], out.pixels[1])  # 1.2 pixels in one: the edge is repeated
    assert augmentations.fsanet_zoom(sample, Low(0.7)) is sample


def test_gamma_by_hand():
    sample = Sample(np.full((4, 4, 3), 64, dtype=np.uint8), np.zeros(3))
    found = {int(augmentations.gamma(sample, np.random.default_rng(seed)).pixels[0, 0, 0]) for seed in range(300)}
    assert found == {int(255 * (64 / 255) ** (1 / g)) for g in (0.1, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)} | {64}


def test_two_black_squares():
    sample = Sample(np.full((224, 224, 3), 200, dtype=np.uint8), np.zeros(3))
    hidden = [
        (augmentations.black_squares(sample, np.random.default_rng(s)).pixels == 0).all(axis=2).sum()
        for s in range(200)
    ]
    assert max(hidden) == 200 and min(hidden) >= 50 and np.median(hidden) == 200


def test_ehpnet_leaves_a_soft_crop_its_shape():
    soft = Sample(cv2.GaussianBlur(noise(112).pixels, (31, 31), 12), np.zeros(3), np.zeros((68, 2)))
    assert not augmentations.is_sharp(soft)
    for name in ("ehpnet_crop", "ehpnet_resolution", "ehpnet_blur", "ehpnet_shrink"):
        assert shares(name, soft, lambda out: out is not soft, tried=100) == 0


def test_sharpness_is_the_variance_of_the_laplacian():
    for seed, reach in product(range(4), (1, 5, 9, 21)):
        pixels = cv2.GaussianBlur(noise(112, seed).pixels, (reach, reach), 0)
        variance = cv2.Laplacian(pixels, cv2.CV_64F).var()
        assert augmentations.is_sharp(Sample(pixels, np.zeros(3))) == (variance > 120)


def test_ehpnet_brightness_by_hand():
    def brighter(value, factor, step):
        draw = Fixed(0.0)
        draw.uniform, draw.integers = lambda low, high: factor, lambda n: step
        return int(
            augmentations.brightness(Sample(np.full((4, 4, 3), value, np.uint8), np.zeros(3)), draw).pixels[0, 0, 0]
        )

    assert brighter(100, 1.2, 14) == 120 + 13
    assert brighter(250, 1.2, 14) == 255
    assert brighter(100, 1.2, 0) == 120 - 15
    assert brighter(10, 1.1, 0) == 0  # 11 - 15, and not its absolute value
    assert brighter(100, 0.8, 0) == 100  # darker only if bright
    assert brighter(210, 0.8, 0) == 168 - 15
    assert brighter(100, 0.8, 8) == 80 + 1


def test_ehpnet_lengths():
    stripes = noise(112)._replace(landmarks68=np.array([[0.0, 0.0], [112.0, 112.0]]))
    for name, wanted in (("ehpnet_crop", set(range(5, 11))), ("ehpnet_shrink", set(range(2, 6)))):
        draw, found = np.random.default_rng(0), set()
        for _ in range(200):
            low, high = AUGMENTATIONS[name](stripes, draw).landmarks68
            kept = 112 * 112 / (high - low)[0] if name == "ehpnet_crop" else (high - low)[0]
            assert (low + high) == pytest.approx([112, 112])
            found.add(round((112 - kept) / 2, 6))
        assert found - {0} == wanted
    for side, margin in ((56, {1, 2}), (224, {4, 6, 8, 10})):
        wide = noise(side)._replace(landmarks68=np.zeros((68, 2)))
        draw = np.random.default_rng(0)
        lows = {AUGMENTATIONS["ehpnet_shrink"](wide, draw).landmarks68[0, 0] for _ in range(200)}
        assert lows - {0.0} == margin


def test_ehpnet_grey_is_in_all_channels():
    pixels = np.full((4, 4, 3), (200, 100, 50), dtype=np.uint8)  # blue, green, red
    out = augmentations.grey(Sample(pixels, np.zeros(3)), Fixed(0.0)).pixels
    assert (out == round(0.114 * 200 + 0.587 * 100 + 0.299 * 50)).all()


def test_ehpnet_sharpens_and_blurs():
    dot = np.full((112, 112, 3), 100, dtype=np.uint8)
    dot[10::10, 10::10] = 110
    dot[::2, 60:] = 200
    sample = Sample(dot, np.zeros(3))
    sharp = augmentations.blur_or_sharpen(sample, Fixed(0.5)).pixels
    assert sharp[20, 20, 0] == 9 * 110 - 8 * 100 and sharp[20, 21, 0] == 9 * 100 - 7 * 100 - 110
    soft = augmentations.blur_or_sharpen(sample, Fixed(0.39)).pixels
    assert np.array_equal(soft, cv2.GaussianBlur(dot, (7, 7), 0))  # the middle of 3, 5, 7, 9
    assert augmentations.blur_or_sharpen(sample, Fixed(0.83)) is sample


def test_in_their_order():
    sample = noise(64)
    names = ("gamma", "fsanet_crop", "flip", "fsanet_zoom")
    draw, step_by_step = np.random.default_rng(3), sample
    for name in names:
        step_by_step = AUGMENTATIONS[name](step_by_step, draw)
    assert same(augmentation(names)(sample, np.random.default_rng(3)), step_by_step)
    assert augmentation(())(sample, np.random.default_rng(3)) is sample


def test_an_unknown_name():
    with pytest.raises(UbhpdError, match="No augmentation is called 'flop': did you mean flip"):
        augmentation(("flip", "flop"))


def test_every_name_that_a_training_recipe_has_exists():
    """Found in the source, not in the recipes of the default options, since options choose augmentations too."""
    found = set()
    for folder in ("baselines", "ubhpd/nn"):
        for path in sorted((REPOSITORY / folder).glob("*.py")):
            tree = ast.parse(path.read_text())
            of_calls = [
                k.value
                for n in ast.walk(tree)
                if isinstance(n, ast.Call)
                for k in n.keywords
                if k.arg == "augmentations"
            ]
            known = {n.targets[0].id: n.value for n in tree.body if isinstance(n, ast.Assign)
                     and isinstance(n.targets[0], ast.Name)}  # fmt: skip
            values = of_calls + [
                known[n.id] for v in of_calls for n in ast.walk(v) if isinstance(n, ast.Name) and n.id in known
            ]
            for value in values:
                items = value.values if isinstance(value, ast.Dict) else [value]
                found |= {c.value for i in items for c in ast.walk(i) if isinstance(c, ast.Constant)}
    assert {"fsanet_crop", "low_resolution_set", "flip", "ehpnet_grey"} <= found <= set(AUGMENTATIONS)


def test_torch_is_not_needed():
    for path in (REPOSITORY / "ubhpd" / "training").glob("augment*.py"):
        assert not re.search(r"^\s*(import|from) torch", path.read_text(), re.M), path
