"""Builds: what `ubhpd.build` makes and `ubhpd.load` opens, with their densities, audits and exports."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ubhpd.core.errors import UbhpdError
from ubhpd.core.parallel import Engine
from ubhpd.core.progress import Progress
from ubhpd.core.registry import pick

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from ubhpd.exports._crops import ExportReport
    from ubhpd.quality.audit import AuditReport
    from ubhpd.sampling.densities import Densities
    from ubhpd.training.feeding import HeadDataset

PathLike: TypeAlias = "str | os.PathLike[str]"
FigureKind = Literal["density", "joint", "overlay"]

ANGLE_NAMES = ("yaw", "pitch", "roll")


class Shown:
    """A result that a notebook shows as a table and `print` as the text of the command of the same name."""

    def table(self) -> pd.DataFrame:
        """Return the result as a data frame."""
        raise NotImplementedError

    def _heading(self) -> str:
        return ""

    def _repr_html_(self) -> str:
        shown: Any = self.table()
        return f"<p>{html.escape(self._heading())}</p>{shown._repr_html_()}"


class Build(Shown):
    """The folder of a build: the pool of all heads, UBHPD if it was sampled, and where the images are."""

    def __init__(self, place: PathLike) -> None:
        """Open a build; its files are read when they are asked for.

        Args:
            place: folder that `ubhpd.build` or `ubhpd build --out` wrote to.

        Raises:
            UbhpdError: the folder is not that of a build.
        """
        from ubhpd.manifest.build_folder import BuildFolder

        self._files = BuildFolder.at(Path(place))
        self._files.check()

    @property
    def folder(self) -> Path:
        """The folder."""
        return self._files.folder

    @cached_property
    def pool(self) -> pd.DataFrame:
        """Every head that was found, one row each, those that cannot be used with their `drop_reason`.

        The columns are those of docs/manifest.md.
        """
        return frame_of(self._files.require("pool"))

    @cached_property
    def ubhpd(self) -> pd.DataFrame:
        """The heads of UBHPD with their split ("train" or "test"), bins and weights.

        Raises:
            UbhpdError: UBHPD was not sampled.
        """
        return frame_of(self._files.require("ubhpd"))

    @property
    def manifest(self) -> Path:
        """The manifest of UBHPD if it was sampled, else that of the pool."""
        return self._files.manifest()

    @property
    def has_ubhpd(self) -> bool:
        """Whether UBHPD was sampled."""
        return self._files.find("ubhpd") is not None

    @property
    def report(self) -> dict[str, Any]:
        """The content of build.json: options, counts, notes, the sampling, the split and the audit."""
        return self._files.record

    def root(self, dataset: str) -> Path:
        """Return the folder, or the archive, that `image_path` of a dataset is relative to.

        Raises:
            UbhpdError: the build has no such dataset.
        """
        roots = self._files.roots
        place, inside = pick(roots, dataset, f"dataset of {self.folder}")[1][0]
        return Path(place, inside) if inside and Path(place).is_dir() else Path(place)

    def density(self) -> pd.DataFrame:
        """Return heads and densities per angle and bin of 12 degrees, see `ubhpd.density`."""
        return density(self)

    def plot_density(self, kind: FigureKind = "density") -> Figure:
        """Return a figure of the densities, see `ubhpd.plot_density`."""
        return plot_density(self, kind)

    def dataset(
        self,
        split: str = "train",
        *,
        crop: str = "square",
        size: int | None = None,
        transform: Callable[[Any], Any] | None = None,
        protocol: str | None = None,
        cache: PathLike | None = None,
        progress: bool = True,
    ) -> HeadDataset:
        """Return the heads of a split as a `torch.utils.data.Dataset` of (image, target).

        The crops are cut once, into an HDF5 file in the build's work folder, and read from there.

        Args:
            split: "train" or "test".
            crop: name of a crop recipe, see `ubhpd.list_crops`.
            size: side of the image in pixels; the recipe's own by default.
            transform: called with the crop, uint8 (size, size, 3) in RGB, its result is the image. Without it the image
                is a float32 tensor (3, size, size) with values from 0 to 1.
            protocol: take the training or test set of this protocol; by default that of UBHPD.
            cache: folder for the crops.
            progress: show a bar while the crops are cut.

        Raises:
            UbhpdError: no such split, recipe or protocol, or no image that can be cut.
        """
        from ubhpd.training.feeding import head_dataset

        return head_dataset(
            self.folder, split, crop=crop, size=size, transform=transform, protocol=protocol,
            cache=Path(cache) if cache is not None else None, progress=Progress(progress),
        )  # fmt: skip

    def table(self) -> pd.DataFrame:
        """Return heads per dataset: found, usable, and in UBHPD by split."""
        import pandas as pd

        chosen = (self.report.get("unbiased") or {}).get("datasets", {})
        rows = {
            name: {"heads": own["heads"], "usable": own["usable"], **_split_counts(chosen.get(name))}
            for name, own in self.report["datasets"].items()
        }
        return pd.DataFrame(rows).T.astype("Int64").rename_axis("dataset")

    def _heading(self) -> str:
        heads = sum(own["heads"] for own in self.report["datasets"].values())
        return f"Build {self.folder}: {heads:,} heads, pool fingerprint {str(self.report['fingerprint'])[:12]}"

    def __repr__(self) -> str:
        return f"<{self._heading()}>"


def build(
    sources: str | Sequence[str],
    *,
    data_root: PathLike | None = None,
    out: PathLike,
    roots: Mapping[str, PathLike] | None = None,
    options: Mapping[str, Mapping[str, str]] | None = None,
    max_angle: float = 99.0,
    check_images: bool = False,
    pool_only: bool = False,
    size: int | Literal["auto"] = 25_000,
    target: str = "gaussian",
    sigma: float | Literal["auto"] | tuple[float | Literal["auto"], ...] = "auto",
    seed: int = 0,
    mode: Literal["joint", "independent"] = "joint",
    split: Literal["random", "sequence", "subject"] = "random",
    exclude: Sequence[str] = (),
    drop_flagged: bool = False,
    decisions: PathLike | None = None,
    hdf5: bool = False,
    jobs: int = 1,
    backend: str = "loky",
    scheduler: str | None = None,
    progress: bool = True,
) -> Build:
    """Read raw datasets into a pool, and sample UBHPD (unbiased head pose dataset) from it.

    Args:
        sources: names of datasets, see `ubhpd.list_datasets`.
        data_root: folder or archive to search for them.
        out: folder to write to. The same call again reads only what has changed.
        roots: places of datasets that are not below `data_root`.
        options: modes by dataset, as {"biwi": {"frame": "rgb"}}.
        max_angle: heads with an angle beyond it, in degrees, are refused.
        check_images: decode every image instead of reading its header.
        pool_only: do not sample UBHPD.
        size: heads of UBHPD, or "auto" for as many as can be balanced.
        target: density that yaw, pitch and roll shall have: "gaussian", "widest" (for each angle the widest
            Gaussian that the pool allows), "uniform", "joint" (as even over the joint cells of the three angles as the
            pool allows), or a file with 15 numbers, or 15 for each angle.
        sigma: width of the Gaussian in degrees, or "auto"; three of them for yaw, pitch and roll.
        seed: chooses among equally good heads, and the split.
        mode: "joint" solves a linear programme; "independent" samples by the three histograms, for comparison.
        split: what stays in one split: nothing, a recording, or a person.
        exclude: datasets of the pool to leave out of UBHPD.
        drop_flagged: leave out heads that automatic checks flag.
        decisions: CSV of heads to keep or drop, as `ubhpd review` writes it.
        hdf5: write HDF5 beside Parquet.
        jobs: processes, -1 for all cores.
        backend: joblib backend: "loky", "threading", "dask" or "ray".
        scheduler: address of a Dask scheduler.
        progress: show progress bars.

    Raises:
        UbhpdError: an unknown dataset or option, a dataset that is missing or broken as a whole, no usable head.
    """
    from ubhpd.pipeline import run
    from ubhpd.pool.build import BuildConfig
    from ubhpd.sampling.sampler import SamplingConfig
    from ubhpd.sampling.ubhpd import UnbiasedConfig

    names = (sources,) if isinstance(sources, str) else tuple(sources)
    config = BuildConfig(
        sources=names,
        out=Path(out),
        data_root=None if data_root is None else os.fspath(data_root),
        roots={name: os.fspath(place) for name, place in (roots or {}).items()},
        options=options or {},
        max_angle_deg=max_angle,
        check_images=check_images,
        hdf5=hdf5,
    )
    unbiased = None
    if not pool_only:
        unbiased = UnbiasedConfig(
            SamplingConfig(size, target, sigma, seed, mode),
            split,
            exclude=tuple(exclude),
            decisions=optional_path(decisions),
            drop_flagged=drop_flagged,
        )
    run(config, unbiased, Engine(jobs, backend, scheduler), Progress(progress))
    return Build(out)


def load(place: PathLike) -> Build:
    """Return the build in a folder.

    Args:
        place: folder that `ubhpd.build` or `ubhpd build --out` wrote to.

    Raises:
        UbhpdError: the folder is not that of a build.
    """
    return Build(place)


class Audit(Shown):
    """What the training and the test set share."""

    def __init__(self, report: AuditReport) -> None:
        """Keep a report."""
        self.report = report

    @property
    def has_leaks(self) -> bool:
        """Whether anything is shared."""
        return self.report.has_leaks

    def table(self) -> pd.DataFrame:
        """Return, per kind of leak, how many heads of the test and of the training set it concerns."""
        import pandas as pd

        return pd.DataFrame(self.report.counts()).T.rename_axis("shared")

    def pairs(self) -> pd.DataFrame:
        """Return a row per test head and kind of leak: the nearest training head, and how far it is."""
        frame: pd.DataFrame = self.report.pairs().to_pandas()
        return frame

    def _heading(self) -> str:
        return f"{self.report.train:,} heads train, {self.report.test:,} test"

    def __str__(self) -> str:
        from ubhpd.quality.audit import audit_text

        return audit_text(self.report)


def audit(
    train: Build | PathLike,
    test: Build | PathLike | None = None,
    *,
    images: bool = False,
    frames: int = 5,
    bits: int = 6,
    jobs: int = 1,
    progress: bool = True,
) -> Audit:
    """Return what the training and the test set share: persons, recordings, frames, photographs, images.

    Args:
        train: a build or a manifest with a split; with `test` the training set as a whole.
        test: the test set.
        images: compare the images, too, which takes minutes.
        frames: frames of one recording so far apart still are neighbours.
        bits: bits, of 64, in which the hashes of similar images may differ.
        jobs: processes for the images.
        progress: show a bar.

    Raises:
        UbhpdError: no manifest, no split, or images that are not there.
    """
    from ubhpd.quality.audit import AuditOptions, audit_places

    places = [None if place is None else path_of(place) for place in (train, test)]
    assert places[0] is not None
    return Audit(audit_places(places[0], places[1], AuditOptions(frames, bits), images, jobs, Progress(progress)))


def export(
    place: Build | PathLike,
    form: str,
    *,
    out: PathLike | None = None,
    recipe: str | None = None,
    size: int | None = None,
    split: str | None = None,
    image_format: Literal["png", "jpg"] = "png",
    seed: int = 0,
    skip_unreadable: bool = False,
    jobs: int = 1,
    progress: bool = True,
) -> ExportReport:
    """Write face crops or images with their labels in a format that other code reads, and return what was written.

    Args:
        place: a build, or a manifest with build.json beside it.
        form: name of a format: h5, fsanet, 6drepnet, coco, hf, csv.
        out: folder to write; by default `exports` in the build.
        recipe: crop recipe, see `ubhpd.list_crops`; by default the format's own.
        size: side of the crops in pixels.
        split: only this split.
        image_format: of crops as files; png loses nothing.
        seed: of recipes that draw their margin.
        skip_unreadable: leave out heads whose image cannot be read instead of stopping.
        jobs: processes.
        progress: show a bar.

    Raises:
        UbhpdError: an unknown format or recipe, a folder with other files, too little room, unreadable images.
    """
    from ubhpd.exports._runner import ExportConfig
    from ubhpd.exports._runner import export as run

    config = ExportConfig(
        place=path_of(place),
        form=form,
        recipe=recipe,
        size=size,
        split=split,
        out=None if out is None else Path(out),
        image=image_format,
        seed=seed,
        skip_unreadable=skip_unreadable,
    )
    return run(config, Engine(jobs), Progress(progress))


def density(heads: Build | pd.DataFrame | PathLike) -> pd.DataFrame:
    """Return heads and densities per angle and bin: dataset, angle, low_deg, high_deg, count, density, outside.

    There are 15 bins of 12 degrees from -90 to 90. `density` is the share of the heads inside the bins of that angle,
    `outside` the number of heads of that dataset and angle in no bin.

    Args:
        heads: a build, a manifest, or a data frame with yaw, pitch and roll (or yaw_deg, pitch_deg, roll_deg) in
            degrees, a row per head, and maybe `dataset`. Rows with a `drop_reason` do not count.

    Raises:
        UbhpdError: no usable head, or columns that are missing.
    """
    from ubhpd.sampling import densities

    return densities.table(densities_of(heads))


def plot_density(heads: Build | pd.DataFrame | PathLike, kind: FigureKind = "density") -> Figure:
    """Return a figure of densities; a notebook shows it, and `.savefig("file.png")` writes it.

    Args:
        heads: as for `density`, or a table that `density` or `label_counts` returned.
        kind: "density" (each angle, a column per dataset), "joint" (two angles at a time) or "overlay" (pool and UBHPD
            on top of each other).

    Raises:
        UbhpdError: an unknown kind, no usable head, or columns that are missing.
    """
    from ubhpd.reports import figures

    return pick(figures.FIGURES, kind, "figure")[1](densities_of(heads))


def _split_counts(counts: Mapping[str, int] | None) -> dict[str, int]:
    return {f"ubhpd_{name}": (counts or {}).get(name, 0) for name in ("train", "test")}


def path_of(place: Build | PathLike) -> Path:
    """Return the folder of a build, or the path itself."""
    return place.folder if isinstance(place, Build) else Path(place)


def optional_path(path: PathLike | None) -> Path | None:
    """Return the path, None for None."""
    return None if path is None else Path(path)


def frame_of(path: Path) -> pd.DataFrame:
    """Return a manifest as a data frame; errors as `ubhpd.manifest.read`."""
    from ubhpd import manifest

    frame: pd.DataFrame = manifest.read(path).to_pandas()
    return frame


def usable_heads(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that were not refused."""
    return frame[frame["drop_reason"].isna()] if "drop_reason" in frame else frame


def angles_of(frame: pd.DataFrame) -> Any:
    """Return yaw, pitch, roll (n, 3) in degrees of a table.

    Raises:
        UbhpdError: columns are missing.
    """
    for names in (ANGLE_NAMES, tuple(f"{a}_deg" for a in ANGLE_NAMES)):
        if all(name in frame for name in names):
            return frame[list(names)].to_numpy(dtype=float)
    raise UbhpdError(f"The table has the columns {', '.join(map(str, frame.columns))}: it needs yaw, pitch and roll.")


def densities_of(heads: Build | pd.DataFrame | PathLike) -> Densities:
    """Return the counts behind `density` and `plot_density`; arguments and errors as theirs."""
    from ubhpd.sampling import densities

    if isinstance(heads, (Build, str, os.PathLike)):
        place = path_of(heads)
        return densities.read(place, densities.target_for(place))
    if {"dataset", "angle", "low_deg", "count", "outside"} <= set(heads.columns):
        return _counted(heads)
    frame = usable_heads(heads)
    if "dataset" in frame:
        return densities.from_arrays({str(name): angles_of(own) for name, own in frame.groupby("dataset", sort=False)})
    return densities.from_arrays({"heads": angles_of(frame)})


def _counted(table: pd.DataFrame) -> Densities:
    """Return the densities of a table that `density` made; its rows of the pool, of UBHPD and of targets included."""
    from ubhpd.sampling.densities import POOL, TARGET, UBHPD, Densities, Tally

    tallies, target = {}, None
    for name, own in table.groupby("dataset", sort=False):
        by_angle = {a: rows.sort_values("low_deg") for a, rows in own.groupby("angle")}
        if name == TARGET:
            import numpy as np

            target = np.stack([by_angle[a]["density"].to_numpy(dtype=float) for a in ANGLE_NAMES])
            continue
        tally = Tally(str(name))
        for j, angle in enumerate(ANGLE_NAMES):
            tally.inside[j] = by_angle[angle]["count"].to_numpy(dtype="int64")
            tally.outside[j] = int(by_angle[angle]["outside"].iloc[0])
        tally.heads = int(tally.inside[0].sum() + tally.outside[0])
        tallies[str(name)] = tally
    whole = {n: tallies.pop(n, None) for n in (POOL, UBHPD)}
    datasets = [t for n, t in tallies.items() if not n.startswith(f"{UBHPD} ")]
    return Densities(tuple(datasets), whole[POOL], whole[UBHPD], target)
