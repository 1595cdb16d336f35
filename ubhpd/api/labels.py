"""Labels without images, lists of what there is, and the tables and figures of the papers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ubhpd.api.builds import ANGLE_NAMES, Build, PathLike, angles_of, frame_of, optional_path, path_of, usable_heads
from ubhpd.core.errors import UbhpdError
from ubhpd.core.progress import Progress

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from ubhpd.experiments.reproduce import Reproduction
    from ubhpd.sampling.densities import Densities


def label_counts() -> pd.DataFrame:
    """Return the label counts of 300W-LP, AFLW2000-3D and BIWI that come with the package, in the form of `density`."""
    from ubhpd.sampling import densities

    return densities.table(_known_labels())


def lower_bound(
    heads: Build | pd.DataFrame | PathLike,
    size: int,
    *,
    sigma: float | None = None,
    target: PathLike | Literal["uniform"] | None = None,
) -> float:
    """Return the smallest distance to a target density that any choice of `size` of these heads can have.

    The distance is the total variation distance between the densities of the bins, averaged over the three angles. It
    is the optimum of a linear programme over the joint cells of yaw, pitch and roll.

    Args:
        heads: as for `density`; of a build the pool.
        size: heads to choose.
        sigma: width of a Gaussian target in degrees.
        target: "uniform", or a file with 15 numbers or 15 for each angle; instead of `sigma`.

    Raises:
        UbhpdError: more heads than there are, or not exactly one target.
    """
    import numpy as np

    from ubhpd.core.bins import bin_index
    from ubhpd.sampling import allocation, targets
    from ubhpd.sampling.heads import cells

    if (sigma is None) == (target is None):
        raise UbhpdError("The target is not clear: give either sigma or target.")
    aim = targets.gaussian(float(sigma)) if sigma is not None else _target(target)
    frame = heads.pool if isinstance(heads, Build) else heads
    frame = frame_of(Path(frame)) if isinstance(frame, (str, os.PathLike)) else frame
    index = bin_index(angles_of(usable_heads(frame)))
    inside = index[(index >= 0).all(axis=1)]
    return float(allocation.lower_bound(allocation.joint_counts(cells(np.asarray(inside))), aim, size))


def draw_poses(dataset: str, n: int, seed: int = 0) -> pd.DataFrame:
    """Return yaw, pitch and roll (degrees) of `n` invented heads that are distributed like those of a dataset.

    Args:
        dataset: a name of `ubhpd.list_datasets`.
        n: number of heads.
        seed: of the draw.
    """
    import numpy as np
    import pandas as pd

    from ubhpd.synth.rendered_heads import draw_poses as draw

    return pd.DataFrame(draw(dataset, n, np.random.default_rng(seed)), columns=list(ANGLE_NAMES))


def plot_angles(angles: Sequence[float] = (-60, -30, 0, 30, 60), side_px: int = 160) -> Figure:
    """Return a figure of rendered heads turned by yaw, pitch and roll alone, with the axes of the head drawn.

    Orange and green lie in the plane of the face, blue leaves at the nose.

    Args:
        angles: degrees, a column for each.
        side_px: side of an image in pixels.
    """
    import numpy as np

    from ubhpd.images.drawing import draw_axes
    from ubhpd.reports import figures
    from ubhpd.synth.rendered_heads import Head
    from ubhpd.synth.renderer.persons import expression_of
    from ubhpd.synth.writers.writer_files import draw_image, face_view

    with figures.styled():
        figure = figures.new_figure(1.44 * len(angles), 4.6)
        for (j, k), axes in np.ndenumerate(figure.subplots(3, len(angles), squeeze=False)):
            yaw, pitch, roll = (float(angles[k]) if angle == j else 0.0 for angle in range(3))
            head = Head(
                yaw_deg=yaw,
                pitch_deg=pitch,
                roll_deg=roll,
                subject=500 + j,
                centre_mm=(0.0, -60.0, 900.0),
                scale=1.15,
                expression=expression_of(500 + j, 0),
            )
            face = draw_image([(face_view(head, side_px), head)], (side_px, side_px), np.random.default_rng(j))
            draw_axes(face, head.rotation, (side_px / 2, side_px / 2), 0.4 * side_px)
            axes.imshow(face[..., ::-1])
            axes.set_axis_off()
            axes.set_title(f"{ANGLE_NAMES[j]} {angles[k]:g}°")
        return figure


def render(
    out: PathLike,
    sources: str | Sequence[str],
    *,
    heads: int,
    size: int | None = None,
    seed: int = 0,
    jobs: int = 1,
    progress: bool = True,
) -> dict[str, int]:
    """Write raw datasets of rendered heads of known pose, in the layouts of the real ones; return heads per dataset.

    Args:
        out: folder to write to; an interrupted call resumes.
        sources: names of datasets, see `ubhpd.list_datasets`.
        heads: images of each dataset.
        size: side of face images in pixels; by default as in the originals.
        seed: of poses and persons.
        jobs: processes.
        progress: show a bar.

    Raises:
        UbhpdError: an unknown dataset, impossible settings, or a folder with other files.
    """
    from ubhpd.synth.synthesize import SynthConfig, write_sources

    names = (sources,) if isinstance(sources, str) else tuple(sources)
    return write_sources(SynthConfig(names, heads, size, seed), Path(out), jobs, Progress(progress))


def list_datasets(data_root: PathLike | None = None) -> pd.DataFrame:
    """Return the datasets that can be read: name, title, heads published, licence, homepage, and where they were found.

    Args:
        data_root: folder to search.
    """
    import pandas as pd

    from ubhpd.pool.sources import survey
    from ubhpd.reports.doc_tables import heads_published

    cards = survey(None if data_root is None else os.fspath(data_root))
    rows = [
        {**{k: c[k] for k in ("name", "title", "licence", "homepage")}, "heads": heads_published(c["published"]),
         "found": ", ".join(c["found"])}
        for c in cards.values()
    ]  # fmt: skip
    return pd.DataFrame(rows).set_index("name")


def list_models() -> pd.DataFrame:
    """Return the models: name, title, kind of input, number of parameters, paper."""
    import pandas as pd

    from ubhpd.models.catalogue import catalogue

    rows = [
        {"name": c.name, "title": c.title, "kind": c.kind, "parameters": c.parameters, "paper": c.paper}
        for c in catalogue().values()
    ]
    return pd.DataFrame(rows).set_index("name").astype({"parameters": "Int64"})


def list_metrics() -> pd.DataFrame:
    """Return the scores: name, the metric it belongs to, unit, meaning, paper."""
    import pandas as pd

    from ubhpd.evaluation.metric_cards import metrics

    rows = [
        {"score": score, "metric": m.NAME, "unit": m.UNIT, "meaning": meaning, "paper": m.PAPER}
        for m in metrics().values()
        for score, meaning in m.SCORES.items()
    ]
    return pd.DataFrame(rows).set_index("score")


def list_protocols() -> pd.DataFrame:
    """Return the protocols: id, series, definition in a sentence, paper."""
    import pandas as pd

    from ubhpd.protocols.resolve import PROTOCOLS

    rows = [{"id": p.id, "series": p.series, "definition": p.sentence, "paper": p.paper} for p in PROTOCOLS.values()]
    return pd.DataFrame(rows).set_index("id")


def list_experiments() -> pd.DataFrame:
    """Return the tables and figures of the papers: id, title, kind, datasets, rows, rows that can be run, why not."""
    import pandas as pd

    from ubhpd.reports.paper_tables import listing

    columns = ["id", "title", "kind", "needs", "rows", "runnable", "why", "note"]
    return pd.DataFrame(listing(), columns=columns).rename(columns={"needs": "datasets"}).set_index("id")


def reproduce(
    experiment: str,
    data: Build | PathLike,
    out: PathLike,
    *,
    scale: str = "full",
    seeds: Sequence[int] | None = None,
    rows: Sequence[str] = (),
    backbone: PathLike | None = None,
    device: str = "auto",
    workers: int = 0,
    progress: bool = True,
) -> Reproduction:
    """Run a table or figure of a paper, and write printed beside reproduced values below `out`.

    Args:
        experiment: id of `ubhpd.list_experiments`, as "osgg/table-6".
        data: a build with the datasets that the experiment needs.
        out: folder of tables, figures and runs. Experiments share runs, and an interrupted call resumes.
        scale: "full" as the paper trains, "small" for 2,000 steps, "smoke" for two.
        seeds: a run for each; by default 0, 1 and 2 for "full", else 0.
        rows: only these methods, as the paper calls them.
        backbone: published weights that networks begin with, or "imagenet" to download torchvision's.
        device: cpu, cuda, cuda:1 or auto.
        workers: threads that read images.
        progress: show a bar.

    Raises:
        UbhpdError: an unknown experiment, scale or row; one that cannot be run; no build, or one without its datasets.
    """
    from ubhpd.experiments.reproduce import ReproduceRequest
    from ubhpd.experiments.reproduce import reproduce as run

    request = ReproduceRequest(
        experiment, path_of(data), Path(out), scale, None if seeds is None else tuple(seeds),
        (rows,) if isinstance(rows, str) else tuple(rows), device, workers, optional_path(backbone),
    )  # fmt: skip
    return run(request, Progress(progress))


def list_crops() -> pd.DataFrame:
    """Return the crop recipes: name, side in pixels, where the box comes from, whose code it follows, what to know."""
    import pandas as pd

    from ubhpd.images.recipes import RECIPES

    rows = [
        {"name": r.name, "size": r.size, "box": ", ".join(r.sources), "reference": r.reference, "note": r.note}
        for r in RECIPES.values()
    ]
    return pd.DataFrame(rows).set_index("name").astype({"size": "Int64"})


def published_results() -> pd.DataFrame:
    """Return the results that papers print, degrees: paper, table, train, test, method, the errors, UBMAE, note.

    `k_yaw`, `k_pitch` and `k_roll` are the constants of the pair of training and test set, `ubmae_rule` the UBMAE that
    they give for the row; NaN where they are not known, see docs/what-is-ubmae.md. `note` says what is wrong with it,
    `differs` why it cannot be compared with the others, `source` is the address of a repository.
    """
    import pandas as pd

    from ubhpd.evaluation.printed_results import printed_pairs, results

    constants = printed_pairs()
    rows = []
    for row in results():
        k = constants.get((row.train, row.test))
        own = {f"k_{angle}": float("nan") if k is None else float(k[j]) for j, angle in enumerate(ANGLE_NAMES)}
        rule = float("nan") if k is None or row.angles is None else float(k @ row.angles / 3)
        rows.append({**row._asdict(), **own, "ubmae_rule": rule})
    return pd.DataFrame(rows).drop(columns=["row", "decimals"])


def _target(target: PathLike | None) -> Any:
    from ubhpd.sampling import targets

    return targets.uniform() if target == "uniform" else targets.from_file(os.fspath(target or ""))


def _known_labels() -> Densities:
    from ubhpd.evaluation.pairing import known
    from ubhpd.sampling.densities import Densities, Tally

    tallies = []
    for name, own in known().items():
        inside, outside = own.counts.astype("int64"), own.outside.astype("int64")
        tallies.append(Tally(name, int(inside[0].sum() + outside[0]), inside, outside))
    return Densities(tuple(tallies), None, None)
