"""A small build for the tests of the exports, and what comes out of an export."""

import numpy as np
import pyarrow as pa

from ubhpd import manifest
from ubhpd.exports import _runner
from ubhpd.exports._runner import ExportConfig, formats
from ubhpd.images.crops import RECIPES, crop, crop_box
from ubhpd.images.reading import Images
from ubhpd.manifest.schema import COLUMNS, Column
from ubhpd.pool.build import BuildConfig, build
from ubhpd.synth.writers import aflw2000_writer, aflw_writer, biwi_writer, upna_writer, w300lp_writer

FORMATS = tuple(formats())
SPACE = "IBUG_image_092 _01"

_built = {}


def built_once(factory):
    """Return a build of five small datasets, raw data beside it, made once a session; never change it."""
    base = factory.getbasetemp()
    if base not in _built:
        _built[base] = _build(base / "export")
    return _built[base]


def _build(root):
    w300lp_writer.write(root / "raw", 12, views=3, landmarks=False, distinct_images=6, bad_flips=1)
    aflw_writer.write(root / "raw", 10, seed=2)
    aflw2000_writer.write(root / "raw", 8, distinct_images=4)
    biwi_writer.write(root / "raw", (1,), frames=4, with_depth=False)
    upna_writer.write(root / "raw", (1, 2), (1,), frames=5)
    sources = ("300wlp", "aflw", "aflw2000", "biwi", "upna")
    build(BuildConfig(sources, root / "out", str(root / "raw")))
    (root / "bare.txt").write_text(sampled(root / "out"))
    return root / "out"


def sampled(out):
    """Write ubhpd.parquet: every other head test, one head without box and landmarks, videos shuffled."""
    rows = manifest.read(out / "pool.parquet").to_pylist()
    rows = [r for r in rows if r["drop_reason"] is None]
    np.random.default_rng(3).shuffle(rows)
    bare = next(r for r in rows if r["dataset"] == "biwi")
    bare.update(bbox_xyxy=None, landmarks68=None, landmarks21=None)
    for number, row in enumerate(rows):
        row["split"] = ("train", "train", "test")[number % 3]
    columns = (*COLUMNS, Column("split", pa.string(), "", "", "train or test"))
    table = pa.table({c.name: pa.array([r[c.name] for r in rows], c.type) for c in columns})
    manifest.write_parquet([table], out / "ubhpd.parquet", columns)
    return bare["sample_id"]


def usable(built):
    """Return the usable heads with a box, in the manifest's order."""
    bare = (built.parent / "bare.txt").read_text()
    return [r for r in manifest.read(built / "ubhpd.parquet").to_pylist() if r["sample_id"] != bare]


def run(built, form, out, engine=None, **kwargs):
    kwargs.setdefault("unit_heads", 7)
    return _runner.export(ExportConfig(built, form, out=out, **kwargs), engine)


def wanted_crop(built, row, recipe, size, colour=None):
    image = Images.of_build(built).image(row["dataset"], row["image_path"], row["frame_index"])
    return crop(image, crop_box(row, RECIPES[recipe]), RECIPES[recipe], size, colour)


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
