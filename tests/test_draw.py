"""Poses drawn on images: by geometry, where the pixels of a colour must lie."""

import numpy as np
import pytest

from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import matrix_from_euler
from ubhpd.images.drawing import (
    CUBE_BGR,
    POINT_BGR,
    X_BGR,
    Y_BGR,
    Z_BGR,
    draw_axes,
    draw_cube,
    draw_label,
    draw_landmarks,
)

CENTRE, SIZE = (100.0, 90.0), 60.0


def canvas():
    return np.full((180, 200, 3), 128, np.uint8)


def of_colour(image, colour):
    """The pixels (x, y) of just this colour."""
    rows, columns = np.nonzero((image == colour).all(axis=2))
    return np.stack([columns, rows], axis=1)


def tip(image, colour):
    """The pixel of this colour that is farthest from the centre, relative to it, y up."""
    found = of_colour(image, colour) - CENTRE
    return found[np.argmax(np.linalg.norm(found, axis=1))] * (1, -1)


def axes_of(*ypr):
    image = canvas()
    draw_axes(image, matrix_from_euler(ypr), CENTRE, SIZE)
    return image


def test_a_head_that_looks_into_the_camera():
    image = axes_of(0, 0, 0)
    assert tip(image, X_BGR) == pytest.approx((60, 0), abs=2)
    assert tip(image, Y_BGR) == pytest.approx((0, 60), abs=2)
    assert np.linalg.norm(tip(image, Z_BGR)) < 3  # points to the viewer, on top of the others


@pytest.mark.parametrize(
    ("ypr", "where"),
    [((40, 0, 0), (-1, 0)), ((-40, 0, 0), (1, 0)), ((0, 40, 0), (0, 1)), ((0, -40, 0), (0, -1))],
)
def test_the_nose_points_where_the_head_looks(ypr, where):
    """Yaw +40 to image-left, pitch +40 up."""
    assert tip(axes_of(*ypr), Z_BGR) == pytest.approx(60 * np.sin(np.radians(40)) * np.array(where), abs=2)


def test_roll_turns_the_head_clockwise():
    image = axes_of(0, 0, 30)
    assert tip(image, Y_BGR) == pytest.approx((30, 60 * np.cos(np.radians(30))), abs=2)
    assert tip(image, X_BGR) == pytest.approx((60 * np.cos(np.radians(30)), -30), abs=2)


@pytest.mark.parametrize("seed", range(6))
def test_every_axis_ends_where_the_matrix_says(seed):
    ypr = np.random.default_rng(seed).uniform((-75, -60, -90), (75, 60, 90))
    rotation = matrix_from_euler(ypr)
    image = canvas()
    draw_axes(image, rotation, CENTRE, SIZE)
    nearest = int(np.argmax(rotation[2]))
    for axis, colour in enumerate((X_BGR, Y_BGR, Z_BGR)):
        end = rotation[:2, axis] * SIZE
        if axis == nearest or np.linalg.norm(end) > 25:  # else it may lie under another
            assert tip(image, colour) == pytest.approx(end, abs=2.5)


def test_the_axis_that_points_to_the_viewer_lies_on_top():
    back = np.diag([-1.0, 1.0, -1.0])  # seen from behind
    for rotation, is_on_top in ((np.eye(3), True), (back, False)):
        image = canvas()
        draw_axes(image, rotation, CENTRE, SIZE)
        assert (tuple(image[90, 100]) == Z_BGR) == is_on_top


def test_the_cube_shows_the_side_of_the_face():
    image = canvas()
    draw_cube(image, np.eye(3), CENTRE, SIZE)
    border = of_colour(image, Z_BGR) - CENTRE
    assert abs(border).max(axis=0) == pytest.approx((30, 30), abs=2)
    assert len(of_colour(image, CUBE_BGR)) == 0  # all of it lies under the side of the face
    assert tuple(image[90, 100]) != (128, 128, 128) and tuple(image[20, 20]) == (128, 128, 128)  # tinted
    image = canvas()
    draw_cube(image, matrix_from_euler((40, 0, 0)), CENTRE, SIZE)
    assert of_colour(image, Z_BGR)[:, 0].mean() < 95  # the face is at image-left
    assert of_colour(image, CUBE_BGR)[:, 0].mean() > 105


def test_a_face_that_looks_away_is_not_tinted():
    image = canvas()
    draw_cube(image, np.diag([-1.0, 1.0, -1.0]), CENTRE, SIZE)
    assert tuple(image[90, 100]) == (128, 128, 128)
    assert len(of_colour(image, CUBE_BGR)) > 0


def test_landmarks_lie_where_they_are_and_invisible_ones_are_left_out():
    image = canvas()
    draw_landmarks(image, [(50, 40), (np.nan, np.nan), (150.5, 120)], radius_px=3)
    found = of_colour(image, POINT_BGR)
    assert set(map(tuple, found)) >= {(50, 40), (150, 120)}
    assert (np.abs(found[:, None] - [(50, 40), (150.5, 120)]).max(axis=2).min(axis=1) <= 4).all()
    untouched = canvas()
    draw_landmarks(untouched, np.full((68, 2), np.nan))
    assert np.array_equal(untouched, canvas())


@pytest.mark.parametrize("corner", [(40, 60), (-500, -500), (1e5, 1e5)])
def test_a_label_stays_in_the_image(corner):
    image = np.full((120, 320, 3), 200, np.uint8)
    draw_label(image, (12.3, -4.5, 0.0), corner)
    assert (image == 50).all(axis=2).sum() > 1000 and (image > 220).all(axis=2).sum() > 20


def test_a_label_larger_than_the_image_is_cut_off():
    image = np.full((8, 10, 3), 200, np.uint8)
    draw_label(image, (12.3, -4.5, 0.0), (0, 0))
    assert image.shape == (8, 10, 3)


def test_what_leaves_the_image_is_cut_off():
    for centre in ((-30.0, 50.0), (1e12, -1e12)):
        image = canvas()
        draw_axes(image, np.eye(3), centre, 80.0)
        draw_cube(image, np.eye(3), centre, 80.0)
        assert image.shape == (180, 200, 3)


@pytest.mark.parametrize("draw", [draw_axes, draw_cube])
def test_a_pose_that_is_none_is_refused(draw):
    with pytest.raises(UbhpdError, match=r"drawn from a \(3, 3\) matrix"):
        draw(canvas(), np.zeros(3), CENTRE, SIZE)
    for rotation, centre, size in ((np.full((3, 3), np.nan), CENTRE, SIZE), (np.eye(3), (np.inf, 0), SIZE),
                                   (np.eye(3), CENTRE, np.nan)):  # fmt: skip
        with pytest.raises(UbhpdError, match="not finite cannot be drawn"):
            draw(canvas(), rotation, centre, size)
