"""The crop recipes against sums written as arithmetic, the published code's steps, and the real images."""

import itertools
from dataclasses import FrozenInstanceError

import cv2
import numpy as np
import pytest
import scipy.io
from realdata import REAL, needs
from trees_for_tests import read_all

from ubhpd.core.errors import UbhpdError
from ubhpd.images.crops import FACE_SOURCES, MAX_SIDE_PX, RECIPES, crop, crop_box, crop_boxes, placed, recipe_named

SIDE = 450


def head(bbox=None, points=None, of_21=None, width=SIDE, height=SIDE, sample_id="x/1"):
    """The columns of a head; `points`: two corners, of which the 68 points are made."""
    at = None if points is None else np.resize(np.asarray(points, float), (68, 2)).ravel()
    return {"sample_id": sample_id, "image_width": width, "image_height": height, "bbox_xyxy": bbox, "landmarks68": at,
                "landmarks21": None if of_21 is None else np.ravel(of_21)}  # fmt: skip


def hidden21(*visible):
    """21 points of which only those given are visible."""
    points = np.full((21, 2), np.nan)
    points[: len(visible)] = np.reshape(visible, (-1, 2))
    return points


FACE = (100.0, 100.0, 200.0, 220.0)  # 100 wide, 120 high
CORNERS = [(100.7, 100.2), (200.9, 220.6)]  # the same in whole pixels

# Recipe -> crop of FACE in an image of 450x450.
MIDDLE = {
    "square": (150 - 192 / 2, 160 - 192 / 2, 150 + 192 / 2, 160 + 192 / 2),  # 120 * 1.6 = 192
    "fsanet-0.6": (100 - 60, 100 - 72, 200 + 60, 220 + 72),
    "fsanet-0.4": (100 - 40, 100 - 48, 200 + 40 + 1, 220 + 48 + 1),  # the last pixel belongs to it
    "hopenet": (100 - 18, 100 - 72, int(200 + 0.18 * 118), int(220 + 0.18 * 192)),
    "hopenet-aflw2000": (100 - 40, 100 - 48, 200 + 56, int(220 + 0.12 * 168)),
    "hopenet-biwi": (100 - 21, 100 - 42, int(200 + 0.21 * 121), int(220 + 0.21 * 162)),
    "ehpnet": (100 - 10, 100, 200 + 10, 220),  # floor(|100 - 120| / 2) = 10 at both ends of the width
    "square-1.4": (150 - 84, 160 - 84, 150 + 84, 160 + 84),
    "square-1.2-up": (150 - 72, 160 - 12 - 72, 150 + 72, 160 - 12 + 72),  # 120 * 1.2 = 144, a tenth of 120 higher
    "3ddfa-v2": (65, 75, 65 + 170, 75 + 170),  # 120 * sqrt(2) = 169.7
    "opal-1.6": (150 - 96, 160 - 96, 150 + 96, 160 + 96),
    "opal-1.0": (150 - 60, 160 - 60, 150 + 60, 160 + 60),
    "none": (0, 0, 450, 450),
}
SAME = {
    "osggnet": "fsanet-0.6",
    "osggnet-biwi": "fsanet-0.4",
    "6drepnet-biwi": "fsanet-0.4",
    "6drepnet-aflw2000": "hopenet-aflw2000",
    "dadl": "hopenet",
    "dadl-biwi": "hopenet-biwi",
}


@pytest.mark.parametrize("name", sorted({*MIDDLE, *SAME}))
def test_a_box_in_the_middle(name):
    assert crop_box(head(bbox=FACE), RECIPES[name]) == pytest.approx(MIDDLE[SAME.get(name, name)], abs=1e-9)


def test_every_recipe_has_a_sum_above_or_a_test_below():
    elsewhere = {"hopenet-random", "hopenet-aflw2000-legacy", "6drepnet-aflw2000-legacy"}
    assert {*MIDDLE, *SAME} | elsewhere == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_frozen_and_say_where_they_come_from(name):
    recipe = RECIPES[name]
    assert recipe.name == name and recipe.version >= 1 and recipe.note
    assert recipe.reference == "this project" or "/" in recipe.reference
    assert set(recipe.sources) <= set(FACE_SOURCES)
    with pytest.raises(FrozenInstanceError):
        recipe.size = 1
    with pytest.raises(TypeError):
        RECIPES["mine"] = recipe


def test_a_recipe_without_its_last_step_keeps_what_the_middle_was_of():
    whole = recipe_named("DADL:whole")
    assert (whole.name, whole.keep, recipe_named("dadl").keep) == ("dadl:whole", (1, 1), (224, 256))
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    large = crop(image, (100, 100, 228, 228), whole, 256)
    assert np.array_equal(large[16:-16, 16:-16], crop(image, (100, 100, 228, 228), recipe_named("dadl"), 224))
    with pytest.raises(UbhpdError, match="crop recipe"):
        recipe_named("dadl:half")


def test_an_unknown_recipe():
    with pytest.raises(UbhpdError, match="crop recipe.*'hopnet'.*did you mean hopenet"):
        recipe_named("hopnet")
    assert recipe_named("FSANET-0.6").name == "fsanet-0.6"


def test_fsanet_cuts_to_whole_pixels_first():
    # int: 100..200, 100..220; w = 100, h = 120. Growing the fractions first would give 100.7 - 0.6 * 100.2 = 40.58.
    assert crop_box(head(points=CORNERS), RECIPES["fsanet-0.6"]) == (40, 28, 260, 292)


@pytest.mark.parametrize(
    ("face", "wanted"),
    [
        ((20, 100, 120, 220), (0, 100 - 72, 120 + 60, 220 + 72)),  # left: 20 - 60 < 0
        ((100, 30, 200, 150), (100 - 60, 0, 200 + 60, 150 + 72)),  # top: 30 - 72 < 0
        ((300, 100, 400, 220), (300 - 60, 28, 449, 292)),  # right: 400 + 60 > 449 = W - 1
        ((100, 280, 200, 400), (40, 280 - 72, 260, 449)),  # bottom: 400 + 72 > 449
    ],
)
def test_fsanet_clamps(face, wanted):
    x0, y0, x1, y1 = face
    assert crop_box(head(points=[(x0, y0), (x1, y1)]), RECIPES["fsanet-0.6"]) == wanted
    left, top, right, bottom = crop_box(head(bbox=face), RECIPES["fsanet-0.4"])
    assert (left, top) == (max(x0 - 40, 0), max(y0 - 48, 0))
    assert (right, bottom) == (min(x1 + 40, 449) + 1, min(y1 + 48, 449) + 1)


def test_fsanet_keeps_positive_points_of_the_axis_with_fewer():
    # x > 0 for two, y > 0 for three: the mask is that of x, and drops (-5, 400).
    three = hidden21((100, 100), (200, 220), (-5, 400))
    assert crop_box(head(of_21=three), RECIPES["fsanet-0.6"]) == (40, 28, 260, 292)
    # x > 0 for three, y > 0 for two: that of y, and drops (400, -5).
    assert crop_box(head(of_21=hidden21((100, 100), (200, 220), (400, -5))), RECIPES["fsanet-0.6"]) == (
        40,
        28,
        260,
        292,
    )
    # two and two: that of x, so the negative y of (200, -20) stays: int(-20), h = 120, bottom 100 + 72.
    tie = hidden21((100, 100), (200, -20), (-5, 400))
    assert crop_box(head(of_21=tie), RECIPES["fsanet-0.6"]) == (40, 0, 260, 172)


def test_hopenet_truncates_toward_zero_and_leaves_the_image():
    # k = 0.3: 0 - 18, 10 - 72 = -62; w' = 118, h' = 192; 100 + 21.24, 130 + 34.56.
    assert crop_box(head(points=[(0, 10), (100, 130)]), RECIPES["hopenet"]) == (-18, -62, 121, 164)
    # 17.5 - 18 = -0.5 becomes 0, not -1
    assert crop_box(head(points=[(17.5, 100), (117.5, 220)]), RECIPES["hopenet"])[0] == 0


@pytest.mark.parametrize("name", ["hopenet-aflw2000-legacy", "6drepnet-aflw2000-legacy"])
def test_legacy_boxes_span_the_hidden_points(name):
    # Hidden points lie at (-1, 452): x -1..200, y 100..452; w = 201, h = 352.
    # k = 0.2: -1 - 0.4 * 201 = -81.4; 100 - 0.4 * 352 = -40.8; w' = 281.4, h' = 492.8.
    # 200 + 0.4 * 281.4 = 312.56; 452 + 0.12 * 492.8 = 511.136.
    seen = hidden21((100, 100), (200, 220))
    assert crop_box(head(of_21=seen), RECIPES[name]) == (-81, -40, 312, 511)
    clean = RECIPES[name.removesuffix("-legacy")]
    assert crop_box(head(of_21=seen), clean) == (60, 52, 256, 240)
    whole = np.resize([(100.0, 100.0), (200.0, 220.0)], (21, 2))
    assert crop_box(head(of_21=whole), RECIPES[name]) == crop_box(head(of_21=whole), clean)
    assert crop_box(head(bbox=FACE), RECIPES[name]) is None  # no pt2d, no legacy


def test_hopenet_biwi_falls_back_to_the_image():
    # (0, 0, 450, 450) grows like a box: -94.5, -157.5; w' = 544.5, h' = 607.5; 450 + 114.345, 450 + 127.575
    assert crop_box(head(), RECIPES["hopenet-biwi"]) == (-94, -157, 564, 577)


def test_a_drawn_factor_depends_on_seed_and_name_alone():
    recipe = RECIPES["hopenet-random"]
    names = [f"x/{i}" for i in range(300)]
    boxes = [crop_box(head(points=[(100, 200), (200, 300)], sample_id=n), recipe, seed=7) for n in names]
    k = (200 - np.array([b[1] for b in boxes])) / 200  # top = 200 - 2 k 100
    assert k.min() >= 0.2 and k.max() < 0.405 and 0.28 < k.mean() < 0.32 and len(set(k)) > 20
    again = [crop_box(head(points=[(100, 200), (200, 300)], sample_id=n), recipe, seed=7) for n in reversed(names)]
    assert again[::-1] == boxes
    assert [crop_box(head(points=[(100, 200), (200, 300)], sample_id=n), recipe, seed=8) for n in names] != boxes


def test_square_is_square_and_whole():
    rng = np.random.default_rng(0)
    for x, y, w, h in rng.uniform(20, 200, (200, 4)):
        x0, y0, x1, y1 = crop_box(head(bbox=(x, y, x + w, y + h)), RECIPES["square"])
        assert x1 - x0 == y1 - y0 == int(max(w, h) * 1.6 + 0.5)
        assert abs((x0 + x1) / 2 - (x + w / 2)) <= 1 and abs((y0 + y1) / 2 - (y + h / 2)) <= 1


def test_opal_is_not_rounded():
    # 50.5 wide, 80.25 high: side 128.4; 10.25 - (128.4 - 50.5) / 2, 20 - (128.4 - 80.25) / 2
    box = crop_box(head(bbox=(10.25, 20.0, 60.75, 100.25)), RECIPES["opal-1.6"])
    assert box == pytest.approx((-28.7, -4.075, -28.7 + 128.4, -4.075 + 128.4), abs=1e-9)


def published_hopenet(x_min, y_min, x_max, y_max, left, top, right, bottom, k):
    x_min -= left * k * abs(x_max - x_min)
    y_min -= top * k * abs(y_max - y_min)
    x_max += right * k * abs(x_max - x_min)
    y_max += bottom * k * abs(y_max - y_min)
    return int(x_min), int(y_min), int(x_max), int(y_max)


def published_fsanet(x, y, width, height):
    keep_x, keep_y = x > 0.0, y > 0.0
    keep = keep_y if sum(keep_x) > sum(keep_y) else keep_x
    x, y = x[keep], y[keep]
    x_min, x_max, y_min, y_max = int(min(x)), int(max(x)), int(min(y)), int(max(y))
    h, w = y_max - y_min, x_max - x_min
    return (max(int(x_min - 0.6 * w), 0), max(int(y_min - 0.6 * h), 0),
            min(int(x_max + 0.6 * w), width - 1), min(int(y_max + 0.6 * h), height - 1))  # fmt: skip


def test_many_boxes_equal_the_published_steps():
    rng = np.random.default_rng(1)
    points = rng.uniform(60, 130, (400, 68, 2)) * rng.uniform(0.5, 2.5, (400, 1, 2)) + rng.uniform(
        -80, 150, (400, 1, 2)
    )
    columns = {
        "sample_id": [str(i) for i in range(400)], "image_width": np.full(400, 450.0),
        "image_height": np.full(400, 380.0), "bbox_xyxy": np.full((400, 4), np.nan),
        "landmarks21": np.full((400, 42), np.nan), "landmarks68": points.reshape(400, 136),
    }  # fmt: skip
    for name, steps in (("hopenet", (0.6, 2, 0.6, 0.6, 0.3)), ("hopenet-aflw2000", (2, 2, 2, 0.6, 0.2))):
        found = crop_boxes(columns, RECIPES[name]).xyxy
        wanted = [published_hopenet(*p.min(axis=0), *p.max(axis=0), *steps) for p in points]
        good = ~np.isnan(found).any(axis=1)
        assert good.sum() > 380
        np.testing.assert_array_equal(found[good], np.array(wanted)[good])
    found = crop_boxes(columns, RECIPES["fsanet-0.6"]).xyxy
    good = ~np.isnan(found).any(axis=1)
    wanted = np.array([published_fsanet(p[:, 0], p[:, 1], 450, 380) for p in points[good]])
    assert good.sum() > 380
    np.testing.assert_array_equal(found[good], wanted)


@pytest.mark.parametrize(
    "bad",
    [
        {},  # nothing at all
        {"bbox": (100, 100, 100, 220)},  # no width
        {"bbox": (600, 100, 700, 220)},  # beside the image
        {"bbox": (0, 0, MAX_SIDE_PX, MAX_SIDE_PX)},  # absurd
        {"bbox": (np.nan, 1, 2, 3)},
        {"of_21": hidden21()},  # all points hidden
        {"of_21": hidden21((100, 100))},  # a single point has no extent
    ],
)
def test_heads_without_a_box(bad):
    assert crop_box(head(**bad), RECIPES["square"]) is None


def test_a_second_source_steps_in():
    lone = head(bbox=FACE, of_21=hidden21((100, 100)))
    boxes = crop_box(lone, RECIPES["fsanet-0.6"])
    assert boxes == MIDDLE["fsanet-0.6"]
    columns = {k: np.array([v], float) for k, v in lone.items() if k not in ("sample_id", "landmarks68")}
    columns |= {"sample_id": ["x"], "landmarks68": np.full((1, 136), np.nan)}
    assert crop_boxes(columns, RECIPES["fsanet-0.6"]).source.tolist() == [1]


@pytest.fixture(scope="module")
def face_image():
    rng = np.random.default_rng(5)
    small = rng.integers(0, 256, (90, 90, 3), dtype=np.uint8)
    return cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("name", RECIPES)
def test_sizes_and_types(name, face_image):
    recipe = RECIPES[name]
    box = crop_box(head(bbox=FACE, of_21=hidden21((100, 100), (200, 220))), recipe)
    own = recipe.size or SIDE
    for size, side in ((None, own), (31, 31), (300, 300)):
        out = crop(face_image, box, recipe, size)
        assert out.shape == (side, side, 3) and out.dtype == np.uint8 and out.flags.c_contiguous


def test_colour_order():
    flat = np.full((SIDE, SIDE, 3), (10, 20, 30), np.uint8)  # BGR
    for name, recipe in RECIPES.items():
        out = crop(flat, (100, 100, 200, 200), recipe, 16)
        assert out[8, 8].tolist() == ([10, 20, 30] if recipe.colour == "BGR" else [30, 20, 10]), name
        assert crop(flat, (100, 100, 200, 200), recipe, 16, "BGR")[8, 8].tolist() == [10, 20, 30]
    assert {n for n, r in RECIPES.items() if r.colour == "RGB"} == {
        n for n in RECIPES if n.startswith(("square", "hopenet", "none", "6drepnet-aflw", "dadl"))
    }


def test_black_outside():
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    out = crop(white, (-50, -100, 150, 100), RECIPES["square"], 200)
    assert (out[:100] == 0).all() and (out[:, :50] == 0).all() and (out[100:, 50:] == 255).all()
    out = crop(white, (350, 300, 550, 500), RECIPES["square"], 200)
    assert (out[:150, :100] == 255).all() and (out[150:] == 0).all() and (out[:, 100:] == 0).all()
    out = crop(white, (-64.0, -32.0, 64.0, 96.0), RECIPES["opal-1.6"])
    assert (out[:32] == 0).all() and (out[:, :64] == 0).all() and (out[32:, 64:] == 255).all()


def test_fsanet_pixels_are_those_of_its_script(face_image):
    box = crop_box(head(points=CORNERS), RECIPES["fsanet-0.6"])
    wanted = cv2.resize(face_image[28:292, 40:260], (64, 64))
    np.testing.assert_array_equal(crop(face_image, box, RECIPES["fsanet-0.6"]), wanted)
    box = crop_box(head(bbox=FACE), RECIPES["fsanet-0.4"])
    wanted = cv2.resize(face_image[52 : 268 + 1, 60 : 240 + 1], (64, 64))
    np.testing.assert_array_equal(crop(face_image, box, RECIPES["fsanet-0.4"]), wanted)


@pytest.mark.parametrize(
    ("name", "resize", "keep"), [("hopenet", 240, 224), ("hopenet-aflw2000", 224, 224), ("6drepnet-aflw2000", 256, 224)]
)
def test_hopenet_geometry_is_that_of_torchvision(name, resize, keep, face_image):
    pillow = pytest.importorskip("PIL.Image")
    image = pillow.fromarray(face_image[:, :, ::-1])
    for face in (FACE, (5, 5, 205, 180), (300, 200, 440, 445)):
        box = crop_box(head(bbox=face), RECIPES[name])
        cut = image.crop(box)
        w, h = cut.size
        size = (resize, int(resize * h / w)) if w <= h else (int(resize * w / h), resize)
        left, top = round((size[0] - keep) / 2), round((size[1] - keep) / 2)
        wanted = cut.resize(size, pillow.Resampling.BILINEAR).crop((left, top, left + keep, top + keep))
        found = crop(face_image, box, RECIPES[name])
        difference = np.abs(found.astype(int) - np.asarray(wanted))
        assert difference.mean() < 1.0
        shifted = np.abs(found[:, 1:].astype(int) - np.asarray(wanted)[:, :-1])
        assert difference.mean() < 0.4 * shifted.mean()  # a pixel off would show


def test_opal_pixels_are_those_of_pil(face_image):
    pillow = pytest.importorskip("PIL.Image")
    image = pillow.fromarray(face_image)
    for face in (FACE, (10.25, 20, 60.75, 100.25), (350.5, 350.1, 440, 449)):
        x0, y0, x1, _y1 = box = crop_box(head(bbox=face), RECIPES["opal-1.6"])
        scale = (x1 - x0) / 128
        wanted = np.asarray(image.transform((128, 128), pillow.AFFINE, (scale, 0, x0, 0, scale, y0)))
        assert (crop(face_image, box, RECIPES["opal-1.6"]) == wanted).mean() > 0.995


def exact_mean(face_image, size):
    """The mean of what lies under each pixel, in double precision."""

    def weights(n):
        edges = np.arange(size + 1) * (n / size)
        return np.array(
            [
                np.clip(np.minimum(np.arange(n) + 1, b) - np.maximum(np.arange(n), a), 0, None) / (b - a)
                for a, b in itertools.pairwise(edges)
            ]
        )

    down, across = weights(face_image.shape[0]), weights(face_image.shape[1])
    return np.stack([down @ face_image[:, :, c].astype(float) @ across.T for c in range(3)], axis=-1)


def decibels(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@pytest.mark.parametrize(("side", "size"), [(300, 64), (300, 128), (300, 224), (200, 64), (440, 64), (245, 224)])
def test_shrinking_loses_no_quality(side, size, face_image):
    noisy = np.clip(face_image + np.random.default_rng(0).normal(0, 12, face_image.shape), 0, 255).astype(np.uint8)
    part = noisy[5 : 5 + side, 5 : 5 + side]
    wanted = exact_mean(part, size)
    found = crop(noisy, (5, 5, 5 + side, 5 + side), RECIPES["square"], size, "BGR")
    plain = cv2.resize(part, (size, size))
    assert decibels(found, wanted) > 41
    assert decibels(found, wanted) >= decibels(plain, wanted) - 1e-9


@pytest.mark.parametrize("name", [n for n in RECIPES if n != "none"])
def test_points_are_placed_where_they_are_seen(name):
    recipe = RECIPES[name]
    canvas = np.zeros((SIDE, SIDE, 3), np.uint8)
    canvas[150:160, 130:140] = 255
    box = crop_box(head(bbox=FACE, of_21=hidden21((100, 100), (200, 220))), recipe)
    out = crop(canvas, box, recipe)[:, :, 0].astype(float)
    rows, columns = np.indices(out.shape)
    seen = ((columns + 0.5) * out).sum() / out.sum(), ((rows + 0.5) * out).sum() / out.sum()
    assert placed([[135, 155]], box, recipe)[0] == pytest.approx(seen, abs=0.6)


@needs("AFLW2000")
def test_legacy_boxes_of_the_real_files_are_those_of_the_published_code():
    """A hidden point is (-1, 452) in the files, so the boxes that span all points begin at x = -1, not y."""
    records = read_all("aflw2000", REAL / "AFLW2000").records
    moved, with_hidden = [], 0
    for sample_id, record in records.items():
        raw = scipy.io.loadmat(REAL / "AFLW2000" / f"{sample_id[9:]}.mat")["pt2d"].astype(np.float64)
        found = crop_box(record._asdict(), RECIPES["hopenet-aflw2000-legacy"])
        assert found == published_hopenet(*raw.min(axis=1), *raw.max(axis=1), 2, 2, 2, 0.6, 0.2)
        clean = crop_box(record._asdict(), RECIPES["hopenet-aflw2000"])
        fsanet = crop_box(record._asdict(), RECIPES["fsanet-0.6"])
        assert fsanet == published_fsanet(raw[0], raw[1], 450, 450)
        if (raw[0] == -1).any():
            with_hidden += 1
            assert raw[0].min() == -1 and raw[1].max() == 452 and raw[1].min() > -1
            moved.append(clean[0] - found[0])
        else:
            assert found == clean
    assert (len(records), with_hidden) == (2000, 1718)
    assert np.median(moved) > 100


@needs("AFLW2000")
def test_real_crops_equal_those_of_fsanets_script():
    records = read_all("aflw2000", REAL / "AFLW2000").records
    for sample_id, record in list(records.items())[:40]:
        raw = scipy.io.loadmat(REAL / "AFLW2000" / f"{sample_id[9:]}.mat")["pt2d"].astype(np.float64)
        image = cv2.imread(str(REAL / "AFLW2000" / record.image_path))
        x0, y0, x1, y1 = published_fsanet(raw[0], raw[1], 450, 450)
        wanted = cv2.resize(image[y0:y1, x0:x1], (64, 64))
        box = crop_box(record._asdict(), RECIPES["fsanet-0.6"])
        np.testing.assert_array_equal(crop(image, box, RECIPES["fsanet-0.6"]), wanted)
