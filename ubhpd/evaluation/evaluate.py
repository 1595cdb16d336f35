"""From a prediction file to a result: read, pair with the truth, score, resample, and record all options."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ubhpd import __version__
from ubhpd.core.bins import ANGLES, EDGES_DEG
from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import AnyArray, FloatArray, IntArray
from ubhpd.evaluation import predictions
from ubhpd.evaluation.doctor import examine_pairs
from ubhpd.evaluation.intervals import BootstrapOptions, Difference, intervals, paired, sign_test
from ubhpd.evaluation.metric_cards import better, error_columns, units
from ubhpd.evaluation.mistakes import nearer_triplet
from ubhpd.evaluation.pairing import (
    Paired,
    Source,
    TrainingSet,
    counted,
    known,
    pair,
    places,
    training_set,
    truth_table,
)
from ubhpd.evaluation.predictions import quoted
from ubhpd.evaluation.printed_results import printed_constants
from ubhpd.evaluation.scoring import Scored, ScoreOptions, bin_table, score
from ubhpd.manifest.schema import row_numbers
from ubhpd.metrics import error_auc

if TYPE_CHECKING:
    from ubhpd.protocols.resolve import Protocol, Resolution

RESULT_VERSION = 1
PERCENTILES = (5, 10, 25, 50, 75, 90, 95, 99)
OVER = ("samples", "subjects", "sequences")
EXAMINED = 2_000  # heads that the doctor examines beside a score
NO_SOURCE = "none"  # as a training set: UBMAE is not computed


@dataclass(frozen=True)
class EvaluationOptions:
    """What a user may choose; kept whole in the result.

    `source` names the training set, NO_SOURCE for none, `pair` is TRAIN:TEST of a reported UBMAE, `max_angle_deg`
    leaves out heads with a true angle beyond it. `protocol` is the id of a protocol: with a manifest only its test
    split counts, and its training split is the source unless another is named; `frames` and `protocol_seed` are for
    protocols that need them. `last_build` takes the truth from the build made last.
    """

    score: ScoreOptions = field(default_factory=ScoreOptions)
    bootstrap: BootstrapOptions | None = None
    source: str | None = None
    pair: str | None = None
    protocol: str | None = None
    max_angle_deg: float | None = None
    frames: str | None = None
    protocol_seed: int = 0
    last_build: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the options as plain values."""
        return {
            **self.score.as_dict(),
            "bootstrap": asdict(self.bootstrap) if self.bootstrap else None,
            "source": self.source,
            "pair": self.pair,
            "protocol": self.protocol,
            "max_angle_deg": self.max_angle_deg,
            "frames": self.frames,
            "protocol_seed": self.protocol_seed,
            "last_build": self.last_build,
        }


class Evaluation(NamedTuple):
    """A scored file: the result as plain values, and the arrays that figures and comparisons need."""

    result: dict[str, Any]
    paired: Paired
    scored: Scored
    kept: np.ndarray[Any, np.dtype[np.int64]]  # rows of `paired` that were scored


class Comparison(NamedTuple):
    """Two files on their common heads: the result, and the two evaluations."""

    result: dict[str, Any]
    first: Evaluation
    second: Evaluation


def evaluate(
    path: str | Path | predictions.Predictions,
    manifest: str | Path | None = None,
    options: EvaluationOptions | None = None,
) -> Evaluation:
    """Return the evaluation of a prediction file or of predictions in memory, and what the doctor finds in it.

    Without a manifest the truth is in the file's own columns, else in the manifest that its sidecar names, as
    `ubhpd predict` writes it.

    Raises:
        UbhpdError: wrong input anywhere, with file and row.
    """
    file = predictions.given(path)
    truth, o = _truth(file, manifest, options or EvaluationOptions())
    protocol = _protocol(o, truth.manifest)
    matched = pair(file, truth.manifest, protocol.test if protocol else None)
    source = _source(o, truth.manifest, protocol)
    rows = _by_id(matched) if o.bootstrap and o.bootstrap.over == "samples" else None
    scored, kept = _score(matched, o, source, rows)
    result = _result(file, matched, scored, o, source)
    result["truth_source"] = truth.text
    result["protocol"] = protocol.as_dict() if protocol else None
    result["doctor"] = [f._asdict() for f in examine_pairs(matched, most=EXAMINED).findings]
    if o.bootstrap:
        groups = _groups(matched, o.bootstrap.over)
        own = None if groups is None else groups[kept]
        ends = intervals(scored.errors, scored.statistics, o.score, o.bootstrap, own)
        for name, interval in ends.items():
            result["scores"][name] |= {"low": _number(interval.low), "high": _number(interval.high)}
        result["groups"] = len(kept) if own is None else len(np.unique(own))
    return Evaluation(result, matched, scored, kept)


def compare(
    first: str | Path | predictions.Predictions,
    second: str | Path | predictions.Predictions,
    manifest: str | Path | None,
    options: EvaluationOptions,
) -> Comparison:
    """Return the paired comparison of two prediction files, or of predictions in memory, on the heads that both have.

    Raises:
        UbhpdError: wrong input, no head in common, or two truths for one head.
    """
    bootstrap = options.bootstrap or BootstrapOptions()
    files = [predictions.given(p) for p in (first, second)]
    names = [file.path for file in files]
    truths = []
    for file in files:
        truth, options = _truth(file, manifest, options)
        truths.append(truth)
    named = next((t for t in truths if t.manifest is not None), truths[0]).manifest
    protocol = _protocol(options, named)
    only = protocol.test if protocol else None
    matched = [pair(file, truth.manifest, only) for file, truth in zip(files, truths, strict=True)]
    source = _source(options, named, protocol)
    rows = _common(matched[0], matched[1], *names)
    both = [_score(f, options, source, r) for f, r in zip(matched, rows, strict=True)]
    (a, kept_a), (b, kept_b) = both
    groups = _groups(matched[0], bootstrap.over)
    own = None if groups is None else groups[kept_a]
    differences = paired(a.errors, b.errors, a.statistics, options.score, bootstrap, own)
    signs = {name: sign_test(_per_sample(a, name) - _per_sample(b, name), bootstrap, own) for name in error_columns()}
    result = {
        "ubhpd": __version__,
        "result_version": RESULT_VERSION,
        "kind": "comparison",
        "first": names[0],
        "second": names[1],
        "truth": matched[0].truth,
        "truth_source": " and ".join(dict.fromkeys(t.text for t in truths)),
        "heads": len(kept_a),
        "only_first": len(matched[0].sample_id) - len(rows[0]),
        "only_second": len(matched[1].sample_id) - len(rows[1]),
        "groups": len(kept_a) if own is None else len(np.unique(own)),
        "protocol": protocol.as_dict() if protocol else None,
        "options": options.as_dict() | {"bootstrap": asdict(bootstrap)},
        "scores": {n: _compared(n, a, b, d) for n, d in differences.items()},
        "sign_test": {n: _number(p) for n, p in signs.items()},
    }
    evaluations = [Evaluation({}, f, s, k) for f, (s, k) in zip(matched, ((a, kept_a), (b, kept_b)), strict=True)]
    return Comparison(result, *evaluations)


def _truth(
    file: predictions.Predictions, manifest: str | Path | None, o: EvaluationOptions
) -> tuple[Source, EvaluationOptions]:
    """Return the truth, and the options with the protocol that it implies: its test split if it has splits."""
    truth = Source.of(file, manifest, o.last_build)
    return truth, replace(o, protocol=o.protocol or truth.protocol)


def _by_id(matched: Paired) -> IntArray:
    """Return the rows in the order of their ids, so that resamples do not depend on the order of the file."""
    import pyarrow.compute as pc

    rows: IntArray = pc.sort_indices(matched.sample_id).to_numpy().astype(np.int64)
    return rows


def _score(
    matched: Paired, o: EvaluationOptions, source: TrainingSet | None, rows: AnyArray | None = None
) -> tuple[Scored, np.ndarray[Any, np.dtype[np.int64]]]:
    rows = np.arange(len(matched.sample_id)) if rows is None else rows
    pairs = matched.pairs if len(rows) == len(matched.sample_id) and (rows == np.arange(len(rows))).all() else None
    pairs = matched.pairs.take(rows) if pairs is None else pairs
    if o.max_angle_deg is not None:
        near = np.flatnonzero((np.abs(pairs.true_deg) <= o.max_angle_deg).all(axis=1))
        pairs, rows = pairs.take(near), rows[near]
        if not len(rows):
            raise UbhpdError(f"No head has all true angles within {o.max_angle_deg:g} degrees: raise --max-angle.")
    constants = printed_constants(*_pair_of(o.pair)) if o.pair else None
    scored = score(pairs, o.score, None if source is None else source.counts, constants)
    return scored, rows[scored.kept]


def _protocol(o: EvaluationOptions, manifest: str | Path | None) -> Resolution | None:
    """Return the heads of the protocol on this manifest; none without a manifest, where its id is only checked."""
    if o.protocol is None:
        return None
    from ubhpd.protocols.resolve import protocol, resolve

    definition = protocol(o.protocol)
    return (
        None if manifest is None else resolve(definition.id, manifest, o.frames, o.protocol_seed, train_optional=True)
    )


def _source(o: EvaluationOptions, manifest: str | Path | None, protocol: Resolution | None) -> TrainingSet | None:
    if o.source == NO_SOURCE:
        return None
    if o.source:
        return _protocol_source(o, manifest) or training_set(o.source)
    if protocol is None or manifest is None:
        return None
    return training_split(protocol, manifest)


def _protocol_source(o: EvaluationOptions, manifest: str | Path | None) -> TrainingSet | None:
    """Return the training split of the protocol that --source names, None if it names something else."""
    from ubhpd.protocols.resolve import PROTOCOLS, resolve

    if o.source is None or o.source not in PROTOCOLS:
        return None
    if manifest is None:
        raise UbhpdError(
            f"--source {o.source} is a protocol: its training split is looked up in --manifest, so give one."
        )
    matched = resolve(o.source, manifest, o.frames, o.protocol_seed, train_optional=True)
    return training_split(matched, manifest)


def training_split(protocol: Resolution, manifest: str | Path) -> TrainingSet | None:
    """Return the training split of a protocol, or the known counts of its dataset if the manifest has none of it."""
    name = f"the training split of {protocol.protocol.id}"
    if protocol.train:
        return counted(truth_table(Path(manifest), whole=True)[0], name, "all heads", protocol.train)
    own = known_training_set(protocol.protocol)
    return None if own is None else own._replace(name=name)


def known_training_set(protocol: Protocol) -> TrainingSet | None:
    """Return the counts of the one dataset that a protocol trains on, if they are part of the package."""
    datasets = [v for w in protocol.train.where if (w.column, w.how) == ("dataset", "is") for v in w.values]
    if protocol.divide is not None or len(datasets) != 1 or len(protocol.train.where) != 1:
        return None
    return {_plain(own.name): own for own in known().values()}.get(_plain(datasets[0]))


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _pair_of(text: str) -> tuple[str, str]:
    train, colon, test = text.partition(":")
    if not (colon and train and test):
        raise UbhpdError(f"--pair {text!r} is not of the form TRAIN:TEST, as 300W-LP:AFLW2000.")
    return train, test


def _groups(matched: Paired, over: str) -> np.ndarray[Any, np.dtype[np.int64]] | None:
    if over not in OVER:
        raise UbhpdError(f"Cannot resample over {over!r}: choose from {', '.join(OVER)}.")
    if over == "samples":
        return None
    name = {"subjects": "subject_id", "sequences": "sequence_id"}[over]
    if name not in matched.groups:
        raise UbhpdError(f"{matched.truth.capitalize()}: {name} is not known for every head: resample over samples.")
    return matched.groups[name]


def _common(a: Paired, b: Paired, first: str, second: str) -> list[AnyArray]:
    place = places(a.sample_id, b.sample_id)
    there = np.flatnonzero(place.is_valid().to_numpy(zero_copy_only=False))
    if not len(there):
        raise UbhpdError(f"{first} and {second} have no id in common: they are not predictions for the same heads.")
    rows_a = _by_id(a)
    rows_a = rows_a[np.isin(rows_a, there)]
    rows_b = place.take(row_numbers(rows_a)).to_numpy()
    differ = np.abs(a.pairs.true_deg[rows_a] - b.pairs.true_deg[rows_b]).max(axis=1) > 1e-3
    if differ.any():
        row = int(rows_a[np.argmax(differ)])
        raise UbhpdError(
            f"{first} and {second} give different truth for {quoted(a.sample_id[row].as_py())} (row {row + 1}): "
            "they are not comparable; give both the same --manifest."
        )
    return [rows_a, rows_b]


def _per_sample(scored: Scored, name: str) -> FloatArray:
    column = scored.errors.columns[name]
    return column.mean(axis=1) if column.ndim == 2 else column


def _compared(name: str, a: Scored, b: Scored, d: Difference) -> dict[str, Any]:
    direction = better()[name]
    certain = np.isfinite(d.low) and not d.low <= 0.0 <= d.high and direction != "neither"
    first_is_better = (d.difference < 0.0) == (direction == "lower")
    return {
        "first": _number(a.scores[name]),
        "second": _number(b.scores[name]),
        "unit": units()[name],
        **{k: _number(v) for k, v in d._asdict().items()},
        "better": ("first" if first_is_better else "second") if certain else None,
    }


def _result(
    file: predictions.Predictions, matched: Paired, scored: Scored, o: EvaluationOptions, source: TrainingSet | None
) -> dict[str, Any]:
    tables = bin_table(scored, o.score)
    unit = units()
    n = tables["n"]
    filled = n[n > 0]
    return {
        "ubhpd": __version__,
        "result_version": RESULT_VERSION,
        "kind": "score",
        "predictions": file.path,
        "form": file.roles.form,
        "unused_columns": list(file.roles.unused),
        "other_triplets": _other_triplets(matched),
        "truth": matched.truth,
        "fingerprint": matched.fingerprint,
        "heads": len(scored.errors),
        "wanted": matched.wanted,
        "missing": matched.missing,
        "example_missing": matched.example_missing,
        "coverage": _number(matched.coverage),
        "refused": matched.refused,
        "matched_by_ending": matched.by_ending,
        "example_ending": matched.example_ending,
        "excluded": len(matched.sample_id) - len(scored.errors),
        "outside": {a: int(k) for a, k in zip(ANGLES, scored.outside, strict=True)},
        "source": source.name if source else None,
        "source_counts": source.text if source else None,
        "source_heads": source.heads if source else None,
        "options": o.as_dict(),
        "scores": {k: {"value": _number(v), "unit": unit[k]} for k, v in scored.scores.items()},
        "bins": {
            "edges_deg": EDGES_DEG.tolist(),
            **{a: {k: _list(t[j]) for k, t in tables.items() if t.ndim == 2} for j, a in enumerate(ANGLES)},
        },
        "non_empty_bins": len(filled),
        "smallest_bin": int(filled.min()) if len(filled) else 0,
        "dropped_mass": dict(zip(ANGLES, _list(tables["dropped"]), strict=True)) if "dropped" in tables else None,
        "alignment": {k: v.tolist() for k, v in scored.errors.alignment.items()},
        "percentiles": {name: _percentiles(_per_sample(scored, name)) for name in error_columns()},
        "error_cdf": _error_cdf(scored),
    }


def _other_triplets(matched: Paired) -> int:
    """Return for how many heads the predicted triplet is the other one of a rotation near to the true one."""
    near = nearer_triplet(matched.pairs.predicted_deg, matched.pairs.true_deg)
    return int((near != matched.pairs.predicted_deg).any(axis=1).sum())


def _error_cdf(scored: Scored) -> dict[str, list[Any]]:
    """Return the share of heads with an error up to each whole degree of the AUC's range, per angle and rotation."""
    columns = scored.errors.columns
    at = np.arange(error_auc.LIMIT_DEG + 1.0)
    errors = {a: columns["wrapped_error"][:, j] for j, a in enumerate(ANGLES)} | {"geodesic": columns["geodesic"]}
    return {"degrees": at.tolist(), **{name: _list(error_auc.cdf(e, at)) for name, e in errors.items()}}


def _percentiles(values: FloatArray) -> dict[str, float | None]:
    matched = np.percentile(values, PERCENTILES) if len(values) else np.full(len(PERCENTILES), np.nan)
    return {str(p): _number(v) for p, v in zip(PERCENTILES, matched, strict=True)}


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _list(values: Any) -> list[Any]:
    if np.issubdtype(np.asarray(values).dtype, np.integer):
        return [int(v) for v in values]
    return [_number(v) for v in values]
