"""Figures of one scored file, as PNG in memory: matplotlib without a screen."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ubhpd.core import plotting  # noqa: F401, before anything of matplotlib

# isort: split

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ubhpd import manifest as manifests
from ubhpd.core.bins import ANGLES, CENTRES_DEG, EDGES_DEG, LIMIT_DEG, WIDTH_DEG
from ubhpd.core.errors import UbhpdError
from ubhpd.core.rotation import matrix_from_euler
from ubhpd.core.typing import AnyArray, FloatArray, Image
from ubhpd.evaluation.scoring import ScoreOptions, bin_table
from ubhpd.manifest import BuildFolder

if TYPE_CHECKING:
    from ubhpd.evaluation.evaluate import Evaluation

BLUE, ORANGE, GREY, DARK = "#2b6cb0", "#dd6b20", "#a0aec0", "#2d3748"
_STYLE: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 130}
POINTS = 5_000  # heads drawn one by one; more are thinned evenly
WORST = 12
_TRIED = 4 * WORST  # heads whose images are looked for
_SHEET_COLUMNS = 4  # heads side by side, two images each
_CROP_PX = 200
_MARGIN = 0.2  # of the longer side of the face box, around it
_HEAD_COLUMNS = ("sample_id", "dataset", "image_path", "frame_index", "bbox_xyxy")


class WorstHead(NamedTuple):
    """A head with a large error: angles (yaw, pitch, roll) in degrees, rotations (3, 3)."""

    sample_id: str
    error_deg: float
    true_deg: tuple[float, ...]
    predicted_deg: tuple[float, ...]
    true_rotation: FloatArray
    predicted_rotation: FloatArray


def worst_heads(evaluation: Evaluation, count: int = WORST) -> list[WorstHead]:
    """Return the heads with the largest angle of rotation between prediction and truth, worst first."""
    geodesic = evaluation.scored.errors.columns["geodesic"]
    rows = np.argsort(-geodesic, kind="stable")[:count]
    heads = evaluation.kept[rows]
    pairs = evaluation.paired.pairs.take(heads)
    true, predicted = (
        matrix_from_euler(angles) if own is None else own
        for own, angles in ((pairs.true_rotation, pairs.true_deg), (pairs.predicted_rotation, pairs.predicted_deg))
    )
    return [
        WorstHead(
            evaluation.paired.sample_id[int(head)].as_py(), float(geodesic[row]), tuple(pairs.true_deg[i].tolist()),
            tuple(pairs.predicted_deg[i].tolist()), true[i], predicted[i],
        )
        for i, (row, head) in enumerate(zip(rows, heads, strict=True))
    ]  # fmt: skip


def score_figures(
    evaluation: Evaluation,
    options: ScoreOptions | None = None,
    manifest: str | Path | None = None,
    images: Path | None = None,
) -> dict[str, bytes]:
    """Return PNG files by what they show; the sheet of the worst heads only if their images are found.

    Args:
        evaluation: of the scored file.
        options: of the score.
        manifest: a manifest or a build's folder; by default the one that the truth is from, if any.
        images: root of the images; by default the raw data that build.json beside the manifest names.

    Raises:
        UbhpdError: the manifest cannot be read.
    """
    place = Path(manifest or evaluation.paired.truth)
    with mpl.rc_context(_STYLE):
        figures = {
            "error against angle": _png(error_against_angle(evaluation)),
            "error per bin": _png(bars_per_bin(evaluation, options)),
            "error distribution": _png(distribution(evaluation)),
        }
        if place.exists() and (sheet := sheet_of_worst(evaluation, place, images)):
            figures["worst heads"] = _png(sheet)
    return figures


def error_against_angle(evaluation: Evaluation) -> Figure:
    """Return |error| against the true angle, head by head, with the mean of each bin, and the heads per bin below."""
    errors = evaluation.scored.errors
    true = evaluation.paired.pairs.true_deg[evaluation.kept]
    tables = bin_table(evaluation.scored)
    figure = _figure(11, 5.4)
    panels = figure.subplots(2, 3, sharex=True, sharey="row", height_ratios=[3, 1.6])
    some = np.unique(np.linspace(0, len(true) - 1, POINTS).astype(int)) if len(true) else np.zeros(0, int)
    top = float(tables["n"].max(initial=0))
    for j, (above, below) in enumerate(panels.T):
        above.scatter(
            true[some, j], errors.columns["abs_error"][some, j], s=3, color=GREY, linewidths=0, alpha=0.6,
            label="one head",
        )  # fmt: skip
        above.stairs(tables["error"][j], EDGES_DEG, baseline=None, color=BLUE, linewidth=1.8, label="mean of the bin")
        above.set_ylim(bottom=0.0)
        _draw_counts(below, tables["n"][j], top)
        below.set(xlabel=f"true {ANGLES[j]} (degrees)", xlim=(-LIMIT_DEG - 6, LIMIT_DEG + 6))
        below.set_xticks(np.arange(-90, 91, 30))
    panels[0, 0].set_ylabel("|error| (degrees)")
    panels[1, 0].set_ylabel("heads in the bin")
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False, markerscale=4
    )
    return figure


def _draw_counts(axes: Axes, counts: AnyArray, most: float) -> None:
    """Draw the heads of each bin as a bar with the number above it; heights are logarithmic, `most` is the largest."""
    heights, top = np.log10(1.0 + counts), float(np.log10(1.0 + most)) or 1.0
    axes.bar(CENTRES_DEG, heights, 0.8 * WIDTH_DEG, color=GREY)
    for centre, height, n in zip(CENTRES_DEG.tolist(), heights.tolist(), counts.tolist(), strict=True):
        axes.text(
            centre, height + 0.05 * top, f"{int(n):,}", rotation=90, va="bottom", ha="center", fontsize=8.5, color=DARK
        )
    axes.set(ylim=(0, 2.0 * top), yticks=[])


def bars_per_bin(evaluation: Evaluation, options: ScoreOptions | None = None) -> Figure:
    """Return the MAE of each bin, and beside it the weight that UBMAE gives the bin, if a training set is named."""
    tables = bin_table(evaluation.scored, options)
    figure = _figure(11, 3.6)
    panels = figure.subplots(1, 3, sharey=True)
    handles: list[Any] = []
    top = float(np.nan_to_num(tables["weight"]).max()) if "weight" in tables else 0.0
    for j, axes in enumerate(panels):
        bars = axes.bar(CENTRES_DEG, np.nan_to_num(tables["error"][j]), 0.8 * WIDTH_DEG, color=BLUE, label="MAE")
        axes.set(xlabel=f"true {ANGLES[j]} (degrees)", xticks=np.arange(-90, 91, 30))
        handles = [bars]
        if "weight" in tables:
            twin = axes.twinx()
            handles += twin.plot(
                CENTRES_DEG, tables["weight"][j], "o-", color=ORANGE, markersize=3, linewidth=1, label="weight in UBMAE"
            )
            twin.set_ylim(0, 1.06 * top or 1.0)
            twin.spines["right"].set_visible(True)
            twin.tick_params(axis="y", colors=ORANGE, labelright=j == 2)
            if j == 2:
                twin.set_ylabel("weight: test / training density", color=ORANGE)
    panels[0].set_ylabel("MAE of the bin (degrees)", color=BLUE)
    if len(handles) > 1:
        figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False)
    return figure


def distribution(evaluation: Evaluation) -> Figure:
    """Return the share of heads whose error is below x, of each angle and of the whole rotation."""
    columns = evaluation.scored.errors.columns
    figure = _figure(6, 3.6)
    axis = figure.subplots()
    curves = {a: columns["abs_error"][:, j] for j, a in enumerate(ANGLES)} | {"rotation": columns["geodesic"]}
    top = max((float(np.percentile(v, 99)) for v in curves.values() if len(v)), default=1.0)
    for name, values in curves.items():
        levels = np.linspace(0.0, 1.0, 400)
        axis.plot(np.quantile(values, levels) if len(values) else levels, levels, label=name, linewidth=1.4)
    axis.set(xlabel="error (degrees)", ylabel="share of heads", xlim=(0, top or 1.0), ylim=(0, 1.005))
    axis.grid(color="#e2e8f0")
    axis.legend(frameon=False, loc="lower right")
    return figure


def sheet_of_worst(evaluation: Evaluation, manifest: Path, images: Path | None = None) -> Figure | None:
    """Return the heads with the largest rotation error, each with the axes of its true and its predicted pose.

    Args:
        evaluation: of the scored file.
        manifest: a manifest or a build's folder.
        images: root of the images; by default the raw data that build.json beside the manifest names.

    Returns:
        The figure, or None if no image is found.

    Raises:
        UbhpdError: the manifest cannot be read.
    """
    worst = worst_heads(evaluation, _TRIED)
    rows = _manifest_rows(manifest, [head.sample_id for head in worst])
    shown: list[tuple[WorstHead, Image]] = []
    for head in worst:
        row = rows.get(head.sample_id)
        image = None if row is None else _image(row, manifest, images)
        if row is not None and image is not None:
            shown.append((head, _square_crop(image, row["bbox_xyxy"])))
        if len(shown) == WORST:
            break
    if not shown:
        return None
    lines = -(-len(shown) // _SHEET_COLUMNS)
    figure = _figure(11, 2.05 * lines)
    cells = figure.subfigures(lines, _SHEET_COLUMNS, squeeze=False)
    for (head, crop), cell in zip(shown, cells.ravel(), strict=False):
        cell.suptitle(f"{_shortened(head.sample_id)}, {head.error_deg:.0f}\N{DEGREE SIGN}", fontsize=8)
        poses = (
            ("true", head.true_deg, head.true_rotation),
            ("predicted", head.predicted_deg, head.predicted_rotation),
        )
        for axes, (title, angles, rotation) in zip(cell.subplots(1, 2), poses, strict=True):
            axes.imshow(_with_axes(crop, rotation)[..., ::-1])
            axes.set_title(f"{title}\n" + " ".join(str(round(v)) for v in angles), fontsize=7.5)
            axes.axis("off")
    return figure


def _manifest_rows(place: Path, sample_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return dataset, image and box of heads by their ids; of a build's folder out of its pool."""
    table = manifests.read(BuildFolder.at(place).manifest(manifests.POOL), list(_HEAD_COLUMNS))
    rows = table.filter(pc.is_in(table.column("sample_id"), value_set=pa.array(sample_ids, pa.string())))
    return {row["sample_id"]: row for row in rows.to_pylist()}


def _image(row: dict[str, Any], manifest: Path, images: Path | None) -> Image | None:
    """Return the image of a head (height, width, 3), BGR; None if it is not found."""
    from ubhpd.images.reading import Images
    from ubhpd.raw.trees import TreeSpec

    if not row["image_path"]:
        return None
    try:
        if images is not None:
            source = Images({row["dataset"]: TreeSpec(((str(images), ""),))})
        else:
            source = Images.of_build(BuildFolder.at(manifest).folder)
        return source.image(row["dataset"], row["image_path"], row["frame_index"])
    except (UbhpdError, OSError):
        return None


def _square_crop(image: Image, box: Sequence[float] | None) -> Image:
    """Return the square around a face box with a margin, `_CROP_PX` pixels wide; beyond the image it is black."""
    import cv2

    height, width = image.shape[:2]
    x0, y0, x1, y1 = (0.0, 0.0, float(width), float(height)) if box is None else map(float, box)
    half = (0.5 if box is None else 0.5 + _MARGIN) * max(x1 - x0, y1 - y0, 1.0)
    scale = _CROP_PX / (2 * half)
    left, top = (x0 + x1) / 2 - half, (y0 + y1) / 2 - half
    matrix = np.array([[scale, 0.0, -scale * left], [0.0, scale, -scale * top]])
    return np.asarray(cv2.warpAffine(image, matrix, (_CROP_PX, _CROP_PX), flags=cv2.INTER_AREA), dtype=np.uint8)


def _with_axes(crop: Image, rotation: FloatArray) -> Image:
    from ubhpd.images.drawing import draw_axes

    drawn: Image = crop.copy()
    draw_axes(drawn, rotation, (_CROP_PX / 2, _CROP_PX / 2), 0.4 * _CROP_PX)
    return drawn


def _shortened(name: str, most: int = 34) -> str:
    return name if len(name) <= most else f"...{name[3 - most :]}"


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
