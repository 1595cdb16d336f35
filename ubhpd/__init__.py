"""Unbiased head pose: read raw datasets, sample UBHPD, train models, score predictions with UBMAE.

The functions below are the Python API. They are loaded when they are used, so that `import ubhpd` takes no time. The
documentation of each is in `ubhpd.api` and, as pages, in the API reference. Everything else in the package may change
between versions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ubhpd.api.builds import Audit, Build, audit, build, density, export, load, plot_density
    from ubhpd.api.labels import (
        draw_poses,
        label_counts,
        list_crops,
        list_datasets,
        list_experiments,
        list_metrics,
        list_models,
        list_protocols,
        lower_bound,
        plot_angles,
        published_results,
        render,
        reproduce,
    )
    from ubhpd.api.runs import (
        Leaderboard,
        Submission,
        bench,
        leaderboard,
        predict,
        stress,
        submit,
        train,
    )
    from ubhpd.api.scores import Comparison, Diagnosis, Scores, compare, doctor, score
    from ubhpd.core.errors import UbhpdError

__version__ = "0.1.0"

__all__ = [
    "Audit",
    "Build",
    "Comparison",
    "Diagnosis",
    "Leaderboard",
    "Scores",
    "Submission",
    "UbhpdError",
    "audit",
    "bench",
    "build",
    "compare",
    "density",
    "doctor",
    "draw_poses",
    "export",
    "label_counts",
    "leaderboard",
    "list_crops",
    "list_datasets",
    "list_experiments",
    "list_metrics",
    "list_models",
    "list_protocols",
    "load",
    "lower_bound",
    "plot_angles",
    "plot_density",
    "predict",
    "published_results",
    "render",
    "reproduce",
    "score",
    "stress",
    "submit",
    "train",
]

# Where each name is defined.
_HOMES = {
    "ubhpd.core.errors": ("UbhpdError",),
    "ubhpd.api.builds": (
        "Audit",
        "Build",
        "audit",
        "build",
        "density",
        "export",
        "load",
        "plot_density",
    ),
    "ubhpd.api.labels": (
        "draw_poses",
        "label_counts",
        "list_crops",
        "list_datasets",
        "list_experiments",
        "list_metrics",
        "list_models",
        "list_protocols",
        "lower_bound",
        "plot_angles",
        "published_results",
        "render",
        "reproduce",
    ),
    "ubhpd.api.runs": (
        "Leaderboard",
        "Submission",
        "bench",
        "leaderboard",
        "predict",
        "stress",
        "submit",
        "train",
    ),
    "ubhpd.api.scores": (
        "Comparison",
        "Diagnosis",
        "Scores",
        "compare",
        "doctor",
        "score",
    ),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Return a function or class of the API, and remember it (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    """Return what the module has, without loading it."""
    return sorted({*globals(), *__all__})
