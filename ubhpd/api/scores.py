"""Scores of predictions: every metric, paired comparison, and the doctor."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ubhpd.api.builds import ANGLE_NAMES, Build, PathLike, Shown
from ubhpd.core.errors import UbhpdError
from ubhpd.core.registry import chosen

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd
    from matplotlib.figure import Figure

    from ubhpd.evaluation.doctor import Diagnosis as DoctorDiagnosis
    from ubhpd.evaluation.evaluate import Comparison as Compared
    from ubhpd.evaluation.evaluate import Evaluation, EvaluationOptions
    from ubhpd.evaluation.predictions import Predictions

PredictionsLike: TypeAlias = "pd.DataFrame | Mapping[str, Any] | npt.ArrayLike | PathLike"


class Scores(Shown):
    """The scores of one set of predictions. `scores["mae"]` is one value, `"mae" in scores` asks for it."""

    def __init__(self, evaluation: Evaluation, options: EvaluationOptions) -> None:
        """Keep an evaluation."""
        self.evaluation = evaluation
        self._options = options

    @property
    def result(self) -> dict[str, Any]:
        """The result as `ubhpd score --json` writes it."""
        return self.evaluation.result

    def __getitem__(self, name: str) -> float:
        """Return one score; NaN where it is not defined.

        Raises:
            KeyError: there is no such score, as UBMAE without a training set.
        """
        if name not in self.result["scores"]:
            if "ubmae" in name and "ubmae" not in self:
                raise KeyError(f"no score {name!r} without a training set: name it by source=")
            nearest = get_close_matches(name, self.keys(), 1, 0.0)
            raise KeyError(f"no score {name!r}; the nearest is {nearest[0]!r}, keys() lists all")
        value = self.result["scores"][name]["value"]
        return float("nan") if value is None else float(value)

    def __contains__(self, name: object) -> bool:
        return name in self.result["scores"]

    def keys(self) -> list[str]:
        """Return the names of the scores."""
        return list(self.result["scores"])

    def table(self) -> pd.DataFrame:
        """Return a row per score: value, unit, meaning, and the ends of its interval if one was asked for."""
        import pandas as pd

        from ubhpd.evaluation.metric_cards import all_scores

        frame = pd.DataFrame(self.result["scores"]).T.rename_axis("score")
        numbers = [name for name in ("value", "low", "high") if name in frame]
        frame[numbers] = frame[numbers].astype(float)
        return frame[[*numbers, "unit"]].assign(meaning=frame.index.map(all_scores()))

    def bins(self) -> pd.DataFrame:
        """Return a row per angle and bin: heads, mean absolute error in degrees, and the weight in UBMAE."""
        import pandas as pd

        bins = self.result["bins"]
        edges = bins["edges_deg"]
        frames = [
            pd.DataFrame({"angle": a, "low_deg": edges[:-1], "high_deg": edges[1:], **bins[a]}) for a in ANGLE_NAMES
        ]
        return pd.concat(frames, ignore_index=True).rename(columns={"n": "heads"})

    def errors(self) -> pd.DataFrame:
        """Return a row per head: its id, the true and predicted angles, and the errors in degrees."""
        import pandas as pd

        kept, pairs = self.evaluation.kept, self.evaluation.paired.pairs
        frame = pd.DataFrame({"sample_id": self.evaluation.paired.sample_id.take(kept).to_pylist()})
        for j, angle in enumerate(ANGLE_NAMES):
            frame[f"{angle}_true"] = pairs.true_deg[kept, j]
            frame[f"{angle}_predicted"] = pairs.predicted_deg[kept, j]
        for name, values in self.evaluation.scored.errors.columns.items():
            if values.ndim == 1:
                frame[name] = values
            else:
                for j, angle in enumerate(ANGLE_NAMES):
                    frame[f"{name}_{angle}"] = values[:, j]
        return frame

    def plot(self, kind: Literal["angle", "bins", "distribution"] = "angle") -> Figure:
        """Return a figure: errors against the true angle, the mean error per bin, or the distribution of errors.

        Raises:
            UbhpdError: an unknown kind.
        """
        from ubhpd.evaluation import score_figures

        wanted = chosen(("angle", "bins", "distribution"), kind, "figure of scores")
        if wanted == "angle":
            return score_figures.error_against_angle(self.evaluation)
        if wanted == "bins":
            return score_figures.bars_per_bin(self.evaluation, self._options.score)
        return score_figures.distribution(self.evaluation)

    def _heading(self) -> str:
        return f"{self.result['heads']:,} heads scored, truth from {self.result['truth']}"

    def __str__(self) -> str:
        from ubhpd.evaluation.report import score_text

        return score_text(self.result)


def score(
    predictions: PredictionsLike,
    truth: Build | npt.ArrayLike | PathLike | None = None,
    *,
    protocol: str | None = None,
    source: str | None = None,
    pair: str | None = None,
    bootstrap: Literal["none", "samples", "subjects", "sequences"] = "none",
    rounds: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    max_angle: float | None = None,
    exclude_outside: bool = False,
    options: Mapping[str, Any] | None = None,
    frames: PathLike | None = None,
    protocol_seed: int = 0,
) -> Scores:
    """Return every metric of a set of predictions.

    Args:
        predictions: a data frame (or a mapping of columns) with sample_id and yaw, pitch, roll in degrees, or r00 to
            r22, or qx, qy, qz, qw; a CSV or Parquet file with these columns; or an array of angles (n, 3) or rotation
            matrices (n, 3, 3).
        truth: a build; a manifest; or, for an array, the true angles (n, 3) or matrices (n, 3, 3). An array with a
            build must have the heads of the test split of UBHPD in their order. None takes the columns yaw_true,
            pitch_true, roll_true of the predictions, else the test split of the last build.
        protocol: score its test set against its training set. With a build that has UBHPD the default is "ubhpd".
        source: training set for UBMAE: 300W-LP, a manifest, a protocol, or a table of counts. Default: the training set
            of the protocol.
        pair: adds ubmae_printed for a printed pair, as "300W-LP:AFLW2000".
        bootstrap: what is resampled for confidence intervals.
        rounds: resamples.
        level: level of the intervals.
        seed: of the resamples.
        max_angle: leave out heads with a true angle beyond it, in degrees.
        exclude_outside: leave out heads with a true angle beyond 90 degrees.
        options: options of metrics, as {"ubmae.unseen": "smooth"}.
        frames: list of frames, for a protocol that needs one.
        protocol_seed: for a protocol that divides one dataset.

    Raises:
        UbhpdError: columns, rows, ids or options that are wrong, with the place and what to do.
    """
    from ubhpd.evaluation.evaluate import evaluate

    manifest, protocol = _truth(truth, protocol)
    chosen = _evaluation_options(
        bootstrap=None if bootstrap == "none" else (bootstrap, rounds, level, seed),
        protocol=protocol,
        source=source,
        pair=pair,
        max_angle=max_angle,
        exclude_outside=exclude_outside,
        options=options,
        frames=frames,
        protocol_seed=protocol_seed,
    )
    return Scores(evaluate(_predictions(predictions, truth), manifest, chosen), chosen)


class Comparison(Shown):
    """Two sets of predictions on the heads that both have."""

    def __init__(self, compared: Compared) -> None:
        """Keep a comparison."""
        self.compared = compared

    @property
    def result(self) -> dict[str, Any]:
        """The result as `ubhpd compare --json` prints it."""
        return self.compared.result

    @property
    def verdict(self) -> str:
        """Which of the two has the lower mean absolute error, if the data can tell; a sentence."""
        from ubhpd.evaluation.report import verdict

        return verdict(self.result)

    def table(self) -> pd.DataFrame:
        """Return a row per score: both values, the difference (first minus second), its interval and p-value."""
        import pandas as pd

        frame = pd.DataFrame(self.result["scores"]).T.rename_axis("score")
        numbers = [n for n in ("first", "second", "difference", "low", "high", "p_value") if n in frame]
        return frame.astype(dict.fromkeys(numbers, float))

    def _heading(self) -> str:
        return f"{self.result['heads']:,} heads in both. {self.verdict}"

    def __str__(self) -> str:
        from ubhpd.evaluation.report import compare_text

        return compare_text(self.result)


def compare(
    first: PredictionsLike,
    second: PredictionsLike,
    truth: Build | npt.ArrayLike | PathLike | None = None,
    *,
    protocol: str | None = None,
    source: str | None = None,
    bootstrap: Literal["samples", "subjects", "sequences"] = "samples",
    rounds: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    max_angle: float | None = None,
    exclude_outside: bool = False,
    options: Mapping[str, Any] | None = None,
    frames: PathLike | None = None,
    protocol_seed: int = 0,
) -> Comparison:
    """Return a paired comparison of two sets of predictions; arguments and errors as `score`."""
    from ubhpd.evaluation.evaluate import compare as run

    manifest, protocol = _truth(truth, protocol)
    chosen = _evaluation_options(
        bootstrap=(bootstrap, rounds, level, seed),
        protocol=protocol,
        source=source,
        pair=None,
        max_angle=max_angle,
        exclude_outside=exclude_outside,
        options=options,
        frames=frames,
        protocol_seed=protocol_seed,
    )
    pair = [_predictions(p, truth, name) for p, name in ((first, "the first"), (second, "the second"))]
    return Comparison(run(pair[0], pair[1], manifest, chosen))


class Diagnosis(Shown):
    """What the doctor found in a set of predictions."""

    def __init__(self, diagnosis: DoctorDiagnosis) -> None:
        """Keep a diagnosis."""
        self.diagnosis = diagnosis

    @property
    def is_healthy(self) -> bool:
        """Whether there is neither an error nor a warning."""
        return self.diagnosis.exit_code == 0

    def table(self) -> pd.DataFrame:
        """Return a row per finding, the worst first: severity, kind, text, fix, mean error before and after."""
        import pandas as pd

        from ubhpd.evaluation.doctor import Finding

        return pd.DataFrame([f._asdict() for f in self.diagnosis.findings], columns=list(Finding._fields))

    def _heading(self) -> str:
        return f"{self.diagnosis.heads:,} heads examined"

    def __str__(self) -> str:
        from ubhpd.evaluation.report import diagnosis_text

        return diagnosis_text(self.diagnosis)


def doctor(predictions: PredictionsLike, truth: Build | npt.ArrayLike | PathLike | None = None) -> Diagnosis:
    """Return what is wrong with a set of predictions: unit, columns, signs, rotations, offsets, ids, duplicates, NaN.

    Args:
        predictions: as for `score`.
        truth: as for `score`.

    Raises:
        UbhpdError: the predictions cannot be read at all, or there is no truth.
    """
    from ubhpd.evaluation.doctor import diagnose

    manifest = truth.manifest if isinstance(truth, Build) else _truth(truth, None)[0]
    return Diagnosis(diagnose(_predictions(predictions, truth, strict=False), manifest))


def _truth(truth: Any, protocol: str | None) -> tuple[Path | None, str | None]:
    """Return the manifest and the protocol to score by; an array of true angles goes with the predictions."""
    if isinstance(truth, Build):
        return truth.folder, protocol or ("ubhpd" if truth.has_ubhpd else None)
    return (Path(truth) if isinstance(truth, (str, os.PathLike)) else None), protocol


def _evaluation_options(
    bootstrap: tuple[str, int, float, int] | None, protocol: str | None, source: str | None, pair: str | None,
    max_angle: float | None, exclude_outside: bool, options: Mapping[str, Any] | None, frames: PathLike | None,
    protocol_seed: int,
) -> EvaluationOptions:  # fmt: skip
    from ubhpd.evaluation.evaluate import EvaluationOptions
    from ubhpd.evaluation.intervals import BootstrapOptions
    from ubhpd.evaluation.metric_cards import metric_options
    from ubhpd.evaluation.scoring import ScoreOptions

    resampling = None
    if bootstrap is not None:
        over, rounds, level, seed = bootstrap
        resampling = BootstrapOptions(rounds, level, over, seed)
    chosen = metric_options(f"{key}={value}" for key, value in (options or {}).items())
    return EvaluationOptions(
        score=ScoreOptions(exclude_outside, chosen), bootstrap=resampling, source=source, pair=pair, protocol=protocol,
        max_angle_deg=max_angle, frames=None if frames is None else os.fspath(frames), protocol_seed=protocol_seed,
    )  # fmt: skip


def _predictions(
    given: PredictionsLike, truth: Any = None, name: str = "the predictions", strict: bool = True
) -> Path | Predictions:
    """Return predictions as evaluation takes them: a path, or a table in memory."""
    if isinstance(given, (str, os.PathLike)):
        return Path(given)
    import pandas as pd
    import pyarrow as pa

    from ubhpd.evaluation.predictions import of_table

    if isinstance(given, Mapping):
        given = pd.DataFrame(given)
    if not isinstance(given, pd.DataFrame):
        given = _frame_of_arrays(given, truth)
    if given.index.name is not None and given.index.name not in given:
        given = given.reset_index()
    return of_table(pa.Table.from_pandas(given, preserve_index=False), name, strict=strict)


def _frame_of_arrays(predicted: Any, truth: Any) -> pd.DataFrame:
    """Return a table of predictions from arrays: ids from the test split of a build, or numbers beside true angles."""
    import numpy as np
    import pandas as pd

    values = np.asarray(predicted, dtype=float)
    columns = {(2, 3): list(ANGLE_NAMES), (3, 9): [f"r{i}{j}" for i in range(3) for j in range(3)]}
    names = columns.get((values.ndim, int(np.prod(values.shape[1:]))))
    if names is None:
        raise UbhpdError(f"The predictions have the shape {values.shape}: give angles (n, 3) or matrices (n, 3, 3).")
    frame = pd.DataFrame(values.reshape(len(values), -1), columns=names)
    if isinstance(truth, Build):
        ids = truth.ubhpd.loc[truth.ubhpd["split"] == "test", "sample_id"]
        if len(ids) != len(frame):
            raise UbhpdError(
                f"The predictions have {len(frame):,} rows, the test split of {truth.folder} {len(ids):,} heads: "
                "give a table with sample_id, or a row for each head in the order of the split."
            )
        return frame.assign(sample_id=ids.to_numpy())
    if truth is None or isinstance(truth, (str, os.PathLike)):
        raise UbhpdError("An array of predictions has no ids: give the true angles or a build with it, or a table.")
    true = np.asarray(truth, dtype=float)
    if true.ndim == 3:
        from ubhpd.core.rotation import euler_from_matrix

        true = euler_from_matrix(true)
    if true.shape != (len(frame), 3):
        raise UbhpdError(
            f"The predictions have {len(frame):,} rows and the truth has the shape {true.shape}: give one row per head."
        )
    frame[[f"{a}_true" for a in ANGLE_NAMES]] = true
    return frame.assign(sample_id=[str(i) for i in range(len(frame))])
