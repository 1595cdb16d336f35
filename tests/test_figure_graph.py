"""The graph of a face on its image: which edges, how thick, and the same bytes again."""

import cv2
import numpy as np
import pytest
import scipy.io
from matplotlib.collections import LineCollection
from realdata import REAL, needs

from ubhpd.core.errors import UbhpdError
from ubhpd.reports import figures
from ubhpd.reports.figures import draw_graph

IMAGE = np.full((40, 60, 3), (255, 0, 0), np.uint8)  # blue, as BGR
PLACES = [(10, 10), (50, 10), (30, 30)]


def edges(figure):
    """Widths by the ends of the line."""
    _, lines = [c for c in figure.axes[0].collections if isinstance(c, LineCollection)]  # below it the white rim
    ends = [tuple(map(tuple, segment.astype(int).tolist())) for segment in lines.get_segments()]
    return dict(zip(ends, lines.get_linewidths(), strict=True))


def test_lines_are_as_thick_as_the_mean_weight():
    graph = [[9, 0.4, 0], [0.4, 0, 0.4], [0, 0, 0]]
    figure = draw_graph(IMAGE, PLACES, graph)
    widths = edges(figure)
    assert set(widths) == {((10, 10), (50, 10)), ((50, 10), (30, 30))}
    assert widths[(50, 10), (30, 30)] == pytest.approx(widths[(10, 10), (50, 10)] / 2)
    assert list(widths)[-1] == ((10, 10), (50, 10))  # drawn last, on top
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["0.20", "0.40"]


def test_colours_are_turned_from_bgr_and_the_image_is_not_changed():
    before = IMAGE.copy()
    figure = draw_graph(IMAGE, PLACES, np.ones((3, 3)))
    assert figure.axes[0].images[0].get_array()[0, 0].tolist() == [0, 0, 255]
    assert np.array_equal(IMAGE, before)


def test_unknown_nodes_and_their_edges_are_left_out():
    figure = draw_graph(IMAGE, [PLACES[0], PLACES[1], (np.nan, 3)], np.ones((3, 3)))
    assert set(edges(figure)) == {((10, 10), (50, 10))}
    assert len(figure.axes[0].lines[0].get_xdata()) == 2


def test_no_edges_are_no_lines():
    figure = draw_graph(IMAGE, PLACES, np.eye(3))
    assert not figure.axes[0].collections and not figure.legends


def test_what_does_not_fit_is_refused():
    with pytest.raises(UbhpdError, match=r"landmarks of shape \(3, 2\) and a graph of shape \(2, 2\)"):
        draw_graph(IMAGE, PLACES, np.ones((2, 2)))
    with pytest.raises(UbhpdError, match="negative or not finite"):
        draw_graph(IMAGE, PLACES, -np.ones((3, 3)))


@needs("AFLW2000")
def test_a_real_face_gives_the_same_bytes_twice():
    from ubhpd.nn.landmark_sets import LANDMARK_SETS, neighbours

    nodes = list(LANDMARK_SETS[19])
    image = cv2.imread(str(REAL / "AFLW2000/image00002.jpg"))
    points = scipy.io.loadmat(REAL / "AFLW2000/image00002.mat")["pt3d_68"][:2, nodes].T
    drawn = [figures.encoded(draw_graph(image, points, neighbours(nodes, 3)), "png") for _ in range(2)]
    assert drawn[0] == drawn[1] and len(drawn[0]) > 50_000
