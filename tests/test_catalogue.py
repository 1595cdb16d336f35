"""The catalogue reads cards without running them, and `ubhpd models` shows them."""

import json
import subprocess
import sys

import pytest
from model_room import GEOMETRIC, REPORTED, blocks, room_with

from ubhpd.core.errors import UbhpdError
from ubhpd.core.options import key_values
from ubhpd.models.catalogue import card, cards_of, catalogue, config_of, configured, module_of

TINY = blocks()[0]


@pytest.fixture
def room(tmp_path):
    with room_with(tmp_path, tinynet=TINY, middle=GEOMETRIC, lost=REPORTED):
        yield tmp_path


def refused(tmp_path, text, match):
    (tmp_path / "odd.py").write_text(text)
    with pytest.raises(UbhpdError, match=match) as error:
        cards_of(tmp_path / "odd.py")
    assert "baselines/odd.py" in str(error.value) and "\n" not in str(error.value)


def test_a_card_is_read_from_the_file_that_holds_it(room):
    wide = card("tinynet_wide")
    assert (wide.file, wide.title, wide.kind, dict(wide.options)) == ("tinynet", "TinyNet", "image", {"channels": 16})
    assert (wide.parameters, wide.reported, wide.megabytes) == (14_435, None, 14_435 * 4 / 1e6)
    assert wide.summary.startswith("TinyNet: three") and "no paper" in wide.text
    assert card("middle").reported == "VGG16" and card("middle").parameters is None
    assert list(catalogue()) == sorted(catalogue())


def test_reading_cards_runs_nothing(tmp_path):
    with room_with(tmp_path, tinynet=TINY + "\nraise SystemExit('run')\n"):
        assert "tinynet" in catalogue()


def test_an_unknown_name_leads_to_the_nearest(room):
    with pytest.raises(UbhpdError, match="'tinynt': did you mean tinynet"):
        card("tinynt")
    with pytest.raises(UbhpdError, match="'zzz': choose from .*tinynet_wide"):
        card("zzz")


@pytest.mark.parametrize("old, new, match", [
    ('"""TinyNet', 'X = """TinyNet', "no docstring"),
    ("TITLE =", "TITEL =", "no text TITLE"),
    ('PAPER = "none', 'PAPER = " " # "', "no text PAPER"),
    ('KIND = "image"', 'KIND = "painting"', "KIND is 'painting'"),
    ('KIND = "image"', 'KIND = "geometric"', "PARAMETERS has tinynet, tinynet_wide, it has to have nothing"),
    ('KIND = "image"', 'KIND = "reported"', "tinynet_wide is only reported"),
    ("MODELS = {", "MODELS = dict() # {", "MODELS has to be written out"),
    ('MODELS = {"tinynet": {}, "tinynet_wide": {"channels": 16}}', "MODELS = {}", "MODELS is empty"),
    ('MODELS = {"tinynet"', 'MODELS = {"Tiny-Net"', "'Tiny-Net' is no name"),
    ('{"tinynet": {}', '{"tinynet": None', "options of tinynet are no dictionary"),
    ('{"tinynet": 3_763', '{"tiny": 3_763', "PARAMETERS has tiny, tinynet_wide, it has to have tinynet, tinynet_wide"),
    ("3_763", "3.5", "PARAMETERS of tinynet is 3.5"),
    ("REPORTED: dict[str, str] = {}", 'REPORTED = {"tiny": "VGG16"}', "REPORTED has 'tiny'"),
    ("def forward(", "def forward((", "cannot be read as Python"),
    ("CODE =", "\0CODE =", "cannot be read as Python"),
])  # fmt: skip
def test_a_wrong_card_is_one_sentence(tmp_path, old, new, match):
    assert old in TINY
    refused(tmp_path, TINY.replace(old, new, 1), match)


def test_two_models_of_one_name_are_refused(tmp_path):
    with (
        room_with(tmp_path, tinynet=TINY, twin=TINY),
        pytest.raises(UbhpdError, match=r"called 'tinynet': .*twin\.py .*tinynet\.py"),
    ):
        catalogue()


def test_options_are_those_of_the_model_then_those_chosen(room):
    pytest.importorskip("torch")
    module, config = configured("tinynet_wide", {"size": "64"})
    assert (config.size, config.channels) == (64, 16)
    assert configured("tinynet", {"channels": "4"})[1] == module.Config(channels=4)


@pytest.mark.parametrize("chosen, match", [
    ({"chanels": "4"}, "tinynet has no option 'chanels': did you mean channels, one of size, channels"),
    ({"xyz": "4"}, "no option 'xyz': it has size, channels"),
    ({"size": "big"}, "tinynet.size cannot be 'big': it is a whole number"),
    ({"size": "32.5"}, "size cannot be 32.5"),
    ({"size": "true"}, "size cannot be True"),
    ({"size": "4"}, "TinyNet has size 4"),
])  # fmt: skip
def test_a_wrong_option_is_one_sentence(room, chosen, match):
    pytest.importorskip("torch")
    with pytest.raises(UbhpdError, match=match):
        configured("tinynet", chosen)


KINDS = """
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Config:
    share: float = 0.5
    on: bool = True
    text: str = "a"
    pair: tuple[float, float] = (0.0, 0.0)
    many: tuple[int, ...] = ()
    head: Literal["bins", "angles"] = "bins"
    depth: Literal[18, 34] = 18
    limit: float | None = None


def fit(config, heads): return {}
def solve(config, parameters, heads): return None
"""
CARD = GEOMETRIC.partition("from dataclasses")[0] + GEOMETRIC[GEOMETRIC.index("TITLE") : GEOMETRIC.index("@dataclass")]


@pytest.fixture
def kinds(tmp_path):
    with room_with(tmp_path, kinds=CARD + KINDS):
        yield


@pytest.mark.parametrize("key, text, value", [
    ("share", "2", 2.0), ("share", "-1e-3", -1e-3), ("on", "False", False), ("text", "3", "3"),
    ("text", "none", "none"),
    ("pair", "1, 2.5", (1.0, 2.5)), ("many", "7", (7,)), ("many", "1,2,3", (1, 2, 3)), ("head", "angles", "angles"),
    ("depth", "34", 34), ("limit", "none", None), ("limit", "3", 3.0),
])  # fmt: skip
def test_texts_become_the_type_of_the_field(kinds, key, text, value):
    found = getattr(configured("middle", {key: text})[1], key)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("key, text, words", [
    ("share", "nan", "a number"), ("share", "1e999", "a number"), ("on", "1", "true or false"),
    ("pair", "1", "2 numbers with"), ("pair", "1,x", "2 numbers with"), ("many", "1.5,2", "whole numbers with"),
    ("head", "bin", "one of bins, angles"), ("depth", "50", "one of 18, 34"), ("limit", "x", "a number or none"),
])  # fmt: skip
def test_texts_of_another_type_are_refused_in_words(kinds, key, text, words):
    with pytest.raises(UbhpdError, match=f"middle.{key} cannot be .*: it is {words}"):
        configured("middle", {key: text})


def test_a_config_survives_json(kinds):
    module, config = configured("middle", {"many": "1,2", "pair": "3,4", "limit": "5"})
    from dataclasses import asdict

    assert config_of(module, json.loads(json.dumps(asdict(config))), "middle") == config
    with pytest.raises(UbhpdError, match="x has no option 'more'"):
        config_of(module, {"more": 1}, "x")


def test_pairs_are_taken_apart():
    assert key_values(["a=1", "b=x=y"]) == {"a": "1", "b": "x=y"}
    for text in ("a", "a=", "=1"):
        with pytest.raises(UbhpdError, match="not of the form KEY=VALUE"):
            key_values([text])
    with pytest.raises(UbhpdError, match="a is given twice"):
        key_values(["a=1", "a=2"])


@pytest.mark.parametrize("text, match", [
    (TINY.replace("import torch\n", "import torch_not_there\n", 1), "imports torch_not_there, which is not there"),
    (TINY + "\nundefined_name\n", "does not run .NameError"),
    (TINY.replace("class Network(", "class Net("), "has no Network"),
    (TINY.replace("def training_recipe(", "def recipe("), "has no training_recipe"),
    (TINY.replace("@dataclass(frozen=True)", "@dataclass", 1), "has no frozen dataclass Config"),
])  # fmt: skip
def test_code_that_is_broken_is_one_sentence(tmp_path, text, match):
    if "import torch\n" in text:
        pytest.importorskip("torch")
    with room_with(tmp_path, tinynet=text), pytest.raises(UbhpdError, match=match):
        module_of(card("tinynet"))


def test_a_reported_model_cannot_be_run(room):
    with pytest.raises(UbhpdError, match="lost is known by its printed numbers only"):
        configured("lost")


def test_without_torch_a_sentence_says_how_to_get_it(room, monkeypatch, ubhpd):
    monkeypatch.setitem(sys.modules, "torch", None)
    for arguments in (("weights", "import", "x.h5"), ("weights", "init")):
        code, _, err = ubhpd(*arguments, "--model", "tinynet", "--out", "x.safetensors")
        assert code == 2 and "tinynet needs torch" in err and "pip install 'ubhpd[torch]'" in err
    assert "middle" in str(configured("middle")[0])


def test_the_list_and_the_card_as_a_user_sees_them(room, ubhpd):
    code, out, _ = ubhpd("models")
    assert code == 0 and all(name in out for name in catalogue())
    row = next(line for line in out.splitlines() if line.startswith("tinynet_wide"))
    assert row.split() == ["tinynet_wide", "TinyNet", "image", "14,435", "0.1", "0", "MIT"]
    code, out, _ = ubhpd("models", "lost")
    title, *rest = out.splitlines()
    assert code == 0 and "QuatNet" not in title and any(r.startswith("OsGG-Net 2021, table 1") for r in rest)
    code, _, err = ubhpd("models", "tinynett")
    assert code == 2 and "did you mean tinynet" in err


def test_the_card_of_a_network_shows_its_options_and_recipes(room, ubhpd):
    pytest.importorskip("torch")
    code, out, _ = ubhpd("models", "tinynet_wide")
    assert code == 0
    for text in ("channels     16  a whole number", "14,435 parameters", "crop square", "batch_size 32", "no paper"):
        assert text in out


def test_json_of_the_list(room, ubhpd):
    found = {m["name"]: m for m in json.loads(ubhpd("models", "--json")[1])}
    assert found["middle"] == {"name": "middle", "title": "Mean", "kind": "geometric", "parameters": None,
                               "megabytes": None, "license": "MIT", "printed_results": 4}  # fmt: skip


def test_json_of_the_card_of_a_network(room, ubhpd):
    pytest.importorskip("torch")
    one = json.loads(ubhpd("models", "tinynet", "--json")[1])
    assert one["config"]["channels"] == {"value": 8, "type": "a whole number"}
    assert one["input"]["size"] == 32 and one["training"]["optimizer"] == "adam"


def test_a_card_without_torch_is_shown_without_options(room, monkeypatch, ubhpd):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    code, out, err = ubhpd("models", "tinynet")
    assert code == 0 and "It has no paper" in out and "channels" not in out and "pip install" in err


def test_the_list_needs_no_torch():
    script = "import sys\nfrom ubhpd import cli\ntry: cli.main(['models'])\nexcept SystemExit: pass\n"
    script += "sys.exit(str({'torch', 'scipy', 'pandas', 'cv2', 'h5py'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.strip() == "set()"
