"""Options and JSON into dataclasses, KEY=VALUE texts, and what a registry says of names and files."""

import sys
import types
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubhpd.core import options, registry
from ubhpd.core.errors import UbhpdError


@dataclass(frozen=True)
class Inner:
    n: int
    share: float | None = None


@dataclass(frozen=True)
class Outer:
    name: str
    inner: dict[str, Inner]
    pairs: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class Chosen:
    frame: str = field(default="depth", metadata={"choices": ("depth", "rgb")})
    size: int = 3


WHOLE = {"name": "a", "inner": {"x": {"n": 1, "share": 2}}, "pairs": [[1, 2.5]]}


def test_json_becomes_dataclasses_with_their_types():
    found = options.from_json(WHOLE, Outer, "f")
    assert found == Outer("a", {"x": Inner(1, 2.0)}, ((1.0, 2.5),))
    assert type(found.inner["x"].share) is float


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": 3}, r"^f\.name is 3, it has to be a text\.$"),
        ({"inner": []}, r"^f\.inner is \[\], it has to be an object\.$"),
        ({"inner": {"x": {"n": 1}, "y": {"n": 2.5}}}, r"^f\.inner\.y\.n is 2\.5, it has to be a whole number\.$"),
        ({"inner": {"x": {"n": True}}}, r"^f\.inner\.x\.n is True, it has to be a whole number\.$"),
        ({"inner": {"x": {"n": 1}, "y": {}}}, r"^f\.inner\.y lacks the field 'n'"),
        ({"inner": {"x": {"n": 1, "m": 2}}}, r"^f\.inner\.x has a field 'm' that this ubhpd does not know"),
        ({"inner": {"x": {"n": 1, "share": float("nan")}}}, r"^f\.inner\.x\.share is nan, it has to be a number"),
        ({"pairs": [[1], [2, "x"]]}, r"^f\.pairs\[1\]\[1\] is 'x', it has to be a number\.$"),
        ({"more": 1}, r"^f has a field 'more' that this ubhpd does not know"),
        ({"name": 10**400}, r"^f\.name is 1000.*\.\.\., it has to be a text\.$"),
    ],
)
def test_json_that_does_not_fit_is_one_sentence(change, sentence):
    with pytest.raises(UbhpdError, match=sentence) as caught:
        options.from_json(WHOLE | change, Outer, "f")
    assert len(str(caught.value)) < 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["n", "share", "name", "inner", "pairs", "x", "a.b", "[0]"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(JSON)
def test_any_json_gives_a_dataclass_or_one_sentence(content):
    try:
        found = options.from_json(content, Outer, "f")
    except UbhpdError as error:
        assert str(error).startswith("f") and "\n" not in str(error)
    else:
        assert isinstance(found, Outer)


def test_choices_in_the_metadata_of_a_field_are_kept():
    assert options.from_texts(Chosen, {"frame": "rgb", "size": "4"}, "biwi") == Chosen("rgb", 4)
    with pytest.raises(UbhpdError, match=r"^biwi\.frame cannot be 'left': choose from depth, rgb\.$"):
        options.from_texts(Chosen, {"frame": "left"}, "biwi")


@pytest.mark.parametrize("text", ["a", "=1", "a=", " =1"])
def test_a_text_without_key_or_value_is_refused(text):
    with pytest.raises(UbhpdError, match=r"^--root '.*' is not of the form NAME=VALUE\.$"):
        options.key_values([text], "NAME=VALUE", "--root")


def test_options_of_several_owners_are_sorted_out():
    texts = ["a.x=1", "b.x=y=z", "a.y.z=2", "a.x=1"]
    assert options.owner_key_values(texts, "A.K=V") == {"a": {"x": "1", "y.z": "2"}, "b": {"x": "y=z"}}
    for text in ("ax=1", ".x=1", "a.=1"):
        with pytest.raises(UbhpdError, match=r"is not of the form A\.K=V, as p\.q=1"):
            options.owner_key_values([text], "A.K=V", "-O", "p.q=1")
    with pytest.raises(UbhpdError, match=r"a\.x is given twice: choose between 1 and 2"):
        options.owner_key_values(["a.x=1", "a.x=2"], "A.K=V")


def test_a_name_is_known_whatever_its_case_and_the_nearest_is_suggested():
    known = {"biwi": 1, "AFLW": 2, "aflw2000": 3}
    assert registry.pick(known, "aflw", "dataset") == ("AFLW", 2)
    with pytest.raises(UbhpdError, match=r"^No dataset is called 'AFLW200': did you mean aflw2000 or AFLW\?$"):
        registry.pick(known, "AFLW200", "dataset")
    with pytest.raises(UbhpdError, match="choose from biwi, AFLW, aflw2000"):
        registry.pick(known, "x" * 500, "dataset")


@pytest.fixture
def package(tmp_path):
    """A package with the files that a test writes."""
    made = types.ModuleType("made_up_package")
    made.__path__ = [str(tmp_path)]
    sys.modules["made_up_package"] = made
    yield made
    for name in [n for n in sys.modules if n.partition(".")[0] == "made_up_package"]:
        del sys.modules[name]


def test_files_are_found_without_a_list(package, tmp_path):
    for name in ("b", "a", "_private"):
        (tmp_path / f"{name}.py").write_text(f"NAME = 'x{name}'\n")
    assert registry.files(package) == {"a": tmp_path / "a.py", "b": tmp_path / "b.py"}
    found = registry.entries(package, lambda own: None, lambda own: own.NAME, "things")
    assert list(found) == ["xa", "xb"]


def test_two_entries_of_one_name_are_refused(package, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.py").write_text("NAME = 'same'\n")
    with pytest.raises(UbhpdError, match=r"^Two things are called 'same': rename the one in b\.py or that in a\.py\.$"):
        registry.entries(package, lambda own: None, lambda own: own.NAME, "things")


@dataclass(frozen=True)
class Listed:
    kind: Literal["Wide", "narrow"] | None = "Wide"


def test_the_case_of_a_listed_text_does_not_count_and_the_nearest_is_suggested():
    assert options.from_texts(Listed, {"kind": "NARROW"}, "m") == Listed("narrow")
    assert options.from_texts(Listed, {"kind": "wide"}, "m") == Listed("Wide")
    assert options.from_texts(Chosen, {"frame": "RGB"}, "biwi") == Chosen("rgb")
    with pytest.raises(UbhpdError, match=r"'narow': it is one of Wide, narrow or none, did you mean narrow\?$"):
        options.from_texts(Listed, {"kind": "narow"}, "m")
    with pytest.raises(UbhpdError, match=r"^biwi\.frame cannot be 'dept': did you mean depth\?$"):
        options.from_texts(Chosen, {"frame": "dept"}, "biwi")
