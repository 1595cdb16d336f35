"""Results that papers report for the training and test sets of a protocol, and when they are shown beside results.

A reported number belongs to a test set, so it is shown only where a result has the heads of that set: names and counts
as published, which `ubhpd.protocols` checks. It is not ranked with results all the same: its crops, checkpoint choice
and evaluation code are not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from ubhpd.core.bins import ANGLES
from ubhpd.evaluation.printed_results import Printed, lint, printed_pairs, results
from ubhpd.leaderboards.result import SUBMITTED, MethodInfo, Result

ROUNDING_DEG = 0.0051
UBHPD_HEADS = 25_000  # of the authors' dataset, which was not published


class Counterpart(NamedTuple):
    """The names of a protocol's sets in published_results.csv, a caveat about them, and other names of the test set."""

    train: str
    test: str
    caveat: str
    also: tuple[str, ...] = ()


class KnownProtocol(NamedTuple):
    """A protocol of this version of ubhpd.

    has_published_counts: whether papers publish how many heads it has. test_heads, test_names_sha256: how many test
    heads are published, and the hash of their sorted names, where known.
    """

    sentence: str
    definition_hash: str
    has_published_counts: bool
    test_heads: int | None = None
    test_names_sha256: str | None = None


class Known(NamedTuple):
    """What this version of ubhpd knows, so that the leaderboard needs no other package than result files.

    protocols: by id. reported_as: the name in papers, by model; models without one are absent. constants: models that
    predict the same pose for every head. landmark_readers: models that read the landmarks of the test heads.
    models: paper, code, year and licence by model.
    """

    protocols: Mapping[str, KnownProtocol]
    reported_as: Mapping[str, str]
    constants: frozenset[str] = frozenset()
    landmark_readers: frozenset[str] = frozenset()
    models: Mapping[str, MethodInfo] = MappingProxyType({})


class Reported(NamedTuple):
    """A row of a paper, and notes on its known errors."""

    printed: Printed
    notes: tuple[str, ...]


_LISTS = "Which frames of BIWI tested was never published: the heads of these rows are others."
_WILD = "The papers' crops, detectors and choice of checkpoint differ, and BIWI stands for 13,219 to 15,678 frames."

COUNTERPARTS: Mapping[str, Counterpart] = {
    "300wlp_aflw2000_1969": Counterpart("300W-LP", "AFLW2000", "The papers' crops and choice of checkpoint differ."),
    "300wlp_biwi_15678": Counterpart("300W-LP", "BIWI", _WILD, ("BIWI 15,678 frames",)),
    "300wlp_biwi_13219": Counterpart("300W-LP", "BIWI", _WILD, ("BIWI 13,219 frames",)),
    **{
        name: Counterpart("BIWI-train", "BIWI-test", _LISTS)
        for name in ("biwi_70_30_frames", "biwi_70_30_sequences", "biwi_70_30_subjects", "biwi_16_8_drawn")
    },
    "upna_7_3": Counterpart("UPNA-train", "UPNA-test", "The paper does not say which users test."),
    "aflw_21080_1000": Counterpart("AFLW-train", "AFLW-test", "Which heads test was never published: they are others."),
    "ubhpd": Counterpart(
        "UBHPD-train", "UBHPD-test", "The authors' UBHPD was not published: the heads of these rows are others."
    ),
    "ubhpd_cross_biwi": Counterpart(
        "UBHPD", "BIWI", "The paper's UBHPD, sampled without BIWI, was not published: the training heads are others."
    ),
}


def printed_pair(protocol_id: str) -> str | None:
    """Return TRAIN:TEST of the constants behind the UBMAE reported for a protocol, None if none is reported."""
    own = COUNTERPARTS.get(protocol_id)
    return f"{own.train}:{own.test}" if own is not None and (own.train, own.test) in printed_pairs() else None


def why_not_shown(result: Result, known: Known) -> str | None:
    """Return why reported rows are not shown beside a result, None if they are."""
    own = known.protocols.get(result.protocol.id)
    if own is None or own.definition_hash != result.protocol.definition_hash:
        return "This is not a protocol of this version of ubhpd, so no reported result is known for it."
    if result.protocol.id not in COUNTERPARTS:
        return "No reported result is known for this protocol."
    if not _is_published_test(result, own):
        return "The test heads are not the published ones, so reported results cannot be compared with these."
    if not own.has_published_counts and result.train.heads + result.test.heads != UBHPD_HEADS:
        return f"The paper's UBHPD has {UBHPD_HEADS:,} heads, this one does not: reported results cannot be compared."
    return None


def _is_published_test(result: Result, own: KnownProtocol) -> bool:
    """Whether the test heads are the published ones, whatever the weights were trained on."""
    if own.test_heads is None:  # the published number is that of both splits together, or there is none
        return not result.protocol.warnings
    has_names = own.test_names_sha256 in (None, result.test.names_sha256)
    return result.test.heads == own.test_heads and has_names


def comparable(protocol_id: str) -> list[Printed]:
    """Return the reported rows that can stand beside results of a protocol; none for a protocol without any."""
    if (own := COUNTERPARTS.get(protocol_id)) is None:
        return []
    return [r for r in results() if r.train == own.train and r.test in (own.test, *own.also) and not r.differs]


def reported(result: Result, known: Known) -> tuple[Reported, ...]:
    """Return the reported rows for a result's protocol, lowest MAE first; none if they are not comparable."""
    if why_not_shown(result, known) is not None:
        return ()
    rows = comparable(result.protocol.id)
    kept: list[Printed] = []
    for row in sorted(rows, key=lambda r: (r.angles is None, r.row)):  # complete rows first
        if not any(_repeats(row, other) for other in kept):
            kept.append(row)
    kept.sort(key=lambda r: (r.mae is None, r.mae or 0.0, r.row))
    return tuple(Reported(row, _notes(row)) for row in kept)


def reported_mae(result: Result, rows: tuple[Reported, ...], known: Known) -> Reported | None:
    """Return the reported row of this model with its default options, or of the method that the result names as its
    own; None if there is none."""
    name = known.reported_as.get(result.model)
    if result.info is not None and result.info.reported_as is not None:
        name = result.info.reported_as
    elif result.training.how == SUBMITTED or result.chosen:
        return None
    own_rows = [r for r in rows if r.printed.method == name and r.printed.mae is not None]
    return min(own_rows, key=lambda r: bool(r.printed.source), default=None)  # a paper before a later measurement


def _repeats(row: Printed, other: Printed) -> bool:
    """Whether a row adds nothing to another: the same method and, within rounding, the same numbers."""
    pairs = [(getattr(row, n), getattr(other, n)) for n in (*ANGLES, "mae", "ubmae")]
    return row.method == other.method and all(
        a is None or (b is not None and abs(a - b) <= ROUNDING_DEG) for a, b in pairs
    )


@lru_cache(maxsize=1)
def _arithmetic_errors() -> Mapping[int, str]:
    """Return the arithmetic error of each row that has one."""
    return {finding.row: finding.text for finding in lint()}


def _notes(row: Printed) -> tuple[str, ...]:
    """Return the note of a row: its own in the table, else its arithmetic error."""
    note = row.note or _arithmetic_errors().get(row.row)
    return (note,) if note else ()
