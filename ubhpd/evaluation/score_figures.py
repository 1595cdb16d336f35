"""Images of one scored file, as PNG in memory: matplotlib without a screen."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ubhpd.core.bins import ANGLES, CENTRES_DEG, EDGES_DEG, LIMIT_DEG, WIDTH_DEG
from ubhpd.evaluation.scoring import ScoreOptions, bin_table

if TYPE_CHECKING:
    from ubhpd.evaluation.evaluate import Evaluation

BLUE, ORANGE, GREY = "#2b6cb0", "#dd6b20", "#a0aec0"
_STYLE: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 110}
POINTS = 5_000  # heads drawn one by one; more are thinned evenly
WORST = 12


def score_figures(
    evaluation: Evaluation,
    options: ScoreOptions | None = None,
    manifest: str | Path | None = None,
    images: Path | None = None,
) -> dict[str, bytes]:
    """Return PNG files by what they show; the sheet of the worst heads only where the images are.

    Raises:
        UbhpdError: `images` is given and the manifest cannot be read.
    """
    with mpl.rc_context(_STYLE):
        found = {
            "error against angle": _png(error_against_angle(evaluation)),
            "error per bin": _png(bars_per_bin(evaluation, options)),
            "error distribution": _png(distribution(evaluation)),
        }
        if images is not None and manifest is not None and (sheet := worst_heads(evaluation, manifest, images)):
            found["worst heads"] = _png(sheet)
    return found


def error_against_angle(evaluation: Evaluation) -> Figure:
    """Return |error| against the true angle, head by head, with the mean and the count of each bin."""
    errors = evaluation.scored.errors
    true = evaluation.paired.pairs.true_deg[evaluation.kept]
    tables = bin_table(evaluation.scored)
    figure = _figure(10, 3.6)
    some = np.unique(np.linspace(0, len(true) - 1, POINTS).astype(int)) if len(true) else np.zeros(0, int)
    for j, axis in enumerate(figure.subplots(1, 3, sharey=True)):
        axis.scatter(true[some, j], errors.columns["abs_error"][some, j], s=3, color=GREY, linewidths=0, alpha=0.6)
        axis.stairs(tables["error"][j], EDGES_DEG, baseline=None, color=BLUE, linewidth=1.8)
        axis.set_ylim(bottom=0.0)
        top = axis.get_ylim()[1]
        for centre, n in zip(CENTRES_DEG, tables["n"][j], strict=True):
            axis.text(centre, top, f"{n:,}", rotation=90, va="top", ha="center", fontsize=6, color="#4a5568")
        axis.set(
            xlabel=f"true {ANGLES[j]} (degrees)", xticks=np.arange(-90, 91, 30), xlim=(-LIMIT_DEG - 6, LIMIT_DEG + 6)
        )
    figure.axes[0].set_ylabel("|error| (degrees); line: mean of the bin, above: heads in it")
    return figure


def bars_per_bin(evaluation: Evaluation, options: ScoreOptions | None = None) -> Figure:
    """Return the MAE of each bin, and beside it the weight that UBMAE gives the bin, if a training set is named."""
    tables = bin_table(evaluation.scored, options)
    figure = _figure(10, 3.4)
    for j, axis in enumerate(figure.subplots(1, 3, sharey=True)):
        axis.bar(CENTRES_DEG, np.nan_to_num(tables["error"][j]), 0.8 * WIDTH_DEG, color=BLUE, label="MAE of the bin")
        axis.set(xlabel=f"true {ANGLES[j]} (degrees)", xticks=np.arange(-90, 91, 30))
        if "weight" in tables:
            twin = axis.twinx()
            twin.plot(
                CENTRES_DEG, tables["weight"][j], "o-", color=ORANGE, markersize=3, linewidth=1, label="weight d/s"
            )
            twin.set_ylim(bottom=0)
            twin.spines["right"].set_visible(True)
            twin.tick_params(axis="y", colors=ORANGE)
            if j == 2:
                twin.set_ylabel("weight of UBMAE, d / s", color=ORANGE)
    figure.axes[0].set_ylabel("MAE (degrees)", color=BLUE)
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


def worst_heads(evaluation: Evaluation, manifest: str | Path, images: Path) -> Figure | None:
    """Return the heads with the largest rotation error, cut out of their images; None if no image is there."""
    import cv2

    from ubhpd import manifest as manifests

    path = manifests.BuildFolder.at(manifest).manifest(manifests.POOL)
    table = manifests.read(path, ["sample_id", "image_path", "bbox_xyxy"])
    place = {name: i for i, name in enumerate(table.column("sample_id").to_pylist())}
    geodesic = evaluation.scored.errors.columns["geodesic"]
    shown: list[tuple[Any, str]] = []
    for row in np.argsort(-geodesic, kind="stable")[: 4 * WORST]:
        head = int(evaluation.kept[row])
        at = place[evaluation.paired.sample_id[head].as_py()]
        image = cv2.imread(str(images / (table.column("image_path")[at].as_py() or "")))
        if image is None:
            continue
        crop = _crop(image, table.column("bbox_xyxy")[at].as_py())
        pairs = evaluation.paired.pairs
        true, predicted = (" ".join(f"{v:.0f}" for v in a[head]) for a in (pairs.true_deg, pairs.predicted_deg))
        shown.append((crop[:, :, ::-1], f"{geodesic[row]:.0f}°\ntrue {true}\npredicted {predicted}"))
        if len(shown) == WORST:
            break
    if not shown:
        return None
    figure = _figure(10, 5.6)
    for axis in figure.subplots(2, WORST // 2).ravel():
        axis.axis("off")
    for axis, (crop, text) in zip(figure.axes, shown, strict=False):
        axis.imshow(crop)
        axis.set_title(text, fontsize=7)
    return figure


def _crop(image: Any, box: list[float] | None) -> Any:
    if box is None:
        return image
    height, width = image.shape[:2]
    x0, y0, x1, y1 = box
    pad = 0.2 * max(x1 - x0, y1 - y0)
    left, top = (int(np.clip(v - pad, 0, m - 1)) for v, m in ((x0, width), (y0, height)))
    right, bottom = (int(np.clip(v + pad, low + 1, m)) for v, low, m in ((x1, left, width), (y1, top, height)))
    return image[top:bottom, left:right]


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
