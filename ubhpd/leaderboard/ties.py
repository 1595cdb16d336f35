"""Which entrants the data cannot tell from the winner: by paired resampling of their predictions, else by intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ubhpd import manifest
from ubhpd.errors import UbhpdError
from ubhpd.leaderboard.result import Found
from ubhpd.models.checkpoint import file_origin

PAIRED, BY_INTERVAL = "paired", "interval"


def tied(winner: Sequence[Found], other: Sequence[Found], rank_by: str) -> tuple[bool, str]:
    """Return whether the data leave open which of two entrants is better, and how that was found.

    Where both have predictions on the same heads, the paired bootstrap decides (`ubhpd.scores.evaluate.compare`), per
    seed that both have, or on all pairs of runs if they share none: the two are told apart only if every comparison
    has the winner ahead and an interval of the difference without 0. Where predictions are not there, an entrant is
    not told apart if its score lies within the winner's interval, averaged over seeds.
    """
    shared = [(a, b) for a in winner for b in other if a.result.seed == b.result.seed]
    pairs = shared or [(a, b) for a in winner for b in other]
    compared = [_difference(a, b, rank_by) for a, b in pairs]
    if all(c is not None for c in compared):
        return not all(c is not None and c[1] < 0.0 for c in compared), PAIRED
    highs = [f.result.scores[rank_by].high for f in winner]
    values = [f.result.scores[rank_by].value for f in other]
    return _mean(values) <= _mean(highs), BY_INTERVAL


def _mean(values: Sequence[float | None]) -> float:
    """Return the mean, NaN if one is not known: NaN is tied with nothing."""
    return sum(math.nan if v is None else v for v in values) / len(values)


def _difference(a: Found, b: Found, name: str) -> tuple[float, float] | None:
    """Return the interval of a's score minus b's on the same resamples; None where predictions or truth are gone."""
    from ubhpd.scores.evaluate import EvaluationOptions, compare
    from ubhpd.scores.intervals import BootstrapOptions

    paths = [_predictions(f) for f in (a, b)]
    truth = a.path.parent / "test" / "pool.parquet"
    o = a.result.resampling
    try:
        if None in paths or manifest.header(truth).fingerprint != a.result.test.fingerprint:
            return None
        options = EvaluationOptions(bootstrap=BootstrapOptions(o.rounds, o.level, o.over, o.seed))
        found = compare(str(paths[0]), str(paths[1]), truth, options).result["scores"].get(name)
    except UbhpdError:
        return None
    if found is None or found["low"] is None or found["high"] is None:
        return None
    return found["low"], found["high"]


def _predictions(found: Found) -> Path | None:
    """Return the predictions beside a result if they are those it was made from."""
    path = found.path.parent / Path(found.result.predictions).name
    try:
        return path if file_origin(path)["sha256"] == found.result.predictions_sha256 else None
    except OSError:
        return None
