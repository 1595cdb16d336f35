"""Damages manifests and reads them: each copy gives the rows of the whole file, or one sentence.

`python tests/fuzz_manifests.py FOLDER FIRST COUNT` makes and reads COUNT damaged copies of the manifests in FOLDER, of
the seeds from FIRST on, and prints each seed before it is tried, so that a crash or an endless reading has a name.
"""

import sys
from pathlib import Path

import numpy as np

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.evaluation.pairing import truth_table
from ubhpd.exports._crops import read_heads
from ubhpd.images.crops import recipe_named
from ubhpd.inference.manifest_source import read_plan
from ubhpd.manifest.schema import fingerprint
from ubhpd.pool.summary import dropped_heads, summarise, validate_pool
from ubhpd.protocols.resolve import resolve
from ubhpd.quality.audit import audit_places
from ubhpd.quality.checks import check_manifest
from ubhpd.sampling import densities

READERS = {
    "read": lambda path: fingerprint([manifest.read(path)]),
    "columns": lambda path: manifest.read(path, ["yaw_deg", "rotation", "sample_id"]).to_pylist(),
    "usable": lambda path: manifest.usable(path, ["pitch_deg", "bbox_xyxy"]).to_pylist(),
    "info": lambda path: {k: v for k, v in summarise(path).items() if k != "manifest"},
    "dropped": dropped_heads,
    "score": lambda path: fingerprint_of(truth_table(path)[0]),
    "density": lambda path: [(t.name, t.heads, t.inside.tolist()) for t in densities.read(path).datasets],
    "plan": lambda path: read_plan(path, None, None).texts,
    "export": lambda path: read_heads(path, recipe_named("square"), None, 0, face=False, points=False).texts,
    "flags": lambda path: check_manifest(path).to_pylist(),
    "protocol": lambda path: resolve("300wlp_aflw2000", path).as_dict(),
    "audit": lambda path: audit_places(path).as_dict(),
    "validate": lambda path: [f for f in validate_pool(path) if f.kind != "fingerprint"],
}
MAY_DIFFER = {"validate"}  # it reports a changed file as a finding, and reads on


def fingerprint_of(table):
    return str(table.to_pydict())


def damaged(data, rng):
    """Return a copy of some bytes with one kind of damage at a random place."""
    data = bytearray(data)
    kind = rng.integers(8)
    tail = min(len(data), 30_000)  # where the footer of a Parquet file lies
    at = int(rng.integers(len(data)) if rng.random() < 0.5 else len(data) - 1 - rng.integers(tail))
    size = int(min(2 ** rng.integers(1, 12), len(data) - at))
    if kind <= 2:
        data[at] ^= 1 << rng.integers(8)
    elif kind == 3:
        data[at : at + size] = rng.bytes(size)
    elif kind == 4:
        data[at : at + size] = bytes([rng.choice([0, 255])]) * size
    elif kind == 5:
        del data[at : at + size]
    elif kind == 6:
        start = int(rng.integers(len(data) - size))
        data[at : at + size] = data[start : start + size]
    else:
        del data[at:]
    return bytes(data)


def answer(reader, path):
    """Return what a reader gives, or the sentence of its UbhpdError."""
    try:
        return "rows", reader(path)
    except UbhpdError as error:
        return "error", str(error)


def try_one(source, seed, folder):
    """Return what went wrong with one damaged copy, None if nothing did."""
    rng = np.random.default_rng(seed)
    path = folder / source.name
    data = source.read_bytes()
    path.write_bytes(damaged(data, rng))
    for name, reader in READERS.items():
        expected = EXPECTED.setdefault((source, name), answer(reader, source))
        try:
            kind, value = answer(reader, path)
        except Exception as error:
            return f"{name}: {type(error).__name__}: {error}"
        if kind == "error":
            if "\n" in value or len(value) > 600 + len(str(path)):
                return f"{name}: the sentence is {value!r}"
        elif repr(value) != repr(expected[1]) and name not in MAY_DIFFER:
            return f"{name}: other rows than those of the whole file"
    return None


EXPECTED = {}


def main(folder, first, count):
    sources = sorted(p for p in Path(folder).iterdir() if p.suffix in (".parquet", ".h5"))
    work = Path(folder) / f"damaged-{first}"
    work.mkdir(exist_ok=True)
    faults = 0
    for seed in range(first, first + count):
        source = sources[seed % len(sources)]
        print(f"{source.name} {seed}", flush=True)
        if fault := try_one(source, seed, work):
            print(f"FAULT {source.name} {seed}: {fault}", flush=True)
            faults += 1
    return faults


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])) else 0)
