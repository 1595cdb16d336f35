"""Sentences around a table: its heads and what is wrong with them, how it is ranked, footnotes of printed rows."""

from __future__ import annotations

from ubhpd.leaderboard.reported import COUNTERPARTS, Reported
from ubhpd.leaderboard.result import Side
from ubhpd.leaderboard.standings import TIED, Standing
from ubhpd.leaderboard.ties import BY_INTERVAL, PAIRED
from ubhpd.protocol.protocols import PROTOCOLS


class Footnotes:
    """Numbers the notes on printed rows, equal ones once.

    caveat: what holds for all printed rows of the table. texts: (mark, note), in their order.
    """

    def __init__(self, standing: Standing) -> None:
        own = COUNTERPARTS.get(standing.result.protocol.id)
        self.caveat = own.caveat if own is not None and standing.reported else ""
        notes = dict.fromkeys(note for row in standing.reported for note in row.notes)
        self._marks = {note: f"[{number}]" for number, note in enumerate(notes, start=1)}

    @property
    def texts(self) -> list[tuple[str, str]]:
        """Return (mark, note)."""
        return [(mark, note) for note, mark in self._marks.items()]

    def marks(self, row: Reported) -> str:
        """Return the marks of a row, with a space before them; "" for none."""
        return "".join(f" {self._marks[note]}" for note in row.notes)


HOW_RANKED = (
    "Entrants are ranked by MAE, the mean over seeds with its standard deviation; the ends of the interval stand with "
    "it. An = marks those that the data cannot tell from the first. Lower is better throughout."
)


def head_line(standing: Standing) -> str:
    """Return what the protocol is."""
    own = PROTOCOLS.get(standing.result.protocol.id)
    return own.sentence if own is not None else "A protocol that this version of ubhpd does not know."


def facts(standing: Standing) -> list[tuple[str, str]]:
    """Return names and texts of what all entrants of the table have in common."""
    own = standing.result
    p, r = own.protocol, own.resampling
    seed = "" if p.seed is None else f", divided with seed {p.seed}"
    return [
        ("Train", _side(own.train)),
        ("Test", _side(own.test)),
        ("Protocol", f"version {p.version}, definition {p.definition_hash[:12]}, heads {p.hash[:12]}{seed}"),
        ("Intervals", f"{100 * r.level:g} %, {r.rounds:,} resamples over {r.over} ({r.groups:,} of them)"),
        ("Ties", how_tied(standing)),
    ]


def warnings(standing: Standing) -> list[str]:
    """Return what is wrong with the heads, and versions that differ."""
    versions = sorted({e.result.ubhpd for e in standing.entrants})
    mixed = [f"Results of several versions of ubhpd: {', '.join(versions)}."] if len(versions) > 1 else []
    return [*standing.result.protocol.warnings, *mixed]


def how_tied(standing: Standing) -> str:
    """Return how it was found which entrants are tied with the first."""
    told = {e.told_by for e in standing.entrants if e.told_by}
    if not told:
        return "nothing to compare: one ranked entrant"
    tied = sum(e.standing == TIED for e in standing.entrants)
    ways = {
        PAIRED: "paired resamples of the predictions",
        BY_INTERVAL: "the interval of the first, predictions missing",
    }
    return f"{tied} with the first, by {' and '.join(ways[t] for t in sorted(told))}"


def _side(side: Side) -> str:
    datasets = ", ".join(f"{name} {heads:,}" for name, heads in side.datasets.items())
    return f"{side.heads:,} heads ({datasets}), fingerprint {side.fingerprint[:12]}"
