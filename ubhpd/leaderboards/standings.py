"""From result files to standings: one table per protocol on the same test heads, methods ranked over their seeds.

Nothing is ranked across tables: another protocol, other test heads or other labels make another table. Training and
evaluation are kept apart: a table holds whatever was tested on its heads, and each method carries its evidence, that
is, who made the predictions and what is known of the training. A method is ranked if it was trained under the protocol
or declares its training set, sees no ground truth at test time, and has a prediction for every head. A method is tied
with the first where the data do not show a difference: by paired resampling of the predictions, or by the interval of
the first where predictions are missing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev

from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import sha256_of
from ubhpd.core.registry import chosen
from ubhpd.core.text import one_line
from ubhpd.leaderboards.reported import Known, Reported, reported, reported_mae, why_not_shown
from ubhpd.leaderboards.result import (
    FITTED,
    IMPORTED,
    SUBMITTED,
    TRAINED,
    Baseline,
    MethodInfo,
    Result,
    ResultFile,
    canonical_hash,
    labels_hash,
)

PAIRED, BY_INTERVAL = "paired", "interval"
WINNER, TIED = "winner", "tied"
METRICS: Mapping[str, str] = {"balanced_mae": "balanced MAE", "mae": "MAE", "ubmae": "UBMAE"}  # to rank by
RANK_BY = "balanced_mae"
MEAN_POSE = "mean_pose"

# Evidence, from the strongest to the weakest.
EVIDENCE: Mapping[str, str] = {
    "trained": "trained here",
    "imported": "imported weights",
    "submitted": "submitted predictions",
    "unknown": "training unknown",
}
EVIDENCE_MEANING: Mapping[str, str] = {
    "trained": "trained, or fitted, on the training split by ubhpd bench",
    "imported": "weights of others, run by ubhpd bench; their training set is as declared",
    "submitted": "predictions of others, scored by ubhpd submit; the training set is as declared",
    "unknown": "weights or predictions of others without a declared training set: shown, not ranked",
}


@dataclass(frozen=True)
class Value:
    """A score over seeds: mean, standard deviation (None for one seed), and the mean ends of the seeds' intervals."""

    mean: float | None
    sd: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Place:
    """Where a method stands by one metric.

    rank: 1 for the least value, None where the method is not ranked. standing: "winner", "tied" with it, or "".
    decided_by: how the tie was decided, PAIRED or BY_INTERVAL, "" where there was nothing to decide.
    """

    rank: int | None = None
    standing: str = ""
    decided_by: str = ""


@dataclass(frozen=True)
class Method:
    """A model with its options and training, over all its seeds.

    runs: a result per seed. owners: whose results they are. places: by metric. rank, standing, decided_by: its place by
    the metric of the table. why_unranked: "" for a ranked method. oracle: the ground truth that it sees at test time,
    or "". reported: the printed row of this model. info: what is known about the method. train_mark: tells apart the
    training splits of a table that holds several. warnings: those of its protocol that not all rows have.
    """

    runs: tuple[ResultFile, ...]
    values: dict[str, Value]
    owners: tuple[str, ...] = ()
    places: Mapping[str, Place] = field(default_factory=dict)
    rank: int | None = None
    standing: str = ""
    decided_by: str = ""
    why_unranked: str = ""
    oracle: str = ""
    reported: Reported | None = None
    info: MethodInfo = field(default_factory=MethodInfo)
    train_mark: str = ""
    warnings: tuple[str, ...] = ()

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
        """The model with its chosen options, and the crop where it is not the model's own."""
        own = self.result
        chosen = [f"{k}={v}" for k, v in own.chosen.items()]
        crop = [f"crop={own.crop}"] if own.crop is not None and own.training.how != SUBMITTED else []
        return one_line(" ".join([own.model, *chosen, *crop]))

    @property
    def evidence(self) -> str:
        """A key of EVIDENCE."""
        training = self.result.training
        if training.how in (TRAINED, FITTED):
            return "trained"
        if training.declared is None:
            return "unknown"
        return "imported" if training.how == IMPORTED else "submitted"

    @property
    def trained_on(self) -> str | None:
        """The training set: that of the protocol or the declared one; None if it is not known."""
        own = self.result
        if own.training.how in (TRAINED, FITTED):
            return (own.ubmae_source or _split_of(own)) + self.train_mark
        return own.training.declared

    @property
    def ubmae_source(self) -> str | None:
        """The training set whose counts weigh UBMAE; None where there is no UBMAE."""
        own = self.result
        return (own.ubmae_source or _split_of(own)) + self.train_mark if "ubmae" in own.scores else None

    @property
    def coverage(self) -> float:
        """The least share of the test heads that has a prediction, over the seeds."""
        return min(f.result.coverage for f in self.runs)

    @property
    def left_out(self) -> float | None:
        """The share of the test heads that UBMAE leaves out."""
        return self.result.left_out


@dataclass(frozen=True)
class Standing:
    """One table.

    sentence: what the protocol is. methods: in their order. baseline: of the mean pose; constants: runs that predict
    the same pose for every head, which are not ranked; mean_pose: the one of them that the baseline shows. reported:
    printed rows, or why_no_reported. result: one of the table, for what all have in common. labels: hash of the labels
    of the test heads. rank_by: the metric of its order.
    """

    sentence: str
    methods: tuple[Method, ...]
    baseline: Baseline
    reported: tuple[Reported, ...]
    why_no_reported: str | None
    result: Result
    labels: str
    constants: tuple[Method, ...] = ()
    mean_pose: Method | None = None
    baseline_values: Mapping[str, Value] = field(default_factory=dict)
    rank_by: str = RANK_BY

    @property
    def other_constants(self) -> tuple[Method, ...]:
        """The constant predictions besides the mean pose, which the baseline shows; that of another split is one."""
        return tuple(m for m in self.constants if (m.train_mark and m is not self.mean_pose) or not _is_mean_pose(m))

    @property
    def anchor(self) -> str:
        """A name for links to this table."""
        return f"t-{canonical_hash(self.result.group(self.labels))[:12]}"


def standings(files: Sequence[ResultFile], known: Known, rank_by: str = RANK_BY) -> list[Standing]:
    """Return a table for each group of comparable results, by protocol.

    Args:
        files: results, as `read_all` returns them.
        known: protocols and models, see `ubhpd.experiments.plan.known`.
        rank_by: the metric that decides the order, a key of METRICS.

    Raises:
        UbhpdError: an unknown metric, or two different results are of the same model, options, training, seed and
            person.
    """
    rank_by = chosen(METRICS, rank_by, "metric of a ranking")
    # Results of ubhpd 0.1.0 do not state the hash of their labels: those with the same rows have the same labels.
    labels = {f.result.test.fingerprint: f.result.test.labels_sha256 for f in files if f.result.test.labels_sha256}
    groups: dict[tuple[str, ...], list[ResultFile]] = {}
    for file in files:
        own = labels.get(file.result.test.fingerprint, file.result.test.fingerprint)
        groups.setdefault(file.result.group(own), []).append(file)
    return [_standing(groups[key], key, known, rank_by) for key in sorted(groups)]


def _split_of(result: Result) -> str:
    return f"training split of {result.protocol.id}"


def _methods(files: Iterable[ResultFile]) -> list[Method]:
    """Return the methods of one table. Equal results count once; those of two people who differ are two methods."""
    owners: dict[tuple[object, ...], dict[str, None]] = {}
    first: dict[tuple[object, ...], ResultFile] = {}
    for file in files:
        key = (_method_key(file.result), file.result.seed, _outcome(file.result))
        owners.setdefault(key, {})[file.owner] = None
        first.setdefault(key, file)
    groups: dict[tuple[str, str], list[ResultFile]] = {}
    shared: dict[tuple[str, str], dict[str, None]] = {}
    for run, file in first.items():
        method = (str(run[0]), file.owner)
        groups.setdefault(method, []).append(file)
        shared.setdefault(method, {}).update(owners[run])
    return [_method(own, tuple(o for o in shared[method] if o)) for method, own in groups.items()]


def _method_key(result: Result) -> str:
    """Return a hash of all that the seeds of one method have in common."""
    training = replace(result.training, weights_sha256="")
    recipe = None if result.input is None else asdict(result.input)
    heads = result.train.fingerprint if result.training.how in (TRAINED, FITTED) else None
    test_time = [result.crop, result.oracle, result.landmarks]
    return canonical_hash([result.model, result.options, result.chosen, recipe, asdict(training), heads, test_time])


def _method(files: list[ResultFile], owners: tuple[str, ...]) -> Method:
    by_seed: dict[int | None, ResultFile] = {}
    for file in files:
        other = by_seed.setdefault(file.result.seed, file)
        if _outcome(other.result) != _outcome(file.result):
            raise UbhpdError(
                f"{other.path} and {file.path} are both of {file.result.model} on {file.result.protocol.id} with seed "
                f"{file.result.seed}, but differ: leave one of them out, or say whose each is as NAME=FOLDER."
            )
    ordered = tuple(by_seed[s] for s in sorted(by_seed, key=lambda s: (s is not None, s or 0)))
    names = dict.fromkeys(name for f in ordered for name in f.result.scores)
    return Method(ordered, {name: _over_seeds(name, ordered) for name in names}, owners)


def _outcome(result: Result) -> str:
    """Return a hash of what two results of one run have in common, wherever it was repeated.

    Scores are rounded, since processors differ in the last digits.
    """
    scores = {n: None if s.value is None else round(s.value, 6) for n, s in result.scores.items()}
    return canonical_hash([result.training.weights_sha256, result.predictions_sha256, scores])


def _over_seeds(name: str, files: Sequence[ResultFile]) -> Value:
    scores = [f.result.scores.get(name) for f in files]
    if any(s is None for s in scores):
        return Value(None)
    values, lows, highs = ([getattr(s, part) for s in scores] for part in ("value", "low", "high"))
    if any(v is None for v in values):
        return Value(None)
    ends = [None if any(v is None for v in own) else mean(own) for own in (lows, highs)]
    return Value(mean(values), stdev(values) if len(values) > 1 else None, *ends)


def _standing(files: Sequence[ResultFile], group: tuple[str, ...], known: Known, rank_by: str) -> Standing:
    results = [f.result for f in files]
    splits = Counter(r.train.fingerprint for r in results if r.train.heads)
    # A result with the training split that most have, if any has one, speaks for the table.
    main = max(results, key=lambda r: (splits[r.train.fingerprint], r.train.heads))
    best = max(results, key=lambda r: (bool(r.floor.scores), not r.floor.note, splits[r.train.fingerprint]))
    printed = reported(main, known)
    methods = _marked(_methods(files))
    constants = [m for m in methods if m.result.model in known.constants]
    of_split = [m for m in constants if _is_mean_pose(m) and m.result.train.fingerprint == best.train.fingerprint]
    mean_pose = next(iter(of_split), None) if best.floor.note is None else None
    shown = [_described(m, printed, known) for m in methods if m not in constants]
    placed = _ranked(shown, rank_by)
    protocol = known.protocols.get(main.protocol.id)
    return Standing(
        sentence=protocol.sentence if protocol else "",
        methods=tuple(sorted(placed, key=lambda m: (bool(m.why_unranked), _value(m, rank_by), m.name, m.owners))),
        baseline=best.floor,
        reported=printed,
        why_no_reported=why_not_shown(main, known),
        result=main,
        labels=group[4],
        constants=tuple(sorted(constants, key=lambda m: _value(m, rank_by))),
        mean_pose=mean_pose,
        baseline_values=mean_pose.values if mean_pose else {n: Value(v) for n, v in best.floor.scores.items()},
        rank_by=rank_by,
    )


def _marked(methods: Sequence[Method]) -> list[Method]:
    """Return methods with the warnings that concern them alone and, if the table has several, their training split."""
    results = [m.result for m in methods]
    shared = {w for w in results[0].protocol.warnings if all(w in r.protocol.warnings for r in results)}
    methods = [replace(m, warnings=tuple(w for w in m.result.protocol.warnings if w not in shared)) for m in methods]
    is_here = [m.result.training.how in (TRAINED, FITTED) for m in methods]
    splits = {m.result.train.fingerprint for m, here in zip(methods, is_here, strict=True) if here}
    if len(splits) < 2:
        return list(methods)
    return [
        replace(m, train_mark=f", fingerprint {m.result.train.fingerprint[:8]}") if here else m
        for m, here in zip(methods, is_here, strict=True)
    ]


def _is_mean_pose(method: Method) -> bool:
    return method.result.model == MEAN_POSE and not method.result.chosen


def _described(method: Method, printed: tuple[Reported, ...], known: Known) -> Method:
    """Return a method with what is known about it, and why it is not ranked."""
    own = method.result
    oracle = own.oracle or ""
    if not oracle and own.landmarks is None and own.model in known.landmark_readers:
        oracle = "landmarks whose origin the result does not state"
    info = own.info or known.models.get(own.model) or MethodInfo()
    why = _why_unranked(method, oracle)
    return replace(method, oracle=oracle, why_unranked=why, reported=reported_mae(own, printed, known), info=info)


def _why_unranked(method: Method, oracle: str) -> str:
    if oracle:
        return f"oracle, it sees ground truth at test time: {oracle}"
    if method.evidence == "unknown":
        what = "imported weights" if method.result.training.how == IMPORTED else "submitted predictions"
        return f"{what} without a declared training set"
    if method.coverage < 1.0:
        return f"predicted only {percent(method.coverage)} % of the heads"
    return "no MAE" if math.isinf(_value(method, "mae")) else ""


def percent(share: float) -> str:
    """Return a share in percent, rounded down, so that only 1 gives 100.0."""
    return f"{math.floor(1000 * share) / 10:.1f}"


def _ranked(methods: Sequence[Method], rank_by: str) -> list[Method]:
    """Return methods with their places by every metric."""
    ties = _Ties()
    places: list[dict[str, Place]] = [{} for _ in methods]
    for metric in METRICS:
        taking_part = [m for m in methods if not m.why_unranked and not math.isinf(_value(m, metric))]
        if metric == "ubmae":  # other training sets have other weights
            most = Counter(m.ubmae_source for m in taking_part).most_common(1)
            taking_part = [m for m in taking_part if m.ubmae_source == most[0][0]]
        first = min(taking_part, key=lambda m: (_value(m, metric), m.name), default=None)
        for method, own in zip(methods, places, strict=True):
            is_ranked = first is not None and any(m is method for m in taking_part)
            own[metric] = _place(method, first, taking_part, metric, ties) if is_ranked and first else Place()
    return [
        replace(m, places=own, rank=p.rank, standing=p.standing, decided_by=p.decided_by)
        for m, own in zip(methods, places, strict=True)
        for p in (own[rank_by],)
    ]


def _place(method: Method, first: Method, ranked: Sequence[Method], metric: str, ties: _Ties) -> Place:
    """Return the place of a ranked method: equal for equal values, with how it stands to the first."""
    rank = 1 + sum(_value(other, metric) < _value(method, metric) for other in ranked)
    if method is first:
        return Place(rank, WINNER)
    is_tied, decided_by = ties.tied(first.runs, method.runs, metric)
    return Place(rank, TIED if is_tied else "", decided_by)


def _value(method: Method, metric: str) -> float:
    value = method.values.get(metric, Value(None)).mean
    return math.inf if value is None else value


class _Ties:
    """Decides whether two methods are tied; remembers the comparison of two runs, which serves every metric."""

    def __init__(self) -> None:
        self._compared: dict[tuple[Path, Path], Mapping[str, tuple[float, float]] | None] = {}

    def tied(self, winner: Sequence[ResultFile], other: Sequence[ResultFile], metric: str) -> tuple[bool, str]:
        """Return whether the data leave open which of two methods is better, and how that was decided.

        Where both have predictions on the same heads, the paired bootstrap decides (`ubhpd.evaluation.evaluate`), per
        seed that both have, or on all pairs of runs if they share none: the two differ only if in every comparison the
        winner is ahead and the interval of the difference does not contain 0. Where predictions are missing, a method
        is tied if its score lies within the winner's interval, averaged over seeds.
        """
        shared = [(a, b) for a in winner for b in other if a.result.seed == b.result.seed]
        compared = [self._difference(a, b, metric) for a, b in shared or [(a, b) for a in winner for b in other]]
        if all(c is not None for c in compared):
            return not all(c is not None and c[1] < 0.0 for c in compared), PAIRED
        highs = [f.result.scores[metric].high for f in winner]
        values = [f.result.scores[metric].value for f in other]
        return _mean(values) <= _mean(highs), BY_INTERVAL

    def _difference(self, a: ResultFile, b: ResultFile, metric: str) -> tuple[float, float] | None:
        """Return the interval of a's score minus b's on the same resamples; None where predictions are missing."""
        key = (a.path, b.path)
        if key not in self._compared:
            self._compared[key] = _differences(a, b)
        found = self._compared[key]
        return None if found is None else found.get(metric)


def _mean(values: Sequence[float | None]) -> float:
    """Return the mean, NaN if one is not known: NaN is tied with nothing."""
    return sum(math.nan if v is None else v for v in values) / len(values)


def _differences(a: ResultFile, b: ResultFile) -> Mapping[str, tuple[float, float]] | None:
    """Return the interval of the difference of every score; None where predictions or truth are missing."""
    from ubhpd.evaluation.evaluate import EvaluationOptions, compare
    from ubhpd.evaluation.intervals import BootstrapOptions

    paths = [predictions_of(f) for f in (a, b)]
    truth = next((t for t in map(truth_of, (a, b)) if t.is_file()), None)
    o = a.result.resampling
    try:
        if None in paths or truth is None:
            return None
        options = EvaluationOptions(bootstrap=BootstrapOptions(o.rounds, o.level, o.over, o.seed))
        compared = compare(str(paths[0]), str(paths[1]), truth, options)
    except UbhpdError:
        return None
    paired, test = compared.first.paired, a.result.test
    if paired.fingerprint != test.fingerprint:
        own = labels_hash(paired.sample_id.to_pylist(), paired.pairs.true_deg)
        if own != test.labels_sha256:
            return None
    scores = compared.result["scores"].items()
    return {n: (s["low"], s["high"]) for n, s in scores if s["low"] is not None and s["high"] is not None}


def truth_of(file: ResultFile) -> Path:
    """Return where the test split lies, as a manifest, that a result was scored with."""
    return file.path.parent / "test" / "pool.parquet"


def predictions_of(file: ResultFile) -> Path | None:
    """Return the predictions beside a result if they are those it was made from."""
    path = file.path.parent / Path(file.result.predictions).name
    try:
        return path if sha256_of(path) == file.result.predictions_sha256 else None
    except OSError:
        return None


VERIFIED_DEG = 1e-5  # by which a score may differ from that of its predictions on another processor


def verify(files: Sequence[ResultFile]) -> None:
    """Score the predictions of every result again.

    Raises:
        UbhpdError: the predictions or the test heads of a result are missing or were changed, or its scores are not
            those of its predictions.
    """
    from ubhpd.evaluation.evaluate import EvaluationOptions, evaluate

    for file in files:
        own, truth, predicted = file.result, truth_of(file), predictions_of(file)
        if predicted is None or not truth.is_file():
            what = "predictions" if predicted is None else "test heads (test/pool.parquet)"
            raise UbhpdError(
                f"{file.path} cannot be verified, since its {what} are not beside it or were changed: get them from "
                "whoever made it, or leave the file out."
            )
        found = evaluate(predicted, truth, EvaluationOptions(pair=own.printed_pair))
        heads, paired = found.result["heads"], found.paired
        labels = labels_hash(paired.sample_id.to_pylist(), paired.pairs.true_deg)
        is_whole = own.coverage == 1.0 and own.test.labels_sha256 is not None
        if heads != round(own.coverage * own.test.heads) or (is_whole and labels != own.test.labels_sha256):
            raise UbhpdError(f"{file.path} was made of other test heads than those beside it: leave the file out.")
        for name, score in found.result["scores"].items():
            stated = own.scores.get(name)
            value, again = None if stated is None else stated.value, score["value"]
            if value is not None and again is not None and abs(value - again) > VERIFIED_DEG * max(1.0, abs(again)):
                raise UbhpdError(
                    f"{file.path} states {name} {value:.4f}, but its predictions have {again:.4f}: leave the file out, "
                    "or score the predictions again with ubhpd submit."
                )
