"""Models of a test's own in the room of baselines: the complete example of docs/add-a-model.md, a geometric method, and
more."""

import importlib
import re
import sys
from contextlib import contextmanager

from wheel_check import REPOSITORY

from ubhpd import baselines
from ubhpd.models.catalogue import catalogue

PAGE = REPOSITORY / "docs" / "add-a-model.md"

GEOMETRIC = '''"""Mean: the mean of the heads, whatever it sees."""

from dataclasses import dataclass

import numpy as np

TITLE = "Mean"
KIND = "geometric"
PAPER = "none"
CODE = ""
LICENSE = "MIT"
MODELS = {"middle": {}}
REPORTED = {"middle": "VGG16"}


@dataclass(frozen=True)
class Config:
    trim: float = 0.0


def fit(config, heads):
    return {"mean_deg": heads.angles_deg.mean(axis=0) + config.trim}


def solve(config, parameters, heads):
    return np.tile(parameters["mean_deg"], (len(heads.sample_id), 1))
'''

REPORTED = '''"""Nobody can build this one: its paper is lost."""

TITLE = "Lost"
PAPER = "lost"
CODE = ""
LICENSE = "none"
KIND = "reported"
MODELS = {"lost": {}}
REPORTED = {"lost": "QuatNet"}
'''


def blocks():
    """The Python blocks of the page: the model and its test."""
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)


@contextmanager
def room_with(folder, **files):
    """Let files of a folder be baselines too, by their stems."""
    for stem, text in files.items():
        (folder / f"{stem}.py").write_text(text)
    baselines.__path__.append(str(folder))
    _forget(files)
    try:
        yield
    finally:
        baselines.__path__.remove(str(folder))
        _forget(files)


def _forget(files):
    importlib.invalidate_caches()
    catalogue.cache_clear()
    for stem in files:
        sys.modules.pop(f"ubhpd.baselines.{stem}", None)
        baselines.__dict__.pop(stem, None)
