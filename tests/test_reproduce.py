"""`ubhpd reproduce`: what the files of the papers say is valid, and what runs writes printed beside reproduced."""

import json
from dataclasses import replace

import pytest

import ubhpd
from ubhpd.core.errors import UbhpdError
from ubhpd.core.parallel import Engine
from ubhpd.core.progress import Progress
from ubhpd.evaluation.printed_results import results
from ubhpd.experiments import reproduce as module
from ubhpd.experiments.reproduce import Outcome, ReproduceRequest, reproduce
from ubhpd.models.catalogue import catalogue, configured
from ubhpd.pipeline import run
from ubhpd.pool.build import BuildConfig
from ubhpd.protocols.resolve import PROTOCOLS
from ubhpd.reports.paper_tables import OF_DATA, experiments, listing, papers, rows_of
from ubhpd.sampling.sampler import SamplingConfig
from ubhpd.sampling.ubhpd import UnbiasedConfig
from ubhpd.synth.writers import aflw2000_writer, biwi_writer, upna_writer, w300lp_writer

FIVE = ("OsGG-Net 2021", "Hopenet 2018", "FSA-Net 2019", "EHPNet 2022", "DADL 2023")
TABLES = [name for name, (_, e) in experiments().items() if e.kind == "table" and not e.why]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("reproduce")
    biwi_writer.write(root / "raw", range(1, 25), frames=2, with_depth=False)
    w300lp_writer.write(root / "raw", 6, views=3, distinct_images=3)
    aflw2000_writer.write(root / "raw", 8, distinct_images=2)
    upna_writer.write(root / "raw", range(1, 11), (1,), frames=3)
    config = BuildConfig(("biwi", "300wlp", "aflw2000", "upna"), root / "out", str(root / "raw"))
    run(config, UnbiasedConfig(SamplingConfig(60, "gaussian", 20.0)), Engine(), Progress(show=False))
    return root / "out"


def smoke(name, data, out, **rest):
    return reproduce(ReproduceRequest(name, data, out, "smoke", device="cpu", **rest))


# The files of the papers


def test_every_printed_table_is_listed_and_every_row_has_its_method():
    by_paper = {paper.paper: (name, paper) for name, paper in papers().items()}
    assert set(by_paper) == set(FIVE)
    for row in results():
        if row.paper in FIVE and row.table.isdigit():
            name, paper = by_paper[row.paper]
            assert f"{name}/table-{row.table}" in experiments(), row
            assert row.method in paper.methods, row


def test_every_method_is_a_model_with_options_that_it_takes_or_says_why_not():
    pytest.importorskip("torch")
    for paper in papers().values():
        for name, method in paper.methods.items():
            assert bool(method.model) != bool(method.why), name
            for model in filter(None, (method.model, *method.on.values())):
                assert model in catalogue(), name
                if catalogue()[model].kind != "reported":
                    configured(model, method.options)
                    configured(model, {**method.options, **method.smoke})
        assert set(paper.protocols.values()) <= set(PROTOCOLS)
        for own in paper.experiments:
            assert set(own.methods) <= set(paper.methods), own.id
            assert own.why or own.kind in ("table", *OF_DATA) or (own.methods and own.pairs), own.id
            assert own.title and (own.why or own.kind != "table" or own.conclusion), own.id
        used = {r.method for e in paper.experiments for r in rows_of(paper, e)}
        assert set(paper.methods) == used, set(paper.methods) - used  # none for nothing


def test_what_cannot_be_run_says_why():
    listed = {own["id"]: own for own in listing()}
    assert len(listed) == 63 and sum(not own["why"] for own in listed.values()) >= 46
    assert listed["osgg/table-6"]["needs"] == ["biwi"] and listed["osgg/table-6"]["runnable"] == 9
    assert "a drawing" in listed["fsanet/figure-2"]["why"]
    for own in listed.values():
        assert all(reason for reason in own["left_out"].values())


def test_the_rows_of_table_6_that_are_one_training_say_so():
    paper, table = experiments()["osgg/table-6"]
    notes = {row.method: row.spec.note for row in rows_of(paper, table)}
    assert sum("no gradient" in note for note in notes.values()) == 4
    assert not notes["OsGG-Net: sparse 1 dense 10"]


# Runs


@pytest.fixture(scope="module")
def made(data, tmp_path_factory):
    pytest.importorskip("torch")
    out = tmp_path_factory.mktemp("results")
    return smoke("fsanet/table-2", data, out, rows=("SSR-Net-MD", "FSA-Caps (1x1)")), out


def test_printed_stands_beside_reproduced(made):
    found, out = made
    assert [row.method for row in found.rows] == ["SSR-Net-MD", "FSA-Caps (1x1)"] and not found.failed
    content = json.loads((out / "reproduced" / "fsanet-table-2.json").read_text())
    text = (out / "reproduced" / "fsanet-table-2.md").read_text()
    for row in content["rows"]:
        value, low, high = row["scores"]["mae"]
        assert low < value < high and f"{value:.2f}" in text and f"{row['printed']['mae']:.2f}" in text
        assert all((out / path).is_file() for path in row["runs"])
    assert "The paper concludes: FSA-Caps-Fusion has the lowest MAE." in text
    assert len(found.verdict) == 1 and "of 2 rows" in found.verdict[0]


def test_the_python_function_gives_the_same_rows_as_a_table(made, data):
    found, out = made
    again = ubhpd.reproduce("fsanet/table-2", data, out, scale="smoke", rows="SSR-Net-MD", device="cpu", progress=False)
    table = again.table().set_index("angle")
    value, low, high = found.rows[0].scores["mae"]
    assert table.loc["mae", ["reproduced", "low", "high"]].tolist() == [value, low, high]
    assert table.index.tolist() == ["yaw", "pitch", "roll", "mae"] and (table.method == "SSR-Net-MD").all()
    assert table.loc["mae", "printed"] == found.rows[0].printed["mae"] and table.loc["yaw", "train"] == "300W-LP"


def test_runs_are_shared_and_kept(made, data, monkeypatch):
    found, out = made
    trained = []
    monkeypatch.setattr(module, "bench", lambda *a: (trained.append(a), bench(*a))[1])
    from ubhpd.experiments.benchmark import bench

    again = smoke("fsanet/table-4", data, out, rows=("SSR-Net-MD",))
    assert [r.test for r in again.rows] == ["AFLW2000", "BIWI"]
    assert len(list((out / "runs" / "weights").glob("ssrnet_md-*"))) == 1  # one training for both test sets
    biwi = next(r for r in again.rows if r.test == "BIWI")
    assert biwi.scores == found.rows[0].scores and biwi.runs == found.rows[0].runs


@pytest.mark.parametrize(
    ("name", "size"), [("ehpnet/figure-4", None), ("fsanet/figure-6", None), ("fsanet/figure-4", None)]
)
def test_figures_are_drawn(name, size, data, tmp_path_factory, monkeypatch):
    pytest.importorskip("torch")
    import cv2

    paper, figure = experiments()["ehpnet/figure-4"]
    small = replace(figure, methods=("EHPNet teacher ResNet18",))  # its student learns from three ResNets of 101 layers
    monkeypatch.setattr(module, "experiments", lambda: experiments() | {"ehpnet/figure-4": (paper, small)})

    out = tmp_path_factory.getbasetemp() / "figures"
    rows = {"fsanet/figure-6": ("FSA-Caps (1x1)", "FSA-Caps (w/o)"), "fsanet/figure-4": ("FSA-Caps-Fusion",)}
    found = smoke(name, data, out, rows=rows.get(name, ()))
    assert not found.failed
    image = cv2.imread(next(f for f in found.files if f.endswith(".png")))
    assert image is not None and image.std() > 5


def test_the_resolution_figure_and_the_densities(data, tmp_path):
    pytest.importorskip("torch")
    found = smoke("hopenet/figure-8", data, tmp_path)
    (path,) = tmp_path.rglob("*.resolution.json")
    assert [c["amount"] for c in json.loads(path.read_text())["conditions"][1:]] == [96, 64, 48, 32, 16, 8]
    assert any(f.endswith("hopenet-figure-8.png") for f in found.files)
    assert any("osgg-figure-3" in f and f.endswith(".png") for f in smoke("osgg/figure-3", data, tmp_path).files)


def test_figures_of_a_build_alone_are_drawn_with_their_numbers(data, tmp_path):
    pytest.importorskip("torch")
    found = smoke("hopenet/figure-4", data, tmp_path)
    numbers = json.loads((tmp_path / "reproduced" / "hopenet-figure-4.numbers.json").read_text())
    assert numbers["dataset"] == "aflw2000" and {p["figure"] for p in numbers["points"]} >= {"number", "noise"}
    assert any(f.endswith("hopenet-figure-4.png") for f in found.files) and not found.rows
    smoke("dadl/figure-5", data, tmp_path)
    numbers = json.loads((tmp_path / "reproduced" / "dadl-figure-5.numbers.json").read_text())
    assert [curve["angle"] for curve in numbers["curves"]] == ["yaw", "pitch", "roll"]
    assert sum(sum(curve["heads"]) for curve in numbers["curves"]) > 0


def test_activations_and_structures_are_drawn_for_test_heads(data, tmp_path):
    pytest.importorskip("torch")
    import cv2

    found = smoke("dadl/figure-10", data, tmp_path, rows=("DADL",))
    (path,) = (f for f in found.files if f.endswith(".png"))
    assert not found.failed and cv2.imread(path).std() > 5
    found = smoke("fsanet/figure-5", data, tmp_path)
    drawn = [cv2.imread(f) for f in found.files if f.endswith(".png")]
    assert len(drawn) == 3 and all(image.std() > 5 for image in drawn)
    assert any((a.shape != drawn[0].shape or (a != drawn[0]).any()) for a in drawn[1:])  # of different heads


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_every_table_runs(name, data, tmp_path_factory):
    found = smoke(name, data, tmp_path_factory.getbasetemp() / "all")
    assert not found.failed and any(row.scores for row in found.rows)


# Verdicts and bad input


def outcome(method, printed, value, low=None, high=None):
    return Outcome(method, "A", "B", {"mae": printed}, {"mae": (value, low, high)})


def test_a_verdict_names_the_best_row_and_the_order():
    same = [outcome("a", 3.0, 6.0), outcome("b", 4.0, 7.0), outcome("c", 5.0, 8.0)]
    assert module._verdict(same) == ["A to B: of 3 rows the same row is the best; Kendall's tau of the order 1.00."]
    turned = [outcome("a", 3.0, 8.0, 7.5, 8.5), outcome("b", 4.0, 7.0, 6.4, 7.6), outcome("c", 5.0, 9.0, 8, 10)]
    assert module._verdict(turned)[0].startswith(
        "A to B: of 3 rows b is the best, printed a, and their intervals overlap"
    )
    assert "no order to compare" in module._verdict(same[:1])[0]


def test_bad_input_is_one_sentence(data, tmp_path, ubhpd):
    options = ("--data", data, "--out", tmp_path / "r", "--scale", "smoke")
    for arguments, sentence in (
        (("osgg/table-60", *options), "No table or figure is called 'osgg/table-60': did you mean osgg/table-"),
        (("osgg/table-2", *options, "--rows", "OsGG"), "osgg/table-2 has no row 'OsGG': did you mean 'OsGG-Net'?"),
        (("osgg/figure-1", *options), "osgg/figure-1 cannot be run: a drawing without a result."),
        (("osgg/table-2",), "Name a build by --data OUT"),
        (("osgg/table-2", *options, "--seeds", "a"), "are no whole numbers"),
        (("osgg/table-2", "--data", tmp_path, "--out", tmp_path / "r"), "is no folder of a build"),
    ):
        code, _, err = ubhpd("reproduce", *arguments)
        assert code == 2 and sentence in err and len(err.strip().splitlines()) == 1, err


def test_a_build_without_the_datasets_names_them(tmp_path):
    aflw2000_writer.write(tmp_path / "raw", 3, distinct_images=1)
    run(BuildConfig(("aflw2000",), tmp_path / "out", str(tmp_path / "raw")), None, Engine(), Progress(show=False))
    with pytest.raises(UbhpdError, match=r"fsanet/table-2 needs 300wlp, biwi, which .*out does not hold"):
        smoke("fsanet/table-2", tmp_path / "out", tmp_path / "r")


def test_the_command_lists_and_runs(data, made, ubhpd):
    code, out, _ = ubhpd("reproduce")
    assert code == 0 and "osgg/table-6" in out and "9 of 9 rows run" in out
    assert json.loads(ubhpd("reproduce", "--json")[1])[0]["id"] == "dadl/table-1"
    code, out, err = ubhpd("reproduce", "fsanet/TABLE-2", "--rows", "SSR-Net-MD", "--data", data, "--out", made[1],
                           "--scale", "smoke", "--device", "cpu", "--quiet")  # fmt: skip
    assert code == 0 and out == "", err
