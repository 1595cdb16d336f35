"""From result files to standings: one table per protocol on the same heads, methods averaged over seeds and ranked.

Nothing is ranked across tables: another protocol, other heads, other labels or boxes make another table. Inside a
table a method is ranked if it was trained or fitted under the protocol and has a prediction for every head. A method
is tied with the winner where the data do not show a difference: by paired resampling of the predictions, or by the
interval of the winner where predictions are missing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev

from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import sha256_of
from ubhpd.core.text import one_line
from ubhpd.leaderboards.reported import Known, Reported, reported, reported_mae, why_not_shown
from ubhpd.leaderboards.result import IMPORTED, Baseline, Result, ResultFile, canonical_hash

PAIRED, BY_INTERVAL = "paired", "interval"


def tied(winner: Sequence[ResultFile], other: Sequence[ResultFile], rank_by: str) -> tuple[bool, str]:
    """Return whether the data leave open which of two methods is better, and how that was decided.

    Where both have predictions on the same heads, the paired bootstrap decides (`ubhpd.evaluation.evaluate.compare`),
    per seed that both have, or on all pairs of runs if they share none: the two differ only if in every comparison
    the winner is ahead and the interval of the difference does not contain 0. Where predictions are missing, a method
    is tied if its score lies within the winner's interval, averaged over seeds.
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


def _difference(a: ResultFile, b: ResultFile, name: str) -> tuple[float, float] | None:
    """Return the interval of a's score minus b's on the same resamples; None where predictions or truth are missing."""
    from ubhpd.evaluation.evaluate import EvaluationOptions, compare
    from ubhpd.evaluation.intervals import BootstrapOptions

    paths = [_predictions(f) for f in (a, b)]
    truth = a.path.parent / "test" / "pool.parquet"
    o = a.result.resampling
    try:
        if None in paths or not truth.is_file():
            return None
        options = EvaluationOptions(bootstrap=BootstrapOptions(o.rounds, o.level, o.over, o.seed))
        compared = compare(str(paths[0]), str(paths[1]), truth, options)
        if compared.first.paired.fingerprint != a.result.test.fingerprint:
            return None
        score = compared.result["scores"].get(name)
    except UbhpdError:
        return None
    if score is None or score["low"] is None or score["high"] is None:
        return None
    return score["low"], score["high"]


def _predictions(file: ResultFile) -> Path | None:
    """Return the predictions beside a result if they are those it was made from."""
    path = file.path.parent / Path(file.result.predictions).name
    try:
        return path if sha256_of(path) == file.result.predictions_sha256 else None
    except OSError:
        return None


RANK_BY = "mae"
WINNER, TIED = "winner", "tied"


@dataclass(frozen=True)
class Value:
    """A score over seeds: mean, standard deviation (None for one seed), and the mean ends of the seeds' intervals."""

    mean: float | None
    sd: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Method:
    """A model with its options and training, over all its seeds.

    runs: a result per seed. rank: 1 for the least MAE, None if not ranked, and why_unranked says why. standing:
    "winner", "tied" with it, or "". decided_by: how, see `tied`. reported: the printed row of this model.
    """

    runs: tuple[ResultFile, ...]
    values: dict[str, Value]
    rank: int | None = None
    standing: str = ""
    decided_by: str = ""
    why_unranked: str = ""
    reported: Reported | None = None

    @property
    def result(self) -> Result:
        """The result of the first seed, for all that the seeds have in common."""
        return self.runs[0].result

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds; none for a method without randomness."""
        return tuple(f.result.seed for f in self.runs if f.result.seed is not None)

    @property
    def name(self) -> str:
        """The model with its chosen options."""
        chosen = " ".join(f"{k}={v}" for k, v in self.result.chosen.items())
        return one_line(f"{self.result.model} {chosen}")


@dataclass(frozen=True)
class Standing:
    """One table: what the protocol is, methods in their order, the mean-pose baseline, reported rows or why none."""

    sentence: str

    methods: tuple[Method, ...]
    baseline: Baseline
    reported: tuple[Reported, ...]
    why_no_reported: str | None

    @property
    def result(self) -> Result:
        """A result of the table, for protocol and heads, which all have in common."""
        return self.methods[0].result

    @property
    def anchor(self) -> str:
        """A name for links to this table."""
        return f"t-{canonical_hash(self.result.group)[:12]}"


def standings(files: Sequence[ResultFile], known: Known) -> list[Standing]:
    """Return a table for each group of comparable results, by protocol.

    Args:
        files: results, as `read_all` returns them.
        known: protocols and models, see `ubhpd.experiments.plan.known`.

    Raises:
        UbhpdError: two different results are of the same model, options, training and seed.
    """
    groups: dict[tuple[str, ...], dict[str, list[ResultFile]]] = {}
    for file in files:
        groups.setdefault(file.result.group, {}).setdefault(_method_key(file.result), []).append(file)
    return [_standing([_method(own) for own in groups[key].values()], known) for key in sorted(groups)]


def _method_key(result: Result) -> str:
    """Return a hash of all that the seeds of one method have in common."""
    training = replace(result.training, weights_sha256="")
    recipe = None if result.input is None else asdict(result.input)
    return canonical_hash([result.model, result.options, result.chosen, recipe, asdict(training)])


def _method(files: list[ResultFile]) -> Method:
    by_seed: dict[int | None, ResultFile] = {}
    for file in files:
        other = by_seed.setdefault(file.result.seed, file)
        if _outcome(other.result) != _outcome(file.result):
            raise UbhpdError(
                f"{other.path} and {file.path} are both of {file.result.model} on {file.result.protocol.id} with seed "
                f"{file.result.seed}, but differ: leave one of them out."
            )
    ordered = tuple(by_seed[s] for s in sorted(by_seed, key=lambda s: (s is not None, s or 0)))
    names = dict.fromkeys(name for f in ordered for name in f.result.scores)
    return Method(ordered, {name: _over_seeds(name, ordered) for name in names})


def _outcome(result: Result) -> tuple[object, ...]:
    """Return what two results of one run have in common, wherever it was repeated and whatever was measured."""
    return result.training.weights_sha256, result.predictions_sha256, result.scores


def _over_seeds(name: str, files: Sequence[ResultFile]) -> Value:
    scores = [f.result.scores.get(name) for f in files]
    if any(s is None for s in scores):
        return Value(None)
    values, lows, highs = ([getattr(s, part) for s in scores] for part in ("value", "low", "high"))
    if any(v is None for v in values):
        return Value(None)
    ends = [None if any(v is None for v in own) else mean(own) for own in (lows, highs)]
    return Value(mean(values), stdev(values) if len(values) > 1 else None, *ends)


def _standing(methods: list[Method], known: Known) -> Standing:
    first = methods[0].result
    printed = reported(first, known)
    shown = [
        replace(e, why_unranked=_why_unranked(e), reported=reported_mae(e.result, printed, known)) for e in methods
    ]
    shown.sort(key=lambda e: (bool(e.why_unranked), _mae(e), e.name))
    ranked = [e for e in shown if not e.why_unranked]
    placed = [_placed(e, ranked) for e in ranked]
    rest = shown[len(ranked) :]
    protocol = known.protocols.get(first.protocol.id)
    return Standing(
        sentence=protocol.sentence if protocol else "",
        methods=(*placed, *rest),
        baseline=shown[0].result.floor,
        reported=printed,
        why_no_reported=why_not_shown(first, known),
    )


def _why_unranked(method: Method) -> str:
    if method.result.training.how == IMPORTED:
        return "imported weights: their training data is not known here"
    least = min(f.result.coverage for f in method.runs)
    if least < 1.0:
        return f"predicted only {100 * least:.1f} % of the heads"
    return "no MAE" if math.isinf(_mae(method)) else ""


def _placed(method: Method, ranked: Sequence[Method]) -> Method:
    """Return a ranked method with its rank, equal for equal MAE, and how it stands to the winner."""
    rank = 1 + sum(_mae(other) < _mae(method) for other in ranked)
    if method is ranked[0]:
        return replace(method, rank=rank, standing=WINNER)
    is_tied, decided_by = tied(ranked[0].runs, method.runs, RANK_BY)
    return replace(method, rank=rank, standing=TIED if is_tied else "", decided_by=decided_by)


def _mae(method: Method) -> float:
    value = method.values.get(RANK_BY, Value(None)).mean
    return math.inf if value is None else value
