"""What an export is asked for, what it reports, and what a format gets to write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ubhpd.crops import Picture
from ubhpd.exports._heads import Heads
from ubhpd.recipes import Recipe

UNIT_HEADS = 500


@dataclass(frozen=True)
class ExportConfig:
    """What to export and how.

    place: folder of a build, or a manifest with build.json beside it. form: name of a format. recipe: of the crop, the
    format's own by default. size: side of the crops in pixels, the recipe's by default. split: only this one. out: the
    folder to write, by default in `exports` beside the manifest. picture: "png" or "jpg", for crops as files.
    seed: of a recipe that draws. skip_unreadable: leave out heads whose picture cannot be read instead of stopping.
    unit_heads: heads per piece of work.
    """

    place: Path
    form: str
    recipe: str | None = None
    size: int | None = None
    split: str | None = None
    out: Path | None = None
    picture: str = "png"
    seed: int = 0
    skip_unreadable: bool = False
    unit_heads: int = UNIT_HEADS


@dataclass
class ExportReport:
    """What an export holds: the content of export.json, but for `out` and `units_kept`.

    heads: how many by split, "all" without splits. box_sources: how many boxes came from which key of FACE_SOURCES.
    without_box, unreadable: sample ids of usable heads that are not in it. files: beside the pictures, below out.
    """

    ubhpd: str
    format: str
    recipe: dict[str, Any]
    size: int | None
    split: str | None
    picture: str
    seed: int
    fingerprint: str
    heads: dict[str, int] = field(default_factory=dict)
    box_sources: dict[str, int] = field(default_factory=dict)
    without_box: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    out: str = ""
    units_kept: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values, the same wherever and however it was made."""
        return {k: v for k, v in asdict(self).items() if k not in ("out", "units_kept")}


class Canvas(NamedTuple):
    """A file with room for the pixels of all heads, row after row from `offset` on."""

    path: str
    offset: int


@dataclass(frozen=True)
class Job:
    """What a format gets.

    size: side of the crops in pixels, None for pictures as they are. colour: order of the channels of the pixels.
    out: folder of the export; work: the one in it that goes when all is done. names: of each head's picture file below
    `out`. pixels: for `write` of an array format, gives the crop (size, size, 3) of a head. is_whole: False if heads
    have been left out since `begin`. advance: to be told how many heads are written.
    """

    recipe: Recipe
    size: int | None
    colour: str
    heads: Heads
    out: Path
    work: Path
    names: list[str]
    fingerprint: str
    pixels: Callable[[int], Picture] | None = None
    is_whole: bool = True
    advance: Callable[[int], None] = lambda done: None


class Card(NamedTuple):
    """What a format is.

    pictures: "array" for pixels in one file, "files" for picture files, "none". crops: False if it holds whole
    pictures only. colour: "RGB" or "BGR" if its arrays must have that order, "" for the recipe's. folder: where its
    picture files go, "{split}" filled in. jpeg: they must be .jpg. faces: every head needs a face box. points: it wants
    the landmarks. in_place: the workers' file becomes the export, so that nothing is there twice.
    """

    name: str
    title: str
    recipe: str
    pictures: str
    crops: bool = True
    colour: str = ""
    folder: str = "images"
    jpeg: bool = False
    faces: bool = False
    points: bool = False
    in_place: bool = False


class Format(Protocol):
    """A module in exports/."""

    CARD: Card

    def begin(self, job: Job) -> Canvas:
        """Make the file for the pixels, unless an interrupted export has left it; array formats only."""

    def write(self, job: Job) -> list[str]:
        """Write what belongs beside the pictures, and return the names of the files written."""
