"""The manifest: one row per head, as Parquet or HDF5, with a schema that explains itself and a fingerprint."""

from ubhpd.manifest.build_folder import LANDMARKS, NO_LANDMARKS, POOL, UBHPD, BuildFolder, readmitted
from ubhpd.manifest.store import (
    ROW_GROUP,
    Header,
    header,
    is_unchanged,
    iterate,
    read,
    usable,
    with_landmarks,
    write_hdf5,
    write_parquet,
)

__all__ = [
    "LANDMARKS",
    "NO_LANDMARKS",
    "POOL",
    "ROW_GROUP",
    "UBHPD",
    "BuildFolder",
    "Header",
    "header",
    "is_unchanged",
    "iterate",
    "read",
    "readmitted",
    "usable",
    "with_landmarks",
    "write_hdf5",
    "write_parquet",
]
