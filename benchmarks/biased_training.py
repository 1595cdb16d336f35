"""Does it help to train on UBHPD? A training set of the same size and with the pool's own bias, and the same test set.

    python benchmarks/biased_training.py --data OUT --out BIASED [--seed 0]
    ubhpd bench --models M --protocols 3 --data OUT    --out RESULTS/unbiased ...
    ubhpd bench --models M --protocols 3 --data BIASED --out RESULTS/biased   ...

OUT is the folder of a build whose UBHPD is split by subject. BIASED becomes a folder with the same test split, and a
training split of as many heads as UBHPD's, drawn at random from all usable heads of the pool that share no person,
recording or photograph with the test split.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa

from ubhpd import manifest
from ubhpd.manifest.schema import COLUMNS
from ubhpd.sampling import heads, splits
from ubhpd.sampling.ubhpd import UBHPD_COLUMNS


def biased(pool: pa.Table, ubhpd: pa.Table, seed: int) -> pa.Table:
    """Return UBHPD's test split and a training split of the pool's own densities, as large as UBHPD's."""
    pool = pool.filter(pool.column("drop_reason").is_null())
    group = splits.by_person(heads.from_table(pool))
    ids = np.array(pool.column("sample_id").to_pylist())
    split = np.array(ubhpd.column("split").to_pylist())
    chosen = np.array(ubhpd.column("sample_id").to_pylist())
    in_test = np.isin(group, np.unique(group[np.isin(ids, chosen[split == "test"])]))
    eligible = np.flatnonzero(~in_test)
    count = int((split == "train").sum())
    if len(eligible) < count:
        raise SystemExit(f"The pool has {len(eligible)} heads apart from the test split, {count} are needed.")
    rows = np.sort(np.random.default_rng(seed).choice(eligible, count, replace=False))
    train = pool.take(rows)
    for column in UBHPD_COLUMNS[len(COLUMNS) :]:
        values = pa.array(["train"] * count) if column.name == "split" else pa.nulls(count, column.type)
        train = train.append_column(column.name, values)
    names = [column.name for column in UBHPD_COLUMNS]
    test = ubhpd.filter(pa.array(split == "test"))
    parts = [pa.table([t.column(c.name).cast(c.type) for c in UBHPD_COLUMNS], names=names) for t in (train, test)]
    return pa.concat_tables(parts)


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    table = biased(
        manifest.read(arguments.data / "pool.parquet"), manifest.read(arguments.data / "ubhpd.parquet"), arguments.seed
    )
    manifest.write_parquet([table], arguments.out / "ubhpd.parquet", UBHPD_COLUMNS)
    for name in ("build.json", "pool.parquet"):
        shutil.copy(arguments.data / name, arguments.out / name)
    print(f"{arguments.out / 'ubhpd.parquet'}: {table.num_rows:,} heads")


if __name__ == "__main__":
    main()
