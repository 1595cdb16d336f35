"""Figures of densities: the numbers behind them, their texts, and the same bytes for the same input."""

import json

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from figure_data import AFLW, BIWI, SIDES, UBHPD, heads, write_build

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.pool.sources import builders
from ubhpd.reports import figures
from ubhpd.reports.figures import FIGURES
from ubhpd.sampling import densities, targets


@pytest.fixture
def built(tmp_path):
    return write_build(tmp_path / "out")


@pytest.fixture(scope="module")
def content():
    return densities.from_arrays({"biwi": BIWI, "aflw": AFLW}, UBHPD, SIDES, targets.gaussian(25))


@pytest.fixture(scope="module")
def drawn(content):
    """Every figure by name."""
    return {name: draw(content) for name, draw in FIGURES.items()}


def texts(figure):
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def ticks_in_view(axis):
    low, high = axis.get_view_interval()
    return [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]


def legend(figure):
    return [text.get_text() for own in figure.legends for text in own.get_texts()]


def heights(axes):
    return [patch.get_height() for container in axes.containers for patch in container]


def row(table, dataset, angle, low):
    found = table[(table.dataset == dataset) & (table.angle == angle) & (table.low_deg == low)]
    return found.iloc[0]


def test_table_has_counts_computed_by_hand(content):
    table = densities.table(content)
    assert list(table.columns) == ["dataset", "angle", "low_deg", "high_deg", "count", "density", "outside"]
    names = ["biwi", "aflw", "pool", "UBHPD", "UBHPD train", "UBHPD test", "target"]
    assert list(dict.fromkeys(table.dataset)) == names and len(table) == 7 * 3 * 15
    for key, count, density, outside in (
        (("biwi", "yaw", -6), 2, 2 / 4, 0),
        (("biwi", "yaw", 6), 2, 2 / 4, 0),
        (("biwi", "pitch", -6), 2, 2 / 3, 1),
        (("biwi", "roll", -90), 1, 1 / 4, 0),
        (("aflw", "yaw", 78), 1, 1 / 1, 1),
        (("aflw", "roll", -6), 1, 1 / 1, 1),
        (("pool", "yaw", -6), 2, 2 / 5, 1),
        (("pool", "pitch", -6), 4, 4 / 5, 1),
        (("UBHPD", "yaw", -6), 2, 2 / 3, 0),
        (("UBHPD train", "yaw", -6), 2, 2 / 2, 0),
        (("UBHPD test", "yaw", 78), 1, 1 / 1, 0),
    ):
        found = row(table, *key)
        assert (found["count"], found.density, found.outside) == (count, density, outside), key
        assert found.high_deg == key[2] + 12
    aim = table[table.dataset == "target"]
    assert aim["count"].isna().all() and np.array_equal(aim.density, targets.gaussian(25).ravel())


def test_pairs_of_angles_count_the_heads_with_both_inside(content):
    biwi = content.datasets[0]
    yaw_pitch, yaw_roll, pitch_roll = biwi.joint
    assert (yaw_pitch[7, 7], yaw_pitch[7, 8], yaw_pitch[8, 7], yaw_pitch.sum()) == (1, 1, 1, 3)
    assert (yaw_roll[7, 7], yaw_roll[8, 0], yaw_roll[8, 7], yaw_roll.sum()) == (2, 1, 1, 4)
    assert (pitch_roll[7, 7], pitch_roll[7, 0], pitch_roll[8, 7], pitch_roll.sum()) == (1, 1, 1, 3)


def test_manifests_and_arrays_give_the_same(built, content):
    read = densities.read(built, content.target)
    pd.testing.assert_frame_equal(densities.table(read), densities.table(content))
    assert np.array_equal(read.pool.joint, content.pool.joint)


def test_a_single_manifest_is_a_pool_or_ubhpd(built):
    pool, chosen = densities.read(built / "pool.parquet"), densities.read(built / "ubhpd.parquet")
    assert (pool.pool.heads, pool.ubhpd) == (6, None)
    assert (chosen.pool, chosen.ubhpd.heads, list(chosen.ubhpd.sides)) == (None, 3, ["train", "test"])
    assert legend(figures.overlay_figure(pool)) == ["pool (before), 6 heads"]
    assert legend(figures.overlay_figure(chosen)) == ["UBHPD (after), 3 heads"]
    columns = ["dataset inside UBHPD", "UBHPD", "UBHPD train", "UBHPD test"]
    assert legend(figures.density_figure(chosen)) == columns


def test_a_pool_in_many_batches_is_counted_whole(tmp_path, monkeypatch):
    angles = np.random.default_rng(0).normal(0, 40, (1000, 3))
    manifest.write_parquet([heads("biwi", angles[:600]), heads("aflw", angles[600:])], tmp_path / "pool.parquet")
    monkeypatch.setattr(manifest, "ROW_GROUP", 64)
    read = densities.read(tmp_path)
    whole = densities.from_arrays({"biwi": angles[:600], "aflw": angles[600:]})
    pd.testing.assert_frame_equal(densities.table(read), densities.table(whole))


def test_a_dataset_with_no_usable_head_keeps_its_column(tmp_path):
    pool = [heads("biwi", BIWI), heads("aflw", AFLW, dropped=[0, 1])]
    manifest.write_parquet(pool, tmp_path / "pool.parquet")
    read = densities.read(tmp_path)
    assert [(t.name, t.heads) for t in read.datasets] == [("biwi", 4), ("aflw", 0)]
    figure = figures.density_figure(read)
    assert [t.get_text() for t in figure.axes[1].texts] == ["none inside the bins", "AFLW", "0 heads"]


def test_density_has_a_row_per_angle_and_ubhpd_last(drawn):
    figure = drawn["density"]
    assert len(figure.axes) == 3 * 3
    assert [axes.texts[0].get_text() for axes in figure.axes[:3]] == ["BIWI", "AFLW", "UBHPD"]
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == [f"{a}: share per bin" for a in ("yaw", "pitch", "roll")]
    target = "target (Gaussian, sigma 25°)"
    assert legend(figure) == ["dataset", "UBHPD", "UBHPD train", "UBHPD test", target]
    assert heights(figure.axes[0]) == [2 / 4 if i in (7, 8) else 0 for i in range(15)]


def test_heads_are_counted_once_per_column_and_those_outside_in_each_panel(drawn):
    def titles(figure):
        return [axes.get_title() for axes in figure.axes]

    def counts(figure):
        return [text.get_text() for axes in figure.axes for text in axes.texts if text.get_text().endswith(" heads")]

    assert titles(drawn["density"]) == ["", "1 outside", "", "1 outside", "", "", "", "1 outside", ""]
    assert counts(drawn["density"]) == ["4 heads", "2 heads", "3 heads"]
    assert titles(drawn["joint"])[:6] == ["2 outside", "", "1 outside", "", "2 outside", ""]
    assert counts(drawn["joint"]) == ["6 heads", "3 heads"]
    assert titles(drawn["overlay"]) == ["pool: 1 outside"] * 3


def test_datasets_have_their_usual_short_names():
    names = {name: figures.display_name(name) for name in builders()}
    assert names == {
        "300wlp": "300W-LP", "aflw": "AFLW", "aflw2000": "AFLW2000-3D", "biwi": "BIWI", "synhead": "SynHead",
        "table": "Table", "upna": "UPNA",
    }  # fmt: skip
    assert figures.display_name("own set") == "own set"


@pytest.mark.parametrize("sigma", [2.0, 11.5, 22.5, 60.0])
def test_the_legend_names_the_sigma_of_a_gaussian_target(sigma):
    assert figures.target_label(targets.gaussian(sigma)) == f"target (Gaussian, sigma {sigma:g}°)"


def test_the_legend_names_no_sigma_where_there_is_none():
    assert figures.target_label(targets.uniform()) == "target (uniform)"
    other = targets.gaussian(25).copy()
    other[2] = targets.gaussian(10)[2]
    assert figures.target_label(other) == "target (Gaussian, sigma 25°, 25°, 10°)"
    other[2, 3] *= 1.1
    assert figures.target_label(other) == "target"


@pytest.mark.parametrize("name", FIGURES)
def test_ticks_reach_the_ends_of_the_bins(name, drawn):
    for axes in drawn[name].axes[:3]:
        assert {axes.get_xticks()[0], axes.get_xticks()[-1]} == {-90, 90}


@pytest.mark.parametrize("name", ["density", "overlay"])
def test_bars_and_lines_stay_inside_the_axes(name, drawn):
    for axes in drawn[name].axes:
        high = [*heights(axes), *(y for line in axes.lines for y in line.get_ydata())]
        assert axes.get_ylim()[0] == 0 and max(high) <= axes.get_ylim()[1]


@pytest.mark.parametrize("name", FIGURES)
def test_texts_do_not_overlap_and_stay_inside_the_figure(name, drawn):
    figure = drawn[name]
    figure.canvas.draw()
    found = [axes.title for axes in figure.axes] + [t for axes in figure.axes for t in axes.texts]
    for axes in figure.axes:
        found += [axes.xaxis.label, axes.yaxis.label, *ticks_in_view(axes.xaxis), *ticks_in_view(axes.yaxis)]
    found += [t for own in figure.legends for t in own.get_texts()]
    seen = [t for t in found if t.get_visible() and t.get_text() and t.get_window_extent().width]
    boxes = [t.get_window_extent() for t in seen]
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, seen[i]
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, seen[i]
        assert not [seen[k] for k in range(i) if box.overlaps(boxes[k])], seen[i]


def test_overlay_and_joint_have_before_and_after(content, drawn):
    labels = ["pool (before), 6 heads", "UBHPD (after), 3 heads", "target (Gaussian, sigma 25°)"]
    assert legend(drawn["overlay"]) == labels
    figure = drawn["joint"]
    assert len(figure.axes) == 3 * 2 + 1
    assert [axes.texts[0].get_text() for axes in figure.axes[:2]] == ["pool", "UBHPD"]
    shown = figure.axes[0].collections[0].get_array()
    assert shown[7, 14] == 1 / 4 and shown.mask[14, 7]  # of 4 heads inside one at yaw 90, pitch 0: right, half-way up
    assert shown.count() == np.count_nonzero(content.pool.joint[0])


@pytest.mark.parametrize("name", FIGURES)
def test_one_dataset_only_and_all_heads_in_one_bin(name):
    content = densities.from_arrays({"biwi": np.zeros((5, 3))})
    figure = FIGURES[name](content)
    assert figures.encoded(figure, "png").startswith(b"\x89PNG")
    assert len(figure.axes) == {"density": 3, "joint": 4, "overlay": 3}[name]
    assert legend(figure) == (["pool (before), 5 heads"] if name == "overlay" else [])
    if name != "joint":
        assert max(heights(figure.axes[0])) == 1


@pytest.mark.parametrize("name", FIGURES)
def test_all_heads_outside_are_drawn_as_such(name):
    content = densities.from_arrays({"biwi": np.full((5, 3), 95.0)}, np.full((2, 3), np.nan))
    figure = FIGURES[name](content)
    assert "5 outside" in texts(figure)[0]


def test_equal_input_gives_equal_bytes_with_any_matplotlib_settings(content, drawn):
    one = drawn["overlay"]
    first = {form: figures.encoded(one, form) for form in figures.FORMATS}
    assert {form: figures.encoded(one, form) for form in reversed(figures.FORMATS)} == first
    with mpl.rc_context({"font.size": 20, "svg.hashsalt": None, "axes.grid": True, "savefig.dpi": 50}):
        other = figures.overlay_figure(content)
        assert {form: figures.encoded(other, form) for form in figures.FORMATS} == first


def test_drawing_does_not_change_matplotlib_settings(content):
    before = dict(mpl.rcParams)
    figures.encoded(figures.overlay_figure(content), "svg")
    assert dict(mpl.rcParams) == before


def test_wrong_arrays_are_refused():
    for arguments, sentence in (
        (({"biwi": np.zeros((2, 2))},), "shape (n, 3)"),
        (({"biwi": np.zeros((0, 3))},), "nothing to draw"),
        (({},), "nothing to draw"),
        (({"biwi": BIWI}, np.zeros((0, 3))), "nothing to draw"),
        (({"biwi": BIWI}, UBHPD, ["train"]), "give one split per head"),
    ):
        with pytest.raises(UbhpdError) as wrong:
            densities.from_arrays(*arguments)
        assert sentence in str(wrong.value)
    assert densities.from_arrays({}, UBHPD).pool is None


def test_an_unknown_format_is_refused(drawn, tmp_path):
    with pytest.raises(UbhpdError, match="choose from png, svg, pdf"):
        figures.save(drawn["overlay"], tmp_path / "a.gif")
    figures.save(drawn["overlay"], tmp_path / "a.png")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_target_comes_from_the_option_or_from_build_json(built, tmp_path):
    assert densities.target_for(built) is None
    recorded = {"unbiased": {"sampling": {"target": targets.gaussian(20).tolist()}}}
    (built / "build.json").write_text(json.dumps(recorded))
    assert densities.target_for(built) == pytest.approx(targets.gaussian(20))
    assert densities.target_for(built / "pool.parquet") == pytest.approx(targets.gaussian(20))
    assert np.array_equal(densities.target_for(built, "30"), targets.gaussian(30))
    assert np.array_equal(densities.target_for(built, "uniform"), targets.uniform())
    (tmp_path / "t.csv").write_text("\n".join(["1"] * 15))
    assert densities.target_for(built, str(tmp_path / "t.csv")) == pytest.approx(targets.uniform())
    for text in ("{", "[]", '{"unbiased": {"sampling": null}}'):
        (built / "build.json").write_text(text)
        assert densities.target_for(built) is None
