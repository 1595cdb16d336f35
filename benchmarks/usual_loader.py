"""Feeds and trains a network as the field's scripts do: what `training.py` compares with."""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np
import scipy.io
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler
from usual_crops import hopenet_box

from ubhpd.models.model import Model
from ubhpd.nn.contract import InputRecipe, Target, TrainingRecipe
from ubhpd.nn.outputs import matrix_from_euler
from ubhpd.training.feeding import HeadBatch
from ubhpd.training.loop import optimizer_of, set_learning_rate

WORKERS = 2  # processes, as Hopenet's script has
ENDLESS = 10**9  # heads

Example = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class UsualHeads(Dataset[Example]):
    """Heads as Hopenet's loader gives them: image (3, size, size), yaw, pitch, roll in degrees, landmarks (68, 2)."""

    def __init__(self, paths: list[str], recipe: InputRecipe) -> None:
        self._paths, self._size = paths, recipe.size
        self._step = 1 if recipe.colour == "RGB" else -1
        self._mean, self._std = (torch.tensor(v).view(3, 1, 1) for v in (recipe.mean, recipe.std))

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Example:
        path = self._paths[index]
        image = Image.open(path).convert("RGB")
        label = path.removesuffix(".jpg") + ".mat"
        points = scipy.io.loadmat(label)["pt2d"]
        x_min, y_min, x_max, y_max = hopenet_box(points)
        pitch, yaw, roll = np.degrees(scipy.io.loadmat(label)["Pose_Para"][0][:3])
        image = image.crop((int(x_min), int(y_min), int(x_max), int(y_max)))
        image = image.resize((self._size, self._size), Image.Resampling.BILINEAR)
        pixels = np.ascontiguousarray(np.asarray(image)[:, :, :: self._step].transpose(2, 0, 1))
        pixels = (torch.from_numpy(pixels).float() - self._mean) / self._std
        corner, side = np.array([[x_min], [y_min]]), np.array([[x_max - x_min], [y_max - y_min]])
        landmarks = ((points - corner) / side - 0.5).T.astype(np.float32)
        return pixels, torch.tensor([yaw, pitch, roll], dtype=torch.float64), torch.from_numpy(landmarks)


def usual_batches(
    heads: UsualHeads, size: int, device: torch.device, workers: int = WORKERS
) -> Generator[HeadBatch, None, None]:
    """Yield batches of the usual loader without end."""
    order = RandomSampler(heads, replacement=True, num_samples=ENDLESS)
    for images, angles, landmarks in DataLoader(heads, size, sampler=order, num_workers=workers):
        target = Target(angles.float(), matrix_from_euler(angles).float(), landmarks)
        yield HeadBatch(np.empty(0, dtype=np.int64), images, target).to(device)


def plain_step(model: Model, recipe: TrainingRecipe, device: torch.device) -> Callable[[HeadBatch], None]:
    """Return the step that the field's scripts take, the optimiser as torch has it by default."""
    network = model.network.to(device).train()
    optimizer = optimizer_of(network, recipe, fused=None)
    set_learning_rate(optimizer, recipe.lr)

    def step(batch: HeadBatch) -> None:
        optimizer.zero_grad()
        terms = network.loss(network(batch.inputs), batch.target)
        torch.autograd.backward(torch.stack(list(terms.values())).sum())
        optimizer.step()

    return step
