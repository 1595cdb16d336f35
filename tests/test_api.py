"""What `import ubhpd` gives: every public function on a small rendered build, and what loading it costs."""

import pkgutil
import subprocess
import sys
import typing

import numpy as np
import pandas as pd
import pytest

import ubhpd
from ubhpd import UbhpdError
from ubhpd.core import progress as progress_module
from ubhpd.core.progress import Progress

SOURCES = ("biwi", "aflw", "300wlp")
ANGLES = ["yaw", "pitch", "roll"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with raw data and a build, made once; `build` gives a new object for each test."""
    folder = tmp_path_factory.mktemp("api")
    heads = ubhpd.render(folder / "raw", SOURCES, heads=40, size=64, seed=1, progress=False)
    assert set(heads) == set(SOURCES)
    ubhpd.build(
        SOURCES, data_root=folder / "raw", out=folder / "out", size="auto", sigma=25, split="subject", progress=False
    )
    return folder


@pytest.fixture
def build(folder):
    return ubhpd.load(folder / "out")


def predictions(build, split="test", error=(3.0, 0.0, 0.0)):
    heads = build.ubhpd[build.ubhpd.split == split]
    table = heads[["sample_id"]].copy()
    for angle, own in zip(ANGLES, error, strict=True):
        table[angle] = heads[f"{angle}_deg"] + own
    return table.reset_index(drop=True)


# What importing costs, and what it gives


def test_importing_loads_no_library_and_no_part_of_the_package():
    script = (
        "import sys, ubhpd; dir(ubhpd); print([m for m in sys.modules if m.startswith(('ubhpd.', 'numpy', 'pand'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there_and_documented_and_typed():
    assert sorted(ubhpd.__all__) == ubhpd.__all__ and set(ubhpd.__all__) <= set(dir(ubhpd))
    assert set(ubhpd._HOME) == set(ubhpd.__all__)
    for name in ubhpd.__all__:
        value = getattr(ubhpd, name)
        assert value.__doc__ and value.__name__ == name
        if not isinstance(value, type):
            assert value.__annotations__["return"] and [a for a in _own(value) if f"{a}:" not in value.__doc__] == []


def _own(function):
    """The arguments that a function's docstring must explain, unless it says that they are those of another one."""
    return (
        [] if "arguments and errors as" in function.__doc__ else [a for a in function.__annotations__ if a != "return"]
    )


def test_no_public_name_is_hidden_by_a_subpackage():
    assert not {info.name for info in pkgutil.iter_modules(ubhpd.__path__)} & set(ubhpd.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'scores'"):
        ubhpd.scores  # noqa: B018


# Builds


def test_a_build_gives_its_tables_and_its_places(build, folder):
    assert build.folder == folder / "out" and build.has_ubhpd and build.manifest.name == "ubhpd.parquet"
    assert len(build.pool) == sum(own["heads"] for own in build.report["datasets"].values()) == 160
    assert set(build.ubhpd.split) == {"train", "test"} and build.ubhpd.sample_id.isin(build.pool.sample_id).all()
    head = build.pool[build.pool.dataset == "aflw"].iloc[0]
    assert (build.root("aflw") / head.image_path).is_file()
    table = build.table()
    assert list(table.index) == sorted(SOURCES) and table.ubhpd_train.sum() + table.ubhpd_test.sum() == len(build.ubhpd)
    assert "160 heads" in repr(build) and "<table" in build._repr_html_()
    with pytest.raises(UbhpdError, match="is called 'upna': choose from"):
        build.root("upna")


def test_a_folder_that_is_no_build_is_refused(tmp_path):
    with pytest.raises(UbhpdError, match="no folder of a build"):
        ubhpd.load(tmp_path)


def test_a_pool_alone(folder):
    build = ubhpd.build("biwi", data_root=folder / "raw", out=folder / "pool", pool_only=True, progress=False)
    assert not build.has_ubhpd and build.manifest.name == "pool.parquet" and set(build.pool.dataset) == {"biwi"}
    assert build.table().ubhpd_train.sum() == 0
    with pytest.raises(UbhpdError, match=r"ubhpd\.parquet"):
        build.ubhpd  # noqa: B018


def test_an_error_of_a_build_is_an_exception(folder):
    with pytest.raises(UbhpdError, match="No source is called 'mine'"):
        ubhpd.build("mine", data_root=folder / "raw", out=folder / "none", progress=False)


def test_densities_of_a_build_of_a_table_and_of_their_own_result(build):
    table = build.density()
    assert {"dataset", "angle", "low_deg", "high_deg", "count", "density", "outside"} == set(table)
    sums = table[table.dataset != "target"].groupby(["dataset", "angle"], sort=False).density.sum()
    assert sums.to_numpy() == pytest.approx(1.0)
    for kind in typing.get_args(typing.Literal["density", "joint", "overlay"]):
        assert len(build.plot_density(kind).axes) >= 3
    own = ubhpd.density(build.pool)
    pd.testing.assert_frame_equal(own[own.dataset == "aflw"], table[table.dataset == "aflw"], check_like=True)
    heads = pd.DataFrame({"yaw": [0.0, 95.0], "pitch": [1.0, 2.0], "roll": [-89.0, 89.0]})
    counted = ubhpd.density(heads)
    yaw = counted[(counted.dataset == "heads") & (counted.angle == "yaw")]
    assert yaw["count"].sum() == 1 and set(yaw.outside) == {1}
    again = ubhpd.density(heads)
    assert len(ubhpd.plot_density(again).axes) == len(ubhpd.plot_density(heads).axes) == 3
    with pytest.raises(UbhpdError, match="it needs yaw, pitch and roll"):
        ubhpd.density(pd.DataFrame({"yaw": [1.0]}))
    with pytest.raises(UbhpdError, match="No figure is called 'pie': choose from density"):
        ubhpd.plot_density(heads, "pie")


def test_the_audit_and_an_export(build, folder):
    found = ubhpd.audit(build)
    assert not found.has_leaks and found.table().loc["subject", "test_heads"] == 0 and len(found.pairs()) == 0
    assert "train" in str(found) and "<table" in found._repr_html_()
    whole = ubhpd.audit(folder / "out" / "pool.parquet", folder / "out" / "pool.parquet")
    assert whole.has_leaks and len(whole.pairs()) > 0
    report = ubhpd.export(build, "csv", out=folder / "csv", progress=False)
    assert (folder / "csv" / "heads.csv").is_file() and sum(report.heads.values()) == len(build.ubhpd)


# Labels


def test_the_label_counts_are_those_of_the_real_datasets():
    table = ubhpd.label_counts()
    yaw = table[(table.dataset == "300W-LP") & (table.angle == "yaw")]
    assert yaw["count"].sum() + yaw.outside.iloc[0] == 122_450
    assert len(ubhpd.plot_density(table).axes) == 9


def test_the_lower_bound_falls_with_fewer_heads_and_is_0_for_a_target_that_is_there(build):
    poses = ubhpd.draw_poses("300wlp", 3000, seed=3)
    assert list(poses) == ANGLES and poses.equals(ubhpd.draw_poses("300wlp", 3000, seed=3))
    few, many = (ubhpd.lower_bound(poses, n, sigma=30) for n in (300, 3000))
    assert 0 <= few < many < 1
    assert 0 <= ubhpd.lower_bound(build, 20, target="uniform") < 1
    with pytest.raises(UbhpdError, match="either sigma or target"):
        ubhpd.lower_bound(poses, 10)


def test_the_figure_of_the_angles_has_a_row_for_each():
    figure = ubhpd.plot_angles((-30, 30), side_px=32)
    assert [a.get_title() for a in figure.axes] == [f"{n} {v}°" for n in ANGLES for v in (-30, 30)]


def test_lists():
    assert {"biwi", "aflw2000"} <= set(ubhpd.list_datasets().index)
    assert ubhpd.list_datasets().loc["300wlp", "heads"] == 122_450
    assert ubhpd.list_models().loc["fsanet_capsule_1x1", "parameters"] > 100_000
    assert ubhpd.list_metrics().loc["ubmae", "unit"] == "degrees"
    assert "ubhpd" in ubhpd.list_protocols().index and ubhpd.list_crops().loc["fsanet-0.6", "size"] == 64
    experiments = ubhpd.list_experiments()
    assert experiments.loc["osgg/table-6", ["datasets", "runnable", "why"]].tolist() == [["biwi"], 9, ""]
    assert "a drawing" in experiments.loc["osgg/figure-1", "why"]


def test_the_printed_results_follow_their_rule():
    printed = ubhpd.published_results().dropna(subset=["ubmae", "ubmae_rule"])
    assert len(printed) > 50 and ((printed.ubmae - printed.ubmae_rule).abs() < 0.005).mean() > 0.8


# Scores


def test_scores_of_a_table_with_a_build(build):
    table = predictions(build)
    scores = ubhpd.score(table, build, bootstrap="samples", rounds=50)
    assert scores["mae"] == pytest.approx(1.0) and scores["mae_yaw"] == pytest.approx(3.0)
    assert "ubmae" in scores and np.isfinite(scores["ubmae"]) and scores.result["coverage"] == 1.0
    shown = scores.table()
    assert shown.loc["mae", "low"] <= shown.loc["mae", "value"] <= shown.loc["mae", "high"]
    assert shown.loc["mae", "meaning"] and set(shown.unit) >= {"degrees"}
    bins = scores.bins()
    assert (
        len(bins) == 45
        and bins.heads.sum() == 3 * len(table)
        and bins[bins.angle == "yaw"].error.max() == (pytest.approx(3.0))
    )
    errors = scores.errors()
    assert list(errors.sample_id) == list(table.sample_id) and errors.abs_error_yaw.to_numpy() == pytest.approx(3.0)
    for kind in ("angle", "bins", "distribution"):
        assert scores.plot(kind).axes
    assert "mae" in str(scores) and "<table" in scores._repr_html_()
    with pytest.raises(KeyError, match="no score 'mea'; the nearest is 'mae'"):
        scores["mea"]
    with pytest.raises(UbhpdError, match="No figure of scores is called 'pie': choose from angle"):
        scores.plot("pie")


def test_a_file_a_mapping_an_index_and_an_array_score_alike(build, tmp_path):
    table = predictions(build)
    table.to_csv(tmp_path / "p.csv", index=False)
    given = (
        tmp_path / "p.csv",
        str(tmp_path / "p.csv"),
        {name: table[name].to_numpy() for name in table},
        table.set_index("sample_id"),
        table[ANGLES].to_numpy(),
        table.sample(frac=1, random_state=0),
    )
    expected = ubhpd.score(table, build)
    for own in given:
        assert {k: v["value"] for k, v in ubhpd.score(own, build).result["scores"].items()} == pytest.approx(
            {k: v["value"] for k, v in expected.result["scores"].items()}, nan_ok=True
        )


def test_arrays_of_angles_and_of_matrices_with_their_truth():
    rng = np.random.default_rng(0)
    true = rng.uniform(-60, 60, (50, 3))
    scores = ubhpd.score(true + np.array([0.0, 2.0, 0.0]), true)
    assert scores["mae"] == pytest.approx(2 / 3) and "ubmae" not in scores
    with pytest.raises(KeyError, match="name it by source="):
        scores["ubmae"]
    assert np.isfinite(ubhpd.score(true, true, source="300W-LP")["ubmae"])
    from ubhpd.core.rotation import matrix_from_euler

    turned = ubhpd.score(matrix_from_euler(true + np.array([0.0, 2.0, 0.0])), matrix_from_euler(true))
    assert turned["mae"] == pytest.approx(2 / 3)


def test_predictions_that_cannot_be_scored_are_refused_in_a_sentence(build):
    table = predictions(build)
    with pytest.raises(UbhpdError, match="the predictions has no column sample_id"):
        ubhpd.score(table[ANGLES], build)
    with pytest.raises(UbhpdError, match=r"shape \(4, 2\)"):
        ubhpd.score(np.zeros((4, 2)), build)
    with pytest.raises(UbhpdError, match="2 rows, the test split of"):
        ubhpd.score(np.zeros((2, 3)), build)
    with pytest.raises(UbhpdError, match="has no ids"):
        ubhpd.score(np.zeros((2, 3)))
    with pytest.raises(UbhpdError, match="one row per head"):
        ubhpd.score(np.zeros((2, 3)), np.zeros((3, 3)))
    with pytest.raises(UbhpdError, match="stands in row 1 already"):
        ubhpd.score(pd.concat([table.head(1)] * 2), build)


def test_the_doctor_and_a_comparison(build):
    table = predictions(build, error=(0.0, 0.0, 0.0))
    assert ubhpd.doctor(table, build).is_healthy
    rng = np.random.default_rng(5)
    true = rng.uniform(-60, 60, (300, 3))
    sick = ubhpd.doctor(np.radians(true), true)
    assert not sick.is_healthy and sick.table().kind[0] == "radians" and "180/pi" in str(sick)
    better, worse = true + rng.normal(size=true.shape), true + 4 * rng.normal(size=true.shape)
    both = ubhpd.compare(better, worse, true, rounds=100)
    row = both.table().loc["mae"]
    assert row.difference == pytest.approx(row["first"] - row["second"]) and row.high < 0
    assert both.verdict.startswith("MAE: the first is lower") and "<table" in both._repr_html_()


# Models


def test_a_dataset_gives_images_and_targets(build):
    torch = pytest.importorskip("torch")
    heads = build.dataset("train", crop="fsanet-0.6", size=24, progress=False)
    assert len(heads) == (build.ubhpd.split == "train").sum() and heads.problems == []
    image, target = heads[1]
    assert image.shape == (3, 24, 24) and image.dtype == torch.float32 and 0.2 < float(image.max()) <= 1.0
    row = build.ubhpd.set_index("sample_id").loc[target["sample_id"]]
    assert target["angles_deg"].tolist() == pytest.approx([row[f"{a}_deg"] for a in ANGLES], abs=1e-3)
    assert target["rotation"].ravel().tolist() == pytest.approx(list(row.rotation), abs=1e-6)
    assert target["dataset"] == row.dataset
    images, targets = next(iter(torch.utils.data.DataLoader(heads, batch_size=5, num_workers=2)))
    assert images.shape == (5, 3, 24, 24) and targets["angles_deg"].shape == (5, 3) and len(targets["sample_id"]) == 5


def test_a_dataset_with_a_transform_of_a_protocol_and_of_what_is_not_there(build):
    pytest.importorskip("torch")
    seen = build.dataset("test", size=16, transform=lambda crop: (crop.dtype, crop.shape), progress=False)
    assert seen[0][0] == (np.uint8, (16, 16, 3))
    train = build.dataset("train", size=16, protocol="300wlp_biwi_15678", progress=False)
    assert set(train.dataset) == {"300wlp"} and len(train) == 80
    for wrong, message in (
        ({"split": "val"}, "no split 'val'"),
        ({"crop": "oval"}, "No crop recipe is called 'oval'"),
        ({"crop": "none"}, "needs a size"),
        ({"protocol": "9"}, "protocol"),
    ):
        with pytest.raises(UbhpdError, match=message):
            build.dataset(**{"size": None if "crop" in wrong else 16, "progress": False, **wrong})


def test_train_predict_bench_and_leaderboard(build, folder):
    pytest.importorskip("torch")
    trained = ubhpd.train("mean_pose", build, folder / "mean", progress=False)
    table = ubhpd.predict(trained, build, progress=False)
    assert set(table.sample_id) == set(predictions(build).sample_id) and table.attrs["problems"] == []
    assert set(ubhpd.predict(trained.weights, build, split="train", progress=False).sample_id) == set(
        predictions(build, "train").sample_id
    )
    report = ubhpd.bench("mean_pose", "ubhpd", build, folder / "results", progress=False)
    assert len(report.written) == 1 and not report.failed
    assert len(ubhpd.bench(["mean_pose"], ["ubhpd"], build, folder / "results", progress=False).kept) == 1
    board = ubhpd.leaderboard(folder / "results", out=folder / "board")
    mae = board.table().loc[("ubhpd", "mean_pose"), "mae"]
    assert mae == pytest.approx(ubhpd.score(table, build)["mae"], abs=1e-6)
    pd.testing.assert_frame_equal(
        board.predictions("mean_pose").sort_values("sample_id", ignore_index=True),
        table.sort_values("sample_id", ignore_index=True),
    )
    with pytest.raises(UbhpdError, match="no model 'x' there: choose from mean_pose"):
        board.predictions("x")
    assert len(board.bins()) == 45 and board.written and all(p.is_file() for p in board.written)
    assert not ubhpd.leaderboard([folder / "results"]).written and "<table" in board._repr_html_()
    for call in (
        lambda: ubhpd.train("mean_pose", build, folder / "x", step=3),
        lambda: ubhpd.bench("a", "1", build, "b", s=1),
    ):
        with pytest.raises(UbhpdError, match="has no argument"):
            call()


def test_a_network_is_trained_and_predicts(build, folder):
    pytest.importorskip("torch")
    trained = ubhpd.train(
        "ssrnet_md", build, folder / "net", steps=2, batch_size=4, validation=0.0, progress=False, workers=1
    )
    assert trained.steps == 2 and len(ubhpd.predict(trained, build, progress=False)) == len(predictions(build))


# Progress


class _Kernel:
    kernel = object()


class _IPython:
    @staticmethod
    def get_ipython():
        return _Kernel()


def test_in_a_notebook_a_bar_is_a_line_that_is_empty_at_the_end(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "IPython", _IPython)
    monkeypatch.setattr(progress_module, "_NOTEBOOK_SECONDS", 0.0)
    with Progress().bar("reading heads", 40) as advance:
        advance(10)
        advance(30)
    with Progress().step("opening") as report:
        report(1, 4)
    lines = capsys.readouterr().err.split("\r")
    assert any("reading heads: 10 of 40 (25%)" in line for line in lines)
    assert any("opening: 1 of 4 (25%)" in line for line in lines) and not lines[-1].strip()
    with Progress(show=False).bar("reading heads", 40) as advance:
        advance(10)
    assert capsys.readouterr().err == ""


def test_without_a_notebook_and_a_terminal_nothing_is_shown(capsys):
    with Progress().bar("reading heads", 40) as advance:
        advance(10)
    assert capsys.readouterr().err == ""
