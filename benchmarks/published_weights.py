"""What published weights reach on AFLW2000, through `ubhpd weights import`, `predict` and `score`.

    python benchmarks/published_weights.py --weights DIR --data-root DIR [--out docs/benchmarks/published-weights.md]

DIR of the weights holds the Keras files of shamangary/FSA-Net under their published names, DIR of the data AFLW2000,
all of it or a part. `--reference FILE` (sample_id or image, true and predicted angles of another model on all of
AFLW2000) tells how hard the part is. The errors are the same on every machine, but for the last digit.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import pandas as pd

from ubhpd.core.progress import Progress
from ubhpd.evaluation import printed_results
from ubhpd.evaluation.evaluate import EvaluationOptions, evaluate
from ubhpd.evaluation.intervals import BootstrapOptions
from ubhpd.inference.predicting import Request, predict_request
from ubhpd.models.importing import imported
from ubhpd.pool.build import BuildConfig, build

CAPSULE = ("fsanet_capsule_3_16_2_21_5", "fsanet_var_capsule_3_16_2_21_5", "fsanet_noS_capsule_3_16_2_192_5")
METRIC = ("fsanet_metric_3_16_2_21_5", "fsanet_var_metric_3_16_2_21_5", "fsanet_noS_metric_3_16_2_192_5")
FILES: dict[str, tuple[str, ...]] = {
    "fsanet_capsule_1x1": CAPSULE[:1],
    "fsanet_capsule_var": CAPSULE[1:2],
    "fsanet_capsule_wo": CAPSULE[2:],
    "fsanet_capsule_fusion": CAPSULE,
    "fsanet_metric_1x1": METRIC[:1],
    "fsanet_metric_var": METRIC[1:2],
    "fsanet_metric_wo": METRIC[2:],
    "fsanet_metric_fusion": METRIC,
    "fsanet_netvlad_1x1": ("fsanet_netvlad_3_16_2_21_5",),
    "ssrnet_md": ("ssrnet_mt",),
}
METRICS = ("mae", "mae_yaw", "mae_pitch", "mae_roll", "balanced_mae", "geodesic")
PRINTED = {
    "fsanet_capsule_1x1": "FSA-Caps (1x1)", "fsanet_capsule_var": "FSA-Caps (var)",
    "fsanet_capsule_wo": "FSA-Caps (w/o)", "fsanet_capsule_fusion": "FSA-Caps-Fusion",
    "fsanet_metric_1x1": "FSA-Metric (1x1)", "fsanet_metric_var": "FSA-Metric (var)",
    "fsanet_metric_wo": "FSA-Metric (w/o)", "fsanet_metric_fusion": "FSA-Metric-Fusion",
    "fsanet_netvlad_1x1": "FSA-NetVLAD (1x1)", "ssrnet_md": "SSR-Net-MD",
}  # fmt: skip

PAGE = """# Published weights on AFLW2000

The weights that FSA-Net's authors published, trained on 300W-LP, imported from their Keras files, on {heads} heads of
AFLW2000 with all angles within 99 degrees, cut by the recipe `fsanet-0.6`. Degrees, with 95 % intervals from 2,000
bootstrap resamples of heads. "Printed" is the paper's MAE on its 1,969 heads (FSA-Net, CVPR 2019, table 1).
{part}

`python benchmarks/published_weights.py` makes this page.

| model | MAE | yaw | pitch | roll | balanced MAE | geodesic | printed |
|---|---|---|---|---|---|---|---|
{lines}

By hand, the same numbers come from

```sh
ubhpd weights import fsanet_capsule_3_16_2_21_5.h5 fsanet_var_capsule_3_16_2_21_5.h5 \\
    fsanet_noS_capsule_3_16_2_192_5.h5 --model fsanet_capsule_fusion --out fusion.safetensors
ubhpd build --sources aflw2000 --data-root DATA --out OUT --pool-only
ubhpd predict --weights fusion.safetensors --manifest OUT/pool.parquet --out fusion.csv
ubhpd score fusion.csv --manifest OUT/pool.parquet --bootstrap samples --rounds 2000
```
"""


def printed_mae(model: str) -> str:
    """Return the mean absolute error that FSA-Net's paper prints for a model on AFLW2000."""
    rows = [r for r in printed_results.results() if r.paper == "FSA-Net 2019" and r.method == PRINTED[model]]
    return next((f"{r.mae:g}" for r in rows if r.train == "300W-LP" and r.test == "AFLW2000"), "-")


def row(model: str, weights: Path, manifest: Path, work: Path) -> tuple[str, int]:
    """Return the line of one model, and the number of heads."""
    imported([weights / f"{name}.h5" for name in FILES[model]], model).save(work / f"{model}.safetensors")
    request = Request(work / f"{model}.safetensors", work / f"{model}.csv", manifest=manifest, device="cpu")
    predict_request(request, Progress())
    options = EvaluationOptions(bootstrap=BootstrapOptions(2000, 0.95, "samples", 0))
    result = evaluate(work / f"{model}.csv", manifest, options).result
    scores = result["scores"]
    cells = [f"{scores[m]['value']:.2f} ({scores[m]['low']:.2f} to {scores[m]['high']:.2f})" for m in METRICS]
    return f"| `{model}` | {' | '.join(cells)} | {printed_mae(model)} |", result["heads"]


def difficulty(reference: Path, predicted: Path) -> str:
    """Return a sentence on how another model's errors on these heads compare with its errors on all of them."""
    table = pd.read_csv(reference)
    names = set(pd.read_csv(predicted).sample_id.str.rpartition("/")[2])
    angles = ("yaw", "pitch", "roll")
    errors = sum((table[f"pred_{a}"] - table[f"gt_{a}"]).abs() for a in angles) / 3
    here = errors[table["image"].isin(names)]
    name = reference.stem.partition("_")[0].capitalize()
    return (
        f"Only a part of the set was at hand: {name}, whose predictions for all {len(errors):,} heads are known, has\n"
        f"an MAE of {errors.mean():.2f} on all and of {here.mean():.2f} on these {len(here)}, and so much lower are "
        "the numbers below."
    )


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/published-weights.md"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        build(BuildConfig(("aflw2000",), work / "out", str(arguments.data_root)))
        manifest = work / "out" / "pool.parquet"
        rows = [row(model, arguments.weights, manifest, work) for model in FILES]
        part = difficulty(arguments.reference, work / "ssrnet_md.csv") if arguments.reference else ""
    lines = "\n".join(line for line, _ in rows)
    arguments.out.write_text(PAGE.format(heads=f"{rows[0][1]:,}", part=part, lines=lines), encoding="utf-8")
    print(arguments.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
