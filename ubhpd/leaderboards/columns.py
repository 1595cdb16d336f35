"""The columns of the leaderboard: their names and meanings, and their cells for each kind of row."""

from __future__ import annotations

from typing import NamedTuple

from ubhpd.core.bins import ANGLES
from ubhpd.leaderboards.reported import Reported
from ubhpd.leaderboards.result import FITTED, Baseline, Result, Training
from ubhpd.leaderboards.standings import TIED, WINNER, Method, Value

UNKNOWN = "–"


class Column(NamedTuple):
    """A column: key, heading, whether it holds numbers, what it means, and the page that explains it."""

    key: str
    title: str
    is_number: bool
    meaning: str
    page: str


class Cell(NamedTuple):
    """A cell: its text, a second line in small print, and what to sort by (None comes last)."""

    text: str
    small: str = ""
    value: float | str | None = None


SCORES: tuple[Column, ...] = (
    Column("mae", "MAE", True, "mean of the three mean absolute errors; methods are ranked by it", "metrics/mae.md"),
    Column("mae_yaw", "Yaw", True, "mean absolute error of yaw", "metrics/mae.md"),
    Column("mae_pitch", "Pitch", True, "mean absolute error of pitch", "metrics/mae.md"),
    Column("mae_roll", "Roll", True, "mean absolute error of roll", "metrics/mae.md"),
    Column("ubmae", "UBMAE", True, "equation 14 of OsGG-Net as written, error binned, weighted by the density of test "
           "over training heads", "metrics/ubmae.md"),
    Column("ubmae_printed", "UBMAE printed", True, "the rule behind the UBMAE values that OsGG-Net prints; not "
           "equation 14", "metrics/ubmae_printed.md"),
    Column("balanced_mae", "Balanced MAE", True, "mean of the errors of all bins of 12 degrees that hold a head: rare "
           "poses count as much as common ones", "metrics/balanced.md"),
    Column("geodesic", "Geodesic", True, "mean angle of the rotation between prediction and truth",
           "metrics/geodesic.md"),
    Column("maev", "MAEV", True, "mean angle between the axes of prediction and truth", "metrics/maev.md"),
)  # fmt: skip
COLUMNS: tuple[Column, ...] = (
    Column("rank", "#", True, "rank by MAE; = where the difference from the first is not significant; empty where a "
           "method is not ranked", "leaderboard.md"),
    Column("model", "Method", False, "name, as in ubhpd models, with the options that were chosen", "models.md"),
    *SCORES,
    Column("printed", "Reported", True, "MAE that a paper reports for this method on these heads", "leaderboard.md"),
    Column("parameters", "Parameters", True, "trainable parameters, in millions", "models.md"),
    Column("speed", "Heads/s", True, "heads predicted per second, in batches of the size and on the device named",
           "leaderboard.md"),
    Column("crop", "Input", False, "crop recipe, size in pixels, colour order", "models.md"),
    Column("training", "Training", False, "how the weights were made, and what training started from",
           "leaderboard.md"),
    Column("selection", "Selection", False, "which checkpoint of the training was kept",
           "leaderboard.md"),
    Column("seeds", "Seeds", False, "seeds averaged over; none for a method without randomness", "leaderboard.md"),
    Column("coverage", "Coverage", True, "share of the test heads with a prediction", "scoring.md"),
    Column("weights", "Weights", False, "first digits of the SHA-256 of the weights, per seed", "models.md"),
)  # fmt: skip


def method_cells(method: Method) -> dict[str, Cell]:
    """Return the cells of a method by column."""
    result = method.result
    scores = {c.key: value_cell(method.values.get(c.key)) for c in SCORES}
    return {
        "rank": Cell(_rank(method), "", None if method.rank is None else float(method.rank)),
        "model": Cell(method.name, method.why_unranked or result.title, method.name),
        **scores,
        "printed": _printed(method.reported),
        "parameters": _number(None if result.parameters is None else result.parameters / 1e6, 2),
        "speed": _speed(result),
        "crop": _input(result),
        "training": _training(result.training),
        "selection": _text(result.training.selection),
        "seeds": _text(", ".join(map(str, method.seeds))),
        "coverage": _coverage(min(f.result.coverage for f in method.runs)),
        "weights": _text(", ".join(f.result.training.weights_sha256[:8] for f in method.runs)),
    }


def baseline_cells(baseline: Baseline) -> dict[str, Cell]:
    """Return the cells of the mean-pose baseline; columns without a value are left out."""
    return {
        "model": Cell("mean pose", "predicts the mean pose of the training split for every head", "mean pose"),
        **{c.key: value_cell(Value(baseline.scores.get(c.key))) for c in SCORES},
    }


def reported_cells(row: Reported, marks: str = "") -> dict[str, Cell]:
    """Return the cells of a printed row; `marks` are those of its footnotes."""
    printed = row.printed
    angles = {f"mae_{a}": _as_printed(getattr(printed, a)) for a in ANGLES}
    return {
        "model": Cell(f"{printed.method}{marks}", f"{printed.paper}, table {printed.table}", printed.method),
        "mae": _as_printed(printed.mae),
        **angles,
        "ubmae_printed": _as_printed(printed.ubmae),
    }


def value_cell(value: Value | None) -> Cell:
    """Return a score: the mean, with the standard deviation over seeds, and the interval below."""
    if value is None or value.mean is None:
        return Cell(UNKNOWN)
    spread = "" if value.sd is None else f" ± {value.sd:.2f}"
    interval = "" if value.low is None or value.high is None else f"{value.low:.2f} to {value.high:.2f}"
    return Cell(f"{value.mean:.2f}{spread}", interval, value.mean)


def _rank(method: Method) -> str:
    if method.rank is None:
        return ""
    return f"{method.rank}{' =' if method.standing == TIED else ''}"


def is_winner(method: Method) -> bool:
    """Whether the method is the first of its table."""
    return method.standing == WINNER


def _printed(row: Reported | None) -> Cell:
    if row is None or row.printed.mae is None:
        return Cell(UNKNOWN)
    return _as_printed(row.printed.mae)._replace(small=row.printed.paper)


def _speed(result: Result) -> Cell:
    own = result.speed
    if own is None:
        return Cell(UNKNOWN)
    return Cell(f"{own.images_per_second:,.0f}", f"batch {own.batch_size}, {own.device}", own.images_per_second)


def _input(result: Result) -> Cell:
    own = result.input
    if own is None:
        return Cell("no image", "", "no image")
    others = ", ".join(": ".join(pair) for pair in own.crop_of)
    frames = f", {own.frames} frames" if own.frames > 1 else ""
    return Cell(f"{own.crop} {own.size} {own.colour}{frames}", others, own.crop)


def _training(own: Training) -> Cell:
    if own.how == FITTED:
        return Cell(own.how, f"{own.heads:,} heads" if own.heads is not None else "", own.how)
    steps = [
        f"{own.epochs} epochs" if own.epochs is not None else "",
        f"{own.steps:,} steps" if own.steps is not None else "",
        f"batch {own.batch_size}" if own.batch_size is not None else "",
        own.optimizer or "",
        f"lr {own.lr:g}" if own.lr is not None else "",
        f"{own.schedule} schedule" if own.schedule not in (None, "constant") else "",
        f"precision {own.precision}" if own.precision else "",
        f"balanced by {own.balance}" if own.balance not in (None, "none") else "",
        ", ".join(own.augmentations or ()),
    ]
    return Cell(f"{own.how}, {own.start}", ", ".join(filter(None, steps)), own.how)


def _coverage(share: float) -> Cell:
    return Cell(f"{100 * share:.1f} %", "", share)


def _number(value: float | None, decimals: int) -> Cell:
    return Cell(UNKNOWN) if value is None else Cell(f"{value:.{decimals}f}", "", value)


def _as_printed(value: float | None) -> Cell:
    """Return a number with all its decimals, at least two."""
    return _number(value, 2 if value is None else max(2, len(f"{value:g}".partition(".")[2])))


def _text(text: str) -> Cell:
    return Cell(text or UNKNOWN, "", text or None)
