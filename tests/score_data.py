"""Heads with truth and predictions, and the files that hold them, for the tests of scoring."""

import numpy as np
from realdata import REAL

from ubhpd import manifest
from ubhpd.core.records import Record
from ubhpd.core.rotation import matrix_from_euler
from ubhpd.manifest.schema import table_from_records

HOPENET = REAL / "predictions/hopenet_aflw2000.csv"
LP_HISTOGRAM = REAL / "labels/300wlp_histogram_3deg.csv"
HEADER = "sample_id,yaw,pitch,roll,yaw_true,pitch_true,roll_true"


def heads(n=400, noise=3.0, seed=0, spread=(35.0, 20.0, 15.0)):
    """Return (predicted, true) angles (n, 3), all true angles inside the bins."""
    rng = np.random.default_rng(seed)
    true = np.clip(rng.normal(size=(n, 3)) * np.array(spread), -88.0, 88.0)
    return true + noise * rng.normal(size=(n, 3)), true


def covering(seed=0, per_bin=3):
    """Return (predicted, true) with the same number of heads in every bin of every angle."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(np.arange(-84.0, 85.0, 12.0), per_bin)
    true = np.stack([rng.permutation(centres) for _ in range(3)], axis=1) + rng.uniform(-5, 5, (15 * per_bin, 3))
    return true + 4.0 * rng.normal(size=true.shape), true


def write_csv(path, predicted, true=None, ids=None, header=None):
    """Write a prediction file and return its path."""
    ids = [f"set/{i:05d}" for i in range(len(predicted))] if ids is None else ids
    columns = [predicted] if true is None else [predicted, true]
    lines = [header or (HEADER if true is not None else "sample_id,yaw,pitch,roll")]
    for name, values in zip(ids, np.concatenate(columns, axis=1), strict=True):
        lines.append(",".join([str(name), *(repr(float(v)) for v in values)]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_manifest(path, true, ids=None, subjects=None, sequences=None, dropped=(), datasets=None):
    """Write a manifest of these heads and return its path."""
    ids = [f"set/{i:05d}" for i in range(len(true))] if ids is None else ids
    records = []
    for i, (name, angles) in enumerate(zip(ids, true, strict=True)):
        records.append(
            Record(
                sample_id=name,
                image_path=f"{name}.png",
                image_width=64,
                image_height=64,
                yaw_deg=float(angles[0]),
                pitch_deg=float(angles[1]),
                roll_deg=float(angles[2]),
                rotation=matrix_from_euler(angles).ravel(),
                subject_id=None if subjects is None else subjects[i],
                sequence_id=None if sequences is None else sequences[i],
                bbox_xyxy=(10.0, 10.0, 50.0, 50.0),
                bbox_kind="test",
                drop_reason="beyond_max_angle" if i in dropped else None,
                drop_detail="for the test" if i in dropped else None,
            )
        )
    names = ["set"] * len(records) if datasets is None else datasets
    tables = [
        table_from_records(name, [r for r, n in zip(records, names, strict=True) if n == name])
        for name in dict.fromkeys(names)
    ]
    manifest.write_parquet(tables, path)
    return path
