"""A few heads whose bins can be told by hand, as arrays, manifests and the folder of a build."""

import pyarrow as pa

from ubhpd import manifest
from ubhpd.core.records import Record
from ubhpd.manifest.schema import COLUMNS, Column, schema, table_from_records

SPLIT = Column("split", pa.string(), "", "", "train or test")

# Bins: 7 is [-6, 6), 8 is [6, 18), 0 is [-90, -78), 14 is [78, 90].
BIWI = [(0, 0, 0), (1, 7, 0), (7, 0, -90), (10, 91, 0)]
AFLW = [(90, 0, 0), (-120, 0, 200)]
UBHPD = [BIWI[0], BIWI[1], AFLW[0]]
SIDES = ["train", "train", "test"]


def heads(dataset, poses, dropped=()):
    records = [
        Record(f"{dataset}/{i}", None, None, None, *map(float, pose), None, drop_reason="x" if i in dropped else None)
        for i, pose in enumerate(poses)
    ]
    return table_from_records(dataset, records)


def write_ubhpd(path, poses=UBHPD, sides=SIDES):
    columns = (*COLUMNS, SPLIT)
    table = heads("biwi", poses).append_column("split", pa.array(sides, pa.string()))
    manifest.write_parquet([table.cast(schema(columns))], path, columns)


def write_build(out):
    """Write what a build would: a pool of two datasets, one refused head among them, and UBHPD."""
    out.mkdir()
    manifest.write_parquet(
        [heads("biwi", [*BIWI, (50, 50, 50)], dropped=[4]), heads("aflw", AFLW)], out / "pool.parquet"
    )
    write_ubhpd(out / "ubhpd.parquet")
    return out
