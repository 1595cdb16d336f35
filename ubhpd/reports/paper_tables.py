"""The tables and figures of the five papers: what each is, which rows it has, and what can be run of it.

`data/experiments/*.toml` says, for each paper, which model with which options a reported method is, and which tables
and figures there are; the rows of a table are those of `published_results.csv`. `experiments/reproduce.py` runs them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from ubhpd.core.files import read_toml
from ubhpd.core.options import from_json
from ubhpd.core.text import table
from ubhpd.evaluation.printed_results import Printed, results
from ubhpd.models.catalogue import card
from ubhpd.protocols.resolve import PROTOCOLS

Kind = Literal[
    "table", "densities", "similarity", "landmarks", "examples", "scatter", "bars", "resolution", "cam", "structure"
]
OF_DATA = ("densities", "similarity", "landmarks")  # drawn from a build alone, without a run
# Which protocol a pair of training and test set of the papers is; a paper's file may say otherwise.
_PROTOCOLS = {
    "300W-LP>AFLW2000": "300wlp_aflw2000_1969",
    "300W-LP>BIWI": "300wlp_biwi_15678",
    "BIWI-train>BIWI-test": "biwi_16_8_drawn",
    "UPNA-train>UPNA-test": "upna_7_3",
    "UBHPD-train>UBHPD-test": "ubhpd",
    "UBHPD>BIWI": "ubhpd_cross_biwi",
    "AFLW-train>AFLW-test": "aflw_21080_1000",
}


@dataclass(frozen=True)
class Method:
    """What a reported method is here.

    model: of the catalogue; on: another model for a test set. options: of the model. smoke: further options of the
    smallest scale. teachers: models that it learns from, which are trained first; at the smallest scale with
    teacher_smoke as options. note: how this differs from the paper. why: why there is no model.
    """

    model: str | None = None
    on: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    smoke: dict[str, str] = field(default_factory=dict)
    teachers: tuple[str, ...] = ()
    teacher_smoke: dict[str, str] = field(default_factory=dict)
    note: str = ""
    why: str = ""


@dataclass(frozen=True)
class Experiment:
    """A table or figure of a paper.

    conclusion: what the paper concludes from it. kind: a table, or what a figure shows. methods, pairs: of a figure,
    which reported methods on which training and test sets. dataset: of a figure that is drawn from a build alone. why:
    why it cannot be run. note: how it differs from the paper's.
    """

    id: str
    title: str
    conclusion: str = ""
    kind: Kind = "table"
    methods: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    dataset: str = ""
    why: str = ""
    note: str = ""


@dataclass(frozen=True)
class Paper:
    """One file: the paper's name in published_results.csv, its title, its methods, tables and figures."""

    paper: str
    title: str
    methods: dict[str, Method]
    experiments: tuple[Experiment, ...]
    protocols: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A row of a table before it is run: what is printed, and what would be run; `why` says why it cannot be."""

    method: str
    train: str
    test: str
    printed: Printed | None
    protocol: str | None
    spec: Method
    why: str

    @property
    def model(self) -> str:
        """Return the model for this test set."""
        return self.spec.on.get(self.test, self.spec.model or "")


@lru_cache(maxsize=1)
def papers() -> dict[str, Paper]:
    """Return the papers by the name of their file, as "osgg".

    Raises:
        UbhpdError: a file is not as it has to be.
    """
    folder = Path(str(resources.files("ubhpd") / "data" / "experiments"))
    return {
        path.stem: from_json(read_toml(path, "install ubhpd again"), Paper, path.name)
        for path in sorted(folder.glob("*.toml"))
    }


def experiments() -> dict[str, tuple[Paper, Experiment]]:
    """Return every table and figure by its id, as "osgg/table-6"."""
    return {f"{name}/{e.id}": (paper, e) for name, paper in papers().items() for e in paper.experiments}


def rows_of(paper: Paper, experiment: Experiment) -> list[Row]:
    """Return the rows of an experiment: those printed, or the methods and pairs of a figure."""
    if experiment.kind == "table":
        number = experiment.id.removeprefix("table-")
        printed = [r for r in results() if (r.paper, r.table) == (paper.paper, number)]
        return [_row(paper, r.method, r.train, r.test, r) for r in printed] if not experiment.why else []
    return [_row(paper, m, train, test, None) for train, test in experiment.pairs for m in experiment.methods]


def _row(paper: Paper, method: str, train: str, test: str, printed: Printed | None) -> Row:
    spec = paper.methods.get(method, Method(why="this method is not described in the paper's file"))
    protocol = {**_PROTOCOLS, **paper.protocols}.get(f"{train}>{test}")
    why = spec.why
    if not why and (protocol is None or protocol not in PROTOCOLS):
        why = f"there is no protocol that trains on {train} and tests on {test}"
    if not why:
        own = card(spec.on.get(test, spec.model or ""))
        why = (
            f"{own.title} has no model here that can be run: ubhpd models {own.name}" if own.kind == "reported" else ""
        )
    return Row(method, train, test, printed, protocol, spec, why)


def needs(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the datasets that the protocols of runnable rows name, sorted; UBHPD stands for any."""
    found: set[str] = set()
    for row in rows:
        if not row.why and row.protocol is not None:
            own = PROTOCOLS[row.protocol]
            conditions = (*own.train.where, *own.test.where)
            found |= {v for w in conditions if (w.column, w.how) == ("dataset", "is") for v in w.values}
    return tuple(sorted(found))


def listing() -> list[dict[str, Any]]:
    """Return every table and figure: id, title, datasets needed, rows printed and runnable, why not."""
    listed = []
    for name, (paper, experiment) in experiments().items():
        rows = rows_of(paper, experiment)
        runnable = [row for row in rows if not row.why]
        why = experiment.why or ("" if runnable or experiment.kind in OF_DATA else "no row of it can be run")
        listed.append(
            {
                "id": name, "title": experiment.title, "kind": experiment.kind,
                "needs": list(needs(rows)) or list(filter(None, [experiment.dataset])),
                "rows": len(rows), "runnable": len(runnable), "why": why, "note": experiment.note,
                "left_out": {row.method: row.why for row in rows if row.why},
            }
        )  # fmt: skip
    return listed


def listing_text() -> str:
    """Return the table of all experiments."""
    return table([["id", "title", "needs", "rows", "state"], *_listing_rows()])


def _listing_rows() -> Iterator[list[str]]:
    for own in listing():
        state = f"not run: {own['why']}" if own["why"] else "runs"
        if not own["why"] and own["rows"]:
            state = f"{own['runnable']} of {own['rows']} rows run"
        yield [own["id"], own["title"], ", ".join(own["needs"]), str(own["rows"] or ""), state]


def markdown_listing() -> list[list[str]]:
    """Return the table of docs/reproduce.md, the header first."""
    rows = [["id", "what", "datasets", "state"]]
    for own in listing():
        state = own["why"] or (f"{own['runnable']} of {own['rows']} rows" if own["rows"] else "runs")
        state += f"; {own['note']}" if own["note"] else ""
        if own["left_out"] and not own["why"]:
            absent = ", ".join(dict.fromkeys(own["left_out"]))
            state += f"; without {absent}"
        rows.append([f"`{own['id']}`", own["title"], ", ".join(own["needs"]), re.sub(r"\|", "/", state)])
    return rows
