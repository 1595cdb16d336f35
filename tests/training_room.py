"""What the tests of training train: a small network of their own, on a small build; also as a process of its own.

python training_room.py FOLDER REQUEST    trains what REQUEST says, JSON, and prints the report
"""

import json
import sys
from pathlib import Path

from model_room import room_with

from ubhpd.core.progress import Progress
from ubhpd.pool.build import BuildConfig, build
from ubhpd.synth.writers import biwi_writer, w300lp_writer

PROTOCOL = "300wlp_biwi_15678"
QUIET = Progress(show=False)

TRIAL = '''"""Trial: a network for tests, with dropout, a loss of two terms and every part of a training recipe."""

from dataclasses import dataclass

import torch
from torch import nn

from ubhpd.nn.contract import InputRecipe, PoseNetwork, TrainingRecipe

TITLE = "Trial"
PAPER = "none"
CODE = ""
LICENSE = "MIT"
KIND = "image"
MODELS = {"trial": {}, "trial_pupil": {"distill": True}}
PARAMETERS = {"trial": 2042, "trial_pupil": 2042}
REPORTED = {}


@dataclass(frozen=True)
class Config:
    size: int = 16
    dropout: float = 0.3
    breaks_at: int = -1
    distill: bool = False


def input_recipe(config):
    return InputRecipe("square", config.size, mean=(127.5,) * 3, std=(127.5,) * 3)


def training_recipe(config):
    return TrainingRecipe(
        epochs=4, batch_size=8, lr=1e-2, optimizer="adamw", weight_decay=1e-2, schedule="cosine", warmup_epochs=1,
        clip_norm=5.0, clip_value=1.0, augmentations=("flip", "hopenet_crop"), max_angle_deg=50.0,
    )


class Network(PoseNetwork):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 15, 3, stride=2, padding=1), nn.ReLU()
        )
        self.dropout = nn.Dropout(config.dropout)
        self.angles = nn.Linear(15 * (config.size // 4) ** 2, 3)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, images):
        if self.training:
            self.steps += 1
        return {"angles": 30 * self.angles(self.dropout(self.features(images).flatten(1)))}

    def probabilities(self, output):
        return output["angles"].unsqueeze(-1).sigmoid()

    def pose(self, output):
        return output["angles"]

    def loss(self, output, target):
        error = output["angles"] - target.angles_deg
        if int(self.steps) == self.config.breaks_at:
            error = error / 0 * 0
        taught = () if target.teacher is None else (target.teacher,)
        terms = {"absolute": error.abs().mean(), "squared": 0.01 * (error**2).mean()}
        return terms | {"taught": (self.probabilities(output) - t).abs().mean() for t in taught}

    def learning_rates(self):
        return [(list(self.features.parameters()), 0.5), (list(self.angles.parameters()), 1.0)]
'''


def trial_room(folder):
    folder.mkdir(exist_ok=True)
    return room_with(folder, trial=TRIAL)


def write_build(root):
    """Build 300W-LP with eight photographs in eight views, and BIWI."""
    w300lp_writer.write(root / "raw", 32, views=4, distinct_images=8)
    biwi_writer.write(root / "raw", (1, 2), frames=3, with_depth=False)
    build(BuildConfig(("300wlp", "biwi"), root / "out", str(root / "raw")))
    return root / "out"


def main():
    import torch

    from ubhpd.training.run import TrainRequest, train

    torch.set_num_threads(1)
    given = json.loads(sys.argv[2])
    for name in ("data", "out"):
        given[name] = Path(given[name])
    with trial_room(Path(sys.argv[1])):
        report = train(TrainRequest(**given), QUIET)
    print(json.dumps(report.as_dict()))


if __name__ == "__main__":
    main()
